"""Columns of a table and of the network's rows, which have one column for each category level."""

from dataclasses import dataclass
from functools import cached_property

import torch
from torch import Tensor

CATEGORICAL, COUNTS = "categorical", "poisson"


@dataclass(frozen=True)
class Columns:
    """Position of each column of a table in the rows of the network.

    A table stores a category as the index of its level. The rows of the network have one column for
    each level; it is 1 if the row has that level, and 0 otherwise. Columns of the same kind are
    adjacent.

    Parameters
    ----------
    kinds : tuple of str
        Likelihood of each column.
    n_levels : tuple of int
        Number of levels of each column; 0 for columns of numbers.
    """

    kinds: tuple[str, ...]
    n_levels: tuple[int, ...]

    def __len__(self) -> int:
        return len(self.kinds)

    @property
    def width(self) -> int:
        """Number of columns of the network's rows."""
        return len(self.source)

    @cached_property
    def order(self) -> tuple[int, ...]:
        """Indices of the table's columns in the order of the network; categories come last."""
        found = [*sorted(set(self.kinds) - {CATEGORICAL}), CATEGORICAL]
        return tuple(sorted(range(len(self)), key=lambda j: found.index(self.kinds[j])))

    @cached_property
    def source(self) -> Tensor:
        """For each column of the network, the index of the table's column that it encodes."""
        order = torch.tensor(self.order)
        widths = torch.tensor([max(1, self.n_levels[j]) for j in self.order])
        return order.repeat_interleave(widths)

    @cached_property
    def level(self) -> Tensor:
        """For each column of the network that stands for a level, the index of that level."""
        levels = [torch.arange(self.n_levels[j]) for j in self.order if self.n_levels[j]]
        return torch.cat(levels) if levels else torch.zeros(0, dtype=torch.long)

    @property
    def n_numbers(self) -> int:
        """Number of columns of the network that are numbers; they come first."""
        return self.width - len(self.level)

    @cached_property
    def place(self) -> Tensor:
        """For each column of the table, the index of its first column in the network's rows."""
        first = torch.full((len(self),), self.width)
        return first.scatter_reduce(0, self.source, torch.arange(self.width), "amin")

    @cached_property
    def sizes(self) -> tuple[int, ...]:
        """Number of levels of each category, in the order of the network."""
        return tuple(self.n_levels[j] for j in self.order if self.n_levels[j])

    @cached_property
    def parts(self) -> dict[str, slice]:
        """Slices of the network's columns, one for each kind."""
        kinds = [self.kinds[j] for j in self.source.tolist()]
        return {
            kind: slice(kinds.index(kind), kinds.index(kind) + kinds.count(kind))
            for kind in dict.fromkeys(kinds)
        }

    def among(self, kinds: tuple[str, ...]) -> Tensor:
        """Return a mask of the network's columns that are of these kinds."""
        found = torch.zeros(self.width, dtype=torch.bool)
        for kind in kinds:
            if kind in self.parts:
                found[self.parts[kind]] = True
        return found

    def expand(self, rows: Tensor) -> Tensor:
        """Convert rows of the table to those of the network; levels of missing values are NaN."""
        rows = rows if rows.is_floating_point() else rows.double()
        wide = rows.index_select(1, self.source.to(rows.device))
        codes = wide[:, self.n_numbers :]
        found = (codes == self.level.to(codes)).to(codes.dtype)
        wide[:, self.n_numbers :] = torch.where(codes.isnan(), codes, found)
        return wide

    def as_read(self, wide: Tensor) -> Tensor:
        """Return the encoder's input before standardisation: log(1 + x) for counts.

        Without the logarithm, an unusually large count would give a code so far from the others
        that the decoder has not learned to decode it.
        """
        if COUNTS not in self.parts:
            return wide
        read, part = wide.clone(), self.parts[COUNTS]
        read[:, part] = wide[:, part].clamp(min=0.0).log1p()
        return read

    def collapse(self, wide: Tensor) -> Tensor:
        """Convert rows of the network to rows of the table; a category gets its largest level."""
        found = self.first(wide)
        for j, n in enumerate(self.n_levels):
            if n:
                start = int(self.place[j])
                found[:, j] = wide[:, start : start + n].argmax(1).to(wide.dtype)
        return found

    def first(self, wide: Tensor) -> Tensor:
        """Return one value for each column, from values that are equal for all its levels."""
        return wide.index_select(-1, self.place.to(wide.device))

    def total(self, wide: Tensor) -> Tensor:
        """Sum over the levels of each column; the result has shape (..., n_columns)."""
        shape = (*wide.shape[:-1], len(self))
        return wide.new_zeros(shape).index_add(-1, self.source.to(wide.device), wide)
