"""Steps of Adam without the overhead that torch's optimiser has for every parameter.

The steps use torch's functional Adam on lists that are collected once. `Optimizer.step` collects
them in every step, which takes as long as the arithmetic if the network is small.
"""

from typing import Any

import torch
from torch import Tensor, nn
from torch.optim import optimizer as torch_optimizer
from torch.optim.adam import adam
from torch.optim.adamw import adamw

_FUNCTIONS: dict[type[torch.optim.Optimizer], Any] = {
    torch.optim.Adam: adam,
    torch.optim.AdamW: adamw,
}
# Arguments of the function that are set by group of parameters, and the other arguments.
_BY_NAME = ("lr", "weight_decay", "eps", "amsgrad", "maximize")
_SETTINGS = (*_BY_NAME, "betas")
# Names under which torch stores the hooks of all optimisers.
_OF_ALL = ("_global_optimizer_pre_hooks", "_global_optimizer_post_hooks")


class FusedSteps:
    """Takes the steps of an optimiser, faster than its own `step` if it is a fused Adam.

    The optimiser's own `step` is used for other optimisers, for the first step, which creates the
    states, and if a hook or one of torch's schedules is registered. Each step uses the present
    settings of the optimiser, so that they may be changed at any time. Its states may be replaced
    as a whole, too.

    Parameters
    ----------
    optimizer : Optimizer
        The optimiser.
    """

    def __init__(self, optimizer: torch.optim.Optimizer) -> None:
        self.optimizer = optimizer
        self._function = _FUNCTIONS.get(type(optimizer))
        self._trained: list[int] = []
        self._parts: list[_Part] = []

    def zero_grad(self) -> None:
        """Set all gradients to None."""
        for group in self.optimizer.param_groups:
            for p in group["params"]:
                p.grad = None

    def step(self) -> None:
        """Take one step along the gradients."""
        if self._function is None or self._is_watched() or not self._collect():
            self.optimizer.step()
            return
        with torch.no_grad():
            for part in self._parts:
                part.step(self._function)

    def _collect(self) -> bool:
        """Collect parameters and states if they have changed; return whether they are complete."""
        groups, states = self.optimizer.param_groups, self.optimizer.state
        trained = [id(p) for group in groups for p in group["params"] if p.grad is not None]
        same = trained == self._trained and bool(self._parts)
        if same and all(part.is_current(states) for part in self._parts):
            return True
        parts = [_Part(alike, states) for alike in _alike(groups)]
        usual = all(group.get("fused") and not group["amsgrad"] for group in groups)
        self._trained, self._parts = trained, []
        if usual and all(part.has_states for part in parts):
            self._parts = [part for part in parts if part.params]
        return bool(self._parts)

    def _is_watched(self) -> bool:
        """Return whether a hook or a schedule of torch needs calls of the optimiser's `step`."""
        optimizer = self.optimizer
        hooks = optimizer._optimizer_step_pre_hooks, optimizer._optimizer_step_post_hooks
        of_all = (getattr(torch_optimizer, name, None) for name in _OF_ALL)
        return "step" in vars(optimizer) or any(hooks) or any(of_all)


class StepsOf(dict[torch.optim.Optimizer, FusedSteps]):
    """Mapping from optimisers to their `FusedSteps`, which are created on first use."""

    def __missing__(self, optimizer: torch.optim.Optimizer) -> FusedSteps:
        self[optimizer] = FusedSteps(optimizer)
        return self[optimizer]


class _Part:
    """Parameters with gradients from groups with equal settings, and their states."""

    def __init__(self, groups: list[dict[str, Any]], states: Any) -> None:
        self.groups = groups
        self.params: list[nn.Parameter] = [
            p for group in groups for p in group["params"] if p.grad is not None
        ]
        self.states = [states.get(p) for p in self.params]
        self.has_states = all(self.states)
        if self.has_states:
            self.means, self.squares, self.steps = (
                [state[name] for state in self.states] for name in ("exp_avg", "exp_avg_sq", "step")
            )

    def is_current(self, states: Any) -> bool:
        """Return whether states and settings are still the ones that were collected."""
        return states.get(self.params[0]) is self.states[0] and _are_alike(self.groups)

    def step(self, function: Any) -> None:
        """Take one step."""
        group = self.groups[0]
        beta1, beta2 = group["betas"]
        grads: list[Tensor] = [p.grad for p in self.params]  # type: ignore[misc]
        function(
            self.params,
            grads,
            self.means,
            self.squares,
            [],  # max_exp_avg_sqs, which only amsgrad uses
            self.steps,
            fused=True,
            beta1=beta1,
            beta2=beta2,
            **{name: group[name] for name in _BY_NAME},
        )


def _are_alike(groups: list[dict[str, Any]]) -> bool:
    """Return whether groups of parameters have equal settings."""
    first, *others = groups
    same = all(first[name] == other[name] for other in others for name in _SETTINGS)
    return same and not first["amsgrad"]


def _alike(groups: list[dict[str, Any]]) -> list[list[dict[str, Any]]]:
    """Collect groups of parameters with equal settings."""
    found: list[list[dict[str, Any]]] = []
    for group in groups:
        for alike in found:
            if _are_alike([*alike, group]):
                alike.append(group)
                break
        else:
            found.append([group])
    return found
