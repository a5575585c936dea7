"""The columns of a table among those that a network reads and writes: categories one by level."""

from dataclasses import dataclass
from functools import cached_property

import torch
from torch import Tensor

CATEGORICAL, COUNTS = "categorical", "poisson"


@dataclass(frozen=True)
class Columns:
    """Where each column of a table stands in the network's rows.

    A table holds a category as the index of its level, the network one column for each level,
    which is 1 where the row has that level. Columns of one kind stand beside each other.

    Parameters
    ----------
    kinds : tuple of str
        The likelihood of each column.
    n_levels : tuple of int
        How many levels it has; 0 of numbers.
    """

    kinds: tuple[str, ...]
    n_levels: tuple[int, ...]

    def __len__(self) -> int:
        return len(self.kinds)

    @property
    def width(self) -> int:
        """How many columns the network has."""
        return len(self.source)

    @cached_property
    def order(self) -> tuple[int, ...]:
        """The columns of the table in the order of the network; categories come last."""
        found = [*sorted(set(self.kinds) - {CATEGORICAL}), CATEGORICAL]
        return tuple(sorted(range(len(self)), key=lambda j: found.index(self.kinds[j])))

    @cached_property
    def source(self) -> Tensor:
        """Of each column of the network, that of the table which it is made of."""
        order = torch.tensor(self.order)
        widths = torch.tensor([max(1, self.n_levels[j]) for j in self.order])
        return order.repeat_interleave(widths)

    @cached_property
    def level(self) -> Tensor:
        """Of each column of the network that is a level, which one."""
        levels = [torch.arange(self.n_levels[j]) for j in self.order if self.n_levels[j]]
        return torch.cat(levels) if levels else torch.zeros(0, dtype=torch.long)

    @property
    def n_numbers(self) -> int:
        """How many columns of the network are numbers: the first ones."""
        return self.width - len(self.level)

    @cached_property
    def place(self) -> Tensor:
        """Of each column of the table, its first one in the network's rows."""
        first = torch.full((len(self),), self.width)
        return first.scatter_reduce(0, self.source, torch.arange(self.width), "amin")

    @cached_property
    def sizes(self) -> tuple[int, ...]:
        """How many levels categories have, in the order of the network."""
        return tuple(self.n_levels[j] for j in self.order if self.n_levels[j])

    @cached_property
    def parts(self) -> dict[str, slice]:
        """Where the columns of each kind stand in the network's rows."""
        kinds = [self.kinds[j] for j in self.source.tolist()]
        return {
            kind: slice(kinds.index(kind), kinds.index(kind) + kinds.count(kind))
            for kind in dict.fromkeys(kinds)
        }

    def among(self, kinds: tuple[str, ...]) -> Tensor:
        """Which columns of the network are of these kinds."""
        found = torch.zeros(self.width, dtype=torch.bool)
        for kind in kinds:
            if kind in self.parts:
                found[self.parts[kind]] = True
        return found

    def expand(self, rows: Tensor) -> Tensor:
        """Rows of the table as the network's, floats; all levels of a missing value are NaN."""
        rows = rows if rows.is_floating_point() else rows.double()
        wide = rows.index_select(1, self.source.to(rows.device))
        codes = wide[:, self.n_numbers :]
        found = (codes == self.level.to(codes)).to(codes.dtype)
        wide[:, self.n_numbers :] = torch.where(codes.isnan(), codes, found)
        return wide

    def as_read(self, wide: Tensor) -> Tensor:
        """Rows of the network before they are standardised: log(1 + x) of counts.

        A count far out would else be read as a code far out, where no count is expected.
        """
        if COUNTS not in self.parts:
            return wide
        read, part = wide.clone(), self.parts[COUNTS]
        read[:, part] = wide[:, part].clamp(min=0.0).log1p()
        return read

    def collapse(self, wide: Tensor) -> Tensor:
        """Rows of the network as the table's: of a category the level with the largest value."""
        found = self.first(wide)
        for j, n in enumerate(self.n_levels):
            if n:
                start = int(self.place[j])
                found[:, j] = wide[:, start : start + n].argmax(1).to(wide.dtype)
        return found

    def first(self, wide: Tensor) -> Tensor:
        """Of what is alike for all levels of a column, one for each column."""
        return wide.index_select(-1, self.place.to(wide.device))

    def total(self, wide: Tensor) -> Tensor:
        """Sums over the levels of each column, (..., n_columns)."""
        shape = (*wide.shape[:-1], len(self))
        return wide.new_zeros(shape).index_add(-1, self.source.to(wide.device), wide)
