"""Distributions over codes: the Gaussian q(z|x), and priors p(z) other than N(0, I).

The functions compute on tensors, in nats. A prior is a mixture of Gaussians with diagonal
covariances (`Components`), or None for N(0, I).
"""

from math import log, pi
from typing import NamedTuple

import torch
from torch import Tensor
from torch.nn.functional import log_softmax

_LOG_2PI = log(2 * pi)
# Size of log variances of codes beyond which they grow only logarithmically with the encoder's
# output, so that float32 can represent the squares of standard deviations.
_MAX_LOG_VAR = 16.0


class DiagonalGaussian(NamedTuple):
    """A diagonal Gaussian for every row: means and log variances, (n, n_components)."""

    mean: Tensor
    log_var: Tensor

    def at(self, draws: Tensor) -> Tensor:
        """Return mean + std * draw for draws (n, k), or (n or 1, n_draws, k) for several."""
        mean, std = self.mean, (self.log_var / 2).exp()
        if draws.ndim == 3:
            mean, std = mean[:, None], std[:, None]
        return mean + std * draws


def from_network(out: Tensor) -> DiagonalGaussian:
    """Interpret an encoder's output: means, followed by log variances."""
    mean, log_var = out.float().chunk(2, dim=1)
    return DiagonalGaussian(mean, bounded(log_var))


def bounded(log_var: Tensor) -> Tensor:
    """Limit log variances to what float32 can represent, with slopes that are never zero."""
    beyond = (log_var.abs() - _MAX_LOG_VAR).clamp(min=0.0).log1p()
    return log_var.clamp(-_MAX_LOG_VAR, _MAX_LOG_VAR) + log_var.sign() * beyond


class Components(NamedTuple):
    """A mixture of diagonal Gaussians: means and log variances (K, k), log weights (K,)."""

    mean: Tensor
    log_var: Tensor
    log_weight: Tensor


class Recognition(NamedTuple):
    """q(z|x) of a batch, and the prior, which is None for N(0, I)."""

    q: DiagonalGaussian
    prior: Components | None


def log_normal(z: Tensor, mean: Tensor, log_var: Tensor) -> Tensor:
    """Return log N(z; mean, e^log_var) of each value."""
    return -0.5 * ((z - mean).square() * (-log_var).exp() + log_var + _LOG_2PI)


def entropy(log_var: Tensor) -> Tensor:
    """Return the entropy of the Gaussian of each value."""
    return 0.5 * (log_var + _LOG_2PI + 1.0)


def kl_to_standard(q: DiagonalGaussian) -> Tensor:
    """Return KL(N(mean, e^log_var) || N(0, 1)) of each value (Kingma & Welling 2014, app. B)."""
    return 0.5 * (q.mean.square() + q.log_var.exp() - q.log_var - 1.0)


def log_prior(z: Tensor, prior: Components | None) -> Tensor:
    """Return log p(z) of codes (..., k)."""
    if prior is None:
        return -0.5 * (z.square() + _LOG_2PI).sum(-1)
    values = log_normal(z[..., None, :], prior.mean, prior.log_var)
    return torch.logsumexp(values.sum(-1) + prior.log_weight, -1)


def log_prior_by_code(z: Tensor, prior: Components | None) -> Tensor:
    """Return log p(z_i | z_1, ..., z_{i-1}) of codes (..., k); the sum over i is log p(z)."""
    if prior is None:
        return -0.5 * (z.square() + _LOG_2PI)
    values = log_normal(z[..., None, :], prior.mean, prior.log_var)
    up_to = torch.logsumexp(values.cumsum(-1) + prior.log_weight[:, None], -2)
    return up_to.diff(dim=-1, prepend=torch.zeros_like(up_to[..., :1]))


def kl_by_code(q: DiagonalGaussian, z: Tensor, prior: Components | None) -> Tensor:
    """Return KL(q || p) of every row and code; for a mixture it is estimated at draws z of q.

    A mixture does not factorise over codes. By the chain rule, the divergence is still a sum over
    codes, each conditional on those before it: -H(q_i) - E log p(z_i | z_1, ..., z_{i-1}).
    """
    if prior is None:
        return kl_to_standard(q)
    return -entropy(q.log_var) - log_prior_by_code(z, prior)


def kl_of_rows(q: DiagonalGaussian, z: Tensor, prior: Components | None) -> Tensor:
    """Return KL(q || p) of every row; for a mixture it is estimated at draws z of q."""
    if prior is None:
        return kl_to_standard(q).sum(-1)
    return -entropy(q.log_var).sum(-1) - log_prior(z, prior)


def draw_prior(
    n: int, n_components: int, prior: Components | None, generator: torch.Generator
) -> Tensor:
    """Draw codes from p(z), (n, n_components), on the device of the generator."""
    draws = torch.randn((n, n_components), generator=generator, device=generator.device)
    if prior is None:
        return draws
    which = torch.multinomial(prior.log_weight.exp(), n, replacement=True, generator=generator)
    return DiagonalGaussian(prior.mean[which], prior.log_var[which]).at(draws)


def equally_likely(q: DiagonalGaussian) -> Components:
    """Return the mixture of these Gaussians with equal weights."""
    return Components(*q, log_softmax(q.mean.new_zeros(len(q.mean)), 0))


def log_mean_exp(values: Tensor) -> Tensor:
    """Return the log of the mean of exponentials over the last axis."""
    return torch.logsumexp(values, -1) - log(values.shape[-1])
