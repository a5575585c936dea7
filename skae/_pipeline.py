"""Draw new rows from a Pipeline: the last step draws, and the other steps are inverted."""

from __future__ import annotations

from typing import Any

from skae._utils.pipeline_samples import draw_through
from skae._utils.types import ArrayOrFrame, RandomState


def sample_pipeline(
    pipeline: Any,
    n_samples: int = 1,
    *,
    random_state: RandomState = None,
    **sample_params: Any,
) -> ArrayOrFrame:
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
    return draw_through(pipeline, n_samples, random_state, sample_params)
