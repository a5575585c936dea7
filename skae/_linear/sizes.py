"""Fit and score models of several latent sizes from one decomposition.

This works for PCA of scikit-learn and for the linear models of this package, whose classes define
the hooks `_choose_solver`, `_cut`, `_floored_gaussian` and, in PPCA, `_size_of_rule`. Subclasses
may have another `fit` and are not supported.
"""

import copy
import warnings
from collections.abc import Iterable, Sequence
from numbers import Real
from typing import Any

import numpy as np
from scipy import sparse
from sklearn.base import clone
from sklearn.decomposition import PCA
from sklearn.utils.validation import validate_data

from skae._linear.fold_moments import (
    FoldMoments,
    are_complements,
    mean_squares_of_moments,
    moments_of_folds,
)
from skae._linear.incomplete_rows import has_nan
from skae._linear.low_rank_gaussian import mean_log_density, mean_squares
from skae._linear.moments import Moments
from skae._linear.pca import EXACT_SOLVERS, choose_svd_solver, cut_axes, is_count, size_of_rule
from skae._utils.state import all_or_nothing
from skae._utils.validation import check_rows, check_weight, get_namespace, is_numpy_namespace

# Beginning of the warning that PPCA issues if its noise variance is at the lower bound.
NOISE_FLOORED = "The noise variance was raised"


def can_share(estimator: Any, X: Any, sizes: Iterable[Any], *, approximate: bool = False) -> bool:
    """Whether the fits of all these sizes follow from one exact decomposition of the rows.

    Parameters
    ----------
    estimator : object
        Unfitted estimator. The result is False for all but LinearAE, PPCA and PCA of scikit-learn.
    X : array-like or sparse matrix of shape (n_samples, n_features)
        Rows, validated or not. Only the shape, the dtype and the positions of NaN are used.
    sizes : iterable of int, float, str or None
        Values of `n_components`.
    approximate : bool, default=False
        Whether to allow iterative and randomised solvers, too, and to start EM for missing values
        from the next larger size.

    Returns
    -------
    can_share : bool
        It is also False if a fit of one of the sizes would raise an error.
    """
    sizes = list(sizes)
    if not sizes or not _is_linear(estimator) or not _has_spectrum(estimator):
        return False
    try:
        rows = check_rows(clone(estimator), X, reset=True, min_rows=2)
        of_missing_values = not isinstance(estimator, PCA) and has_nan(rows)
    except (TypeError, ValueError):
        return False
    if of_missing_values and not (approximate and estimator.solver in ("auto", "em")):
        return False
    rules = ("mle",) if isinstance(estimator, PCA) else ("mle", "bic")
    for size in sizes:
        if not isinstance(size, Real | None) and not (isinstance(size, str) and size in rules):
            return False
        solver = "em" if of_missing_values else _solver_of(estimator, size, rows)
        exact = solver in (*EXACT_SOLVERS, "closed_form")
        if not (exact or approximate) or not _allows(estimator, size, rows, solver, exact):
            return False
    return True


def _solver_of(estimator: Any, size: Any, rows: Any) -> str:
    """The solver that a fit of this size uses."""
    if _is_ours(estimator):
        return str(clone(estimator).set_params(n_components=size)._choose_solver(rows))
    return choose_svd_solver(estimator.svd_solver, size, rows.shape[0], rows)


def _allows(estimator: Any, size: Any, rows: Any, solver: str, exact: bool) -> bool:
    """Whether a fit of this size can succeed, and leave at least one component."""
    most = min(rows.shape) - (solver == "arpack")
    if size is None:
        return most > 0
    if is_count(size):
        return not isinstance(size, bool) and 1 <= size <= most
    if size == "mle":
        # scikit-learn uses variances in float32, where rounding errors of small variances decide.
        by_us = solver == "closed_form" or (_is_ours(estimator) and solver == "covariance_eigh")
        return exact and rows.shape[0] >= rows.shape[1] and (by_us or rows.dtype == np.float64)
    return exact and (size == "bic" or bool(0 < size < 1))


def fold_moments(
    estimator: Any, X: Any, sizes: Iterable[Any], splits: Sequence[tuple[Any, Any]]
) -> list[FoldMoments] | None:
    """Moments of the training and the held-out rows of every fold, from one pass over X.

    `fit_sizes` and `score_sizes` use these moments and then need no further pass over the rows.

    Parameters
    ----------
    estimator : object
        Unfitted estimator. The result is None for all but LinearAE and PPCA.
    X : array-like or sparse matrix of shape (n_samples, n_features)
        All rows.
    sizes : iterable of int, float, str or None
        Values of `n_components`.
    splits : sequence of pairs (train, test) of index arrays

    Returns
    -------
    folds : list of FoldMoments, or None
        None if the fits do not use the scatter matrix (wide rows, other solvers), if there are too
        few rows to save time, or if the folds are not a partition of X in which each fold is fitted
        to all rows of the others.
    """
    if not _is_ours(estimator) or not are_complements(splits):
        return None
    try:
        rows = check_rows(clone(estimator), X, reset=True, min_rows=2)
    except (TypeError, ValueError):
        return None
    least = min(len(test) for _, test in splits)
    if not _is_numpy(rows) or has_nan(rows) or least < rows.shape[1]:
        return None
    sizes = list(sizes)
    for n in {len(train) for train, _ in splits}:
        some = rows[:n]  # the shape of a training set
        if not can_share(estimator, some, sizes):
            return None
        solvers = {_solver_of(estimator, size, some) for size in sizes}
        if not solvers <= {"covariance_eigh", "closed_form"}:
            return None
    with np.errstate(over="ignore", invalid="ignore"):  # the fit will raise for overflow
        return moments_of_folds(rows[test] for _, test in splits)


def fit_sizes(
    estimator: Any,
    sizes: Iterable[Any],
    X: Any,
    y: Any = None,
    *,
    moments: Moments | None = None,
    **fit_params: Any,
) -> list[Any]:
    """Fit models of all these sizes, for which `can_share` must hold, with one fit of the largest.

    Each model equals `clone(estimator).set_params(n_components=size).fit(X, y, **fit_params)` up to
    rounding errors, with the same warnings. Rules that choose a size ('mle', 'bic', a fraction of
    the variance) use the eigenvalues in the float dtype of the rows. With missing values, EM for a
    size starts from the next larger size. `moments` are moments of the rows from `fold_moments`;
    with them, unweighted rows need no further pass.

    Raises
    ------
    ValueError
        If the fit of the largest size raises it, for example if the sum of the weights is too
        small.
    """
    sizes = list(sizes)
    counts = [int(size) for size in sizes if is_count(size)]
    most = max(counts, default=0)
    largest = most if len(counts) == len(sizes) else None
    model, told = _fit(estimator, largest, X, y, moments, fit_params)
    if most > model.n_components_:  # PPCA with None omits the last direction
        model, told = _fit(estimator, most, X, y, moments, fit_params)
    chosen = [_chosen_size(model, size) for size in sizes]
    by_em = getattr(model, "_is_of_missing_values", False)
    for warning in told:
        # Truncated models, including the largest, issue the warning about their own noise variance.
        if by_em or not str(warning.message).startswith(NOISE_FLOORED):
            warnings.warn_explicit(
                warning.message, warning.category, warning.filename, warning.lineno
            )
    cut_from = _fit_by_em(model, chosen, X, **fit_params) if by_em else {}
    models = []
    for size, n_components in zip(sizes, chosen, strict=True):
        smaller = copy.copy(cut_from.get(n_components, model))
        smaller.n_components = size
        if not by_em and _is_ours(smaller):
            smaller._cut(n_components)
        elif not by_em:
            cut_axes(smaller, n_components)
        models.append(smaller)
    return models


def _fit(
    estimator: Any,
    size: int | None,
    X: Any,
    y: Any,
    moments: Moments | None,
    fit_params: dict[str, Any],
) -> tuple[Any, list[warnings.WarningMessage]]:
    """A model of this size, and the warnings of its fit."""
    model = clone(estimator).set_params(n_components=size)
    with warnings.catch_warnings(record=True) as told:
        warnings.simplefilter("always")
        if moments is None or fit_params.get("sample_weight") is not None:
            model.fit(X, y, **fit_params)
        else:
            model._fit_rows_of_moments(X, moments)
    return model, told


def _chosen_size(model: Any, size: Any) -> int:
    """The number of components of `n_components=size` for the rows of the largest model."""
    if is_count(size):
        return int(size)
    if not isinstance(model, PCA):
        return int(model._size_of_rule(size))
    if size is None:
        return int(model.n_components_)
    return size_of_rule(model, size)


def _fit_by_em(
    largest: Any, sizes: Iterable[int], X: Any, sample_weight: Any = None
) -> dict[int, Any]:
    """Fit PPCA of every size by EM, which starts from the leading axes of the next larger size."""
    rows = largest._check_rows(X, reset=False)
    weight = check_weight(sample_weight, rows)
    rows, weight, _ = largest._rows_that_count(rows, weight)
    models = {largest.n_components_: largest}
    larger = largest
    for size in sorted({*sizes} - {*models}, reverse=True):
        smaller = copy.copy(largest)
        smaller.n_components = size
        with all_or_nothing(smaller):
            smaller._fit_model(rows, smaller._generator(), weight, larger)
        models[size] = larger = smaller
    return models


def score_sizes(
    models: Sequence[Any],
    X: Any,
    sample_weight: Any | None = None,
    *,
    moments: Moments | None = None,
) -> list[float] | None:
    """The `score` of each of these models, from one projection of the rows.

    `moments` are moments of the rows from `fold_moments`; with them, no projection is needed.

    Returns
    -------
    scores : list of float, or None
        Scores in nats per row. None if the models are not truncations of one model, if rows have
        missing values, if squares overflow, or if an array is not from NumPy. Then each model must
        be scored separately.
    """
    if not models or not all(_is_linear(model) for model in models):
        return None
    largest = max(models, key=lambda model: model.n_components_)
    is_pca = not _is_ours(largest)
    if not all(_is_cut_from(largest, model) for model in models):
        return None
    if is_pca and sample_weight is not None:
        return None
    if is_pca:
        rows = validate_data(largest, X, dtype=[np.float64, np.float32], reset=False)
    else:
        rows = largest._check_new_rows(X, "score_samples")
    if not _is_numpy(rows):
        return None
    if not isinstance(largest, PCA) and has_nan(rows):
        return None
    weight = check_weight(sample_weight, rows)
    found = None
    if moments is not None and weight is None:
        found = mean_squares_of_moments(moments, largest.mean_, _axes(largest))
    squares, residual = found or mean_squares(rows, weight, largest.mean_, _axes(largest))
    if not np.isfinite(squares.sum() + residual):
        return None
    scores = []
    for model in models:
        if is_pca and not _inverts(model):  # keep the rounding errors of scikit-learn
            scores.append(float(model.score(X)))
        else:
            scores.append(mean_log_density(squares, residual, *_gaussian(model), rows.shape[1]))
    return scores


def _is_numpy(rows: Any) -> bool:
    return sparse.issparse(rows) or is_numpy_namespace(get_namespace(rows)[0])


def _is_linear(estimator: Any) -> bool:
    return type(estimator) is PCA or _is_ours(estimator)


def _is_ours(estimator: Any) -> bool:
    """Whether the class itself, and not only a base class, defines the hooks."""
    return "_floored_gaussian" in vars(type(estimator))


def _has_spectrum(estimator: Any) -> bool:
    """Whether the model follows from eigenvalues and axes, also for other sizes."""
    return bool(getattr(estimator, "_is_principal_model", True))


def _axes(model: Any) -> Any:
    return model.axes_ if _is_ours(model) else model.components_


def _is_cut_from(largest: Any, model: Any) -> bool:
    if type(model) is not type(largest) or model.n_features_in_ != largest.n_features_in_:
        return False
    leading = _axes(largest)[: model.n_components_, ...]
    both = ((model.mean_, largest.mean_), (_axes(model), leading))
    return all(is_numpy_namespace(get_namespace(a, b)[0]) and np.array_equal(a, b) for a, b in both)


def _inverts(pca: Any) -> bool:
    """Whether scikit-learn, which inverts the covariance, scores a PCA accurately."""
    variances, noise = _gaussian(pca)
    if not 0 < noise < np.min(pca.explained_variance_):
        return False
    return bool(np.max(variances) * np.sqrt(np.finfo(pca.mean_.dtype).eps) < noise)


def _gaussian(model: Any) -> tuple[Any, float]:
    """Variances along the axes and noise variance of the density that `score` uses."""
    if _is_ours(model):
        variances, noise = model._floored_gaussian()
        return variances, float(noise)
    variances, noise = model.explained_variance_.astype(np.float64), float(model.noise_variance_)
    if model.whiten:  # scikit-learn multiplies by the variances once more
        variances = (variances - noise) * variances + noise
    return variances, noise
