"""Training in several processes: the same end of training, and statistics of whole batches."""

import signal
import threading
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from types import FrameType
from typing import Any

import torch
from torch import Tensor, nn

from skae._training.callbacks import StoppedFromOutside, TrainingStopped
from skae._training.data import Batch
from skae._training.ranks import Part, Ranks
from skae._utils.warning import warn


class RankedTraining:
    """A training of a module by several processes, seen from one of them.

    Parameters
    ----------
    ranks : Ranks
        The processes.
    module : Module
        The network. It gets the weights of the first rank.
    """

    def __init__(self, ranks: Ranks, module: nn.Module) -> None:
        self.ranks, self.rank, self.module = ranks, ranks.rank, module
        self._interrupt = _HeldInterrupt()
        self._normalised: list[_OverRanks] = []
        ranks.synchronise(module)

    @contextmanager
    def running(self) -> Iterator[None]:
        """Context of the epochs, in which layers of batch normalisation use whole batches."""
        with ExitStack() as stack:
            self._normalised = stack.enter_context(_normalised_together(self.module))
            stack.enter_context(self._interrupt.held_back())
            yield

    def begin_step(self, batch: Batch) -> None:
        """Prepare the layers for a batch."""
        for layer in self._normalised:
            layer.part = batch.part

    def agreed(
        self, stop: TrainingStopped | None, optimizers: list[torch.optim.Optimizer]
    ) -> BaseException | None:
        """Return why training ends on all ranks after an epoch: for any rank, or by Ctrl-C.

        The learning rates become those of the first rank, because a callback may set them by what
        differs between ranks, such as time.
        """
        groups = [group for optimizer in optimizers for group in optimizer.param_groups]
        own = [self._interrupt.is_set, stop is not None, isinstance(stop, StoppedFromOutside)]
        rates = [float(group["lr"]) if self.rank == 0 else 0.0 for group in groups]
        found = self.ranks.sum(torch.tensor([*map(float, own), *rates], dtype=torch.float64))
        is_interrupted, any_stop, any_from_outside, *rates = found.tolist()
        for group, rate in zip(groups, rates, strict=True):
            if float(group["lr"]) != rate:
                group["lr"] = rate
        if is_interrupted:
            return KeyboardInterrupt()
        if any_stop and stop is None:
            return StoppedFromOutside() if any_from_outside else TrainingStopped()
        return stop


class _HeldInterrupt:
    """Holds back the first Ctrl-C until all ranks have heard of it, at the end of an epoch.

    A rank that left an epoch early would let the others wait for its part forever. The second
    Ctrl-C is not held back.
    """

    is_set = False

    @contextmanager
    def held_back(self) -> Iterator[None]:
        """Context in which the first Ctrl-C is held back, unless the user handles it."""
        is_main = threading.current_thread() is threading.main_thread()
        if not is_main or signal.getsignal(signal.SIGINT) is not signal.default_int_handler:
            yield
            return

        def hold(number: int, frame: FrameType | None) -> None:
            if self.is_set:
                signal.default_int_handler(number, frame)
            self.is_set = True

        signal.signal(signal.SIGINT, hold)
        try:
            yield
        finally:
            signal.signal(signal.SIGINT, signal.default_int_handler)


class _SumOverRanks(torch.autograd.Function):
    """Sum over ranks. Each rank uses the sum, so that its gradient is the sum of the gradients."""

    @staticmethod
    def forward(ctx: Any, values: Tensor, part: Part) -> Tensor:
        ctx.part = part
        return part.sum(values)

    @staticmethod
    def backward(ctx: Any, gradient: Tensor) -> tuple[Tensor, None]:
        total = ctx.part.ranks.sum(gradient)
        return (total if ctx.part.counts else torch.zeros_like(total)), None


_OF_TORCH = (nn.BatchNorm1d, nn.BatchNorm2d, nn.BatchNorm3d)


def _is_own_normalisation(layer: nn.Module) -> bool:
    known = (*_OF_TORCH, nn.SyncBatchNorm)
    return isinstance(layer, nn.modules.batchnorm._BatchNorm) and type(layer) not in known


class _OverRanks(nn.modules.batchnorm._BatchNorm):
    """Batch normalisation by the moments of the whole batch."""

    part: Part | None = None

    def _check_input_dim(self, input: Tensor) -> None:  # noqa: A002 (as in torch)
        """Accept what the layer of one process accepts."""

    def forward(self, input: Tensor) -> Tensor:  # noqa: A002 (as in torch)
        part = self.part
        if part is None or not (self.training or self.running_mean is None):
            return super().forward(input)
        x, axes = input.float(), [0, *range(2, input.ndim)]
        shape = [1, -1, *[1] * (input.ndim - 2)]
        n = float(part.sum(torch.tensor(float(x.numel() // x.shape[1]))))
        mean = _SumOverRanks.apply(x.sum(axes), part) / n
        centred = x - mean.view(shape)
        variance = _SumOverRanks.apply(centred.square().sum(axes), part) / n
        if self.training and self.running_mean is not None:
            self._follow(mean.detach(), variance.detach() * (n / max(n - 1.0, 1.0)))
        out = centred * (variance + self.eps).rsqrt().view(shape)
        if self.affine:
            out = out * self.weight.view(shape) + self.bias.view(shape)
        return out.to(input.dtype)

    @torch.no_grad()
    def _follow(self, mean: Tensor, variance: Tensor) -> None:
        """Update the running moments as torch does."""
        self.num_batches_tracked.add_(1)  # type: ignore[union-attr]
        rate = self.momentum
        if rate is None:
            rate = 1.0 / float(self.num_batches_tracked)  # type: ignore[arg-type]
        self.running_mean.lerp_(mean, rate)  # type: ignore[union-attr]
        self.running_var.lerp_(variance, rate)  # type: ignore[union-attr]


@contextmanager
def _normalised_together(module: nn.Module) -> Iterator[list[_OverRanks]]:
    """Let torch's layers of batch normalisation use whole batches, and yield these layers."""
    own = {type(m).__name__ for m in module.modules() if _is_own_normalisation(m)}
    if own:
        warn(
            f"Layers of your own class {min(own)} normalise the rows of each process alone, "
            "with distributed=True. Use torch's BatchNorm1d, BatchNorm2d or BatchNorm3d to "
            "normalise whole batches."
        )
    layers = [m for m in module.modules() if type(m) in _OF_TORCH]
    kinds: list[Any] = [type(layer) for layer in layers]
    for layer in layers:
        layer.__class__ = _OverRanks
    try:
        yield layers  # type: ignore[misc]
    finally:
        for layer, kind in zip(layers, kinds, strict=True):
            layer.__class__ = kind
            vars(layer).pop("part", None)
