"""Reconstructions of rows by any fitted model, in the units of the rows that it is given."""

from typing import Any

import numpy as np
from numpy.typing import NDArray
from scipy import sparse
from sklearn.pipeline import Pipeline
from sklearn.preprocessing import FunctionTransformer
from sklearn.utils import gen_batches

from skae._utils.inputs import as_numbers
from skae._utils.metric_arrays import Array, check_rows, rows_per_block
from skae._utils.pipeline_steps import (
    best_of,
    fills_values,
    first_member,
    is_identity,
    keeps_columns,
    taken_steps,
)


def squared_errors(estimator: Any, X: Any, y: Any) -> NDArray[np.float64]:
    """Squared error of each row, summed over its observed values, in squared units of `X`."""
    if not sparse.issparse(X):
        return _errors_of(observed(X), reconstructed(estimator, X, y))
    X, errors = sparse.csr_array(X), np.empty(X.shape[0])
    targets = None if y is None else np.asarray(as_numbers(y, "y"))
    for rows in gen_batches(X.shape[0], rows_per_block(X.shape[1])):
        some = None if targets is None or not targets.ndim else targets[rows]
        errors[rows] = _errors_of(X[rows].toarray(), reconstructed(estimator, X[rows], some))
    return errors


def squared_deviations(X: Any, weight: Array | None) -> NDArray[np.float64]:
    """Squared deviation of each row from the mean of the rows, summed over observed values."""
    X = sparse.csr_array(X) if sparse.issparse(X) else observed(X)
    n, k = X.shape
    w = np.ones(n) if weight is None else weight
    sums, counts, found = np.zeros(k), np.zeros(k), np.empty(n)
    blocks = list(gen_batches(n, rows_per_block(k)))
    for rows in blocks:
        x = _dense(X[rows])
        seen = ~np.isnan(x)
        counts += w[rows] @ seen
        sums += w[rows] @ np.where(seen, x, 0.0)
    mean = np.divide(sums, counts, out=np.zeros(k), where=counts > 0)
    for rows in blocks:
        found[rows] = np.nansum((_dense(X[rows]) - mean) ** 2, axis=1)
    return found


def observed(X: Any) -> Array:
    """Rows as an array of numbers in which NaN marks missing values; or raise."""
    try:
        return check_rows(X, "X", ensure_all_finite="allow-nan")
    except (TypeError, ValueError) as error:
        reason = str(error).removesuffix(".")
        error.args = (
            f"{reason}. The scorer measures squared errors, which only numbers have. For tables "
            "with categories use scoring=None, or compare models by their score_columns.",
        )
        raise


def reconstructed(estimator: Any, X: Any, y: Any) -> Any:
    """Rows that a fitted model makes of their codes; a Pipeline is inverted step by step."""
    model = best_of(estimator)
    if not isinstance(model, Pipeline):
        return _reconstruction(model, X, y)
    steps = taken_steps(model)
    if not steps:
        return X
    *others, (_, last) = steps
    for name, step in others:
        _check_inverse(name, best_of(step))
    rows = X
    for _, step in others:
        rows = step.transform(rows)
    rows = reconstructed(last, rows, y)
    for _, step in reversed(others):
        step = best_of(step)
        rows = (
            np.asarray(rows)[:, : step.n_features_in_] if fills_values(step) else _back(step, rows)
        )
    return rows


def _back(step: Any, rows: Any) -> Any:
    return rows if is_identity(step) else step.inverse_transform(rows)


def _reconstruction(model: Any, X: Any, y: Any) -> Any:
    kind = type(model).__name__
    if "categorical" in set((getattr(model, "likelihoods_", None) or {}).values()):
        raise ValueError(
            f"{kind} has columns with likelihood 'categorical', which have no squared error. Use "
            "scoring=None, the score in nats per row, or compare models by their score_columns."
        )
    if hasattr(model, "reconstruct"):
        targets = (y,) if is_conditional(model) else ()
        return model.reconstruct(X, *targets, **at_own_totals(model))
    if not (hasattr(model, "transform") and hasattr(model, "inverse_transform")):
        raise ValueError(
            f"{kind} cannot reconstruct rows: it has neither a method reconstruct nor the methods "
            "transform and inverse_transform. Give the model, or a Pipeline whose last step is the "
            "model."
        )
    return model.inverse_transform(model.transform(X))


def at_own_totals(model: Any) -> dict[str, str]:
    """Arguments with which `reconstruct` of a fitted model returns rows that can be compared.

    Models of counts otherwise return rows of a common total.
    """
    return {"size_factor": "row"} if hasattr(model, "size_factor_") else {}


def is_conditional(model: Any) -> bool:
    """Whether a fitted model was fitted with targets, which its decoder reads."""
    member = first_member(model)
    return hasattr(member, "reconstruct") and getattr(member, "conditional", False) is True


def _check_inverse(name: str, step: Any) -> None:
    """Raise if a step that is not the last cannot be inverted."""
    kind = type(step).__name__
    remedy = (
        "The error is measured in the units of the rows that the Pipeline gets, and therefore all "
        "its steps must be inverted. Transform the rows by this step once, before the search, or "
        "score the Pipeline behind it"
    )
    if fills_values(step):
        if keeps_columns(step):
            return
        reason = "leaves out columns without observed values; set its keep_empty_features=True"
    elif isinstance(step, FunctionTransformer):
        if step.func is None or step.inverse_func is not None:
            return
        reason = "has func and no inverse_func"
        remedy += ", or set its inverse_func"
    elif hasattr(step, "inverse_transform"):
        return
    else:
        reason = "has no method inverse_transform"
    raise ValueError(f"Step {name!r} ({kind}) of the Pipeline {reason}. {remedy}.")


def _errors_of(X: Array, found: Any) -> NDArray[np.float64]:
    X_reconstructed = check_rows(
        found.toarray() if sparse.issparse(found) else found, "the reconstruction of X"
    )
    if X.shape != X_reconstructed.shape:
        raise ValueError(
            f"The reconstruction has shape {X_reconstructed.shape}, but X has shape {X.shape}."
        )
    return row_errors(X, X_reconstructed)


def row_errors(X: Array, X_reconstructed: Array) -> NDArray[np.float64]:
    """Squared error of each row, summed over its observed values."""
    errors = np.empty(len(X))
    with np.errstate(over="ignore", invalid="ignore"):  # callers check the range
        for rows in gen_batches(len(X), rows_per_block(X.shape[1])):
            difference = np.subtract(X[rows], X_reconstructed[rows], dtype=np.float64)
            errors[rows] = np.nansum(difference**2, axis=1)
    return errors


def _dense(rows: Any) -> NDArray[np.float64]:
    return np.asarray(rows.toarray() if sparse.issparse(rows) else rows, dtype=np.float64)
