"""Description of the columns of a table: kinds, levels, and the types in which they are written."""

from collections.abc import Mapping
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from skae._tables.kinds import kind_by_values, kinds_by_mapping
from skae._tables.values import Array, Opened, Values
from skae._tables.writing import write_table

# Largest number of levels or values in a message.
_SHOWN = 10


@dataclass(frozen=True, kw_only=True, eq=False)
class Column:
    """A column of the training table.

    `levels` are the ordered levels of a categorical column: text, numbers or booleans. `type` is
    the name that NumPy has for the values ("str", "bool", "int64", ...). `dtype` is the name that
    the data frame has for the type of the column ("" in arrays). `ordered` says whether the levels
    of this type are ordered.
    """

    name: str | int
    kind: str
    levels: Array | None
    type: str
    dtype: str
    ordered: bool

    @classmethod
    def learn(cls, values: Values, kind: str) -> "Column":
        """Describe a column of the given kind; raise if its values do not fit this kind."""
        where = f"X, column {values.name!r},"
        seen = values.seen()
        if not len(seen):
            raise ValueError(f"{where} is missing in every row. Remove this column.")
        levels = None
        dtype = values.dtype
        if kind == "categorical":
            levels = _levels(values, seen)
            if len(levels) < 2:
                raise ValueError(
                    f"{where} has only the level {levels.tolist()[0]!r}, but a categorical column "
                    "needs at least two. Remove the column, or declare its other levels with a "
                    "categorical dtype."
                )
        elif values.type == "str":
            raise ValueError(
                f"{where} holds text, such as {seen.tolist()[0]!r}, but the likelihood {kind!r} "
                "needs numbers. Use the likelihood 'categorical' for text."
            )
        elif dtype.startswith("category["):
            dtype = dtype[len("category[") : -1]  # written values need not be among the categories
        return cls(
            name=values.name,
            kind=kind,
            levels=levels,
            type=values.type,
            dtype=dtype,
            ordered=values.ordered,
        )

    def encode(self, values: Values, container: str, unknown_is_missing: bool) -> Array:
        """The values as numbers or as indices of levels, with NaN for missing values."""
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
        """Encode numbers for a column of text, or raise for text in a column of numbers.

        Numbers in an array of numbers are indices of the levels.
        """
        seen = values.seen()
        if not len(seen):
            return np.full(len(values.data), np.nan)
        if values.type == "str" or self.levels is None or container != "numbers":
            given = "text" if values.type == "str" else "numbers"
            known = f"it held numbers, with the likelihood {self.kind!r}"
            if self.levels is not None:
                known = f"its levels were {_shown(self.levels.tolist())}"
            raise ValueError(
                f"X, column {self.name!r}, holds {given}, such as {seen.tolist()[0]!r}, but in "
                f"fit {known}."
            )
        no_index = seen[~np.isin(seen, np.arange(len(self.levels)))]
        if len(no_index):
            raise ValueError(
                f"X, column {self.name!r}, holds {no_index.tolist()[0]!r}. In an array of numbers, "
                f"the column must hold indices of its levels, 0 to {len(self.levels) - 1}: "
                f"{_shown(self.levels.tolist())}."
            )
        return values.as_floats()

    def _check_known(self, unknown: set[Any]) -> None:
        assert self.levels is not None
        if unknown:
            raise ValueError(
                f"X, column {self.name!r}, holds {_shown(sorted(unknown))}, which fit has not "
                f"seen; its levels are {_shown(self.levels.tolist())}. Set "
                "handle_unknown='missing' to treat such values as missing, or declare all levels "
                "in the data for fit, with CategoricalDtype of pandas or Enum of polars."
            )


@dataclass(frozen=True, kw_only=True, eq=False)
class Table:
    """The columns of a table in order, and the container that held it in fit."""

    columns: tuple[Column, ...]
    container: str

    @classmethod
    def learn(cls, X: Any, likelihood: Any) -> "Table":
        """Describe X; `likelihood` is a mapping of columns to kinds, "auto" or "categorical"."""
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
        """Encode rows as an array of numbers, indices of levels, and NaN for missing values.

        The array has shape (n, n_columns). It is float32 if all columns of X are, and otherwise
        float64.
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
        """Write encoded rows, or means of such rows, as a data frame or an array.

        The container "numbers" is an array of floats, with levels that are numbers, or otherwise
        their indices. In all other containers, integers are rounded and booleans are the more
        probable value. `index` is an index of pandas.
        """
        return write_table(self.columns, rows, container, self.container, index)

    def _check_columns(self, opened: Opened) -> None:
        if opened.n_columns != len(self.columns):
            raise ValueError(
                f"X has {opened.n_columns} columns, but there were {len(self.columns)} in fit."
            )
        named = [isinstance(names[0], str) for names in (opened.names, self.names)]
        if all(named) and opened.names != self.names:
            raise ValueError(
                f"The columns of X are {_shown(opened.names)}, but in fit they were "
                f"{_shown(self.names)}. Names and order must be equal."
            )

    @property
    def names(self) -> list[Any]:
        """Names of the columns, or their indices."""
        return [column.name for column in self.columns]

    @property
    def kinds(self) -> tuple[str, ...]:
        """The kind of each column."""
        return tuple(column.kind for column in self.columns)

    @property
    def n_levels(self) -> tuple[int, ...]:
        """Number of levels of each column; 0 if it is not categorical."""
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
        """The table that `as_dict` described."""
        columns = tuple(Column(**column) for column in state["columns"])
        return cls(columns=columns, container=state["container"])


def _levels(values: Values, seen: Array) -> Array:
    """The levels that the type declares, in its order; otherwise the sorted distinct values."""
    if values.levels is not None:
        return values.levels
    return np.array([False, True]) if values.type == "bool" else np.unique(seen)


def _shown(values: list[Any]) -> str:
    more = ", ..." if len(values) > _SHOWN else ""
    return f"[{', '.join(map(repr, values[:_SHOWN]))}{more}]"
