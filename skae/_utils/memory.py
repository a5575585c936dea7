"""Errors for a lack of memory, as MemoryErrors that name the parameters to change."""

import functools
import inspect
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from types import FunctionType
from typing import Any, TypeVar

Method = TypeVar("Method", bound=Callable[..., Any])

# Methods that learn. Their memory depends on the parameters of the estimator.
_LEARN = ("fit", "fit_transform", "partial_fit")

# Messages of torch and NumPy for a lack of memory, and for sizes that no memory has, in errors that
# are not MemoryErrors.
_SAID = (
    "not enough memory",
    "can't allocate memory",
    "out of memory",
    "Storage size calculation overflowed",
    "Overflow when unpacking long",
    "Maximum allowed dimension exceeded",
    "Maximum allowed size exceeded",
    "array is too big",
    "too large to convert to C",
    "maximum supported dimension",
)
_KINDS = (MemoryError, RuntimeError, ValueError, TypeError, OverflowError)
# Arguments of methods on which the amount of memory depends.
_SIZES = ("n_samples", "n_draws", "n_importance", "n")


def advises_on_memory(method: Method) -> Method:
    """Decorate a public method so that its MemoryErrors name the arguments to change."""
    if hasattr(method, "_advises_on_memory"):
        return method
    signature = inspect.signature(method)

    @functools.wraps(method)
    def call(self: Any, *args: Any, **kwargs: Any) -> Any:
        try:
            return method(self, *args, **kwargs)
        except _KINDS as error:
            if not is_lack_of_memory(error):
                raise
            given = signature.bind(self, *args, **kwargs)
            given.apply_defaults()
            sizes = {name: given.arguments.get(name) for name in _SIZES}
            advice = [f"reduce {name} (now {value})" for name, value in sizes.items() if value]
            if "X" in given.arguments:
                advice.append("give fewer rows at a time")
            raise _advised(self, method.__name__, advice, error) from error

    call._advises_on_memory = True  # type: ignore[attr-defined]
    return call  # type: ignore[return-value]


def advise_on_memory_everywhere(cls: type) -> None:
    """Apply `advises_on_memory` to the public methods of a class that do not learn.

    Methods that the class inherits from other classes of skae are included.
    """
    for base in cls.__mro__:
        if not base.__module__.startswith("skae."):
            continue
        for name, method in list(vars(base).items()):
            if isinstance(method, FunctionType) and name[0] != "_" and name not in _LEARN:
                setattr(base, name, advises_on_memory(method))


@contextmanager
def advice_on_memory(advice: str) -> Iterator[None]:
    """Add advice to the message of a MemoryError of the block."""
    try:
        yield
    except MemoryError as error:
        raise MemoryError(f"{str(error).rstrip('.') or 'Out of memory'}. {advice}") from error


@contextmanager
def memory_for_learning(estimator: Any) -> Iterator[None]:
    """Raise a lack of memory in the block as a MemoryError that names parameters to change."""
    try:
        yield
    except _KINDS as error:
        if not is_lack_of_memory(error):
            raise
        advice = []
        params = estimator.get_params(deep=False)
        if "batch_size" in params:
            advice.append(f"reduce batch_size (now {params['batch_size']})")
        if "hidden_layer_sizes" in params:
            advice.append(f"reduce hidden_layer_sizes (now {params['hidden_layer_sizes']})")
        advice.append("reduce n_components or give fewer features")
        if hasattr(estimator, "partial_fit"):
            advice.append("learn from fewer rows at a time with partial_fit")
        else:
            advice.append("give fewer rows")
        raise _advised(estimator, "fit", advice, error) from error


def is_lack_of_memory(error: Exception) -> bool:
    """Whether an error of Python, NumPy or torch says that there is not enough memory."""
    if isinstance(error, MemoryError):  # a MemoryError with a message has advice already
        return type(error) is not MemoryError or str(error) in ("", "std::bad_alloc")
    return any(text in str(error) for text in _SAID)


def _advised(estimator: Any, method: str, advice: list[str], error: Exception) -> MemoryError:
    if getattr(estimator, "device", "cpu") != "cpu":
        advice.append("or set device='cpu' if the memory of the device is too small")
    reason = (str(error).splitlines() or [""])[0].rstrip(". ")
    return MemoryError(
        f"{type(estimator).__name__}.{method} is out of memory"
        f"{f' ({reason})' if reason else ''}: {'; '.join(advice) or 'use smaller arguments'}."
    )
