"""Validation of stored rows: files and lazy containers that estimators with a network accept."""

from __future__ import annotations

from typing import Any

from sklearn.utils import get_tags
from sklearn.utils.validation import validate_data

from skae._training.data import check_finite
from skae._utils.sparse_rows import Rows
from skae._utils.stored_rows import StoredRows


def check_stored(
    estimator: Any, X: StoredRows, *, reset: bool, min_rows: int, is_table: bool = False
) -> Rows | StoredRows:
    """Validate stored rows; small ones are read.

    With `reset`, all values are checked now. Otherwise they are checked when they are read.
    """
    if is_table:
        raise TypeError(
            f"X is {X.kind}, which is accepted with one likelihood for all columns only; given "
            f"likelihood={estimator.likelihood!r}. Read it into a data frame or an array first, or "
            "set one likelihood, such as 'gaussian'."
        )
    n_rows, n_columns = X.shape
    validate_data(estimator, X.header(), reset=reset, skip_check_array=True)
    for number, least, of_what in ((n_rows, min_rows, "sample"), (n_columns, 1, "feature")):
        if number < least:
            raise ValueError(
                f"Found array with {number} {of_what}(s) (shape={X.shape}) while a minimum of "
                f"{least} is required by {type(estimator).__name__}."
            )
    X = X.allowing(get_tags(estimator).input_tags.allow_nan)
    if X.is_small:
        found = X.rows_in_memory()
        check_finite(found, get_tags(estimator).input_tags.allow_nan)
        return found
    if reset:
        check_finite(X, allow_nan=True)
    return X
