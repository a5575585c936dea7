"""Negative binomial likelihoods of counts, also with additional zeros.

References
----------
R. Lopez, J. Regier, M. B. Cole, M. I. Jordan and N. Yosef (2018). Deep generative modeling for
single-cell transcriptomics. Nature Methods 15, 1053-1058. :doi:`10.1038/s41592-018-0229-2`
"""

import torch
from scipy.stats import nbinom
from torch import Tensor, nn
from torch.nn.functional import logsigmoid, softplus

from skae._nn.count_densities import (
    MAX_LOG_RATE,
    NegativeBinomialOfSize,
    log_coefficients,
    negative_binomial_row,
    row_log_coefficients,
    soft_limit,
)
from skae._nn.counts import Counts, Rates, given_sizes
from skae._nn.size_factors import Nodes, OfTotals, SizeFactors

# Initial log-odds of additional zeros, and initial log dispersion.
_START_ZEROS, _START_DISPERSION = -2.0, 0.5
# Limit of the size of log dispersions; with larger ones, the distribution is that of Poisson. They
# are multiples of their parameters by this factor, because steps of the optimisers have the size of
# those of weights. With a factor of 1, they end too far from their optimum.
_MOST_LOG, _SCALE = 10.0, 10.0
# Number of quadrature nodes for the size factor, and of steps of Fisher scoring, of integrands that
# are sums over all features.
_NODES_OF_VALUES, _STEPS_OF_VALUES = 9, 3


class NegativeBinomial(Counts):
    """A Poisson distribution whose rate has a gamma distribution.

    A count of mean m has variance m + m² / dispersion. Every feature has its own dispersion, which
    the optimiser learns.
    """

    scaled_log_dispersion: nn.Parameter

    def __init__(
        self, n_features: int = 0, sizes: SizeFactors | None = None, most: float = MAX_LOG_RATE
    ) -> None:
        super().__init__(n_features, sizes, most)
        start = torch.full((n_features,), _START_DISPERSION / _SCALE)
        self.scaled_log_dispersion = nn.Parameter(start)

    def bounded_dispersion(self) -> Tensor:
        """Return the log dispersion of every feature within its limits."""
        log_dispersion = _SCALE * self.scaled_log_dispersion
        return soft_limit(-soft_limit(-log_dispersion, _MOST_LOG), _MOST_LOG)

    @property
    def dispersion(self) -> Tensor:
        """The dispersion of every feature."""
        return self.bounded_dispersion().exp()

    def _value_log_mass(self, x: Tensor, rates: Rates) -> Tensor:
        log_dispersion = self.bounded_dispersion()
        logit = rates.log_rate - log_dispersion
        dispersion = log_dispersion.exp()
        nats = x * logsigmoid(logit) - dispersion * softplus(logit)
        return self._with_zeros(x, nats, log_coefficients(x, dispersion), rates)

    def _with_zeros(self, x: Tensor, nats: Tensor, coefficients: Tensor, rates: Rates) -> Tensor:
        return nats + coefficients

    def _row_log_mass(self, x: Tensor, rates: Rates, seen: Tensor | None) -> Tensor:
        log_dispersion = self.bounded_dispersion()
        logit = rates.log_rate - log_dispersion
        dispersion = log_dispersion.exp()
        nats = negative_binomial_row(x, logit, dispersion, rates.zeros, seen)
        return nats + row_log_coefficients(x, dispersion)

    def _nodes(self, x: Tensor, rates: Rates, seen: Tensor | None) -> Nodes:
        log_dispersion, sizes = self.bounded_dispersion(), given_sizes(self.sizes)
        logit, dispersion = rates.log_rate - log_dispersion, log_dispersion.exp()
        integrand = NegativeBinomialOfSize(x, logit, dispersion, rates.zeros, seen)
        zeros = None if rates.zeros is None else rates.zeros.float()
        narrow = Rates(rates.log_rate.float(), zeros)
        of_totals = OfTotals(*self._moments(x.float(), narrow, seen))
        start = of_totals.mode(sizes.mean, sizes.variance).to(x)
        return sizes.nodes(integrand, start, _NODES_OF_VALUES, _STEPS_OF_VALUES)

    def _log_constants(self, x: Tensor, rates: Rates) -> Tensor:
        return row_log_coefficients(x, self.dispersion.to(x))

    def at(self, output: Tensor, uniform: Tensor) -> Tensor:
        rates = self._of_common_size(output)
        odds = (rates.log_rate.double() - self.bounded_dispersion()).exp()
        u, chance = uniform.double(), (1 / (1 + odds)).expand_as(uniform)
        if rates.zeros is not None:
            zero = rates.zeros.double().sigmoid()
            u = ((u - zero) / (1 - zero)).clamp(min=0.0)
        dispersion = self.dispersion.double().expand_as(u)
        found = nbinom.ppf(*(t.detach().cpu().numpy() for t in (u, dispersion, chance)))
        return torch.from_numpy(found).clamp(min=0.0).to(output)

    def _mean(self, rates: Rates) -> Tensor:
        return rates.log_rate.exp()

    def _draw(self, rates: Rates, generator: torch.Generator) -> Tensor:
        dispersion = self.dispersion.expand_as(rates.log_rate)
        # torch._standard_gamma is the only draw of gamma variables with a generator.
        gamma = torch._standard_gamma(dispersion.double(), generator=generator)
        rate = gamma * (rates.log_rate.double() - self.bounded_dispersion()).exp()
        return torch.poisson(rate, generator=generator).to(rates.log_rate)

    def _excess(self, rates: Rates) -> Tensor:
        return rates.log_rate.exp().square() / self.dispersion

    def information(self, x: Tensor, log_rate: Tensor) -> tuple[Tensor, Tensor]:
        rate, dispersion = log_rate.exp(), self.dispersion
        share = dispersion / (dispersion + rate)
        return (x - rate) * share, rate * share


class ZeroInflatedNegativeBinomial(NegativeBinomial):
    """A negative binomial distribution, or zero with a probability that the decoder gives.

    The outputs are those of the rates, followed by the log-odds of additional zeros.
    """

    n_outputs = 2

    def _divided(self, output: Tensor) -> tuple[Tensor, Tensor | None]:
        log_rate, zeros = output.chunk(2, -1)
        return log_rate, zeros

    def natural(self, mean: Tensor) -> Tensor:
        return torch.cat([super().natural(mean), torch.full_like(mean, _START_ZEROS)], -1)

    def _with_zeros(self, x: Tensor, nats: Tensor, coefficients: Tensor, rates: Rates) -> Tensor:
        zeros = rates.zeros
        assert zeros is not None
        found = torch.where(x > 0, nats + coefficients, torch.logaddexp(nats, zeros))
        return found - softplus(zeros)

    def _mean(self, rates: Rates) -> Tensor:
        assert rates.zeros is not None
        return rates.log_rate.exp() * (-rates.zeros).sigmoid()

    def _draw(self, rates: Rates, generator: torch.Generator) -> Tensor:
        assert rates.zeros is not None
        drawn = super()._draw(rates, generator)
        chance = torch.rand(drawn.shape, generator=generator, device=drawn.device)
        return torch.where(chance < rates.zeros.sigmoid(), 0.0, drawn)

    def _excess(self, rates: Rates) -> Tensor:
        # The variance of a count is its mean, plus this times its squared rate.
        assert rates.zeros is not None
        kept = (-rates.zeros).sigmoid()
        return kept * (super()._excess(rates) + (1 - kept) * rates.log_rate.exp().square())
