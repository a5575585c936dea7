"""Calls that train networks, run side by side: networks that are alike are trained as one stack.

Each call runs in a thread of its own, and only one of them at a time. Where a call comes to a
training it waits, until all others wait or have ended; then the trainings that are alike are
one training (`stack`), the others follow one after the other, and the calls go on.
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

from skae._training.stack import Stack, Unequal
from skae._training.stackable import bytes_of, obstacle, signature
from skae._training.threads import threads_for, threads_for_one_pass

T = TypeVar("T")

# What trainings that wait for each other may take: bytes, and of a GPU a share of what is free.
MEMORY_LIMIT, _SHARE_OF_GPU = 2 * 2**30, 0.5
# Calls that wait for each other at most: each has a thread.
_MOST_CALLS = 512

_current: ContextVar["_Call | None"] = ContextVar("skae_call_trained_together", default=None)


@dataclass
class SharedTraining:
    """What was trained as one.

    Attributes
    ----------
    calls : tuple of int
        The calls whose networks these were.
    obstacle : str or None
        Why they were trained one by one; None where they were a stack.
    """

    calls: tuple[int, ...]
    obstacle: str | None = None


def fit_epochs(net: Any, epochs: int) -> None:
    """Train a `Net` for some epochs: beside others, where this is one of several calls."""
    call = _current.get()
    if call is None:
        net.fit_loop(None, epochs=epochs)
    else:
        call.wait_for_training(net, epochs)


def run_together(
    calls: Sequence[Callable[[], T]],
    *,
    memory_limit: float | None = None,
    report: list[SharedTraining] | None = None,
) -> list[T]:
    """What the calls return, in their order; trainings that are alike are one training.

    Parameters
    ----------
    calls : sequence of callables
        They take no arguments. What each computes does not depend on the others.
    memory_limit : float, default=None
        Bytes that the networks which are trained as one may take, with their rows; None takes 2 GiB
        or, on a GPU, half of what is free there. One network is trained in any case.
    report : list, default=None
        Is given a `SharedTraining` for each training that was shared, or could not be.

    Returns
    -------
    results : list
        What the calls returned.

    Raises
    ------
    BaseException
        The first error of a call; calls that did not come to an end are then given up.
    """
    return _Together(calls, memory_limit, [] if report is None else report).results()


class _Call(threading.Thread):
    """One of several calls, in its thread."""

    def __init__(self, number: int, call: Callable[[], Any]) -> None:
        super().__init__(name=f"skae-call-{number}", daemon=True)
        self.number, self._call = number, call
        self._go, self._stopped = threading.Semaphore(0), threading.Semaphore(0)
        self._context, self._config = copy_context(), get_config()
        self._warnings = _state_of_warnings()
        self.result: Any = None
        self.error: BaseException | None = None
        self.ended = self.given_up = False
        # What it waits for, and what came of it.
        self.net: Any = None
        self.epochs = 0
        self.outcome: BaseException | None = None

    # In the thread of all calls.

    def go_on(self) -> None:
        """Let it run until it waits for a training, or ends."""
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
        """Have it end."""
        self.given_up = True
        while self.ident is not None and not self.ended:
            self.go_on()

    # In its own.

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
        with config_context(**self._config):
            self.result = self._call()

    def wait_for_training(self, net: Any, epochs: int) -> None:
        """Wait until a net is trained, and raise what ended its training."""
        self.net, self.epochs, self.outcome = net, epochs, None
        self._stopped.release()
        self._go.acquire()
        self.net = None
        if self.given_up:
            raise _GivenUp
        if self.outcome is not None:
            raise self.outcome


# What `warnings.catch_warnings` keeps: it is one for all threads (Python 3.13), and the blocks of
# calls overlap.
_OF_WARNINGS = ("filters", "showwarning", "_showwarnmsg_impl")


def _state_of_warnings() -> dict[str, Any]:
    return {name: getattr(warnings, name) for name in _OF_WARNINGS if hasattr(warnings, name)}


def _set_warnings(state: dict[str, Any]) -> None:
    for name, value in state.items():
        setattr(warnings, name, value)
    # What was looked up is out of date.
    getattr(warnings, "_filters_mutated", lambda: None)()


class _GivenUp(BaseException):
    """Ends a call whose result nobody waits for."""


class _Together:
    """All calls, from the thread that wants their results."""

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
        """Those that wait, and as many more as memory allows."""
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
        """Train what calls wait for: what is alike as one, the others one after the other."""
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
            held = " of those that memory_limit holds" * self.memory_is_full
            self._train_alone(group[0], f"no other network{held} is like it")
            return
        nets = [call.net for call in group]
        # A stack has many small operations, each of which would wait for the slowest thread.
        with _with_gradients(), threads_for_one_pass(_products(nets)):
            try:
                stack = Stack(nets, [call.epochs for call in group])
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
                call.net.fit_loop(None, epochs=call.epochs)
            except Exception as error:
                call.outcome = error


@contextmanager
def _with_gradients() -> Iterator[None]:
    """Whatever the caller has switched off."""
    with torch.inference_mode(False), torch.enable_grad():
        yield


def _products(nets: list[Any]) -> int:
    """Multiplications of a step's largest product, of all nets."""
    return sum(
        min(net.batch_size, len(net.subsets_[0])) * net.module_.products_per_row() for net in nets
    )
