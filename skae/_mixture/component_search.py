"""Find the components of a mixture that are relevant for each row, without trying all of them.

Neighbouring rows form blocks, which are the leaves of a tree, and components are the leaves of
another tree. Both trees are searched together (a dual-tree search). A pair of branches is discarded
if an upper bound on log w_j rho_j over all rows and all components of the branches is too low. The
discarded components are therefore guaranteed to be irrelevant, for components of any size.
"""

from collections.abc import Callable
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

Array = NDArray[Any]
Indices = NDArray[np.intp]

# From points (n_dims, n_points), their places and a number of levels to both in another order.
Halve = Callable[[Array, Indices, int], tuple[Array, Indices]]

# Size of the arrays (rows of a block x candidates) that are computed at a time, chosen so that they
# fit into the cache of a core.
_CHUNK = 2**18

# Widths of rectangles. Blocks are padded to the next width with candidates of weight zero.
_WIDTHS = np.unique(np.ceil(4 * 1.25 ** np.arange(64)).astype(int))


class Tree(NamedTuple):
    """A perfect binary tree over points: node i of a level has children 2i and 2i + 1."""

    members: Indices  # (n_leaves, n_members): the points of each leaf
    filler: NDArray[np.bool_]  # (n_leaves, n_members): True for repeated points
    lo: list[Array]  # lower corners for each level, root first: (2 ** level, n_dims)
    hi: list[Array]

    def upwards(self, of_leaves: Array, combine: np.ufunc) -> list[Array]:
        """Combine numbers of the leaves into one for each node; by level, root first."""
        levels = [of_leaves]
        while len(levels[-1]) > 1:
            levels.append(combine.reduce(levels[-1].reshape(-1, 2), axis=1))
        return levels[::-1]


def build_tree(lo: Array, hi: Array, n_members: int) -> Tree:
    """Build a tree by halving points, or centres of boxes, along their widest side.

    Parameters
    ----------
    lo, hi : ndarray of shape (n_points, n_dims)
        Corners of boxes. They are equal for points.
    n_members : int
        Largest number of members of a leaf.
    """
    return tree_of_halves(lo, hi, n_members, _halve)


def tree_of_halves(lo: Array, hi: Array, n_members: int, halve: Halve) -> Tree:
    """`build_tree`, with the function that halves ranges of points."""
    n, n_dims = lo.shape
    depth = max(0, int(np.ceil(np.log2(n / n_members))))
    per_leaf = -(-n // 2**depth)
    n_places = per_leaf * 2**depth
    # Empty places are filled with points from the whole range, so that every leaf has real points.
    repeated = np.linspace(0, n - 1, n_places - n).astype(np.intp)
    row_of_place = np.concatenate([np.arange(n), repeated])
    place = np.arange(n_places)
    points = np.ascontiguousarray((lo if lo is hi else (lo + hi) / 2).T[:, row_of_place])
    points, place = halve(points, place, depth)
    filler = (place >= n).reshape(-1, per_leaf)
    place = row_of_place[place].reshape(-1, per_leaf)
    if lo is hi:
        cells = points.reshape(n_dims, -1, per_leaf)
        los, his = [cells.min(axis=2).T], [cells.max(axis=2).T]
    else:
        los, his = [lo[place].min(axis=1)], [hi[place].max(axis=1)]
    while len(los[-1]) > 1:
        los.append(los[-1].reshape(-1, 2, n_dims).min(axis=1))
        his.append(his[-1].reshape(-1, 2, n_dims).max(axis=1))
    # In Fortran order, because each axis is read separately.
    los = [np.asfortranarray(values) for values in los[::-1]]
    return Tree(place, filler, los, [np.asfortranarray(values) for values in his[::-1]])


def _halve(points: Array, place: Indices, depth: int) -> tuple[Array, Indices]:
    """Halve points (n_dims, n_points) along their widest sides, `depth` times."""
    n_dims, n_places = points.shape
    along, moved, moved_place = np.empty(n_places), np.empty_like(points), np.empty_like(place)
    for level in range(depth):  # buffers are reused, because new memory takes most of the time
        cells, values = points.reshape(n_dims, 2**level, -1), along.reshape(2**level, -1)
        axis = np.ptp(cells, axis=2).argmax(axis=0)
        values[...] = cells[0]
        for other in range(1, n_dims):
            np.copyto(values, cells[other], where=(axis == other)[:, None])
        size = values.shape[1]
        order = np.argpartition(values, size // 2, axis=1)
        order += np.arange(0, n_places, size)[:, None]
        np.take(points, order.ravel(), axis=1, out=moved, mode="clip")
        np.take(place, order.ravel(), out=moved_place, mode="clip")
        points, moved = moved, points
        place, moved_place = moved_place, place
    return points, place


class Reach(NamedTuple):
    """An upper bound on log w_j rho_j(x): ``peak - d² / (2 spread)``.

    d is the distance of x from the box of the component. For a Gaussian, the box is its mean, and
    the spread is its largest variance. For a cell, the box is the cell, and the spread is 0.
    """

    lo: Array  # (n_components, n_dims)
    hi: Array
    peak: Array  # (n_components,)
    spread: Array


class Pairs(NamedTuple):
    """Pairs of blocks and components, sorted by block and then by component."""

    block: Indices
    component: Indices


def find_pairs(
    blocks: Tree, threshold: Array, reach: Reach, widening: Array | None = None
) -> Pairs:
    """Find all pairs in which the component may exceed the threshold at a point of the block.

    Parameters
    ----------
    blocks : Tree
        Tree of rows or of boxes.
    threshold : ndarray of shape (n_leaves,)
        Threshold of each leaf of `blocks`. -inf finds all components that may be positive.
    reach : Reach
        Upper bounds of the components.
    widening : ndarray of shape (n_leaves,), default=None
        Added to the spreads of all components for the points of each leaf of `blocks`.
    """
    tree = build_tree(reach.lo, reach.hi, 1)
    order = tree.members[:, 0]
    peak = np.where(tree.filler[:, 0], -np.inf, reach.peak[order])
    peaks = tree.upwards(peak, np.maximum)
    spreads = tree.upwards(reach.spread[order], np.maximum)
    thresholds = blocks.upwards(threshold, np.minimum)
    widenings = None if widening is None else blocks.upwards(widening, np.maximum)
    block = component = np.zeros(1, dtype=np.intp)
    halves = np.arange(2)
    level = [0, 0]
    last = [len(blocks.lo) - 1, len(tree.lo) - 1]
    while True:
        spread = spreads[level[1]][component]
        if widenings is not None:
            spread += widenings[level[0]][block]
        above = _bound(blocks, tree, level, block, component, peaks, spread)
        kept = (above >= thresholds[level[0]][block]) & (above > -np.inf)
        block, component = block[kept], component[kept]
        if level == last:
            break
        # The tree with more remaining levels descends, so that both reach their leaves together.
        if last[0] - level[0] >= last[1] - level[1]:
            block = (2 * block[:, None] + halves).ravel()
            component = np.repeat(component, 2)
            level[0] += 1
        else:
            component = (2 * component[:, None] + halves).ravel()
            block = np.repeat(block, 2)
            level[1] += 1
    component = order[component]
    sorting = np.argsort(block * len(reach.peak) + component)
    return Pairs(block[sorting], component[sorting])


def _bound(
    blocks: Tree,
    tree: Tree,
    level: list[int],
    block: Indices,
    component: Indices,
    peaks: list[Array],
    spread: Array,
) -> Array:
    """Upper bound on log w_j rho_j for each pair of branches."""
    at_block, at_component = level
    squared = np.zeros(len(block))
    for axis in range(blocks.lo[0].shape[1]):
        lo, hi = tree.lo[at_component][:, axis], tree.hi[at_component][:, axis]
        gap = lo[component]
        gap -= blocks.hi[at_block][:, axis][block]
        other = blocks.lo[at_block][:, axis][block]
        other -= hi[component]
        np.maximum(gap, other, out=gap)
        np.maximum(gap, 0, out=gap)
        with np.errstate(over="ignore"):  # an infinite distance is correctly out of reach
            gap *= gap
            squared += gap
    with np.errstate(divide="ignore", invalid="ignore"):
        fall = squared / (2 * spread)
    fall[squared == 0] = 0
    return np.subtract(peaks[at_component][component], fall, out=fall)


class Rectangles(NamedTuple):
    """Candidates of blocks with about the same number of candidates."""

    blocks: Indices  # (n_blocks,)
    candidates: Indices  # (n_blocks, width)
    valid: NDArray[np.bool_]  # (n_blocks, width): False for padding
    pairs: Indices  # (n_blocks, width): positions in the list of pairs, where valid


def rectangles(pairs: Pairs, n_blocks: int, n_members: int) -> list[Rectangles]:
    """Arrange pairs in rectangles for matrix products, in pieces that fit into the cache."""
    width = np.bincount(pairs.block, minlength=n_blocks)
    start = np.cumsum(width) - width
    padded = _WIDTHS[np.searchsorted(_WIDTHS, np.minimum(width, _WIDTHS[-1]))]
    padded = np.maximum(padded, width)
    found = []
    for size in np.unique(padded[width > 0]):
        blocks = np.flatnonzero((padded == size) & (width > 0))
        for part in np.array_split(blocks, -(-len(blocks) * size * n_members // _CHUNK)):
            place = np.arange(size)
            valid = place < width[part, None]
            at = start[part, None] + np.minimum(place, width[part, None] - 1)
            found.append(Rectangles(part, pairs.component[at], valid, at))
    return found
