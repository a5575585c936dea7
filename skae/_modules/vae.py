"""The network of VAE: q(z|x), p(z), p(x|z) and the bounds on log p(x) that train them.

References
----------
D. P. Kingma and M. Welling (2014). Auto-encoding variational Bayes. ICLR.
:doi:`10.48550/arXiv.1312.6114`

Y. Burda, R. Grosse and R. Salakhutdinov (2016). Importance weighted autoencoders. ICLR.
:doi:`10.48550/arXiv.1509.00519`

O. Rippel, M. Gelbart and R. Adams (2014). Learning ordered representations with nested dropout.
ICML. :doi:`10.48550/arXiv.1402.0915`
"""

from collections.abc import Callable, Hashable, Iterable, Iterator
from functools import reduce
from math import ceil
from typing import Any, ClassVar, cast

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn
from torch.nn.functional import log_softmax

from skae._modules.importance import weighted_bound
from skae._modules.likelihood import LikelihoodModule
from skae._modules.linear_start import LinearCodes, LinearStart
from skae._modules.vae_architecture import VAEArchitecture
from skae._nn.gaussian_latents import (
    Components,
    DiagonalGaussian,
    Recognition,
    bounded,
    draw_prior,
    equally_likely,
    from_network,
    kl_by_code,
    kl_of_rows,
)
from skae._nn.likelihood_base import Likelihood
from skae._nn.likelihoods import WithNoise, explained
from skae._nn.linear_maps import AffineMap
from skae._nn.networks import activation_module
from skae._nn.noise_path import Explained, NoisePath
from skae._training.data import Batch, Dataset
from skae._training.module import Blocks, Loss, mean_of_batch, weighted_mean

# Factor of the decoder's random weights with a linear initialisation, because codes have variance
# one and rows have more. This value trained best of those that were tried.
_LOUD = 2.0
# Beginnings of the names of the prior's parameters.
_OF_PRIOR = ("prior_", "pseudo_rows", "log_var_of_size")


class VAEModule(LikelihoodModule):
    """Encoder of Gaussians, prior, decoder and likelihood."""

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
        k, n = architecture.n_prior_components, architecture.n_codes
        if architecture.prior == "mixture":
            self.prior_mean = nn.Parameter(torch.randn((k, n), generator=generator))
            self.prior_log_var = nn.Parameter(torch.zeros(k, n))
            self.prior_logit = nn.Parameter(torch.zeros(k))
        elif architecture.prior == "vamp":
            self.pseudo_rows = nn.Parameter(
                torch.randn((k, architecture.n_features), generator=generator)
            )
        self.noise_path = None
        if architecture.latent_growth is not None:
            # With fewer codes, there is more noise, and p(z|x) is wider.
            self.log_var_of_size = nn.Parameter(torch.zeros(n, n))
            if isinstance(likelihood, WithNoise) and likelihood.learned:
                self.noise_path = NoisePath(likelihood, n)
        # Log frequency of each label of a conditional model.
        self.register_buffer("log_share", log_softmax(torch.zeros(architecture.n_conditions), 0))
        # With several columns of labels: their combinations, as the decoder reads them, and log
        # frequencies. They are not saved here, because their number may grow in a stream.
        self.combinations: tuple[Tensor, Tensor] | None = None
        self.register_buffer("beta", torch.tensor(architecture.beta), persistent=False)
        # 1 for each code; 0 for codes that a smaller module of a stack lacks.
        self.register_buffer("counts", torch.ones(architecture.n_codes), persistent=False)

    def decayed(self) -> list[nn.Parameter]:
        """Return the weights of the layers; the parameters of the prior are not penalised."""
        own = {id(p) for name, p in self.named_parameters() if name.startswith(_OF_PRIOR)}
        return [p for p in super().decayed() if id(p) not in own]

    @torch.no_grad()
    def start_pseudo_rows(self, rows: Dataset, train: Tensor, seed: int) -> None:
        """Initialise the pseudo-rows of a "vamp" prior with training rows."""
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
        """Initialise q(z|x) and p(x|z) as in probabilistic PCA."""
        n, n_linear = self.architecture.n_codes, len(start)
        place = torch.arange(n_linear)
        signal = (start.variances - start.noise_of_codes).clamp(min=0.0)
        outputs = torch.zeros(2 * n, n_linear, dtype=torch.float64)
        outputs[place, place] = (signal / start.variances).sqrt()
        log_var = start.posterior_log_variances(n)
        bias = torch.cat([torch.zeros(n), log_var])
        # The variance of p(z|x) is noise / (signal + noise), and the noise of counts is inverse to
        # the total.
        of_total = torch.cat([torch.zeros(n), log_var.exp() - 1])
        start.set_encoder(
            self.encoder, torch.arange(2 * n), AffineMap(outputs, bias), of_total=of_total
        )
        one, loading = torch.ones_like(signal), signal.sqrt()
        free = start.architecture.normalization is None and start.holds_exactly
        within = torch.where(loading > 0, loading, 1.0) if free else one
        codes = LinearCodes(place, one - one, loading, one, within, others=_LOUD)
        start.set_decoder(self, codes, lambda x: self.encode(x).at(start.draws(n)))
        start.set_noise(self.likelihood, start.residual_variances(signal), start.noise)
        if self.noise_path is not None and start.architecture.located.any():
            # The variance explained by dropped codes is noise.
            path = self.noise_path.variance
            whole = start.posterior_log_variances(n)[:n_linear]
            for size in range(1, n + 1):
                kept = torch.where(place < size, signal, 0.0)
                n_left = max(self.architecture.n_features - size, 1)
                of_all = start.noise + (signal - kept).sum() / n_left
                found = start.residual_variances(kept) if path.ndim > 1 else of_all
                path[size - 1] = found.clamp(min=self._noise.floor)
                log_var = (of_all / (signal + of_all)).log()
                self.log_var_of_size[size - 1, :n_linear] = log_var - whole

    # ------------------------------------------------------------------ distributions

    def recognise(self, x: Tensor) -> Recognition:
        """Return q(z|x) and p(z); a "vamp" prior encodes its pseudo-rows together with x."""
        if self.architecture.prior != "vamp":
            return Recognition(self._encode(x), self.prior())
        both = self._encode(torch.cat([x, self._as_read(self.pseudo_rows)]))
        q, of_pseudo_rows = (
            DiagonalGaussian(*(t[part] for t in both))
            for part in (slice(None, len(x)), slice(len(x), None))
        )
        return Recognition(q, equally_likely(of_pseudo_rows))

    def encode(self, x: Tensor) -> DiagonalGaussian:
        """Return q(z|x) of the codes in use."""
        return self._of_size(self._encode(x), self.architecture.n_components)

    def _encode(self, x: Tensor) -> DiagonalGaussian:
        """Return q(z|x) of the codes in use, without the width that depends on their number."""
        return DiagonalGaussian(*map(self._in_use, from_network(self.encoder(x))))

    def _of_size(self, q: DiagonalGaussian, size: int | Tensor) -> DiagonalGaussian:
        """Return q(z|x) with the width for this number of codes, which may differ between rows."""
        if self.architecture.latent_growth is None:
            return q
        of_size = self._in_use(self.log_var_of_size)[size - 1]
        return q._replace(log_var=bounded(q.log_var + of_size))

    def _in_use(self, values: Tensor) -> Tensor:
        """Select the columns of the codes in use, which are the first ones."""
        k = self.architecture.n_components
        return values if k == values.shape[1] else values[:, :k]

    def prior(self) -> Components | None:
        """Return p(z), or None for N(0, I)."""
        match self.architecture.prior:
            case "mixture":
                log_weight = log_softmax(self.prior_logit, 0)
                # A mixture of fewer codes has the same components, restricted to these codes.
                mean, log_var = map(self._in_use, (self.prior_mean, self.prior_log_var))
                return Components(mean, bounded(log_var), log_weight)
            case "vamp":
                return equally_likely(self._encode(self._as_read(self.pseudo_rows)))
        return None

    def _as_read(self, rows: Tensor) -> Tensor:
        """Return pseudo-rows as inputs of the encoder.

        A mask marks all values as observed, and the totals of counts are the usual one.
        """
        architecture, n = self.architecture, len(rows)
        n_others = architecture.n_read - architecture.n_features - architecture.n_mask
        if architecture.n_read == architecture.n_features:
            return rows
        ones, zeros = rows.new_ones((n, architecture.n_mask)), rows.new_zeros((n, n_others))
        return torch.cat([rows, ones, zeros], 1)

    def decode(self, z: Tensor, condition: Tensor | None = None) -> Tensor:
        """Return the parameters of p(x|z) for codes (..., n_components)."""
        return self._decode(self._beside(z, condition))

    def _beside(self, z: Tensor, condition: Tensor | None) -> Tensor:
        """Return the input of the decoder, in which codes that are not in use are zero."""
        missing = self.architecture.n_codes - z.shape[-1]
        z = nn.functional.pad(z, (0, missing)) if missing else z
        if condition is None:
            return z
        return torch.cat([z, condition.expand(*z.shape[:-1], -1)], -1)

    def _decode(self, read: Tensor) -> Tensor:
        if read.ndim == 2:
            return self.out_activation(self.decoder(read).float())
        out = self.decoder(read.flatten(0, -2)).float()
        return self.out_activation(out).unflatten(0, read.shape[:-1])

    def set_label_frequencies(self, log_frequency: NDArray[np.float64]) -> None:
        """Set the log frequencies of the labels."""
        self.log_share.copy_(torch.from_numpy(log_frequency.astype(np.float32)))

    def draw_codes(self, n: int, generator: torch.Generator) -> Tensor:
        """Draw codes from p(z)."""
        return draw_prior(n, self.architecture.n_components, self.prior(), generator)

    def labels(self, device: torch.device) -> tuple[Tensor, Tensor]:
        """Return all labels as conditions, or their combinations, and log frequencies."""
        each = torch.eye(self.architecture.n_conditions), self.log_share
        rows, log_frequencies = self.combinations or each
        return rows.to(device), log_frequencies.to(device)

    def outputs(
        self, z: Tensor, condition: Tensor | None
    ) -> Iterator[tuple[Tensor, Tensor, Tensor]]:
        """Yield log weights, the decoder's input, and its output.

        Codes are (..., n_components), and conditions are broadcast to them. Without a condition,
        there is one triple for each of the `labels`, weighted by its frequency.
        """
        given: list[Tensor | None] = [condition]
        log_frequencies = z.new_zeros(1)
        if self.architecture.n_conditions and condition is None:
            rows, log_frequencies = self.labels(z.device)
            given = list(rows)
        for log_frequency, one in zip(log_frequencies, given, strict=True):
            read = self._beside(z, one)
            yield log_frequency, read, self._decode(read)

    def mean(self, z: Tensor, condition: Tensor | None) -> Tensor:
        """Return the mean of p(x|z), averaged over the labels if none is given."""
        return self._mean_of(self.likelihood.mean, z, condition)

    def _mean_of(
        self, mean: Callable[[Tensor], Tensor], z: Tensor, condition: Tensor | None
    ) -> Tensor:
        """Return a mean of outputs, averaged over the labels if none is given."""
        parts = (log_p.exp() * mean(output) for log_p, _, output in self.outputs(z, condition))
        return reduce(torch.add, parts)  # one by one, because each part is as large as all rows

    def output_of(self, batch: Batch) -> Tensor:
        return self.decode(self.encode(batch.x).mean, batch.condition)

    def reconstructed(self, batch: Batch) -> Tensor:
        z, of_rows = self.encode(batch.x).mean, self.likelihood.mean_of_rows
        return self._mean_of(lambda o: of_rows(batch.y, o, batch.seen), z, batch.condition)

    def log_px(self, batch: Batch, z: Tensor, sizes_of_rows: bool = False) -> Tensor:
        """Return log p(x|z), or log p(x|z, s) given the sizes s of rows, of (n, n_draws, k)."""
        seen, condition = (None if t is None else t[:, None] for t in (batch.seen, batch.condition))
        given, marginal = self.likelihood.row_log_given, self.likelihood.row_log_marginal
        log_prob = given if sizes_of_rows else marginal
        parts = (
            log_frequency + log_prob(batch.y[:, None], output, seen)
            for log_frequency, _, output in self.outputs(z, condition)
        )
        return reduce(torch.logaddexp, parts)  # one by one, as there may be many combinations

    # ------------------------------------------------------ called by the training loop

    def begin_epoch(self, epoch: int) -> None:
        """Set beta, which grows linearly over the epochs of the warm-up."""
        grown = min(1.0, (epoch + 1) / max(1, self.architecture.beta_warm_up))
        self.beta.fill_(self.architecture.beta * grown)

    def prepare(self, batch: Batch, generator: torch.Generator) -> Batch:
        """Draw the noise of the codes and, in training with ordered codes, a size for each row."""
        k, several = self.architecture.n_components, self.architecture.n_importance
        if self.training and self.architecture.resamples:
            several += 1  # it chooses among the others in `weighted_bound`
        shape = (k,) if several == 1 else (several, k)
        options: dict[str, Any] = {"generator": generator, "device": batch.x.device}
        batch = batch._replace(draws=batch.drawn(lambda n: torch.randn((n, *shape), **options)))
        if self.architecture.latent_growth is None or not self.training:
            return batch
        size = batch.drawn(lambda n: torch.randint(1, k + 1, (n, 1), **options))
        return batch._replace(gate=(torch.arange(k, device=size.device) < size).float())

    def forward(self, batch: Batch) -> tuple[Recognition, Tensor, Tensor]:
        """Return q and p, codes drawn from q, and the output; dropped codes are read as zero."""
        q, prior = self.recognise(batch.x)
        q = self._of_size(q, *(_sizes(batch) or [self.architecture.n_components]))
        z = q.at(batch.draws)  # type: ignore[arg-type]
        condition, gate = batch.condition, batch.gate
        if z.ndim == 3:
            condition, gate = (None if t is None else t[:, None] for t in (condition, gate))
        return Recognition(q, prior), z, self.decode(z if gate is None else z * gate, condition)

    def loss(self, batch: Batch) -> Loss:
        """Return minus the bound: its two terms, or the importance-weighted bound.

        If codes are dropped, it is the bound of the model with the remaining codes, with its own
        p(z), q(z|x) and noise. Dropped codes do not contribute.
        """
        return self._elbo(batch) if self.architecture.n_importance == 1 else self._weighted(batch)

    def _elbo(self, batch: Batch) -> Loss:
        """Return -E log p(x|z) and beta KL(q(z|x) || p(z)), with one draw of z for each row."""
        (q, prior), z, output = self(batch)
        log_px = self.row_log_prob(batch, batch.y, output, batch.seen) - self.log_units(batch)
        floor = self.architecture.free_bits
        if self.architecture.has_free_bits or batch.gate is not None:
            each = kl_by_code(q, z, prior)
            each = each if batch.gate is None else each * batch.gate
            each = mean_of_batch(each, batch)
            # Free bits apply to the mean over the batch (Kingma et al. 2016, equation 15), here
            # over the rows in which the code is not dropped.
            share = 1.0 if batch.gate is None else mean_of_batch(batch.gate, batch)
            least = floor * torch.as_tensor(share, device=each.device)
            counted = each.maximum(least) if self.architecture.has_free_bits else each
            kl = each.sum()
            cost = self.beta * (counted * self.counts[: each.shape[-1]]).sum()
        else:
            kl = weighted_mean(kl_of_rows(q, z, prior), batch.weight)
            cost = self.beta * kl
        terms = {"reconstruction": -weighted_mean(log_px, batch.weight)}
        aux = _sizes(batch)
        if self.architecture.kl_is_cost:
            return Loss(terms | {"kl": kl}, output, aux)
        return Loss(terms | {"kl_cost": cost}, output, aux, logged={"kl": kl})

    def _weighted(self, batch: Batch) -> Loss:
        """Return minus the importance-weighted bound."""
        bound, output, share = weighted_bound(self, batch)
        terms = {"bound": weighted_mean(self.log_units(batch) - bound, batch.weight)}
        return Loss(terms, output, (share, *_sizes(batch)))

    def row_log_prob(self, batch: Batch, y: Tensor, output: Tensor, seen: Tensor | None) -> Tensor:
        """Return log p(x|z) of outputs; rows with dropped codes use the noise of their size."""
        if self.noise_path is None or batch.gate is None:
            return self.likelihood.row_log_prob(y, output, seen)
        (size,) = _sizes(batch)
        return self.noise_path.row_log_prob(self._noise, y, output, seen, size)

    # ------------------------------------------------------------------------- the noise

    def importance(self, loss: Loss) -> Tensor | None:
        return loss.aux[0] if self.architecture.n_importance > 1 else None

    def _explained(self, batch: Batch, loss: Loss) -> Explained:
        """Return the values from which the noise of every size is learned."""
        importance, size = self.importance(loss), loss.aux[-1]
        size = size if importance is None else size.repeat_interleave(importance.shape[1])
        return Explained(*explained(batch, loss.output, importance), size)

    @torch.no_grad()
    def settle_noise(self, losses: Iterable[tuple[Batch, Loss]]) -> None:
        if self.noise_path is None:
            super().settle_noise(losses)
            return
        sums = [self.noise_path.sums(self._noise, self._explained(*pair)) for pair in losses]
        total, count = (reduce(torch.add, parts) for parts in zip(*sums, strict=True))
        self.noise_path.settle(self._noise, total, count)
        self._take_noise()

    def stack_obstacle(self) -> str | None:
        architecture = self.architecture
        if architecture.n_importance > 1:  # a hook on a gradient applies the weights
            return f"n_importance={architecture.n_importance}"
        if architecture.latent_growth is not None:
            return f"latent_growth={architecture.latent_growth!r}: one fit already gives all sizes"
        return architecture.stack_obstacle()

    def stack_key(self) -> Hashable:
        architecture = self.architecture
        sizes = () if architecture.prior == "standard" else (architecture.n_components,)
        return (super().stack_key(), sizes, architecture.kl_is_cost, architecture.has_free_bits)

    def blocks(self) -> Blocks:
        n, n_conditions = self.architecture.n_codes, self.architecture.n_conditions
        axes = self.architecture.blocks(self, (n, n), (n, n_conditions))
        return Blocks({**axes, "counts": {0: (n,)}}, draws=(n,))

    def followed(self) -> tuple[str, ...]:
        of_sizes = ("noise_path.variance", "noise_path.n_updates")
        return (*super().followed(), *of_sizes * (self.noise_path is not None))

    def after_step(self, batch: Batch, loss: Loss) -> None:
        if not self.likelihood.learned:
            return
        if self.noise_path is None:
            rows = explained(batch, loss.output, self.importance(loss))
            self.likelihood.follow(*rows, batch.part)
        else:
            self.noise_path.follow(self._noise, self._explained(batch, loss), batch.part)
            self._take_noise()

    @property
    def _noise(self) -> WithNoise:
        """Return the likelihood of a module with a noise path."""
        return cast(WithNoise, self.likelihood)

    def _take_noise(self) -> None:
        """Set the noise to that of all codes in use."""
        of_sizes = cast(NoisePath, self.noise_path).variance
        self._noise.variance.copy_(of_sizes[self.architecture.n_components - 1])


def _sizes(batch: Batch) -> tuple[Tensor, ...]:
    """Return the number of remaining codes of each row if codes are dropped; else nothing."""
    return () if batch.gate is None else (batch.gate.sum(1).long(),)
