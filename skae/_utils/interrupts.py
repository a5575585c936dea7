"""Ctrl-C while a model is trained: when what was learned so far is kept, and when it is raised.

The first Ctrl-C in an estimator's own `fit` ends the training; what the last complete epoch or
iteration left is kept, with a warning. It is raised, and the model is as before the call,

- inside a Pipeline or a search of scikit-learn, where a fit that was cut short would be ranked
  beside complete ones,
- inside another estimator of skae,
- before the first epoch or iteration is complete, and
- at a second Ctrl-C.
"""

import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from contextvars import ContextVar

_inside_another = ContextVar("skae_inside_another_fit", default=False)


def keeps_progress(estimator: object) -> bool:
    """Whether a first Ctrl-C may end the estimator's `fit` early, and not be raised.

    scikit-learn's meta-estimators tell what they fit by a callback context, whether or not
    callbacks are set.
    """
    return not (_inside_another.get() or hasattr(estimator, "_parent_callback_ctx"))


@contextmanager
def inside_another_fit() -> Iterator[None]:
    """In the block every Ctrl-C is raised."""
    token = _inside_another.set(True)
    try:
        yield
    finally:
        _inside_another.reset(token)


def warn_of_interruption(unit: str, n_complete: int, stacklevel: int = 3) -> None:
    """Say that the state after so many complete epochs or iterations is kept."""
    warnings.warn(
        f"Training was interrupted in {unit} {n_complete + 1}; the state after {unit} "
        f"{n_complete} is kept.",
        UserWarning,
        stacklevel=stacklevel,
    )
