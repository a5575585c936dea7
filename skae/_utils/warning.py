"""Warnings that point at the line of the user's code from which skae was called."""

import sys
import warnings
from contextvars import ContextVar
from importlib.util import find_spec
from os import sep
from os.path import dirname
from types import FrameType
from typing import Any, NamedTuple

# Packages through which a call of the user reaches skae.
_PACKAGES = ("skae", "sklearn", "skorch", "torch", "joblib", "skops", "scipy", "numpy")
_STANDARD_LIBRARY = dirname(warnings.__file__) + sep


class Line(NamedTuple):
    """A line of code, with the name and the record of warnings of its module."""

    filename: str
    lineno: int
    module: str
    registry: dict[Any, Any]


_outer_line: ContextVar[Line | None] = ContextVar("skae_outer_line_of_user", default=None)


def warn(message: str | Warning, category: type[Warning] = UserWarning) -> None:
    """Issue a warning at the first calling line outside of skae and the packages that call it.

    Python's filter "default" shows a warning once for each such line. In a worker process or
    thread, for example of a search with `n_jobs`, no line of the user is on the stack. The warning
    then has the line in skae that issues it, unless `called_from` has named another one.
    """
    line = line_of_user() or _line_of(sys._getframe(1))
    warnings.warn_explicit(message, category, *line)


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
