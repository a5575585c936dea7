"""Rows as users give them, as the numbers that are drawn."""

from __future__ import annotations

from typing import Any, NamedTuple

import narwhals.stable.v2 as nw
import numpy as np
from narwhals.exceptions import DuplicateError
from numpy.typing import NDArray
from scipy import sparse
from sklearn.utils import _safe_indexing, check_array

from skae._utils.inputs import as_numbers

Array = NDArray[Any]


class FeatureUnits(NamedTuple):
    """Means and standard deviations that columns are drawn in units of."""

    means: Array
    stds: Array

    def standardised(self, values: Array) -> Array:
        """Values in standard deviations from the mean."""
        standard: Array = (np.asarray(values, dtype=np.float64) - self.means) / self.stds
        return standard

    @classmethod
    def given(cls, means: Any, stds: Any, n_features: int) -> FeatureUnits | None:
        """Units that a display was made with; None where it draws values as they are."""
        if means is None and stds is None:
            return None
        if np.shape(means) != (n_features,) or np.shape(stds) != (n_features,):
            raise ValueError(
                f"feature_means and feature_stds must both have shape ({n_features},), or both be "
                f"None; they have shapes {np.shape(means)} and {np.shape(stds)}."
            )
        units = cls(np.asarray(means, np.float64), np.asarray(stds, np.float64))
        if (units.stds <= 0).any():
            raise ValueError("feature_stds must be positive.")
        return units


def first_rows(X: Any, n_rows: int) -> Any:
    """The first rows, at most so many, in the container of `X`."""
    return rows_at(X, np.arange(min(n_rows, n_rows_of(X))))


def n_rows_of(X: Any) -> int:
    """Number of rows; a ValueError where `X` is not a table."""
    shape = np.shape(X) if not hasattr(X, "shape") else X.shape
    if len(shape) != 2 or not shape[0]:
        raise ValueError(
            f"X has shape {tuple(int(side) for side in shape)}; displays draw rows, of shape "
            "(n_samples, n_features), and at least one."
        )
    return int(shape[0])


def rows_at(X: Any, which: Any) -> Any:
    """Some rows, in the container of `X`."""
    n_rows_of(X)
    return _safe_indexing(X, np.asarray(which))


def drawn_rows(X: Any) -> tuple[Array, list[Any] | None]:
    """The numbers of rows, NaN where a value is missing, and the names of their features.

    The columns of numbers are taken from a data frame. Arrays have no names.
    """
    if sparse.issparse(X):
        return X.toarray().astype(np.float64), None
    try:
        frame = nw.from_native(X, eager_only=True, pass_through=True)
    except DuplicateError:
        as_numbers(X)  # raises the error that estimators raise for such a frame
        raise
    if not isinstance(frame, nw.DataFrame):
        values = np.ma.filled(np.ma.asarray(as_numbers(X, allow_nan=True), np.float64), np.nan)
        return values, None
    types = list(frame.schema.values())
    places = [i for i, kind in enumerate(types) if kind.is_numeric() or kind == nw.Boolean]
    if not places:
        columns = ", ".join(map(str, frame.columns))
        raise TypeError(f"X has no column of numbers to draw; its columns are {columns}.")
    return _numbers_of(frame[:, places]), [frame.columns[i] for i in places]


def _numbers_of(frame: nw.DataFrame[Any]) -> Array:
    """Columns of numbers as an array, in which pandas' NA is NaN."""
    numbers = as_numbers(frame.to_native(), allow_nan=True)
    array: Array = check_array(
        numbers, dtype=np.float64, ensure_all_finite=False, ensure_min_samples=0
    )
    return array


def rows_like(rows: Any, X: Any, names: list[Any] | None) -> Array:
    """The numbers of rows that a model returned, in the columns that are drawn of `X`.

    Models return a data frame or an array for a data frame.
    """
    if names is None:
        return drawn_rows(rows)[0]
    frame = nw.from_native(rows, eager_only=True, pass_through=True)
    columns = list((frame if isinstance(frame, nw.DataFrame) else nw.from_native(X)).columns)
    places = [columns.index(name) for name in names]
    if isinstance(frame, nw.DataFrame):
        return _numbers_of(frame[:, places])
    return drawn_rows(rows)[0][:, places]


def feature_units(rows: Array) -> FeatureUnits | None:
    """Means and standard deviations of columns; None where rows are too few to have some.

    The standard deviation of a constant column counts as 1.
    """
    if len(rows) < 2:
        return None
    seen = ~np.isnan(rows)
    count = np.maximum(seen.sum(axis=0), 1)
    means = np.where(seen, rows, 0.0).sum(axis=0) / count
    squares = np.where(seen, (rows - means) ** 2, 0.0).sum(axis=0) / count
    stds = np.sqrt(squares)
    return FeatureUnits(means, np.where(stds > 0, stds, 1.0))


def as_rows(name: str, values: Any, n_dimensions: int = 2) -> Array:
    """An array that a display was made of, as numbers of so many dimensions."""
    array = drawn_rows(values)[0] if n_dimensions == 2 else np.asarray(values, dtype=np.float64)
    if array.ndim != n_dimensions or not array.size:
        raise ValueError(
            f"{name} has shape {array.shape}; an array of {n_dimensions} dimensions is needed that "
            "is not empty."
        )
    return array
