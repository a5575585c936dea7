"""Checks of images and counts: intensities, shapes in pixels, and masks."""

from collections.abc import Sequence
from math import prod
from numbers import Integral, Real
from sys import maxsize
from typing import Any, NamedTuple

import narwhals.stable.v2 as nw
import numpy as np
from numpy.typing import NDArray
from scipy import sparse
from sklearn.utils import check_scalar

from skae._utils.warning import warn

# Counts have one column for each axis of an image, and an array of NumPy has 64 axes at most.
_MOST_COLUMNS = 64
# More columns than these are rare enough for counts to look whether the array is an image.
_USUAL_COLUMNS = 4


def _values(values: Any, name: str) -> np.ma.MaskedArray[Any, Any]:
    """Convert arrays, tensors and data frames to a masked array of numbers."""
    values = _of_frame(values, name)
    if hasattr(values, "detach"):  # tensors on a GPU, or with gradients
        values = values.detach().cpu()
        if "bfloat16" in str(values.dtype):
            values = values.float()
    found: Any = np.ma.asarray(values)
    if found.dtype.name == "bfloat16":
        found = found.astype(np.float32)
    if found.dtype.kind not in "buif":
        raise ValueError(
            f"{name} has shape {found.shape} and dtype {found.dtype}; expected numbers."
        )
    numbers: np.ma.MaskedArray[Any, Any] = found
    return numbers


def _of_frame(values: Any, name: str) -> Any:
    """Numbers of a data frame or a series, also of nullable types; other values stay as they are.

    NumPy would convert nullable columns to objects.
    """
    frame = nw.from_native(values, eager_only=True, allow_series=True, pass_through=True)
    columns: list[Any]
    if isinstance(frame, nw.Series):
        columns = [frame]
    elif isinstance(frame, nw.DataFrame):
        columns = list(frame.iter_columns())
    else:
        return values
    if not columns or not all(one.dtype.is_numeric() or one.dtype == nw.Boolean for one in columns):
        return values
    for one in columns:
        n_missing = one.null_count()
        if n_missing:
            where = f"{name}, column {one.name!r}," if isinstance(frame, nw.DataFrame) else name
            raise ValueError(
                f"{where} has {n_missing} missing values, which are not allowed. Remove these "
                "rows, for example with dropna, or fill in the values."
            )
    arrays = [one.to_numpy() for one in columns]
    return np.column_stack(arrays) if isinstance(frame, nw.DataFrame) else arrays[0]


def unmasked(values: Any, name: str) -> NDArray[Any]:
    """Convert to an array of numbers; raise if a value is masked."""
    found = _values(values, name)
    n_masked = int(np.ma.getmaskarray(found).sum())
    if n_masked:
        raise ValueError(
            f"{name} has {n_masked} masked values; only pixels of images may be masked. Remove "
            "these rows, for example with numpy.ma.compress_rows, or fill in the values."
        )
    return np.asarray(found)


def checked_image(
    image: Any,
    name: str = "image",
    *,
    where: Any | None = None,
    channel_axis: int | None = None,
) -> tuple[NDArray[Any], NDArray[np.bool_] | None]:
    """Validated intensities, and the mask of the pixels that are used (None if all are).

    The intensities of all other pixels are set to 0. Channels become the first axis.
    """
    given = _values(image, name)
    picture, masked = given.data, np.ma.getmaskarray(given)
    if picture.ndim == 0 or picture.size == 0:
        raise ValueError(
            f"{name} has shape {picture.shape} and dtype {picture.dtype}; expected a non-empty "
            "array of numbers with at least one axis."
        )
    if channel_axis is not None:
        picture = _channels_first(picture, channel_axis)
        masked = np.moveaxis(masked, channel_axis, 0)
    taken = None
    if masked.any():
        taken = ~masked
    if where is not None:
        grid = picture.shape if channel_axis is None else picture.shape[1:]
        taken = ~masked & _checked_where(where, grid)
    if taken is not None:
        picture = np.where(taken, picture, np.zeros((), picture.dtype))
    if picture.dtype.kind == "f":
        with np.errstate(over="ignore"):  # a long double may become infinite; this is refused below
            picture = picture.astype(np.float64, copy=False)
    if not (picture.min() >= 0 and picture.max() < np.inf):
        raise ValueError(
            f"{name} has values from {picture.min():g} to {picture.max():g}; allowed are finite "
            "values that are not negative."
        )
    return picture, taken


class SparseImage(NamedTuple):
    """The pixels of positive intensity, in the order of the axes."""

    intensity: NDArray[Any]
    pixels: tuple[NDArray[np.intp], ...]  # indices along each axis; channels are the first axis
    n_channels: int  # length of the first axis


def checked_sparse_image(
    image: Any, *, where: Any | None = None, channel_axis: int | None = None
) -> SparseImage:
    """Validated intensities of a sparse image, which is not made dense."""
    array = sparse.coo_array(image)
    array.sum_duplicates()
    values = array.data
    if values.dtype.kind not in "buif":
        raise ValueError(f"image has the dtype {values.dtype}; expected numbers.")
    if values.dtype.kind == "f":
        values = values.astype(np.float64, copy=False)
    pixels = [np.asarray(index, np.intp) for index in array.coords]
    shape = list(array.shape)
    if channel_axis is not None:
        _check_channel_axis(shape, channel_axis)
        pixels.insert(0, pixels.pop(channel_axis))
        shape.insert(0, shape.pop(channel_axis))
    if where is not None:
        first = 0 if channel_axis is None else 1
        taken = _checked_where(where, tuple(shape[first:]))[tuple(pixels[first:])]
        values, pixels = values[taken], [index[taken] for index in pixels]
    if values.size and not (values.min() >= 0 and values.max() < np.inf):
        raise ValueError(
            f"image has values from {values.min():g} to {values.max():g}; allowed are finite "
            "values that are not negative."
        )
    order = np.lexsort(pixels[::-1])
    order = order[values[order] > 0]
    return SparseImage(values[order], tuple(index[order] for index in pixels), shape[0])


def _checked_where(where: Any, grid: tuple[int, ...]) -> NDArray[np.bool_]:
    allowed = unmasked(where, "where")
    if allowed.shape != grid or allowed.dtype.kind != "b":
        raise ValueError(
            f"where has shape {allowed.shape} and dtype {allowed.dtype}; expected booleans of "
            f"shape {grid}."
        )
    return allowed


def refuse_mask(mask: Any) -> None:
    if mask is not None:
        raise TypeError(
            "mask is not used any more. It was True for pixels that are used, which is the "
            "opposite of a mask of NumPy. Give where, which is True for pixels that are used, or a "
            "masked array, numpy.ma.array(image, mask=mask), whose masked pixels are not used."
        )


def check_exposure(exposure: Any) -> None:
    check_scalar(exposure, "exposure", Real, min_val=0, include_boundaries="neither")
    if not np.isfinite(exposure):
        raise ValueError(f"exposure={exposure} must be a finite number above 0.")


def check_light(intensity: NDArray[Any], taken: Any) -> None:
    if not intensity.any():
        raise ValueError(
            f"image is zero on all pixels{'' if taken is None else ' that are used'}; expected at "
            "least one positive intensity."
        )


def _channels_first(picture: NDArray[Any], channel_axis: int) -> NDArray[Any]:
    _check_channel_axis(picture.shape, channel_axis)
    return np.moveaxis(picture, channel_axis, 0)


def _check_channel_axis(shape: Sequence[int], channel_axis: int) -> None:
    n_axes = len(shape)
    if n_axes < 2:
        raise ValueError(
            f"channel_axis={channel_axis!r} needs an image with at least two axes, got image of "
            f"shape {tuple(shape)}."
        )
    if not (isinstance(channel_axis, Integral) and -n_axes <= channel_axis < n_axes):
        raise ValueError(
            f"channel_axis={channel_axis!r} for image of shape {tuple(shape)}; allowed are None "
            f"and integers from {-n_axes} to {n_axes - 1}."
        )


def checked_counts(counts: Any) -> NDArray[Any]:
    rows = unmasked(counts, "counts")
    if rows.ndim != 2:
        raise ValueError(
            f"counts has shape {rows.shape} and dtype {rows.dtype}; expected numbers of shape "
            "(n_counts, n_dims)."
        )
    return rows


def check_no_image(rows: NDArray[Any]) -> None:
    """Refuse an image in the place of counts, or warn if the array may be one."""
    n_rows, n_columns = rows.shape
    told = (
        f"counts has shape {rows.shape}; expected the coordinates of counts, one row for each "
        f"count and one column for each axis of the image. {{}} sample_counts draws counts from an "
        "image, and image_to_counts converts its pixels to weighted counts."
    )
    if n_columns > _MOST_COLUMNS:
        raise ValueError(told.format("This is an image."))
    if n_columns > _USUAL_COLUMNS and n_rows:
        # Images have few rows for their columns; coordinates are seldom all whole numbers.
        whole = rows.dtype.kind in "bui" or bool((rows == np.rint(rows)).all())
        if n_rows <= 2 * n_columns or (whole and rows.min() >= 0):
            warn(told.format("This may be an image."))


def pixels_of(counts: Any, grid: tuple[int, ...]) -> NDArray[np.intp]:
    """Flat indices of the pixels of counts; raises if a count is outside of the grid.

    A continuous count exactly at the far end of an axis belongs to the last pixel, as in
    `numpy.histogram`. An integer is the index of a pixel, and the far end is none.
    """
    rows = checked_counts(counts)
    if prod(grid) * 8 > maxsize:
        raise MemoryError(f"shape={grid} is too large. Reduce the number of pixels.")
    if rows.shape[1] != len(grid):
        raise ValueError(
            f"counts has shape {rows.shape}; expected {len(grid)} columns for an image of shape "
            f"{grid}."
        )
    is_index = rows.dtype.kind != "f"
    below = rows < grid if is_index else rows <= grid
    outside = np.flatnonzero(~((rows >= 0) & below).all(axis=1))
    if outside.size:
        raise ValueError(
            f"{outside.size} of {len(rows)} counts are outside of the image of shape {grid}. The "
            f"first is counts[{outside[0]}] = {rows[outside[0]].tolist()}."
        )
    pixels = rows.astype(np.intp)
    if not is_index:
        np.minimum(pixels, np.array(grid) - 1, out=pixels)
    return np.ravel_multi_index(tuple(pixels.T), grid)


def checked_histogram(
    histogram: Any, prior: Any
) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    seen, _ = checked_image(unmasked(histogram, "histogram"), "histogram")
    seen = seen.astype(np.float64)
    before = unmasked(prior, "prior").astype(np.float64)
    if before.shape not in ((), seen.shape):
        raise ValueError(
            f"prior has shape {before.shape}; expected a number or shape {seen.shape}."
        )
    if not (np.isfinite(before) & (before > 0)).all():
        raise ValueError(
            f"prior has values from {before.min():g} to {before.max():g}; allowed are finite "
            "values above 0."
        )
    return seen, np.broadcast_to(before, seen.shape)
