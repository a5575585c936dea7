"""What a model is conditioned on: labels, or numbers, as columns that a network reads."""

from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray
from sklearn.utils import check_array

from skae._utils.inputs import as_numbers

Array = NDArray[Any]


def check_condition(y: Any, n_rows: int) -> Array:
    """Targets, one per row: labels (n_rows,), or numbers (n_rows, n_targets) as float64.

    Floats are numbers, and so are several columns; integers, strings and booleans are labels.
    """
    try:
        values = np.asarray(as_numbers(y, "y"))
    except ValueError as error:
        raise ValueError(f"y must be a column of labels, or columns of numbers: {error}") from error
    if values.ndim == 2 and values.shape[1] == 1:
        values = values[:, 0]
    if values.ndim not in (1, 2) or len(values) != n_rows:
        raise ValueError(
            f"y has shape {np.shape(y)}; expected ({n_rows},) labels or numbers, or "
            f"({n_rows}, n_targets) numbers: one for each row."
        )
    if values.dtype.kind == "f" or (values.ndim == 2 and values.dtype.kind in "biu"):
        numbers = check_array(values, ensure_2d=False, dtype=np.float64, input_name="y")
        return numbers.reshape(n_rows, -1)
    if values.dtype.kind == "O" and values.ndim == 1:
        values = _one_kind(values)
    if values.dtype.kind not in "biuUST" or values.ndim == 2:
        raise ValueError(
            f"y holds values of type {values.dtype}; allowed are integers, strings and booleans as "
            "labels, one for each row, and floats as numbers."
        )
    return values


def _one_kind(values: Array) -> Array:
    """Labels out of an array of objects: all strings, or all integers or booleans."""
    kinds = {type(value) for value in values}
    if all(issubclass(kind, str) for kind in kinds):
        return values.astype(str)
    if all(issubclass(kind, (int, np.integer, np.bool_)) for kind in kinds):
        return values.astype(np.int64)
    raise ValueError(
        f"y mixes values of the types {sorted(kind.__name__ for kind in kinds)}; labels must be "
        "all strings or all integers, none missing."
    )


def one_hot(labels: Array, classes: Array) -> NDArray[np.float32]:
    """(n_rows, n_classes), 1 at the label of each row."""
    strange = ~np.isin(labels, classes)
    if strange.any():
        raise ValueError(
            f"y holds the label {labels[strange].tolist()[0]!r}, which was not seen in fit; "
            f"allowed are {classes.tolist()}."
        )
    return (labels[:, None] == classes).astype(np.float32)


def standardised(numbers: Array, mean: Array, scale: Array) -> NDArray[np.float32]:
    """(n_rows, n_targets), as the network reads them."""
    if numbers.shape[1] != len(mean):
        raise ValueError(
            f"y has {numbers.shape[1]} numbers a row, but the model was fitted with {len(mean)}."
        )
    return ((numbers - mean) / scale).astype(np.float32)


class Labels(NamedTuple):
    """Conditions that are labels: one column for each."""

    classes: Array

    def columns(self, targets: Array) -> NDArray[np.float32]:
        """Checked targets as the decoder reads them, (n_rows, n_classes)."""
        if targets.ndim == 2:
            raise ValueError(
                f"y holds numbers, but the model was fitted on labels; allowed are "
                f"{self.classes.tolist()}."
            )
        return one_hot(targets, self.classes)


class Numbers(NamedTuple):
    """Conditions that are numbers, standardised."""

    mean: Array
    scale: Array

    def columns(self, targets: Array) -> NDArray[np.float32]:
        """Checked targets as the decoder reads them, (n_rows, n_targets)."""
        if targets.dtype.kind not in "biuf":
            raise ValueError("y holds labels, but the model was fitted on numbers.")
        columns = targets.astype(np.float64).reshape(len(targets), -1)
        return standardised(columns, self.mean, self.scale)


def condition_of(y: Array, weight: Array | None) -> Labels | Numbers:
    """What there is to be conditioned on in checked targets."""
    if y.ndim == 1:
        return Labels(np.unique(y))
    mean = np.average(y, axis=0, weights=weight)
    spread = np.average((y - mean) ** 2, axis=0, weights=weight) ** 0.5
    return Numbers(mean, np.where(spread > 0, spread, 1.0))
