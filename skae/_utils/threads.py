"""Work in threads."""

from collections.abc import Callable, Iterable, Iterator
from typing import Any, TypeVar

import numpy as np
from joblib import Parallel, delayed

_Result = TypeVar("_Result")


def in_threads(
    work: Callable[[Any], _Result], items: Iterable[Any], n_jobs: int | None
) -> Iterator[_Result]:
    """Results of `work` on each item, in the order of the items.

    Threads are always used, also if the user has set a backend of processes, because `work` may
    write into arrays that it shares with the caller. NumPy releases the interpreter lock while it
    computes. The threads get the settings of the caller for floating-point errors.
    """
    errors = np.geterr()

    def as_here(item: Any) -> _Result:
        with np.errstate(**errors):
            return work(item)

    threads = Parallel(n_jobs=n_jobs, prefer="threads", require="sharedmem")
    yield from threads(delayed(as_here)(item) for item in list(items))
