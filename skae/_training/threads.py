"""How many threads torch computes with: as many as the work is worth.

Every operation that is shared out ends by waiting for the slowest thread: microseconds on an idle
machine, and on one that does other work until the scheduler gives that thread its turn, which
for small products costs far more than is won. So the number of threads follows from sizes
alone, and never from a clock: it is the same wherever the same is computed.

torch keeps the number twice, for the thread that sets it and for threads that have not computed
yet (torch 2.13). Fits in several threads of a process therefore share one record, which
knows what the user had set.
"""

import os
import threading
from collections.abc import Iterator
from contextlib import AbstractContextManager, contextmanager
from dataclasses import dataclass, field
from functools import cache

import joblib
import torch
from threadpoolctl import ThreadpoolController

# Multiplications of a matrix product that are worth a thread. Measured on training steps of
# fully connected networks: with fewer for each, a second thread gains less than a quarter.
PRODUCTS_PER_THREAD = 2**22
# The same where rows go through a network once, which at this size takes a millisecond: there is
# little to gain, and as much to wait for.
PRODUCTS_PER_THREAD_ONCE = 2**24
# What a value counts that is only read, as in a sum, beside a multiplication in a product.
_PRODUCTS_PER_VALUE = 32


@dataclass
class _Record:
    """What all threads of the process share, and only touch under the lock."""

    lock: threading.Lock = field(default_factory=threading.Lock)
    n_open: int = 0  # threads that are within a block
    before: int = 1  # what the user had set when the first of them entered
    chosen: set[int] = field(default_factory=set)  # what was set here since then


class _Mine(threading.local):
    """What the blocks of one thread share."""

    depth = 0
    most = 1  # what the user had set for this thread


_record, _mine, _blas_lock = _Record(), _Mine(), threading.Lock()


@contextmanager
def threads_for(products: float) -> Iterator[None]:
    """Within the block torch computes in this thread with as many threads as pay.

    `products` are the multiplications of the largest matrix product. There are never more threads
    than torch was set to, than the process may use by its affinity and its quota, and than
    one in a thread of joblib's, beside which others compute. Blocks may be nested, and each
    leaves the number as it was, or as something within it set it meanwhile.
    """
    record = _enter()
    number = 0
    try:
        before = torch.get_num_threads() if _mine.depth > 1 else _mine.most
        number = _number(products)
        _set(number)
        yield
    finally:
        if record is _record:  # and this is no child that was forked within the block
            _leave(before, unchanged=torch.get_num_threads() == number)


def threads_for_one_pass(products: float) -> AbstractContextManager[None]:
    """As `threads_for`, where there is no training but one pass, of this largest product."""
    return threads_for(products * PRODUCTS_PER_THREAD / PRODUCTS_PER_THREAD_ONCE)


def threads_for_values(n_values: int) -> AbstractContextManager[None]:
    """As `threads_for`, for passes over so many values."""
    return threads_for(_PRODUCTS_PER_VALUE * n_values)


@contextmanager
def blas_threads_for(products: float) -> Iterator[None]:
    """Within the block NumPy's products and decompositions take one thread, if they are small.

    Their number is one for the process: of several threads, the first that enters sets it, and
    sets it back when it leaves (threadpoolctl 3.8 mixes up blocks that overlap).
    """
    if products >= PRODUCTS_PER_THREAD_ONCE or not _blas_lock.acquire(blocking=False):
        yield
        return
    try:
        with _libraries().limit(limits=1, user_api="blas"):
            yield
    finally:
        _blas_lock.release()


@cache
def _libraries() -> ThreadpoolController:
    """The libraries of this process that compute by threads: to look for them takes a while."""
    return ThreadpoolController()


def _number(products: float) -> int:
    """The number of threads for a product."""
    worth = int(products // PRODUCTS_PER_THREAD)
    if min(worth, _mine.most) < 2 or _is_one_of_many():
        return 1
    return min(worth, _mine.most, joblib.cpu_count())


def _is_one_of_many() -> bool:
    """Whether this is a thread of joblib's; its processes have their share set by it."""
    in_pool = threading.current_thread() is not threading.main_thread()
    return in_pool and joblib.parallel.get_active_backend()[0].nesting_level > 0


def _enter() -> _Record:
    _mine.depth += 1
    if _mine.depth > 1:
        return _record
    with _record.lock:
        found = torch.get_num_threads()
        if not _record.n_open:
            _record.before, _record.chosen = found, set()
        # A thread in which torch has not computed before begins with what was set last.
        _mine.most = max(found, _record.before) if found in _record.chosen else found
        _record.n_open += 1
    return _record


def _set(number: int) -> None:
    with _record.lock:
        _record.chosen.add(number)
        torch.set_num_threads(number)


def _leave(before: int, unchanged: bool) -> None:
    _mine.depth -= 1
    with _record.lock:
        if unchanged:
            torch.set_num_threads(before)
        if not _mine.depth:
            _record.n_open -= 1


def _after_fork() -> None:
    """A child computes with one thread: the others, which it would wait for, are the parent's."""
    global _record, _mine, _blas_lock
    _record, _mine, _blas_lock = _Record(), _Mine(), threading.Lock()
    torch.set_num_threads(1)


if hasattr(os, "register_at_fork"):  # not on Windows, which has no fork
    os.register_at_fork(after_in_child=_after_fork)
