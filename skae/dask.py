"""Methods of any fitted estimator on collections of Dask, block by block.

Estimators of skae need none of this: their methods accept collections of Dask themselves. The
functions are for estimators of scikit-learn that contain them, such as a Pipeline or a search,
which would load all rows into memory.
"""

from __future__ import annotations

from skae._dask.mapping import map_blocks as _map_blocks
from skae._dask.scoring import mean_score as _mean_score
from skae._utils.dask_inputs import is_dask as _is_dask
from skae._utils.types import DaskCollection, Fittable

__all__ = ["map_blocks", "score"]


def map_blocks(
    estimator: Fittable, method: str, X: DaskCollection, /, **params: object
) -> DaskCollection:
    """Call a method of a fitted estimator on each block of a collection, lazily.

    The method must return one entry for each row, which does not depend on the other rows.

    Parameters
    ----------
    estimator : estimator object
        Fitted estimator, also a Pipeline or a search. The result uses a copy: it does not change
        if the estimator is fitted again.
    method : str
        Name of the method, such as "transform", "predict" or "score_samples".
    X : dask.array.Array or dask.dataframe.DataFrame of shape (n_samples, n_features)
        Rows in blocks of any lengths, which may be unknown.
    **params : dict
        Other arguments of the method. Targets `y` with one entry for each row are divided into the
        same blocks.

    Returns
    -------
    result : dask.array.Array, dask.dataframe.DataFrame or dask.dataframe.Series
        The results, which are not computed yet. For an array they are an array. For a data frame
        they are a data frame with the same index and divisions, or a series if the method returns
        one number for each row. `set_output` of the estimator chooses another container.

    Raises
    ------
    TypeError
        If `X` is not an array or a data frame of Dask.
    ValueError
        If the number of columns of `X` is unknown, or if the method raises it for one row with the
        columns and types of `X`.

    Examples
    --------
    >>> import dask.array as da
    >>> from sklearn.datasets import load_iris
    >>> from sklearn.pipeline import make_pipeline
    >>> from sklearn.preprocessing import StandardScaler
    >>> from skae import PPCA
    >>> from skae.dask import map_blocks
    >>> X, _ = load_iris(return_X_y=True)
    >>> model = make_pipeline(StandardScaler(), PPCA(2)).fit(X)
    >>> map_blocks(model, "transform", da.from_array(X, chunks=(50, 4))).chunks
    ((50, 50, 50), (2,))
    """
    _check(X)
    return _map_blocks(estimator, method, X, **params)


def score(
    estimator: Fittable,
    X: DaskCollection,
    y: object = None,
    sample_weight: object = None,
) -> float:
    """Compute the mean score of the rows of a collection, block by block.

    The score of an estimator must be a mean over rows, as that of density estimators is. The
    coefficient of determination of regressors is not.

    Parameters
    ----------
    estimator : estimator object
        Fitted estimator, also a Pipeline or a search.
    X : dask.array.Array or dask.dataframe.DataFrame of shape (n_samples, n_features)
        Rows to score.
    y : dask.array.Array, dask.dataframe.Series or array-like of shape (n_samples,), default=None
        Targets, for estimators whose `score` reads them.
    sample_weight : dask.array.Array, dask.dataframe.Series or array-like of shape (n_samples,), \
            default=None
        Weights of the rows in the mean.

    Returns
    -------
    score : float
        Mean of the scores of all rows, or their weighted mean.

    Raises
    ------
    TypeError
        If `X` is not an array or a data frame of Dask.
    ValueError
        If no row has a positive weight, or if the estimator raises it.

    Examples
    --------
    >>> import dask.array as da
    >>> import numpy as np
    >>> from sklearn.datasets import load_iris
    >>> from sklearn.pipeline import make_pipeline
    >>> from sklearn.preprocessing import StandardScaler
    >>> from skae import PPCA
    >>> from skae.dask import score
    >>> X, _ = load_iris(return_X_y=True)
    >>> model = make_pipeline(StandardScaler(), PPCA(2)).fit(X)
    >>> bool(np.isclose(score(model, da.from_array(X, chunks=(50, 4))), model.score(X)))
    True
    """
    _check(X)
    return _mean_score(estimator, X, y, sample_weight)[0]


def _check(X: object) -> None:
    if not _is_dask(X):
        raise TypeError(
            f"X is of type {type(X).__name__}; allowed are arrays and data frames of Dask."
        )
