"""Moments of the rows of a Dask collection, from one pass over its blocks.

Each block gives its number of rows, mean and scatter matrix, or, if it has missing values, sums for
each column. They are combined on the workers, so that no rows are gathered.
"""

from abc import ABC, abstractmethod
from dataclasses import dataclass
from functools import reduce
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray
from sklearn.base import clone
from sklearn.utils.validation import validate_data

from skae._dask.alignment import (
    Aligned,
    align,
    check_columns_known,
    combined,
    results_of_blocks,
)
from skae._linear.incomplete_rows import Pairs, Sums, e_step, group_rows, has_nan
from skae._linear.moments import Moments, check_count, moments, rounded_count
from skae._linear.running import merge
from skae._utils.dask_inputs import is_dask_frame
from skae._utils.inputs import unseen_columns
from skae._utils.validation import as_rows, check_weight, remember_columns

Array = NDArray[Any]


class ColumnSums(NamedTuple):
    """Weighted number of rows and of rows with any value; for each column (D,), the weighted number
    of its values, their mean, and the sum of their squared distances from it.
    """

    n: float
    n_seen: float
    counts: Array
    mean: Array
    squares: Array


class Statistics(NamedTuple):
    """Numbers of rows, all of them and those of positive weight, their dtype, and their moments.

    The moments are sums for each column if values are missing, and None without any rows.
    """

    n_rows: int
    n_counted: int
    dtype: Any
    moments: Moments | ColumnSums | None

    @property
    def any_missing(self) -> bool:
        """Whether values are missing."""
        return isinstance(self.moments, ColumnSums)

    @property
    def n(self) -> float:
        """The number of rows, or the sum of their weights, as `count_rows` returns it."""
        return 0 if self.moments is None else rounded_count(self.moments.n)

    def like(self) -> Array:
        """An array with the shape and dtype of the rows of positive weight, which takes no
        memory.
        """
        n_features = len(self.moments.mean) if self.moments is not None else 0
        return np.broadcast_to(np.zeros((1, 1), self.dtype), (self.n_counted, n_features))


def rows_to_learn(estimator: Any, X: Any, sample_weight: Any, *, reset: bool) -> "CheckedBlocks":
    """Check what is known of a collection before it is computed, and learn names of columns."""
    check_known_columns(estimator, X, reset=reset)
    checker = clone(estimator)
    for name in ("n_features_in_", "feature_names_in_"):
        if hasattr(estimator, name):
            setattr(checker, name, getattr(estimator, name))
    return CheckedBlocks(checker, align(X, sample_weight=sample_weight))


def moments_of(estimator: Any, X: Any, sample_weight: Any, *, reset: bool) -> tuple[Array, Moments]:
    """An array like the rows of a collection without missing values, and their moments."""
    blocks = rows_to_learn(estimator, X, sample_weight, reset=reset)
    found = blocks.enough_statistics(estimator, least=1)
    if not isinstance(found.moments, Moments):
        raise ValueError(
            "X is a collection of Dask with missing values, which partial_fit does not accept. "
            "Give its blocks as arrays, or use fit."
        )
    return found.like(), found.moments


def check_known_columns(estimator: Any, X: Any, *, reset: bool) -> None:
    """Check names, number and types of columns without computing rows."""
    check_columns_known(X)
    if reset:
        remember_columns(estimator, X)
    if is_dask_frame(X) and X.ndim == 2:
        as_rows(estimator, X._meta)
        validate_data(estimator, X._meta, reset=reset, skip_check_array=True)
    else:
        estimator._check_rows(np.ones([2, *X.shape[1:]], X.dtype), reset=reset)


@dataclass(frozen=True, eq=False)
class CheckedBlocks:
    """Blocks of rows with their weights, which `checker` validates where they are computed."""

    checker: Any
    given: Aligned

    def statistics(self) -> Statistics:
        """The statistics of all rows, from one pass."""
        return self._reduced(BlockStatistics(self.checker), combined_statistics)

    def enough_statistics(self, estimator: Any, least: int = 2) -> Statistics:
        """The statistics; raises for too few rows, as fits to arrays do."""
        found = self.statistics()
        if found.n_rows < least:
            shape = (found.n_rows, estimator.n_features_in_)
            raise ValueError(
                f"X: Found array with {found.n_rows} sample(s) (shape={shape}) while a minimum of "
                f"{least} is required by {type(estimator).__name__}."
            )
        if found.moments is None and found.n_rows:  # all weights are zero
            check_weight(np.zeros(1), np.zeros((1, 1)))
        if least > 1 or found.moments is None:
            check_count(found.n)
        if isinstance(found.moments, Moments):
            return found._replace(moments=found.moments._replace(n=found.n))
        return found

    def incomplete(self, found: Statistics) -> "IncompleteBlocks":
        """The rows for EM; raises for columns without values."""
        assert isinstance(found.moments, ColumnSums)
        unseen = found.moments.counts == 0
        if unseen.any():
            raise unseen_columns(unseen, getattr(self.checker, "feature_names_in_", None))
        return IncompleteBlocks(self, found.moments)

    def sums(self, model: Any, shift: Array) -> Sums:
        """Sums of the E-step over all rows, from one pass."""
        return self._reduced(BlockSums(self.checker, shift, model), combined_sums)

    def products(self, V: Array, shift: Array) -> Array:
        """The sum over rows of x (x' V), from one pass; x is centred, and zero where missing."""
        return self._reduced(BlockProducts(self.checker, shift, V), combined_products)

    def pairs(self, shift: Array) -> Pairs:
        """Sums over pairs of entries that are observed together, from one pass."""
        return self._reduced(BlockPairs(self.checker, shift), combined_pairs)

    def _reduced(self, function: Any, combine: Any) -> Any:
        from dask.delayed import delayed

        # One constant of the graph, which every block reads.
        task = delayed(function, traverse=False)
        return combined(results_of_blocks(self.given, task), combine)


@dataclass(frozen=True, eq=False)
class BlockStatistics:
    """The statistics of a block."""

    checker: Any

    def __call__(self, rows: Any, sample_weight: Any = None) -> Statistics | None:
        checked = checked_rows(self.checker, rows, sample_weight)
        if checked is None:
            return None
        rows, weight, n_rows = checked
        with np.errstate(over="ignore", invalid="ignore"):  # the totals are checked
            found = statistics_of(rows, weight) if rows.shape[0] else None
        return Statistics(n_rows, rows.shape[0], rows.dtype, found)


@dataclass(frozen=True, eq=False)
class _OfIncomplete(ABC):
    """A function of the rows of a block that have a value, grouped by what they lack."""

    checker: Any
    shift: Array

    def __call__(self, rows: Any, sample_weight: Any = None) -> Any:
        checked = checked_rows(self.checker, rows, sample_weight)
        if checked is None:
            return None
        rows, weight, _ = checked
        some = ~np.isnan(rows).all(axis=1)
        if not some.any():
            return None
        if not some.all():
            rows, weight = rows[some], None if weight is None else weight[some]
        with np.errstate(over="ignore", invalid="ignore"):
            return self.of(group_rows(rows, weight, self.shift))

    @abstractmethod
    def of(self, rows: Any) -> Any:
        """Return the function of these rows."""


@dataclass(frozen=True, eq=False)
class BlockSums(_OfIncomplete):
    """Sums of the E-step under a model."""

    model: Any

    def of(self, rows: Any) -> Sums:
        return e_step(rows, self.model)


@dataclass(frozen=True, eq=False)
class BlockPairs(_OfIncomplete):
    """Sums over pairs of entries."""

    def of(self, rows: Any) -> Pairs:
        found: Pairs = rows.pairs()
        return found


@dataclass(frozen=True, eq=False)
class BlockProducts(_OfIncomplete):
    """The sum of x (x' V)."""

    V: Array

    def of(self, rows: Any) -> Array:
        found: Array = rows.products(self.V)
        return found


def checked_rows(checker: Any, rows: Any, weight: Any) -> tuple[Any, Any | None, int] | None:
    """Rows of positive weight of a block, their weights, and the number of all of its rows.

    None for blocks without rows, which filters leave.
    """
    n_rows = rows.shape[0]
    if not n_rows:
        return None
    rows = checker._check_rows(rows, reset=False)
    if weight is not None and not np.any(weight):  # only weights of all rows must not be zero
        check_weight(np.ones(n_rows), rows)
        return rows[:0], np.zeros(0), n_rows
    weight = check_weight(weight, rows)
    rows, weight, _ = checker._rows_that_count(rows, weight)
    return rows, weight, n_rows


def statistics_of(rows: Any, weight: Array | None) -> Moments | ColumnSums:
    """Moments of rows, or sums for each column if values are missing."""
    if not has_nan(rows):
        return moments(rows, weight)
    seen = ~np.isnan(rows)
    w = np.ones(len(rows)) if weight is None else weight.astype(np.float64)
    counts = w @ seen
    mean = w @ np.where(seen, rows, 0.0) / np.where(counts > 0, counts, 1.0)
    squares = w @ np.where(seen, rows - mean, 0.0) ** 2
    n = len(rows) if weight is None else float(w.sum())
    return ColumnSums(n, float(w @ seen.any(axis=1)), counts, mean, squares)


def combined_statistics(parts: list[Statistics | None]) -> Statistics:
    """Statistics of all rows together."""
    found = [part for part in parts if part is not None]
    if not found:
        return Statistics(0, 0, np.dtype(np.float64), None)
    some = [part.moments for part in found if part.moments is not None]
    if any(isinstance(part, ColumnSums) for part in some):
        total: Any = reduce(merge_columns, map(_of_columns, some))
    else:
        total = reduce(merge, some) if some else None  # type: ignore[arg-type]
    return Statistics(
        sum(part.n_rows for part in found),
        sum(part.n_counted for part in found),
        np.result_type(*(part.dtype for part in found)),
        total,
    )


def _of_columns(stats: Moments | ColumnSums) -> ColumnSums:
    if isinstance(stats, ColumnSums):
        return stats
    n, mean, scatter = stats
    return ColumnSums(n, n, np.full(len(mean), float(n)), mean, np.diagonal(scatter))


def merge_columns(a: ColumnSums, b: ColumnSums) -> ColumnSums:
    """Sums of two sets of rows together, as in `merge`."""
    counts = a.counts + b.counts
    share = b.counts / np.where(counts > 0, counts, 1.0)
    step = b.mean - a.mean
    squares = a.squares + b.squares + a.counts * share * step**2
    return ColumnSums(a.n + b.n, a.n_seen + b.n_seen, counts, a.mean + share * step, squares)


def combined_pairs(parts: list[Pairs | None]) -> Pairs:
    """The sum of sums over pairs."""
    found = [part for part in parts if part is not None]
    return Pairs(*(sum(values[1:], values[0]) for values in zip(*found, strict=True)))


def combined_sums(parts: list[Sums | None]) -> Sums:
    """The sum of sums of the E-step."""
    found = [part for part in parts if part is not None]
    return Sums(*(sum(values[1:], values[0]) for values in zip(*found, strict=True)))


def combined_products(parts: list[Array | None]) -> Array:
    """The sum of products."""
    found = [part for part in parts if part is not None]
    return sum(found[1:], found[0])


@dataclass(frozen=True, eq=False)
class IncompleteBlocks:
    """Rows with missing values in blocks, as `IncompleteRows` has them in memory."""

    blocks: CheckedBlocks
    found: ColumnSums

    @property
    def n(self) -> float:
        return self.found.n_seen

    @property
    def n_features(self) -> int:
        return len(self.found.mean)

    @property
    def shift(self) -> Array:
        return self.found.mean

    @property
    def counts(self) -> Array:
        return self.found.counts

    @property
    def totals(self) -> Array:
        return np.zeros(self.n_features)  # the values are centred at their mean

    @property
    def squares(self) -> Array:
        return self.found.squares

    def sums(self, model: Any) -> Sums:
        return self.blocks.sums(model, self.shift)

    def products(self, V: Array) -> Array:
        return self.blocks.products(V, self.shift)

    def pairs(self) -> Pairs:
        return self.blocks.pairs(self.shift)
