"""Mixtures of Gaussians of one number, one mixture for each of many numbers; nats."""

from math import log, pi
from typing import NamedTuple, Self

import numpy as np
import torch
from scipy.special import log_ndtr, ndtri_exp
from torch import Tensor
from torch.nn.functional import softplus

# No component is narrower than this, in units of the numbers' spread: a continuous density
# has no upper bound where numbers repeat.
LEAST_LOG_SCALE = -9.0
_HALF_LOG_2PI = 0.5 * log(2 * pi)
# Bisections of a bracket, after each of which a step of Newton's is tried.
_STEPS = 80


class Mixtures(NamedTuple):
    """Log weights, means and log scales of the components, (..., K)."""

    log_weight: Tensor
    mean: Tensor
    log_scale: Tensor

    @classmethod
    def from_network(cls, out: Tensor) -> Self:
        """What a network's output (..., 3 K) means: softmax, linear, and a bounded exponential."""
        logits, mean, raw = out.chunk(3, dim=-1)
        return cls(logits.log_softmax(-1), mean, LEAST_LOG_SCALE + softplus(raw - LEAST_LOG_SCALE))

    def in_units(self, log_unit: Tensor) -> Self:
        """The mixtures of numbers that many times as large, (...)."""
        log_unit = log_unit[..., None]
        return self._replace(mean=self.mean * log_unit.exp(), log_scale=self.log_scale + log_unit)

    def log_prob(self, z: Tensor) -> Tensor:
        """log sum_k pi_k N(z; mu_k, sigma_k²) (...)."""
        distance = (z[..., None] - self.mean) * (-self.log_scale).exp()
        parts = self.log_weight - self.log_scale - 0.5 * distance.square()
        return parts.logsumexp(-1) - _HALF_LOG_2PI

    def draw(self, generator: torch.Generator) -> Tensor:
        """A number from each mixture, (...)."""
        chance = torch.empty_like(self.log_weight).exponential_(generator=generator)
        which = (self.log_weight - chance.log()).argmax(-1, keepdim=True)
        mean, log_scale = (t.gather(-1, which)[..., 0] for t in (self.mean, self.log_scale))
        normal = torch.randn(mean.shape, generator=generator, device=mean.device, dtype=mean.dtype)
        return mean + log_scale.exp() * normal

    def to_normal(self, z: Tensor) -> Tensor:
        """Phi^-1(F(z)) of the mixture's distribution function F, float64 on the CPU.

        By log F below the median and log(1 - F) above it: F itself has no digits in a tail.
        """
        log_weight, mean, log_scale = (t.detach().double().numpy() for t in self)
        below, above = _log_tails(z.detach().double().numpy(), log_weight, mean, np.exp(log_scale))
        return torch.from_numpy(_normal_quantile(below, above))

    def from_normal(self, u: Tensor) -> Tensor:
        """The inverse of `to_normal`: F^-1(Phi(u)), float64 on the CPU."""
        log_weight, mean, log_scale = (t.detach().double().numpy() for t in self)
        scale, wanted = np.exp(log_scale), u.detach().double().numpy()
        # Each component alone has its quantile there; that of the mixture lies among them.
        alone = mean + scale * wanted[..., None]
        low, high = alone.min(-1), alone.max(-1)
        z = (np.exp(log_weight) * alone).sum(-1)
        for _ in range(_STEPS):
            found = _normal_quantile(*_log_tails(z, log_weight, mean, scale))
            low, high = np.where(found < wanted, z, low), np.where(found > wanted, z, high)
            # du/dz = p(z) / phi(u), in logs.
            distance = (z[..., None] - mean) / scale
            log_p = _log_sum(log_weight - log_scale - 0.5 * distance**2)
            with np.errstate(over="ignore", invalid="ignore"):
                newton = z + (wanted - found) * np.exp(-0.5 * found**2 - log_p)
            inside = (newton > low) & (newton < high)
            step = np.where(inside, newton, 0.5 * (low + high))
            if np.array_equal(step, z):
                break
            z = step
        return torch.from_numpy(z)


def _log_sum(values: np.ndarray) -> np.ndarray:
    top = values.max(-1, keepdims=True)
    return (top + np.log(np.exp(values - top).sum(-1, keepdims=True)))[..., 0]


def _log_tails(
    z: np.ndarray, log_weight: np.ndarray, mean: np.ndarray, scale: np.ndarray
) -> tuple[np.ndarray, np.ndarray]:
    """log F(z) and log(1 - F(z))."""
    distance = (z[..., None] - mean) / scale
    return _log_sum(log_weight + log_ndtr(distance)), _log_sum(log_weight + log_ndtr(-distance))


def _normal_quantile(log_below: np.ndarray, log_above: np.ndarray) -> np.ndarray:
    """Phi^-1 of a probability, of whose two tails the smaller has all digits."""
    return np.where(
        log_below < log_above,
        ndtri_exp(np.minimum(log_below, -1e-300)),
        -ndtri_exp(np.minimum(log_above, -1e-300)),
    )
