"""The law of size factors against direct maximisation, and integrals against SciPy."""

import numpy as np
import pytest
import torch
from scipy import integrate, optimize, stats

from helpers import generator, tensor
from skae._nn.size_factors import OfTotals, SizeFactors, TotalMoments, quadrature


def settled(total, rate=1.0, excess=0.0, weight=None, **options):
    """Mean and variance of the law that these totals give."""
    sizes = SizeFactors(50.0).double()
    rows = (np.broadcast_to(a, np.shape(total)) for a in (total, rate, excess))
    weight = None if weight is None else tensor(weight)
    sizes.settle(TotalMoments(*map(tensor, rows)), weight, **options)
    return float(sizes.mean), float(sizes.variance)


def log_likelihood(law, total, rate=1.0, excess=0.0, weight=1.0):
    """Of totals, by Gauss and Hermite's rule with 400 nodes around each total."""
    mean, log_variance = law
    place = np.linspace(-8, 8, 1201)[:, None]
    center = np.log(np.maximum(total, 0.5) / rate)
    variance = np.exp(log_variance)
    known = 1 / (1 / variance + total / (1 + excess * total))
    center = center + known / variance * (mean - center)
    log_size = center + place * np.sqrt(known) * 1.3
    size = np.exp(log_size) * rate
    if excess:
        d = 1 / excess
        nats = stats.nbinom.logpmf(total, d, d / (d + size))
    else:
        nats = stats.poisson.logpmf(total, size)
    nats = nats + stats.norm.logpdf(log_size, mean, np.sqrt(variance))
    step = 1.3 * np.sqrt(known) * (place[1, 0] - place[0, 0])
    return float((weight * (np.log(np.exp(nats - nats.max(0)).sum(0) * step) + nats.max(0))).sum())


def make_totals(n=400, mean=3.0, deviation=0.7, rate=1.0, excess=0.0, seed=0):
    rng = np.random.default_rng(seed)
    expected = rate * np.exp(rng.normal(mean, deviation, n))
    if excess:
        expected = expected * rng.gamma(1 / excess, excess, n)
    return rng.poisson(expected).astype(float)


@pytest.mark.parametrize(("rate", "excess"), [(1.0, 0.0), (0.2, 0.0), (0.5, 0.3), (1.0, 1e-9)])
@pytest.mark.parametrize(("mean", "deviation"), [(1.0, 0.5), (5.0, 1.0), (9.0, 0.1)])
def test_the_law_is_that_of_the_sizes(mean, deviation, rate, excess):
    """Recovered within five sampling errors, from Poisson and overdispersed totals."""
    n = 4000
    found, variance = settled(make_totals(n, mean, deviation, rate, excess), rate, excess)
    noise = np.sqrt(deviation**2 + excess + np.exp(-mean) / rate)
    assert found == pytest.approx(mean, abs=6 * noise / n**0.5)
    assert variance**0.5 == pytest.approx(deviation, abs=6 * noise**2 / deviation / n**0.5)


@pytest.mark.parametrize("excess", [0.0, 0.4])
@pytest.mark.parametrize("mean", [0.5, 4.0])
def test_the_law_has_the_greatest_likelihood(mean, excess):
    """No law beside it has a greater one, by another rule of integration."""
    total = make_totals(150, mean, 0.8, excess=excess)
    found, variance = settled(total, excess=excess)
    best = log_likelihood((found, np.log(variance)), total, excess=excess)
    for step in ((0.15, 0.0), (-0.15, 0.0), (0.0, 0.4), (0.0, -0.4)):
        law = found + step[0], np.log(variance) + step[1]
        assert log_likelihood(law, total, excess=excess) < best


def test_weights_are_repetitions():
    total, weight = make_totals(60), np.tile([1.0, 2.0, 0.0], 20)
    repeated = np.repeat(total, weight.astype(int))
    np.testing.assert_allclose(settled(total, weight=weight), settled(repeated), rtol=1e-5)


def test_totals_that_vary_less_than_counts_do_have_one_size():
    """The law is then almost a point; equal totals and rows without counts are allowed."""
    mean, variance = settled(np.full(50, 400.0))
    assert mean == pytest.approx(np.log(400), abs=0.01)
    assert variance < 1e-2
    for total in (np.zeros(5), np.array([0.0, 0.0, 80.0]), np.array([7.0])):
        assert np.isfinite(settled(total)).all()


def test_a_share_weighs_new_rows_against_the_law_so_far():
    total = make_totals()
    whole = np.array(settled(total))
    expected = 0.3 * whole + 0.7 * np.array([np.log(50.0), 1.0])
    np.testing.assert_allclose(settled(total, share=0.3), expected, rtol=1e-6)


def test_draws_have_the_law():
    sizes = SizeFactors(50.0)
    sizes.mean.fill_(-2.0)
    sizes.variance.fill_(0.09)
    state = torch.get_rng_state()
    drawn = sizes.draw((5000,), generator())
    assert stats.kstest(drawn.numpy(), stats.norm(-2.0, 0.3).cdf).pvalue > 1e-3
    assert torch.equal(drawn, sizes.draw((5000,), generator()))
    assert torch.equal(torch.get_rng_state(), state)


# ---------------------------------------------------------------------- integrals


TOTALS = [0.0, 1.0, 40.0, 3e3]


@pytest.mark.parametrize("excess", [None, 1e-4, 0.5, 5.0])
@pytest.mark.parametrize(("mean", "variance"), [(3.0, 0.3), (-2.0, 4.0), (14.0, 1.0), (8.0, 1e-4)])
def test_modes_are_where_the_slope_is_zero(mean, variance, excess):
    """By a root search; for totals that are far from the law, too."""
    of = OfTotals(
        tensor(TOTALS), tensor([0.7] * len(TOTALS)), None if excess is None else tensor(excess)
    )
    found = of.mode(tensor(mean), tensor(variance)).numpy()

    def slope(at, total):
        size = 0.7 * np.exp(at)
        return (total - size) / (1 + (excess or 0.0) * size) - (at - mean) / variance

    expected = [optimize.brentq(slope, -400, 60, args=(t,), xtol=1e-12) for t in TOTALS]
    spread = np.sqrt(variance / (1 + variance * np.exp(expected) * 0.7))
    np.testing.assert_array_less(np.abs(found - expected), 0.5 * spread + 1e-6)


@pytest.mark.parametrize("excess", [None, 0.5])
@pytest.mark.parametrize(("mean", "variance"), [(3.0, 0.3), (-2.0, 4.0), (14.0, 1.0)])
def test_quadrature_is_that_of_scipy(mean, variance, excess):
    """Integrals of likelihoods of totals over the law, from any start."""
    more = None if excess is None else tensor(excess)
    of = OfTotals(tensor(TOTALS), tensor([0.7] * len(TOTALS)), more)
    law = tensor(mean), tensor(variance)
    for start in (of.mode(*law), law[0].expand(4)):
        nodes = quadrature(*law, of, start, 31, 2)
        found = torch.logsumexp(nodes.log_product, 0).numpy()
        for i, t in enumerate(TOTALS):

            def log_integrand(at, t=t):
                size = 0.7 * np.exp(at)
                if excess is None:
                    nats = t * at - size
                else:
                    nats = t * at - (t + 1 / excess) * np.log1p(excess * size)
                return nats - (at - mean) ** 2 / (2 * variance)

            grid = np.linspace(-60, 30, 90_001)
            values = log_integrand(grid)
            top, near = values.max(), grid[values > values.max() - 40]
            area = integrate.quad(
                lambda at, top=top: np.exp(log_integrand(at) - top),
                near[0] - 0.01,
                near[-1] + 0.01,
                points=[grid[values.argmax()]],
                limit=500,
            )[0]
            expected = np.log(area) + top - 0.5 * np.log(2 * np.pi * variance)
            assert found[i] == pytest.approx(expected, rel=1e-9, abs=2e-3)
