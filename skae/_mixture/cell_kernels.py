"""Loops that divide rows into cells, which Numba compiles; see `skae._mixture.compiled`."""

from typing import Any

import numpy as np
from numpy.typing import NDArray

from skae._utils.compiler import compiled

Array = NDArray[Any]
Indices = NDArray[np.intp]


@compiled()
def halve(points: Array, place: Indices, start: int, stop: int, depth: int) -> None:
    """Halve a range of points along its widest side, `depth` times, by moving them.

    `points` of shape (n_dims, n_points) and `place` are permuted together. The number of points in
    the range is a multiple of 2 ** depth.
    """
    n_dims = len(points)
    for level in range(depth):
        size = (stop - start) >> level
        for left in range(start, stop, size):
            right = left + size
            axis, widest = 0, -1.0
            for a in range(n_dims):
                side = points[a, left:right].max() - points[a, left:right].min()
                if side > widest:
                    axis, widest = a, side
            _select(points, place, axis, left, right - 1, left + size // 2)


@compiled()
def _select(points: Array, place: Indices, axis: int, left: int, right: int, middle: int) -> None:
    """Permute points in left..right so that none before `middle` is larger than one from it on."""
    while right > left:
        low, high = points[axis, left], points[axis, right]
        centre = points[axis, (left + right) // 2]
        pivot = max(min(low, high), min(max(low, high), centre))
        i, j = left, right
        while i <= j:
            while points[axis, i] < pivot:
                i += 1
            while points[axis, j] > pivot:
                j -= 1
            if i <= j:
                for a in range(len(points)):
                    points[a, i], points[a, j] = points[a, j], points[a, i]
                place[i], place[j] = place[j], place[i]
                i += 1
                j -= 1
        if middle <= j:
            right = j
        elif middle >= i:
            left = i
        else:
            return


@compiled()
def quantile_labels(
    rows: Array, weight: Array, orders: Indices, n_cells: int, first_left: int, labels: Indices
) -> None:
    """Cells of equal mass, as in `quantile_cells`.

    Parameters
    ----------
    rows : ndarray of shape (n_samples, n_dims)
    weight : ndarray of shape (n_samples,)
    orders : ndarray of shape (n_dims, n_samples)
        The rows, sorted along each axis; ties are sorted along the other axes. Is overwritten.
    n_cells : int
    first_left : int
        Number of cells before the first cut.
    labels : ndarray of shape (n_samples,)
        Receives the cell of each row.
    """
    n, n_dims = rows.shape
    is_left, moved = np.empty(n, dtype=np.bool_), np.empty(n, dtype=np.intp)
    stack = [(0, n, 0, n_cells, first_left)]
    while len(stack):
        start, stop, first, size, left = stack.pop()
        axis, longest = 0, 0.0
        for a in range(n_dims):
            side = rows[orders[a, stop - 1], a] - rows[orders[a, start], a]
            if side > longest:
                axis, longest = a, side
        order = orders[axis]
        cut = start
        if size > 1 and longest > 0:
            cut = _cut(rows, weight, order, start, stop, left / size)
        if cut == start:
            for i in range(start, stop):
                labels[order[i]] = first
            continue
        for i in range(start, stop):
            is_left[order[i]] = i < cut
        for a in range(n_dims):
            if a != axis:
                to_left, to_right = start, cut
                for i in range(start, stop):
                    row = orders[a, i]
                    if is_left[row]:
                        moved[to_left] = row
                        to_left += 1
                    else:
                        moved[to_right] = row
                        to_right += 1
                orders[a, start:stop] = moved[start:stop]
        stack.append((start, cut, first, left, left // 2))
        stack.append((cut, stop, first + left, size - left, (size - left) // 2))


@compiled()
def _cut(rows: Array, weight: Array, order: Indices, start: int, stop: int, fraction: float) -> int:
    """The position to cut sorted rows, as in `_cuts`; `start` if they cannot be cut."""
    total = 0.0
    for i in range(start, stop):
        total += weight[order[i]]
    target = fraction * total
    before, low, mass_of_low = 0.0, start, 0.0
    for i in range(start + 1, stop):
        before += weight[order[i - 1]]
        differs = False
        for a in range(rows.shape[1]):
            differs |= rows[order[i], a] != rows[order[i - 1], a]
        if not differs:
            continue
        if before >= target:
            takes_low = low > start and target - mass_of_low <= before - target + 1e-9 * total
            return low if takes_low and before != target else i
        low, mass_of_low = i, before
    return low
