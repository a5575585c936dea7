"""Searches of scikit-learn as base classes with types; see `skae._utils.bases`."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, ClassVar

from numpy.typing import ArrayLike, NDArray

from skae._utils.bases import BaseEstimator, CallbackSupportMixin
from skae._utils.types import ArrayOrFrame

__all__ = ["BaseSearchCV", "GridSearchCV", "RandomizedSearchCV"]

if TYPE_CHECKING:

    class BaseSearchCV(CallbackSupportMixin, BaseEstimator):
        _parameter_constraints: ClassVar[dict[str, list[Any]]]

        estimator: Any
        scoring: Any

        cv_results_: dict[str, Any]
        best_estimator_: Any
        best_score_: float
        best_params_: dict[str, Any]
        best_index_: int
        scorer_: Any
        n_splits_: int
        refit_time_: float
        multimetric_: bool
        classes_: NDArray[Any]

        def __init__(self, **params: Any) -> None: ...
        def fit(self, X: Any, y: Any = None, **params: Any) -> Any: ...
        def score(self, X: ArrayLike, y: Any = None, **params: Any) -> float: ...
        def score_samples(self, X: ArrayLike) -> NDArray[Any]: ...
        def predict(self, X: ArrayLike) -> NDArray[Any]: ...
        def predict_proba(self, X: ArrayLike) -> NDArray[Any]: ...
        def predict_log_proba(self, X: ArrayLike) -> NDArray[Any]: ...
        def decision_function(self, X: ArrayLike) -> NDArray[Any]: ...
        def transform(self, X: ArrayLike) -> ArrayOrFrame: ...
        def inverse_transform(self, X: ArrayLike) -> ArrayOrFrame: ...

    class GridSearchCV(BaseSearchCV): ...

    class RandomizedSearchCV(BaseSearchCV): ...

else:
    from sklearn.model_selection import GridSearchCV, RandomizedSearchCV

    from skae._search.scikit_learn import BaseSearchCV
