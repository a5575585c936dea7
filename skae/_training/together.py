"""Concurrent calls that train networks of the same kind as one stack.

Each call runs in its own thread, and only one runs at a time. A call that begins to train a network
waits until all other calls wait or have ended. Networks of the same kind are then trained as one
stack (see `stack`), the others one after another, and the calls continue.
"""

import threading
import warnings
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from contextvars import ContextVar, copy_context
from dataclasses import dataclass
from typing import Any, TypeVar

import torch
from sklearn import config_context, get_config

from skae._training.progress import progress_of
from skae._training.stack import Stack, Unequal
from skae._training.stack_checkpoint import joint_file
from skae._training.stackable import bytes_of, obstacle, signature
from skae._training.threads import threads_for, threads_for_one_pass
from skae._utils.warning import called_from, line_of_user

T = TypeVar("T")

# Largest memory of networks that are trained together: in bytes, and as a fraction of the free
# memory of a GPU.
MEMORY_LIMIT, _SHARE_OF_GPU = 2 * 2**30, 0.5
# Largest number of calls that wait at the same time, because each has a thread.
_MOST_CALLS = 512

_current: ContextVar["_Call | None"] = ContextVar("skae_call_trained_together", default=None)


@dataclass
class SharedTraining:
    """Record of networks that were trained together.

    Attributes
    ----------
    calls : tuple of int
        Indices of the calls that trained the networks.
    obstacle : str or None
        Why they were trained one by one; None if they were trained as a stack.
    """

    calls: tuple[int, ...]
    obstacle: str | None = None


def fit_epochs(net: Any, epochs: int) -> None:
    """Train a `Net` for some epochs; within `run_together`, it may be trained in a stack."""
    call = _current.get()
    if call is None:
        _fit_alone(net, epochs)
    else:
        call.wait_for_training(net, epochs)


def _fit_alone(net: Any, epochs: int) -> None:
    """Train a net, from its checkpoint if there is one."""
    if net.checkpoint_ is not None:
        epochs = net.checkpoint_.resume(net, epochs)
    net.fit_loop(None, epochs=epochs)


def run_together(
    calls: Sequence[Callable[[], T]],
    *,
    memory_limit: float | None = None,
    report: list[SharedTraining] | None = None,
) -> list[T]:
    """Return the results of the calls in their order; similar networks are trained as one stack.

    Parameters
    ----------
    calls : sequence of callables
        Callables without arguments, whose results do not depend on each other.
    memory_limit : float, default=None
        Number of bytes that the networks of a stack and their rows may take. None means 2 GiB or,
        on a GPU, half of its free memory. A single network is always trained.
    report : list, default=None
        List to which a `SharedTraining` is appended for each stack, and for each network that was
        trained separately.

    Returns
    -------
    results : list
        The values that the calls returned.

    Raises
    ------
    BaseException
        The first error of a call. Calls that have not ended are then cancelled.
    """
    return _Together(calls, memory_limit, [] if report is None else report).results()


class _Call(threading.Thread):
    """One of several calls, in its own thread."""

    def __init__(self, number: int, call: Callable[[], Any]) -> None:
        super().__init__(name=f"skae-call-{number}", daemon=True)
        self.number, self._call = number, call
        self._go, self._stopped = threading.Semaphore(0), threading.Semaphore(0)
        self._context, self._config = copy_context(), get_config()
        self._line = line_of_user()
        self._warnings = _state_of_warnings()
        self.result: Any = None
        self.error: BaseException | None = None
        self.ended = self.given_up = False
        # The net and the number of epochs that the call waits for, and the result.
        self.net: Any = None
        self.epochs = 0
        self.outcome: BaseException | None = None

    # These methods run in the main thread.

    def go_on(self) -> None:
        """Let the call run until it waits for a training, or ends."""
        mine = _state_of_warnings()
        _set_warnings(self._warnings)
        try:
            if self.ident is None:
                self.start()
            else:
                self._go.release()
            self._stopped.acquire()
        finally:
            self._warnings = _state_of_warnings()
            _set_warnings(mine)

    def give_up(self) -> None:
        """Cancel the call."""
        self.given_up = True
        while self.ident is not None and not self.ended:
            self.go_on()

    # These methods run in the thread of the call.

    def run(self) -> None:
        try:
            self._context.run(self._compute)
        except BaseException as error:
            self.error = error
        finally:
            self.ended = True
            self._stopped.release()

    def _compute(self) -> None:
        _current.set(self)
        called_from(self._line)
        with config_context(**self._config):
            self.result = self._call()

    def wait_for_training(self, net: Any, epochs: int) -> None:
        """Wait until a net is trained; raise the error that ended its training, if any."""
        self.net, self.epochs, self.outcome = net, epochs, None
        self._stopped.release()
        self._go.acquire()
        self.net = None
        if self.given_up:
            raise _GivenUp
        if self.outcome is not None:
            raise self.outcome


# Attributes that `warnings.catch_warnings` restores. All threads share them (Python 3.13), and the
# blocks of several calls overlap.
_OF_WARNINGS = ("filters", "showwarning", "_showwarnmsg_impl")


def _state_of_warnings() -> dict[str, Any]:
    return {name: getattr(warnings, name) for name in _OF_WARNINGS if hasattr(warnings, name)}


def _set_warnings(state: dict[str, Any]) -> None:
    for name, value in state.items():
        setattr(warnings, name, value)
    # Clear the cache of the filters.
    getattr(warnings, "_filters_mutated", lambda: None)()


class _GivenUp(BaseException):
    """Raised to end a call that was cancelled."""


class _Together:
    """All calls, as seen from the main thread."""

    def __init__(
        self,
        calls: Sequence[Callable[[], Any]],
        memory_limit: float | None,
        report: list[SharedTraining],
    ) -> None:
        self.calls = [_Call(number, call) for number, call in enumerate(calls)]
        self.memory_limit, self.report = memory_limit, report
        self.n_begun, self.memory_is_full = 0, False

    def results(self) -> list[Any]:
        waiting: list[_Call] = []
        ahead = iter(self.calls)
        try:
            while True:
                waiting = self._joined(waiting, ahead)
                if not waiting:
                    return [call.result for call in self.calls]
                self._train(waiting)
                for call in waiting:
                    self._go_on(call)
                waiting = [call for call in waiting if not call.ended]
        except BaseException:
            for call in self.calls:
                call.give_up()
            raise

    def _joined(self, waiting: list[_Call], ahead: Iterator[_Call]) -> list[_Call]:
        """Return the calls that wait, with as many further calls as the memory allows."""
        waiting = list(waiting)
        used = sum(bytes_of(call.net) for call in waiting)
        limit = self._limit(waiting)
        while len(waiting) < _MOST_CALLS and (used < limit or not waiting):
            call = next(ahead, None)
            if call is None:
                break
            self.n_begun += 1
            self._go_on(call)
            if not call.ended:
                waiting.append(call)
                used += bytes_of(call.net)
                limit = self._limit(waiting)
        self.memory_is_full |= self.n_begun < len(self.calls)
        return waiting

    def _limit(self, waiting: list[_Call]) -> float:
        if self.memory_limit is not None:
            return self.memory_limit
        devices = {call.net.device for call in waiting}
        cuda = [device for device in devices if torch.device(device).type == "cuda"]
        if cuda:
            return _SHARE_OF_GPU * torch.cuda.mem_get_info(torch.device(cuda[0]))[0]
        return MEMORY_LIMIT

    def _go_on(self, call: _Call) -> None:
        call.go_on()
        if call.error is not None:
            raise call.error

    def _train(self, waiting: list[_Call]) -> None:
        """Train the nets that calls wait for, as stacks where possible."""
        alike: dict[Any, list[_Call]] = {}
        for call in waiting:
            why = obstacle(call.net)
            if why is None:
                alike.setdefault(signature(call.net), []).append(call)
            else:
                self._train_alone(call, why)
        for group in alike.values():
            self._train_group(group)

    def _train_group(self, group: list[_Call]) -> None:
        if len(group) == 1:
            held = " among those that memory_limit allows" * self.memory_is_full
            self._train_alone(group[0], f"no other network{held} is of the same kind")
            return
        nets = [call.net for call in group]
        stored = joint_file(nets)
        if stored is not None:
            complete = [call for call in group if call.net.checkpoint_.is_complete()]
            left = [call for call in group if call not in complete]
            if not left:
                stored.remove()
            if complete and not (left and stored.path.exists()):
                for call in complete:
                    self._train_alone(call, "its training was complete before")
                if left:
                    self._train_group(left)
                return
        # A stack has many small operations, and each would wait for the slowest thread.
        with _with_gradients(), threads_for_one_pass(_products(nets)):
            try:
                stack = Stack(nets, [call.epochs for call in group], stored)
            except Unequal as error:
                stack, why = None, str(error)
            if stack is not None:
                for call, outcome in zip(group, stack.run(), strict=True):
                    call.outcome = outcome
                self.report.append(SharedTraining(tuple(call.number for call in group)))
                return
        for call in group:
            self._train_alone(call, why)

    def _train_alone(self, call: _Call, why: str) -> None:
        self.report.append(SharedTraining((call.number,), why))
        with _with_gradients(), threads_for(_products([call.net])):
            try:
                _fit_alone(call.net, call.epochs)
            except Exception as error:
                call.outcome = error
        for progress in progress_of(call.net):  # before the next training begins
            progress.close(call.net)


@contextmanager
def _with_gradients() -> Iterator[None]:
    """Enable gradients, even if the caller has disabled them."""
    with torch.inference_mode(False), torch.enable_grad():
        yield


def _products(nets: list[Any]) -> int:
    """Return the number of multiplications of a step's largest product, summed over all nets."""
    return sum(
        min(net.batch_size, len(net.subsets_[0])) * net.module_.products_per_row() for net in nets
    )
