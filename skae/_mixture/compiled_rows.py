"""Many rows of few dimensions under a mixture of Gaussians, by compiled loops."""

from itertools import pairwise
from types import ModuleType
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray
from scipy import sparse

from skae._mixture.compiled import kernels, tree_of_rows
from skae._mixture.component_search import Tree, build_tree
from skae._mixture.dense_rows import DenseRows, margin_of_scores
from skae._mixture.gaussians import Gaussians, Statistics, quadratics, reach_of, rounding_of
from skae._mixture.responsibilities import (
    LOCAL_DIMS,
    LocalRows,
    blocks_of,
    products,
    rows_of_block,
    statistics_of_products,
    training_margin,
)
from skae._utils.threads import in_threads

Array = NDArray[Any]
Indices = NDArray[np.intp]

# Largest number of parts into which blocks are divided for threads, and the smallest number of
# blocks of a part. The parts do not depend on the number of threads, so that the results do not.
_MOST_PARTS, _LEAST_BLOCKS = 32, 256


class Candidates(NamedTuple):
    """The candidates of block b are ``component[start[b]:start[b + 1]]``."""

    start: Indices  # (n_blocks + 1,)
    component: Indices  # (n_pairs,)


_NO_CANDIDATES = Candidates(np.empty(0, dtype=np.intp), np.empty(0, dtype=np.intp))


class CompiledRows(LocalRows):
    """`LocalRows` with loops that are compiled.

    The results are the same up to rounding errors. There are no arrays of all pairs of rows and
    candidates, so that less memory is used.
    """

    def __init__(
        self,
        X: Array,
        weight: Array | None,
        n_components: int,
        n_jobs: int | None,
        loops: ModuleType,
    ) -> None:
        tree = tree_of_rows(X, rows_of_block(len(X), n_components), n_jobs)
        self._set_up(X, blocks_of(_padded(tree), weight), n_jobs)
        tree = self._blocks.tree
        self._loops = loops
        self._axes = (0,) * X.shape[1]
        # (n_blocks, n_dims, n_members)
        self._x = np.stack([X[:, a][tree.members] for a in range(X.shape[1])], axis=1)
        self._lo, self._hi = (np.ascontiguousarray(side[-1]) for side in (tree.lo, tree.hi))
        n_blocks = len(tree.members)
        n_parts = int(np.clip(n_blocks // _LEAST_BLOCKS, 1, _MOST_PARTS))
        edges = [n_blocks * part // n_parts for part in range(n_parts + 1)]
        self._ranges = list(pairwise(edges))
        self._candidates_of_blocks = _NO_CANDIDATES

    def _extra(self) -> Array:
        return np.empty((0, self._x.shape[2])) if self._log_extra is None else self._log_extra

    # ------------------------------------------------------------------ candidates

    def select_candidates(self, gaussians: Gaussians) -> None:
        margin = training_margin(len(gaussians.weights))
        self._candidates_of_blocks = self._search(gaussians, margin, self._candidates_of_blocks)

    def selected(self) -> Any:
        return self._candidates_of_blocks

    def restore(self, pairs: Any) -> None:
        self._candidates_of_blocks = pairs

    def _search(
        self,
        gaussians: Gaussians,
        margin: float,
        before: Candidates = _NO_CANDIDATES,
        log_density: Array | None = None,
        best: Indices | None = None,
    ) -> Candidates:
        """All components within a margin of the best one for some row, and what `search` writes."""
        densities = _densities(gaussians)
        reach = reach_of(gaussians, densities[1])
        tree = build_tree(reach.lo, reach.hi, 1)
        leaves = tree.members[:, 0]
        peak = np.where(tree.filler[:, 0], -np.inf, reach.peak[leaves])
        nodes = (
            np.concatenate(tree.lo),
            np.concatenate(tree.hi),
            np.concatenate(tree.upwards(peak, np.maximum)),
            0.5 / np.concatenate(tree.upwards(reach.spread[leaves], np.maximum)),
        )
        rounding, extra = rounding_of(gaussians), self._extra()
        log_density = np.empty((0, 0)) if log_density is None else log_density
        best = np.empty((0, 0), dtype=np.intp) if best is None else best

        def work(blocks: tuple[int, int]) -> Any:
            return self._loops.search(
                self._axes,
                blocks,
                self._x,
                self._blocks.weight,
                extra,
                self._lo,
                self._hi,
                nodes,
                leaves,
                *densities,
                margin,
                rounding,
                (before.start, before.component),
                log_density,
                best,
            )

        counts, component = zip(*in_threads(work, self._ranges, self._n_jobs), strict=True)
        start = np.concatenate([[0], np.cumsum(np.concatenate(counts))])
        return Candidates(start, np.concatenate(component))

    # -------------------------------------------------------------------- training

    def expect(self, gaussians: Gaussians) -> tuple[float, Statistics]:
        densities = _densities(gaussians)
        n_dims = self._X.shape[1]
        added = np.zeros((len(gaussians.weights), 1 + n_dims + len(products(n_dims))))
        extra = self._extra()

        def work(blocks: tuple[int, int]) -> Any:
            return self._loops.expect(
                self._axes,
                blocks,
                self._x,
                self._blocks.weight,
                extra,
                *self._candidates_of_blocks,
                *densities,
            )

        total = 0.0
        for nats, known, sums in in_threads(work, self._ranges, self._n_jobs):
            total += nats
            added[known] += sums
        return total, statistics_of_products(added.T, gaussians)

    def assign(self, gaussians: Gaussians) -> tuple[float, Statistics, Indices]:
        labels = np.empty(self._blocks.weight.shape, dtype=np.intp)
        self._candidates_of_blocks = self._search(gaussians, 0.0, best=labels)
        form = quadratics(gaussians)
        weight, j = self._blocks.weight.ravel(), labels.ravel()
        away = [
            self._x[:, a].ravel() - gaussians.means[j, a] for a in range(gaussians.means.shape[1])
        ]
        n_components = len(gaussians.weights)
        sums = [np.bincount(j, weight, n_components)]
        sums += [np.bincount(j, weight * y, n_components) for y in away]
        nats = form.constant[j]
        for a, b in products(len(away)):
            product = away[a] * away[b]
            nats -= (0.5 if a == b else 1.0) * form.precision[j, a, b] * product
            sums.append(np.bincount(j, weight * product, n_components))
        stats = statistics_of_products(np.stack(sums), gaussians)
        return float(weight @ nats), stats, self._by_row(labels)

    # --------------------------------------------------------------------- queries

    def log_density(self, gaussians: Gaussians) -> Array:
        nats = np.empty(self._blocks.weight.shape)
        self._search(gaussians, margin_of_scores(len(gaussians.weights)), log_density=nats)
        return self._by_row(nats)

    def responsibilities(self, gaussians: Gaussians) -> sparse.csr_array:
        rows = LocalRows(self._X, None, len(gaussians.weights), self._n_jobs)
        return rows.responsibilities(gaussians)


def _densities(gaussians: Gaussians) -> tuple[Array, Array, Array]:
    """Means and `quadratics`, in the layout for which the loops are compiled."""
    constant, precision = quadratics(gaussians)
    return (
        np.ascontiguousarray(gaussians.means),
        np.ascontiguousarray(constant),
        np.ascontiguousarray(precision),
    )


def _padded(tree: Tree) -> Tree:
    """The tree with a multiple of four members in each leaf, the length of vector instructions."""
    n_more = -tree.members.shape[1] % 4
    more = np.repeat(tree.members[:, :1], n_more, axis=1)
    filler = np.concatenate([tree.filler, np.ones_like(more, dtype=bool)], axis=1)
    return tree._replace(members=np.concatenate([tree.members, more], axis=1), filler=filler)


def rows_under_mixture(
    X: Array, weight: Array | None, n_components: int, n_jobs: int | None
) -> LocalRows | DenseRows:
    """`LocalRows` or `DenseRows`, depending on the number of dimensions."""
    if X.shape[1] > LOCAL_DIMS:
        return DenseRows(X, weight)
    loops = kernels(len(X), "kernels")
    if loops is not None:
        return CompiledRows(X, weight, n_components, n_jobs, loops)
    return LocalRows(X, weight, n_components, n_jobs)
