"""What the loop asks of a module: a loss in named terms, and what may go with it."""

from abc import ABC, abstractmethod
from collections.abc import Callable, Hashable, Iterable, Iterator, Mapping
from contextlib import contextmanager
from contextvars import ContextVar
from types import MappingProxyType
from typing import Any, NamedTuple

import torch
from torch import Tensor, nn

from skae._training.data import Batch


class Loss(NamedTuple):
    """Named terms in nats per row, whose sum is minimised, and the decoder's output."""

    terms: dict[str, Tensor]
    output: Tensor
    # What the noise, or later phases of the step, need besides: the module knows.
    aux: tuple[Tensor, ...] = ()
    # What is recorded beside the terms, and not minimised.
    logged: Mapping[str, Tensor] = MappingProxyType({})


def total_of(loss: Loss) -> Tensor:
    """The sum of the terms."""
    return torch.stack(list(loss.terms.values())).sum()


class Phase(NamedTuple):
    """A step within the step: a loss of its own, taken by an optimiser of its own."""

    name: str
    loss: Callable[[Batch, Loss], Tensor]  # given what came before, detached
    parameters: list[nn.Parameter]
    rate: float  # by how much the learning rate is multiplied
    decays: bool = True  # whether `alpha` penalises the weights here


class Blocks(NamedTuple):
    """Along which axes modules of one kind differ in size, each axis as the sizes of its parts.

    A smaller module is a larger one in which the rest of each part has no effect, if what it
    does not have is zero, or as `fills` say.
    """

    axes: Mapping[str, Mapping[int, tuple[int, ...]]] = MappingProxyType({})  # of weights, buffers
    draws: tuple[int, ...] | None = None  # the last axis of the draws of a batch
    fills: Mapping[str, float] = MappingProxyType({})
    unused_draw: float = 0.0


_is_stacking: ContextVar[bool] = ContextVar("skae_is_stacking", default=False)


def is_stacking() -> bool:
    """Whether a loss is being computed for a stack of modules, where every operation has to be
    one that torch can batch."""
    return _is_stacking.get()


@contextmanager
def stacking() -> Iterator[None]:
    """The block computes losses for a stack of modules."""
    token = _is_stacking.set(True)
    try:
        yield
    finally:
        _is_stacking.reset(token)


class TrainableModule(nn.Module, ABC):
    """What the loop asks of a module."""

    architecture: Any

    @abstractmethod
    def loss(self, batch: Batch) -> Loss:
        """The loss of a batch, averaged over its rows by weight."""

    def prepare(self, batch: Batch, generator: torch.Generator) -> Batch:
        """The batch as the loss reads it: with draws made and, in training, with noise added."""
        return batch

    def decayed(self) -> list[nn.Parameter]:
        """The parameters that `alpha` penalises: weights, not biases and scales."""
        return [p for p in self.parameters() if p.ndim > 1]

    def matrices(self) -> list[nn.Parameter]:
        """Weights between hidden layers, which the solver "muon" orthogonalises steps of."""
        return []

    def passes_per_row(self) -> int:
        """How often a row goes through the largest weights: its draws, positions or pixels."""
        return 1

    def products_per_row(self) -> int:
        """Multiplications that a row takes in the largest matrix product, about."""
        sizes = (p.numel() for p in self.parameters() if p.ndim > 1)
        return max(sizes, default=1) * self.passes_per_row()

    def phases(self) -> list[Phase]:
        """The steps that follow the one of `loss`, in order."""
        return []

    def step_scale(self) -> Tensor | float:
        """What the loss is multiplied with before its gradient is taken.

        It changes the length of steps, not the optimum: losses in nats grow with the
        number of features and as the noise shrinks, and steps should not.
        """
        return 1.0

    def shown_rows(self, batch: Batch) -> Tensor:
        """The rows of a batch as callbacks see them."""
        return batch.x

    def shown_output(self, output: Tensor) -> Tensor:
        """What the module makes of rows, as callbacks that score see it."""
        return output

    def settle_noise(self, losses: Iterable[tuple[Batch, Loss]]) -> None:
        """Set noise that is learned to what explains these batches best."""

    def figure_of_merit(self, loss: Loss) -> Tensor:
        """The part of the loss by which two states of the module are compared; lower is better."""
        return total_of(loss)

    def mean_error(self, batches: Iterable[Batch]) -> float | None:
        """The mean squared error of rows, where that is what the module is judged by."""
        return None

    def begin_epoch(self, epoch: int) -> None:
        """Hear that an epoch begins; epochs count from 0."""

    def after_step(self, batch: Batch, loss: Loss) -> None:
        """Hear that the optimisers have stepped; the loss is detached."""

    # ---------------------------------------------------- as one of many, in a stack

    def stack_obstacle(self) -> str | None:
        """Why modules like this are trained one by one; None if they can be trained as one."""
        return "networks of this kind are trained one by one"

    def stack_key(self) -> Hashable:
        """What modules have equal that are trained as one."""
        return ()

    def blocks(self) -> Blocks:
        """Along which axes such modules may still differ in size."""
        return Blocks()

    def followed(self) -> tuple[str, ...]:
        """The weights and buffers that `after_step` changes."""
        return ()

    @property
    def follows_alone(self) -> bool:
        """Whether `after_step` is called for each module by itself."""
        return False


def weighted_mean(values: Tensor, weight: Tensor | None) -> Tensor:
    """Mean over rows."""
    if weight is None:
        return values.mean(0)
    # Not a matrix product, which autocast would compute in bfloat16.
    per_row = weight.reshape(-1, *[1] * (values.ndim - 1))
    return (values * per_row).sum(0) / weight.sum()
