"""Methods with targets y, for models that can learn p(x|z, y)."""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Callable
from typing import Any, Literal

import numpy as np
from numpy.typing import ArrayLike, NDArray
from sklearn.utils.validation import check_is_fitted
from torch import Tensor

from skae._latent_paths import LatentPathsMixin
from skae._linear.running import running_frequencies
from skae._modules.conditioning import Labels, Numbers, check_condition, condition_of
from skae._training.data import Data
from skae._utils.inputs import as_numbers
from skae._utils.types import ArrayOrFrame, RandomState
from skae._utils.validation import check_weight, private_generator

Array = NDArray[Any]


class ConditionalMixin(LatentPathsMixin):
    """Decoding, paths and sampling given targets, for models with a parameter `conditional`.

    Attributes
    ----------
    classes_ : ndarray of shape (n_classes,)
        Labels, if the targets are labels.
    class_prior_ : ndarray of shape (n_classes,)
        Frequencies of the labels in training.
    target_mean_ : ndarray of shape (n_targets,)
        Means of the targets, if they are numbers.
    target_scale_ : ndarray of shape (n_targets,)
        Standard deviations of the targets, if they are numbers.
    """

    conditional: bool
    classes_: Array
    class_prior_: Array
    target_mean_: Array
    target_scale_: Array
    _architecture: Any
    _map_codes: Callable[..., Array]
    _asks_for_row_sizes: Callable[[object], bool]
    _reconstructed_at_sizes: Callable[[Data], Array]

    # ---------------------------------------------------------------- the hooks

    @abstractmethod
    def _decode(self, Z: Array, condition: NDArray[np.float32] | None = None) -> Array:
        """Decode to the mean of p(x|z, y); without a condition, to its mean over all labels."""

    @abstractmethod
    def _draw(
        self,
        n_samples: int,
        rng: np.random.RandomState,
        noise: bool,
        condition: NDArray[np.float32] | None = None,
    ) -> Array:
        """Draw rows from p(z) p(x|z, y); without a condition, labels are drawn as well."""

    @abstractmethod
    def score_samples(self, X: ArrayLike, y: Any = None) -> Array:
        """Score rows in nats, given their targets."""

    # -------------------------------------------------------------------- learning

    def _check_targets(self, y: Any, n_rows: int) -> Array | None:
        if not self.conditional:
            return None
        if y is None:
            raise ValueError(
                "y is None, but conditional=True needs targets. Give labels or numbers as y."
            )
        return check_condition(y, n_rows)

    def _learn_condition(
        self, y: Array | None, sample_weight: Array | None, previous: Any | None
    ) -> NDArray[np.float32] | None:
        if y is None:
            return None
        condition = condition_of(y, sample_weight) if previous is None else previous._condition()
        if isinstance(condition, Labels):
            self.classes_ = condition.classes
            if previous is not None:
                self.class_prior_ = previous.class_prior_
        else:
            self.target_mean_, self.target_scale_ = condition
        return condition.columns(y)

    def _learn_label_frequencies(self, data: Data, weight: float) -> None:
        """Learn the frequencies of the labels; in a stream as running means."""
        if data.condition is None or not hasattr(self, "classes_"):
            return
        w = np.ones(len(data.X)) if data.weight is None else data.weight
        now = w @ data.condition / w.sum()
        self.class_prior_ = running_frequencies(vars(self).get("class_prior_"), now, weight)

    def _condition(self) -> Labels | Numbers:
        """Targets of the fitted model: labels or numbers."""
        if hasattr(self, "classes_"):
            return Labels(self.classes_)
        return Numbers(self.target_mean_, self.target_scale_)

    def _condition_of(self, y: Any, n_rows: int) -> NDArray[np.float32] | None:
        """Targets as columns for the decoder; None for unconditional models or all labels."""
        if not self._architecture.conditional:
            if y is None:
                return None
            raise ValueError("y is given, but the model was fitted with conditional=False.")
        condition = self._condition()
        if y is None:
            if isinstance(condition, Labels):
                return None
            raise ValueError(
                "y is None, but the model was fitted with numbers as targets: give y. (Only models "
                "fitted with labels can average over all targets.)"
            )
        given = np.asarray(as_numbers(y, "y"))
        if given.ndim == 0:
            given = np.full(n_rows, given)
        elif isinstance(condition, Numbers) and given.size == len(condition.mean) > 1:
            given = np.broadcast_to(given.reshape(1, -1), (n_rows, given.size))
        return condition.columns(check_condition(given, n_rows))

    def _drawn_labels(
        self, n_samples: int, rng: np.random.RandomState
    ) -> NDArray[np.float32] | None:
        """Draw labels by their frequencies; None if the targets are not labels."""
        if not hasattr(self, "classes_"):
            return None
        which = rng.choice(len(self.classes_), n_samples, p=self.class_prior_)
        return np.eye(len(self.classes_), dtype=np.float32)[which]

    def _map_conditioned(
        self,
        Z: Array,
        condition: NDArray[np.float32] | None,
        compute: Callable[[Tensor, Tensor | None], Tensor],
    ) -> Array:
        """As `_map_codes`, for a function of codes and targets."""
        if condition is None:
            return self._map_codes(Z, lambda z: compute(z, None))
        k = Z.shape[1]
        both = np.hstack([Z.astype(np.float32), condition])
        return self._map_codes(both, lambda row: compute(row[:, :k], row[:, k:]))

    # ------------------------------------------------------------------ generation

    def inverse_transform(self, X: ArrayLike, y: Any = None) -> ArrayOrFrame:
        """Decode codes to the mean of p(x|z), or of p(x|z, y).

        Parameters
        ----------
        X : array-like of shape (n_samples, n_components)
            Codes, as `transform` returns them.
        y : scalar or array-like of shape (n_samples,) or (n_samples, n_targets), default=None
            Targets of a conditional model: one for each row of codes, or a single one for all.
            With None, the result is the mean over all labels, weighted by their frequencies in
            training.

        Returns
        -------
        X_decoded : ndarray of shape (n_samples, n_features)
            Decoded rows, one for each row of codes. `set_output` makes them a data frame with
            the columns of the training data.

        Raises
        ------
        ValueError
            If the number of columns of `X` is not the number of codes, or if `y` is not what the
            model was fitted with.
        """
        Z = self._check_codes(X)
        return self._rows_out(self._decode(Z, self._condition_of(y, len(Z))), beside=X)

    def reconstruct(
        self, X: ArrayLike, y: Any = None, *, size_factor: Literal["row"] | None = None
    ) -> ArrayOrFrame:
        """Encode rows and decode their codes.

        Parameters
        ----------
        X : array-like of shape (n_samples, n_features)
            Rows to reconstruct, of the same types as in `fit`.
        y : scalar or array-like of shape (n_samples,) or (n_samples, n_targets), default=None
            Targets of a conditional model, as in `inverse_transform`.
        size_factor : {"row"}, default=None
            Size factor of the decoded rows, for likelihoods of counts with `size_factor="total"`.
            With "row", a reconstruction has the total of its row, as far as it is observed. None
            takes `size_factor_` for all rows.

        Returns
        -------
        X_reconstructed : ndarray of shape (n_samples, n_features)
            The rows `inverse_transform(transform(X), y)`, which contain no NaN and are dense; with
            `size_factor="row"`, these rows are multiplied by the ratio of size factors.
            `set_output` makes them a data frame with the columns of the training data.

        Raises
        ------
        ValueError
            If `y` is not what the model was fitted with, or if `size_factor` is "row" and the
            model has no size factors.
        """
        if not self._asks_for_row_sizes(size_factor):
            return self._rows_out(self._reconstructed(X, y), like=X)
        rows = self._check_new_rows(X, "reconstruct")
        data = Data(rows, None, self._condition_of(y, rows.shape[0]))
        return self._rows_out(self._reconstructed_at_sizes(data), like=X)

    def _reconstructed(self, X: ArrayLike, y: Any = None) -> Any:
        rows = self._check_new_rows(X, "reconstruct")
        condition = self._condition_of(y, len(rows))
        return self._decode(self._encode(rows), condition)

    def interpolate(
        self, x0: ArrayLike, x1: ArrayLike, n: int = 10, *, y: Any = None
    ) -> ArrayOrFrame:
        """Decode codes on the straight line between the codes of two rows.

        Parameters
        ----------
        x0 : array-like of shape (n_features,) or (1, n_features)
            Row whose code is the start of the line.
        x1 : array-like of shape (n_features,) or (1, n_features)
            Row whose code is the end of the line.
        n : int, default=10
            Number of equally spaced codes, including both ends.
        y : scalar or array-like of shape (n,) or (n, n_targets), default=None
            Targets of a conditional model, as in `inverse_transform`.

        Returns
        -------
        X_path : ndarray of shape (n, n_features)
            The decoded codes. `set_output` makes them a data frame with the columns of the
            training data.

        Raises
        ------
        ValueError
            If `n` is less than 2, if `x0` or `x1` is not a single row, or if `y` is not what the
            model was fitted with.
        """
        check_is_fitted(self)
        Z = self._line(x0, x1, n)
        return self._rows_out(self._decode(Z, self._condition_of(y, len(Z))))

    def traverse(
        self, x: ArrayLike, component: int, values: ArrayLike, *, y: Any = None
    ) -> ArrayOrFrame:
        """Decode the code of a row while one component of the code takes given values.

        Parameters
        ----------
        x : array-like of shape (n_features,) or (1, n_features)
            Row to encode.
        component : int
            Index of the component that changes, from 0.
        values : array-like of shape (n_values,)
            Values of this component.
        y : scalar or array-like of shape (n_values,) or (n_values, n_targets), default=None
            Targets of a conditional model, as in `inverse_transform`.

        Returns
        -------
        X_path : ndarray of shape (n_values, n_features)
            The decoded codes. `set_output` makes them a data frame with the columns of the
            training data.

        Raises
        ------
        ValueError
            If the code has no component `component`, if `values` is not a list of finite
            numbers, if `x` is not a single row, or if `y` is not what the model was fitted with.
        """
        check_is_fitted(self)
        Z = self._replaced(x, component, values)
        return self._rows_out(self._decode(Z, self._condition_of(y, len(Z))))

    def sample(
        self,
        n_samples: int = 1,
        *,
        y: Any = None,
        noise: bool = True,
        random_state: RandomState = None,
    ) -> ArrayOrFrame:
        """Draw new rows from p(z) p(x|z), or from p(z) p(x|z, y).

        Parameters
        ----------
        n_samples : int, default=1
            Number of rows to draw.
        y : scalar or array-like of shape (n_samples,) or (n_samples, n_targets), default=None
            Targets of a conditional model: one for each row, or a single one for all. With None,
            labels are drawn by their frequencies in training.
        noise : bool, default=True
            Whether to draw from p(x|z). With False, the rows are the means of p(x|z).
        random_state : int, RandomState instance or None, default=None
            Seed of the draw. With None, every call draws other rows.

        Returns
        -------
        X_new : ndarray of shape (n_samples, n_features)
            The drawn rows. `set_output` makes them a data frame with the columns of the
            training data.

        Raises
        ------
        ValueError
            If `n_samples` is not a positive integer, or if `y` is not what the model was fitted
            with.

        Examples
        --------
        >>> from sklearn.datasets import load_digits
        >>> from skae import VAE
        >>> X, y = load_digits(return_X_y=True)
        >>> vae = VAE(4, conditional=True, max_iter=5, random_state=0).fit(X, y)
        >>> vae.sample(5, y=3, random_state=0).shape
        (5, 64)
        """
        self._check_sample_arguments(n_samples, noise)
        condition = self._condition_of(y, n_samples)
        rows = self._draw(n_samples, private_generator(random_state), noise, condition)
        return self._rows_out(rows)

    # --------------------------------------------------------------------- density

    def score(self, X: ArrayLike, y: Any = None, sample_weight: ArrayLike | None = None) -> float:
        """Mean score of the rows. Searches over parameters maximise it.

        Parameters
        ----------
        X : array-like of shape (n_samples, n_features)
            Rows to score, of the same types as in `fit`.
        y : array-like of shape (n_samples,) or (n_samples, n_targets), default=None
            Targets of a conditional model, as in `score_samples`. Other models ignore them.
        sample_weight : array-like of shape (n_samples,), default=None
            Weights of the rows in the mean.

        Returns
        -------
        score : float
            Mean of `score_samples`, in nats per row.
        """
        check_is_fitted(self)
        scores = self.score_samples(X, y if self._architecture.conditional else None)
        return float(np.average(scores, weights=check_weight(sample_weight, scores)))
