"""Initial models for EM with missing values.

If there are not too many features, the covariance of two features is estimated from the rows that
observe both. EM for complete rows with this covariance, whose steps do not depend on the number of
rows, then gives the initial model.
"""

from typing import Any

import numpy as np
from numpy.typing import NDArray

from skae._linear.complete_rows import CompleteRows
from skae._linear.incomplete_rows import Pairs
from skae._linear.linear_gaussian import LinearGaussian
from skae._linear.loadings_prior import RelevancePrior, with_prior
from skae._linear.missing_values import MaximumLikelihood
from skae._linear.moments import Moments
from skae._linear.relevance_em import fit_model
from skae._linear.subspace import CentredScatter

Array = NDArray[np.float64]

# With more features, no matrix of shape (n_features, n_features) is computed.
MOST_FEATURES_OF_PAIRS = 2_000
_TOL, _MAX_ITER = 1e-5, 200


def start_of(
    rows: Any,
    n_latents: int,
    rng: np.random.RandomState,
    learner: MaximumLikelihood | RelevancePrior,
) -> LinearGaussian:
    """Initial model with `n_latents` codes, or fewer if the learner switches some off."""
    if rows.n_features > MOST_FEATURES_OF_PAIRS:
        model = start_from_products(rows, n_latents, rng, learner.floor, learner.per_feature)
        return with_prior(model, rows.counts) if isinstance(learner, RelevancePrior) else model
    pairs = rows.pairs()
    covariance = pair_covariance(rows, pairs)
    if isinstance(learner, MaximumLikelihood) and not learner.per_feature:
        return _leading(rows, covariance, n_latents, float(np.max(learner.floor)))
    model = _leading_of_correlations(rows, covariance, n_latents, learner.floor)
    others = ~np.eye(len(covariance), dtype=bool)
    n = float(pairs.counts[others].mean() if others.any() else rows.counts[0])
    n = max(n, 2.0)
    if isinstance(learner, RelevancePrior):
        model = with_prior(model, np.full(len(covariance), n))
    if isinstance(rows, CompleteRows):  # the same problem, which is solved next
        return model
    moments = Moments(n, rows.shift, n * covariance)
    complete = CompleteRows(CentredScatter(moments, covariance), np.diagonal(covariance), n)
    found: LinearGaussian = fit_model(complete, model, learner, tol=_TOL, max_iter=_MAX_ITER).state
    return found


def pair_covariance(rows: Any, pairs: Pairs) -> Array:
    """A positive semidefinite covariance (D, D) with the variances of the observed values.

    Negative eigenvalues of the correlations of pairs become zero.
    """
    variances = rows.squares / rows.counts
    covariance = np.where(pairs.counts > 0, pairs.products / np.maximum(pairs.counts, 1e-300), 0.0)
    np.fill_diagonal(covariance, variances)
    scales = np.sqrt(variances)
    inverse = 1.0 / np.where(scales > 0, scales, 1.0)
    values, axes = np.linalg.eigh(inverse[:, None] * covariance * inverse)
    if values[0] < 0:
        correlation = (axes * np.maximum(values, 0.0)) @ axes.T
        lengths = np.sqrt(np.diagonal(correlation))
        lengths = np.where(lengths > 0, lengths, 1.0)
        covariance = (scales / lengths)[:, None] * correlation * (scales / lengths)
        np.fill_diagonal(covariance, variances)
    return covariance


def _leading(rows: Any, covariance: Array, n_latents: int, floor: float) -> LinearGaussian:
    """Probabilistic PCA of a covariance, with a noise variance that is not too small for EM."""
    values, axes = np.linalg.eigh(covariance)
    return _from_axes(
        rows.shift,
        values[::-1][:n_latents],
        axes[:, ::-1][:, :n_latents],
        np.trace(covariance),
        floor,
    )


def _leading_of_correlations(
    rows: Any, covariance: Array, n_latents: int, floor: Any
) -> LinearGaussian:
    """Probabilistic PCA of the correlations, in the units of the features."""
    scales = np.sqrt(np.maximum(np.diagonal(covariance), floor))
    model = _leading(rows, covariance / scales[:, None] / scales, n_latents, 1e-6)
    psi = np.maximum(model.noise_variance * scales**2, floor)
    return LinearGaussian(scales[:, None] * model.loadings, model.mean, psi)


def _from_axes(
    mean: Array, values: Array, axes: Array, total: float, floor: float
) -> LinearGaussian:
    """The model with these leading eigenvalues and axes of a covariance with this trace."""
    n_features = len(mean)
    rest = (total - float(values.sum())) / max(n_features - len(values), 1)
    noise_variance = max(rest, 1e-3 * total / n_features, floor)
    signal = np.maximum(values - noise_variance, 1e-3 * noise_variance)
    return LinearGaussian(axes * np.sqrt(signal), mean, np.full(n_features, noise_variance))


def start_from_products(
    rows: Any, n_latents: int, rng: np.random.RandomState, floor: Any, per_feature: bool
) -> LinearGaussian:
    """Initial model, from products with the rows instead of the covariance of pairs.

    If entries are missing completely at random, x_d x_e is observed with probability p_d p_e. Off
    the diagonal, X'X / (n p p') then estimates the covariance. Block power iterations compute its
    leading axes from products with X, or with `per_feature` those of the correlations.
    """
    n_features, n = rows.n_features, rows.n
    variance = rows.squares / rows.counts
    scales = np.sqrt(np.maximum(variance, floor)) if per_feature else np.ones(n_features)
    weights = (scales * rows.counts / n)[:, None]
    diagonal = (variance / scales**2 - rows.squares / (n * weights[:, 0] ** 2))[:, None]

    def covariance(V: Array) -> Array:
        return rows.products(V / weights) / (n * weights) + diagonal * V

    width = min(n_features, n_latents + 10)
    basis = np.linalg.qr(rng.standard_normal((n_features, width)))[0]
    for _ in range(3):
        basis = np.linalg.qr(covariance(basis))[0]
    inside = basis.T @ covariance(basis)
    eigenvalues, rotation = np.linalg.eigh((inside + inside.T) / 2)
    kept = eigenvalues[::-1][:n_latents]
    axes = basis @ rotation[:, ::-1][:, :n_latents]
    total = float(np.sum(variance / scales**2))
    model = _from_axes(rows.shift, kept, axes, total, float(np.max(floor / scales**2)))
    psi = np.maximum(model.noise_variance * scales**2, floor)
    return LinearGaussian(scales[:, None] * model.loadings, model.mean, psi)
