"""Names of what a fit is part of: a fold, a candidate of a search, a start, a member.

Estimators that fit other estimators state these names in a context, and the progress of a training
shows them.
"""

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from contextvars import ContextVar
from inspect import signature
from typing import Any, NamedTuple

# Largest number of characters of a value, and of all names together.
_LONGEST_VALUE, _LONGEST = 30, 100
# Parameters that say nothing about the model.
_UNTOLD = {"verbose", "random_state", "callbacks", "device", "n_jobs"}


class Part(NamedTuple):
    """A fold, a start or the like with its number, or a parameter with its value."""

    kind: str
    value: str
    is_numbered: bool

    def __str__(self) -> str:
        return f"{self.kind} {self.value}" if self.is_numbered else f"{self.kind}={self.value}"


_parts: ContextVar[tuple[Part, ...]] = ContextVar("skae_parts_of_fits", default=())


def numbered(kind: str, index: int, total: int) -> Part:
    """A part such as "fold 3 of 5", which has the index 2."""
    return Part(kind, f"{index + 1} of {total}", True)


def parameter(name: str, value: Any) -> Part:
    """A part such as "n_components=8"."""
    text = " ".join((value if isinstance(value, str) else _written(value)).split())
    return Part(name, _cut(text, _LONGEST_VALUE), False)


# The fit of a search to all rows, after the best candidate has been found.
REFIT = Part("refit", "on all rows", True)


def present_parts() -> tuple[Part, ...]:
    """The parts that the present fit belongs to, the outermost first."""
    return _parts.get()


@contextmanager
def part_of(*parts: Part, within: tuple[Part, ...] | None = None) -> Iterator[None]:
    """Fits in the block belong to these parts, within the present parts or those of `within`."""
    token = _parts.set((*(_parts.get() if within is None else within), *parts))
    try:
        yield
    finally:
        _parts.reset(token)


def described(fits: Sequence[tuple[Part, ...]]) -> str:
    """One text for the parts of one or several fits, such as "5 folds, n_components=2, 4, 8"."""
    values: dict[tuple[str, bool, int], list[str]] = {}
    for parts in fits:
        for i, part in enumerate(parts):
            # The number of earlier parts of this kind: a fold may contain a search with folds.
            n_before = sum(other.kind == part.kind for other in parts[:i])
            known = values.setdefault((part.kind, part.is_numbered, n_before), [])
            if part.value not in known:
                known.append(part.value)
    texts = []
    for (kind, is_numbered, _), known in values.items():
        if is_numbered and len(known) > 1:
            texts.append(f"{len(known)} {kind}s")
        else:
            texts.append(str(Part(kind, ", ".join(known), is_numbered)))
    return _cut(", ".join(texts), _LONGEST)


def parts_in_search(estimator: Any, context: Any) -> tuple[Part, ...]:
    """The parts of a fit in a search of scikit-learn; none elsewhere.

    `context` is the callback context of the fit. It contains the number of the fit among all fits
    of the search, but neither the fold nor the candidate. The candidate is described by
    `n_components`, and by the parameters of the estimator that differ from their defaults.
    """
    if present_parts():  # a search of skae, which knows the fold and the candidate
        return ()
    while context is not None:
        task = context.source_task_name or context.task_name
        if task == "refit-with-best-params":
            return (REFIT,)
        if task == "candidate-split-evaluation":
            number = numbered("fit", context.task_id, context.parent.max_subtasks)
            return (number, *_changed_parameters(estimator))
        context = context.parent
    return ()


def _changed_parameters(estimator: Any) -> Iterator[Part]:
    defaults = signature(type(estimator)).parameters
    params = estimator.get_params(deep=False)
    for name in sorted(params.keys() - _UNTOLD, key=lambda name: (name != "n_components", name)):
        known = name in defaults and repr(defaults[name].default) == repr(params[name])
        if name == "n_components" or not known:
            yield parameter(name, params[name])


def _written(value: Any) -> str:
    return str(getattr(value, "__name__", None) or repr(value))


def _cut(text: str, longest: int) -> str:
    return text if len(text) <= longest else f"{text[: longest - 3]}..."
