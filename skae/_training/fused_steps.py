"""Steps of Adam without the Python that torch's optimiser spends on every parameter.

They are taken by torch's own functional Adam, on lists that are collected once, where
`Optimizer.step` collects them in every step: in a small network that costs as much as the
arithmetic.
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
# What the functions take from groups of parameters, by their names; and besides.
_BY_NAME = ("lr", "weight_decay", "eps", "amsgrad", "maximize")
_SETTINGS = (*_BY_NAME, "betas")


class FusedSteps:
    """Takes the steps of an optimiser; those of another than a fused Adam are its own.

    So are the first, which makes the states, and those without some gradient, or that a hook or
    a schedule of torch's listens to. States and settings are those of the optimiser at each
    step, whoever changes or replaces them in between.

    Parameters
    ----------
    optimizer : Optimizer
        The optimiser.
    """

    def __init__(self, optimizer: torch.optim.Optimizer) -> None:
        self.optimizer = optimizer
        self._parts: list[_Part] = []
        self._collect_parameters()

    def zero_grad(self) -> None:
        """Forget the gradients."""
        if len(self.optimizer.param_groups) != self._n_groups:  # a callback may have added some
            self._collect_parameters()
        for p in self._params:
            p.grad = None

    def step(self) -> None:
        """One step by the gradients."""
        states = self.optimizer.state
        has_states = len(states) == len(self._params)
        lacks_some = any(p.grad is None for p in self._params)  # as of those that are frozen
        if self._function is None or not has_states or lacks_some or self._is_watched():
            self.optimizer.step()
            return
        if not self._parts or not all(part.is_current(states) for part in self._parts):
            self._parts = _parts_of(self.optimizer)
        with torch.no_grad():
            for part in self._parts:
                part.step(self._function)

    def _collect_parameters(self) -> None:
        groups = self.optimizer.param_groups
        self._n_groups = len(groups)
        self._params = [p for group in groups for p in group["params"]]
        self._parts = []
        function = _FUNCTIONS.get(type(self.optimizer))
        self._function = function if all(group.get("fused") for group in groups) else None

    def _is_watched(self) -> bool:
        """Whether someone hears of the optimiser's own `step`: a hook, or a schedule of torch's."""
        hooks = self.optimizer._optimizer_step_pre_hooks, self.optimizer._optimizer_step_post_hooks
        return "step" in vars(self.optimizer) or any(hooks)


class _Part:
    """Parameters of the same settings, and their states."""

    def __init__(self, groups: list[dict[str, Any]], states: Any) -> None:
        self.groups = groups
        self.params: list[nn.Parameter] = [p for group in groups for p in group["params"]]
        self.first_state = states[self.params[0]]
        self.means, self.squares, self.steps = (
            [states[p][name] for p in self.params] for name in ("exp_avg", "exp_avg_sq", "step")
        )

    def is_current(self, states: Any) -> bool:
        """Whether these are still the states that were collected, and the settings still alike."""
        return states.get(self.params[0]) is self.first_state and _are_alike(self.groups)

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
            [],  # of a variant that no solver is
            self.steps,
            fused=True,
            beta1=beta1,
            beta2=beta2,
            **{name: group[name] for name in _BY_NAME},
        )


def _are_alike(groups: list[dict[str, Any]]) -> bool:
    """Whether groups of parameters have the same settings."""
    first, *others = groups
    return all(first[name] == other[name] for other in others for name in _SETTINGS)


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
