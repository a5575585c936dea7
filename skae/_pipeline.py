"""New rows from a whole Pipeline: sample the last step, invert the others."""

from typing import Any

import numpy as np

from skae._utils.pipeline_samples import draw_through


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
    return draw_through(pipeline, n_samples, random_state, sample_params)
