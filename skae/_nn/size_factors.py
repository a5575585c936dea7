"""Size factors of rows of counts, and their law, over which likelihoods are integrated.

The rates of a row are its size factor times a profile that sums to one. In training the size factor
is the total of the row. The model of a new row has a log-normal law of size factors, so that it is
a distribution of all counts, totals included.

References
----------
Q. Liu and D. A. Pierce (1994). A note on Gauss-Hermite quadrature. Biometrika 81(3), 624-629.
:doi:`10.1093/biomet/81.3.624`
"""

from collections.abc import Callable
from functools import cache
from math import log, pi
from typing import Any, NamedTuple

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

# Smallest total for its logarithm; rows without counts get it.
LEAST_TOTAL = 1e-3
# Smallest variance of the log size factors, and largest step of Fisher scoring.
_LEAST_VARIANCE, _LONGEST_STEP = 1e-6, 3.0
# Number of steps of Fisher scoring, and of iterations of EM.
_STEPS, _EM_STEPS = 6, 100
# Number of nodes in EM.
_N_NODES = 15
# EM ends when neither moment changes by more than this number.
_TOLERANCE = 1e-5

# Log likelihood of rows at log size factors, and its slope with the expected information.
Value = Callable[[Tensor], Tensor]
Slopes = Callable[[Tensor], tuple[Tensor, Tensor]]


class Nodes(NamedTuple):
    """Log size factors at which integrands are evaluated, and log weights, (n_nodes, ...)."""

    log_size: Tensor
    log_weight: Tensor


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

    def draw(self, n_rows: int, generator: torch.Generator) -> Tensor:
        """Draw log size factors, (n_rows,)."""
        draws = torch.randn(n_rows, generator=generator, device=self.mean.device)
        return self.mean + self.variance.sqrt() * draws

    def log_integral(self, value: Value, slopes: Slopes, start: Tensor, n_nodes: int) -> Tensor:
        """Return the log of the integral of exp(value) over the law of the log size factor."""
        nodes = quadrature(self.mean, self.variance, slopes, start, n_nodes)
        found = [value(at) + w for at, w in zip(nodes.log_size, nodes.log_weight, strict=True)]
        return torch.logsumexp(torch.stack(found), 0)

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

        def value(log_size: Tensor) -> Tensor:
            return _total_log_mass(total, log_size.exp() * rate, excess)

        def slopes(log_size: Tensor) -> tuple[Tensor, Tensor]:
            mean = log_size.exp() * rate
            share = 1 / (1 + excess * mean)
            return (total - mean) * share, mean * share

        for _ in range(_EM_STEPS):
            nodes = quadrature(center, variance, slopes, center.expand_as(total), _N_NODES)
            chance = (value(nodes.log_size) + nodes.log_weight).softmax(0)
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


def quadrature(
    mean: Tensor, variance: Tensor, slopes: Slopes, start: Tensor, n_nodes: int
) -> Nodes:
    """Return nodes for integrals over a normal law of a likelihood with these slopes.

    They are those of Gauss-Hermite quadrature around the mode (Liu & Pierce 1994), which Fisher
    scoring finds from `start`. The log weights include the law.
    """
    precision, at = 1 / variance, start
    for _ in range(_STEPS):
        slope, information = slopes(at)
        step = (slope - (at - mean) * precision) / (information + precision)
        at = at + step.clamp(-_LONGEST_STEP, _LONGEST_STEP)
    spread = (slopes(at)[1] + precision).rsqrt()
    place, log_weight = (
        torch.as_tensor(a).to(at).reshape(-1, *[1] * at.ndim) for a in _hermite(n_nodes)
    )
    log_size = at + spread * place
    of_law = -0.5 * ((log_size - mean).square() * precision + (2 * pi * variance).log())
    return Nodes(log_size, log_weight + spread.log() + of_law)


def _total_log_mass(total: Tensor, mean: Tensor, excess: Tensor) -> Tensor:
    """Return the log mass of totals, negative binomial with this mean, without constants."""
    odds = excess * mean
    tiny = odds < 1e-6
    log_rest = torch.where(tiny, mean, odds.log1p() / excess.clamp(min=1e-30))
    return total * (mean.log() - odds.log1p()) - log_rest


@cache
def _hermite(n: int) -> tuple[NDArray[Any], NDArray[Any]]:
    """Return places of nodes in standard deviations, and log weights for integrals over them."""
    place, weight = np.polynomial.hermite.hermgauss(n)
    return place * 2**0.5, np.log(weight) + place**2 + 0.5 * log(2)
