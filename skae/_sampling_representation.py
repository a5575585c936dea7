"""Images as samples of photon counts, and counts as images."""

from collections.abc import Sequence
from math import prod
from numbers import Integral, Real
from typing import Any, Literal, overload

import numpy as np
from numpy.typing import ArrayLike, NDArray
from scipy.special import gammaln, xlog1py, xlogy
from sklearn.utils import check_scalar

from skae._utils.images import (
    check_exposure,
    check_light,
    checked_counts,
    checked_histogram,
    checked_image,
    pixels_of,
    refuse_mask,
    unmasked,
)
from skae._utils.inputs import check_count
from skae._utils.memory import advice_on_memory
from skae._utils.validation import private_generator

# --------------------------------------------------------------------- formulas
#
# Section 2 of Antsiperov (2022), cited in `sample_counts`. Pixels have area 1, so that the
# integral W of the intensity I is the sum of the image; αT is the exposure.


def jot_count_pmf(intensity: float, exposure: float, n_jots: int) -> NDArray[np.float64]:
    """Probabilities of the numbers of counts that a pixel of jots registers (eq. 1).

    The pixel is split into N jots. Each fires by itself with probability αT I / N, so that
    the number of those that fire is binomial; as N grows it becomes Poisson of mean αT I, at
    a total variation distance of (αT I)² / N or less.

    Parameters
    ----------
    intensity : float
        I, the intensity at the pixel, 0 or more.
    exposure : float
        αT, the expected counts per unit of intensity.
    n_jots : int
        N, which must be αT I or more.

    Returns
    -------
    probability : ndarray of shape (n_jots + 1,), float64
        Of 0, 1, ..., n_jots counts.

    Raises
    ------
    ValueError
        If a number is out of its range, or a jot would fire with a probability above 1.

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
            f"n_jots={n_jots} is too few for exposure * intensity = {exposure * intensity:g}; "
            "allowed are as many jots as counts are expected, or more."
        )
    k = np.arange(n_jots + 1)
    choices = gammaln(n_jots + 1) - gammaln(k + 1) - gammaln(n_jots - k + 1)
    return np.exp(choices + xlogy(k, p) + xlog1py(n_jots - k, -p))


def log_density_of_counts(counts: ArrayLike, image: ArrayLike, exposure: float) -> float:
    """Log density of an ideal image: how many counts, and where they are (eq. 2).

    ``-αTW + Σ log(αT I(x_i)) - log n!``, the density of the ordered n-tuple of counts. It is
    the Poisson probability of n at mean αTW times the density ρ(x_i) = I(x_i) / W of each
    count, so that given n the exposure plays no part (eq. 3).

    Parameters
    ----------
    counts : array-like of shape (n_counts, n_dims)
        Coordinates in pixels, in the order of the axes of `image`; there may be none.
    image : array-like of n_dims axes
        I, the intensity, constant within each pixel, and 0 where a masked array is masked.
    exposure : float
        αT, the expected counts per unit of intensity.

    Returns
    -------
    log_density : float
        In nats; minus infinity if a count is where there is no intensity.

    Raises
    ------
    ValueError
        If `image` is no image of intensities, `counts` are not all within it, or `exposure`
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
    with np.errstate(divide="ignore"):  # log 0 is meant
        return np.log(here).sum() - expected.sum() - gammaln(len(here) + 1)


def dirichlet_posterior(histogram: ArrayLike, prior: ArrayLike = 1.0) -> NDArray[np.float64]:
    """Parameters of the posterior of an image, given a histogram of its counts (eq. 6).

    The conjugate case of p(θ | counts) ∝ p(θ) Π ρ(x_i | θ): θ holds the probability of every
    pixel, and its prior is a Dirichlet distribution. So is the posterior.

    Parameters
    ----------
    histogram : array-like
        How many counts fell on each pixel; any shape.
    prior : float or array-like of the shape of `histogram`, default=1.0
        Positive parameters of the prior, in counts.

    Returns
    -------
    posterior : ndarray of the shape of `histogram`, float64
        The prior's parameters plus the histogram. Divided by its sum, it is the posterior
        mean of the image ρ.

    Raises
    ------
    ValueError
        If the histogram holds negative values or others that are not finite, or the prior
        has another shape or is not positive.

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
    """Log probability of a sequence of counts under all images of the prior (eq. 6).

    The normaliser ∫ p(θ) Π ρ(x_i | θ) dθ of the posterior, of the pixels of the counts in
    the order in which they came. The probability of the histogram alone, the
    Dirichlet-multinomial, is this times the number of such orders.

    Parameters
    ----------
    histogram : array-like
        How many counts fell on each pixel; any shape.
    prior : float or array-like of the shape of `histogram`, default=1.0
        Positive parameters of the prior, in counts.

    Returns
    -------
    log_evidence : float
        In nats, of all counts together.

    Raises
    ------
    ValueError
        As :func:`dirichlet_posterior`.

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

# Some 25 seconds on one core.
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
    random_state: int | np.random.RandomState | None = ...,
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
    random_state: int | np.random.RandomState | None = ...,
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
    random_state: int | np.random.RandomState | None = None,
) -> NDArray[np.float64] | list[NDArray[np.float64]]:
    """Draw a sampling representation of an image: the places where photons are counted.

    Counts are independent, each with the density ρ(x) = I(x) / W of the intensity I over its
    integral W. Their order says nothing: the first k rows are a sample of k counts.

    Parameters
    ----------
    image : array-like of one axis or more
        Intensities, finite and not negative: a signal, a grey image or a volume. Booleans
        count as 0 and 1. Masked pixels of a masked array are left out: no count falls on them,
        and their values may be anything.
    n_counts : int, default=1_000_000
        How many counts to draw. With ``method="poisson"`` the expected number, which
        `exposure` replaces.
    method : {"multinomial", "rejection", "poisson"}, default="multinomial"
        How to draw.

        - "multinomial" draws how many counts fall on each pixel, and shuffles them.
        - "rejection" is the paper's: it proposes a pixel and a level below a bound, both
          uniformly, and accepts what lies below the image. The bound is the maximum of an
          image of floats, and of one of integers the least power of two above its maximum
          (256 for 8 bits). It accepts W / (n_pixels * bound) of its proposals, where only
          pixels that are taken count, and is slow for a dark image with a bright point.
        - "poisson" draws the number of counts as well, as a camera does: an ideal image.

        The first two have the same law and differ in speed alone.
    exposure : float, default=None
        αT, the expected counts per unit of intensity, for "poisson" only: the number of
        counts has mean αTW.
    where : array-like of bool, of the shape of the image without its channels, default=None
        True where counts may fall, as in NumPy's reductions; other pixels are left out, and
        their values may be anything. None takes all that are not masked.
    mask : None
        Not in use: it meant what `where` means, the opposite of a mask of NumPy's.
    channel_axis : int, default=None
        The axis of colours. None takes every axis for space.
    jitter : bool, default=True
        Whether counts are uniform within their pixel, or all at its centre.
    random_state : int, RandomState instance or None, default=None
        Seed of the draw. None takes fresh entropy.

    Returns
    -------
    counts : ndarray of shape (n_counts, n_dims), float64
        Coordinates in pixels, in the order of the axes: (row, column) for a grey image. Pixel
        (i, j) covers [i, i + 1) x [j, j + 1). With `channel_axis`, a list of one such array
        per channel, over the other axes. The channel of every count is drawn, too, so that
        channels share `n_counts` by their total intensities.

    Raises
    ------
    TypeError
        If `n_counts` is not an integer, `exposure` not a number, or `mask` is given.
    ValueError
        If `image` is no array of numbers, holds negative values or others that are not
        finite, or is zero wherever counts may fall; if `where` is not boolean or of another
        shape, there is no axis `channel_axis`, `n_counts` or `exposure` is not positive,
        `method` is unknown, `exposure` is given with a method other than "poisson", or
        "rejection" is expected to take more than 1e9 proposals.
    MemoryError
        If so many counts do not fit into memory.

    See Also
    --------
    thin : A smaller sample of the same image.
    counts_to_image : The histogram of counts.
    image_to_counts : Pixels as weighted counts, without sampling.

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
    picture, taken = checked_image(image, where=where, channel_axis=channel_axis)
    check_count("n_counts", n_counts)
    if method not in ("multinomial", "rejection", "poisson"):
        raise ValueError(
            f"method={method!r}; allowed are 'multinomial', 'rejection' and 'poisson'."
        )
    if exposure is not None:
        check_exposure(exposure)
        if method != "poisson":
            raise ValueError(
                f"exposure={exposure} is for method='poisson' only; got method={method!r}."
            )
    intensity, place = picture.ravel(), None
    if taken is not None:
        place = np.flatnonzero(taken)
        intensity = intensity[place]
    check_light(intensity, taken)
    rng = private_generator(random_state)
    # Of levels in [0, 1] no sum overflows; a power of two divides integers without error.
    brightest = intensity.max()
    bound = float(brightest if picture.dtype.kind == "f" else 2 ** int(brightest).bit_length())
    level = intensity / bound
    n = n_counts
    if method == "poisson":
        n = _poisson(n_counts if exposure is None else exposure * bound * level.sum(), rng)
    with advice_on_memory(
        f"{n:.3g} counts are too many: lower {'n_counts' if exposure is None else 'exposure'}, or "
        "take pixels as weighted counts, by image_to_counts."
    ):
        index = _rejection(level, n, rng) if method == "rejection" else _multinomial(level, n, rng)
        pixels = np.unravel_index(index if place is None else place[index], picture.shape)
        if channel_axis is None:
            return _coordinates(pixels, jitter, rng)
        counts = _coordinates(pixels[1:], jitter, rng)
        return [counts[pixels[0] == channel] for channel in range(len(picture))]


def _poisson(mean: float, rng: np.random.RandomState) -> int:
    if not mean < 2**62:
        raise ValueError(
            f"method='poisson' would draw some {mean:g} counts; allowed are fewer than 2**62. "
            "Give a smaller exposure, or n_counts without one."
        )
    return int(rng.poisson(mean))


def _multinomial(
    level: NDArray[np.float64], n: int, rng: np.random.RandomState
) -> NDArray[np.intp]:
    """n indices of pixels, in random order."""
    lit = np.flatnonzero(level)  # the last pixel takes what rounding leaves over: let it be lit
    drawn = np.repeat(lit, rng.multinomial(n, level[lit] / level[lit].sum()))
    rng.shuffle(drawn)
    return drawn


def _rejection(level: NDArray[np.float64], n: int, rng: np.random.RandomState) -> NDArray[np.intp]:
    """The first n indices of pixels that are accepted, each with its level as probability."""
    accepts = level.mean()
    if not n / accepts <= _MOST_PROPOSALS:
        raise ValueError(
            f"method='rejection' would take some {n / accepts:.1g} proposals, of which it "
            f"accepts one in {1 / accepts:.3g} for this image; allowed are "
            f"{_MOST_PROPOSALS:.0e}. method='multinomial' has the same law at any brightness."
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
        # i + u rounds to i + 1, the next pixel, for a u within rounding of 1.
        over = np.flatnonzero(counts[:, axis] >= pixel + 1)
        counts[over, axis] = np.nextafter(pixel[over] + 1.0, 0)
    return counts


def image_to_counts(
    image: ArrayLike, *, where: ArrayLike | None = None, mask: None = None
) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """Pixels of an image, or of a histogram of counts, as weighted counts.

    An estimator with `sample_weight` learns from them without sampling, from no more rows
    than there are pixels. :func:`counts_to_image` is the inverse.

    Parameters
    ----------
    image : array-like of one axis or more
        Intensities, finite and not negative; every axis is space.
    where : array-like of bool, of the shape of `image`, default=None
        True where pixels are taken, as in NumPy's reductions; other pixels are left out, and
        their values may be anything. None takes all that are not masked.
    mask : None
        Not in use: it meant what `where` means, the opposite of a mask of NumPy's.

    Returns
    -------
    X : ndarray of shape (n_pixels, n_dims), float64
        Centres of the pixels of positive intensity: pixel (i, j) is at (i + 0.5, j + 0.5).
    sample_weight : ndarray of shape (n_pixels,), float64
        Their intensities.

    Raises
    ------
    ValueError
        If `image` is no array of numbers, holds negative values or others that are not
        finite, or is zero wherever pixels are taken, or if `mask` is not boolean or of
        another shape.

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
    picture, taken = checked_image(image, where=where)
    lit = picture > 0
    check_light(lit, taken)
    return np.argwhere(lit).astype(np.float64) + 0.5, picture[lit].astype(np.float64)


# ----------------------------------------------------------------- from counts


def thin(
    counts: ArrayLike,
    k: float,
    *,
    random_state: int | np.random.RandomState | None = None,
) -> NDArray[Any]:
    """Keep a random part of the counts, in the order they have.

    Parameters
    ----------
    counts : array-like of shape (n_counts, n_dims)
        Coordinates of counts.
    k : int or float
        An integer from 1 to n_counts keeps exactly so many, every subset as likely as any
        other: fewer counts of the same image. A float between 0 and 1, both excluded, keeps
        each count by itself with that probability (eq. 3 of the paper): a Poisson process of
        counts becomes one of k times the intensity.
    random_state : int, RandomState instance or None, default=None
        Seed of the choice. None takes fresh entropy.

    Returns
    -------
    thinned : ndarray of shape (n_kept, n_dims)
        A copy of the rows that are kept.

    Raises
    ------
    TypeError
        If `k` is neither an integer nor a float.
    ValueError
        If `counts` has not two axes, is not of numbers or is masked, or `k` is out of its range.

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
    n = len(rows)
    if isinstance(k, bool | np.bool_) or not isinstance(k, Real):
        raise TypeError(f"k={k!r} is of type {type(k).__name__}; expected an int or a float.")
    if isinstance(k, Integral):
        if not 1 <= k <= n:
            raise ValueError(f"k={k}; allowed are integers from 1 to the number of counts, {n}.")
        chosen = private_generator(random_state).permutation(n)[: int(k)]
        return rows[np.sort(chosen)]
    if not 0 < k < 1:
        raise ValueError(f"k={k}; allowed are integers, and floats between 0 and 1, excluded.")
    return rows[private_generator(random_state).random_sample(n) < k]


def counts_to_image(
    counts: ArrayLike, shape: int | Sequence[int], *, sample_weight: ArrayLike | None = None
) -> NDArray[Any]:
    """Histogram of counts on the grid of pixels of an image.

    Parameters
    ----------
    counts : array-like of shape (n_counts, n_dims)
        Coordinates in pixels, in the order of the axes.
    shape : tuple of n_dims ints
        Shape of the image. Pixel (i, j) holds the counts in [i, i + 1) x [j, j + 1).
    sample_weight : array-like of shape (n_counts,), default=None
        How often each count counts, finite and not negative. None means once.

    Returns
    -------
    image : ndarray of shape `shape`, int64 or, with `sample_weight`, float64
        Number of counts, or sum of their weights, on every pixel.

    Raises
    ------
    TypeError
        If `shape` is not made of integers.
    ValueError
        If a count is outside the image, `shape` is not positive or has not as many entries
        as `counts` has columns, or `sample_weight` is not finite, is negative or has another
        length than `counts`; or if either is masked.
    MemoryError
        If the image does not fit into memory.

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
        with advice_on_memory(f"shape={grid} is too large: give fewer pixels."):
            return np.bincount(pixel, minlength=n_pixels).astype(np.int64, copy=False).reshape(grid)
    weight = unmasked(sample_weight, "sample_weight")
    if weight.shape != pixel.shape:
        raise ValueError(
            f"sample_weight has shape {weight.shape} and type {weight.dtype}; expected numbers "
            f"of shape {pixel.shape}, one per count."
        )
    if not (np.isfinite(weight) & (weight >= 0)).all():
        raise ValueError(
            f"sample_weight has values from {weight.min():g} to {weight.max():g}; allowed are "
            "finite weights of 0 or more."
        )
    with advice_on_memory(f"shape={grid} is too large: give fewer pixels."):
        return np.bincount(pixel, weight, n_pixels).reshape(grid)
