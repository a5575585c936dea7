"""Parts of fitted networks as torch modules from arrays to arrays, of which graphs are made.

Each module computes what `transform`, `inverse_transform` or `score_samples` compute for a batch,
in the units of the data.
"""

import copy
from math import log
from typing import Any

import numpy as np
import torch
from numpy.polynomial.chebyshev import cheb2poly, chebinterpolate
from scipy.special import erfcx
from torch import Tensor, nn
from torch.nn.functional import one_hot

from skae._densities.index_prior import AutoregressivePrior
from skae._inference.helmholtz import log_weights
from skae._inference.row_draws import RowDraws
from skae._inference.vae import batch_bounds
from skae._modules.deterministic import DeterministicModule
from skae._modules.helmholtz import HelmholtzModule, Recognised
from skae._modules.vae import VAEModule
from skae._modules.vqvae import VQVAEModule
from skae._training.columns import CATEGORICAL
from skae._training.data import Batch, batch_of_rows
from skae._training.units import in_float32

# Degree of the polynomial in the normal distribution function, whose relative error is then below
# 1e-12.
_DEGREE = 22
_ROOT_HALF = 0.5**0.5


def check_can_export(model: Any, part: str) -> None:
    """Raise a ValueError if a graph cannot compute this part."""
    architecture, name = model._architecture, type(model).__name__
    if CATEGORICAL in architecture.kinds:
        raise ValueError(
            f"{name} was fitted to a table with categorical columns. An ONNX graph reads one array "
            "of numbers and knows no categories. Save the model with skops or joblib."
        )
    numbers = hasattr(model, "target_mean_")
    if numbers and part != "encoder":
        raise ValueError(
            f"part={part!r} of a {name} with numbers as targets needs y for each row, and the "
            "graph has a single input. Only part='encoder' can be exported."
        )
    if part == "score" and _searches_modes(model):
        raise ValueError(
            f"part='score' of a {name} with likelihood={architecture.likelihood!r} cannot be "
            "exported: the score of a row is computed at modes of its codes or its size factor, "
            "which an ONNX graph cannot search for. Only part='encoder' and part='decoder' can be "
            "exported."
        )


def _searches_modes(model: Any) -> bool:
    """Whether scores are computed at modes of codes or size factors, which are searched for."""
    architecture, module = model._architecture, model._trainer.module
    sized = architecture.common_total is not None
    if isinstance(module, VAEModule):
        return sized or architecture.reads_counts
    return isinstance(module, VQVAEModule) and sized


class Encoder(nn.Module):
    """Codes of rows, as `transform` returns them."""

    def __init__(self, model: Any) -> None:
        super().__init__()
        self.network = _frozen(model._trainer.module)
        self.may_miss = model.missing == "mask"
        self.form = getattr(model, "codes", "")

    def forward(self, X: Tensor) -> Tensor:
        """Return the codes of rows."""
        return _codes(self.network, self.batch(X), self.form)

    def batch(self, X: Tensor) -> Batch:
        """Convert rows of the data to the input of the network."""
        architecture = self.network.architecture
        return batch_of_rows(
            X,
            architecture.units,
            architecture.columns,
            reading=architecture.reading,
            with_mask=architecture.with_mask,
            may_miss=self.may_miss,
        )


class Decoder(nn.Module):
    """Rows of codes, as `inverse_transform` returns them."""

    def __init__(self, model: Any) -> None:
        super().__init__()
        self.network = _frozen(model._trainer.module)
        self.form = getattr(model, "codes", "")

    def forward(self, Z: Tensor) -> Tensor:
        """Return the means of p(x|z) of codes."""
        architecture = self.network.architecture
        Z = in_float32(Z) if Z.is_floating_point() else Z
        rows: Tensor = architecture.in_data_units(_means(self.network, Z, self.form))
        return rows.to(getattr(torch, architecture.row_dtype))


class Score(Encoder):
    """Scores of rows, as `score_samples` returns them, with the same draws."""

    def __init__(self, model: Any, n_importance: int | None) -> None:
        super().__init__(model)
        self.prior: Any = None
        if isinstance(self.network, VQVAEModule):
            self.prior = model._prior
            if isinstance(self.prior, AutoregressivePrior):
                self.prior = _frozen(self.prior.sequence)
        self.draws: Any = None
        if n_importance is not None:
            self.draws = _draws_on_cpu(model, n_importance)
        if isinstance(self.network, HelmholtzModule):
            self.up = copy.deepcopy(self.network.up).double()

    def forward(self, X: Tensor) -> Tensor:
        """Return the scores of rows in nats."""
        batch, network = self.batch(X), self.network
        match network:
            case VAEModule():
                whole = slice(0, len(self.draws))
                return batch_bounds(network, batch, self.draws, [whole], network.prior())
            case HelmholtzModule():
                return _helmholtz_bounds(network, batch, self.draws, self.up)
            case VQVAEModule():
                _, quantized, output = network(batch)
                nats = self.prior.log_prob(quantized.indices.flatten(1))
                nats = nats.sum(1) if nats.ndim > 1 else nats  # by position
            case _:
                output, nats = network.decode(network.encode(batch.x)), 0.0
        likelihood = network.likelihood
        is_bound = isinstance(network, VQVAEModule)
        log_prob = likelihood.row_log_marginal if is_bound else likelihood.row_log_given
        nats = nats + log_prob(batch.y, output, batch.seen)
        found: Tensor = nats - network.log_units(batch)
        return found


def _frozen(module: Any) -> Any:
    """Return a copy of a module for evaluation on the CPU."""
    return copy.deepcopy(module).cpu().eval().requires_grad_(False)


def _codes(network: Any, batch: Batch, form: str) -> Tensor:
    """Return the codes of a batch; `form` is the parameter `codes` of VQVAE."""
    match network:
        case DeterministicModule():
            return network.encode(batch.x)
        case VAEModule():
            return network.encode(batch.x).mean
        case VQVAEModule():
            quantised = network.quantise(batch.x)
            if form == "embedding":
                return quantised.value.flatten(1)
            indices = quantised.indices.flatten(1)
            if form == "onehot":
                n_codes = network.architecture.codebook_size
                return one_hot(indices, n_codes).to(torch.float32).flatten(1)
            return indices
        case HelmholtzModule():
            return network.probabilities(batch.x)[-1]
    raise TypeError(f"{type(network).__name__} has no encoder that can be exported.")


def _means(network: Any, Z: Tensor, form: str) -> Tensor:
    """Return the means of p(x|z); `form` is the parameter `codes` of VQVAE."""
    match network:
        case VAEModule():
            return network.mean(Z, None)
        case VQVAEModule() if form == "embedding":
            output = network.decode(Z.unflatten(1, (-1, network.architecture.code_dim)))
        case VQVAEModule():
            if form == "onehot":
                Z = Z.unflatten(1, (-1, network.architecture.codebook_size)).argmax(2)
            output = network.of_indices(Z.long())
        case HelmholtzModule():
            output = network.output(Z)
        case _:
            output = network.decode(Z)
    means: Tensor = network.likelihood.mean(output)
    return means


def _draws_on_cpu(model: Any, n_importance: int) -> RowDraws:
    """Return the draws of `score_samples`."""
    draws: RowDraws = model._row_draws(n_importance)
    for name in ("sets", "turns", "start"):
        setattr(draws, name, getattr(draws, name).cpu())
    return draws


def _helmholtz_bounds(
    network: HelmholtzModule, batch: Batch, draws: RowDraws, up: nn.ModuleList
) -> Tensor:
    """Return the bounds of `importance_bounds`, with `up` as the recognition layers in float64.

    Only the draws of units need float64.
    """
    x = batch.x.double()
    uniform = normal_cdf(draws.of(x, slice(0, len(draws))))
    found = network.recognise(x, uniform, up)
    narrow = Recognised(*([t.float() for t in ts] for ts in found))
    log_weight = log_weights(network, batch, narrow, narrow.states)
    return log_weight.logsumexp(-1) - log(len(draws)) - network.log_units(batch)


def normal_cdf(x: Tensor) -> Tensor:
    """Return the distribution function of N(0, 1) in float64.

    onnxruntime has no error function in float64. With t = |x| / √2, the smaller tail is
    exp(-t²) erfcx(t) / 2, and (1 + 2 t) erfcx(t) is a smooth function of (t - 2) / (t + 2), for
    which a polynomial is used.
    """
    t = x.abs() * _ROOT_HALF
    place = (t - 2) / (t + 2)
    *others, last = _coefficients()
    value = torch.full_like(t, last)
    for coefficient in reversed(others):
        value = value * place + coefficient
    tail = 0.5 * torch.exp(-t.square()) * value / (1 + 2 * t)
    return torch.where(x < 0, tail, 1 - tail)


def _coefficients() -> list[float]:
    """Return the coefficients of the polynomial, from the constant on."""

    def function(place: Any) -> Any:
        t = 2 * (1 + place) / np.maximum(1 - place, 1e-12)
        return (1 + 2 * t) * erfcx(t)

    found: list[float] = cheb2poly(chebinterpolate(function, _DEGREE)).tolist()
    return found
