"""Optimisers and schedules for the parameters `solver` and `learning_rate`."""

from collections.abc import Callable, Iterable
from copy import deepcopy
from math import cos, pi, sqrt
from typing import Any

import torch
from torch import Tensor, nn

from skae._training.module import TrainableModule
from skae._training.muon import Muon

OPTIMIZERS = ("adam", "adamw", "sgd", "lbfgs", "muon")
SCHEDULES = ("constant", "cosine", "invscaling", "adaptive")

# Number of steps of L-BFGS in an epoch.
_LBFGS_STEPS = 20
# Factor of the learning rate for orthogonalised matrices, in comparison with Adam. It was measured
# for causal networks, whose losses were higher with 2 and with 12.
_MATRIX_RATE = 5.0
# Fraction of a cosine schedule in which the learning rate rises.
_WARM_UP = 0.1


class MuonAndAdamW(torch.optim.Optimizer):
    """Muon (Jordan et al. 2024) for matrices between hidden layers, AdamW for all other weights.

    Schedulers and saved files see these two optimisers as one.
    """

    def __init__(
        self,
        matrices: list[nn.Parameter],
        groups: list[dict[str, Any]],
        *,
        lr: float,
        alpha: float,
        fused: bool = True,
    ) -> None:
        others = [p for group in groups for p in group["params"]]
        self.parts: list[torch.optim.Optimizer] = []
        if others:
            self.parts.append(torch.optim.AdamW(groups, lr=lr, fused=fused))
        if matrices:
            self.parts.append(Muon(matrices, lr=lr, weight_decay=alpha))
        super().__init__([{"params": [p]} for p in [*others, *matrices]], {"lr": lr})
        # These are the parts' own groups, so that a new learning rate reaches the parts.
        self.param_groups = [group for part in self.parts for group in part.param_groups]

    @property
    def state(self) -> Any:
        return {p: state for part in self.parts for p, state in part.state.items()}

    @state.setter
    def state(self, value: Any) -> None:
        """The setter has no effect, because the parts keep their own states."""

    def step(self, closure: Any = None) -> Any:
        """Take a step of each part."""
        loss = None
        if closure is not None:
            with torch.enable_grad():
                loss = closure()
        for part in self.parts:
            rates = [group["lr"] for group in part.param_groups]
            if isinstance(part, Muon):
                for group in part.param_groups:
                    group["lr"] *= _MATRIX_RATE
            part.step()
            for group, rate in zip(part.param_groups, rates, strict=True):
                group["lr"] = rate
        return loss

    def state_dict(self) -> dict[str, Any]:
        return {"parts": [part.state_dict() for part in self.parts]}

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        for part, state in zip(self.parts, state_dict["parts"], strict=True):
            part.load_state_dict(state)
        self.param_groups = [group for part in self.parts for group in part.param_groups]


def make_optimizer(
    solver: str,
    module: TrainableModule,
    parameters: Iterable[nn.Parameter],
    *,
    lr: float,
    alpha: float,
    momentum: float,
) -> torch.optim.Optimizer:
    """Return the optimiser of a solver; `alpha` penalises weights, but not biases and scales."""
    params = [p for p in parameters if p.requires_grad]
    params = params or [nn.Parameter(torch.empty(0))]  # your own network is frozen
    decayed = {id(p) for p in module.decayed()}
    groups: list[dict[str, Any]] = [
        {"params": [p for p in params if id(p) in decayed], "weight_decay": alpha},
        {"params": [p for p in params if id(p) not in decayed], "weight_decay": 0.0},
    ]
    groups = [group for group in groups if group["params"]]
    fused = all(p.is_floating_point() and p.device.type in ("cpu", "cuda") for p in params)
    match solver:
        case "adam":
            return torch.optim.Adam(groups, lr=lr, fused=fused)
        case "adamw":
            return torch.optim.AdamW(groups, lr=lr, fused=fused)
        case "muon":
            matrices = {id(p) for p in module.matrices()}
            hidden = [p for p in params if id(p) in matrices]
            for group in groups:
                group["params"] = [p for p in group["params"] if id(p) not in matrices]
            return MuonAndAdamW(hidden, groups, lr=lr, alpha=alpha, fused=fused)
        case "sgd":
            return torch.optim.SGD(
                groups, lr=lr, momentum=momentum, nesterov=momentum > 0, fused=fused
            )
    # The penalty of `alpha` is part of the loss here, because L-BFGS has no groups of parameters.
    return torch.optim.LBFGS(params, lr=1.0, max_iter=_LBFGS_STEPS, line_search_fn="strong_wolfe")


def settings_of(optimizers: list[torch.optim.Optimizer]) -> list[dict[str, Any]]:
    """Return rates, decay and momentum of all groups of parameters."""
    return [{k: v for k, v in group.items() if k != "params"} for group in _groups(optimizers)]


def set_back(optimizers: list[torch.optim.Optimizer], settings: list[dict[str, Any]]) -> None:
    """Restore settings of the groups of parameters."""
    for group, own in zip(_groups(optimizers), settings, strict=True):
        group.update(own)


def _groups(optimizers: list[torch.optim.Optimizer]) -> list[dict[str, Any]]:
    return [group for optimizer in optimizers for group in optimizer.param_groups]


def copy_in_place(
    sources: list[torch.optim.Optimizer], targets: list[torch.optim.Optimizer]
) -> None:
    """Copy states and settings, into the existing memory where the shapes agree."""
    for source, target in zip(sources, targets, strict=True):
        if not _copy_states(source, target):
            target.load_state_dict(deepcopy(source.state_dict()))
    set_back(targets, settings_of(sources))


def _copy_states(source: torch.optim.Optimizer, target: torch.optim.Optimizer) -> bool:
    """Copy states in place; return False if they differ in structure, as before the first step."""
    if isinstance(source, torch.optim.LBFGS):
        return False
    from_, to = (
        [o.state.get(p, {}) for group in o.param_groups for p in group["params"]]
        for o in (source, target)
    )
    if [state.keys() for state in from_] != [state.keys() for state in to]:
        return False
    for old, new in zip(from_, to, strict=True):
        for name, value in old.items():
            if isinstance(value, Tensor) and isinstance(new[name], Tensor):
                new[name].copy_(value)
            else:
                new[name] = value
    return True


class Schedule:
    """A learning rate that changes with every step, by a factor that depends on the step.

    torch's LambdaLR replaces the optimiser's `step` in order to count steps. `FusedSteps` would
    have to call this method, and would then not be faster.
    """

    def __init__(
        self, optimizer: torch.optim.Optimizer, lr: float, factor: Callable[[int], float]
    ) -> None:
        self.optimizer, self.lr, self.factor = optimizer, lr, factor
        self.n_steps = 0
        self._set()

    def step(self) -> None:
        """Count a step, and set the learning rate of the next one."""
        self.n_steps += 1
        self._set()

    def go_to(self, n_steps: int) -> None:
        """Set the learning rate that follows this number of steps."""
        self.n_steps = n_steps
        self._set()

    def _set(self) -> None:
        rate = self.lr * self.factor(self.n_steps)
        for group in self.optimizer.param_groups:
            group["lr"] = rate


def make_schedule(
    kind: str, optimizer: torch.optim.Optimizer, lr: float, *, epochs: int, steps: int
) -> Schedule | None:
    """Return a schedule that changes the rate with every batch; `steps` is their number per epoch.

    Returns None for "constant", and for "adaptive", which is a callback because it depends on the
    loss.
    """
    total = epochs * steps
    newton_like = isinstance(optimizer, torch.optim.LBFGS)
    if kind not in ("cosine", "invscaling") or newton_like or not total:
        return None

    def cosine(step: int) -> float:
        progress = min(step / total, 1.0)
        if progress < _WARM_UP:
            return (step + 1) / (_WARM_UP * total + 1)
        return 0.5 * (1 + cos(pi * (progress - _WARM_UP) / (1 - _WARM_UP)))

    def invscaling(step: int) -> float:
        return 1 / sqrt(1 + step / steps)

    return Schedule(optimizer, lr, cosine if kind == "cosine" else invscaling)
