"""Copies of what training changes, to go back to: after an interrupt, or where it diverged."""

from copy import deepcopy
from math import inf
from typing import Any, NamedTuple

import torch
from torch import Tensor, nn


class _State(NamedTuple):
    """A copy of what training changes, after an epoch."""

    epoch: int
    live: list[Tensor]  # the tensors of the module and its optimisers
    copies: list[Tensor]
    anew: list[dict[str, Any]]  # of optimisers that make their tensors anew in every step


class Snapshot:
    """Copies of a module's and its optimisers' tensors after the last two epochs, to go back to.

    A copy counts from the moment that it is complete: whatever interrupts `take`, those taken
    before are whole.
    """

    def __init__(self, module: nn.Module, optimizers: list[torch.optim.Optimizer]) -> None:
        self.module, self.optimizers = module, optimizers
        self._states: tuple[_State, ...] = ()  # the newest first
        self._live: tuple[int, list[Tensor]] = (-1, [])  # and of how many states

    @property
    def epoch(self) -> int:
        """After which epoch the newest copy was taken; -1 if there is none."""
        return self._states[0].epoch if self._states else -1

    def take(self, epoch: int) -> None:
        """Copy the present state, the one after this epoch."""
        live = self._tensors()
        spare = self._states[-1] if len(self._states) == 2 else None
        if spare is not None and len(spare.live) == len(live):  # memory that can be used again
            self._states = self._states[:1]
            copies = spare.copies
            for copied, tensor in zip(copies, live, strict=True):
                copied.copy_(tensor)
        else:
            copies = [tensor.clone() for tensor in live]
        anew = [deepcopy(optimizer.state_dict()) for optimizer in self._newton_like()]
        self._states = (_State(epoch, live, copies, anew), *self._states[:1])

    def go_back(self, before: float = inf) -> int | None:
        """Go back to the newest state of an epoch before this one; its epoch, if there is one."""
        for state in self._states:
            if state.epoch < before:
                for optimizer, old in zip(self._newton_like(), state.anew, strict=True):
                    optimizer.load_state_dict(old)
                for copied, tensor in zip(state.copies, state.live, strict=True):
                    tensor.copy_(copied)
                return state.epoch
        return None

    def _tensors(self) -> list[Tensor]:
        """All that changes; looked for anew where the first step has made states."""
        n_states = sum(len(optimizer.state) for optimizer in self.optimizers)
        if self._live[0] != n_states:
            self._live = (n_states, self._tensors_anew())
        return self._live[1]

    def _tensors_anew(self) -> list[Tensor]:
        states = [
            value
            for optimizer in self.optimizers
            if not isinstance(optimizer, torch.optim.LBFGS)
            for state in optimizer.state.values()
            for value in state.values()
        ]
        of_optimizers = [value for value in states if isinstance(value, Tensor)]
        return [*self.module.state_dict().values(), *of_optimizers]

    def _newton_like(self) -> list[torch.optim.Optimizer]:
        return [o for o in self.optimizers if isinstance(o, torch.optim.LBFGS)]
