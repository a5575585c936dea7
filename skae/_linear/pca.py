"""Helpers for PCA of scikit-learn and LinearAE: choice of the solver, and truncation."""

from numbers import Integral
from typing import Any, TypeGuard

import numpy as np
from scipy import sparse

from skae._linear.latent_size import by_evidence, by_variance_fraction
from skae._utils.validation import get_namespace, move_to

# Solvers whose axes are exact up to rounding errors.
EXACT_SOLVERS = ("full", "covariance_eigh")


def choose_svd_solver(svd_solver: str, n_components: Any, n: float, X: Any) -> str:
    """The solver that PCA(svd_solver='auto') chooses for `n` rows of X."""
    n_features = X.shape[1]
    if svd_solver != "auto":
        return svd_solver
    if sparse.issparse(X):
        return "arpack"
    if n_features <= 1_000 and n >= 10 * n_features:
        return "covariance_eigh"
    if max(n, n_features) <= 500 or n_components == "mle":
        return "full"
    size = min(n, n_features) if n_components is None else n_components
    return "randomized" if 1 <= size < 0.8 * min(n, n_features) else "full"


def size_of_rule(model: Any, rule: str | float) -> int:
    """The size that 'mle' or a fraction of the variance chooses, from a model of all components."""
    spectrum = np.asarray(move_to(model.explained_variance_, xp=np, device="cpu"))
    if rule == "mle":
        return by_evidence(spectrum.astype(np.float64), model.n_samples_)
    return by_variance_fraction(spectrum, float(rule))


def cut_axes(model: Any, size: int) -> None:
    """Reduce a fitted PCA or LinearAE to the leading `size` components, in new arrays."""
    most = int(min(model.n_samples_, model.n_features_in_))
    counted = most
    if not hasattr(model, "axes_") and model._fit_svd_solver == "covariance_eigh":
        counted = model.n_features_in_  # scikit-learn averages over these, also with few rows
    variances = np.asarray(move_to(model.explained_variance_, xp=np, device="cpu"))
    # A sum instead of a difference from the total keeps small variances accurate.
    left_out = float(variances[size:].sum(dtype=np.float64))
    left_out += (counted - model.n_components_) * float(model.noise_variance_)
    if size < most:
        model.noise_variance_ = left_out / (counted - size)
    for name in (
        "components_",
        "axes_",
        "encoder_",
        "explained_variance_",
        "explained_variance_ratio_",
        "singular_values_",
    ):
        if hasattr(model, name):
            setattr(model, name, _copied(getattr(model, name)[:size, ...]))
    if hasattr(model, "decoder_"):
        model.decoder_ = _copied(model.decoder_.T[:size, :]).T
    model.mean_ = _copied(model.mean_)
    model.n_components_ = size


def is_count(n_components: object) -> TypeGuard[int]:
    """Whether `n_components` is the size itself, and not a rule that chooses the size."""
    return isinstance(n_components, Integral)


def _copied(values: Any) -> Any:
    return get_namespace(values)[0].asarray(values, copy=True)
