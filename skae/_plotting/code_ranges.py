"""Which codes of a model vary, and over which range."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

from skae._plotting.fitted import Fitted
from skae._plotting.rows import rows_at

Array = NDArray[Any]

# Traversals reach so many standard deviations to both sides of the mean of a code.
_REACH = 2.5
# Rows, at most, that tell which codes vary; rows that are sampled where none are given.
_MOST_ROWS = 1000
_SAMPLED = 200


def has_binary_codes(fitted: Fitted) -> bool:
    """Whether codes are binary units, as those of a HelmholtzMachine."""
    if not fitted.has("sample_latent") or hasattr(fitted.model, "n_active_units_"):
        return False
    drawn = np.asarray(fitted.model.sample_latent(32, random_state=0))
    return bool(np.isin(drawn, (0, 1)).all())


def checked_components(components: Any, n_codes: int) -> NDArray[np.intp]:
    """Indices of codes that a user names."""
    which = np.atleast_1d(np.asarray(components))
    allowed = which.ndim == 1 and which.size > 0 and which.dtype.kind in "iu"
    if not allowed or which.min() < 0 or which.max() >= n_codes:
        raise ValueError(
            f"components={components!r} must be a list of indices of codes, from 0 to "
            f"{n_codes - 1}."
        )
    return which.astype(np.intp)


def default_components(fitted: Fitted, read: Any, codes: Array, most: int) -> Array:
    """Indices of the codes that vary most, those that vary most first."""
    size = variation(fitted, read, codes)
    if size is None:
        return np.arange(min(most, codes.shape[1]))
    return np.argsort(-size, kind="stable")[:most]


def variation(fitted: Fitted, read: Any, codes: Array) -> Array | None:
    """How much each code varies.

    This is the mean KL divergence of the posterior from N(0, I) for a VAE, in nats, and the
    variance of the codes for other models; None where nothing is known.

    Parameters
    ----------
    fitted : Fitted
        The model.
    read : array-like of shape (n_samples, n_features)
        Rows as the model reads them.
    codes : ndarray of shape (n_samples, n_codes)
        Their codes. A single row tells nothing: the training codes do, or rows from the model.
    """
    model = fitted.model
    if len(codes) == 1:
        covariance = getattr(model, "code_covariance_", None)
        if covariance is not None:
            return np.diag(covariance)
        variance: Any = _variance_of_linear_codes(model)
        if np.shape(variance) == codes.shape[1:]:
            return np.asarray(variance)
        if not fitted.has("sample") or hasattr(model, "target_mean_"):
            return None
        read = model.sample(_SAMPLED, random_state=0)
        codes = fitted.codes_of(read)
    elif len(codes) > _MOST_ROWS:
        which = np.linspace(0, len(codes) - 1, _MOST_ROWS).astype(int)
        codes, read = codes[which], rows_at(read, which)
    if hasattr(model, "n_active_units_"):
        means, stds = model.posterior(read)
        divergence: Array = (means**2 + stds**2 - 1 - 2 * np.log(stds)).mean(axis=0) / 2
        return divergence
    spread: Array = codes.var(axis=0)
    return spread


def default_values(fitted: Fitted, codes: Array, which: Array, n_steps: int) -> Array:
    """Values that codes take in a traversal, (n_codes, n_steps)."""
    if has_binary_codes(fitted):
        return np.tile([0.0, 1.0], (len(which), 1))
    mean, std = _means_and_stds(fitted, codes)
    steps = np.linspace(-_REACH, _REACH, n_steps)
    values: Array = mean[which, None] + std[which, None] * steps
    return values


def _means_and_stds(fitted: Fitted, codes: Array) -> tuple[Array, Array]:
    model, n_codes = fitted.model, codes.shape[1]
    standard = np.zeros(n_codes), np.ones(n_codes)
    if fitted.has("posterior") and getattr(model, "prior", "standard") == "standard":
        return standard  # PPCA, and VAE with its default prior
    if hasattr(model, "code_covariance_"):
        return np.asarray(model.code_mean_), np.sqrt(np.diag(model.code_covariance_))
    variance: Any = _variance_of_linear_codes(model)
    if np.shape(variance) == (n_codes,) and hasattr(model, "mean_"):  # codes have mean 0
        return standard if getattr(model, "whiten", False) else (standard[0], np.sqrt(variance))
    if fitted.has("sample_latent"):
        drawn = np.asarray(model.sample_latent(_MOST_ROWS, random_state=0))
        return drawn.mean(axis=0), drawn.std(axis=0)
    if len(codes) > 1:
        return codes.mean(axis=0), codes.std(axis=0)
    raise ValueError(
        f"values is None, but {fitted.name} does not tell the range of its codes: give values, or "
        "an X of several rows."
    )


def _variance_of_linear_codes(model: Any) -> Any:
    """`explained_variance_` of PCA and the like, which is the variance of their codes, or None.

    Networks have a property of this name, which is a variance of rows, not of codes.
    """
    return vars(model).get("explained_variance_")
