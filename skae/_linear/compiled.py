"""Whether loops over rows with missing values are compiled, by Numba if they are long enough."""

from collections.abc import Callable
from importlib import import_module
from types import ModuleType
from typing import Any

import numpy as np
from numpy.typing import NDArray

from skae._linear.packed import invert_packed

Array = NDArray[np.float64]

# Smallest numbers of multiplications and of entries in one pass for which loading the compiled
# code takes less time than it saves in the passes of a fit.
WORTH_COMPILING = {"invert": 10_000_000, "centre": 20_000_000}


def kernels(loop: str, length: int) -> ModuleType | None:
    """The module of compiled loops, if the loop is that long and Numba can be imported."""
    if length < WORTH_COMPILING[loop]:
        return None
    try:
        return import_module("skae._linear.kernels")
    except ImportError:
        return None


def inverter(n_latents: int, n_matrices: int) -> Callable[[NDArray[Any]], Array]:
    """A function like `invert_packed`, for so many matrices in all."""
    loops = kernels("invert", n_matrices * n_latents**3)
    if loops is None:
        return invert_packed

    def invert(matrices: NDArray[Any]) -> Array:
        log_det = np.empty(matrices.shape[1])
        loops.invert(matrices, n_latents, log_det, loops.LANES)
        return log_det

    return invert
