"""Likelihoods of counts: Poisson, negative binomial, and the latter with additional zeros.

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
from scipy.stats import nbinom
from torch import Tensor, nn
from torch.nn.functional import logsigmoid, softplus

from skae._nn.count_densities import (
    MAX_LOG_RATE,
    NegativeBinomialOfSize,
    log_coefficients,
    log_factorials,
    negative_binomial_row,
    poisson_log_mass,
    row_log_coefficients,
    soft_limit,
)
from skae._nn.likelihood_base import Likelihood
from skae._nn.size_factors import OfTotals, SizeFactors, TotalMoments
from skae._training.reading import LEAST_TOTAL

# Number of bisections of a range of counts.
_BISECTIONS = 30
# Smallest mean of a count for its log rate, and the smallest share of a feature in the profile, as
# a fraction of the mean share, in initial outputs.
_LEAST_RATE, _LEAST_SHARE = 1e-2, 1e-3
# Initial log-odds of additional zeros, and initial log dispersion.
_START_ZEROS, _START_DISPERSION = -2.0, 0.5
# Smallest mean of a total, whose square float32 can represent; all counts may be additional zeros.
_LEAST_RATE_OF_TOTAL = 1e-12
# Limit of the size of log dispersions; with larger ones, the distribution is that of Poisson. They
# are multiples of their parameters by this factor, because steps of the optimisers have the size of
# those of weights. With a factor of 1, they end too far from their optimum.
_MOST_LOG, _SCALE = 10.0, 10.0
# Number of quadrature nodes for the size factor, and of steps of Fisher scoring: of integrands that
# are numbers for each row, and of those that are sums over all features.
_NODES, _STEPS = 31, 2
_NODES_OF_VALUES, _STEPS_OF_VALUES = 9, 3


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
    def _log_integral(self, x: Tensor, rates: Rates, seen: Tensor | None) -> Tensor:
        """Return the log mass of every row, integrated over the law of size factors."""

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
        return rates if self.sizes is None else rates.at(log_sizes(x, rates.log_rate, seen))

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
        return self._log_integral(x.to(wide), self.rates(wide), seen).to(output)

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

    def draw_of_rows(
        self, x: Tensor, output: Tensor, seen: Tensor | None, generator: torch.Generator
    ) -> Tensor:
        return self._draw(self._of_rows(x, output, seen), generator)

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


def _given(sizes: SizeFactors | None) -> SizeFactors:
    """Return size factors that are known to be there."""
    if sizes is None:
        raise ValueError("The likelihood has no size factors.")
    return sizes


def log_sizes(x: Tensor, log_profile: Tensor, seen: Tensor | None) -> Tensor:
    """Return log size factors with which the rates of observed values sum to the row's total."""
    log_total = x.sum(-1).clamp(min=LEAST_TOTAL).log()
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

    def _log_integral(self, x: Tensor, rates: Rates, seen: Tensor | None) -> Tensor:
        log_rate, total = rates.log_rate, x.sum(-1)
        share = torch.zeros_like(total) if seen is None else _log_seen_share(log_rate, seen)
        sizes = _given(self.sizes)
        of_totals = OfTotals(total, share.exp())
        start = of_totals.mode(sizes.mean.to(total), sizes.variance.to(total))
        of_size = sizes.log_integral(of_totals, start, _NODES, _STEPS)
        found: Tensor = (x * log_rate).sum(-1) - log_factorials(x) + of_size
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

    def _log_integral(self, x: Tensor, rates: Rates, seen: Tensor | None) -> Tensor:
        log_dispersion, sizes = self.bounded_dispersion(), _given(self.sizes)
        logit, dispersion = rates.log_rate - log_dispersion, log_dispersion.exp()
        integrand = NegativeBinomialOfSize(x, logit, dispersion, rates.zeros, seen)
        zeros = None if rates.zeros is None else rates.zeros.float()
        narrow = Rates(rates.log_rate.float(), zeros)
        of_totals = OfTotals(*self._moments(x.float(), narrow, seen))
        start = of_totals.mode(sizes.mean, sizes.variance).to(x)
        of_size = sizes.log_integral(integrand, start, _NODES_OF_VALUES, _STEPS_OF_VALUES)
        return of_size + row_log_coefficients(x, dispersion)

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
