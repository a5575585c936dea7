"""What a model knows of the columns of its table: their kinds, levels, and types to write back."""

from collections.abc import Mapping
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from skae._tables.kinds import kind_by_values, kinds_by_mapping
from skae._tables.values import Array, Opened, Values
from skae._tables.writing import write_table

# How many levels or values a message shows.
_SHOWN = 10


@dataclass(frozen=True, kw_only=True, eq=False)
class Column:
    """One column, as fit has seen it.

    `levels` are those of a categorical column, in order: text, numbers or booleans. `type` is
    NumPy's name for a value ("str", "bool", "int64", ...), `dtype` the frame's name for the
    column's type ("" in arrays), and `ordered` whether that type orders its levels.
    """

    name: str | int
    kind: str
    levels: Array | None
    type: str
    dtype: str
    ordered: bool

    @classmethod
    def learn(cls, values: Values, kind: str) -> "Column":
        """The column of a kind; what this kind cannot hold is an error."""
        where = f"X, column {values.name!r},"
        seen = values.seen()
        if not len(seen):
            raise ValueError(f"{where} is missing in every row: drop it.")
        levels = None
        dtype = values.dtype
        if kind == "categorical":
            levels = _levels(values, seen)
            if len(levels) < 2:
                raise ValueError(
                    f"{where} has the one level {levels.tolist()[0]!r}, and a category has two or "
                    "more: drop it, or declare its other levels by a categorical dtype."
                )
        elif values.type == "str":
            raise ValueError(
                f"{where} holds text, such as {seen.tolist()[0]!r}, and its kind is {kind!r}, of "
                "numbers; of text the kind is 'categorical'."
            )
        elif dtype.startswith("category["):
            dtype = dtype[len("category[") : -1]  # what is written need be none of the categories
        return cls(
            name=values.name,
            kind=kind,
            levels=levels,
            type=values.type,
            dtype=dtype,
            ordered=values.ordered,
        )

    def encode(self, values: Values, container: str, unknown_is_missing: bool) -> Array:
        """The values as numbers, or the indices of their levels; NaN where they are missing."""
        of_text = self.levels is not None and self.levels.dtype.kind == "U"
        if (values.type == "str") != of_text:
            return self._of_another_family(values, container)
        if self.levels is None:
            return values.as_floats()
        if of_text:
            return self._of_text(values, self.levels, unknown_is_missing)
        return self._of_numbers(values, self.levels, unknown_is_missing)

    def _of_text(self, values: Values, levels: Array, unknown_is_missing: bool) -> Array:
        code = {level: j for j, level in enumerate(levels.tolist())}
        codes = np.array(list(map(code.get, values.data.tolist())), dtype=np.float64)
        if not unknown_is_missing:
            others = set(values.data[np.isnan(codes)].tolist())
            self._check_known({label for label in others if isinstance(label, str)})
        return codes

    def _of_numbers(self, values: Values, levels: Array, unknown_is_missing: bool) -> Array:
        if levels.dtype.kind == "b":
            levels = levels.astype(np.int64)
        order = np.argsort(levels)
        last = len(levels) - 1
        nearest = order[np.searchsorted(levels, values.data, sorter=order).clip(max=last)]
        found = levels[nearest] == values.data
        missing = values.is_missing()
        if not unknown_is_missing:
            self._check_known(set(values.data[~found & ~missing].tolist()))
        return np.where(found & ~missing, nearest, np.nan)

    def _of_another_family(self, values: Values, container: str) -> Array:
        """Numbers where levels are text, or text where they are not.

        An array of numbers holds the indices of levels of text.
        """
        seen = values.seen()
        if not len(seen):
            return np.full(len(values.data), np.nan)
        if values.type == "str" or self.levels is None or container != "numbers":
            given = "text" if values.type == "str" else "numbers"
            known = f"it held numbers, of kind {self.kind!r}"
            if self.levels is not None:
                known = f"its levels were {_shown(self.levels.tolist())}"
            raise ValueError(
                f"X, column {self.name!r}, holds {given}, such as {seen.tolist()[0]!r}, but in "
                f"fit {known}."
            )
        no_index = seen[~np.isin(seen, np.arange(len(self.levels)))]
        if len(no_index):
            raise ValueError(
                f"X, column {self.name!r}, holds {no_index.tolist()[0]!r}, but an array of numbers "
                f"holds the indices of its levels, 0 to {len(self.levels) - 1}: "
                f"{_shown(self.levels.tolist())}."
            )
        return values.as_floats()

    def _check_known(self, unknown: set[Any]) -> None:
        assert self.levels is not None
        if unknown:
            raise ValueError(
                f"X, column {self.name!r}, holds {_shown(sorted(unknown))}, which fit has not "
                f"seen; its levels are {_shown(self.levels.tolist())}. Set "
                "handle_unknown='missing' to take such values for missing ones, or declare all "
                "levels for fit, by pandas' CategoricalDtype or polars' Enum."
            )


@dataclass(frozen=True, kw_only=True, eq=False)
class Table:
    """The columns of a table in order, and what held it in fit."""

    columns: tuple[Column, ...]
    container: str

    @classmethod
    def learn(cls, X: Any, likelihood: Any) -> "Table":
        """The columns of X under kinds by name or index, "auto", or "categorical" for all."""
        opened = Opened(X)
        if isinstance(likelihood, Mapping):
            kinds = kinds_by_mapping(likelihood, opened.names)
        else:
            kinds = [likelihood] * opened.n_columns
        columns = [
            Column.learn(values, kind_by_values(values) if kind == "auto" else kind)
            for values, kind in zip(opened, kinds, strict=True)
        ]
        return cls(columns=tuple(columns), container=opened.container)

    def encode(self, X: Any, handle_unknown: str = "error") -> NDArray[Any]:
        """Rows of numbers as they are and categories by their indices, NaN for what is missing.

        Of shape (n, n_columns); float32 where every column of X is, else float64.
        """
        opened = Opened(X)
        self._check_columns(opened)
        rows = np.empty((opened.n_rows, len(self.columns)))
        types = set()
        for j, (column, values) in enumerate(zip(self.columns, opened, strict=True)):
            types.add(values.data.dtype)
            rows[:, j] = column.encode(values, opened.container, handle_unknown == "missing")
        return rows.astype(np.float32) if types == {np.dtype(np.float32)} else rows

    def write(self, rows: NDArray[Any], container: str, index: Any = None) -> Any:
        """Rows as `encode` gives them, or means of such, as a frame or an array.

        "numbers" is an array of floats: levels that are numbers, else their indices. Elsewhere
        integers are rounded and booleans the likelier value. `index` is pandas'.
        """
        return write_table(self.columns, rows, container, self.container, index)

    def _check_columns(self, opened: Opened) -> None:
        if opened.n_columns != len(self.columns):
            raise ValueError(
                f"X has {opened.n_columns} features, but fit has seen {len(self.columns)}."
            )
        named = [isinstance(names[0], str) for names in (opened.names, self.names)]
        if all(named) and opened.names != self.names:
            raise ValueError(
                f"The columns of X are {_shown(opened.names)}, but in fit they were "
                f"{_shown(self.names)}, in this order."
            )

    @property
    def names(self) -> list[Any]:
        """The names of the columns, or their indices."""
        return [column.name for column in self.columns]

    @property
    def kinds(self) -> tuple[str, ...]:
        """The kind of each column."""
        return tuple(column.kind for column in self.columns)

    @property
    def n_levels(self) -> tuple[int, ...]:
        """How many levels each column has, 0 where it is not categorical."""
        return tuple(0 if c.levels is None else len(c.levels) for c in self.columns)

    @property
    def likelihoods(self) -> dict[Any, str]:
        """The kinds by name or index."""
        return {column.name: column.kind for column in self.columns}

    @property
    def categories(self) -> dict[Any, NDArray[Any]]:
        """The levels of the categorical columns by name or index."""
        return {column.name: column.levels for column in self.columns if column.levels is not None}

    def as_dict(self) -> dict[str, Any]:
        """The table as plain types and arrays, for saved files."""
        return {"container": self.container, "columns": [asdict(c) for c in self.columns]}

    @classmethod
    def from_dict(cls, state: Mapping[str, Any]) -> "Table":
        """The table of what `as_dict` gave."""
        columns = tuple(Column(**column) for column in state["columns"])
        return cls(columns=columns, container=state["container"])


def _levels(values: Values, seen: Array) -> Array:
    """Those that the type declares in its order, else those seen, sorted."""
    if values.levels is not None:
        return values.levels
    return np.array([False, True]) if values.type == "bool" else np.unique(seen)


def _shown(values: list[Any]) -> str:
    more = ", ..." if len(values) > _SHOWN else ""
    return f"[{', '.join(map(repr, values[:_SHOWN]))}{more}]"
