"""The network of Autoencoder: formulas, encoder, dropped codes, decoder and loss."""

from dataclasses import dataclass
from typing import ClassVar

import torch
from torch import Tensor, nn

from skae._modules.deterministic import DeterministicArchitecture, DeterministicModule
from skae._nn.likelihood_base import Likelihood
from skae._training.data import Batch
from skae._training.module import Loss, mean_of_batch, weighted_mean

# -------------------------------------------------------------------------- formulas


def bernoulli_divergence(target: float, mean: Tensor) -> Tensor:
    """Return KL(Bernoulli(target) || Bernoulli(mean)) of every unit, in nats."""
    mean = mean.clamp(1e-6, 1 - 1e-6)
    on = target * (target / mean).log()
    return on + (1 - target) * ((1 - target) / (1 - mean)).log()


def projected_jacobian_norm(z: Tensor, x: Tensor, directions: Tensor) -> Tensor:
    """Return |v' dz/dx|² of rows; its mean over random signs v is the squared Frobenius norm."""
    # With directions that need gradients, torch raises for parts of an encoder that cannot be
    # differentiated twice. Without them, it may leave out the gradients of these parts.
    directions = directions.clone().requires_grad_()
    (gradient,) = torch.autograd.grad((z * directions).sum(), x, create_graph=True)
    return gradient.square().sum(1)


# ------------------------------------------------------------------------ the network


@dataclass(frozen=True, kw_only=True)
class AutoencoderArchitecture(DeterministicArchitecture):
    """Architecture with the terms of the loss."""

    noise: str | None
    noise_level: float
    sparsity: float | None
    sparsity_weight: float
    contraction: float

    changeable: ClassVar[tuple[str, ...]] = (
        "growth_epochs",
        "noise",
        "noise_level",
        "sparsity_weight",
        "contraction",
    )


class AutoencoderModule(DeterministicModule):
    """A deterministic module that may add noise to its input and drop codes."""

    architecture: AutoencoderArchitecture
    fills: Tensor

    def __init__(
        self,
        encoder: nn.Module,
        decoder: nn.Module,
        likelihood: Likelihood,
        architecture: AutoencoderArchitecture,
        perceptual: tuple[nn.Module, float] | None,
    ) -> None:
        super().__init__(encoder, decoder, likelihood, architecture, perceptual)
        # Zero, and both ends of the range of the data, in the units of the encoder.
        fills = torch.tensor([[0.0], *([end] for end in architecture.range)], dtype=torch.float64)
        fills = fills.expand(3, architecture.n_features)
        if architecture.units.inputs is not None:
            fills = architecture.units.inputs.apply(fills)
        self.register_buffer("fills", fills.float().contiguous(), persistent=False)

    def stack_obstacle(self) -> str | None:
        if self.architecture.contraction:
            return f"contraction={self.architecture.contraction} needs gradients of gradients"
        return super().stack_obstacle()

    def all_codes(self, x: Tensor) -> Tensor:
        """Return all codes; codes that are not yet added are zero."""
        if self.architecture.sparsity is None:
            return super().all_codes(x)
        return torch.sigmoid(self.encoder(x).float()) * self.gate

    def prepare(self, batch: Batch, generator: torch.Generator) -> Batch:
        """Add noise to the encoder's input, and draw which codes are dropped."""
        architecture = self.architecture
        if not self.training:
            return batch
        if architecture.noise is not None:
            batch = batch._replace(x=self._corrupted(batch, generator))
        if architecture.contraction:
            batch = batch._replace(x=batch.x.clone().requires_grad_())
            k, device = architecture.n_codes, batch.x.device
            signs = batch.drawn(
                lambda n: torch.randint(0, 2, (n, k), generator=generator, device=device)
            )
            batch = batch._replace(draws=2.0 * signs - 1.0)
        return self.with_cuts(batch, generator)

    def _corrupted(self, batch: Batch, generator: torch.Generator) -> Tensor:
        kind, level, n_features = (
            self.architecture.noise,
            self.architecture.noise_level,
            self.architecture.n_features,
        )
        x, mask = batch.x[:, :n_features], batch.x[:, n_features:]
        columns, device = self.architecture.columns, x.device
        if kind == "masking" and columns is not None:  # whole columns become missing
            k = len(columns)
            chance = batch.drawn(lambda n: torch.rand((n, k), generator=generator, device=device))
            kept = (chance >= level).to(x)
            x = x * kept[:, columns.source.to(x.device)]
            return torch.cat([x, mask * kept], 1) if mask.shape[1] else x
        if kind == "gaussian":
            x = x + level * batch.drawn(lambda n: _empty(n, x).normal_(generator=generator))
        else:
            chance = batch.drawn(lambda n: _empty(n, x).uniform_(generator=generator))
            zero, low, high = self.fills
            if kind == "masking":
                x = torch.where(chance < level, zero, x)
            else:
                x = torch.where(chance < level, torch.where(chance < level / 2, low, high), x)
        if batch.seen is not None:
            x = x * batch.seen
        return torch.cat([x, mask], dim=1) if mask.shape[1] else x

    def loss(self, batch: Batch) -> Loss:
        """Return the terms of the loss in nats per row."""
        architecture = self.architecture
        z, output = self(batch)
        terms = self.neg_log_likelihood(batch, output)
        if architecture.sparsity is not None:
            mean = mean_of_batch(z, batch)[: architecture.n_components]
            open_gate = self.gate[: architecture.n_components]
            divergence = (bernoulli_divergence(architecture.sparsity, mean) * open_gate).sum()
            terms["sparsity"] = architecture.sparsity_weight * divergence
        if architecture.contraction and batch.draws is not None:
            norm = projected_jacobian_norm(z, batch.x, batch.draws)
            terms["contraction"] = architecture.contraction * weighted_mean(norm, batch.weight)
        return Loss(terms, output)


def _empty(n: int, x: Tensor) -> Tensor:
    """Return a tensor for n rows like those of x."""
    return x.new_empty(n, *x.shape[1:])
