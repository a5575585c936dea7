"""The part of the training of a stack that each net does separately."""

from collections.abc import Hashable
from copy import deepcopy
from typing import Any

import torch
from skorch.callbacks import EpochTimer
from torch import Tensor

from skae._training.averaging import OF_AVERAGE, show_average
from skae._training.callbacks import CompareWithStart, Diverged
from skae._training.checkpoints import Checkpoint
from skae._training.data import Batch
from skae._training.epoch_losses import record_losses
from skae._training.progress import Progress
from skae._training.stacked_weights import StackedTensors

# Callbacks that need neither the epochs nor what is measured in them. The stack itself shows the
# progress of its members.
_SILENT = (EpochTimer, CompareWithStart, Progress, Checkpoint)


class Member:
    """A net that is trained within a stack.

    Parameters
    ----------
    net : Net
        The net, prepared for training.
    epochs : int
        Number of epochs.
    place : int
        Position of the net in the list of nets.
    """

    def __init__(self, net: Any, epochs: int, place: int) -> None:
        self.net, self.epochs, self.place = net, epochs, place
        self.takes_snapshots = net.takes_snapshots_
        net.takes_snapshots_ = net.writes_checkpoints_ = False  # the stack does
        listeners = [callback for _, callback in net.callbacks_]
        loud = any(type(callback) not in _SILENT for callback in listeners)
        self.has_listeners = loud or net.subsets_[1] is not None
        self.twins: list[Member] = []
        self.is_amid_epoch = False
        named = net.module_.named_buffers()
        self._buffers = [(n, b) for n, b in named if not n.startswith(OF_AVERAGE)]
        self._versions: dict[str, int] = {}
        self._data = dict(zip(("dataset_train", "dataset_valid"), net.subsets_, strict=True))
        if net.learning_rate == "adaptive":  # its own losses determine the rate
            self.settings: tuple[Any, ...] = (place,)
        else:
            changes = net.schedule_ is not None
            schedule = (net.learning_rate, epochs) if changes else ()
            rates = (float(net.lr), *(phase.rate for phase, _ in net.later_))
            self.settings = (rates, float(net.alpha), float(net.momentum), schedule)

    @property
    def is_complete(self) -> bool:
        """Whether all epochs are complete."""
        return len(self.net.history_) >= self.epochs

    def seed_epoch(self, epoch: int) -> None:
        """Seed the generators for an epoch, and prepare the module for it."""
        self.net.seed_epoch(epoch)
        if not self.net.module_.training:
            self.net.module_.train()

    def open_epoch(self) -> Exception | None:
        """Begin an epoch, as skorch's loop does; return the error of a callback, if any."""
        net = self.net
        self.is_amid_epoch = True
        if self.has_listeners:
            try:
                net.notify("on_epoch_begin", **self._data)
            except Exception as error:
                return error
        else:
            net.history_.append({"batches": [], "epoch": len(net.history_) + 1})
            net.seed_epoch(len(net.history_) - 1)
        if not net.module_.training:
            net.module_.train()
        return None

    def push_buffers(self, tensors: StackedTensors, i: int) -> None:
        """Copy the buffers that the module has changed by itself to the stack."""
        for name, buffer in self._buffers:
            if self._versions.get(name) != buffer._version:
                tensors.push_buffer(i, name, buffer)
                self._versions[name] = buffer._version

    def own_gradients(self, batch: Batch) -> tuple[dict[str, Tensor], dict[str, Tensor]]:
        """Compute the loss terms and the gradients of a batch by the module's own code."""
        net = self.net
        for optimizer in net.optimizers_:
            optimizer.zero_grad()
        terms = net.train_step_single(batch)["terms"]
        named = net.module_.named_parameters()
        gradients = {name: p.grad for name, p in named if p.grad is not None}
        for optimizer in net.optimizers_:
            optimizer.zero_grad()
        return terms, gradients

    def own_phase(self, k: int, batch: Batch) -> tuple[Tensor, dict[str, Tensor]]:
        """Compute the loss of a later phase and its gradients by the module's own code."""
        net, (phase, _) = self.net, self.net.later_[k]
        with torch.no_grad():
            before = net.module_.loss(batch)
        with net._precision():
            loss = phase.loss(batch, before)
        names = {id(p): name for name, p in net.module_.named_parameters()}
        trained = [p for p in phase.parameters if p.requires_grad]
        gradients = torch.autograd.grad(loss, trained)
        return loss.detach(), {names[id(p)]: g for p, g in zip(trained, gradients, strict=True)}

    def after_step(self) -> None:
        """Update the learning rates after a step of the stack."""
        for phase, optimizer in self.net.later_:  # their rates are saved
            for group in optimizer.param_groups:
                group["lr"] = phase.rate * rate_of(self.net)
        if self.net.schedule_ is not None:
            self.net.schedule_.step()

    def record(self, means: dict[str, float], terms: list[str], seconds: float) -> Diverged | None:
        """Write an epoch's losses to the history; return the error if they are not finite."""
        try:
            record_losses(self.net, "train", means, terms)
        except Diverged as error:
            return error
        list.__getitem__(self.net.history_, -1)["dur"] = seconds
        self.is_amid_epoch = False
        return None

    def close_epoch(self) -> Exception | None:
        """End an epoch, as skorch's loop does; return the error that ends the training, if any."""
        if not self.has_listeners:
            return None
        net, subset = self.net, self._data["dataset_valid"]
        seconds = net.history_[-1, "dur"]
        try:
            if subset is not None:
                rows, step = net.get_iterator(subset, training=False), net.validation_step
                net.run_single_epoch(rows, training=False, prefix="valid", step_fn=step)
            net.notify("on_epoch_end", **self._data)
        except Exception as error:
            return error
        finally:
            list.__getitem__(net.history_, -1)["dur"] = seconds
        return None

    def is_twin_of(self, other: "Member") -> bool:
        """Return whether another member of the same kind would be trained to the same result.

        This requires equal weights and rows, and that neither member has callbacks.
        """
        mine, theirs = self.net, other.net
        if self.has_listeners or other.has_listeners:
            return False
        index, same = mine.subsets_[0].index, theirs.subsets_[0].index
        if index is not same and (index is None or same is None or not torch.equal(index, same)):
            return False
        states = (net.module_.state_dict().values() for net in (mine, theirs))
        return all(torch.equal(a, b) for a, b in zip(*states, strict=True))

    def kind(self) -> Hashable:
        """Return a key that is equal for members with the same rows, settings and architecture."""
        net = self.net
        architecture = repr(getattr(net.module_, "architecture", None))
        of_training = (net.seed, net.batch_size, self.settings, self.epochs, architecture)
        return (net.subsets_[0].rows.identity(), net.weight_averaging, *of_training)

    def live_as(self, twin: "Member") -> None:
        """Copy the history of a twin, which was trained for both."""
        self.net.history_.extend(deepcopy(list(twin.net.history_)))
        self.net.best_ = dict(twin.net.best_)
        self.is_amid_epoch = twin.is_amid_epoch

    def leave(self) -> None:
        """Leave the stack."""
        show_average(self.net.module_)
        self.net.takes_snapshots_, self.net.writes_checkpoints_ = self.takes_snapshots, True
        for p in self.net.module_.parameters():
            p.grad = None


def without_twins(members: list[Member]) -> list[Member]:
    """Return the members to train: the first one of those that would be trained identically."""
    found: list[Member] = []
    of_kind: dict[Hashable, list[Member]] = {}
    for member in members:
        others = of_kind.setdefault(member.kind(), [])
        twin = next((other for other in others if member.is_twin_of(other)), None)
        if twin is None:
            others.append(member)
            found.append(member)
        else:
            twin.twins.append(member)
    return found


def rate_of(net: Any) -> float:
    """Return the learning rate of the next step."""
    rate: float = net.optimizer_.param_groups[0]["lr"]
    return rate
