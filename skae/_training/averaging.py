"""Exponential moving average of the weights of a module over training steps.

A module has its latest weights in place during an epoch of training, and their average at all other
times. The other copy of each tensor is in `module.average`.

References
----------
B. T. Polyak and A. B. Juditsky (1992). Acceleration of stochastic approximation by averaging. SIAM
Journal on Control and Optimization 30(4), 838-855. :doi:`10.1137/0330046`
"""

from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor, nn

# How the names of the average's tensors begin among the weights of a module.
OF_AVERAGE = "average."
# Last names of buffers that layers of normalisation update in training.
_MOMENTS = ("running_mean", "running_var")


def kept_share(n_steps: int, decay: float) -> float:
    """Return the share of the average that a step keeps, after this number of steps.

    Early steps keep less, so that the average does not depend on the initial weights for long. The
    first keeps nothing: the average begins as a copy of the weights after this step.
    """
    return min(decay, (1 + n_steps) / (10 + n_steps)) if n_steps else 0.0


def tensor_of(module: nn.Module, name: str) -> Tensor:
    """Return the weight or buffer of this name."""
    path, _, last = name.rpartition(".")
    found: Tensor = getattr(module.get_submodule(path), last)
    return found


def copy_of(name: str) -> str:
    """Return the name of the copy of a tensor; names of buffers contain no dots."""
    return "of:" + name.replace(".", ":")


def averaged_names(module: Any) -> tuple[str, ...]:
    """Return the names of the tensors that are averaged: those that training steps change.

    These are the trained weights, and the buffers of floating-point numbers that follow them:
    those that the module names, and the running moments of normalisation.
    """
    trained = [name for name, p in module.named_parameters() if p.requires_grad]
    saved, followed = module.state_dict().keys(), module.followed()
    buffers = [
        name
        for name, values in module.named_buffers()
        if values.is_floating_point() and name in saved
        if name in followed or name.rpartition(".")[2] in _MOMENTS
    ]
    return (*trained, *buffers)


class WeightAverage(nn.Module):
    """The other copies of the tensors of a module: the latest ones, or their average.

    Before the first step there is no average, and the module keeps its weights.

    Parameters
    ----------
    module : TrainableModule
        The module.
    names : tuple of str
        Names of the tensors that are averaged.
    """

    n_steps: Tensor
    is_in_place: Tensor  # whether the module has the average, and this object the latest tensors

    def __init__(self, module: Any, names: tuple[str, ...]) -> None:
        super().__init__()
        self.names = names
        device = next((p.device for p in module.parameters()), None)
        self.register_buffer("n_steps", torch.tensor(0, device=device))
        self.register_buffer("is_in_place", torch.tensor(False, device=device))
        for name in names:
            self.register_buffer(copy_of(name), tensor_of(module, name).detach().clone())

    def pairs(self, module: Any) -> tuple[list[Tensor], list[Tensor]]:
        """Return the tensors in the module, and their other copies."""
        own = [tensor_of(module, name) for name in self.names]
        return own, [getattr(self, copy_of(name)) for name in self.names]

    @torch.no_grad()
    def exchange(self, module: Any, *, averaged: bool) -> None:
        """Put the average or the latest tensors in place, if they are not."""
        if bool(self.is_in_place) == averaged or not int(self.n_steps):
            return
        for here, other in zip(*self.pairs(module), strict=True):
            before = here.clone()
            here.copy_(other)
            other.copy_(before)
        self.is_in_place.fill_(averaged)


class Averaging:
    """Averages the weights of a module, with the latest in place, over the steps of an epoch.

    The number of steps is read from the device once.
    """

    def __init__(self, module: Any, decay: float) -> None:
        self.average, self.decay = module.average, decay
        self._latest, self._averages = module.average.pairs(module)
        self._n_steps = int(module.average.n_steps)

    @torch.no_grad()
    def step(self) -> None:
        """Move the average towards the weights after a step."""
        share = kept_share(self._n_steps, self.decay)
        if self._latest:  # your own network may be frozen
            torch._foreach_lerp_(self._averages, self._latest, 1 - share)
        self._n_steps += 1
        self.average.n_steps += 1


def begin_averaging(module: Any, decay: float) -> Averaging | None:
    """Put the latest weights in place for an epoch; return None if they are not averaged."""
    if module.average is None:
        return None
    show_latest(module)
    return Averaging(module, decay)


def show_latest(module: Any) -> None:
    """Put the latest weights in place, if there is an average."""
    if module.average is not None:
        module.average.exchange(module, averaged=False)


def show_average(module: Any) -> None:
    """Put the average in place, if there is one."""
    if module.average is not None:
        module.average.exchange(module, averaged=True)


def set_averaging(module: Any, wanted: bool) -> None:
    """Begin an average, or end it: the module then has its latest weights."""
    if wanted and module.average is None:
        module.average = WeightAverage(module, averaged_names(module))
    elif not wanted:
        show_latest(module)
        module.average = None


def begin_as_saved(module: Any, weights: Mapping[str, Tensor]) -> None:
    """Give a module the average that saved weights have, if any, before they are loaded."""
    if any(name.startswith(OF_AVERAGE) for name in weights):
        names = [n for n in module.state_dict() if OF_AVERAGE + copy_of(n) in weights]
        module.average = WeightAverage(module, tuple(names))
