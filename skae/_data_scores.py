"""Scores of rows by a bound on log p(x), for models whose codes have a density."""

from abc import abstractmethod
from numbers import Integral
from typing import Any

from numpy.typing import ArrayLike, NDArray
from sklearn.utils.metaestimators import available_if
from sklearn.utils.validation import check_is_fitted

from skae._base import BaseAutoencoder
from skae._inference.bounds import LogPrior, Proposal, RowLikelihood, bounds
from skae._utils.validation import Interval

Array = NDArray[Any]


def _scores_data(model: "DataScoresMixin") -> bool:
    model._check_scores_data()
    return True


class DataScoresMixin(BaseAutoencoder):
    """`data_score_samples`, for models that encode a row as a point."""

    @abstractmethod
    def _check_scores_data(self) -> None:
        """Raise AttributeError where p(x|z) or p(z) cannot be evaluated."""

    @abstractmethod
    def _importance_sampling(self) -> tuple[RowLikelihood, Proposal, LogPrior]:
        """p(x|z), where draws around a code are taken, and log p(z) of them."""

    @available_if(_scores_data)
    def data_score_samples(self, X: ArrayLike, n_draws: int = 256) -> Array:
        """Score rows by a lower bound on log p(x), which other models' scores compare with.

        log p(x) is the log of the integral of p(z) p(x|z), with the p(z) that `sample` draws
        from. Its importance-weighted bound takes draws around the code of the row, from
        N(f(x), tau² diag(s²)) with the standard deviations s of the codes and a tau that was
        chosen on training rows.

        Parameters
        ----------
        X : array-like of shape (n_samples, n_features)
            Rows to score.
        n_draws : int, default=256
            Draws for each row: the more there are, the tighter is the bound.

        Returns
        -------
        scores : ndarray of shape (n_samples,)
            Nats per row.

        Raises
        ------
        AttributeError
            If codes are sampled from what has no density, or rows have no p(x|z): that of an
            autoencoder has to be an Autoencoder's, an AdversarialAE's or that of a VAE that is
            not conditional.
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
