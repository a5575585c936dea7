"""Estimators that another one holds: checked, sized, seeded, fitted and called."""

import copy
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from inspect import signature
from typing import Any

import joblib
import numpy as np
from numpy.typing import NDArray
from sklearn import config_context
from sklearn.base import clone
from sklearn.frozen import FrozenEstimator
from sklearn.utils import get_tags

from skae._training.random_state import preserve_global_rngs
from skae._utils.interrupts import inside_another_fit

Array = NDArray[Any]

# Codes whose squares, summed, are still finite in float64.
_LARGEST = 1e145


def check_autoencoder(autoencoder: Any) -> None:
    """Raise for what cannot encode and decode."""
    needed = ("fit", "transform", "inverse_transform")
    missing = [name for name in needed if not hasattr(autoencoder, name)]
    if isinstance(autoencoder, type) or missing:
        raise ValueError(
            f"autoencoder={autoencoder!r} must be an estimator with fit, transform and "
            f"inverse_transform{'; it is a class' if isinstance(autoencoder, type) else ''}."
        )
    if getattr(unwrapped(autoencoder), "fit_inverse_transform", True) is False:
        raise ValueError(
            f"autoencoder={autoencoder!r} cannot decode: set its fit_inverse_transform=True."
        )


def unwrapped(autoencoder: Any) -> Any:
    return autoencoder.estimator if isinstance(autoencoder, FrozenEstimator) else autoencoder


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


def size_parameter(autoencoder: Any) -> str:
    """The parameter of a autoencoder, or of the last step that has one, that is its latent size."""
    found = _size_parameter(autoencoder)
    if found is None:
        raise ValueError(
            f"n_components was given, but autoencoder={autoencoder!r} has no such parameter. Set "
            "n_components=None."
        )
    return found


def _size_parameter(autoencoder: Any) -> str | None:
    if not hasattr(autoencoder, "get_params"):  # a step that is passed through
        return None
    if "n_components" in autoencoder.get_params(deep=False):
        return "n_components"
    for name, step in reversed(getattr(autoencoder, "steps", [])):
        found = _size_parameter(step)
        if found is not None:
            return f"{name}__{found}"
    return None


def wants_targets(autoencoder: Any) -> bool:
    """Whether it is not fitted without y, as PLSRegression."""
    if not hasattr(autoencoder, "fit") or isinstance(autoencoder, FrozenEstimator):
        return False
    if hasattr(autoencoder, "steps"):
        return any(wants_targets(step) for _, step in autoencoder.steps)
    needed = signature(autoencoder.fit).parameters.get("y")
    required = needed is not None and needed.default is needed.empty
    return required or get_tags(autoencoder).target_tags.required


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
    autoencoder: Any, X: Array, y: Any, sample_weight: Array | None, streaming: bool
) -> None:
    """Fit an autoencoder, or go on with it in a stream; with weights, if it takes some."""
    fit = autoencoder.partial_fit if streaming else autoencoder.fit
    arguments = (X,) if y is None else (X, y)
    if sample_weight is None:
        fit(*arguments)
    elif takes_weights(fit):
        fit(*arguments, sample_weight=sample_weight)
    else:
        warnings.warn(
            f"sample_weight was given, but autoencoder={autoencoder!r} takes no weights: it was "
            "fitted without, and only the density of its codes counts them. LinearAE, which is "
            "PCA, takes weights; or fit the autoencoder before, and put it into FrozenEstimator.",
            UserWarning,
            stacklevel=2,
        )
        fit(*arguments)


def takes_weights(fit: Any) -> bool:
    """Whether a method has a parameter sample_weight."""
    return "sample_weight" in signature(fit).parameters


def check_codes(autoencoder: Any, codes: Array) -> None:
    """Raise for codes that have no density."""
    if codes.dtype.kind in "iub":
        raise ValueError(
            f"autoencoder={autoencoder!r} has integer codes, which have no density. VQVAE has a "
            "prior of its own: see its parameter prior, and its sample."
        )
    if codes.ndim != 2 or codes.dtype.kind != "f" or not np.isfinite(codes).all():
        raise ValueError(
            f"autoencoder={autoencoder!r} gave codes of shape {codes.shape} and type "
            f"{codes.dtype}; expected finite real numbers, a row for each row of X. Rescale X if "
            "they overflow."
        )
    size = max(float(codes.max()), -float(codes.min()))
    if size > _LARGEST:
        whose = (
            "X, which are the codes,"
            if autoencoder is None
            else f"codes of autoencoder={autoencoder!r}"
        )
        raise ValueError(
            f"The values of {whose} up to {size:g} are too large to square. Rescale X."
        )


def check_names(autoencoder: Any, names: Any) -> None:
    """Raise if a fitted autoencoder knows columns by other names than those of X."""
    known = getattr(autoencoder, "feature_names_in_", None)
    if known is not None and names is not None and list(known) != list(names):
        raise ValueError(
            f"The columns of X are {list(names)}, but autoencoder={autoencoder!r} was fitted on "
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


def check_takes_weights(density: Any, sample_weight: Array | None) -> None:
    """Raise where weights are given to a density that is fitted, and takes none."""
    frozen = isinstance(density, FrozenEstimator)
    if sample_weight is not None and not frozen and not takes_weights(density.fit):
        raise ValueError(
            f"sample_weight was given, but density={density!r} takes no weights; "
            "KernelDensity, 'autoregressive' and 'flow' do."
        )


def fitted_density(
    density: Any,
    z: Array,
    sample_weight: Array | None,
    before: Any,
    rng: np.random.RandomState,
    seed: int,
) -> Any:
    """A density of scikit-learn's, fitted to rows; goes on from the one before if it does."""
    if before is not None and getattr(density, "warm_start", False):
        fitted = copy.deepcopy(before)
    else:
        fitted = seeded(clone(density), rng)
    if not isinstance(fitted, FrozenEstimator):
        weights = {} if sample_weight is None else {"sample_weight": sample_weight}
        with wrapped_fit(seed):
            fitted.fit(z, **weights)
    try:
        fitted.score_samples(z[:1])
    except ValueError as error:
        raise ValueError(f"density={density!r} cannot score {z.shape[1]} codes: {error}") from error
    return fitted
