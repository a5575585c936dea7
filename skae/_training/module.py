"""The interface between the training loop and a module."""

from abc import ABC, abstractmethod
from collections.abc import Callable, Hashable, Iterable, Mapping
from types import MappingProxyType
from typing import Any, NamedTuple

import torch
from torch import Tensor, nn

from skae._training.averaging import OF_AVERAGE, WeightAverage, copy_of
from skae._training.data import Batch


class Loss(NamedTuple):
    """Named terms in nats per row, whose sum is minimised, and the output of the decoder."""

    terms: dict[str, Tensor]
    output: Tensor
    # Other values that the module needs for the noise variance or for later phases of the step.
    aux: tuple[Tensor, ...] = ()
    # Values that are recorded beside the terms, but not minimised.
    logged: Mapping[str, Tensor] = MappingProxyType({})


def total_of(loss: Loss) -> Tensor:
    """Return the sum of the terms."""
    return torch.stack(list(loss.terms.values())).sum()


class Phase(NamedTuple):
    """A part of a training step that minimises another loss with its own optimiser."""

    name: str
    # Its second argument is the detached loss of the step before.
    loss: Callable[[Batch, Loss], Tensor]
    parameters: list[nn.Parameter]
    rate: float  # factor of the learning rate
    decays: bool = True  # whether `alpha` penalises these weights


class Blocks(NamedTuple):
    """Axes along which modules of one kind may differ in size, as the sizes of their parts.

    A smaller module equals a larger one in which the additional entries of each part are zero, or
    have the values of `fills`: they then have no effect.
    """

    # Of weights and buffers.
    axes: Mapping[str, Mapping[int, tuple[int, ...]]] = MappingProxyType({})
    draws: tuple[int, ...] | None = None  # the last axis of a batch's draws
    fills: Mapping[str, float] = MappingProxyType({})
    unused_draw: float = 0.0


class TrainableModule(nn.Module, ABC):
    """Base class of modules that the training loop can train."""

    architecture: Any
    # The average of the weights over training steps, while they are averaged (see `averaging`).
    average: WeightAverage | None

    def __init__(self) -> None:
        super().__init__()
        self.register_module("average", None)

    @abstractmethod
    def loss(self, batch: Batch) -> Loss:
        """Return the loss of a batch, averaged over its rows by weight."""

    def prepare(self, batch: Batch, generator: torch.Generator) -> Batch:
        """Return the batch with draws for the loss and, in training, with added noise."""
        return batch

    def decayed(self) -> list[nn.Parameter]:
        """Return the parameters that `alpha` penalises: weights, but not biases and scales."""
        return [p for p in self.parameters() if p.ndim > 1]

    def matrices(self) -> list[nn.Parameter]:
        """Return the weights of inner layers, for the solver "muon"."""
        return []

    def passes_per_row(self) -> int:
        """Return how often a row is multiplied with the largest weights.

        This is the number of its draws, positions or pixels.
        """
        return 1

    def products_per_row(self) -> int:
        """Return the approximate number of multiplications for a row in the largest product."""
        sizes = (p.numel() for p in self.parameters() if p.ndim > 1)
        return max(sizes, default=1) * self.passes_per_row()

    def phases(self) -> list[Phase]:
        """Return the phases that follow the minimisation of `loss` in each step, in order."""
        return []

    def step_scale(self) -> Tensor | float:
        """Return the factor of the loss before its gradient is computed.

        The factor does not change the optimum. Losses in nats grow with the number of features and
        with decreasing noise; the factor keeps the length of the steps independent of both.
        """
        return 1.0

    def shown_rows(self, batch: Batch) -> Tensor:
        """Return the rows of a batch in the form in which callbacks get them."""
        return batch.x

    def shown_output(self, output: Tensor) -> Tensor:
        """Return the output of the module in the form in which callbacks get it."""
        return output

    def settle_noise(self, losses: Iterable[tuple[Batch, Loss]]) -> None:
        """Set a learned noise variance to its optimum for these batches."""

    def figure_of_merit(self, loss: Loss) -> Tensor:
        """Return the part of the loss that compares two states of the module; lower is better."""
        return total_of(loss)

    def mean_error(self, batches: Iterable[Batch]) -> float | None:
        """Return the mean squared error of rows, or None if the module is judged by its loss."""
        return None

    def begin_epoch(self, epoch: int) -> None:
        """Prepare for an epoch; epochs count from 0."""

    def after_step(self, batch: Batch, loss: Loss) -> None:
        """Update buffers after the steps of the optimisers; the loss is detached."""

    # ------------------------------------------------------- members of a stack

    def stack_obstacle(self) -> str | None:
        """Return why such modules cannot be trained as one stack; None if they can."""
        return "networks of this kind are trained one by one"

    def stack_key(self) -> Hashable:
        """Return a key that is equal for modules that can be trained as one stack."""
        return ()

    def blocks(self) -> Blocks:
        """Return the axes along which modules of a stack may differ in size."""
        return Blocks()

    def all_blocks(self) -> Blocks:
        """Return `blocks`, also of the copies of averaged weights, which have equal axes."""
        blocks = self.blocks()
        names = () if self.average is None else self.average.names
        copies = {name: OF_AVERAGE + copy_of(name) for name in names}
        axes = {copies[n]: sizes for n, sizes in blocks.axes.items() if n in copies}
        fills = {copies[n]: value for n, value in blocks.fills.items() if n in copies}
        return blocks._replace(axes={**blocks.axes, **axes}, fills={**blocks.fills, **fills})

    def followed(self) -> tuple[str, ...]:
        """Return the names of the weights and buffers that `after_step` changes."""
        return ()

    @property
    def follows_alone(self) -> bool:
        """Return whether `after_step` must be called for each module of a stack separately."""
        return False


def weighted_mean(values: Tensor, weight: Tensor | None) -> Tensor:
    """Return the mean over rows."""
    if weight is None:
        return values.mean(0)
    # No matrix product is used, because autocast would compute it in bfloat16.
    per_row = weight.reshape(-1, *[1] * (values.ndim - 1))
    return (values * per_row).sum(0) / weight.sum()


def mean_of_batch(values: Tensor, batch: Batch) -> Tensor:
    """Return the mean over all rows of a batch, of which other processes may have a part.

    It is for losses that are no means over rows. The gradient is that of the own rows, so that the
    sum over the processes, by their shares of the batch, is that of all rows.
    """
    own = weighted_mean(values, batch.weight)
    if batch.part is None:
        return own
    whole = batch.part.sum(own.detach() * batch.part.share)
    return own + (whole - own).detach()
