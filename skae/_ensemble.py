"""Several members of one estimator, averaged.

B. Lakshminarayanan, A. Pritzel and C. Blundell (2017). Simple and scalable predictive uncertainty
estimation using deep ensembles. NeurIPS. https://doi.org/10.48550/arXiv.1612.01474
"""

from collections.abc import Callable
from math import log
from numbers import Integral, Real
from typing import Any, ClassVar, Self

import numpy as np
from numpy.typing import ArrayLike, NDArray
from sklearn import config_context, get_config
from sklearn.base import BaseEstimator, MetaEstimatorMixin, clone
from sklearn.frozen import FrozenEstimator
from sklearn.pipeline import Pipeline
from sklearn.utils import get_tags
from sklearn.utils.metadata_routing import (
    UNUSED,
    MetadataRouter,
    MethodMapping,
    process_routing,
)
from sklearn.utils.validation import check_is_fitted

from skae._pipeline import sample_pipeline
from skae._search.same_work import trains_network
from skae._utils.availability import available_if
from skae._utils.interrupts import inside_another_fit
from skae._utils.state import all_or_nothing, learned_names
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
from skae._utils.versions import with_versions, without_versions

# What scores of several models can be, the most that can be said of them first.
_KINDS = ("log_likelihood", "lower_bound", "reconstruction", "latent")
_COMPARABLE = _KINDS[:2]


# ------------------------------------------------------------------------ averages


def log_mean_exp(scores: list[Any]) -> Any:
    """The logarithm of the mean of exp(score) over models, row by row."""
    xp, _ = get_namespace(*scores)
    return log_sum_exp(xp.stack(scores), axis=0) - log(len(scores))


def mean_of(parts: list[Any]) -> Any:
    """The mean of arrays of equal shape; as an array, also that of data frames."""
    xp, _ = get_namespace(*parts)
    return xp.mean(xp.stack(parts), axis=0)


def rows_of(parts: list[Any], index: NDArray[np.intp]) -> Any:
    """These rows of all parts, one below the other; as an array, also those of data frames."""
    xp, _ = get_namespace(*parts)
    return xp.take(xp.concat(parts), xp.asarray(index), axis=0)


def mean_of_tables(parts: list[Any], n_levels: tuple[int, ...]) -> Any:
    """The mean of rows of a table; of categories the level that most have, the first of equals."""
    stacked = np.stack(parts)
    found = stacked.mean(axis=0)
    for j, n in enumerate(n_levels):
        if n:
            votes = stacked[:, :, j, None] == np.arange(n)
            found[:, j] = votes.sum(axis=0).argmax(axis=1)
    return found


# ------------------------------------------------------------------------- members


def _model_of(estimator: Any) -> Any:
    """The model at the end of Pipelines, within searches and what is frozen."""
    while True:
        if isinstance(estimator, Pipeline):
            estimator = estimator.steps[-1][1]
        elif isinstance(estimator, FrozenEstimator):
            estimator = estimator.estimator
        elif hasattr(estimator, "refit") and hasattr(estimator, "estimator"):
            estimator = getattr(estimator, "best_estimator_", estimator.estimator)
        else:
            return estimator


def _table_of(estimator: Any) -> Any:
    """What a fitted model knows of its columns where they have likelihoods of their own.

    None of models behind other steps of a Pipeline, whose rows are not those of the user.
    """
    while isinstance(estimator, Pipeline) or hasattr(estimator, "best_estimator_"):
        if isinstance(estimator, Pipeline) and len(estimator.steps) > 1:
            return None
        steps = getattr(estimator, "steps", None)
        estimator = estimator.best_estimator_ if steps is None else steps[0][1]
    return vars(_model_of(estimator)).get("_table")


def _seeded(estimator: Any, rng: np.random.RandomState) -> Any:
    """A clone with an integer seed in every parameter `random_state`, also of what is within."""
    member = clone(estimator)
    names = [n for n in sorted(member.get_params()) if f"__{n}".endswith("__random_state")]
    if names:
        member.set_params(**{name: int(rng.randint(2**31 - 1)) for name in names})
    return member


def _call(estimator: Any, calls: list[Callable[[], Any]], memory_limit: float | None) -> list[Any]:
    """What the fits of members return, in their order; networks are trained together."""
    if not any(map(trains_network, (estimator, *estimator.get_params().values()))):
        return [call() for call in calls]
    from skae._training.together import run_together  # loads torch, which is loaded

    return run_together(calls, memory_limit=memory_limit)


def _fit_call(member: Any, *args: Any, **params: Any) -> Callable[[], Any]:
    """The fit of a member, which may be called in a thread of its own."""
    config = get_config()

    def call() -> Any:
        # A thread begins with the defaults of both; a member is never cut short by Ctrl-C.
        with config_context(**config), inside_another_fit():
            return member.fit(*args, **params)

    return call


def _score_samples(member: Any, X: Any, params: dict[str, Any]) -> Any:
    """Nats per row; Pipeline's own method would take no parameters."""
    while isinstance(member, Pipeline):
        X = member[:-1].transform(X) if len(member) > 1 else X
        member = member[-1]
    return member.score_samples(X, **params)


def _reconstruct(member: Any, X: Any, params: dict[str, Any]) -> Any:
    """Rows by way of their codes, in the space of the data."""
    if isinstance(member, Pipeline):
        before, last = member[:-1], member[-1]
        if not len(before):
            return _reconstruct(last, X, params)
        return before.inverse_transform(_reconstruct(last, before.transform(X), params))
    if hasattr(member, "reconstruct"):
        return member.reconstruct(X, **params)
    return member.inverse_transform(member.transform(X, **params))


# -------------------------------------------------------------- what there is to average


def _scores_data(ensemble: "Ensemble") -> bool:
    kind = ensemble.score_kind
    if kind in _COMPARABLE:
        return True
    name = type(_model_of(ensemble.estimator)).__name__
    raise AttributeError(
        f"scores of {name} are of kind {kind!r}, and no likelihoods of rows that could be "
        "averaged. PPCA, LinearAE, CountMixtureAE, VAE, VQVAE and HelmholtzMachine have such "
        "likelihoods; reconstructions are compared by skae.metrics.reconstruction_error, and "
        "each of estimators_ has scores of its own."
    )


def _decodes(ensemble: "Ensemble") -> bool:
    model = _model_of(ensemble.estimator)
    if hasattr(model, "reconstruct") or hasattr(model, "inverse_transform"):
        return True
    raise AttributeError(f"{type(model).__name__} has neither reconstruct nor inverse_transform.")


def _samples(ensemble: "Ensemble") -> bool:
    model = _model_of(ensemble.estimator)
    if hasattr(model, "sample"):
        return True
    raise AttributeError(f"{type(model).__name__} has no method sample.")


class Ensemble(MetaEstimatorMixin, BaseEstimator):
    """Several members of one estimator that differ in their seeds, averaged.

    Networks that begin at other weights, and see the rows in another order, end at other models,
    which err in other places. The ensemble is their mixture in equal parts: its likelihood is the
    mean of theirs, so that its score is never below the mean of their scores.

    It has no `transform`: a code means something else to each member. It is no autoencoder, but
    stands in a Pipeline's last place and in searches as one does, with parameters of the members
    such as `estimator__n_components`.

    Parameters
    ----------
    estimator : estimator object
        What the members are clones of: an estimator of skae; or another one with the methods that
        are asked for, a Pipeline of one, a search over one. It stays as it is.
    n_members : int, default=5
        How many members there are.
    random_state : int, RandomState instance or None, default=None
        Seeds the members: each has an integer of its own in every parameter `random_state`,
        also in those of estimators within it, whatever these were set to. None takes fresh
        entropy. Members without such a parameter, and those that a seed does not change, as
        closed forms, are all equal.
    memory_limit : float, default=None
        Bytes that the members which train together may take; the others follow them. None means
        2 GiB or, on a GPU, half of what is free there. It changes nothing for estimators without a
        network.

    Attributes
    ----------
    score_kind : {"log_likelihood", "lower_bound", "reconstruction", "latent"}
        That of the members. A bound stays a bound: where no member's score is above the
        logarithm of its likelihood, the ensemble's is not above that of their mean. The same is
        true of importance-weighted bounds, which hold on average: they are logarithms of
        estimates whose mean is the likelihood.
    estimators_ : list of estimators
        The fitted members.
    n_features_in_ : int
        Number of features seen in `fit`, where the members have it.
    feature_names_in_ : ndarray of shape (n_features_in_,)
        Names of the columns, if all are strings, where the members have it.

    See Also
    --------
    sklearn.ensemble.BaggingRegressor : Members for targets, fitted on rows drawn with repetition.

    Notes
    -----
    Steps of a Pipeline before the model have to do the same in every member, as scalers do: scores
    are densities of what these steps return, as those of a Pipeline are, and only densities of the
    same variables have a mean.

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

    # Weights of `fit` are for the members: what they request is asked of them.
    __metadata_request__fit: ClassVar[dict[str, str]] = {"sample_weight": UNUSED}

    estimators_: list[Any]
    n_features_in_: int
    feature_names_in_: NDArray[np.object_]

    def __init__(
        self,
        estimator: Any,
        n_members: int = 5,
        *,
        random_state: int | np.random.RandomState | None = None,
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
        """Fit every member on the same rows.

        A fit that fails, of whichever member, or that is interrupted, leaves the ensemble as it
        was before.

        Parameters
        ----------
        X : array-like of shape (n_samples, n_features)
            Training rows, of the kinds that the estimator takes.
        y : array-like of shape (n_samples,) or (n_samples, n_targets), default=None
            Passed to the members.
        sample_weight : array-like of shape (n_samples,), default=None
            How often each row counts; passed to the members if it is given.
        **fit_params : dict
            Passed to the `fit` of the members, such as `vae__sample_weight` to a Pipeline; with
            scikit-learn's metadata routing what they request.

        Returns
        -------
        self : object
            The fitted ensemble.

        Raises
        ------
        ValueError
            If a parameter is not allowed, or a member refuses its own parameters or the rows.
        TypeError
            If the members take no `sample_weight`, or `estimator` is a class.
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
            calls = [_fit_call(member, X, y, **fit_params) for member in members]
            self.estimators_ = _call(self.estimator, calls, self.memory_limit)
            for name in ("n_features_in_", "feature_names_in_"):
                if hasattr(self.estimators_[0], name):
                    setattr(self, name, getattr(self.estimators_[0], name))
        return self

    # ------------------------------------------------------------------ generation

    @available_if(_decodes)
    def reconstruct(self, X: ArrayLike, y: Any = None) -> Any:
        """Take the mean of the members' reconstructions of rows.

        Of a category it is the level that most members reconstruct, the first of equals: levels
        have no mean.

        Parameters
        ----------
        X : array-like of shape (n_samples, n_features)
            Rows to reconstruct.
        y : scalar or array-like of shape (n_samples,) or (n_samples, n_targets), default=None
            For conditional models, as in their `reconstruct`.

        Returns
        -------
        X_reconstructed : ndarray of shape (n_samples, n_features)
            The mean; a data frame under `set_output`, or where members return one.

        Raises
        ------
        AttributeError
            If the members cannot decode.
        TypeError
            If `y` is given and the members take none.
        """
        check_is_fitted(self)
        params = {} if y is None else {"y": y}
        table = _table_of(self.estimators_[0])
        if table is not None:
            read = [_model_of(m)._reconstructed(X, **params) for m in self.estimators_]
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
        random_state: int | np.random.RandomState | None = None,
    ) -> Any:
        """Draw new rows, each from a member that is itself drawn, all alike.

        Parameters
        ----------
        n_samples : int, default=1
            How many rows to draw.
        y : scalar or array-like of shape (n_samples,) or (n_samples, n_targets), default=None
            For conditional models, as in their `sample`.
        noise : bool, default=True
            Draw from p(x|z); False returns its means, without the noise.
        random_state : int, RandomState instance or None, default=None
            Seed of the draw. None takes fresh entropy, so that two calls differ.

        Returns
        -------
        X_new : ndarray of shape (n_samples, n_features)
            The drawn rows, those of all members mixed; a data frame under `set_output`, or where
            members return one.

        Raises
        ------
        AttributeError
            If the members cannot sample.
        TypeError
            If `y` is given, or `noise` is False, and the members take none.
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
        else:  # rows of y belong to rows that are drawn: each member draws all of them
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
    def score_kind(self) -> str:
        """What `score_samples` returns; of members that differ, the least that holds for all."""
        kinds = []
        for member in vars(self).get("estimators_", [self.estimator]):
            model = _model_of(member)
            kind = getattr(model, "score_kind", None)
            if kind is None and hasattr(model, "score_samples"):
                # A density of scikit-learn's, as GaussianMixture.
                is_density = get_tags(model).estimator_type == "density_estimator"
                kind = "log_likelihood" if is_density else None
            if kind not in _KINDS:
                raise AttributeError(
                    f"{type(model).__name__} has no score_kind that tells whether its scores are "
                    "log-likelihoods, as estimators of skae have, and is no density of "
                    "scikit-learn's."
                )
            kinds.append(kind)
        return max(kinds, key=_KINDS.index)

    @available_if(_scores_data)
    def score_samples(self, X: ArrayLike, y: Any = None, **score_params: Any) -> Any:
        """Score rows by the logarithm of the mean of the members' likelihoods.

        It is log 1/M sum_m exp(s_m), where s_m is the score of member m: the log-likelihood of
        the mixture of all members, or a lower bound on it if that is what the members' scores
        are.

        Parameters
        ----------
        X : array-like of shape (n_samples, n_features)
            Rows to score.
        y : array-like of shape (n_samples,) or (n_samples, n_targets), default=None
            For conditional models, as in their `score_samples`.
        **score_params : dict
            Passed to the members' `score_samples`, such as `n_importance` to that of a VAE.

        Returns
        -------
        scores : ndarray of shape (n_samples,)
            Nats per row.

        Raises
        ------
        AttributeError
            If `score_kind` is not "log_likelihood" nor "lower_bound": there is no likelihood of
            rows then whose mean could be taken.
        TypeError
            If the members take no such arguments.
        """
        check_is_fitted(self)
        if y is not None:
            score_params["y"] = y
        return log_mean_exp([_score_samples(m, X, score_params) for m in self.estimators_])

    @available_if(_scores_data)
    def score(self, X: ArrayLike, y: Any = None, sample_weight: ArrayLike | None = None) -> float:
        """Mean of `score_samples`, so that a grid search maximises it.

        Parameters
        ----------
        X : array-like of shape (n_samples, n_features)
            Rows to score.
        y : array-like of shape (n_samples,) or (n_samples, n_targets), default=None
            For conditional models, as in `score_samples`; ignored by others.
        sample_weight : array-like of shape (n_samples,), default=None
            Weights of the rows in the mean.

        Returns
        -------
        score : float
            Nats per row.

        Raises
        ------
        AttributeError
            If `score_kind` is not "log_likelihood" nor "lower_bound".
        """
        check_is_fitted(self)
        conditional = getattr(_model_of(self.estimators_[0]), "conditional", False)
        scores = self.score_samples(X, y if conditional else None)
        return float(average(scores, weights=check_weight(sample_weight, scores)))

    # ----------------------------------------------------- names, routing and files

    def set_output(self, *, transform: str | None = None) -> Self:
        """Choose what `reconstruct` and `sample` return, as the estimator's own `set_output` does.

        Parameters
        ----------
        transform : {"default", "pandas", "polars"} or None, default=None
            The container; None leaves it as it is.

        Returns
        -------
        self : object
            The ensemble, whose estimator and members are set.
        """
        for member in [self.estimator, *vars(self).get("estimators_", [])]:
            safe_set_output(member, transform=transform)
        return self

    def _to_frame(self, rows: Any, original: Any = None) -> Any:
        """Rows as the container that the model asks for; its Pipeline would lose it."""
        names = getattr(self, "feature_names_in_", None)
        if names is None:
            names = [f"x{i}" for i in range(rows.shape[1])]
        return to_frame(_model_of(self.estimators_[0]), rows, original, names)

    def _write(self, table: Any, rows: Any, like: Any = None) -> Any:
        """Rows of a table as the container that the model asks for, or else that was given."""
        from skae._mixed_rows import write_rows  # loads torch, which is loaded

        return write_rows(_model_of(self.estimators_[0]), table, rows, like=like)

    def get_metadata_routing(self) -> MetadataRouter:
        """Where metadata go: `fit` passes on what the estimator requests.

        Returns
        -------
        routing : MetadataRouter
            Requests of `score`, whose weights are those of the mean over rows, and of the
            estimator's `fit`.
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
        super().__setstate__(without_versions(state, type(self).__name__))
