"""Rows drawn by the last step of a Pipeline and taken back through the others."""

from copy import copy
from inspect import signature
from typing import Any

import numpy as np
from sklearn.pipeline import Pipeline
from sklearn.preprocessing import FunctionTransformer
from sklearn.utils.validation import check_is_fitted

from skae._utils.inputs import check_count
from skae._utils.pipeline_steps import best_of, taken_steps
from skae._utils.validation import private_generator


def draw_through(
    pipeline: Any, n_samples: int, random_state: Any, sample_params: dict[str, Any]
) -> Any:
    """What :func:`skae.sample_pipeline` returns and raises."""
    pipeline = best_of(pipeline)
    if not isinstance(pipeline, Pipeline):
        hint = " Call its method sample." if hasattr(pipeline, "sample") else ""
        raise TypeError(
            f"pipeline must be a sklearn.pipeline.Pipeline, got {type(pipeline).__name__}.{hint}"
        )
    steps = taken_steps(pipeline)
    if not steps:
        raise TypeError(
            "All steps of the pipeline are None or 'passthrough'. One step with a method sample is "
            "needed."
        )
    *others, (last_name, last) = steps
    last = best_of(last)
    if not hasattr(last, "sample") and not isinstance(last, Pipeline):
        raise TypeError(
            f"The last step, {last_name!r} ({type(last).__name__}), has no method sample."
        )
    for name, step in others:
        if not hasattr(step, "inverse_transform"):
            raise TypeError(
                f"Step {name!r} ({type(step).__name__}) has no method inverse_transform, "
                "which is needed to transform samples back to the space of the data."
            )
    check_is_fitted(last)
    n_samples = check_count("n_samples", n_samples)

    rows = _draw(last_name, last, n_samples, random_state, sample_params)
    container = _container(rows)
    for _, step in reversed(others):
        rows = step.inverse_transform(rows)
        container = container or _container(rows)
    if container is None or not others:
        return rows
    rows = np.asarray(rows) if _container(rows) else rows
    first = steps[0][1]
    frame = _to_frame(rows, container, getattr(first, "feature_names_in_", None))
    if container == "pandas" and hasattr(first, "_column_names"):
        frame.columns = first._column_names
    return frame


def _draw(
    name: str, last: Any, n_samples: int, random_state: object, sample_params: dict[str, Any]
) -> Any:
    rng = private_generator(random_state)
    if isinstance(last, Pipeline):
        return draw_through(last, n_samples, rng, sample_params)
    if "random_state" in signature(last.sample).parameters:
        sample_params = {**sample_params, "random_state": rng}
    elif hasattr(last, "random_state"):
        last = _in_double_precision(copy(last))
        last.random_state = rng
    elif random_state is not None:
        raise TypeError(
            f"random_state was given, but the last step, {name!r} ({type(last).__name__}), does "
            "not accept it: neither its method sample nor its constructor has this parameter."
        )
    drawn = last.sample(n_samples, **sample_params)
    return drawn[0] if isinstance(drawn, tuple) else drawn  # mixtures return (rows, labels)


def _in_double_precision(density: Any) -> Any:
    """Make the covariances of a mixture of float32 codes symmetric in double precision.

    NumPy warns if covariances are symmetric only in single precision. `density` is changed.
    """
    covariances: Any = getattr(density, "covariances_", None)
    if getattr(covariances, "dtype", None) == np.float32:
        wide = covariances.astype(np.float64)
        if density.covariance_type in ("full", "tied"):
            wide = (wide + wide.swapaxes(-1, -2)) / 2
        density.covariances_ = wide
    return density


def _container(rows: object) -> str | None:
    """Name of the data frame library of `rows`; None for other types."""
    library = type(rows).__module__.partition(".")[0]
    return library if library in ("pandas", "polars") else None


def _to_frame(rows: Any, container: str, names: Any) -> Any:
    # A transformer that does nothing is the only public way of scikit-learn to make data frames.
    if names is None:
        naming = FunctionTransformer(feature_names_out="one-to-one")
    else:
        naming = FunctionTransformer(feature_names_out=lambda _, __: np.asarray(names))
    return naming.set_output(transform=container).fit_transform(rows)
