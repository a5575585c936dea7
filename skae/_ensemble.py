"""An ensemble of several fits of the same estimator, and averages over its members.

B. Lakshminarayanan, A. Pritzel and C. Blundell (2017). Simple and scalable predictive uncertainty
estimation using deep ensembles. NeurIPS. https://doi.org/10.48550/arXiv.1612.01474
"""

from __future__ import annotations

from collections.abc import Callable
from math import log
from numbers import Integral, Real
from typing import Any, ClassVar, Self

import numpy as np
from numpy.typing import ArrayLike, NDArray
from sklearn import config_context, get_config
from sklearn.base import clone
from sklearn.pipeline import Pipeline
from sklearn.utils import get_tags
from sklearn.utils.metadata_routing import (
    UNUSED,
    MetadataRouter,
    MethodMapping,
    process_routing,
)
from sklearn.utils.validation import check_is_fitted

from skae._dask.dispatch import of_blocks_everywhere
from skae._pipeline import sample_pipeline
from skae._search.same_work import trains_network
from skae._utils.availability import available_if
from skae._utils.bases import BaseEstimator, MetaEstimatorMixin
from skae._utils.fit_names import Part, numbered, part_of
from skae._utils.interrupts import inside_another_fit
from skae._utils.memory import advise_on_memory_everywhere
from skae._utils.score_kinds import kind_of_scores
from skae._utils.state import all_or_nothing, learned_names
from skae._utils.types import ArrayOrFrame, Container, Fittable, RandomState, ScoreKind
from skae._utils.validation import (
    HasMethods,
    Interval,
    average,
    check_argument,
    check_weight,
    get_namespace,
    log_sum_exp,
    meta_fit_context,
    private_generator,
    safe_set_output,
    to_frame,
)
from skae._utils.versions import check_state, with_versions, without_versions
from skae._utils.wrapping import model_of

# Kinds of scores, in order of decreasing strength of their meaning.
_KINDS = ("log_likelihood", "lower_bound", "reconstruction", "latent")
_COMPARABLE = _KINDS[:2]


# ------------------------------------------------------------------------ averages


def log_mean_exp(scores: list[Any]) -> Any:
    """The logarithm of the mean of exp(score) over models, for each row."""
    xp, _ = get_namespace(*scores)
    return log_sum_exp(xp.stack(scores), axis=0) - log(len(scores))


def mean_of(parts: list[Any]) -> Any:
    """The mean of arrays or data frames of equal shape, as an array."""
    xp, _ = get_namespace(*parts)
    return xp.mean(xp.stack(parts), axis=0)


def rows_of(parts: list[Any], index: NDArray[np.intp]) -> Any:
    """The rows `index` of the concatenated arrays or data frames, as an array."""
    xp, _ = get_namespace(*parts)
    return xp.take(xp.concat(parts), xp.asarray(index), axis=0)


def mean_of_tables(parts: list[Any], n_levels: tuple[int, ...]) -> Any:
    """The mean of rows of tables; for categories the most frequent level, or the first of these."""
    stacked = np.stack(parts)
    found = stacked.mean(axis=0)
    for j, n in enumerate(n_levels):
        if n:
            votes = stacked[:, :, j, None] == np.arange(n)
            found[:, j] = votes.sum(axis=0).argmax(axis=1)
    return found


# ------------------------------------------------------------------------- members


def _table_of(estimator: Any) -> Any:
    """The description of the columns of a model that was fitted to a table; otherwise None.

    It is also None if other steps of a Pipeline precede the model: they transform the table.
    """
    while isinstance(estimator, Pipeline) or hasattr(estimator, "best_estimator_"):
        if isinstance(estimator, Pipeline) and len(estimator.steps) > 1:
            return None
        steps = getattr(estimator, "steps", None)
        estimator = estimator.best_estimator_ if steps is None else steps[0][1]
    return vars(model_of(estimator)).get("_table")


def _seeded(estimator: Any, rng: np.random.RandomState) -> Any:
    """A clone with an integer seed for every `random_state`, also of nested estimators."""
    member = clone(estimator)
    names = [n for n in sorted(member.get_params()) if f"__{n}".endswith("__random_state")]
    if names:
        member.set_params(**{name: int(rng.randint(2**31 - 1)) for name in names})
    return member


def _call(estimator: Any, calls: list[Callable[[], Any]], memory_limit: float | None) -> list[Any]:
    """Results of the fits of the members, in order; networks are trained together."""
    if not any(map(trains_network, (estimator, *estimator.get_params().values()))):
        return [call() for call in calls]
    from skae._training.together import run_together  # networks have loaded torch already

    return run_together(calls, memory_limit=memory_limit)


def _fit_call(part: Part, member: Any, *args: Any, **params: Any) -> Callable[[], Any]:
    """A function that fits a member. It may be called in another thread."""
    config = get_config()

    def call() -> Any:
        # A new thread has the default configuration. Ctrl-C must not end the training of a single
        # member early.
        with config_context(**config), inside_another_fit(), part_of(part):
            return member.fit(*args, **params)

    return call


def _score_samples(member: Any, X: Any, params: dict[str, Any]) -> Any:
    """Score rows in nats; unlike the method of Pipeline, with parameters."""
    while isinstance(member, Pipeline):
        X = member[:-1].transform(X) if len(member) > 1 else X
        member = member[-1]
    return member.score_samples(X, **params)


def _reconstruct(member: Any, X: Any, params: dict[str, Any]) -> Any:
    """Reconstruct rows, in the space of the data."""
    if isinstance(member, Pipeline):
        before, last = member[:-1], member[-1]
        if not len(before):
            return _reconstruct(last, X, params)
        return before.inverse_transform(_reconstruct(last, before.transform(X), params))
    if hasattr(member, "reconstruct"):
        return member.reconstruct(X, **params)
    return member.inverse_transform(member.transform(X, **params))


# ------------------------------------------------- which methods an ensemble has


def _scores_data(ensemble: Ensemble) -> bool:
    kind = ensemble.score_kind
    if kind in _COMPARABLE:
        return True
    name = type(model_of(ensemble.estimator)).__name__
    raise AttributeError(
        f"The score_kind of {name} is {kind!r}. An ensemble can only average likelihoods of rows, "
        "that is, scores of the kinds 'log_likelihood' and 'lower_bound'. PPCA, LinearAE, "
        "CountMixtureAE, VAE, VQVAE and HelmholtzMachine have such scores. To compare "
        "reconstructions, use skae.metrics.reconstruction_error. The scores of the members are "
        "those of the estimators in estimators_."
    )


def _decodes(ensemble: Ensemble) -> bool:
    model = model_of(ensemble.estimator)
    if hasattr(model, "reconstruct") or hasattr(model, "inverse_transform"):
        return True
    raise AttributeError(
        f"{type(model).__name__} has neither a method reconstruct nor a method inverse_transform."
    )


def _samples(ensemble: Ensemble) -> bool:
    model = model_of(ensemble.estimator)
    if hasattr(model, "sample"):
        return True
    raise AttributeError(f"{type(model).__name__} has no method sample.")


class Ensemble(MetaEstimatorMixin, BaseEstimator):
    """Ensemble of several fits of the same estimator with different seeds.

    Networks that are trained from different initial weights, with the rows in a different order,
    are different models with different errors. The ensemble is the mixture of these models, the
    members, with equal weights. Its likelihood is the mean of the likelihoods of the members. Its
    score is therefore never below the mean of their scores.

    An ensemble has no `transform`, because the codes of different members have different meanings.
    It can be the last step of a Pipeline, and a search can set the parameters of the members, such
    as `estimator__n_components`.

    Parameters
    ----------
    estimator : estimator object
        Estimator of which the members are clones: an estimator of skae, another estimator with the
        required methods, or a Pipeline or a search that contains one. `fit` does not change it.
    n_members : int, default=5
        Number of members.
    random_state : int, RandomState instance or None, default=None
        Seed from which the seeds of the members are drawn. They replace the value of every
        parameter `random_state` of a member, including those of nested estimators. With None,
        every fit uses new random numbers. Members are equal if they have no such parameter, or if
        it does not change the fit, as with a closed-form solver.
    memory_limit : float, default=None
        Memory in bytes for members that are trained together. If all members need more, they are
        trained in several groups, one after the other. None means 2 GiB, or half of the free
        memory of a GPU. Only for estimators with a network.

    Attributes
    ----------
    score_kind : {"log_likelihood", "lower_bound", "reconstruction", "latent"}
        Kind of the scores of the members. If the scores of the members are lower bounds on their
        log-likelihoods, the score of the ensemble is a lower bound on its log-likelihood. This is
        also true for importance-weighted bounds, which are bounds in expectation.
    estimators_ : list of estimators
        The fitted members.
    n_features_in_ : int
        Number of features seen in `fit`. Only if the members have this attribute.
    feature_names_in_ : ndarray of shape (n_features_in_,)
        Names of the features, if all are strings. Only if the members have this attribute.

    See Also
    --------
    sklearn.ensemble.BaggingRegressor : Ensemble for regression, fitted to bootstrap samples.

    Notes
    -----
    If the members are Pipelines, the steps before the model must be the same in all members, as
    scalers are. The scores are densities of the output of these steps, and only densities of the
    same variables can be averaged.

    References
    ----------
    B. Lakshminarayanan, A. Pritzel and C. Blundell (2017). Simple and scalable predictive
    uncertainty estimation using deep ensembles. NeurIPS.
    :doi:`10.48550/arXiv.1612.01474`

    Examples
    --------
    >>> import numpy as np
    >>> from sklearn.datasets import load_digits
    >>> from skae import VAE, Ensemble
    >>> X, _ = load_digits(return_X_y=True)
    >>> vae = VAE(4, hidden_layer_sizes=32, max_iter=10)
    >>> ensemble = Ensemble(vae, n_members=3, random_state=0).fit(X[:1000])
    >>> of_members = [member.score(X[1000:]) for member in ensemble.estimators_]
    >>> bool(ensemble.score(X[1000:]) > np.mean(of_members))
    True
    >>> ensemble.sample(5, random_state=0).shape
    (5, 64)
    >>> ensemble.score_kind, hasattr(ensemble, "transform")
    ('lower_bound', False)
    """

    _parameter_constraints: ClassVar[dict[str, list[Any]]] = {
        "estimator": [HasMethods(["fit", "get_params"])],
        "n_members": [Interval(Integral, 1, None, closed="left")],
        "random_state": ["random_state"],
        "memory_limit": [Interval(Real, 0, None, closed="neither"), None],
    }

    # The weights in `fit` are passed to the members, whose metadata requests decide.
    __metadata_request__fit: ClassVar[dict[str, str]] = {"sample_weight": UNUSED}

    _state_shapes: ClassVar[dict[str, None]] = {"estimators_": None}

    estimators_: list[Any]
    n_features_in_: int
    feature_names_in_: NDArray[np.object_]

    def __init__(
        self,
        estimator: Fittable,
        n_members: int = 5,
        *,
        random_state: RandomState = None,
        memory_limit: float | None = None,
    ) -> None:
        self.estimator = estimator
        self.n_members = n_members
        self.random_state = random_state
        self.memory_limit = memory_limit

    # -------------------------------------------------------------------- learning

    @meta_fit_context
    def fit(
        self,
        X: ArrayLike,
        y: Any = None,
        sample_weight: ArrayLike | None = None,
        **fit_params: Any,
    ) -> Self:
        """Fit every member to the same rows.

        If the fit of a member raises an error or is interrupted, the ensemble stays as it was
        before.

        Parameters
        ----------
        X : array-like of shape (n_samples, n_features)
            Training rows, of the types that the estimator accepts.
        y : array-like of shape (n_samples,) or (n_samples, n_targets), default=None
            Targets, passed to the `fit` of the members.
        sample_weight : array-like of shape (n_samples,), default=None
            Weights of the rows, passed to the `fit` of the members if they are given.
        **fit_params : dict
            Parameters for the `fit` of the members, such as `vae__sample_weight` for a Pipeline.
            With scikit-learn's metadata routing, the members get the metadata that they request.

        Returns
        -------
        self : object
            The fitted ensemble.

        Raises
        ------
        ValueError
            If a parameter is not allowed, or if a member raises it for its parameters or the rows.
        TypeError
            If the members do not accept `sample_weight`, or if `estimator` is a class.
        """
        if sample_weight is not None:
            fit_params["sample_weight"] = sample_weight
        if get_config()["enable_metadata_routing"]:
            fit_params = process_routing(self, "fit", **fit_params).estimator.fit
        with all_or_nothing(self):
            for name in learned_names(self):
                delattr(self, name)
            rng = private_generator(self.random_state)
            members = [_seeded(self.estimator, rng) for _ in range(self.n_members)]
            calls = [
                _fit_call(numbered("member", i, len(members)), member, X, y, **fit_params)
                for i, member in enumerate(members)
            ]
            self.estimators_ = _call(self.estimator, calls, self.memory_limit)
            for name in ("n_features_in_", "feature_names_in_", "_column_names"):
                if hasattr(self.estimators_[0], name):
                    setattr(self, name, getattr(self.estimators_[0], name))
        return self

    # ------------------------------------------------------------------ generation

    @available_if(_decodes)
    def reconstruct(self, X: ArrayLike, y: Any = None) -> ArrayOrFrame:
        """Reconstruct rows by the mean of the reconstructions of the members.

        For a categorical column, the result is the level that most members reconstruct. If several
        levels are equally frequent, it is the first of these.

        Parameters
        ----------
        X : array-like of shape (n_samples, n_features)
            Rows to reconstruct.
        y : scalar or array-like of shape (n_samples,) or (n_samples, n_targets), default=None
            Targets of conditional models, as in their `reconstruct`.

        Returns
        -------
        X_reconstructed : ndarray of shape (n_samples, n_features)
            The reconstructed rows. They are a data frame if `set_output` says so or if the
            members return data frames.

        Raises
        ------
        AttributeError
            If the members have neither `reconstruct` nor `inverse_transform`.
        TypeError
            If `y` is given and the members do not accept it.
        """
        check_is_fitted(self)
        params = {} if y is None else {"y": y}
        table = _table_of(self.estimators_[0])
        if table is not None:
            read = [model_of(m)._reconstructed(X, **params) for m in self.estimators_]
            return self._write(table, mean_of_tables(read, table.n_levels), like=X)
        parts = [_reconstruct(member, X, params) for member in self.estimators_]
        return self._to_frame(mean_of(parts), X)

    @available_if(_samples)
    def sample(
        self,
        n_samples: int = 1,
        *,
        y: Any = None,
        noise: bool = True,
        random_state: RandomState = None,
    ) -> ArrayOrFrame:
        """Draw new rows. Each row is drawn from a member that is chosen at random.

        Parameters
        ----------
        n_samples : int, default=1
            Number of rows to draw.
        y : scalar or array-like of shape (n_samples,) or (n_samples, n_targets), default=None
            Targets of conditional models, as in their `sample`.
        noise : bool, default=True
            Whether to draw from p(x|z). With False, the rows are the means of p(x|z).
        random_state : int, RandomState instance or None, default=None
            Seed of the draw. With None, every call draws other rows.

        Returns
        -------
        X_new : ndarray of shape (n_samples, n_features)
            The drawn rows. They are a data frame if `set_output` says so or if the members return
            data frames.

        Raises
        ------
        AttributeError
            If the members have no method `sample`.
        TypeError
            If `y` is given or `noise` is False, and the members do not accept this argument.
        ValueError
            If `n_samples` is not a positive integer.
        """
        check_is_fitted(self)
        name = type(self).__name__
        at_least_one = Interval(Integral, 1, None, closed="left")
        check_argument("n_samples", n_samples, [at_least_one], name)
        check_argument("noise", noise, ["boolean"], name)
        rng = private_generator(random_state)
        which = rng.randint(len(self.estimators_), size=n_samples)
        params = {} if noise else {"noise": False}
        if y is None:
            counts = np.bincount(which, minlength=len(self.estimators_))
            index = np.argsort(np.argsort(which, kind="stable"))
        else:  # row i is drawn given row i of y, so that each member draws all rows
            params["y"] = y
            counts = np.full(len(self.estimators_), n_samples)
            index = which * n_samples + np.arange(n_samples)
        parts = [
            sample_pipeline(Pipeline([("member", member)]), int(n), random_state=rng, **params)
            for member, n in zip(self.estimators_, counts, strict=True)
            if n
        ]
        table = _table_of(self.estimators_[0])
        if table is not None:
            return self._write(table, np.concatenate([table.encode(part) for part in parts])[index])
        return self._to_frame(rows_of(parts, index))

    # --------------------------------------------------------------------- density

    @property
    def score_kind(self) -> ScoreKind:
        """Kind of `score_samples`; if the members differ, the weakest of their kinds."""
        kinds = []
        for member in vars(self).get("estimators_", [self.estimator]):
            model = model_of(member)
            kind = kind_of_scores(model) if hasattr(model, "score_samples") else None
            if kind not in _KINDS:
                raise AttributeError(
                    f"{type(model).__name__} has no score_kind, which says whether scores are "
                    "log-likelihoods. Allowed are estimators of skae and density estimators of "
                    "scikit-learn."
                )
            kinds.append(kind)
        return max(kinds, key=_KINDS.index)

    @available_if(_scores_data)
    def score_samples(self, X: ArrayLike, y: Any = None, **score_params: Any) -> NDArray[Any]:
        """Score rows by the logarithm of the mean likelihood of the members.

        The score is log 1/M sum_m exp(s_m), where s_m is the score of member m. This is the
        log-likelihood of the mixture of all members, or a lower bound on it if the scores of the
        members are lower bounds.

        Parameters
        ----------
        X : array-like of shape (n_samples, n_features)
            Rows to score.
        y : array-like of shape (n_samples,) or (n_samples, n_targets), default=None
            Targets of conditional models, as in their `score_samples`.
        **score_params : dict
            Parameters for the `score_samples` of the members, such as `n_importance` of a VAE.

        Returns
        -------
        scores : ndarray of shape (n_samples,)
            Score of each row in nats.

        Raises
        ------
        AttributeError
            If `score_kind` is neither "log_likelihood" nor "lower_bound". The scores of the
            members are then not likelihoods of rows.
        TypeError
            If the members do not accept the arguments.
        """
        check_is_fitted(self)
        if y is not None:
            score_params["y"] = y
        return log_mean_exp([_score_samples(m, X, score_params) for m in self.estimators_])

    @available_if(_scores_data)
    def score(self, X: ArrayLike, y: Any = None, sample_weight: ArrayLike | None = None) -> float:
        """Mean score of the rows. Searches over parameters maximise it.

        Parameters
        ----------
        X : array-like of shape (n_samples, n_features)
            Rows to score.
        y : array-like of shape (n_samples,) or (n_samples, n_targets), default=None
            Targets of conditional models, as in `score_samples`; ignored for all others.
        sample_weight : array-like of shape (n_samples,), default=None
            Weights of the rows in the mean.

        Returns
        -------
        score : float
            Mean of `score_samples`, in nats per row.

        Raises
        ------
        AttributeError
            If `score_kind` is neither "log_likelihood" nor "lower_bound".
        """
        check_is_fitted(self)
        conditional = getattr(model_of(self.estimators_[0]), "conditional", False)
        scores = self.score_samples(X, y if conditional else None)
        return float(average(scores, weights=check_weight(sample_weight, scores)))

    # ----------------------------------------------------- names, routing and files

    def set_output(self, *, transform: Container | None = None) -> Self:
        """Set the type of container that `reconstruct` and `sample` return.

        Parameters
        ----------
        transform : {"default", "pandas", "polars"} or None, default=None
            Type of the container. None does not change it.

        Returns
        -------
        self : object
            The ensemble. The setting also applies to `estimator` and to the members.
        """
        if isinstance(self.estimator, type):
            raise TypeError(f"estimator={self.estimator!r} is a class; give an instance of it.")
        for member in [self.estimator, *vars(self).get("estimators_", [])]:
            safe_set_output(member, transform=transform)
        if transform is not None:  # for members without such a setting
            self._sklearn_output_config = {"transform": transform}
        return self

    def _to_frame(self, rows: Any, original: Any = None) -> Any:
        """Rows in the container that `set_output` of the model asks for."""
        names = getattr(self, "feature_names_in_", getattr(self, "_column_names", None))
        if names is None:
            names = [f"x{i}" for i in range(rows.shape[1])]
        asked = self if hasattr(self, "_sklearn_output_config") else model_of(self.estimators_[0])
        return to_frame(asked, rows, original, names)

    def _write(self, table: Any, rows: Any, like: Any = None) -> Any:
        """Rows of a table in the container of `set_output`, or otherwise in that of the input."""
        from skae._mixed_rows import write_rows  # models of tables have loaded torch already

        return write_rows(model_of(self.estimators_[0]), table, rows, like=like)

    def get_metadata_routing(self) -> MetadataRouter:
        """Return the metadata routing: `fit` passes on the metadata that the estimator requests.

        Returns
        -------
        routing : MetadataRouter
            The requests of the `fit` of the estimator, and of `score`, which uses the weights for
            the mean over rows.
        """
        return (
            MetadataRouter(owner=self)
            .add_self_request(self)
            .add(
                estimator=self.estimator,
                method_mapping=MethodMapping().add(caller="fit", callee="fit"),
            )
        )

    def __sklearn_tags__(self) -> Any:
        tags = super().__sklearn_tags__()
        if not isinstance(self.estimator, type) and hasattr(self.estimator, "__sklearn_tags__"):
            wrapped = get_tags(self.estimator)
            tags.input_tags, tags.target_tags = wrapped.input_tags, wrapped.target_tags
            tags.array_api_support = wrapped.array_api_support
        return tags

    def __getstate__(self) -> dict[str, Any]:
        return with_versions(super().__getstate__())

    def __setstate__(self, state: dict[str, Any]) -> None:
        check_state(self, state)
        super().__setstate__(without_versions(state, type(self).__name__))


advise_on_memory_everywhere(Ensemble)
of_blocks_everywhere(Ensemble)
