"""Weights and buffers of networks of the same kind, stacked along an additional first axis.

Networks may differ in size along some axes. They are padded to the size of the largest, with zeros
or with the values of `Blocks.fills`.
"""

from collections.abc import Collection, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import fields
from typing import Any

import torch
from torch import Tensor, nn

from skae._training.averaging import OF_AVERAGE, copy_of, kept_share, show_average, tensor_of
from skae._training.module import Blocks, TrainableModule

# An index along each axis, or None if the member uses the whole tensor.
Index = tuple[Tensor, ...] | None
Axes = Mapping[int, tuple[int, ...]]
# Name of the number of steps that are averaged.
_N_STEPS = OF_AVERAGE + "n_steps"


def places(own: tuple[int, ...], largest: tuple[int, ...]) -> Tensor:
    """Return the positions of an axis within the larger axis, block by block."""
    found, start = [], 0
    for size, room in zip(own, largest, strict=True):
        found.append(torch.arange(start, start + size))
        start += room
    return torch.cat(found)


def index_of(shape: torch.Size, own: Axes, largest: Axes) -> Index:
    """Return the index of a tensor of this shape in the larger one, by the blocks of its axes."""
    if own == largest:
        return None
    return tuple(
        places(own[axis], largest[axis]) if axis in own else torch.arange(n)
        for axis, n in enumerate(shape)
    )


def taken(values: Tensor, index: Index) -> Tensor:
    """Return a member's part of a tensor of the largest size."""
    if index is None:
        return values
    return values[torch.meshgrid(*index, indexing="ij")]


def put(values: Tensor, index: Index, own: Tensor) -> None:
    """Write a member's part of a tensor of the largest size."""
    if index is None:
        values.copy_(own)
    else:
        values[torch.meshgrid(*index, indexing="ij")] = own.to(values.dtype)


class StackedTensors:
    """Weights and buffers of modules by name; those of all modules are in one tensor.

    The latest weights are in place. Buffers of an average of the weights are in `averages`.

    Parameters
    ----------
    modules : list of TrainableModule
        The modules, with their latest weights in place.
    template : TrainableModule
        One of the largest modules.
    """

    def __init__(self, modules: list[TrainableModule], template: TrainableModule) -> None:
        blocks = template.all_blocks()
        self.weights: dict[str, Tensor] = {}
        self.buffers: dict[str, Tensor] = {}
        self.averages: dict[str, Tensor] = {}
        self._indices: list[dict[str, Index]] = []
        for module in modules:
            self._indices.append(_indices(module, blocks))
        for name, like in _trained(template).items():
            self.weights[name] = self._padded(name, like, modules, blocks)
        for name, like in _fixed(template).items():
            stacked = self.averages if name.startswith(OF_AVERAGE) else self.buffers
            stacked[name] = self._padded(name, like, modules, blocks)
        average = template.average
        self._averaged = () if average is None else average.names
        self._n_steps = 0 if average is None else int(self.averages[_N_STEPS].max())

    def _padded(
        self, name: str, like: Tensor, modules: list[TrainableModule], blocks: Blocks
    ) -> Tensor:
        shape = (len(modules), *like.shape)
        values = like.new_full(shape, blocks.fills.get(name, 0))
        for i, module in enumerate(modules):
            put(values[i], self._indices[i].get(name), tensor_of(module, name).detach())
        return values

    def all(self) -> dict[str, Tensor]:
        """Return the weights, the buffers and the averages."""
        return {**self.weights, **self.buffers, **self.averages}

    def part(self, name: str, values: Tensor, i: int) -> Tensor:
        """Return a member's part of values (n_members, ...) for a weight or buffer."""
        return taken(values[i], self._indices[i].get(name))

    @torch.no_grad()
    def put_part(self, name: str, values: Tensor, i: int, own: Tensor) -> None:
        """Write a member's part of values (n_members, ...) for a weight or buffer."""
        put(values[i], self._indices[i].get(name), own)

    @torch.no_grad()
    def pull(
        self,
        i: int,
        module: TrainableModule,
        state: dict[Any, Tensor] | None = None,
        names: Collection[str] | None = None,
    ) -> None:
        """Write a member's weights and buffers to its module.

        `names` selects some of them; `state` replaces the present values. A module that gets all of
        them has the average of its weights in place, if there is one.
        """
        state = self.all() if state is None else state
        for name, own in self._own(module, names):
            own.copy_(self.part(name, state[name], i))
        if names is None:
            show_average(module)

    @torch.no_grad()
    def push(self, i: int, module: TrainableModule, names: Collection[str]) -> None:
        """Copy these weights and buffers from a member's module to the stack."""
        for name, own in self._own(module, names):
            put(self.stacked(name)[i], self._indices[i].get(name), own.detach())

    def _own(
        self, module: TrainableModule, names: Collection[str] | None
    ) -> list[tuple[str, Tensor]]:
        known = list(self.all()) if names is None else names
        return [(name, tensor_of(module, name)) for name in known]

    def stacked(self, name: str) -> Tensor:
        """Return the weights or buffers of this name for all members."""
        return self.weights[name] if name in self.weights else self.buffers[name]

    @torch.no_grad()
    def average(self, decays: list[float]) -> None:
        """Move the averages of the weights towards the weights after a step, by members' decays."""
        if not self.averages:
            return
        shares = torch.tensor([1 - kept_share(self._n_steps, decay) for decay in decays])
        for name in self._averaged:
            latest = self.stacked(name)
            share = shares.to(latest).reshape(-1, *[1] * (latest.ndim - 1))
            self.averages[OF_AVERAGE + copy_of(name)].lerp_(latest, share)
        self.averages[_N_STEPS] += 1
        self._n_steps += 1

    @torch.no_grad()
    def push_buffer(self, i: int, name: str, own: Tensor) -> None:
        """Copy a buffer of a member to the stack."""
        put(self.buffers[name][i], self._indices[i].get(name), own)

    def select(self, members: Tensor) -> None:
        """Continue with these members only."""
        for stacked in (self.weights, self.buffers, self.averages):
            for name, values in stacked.items():
                stacked[name] = values.index_select(0, members.to(values.device))
        self._indices = [self._indices[i] for i in members.tolist()]


def _indices(module: TrainableModule, largest: Blocks) -> dict[str, Index]:
    own = module.all_blocks()
    return {
        name: index_of(tensor_of(module, name).shape, own.axes[name], largest.axes[name])
        for name in own.axes
    }


def _trained(module: nn.Module) -> dict[str, Tensor]:
    return {name: p for name, p in module.named_parameters() if p.requires_grad}


def _fixed(module: nn.Module) -> dict[str, Tensor]:
    frozen = {name: p for name, p in module.named_parameters() if not p.requires_grad}
    return {**frozen, **dict(module.named_buffers())}


class Numbers:
    """Plain numbers used by the losses that differ between modules, as tensors.

    Parameters
    ----------
    modules : list of TrainableModule
        The modules.
    template : TrainableModule
        The module that computes the losses of all members.
    """

    def __init__(self, modules: list[TrainableModule], template: TrainableModule) -> None:
        self._template = template
        self.values: dict[str, Tensor] = {}
        own = [_numbers(module) for module in modules]
        device = next(template.parameters()).device
        for name, value in _numbers(template).items():
            of_all = [numbers[name] for numbers in own]
            if any(number != value for number in of_all):
                self.values[name] = torch.tensor(of_all, dtype=torch.float32, device=device)

    @contextmanager
    def set_to(self, numbers: dict[str, Tensor]) -> Iterator[None]:
        """Context in which the template has these numbers."""
        before = []
        architecture = getattr(self._template, "architecture", None)
        for name, number in numbers.items():
            path, _, attribute = name.rpartition(".")
            if path == "architecture":
                continue
            owner = self._template.get_submodule(path)
            before.append((owner, attribute, getattr(owner, attribute)))
            setattr(owner, attribute, number)
        overlaid = {n.partition(".")[2]: v for n, v in numbers.items() if n.startswith(_OF_ARCH)}
        if overlaid:
            self._template.architecture = _Overlaid(architecture, overlaid)
        try:
            yield
        finally:
            if overlaid:
                self._template.architecture = architecture
            for owner, attribute, value in before:
                setattr(owner, attribute, value)

    def select(self, members: Tensor) -> None:
        """Continue with these members only."""
        self.values = {
            name: values.index_select(0, members.to(values.device))
            for name, values in self.values.items()
        }


_OF_ARCH = "architecture."


def _numbers(module: Any) -> dict[str, float]:
    """Return the numbers of a module, of its parts, and those derived from its architecture."""
    found = {
        f"{path}.{name}": value
        for path, part in module.named_modules()
        for name, value in vars(part).items()
        if path and type(value) is float
    }
    architecture = getattr(module, "architecture", None)
    if architecture is None:
        return found
    names = [*(field.name for field in fields(architecture)), "log_scale", "mean_variance"]
    for name in names:
        value = getattr(architecture, name)
        if type(value) is float:
            found[_OF_ARCH + name] = value
    return found


class _Overlaid:
    """An architecture with some numbers replaced."""

    def __init__(self, architecture: Any, numbers: dict[str, Tensor]) -> None:
        self._architecture = architecture
        vars(self).update(numbers)

    def __getattr__(self, name: str) -> Any:
        return getattr(self._architecture, name)
