"""Batches of the networks of a stack; each member gets the batches of a separate training."""

from collections.abc import Hashable, Iterator
from typing import Any, NamedTuple

import torch
from torch import Tensor

from skae._training.data import Batch
from skae._training.loader import batch_sizes
from skae._training.stacked_weights import Index, index_of

# Value in rows of a batch that a member does not have. These rows have weight 0.
_ANY = 0.5


class StackedBatch(NamedTuple):
    """A batch of all members as one, and the separate batch of each member."""

    stacked: Batch
    of_members: list[Batch]
    weights: Tensor  # weight of each batch in the mean of an epoch, (n_members,), float64


class StackedBatches:
    """Batches of the nets of a stack.

    Members with the same rows and the same seed share a batch until it is prepared.

    Parameters
    ----------
    nets : list of Net
        Nets in training.
    template : TrainableModule
        The module of the largest net.
    """

    def __init__(self, nets: list[Any], template: Any) -> None:
        self.nets = nets
        shared: dict[Hashable, int] = {}
        for_index: list[tuple[Hashable, Tensor]] = []
        # Of each member: the number of the group that shares its rows and their order.
        self._group = []
        self._leaders: list[Any] = []
        for net in nets:
            subset = net.subsets_[0]
            key = (
                subset.rows.identity(),
                net.seed,
                net.batch_size,
                _number_of(subset.index, for_index),
            )
            if key not in shared:
                shared[key] = len(self._leaders)
                self._leaders.append(net)
            self._group.append(shared[key])
        self._sizes = [batch_sizes(len(net.subsets_[0]), net.batch_size) for net in nets]
        largest = template.blocks().draws
        self._places = [_places_of_draws(net.module_.blocks().draws, largest) for net in nets]
        self._unused = template.blocks().unused_draw
        self._n_draws = None if largest is None else sum(largest)

    def epoch(self, *, of_each_size: bool = False) -> Iterator[StackedBatch]:
        """Yield the batches of the epoch that all nets have begun.

        With `of_each_size`, only the first batch and the last, whose size may differ, are made.
        """
        parts = []
        for net in self._leaders:
            subset, loader = net.subsets_[0], net.get_iterator(net.subsets_[0], training=True)
            order = torch.randperm(len(subset), generator=net.order_)
            order = order if subset.index is None else subset.index[order]
            parts.append((subset.rows, loader.parts(order.to(subset.rows.index_device))))
        n_steps = len(self._sizes[0])
        for k in sorted({0, n_steps - 1}) if of_each_size else range(n_steps):
            shared = [rows.batch(of_rows[k]) for rows, of_rows in parts]
            yield self._stacked(k, shared)

    def _stacked(self, k: int, shared: list[Batch]) -> StackedBatch:
        prepared = [
            net.module_.prepare(shared[g], net.generator_)
            for net, g in zip(self.nets, self._group, strict=True)
        ]
        sizes = [size[k] for size in self._sizes]
        n_rows = max(sizes)
        stacked: dict[str, Any] = {}
        for name in Batch._fields:
            values = [getattr(batch, name) for batch in prepared]
            if values[0] is None or (name == "draws" and self._n_draws is None):
                stacked[name] = None
            elif self._are_shared(name, values, shared):
                stacked[name] = self._of_groups([getattr(b, name) for b in shared], n_rows)
            else:
                stacked[name] = self._of_members(name, values, n_rows)
        if all(batch.x is batch.y for batch in prepared):
            stacked["y"] = stacked["x"]
        weights = torch.tensor(sizes, dtype=torch.float64)
        if stacked["weight"] is not None:
            weights = stacked["weight"].sum(1).cpu().double()
        elif min(sizes) < n_rows:
            counts = torch.tensor(sizes, device=stacked["x"].device)[:, None]
            stacked["weight"] = (torch.arange(n_rows, device=counts.device) < counts).float()
        return StackedBatch(Batch(**stacked), prepared, weights)

    def _are_shared(self, name: str, values: list[Tensor], shared: list[Batch]) -> bool:
        """Return whether the preparation of the batches has left this field as it was."""
        pairs = zip(values, self._group, strict=True)
        return all(value is getattr(shared[group], name) for value, group in pairs)

    def _of_groups(self, values: list[Tensor], n_rows: int) -> Tensor:
        """Stack values that are shared within groups, repeated for each member."""
        if all(len(value) == n_rows for value in values):
            of_groups = torch.stack(values)
        else:
            of_groups = values[0].new_zeros((len(values), n_rows, *values[0].shape[1:]))
            for place, value in zip(of_groups, values, strict=True):
                place[: len(value)] = value
        if len(values) == len(self._group):
            return of_groups
        return of_groups[torch.tensor(self._group, device=of_groups.device)]

    def _of_members(self, name: str, values: list[Tensor], n_rows: int) -> Tensor:
        """Stack values that differ between members; padded columns are filled."""
        first = values[0]
        if name not in ("draws", "gate") and all(value.shape == first.shape for value in values):
            return torch.stack(values)
        shape: list[Any] = list(first.shape)
        shape[0] = n_rows
        indices: list[Index] = [None] * len(values)
        fill = 0.0
        if name == "draws":
            shape[-1], indices = self._n_draws, self._places
            fill = self._unused
        if name == "gate":
            shape[-1] = max(value.shape[-1] for value in values)
        found = first.new_full((len(values), *shape), fill)
        for place, index, value in zip(found, indices, values, strict=True):
            rows = place[: len(value)]
            place[len(value) :] = _ANY
            if index is None:
                rows[..., : value.shape[-1]] = value
            else:
                rows[..., index[0]] = value
        return found


def _number_of(index: Tensor | None, known: list[tuple[Hashable, Tensor]]) -> Hashable:
    """Return a number for each index of rows, the same for equal indices."""
    if index is None:
        return None
    for number, other in known:
        if other is index or torch.equal(other, index):
            return number
    known.append((len(known), index))
    return len(known) - 1


def _places_of_draws(own: tuple[int, ...] | None, largest: tuple[int, ...] | None) -> Index:
    if own is None or largest is None:
        return None
    return index_of(torch.Size([sum(own)]), {0: own}, {0: largest})
