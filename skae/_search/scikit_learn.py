"""Private names of the searches of scikit-learn, and functions with some names replaced.

The private names that estimators need are in `skae._utils.validation`; those of searches load many
more modules.
"""

from collections.abc import Callable
from inspect import unwrap
from types import FunctionType
from typing import Any, TypeVar

from sklearn.base import _fit_context
from sklearn.metrics._scorer import _BaseScorer, _MultimetricScorer, _PassthroughScorer
from sklearn.model_selection._search import BaseSearchCV
from sklearn.model_selection._validation import _fit_and_score, _score, cross_validate
from sklearn.utils._param_validation import validate_params as _validate_params
from sklearn.utils.metadata_routing import _routing_enabled
from sklearn.utils.metaestimators import _safe_split

__all__ = [
    "BaseSearchCV",
    "callbacks_of",
    "cross_validate",
    "cross_validate_constraints",
    "fit_and_score",
    "is_own_score",
    "reads_predictions_only",
    "routing_enabled",
    "safe_split",
    "score",
    "search_fit_context",
    "validate_params",
    "with_names",
]

cross_validate_constraints = cross_validate._skl_parameter_constraints
fit_and_score = _fit_and_score
routing_enabled = _routing_enabled
safe_split = _safe_split
score = _score

Function = TypeVar("Function", bound=Callable[..., Any])


def search_fit_context(method: Function) -> Function:
    """Decorate the `fit` of a search, so that it validates the parameters of the search."""
    decorated: Function = _fit_context(prefer_skip_nested_validation=False)(method)
    return decorated


def validate_params(
    constraints: dict[str, Any], *, prefer_skip_nested_validation: bool
) -> Callable[[Function], Function]:
    """`sklearn.utils._param_validation.validate_params`, with types."""
    decorate: Callable[[Function], Function] = _validate_params(
        constraints, prefer_skip_nested_validation=prefer_skip_nested_validation
    )
    return decorate


def with_names(function: Any, **names: Any) -> Callable[..., Any]:
    """Return a function, without its decorators, with some global names replaced.

    This runs the code of the installed version of scikit-learn, without a copy of it, and without
    changing it for other users.
    """
    plain = unwrap(function)
    unknown = names.keys() - plain.__globals__.keys()
    if unknown:  # a later version of scikit-learn may not have these names
        raise AttributeError(f"{plain.__qualname__} does not use the names {sorted(unknown)}.")
    bound = FunctionType(
        plain.__code__,
        {**plain.__globals__, **names},
        plain.__name__,
        plain.__defaults__,
        plain.__closure__,
    )
    bound.__kwdefaults__ = plain.__kwdefaults__
    return bound


def is_own_score(scorer: Any) -> bool:
    """Whether a scorer is the `score` of the estimator."""
    return type(scorer) is _PassthroughScorer


def reads_predictions_only(scorer: Any) -> bool:
    """Whether a scorer only uses what the methods of an estimator return.

    This is the case for all scorers of scikit-learn, also for several scorers together.
    """
    if type(scorer) is _MultimetricScorer:
        return all(map(reads_predictions_only, scorer._scorers.values()))
    known = type(scorer).__module__.startswith("sklearn.")
    return is_own_score(scorer) or (known and isinstance(scorer, _BaseScorer))


def callbacks_of(context: Any) -> list[Any]:
    """The callbacks of a task; none without a context."""
    return list(getattr(context, "_callbacks", ()))
