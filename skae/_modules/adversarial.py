"""The network of AdversarialAE: an autoencoder, and a discriminator of its codes.

References
----------
A. Makhzani, J. Shlens, N. Jaitly, I. Goodfellow and B. Frey (2015). Adversarial
autoencoders. :doi:`10.48550/arXiv.1511.05644`
"""

from dataclasses import dataclass
from typing import Any, ClassVar

import torch
from torch import Tensor, nn
from torch.func import functional_call
from torch.nn.functional import softplus

from skae._modules.deterministic import DeterministicArchitecture, DeterministicModule, Pass
from skae._modules.linear_start import LinearStart
from skae._nn.gaussian_latents import DiagonalGaussian, from_network
from skae._nn.likelihood_base import Likelihood
from skae._nn.networks import linear_layers, mlp
from skae._nn.priors import draw_gaussian, draw_mixture, draw_swiss_roll
from skae._training.data import Batch
from skae._training.module import Blocks, Loss, Phase, weighted_mean

# Number of draws from a user's prior that are made before training, and from which batches are
# drawn.
_POOL = 2**14


def discriminator_loss(of_prior: Tensor, of_codes: Tensor) -> Tensor:
    """Return -log D(z') - log(1 - D(z)) for the logits of prior draws z' and of codes z."""
    return softplus(-of_prior) + softplus(of_codes)


def encoder_loss(of_codes: Tensor) -> Tensor:
    """Return -log D(z), the non-saturating loss of Goodfellow et al. (2014)."""
    return softplus(-of_codes)


def divergence_loss(of_codes: Tensor) -> Tensor:
    """Return -log(D(z) / (1 - D(z))); for the best discriminator, its mean is KL(q(z) || p(z))."""
    return -of_codes


@dataclass(frozen=True, kw_only=True)
class AdversarialArchitecture(DeterministicArchitecture):
    """Architecture with a prior and a discriminator."""

    posterior: str
    prior: str  # "own" for a user's prior
    prior_scale: float
    prior_means: tuple[Any, ...]  # numbers or vectors
    discriminator_layer_sizes: tuple[int, ...]
    # Learning rate of the discriminator, relative to that of the other networks.
    discriminator_rate: float
    # Weight of the divergence of the codes from the prior in the encoder's loss. With None, the
    # encoder has another update, which deceives the discriminator.
    adversarial_weight: float | None = None

    changeable: ClassVar[tuple[str, ...]] = ("growth_epochs", "discriminator_rate")


class AdversarialModule(DeterministicModule):
    """A deterministic module whose codes are trained to resemble draws from a prior."""

    architecture: AdversarialArchitecture
    pool: Tensor
    means: Tensor

    def __init__(
        self,
        encoder: nn.Module,
        decoder: nn.Module,
        likelihood: Likelihood,
        architecture: AdversarialArchitecture,
        perceptual: tuple[nn.Module, float] | None,
        generator: torch.Generator,
    ) -> None:
        super().__init__(encoder, decoder, likelihood, architecture, perceptual)
        sizes = (architecture.n_codes, *architecture.discriminator_layer_sizes, 1)
        self.discriminator = mlp(sizes, "leaky_relu", None, generator)
        # Draws from the user's own prior, from which batches are drawn.
        self.register_buffer(
            "pool", torch.zeros(_POOL * (architecture.prior == "own"), architecture.n_codes)
        )
        means = torch.tensor(architecture.prior_means)
        means = means if means.ndim == 2 else means[:, None].repeat(1, architecture.n_codes)
        self.register_buffer("means", means, persistent=False)

    def distribution(self, x: Tensor) -> DiagonalGaussian:
        """Return q(z|x) of all codes, for posterior="gaussian"."""
        return from_network(self.encoder(x))

    def all_codes(self, x: Tensor) -> Tensor:
        """Return all codes, or their means; codes that are not yet added are zero."""
        if self.architecture.posterior == "deterministic":
            return super().all_codes(x)
        return self.distribution(x).mean * self.gate

    def code_units(self, start: LinearStart) -> tuple[Tensor, Tensor]:
        """Return the mean and the standard deviation of the prior."""
        device = next(self.parameters()).device
        draws = self.draw_codes(_POOL, torch.Generator(device).manual_seed(0))[:, : len(start)]
        return draws.mean(0).cpu(), draws.std(0).clamp(min=1e-3).cpu()

    @torch.no_grad()
    def begin_linearly(self, start: LinearStart) -> None:
        """Initialise as in the base class; Gaussian codes get the posterior variances of PPCA."""
        super().begin_linearly(start)
        if self.architecture.posterior == "gaussian":
            n, last = self.architecture.n_codes, linear_layers(self.encoder)[-1]
            log_var = start.posterior_log_variances(n)
            log_var[: len(start)] += 2 * self.code_units(start)[1].double().log()
            last.weight[n:] = 0.0
            last.bias[n:] = log_var.to(last.bias)

    def training_codes(self, batch: Batch) -> Tensor:
        """Return the codes used in training; a Gaussian encoder draws them."""
        if self.architecture.posterior == "deterministic" or batch.draws is None:
            return self.all_codes(batch.x)
        noise = batch.draws[:, self.architecture.n_codes :]
        return self.distribution(batch.x).at(noise) * self.gate

    def draw_codes(self, n: int, generator: torch.Generator) -> Tensor:
        """Draw codes from the prior, (n, n_codes), or from the stored draws of a user's prior."""
        architecture = self.architecture
        if architecture.prior == "own":
            shape, device = (n,), generator.device
            which = torch.randint(len(self.pool), shape, generator=generator, device=device)
            return self.pool[which]
        if architecture.prior == "mixture":
            # The scale applies to each component; the means do not change.
            means = self.means / architecture.prior_scale
            return architecture.prior_scale * draw_mixture(n, means, generator)
        draw = draw_gaussian if architecture.prior == "gaussian" else draw_swiss_roll
        return architecture.prior_scale * draw(n, architecture.n_codes, generator)

    def forward(self, batch: Batch) -> Pass:
        """Return codes and output of a batch."""
        z = self.training_codes(batch)
        return Pass(z, self.decode(z if batch.gate is None else z * batch.gate))

    def blocks(self) -> Blocks:
        n, first = self.architecture.n_codes, linear_layers(self.discriminator)[0]
        twice = (n, n) if self.architecture.posterior == "gaussian" else (n,)
        names = {id(p): name for name, p in self.named_parameters()}
        of_discriminator = {names[id(first.weight)]: {1: (n,)}}
        buffers = {"gate": {0: (n,)}, "pool": {1: (n,)}, "means": {1: (n,)}}
        axes = self.architecture.blocks(self, twice, (n,))
        return Blocks({**axes, **of_discriminator, **buffers}, draws=twice)

    # These methods are called by the training loop.

    def prepare(self, batch: Batch, generator: torch.Generator) -> Batch:
        """Draw from the prior and, for a Gaussian encoder, its noise."""
        draws = batch.drawn(lambda n: self.draw_codes(n, generator))
        if self.architecture.posterior == "gaussian":
            shape, device = draws.shape[1:], draws.device
            noise = batch.drawn(
                lambda n: torch.randn((n, *shape), generator=generator, device=device)
            )
            draws = torch.cat([draws, noise], 1)
        batch = batch._replace(draws=draws)
        return self.with_cuts(batch, generator) if self.training else batch

    def loss(self, batch: Batch) -> Loss:
        """Return the loss of the reconstruction in nats per row; later phases use the codes.

        With `adversarial_weight`, the gradient is that of this loss plus the weighted divergence.
        """
        z, output = self(batch)
        terms = self.neg_log_likelihood(batch, output)
        weight = self.architecture.adversarial_weight
        if weight is None:
            return Loss(terms, output, (z,))
        logits = self._logits_of_fixed(z)
        divergence = weight * weighted_mean(divergence_loss(logits), batch.weight)
        name = next(iter(terms))
        terms[name] = terms[name] + (divergence - divergence.detach())
        deceived = weighted_mean(encoder_loss(logits), batch.weight).detach()
        return Loss(terms, output, (z,), {"encoder": deceived})

    def phases(self) -> list[Phase]:
        """Return the phases of the discriminator, and of the encoder that learns to deceive it."""
        phases = [
            Phase(
                "discriminator",
                self._tell_apart,
                list(self.discriminator.parameters()),
                self.architecture.discriminator_rate,
            )
        ]
        if self.architecture.adversarial_weight is None:
            # The weights of the encoder already decay in the step of the reconstruction.
            encoder = list(self.encoder.parameters())
            phases.append(Phase("encoder", self._deceive, encoder, 1.0, decays=False))
        return phases

    def _tell_apart(self, batch: Batch, before: Loss) -> Tensor:
        prior = batch.draws[:, : self.architecture.n_codes] * self.gate  # type: ignore[index]
        codes = before.aux[0].detach()
        losses = discriminator_loss(self._logits(prior), self._logits(codes))
        return weighted_mean(losses, batch.weight)

    def _deceive(self, batch: Batch, before: Loss) -> Tensor:
        losses = encoder_loss(self._logits(self.training_codes(batch)))
        return weighted_mean(losses, batch.weight)

    def _logits_of_fixed(self, z: Tensor) -> Tensor:
        """Return the logits of a discriminator whose weights get no gradient."""
        weights = {name: p.detach() for name, p in self.discriminator.named_parameters()}
        logits: Tensor = functional_call(self.discriminator, weights, (z,))
        return logits.float()[:, 0]

    def _logits(self, z: Tensor) -> Tensor:
        logits: Tensor = self.discriminator(z).float()[:, 0]
        return logits
