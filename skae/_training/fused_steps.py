"""Steps of Adam without the Python that torch's optimiser spends on every parameter.

It is torch's own functional Adam on lists that are collected once, where `Optimizer.step` collects
them in every step: on small networks that costs more than the arithmetic.
"""

from typing import Any

import torch
from torch import Tensor, nn
from torch.optim.adam import adam
from torch.optim.adamw import adamw

_FUNCTIONS: dict[type[torch.optim.Optimizer], Any] = {
    torch.optim.Adam: adam,
    torch.optim.AdamW: adamw,
}
# What the functions take from groups of parameters, by their names.
_SETTINGS = ("lr", "weight_decay", "eps", "amsgrad", "maximize")


class FusedSteps:
    """Takes the steps of an optimiser; of another than a fused Adam by its own `step`.

    Parameters
    ----------
    optimizer : Optimizer
        Its states and settings are those that count, whoever changes them between steps.
    """

    def __init__(self, optimizer: torch.optim.Optimizer) -> None:
        self.optimizer = optimizer
        function = _FUNCTIONS.get(type(optimizer))
        fused = all(group.get("fused") for group in optimizer.param_groups)
        self._function = function if fused else None
        self._params = [p for group in optimizer.param_groups for p in group["params"]]
        self._n_groups = len(optimizer.param_groups)
        self._parts: list[_Part] = []

    def zero_grad(self) -> None:
        """Forget the gradients."""
        if len(self.optimizer.param_groups) != self._n_groups:  # a callback may add some
            self.__init__(self.optimizer)  # type: ignore[misc]
        for p in self._params:
            p.grad = None

    def step(self) -> None:
        """One step by the gradients."""
        lacking = any(p.grad is None for p in self._params)  # as of those that are frozen
        if self._function is None or lacking or self._is_watched():
            self.optimizer.step()
            return
        states = self.optimizer.state
        if not self._parts or not all(part.is_current(states) for part in self._parts):
            if len(states) < len(self._params):  # the first step makes the states
                self.optimizer.step()
                return
            self._parts = _parts_of(self.optimizer)
        with torch.no_grad():
            for part in self._parts:
                part.step(self._function)

    def _is_watched(self) -> bool:
        """Whether someone hears of the optimiser's own `step`: a hook, or a schedule of torch's."""
        hooks = self.optimizer._optimizer_step_pre_hooks, self.optimizer._optimizer_step_post_hooks
        return "step" in vars(self.optimizer) or any(hooks)


class _Part:
    """Parameters of the same settings, and their states."""

    def __init__(self, groups: list[dict[str, Any]], states: Any) -> None:
        self.groups = groups
        self.params: list[nn.Parameter] = [p for group in groups for p in group["params"]]
        self.states = [states[p] for p in self.params]
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
            [],
            self.steps,
            fused=True,
            beta1=beta1,
            beta2=beta2,
            **{name: group[name] for name in _SETTINGS},
        )


def _are_alike(groups: list[dict[str, Any]]) -> bool:
    """Whether groups of parameters have the same settings."""
    first, *others = groups
    return all(first[name] == other[name] for other in others for name in (*_SETTINGS, "betas"))


def _parts_of(optimizer: torch.optim.Optimizer) -> list[_Part]:
    """Groups of parameters, of which those with the same settings are one part."""
    alike: list[list[dict[str, Any]]] = []
    for group in optimizer.param_groups:
        for groups in alike:
            if _are_alike([*groups, group]):
                groups.append(group)
                break
        else:
            alike.append([group])
    return [_Part(groups, optimizer.state) for groups in alike]
