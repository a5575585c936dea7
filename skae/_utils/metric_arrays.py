"""Checks of the arguments of metrics: rows, weights and numbers."""

from math import inf
from numbers import Integral
from typing import Any

import numpy as np
from numpy.typing import NDArray
from sklearn.utils import check_array

from skae._utils.inputs import as_numbers, check_rows_are_2d, is_sparse_frame, naming

Array = NDArray[Any]

# Size of the largest intermediate array in bytes, unless a single row needs more.
BLOCK_BYTES = 2**22


def rows_per_block(n_features: int) -> int:
    return max(1, BLOCK_BYTES // (8 * n_features))


def checked(values: Any, name: str, **allowed: Any) -> Array:
    """Apply `check_array` of scikit-learn, with the name of the argument in every message."""
    values = as_numbers(values, name, allow_nan=allowed.get("ensure_all_finite") == "allow-nan")
    values = values.sparse.to_dense() if is_sparse_frame(values) else values
    # Values that overflow in a narrower dtype become infinite and are refused.
    with naming(name), np.errstate(over="ignore", invalid="ignore"):
        return check_array(values, **allowed)


def check_rows(X: Any, name: str, **allowed: Any) -> Array:
    """Rows of real numbers in their own dtype; blocks of them are converted later."""
    check_rows_are_2d(X, name)
    return checked(X, name, dtype="numeric", **allowed)


def check_columns(X: Array, name: str, other: Array, other_name: str) -> None:
    if X.shape[1] != other.shape[1]:
        raise ValueError(
            f"{name} has {X.shape[1]} columns, but {other_name} has {other.shape[1]}. The numbers "
            "of columns must be equal."
        )


def check_weight(sample_weight: Any, n_rows: int) -> Array:
    weight = checked(sample_weight, "sample_weight", ensure_2d=False, dtype=np.float64)
    if weight.shape != (n_rows,):
        raise ValueError(
            f"sample_weight has shape {weight.shape}, but X has {n_rows} rows. It must have shape "
            f"({n_rows},)."
        )
    if (weight < 0).any() or not weight.any():
        raise ValueError(
            "sample_weight must be zero or positive, and not all weights may be zero; got weights "
            f"from {weight.min():g} to {weight.max():g}."
        )
    return weight / weight.max()  # the scale does not matter, but the sum must be finite


def check_in_range(number: float, what: str, name: str) -> None:
    if not np.isfinite(number):
        raise ValueError(f"The {what} of {name} is outside of the range of floats. Rescale {name}.")


def check_number(value: Any, name: str, kind: Any, *, zero: bool = False) -> None:
    wanted = f"{'zero or ' if zero else ''}a positive {'integer' if kind is Integral else 'number'}"
    message = f"{name} must be {wanted}, got {value!r}."
    if not isinstance(value, kind) or isinstance(value, bool):
        raise TypeError(message)
    try:
        number = float(value)
    except OverflowError:  # the integer is too large for a float
        number = inf
    if not (0 < number < inf or (zero and number == 0)):
        raise ValueError(message)
