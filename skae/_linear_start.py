"""The linear model from which encoder and decoder networks are initialised."""

from typing import Any, Literal

import numpy as np
import torch
from numpy.typing import NDArray
from scipy.stats import chi2

from skae._modules.architecture import Architecture
from skae._modules.linear_start import Effects, PrincipalModel
from skae._ppca import PPCA
from skae._training.data import Data, some_of, spread_of
from skae._training.threads import blas_threads_for
from skae._utils.sparse_rows import dense
from skae._utils.warning import quietly

Array = NDArray[Any]

# With at most this many rows or columns, PPCA uses eigenvectors; otherwise power iterations.
_CLOSED_FORM_LIMIT = 2_000
# Limits on the rows from which the linear model is learned: number of values, which are copied to
# float64; number of products for the covariance, n_rows * n_features**2, which always allows _ROWS
# rows; and number of products in a step of EM, n_rows * n_features * n_components**2.
_MOST_VALUES, _MOST_PRODUCTS, _ROWS, _MOST_PRODUCTS_OF_EM = 2**24, 2**32, 4096, 2**31
# Smallest mean variance in the units of the network. It is 1 for all rows, unless their variance is
# only rounding.
_LEAST_VARIANCE = 1e-3
# Directions of the condition with a smaller fraction of the variance are rounding, as that of the
# sum of all indicators of labels. Effects are significant at this level.
_LEAST_SHARE_OF_CONDITION, _SIGNIFICANCE = 1e-9, 1e-3
# Largest decrease of the bound, in nats per row, at which codes without effects of the condition
# are preferred. Training regained it in all cases that were tried.
_COST_OF_FREE_CODES = 0.5


def principal_model(
    data: Data,
    train: NDArray[np.intp],
    n_components: int,
    n_decoded: int | None,
    architecture: Architecture,
    *,
    seed: int,
) -> PrincipalModel | None:
    """Fit PPCA to training rows in the units of the network; None if all rows are equal.

    If there are too many rows, a random subset is used.

    For a conditional model of rows without missing values, PPCA is fitted to the rows without the
    linear effects of the condition, as far as the decoder can represent both: `n_decoded` is the
    largest rank of its linear maps, or None for any rank. The axes are orthogonal to the effects if
    that costs little; the codes then do not contain the effects.
    """
    n_features, any_missing = architecture.n_features, architecture.with_mask
    most = min(_MOST_VALUES // n_features, max(_MOST_PRODUCTS // n_features**2, _ROWS))
    if any_missing:
        most = min(most, _MOST_PRODUCTS_OF_EM // (n_features * n_components**2))
    chosen = train[some_of(len(train), max(most, 2), seed).numpy()]
    X = dense(data.X[chosen]).astype(np.float64)
    if architecture.reading is not None:
        wide = torch.from_numpy(X)
        wide = wide if architecture.columns is None else architecture.columns.expand(wide)
        X = architecture.reading(wide).double().numpy()
    X -= architecture.center
    X /= architecture.scale
    weight = None if data.weight is None else data.weight[chosen] / data.weight[chosen].mean()
    largest = min(len(X) - 1, n_features)
    n_components = min(n_components, largest)
    variances = spread_of(X, weight).variance.numpy()
    if n_components < 1 or variances.mean() < _LEAST_VARIANCE:
        return None
    if data.condition is None or any_missing:
        return _ppca(X, weight, n_components, seed, any_missing=any_missing)
    condition = data.condition[chosen].astype(np.float64)
    most = (n_features if n_decoded is None else min(n_decoded, n_features)) - n_components
    effects = linear_effects(X, condition, weight, most)
    rest = X if effects is None else X - effects.of(condition)
    if effects is None or spread_of(rest, weight).variance.mean() < _LEAST_VARIANCE:
        return _ppca(X, weight, n_components, seed)
    across = rest - (rest @ effects.axes.T) @ effects.axes
    models = [_ppca(rows, weight, n_components, seed) for rows in (across, rest)]
    free, best = (_beside_effects(model, rest, weight, effects) for model in models)
    if free is None or best is None:
        return best
    # Codes that hold little information would collapse, however high the bound.
    is_useful = free.information > 0.5 * best.information
    return free if is_useful and free.bound > best.bound - _COST_OF_FREE_CODES else best


def _ppca(
    X: Array, weight: Array | None, n_components: int, seed: int, *, any_missing: bool = False
) -> PrincipalModel | None:
    """Fit PPCA to rows; None if a column has no value."""
    n_features, largest = X.shape[1], min(len(X) - 1, X.shape[1])
    solver: Literal["auto", "randomized"] = (
        "auto" if any_missing or min(X.shape) <= _CLOSED_FORM_LIMIT else "randomized"
    )
    # Warnings: noise at its minimum, EM without convergence.
    with quietly(), blas_threads_for(X.size * n_features):
        ppca = PPCA(n_components, solver=solver, random_state=seed)
        try:
            ppca.fit(X, sample_weight=weight)
        except ValueError:  # a column without observed values in these rows
            return None
    return PrincipalModel(
        ppca.mean_,
        ppca.axes_,
        np.square(ppca.loadings_).sum(axis=0) + ppca.noise_variance_,
        float(ppca.noise_variance_),
        spread_of(X, weight).variance.numpy(),
        explains_all=n_components == largest,
    )


def linear_effects(X: Array, condition: Array, weight: Array | None, most: int) -> Effects | None:
    """Return the linear effects of the condition on complete rows; None if there are none.

    They are the principal axes of the least-squares predictions. Those that are not significant are
    left out, because their directions would be random, and at most `most` are returned.
    """
    share = np.full(len(X), 1 / len(X)) if weight is None else weight / weight.sum()
    center = share @ condition
    apart, rows = condition - center, X - share @ X
    values, vectors = np.linalg.eigh((apart.T * share) @ apart)
    varying = values > _LEAST_SHARE_OF_CONDITION * (share @ np.square(condition)).sum()
    whitening = vectors[:, varying] / np.sqrt(values[varying])
    whitened = apart @ whitening
    predicted = (whitened.T * share) @ rows
    left, deviations, axes = np.linalg.svd(predicted, full_matrices=False)
    # n times the explained fraction of the variance along an axis is about chi-squared without an
    # effect, with one degree of freedom for each column; the largest of them is tested.
    n_rows = 1 / np.square(share).sum()
    remaining = (share @ np.square(rows @ axes.T)) - deviations**2
    limit = chi2.isf(_SIGNIFICANCE, len(predicted)) / n_rows
    kept = np.flatnonzero(deviations**2 > limit * remaining.clip(min=0))[: max(most, 0)]
    if not len(kept):
        return None
    return Effects(center, (whitening @ left[:, kept]).T, axes[kept], deviations[kept])


def _beside_effects(
    model: PrincipalModel | None, rest: Array, weight: Array | None, effects: Effects
) -> PrincipalModel | None:
    """Return a model with the effects of the condition, with the noise of the remaining rows.

    Its axes are those of the remaining rows, or of a part of them.
    """
    if model is None:
        return None
    variances = spread_of(rest, weight).variance.numpy()
    n_left = max(len(model.mean) - len(model.variances), 1)
    noise = max(float(variances.sum() - model.variances.sum()) / n_left, model.noise_variance)
    return model._replace(noise_variance=noise, feature_variances=variances, effects=effects)
