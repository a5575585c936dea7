"""The contract of every skae estimator: validate once here, compute in the hooks.

A model implements `_fit_model`, `_encode`, `_decode`, `_log_prob` and `_draw` on
validated arrays; users call `fit`, `transform`, `inverse_transform`, `reconstruct`,
`sample`, `score_samples` and `score`.
"""

from abc import ABCMeta, abstractmethod
from numbers import Integral
from typing import Any, Literal, Self

import numpy as np
from numpy.typing import ArrayLike
from sklearn.base import BaseEstimator, ClassNamePrefixFeaturesOutMixin, TransformerMixin
from sklearn.utils import _safe_indexing
from sklearn.utils.validation import check_is_fitted

from skae._utils.memory import advise_on_memory_everywhere
from skae._utils.state import all_or_nothing, learned_names
from skae._utils.validation import (
    Interval,
    average,
    check_argument,
    check_codes,
    check_rows,
    check_same_namespace,
    check_weight,
    fit_context,
    private_generator,
    to_frame,
    to_plain,
)
from skae._utils.versions import with_versions, without_versions

ScoreKind = Literal["log_likelihood", "lower_bound", "reconstruction", "latent"]


class BaseAutoencoder(
    ClassNamePrefixFeaturesOutMixin,
    TransformerMixin,
    BaseEstimator,
    metaclass=ABCMeta,
):
    """A recognition/generation pair as a scikit-learn transformer with a density.

    Attributes
    ----------
    score_kind : {"log_likelihood", "lower_bound", "reconstruction", "latent"}
        What `score_samples` returns, in nats per row. Only the first two may be
        compared between models.
    """

    score_kind: ScoreKind

    # A fitted array whose namespace and device later input must share. Only models
    # that compute in the namespace of their input (the array-API tag) name one.
    _namespace_attribute: str | None = None

    def __init_subclass__(cls, **kwargs: Any) -> None:
        super().__init_subclass__(**kwargs)
        advise_on_memory_everywhere(cls)

    # ---------------------------------------------------------------- the hooks

    @abstractmethod
    def _fit_model(
        self, X: Any, rng: np.random.RandomState, sample_weight: Any, previous: Self | None
    ) -> Any | None:
        """Learn from rows; every weight is positive. May return the rows' codes.

        `previous` is the model as an earlier fit left it, with the parameters of today, where
        `warm_start` asks to go on from it; of any other earlier fit nothing is left. A model
        that has `_check_targets` return targets is given them as the keyword `y`; one that
        scikit-learn's callbacks listen to is given the y of `fit` as the keyword `told`.
        """

    @abstractmethod
    def _encode(self, X: Any) -> Any:
        """Codes of validated rows."""

    @abstractmethod
    def _decode(self, Z: Any) -> Any:
        """Mean of p(x|z) for validated codes."""

    @abstractmethod
    def _log_prob(self, X: Any) -> Any:
        """Nats of each validated row."""

    @abstractmethod
    def _draw(self, n_samples: int, rng: np.random.RandomState, noise: bool) -> Any:
        """New rows from the model's own p(z)."""

    def _generate(self, Z: Any, rng: np.random.RandomState, noise: bool) -> Any:
        """Draws from p(x|z) of codes, or its means; where it has no noise these are the same."""
        return self._decode(Z)

    def _row_likelihood(self) -> Any | None:
        """p(x|z) as bounds on log p(x) ask for it (a `RowLikelihood`); None where there is none."""
        return None

    # ----------------------------------------------------------------- learning

    @fit_context
    def fit(self, X: ArrayLike, y: object = None, sample_weight: ArrayLike | None = None) -> Self:
        """Learn the model from rows.

        A fit that fails leaves the estimator as it was before. The first Ctrl-C ends the
        training of a network, or EM, and keeps what its last complete epoch or iteration left,
        with a warning. It is raised, and the estimator is as before, until the first of those
        is complete, at a second Ctrl-C, inside a Pipeline, a search or a
        LatentDensityEstimator, and where nothing is trained in steps.

        Parameters
        ----------
        X : array-like of shape (n_samples, n_features)
            Training rows, dense ones; SciPy's sparse matrices, too, where the estimator's tag
            `input_tags.sparse` is set, such as LinearAE's and PPCA's. Where `input_tags.allow_nan`
            is set, NaN, null and what is masked are values that were not seen.
        y : array-like of shape (n_samples,) or (n_samples, n_targets), default=None
            What a conditional model is conditioned on; ignored by all others.
        sample_weight : array-like of shape (n_samples,), default=None
            How often each row counts; rows of weight zero are left out.

        Returns
        -------
        self : object
            The fitted estimator.

        Raises
        ------
        ValueError
            If `X`, `sample_weight` or a parameter is not allowed; the message names
            it, what was given and what is allowed. A column of which no value was seen in
            any row that counts is not.
        TypeError
            If `X` holds dates or times, or is sparse where that is not taken.
        MemoryError
            If memory does not suffice; the message names what to set.
        """
        with all_or_nothing(self):
            self._fit_validated(X, y, sample_weight)
        return self

    def fit_transform(
        self, X: ArrayLike, y: object = None, sample_weight: ArrayLike | None = None
    ) -> Any:
        """Learn the model and return the codes of the training rows.

        Parameters
        ----------
        X : array-like of shape (n_samples, n_features)
            Training rows, as in `fit`.
        y : array-like of shape (n_samples,) or (n_samples, n_targets), default=None
            What a conditional model is conditioned on; ignored by all others.
        sample_weight : array-like of shape (n_samples,), default=None
            How often each row counts; rows of weight zero are encoded all the same.

        Returns
        -------
        Z : ndarray of shape (n_samples, n_codes)
            The codes.
        """
        return self._fit_then_encode(X, y, sample_weight)

    @fit_context
    def _fit_then_encode(self, X: ArrayLike, y: object, sample_weight: ArrayLike | None) -> Any:
        with all_or_nothing(self):
            rows, codes = self._fit_validated(X, y, sample_weight)
            return self._encode(rows) if codes is None else codes

    def _fit_validated(self, X: Any, y: Any, sample_weight: Any) -> tuple[Any, Any | None]:
        """Validate, drop rows of weight zero, learn; the validated rows and their codes."""
        previous = self._take_previous()
        X = self._check_rows(X, reset=True, min_rows=2)
        weight = check_weight(sample_weight, X)
        targets = self._check_targets(y, X.shape[0])
        more = {} if targets is None else {"y": targets}
        if hasattr(self, "_skl_callbacks") and y is not None:
            more["told"] = y
        counted = self._counted(weight)
        seen = X
        if counted is not None and weight is not None:
            seen, weight = X[counted], weight[counted]
            more = {
                name: _safe_indexing(value, np.flatnonzero(counted)) for name, value in more.items()
            }
        codes = self._fit_model(seen, self._generator(), weight, previous, **more)
        return X, codes if seen is X else None

    def _check_targets(self, y: Any, n_rows: int) -> Any | None:
        """The targets of a model that conditions on them, validated; None where y is ignored."""
        return None

    def _counted(self, weight: Any | None) -> Any | None:
        """Which rows count: those of positive weight; None where all do."""
        return None if weight is None or bool((weight > 0).all()) else weight > 0

    def _rows_that_count(
        self, X: Any, weight: Any | None, y: Any | None = None
    ) -> tuple[Any, Any | None, Any | None]:
        """Rows that count, their weights and targets; `X` itself where that is all."""
        counted = self._counted(weight)
        if counted is None or weight is None:
            return X, weight, y
        return X[counted], weight[counted], None if y is None else y[counted]

    def _take_previous(self) -> Self | None:
        """Drop all that an earlier fit learned; return it where training goes on from it."""
        learned, previous = learned_names(self), None
        if learned and getattr(self, "warm_start", False):
            previous = BaseAutoencoder.__copy__(self)
        for name in learned:
            delattr(self, name)
        return previous

    def _generator(self) -> np.random.RandomState:
        return private_generator(getattr(self, "random_state", None))

    # ------------------------------------------------- recognition, generation

    def transform(self, X: ArrayLike) -> Any:
        """Encode rows.

        Parameters
        ----------
        X : array-like of shape (n_samples, n_features)
            Rows to encode; of the kinds that `fit` takes.

        Returns
        -------
        Z : ndarray of shape (n_samples, n_codes)
            The codes.
        """
        return self._encode(self._check_new_rows(X, "transform"))

    def inverse_transform(self, X: ArrayLike) -> Any:
        """Decode codes to the mean of p(x|z).

        Parameters
        ----------
        X : array-like of shape (n_samples, n_codes)
            Codes, as `transform` returns them.

        Returns
        -------
        X_decoded : ndarray of shape (n_samples, n_features)
            One row per code; a data frame with the columns of the training data
            under `set_output`; of tables in the container of training.

        Raises
        ------
        ValueError
            If `X` has not one column per code, or names them in another order.
        """
        return self._rows_out(self._decode(self._check_codes(X)), beside=X)

    def reconstruct(self, X: ArrayLike) -> Any:
        """Encode rows and decode their codes.

        Parameters
        ----------
        X : array-like of shape (n_samples, n_features)
            Rows to reconstruct; of the kinds that `fit` takes.

        Returns
        -------
        X_reconstructed : ndarray of shape (n_samples, n_features)
            `inverse_transform(transform(X))`, without NaN; a data frame with the columns
            of the training data under `set_output`; of tables in the container of `X`.
        """
        return self._rows_out(self._reconstructed(X), like=X)

    def _reconstructed(self, X: ArrayLike) -> Any:
        """Reconstructions of rows that users give, as the hooks compute them."""
        return self._decode(self._encode(self._check_new_rows(X, "reconstruct")))

    def sample(
        self,
        n_samples: int = 1,
        *,
        noise: bool = True,
        random_state: int | np.random.RandomState | None = None,
    ) -> Any:
        """Draw new rows from the model.

        Parameters
        ----------
        n_samples : int, default=1
            How many rows to draw.
        noise : bool, default=True
            Draw from p(x|z); False returns its means, without the noise.
        random_state : int, RandomState instance or None, default=None
            Seed of the draw. None takes fresh entropy, so that two calls differ.

        Returns
        -------
        X_new : ndarray of shape (n_samples, n_features)
            The drawn rows; a data frame with the columns of the training data under
            `set_output`; of tables in the container of training.

        Raises
        ------
        ValueError
            If `n_samples` is not a positive integer; True is none.
        MemoryError
            If memory does not suffice; the message names what to set.
        """
        self._check_sample_arguments(n_samples, noise)
        return self._rows_out(self._draw(n_samples, private_generator(random_state), noise))

    # ------------------------------------------------------------------ density

    def score_samples(self, X: ArrayLike) -> Any:
        """Score rows in nats; `score_kind` says what the number is.

        Parameters
        ----------
        X : array-like of shape (n_samples, n_features)
            Rows to score; of the kinds that `fit` takes.

        Returns
        -------
        scores : ndarray of shape (n_samples,)
            Nats per row.
        """
        return self._log_prob(self._check_new_rows(X, "score_samples"))

    def score(
        self, X: ArrayLike, y: object = None, sample_weight: ArrayLike | None = None
    ) -> float:
        """Mean of `score_samples`, so that a grid search maximises it.

        Parameters
        ----------
        X : array-like of shape (n_samples, n_features)
            Rows to score; of the kinds that `fit` takes.
        y : Ignored
            Present for API consistency.
        sample_weight : array-like of shape (n_samples,), default=None
            Weights of the rows in the mean.

        Returns
        -------
        score : float
            Nats per row.
        """
        scores = self.score_samples(X)
        return float(average(scores, weights=check_weight(sample_weight, scores)))

    # --------------------------------------------------------------- validation

    def _check_rows(self, X: Any, *, reset: bool, min_rows: int = 1) -> Any:
        return check_rows(self, X, reset=reset, min_rows=min_rows)

    def _check_new_rows(self, X: Any, method: str) -> Any:
        check_is_fitted(self)
        self._check_namespace(X, method)
        return self._check_rows(X, reset=False)

    def _check_codes(self, Z: Any) -> Any:
        check_is_fitted(self)
        self._check_namespace(Z, "inverse_transform")
        return check_codes(Z, self.get_feature_names_out(), type(self).__name__)

    def _check_namespace(self, X: Any, method: str) -> None:
        if self._namespace_attribute is not None:
            check_same_namespace(X, self, attribute=self._namespace_attribute, method=method)

    def _check_argument(self, name: str, value: object, allowed: list[object]) -> None:
        check_argument(name, value, allowed, type(self).__name__)

    def _check_sample_arguments(self, n_samples: object, noise: object) -> None:
        check_is_fitted(self)
        self._check_argument("n_samples", n_samples, [Interval(Integral, 1, None, closed="left")])
        self._check_argument("noise", noise, ["boolean"])

    # ---------------------------------------------------------- names and files

    def _to_frame(self, rows: Any, original: Any = None, names: Any = None) -> Any:
        """Rows as the container that `set_output` asks for; by default under the input's names."""
        return to_frame(self, rows, original, names)

    def _rows_out(self, rows: Any, *, like: Any = None, beside: Any = None) -> Any:
        """Rows of the data as users see them: such as those given, or beside codes of theirs."""
        return self._to_frame(rows, like if like is not None else beside)

    @property
    def _n_features_out(self) -> int:
        return self.n_components_

    def __copy__(self) -> Self:
        """Another estimator with the same parameters and attributes."""
        new = object.__new__(type(self))
        new.__dict__.update(self.__dict__)
        return new

    def __getstate__(self) -> dict[str, Any]:
        """NumPy arrays and plain types only, also for models fitted on a device; versions."""
        state = {name: to_plain(value) for name, value in super().__getstate__().items()}
        return with_versions(state)

    def __setstate__(self, state: dict[str, Any]) -> None:
        super().__setstate__(without_versions(state, type(self).__name__))


advise_on_memory_everywhere(BaseAutoencoder)  # its subclasses follow by themselves
