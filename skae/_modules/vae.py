"""The network of VAE: q(z|x), p(z), p(x|z) and the bounds on log p(x) that train them.

References
----------
D. P. Kingma and M. Welling (2014). Auto-encoding variational Bayes. ICLR.
:doi:`10.48550/arXiv.1312.6114`

Y. Burda, R. Grosse and R. Salakhutdinov (2016). Importance weighted autoencoders. ICLR.
:doi:`10.48550/arXiv.1509.00519`
"""

from collections.abc import Hashable, Iterator
from dataclasses import dataclass
from functools import reduce
from math import ceil
from typing import ClassVar, NamedTuple

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn
from torch.nn.functional import log_softmax

from skae._modules.architecture import EncoderDecoderArchitecture
from skae._modules.likelihood import LikelihoodModule
from skae._modules.linear_start import LinearCodes, LinearStart
from skae._nn.gaussian_latents import (
    Components,
    DiagonalGaussian,
    bounded,
    draw_prior,
    equally_likely,
    from_network,
    kl_by_code,
    kl_of_rows,
    log_mean_exp,
    log_normal,
    log_prior,
)
from skae._nn.likelihoods import Likelihood, explained
from skae._nn.linear_maps import AffineMap
from skae._nn.networks import activation_module, start_at
from skae._training.data import Batch, Dataset
from skae._training.module import Blocks, Loss, weighted_mean

# Where log variances of q(z|x) start: while draws hardly differ from their means, the
# decoder soon learns to read them.
_START_LOG_VAR = -3.0
# What random weights of the decoder are multiplied with where it begins linearly: codes are of
# variance one, rows of more (of those tried, this trains best).
_LOUD = 2.0
# How the names of the prior's parameters begin.
_OF_PRIOR = ("prior_", "pseudo_rows")


@dataclass(frozen=True, kw_only=True)
class VAEArchitecture(EncoderDecoderArchitecture):
    """An architecture, the prior, and what the bound is made of."""

    prior: str
    n_prior_components: int
    conditional: bool
    beta: float
    beta_warm_up: int
    free_bits: float
    n_importance: int

    changeable: ClassVar[tuple[str, ...]] = ("beta", "beta_warm_up", "free_bits", "n_importance")

    def widest(self) -> int:
        return max(super().widest(), self.n_prior_components * self.n_components)

    def passes_per_row(self) -> int:
        return super().passes_per_row() * self.n_importance

    @property
    def has_free_bits(self) -> bool:
        """Whether some of the divergence costs nothing."""
        return self.free_bits > 0

    @property
    def kl_is_cost(self) -> bool:
        """Whether the divergence costs just what it is."""
        return self.beta == 1 and not self.beta_warm_up and not self.free_bits


class Recognition(NamedTuple):
    """q(z|x) of a batch, and the prior beside it; None for N(0, I)."""

    q: DiagonalGaussian
    prior: Components | None


class VAEModule(LikelihoodModule):
    """Encoder to Gaussians, prior, decoder and likelihood."""

    begins_at_best_noise: ClassVar[bool] = True

    architecture: VAEArchitecture
    beta: Tensor
    counts: Tensor
    log_share: Tensor

    def __init__(
        self,
        encoder: nn.Module,
        decoder: nn.Module,
        likelihood: Likelihood,
        architecture: VAEArchitecture,
        generator: torch.Generator,
    ) -> None:
        super().__init__()
        self.encoder, self.decoder, self.likelihood = encoder, decoder, likelihood
        self.architecture = architecture
        self.out_activation = activation_module(architecture.out_activation)
        k, n = architecture.n_prior_components, architecture.n_components
        if architecture.prior == "mixture":
            self.prior_mean = nn.Parameter(torch.randn((k, n), generator=generator))
            self.prior_log_var = nn.Parameter(torch.zeros(k, n))
            self.prior_logit = nn.Parameter(torch.zeros(k))
        elif architecture.prior == "vamp":
            self.pseudo_rows = nn.Parameter(
                torch.randn((k, architecture.n_features), generator=generator)
            )
        # Of the labels that p(x|z,y) is conditioned on: how often each is seen.
        self.register_buffer("log_share", log_softmax(torch.zeros(architecture.n_conditions), 0))
        self.register_buffer("beta", torch.tensor(architecture.beta), persistent=False)
        # 1 for each code; 0 where, in a stack, this module has fewer than the largest.
        self.register_buffer("counts", torch.ones(architecture.n_codes), persistent=False)

    def decayed(self) -> list[nn.Parameter]:
        """Weights of the layers: where the prior lies is not to be pulled anywhere."""
        own = {id(p) for name, p in self.named_parameters() if name.startswith(_OF_PRIOR)}
        return [p for p in super().decayed() if id(p) not in own]

    @torch.no_grad()
    def start_pseudo_rows(self, rows: Dataset, train: Tensor, seed: int) -> None:
        """Put the pseudo-rows of a "vamp" prior at training rows."""
        architecture, k = self.architecture, self.architecture.n_prior_components
        generator = torch.Generator().manual_seed(seed)
        order = torch.randperm(len(train), generator=generator)
        which = train[order.repeat(ceil(k / len(train)))[:k]]
        start = rows.batch(which.to(rows.index_device)).x[:, : architecture.n_features]
        if k > len(train):  # equal pseudo-rows would stay equal
            start = start + 0.1 * torch.randn(start.shape, generator=generator).to(start.device)
        self.pseudo_rows.copy_(start)

    @torch.no_grad()
    def begin_linearly(self, start: LinearStart) -> None:
        """Let q(z|x) and p(x|z) begin as those of probabilistic PCA."""
        n, n_linear = self.architecture.n_codes, len(start)
        place = torch.arange(n_linear)
        signal = (start.variances - start.noise_of_codes).clamp(min=0.0)
        outputs = torch.zeros(2 * n, n_linear, dtype=torch.float64)
        outputs[place, place] = (signal / start.variances).sqrt()
        bias = torch.cat([torch.zeros(n), start.posterior_log_variances(n)])
        start.set_encoder(self.encoder, torch.arange(2 * n), AffineMap(outputs, bias))
        one, loading = torch.ones_like(signal), signal.sqrt()
        free = start.architecture.normalization is None and start.holds_exactly
        within = torch.where(loading > 0, loading, 1.0) if free else one
        codes = LinearCodes(place, one - one, loading, one, within, others=_LOUD)
        start.set_decoder(self, codes, lambda x: self.encode(x).at(start.draws(n)))
        start.set_noise(self.likelihood, start.residual_variances(signal), start.noise)

    # ------------------------------------------------------------------ distributions

    def recognise(self, x: Tensor) -> Recognition:
        """q(z|x), and p(z); pseudo-rows of a "vamp" prior go through the encoder with x."""
        if self.architecture.prior != "vamp":
            return Recognition(self.encode(x), self.prior())
        both = self.encode(torch.cat([x, self._as_read(self.pseudo_rows)]))
        q, of_pseudo_rows = (
            DiagonalGaussian(*(t[part] for t in both))
            for part in (slice(None, len(x)), slice(len(x), None))
        )
        return Recognition(q, equally_likely(of_pseudo_rows))

    def encode(self, x: Tensor) -> DiagonalGaussian:
        """q(z|x)."""
        return from_network(self.encoder(x))

    def prior(self) -> Components | None:
        """p(z); None for N(0, I)."""
        match self.architecture.prior:
            case "mixture":
                log_weight = log_softmax(self.prior_logit, 0)
                return Components(self.prior_mean, bounded(self.prior_log_var), log_weight)
            case "vamp":
                return equally_likely(self.encode(self._as_read(self.pseudo_rows)))
        return None

    def _as_read(self, rows: Tensor) -> Tensor:
        """Pseudo-rows with a mask beside them where the encoder reads one: all is seen."""
        return torch.cat([rows, torch.ones_like(rows)], 1) if self.architecture.with_mask else rows

    def decode(self, z: Tensor, condition: Tensor | None = None) -> Tensor:
        """What parametrises p(x|z), of codes (..., n_components); conditions are broadcast."""
        return self._decode(_beside(z, condition))

    def _decode(self, read: Tensor) -> Tensor:
        if read.ndim == 2:
            return self.out_activation(self.decoder(read).float())
        out = self.decoder(read.flatten(0, -2)).float()
        return self.out_activation(out).unflatten(0, read.shape[:-1])

    def set_label_frequencies(self, log_frequency: NDArray[np.float64]) -> None:
        """How often each label is seen."""
        self.log_share.copy_(torch.from_numpy(log_frequency.astype(np.float32)))

    def draw_codes(self, n: int, generator: torch.Generator) -> Tensor:
        """Codes from p(z)."""
        return draw_prior(n, self.architecture.n_components, self.prior(), generator)

    def outputs(
        self, z: Tensor, condition: Tensor | None
    ) -> Iterator[tuple[Tensor, Tensor, Tensor]]:
        """Log weight, what the decoder reads, what it makes of that.

        Codes are (..., n_components), conditions are broadcast to them. Where labels are
        wanted and none is given, it is one triple for each label, weighted by its frequency.
        """
        given: list[Tensor | None] = [condition]
        log_frequencies = z.new_zeros(1)
        if self.architecture.n_conditions and condition is None:
            given = list(torch.eye(self.architecture.n_conditions, device=z.device))
            log_frequencies = self.log_share
        for log_frequency, one in zip(log_frequencies, given, strict=True):
            read = _beside(z, one)
            yield log_frequency, read, self._decode(read)

    def mean(self, z: Tensor, condition: Tensor | None) -> Tensor:
        """Mean of p(x|z), over the labels if none is given."""
        parts = (
            log_frequency.exp() * self.likelihood.mean(output)
            for log_frequency, _, output in self.outputs(z, condition)
        )
        return reduce(torch.add, parts)  # one by one: a part is as large as all rows

    def reconstructed(self, batch: Batch) -> Tensor:
        return self.mean(self.encode(batch.x).mean, batch.condition)

    def log_px(self, batch: Batch, z: Tensor) -> Tensor:
        """log p(x|z) of codes (n, n_draws, k), in the decoder's units; over labels as above."""
        seen, condition = (None if t is None else t[:, None] for t in (batch.seen, batch.condition))
        parts = [
            log_frequency + self.likelihood.row_log_prob(batch.y[:, None], output, seen)
            for log_frequency, _, output in self.outputs(z, condition)
        ]
        return torch.logsumexp(torch.stack(parts), 0) if len(parts) > 1 else parts[0]

    # ------------------------------------------------------------ what training asks for

    def begin_epoch(self, epoch: int) -> None:
        """Let beta grow with the epochs, from its fraction after one to all of it."""
        grown = min(1.0, (epoch + 1) / max(1, self.architecture.beta_warm_up))
        self.beta.fill_(self.architecture.beta * grown)

    def prepare(self, batch: Batch, generator: torch.Generator) -> Batch:
        """Draw the noise of the codes, for importance weights several times a row."""
        n, k, several = len(batch.x), self.architecture.n_components, self.architecture.n_importance
        shape = (n, k) if several == 1 else (n, several, k)
        draws = torch.randn(shape, generator=generator, device=batch.x.device)
        return batch._replace(draws=draws)

    def forward(self, batch: Batch) -> tuple[Recognition, Tensor, Tensor]:
        """q and p, codes from q by the draws of the batch, and what the decoder makes of them."""
        recognition = self.recognise(batch.x)
        z = recognition.q.at(batch.draws)  # type: ignore[arg-type]
        condition = batch.condition
        if condition is not None and z.ndim == 3:
            condition = condition[:, None]
        return recognition, z, self.decode(z, condition)

    def loss(self, batch: Batch) -> Loss:
        """Minus the bound: its two terms, or the importance-weighted one."""
        return self._elbo(batch) if self.architecture.n_importance == 1 else self._weighted(batch)

    def _elbo(self, batch: Batch) -> Loss:
        """-E log p(x|z) and beta KL(q(z|x) || p(z)), one draw of z a row."""
        (q, prior), z, output = self(batch)
        log_px = self.likelihood.row_log_prob(batch.y, output, batch.seen) - self.log_units(batch)
        floor = self.architecture.free_bits
        if self.architecture.has_free_bits:
            # Of the mean over the batch, as in Kingma et al. (2016), equation 15.
            each = weighted_mean(kl_by_code(q, z, prior), batch.weight)
            kl, cost = each.sum(), self.beta * (each.clamp(min=floor) * self.counts).sum()
        else:
            kl = weighted_mean(kl_of_rows(q, z, prior), batch.weight)
            cost = self.beta * kl
        terms = {"reconstruction": -weighted_mean(log_px, batch.weight)}
        if self.architecture.kl_is_cost:
            return Loss(terms | {"kl": kl}, output)
        return Loss(terms | {"kl_cost": cost}, output, logged={"kl": kl})

    def _weighted(self, batch: Batch) -> Loss:
        """-log 1/K sum_k w_k, w_k = p(x, z_k) / q(z_k|x) (Burda et al. 2016, equation 8).

        Its gradient is doubly reparameterised (Tucker et al. 2018, equation 8). With
        normalised weights s_k = w_k / sum w, it is sum_k s_k d log w_k for p, and for q, whose
        parameters are held in log q, sum_k s_k^2 (d log w_k / d z_k) d z_k: so what
        comes back through z_k is multiplied by s_k once more.
        """
        (q, prior), z, output = self(batch)
        seen = None if batch.seen is None else batch.seen[:, None]
        log_px = self.likelihood.row_log_prob(batch.y[:, None], output, seen)
        log_q = log_normal(z, q.mean.detach()[:, None], q.log_var.detach()[:, None]).sum(-1)
        log_weight = log_px + log_prior(z, prior) - log_q
        importance = log_weight.detach().softmax(-1)
        if z.requires_grad:
            z.register_hook(lambda gradient: gradient * importance[..., None])
        bound = log_mean_exp(log_weight) - self.log_units(batch)
        return Loss({"bound": -weighted_mean(bound, batch.weight)}, output, (importance,))

    def importance(self, loss: Loss) -> Tensor | None:
        return loss.aux[0] if loss.aux else None

    def stack_key(self) -> Hashable | None:
        architecture = self.architecture
        # Several draws are weighted by a hook on a gradient, which no stack calls.
        if architecture.n_importance > 1 or not architecture.is_stackable:
            return None
        sizes = () if architecture.prior == "standard" else (architecture.n_components,)
        bound = (architecture.kl_is_cost, architecture.has_free_bits)
        return (super().stack_key(), sizes, bound)

    def blocks(self) -> Blocks:
        n, n_conditions = self.architecture.n_codes, self.architecture.n_conditions
        axes = self.architecture.blocks(self, (n, n), (n, n_conditions))
        return Blocks({**axes, "counts": {0: (n,)}}, draws=(n,))

    def after_step(self, batch: Batch, loss: Loss) -> None:
        if self.likelihood.learned:
            self.likelihood.follow(*explained(batch, loss.output, self.importance(loss)))


def _beside(z: Tensor, condition: Tensor | None) -> Tensor:
    """What the decoder reads."""
    return z if condition is None else torch.cat([z, condition.expand(*z.shape[:-1], -1)], -1)


def start_narrow(encoder: nn.Module, n_codes: int) -> None:
    """Let a built-in encoder begin with narrow q(z|x)."""
    start_at(encoder, torch.tensor([0.0, _START_LOG_VAR]).repeat_interleave(n_codes))
