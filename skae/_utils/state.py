"""What a fit leaves on an estimator, and how it is taken back."""

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import numpy as np

from skae._utils.memory import memory_for_learning

# Where an estimator holds the private names that were learned: a user may give it others.
_LEARNED = "_learned_names"
# How the names of attributes begin that scikit-learn itself gives to estimators: the output
# container, metadata requests, callbacks and their contexts.
_OF_SCIKIT_LEARN = ("_sklearn", "_skl", "_metadata_request", "_parent_callback", "_callback")


def learned_names(estimator: Any) -> list[str]:
    """Names of the attributes that fits gave to an estimator, or that end as such do."""
    learned = _learned_private_names(vars(estimator))
    return [name for name in vars(estimator) if name in learned or name.endswith("_")]


def _learned_private_names(attributes: dict[str, Any]) -> list[str]:
    if _LEARNED in attributes:
        return list(attributes[_LEARNED])
    # Of what was loaded from a file of an earlier version, all private ones.
    is_fitted = any(name.endswith("_") for name in attributes)
    return _private_names(attributes) if is_fitted else []


def _private_names(attributes: dict[str, Any]) -> list[str]:
    return [n for n in attributes if n[0] == "_" and not n.startswith(_OF_SCIKIT_LEARN)]


@contextmanager
def all_or_nothing(estimator: Any) -> Iterator[None]:
    """Undo every change to the estimator's attributes if the block fails; note what it learned.

    Overflow is left to the models, which find it in their results and say so.
    """
    before = estimator.__dict__.copy()
    known = _learned_private_names(before)
    try:
        with np.errstate(over="ignore", invalid="ignore"), memory_for_learning(estimator):
            yield
        names = _private_names(vars(estimator))
        learned = {_LEARNED, *(name for name in names if name in known or name not in before)}
        setattr(estimator, _LEARNED, tuple(sorted(learned)))
    except BaseException:
        estimator.__dict__.clear()
        estimator.__dict__.update(before)
        raise
