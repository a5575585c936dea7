"""Data-parallel training in several processes ("ranks"), which torchrun or the user starts.

Every rank has all rows and the same network. Of each batch, a rank computes the loss of its own
part. Sums over the ranks then give the gradient and the statistics of the whole batch, so that all
ranks take the same step: that of one process with the same batch.

The gradients are summed after the backward pass and not by `DistributedDataParallel`, which
accepts one loss for each module. Training steps here may have several losses for different weights
of one module, which may be frozen in the meantime, and parts of a batch may differ in weight.
"""

import os
import pickle
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from contextvars import ContextVar
from typing import Any, NamedTuple, TypeVar

import torch
from torch import Tensor, distributed, nn

T = TypeVar("T")


class Ranks:
    """The processes that train a network together, seen from one of them.

    Parameters
    ----------
    messages : ProcessGroup
        Group for Python objects and for tensors on the CPU.
    """

    def __init__(self, messages: Any) -> None:
        self.messages: Any = messages  # None after the exit of the interpreter has begun
        self.rank, self.size = distributed.get_rank(), distributed.get_world_size()
        self.local_rank = int(os.environ.get("LOCAL_RANK", self.rank))

    def sum(self, values: Tensor) -> Tensor:
        """Return the sum of the values of all ranks; the values themselves do not change."""
        total = values.detach().clone()
        distributed.all_reduce(total, group=self._group_of(total))
        return total

    def of_first(self, compute: Callable[[], T]) -> T:
        """Return on all ranks what a function returns on the first one, or raise its error."""
        found: list[Any] = [None, None]
        if self.rank == 0:
            try:
                found[0] = compute()
            except Exception as error:
                found[1] = error if _can_be_sent(error) else RuntimeError(repr(error))
        own_error = found[1]  # with its traceback
        distributed.broadcast_object_list(found, src=0, group=self.messages)
        if found[1] is not None:
            raise own_error or found[1]
        value: T = found[0]
        return value

    def all(self, value: T) -> list[T]:
        """Return the values of all ranks, in their order."""
        found: list[Any] = [None] * self.size
        distributed.all_gather_object(found, value, group=self.messages)
        return found

    def gather(self, values: Tensor) -> Tensor:
        """Return the rows of all ranks, one after another; ranks may have different numbers."""
        lengths = self.sum(_one_hot(self.rank, self.size, len(values)).to(values.device)).tolist()
        padded = values.new_zeros(max(lengths), *values.shape[1:])
        padded[: len(values)] = values.detach()
        found = [torch.empty_like(padded) for _ in lengths]
        distributed.all_gather(found, padded, group=self._group_of(padded))
        return torch.cat([part[:n] for part, n in zip(found, lengths, strict=True)])

    def sum_gradients(self, parameters: Iterable[nn.Parameter]) -> None:
        """Replace the gradients of parameters by their sums over the ranks.

        Gradients that no rank has stay None.
        """
        by_type: dict[torch.dtype, list[nn.Parameter]] = {}
        for p in parameters:
            if p.requires_grad:
                by_type.setdefault(p.dtype, []).append(p)
        for alike in by_type.values():
            present = torch.tensor([float(p.grad is not None) for p in alike]).to(alike[0])
            own = [torch.zeros_like(p) if p.grad is None else p.grad for p in alike]
            whole = self.sum(torch.cat([present, *(g.reshape(-1) for g in own)]))
            present, *sums = whole.split([len(alike), *(p.numel() for p in alike)])
            for p, grad, total, is_present in zip(alike, own, sums, present.tolist(), strict=True):
                p.grad = grad.copy_(total.view_as(p)) if is_present else None

    def synchronise(self, module: nn.Module) -> None:
        """Copy weights and buffers of the first rank to all others."""
        for values in (*module.parameters(), *module.buffers()):
            whole = values.detach().contiguous()
            distributed.broadcast(whole, src=0, group=self._group_of(whole))
            values.detach().copy_(whole)

    def part_of(self, n_rows: int, weight: Tensor | None) -> "Part":
        """Return the part of this rank of a batch, given the weights of the whole batch."""
        start, stop = (n_rows * rank // self.size for rank in (self.rank, self.rank + 1))
        if start == stop:  # losses of no rows are NaN
            return Part(self, n_rows, slice(0, 1), 0.0)
        share: float | Tensor = (stop - start) / n_rows
        if weight is not None:
            share = weight[start:stop].sum() / weight.sum()
        return Part(self, n_rows, slice(start, stop), share)

    def device_of(self, name: str) -> str:
        """Return the device of this rank: "cuda" and "auto" mean a GPU of its own."""
        if name == "auto" and not torch.cuda.is_available():
            return "cpu"  # two processes on one GPU of Apple would not be faster
        return f"cuda:{self.local_rank}" if name in ("auto", "cuda") else name

    def leave(self) -> None:
        """Close the connections, so that the other ranks do not wait for this one.

        The next training of all ranks makes new connections.
        """
        distributed.destroy_process_group(self.messages)
        self.messages = None

    def is_left_by_others(self, error: BaseException) -> bool:
        """Return whether an error says that another rank has closed the connections."""
        is_of_torch = isinstance(error, distributed.DistError) or "gloo" in str(error)
        return isinstance(error, RuntimeError) and is_of_torch

    def _group_of(self, values: Tensor) -> Any:
        """Return the group for tensors on a device; the default one may lack a backend for it."""
        return None if values.device.type == "cuda" else self.messages


class Part(NamedTuple):
    """The part of one rank of a batch."""

    ranks: Ranks
    n_rows: int  # of the whole batch
    rows: slice  # the rows of this rank
    share: float | Tensor  # of the weight; 0 for a copy of a row, because no part may be empty

    @property
    def counts(self) -> bool:
        """Whether the rows of this part belong to no other one."""
        return not isinstance(self.share, float) or self.share > 0

    def sum(self, values: Tensor) -> Tensor:
        """Return the sum of the values of all parts."""
        return self.ranks.sum(values if self.counts else torch.zeros_like(values))

    def mean(self, value: float) -> float:
        """Return the mean over the rows of all parts of a value that is the mean of this part."""
        return float(self.ranks.sum(torch.as_tensor(value * self.share, dtype=torch.float64)))

    def sums(self, *values: Tensor) -> list[Tensor]:
        """Return the sum of each of several values of one type, by one message."""
        whole = self.sum(torch.cat([v.reshape(-1) for v in values]))
        parts = whole.split([v.numel() for v in values])
        return [part.view_as(v) for part, v in zip(parts, values, strict=True)]

    def gather(self, values: Tensor) -> Tensor:
        """Return the rows of all parts in their order."""
        return self.ranks.gather(values if self.counts else values[:0])


def backward(
    loss: Tensor,
    part: Part | None,
    parameters: list[nn.Parameter],
    inputs: list[nn.Parameter] | None = None,
) -> None:
    """Compute the gradients of the loss of a batch, of which `part` may be one of several parts."""
    if part is None:
        loss.backward(inputs=inputs)
        return
    (loss * part.share).backward(inputs=inputs)
    part.ranks.sum_gradients(parameters)


_present: ContextVar[Ranks | None] = ContextVar("skae_ranks", default=None)


def present_ranks() -> Ranks | None:
    """Return the ranks that train together; None if this process trains alone."""
    return _present.get()


def is_first_rank() -> bool:
    """Return whether this process prints and writes files: the first of those that train."""
    ranks = _present.get()
    return ranks is None or ranks.rank == 0


def computed_once(compute: Callable[[], T]) -> T:
    """Return the result of a function, which only the first rank computes, by itself."""
    ranks = _present.get()
    if ranks is None:
        return compute()

    def alone() -> T:
        with training_by(None):
            return compute()

    return ranks.of_first(alone)


@contextmanager
def training_by(ranks: Ranks | None) -> Iterator[None]:
    """Context in which these ranks train together, or in which a process trains alone."""
    token = _present.set(ranks)
    try:
        yield
    finally:
        _present.reset(token)


def _can_be_sent(error: Exception) -> bool:
    try:
        pickle.loads(pickle.dumps(error))
    except Exception:
        return False
    return True


def _one_hot(place: int, size: int, value: int) -> Tensor:
    found = torch.zeros(size, dtype=torch.int64)
    found[place] = value
    return found
