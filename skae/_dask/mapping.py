"""Methods of fitted estimators on Dask collections, computed lazily block by block."""

from collections.abc import Iterator
from dataclasses import replace
from inspect import Parameter, signature
from itertools import product
from math import nan
from typing import Any

import numpy as np
from numpy.typing import NDArray
from sklearn import get_config

from skae._dask.alignment import (
    Aligned,
    align,
    check_columns_known,
    mapped_arrays,
    mapped_frames,
    n_blocks,
    results_of_blocks,
)
from skae._dask.fitted import Call, Fitted, in_frame
from skae._utils.dask_inputs import is_dask, is_dask_frame
from skae._utils.validation import asked_container, private_generator

Array = NDArray[Any]

# Methods that are given codes, or numbers that belong to codes.
_OF_CODES = ("inverse_transform", "score_codes", "inverse_gaussianize")


def map_blocks(estimator: Any, method: str, X: Any, *args: Any, **kwargs: Any) -> Any:
    """The result of a method of a fitted estimator, as a collection that is not computed yet.

    `method` returns one entry for each row of X. Its result for one row says what the collection
    is like.
    """
    check_columns_known(X)
    if getattr(estimator, "sample_posterior", False):  # of an imputer
        raise ValueError(
            "sample_posterior=True is not possible for collections of Dask, whose blocks would all "
            "have the same noise. Compute the rows first: X.compute()."
        )
    keywords = _keywords(getattr(estimator, method), X, *args, **kwargs)
    beside = {"y": keywords.pop("y")} if _is_for_rows(keywords.get("y"), X) else {}
    given = align(X, **beside)
    asked = _asked(estimator)
    as_frame = is_dask_frame(X) if asked is None else asked == "pandas"
    seeds = None
    if keywords.get("n_draws") is not None and "random_state" in _parameters(estimator, method):
        # Blocks with the same seed would all have the same noise.
        rng = private_generator(keywords.pop("random_state", None))
        seeds = rng.randint(2**31 - 1, size=n_blocks(X))
    container = "pandas" if as_frame and _names_results(estimator) else None
    call = Call(Fitted.of(estimator, container), method, keywords, get_config())
    example = _example(call, given)
    if hasattr(example, "columns") and not as_frame:  # the container that `fit` was given
        as_frame = True
        call = replace(call, fitted=Fitted.of(estimator, "pandas"))
        example = _example(call, given)
    if isinstance(example, tuple):
        return tuple(
            _lazy(replace(call, part=i), given, part, as_frame, seeds)
            for i, part in enumerate(example)
        )
    return _lazy(call, given, example, as_frame, seeds)


def _lazy(call: Call, given: Aligned, example: Any, as_frame: bool, seeds: Array | None) -> Any:
    """A collection of the results of a call, like the result for one row."""
    import dask.array as da
    from dask.delayed import delayed

    of_frame = is_dask_frame(given.rows)
    if seeds is not None:
        series = da.from_array(seeds, chunks=1)
        if of_frame:
            series = series.to_dask_dataframe()
        given = given._replace(beside=given.beside | {"seed": series})
    axis = 0 if seeds is None else 1  # that of the rows
    if (example.ndim == 1 and of_frame) or (example.ndim == 2 and as_frame):
        call = replace(call, empty=_empty_frame(call, given.rows, example), as_array=not of_frame)
        task = delayed(call, pure=True, traverse=False)
        return mapped_frames(given, task, call.empty)
    call = replace(call, empty=np.asarray(example).take([], axis))
    task = delayed(call, pure=True, traverse=False)
    if not of_frame:
        return mapped_arrays(given, task, call.empty, axis)
    shape = [nan if i == axis else n for i, n in enumerate(call.empty.shape)]
    parts = [
        da.from_delayed(part, shape, meta=call.empty) for part in results_of_blocks(given, task)
    ]
    return da.concatenate(parts, axis, allow_unknown_chunksizes=True)


def _empty_frame(call: Call, X: Any, example: Any) -> Any:
    """A series or a data frame without rows, like the partitions of a result."""
    import pandas as pd

    index = X._meta.index if is_dask_frame(X) else pd.RangeIndex(0)
    if example.ndim == 1:
        return pd.Series(np.asarray(example)[:0], index=index)
    if hasattr(example, "columns"):
        return example.iloc[:0].set_axis(index, axis=0)
    names = None
    model = call.fitted.model
    if call.method == "transform" and hasattr(model, "get_feature_names_out"):
        names = model.get_feature_names_out()
    elif call.method not in _OF_CODES and is_dask_frame(X):
        names = X.columns
    elif hasattr(model, "feature_names_in_"):
        names = model.feature_names_in_
    named = names is not None and len(names) == example.shape[1]
    columns = names if named else [f"x{i}" for i in range(example.shape[1])]
    return pd.DataFrame(np.asarray(example)[:0], index=index, columns=columns)


# ------------------------------------------------------- what a method is given


def _parameters(estimator: Any, method: str) -> Any:
    return signature(getattr(estimator, method)).parameters


def _keywords(method: Any, X: Any, *args: Any, **kwargs: Any) -> dict[str, Any]:
    """Arguments other than X by their names."""
    bound = signature(method).bind(X, *args, **kwargs)
    names, found = list(bound.arguments), dict[str, Any]()
    for name in names[1:]:
        variable = bound.signature.parameters[name].kind is Parameter.VAR_KEYWORD
        found.update(bound.arguments[name] if variable else {name: bound.arguments[name]})
    return found


def _is_for_rows(y: Any, X: Any) -> bool:
    """Whether y has one entry for each row; otherwise it is the same for all rows."""
    if y is None or isinstance(y, (tuple, dict)) or np.ndim(y) == 0:
        return False
    n_rows = nan if is_dask_frame(X) else X.shape[0]
    return is_dask(y) or n_rows != n_rows or len(y) == n_rows


def _asked(estimator: Any) -> str | None:
    asked = asked_container(estimator)
    if asked == "polars":
        raise ValueError(
            "set_output(transform='polars') is not possible for collections of Dask, whose "
            "partitions are data frames of pandas. Set 'pandas' or 'default'."
        )
    return asked


def _names_results(estimator: Any) -> bool:
    """Whether the estimator itself can give data frames whose columns have names."""
    return type(estimator).__module__.startswith("skae.") and hasattr(estimator, "set_output")


# --------------------------------------------------- what a method returns for one row


def _example(call: Call, given: Aligned) -> Any:
    """The result for one row, from the first row that the method accepts."""
    errors = []
    for rows, beside in product(_rows_to_try(call, given.rows), _targets_to_try(call, given)):
        try:
            return call.found(rows, **beside)
        except Exception as error:
            errors.append(error)
    raise errors[0]


def _rows_to_try(call: Call, X: Any) -> Iterator[Any]:
    """Single rows with the columns and types of X: ones, zeros, and a row of the model."""
    if is_dask_frame(X):
        yield X._meta_nonempty.iloc[:1]
    else:
        yield np.ones((1, *X.shape[1:]), X.dtype)
        yield np.zeros((1, *X.shape[1:]), X.dtype)
    model = call.fitted.model
    try:
        row = model.sample(1, random_state=0)
        if call.method in _OF_CODES:
            row = model.transform(row)
    except Exception:  # the first error is raised
        return
    if row.ndim == X.ndim and row.shape[1] == X.shape[1]:
        if is_dask_frame(X):
            yield in_frame(row, X._meta, [0]).set_axis(X.columns, axis=1)
        else:
            yield np.asarray(row).astype(X.dtype)


def _targets_to_try(call: Call, given: Aligned) -> Iterator[dict[str, Any]]:
    """No targets, or those that the model has learned."""
    yield {}
    if "y" not in given.beside:
        return
    model = call.fitted.model
    for name in ("class_combinations_", "classes_"):
        if hasattr(model, name):
            yield {"y": getattr(model, name)[:1]}
    if hasattr(model, "target_mean_"):
        one = given.beside["y"].ndim == 1
        yield {"y": model.target_mean_[:1] if one else model.target_mean_[None]}
