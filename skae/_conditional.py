"""Models that may learn p(x|z,y): public methods that take what is conditioned on."""

from abc import abstractmethod
from collections.abc import Callable
from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray
from sklearn.utils.validation import check_is_fitted
from torch import Tensor

from skae._latent_paths import LatentPathsMixin
from skae._linear.running import running_frequencies
from skae._modules.conditioning import Labels, Numbers, check_condition, condition_of
from skae._training.data import Data
from skae._utils.inputs import as_numbers
from skae._utils.validation import check_weight, private_generator

Array = NDArray[Any]


class ConditionalMixin(LatentPathsMixin):
    """Decoding, paths and sampling beside targets, of models with a parameter `conditional`.

    Attributes
    ----------
    classes_ : ndarray of shape (n_classes,)
        The labels, where targets are labels.
    class_prior_ : ndarray of shape (n_classes,)
        Their frequencies in training.
    target_mean_ : ndarray of shape (n_targets,)
        Means of the targets, where these are numbers.
    target_scale_ : ndarray of shape (n_targets,)
        Their standard deviations.
    """

    conditional: bool
    classes_: Array
    class_prior_: Array
    target_mean_: Array
    target_scale_: Array
    _architecture: Any
    _map_codes: Callable[..., Array]

    # ---------------------------------------------------------------- the hooks

    @abstractmethod
    def _decode(self, Z: Array, condition: NDArray[np.float32] | None = None) -> Array:
        """Mean of p(x|z,y), or over all labels."""

    @abstractmethod
    def _draw(
        self,
        n_samples: int,
        rng: np.random.RandomState,
        noise: bool,
        condition: NDArray[np.float32] | None = None,
    ) -> Array:
        """New rows from p(z) p(x|z,y), or of labels by their frequencies."""

    @abstractmethod
    def score_samples(self, X: ArrayLike, y: Any = None) -> Array:
        """Nats of rows beside targets."""

    # -------------------------------------------------------------------- learning

    def _check_targets(self, y: Any, n_rows: int) -> Array | None:
        if not self.conditional:
            return None
        if y is None:
            raise ValueError(
                "y is None, but conditional=True learns p(x|z,y): give labels or numbers."
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
        """How often each label was seen; in a stream a running mean."""
        if data.condition is None or not hasattr(self, "classes_"):
            return
        w = np.ones(len(data.X)) if data.weight is None else data.weight
        now = w @ data.condition / w.sum()
        self.class_prior_ = running_frequencies(vars(self).get("class_prior_"), now, weight)

    def _condition(self) -> Labels | Numbers:
        """What the fitted model is conditioned on."""
        if hasattr(self, "classes_"):
            return Labels(self.classes_)
        return Numbers(self.target_mean_, self.target_scale_)

    def _condition_of(self, y: Any, n_rows: int) -> NDArray[np.float32] | None:
        """What is conditioned on: the rows' own targets, or one for all; None for all labels."""
        if not self._architecture.conditional:
            if y is None:
                return None
            raise ValueError("y is given, but the model was fitted with conditional=False.")
        condition = self._condition()
        if y is None:
            if isinstance(condition, Labels):
                return None
            raise ValueError(
                "y is None, but the model was fitted on p(x|z,y) with numbers for y, which cannot "
                "be summed over: give y. Labels may be left out."
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
        """Labels by their frequencies, where there are some."""
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
        """As `_map_codes`, of a function of codes and what they are conditioned on."""
        if condition is None:
            return self._map_codes(Z, lambda z: compute(z, None))
        k = Z.shape[1]
        both = np.hstack([Z.astype(np.float32), condition])
        return self._map_codes(both, lambda row: compute(row[:, :k], row[:, k:]))

    # ------------------------------------------------------------------ generation

    def inverse_transform(self, X: ArrayLike, y: Any = None) -> Any:
        """Decode codes to the mean of p(x|z), or of p(x|z,y).

        Parameters
        ----------
        X : array-like of shape (n_samples, n_components)
            Codes, as `transform` returns them.
        y : scalar or array-like of shape (n_samples,) or (n_samples, n_targets), default=None
            For a conditional model: what to condition on, one for all codes or one for
            each. None takes the mean over all labels by their frequencies.

        Returns
        -------
        X_decoded : ndarray of shape (n_samples, n_features)
            One row per code; a data frame with the columns of the training data under
            `set_output`.

        Raises
        ------
        ValueError
            If `X` has not one column per code, or `y` does not fit the model.
        """
        Z = self._check_codes(X)
        return self._rows_out(self._decode(Z, self._condition_of(y, len(Z))), beside=X)

    def reconstruct(self, X: ArrayLike, y: Any = None) -> Any:
        """Encode rows and decode their codes.

        Parameters
        ----------
        X : array-like of shape (n_samples, n_features)
            Rows to reconstruct.
        y : scalar or array-like of shape (n_samples,) or (n_samples, n_targets), default=None
            As in `inverse_transform`.

        Returns
        -------
        X_reconstructed : ndarray of shape (n_samples, n_features)
            `inverse_transform(transform(X), y)`, without NaN; a data frame with the columns
            of the training data under `set_output`.

        Raises
        ------
        ValueError
            If `y` does not fit the model.
        """
        return self._rows_out(self._reconstructed(X, y), like=X)

    def _reconstructed(self, X: ArrayLike, y: Any = None) -> Any:
        rows = self._check_new_rows(X, "reconstruct")
        condition = self._condition_of(y, len(rows))
        return self._decode(self._encode(rows), condition)

    def interpolate(self, x0: ArrayLike, x1: ArrayLike, n: int = 10, *, y: Any = None) -> Any:
        """Decode codes on the straight line between the codes of two rows.

        Parameters
        ----------
        x0 : array-like of shape (n_features,) or (1, n_features)
            The row whose code the line starts at.
        x1 : array-like of shape (n_features,) or (1, n_features)
            The row whose code it ends at.
        n : int, default=10
            How many codes, equally spaced, both ends included.
        y : scalar or array-like of shape (n,) or (n, n_targets), default=None
            As in `inverse_transform`.

        Returns
        -------
        X_path : ndarray of shape (n, n_features)
            The decoded codes; a data frame with the columns of the training data under
            `set_output`.

        Raises
        ------
        ValueError
            If `n` is less than 2, `x0` or `x1` is no row, or `y` does not fit the model.
        """
        check_is_fitted(self)
        Z = self._line(x0, x1, n)
        return self._rows_out(self._decode(Z, self._condition_of(y, len(Z))))

    def traverse(self, x: ArrayLike, component: int, values: ArrayLike, *, y: Any = None) -> Any:
        """Decode the code of a row with one of its numbers replaced by others.

        Parameters
        ----------
        x : array-like of shape (n_features,) or (1, n_features)
            The row.
        component : int
            Which number of its code, from 0.
        values : array-like of shape (n_values,)
            What it becomes, in turn.
        y : scalar or array-like of shape (n_values,) or (n_values, n_targets), default=None
            As in `inverse_transform`.

        Returns
        -------
        X_path : ndarray of shape (n_values, n_features)
            The decoded codes; a data frame with the columns of the training data under
            `set_output`.

        Raises
        ------
        ValueError
            If there is no such component, `values` are no list of finite numbers, `x` is
            no row, or `y` does not fit the model.
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
        random_state: int | np.random.RandomState | None = None,
    ) -> Any:
        """Draw new rows from p(z) p(x|z), or p(z) p(x|z,y).

        Parameters
        ----------
        n_samples : int, default=1
            How many rows to draw.
        y : scalar or array-like of shape (n_samples,) or (n_samples, n_targets), default=None
            For a conditional model: what to condition on, one for all rows or one for
            each. None draws labels by their frequencies.
        noise : bool, default=True
            Draw from p(x|z); False returns its means, without the noise.
        random_state : int, RandomState instance or None, default=None
            Seed of the draw. None takes fresh entropy, so that two calls differ.

        Returns
        -------
        X_new : ndarray of shape (n_samples, n_features)
            The drawn rows; a data frame with the columns of the training data under
            `set_output`.

        Raises
        ------
        ValueError
            If `n_samples` is not a positive integer, or `y` does not fit the model.

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
        """Mean of `score_samples`, so that a grid search maximises it.

        Parameters
        ----------
        X : array-like of shape (n_samples, n_features)
            Rows to score.
        y : array-like of shape (n_samples,) or (n_samples, n_targets), default=None
            For a conditional model as in `score_samples`; ignored by others.
        sample_weight : array-like of shape (n_samples,), default=None
            Weights of the rows in the mean.

        Returns
        -------
        score : float
            Nats per row.
        """
        check_is_fitted(self)
        scores = self.score_samples(X, y if self._architecture.conditional else None)
        return float(np.average(scores, weights=check_weight(sample_weight, scores)))
