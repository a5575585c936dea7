"""Likelihoods of counts against SciPy, enumeration and quadrature over size factors."""

import itertools

import numpy as np
import pytest
import torch
from scipy import special, stats

from helpers import generator, tensor
from skae._nn import count_densities
from skae._nn.count_densities import (
    log_coefficients,
    log_factorials,
    negative_binomial_row,
    row_log_coefficients,
    soft_limit,
)
from skae._nn.counts import Poisson
from skae._nn.negative_binomial import NegativeBinomial, ZeroInflatedNegativeBinomial
from skae._nn.size_factors import SizeFactors

KINDS = [Poisson, NegativeBinomial, ZeroInflatedNegativeBinomial]
SIZED = [False, True]
LOG_DISPERSION = np.array([-1.5, 0.3, 1.2, 3.0])


def make(kind, n_features=4, *, sized=False, mean=3.0, variance=0.4):
    """A likelihood in float64 whose features have different dispersions."""
    sizes = SizeFactors(float(np.exp(mean))) if sized else None
    if sizes is not None:
        sizes.variance.fill_(variance)
    likelihood = kind(n_features, sizes).double()
    if kind is not Poisson:
        likelihood.scaled_log_dispersion.data = tensor(LOG_DISPERSION[:n_features]) / 10
    return likelihood


def outputs(kind, *shape, n_features=4, seed=0):
    rng = np.random.default_rng(seed)
    return tensor(rng.normal(size=(*shape, n_features * kind.n_outputs)))


def counts(*shape, mean=3.0, seed=1):
    return tensor(np.random.default_rng(seed).poisson(mean, shape))


def log_mass(likelihood, x, log_rate, zeros=None):
    """By SciPy, of every count."""
    rate = np.exp(log_rate)
    if isinstance(likelihood, Poisson):
        return stats.poisson.logpmf(x, rate)
    d = likelihood.dispersion.detach().double().numpy()
    nats = stats.nbinom.logpmf(x, d, d / (d + rate))
    if zeros is None:
        return nats
    share = special.expit(zeros)
    return np.where(x == 0, np.log(share + (1 - share) * np.exp(nats)), np.log1p(-share) + nats)


def expected_values(likelihood, x, output, seen=None, log_size=None):
    """The nats of values by SciPy, with rates that sum to the total over what was seen."""
    x, output = np.asarray(x), output.detach().numpy()
    width = likelihood.n_features
    log_rate, zeros = output[..., :width], output[..., width:] if output.shape[-1] > width else None
    if likelihood.sizes is not None:
        profile = special.softmax(log_rate, -1)
        if log_size is None:
            share = profile if seen is None else profile * seen
            size = np.maximum(x.sum(-1), 1e-12) / share.sum(-1)
            log_size = np.log(size)
        log_rate = np.log(profile) + log_size[..., None]
    return log_mass(likelihood, x, log_rate, zeros)


# ----------------------------------------------------------------- log masses


@pytest.mark.parametrize("masked", [False, True])
@pytest.mark.parametrize("sized", SIZED)
@pytest.mark.parametrize("kind", KINDS)
def test_log_masses_are_scipys(kind, sized, masked):
    """Of values and of rows, given the size factors of the rows."""
    likelihood, x, output = make(kind, sized=sized), counts(30, 4), outputs(kind, 30)
    seen = tensor(np.random.default_rng(2).random((30, 4)) < 0.6) if masked else None
    if masked:
        seen[:, 0] = 1
        x = x * seen
    expected = expected_values(likelihood, x, output, None if seen is None else seen.numpy())
    found = likelihood.log_prob_of_rows(x, output, seen).detach().numpy()
    weight = np.ones((30, 4)) if seen is None else seen.numpy()
    np.testing.assert_allclose(found * weight, expected * weight, rtol=1e-8, atol=1e-8)
    for compute in (likelihood.row_log_prob, likelihood.row_log_given):
        rows = compute(x, output, seen).detach()
        np.testing.assert_allclose(rows, (expected * weight).sum(-1), rtol=1e-8, atol=1e-8)
    with torch.no_grad():  # another formula, for values of any size
        rows = likelihood.row_log_prob(x, output, seen)
    np.testing.assert_allclose(rows, (expected * weight).sum(-1), rtol=1e-8, atol=1e-8)


@pytest.mark.parametrize("n_x", [1, 5])
@pytest.mark.parametrize("sized", SIZED)
@pytest.mark.parametrize("kind", KINDS)
def test_draws_of_a_row_are_broadcast(kind, sized, n_x):
    """Rows (n, 1, D) against outputs (n, K, D) have the values and gradients of copies."""
    likelihood, x = make(kind, sized=sized), counts(3, n_x, 4)
    output = outputs(kind, 3, 5).requires_grad_()
    seen = tensor(np.random.default_rng(2).random((3, 1, 4)) < 0.7)
    x = x * seen
    weight = tensor(np.random.default_rng(3).normal(size=(3, 5)))
    found = []
    for rows, mask in ((x, seen), (x.expand(3, 5, 4), seen.expand(3, 5, 4))):
        value = likelihood.row_log_prob(rows, output, mask)
        of = [output, *likelihood.parameters()]
        found.append((value.detach(), *torch.autograd.grad((weight * value).sum(), of)))
        with torch.no_grad():
            found[-1] += (likelihood.row_log_marginal(rows, output, mask),)
    for one, other in zip(*found, strict=True):
        torch.testing.assert_close(one, other)


@pytest.mark.parametrize("masked", [False, True])
@pytest.mark.parametrize("zeros", [False, True])
def test_gradients_of_negative_binomial_rows_are_finite_differences(zeros, masked):
    x, logit = counts(6, 4, mean=1.0), outputs(NegativeBinomial, 6).requires_grad_()
    dispersion = tensor(np.exp(LOG_DISPERSION)).requires_grad_()
    log_odds = outputs(NegativeBinomial, 6, seed=5).requires_grad_() if zeros else None
    seen = tensor(np.random.default_rng(2).random((6, 4)) < 0.6) if masked else None
    assert (x == 0).any()
    assert torch.autograd.gradcheck(
        lambda *given: negative_binomial_row(x, given[0], given[1], (*given, None)[2], seen),
        (logit, dispersion, *([log_odds] if zeros else [])),
    )


@pytest.mark.parametrize("sized", SIZED)
@pytest.mark.parametrize("kind", KINDS)
def test_gradients_in_outputs_and_dispersions_are_finite_differences(kind, sized):
    """Of the rows that are trained, through the softmax and the size factors."""
    likelihood, x = make(kind, sized=sized), counts(5, 4)
    names = [name for name, _ in likelihood.named_parameters()]

    def rows(output, *values):
        given = dict(zip(names, values, strict=True))
        return torch.func.functional_call(likelihood, given, (x, output), strict=False)

    likelihood.forward = likelihood.row_log_prob
    values = [p.detach().clone().requires_grad_() for p in likelihood.parameters()]
    assert torch.autograd.gradcheck(rows, (outputs(kind, 5).requires_grad_(), *values))


def test_the_gradient_that_stacks_use_is_the_same():
    """The slope of a row that pretraining takes."""
    likelihood, x, output = make(Poisson), counts(5, 4), outputs(Poisson, 5).requires_grad_()
    nats, slope = likelihood.row_log_prob_and_slope(x, output.detach(), None)
    value = likelihood.row_log_prob(x, output)
    (gradient,) = torch.autograd.grad(value.sum(), output)
    torch.testing.assert_close(nats, value.detach())
    torch.testing.assert_close(slope, gradient)


@pytest.mark.parametrize("log_dispersion", [4.0, 9.0, 30.0])
def test_large_dispersions_give_the_distribution_of_poisson(log_dispersion):
    """To the order of 1/dispersion, also in float32, and for outputs beyond the limit."""
    x, output = counts(40, 4).float(), outputs(Poisson, 40).float()
    likelihood = NegativeBinomial(4)
    likelihood.scaled_log_dispersion.data.fill_(log_dispersion / 10)
    expected = Poisson(4).row_log_prob(x, output)
    error = (likelihood.row_log_prob(x, output) - expected).abs().detach()
    squares = (x - output.exp()).square() + x + output.exp()
    bound = squares.sum(-1) / (2 * likelihood.dispersion[0].detach()) + 2e-4
    assert (error <= bound).all()
    assert likelihood.dispersion[0] <= np.exp(14)


@pytest.mark.parametrize("dispersion", [1e-3, 0.4, 29.0, 31.0, 1e3, 1e6])
def test_log_coefficients_are_scipys(dispersion):
    """On both sides of where Stirling's formula begins; float32 keeps what float64 has."""
    x = np.array([0.0, 1.0, 2.0, 17.0, 400.0])
    # Γ(x + d) / Γ(d) is a product of x factors.
    rising = [np.log(dispersion + np.arange(int(n))).sum() for n in x]
    expected = np.array(rising) - special.gammaln(x + 1)
    found = log_coefficients(tensor(x), tensor(dispersion))
    np.testing.assert_allclose(found, expected, rtol=1e-6, atol=1e-6)
    narrow = log_coefficients(tensor(x, torch.float32), tensor(dispersion, torch.float32))
    np.testing.assert_allclose(narrow, expected, rtol=2e-6, atol=2e-3)


@pytest.mark.parametrize("mean", [0.05, 3.0])
def test_sums_over_positive_counts_are_sums_over_all(mean, monkeypatch):
    """Whether the special functions are computed for all counts or for positive ones."""
    x, dispersion = counts(7, 2, 4, mean=mean), tensor(np.exp(LOG_DISPERSION))
    for share in (0.0, 1.1):  # all counts, and only those that are positive
        monkeypatch.setattr(count_densities, "_DENSE", share)
        found = row_log_coefficients(x, dispersion), log_factorials(x)
        expected = log_coefficients(x, dispersion), torch.lgamma(x + 1)
        for one, other in zip(found, expected, strict=True):
            torch.testing.assert_close(one, other.sum(-1))


# ------------------------------------------------------- integrals over size factors


def by_quadrature(likelihood, x, output, seen=None):
    """log p(x), by the trapezoidal rule over 200 001 log size factors."""
    mean, variance = (float(t) for t in (likelihood.sizes.mean, likelihood.sizes.variance))
    seen = np.ones(len(x)) if seen is None else seen

    def integrand(log_size):
        nats = expected_values(likelihood, x[None], output[None], log_size=log_size) * seen
        return nats.sum(-1) + stats.norm.logpdf(log_size, mean, variance**0.5)

    grid = np.linspace(-30.0, 40.0, 20_001)
    values = integrand(grid)
    near = grid[values > values.max() - 50]
    grid = np.linspace(near[0] - 0.01, near[-1] + 0.01, 200_001)
    values = np.concatenate([integrand(part) for part in np.array_split(grid, 20)])
    return special.logsumexp(values) + np.log(grid[1] - grid[0])


ROWS = {
    "usual": [3, 7, 2, 9],
    "empty": [0, 0, 0, 0],
    "one count": [0, 1, 0, 0],
    "bright": [3000, 7000, 2, 900],
    "lopsided": [0, 0, 500, 0],
}


@pytest.mark.parametrize("row", ROWS.values(), ids=ROWS)
@pytest.mark.parametrize("variance", [0.01, 0.4, 4.0])
@pytest.mark.parametrize("kind", KINDS)
def test_marginals_are_those_of_quadrature(kind, variance, row):
    """Also of rows that are far from the law of size factors."""
    likelihood = make(kind, sized=True, variance=variance)
    x, output = np.array(row, float), outputs(kind)
    for seen in (None, np.array([1.0, 0.0, 1.0, 1.0])):
        y = x if seen is None else x * seen
        mask = None if seen is None else tensor(seen)[None]
        with torch.no_grad():
            found = likelihood.row_log_marginal(tensor(y)[None], output[None], mask)
        expected = by_quadrature(likelihood, y, output, seen)
        # A row of zeros may be explained by small rates and by additional zeros: two modes.
        error = 0.02 if kind is ZeroInflatedNegativeBinomial else 2e-3
        assert float(found) == pytest.approx(expected, abs=error)


@pytest.mark.parametrize("mean", [np.log(1e6), np.log(1e9)])
@pytest.mark.parametrize("kind", KINDS)
def test_marginals_of_huge_counts(kind, mean):
    """In float32, in which the terms of a row are a billion times larger than their sum."""
    likelihood = make(kind, sized=True, mean=float(mean), variance=0.5).float()
    output = outputs(kind).float()
    rng = np.random.default_rng(0)
    profile = special.softmax(output[:4].numpy())
    for factor in (1.0, 0.01, 30.0):
        x = np.float32(rng.poisson(factor * np.exp(mean) * profile)).astype(float)
        with torch.no_grad():
            found = likelihood.row_log_marginal(tensor(x, torch.float32)[None], output[None])
        expected = by_quadrature(likelihood.double(), x, output.double())
        likelihood.float()
        assert float(found) == pytest.approx(expected, rel=1e-6, abs=2e-3)


@pytest.mark.parametrize("kind", [Poisson, NegativeBinomial])
def test_given_size_factors_huge_counts_keep_their_digits(kind):
    """Scores of rows of 1e8 counts in float32."""
    likelihood, output = make(kind, sized=True).float(), outputs(kind).float()
    x = np.float32(np.random.default_rng(0).poisson(1e8 * special.softmax(output.numpy())))
    with torch.no_grad():
        found = likelihood.row_log_given(torch.tensor(x)[None], output[None])
    expected = expected_values(likelihood, x.astype(float), output.double()).sum()
    assert float(found) == pytest.approx(expected, abs=0.02)


@pytest.mark.parametrize("missing", [False, True])
@pytest.mark.parametrize("kind", KINDS)
def test_marginals_sum_to_one(kind, missing):
    """Over all rows of three features, or of two of them where the third is missing."""
    likelihood = make(kind, 3, sized=True, mean=0.5, variance=0.1)
    if kind is not Poisson:
        likelihood.scaled_log_dispersion.data = tensor([0.8, 1.0, 1.5]) / 10
    output = 0.5 * outputs(kind, n_features=3)
    most = 26
    rows = itertools.product(range(most), range(most), range(1 if missing else most))
    x = tensor(list(rows))
    seen = tensor([1.0, 1.0, 0.0]).expand(x.shape) if missing else None
    with torch.no_grad():
        found = likelihood.row_log_marginal(x, output.expand(len(x), -1), seen)
    assert float(found.exp().sum()) == pytest.approx(1.0, abs=3e-4)


def test_a_marginal_does_not_depend_on_the_rows_beside_it():
    """Rows far from the mode take more steps, which others must not take."""
    likelihood = make(NegativeBinomial, sized=True, mean=12.0, variance=1.0).float()
    x = tensor([[3, 70, 2, 9], [0, 0, 0, 0], [3000, 70, 200, 9000]], torch.float32)
    output = outputs(NegativeBinomial, 3).float()
    with torch.no_grad():
        together = likelihood.row_log_marginal(x, output)
        alone = [likelihood.row_log_marginal(x[[i]], output[[i]])[0] for i in range(3)]
    np.testing.assert_allclose(together, alone, rtol=1e-7)


@pytest.mark.parametrize("kind", KINDS)
def test_without_size_factors_marginals_are_log_masses(kind):
    likelihood, x, output = make(kind), counts(5, 4), outputs(kind, 5)
    found = likelihood.row_log_marginal(x, output).detach()
    np.testing.assert_allclose(found, expected_values(likelihood, x, output).sum(-1), rtol=1e-9)


# ----------------------------------------------------------------- draws and means


@pytest.mark.parametrize("sized", SIZED)
@pytest.mark.parametrize("kind", KINDS)
def test_draws_at_a_size_have_the_moments(kind, sized):
    """Means, variances and the share of zeros by SciPy; whole numbers."""
    likelihood, output = make(kind, sized=sized), outputs(kind)
    n = 40_000
    if sized:
        log_size = torch.full((n,), 3.5, dtype=torch.float64)
        drawn = likelihood.draw_at(output.expand(n, -1), log_size, generator())
        profile = special.softmax(output[:4].numpy())
        mean_found = likelihood.mean_at(output[None], log_size[:1])[0]
        rate = np.exp(3.5) * profile
    else:
        drawn = likelihood.draw(output.expand(n, -1), generator())
        mean_found = likelihood.mean(output)
        rate = np.exp(output[:4].numpy())
    x = drawn.detach().numpy()
    share = special.expit(output[4:].numpy()) if kind.n_outputs == 2 else np.zeros(4)
    noise = np.zeros(4) if kind is Poisson else np.exp(-LOG_DISPERSION)
    mean = (1 - share) * rate
    variance = (1 - share) * (rate + noise * rate**2 + rate**2) - mean**2
    np.testing.assert_array_equal(x, np.round(x))
    np.testing.assert_allclose(mean_found.detach(), mean, rtol=1e-6)
    np.testing.assert_allclose(x.mean(0), mean, atol=5 * (variance / n).max() ** 0.5)
    np.testing.assert_allclose(x.var(0), variance, rtol=0.12)
    log_zero = log_mass(
        likelihood, np.zeros(4), np.log(rate), output[4:].numpy() if any(share) else None
    )
    np.testing.assert_allclose((x == 0).mean(0), np.exp(log_zero), atol=0.015)


@pytest.mark.parametrize("sized", SIZED)
@pytest.mark.parametrize("kind", KINDS)
def test_draws_depend_on_the_generator_alone(kind, sized):
    likelihood, output = make(kind, sized=sized), outputs(kind).expand(20, -1)
    state = torch.get_rng_state()
    one, again, other = (likelihood.draw(output, generator(seed)) for seed in (0, 0, 1))
    assert torch.equal(one, again)
    assert not torch.equal(one, other)
    assert torch.equal(torch.get_rng_state(), state)


@pytest.mark.parametrize("kind", KINDS)
def test_draws_have_sizes_of_the_law(kind):
    """The mean of log totals of bright rows is that of the law, and so is their variance."""
    likelihood = make(kind, sized=True, mean=9.0, variance=0.25)
    if kind is not Poisson:
        likelihood.scaled_log_dispersion.data.fill_(9.0 / 10)
    output = outputs(kind)
    output[4:] = -30.0  # no additional zeros
    totals = likelihood.draw(output.expand(8000, -1), generator()).sum(-1).detach().numpy()
    assert np.log(totals).mean() == pytest.approx(9.0, abs=5 * 0.5 / 8000**0.5)
    assert np.log(totals).std() == pytest.approx(0.5, rel=0.05)


@pytest.mark.parametrize("seen", [(1, 0, 1, 1), (0, 1, 0, 0), (0, 0, 0, 0)])
@pytest.mark.parametrize("kind", KINDS)
def test_imputed_values_integrate_over_the_size_factor(kind, seen):
    """Means given the observed counts, against a fine grid of sizes; without any, of the law."""
    likelihood, output, n = make(kind, sized=True), outputs(kind), 20_000
    seen = tensor(seen)
    x = tensor([8.0, 3.0, 30.0, 2.0]) * seen
    grid = np.linspace(3.0 - 8 * 0.4**0.5, 3.0 + 8 * 0.4**0.5, 4001)
    nats = expected_values(likelihood, x, output, log_size=grid) @ seen.numpy()
    weight = np.exp(nats) * stats.norm(3.0, 0.4**0.5).pdf(grid)
    size = (weight * np.exp(grid)).sum() / weight.sum()
    expected = special.softmax(output[:4].numpy()) * size
    if kind.n_outputs == 2:
        expected = expected * special.expit(-output[4:].numpy())
    found = likelihood.imputed_mean(x, output, seen).detach()
    np.testing.assert_allclose(found, expected, rtol=2e-3)
    rows = [t.expand(n, -1) for t in (x, output, seen)]
    drawn = likelihood.imputed_draw(*rows, generator()).detach().numpy()
    np.testing.assert_array_equal(drawn, drawn.round())
    errors = drawn.std(0) / n**0.5
    assert (np.abs(drawn.mean(0) - expected) < 5 * errors + 0.02 * expected).all()


@pytest.mark.parametrize("kind", KINDS)
def test_means_of_rows_have_their_totals(kind):
    """Over the observed features; rows without any have the common size factor."""
    likelihood, output = make(kind, sized=True), outputs(kind)
    output[4:] = -30.0
    x = tensor([[8.0, 0.0, 30.0, 2.0], [0.0, 0.0, 0.0, 0.0], [0.0, 0.0, 0.0, 0.0]])
    seen = tensor([[1.0, 0.0, 1.0, 1.0], [1.0, 1.0, 1.0, 0.0], [0.0, 0.0, 0.0, 0.0]])
    mean = likelihood.mean_of_rows(x, output.expand(3, -1), seen).detach()
    np.testing.assert_allclose((mean * seen).sum(1), [40.0, 0.0, 0.0], atol=1e-6)
    assert float(mean[2].sum()) == pytest.approx(np.exp(3.0), rel=1e-5)


@pytest.mark.parametrize("sized", SIZED)
@pytest.mark.parametrize("kind", KINDS)
def test_uniform_numbers_tell_counts_by_the_inverse_distribution(kind, sized):
    likelihood, output = make(kind, sized=sized), outputs(kind)
    uniform = tensor(np.linspace(0.003, 0.997, 61))[:, None].expand(-1, 4)
    found = likelihood.at(output.expand(61, -1), uniform).numpy()
    log_rate = output[:4].numpy()
    if sized:
        log_rate = np.log(special.softmax(log_rate)) + 3.0
    zeros = output[4:].numpy() if kind.n_outputs == 2 else None
    values = np.arange(2000)[:, None]
    cdf = np.exp(log_mass(likelihood, values, log_rate, zeros)).cumsum(0)
    expected = (cdf[:, None] < uniform.numpy()).sum(0)
    np.testing.assert_array_equal(found, expected)


@pytest.mark.parametrize("kind", KINDS)
def test_the_ends_of_the_uniform_numbers_tell_counts(kind):
    """Also where a count is certainly an additional zero."""
    likelihood, output = make(kind).float(), outputs(kind, 3).float()
    if kind.n_outputs == 2:
        output[0, 4:], output[1, 4:] = 90.0, -90.0
    for u in (0.0, 1 - 2.0**-24):
        found = likelihood.at(output, torch.full((3, 4), u))
        assert found.isfinite().all()
        assert (found >= 0).all()


@pytest.mark.parametrize("sized", SIZED)
@pytest.mark.parametrize("kind", KINDS)
def test_natural_outputs_have_the_mean_profile(kind, sized):
    """Rates in the ratios of the mean row; additional zeros begin at log-odds of -2."""
    likelihood, mean = make(kind, sized=sized), tensor([4.0, 0.5, 30.0, 1.0])
    output = likelihood.natural(mean)
    assert output.shape == (4 * kind.n_outputs,)
    expected = mean * np.exp(3.0) / mean.sum() if sized else mean
    expected = expected * (special.expit(2.0) if kind.n_outputs == 2 else 1)
    np.testing.assert_allclose(likelihood.mean(output), expected, rtol=1e-6)
    assert likelihood.natural(torch.zeros(4).double()).isfinite().all()


@pytest.mark.parametrize("kind", [NegativeBinomial, ZeroInflatedNegativeBinomial])
def test_moments_of_totals_are_those_of_draws(kind):
    likelihood, output, n = make(kind, sized=True), outputs(kind), 60_000
    rows = likelihood.totals(counts(1, 4), output[None], tensor([[1.0, 0.0, 1.0, 1.0]]))
    log_size = torch.full((n,), 4.0, dtype=torch.float64)
    drawn = likelihood.draw_at(output.expand(n, -1), log_size, generator()).detach().numpy()
    totals = drawn[:, [0, 2, 3]].sum(1)
    mean = float(rows.rate.detach()) * np.exp(4.0)
    assert totals.mean() == pytest.approx(mean, rel=0.02)
    assert totals.var() == pytest.approx(mean + float(rows.excess.detach()) * mean**2, rel=0.06)
    assert float(rows.total) == counts(1, 4).sum()


@pytest.mark.parametrize("kind", [Poisson, NegativeBinomial])
def test_information_is_the_variance_of_the_slope(kind):
    """By finite differences of SciPy's log mass, and by sums over all counts."""
    likelihood, log_rate = make(kind), tensor([-1.0, 0.5, 1.5, 2.0])
    x = np.arange(1500.0)[:, None]
    slope, information = likelihood.information(tensor(x), log_rate)
    step = 1e-5
    up, down = (log_mass(likelihood, x, log_rate.numpy() + s) for s in (step, -step))
    np.testing.assert_allclose(slope.detach()[:60], ((up - down) / (2 * step))[:60], atol=1e-5)
    mass = np.exp(log_mass(likelihood, x, log_rate.numpy()))
    expected = (mass * slope.detach().numpy() ** 2).sum(0)
    np.testing.assert_allclose(
        np.broadcast_to(information.detach(), slope.shape)[0], expected, rtol=1e-4
    )


# ----------------------------------------------------------------------- soft limits


def test_soft_limits_always_have_a_slope():
    """Values up to the limit stay; beyond it they grow, more slowly, without a jump."""
    x = torch.linspace(-5.0, 50.0, 5501, dtype=torch.float64).requires_grad_()
    found = soft_limit(x, 3.0)
    (slope,) = torch.autograd.grad(found.sum(), x)
    below = x.detach() < 3 - 1e-9
    assert torch.equal(found.detach()[below], x.detach()[below])
    assert (slope > 0).all()
    assert (slope <= 1).all()
    assert (slope.diff().abs() < 0.011).all()
    far = x.detach()[~below].numpy()
    np.testing.assert_allclose(found.detach()[~below], 3 + np.log1p(far - 3), atol=1e-9)


@pytest.mark.parametrize("kind", KINDS)
def test_values_and_gradients_are_finite_everywhere(kind):
    """For outputs far beyond any rate, and for dispersions far beyond any count, in float32."""
    for sized in SIZED:
        likelihood = make(kind, sized=sized).float()
        far = tensor([0.0, 1e-6, 50.0, 1e4], torch.float32)
        if kind is not Poisson:
            likelihood.scaled_log_dispersion.data = (
                tensor([-1e4, -12.0, 12.0, 1e4], torch.float32) / 10
            )
        output = torch.cat([far, far.flip(0)])[: 4 * kind.n_outputs].requires_grad_()
        for x in ([0.0, 0.0, 0.0, 0.0], [1.0, 0.0, 1e6, 3.0]):
            values = likelihood.row_log_prob(tensor(x, torch.float32), output)
            of = [output, *likelihood.parameters()]
            assert values.isfinite().all()
            assert all(g.isfinite().all() for g in torch.autograd.grad(values.sum(), of))
            with torch.no_grad():
                found = likelihood.row_log_marginal(tensor(x, torch.float32)[None], output[None])
            assert found.isfinite().all()
