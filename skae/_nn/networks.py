"""Encoders and decoders: multilayer perceptrons and convolutional networks.

Weights are drawn from a given generator. torch's global generator is neither read nor advanced.
"""

from collections.abc import Callable, Sequence
from itertools import pairwise
from math import prod
from typing import Any, cast

import torch
from torch import Tensor, nn
from torch.nn.functional import avg_pool2d, interpolate, linear, max_pool2d
from torch.nn.utils import skip_init

from skae._utils.memory import is_lack_of_memory

Shape = tuple[int, int, int]

# Activation functions by scikit-learn's names. The gain keeps the variance of signals through the
# layers.
ACTIVATIONS: dict[str, tuple[Callable[[], nn.Module], float]] = {
    "relu": (nn.ReLU, 2**0.5),
    "leaky_relu": (lambda: nn.LeakyReLU(0.01), 2**0.5),
    "silu": (nn.SiLU, 1.68),
    "tanh": (nn.Tanh, 5 / 3),
    "logistic": (nn.Sigmoid, 4.0),
    "identity": (nn.Identity, 1.0),
}
# Ranges of the output activations.
OUT_RANGES = {"logistic": (0.0, 1.0), "tanh": (-1.0, 1.0), "relu": (0.0, float("inf"))}
POOLINGS = ("stride", "max", "average", "min")
# Initial log variance of q(z|x). The decoder quickly learns to use the codes if the draws are close
# to their means.
_START_LOG_VAR = -3.0
# Images with a smaller side cannot be halved.
MIN_SIDE = 4


def activation_module(name: str) -> nn.Module:
    """Return the module of an activation function."""
    return ACTIVATIONS[name][0]()


def initialise(layer: nn.Module, gain: float, generator: torch.Generator) -> nn.Module:
    """Draw uniform weights by the rule of Glorot and Bengio, and set biases to zero."""
    nn.init.xavier_uniform_(layer.weight, gain, generator)  # type: ignore[arg-type]
    nn.init.zeros_(layer.bias)  # type: ignore[arg-type]
    return layer


def dense(n_in: int, n_out: int, gain: float, generator: torch.Generator) -> nn.Module:
    """Return an initialised linear layer."""
    return initialise(skip_init(nn.Linear, n_in, n_out), gain, generator)


def convolution(n_in: int, n_out: int, gain: float, generator: torch.Generator, stride: int = 1):  # type: ignore[no-untyped-def]
    """Return a 3x3 convolution that keeps the size of the image, or halves it, rounding up."""
    layer = skip_init(nn.Conv2d, n_in, n_out, 3, stride=stride, padding=1)
    return initialise(layer, gain, generator)


def mlp(
    sizes: Sequence[int], activation: str, normalization: str | None, generator: torch.Generator
) -> nn.Sequential:
    """Return linear layers of these sizes, with activation functions between them."""
    make, gain = ACTIVATIONS[activation]
    layers: list[nn.Module] = []
    for i, (n_in, n_out) in enumerate(pairwise(sizes)):
        last = i == len(sizes) - 2
        layers.append(dense(n_in, n_out, 1.0 if last else gain, generator))
        if not last:
            if normalization == "batch":
                layers.append(nn.BatchNorm1d(n_out))
            layers.append(make())
    return nn.Sequential(*layers)


def linear_layers(network: nn.Module) -> list[nn.Linear]:
    """Return the linear layers of a network, in order."""
    return [layer for layer in network.modules() if isinstance(layer, nn.Linear)]


def inner_weights(encoder: nn.Module, decoder: nn.Module) -> list[nn.Parameter]:
    """Return the weights of linear layers that neither read nor give rows."""
    layers = linear_layers(encoder)[1:] + linear_layers(decoder)[:-1]
    return [cast(nn.Parameter, layer.weight) for layer in layers]


class TiedDecoder(nn.Module):
    """A decoder with the transposed weights of the encoder and its own biases.

    The encoder may read more than `n_features` columns, if it also reads a mask.
    """

    def __init__(self, encoder: nn.Module, activation: str, n_features: int) -> None:
        super().__init__()
        # A list hides the encoder from torch, so that its weights are counted once.
        self.encoder = [encoder]
        sizes = [layer.in_features for layer in linear_layers(encoder)]
        sizes[0] = n_features
        self.biases = nn.ParameterList(nn.Parameter(torch.zeros(n)) for n in reversed(sizes))
        self.activation = activation_module(activation)

    def forward(self, z: Tensor) -> Tensor:
        layers = linear_layers(self.encoder[0])[::-1]
        for i, (layer, bias) in enumerate(zip(layers, self.biases, strict=True)):
            z = linear(z, layer.weight[:, : len(bias)].T, bias)
            if i < len(layers) - 1:
                z = self.activation(z)
        return z


class Pool(nn.Module):
    """Maximum, average or minimum over 2x2 pixels, or over fewer at an odd border."""

    def __init__(self, kind: str) -> None:
        super().__init__()
        self.kind = kind

    def forward(self, x: Tensor) -> Tensor:
        if self.kind == "average":
            return avg_pool2d(x, 2, ceil_mode=True)
        sign = 1 if self.kind == "max" else -1
        return sign * max_pool2d(sign * x, 2, ceil_mode=True)


class Resize(nn.Module):
    """Nearest-neighbour up-sampling to a size."""

    def __init__(self, size: tuple[int, int]) -> None:
        super().__init__()
        self.size = size

    def forward(self, x: Tensor) -> Tensor:
        return interpolate(x, size=self.size)


def halved_sizes(height: int, width: int, times: int) -> list[tuple[int, int]]:
    """Return the size of an image before and after each halving, which rounds up."""
    sizes = [(height, width)]
    for _ in range(times):
        height, width = -(-height // 2), -(-width // 2)
        sizes.append((height, width))
    return sizes


def grid_size(image_shape: Shape, times: int) -> tuple[int, int]:
    """Return the size of an image after this many halvings."""
    return halved_sizes(*image_shape[1:], times)[-1]


class ChannelsLast(nn.Module):
    """Changes (n, channels, height, width) to (n, height, width, channels)."""

    def forward(self, x: Tensor) -> Tensor:
        return x.permute(0, 2, 3, 1)


class ChannelsFirst(nn.Module):
    """Changes (n, height, width, channels) to (n, channels, height, width)."""

    def forward(self, x: Tensor) -> Tensor:
        return x.permute(0, 3, 1, 2)


def conv_encoder(
    image_shape: Shape,
    channels: Sequence[int],
    n_outputs: int,
    *,
    activation: str,
    pooling: str,
    normalization: str | None,
    generator: torch.Generator,
) -> nn.Sequential:
    """Return a network of rows: one halving block for each of `channels`, then a linear layer."""
    blocks = _halving_blocks(image_shape, channels, activation, pooling, normalization, generator)
    n_flat = channels[-1] * prod(grid_size(image_shape, len(channels)))
    return nn.Sequential(*blocks, nn.Flatten(), dense(n_flat, n_outputs, 1.0, generator))


def grid_encoder(
    image_shape: Shape,
    channels: Sequence[int],
    n_outputs: int,
    *,
    activation: str,
    pooling: str,
    normalization: str | None,
    generator: torch.Generator,
) -> nn.Sequential:
    """Return a network of rows: a halving block for each of `channels`, then a vector per pixel.

    The output has rows of vectors, (n, height * width * n_outputs), pixel by pixel in raster order.
    """
    blocks = _halving_blocks(image_shape, channels, activation, pooling, normalization, generator)
    to_vectors = dense(channels[-1], n_outputs, 1.0, generator)
    return nn.Sequential(*blocks, ChannelsLast(), to_vectors, nn.Flatten())


def _halving_blocks(
    image_shape: Shape,
    channels: Sequence[int],
    activation: str,
    pooling: str,
    normalization: str | None,
    generator: torch.Generator,
) -> list[nn.Module]:
    """Return the conversion of rows to images, and a block for each of `channels`."""
    make, gain = ACTIVATIONS[activation]
    n_in = image_shape[0]
    layers: list[nn.Module] = [nn.Unflatten(1, image_shape)]
    for n_out in channels:
        stride = 2 if pooling == "stride" else 1
        layers.append(convolution(n_in, n_out, gain, generator, stride))
        if normalization == "batch":
            layers.append(nn.BatchNorm2d(n_out))
        layers.append(make())
        if pooling != "stride":
            layers.append(Pool(pooling))
        n_in = n_out
    return layers


def conv_decoder(
    image_shape: Shape,
    channels: Sequence[int],
    n_inputs: int,
    *,
    activation: str,
    normalization: str | None,
    generator: torch.Generator,
) -> nn.Sequential:
    """Return the decoder of a `conv_encoder`: a linear layer, then blocks that double images.

    `channels` are in the decoder's order, from the smallest image to the largest.
    """
    size = grid_size(image_shape, len(channels))
    n_in = channels[0] if channels else image_shape[0]
    layers = [dense(n_inputs, n_in * prod(size), 1.0, generator), nn.Unflatten(1, (n_in, *size))]
    blocks = _doubling_blocks(image_shape, channels, activation, normalization, generator, size)
    return nn.Sequential(*layers, *blocks, nn.Flatten())


def grid_decoder(
    image_shape: Shape,
    channels: Sequence[int],
    n_inputs: int,
    size: tuple[int, int],
    *,
    activation: str,
    normalization: str | None,
    generator: torch.Generator,
) -> nn.Sequential:
    """Return the decoder of a `grid_encoder`, from vectors on a grid of this size to rows."""
    n_in = channels[0] if channels else image_shape[0]
    layers = [
        nn.Unflatten(1, (*size, n_inputs)),
        dense(n_inputs, n_in, 1.0, generator),
        ChannelsFirst(),
    ]
    blocks = _doubling_blocks(image_shape, channels, activation, normalization, generator, size)
    return nn.Sequential(*layers, *blocks, nn.Flatten())


def _doubling_blocks(
    image_shape: Shape,
    channels: Sequence[int],
    activation: str,
    normalization: str | None,
    generator: torch.Generator,
    start: tuple[int, int],
) -> list[nn.Module]:
    """Return a block for each of `channels`, from a size up to that of the image."""
    make, gain = ACTIVATIONS[activation]
    n_out, height, width = image_shape
    sizes = halved_sizes(height, width, len(channels))[::-1]
    if not channels:
        return [] if start == (height, width) else [Resize((height, width))]
    n_in = channels[0]
    layers: list[nn.Module] = []
    for i, (rows, columns) in enumerate(sizes[1:]):
        size = (max(rows, start[0]), max(columns, start[1]))  # a smaller size would lose codes
        last = i == len(channels) - 1
        n_next = n_out if last else channels[i + 1]
        layers += [make(), Resize(size)]
        layers.append(convolution(n_in, n_next, 1.0 if last else gain, generator))
        if normalization == "batch" and not last:
            layers.append(nn.BatchNorm2d(n_next))
        n_in = n_next
    return layers


def start_at(network: nn.Module, output: Tensor) -> None:
    """Set the last bias to this output, or to its channels' means, where the network begins."""
    if isinstance(network, TiedDecoder):
        bias = network.biases[-1]
    else:
        layers = [m for m in network.modules() if isinstance(m, (nn.Linear, nn.Conv2d))]
        bias = layers[-1].bias
    with torch.no_grad():
        bias.copy_(output.reshape(len(bias), -1).mean(1))


def start_narrow(encoder: nn.Module, n_codes: int) -> None:
    """Initialise a built-in encoder with a narrow q(z|x)."""
    start_at(encoder, torch.tensor([0.0, _START_LOG_VAR]).repeat_interleave(n_codes))


class FromImages(nn.Module):
    """Adapts a user's encoder, which reads images (and a mask as further channels), to rows."""

    def __init__(self, network: nn.Module, image_shape: Shape) -> None:
        super().__init__()
        self.network, self.size = network, image_shape[1:]

    def forward(self, x: Tensor) -> Tensor:
        out: Tensor = self.network(x.unflatten(1, (-1, *self.size)))
        return out


class ToImages(nn.Module):
    """Adapts a user's decoder, which returns images, to rows."""

    def __init__(self, network: nn.Module) -> None:
        super().__init__()
        self.network = network

    def forward(self, z: Tensor) -> Tensor:
        out: Tensor = self.network(z)
        return out.flatten(1)


def check_network(name: str, network: nn.Module, n_inputs: int, n_outputs: int) -> None:
    """Run one batch to check the shapes; raise an error that states them if they do not fit."""
    was_training = network.training
    network.eval()
    try:
        with torch.no_grad():
            out: Any = network(torch.zeros(2, n_inputs))
    except (AttributeError, RuntimeError, TypeError, ValueError) as error:
        if is_lack_of_memory(error):
            raise
        raise ValueError(
            f"{name} must accept a batch of shape (2, {n_inputs}), but it raised: {error}"
        ) from error
    finally:
        network.train(was_training)
    if not isinstance(out, Tensor) or tuple(out.shape) != (2, n_outputs):
        given = tuple(out.shape) if isinstance(out, Tensor) else type(out).__name__
        raise ValueError(
            f"{name} maps a batch of shape (2, {n_inputs}) to {given}; expected {(2, n_outputs)}."
        )
