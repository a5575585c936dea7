"""p(x|z) of a table in which every column has its own likelihood."""

from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, nullcontext
from functools import reduce
from typing import Any, Self, cast

import torch
from torch import Tensor, nn
from torch.autograd.function import once_differentiable

from skae._nn.likelihood_base import Likelihood
from skae._nn.likelihoods import LIKELIHOODS, WithNoise
from skae._nn.negative_binomial import NegativeBinomial
from skae._training.columns import CATEGORICAL, Columns
from skae._training.ranks import Part

# For logits up to this absolute value, exp and its sums are finite in float32 and above 0.
_LARGE = 60.0
# Added to the frequency of each level in the initial outputs, because some levels do not occur.
_LEAST_CHANCE = 1e-4

# Likelihoods of columns that may be shifted and scaled.
LOCATED = tuple(name for name, kind in LIKELIHOODS.items() if kind.location)
# The range of values that columns may have; categories are indices of known levels. Columns of a
# table have no negative binomial distribution.
SUPPORTS = {
    name: kind.support
    for name, kind in LIKELIHOODS.items()
    if not issubclass(kind, NegativeBinomial)
} | {CATEGORICAL: (float("-inf"), float("inf"))}


class Categorical(Likelihood):
    """A softmax over the levels of each column; rows are 1 at their level, and 0 elsewhere.

    All columns are computed together, by products with the matrix that assigns levels to columns. A
    separate softmax for each column would take longer than the layers of a network.
    """

    of_column: Tensor

    def __init__(self, sizes: tuple[int, ...]) -> None:
        super().__init__()
        self.sizes = sizes
        column = torch.arange(len(sizes)).repeat_interleave(torch.tensor(sizes))
        of_column = nn.functional.one_hot(column, len(sizes)).float()
        self.register_buffer("of_column", of_column, persistent=False)

    def log_prob(self, x: Tensor, output: Tensor) -> Tensor:
        """Return x log p of every level."""
        return x * self.log_chances(output)

    def log_chances(self, output: Tensor) -> Tensor:
        """Return log p of every level."""
        with _full_precision(output):
            of_column, logit = self.of_column.to(output), self._moderate(output)
            return logit - (logit.exp() @ of_column).log() @ of_column.T

    def _moderate(self, output: Tensor) -> Tensor:
        """Shift and clip logits, so that exp neither overflows nor sums to 0."""
        looks = output.numel() and not torch.compiler.is_compiling()
        if looks and float(torch.linalg.vector_norm(output.detach(), torch.inf)) < _LARGE:
            return output
        largest = torch.stack([part.amax(-1) for part in output.split(self.sizes, -1)], -1)
        sizes = torch.tensor(self.sizes, device=output.device)
        return output - largest.detach().repeat_interleave(sizes, -1)

    def row_log_prob_and_slope(
        self, x: Tensor, output: Tensor, seen: Tensor | None
    ) -> tuple[Tensor, Tensor]:
        of_column, logit = self.of_column.to(output), self._moderate(output)
        weight = logit.exp()
        total = weight @ of_column
        if seen is None:
            nats = (x * logit).sum(-1) - total.log().sum(-1)
            return nats, torch.addcmul(x, weight, total.reciprocal_() @ of_column.T, value=-1)
        # All levels of a missing value are 0, so that `seen` is not needed.
        of_column_seen = x @ of_column
        nats = (x * logit).sum(-1) - (of_column_seen * total.log()).sum(-1)
        of_level = (of_column_seen / total) @ of_column.T
        return nats, torch.addcmul(x, weight, of_level, value=-1)

    def mean(self, output: Tensor) -> Tensor:
        return self.log_chances(output).exp()

    def draw(self, output: Tensor, generator: torch.Generator) -> Tensor:
        return self.at(output, torch.rand(output.shape, generator=generator, device=output.device))

    def at(self, output: Tensor, uniform: Tensor) -> Tensor:
        """Return the level that the first uniform number of each column determines."""
        first = torch.tensor((0, *self.sizes[:-1]), device=output.device).cumsum(0)
        column = torch.arange(len(first), device=output.device)
        column = column.repeat_interleave(torch.tensor(self.sizes, device=output.device))
        chance = self.mean(output)
        wide = chance.dtype if chance.device.type == "mps" else torch.float64
        total = chance.cumsum(-1, dtype=wide)
        before = (total - chance)[..., first][..., column]
        passed = (total - before <= uniform[..., first][..., column]).to(chance)
        last = torch.tensor(self.sizes, device=output.device) - 1
        # Rounding may leave the sum below 1.
        index = torch.minimum(passed @ self.of_column.to(chance), last)
        level = torch.arange(len(column), device=output.device) - first[column]
        return (level == index[..., column]).to(chance)

    def natural(self, mean: Tensor) -> Tensor:
        return (mean + _LEAST_CHANCE).log()


def _full_precision(output: Tensor) -> AbstractContextManager[Any]:
    """Context in which products are not computed in bfloat16; free without autocast."""
    device = output.device.type
    if not torch.is_autocast_enabled(device):
        return nullcontext()
    return torch.autocast(device, enabled=False)


class _RowLogProb(torch.autograd.Function):
    """`row_log_prob` of a mixed likelihood, with its gradient by formulas.

    The automatic gradient of the operations for each kind would take as long as that of the layers.
    """

    @staticmethod
    def forward(ctx: Any, mixed: "Mixed", x: Tensor, output: Tensor, seen: Tensor | None) -> Tensor:
        with _full_precision(output):
            pairs = [
                kind.row_log_prob_and_slope(*parts)
                for kind, parts in zip(mixed.kinds(), mixed.split(x, output, seen), strict=True)
            ]
        nats, slopes = zip(*pairs, strict=True)
        ctx.save_for_backward(torch.cat(slopes, -1))
        found: Tensor = reduce(torch.add, nats)
        return found

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, gradient: Tensor) -> tuple[None, None, Tensor, None]:
        (slope,) = ctx.saved_tensors
        return None, None, slope * gradient[..., None], None


class Mixed(WithNoise):
    """The likelihood of each column, with a noise variance for each column of numbers.

    Parameters
    ----------
    columns : Columns
        The kinds and the positions of the columns.
    noise : float or None
        The noise variance of every column that has one, in the decoder's units. None if it is
        learned.
    floor : float
        Smallest learned variance, as a fraction of the variance of the column.
    log_scale : Tensor, default=None
        log |dx/dy| of every column, by which log densities change in the units of the data.
    """

    # Only some columns may be shifted and scaled; the architecture determines which.
    location = False

    log_scale: Tensor

    def __init__(
        self,
        columns: Columns,
        noise: float | None,
        floor: float,
        log_scale: Tensor | None = None,
    ) -> None:
        super().__init__(columns.width, "per_feature", 1.0, floor)
        log_scale = torch.zeros(columns.width) if log_scale is None else log_scale.float()
        self.register_buffer("log_scale", log_scale, persistent=False)
        self.total_log_scale = float(log_scale.sum())
        located = columns.among(LOCATED)
        self.learned = noise is None and bool(located.any())
        if noise is not None:
            self.variance[located] = noise
        # A list hides the modules from torch, because their noise is part of this module's state.
        self._kinds = [_likelihood_of(kind, columns) for kind in columns.parts]
        self._noisy = [(j, k) for j, k in enumerate(self._kinds) if isinstance(k, WithNoise)]
        self._widths = [part.stop - part.start for part in columns.parts.values()]

    def _apply(self, fn: Any, recurse: bool = True) -> Self:
        for kind in self._kinds:
            kind._apply(fn, recurse)
        return super()._apply(fn, recurse)

    def kinds(self, variance: Tensor | None = None) -> list[Likelihood]:
        """Return the likelihoods of the kinds, with their part of the noise variances."""
        variance = self.variance if variance is None else variance
        parts = variance.split_with_sizes(self._widths, -1)
        for j, kind in self._noisy:
            kind._buffers["variance"] = parts[j]  # setting an attribute of a module is slow
        return self._kinds

    def split(self, *values: Tensor | None) -> Iterator[tuple[Any, ...]]:
        """Yield the columns of each kind; None stays None."""
        # Slices are avoided, because the gradient of each would be as wide as all columns.
        parts = [
            [None] * len(self._widths) if v is None else v.split_with_sizes(self._widths, -1)
            for v in values
        ]
        return zip(*parts, strict=True)

    def _each(self, compute: Callable[..., Tensor], *values: Tensor | None) -> list[Tensor]:
        """Return the results of a function of each kind's likelihood and columns."""
        pairs = zip(self.kinds(), self.split(*values), strict=True)
        return [compute(kind, *parts) for kind, parts in pairs]

    def density(self, x: Tensor, output: Tensor, variance: Tensor) -> Tensor:
        """Return the nats of every column; each level of a category gets the nats of its column."""
        pairs = zip(self.kinds(variance), self.split(x, output), strict=True)
        return torch.cat([kind.log_prob(*parts) for kind, parts in pairs], -1)

    def row_log_prob(self, x: Tensor, output: Tensor, seen: Tensor | None = None) -> Tensor:
        if output.requires_grad and torch.is_grad_enabled() and not x.requires_grad:
            return cast(Tensor, _RowLogProb.apply(self, x, output, seen))
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
        """Return the deviations for the noise variance; they are 0 for columns without noise."""

        def of_kind(kind: Likelihood, x: Tensor, output: Tensor) -> Tensor:
            if not isinstance(kind, WithNoise):
                return torch.zeros_like(output)
            return kind.deviation(x.expand_as(output), output)

        return torch.cat(self._each(of_kind, x, output), -1)

    @torch.no_grad()
    def follow(
        self,
        x: Tensor,
        output: Tensor,
        weight: Tensor | None,
        seen: Tensor | None,
        part: Part | None = None,
    ) -> None:
        if not self.learned:
            return
        self.kinds()
        before = self.n_updates.clone()
        for j, kind in self._noisy:  # their variances are views of this module's variance
            self.n_updates.copy_(before)  # because each of them increases it
            kind.floor, kind._buffers["n_updates"] = self.floor, self.n_updates
            start, width = sum(self._widths[:j]), self._widths[j]
            of_x, of_output = (values.narrow(-1, start, width) for values in (x, output))
            of_seen = None if seen is None else seen.narrow(-1, start, width)
            kind.follow(of_x, of_output, weight, of_seen, part)

    def variance_of(self, mean_deviation: Tensor) -> Tensor:
        def of_kind(kind: Likelihood, deviation: Tensor) -> Tensor:
            if isinstance(kind, WithNoise):
                return kind.variance_of(deviation)
            return torch.ones_like(deviation)

        return torch.cat(self._each(of_kind, mean_deviation), -1)


def _likelihood_of(kind: str, columns: Columns) -> Likelihood:
    """Return the likelihood of all columns of a kind."""
    if kind == CATEGORICAL:
        return Categorical(columns.sizes)
    found = LIKELIHOODS[kind]
    width = len(range(columns.width)[columns.parts[kind]])
    return found(width, "per_feature", 1.0) if issubclass(found, WithNoise) else found()
