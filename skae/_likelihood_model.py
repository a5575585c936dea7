"""Models whose score is an exact log-likelihood: their AIC and BIC."""

from abc import abstractmethod
from math import log
from typing import Any

import numpy as np
from numpy.typing import ArrayLike

from skae._base import BaseAutoencoder
from skae._linear.moments import count_rows
from skae._utils.validation import check_weight


class LikelihoodModel(BaseAutoencoder):
    """A model with an exact log density and a number of free parameters."""

    score_kind = "log_likelihood"

    @abstractmethod
    def _n_free_parameters(self) -> int:
        """Of the fitted model."""

    def aic(self, X: ArrayLike, sample_weight: ArrayLike | None = None) -> float:
        """Akaike's criterion on rows; lower is better.

        Parameters
        ----------
        X : array-like of shape (n_samples, n_features)
            Rows, as `score_samples` takes them: sparse ones where it does.
        sample_weight : array-like of shape (n_samples,), default=None
            How often each row counts.

        Returns
        -------
        aic : float
            -2 log-likelihood + 2 free parameters, so that twice a nat is 1.
        """
        total, _ = self._total_score(X, sample_weight)
        return -2 * total + 2 * self._n_free_parameters()

    def bic(self, X: ArrayLike, sample_weight: ArrayLike | None = None) -> float:
        """Schwarz's criterion on rows; lower is better.

        Parameters
        ----------
        X : array-like of shape (n_samples, n_features)
            Rows, as `score_samples` takes them: sparse ones where it does.
        sample_weight : array-like of shape (n_samples,), default=None
            How often each row counts.

        Returns
        -------
        bic : float
            -2 log-likelihood + log(n_samples) free parameters.
        """
        total, n = self._total_score(X, sample_weight)
        return -2 * total + log(n) * self._n_free_parameters()

    def _total_score(self, X: Any, sample_weight: Any | None) -> tuple[float, float]:
        """Log-likelihood of all rows, nats, and their number."""
        scores = np.asarray(self.score_samples(X), dtype=np.float64)
        weight = check_weight(sample_weight, scores)
        total = scores.sum() if weight is None else weight @ scores
        return float(total), count_rows(scores, weight)
