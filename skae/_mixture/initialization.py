"""Initialise a mixture of Gaussians from the means and variances of cells of rows."""

from math import prod
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray
from scipy.spatial import cKDTree
from sklearn.metrics import pairwise_distances_argmin

from skae._mixture.compiled import kernels
from skae._mixture.gaussians import Gaussians, Kind, Prior, floored
from skae._mixture.responsibilities import LOCAL_DIMS

Array = NDArray[Any]
Indices = NDArray[np.intp]

# Factor of the initial and prior variances, relative to the variance of the rows in a cell. With
# eight, the standard deviation is 0.82 times the side of a uniform cell, and neighbouring
# components add up to a smooth density. A few large cells are widened less, because components that
# all cover the whole domain do not separate in training.
_SPREAD = 8.0

# Fraction by which the correlations of all rows are shrunken towards 0, for small numbers of rows.
_SHRINKAGE = 0.1

# Weight of the expected variance of a cell, as a number of rows.
_EXPECTED_ROWS = 2.0


class Start(NamedTuple):
    """Mass, mean and variances of a cell for every component."""

    mass: Array  # (n_components,)
    means: Array  # (n_components, n_dims)
    variances: Array  # (n_components, n_dims)
    overall: Array  # (n_dims, n_dims): covariance of all rows
    spare: NDArray[np.bool_]  # (n_components,): components whose cell has no rows


def start_of_cells(X: Array, weight: Array, labels: Indices, n_components: int) -> Start:
    """Compute the start from the index of the cell of each row."""
    n_dims = X.shape[1]
    mass = np.bincount(labels, weight, n_components)
    spare = np.bincount(labels, minlength=n_components) == 0
    centre, covariance = weight @ X / weight.sum(), _covariance(X, weight)
    overall = np.diag(covariance)
    # If K equal cells divide a box, the variances of a cell are K^(-2/d) times those of the box.
    expected = overall * n_components ** (-2 / n_dims)
    means = np.tile(centre, (n_components, 1))
    variances = np.empty_like(means)
    divisor = np.where(spare, 1, mass)
    for a in range(n_dims):
        means[:, a] += np.bincount(labels, weight * (X[:, a] - centre[a]), n_components) / divisor
        squares = weight * (X[:, a] - means[labels, a]) ** 2
        sums = np.bincount(labels, squares, n_components)
        variances[:, a] = (sums + _EXPECTED_ROWS * expected[a]) / (mass + _EXPECTED_ROWS)
    variances[spare] = overall
    return Start(mass, means, variances, covariance, spare)


def _covariance(X: Array, weight: Array) -> Array:
    total = weight.sum()
    centred = X - weight @ X / total
    covariance: Array = (centred.T * (weight / total)) @ centred
    return covariance


def initialise(
    start: Start, kind: Kind, prior_counts: float, floor: float
) -> tuple[Gaussians, Prior]:
    """The initial mixture of a fit, and the prior with the initial means and variances."""
    overall = np.diag(start.overall)
    between = np.sqrt(start.variances * overall)
    variances = np.maximum(np.minimum(_SPREAD * start.variances, between), floor)
    deviations = np.sqrt(np.where(overall > 0, overall, 1))
    correlation = (1 - _SHRINKAGE) * start.overall / deviations / deviations[:, None]
    np.fill_diagonal(correlation, 1)
    prior = Prior(prior_counts, start.means, variances, correlation)
    weights = np.where(start.spare, 0, start.mass + 0.5)
    weights /= weights.sum()
    covariances: Array = variances
    match kind:
        case "full":
            covariances = floored(prior.covariances(), floor)
        case "tied":
            mean = prior._replace(variances=variances * weights[:, None]).summed_covariance()
            covariances = floored(mean[None], floor)[0]
        case "spherical":
            covariances = variances.mean(axis=1)
    return Gaussians(weights, start.means.copy(), covariances.copy(), kind), prior


# --------------------------------------------------------------------------- cells


def quantile_cells(
    X: Array, weight: Array, n_cells: int, rng: np.random.RandomState | None = None
) -> Indices:
    """Cells of equal mass, from repeatedly halving cells along their longest side.

    The cells do not depend on the order of the rows, and a row of weight two has the same effect as
    two rows. Equal rows are in the same cell. If there are fewer distinct rows than cells, some
    cells are empty.

    Parameters
    ----------
    X : ndarray of shape (n_samples, n_dims)
    weight : ndarray of shape (n_samples,)
        Positive weights.
    n_cells : int
    rng : RandomState, default=None
        Generator that shifts the cells: the first cut is at a random fraction of the mass.
    """
    n, n_dims = X.shape
    labels = np.empty(n, dtype=np.intp)
    loops = kernels(n, "cell_kernels")
    if loops is not None:
        left_of_first = int(_left(np.array([n_cells]), rng)[0])
        orders = np.stack([_ordered(X, a)[0] for a in range(n_dims)])
        rows = np.ascontiguousarray(X)
        loops.quantile_labels(rows, weight, orders, n_cells, left_of_first, labels)
        return labels
    ranks: dict[int, Indices] = {}
    order = np.arange(n)
    start, first, size = np.array([0]), np.array([0]), np.array([n_cells])
    while len(order):
        stop = np.append(start[1:], len(order))
        left = _left(size, rng)
        sides = np.empty((n_dims, len(start)))
        for a in range(n_dims):
            values = X[order, a]
            sides[a] = np.maximum.reduceat(values, start) - np.minimum.reduceat(values, start)
        axis = sides.argmax(axis=0)
        cell = np.repeat(np.arange(len(start)), stop - start)
        rank = np.empty(len(order), dtype=np.int64)
        for a in np.unique(axis):
            if a not in ranks:
                ranks[a] = _ranks(X, int(a))
            mine = (axis == a)[cell]
            rank[mine] = ranks[a][order[mine]]
        sorting = np.argsort(cell * n + rank)
        order, rank = order[sorting], rank[sorting]
        cut = _cuts(weight[order], rank, start, stop, left / size)
        splits = (size > 1) & (cut > start) & (sides.max(axis=0) > 0)
        done = ~splits
        labels[order[done[cell]]] = first[cell[done[cell]]]
        kept = splits[cell]
        order = order[kept]
        lengths = np.stack([(cut - start)[splits], (stop - cut)[splits]], axis=1).ravel()
        first = np.stack([first[splits], (first + left)[splits]], axis=1).ravel()
        size = np.stack([left[splits], (size - left)[splits]], axis=1).ravel()
        start = np.cumsum(lengths) - lengths
    return labels


def _left(size: Indices, rng: np.random.RandomState | None) -> Indices:
    """How many of the cells of every part are before its cut; the first cut may be shifted."""
    if rng is None or len(size) > 1:
        return size // 2
    fraction = rng.uniform(0.25, 0.75, 1)
    return np.clip((size * fraction).astype(np.intp), np.minimum(size, 1), size - 1)


def _ranks(X: Array, axis: int) -> Indices:
    """The rank of each row along an axis, with ties broken by the other axes."""
    order, new = _ordered(X, axis)
    ranks = np.empty(len(X), dtype=np.intp)
    ranks[order] = np.cumsum(new) - 1
    return ranks


def _ordered(X: Array, axis: int) -> tuple[Indices, NDArray[np.bool_]]:
    """The rows in their order along an axis, with ties broken by the other axes.

    The second result is the mask of the positions whose row differs from the one before.
    """
    order = np.argsort(X[:, axis])
    sorted_values = X[order, axis]
    new = np.empty(len(X), dtype=bool)
    new[:1] = True
    np.not_equal(sorted_values[1:], sorted_values[:-1], out=new[1:])
    if not new.all():
        others = [X[:, (axis + step) % X.shape[1]] for step in range(X.shape[1])]
        order = np.lexsort(others[::-1])
        new[1:] = False
        for values in others:
            values = values[order]
            new[1:] |= values[1:] != values[:-1]
    return order, new


def _cuts(weight: Array, rank: Indices, start: Indices, stop: Indices, fraction: Array) -> Indices:
    """Positions to cut sorted rows so that about this fraction of the mass is before the cut.

    Equal rows are never separated. If a cell cannot be cut, its position is the start of the cell.
    """
    n = len(weight)
    before = np.concatenate([[0], np.cumsum(weight)])  # mass before each position
    may_cut = np.empty(n + 1, dtype=bool)
    may_cut[1:n] = rank[1:] != rank[:-1]
    may_cut[start] = may_cut[stop] = may_cut[0] = may_cut[n] = False
    place = np.arange(n + 1)
    lower = np.maximum.accumulate(np.where(may_cut, place, -1))
    upper = np.minimum.accumulate(np.where(may_cut, place, n + 1)[::-1])[::-1]
    target = before[start] + fraction * (before[stop] - before[start])
    at = np.clip(np.searchsorted(before, target), start, stop)
    low, high = lower[np.maximum(at - (before[at] > target), 0)], upper[at]
    has_low, has_high = low > start, high < stop
    low, high = np.where(has_low, low, start), np.where(has_high, high, start)
    # Rounding errors must not decide between two positions of equal distance.
    slack = 1e-9 * (before[stop] - before[start])
    takes_low = has_low & (~has_high | (target - before[low] <= before[high] - target + slack))
    return np.where(takes_low, low, high)


def nearest_cells(
    X: Array, weight: Array, n_cells: int, rng: np.random.RandomState | None
) -> Indices:
    """Nearest-neighbour cells of centres, which are rows drawn in proportion to their weights."""
    assert rng is not None
    # The rows with the smallest keys are a weighted draw without replacement (exponential race).
    keys = rng.standard_exponential(len(X)) / weight
    n_drawn = min(n_cells, len(X))
    centres = X[np.argpartition(keys, n_drawn - 1)[:n_drawn]]
    if X.shape[1] <= LOCAL_DIMS:
        return np.asarray(cKDTree(centres).query(X)[1], dtype=np.intp)
    return np.asarray(pairwise_distances_argmin(X, centres), dtype=np.intp)


def grid_start(
    X: Array, weight: Array, n_components: int, lo: Array, hi: Array, shift: Array | None
) -> Start:
    """A regular grid of at most `n_components` cells over a box, with sides of similar length."""
    n_dims = X.shape[1]
    shape = np.ones(n_dims, dtype=np.intp)
    side = np.where(hi > lo, hi - lo, 0.0)
    while True:  # add a cut along the axis with the longest cells, while the number allows it
        wanted = np.argsort(-side / shape, kind="stable")
        fits = [
            a
            for a in wanted
            if side[a] and prod(shape) // shape[a] * (shape[a] + 1) <= n_components
        ]
        if not fits:
            break
        shape[fits[0]] += 1
    n_cells = prod(shape)
    width = np.where(side > 0, side / shape, 1)
    offset = np.zeros(n_dims) if shift is None else (shift - 0.5) * width
    index = np.clip(((X - lo - offset) / width).astype(np.intp), 0, shape - 1)
    labels = np.ravel_multi_index(tuple(index.T), tuple(shape))
    centres = np.stack(np.unravel_index(np.arange(n_cells), tuple(shape)), axis=1) + 0.5
    spare = np.arange(n_components) >= n_cells
    means = np.tile((lo + hi) / 2, (n_components, 1))
    means[:n_cells] = lo + offset + centres * width
    variances = np.tile(width**2 / 12, (n_components, 1))
    mass = np.bincount(labels, weight, n_components)
    return Start(mass, means, variances, _covariance(X, weight), spare)


# ----------------------------------------------------------------- more components


def split(gaussians: Gaussians, parents: Indices, children: Indices) -> Gaussians:
    """Halve the parents along their longest axes; `children` are the positions of the new halves.

    The means of the halves are 0.8 standard deviations to both sides of the old mean. The variance
    along the axis is reduced so that the pair has the mean and the covariance of the parent.
    """
    weights, means = gaussians.weights.copy(), gaussians.means.copy()
    values, axes = np.linalg.eigh(gaussians.full()[parents])
    longest, axis = values[:, -1:], axes[:, :, -1]
    # The sign of an axis is chosen so that its largest entry is positive.
    largest = np.take_along_axis(axis, np.abs(axis).argmax(axis=1)[:, None], axis=1)
    away = 0.8 * np.sqrt(longest) * axis * np.sign(largest)
    weights[children] = weights[parents] = weights[parents] / 2
    means[children] = means[parents] + away
    means[parents] -= away
    covariances = gaussians.covariances
    match gaussians.kind:
        case "full":
            covariances = covariances.copy()
            covariances[parents] -= away[:, :, None] * away[:, None, :]
            covariances[children] = covariances[parents]
        case "diag":
            covariances = covariances.copy()
            covariances[parents] -= away**2
            covariances[children] = covariances[parents]
        case "spherical":
            covariances = covariances.copy()
            covariances[parents] -= (away**2).mean(axis=1)
            covariances[children] = covariances[parents]
    return gaussians._replace(weights=weights, means=means, covariances=covariances)


def enlarged(gaussians: Gaussians, prior: Prior, n_components: int) -> tuple[Gaussians, Prior]:
    """A mixture with more components, from halving the components of the largest weights."""
    while (n := len(gaussians.weights)) < n_components:
        n_new = min(n, n_components - n)
        parents = np.sort(np.argsort(-gaussians.weights, kind="stable")[:n_new])
        children = np.arange(n, n + n_new)
        places = np.concatenate([np.arange(n), parents])
        gaussians = split(gaussians.chosen(places), parents, children)
        prior = prior.chosen(places)
        halves = np.concatenate([parents, children])
        # The prior of a half has half of the volume, and the mean of the half.
        prior.variances[halves] *= 0.5 ** (2 / gaussians.means.shape[1])
        prior.means[halves] = gaussians.means[halves]
    return gaussians, prior
