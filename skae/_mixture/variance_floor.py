"""The smallest variance of components, and whether floats hold what is computed with it."""

from typing import Any

import numpy as np
from numpy.typing import NDArray

from skae._linear.moments import out_of_range

Array = NDArray[Any]

# Variance of a place that is known to a pixel: finer detail is noise within pixels.
_PIXEL_VARIANCE = 1 / 12

# Smallest variance otherwise, relative to the mean variance of the features.
_RELATIVE_FLOOR = 1e-6

# Squares, in variances, up to which all that is computed of them is finite.
_LARGEST_SQUARE = 1e300


def variance_floor(
    mean: Array,
    variances: Array,
    largest: float,
    *,
    min_variance: float | None,
    of_pixels: bool,
    dtype: str,
) -> float:
    """Smallest variance of Gaussians under which rows have these moments.

    Parameters
    ----------
    mean, variances : ndarray of shape (n_features,)
    largest : float
        Of the absolute values of the rows.
    min_variance : float or None
        What is asked for, whatever the moments are.
    of_pixels : bool
        Whether rows are places in an image.
    dtype : str
        Float type in which the rows came.
    """
    if min_variance is not None:
        return float(min_variance)
    if of_pixels:
        return _PIXEL_VARIANCE
    rounding = float(np.finfo(dtype).eps) * float(max(largest, np.abs(mean).max()))
    return max(_RELATIVE_FLOOR * float(variances.mean()), rounding * rounding)


def check_floor(floor: float) -> None:
    """Refuse floors whose squares, or inverses, leave the range of floats."""
    if not 1 / _LARGEST_SQUARE < floor < _LARGEST_SQUARE:
        raise out_of_range(np.dtype(np.float64))


def check_distances(rows: Array, means: Array | None, n_counts: float, floor: float) -> None:
    """Refuse rows whose squared distances in standard deviations may overflow, or vanish.

    The distances are those between rows and, if there are some already, to the means.
    """
    check_floor(floor)
    with np.errstate(over="ignore"):
        known = 0.0 if means is None else np.abs(means).max()
        squared = (2 * np.maximum(np.abs(rows).max(), known)) ** 2 * rows.shape[1]
        fits = max(squared / min(floor, 1.0), squared * n_counts) < _LARGEST_SQUARE
    if not fits:
        raise out_of_range(np.dtype(np.float64))
