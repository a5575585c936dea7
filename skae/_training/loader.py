"""Batches of the rows of a data set, in a new order in every epoch."""

from collections.abc import Iterator
from contextlib import nullcontext
from typing import Any

import torch
from torch import Tensor

from skae._training.data import Batch, Dataset
from skae._training.ranks import Part, Ranks
from skae._training.stored_rows import Shuffle, WindowReader, shuffled_parts
from skae._utils.warning import warn

# Held-out rows of stored data are kept in memory if they take at most this many bytes.
_KEPT_BYTES = 128 * 2**20


class Subset:
    """Some rows of a data set; skorch needs its length."""

    def __init__(self, rows: Dataset, index: Tensor | None) -> None:
        self.rows, self.index = rows, index
        self._shuffle: Shuffle | None = None
        self._reader: WindowReader | None = None

    @classmethod
    def held_out(cls, rows: Dataset, index: Tensor) -> "Subset":
        """Return rows that are evaluated many times; if they are stored, few of them are kept."""
        if rows.stored is None or rows.stored.row_bytes * len(index) > _KEPT_BYTES:
            return cls(rows, index)
        return cls(rows.taken(index), None)

    def __len__(self) -> int:
        return len(self.rows) if self.index is None else len(self.index)

    def shuffle(self) -> Shuffle:
        """Return how stored rows are shuffled."""
        assert self.rows.stored is not None
        if self._shuffle is None:
            self._shuffle = Shuffle(self.rows.stored, self.index)
            if self._shuffle.advice:
                warn(self._shuffle.advice)
        return self._shuffle

    def reader(self, windows: list[Any]) -> WindowReader:
        """Return a reader of windows of stored rows, which `close` ends, too."""
        assert self.rows.stored is not None
        self._reader = WindowReader(self.rows.stored, windows)
        return self._reader

    def close(self) -> None:
        """End the thread of the reader, also if an error has ended its use."""
        if self._reader is not None:
            self._reader.close()


def batch_sizes(n_rows: int, batch_size: int) -> list[int]:
    """Return the number of rows of each batch; a single last row joins the batch before it.

    Batch normalisation cannot compute the variance of a single row.
    """
    full, rest = divmod(n_rows, batch_size)
    sizes = [batch_size] * full
    if rest == 1 and full:
        sizes[-1] += 1
    elif rest:
        sizes.append(rest)
    return sizes


class Loader:
    """Batches of a subset, in a new random order in every epoch if a generator is given.

    With `ranks`, each batch is the part of this process of a batch.
    """

    def __init__(
        self,
        view: Subset,
        batch_size: int,
        generator: torch.Generator | None,
        ranks: Ranks | None = None,
    ) -> None:
        self.view, self.batch_size, self.generator = view, batch_size, generator
        self.ranks = ranks

    def __iter__(self) -> Iterator[Batch]:
        rows, index, n = self.view.rows, self.view.index, len(self.view)
        if self.generator is None and index is None and self.ranks is None:
            for start in range(0, n, self.batch_size):
                yield rows.batch(slice(start, min(start + self.batch_size, n)))
            return
        if self.generator is not None and rows.stored is not None:
            yield from self._shuffled(self.generator)
            return
        if self.generator is None:
            order = torch.arange(n) if index is None else index
        else:
            order = torch.randperm(n, generator=self.generator)
            order = order if index is None else index[order]
        for whole in self.parts(order.to(rows.index_device)):
            part = self._part(whole)
            yield rows.batch(whole if part is None else whole[part.rows])._replace(part=part)

    def _part(self, whole: Tensor) -> Part | None:
        """Return the part of this process of a batch, given its rows; None if it is alone."""
        if self.ranks is None:
            return None
        weight = self.view.rows.weight
        return self.ranks.part_of(len(whole), None if weight is None else _take(weight, whole))

    def _shuffled(self, generator: torch.Generator) -> Iterator[Batch]:
        """Yield batches of stored rows, which are shuffled in windows."""
        rows = self.view.rows
        windows = self.view.shuffle().windows(generator)
        sizes = batch_sizes(len(self.view), self.batch_size)
        reader = self.view.reader(windows) if rows.is_streamed else None
        with reader or nullcontext():
            for some in shuffled_parts(windows, sizes, generator):
                index = torch.cat([torch.from_numpy(windows[w][p.numpy()]) for w, p in some])
                part = self._part(index)
                own = slice(None) if part is None else part.rows
                if reader is None:
                    batch = rows.batch(index[own].to(rows.index_device))
                else:
                    found = [reader.window(w).index_select(0, p) for w, p in some]
                    values = found[0] if len(found) == 1 else torch.cat(found)
                    batch = rows.batch_of_stored(values[own], index[own].to(rows.device))
                yield batch._replace(part=part)

    def parts(self, order: Tensor) -> list[Tensor]:
        """Divide an order of rows into batches."""
        sizes = batch_sizes(len(order), self.batch_size)
        return list(order.split(sizes))


def _take(values: Tensor, rows: Tensor) -> Tensor:
    return values.index_select(0, rows.to(values.device))
