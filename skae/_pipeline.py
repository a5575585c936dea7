"""New rows from a whole Pipeline: sample the last step, invert the others."""

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
    """Draw new rows from a fitted Pipeline whose last step can sample.

    The last step draws rows in its own space; the `inverse_transform` of the other
    steps, last to first, takes them back to the space of the data. Steps that are
    'passthrough' or None are skipped, also at the end.

    Parameters
    ----------
    pipeline : sklearn.pipeline.Pipeline
        A fitted pipeline, or a fitted search over one, such as a
        :class:`~sklearn.model_selection.GridSearchCV`, which stands for its `best_estimator_`;
        either may be in a :class:`~sklearn.frozen.FrozenEstimator`. Its last step is a skae
        estimator, a :class:`~sklearn.mixture.GaussianMixture`, a
        :class:`~sklearn.neighbors.KernelDensity`, another such pipeline, or anything
        else with a `sample` method.
    n_samples : int, default=1
        How many rows to draw.
    random_state : int, RandomState instance or None, default=None
        Seed of the draw. None takes fresh entropy, so that two calls differ; NumPy's
        global generator is never touched. A last step that reads `random_state` from
        its constructor, as GaussianMixture does, draws from a copy that has this one.
    **sample_params : dict
        Passed to the `sample` of the last step, such as `noise=False`.

    Returns
    -------
    X_new : ndarray of shape (n_samples, n_features)
        The drawn rows; a data frame with the columns of the training data when
        `set_output` makes the last step, or one that is inverted, return one.

    Raises
    ------
    TypeError
        If `pipeline` is not a Pipeline nor a search over one that has refitted the best, if its
        last step has no `sample`, if another
        step has no `inverse_transform`, if `random_state` is given and the last step
        takes none, or if `n_samples` is not an integer.
    ValueError
        If `n_samples` is not positive.
    sklearn.exceptions.NotFittedError
        If the pipeline is not fitted.

    Notes
    -----
    Steps are inverted as `Pipeline.inverse_transform` inverts them: what a step threw
    away does not come back, and a FunctionTransformer without `inverse_func` changes
    nothing.

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
        hint = " Call its own sample." if hasattr(pipeline, "sample") else ""
        raise TypeError(
            f"pipeline must be a sklearn.pipeline.Pipeline, got {type(pipeline).__name__}.{hint}"
        )
    steps = [(n, s) for n, s in pipeline.steps if s is not None and s != "passthrough"]
    if not steps:
        raise TypeError("Every step of the pipeline is passed through: there is none to sample.")
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
                "so that samples cannot be taken back to the space of the data."
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
    """What a fitted search chose, and what is frozen; all others are what they are."""
    if isinstance(estimator, FrozenEstimator):
        return _best(estimator.estimator)
    if not (hasattr(estimator, "refit") and hasattr(estimator, "estimator")):
        return estimator
    check_is_fitted(estimator, "cv_results_")
    if not hasattr(estimator, "best_estimator_"):
        raise TypeError(
            f"{type(estimator).__name__} was fitted with refit={estimator.refit!r} and has no "
            "best_estimator_ to sample. Set refit=True, or give a Pipeline that is fitted."
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
            f"random_state is given, but the last step, {name!r} ({type(last).__name__}), "
            "takes none: neither its sample nor its constructor has that parameter."
        )
    drawn = last.sample(n_samples, **sample_params)
    return drawn[0] if isinstance(drawn, tuple) else drawn  # mixtures return (rows, labels)


def _in_double_precision(density: Any) -> Any:
    """The copy of a mixture of float32 codes, as those of networks are, with exact covariances.

    NumPy warns of covariances that are symmetric only to single precision.
    """
    covariances: Any = getattr(density, "covariances_", None)
    if getattr(covariances, "dtype", None) == np.float32:
        wide = covariances.astype(np.float64)
        if density.covariance_type in ("full", "tied"):
            wide = (wide + wide.swapaxes(-1, -2)) / 2
        density.covariances_ = wide
    return density


def _container(rows: object) -> str | None:
    """Name of the data frame library that `rows` comes from."""
    library = type(rows).__module__.partition(".")[0]
    return library if library in ("pandas", "polars") else None


def _to_frame(rows: Any, container: str, names: Any) -> Any:
    # A transformer that does nothing is scikit-learn's public way to make either frame.
    if names is None:
        naming = FunctionTransformer(feature_names_out="one-to-one")
    else:
        naming = FunctionTransformer(feature_names_out=lambda _, __: np.asarray(names))
    return naming.set_output(transform=container).fit_transform(rows)
