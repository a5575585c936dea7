"""Rows under a mixture of Gaussians: responsibilities, assignments and densities.

In few dimensions, rows form blocks of neighbours, and each block has only the relevant components
as candidates. In many dimensions, neighbourhoods would contain almost all components, so that every
component is a candidate of every row.
"""

from collections.abc import Callable, Iterator
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray
from scipy import sparse
from scipy.spatial import cKDTree

from skae._mixture.component_search import (
    Pairs,
    Rectangles,
    Tree,
    build_tree,
    find_pairs,
    rectangles,
)
from skae._mixture.dense_rows import margin_of_scores
from skae._mixture.gaussians import (
    Gaussians,
    Statistics,
    quadratics,
    reach_of,
    rounding_of,
)
from skae._utils.threads import in_threads

Array = NDArray[Any]
Indices = NDArray[np.intp]

# Largest number of dimensions in which rows form blocks of neighbours.
LOCAL_DIMS = 4

# A component that is this many nats below the best component of a row is ignored in training. The
# third number is used for mixtures of few components (the second number), and ignores only
# components of the size of rounding errors.
_TRAINING_MARGIN, _FEW, _MARGIN_OF_FEW = 7.0, 64, 40.0

# Squared radius of a block, in units of the variance, above which its products are inaccurate.
_CANCELS = 1e4

# Number of components nearest to the centre of a block with which its rows are scored first.
_NEAREST = 4


def training_margin(n_components: int) -> float:
    """Components that are this many nats below the best one of a row are ignored in training."""
    return _MARGIN_OF_FEW if n_components <= _FEW else _TRAINING_MARGIN


def log_sum(value: Array) -> Array:
    """log sum exp over the last axis; overwrites `value`, and is -inf if all parts are -inf."""
    top = value.max(axis=-1, keepdims=True)
    np.subtract(value, np.where(np.isfinite(top), top, 0), out=value)
    np.exp(value, out=value)
    with np.errstate(divide="ignore"):
        return np.log(value.sum(axis=-1)) + top[..., 0]


def rows_of_block(n: int, n_components: int) -> int:
    """Blocks have about half of the rows of a component.

    Larger blocks have more candidates, and smaller blocks have more overhead.
    """
    return int(np.clip(n / (2 * n_components), 32, 64))


class Blocks(NamedTuple):
    """Neighbouring rows form the blocks that are the leaves of a tree."""

    tree: Tree
    centre: Array  # (n_blocks, n_dims)
    weight: Array  # (n_blocks, n_members); 0 for repeated rows


def products(n_dims: int) -> list[tuple[int, int]]:
    """The pairs of axes a <= b."""
    return [(a, b) for a in range(n_dims) for b in range(a, n_dims)]


def blocks_of(tree: Tree, weight: Array | None) -> Blocks:
    """The blocks of the rows of this tree; `weight` has the weights of the rows."""
    centre = (tree.lo[-1] + tree.hi[-1]) / 2
    counted = np.ones(tree.members.shape) if weight is None else weight[tree.members]
    counted[tree.filler] = 0
    return Blocks(tree, centre, counted)


def _features_of(X: Array, blocks: Blocks) -> Array:
    """1, y_a and y_a y_b for a <= b of rows y relative to the centres of their blocks."""
    n_dims, members = X.shape[1], blocks.tree.members
    features = np.empty((*members.shape, 1 + n_dims + len(products(n_dims))))
    features[..., 0] = 1
    for a in range(n_dims):
        np.subtract(X[:, a][members], blocks.centre[:, a, None], out=features[..., 1 + a])
    for place, (a, b) in enumerate(products(n_dims), 1 + n_dims):
        np.multiply(features[..., 1 + a], features[..., 1 + b], out=features[..., place])
    return features


def statistics_of_products(added: Array, gaussians: Gaussians) -> Statistics:
    """Statistics from the sums of r, r y_a and r y_a y_b, a <= b, (n_sums, n_components)."""
    n_components, n_dims = gaussians.means.shape
    second = np.empty((n_components, n_dims, n_dims))
    for (a, b), product in zip(products(n_dims), added[1 + n_dims :], strict=True):
        second[:, a, b] = second[:, b, a] = product
    kept: Array = second
    if gaussians.kind in ("diag", "spherical"):
        kept = np.diagonal(second, axis1=1, axis2=2).copy()
    elif gaussians.kind == "tied":
        kept = second.sum(axis=0)
    return Statistics(added[0], np.ascontiguousarray(added[1 : 1 + n_dims].T), kept)


class LocalRows:
    """Rows of few dimensions in blocks, with candidate components for each block."""

    def __init__(
        self, X: Array, weight: Array | None, n_components: int, n_jobs: int | None
    ) -> None:
        tree = build_tree(X, X, rows_of_block(len(X), n_components))
        self._set_up(X, blocks_of(tree, weight), n_jobs)
        self._features = _features_of(X, self._blocks)  # (n_blocks, n_members, n_features)
        self._radius = (tree.hi[-1] - tree.lo[-1]).max(axis=1) / 2

    def _set_up(self, X: Array, blocks: Blocks, n_jobs: int | None) -> None:
        self._X = X
        self._blocks = blocks
        self._n_jobs = n_jobs
        self._pairs: Pairs | None = None
        self._parts: list[Rectangles] = []
        self._log_extra: Array | None = None  # (n_blocks, n_members)

    def add_density(self, log_extra: Array | None) -> None:
        """Add a density to that of the mixture, as its log at every row; it may be -inf."""
        self._log_extra = None if log_extra is None else log_extra[self._blocks.tree.members]

    # ------------------------------------------------------------------ candidates

    def select_candidates(self, gaussians: Gaussians) -> None:
        """Select the candidates of each block: all components within a margin of the best one.

        In training, the selection is only changed for blocks whose truncated free energy increases,
        so that the total never decreases.
        """
        form = self._form(gaussians)
        margin = training_margin(len(gaussians.weights))
        pairs = self._candidates(gaussians, form, margin)
        now, near = self._values(pairs, form, gaussians, margin)
        pairs = Pairs(pairs.block[near], pairs.component[near])
        if self._pairs is not None:
            before, _ = self._values(self._pairs, form, gaussians, np.inf)
            pairs = _merged(self._pairs, pairs, now >= before)
        self._use(pairs)

    def selected(self) -> Any:
        """The candidates of the blocks, for `restore`."""
        return self._pairs

    def restore(self, pairs: Any) -> None:
        """Restore an earlier selection."""
        self._use(pairs)

    def _use(self, pairs: Pairs) -> None:
        self._pairs = pairs
        self._parts = self._rectangles(pairs)
        n_dims = self._X.shape[1]
        self._sums = np.empty((1 + n_dims + len(products(n_dims)), len(pairs.block)))

    def _form(self, gaussians: Gaussians) -> Any:
        """What the densities of all rows have in common; the first entry is `constant`."""
        return quadratics(gaussians)

    def _rectangles(self, pairs: Pairs) -> list[Rectangles]:
        return rectangles(pairs, *self._blocks.tree.members.shape)

    def _candidates(self, gaussians: Gaussians, form: Any, margin: float) -> Pairs:
        """All pairs in which a component may be within `margin` of the best one for some row."""
        lowest = self._lowest(gaussians, form)
        threshold = lowest - margin - rounding_of(gaussians) * (1 + np.abs(lowest))
        return find_pairs(self._blocks.tree, threshold, reach_of(gaussians, form.constant))

    def _lowest(self, gaussians: Gaussians, form: Any) -> Array:
        """For each block, a lower bound on max_j log w_j rho_j(x) over its rows x."""
        alive = np.flatnonzero(gaussians.weights > 0)
        n_nearest = min(_NEAREST, len(alive))
        n_blocks = len(self._blocks.centre)
        search = cKDTree(gaussians.means[alive])
        nearest = search.query(self._blocks.centre, k=np.arange(1, n_nearest + 1))[1]
        component = np.sort(alive[nearest], axis=1)
        pairs = Pairs(np.repeat(np.arange(n_blocks), n_nearest), component.ravel())
        lowest = np.empty(n_blocks)

        def work(part: Rectangles) -> None:
            lowest[part.blocks] = self._log_joint(part, form, gaussians).max(axis=2).min(axis=1)

        self._for_all(work, self._rectangles(pairs))
        return lowest

    def _values(
        self, pairs: Pairs, form: Any, gaussians: Gaussians, margin: float
    ) -> tuple[Array, NDArray[np.bool_]]:
        """The truncated log-likelihood of each block, and the mask of the pairs that it uses.

        These pairs are within the margin for some row. The bound with which the pairs were found is
        wider.
        """
        values = np.empty(len(self._blocks.centre))
        near = np.empty(len(pairs.block), dtype=bool)

        def work(part: Rectangles) -> None:
            value = self._log_joint(part, form, gaussians)
            best = value.max(axis=2, keepdims=True)
            kept = (value >= best - margin).any(axis=1)
            near[part.pairs[part.valid]] = kept[part.valid]
            np.copyto(value, -np.inf, where=~kept[:, None])
            nats = self._with_extra(log_sum(value), part)
            values[part.blocks] = (self._blocks.weight[part.blocks] * nats).sum(axis=1)

        self._for_all(work, self._rectangles(pairs))
        return values, near

    def _with_extra(self, nats: Array, part: Rectangles) -> Array:
        if self._log_extra is None:
            return nats
        together: Array = np.logaddexp(nats, self._log_extra[part.blocks])
        return together

    def _for_all(self, work: Callable[[Rectangles], Any], parts: list[Rectangles]) -> list[Any]:
        return list(in_threads(work, parts, self._n_jobs))

    def _log_joint(self, part: Rectangles, form: Any, gaussians: Gaussians) -> Array:
        """log w_j rho_j(x), (n_blocks, n_members, n_candidates); -inf for padding."""
        return self._log_joint_and_offsets(part, form, gaussians)[0]

    def _log_joint_and_offsets(
        self, part: Rectangles, form: Any, gaussians: Gaussians
    ) -> tuple[Array, Any]:
        """The same, and the means relative to the centres of the blocks.

        About the centre c of a block, with mu = c + delta, the log of w rho is linear in the
        features: log w rho(c) + (P delta)' y - y' P y / 2 for y = x - c.
        """
        n_dims = gaussians.means.shape[1]
        away = gaussians.means[part.candidates]
        away -= self._blocks.centre[part.blocks][:, None]
        precision = form.precision.reshape(-1, n_dims**2)[part.candidates]
        found = np.empty((*part.candidates.shape, self._features.shape[2]))
        constant = found[..., 0]
        constant[...] = form.constant[part.candidates]
        constant[~part.valid] = -np.inf
        for a in range(n_dims):
            pull = found[..., 1 + a]
            np.multiply(precision[..., n_dims * a], away[..., 0], out=pull)
            for b in range(1, n_dims):
                pull += precision[..., n_dims * a + b] * away[..., b]
            constant -= 0.5 * pull * away[..., a]
        for place, (a, b) in enumerate(products(n_dims), 1 + n_dims):
            half = -0.5 if a == b else -1.0
            np.multiply(precision[..., n_dims * a + b], half, out=found[..., place])
        value = self._features[part.blocks] @ found.swapaxes(1, 2)
        steep = precision[..., :: n_dims + 1].sum(axis=2).max(axis=1)
        for block in np.flatnonzero(steep * self._radius[part.blocks] ** 2 > _CANCELS):
            # The component is much narrower than the block, so that products are inaccurate, and
            # differences are used instead.
            j = part.candidates[block]
            apart = self._X[self._blocks.tree.members[part.blocks[block]]][:, None]
            apart = apart - gaussians.means[j]
            squared = np.einsum("mja,jab,mjb->mj", apart, form.precision[j], apart)
            constants = np.where(part.valid[block], form.constant[j], -np.inf)
            value[block] = constants - squared / 2
        return value, away

    # -------------------------------------------------------------------- training

    def expect(self, gaussians: Gaussians) -> tuple[float, Statistics]:
        """Truncated log-likelihood of all rows, and the statistics of soft responsibilities."""
        form = self._form(gaussians)

        def work(part: Rectangles) -> float:
            value, away = self._log_joint_and_offsets(part, form, gaussians)
            top = value.max(axis=2, keepdims=True)
            extra = None if self._log_extra is None else self._log_extra[part.blocks][..., None]
            if extra is not None:
                top = np.maximum(top, extra)
            value -= top
            np.exp(value, out=value)
            total = value.sum(axis=2, keepdims=True)
            if extra is not None:
                total += np.exp(extra - top)
            weight = self._blocks.weight[part.blocks][..., None]
            nats = (weight * (np.log(total) + top)).sum()
            value *= weight / total
            self._collect(part, value, away)
            return float(nats)

        nats = sum(self._for_all(work, self._parts))
        return nats, self._statistics(gaussians, form)

    def integrate(self, gaussians: Gaussians, log_smallest: float) -> Statistics:
        """Sums of w_j rho_j(x) over weighted rows, the nodes of a quadrature, in place of shares.

        The second and third sums are as in `Statistics`. Densities w_j rho_j(x) whose log is below
        `log_smallest` may be left out.
        """
        form = quadratics(gaussians)
        threshold = np.full(len(self._blocks.centre), log_smallest)
        self._use(find_pairs(self._blocks.tree, threshold, reach_of(gaussians, form.constant)))

        def work(part: Rectangles) -> None:
            value, away = self._log_joint_and_offsets(part, form, gaussians)
            np.exp(value, out=value)
            value *= self._blocks.weight[part.blocks][..., None]
            self._collect(part, value, away)

        self._for_all(work, self._parts)
        return self._statistics(gaussians, form)

    def assign(self, gaussians: Gaussians) -> tuple[float, Statistics, Indices]:
        """Classification log-likelihood, statistics and components of hard assignments."""
        form = self._form(gaussians)
        self._pairs = None
        self._use(self._candidates(gaussians, form, 0.0))
        labels = np.empty(self._blocks.tree.members.shape, dtype=np.intp)

        def work(part: Rectangles) -> float:
            value, away = self._log_joint_and_offsets(part, form, gaussians)
            best = value.argmax(axis=2)[..., None]
            weight = self._blocks.weight[part.blocks]
            nats = (weight * np.take_along_axis(value, best, axis=2)[..., 0]).sum()
            blocks = np.arange(len(best))[:, None]
            labels[part.blocks] = part.candidates[blocks, best[..., 0]]
            value[...] = 0
            np.put_along_axis(value, best, weight[..., None], axis=2)
            self._collect(part, value, away)
            return float(nats)

        nats = sum(self._for_all(work, self._parts))
        return nats, self._statistics(gaussians, form), self._by_row(labels)

    def _collect(self, part: Rectangles, responsibility: Array, away: Any) -> None:
        """The sums of each pair of block and component, about the mean of the component."""
        n_dims = away.shape[2]
        sums = responsibility.swapaxes(1, 2) @ self._features[part.blocks]
        n, first = sums[..., 0], sums[..., 1 : 1 + n_dims]
        for place, (a, b) in enumerate(products(n_dims), 1 + n_dims):
            product = sums[..., place]
            product -= first[..., a] * away[..., b]
            product -= (first[..., b] - n * away[..., b]) * away[..., a]
        first -= n[..., None] * away
        self._sums[:, part.pairs[part.valid]] = sums[part.valid].T

    def _statistics(self, gaussians: Gaussians, form: Any) -> Statistics:
        """The sums of all pairs for each component."""
        assert self._pairs is not None
        n_components = len(gaussians.weights)
        added = [np.bincount(self._pairs.component, values, n_components) for values in self._sums]
        return statistics_of_products(np.stack(added), gaussians)

    # --------------------------------------------------------------------- queries

    def log_density(self, gaussians: Gaussians) -> Array:
        """log sum_j w_j rho_j(x) of every row; omits components below 1e-10 together.

        The density of `add_density` is added to the sum.
        """
        nats = np.empty(self._blocks.tree.members.shape)
        for part, value in self._scored(gaussians):
            nats[part.blocks] = self._with_extra(log_sum(value), part)
        return self._by_row(nats)

    def best(self, gaussians: Gaussians) -> Indices:
        """argmax_j w_j rho_j(x) of every row; the first one of equal maxima."""
        return self.assign(gaussians)[2]

    def responsibilities(self, gaussians: Gaussians) -> sparse.csr_array:
        """w_j rho_j(x) / rho(x); omits components below 1e-10 together, and rows sum to 1."""
        rows, columns, values = [], [], []
        lowest = -margin_of_scores(len(gaussians.weights))
        for part, value in self._scored(gaussians):
            value -= value.max(axis=2, keepdims=True)
            kept = (value > lowest) & ~self._blocks.tree.filler[part.blocks][..., None]
            block, member, candidate = np.nonzero(kept)
            rows.append(self._blocks.tree.members[part.blocks[block], member])
            columns.append(part.candidates[block, candidate])
            values.append(np.exp(value[kept]))
        shape = (len(self._X), len(gaussians.weights))
        entries = (np.concatenate(rows), np.concatenate(columns))
        found = sparse.coo_array((np.concatenate(values), entries), shape=shape).tocsr()
        found.sort_indices()
        found.data /= np.repeat(found.sum(axis=1), np.diff(found.indptr))
        return found

    def _scored(self, gaussians: Gaussians) -> Iterator[tuple[Rectangles, Array]]:
        form = self._form(gaussians)
        margin = margin_of_scores(len(gaussians.weights))
        parts = self._rectangles(self._candidates(gaussians, form, margin))

        def work(part: Rectangles) -> tuple[Rectangles, Array]:
            return part, self._log_joint(part, form, gaussians)

        for some in np.array_split(np.arange(len(parts)), -(-len(parts) // 64)):
            yield from in_threads(work, [parts[i] for i in some], self._n_jobs)

    def _by_row(self, values: Array) -> Array:
        found = np.empty(len(self._X), dtype=values.dtype)
        found[self._blocks.tree.members] = values
        return found


def _merged(before: Pairs, now: Pairs, take: NDArray[np.bool_]) -> Pairs:
    """The new pairs for the blocks in the mask `take`, and the old pairs for the others."""
    old, new = ~take[before.block], take[now.block]
    block = np.concatenate([before.block[old], now.block[new]])
    component = np.concatenate([before.component[old], now.component[new]])
    order = np.argsort(block, kind="stable")
    return Pairs(block[order], component[order])
