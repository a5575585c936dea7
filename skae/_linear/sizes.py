"""A stand-in that fits size by size, until the decomposition that serves all of them is here."""

import sys
from typing import Any

from sklearn.base import clone
from sklearn.decomposition import PCA


def can_share(estimator: Any, X: Any, sizes: Any, *, approximate: bool = False) -> bool:
    module = sys.modules.get("skae._ppca")
    if module is not None and type(estimator) is module.PPCA:
        return True
    return type(estimator).__name__ in ("PCA", "LinearAE") and isinstance(estimator, PCA) and (
        estimator.svd_solver in ("auto", "full", "covariance_eigh") 
    )


def fit_sizes(estimator: Any, sizes: Any, X: Any, y: Any = None, **fit_params: Any) -> list[Any]:
    return [clone(estimator).set_params(n_components=k).fit(X, y, **fit_params) for k in sizes]


def score_sizes(models: Any, X: Any, sample_weight: Any = None) -> list[float] | None:
    return [float(model.score(X)) for model in models]
