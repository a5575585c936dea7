"""Sums of rows and columns of counts, also of sparse rows, of which only stored values are read."""

from collections.abc import Iterator
from typing import Any, NamedTuple

import numpy as np
import torch
from numpy.typing import NDArray

from skae._training.data import Spread, chunks
from skae._training.sources import source_of
from skae._utils.sparse_rows import Rows, SparseRows, dense

Array = NDArray[Any]

# Number of stored values that are read at once.
_AT_ONCE = 2**22


class CountSums(NamedTuple):
    """Means and ranges of columns, without variances, and the sum of each row's observed values."""

    spread: Spread
    row_sums: Array


class _Part(NamedTuple):
    """Some rows: their slice, and sums over them."""

    rows: slice
    row_sums: Array
    sums: Array  # weighted sums of columns
    missing: Array  # weighted numbers of missing values of columns


def count_sums(X: Rows, weight: Array | None) -> CountSums:
    """Return sums of rows and columns."""
    n_rows, n_columns = X.shape
    w = np.ones(n_rows) if weight is None else np.asarray(weight, dtype=np.float64)
    row_sums, sums, missing = np.empty(n_rows), np.zeros(n_columns), np.zeros(n_columns)
    low, high = np.full(n_columns, np.inf), np.full(n_columns, -np.inf)
    for part in _of_sparse(X, w) if isinstance(X, SparseRows) else _of_array(X, w, low, high):
        row_sums[part.rows] = part.row_sums
        sums += part.sums
        missing += part.missing
    if isinstance(X, SparseRows):
        low, high = X.range_of_columns()
    count = w.sum() - missing
    unseen = ~np.isfinite(low)
    mean = sums / np.where(unseen, 1.0, count)
    found = [torch.from_numpy(np.where(unseen, 0.0, a)) for a in (mean, 0 * mean, low, high)]
    return CountSums(Spread(found[0], found[1], found[2], found[3], bool(missing.any())), row_sums)


def row_totals(X: Rows, sums: CountSums, share: Array) -> Array:
    """Return totals of rows: the sum of observed values, divided by their share in the mean row."""
    if not sums.spread.any_missing:
        return sums.row_sums
    lost = np.zeros(len(X))
    if isinstance(X, SparseRows):
        for rows, values, columns, row in _stored(X):
            lost[rows] = np.bincount(
                row, share[columns] * np.isnan(values), minlength=rows.stop - rows.start
            )
    else:
        for rows in chunks(len(X), 8 * X.shape[1]):
            lost[rows] = np.isnan(dense(X[rows])) @ share
    return sums.row_sums / np.maximum(1 - lost, 1e-6)


def _of_array(X: Array, w: Array, low: Any, high: Any) -> Iterator[_Part]:
    """Yield parts of an array; minima and maxima are written to `low` and `high`."""
    source = source_of(X)
    for rows in chunks(len(source), X.shape[1] * 8, cached=True):
        x = source[rows].double().numpy()
        missing = np.isnan(x)
        lost: Array = np.zeros(x.shape[1])
        np.minimum(low, np.fmin.reduce(x, axis=0), out=low, where=~missing.all(axis=0))
        np.maximum(high, np.fmax.reduce(x, axis=0), out=high, where=~missing.all(axis=0))
        if missing.any():
            lost, x = w[rows] @ missing, np.where(missing, 0.0, x)
        yield _Part(rows, x.sum(axis=1), w[rows] @ x, lost)


def _of_sparse(X: SparseRows, w: Array) -> Iterator[_Part]:
    """Yield parts of sparse rows."""
    n_columns = X.shape[1]
    for rows, values, columns, row in _stored(X):
        missing = np.isnan(values)
        lost: Array = np.zeros(n_columns)
        weight = w[rows][row]
        if missing.any():
            lost = np.bincount(columns, weight * missing, minlength=n_columns)
            values = np.where(missing, 0.0, values)
        row_sums = np.bincount(row, values, minlength=rows.stop - rows.start)
        yield _Part(rows, row_sums, np.bincount(columns, weight * values, n_columns), lost)


def _stored(X: SparseRows) -> Iterator[tuple[slice, Any, Any, Any]]:
    """Yield slices of rows with their stored values, columns, and rows within the slice."""
    starts = X.starts
    begin = 0
    while begin < len(X):
        end = int(np.searchsorted(starts, starts[begin] + _AT_ONCE, side="right")) - 1
        end = min(max(end, begin + 1), len(X))
        some = slice(int(starts[begin]), int(starts[end]))
        row = np.repeat(np.arange(end - begin), np.diff(starts[begin : end + 1]))
        yield slice(begin, end), X.values[some].astype(np.float64), X.columns[some], row
        begin = end
