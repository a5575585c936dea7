"""Public methods of estimators that are applied to each block of a collection of Dask."""

import functools
from collections.abc import Callable
from types import FunctionType
from typing import Any, TypeVar

from skae._utils.dask_inputs import is_dask

Method = TypeVar("Method", bound=Callable[..., Any])

# Methods whose result has one entry for each row of X.
ROWWISE = (
    "transform",
    "inverse_transform",
    "reconstruct",
    "impute",
    "score_samples",
    "data_score_samples",
    "score_columns",
    "score_codes",
    "posterior",
    "gaussianize",
    "inverse_gaussianize",
    "predict",
    "decision_function",
)


def of_blocks_everywhere(cls: type) -> None:
    """Let methods of a class, also those inherited from skae, compute Dask collections in blocks.

    Rowwise methods are then lazy, `score` is computed from the scores of blocks, and
    `fit_transform` is a `fit` followed by a lazy `transform`.
    """
    for base in cls.__mro__:
        if not base.__module__.startswith("skae."):
            continue
        for name in (*ROWWISE, "score", "fit_transform"):
            method = vars(base).get(name)
            if isinstance(method, FunctionType):
                setattr(base, name, _of_blocks(method))
                continue
            available: Any = getattr(method, "_descriptor", method)
            if hasattr(available, "fn"):  # a method that only some instances have
                available.fn = _of_blocks(available.fn)


def _of_blocks(method: Method) -> Method:
    if hasattr(method, "_of_blocks"):
        return method
    name = method.__name__

    @functools.wraps(method)
    def call(self: Any, *args: Any, **kwargs: Any) -> Any:
        X = args[0] if args else kwargs.get("X")
        if not is_dask(X):
            return method(self, *args, **kwargs)
        kwargs.pop("X", None)
        return _on_blocks(self, name, X, *args[1:], **kwargs)

    call._of_blocks = True  # type: ignore[attr-defined]
    return call  # type: ignore[return-value]


def _on_blocks(estimator: Any, name: str, X: Any, *args: Any, **kwargs: Any) -> Any:
    if name == "fit_transform":
        return _fit_then_transform(estimator, X, *args, **kwargs)
    from skae._dask import mapping, scoring

    if name == "score":
        return scoring.mean_score(estimator, X, *args, **kwargs)[0]
    return mapping.map_blocks(estimator, name, X, *args, **kwargs)


def _fit_then_transform(
    estimator: Any, X: Any, y: Any = None, sample_weight: Any = None, **fit_params: Any
) -> Any:
    weights = {} if sample_weight is None else {"sample_weight": sample_weight}
    return estimator.fit(X, y, **weights, **fit_params).transform(X)
