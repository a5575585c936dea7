"""What the latents of a VAE hold: posteriors, the terms of the bound, information."""

from abc import abstractmethod
from math import ceil
from numbers import Integral
from typing import Any

import numpy as np
import torch
from numpy.typing import ArrayLike, NDArray
from sklearn.utils.validation import check_is_fitted

from skae._inference.row_draws import RowDraws
from skae._inference.vae import ElboTerms, elbo_terms, mutual_information
from skae._network_autoencoder import NetworkAutoencoder
from skae._training.data import Data
from skae._utils.validation import Interval
from skae.metrics import active_units

Array = NDArray[Any]

# How many draws may be asked for.
COUNT = Interval(Integral, 1, None, closed="left")
# A latent is active from this variance of E[z|x] on (Burda et al. 2016).
ACTIVE = 0.01
# Expectations over all rows are taken over about this many draws of z.
ALL_DRAWS = 10_000


class LatentInformationMixin(NetworkAutoencoder):
    """What is asked of q(z|x), for models that learn one."""

    @abstractmethod
    def _condition_of(self, y: Any, n_rows: int) -> NDArray[np.float32] | None:
        """What rows are conditioned on."""

    @abstractmethod
    def _row_draws(self, n_draws: int) -> RowDraws:
        """Draws of z for any row, the same in every call."""

    def posterior(self, X: ArrayLike) -> tuple[Array, Array]:
        """Means and standard deviations of q(z|x).

        Parameters
        ----------
        X : array-like of shape (n_samples, n_features)
            Rows.

        Returns
        -------
        means : ndarray of shape (n_samples, n_components)
            As `transform` gives them.
        stds : ndarray of shape (n_samples, n_components)
            Standard deviations.
        """
        check_is_fitted(self)
        module, k = self._trainer.module, self.n_components_
        data = Data(self._check_new_rows(X, "posterior"))
        both = self._map_rows(data, lambda batch: torch.cat(module.encode(batch.x), 1), 2 * k)
        return both[:, :k], np.exp(both[:, k:] / 2)

    def elbo_terms(self, X: ArrayLike, y: Any = None, *, n_draws: int = 100) -> ElboTerms:
        """The two terms of the evidence lower bound, row by row.

        Parameters
        ----------
        X : array-like of shape (n_samples, n_features)
            Rows.
        y : scalar or array-like of shape (n_samples,) or (n_samples, n_targets), default=None
            As in `score_samples`.
        n_draws : int, default=100
            Draws of z that expectations are means over. The divergence
            from N(0, I) needs none.

        Returns
        -------
        terms : ElboTerms
            `reconstruction`, `kl` and `kl_per_latent`, nats.

        Raises
        ------
        ValueError
            As in `score_samples`.
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
        """How many latents say something of these rows.

        Parameters
        ----------
        X : array-like of shape (n_samples, n_features)
            Rows.

        Returns
        -------
        n_active : int
            Latents whose posterior mean varies over the rows, with a variance above 0.01
            (Burda et al. 2016).
        """
        return active_units(self._encode(self._check_new_rows(X, "active_units")), threshold=ACTIVE)

    def mutual_information(self, X: ArrayLike, *, n_draws: int | None = None) -> float:
        """Information that the latents hold about which of these rows they come from.

        It is the mean of KL(q(z|x) || p(z)) over the rows minus KL(q(z) || p(z)), with q(z)
        the mean of q(z|x) over them: what of the divergence buys knowledge of x (Hoffman &
        Johnson 2016). At most the logarithm of the number of rows.

        Parameters
        ----------
        X : array-like of shape (n_samples, n_features)
            Rows. All pairs are compared: time grows with the square of their number.
        n_draws : int, default=None
            Draws of z for each row; None takes as many as make 10,000 in all.

        Returns
        -------
        information : float
            Nats.
        """
        self._check_argument("n_draws", n_draws, [COUNT, None])
        means, stds = self.posterior(X)
        n_draws = n_draws or ceil(ALL_DRAWS / len(means))
        return mutual_information(means, stds, n_draws, np.random.RandomState(self._seed))
