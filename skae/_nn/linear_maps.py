"""Multilayer perceptrons that begin as linear maps.

A layer holds v exactly in pairs of rectified units, v = relu(v) - relu(-v): twice as many units
as numbers. A narrower one holds those that are left over in single units, relu(v + 4) - 4, which
is exact for all but values far out; smooth activations hold v near zero, where they are almost
straight. Units that hold nothing keep their random weights, and nothing reads them at first.
"""

from typing import NamedTuple

import torch
from torch import Tensor, nn

from skae._nn.networks import TiedDecoder, linear_layers

# Slopes of rectifiers below zero.
_RECTIFIERS = {"relu": 0.0, "leaky_relu": 0.01}
# Of smooth activations: value and slope at zero, and the standard deviation of their drives.
_SMOOTH = {"tanh": (0.0, 1.0, 0.25), "logistic": (0.5, 0.25, 0.5), "identity": (0.0, 1.0, 1.0)}
# How far single rectified units are from their kink, in standard deviations.
_SHIFT = 4.0


class AffineMap(NamedTuple):
    """x to weight x + bias, float64."""

    weight: Tensor
    bias: Tensor

    def after(self, inner: "AffineMap") -> "AffineMap":
        """This map of what another one gives."""
        return AffineMap(self.weight @ inner.weight, self.weight @ inner.bias + self.bias)


def rank_held(network: nn.Module, activation: str) -> int | None:
    """The rank of the linear maps that a network can begin as; None for any."""
    widths = [layer.out_features for layer in linear_layers(network)[:-1]]
    if isinstance(network, TiedDecoder):  # whose weights hold a map only as the encoder's pairs
        exact = 1 if activation == "identity" else 2
        widths = [layer.in_features // exact for layer in linear_layers(network.encoder[0])[1:]]
    return min(widths, default=None)


def has_exact_pairs(activation: str) -> bool:
    """Whether layers of this activation hold numbers exactly."""
    return activation in _RECTIFIERS or activation == "identity"


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
    """Set weights so that `outputs` of the network are the outer map of the inner one.

    What the inner map gives, of standard deviations `spread`, goes through the hidden layers.
    `others` is what the random weights of units that hold nothing of it are multiplied with.
    """
    *hidden, last = linear_layers(network)
    reads = inner  # the numbers v, as a map of what the layer reads
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
    """Drives of the units that hold numbers of this spread, as a map of these, and the way back."""
    n = len(spread)
    eye = torch.eye(n, dtype=torch.float64)
    if activation not in _RECTIFIERS:
        value, slope, narrow = _SMOOTH[activation]
        drive = AffineMap(torch.diag(narrow / spread), eye.new_zeros(n))
        back = torch.diag(spread / (slope * narrow))
        return drive, AffineMap(back, -back.sum(1) * value)
    n_pairs = min(n, width - n)  # the rest, of least variance, is held by single units
    pairs, singles = eye[:n_pairs], eye[n_pairs:]
    no_shift = eye.new_zeros(n_pairs)
    shift = torch.cat([no_shift, _SHIFT * spread[n_pairs:]])
    drive = AffineMap(torch.cat([pairs, singles, -pairs]), torch.cat([shift, no_shift]))
    back = drive.weight.T.clone()
    back[:n_pairs] /= 1 + _RECTIFIERS[activation]
    return drive, AffineMap(back, -shift)
