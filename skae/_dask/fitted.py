"""A fitted estimator as one constant of a graph, and how a method is called on a block."""

import hashlib
import pickle
import sys
import threading
from dataclasses import dataclass
from multiprocessing import parent_process
from typing import Any

import numpy as np
from sklearn import config_context

from skae._utils.concurrency import one_of_many
from skae._utils.warning import ignoring


class Fitted:
    """A copy of a fitted estimator, which later fits of the original do not change.

    The estimator is pickled once, and each process restores it once for consecutive tasks. The
    hash of its pickle names the constant, so that equal computations have equal keys.
    """

    def __init__(self, pickled: bytes, container: str | None) -> None:
        self.pickled, self.container = pickled, container
        self.name = hashlib.sha256(pickled + str(container).encode()).hexdigest()[:32]
        self._lock = threading.Lock()
        self._model: Any = None

    @classmethod
    def of(cls, estimator: Any, container: str | None) -> "Fitted":
        """A copy of an estimator whose results are in this container; None changes nothing."""
        import cloudpickle

        return cls(cloudpickle.dumps(estimator), container)

    @property
    def model(self) -> Any:
        """The estimator, which several threads share."""
        with self._lock:
            if self._model is None:
                self._model = pickle.loads(self.pickled)
                if self.container is not None:
                    self._model.set_output(transform=self.container)
            return self._model

    def __reduce__(self) -> Any:
        return _restored, (self.pickled, self.container)

    def __dask_tokenize__(self) -> str:
        return self.name

    def __sizeof__(self) -> int:
        return len(self.pickled)


_last: Fitted | None = None


def _restored(pickled: bytes, container: str | None) -> Fitted:
    """The last estimator of this process if it is the same one, so that it is read only once."""
    global _last
    last = _last
    if last is None or last.pickled != pickled or last.container != container:
        last = _last = Fitted(pickled, container)
    return last


@dataclass(frozen=True, eq=False)
class Call:
    """A method of a fitted estimator with its keywords, for one block.

    `empty` is the result for no rows, which says what other results are like. `part` is the
    position of the result in a tuple of results. `as_array` says whether partitions of data frames
    are given to the method as arrays.
    """

    fitted: Fitted
    method: str
    keywords: dict[str, Any]
    config: dict[str, Any]
    empty: Any = None
    part: int | None = None
    as_array: bool = False

    def __call__(self, rows: Any, seed: Any = None, **beside: Any) -> Any:
        if not rows.shape[0]:
            return self.empty
        index = getattr(rows, "index", None)
        rows = rows.to_numpy() if self.as_array else rows
        if seed is not None:
            beside["random_state"] = int(np.ravel(seed)[0])
        with one_of_many(_others_compute()), ignoring("X (has|does not have valid) feature names"):
            found = self.found(rows, **beside)
        return found if index is None else in_frame(found, self.empty, index)

    def __dask_tokenize__(self) -> Any:
        parts = (self.fitted.name, self.method, self.keywords, self.part, self.as_array)
        return normalized((*parts, sorted(self.config.items(), key=str), self.empty))

    def found(self, rows: Any, **beside: Any) -> Any:
        """What the method returns."""
        with config_context(**self.config):
            found = getattr(self.fitted.model, self.method)(rows, **self.keywords, **beside)
        return found if self.part is None else found[self.part]


def normalized(values: Any) -> Any:
    """What Dask computes keys from."""
    from dask.tokenize import normalize_token

    return normalize_token(values)


def in_frame(found: Any, like: Any, index: Any) -> Any:
    """Results of a partition in the container and with the names of `like`."""
    import pandas as pd

    if isinstance(like, pd.Series):
        return pd.Series(np.asarray(found), index=index)
    if isinstance(like, pd.DataFrame):
        if isinstance(found, pd.DataFrame):
            return found.set_axis(index, axis=0)
        return pd.DataFrame(np.asarray(found), index=index, columns=like.columns)
    return found


def _others_compute() -> bool:
    """Whether a scheduler of Dask computes other blocks on this machine at the same time."""
    if threading.current_thread() is threading.main_thread():
        return parent_process() is not None
    distributed = sys.modules.get("distributed")
    if distributed is not None:
        try:
            return int(distributed.get_worker().state.nthreads) > 1
        except ValueError:  # this is not a worker of a cluster
            pass
    return True
