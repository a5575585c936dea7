"""How many matrices are inverted: by compiled loops, if Numba is installed and they are many."""

from collections.abc import Callable
from importlib import import_module
from typing import Any

import numpy as np
from numpy.typing import NDArray

from skae._linear.packed import invert_packed

Array = NDArray[np.float64]

# Smallest number of multiplications for which loading the compiled code takes less time than it
# saves in the steps of a fit.
WORTH_COMPILING = 10_000_000


def inverter(n_latents: int, n_matrices: int) -> Callable[[NDArray[Any]], Array]:
    """A function like `invert_packed`, for so many matrices in all."""
    if n_matrices * n_latents**3 < WORTH_COMPILING:
        return invert_packed
    try:
        loops = import_module("skae._linear.kernels")
    except ImportError:
        return invert_packed

    def invert(matrices: NDArray[Any]) -> Array:
        log_det = np.empty(matrices.shape[1])
        loops.invert(matrices, n_latents, log_det, loops.LANES)
        return log_det

    return invert
