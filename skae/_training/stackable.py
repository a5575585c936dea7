"""Conditions under which networks can be trained as one stack, and the memory that they need."""

from collections.abc import Hashable
from typing import Any

import torch
from skorch.callbacks import EpochTimer

# Solvers that compute the step of each weight separately.
_SOLVERS = ("adam", "adamw", "sgd")
# With at least this many multiplications in the largest product of a step, a network uses a CPU
# fully by itself. A stack then saves less than a tenth of the time (measured).
_LARGE = 2**24


def obstacle(net: Any) -> str | None:
    """Return why a net cannot be part of a stack; None if it can."""
    module = net.module_
    n_rows = min(net.batch_size, len(net.subsets_[0]))
    if net.solver not in _SOLVERS:
        return f"solver={net.solver!r} does not compute the step of each weight separately"
    if net.foreign_modules:
        return "it has modules of your own"
    if net.ranked_ is not None:
        return "distributed=True"
    if net.compiled:
        return "compile=True"
    if net.history or any(optimizer.state for optimizer in net.optimizers_):
        return "it continues an earlier training"
    if not all(_only_listens(*named) for named in net.callbacks_):
        return "it has callbacks, which may change it"
    if torch.device(net.device).type == "cpu" and n_rows * module.products_per_row() > _LARGE:
        return "it is so large that a stack would not be faster"
    if net.subsets_[0].rows.stored is not None:
        return "its rows are read in parts"
    why: str | None = module.stack_obstacle()
    return why


def signature(net: Any) -> Hashable:
    """Return a key that is equal for the members of a stack."""
    rows, (_, valid) = net.subsets_[0].rows, net.subsets_
    return (
        type(net.module_),
        net.module_.stack_key(),
        _sizes_apart_from_blocks(net.module_),
        net.solver,
        str(net.device),
        net.autocast,
        net.steps_per_epoch,
        net.takes_snapshots_,
        net.checkpoint_ is None,
        rows.may_miss,
        rows.weight is None,
        rows.condition is None,
        valid is None,
    )


def _sizes_apart_from_blocks(module: Any) -> Hashable:
    """Return the shapes of weights and buffers without the axes along which members may differ."""
    axes = module.all_blocks().axes
    tensors = [*module.named_parameters(), *module.named_buffers()]
    return tuple(
        (name, t.requires_grad, *(n for axis, n in enumerate(t.shape) if axis not in axes[name]))
        if name in axes
        else (name, t.requires_grad, *t.shape)
        for name, t in tensors
    )


def bytes_of(net: Any) -> float:
    """Return approximately how much memory a net takes within a stack."""
    module, rows = net.module_, net.subsets_[0].rows
    n_weights = sum(p.numel() for p in module.parameters())
    widths = sum(p.shape[0] for p in module.parameters() if p.ndim) + rows.data.X.shape[1]
    n_rows = min(net.batch_size, len(net.subsets_[0])) * module.passes_per_row()
    # For each weight there are a gradient, two averages, copies of all these from two epochs, and
    # the net's own copy. An average of the weights has as many copies as the weights.
    n_copies = 12 if module.average is None else 16
    return 4.0 * (n_copies * n_weights + 8 * n_rows * widths + rows.n_kept)


def _only_listens(name: str, callback: Any) -> bool:
    return type(callback) is EpochTimer or name.startswith("skae_")
