"""Warnings that point at the line of the user's code from which skae was called."""

import sys
import warnings
from importlib.util import find_spec
from os import sep
from os.path import dirname
from types import FrameType

# Packages through which a call of the user reaches skae.
_PACKAGES = ("skae", "sklearn", "skorch", "torch", "joblib", "skops", "scipy", "numpy")
_STANDARD_LIBRARY = dirname(warnings.__file__) + sep


def warn(message: str | Warning, category: type[Warning] = UserWarning) -> None:
    """Issue a warning at the first calling line outside of skae and the packages that call it.

    Python's filter "default" shows a warning once for each such line. In a worker process or
    thread, for example of a search with `n_jobs`, no line of the user is on the stack. The warning
    then has the line in skae that issues it.
    """
    # Level 1 is this function, and level 2 the function that calls it.
    level, frame = 2, sys._getframe(1)
    caller: FrameType | None = frame
    while caller is not None and not _is_of_user(caller.f_code.co_filename):
        # `warnings.warn` does not count these frames.
        name = caller.f_code.co_filename
        if not ("importlib" in name and "_bootstrap" in name):
            level += 1
        caller = caller.f_back
    warnings.warn(message, category, stacklevel=2 if caller is None else level)


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
