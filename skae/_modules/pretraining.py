"""Greedy layer-wise pretraining of an autoencoder's two networks.

Each layer learns to reconstruct the layer below it. The layers then become the encoder and, in
reverse order, the decoder, which are trained together.
"""

from typing import Any

import torch
from torch import Tensor, nn
from torch.nn.functional import linear

from skae._nn.networks import TiedDecoder, activation_module, linear_layers
from skae._nn.rbm import RestrictedBoltzmannMachine
from skae._training.data import Batch, Dataset
from skae._training.loader import Loader, Subset
from skae._training.module import weighted_mean


def pretrain(
    module: Any,
    rows: Dataset,
    train: Tensor,
    kind: str,
    *,
    n_epochs: int,
    batch_size: int,
    rate: float,
    seed: int,
) -> None:
    """Set the weights of the module's encoder and decoder.

    `kind` is "rbm" for restricted Boltzmann machines, or "layerwise" for autoencoders with one
    layer, which take Adam steps with learning rate `rate`.
    """
    stack = _Stack(module)
    order = torch.Generator().manual_seed(seed)
    noise = torch.Generator(next(module.parameters()).device).manual_seed(seed)
    batches = Loader(Subset(rows, train), batch_size, order)
    for level in range(len(stack.up)):
        if kind == "rbm":
            _train_machine(stack, level, batches, n_epochs, noise)
        else:
            _train_pair(stack, level, batches, n_epochs, rate)


class _Stack:
    """The layers of a mirrored encoder and decoder, from the data to the codes."""

    def __init__(self, module: Any) -> None:
        self.module, self.architecture = module, module.architecture
        self.up = linear_layers(module.encoder)
        self.activation = activation_module(self.architecture.activation)
        self.tied = isinstance(module.decoder, TiedDecoder)
        self.down = [] if self.tied else linear_layers(module.decoder)[::-1]

    def bias_down(self, level: int) -> nn.Parameter:
        """Return the decoder's bias of the layer at this level."""
        if self.tied:
            return self.module.decoder.biases[len(self.up) - 1 - level]
        return self.down[level].bias

    def encode(self, level: int, h: Tensor) -> Tensor:
        """Compute the next layer of the encoder; the codes are linear."""
        drive = self.up[level](h)
        return drive if level == len(self.up) - 1 else self.activation(drive)

    def decode(self, level: int, h: Tensor) -> Tensor:
        """Compute the layer below in the decoder, before its activation."""
        bias = self.bias_down(level)
        tied = self.up[level].weight[:, : len(bias)].T
        return linear(h, tied if self.tied else self.down[level].weight, bias)

    def below(self, level: int, batch: Batch) -> Tensor:
        """Return the input of the layer at this level."""
        h = batch.x
        with torch.no_grad():
            for i in range(level):
                h = self.encode(i, h)
        return h


def _train_pair(stack: _Stack, level: int, batches: Loader, n_epochs: int, rate: float) -> None:
    parameters: list[Tensor] = [*stack.up[level].parameters(), stack.bias_down(level)]
    if not stack.tied:
        parameters.append(stack.down[level].weight)
    optimizer = torch.optim.Adam(parameters, lr=rate)
    module = stack.module
    for _ in range(n_epochs):
        for batch in batches:
            below = stack.below(level, batch)
            back = stack.decode(level, stack.encode(level, below))
            if level == 0:
                output = module.out_activation(back)
                error = -module.likelihood.row_log_prob(batch.y, output, batch.seen)
                error = error * module.step_scale()
            else:
                error = (below - stack.activation(back)).square().mean(1)
            loss = weighted_mean(error, batch.weight)
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()


def _filled(architecture: Any, batch: Batch) -> Tensor:
    """Return the rows as inputs of the machine, with means in place of missing values."""
    if batch.seen is None or architecture.rescaled:  # in these units, zero is the mean
        return batch.y
    mean = architecture.affine.center.to(batch.y)
    return torch.where(batch.seen > 0, batch.y, mean)


@torch.no_grad()
def _train_machine(
    stack: _Stack, level: int, batches: Loader, n_epochs: int, noise: torch.Generator
) -> None:
    architecture = stack.architecture
    layer = stack.up[level]
    n_visible = architecture.n_features if level == 0 else layer.in_features
    bits = level > 0 or not architecture.rescaled
    machine = RestrictedBoltzmannMachine(
        n_visible,
        layer.out_features,
        visible="bernoulli" if bits else "gaussian",
        hidden="gaussian" if level == len(stack.up) - 1 else "bernoulli",
        generator=noise,
    )
    for epoch in range(n_epochs):
        for i, batch in enumerate(batches):
            visible = _filled(architecture, batch) if level == 0 else stack.below(level, batch)
            if epoch == i == 0:
                machine.start_at(weighted_mean(visible, batch.weight))
            machine.step(visible, epoch, weight=batch.weight)

    weight, bias = machine.W.T.clone(), machine.c.clone()
    units = architecture.units
    if level == 0 and units.targets is None and units.inputs is not None:
        # The machine reads v = center + scale x, so that c + v W must be written in terms of x.
        center = units.inputs.center.to(bias.device, bias.dtype)
        bias += center @ machine.W
        weight *= units.inputs.scale
    layer.weight.zero_()  # the encoder may also read a mask
    layer.weight[:, :n_visible] = weight
    layer.bias.copy_(bias)
    stack.bias_down(level).copy_(machine.b)
    if not stack.tied:
        stack.down[level].weight.copy_(machine.W)
