"""Likelihoods of counts with rates that the decoder gives, and that of Poisson.

With size factors, the outputs of the decoder pass through a softmax, which gives the profile of a
row. Its rates are its size factor times the profile. Without size factors, the outputs are log
rates.

References
----------
R. Lopez, J. Regier, M. B. Cole, M. I. Jordan and N. Yosef (2018). Deep generative modeling for
single-cell transcriptomics. Nature Methods 15, 1053-1058. :doi:`10.1038/s41592-018-0229-2`
"""

from abc import abstractmethod
from typing import NamedTuple

import torch
from torch import Tensor

from skae._nn.count_densities import (
    MAX_LOG_RATE,
    log_factorials,
    poisson_log_mass,
    soft_limit,
)
from skae._nn.likelihood_base import Likelihood
from skae._nn.size_factors import Nodes, OfTotals, SizeFactors, TotalMoments

# Number of bisections of a range of counts.
_BISECTIONS = 30
# Smallest mean of a count for its log rate, and the smallest share of a feature in the profile, as
# a fraction of the mean share, in initial outputs.
_LEAST_RATE, _LEAST_SHARE = 1e-2, 1e-3
# Smallest total for its logarithm.
_LEAST_TOTAL = 1e-12
# Smallest mean of a total, whose square float32 can represent; all counts may be additional zeros.
_LEAST_RATE_OF_TOTAL = 1e-12
# Number of quadrature nodes for the size factor, and of steps of Fisher scoring, of integrands that
# are numbers for each row.
_NODES, _STEPS = 31, 2


class Rates(NamedTuple):
    """Log rates for a size factor of one, and log-odds of additional zeros, if there are any."""

    log_rate: Tensor
    zeros: Tensor | None = None

    def at(self, log_size: Tensor) -> "Rates":
        """Return the rates of rows with these log size factors, (...,)."""
        return self._replace(log_rate=self.log_rate + log_size[..., None])


class Counts(Likelihood):
    """Counts whose rates are the decoder's outputs.

    Parameters
    ----------
    n_features : int
        Number of features.
    sizes : SizeFactors, default=None
        Size factors; None if the outputs are the log rates of rows.
    most : float, default=60
        Log rate above which rates grow only linearly with outputs.
    """

    support = (0.0, float("inf"))
    most: Tensor

    def __init__(
        self, n_features: int = 0, sizes: SizeFactors | None = None, most: float = MAX_LOG_RATE
    ) -> None:
        super().__init__()
        self.n_features, self.sizes = n_features, sizes
        self.register_buffer("most", torch.tensor(most), persistent=False)

    # ------------------------------------------------------------------ the hooks

    @abstractmethod
    def _value_log_mass(self, x: Tensor, rates: Rates) -> Tensor:
        """Return the log mass of every count."""

    @abstractmethod
    def _row_log_mass(self, x: Tensor, rates: Rates, seen: Tensor | None) -> Tensor:
        """Return the log mass of every row."""

    @abstractmethod
    def _nodes(self, x: Tensor, rates: Rates, seen: Tensor | None) -> Nodes:
        """Return nodes for the integral of rows' masses over the law of size factors.

        The products lack `_log_constants`.
        """

    @abstractmethod
    def _log_constants(self, x: Tensor, rates: Rates) -> Tensor:
        """Return the terms of the log mass of every row that do not depend on its size factor."""

    @abstractmethod
    def information(self, x: Tensor, log_rate: Tensor) -> tuple[Tensor, Tensor]:
        """Return the slope of every log mass in the log rate, and the expected information.

        Additional zeros are ignored.
        """

    @abstractmethod
    def _mean(self, rates: Rates) -> Tensor:
        """Return the means."""

    @abstractmethod
    def _draw(self, rates: Rates, generator: torch.Generator) -> Tensor:
        """Draw counts."""

    @abstractmethod
    def _excess(self, rates: Rates) -> Tensor:
        """Return the variance of every count beyond its mean, relative to squared rates of one."""

    # ----------------------------------------------------------- rates of outputs

    def rates(self, output: Tensor) -> Rates:
        """Return the rates for a size factor of one: with size factors, they sum to one."""
        log_rate, zeros = self._divided(output)
        if self.sizes is None:
            return Rates(soft_limit(log_rate, self.most), zeros)
        return Rates(log_rate.log_softmax(-1), zeros)

    def _divided(self, output: Tensor) -> tuple[Tensor, Tensor | None]:
        """Return the part of the output for rates, and the other part, if there is one."""
        return output, None

    def _of_common_size(self, output: Tensor) -> Rates:
        rates = self.rates(output)
        return rates if self.sizes is None else rates.at(self.sizes.log_common)

    def _of_rows(self, x: Tensor, output: Tensor, seen: Tensor | None) -> Rates:
        """Return rates at the size factors of rows x, which make the sum of rates their total."""
        rates = self.rates(output)
        if self.sizes is None:
            return rates
        found = log_sizes(x, rates.log_rate, seen)
        if seen is not None:  # rows without observed values have the common size factor
            found = torch.where(seen.any(-1), found, self.sizes.log_common.to(found))
        return rates.at(found)

    def log_rates_of_rows(self, x: Tensor, output: Tensor, seen: Tensor | None) -> Tensor:
        """Return log rates at the size factors of rows x."""
        return self._of_rows(x, output, seen).log_rate

    # ------------------------------------------------------------- the likelihood

    def log_prob(self, x: Tensor, output: Tensor) -> Tensor:
        return self.log_prob_of_rows(x, output)

    def log_prob_of_rows(self, x: Tensor, output: Tensor, seen: Tensor | None = None) -> Tensor:
        return self._value_log_mass(x, self._of_rows(x, output, seen))

    def row_log_prob(self, x: Tensor, output: Tensor, seen: Tensor | None = None) -> Tensor:
        return self._row_log_mass(x, self._of_rows(x, output, seen), seen)

    def row_log_marginal(self, x: Tensor, output: Tensor, seen: Tensor | None = None) -> Tensor:
        if self.sizes is None:
            return self.row_log_given(x, output, seen)
        wide = _wide(output)
        x, rates = x.to(wide), self.rates(wide)
        of_sizes = self._nodes(x, rates, seen).log_product.logsumexp(0)
        return (self._log_constants(x, rates) + of_sizes).to(output)

    def row_log_given(self, x: Tensor, output: Tensor, seen: Tensor | None = None) -> Tensor:
        wide = _wide(output)
        return self.row_log_prob(x.to(wide), wide, seen).to(output)

    def mean(self, output: Tensor) -> Tensor:
        if self.sizes is None:
            return self._mean(self.rates(output))
        return self.mean_at(output, self.sizes.log_common)

    def mean_of_rows(self, x: Tensor, output: Tensor, seen: Tensor | None = None) -> Tensor:
        return self._mean(self._of_rows(x, output, seen))

    def mean_at(self, output: Tensor, log_size: Tensor) -> Tensor:
        """Return the mean of p(x|z, s) at these log size factors."""
        return self._mean(self.rates(output).at(log_size))

    def draw(self, output: Tensor, generator: torch.Generator) -> Tensor:
        if self.sizes is None:
            return self._draw(self.rates(output), generator)
        return self.draw_at(output, self.sizes.draw(output.shape[:-1], generator), generator)

    def draw_at(self, output: Tensor, log_size: Tensor, generator: torch.Generator) -> Tensor:
        """Draw from p(x|z, s) at these log size factors."""
        return self._draw(self.rates(output).at(log_size), generator)

    def imputed_mean(self, x: Tensor, output: Tensor, seen: Tensor | None) -> Tensor:
        if self.sizes is None:
            return self.mean(output)
        rates = self.rates(output)
        nodes = self._nodes(x, rates, seen)
        log_chance = nodes.log_product.log_softmax(0)
        return self._mean(rates.at((log_chance + nodes.log_size).logsumexp(0)))

    def imputed_draw(
        self, x: Tensor, output: Tensor, seen: Tensor | None, generator: torch.Generator
    ) -> Tensor:
        if self.sizes is None:
            return self.draw(output, generator)
        rates = self.rates(output)
        nodes = self._nodes(x, rates, seen)
        # p(log s|x, z) is almost normal.
        chance = nodes.log_product.softmax(0)
        mean = (chance * nodes.log_size).sum(0)
        variance = (chance * (nodes.log_size - mean).square()).sum(0)
        draws = torch.randn(mean.shape, generator=generator, device=generator.device)
        return self._draw(rates.at(mean + variance.sqrt() * draws.to(mean)), generator)

    def natural(self, mean: Tensor) -> Tensor:
        if self.sizes is None:
            return mean.clamp(min=_LEAST_RATE).log()
        share = mean / mean.sum().clamp(min=1e-30)
        return share.clamp(min=_LEAST_SHARE * float(share.mean())).clamp(min=1e-30).log()

    def totals(self, x: Tensor, output: Tensor, seen: Tensor | None) -> TotalMoments:
        """Return the totals of observed counts, and their moments for a size factor of one."""
        return self._moments(x, self.rates(output), seen)

    def _moments(self, x: Tensor, rates: Rates, seen: Tensor | None) -> TotalMoments:
        mean, excess = self._mean(rates), self._excess(rates)
        if seen is not None:
            mean, excess = mean * seen, excess * seen
        rate = mean.sum(-1).clamp(min=_LEAST_RATE_OF_TOTAL)
        return TotalMoments(x.sum(-1), rate, excess.sum(-1) / rate.square())


def _wide(output: Tensor) -> Tensor:
    """Return outputs in float64: terms of large counts are much larger than their sum."""
    # Runtimes of ONNX graphs lack some functions in float64.
    narrow = output.device.type == "mps" or torch.compiler.is_compiling()
    return output if narrow else output.double()


def given_sizes(sizes: SizeFactors | None) -> SizeFactors:
    """Return size factors that are known to be there."""
    if sizes is None:
        raise ValueError("The likelihood has no size factors.")
    return sizes


def log_sizes(x: Tensor, log_profile: Tensor, seen: Tensor | None) -> Tensor:
    """Return log size factors with which the rates of observed values sum to the row's total."""
    log_total = x.sum(-1).clamp(min=_LEAST_TOTAL).log()
    if seen is None:
        return log_total
    return log_total - _log_seen_share(log_profile, seen)


def _log_seen_share(log_profile: Tensor, seen: Tensor) -> Tensor:
    """Return the log of the sum of a profile over observed values."""
    return (log_profile + seen.clamp(min=1e-30).log()).logsumexp(-1)


class Poisson(Counts):
    """The Poisson distribution; with size factors, it is multinomial given the total."""

    def _value_log_mass(self, x: Tensor, rates: Rates) -> Tensor:
        return poisson_log_mass(x, rates.log_rate)

    def _row_log_mass(self, x: Tensor, rates: Rates, seen: Tensor | None) -> Tensor:
        expected = rates.log_rate.exp()
        expected = expected if seen is None else expected * seen
        return (x * rates.log_rate).sum(-1) - expected.sum(-1) - log_factorials(x)

    def row_log_prob(self, x: Tensor, output: Tensor, seen: Tensor | None = None) -> Tensor:
        if self.sizes is None:
            return super().row_log_prob(x, output, seen)
        # The rates sum to the total, whatever the output is.
        log_rate = self.rates(output).log_rate
        total, log_size = x.sum(-1), log_sizes(x, log_rate, seen)
        found: Tensor = (x * log_rate).sum(-1) + total * log_size - total - log_factorials(x)
        return found

    def _nodes(self, x: Tensor, rates: Rates, seen: Tensor | None) -> Nodes:
        log_rate, total = rates.log_rate, x.sum(-1)
        share = torch.zeros_like(log_rate[..., 0])
        share = share if seen is None else _log_seen_share(log_rate, seen)
        sizes = given_sizes(self.sizes)
        of_totals = OfTotals(total, share.exp())
        start = of_totals.mode(sizes.mean.to(total), sizes.variance.to(total))
        return sizes.nodes(of_totals, start, _NODES, _STEPS)

    def _log_constants(self, x: Tensor, rates: Rates) -> Tensor:
        found: Tensor = (x * rates.log_rate).sum(-1) - log_factorials(x)
        return found

    def totals_of_complete(self, x: Tensor) -> TotalMoments:
        """Return `totals` of rows without missing values, which do not depend on the output."""
        total = x.sum(-1)
        return TotalMoments(total, torch.ones_like(total), torch.zeros_like(total))

    def row_log_prob_and_slope(
        self, x: Tensor, output: Tensor, seen: Tensor | None
    ) -> tuple[Tensor, Tensor]:
        log_rate = soft_limit(output, self.most)
        rate = log_rate.exp()
        nats, slope = torch.addcmul(-torch.lgamma(x + 1), x, log_rate).sub_(rate), x - rate
        slope = slope / (1 + (output - self.most).clamp(min=0.0))
        if seen is None:
            return nats.sum(-1), slope
        return (nats * seen).sum(-1), slope * seen

    def at(self, output: Tensor, uniform: Tensor) -> Tensor:
        # The smallest count whose cumulative probability exceeds this number, by bisection in
        # float64.
        wide = output.dtype if output.device.type == "mps" else torch.float64
        rate, u = self.mean(output).to(wide), uniform.to(wide)
        low = torch.full_like(rate, -1.0)
        high = (rate + 10 * rate.sqrt() + 40).ceil()
        for _ in range(_BISECTIONS):
            middle = ((low + high) / 2).floor()
            enough = torch.special.gammaincc(middle + 1, rate) > u  # P(count <= middle)
            low, high = torch.where(enough, low, middle), torch.where(enough, middle, high)
        return high.to(output.dtype)

    def _mean(self, rates: Rates) -> Tensor:
        return rates.log_rate.exp()

    def _draw(self, rates: Rates, generator: torch.Generator) -> Tensor:
        return torch.poisson(rates.log_rate.exp(), generator=generator)

    def _excess(self, rates: Rates) -> Tensor:
        return torch.zeros_like(rates.log_rate)

    def information(self, x: Tensor, log_rate: Tensor) -> tuple[Tensor, Tensor]:
        rate = log_rate.exp()
        return x - rate, rate
