"""Log densities and log masses of tensors, in nats, with all constants.

References
----------
G. Loaiza-Ganem and J. P. Cunningham (2019). The continuous Bernoulli: fixing a pervasive
error in variational autoencoders. NeurIPS 32. :doi:`10.48550/arXiv.1907.06845`
"""

from math import pi
from typing import Any, cast

import torch
from torch import Tensor
from torch.autograd.function import once_differentiable
from torch.nn.functional import softplus

from skae._training.contexts import is_stacking


def gaussian_log_density(x: Tensor, mean: Tensor, variance: Tensor) -> Tensor:
    """log N(x; mean, variance)."""
    return -0.5 * ((x - mean).square() / variance + (2 * pi * variance).log())


def laplace_log_density(x: Tensor, mean: Tensor, variance: Tensor) -> Tensor:
    """Log density of the Laplace distribution with this mean and the variance 2b²."""
    b = (variance / 2).sqrt()
    return -(x - mean).abs() / b - (2 * b).log()


def bernoulli_log_mass(x: Tensor, logit: Tensor) -> Tensor:
    """x log λ + (1 - x) log(1 - λ) with λ = 1 / (1 + e^-logit), also for x in (0, 1)."""
    return x * logit - softplus(logit)


def bernoulli_row_log_mass(x: Tensor, logit: Tensor) -> Tensor:
    """Sum of `bernoulli_log_mass` over the last axis.

    x must not need a gradient, and the logits must have full precision.
    """
    if logit.requires_grad and torch.is_grad_enabled() and not is_stacking():
        return cast(Tensor, _RowLogMass.apply(x, logit.expand(x.shape)))
    return bernoulli_log_mass(x, logit).sum(-1)


class _RowLogMass(torch.autograd.Function):
    """Saves the gradient x - λ in the forward pass, which halves the passes over the values."""

    @staticmethod
    def forward(ctx: Any, x: Tensor, logit: Tensor) -> Tensor:
        chance = torch.sigmoid(logit)
        ctx.save_for_backward(torch.sub(x, chance, out=chance))
        return (x * logit).sum(-1) - softplus(logit).sum(-1)

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, gradient: Tensor) -> tuple[None, Tensor]:
        (delta,) = ctx.saved_tensors
        return None, delta * gradient[..., None]


def bernoulli_at(logit: Tensor, uniform: Tensor) -> Tensor:
    """Draw 0 or 1: the value is 1 if its uniform number is below the probability."""
    # The comparison writes floats, because converting booleans would take five times as long.
    chance = torch.sigmoid(logit.detach())
    if is_stacking():
        return (uniform < chance).to(chance.dtype)
    into = chance if chance.shape == uniform.shape else torch.empty_like(uniform)
    return torch.lt(uniform, chance, out=into)


def continuous_bernoulli_log_density(x: Tensor, logit: Tensor) -> Tensor:
    """Log density on [0, 1] of e^(logit x), which is divided by (e^logit - 1) / logit."""
    return x * logit - _log_integral(logit)


def _log_integral(logit: Tensor) -> Tensor:
    """log((e^a - 1) / a) = a/2 + log(sinh(h) / h) with h = |a| / 2, accurate near zero."""
    half = logit.abs() / 2
    near = half < 0.3
    small = torch.where(near, half, 0.0).square()
    series = small * (1 / 6 - small * (1 / 180 - small * (1 / 2835 - small / 37800)))
    large = torch.where(near, 1.0, half)  # so that both branches have finite gradients everywhere
    exact = large + torch.log1p(-torch.exp(-2 * large)) - torch.log(2 * large)
    return logit / 2 + torch.where(near, series, exact)


def continuous_bernoulli_mean(logit: Tensor) -> Tensor:
    """1 / (1 - e^-a) - 1 / a, which is 1/2 + a/12 - a³/720 near zero."""
    near = logit.abs() < 0.3
    small = torch.where(near, logit, 0.0)
    series = 0.5 + small * (1 / 12 - small.square() * (1 / 720 - small.square() / 30240))
    large = torch.where(near, 1.0, logit.abs())
    exact = -1 / torch.expm1(-large) - 1 / large  # the mean at -a is 1 minus the mean at a
    return torch.where(near, series, torch.where(logit < 0, 1 - exact, exact))
