"""Rows as users give them, as the numbers that are drawn."""

from typing import Any

import narwhals as nw
import numpy as np
from numpy.typing import NDArray
from scipy import sparse
from sklearn.utils import _safe_indexing

from skae._utils.inputs import as_numbers

Array = NDArray[Any]


def first_rows(X: Any, n_rows: int) -> Any:
    """The first rows, at most so many, in the container of `X`."""
    n_given = int(np.shape(X)[0]) if not hasattr(X, "shape") else int(X.shape[0])
    return _safe_indexing(X, np.arange(min(n_rows, n_given)))


def drawn_rows(X: Any) -> tuple[Array, list[str] | None]:
    """The numbers of rows, NaN where a value is missing, and the names of their features.

    Of a table these are the columns of numbers; names are None where there are none.
    """
    if sparse.issparse(X):
        return X.toarray().astype(np.float64), None
    frame = nw.from_native(X, eager_only=True, pass_through=True)
    if not isinstance(frame, nw.DataFrame):
        values = np.ma.filled(np.ma.asarray(as_numbers(X, allow_nan=True), np.float64), np.nan)
        return values, None
    names = [
        name for name, dtype in frame.schema.items() if dtype.is_numeric() or dtype == nw.Boolean
    ]
    if not names:
        raise TypeError(
            f"X has no column of numbers to draw; its columns are {', '.join(frame.columns)}."
        )
    return np.asarray(as_numbers(X[names], allow_nan=True), dtype=np.float64), names
