"""How functions are compiled by Numba. Only modules of such functions import this one."""

from collections.abc import Callable
from typing import Any

from numba import njit


def compiled(*fastmath: str) -> Callable[[Any], Any]:
    """Compile a function that releases the interpreter lock, so that threads run it in parallel.

    The compiled code is kept on disk for other processes, if there is a folder to write to. Numba
    compiles it again when the file of the function changes, but not when this file changes.

    Parameters
    ----------
    *fastmath : str
        Flags of LLVM that allow to change the order of operations.
    """
    flags = set(fastmath) or False

    def decorate(function: Any) -> Any:
        options: Any = {"nogil": True, "error_model": "numpy", "fastmath": flags}
        try:
            return njit(cache=True, **options)(function)
        except RuntimeError:  # no folder
            return njit(**options)(function)

    return decorate
