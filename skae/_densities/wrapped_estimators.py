"""Estimators that are parameters of another: checks, sizes, seeds, fits and calls."""

import copy
from collections.abc import Iterator
from contextlib import contextmanager
from inspect import signature
from typing import Any

import numpy as np
from numpy.typing import NDArray
from sklearn import config_context
from sklearn.base import clone
from sklearn.frozen import FrozenEstimator
from sklearn.utils import get_tags

from skae._training.digests import digest_of
from skae._training.random_state import preserve_global_rngs
from skae._utils.interrupts import inside_another_fit
from skae._utils.warning import ignoring, warn
from skae._utils.wrapping import seeded, takes_weights

Array = NDArray[Any]

# Largest code for which the sum of squares is finite in float64.
_LARGEST = 1e145


def check_autoencoder(autoencoder: Any) -> None:
    """Raise for values that cannot encode and decode."""
    needed = ("fit", "transform", "inverse_transform")
    missing = [name for name in needed if not hasattr(autoencoder, name)]
    if isinstance(autoencoder, type) or missing:
        raise ValueError(
            f"autoencoder={autoencoder!r} must be an estimator with fit, transform and "
            f"inverse_transform{'; given a class' if isinstance(autoencoder, type) else ''}."
        )
    if getattr(unwrapped(autoencoder), "fit_inverse_transform", True) is False:
        raise ValueError(
            f"autoencoder={autoencoder!r} cannot decode. Set its fit_inverse_transform=True."
        )
    if getattr(unwrapped(autoencoder), "conditional", False) is True:
        raise ValueError(
            f"autoencoder={autoencoder!r} is conditional, and cannot decode codes without targets. "
            "Set conditional=False."
        )


def unwrapped(autoencoder: Any) -> Any:
    return autoencoder.estimator if isinstance(autoencoder, FrozenEstimator) else autoencoder


def size_parameter(autoencoder: Any) -> str:
    """Return the name of the parameter that sets the number of codes of an autoencoder.

    For a pipeline, it belongs to the last step that has one.
    """
    found = _size_parameter(autoencoder)
    if found is None:
        raise ValueError(
            f"n_components was set, but autoencoder={autoencoder!r} has no such parameter. Set "
            "n_components=None."
        )
    return found


def _size_parameter(autoencoder: Any) -> str | None:
    if not hasattr(autoencoder, "get_params"):  # a step may be "passthrough" or None
        return None
    if "n_components" in autoencoder.get_params(deep=False):
        return "n_components"
    for name, step in reversed(getattr(autoencoder, "steps", [])):
        found = _size_parameter(step)
        if found is not None:
            return f"{name}__{found}"
    return None


def wants_targets(autoencoder: Any) -> bool:
    """Return whether an estimator needs y to be fitted, as PLSRegression does."""
    if not hasattr(autoencoder, "fit") or isinstance(autoencoder, FrozenEstimator):
        return False
    if hasattr(autoencoder, "steps"):
        return any(wants_targets(step) for _, step in autoencoder.steps)
    needed = signature(autoencoder.fit).parameters.get("y")
    required = needed is not None and needed.default is needed.empty
    return required or get_tags(autoencoder).target_tags.required


@contextmanager
def wrapped_fit(seed: int) -> Iterator[None]:
    """Context in which another estimator is fitted.

    The estimator validates its own parameters, which scikit-learn would skip here. It reads seeded
    global generators, and its training is not interrupted without an error.
    """
    with (
        config_context(skip_parameter_validation=False),
        inside_another_fit(),
        preserve_global_rngs(seed),
    ):
        yield


def fit_autoencoder(
    autoencoder: Any, X: Array, y: Any, sample_weight: Array | None, streaming: bool
) -> None:
    """Fit an autoencoder, or continue in a stream; weights are passed if it accepts them."""
    fit = autoencoder.partial_fit if streaming else autoencoder.fit
    arguments = (X,) if y is None else (X, y)
    if sample_weight is None:
        fit(*arguments)
    elif takes_weights(fit):
        fit(*arguments, sample_weight=sample_weight)
    else:
        warn(
            f"sample_weight was given, but autoencoder={autoencoder!r} does not support weights. "
            "It "
            "was fitted without weights; only the density of its codes uses them. LinearAE, which "
            "is PCA, supports weights. Or fit the autoencoder before, and put it into "
            "FrozenEstimator."
        )
        fit(*arguments)


def check_codes(autoencoder: Any, codes: Array) -> None:
    """Raise for codes that cannot have a density."""
    integers = codes.dtype.kind in "iub"
    if integers or hasattr(type(_last(autoencoder)), "codebook_"):
        kind = "integer codes" if integers else "codes that are entries of a codebook"
        raise ValueError(
            f"autoencoder={autoencoder!r} has {kind}, which have no density. VQVAE has its "
            "own prior: see its parameter prior, and its method sample."
        )
    if codes.ndim != 2 or codes.dtype.kind != "f" or not np.isfinite(codes).all():
        raise ValueError(
            f"autoencoder={autoencoder!r} returned codes of shape {codes.shape} and type "
            f"{codes.dtype}; expected finite floats, one row for each row of X. Rescale X if "
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
            f"The values of {whose} up to {size:g} are too large: their squares must be finite in "
            "float64. Rescale X."
        )


def _last(autoencoder: Any) -> Any:
    """The last step of a Pipeline, or the autoencoder."""
    autoencoder = unwrapped(autoencoder)
    steps = getattr(autoencoder, "steps", None)
    return _last(steps[-1][1]) if steps else autoencoder


def check_names(autoencoder: Any, names: Any) -> None:
    """Raise if an autoencoder was fitted with other column names than those of X."""
    known = getattr(autoencoder, "feature_names_in_", None)
    if known is not None and names is not None and list(known) != list(names):
        raise ValueError(
            f"The columns of X are {list(names)}, but autoencoder={autoencoder!r} was fitted "
            f"with the columns {list(known)}."
        )


def fingerprint(value: Any) -> str | None:
    """Return a digest of estimators: of their types, parameters and fitted attributes.

    It is equal in all processes, in which joblib 1.6 gives torch modules different hashes.
    """
    return None if value is None else digest_of(value)


def call_quietly(method: Any, X: Array) -> Any:
    """Call a method of an estimator that may have been fitted with column names; X has none."""
    with ignoring("X does not have valid feature names"), preserve_global_rngs():
        return method(X)


def check_takes_weights(density: Any, sample_weight: Array | None) -> None:
    """Raise if weights are given for a density that does not support them, unless it is frozen."""
    frozen = isinstance(density, FrozenEstimator)
    if sample_weight is not None and not frozen and not takes_weights(density.fit):
        raise ValueError(
            f"sample_weight was given, but density={density!r} does not support weights; "
            "KernelDensity, 'autoregressive' and 'flow' support them."
        )


def fitted_density(
    density: Any,
    z: Array,
    sample_weight: Array | None,
    before: Any,
    rng: np.random.RandomState,
    seed: int,
) -> Any:
    """Fit a density of scikit-learn to rows, or continue with the previous one if it can."""
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
