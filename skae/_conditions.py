"""What a model is conditioned on: labels, or numbers, as columns that a network reads."""

from typing import Any

import numpy as np
from numpy.typing import NDArray
from sklearn.utils import check_array
from sklearn.utils.multiclass import type_of_target

Array = NDArray[Any]


def check_condition(y: Any, n_rows: int) -> Array:
    """Targets, one per row: labels (n_rows,), or numbers (n_rows, n_targets) as float64."""
    values = np.asarray(y)
    if values.ndim == 2 and values.shape[1] == 1:
        values = values[:, 0]
    if values.ndim not in (1, 2) or len(values) != n_rows:
        raise ValueError(
            f"y has shape {values.shape}; expected ({n_rows},) labels or numbers, or "
            f"({n_rows}, n_targets) numbers: one for each row of X."
        )
    if values.dtype.kind == "f" or values.ndim == 2:
        values = check_array(values, ensure_2d=False, dtype=np.float64, input_name="y")
    if values.ndim == 2 or type_of_target(values).startswith("continuous"):
        return values.reshape(n_rows, -1)
    return values


def are_labels(targets: Array) -> bool:
    """Whether checked targets are labels."""
    return targets.ndim == 1


def one_hot(labels: Array, classes: Array) -> NDArray[np.float32]:
    """(n_rows, n_classes), 1 at the label of each row."""
    strange = ~np.isin(labels, classes)
    if strange.any():
        raise ValueError(
            f"y holds the label {labels[strange][0]!r}, which was not seen in fit; allowed are "
            f"{list(classes)}."
        )
    return (labels[:, None] == classes).astype(np.float32)


def standardised(numbers: Array, mean: Array, scale: Array) -> NDArray[np.float32]:
    """(n_rows, n_targets), as the network reads them."""
    if numbers.shape[1] != len(mean):
        raise ValueError(
            f"y has {numbers.shape[1]} numbers a row, but the model was fitted with {len(mean)}."
        )
    return ((numbers - mean) / scale).astype(np.float32)
