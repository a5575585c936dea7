"""p(x|z) of a table whose columns have likelihoods of their own, categories among them."""

from collections.abc import Iterator
from functools import reduce
from typing import Any, Self

import torch
from torch import Tensor, nn

from skae._nn.likelihoods import LIKELIHOODS, Likelihood, WithNoise
from skae._training.columns import CATEGORICAL, Columns

# Logits, less their mean over the levels, are at most this: exp of it stays finite in float32.
_MAX_LOGIT = 60.0
# What is added to the frequency of each level where outputs begin: some are never seen.
_LEAST_CHANCE = 1e-4

# Kinds of columns that may be shifted and scaled.
LOCATED = tuple(name for name, kind in LIKELIHOODS.items() if kind.location)
# What values columns may have; of categories, which are indices of levels, all are known.
SUPPORTS = {name: kind.support for name, kind in LIKELIHOODS.items()} | {
    CATEGORICAL: (float("-inf"), float("inf"))
}


class Categorical(Likelihood):
    """A softmax over the levels of each column; rows are 1 at their level, and 0 elsewhere.

    All columns are computed at once, by products with the matrix that tells which level is of
    which column: a softmax for each would take longer than the layers of a network.
    """

    of_column: Tensor
    mean_of_column: Tensor

    def __init__(self, sizes: tuple[int, ...]) -> None:
        super().__init__()
        self.sizes = sizes
        column = torch.arange(len(sizes)).repeat_interleave(torch.tensor(sizes))
        of_column = nn.functional.one_hot(column, len(sizes)).float()
        self.register_buffer("of_column", of_column, persistent=False)
        self.register_buffer("mean_of_column", of_column / of_column.sum(0), persistent=False)

    def log_prob(self, x: Tensor, output: Tensor) -> Tensor:
        """x log p of every level."""
        return x * self.log_chances(output)

    def log_chances(self, output: Tensor) -> Tensor:
        """log p of every level."""
        with torch.autocast(output.device.type, enabled=False):
            of_column, mean = self.of_column.to(output), self.mean_of_column.to(output)
            logit = (output - (output @ mean) @ of_column.T).clamp(max=_MAX_LOGIT)
            # Each sum is at least 1, as some logit is at least the mean.
            return logit - (logit.exp() @ of_column).log() @ of_column.T

    def mean(self, output: Tensor) -> Tensor:
        return self.log_chances(output).exp()

    def draw(self, output: Tensor, generator: torch.Generator) -> Tensor:
        return self.at(output, torch.rand(output.shape, generator=generator, device=output.device))

    def at(self, output: Tensor, uniform: Tensor) -> Tensor:
        """The level up to which chances add up to more than the uniform number of the first."""
        first = torch.tensor((0, *self.sizes[:-1]), device=output.device).cumsum(0)
        column = torch.arange(len(first), device=output.device)
        column = column.repeat_interleave(torch.tensor(self.sizes, device=output.device))
        chance = self.mean(output)
        wide = chance.dtype if chance.device.type == "mps" else torch.float64
        total = chance.cumsum(-1, dtype=wide)
        before = (total - chance)[..., first][..., column]
        passed = (total - before <= uniform[..., first][..., column]).to(chance)
        last = torch.tensor(self.sizes, device=output.device) - 1
        index = torch.minimum(passed @ self.of_column.to(chance), last)  # sums may be below 1
        level = torch.arange(len(column), device=output.device) - first[column]
        return (level == index[..., column]).to(chance)

    def natural(self, mean: Tensor) -> Tensor:
        return (mean + _LEAST_CHANCE).log()


class Mixed(WithNoise):
    """The likelihood of each column, with a noise variance for each that has one, else 1.

    Parameters
    ----------
    columns : Columns
        Their kinds, and where they stand.
    noise : Tensor or None
        The variance of every column, in the decoder's units, where it is given; else learned.
    floor : float
        What a learned variance is at least, as a share of the variance of the column.
    """

    # Some columns may be shifted and scaled, others not: the architecture knows which.
    location = False

    def __init__(self, columns: Columns, noise: Tensor | None, floor: float) -> None:
        super().__init__(columns.width, "per_feature", 1.0, floor)
        located = columns.among(LOCATED)
        self.learned = noise is None and bool(located.any())
        if noise is not None:
            self.variance.copy_(noise.where(located, torch.ones_like(noise)))
        # In a list they have no state of their own: the noise of all is held here.
        self._kinds: list[tuple[Likelihood, slice]] = [
            (_likelihood_of(kind, columns), part) for kind, part in columns.parts.items()
        ]

    def _apply(self, fn: Any, recurse: bool = True) -> Self:
        for kind, _ in self._kinds:
            kind._apply(fn, recurse)
        return super()._apply(fn, recurse)

    def _parts(self, variance: Tensor | None = None) -> Iterator[tuple[Likelihood, slice]]:
        """The kinds, with their noise, and where their columns stand."""
        variance = self.variance if variance is None else variance
        for kind, part in self._kinds:
            if isinstance(kind, WithNoise):
                kind.variance = variance[..., part]
            yield kind, part

    def density(self, x: Tensor, output: Tensor, variance: Tensor) -> Tensor:
        """Nats of every column; of a category those of a level are the nats of its one column."""
        found = [kind.log_prob(x[..., p], output[..., p]) for kind, p in self._parts(variance)]
        return torch.cat(found, -1)

    def row_log_prob(self, x: Tensor, output: Tensor, seen: Tensor | None = None) -> Tensor:
        found = [
            kind.row_log_prob(x[..., p], output[..., p], None if seen is None else seen[..., p])
            for kind, p in self._parts()
        ]
        return reduce(torch.add, found)

    def mean(self, output: Tensor) -> Tensor:
        return torch.cat([kind.mean(output[..., p]) for kind, p in self._parts()], -1)

    def draw(self, output: Tensor, generator: torch.Generator) -> Tensor:
        return torch.cat([kind.draw(output[..., p], generator) for kind, p in self._parts()], -1)

    def at(self, output: Tensor, uniform: Tensor) -> Tensor:
        return torch.cat([k.at(output[..., p], uniform[..., p]) for k, p in self._parts()], -1)

    def natural(self, mean: Tensor) -> Tensor:
        return torch.cat([kind.natural(mean[..., p]) for kind, p in self._parts()], -1)

    def deviation(self, x: Tensor, output: Tensor) -> Tensor:
        """What the noise is estimated from; 0 of columns without."""
        found = torch.zeros_like(output)
        for kind, p in self._kinds:
            if isinstance(kind, WithNoise):
                found[..., p] = kind.deviation(x[..., p].expand_as(output[..., p]), output[..., p])
        return found

    def variance_of(self, mean_deviation: Tensor) -> Tensor:
        found = torch.ones_like(mean_deviation)
        for kind, p in self._kinds:
            if isinstance(kind, WithNoise):
                found[..., p] = kind.variance_of(mean_deviation[..., p])
        return found


def _likelihood_of(kind: str, columns: Columns) -> Likelihood:
    """That of all columns of a kind."""
    if kind == CATEGORICAL:
        return Categorical(columns.sizes)
    found = LIKELIHOODS[kind]
    width = len(range(columns.width)[columns.parts[kind]])
    return found(width, "per_feature", 1.0) if issubclass(found, WithNoise) else found()
