"""Metrics for autoencoders and density models, as functions of arrays, and scorers for searches.

Every metric takes arrays that estimators return (reconstructions, scores, codes, samples) and
returns Python numbers. No metric loads torch. The metrics have different units: squared units of
the data, bits per value, nats per row. A scorer takes a fitted estimator and rows instead, and
greater values are better, as `scoring` of searches and of `cross_validate` needs it.
"""

from __future__ import annotations

from collections.abc import Callable
from math import inf, isqrt, log, log2, pi, sqrt
from numbers import Integral, Real
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import ArrayLike, NDArray
from sklearn.metrics import euclidean_distances
from sklearn.utils import gen_batches

from skae._scorers import (
    explained_variance_scorer,
    log_likelihood_scorer,
    reconstruction_error_scorer,
)
from skae._utils.inputs import as_numbers
from skae._utils.metric_arrays import (
    BLOCK_BYTES,
    check_columns,
    check_in_range,
    check_number,
    check_rows,
    check_weight,
    checked,
    rows_per_block,
)
from skae._utils.reconstructions import row_errors
from skae._utils.warning import warn

__all__ = [
    "ParzenScore",
    "active_units",
    "bits_per_dim",
    "explained_variance_scorer",
    "frechet_distance",
    "log_likelihood_scorer",
    "parzen_log_likelihood",
    "reconstruction_error",
    "reconstruction_error_scorer",
]

Array = NDArray[Any]

# Smallest number of rows in each update of the triangular root of a covariance. At least four
# times the number of features are used, so that most work is done on the new rows.
_ROOT_ROWS = 1024


class ParzenScore(NamedTuple):
    """Log-likelihood under a Parzen window, with its standard error and the bandwidth.

    Attributes
    ----------
    log_likelihood : float
        Mean log-likelihood of the test rows, in nats per row.
    standard_error : float
        Standard error of this mean over the test rows, in nats per row. It does not contain the
        variation between sets of samples.
    bandwidth : float
        Standard deviation of the kernel, in units of the rows.
    """

    log_likelihood: float
    standard_error: float
    bandwidth: float


# ---------------------------------------------------------------------- reconstruction


def reconstruction_error(
    X: ArrayLike, X_reconstructed: ArrayLike, *, sample_weight: ArrayLike | None = None
) -> float:
    """Compute the squared error, summed over features and averaged over rows.

    For images this is the squared error per image. It is not divided by the number of features.
    Categories have no squared error. For tables, give only the numeric columns, or compare models
    by their `score_columns`.

    Parameters
    ----------
    X : array-like of shape (n_samples, n_features)
        Rows. NaN marks a missing value, which is left out of the sum.
    X_reconstructed : array-like of shape (n_samples, n_features)
        Reconstructed rows, such as `reconstruct(X)` of a model, without NaN.
    sample_weight : array-like of shape (n_samples,), default=None
        Weights of the rows in the average. None weights all rows equally.

    Returns
    -------
    error : float
        Squared error per row, in squared units of `X`.

    Raises
    ------
    ValueError
        If the shapes differ, if an array has values that are not allowed, or if the error is
        outside of the range of floats.

    Examples
    --------
    >>> from sklearn.datasets import load_iris
    >>> from skae import PPCA
    >>> from skae.metrics import reconstruction_error
    >>> X, _ = load_iris(return_X_y=True)
    >>> ppca = PPCA(n_components=2).fit(X)
    >>> print(f"{reconstruction_error(X, ppca.reconstruct(X)):.3f} square centimetres")
    0.113 square centimetres
    """
    X = check_rows(X, "X", ensure_all_finite="allow-nan")
    X_reconstructed = check_rows(X_reconstructed, "X_reconstructed")
    if X.shape != X_reconstructed.shape:
        raise ValueError(
            f"X_reconstructed has shape {X_reconstructed.shape}, but X has shape {X.shape}. The "
            "shapes must be equal."
        )
    weight = None if sample_weight is None else check_weight(sample_weight, len(X))
    error = float(np.average(row_errors(X, X_reconstructed), weights=weight))
    check_in_range(error, "squared error", "X and X_reconstructed")
    return error


# ----------------------------------------------------------------------------- density


def bits_per_dim(log_likelihood: ArrayLike, n_features: int, *, level: float = 1 / 256) -> float:
    r"""Compute the bits per value of discrete data from the log density of dequantised rows.

    The result is the mean over rows of

    .. math:: -\frac{\log p(x) + D \log \delta}{D \log 2}, \quad
        x_j = \delta (k_j + u_j), \quad u_j \sim U(0, 1)

    where the grey levels are :math:`k_j` = 0, 1, 2, ... and :math:`\delta` is `level`. The term
    :math:`D \log \delta` converts a density per unit of `x` to a density per grey level.

    Parameters
    ----------
    log_likelihood : float or array-like of shape (n_samples,)
        Log densities of dequantised rows in nats per row, or their mean. They are exact (scores of
        the kind 'log_likelihood') or lower bounds (scores of the kind 'lower_bound').
    n_features : int
        Number D of values in a row.
    level : float, default=1/256
        Width of a grey level in the units of the rows that were scored: 1/256 for bytes that were
        scaled to (k + u) / 256, 1 for rows k + u, and 1/s for rows (k + u) / s.

    Returns
    -------
    bits : float
        Bits per value. Lower is better. It is 8 for bytes if all values are equally probable.

    Raises
    ------
    ValueError
        If `log_likelihood` is not finite, has another shape or has a mean outside of the range of
        floats, or if `n_features` or `level` is not positive.
    TypeError
        If `n_features` is not an integer or `level` is not a number.

    Notes
    -----
    By Jensen's inequality, the log density per grey level, averaged over the noise u, is at most
    the log probability of the grey levels. In expectation over u, the result is therefore an upper
    bound on the bits per value of the discrete data (Theis et al. 2016).

    Three kinds of scores must not be used here. Densities of rows without noise can be arbitrarily
    large. Scores of the kinds 'reconstruction' and 'latent' are not densities of the rows. Log
    probabilities of a Bernoulli likelihood need no conversion; for them, the bits per value are
    -log_likelihood / (D log 2).

    If the columns were divided by different scales, subtract the sum of the logarithms of the
    scales from the log density, and give `level` in the units before the division.

    References
    ----------
    L. Theis, A. van den Oord and M. Bethge (2016). A note on the evaluation of generative
    models. ICLR. :doi:`10.48550/arXiv.1511.01844`

    Examples
    --------
    >>> import numpy as np
    >>> from sklearn.datasets import load_digits
    >>> from skae import PPCA
    >>> from skae.metrics import bits_per_dim
    >>> X, _ = load_digits(return_X_y=True)  # grey levels 0, 1, ..., 16
    >>> X = X + np.random.default_rng(0).random(X.shape)
    >>> ppca = PPCA(n_components=20).fit(X[:1200])
    >>> print(f"{bits_per_dim(ppca.score_samples(X[1200:]), 64, level=1):.2f} bits")
    3.46 bits
    """
    nats = checked(
        np.atleast_1d(as_numbers(log_likelihood, "log_likelihood")),
        "log_likelihood",
        ensure_2d=False,
        dtype=np.float64,
    )
    if nats.ndim != 1:
        raise ValueError(
            f"log_likelihood must be a number or of shape (n_samples,), got shape {nats.shape}."
        )
    check_number(n_features, "n_features", Integral)
    check_number(level, "level", Real)
    with np.errstate(over="ignore"):
        mean = float(nats.mean())
    check_in_range(mean, "mean", "log_likelihood")
    return -mean / (n_features * log(2)) - log2(level)


# ------------------------------------------------------------------------------- codes


def active_units(Z: ArrayLike, *, threshold: float = 0.01) -> int:
    """Count the active codes, whose posterior means vary over rows: Var_x(E[z|x]) > threshold.

    Parameters
    ----------
    Z : array-like of shape (n_samples, n_components)
        Posterior means of the codes, as `transform` returns them for many rows.
    threshold : float, default=0.01
        Smallest variance, with 1/n, of an active code. The prior has variance one.

    Returns
    -------
    n_active : int
        Number of columns of `Z` with a larger variance.

    Raises
    ------
    ValueError
        If `Z` does not have at least two rows of finite numbers, if a variance is outside of the
        range of floats, or if `threshold` is negative.
    TypeError
        If `threshold` is not a number.

    References
    ----------
    Y. Burda, R. Grosse and R. Salakhutdinov (2016). Importance weighted autoencoders.
    ICLR. :doi:`10.48550/arXiv.1509.00519`

    Examples
    --------
    >>> import numpy as np
    >>> from skae.metrics import active_units
    >>> Z = np.random.default_rng(0).normal(scale=[1.0, 0.5, 0.05], size=(500, 3))
    >>> active_units(Z)
    2
    """
    check_number(threshold, "threshold", Real, zero=True)
    codes = check_rows(Z, "Z", ensure_min_samples=2)
    with np.errstate(over="ignore", invalid="ignore"):
        variances = np.var(codes, axis=0, dtype=np.float64)
    check_in_range(float(variances.sum()), "variance", "Z")
    return int(np.sum(variances > threshold))


# ----------------------------------------------------------------------------- samples


def parzen_log_likelihood(
    samples: ArrayLike,
    X_validation: ArrayLike,
    X_test: ArrayLike,
    *,
    bandwidths: ArrayLike | None = None,
) -> ParzenScore:
    r"""Compute the log-likelihood of rows under a Gaussian Parzen window of samples of a model.

    .. math:: \log p(x) = \log \frac{1}{n} \sum_{i=1}^n N(x; s_i, h^2 I)

    The bandwidth h is chosen by the mean log-likelihood of the validation rows.

    Parameters
    ----------
    samples : array-like of shape (n_samples, n_features)
        Rows drawn from the model. Most papers use 10,000 rows.
    X_validation : array-like of shape (n_validation, n_features)
        Rows with which the bandwidth is chosen.
    X_test : array-like of shape (n_test, n_features)
        Rows to score, at least two.
    bandwidths : array-like of shape (n_bandwidths,), default=None
        Standard deviations of the kernel from which the best is chosen, in units of the rows and
        in any order. A single bandwidth is used as it is. None means np.logspace(-1, 0, 10), the
        usual range for pixels in [0, 1].

    Returns
    -------
    score : ParzenScore
        `log_likelihood` and its `standard_error` over the test rows, in nats per row, and the
        `bandwidth` that was chosen.

    Raises
    ------
    ValueError
        If an array does not consist of rows of finite numbers with as many columns as `samples`,
        if a bandwidth is not positive, or if a log-likelihood is outside of the range of floats.

    Warns
    -----
    UserWarning
        If the best bandwidth is the smallest or the largest of several. A bandwidth outside of
        their range may then be better.

    Notes
    -----
    Use this function only to compare with published numbers. In many dimensions, the result differs
    greatly from the log-likelihood of the model, even with very many samples, and it ranks models
    wrongly: samples that are smooth or near cluster centres get high values, so that even k-means
    centroids can get a higher value than the true distribution (Theis et al. 2016). For models with
    a density, use their `score`. Numbers can only be compared for the same number of samples and
    the same scale of the rows.

    The computation uses blocks of rows. No intermediate array is larger than a few megabytes, or
    one row. The error of squared distances is about 1e-16 times the squared spread of the rows.
    Results for bandwidths below 1e-7 times the spread are therefore meaningless.

    References
    ----------
    O. Breuleux, Y. Bengio and P. Vincent (2011). Quickly generating representative samples
    from an RBM-derived process. Neural Computation 23(8).

    L. Theis, A. van den Oord and M. Bethge (2016). A note on the evaluation of generative
    models. ICLR. :doi:`10.48550/arXiv.1511.01844`

    Examples
    --------
    >>> from sklearn.datasets import load_digits
    >>> from skae import PPCA
    >>> from skae.metrics import parzen_log_likelihood
    >>> X = load_digits().data / 16
    >>> ppca = PPCA(n_components=20).fit(X[:1000])
    >>> drawn = ppca.sample(1000, random_state=0)
    >>> score = parzen_log_likelihood(drawn, X[1000:1400], X[1400:])
    >>> print(f"{score.log_likelihood:.1f} +- {score.standard_error:.1f} nats per row")
    0.8 +- 0.4 nats per row
    >>> print(f"at a bandwidth of {score.bandwidth:.3f}")
    at a bandwidth of 0.215
    """
    samples = check_rows(samples, "samples")
    X_validation = check_rows(X_validation, "X_validation")
    X_test = check_rows(X_test, "X_test", ensure_min_samples=2)
    for name, rows in (("X_validation", X_validation), ("X_test", X_test)):
        check_columns(rows, name, samples, "samples")
    grid = _check_bandwidths(bandwidths)
    bandwidth = _best_bandwidth(samples, X_validation, grid)
    nats = _parzen_log_densities(samples, X_test, np.array([bandwidth]))[:, 0]
    error = np.std(nats, ddof=1) / sqrt(len(nats))
    return ParzenScore(float(nats.mean()), float(error), float(bandwidth))


def _best_bandwidth(samples: Array, X_validation: Array, grid: Array) -> float:
    """The bandwidth of an ascending grid that maximises the likelihood of the validation rows."""
    if len(grid) == 1:
        return float(grid[0])
    scores = _parzen_log_densities(samples, X_validation, grid).mean(axis=0)
    best = float(grid[np.argmax(scores)])
    if best in (grid[0], grid[-1]):
        warn(
            f"The best bandwidth, {best:.4g}, is at an end of the range of bandwidths, "
            f"{grid[0]:.4g} to {grid[-1]:.4g}. Use a wider range."
        )
    return best


def _parzen_log_densities(samples: Array, X: Array, bandwidths: Array) -> Array:
    """log 1/n sum_i N(x; s_i, h^2 I) of every row and bandwidth, (n_rows, n_bandwidths)."""
    # Centred rows avoid rounding errors in distances that are computed from products.
    with np.errstate(all="ignore"):
        centre = samples.mean(axis=0, dtype=np.float64)
    nats = np.full((len(X), len(bandwidths)), -inf)
    step = min(isqrt(BLOCK_BYTES // 8) or 1, rows_per_block(samples.shape[1]))
    with np.errstate(all="ignore"):  # kernels may underflow; the result is checked below
        for rows in gen_batches(len(X), step):
            x = X[rows] - centre
            for some in gen_batches(len(samples), step):
                squared = euclidean_distances(x, samples[some] - centre, squared=True)
                nats[rows] = np.logaddexp(nats[rows], _log_kernel_sums(squared, bandwidths))
        nats -= log(len(samples)) + samples.shape[1] * np.log(bandwidths * sqrt(2 * pi))
    if not np.isfinite(nats).all():
        raise ValueError(
            "The log-likelihood of X_validation or X_test is outside of the range of floats. Use "
            "larger bandwidths, or rescale all rows."
        )
    return nats


def _log_kernel_sums(squared: Array, bandwidths: Array) -> Array:
    """log sum_j exp(-squared_ij / 2 h^2) for every row and h; overwrites `squared`."""
    nearest = squared.min(axis=1)
    squared -= nearest[:, None]
    kernel = np.empty_like(squared)
    sums = np.empty((len(squared), len(bandwidths)))
    for j, h in enumerate(bandwidths):
        np.multiply(squared, -0.5 / h**2, out=kernel)
        np.exp(kernel, out=kernel)
        sums[:, j] = np.log(kernel.sum(axis=1)) - nearest * (0.5 / h**2)
    return sums


def frechet_distance(
    X: ArrayLike, Y: ArrayLike, *, features: Callable[[Any], ArrayLike] | None = None
) -> float:
    r"""Compute the squared Fréchet distance between Gaussians fitted to two sets of rows.

    The distance is

    .. math:: |m_1 - m_2|^2 + \mathrm{tr}(S_1 + S_2 - 2 (S_1 S_2)^{1/2})

    where m are the means and S the covariances, with n - 1, of the two sets. With the features of
    the Inception network, this is the Fréchet inception distance (FID).

    Parameters
    ----------
    X : array-like of shape (n_samples, n_features)
        Rows, such as test data, at least two. With `features`, anything that `features` accepts.
    Y : array-like of shape (n_other_samples, n_features)
        Other rows, such as samples of a model. The numbers of rows may differ.
    features : callable, default=None
        Function that maps rows to features, with one row of features for each row, such as the
        `transform` of a fitted transformer. It is called with `X` and with `Y` as they are given.
        None compares the rows themselves.

    Returns
    -------
    distance : float
        Distance in squared units of the features. It is zero if means and covariances are equal.

    Raises
    ------
    ValueError
        If rows or features are not finite, if there are fewer than two rows, if the numbers of
        columns differ, or if a variance is outside of the range of floats.
    TypeError
        If `features` is not callable.

    Notes
    -----
    The distance between two samples of the same distribution is above zero. It decreases with the
    number of rows and increases with the number of features. Compare models only with equal numbers
    of rows. There may be fewer rows than features. The distance depends only on means and
    covariances: it is zero for different distributions with the same mean and covariance.

    The covariances have roots :math:`S = R^T R` from a QR decomposition of the centred rows.
    :math:`\mathrm{tr} (S_1 S_2)^{1/2}` is computed as the sum of the singular values of
    :math:`R_1 R_2^T`. A root of the product of the covariances would have only half of the digits.

    References
    ----------
    D. C. Dowson and B. V. Landau (1982). The Fréchet distance between multivariate normal
    distributions. J. Multivariate Analysis 12(3), 450-455.
    :doi:`10.1016/0047-259X(82)90077-X`

    M. Heusel, H. Ramsauer, T. Unterthiner, B. Nessler and S. Hochreiter (2017). GANs
    trained by a two time-scale update rule converge to a local Nash equilibrium. NIPS 30.
    :doi:`10.48550/arXiv.1706.08500`

    Examples
    --------
    >>> from sklearn.datasets import load_digits
    >>> from skae import PPCA
    >>> from skae.metrics import frechet_distance
    >>> X = load_digits().data / 16
    >>> for k in (2, 20):
    ...     ppca = PPCA(n_components=k).fit(X[:900])
    ...     drawn = ppca.sample(900, random_state=0)
    ...     print(f"{k} codes: {frechet_distance(X[900:], drawn):.2f}")
    2 codes: 2.11
    20 codes: 0.50
    """
    if not (features is None or callable(features)):
        raise TypeError(
            "features must be a function of rows, such as the `transform` of a fitted "
            f"transformer, or None; got {features!r}."
        )
    names = ("X", "Y") if features is None else ("features(X)", "features(Y)")
    x, y = _check_features(X, "X", features), _check_features(Y, "Y", features)
    check_columns(y, names[1], x, names[0])
    with np.errstate(over="ignore", invalid="ignore"):
        (mean_x, root_x), (mean_y, root_y) = _mean_and_root(x), _mean_and_root(y)
        separate = sum(np.sum(part**2) for part in (mean_x - mean_y, root_x, root_y))
    if not np.isfinite(separate):
        raise ValueError(
            "The variances of X or Y are outside of the range of floats. Rescale the rows."
        )
    shared = np.linalg.svd(root_x @ root_y.T, compute_uv=False).sum()
    return max(float(separate - 2 * shared), 0.0)


def _mean_and_root(X: Array) -> tuple[Array, Array]:
    """Mean (k,) and R (at most k rows, k columns) with covariance R'R, by QR of blocks."""
    n, k = X.shape
    mean = X.mean(axis=0, dtype=np.float64)
    root: Any = np.empty((0, k))
    for rows in gen_batches(n, max(_ROOT_ROWS, 4 * k)):
        root = np.linalg.qr(np.concatenate([root, X[rows] - mean]), mode="r")
    return mean, root / sqrt(n - 1)


# -------------------------------------------------------------------------- validation


def _check_features(X: Any, name: str, features: Callable[[Any], ArrayLike] | None) -> Array:
    """The rows, or their features; raises if there is not one finite row for each."""
    if features is None:
        return check_rows(X, name, ensure_min_samples=2)
    found = check_rows(features(X), f"features({name})", ensure_min_samples=2)
    if len(found) != np.shape(X)[0]:
        raise ValueError(
            f"features({name}) has {len(found)} rows, but {name} has {np.shape(X)[0]} rows. "
            "features must return one row for each row."
        )
    return found


def _check_bandwidths(bandwidths: Any) -> Array:
    """Distinct bandwidths in ascending order."""
    if bandwidths is None:
        return np.logspace(-1, 0, 10)
    grid = checked(
        np.atleast_1d(as_numbers(bandwidths, "bandwidths")),
        "bandwidths",
        ensure_2d=False,
        dtype=np.float64,
    )
    if grid.ndim != 1 or (grid <= 0).any():
        raise ValueError(
            "bandwidths must be positive numbers in an array of shape (n_bandwidths,), got "
            f"{bandwidths!r}."
        )
    return np.unique(grid)
