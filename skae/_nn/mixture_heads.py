"""Mixtures of Gaussians or logistics in one dimension, in nats."""

from math import log, pi
from typing import NamedTuple, Self

import numpy as np
import torch
from scipy.special import log_expit, log_ndtr, ndtri_exp
from torch import Tensor
from torch.nn.functional import logsigmoid, softplus

# Smallest log scale of a component, in units of the standard deviation of the numbers. Without a
# bound, the density has no maximum if numbers occur repeatedly.
LEAST_LOG_SCALE = -9.0
# Uniform numbers keep this distance from 0 and 1, so that their logits are finite.
_LEAST_CHANCE = 1e-7
_HALF_LOG_2PI = 0.5 * log(2 * pi)
# Largest number of Newton steps or bisections for a quantile, and its accuracy.
_STEPS, _EXACT = 200, 1e-13


class Mixtures(NamedTuple):
    """Log weights, means and log scales of the components, (..., K), and their kind."""

    log_weight: Tensor
    mean: Tensor
    log_scale: Tensor
    kind: str = "gaussian"

    @classmethod
    def from_network(cls, out: Tensor, kind: str = "gaussian") -> Self:
        """Interpret a network's output (..., 3 K): log weights, means, and bounded log scales."""
        logits, mean, raw = out.chunk(3, dim=-1)
        log_scale = LEAST_LOG_SCALE + softplus(raw - LEAST_LOG_SCALE)
        return cls(logits.log_softmax(-1), mean, log_scale, kind)

    def of(self, index: int) -> Self:
        """Return the mixtures at an index of the first axis."""
        return self._replace(
            log_weight=self.log_weight[index],
            mean=self.mean[index],
            log_scale=self.log_scale[index],
        )

    def in_units(self, log_unit: Tensor) -> Self:
        """Return the mixtures of numbers that are larger by the factor exp(log_unit), (...)."""
        log_unit = log_unit[..., None]
        return self._replace(mean=self.mean * log_unit.exp(), log_scale=self.log_scale + log_unit)

    def log_prob(self, z: Tensor) -> Tensor:
        """Return log sum_k pi_k p((z - mu_k) / sigma_k) / sigma_k, (...)."""
        distance = (z[..., None] - self.mean) * (-self.log_scale).exp()
        if self.kind == "logistic":
            parts = self.log_weight - self.log_scale + logsigmoid(distance) + logsigmoid(-distance)
            return parts.logsumexp(-1)
        parts = self.log_weight - self.log_scale - 0.5 * distance.square()
        return parts.logsumexp(-1) - _HALF_LOG_2PI

    def draw(self, generator: torch.Generator) -> Tensor:
        """Draw a number from each mixture, (...)."""
        chance = torch.empty_like(self.log_weight).exponential_(generator=generator)
        which = (self.log_weight - chance.log()).argmax(-1, keepdim=True)
        mean, log_scale = (t.gather(-1, which)[..., 0] for t in (self.mean, self.log_scale))
        standard = torch.empty_like(mean)
        if self.kind == "logistic":
            standard.uniform_(generator=generator).logit_(eps=_LEAST_CHANCE)
        else:
            standard.normal_(generator=generator)
        return mean + log_scale.exp() * standard

    def to_normal(self, z: Tensor) -> Tensor:
        """Return Phi^-1(F(z)) for the mixture's distribution function F, as float64 on the CPU.

        It uses log F below the median and log(1 - F) above it, because F itself is not accurate in
        the upper tail.
        """
        log_weight, mean, log_scale = self._arrays()
        distance = (z.detach().double().numpy()[..., None] - mean) / np.exp(log_scale)
        return torch.from_numpy(_normal_quantile(*self._log_tails(log_weight, distance)))

    def from_normal(self, u: Tensor) -> Tensor:
        """Return the inverse of `to_normal`, F^-1(Phi(u)), as float64 on the CPU."""
        log_weight, mean, log_scale = self._arrays()
        scale, wanted = np.exp(log_scale), u.detach().double().numpy()
        # The quantile of the mixture lies between the smallest and the largest quantile of its
        # components.
        alone = mean + scale * self._standard_quantile(wanted)[..., None]
        low, high = alone.min(-1), alone.max(-1)
        z = (np.exp(log_weight) * alone).sum(-1)
        before = np.full(z.shape, np.inf)
        for _ in range(_STEPS):
            distance = (z[..., None] - mean) / scale
            found = _normal_quantile(*self._log_tails(log_weight, distance))
            error = np.abs(found - wanted)
            narrow = high - low <= _EXACT * (np.abs(low) + np.abs(high))
            if (narrow | (error <= _EXACT * (1 + np.abs(wanted)))).all():
                break
            low, high = np.where(found < wanted, z, low), np.where(found > wanted, z, high)
            # du/dz = p(z) / phi(u), in logarithms.
            log_p = _log_sum(log_weight - log_scale + self._log_standard(distance))
            with np.errstate(over="ignore", invalid="ignore"):
                newton = z + (wanted - found) * np.exp(-0.5 * found**2 - log_p)
            # Newton's steps are used as long as they converge, and bisection otherwise.
            good = (newton > low) & (newton < high) & (error <= 0.5 * before)
            z, before = np.where(good, newton, 0.5 * (low + high)), error
        return torch.from_numpy(z)

    # These functions use NumPy and float64, because torch lacks special functions for the tails.

    def _arrays(self) -> tuple[np.ndarray, ...]:
        return tuple(t.detach().double().numpy() for t in self[:3])

    def _log_standard(self, distance: np.ndarray) -> np.ndarray:
        """Return log p of a component of mean 0 and scale 1, times (2 pi)^1/2."""
        if self.kind == "logistic":
            return _HALF_LOG_2PI + log_expit(distance) + log_expit(-distance)
        with np.errstate(over="ignore"):
            return -0.5 * distance**2

    def _log_tails(
        self, log_weight: np.ndarray, distance: np.ndarray
    ) -> tuple[np.ndarray, np.ndarray]:
        """Return log F(z) and log(1 - F(z)), given the distances of z from the components."""
        log_below = log_expit if self.kind == "logistic" else log_ndtr
        return (
            _log_sum(log_weight + log_below(distance)),
            _log_sum(log_weight + log_below(-distance)),
        )

    def _standard_quantile(self, u: np.ndarray) -> np.ndarray:
        """Return the quantile Phi(u) of a component of mean 0 and scale 1."""
        return log_ndtr(u) - log_ndtr(-u) if self.kind == "logistic" else u


def _log_sum(values: np.ndarray) -> np.ndarray:
    top = values.max(-1, keepdims=True)
    top = np.where(np.isneginf(top), 0.0, top)  # so that the sum is log 0, and not NaN
    with np.errstate(divide="ignore"):
        return (top + np.log(np.exp(values - top).sum(-1, keepdims=True)))[..., 0]


def _normal_quantile(log_below: np.ndarray, log_above: np.ndarray) -> np.ndarray:
    """Return Phi^-1 of a probability, accurately if the smaller of its two tails is accurate."""
    return np.where(
        log_below < log_above,
        ndtri_exp(np.minimum(log_below, -1e-300)),
        -ndtri_exp(np.minimum(log_above, -1e-300)),
    )
