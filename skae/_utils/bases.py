"""Base classes of scikit-learn, with types.

scikit-learn has no types: to a type checker, a class that inherits from one of its classes has
every attribute, also a misspelt one, and all its methods return Any. Type checkers therefore see
the declarations below, which contain what the estimators of skae inherit. At run time the classes
are those of scikit-learn.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Self

import numpy as np
from numpy.typing import ArrayLike, NDArray

from skae._utils.types import Container

__all__ = [
    "BaseEstimator",
    "CallbackSupportMixin",
    "ClassNamePrefixFeaturesOutMixin",
    "MetaEstimatorMixin",
    "OutlierMixin",
    "TransformerMixin",
]

if TYPE_CHECKING:

    class BaseEstimator:
        n_features_in_: int
        feature_names_in_: NDArray[np.object_]

        def get_params(self, deep: bool = True) -> dict[str, Any]: ...
        def set_params(self, **params: Any) -> Self: ...
        def get_metadata_routing(self) -> Any: ...
        def set_fit_request(self, *, sample_weight: bool | str | None = ...) -> Self: ...
        def set_score_request(self, *, sample_weight: bool | str | None = ...) -> Self: ...
        def __sklearn_clone__(self) -> Self: ...
        def __sklearn_tags__(self) -> Any: ...
        def __getstate__(self) -> dict[str, Any]: ...
        def __setstate__(self, state: dict[str, Any]) -> None: ...
        def _repr_html_(self) -> str: ...
        def _validate_params(self) -> None: ...

    class MetaEstimatorMixin: ...

    class OutlierMixin:
        def fit_predict(
            self, X: ArrayLike, y: object = None, **fit_params: Any
        ) -> NDArray[np.int64]: ...
        def __sklearn_tags__(self) -> Any: ...

    class TransformerMixin:
        def set_output(self, *, transform: Container | None = None) -> Self: ...

    class ClassNamePrefixFeaturesOutMixin:
        def get_feature_names_out(
            self, input_features: ArrayLike | None = None
        ) -> NDArray[np.object_]: ...

    class CallbackSupportMixin:
        def set_callbacks(self, *callbacks: Any) -> Self: ...
        def _init_callback_context(self, **settings: Any) -> Any: ...

else:
    from sklearn.base import (
        BaseEstimator,
        ClassNamePrefixFeaturesOutMixin,
        MetaEstimatorMixin,
        OutlierMixin,
        TransformerMixin,
    )
    from sklearn.callback import CallbackSupportMixin
