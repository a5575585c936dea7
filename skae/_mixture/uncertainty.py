"""Standard deviation of the error of an estimated image, from counts alone.

An image M of expected counts is estimated from a histogram h of counts with expectation μ. Its
squared error contains the variance, because the counts are finite, and the squared bias, because a
mixture smooths. Refits show only the variance. The residuals show both, because

    E[(h - M)²] = E[(μ - M)²] + Var(h) - 2 Cov(h - μ, μ - M - E[μ - M])

so that (h - M)² - Var(h) + 2 Cov(h, M) is an unbiased estimate of the squared error of each pixel.
The covariance measures how far the estimate follows the noise. It is estimated from refits to
histograms that are drawn from M (Efron 2004; Ramani et al. 2008; Luisier et al. 2011 for Poisson
noise). The estimate of a single pixel is very noisy. It is therefore smoothed in two steps: first
a regression on properties of the image that errors depend on, then a correction in windows of
decreasing size, as far as the residuals deviate by more than their noise (empirical Bayes).

References
----------
B. Efron (2004). The estimation of prediction error: covariance penalties and cross-validation.
Journal of the American Statistical Association 99, 619-632. :doi:`10.1198/016214504000000692`

S. Ramani, T. Blu and M. Unser (2008). Monte-Carlo SURE: a black-box optimization of regularization
parameters for general denoising algorithms. IEEE Transactions on Image Processing 17, 1540-1554.
:doi:`10.1109/TIP.2008.2001404`

F. Luisier, T. Blu and M. Unser (2011). Image denoising in mixed Poisson-Gaussian noise. IEEE
Transactions on Image Processing 20, 696-708. :doi:`10.1109/TIP.2010.2073477`
"""

from collections.abc import Callable
from math import pi, sqrt
from typing import Any

import numpy as np
from numpy.typing import NDArray
from scipy.ndimage import gaussian_filter
from scipy.optimize import nnls

Array = NDArray[Any]
Refit = Callable[[Array, np.random.RandomState], Array]

# Width of the windows in which the variance of refits is averaged, in pixels. The position at which
# a component follows the noise is itself random, so that narrow windows miss errors.
_VARIANCE_WIDTH = 5.0

# Smallest squared error, as a part of the variance of refits, which is itself an estimate.
_LEAST_OF_VARIANCE = 0.7

# Widths of the windows of corrections: the first as a fraction of the longest side, and the
# smallest in pixels. Each is half of the previous one.
_WIDEST, _NARROWEST = 0.25, 2.0

# Largest relative variance of squared errors that the windows of one width may have between them.
_MOST_SPREAD = 0.3

# A correction multiplies the squared error at least by this number.
_LEAST_FACTOR = 0.1

# Iterations of the regression, whose weights depend on its result.
_REGRESSIONS = 5

# From this number of counts on, the noise of histograms is neglected.
_MOST_COUNTS = 2.0**62


def std_of_masses(
    histogram: Array,
    masses: Array,
    refit: Refit,
    rng: np.random.RandomState,
    *,
    n_refits: int = 2,
) -> Array:
    """Estimate the standard deviation of the error of each pixel of an estimated intensity.

    Parameters
    ----------
    histogram : ndarray of float64
        Number of training counts on each pixel, or the sum of their weights.
    masses : ndarray of the shape of `histogram`
        Estimated probability of each pixel.
    refit : callable
        ``refit(histogram, rng)`` fits the same kind of model to another histogram of as many
        counts, and returns its masses. The components start at other positions than those of the
        estimate, so that errors that depend on these positions vary as well.
    rng : RandomState
    n_refits : int, default=2
        Number of refits, at least 2.

    Returns
    -------
    std : ndarray of the shape of `histogram`
        Positive. About 68 % of the true probabilities of pixels are within one `std` of `masses`.
    """
    total = float(histogram.sum())
    expected = total * masses
    share = masses / masses.sum()
    drawn = [_drawn(total, share, rng) for _ in range(n_refits)]
    refitted = np.array([total * refit(weights, rng) for weights in drawn])
    away = refitted - refitted.mean(axis=0)
    covariance = sum(
        (weights - total * share) * deviation
        for weights, deviation in zip(drawn, away, strict=True)
    ) / (n_refits - 1)
    squared = (histogram - expected) ** 2 - histogram * (1 - share) + 2 * covariance
    width = min(_VARIANCE_WIDTH, max(histogram.shape) / 8)
    variance = gaussian_filter((away**2).sum(axis=0) / (n_refits - 1), width)
    # The error is at least about the variance of refits, and the probability of a pixel is known to
    # a relative error of at best 1 / sqrt(total).
    least = _LEAST_OF_VARIANCE * variance + 1e-4 * variance.mean()
    least += (expected**2 + 1e-4 * (expected**2).mean()) / total
    error = regressed(squared, expected, features_of(expected, variance), least)
    error, unresolved = corrected(squared, expected, error)
    # Where squared errors vary but it is unknown where they are large, the errors have heavier
    # tails than a normal distribution, and more than 68 % are within one root mean square. To first
    # order in the excess kurtosis, 3 `unresolved`, the square root of this factor restores 68 %.
    # Errors vary within the narrowest windows, too. The power 1 was chosen on photographs.
    error /= 1 + np.minimum(unresolved, _MOST_SPREAD)
    std: Array = np.sqrt(np.maximum(error, least)) / total
    return std


def _drawn(total: float, share: Array, rng: np.random.RandomState) -> Array:
    """A histogram of `total` counts that are drawn from the estimate."""
    if not total < _MOST_COUNTS:
        return total * share
    n = max(round(total), 1)
    counts = rng.multinomial(n, share.ravel()).reshape(share.shape)
    return np.asarray(counts * (total / n), dtype=np.float64)


def noise_variance(expected: Array, error: Array) -> Array:
    """Variance of the estimate (h - M)² - h of a squared error, for a Poisson count h."""
    return 2 * expected**2 + 4 * expected * error


def features_of(expected: Array, variance: Array) -> Array:
    """Non-negative images that squared errors may be proportional to, (n_features, ...).

    They are the variance of refits; the squared image and the image; its squared gradient, because
    smoothing has the largest bias at edges; the gradient times the image; and a constant.
    """
    slopes = []
    for width in (1.0, 1.5):
        smooth = gaussian_filter(expected, width)
        along = [np.gradient(smooth, axis=a) for a, n in enumerate(smooth.shape) if n > 1]
        slopes.append(sum((slope**2 for slope in along), np.zeros_like(smooth)))
    level = np.full_like(expected, (expected**2).mean())
    return np.stack(
        [variance, expected**2, expected, slopes[0], expected * np.sqrt(slopes[1]), level]
    )


def regressed(squared: Array, expected: Array, features: Array, least: Array) -> Array:
    """Regression of the estimates of squared errors on features, with non-negative coefficients.

    The weights are the inverse variances of the estimates under the previous result.
    """
    error = np.maximum(np.full(squared.shape, squared.mean()), least)
    for _ in range(_REGRESSIONS):
        scale = 1 / np.sqrt(noise_variance(expected, error) + error**2)
        design = (features * scale).reshape(len(features), -1).T
        size = np.sqrt((design**2).mean(axis=0))
        size[size == 0] = 1
        coefficients = nnls(design / size, (squared * scale).ravel())[0] / size
        error = np.maximum(np.tensordot(coefficients, features, 1), least)
    return error


def corrected(squared: Array, expected: Array, error: Array) -> tuple[Array, Array]:
    """Multiply squared errors by the ratio of the estimates to them in windows of each width.

    Each ratio is shrunk to 1 by the noise of the window. The variance of true ratios is estimated
    from all windows of a width (method of moments).

    Returns
    -------
    error : ndarray
    unresolved : ndarray
        Relative variance of squared errors that is known to exist but could not be located.
    """
    unresolved = np.zeros_like(error)
    width = _WIDEST * max(error.shape)
    while width >= _NARROWEST:
        noise = noise_variance(expected, error)
        weight = error / (noise + error**2)
        whole = gaussian_filter(weight * error, width)
        ratio = gaussian_filter(weight * squared, width) / whole
        # The square of a Gaussian window is a narrower one, with this sum along each axis.
        norm = [1 if n == 1 else min(1.0, 1 / (2 * sqrt(pi) * width)) for n in error.shape]
        of_noise = gaussian_filter(weight**2 * noise, width / sqrt(2)) * np.prod(norm) / whole**2
        trust = 1 / (of_noise + 1) ** 2
        spread = np.sum(trust * ((ratio - 1) ** 2 - of_noise)) / trust.sum()
        if spread > 0:
            spread = min(spread, _MOST_SPREAD)
            kept = spread / (spread + of_noise)
            error = error * np.maximum(1 + kept * (ratio - 1), _LEAST_FACTOR)
            unresolved += spread * (1 - kept)
        width /= 2
    return error, unresolved
