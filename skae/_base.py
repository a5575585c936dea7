"""The base class of all estimators: it validates input, and subclasses compute.

A model implements `_fit_model`, `_encode`, `_decode`, `_log_prob` and `_draw`, which get
validated arrays. Users call `fit`, `transform`, `inverse_transform`, `reconstruct`, `sample`,
`score_samples` and `score`.
"""

from __future__ import annotations

from abc import ABCMeta, abstractmethod
from numbers import Integral
from typing import Any, ClassVar, Self

import numpy as np
from numpy.typing import ArrayLike, NDArray
from sklearn.utils import _safe_indexing
from sklearn.utils.validation import check_is_fitted

from skae._dask.dispatch import of_blocks_everywhere
from skae._utils.bases import BaseEstimator, ClassNamePrefixFeaturesOutMixin, TransformerMixin
from skae._utils.dask_inputs import is_dask
from skae._utils.html import FittedHTML
from skae._utils.memory import advise_on_memory_everywhere
from skae._utils.state import all_or_nothing, learned_names
from skae._utils.types import ArrayOrFrame, RandomState, ScoreKind
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
from skae._utils.versions import check_state, with_versions, without_versions


class BaseAutoencoder(
    ClassNamePrefixFeaturesOutMixin,
    TransformerMixin,
    BaseEstimator,
    metaclass=ABCMeta,
):
    """Base class of autoencoders as scikit-learn transformers that score and draw rows.

    Attributes
    ----------
    score_kind : {"log_likelihood", "lower_bound", "reconstruction", "latent"}
        What `score_samples` returns, in nats per row. Only values of the first two kinds can be
        compared between models.
    """

    score_kind: ScoreKind
    n_components_: int

    # Name of a fitted array whose array namespace and device later input must share. It is set by
    # models that compute in the namespace of their input (the array-API tag), and None otherwise.
    _namespace_attribute: str | None = None

    # Entries in the saved state of every fitted model, which are checked when a file is loaded:
    # shapes of arrays as names of attributes, or None for what is no array.
    _state_shapes: ClassVar[dict[str, tuple[str, ...] | None]] = {}

    def __init_subclass__(cls, **kwargs: Any) -> None:
        super().__init_subclass__(**kwargs)
        advise_on_memory_everywhere(cls)
        of_blocks_everywhere(cls)

    # ---------------------------------------------------------------- the hooks

    @abstractmethod
    def _fit_model(
        self, X: Any, rng: np.random.RandomState, sample_weight: Any, previous: Self | None
    ) -> Any | None:
        """Learn from rows, all of which have positive weights. May return the codes of the rows.

        With `warm_start`, `previous` is a copy of this estimator as the earlier fit left it, but
        with the current parameters; otherwise it is None. Models whose `_check_targets` returns
        targets get them as the keyword `y`. Models with scikit-learn's callbacks get the y that
        was given to `fit` as the keyword `told`.
        """

    @abstractmethod
    def _encode(self, X: Any) -> Any:
        """Encode validated rows."""

    @abstractmethod
    def _decode(self, Z: Any) -> Any:
        """Decode validated codes to the mean of p(x|z)."""

    @abstractmethod
    def _log_prob(self, X: Any) -> Any:
        """Score each validated row in nats."""

    @abstractmethod
    def _draw(self, n_samples: int, rng: np.random.RandomState, noise: bool) -> Any:
        """Draw new rows, with codes from the p(z) of the model."""

    def _fit_collection(self, X: Any, sample_weight: Any | None) -> Any:
        """Learn from the blocks of a collection of Dask. Models that cannot do it return this."""
        return NotImplemented

    def _generate(self, Z: Any, rng: np.random.RandomState, noise: bool) -> Any:
        """Draws from p(x|z) for given codes, or its means without noise."""
        return self._decode(Z)

    def _row_likelihood(self) -> Any | None:
        """p(x|z) as a `RowLikelihood`, for bounds on log p(x); None if the model has none."""
        return None

    # ----------------------------------------------------------------- learning

    @fit_context
    def fit(self, X: ArrayLike, y: object = None, sample_weight: ArrayLike | None = None) -> Self:
        """Learn the model from rows.

        If `fit` raises an error, the estimator stays as it was before. The first Ctrl-C ends the
        training of a network, or EM, after its last complete epoch or iteration. The model at that
        point is kept, and a warning is issued. In the following cases Ctrl-C raises
        KeyboardInterrupt, and the estimator stays as it was before: if no epoch or iteration is
        complete, at the second Ctrl-C, inside a Pipeline, a search or a LatentDensityEstimator, and
        for models that are not trained in steps.

        Parameters
        ----------
        X : array-like of shape (n_samples, n_features)
            Training rows. Estimators with the tag `input_tags.sparse`, such as LinearAE, PPCA and
            networks with one likelihood for all columns, also accept sparse matrices of SciPy (see
            the page "Sparse rows" of the documentation). Estimators with a network also accept
            memory-mapped arrays, datasets of h5py and anndata, arrays of zarr, data sets of Parquet
            files, arrays and data frames of Dask, and map-style Datasets of torch, of which a part
            is in memory at a time (see the page "Data larger than memory"). LinearAE and PPCA learn
            from arrays and data frames of Dask block by block, and every fitted model transforms
            them lazily (see the page "Dask"). For estimators with the tag `input_tags.allow_nan`,
            NaN, null and masked entries are missing values.
        y : array-like of shape (n_samples,) or (n_samples, n_targets), default=None
            Targets for conditional models; ignored by all others.
        sample_weight : array-like of shape (n_samples,), default=None
            Weights of the rows. A row of weight 2 has the same effect as two copies of that
            row, and rows of weight 0 are not used. None weights all rows equally.

        Returns
        -------
        self : object
            The fitted estimator.

        Raises
        ------
        ValueError
            If `X`, `sample_weight` or a parameter is not allowed, or if a column of `X` has no
            observed value in the rows of positive weight. The message names the argument, what
            was given and what is allowed.
        TypeError
            If `X` contains dates or times, or if it is sparse and the estimator does not accept
            sparse matrices.
        MemoryError
            If there is not enough memory. The message names parameters that reduce its use.
        """
        with all_or_nothing(self):
            self._fit_validated(X, y, sample_weight)
        return self

    def fit_transform(
        self, X: ArrayLike, y: object = None, sample_weight: ArrayLike | None = None
    ) -> ArrayOrFrame:
        """Learn the model and return the codes of the training rows.

        Parameters
        ----------
        X : array-like of shape (n_samples, n_features)
            Training rows, as in `fit`.
        y : array-like of shape (n_samples,) or (n_samples, n_targets), default=None
            Targets for conditional models; ignored by all others.
        sample_weight : array-like of shape (n_samples,), default=None
            Weights of the rows, as in `fit`. Codes are returned for all rows, including those
            of weight 0.

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

    def _fit_validated(
        self, X: Any, y: Any, sample_weight: Any, **of_rows: Any
    ) -> tuple[Any, Any | None]:
        """Validate, drop rows of weight 0 and learn; returns the validated rows and their codes.

        `of_rows` are further arguments with one entry for each row.
        """
        previous = self._take_previous()
        if is_dask(X) and self._fit_collection(X, sample_weight) is not NotImplemented:
            return X, None
        X = self._check_rows(X, reset=True, min_rows=2)
        weight = check_weight(sample_weight, X)
        targets = self._check_targets(y, X.shape[0])
        more = {} if targets is None else {"y": targets}
        for name, value in of_rows.items():
            more[name] = self._check_of_rows(name, value, X)
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
        """Validated targets of a conditional model; None for models that ignore y."""
        return None

    def _check_of_rows(self, name: str, value: Any, X: Any) -> Any:
        """Validate a further argument of `fit`, which has one entry for each row."""
        raise TypeError(f"fit() got an unexpected keyword argument {name!r}")

    def _counted(self, weight: Any | None) -> Any | None:
        """Mask of the rows of positive weight; None if all weights are positive."""
        return None if weight is None or bool((weight > 0).all()) else weight > 0

    def _rows_that_count(
        self, X: Any, weight: Any | None, y: Any | None = None
    ) -> tuple[Any, Any | None, Any | None]:
        """Rows of positive weight, their weights and targets; `X` itself if these are all rows."""
        counted = self._counted(weight)
        if counted is None or weight is None:
            return X, weight, y
        return X[counted], weight[counted], None if y is None else y[counted]

    def _take_previous(self) -> Self | None:
        """Delete the fitted attributes; return a copy that has them if `warm_start` is set."""
        learned, previous = learned_names(self), None
        if learned and getattr(self, "warm_start", False):
            previous = BaseAutoencoder.__copy__(self)
        for name in learned:
            delattr(self, name)
        return previous

    def _generator(self) -> np.random.RandomState:
        return private_generator(getattr(self, "random_state", None))

    # ------------------------------------------------- recognition, generation

    def transform(self, X: ArrayLike) -> ArrayOrFrame:
        """Encode rows.

        Parameters
        ----------
        X : array-like of shape (n_samples, n_features)
            Rows to encode, of the same types as in `fit`.

        Returns
        -------
        Z : ndarray of shape (n_samples, n_codes)
            The codes.
        """
        return self._encode(self._check_new_rows(X, "transform"))

    def inverse_transform(self, X: ArrayLike) -> ArrayOrFrame:
        """Decode codes to the mean of p(x|z).

        Parameters
        ----------
        X : array-like of shape (n_samples, n_codes)
            Codes, as `transform` returns them.

        Returns
        -------
        X_decoded : ndarray of shape (n_samples, n_features)
            Decoded rows, one for each row of codes. `set_output` makes them a data frame with
            the columns of the training data. For tables, they have the type of container that
            `fit` was given.

        Raises
        ------
        ValueError
            If the number of columns of `X` is not the number of codes, or if the columns have
            names in another order.
        """
        return self._rows_out(self._decode(self._check_codes(X)), beside=X)

    def reconstruct(self, X: ArrayLike) -> ArrayOrFrame:
        """Encode rows and decode their codes.

        Parameters
        ----------
        X : array-like of shape (n_samples, n_features)
            Rows to reconstruct, of the same types as in `fit`.

        Returns
        -------
        X_reconstructed : ndarray of shape (n_samples, n_features)
            The rows `inverse_transform(transform(X))`, which contain no NaN and are dense.
            `set_output` makes them a data frame with the columns of the training data. For tables,
            they have the same type of container as `X`.
        """
        return self._rows_out(self._reconstructed(X), like=X)

    def _reconstructed(self, X: ArrayLike) -> Any:
        """Reconstructions of rows as an array, before they are put into a container."""
        return self._decode(self._encode(self._check_new_rows(X, "reconstruct")))

    def sample(
        self,
        n_samples: int = 1,
        *,
        noise: bool = True,
        random_state: RandomState = None,
    ) -> ArrayOrFrame:
        """Draw new rows from the model.

        Parameters
        ----------
        n_samples : int, default=1
            Number of rows to draw.
        noise : bool, default=True
            Whether to draw from p(x|z). With False, the rows are the means of p(x|z).
        random_state : int, RandomState instance or None, default=None
            Seed of the draw. With None, every call draws other rows.

        Returns
        -------
        X_new : ndarray of shape (n_samples, n_features)
            The drawn rows. `set_output` makes them a data frame with the columns of the
            training data. For tables, they have the type of container that `fit` was given.

        Raises
        ------
        ValueError
            If `n_samples` is not a positive integer, or a boolean.
        MemoryError
            If there is not enough memory. The message names parameters that reduce its use.
        """
        self._check_sample_arguments(n_samples, noise)
        rng = private_generator(random_state)
        return self._rows_out(self._draw(int(n_samples), rng, noise))

    # ------------------------------------------------------------------ density

    def score_samples(self, X: ArrayLike) -> NDArray[Any]:
        """Score rows in nats. The attribute `score_kind` says what the score is.

        Parameters
        ----------
        X : array-like of shape (n_samples, n_features)
            Rows to score, of the same types as in `fit`.

        Returns
        -------
        scores : ndarray of shape (n_samples,)
            Score of each row in nats. It is -inf for rows where the density is zero, and for rows
            that are so far from the training rows that the score is below the range of floats.
        """
        return self._log_prob(self._check_new_rows(X, "score_samples"))

    def score(
        self, X: ArrayLike, y: object = None, sample_weight: ArrayLike | None = None
    ) -> float:
        """Mean score of the rows. Searches over parameters maximise it.

        Parameters
        ----------
        X : array-like of shape (n_samples, n_features)
            Rows to score, of the same types as in `fit`.
        y : Ignored
            Present for API consistency.
        sample_weight : array-like of shape (n_samples,), default=None
            Weights of the rows in the mean.

        Returns
        -------
        score : float
            Mean of `score_samples`, in nats per row.
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
        """Rows in the container that `set_output` asks for; by default with names of the input."""
        return to_frame(self, rows, original, names)

    def _rows_out(self, rows: Any, *, like: Any = None, beside: Any = None) -> Any:
        """Rows in the container that users get; `like` and `beside` are the rows or codes given."""
        return self._to_frame(rows, like if like is not None else beside)

    @property
    def _n_features_out(self) -> int:
        return self.n_components_

    def _get_fitted_attr_html(self, doc_link: str = "") -> FittedHTML:
        """What scikit-learn's diagrams in notebooks show of a fitted model."""
        return FittedHTML(self, doc_link)

    def __copy__(self) -> Self:
        """Another estimator with the same parameters and attributes."""
        new = object.__new__(type(self))
        new.__dict__.update(self.__dict__)
        return new

    def __getstate__(self) -> dict[str, Any]:
        """State as NumPy arrays and plain types, also for models on a GPU, with versions."""
        state = {name: to_plain(value) for name, value in super().__getstate__().items()}
        return with_versions(state)

    def __setstate__(self, state: dict[str, Any]) -> None:
        check_state(self, state)
        super().__setstate__(without_versions(state, type(self).__name__))


advise_on_memory_everywhere(BaseAutoencoder)  # subclasses: __init_subclass__
of_blocks_everywhere(BaseAutoencoder)
