"""Estimate the intensity of an image from counts, and choose how by the nats of held-out counts.

The estimate is a mixture of up to four estimates: the mean over all partitions into boxes, averaged
over several origins of the grid, and three refinements of it by groups of similar patches, of
pixels, of squares of 2 x 2 and of 4 x 4 pixels. The weights of the mixture are chosen by held-out
counts, so that an estimate that does not suit the image or the number of counts has no weight.
"""

from dataclasses import dataclass
from math import floor, log2
from typing import Any

import numpy as np
from numpy.typing import NDArray
from scipy.optimize import minimize

from skae._pixels.partitions import PartitionPrior, best_prior, partition_mean
from skae._pixels.similar_patches import restored_by_patches
from skae._utils.threads import in_threads

Array = NDArray[Any]

# Default number of origins of the grid, and the number with which estimates are compared.
N_ORIGINS, _N_COMPARED = 32, 8

# Largest distance of an origin from the image, in pixels, as a power of two.
_FARTHEST = 6

# Pixels along the sides of the squares whose patches are grouped, the smallest number of such
# squares along each axis of an image, and the smallest mean number of counts of a square.
_SCALES, _FEWEST, _LEAST_COUNTS = (1, 2, 4), 16, 0.2

# Share of the counts that are held out, and smallest number of counts of which some are held out.
HELD_OUT, FEWEST_COUNTS = 0.1, 100.0

# Estimates with a smaller weight in the mixture are left out.
_LEAST_WEIGHT = 0.03

# Gain of a density, in its standard errors, from which it takes the place of a simpler one.
_STANDARD_ERRORS = 1.5

# Largest number of counts of a row of which held-out counts are drawn, and of a pixel in patches,
# which are in single precision.
_MOST = 2.0**40

# Probability of a pixel, relative to the mean of all, below which it is not taken for zero.
_SMALLEST = 1e-12


@dataclass(frozen=True)
class Smoothing:
    """How an intensity is estimated from counts."""

    prior: PartitionPrior
    weights: tuple[float, ...] = (1.0,)  # of the partitions, and of the patches of each scale


def estimated_intensity(
    counts: Array,
    exposure: Array,
    smoothing: Smoothing,
    n_origins: int,
    n_jobs: int | None,
    start: float = 0.5,
) -> Array:
    """Estimate the intensity of an image.

    Parameters
    ----------
    counts, exposure : ndarray of shape `image_shape`
    smoothing : Smoothing
    n_origins : int
        Number of origins of the grid of the partitions.
    n_jobs : int or None
        Number of threads.
    start : float, default=0.5
        Start of the sequence of origins, from 0 to 1.

    Returns
    -------
    density : ndarray of shape `image_shape`
        Probability of each pixel for a count of the object. The sum is 1.
    """
    wanted = tuple(weight > 0 for weight in smoothing.weights)
    found = _estimates(counts, exposure, smoothing.prior, wanted, n_origins, n_jobs, start)
    weights = [weight for weight in smoothing.weights if weight > 0]
    return np.tensordot(weights, found, axes=1) / sum(weights)


def chosen_smoothing(
    counts: Array, held_out: Array, exposure: Array, n_origins: int, n_jobs: int | None
) -> tuple[Smoothing, float, Array]:
    """Choose the estimate of the intensity.

    Parameters
    ----------
    counts, held_out, exposure : ndarray of shape `image_shape`
        Counts from which intensities are estimated, other counts by which they are compared, and
        the exposure of each pixel.
    n_origins : int
        Number of origins of the grid of the final estimate.
    n_jobs : int or None

    Returns
    -------
    smoothing : Smoothing
    nats : float
        Mean log density of the held-out counts as they are recorded, in nats per count. If no
        counts are held out, it is the log marginal likelihood of all counts under the partitions.
    log_density : ndarray of shape `image_shape`
        Log density of counts as they are recorded, from the counts that are not held out. It is
        NaN if no counts are held out.
    """
    prior = best_prior(counts + held_out, exposure)
    n = held_out.sum()
    if not n:
        nats = partition_mean(counts, exposure, prior, (0,) * counts.ndim)[1]
        nats += float((counts * np.log(np.where(counts > 0, exposure, 1))).sum())
        return Smoothing(prior), float(nats / counts.sum()), np.full(counts.shape, np.nan)
    wanted = (True, *(scale_is_suitable(counts, exposure, scale) for scale in _SCALES))
    some = min(n_origins, _N_COMPARED)
    found = _estimates(counts, exposure, prior, wanted, some, n_jobs, 0.5)
    least = _SMALLEST / counts.size
    recorded = np.stack([np.maximum(d * exposure / (d * exposure).sum(), least) for d in found])
    seen = held_out > 0
    densities = recorded[:, seen]
    weights = pooling_weights(densities, held_out[seen] / n)
    if not is_better(np.log(weights @ densities), np.log(densities[0]), held_out[seen]):
        weights = np.eye(len(weights))[0]
    of_all = np.zeros(len(wanted))
    of_all[np.array(wanted)] = weights
    log_density = np.log(np.tensordot(weights, recorded, axes=1))
    nats = float((held_out * log_density).sum() / n)
    return Smoothing(prior, tuple(of_all.tolist())), nats, log_density


def is_better(log_density: Array, other: Array, held_out: Array) -> bool:
    """Whether a density is better than another one by more than its standard errors.

    Parameters
    ----------
    log_density, other : ndarray of shape (n_samples,)
        Log densities of pixels or rows.
    held_out : ndarray of shape (n_samples,)
        Number of held-out counts of each.
    """
    gain, n = log_density - other, held_out.sum()
    mean = held_out @ gain / n
    variance = held_out @ (gain - mean) ** 2 / n
    return bool(mean > _STANDARD_ERRORS * np.sqrt(variance / n))


def pooling_weights(densities: Array, shares: Array) -> Array:
    """Weights of a mixture of densities that maximise the log-likelihood of counts.

    Parameters
    ----------
    densities : ndarray of shape (n_densities, n_pixels)
        Positive.
    shares : ndarray of shape (n_pixels,)
        Shares of the counts; their sum is 1.
    """
    n = len(densities)
    if n == 1:
        return np.ones(1)
    scaled = densities / densities.mean(axis=0)

    def loss(weights: Array) -> tuple[float, Array]:
        mixed = weights @ scaled
        return -float(shares @ np.log(mixed)), -(scaled @ (shares / mixed))

    found = minimize(
        loss,
        np.full(n, 1 / n),
        jac=True,
        method="SLSQP",
        bounds=[(0, 1)] * n,
        constraints={"type": "eq", "fun": lambda w: w.sum() - 1, "jac": np.ones_like},
        options={"ftol": 1e-12, "maxiter": 200},
    )
    weights = np.where(found.x < _LEAST_WEIGHT, 0, found.x)
    return np.asarray(weights / weights.sum())


def held_out_of(weight: Array, rng: np.random.RandomState) -> Array:
    """The part of the weights of rows that is held out: every count with the same probability.

    A row is as many counts as its weight, rounded at random if it is no integer, and at least one.
    """
    whole = np.floor(weight)
    counts = np.clip(whole + (rng.random_sample(len(weight)) < weight - whole), 1, _MOST)
    return np.asarray(weight * (rng.binomial(counts.astype(np.int64), HELD_OUT) / counts))


def scale_is_suitable(counts: Array, exposure: Array, scale: int) -> bool:
    """Whether patches of this scale may be grouped: in two dimensions, with the same exposure."""
    if counts.ndim != 2 or min(counts.shape) < _FEWEST * scale:
        return False
    if counts.mean() * scale**2 < _LEAST_COUNTS or counts.max() > _MOST:
        return False
    return bool(exposure.min() == exposure.max())


def origins(lengths: tuple[int, ...], n: int, start: float) -> list[tuple[int, ...]]:
    """Distances of the origins of grids from the image, from an additive recurrence.

    The steps are powers of the root of x^(d + 1) = x + 1, with which the points fill the square
    evenly.
    """
    root = 1.5
    for _ in range(50):
        root = (1 + root) ** (1 / (len(lengths) + 1))
    steps = root ** -np.arange(1.0, len(lengths) + 1)
    places = (start + np.arange(n)[:, None] * steps) % 1
    sides = [2 ** min(_FARTHEST, max(0, floor(log2(max(m, 2))) - 1)) for m in lengths]
    return [tuple(int(v) for v in place * sides) for place in places]


def _estimates(
    counts: Array,
    exposure: Array,
    prior: PartitionPrior,
    wanted: tuple[bool, ...],
    n_origins: int,
    n_jobs: int | None,
    start: float,
) -> list[Array]:
    """The wanted estimates, each with the sum 1."""
    total = counts.sum()

    def one(origin: tuple[int, ...]) -> Array:
        return partition_mean(counts, exposure, prior, origin)[0]

    flux = np.zeros(counts.shape)
    for found in in_threads(one, origins(counts.shape, n_origins, start), n_jobs):
        flux += found / n_origins
    expected = total * flux * exposure
    estimates = [flux] if wanted[0] else []
    for scale, is_wanted in zip(_SCALES, wanted[1:], strict=False):
        if is_wanted:
            estimates.append(restored_by_patches(counts, expected, scale, n_jobs))
    return [estimate / estimate.sum() for estimate in estimates]
