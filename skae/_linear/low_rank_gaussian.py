"""The Gaussian N(mu, V' diag(lambda) V + sigma2 (I - V'V)), given by its k leading axes.

It is the density of both linear models: of PPCA with lambda_j = |w_j|^2 + sigma2, and of LinearAE
with the covariance that scikit-learn defines for PCA. No D x D matrix is computed.
"""

from collections.abc import Iterator
from math import log, pi
from typing import Any

import numpy as np
from numpy.typing import NDArray
from scipy import sparse
from sklearn.utils import gen_batches

from skae._utils.validation import get_namespace, get_namespace_and_device

Array = NDArray[Any]

_BLOCK_BYTES = 2**23
# If the squared residual is a smaller fraction of the total, it is not computed as a difference.
LEAST_DIFFERENCE = 0.05


def log_density(
    X: Any, mean: Any, axes: Any, variances: Any, noise_variance: float, scales: Any = None
) -> Any:
    """log N(x; mu, C) in nats for each row of X.

    With z = V (x - mu) and the residual r = (x - mu) - V'z,
    -2 log N = sum_j z_j^2 / lambda_j + |r|^2 / sigma2
             + sum_j log lambda_j + (D - k) log sigma2 + D log 2 pi.

    Parameters
    ----------
    X : array or sparse matrix of shape (n_samples, n_features)
    mean : array of shape (n_features,)
    axes : array of shape (n_axes, n_features), orthonormal rows V
    variances : array of shape (n_axes,), variances lambda along the axes, all positive
    noise_variance : float, sigma2 > 0; ignored when the axes span the space
    scales : array of shape (n_features,), default=None
        Positive units of the features. x and mu are divided by them, and `axes`, `variances` and
        `noise_variance` describe the result.
    """
    xp, _ = get_namespace(mean)
    n_axes, n_features = axes.shape
    log_det = float(xp.sum(xp.log(variances)))
    if scales is not None:
        log_det += 2 * float(xp.sum(xp.log(scales)))
    if n_axes < n_features:
        log_det += (n_features - n_axes) * log(noise_variance)
    parts = []
    for rows in _blocks(X):
        # If the square of a distant row overflows, its density is correctly zero.
        with np.errstate(over="ignore"):
            centred = rows - mean
            if scales is not None:
                centred = centred / scales
            z = centred @ axes.T
            distance = xp.sum(z * (z / variances), axis=1)
            if n_axes < n_features:
                residual = centred - z @ axes
                distance = distance + xp.sum(residual * residual, axis=1) / noise_variance
            parts.append(-0.5 * (distance + (log_det + n_features * log(2 * pi))))
    return xp.concat(parts)


def mean_squares(X: Any, sample_weight: Any | None, mean: Any, axes: Any) -> tuple[Any, float]:
    """Weighted means over rows of z_j^2 (k,) and of |r|^2, with z and r as in `log_density`.

    The rows are NumPy arrays or sparse. The scores of all Gaussians with only the first of these
    axes follow from these means, because the squares of the other axes then belong to the residual.
    """
    squares, residual = np.zeros(len(axes)), 0.0
    first = 0
    for rows in _blocks(X):
        weight = None if sample_weight is None else sample_weight[first : first + len(rows)]
        first += len(rows)
        with np.errstate(over="ignore", invalid="ignore"):
            centred = rows - mean
            z = centred @ axes.T
            total = _sum(_row_squares(centred), weight)
            explained = _sum(z.astype(np.float64) ** 2, weight)
            left_out = total - explained.sum()
            # A small difference would be inaccurate.
            if not left_out > LEAST_DIFFERENCE * total:
                left_out = _sum(_row_squares(centred - z @ axes), weight)
        squares += explained
        residual += left_out
    n = X.shape[0] if sample_weight is None else sample_weight.sum()
    return squares / n, float(residual / n)


def _row_squares(rows: Any) -> Any:
    # Sums over features are short enough for float32.
    return np.einsum("ij,ij->i", rows, rows).astype(np.float64)


def _sum(values: Any, weight: Any | None) -> Any:
    """Weighted sum over rows."""
    return values.sum(axis=0) if weight is None else weight @ values


def mean_log_density(
    squares: Any, residual: float, variances: Any, noise_variance: float, n_features: int
) -> float:
    """Mean of `log_density` over rows, for only the first k of the axes in `mean_squares`.

    Parameters
    ----------
    squares : array of shape (n_axes,), mean z_j^2
    residual : float, mean |r|^2 orthogonal to all of these axes
    variances : array of shape (k,), variances along the first k axes, all positive
    noise_variance : float, sigma2 > 0; ignored when the k axes span the space
    n_features : int
    """
    n_axes = len(variances)
    variances = variances.astype(np.float64)
    total = float((squares[:n_axes] / variances).sum() + np.log(variances).sum())
    if n_axes < n_features:
        total += (residual + float(squares[n_axes:].sum())) / noise_variance
        total += (n_features - n_axes) * log(noise_variance)
    return -0.5 * (total + n_features * log(2 * pi))


def precision(axes: Any, variances: Any, noise_variance: float) -> Any:
    """C^-1 (D, D), by the matrix inversion lemma, without inverting a D x D matrix."""
    xp, _, device = get_namespace_and_device(axes)
    n_axes, n_features = axes.shape
    if n_axes == n_features:
        return (axes.T / variances) @ axes
    result = (axes.T * (1.0 / variances - 1.0 / noise_variance)) @ axes
    return result + xp.eye(n_features, dtype=axes.dtype, device=device) / noise_variance


def whitened(loadings: Array, noise_variance: Array) -> tuple[Array, Array, Array]:
    """N(mu, W W' + Psi) in the units of its noise, in which all noise variances are 1.

    Returns the units of the features (D,), the axes (k, D) in these units, and the variances along
    them (k,), as `log_density` uses them.
    """
    scales = np.sqrt(noise_variance)
    axes, lengths, _ = np.linalg.svd(loadings / scales[:, None], full_matrices=False)
    return scales, np.ascontiguousarray(axes.T), lengths**2 + 1


def noise_floor(variance: float, mean: Any) -> float:
    """The smallest noise variance with finite densities: eps times the mean variance.

    For constant rows, the largest squared value of the mean replaces the variance, or 1 if this is
    zero.
    """
    xp, _ = get_namespace(mean)
    limits = xp.finfo(mean.dtype)
    eps, least = float(limits.eps), float(limits.smallest_normal) / float(limits.eps)
    if variance <= least:
        largest = float(xp.max(xp.abs(mean)))
        variance = min(largest * largest, float(limits.max))
    return eps * (variance if variance > least else 1.0)


def draw(
    n_samples: int,
    rng: np.random.RandomState,
    mean: np.ndarray,
    axes: np.ndarray,
    signal_variances: np.ndarray,
    noise_variance: float,
) -> np.ndarray:
    """Rows mu + V' diag(sqrt(s)) z + sigma e, with s = lambda - sigma2, as float64."""
    z = rng.standard_normal((n_samples, len(axes)))
    rows = (z * np.sqrt(signal_variances)) @ axes + mean
    if noise_variance > 0:
        rows += np.sqrt(noise_variance) * rng.standard_normal(rows.shape)
    return rows


def _blocks(X: Any) -> Iterator[Any]:
    """Dense blocks of rows. Sparse rows are converted one block at a time."""
    size = max(64, _BLOCK_BYTES // (8 * X.shape[1]))
    for batch in gen_batches(X.shape[0], size):
        rows = X[batch, :]
        yield rows.toarray() if sparse.issparse(rows) else rows
