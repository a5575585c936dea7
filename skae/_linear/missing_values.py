"""A linear-Gaussian latent model of rows with missing values: posteriors and exact EM.

The model is x = W z + mu + e with z ~ N(0, I_k) and e ~ N(0, sigma2 I), seen only at
the entries o of each row. With M = W_o'W_o + sigma2 I and r = x_o - mu_o,

    E[z | x_o] = M^-1 W_o' r,    cov[z | x_o] = sigma2 M^-1,
    -2 log N(x_o) = (|r|^2 - r'W_o M^-1 W_o'r) / sigma2
                    + log |M| + (|o| - k) log sigma2 + |o| log 2 pi.

Rows with the same missing entries share M, so they are grouped; a symmetric matrix per group is
kept as its lower triangle, packed along the first axis, with the groups along the last:
every step is then a matrix product or runs down contiguous memory for all groups at once.

References
----------
M. E. Tipping and C. M. Bishop (1999). Probabilistic principal component analysis.
J. R. Stat. Soc. B 61(3), 611-622. :doi:`10.1111/1467-9868.00196`

C. Liu, D. B. Rubin and Y. N. Wu (1998). Parameter expansion to accelerate EM: the PX-EM
algorithm. Biometrika 85(4), 755-770. :doi:`10.1093/biomet/85.4.755`
"""

from collections.abc import Iterator
from dataclasses import dataclass, replace
from functools import cached_property
from math import log, pi
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray
from scipy import sparse
from sklearn.utils import gen_batches

from skae._linear.em import EMRun, run_em
from skae._linear.packed import invert_packed, multiply_packed, triangle

Array = NDArray[np.float64]

_BLOCK_ROWS = 2048
_BLOCK_BYTES = 2**22


class LinearGaussian(NamedTuple):
    """loadings W (D, k), mean (D,) and noise variance sigma2."""

    loadings: Array
    mean: Array
    noise_variance: float


class Block(NamedTuple):
    """Groups of rows: values (n, D) centred at `shift`, zero where missing; seen (G, D); sizes.

    `seen` is one where a group sees an entry and else zero; `sizes` (G,) are the
    numbers of rows.
    """

    values: Array
    seen: Array
    sizes: NDArray[np.intp]
    shift: Array


@dataclass(frozen=True, eq=False)
class IncompleteRows:
    """Rows by the pattern of their missing entries, read from X a block at a time, in float64.

    Row i of the sorted rows is X[order[i]]; group g holds the rows starts[g] to
    starts[g + 1], and bit d of patterns[g] says whether it sees entry d.
    """

    X: NDArray[Any]
    order: NDArray[np.intp]
    starts: NDArray[np.intp]
    patterns: NDArray[np.uint8]
    shift: Array
    weight: Array | None

    def values(self, block: slice) -> Array:
        """A block of sorted rows (n, D), centred at `shift` and zero where missing."""
        values = self.X[self.order[block]].astype(np.float64)
        values -= self.shift
        # Positive and negative parts take NaN as zero; a mask is four times as slow.
        negative = np.fmin(values, 0.0)
        np.fmax(values, 0.0, out=values)
        values += negative
        return values

    def seen(self, groups: slice) -> Array:
        """One where the groups see an entry, and else zero (G, D)."""
        bits = np.unpackbits(self.patterns[groups], axis=1, count=self.X.shape[1])
        return bits.astype(np.float64)

    def block(self, groups: slice, block: slice) -> Block:
        """What `blocks` gave the slices of."""
        sizes = np.diff(self.starts[groups.start : groups.stop + 1])
        return Block(self.values(block), self.seen(groups), sizes, self.shift)

    @cached_property
    def group_weights(self) -> Array:
        """Weighted number of rows in each group (G,)."""
        if self.weight is None:
            return np.diff(self.starts).astype(np.float64)
        return np.add.reduceat(self.weight, self.starts[:-1])

    @cached_property
    def counts(self) -> Array:
        """Weighted number of rows that see each feature (D,)."""
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

    @cached_property
    def _sums(self) -> Array:
        sums = np.zeros((2, self.X.shape[1]))
        for block in gen_batches(len(self.order), _BLOCK_ROWS):
            values = self.values(block)
            weighted = values if self.weight is None else values * self.weight[block, None]
            sums += weighted.sum(axis=0), np.einsum("ij,ij->j", weighted, values)
        return sums


class Posterior(NamedTuple):
    """E[z] (k, n) and, for each group, packed M^-1 (k(k+1)/2, G) and log |M| (G,)."""

    mean: Array
    inverse: Array
    log_det: Array


class Sums(NamedTuple):
    """What the M-step needs: nats, and sums over rows of E[z z'], E[z], 1 and x E[z]."""

    log_likelihood: float
    per_feature: Array  # (k(k+1)/2 + k + 1, D), over the rows that see the feature
    overall: Array  # (k(k+1)/2 + k + 1,), over all rows
    cross: Array  # (D, k)


def has_nan(X: Any) -> bool:
    """Whether values of dense rows are missing; in sparse ones NaN is an error."""
    values = X.data if sparse.issparse(X) else X
    # The sum is NaN if any value is; only then is it worth looking at each.
    with np.errstate(over="ignore", invalid="ignore"):
        total = values.sum()
    if not np.isnan(total) or not np.isnan(values).any():
        return False
    if sparse.issparse(X):
        raise ValueError("Sparse X contains NaN; missing values need a dense array.")
    return True


def group_rows(
    X: NDArray[Any], sample_weight: Array | None, shift: Array | None = None
) -> IncompleteRows:
    """Sort rows by pattern; `shift` defaults to the mean of what each column shows."""
    blocks = list(gen_batches(len(X), _BLOCK_ROWS))
    packed = np.concatenate([np.packbits(~np.isnan(X[block]), axis=1) for block in blocks])
    packed = np.ascontiguousarray(packed)  # frames hold their columns one after the other
    keys = packed.view(np.dtype((np.void, packed.shape[1]))).ravel()
    _, label = np.unique(keys, return_inverse=True)
    order = np.argsort(label, kind="stable")
    label = label[order]
    weight = None if sample_weight is None else sample_weight[order]
    # A large group is cut, so that blocks of whole groups have bounded size.
    position = np.arange(len(label))
    first = np.r_[True, label[1:] != label[:-1]]
    within = position - np.maximum.accumulate(np.where(first, position, 0))
    starts = np.flatnonzero(within % _BLOCK_ROWS == 0)
    patterns = packed[order[starts]]
    starts = np.r_[starts, len(order)]
    origin = np.zeros(X.shape[1]) if shift is None else shift
    rows = IncompleteRows(X, order, starts, patterns, origin, weight)
    return rows if shift is not None else replace(rows, shift=rows.totals / rows.counts)


def seen_variances(rows: IncompleteRows) -> Array:
    """Variance of what each column shows (D,), with 1/n."""
    return rows.squares / rows.counts


def blocks(rows: IncompleteRows, n_latents: int) -> Iterator[tuple[slice, slice]]:
    """Slices of groups and of their rows, of bounded size."""
    limit = max(64, min(_BLOCK_ROWS, _BLOCK_BYTES // (4 * n_latents * (n_latents + 1))))
    starts = rows.starts
    group = 0
    while group < len(starts) - 1:
        stop = int(np.searchsorted(starts, starts[group] + limit, side="right")) - 1
        stop = max(group + 1, stop)
        yield slice(group, stop), slice(starts[group], starts[stop])
        group = stop


def posterior(block: Block, model: LinearGaussian) -> Posterior:
    """p(z | x_o) of the rows of a block."""
    found = _by_latents(block, model)
    W, _, noise_variance = model
    if noise_variance < 1e-8 * np.max(np.sum(W**2, axis=0)):
        few = block.seen.sum(axis=1) < W.shape[1]
        if few.any():
            _by_entries(block, model, few, found)
    return found


def _by_latents(block: Block, model: LinearGaussian) -> Posterior:
    """Posteriors by way of M, a matrix of latents."""
    W, mean, noise_variance = model
    values, seen, sizes, shift = block
    first, second = triangle(W.shape[1])
    inverse = (W[:, first] * W[:, second]).T @ seen.T
    inverse[first == second] += noise_variance
    log_det = invert_packed(inverse)
    offset = ((mean - shift)[:, None] * W).T @ seen.T
    b = W.T @ values.T - np.repeat(offset, sizes, axis=1)
    return Posterior(multiply_packed(np.repeat(inverse, sizes, axis=1), b), inverse, log_det)


def _by_entries(
    block: Block, model: LinearGaussian, few: NDArray[np.bool_], found: Posterior
) -> None:
    """Rewrite the posteriors of groups that see fewer entries than there are latents.

    W_o'W_o is singular there, so that very little noise leaves M badly conditioned. With
    C = W_o W_o' + sigma2 I instead, E[z] = W_o' C^-1 r, sigma2 M^-1 = I - W_o' C^-1 W_o
    and |M| = |C| sigma2^(k - |o|).
    """
    W, mean, noise_variance = model
    n_latents = W.shape[1]
    seen = block.seen[few]
    n_seen = seen.sum(axis=1)
    most = max(1, int(n_seen.max()))
    entries = np.argsort(-seen, axis=1, kind="stable")[:, :most]
    present = np.arange(most) < n_seen[:, None]
    W_o = W[entries] * present[:, :, None]
    C = W_o @ W_o.transpose(0, 2, 1)
    C[:, np.arange(most), np.arange(most)] += noise_variance
    solved = np.linalg.solve(C, W_o)
    spread = np.eye(n_latents) - W_o.transpose(0, 2, 1) @ solved
    first, second = triangle(n_latents)
    found.inverse[:, few] = spread[:, first, second].T / noise_variance
    padding = most - n_seen  # absent entries stand on the diagonal with the noise alone
    pivots = np.diagonal(np.linalg.cholesky(C), axis1=1, axis2=2)
    found.log_det[few] = 2 * np.log(pivots).sum(axis=1)
    found.log_det[few] += (n_latents - n_seen - padding) * log(noise_variance)
    of_few = np.repeat(few, block.sizes)
    group = np.repeat(np.arange(len(n_seen)), block.sizes[few])
    residual = np.take_along_axis(block.values[of_few], entries[group], axis=1)
    residual = (residual - (mean - block.shift)[entries[group]]) * present[group]
    found.mean[:, of_few] = np.einsum("nok,no->kn", solved[group], residual)


def log_likelihood(block: Block, model: LinearGaussian, found: Posterior) -> Array:
    """Nats of each row of a block, from its residual: nothing cancels."""
    W, mean, noise_variance = model
    seen = np.repeat(block.seen, block.sizes, axis=0)
    residual = block.values - seen * ((mean - block.shift) + found.mean.T @ W.T)
    # |r|^2 - r'W M^-1 W'r = |r - W z|^2 + sigma2 |z|^2 at the posterior mean z.
    distance = np.sum(residual**2, axis=1) / noise_variance + np.sum(found.mean**2, axis=0)
    n_seen = np.sum(seen, axis=1)
    log_det = np.repeat(found.log_det, block.sizes) + (n_seen - W.shape[1]) * log(noise_variance)
    return -0.5 * (distance + log_det + n_seen * log(2 * pi))


def e_step(rows: IncompleteRows, model: LinearGaussian) -> Sums:
    """Expected sums over all rows."""
    W, mean, noise_variance = model
    n_features, n_latents = W.shape
    first, second = triangle(n_latents)
    size = len(first)
    per_feature = np.zeros((size + n_latents + 1, n_features))
    overall = np.zeros(size + n_latents + 1)
    cross = np.zeros((n_features, n_latents))
    log_det = 0.0
    for groups, positions in blocks(rows, n_latents):
        block = rows.block(groups, positions)
        z, inverse, group_log_det = posterior(block, model)
        weight = np.ones(z.shape[1]) if rows.weight is None else rows.weight[positions]
        starts = rows.starts[groups] - rows.starts[groups.start]
        group_weight = np.add.reduceat(weight, starts)
        weighted = z * weight
        sums = np.empty((len(per_feature), len(group_weight)))
        sums[:size] = np.add.reduceat(z[first] * weighted[second], starts, axis=1)
        sums[:size] += inverse * (noise_variance * group_weight)
        sums[size:-1] = np.add.reduceat(weighted, starts, axis=1)
        sums[-1] = group_weight
        per_feature += sums @ block.seen
        overall += sums.sum(axis=1)
        cross += block.values.T @ weighted.T
        log_det += float(group_weight @ group_log_det)
    # The distances of all rows, in the same sums: r'r - z'M z, with M z = W_o' r.
    step = mean - rows.shift
    counts, codes = per_feature[-1], per_feature[size:-1]
    squared = rows.squares.sum() - 2 * step @ rows.totals + counts @ step**2
    explained = np.sum(cross * W) - np.sum(step[:, None] * W * codes.T)
    n_seen = float(counts.sum())
    nats = -0.5 * (
        (squared - explained) / noise_variance
        + log_det
        + (n_seen - n_latents * overall[-1]) * log(noise_variance)
        + n_seen * log(2 * pi)
    )
    return Sums(nats, per_feature, overall, cross)


def m_step(rows: IncompleteRows, sums: Sums, n_latents: int, floor: float) -> LinearGaussian:
    """Regress every feature on (z, 1) over the rows that see it, then reduce (PX-EM).

    The expanded model lets z ~ N(nu, S) and fits nu and S too; it describes the same
    rows as W S^(1/2), mu + W nu with a standard normal z, which is what is returned.
    """
    first, second = triangle(n_latents)
    size = len(first)
    n_features = len(sums.cross)
    design = np.empty((n_features, n_latents + 1, n_latents + 1))
    design[:, first, second] = design[:, second, first] = sums.per_feature[:size].T
    design[:, n_latents, :] = design[:, :, n_latents] = sums.per_feature[size:].T
    target = np.column_stack([sums.cross, rows.totals])
    try:
        solution = np.linalg.solve(design, target[:, :, None])[:, :, 0]
    except np.linalg.LinAlgError:  # a feature that fewer rows show than there are codes
        inverse = np.linalg.pinv(design, hermitian=True)
        solution = np.einsum("dij,dj->di", inverse, target)
    residual = rows.squares.sum() - np.sum(solution * target)
    noise_variance = max(residual / sums.per_feature[-1].sum(), floor)

    W, step = solution[:, :n_latents], solution[:, n_latents]
    average = sums.overall / sums.overall[-1]
    nu = average[size:-1]
    S = np.empty((n_latents, n_latents))
    S[first, second] = S[second, first] = average[:size]
    scales, axes = np.linalg.eigh(S - np.outer(nu, nu))
    root = (axes * np.sqrt(np.maximum(scales, 0.0))) @ axes.T
    return LinearGaussian(W @ root, rows.shift + step + W @ nu, float(noise_variance))


def fit_em(
    rows: IncompleteRows,
    start: LinearGaussian,
    *,
    tol: float,
    max_iter: int,
    floor: float,
    keeps_progress: bool = False,
) -> EMRun:
    """Exact PX-EM; the run's states are models, its log-likelihoods nats of all rows.

    Stops when a step gains less than `tol` nats for each seen entry.
    """
    n_latents = start.loadings.shape[1]

    def step(
        model: LinearGaussian, history: tuple[float, ...]
    ) -> tuple[float, LinearGaussian | None]:
        sums = e_step(rows, model)
        n_seen = float(sums.per_feature[-1].sum())
        gained = sums.log_likelihood - history[-1] if history else np.inf
        if gained < tol * n_seen or model.noise_variance <= floor:
            return sums.log_likelihood, None
        return sums.log_likelihood, m_step(rows, sums, n_latents, floor)

    return run_em(step, start, max_iter, keeps_progress=keeps_progress)


def start_from_pairs(
    rows: IncompleteRows, n_latents: int, rng: np.random.RandomState, floor: float
) -> LinearGaussian:
    """W and sigma2 from the covariance of the pairs of entries that are seen together.

    Entries missing at random see x_d x_e with probability p_d p_e, so that, off the
    diagonal, X'X / (n p p') estimates the covariance; block power iterations find its
    leading axes from products with X alone.
    """
    n_features = rows.X.shape[1]
    n = rows.group_weights.sum()
    frequency = (rows.counts / n)[:, None]
    squares = rows.squares[:, None]
    variance = squares / (n * frequency)
    diagonal = variance - squares / (n * frequency**2)

    def covariance(V: Array) -> Array:
        images = np.zeros_like(V)
        for block in gen_batches(len(rows.order), _BLOCK_ROWS):
            values = rows.values(block)
            products = values @ (V / frequency)
            if rows.weight is not None:
                products *= rows.weight[block, None]
            images += values.T @ products
        return images / (n * frequency) + diagonal * V

    width = min(n_features, n_latents + 10)
    basis = np.linalg.qr(rng.standard_normal((n_features, width)))[0]
    for _ in range(3):
        basis = np.linalg.qr(covariance(basis))[0]
    inside = basis.T @ covariance(basis)
    eigenvalues, rotation = np.linalg.eigh((inside + inside.T) / 2)
    kept = eigenvalues[::-1][:n_latents]
    axes = basis @ rotation[:, ::-1][:, :n_latents]
    total = float(variance.sum())
    rest = (total - float(kept.sum())) / max(n_features - n_latents, 1)
    noise_variance = max(rest, 1e-3 * total / n_features, floor)
    signal = np.maximum(kept - noise_variance, 1e-3 * noise_variance)
    return LinearGaussian(axes * np.sqrt(signal), rows.shift, noise_variance)


def leading_model(larger: LinearGaussian, n_latents: int, floor: float) -> LinearGaussian:
    """The leading axes of a larger model; what they leave out goes to the noise.

    Of complete rows this would be the smaller model of maximum likelihood (Tipping and Bishop
    1999, eqs. 7 and 8); of incomplete ones it is a start for EM.
    """
    W, mean, noise_variance = larger
    axes, lengths, _ = np.linalg.svd(W, full_matrices=False)
    values = lengths**2
    noise = noise_variance + float(values[n_latents:].sum()) / max(len(W) - n_latents, 1)
    noise = max(noise, floor)
    signal = np.maximum(values[:n_latents] + noise_variance - noise, 1e-3 * noise)
    return LinearGaussian(axes[:, :n_latents] * np.sqrt(signal), mean, noise)
