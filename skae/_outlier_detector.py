"""An outlier detector around a model: rows with low scores are outliers.

P. J. Rousseeuw and K. Van Driessen (1999). A fast algorithm for the minimum covariance determinant
estimator. Technometrics 41(3), 212-223. https://doi.org/10.1080/00401706.1999.10485670
"""

from __future__ import annotations

from collections.abc import Iterable
from contextlib import AbstractContextManager, nullcontext
from numbers import Integral, Real
from typing import Any, ClassVar, Literal, Self, cast

import numpy as np
from numpy.typing import ArrayLike, NDArray
from sklearn import get_config
from sklearn.base import clone
from sklearn.frozen import FrozenEstimator
from sklearn.model_selection import KFold, check_cv
from sklearn.pipeline import Pipeline, make_pipeline
from sklearn.preprocessing import StandardScaler
from sklearn.utils import _safe_indexing, get_tags, indexable
from sklearn.utils.metadata_routing import MetadataRouter, MethodMapping, process_routing
from sklearn.utils.validation import check_is_fitted

from skae._dask.dispatch import of_blocks_everywhere
from skae._ppca import PPCA
from skae._utils.bases import BaseEstimator, MetaEstimatorMixin, OutlierMixin
from skae._utils.dask_inputs import in_memory
from skae._utils.fit_names import numbered, part_of
from skae._utils.inputs import as_numbers, is_sparse_frame, naming, of_tensor
from skae._utils.interrupts import inside_another_fit
from skae._utils.memory import advise_on_memory_everywhere
from skae._utils.pipeline_steps import taken_steps
from skae._utils.readers import stored_rows
from skae._utils.reconstructions import at_own_totals, row_errors
from skae._utils.state import all_or_nothing, learned_names
from skae._utils.types import Fittable, RandomState, Splittable
from skae._utils.validation import (
    HasMethods,
    Interval,
    StrOptions,
    check_weight,
    meta_fit_context,
    num_samples,
    private_generator,
    to_plain,
)
from skae._utils.versions import check_state, with_versions, without_versions
from skae._utils.warning import ignoring
from skae._utils.wrapping import model_of, rows_for_model, seeded, takes_weights

Array = NDArray[Any]
ScoreMethod = Literal["score_samples", "data_score_samples", "reconstruction_error"]

_SCORE_METHODS: tuple[ScoreMethod, ...] = (
    "score_samples",
    "data_score_samples",
    "reconstruction_error",
)
# Order in which "auto" looks for a method, for models whose scores are densities of rows (or who do
# not say what their scores are), and for those with scores of kind "reconstruction" or "latent".
_ORDER: tuple[ScoreMethod, ...] = ("score_samples", "reconstruction_error")
_ORDER_OF_OTHER_KINDS: tuple[ScoreMethod, ...] = ("data_score_samples", *_ORDER)

# Share of the variance that the codes of the default model explain. With all codes but one, a
# column without variance, or one that others determine, would get nearly all of the score.
_VARIANCE = 0.99
# With contamination="auto": share of rows like the training rows that are flagged.
_FALSE_ALARMS = 0.05
# With cv="auto": number of folds, and the smallest number of rows for which there are folds.
_N_FOLDS, _FEWEST_ROWS = 5, 10
# Number of fits to the rows with the highest scores.
_N_REFITS = 3
# Relative accuracy of sums of weights.
_ROUNDING = 1e-9


# -------------------------------------------------------------------------- formulas


def lower_quantile(scores: Array, weight: Array | None, share: float) -> float:
    """The score below which a share of the rows lies.

    It is the second definition of R. J. Hyndman and Y. Fan (1996), with weights: the score at which
    the sum of the weights reaches the share, or the middle between this score and the next one if
    the sum is equal to the share. If all scores differ and `share` times the number of rows is an
    integer, exactly so many rows have lower scores.
    """
    order = np.argsort(scores, kind="stable")
    weights = np.ones(len(scores)) if weight is None else weight[order]
    values, weights = scores[order][weights > 0], weights[weights > 0]
    reached = np.cumsum(weights)
    wanted, accuracy = share * reached[-1], _ROUNDING * reached[-1]
    place = int(np.searchsorted(reached, wanted - accuracy))
    following = place + 1 if reached[place] <= wanted + accuracy else place
    pair = values[[place, min(following, len(values) - 1)]]
    return float(pair[0] if pair[0] == pair[1] else pair.mean())


def mean_squared_errors(X: Array, X_reconstructed: Array) -> Array:
    """Squared error of each row, averaged over the values that are not missing."""
    n_seen = (~(np.isnan(X) | np.isnan(X_reconstructed))).sum(axis=1)
    return cast(Array, row_errors(X, X_reconstructed) / np.maximum(n_seen, 1))


# ------------------------------------------------------------------------ the model


def default_estimator() -> Pipeline:
    """PPCA of standardised rows. With metadata routing, both steps request weights."""
    scaler, ppca = StandardScaler(), PPCA(_VARIANCE)
    if get_config()["enable_metadata_routing"]:
        scaler.set_fit_request(sample_weight=True)
        ppca.set_fit_request(sample_weight=True)
    return make_pipeline(scaler, ppca)


def weights_for(estimator: Any, weight: Any, prefix: str = "") -> dict[str, Any]:
    """Arguments of `fit` that give weights to an estimator, or to all steps that accept them."""
    if isinstance(estimator, FrozenEstimator):
        return {}
    if isinstance(estimator, Pipeline):
        found: dict[str, Any] = {}
        for i, (name, step) in enumerate(estimator.steps):
            if i == len(estimator.steps) - 1 or _takes_weights(step):
                found |= weights_for(step, weight, f"{prefix}{name}__")
        return found
    if not _takes_weights(estimator):
        raise TypeError(
            f"sample_weight was given, but the fit of {type(estimator).__name__} does not accept "
            "it. Leave sample_weight out, or use an estimator that supports weights, such as PPCA, "
            "LinearAE and the networks of skae."
        )
    return {f"{prefix}sample_weight": weight}


def _takes_weights(estimator: Any) -> bool:
    if isinstance(estimator, Pipeline):
        return _takes_weights(estimator.steps[-1][1])
    return hasattr(estimator, "fit") and takes_weights(estimator.fit)


def check_enough_rows(X: Any) -> None:
    """Raise if there is only one row. What else is wrong with rows is left to the estimator."""
    with naming("X"):
        n_rows = num_samples(X)
    if n_rows == 1:
        raise ValueError("X has one row (n_samples=1); OutlierDetector needs at least 2 rows.")


def accepts_nan(estimator: Any) -> bool:
    """Whether an estimator accepts NaN; a Pipeline does if all of its steps do."""
    if isinstance(estimator, Pipeline):
        return all(accepts_nan(step) for _, step in taken_steps(estimator))
    return bool(get_tags(estimator).input_tags.allow_nan)


def _can(model: Any, method: ScoreMethod) -> bool:
    if method == "reconstruction_error":
        return hasattr(model, "reconstruct") or (
            hasattr(model, "transform") and hasattr(model, "inverse_transform")
        )
    return hasattr(model, method)


def _reconstruction_scores(model: Any, rows: Any) -> Array:
    """Minus the mean squared error of the reconstruction, in the space of the model."""
    if hasattr(model, "reconstruct"):
        reconstructed = model.reconstruct(rows, **at_own_totals(model))
    else:
        reconstructed = model.inverse_transform(model.transform(rows))
    given, mean = (_numbers(part) for part in (rows, reconstructed))
    return -mean_squared_errors(given, mean)


def _numbers(rows: Any) -> Array:
    rows = rows.toarray() if hasattr(rows, "toarray") else to_plain(rows)
    try:
        return np.asarray(rows, dtype=np.float64)
    except (TypeError, ValueError) as error:
        raise ValueError(
            "score_method='reconstruction_error' needs rows of numbers, because categories have no "
            "squared error. Use score_method='score_samples'."
        ) from error


class OutlierDetector(OutlierMixin, MetaEstimatorMixin, BaseEstimator):
    """Outlier detector that flags rows to which a model gives a low score.

    The model is an estimator of skae, PCA, a density estimator such as GaussianMixture, or a
    Pipeline that ends in one of them. By default it is :class:`PPCA` of standardised rows. A row is
    an outlier if its score is below the threshold `offset_`. `contamination` and `cv` determine
    the threshold, which `fit` computes.

    There are two tasks. If all training rows are normal and new rows are to be judged, keep
    `contamination="auto"`, or set it to the rate of false alarms and set `cv=5`. If there are
    outliers among the training rows, set `contamination` to their share: the model is then fitted
    to the rows with the highest scores.

    Parameters
    ----------
    estimator : estimator object, default=None
        Model of normal rows, which is cloned. It has `score_samples`, or it reconstructs rows by
        `reconstruct` or by `transform` and `inverse_transform`. It may be the last step of a
        Pipeline, which should begin with a scaler if the columns have different units. Wrapped in
        :class:`~sklearn.frozen.FrozenEstimator`, a fitted estimator is not fitted again, and `fit`
        only computes the threshold. None means
        `make_pipeline(StandardScaler(), PPCA(0.99))`, which accepts missing values.
    contamination : "auto" or float, default="auto"
        Share of outliers among the training rows, in (0, 0.5]. The threshold is the quantile of
        scores at this share. "auto" means that the training rows contain no outliers; the
        threshold is then the quantile at 0.05.
    score_method : {"auto", "score_samples", "data_score_samples", "reconstruction_error"}, \
            default="auto"
        How rows are scored. The first two are methods of the model. "reconstruction_error" is minus
        the squared error of the reconstruction, averaged over the observed values of a row, in the
        units of the model: in a Pipeline these are the units after the steps before the model.
        "auto" means `score_samples`, or "reconstruction_error" for models without this method. For
        models with scores of kind "reconstruction" or "latent", it means `data_score_samples`
        where it is available, because these kinds give high scores to some outliers.
    support_fraction : float, default=None
        Share of the training rows, those with the highest scores, to which the model is fitted in
        the end. If it is less than 1, the model is fitted to all rows, and then three times to the
        rows with the highest scores under the model before. None means 1 with
        `contamination="auto"`, and otherwise 1 - 2 contamination, but at least 0.5.
    cv : "auto", int, cross-validation generator, iterable or None, default="auto"
        Which scores determine the threshold. None means the scores of the training rows: the share
        of flagged training rows is then equal to `contamination`, as for the detectors of
        scikit-learn. Otherwise, the threshold is computed from the scores of the rows of each test
        fold, under a clone that was fitted to the other rows. The share of flagged new rows is then
        about the intended one also for models that fit the training rows closely. An integer is a
        number of folds with rows in random order. The model itself is always fitted to all rows,
        and a frozen one needs no folds. "auto" means 5 folds with `contamination="auto"`, and None
        if `contamination` is a number or if there are fewer than 10 rows.
    random_state : int, RandomState instance or None, default=None
        Seed of the order of rows in the folds, and of every `random_state` of the estimator that is
        None. With None, every fit uses new random numbers.

    Attributes
    ----------
    estimator_ : estimator
        The fitted model.
    offset_ : float
        Threshold: a row is an outlier if its score is lower.
    score_method_ : {"score_samples", "data_score_samples", "reconstruction_error"}
        How rows are scored.
    n_features_in_ : int
        Number of features seen in `fit`. Only if the estimator has this attribute.
    feature_names_in_ : ndarray of shape (n_features_in_,)
        Names of the features, if all are strings. Only if the estimator has this attribute.

    See Also
    --------
    sklearn.covariance.EllipticEnvelope : Detector by a robust covariance of all features.
    sklearn.ensemble.IsolationForest : Detector by the depth of random trees.

    Notes
    -----
    The scores of training rows are higher than those of new rows, in particular for networks. A
    threshold from training rows therefore flags more new rows than intended. See the page "Find
    outliers" of the documentation, section "The threshold".

    An error of the reconstruction, and a score of kind "reconstruction", need a model with few
    codes. With nearly as many codes as features, outliers are reconstructed as well as other rows.

    With `sample_weight`, a row of weight 2 counts as two rows in the fit and for the threshold. In
    a Pipeline, all steps that accept weights get them. With scikit-learn's metadata routing, the
    requests of the estimator decide.

    References
    ----------
    P. J. Rousseeuw and K. Van Driessen (1999). A fast algorithm for the minimum covariance
    determinant estimator. Technometrics 41(3), 212-223.
    :doi:`10.1080/00401706.1999.10485670`

    Examples
    --------
    >>> from sklearn.datasets import load_breast_cancer
    >>> from skae import OutlierDetector
    >>> X, y = load_breast_cancer(return_X_y=True)
    >>> benign, malignant = X[y == 1], X[y == 0]
    >>> detector = OutlierDetector(random_state=0).fit(benign[:250])
    >>> print(f"{(detector.predict(benign[250:]) == -1).mean():.0%} of new benign rows")
    2% of new benign rows
    >>> print(f"{(detector.predict(malignant) == -1).mean():.0%} of malignant rows")
    75% of malignant rows
    """

    _state_shapes: ClassVar[dict[str, None]] = dict.fromkeys(
        ["estimator_", "offset_", "score_method_"]
    )

    _parameter_constraints: ClassVar[dict[str, list[Any]]] = {
        "estimator": [HasMethods(["fit", "get_params"]), None],
        "contamination": [StrOptions({"auto"}), Interval(Real, 0, 0.5, closed="right")],
        "score_method": [StrOptions({"auto", *_SCORE_METHODS})],
        "support_fraction": [Interval(Real, 0, 1, closed="right"), None],
        "cv": ["cv_object", StrOptions({"auto"}), None],
        "random_state": ["random_state"],
    }

    estimator_: Any
    offset_: float
    score_method_: ScoreMethod
    n_features_in_: int
    feature_names_in_: NDArray[np.object_]

    def __init__(
        self,
        estimator: Fittable | None = None,
        *,
        contamination: float | Literal["auto"] = "auto",
        score_method: ScoreMethod | Literal["auto"] = "auto",
        support_fraction: float | None = None,
        cv: int | Splittable | Iterable[Any] | Literal["auto"] | None = "auto",
        random_state: RandomState = None,
    ) -> None:
        self.estimator = estimator
        self.contamination = contamination
        self.score_method = score_method
        self.support_fraction = support_fraction
        self.cv = cv
        self.random_state = random_state

    # -------------------------------------------------------------------- learning

    @meta_fit_context
    def fit(
        self,
        X: ArrayLike,
        y: object = None,
        sample_weight: ArrayLike | None = None,
        **fit_params: Any,
    ) -> Self:
        """Fit the model, and compute the threshold.

        If `fit` raises an error or is interrupted, the detector stays as it was before.

        Parameters
        ----------
        X : array-like of shape (n_samples, n_features)
            Training rows, of the types that the estimator accepts.
        y : Ignored
            Present for API consistency.
        sample_weight : array-like of shape (n_samples,), default=None
            Weights of the rows, for the fit and for the threshold. None weights all rows equally.
        **fit_params : dict
            Parameters for the `fit` of the estimator, with one value for all rows. With
            scikit-learn's metadata routing, the estimator gets the metadata that it requests.

        Returns
        -------
        self : object
            The fitted detector.

        Raises
        ------
        ValueError
            If a parameter is not allowed, if the model is conditional, if scores are NaN, or if
            the estimator raises it for its parameters or the rows.
        TypeError
            If `sample_weight` is given and the estimator does not accept it, or if `estimator` is a
            class.
        """
        with all_or_nothing(self):
            for name in learned_names(self):
                delattr(self, name)
            rng = private_generator(self.random_state)
            prototype = seeded(clone(self._unfitted()), rng)
            if getattr(model_of(prototype), "conditional", False):
                raise ValueError(
                    f"estimator={self.estimator!r} has conditional=True. OutlierDetector scores "
                    "rows without targets; set conditional=False."
                )
            unfrozen = getattr(prototype, "estimator", prototype)
            reads_parts = getattr(unfrozen, "_reads_stored_rows", False)
            rows = (stored_rows(X) if reads_parts else None) or in_memory(X)
            (X,) = indexable(of_tensor(rows, "X"))
            check_enough_rows(X)
            if is_sparse_frame(X):  # the error of scikit-learn for fill values has no remedy
                as_numbers(X, "X")
            weight = check_weight(in_memory(sample_weight), X)
            weight = None if weight is None else np.asarray(to_plain(weight), dtype=np.float64)
            self.estimator_, scores = self._fitted(prototype, X, weight, fit_params)
            folds = self._folds(X, len(scores), weight, rng)
            if folds is not None:
                scores, weight = self._scores_of_folds(prototype, X, weight, fit_params, folds)
            share = _FALSE_ALARMS if self.contamination == "auto" else float(self.contamination)
            self.offset_ = lower_quantile(scores, weight, share)
            if not np.isfinite(self.offset_):
                raise ValueError(
                    f"The threshold is {self.offset_}: more rows than the share {share:g} have "
                    "this score. Use a model whose likelihood allows the values of all rows."
                )
            for name in ("n_features_in_", "feature_names_in_"):
                if hasattr(self.estimator_, name):
                    setattr(self, name, getattr(self.estimator_, name))
        return self

    def _unfitted(self) -> Any:
        return default_estimator() if self.estimator is None else self.estimator

    def _fitted(
        self, prototype: Any, X: Any, weight: Array | None, params: dict[str, Any]
    ) -> tuple[Any, Array]:
        """A clone fitted to the rows with the highest scores, and its scores of all rows."""
        fitted = self._fit_clone(prototype, X, weight, params)
        self.score_method_ = self._choose_score_method(fitted)
        scores = self._scores(fitted, X)
        share = self._support_fraction()
        kept = None
        for i in range(0 if share == 1 or isinstance(prototype, FrozenEstimator) else _N_REFITS):
            before, kept = kept, np.flatnonzero(scores >= lower_quantile(scores, weight, 1 - share))
            if before is not None and np.array_equal(kept, before):
                break
            part = None if weight is None else weight[kept]
            with part_of(numbered("refit", i, _N_REFITS)):
                fitted = self._fit_clone(prototype, _safe_indexing(X, kept), part, params)
            scores = self._scores(fitted, X)
        return fitted, scores

    def _support_fraction(self) -> float:
        if self.support_fraction is not None:
            return float(self.support_fraction)
        return 1.0 if self.contamination == "auto" else max(0.5, 1 - 2 * float(self.contamination))

    def _fit_clone(
        self, prototype: Any, X: Any, weight: Array | None, params: dict[str, Any]
    ) -> Any:
        weights = {} if weight is None else {"sample_weight": weight}
        if get_config()["enable_metadata_routing"]:
            params = process_routing(self, "fit", **weights, **params).estimator.fit
        elif weight is not None:
            params = params | weights_for(prototype, weight)
        quiet: AbstractContextManager[None] = nullcontext()
        if self.estimator is None:
            # Few features need as many codes. This is the density of the full covariance, and no
            # reason for the warning of PPCA.
            n_features = (*np.shape(X), 0)[1]
            quiet = ignoring(f"The noise variance .*: {n_features} components")
        with inside_another_fit(), quiet:
            return clone(prototype).fit(X, None, **params)

    def _folds(
        self, X: Any, n_rows: int, weight: Array | None, rng: np.random.RandomState
    ) -> list[tuple[Array, Array]] | None:
        """Indices of training and test rows; None if the training rows determine the threshold."""
        cv = self.cv
        if isinstance(cv, str):  # "auto"
            cv = _N_FOLDS if self.contamination == "auto" else None
            counted = n_rows if weight is None else int((weight > 0).sum())
            cv = None if counted < _FEWEST_ROWS else cv
        if cv is None or isinstance(self.estimator, FrozenEstimator):
            return None
        if not isinstance(cv, Integral):
            folds = list(check_cv(cv).split(X))
            if not folds:
                raise ValueError(f"cv={cv!r} has no folds. An iterator can be used only once.")
            return folds
        rows = np.arange(n_rows) if weight is None else np.flatnonzero(weight > 0)
        kfold = KFold(int(cv), shuffle=True, random_state=rng.randint(2**31 - 1))
        return [(rows[train], rows[test]) for train, test in kfold.split(rows)]

    def _scores_of_folds(
        self,
        prototype: Any,
        X: Any,
        weight: Array | None,
        params: dict[str, Any],
        folds: list[tuple[Array, Array]],
    ) -> tuple[Array, Array | None]:
        """Scores of the rows of all test folds, under models of the other rows; their weights."""
        scores = []
        for i, (train, test) in enumerate(folds):
            part = None if weight is None else weight[train]
            with part_of(numbered("fold", i, len(folds))):
                fitted, _ = self._fitted(prototype, _safe_indexing(X, train), part, params)
            scores.append(self._scores(fitted, _safe_indexing(X, test)))
        tested = np.concatenate([test for _, test in folds])
        return np.concatenate(scores), None if weight is None else weight[tested]

    # --------------------------------------------------------------------- scoring

    def _choose_score_method(self, fitted: Any) -> ScoreMethod:
        model = model_of(fitted)
        if self.score_method == "auto":
            kind = getattr(model, "score_kind", None)
            other = kind in ("reconstruction", "latent")
            order = _ORDER_OF_OTHER_KINDS if other else _ORDER
        else:
            order = (self.score_method,)
        for method in order:
            if _can(model, method):
                return method
        raise ValueError(
            f"score_method={self.score_method!r} is not available for {type(model).__name__}. "
            f"Available: {[method for method in _SCORE_METHODS if _can(model, method)]}. A model "
            "needs score_samples, or transform and inverse_transform."
        )

    def _scores(self, fitted: Any, X: Any) -> Array:
        model, rows = model_of(fitted), rows_for_model(fitted, X)
        if self.score_method_ == "reconstruction_error":
            scores = _reconstruction_scores(model, rows)
        else:
            scores = np.asarray(to_plain(getattr(model, self.score_method_)(rows)), np.float64)
        if np.isnan(scores).any():
            raise ValueError(
                f"{int(np.isnan(scores).sum())} of {len(scores)} scores of {type(model).__name__} "
                f"by {self.score_method_} are NaN, so that the rows cannot be compared."
            )
        return scores

    def score_samples(self, X: ArrayLike) -> Array:
        """Score rows. Low scores are those of outliers.

        Parameters
        ----------
        X : array-like of shape (n_samples, n_features)
            Rows to score, of the same types as in `fit`.

        Returns
        -------
        scores : ndarray of shape (n_samples,)
            Score of each row: in nats, or minus a squared error with
            `score_method_="reconstruction_error"`.
        """
        check_is_fitted(self)
        return self._scores(self.estimator_, of_tensor(X, "X"))

    def decision_function(self, X: ArrayLike) -> Array:
        """Compute how far the scores of rows are above the threshold.

        Parameters
        ----------
        X : array-like of shape (n_samples, n_features)
            Rows to score, of the same types as in `fit`.

        Returns
        -------
        decision : ndarray of shape (n_samples,)
            `score_samples(X) - offset_`, which is negative for outliers.
        """
        return self.score_samples(X) - self.offset_

    def predict(self, X: ArrayLike) -> NDArray[np.int64]:
        """Say which rows are outliers.

        Parameters
        ----------
        X : array-like of shape (n_samples, n_features)
            Rows to judge, of the same types as in `fit`.

        Returns
        -------
        labels : ndarray of shape (n_samples,)
            -1 for outliers, 1 for all other rows.
        """
        return np.where(self.decision_function(X) < 0, -1, 1).astype(np.int64)

    # ----------------------------------------------------------- routing and files

    def get_metadata_routing(self) -> MetadataRouter:
        """Return the metadata routing: `fit` passes on the metadata that the estimator requests.

        Returns
        -------
        routing : MetadataRouter
            The requests of the `fit` of the estimator, and that of the detector, which uses the
            weights for the threshold.
        """
        return (
            MetadataRouter(owner=self)
            .add_self_request(self)
            .add(
                estimator=self._unfitted(),
                method_mapping=MethodMapping().add(caller="fit", callee="fit"),
            )
        )

    def __sklearn_tags__(self) -> Any:
        tags = super().__sklearn_tags__()
        estimator = self._unfitted()
        if not isinstance(estimator, type) and hasattr(estimator, "__sklearn_tags__"):
            tags.input_tags = get_tags(estimator).input_tags
            tags.input_tags.allow_nan = accepts_nan(estimator)
            # PCA of scikit-learn, for example, is fitted to sparse rows, but does not score them.
            tags.input_tags.sparse &= hasattr(model_of(estimator), "score_kind")
        return tags

    def __getstate__(self) -> dict[str, Any]:
        return with_versions(super().__getstate__())

    def __setstate__(self, state: dict[str, Any]) -> None:
        check_state(self, state)
        super().__setstate__(without_versions(state, type(self).__name__))


advise_on_memory_everywhere(OutlierDetector)
of_blocks_everywhere(OutlierDetector)
