"""Fitted Pipelines: the estimator that a search found, and the way through the steps and back."""

from typing import Any

from sklearn.frozen import FrozenEstimator
from sklearn.pipeline import Pipeline
from sklearn.preprocessing import FunctionTransformer
from sklearn.utils.validation import check_is_fitted

# Modules of imputers, which fill in values and change no others.
_OF_IMPUTERS = ("sklearn.impute.", "skae._ppca_imputer")


def best_of(estimator: Any) -> Any:
    """The estimator inside of a fitted search or a FrozenEstimator; otherwise the estimator."""
    if isinstance(estimator, FrozenEstimator):
        return best_of(estimator.estimator)
    if not (hasattr(estimator, "refit") and hasattr(estimator, "estimator")):
        return estimator
    check_is_fitted(estimator, "cv_results_")
    if not hasattr(estimator, "best_estimator_"):
        raise TypeError(
            f"{type(estimator).__name__} was fitted with refit={estimator.refit!r} and therefore "
            "has no best_estimator_. Set refit=True, or give a fitted estimator."
        )
    return best_of(estimator.best_estimator_)


def is_skipped(step: Any) -> bool:
    """Whether a step of a Pipeline is None or "passthrough"."""
    return step is None or (isinstance(step, str) and step == "passthrough")


def taken_steps(pipeline: Pipeline) -> list[tuple[str, Any]]:
    """Names and estimators of the steps that are not skipped."""
    return [(name, step) for name, step in pipeline.steps if not is_skipped(step)]


def first_member(model: Any) -> Any:
    """The model in the first member of a fitted Ensemble; any other model itself."""
    if getattr(model, "score_kind", None) is None or not hasattr(model, "estimators_"):
        return model
    member = best_of(model.estimators_[0])
    return best_of(taken_steps(member)[-1][1]) if isinstance(member, Pipeline) else member


def fills_values(step: Any) -> bool:
    """Whether a step is an imputer of scikit-learn or of skae."""
    return type(step).__module__.startswith(_OF_IMPUTERS) and hasattr(step, "add_indicator")


def keeps_columns(imputer: Any) -> bool:
    """Whether the first columns of a fitted imputer are all columns of its input."""
    n = imputer.n_features_in_
    names = getattr(imputer, "feature_names_in_", [f"x{i}" for i in range(n)])
    return list(imputer.get_feature_names_out()[:n]) == list(names)


def is_identity(step: Any) -> bool:
    """Whether a step is a FunctionTransformer that returns its rows as they are."""
    return isinstance(step, FunctionTransformer) and step.func is None
