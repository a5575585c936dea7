"""Searches and cross-validation of scikit-learn that do work only once which candidates share."""

from numbers import Integral
from typing import Any, ClassVar

import numpy as np
from sklearn import model_selection

from skae._search.scikit_learn import (
    BaseSearchCV,
    cross_validate_constraints,
    search_fit_context,
    validate_params,
    with_names,
)
from skae._search.scikit_learn import cross_validate as cross_validate_separately
from skae._search.sharing import Sharing
from skae._utils.validation import Interval

__all__ = ["GridSearchCV", "RandomizedSearchCV", "cross_validate"]

_CONSTRAINTS: dict[str, list[Any]] = {
    "share": ["boolean"],
    "share_approximate": ["boolean"],
    "memory_limit": [Interval(Integral, 1, None, closed="left"), None],
}


class _SharingSearch(BaseSearchCV):
    """A search whose `fit` is scikit-learn's, but for who evaluates the candidates."""

    share: bool = True
    share_approximate: bool = False
    memory_limit: int | None = None
    shared_fits_: list[dict[str, Any]]

    @search_fit_context
    def fit(self, X: Any, y: Any = None, **params: Any) -> Any:
        """Evaluate all candidates by cross-validation, and fit the best one to all rows.

        Parameters
        ----------
        X : array-like of shape (n_samples, n_features)
            Rows.
        y : array-like of shape (n_samples,) or (n_samples, n_outputs), default=None
            Targets, where the estimator has any.
        **params : dict
            What `fit` of the estimator, the scorer and the splitter are given, as in
            scikit-learn: what has one value per row is cut with the rows.

        Returns
        -------
        self : object
            The fitted search.
        """
        sharing = Sharing(
            self.share,
            self.share_approximate,
            self.memory_limit,
            advises=type(self).__name__ if self.scoring is None else None,
        )
        with_names(BaseSearchCV.fit, Parallel=sharing.parallel)(self, X, y, **params)
        self.shared_fits_ = sharing.report.entries
        return self


class GridSearchCV(_SharingSearch, model_selection.GridSearchCV):
    """scikit-learn's GridSearchCV, in which candidates share the work that they have in common.

    Its parameters, methods, attributes and results are scikit-learn's. Within each fold, the
    steps of a Pipeline that candidates have in common are fitted once, and all sizes
    (`n_components`) of LinearAE, PPCA and scikit-learn's PCA are cut from one decomposition.
    Networks that differ in their size, seed, learning rate and the like are trained as one, those
    of all folds together. All else is evaluated as in scikit-learn.

    Parameters
    ----------
    estimator : estimator object
        What is fitted; it needs a `score`, or `scoring` must be given.
    param_grid : dict or list of dicts
        Values to try of each parameter; a list of such grids is explored one by one.
    scoring : str, callable, list, tuple or dict, default=None
        What ranks candidates. None is their own `score`; a UserWarning says so where these
        scores rank sizes wrongly or may not be compared (`score_kind`), and names others.
    n_jobs : int, default=None
        Number of processes. Each takes a fold, or a part of one; of networks, its part of all
        candidates and folds, which it trains as one.
    refit : bool, str or callable, default=True
        Whether, and by which metric, to fit the best candidate to all rows.
    cv : int, splitter or iterable, default=None
        The folds; None means five.
    verbose : int, default=0
        How much is printed; above 0, a line also tells what was shared.
    pre_dispatch : int or str, default='2*n_jobs'
        How many jobs are handed out in advance.
    error_score : 'raise' or numeric, default=np.nan
        The score of a candidate whose fit fails.
    return_train_score : bool, default=False
        Whether training rows are scored, too.
    share : bool, default=True
        False evaluates each candidate by itself, as scikit-learn does.
    share_approximate : bool, default=False
        Whether sizes are also cut from one decomposition where the solver is iterative or
        randomized; scores then differ slightly from those of separate fits.
    memory_limit : int, default=None
        Bytes that the networks which train together may take, over all processes, and as many
        for the rows of their folds. What needs more is trained in parts, of one network at
        least. None means 2 GiB per process or, on a GPU, half of what is free there.

    Attributes
    ----------
    cv_results_, best_estimator_, best_score_, best_params_, best_index_, scorer_, n_splits_, \
refit_time_, multimetric_, classes_, n_features_in_, feature_names_in_
        As of scikit-learn's GridSearchCV. The time of work that was shared is divided among
        those who shared it.
    shared_fits_ : list of dict
        What was shared, by the keys `split`, the number of the fold (None for all folds);
        `candidates`, their numbers in `cv_results_`; `how`, which is "step" (fitted once),
        "sizes" (all from one fit), "training" (trained as one) or None (each by itself); `step`,
        the class of what was shared; and `why`, the reason where nothing was.

    Notes
    -----
    Work is shared where results are provably the same: of steps of scikit-learn and skae that are
    deterministic, and of networks with an integer `random_state`, whose scores are equal but for
    rounding, which long training makes larger. A Pipeline with a `memory`, or with `verbose`, is
    fitted as it is; so is a step that callbacks listen to, or that is given weights. Where a
    shared fit fails, each candidate is fitted by itself. A warning of a shared fit is given once.
    Candidates that share work are evaluated fold by fold, so that estimators which draw from
    NumPy's global generator draw other numbers than in scikit-learn's search.

    See the page "Choose the latent size" of the documentation, section "Which scores rank sizes".

    Examples
    --------
    >>> from sklearn.datasets import load_digits
    >>> from skae import PPCA, GridSearchCV
    >>> X, _ = load_digits(return_X_y=True)
    >>> search = GridSearchCV(PPCA(), {"n_components": [5, 10, 20, 40]}, cv=3).fit(X)
    >>> search.best_params_
    {'n_components': 40}
    >>> search.shared_fits_[0]["candidates"], search.shared_fits_[0]["how"]
    ([0, 1, 2, 3], 'sizes')
    """

    _parameter_constraints: ClassVar[dict[str, list[Any]]] = {
        **model_selection.GridSearchCV._parameter_constraints,
        **_CONSTRAINTS,
    }

    def __init__(
        self,
        estimator: Any,
        param_grid: Any,
        *,
        scoring: Any = None,
        n_jobs: int | None = None,
        refit: Any = True,
        cv: Any = None,
        verbose: int = 0,
        pre_dispatch: int | str = "2*n_jobs",
        error_score: float | str = np.nan,
        return_train_score: bool = False,
        share: bool = True,
        share_approximate: bool = False,
        memory_limit: int | None = None,
    ) -> None:
        super().__init__(
            estimator=estimator,
            param_grid=param_grid,
            scoring=scoring,
            n_jobs=n_jobs,
            refit=refit,
            cv=cv,
            verbose=verbose,
            pre_dispatch=pre_dispatch,
            error_score=error_score,
            return_train_score=return_train_score,
        )
        self.share = share
        self.share_approximate = share_approximate
        self.memory_limit = memory_limit


class RandomizedSearchCV(_SharingSearch, model_selection.RandomizedSearchCV):
    """scikit-learn's RandomizedSearchCV, in which candidates share the work they have in common.

    See :class:`GridSearchCV` for what is shared, and when.

    Parameters
    ----------
    estimator : estimator object
        What is fitted; it needs a `score`, or `scoring` must be given.
    param_distributions : dict or list of dicts
        Distributions with an `rvs` method, or lists of values, of each parameter.
    n_iter : int, default=10
        Number of candidates that are drawn.
    scoring, n_jobs, refit, cv, verbose, pre_dispatch, error_score, return_train_score, share, \
share_approximate, memory_limit
        As of :class:`GridSearchCV`.
    random_state : int, RandomState instance or None, default=None
        Which candidates are drawn.

    Attributes
    ----------
    cv_results_, best_estimator_, best_score_, best_params_, best_index_, scorer_, n_splits_, \
refit_time_, multimetric_, classes_, n_features_in_, feature_names_in_, shared_fits_
        As of :class:`GridSearchCV`.

    Examples
    --------
    >>> from scipy.stats import randint
    >>> from sklearn.datasets import load_digits
    >>> from skae import PPCA, RandomizedSearchCV
    >>> X, _ = load_digits(return_X_y=True)
    >>> sizes = {"n_components": randint(1, 40)}
    >>> search = RandomizedSearchCV(PPCA(), sizes, n_iter=4, cv=3, random_state=0).fit(X)
    >>> len(search.cv_results_["params"]), search.shared_fits_[0]["how"]
    (4, 'sizes')
    """

    _parameter_constraints: ClassVar[dict[str, list[Any]]] = {
        **model_selection.RandomizedSearchCV._parameter_constraints,
        **_CONSTRAINTS,
    }

    def __init__(
        self,
        estimator: Any,
        param_distributions: Any,
        *,
        n_iter: int = 10,
        scoring: Any = None,
        n_jobs: int | None = None,
        refit: Any = True,
        cv: Any = None,
        verbose: int = 0,
        pre_dispatch: int | str = "2*n_jobs",
        random_state: int | np.random.RandomState | None = None,
        error_score: float | str = np.nan,
        return_train_score: bool = False,
        share: bool = True,
        share_approximate: bool = False,
        memory_limit: int | None = None,
    ) -> None:
        super().__init__(
            estimator=estimator,
            param_distributions=param_distributions,
            n_iter=n_iter,
            scoring=scoring,
            n_jobs=n_jobs,
            refit=refit,
            cv=cv,
            verbose=verbose,
            pre_dispatch=pre_dispatch,
            random_state=random_state,
            error_score=error_score,
            return_train_score=return_train_score,
        )
        self.share = share
        self.share_approximate = share_approximate
        self.memory_limit = memory_limit


@validate_params(
    {
        **cross_validate_constraints,
        "share": _CONSTRAINTS["share"],
        "memory_limit": _CONSTRAINTS["memory_limit"],
    },
    prefer_skip_nested_validation=False,
)
def cross_validate(
    estimator: Any,
    X: Any,
    y: Any = None,
    *,
    groups: Any = None,
    scoring: Any = None,
    cv: Any = None,
    n_jobs: int | None = None,
    verbose: int = 0,
    params: dict[str, Any] | None = None,
    pre_dispatch: int | str = "2*n_jobs",
    return_train_score: bool = False,
    return_estimator: bool = False,
    return_indices: bool = False,
    error_score: float | str = np.nan,
    share: bool = True,
    memory_limit: int | None = None,
) -> dict[str, Any]:
    """scikit-learn's `cross_validate`, in which the networks of all folds are trained together.

    Parameters
    ----------
    estimator : estimator object
        What is fitted. Networks with an integer `random_state` are trained as one; all else is
        fitted fold by fold.
    X : array-like of shape (n_samples, n_features)
        Rows.
    y : array-like of shape (n_samples,) or (n_samples, n_outputs), default=None
        Targets.
    groups, scoring, cv, n_jobs, verbose, params, pre_dispatch, return_train_score, \
return_estimator, return_indices, error_score
        As of scikit-learn's `cross_validate`.
    share : bool, default=True
        False trains the networks of the folds one after the other.
    memory_limit : int, default=None
        Bytes that the networks which train together may take, over all processes, and as many
        for the rows of their folds. What needs more is trained in parts, of one network at
        least. None means 2 GiB per process or, on a GPU, half of what is free there.

    Returns
    -------
    scores : dict of str to array of shape (n_splits,)
        As of scikit-learn's `cross_validate`: "test_score", "fit_time", "score_time" and what
        else is asked for. The time of a shared training is divided among the folds.

    Examples
    --------
    >>> from sklearn.datasets import load_iris
    >>> from skae import PPCA, cross_validate
    >>> X, _ = load_iris(return_X_y=True)
    >>> scores = cross_validate(PPCA(n_components=1), X, cv=3)
    >>> sorted(scores), scores["test_score"].shape
    (['fit_time', 'score_time', 'test_score'], (3,))
    """
    sharing = Sharing(share, memory_limit=memory_limit)
    return with_names(cross_validate_separately, Parallel=sharing.parallel)(
        estimator,
        X,
        y,
        groups=groups,
        scoring=scoring,
        cv=cv,
        n_jobs=n_jobs,
        verbose=verbose,
        params=params,
        pre_dispatch=pre_dispatch,
        return_train_score=return_train_score,
        return_estimator=return_estimator,
        return_indices=return_indices,
        error_score=error_score,
    )
