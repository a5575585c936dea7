"""What users give as rows, weights, targets and codes, as numbers that scikit-learn's checks read.

Those checks pass over what some containers say: the mask of a masked array, that a date is no
number, pandas' NA among objects, numbers of a type that NumPy has not.
"""

import datetime
import sys
from numbers import Integral
from typing import Any

import narwhals.stable.v2 as nw
import numpy as np
from narwhals.exceptions import DuplicateError
from numpy.typing import NDArray
from scipy import sparse
from sklearn import get_config
from sklearn.utils import check_scalar, gen_batches

Array = NDArray[Any]

DATES = (np.datetime64, np.timedelta64, datetime.date, datetime.time, datetime.timedelta)
# Values that are looked at together when NaN is sought.
_CHUNK_VALUES = 2**20
# How many channels an image has whose channels come last.
_CHANNELS = (1, 3, 4)


def as_numbers(values: Any, name: str = "X", *, allow_nan: bool = False) -> Any:
    """The same container where it holds numbers alone, else an array of them, or an error.

    What is masked, or pandas' NA, becomes NaN; without `allow_nan` a mask is refused. bfloat16
    becomes float32.
    """
    if sparse.issparse(values):
        return values
    values = _of_list(values) if isinstance(values, (list, tuple)) else _of_tensor(values)
    if not isinstance(values, np.ndarray):
        return _of_frame(values, name)
    if values.dtype.kind in "mM":
        raise dates_error(name, values.dtype)
    if isinstance(values, np.ma.MaskedArray):
        return _unmasked(values, name, allow_nan)
    return _of_objects(values, name) if values.dtype.kind == "O" else values


def check_rows_are_2d(X: Any, name: str = "X", conv: bool = False) -> None:
    """Refuse images that are no rows yet, and say how to make them rows.

    With `conv` the model can be a convolutional network, which is told their shape.
    """
    shape = tuple(getattr(X, "shape", ()))
    if len(shape) < 3:
        return
    channels_last = len(shape) == 4 and shape[-1] in _CHANNELS and shape[1] not in _CHANNELS
    order = ".transpose(0, 3, 1, 2)" if channels_last else ""
    advice = f"make one row of each image, {name}{order}.reshape(len({name}), -1)"
    if conv and len(shape) < 5:
        image = (shape[3], *shape[1:3]) if channels_last else (1, *shape[1:])[-3:]
        advice += f"; for network='conv' set image_shape={image}, (channels, height, width)"
    raise ValueError(
        f"{name} has shape {shape}, of dimension {len(shape)}, but rows are 2-D, "
        f"(n_samples, n_features): {advice}."
    )


def check_every_column_seen(X: Array, names: Any | None = None) -> None:
    """Refuse rows of which some column is NaN throughout: nothing could be learned of it."""
    unseen = np.ones(X.shape[1], dtype=bool)
    if X.dtype.kind == "f":
        for rows in gen_batches(len(X), max(1, _CHUNK_VALUES // X.shape[1])):
            unseen &= np.isnan(X[rows]).all(axis=0)
            if not unseen.any():
                return
        columns = np.arange(X.shape[1]) if names is None else np.asarray(names)
        raise ValueError(
            f"Columns {columns[unseen].tolist()} of X are NaN in every row: drop them."
        )


def check_count(name: str, value: object, least: int = 1) -> int:
    """An integer argument of a function; True is none."""
    check_scalar(np.bool_(value) if isinstance(value, bool) else value, name, Integral)
    return int(check_scalar(value, name, Integral, min_val=least))


def _of_list(values: Any) -> Any:
    """An array of numbers, dates or objects; what is none is left to scikit-learn."""
    if any(isinstance(row, np.ma.MaskedArray) for row in values):
        return np.ma.array(values)
    try:
        array = np.asarray(values)
    except (TypeError, ValueError, RuntimeError):
        return values
    return array if array.dtype.kind in "biufmMO" else values


def _of_tensor(values: Any) -> Any:
    """torch's tensors as arrays that share their memory, in a type that NumPy has.

    Where scikit-learn is to compute with tensors they stay tensors.
    """
    torch = sys.modules.get("torch")
    if torch is not None and isinstance(values, torch.Tensor):
        values = values.detach()
        known = values.dtype in (torch.float64, torch.float32, torch.float16)
        values = values if known or not values.is_floating_point() else values.float()
        return values if get_config()["array_api_dispatch"] else np.asarray(values)
    if str(getattr(values, "dtype", "")) == "bfloat16":  # of JAX
        return np.asarray(values).astype(np.float32)
    return values


def _of_frame(values: Any, name: str) -> Any:
    """Data frames and series of numbers; other containers as they are."""
    if hasattr(values, "collect_schema") and not hasattr(values, "to_numpy"):
        raise TypeError(f"{name} is a frame that is not computed yet: give {name}.collect().")
    library = type(values).__module__.partition(".")[0]
    if library == "pandas" and hasattr(values, "to_series"):  # an index
        values = values.to_series()
    try:
        frame = nw.from_native(values, eager_only=True, allow_series=True, pass_through=True)
    except DuplicateError as error:
        raise ValueError(
            f"{name} has several columns of one name: rename them, or give an array. {error}"
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


def _of_pandas(frame: Any, columns: list[Any], name: str) -> Any:
    """Columns of objects hold NaN for NA, and periods of time are refused as dates are."""
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
                f"{name}, column {column!r}, holds categories; allowed are numbers: {error}"
            ) from error
    for column in objects:
        frame[column] = _of_objects(frame[column].to_numpy(), f"{name}, column {column!r},")
    return frame


def _with_floats(frame: Any, column: str, name: str) -> Any:
    """The frame with a column of decimals, nulls or digits as floats, which NumPy has."""
    try:
        return frame.with_columns(nw.col(column).cast(nw.Float64))
    except Exception as error:  # every library of frames has its own
        raise ValueError(
            f"{name}, column {column!r}, is of type {frame.schema[column]}; allowed are numbers."
        ) from error


def _of_objects(values: Array, name: str) -> Array:
    """Objects with NaN in the place of pandas' NA; dates are refused."""
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
            f"{name} is a masked array, of which {int(mask.sum())} values are masked; here every "
            f"value must be seen: fill them, {name}.filled(...), or leave their rows out. Models "
            "and parameters that allow NaN take masked values for missing ones."
        )
    filled = np.array(data, dtype=np.float64 if data.dtype.kind in "biu" else data.dtype)
    filled[mask] = np.nan
    return filled


def dates_error(name: str, kind: object) -> TypeError:
    return TypeError(
        f"{name} holds dates or times, of type {kind}; allowed are numbers. Turn them into "
        "numbers first, such as days since a date: (dates - first) / np.timedelta64(1, 'D')."
    )


def check_same_columns(model: Any, n_features: int, previous: Any, n_before: int) -> None:
    """Raise if training would go on from a fit on other columns."""
    names, before = (getattr(e, "feature_names_in_", None) for e in (model, previous))
    if n_features != n_before:
        raise ValueError(
            f"X has {n_features} features, but training goes on from a fit on {n_before}. "
            "Fit anew, with warm_start=False."
        )
    if names is not None and before is not None and list(names) != list(before):
        raise ValueError(
            f"The columns of X are {list(names)}, but training goes on from a fit on "
            f"{list(before)}."
        )
