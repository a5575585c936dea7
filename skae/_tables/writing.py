"""Write encoded rows as data frames and arrays, in the original types of the columns."""

import re
from collections.abc import Sequence
from importlib import import_module
from typing import TYPE_CHECKING, Any

import numpy as np

from skae._tables.values import Array

if TYPE_CHECKING:
    from skae._tables.columns import Column


# Prefixes of the names of categorical types in pandas, pyarrow and polars.
_CATEGORIES = ("category[", "arrow dictionary", "dictionary", "Enum", "Categorical")


def write_table(
    columns: "Sequence[Column]", rows: Array, container: str, trained: str, index: Any = None
) -> Any:
    """Write rows to `container`, in the types of the columns if it is the container of fit."""
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


def _numbers(columns: "Sequence[Column]", rows: Array) -> Array:
    out = np.array(rows)
    for j, column in enumerate(columns):
        if column.levels is not None and column.levels.dtype.kind != "U":
            codes, missing = _codes(rows[:, j])
            out[:, j] = column.levels[codes]
            out[missing, j] = np.nan
    return out


def _objects(columns: "Sequence[Column]", rows: Array) -> Array:
    out = np.empty(rows.shape, dtype=object)
    for j, column in enumerate(columns):
        values, missing = _values(column, rows[:, j])
        out[:, j] = values.astype(object)
        out[missing, j] = np.nan
    return out


def _codes(numbers: Array) -> tuple[Array, Array]:
    """Indices of levels, with 0 for missing values, and the mask of the missing values."""
    missing = np.isnan(numbers)
    return np.where(missing, 0, numbers).astype(np.intp), missing


def _values(column: "Column", numbers: Array) -> tuple[Array, Array]:
    """Levels, or numbers of the type of the column, and the mask of the missing values."""
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
    # The largest integer of 64 bits is not a float: larger values are set separately.
    below = whole < float(limits.max)
    out = np.where(below, whole, 0).clip(limits.min).astype(dtype)
    out[~below] = limits.max
    return out, missing


def _is_category(column: "Column") -> bool:
    """Whether to write a column as categorical if the container is not that of fit.

    Columns of text or numbers of data frames stay text or numbers. Arrays do not declare a type.
    """
    told = not column.dtype or column.dtype.startswith(_CATEGORIES)
    return column.levels is not None and told


def _pandas(column: "Column", name: str, numbers: Array, dtype: str) -> Any:
    pd = import_module("pandas")
    if dtype.startswith("arrow "):
        array = _arrow(column, name, numbers, dtype.removeprefix("arrow "))
        return pd.Series(pd.arrays.ArrowExtensionArray(array))
    if dtype.startswith("category[") or (not dtype and _is_category(column)):
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
    if values.dtype.kind in "Of":
        values[missing] = np.nan
        if values.dtype.kind == "O":  # without a dtype, pandas would guess it and convert again
            return pd.Series(values, dtype=dtype or None)
        return pd.Series(values).astype(dtype or values.dtype)
    if not dtype:
        dtype = _nullable(values.dtype) if missing.any() else values.dtype.name
    if missing.any() and dtype == values.dtype.name:
        raise ValueError(
            f"Column {name!r} of type {dtype} cannot hold missing values. Give fit a column of "
            "another type, such as float64 or a nullable type of pandas."
        )
    series = pd.Series(values).astype(dtype)
    series[missing] = np.nan if dtype == "object" else pd.NA
    return series


def _nullable(dtype: np.dtype[Any]) -> str:
    """The nullable type of pandas for a type of integers or booleans."""
    names = {"b": "boolean", "i": f"Int{8 * dtype.itemsize}", "u": f"UInt{8 * dtype.itemsize}"}
    return names[dtype.kind]


def _polars(column: "Column", name: str, numbers: Array, dtype: str) -> Any:
    pl = import_module("polars")
    values, missing = _values(column, numbers)
    text = values.dtype.kind == "O"
    if not dtype and text:
        dtype = "Enum" if _is_category(column) else "String"
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


def _pyarrow(column: "Column", name: str, numbers: Array, dtype: str) -> Any:
    if not dtype and _is_category(column):
        assert column.levels is not None
        inner = "string" if column.levels.dtype.kind == "U" else column.levels.dtype.name
        dtype = f"dictionary<values={inner}, indices=int32, ordered={int(column.ordered)}>"
    return _arrow(column, name, numbers, dtype)


def _arrow(column: "Column", name: str, numbers: Array, dtype: str) -> Any:
    """An array of pyarrow, of the type that is named `dtype`, or otherwise of its default type."""
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
    try:
        kind = pa.type_for_alias(dtype)
    except ValueError:  # some types, such as decimals, have no alias
        return array
    return array.cast(kind)
