"""Log-likelihoods of rows under any fitted model, in the units of the rows that it is given."""

from typing import Any

import numpy as np
from numpy.typing import NDArray
from scipy import sparse
from sklearn.pipeline import Pipeline
from sklearn.preprocessing import MaxAbsScaler, MinMaxScaler, RobustScaler, StandardScaler

from skae._utils.metric_arrays import check_rows
from skae._utils.pipeline_steps import best_of, fills_values, first_member, is_identity, taken_steps
from skae._utils.score_kinds import COMPARABLE, OF_DENSITIES, fitted_likelihoods, kind_of_scores

_SCALERS = (StandardScaler, MinMaxScaler, MaxAbsScaler, RobustScaler)


def row_log_likelihoods(estimator: Any, X: Any) -> Any:
    """log p(x) of each row or a lower bound on it, in nats; or raise a ValueError that says why.

    The density of rows x that a Pipeline maps to u = (x - m) / s, before its last step, is p(u)
    divided by the product of the scales s of the observed values of x.
    """
    model, rows = best_of(estimator), X
    factors: Any = 0.0  # log |du_j / dx_j|
    while isinstance(model, Pipeline):
        steps = taken_steps(model)
        if not steps:
            raise ValueError("All steps of the Pipeline are None or 'passthrough'.")
        *others, (_, last) = steps
        model = best_of(last)
        if not isinstance(model, Pipeline):
            _check_kind(model)  # before rows are transformed
        for name, step in others:
            factors = factors + _log_factors(name, best_of(step), rows)
            rows = step.transform(rows)
    _check_kind(model)
    _check_members(model)
    scores = np.asarray(model.score_samples(rows), dtype=np.float64)
    n_features = rows.shape[1]
    likelihoods = fitted_likelihoods(first_member(model), n_features)
    _check_no_grey(model, rows, likelihoods)
    if not np.any(factors):
        return scores
    is_density = np.array([kind in OF_DENSITIES for kind in likelihoods])
    volumes = np.where(is_density, factors, 0.0)  # bijections do not change probabilities
    if sparse.issparse(X):
        return scores + volumes.sum() - _missing_entries(X) @ volumes
    return scores + ~_is_missing(X) @ volumes


def _check_kind(model: Any) -> None:
    """Raise if scores of the model are no log-likelihoods of rows, or bounds on them."""
    kind, name = kind_of_scores(model), type(model).__name__
    if kind in COMPARABLE:
        if hasattr(first_member(model), "target_mean_"):
            raise ValueError(
                f"This {name} is conditional on numbers. Its scores are log p(x|y), which may not "
                "be compared with log p(x). To compare conditional models only, use scoring=None."
            )
        return
    other = (
        "Use scoring=skae.metrics.reconstruction_error_scorer to compare errors of models of the "
        "same size."
    )
    if hasattr(model, "data_score_samples"):
        other = (
            "Its data_score_samples are lower bounds on log p(x): use scoring=lambda model, X, "
            f"y=None: model.data_score_samples(X).mean(). {other}"
        )
    if kind is None:
        raise ValueError(
            f"{name} has no score_kind, so that it is not known whether its scores are "
            "log-likelihoods of rows. Allowed are estimators of skae, PCA and FactorAnalysis of "
            "scikit-learn, its density estimators (such as GaussianMixture), and Pipelines that "
            f"end in one of these. {other}"
        )
    meaning = {
        "reconstruction": "log p(x|z), the likelihood of a row given its own code,",
        "latent": "log p(z), the density of codes,",
    }.get(kind, "a score")
    raise ValueError(
        f"The score_kind of {name} is {kind!r}: its scores are {meaning} and may not be compared "
        f"with log-likelihoods. {other}"
    )


def _check_members(model: Any) -> None:
    for member in getattr(model, "estimators_", []) if first_member(model) is not model else []:
        member = best_of(member)
        if isinstance(member, Pipeline) and len(taken_steps(member)) > 1:
            raise ValueError(
                f"The members of {type(model).__name__} are Pipelines, each with its own units. "
                "Put the earlier steps in front of the ensemble: Pipeline([..., ('ensemble', "
                "Ensemble(model))])."
            )


def _log_factors(name: str, step: Any, X: Any) -> Any:
    """log |du_j / dx_j| of each column of a step that maps x to u; or raise."""
    if is_identity(step):
        return 0.0
    if fills_values(step):
        if not _is_missing(X).any() and not step.add_indicator:
            return 0.0
        reason = "fills in missing values, so that rows are no longer those that were observed"
        remedy = "Use a model that allows NaN, such as PPCA or VAE, without an imputer"
    elif isinstance(step, Pipeline):
        found: Any = 0.0
        for inner, (part, one) in enumerate(steps := taken_steps(step)):
            found = found + _log_factors(f"{name}__{part}", best_of(one), X)
            X = one.transform(X) if inner + 1 < len(steps) else X
        return found
    elif isinstance(step, _SCALERS) and not getattr(step, "clip", False):
        if step.scale_ is None:
            return 0.0
        scale = np.log(np.asarray(step.scale_, dtype=np.float64))
        return scale if isinstance(step, MinMaxScaler) else -scale
    elif isinstance(step, _SCALERS):
        reason = "has clip=True, with which different rows have the same image"
        remedy = "Set clip=False"
    else:
        reason = "does not only shift and rescale columns, so that the units of the density change"
        remedy = (
            "Allowed in front of the model are StandardScaler, MinMaxScaler, MaxAbsScaler and "
            "RobustScaler. If all candidates have the same fixed step, transform the rows by it "
            "once, before the search"
        )
    raise ValueError(f"Step {name!r} ({type(step).__name__}) of the Pipeline {reason}. {remedy}.")


def _is_missing(X: Any) -> NDArray[np.bool_]:
    """Mask of the missing values of rows; of sparse rows, the mask of the stored values."""
    if sparse.issparse(X):
        return _missing_entries(X).data != 0
    values = check_rows(X, "X", ensure_all_finite="allow-nan")
    return np.isnan(values) if values.dtype.kind == "f" else np.zeros(values.shape, dtype=bool)


def _missing_entries(X: Any) -> Any:
    """The matrix that is 1 where sparse rows have NaN, with the entries of the rows."""
    found = X.tocsr(copy=True).astype(np.float64)
    found.data = np.isnan(found.data).astype(np.float64)
    return found


def _check_no_grey(model: Any, rows: Any, likelihoods: list[str]) -> None:
    """Raise for values between 0 and 1 under a Bernoulli likelihood."""
    binary = np.array([kind == "bernoulli" for kind in likelihoods])
    if not binary.any():
        return
    if sparse.issparse(rows):
        values = sparse.csc_array(rows)[:, np.flatnonzero(binary)].data
    else:
        values = check_rows(rows, "X", ensure_all_finite="allow-nan")[:, binary]
    if values.dtype.kind == "f" and ((values > 0) & (values < 1)).any():
        raise ValueError(
            f"X has values between 0 and 1, and {type(model).__name__} has likelihood='bernoulli'. "
            "The score of such values is an expected log probability, and may not be compared with "
            "log-likelihoods. Use likelihood='continuous_bernoulli', which is a density on [0, 1], "
            "or scoring=None if all candidates have likelihood='bernoulli'."
        )
