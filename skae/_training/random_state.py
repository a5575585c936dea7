"""Global generators that foreign code may read: their states are preserved, or seeded.

All threads of a process share these generators. The blocks below therefore exclude each other, and
trainings in several threads keep separate states: each gets the numbers that it would get alone.
"""

import os
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import numpy as np
import torch
from torch import Tensor


class _Shared:
    """State that all threads share, and change only under the lock."""

    def __init__(self) -> None:
        self.lock = threading.RLock()
        self.present: Stream | None = None  # whose state the generators have
        self.n_open: dict[int, int] = {}  # number of streams that use a generator
        self.before: dict[int, Tensor] = {}  # its state before the first of them began
        self.n_numpy = 0  # number of blocks that use NumPy's generator
        self.numpy_before: Any = None


_shared = _Shared()


def global_generators(device: str) -> list[torch.Generator]:
    """Return torch's own generators that a module on this device may read."""
    generators = [torch.default_generator]
    place = torch.device(device)
    if place.type == "cuda":
        index = torch.cuda.current_device() if place.index is None else place.index
        generators.append(torch.cuda.default_generators[index])
    return generators


class Stream:
    """The numbers that one training draws from torch's global generators.

    Trainings in other threads draw others, which do not change these. The states of before are
    restored when the last training ends.
    """

    def __init__(self, device: str) -> None:
        self.generators = global_generators(device)
        self._states: list[Tensor] | None = None

    @contextmanager
    def opened(self) -> Iterator["Stream"]:
        """Context of the whole training, which yields the stream."""
        shared = _shared
        with shared.lock:
            outer = shared.present
            for generator in self.generators:
                n = shared.n_open.get(id(generator), 0)
                if not n:
                    shared.before[id(generator)] = generator.get_state()
                shared.n_open[id(generator)] = n + 1
        try:
            yield self
        finally:
            with shared.lock:
                if shared.present is self:
                    shared.present = None
                    if outer is not None:  # this block is inside that of another stream
                        outer._continue()
                for generator in self.generators:
                    shared.n_open[id(generator)] -= 1
                    if not shared.n_open[id(generator)]:
                        generator.set_state(shared.before.pop(id(generator)))
                        shared.present = None

    @contextmanager
    def drawing(self) -> Iterator[None]:
        """Context in which the generators continue this stream, and no other thread uses them."""
        shared = _shared
        with shared.lock:
            if shared.present is not self:
                if shared.present is not None:
                    shared.present._leave()
                self._continue()
            yield

    def seed(self, seed: int) -> None:
        """Begin the stream anew."""
        with self.drawing():
            for generator in self.generators:
                generator.manual_seed(seed)

    def _continue(self) -> None:
        for generator, state in zip(self.generators, self._states or [], strict=False):
            generator.set_state(state)
        _shared.present = self

    def _leave(self) -> None:
        self._states = [generator.get_state() for generator in self.generators]


@contextmanager
def preserve_rng_state(device: str = "cpu", seed: int | None = None) -> Iterator[None]:
    """Restore torch's global generators when the block ends; seed them for it if asked.

    Other threads wait until the block ends if they need the generators.
    """
    with _shared.lock:
        generators = global_generators(device)
        states = [generator.get_state() for generator in generators]
        if seed is not None:
            for generator in generators:
                generator.manual_seed(seed)
        try:
            yield
        finally:
            for generator, state in zip(generators, states, strict=True):
                generator.set_state(state)


@contextmanager
def preserve_global_rngs(seed: int | None = None) -> Iterator[None]:
    """Restore NumPy's and torch's global generators after the block; seed them for it if asked.

    Other threads do not wait, because the block may wait for them: it contains code of other
    packages, which may be a whole fit.
    """
    stream = Stream("cpu")
    with stream.opened():
        with stream.drawing():
            state = _begin_with_numpy()
            if seed is not None:
                stream.seed(seed)
                np.random.seed(seed)  # noqa: NPY002
        try:
            yield
        finally:
            _end_with_numpy(state)


def _begin_with_numpy() -> Any:
    with _shared.lock:
        state = np.random.get_state()  # noqa: NPY002 (wrapped code may read it)
        if not _shared.n_numpy:
            _shared.numpy_before = state
        _shared.n_numpy += 1
    return state


def _end_with_numpy(state: Any) -> None:
    """Restore a state, or that of before all blocks if this is the last block of all threads."""
    with _shared.lock:
        _shared.n_numpy -= 1
        last = not _shared.n_numpy
        np.random.set_state(_shared.numpy_before if last else state)  # noqa: NPY002


def _after_fork() -> None:
    """Use a new lock in a forked child: a thread that the child does not have may hold the old."""
    global _shared
    _shared = _Shared()


if hasattr(os, "register_at_fork"):  # Windows has no fork
    os.register_at_fork(after_in_child=_after_fork)
