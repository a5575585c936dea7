"""The common part of models with deterministic codes: encoder, dropped codes, decoder and loss.

Dropping codes orders them by importance: codes that are added late, or dropped often, learn what
the codes before them cannot explain.
"""

from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any, ClassVar, NamedTuple, Self

import torch
from torch import Tensor, nn

from skae._modules.architecture import EncoderDecoderArchitecture
from skae._modules.likelihood import LikelihoodModule
from skae._modules.linear_start import LinearCodes, LinearStart
from skae._nn.likelihood_base import Likelihood
from skae._nn.linear_maps import AffineMap
from skae._nn.networks import activation_module
from skae._training.data import Batch
from skae._training.module import Blocks, Loss, weighted_mean


def open_codes(epoch: int, growth_epochs: int, n_codes: int) -> int:
    """Return the number of codes in an epoch (from 0), growing linearly from 1 to all."""
    if epoch >= growth_epochs:
        return n_codes
    return 1 + (n_codes - 1) * epoch // max(1, growth_epochs - 1)


@dataclass(frozen=True, kw_only=True)
class DeterministicArchitecture(EncoderDecoderArchitecture):
    """Architecture with the way in which codes are ordered."""

    latent_growth: str | None
    growth_epochs: int

    changeable: ClassVar[tuple[str, ...]] = ("growth_epochs",)


class Pass(NamedTuple):
    """Codes of a batch, and the output of the decoder."""

    z: Tensor
    output: Tensor


class DeterministicModule(LikelihoodModule):
    """Encoder, a gate that drops codes, decoder and likelihood."""

    gate: Tensor
    architecture: DeterministicArchitecture

    def __init__(
        self,
        encoder: nn.Module,
        decoder: nn.Module,
        likelihood: Likelihood,
        architecture: DeterministicArchitecture,
        perceptual: tuple[nn.Module, float] | None,
    ) -> None:
        super().__init__()
        self.encoder, self.decoder, self.likelihood = encoder, decoder, likelihood
        self.architecture = architecture
        self.out_activation = activation_module(architecture.out_activation)
        gate = (torch.arange(architecture.n_codes) < architecture.n_components).float()
        self.register_buffer("gate", gate)
        # A list hides the user's network from torch: it is neither trained nor saved with the
        # weights.
        self.perceptual = [] if perceptual is None else [perceptual]

    def _apply(self, fn: Any, recurse: bool = True) -> Self:
        """Move the perceptual network to other devices, too."""
        for network, _ in self.perceptual:
            network._apply(fn, recurse)
        return super()._apply(fn, recurse)

    def encode(self, x: Tensor) -> Tensor:
        """Return the codes in use, (n, n_components)."""
        return self.all_codes(x)[:, : self.architecture.n_components]

    def all_codes(self, x: Tensor) -> Tensor:
        """Return all codes; codes that are not yet added are zero."""
        codes = self.encoder(x).float()
        return codes if self.architecture.latent_growth is None else codes * self.gate

    def decode(self, z: Tensor) -> Tensor:
        """Return the parameters of p(x|z) for codes (..., k); missing last codes count as zero."""
        missing = self.architecture.n_codes - z.shape[-1]
        if missing:
            z = nn.functional.pad(z, (0, missing))
        if z.ndim == 2:
            return self.out_activation(self.decoder(z).float())
        out = self.decoder(z.flatten(0, -2)).float()
        return self.out_activation(out).unflatten(0, z.shape[:-1])

    @torch.no_grad()
    def mean_error(self, batches: Iterable[Batch]) -> float | None:
        """Return the mean squared error of reconstructions, if the likelihood has a location."""
        if not self.likelihood.location:
            return None
        self.eval()
        total = weight = 0.0
        for batch in batches:
            error = (self.reconstructed(batch) - batch.y).square()
            counts = torch.ones_like(error) if batch.seen is None else batch.seen
            if batch.weight is not None:
                counts = counts * batch.weight[:, None]
            total += float((error * counts).sum())
            weight += float(counts.sum())
        return total / weight if weight else None

    def code_units(self, start: LinearStart) -> tuple[Tensor, Tensor]:
        """Return the means and the standard deviations of initial linear codes.

        The standard deviations are those of PCA's scores in the network's units, but at least one:
        the first steps of the encoder would change smaller codes too much.
        """
        return torch.zeros(len(start)), start.deviations.clamp(min=1.0)

    @torch.no_grad()
    def begin_linearly(self, start: LinearStart) -> None:
        """Initialise encoder and decoder as PCA."""
        place, one = torch.arange(len(start)), torch.ones_like(start.deviations)
        tied = self.architecture.tied_weights
        shift, spread = (t.double() for t in self.code_units(start))
        gain = spread
        if tied:  # the weights are shared, so that codes have the variances of the scores
            shift, gain, spread = torch.zeros_like(shift), one, start.deviations
        start.set_encoder(self.encoder, place, AffineMap(gain.diag(), shift), whitened=not tied)
        codes = LinearCodes(place, shift, start.deviations / spread, spread, within=one)
        start.set_decoder(self, codes, self.all_codes)
        left = start.residual_variances(start.variances)
        start.set_noise(self.likelihood, left, float(left.mean()))

    def output_of(self, batch: Batch) -> Tensor:
        return self.decode(self.encode(batch.x))

    def log_px(self, batch: Batch, z: Tensor) -> Tensor:
        """Return log p(x|z) of codes (n, n_draws, k), in the decoder's units."""
        seen = None if batch.seen is None else batch.seen[:, None]
        return self.likelihood.row_log_marginal(batch.y[:, None], self.decode(z), seen)

    def begin_epoch(self, epoch: int) -> None:
        """Add one more code, if it is time."""
        architecture = self.architecture
        if architecture.latent_growth == "incremental" and epoch <= architecture.growth_epochs:
            n_open = min(
                open_codes(epoch, architecture.growth_epochs, architecture.n_codes),
                architecture.n_components,
            )
            self.gate.copy_(torch.arange(architecture.n_codes) < n_open)

    def with_cuts(self, batch: Batch, generator: torch.Generator) -> Batch:
        """Return the batch with randomly dropped codes, if codes are ordered."""
        if self.architecture.latent_growth is None:
            return batch
        return batch._replace(gate=self._cuts(batch, generator))

    def _cuts(self, batch: Batch, generator: torch.Generator) -> Tensor:
        """Return 1 for a random number of leading codes in each row, and 0 for the others.

        Incremental growth drops codes in every other row, among the codes that have been added.
        This is necessary: otherwise nothing makes early codes explain a row by themselves once
        others have been added, and the order is lost (measured in docs/benchmarks.md).
        """
        device = batch.x.device
        chance = batch.drawn(lambda n: torch.rand((n, 1), generator=generator, device=device))
        if self.architecture.latent_growth == "incremental":
            chance = 2 * chance
        cut = (chance * self.gate.sum()).floor() + 1
        return (torch.arange(self.architecture.n_codes, device=device) < cut).float()

    def forward(self, batch: Batch) -> Pass:
        """Return codes and output of a batch."""
        z = self.all_codes(batch.x)
        return Pass(z, self.decode(z if batch.gate is None else z * batch.gate))

    def neg_log_likelihood(self, batch: Batch, output: Tensor) -> dict[str, Tensor]:
        """Return the terms of the loss for an output, in nats per row."""
        log_prob = self.likelihood.row_log_prob(batch.y, output, batch.seen)
        terms = {"reconstruction": weighted_mean(self.log_units(batch) - log_prob, batch.weight)}
        for network, weight in self.perceptual:
            mean = self.likelihood.mean_of_rows(batch.y, output, batch.seen)
            distance = self.feature_distance(network, batch, mean)
            terms["perceptual"] = weight * weighted_mean(distance, batch.weight)
        return terms

    def feature_distance(self, network: nn.Module, batch: Batch, mean: Tensor) -> Tensor:
        """Return the squared distance of a network's features of x and of its reconstruction."""
        if batch.seen is not None:  # missing values count as equal
            mean = mean * batch.seen
        pair = torch.cat([batch.y, mean])
        if self.architecture.units.targets is not None:
            targets = self.architecture.units.targets
            scale = torch.as_tensor(targets.scale).to(pair)
            pair = pair * scale + targets.center.to(pair)
        if self.architecture.image_shape is not None:
            pair = pair.unflatten(1, self.architecture.image_shape)
        with torch.no_grad():
            of_rows = network(pair[: len(mean)])
        return (network(pair[len(mean) :]) - of_rows).flatten(1).square().sum(1)

    def stack_obstacle(self) -> str | None:
        return "it has a perceptual loss" if self.perceptual else self.architecture.stack_obstacle()

    def blocks(self) -> Blocks:
        codes = (self.architecture.n_codes,)
        return Blocks({**self.architecture.blocks(self, codes, codes), "gate": {0: codes}})

    def after_step(self, batch: Batch, loss: Loss) -> None:
        self.likelihood.follow(batch.y, loss.output, batch.weight, batch.seen, batch.part)
