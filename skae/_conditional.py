"""Methods with targets y, for models that can learn p(x|z, y)."""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Callable
from typing import Any, Literal

import numpy as np
import torch
from numpy.typing import ArrayLike, NDArray
from sklearn.utils.validation import check_is_fitted
from torch import Tensor

from skae._inference.bounds import RowLikelihood
from skae._latent_paths import LatentPathsMixin
from skae._linear.running import running_frequencies
from skae._modules.conditioning import Condition, Labels, Numbers, Several, condition_of
from skae._modules.targets import check_condition
from skae._training.data import Data
from skae._utils.types import ArrayOrFrame, RandomState
from skae._utils.validation import average, check_weight, private_generator

Array = NDArray[Any]


class ConditionalMixin(LatentPathsMixin):
    """Decoding, paths and sampling given targets, for models with a parameter `conditional`.

    Attributes
    ----------
    classes_ : ndarray of shape (n_classes,), or list of ndarray
        Labels, if the targets are labels; with several columns, those of each column of labels.
    class_prior_ : ndarray of shape (n_classes,) or (n_combinations,)
        Frequencies of the labels in training; with several columns, of their combinations. It does
        not exist if the targets contain numbers.
    class_combinations_ : ndarray of shape (n_combinations, n_targets)
        Combinations of labels that occurred in training, if there are several columns of labels.
    target_mean_ : ndarray of shape (n_targets,)
        Means of the targets that are numbers.
    target_scale_ : ndarray of shape (n_targets,)
        Standard deviations of the targets that are numbers.
    target_names_ : ndarray of shape (n_targets,)
        Names of the columns of targets, if they were several columns of a data frame.
    """

    conditional: bool
    classes_: Array | list[Array]
    class_prior_: Array
    class_combinations_: Array
    target_mean_: Array
    target_scale_: Array
    target_names_: Array
    _label_columns: tuple[int, ...]  # positions of the labels among several columns
    _architecture: Any
    _map_codes: Callable[..., Array]
    _asks_for_row_sizes: Callable[[object], bool]
    _reconstructed_at_sizes: Callable[[Data], Array]
    _trainer: Any

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
    def _log_prob(self, X: Array, condition: NDArray[np.float32] | None = None) -> Array:
        """Scores log p(x|y) in nats; without a condition, of log p(x)."""

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
        elif isinstance(condition, Several):
            self.classes_, self._label_columns = condition.classes, condition.label_columns
        if not isinstance(condition, Labels):
            if len(condition.mean):
                self.target_mean_, self.target_scale_ = condition.mean, condition.scale
            if condition.names is not None:
                self.target_names_ = np.array(condition.names, dtype=object)
        if previous is not None and hasattr(previous, "class_prior_"):
            self.class_prior_ = previous.class_prior_
            if isinstance(condition, Several):
                self.class_combinations_ = previous.class_combinations_
        return condition.columns(y)

    def _learn_label_frequencies(self, data: Data, weight: float) -> None:
        """Learn the frequencies of labels or their combinations; in a stream as running means."""
        if data.condition is None or hasattr(self, "target_mean_"):
            return
        condition, before = self._condition(), vars(self).get("class_prior_")
        w = np.ones(len(data.X)) if data.weight is None else data.weight
        if not isinstance(condition, Several):
            now = w @ data.condition / w.sum()
            self.class_prior_ = running_frequencies(before, now, weight)
        else:
            codes, which = np.unique(condition.codes(data.condition), axis=0, return_inverse=True)
            now = np.bincount(which.ravel(), w) / w.sum()
            if before is not None and weight < 1:
                known = condition.codes_of(self.class_combinations_)
                codes, which = np.unique(np.vstack([known, codes]), axis=0, return_inverse=True)
                earlier, later = np.split(which.ravel(), [len(known)])
                before, now = (
                    np.bincount(places, shares, minlength=len(codes))
                    for places, shares in ((earlier, before), (later, now))
                )
            self.class_prior_ = running_frequencies(before, now, weight)
            self.class_combinations_ = condition.labels(codes)
        self._set_label_frequencies()

    def _set_label_frequencies(self) -> None:
        """Set the frequencies of labels or their combinations in the module."""
        condition = self._condition()
        with np.errstate(divide="ignore"):  # a label that is absent from the rows of a later fit
            log_frequency = np.log(self.class_prior_)
        module = self._trainer.module
        if isinstance(condition, Several):
            indicators = condition.indicators(condition.codes_of(self.class_combinations_))
            parts = indicators, log_frequency.astype(np.float32)
            module.combinations = tuple(map(torch.from_numpy, parts))
        else:
            module.set_label_frequencies(log_frequency)

    def _log_prob_given(self, X: Array, y: Array | None) -> Array:
        """Scores of rows, given validated targets; of log p(x) without targets."""
        return self._log_prob(X, None if y is None else self._condition().columns(y))

    def _condition(self) -> Condition:
        """Targets of the fitted model: labels, numbers, or several columns with labels."""
        known = vars(self)
        names = tuple(known["target_names_"]) if "target_names_" in known else None
        mean, scale = (
            known.get("target_mean_", np.empty(0)),
            known.get("target_scale_", np.empty(0)),
        )
        if "_label_columns" in known:
            classes, positions = list(self.classes_), tuple(self._label_columns)
            return Several(classes, positions, mean, scale, names)
        if "classes_" in known:
            return Labels(np.asarray(self.classes_))
        return Numbers(mean, scale, names)

    def _condition_of(self, y: Any, n_rows: int) -> NDArray[np.float32] | None:
        """Targets as columns for the decoder; None for unconditional models or all labels."""
        if not self._architecture.conditional:
            if y is None:
                return None
            raise ValueError("y is given, but the model was fitted with conditional=False.")
        if y is not None:
            return self._condition().of(y, n_rows)
        if hasattr(self, "target_mean_"):
            raise ValueError(
                "y is None, but the model was fitted with numbers as targets: give y. (Only models "
                "fitted with labels can average over all targets.)"
            )
        return None

    def _drawn_labels(
        self, n_samples: int, rng: np.random.RandomState
    ) -> NDArray[np.float32] | None:
        """Draw labels by their frequencies; None if the targets are not labels."""
        if not hasattr(self, "class_prior_"):
            return None
        which = rng.choice(len(self.class_prior_), n_samples, p=self.class_prior_)
        condition = self._condition()
        if isinstance(condition, Several):
            return condition.indicators(condition.codes_of(self.class_combinations_)[which])
        return np.eye(len(self.class_prior_), dtype=np.float32)[which]

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

    def __setstate__(self, state: dict[str, Any]) -> None:
        super().__setstate__(state)
        if "class_combinations_" in state:
            self._set_label_frequencies()

    # ------------------------------------------------------------------ generation

    def inverse_transform(self, X: ArrayLike, y: Any = None) -> ArrayOrFrame:
        """Decode codes to the mean of p(x|z), or of p(x|z, y).

        Parameters
        ----------
        X : array-like of shape (n_samples, n_components)
            Codes, as `transform` returns them.
        y : scalar or array-like of shape (n_samples,) or (n_samples, n_targets), default=None
            Targets of a conditional model: one for each row of codes, or a single one for all.
            If `fit` was given several columns, a single one is a tuple with a value for each
            column, a mapping from the names of the columns to values, or a row of a data frame.
            Columns of a data frame are found by their names. With None, the result is the mean
            over all labels, or over the combinations of labels that occurred in training,
            weighted by their frequencies.

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
            Targets of a conditional model: one for each row, or a single one for all, as in
            `inverse_transform`. With None, labels (or combinations of labels) are drawn by their
            frequencies in training.
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

        With several columns of labels, such as batches and donors:

        >>> import pandas as pd
        >>> labels = pd.DataFrame({"batch": ["a", "b", "b"] * 599, "donor": y.astype(str)})
        >>> vae = VAE(4, conditional=True, max_iter=5, random_state=0).fit(X, labels)
        >>> vae.sample(5, y={"batch": "b", "donor": "3"}, random_state=0).shape
        (5, 64)
        >>> vae.sample(5, y=("b", "3"), random_state=0).shape
        (5, 64)
        """
        self._check_sample_arguments(n_samples, noise)
        condition = self._condition_of(y, n_samples)
        rows = self._draw(int(n_samples), private_generator(random_state), noise, condition)
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
        return float(average(scores, weights=check_weight(sample_weight, scores)))

    def _row_likelihood(self) -> RowLikelihood | None:
        fitted: Any = getattr(self, "_architecture", self)
        return None if fitted.conditional else RowLikelihood(self)

    def __sklearn_tags__(self) -> Any:
        tags = super().__sklearn_tags__()
        tags.target_tags.required = self.conditional
        return tags
