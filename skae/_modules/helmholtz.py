"""The network of HelmholtzMachine: p(h) p(x|h), q(h|x), and the losses that train them.

Layers h_1, ..., h_L of binary units are above the data h_0 = x. Generation runs from the top to the
data, p(x, h) = p(h_L) p(h_{L-1}|h_L) ... p(x|h_1), and recognition from the data to the top, q(h|x)
= q(h_1|x) ... q(h_L|h_{L-1}). The units of a layer are independent given the layer that they are
drawn from, with probabilities σ(W h + b).

References
----------
P. Dayan, G. E. Hinton, R. M. Neal and R. S. Zemel (1995). The Helmholtz machine. Neural
Computation 7. :doi:`10.1162/neco.1995.7.5.889`

J. Bornschein and Y. Bengio (2015). Reweighted wake-sleep. ICLR.
:doi:`10.48550/arXiv.1406.2751`
"""

from dataclasses import dataclass
from functools import reduce
from itertools import pairwise
from typing import ClassVar, NamedTuple

import torch
from torch import Tensor, nn
from torch.nn.functional import softplus

from skae._modules.architecture import Architecture
from skae._modules.likelihood import LikelihoodModule
from skae._nn.densities import bernoulli_at, bernoulli_row_log_mass
from skae._nn.gaussian_latents import log_mean_exp
from skae._nn.likelihood_base import Likelihood
from skae._nn.likelihoods import explained
from skae._nn.networks import dense, start_at
from skae._training.data import Batch
from skae._training.module import Blocks, Loss, weighted_mean

# Initial logit of the units if rows are binary: they are 1 in about a quarter of the rows. With one
# half, the units learned the same features (the score of held-out digits was 1.3 nats lower after 8
# epochs). If rows are Gaussian, and lie on both sides of their mean, this initial logit led to
# worse optima with few units.
_START_LOGIT = -1.0
# Initial logit of units that represent parts of rows, which are 1 in one of twenty rows.
_RARE = -3.0

# Logit of a unit that is never 1.
_NEVER = -1e4

ALGORITHMS = ("wake-sleep", "reweighted", "free-energy")


# ------------------------------------------------------------------------- formulas


def total(parts: list[Tensor]) -> Tensor:
    """Return the sum over layers."""
    return reduce(torch.add, parts)


def full(values: Tensor) -> Tensor:
    """Convert results of autocast in bfloat16 to float32."""
    return values.float() if values.dtype == torch.bfloat16 else values


def leave_one_out(costs: Tensor) -> Tensor:
    """Subtract from each particle's cost the mean of the others, (..., n_particles)."""
    n = costs.shape[-1]
    return (costs - costs.mean(-1, keepdim=True)) * (n / (n - 1))


def n_trained(epoch: int, layerwise_epochs: int, n_layers: int) -> int:
    """Return the number of layers that are trained in an epoch: one more after equal times."""
    if epoch >= layerwise_epochs:
        return n_layers
    return 1 + (n_layers - 1) * epoch // layerwise_epochs


# --------------------------------------------------------------------------- module


@dataclass(frozen=True, kw_only=True)
class HelmholtzArchitecture(Architecture):
    """Architecture with the training method."""

    algorithm: str
    n_particles: int
    binarised: bool  # rows are probabilities, from which binary rows are drawn anew in every epoch
    positive: bool = False  # whether units can only raise features
    layerwise_epochs: int = 0  # epochs in which layers are added one by one

    changeable: ClassVar[tuple[str, ...]] = ("n_particles", "binarised", "layerwise_epochs")

    def widest(self) -> int:
        """Return as in the base class, or the number of all units, which are drawn in float64."""
        return max(super().widest(), 2 * self.n_units)

    def passes_per_row(self) -> int:
        return self.n_particles

    @property
    def layer_sizes(self) -> tuple[int, ...]:
        """Number of units of the layers, from the lowest to the top, without the data."""
        return (*self.hidden_layer_sizes, self.n_codes)

    @property
    def n_units(self) -> int:
        """Number of units of all layers."""
        return sum(self.layer_sizes)

    @property
    def dreams(self) -> bool:
        """Whether training needs draws from p(x, h)."""
        return self.algorithm != "free-energy"


class Dream(NamedTuple):
    """Units of all layers, from the lowest to the top, and the parameters of p(x|h_1)."""

    states: list[Tensor]
    output: Tensor


class Recognised(NamedTuple):
    """Units drawn from q(h|x), from the lowest layer to the top, and their logits."""

    states: list[Tensor]
    logits: list[Tensor]

    def log_q(self) -> list[Tensor]:
        """Return log q(h_l|h_{l-1}) of every layer."""
        return [bernoulli_row_log_mass(*layer) for layer in zip(*self, strict=True)]


class HelmholtzModule(LikelihoodModule):
    """Recognition and generation layers, and the likelihood of rows."""

    architecture: HelmholtzArchitecture
    shift: Tensor
    per_unit: Tensor

    def __init__(
        self,
        likelihood: Likelihood,
        architecture: HelmholtzArchitecture,
        generator: torch.Generator,
    ) -> None:
        super().__init__()
        self.likelihood, self.architecture = likelihood, architecture
        self.up = nn.ModuleList(
            dense(n_in, n_out, 1.0, generator)
            for n_in, n_out in pairwise((architecture.n_read, *architecture.layer_sizes))
        )
        self.to_rows = dense(architecture.layer_sizes[0], architecture.n_features, 1.0, generator)
        if architecture.positive:
            self.to_rows.weight.data.abs_()  # type: ignore[operator]
        self.down = nn.ModuleList(
            dense(n_out, n_in, 1.0, generator) for n_in, n_out in pairwise(architecture.layer_sizes)
        )
        starts = [0.0 if likelihood.location else _START_LOGIT] * len(self.up)
        if architecture.positive:  # parts of rows are rare, and the choice between them is not
            starts = [_RARE, *[0.0] * len(self.down)]
        self.prior_logit = nn.Parameter(torch.full((architecture.n_codes,), starts[-1]))
        for layers in (self.up, self.down):
            for layer, start in zip(layers, starts, strict=False):  # biases of the top are apart
                nn.init.constant_(layer.bias, start)  # type: ignore[arg-type]
        if not architecture.rescaled:
            start_at(self.to_rows, architecture.start_output())
        # Conversion from the units of the decoder to those of recognition.
        inputs, located = architecture.affine, architecture.located
        scale = torch.as_tensor(inputs.scale)
        shift = torch.where(located, 0.0, -inputs.center / scale)
        per_unit = torch.where(located, 1.0, 1 / scale)
        self.register_buffer("shift", shift.float(), persistent=False)
        self.register_buffer("per_unit", per_unit.float(), persistent=False)
        self.n_trained = len(self.up)  # in the present epoch, from the lowest layer

    # ------------------------------------------------------------------ distributions

    def read(self, x: Tensor, seen: Tensor | None) -> Tensor:
        """Return drawn rows as inputs of recognition, in the format of other rows."""
        columns = self.architecture.columns
        if not self.architecture.rescaled:
            x = x if columns is None else columns.as_read(x)
            x = torch.addcmul(self.shift, x, self.per_unit)
        if seen is not None:
            x = x * seen
        if self.architecture.with_mask:
            seen = torch.ones_like(x) if seen is None else seen
            x = torch.cat([x, seen if columns is None else columns.first(seen)], -1)
        return x

    def recognise(self, x: Tensor, uniform: Tensor, up: nn.ModuleList | None = None) -> Recognised:
        """Draw from q(h|x) by uniform numbers (n, n_particles, n_units).

        `up` are the recognition layers in another precision, or the lowest of them.
        """
        found = Recognised([], [])
        below, layers = x[:, None], up or self.up
        uniforms = uniform.split(self.architecture.layer_sizes, -1)[: len(layers)]
        for layer, u in zip(layers, uniforms, strict=True):
            logit = full(layer(below))
            below = bernoulli_at(logit, u)
            found.states.append(below)
            found.logits.append(logit)
        return found

    def log_p(
        self, y: Tensor, seen: Tensor | None, states: list[Tensor]
    ) -> tuple[list[Tensor], Tensor]:
        """Return log p(h_{l-1}|h_l) from the data up, then log p(h_L); and the output.

        If there are states of the lowest layers only, they are those of a smaller machine.
        """
        output = full(self.to_rows(states[0]))
        logs = [self.likelihood.row_log_prob(y, output, seen)]
        down = self.down[: len(states) - 1]
        for layer, (below, above) in zip(down, pairwise(states), strict=True):
            logs.append(bernoulli_row_log_mass(below, full(layer(above))))
        top = self.top_logit(len(states)).to(states[-1].dtype)
        logs.append((states[-1] * top).sum(-1) - softplus(top).sum())
        return logs, output

    def top_logit(self, n_layers: int) -> Tensor:
        """Return the logits of the top layer of a machine of the lowest layers.

        Without units above, those of a lower layer have their biases.
        """
        if n_layers == len(self.up):
            return self.prior_logit
        bias: Tensor = self.down[n_layers - 1].bias  # type: ignore[assignment]
        return bias

    def dream(
        self, uniform: Tensor, top: Tensor | None = None, n_layers: int | None = None
    ) -> Dream:
        """Draw from p(h) by uniform numbers (n, n_units), and compute the output of p(x|h_1).

        The units of the top layer may be given. With `n_layers`, the machine is that of the lowest
        layers.
        """
        n_layers = n_layers or len(self.up)
        *lower, u = uniform.split(self.architecture.layer_sizes, -1)[:n_layers]
        states = [bernoulli_at(self.top_logit(n_layers), u) if top is None else top]
        for layer, u in zip(reversed(self.down[: n_layers - 1]), reversed(lower), strict=True):
            states.append(bernoulli_at(full(layer(states[-1])), u))
        return Dream(states[::-1], full(self.to_rows(states[-1])))

    def rows_at(self, output: Tensor, uniform: Tensor) -> Tensor:
        """Draw from p(x|h_1) by uniform numbers."""
        return self.likelihood.at(output, uniform)

    def probabilities(self, x: Tensor) -> list[Tensor]:
        """Return the probabilities of all layers, each computed from those of the layer below."""
        found = []
        for layer in self.up:
            x = torch.sigmoid(full(layer(x)))
            found.append(x)
        return found

    def output(self, z: Tensor) -> Tensor:
        """Return the parameters of p(x|z), with probabilities in place of units between."""
        for layer in reversed(self.down):
            z = torch.sigmoid(full(layer(z)))
        return full(self.to_rows(z))

    def output_of(self, batch: Batch) -> Tensor:
        return self.output(self.probabilities(batch.x)[-1])

    # ------------------------------------------------------ called by the training loop

    def begin_epoch(self, epoch: int) -> None:
        """Choose the layers that are trained; weights of the others have no gradients."""
        self.n_trained = n_trained(epoch, self.architecture.layerwise_epochs, len(self.up))

    def prepare(self, batch: Batch, generator: torch.Generator) -> Batch:
        """Draw rows from their probabilities, and the uniform numbers of particles and dreams."""
        architecture, device = self.architecture, batch.y.device

        def uniform(n_columns: int) -> Tensor:
            return batch.drawn(
                lambda n: torch.rand((n, n_columns), generator=generator, device=device)
            )

        if architecture.binarised:
            coins = uniform(batch.y.shape[1])
            y = torch.lt(coins, batch.y, out=coins)
            batch = batch._replace(y=y, x=self.read(y, batch.seen))
        n_draws = architecture.n_particles * architecture.n_units
        if architecture.dreams:
            n_draws += architecture.n_units + architecture.n_features
        return batch._replace(draws=uniform(n_draws))

    def loss(self, batch: Batch) -> Loss:
        """Return the free energy or the importance-weighted bound, with the algorithm's gradient.

        In generation, every layer is a logistic regression on the units above, which are drawn and
        held constant. Its gradient is the delta rule (h_{l-1} - p_{l-1}) h_l, and no gradient
        passes from layer to layer. Recognition has another loss, of which only the gradient is
        added.
        """
        architecture, seen = self.architecture, None if batch.seen is None else batch.seen[:, None]
        uniform = batch.draws[:, : architecture.n_particles * architecture.n_units]  # type: ignore[index]
        uniform = uniform.unflatten(1, (architecture.n_particles, -1))
        learns_awake = architecture.algorithm != "wake-sleep" and torch.is_grad_enabled()
        with torch.set_grad_enabled(learns_awake):
            found = self.recognise(batch.x, uniform, self.up[: self.n_trained])
            log_q = found.log_q()
        log_p, output = self.log_p(batch.y[:, None], seen, found.states)
        log_p[0] = log_p[0] - self.log_units(batch)[:, None]
        energy, held = -total(log_p), total(log_q).detach()
        importance, logged = torch.full_like(held, 1 / architecture.n_particles), {}
        if architecture.dreams:
            asleep = self._asleep(batch)
            logged["sleep"] = weighted_mean(asleep, batch.weight)
        match architecture.algorithm:
            case "wake-sleep":
                lesson = asleep
            case "reweighted":  # the mean of the sleep and the wake updates of recognition
                importance = (-energy - held).detach().softmax(-1)
                lesson = (asleep - (importance * total(log_q)).sum(1)) / 2
            case _:
                lesson = self._compared(log_p, log_q)
        terms = {"energy": energy.mean(1), "neg_entropy": held.mean(1)}
        if architecture.algorithm == "reweighted":
            terms = {"bound": -log_mean_exp(-energy - held)}
        last = list(terms)[-1]
        terms[last] = terms[last] + (lesson - lesson.detach())
        means = {name: weighted_mean(term, batch.weight) for name, term in terms.items()}
        return Loss(means, output, (importance,) * self.likelihood.learned, logged)

    def _asleep(self, batch: Batch) -> Tensor:
        """Return -log q(h|x) of dreams, one for each row, with the missing values of that row."""
        architecture = self.architecture
        with torch.no_grad():
            draws = batch.draws[:, -architecture.n_units - architecture.n_features :]  # type: ignore[index]
            uniform = draws[:, : architecture.n_units]
            states, output = self.dream(uniform, n_layers=self.n_trained)
            read = self.read(self.rows_at(output, draws[:, architecture.n_units :]), batch.seen)
        below = [read, *states[:-1]]
        up = self.up[: self.n_trained]
        logits = [full(layer(b)) for layer, b in zip(up, below, strict=True)]
        return -total(Recognised(states, logits).log_q())

    def _compared(self, log_p: list[Tensor], log_q: list[Tensor]) -> Tensor:
        """Return a loss whose gradient is an unbiased estimate of that of F for recognition.

        The gradient is E[sum_l cost_l d log q(h_l|h_{l-1})], where cost_l contains the terms of F
        that depend on h_l, those of the layers above h_{l-1}. A baseline from the other particles
        does not change the expectation, because E d log q = 0.
        """
        by_layer = torch.stack([q - p for p, q in zip(log_p[:-1], log_q, strict=True)]).detach()
        by_layer[-1] -= log_p[-1].detach()
        to_go = by_layer.flip(0).cumsum(0).flip(0)
        return (leave_one_out(to_go) * torch.stack(log_q)).sum(0).mean(1)

    def log_units(self, batch: Batch) -> Tensor:
        """Return the change of each row's log density in the units of the data."""
        return batch.y.new_zeros(batch.y.shape[0]) + super().log_units(batch)

    def step_scale(self) -> Tensor | float:
        """Return the noise variance of Gaussian rows, as their gradients grow when it decreases.

        The factor has no effect on solvers that adapt to the size of gradients. With "sgd" it also
        affects the layers above, whose gradients do not grow.
        """
        return self.likelihood.step_scale()

    def stack_obstacle(self) -> str | None:
        if self.architecture.layerwise_epochs:
            return "its layers are added one by one"
        tables = self.architecture.columns is not None
        return "its columns have different likelihoods" if tables else None

    def blocks(self) -> Blocks:
        """Return the axes of the top layer; units that a smaller module lacks are never 1."""
        architecture, n = self.architecture, self.architecture.n_codes
        top = f"up.{len(self.up) - 1}"
        axes: dict[str, dict[int, tuple[int, ...]]] = {
            f"{top}.weight": {0: (n,)},
            f"{top}.bias": {0: (n,)},
            "prior_logit": {0: (n,)},
            f"down.{len(self.down) - 1}.weight" if self.down else "to_rows.weight": {1: (n,)},
        }
        draws = architecture.layer_sizes * architecture.n_particles
        if architecture.dreams:
            draws += (*architecture.layer_sizes, architecture.n_features)
        fills = {f"{top}.bias": _NEVER, "prior_logit": _NEVER}
        return Blocks(axes, draws, fills, unused_draw=1.0)

    def followed(self) -> tuple[str, ...]:
        return (*super().followed(), *("to_rows.weight",) * self.architecture.positive)

    @property
    def follows_alone(self) -> bool:
        """Return whether `after_step` changes weights, which a stack does not do."""
        return self.architecture.positive

    def after_step(self, batch: Batch, loss: Loss) -> None:
        if self.architecture.positive:  # the nearest weights that are not negative
            self.to_rows.weight.data.clamp_(min=0)  # type: ignore[operator]
        if self.likelihood.learned:
            self.likelihood.follow(*explained(batch, loss.output, loss.aux[0]), batch.part)
