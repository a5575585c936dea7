"""p(x|z) of a table whose columns have likelihoods of their own, categories among them."""

from collections.abc import Callable, Iterator
from functools import reduce
from typing import Any, Self

import torch
from torch import Tensor, nn
from torch.autograd.function import once_differentiable

from skae._nn.likelihoods import LIKELIHOODS, Likelihood, WithNoise
from skae._training.columns import CATEGORICAL, Columns

# Logits, less their mean over the levels, are at most this: exp of it stays finite in float32.
_MAX_LOGIT = 60.0
# What exp of them adds up to is at least this: the mean of logits beyond 1e8 is inexact.
_LEAST_SUM = 1e-30
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
            of_column = self.of_column.to(output)
            logit = _centred(output, of_column, self.mean_of_column.to(output))
            return logit - _totals(logit.exp(), of_column).log() @ of_column.T

    def row_log_prob(self, x: Tensor, output: Tensor, seen: Tensor | None = None) -> Tensor:
        # Of a column that was not seen all levels are 0, which tells as much as `seen`.
        if x.requires_grad:
            return self.log_prob(x, output).sum(-1)
        of_column, mean = self.of_column.to(output), self.mean_of_column.to(output)
        with torch.autocast(output.device.type, enabled=False):
            found: Tensor = _RowLogMass.apply(x, output, of_column, mean)
        return found

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


def _centred(output: Tensor, of_column: Tensor, mean_of_column: Tensor) -> Tensor:
    """Logits less their mean over the levels, bounded: of each column some are at least 0."""
    return (output - (output @ mean_of_column) @ of_column.T).clamp(max=_MAX_LOGIT)


def _totals(weight: Tensor, of_column: Tensor) -> Tensor:
    """What e^logit adds up to in each column: at least 1, but for rounding of huge logits."""
    return (weight @ of_column).clamp(min=_LEAST_SUM)


class _RowLogMass(torch.autograd.Function):
    """The sum of x log p over all levels of all columns; its gradient is x - p."""

    @staticmethod
    def forward(
        ctx: Any, x: Tensor, output: Tensor, of_column: Tensor, mean_of_column: Tensor
    ) -> Tensor:
        logit = _centred(output, of_column, mean_of_column)
        weight, seen = logit.exp(), x @ of_column
        total = _totals(weight, of_column)
        ctx.save_for_backward(x - weight.mul_((seen / total) @ of_column.T))
        return (x * logit).sum(-1) - (seen * total.log()).sum(-1)

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, gradient: Tensor) -> tuple[None, Tensor, None, None]:
        (delta,) = ctx.saved_tensors
        return None, delta * gradient[..., None], None, None


class Mixed(WithNoise):
    """The likelihood of each column, with a noise variance for each that has one, else 1.

    Parameters
    ----------
    columns : Columns
        Their kinds, and where they stand.
    noise : float or None
        The variance of every column that has one, in the decoder's units, if given; else learned.
    floor : float
        What a learned variance is at least, as a share of the variance of the column.
    """

    # Some columns may be shifted and scaled, others not: the architecture knows which.
    location = False

    def __init__(self, columns: Columns, noise: float | None, floor: float) -> None:
        super().__init__(columns.width, "per_feature", 1.0, floor)
        located = columns.among(LOCATED)
        self.learned = noise is None and bool(located.any())
        if noise is not None:
            self.variance[located] = noise
        # In a list they have no state of their own: the noise of all is held here.
        self._kinds = [_likelihood_of(kind, columns) for kind in columns.parts]
        self._widths = [part.stop - part.start for part in columns.parts.values()]

    def _apply(self, fn: Any, recurse: bool = True) -> Self:
        for kind in self._kinds:
            kind._apply(fn, recurse)
        return super()._apply(fn, recurse)

    def _with_noise(self, variance: Tensor | None = None) -> list[Likelihood]:
        """The kinds, those with noise with their part of the variances of all."""
        parts = (self.variance if variance is None else variance).split(self._widths, -1)
        for kind, part in zip(self._kinds, parts, strict=True):
            if isinstance(kind, WithNoise):
                kind.variance = part
        return self._kinds

    def _split(self, *values: Tensor | None) -> Iterator[tuple[Any, ...]]:
        """Of every kind its columns; of None again None."""
        # Not by slices, of each of which the gradient would be as wide as all columns.
        parts = [
            [None] * len(self._widths) if v is None else v.split(self._widths, -1) for v in values
        ]
        return zip(*parts, strict=True)

    def _each(self, compute: Callable[..., Tensor], *values: Tensor | None) -> list[Tensor]:
        """Of every kind, with its noise, what a function makes of its columns."""
        pairs = zip(self._with_noise(), self._split(*values), strict=True)
        return [compute(kind, *parts) for kind, parts in pairs]

    def density(self, x: Tensor, output: Tensor, variance: Tensor) -> Tensor:
        """Nats of every column; of a category those of a level are the nats of its one column."""
        pairs = zip(self._with_noise(variance), self._split(x, output), strict=True)
        return torch.cat([kind.log_prob(*parts) for kind, parts in pairs], -1)

    def row_log_prob(self, x: Tensor, output: Tensor, seen: Tensor | None = None) -> Tensor:
        return reduce(torch.add, self._each(lambda k, *v: k.row_log_prob(*v), x, output, seen))

    def mean(self, output: Tensor) -> Tensor:
        return torch.cat(self._each(lambda kind, o: kind.mean(o), output), -1)

    def draw(self, output: Tensor, generator: torch.Generator) -> Tensor:
        return torch.cat(self._each(lambda kind, o: kind.draw(o, generator), output), -1)

    def at(self, output: Tensor, uniform: Tensor) -> Tensor:
        return torch.cat(self._each(lambda kind, *v: kind.at(*v), output, uniform), -1)

    def natural(self, mean: Tensor) -> Tensor:
        return torch.cat(self._each(lambda kind, m: kind.natural(m), mean), -1)

    def deviation(self, x: Tensor, output: Tensor) -> Tensor:
        """What the noise is estimated from; 0 of columns without."""

        def of_kind(kind: Likelihood, x: Tensor, output: Tensor) -> Tensor:
            if not isinstance(kind, WithNoise):
                return torch.zeros_like(output)
            return kind.deviation(x.expand_as(output), output)

        return torch.cat(self._each(of_kind, x, output), -1)

    @torch.no_grad()
    def follow(self, x: Tensor, output: Tensor, weight: Tensor | None, seen: Tensor | None) -> None:
        if not self.learned:
            return
        for kind, parts in zip(self._with_noise(), self._split(x, output, seen), strict=True):
            if isinstance(kind, WithNoise):  # its variance is a view of that of all
                kind.floor, kind.n_updates = self.floor, self.n_updates.clone()
                of_x, of_output, of_seen = parts
                kind.follow(of_x, of_output, weight, of_seen)
        self.n_updates += 1

    def variance_of(self, mean_deviation: Tensor) -> Tensor:
        def of_kind(kind: Likelihood, deviation: Tensor) -> Tensor:
            if isinstance(kind, WithNoise):
                return kind.variance_of(deviation)
            return torch.ones_like(deviation)

        return torch.cat(self._each(of_kind, mean_deviation), -1)


def _likelihood_of(kind: str, columns: Columns) -> Likelihood:
    """That of all columns of a kind."""
    if kind == CATEGORICAL:
        return Categorical(columns.sizes)
    found = LIKELIHOODS[kind]
    width = len(range(columns.width)[columns.parts[kind]])
    return found(width, "per_feature", 1.0) if issubclass(found, WithNoise) else found()
