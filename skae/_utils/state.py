"""Attributes that a fit sets on an estimator, and how they are restored after an error."""

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import numpy as np

from skae._utils.memory import memory_for_learning

# Attribute with the names of the private attributes that fits have set. Private attributes that
# users set are not among them.
_LEARNED = "_learned_names"
# Prefixes of attributes that scikit-learn sets on estimators: the output container, metadata
# requests, callbacks and their contexts.
_OF_SCIKIT_LEARN = ("_sklearn", "_skl", "_metadata_request", "_parent_callback", "_callback")


def learned_names(estimator: Any) -> list[str]:
    """Names of the attributes that fits have set, and of all that end in an underscore."""
    learned = _learned_private_names(vars(estimator))
    return [name for name in vars(estimator) if name in learned or name.endswith("_")]


def _learned_private_names(attributes: dict[str, Any]) -> list[str]:
    if _LEARNED in attributes:
        return list(attributes[_LEARNED])
    # Files of earlier versions do not have these names; all private attributes are then used.
    is_fitted = any(name.endswith("_") for name in attributes)
    return _private_names(attributes) if is_fitted else []


def _private_names(attributes: dict[str, Any]) -> list[str]:
    return [n for n in attributes if n[0] == "_" and not n.startswith(_OF_SCIKIT_LEARN)]


@contextmanager
def all_or_nothing(estimator: Any) -> Iterator[None]:
    """Restore the attributes of the estimator if the block raises; otherwise store their names.

    Warnings about overflow are ignored, because the models check their results for it.
    """
    before = estimator.__dict__.copy()
    known = _learned_private_names(before)
    with unchanged_by_errors(estimator):
        with np.errstate(over="ignore", invalid="ignore"), memory_for_learning(estimator):
            yield
        names = _private_names(vars(estimator))
        learned = {_LEARNED, *(name for name in names if name in known or name not in before)}
        setattr(estimator, _LEARNED, tuple(sorted(learned)))


@contextmanager
def unchanged_by_errors(estimator: Any) -> Iterator[None]:
    """Restore the attributes of the estimator if the block raises."""
    before = estimator.__dict__.copy()
    try:
        yield
    except BaseException:
        estimator.__dict__.clear()
        estimator.__dict__.update(before)
        raise
