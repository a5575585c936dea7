"""The domain of counts, from parameters or from the range of the counts."""

from collections.abc import Sequence
from itertools import product
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import ArrayLike, NDArray
from scipy.ndimage import map_coordinates

from skae._utils.inputs import check_count, naming

Array = NDArray[Any]


class Domain(NamedTuple):
    """The box that the cells cover, and the smallest size of a cell."""

    lo: Array  # (n_dims,)
    hi: Array
    unit: Array  # unit of length along each axis
    smallest: Array  # smallest length of a side of a cell, in units
    aligned: NDArray[np.bool_]  # (n_dims,): whether cells begin and end at multiples of the unit
    exposure: "SummedMap | None" = None

    def log_volume(self, lo: Array, hi: Array) -> Array:
        """Log of the volume of boxes, in units, or of the integral of the exposure over them."""
        sides = np.maximum(hi - lo, 0)
        with np.errstate(divide="ignore"):
            if self.exposure is None:
                found: Array = np.log(sides).sum(axis=1)
                return found
            n_axes = self.exposure.n_axes
            place = self.exposure.integral(lo[:, :n_axes], hi[:, :n_axes])
            return np.asarray(np.log(place) + np.log(sides[:, n_axes:]).sum(axis=1))


class SummedMap:
    """A map that is constant on each pixel, with its integrals over boxes."""

    def __init__(self, values: Array) -> None:
        self.n_axes = values.ndim
        table = values
        for axis in range(values.ndim):
            table = np.cumsum(table, axis=axis)
        self._table = np.pad(table, [(1, 0)] * values.ndim)

    def integral(self, lo: Array, hi: Array) -> Array:
        """Integrals over boxes inside of the map; 0 for boxes without volume."""
        total = np.zeros(len(lo))
        for corner in product((0, 1), repeat=self.n_axes):
            upper = np.array(corner, dtype=bool)
            sign = (-1) ** (self.n_axes - sum(corner))
            at = np.where(upper, hi, lo)
            # Linear interpolation of the table is exact, because the map is constant on pixels.
            total += sign * map_coordinates(self._table, at.T, order=1, mode="nearest")
        positive = (hi > lo).all(axis=1) & (total > 1e-12 * self._table.flat[-1])
        return np.where(positive, total, 0)


def domain_of_cells(
    lo: Array, hi: Array, min_variance: float, n_pixel_axes: int, exposure: Array | None = None
) -> Domain:
    """A box for cells; `min_variance` is the smallest variance of a cell along each axis.

    Along the first `n_pixel_axes` axes, cells begin and end between pixels.
    """
    aligned = np.arange(len(lo)) < n_pixel_axes
    unit = np.where(aligned, 1.0, hi - lo)
    smallest = (12 * min_variance) ** 0.5 / unit
    smallest = np.where(aligned, np.maximum(smallest, 1), smallest)
    summed = None if exposure is None else SummedMap(exposure)
    return Domain(lo, hi, unit, smallest, aligned, summed)


def declared_bounds(
    image_shape: Sequence[int] | None, domain: ArrayLike | None, n_features: int
) -> Array | None:
    """Lowest and highest value of each feature, (n_features, 2), from the parameters."""
    if image_shape is not None:
        if domain is not None:
            raise ValueError(
                f"domain={domain!r} cannot be combined with image_shape={image_shape!r}. Set only "
                "one of them."
            )
        for axis, length in enumerate(image_shape):
            check_count(f"image_shape[{axis}]", length)
        if not 0 < len(image_shape) <= n_features:
            raise ValueError(
                f"image_shape={tuple(image_shape)} has {len(image_shape)} lengths, "
                f"but X has {n_features} features. Give one length for each of the first features, "
                "which are places in the image."
            )
        pixels = [[0.0, float(length)] for length in image_shape]
        return np.array(pixels + [[-np.inf, np.inf]] * (n_features - len(pixels)))
    if domain is None:
        return None
    with naming("domain"):
        bounds = np.asarray(domain, dtype=np.float64)
    if bounds.shape != (n_features, 2):
        raise ValueError(
            f"domain has shape {bounds.shape}; expected shape {(n_features, 2)}, the lowest and "
            "the highest value of each feature."
        )
    if not (np.isfinite(bounds).all() and (bounds[:, 0] < bounds[:, 1]).all()):
        raise ValueError(
            f"domain={bounds.tolist()} is not allowed; expected finite values, and for each "
            "feature the lowest value below the highest."
        )
    return bounds


def check_inside(
    rows: Array, bounds: Array | None, image_shape: Sequence[int] | None, are_pixels: bool = False
) -> None:
    """Raise if counts are outside of the bounds; pixels are named by their indices."""
    if bounds is None:
        return
    lo, hi = bounds.T
    outside = _outside(rows, lo, hi)
    if len(outside):
        name = "domain" if image_shape is None else f"image_shape={image_shape}"
        bounded = np.isfinite(lo)
        if are_pixels:
            rows = rows.copy()
            rows[:, bounded] -= 0.5
            hi = hi - 1
        which = "" if bounded.all() else f" of the first {bounded.sum()} of {len(lo)} features"
        raise ValueError(
            f"X holds {len(outside)} counts outside of {name}. The first is "
            f"X[{outside[0]}] = {rows[outside[0]].tolist()}; allowed are values from "
            f"{lo[bounded].tolist()} to {hi[bounded].tolist()}{which}."
        )


def check_tiled(rows: Array, lo: Array, hi: Array) -> None:
    """Raise if counts are outside of the box that the cells cover."""
    outside = _outside(rows, lo, hi)
    if len(outside):
        raise ValueError(
            f"X holds {len(outside)} counts outside of the cells, which cover {lo.tolist()} to "
            f"{hi.tolist()}. The first is {rows[outside[0]].tolist()}. Set domain or image_shape "
            "so that it contains the counts of all frames."
        )


def _outside(rows: Array, lo: Array, hi: Array) -> NDArray[np.intp]:
    return np.flatnonzero(((rows < lo) | (rows > hi)).any(axis=1))


def range_of(
    rows: Array, bounds: Array | None, n_counts: float, min_variance: float
) -> tuple[Array, Array]:
    """The given bounds, or otherwise the range of the counts with a margin at both ends."""
    if bounds is not None and np.isfinite(bounds).all():
        return bounds[:, 0], bounds[:, 1]
    lo, hi = rows.min(axis=0), rows.max(axis=0)
    # The expected distance of the outermost of n uniform counts from the ends of their domain.
    pad = (hi - lo) / max(n_counts - 1, 1)
    pad = np.maximum(pad, (3 * min_variance) ** 0.5)
    lo, hi = lo - pad, hi + pad
    if bounds is None:
        return lo, hi
    known = np.isfinite(bounds)  # further features have no bounds
    return np.where(known[:, 0], bounds[:, 0], lo), np.where(known[:, 1], bounds[:, 1], hi)
