"""Estimators that another one holds: checked, sized, seeded, fitted and called."""

import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from inspect import signature
from typing import Any

import joblib
import numpy as np
from numpy.typing import NDArray
from sklearn import config_context
from sklearn.frozen import FrozenEstimator
from sklearn.utils import get_tags

from skae._training.random_state import preserve_global_rngs
from skae._utils.interrupts import inside_another_fit

Array = NDArray[Any]

# Codes whose squares, summed, are still finite in float64.
_LARGEST = 1e145


def check_autoencoder(pair: Any) -> None:
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
    found = _size_parameter(pair)
    if found is None:
        raise ValueError(
            f"n_components was given, but autoencoder={pair!r} has no such parameter. Set "
            "n_components=None."
        )
    return found


def _size_parameter(pair: Any) -> str | None:
    if not hasattr(pair, "get_params"):  # a step that is passed through
        return None
    if "n_components" in pair.get_params(deep=False):
        return "n_components"
    for name, step in reversed(getattr(pair, "steps", [])):
        found = _size_parameter(step)
        if found is not None:
            return f"{name}__{found}"
    return None


def wants_targets(pair: Any) -> bool:
    """Whether it is not fitted without y, as PLSRegression."""
    if not hasattr(pair, "fit") or isinstance(pair, FrozenEstimator):
        return False
    if hasattr(pair, "steps"):
        return any(wants_targets(step) for _, step in pair.steps)
    needed = signature(pair.fit).parameters.get("y")
    required = needed is not None and needed.default is needed.empty
    return required or get_tags(pair).target_tags.required


@contextmanager
def wrapped_fit(seed: int) -> Iterator[None]:
    """In the block another estimator is fitted: it validates its own parameters, which
    scikit-learn would leave out there, reads seeded global generators, and is never cut short."""
    with (
        config_context(skip_parameter_validation=False),
        inside_another_fit(),
        preserve_global_rngs(seed),
    ):
        yield


def fit_autoencoder(
    pair: Any, X: Array, y: Any, sample_weight: Array | None, streaming: bool
) -> None:
    """Fit an autoencoder, or go on with it in a stream; with weights, if it takes some."""
    fit = pair.partial_fit if streaming else pair.fit
    arguments = (X,) if y is None else (X, y)
    if sample_weight is None:
        fit(*arguments)
    elif takes_weights(fit):
        fit(*arguments, sample_weight=sample_weight)
    else:
        warnings.warn(
            f"sample_weight was given, but autoencoder={pair!r} takes no weights: it was fitted "
            "without, and only the density of its codes counts them. LinearAE, which is PCA, "
            "takes weights; or fit the autoencoder before, and put it into FrozenEstimator.",
            UserWarning,
            stacklevel=2,
        )
        fit(*arguments)


def takes_weights(fit: Any) -> bool:
    """Whether a method has a parameter sample_weight."""
    return "sample_weight" in signature(fit).parameters


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
    size = max(float(codes.max()), -float(codes.min()))
    if size > _LARGEST:
        whose = "X, which are the codes," if pair is None else f"codes of autoencoder={pair!r}"
        raise ValueError(
            f"The values of {whose} up to {size:g} are too large to square. Rescale X."
        )


def check_names(pair: Any, names: Any) -> None:
    """Raise if a fitted pair knows columns by other names than those of X."""
    known = getattr(pair, "feature_names_in_", None)
    if known is not None and names is not None and list(known) != list(names):
        raise ValueError(
            f"The columns of X are {list(names)}, but autoencoder={pair!r} was fitted on "
            f"{list(known)}."
        )


def fingerprint(value: Any) -> str | None:
    """What tells parameters that are estimators apart: their types, parameters, what they know."""
    return None if value is None else joblib.hash(value)


def call_quietly(method: Any, X: Array) -> Any:
    """Call what may have been fitted on columns with names, which X has no more."""
    with warnings.catch_warnings(), preserve_global_rngs():
        warnings.filterwarnings("ignore", "X does not have valid feature names", UserWarning)
        return method(X)
