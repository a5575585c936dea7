"""Targets of conditional models: labels or numbers, as inputs of a network."""

from collections.abc import Mapping
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from skae._modules.targets import (
    Targets,
    check_condition,
    checked,
    joined,
    of_length,
    of_values,
    positions,
)
from skae._utils.inputs import as_numbers

Array = NDArray[Any]


def one_hot(labels: Array, classes: Array, name: str = "y") -> NDArray[np.float32]:
    """Return an array (n_rows, n_classes) that is 1 at the label of each row.

    The classes are in ascending order.
    """
    columns = np.zeros((len(labels), len(classes)), dtype=np.float32)
    which = indices_of(labels, classes, name)
    columns[np.arange(len(labels)), which] = 1.0
    return columns


def indices_of(labels: Array, classes: Array, name: str = "y") -> NDArray[np.intp]:
    """Return the index of every label among the sorted classes."""
    numeric = labels.dtype.kind in "biuf", classes.dtype.kind in "biuf"
    if numeric[0] == numeric[1]:
        which = np.searchsorted(classes, labels).clip(max=len(classes) - 1)
        strange = classes[which] != labels
    else:
        which, strange = np.zeros(len(labels), dtype=np.intp), np.ones(len(labels), dtype=bool)
    if strange.any():
        raise ValueError(
            f"{name} has the label {labels[strange].tolist()[0]!r}, which did not occur in fit; "
            f"allowed are {classes.tolist()}."
        )
    return which


def standardised(numbers: Array, mean: Array, scale: Array) -> NDArray[np.float32]:
    """Return standardised numbers (n_rows, n_targets)."""
    if numbers.shape[1] != len(mean):
        raise ValueError(
            f"y has {numbers.shape[1]} columns of numbers, but the model was fitted with "
            f"{len(mean)}."
        )
    return ((numbers - mean) / scale).astype(np.float32)


class Labels(NamedTuple):
    """Conditions that are labels in one column, with one input for each label."""

    classes: Array

    def columns(self, targets: Array) -> NDArray[np.float32]:
        """Return checked targets as inputs of the decoder, (n_rows, n_classes)."""
        if isinstance(targets, Targets):
            raise ValueError(
                f"y has {len(targets.names)} columns, but the model was fitted with one column of "
                f"labels; allowed are {self.classes.tolist()}."
            )
        if targets.ndim == 2 and targets.shape[1] == 1 and self.classes.dtype.kind == "f":
            targets = targets[:, 0]  # labels that are floats were given as categories
        if targets.ndim == 2:
            raise ValueError(
                f"y contains numbers, but the model was fitted with labels; allowed are "
                f"{self.classes.tolist()}."
            )
        return one_hot(targets, self.classes)

    def of(self, y: Any, n_rows: int) -> NDArray[np.float32]:
        """Return targets of the user, one for each row or one for all, as inputs of the decoder."""
        return self.columns(check_condition(_repeated(y, n_rows), n_rows))


class Numbers(NamedTuple):
    """Conditions that are standardised numbers."""

    mean: Array
    scale: Array
    names: tuple[str, ...] | None = None  # of the columns, if they are those of a data frame

    def columns(self, targets: Array) -> NDArray[np.float32]:
        """Return checked targets as inputs of the decoder, (n_rows, n_targets)."""
        if isinstance(targets, Targets) and targets.are_numbers:
            targets = _in_order(targets, self.names, len(self.mean)).numbers()
        if targets.dtype.kind not in "biuf":
            raise ValueError(
                f"y contains labels, but the model was fitted with numbers; allowed are "
                f"{len(self.mean)} columns of numbers."
            )
        columns = targets.astype(np.float64).reshape(len(targets), -1)
        return standardised(columns, self.mean, self.scale)

    def of(self, y: Any, n_rows: int) -> NDArray[np.float32]:
        """Return targets of the user, one for each row or one for all, as inputs of the decoder."""
        row = _one_row(y, self.names, len(self.mean))
        targets = checked(_repeated(y, n_rows) if row is None else [row])
        if len(self.mean) > 1:
            targets = _broadcast(targets, n_rows)
        return self.columns(of_length(targets, n_rows, np.shape(y)))


class Several(NamedTuple):
    """Conditions in several columns, of which at least one contains labels.

    The inputs of the decoder are one indicator for each label of each column of labels, and then
    the standardised numbers of the other columns.
    """

    classes: list[Array]
    label_columns: tuple[int, ...]  # positions of the columns of labels among all columns
    mean: Array
    scale: Array
    names: tuple[str, ...] | None = None

    @property
    def n_columns(self) -> int:
        """Number of columns."""
        return len(self.classes) + len(self.mean)

    def columns(self, targets: Array) -> NDArray[np.float32]:
        """Return checked targets as inputs of the decoder, (n_rows, n_inputs)."""
        targets = self._in_order(targets)
        numbers, found, classes = [], [], iter(self.classes)
        for i, field in enumerate(targets.names):
            values = np.asarray(targets[field])
            if i in self.label_columns:
                found.append(one_hot(values.reshape(-1), next(classes), self._named(i)))
            elif values.dtype.kind in "biuf":
                numbers.append(values.reshape(-1, 1).astype(np.float64))
            else:
                raise ValueError(
                    f"{self._named(i)} contains labels, but the model was fitted with numbers."
                )
        if numbers:
            found.append(standardised(np.hstack(numbers), self.mean, self.scale))
        return np.hstack(found)

    def of(self, y: Any, n_rows: int) -> NDArray[np.float32]:
        """Return targets of the user, one for each row or one for all, as inputs of the decoder."""
        row = _one_row(y, self.names, self.n_columns)
        if row is not None:
            names = self.names or positions(self.n_columns)
            parts = [np.array([value], dtype=object) for value in row]
            named = [self._named(i) for i in range(self.n_columns)]
            targets: Array = joined(names, list(map(of_values, parts, named)))
        elif _is_scalar(y):
            raise ValueError(self._other_columns(1))
        else:
            targets = self._in_order(checked(y))
        return self.columns(of_length(_broadcast(targets, n_rows), n_rows, np.shape(y)))

    def codes(self, columns: NDArray[np.float32]) -> NDArray[np.intp]:
        """Return the index of the label of every row in every column, from indicators."""
        ends = np.cumsum([len(classes) for classes in self.classes])[:-1]
        n_indicators = sum(map(len, self.classes))
        parts = np.split(columns[:, :n_indicators], ends, axis=1)
        return np.stack([part.argmax(axis=1) for part in parts], axis=1)

    def labels(self, codes: NDArray[np.intp]) -> Array:
        """Return the labels (n_rows, n_columns) at these indices, as an array of objects."""
        found = np.empty(codes.shape, dtype=object)
        for j, classes in enumerate(self.classes):
            found[:, j] = classes[codes[:, j]].tolist()
        return found

    def codes_of(self, labels: Array) -> NDArray[np.intp]:
        """Return the indices of labels, as the inverse of `labels`."""
        parts = [
            indices_of(labels[:, j].astype(classes.dtype), classes)
            for j, classes in enumerate(self.classes)
        ]
        return np.stack(parts, axis=1)

    def indicators(self, codes: NDArray[np.intp]) -> NDArray[np.float32]:
        """Return the inputs of the decoder for labels at these indices."""
        parts = [
            np.eye(len(classes), dtype=np.float32)[codes[:, j]]
            for j, classes in enumerate(self.classes)
        ]
        return np.hstack(parts)

    def _in_order(self, targets: Array) -> Targets:
        """Return checked targets with the columns of fit."""
        if not isinstance(targets, Targets):
            n_given = 1 if targets.ndim < 2 else targets.shape[1]
            if n_given != self.n_columns:
                raise ValueError(self._other_columns(n_given))
            targets = joined(positions(self.n_columns), list(targets.T[..., None]))
        return _in_order(targets, self.names, self.n_columns)

    def _named(self, i: int) -> str:
        return f"y, column {self.names[i]!r}," if self.names else f"y, column {i},"

    def _other_columns(self, n_given: int) -> str:
        expected = f"{self.n_columns} columns" + (f" {list(self.names)}" if self.names else "")
        return (
            f"y has {n_given} column{'s' * (n_given != 1)}, but the model was fitted with "
            f"{expected}. Give one value of each column, for every row or once for all rows."
        )


Condition = Labels | Numbers | Several


def condition_of(y: Array, weight: Array | None) -> Condition:
    """Return the conditions that checked targets define."""
    names = None
    if isinstance(y, Targets):
        names = None if _is_unnamed(y.names) else y.names
        labels = [i for i, name in enumerate(y.names) if y[name].ndim == 1]
        if labels:
            rest = [np.asarray(y[name]) for i, name in enumerate(y.names) if i not in labels]
            numbers = np.hstack(rest) if rest else np.empty((len(y), 0))
            classes = [np.unique(np.asarray(y[y.names[i]])) for i in labels]
            return Several(classes, tuple(labels), *_mean_and_scale(numbers, weight), names)
        y = y.numbers()
    if y.ndim == 1:
        return Labels(np.unique(y))
    return Numbers(*_mean_and_scale(y, weight), names)


def _mean_and_scale(numbers: Array, weight: Array | None) -> tuple[Array, Array]:
    if not numbers.shape[1]:
        return np.empty(0), np.empty(0)
    mean = np.average(numbers, axis=0, weights=weight)
    spread = np.average((numbers - mean) ** 2, axis=0, weights=weight) ** 0.5
    return mean, np.where(spread > 0, spread, 1.0)


def _is_unnamed(names: tuple[str, ...]) -> bool:
    return names == positions(len(names))


def _in_order(targets: Targets, names: tuple[str, ...] | None, n_columns: int) -> Targets:
    """Return targets with their columns in the order of fit; columns are found by their names."""
    given = targets.names
    if names is not None and set(given) == set(names):
        return joined(names, [np.asarray(targets[name]) for name in names])
    if len(given) != n_columns or not (names is None or _is_unnamed(given)):
        expected = f"{n_columns} columns" if names is None else f"the columns {list(names)}"
        raise ValueError(
            f"y has the columns {list(given)}, but the model was fitted with {expected}."
        )
    return targets


def _is_scalar(y: Any) -> bool:
    if isinstance(y, (str, bytes)):
        return True
    return not isinstance(y, (list, tuple, Mapping)) and np.ndim(y) == 0


def _repeated(y: Any, n_rows: int) -> Any:
    """Return a single target repeated for all rows; others stay as they are."""
    return np.full(n_rows, np.asarray(as_numbers(y, "y"))) if _is_scalar(y) else y


def _broadcast(targets: Array, n_rows: int) -> Array:
    """Return checked targets in several columns, of which a single row is repeated."""
    return targets.repeat(n_rows, axis=0) if targets.shape[:1] == (1,) else targets


def _one_row(y: Any, names: tuple[str, ...] | None, n_columns: int) -> list[Any] | None:
    """Return the targets of a single row, given as a mapping or a sequence; None for others."""
    if names is not None and hasattr(y, "to_dict") and hasattr(y, "index") and np.ndim(y) == 1:
        row = y.to_dict()  # of a series of pandas, which may be a row of a data frame
        y = row if set(map(str, row)) == set(names) else y
    if isinstance(y, Mapping):
        given = {str(name): value for name, value in y.items()}
        if names is None or set(given) != set(names):
            expected = f"{n_columns} columns" if names is None else f"the columns {list(names)}"
            raise ValueError(
                f"y has the entries {list(given)}, but the model was fitted with {expected}."
            )
        return [given[name] for name in names]
    if isinstance(y, (list, tuple, np.ndarray)) and len(np.shape(y[:1])) == 1 and n_columns > 1:
        return list(y) if len(y) == n_columns else None
    return None
