"""Whether loops are compiled, by Numba if it is installed and the fit is large."""

from importlib import import_module
from types import ModuleType
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray

from skae._mixture.component_search import Tree, tree_of_halves
from skae._utils.threads import in_threads

Array = NDArray[Any]
Indices = NDArray[np.intp]

# Smallest number of rows for which loading the compiled code takes less time than it saves.
WORTH_COMPILING = 100_000

# Number of levels of a tree that are built by one thread, before the branches are shared.
_SHARED_FROM = 4


def kernels(
    n_rows: int, room: Literal["kernels", "cell_kernels", "component_kernels"]
) -> ModuleType | None:
    """The module of compiled loops, for at least so many rows and if Numba can be imported."""
    if n_rows < WORTH_COMPILING:
        return None
    try:
        return import_module(f"skae._mixture.{room}")
    except ImportError:
        return None


def tree_of_rows(X: Array, n_members: int, n_jobs: int | None) -> Tree:
    """`build_tree` of points, by compiled loops. Rows of equal coordinates may change places."""
    from skae._mixture import cell_kernels as loops

    def halve(points: Array, place: Indices, depth: int) -> tuple[Array, Indices]:
        n = len(place)
        shared = min(depth, _SHARED_FROM)
        loops.halve(points, place, 0, n, shared)
        edges = np.arange(2**shared + 1) * (n >> shared)

        def work(branch: int) -> None:
            loops.halve(points, place, edges[branch], edges[branch + 1], depth - shared)

        list(in_threads(work, range(2**shared), n_jobs))
        return points, place

    return tree_of_halves(X, X, n_members, halve)
