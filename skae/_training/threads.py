"""The number of threads of torch, chosen by the amount of work.

Every operation that is divided between threads waits for the slowest one at its end. This takes
microseconds on an idle machine. On a busy machine it lasts until the scheduler runs that thread,
which takes far longer than small products save. The number of threads therefore depends only on
sizes, and never on measured times, so that the same computation always uses the same number.

torch stores the number twice: for the thread that sets it, and for threads that have not computed
yet (torch 2.13). Fits in several threads of a process therefore share one record of the number that
the user had set.
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

from skae._utils.concurrency import is_one_of_many

# Number of multiplications of a matrix product for each thread. It was measured on training steps
# of fully connected networks: with fewer multiplications, a second thread saves less than a quarter
# of the time.
PRODUCTS_PER_THREAD = 2**22
# The same number if rows go through a network once. A pass of this size takes a millisecond, so
# that more threads would save little and could wait long.
PRODUCTS_PER_THREAD_ONCE = 2**24
# Cost of reading a value, as in a sum, in multiplications of a matrix product.
_PRODUCTS_PER_VALUE = 32


@dataclass
class _Record:
    """State that all threads of the process share, and change only under the lock."""

    lock: threading.Lock = field(default_factory=threading.Lock)
    n_open: int = 0  # number of threads within a block
    before: int = 1  # the user's number when the first of them entered
    chosen: set[int] = field(default_factory=set)  # numbers that were set here since then


class _Mine(threading.local):
    """State that the blocks of one thread share."""

    depth = 0
    most = 1  # the user's number for this thread


_record, _mine, _blas_lock = _Record(), _Mine(), threading.Lock()


@contextmanager
def threads_for(products: float) -> Iterator[None]:
    """Let torch compute in this thread with an appropriate number of threads in the block.

    `products` is the number of multiplications in the largest matrix product. There are at most as
    many threads as torch was set to use, and as the process may use by its affinity and quota. A
    thread of joblib uses only one, because others compute beside it. Blocks may be nested. The
    number is restored at the end, unless the user changed it within the block.
    """
    record = _enter()
    number = 0
    try:
        before = torch.get_num_threads() if _mine.depth > 1 else _mine.most
        number = _number(products)
        _set(number)
        yield
    finally:
        if record is _record:  # false in a child process that was forked within the block
            _leave(before, unchanged=torch.get_num_threads() == number)


def threads_for_one_pass(products: float) -> AbstractContextManager[None]:
    """Set the threads as `threads_for` for one pass with this largest product."""
    return threads_for(products * PRODUCTS_PER_THREAD / PRODUCTS_PER_THREAD_ONCE)


def threads_for_values(n_values: int) -> AbstractContextManager[None]:
    """Set the threads as `threads_for` for passes over this many values."""
    return threads_for(_PRODUCTS_PER_VALUE * n_values)


@contextmanager
def blas_threads_for(products: float) -> Iterator[None]:
    """Let NumPy's products and decompositions use one thread in the block if they are small.

    The number is the same for the whole process. The first thread that enters sets it, and restores
    it when it leaves (threadpoolctl 3.8 fails if blocks overlap).
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
    """Return the multithreaded libraries of this process; finding them takes some time."""
    return ThreadpoolController()


def _number(products: float) -> int:
    """Return the number of threads for a product."""
    worth = int(products // PRODUCTS_PER_THREAD)
    if min(worth, _mine.most) < 2 or is_one_of_many():
        return 1
    return min(worth, _mine.most, joblib.cpu_count())


def _enter() -> _Record:
    _mine.depth += 1
    if _mine.depth > 1:
        return _record
    with _record.lock:
        found = torch.get_num_threads()
        if not _record.n_open:
            _record.before, _record.chosen = found, set()
        # A thread in which torch has not computed yet begins with the number that was set last.
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
    """Use one thread in a forked child, which does not have the other threads of its parent."""
    global _record, _mine, _blas_lock
    _record, _mine, _blas_lock = _Record(), _Mine(), threading.Lock()
    torch.set_num_threads(1)


if hasattr(os, "register_at_fork"):  # Windows has no fork
    os.register_at_fork(after_in_child=_after_fork)
