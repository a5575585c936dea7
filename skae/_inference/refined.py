"""Gaussian approximations of p(z|x) at its mode, as proposals beside q(z|x).

For a row with many counts, p(z|x) is narrow, and the error of the encoder may be many of its
standard deviations. The bound of a row is then far below log p(x), although the decoder explains
the row. Some steps of Fisher scoring from the mean of q(z|x) find the mode.

References
----------
Y. Kim, S. Wiseman, A. Miller, D. Sontag and A. Rush (2018). Semi-amortized variational
autoencoders. ICML. :doi:`10.48550/arXiv.1802.02550`
"""

from math import log, pi
from typing import NamedTuple

import torch
from torch import Tensor

from skae._modules.vae import VAEModule
from skae._nn.counts import Counts
from skae._nn.gaussian_latents import Components, DiagonalGaussian, log_prior
from skae._training.data import Batch

# Smallest number of draws, and largest number of codes, with which proposals are refined.
_LEAST_DRAWS, _MOST_CODES = 8, 256
# Number of steps of Fisher scoring, and the lengths from which each step takes the best.
_N_STEPS, _LENGTHS = 4, (1.0, 0.3, 0.1)
# Step of finite differences in standard deviations of q(z|x), and its limits.
_DIFFERENCE, _SHORTEST, _LONGEST = 1.0, 1e-3, 0.1
# Added to the diagonal of the precision, relative to the diagonal.
_JITTER = 1e-4


class FullGaussian(NamedTuple):
    """A Gaussian for every row: means (n, k), and roots of covariances (n, k, k)."""

    mean: Tensor
    root: Tensor

    def at(self, draws: Tensor) -> Tensor:
        """Return codes for draws (n, n_draws, k)."""
        return self.mean[:, None] + draws @ self.root.mT

    def log_density(self, z: Tensor) -> Tensor:
        """Return log densities of codes (n, n_draws, k)."""
        away = (z - self.mean[:, None]).mT
        white = torch.linalg.solve_triangular(self.root, away, upper=False)
        log_det = self.root.diagonal(dim1=1, dim2=2).log().sum(1)
        k = z.shape[-1]
        return -0.5 * (white.square().sum(1) + k * log(2 * pi)) - log_det[:, None]


def refined(
    module: VAEModule, batch: Batch, q: DiagonalGaussian, prior: Components | None, n_draws: int
) -> FullGaussian | None:
    """Return approximations of p(z|x), or None if they would not be worth their time."""
    likelihood, architecture = module.likelihood, module.architecture
    counts = architecture.reads_counts or architecture.common_total is not None
    few = q.mean.shape[1] > _MOST_CODES or n_draws < _LEAST_DRAWS
    if few or not (counts and isinstance(likelihood, Counts)):
        return None
    z = q.mean
    if batch.condition is None and architecture.n_conditions:
        batch = batch._replace(condition=_likeliest(module, batch, z, prior))
    step = (_DIFFERENCE * (q.log_var / 2).exp()).clamp(_SHORTEST, _LONGEST)
    best = _log_joint(module, batch, z, prior)
    for _ in range(_N_STEPS):
        slope, precision = _derivatives(module, likelihood, batch, z, step)
        move = torch.cholesky_solve(slope[..., None], _cholesky(precision))[..., 0]
        for new in [z + length * move for length in _LENGTHS]:
            found = _log_joint(module, batch, new, prior)
            z = torch.where((found > best)[:, None], new, z)
            best = torch.maximum(best, found)
    _, precision = _derivatives(module, likelihood, batch, z, step)
    # With precision = L L', the inverse of L' is a root of the covariance. It is made triangular.
    covariance = torch.cholesky_inverse(_cholesky(precision))
    return FullGaussian(z, _cholesky(covariance))


def _likeliest(module: VAEModule, batch: Batch, z: Tensor, prior: Components | None) -> Tensor:
    """Return the most probable label of every row at its code, as a condition."""
    rows, log_frequencies = module.labels(z.device)
    each = [
        log_frequency
        + _log_joint(module, batch._replace(condition=one.expand(len(z), -1)), z, prior)
        for one, log_frequency in zip(rows, log_frequencies, strict=True)
    ]
    return rows[torch.stack(each).argmax(0)]


def _log_joint(module: VAEModule, batch: Batch, z: Tensor, prior: Components | None) -> Tensor:
    """Return log p(x|z, s) p(z) of one code for each row."""
    output = module.decode(z, batch.condition)
    return module.likelihood.row_log_prob(batch.y, output, batch.seen) + log_prior(z, prior)


def _derivatives(
    module: VAEModule, likelihood: Counts, batch: Batch, z: Tensor, step: Tensor
) -> tuple[Tensor, Tensor]:
    """Return the slope of log p(x|z, s) p(z) in z, and the expected information, (n, k, k).

    The prior counts as N(0, I). Derivatives of log rates are finite differences.
    """
    k = z.shape[1]
    moves = torch.diag_embed(step)  # (n, k, k): one move for each code
    at = torch.cat([z[:, None], z[:, None] + moves], 1)
    condition, seen = (None if t is None else t[:, None] for t in (batch.condition, batch.seen))
    x = batch.y[:, None]
    log_rates = likelihood.log_rates_of_rows(x, module.decode(at, condition), seen)
    here = log_rates[:, 0]
    change = (log_rates[:, 1:] - here[:, None]) / step[..., None]  # (n, k, n_features)
    slope, weight = likelihood.information(batch.y, here)
    if batch.seen is not None:
        slope, weight = slope * batch.seen, weight * batch.seen
    gradient = (change @ slope[..., None])[..., 0] - z
    information = (change * weight[:, None]) @ change.mT
    return gradient, information + torch.eye(k, device=z.device)


def _cholesky(matrix: Tensor) -> Tensor:
    """Return triangular roots of matrices, to whose diagonals a little is added."""
    diagonal = matrix.diagonal(dim1=1, dim2=2)
    matrix = matrix.double() + torch.diag_embed(_JITTER * diagonal.double())
    root, _ = torch.linalg.cholesky_ex(matrix)
    return root.to(diagonal)
