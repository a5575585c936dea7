"""Batches of the rows of a data set, in a new order in every epoch."""

from collections.abc import Iterator

import torch
from torch import Tensor

from skae._training.data import Batch, Dataset
from skae._training.ranks import Ranks


class Subset:
    """Some rows of a data set; skorch needs its length."""

    def __init__(self, rows: Dataset, index: Tensor | None) -> None:
        self.rows, self.index = rows, index

    def __len__(self) -> int:
        return len(self.rows) if self.index is None else len(self.index)


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
        if self.generator is None:
            order = torch.arange(n) if index is None else index
        else:
            order = torch.randperm(n, generator=self.generator)
            order = order if index is None else index[order]
        for whole in self.parts(order.to(rows.index_device)):
            yield rows.batch(whole) if self.ranks is None else self._own_part(self.ranks, whole)

    def _own_part(self, ranks: Ranks, whole: Tensor) -> Batch:
        """Return the part of this process of the rows of a batch."""
        rows = self.view.rows
        weight = None if rows.weight is None else rows.weight[whole.to(rows.weight.device)]
        part = ranks.part_of(len(whole), weight)
        return rows.batch(whole[part.rows])._replace(part=part)

    def parts(self, order: Tensor) -> list[Tensor]:
        """Divide an order of rows into batches."""
        sizes = batch_sizes(len(order), self.batch_size)
        return list(order.split(sizes))
