"""Expectations over the states of a fitted HelmholtzMachine, by draws and by enumeration.

Rows are processed in pieces and draws in blocks. Only the random numbers from which draws are made
grow with the number of draws. No gradients are computed.

The draws of a row must not depend on other rows. A unit is 1 if its random number is below its
probability, so that a rounding error that depends on the other rows could change it. States are
therefore drawn in float64, where such a change is practically impossible.
"""

import copy
from collections.abc import Callable, Iterator
from itertools import pairwise
from math import log, pi

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn
from torch.nn.functional import softplus
from torch.special import ndtr

from skae._inference.row_draws import RowDraws, pieces
from skae._inference.weighted_means import WeightedMeans
from skae._modules.helmholtz import HelmholtzModule, Recognised, total
from skae._nn.likelihood_base import Likelihood
from skae._nn.likelihoods import WithNoise
from skae._nn.mixed import Mixed
from skae._training.data import Batch, Dataset, chunks

# Largest number of units for enumeration: they have a million states.
MAX_UNITS = 20
# Number of values in memory at once for a block of states and rows.
_AT_ONCE = 2**21


def entropy(logit: Tensor) -> Tensor:
    """Return the entropy of Bernoulli units with these logits, summed over the last axis; nats."""
    return (softplus(logit) - logit * torch.sigmoid(logit)).sum(-1)


def wide_type(device: torch.device) -> torch.dtype:
    """Return the widest float type of a device."""
    return torch.float32 if device.type == "mps" else torch.float64


# ------------------------------------------------------------------------- by draws


def _recognised(
    module: HelmholtzModule, rows: Dataset, draws: RowDraws
) -> Iterator[tuple[slice, Batch, Iterator[tuple[Recognised, list[Tensor]]]]]:
    """Yield pieces of rows with blocks of draws; states are also given in the module's type."""
    wide = draws.turns.dtype
    up: nn.ModuleList = copy.deepcopy(module.up).to(wide)

    def of(batch: Batch, parts: list[slice]) -> Iterator[tuple[Recognised, list[Tensor]]]:
        x = batch.x.to(wide)
        for block in parts:
            found = module.recognise(x, ndtr(draws.of(x, block)), up)
            yield found, [h.to(batch.y.dtype) for h in found.states]

    for part, batch, parts in draws.pieces(rows, module.architecture):
        yield part, batch, of(batch, parts)


def _log_p(module: HelmholtzModule, batch: Batch, states: list[Tensor]) -> list[Tensor]:
    seen = None if batch.seen is None else batch.seen[:, None]
    return module.log_p(batch.y[:, None], seen, states)[0]


def log_weights(
    module: HelmholtzModule, batch: Batch, found: Recognised, states: list[Tensor]
) -> Tensor:
    """Return log p(x, h_k) - log q(h_k|x) of the drawn states, (n, n_draws)."""
    return total(_log_p(module, batch, states)) - total(found.log_q())


def importance_bounds(
    module: HelmholtzModule, rows: Dataset, draws: RowDraws
) -> NDArray[np.float32]:
    """Return log 1/K sum_k p(x, h_k) / q(h_k|x) of every row, in nats and data units."""
    bounds = np.empty(len(rows), dtype=np.float32)
    for part, batch, some in _recognised(module, rows, draws):
        so_far = torch.full((len(batch.y),), -torch.inf, device=rows.device)
        for found, states in some:
            log_weight = log_weights(module, batch, found, states)
            so_far = torch.logaddexp(so_far, log_weight.logsumexp(-1))
        bounds[part] = (so_far - log(len(draws)) - module.log_units(batch)).cpu().numpy()
    return bounds


def column_scores(module: HelmholtzModule, rows: Dataset, draws: RowDraws) -> NDArray[np.float32]:
    """Return E[log p(x_j|h)|x] of every column j by importance weights, in data units."""
    width = rows.data.X.shape[1]
    scores = np.empty((len(rows), width), dtype=np.float32)
    for part, batch, some in _recognised(module, rows, draws):
        found_means = WeightedMeans(len(batch.y), width, rows.device)
        for found, states in some:
            seen = None if batch.seen is None else batch.seen[:, None]
            log_p, output = module.log_p(batch.y[:, None], seen, states)
            log_weight = total(log_p) - total(found.log_q())
            found_means.add(log_weight, module.column_nats(batch, output))
        scores[part] = found_means.mean.cpu().numpy()
    return scores


def drawn_terms(module: HelmholtzModule, rows: Dataset, draws: RowDraws) -> NDArray[np.float32]:
    """Return E_q[-log p(x, h)] and the entropy of q(h|x), (n_rows, 2).

    The entropies, and log p(h_L), are replaced by their expectations given the layer below.
    """
    terms = np.empty((len(rows), 2), dtype=np.float32)
    for part, batch, some in _recognised(module, rows, draws):
        both = torch.zeros((len(batch.y), 2), dtype=torch.float64, device="cpu")
        for found, states in some:
            *lower, _ = _log_p(module, batch, states)
            top = torch.sigmoid(found.logits[-1]) @ module.prior_logit.to(found.logits[-1].dtype)
            log_p = total(lower) + top - softplus(module.prior_logit).sum()
            n_draws = states[0].shape[1]
            of_q = total([entropy(logit).expand(-1, n_draws) for logit in found.logits])
            both += torch.stack([-log_p.sum(1), of_q.sum(1)], 1).cpu()
        both /= len(draws)
        both[:, 0] += module.log_units(batch).cpu()
        terms[part] = both.numpy()
    return terms


def drawn(
    module: HelmholtzModule, rows: Dataset, n_draws: int, generator: torch.Generator
) -> Iterator[tuple[Batch, Tensor, Tensor]]:
    """Yield for every piece of rows outputs (n, n_draws, n_features) at new draws, and weights.

    The weights are equal, or importance weights if training uses them.
    """
    architecture = module.architecture
    for _, batch in pieces(rows, n_draws, architecture):
        shape = (len(batch.y), n_draws, architecture.n_units)
        uniform = torch.rand(shape, generator=generator, device=generator.device)
        found = module.recognise(batch.x, uniform)
        seen = None if batch.seen is None else batch.seen[:, None]
        log_p, output = module.log_p(batch.y[:, None], seen, found.states)
        importance = torch.full(shape[:2], 1 / n_draws, device=generator.device)
        if architecture.algorithm == "reweighted":
            importance = (total(log_p) - total(found.log_q())).softmax(-1)
        yield batch, output, importance


# ------------------------------------------------------------------- by enumeration


def all_states(n_units: int) -> Tensor:
    """Return all states of binary units, (2 ** n_units, n_units), float64."""
    numbers = torch.arange(2**n_units)[:, None]
    return (numbers >> torch.arange(n_units) & 1).double()


def log_masses(states: Tensor, logits: Tensor) -> Tensor:
    """Return log p of every state given every row of logits, (n_logits, n_states)."""
    return logits @ states.T - softplus(logits).sum(1, keepdim=True)


class Enumeration:
    """A machine with few units, whose states are all enumerated; float64, on the CPU.

    Only pairs of states of adjacent layers are combined: the layers above h_1 contribute one number
    for each state of h_1, which does not depend on the row.
    """

    def __init__(self, module: HelmholtzModule) -> None:
        self.module = copy.deepcopy(module).cpu().double()
        self.states = [all_states(n) for n in module.architecture.layer_sizes]
        logit, top = self.module.prior_logit, self.states[-1]
        log_marginal = log_masses(top, logit[None])[0]
        energy, entropies = -log_marginal, torch.zeros_like(log_marginal)
        layers = zip(self.module.down, self.module.up[1:], pairwise(self.states), strict=True)
        for down, up, (below, above) in reversed(list(layers)):
            log_p = log_masses(below, down(above))  # (n_above, n_below)
            log_q = log_masses(above, up(below)).T
            log_marginal = torch.logsumexp(log_p + log_marginal[:, None], 0)
            energy = (log_q.exp() * (energy[:, None] - log_p)).sum(0)
            entropies = (log_q.exp() * (entropies[:, None] - log_q)).sum(0)
        # log p(h_1); E[-log p(h)|h_1] and E[-log q(h|h_1)] under q.
        self.log_marginal, self.energy, self.entropy = log_marginal, energy, entropies

    def log_likelihoods(self, rows: Dataset) -> NDArray[np.float64]:
        """Return log p(x) of every row, in nats in the units of the data."""
        found = torch.full((len(rows),), -torch.inf, dtype=torch.float64)
        for block, part, batch, log_px in self._pairs(rows):
            log_joint = log_px + self.log_marginal[block]
            found[part] = torch.logaddexp(found[part], log_joint.logsumexp(1))
            if block.stop == len(self.log_marginal):
                found[part] -= self.module.log_units(batch)
        return found.numpy()

    def terms(self, rows: Dataset) -> NDArray[np.float64]:
        """Return E_q[-log p(x, h)] and the entropy of q(h|x), (n_rows, 2)."""
        found = torch.zeros((len(rows), 2), dtype=torch.float64)
        for block, part, batch, log_px in self._pairs(rows):
            logit = self.module.up[0](batch.x)
            q = log_masses(self.states[0][block], logit).exp()
            found[part, 0] += (q * (self.energy[block] - log_px)).sum(1)
            found[part, 1] += q @ self.entropy[block]
            if block.stop == len(self.energy):
                found[part, 0] += self.module.log_units(batch)
                found[part, 1] += entropy(logit)
        return found.numpy()

    def _pairs(self, rows: Dataset) -> Iterator[tuple[slice, slice, Batch, Tensor]]:
        """Yield blocks of states of h_1 and pieces of rows, with log p(x|h_1) of each pair."""
        n_states = len(self.states[0])
        size = min(n_states, max(1, _AT_ONCE // self.module.architecture.n_features))
        for start in range(0, n_states, size):
            block = slice(start, min(start + size, n_states))
            log_px = self._log_px(self.module.to_rows(self.states[0][block]))
            for part in chunks(len(rows), 8 * size):
                of_rows = rows.batch(part)._asdict().items()
                batch = Batch(**{n: t.cpu().double() for n, t in of_rows if t is not None})
                yield block, part, batch, log_px(batch)

    def _log_px(self, output: Tensor) -> Callable[[Batch], Tensor]:
        """Return a function for log p(x|h_1) of a batch, (n_rows, n_outputs), by products."""
        likelihood = self.module.likelihood
        if isinstance(likelihood, Mixed):
            return lambda batch: _row_by_row(likelihood, batch, output)
        if not isinstance(likelihood, WithNoise):
            log_norm = softplus(output)
            return lambda batch: _seen(batch, 1) @ output.T - _seen(batch, 0) @ log_norm.T
        variance = likelihood.variance.expand(output.shape[1])
        scaled, log_norm = output / variance, output**2 / variance + (2 * pi * variance).log()

        def of_gaussians(batch: Batch) -> Tensor:
            squares = (_seen(batch, 2) / variance).sum(1, keepdim=True)
            cross = _seen(batch, 1) @ scaled.T
            return -0.5 * (squares + _seen(batch, 0) @ log_norm.T) + cross

        return of_gaussians


def _row_by_row(likelihood: Likelihood, batch: Batch, output: Tensor) -> Tensor:
    """Return log p(x|h_1) without matrix products: all values of few rows at once."""
    found = []
    for part in chunks(len(batch.y), 8 * output.numel()):
        y, seen = batch.y[part, None], None if batch.seen is None else batch.seen[part, None]
        found.append(likelihood.row_log_prob(y, output.expand(len(y), -1, -1), seen))
    return torch.cat(found)


def _seen(batch: Batch, power: int) -> Tensor:
    """Return powers of the observed values; missing values are zero."""
    values = batch.y**power
    return values if batch.seen is None else values * batch.seen
