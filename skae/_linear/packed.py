"""Many symmetric matrices as packed lower triangles (k(k+1)/2, n), in row-major order.

The last axis enumerates the matrices, so that every step is an operation on contiguous memory.
"""

from functools import lru_cache

import numpy as np
from numpy.typing import NDArray

Array = NDArray[np.float64]


@lru_cache(maxsize=16)
def triangle(n_latents: int) -> tuple[NDArray[np.intp], NDArray[np.intp]]:
    """Row and column indices of a packed lower triangle, which cannot be written to."""
    first, second = np.tril_indices(n_latents)
    first.flags.writeable = second.flags.writeable = False
    return first, second


def invert_packed(matrices: Array) -> Array:
    """Invert symmetric positive definite matrices in place; returns their log-determinants.

    `matrices` (k(k+1)/2, G) are packed lower triangles. The sweep operator is applied to each
    diagonal entry j: A becomes A - a_j a_j' / a_jj, then row and column j become a_j / a_jj, and
    the entry becomes -1 / a_jj. The result is -A^-1, and the product of the pivots is the
    determinant.
    """
    n_latents = _order(matrices)
    rows = [matrices[i * (i + 1) // 2 : (i + 1) * (i + 2) // 2] for i in range(n_latents)]
    log_det = np.zeros(matrices.shape[1])
    column = np.empty((n_latents, matrices.shape[1]), dtype=matrices.dtype)
    product = np.empty_like(column)
    for j in range(n_latents):
        column[:j] = rows[j][:j]
        for i in range(j, n_latents):
            column[i] = rows[i][j]
        pivot = column[j].copy()
        log_det += np.log(pivot)
        scaled = column / pivot
        for i in range(n_latents):
            if i != j:
                rows[i] -= np.multiply(scaled[: i + 1], column[i], out=product[: i + 1])
                if i > j:
                    rows[i][j] = scaled[i]
        rows[j][:j] = scaled[:j]
        rows[j][j] = -1.0 / pivot
    np.negative(matrices, out=matrices)
    return log_det


def multiply_packed(matrices: Array, vectors: Array) -> Array:
    """Products of packed symmetric matrices (k(k+1)/2, n) and vectors (k, n)."""
    result = np.empty_like(vectors)
    for i in range(len(vectors)):
        row = matrices[i * (i + 1) // 2 : (i + 1) * (i + 2) // 2]
        result[i] = np.einsum("jn,jn->n", row, vectors[: i + 1])
        result[:i] += row[:i] * vectors[i]
    return result


def unpack(matrices: Array) -> Array:
    """Packed lower triangles (k(k+1)/2, n) as full matrices (n, k, k)."""
    n_latents = _order(matrices)
    first, second = triangle(n_latents)
    full = np.empty((matrices.shape[1], n_latents, n_latents))
    full[:, first, second] = full[:, second, first] = matrices.T
    return full


def pack(full: Array) -> Array:
    """Symmetric matrices (n, k, k) as packed lower triangles (k(k+1)/2, n)."""
    first, second = triangle(full.shape[1])
    return np.ascontiguousarray(full[:, first, second].T)


def _order(matrices: Array) -> int:
    return int((np.sqrt(8 * len(matrices) + 1) - 1) / 2 + 0.5)
