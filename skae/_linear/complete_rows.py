"""Expected sums over rows without missing values, which follow from products with the covariance.

All rows have the same posterior covariance M^-1 of the codes, and their posterior means are linear
functions of the rows. With B = M^-1 W' Psi^-1 and the covariance S of the rows, the codes have the
covariance B S B'. Each step therefore costs as much as one product S B', and does not depend on
the number of rows if S is known.
"""

from typing import Any

import numpy as np
from numpy.typing import NDArray

from skae._linear.incomplete_rows import Pairs, Sums, expected_log_likelihood
from skae._linear.linear_gaussian import LinearGaussian, encoder_of
from skae._linear.packed import pack
from skae._linear.subspace import CentredRows, CentredScatter

Array = NDArray[np.float64]


class CompleteRows:
    """The sums that `IncompleteRows` has, of complete rows given by products with the covariance.

    Parameters
    ----------
    rows : CentredRows or CentredScatter
    variances : array of shape (n_features,), variance of each feature, with 1/n
    n : float, number of rows, or the sum of their weights
    """

    def __init__(self, rows: CentredRows | CentredScatter, variances: Array, n: float) -> None:
        self.n = float(n)
        self.shift = np.asarray(rows.mean, dtype=np.float64)
        self.n_features = len(self.shift)
        self.counts = np.full(self.n_features, self.n)
        self.totals = np.zeros(self.n_features)
        self.squares = self.n * variances
        self._rows = rows

    def covariance_times(self, V: Array) -> Array:
        """S V, (D, k)."""
        product: Any = self._rows.pull_back(self._rows.project(V))
        return np.asarray(product, dtype=np.float64)

    def products(self, V: Array) -> Array:
        """The sum over rows of x (x' V), (D, k)."""
        return self.n * self.covariance_times(V)

    def pairs(self) -> Pairs:
        """Sums over pairs of entries, for rows given by their scatter matrix."""
        assert isinstance(self._rows, CentredScatter)
        counts = np.full((self.n_features, self.n_features), self.n)
        return Pairs(self.n * self._rows.covariance, counts)

    def sums(self, model: LinearGaussian) -> Sums:
        """Sums of the E-step. Those per feature have one column, because all are the same."""
        moved = model._replace(mean=model.mean - self.shift)
        encoder, covariance, code = encoder_of(moved)
        code = code - moved.mean @ encoder
        images = self.covariance_times(encoder)
        second = encoder.T @ images + np.outer(code, code) + covariance
        overall = self.n * np.r_[pack(second[None])[:, 0], code, 1.0]
        cross = self.n * images
        log_det = -self.n * float(np.linalg.slogdet(covariance)[1])
        per_feature = overall[:, None]
        nats = expected_log_likelihood(self, model, per_feature, cross, log_det)
        return Sums(nats, per_feature, overall, cross)
