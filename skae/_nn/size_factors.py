"""Size factors of rows of counts, and their law, over which likelihoods are integrated.

The rates of a row are its size factor times a profile that sums to one. In training the size factor
is the total of the row. The model of a new row has a log-normal law of size factors, so that it is
a distribution of all counts, totals included.

References
----------
Q. Liu and D. A. Pierce (1994). A note on Gauss-Hermite quadrature. Biometrika 81(3), 624-629.
:doi:`10.1093/biomet/81.3.624`
"""

from functools import cache
from math import log, pi
from typing import Any, NamedTuple, Protocol

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn
from torch.nn.functional import softplus

# Smallest variance of the log size factors, and largest step to a mode.
_LEAST_VARIANCE, _LONGEST_STEP = 1e-6, 3.0
# Number of steps to a mode, and of iterations of EM.
_STEPS, _EM_STEPS = 2, 100
# Largest number of steps for rows that are far from the mode, which are those whose next step is
# longer than this number of standard deviations.
_MOST_STEPS, _FAR = 50, 0.5
# Number of steps of Newton's method to the mode without and with excess variation.
_POISSON_STEPS, _MODE_STEPS = 5, 8
# Number of nodes in EM.
_N_NODES = 15
# Product of excess variation and mean below which totals have a Poisson distribution.
_SMALL = 1e-6
# EM ends when neither moment changes by more than this number.
_TOLERANCE = 1e-5


class Integrand(Protocol):
    """Log likelihoods of rows as functions of log size factors."""

    def slopes(self, at: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """Return the slopes, the expected information, and the curvatures."""

    def value(self, at: Tensor) -> Tensor:
        """Return the log likelihoods."""

    def changes(self, at: Tensor, steps: Tensor) -> Tensor:
        """Return how values change from `at` by steps (n_nodes, ...)."""


class Nodes(NamedTuple):
    """Log size factors at which integrands are evaluated, and logs of weighted integrands.

    Their shapes are (n_nodes, ...).
    """

    log_size: Tensor
    log_product: Tensor


class TotalMoments(NamedTuple):
    """Total of each row, its mean for a size factor of one, and its squared excess variation.

    For a size factor s the total has mean `rate` s and variance `rate` s + `excess` (`rate` s)².
    """

    total: Tensor
    rate: Tensor
    excess: Tensor


class SizeFactors(nn.Module):
    """The common size factor, and the normal law of log size factors.

    Parameters
    ----------
    common : float
        Size factor of means that belong to no row; the geometric mean of the training totals.
    """

    log_common: Tensor
    mean: Tensor
    variance: Tensor

    def __init__(self, common: float) -> None:
        super().__init__()
        self.register_buffer("log_common", torch.tensor(log(common)))
        self.register_buffer("mean", torch.tensor(log(common)))
        self.register_buffer("variance", torch.tensor(1.0))

    def draw(self, shape: tuple[int, ...], generator: torch.Generator) -> Tensor:
        """Draw log size factors."""
        draws = torch.randn(shape, generator=generator, device=self.mean.device)
        return self.mean + self.variance.sqrt() * draws

    def nodes(self, integrand: Integrand, start: Tensor, n_nodes: int, n_steps: int) -> Nodes:
        """Return nodes for the integral of a likelihood over the law of the log size factor."""
        return quadrature(self.mean, self.variance, integrand, start, n_nodes, n_steps)

    @torch.no_grad()
    def settle(self, rows: TotalMoments, weight: Tensor | None, share: float = 1.0) -> None:
        """Set the law by maximum likelihood of the totals, by EM.

        The totals of rows with a size factor have a negative binomial distribution with their mean
        and variance. `share` is the weight of these rows against the present law.
        """
        before = torch.stack([self.mean, self.variance])
        total, rate, excess = (t.double().clamp(min=0.0) for t in rows)
        rate = rate.clamp(min=1e-30)
        w = torch.ones_like(total) if weight is None else weight.to(total)
        of_totals = (total.clamp(min=0.5) / rate).log()
        center = (w * of_totals).sum() / w.sum()
        spread = (w * (of_totals - center).square()).sum() / w.sum()
        variance = spread.clamp(min=_LEAST_VARIANCE)

        of_rows = OfTotals(total, rate, excess)
        for _ in range(_EM_STEPS):
            start = of_rows.mode(center, variance)
            nodes = quadrature(center, variance, of_rows, start, _N_NODES, _STEPS)
            chance = nodes.log_product.softmax(0)
            mean = (chance * nodes.log_size).sum(0)
            square = (chance * (nodes.log_size - mean).square()).sum(0)
            earlier = center, variance
            center = (w * mean).sum() / w.sum()
            spread = (w * (square + (mean - center).square())).sum() / w.sum()
            variance = spread.clamp(min=_LEAST_VARIANCE)
            moves = [abs(float(a - b)) for a, b in zip((center, variance), earlier, strict=True)]
            if max(moves) < _TOLERANCE:
                break
        found = before.lerp(torch.stack([center, variance]).to(before), share)
        self.mean.copy_(found[0])
        self.variance.copy_(found[1])


class OfTotals:
    """The likelihood of totals with these means and variances; see `TotalMoments`.

    They have a negative binomial distribution, or one of Poisson if there is no excess variation.
    """

    def __init__(self, total: Tensor, rate: Tensor, excess: Tensor | None = None) -> None:
        self.total, self.rate, self.excess = total, rate, excess

    def slopes(self, at: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """Return the slopes, the expected information, and the curvatures."""
        mean = at.exp() * self.rate
        if self.excess is None:
            return self.total - mean, mean, mean
        share = 1 / (1 + self.excess * mean)
        curved = mean * (1 + self.excess * self.total) * share.square()
        return (self.total - mean) * share, mean * share, curved

    def value(self, at: Tensor) -> Tensor:
        """Return the log likelihoods, without terms that do not depend on the size factor."""
        mean = at.exp() * self.rate
        if self.excess is None:
            return self.total * at - mean
        odds = self.excess * mean
        rest = torch.where(odds < _SMALL, mean, odds.log1p() / self.excess.clamp(min=1e-30))
        return self.total * (at - odds.log1p()) - rest

    def changes(self, at: Tensor, steps: Tensor) -> Tensor:
        """Return how values change from `at` by steps (n_nodes, ...)."""
        return self.value(at + steps) - self.value(at)

    def mode(self, mean: Tensor, variance: Tensor) -> Tensor:
        """Return the modes of log size factors with this normal law.

        Fisher scoring would take at most steps of one towards small size factors.
        """
        if self.excess is None:
            return _poisson_mode(self.total, self.rate, mean, variance)
        # With the information that the total has, and where it has its steepest slope.
        known = 1 / (1 + self.excess * self.total)
        at = _poisson_mode(self.total * known, self.rate * known, mean, variance)
        of_total = (self.total / self.rate).clamp(min=1e-30).log()
        least = mean - variance / self.excess.clamp(min=1e-30)
        low = torch.maximum(of_total, least).clamp(max=mean)
        high = of_total.clamp(min=mean)
        at = torch.maximum(at, low)
        for _ in range(_MODE_STEPS):
            slope, _, curved = self.slopes(at)
            slope = slope - (at - mean) / variance
            low, high = torch.where(slope > 0, at, low), torch.where(slope > 0, high, at)
            new = at + slope / (curved + 1 / variance)
            at = torch.where((new < low) | (new > high), (low + high) / 2, new)
        return at


def _poisson_mode(total: Tensor, rate: Tensor, mean: Tensor, variance: Tensor) -> Tensor:
    """Return the root t of total - rate e^t = (t - mean) / variance.

    With w = variance rate e^t, it is w + log w = mean + variance total + log(variance rate).
    """
    log_unit = (variance * rate).log()
    level = mean + variance * total + log_unit
    w = softplus(level).clamp(min=1e-30)
    for _ in range(_POISSON_STEPS):
        w = w * (1 + level - w.log()) / (1 + w)
        w = w.clamp(min=1e-30)
    return w.log() - log_unit


def quadrature(
    mean: Tensor,
    variance: Tensor,
    integrand: Integrand,
    start: Tensor,
    n_nodes: int,
    n_steps: int,
) -> Nodes:
    """Return nodes for the integral of a likelihood over a normal law.

    They are those of Gauss-Hermite quadrature around the mode (Liu & Pierce 1994), to which
    `n_steps` steps lead from `start`, and more for rows that are still far from it. Steps are those
    of Fisher scoring or of Newton's method, whichever are shorter: Newton's are too long where the
    integrand is almost linear, and Fisher's where counts are much larger than their rates.
    """
    precision, at = 1 / variance, start
    for i in range(_MOST_STEPS):
        slope, expected, curved = integrand.slopes(at)
        spread = (curved + precision).rsqrt()
        step = (slope - (at - mean) * precision) / (torch.maximum(expected, curved) + precision)
        if i >= n_steps:
            # Others stay, so that the result of a row does not depend on the rows beside it.
            far = step.abs() > _FAR * spread
            if not far.any():
                break
            step = torch.where(far, step, 0.0)
        at = at + step.clamp(-_LONGEST_STEP, _LONGEST_STEP)
    place, log_weight = (
        torch.as_tensor(a).to(at).reshape(-1, *[1] * at.ndim) for a in _hermite(n_nodes)
    )
    steps = spread * place
    log_size = at + steps
    of_law = -0.5 * ((log_size - mean).square() * precision + (2 * pi * variance).log())
    value = integrand.value(at) + integrand.changes(at, steps)
    return Nodes(log_size, value + log_weight + spread.log() + of_law)


@cache
def _hermite(n: int) -> tuple[NDArray[Any], NDArray[Any]]:
    """Return places of nodes in standard deviations, and log weights for integrals over them."""
    place, weight = np.polynomial.hermite.hermgauss(n)
    return place * 2**0.5, np.log(weight) + place**2 + 0.5 * log(2)
