"""The network of VQVAE: an encoder, a codebook that quantises its vectors, and a decoder.

References
----------
A. van den Oord, O. Vinyals and K. Kavukcuoglu (2017). Neural discrete representation
learning. NeurIPS 30. :doi:`10.48550/arXiv.1711.00937`
"""

from collections.abc import Hashable
from dataclasses import dataclass
from math import prod
from typing import Any, ClassVar

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from skae._modules.architecture import EncoderDecoderArchitecture
from skae._modules.likelihood import LikelihoodModule
from skae._modules.linear_start import LinearCodes, LinearStart
from skae._nn.likelihood_base import Likelihood
from skae._nn.linear_maps import AffineMap
from skae._nn.networks import activation_module, grid_decoder, grid_encoder, grid_size
from skae._nn.quantizers import (
    LinearQuantizer,
    Quantized,
    Quantizer,
    ScalarQuantizer,
    VectorQuantizer,
)
from skae._training.data import Batch, Dataset
from skae._training.loader import batch_sizes
from skae._training.module import Loss, weighted_mean
from skae._training.random_state import preserve_rng_state
from skae._utils.warning import warn

# Number of encodings from which the codebook is initialised, for each code and in all.
_START_PER_CODE, _MOST_TO_START = 16, 2**18
# Number of rows that are encoded together for this.
_START_ROWS = 2048


# With at least this many encodings for each code, using less than a tenth of the codes is a
# collapse.
_PER_CODE = 10
# Largest number of cells into which "fsq" can divide the numbers from -1 to 1.
_FINEST = 2**20


# Number of rows for each code of each position from which the size of a codebook is chosen, or
# number of encodings for each code if this means fewer rows. The decoder must learn the meaning of
# a code at every position, and the positions of a grid share the codes. Both were found by held-out
# scores of wine, breast cancer, iris, diabetes and digits.
_ROWS_PER_PLACE, _ENOUGH_PER_CODE = 8, 1024
# Smallest and largest size that is chosen.
_FEWEST_CODES, _USUAL_CODES = 2, 512
# With less than this fraction of these rows or encodings, a warning is issued.
_FAR_TOO_LITTLE = 1 / 64


def codebook_size_for(n_rows: int, n_positions: int) -> int:
    """Return the largest power of two from 2 to 512 that leaves enough encodings for each code."""
    n_codes = _FEWEST_CODES
    while n_codes < _USUAL_CODES and 2 * n_codes * enough_for(n_positions) <= n_rows * n_positions:
        n_codes *= 2
    return n_codes


def enough_for(n_positions: int) -> int:
    """Return the number of encodings that is enough for a code."""
    return min(_ROWS_PER_PLACE * n_positions**2, _ENOUGH_PER_CODE)


def warn_of_few_encodings(n_codes: int, n_rows: int, n_positions: int) -> None:
    """Warn if a codebook is so large that its codes memorise training rows."""
    n_encodings = n_rows * n_positions
    if n_encodings < n_codes * max(1.0, enough_for(n_positions) * _FAR_TOO_LITTLE):
        better = codebook_size_for(n_rows, n_positions)
        warn(
            f"n_codes={n_codes} is too many for {n_encodings} encodings ({n_rows} rows x "
            f"{n_positions} positions), {n_encodings / n_codes:.2g} for each code: codes will "
            "memorise training rows, and other rows will be reconstructed badly. Set "
            f"n_codes={better}, which n_codes=None would choose here, or use more rows."
        )


def check_positions(grid: tuple[int, int] | None, params: Any) -> None:
    """Raise for parameters of an estimator that contradict the grid of built-in networks."""
    n = params.n_components
    if grid is None:
        if n is None:
            raise ValueError(
                "n_components=None is only allowed for the built-in network='conv', whose grid "
                "determines the number; set a number for other networks."
            )
    elif n not in (None, prod(grid)):
        raise ValueError(
            f"n_components={n}: network='conv' halves images of "
            f"image_shape={params.image_shape!r} once for each of hidden_layer_sizes="
            f"{params.hidden_layer_sizes!r}, which gives {grid[0]} x {grid[1]} positions. Set "
            f"n_components={prod(grid)} or None, or change hidden_layer_sizes."
        )


def check_levels(levels: tuple[int, ...], params: Any) -> None:
    """Raise for parameters of an estimator that contradict the levels of "fsq"."""
    if params.n_codes not in (None, prod(levels)):
        raise ValueError(
            f"n_codes={params.n_codes}, but levels={levels!r} of quantizer='fsq' give "
            f"{prod(levels)} codes. Set n_codes={prod(levels)} or None."
        )
    if params.code_dim not in (None, len(levels)):
        raise ValueError(
            f"code_dim={params.code_dim}, but quantizer='fsq' has one dimension for each of the "
            f"{len(levels)} levels. Set code_dim={len(levels)} or None."
        )
    if max(levels) ** int(params.n_quantizers) > _FINEST:
        raise ValueError(
            f"n_quantizers={params.n_quantizers} with levels={levels!r} would divide a dimension "
            f"into {max(levels)}**{params.n_quantizers} cells, which float32 cannot represent; at "
            f"most {_FINEST} are allowed."
        )
    if params.rotation_trick:
        raise ValueError(
            "rotation_trick=True is only allowed with quantizer='vq' or 'simvq': quantizer='fsq' "
            "has no code vectors."
        )


def warn_of_collapse(usage: NDArray[np.float64], n_encodings: int) -> None:
    """Warn if very few codes are used, although there are enough encodings.

    `usage` are frequencies of codes, (n_codes,) or (n_quantizers, n_codes).
    """
    n_codes = usage.shape[-1]
    n_used = int((np.atleast_2d(usage) > 0).sum(1).min())
    if 10 * n_used < min(n_codes, n_encodings / _PER_CODE):
        warn(
            f"Codebook collapse: {n_used} of n_codes={n_codes} codes are used. Raise "
            "dead_code_threshold, lower decay, set codebook_init='kmeans' or quantizer='fsq', "
            "or lower n_codes."
        )


@dataclass(frozen=True, kw_only=True)
class VQVAEArchitecture(EncoderDecoderArchitecture):
    """Architecture with a codebook and the prior over its indices.

    The codes of other architectures correspond to positions here.
    """

    quantizer: str
    codebook_size: int
    code_dim: int
    levels: tuple[int, ...]  # of "fsq"
    n_quantizers: int
    codebook_update: str
    codebook_init: str
    decay: float
    commitment_weight: float
    dead_code_threshold: float
    rotation_trick: bool
    prior: str | None
    prior_channels: int

    changeable: ClassVar[tuple[str, ...]] = ("decay", "commitment_weight", "dead_code_threshold")

    names: ClassVar[dict[str, str]] = {"codebook_size": "n_codes"}

    @property
    def n_code_numbers(self) -> int:
        """Number of values in the vectors of all positions."""
        return self.n_codes * self.code_dim

    @property
    def n_indices(self) -> int:
        """Number of indices that encode a row."""
        return self.n_codes * self.n_quantizers

    def make_quantizer(self, generator: torch.Generator) -> Quantizer:
        """Return the codebook."""
        size = (self.codebook_size, self.code_dim, self.n_quantizers)
        match self.quantizer:
            case "fsq":
                return ScalarQuantizer(self.levels, self.n_quantizers)
            case "simvq":
                return LinearQuantizer(*size, rotation=self.rotation_trick, generator=generator)
        return VectorQuantizer(
            *size,
            by_loss=self.codebook_update == "loss",
            rotation=self.rotation_trick,
            generator=generator,
        )

    def _new_encoder(self, n_inputs: int, n_encoded: int, generator: torch.Generator) -> nn.Module:
        if self.network == "mlp" or self.image_shape is None:
            return super()._new_encoder(n_inputs, n_encoded, generator)
        channels, height, width = self.image_shape
        return grid_encoder(
            (channels * (2 if self.with_mask else 1), height, width),
            self.hidden_layer_sizes,
            self.code_dim,
            activation=self.activation,
            pooling=self.pooling,
            normalization=self.normalization,
            generator=generator,
        )

    def _new_decoder(self, encoder: nn.Module, generator: torch.Generator) -> nn.Module:
        if self.network == "mlp" or self.image_shape is None:
            return super()._new_decoder(encoder, generator)
        channels, height, width = self.image_shape
        return grid_decoder(
            (channels * self.n_outputs // self.n_features, height, width),
            self.decoder_layer_sizes,
            self.code_dim,
            grid_size(self.image_shape, len(self.hidden_layer_sizes)),
            activation=self.activation,
            normalization=self.normalization,
            generator=generator,
        )


class VQVAEModule(LikelihoodModule):
    """Encoder, codebook, decoder and likelihood."""

    architecture: VQVAEArchitecture

    def __init__(
        self,
        encoder: nn.Module,
        decoder: nn.Module,
        quantizer: Quantizer,
        likelihood: Likelihood,
        architecture: VQVAEArchitecture,
    ) -> None:
        super().__init__()
        self.encoder, self.decoder = encoder, decoder
        self.quantizer, self.likelihood = quantizer, likelihood
        self.architecture = architecture
        self.out_activation = activation_module(architecture.out_activation)
        # Whether unused codes are replaced in the next training.
        self.restarts = False

    def encode(self, x: Tensor) -> Tensor:
        """Return vectors (n, n_components, code_dim) before quantisation."""
        vectors: Tensor = self.encoder(x).float()
        return vectors.unflatten(1, (self.architecture.n_codes, self.architecture.code_dim))

    def quantise(self, x: Tensor) -> Quantized:
        """Return quantised vectors in float32, because bfloat16 cannot distinguish many codes."""
        return self._rounded(self.encode(x))

    def _rounded(self, z: Tensor) -> Quantized:
        with torch.autocast(z.device.type, enabled=False):
            quantized: Quantized = self.quantizer(z)
        return quantized

    def decode(self, vectors: Tensor) -> Tensor:
        """Return the parameters of p(x|e) for vectors (n, n_components, code_dim)."""
        return self.out_activation(self.decoder(vectors.flatten(1)).float())

    def of_indices(self, indices: Tensor) -> Tensor:
        """Return the parameters of p(x|e_k) for indices (n, n_components * n_quantizers)."""
        return self.decode(self.look_up(indices))

    def look_up(self, indices: Tensor) -> Tensor:
        """Return the vectors of indices (n, n_components * n_quantizers)."""
        return self.quantizer.look_up(indices.unflatten(1, (-1, self.architecture.n_quantizers)))

    def forward(self, batch: Batch) -> tuple[Tensor, Quantized, Tensor]:
        """Return vectors, quantised vectors, and the output of the decoder."""
        z = self.encode(batch.x)
        quantized = self._rounded(z)
        return z, quantized, self.decode(quantized.value)

    def output_of(self, batch: Batch) -> Tensor:
        output: Tensor = self(batch)[2]
        return output

    # These methods are called by the training loop.

    @torch.no_grad()
    def begin_linearly(self, start: LinearStart) -> None:
        """Initialise encoder and decoder as PCA, whose axes are divided between the positions."""
        architecture, n_linear = self.architecture, len(start)
        axis = torch.arange(n_linear)
        place = axis % architecture.n_codes * architecture.code_dim + axis // architecture.n_codes
        gain = (
            start.deviations
            if architecture.quantizer != "fsq"
            else torch.ones_like(start.deviations)
        )
        outputs = torch.zeros(architecture.n_decoded, n_linear, dtype=torch.float64)
        outputs[place, axis] = gain
        every = torch.arange(architecture.n_decoded)
        start.set_encoder(self.encoder, every, AffineMap(outputs, torch.zeros(len(every))))
        one = torch.ones_like(gain)
        codes = LinearCodes(place, one - one, start.deviations / gain, gain, within=one)
        start.set_decoder(self, codes, self.encoder)
        left = start.residual_variances(start.variances)
        start.set_noise(self.likelihood, left, float(left.mean()))

    def start_codebook(self, rows: Dataset, train: Tensor, batch_size: int, seed: int) -> None:
        """Initialise the codebook with encodings of training rows."""
        architecture, quantizer = self.architecture, self.quantizer
        mean_weight = 1.0 if rows.weight is None else float(rows.weight.mean())
        per_batch = mean_weight * architecture.n_codes * min(batch_size, len(train))
        if architecture.codebook_init == "random" or architecture.quantizer == "fsq":
            if isinstance(quantizer, VectorQuantizer):
                quantizer.start_even(per_batch)
            return
        z, weight = self._first_encodings(rows, train, batch_size, seed)
        if isinstance(quantizer, VectorQuantizer):
            quantizer.start(z, weight, per_batch, seed + 2)
        elif isinstance(quantizer, LinearQuantizer):
            quantizer.start(z, weight)

    def _first_encodings(
        self, rows: Dataset, train: Tensor, batch_size: int, seed: int
    ) -> tuple[Tensor, Tensor | None]:
        """Return encodings of rows by the untrained network, (n, code_dim), and their weights."""
        architecture = self.architecture
        wanted = min(_START_PER_CODE * architecture.codebook_size, _MOST_TO_START)
        n_rows = min(len(train), max(batch_size, -(-wanted // architecture.n_codes)))
        generator = torch.Generator().manual_seed(seed + 2)
        chosen = train[torch.randperm(len(train), generator=generator)[:n_rows]]
        self.train()  # batch normalisation has no running means yet
        vectors, weights = [], []
        with torch.no_grad(), preserve_rng_state(str(rows.device), seed):
            for part in chosen.split(batch_sizes(n_rows, _START_ROWS)):
                batch = rows.batch(part.to(rows.index_device))
                vectors.append(self.encode(batch.x).flatten(0, 1))
                if batch.weight is not None:
                    weights.append(batch.weight.repeat_interleave(architecture.n_codes))
        return torch.cat(vectors), torch.cat(weights) if weights else None

    def decayed(self) -> list[nn.Parameter]:
        """Return the weights of the layers; the codebook is not penalised."""
        own = {id(p) for p in self.quantizer.parameters()}
        return [p for p in super().decayed() if id(p) not in own]

    def prepare(self, batch: Batch, generator: torch.Generator) -> Batch:
        """Draw the uniform numbers that choose new places for unused codes."""
        if not self.training or not self.restarts:
            return batch
        n_rows = len(batch.x) if batch.part is None else batch.part.n_rows  # of all processes
        shape = (self.architecture.n_quantizers, n_rows * self.architecture.n_codes)
        draws = torch.rand(shape, generator=generator, device=batch.x.device)
        return batch._replace(draws=draws)

    def loss(self, batch: Batch) -> Loss:
        """Return -log p(x|e_k), and terms that reduce the distance between encodings and codes."""
        z, quantized, output = self(batch)
        log_px = self.likelihood.row_log_prob(batch.y, output, batch.seen)
        neg_log_likelihood = self.log_units(batch) - log_px
        terms = {"reconstruction": weighted_mean(neg_log_likelihood, batch.weight)}
        # Squared distances have the same weight as squared errors, in units of the features' mean
        # variance, whatever the noise variance is.
        unit = 0.5 * self.architecture.mean_variance / self.step_scale()
        for name, distance in quantized.penalties.items():
            weight = self.architecture.commitment_weight if name == "commitment" else 1.0
            terms[name] = weight * unit * weighted_mean(distance, batch.weight)
        return Loss(terms, output, (z, quantized.indices))

    def figure_of_merit(self, loss: Loss) -> Tensor:
        # The other terms only keep encodings close to the codebook. They grow with the scale of the
        # codes, and a better model may have codes of a larger scale.
        return loss.terms["reconstruction"]

    def stack_obstacle(self) -> str | None:
        return self.architecture.stack_obstacle()

    def stack_key(self) -> Hashable:
        # Modules with more positions differ in more than the size of some weights.
        return (super().stack_key(), self.architecture.n_codes, self.restarts)

    def followed(self) -> tuple[str, ...]:
        if not isinstance(self.quantizer, VectorQuantizer):
            return super().followed()
        parts = (*self.named_parameters(), *self.named_buffers())
        return (*super().followed(), *(n for n, _ in parts if n.startswith("quantizer.")))

    @property
    def follows_alone(self) -> bool:
        """Return True, because the codebook is updated for each module separately."""
        return isinstance(self.quantizer, VectorQuantizer)

    def after_step(self, batch: Batch, loss: Loss) -> None:
        self.likelihood.follow(batch.y, loss.output, batch.weight, batch.seen, batch.part)
        if isinstance(self.quantizer, VectorQuantizer):
            z, indices = loss.aux
            weight = batch.weight
            self.quantizer.follow(
                z.flatten(0, 1),
                indices.flatten(0, 1),
                None if weight is None else weight.repeat_interleave(z.shape[1]),
                decay=self.architecture.decay,
                threshold=self.architecture.dead_code_threshold,
                chances=batch.draws,
                part=batch.part,
            )
