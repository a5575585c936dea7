"""Stochastic EM for the linear-Gaussian latent model of rows with missing values, by batches.

The M-step needs only sums over rows, which grow no larger with the number of rows. Each batch gives
these sums under the current model. They are averaged with those of the earlier batches, and the
M-step for the average gives the next model. The weight of a new batch is larger than its share of
the rows, so that sums under earlier, worse models are forgotten.

References
----------
O. Cappe and E. Moulines (2009). On-line expectation-maximization algorithm for latent data models.
J. R. Stat. Soc. B 71(3), 593-613. :doi:`10.1111/j.1467-9868.2009.00698.x`
"""

from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from skae._linear.incomplete_rows import Sums
from skae._linear.linear_gaussian import LinearGaussian
from skae._linear.missing_values import Learner

Array = NDArray[Any]

# The weight of a batch is its share of all rows so far to this power, which is between 1/2 and 1.
_FORGETTING = 0.6


class Averages(NamedTuple):
    """Averages over rows of what the M-step needs; n is the weighted number of all rows.

    `shift`, `totals` and `squares` are as in `IncompleteRows`, and the last three as in `Sums`.
    """

    n: float
    shift: Array
    totals: Array
    squares: Array
    per_feature: Array
    overall: Array
    cross: Array

    @property
    def counts(self) -> Array:
        """Weighted share of the rows that observe each feature (D,)."""
        return np.broadcast_to(self.per_feature[-1], self.totals.shape)

    @property
    def variances(self) -> Array:
        """Variances of the features over the rows that observe them (D,)."""
        mean = self.totals / self.counts
        return np.maximum(self.squares / self.counts - mean**2, 0.0)


def averages_of(rows: Any, model: LinearGaussian) -> Averages:
    """Averages over the rows of one batch."""
    _, *sums = rows.sums(model)
    totals = (rows.totals, rows.squares, *sums)
    return Averages(float(rows.n), rows.shift, *(values / rows.n for values in totals))


def with_batch(before: Averages, batch: Averages) -> Averages:
    """Averages over earlier batches and a new one, which have the same shift."""
    n = before.n + batch.n
    weight = (batch.n / n) ** _FORGETTING
    pairs = zip(before[2:], batch[2:], strict=True)
    return Averages(n, before.shift, *((1 - weight) * old + weight * new for old, new in pairs))


def updated(averages: Averages, learner: Learner, model: LinearGaussian) -> LinearGaussian:
    """The next model, in the coordinates of the codes in which the averages are."""
    n = averages.n
    rows = Averages(n, averages.shift, *(n * values for values in averages[2:]))
    sums = Sums(0.0, rows.per_feature, rows.overall, rows.cross)
    return learner.m_step(rows, sums, model, expand=False)
