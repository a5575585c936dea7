"""A fit by several processes: how they find each other, and what must be equal in all of them."""

import atexit
import os
from collections.abc import Iterator
from contextlib import contextmanager, nullcontext
from datetime import timedelta
from multiprocessing import parent_process
from typing import Any

import numpy as np
import torch
from torch import distributed

from skae._training.ranks import Ranks, present_ranks, training_by
from skae._utils.sparse_rows import dense
from skae._utils.warning import quietly

# Number of rows from which it is checked that all ranks were given the same rows.
_COMPARED = 64
# Variables by which torchrun tells a process its rank.
_VARIABLES = ("RANK", "WORLD_SIZE", "MASTER_ADDR", "MASTER_PORT")
# How long ranks wait for one that computes by itself. They notice at once if a process ends.
_PATIENCE = timedelta(days=1)
# Parameters that may have other values on other ranks.
_MAY_DIFFER = ("checkpoint_dir", "device", "n_jobs", "random_state", "verbose")


@contextmanager
def ranks_of_fit(estimator: Any, rng: np.random.RandomState, *given: Any) -> Iterator[None]:
    """Train together with the other ranks in the block, if the estimator has `distributed=True`.

    The generator `rng` gets the state of that of the first rank. `given` are the rows, and all else
    that must be equal on all ranks.
    """
    ranks = _ranks() if estimator.distributed and present_ranks() is None else None
    if ranks is None:
        yield
        return
    _check_parameters(ranks, estimator)
    _check_rows(ranks, given)
    rng.set_state(ranks.of_first(rng.get_state))
    try:
        with training_by(ranks), quietly() if ranks.rank else nullcontext():
            yield
    except BaseException as error:
        _known.clear()
        ranks.leave()
        if ranks.is_left_by_others(error):
            raise RuntimeError(
                "Another process of this training (distributed=True) ended it with an error, which "
                "it has reported."
            ) from error
        raise


def _ranks() -> Ranks | None:
    """Return the ranks of this process; None if it is the only one."""
    if not distributed.is_available():
        return None
    if not distributed.is_initialized():
        if not all(name in os.environ for name in _VARIABLES):
            return None
        if parent_process() is not None:
            raise ValueError(
                "distributed=True was given in a worker process, such as those of n_jobs, which "
                "torchrun does not know. Set n_jobs=1, or distributed=False."
            )
        with_cuda = torch.cuda.is_available() and distributed.is_nccl_available()
        distributed.init_process_group("cpu:gloo,cuda:nccl" if with_cuda else "gloo")
        atexit.register(_destroy_groups)
    if distributed.get_world_size() == 1:
        return None
    whole = distributed.group.WORLD
    if _known[:1] != [whole]:
        atexit.register(_forget_groups)  # before `_destroy_groups` at the exit
        messages = distributed.new_group(backend="gloo", timeout=_PATIENCE)
        _known[:] = whole, Ranks(messages)
    ranks: Ranks = _known[1]
    return ranks


# The default group of processes, and the ranks with a group for messages, made once for it.
_known: list[Any] = []


def _forget_groups() -> None:
    """Release the groups, also where fitted models hold the ranks.

    The threads of a group that still exists when the interpreter is torn down may abort the
    process.
    """
    if _known:
        _known[1].messages = None
    _known.clear()


def _destroy_groups() -> None:
    if distributed.is_initialized():
        distributed.destroy_process_group()


def _check_parameters(ranks: Ranks, estimator: Any) -> None:
    """Raise if ranks were given other estimators, or parameters of other values."""
    params = {
        name: repr(value) if _is_plain(value) else type(value).__name__
        for name, value in estimator.get_params().items()
        if name.rpartition("__")[2] not in _MAY_DIFFER
    }
    params["checkpoint_dir is None"] = str(estimator.checkpoint_dir is None)
    first, *others = ranks.all((type(estimator).__name__, params))
    for name, theirs in others:
        if name != first[0]:
            raise ValueError(
                f"With distributed=True, every rank must fit the same estimator; given {first[0]} "
                f"and {name}."
            )
        for key in sorted({*first[1], *theirs}):
            if first[1].get(key) != theirs.get(key):
                raise ValueError(
                    "With distributed=True, every rank must fit an estimator with the same "
                    f"parameters; {key} was given as {first[1].get(key)} and {theirs.get(key)}. If "
                    "it is drawn, for example by a search, set random_state of what draws it."
                )


def _is_plain(value: Any) -> bool:
    if isinstance(value, (list, tuple)):
        return all(map(_is_plain, value))
    return isinstance(value, (bool, int, float, str, type(None)))


def _check_rows(ranks: Ranks, given: tuple[Any, ...]) -> None:
    """Raise if ranks were given different rows, weights or targets."""
    found = ranks.all([_looks(value) for value in given])
    if any(other != found[0] for other in found[1:]):
        shapes = [looks[0][0] for looks in found]
        raise ValueError(
            f"With distributed=True, fit needs the same X, y and sample_weight on every rank, "
            f"which takes its own part of each batch; the ranks were given X of shapes {shapes}"
            f"{' with different values' if len(set(shapes)) == 1 else ''}. Give all rows to every "
            "rank, without a DistributedSampler. If rows are drawn, for example by a search or an "
            "OutlierDetector, set random_state of what draws them."
        )


def _looks(value: Any) -> Any:
    """Return the shape of an array, and some of its rows as bytes."""
    shape = getattr(value, "shape", None)
    if not shape:
        return None
    step = max(1, shape[0] // _COMPARED)
    some = np.asarray(dense(value[::step][:_COMPARED]))
    return tuple(shape), str(some.dtype), some.tobytes() if some.dtype != object else str(some)
