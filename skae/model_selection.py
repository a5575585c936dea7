"""Searches and cross-validation of scikit-learn that do the common work of candidates once."""

from __future__ import annotations

from numbers import Integral
from typing import Any, ClassVar, Literal, Self

import numpy as np

from skae._search import bases
from skae._search.scikit_learn import cross_validate as cross_validate_separately
from skae._search.scikit_learn import (
    cross_validate_constraints,
    search_fit_context,
    validate_params,
    with_names,
)
from skae._search.sharing import Sharing
from skae._utils.fit_names import REFIT, part_of
from skae._utils.state import unchanged_by_errors
from skae._utils.types import RandomState
from skae._utils.validation import Interval

__all__ = ["GridSearchCV", "RandomizedSearchCV", "cross_validate"]

_CONSTRAINTS: dict[str, list[Any]] = {
    "share": ["boolean"],
    "share_approximate": ["boolean"],
    "memory_limit": [Interval(Integral, 1, None, closed="left"), None],
}


class _SharingSearch(bases.BaseSearchCV):
    """A search with the `fit` of scikit-learn and another evaluation of the candidates."""

    share: bool = True
    share_approximate: bool = False
    memory_limit: int | None = None
    shared_fits_: list[dict[str, Any]]

    @search_fit_context
    def fit(self, X: Any, y: Any = None, **params: Any) -> Self:
        """Evaluate all candidates by cross-validation, and fit the best one to all rows.

        Parameters
        ----------
        X : array-like of shape (n_samples, n_features)
            Rows.
        y : array-like of shape (n_samples,) or (n_samples, n_outputs), default=None
            Targets, if the estimator uses them.
        **params : dict
            Parameters for the `fit` of the estimator, the scorer and the splitter, as in
            scikit-learn. Parameters with one value for each row are split together with the rows.

        Returns
        -------
        self : object
            The fitted search. If `fit` raises an error, the search stays as it was before.
        """
        sharing = Sharing(
            self.share,
            self.share_approximate,
            None if self.memory_limit is None else int(self.memory_limit),
            advises=type(self).__name__ if self.scoring is None else None,
        )
        # The evaluations have names of their own.
        with part_of(REFIT), unchanged_by_errors(self):
            with_names(bases.BaseSearchCV.fit, Parallel=sharing.parallel)(self, X, y, **params)
        self.shared_fits_ = sharing.report.entries
        return self


class GridSearchCV(_SharingSearch, bases.GridSearchCV):
    """GridSearchCV of scikit-learn that does the common work of candidates only once.

    Parameters, methods, attributes and results are those of scikit-learn's GridSearchCV. Within
    each fold, steps of a Pipeline that are the same in several candidates are fitted once. All
    sizes (`n_components`) of LinearAE, PPCA and scikit-learn's PCA are computed from one
    decomposition. Networks that differ in size, seed, learning rate or similar parameters are
    trained together, in all folds at once. All other estimators are evaluated as in scikit-learn.

    Parameters
    ----------
    estimator : estimator object
        Estimator to fit. It needs a method `score` if `scoring` is None.
    param_grid : dict or list of dicts
        Values to try for each parameter, or a list of such grids, which are searched in turn.
    scoring : str, callable, list, tuple or dict, default=None
        Score by which the candidates are ranked. None takes the `score` of the estimator. If this
        score cannot be compared between the candidates (see `score_kind`), for example between
        latent sizes, a UserWarning says so and names other scores.
    n_jobs : int, default=None
        Number of processes. Each process evaluates a fold or a part of a fold. Networks are
        divided among the processes over all candidates and folds, and each process trains its
        networks together.
    refit : bool, str or callable, default=True
        Whether to fit the best candidate to all rows, and which metric decides, as in scikit-learn.
    cv : int, splitter or iterable, default=None
        Number of folds, or how to split the rows, as in scikit-learn. None means five folds.
    verbose : int, default=0
        Amount of output. Above 0, a line also says which work was shared.
    pre_dispatch : int or str, default='2*n_jobs'
        Number of jobs that are dispatched to the processes in advance.
    error_score : 'raise' or numeric, default=np.nan
        Score of a candidate whose `fit` raises an error. 'raise' raises this error.
    return_train_score : bool, default=False
        Whether to score the training rows, too.
    share : bool, default=True
        Whether to do common work only once. With False, every candidate is evaluated separately,
        as in scikit-learn.
    share_approximate : bool, default=False
        Whether to compute all sizes from one decomposition also if the solver is iterative or
        randomised. The scores then differ slightly from those of separate fits.
    memory_limit : int, default=None
        Memory in bytes, over all processes, for networks that are trained together. Their rows may
        need the same amount in addition. If all networks need more, they are trained in several
        groups, one after the other. None means 2 GiB for each process, or half of the free memory
        of a GPU.

    Attributes
    ----------
    cv_results_, best_estimator_, best_score_, best_params_, best_index_, scorer_, n_splits_, \
refit_time_, multimetric_, classes_, n_features_in_, feature_names_in_
        As in scikit-learn's GridSearchCV. The time of shared work is divided among the candidates
        that share it.
    shared_fits_ : list of dict
        The work that was shared, with these keys. `split` is the number of the fold, or None for
        all folds. `candidates` are the numbers of the candidates in `cv_results_`. `how` is "step"
        (a step was fitted once), "sizes" (all sizes are from one fit), "training" (networks were
        trained together) or None (each candidate was evaluated separately). `step` is the class of
        the estimator that was shared, and `why` is the reason if no work was shared.

    Notes
    -----
    Work is shared if the results are the same as without sharing. This holds for deterministic
    steps of scikit-learn and skae. It also holds for networks with an integer `random_state`, whose
    scores are equal up to rounding errors; these grow with the length of training. Pipelines with
    `memory` or `verbose`, and steps with callbacks or sample weights, are fitted without sharing.
    If a shared fit raises an error, each candidate is fitted separately. A warning of a shared fit
    is issued once. Candidates that share work are evaluated fold by fold. Estimators that draw from
    the global generator of NumPy therefore draw other numbers than in scikit-learn.

    The page "Choose the latent size" of the documentation says which scores can be used to compare
    latent sizes.

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
        **bases.GridSearchCV._parameter_constraints,
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
        error_score: float | Literal["raise"] = np.nan,
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


class RandomizedSearchCV(_SharingSearch, bases.RandomizedSearchCV):
    """RandomizedSearchCV of scikit-learn that does the common work of candidates only once.

    :class:`GridSearchCV` describes which work is shared.

    Parameters
    ----------
    estimator : estimator object
        Estimator to fit. It needs a method `score` if `scoring` is None.
    param_distributions : dict or list of dicts
        For each parameter, a distribution with a method `rvs` or a list of values.
    n_iter : int, default=10
        Number of candidates that are drawn.
    scoring, n_jobs, refit, cv, verbose, pre_dispatch, error_score, return_train_score, share, \
share_approximate, memory_limit
        As in :class:`GridSearchCV`.
    random_state : int, RandomState instance or None, default=None
        Seed with which the candidates are drawn.

    Attributes
    ----------
    cv_results_, best_estimator_, best_score_, best_params_, best_index_, scorer_, n_splits_, \
refit_time_, multimetric_, classes_, n_features_in_, feature_names_in_, shared_fits_
        As in :class:`GridSearchCV`.

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
        **bases.RandomizedSearchCV._parameter_constraints,
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
        random_state: RandomState = None,
        error_score: float | Literal["raise"] = np.nan,
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
    error_score: float | Literal["raise"] = np.nan,
    share: bool = True,
    memory_limit: int | None = None,
) -> dict[str, Any]:
    """`cross_validate` of scikit-learn that trains the networks of all folds together.

    Parameters
    ----------
    estimator : estimator object
        Estimator to fit. Networks with an integer `random_state` are trained together. All other
        estimators are fitted fold by fold.
    X : array-like of shape (n_samples, n_features)
        Rows.
    y : array-like of shape (n_samples,) or (n_samples, n_outputs), default=None
        Targets, if the estimator uses them.
    groups, scoring, cv, n_jobs, verbose, params, pre_dispatch, return_train_score, \
return_estimator, return_indices, error_score
        As in scikit-learn's `cross_validate`.
    share : bool, default=True
        Whether to train the networks of all folds together. With False, they are trained one after
        the other.
    memory_limit : int, default=None
        Memory in bytes, over all processes, for networks that are trained together. Their rows may
        need the same amount in addition. If all networks need more, they are trained in several
        groups, one after the other. None means 2 GiB for each process, or half of the free memory
        of a GPU.

    Returns
    -------
    scores : dict of str to array of shape (n_splits,)
        Scores as in scikit-learn's `cross_validate`: "test_score", "fit_time", "score_time" and
        further entries, depending on the parameters. The time of a shared training is divided among
        the folds.

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
