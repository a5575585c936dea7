"""Weighted means, scatter and Gram matrices of rows, and their leading axes.

A row of weight 3 has the same effect as three copies of the row. Every function computes in the
namespace of its input (NumPy, SciPy sparse or array API) and accumulates in the most precise float
dtype of the device.
"""

from collections.abc import Iterator
from math import frexp, sqrt
from typing import Any, NamedTuple

import numpy as np
from scipy import linalg, sparse
from sklearn.utils import gen_batches
from sklearn.utils.extmath import svd_flip
from sklearn.utils.sparsefuncs import mean_variance_axis

from skae._utils.validation import (
    get_namespace,
    get_namespace_and_device,
    is_numpy_namespace,
    widest_float,
)

_BLOCK_BYTES = 2**24


class Moments(NamedTuple):
    """Number of rows, mean (D,) and scatter sum_i w_i (x_i - mu)(x_i - mu)' (D, D)."""

    n: float
    mean: Any
    scatter: Any


class PrincipalAxes(NamedTuple):
    """Leading eigenvalues (k,) and axes (k, D) of a scatter matrix, and its trace."""

    n: float
    mean: Any
    scatter_values: Any
    axes: Any
    scatter_trace: float


def count_rows(X: Any, sample_weight: Any | None) -> float:
    """The number of rows, or the sum of their weights, as an int if it is a whole number."""
    if sample_weight is None:
        return int(X.shape[0])
    return rounded_count(float(sample_weight.sum()))


def rounded_count(n: float) -> float:
    """A sum of weights, as an int if it is a whole number up to rounding errors."""
    return round(n) if abs(n - round(n)) < 1e-9 * n else n


def count_enough_rows(X: Any, sample_weight: Any | None) -> float:
    """The number of rows, or the sum of their weights; raises unless it exceeds 1."""
    return check_count(count_rows(X, sample_weight))


def check_count(n: float) -> float:
    """Return the number of rows, or the sum of their weights; raises unless it exceeds 1."""
    if n <= 1:
        raise ValueError(
            f"sample_weight adds up to {n:g}. The sum is the number of rows and must exceed 1, "
            "because variances need more than 1 row. Multiply relative weights by the number of "
            "rows."
        )
    return n


def row_mean(X: Any, sample_weight: Any | None = None) -> Any:
    """Weighted mean of the rows, (n_features,), in the most precise float dtype."""
    xp, _ = get_namespace(X)
    if sparse.issparse(X):
        return _sparse_mean_and_variance(X, sample_weight)[0]
    dtype = widest_float(X)
    sample_weight, _ = scaled_weight(sample_weight)
    total = xp.zeros(X.shape[1], dtype=dtype, device=_device(X))
    # Blocks are short, because long sums of float32 are inaccurate.
    for rows, weight in _row_blocks(X, sample_weight, _BLOCK_BYTES // 8):
        if weight is None:
            weight = xp.ones(rows.shape[0], dtype=rows.dtype, device=_device(X))
        total += _cast(_cast(weight, rows.dtype) @ rows, dtype)
    return total / (X.shape[0] if sample_weight is None else float(xp.sum(sample_weight)))


def scaled_weight(sample_weight: Any | None) -> tuple[Any | None, float]:
    """Weights divided by a power of two, and this power.

    The scaled weights are below 2, so that their sums and squares do not overflow in float32. The
    division is exact.
    """
    if sample_weight is None:
        return None, 1.0
    xp, _ = get_namespace(sample_weight)
    scale = 2.0 ** (frexp(float(xp.max(sample_weight)))[1] - 1)
    return sample_weight / scale, scale


def _sparse_mean_and_variance(X: Any, sample_weight: Any | None) -> tuple[Any, Any]:
    sample_weight, _ = scaled_weight(sample_weight)
    return mean_variance_axis(X.astype(np.float64, copy=False), axis=0, weights=sample_weight)


def moments(X: Any, sample_weight: Any | None = None, mean: Any | None = None) -> Moments:
    """Mean (unless it is given) and scatter of dense or sparse rows."""
    xp, _ = get_namespace(X)
    n = count_rows(X, sample_weight)
    mean = row_mean(X, sample_weight) if mean is None else mean
    if sparse.issparse(X):
        X = X.tocsr().astype(np.float64, copy=False)
    if sparse.issparse(X) or (sample_weight is None and is_numpy_namespace(xp)):
        scatter = _raw_scatter(X, sample_weight)
        shift = n * float(mean @ mean)
        if _loses_nothing(X.dtype, shift, np.trace(scatter) - shift):
            return Moments(n, mean, scatter - n * np.outer(mean, mean))
    sample_weight, scale = scaled_weight(sample_weight)
    scatter = xp.zeros((X.shape[1], X.shape[1]), dtype=mean.dtype, device=_device(mean))
    rounded = _cast(mean, X.dtype)
    for rows, weight in _row_blocks(X, sample_weight, _BLOCK_BYTES):
        centred = rows - rounded
        if weight is not None:
            centred = centred * _cast(xp.sqrt(weight), X.dtype)[:, None]
        scatter += _cast(_square(centred), mean.dtype)
    rest = mean - _cast(rounded, mean.dtype)
    return Moments(n, mean, scale * scatter - n * rest[:, None] * rest[None, :])


def feature_scatter(X: Any, mean: Any, sample_weight: Any | None = None) -> Any:
    """Diagonal of the scatter of NumPy or sparse rows (D,), without computing the scatter."""
    if sparse.issparse(X):
        variance = _sparse_mean_and_variance(X, sample_weight)[1]
        return variance * count_rows(X, sample_weight)
    total = np.zeros(X.shape[1])
    for rows, weight in _row_blocks(X, sample_weight, _BLOCK_BYTES):
        squared = np.square(rows - mean)
        total += squared.sum(axis=0) if weight is None else weight @ squared
    return total


def gram(X: Any, mean: Any, sample_weight: Any | None = None) -> Any:
    """Gram matrix sqrt(w_i w_j) (x_i - mu)'(x_j - mu), (n_samples, n_samples)."""
    xp, _ = get_namespace(X)
    if sparse.issparse(X):
        X = X.astype(np.float64, copy=False)
        products = np.asarray((X @ X.T).todense())
        cross = X @ mean
        products += mean @ mean - cross[:, None] - cross[None, :]
    else:
        products = xp.zeros((X.shape[0], X.shape[0]), dtype=mean.dtype, device=_device(X))
        for columns in gen_batches(X.shape[1], max(256, _BLOCK_BYTES // (2 * X.shape[0]))):
            centred = X[:, columns] - _cast(mean[columns], X.dtype)
            products += _cast(centred @ centred.T, mean.dtype)
    if sample_weight is None:
        return products
    root = _cast(xp.sqrt(sample_weight), mean.dtype)
    return products * root[:, None] * root[None, :]


def principal_axes(
    X: Any, sample_weight: Any | None, n_axes: int, mean: Any | None = None
) -> PrincipalAxes:
    """Exact principal axes, from the scatter or the Gram matrix, whichever is smaller.

    If more axes than rows are requested, the additional axes have eigenvalue zero, and are
    orthonormal to the others.
    """
    if X.shape[1] <= X.shape[0]:
        return axes_of_moments(moments(X, sample_weight, mean), n_axes)
    xp, _ = get_namespace(X)
    mean = row_mean(X, sample_weight) if mean is None else mean
    products = gram(X, mean, sample_weight)
    check_scale(products)
    values, vectors = leading_axes(products, min(n_axes, X.shape[0]))
    trace = float(xp.linalg.trace(products))
    if sample_weight is not None:
        root = xp.sqrt(scaled_weight(sample_weight)[0])  # only directions are needed
        vectors = vectors * _cast(root, vectors.dtype)[:, None]
    images = _cast(X.T @ _cast(vectors, X.dtype), mean.dtype)
    images = images - mean[:, None] * xp.sum(vectors, axis=0)[None, :]
    lacking = n_axes - values.shape[0]
    zeros = xp.zeros((X.shape[1], lacking), dtype=mean.dtype, device=_device(mean))
    axes = _orthonormal(xp.concat([images, zeros], axis=1))
    values = xp.concat([values, zeros[0, :]])
    return PrincipalAxes(count_rows(X, sample_weight), mean, values, _oriented(axes.T), trace)


def axes_of_moments(stats: Moments, n_axes: int) -> PrincipalAxes:
    """Principal axes from moments."""
    xp, _ = get_namespace(stats.mean)
    check_scale(stats.scatter)
    values, vectors = leading_axes(stats.scatter, n_axes)
    trace = float(xp.linalg.trace(stats.scatter))
    return PrincipalAxes(stats.n, stats.mean, values, _oriented(vectors.T), trace)


def leading_axes(matrix: Any, n_axes: int) -> tuple[Any, Any]:
    """Largest eigenvalues (k,), clipped at zero, and eigenvectors (D, k) of a symmetric matrix."""
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


def check_scale(squares: Any) -> None:
    """Raise if squares have overflowed."""
    xp, _ = get_namespace(squares)
    if not bool(xp.all(xp.isfinite(squares))):
        raise out_of_range(squares.dtype)


def out_of_range(dtype: Any) -> ValueError:
    """The error for rows whose squares are outside of the range of a float dtype."""
    advice = ", or pass float64" if "32" in str(dtype) else ""
    return ValueError(
        f"The squares of X are outside of the range of {dtype}. Rescale X, for example with "
        f"sklearn.preprocessing.StandardScaler{advice}."
    )


def _oriented(axes: Any) -> Any:
    """Axes (k, D) with the signs that scikit-learn uses: the largest entry of each is positive."""
    return svd_flip(None, axes, u_based_decision=False)[1]


def _orthonormal(images: Any) -> Any:
    """Orthonormal columns (D, k) from nearly orthogonal ones; zero columns get any direction.

    Cholesky QR is a few times faster than QR, and is used if it is equally accurate.
    """
    xp, _ = get_namespace(images)
    overlap = images.T @ images
    lengths = xp.sqrt(xp.linalg.diagonal(overlap))
    if images.shape[1] and float(xp.min(lengths)) > 1e-4 * float(xp.max(lengths)):
        cosines = overlap / (lengths[:, None] * lengths[None, :])
        identity = xp.eye(images.shape[1], dtype=cosines.dtype, device=_device(cosines))
        # If rows have no variance, rounding errors may be far from orthogonal.
        if float(xp.max(xp.abs(cosines - identity))) < 0.1:
            lower = xp.linalg.cholesky(overlap)
            return xp.linalg.solve(lower, images.T).T
    return xp.linalg.qr(images)[0]


def _loses_nothing(dtype: Any, shift: float, spread: float) -> bool:
    """Whether n mu mu' may be subtracted from the squares of rows that are not centred.

    The relative error of the difference is eps (1 + shift / spread), where shift = n |mu|^2 and
    spread is the trace of the scatter. With this rule it is at most about 1e-12 for float64 and
    1e-6 for float32.
    """
    return shift <= _largest_shift(dtype) * spread


def _largest_shift(dtype: Any) -> float:
    return 1e4 if "64" in str(dtype) else 8.0


def variance_of_rounding(mean: Any, total: float, from_squares: bool) -> float:
    """The variance that rounding errors can cause along an axis without variance.

    Values have a relative error of eps, which causes a variance of eps^2 times the mean square
    |mu|^2 + `total`. If the variances are computed from sums of squares (`from_squares`), these
    sums have a relative error of eps, too. Ten times eps is used for safety.

    Parameters
    ----------
    mean : ndarray of shape (n_features,), in the float dtype of the rows
    total : float, total variance of the rows over all features
    from_squares : bool
    """
    eps = 10 * float(np.finfo(mean.dtype).eps)
    length = float(linalg.norm(mean.astype(np.float64)))  # the norm of BLAS does not overflow
    least = (eps * length) * (eps * length) + eps * eps * total
    if from_squares and total > 0:
        ratio = length / sqrt(total)
        least += eps * total * (1 + min(ratio * ratio, _largest_shift(mean.dtype)))
    return least


def _raw_scatter(X: Any, sample_weight: Any | None = None) -> Any:
    """X'X in float64 without a copy of X; products of float32 are added up in short blocks."""
    if sparse.issparse(X):
        weighted = X if sample_weight is None else X.multiply(sample_weight[:, None]).tocsr()
        return np.asarray((X.T @ weighted).todense())
    scatter = np.zeros((X.shape[1], X.shape[1]))
    for rows in gen_batches(X.shape[0], X.shape[0] if X.dtype == np.float64 else 2**14):
        scatter += _square(X[rows])
    return scatter


def _square(rows: Any) -> Any:
    """rows' rows. For few columns, BLAS of SciPy is about twice as fast as that of NumPy."""
    xp, _ = get_namespace(rows)
    if not is_numpy_namespace(xp) or rows.shape[1] > 256:
        return rows.T @ rows
    update = linalg.blas.dsyrk if rows.dtype == np.float64 else linalg.blas.ssyrk
    upper = update(1.0, rows, trans=1) if rows.flags.f_contiguous else update(1.0, rows.T)
    return np.triu(upper) + np.triu(upper, 1).T


def _row_blocks(
    X: Any, sample_weight: Any | None, n_bytes: int
) -> Iterator[tuple[Any, Any | None]]:
    """Dense slices of rows of about `n_bytes`, with their weights."""
    for batch in gen_batches(X.shape[0], max(256, n_bytes // (8 * X.shape[1]))):
        rows = X[batch, :].toarray() if sparse.issparse(X) else X[batch, :]
        yield rows, None if sample_weight is None else sample_weight[batch]


def _cast(X: Any, dtype: Any) -> Any:
    xp, _ = get_namespace(X)
    return xp.astype(X, dtype, copy=False)


def _device(X: Any) -> Any:
    return get_namespace_and_device(X)[2]
