"""Multilayer perceptrons that are initialised as linear maps.

A layer represents numbers v exactly by pairs of rectified units, v = relu(v) - relu(-v), with two
units for each number; the same holds for silu, because v = silu(v) - silu(-v). A narrower layer
represents the numbers that have no pair by single units, relu(v + 4) - 4, which are exact except
for values far from the mean. Smooth activation functions without such pairs are almost linear near
zero, and represent v approximately. Units that represent no number keep
their random weights, but their output weights are zero at first.
"""

from typing import NamedTuple

import torch
from torch import Tensor, nn

from skae._nn.networks import TiedDecoder, linear_layers

# Activation functions a with a(v) - a(-v) = (1 + c) v, and this constant c. For rectifiers, it is
# the slope below zero.
_PAIRED = {"relu": 0.0, "leaky_relu": 0.01, "silu": 0.0}
# Value and slope of other activation functions at zero, and the standard deviation of their inputs.
_SMOOTH = {"tanh": (0.0, 1.0, 0.25), "logistic": (0.5, 0.25, 0.5), "identity": (0.0, 1.0, 1.0)}
# Mean of the input of a single unit without a pair, in standard deviations.
_SHIFT = 4.0


class AffineMap(NamedTuple):
    """The map of x to weight x + bias, in float64."""

    weight: Tensor
    bias: Tensor

    def after(self, inner: "AffineMap") -> "AffineMap":
        """Return the composition of this map after another one."""
        return AffineMap(self.weight @ inner.weight, self.weight @ inner.bias + self.bias)


def rank_held(network: nn.Module, activation: str) -> int | None:
    """Return the largest rank of linear maps that the network can represent; None for any rank."""
    widths = [layer.out_features for layer in linear_layers(network)[:-1]]
    # Its weights represent a map only with the pairs of units of the encoder.
    if isinstance(network, TiedDecoder):
        exact = 1 if activation == "identity" else 2
        widths = [layer.in_features // exact for layer in linear_layers(network.encoder[0])[1:]]
    return min(widths, default=None)


def has_exact_pairs(activation: str) -> bool:
    """Return whether layers with this activation function represent numbers exactly."""
    return activation in _PAIRED or activation == "identity"


@torch.no_grad()
def begin_as(
    network: nn.Module,
    inner: AffineMap,
    outer: AffineMap,
    *,
    outputs: Tensor,
    spread: Tensor,
    others: float,
    activation: str,
) -> None:
    """Initialise `outputs` of a network as the composition of two linear maps.

    The hidden layers represent the results of the inner map, whose standard deviations are
    `spread`. The random weights of all other units are multiplied by `others`.
    """
    *hidden, last = linear_layers(network)
    reads = inner  # the represented numbers, as a map of the layer's input
    for layer in hidden:
        units, reads_units = _units(spread, layer.out_features, activation)
        held = units.after(reads)
        n_units, n_read = held.weight.shape
        layer.weight *= others
        layer.weight[:n_units] = 0.0
        layer.weight[:n_units, :n_read] = held.weight.to(layer.weight)
        layer.bias[:n_units] = held.bias.to(layer.bias)
        reads = reads_units
    written = outer.after(reads)
    outputs = outputs.to(last.weight.device)
    last.weight[outputs] = 0.0
    last.weight[outputs, : written.weight.shape[1]] = written.weight.to(last.weight)
    last.bias[outputs] = written.bias.to(last.bias)


def _units(spread: Tensor, width: int, activation: str) -> tuple[AffineMap, AffineMap]:
    """Return the map from numbers to the inputs of units that represent them, and its inverse."""
    n = len(spread)
    eye = torch.eye(n, dtype=torch.float64)
    if activation not in _PAIRED:
        value, slope, narrow = _SMOOTH[activation]
        drive = AffineMap(torch.diag(narrow / spread), eye.new_zeros(n))
        back = torch.diag(spread / (slope * narrow))
        return drive, AffineMap(back, -back.sum(1) * value)
    # The other numbers, of least variance, are represented by single units.
    n_pairs = min(n, width - n)
    pairs, singles = eye[:n_pairs], eye[n_pairs:]
    no_shift = eye.new_zeros(n_pairs)
    shift = torch.cat([no_shift, _SHIFT * spread[n_pairs:]])
    drive = AffineMap(torch.cat([pairs, singles, -pairs]), torch.cat([shift, no_shift]))
    values, slopes = _value_and_slope(shift, activation)
    back = drive.weight.T.clone()
    back[:n_pairs] /= 1 + _PAIRED[activation]
    back[n_pairs:] /= slopes[n_pairs:, None]
    return drive, AffineMap(back, -values / slopes)


def _value_and_slope(x: Tensor, activation: str) -> tuple[Tensor, Tensor]:
    """Return values and slopes of an activation function with pairs, at positive numbers."""
    if activation != "silu":
        return x, torch.ones_like(x)
    share = torch.sigmoid(x)
    return x * share, share * (1 + x * (1 - share))
