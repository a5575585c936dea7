"""Rows with missing values, grouped by what they lack, and expected sums over them for EM."""

from collections.abc import Iterator
from dataclasses import dataclass, replace
from functools import cached_property
from math import log, pi
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray
from scipy import sparse
from sklearn.utils import gen_batches

from skae._linear.compiled import inverter, kernels
from skae._linear.linear_gaussian import (
    Block,
    LinearGaussian,
    entry_terms,
    expected_offset,
    expected_precision,
    posterior,
)
from skae._linear.packed import triangle

Array = NDArray[np.float64]

_BLOCK_ROWS = 2048
_BLOCK_BYTES = 2**22
# Sums are in float32 for at least so many rows of float32, and if the sum over features of
# |w_d|^2 / psi_d is at most this number.
_MANY_ROWS, _MOST_PRECISION = 10_000, 5e3


class Sums(NamedTuple):
    """Sums for the M-step: log-likelihood, and sums over rows of E[z z'], E[z], 1 and x E[z]."""

    log_likelihood: float
    per_feature: Array  # (k(k+1)/2 + k + 1, D), over the rows that observe the feature
    overall: Array  # (k(k+1)/2 + k + 1,), over all rows
    cross: Array  # (D, k)


class Pairs(NamedTuple):
    """For each pair of features, the weighted sum of x_d x_e over the rows that observe both, and
    the weighted number of these rows; both (D, D).
    """

    products: Array
    counts: Array


@dataclass(frozen=True, eq=False)
class IncompleteRows:
    """Rows sorted by the pattern of their missing entries, read from X in blocks of float64.

    Row i of the sorted rows is X[order[i]]. Group g has the rows starts[g] to starts[g + 1] - 1,
    and bit d of patterns[g] says whether the group observes entry d.
    """

    X: NDArray[Any]
    order: NDArray[np.intp]
    starts: NDArray[np.intp]
    patterns: NDArray[np.uint8]
    shift: Array
    weight: Array | None

    def values(self, block: slice, dtype: Any = np.float64) -> NDArray[Any]:
        """A block of sorted rows (n, D), centred at `shift` and zero where missing."""
        loops = kernels("centre", self.X.size) if self.X.dtype.isnative else None
        if loops is not None:
            index = self.order[block]
            values = np.empty((len(index), self.X.shape[1]), dtype=dtype)
            loops.centre(self.X, index, self.shift.astype(dtype), values)
            return values
        values = self.X[self.order[block]].astype(dtype, copy=False)
        # A mask of bits, all of them zero for NaN, is four times as fast as a mask of entries.
        integers = np.dtype(f"i{values.itemsize}")
        bits = (np.isnan(values).view(np.int8) - np.int8(1)).astype(integers)
        values -= self.shift.astype(dtype)
        values.view(integers)[:] &= bits
        return values

    def seen(self, groups: slice, dtype: Any = np.float64) -> NDArray[Any]:
        """One for entries that the groups observe, and otherwise zero (G, D)."""
        bits = np.unpackbits(self.patterns[groups], axis=1, count=self.X.shape[1])
        return bits.astype(dtype)

    def block(self, groups: slice, block: slice, dtype: Any = np.float64) -> Block:
        """The block of two slices from `blocks`."""
        sizes = np.diff(self.starts[groups.start : groups.stop + 1])
        return Block(self.values(block, dtype), self.seen(groups, dtype), sizes, self.shift)

    @cached_property
    def dtype(self) -> Any:
        """The dtype in which values can be centred without a systematic error, and summed in
        blocks: float32 for many rows of float32. Rounding errors of few rows would not cancel.
        """
        exact = np.array_equal(self.shift, self.shift.astype(np.float32))
        many = len(self.order) >= _MANY_ROWS
        return np.float32 if self.X.dtype == np.float32 and exact and many else np.float64

    @cached_property
    def group_weights(self) -> Array:
        """Weighted number of rows in each group (G,)."""
        if self.weight is None:
            return np.diff(self.starts).astype(np.float64)
        return np.add.reduceat(self.weight, self.starts[:-1])

    @cached_property
    def counts(self) -> Array:
        """Weighted number of rows that observe each feature (D,)."""
        groups = gen_batches(len(self.patterns), _BLOCK_ROWS)
        return np.sum([self.group_weights[g] @ self.seen(g) for g in groups], axis=0)

    @cached_property
    def totals(self) -> Array:
        """Weighted column sums of the values (D,)."""
        return self._sums[0]

    @cached_property
    def squares(self) -> Array:
        """Weighted sums of the squared values (D,)."""
        return self._sums[1]

    @property
    def n(self) -> float:
        """Weighted number of rows."""
        return float(self.group_weights.sum())

    @property
    def n_features(self) -> int:
        """Number of columns."""
        return int(self.X.shape[1])

    def sums(self, model: LinearGaussian) -> Sums:
        """Sums of the E-step."""
        return e_step(self, model)

    def products(self, V: Array) -> Array:
        """The weighted sum over rows of x (x' V), (D, k)."""
        found = np.zeros(V.shape)
        for block in gen_batches(len(self.order), _BLOCK_ROWS):
            values = self.values(block)
            products = values @ V
            if self.weight is not None:
                products *= self.weight[block, None]
            found += values.T @ products
        return found

    def pairs(self) -> Pairs:
        """Sums over pairs of entries that are observed together."""
        products, counts = np.zeros((2, self.n_features, self.n_features))
        for groups, positions in blocks(self, 1):
            values, seen = self.values(positions, self.dtype), self.seen(groups, self.dtype)
            weighted = values
            if self.weight is not None:
                weighted = values * self.weight[positions, None].astype(self.dtype)
            products += values.T @ weighted
            weights = self.group_weights[groups, None].astype(self.dtype)
            counts += seen.T @ (seen * weights)
        return Pairs(products, counts)

    @cached_property
    def _sums(self) -> Array:
        sums = np.zeros((2, self.X.shape[1]))
        for block in gen_batches(len(self.order), _BLOCK_ROWS):
            values = self.values(block)
            weighted = values if self.weight is None else values * self.weight[block, None]
            sums += weighted.sum(axis=0), np.einsum("ij,ij->j", weighted, values)
        return sums


def has_nan(X: Any) -> bool:
    """Whether dense rows have missing values; raises if sparse rows have NaN."""
    values = X.data if sparse.issparse(X) else X
    # The sum is NaN if any value is NaN. Only then the values are searched.
    with np.errstate(over="ignore", invalid="ignore"):
        total = values.sum()
    if not np.isnan(total) or not np.isnan(values).any():
        return False
    if sparse.issparse(X):
        raise ValueError("Sparse X contains NaN. Missing values are only allowed in dense arrays.")
    return True


def group_rows(
    X: NDArray[Any], sample_weight: Array | None, shift: Array | None = None
) -> IncompleteRows:
    """Sort rows by pattern; `shift` defaults to the mean of the observed values of each column."""
    parts = gen_batches(len(X), _BLOCK_ROWS)
    packed = np.concatenate([np.packbits(~np.isnan(X[part]), axis=1) for part in parts])
    packed = np.ascontiguousarray(packed)  # data frames are in column-major order
    label = _labels(packed)
    order = np.argsort(label, kind="stable")
    label = label[order]
    weight = None if sample_weight is None else sample_weight[order]
    # Large groups are divided, so that blocks of whole groups have bounded size.
    position = np.arange(len(label))
    first = np.r_[True, label[1:] != label[:-1]]
    within = position - np.maximum.accumulate(np.where(first, position, 0))
    starts = np.flatnonzero(within % _BLOCK_ROWS == 0)
    patterns = packed[order[starts]]
    starts = np.r_[starts, len(order)]
    origin = np.zeros(X.shape[1]) if shift is None else shift
    rows = IncompleteRows(X, order, starts, patterns, origin, weight)
    if shift is not None:
        return rows
    # In the precision of X, so that values can be centred in that precision.
    mean = (rows.totals / rows.counts).astype(X.dtype)
    return replace(rows, shift=mean.astype(np.float64))


def _labels(patterns: NDArray[np.uint8]) -> NDArray[np.intp]:
    """Equal numbers for rows with equal patterns (n,).

    Patterns of several rows come first, then those of one row, both in the order in which they
    first appear. Blocks of patterns of one row need no sums over groups, and read neighbours.
    """
    n, width = patterns.shape
    words = np.zeros((n, -(-width // 8) * 8), dtype=np.uint8)
    words[:, :width] = patterns
    order = np.argsort(_hashes(words.view(np.uint64)), kind="stable")
    ordered = words.view(np.uint64)[order]
    changes = np.r_[True, (ordered[1:] != ordered[:-1]).any(axis=1)]
    hashes = _hashes(ordered)
    if np.count_nonzero(changes) > 1 + np.count_nonzero(hashes[1:] != hashes[:-1]):
        # Different patterns have equal hashes.
        keys = patterns.view(np.dtype((np.void, width))).ravel()
        first, label = np.unique(keys, return_index=True, return_inverse=True)[1:]
    else:
        first = order[changes]  # the smallest index of its group, because the sort is stable
        label = np.empty(n, dtype=np.intp)
        label[order] = np.cumsum(changes) - 1
    rank = np.empty(len(first), dtype=np.intp)
    is_alone = np.bincount(label) == 1
    rank[np.lexsort((first, is_alone))] = np.arange(len(first))
    return rank[label]


def _hashes(words: NDArray[np.uint64]) -> NDArray[np.uint64]:
    """A hash of each row of words (n,)."""
    found = np.zeros(len(words), dtype=np.uint64)
    for column in words.T:
        found ^= column
        found *= np.uint64(0x9E3779B97F4A7C15)
        found ^= found >> np.uint64(29)
    return found


def seen_variances(rows: Any) -> Array:
    """Variance of the observed values of each column (D,), with 1/n."""
    return rows.squares / rows.counts


def blocks(rows: IncompleteRows, n_latents: int) -> Iterator[tuple[slice, slice]]:
    """Pairs of slices, of groups and of their rows, of bounded size."""
    limit = max(64, min(_BLOCK_ROWS, _BLOCK_BYTES // (4 * n_latents * (n_latents + 1))))
    starts = rows.starts
    group = 0
    while group < len(starts) - 1:
        stop = int(np.searchsorted(starts, starts[group] + limit, side="right")) - 1
        stop = max(group + 1, stop)
        yield slice(group, stop), slice(starts[group], starts[stop])
        group = stop


def e_step(rows: IncompleteRows, model: LinearGaussian) -> Sums:
    """Expected sums over all rows."""
    n_features, n_latents = model.loadings.shape
    size = len(triangle(n_latents)[0])
    per_feature = np.zeros((size + n_latents + 1, n_features))
    overall = np.zeros(size + n_latents + 1)
    cross = np.zeros((n_features, n_latents))
    log_det = 0.0
    dtype = _dtype_of(rows, model)
    terms = entry_terms(model, rows.shift, dtype)
    invert = inverter(n_latents, len(rows.patterns))
    for groups, positions in blocks(rows, n_latents):
        block = rows.block(groups, positions, dtype)
        z, covariance, group_log_det = posterior(block, model, terms, invert)
        weight = None if rows.weight is None else rows.weight[positions].astype(dtype)
        starts = rows.starts[groups] - rows.starts[groups.start]
        sums = _sums_of_groups(z, covariance, weight, starts)
        per_feature += sums @ block.seen
        overall += sums.sum(axis=1)
        cross += block.values.T @ (z if weight is None else z * weight).T
        log_det += float(sums[-1] @ group_log_det)
    nats = expected_log_likelihood(rows, model, per_feature, cross, log_det)
    if dtype == np.float32:
        nats += _without_errors_of_codes(rows, model, per_feature, overall, cross)
    return Sums(nats, per_feature, overall, cross)


def _without_errors_of_codes(
    rows: IncompleteRows, model: LinearGaussian, per_feature: Array, overall: Array, cross: Array
) -> float:
    """What is added to a log-likelihood whose codes have rounding errors.

    It is half the sum of z' W' Psi^-1 r - z' M z, which is zero for exact codes. The log-likelihood
    then is the bound for the codes z, whose maximum is at the exact codes, so that their errors
    only have an effect of second order. The sum of z' M z is that of E[z' M z] minus k for each
    row.
    """
    n_latents = cross.shape[1]
    first, second = triangle(n_latents)
    is_diagonal = first == second
    moments = per_feature[: len(first)].T * np.where(is_diagonal, 1.0, 2.0)
    quadratic = np.sum(moments * expected_precision(model))
    quadratic += overall[: len(first)][is_diagonal].sum() - n_latents * overall[-1]
    return 0.5 * float(_explained(rows, model, per_feature, cross) - quadratic)


def _explained(rows: Any, model: LinearGaussian, per_feature: Array, cross: Array) -> float:
    """The sum over rows of E[z]' W' Psi^-1 r."""
    W, mean, psi, _ = model
    n_latents = W.shape[1]
    codes = per_feature[-1 - n_latents : -1]
    offset = expected_offset(model, mean - rows.shift)
    return float(np.sum(cross * W / psi[:, None]) - np.sum(offset * codes.T))


def _dtype_of(rows: IncompleteRows, model: LinearGaussian) -> Any:
    """The dtype of the E-step. It is float64 if M may be badly conditioned.

    The condition number of M is at most 1 plus the trace of W' Psi^-1 W.
    """
    precision = np.sum(model.loadings**2 / model.noise_variance[:, None])
    return rows.dtype if precision < _MOST_PRECISION else np.float64


def _sums_of_groups(
    z: NDArray[Any],
    covariance: NDArray[Any],
    weight: NDArray[Any] | None,
    starts: NDArray[np.intp],
) -> NDArray[Any]:
    """Weighted sums of E[z z'], E[z] and 1 over the rows of each group (k(k+1)/2 + k + 1, G)."""
    n_latents, n_rows = z.shape
    size = len(covariance)
    sums = np.empty((size + n_latents + 1, n_rows), dtype=z.dtype)
    weighted = z if weight is None else z * weight
    for i in range(n_latents):
        row = sums[i * (i + 1) // 2 : (i + 1) * (i + 2) // 2]
        np.multiply(z[: i + 1], weighted[i], out=row)
    sums[size:-1] = weighted
    sums[-1] = 1.0 if weight is None else weight
    if len(starts) < n_rows:
        sums = np.add.reduceat(sums, starts, axis=1)
    sums[:size] += covariance if weight is None and len(starts) == n_rows else covariance * sums[-1]
    return sums


def expected_log_likelihood(
    rows: Any, model: LinearGaussian, per_feature: Array, cross: Array, log_det: float
) -> float:
    """The log-likelihood of all rows, or for uncertain loadings its bound given their posterior.

    It follows from the sums of the E-step: r' Psi^-1 r - E[z]' M E[z], with M E[z] = W' Psi^-1 r.
    The bound is the mean of log p(x, z | W, mu) over q, plus the entropy of q(z). `log_det` is the
    weighted sum of log |M| over rows.
    """
    _, mean, psi, uncertainty = model
    step = mean - rows.shift
    counts = per_feature[-1]
    squared = np.sum((rows.squares - 2 * step * rows.totals + counts * step**2) / psi)
    if uncertainty is not None:
        squared += np.sum(np.broadcast_to(counts * uncertainty.spread[:, -1, -1], psi.shape))
    explained = _explained(rows, model, per_feature, cross)
    nats = squared - explained + log_det + np.sum(counts * (np.log(psi) + log(2 * pi)))
    return -0.5 * float(nats)
