"""Whether the coordinates of counts are indices of pixels, or places on a continuous scale."""

from collections.abc import Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from skae._utils.warning import warn

Array = NDArray[Any]

# The values of so many rows are looked at for a warning.
_LOOKED_AT = 10_000


def takes_pixels(X: Any, rows: Array, coordinates: str, image_shape: Sequence[int] | None) -> bool:
    """Whether the first columns of X, which `rows` holds as floats, are indices of pixels."""
    if coordinates == "continuous":
        return False
    if coordinates == "pixel":
        if image_shape is None:
            raise ValueError(
                "coordinates='pixel' was given, but image_shape=None. Set image_shape to the shape "
                "of the detector in pixels."
            )
        check_whole(rows, len(image_shape))
        return True
    n_places = rows.shape[1] if image_shape is None else min(len(image_shape), rows.shape[1])
    integers = are_integers(X, n_places)
    if integers and image_shape is not None:
        return True
    some = rows[:: max(1, len(rows) // _LOOKED_AT), :n_places]
    whole = integers or bool((some == np.floor(some)).all())
    if not whole or np.ptp(some, axis=0).max() < 2:
        return False
    if image_shape is not None:
        warn(
            "The coordinates in X are floats, but all of them are whole numbers. They are taken as "
            "places at the corners of pixels. If they are indices of pixels, set "
            "coordinates='pixel'; otherwise set coordinates='continuous', which hides this warning."
        )
    elif integers:
        warn(
            "The coordinates in X are integers. Without image_shape they are taken as continuous "
            "places, and components may become narrow peaks there. If they are indices of pixels, "
            "set image_shape; otherwise set coordinates='continuous', which hides this warning."
        )
    return False


def are_integers(X: Any, n_columns: int) -> bool:
    """Whether the first columns of X have integer dtypes."""
    dtypes = getattr(X, "dtypes", None)  # of pandas and polars
    if dtypes is None and hasattr(X, "schema") and hasattr(X.schema, "types"):  # of pyarrow
        dtypes = X.schema.types
    if dtypes is not None:
        some = list(dtypes)[:n_columns]
        return len(some) > 0 and all(_is_integer(dtype) for dtype in some)
    dtype = getattr(X, "dtype", None)
    if dtype is None:
        try:
            dtype = np.asarray(X).dtype
        except (TypeError, ValueError, RuntimeError):
            return False
    return _is_integer(dtype)


def _is_integer(dtype: Any) -> bool:
    kind = getattr(dtype, "kind", None)
    if isinstance(kind, str):
        return kind in "iu"
    name = str(dtype).lower().removeprefix("torch.").removeprefix("u")
    return name.startswith("int") and "interval" not in name


def check_whole(rows: Array, n_places: int) -> None:
    """Raise if a coordinate is not a whole number."""
    places = rows[:, :n_places]
    broken = np.flatnonzero((places != np.floor(places)).any(axis=1))
    if len(broken):
        raise ValueError(
            f"X holds {len(broken)} counts that are not indices of pixels. The first is "
            f"X[{broken[0]}] = {rows[broken[0]].tolist()}; with pixels as coordinates, whole "
            "numbers are allowed. Set coordinates='continuous' for places on a continuous scale."
        )
