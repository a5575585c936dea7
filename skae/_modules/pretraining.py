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
from skae._training.checkpoints import StoredState
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
    stored: StoredState | None = None,
    every: int = 1,
) -> None:
    """Set the weights of the module's encoder and decoder.

    `kind` is "rbm" for restricted Boltzmann machines, or "layerwise" for autoencoders with one
    layer, which take Adam steps with learning rate `rate`. If the state can be stored, it is stored
    after every so many epochs, and training goes on from it.
    """
    stack = _Stack(module)
    order = torch.Generator().manual_seed(seed)
    noise = torch.Generator(next(module.parameters()).device).manual_seed(seed)
    batches = Loader(Subset(rows, train), batch_size, order)
    generators = order, noise

    def learner_of(level: int) -> _Pair | _Machine:
        return _Machine(stack, level, noise) if kind == "rbm" else _Pair(stack, level, rate)

    learner, n_done, n_all = None, 0, n_epochs * len(stack.up)
    state = None if stored is None else stored.load()
    if stored is not None and state is not None:
        with stored.restoring():
            n_done = state["n_done"]
            module.load_state_dict(state["weights"])
            if state["learner"] is not None:
                learner = learner_of(n_done // n_epochs)
                learner.load_state_dict(state["learner"])
            for generator, saved in zip(generators, state["generators"], strict=True):
                generator.set_state(saved)
    for n in range(n_done, n_all):
        level, epoch = divmod(n, n_epochs)
        learner = learner or learner_of(level)
        for i, batch in enumerate(batches):
            learner.step(batch, epoch, is_first=epoch == i == 0)
        if epoch == n_epochs - 1:
            learner.finish()
            learner = None
        if stored is not None and ((n + 1) % every == 0 or n + 1 == n_all):
            state = {
                "n_done": n + 1,
                "weights": dict(module.state_dict()),
                "learner": None if learner is None else learner.state_dict(),
                "generators": [generator.get_state() for generator in generators],
            }
            stored.save(state, f"after epoch {n + 1} of pretraining")


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


class _Pair:
    """A layer of the encoder with its layer of the decoder, as an autoencoder."""

    def __init__(self, stack: _Stack, level: int, rate: float) -> None:
        self.stack, self.level = stack, level
        parameters: list[Tensor] = [*stack.up[level].parameters(), stack.bias_down(level)]
        if not stack.tied:
            parameters.append(stack.down[level].weight)
        self.optimizer = torch.optim.Adam(parameters, lr=rate)

    def step(self, batch: Batch, epoch: int, is_first: bool) -> None:
        """Take a step of Adam."""
        stack, level, module = self.stack, self.level, self.stack.module
        below = stack.below(level, batch)
        back = stack.decode(level, stack.encode(level, below))
        if level == 0:
            output = module.out_activation(back)
            error = -module.likelihood.row_log_prob(batch.y, output, batch.seen)
            error = error * module.step_scale()
        else:
            error = (below - stack.activation(back)).square().mean(1)
        loss = weighted_mean(error, batch.weight)
        self.optimizer.zero_grad()
        loss.backward()
        self.optimizer.step()

    def finish(self) -> None:
        """The weights are already those of the networks."""

    def state_dict(self) -> dict[str, Any]:
        """Return the state of the optimiser."""
        return self.optimizer.state_dict()

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Set the state of the optimiser."""
        self.optimizer.load_state_dict(state)


class _Machine:
    """A layer of the encoder with its layer of the decoder, as a restricted Boltzmann machine."""

    def __init__(self, stack: _Stack, level: int, noise: torch.Generator) -> None:
        self.stack, self.level = stack, level
        architecture, layer = stack.architecture, stack.up[level]
        bits = level > 0 or not architecture.rescaled
        self.machine = RestrictedBoltzmannMachine(
            architecture.n_features if level == 0 else layer.in_features,
            layer.out_features,
            visible="bernoulli" if bits else "gaussian",
            hidden="gaussian" if level == len(stack.up) - 1 else "bernoulli",
            generator=noise,
        )

    @torch.no_grad()
    def step(self, batch: Batch, epoch: int, is_first: bool) -> None:
        """Take a step of contrastive divergence."""
        stack, level = self.stack, self.level
        visible = _filled(stack.architecture, batch) if level == 0 else stack.below(level, batch)
        if is_first:
            self.machine.start_at(weighted_mean(visible, batch.weight))
        self.machine.step(visible, epoch, weight=batch.weight)

    @torch.no_grad()
    def finish(self) -> None:
        """Copy the weights of the machine to the networks."""
        stack, level, machine = self.stack, self.level, self.machine
        layer, n_visible = stack.up[level], len(machine.b)
        weight, bias = machine.W.T.clone(), machine.c.clone()
        units = stack.architecture.units
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

    def state_dict(self) -> dict[str, Any]:
        """Return weights, biases and the velocities of their steps."""
        return self.machine.state_dict()

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Set weights, biases and the velocities of their steps."""
        self.machine.load_state_dict(state)


def _filled(architecture: Any, batch: Batch) -> Tensor:
    """Return the rows as inputs of the machine, with means in place of missing values."""
    if batch.seen is None or architecture.rescaled:  # in these units, zero is the mean
        return batch.y
    mean = architecture.affine.center.to(batch.y)
    return torch.where(batch.seen > 0, batch.y, mean)
