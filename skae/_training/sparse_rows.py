"""Sparse rows as a tensor of which only batches are dense."""

from typing import Self

import torch
from torch import Tensor


class SparseTensor:
    """Rows of a sparse matrix in the memory of a device.

    Slices and `index_select` return dense tensors, with the same values and the same type as those
    of the dense tensor of all rows.

    Parameters
    ----------
    values : Tensor of shape (n_stored,)
        The stored values, row by row.
    columns : Tensor of shape (n_stored,)
        Their columns; each column occurs at most once in a row.
    starts : Tensor of shape (n_rows + 1,)
        Position of the first stored value of each row, and the number of stored values; int64.
    n_columns : int
        Number of columns.
    """

    def __init__(self, values: Tensor, columns: Tensor, starts: Tensor, n_columns: int) -> None:
        self.values, self._columns, self._starts = values, columns, starts
        self.shape = torch.Size([len(starts) - 1, n_columns])

    def __len__(self) -> int:
        return self.shape[0]

    @property
    def dtype(self) -> torch.dtype:
        """Type of the values."""
        return self.values.dtype

    @property
    def device(self) -> torch.device:
        """Device of the values and of the batches."""
        return self.values.device

    @property
    def nbytes(self) -> int:
        """Bytes of the values and of their positions."""
        return sum(part.nbytes for part in (self.values, self._columns, self._starts))

    def to(self, device: torch.device) -> Self:
        """Return a copy on a device."""
        values, columns, starts = (
            part.to(device) for part in (self.values, self._columns, self._starts)
        )
        return type(self)(values, columns, starts, self.shape[1])

    def float(self) -> Self:
        """Return a copy in float32."""
        return type(self)(self.values.float(), self._columns, self._starts, self.shape[1])

    def __getitem__(self, rows: slice) -> Tensor:
        """Return consecutive rows as a dense tensor."""
        starts = self._starts[rows.start : rows.stop + 1]
        stored = slice(int(starts[0]), int(starts[-1]))
        return self._dense(starts.diff(), self._columns[stored], self.values[stored])

    def index_select(self, dim: int, index: Tensor) -> Tensor:
        """Return the rows of an index (dim=0) as a dense tensor."""
        starts = self._starts[index]
        counts = self._starts[index + 1] - starts
        before = counts.cumsum(0) - counts  # number of stored values of the rows before
        n_stored = int(counts.sum())
        position = (starts - before).repeat_interleave(counts, output_size=n_stored)
        position += torch.arange(n_stored, device=self.device)
        return self._dense(counts, self._columns[position], self.values[position])

    def _dense(self, counts: Tensor, columns: Tensor, values: Tensor) -> Tensor:
        """Return rows with these numbers of stored values, which are given row by row."""
        n_rows, n_columns = len(counts), self.shape[1]
        found = torch.zeros(n_rows * n_columns, dtype=self.dtype, device=self.device)
        first = torch.arange(0, n_rows * n_columns, n_columns, device=self.device)
        place = first.repeat_interleave(counts, output_size=len(values)) + columns
        found[place] = values
        return found.view(n_rows, n_columns)
