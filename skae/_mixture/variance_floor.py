"""The smallest variance of components, and checks that computations with it do not overflow."""

from typing import Any

import numpy as np
from numpy.typing import NDArray

from skae._linear.moments import out_of_range

Array = NDArray[Any]

# Variance of a uniform position within a pixel.
_PIXEL_VARIANCE = 1 / 12

# Smallest variance without `image_shape`, relative to the mean variance of the features.
_RELATIVE_FLOOR = 1e-6

# Squared distances in units of variances up to this value do not overflow in later computations.
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
    """Smallest variance of Gaussians that are fitted to rows with these moments.

    Parameters
    ----------
    mean, variances : ndarray of shape (n_features,)
    largest : float
        Largest absolute value of the rows.
    min_variance : float or None
        Value of the parameter of this name. If it is given, the moments are not used.
    of_pixels : bool
        Whether rows are positions in an image.
    dtype : str
        Float dtype of the rows as they were given.
    """
    if min_variance is not None:
        return float(min_variance)
    if of_pixels:
        return _PIXEL_VARIANCE
    rounding = float(np.finfo(dtype).eps) * float(max(largest, np.abs(mean).max()))
    return max(_RELATIVE_FLOOR * float(variances.mean()), rounding * rounding)


def check_floor(floor: float) -> None:
    """Raise if squares or inverses of the floor are outside of the range of floats."""
    if not 1 / _LARGEST_SQUARE < floor < _LARGEST_SQUARE:
        raise out_of_range(np.dtype(np.float64))


def check_distances(rows: Array, means: Array | None, n_counts: float, floor: float) -> None:
    """Raise if squared distances in units of the smallest variance may overflow or underflow.

    These are distances between rows, and between rows and `means` if these are given.
    """
    check_floor(floor)
    with np.errstate(over="ignore"):
        known = 0.0 if means is None else np.abs(means).max()
        squared = (2 * np.maximum(np.abs(rows).max(), known)) ** 2 * rows.shape[1]
        fits = max(squared / min(floor, 1.0), squared * n_counts) < _LARGEST_SQUARE
    if not fits:
        raise out_of_range(np.dtype(np.float64))
