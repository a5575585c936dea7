"""Draw new rows from a Pipeline: the last step draws, and the other steps are inverted."""

from copy import copy
from inspect import signature
from typing import Any

import numpy as np
from sklearn.frozen import FrozenEstimator
from sklearn.pipeline import Pipeline
from sklearn.preprocessing import FunctionTransformer
from sklearn.utils.validation import check_is_fitted

from skae._utils.inputs import check_count
from skae._utils.validation import private_generator


def sample_pipeline(
    pipeline: Any,
    n_samples: int = 1,
    *,
    random_state: int | np.random.RandomState | None = None,
    **sample_params: Any,
) -> Any:
    """Draw new rows from a fitted Pipeline whose last step has a method `sample`.

    The last step draws rows in its own space. The other steps then transform these rows back to
    the space of the data by their `inverse_transform`, in reverse order. Steps that are
    'passthrough' or None are skipped, also if they are the last.

    Parameters
    ----------
    pipeline : sklearn.pipeline.Pipeline
        A fitted pipeline, or a fitted search over pipelines, such as a
        :class:`~sklearn.model_selection.GridSearchCV`, of which `best_estimator_` is used. Either
        may be wrapped in a :class:`~sklearn.frozen.FrozenEstimator`. The last step is an estimator
        of skae, a :class:`~sklearn.mixture.GaussianMixture`, a
        :class:`~sklearn.neighbors.KernelDensity`, another pipeline of this kind, or any other
        estimator with a method `sample`.
    n_samples : int, default=1
        Number of rows to draw.
    random_state : int, RandomState instance or None, default=None
        Seed of the draw. With None, every call draws other rows. The global generator of NumPy is
        not used. If the last step has `random_state` as a parameter of its constructor, as
        GaussianMixture has, a copy with this `random_state` draws the rows.
    **sample_params : dict
        Parameters for the `sample` of the last step, such as `noise=False`.

    Returns
    -------
    X_new : ndarray of shape (n_samples, n_features)
        The drawn rows. They are a data frame with the columns of the training data if `set_output`
        makes the last step, or a step that is inverted, return data frames.

    Raises
    ------
    TypeError
        If `pipeline` is neither a Pipeline nor a search with a `best_estimator_` that is one. Also
        if the last step has no `sample`, if another step has no `inverse_transform`, if
        `random_state` is given and the last step does not accept it, or if `n_samples` is not an
        integer.
    ValueError
        If `n_samples` is not positive.
    sklearn.exceptions.NotFittedError
        If the pipeline is not fitted.

    Notes
    -----
    Steps are inverted as in `Pipeline.inverse_transform`. Information that a step discards is not
    restored, and a FunctionTransformer without `inverse_func` does not change the rows.

    Examples
    --------
    >>> from sklearn.datasets import load_digits
    >>> from sklearn.mixture import GaussianMixture
    >>> from sklearn.pipeline import make_pipeline
    >>> from sklearn.preprocessing import MaxAbsScaler
    >>> from skae import LinearAE, sample_pipeline
    >>> X, _ = load_digits(return_X_y=True)
    >>> mixture = GaussianMixture(10, random_state=0)
    >>> pipeline = make_pipeline(MaxAbsScaler(), LinearAE(10), mixture).fit(X)
    >>> X_new = sample_pipeline(pipeline, 500, random_state=0)
    >>> X_new.shape
    (500, 64)
    >>> print(f"mean pixel: {X.mean():.1f} in the data, {X_new.mean():.1f} in the draw")
    mean pixel: 4.9 in the data, 4.9 in the draw
    """
    pipeline = _best(pipeline)
    if not isinstance(pipeline, Pipeline):
        hint = " Call its method sample." if hasattr(pipeline, "sample") else ""
        raise TypeError(
            f"pipeline must be a sklearn.pipeline.Pipeline, got {type(pipeline).__name__}.{hint}"
        )
    steps = [(n, s) for n, s in pipeline.steps if s is not None and s != "passthrough"]
    if not steps:
        raise TypeError(
            "All steps of the pipeline are None or 'passthrough'. One step with a method sample is "
            "needed."
        )
    *others, (last_name, last) = steps
    last = _best(last)
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
    return _to_frame(rows, container, getattr(steps[0][1], "feature_names_in_", None))


def _best(estimator: Any) -> Any:
    """The estimator inside of a fitted search or a FrozenEstimator; otherwise the estimator."""
    if isinstance(estimator, FrozenEstimator):
        return _best(estimator.estimator)
    if not (hasattr(estimator, "refit") and hasattr(estimator, "estimator")):
        return estimator
    check_is_fitted(estimator, "cv_results_")
    if not hasattr(estimator, "best_estimator_"):
        raise TypeError(
            f"{type(estimator).__name__} was fitted with refit={estimator.refit!r} and therefore "
            "has no best_estimator_. Set refit=True, or give a fitted Pipeline."
        )
    return _best(estimator.best_estimator_)


def _draw(
    name: str, last: Any, n_samples: int, random_state: object, sample_params: dict[str, Any]
) -> Any:
    rng = private_generator(random_state)
    if isinstance(last, Pipeline):
        return sample_pipeline(last, n_samples, random_state=rng, **sample_params)
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
