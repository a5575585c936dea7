"""Methods that exist only for some values of parameters, with a reason if they do not."""

from collections.abc import Callable
from functools import update_wrapper
from typing import Any, TypeVar, cast

from sklearn.utils.metaestimators import available_if as available_if_of_scikit_learn

from skae._utils.memory import advises_on_memory

Method = TypeVar("Method", bound=Callable[..., Any])


class _Available:
    """The descriptor of scikit-learn, with the reason added to its AttributeError."""

    def __init__(self, method: Callable[..., Any], check: Callable[[Any], bool]) -> None:
        method = advises_on_memory(method)
        self._descriptor = available_if_of_scikit_learn(check)(method)
        update_wrapper(cast(Any, self), method)

    def __get__(self, obj: Any, owner: type | None = None) -> Any:
        try:
            return self._descriptor.__get__(obj, owner)
        except AttributeError as error:
            if error.__cause__ is None:
                raise
            raise AttributeError(f"{error}: {error.__cause__}") from error.__cause__


def available_if(check: Callable[[Any], bool]) -> Callable[[Method], Method]:
    """Decorate a method as `sklearn.utils.metaestimators.available_if` does, but with a reason.

    The method exists if `check(self)` is true and raises no AttributeError. The message of such an
    AttributeError is the reason that users see.
    """
    return lambda method: cast(Any, _Available(method, check))


def silent_available_if(check: Callable[[Any], bool]) -> Callable[[Method], Method]:
    """`sklearn.utils.metaestimators.available_if`, with types."""
    decorate: Callable[[Method], Method] = available_if_of_scikit_learn(check)
    return lambda method: decorate(advises_on_memory(method))
