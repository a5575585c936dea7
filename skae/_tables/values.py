"""Columns of data frames and arrays, with their values and their types."""

from collections.abc import Iterator
from dataclasses import dataclass
from decimal import Decimal
from functools import cached_property
from numbers import Real
from typing import Any

import narwhals.stable.v2 as nw
import numpy as np
from narwhals.exceptions import DuplicateError
from numpy.typing import NDArray
from scipy import sparse

from skae._utils.inputs import (
    DATES,
    as_numbers,
    check_rows_are_2d,
    dates_error,
    is_lazy,
    naming,
    of_tensor,
)

Array = NDArray[Any]


@dataclass(frozen=True, kw_only=True, eq=False)
class Values:
    """A column: an array of numbers or booleans, or of objects that are text or missing values.

    `type` is the name that NumPy has for the values ("str", "bool", "int64", "float32"), or "" if
    all values are missing. `dtype` is the name that the data frame has for the type of the column
    ("" in arrays). `levels` are the levels that a categorical dtype declares.
    """

    name: Any
    data: Array
    type: str
    missing: Array | None = None
    dtype: str = ""
    levels: Array | None = None
    ordered: bool = False

    def is_missing(self) -> Array:
        """Mask of the missing numbers."""
        nan = np.isnan(self.data) if self.data.dtype.kind == "f" else np.zeros(len(self.data), bool)
        return nan if self.missing is None else nan | self.missing

    def seen(self) -> Array:
        """The values that are not missing; for text, the sorted distinct values."""
        if self.type == "str":
            text = sorted(v for v in set(self.data.tolist()) if isinstance(v, str))
            if any(value.endswith("\0") for value in text):  # NumPy removes these characters
                raise ValueError(
                    f"X, column {self.name!r}, holds text that ends in a null character. Remove "
                    "it, for example with .str.rstrip('\\0')."
                )
            return np.array(text, str)
        return self.data[~self.is_missing()]

    def as_floats(self) -> Array:
        """The numbers of the column, with NaN for missing values."""
        return np.where(self.is_missing(), np.nan, self.data.astype(np.float64))


class Opened:
    """A table whose columns are read one at a time to save memory."""

    def __init__(self, X: Any) -> None:
        self._X = X = _frame_or_array(X)
        self.n_rows, self.n_columns = X.shape
        for n, of in ((self.n_rows, "sample"), (self.n_columns, "feature")):
            if n == 0:
                raise ValueError(
                    f"X: Found array with 0 {of}(s) (shape={X.shape}) while a minimum of 1 is "
                    "required."
                )
        if not isinstance(X, nw.DataFrame):
            self.container = "numbers" if X.dtype.kind in "biuf" else "objects"
        elif X.implementation.is_pandas_like():
            self.container = "pandas"
        else:
            self.container = X.implementation.value

    @cached_property
    def names(self) -> list[Any]:
        """The names of the columns where all are text, else their indices."""
        given = self._X.columns if isinstance(self._X, nw.DataFrame) else []
        are_text = {isinstance(name, str) for name in given}
        if are_text == {True, False}:
            types = sorted({type(name).__name__ for name in given})
            raise TypeError(
                "Feature names are only supported if all input features have string names, but "
                f"your input has {types} as feature name / column name types."
            )
        return list(given) if are_text == {True} else list(range(self.n_columns))

    def __iter__(self) -> Iterator[Values]:
        if isinstance(self._X, nw.DataFrame):
            for name, column in zip(self.names, self._X.iter_columns(), strict=True):
                yield _of_series(column, name)
        else:
            for j in self.names:
                yield _of_array(self._X[:, j], j)


def container_of(X: Any) -> str:
    """The container of rows: "pandas", "polars", "pyarrow", or an array "objects" or "numbers".

    Lists that contain text are arrays of objects.
    """
    return Opened(X).container


def _frame_or_array(X: Any) -> Any:
    """A narwhals frame or a 2-D array; masked arrays keep their masks."""
    X = of_tensor(X, "X")
    check_rows_are_2d(X)
    if is_lazy(X):
        raise TypeError("X is a lazy frame. Compute it first with X.collect().")
    try:
        frame = nw.from_native(X, eager_only=True, pass_through=True)
    except DuplicateError as error:
        raise ValueError(
            f"X has several columns with the same name. Rename them, or give an array. {error}"
        ) from error
    if isinstance(frame, nw.DataFrame):
        return frame
    if sparse.issparse(X):
        X = X.toarray()
    elif isinstance(X, (list, tuple)):
        X = _of_list(X)
    elif not isinstance(X, np.ndarray):
        X = np.asarray(as_numbers(X))
    if not isinstance(X, np.ma.MaskedArray):
        X = np.asarray(X)  # converts np.matrix to an array
    if X.ndim != 2:
        raise ValueError(
            f"Expected 2D array, got {X.ndim}D array instead. Reshape your data to one row for "
            "each sample and one column for each feature."
        )
    if X.dtype.kind == "c":
        raise ValueError(f"X has dtype {X.dtype}. Complex data not supported.")
    if X.dtype.kind in "mM":
        raise dates_error("X", X.dtype)
    if X.dtype.kind not in "biufOUT":
        raise ValueError(f"X has dtype {X.dtype}; allowed are numbers, booleans, text and objects.")
    return X


def _of_list(X: Any) -> Array:
    """Convert lists of rows to an array: of objects if they contain text, otherwise of numbers."""
    if any(isinstance(row, np.ma.MaskedArray) for row in X):
        return np.ma.array(X)
    array = np.asarray(X)
    if array.dtype.kind == "U":
        return np.array(X, dtype=object)
    if array.dtype.kind == "O" and not any(isinstance(value, str) for value in array.flat):
        missing = _is_missing(array)
        try:
            return np.where(missing, np.nan, array).astype(float)
        except (TypeError, ValueError, OverflowError):
            return array  # the error will name the column
    return array


def _of_array(column: Array, name: Any) -> Values:
    mask = np.ma.getmaskarray(column) if isinstance(column, np.ma.MaskedArray) else None
    column = np.ma.getdata(column)
    if column.dtype.kind in "UT":
        column = column.astype(object)
    if column.dtype.kind == "O":
        if mask is not None:
            column = column.copy()
            column[mask] = None
        return _of_objects(column, name, "")
    return _of_numbers(column, name, mask)


def _of_numbers(data: Array, name: Any, missing: Array | None = None, dtype: str = "") -> Values:
    """A column of numbers or booleans; raises if a value is infinite."""
    values = Values(name=name, data=data, type=data.dtype.name, missing=missing, dtype=dtype)
    if data.dtype.kind == "f" and np.isinf(values.seen()).any():
        raise ValueError(
            f"X, column {name!r}, holds infinity; allowed are finite numbers, and NaN for missing "
            "values."
        )
    return values


def _of_series(series: Any, name: Any) -> Values:
    """A column of a data frame."""
    kind = series.dtype
    dtype = dtype_text(series.to_native())
    if kind.is_temporal() or dtype.startswith("period"):
        raise dates_error(f"X, column {name!r},", dtype)
    if kind in (nw.Categorical, nw.Enum):
        return _of_categories(series, name, dtype)
    if kind in (nw.Int128, nw.UInt128):
        series = series.cast(nw.Int64)
    if kind == nw.Boolean or kind.is_integer():
        missing = series.is_null().to_numpy()
        data = series.fill_null(False if kind == nw.Boolean else 0).to_numpy()
        return _of_numbers(data, name, missing, dtype)
    if kind == nw.Decimal:
        series = series.cast(nw.Float64)
    data = np.asarray(series.to_numpy())
    if data.dtype.kind in "biuf":
        return _of_numbers(data, name, dtype=dtype)
    if kind == nw.String and dtype != "object":  # narwhals only checks the first objects
        return Values(name=name, data=data.astype(object, copy=False), type="str", dtype=dtype)
    return _of_objects(data.astype(object, copy=False), name, dtype)


def _of_categories(series: Any, name: Any, dtype: str) -> Values:
    """A column of a categorical type, with the levels that the type declares."""
    native = series.to_native()
    if series.implementation.is_polars():
        levels = getattr(series.dtype, "categories", None)
        return Values(
            name=name,
            data=series.to_numpy().astype(object, copy=False),
            type="str",
            dtype=dtype,
            levels=None if levels is None else np.array(levels, dtype=str),
            ordered=levels is not None,
        )
    if hasattr(native, "cat"):
        declared, codes = native.cat.categories.tolist(), native.cat.codes.to_numpy()
        ordered = bool(native.cat.ordered)
    else:
        array = series.to_arrow()
        if hasattr(array, "combine_chunks"):
            array = array.combine_chunks()
        declared, ordered = array.dictionary.to_pylist(), array.type.ordered
        codes = array.indices.fill_null(-1).to_numpy(zero_copy_only=False)
    labels = np.empty(len(declared) + 1, dtype=object)
    labels[:-1] = declared  # the last label is None; the code -1 selects it
    levels = _of_objects(labels[:-1], name, dtype)
    if levels.type == "":
        return _of_objects(labels[codes], name, dtype)
    text = levels.type == "str"
    return Values(
        name=name,
        data=labels[codes] if text else levels.data[codes],
        type=levels.type,
        missing=None if text else codes < 0,
        dtype=dtype,
        levels=levels.data.astype(str) if text else levels.data,
        ordered=ordered,
    )


def _of_objects(data: Array, name: Any, dtype: str) -> Values:
    """A column of objects. All observed values must be text, or all numbers, or all booleans."""
    for kind in set(map(type, data.tolist())):
        if issubclass(kind, DATES):
            raise dates_error(f"X, column {name!r},", kind.__name__)
        if not (issubclass(kind, (str, Real, Decimal, np.bool_)) or _of_missing(kind)):
            raise TypeError(
                f"X, column {name!r}, holds values of type {kind.__name__}; allowed are numbers, "
                "booleans and text. Convert the values to text, for example with astype(str)."
            )
    missing = _is_missing(data)
    types = set(map(type, data[~missing].tolist()))
    numbers = sorted(kind.__name__ for kind in types if not issubclass(kind, str))
    if not types:
        return Values(name=name, data=np.full(len(data), np.nan), type="", dtype=dtype)
    if not numbers:
        if types != {str}:  # subclasses of str may define other text and other hashes
            text = np.frompyfunc(lambda v: str.__str__(v) if isinstance(v, str) else v, 1, 1)
            data = text(data)
        return Values(name=name, data=data, type="str", dtype=dtype)
    if len(numbers) < len(types):
        raise TypeError(
            f"X, column {name!r}, holds values of mixed types, text and {', '.join(numbers)}; "
            "allowed are only text or only numbers."
        )
    wanted: Any = None
    if all(issubclass(kind, (bool, np.bool_)) for kind in types):
        wanted = bool
    elif any(issubclass(kind, (float, Decimal, np.floating)) for kind in types):
        wanted = float
    array = np.array(np.where(missing, 0, data).tolist(), dtype=wanted)
    if array.dtype.kind == "O":  # fractions, or integers of more than 64 bits
        with naming(f"X, column {name!r}"):
            array = array.astype(float)
    return _of_numbers(array, name, missing, dtype)


def _of_missing(kind: type) -> bool:
    """Whether a type is that of None or of NA of pandas."""
    return kind is type(None) or kind.__name__ == "NAType"


def _is_missing(data: Array) -> Array:
    """Mask of the objects that are None, NA of pandas or NaN."""
    nothing: Any = None
    if any(kind.__name__ == "NAType" for kind in set(map(type, data.flat))):  # == gives no boolean
        is_na = np.frompyfunc(lambda value: _of_missing(type(value)), 1, 1)
        data = np.where(np.asarray(is_na(data), dtype=bool), nothing, data)
    return np.asarray((data != data) | (data == nothing), dtype=bool)


def dtype_text(native: Any) -> str:
    """The type of a column of a data frame as text, from which it can be restored."""
    if not hasattr(native, "dtype"):
        return str(native.type)  # a column of pyarrow
    dtype = native.dtype
    if hasattr(native, "cat") and hasattr(dtype, "ordered"):
        return f"category[{dtype.categories.dtype}]"
    if type(native).__module__.partition(".")[0] == "polars":
        return dtype.base_type().__name__
    if hasattr(dtype, "pyarrow_dtype"):
        return f"arrow {dtype.pyarrow_dtype}"
    if str(dtype) == "string":
        return f"string[{dtype.storage}]"
    return str(dtype)
