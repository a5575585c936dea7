"""Diagnostics of the latents of a VAE: posteriors, terms of the bound, information."""

from __future__ import annotations

from abc import abstractmethod
from math import ceil
from numbers import Integral
from typing import Any, Self

import numpy as np
import torch
from numpy.typing import ArrayLike, NDArray
from sklearn.utils.validation import check_is_fitted

from skae._inference.row_draws import RowDraws
from skae._inference.vae import ElboTerms, elbo_terms, mutual_information
from skae._linear.moments import moments
from skae._linear.running import running_covariance
from skae._network_autoencoder import NetworkAutoencoder
from skae._training.data import Data, Dataset
from skae._utils.validation import Interval
from skae._utils.warning import warn
from skae.metrics import active_units

Array = NDArray[Any]

# Allowed numbers of draws.
COUNT = Interval(Integral, 1, None, closed="left")
# A latent is active if the variance of E[z|x] is above this value (Burda et al. 2016).
ACTIVE = 0.01
# Approximate number of draws of z in expectations over all rows.
ALL_DRAWS = 10_000


class LatentInformationMixin(NetworkAutoencoder):
    """Methods that describe q(z|x), for models that learn it."""

    beta: float
    beta_warm_up: int
    free_bits: float
    n_importance: int

    # Mean and covariance of the posterior means of the training rows.
    _code_moments: tuple[Array, Array]

    @abstractmethod
    def _condition_of(self, y: Any, n_rows: int) -> NDArray[np.float32] | None:
        """Targets of the rows as the decoder reads them."""

    @abstractmethod
    def _row_draws(self, n_draws: int) -> RowDraws:
        """Draws of z for each row, the same in every call."""

    def _learn_code_moments(self, codes: Array, row_weight: Array | None, weight: float) -> None:
        """Learn from posterior means; `weight` is that of these rows relative to all so far."""
        n, mean, scatter = moments(codes.astype(np.float64), row_weight)
        before = vars(self).get("_code_moments")
        self._code_moments = running_covariance(before, (mean, scatter / n), weight)
        self._count_active_units()

    def _count_active_units(self) -> None:
        self.n_active_units_ = int((np.diag(self._code_moments[1]) > ACTIVE).sum())

    def _check_trained(self, rows: Dataset) -> None:
        super()._check_trained(rows)
        if 2 * self.n_active_units_ >= self.n_components_:
            return
        cures = f"Train longer (now {self.n_iter_} epochs, see max_iter), or lower n_components."
        if self.n_importance == 1:
            cures = (
                f"Lower beta (now {self.beta}), raise beta_warm_up (now {self.beta_warm_up} "
                f"epochs), or raise free_bits (now {self.free_bits}). {cures}"
            )
        if self._architecture.common_total is not None:
            cures = f"{cures} If the totals of the rows explain them, there is nothing to mend."
        warn(
            f"Posterior collapse: {self.n_active_units_} of {self.n_components_} latents are "
            f"active. (The posterior mean of an active latent has a variance above {ACTIVE} over "
            f"the training rows.) {cures}"
        )

    def _moments_of_codes(self) -> tuple[Array, Array] | None:
        return vars(self).get("_code_moments")

    def _keep_codes(self, whole: Self, k: int) -> None:
        mean, covariance = whole._code_moments
        self._code_moments = mean[:k].copy(), covariance[:k, :k].copy()
        self._count_active_units()

    def posterior(self, X: ArrayLike) -> tuple[Array, Array]:
        """Means and standard deviations of q(z|x).

        Parameters
        ----------
        X : array-like of shape (n_samples, n_features)
            Rows to encode.

        Returns
        -------
        means : ndarray of shape (n_samples, n_components)
            Means of q(z|x), as `transform` returns them.
        stds : ndarray of shape (n_samples, n_components)
            Standard deviations of q(z|x).
        """
        check_is_fitted(self)
        module, k = self._trainer.module, self.n_components_
        data = Data(self._check_new_rows(X, "posterior"))
        both = self._map_rows(data, lambda batch: torch.cat(module.encode(batch.x), 1), 2 * k)
        return both[:, :k], np.exp(both[:, k:] / 2)

    def elbo_terms(self, X: ArrayLike, y: Any = None, *, n_draws: int = 100) -> ElboTerms:
        """The two terms of the evidence lower bound of each row.

        Parameters
        ----------
        X : array-like of shape (n_samples, n_features)
            Rows to evaluate.
        y : scalar or array-like of shape (n_samples,) or (n_samples, n_targets), default=None
            Targets of a conditional model, as in `score_samples`.
        n_draws : int, default=100
            Number of draws of z for each row, over which expectations are averaged. The KL
            divergence from N(0, I) is exact and needs no draws.

        Returns
        -------
        terms : ElboTerms
            Named tuple of `reconstruction` (E_q log p(x|z)), `kl` and `kl_per_latent`, in nats.
            The bound is reconstruction - kl.

        Raises
        ------
        ValueError
            For the same reasons as in `score_samples`.
        """
        rows = self._check_new_rows(X, "elbo_terms")
        self._check_argument("n_draws", n_draws, [COUNT])
        self._check_range(rows)
        data = Data(rows, None, self._condition_of(y, len(rows)))
        with self._trainer.inference(len(rows) * n_draws):
            draws = self._row_draws(n_draws)
            terms = elbo_terms(self._trainer.module, self._dataset(data), draws)
        return ElboTerms(terms[:, 0], terms[:, 1:].sum(1), terms[:, 1:])

    def active_units(self, X: ArrayLike) -> int:
        """Number of latents that are active for these rows.

        Parameters
        ----------
        X : array-like of shape (n_samples, n_features)
            Rows to encode.

        Returns
        -------
        n_active : int
            Number of latents whose posterior mean has a variance above 0.01 over the rows (Burda
            et al. 2016).

        Raises
        ------
        ValueError
            If `X` has only one row.
        """
        rows = self._check_new_rows(X, "active_units")
        if rows.shape[0] < 2:
            raise ValueError("X has one row; the variance of codes needs at least two rows.")
        return active_units(self._encode(rows), threshold=ACTIVE)

    def mutual_information(self, X: ArrayLike, *, n_draws: int | None = None) -> float:
        """Mutual information of the rows and their latents.

        The mutual information is the mean of KL(q(z|x) || p(z)) over the rows minus KL(q(z) ||
        p(z)), where q(z) is the mean of q(z|x) over the rows (Hoffman & Johnson 2016). It measures
        how well the latents identify the row that they were drawn for, and is at most the logarithm
        of the number of rows.

        Parameters
        ----------
        X : array-like of shape (n_samples, n_features)
            Rows to encode. All pairs of rows are compared, so that the running time grows with
            the square of their number.
        n_draws : int, default=None
            Number of draws of z for each row. None takes as many as make 10,000 in total.

        Returns
        -------
        information : float
            Estimate of the mutual information, in nats.
        """
        # Draws are made one after the other, so that no lack of memory ends too many of them.
        few = Interval(Integral, 1, 2**31 - 1, closed="both")
        self._check_argument("n_draws", n_draws, [few, None])
        means, stds = self.posterior(X)
        if len(means) == 1:  # q(z) is q(z|x)
            return 0.0
        n_draws = n_draws or ceil(ALL_DRAWS / len(means))
        return mutual_information(means, stds, n_draws, np.random.RandomState(self._seed))

    def __setstate__(self, state: dict[str, Any]) -> None:
        super().__setstate__(state)
        mean, covariance = vars(self).get("_code_moments", (None, np.zeros((0, 0))))
        if covariance.ndim == 1:  # earlier files have the variances only
            unknown = np.full((len(covariance), len(covariance)), np.nan)
            np.fill_diagonal(unknown, covariance)
            self._code_moments = mean, unknown
