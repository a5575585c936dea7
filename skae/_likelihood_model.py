"""AIC and BIC of models whose score is an exact log-likelihood."""

from __future__ import annotations

from abc import abstractmethod
from math import log
from typing import Any

import numpy as np
from numpy.typing import ArrayLike

from skae._base import BaseAutoencoder
from skae._linear.moments import count_rows
from skae._utils.dask_inputs import is_dask
from skae._utils.validation import check_weight


class LikelihoodModel(BaseAutoencoder):
    """A model with an exact log density and a number of free parameters."""

    score_kind = "log_likelihood"

    @abstractmethod
    def _n_free_parameters(self) -> int:
        """Number of free parameters of the fitted model."""

    def aic(self, X: ArrayLike, sample_weight: ArrayLike | None = None) -> float:
        """Return the Akaike information criterion of the model on rows. Lower is better.

        Parameters
        ----------
        X : array-like of shape (n_samples, n_features)
            Rows, of the same types as in `score_samples`.
        sample_weight : array-like of shape (n_samples,), default=None
            Weights of the rows, as in `fit`.

        Returns
        -------
        aic : float
            -2 times the log-likelihood of all rows in nats, plus 2 times the number of free
            parameters.
        """
        total, _ = self._total_score(X, sample_weight)
        return -2 * total + 2 * self._n_free_parameters()

    def bic(self, X: ArrayLike, sample_weight: ArrayLike | None = None) -> float:
        """Return the Bayesian information criterion of the model on rows. Lower is better.

        Parameters
        ----------
        X : array-like of shape (n_samples, n_features)
            Rows, of the same types as in `score_samples`.
        sample_weight : array-like of shape (n_samples,), default=None
            Weights of the rows, as in `fit`.

        Returns
        -------
        bic : float
            -2 times the log-likelihood of all rows in nats, plus log(n_samples) times the number
            of free parameters.
        """
        total, n = self._total_score(X, sample_weight)
        return -2 * total + log(n) * self._n_free_parameters()

    def _total_score(self, X: Any, sample_weight: Any | None) -> tuple[float, float]:
        """Log-likelihood of all rows in nats, and their number (or the sum of their weights)."""
        if is_dask(X):
            from skae._dask.scoring import mean_score

            mean, n = mean_score(self, X, None, sample_weight)
            return n * mean, n
        scores = np.asarray(self.score_samples(X), dtype=np.float64)
        weight = check_weight(sample_weight, scores)
        total = scores.sum() if weight is None else weight @ scores
        return float(total), count_rows(scores, weight)
