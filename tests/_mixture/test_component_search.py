"""The dual-tree search against all pairs of all blocks and all components."""

import numpy as np
import pytest

from skae._mixture.component_search import (
    Pairs,
    Reach,
    build_tree,
    find_pairs,
    rectangles,
)
from skae._utils.threads import in_threads


def make_points(n, n_dims, how="even", seed=0):
    rng = np.random.default_rng(seed)
    if how == "even":
        return rng.uniform(0, 10, (n, n_dims))
    if how == "equal":
        return np.full((n, n_dims), 3.0)
    if how == "duplicates":
        return rng.integers(0, 3, (n, n_dims)).astype(float)
    scale = 10 ** rng.uniform(-4, 4, (n, 1))  # "wild"
    return scale * rng.normal(size=(n, n_dims))


KINDS = ["even", "equal", "duplicates", "wild"]
every_kind = pytest.mark.parametrize("how", KINDS)
every_dims = pytest.mark.parametrize("n_dims", [1, 2, 3])


# ------------------------------------------------------------------------------ trees


@every_kind
@every_dims
@pytest.mark.parametrize("n", [1, 2, 5, 64, 101])
@pytest.mark.parametrize("n_members", [1, 3, 16])
def test_a_tree_holds_every_point_once(n, n_members, n_dims, how):
    """Beside fillers, in leaves of at most so many; no place is empty."""
    X = make_points(n, n_dims, how)
    tree = build_tree(X, X, n_members)
    np.testing.assert_array_equal(np.sort(tree.members[~tree.filler]), np.arange(n))
    assert tree.members.shape == tree.filler.shape
    assert tree.members.shape[1] <= n_members
    assert ((tree.members >= 0) & (tree.members < n)).all()
    assert tree.filler.sum() < len(tree.members)


@pytest.mark.parametrize("boxes", [False, True])
@every_kind
@every_dims
@pytest.mark.parametrize("n", [1, 5, 101])
def test_boxes_of_a_tree_are_tight(n, n_dims, how, boxes):
    """Those of leaves around their members, all others around their two children."""
    lo = make_points(n, n_dims, how)
    hi = lo + make_points(n, n_dims, seed=1) if boxes else lo
    tree = build_tree(lo, hi, 4)
    np.testing.assert_array_equal(tree.lo[-1], lo[tree.members].min(axis=1))
    np.testing.assert_array_equal(tree.hi[-1], hi[tree.members].max(axis=1))
    assert [len(level) for level in tree.lo] == [2**i for i in range(len(tree.lo))]
    for level in range(len(tree.lo) - 1):
        below = level + 1
        np.testing.assert_array_equal(
            tree.lo[level], np.minimum(tree.lo[below][::2], tree.lo[below][1::2])
        )
        np.testing.assert_array_equal(
            tree.hi[level], np.maximum(tree.hi[below][::2], tree.hi[below][1::2])
        )


@pytest.mark.parametrize("n", [64, 101])
def test_leaves_are_neighbourhoods(n):
    """In one dimension no leaf reaches into another."""
    X = np.random.default_rng(0).uniform(size=(n, 1))
    tree = build_tree(X, X, 8)
    order = np.argsort(tree.lo[-1][:, 0])
    assert (tree.hi[-1][order[:-1], 0] <= tree.lo[-1][order[1:], 0]).all()


def test_nodes_combine_their_leaves():
    X = make_points(100, 2)
    tree = build_tree(X, X, 8)
    of_leaves = np.random.default_rng(0).normal(size=len(tree.members))
    levels = tree.upwards(of_leaves, np.maximum)
    assert len(levels) == len(tree.lo)
    for values in levels:
        np.testing.assert_array_equal(values, of_leaves.reshape(len(values), -1).max(axis=1))


# ------------------------------------------------------------------------------ pairs


def bounds(tree, reach, widening=0.0):
    """peak - d² / (2 spread), from all boxes of leaves to all components."""
    lo, hi = tree.lo[-1][:, None], tree.hi[-1][:, None]
    gap = np.maximum(np.maximum(reach.lo - hi, lo - reach.hi), 0)
    squared = (gap**2).sum(axis=2)
    spread = reach.spread + np.reshape(widening, (-1, 1))
    with np.errstate(divide="ignore", invalid="ignore"):
        return reach.peak - np.where(squared > 0, squared / (2 * spread), 0)


def make_reach(n, n_dims, how, spreads, seed=2):
    """Means like the points; boxes, of spread 0, if that is what is asked for."""
    rng = np.random.default_rng(seed)
    lo = make_points(n, n_dims, how, seed)
    peak = rng.normal(0, 3, n)
    if spreads == "boxes":
        return Reach(lo, lo + rng.exponential(size=(n, n_dims)), peak, np.zeros(n))
    peak[rng.uniform(size=n) < 0.1] = -np.inf  # of weight zero
    spread = np.ones(n) if spreads == "equal" else 10 ** rng.uniform(-8, 6, n)
    return Reach(lo, lo, peak, spread)


@pytest.mark.parametrize("spreads", ["equal", "wild", "boxes"])
@every_kind
@every_dims
@pytest.mark.parametrize(("n_rows", "n_components"), [(300, 70), (300, 1), (1, 70), (1, 1)])
def test_pairs_are_those_of_brute_force(n_rows, n_components, n_dims, how, spreads):
    """All that may exceed the threshold of a block, each once, sorted; no others."""
    rng = np.random.default_rng(0)
    X = make_points(n_rows, n_dims, how)
    tree = build_tree(X, X, 16)
    reach = make_reach(n_components, n_dims, how, spreads)
    threshold = rng.normal(-5, 5, len(tree.members))
    threshold[::3] = -np.inf
    above = bounds(tree, reach)
    block, component = np.nonzero((above >= threshold[:, None]) & (above > -np.inf))
    pairs = find_pairs(tree, threshold, reach)
    np.testing.assert_array_equal(pairs.block, block)
    np.testing.assert_array_equal(pairs.component, component)


@every_kind
@every_dims
def test_blocks_may_widen_components(n_dims, how):
    """The spread is the sum of those of the component and of the block."""
    rng = np.random.default_rng(0)
    tree = build_tree(X := make_points(300, n_dims, how), X, 16)
    reach = make_reach(70, n_dims, how, "wild")
    threshold = rng.normal(-5, 5, len(tree.members))
    widening = 10 ** rng.uniform(-6, 4, len(tree.members))
    above = bounds(tree, reach, widening)
    block, component = np.nonzero((above >= threshold[:, None]) & (above > -np.inf))
    pairs = find_pairs(tree, threshold, reach, widening)
    np.testing.assert_array_equal(pairs.block, block)
    np.testing.assert_array_equal(pairs.component, component)


@every_kind
@every_dims
def test_no_row_misses_a_component_that_exceeds(n_dims, how):
    """Of the rows themselves, not of their boxes."""
    X = make_points(300, n_dims, how)
    tree = build_tree(X, X, 16)
    reach = make_reach(70, n_dims, how, "wild")
    threshold = np.random.default_rng(0).normal(-5, 5, len(tree.members))
    squared = ((X[:, None] - reach.lo) ** 2).sum(axis=2)
    value = (reach.peak - squared / (2 * reach.spread))[tree.members].max(axis=1)
    block, component = np.nonzero(value > threshold[:, None])
    found = np.zeros(value.shape, dtype=bool)
    found[find_pairs(tree, threshold, reach)] = True
    assert len(block)
    assert found[block, component].all()


def test_a_row_within_a_box_meets_it():
    """Boxes of spread 0 are met by what touches them, and by nothing else."""
    X = np.array([[0.5], [1.0], [2.5]])
    tree = build_tree(X, X, 1)
    reach = Reach(np.array([[0.0], [2.0]]), np.array([[1.0], [3.0]]), np.zeros(2), np.zeros(2))
    pairs = find_pairs(tree, np.full(len(tree.members), -np.inf), reach)
    real = ~tree.filler[pairs.block, 0]
    rows = tree.members[pairs.block, 0]
    met = sorted(zip(rows[real].tolist(), pairs.component[real].tolist(), strict=True))
    assert met == [(0, 0), (1, 0), (2, 1)]


# ------------------------------------------------------------------------- rectangles


@pytest.mark.parametrize("n_members", [1, 64, 5000])
@pytest.mark.parametrize("most", [0, 1, 5, 200])
def test_rectangles_hold_every_pair_once(most, n_members):
    """In rows of one block, with its own candidates; blocks without any are left out."""
    rng = np.random.default_rng(0)
    n_blocks = 40
    width = rng.integers(0, most + 1, n_blocks)
    block = np.repeat(np.arange(n_blocks), width)
    component = np.concatenate([np.sort(rng.permutation(300)[:k]) for k in width]).astype(np.intp)
    parts = rectangles(Pairs(block, component), n_blocks, n_members)
    if not most:
        assert not parts
        return
    met = np.concatenate([part.blocks for part in parts])
    np.testing.assert_array_equal(np.sort(met), np.flatnonzero(width))
    for part in parts:
        assert part.valid.shape == part.candidates.shape == part.pairs.shape
        assert len(part.blocks) == len(part.valid)
        at = part.pairs[part.valid]
        np.testing.assert_array_equal(component[at], part.candidates[part.valid])
        np.testing.assert_array_equal(block[at], part.blocks[np.nonzero(part.valid)[0]])
    places = np.concatenate([part.pairs[part.valid] for part in parts])
    np.testing.assert_array_equal(np.sort(places), np.arange(len(block)))


def test_threads_take_over_how_errors_are_treated():
    """What the caller ignores is no warning in a thread, and what it raises is raised there."""

    def work(value):
        return np.array([value]) * 1e300

    for n_jobs in (1, 2):
        with np.errstate(over="ignore"):
            assert np.isinf(list(in_threads(work, [1e300] * 4, n_jobs))).all()
        with np.errstate(over="raise"), pytest.raises(FloatingPointError):
            list(in_threads(work, [1e300] * 4, n_jobs))
