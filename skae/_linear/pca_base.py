"""PCA of scikit-learn as a base class with types; see `skae._utils.bases`."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, ClassVar

from numpy.typing import NDArray

from skae._utils.bases import BaseEstimator, ClassNamePrefixFeaturesOutMixin, TransformerMixin
from skae._utils.types import RandomState

__all__ = ["PCA"]

if TYPE_CHECKING:

    class PCA(ClassNamePrefixFeaturesOutMixin, TransformerMixin, BaseEstimator):
        _parameter_constraints: ClassVar[dict[str, list[Any]]]

        n_components: Any
        copy: bool
        whiten: bool
        svd_solver: str
        tol: float
        iterated_power: int | str
        n_oversamples: int
        power_iteration_normalizer: str
        random_state: RandomState

        components_: NDArray[Any]
        explained_variance_: NDArray[Any]
        explained_variance_ratio_: NDArray[Any]
        singular_values_: NDArray[Any]
        mean_: NDArray[Any]
        noise_variance_: float
        n_components_: int
        n_samples_: int | float

        def __init__(self, n_components: Any = None, **params: Any) -> None: ...
        def _fit(self, X: Any) -> Any: ...

else:
    from sklearn.decomposition import PCA
