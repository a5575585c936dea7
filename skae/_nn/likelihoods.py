"""Likelihoods p(x|z) of each feature, whose parameters are the decoder's outputs.

A likelihood module has a log density, a noise variance if it is learned, and computes means, draws
and initial outputs.

References
----------
O. Rybkin, K. Daniilidis and S. Levine (2021). Simple and effective VAE training with
calibrated decoders. ICML. :doi:`10.48550/arXiv.2006.13202`
"""

from abc import abstractmethod
from math import pi
from typing import cast

import torch
from torch import Tensor
from torch.nn.functional import l1_loss, mse_loss
from torch.special import ndtri

from skae._nn.counts import Poisson
from skae._nn.densities import (
    bernoulli_at,
    bernoulli_log_mass,
    bernoulli_row_log_mass,
    continuous_bernoulli_log_density,
    continuous_bernoulli_mean,
    gaussian_log_density,
    laplace_log_density,
)
from skae._nn.likelihood_base import Likelihood
from skae._nn.negative_binomial import NegativeBinomial, ZeroInflatedNegativeBinomial
from skae._training.data import Batch
from skae._training.ranks import Part

# Largest initial output of the continuous Bernoulli, at which the mean is 0.02 or 0.98.
_MAX_LOGIT = 50.0
# Smallest uniform number, for which the normal quantile is finite.
_LEAST = 2.0**-25
# Weight of a batch in the running estimate of the noise variance.
MOMENTUM = 0.05


class WithNoise(Likelihood):
    """A location and a noise variance: one for all features, one for each, or a given one.

    The variance is not a parameter of the optimiser, because its maximum likelihood given the
    outputs has a closed form. During training it is a running mean of these values. It therefore
    adapts faster than by the small steps of the optimiser, and does not overshoot.
    """

    location = True
    variance: Tensor
    n_updates: Tensor

    def __init__(
        self, n_features: int, noise: str | float, mean_variance: float, floor: float = 1e-4
    ) -> None:
        super().__init__()
        self.learned = isinstance(noise, str)
        self.floor = floor * mean_variance
        shape = (n_features,) if noise == "per_feature" else ()
        start = mean_variance if isinstance(noise, str) else noise
        self.register_buffer("variance", torch.full(shape, start))
        self.register_buffer("n_updates", torch.tensor(0.0))

    def mean(self, output: Tensor) -> Tensor:
        return output

    def set_variance(self, variance: Tensor) -> None:
        """Set the variance, which is at least the floor."""
        self.variance.copy_(variance.clamp(min=self.floor))

    def step_scale(self) -> Tensor:
        """Return the mean variance, which cancels the variance that divides squared errors."""
        return self.variance.mean() if self.variance.ndim else self.variance

    @abstractmethod
    def density(self, x: Tensor, output: Tensor, variance: Tensor) -> Tensor:
        """Return the nats of every value with this noise variance."""

    def log_prob(self, x: Tensor, output: Tensor) -> Tensor:
        return self.density(x, output, self.variance)

    @abstractmethod
    def deviation(self, x: Tensor, output: Tensor) -> Tensor:
        """Return the deviation of every value, from which the noise variance is estimated."""

    def mean_deviation(self, x: Tensor, output: Tensor) -> Tensor:
        """Return the mean deviation over rows, for each feature or over all features."""
        deviation = self.deviation(x, output)
        return deviation.mean(0) if self.variance.ndim else deviation.mean()

    @abstractmethod
    def variance_of(self, mean_deviation: Tensor) -> Tensor:
        """Return the maximum-likelihood variance, from the mean deviation of observed values."""

    @torch.no_grad()
    def follow(
        self,
        x: Tensor,
        output: Tensor,
        weight: Tensor | None,
        seen: Tensor | None,
        part: Part | None = None,
    ) -> None:
        """Move the running variance towards that of a batch."""
        if not self.learned:
            return
        self.n_updates += 1
        rate = self.n_updates.reciprocal().clamp(min=MOMENTUM)
        if weight is None and seen is None and part is None:
            mean = self.mean_deviation(x, output)
        else:
            total, count = self.sums(self.deviation(x, output), weight, seen)
            if part is not None:
                total, count = part.sums(total, count)
            mean = (total / count.clamp(min=1e-30)).float()
            rate = torch.where(count > 0, rate, 0.0)
        self.variance.copy_(self.variance.lerp(self.variance_of(mean), rate).clamp(min=self.floor))

    def sums(
        self, deviation: Tensor, weight: Tensor | None, seen: Tensor | None
    ) -> tuple[Tensor, Tensor]:
        """Return the weighted sum of observed values' deviations, and their weight."""
        counts = torch.ones_like(deviation) if seen is None else seen
        if weight is not None:
            counts = counts * weight[:, None]
        # "mps" has no float64.
        wide = torch.float32 if counts.device.type == "mps" else torch.float64
        total, count = (deviation * counts).sum(0, dtype=wide), counts.sum(0, dtype=wide)
        return (total, count) if self.variance.ndim else (total.sum(), count.sum())


class NoiseSums:
    """Computes the noise variance of a likelihood exactly, from all rows in chunks."""

    def __init__(self, likelihood: Likelihood) -> None:
        learned = isinstance(likelihood, WithNoise) and likelihood.learned
        self.likelihood = cast(WithNoise, likelihood) if learned else None
        self.total: Tensor | float = 0.0
        self.count: Tensor | float = 0.0

    def add(self, x: Tensor, output: Tensor, weight: Tensor | None, seen: Tensor | None) -> None:
        """Add a chunk of rows."""
        if self.likelihood is None:
            return
        deviation = self.likelihood.deviation(x, output)
        total, count = self.likelihood.sums(deviation, weight, seen)
        self.total, self.count = self.total + total, self.count + count

    def settle(self, weight: float = 1.0, before: Tensor | None = None) -> None:
        """Set the variance; `weight` is the weight of these rows against the variance `before`."""
        if self.likelihood is None or not isinstance(self.count, Tensor):
            return
        old = self.likelihood.variance
        new = self.likelihood.variance_of(self.total / self.count.clamp(min=1e-300)).float()
        # A column without observed values keeps its variance.
        new = torch.where(self.count > 0, new, old)
        self.likelihood.set_variance(new if before is None else before.lerp(new, weight))


def explained(
    batch: Batch, output: Tensor, importance: Tensor | None
) -> tuple[Tensor, Tensor, Tensor | None, Tensor | None]:
    """Return rows, outputs, weights and masks; several draws of a row are weighted by importance.

    With these weights, the maximum-likelihood noise variance maximises the bound given the outputs.
    """
    if importance is None:
        return batch.y, output, batch.weight, batch.seen
    n_draws = importance.shape[1]
    weight = importance if batch.weight is None else importance * batch.weight[:, None]
    seen = None if batch.seen is None else batch.seen.repeat_interleave(n_draws, 0)
    return batch.y.repeat_interleave(n_draws, 0), output.flatten(0, 1), weight.flatten(), seen


class Gaussian(WithNoise):
    """N(output, variance)."""

    def density(self, x: Tensor, output: Tensor, variance: Tensor) -> Tensor:
        return gaussian_log_density(x, output, variance)

    def row_log_prob(self, x: Tensor, output: Tensor, seen: Tensor | None = None) -> Tensor:
        squares = mse_loss(output, x.expand_as(output), reduction="none")
        log_norm = (2 * pi * self.variance).log()  # computed once, not for each value
        if self.variance.ndim:
            squares = squares * self.variance.reciprocal()
            if seen is None:
                return -0.5 * (squares.sum(-1) + log_norm.sum(-1))
            return -0.5 * ((squares * seen).sum(-1) + (seen * log_norm).sum(-1))
        if seen is not None:
            return super().row_log_prob(x, output, seen)
        constant = -0.5 * x.shape[-1] * log_norm
        return torch.addcdiv(constant, squares.sum(-1), self.variance, value=-0.5)

    def row_log_prob_and_slope(
        self, x: Tensor, output: Tensor, seen: Tensor | None
    ) -> tuple[Tensor, Tensor]:
        deviation = x - output
        slope = deviation / self.variance
        log_norm = (2 * pi * self.variance).log().expand(output.shape[-1])
        if seen is None:
            return -0.5 * ((deviation * slope).sum(-1) + log_norm.sum()), slope
        slope = slope * seen
        return -0.5 * ((deviation * slope).sum(-1) + (seen * log_norm).sum(-1)), slope

    def draw(self, output: Tensor, generator: torch.Generator) -> Tensor:
        noise = torch.empty_like(output).normal_(generator=generator)
        return output + self.variance.sqrt() * noise

    def at(self, output: Tensor, uniform: Tensor) -> Tensor:
        return output + self.variance.sqrt() * ndtri(uniform.clamp(min=_LEAST))

    def deviation(self, x: Tensor, output: Tensor) -> Tensor:
        return mse_loss(output, x, reduction="none")

    def mean_deviation(self, x: Tensor, output: Tensor) -> Tensor:
        # One pass without a temporary array, because this is called for every batch.
        return super().mean_deviation(x, output) if self.variance.ndim else mse_loss(output, x)

    def variance_of(self, mean_deviation: Tensor) -> Tensor:
        return mean_deviation


class Laplace(WithNoise):
    """The Laplace distribution around the output."""

    def density(self, x: Tensor, output: Tensor, variance: Tensor) -> Tensor:
        return laplace_log_density(x, output, variance)

    def row_log_prob_and_slope(
        self, x: Tensor, output: Tensor, seen: Tensor | None
    ) -> tuple[Tensor, Tensor]:
        slope = (x - output).sign() / (self.variance / 2).sqrt()
        slope = slope if seen is None else slope * seen
        return self.row_log_prob(x, output, seen), slope

    def draw(self, output: Tensor, generator: torch.Generator) -> Tensor:
        # A Laplace variable is the difference of two exponential ones of scale b.
        first, second = (torch.empty_like(output).exponential_(generator=generator) for _ in "ab")
        return output + (self.variance / 2).sqrt() * (first - second)

    def at(self, output: Tensor, uniform: Tensor) -> Tensor:
        tail = 2 * torch.minimum(uniform, 1 - uniform).clamp(min=_LEAST)
        return output + (self.variance / 2).sqrt() * tail.log() * (0.5 - uniform).sign()

    def deviation(self, x: Tensor, output: Tensor) -> Tensor:
        return l1_loss(output, x, reduction="none")

    def variance_of(self, mean_deviation: Tensor) -> Tensor:
        return 2 * mean_deviation.square()


class Bernoulli(Likelihood):
    """Bernoulli distribution; values in (0, 1) get the expected log probability, not a density."""

    support = (0.0, 1.0)

    def log_prob(self, x: Tensor, output: Tensor) -> Tensor:
        return bernoulli_log_mass(x, output)

    def row_log_prob(self, x: Tensor, output: Tensor, seen: Tensor | None = None) -> Tensor:
        if seen is not None or x.requires_grad:
            return super().row_log_prob(x, output, seen)
        return bernoulli_row_log_mass(x.expand(output.shape), output)

    def mean(self, output: Tensor) -> Tensor:
        return torch.sigmoid(output)

    def draw(self, output: Tensor, generator: torch.Generator) -> Tensor:
        return torch.bernoulli(torch.sigmoid(output), generator=generator)

    def at(self, output: Tensor, uniform: Tensor) -> Tensor:
        return bernoulli_at(output, uniform)

    def natural(self, mean: Tensor) -> Tensor:
        return torch.logit(mean, eps=1e-2)


class ContinuousBernoulli(Likelihood):
    """The density on [0, 1] that is proportional to e^(output x)."""

    support = (0.0, 1.0)

    def log_prob(self, x: Tensor, output: Tensor) -> Tensor:
        return continuous_bernoulli_log_density(x, output)

    def mean(self, output: Tensor) -> Tensor:
        return continuous_bernoulli_mean(output)

    def draw(self, output: Tensor, generator: torch.Generator) -> Tensor:
        return self.at(output, torch.rand(output.shape, generator=generator, device=output.device))

    def at(self, output: Tensor, uniform: Tensor) -> Tensor:
        # The inverse of the distribution function is log(1 + u (e^a - 1)) / a, at a = -|output|.
        a = -output.abs().clamp(min=1e-4)
        x = torch.log1p(uniform * torch.expm1(a)) / a
        return torch.where(output > 0, 1 - x, x).clamp(0, 1)

    def natural(self, mean: Tensor) -> Tensor:
        low, high = torch.full_like(mean, -_MAX_LOGIT), torch.full_like(mean, _MAX_LOGIT)
        for _ in range(40):  # bisection, because the mean increases with the output
            middle = (low + high) / 2
            below = continuous_bernoulli_mean(middle) < mean
            low, high = torch.where(below, middle, low), torch.where(below, high, middle)
        return (low + high) / 2


LIKELIHOODS: dict[str, type[Likelihood]] = {
    "gaussian": Gaussian,
    "bernoulli": Bernoulli,
    "continuous_bernoulli": ContinuousBernoulli,
    "poisson": Poisson,
    "laplace": Laplace,
    "negative_binomial": NegativeBinomial,
    "zero_inflated_negative_binomial": ZeroInflatedNegativeBinomial,
}


def likelihood_module(
    name: str,
    n_features: int,
    noise: str | float,
    *,
    unit: float,
    mean_variance: float,
    floor: float = 1e-4,
) -> Likelihood:
    """Return the module of a likelihood.

    `noise` is "scalar" or "per_feature" for a learned variance, or a fixed variance in the units of
    the data; `unit` is the unit of the module in these. A learned variance begins at
    `mean_variance`, the mean variance of the features in the module's units, and is at least
    `floor` times this value.
    """
    kind = LIKELIHOODS[name]
    if not issubclass(kind, WithNoise):
        return kind()
    if isinstance(noise, str):
        return kind(n_features, noise, mean_variance, floor)
    variance = noise / unit**2
    if not 1e-30 < variance < 1e30:
        raise ValueError(
            f"noise_variance={noise} differs too much from the variance of X, "
            f"{unit**2 * mean_variance:g}: their ratio must be between 1e-30 and 1e30. Change "
            "noise_variance or rescale X."
        )
    return kind(n_features, variance, mean_variance, floor)
