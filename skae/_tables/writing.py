"""Rows of numbers and codes as frames and arrays again, in the types that the columns had."""

import re
from collections.abc import Sequence
from importlib import import_module
from typing import Any, Protocol

import numpy as np
from numpy.typing import NDArray

Array = NDArray[Any]


class WritableColumn(Protocol):
    """What writing reads of a column."""

    @property
    def name(self) -> str | int: ...
    @property
    def levels(self) -> Array | None: ...
    @property
    def type(self) -> str: ...
    @property
    def dtype(self) -> str: ...
    @property
    def ordered(self) -> bool: ...


def write_table(
    columns: Sequence[WritableColumn], rows: Array, container: str, trained: str, index: Any = None
) -> Any:
    """Rows as `container`; in the types of the columns where fit saw such a one."""
    if container == "numbers":
        return _numbers(columns, rows)
    if container == "objects":
        return _objects(columns, rows)
    write = {"pandas": _pandas, "polars": _polars, "pyarrow": _pyarrow}.get(container)
    if write is None:
        raise ValueError(
            f"container={container!r} is unknown; allowed are 'pandas', 'polars', 'pyarrow', "
            "'objects' and 'numbers'."
        )
    names = [c.name if isinstance(c.name, str) else f"x{c.name}" for c in columns]
    written = [
        write(column, name, rows[:, j], column.dtype if container == trained else "")
        for j, (column, name) in enumerate(zip(columns, names, strict=True))
    ]
    if container == "pandas":
        frame = import_module("pandas").DataFrame(dict(zip(names, written, strict=True)))
        return frame if index is None else frame.set_axis(index, axis=0)
    if container == "polars":
        return import_module("polars").DataFrame(written)
    return import_module("pyarrow").table(written, names=names)


def _numbers(columns: Sequence[WritableColumn], rows: Array) -> Array:
    out = np.array(rows)
    for j, column in enumerate(columns):
        if column.levels is not None and column.levels.dtype.kind != "U":
            codes, missing = _codes(rows[:, j])
            out[:, j] = column.levels[codes]
            out[missing, j] = np.nan
    return out


def _objects(columns: Sequence[WritableColumn], rows: Array) -> Array:
    out = np.empty(rows.shape, dtype=object)
    for j, column in enumerate(columns):
        values, missing = _values(column, rows[:, j])
        out[:, j] = values.astype(object)
        out[missing, j] = np.nan
    return out


def _codes(numbers: Array) -> tuple[NDArray[np.intp], Array]:
    """The indices of levels, 0 where they are missing, and where that is."""
    missing = np.isnan(numbers)
    return np.where(missing, 0, numbers).astype(np.intp), missing


def _values(column: WritableColumn, numbers: Array) -> tuple[Array, Array]:
    """Levels, or numbers of the column's type, and where they are missing."""
    missing = np.isnan(numbers)
    if column.levels is not None:
        levels = column.levels
        codes, _ = _codes(numbers)
        return (levels.astype(object) if levels.dtype.kind == "U" else levels)[codes], missing
    if column.type == "bool":
        return numbers >= 0.5, missing
    dtype = np.dtype(column.type)
    if dtype.kind == "f":
        return numbers.astype(dtype), missing
    limits = np.iinfo(dtype)
    whole = np.rint(np.where(missing, 0, numbers).astype(np.float64))
    out = whole.clip(limits.min, limits.max).astype(dtype)
    # The largest integers of 64 bits are no floats, and what is rounded up to them overflows.
    out[whole >= float(limits.max)] = limits.max
    return out, missing


def _is_category(column: WritableColumn, dtype: str) -> bool:
    """Whether a column is one of categories in a frame of another kind than that of fit.

    Frames' columns of text or numbers remain such; arrays tell no type.
    """
    if column.levels is None:
        return False
    declared = column.dtype.startswith(("category[", "arrow dictionary", "dictionary"))
    return not column.dtype or declared or column.dtype in ("Enum", "Categorical")


def _pandas(column: WritableColumn, name: str, numbers: Array, dtype: str) -> Any:
    pd = import_module("pandas")
    if dtype.startswith("arrow "):
        array = _arrow(column, name, numbers, dtype.removeprefix("arrow "))
        return pd.Series(pd.arrays.ArrowExtensionArray(array))
    if dtype.startswith("category[") or (not dtype and _is_category(column, dtype)):
        assert column.levels is not None
        inner = dtype[len("category[") : -1]
        text = column.levels.dtype.kind == "U"
        levels = pd.Index(column.levels.astype(object) if text else column.levels)
        levels = levels.astype(inner) if inner else levels
        codes, missing = _codes(numbers)
        return pd.Series(
            pd.Categorical.from_codes(
                np.where(missing, -1, codes),
                dtype=pd.CategoricalDtype(levels, ordered=column.ordered),
            )
        )
    values, missing = _values(column, numbers)
    if not dtype:
        dtype = _natural(values, missing)
    if not missing.any():
        return pd.Series(values).astype(dtype)
    if values.dtype.kind in "biu":
        if dtype in (values.dtype.name, "bool"):
            raise _missing_error(name, dtype)
        series = pd.Series(values).astype(dtype)
        series[missing] = np.nan if dtype == "object" else pd.NA
        return series
    values[missing] = np.nan
    return pd.Series(values).astype(dtype)


def _natural(values: Array, missing: Array) -> str:
    """The type that pandas has for values, a nullable one where they need it."""
    if values.dtype.kind == "O":
        return "str"
    if values.dtype.kind == "f" or not missing.any():
        return values.dtype.name
    return {"b": "boolean", "i": "Int", "u": "UInt"}[values.dtype.kind] + (
        "" if values.dtype.kind == "b" else str(8 * values.dtype.itemsize)
    )


def _polars(column: WritableColumn, name: str, numbers: Array, dtype: str) -> Any:
    pl = import_module("polars")
    values, missing = _values(column, numbers)
    text = values.dtype.kind == "O"
    if not dtype and text:
        dtype = "Enum" if _is_category(column, dtype) else "String"
    if dtype == "Enum":
        assert column.levels is not None
        kind = pl.Enum(column.levels.tolist())
    elif dtype in ("", "Decimal", "Object", "Unknown") and not text:
        kind = None
    else:
        kind = getattr(pl, dtype)
    if text:
        values[missing] = None
        return pl.Series(name, values.tolist(), dtype=kind)
    series = pl.Series(name, values)
    if missing.any():
        series = series.scatter(np.flatnonzero(missing), None)
    return series if kind is None else series.cast(kind)


def _pyarrow(column: WritableColumn, name: str, numbers: Array, dtype: str) -> Any:
    if not dtype and _is_category(column, dtype):
        assert column.levels is not None
        inner = "string" if column.levels.dtype.kind == "U" else column.levels.dtype.name
        dtype = f"dictionary<values={inner}, indices=int32, ordered={int(column.ordered)}>"
    return _arrow(column, name, numbers, dtype)


def _arrow(column: WritableColumn, name: str, numbers: Array, dtype: str) -> Any:
    """An array of pyarrow of a type that is given as pyarrow writes it, or of its natural one."""
    pa = import_module("pyarrow")
    parts = re.fullmatch(r"dictionary<values=(.*), indices=(.*), ordered=(\d)>", dtype)
    if parts and column.levels is not None:
        values, indices, ordered = parts.groups()
        codes, missing = _codes(numbers)
        return pa.DictionaryArray.from_arrays(
            pa.array(codes, mask=missing).cast(indices),
            pa.array(column.levels.tolist()).cast(values),
            ordered=ordered == "1",
        )
    data, missing = _values(column, numbers)
    array = pa.array(data, mask=missing)
    if parts:
        dtype = parts[1]
    try:
        return array.cast(dtype) if dtype else array
    except (ValueError, pa.ArrowException):  # such as decimals, which have no short name
        return array


def _missing_error(name: str, dtype: str) -> ValueError:
    return ValueError(
        f"Column {name!r} of type {dtype} cannot hold what is missing: give fit a type that can, "
        "such as float64, or pandas' nullable types."
    )
