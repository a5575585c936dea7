"""Convert rows, weights, targets and codes to numbers that scikit-learn can validate.

The validation of scikit-learn ignores the mask of a masked array, converts dates to numbers, and
does not know NA of pandas among objects or number types that NumPy does not have.
"""

import datetime
import re
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from numbers import Integral
from typing import Any

import narwhals.stable.v2 as nw
import numpy as np
from narwhals.exceptions import DuplicateError
from numpy.typing import NDArray
from scipy import sparse
from sklearn import get_config
from sklearn.utils import check_scalar, gen_batches

from skae._utils.sparse_rows import Rows, dense

Array = NDArray[Any]

DATES = (np.datetime64, np.timedelta64, datetime.date, datetime.time, datetime.timedelta)
# Number of values in each step of the search for NaN.
_CHUNK_VALUES = 2**20
# If the last axis of images has one of these lengths, it is taken for the axis of channels.
_CHANNELS = (1, 3, 4)


@contextmanager
def naming(name: str) -> Iterator[None]:
    """Let errors of NumPy and scikit-learn in the block name the argument.

    Integers that are too large for a float are a ValueError.
    """
    try:
        yield
    except (TypeError, ValueError, OverflowError) as error:
        told = re.search(rf"(?<!\w){re.escape(name)}(?!\w)", str(error)) is not None
        if told and not isinstance(error, OverflowError):
            raise
        kind = TypeError if isinstance(error, TypeError) else ValueError
        raise kind(f"{name}: {error}") from error


def as_numbers(values: Any, name: str = "X", *, allow_nan: bool = False) -> Any:
    """Return the container if it has only numbers, and otherwise an array of numbers; or raise.

    Masked values and NA of pandas become NaN. Without `allow_nan`, masked values raise an error.
    bfloat16 becomes float32.
    """
    if sparse.issparse(values):
        return values
    with naming(name):
        values = _of_list(values) if isinstance(values, (list, tuple)) else of_tensor(values, name)
    if not isinstance(values, np.ndarray):
        return _of_frame(values, name)
    if values.dtype.kind in "mM":
        raise dates_error(name, values.dtype)
    if isinstance(values, np.ma.MaskedArray):
        return _unmasked(values, name, allow_nan)
    return _of_objects(values, name) if values.dtype.kind == "O" else values


def is_lazy(values: Any) -> bool:
    """Whether a frame is not computed yet."""
    return hasattr(values, "collect_schema") and not hasattr(values, "to_numpy")


def is_sparse_frame(values: Any) -> bool:
    """Whether all columns of a frame of pandas are sparse, so that it is read as sparse matrix."""
    if not hasattr(values, "sparse") or getattr(values, "ndim", 0) != 2:
        return False
    return len(values.columns) > 0 and all(map(_is_sparse_dtype, values.dtypes))


def check_not_sparse_frame(X: Any, estimator: Any) -> None:
    """Raise if X is a frame of sparse columns, for estimators of dense rows."""
    if is_sparse_frame(X):
        raise TypeError(
            f"All columns of X are sparse, but {type(estimator).__name__} accepts dense rows only. "
            "Give X.sparse.to_dense(). LinearAE, PPCA, and networks with one likelihood for all "
            "columns accept sparse rows."
        )


def check_rows_are_2d(X: Any, name: str = "X", conv: bool = False) -> None:
    """Raise if X has more than two dimensions, and say how to convert images to rows.

    With `conv`, the message also names `image_shape`, for models with convolutional networks.
    """
    shape = tuple(getattr(X, "shape", ()))
    if len(shape) < 3:
        return
    channels_last = len(shape) == 4 and shape[-1] in _CHANNELS and shape[1] not in _CHANNELS
    order = ".transpose(0, 3, 1, 2)" if channels_last else ""
    advice = f"Convert each image to a row with {name}{order}.reshape(len({name}), -1)"
    if conv and len(shape) < 5:
        image = (shape[3], *shape[1:3]) if channels_last else (1, *shape[1:])[-3:]
        advice += f". For network='conv', set image_shape={image}, (channels, height, width)"
    raise ValueError(
        f"{name} has shape {shape} with {len(shape)} dimensions; expected two dimensions, "
        f"(n_samples, n_features). {advice}."
    )


def check_every_column_seen(X: Rows, names: Any | None = None) -> None:
    """Raise if a column has no observed value."""
    unseen = np.ones(X.shape[1], dtype=bool)
    if X.dtype.kind == "f":
        for rows in gen_batches(len(X), max(1, _CHUNK_VALUES // X.shape[1])):
            unseen &= np.isnan(dense(X[rows])).all(axis=0)
            if not unseen.any():
                return
        raise unseen_columns(unseen, names)


def unseen_columns(unseen: NDArray[np.bool_], names: Any | None) -> ValueError:
    """The error for columns without an observed value."""
    columns = np.arange(len(unseen)) if names is None else np.asarray(names)
    return ValueError(
        f"Columns {columns[unseen].tolist()} of X are NaN in every row. Remove these columns."
    )


def check_count(name: str, value: object, least: int = 1) -> int:
    """Validate an integer argument of at least `least`; booleans are refused."""
    check_scalar(np.bool_(value) if isinstance(value, bool) else value, name, Integral)
    return int(check_scalar(value, name, Integral, min_val=least))


def _of_list(values: Any) -> Any:
    """Convert a list to an array; lists that are not numbers, dates or objects stay lists."""
    if any(isinstance(row, np.ma.MaskedArray) for row in values):
        return np.ma.array(values)
    try:
        array = np.asarray(values)
    except (TypeError, ValueError, RuntimeError):
        return values
    return array if array.dtype.kind in "biufmMO" else values


def of_tensor(values: Any, name: str) -> Any:
    """Convert tensors of torch to arrays that share their memory; other values stay as they are.

    With `array_api_dispatch` of scikit-learn, tensors stay tensors.
    """
    torch = sys.modules.get("torch")
    if torch is not None and isinstance(values, torch.Tensor):
        if values.is_nested:
            raise TypeError(f"{name} is a nested tensor; allowed are dense tensors.")
        values = values.detach()
        known = values.dtype in (torch.float64, torch.float32, torch.float16)
        values = values if known or not values.is_floating_point() else values.float()
        if get_config()["array_api_dispatch"]:
            return values
        try:
            return np.asarray(values)
        except (RuntimeError, TypeError) as error:
            raise TypeError(
                f"{name} is a tensor that cannot be converted to an array; allowed are dense "
                f"tensors on the CPU: {error}"
            ) from error
    if str(getattr(values, "dtype", "")) == "bfloat16":  # an array of JAX
        return np.asarray(values).astype(np.float32)
    return values


def _of_frame(values: Any, name: str) -> Any:
    """Convert data frames and series to numbers; other containers stay as they are."""
    if is_lazy(values):
        raise TypeError(f"{name} is a lazy frame. Compute it first with {name}.collect().")
    library = type(values).__module__.partition(".")[0]
    if library == "pandas" and hasattr(values, "to_series"):  # an index
        values = values.to_series()
    try:
        frame = nw.from_native(values, eager_only=True, allow_series=True, pass_through=True)
    except DuplicateError as error:
        raise ValueError(
            f"{name} has several columns with the same name. Rename them, or give an array. {error}"
        ) from error
    if isinstance(frame, nw.DataFrame):
        types = dict(frame.schema)
    elif isinstance(frame, nw.Series):
        types = {name: frame.dtype}
    else:
        return values
    for column, kind in types.items():
        if kind.is_temporal():
            raise dates_error(name if column == name else f"{name}, column {column!r},", kind)
    if isinstance(frame, nw.Series):
        if str(getattr(values, "dtype", "")).startswith("period"):
            raise dates_error(name, values.dtype)
        return _of_objects(frame.to_numpy(), name) if frame.dtype == nw.Object else values
    if frame.implementation.is_pandas_like():
        return _of_pandas(values, list(types), name)
    for column, kind in types.items():
        if not (kind == nw.Boolean or (kind.is_numeric() and kind != nw.Decimal)):
            frame = _with_floats(frame, column, name)
    return frame.to_native()


def _is_sparse_dtype(dtype: Any) -> bool:
    return hasattr(dtype, "fill_value") and hasattr(dtype, "subtype")


def _of_sparse_columns(frame: Any, name: str) -> Any:
    """Check the fill values of a frame of sparse columns, and convert booleans to floats."""
    for column, dtype in zip(frame.columns, frame.dtypes, strict=True):
        if dtype.fill_value != 0:  # NaN is not 0
            raise ValueError(
                f"{name}, column {column!r}, has sparse values with the fill value "
                f"{dtype.fill_value}. Frames of which all columns are sparse are read as sparse "
                f"matrices, whose fill value is 0. Give {name}.sparse.to_dense(). Or give "
                f"{name}.astype(pandas.SparseDtype(float, 0.0)) to models that accept sparse rows, "
                "such as PPCA and VAE, if most values are 0."
            )
    if any(dtype.subtype.kind == "b" for dtype in frame.dtypes):
        return frame.astype(type(frame.dtypes.iloc[0])(np.float64, 0.0))  # scikit-learn would not
    return frame


def _of_pandas(frame: Any, columns: list[Any], name: str) -> Any:
    """Replace NA by NaN in columns of objects; raise for dates and periods of time."""
    if is_sparse_frame(frame):
        return _of_sparse_columns(frame, name)
    objects = [column for column in columns if frame[column].dtype == object]
    for column in columns:
        if str(frame[column].dtype).startswith("period"):
            raise dates_error(f"{name}, column {column!r},", frame[column].dtype)
    categories = [column for column in columns if str(frame[column].dtype) == "category"]
    if objects or categories:
        frame = frame.copy(deep=False)
    for column in categories:
        try:
            frame[column] = frame[column].astype(float)
        except (TypeError, ValueError) as error:
            raise ValueError(
                f"{name}, column {column!r}, has categories; allowed are numbers: {error}"
            ) from error
    for column in objects:
        frame[column] = _of_objects(frame[column].to_numpy(), f"{name}, column {column!r},")
    return frame


def _with_floats(frame: Any, column: str, name: str) -> Any:
    """Convert a column of decimals, nulls or digits to floats."""
    try:
        return frame.with_columns(nw.col(column).cast(nw.Float64))
    except Exception as error:  # each library of data frames raises its own errors
        raise ValueError(
            f"{name}, column {column!r}, is of type {frame.schema[column]}; allowed are numbers."
        ) from error


def _of_objects(values: Array, name: str) -> Array:
    """Replace NA of pandas by NaN; raise for dates."""
    kinds = set(map(type, values.flat))
    for kind in kinds:
        if issubclass(kind, DATES):
            raise dates_error(name, kind.__name__)
    pandas = sys.modules.get("pandas")
    if pandas is None or type(pandas.NA) not in kinds:
        return values
    missing = np.frompyfunc(lambda value: value is pandas.NA, 1, 1)(values).astype(bool)
    return np.where(missing, np.nan, values)


def _unmasked(values: Any, name: str, allow_nan: bool) -> Array:
    data, mask = np.ma.getdata(values), np.ma.getmaskarray(values)
    if not mask.any():
        return data
    if not allow_nan:
        raise ValueError(
            f"{name} is a masked array with {int(mask.sum())} masked values, which are not allowed "
            f"here. Fill them with {name}.filled(...), or remove their rows. Models and parameters "
            "that allow NaN treat masked values as missing values."
        )
    filled = np.array(data, dtype=np.float64 if data.dtype.kind in "biu" else data.dtype)
    filled[mask] = np.nan
    return filled


def dates_error(name: str, kind: object) -> TypeError:
    return TypeError(
        f"{name} has dates or times, of type {kind}; allowed are numbers. Convert them to numbers, "
        "for example to days since a date: (dates - first) / np.timedelta64(1, 'D')."
    )


def check_same_columns(model: Any, n_features: int, previous: Any, n_before: int) -> None:
    """Raise if training would continue from a fit to other columns."""
    names, before = (getattr(e, "feature_names_in_", None) for e in (model, previous))
    if n_features != n_before:
        raise ValueError(
            f"X has {n_features} features, but training continues from a fit to {n_before}. Set "
            "warm_start=False to fit anew."
        )
    if names is not None and before is not None and list(names) != list(before):
        raise ValueError(
            f"The columns of X are {list(names)}, but training continues from a fit to "
            f"{list(before)}. Set warm_start=False to fit anew."
        )
