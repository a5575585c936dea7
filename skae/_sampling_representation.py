"""Convert images to samples of photon counts, and counts to images."""

from __future__ import annotations

from collections.abc import Sequence
from math import prod
from numbers import Integral, Real
from typing import Any, Literal, overload

import numpy as np
from numpy.typing import ArrayLike, NDArray
from scipy import sparse
from scipy.special import gammaln, xlog1py, xlogy
from sklearn.utils import check_scalar

from skae._utils.images import (
    check_exposure,
    check_light,
    check_no_image,
    checked_counts,
    checked_histogram,
    checked_image,
    checked_sparse_image,
    pixels_of,
    refuse_mask,
    unmasked,
)
from skae._utils.inputs import check_count
from skae._utils.memory import advice_on_memory
from skae._utils.types import RandomState
from skae._utils.validation import private_generator

# --------------------------------------------------------------------- formulas
#
# Section 2 of Antsiperov (2022), cited in `sample_counts`. Pixels have area 1, so that the
# integral W of the intensity I is the sum of the image; αT is the exposure.


def jot_count_pmf(intensity: float, exposure: float, n_jots: int) -> NDArray[np.float64]:
    """Probability of each number of counts of a pixel that consists of jots (eq. 1).

    The pixel is divided into N jots. Each jot registers a count independently, with probability
    αT I / N. The number of counts of the pixel therefore has a binomial distribution. For large N
    it approaches a Poisson distribution of mean αT I; the total variation distance between the two
    is at most (αT I)² / N.

    Parameters
    ----------
    intensity : float
        Intensity I of the pixel, at least 0.
    exposure : float
        Exposure αT, the expected number of counts per unit of intensity.
    n_jots : int
        Number N of jots, at least αT I.

    Returns
    -------
    probability : ndarray of shape (n_jots + 1,), float64
        Probabilities of 0, 1, ..., n_jots counts.

    Raises
    ------
    ValueError
        If a number is out of its range, or if the probability of a jot would exceed 1.

    Examples
    --------
    >>> from skae._sampling_representation import jot_count_pmf
    >>> print(jot_count_pmf(0.5, 2.0, 2))
    [0.25 0.5  0.25]
    """
    check_scalar(intensity, "intensity", Real, min_val=0)
    check_exposure(exposure)
    check_count("n_jots", n_jots)
    p = exposure * intensity / n_jots
    if not p <= 1:
        raise ValueError(
            f"n_jots={n_jots} is too small: it must be at least exposure * intensity = "
            f"{exposure * intensity:g}, the expected number of counts."
        )
    k = np.arange(n_jots + 1)
    choices = gammaln(n_jots + 1) - gammaln(k + 1) - gammaln(n_jots - k + 1)
    return np.exp(choices + xlogy(k, p) + xlog1py(n_jots - k, -p))


def log_density_of_counts(counts: ArrayLike, image: ArrayLike, exposure: float) -> float:
    """Log density of an ideal image, that is, of the number and the positions of counts (eq. 2).

    The log density of the ordered n-tuple of counts is ``-αTW + Σ log(αT I(x_i)) - log n!``. It is
    the sum of the log probability of n under a Poisson distribution of mean αTW and the log
    densities of the counts, with ρ(x_i) = I(x_i) / W. Given n, it does not depend on the exposure
    (eq. 3).

    Parameters
    ----------
    counts : array-like of shape (n_counts, n_dims)
        Coordinates in pixels, in the order of the axes of `image`. The array may be empty.
    image : array-like of n_dims axes
        Intensity I of each pixel. Masked pixels of a masked array have intensity 0.
    exposure : float
        Exposure αT, the expected number of counts per unit of intensity.

    Returns
    -------
    log_density : float
        Log density in nats. It is minus infinity if a count lies on a pixel of intensity 0.

    Raises
    ------
    ValueError
        If `image` is not an array of intensities, if a count lies outside of it, or if `exposure`
        is not positive.

    Examples
    --------
    >>> from skae._sampling_representation import log_density_of_counts
    >>> float(log_density_of_counts([[0.5], [1.2]], [1.0, 3.0], exposure=1.0).round(4))
    -3.5945
    """
    picture, _ = checked_image(image)
    check_exposure(exposure)
    expected = exposure * picture.astype(np.float64)  # αT I, counts per pixel
    here = expected.ravel()[pixels_of(counts, picture.shape)]
    with np.errstate(divide="ignore"):  # log 0 is intended
        return np.log(here).sum() - expected.sum() - gammaln(len(here) + 1)


def dirichlet_posterior(histogram: ArrayLike, prior: ArrayLike = 1.0) -> NDArray[np.float64]:
    """Parameters of the posterior of an image given a histogram of its counts (eq. 6).

    The parameters θ are the probabilities of the pixels. Their prior is a Dirichlet distribution.
    The posterior p(θ | counts) ∝ p(θ) Π ρ(x_i | θ) is then a Dirichlet distribution, too.

    Parameters
    ----------
    histogram : array-like
        Number of counts on each pixel. It may have any shape.
    prior : float or array-like of the shape of `histogram`, default=1.0
        Positive parameters of the prior, in counts.

    Returns
    -------
    posterior : ndarray of the shape of `histogram`, float64
        The parameters of the prior plus the histogram. Divided by its sum, this array is the
        posterior mean of the normalised image ρ.

    Raises
    ------
    ValueError
        If a value of the histogram is negative or not finite, or if the prior is not positive or
        has another shape.

    Examples
    --------
    >>> from skae._sampling_representation import dirichlet_posterior
    >>> print(dirichlet_posterior([[3, 0], [1, 0]]))
    [[4. 1.]
     [2. 1.]]
    """
    seen, before = checked_histogram(histogram, prior)
    return before + seen


def dirichlet_log_evidence(histogram: ArrayLike, prior: ArrayLike = 1.0) -> float:
    """Log probability of a sequence of counts, averaged over the images of the prior (eq. 6).

    This is the logarithm of the normaliser ∫ p(θ) Π ρ(x_i | θ) dθ of the posterior. It is the
    probability of an ordered sequence of pixels. The probability of the histogram, the
    Dirichlet-multinomial distribution, is larger by a factor, the number of such sequences.

    Parameters
    ----------
    histogram : array-like
        Number of counts on each pixel. It may have any shape.
    prior : float or array-like of the shape of `histogram`, default=1.0
        Positive parameters of the prior, in counts.

    Returns
    -------
    log_evidence : float
        Log probability of all counts together, in nats.

    Raises
    ------
    ValueError
        If a value of the histogram is negative or not finite, or if the prior is not positive or
        has another shape.

    Examples
    --------
    >>> import numpy as np
    >>> from skae._sampling_representation import dirichlet_log_evidence
    >>> float(np.exp(dirichlet_log_evidence([1, 1])).round(4))
    0.1667
    """
    seen, before = checked_histogram(histogram, prior)
    whole = gammaln(before.sum()) - gammaln(before.sum() + seen.sum())
    return whole + (gammaln(before + seen) - gammaln(before)).sum()


# ----------------------------------------------------------------- from images

# These take about 25 seconds on one core.
_MOST_PROPOSALS = 10**9


@overload
def sample_counts(
    image: ArrayLike,
    n_counts: int = ...,
    *,
    method: Literal["multinomial", "rejection", "poisson"] = ...,
    exposure: float | None = ...,
    where: ArrayLike | None = ...,
    mask: None = ...,
    channel_axis: None = ...,
    jitter: bool = ...,
    random_state: RandomState = ...,
) -> NDArray[np.float64]: ...
@overload
def sample_counts(
    image: ArrayLike,
    n_counts: int = ...,
    *,
    method: Literal["multinomial", "rejection", "poisson"] = ...,
    exposure: float | None = ...,
    where: ArrayLike | None = ...,
    mask: None = ...,
    channel_axis: int,
    jitter: bool = ...,
    random_state: RandomState = ...,
) -> list[NDArray[np.float64]]: ...
def sample_counts(
    image: ArrayLike,
    n_counts: int = 1_000_000,
    *,
    method: Literal["multinomial", "rejection", "poisson"] = "multinomial",
    exposure: float | None = None,
    where: ArrayLike | None = None,
    mask: None = None,
    channel_axis: int | None = None,
    jitter: bool = True,
    random_state: RandomState = None,
) -> NDArray[np.float64] | list[NDArray[np.float64]]:
    """Draw a sampling representation of an image, that is, positions of photon counts.

    Counts are independent and have the density ρ(x) = I(x) / W, where W is the integral of the
    intensity I. They are in random order, so that the first k rows are a sample of k counts.

    Parameters
    ----------
    image : array-like of one axis or more, or sparse array
        Intensities of a signal, a grey image or a volume, finite and not negative. Booleans
        are read as 0 and 1. No count falls on a masked pixel of a masked array, and the value of
        such a pixel does not matter. Arrays and matrices of SciPy are not made dense.
    n_counts : int, default=1_000_000
        Number of counts to draw. With ``method="poisson"`` and no `exposure`, it is the expected
        number.
    method : {"multinomial", "rejection", "poisson"}, default="multinomial"
        How the counts are drawn.

        - "multinomial" draws the number of counts of each pixel, and shuffles the counts.
        - "rejection" is the method of the paper. It proposes a pixel and a level below a bound,
          both uniformly, and accepts a proposal if the level is below the intensity of the pixel.
          The bound is the maximum of an image of floats. For an image of integers it is the
          smallest power of two above the maximum (256 for 8 bits). The fraction of accepted
          proposals is W / (n_pixels * bound), where n_pixels excludes pixels that are left out,
          and the dark pixels of a sparse array.
          The method is slow for a dark image with a bright point.
        - "poisson" also draws the number of counts, as a camera does. The result is an ideal image.

        The first two have the same distribution and differ only in speed.
    exposure : float, default=None
        Exposure αT, the expected number of counts per unit of intensity. The number of counts then
        has mean αTW. Only for "poisson". None uses `n_counts` as the mean.
    where : array-like of bool, of the shape of the image without its channels, default=None
        Mask of the pixels on which counts may fall, as in NumPy's reductions. The values of the
        other pixels do not matter. None takes all pixels that are not masked.
    mask : None
        Not used any more, use `where`. `mask` had the meaning of `where`, which is the opposite
        of the meaning of a mask in NumPy.
    channel_axis : int, default=None
        Axis of the colour channels. None means that all axes are axes of space.
    jitter : bool, default=True
        Whether the position of a count within its pixel is uniform. With False, all counts are at
        the centres of their pixels.
    random_state : int, RandomState instance or None, default=None
        Seed of the draw. With None, every call draws other counts.

    Returns
    -------
    counts : ndarray of shape (n_counts, n_dims), float64
        Coordinates in pixels, in the order of the axes, that is, (row, column) for a grey image.
        Pixel (i, j) covers [i, i + 1) x [j, j + 1). With `channel_axis`, a list with one such
        array for each channel, over the other axes. The channels share `n_counts` at random, in
        proportion to their total intensities.

    Raises
    ------
    TypeError
        If `n_counts` is not an integer, if `exposure` is not a number, or if `mask` is given.
    ValueError
        If `image` is not an array of numbers, has values that are negative or not finite, or is
        zero on all pixels on which counts may fall. Also if `where` is not boolean or has another
        shape, if there is no axis `channel_axis`, if `n_counts` or `exposure` is not positive, if
        `method` is unknown, if `exposure` is given and `method` is not "poisson", or if
        "rejection" would need more than 1e9 proposals.
    MemoryError
        If there is not enough memory for so many counts.

    See Also
    --------
    thin : Draw a smaller sample from counts.
    counts_to_image : Compute the histogram of counts.
    image_to_counts : Use pixels as weighted counts, without sampling.

    References
    ----------
    V. E. Antsiperov (2022). Generative model for autoencoders learning by image sampling
    representations. ICPRAM.
    http://scitepress.net/PublishedPapers/2022/109152/pdf/index.html

    Examples
    --------
    >>> from sklearn.datasets import load_digits
    >>> from skae import counts_to_image, sample_counts
    >>> image = load_digits().images[0]
    >>> counts = sample_counts(image, 100_000, random_state=0)
    >>> counts.shape
    (100000, 2)
    >>> histogram = counts_to_image(counts, image.shape)
    >>> bool(abs(histogram / 100_000 - image / image.sum()).max() < 0.002)
    True
    """
    refuse_mask(mask)
    place: Any
    if sparse.issparse(image):
        intensity, place, n_channels = checked_sparse_image(
            image, where=where, channel_axis=channel_axis
        )
        taken = None if where is None else np.asarray(where)
    else:
        picture, taken = checked_image(image, where=where, channel_axis=channel_axis)
        intensity, place, n_channels = picture.ravel(), None, len(picture)
        if taken is not None:
            place = np.flatnonzero(taken)
            intensity = intensity[place]
    check_count("n_counts", n_counts)
    if method not in ("multinomial", "rejection", "poisson"):
        raise ValueError(
            f"method={method!r} is unknown; allowed are 'multinomial', 'rejection' and 'poisson'."
        )
    if exposure is not None:
        check_exposure(exposure)
        if method != "poisson":
            raise ValueError(
                f"exposure={exposure} is only allowed with method='poisson', got method={method!r}."
            )
    check_light(intensity, taken)
    rng = private_generator(random_state)
    # Sums of levels in [0, 1] do not overflow, and division by a power of two is exact.
    brightest = intensity.max()
    bound = float(brightest if intensity.dtype.kind == "f" else 2 ** int(brightest).bit_length())
    level = intensity / bound
    n = n_counts
    if method == "poisson":
        n = _poisson(n_counts if exposure is None else exposure * bound * level.sum(), rng)
    with advice_on_memory(
        f"{n:.3g} counts are too many. Reduce {'n_counts' if exposure is None else 'exposure'}, or "
        "use image_to_counts, which returns pixels as weighted counts."
    ):
        index = _rejection(level, n, rng) if method == "rejection" else _multinomial(level, n, rng)
        if isinstance(place, tuple):
            pixels = tuple(along[index] for along in place)
        else:
            pixels = np.unravel_index(index if place is None else place[index], picture.shape)
        if channel_axis is None:
            return _coordinates(pixels, jitter, rng)
        counts = _coordinates(pixels[1:], jitter, rng)
        return [counts[pixels[0] == channel] for channel in range(n_channels)]


def _poisson(mean: float, rng: np.random.RandomState) -> int:
    if not mean < 2**62:
        raise ValueError(
            f"method='poisson' would draw about {mean:g} counts; allowed are fewer than 2**62. "
            "Reduce exposure, or give n_counts instead."
        )
    return int(rng.poisson(mean))


def _multinomial(
    level: NDArray[np.float64], n: int, rng: np.random.RandomState
) -> NDArray[np.intp]:
    """Draw n indices of pixels, in random order."""
    # Because of rounding errors, NumPy may assign counts to the last pixel even if it is dark.
    lit = np.flatnonzero(level)
    drawn = np.repeat(lit, rng.multinomial(n, level[lit] / level[lit].sum()))
    rng.shuffle(drawn)
    return drawn


def _rejection(level: NDArray[np.float64], n: int, rng: np.random.RandomState) -> NDArray[np.intp]:
    """Draw n indices of pixels; a proposed pixel is accepted with its level as probability."""
    accepts = level.mean()
    if not n / accepts <= _MOST_PROPOSALS:
        raise ValueError(
            f"method='rejection' would need about {n / accepts:.1g} proposals, because it accepts "
            f"only one in {1 / accepts:.3g} for this image; allowed are {_MOST_PROPOSALS:.0e}. Use "
            "method='multinomial', which has the same distribution."
        )
    accepted, missing = [], n
    while missing:
        size = min(int(1.1 * missing / accepts) + 16, 2**18)
        proposed = rng.randint(level.size, size=size)
        accepted.append(proposed[rng.random_sample(size) < level[proposed]][:missing])
        missing -= len(accepted[-1])
    return np.concatenate(accepted)


def _coordinates(
    pixels: Sequence[NDArray[np.intp]], jitter: bool, rng: np.random.RandomState
) -> NDArray[np.float64]:
    if not jitter:
        return np.column_stack(pixels).astype(np.float64) + 0.5
    counts = rng.random_sample((len(pixels[0]), len(pixels)))
    for axis, pixel in enumerate(pixels):
        counts[:, axis] += pixel
        # If u is almost 1, i + u is rounded to i + 1, which lies on the next pixel.
        over = np.flatnonzero(counts[:, axis] >= pixel + 1)
        counts[over, axis] = np.nextafter(pixel[over] + 1.0, 0)
    return counts


def image_to_counts(
    image: ArrayLike, *, where: ArrayLike | None = None, mask: None = None
) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """Convert the pixels of an image, or of a histogram of counts, to weighted counts.

    An estimator that accepts `sample_weight` learns from weighted counts without sampling. There
    are at most as many rows as pixels. :func:`counts_to_image` is the inverse.

    Parameters
    ----------
    image : array-like of one axis or more, or sparse array
        Intensities, finite and not negative. All axes are axes of space. Arrays and matrices of
        SciPy are not made dense.
    where : array-like of bool, of the shape of `image`, default=None
        Mask of the pixels that are used, as in NumPy's reductions. The values of the other pixels
        do not matter. None takes all pixels that are not masked.
    mask : None
        Not used any more, use `where`. `mask` had the meaning of `where`, which is the opposite
        of the meaning of a mask in NumPy.

    Returns
    -------
    X : ndarray of shape (n_pixels, n_dims), float64
        Centres of the pixels of positive intensity. The centre of pixel (i, j) is
        (i + 0.5, j + 0.5).
    sample_weight : ndarray of shape (n_pixels,), float64
        Intensities of these pixels.

    Raises
    ------
    TypeError
        If `mask` is given.
    ValueError
        If `image` is not an array of numbers, has values that are negative or not finite, or is
        zero on all pixels that are used, or if `where` is not boolean or has another shape.

    Examples
    --------
    >>> from skae import image_to_counts
    >>> X, sample_weight = image_to_counts([[0, 3], [1, 0]])
    >>> print(X)
    [[0.5 1.5]
     [1.5 0.5]]
    >>> print(sample_weight)
    [3. 1.]
    """
    refuse_mask(mask)
    if sparse.issparse(image):
        intensity, pixels, _ = checked_sparse_image(image, where=where)
        check_light(intensity, where)
        return np.column_stack(pixels).astype(np.float64) + 0.5, intensity.astype(np.float64)
    picture, taken = checked_image(image, where=where)
    lit = picture > 0
    check_light(lit, taken)
    return np.argwhere(lit).astype(np.float64) + 0.5, picture[lit].astype(np.float64)


# ----------------------------------------------------------------- from counts


def thin(
    counts: ArrayLike,
    k: float,
    *,
    random_state: RandomState = None,
) -> NDArray[Any]:
    """Keep a random subset of the counts, in their original order.

    Parameters
    ----------
    counts : array-like of shape (n_counts, n_dims)
        Coordinates of counts, not an image. A data frame may have columns of nullable types.
    k : int or float
        Number of counts to keep, an integer from 1 to n_counts; all subsets of this size have the
        same probability. Or the probability with which each count is kept independently, a float
        between 0 and 1, both excluded (eq. 3 of the paper). A Poisson process of counts then
        becomes a Poisson process of k times the intensity.
    random_state : int, RandomState instance or None, default=None
        Seed of the choice. With None, every call keeps other counts.

    Returns
    -------
    thinned : ndarray of shape (n_kept, n_dims)
        A copy of the rows that are kept.

    Raises
    ------
    TypeError
        If `k` is neither an integer nor a float.
    ValueError
        If `counts` is not a two-dimensional array of numbers, if it is masked or has missing
        values, if it has more columns than an image can have axes, or if `k` is out of its range.

    Warns
    -----
    UserWarning
        If `counts` has more than four columns, and looks like an image: all values are whole
        numbers, or there are few rows.

    See Also
    --------
    sample_counts : Draw counts from an image.
    image_to_counts : Convert the pixels of an image to weighted counts.

    References
    ----------
    V. E. Antsiperov (2022). Generative model for autoencoders learning by image sampling
    representations. ICPRAM.
    http://scitepress.net/PublishedPapers/2022/109152/pdf/index.html

    Examples
    --------
    >>> from skae import sample_counts, thin
    >>> counts = sample_counts([[1.0, 2.0], [3.0, 0.0]], 1000, random_state=0)
    >>> thin(counts, 10, random_state=0).shape
    (10, 2)
    >>> thin(counts, 0.5, random_state=0).shape
    (517, 2)
    """
    rows = checked_counts(counts)
    check_no_image(rows)
    n = len(rows)
    if isinstance(k, bool | np.bool_) or not isinstance(k, Real):
        raise TypeError(f"k={k!r} is of type {type(k).__name__}; expected an int or a float.")
    if isinstance(k, Integral):
        if not 1 <= k <= n:
            raise ValueError(f"k={k} must be from 1 to the number of counts, {n}, or a float.")
        chosen = private_generator(random_state).permutation(n)[: int(k)]
        return rows[np.sort(chosen)]
    if not 0 < k < 1:
        raise ValueError(f"k={k} must be between 0 and 1, both excluded, or an integer.")
    return rows[private_generator(random_state).random_sample(n) < k]


def counts_to_image(
    counts: ArrayLike, shape: int | Sequence[int], *, sample_weight: ArrayLike | None = None
) -> NDArray[Any]:
    """Compute the histogram of counts on the pixels of an image.

    Parameters
    ----------
    counts : array-like of shape (n_counts, n_dims)
        Coordinates in pixels, in the order of the axes. A data frame may have columns of nullable
        types.
    shape : tuple of n_dims ints
        Shape of the image. Pixel (i, j) covers [i, i + 1) x [j, j + 1). A coordinate of floats
        exactly at the far end of an axis belongs to the last pixel, as in `numpy.histogram`.
    sample_weight : array-like of shape (n_counts,), default=None
        Weights of the counts, finite and not negative. None means weight 1.

    Returns
    -------
    image : ndarray of shape `shape`, int64 or, with `sample_weight`, float64
        Number of counts on each pixel, or the sum of their weights.

    Raises
    ------
    TypeError
        If `shape` does not consist of integers.
    ValueError
        If a count is outside of the image, or if `shape` is not positive or does not have one
        entry for each column of `counts`. Also if `sample_weight` is negative, not finite or not
        of the same length as `counts`, or if `counts` or `sample_weight` is masked or has missing
        values.
    MemoryError
        If there is not enough memory for the image.

    Examples
    --------
    >>> from skae import counts_to_image
    >>> print(counts_to_image([[0.1, 1.7], [0.5, 1.0], [1.2, 0.9]], (2, 2)))
    [[0 2]
     [1 0]]
    """
    grid = tuple(np.atleast_1d(np.asarray(shape, dtype=object)))
    for axis, length in enumerate(grid):
        check_count(f"shape[{axis}]", length)
    pixel = pixels_of(counts, grid)
    n_pixels = prod(grid)
    if sample_weight is None:
        with advice_on_memory(f"shape={grid} is too large. Reduce the number of pixels."):
            return np.bincount(pixel, minlength=n_pixels).astype(np.int64, copy=False).reshape(grid)
    weight = unmasked(sample_weight, "sample_weight")
    if weight.shape != pixel.shape:
        raise ValueError(
            f"sample_weight has shape {weight.shape} and dtype {weight.dtype}; expected one number "
            f"for each count, shape {pixel.shape}."
        )
    if not (np.isfinite(weight) & (weight >= 0)).all():
        raise ValueError(
            f"sample_weight has values from {weight.min():g} to {weight.max():g}; allowed are "
            "finite weights of 0 or more."
        )
    with advice_on_memory(f"shape={grid} is too large. Reduce the number of pixels."):
        return np.bincount(pixel, weight, n_pixels).reshape(grid)
