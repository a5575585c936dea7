"""What colours codes: classes or numbers of rows."""

from __future__ import annotations

from decimal import Decimal
from numbers import Integral, Real
from typing import Any, NamedTuple

import narwhals.stable.v2 as nw
import numpy as np
from numpy.typing import NDArray

from skae._plotting.canvas import BLACK, COLOURS, MARKERS, ink

Array = NDArray[Any]

# Integers of more distinct values are numbers and not classes; of more classes the most frequent
# ones are named.
_MOST_CLASSES = 20
# Colour of rows that have no class or no number.
UNKNOWN = "0.6"


class Classes(NamedTuple):
    """Labels of rows as indices of names; -1 is a row without a label."""

    of_rows: NDArray[np.intp]
    names: list[str]


def target_of(y: Any, n_rows: int) -> Classes | Array | None:
    """Classes or numbers of rows."""
    if y is None:
        return None
    series = nw.from_native(y, allow_series=True, eager_only=True, pass_through=True)
    categories = None
    if isinstance(series, nw.DataFrame):
        if len(series.columns) != 1:
            raise ValueError(f"y has {len(series.columns)} columns; one colours the codes.")
        series = series[series.columns[0]]
    if isinstance(series, nw.Series):
        if series.dtype in (nw.Categorical, nw.Enum):
            categories = series.cat.get_categories().to_list()
        values = np.asarray(series.to_list(), dtype=object)
    elif isinstance(y, np.ma.MaskedArray):
        values = np.asarray(y.data, dtype=object)
        values = np.where(np.ma.getmaskarray(y), np.asarray(None), values)
    else:
        values = np.asarray(y)
        if hasattr(y, "categories"):  # a pandas Categorical, which is no series
            categories = list(y.categories)
    if values.ndim == 2 and values.shape[1] == 1:
        values = values[:, 0]
    if values.shape != (n_rows,):
        raise ValueError(
            f"y has shape {values.shape}, but must have one value for each of the {n_rows} rows."
        )
    if values.dtype.kind == "O" and not categories:
        values = _numbers(values)
    integers = values.dtype.kind in "iu" and len(np.unique(values)) > _MOST_CLASSES
    if values.dtype.kind == "f" or integers:
        return values.astype(np.float64)
    return _classes(values, categories)


def _numbers(values: Array) -> Array:
    """Objects that are numbers as numbers, with NaN for missing values; other objects as they are.

    Integers stay objects where they are few enough to be classes, because NaN is no integer.
    """
    seen = [value for value in values if _is_known(value)]
    numbers = all(
        isinstance(value, Real | Decimal) and not isinstance(value, bool | np.bool_)
        for value in seen
    )
    few = len(set(seen)) <= _MOST_CLASSES if numbers else True
    if not seen or not numbers or (few and all(isinstance(v, Integral) for v in seen)):
        return values
    return np.array([float(v) if _is_known(v) else np.nan for v in values])


def _is_known(value: Any) -> bool:
    """Whether a label is not missing, as None, NaN, NaT and pandas' NA are."""
    try:
        return value is not None and bool(value == value)
    except TypeError:  # NA is neither equal to itself nor different
        return False


def _classes(values: Array, categories: list[Any] | None) -> Classes:
    """Labels as indices, in the order of the categories or sorted, the rare ones of many joined."""
    known = [_is_known(value) for value in values.tolist()]
    present = {value for value, ok in zip(values.tolist(), known, strict=True) if ok}
    try:
        ordered = sorted(present)
    except TypeError:  # labels of several types
        ordered = sorted(present, key=str)
    if categories is not None:
        ordered = [value for value in categories if value in present]
    place = {value: index for index, value in enumerate(ordered)}
    index = np.array(
        [place[v] if ok else -1 for v, ok in zip(values.tolist(), known, strict=True)], np.intp
    )
    names = [str(value) for value in ordered]
    if len(names) > _MOST_CLASSES:
        count = np.bincount(index[index >= 0], minlength=len(names))
        kept = np.sort(np.argsort(-count, kind="stable")[:_MOST_CLASSES])
        renumbered = np.full(len(names) + 1, -1)
        renumbered[kept] = np.arange(len(kept))
        index, names = renumbered[index], [names[old] for old in kept]
    return Classes(index, names)


def groups_of(target: Classes) -> list[tuple[NDArray[np.intp], str, str, str]]:
    """Rows, name, colour and marker of each class; last the rows that have no class of these."""
    groups = [
        (
            np.flatnonzero(target.of_rows == place),
            name,
            _colour(place),
            MARKERS[place % len(MARKERS)],
        )
        for place, name in enumerate(target.names)
    ]
    others = np.flatnonzero(target.of_rows < 0)
    return [*groups, (others, "other or missing", UNKNOWN, ".")] if len(others) else groups


def _colour(place: int) -> str:
    colour = COLOURS[place % len(COLOURS)]
    return ink() if colour == BLACK else colour


def range_of(target: Array) -> tuple[float, float]:
    seen = target[np.isfinite(target)]
    return (float(seen.min()), float(seen.max())) if len(seen) else (0.0, 1.0)
