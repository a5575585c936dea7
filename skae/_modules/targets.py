"""Targets y of any container, validated: labels, numbers, or several columns of both."""

import sys
from collections.abc import Sequence
from typing import Any, cast

import narwhals.stable.v2 as nw
import numpy as np
from narwhals.exceptions import DuplicateError
from numpy.typing import NDArray
from sklearn.utils import check_array

from skae._utils.inputs import as_numbers

Array = NDArray[Any]


class Targets(np.ndarray[Any, np.dtype[Any]]):
    """Several columns of checked targets: a structured array with one field for each column.

    A field of shape (n_rows,) contains labels, and one of shape (n_rows, 1) numbers as float64. The
    fields of an array without names are "0", "1" and so on.
    """

    @property
    def names(self) -> tuple[str, ...]:
        """Names of the columns."""
        return self.dtype.names or ()

    @property
    def are_numbers(self) -> bool:
        """Whether all columns contain numbers."""
        return all(self[name].ndim == 2 for name in self.names)

    def numbers(self) -> Array:
        """Return the values (n_rows, n_columns) if all columns contain numbers."""
        return np.hstack([np.asarray(self[name]) for name in self.names])


def check_condition(y: Any, n_rows: int) -> Array:
    """Return targets: labels (n_rows,), numbers (n_rows, n_targets) as float64, or `Targets`.

    In one column, floats are numbers, and integers, strings, booleans and categories are labels. In
    several columns, integers are numbers too, except in an array of objects. The result is
    `Targets` if a column contains labels, or if the columns have names.
    """
    return of_length(checked(y), n_rows, np.shape(y))


def of_length(targets: Array, n_rows: int, shape: tuple[int, ...]) -> Array:
    """Return checked targets, or raise if there is not one for every row."""
    if targets.ndim not in (1, 2) or len(targets) != n_rows:
        raise ValueError(
            f"y has shape {shape}; expected ({n_rows},) for labels or numbers, or "
            f"({n_rows}, n_targets) for several columns, with one row for each row of X."
        )
    return targets


def checked(y: Any) -> Array:
    """Return targets with any number of rows, as `check_condition` does."""
    frame = _frame(y)
    if isinstance(frame, nw.DataFrame) and len(frame.columns) == 1:
        frame = cast(nw.Series[Any], next(iter(frame.iter_columns())))
        y = frame.to_native()
    if isinstance(frame, nw.DataFrame) and len(frame.columns) > 1:
        return _of_frame(frame)
    if isinstance(frame, nw.Series) and frame.dtype in (nw.Categorical, nw.Enum):
        return _of_column(frame, f"y, column {frame.name!r}," if frame.name else "y")
    try:
        values = np.asarray(as_numbers(y, "y"))
    except ValueError as error:
        raise ValueError(
            f"y must be a column of labels, or columns of labels or numbers; given values that "
            f"cannot be converted: {error}"
        ) from error
    if values.ndim == 2 and values.shape[1] == 1:
        values = values[:, 0]
    if values.ndim not in (1, 2):
        return values
    if values.dtype.kind == "f" or (values.ndim == 2 and values.dtype.kind in "biu"):
        numbers = check_array(values, ensure_2d=False, dtype=np.float64, input_name="y")
        return numbers.reshape(len(values), -1)
    if values.ndim == 2 and values.dtype.kind in "OUST":
        if isinstance(y, (list, tuple)):  # NumPy converts numbers beside strings to strings
            values = np.array(y, dtype=object)
        columns = [of_values(column, f"y, column {i},") for i, column in enumerate(values.T)]
        return joined(positions(len(columns)), columns)
    if values.dtype.kind == "O":
        values = _one_kind(values)
    if values.dtype.kind not in "biuUST":
        raise ValueError(
            f"y has values of type {values.dtype}; allowed are integers, strings and booleans as "
            "labels, and floats as numbers."
        )
    return values


def _frame(y: Any) -> nw.DataFrame[Any] | nw.Series[Any] | None:
    """Return a data frame or series of any library; None for other containers."""
    pandas = sys.modules.get("pandas")
    if pandas is not None and isinstance(y, (pandas.Categorical, pandas.CategoricalIndex)):
        y = pandas.Series(y)
    try:
        found = nw.from_native(y, eager_only=True, allow_series=True, pass_through=True)
    except DuplicateError as error:
        raise ValueError(
            f"y has several columns with the same name. Rename them, or give an array. {error}"
        ) from error
    return found if isinstance(found, (nw.DataFrame, nw.Series)) else None


def _of_frame(frame: nw.DataFrame[Any]) -> Array:
    """Return the columns of a data frame."""
    names = [str(name) for name in frame.columns]
    if len(set(names)) < len(names) or "" in names:
        raise ValueError(
            f"The columns of y are {names}; their names must be different and not empty. Rename "
            "them, or give an array."
        )
    # By position, because names of pandas may be integers.
    columns = [
        _of_column(cast(nw.Series[Any], column), f"y, column {name!r},")
        for column, name in zip(frame.iter_columns(), names, strict=True)
    ]
    return joined(names, columns)


def _of_column(column: nw.Series[Any], name: str) -> Array:
    """Return a column of a data frame: labels (n_rows,), or numbers (n_rows, 1) as float64."""
    n_missing = int(column.is_null().sum())
    if n_missing:
        raise _missing(name, n_missing)
    values = column.to_numpy()
    if column.dtype.is_numeric():
        return of_values(values.astype(np.float64), name)
    if column.dtype == nw.Boolean:
        return values.astype(bool)
    if column.dtype not in (nw.Categorical, nw.Enum):
        values = np.asarray(as_numbers(column.to_native(), name))  # raises for dates
        return of_values(values, name)
    values = _one_kind(values, name) if values.dtype.kind == "O" else values
    if values.dtype.kind not in "biufUST":
        raise ValueError(
            f"{name} has categories of type {values.dtype}; allowed are strings, numbers and "
            "booleans."
        )
    return values


def of_values(values: Array, name: str) -> Array:
    """Return one of several columns: labels (n_rows,), or numbers (n_rows, 1) as float64."""
    kind = values.dtype.kind
    if kind == "O":
        n_missing = sum(map(_is_missing, values))
        if n_missing:
            raise _missing(name, n_missing)
        if not all(isinstance(value, (float, np.floating)) for value in values):
            return _one_kind(values, name)
    elif kind in "UST":
        return values
    elif kind not in "biuf":
        raise ValueError(
            f"{name} has values of type {values.dtype}; allowed are strings, booleans and "
            "categories as labels, and numbers."
        )
    numbers = values.astype(np.float64)
    n_missing = int(np.isnan(numbers).sum())
    if n_missing:
        raise _missing(name, n_missing)
    if not np.isfinite(numbers).all():
        raise ValueError(f"{name} contains infinity; allowed are finite numbers.")
    return numbers[:, None]


def _is_missing(value: Any) -> bool:
    """Whether a value is None, NaN or NA of pandas."""
    pandas = sys.modules.get("pandas")
    if value is None or (pandas is not None and value is pandas.NA):
        return True
    return isinstance(value, (float, np.floating)) and bool(np.isnan(value))


def joined(names: Sequence[str], columns: list[Array]) -> Targets:
    """Return columns as `Targets`."""
    pairs = list(zip(names, columns, strict=True))
    types: list[Any] = [(name, column.dtype, column.shape[1:]) for name, column in pairs]
    found = np.empty(len(columns[0]), dtype=types).view(Targets)
    for name, column in pairs:
        found[name] = column
    return found


def positions(n_columns: int) -> tuple[str, ...]:
    """Return the names of columns that have none."""
    return tuple(map(str, range(n_columns)))


def _missing(name: str, count: int) -> ValueError:
    return ValueError(
        f"{name} has missing values in {count} of its rows, which are not allowed. Remove these "
        "rows, or give missing values a label of their own."
    )


def _one_kind(values: Array, name: str = "y") -> Array:
    """Return labels from an array of objects that are all strings, or all integers or booleans."""
    kinds = {type(value) for value in values}
    if all(issubclass(kind, str) for kind in kinds):
        return values.astype(str)
    if all(issubclass(kind, (bool, np.bool_)) for kind in kinds):
        return values.astype(bool)
    if all(issubclass(kind, (int, np.integer, np.bool_)) for kind in kinds):
        return values.astype(np.int64)
    raise ValueError(
        f"{name} has values of the types {sorted(kind.__name__ for kind in kinds)}; labels must be "
        "all strings or all integers, without missing values."
    )
