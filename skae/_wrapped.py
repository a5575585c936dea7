"""Estimators that another one holds: checked, sized, seeded, fitted and called."""

import warnings
from inspect import signature
from typing import Any

import numpy as np
from numpy.typing import NDArray
from sklearn.frozen import FrozenEstimator
from sklearn.utils import get_tags
from sklearn.utils.validation import has_fit_parameter

from skae._training import global_generators_set_aside

Array = NDArray[Any]


def check_pair(pair: Any) -> None:
    """Raise for what cannot encode and decode."""
    needed = ("fit", "transform", "inverse_transform")
    missing = [name for name in needed if not hasattr(pair, name)]
    if isinstance(pair, type) or missing:
        raise ValueError(
            f"autoencoder={pair!r} must be an estimator with fit, transform and "
            f"inverse_transform{'; it is a class' if isinstance(pair, type) else ''}."
        )
    if getattr(unwrapped(pair), "fit_inverse_transform", True) is False:
        raise ValueError(f"autoencoder={pair!r} cannot decode: set its fit_inverse_transform=True.")


def unwrapped(pair: Any) -> Any:
    return pair.estimator if isinstance(pair, FrozenEstimator) else pair


def seeded(estimator: Any, rng: np.random.RandomState) -> Any:
    """The estimator with a seed wherever it has none."""
    if isinstance(estimator, FrozenEstimator):
        return estimator
    params = estimator.get_params(deep=True)
    open_ones = {
        name: int(rng.randint(2**31 - 1))
        for name in sorted(params)
        if (name == "random_state" or name.endswith("__random_state")) and params[name] is None
    }
    return estimator.set_params(**open_ones)


def size_parameter(pair: Any) -> str:
    """The parameter of a pair, or of the last step that has one, that is its latent size."""
    params = pair.get_params(deep=True)
    steps = [name for name, _ in getattr(pair, "steps", [])]
    for name in ["n_components", *(f"{step}__n_components" for step in reversed(steps))]:
        if name in params:
            return name
    raise ValueError(
        f"n_components was given, but autoencoder={pair!r} has no such parameter. Set "
        "n_components=None."
    )


def wants_targets(pair: Any) -> bool:
    """Whether it is not fitted without y, as PLSRegression."""
    if pair is None or isinstance(pair, FrozenEstimator):
        return False
    needed = signature(pair.fit).parameters.get("y")
    required = needed is not None and needed.default is needed.empty
    return required or get_tags(pair).target_tags.required


def fit_pair(pair: Any, X: Array, y: Any, sample_weight: Array | None, streaming: bool) -> None:
    """Fit an autoencoder, or go on with it in a stream."""
    fit = pair.partial_fit if streaming else pair.fit
    arguments = (X,) if y is None else (X, y)
    if sample_weight is None:
        fit(*arguments)
    elif has_fit_parameter(pair, "sample_weight"):
        fit(*arguments, sample_weight=sample_weight)
    else:
        raise ValueError(
            f"sample_weight was given, but autoencoder={pair!r} takes no weights. LinearAE, "
            "which is PCA, does; or fit it before, and put it into FrozenEstimator."
        )


def check_codes(pair: Any, codes: Array) -> None:
    """Raise for codes that have no density."""
    if codes.dtype.kind in "iub":
        raise ValueError(
            f"autoencoder={pair!r} has integer codes, which have no density. VQVAE has a prior of "
            "its own: see its parameter prior, and its sample."
        )
    if codes.ndim != 2 or codes.dtype.kind != "f" or not np.isfinite(codes).all():
        raise ValueError(
            f"autoencoder={pair!r} gave codes of shape {codes.shape} and type {codes.dtype}; "
            "expected finite real numbers, a row for each row of X. Rescale X if they overflow."
        )


def described(value: Any) -> str | None:
    """A parameter in words, all of them."""
    if value is None or isinstance(value, str):
        return value
    words: str = value.__repr__(N_CHAR_MAX=10**9)
    return words


def call_quietly(method: Any, X: Array) -> Any:
    """Call what may have been fitted on columns with names: they are checked here."""
    with warnings.catch_warnings(), global_generators_set_aside():
        warnings.filterwarnings("ignore", "X does not have valid feature names", UserWarning)
        return method(X)
