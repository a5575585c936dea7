"""Rows in cells: densities, the cell of each row, responsibilities."""

from collections.abc import Iterator
from typing import Any

import numpy as np
from numpy.typing import NDArray
from scipy import sparse
from sklearn.utils import gen_batches

from skae._mixture.cells import Cells
from skae._mixture.component_search import (
    Pairs,
    Reach,
    Rectangles,
    build_tree,
    find_pairs,
    rectangles,
)
from skae._mixture.responsibilities import LOCAL_DIMS, log_sum

Array = NDArray[Any]
Indices = NDArray[np.intp]

_DENSE_NUMBERS = 2**22


class RowsInCells:
    """Rows with the cells that contain them, one in every tiling."""

    def __init__(self, X: Array, cells: Cells) -> None:
        self._lo, self._last = cells.lo.min(axis=0), cells.hi.max(axis=0)
        self._X = X
        self._cells = cells
        self._nats = cells.log_densities()
        # Cells are half-open, [lo, hi), except at the upper faces of the domain.
        upper = np.nextafter(self._last, np.inf)
        self._hi = np.where(cells.hi == self._last, upper, cells.hi)

    def log_density(self, cells: Cells) -> Array:
        """log sum_j w_j rho_j(x) of every row; -inf outside of the domain."""
        found = np.empty(len(self._X))
        for rows, _, nats in self._candidates(self._X):
            found[rows] = log_sum(nats)
        return found

    def best(self, cells: Cells) -> Indices:
        """The cell of every row with the largest density; the nearest cell for rows outside."""
        found = np.empty(len(self._X), dtype=np.intp)
        for rows, candidates, nats in self._candidates(self._inside()):
            best = nats.argmax(axis=1)
            candidates = np.broadcast_to(candidates, nats.shape)
            found[rows] = candidates[np.arange(len(best)), best]
        return found

    def responsibilities(self, cells: Cells) -> sparse.csr_array:
        """w_j rho_j(x) / rho(x) for the cells that contain a row; rows sum to 1."""
        row, column, responsibility = [], [], []
        for rows, candidates, nats in self._candidates(self._inside()):
            at, candidate = np.nonzero(nats > -np.inf)
            row.append(rows[at])
            column.append(np.broadcast_to(candidates, nats.shape)[at, candidate])
            values = nats[at, candidate]
            # `log_sum` overwrites `nats`, which is not used again.
            responsibility.append(np.exp(values - log_sum(nats)[at]))
        # Rows that pad blocks occur twice.
        shape = (len(self._X), len(self._nats))
        pairs = np.concatenate(row) * shape[1] + np.concatenate(column)
        pairs, first = np.unique(pairs, return_index=True)
        entries = np.divmod(pairs, shape[1])
        values = np.concatenate(responsibility)[first]
        return sparse.coo_array((values, entries), shape=shape).tocsr()

    def counts(self, weight: Array) -> Array:
        """The sum of the weights of the rows in each cell."""
        membership = self.responsibilities(self._cells)
        membership.data[:] = 1
        summed: Array = weight @ membership
        return summed

    def _inside(self) -> Array:
        """The rows, where those outside of the domain are moved to its boundary."""
        return np.clip(self._X, self._lo, self._last)

    def _candidates(self, X: Array) -> Iterator[tuple[Indices, Indices, Array]]:
        """Parts of the rows: indices, candidate cells, and their log w / V or -inf.

        Yields
        ------
        rows : ndarray of shape (n_rows,)
        candidates : ndarray of shape (n_rows or 1, n_candidates)
        nats : ndarray of shape (n_rows, n_candidates), -inf where the row is not in the cell
        """
        if X.shape[1] > LOCAL_DIMS:
            everything = np.arange(len(self._nats))[None]
            n_rows = max(1, _DENSE_NUMBERS // (len(self._nats) * X.shape[1]))
            for part in gen_batches(len(X), n_rows):
                rows = X[part, None]
                inside = ((rows >= self._cells.lo) & (rows < self._hi)).all(axis=2)
                yield np.arange(len(X))[part], everything, np.where(inside, self._nats, -np.inf)
            return
        tree = build_tree(X, X, 32)
        reach = Reach(self._cells.lo, self._cells.hi, self._nats, np.zeros(len(self._nats)))
        pairs = find_pairs(tree, np.full(len(tree.members), -np.inf), reach)
        # Blocks outside of the domain get an arbitrary cell as a candidate.
        lost = np.flatnonzero(np.bincount(pairs.block, minlength=len(tree.members)) == 0)
        block = np.concatenate([pairs.block, lost])
        component = np.concatenate([pairs.component, np.zeros_like(lost)])
        order = np.argsort(block, kind="stable")
        pairs = Pairs(block[order], component[order])
        for part in rectangles(pairs, *tree.members.shape):
            yield self._compared(X, tree.members[part.blocks], part)

    def _compared(
        self, X: Array, members: Indices, part: Rectangles
    ) -> tuple[Indices, Indices, Array]:
        n_members = members.shape[1]
        j = part.candidates
        inside = np.repeat(part.valid[:, None, :], n_members, axis=1)
        for a in range(X.shape[1]):
            values = X[members, a][:, :, None]
            inside &= values >= self._cells.lo[j, a][:, None]
            inside &= values < self._hi[j, a][:, None]
        found = np.where(inside, self._nats[j][:, None], -np.inf).reshape(members.size, -1)
        return members.ravel(), np.repeat(j, n_members, axis=0), found
