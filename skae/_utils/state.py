"""What a fit leaves on an estimator, and how it is taken back."""

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import numpy as np

from skae._utils.memory import memory_for_learning

# How the names of attributes begin that scikit-learn itself gives to estimators: the output
# container, metadata requests, callbacks and their contexts.
_OF_SCIKIT_LEARN = ("_sklearn", "_skl", "_metadata_request", "_parent_callback", "_callback")


def learned_names(estimator: Any) -> list[str]:
    """Names of the attributes that fits gave to an estimator: private, or with an underscore
    behind; what scikit-learn holds there is no part of them."""
    return [
        name
        for name in vars(estimator)
        if (name.endswith("_") or name[0] == "_") and not name.startswith(_OF_SCIKIT_LEARN)
    ]


@contextmanager
def all_or_nothing(estimator: Any) -> Iterator[None]:
    """Undo every change to the estimator's attributes if the block fails.

    Overflow is left to the models, which find it in their results and say so.
    """
    before = estimator.__dict__.copy()
    try:
        with np.errstate(over="ignore", invalid="ignore"), memory_for_learning(estimator):
            yield
    except BaseException:
        estimator.__dict__.clear()
        estimator.__dict__.update(before)
        raise
