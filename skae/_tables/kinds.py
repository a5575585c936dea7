"""Kinds of columns, given by `likelihood` or chosen from the values."""

from collections.abc import Mapping
from numbers import Integral
from typing import Any

from skae._tables.values import Opened, Values

KINDS = ("gaussian", "laplace", "bernoulli", "continuous_bernoulli", "poisson", "categorical")

# Integers from 0 to at most this number, with some zeros, are counts.
_LARGEST_COUNT = 100


def has_kinds(likelihood: object) -> bool:
    """Whether each column has its own kind: with a mapping, "auto" or "categorical"."""
    return isinstance(likelihood, Mapping) or (
        isinstance(likelihood, str) and likelihood in ("auto", "categorical")
    )


def holds_categories(X: Any) -> bool:
    """Whether a data frame, or an array of objects or text, has a categorical column."""
    if getattr(getattr(X, "dtype", None), "kind", "O") not in "OUT":
        return False
    try:
        opened = Opened(X)
        return opened.container != "numbers" and any(
            kind_by_values(values) == "categorical" for values in opened
        )
    except (TypeError, ValueError):  # the later validation of the rows raises the error
        return False


def kinds_by_mapping(likelihood: Mapping[Any, Any], names: list[Any]) -> list[str]:
    """The kind of each column, in order; a key is the name of a column or its index from 0."""
    positions = {name: j for j, name in enumerate(names) if isinstance(name, str)}
    keys: dict[int, Any] = {}
    for key in likelihood:
        j = _position(key, positions, len(names))
        if j is None:
            allowed = f"the names {_few(names)}, or " if positions else ""
            raise ValueError(
                f"likelihood names the column {key!r}, which X does not have; allowed are {allowed}"
                f"indices from 0 to {len(names) - 1}."
            )
        if j in keys:
            raise ValueError(
                f"likelihood names the column {names[j]!r} twice, as {keys[j]!r} and as {key!r}. "
                "Remove one of them."
            )
        keys[j] = key
    if missed := [name for j, name in enumerate(names) if j not in keys]:
        raise ValueError(
            f"likelihood misses the columns {_few(missed)} of X: a mapping must name every column. "
            "With likelihood='auto', the likelihood of each column is chosen from its values."
        )
    kinds = [likelihood[keys[j]] for j in range(len(names))]
    for name, kind in zip(names, kinds, strict=True):
        if not (isinstance(kind, str) and kind in KINDS):
            raise ValueError(
                f"likelihood gives column {name!r} the unknown likelihood {kind!r}; allowed are "
                f"{list(KINDS)}."
            )
    return [str(kind) for kind in kinds]


def kind_by_values(values: Values) -> str:
    """The kind that "auto" chooses for a column."""
    if values.levels is not None or values.type == "str":
        return "categorical"
    if values.type == "bool":
        return "bernoulli"
    if not values.type.startswith(("int", "uint")):
        return "gaussian"
    seen = values.seen()
    least, largest = seen.min(initial=0), seen.max(initial=0)
    if least == 0 and largest <= 1:
        return "bernoulli"
    counts = least == 0 and largest <= _LARGEST_COUNT and (seen == 0).any()
    return "poisson" if counts else "gaussian"


def _position(key: Any, positions: dict[str, int], n_columns: int) -> int | None:
    if isinstance(key, str):
        return positions.get(key)
    whole = isinstance(key, Integral) and not isinstance(key, bool)
    return int(key) if whole and 0 <= key < n_columns else None


def _few(names: list[Any], most: int = 10) -> str:
    """The first names of a list, with their number if there are more."""
    shown = ", ".join(map(repr, names[:most]))
    return f"[{shown}]" if len(names) <= most else f"[{shown}, ...] ({len(names)})"
