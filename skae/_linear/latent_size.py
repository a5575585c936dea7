"""Rules for the number of components: a fraction of the variance, Minka's evidence, or BIC.

The rules are used if `n_components` is not an integer. They read the eigenvalues of the covariance
in decreasing order.
"""

from math import lgamma, log, pi, sqrt
from typing import Any

import numpy as np
from numpy.typing import NDArray

Spectrum = NDArray[np.float64]


def by_variance_fraction(spectrum: Spectrum, fraction: float, total: float | None = None) -> int:
    """The smallest number of components with more than `fraction` of the total variance.

    The total is the sum of the spectrum unless it is given.
    """
    total = spectrum.sum() if total is None else total
    if total == 0:
        return 1
    reached = np.searchsorted(np.cumsum(spectrum / total), fraction, side="right")
    return min(int(reached) + 1, len(spectrum))


def by_evidence(spectrum: Spectrum, n: float) -> int:
    """The size that maximises `minka_log_evidence`."""
    if len(spectrum) < 2:
        return 1
    return int(np.argmax(minka_log_evidence(spectrum, n))) + 1


def minka_log_evidence(spectrum: Spectrum, n: float) -> Spectrum:
    """Laplace approximation of log p(X | k) for k = 1 .. D - 1, in nats, up to a constant.

    References
    ----------
    T. P. Minka (2000). Automatic choice of dimensionality for PCA. NIPS 13, eq. 30.
    """
    size = len(spectrum)
    zero = max(size * np.finfo(float).eps * spectrum[0], np.finfo(float).tiny)
    ranks = np.arange(1, size)
    order = np.arange(size)
    tail = np.maximum(zero, _tails(spectrum)[:-1] / (size - ranks))
    logs = np.log(np.maximum(spectrum, zero))
    gaps = np.log(np.maximum(spectrum[:, None] - spectrum[None, :], zero))
    gaps[order[:, None] >= order[None, :]] = 0.0  # pairs i < j only

    half = (size - ranks + 1) / 2
    prior = np.cumsum([-log(2) + lgamma(h) - h * log(pi) for h in half])
    likelihood = -n / 2 * (np.cumsum(logs)[:-1] + np.log(tail) * (size - ranks))
    n_angles = size * ranks - ranks * (ranks + 1) / 2

    # log |A| = sum over pairs i <= k, i < j of
    # log (l_i - l_j) + log (1/m_j - 1/m_i) + log n, where m = l up to k and v after it.
    both_kept = np.cumsum(np.sum(2 * gaps, axis=0))[:-1] - _pair_logs(logs)
    kept_dropped = np.array([gaps[:k, k:].sum() for k in ranks])
    with np.errstate(divide="ignore"):
        to_tail = np.array(
            [
                np.log(np.maximum(1 - v / np.exp(logs[:k]), zero / v)).sum() - k * np.log(v)
                for k, v in zip(ranks, tail, strict=True)
            ]
        )
    hessian = both_kept + kept_dropped + (size - ranks) * to_tail + n_angles * log(n)

    evidence = (
        prior + likelihood + (n_angles + ranks) / 2 * log(2 * pi) - hessian / 2 - ranks / 2 * log(n)
    )
    evidence[spectrum[:-1] < zero] = -np.inf
    return evidence


def _tails(spectrum: Spectrum) -> Spectrum:
    """Sums of the values after the first k, for k = 1 .. D, computed without differences."""
    return np.r_[np.cumsum(spectrum[:0:-1])[::-1], 0.0]


def _pair_logs(logs: Spectrum) -> Spectrum:
    """Sum over pairs i < j <= k of log l_i + log l_j, for k = 1 .. D - 1."""
    ranks = np.arange(1, len(logs))
    return (ranks - 1) * np.cumsum(logs)[:-1]


def n_free_parameters(n_features: int, n_components: int) -> int:
    """Number of free parameters of PPCA: loadings up to rotation, noise variance and mean."""
    loadings = n_features * n_components - n_components * (n_components - 1) // 2
    return loadings + 1 + n_features


def ledermann_bound(n_features: int) -> int:
    """The largest number of factors for which factor analysis has no more parameters than the
    covariance, at least 1.

    References
    ----------
    W. Ledermann (1937). On the rank of the reduced correlational matrix in multiple-factor
    analysis. Psychometrika 2(2), 85-93. :doi:`10.1007/BF02288062`
    """
    return max(1, int((2 * n_features + 1 - sqrt(8 * n_features + 1)) / 2 + 1e-9))


def by_bic(spectrum: Spectrum, n: float, n_features: int) -> int:
    """The size with the lowest BIC of PPCA, among sizes with a positive noise variance.

    At most n / 2 components are tried. With more components and n < D, the noise variance is
    estimated from few eigenvalues, and it and the BIC become arbitrarily small.
    """
    most = int(max(1, min(n_features - 1, n // 2, len(spectrum) - 1)))
    ranks = np.arange(1, most + 1)
    kept = np.cumsum(np.log(np.maximum(spectrum, np.finfo(float).tiny)))[:most]
    noise = _tails(spectrum)[:most] / (n_features - ranks)
    alive = noise > 1e-12 * spectrum.sum() / n_features
    if not alive.any():
        return 1
    deviance = n * (kept + (n_features - ranks) * np.log(np.where(alive, noise, 1.0)))
    deviance[~alive] = np.inf
    sizes = np.array([n_free_parameters(n_features, int(k)) for k in ranks])
    return int(ranks[np.argmin(deviance + sizes * log(n))])


def by_rule(rule: Any, spectrum: Spectrum, n: float, n_features: int) -> int:
    """The size that "bic", "mle" or a fraction of the variance chooses.

    `spectrum` has the eigenvalues of the covariance of `n` rows, with 1/n.
    """
    if rule == "bic":
        return by_bic(spectrum, n, n_features)
    if rule == "mle":
        if n < n_features:
            raise ValueError(
                "n_components='mle' is only supported if n_samples >= n_features, got "
                f"n_samples={n} and n_features={n_features}"
            )
        return by_evidence(spectrum * (n / (n - 1)), n)
    return by_variance_fraction(spectrum, float(rule))
