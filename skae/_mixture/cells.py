"""Components of a mixture that are cells: boxes of uniform density that cover a domain.

A k-d tree halves boxes, beginning with the domain, until they have few counts. Each box is divided
across the side with the largest gain. Then the splits with the smallest gains are removed until
the requested number of cells is left (weakest-link pruning, Breiman et al. 1984). The gain of a
split is the increase of the log-likelihood of held-out counts: each count is left out in turn and
scored by the others. For a cell of N counts and volume V, this log-likelihood is

    N log((N - 1 + 1/2) / V)

up to a constant, where 1/2 is the prior count of every cell. With an exposure, V is its integral
over the cell, so that the score is that of the counts as they are recorded.

References
----------
L. Breiman, J. H. Friedman, R. A. Olshen and C. J. Stone (1984). Classification and Regression
Trees. Wadsworth. :doi:`10.1201/9781315139470`
"""

from math import log
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from skae._mixture.domain import Domain
from skae._utils.threads import in_threads

Array = NDArray[Any]
Indices = NDArray[np.intp]

# Prior count of each cell.
_PRIOR = 0.5

# Boxes with fewer counts are not divided further.
_FEWEST = 4.0

# Differences of gains up to this number of nats are noise. The longest of such sides is divided.
_NOISE = 2.0


class Cells(NamedTuple):
    """Boxes with weights. The weights of all tilings of the domain together sum to 1."""

    weights: Array  # (n_cells,)
    lo: Array  # (n_cells, n_dims)
    hi: Array

    def log_densities(self) -> Array:
        """log(w_j / V_j), (n_cells,)."""
        return np.log(self.weights) - np.log(self.hi - self.lo).sum(axis=1)

    def draw(self, cell: Indices, rng: np.random.RandomState) -> Array:
        """Draw a row from each of these cells."""
        place = rng.random_sample((len(cell), self.lo.shape[1]))
        return self.lo[cell] + place * (self.hi - self.lo)[cell]


def held_out_score(n: Array, log_volume: Array) -> Array:
    """Log-likelihood of the counts of a cell, each left out in turn, up to a constant per count."""
    chance = np.log(np.maximum(n - 1, 0) + _PRIOR) - np.where(n > 0, log_volume, 0)
    return n * chance


# -------------------------------------------------------------------------- the tree


class _Level(NamedTuple):
    """Boxes of one depth. Each divided box has two children, in order, in the next level."""

    lo: Array  # (n_nodes, n_dims), within the domain
    hi: Array
    n: Array  # counts
    log_volume: Array  # -inf also where the exposure is zero
    log_flux: Array  # log of counts per volume; where the exposure is zero, those of the parent
    inside: NDArray[np.bool_]  # whether a part of the domain belongs to the box
    divided: NDArray[np.bool_]
    free: NDArray[np.bool_]  # one child is outside of the domain, so that no cell is added


def _grow(X: Array, weight: Array, domain: Domain, shift: Array | None) -> list[_Level]:
    """Grow the whole tree; returns its levels.

    With a `shift` in [0, 1) for each axis, the root is a box of twice the length of the domain. It
    begins before the domain, by this fraction of its length, so that the boundaries are shifted.
    """
    n_dims = X.shape[1]
    rows = [(X[:, a] - domain.lo[a]) / domain.unit[a] for a in range(n_dims)]
    length = (domain.hi - domain.lo) / domain.unit
    lo, hi = np.zeros((1, n_dims)), length[None]
    if shift is not None:
        before = shift * length
        before = np.where(domain.aligned, np.floor(before), before)
        lo, hi = -before[None], (2 * length - before)[None]
    node = np.zeros(len(X), dtype=np.intp)
    counted = weight
    n = np.array([weight.sum()])
    parent_flux = np.zeros(1)
    levels = []
    while True:
        inner_lo, inner_hi = np.maximum(lo, 0), np.minimum(hi, length)
        side = np.maximum(inner_hi - inner_lo, 0)
        inside = (side > 0).all(axis=1)
        log_volume = domain.log_volume(inner_lo, inner_hi)
        with np.errstate(divide="ignore"):
            log_flux = np.log(n + _PRIOR) - log_volume
        log_flux = np.where(log_volume > -np.inf, log_flux, parent_flux)
        middle = (lo + hi) / 2
        middle = np.where(domain.aligned, np.floor(middle), middle)
        may = (hi - lo >= 2 * domain.smallest) & (n >= _FEWEST)[:, None]
        may &= inside[:, None]
        may &= (lo < middle) & (middle < hi)  # false where coordinates have no numbers between
        outside = may & ((middle <= 0) | (middle >= length))
        gain = np.full(side.shape, -np.inf)
        n_left = np.zeros(side.shape)
        own = held_out_score(n, log_volume)
        for a in range(n_dims):
            if not may[:, a].any():
                continue
            left = counted * (rows[a] < middle[node, a])
            n_left[:, a] = np.bincount(node, left, len(n))
            cut = np.clip(middle[:, a], inner_lo[:, a], inner_hi[:, a])
            left_hi, right_lo = inner_hi.copy(), inner_lo.copy()
            left_hi[:, a] = right_lo[:, a] = cut
            halves = held_out_score(n_left[:, a], domain.log_volume(inner_lo, left_hi))
            halves += held_out_score(n - n_left[:, a], domain.log_volume(right_lo, inner_hi))
            gain[:, a] = np.where(may[:, a] & ~outside[:, a], halves - own, -np.inf)
        gain[outside] = np.inf
        divided = np.asarray(may.any(axis=1))
        best = gain.max(axis=1, keepdims=True)
        close = (gain >= best - _NOISE) & may
        axis = np.where(close, hi - lo, -1.0).argmax(axis=1)
        every = np.arange(len(n))
        free = divided & outside[every, axis]
        levels.append(_Level(inner_lo, inner_hi, n, log_volume, log_flux, inside, divided, free))
        if not divided.any():
            return levels
        kept = divided[node]
        if not kept.all():
            node, counted = node[kept], counted[kept]
            rows = [values[kept] for values in rows]
        place = np.cumsum(divided) - 1
        right = np.empty(len(node), dtype=bool)
        of_row = axis[node]
        for a in range(n_dims):
            mine = of_row == a
            right[mine] = rows[a][mine] >= middle[node[mine], a]
        node = 2 * place[node] + right
        chosen, at = every[divided], axis[divided]
        lo, hi = np.repeat(lo[chosen], 2, axis=0), np.repeat(hi[chosen], 2, axis=0)
        pair = np.arange(len(chosen))
        hi[2 * pair, at] = lo[2 * pair + 1, at] = middle[chosen, at]
        lefts = n_left[chosen, at]
        n = np.stack([lefts, n[chosen] - lefts], axis=1).ravel()
        parent_flux = np.repeat(log_flux[chosen], 2)


def _prune(levels: list[_Level], price: float) -> tuple[list[NDArray[np.bool_]], int]:
    """The splits whose gain exceeds the price, and the resulting number of cells."""
    worth, n_cells = np.zeros(0), np.zeros(0)
    splits: list[NDArray[np.bool_]] = []
    for level in levels[::-1]:
        best = np.where(level.inside, held_out_score(level.n, level.log_volume), 0)
        count = level.inside.astype(float)
        divided = np.flatnonzero(level.divided)
        halves = worth.reshape(-1, 2).sum(axis=1) - np.where(level.free[divided], 0, price)
        takes = level.free[divided] | (halves > best[divided])
        split = np.zeros(len(best), dtype=bool)
        split[divided] = takes
        best[split] = halves[takes]
        count[split] = n_cells.reshape(-1, 2).sum(axis=1)[takes]
        worth, n_cells = best, count
        splits.append(split)
    return splits[::-1], int(n_cells[0])


def _kept(levels: list[_Level], splits: list[NDArray[np.bool_]]) -> list[_Level]:
    """The tree without the boxes below splits that are not made."""
    alive = np.ones(1, dtype=bool)
    found = []
    for level, split in zip(levels, splits, strict=True):
        inner = split & alive
        found.append(
            _Level(
                level.lo[alive],
                level.hi[alive],
                level.n[alive],
                level.log_volume[alive],
                level.log_flux[alive],
                level.inside[alive],
                inner[alive],
                level.free[alive],
            )
        )
        alive = np.repeat(inner[level.divided], 2)
        if not alive.any():
            break
    return found


def _leaves(levels: list[_Level]) -> _Level:
    """The boxes of the cells, in units of the domain."""
    leaves = [~level.divided & level.inside for level in levels]
    parts = [[values[leaf] for values in level] for level, leaf in zip(levels, leaves, strict=True)]
    return _Level(*(np.concatenate(values) for values in zip(*parts, strict=True)))


def _cheapest(levels: list[_Level], n_cells: int) -> list[_Level]:
    """The tree with the best score among those with at most `n_cells` cells, up to ties."""
    splits, n = _prune(levels, 0.0)
    levels = _kept(levels, splits)
    if n <= n_cells:
        return levels
    low, high = 0.0, 1.0
    while _prune(levels, high)[1] > n_cells:
        low, high = high, 2 * high
    for _ in range(60):
        middle = (low + high) / 2
        n = _prune(levels, middle)[1]
        low, high = (middle, high) if n > n_cells else (low, middle)
        if n == n_cells:
            break
    splits, n = _prune(levels, high)
    return _refilled(levels, splits, n_cells - n)


def _refilled(levels: list[_Level], splits: list[NDArray[np.bool_]], n_more: int) -> list[_Level]:
    """Add up to `n_more` splits, because pruning removes ties together and may remove too many."""
    alive = np.ones(1, dtype=bool)
    for level, split in zip(levels, splits, strict=True):
        split &= alive | level.free  # splits below a leaf are not made
        alive = np.repeat((alive & split)[level.divided], 2)
    while n_more > 0:
        alive, options = np.ones(1, dtype=bool), []
        for depth, (level, split) in enumerate(zip(levels, splits, strict=True)):
            if depth + 1 < len(levels):
                below = levels[depth + 1]
                halves = held_out_score(below.n, below.log_volume).reshape(-1, 2).sum(axis=1)
                divided = np.flatnonzero(level.divided)
                gain = halves - held_out_score(level.n, level.log_volume)[divided]
                able = (alive & ~split)[divided] & (gain > 0)
                options += [(-g, depth, i) for g, i in zip(gain[able], divided[able], strict=True)]
            alive = np.repeat((alive & split)[level.divided], 2)
            if not alive.any():
                break
        if not options:
            break
        for _, depth, i in sorted(options)[:n_more]:
            splits[depth][i] = True
        n_more -= min(n_more, len(options))
    return _kept(levels, splits)


def fit_cells(
    X: Array,
    weight: Array,
    domain: Domain,
    n_cells: int | None,
    shifts: list[Array | None],
    n_jobs: int | None,
) -> tuple[Cells, Array, Indices, float]:
    """Fit one tiling of the domain for each shift, and average the tilings.

    Parameters
    ----------
    X : ndarray of shape (n_samples, n_dims)
        Rows within the domain.
    weight : ndarray of shape (n_samples,)
    domain : Domain
    n_cells : int or None
        Largest number of cells of a tiling. There may be fewer if no split has a gain. None takes
        the number with the lowest BIC, where each split has two parameters: position and weight.
    shifts : list of ndarray of shape (n_dims,) or None
    n_jobs : int or None
        Number of threads. Each fits one tiling at a time.

    Returns
    -------
    cells : Cells
    shares : ndarray of shape (n_cells,)
        Fraction of the recorded counts in each cell. Without an exposure these are the weights.
    sizes : ndarray of int
        Number of cells of each tiling.
    held_out : float
        Log-likelihood of the counts under the first tiling, each count left out in turn, in
        nats per count.
    """
    total = weight.sum()

    def tile(shift: Array | None) -> tuple[Array, Array, Array, Array, float]:
        levels = _grow(X, weight, domain, shift)
        if n_cells is None:
            levels = _kept(levels, _prune(levels, log(total))[0])
        else:
            levels = _cheapest(levels, n_cells)
        leaves = _leaves(levels)
        prior = total + _PRIOR * len(leaves.n)
        shares = (leaves.n + _PRIOR) / prior / len(shifts)
        weights = shares
        if domain.exposure is not None:
            shares = np.where(leaves.log_volume > -np.inf, shares, 0)
            sides = np.log(leaves.hi - leaves.lo).sum(axis=1)
            weights = np.exp(leaves.log_flux + sides) / shares.sum()
        n, log_volume = leaves.n, leaves.log_volume + np.log(domain.unit).sum()
        others = max(prior - 1, _PRIOR)
        held_out = held_out_score(n, log_volume).sum() / total - log(others)
        return weights, shares, leaves.lo, leaves.hi, float(held_out)

    parts = list(in_threads(tile, shifts, n_jobs))
    weights, shares, lo, hi = (
        np.concatenate(values) for values in list(zip(*parts, strict=True))[:4]
    )
    if domain.exposure is not None:
        weights /= weights.sum()
        shares /= shares.sum()
    whole = (domain.hi - domain.lo) / domain.unit
    lo = domain.lo + lo * domain.unit
    hi = np.where(hi == whole, domain.hi, domain.lo + hi * domain.unit)
    sizes = np.array([len(part[0]) for part in parts])
    return Cells(weights, lo, hi), shares, sizes, parts[0][4]


def recounted(shares: Array, sizes: Indices, total: float, added: Array, total_now: float) -> Array:
    """Shares of the recorded counts in each cell after counts `added` have been added."""
    size = _PRIOR * np.repeat(sizes, sizes)
    n = shares * len(sizes) * (total + size) - _PRIOR
    found = (n + added + _PRIOR) / (total_now + size) / len(sizes)
    return np.where(shares > 0, found, 0)
