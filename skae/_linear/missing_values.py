"""A linear-Gaussian latent model of rows with missing values: posteriors and exact EM.

The model is x = W z + mu + e with z ~ N(0, I_k) and e ~ N(0, sigma2 I). Only the entries o of each
row are observed. With M = W_o'W_o + sigma2 I and r = x_o - mu_o,

    E[z | x_o] = M^-1 W_o' r,    cov[z | x_o] = sigma2 M^-1,
    -2 log N(x_o) = (|r|^2 - r'W_o M^-1 W_o'r) / sigma2
                    + log |M| + (|o| - k) log sigma2 + |o| log 2 pi.

Rows with the same missing entries have the same M and form a group. The symmetric matrices of the
groups are stored as lower triangles, packed along the first axis, with the groups along the last
axis. Every step is then a matrix product or an operation on contiguous memory for all groups.

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
    """Loadings W (D, k), mean (D,) and noise variance sigma2."""

    loadings: Array
    mean: Array
    noise_variance: float


class Block(NamedTuple):
    """Groups of rows.

    `values` (n, D) are centred at `shift`, with zero for missing entries. `seen` (G, D) is one for
    entries that a group observes, and otherwise zero. `sizes` (G,) are the numbers of rows.
    """

    values: Array
    seen: Array
    sizes: NDArray[np.intp]
    shift: Array


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

    def values(self, block: slice) -> Array:
        """A block of sorted rows (n, D), centred at `shift` and zero where missing."""
        values = self.X[self.order[block]].astype(np.float64)
        values -= self.shift
        # fmin and fmax with zero ignore NaN, and are four times as fast as a mask.
        negative = np.fmin(values, 0.0)
        np.fmax(values, 0.0, out=values)
        values += negative
        return values

    def seen(self, groups: slice) -> Array:
        """One for entries that the groups observe, and otherwise zero (G, D)."""
        bits = np.unpackbits(self.patterns[groups], axis=1, count=self.X.shape[1])
        return bits.astype(np.float64)

    def block(self, groups: slice, block: slice) -> Block:
        """The block of two slices from `blocks`."""
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

    def sums(self, model: LinearGaussian) -> "Sums":
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
    """Sums for the M-step: log-likelihood, and sums over rows of E[z z'], E[z], 1 and x E[z]."""

    log_likelihood: float
    per_feature: Array  # (k(k+1)/2 + k + 1, D), over the rows that observe the feature
    overall: Array  # (k(k+1)/2 + k + 1,), over all rows
    cross: Array  # (D, k)


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
    blocks = list(gen_batches(len(X), _BLOCK_ROWS))
    packed = np.concatenate([np.packbits(~np.isnan(X[block]), axis=1) for block in blocks])
    packed = np.ascontiguousarray(packed)  # data frames are in column-major order
    keys = packed.view(np.dtype((np.void, packed.shape[1]))).ravel()
    _, label = np.unique(keys, return_inverse=True)
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
    return rows if shift is not None else replace(rows, shift=rows.totals / rows.counts)


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
    """Posteriors from the k x k matrix M."""
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
    """Overwrite the posteriors of groups that observe fewer entries than there are latents.

    For these groups W_o'W_o is singular, so that M is badly conditioned if the noise is small.
    C = W_o W_o' + sigma2 I is used instead, with E[z] = W_o' C^-1 r,
    sigma2 M^-1 = I - W_o' C^-1 W_o and |M| = |C| sigma2^(k - |o|).
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
    padding = most - n_seen  # for padding, the diagonal of C has only the noise variance
    pivots = np.diagonal(np.linalg.cholesky(C), axis1=1, axis2=2)
    found.log_det[few] = 2 * np.log(pivots).sum(axis=1)
    found.log_det[few] += (n_latents - n_seen - padding) * log(noise_variance)
    of_few = np.repeat(few, block.sizes)
    group = np.repeat(np.arange(len(n_seen)), block.sizes[few])
    residual = np.take_along_axis(block.values[of_few], entries[group], axis=1)
    residual = (residual - (mean - block.shift)[entries[group]]) * present[group]
    found.mean[:, of_few] = np.einsum("nok,no->kn", solved[group], residual)


def log_likelihood(block: Block, model: LinearGaussian, found: Posterior) -> Array:
    """Log-likelihood of each row of a block, from its residual, which avoids cancellation."""
    W, mean, noise_variance = model
    seen = np.repeat(block.seen, block.sizes, axis=0)
    residual = block.values - seen * ((mean - block.shift) + found.mean.T @ W.T)
    # |r|^2 - r'W M^-1 W'r = |r - W z|^2 + sigma2 |z|^2 at the posterior mean z.
    with np.errstate(over="ignore"):  # a density below the range of floats is zero
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


def m_step(rows: Any, sums: Sums, n_latents: int, floor: float) -> LinearGaussian:
    """Regress every feature on (z, 1) over the rows that observe it, and reduce (PX-EM).

    The expanded model has z ~ N(nu, S), and nu and S are also fitted. With a standard normal z, the
    same model has the loadings W S^(1/2) and the mean mu + W nu, which are returned.
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
    except np.linalg.LinAlgError:  # a feature has fewer observed values than there are codes
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
    rows: Any,
    start: LinearGaussian,
    *,
    tol: float,
    max_iter: int,
    floor: float,
    keeps_progress: bool = False,
) -> EMRun:
    """Run exact PX-EM. The states of the run are models; log-likelihoods are sums over all rows.

    `rows` are IncompleteRows, or rows elsewhere with the same sums. EM stops when a step gains less
    than `tol` nats per observed entry.
    """
    n_latents = start.loadings.shape[1]

    def step(
        model: LinearGaussian, history: tuple[float, ...]
    ) -> tuple[float, LinearGaussian | None]:
        sums = rows.sums(model)
        n_seen = float(sums.per_feature[-1].sum())
        gained = sums.log_likelihood - history[-1] if history else np.inf
        if gained < tol * n_seen or model.noise_variance <= floor:
            return sums.log_likelihood, None
        return sums.log_likelihood, m_step(rows, sums, n_latents, floor)

    return run_em(step, start, max_iter, keeps_progress=keeps_progress)


def start_from_pairs(
    rows: Any, n_latents: int, rng: np.random.RandomState, floor: float
) -> LinearGaussian:
    """Initial W and sigma2, from the covariance of pairs of entries that are observed together.

    If entries are missing completely at random, x_d x_e is observed with probability p_d p_e. Off
    the diagonal, X'X / (n p p') then estimates the covariance. Block power iterations compute its
    leading axes from products with X.
    """
    n_features, n = rows.n_features, rows.n
    frequency = (rows.counts / n)[:, None]
    squares = rows.squares[:, None]
    variance = squares / (n * frequency)
    diagonal = variance - squares / (n * frequency**2)

    def covariance(V: Array) -> Array:
        return rows.products(V / frequency) / (n * frequency) + diagonal * V

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
    """A model with the leading axes of a larger model; the rest of the variance becomes noise.

    For complete rows, this is the maximum-likelihood model of the smaller size (Tipping and Bishop
    1999, eqs. 7 and 8). For rows with missing values, it is an initial model for EM.
    """
    W, mean, noise_variance = larger
    axes, lengths, _ = np.linalg.svd(W, full_matrices=False)
    values = lengths**2
    noise = noise_variance + float(values[n_latents:].sum()) / max(len(W) - n_latents, 1)
    noise = max(noise, floor)
    signal = np.maximum(values[:n_latents] + noise_variance - noise, 1e-3 * noise)
    return LinearGaussian(axes[:, :n_latents] * np.sqrt(signal), mean, noise)
