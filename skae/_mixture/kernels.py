"""Loops over counts and components that Numba compiles, for large fits in few dimensions.

Only `skae._mixture.compiled` imports this module, because Numba is optional. `axes` is a tuple with
one entry for each dimension, so that its length is a constant for the compiler.
"""

from math import inf, log
from typing import Any

import numpy as np
from numpy.typing import NDArray

from skae._mixture.compiler import exp, larger
from skae._utils.compiler import compiled

Array = NDArray[Any]
Indices = NDArray[np.intp]

# Contraction and another order of sums change results by rounding errors only.
_SUMS = ("contract", "reassoc", "nsz")
_MAXIMA = ("contract", "nnan", "nsz")


# ------------------------------------------------------------------------- densities


@compiled(*_MAXIMA)
def _log_densities(
    axes: Any,
    x: Array,
    b: int,
    means: Array,
    constant: Array,
    precision: Array,
    j: int,
    values: Array,
    c: int,
    top: Array,
) -> None:
    """values[c] = log w_j rho_j of the rows of block b, and raise `top` to them."""
    n_dims = len(axes)
    if n_dims == 2:  # in one loop, which is compiled to the fastest code
        mean_0, mean_1, at_mean = means[j, 0], means[j, 1], constant[j]
        p, q, r = -0.5 * precision[j, 0, 0], -precision[j, 0, 1], -0.5 * precision[j, 1, 1]
        for m in range(x.shape[2]):
            y_0, y_1 = x[b, 0, m] - mean_0, x[b, 1, m] - mean_1
            value = at_mean + (y_0 * (p * y_0 + q * y_1) + r * (y_1 * y_1))
            values[c, m] = value
            top[m] = larger(value, top[m])
        return
    values[c] = constant[j]
    for a in range(n_dims):
        for other in range(a, n_dims):
            factor = -0.5 * precision[j, a, a] if other == a else -precision[j, a, other]
            for m in range(x.shape[2]):
                product = (x[b, a, m] - means[j, a]) * (x[b, other, m] - means[j, other])
                values[c, m] += factor * product
    for m in range(x.shape[2]):
        top[m] = larger(values[c, m], top[m])


@compiled(*_MAXIMA)
def _lowest(values: Array) -> float:
    low = values[0]
    for m in range(1, len(values)):
        low = values[m] if values[m] < low else low
    return low


@compiled(*_MAXIMA)
def _nearest_to(top: Array, values: Array, c: int) -> float:
    """The largest of values[c], relative to the top."""
    most = values[c, 0] - top[0]
    for m in range(1, len(top)):
        gap = values[c, m] - top[m]
        most = gap if gap > most else most
    return most


@compiled("contract")
def _log_sums(values: Array, n: int, top: Array, total: Array) -> None:
    """Replace the first n values by exp(values - top), and add them to `total`."""
    for c in range(n):
        for m in range(len(top)):
            value = exp(values[c, m] - top[m])
            values[c, m] = value
            total[m] += value


@compiled()
def _with_extra(extra: Array, b: int, top: Array, total: Array) -> None:
    """Begin the sums `total` with the density `extra`, and raise `top` to it; see `_log_sums`."""
    total[:] = 0
    if len(extra):
        for m in range(len(top)):
            top[m] = larger(extra[b, m], top[m])
            total[m] = exp(extra[b, m] - top[m])


@compiled(*_SUMS)
def _add_statistics(
    axes: Any,
    x: Array,
    b: int,
    means: Array,
    j: int,
    values: Array,
    c: int,
    scale: Array,
    sums: Array,
    place: int,
) -> None:
    """Add the sums of r, r y_a and r y_a y_b for a <= b, with y = x - mu, to sums[place].

    values[c] times `scale` are the responsibilities r of component j for the rows of block b.
    """
    n_dims = len(axes)
    n = 0.0
    if n_dims == 2:
        mean_0, mean_1 = means[j, 0], means[j, 1]
        first_0, first_1, second_00, second_01, second_11 = 0.0, 0.0, 0.0, 0.0, 0.0
        for m in range(len(scale)):
            r = values[c, m] * scale[m]
            y_0, y_1 = x[b, 0, m] - mean_0, x[b, 1, m] - mean_1
            r_0, r_1 = r * y_0, r * y_1
            n += r
            first_0 += r_0
            first_1 += r_1
            second_00 += r_0 * y_0
            second_01 += r_0 * y_1
            second_11 += r_1 * y_1
        sums[place, 0] += n
        sums[place, 1] += first_0
        sums[place, 2] += first_1
        sums[place, 3] += second_00
        sums[place, 4] += second_01
        sums[place, 5] += second_11
        return
    for m in range(len(scale)):
        values[c, m] *= scale[m]
        n += values[c, m]
    sums[place, 0] += n
    at = 1 + n_dims
    for a in range(n_dims):
        first = 0.0
        for m in range(len(scale)):
            first += values[c, m] * (x[b, a, m] - means[j, a])
        sums[place, 1 + a] += first
        for other in range(a, n_dims):
            second = 0.0
            for m in range(len(scale)):
                product = (x[b, a, m] - means[j, a]) * (x[b, other, m] - means[j, other])
                second += values[c, m] * product
            sums[place, at] += second
            at += 1


# ----------------------------------------------------------------------- expectation


@compiled()
def expect(
    axes: Any,
    blocks: tuple[int, int],
    x: Array,
    weight: Array,
    extra: Array,
    start: Indices,
    component: Indices,
    means: Array,
    constant: Array,
    precision: Array,
) -> Any:
    """Log-likelihood of blocks under their candidates, and sums of the responsibilities.

    Parameters
    ----------
    axes : tuple of n_dims zeros
    blocks : (first, last)
        The range of blocks.
    x : ndarray of shape (n_blocks, n_dims, n_members)
    weight : ndarray of shape (n_blocks, n_members)
    extra : ndarray of shape (n_blocks or 0, n_members)
        Log of a density that is added to that of the mixture.
    start : ndarray of shape (n_blocks + 1,)
        The candidates of block b are ``component[start[b]:start[b + 1]]``.
    component : ndarray of shape (n_pairs,)
    means, constant, precision : ndarrays
        Those of all components.

    Returns
    -------
    nats : float
    known : ndarray of shape (n_known,)
        The components that are candidates.
    sums : ndarray of shape (n_known, n_sums)
        As in `_add_statistics`.
    """
    first, last = blocks
    n_members = x.shape[2]
    n_sums = 1 + len(axes) + len(axes) * (len(axes) + 1) // 2
    most = 1
    for b in range(first, last):
        most = max(most, start[b + 1] - start[b])
    values = np.empty((most, n_members))
    top, total = np.empty(n_members), np.empty(n_members)
    place = np.full(len(constant), -1, dtype=np.intp)
    known = np.empty(min(len(constant), start[last] - start[first]), dtype=np.intp)
    n_known = 0
    for pair in range(start[first], start[last]):
        if place[component[pair]] < 0:
            place[component[pair]] = n_known
            known[n_known] = component[pair]
            n_known += 1
    sums = np.zeros((n_known, n_sums))
    nats = 0.0
    for b in range(first, last):
        n = start[b + 1] - start[b]
        top[:] = -inf
        for c in range(n):
            j = component[start[b] + c]
            _log_densities(axes, x, b, means, constant, precision, j, values, c, top)
        _with_extra(extra, b, top, total)
        _log_sums(values, n, top, total)
        for m in range(n_members):
            nats += weight[b, m] * (log(total[m]) + top[m])
            total[m] = weight[b, m] / total[m] if total[m] > 0 else 0.0
        for c in range(n):
            j = component[start[b] + c]
            _add_statistics(axes, x, b, means, j, values, c, total, sums, place[j])
    return nats, known[:n_known], sums


# ---------------------------------------------------------------------------- search


@compiled()
def _bound(
    node: int, lo: Array, hi: Array, nodes: tuple[Array, Array, Array, Array], n_dims: int
) -> float:
    """Upper bound on log w_j rho_j in a box, over the components below a node."""
    squared = 0.0
    for a in range(n_dims):
        gap = max(max(nodes[0][node, a] - hi[a], lo[a] - nodes[1][node, a]), 0.0)
        squared += gap * gap
    if squared == 0:
        return nodes[2][node]
    return nodes[2][node] - squared * nodes[3][node]


@compiled()
def search(
    axes: Any,
    blocks: tuple[int, int],
    x: Array,
    weight: Array,
    extra: Array,
    lo: Array,
    hi: Array,
    nodes: tuple[Array, Array, Array, Array],
    leaves: Indices,
    means: Array,
    constant: Array,
    precision: Array,
    margin: float,
    rounding: float,
    before: tuple[Indices, Indices],
    log_density: Array,
    best: Indices,
) -> Any:
    """Find the components within a margin of the best one for some row of a block.

    The tree of the components is descended, towards the highest bound first. Branches are discarded
    if their bound is too low for the densities that were found until then.

    Parameters
    ----------
    axes, blocks, x, weight, extra, means, constant, precision
        As in `expect`.
    lo, hi : ndarrays of shape (n_blocks, n_dims)
        Corners of the blocks.
    nodes : (lo, hi, peak, steepness)
        Boxes of the nodes of the tree, and their bounds peak - steepness d² at the distance d.
        Node i has children 2i + 1 and 2i + 2.
    leaves : ndarray of shape (n_leaves,)
        The component of each leaf. The leaves are the last nodes.
    margin, rounding : float
        Margin, and relative size of rounding errors of the bounds, in nats.
    before : (start, component)
        Earlier candidates of the blocks, as in `expect`; `start` is empty if there are none. They
        are kept for blocks whose truncated log-likelihood is higher with them.
    log_density : ndarray of shape (n_blocks, n_members) or (0, 0)
        Receives the log density of every row.
    best : ndarray of shape (n_blocks, n_members) or (0, 0)
        Receives the best component of every row, the first one of equal ones.

    Returns
    -------
    counts : ndarray of shape (n_blocks,)
    component : ndarray of shape (n_pairs,)
        The candidates, by block.
    """
    first, last = blocks
    n_dims, n_members = len(axes), x.shape[2]
    n_inner = len(nodes[2]) - len(leaves)
    values, here = np.empty((64, n_members)), np.empty(64, dtype=np.intp)
    top, total = np.empty(n_members), np.empty(n_members)
    stack, bounds = np.empty(128, dtype=np.intp), np.empty(128)
    counts = np.empty(last - first, dtype=np.intp)
    found, n_found = np.empty(64 * (last - first), dtype=np.intp), 0
    for b in range(first, last):
        top[:] = -inf
        least = -inf
        n, n_stack = 0, 1
        stack[0], bounds[0] = 0, inf
        while n_stack:
            n_stack -= 1
            node = stack[n_stack]
            if bounds[n_stack] < least:
                continue
            if node < n_inner:
                left = _bound(2 * node + 1, lo[b], hi[b], nodes, n_dims)
                right = _bound(2 * node + 2, lo[b], hi[b], nodes, n_dims)
                nearer = 1 if left >= right else 2
                for child in (3 - nearer, nearer):
                    bound = left if child == 1 else right
                    if bound >= least and bound > -inf:
                        stack[n_stack], bounds[n_stack] = 2 * node + child, bound
                        n_stack += 1
                continue
            j = leaves[node - n_inner]
            if n == len(here):
                values, here = _doubled(values, here)
            _log_densities(axes, x, b, means, constant, precision, j, values, n, top)
            if _nearest_to(top, values, n) >= -margin:
                here[n] = j
                n += 1
            lowest = _lowest(top)
            if lowest > -inf:
                least = lowest - margin - rounding * (1 + abs(lowest))
        kept = 0
        for c in range(n):  # the top was lower when the first ones were found
            if _nearest_to(top, values, c) >= -margin:
                here[kept] = here[c]
                for m in range(n_members):
                    values[kept, m] = values[c, m]
                kept += 1
        if len(best):
            _first_of_best(values, here, kept, top, best[b])
        _with_extra(extra, b, top, total)
        _log_sums(values, kept, top, total)
        now = 0.0
        for m in range(n_members):
            nats = log(total[m]) + top[m]
            now += weight[b, m] * nats
            if len(log_density):
                log_density[b, m] = nats
        if len(before[0]):
            n_old = before[0][b + 1] - before[0][b]
            while n_old > len(here):
                values, here = _doubled(values, here)
            top[:] = -inf
            for c in range(n_old):
                j = before[1][before[0][b] + c]
                _log_densities(axes, x, b, means, constant, precision, j, values, c, top)
            _with_extra(extra, b, top, total)
            _log_sums(values, n_old, top, total)
            earlier = 0.0
            for m in range(n_members):
                earlier += weight[b, m] * (log(total[m]) + top[m])
            if not now >= earlier:
                for c in range(n_old):
                    here[c] = before[1][before[0][b] + c]
                kept = n_old
        if n_found + kept > len(found):
            longer = np.empty(2 * (n_found + kept), dtype=np.intp)
            for i in range(n_found):
                longer[i] = found[i]
            found = longer
        for c in range(kept):
            found[n_found + c] = here[c]
        n_found += kept
        counts[b - first] = kept
    return counts, found[:n_found]


@compiled()
def _doubled(values: Array, here: Indices) -> Any:
    """The same arrays with twice as many places."""
    n = len(here)
    more, longer = np.empty((2 * n, values.shape[1])), np.empty(2 * n, dtype=np.intp)
    for c in range(n):
        longer[c] = here[c]
        for m in range(values.shape[1]):
            more[c, m] = values[c, m]
    return more, longer


@compiled()
def _first_of_best(values: Array, here: Indices, n: int, top: Array, best: Indices) -> None:
    best[:] = -1
    for c in range(n):
        for m in range(len(top)):
            if values[c, m] == top[m] and (best[m] < 0 or here[c] < best[m]):
                best[m] = here[c]
