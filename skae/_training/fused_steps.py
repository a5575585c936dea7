"""Steps of Adam without the Python that torch's optimiser spends on every parameter.

They are taken by torch's own functional Adam, on lists that are collected once, where
`Optimizer.step` collects them in every step: in a small network that costs as much as the
arithmetic.
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
# What the functions take from groups of parameters, by their names; and besides.
_BY_NAME = ("lr", "weight_decay", "eps", "amsgrad", "maximize")
_SETTINGS = (*_BY_NAME, "betas")
# Where torch keeps the hooks of all optimisers.
_OF_ALL = ("_global_optimizer_pre_hooks", "_global_optimizer_post_hooks")


class FusedSteps:
    """Takes the steps of an optimiser; those of another than a fused Adam are its own.

    So are the first, which makes the states, and those that a hook or a schedule of torch's
    listens to. Settings are those of the optimiser at each step, whoever changes them in
    between, and so are the states of its parameters, if they are replaced as a whole.

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
        """Forget the gradients."""
        for group in self.optimizer.param_groups:
            for p in group["params"]:
                p.grad = None

    def step(self) -> None:
        """One step by the gradients."""
        if self._function is None or self._is_watched() or not self._collect():
            self.optimizer.step()
            return
        with torch.no_grad():
            for part in self._parts:
                part.step(self._function)

    def _collect(self) -> bool:
        """Collect parameters and states anew if they are others; whether they are complete."""
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
        """Whether someone hears of the optimiser's own `step`: a hook, or a schedule of torch's."""
        optimizer = self.optimizer
        hooks = optimizer._optimizer_step_pre_hooks, optimizer._optimizer_step_post_hooks
        of_all = (getattr(torch_optimizer, name, None) for name in _OF_ALL)
        return "step" in vars(optimizer) or any(hooks) or any(of_all)


class StepsOf(dict[torch.optim.Optimizer, FusedSteps]):
    """What takes the steps of optimisers: made when one is first asked for."""

    def __missing__(self, optimizer: torch.optim.Optimizer) -> FusedSteps:
        self[optimizer] = FusedSteps(optimizer)
        return self[optimizer]


class _Part:
    """Parameters with gradients, of groups of the same settings, and their states."""

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
        """Whether these are still the states that were collected, and the settings still alike."""
        return states.get(self.params[0]) is self.states[0] and _are_alike(self.groups)

    def step(self, function: Any) -> None:
        """One step."""
        group = self.groups[0]
        beta1, beta2 = group["betas"]
        grads: list[Tensor] = [p.grad for p in self.params]  # type: ignore[misc]
        function(
            self.params,
            grads,
            self.means,
            self.squares,
            [],  # of amsgrad
            self.steps,
            fused=True,
            beta1=beta1,
            beta2=beta2,
            **{name: group[name] for name in _BY_NAME},
        )


def _are_alike(groups: list[dict[str, Any]]) -> bool:
    """Whether groups of parameters have the same settings, those that every step is taken by."""
    first, *others = groups
    same = all(first[name] == other[name] for other in others for name in _SETTINGS)
    return same and not first["amsgrad"]


def _alike(groups: list[dict[str, Any]]) -> list[list[dict[str, Any]]]:
    """Groups of parameters, those with the same settings together."""
    found: list[list[dict[str, Any]]] = []
    for group in groups:
        for alike in found:
            if _are_alike([*alike, group]):
                alike.append(group)
                break
        else:
            found.append([group])
    return found
