"""Lower bounds on log p(x), for models that encode a row as one code and have a p(z)."""

from __future__ import annotations

from abc import abstractmethod
from numbers import Integral
from typing import Any

from numpy.typing import ArrayLike, NDArray
from sklearn.utils.validation import check_is_fitted

from skae._base import BaseAutoencoder
from skae._inference.bounds import LogPrior, Proposal, RowLikelihood, bounds
from skae._utils.availability import silent_available_if
from skae._utils.validation import Interval

Array = NDArray[Any]


def _scores_data(model: DataScoresMixin) -> bool:
    model._check_scores_data()
    return True


class DataScoresMixin(BaseAutoencoder):
    """`data_score_samples`, for models that encode a row as one code, without a distribution."""

    @abstractmethod
    def _check_scores_data(self) -> None:
        """Raise AttributeError if p(x|z) or p(z) cannot be evaluated."""

    @abstractmethod
    def _importance_sampling(self) -> tuple[RowLikelihood, Proposal, LogPrior]:
        """p(x|z), the proposal distribution around a code, and log p(z)."""

    @silent_available_if(_scores_data)
    def data_score_samples(self, X: ArrayLike, n_draws: int = 256) -> Array:
        """Score rows by a lower bound on log p(x), which can be compared between models.

        The density is p(x), the integral of p(z) p(x|z) over z, where p(z) is the distribution of
        codes from which `sample` draws. The method returns the importance-weighted bound on log
        p(x). Its draws come from the proposal distribution N(f(x), tau² diag(s²)), where f(x) is
        the code of the row and s are the standard deviations of the training codes. `fit` chooses
        tau on training rows.

        Parameters
        ----------
        X : array-like of shape (n_samples, n_features)
            Rows to score.
        n_draws : int, default=256
            Number of draws for each row. More draws make the bound tighter.

        Returns
        -------
        scores : ndarray of shape (n_samples,)
            Lower bound on log p(x) of each row, in nats.

        Raises
        ------
        AttributeError
            If p(z) has no density that can be evaluated, or if the autoencoder of a
            LatentDensityEstimator has no p(x|z). An Autoencoder, an AdversarialAE and a VAE
            with `conditional=False` have one.
        ValueError
            If `n_draws` is not a positive integer.

        References
        ----------
        Y. Burda, R. Grosse and R. Salakhutdinov (2016). Importance weighted autoencoders.
        ICLR. :doi:`10.48550/arXiv.1509.00519`

        Examples
        --------
        >>> from sklearn.datasets import load_digits
        >>> from skae import Autoencoder
        >>> X, _ = load_digits(return_X_y=True)
        >>> ae = Autoencoder(4, max_iter=5, random_state=0).fit(X)
        >>> bool(ae.data_score_samples(X).mean() < ae.score(X))
        True
        """
        check_is_fitted(self)
        self._check_argument("n_draws", n_draws, [Interval(Integral, 1, None, closed="left")])
        rows = self._check_new_rows(X, "data_score_samples")
        explains, proposal, log_prior = self._importance_sampling()
        explains.check_range(rows)
        return bounds(explains, rows, log_prior, proposal, int(n_draws))
