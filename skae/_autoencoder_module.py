"""The network of Autoencoder: formulas, encoder, gate on the codes, decoder, loss."""

from dataclasses import dataclass
from typing import Any, NamedTuple, Self

import torch
from torch import Tensor, nn

from skae._blueprint import Blueprint
from skae._likelihoods import Likelihood
from skae._networks import activation_module
from skae._rows import Batch
from skae._training import Loss, TrainableModule, weighted_mean

# -------------------------------------------------------------------------- formulas


def bernoulli_divergence(target: float, mean: Tensor) -> Tensor:
    """KL(Bernoulli(target) || Bernoulli(mean)) of every unit, in nats."""
    mean = mean.clamp(1e-6, 1 - 1e-6)
    on = target * (target / mean).log()
    return on + (1 - target) * ((1 - target) / (1 - mean)).log()


def projected_jacobian_norm(z: Tensor, x: Tensor, directions: Tensor) -> Tensor:
    """|v' dz/dx|² of every row; over random signs v its mean is the squared Frobenius norm."""
    (gradient,) = torch.autograd.grad((z * directions).sum(), x, create_graph=True)
    return gradient.square().sum(1)


def open_codes(epoch: int, growth_epochs: int, n_codes: int) -> int:
    """How many codes are active in an epoch (from 0), growing linearly from 1 to all."""
    if epoch >= growth_epochs:
        return n_codes
    return 1 + (n_codes - 1) * epoch // max(1, growth_epochs - 1)


# ------------------------------------------------------------------------ the network


@dataclass(frozen=True, kw_only=True)
class AutoencoderBlueprint(Blueprint):
    """A blueprint, and what the loss is made of."""

    latent_growth: str | None
    growth_epochs: int
    noise: str | None
    noise_level: float
    sparsity: float | None
    sparsity_weight: float
    contraction: float

    changeable = ("growth_epochs", "noise", "noise_level", "sparsity_weight", "contraction")


class Pass(NamedTuple):
    """Codes of a batch, and what the decoder makes of them."""

    z: Tensor
    output: Tensor


class AutoencoderModule(TrainableModule):
    """Encoder, gate on the codes, decoder and likelihood."""

    gate: Tensor
    fills: Tensor

    def __init__(
        self,
        encoder: nn.Module,
        decoder: nn.Module,
        likelihood: Likelihood,
        plan: "AutoencoderBlueprint",
        perceptual: tuple[nn.Module, float] | None,
    ) -> None:
        super().__init__()
        self.encoder, self.decoder, self.likelihood = encoder, decoder, likelihood
        self.plan = plan
        self.out_activation = activation_module(plan.out_activation)
        gate = (torch.arange(plan.n_codes) < plan.n_components).float()
        self.register_buffer("gate", gate)
        # Zero and both ends of the data's range, as the encoder reads them.
        fills = torch.tensor([[0.0], *([end] for end in plan.range)], dtype=torch.float64)
        fills = fills.expand(3, plan.n_features)
        if self.plan.units.inputs is not None:
            fills = self.plan.units.inputs.apply(fills)
        self.register_buffer("fills", fills.float().contiguous(), persistent=False)
        # In a list the user's network is neither trained nor saved with the weights.
        self.perceptual = [] if perceptual is None else [perceptual]

    def _apply(self, fn: Any, recurse: bool = True) -> Self:
        """Move the perceptual network to other devices, too."""
        for network, _ in self.perceptual:
            network._apply(fn, recurse)
        return super()._apply(fn, recurse)

    def encode(self, x: Tensor) -> Tensor:
        """The codes, (n, n_components)."""
        return self.all_codes(x)[:, : self.plan.n_components]

    def all_codes(self, x: Tensor) -> Tensor:
        """Codes of the whole network; those that are not open are zero."""
        z = self.encoder(x).float()
        if self.plan.sparsity is not None:
            z = torch.sigmoid(z)
        return z * self.gate

    def decode(self, z: Tensor) -> Tensor:
        """What parametrises p(x|z)."""
        missing = self.plan.n_codes - z.shape[1]
        if missing:
            z = nn.functional.pad(z, (0, missing))
        return self.out_activation(self.decoder(z).float())

    def forward(self, batch: Batch) -> Pass:
        """Codes and output of a batch."""
        z = self.all_codes(batch.x)
        return Pass(z, self.decode(z if batch.gate is None else z * batch.gate))

    # What training asks for.

    def begin_epoch(self, epoch: int) -> None:
        """Open one more code, if it is time."""
        plan = self.plan
        if plan.latent_growth == "incremental" and epoch <= plan.growth_epochs:
            n_open = min(open_codes(epoch, plan.growth_epochs, plan.n_codes), plan.n_components)
            self.gate.copy_(torch.arange(plan.n_codes) < n_open)

    def prepare(self, batch: Batch, generator: torch.Generator) -> Batch:
        """Corrupt what the encoder reads, draw cuts of the codes."""
        plan = self.plan
        if plan.noise is not None:
            batch = batch._replace(x=self._corrupted(batch, generator))
        if plan.contraction:
            batch = batch._replace(x=batch.x.clone().requires_grad_())
            shape = (len(batch.x), plan.n_codes)
            signs = torch.randint(0, 2, shape, generator=generator, device=batch.x.device)
            batch = batch._replace(draws=2.0 * signs - 1.0)
        if plan.latent_growth is not None:
            batch = batch._replace(gate=self._cuts(batch, generator))
        return batch

    def _cuts(self, batch: Batch, generator: torch.Generator) -> Tensor:
        """1 for each row's first codes, up to a random one; 0 for the others.

        Incremental growth cuts every other row, among the codes that are open. It needs
        the cuts: without them nothing holds early codes to explain a row by themselves
        once others have opened, and the order is lost (measured in docs/benchmarks.md).
        """
        n, device = len(batch.x), batch.x.device
        chance = torch.rand((n, 1), generator=generator, device=device)
        if self.plan.latent_growth == "incremental":
            chance = 2 * chance
        cut = (chance * self.gate.sum()).floor() + 1
        return (torch.arange(self.plan.n_codes, device=device) < cut).float()

    def _corrupted(self, batch: Batch, generator: torch.Generator) -> Tensor:
        kind, level, n_features = self.plan.noise, self.plan.noise_level, self.plan.n_features
        x, mask = batch.x[:, :n_features], batch.x[:, n_features:]
        if kind == "gaussian":
            x = x + level * torch.empty_like(x).normal_(generator=generator)
        else:
            chance = torch.empty_like(x).uniform_(generator=generator)
            zero, low, high = self.fills
            if kind == "masking":
                x = torch.where(chance < level, zero, x)
            else:
                x = torch.where(chance < level, torch.where(chance < level / 2, low, high), x)
        if batch.seen is not None:
            x = x * batch.seen
        return torch.cat([x, mask], dim=1) if mask.shape[1] else x

    def loss(self, batch: Batch) -> Loss:
        """Named terms in nats per row."""
        plan = self.plan
        z, output = self(batch)
        log_prob = self.likelihood.row_log_prob(batch.y, output, batch.seen)
        n_seen = plan.n_features if batch.seen is None else batch.seen.sum(1)
        terms = {
            "reconstruction": weighted_mean(n_seen * self.plan.log_scale - log_prob, batch.weight)
        }
        if plan.sparsity is not None:
            mean = weighted_mean(z, batch.weight)[: plan.n_components]
            open_gate = self.gate[: plan.n_components]
            divergence = (bernoulli_divergence(plan.sparsity, mean) * open_gate).sum()
            terms["sparsity"] = plan.sparsity_weight * divergence
        if plan.contraction and batch.draws is not None:
            norm = projected_jacobian_norm(z, batch.x, batch.draws)
            terms["contraction"] = plan.contraction * weighted_mean(norm, batch.weight)
        for network, weight in self.perceptual:
            distance = self.feature_distance(network, batch, self.likelihood.mean(output))
            terms["perceptual"] = weight * weighted_mean(distance, batch.weight)
        return Loss(terms, output)

    def feature_distance(self, network: nn.Module, batch: Batch, mean: Tensor) -> Tensor:
        """Squared distance of a network's features of x and of its reconstruction."""
        if batch.seen is not None:  # what was not seen cannot differ
            mean = mean * batch.seen
        pair = torch.cat([batch.y, mean])
        if self.plan.units.targets is not None:
            center = self.plan.units.targets.center.to(pair.device, pair.dtype)
            pair = pair * self.plan.units.targets.scale + center
        if self.plan.image_shape is not None:
            pair = pair.unflatten(1, self.plan.image_shape)
        with torch.no_grad():
            of_rows = network(pair[: len(mean)])
        return (network(pair[len(mean) :]) - of_rows).flatten(1).square().sum(1)

    def step_scale(self) -> Tensor | float:
        return self.likelihood.step_scale() / self.plan.n_features

    def after_step(self, batch: Batch, output: Tensor) -> None:
        self.likelihood.follow(batch.y, output, batch.weight, batch.seen)
