"""Targets of conditional models: labels or numbers, as inputs of a network."""

from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray
from sklearn.utils import check_array

from skae._utils.inputs import as_numbers

Array = NDArray[Any]


def check_condition(y: Any, n_rows: int) -> Array:
    """Return targets: labels (n_rows,), or numbers (n_rows, n_targets) as float64.

    Floats and several columns are numbers; integers, strings and booleans in one column are labels.
    """
    try:
        values = np.asarray(as_numbers(y, "y"))
    except ValueError as error:
        raise ValueError(
            f"y must be a column of labels, or columns of numbers; given values that cannot be "
            f"converted: {error}"
        ) from error
    if values.ndim == 2 and values.shape[1] == 1:
        values = values[:, 0]
    if values.ndim not in (1, 2) or len(values) != n_rows:
        raise ValueError(
            f"y has shape {np.shape(y)}; expected ({n_rows},) for labels or numbers, or "
            f"({n_rows}, n_targets) for numbers, with one row for each row of X."
        )
    if values.dtype.kind == "f" or (values.ndim == 2 and values.dtype.kind in "biu"):
        numbers = check_array(values, ensure_2d=False, dtype=np.float64, input_name="y")
        return numbers.reshape(n_rows, -1)
    if values.dtype.kind == "O" and values.ndim == 1:
        values = _one_kind(values)
    if values.dtype.kind not in "biuUST" or values.ndim == 2:
        raise ValueError(
            f"y has values of type {values.dtype}; allowed are integers, strings and booleans as "
            "labels, in one column, and floats as numbers."
        )
    return values


def _one_kind(values: Array) -> Array:
    """Return labels from an array of objects that are all strings, or all integers or booleans."""
    kinds = {type(value) for value in values}
    if all(issubclass(kind, str) for kind in kinds):
        return values.astype(str)
    if all(issubclass(kind, (int, np.integer, np.bool_)) for kind in kinds):
        return values.astype(np.int64)
    raise ValueError(
        f"y has values of the types {sorted(kind.__name__ for kind in kinds)}; labels must be "
        "all strings or all integers, without missing values."
    )


def one_hot(labels: Array, classes: Array) -> NDArray[np.float32]:
    """Return an array (n_rows, n_classes) that is 1 at the label of each row."""
    strange = ~np.isin(labels, classes)
    if strange.any():
        raise ValueError(
            f"y has the label {labels[strange].tolist()[0]!r}, which did not occur in fit; "
            f"allowed are {classes.tolist()}."
        )
    return (labels[:, None] == classes).astype(np.float32)


def standardised(numbers: Array, mean: Array, scale: Array) -> NDArray[np.float32]:
    """Return standardised numbers (n_rows, n_targets)."""
    if numbers.shape[1] != len(mean):
        raise ValueError(
            f"y has {numbers.shape[1]} columns of numbers, but the model was fitted with "
            f"{len(mean)}."
        )
    return ((numbers - mean) / scale).astype(np.float32)


class Labels(NamedTuple):
    """Conditions that are labels, with one column for each label."""

    classes: Array

    def columns(self, targets: Array) -> NDArray[np.float32]:
        """Return checked targets as inputs of the decoder, (n_rows, n_classes)."""
        if targets.ndim == 2:
            raise ValueError(
                f"y contains numbers, but the model was fitted with labels; allowed are "
                f"{self.classes.tolist()}."
            )
        return one_hot(targets, self.classes)


class Numbers(NamedTuple):
    """Conditions that are standardised numbers."""

    mean: Array
    scale: Array

    def columns(self, targets: Array) -> NDArray[np.float32]:
        """Return checked targets as inputs of the decoder, (n_rows, n_targets)."""
        if targets.dtype.kind not in "biuf":
            raise ValueError(
                f"y contains labels, but the model was fitted with numbers; allowed are "
                f"{len(self.mean)} columns of numbers."
            )
        columns = targets.astype(np.float64).reshape(len(targets), -1)
        return standardised(columns, self.mean, self.scale)


def condition_of(y: Array, weight: Array | None) -> Labels | Numbers:
    """Return the conditions that checked targets define."""
    if y.ndim == 1:
        return Labels(np.unique(y))
    mean = np.average(y, axis=0, weights=weight)
    spread = np.average((y - mean) ** 2, axis=0, weights=weight) ** 0.5
    return Numbers(mean, np.where(spread > 0, spread, 1.0))
