"""Weighted means, scatter and Gram matrices of rows, and their leading axes.

The counting is that of repeated rows: a row of weight 3 stands for three rows. Every
function runs in the namespace of its input (NumPy, SciPy sparse or array API) and
accumulates in the widest float the device has.

References
----------
T. F. Chan, G. H. Golub and R. J. LeVeque (1983). Algorithms for computing the sample
variance: analysis and recommendations. The American Statistician 37(3).
:doi:`10.1080/00031305.1983.10483115`
"""

from collections.abc import Iterator
from typing import Any, NamedTuple

import numpy as np
from scipy import linalg, sparse
from sklearn.utils import gen_batches
from sklearn.utils.extmath import svd_flip
from sklearn.utils.sparsefuncs import mean_variance_axis

from skae._base import (
    get_namespace,
    get_namespace_and_device,
    is_numpy_namespace,
    widest_float,
)

# Rows of X are summed raw and corrected by n mu mu' where that loses nothing: the raw
# sum is exact to eps (1 + sum mu^2 / sum var), so this is the loss that is accepted.
_ACCEPTED_LOSS = {np.dtype("float64"): 1e-12, np.dtype("float32"): 1e-6}
_BLOCK_BYTES = 2**24


class Moments(NamedTuple):
    """Number of rows, mean (D,) and scatter sum_i w_i (x_i - mu)(x_i - mu)' (D, D)."""

    n: float
    mean: Any
    scatter: Any


def count_rows(X: Any, sample_weight: Any | None) -> float:
    """The number of rows, or the sum of their weights; whole numbers as int."""
    if sample_weight is None:
        return X.shape[0]
    n = to_float(sample_weight.sum())
    return round(n) if abs(n - round(n)) < 1e-9 * n else n


def moments(X: Any, sample_weight: Any | None = None) -> Moments:
    """Mean and scatter of dense or sparse rows, of shape (n_samples, n_features)."""
    xp, _ = get_namespace(X)
    n = count_rows(X, sample_weight)
    mean = row_mean(X, sample_weight)
    if sparse.issparse(X):
        weighted = X if sample_weight is None else X.multiply(sample_weight[:, None]).tocsr()
        scatter = np.asarray((X.T @ weighted).todense(), dtype=np.float64)
        scatter -= n * np.outer(mean, mean)
        return Moments(n, mean, scatter)
    if is_numpy_namespace(xp) and sample_weight is None:
        scatter = _raw_scatter(X)
        shift = n * np.square(mean)
        spread = max(np.trace(scatter) - shift.sum(), 0.0)
        if np.finfo(X.dtype).eps * shift.sum() <= _ACCEPTED_LOSS[X.dtype] * spread:
            scatter -= n * np.outer(mean, mean)
            return Moments(n, mean, scatter)
    scatter = xp.zeros((X.shape[1], X.shape[1]), dtype=mean.dtype, device=_device(X))
    # Sum of (x - mean): zero but for the rounding of the mean; taken out to second order.
    rest = xp.zeros_like(mean)
    for rows, weight in _row_blocks(X, sample_weight):
        centred = _cast(rows, mean.dtype) - mean
        weighted = centred if weight is None else centred * weight[:, None]
        scatter += weighted.T @ centred
        rest += xp.sum(weighted, axis=0)
    rest = rest / n
    scatter -= n * rest[:, None] * rest[None, :]
    return Moments(n, mean + rest, scatter)


def merge(a: Moments, b: Moments) -> Moments:
    """Moments of two sets of rows together (Chan, Golub and LeVeque 1983, eq. 2.1b)."""
    n = a.n + b.n
    step = b.mean - a.mean
    scatter = a.scatter + b.scatter + (a.n * b.n / n) * step[:, None] * step[None, :]
    return Moments(n, a.mean + (b.n / n) * step, scatter)


def row_mean(X: Any, sample_weight: Any | None = None) -> Any:
    """Weighted mean row, (n_features,), in the widest float."""
    xp, _ = get_namespace(X)
    if sparse.issparse(X):
        return mean_variance_axis(X.astype(np.float64, copy=False), axis=0, weights=sample_weight)[0]
    dtype = widest_float(X)
    total = xp.zeros(X.shape[1], dtype=dtype, device=_device(X))
    for rows, weight in _row_blocks(X, sample_weight):
        if weight is None:
            weight = xp.ones(rows.shape[0], dtype=rows.dtype, device=_device(X))
        total += _cast(_cast(weight, rows.dtype) @ rows, dtype)
    return total / count_rows(X, sample_weight)


def total_scatter(X: Any, mean: Any, sample_weight: Any | None = None) -> float:
    """Trace of the scatter of NumPy or sparse rows, without the scatter."""
    if sparse.issparse(X):
        variance = mean_variance_axis(X, axis=0, weights=sample_weight)[1]
        return float(variance.sum(dtype=np.float64)) * count_rows(X, sample_weight)
    total = 0.0
    for rows, weight in _row_blocks(X, sample_weight):
        squared = np.square(rows - mean).sum(axis=1)
        total += float(squared.sum() if weight is None else weight @ squared)
    return total


def gram(X: Any, mean: Any, sample_weight: Any | None = None) -> Any:
    """Gram matrix sqrt(w_i w_j) (x_i - mu)'(x_j - mu), (n_samples, n_samples)."""
    xp, _ = get_namespace(X)
    root = None if sample_weight is None else xp.sqrt(_cast(sample_weight, mean.dtype))
    if sparse.issparse(X):
        result = np.asarray((X @ X.T).todense(), dtype=np.float64)
        cross = X @ mean
        result += mean @ mean - cross[:, None] - cross[None, :]
    else:
        result = xp.zeros((X.shape[0], X.shape[0]), dtype=mean.dtype, device=_device(X))
        width = max(1, 2 * _BLOCK_BYTES // (X.shape[0] * 8))
        for columns in gen_batches(X.shape[1], width):
            centred = X[:, columns] - _cast(mean[columns], X.dtype)
            result += _cast(centred @ centred.T, mean.dtype)
    return result if root is None else result * root[:, None] * root[None, :]


def leading_axes(matrix: Any, n_axes: int) -> tuple[Any, Any]:
    """Largest eigenvalues (k,), clipped at zero, and eigenvectors (D, k), symmetric input."""
    xp, _ = get_namespace(matrix)
    size = matrix.shape[0]
    if is_numpy_namespace(xp) and 0 < n_axes < size:
        subset = [size - n_axes, size - 1]
        values, vectors = linalg.eigh(matrix, subset_by_index=subset, check_finite=False)
    else:
        values, vectors = xp.linalg.eigh(matrix)
    values = xp.flip(values, axis=0)[:n_axes]
    vectors = xp.flip(vectors, axis=1)[:, :n_axes]
    return xp.where(values > 0, values, xp.zeros_like(values)), vectors


class PrincipalAxes(NamedTuple):
    """Leading eigenvalues (k,) and axes (k, D) of a scatter matrix, and its trace."""

    n: float
    mean: Any
    scatter_values: Any
    axes: Any
    scatter_trace: float


def axes_of_moments(stats: Moments, n_axes: int) -> PrincipalAxes:
    """Principal axes of rows that are known by their moments."""
    xp, _ = get_namespace(stats.mean)
    check_scale(stats.scatter)
    values, vectors = leading_axes(stats.scatter, n_axes)
    trace = to_float(xp.linalg.trace(stats.scatter))
    return PrincipalAxes(stats.n, stats.mean, values, _oriented(vectors.T), trace)


def principal_axes(X: Any, sample_weight: Any | None, n_axes: int) -> PrincipalAxes:
    """Exact principal axes, through the smaller of the scatter and the Gram matrix."""
    if X.shape[1] <= X.shape[0]:
        return axes_of_moments(moments(X, sample_weight), n_axes)
    xp, _ = get_namespace(X) if not sparse.issparse(X) else (np, False)
    mean = row_mean(X, sample_weight)
    products = gram(X, mean, sample_weight)
    check_scale(products)
    values, vectors = leading_axes(products, n_axes)
    trace = to_float(xp.linalg.trace(products))
    if sample_weight is not None:
        vectors = vectors * xp.sqrt(_cast(sample_weight, vectors.dtype))[:, None]
    # The columns X'u are orthogonal already; QR gives them unit length, also where the
    # eigenvalue is zero and any direction of the null space will do.
    images = _cast(X.T @ _cast(vectors, X.dtype), mean.dtype)
    images = images - mean[:, None] * xp.sum(vectors, axis=0)[None, :]
    axes, _ = xp.linalg.qr(images)
    return PrincipalAxes(count_rows(X, sample_weight), mean, values, _oriented(axes.T), trace)


def check_scale(matrix: Any) -> None:
    """Refuse squares that left the range of the float type."""
    xp, _ = get_namespace(matrix)
    if not bool(xp.all(xp.isfinite(matrix))):
        raise ValueError(
            "The squares of X overflow: its values are too large. Rescale X, for example "
            "with sklearn.preprocessing.StandardScaler."
        )


def to_float(value: Any) -> float:
    return float(value)


def _oriented(axes: Any) -> Any:
    """Axes (k, D) with scikit-learn's sign: the largest entry of each is positive."""
    return svd_flip(None, axes, u_based_decision=False)[1]


def _raw_scatter(X: Any) -> Any:
    """X'X in float64 without a copy of X, by a symmetric rank-k update for each block."""
    update = linalg.blas.dsyrk if X.dtype == np.float64 else linalg.blas.ssyrk
    scatter = np.zeros((X.shape[1], X.shape[1]))
    # float32 sums leave float32 after every block, before they lose digits.
    block = X.shape[0] if X.dtype == np.float64 else 2**14
    for batch in gen_batches(X.shape[0], block):
        rows = X[batch]
        if rows.flags.f_contiguous:
            scatter += update(1.0, rows, trans=1)
        else:
            scatter += update(1.0, rows.T)
    return np.triu(scatter) + np.triu(scatter, 1).T


def _row_blocks(X: Any, sample_weight: Any | None) -> Iterator[tuple[Any, Any]]:
    """Slices of rows, each of about 16 MB, with their weights."""
    block = max(256, _BLOCK_BYTES // (8 * X.shape[1]))
    for rows in gen_batches(X.shape[0], block):
        yield X[rows, :], None if sample_weight is None else sample_weight[rows]


def _cast(X: Any, dtype: Any) -> Any:
    xp, _ = get_namespace(X)
    return xp.astype(X, dtype, copy=False)


def _device(X: Any) -> Any:
    return get_namespace_and_device(X)[2]
