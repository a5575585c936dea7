"""The domain of counts, from parameters or from the range of the counts."""

from collections.abc import Sequence
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import ArrayLike, NDArray

from skae._utils.inputs import check_count, naming

Array = NDArray[Any]


class Domain(NamedTuple):
    """The box that the cells cover, and the smallest size of a cell."""

    lo: Array  # (n_dims,)
    hi: Array
    unit: Array  # unit of length along each axis
    smallest: Array  # smallest length of a side of a cell, in units
    aligned: bool  # whether cells begin and end at integer multiples of the unit


def domain_of_cells(lo: Array, hi: Array, min_variance: float, aligned: bool) -> Domain:
    """A box for cells; `min_variance` is the smallest variance of a cell along each axis."""
    unit = np.ones(len(lo)) if aligned else hi - lo
    smallest = (12 * min_variance) ** 0.5 / unit
    return Domain(lo, hi, unit, np.maximum(smallest, 1) if aligned else smallest, aligned)


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
        if len(image_shape) != n_features:
            raise ValueError(
                f"image_shape={tuple(image_shape)} has {len(image_shape)} lengths, "
                f"but X has {n_features} features. One length for each feature is needed."
            )
        return np.array([[0.0, float(length)] for length in image_shape])
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


def check_inside(rows: Array, bounds: Array | None, image_shape: Sequence[int] | None) -> None:
    """Raise if counts are outside of the bounds."""
    if bounds is None:
        return
    lo, hi = bounds.T
    outside = _outside(rows, lo, hi)
    if len(outside):
        name = "domain" if image_shape is None else f"image_shape={image_shape}"
        raise ValueError(
            f"X holds {len(outside)} counts outside of {name}. The first is "
            f"X[{outside[0]}] = {rows[outside[0]].tolist()}; allowed are values from "
            f"{lo.tolist()} to {hi.tolist()}."
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
    if bounds is not None:
        return bounds[:, 0], bounds[:, 1]
    lo, hi = rows.min(axis=0), rows.max(axis=0)
    # The expected distance of the outermost of n uniform counts from the ends of their domain.
    pad = (hi - lo) / max(n_counts - 1, 1)
    pad = np.maximum(pad, (3 * min_variance) ** 0.5)
    return lo - pad, hi + pad
