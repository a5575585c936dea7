"""Contexts in which operations must be such that torch can batch or record them."""

from collections.abc import Iterator
from contextlib import contextmanager
from contextvars import ContextVar

_is_stacking: ContextVar[bool] = ContextVar("skae_is_stacking", default=False)


def is_stacking() -> bool:
    """Return whether a loss is computed for a stack of modules.

    Every operation must then be one that torch can batch.
    """
    return _is_stacking.get()


@contextmanager
def stacking() -> Iterator[None]:
    """Context in which losses are computed for a stack of modules."""
    token = _is_stacking.set(True)
    try:
        yield
    finally:
        _is_stacking.reset(token)


_is_exporting: ContextVar[bool] = ContextVar("skae_is_exporting", default=False)


def is_exporting() -> bool:
    """Return whether operations are recorded for a graph that accepts any number of rows."""
    return _is_exporting.get()


@contextmanager
def exporting() -> Iterator[None]:
    """Context in which operations are recorded for a graph; they are those of `stacking`."""
    token = _is_exporting.set(True)
    try:
        with stacking():
            yield
    finally:
        _is_exporting.reset(token)
