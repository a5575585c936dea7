"""The state of a net: copied from another net, or stored as plain containers and restored.

The draws of an epoch depend only on the seed and on the number of the epoch (see
`Net.seed_epoch`). An epoch that begins with the same state therefore ends with the same state.
"""

from collections.abc import Iterator, Mapping
from copy import deepcopy
from typing import Any

import torch
from skorch.history import History
from torch import Tensor, nn

from skae._training.array_files import is_storable
from skae._training.at_rest import defect_of
from skae._training.optimizers import copy_in_place, set_back
from skae._training.snapshot import Snapshot

# Types of module attributes that are part of the state, because callbacks may change them.
_PLAIN = (bool, int, float, str, type(None))
# Attributes that every torch module has, whose content is stored as weights and buffers.
_OF_MODULES = {*vars(nn.Module())} - {"training"}
# Name of the states of generators among the attributes of a module.
_GENERATORS = "generators of torch"

# Names of attributes of callbacks, by the name of the callback.
Parts = dict[str, set[str]]


def take_over(net: Any, source: Any) -> None:
    """Copy history, states and weights in place from a net that this one was copied from."""
    with torch.no_grad():
        for mine, theirs in zip(_tensors(net.module_), _tensors(source.module_), strict=True):
            mine.copy_(theirs)
    for part, other in zip(net.module_.modules(), source.module_.modules(), strict=True):
        vars(part).update(_plain(other))
    copy_in_place(source.optimizers_, net.optimizers_)
    set_back(net.optimizers_, net.settings_)
    # This history is the beginning of the other one; slices of skorch's history are not lists.
    net.history_.extend(list.__getitem__(source.history_, slice(len(net.history_), None)))


def go_on_from(net: Any, source: Any) -> None:
    """Copy the history of a net, and the states of its optimisers if the solver is the same.

    The settings of the optimisers stay those of the first net.
    """
    states = None
    if source.solver == net.solver:
        states = deepcopy([optimizer.state_dict() for optimizer in source.optimizers_])
    resume(net, states, deepcopy(source.history_.to_list()))
    set_back(net.optimizers_, net.settings_)


def resume(
    net: Any, optimizers: list[dict[str, Any]] | None, history: list[dict[str, Any]]
) -> None:
    """Set the states of the optimisers of a net, and its history."""
    if optimizers is not None:
        for optimizer, state in zip(net.optimizers_, optimizers, strict=True):
            optimizer.load_state_dict(state)
    net.history_ = History(history)


def parts_of_callbacks(net: Any) -> Parts:
    """Return the names of attributes of the callbacks of a net that have a state of their own."""
    return {
        name: {n for n, value in vars(callback).items() if _has_state(value)}
        for name, callback in net.callbacks_
    }


def checkpoint_of(net: Any, has_weights: bool = True, parts: Parts | None = None) -> dict[str, Any]:
    """Return the state of a net during training, after a complete epoch.

    `parts` are those of the callbacks at the beginning of training, whose states can be restored.
    """
    states = {}
    for name, callback in net.callbacks_:
        states[name] = _state_of(callback)
        new = states[name].get("objects", {}).keys() - (parts or {}).get(name, set())
        if new:
            raise TypeError(
                f"The attribute {min(new)!r} of the callback {name!r} did not exist when training "
                "began. Make it in on_train_begin, or give the callback the methods state_dict "
                "and load_state_dict."
            )
    state = {
        "history": net.history_.to_list(),
        "best": dict(net.best_),
        "callbacks": states,
        "weights": None,
    }
    if has_weights:
        of = _attributes if net.foreign_modules else _plain
        state |= {
            "weights": dict(net.module_.state_dict()),
            "unsaved": dict(_unsaved_buffers(net.module_)),
            "trained": [p.requires_grad for p in net.module_.parameters()],
            "plain": {name: of(part) for name, part in net.module_.named_modules()},
            "optimizers": [optimizer.state_dict() for optimizer in net.optimizers_],
            "n_steps": None if net.schedule_ is None else net.schedule_.n_steps,
        }
    return state


def restore(net: Any, state: dict[str, Any]) -> None:
    """Give a net, which is prepared for training, the state of a checkpoint."""
    has_weights = state["weights"] is not None
    if has_weights:
        net.module_.load_state_dict(state["weights"])
        own = dict(_unsaved_buffers(net.module_))
        if own.keys() != state["unsaved"].keys():
            raise ValueError("the buffers of the network are others")
        for name, values in state["unsaved"].items():
            own[name].copy_(values)
        for p, is_trained in zip(net.module_.parameters(), state["trained"], strict=True):
            p.requires_grad_(is_trained)
        for name, attributes in state["plain"].items():
            part = net.module_.get_submodule(name)
            for generator, saved in attributes.pop(_GENERATORS, {}).items():
                getattr(part, generator).set_state(saved)
            vars(part).update(attributes)
        if net.schedule_ is not None:
            net.schedule_.go_to(state["n_steps"])
    resume(net, state["optimizers"] if has_weights else None, state["history"])
    net.best_ = state["best"]
    for name, callback in net.callbacks_:
        _restore(callback, state["callbacks"][name])
    net.snapshot_ = Snapshot(net.module_, net.optimizers_)
    if net.takes_snapshots_:
        net.snapshot_.take(len(net.history_))


def is_usable(net: Any) -> bool:
    """Return whether training can go on from the present state of a net."""
    return defect_of(net) is None


def _tensors(module: nn.Module) -> list[Tensor]:
    """Return all parameters, and all buffers, whether saved or not."""
    return [*module.parameters(), *module.buffers()]


def _plain(module: nn.Module) -> dict[str, Any]:
    return {name: value for name, value in vars(module).items() if isinstance(value, _PLAIN)}


def _attributes(module: nn.Module) -> dict[str, Any]:
    """Return all attributes of a module of the user that can be stored."""
    own = {name: value for name, value in vars(module).items() if name not in _OF_MODULES}
    generators = {n: v.get_state() for n, v in own.items() if isinstance(v, torch.Generator)}
    return {
        **_plain(module),
        **{name: value for name, value in own.items() if is_storable(value)},
        _GENERATORS: generators,
    }


def _unsaved_buffers(module: nn.Module) -> Iterator[tuple[str, Tensor]]:
    """Yield the buffers that are not part of the state of a module."""
    saved = module.state_dict(keep_vars=True).keys()
    for name, values in module.named_buffers():
        if name not in saved:
            yield name, values


def _state_of(callback: Any) -> dict[str, Any]:
    """Return the state of a callback: its own `state_dict`, or else its attributes.

    Attributes that are neither plain values nor arrays nor objects with a `state_dict` are left
    out; they begin anew.
    """
    if _has_state(callback):
        return {"own": callback.state_dict()}
    if _is_ours(callback):
        return {}
    plain, objects = {}, {}
    for name, value in vars(callback).items():
        if _has_state(value):
            objects[name] = value.state_dict()
        elif is_storable(value):
            plain[name] = value
    return {"plain": plain, "objects": objects}


def _restore(callback: Any, state: Mapping[str, Any]) -> None:
    if "own" in state:
        callback.load_state_dict(state["own"])
    for name, value in state.get("objects", {}).items():
        getattr(callback, name).load_state_dict(value)
    for name, value in state.get("plain", {}).items():
        now = vars(callback).get(name)
        if isinstance(now, list) and isinstance(value, list):
            now[:] = value  # the user may hold this list
        elif isinstance(now, dict) and isinstance(value, dict):
            now.clear()
            now.update(value)
        else:
            setattr(callback, name, value)


def _has_state(value: Any) -> bool:
    methods = ("state_dict", "load_state_dict")
    return not isinstance(value, type) and all(hasattr(value, name) for name in methods)


def _is_ours(callback: Any) -> bool:
    return type(callback).__module__.startswith("skae.")
