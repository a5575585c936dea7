"""Whether a thread computes beside others that use the same cores."""

import threading
from collections.abc import Iterator
from contextlib import contextmanager

import joblib


class _Mine(threading.local):
    is_one_of_many = False


_mine = _Mine()


@contextmanager
def one_of_many(is_one: bool = True) -> Iterator[None]:
    """Let computations of this thread use one core in the block, because others use the rest."""
    before = _mine.is_one_of_many
    _mine.is_one_of_many = before or is_one
    try:
        yield
    finally:
        _mine.is_one_of_many = before


def is_one_of_many() -> bool:
    """Whether this is a thread of joblib, which limits its processes itself, or a block says so."""
    if _mine.is_one_of_many:
        return True
    in_pool = threading.current_thread() is not threading.main_thread()
    return in_pool and joblib.parallel.get_active_backend()[0].nesting_level > 0
