"""Moments over a stream of batches, which combine earlier batches with a new one.

:func:`merge` combines sums over rows, for batches of any size. The other functions combine
averages, with a weight in (0, 1] for the new batch. If the weight is the fraction of the new rows
among all rows, the result equals that of all rows together. A larger weight gives a moving average
that forgets earlier batches. With a weight of 1, only the new batch counts, and the earlier moments
may be None.

References
----------
T. F. Chan, G. H. Golub and R. J. LeVeque (1983). Algorithms for computing the sample
variance: analysis and recommendations. The American Statistician 37(3), 242-247.
:doi:`10.1080/00031305.1983.10483115`
"""

from typing import Any

import numpy as np
from numpy.typing import NDArray

from skae._linear.moments import Moments

Array = NDArray[Any]
MeanAndSpread = tuple[Array, Array]


def merge(a: Moments, b: Moments) -> Moments:
    """Moments of two sets of rows together (Chan, Golub and LeVeque 1983, eq. 2.1b)."""
    n = a.n + b.n
    step = b.mean - a.mean
    scatter = a.scatter + b.scatter + (a.n * b.n / n) * step[:, None] * step[None, :]
    return Moments(n, a.mean + (b.n / n) * step, scatter)


def running_mean(before: Array | None, now: Array, weight: float) -> Array:
    """Mean over the earlier batches and the new one."""
    if before is None or weight == 1:
        return now
    return before + weight * (now - before)


def running_frequencies(before: Array | None, now: Array, weight: float) -> Array:
    """Mean of frequencies, computed without differences: it is zero where both are zero."""
    if before is None or weight == 1:
        return now
    return (1 - weight) * before + weight * now


def running_variance(
    before: MeanAndSpread | None, now: MeanAndSpread, weight: float
) -> MeanAndSpread:
    """Mean and variances (1/n) of each feature."""
    if before is None or weight == 1:
        return now
    step = now[0] - before[0]
    return before[0] + weight * step, _spread(before[1], now[1], step**2, weight)


def running_covariance(
    before: MeanAndSpread | None, now: MeanAndSpread, weight: float
) -> MeanAndSpread:
    """Mean (k,) and covariance (k, k), with 1/n."""
    if before is None or weight == 1:
        return now
    step = now[0] - before[0]
    return before[0] + weight * step, _spread(before[1], now[1], np.outer(step, step), weight)


def _spread(before: Array, now: Array, step_squared: Array, weight: float) -> Array:
    """Eq. 2.1b of Chan et al. divided by n; the squared difference of the means adds variance."""
    return weight * now + (1 - weight) * (before + weight * step_squared)
