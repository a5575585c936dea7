"""Queries of a linear-Gaussian model: codes, densities, draws and imputations of rows."""

from __future__ import annotations

from numbers import Integral
from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray
from scipy import sparse
from sklearn.utils.validation import check_is_fitted

from skae._likelihood_model import LikelihoodModel
from skae._linear.completions import completions, completions_of_uncertain, moments_of_codes
from skae._linear.incomplete_rows import blocks, group_rows, has_nan
from skae._linear.linear_gaussian import (
    LinearGaussian,
    Uncertainty,
    encoder_of,
    log_likelihood,
    posterior,
)
from skae._linear.loadings_prior import drawn_models
from skae._linear.low_rank_gaussian import draw, log_density, precision, whitened
from skae._truncation import TruncationMixin
from skae._utils.inputs import naming, of_tensor
from skae._utils.types import ArrayOrFrame, RandomState
from skae._utils.validation import Interval, private_generator
from skae._utils.warning import ignoring

Array = NDArray[Any]


class GaussianQueries(TruncationMixin, LikelihoodModel):
    """A fitted N(W z + mu, Psi) with z ~ N(0, I), where Psi is diagonal."""

    loadings_: Array
    mean_: Array
    axes_: Array
    noise_variance_: float | Array
    relevance_: Array
    n_samples_: float

    # The rotation of the loadings from principal axes, and with a prior the posterior covariance
    # of loadings and mean divided by the noise variances; see `Uncertainty`.
    _rotation: Array | None
    _spread: Array | None

    def _encode(self, X: Any) -> Array:
        if has_nan(X):
            codes = np.empty((X.shape[0], self.n_components_), dtype=self._dtype_for(X))
            for index, _, found in self._inferred(X):
                codes[index] = found.mean.T
            return codes
        encoder, code_of_zero = self._encoder()
        return X @ encoder + code_of_zero

    def _encoder(self) -> tuple[Array, Array]:
        """A matrix (D, k) and a vector (k,), which map complete rows to codes."""
        if self._is_principal:
            # W'W and M are diagonal. The entries of M are the variances along the axes.
            encoder = self.loadings_ / self._variances
            return encoder, -(self.mean_ @ encoder)
        encoder, _, code = encoder_of(self._model())
        encoder, code = encoder.astype(self.mean_.dtype), code.astype(self.mean_.dtype)
        return encoder, code - self.mean_ @ encoder

    def _decode(self, Z: Array) -> Array:
        return Z @ self.loadings_.T + self.mean_

    def _log_prob(self, X: Any) -> Array:
        if not has_nan(X):
            return log_density(X, *self._gaussian())
        nats = np.empty(X.shape[0], dtype=self._dtype_for(X))
        model = self._model()._replace(uncertainty=None)
        for index, block, found in self._inferred(X, model):
            nats[index] = log_likelihood(block, model, found)
        return nats

    def _draw(self, n_samples: int, rng: np.random.RandomState, noise: bool) -> Array:
        if self._is_principal:
            variance = float(self.noise_variance_) if noise else 0.0
            rows = draw(n_samples, rng, self.mean_, self.axes_, self._signal, variance)
        else:
            rows = self._decode(rng.standard_normal((n_samples, self.n_components_)))
            if noise:
                rows = rows + np.sqrt(self.noise_variance_) * rng.standard_normal(rows.shape)
        return rows.astype(self.mean_.dtype)

    def sample(
        self,
        n_samples: int = 1,
        *,
        given: ArrayLike | None = None,
        noise: bool = True,
        random_state: RandomState = None,
    ) -> ArrayOrFrame:
        """Draw new rows from the model, or draw the missing values of a given row.

        With a prior of the loadings, new rows are drawn at the posterior means of loadings and
        mean. If `given` has missing values, each of its completions has loadings and a mean of its
        own, drawn from their posterior.

        Parameters
        ----------
        n_samples : int, default=1
            Number of rows to draw.
        given : array-like of shape (n_features,) or (1, n_features), default=None
            A row with NaN for its missing values. They are drawn from their distribution given the
            other values of the row. With None, whole rows are drawn.
        noise : bool, default=True
            Whether to draw from p(x|z). With False, the rows are the means of p(x|z).
        random_state : int, RandomState instance or None, default=None
            Seed of the draw. With None, every call draws other rows.

        Returns
        -------
        X_new : ndarray of shape (n_samples, n_features)
            The drawn rows, with the values that `given` has. `set_output` makes them a data frame.

        Raises
        ------
        ValueError
            If `n_samples` is not a positive integer, or if `given` is not one row.
        TypeError
            If `given` is sparse.
        """
        if given is None:
            return super().sample(n_samples, noise=noise, random_state=random_state)
        self._check_sample_arguments(n_samples, noise)
        if sparse.issparse(given):
            raise TypeError("given must be a dense row, got a sparse one. Use given.toarray().")
        if hasattr(given, "index") and hasattr(given, "to_frame"):  # a row of a data frame
            given = given.to_frame().T
        given = of_tensor(given, "given")
        with ignoring("X does not have valid feature names"), naming("given"):
            if np.ndim(given) == 1:  # a plain row need not have names
                given = np.asanyarray(given)[None, :]  # a masked array keeps its mask
            row = self._check_new_rows(given, "sample")
        if row.shape[0] != 1:
            raise ValueError(f"given must be one row, got {row.shape[0]} rows.")
        rng = private_generator(random_state)
        draws = self._conditional_draws(row, n_samples, rng, noise)[:, 0, :]
        return self._to_frame(draws)

    def posterior(self, X: ArrayLike) -> tuple[Array, Array]:
        """Return the means and the covariances of p(z|x).

        With a prior of the loadings, they are those of q(z), the approximate posterior of the
        codes. Its precision contains the uncertainty of the loadings.

        Parameters
        ----------
        X : {array-like, sparse matrix} of shape (n_samples, n_features)
            Rows. NaN marks a missing value; the posterior is then given the observed values.

        Returns
        -------
        means : ndarray of shape (n_samples, n_components_)
            Posterior means, as `transform` returns them.
        covariances : ndarray of shape (n_samples, n_components_, n_components_)
            Posterior covariances. Complete rows have the same covariance. If no row has NaN, the
            array is a read-only view of this one matrix.
        """
        return self._posterior(self._check_new_rows(X, "posterior"))

    def impute(
        self,
        X: ArrayLike,
        n_draws: int | None = None,
        random_state: RandomState = None,
    ) -> ArrayOrFrame:
        """Fill in missing values.

        Without draws, the values are the reconstruction of the row: W E[z] + mu, where E[z] is the
        mean of the codes given the observed values. With a prior of the loadings, W and mu are
        posterior means, and E[z] is the mean of q(z).

        Parameters
        ----------
        X : array-like of shape (n_samples, n_features)
            Rows with NaN for missing values.
        n_draws : int, default=None
            Number of imputations to draw for multiple imputation. Missing values are drawn from
            their distribution given the observed values, including noise. With a prior of the
            loadings, each of the `n_draws` completions of all rows has loadings and a mean of its
            own, drawn from their posterior. None fills in the conditional means.
        random_state : int, RandomState instance or None, default=None
            Seed of the draws. With None, every call draws other values.

        Returns
        -------
        X_imputed : ndarray of shape (n_samples, n_features), or \
                (n_draws, n_samples, n_features)
            The rows with every NaN replaced. Observed values are not changed. `set_output` makes
            conditional means a data frame; without it they are an array, also if `X` is a data
            frame. Draws are always an array.

        Raises
        ------
        ValueError
            If `n_draws` is not a positive integer or None.
        TypeError
            If `X` is sparse.
        """
        self._check_argument("n_draws", n_draws, [Interval(Integral, 1, None, closed="left"), None])
        rows = self._check_new_rows(X, "impute")
        if sparse.issparse(rows):
            raise TypeError("X must be dense rows for impute, got a sparse matrix.")
        if n_draws is None:
            return self._to_frame(
                np.where(np.isnan(rows), self._decode(self._encode(rows)), rows), X
            )
        return self._conditional_draws(rows, n_draws, private_generator(random_state), True)

    def get_covariance(self) -> Array:
        """Return the covariance of p(x), W W' + Psi.

        With a prior of the loadings, W holds their posterior means.

        Returns
        -------
        covariance : ndarray of shape (n_features, n_features)
            The covariance, with 1/n, as in the likelihood.
        """
        check_is_fitted(self)
        covariance = self.loadings_ @ self.loadings_.T
        covariance[np.diag_indices_from(covariance)] += self.noise_variance_
        return covariance

    def get_precision(self) -> Array:
        """Return the inverse of `get_covariance`, by the matrix inversion lemma.

        Returns
        -------
        precision : ndarray of shape (n_features, n_features)
            The inverse of the covariance.
        """
        check_is_fitted(self)
        _, axes, variances, noise, scales = self._gaussian()
        found: Array = precision(axes, variances, noise)
        return found if scales is None else found / np.outer(scales, scales)

    # ------------------------------------------------------------------ helpers

    def _posterior(self, X: Any) -> tuple[Array, Array]:
        shape = (X.shape[0], self.n_components_, self.n_components_)
        if has_nan(X):
            return moments_of_codes(self._inferred(X), shape, self._dtype_for(X))
        if self._is_principal:
            shared = np.diag(self.noise_variance_ / self._variances)
        else:
            shared = encoder_of(self._model())[1]
        return self._encode(X), np.broadcast_to(shared.astype(self.mean_.dtype), shape)

    def _conditional_draws(
        self, X: Array, n_draws: int, rng: np.random.RandomState, noise: bool
    ) -> Array:
        """Draws (n_draws, n, D) of the rows from p(missing values | observed values)."""
        draws = np.tile(X, (n_draws, 1, 1))
        if not (some := np.isnan(X).any(axis=1)).any():
            return draws
        incomplete, model = X[some], self._model()
        if model.uncertainty is None:
            variance = self.noise_variance_ if noise else None
            codes = self._posterior(incomplete)
            found = completions(incomplete, *codes, self._decode, variance, n_draws, rng)
        else:
            per_feature = np.ndim(self.noise_variance_) > 0
            models = drawn_models(model, self.n_samples_, per_feature, rng)
            found = completions_of_uncertain(incomplete, model, models, n_draws, rng, noise)
        draws[:, some] = found
        return draws

    def _dtype_for(self, X: Any) -> Any:
        """The dtype of products of rows with the loadings."""
        return np.result_type(X.dtype, self.mean_.dtype)

    def _model(self) -> LinearGaussian:
        loadings, mean = (a.astype(np.float64) for a in (self.loadings_, self.mean_))
        psi = np.broadcast_to(np.asarray(self.noise_variance_, dtype=np.float64), mean.shape)
        known = None if self._spread is None else Uncertainty(self._spread, self.relevance_)
        return LinearGaussian(loadings, mean, psi, known)

    def _inferred(self, X: Array, model: LinearGaussian | None = None) -> Any:
        """Posteriors of rows with missing values, by blocks: (indices, block, posterior)."""
        model = model or self._model()
        rows = group_rows(X, None, shift=model.mean)
        for groups, positions in blocks(rows, self.n_components_):
            block = rows.block(groups, positions)
            yield rows.order[positions], block, posterior(block, model)

    def _gaussian(self) -> tuple[Array, Array, Array, float, Array | None]:
        """The arguments of `log_density` after the rows."""
        if np.ndim(self.noise_variance_) == 0:
            return self.mean_, self.axes_, self._variances, float(self.noise_variance_), None
        scales, axes, variances = whitened(self.loadings_, np.asarray(self.noise_variance_))
        return self.mean_, axes, variances, 1.0, scales

    @property
    def _is_principal(self) -> bool:
        """Whether the loadings lie along the principal axes, and all noise variances are equal."""
        is_scalar = np.ndim(self.noise_variance_) == 0
        return is_scalar and self._rotation is None and self._spread is None

    @property
    def _signal(self) -> Array:
        """Variances of W z along the axes (k,), for equal noise variances."""
        if self._is_principal:
            return np.sum(self.loadings_**2, axis=0)
        return np.sum((self.axes_ @ self.loadings_) ** 2, axis=1)

    @property
    def _variances(self) -> Array:
        """Variances of p(x) along the axes (k,), for equal noise variances."""
        return self._signal + self._signal.dtype.type(self.noise_variance_)
