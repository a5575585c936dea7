"""Warnings that point at the line of the user's code from which skae was called."""

import re
import sys
import threading
import warnings
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from contextvars import ContextVar
from importlib.util import find_spec
from os import sep
from os.path import dirname
from types import FrameType
from typing import Any, NamedTuple

# Packages through which a call of the user reaches skae.
_PACKAGES = (
    "skae",
    "sklearn",
    "skorch",
    "torch",
    "joblib",
    "skops",
    "scipy",
    "numpy",
    "dask",
    "distributed",
)
_STANDARD_LIBRARY = dirname(warnings.__file__) + sep


class Line(NamedTuple):
    """A line of code, with the name and the record of warnings of its module."""

    filename: str
    lineno: int
    module: str
    registry: dict[Any, Any]


_is_quiet: ContextVar[bool] = ContextVar("skae_is_quiet", default=False)
_filters_lock = threading.Lock()
_outer_line: ContextVar[Line | None] = ContextVar("skae_outer_line_of_user", default=None)


def warn(message: str | Warning, category: type[Warning] = UserWarning) -> None:
    """Issue a warning at the first calling line outside of skae and the packages that call it.

    Python's filter "default" shows a warning once for each such line. In a worker process or
    thread, for example of a search with `n_jobs`, no line of the user is on the stack. The warning
    then has the line in skae that issues it, unless `called_from` has named another one.
    """
    if _is_quiet.get():
        return
    line = line_of_user() or _line_of(sys._getframe(1))
    warnings.warn_explicit(message, category, *line)


@contextmanager
def quietly() -> Iterator[None]:
    """Context in which skae issues no warnings; those of other threads are not affected."""
    token = _is_quiet.set(True)
    try:
        yield
    finally:
        _is_quiet.reset(token)


@contextmanager
def ignoring(message: str, category: type[Warning] = UserWarning) -> Iterator[None]:
    """Ignore the warnings of other packages whose message matches a regular expression.

    All threads share the filters of warnings. `warnings.catch_warnings` restores the list that it
    found, and if blocks of two threads overlap, it restores a filter of the other one for good
    (Python 3.13). This context adds one filter, and removes the same one. In the meantime it also
    holds for other threads.
    """
    added: Any = ("ignore", re.compile(message, re.IGNORECASE), category, None, 0)
    with _filters_lock:
        found: Any = warnings.filters
        found.insert(0, added)
        _filters_changed()
    try:
        yield
    finally:
        with _filters_lock:
            # A block of `catch_warnings` may have replaced the list by a copy, and may restore it.
            now: Any = warnings.filters
            for filters in (found,) if now is found else (found, now):
                with suppress(ValueError):
                    filters.remove(added)
            _filters_changed()


def _filters_changed() -> None:
    """Clear the cache of the filters."""
    getattr(warnings, "_filters_mutated", lambda: None)()


def line_of_user() -> Line | None:
    """The line that warnings name; None if there is no line of the user."""
    frame: FrameType | None = sys._getframe(1)
    while frame is not None and not _is_of_user(frame.f_code.co_filename):
        frame = frame.f_back
    return _outer_line.get() if frame is None else _line_of(frame)


def called_from(line: Line | None) -> None:
    """Let warnings in the present context, which may be that of a thread, name a line."""
    _outer_line.set(line)


def _line_of(frame: FrameType) -> Line:
    names = frame.f_globals
    registry = names.setdefault("__warningregistry__", {})
    return Line(frame.f_code.co_filename, frame.f_lineno, names.get("__name__", "?"), registry)


def _is_of_user(filename: str) -> bool:
    """Whether a file is outside of the packages above and of the standard library."""
    if filename.startswith("<frozen "):
        return False
    if "site-packages" not in filename and filename.startswith(_STANDARD_LIBRARY):
        return False
    return not filename.startswith(_folders())


def _folders() -> tuple[str, ...]:
    """Folders of the packages that are installed, without loading them."""
    if not _FOUND:
        for name in _PACKAGES:
            spec = find_spec(name)
            if spec is not None and spec.origin is not None:
                _FOUND.append(dirname(spec.origin) + sep)
    return tuple(_FOUND)


_FOUND: list[str] = []
