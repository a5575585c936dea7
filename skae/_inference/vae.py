"""Expectations over z under a fitted VAE: bounds, their terms, imputations, information.

Rows are processed in pieces and draws in blocks, so that the memory does not depend on their
number. No gradients are computed.

References
----------
T. Hesterberg (1995). Weighted average importance sampling and defensive mixture distributions.
Technometrics 37(2), 185-194. :doi:`10.1080/00401706.1995.10484303`
"""

from collections.abc import Callable, Iterator
from functools import reduce
from math import log
from typing import NamedTuple

import numpy as np
import torch
from numpy.typing import NDArray
from scipy.special import logsumexp
from torch import Tensor

from skae._inference import row_draws
from skae._inference.refined import FullGaussian, refined
from skae._inference.row_draws import RowDraws, blocks, log_q, pieces
from skae._inference.weighted_means import WeightedMeans
from skae._modules.vae import VAEModule
from skae._nn.gaussian_latents import (
    Components,
    DiagonalGaussian,
    kl_by_code,
    log_normal,
    log_prior,
)
from skae._training.data import Batch, Dataset

# For rows with missing values, one of this many draws comes from the prior.
_ONE_OF_PRIOR = 4


class ElboTerms(NamedTuple):
    """The two terms of the bound log p(x) >= reconstruction - kl, in nats.

    Attributes
    ----------
    reconstruction : ndarray of shape (n_samples,)
        E_q log p(x|z) of each row.
    kl : ndarray of shape (n_samples,)
        KL(q(z|x) || p(z)) of each row.
    kl_per_latent : ndarray of shape (n_samples, n_components)
        Contribution of each latent to `kl`. For a prior other than N(0, I), it is the contribution
        given the latents before it (the chain rule).
    """

    reconstruction: NDArray[np.float32]
    kl: NDArray[np.float32]
    kl_per_latent: NDArray[np.float32]


def drawn(
    module: VAEModule, rows: Dataset, n_draws: int, generator: torch.Generator
) -> Iterator[tuple[Batch, Tensor, Tensor]]:
    """Yield for every piece of rows outputs (n, n_draws, n_features) at new draws, and weights.

    The weights are equal if training uses one draw for each row. If it uses k draws, they are
    importance weights among k draws at a time.
    """
    architecture = module.architecture
    prior, k = module.prior(), architecture.n_importance
    for _, batch in pieces(rows, max(n_draws, k), architecture):
        q = module.encode(batch.x)
        condition = None if batch.condition is None else batch.condition[:, None]
        parts = (
            blocks(n_draws, architecture, rows.device)
            if k == 1
            else [slice(0, k)] * -(-n_draws // k)
        )
        for block in parts:
            shape = (len(batch.x), block.stop - block.start, architecture.n_components)
            draws = torch.randn(shape, generator=generator, device=generator.device)
            z = q.at(draws)
            output = module.decode(z, condition)
            if k == 1:
                importance = torch.full(shape[:2], 1 / n_draws, device=z.device)
            else:
                seen = None if batch.seen is None else batch.seen[:, None]
                log_px = module.likelihood.row_log_prob(batch.y[:, None], output, seen)
                log_weight = log_px + log_prior(z, prior) - log_q(q, draws)
                importance = log_weight.softmax(-1) / len(parts)
            yield batch, output, importance


def importance_bounds(
    module: VAEModule, rows: Dataset, draws: RowDraws, sizes_of_rows: bool = False
) -> NDArray[np.float32]:
    """Return log 1/K sum_k p(x, z_k) / q(z_k|x) of every row, in nats in the units of the data.

    For rows with missing values, some draws come from the prior. With `sizes_of_rows`, p(x, z) is
    p(x, z|s) for the size factors s of the rows.
    """
    bounds = np.empty(len(rows), dtype=np.float32)
    prior = module.prior()
    for part, batch, some in draws.pieces(rows, module.architecture):
        found = batch_bounds(module, batch, draws, some, prior, sizes_of_rows)
        bounds[part] = found.cpu().numpy()
    return bounds


def batch_bounds(
    module: VAEModule,
    batch: Batch,
    draws: RowDraws,
    parts: list[slice],
    prior: Components | None,
    sizes_of_rows: bool = False,
) -> Tensor:
    """Return `importance_bounds` of a batch, with the draws in these parts, one after another."""
    q = module.encode(batch.x)
    with_holes = None if batch.seen is None else (batch.seen == 0).any(1)
    narrow = refined(module, batch, q, prior, len(draws))
    found = []
    for block in parts:
        of_prior = _of_prior(block, len(draws), prior, with_holes)
        some = draws.of(q.mean, block)
        if narrow is None:
            z, log_pq = _proposed(q, some, prior, of_prior)
        else:
            half = len(draws) // 2 / len(draws)
            z, log_pq = _proposed_by_both(q, narrow, some, block, half, prior, of_prior)
        found.append((module.log_px(batch, z, sizes_of_rows) + log_pq).logsumexp(-1))
    return reduce(torch.logaddexp, found) - log(len(draws)) - module.log_units(batch)


def elbo_terms(module: VAEModule, rows: Dataset, draws: RowDraws) -> NDArray[np.float32]:
    """Return E_q log p(x|z) and the divergence of each latent, (n_rows, 1 + n_components)."""
    terms = np.empty((len(rows), 1 + module.architecture.n_components), dtype=np.float32)
    prior = module.prior()
    for part, batch, parts in draws.pieces(rows, module.architecture):
        q = module.encode(batch.x)
        wide = DiagonalGaussian(*(t[:, None] for t in q))
        log_px = torch.zeros(len(batch.x), device=rows.device)
        kl = torch.zeros_like(q.mean)
        for block in parts:
            some = draws.of(q.mean, block)
            z = q.at(some)
            log_px += module.log_px(batch, z).sum(1)
            # The divergence from N(0, I) is exact, and therefore the same for all draws.
            kl += kl_by_code(wide, z, prior).sum(1) * (some.shape[1] if prior is None else 1)
        log_px = log_px / len(draws) - module.log_units(batch)
        terms[part] = torch.cat([log_px[:, None], kl / len(draws)], 1).cpu().numpy()
    return terms


def imputed_means(module: VAEModule, rows: Dataset, draws: RowDraws) -> NDArray[np.float32]:
    """Return E[x|observed values], the mean of p(x|z_k) by importance weights; decoder's units."""
    width = module.architecture.n_features

    def of(batch: Batch, output: Tensor) -> Tensor:
        seen = None if batch.seen is None else batch.seen[:, None]
        return module.likelihood.imputed_mean(batch.y[:, None], output, seen)

    return _weighted_means(module, rows, draws, width, of)


def column_scores(module: VAEModule, rows: Dataset, draws: RowDraws) -> NDArray[np.float32]:
    """Return E[log p(x_j|z)|x] of every column j by importance weights, in data units."""
    width = rows.data.X.shape[1]
    return _weighted_means(module, rows, draws, width, module.column_nats)


def _weighted_means(
    module: VAEModule,
    rows: Dataset,
    draws: RowDraws,
    width: int,
    of: Callable[[Batch, Tensor], Tensor],
) -> NDArray[np.float32]:
    """Return means over p(z|x), by importance weights, of a function of batch and outputs."""
    means = np.empty((len(rows), width), dtype=np.float32)
    prior = module.prior()
    for part, batch, parts in draws.pieces(rows, module.architecture):
        q = module.encode(batch.x)
        found = WeightedMeans(len(batch.x), width, rows.device)
        for block in parts:
            some, every = draws.of(q.mean, block), torch.ones_like(q.mean[:, 0], dtype=torch.bool)
            of_prior = _of_prior(block, len(draws), prior, every)
            for log_weight, _, output in _weighed(module, batch, q, some, prior, of_prior):
                found.add(log_weight, of(batch, output))
        means[part] = found.mean.cpu().numpy()
    return means


def imputed_draws(
    module: VAEModule, rows: Dataset, n_importance: int, n_draws: int, generator: torch.Generator
) -> NDArray[np.float32]:
    """Draw from p(x|observed values) by importance resampling, (n_rows, n_draws, n_features).

    A code is drawn with a probability proportional to its weight, as the maximum of the log weights
    with added Gumbel noise, which can be computed block by block.
    """
    architecture, device, prior = module.architecture, generator.device, module.prior()
    filled = np.empty((len(rows), n_draws, architecture.n_features), dtype=np.float32)
    # Beside the outputs, each draw needs one random number for each code.
    n_values = max(n_importance, n_draws, n_importance * n_draws // architecture.n_features)
    for part, batch in pieces(rows, n_values, architecture):
        q = module.encode(batch.x)
        n = len(batch.x)
        best = torch.full((n, n_draws), -torch.inf, device=device)
        kept = torch.zeros((n, n_draws, architecture.n_decoded), device=device)
        for block in blocks(n_importance, architecture, device):
            n_codes = block.stop - block.start
            shape = (n, n_codes, architecture.n_components)
            draws = torch.randn(shape, generator=generator, device=device)
            every = torch.ones(n, dtype=torch.bool, device=device)
            of_prior = _of_prior(block, n_importance, prior, every)
            for log_weight, codes, _ in _weighed(module, batch, q, draws, prior, of_prior):
                chance = torch.empty((n, n_draws, n_codes), device=device)
                gumbel = -chance.exponential_(generator=generator).log()
                value, which = (log_weight[:, None] + gumbel).max(-1)
                found = codes.gather(1, which[..., None].expand(-1, -1, architecture.n_decoded))
                kept = torch.where((value > best)[..., None], found, kept)
                best = torch.maximum(best, value)
        z, condition = kept[..., : architecture.n_codes], kept[..., architecture.n_codes :]
        output = module.decode(z, condition if architecture.n_conditions else None)
        seen = None if batch.seen is None else batch.seen[:, None]
        found = module.likelihood.imputed_draw(batch.y[:, None], output, seen, generator)
        filled[part] = found.cpu().numpy()
    return filled


def _weighed(
    module: VAEModule,
    batch: Batch,
    q: DiagonalGaussian,
    draws: Tensor,
    prior: Components | None,
    of_prior: "_OfPrior | None",
) -> Iterator[tuple[Tensor, Tensor, Tensor]]:
    """Yield log weights (n, n_draws), the decoder's input and its output, for each label."""
    z, log_pq = _proposed(q, draws, prior, of_prior)
    seen = None if batch.seen is None else batch.seen[:, None]
    condition = None if batch.condition is None else batch.condition[:, None]
    for log_frequency, read, output in module.outputs(z, condition):
        log_px = module.likelihood.row_log_marginal(batch.y[:, None], output, seen)
        yield log_frequency + log_px + log_pq, read, output


class _OfPrior(NamedTuple):
    """Draws from N(0, I) in place of q(z|x): the rows, the draws, and their fraction."""

    rows: Tensor
    draws: Tensor
    share: float


def _of_prior(
    block: slice, n_draws: int, prior: Components | None, rows: Tensor | None
) -> _OfPrior | None:
    """Return those of a block for `rows`, or None, also for a prior other than N(0, I)."""
    n_of_prior = n_draws // _ONE_OF_PRIOR
    if rows is None or prior is not None or not n_of_prior:
        return None
    index = torch.arange(block.start, block.stop, device=rows.device)
    return _OfPrior(rows, index % _ONE_OF_PRIOR == _ONE_OF_PRIOR - 1, n_of_prior / n_draws)


def _proposed(
    q: DiagonalGaussian, draws: Tensor, prior: Components | None, of_prior: _OfPrior | None
) -> tuple[Tensor, Tensor]:
    """Return codes of draws, and log p(z) minus the log density of the proposal, (n, n_draws).

    The proposal is q(z|x), or its mixture with the prior, which bounds the weights. If few values
    of a row are observed, q(z|x) may be narrower than p(z|x), and differ in location (Hesterberg
    1995).
    """
    z = q.at(draws)
    if of_prior is None:
        return z, log_prior(z, prior) - log_q(q, draws)
    rows = of_prior.rows[:, None]
    z = torch.where((rows & of_prior.draws)[..., None], draws, z)
    log_p = log_prior(z, prior)
    of_q = log_normal(z, q.mean[:, None], q.log_var[:, None]).sum(-1)
    mixed = torch.logaddexp(of_q + log(1 - of_prior.share), log_p + log(of_prior.share))
    return z, log_p - torch.where(rows, mixed, of_q)


def _proposed_by_both(
    q: DiagonalGaussian,
    narrow: FullGaussian,
    draws: Tensor,
    block: slice,
    half: float,
    prior: Components | None,
    of_prior: _OfPrior | None,
) -> tuple[Tensor, Tensor]:
    """As `_proposed`, with every other draw, `half` of them, from an approximation of p(z|x)."""
    index = torch.arange(block.start, block.stop, device=draws.device)
    is_narrow = (index % 2 == 1)[:, None]
    z = torch.where(is_narrow, narrow.at(draws), q.at(draws))
    share = torch.zeros_like(z[:, :1, 0])
    if of_prior is not None:
        z = torch.where((of_prior.rows[:, None] & of_prior.draws)[..., None], draws, z)
        share = of_prior.share * of_prior.rows[:, None].to(z)
    log_p = log_prior(z, prior)
    of_q = log_normal(z, q.mean[:, None], q.log_var[:, None]).sum(-1)
    # Draws from the prior take the place of draws from the refined approximation.
    mixed = torch.logaddexp(of_q + log(1 - half), narrow.log_density(z) + (half - share).log())
    return z, log_p - torch.logaddexp(mixed, log_p + share.log())


def mutual_information(
    means: NDArray[np.floating],
    stds: NDArray[np.floating],
    n_draws: int,
    rng: np.random.RandomState,
) -> float:
    """Return E log q(z|x) - E log q(z) in nats; q(z) is the mean of q(z|x) over all rows."""
    means, stds = means.astype(np.float64), stds.astype(np.float64)
    n_rows, precision = len(means), 1 / stds**2
    # log q(z|x_m) is quadratic in z, so that two matrix products compute it for all m at once.
    constant = -0.5 * (means**2 * precision).sum(1) - np.log(stds).sum(1)
    step = max(1, row_draws.VALUES // n_rows)
    total = 0.0
    for _ in range(n_draws):
        draws = rng.standard_normal(means.shape)
        z = means + stds * draws
        own = -0.5 * (draws**2).sum(1) - np.log(stds).sum(1)
        for start in range(0, n_rows, step):
            some = z[start : start + step]
            pairs = some @ (means * precision).T - 0.5 * some**2 @ precision.T + constant
            total -= float(logsumexp(pairs, axis=1).sum())
        total += float(own.sum())
    return total / (n_draws * n_rows) + log(n_rows)
