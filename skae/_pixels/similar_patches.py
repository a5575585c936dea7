"""The intensity of an image from groups of patches that are similar in a first estimate.

Structures of an image recur, near each other and far apart. All patches, squares of pixels, are
divided into groups that look alike in the first estimate. Within a group, the patches of the counts
are a sample of a Gaussian with an unknown mean and covariance, plus Poisson noise of a known
variance. The posterior mean of each patch follows (Lebrun, Buades and Morel 2013), with the noise
of the counts themselves in place of a transformation to constant variance. Each pixel gets the
weighted mean over all patches that contain it.

References
----------
M. Lebrun, A. Buades and J.-M. Morel (2013). A nonlocal Bayesian image denoising algorithm. SIAM
Journal on Imaging Sciences 6(3), 1665-1688. :doi:`10.1137/120874989`
"""

from itertools import product
from typing import Any

import numpy as np
from numpy.lib.stride_tricks import sliding_window_view
from numpy.typing import NDArray

from skae._utils.threads import in_threads

Array = NDArray[Any]
Indices = NDArray[np.intp]

# Side of a patch in pixels, and smallest number of patches in a group; groups have less than twice
# as many.
_SIDE, _GROUP = 8, 150

# Number of principal components by which patches are compared, and the weight of the brightness of
# a patch relative to its shape.
_N_COMPARED, _BRIGHTNESS = 12, 0.3

# Rows from which a principal axis is computed.
_N_ROWS = 2000

# Pixels along the sides of the parts of an image that are restored separately.
_PART = 512

# Smallest expected number of counts of a pixel, relative to the mean of the image.
_LEAST = 1e-3


def restored_by_patches(counts: Array, expected: Array, n_pixels: int, n_jobs: int | None) -> Array:
    """Estimate the expected counts of each pixel again, from groups of similar patches.

    Parameters
    ----------
    counts, expected : ndarray of shape (height, width)
        Counts, and a first estimate of their expectation.
    n_pixels : int
        Sums of squares of `n_pixels` x `n_pixels` take the place of pixels. The details within the
        squares are those of the first estimate. More of them suit fewer counts.
    n_jobs : int or None
        Number of threads.

    Returns
    -------
    expected : ndarray of shape (height, width)
        Positive. Its sum is about that of `counts`.
    """
    least = _LEAST * expected.mean()
    expected = np.maximum(expected, least)
    if n_pixels == 1:
        return np.maximum(_of_parts(counts, expected, n_jobs), least)
    shape = counts.shape
    found = np.zeros(shape)
    origins = list(product(range(0, n_pixels, n_pixels // 2), repeat=2))
    for origin in origins:
        pad = [(o, -(n + o) % n_pixels) for o, n in zip(origin, shape, strict=True)]
        sums = [_summed(np.pad(image, pad, "symmetric"), n_pixels) for image in (counts, expected)]
        ratio = np.maximum(_of_parts(sums[0], sums[1], n_jobs) / sums[1], _LEAST)
        wide = np.kron(ratio, np.ones((n_pixels, n_pixels)))
        inner = tuple(slice(o, o + n) for o, n in zip(origin, shape, strict=True))
        found += wide[inner] / len(origins)
    return np.asarray(expected * found)


def _summed(image: Array, n: int) -> Array:
    height, width = image.shape
    summed: Array = image.reshape(height // n, n, width // n, n).sum(axis=(1, 3))
    return summed


def _of_parts(counts: Array, expected: Array, n_jobs: int | None) -> Array:
    """The estimate of a large image, part by part, with margins of one patch."""
    found = np.empty(counts.shape)
    margin = _SIDE - 1
    padded = [np.pad(image, margin, "symmetric") for image in (counts, expected)]
    for corner in product(*(range(0, n, _PART) for n in counts.shape)):
        ends = (min(c + _PART, n) for c, n in zip(corner, counts.shape, strict=True))
        inner = tuple(slice(c, end) for c, end in zip(corner, ends, strict=True))
        outer = tuple(slice(part.start, part.stop + 2 * margin) for part in inner)
        restored = _of_groups(padded[0][outer], padded[1][outer], n_jobs)
        found[inner] = restored[margin:-margin, margin:-margin]
    return found


def _of_groups(counts: Array, expected: Array, n_jobs: int | None) -> Array:
    """The estimate from all patches within an image."""
    of_counts = sliding_window_view(counts.astype(np.float32), (_SIDE, _SIDE))
    of_pilot = sliding_window_view(expected.astype(np.float32), (_SIDE, _SIDE))
    shape = of_counts.shape[:2]
    groups = similar_groups(compared_features(np.sqrt(of_pilot).reshape(-1, _SIDE**2)), _GROUP)
    values = np.empty((shape[0] * shape[1], _SIDE**2), dtype=np.float32)
    trust = np.empty(len(values), dtype=np.float32)

    def restore(group: Indices) -> None:
        row, column = np.unravel_index(group, shape)
        patches = of_counts[row, column].reshape(len(group), -1)
        mean = of_pilot[row, column].reshape(len(group), -1).mean(axis=0)
        values[group], trust[group] = posterior_means(patches, mean)

    list(in_threads(restore, groups, n_jobs))
    of_pixels = values.reshape(*shape, _SIDE, _SIDE)
    trusts = trust.reshape(shape)
    total, weight = np.zeros(counts.shape), np.zeros(counts.shape)
    for i, j in product(range(_SIDE), repeat=2):
        at = (slice(i, i + shape[0]), slice(j, j + shape[1]))
        total[at] += trusts * of_pixels[:, :, i, j]
        weight[at] += trusts
    return total / weight


def posterior_means(patches: Array, mean: Array) -> tuple[Array, float]:
    """The posterior mean of each patch of a group, and its weight.

    The weight is the inverse of the sum of the squared shrinkage factors, which is the variance of
    the noise that is left.

    Parameters
    ----------
    patches : ndarray of shape (n_patches, n_pixels)
        Counts.
    mean : ndarray of shape (n_pixels,)
        First estimate of the mean of the group. The variance of the noise of a count is this mean.
    """
    scale = np.sqrt(mean)
    white = (patches - mean) / scale
    centre = white.mean(axis=0)
    white -= centre
    variances, axes = np.linalg.eigh(white.T @ white / len(patches))
    # Variances of pure noise reach up to this one (Marchenko and Pastur).
    largest_of_noise = (1 + np.sqrt(len(mean) / len(patches))) ** 2
    signal = np.where(variances > largest_of_noise, variances - 1, 0)
    kept = signal / (signal + 1)
    restored = mean + scale * (centre + white @ (axes * kept) @ axes.T)
    return np.maximum(restored, 0), float(1 / (1 + (kept**2).sum()))


def compared_features(patches: Array) -> Array:
    """The first principal components of patches, with a smaller weight of their brightness."""
    features = patches - (1 - _BRIGHTNESS) * patches.mean(axis=1, keepdims=True)
    sample = features[:: max(1, len(features) // (4 * _N_ROWS))]
    sample = sample - sample.mean(axis=0)
    axes = np.linalg.eigh(sample.T @ sample)[1][:, -_N_COMPARED:]
    compared: Array = features @ axes
    return compared


def similar_groups(features: Array, size: int) -> list[Indices]:
    """Groups of rows, from halving at the median along the principal axis of each group.

    Groups have at least `size` rows, and less than twice as many, if there are so many rows.
    """
    waiting = [np.arange(len(features))]
    groups = []
    while waiting:
        group = waiting.pop()
        if len(group) < 2 * size:
            groups.append(group)
            continue
        rows = features[group]
        sample = rows[:: max(1, len(rows) // _N_ROWS)]
        sample = sample - sample.mean(axis=0)
        along = rows @ np.linalg.eigh(sample.T @ sample)[1][:, -1]
        order = np.argpartition(along, len(along) // 2)
        waiting += [group[order[: len(along) // 2]], group[order[len(along) // 2 :]]]
    return groups
