"""Copies of the training state, to restore after an interruption or a divergence."""

from copy import deepcopy
from math import inf
from typing import Any, NamedTuple

import torch
from torch import Tensor, nn


class _State(NamedTuple):
    """A copy of the training state after an epoch."""

    epoch: int
    live: list[Tensor]  # the tensors of the module and its optimisers
    copies: list[Tensor]
    anew: list[dict[str, Any]]  # of optimisers that create new tensors in every step


class Snapshot:
    """Copies of the tensors of a module and of its optimisers after the last two epochs.

    A copy replaces an older one only when it is complete. If `take` is interrupted, the earlier
    copies are unchanged.
    """

    def __init__(self, module: nn.Module, optimizers: list[torch.optim.Optimizer]) -> None:
        self.module, self.optimizers = module, optimizers
        self._states: tuple[_State, ...] = ()  # the newest first
        self._live: tuple[int, list[Tensor]] = (-1, [])  # with the number of states

    @property
    def epoch(self) -> int:
        """The epoch after which the newest copy was made; -1 if there is none."""
        return self._states[0].epoch if self._states else -1

    def take(self, epoch: int) -> None:
        """Copy the present state, which is the one after this epoch."""
        live = self._tensors()
        spare = self._states[-1] if len(self._states) == 2 else None
        if spare is not None and len(spare.live) == len(live):  # whose memory can be used again
            self._states = self._states[:1]
            copies = spare.copies
            for copied, tensor in zip(copies, live, strict=True):
                copied.copy_(tensor)
        else:
            copies = [tensor.clone() for tensor in live]
        anew = [deepcopy(optimizer.state_dict()) for optimizer in self._newton_like()]
        self._states = (_State(epoch, live, copies, anew), *self._states[:1])

    def go_back(self, before: float = inf) -> int | None:
        """Restore the newest copy from before this epoch; return its epoch, or None."""
        for state in self._states:
            if state.epoch < before:
                for optimizer, old in zip(self._newton_like(), state.anew, strict=True):
                    optimizer.load_state_dict(old)
                for copied, tensor in zip(state.copies, state.live, strict=True):
                    tensor.copy_(copied)
                return state.epoch
        return None

    def state_dict(self) -> dict[str, Any]:
        """Return the copies, the newest first."""
        return {"states": [(state.epoch, state.copies, state.anew) for state in self._states]}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Set the copies, which belong to the present tensors."""
        live = self._tensors()
        self._states = tuple(_State(n, live, copies, anew) for n, copies, anew in state["states"])

    def _tensors(self) -> list[Tensor]:
        """Return the tensors that training changes; collect them again after the first step."""
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
