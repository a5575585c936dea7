"""Handling of Ctrl-C during training.

The first Ctrl-C in the `fit` of an estimator ends the training. The state after the last complete
epoch or iteration is kept, and a warning is issued. In the following cases Ctrl-C raises
KeyboardInterrupt, and the estimator stays as it was before the call:

- inside a Pipeline or a search of scikit-learn, which would compare an incomplete fit with
  complete fits,
- inside another estimator of skae,
- before the first epoch or iteration is complete, and
- at the second Ctrl-C.
"""

from collections.abc import Iterator
from contextlib import contextmanager
from contextvars import ContextVar

from skae._utils.warning import warn

_inside_another = ContextVar("skae_inside_another_fit", default=False)


def keeps_progress(estimator: object) -> bool:
    """Whether the first Ctrl-C ends the `fit` of the estimator early, without an error.

    Meta-estimators of scikit-learn give a callback context to the estimators that they fit, also
    if no callbacks are set. This shows that a fit runs inside of another estimator.
    """
    return not (_inside_another.get() or hasattr(estimator, "_parent_callback_ctx"))


@contextmanager
def inside_another_fit() -> Iterator[None]:
    """Every Ctrl-C in the block raises KeyboardInterrupt."""
    token = _inside_another.set(True)
    try:
        yield
    finally:
        _inside_another.reset(token)


def warn_of_interruption(unit: str, n_complete: int) -> None:
    """Warn that the state after `n_complete` complete epochs or iterations is kept."""
    warn(
        f"Training was interrupted in {unit} {n_complete + 1}; the state after {unit} "
        f"{n_complete} is kept."
    )
