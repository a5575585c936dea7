"""Loops over rows with missing values that Numba compiles."""

from typing import Any

import numpy as np

from skae._utils.compiler import compiled

# Number of matrices that are inverted side by side, so that they stay in the cache of the
# processor and their entries are operands of vector instructions. If this were a constant of the
# compiled code, the loops over it would be unrolled before they are vectorized.
LANES = 64


@compiled("contract")
def invert(matrices: Any, n_latents: int, log_det: Any, n_lanes: int) -> None:
    """Invert packed matrices (k(k+1)/2, G) in place, and write log-determinants to `log_det` (G,).

    This is the sweep of `invert_packed`.
    """
    n_matrices = matrices.shape[1]
    A = np.empty((len(matrices), n_lanes), matrices.dtype)
    column, scaled = np.empty((2, n_latents, n_lanes), matrices.dtype)
    for first in range(0, n_matrices, n_lanes):
        n = min(n_lanes, n_matrices - first)
        for t in range(len(A)):
            for lane in range(n):
                A[t, lane] = matrices[t, first + lane]
        for lane in range(n):
            log_det[first + lane] = 0.0
        for j in range(n_latents):
            for i in range(n_latents):
                t = i * (i + 1) // 2 + j if i > j else j * (j + 1) // 2 + i
                for lane in range(n):
                    column[i, lane] = A[t, lane]
            for lane in range(n):
                log_det[first + lane] += np.log(column[j, lane])
                scaled[j, lane] = 1.0 / column[j, lane]
            for i in range(n_latents):
                if i != j:
                    for lane in range(n):
                        scaled[i, lane] = column[i, lane] * scaled[j, lane]
            for i in range(n_latents):
                row = i * (i + 1) // 2
                for m in range(i + 1):
                    for lane in range(n):
                        A[row + m, lane] -= scaled[m, lane] * column[i, lane]
            for lane in range(n):
                scaled[j, lane] = -scaled[j, lane]
            for i in range(n_latents):
                t = i * (i + 1) // 2 + j if i > j else j * (j + 1) // 2 + i
                for lane in range(n):
                    A[t, lane] = scaled[i, lane]
        for t in range(len(A)):
            for lane in range(n):
                matrices[t, first + lane] = -A[t, lane]


@compiled()
def centre(X: Any, rows: Any, shift: Any, centred: Any) -> None:
    """Write X[rows] - shift, with zero for NaN."""
    for place, row in enumerate(rows):
        for d in range(len(shift)):
            value = X[row, d] - shift[d]
            centred[place, d] = 0.0 if np.isnan(value) else value
