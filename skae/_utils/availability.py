"""Methods that are there for some parameters only, and say why when they are not."""

from collections.abc import Callable
from functools import update_wrapper
from typing import Any, cast

from sklearn.utils.metaestimators import available_if as silent_available_if


class _Available:
    """scikit-learn's descriptor, whose AttributeError tells the reason of its cause, too."""

    def __init__(self, method: Callable[..., Any], check: Callable[[Any], bool]) -> None:
        self._descriptor = silent_available_if(check)(method)
        update_wrapper(cast(Any, self), method)

    def __get__(self, obj: Any, owner: type | None = None) -> Any:
        try:
            return self._descriptor.__get__(obj, owner)
        except AttributeError as error:
            if error.__cause__ is None:
                raise
            raise AttributeError(f"{error}: {error.__cause__}") from error.__cause__


def available_if(check: Callable[[Any], bool]) -> Callable[[Callable[..., Any]], Any]:
    """A decorator as `sklearn.utils.metaestimators.available_if`: a method is only there where
    the check of its object is true, and raises no AttributeError; which says why."""
    return lambda method: _Available(method, check)
