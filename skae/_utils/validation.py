"""Checks of parameters and arguments. Only this file imports private helpers of scikit-learn."""

import functools
import os
from collections.abc import Callable
from math import frexp
from numbers import Integral, Real
from typing import Any, TypeVar, cast

import numpy as np
from numpy.typing import NDArray
from sklearn import get_config
from sklearn.base import _clone_parametrized, _fit_context
from sklearn.utils import check_array, check_random_state, get_tags
from sklearn.utils._array_api import (
    _average,
    _is_numpy_namespace,
    _logsumexp,
    _max_precision_float_dtype,
    check_same_namespace,
    get_namespace,
    get_namespace_and_device,
    move_to,
)
from sklearn.utils._param_validation import (
    HasMethods,
    Interval,
    MissingValues,
    RealNotInt,
    StrOptions,
    validate_parameter_constraints,
)
from sklearn.utils._repr_html.fitted_attributes import AttrsDict
from sklearn.utils._set_output import (
    _get_container_adapter,
    _get_output_config,
    _safe_set_output,
)
from sklearn.utils.validation import (
    _check_feature_names_in,
    _check_sample_weight,
    _get_feature_names,
    _num_samples,
    validate_data,
)

from skae._utils.dask_inputs import in_memory
from skae._utils.inputs import (
    as_numbers,
    check_not_sparse_frame,
    check_rows_are_2d,
    is_lazy,
    is_sparse_frame,
    naming,
)
from skae._utils.readers import stored_rows
from skae._utils.sparse_rows import SparseRows
from skae._utils.stored_rows import StoredRows

__all__ = [
    "AttrsDict",
    "HasMethods",
    "Interval",
    "MissingValues",
    "RealNotInt",
    "StrOptions",
    "as_rows",
    "asked_container",
    "average",
    "check_argument",
    "check_codes",
    "check_feature_names_in",
    "check_in_float32",
    "check_indices",
    "check_rows",
    "check_same_namespace",
    "check_weight",
    "clone_parameters",
    "column_names",
    "fit_context",
    "get_namespace",
    "get_namespace_and_device",
    "is_numpy_namespace",
    "log_sum_exp",
    "meta_fit_context",
    "move_to",
    "num_samples",
    "private_generator",
    "remember_columns",
    "safe_set_output",
    "to_frame",
    "to_plain",
    "widest_float",
]

check_feature_names_in = _check_feature_names_in
clone_parameters = _clone_parametrized
is_numpy_namespace = _is_numpy_namespace
log_sum_exp = _logsumexp
num_samples = _num_samples
safe_set_output = _safe_set_output

Method = TypeVar("Method", bound=Callable[..., Any])


def fit_context(method: Method) -> Method:
    """Decorate a method that learns, so that it validates the parameters of its estimator."""
    decorated: Method = _fit_context(prefer_skip_nested_validation=True)(method)
    if method.__name__ != "partial_fit":
        return decorated

    @functools.wraps(method)
    def partial_fit(self: Any, *args: Any, **kwargs: Any) -> Any:
        # scikit-learn does not validate parameters that have changed since the first batch.
        if not get_config()["skip_parameter_validation"]:
            self._validate_params()
        return decorated(self, *args, **kwargs)

    return cast(Method, partial_fit)


def meta_fit_context(method: Method) -> Method:
    """As `fit_context`, for methods that fit other estimators, which validate their own."""
    decorated: Method = _fit_context(prefer_skip_nested_validation=False)(method)
    return decorated


def private_generator(random_state: object) -> np.random.RandomState:
    """A generator for `random_state`; None gives a new one, not the global one of NumPy."""
    if random_state is None:
        return np.random.RandomState()
    with naming("random_state"):
        return check_random_state(random_state)


def average(scores: Any, weights: Any | None = None) -> Any:
    """The mean of scores, or their weighted mean, also if sums of the weights overflow.

    Scores of weight 0 are not used, so that they may be infinite.
    """
    if weights is not None:
        xp, _ = get_namespace(weights)
        if not bool(xp.all(weights > 0)):
            scores, weights = scores[weights > 0], weights[weights > 0]
        exponent = frexp(float(xp.max(weights)))[1]
        weights = weights * 2.0**-exponent if exponent > 0 else weights  # which is exact
    with np.errstate(over="ignore"):  # the mean of scores near the range of floats is infinite
        return _average(scores, weights=weights)


def widest_float(X: Any) -> Any:
    """The most precise float dtype on the device of `X`."""
    xp, _, device = get_namespace_and_device(X)
    return _max_precision_float_dtype(xp, device)


def check_argument(name: str, value: object, allowed: list[object], caller: str) -> None:
    """Apply scikit-learn's parameter constraints to an argument of a method.

    Booleans are not accepted as numbers, although bool is a subclass of int.
    """
    if isinstance(value, bool) and "boolean" not in allowed:
        value = np.bool_(value)
    validate_parameter_constraints({name: allowed}, {name: value}, caller_name=caller)


def as_rows(estimator: Any, X: Any) -> Any:
    """Convert X to rows of numbers, with NaN for missing values; or raise."""
    tags = get_tags(estimator).input_tags
    X = as_numbers(in_memory(X), allow_nan=tags.allow_nan)
    if not hasattr(X, "__array__") and (stored := stored_rows(X)) is not None:
        parts = ", or parts of it to partial_fit" if hasattr(estimator, "partial_fit") else ""
        raise TypeError(
            f"X is {stored.kind}, which {type(estimator).__name__} cannot read; estimators with a "
            f"network can. Give its rows as an array or a data frame{parts}."
        )
    if not tags.sparse:
        check_not_sparse_frame(X, estimator)
    check_rows_are_2d(X, conv=hasattr(estimator, "network"))
    return X


def check_rows(estimator: Any, X: Any, *, reset: bool, min_rows: int = 1) -> Any:
    """Validate rows by the tags of the estimator; returns floats of their array namespace."""
    tags = get_tags(estimator).input_tags
    if reset:
        remember_columns(estimator, X)
    X = as_rows(estimator, X)
    xp, _ = get_namespace(X)
    with naming("X"):
        return validate_data(
            estimator,
            X,
            reset=reset,
            dtype=[xp.float64, xp.float32],
            accept_sparse=("csr", "csc") if tags.sparse else False,
            ensure_all_finite="allow-nan" if tags.allow_nan else True,
            ensure_min_samples=min_rows,
        )


def check_weight(sample_weight: Any, X: Any) -> Any | None:
    """Validate weights, one for each row and none negative; None stays None."""
    if sample_weight is None:
        return None
    weight = as_numbers(sample_weight, "sample_weight")
    if isinstance(X, SparseRows):
        X = X.matrix
    elif isinstance(X, StoredRows):
        X = np.broadcast_to(np.zeros(1), (len(X), 1))
    with naming("sample_weight"):
        return _check_sample_weight(weight, X, dtype=widest_float(X), ensure_non_negative=True)


def check_codes(Z: Any, names: Any, caller: str) -> Any:
    """Validate codes with these names; returns floats of shape (n_samples, n_codes)."""
    Z = as_numbers(Z)
    Z = Z.sparse.to_dense() if is_sparse_frame(Z) else Z  # one-hot codes, for example
    check_rows_are_2d(Z)
    xp, _ = get_namespace(Z)
    given = _get_feature_names(Z)
    if given is not None and list(given) != list(names) and set(given) == set(names):
        raise ValueError(
            f"The columns of X have the names of the codes in another order: got {list(given)}, "
            f"but {caller} expects {list(names)}."
        )
    with naming("X"):
        Z = check_array(Z, input_name="X", dtype=[xp.float64, xp.float32])
    if Z.shape[1] != len(names):
        raise ValueError(
            f"X has {Z.shape[1]} columns, but {caller}.inverse_transform "
            f"expects {len(names)}, one for each code."
        )
    return Z


def check_indices(Z: Any, n: int, of_what: str, names: Any, for_numbers: str = "") -> None:
    """Raise if a code is not an index from 0 to n - 1; `names` are the names of the columns.

    `for_numbers` says how the model can have codes that are real numbers.
    """
    wrong = (Z < 0) | (n <= Z) | (Z % 1 != 0)
    if wrong.any():
        row, column = np.argwhere(wrong)[0]
        advice = ""
        if (Z % 1 != 0).any():
            other = f", {for_numbers}" if for_numbers else ""
            advice = (
                " A regressor, for example that of a TransformedTargetRegressor, predicts real "
                "numbers, which are not indices. Predict the indices by a classifier"
                f"{other}, or use a model whose codes are real numbers, such as Autoencoder or VAE."
            )
        raise ValueError(
            f"X holds {Z[row, column]:g} in column {names[column]!r}; allowed are the indices 0 to "
            f"{n - 1} of the {of_what}.{advice}"
        )


def check_in_float32(params: dict[str, Any]) -> None:
    """Raise for a real number among parameters that float32 cannot represent."""
    limit = float(np.finfo(np.float32).max)
    for name, value in params.items():
        is_real = isinstance(value, Real) and not isinstance(value, Integral)
        if is_real and limit < abs(value) < np.inf:
            raise ValueError(
                f"{name}={value!r} exceeds the range of float32, in which networks compute; "
                f"allowed are numbers up to {limit:.3g}."
            )


def to_plain(value: Any) -> NDArray[Any] | Any:
    """Convert arrays of any namespace to NumPy, and paths to text, but no other values."""
    if isinstance(value, os.PathLike):
        return os.fspath(value)
    if hasattr(value, "__dlpack__") and not isinstance(value, np.ndarray):
        return move_to(value, xp=np, device="cpu")
    if type(value) is tuple:
        return tuple(to_plain(item) for item in value)
    return value


def remember_columns(estimator: Any, X: Any) -> None:
    """Store names of columns that are numbers or dates; scikit-learn stores strings only."""
    columns = None if is_lazy(X) else getattr(X, "columns", None)
    dtype = getattr(columns, "dtype", None)
    if isinstance(dtype, np.dtype) and dtype.kind in "iufM":
        estimator._column_names = np.array(columns)


def column_names(estimator: Any) -> Any:
    """Names of the columns of rows in data frames: those of the training data, or "x0", ..."""
    names = getattr(estimator, "_column_names", None)
    return _check_feature_names_in(estimator) if names is None else names


def asked_container(estimator: Any) -> str | None:
    """Container set by `set_output` or by the global configuration; None if neither is set."""
    asked: str = _get_output_config("transform", estimator)["dense"]
    own = "transform" in getattr(estimator, "_sklearn_output_config", {})
    return asked if own or asked != "default" else None


def to_frame(estimator: Any, rows: Any, original: Any = None, names: Any = None) -> Any:
    """Rows in the container that `set_output` asks for; by default with names of the input."""
    adapter = _get_container_adapter("transform", estimator)
    if adapter is None:
        return rows
    names = column_names(estimator) if names is None else names
    if adapter.container_lib == "polars":  # which has no other names than strings
        names = [str(name) for name in names]
    return adapter.create_container(rows, original, columns=names)
