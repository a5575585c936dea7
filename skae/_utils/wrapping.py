"""Estimators inside of others: Pipelines, searches and FrozenEstimators; weights and seeds."""

from inspect import signature
from typing import Any

import numpy as np
from sklearn.frozen import FrozenEstimator
from sklearn.pipeline import Pipeline


def model_of(estimator: Any) -> Any:
    """The model inside of Pipelines (the last step), searches and FrozenEstimators."""
    while True:
        inside = _inside(estimator)
        if inside is None:
            return estimator
        estimator = inside


def rows_for_model(estimator: Any, X: Any) -> Any:
    """Rows as the model inside of a fitted estimator gets them, after all steps before it."""
    while (inside := _inside(estimator)) is not None:
        if isinstance(estimator, Pipeline) and len(estimator) > 1:
            X = estimator[:-1].transform(X)
        estimator = inside
    return X


def _inside(estimator: Any) -> Any | None:
    if isinstance(estimator, Pipeline):
        return estimator.steps[-1][1]
    if isinstance(estimator, FrozenEstimator):
        return estimator.estimator
    if hasattr(estimator, "refit") and hasattr(estimator, "estimator"):
        return getattr(estimator, "best_estimator_", estimator.estimator)
    return None


def takes_weights(fit: Any) -> bool:
    """Return whether a method has a parameter sample_weight."""
    return "sample_weight" in signature(fit).parameters


def seeded(estimator: Any, rng: np.random.RandomState) -> Any:
    """Return the estimator with a seed for every random_state that is None."""
    if isinstance(estimator, FrozenEstimator):
        return estimator
    params = estimator.get_params(deep=True)
    open_ones = {
        name: int(rng.randint(2**31 - 1))
        for name in sorted(params)
        if (name == "random_state" or name.endswith("__random_state")) and params[name] is None
    }
    return estimator.set_params(**open_ones)
