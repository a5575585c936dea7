"""What an instrument does to counts between the object and the file.

The true places x* have the density rho, a mixture. The optics add noise of covariance S (the point
spread function), and a detector registers a count at x with a probability proportional to the
exposure e(x). A fraction b of the registered counts is background of density beta. The density of
the counts as recorded is therefore

    p(x) = (1 - b) (rho * N(0, S))(x) e(x) / Z + b beta(x),   Z = integral of (rho * N(0, S)) e.

Places inside a pixel are unknown if only indices of pixels were recorded. The centre of the pixel
then stands for all of its places: to S is added the variance 1/12 of a uniform place in a pixel
(Sheppard's correction).
"""

from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
from numpy.typing import NDArray

from skae._mixture.gaussians import Gaussians, Statistics
from skae._mixture.mirror_images import Frame

Array = NDArray[Any]

# Variance of a uniform place within a pixel, along each axis.
PIXEL_VARIANCE = 1 / 12


# Number of counts in a block of pixels, from which the share of the background is guessed.
_COUNTS_OF_BLOCK = 200
# Least share of the background. EM never changes a share of 0.
_LEAST_SHARE = 0.01


@dataclass(frozen=True)
class Instrument:
    """The instrument of a fit; with the default values, it records counts as they are.

    Parameters
    ----------
    shape : tuple of int or None
        Shape of the detector in pixels, along the first features.
    reflects : bool
        Whether density is reflected at the edges of the detector.
    pixels : bool
        Whether places are centres of pixels.
    blur : ndarray of shape (n_features, n_features) or None
        Covariance S of the point spread function.
    exposure : ndarray of shape `shape` or None
        Exposure of each pixel, relative to the largest one. For a callable, its mean.
    exposure_at : callable or None
        Exposure at places, relative to the largest one, if it was given as a callable.
    background : ndarray of shape `shape` or None
        Probability of each pixel under the background.
    ranges : ndarray of shape (n_further, 2) or None
        Ranges of further features, over which the background is uniform.
    """

    shape: tuple[int, ...] | None = None
    reflects: bool = False
    pixels: bool = False
    blur: Array | None = None
    exposure: Array | None = None
    exposure_at: Callable[[Array], Any] | None = None
    background: Array | None = None
    ranges: Array | None = None

    @property
    def frame(self) -> Frame:
        """The box of the detector."""
        assert self.shape is not None
        return Frame(np.zeros(len(self.shape)), np.array(self.shape, dtype=float))

    @property
    def is_plain(self) -> bool:
        """Whether counts are recorded as they are."""
        return not (self.reflects or self.pixels) and all(
            part is None for part in (self.blur, self.exposure, self.background)
        )

    @property
    def n_parameters(self) -> int:
        """Number of parameters that are fitted besides those of the components."""
        return int(self.background is not None)

    @property
    def without_exposure(self) -> "Instrument":
        """An instrument with the same places, which registers all counts and no background."""
        return replace(self, exposure=None, exposure_at=None, background=None)

    @property
    def of_density(self) -> "Instrument":
        """The same, for the density at a place and not on a pixel."""
        return replace(self.without_exposure, pixels=False)

    def spread(self, n_dims: int) -> Array | None:
        """Covariance that is added to each component, (n_dims, n_dims); None if there is none."""
        if not self.pixels:
            return self.blur
        assert self.shape is not None
        box = np.zeros(n_dims)
        box[: len(self.shape)] = PIXEL_VARIANCE
        return np.diag(box) if self.blur is None else self.blur + np.diag(box)

    def is_inside(self, rows: Array) -> NDArray[np.bool_]:
        """Whether places are on the detector, including its far edges."""
        assert self.shape is not None
        place = rows[:, : len(self.shape)]
        return np.asarray(((place >= 0) & (place <= self.shape)).all(axis=1))

    def exposure_of(self, rows: Array) -> Array:
        """Relative exposure at places; 0 outside of the detector."""
        assert self.shape is not None
        assert self.exposure is not None
        if self.exposure_at is None or self.pixels:
            return self.on_map(self.exposure, rows)
        place, inside = rows[:, : len(self.shape)], self.is_inside(rows)
        found = np.zeros(len(rows))
        if inside.any():
            found[inside] = checked_values(self.exposure_at, place[inside])
        return found

    def check_exposed(self, rows: Array) -> None:
        """Raise if counts are where the exposure is zero."""
        if self.exposure is None:
            return
        broken = np.flatnonzero(self.exposure_of(rows) == 0)
        if len(broken):
            raise ValueError(
                f"X holds {len(broken)} counts where exposure is zero. The first is at "
                f"{rows[broken[0]].tolist()}. Remove these counts, or set their sample_weight to 0."
            )

    def log_background(self, rows: Array) -> Array:
        """Log density of the background at places."""
        assert self.background is not None
        with np.errstate(divide="ignore"):
            found: Array = np.log(self.on_map(self.background, rows))
        if self.ranges is None:
            return found
        further, (lo, hi) = rows[:, self.background.ndim :], self.ranges.T
        inside = ((further >= lo) & (further <= hi)).all(axis=1)
        return np.where(inside, found - np.log(hi - lo).sum(), -np.inf)

    def darkest_share(self, rows: Array, weight: Array) -> float:
        """The share of the background if the darkest parts of the detector have nothing else.

        It is the least share that is fitted: components that are wide could take over any part of
        the background. The parts are blocks of pixels with about 200 counts.
        """
        assert self.background is not None
        if self.ranges is not None:  # counts of the object do not cover all further features
            return _LEAST_SHARE
        n_blocks = max(1.0, weight.sum() / _COUNTS_OF_BLOCK)
        side = max(1, round((self.background.size / n_blocks) ** (1 / self.background.ndim)))
        seen = np.zeros(self.background.shape)
        np.add.at(seen, self.pixels_of(rows), weight)
        counted, expected = (_block_sums(image, side) for image in (seen, self.background))
        lit = expected * n_blocks > 0.2
        ratio = counted[lit] / (expected[lit] * weight.sum())
        return float(np.clip(np.quantile(ratio, 0.05), _LEAST_SHARE, 0.99)) if lit.any() else 0.5

    def histogram(self, rows: Array, weight: Array) -> Array | None:
        """Counts on each pixel; None if there are no pixels, or if rows have further features."""
        if self.shape is None or len(self.shape) < rows.shape[1]:
            return None
        found = np.zeros(self.shape)
        np.add.at(found, self.pixels_of(rows), weight)
        return found

    def pixels_of(self, rows: Array) -> tuple[Any, ...]:
        """Indices of the pixels of places. The far edge belongs to the last pixel."""
        assert self.shape is not None
        place = np.nan_to_num(rows[:, : len(self.shape)])
        return tuple(np.clip(np.floor(place), 0, np.array(self.shape) - 1).astype(np.intp).T)

    def on_map(self, values: Array, rows: Array) -> Array:
        """The value of the pixel of each row; 0 outside."""
        return np.where(self.is_inside(rows), values[self.pixels_of(rows)], 0.0)


def _block_sums(image: Array, side: int) -> Array:
    """Sums over blocks of pixels; the last blocks may be smaller."""
    for axis in range(image.ndim):
        image = np.add.reduceat(image, np.arange(0, image.shape[axis], side), axis=axis)
    return image


def checked_values(exposure: Callable[[Array], Any], places: Array) -> Array:
    """Values of a callable exposure, one for each place."""
    values = np.asarray(exposure(places))
    if values.shape != (len(places),) or values.dtype.kind not in "buif":
        raise ValueError(
            f"exposure returned values of shape {values.shape} and dtype {values.dtype} for "
            f"{len(places)} places; expected one number for each, shape ({len(places)},)."
        )
    found = values.astype(np.float64)
    if not (np.isfinite(found) & (found >= 0)).all():
        raise ValueError(
            f"exposure returned values from {found.min():g} to {found.max():g}; allowed are finite "
            "values of 0 or more."
        )
    return found


@dataclass(frozen=True)
class RelativeExposure:
    """A callable exposure, relative to the largest value. Unlike a closure, it can be saved."""

    exposure: Callable[[Array], Any]
    largest: float

    def __call__(self, places: Array) -> Array:
        return np.minimum(checked_values(self.exposure, places) / self.largest, 1.0)


# ------------------------------------------------------------------- point spread


def blurred(gaussians: Gaussians, spread: Array | None) -> Gaussians:
    """The mixture convolved with a Gaussian of covariance `spread`."""
    if spread is None:
        return gaussians
    variances = np.diag(spread)
    if gaussians.kind in ("full", "tied"):
        return gaussians._replace(covariances=gaussians.covariances + spread)
    if np.array_equal(spread, np.diag(variances)):
        if gaussians.kind == "spherical" and np.ptp(variances) == 0:
            return gaussians._replace(covariances=gaussians.covariances + variances[0])
        return gaussians._replace(covariances=gaussians.variances() + variances, kind="diag")
    return gaussians._replace(covariances=gaussians.full() + spread, kind="full")


def sharpened(stats: Statistics, gaussians: Gaussians, spread: Array | None) -> Statistics:
    """Statistics of the true places, from those of the recorded places under each component.

    Given a recorded place, the true place has the mean mu + A (x - mu) and the covariance
    Sigma - A Sigma, where A = Sigma (Sigma + S)^-1 (Bovy et al. 2011, eq. 16-18).
    """
    if spread is None:
        return reduced(stats, gaussians)
    if stats.second.ndim == 2 and gaussians.kind in ("diag", "spherical"):
        own = gaussians.variances()
        gain = own / (own + np.diag(spread))
        second = gain**2 * stats.second + stats.n[:, None] * (own - gain * own)
        return stats._replace(first=gain * stats.first, second=second)
    full = gaussians.full()
    gain = full @ np.linalg.inv(full + spread)
    second = gain @ stats.second @ gain.swapaxes(1, 2)
    second += stats.n[:, None, None] * (full - gain @ full)
    first = np.einsum("jab,jb->ja", gain, stats.first)
    return reduced(stats._replace(first=first, second=second), gaussians)


def reduced(stats: Statistics, gaussians: Gaussians) -> Statistics:
    """Matrices of each component, as the kind of the mixture needs them."""
    if stats.second.ndim < 3 or gaussians.kind == "full":
        return stats
    if gaussians.kind == "tied":
        return stats._replace(second=stats.second.sum(axis=0))
    return stats._replace(second=np.diagonal(stats.second, axis1=1, axis2=2).copy())
