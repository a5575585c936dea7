"""Expected sums over rows without missing values, which follow from products with the covariance.

All rows have the same posterior covariance M^-1 of the codes, and their posterior means are linear
functions of the rows. With B = M^-1 W' Psi^-1 and the covariance S of the rows, the codes have the
covariance B S B'. Each step therefore costs as much as one product S B', and does not depend on
the number of rows if S is known.
"""

from typing import Any

import numpy as np
from numpy.typing import NDArray

from skae._linear.incomplete_rows import Sums, expected_log_likelihood
from skae._linear.linear_gaussian import LinearGaussian, expected_offset, expected_precision
from skae._linear.packed import pack, unpack
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

    def sums(self, model: LinearGaussian) -> Sums:
        """Sums of the E-step. Those per feature have one column, because all are the same."""
        W, mean, psi, _ = model
        n_latents = W.shape[1]
        precision = expected_precision(model).sum(axis=0)
        M = np.eye(n_latents) + unpack(precision[:, None])[0]
        covariance = np.linalg.inv(M)
        B = covariance @ (W / psi[:, None]).T
        offset = np.broadcast_to(expected_offset(model, mean - self.shift), W.shape).sum(axis=0)
        code = -covariance @ offset
        images = self.covariance_times(B.T)
        second = B @ images + np.outer(code, code) + covariance
        overall = self.n * np.r_[pack(second[None])[:, 0], code, 1.0]
        cross = self.n * images
        log_det = self.n * float(np.linalg.slogdet(M)[1])
        per_feature = overall[:, None]
        nats = expected_log_likelihood(self, model, per_feature, cross, log_det)
        return Sums(nats, per_feature, overall, cross)
