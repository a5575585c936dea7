"""Architectures: plain values from which a network is built, also when it is loaded."""

from dataclasses import dataclass, fields
from functools import cached_property
from math import log, prod
from numbers import Integral, Real
from typing import Any, ClassVar, get_args

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from skae._modules.own_networks import Network, Place, own_network
from skae._modules.scales import shares
from skae._nn.count_densities import MAX_LOG_RATE
from skae._nn.counts import Counts
from skae._nn.likelihood_base import Likelihood
from skae._nn.likelihoods import LIKELIHOODS, likelihood_module
from skae._nn.mixed import LOCATED, Mixed
from skae._nn.networks import (
    Shape,
    TiedDecoder,
    conv_decoder,
    conv_encoder,
    grid_size,
    linear_layers,
    mlp,
    start_at,
)
from skae._nn.size_factors import SizeFactors
from skae._training.columns import Columns
from skae._training.data import Reading
from skae._training.reading import CountReading
from skae._training.units import Affine, Units

# Fields that are determined by the rows.
_OF_DATA = (
    "n_features",
    "n_codes",
    "n_conditions",
    "with_mask",
    "center",
    "scale",
    "range",
    "row_dtype",
    "kinds",
    "n_levels",
    "explained_mean",
    "reads_counts",
    "common_total",
    "most_log_rate",
    "total_spread",
)


@dataclass(frozen=True, kw_only=True)
class Architecture:
    """Sizes of rows and codes, the likelihood, and the units of the rows."""

    n_features: int  # columns of the network; a category has one for each level
    n_codes: int  # number of codes of the network
    n_components: int  # number of codes in use, which are the first ones
    n_conditions: int  # number of additional inputs of the decoder
    hidden_layer_sizes: tuple[int, ...]
    likelihood: str
    noise_variance: str | float  # for a table in units of each column's variance
    with_mask: bool  # whether the encoder also reads a mask of the observed values
    center: NDArray[np.float64]  # means of the features, as the encoder reads them
    # Root of the features' mean variance; for a table one value for each column.
    scale: float | NDArray[np.float64]
    range: tuple[float, float]  # smallest and largest of all values
    # Smallest learned noise variance, as a fraction of the mean variance of the features.
    noise_floor: float = 1e-4
    row_dtype: str = "float32"  # type of rows that are returned in the units of the data
    # For a table with a likelihood for each column: the likelihoods, and the numbers of levels,
    # which are 0 for numbers. Otherwise empty, and there is one likelihood for all features.
    kinds: tuple[str, ...] = ()
    n_levels: tuple[int, ...] = ()
    # Means of the network's columns in the units of the decoder; the encoder reads logarithms of
    # counts.
    explained_mean: NDArray[np.float64] | None = None
    # For likelihoods of counts: the size factor of each row, whether the encoder reads logarithms,
    # the geometric mean of the totals, and the log rate above which rates grow linearly.
    size_factor: str | None = None
    reads_counts: bool = False
    common_total: float | None = None
    most_log_rate: float = MAX_LOG_RATE
    # Standard deviation of the log totals, if the encoder also reads them.
    total_spread: float | None = None

    # Fields that may change when training continues.
    changeable: ClassVar[tuple[str, ...]] = ()
    # Names of parameters for fields whose names differ.
    names: ClassVar[dict[str, str]] = {}

    def widest(self) -> int:
        """Return the approximate number of values per code in the widest layer of the decoder."""
        return max(self.n_outputs, *self.hidden_layer_sizes, 1)

    def passes_per_row(self) -> int:
        """Return approximately how often a row is multiplied with the largest weights."""
        return 1

    @classmethod
    def from_params(cls, estimator: Any, derived: dict[str, Any]) -> dict[str, Any]:
        """Return the fields that are determined by parameters, as plain values.

        These are the `derived` fields, and parameters of the estimator that have the name of a
        field.
        """
        found: dict[str, Any] = {}
        for field in fields(cls):
            name = field.name
            if name in derived:
                found[name] = derived[name]
            elif name not in _OF_DATA and hasattr(estimator, name):
                found[name] = _plain(field.type, name, getattr(estimator, name))
        return found

    def as_dict(self) -> dict[str, Any]:
        """Return the fields by name, as they are saved."""
        return {field.name: getattr(self, field.name) for field in fields(self)}

    @cached_property
    def columns(self) -> Columns | None:
        """The columns of a table among those of the network; None if it is not a table."""
        return Columns(self.kinds, self.n_levels) if self.kinds else None

    @property
    def n_read(self) -> int:
        """Number of inputs of recognition: the values, and if there are any, a mask and totals."""
        return self.n_features + self.n_mask + (self.total_spread is not None)

    @property
    def n_mask(self) -> int:
        """Number of columns of the mask that recognition reads."""
        n_columns = self.n_features if self.columns is None else len(self.columns)
        return n_columns if self.with_mask else 0

    @property
    def has_counts(self) -> bool:
        """Whether all features have one likelihood of counts."""
        return not self.kinds and issubclass(LIKELIHOODS[self.likelihood], Counts)

    @property
    def n_outputs(self) -> int:
        """Number of outputs of the decoder."""
        times = 1 if self.kinds else LIKELIHOODS[self.likelihood].n_outputs
        return times * self.n_features

    @cached_property
    def reading(self) -> Reading | None:
        """What the encoder reads of rows before standardisation; None for the rows themselves."""
        if self.reads_counts and self.explained_mean is not None:
            share = shares(self.explained_mean)
            return CountReading(self.common_total, share, self.total_spread)
        return None if self.columns is None else self.columns.as_read

    @cached_property
    def located(self) -> Tensor:
        """Mask of the network's columns that are modelled in standardised units."""
        if self.columns is None:
            return torch.full((self.n_features,), self.rescaled)
        return self.columns.among(LOCATED)

    @property
    def squares(self) -> bool:
        """Whether the loss of all features is an error around a location."""
        return not self.kinds and LIKELIHOODS[self.likelihood].location

    @property
    def rescaled(self) -> bool:
        """Whether the decoder models rows in standardised units, which need an unbounded range."""
        return self.squares and self._gives_any_number()

    def _gives_any_number(self) -> bool:
        """Return whether the decoder is built by skae and has an unbounded range.

        Subclasses override this method instead of `rescaled`, because torch 2.13 compiles a
        property that reads `super().rescaled` as if that were true.
        """
        return True

    @cached_property
    def affine(self) -> Affine:
        """The standardisation of rows."""
        scale = self.scale
        # Arrays are copied, because those of a file may be read-only.
        return Affine(
            torch.tensor(self.center),
            torch.tensor(scale) if isinstance(scale, np.ndarray) else scale,
        )

    @property
    def units(self) -> Units:
        """Units of the encoder's input and of the decoder's output."""
        if self.columns is None:
            return Units(self.affine, self.affine if self.rescaled else None)
        center, scale = self.affine.center, torch.as_tensor(self.affine.scale)
        one = torch.ones_like(scale)
        targets = Affine(center.where(self.located, 0 * one), scale.where(self.located, one))
        return Units(self.affine, targets)

    @property
    def target_scale(self) -> float | NDArray[np.float64]:
        """Units of the data in one unit of the decoder."""
        if self.columns is None:
            return float(self.scale) if self.rescaled else 1.0
        return np.where(self.located, self.scale, 1.0)

    @property
    def log_scale(self) -> float | NDArray[np.float64]:
        """log |dx/dy| of one feature, by which log densities change with the units."""
        return log(self.target_scale) if self.columns is None else np.log(self.target_scale)

    @property
    def mean_variance(self) -> float:
        """Mean variance of the features in the decoder's units; 1 if there is no location."""
        if not self.squares:
            return 1.0
        return float((self.scale / self.target_scale) ** 2)

    def start_output(self) -> Tensor:
        """Return the output whose mean is the mean row."""
        means = self.center if self.explained_mean is None else self.explained_mean
        mean = torch.tensor(means).float()
        if self.rescaled:
            return torch.zeros_like(mean)
        return self.make_likelihood().natural(mean.where(~self.located, torch.zeros_like(mean)))

    def in_data_units(self, rows: Tensor) -> Tensor:
        """Convert rows of the network to rows of the data."""
        targets = self.units.targets
        if targets is not None:
            rows = targets.undo(rows).to(getattr(torch, self.row_dtype))
        return rows if self.columns is None else self.columns.collapse(rows)

    def make_likelihood(self) -> Likelihood:
        """Return the likelihood module, in the units of the decoder."""
        if self.columns is not None:
            given = None if isinstance(self.noise_variance, str) else self.noise_variance
            return Mixed(self.columns, given, self.noise_floor, torch.tensor(self.log_scale))
        if self.has_counts:
            sizes = None if self.common_total is None else SizeFactors(self.common_total)
            kind: Any = LIKELIHOODS[self.likelihood]
            counts: Likelihood = kind(self.n_features, sizes, self.most_log_rate)
            return counts
        return likelihood_module(
            self.likelihood,
            self.n_features,
            self.noise_variance,
            unit=float(self.target_scale),
            mean_variance=float(self.scale / self.target_scale) ** 2,
            floor=self.noise_floor,
        )


@dataclass(frozen=True, kw_only=True)
class EncoderDecoderArchitecture(Architecture):
    """Architecture of an encoder and a decoder."""

    decoder_layer_sizes: tuple[int, ...]
    activation: str
    out_activation: str
    normalization: str | None
    network: str
    image_shape: Shape | None
    pooling: str
    tied_weights: bool = False
    own_networks: bool  # whether the encoder or the decoder is the user's

    def widest(self) -> int:
        widest = max(self.decoder_layer_sizes, default=1)
        if self.network == "conv" and self.image_shape is not None:
            widest *= self.n_features // self.image_shape[0]
        return max(self.n_outputs, widest)

    def passes_per_row(self) -> int:
        if self.image_shape is None or not (self.network == "conv" or self.own_networks):
            return 1
        # Kernels are applied to every pixel. The largest kernels belong to the smallest images.
        times = len(self.hidden_layer_sizes) if self.network == "conv" else 1
        return prod(grid_size(self.image_shape, times))

    def _gives_any_number(self) -> bool:
        return self.out_activation == "identity" and not self.own_networks

    @property
    def units(self) -> Units:
        """Units of rows. Your own networks read rows of numbers that are not standardised."""
        inputs, targets = super().units
        return Units(None if self.own_networks and self.columns is None else inputs, targets)

    @property
    def n_code_numbers(self) -> int:
        """Number of values that represent the codes of a row."""
        return self.n_codes

    @property
    def n_decoded(self) -> int:
        """Number of inputs of the decoder."""
        return self.n_code_numbers + self.n_conditions

    def stack_obstacle(self) -> str | None:
        """Return why such networks cannot be trained as one stack; None if they can."""
        if self.columns is not None:
            return "its columns have different likelihoods"
        if self.own_networks:
            return "it has networks of your own"
        if self.network != "mlp":
            return f"network={self.network!r}: a stack of convolutions would not be faster"
        # A stack pads batches with rows that would change the moments.
        if self.normalization is not None:
            return f"normalization={self.normalization!r}"
        return None

    def blocks(
        self, module: Any, encoded: tuple[int, ...], decoded: tuple[int, ...]
    ) -> dict[str, dict[int, tuple[int, ...]]]:
        """Return the axes of a module's weights whose size depends on the number of codes.

        These are the outputs of the encoder, and the inputs of the decoder.
        """
        names = {id(p): name for name, p in module.named_parameters()}
        last = linear_layers(module.encoder)[-1]
        found = {names[id(last.weight)]: {0: encoded}, names[id(last.bias)]: {0: encoded}}
        if not self.tied_weights:
            found[names[id(linear_layers(module.decoder)[0].weight)]] = {1: decoded}
        return found

    def start_output(self) -> Tensor:
        mean = self.affine.center.float()
        match self.out_activation:
            case "logistic":
                return torch.logit(mean, eps=1e-2)
            case "tanh":
                return torch.atanh(mean.clamp(-0.99, 0.99))
        return super().start_output()

    def make_networks(
        self,
        encoder: Network | None,
        decoder: Network | None,
        generator: torch.Generator,
        *,
        n_encoded: int,
    ) -> tuple[nn.Module, nn.Module]:
        """Return an encoder with `n_encoded` outputs and a decoder: the user's, or new ones."""
        n_inputs, n_outputs = self.n_read, self.n_outputs
        if encoder is None:
            to_codes = self._new_encoder(n_inputs, n_encoded, generator)
        else:
            place = Place("encoder", n_inputs, self.n_code_numbers, n_inputs, n_encoded)
            to_codes = own_network(encoder, place, self.image_shape, generator)
        if decoder is None:
            to_rows = self._new_decoder(to_codes, generator)
            if not self.rescaled:
                start_at(to_rows, self.start_output())
        else:
            place = Place("decoder", n_outputs, self.n_decoded, self.n_decoded, n_outputs)
            to_rows = own_network(decoder, place, self.image_shape, generator)
        return to_codes, to_rows

    def _new_encoder(self, n_inputs: int, n_encoded: int, generator: torch.Generator) -> nn.Module:
        if self.network == "mlp" or self.image_shape is None:
            sizes = (n_inputs, *self.hidden_layer_sizes, n_encoded)
            return mlp(sizes, self.activation, self.normalization, generator)
        channels, height, width = self.image_shape
        return conv_encoder(
            (channels * (2 if self.with_mask else 1), height, width),
            self.hidden_layer_sizes,
            n_encoded,
            activation=self.activation,
            pooling=self.pooling,
            normalization=self.normalization,
            generator=generator,
        )

    def _new_decoder(self, encoder: nn.Module, generator: torch.Generator) -> nn.Module:
        if self.tied_weights:
            return TiedDecoder(encoder, self.activation, self.n_features)
        if self.network == "mlp" or self.image_shape is None:
            sizes = (self.n_decoded, *self.decoder_layer_sizes, self.n_outputs)
            return mlp(sizes, self.activation, self.normalization, generator)
        channels, height, width = self.image_shape
        return conv_decoder(
            (channels * self.n_outputs // self.n_features, height, width),
            self.decoder_layer_sizes,
            self.n_decoded,
            activation=self.activation,
            normalization=self.normalization,
            generator=generator,
        )


def _plain(kind: Any, name: str, value: Any) -> Any:
    """Convert a parameter to a plain value of the field's type, if the type is a single one.

    Numbers are converted to float if the field may be one, because only floats may differ in a
    stack.
    """
    if value is None:
        return None
    if float in get_args(kind) and isinstance(value, Real):
        return float(value)
    if kind in (int, float, bool):
        return kind(value)
    if kind == tuple[int, ...]:
        return layer_sizes(name, value)
    if kind == Shape | None:
        return tuple(map(int, value))
    return value


def layer_sizes(name: str, sizes: Any) -> tuple[int, ...]:
    """Return a parameter that is one size or several as a tuple."""
    try:
        sizes = (sizes,) if isinstance(sizes, Integral) else tuple(sizes)
    except TypeError as error:  # such as an array without axes
        raise TypeError(f"{name}={sizes!r} must be an integer or a list of integers.") from error
    if not all(isinstance(s, Integral) and int(s) >= 1 for s in sizes):
        raise ValueError(f"{name}={sizes!r} must contain only positive integers.")
    return tuple(int(s) for s in sizes)
