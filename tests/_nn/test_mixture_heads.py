"""Mixtures of one number, against torch.distributions, SciPy's laws and quadrature."""

import numpy as np
import pytest
import torch
from scipy import integrate, special, stats

from helpers import generator, normal64
from skae._nn.mixture_heads import LEAST_LOG_SCALE, Mixtures, _log_sum

KINDS = {"gaussian": stats.norm, "logistic": stats.logistic}
every_kind = pytest.mark.parametrize("kind", KINDS)


def mapped(function, mixtures):
    """The same mixtures in other arrays."""
    return Mixtures(*(function(part) for part in mixtures[:3]), mixtures.kind)


def some(kind, n=7, n_mixture=4, seed=0):
    """One mixture for each of n numbers."""
    weight, mean, log_scale = normal64(3, n, n_mixture, seed=seed)
    return Mixtures(weight.log_softmax(-1), 2 * mean, 0.5 * log_scale, kind)


def one(kind, weight, mean, scale, n=1):
    """The same mixture, n times."""
    parts = (torch.tensor(np.array(values, dtype=np.float64)) for values in (weight, mean, scale))
    weight, mean, scale = (part.expand(n, -1) for part in parts)
    return Mixtures(weight.log(), mean, scale.log(), kind)


def log_density(mixtures, z):
    """By SciPy's densities of the components; for Gaussians torch.distributions has the same."""
    weight, mean, log_scale = (part.numpy() for part in mixtures[:3])
    each = KINDS[mixtures.kind](mean, np.exp(log_scale)).logpdf(z.numpy()[..., None])
    return torch.from_numpy(special.logsumexp(weight + each, axis=-1))


def below(kind, weight, mean, scale, z):
    """The distribution function at numbers z."""
    return KINDS[kind](mean, scale).cdf(z[:, None]) @ np.asarray(weight)


# ---------------------------------------------------------------------------- densities


@every_kind
def test_densities_are_scipys(kind):
    """For numbers in arrays of two axes."""
    mixtures, z = mapped(lambda part: part.unflatten(0, (3, 5)), some(kind, 15)), 3 * normal64(3, 5)
    torch.testing.assert_close(mixtures.log_prob(z), log_density(mixtures, z))


def test_gaussian_densities_are_torchs():
    """MixtureSameFamily's."""
    mixtures, z = some("gaussian"), 3 * normal64(7, seed=1)
    law = torch.distributions.MixtureSameFamily(
        torch.distributions.Categorical(logits=mixtures.log_weight),
        torch.distributions.Normal(mixtures.mean, mixtures.log_scale.exp()),
    )
    torch.testing.assert_close(mixtures.log_prob(z), law.log_prob(z))


@every_kind
def test_densities_far_from_all_components(kind):
    """There the widest component decides, in logs."""
    mixtures = one(kind, [0.3, 0.7], [-1.0, 2.0], [0.5, 3.0], 2)
    z = np.array([-3000.0, 1e5])
    expected = np.log(0.7) + KINDS[kind](2.0, 3.0).logpdf(z)
    np.testing.assert_allclose(mixtures.log_prob(torch.tensor(z)), expected, rtol=1e-12)


@every_kind
def test_a_density_integrates_to_one(kind):
    """By quadrature."""
    mixtures = some(kind, 1)

    def density(z):
        return float(mixtures.log_prob(torch.tensor([z], dtype=torch.float64)).exp())

    assert integrate.quad(density, -60, 60, limit=400)[0] == pytest.approx(1.0, abs=1e-7)


# ------------------------------------------------------------------- what a network says


@every_kind
def test_a_networks_output(kind):
    """First log weights up to a constant, then means, then scales as a bounded exponential."""
    out = normal64(6, 5, 12, seed=3)
    out[..., 8:] *= 6
    found = Mixtures.from_network(out, kind)
    weight, mean, raw = np.split(out.numpy(), 3, axis=-1)
    np.testing.assert_allclose(found.log_weight.exp(), special.softmax(weight, -1), rtol=1e-12)
    np.testing.assert_array_equal(found.mean, mean)
    scale = np.exp(LEAST_LOG_SCALE) * (1 + np.exp(raw - LEAST_LOG_SCALE))
    np.testing.assert_allclose(found.log_scale.exp(), scale, rtol=1e-8)
    assert found.kind == kind


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64], ids=str)
def test_scales_have_a_floor(dtype):
    """Never below e^LEAST_LOG_SCALE, which is reached; far above it they are the exponential."""
    raw = torch.tensor([-1e4, -100.0, -20.0, LEAST_LOG_SCALE, 0.0, 3.0, 50.0], dtype=dtype)
    out = torch.zeros((7, 3), dtype=dtype)
    out[:, 2] = raw
    log_scale = Mixtures.from_network(out).log_scale[:, 0]
    assert (log_scale >= LEAST_LOG_SCALE).all()
    assert log_scale[:2].tolist() == [LEAST_LOG_SCALE] * 2
    assert log_scale[3].item() == pytest.approx(LEAST_LOG_SCALE + np.log(2), rel=1e-6)
    assert log_scale.diff()[2:].min() > 0
    np.testing.assert_allclose(log_scale[4:], raw[4:], rtol=1e-5, atol=2e-4)


@every_kind
def test_other_units_are_a_change_of_variables(kind):
    """p(c z) = p(z) / c, and a quantile is c times as large."""
    mixtures, z = some(kind), normal64(7, seed=1)
    log_unit = 2 * normal64(7, seed=2)
    wide = mixtures.in_units(log_unit)
    expected = log_density(mixtures, z) - log_unit
    torch.testing.assert_close(wide.log_prob(z * log_unit.exp()), expected)
    torch.testing.assert_close(wide.to_normal(z * log_unit.exp()), mixtures.to_normal(z))


@every_kind
def test_one_index_of_many(kind):
    """The mixtures at an index of the first axis, of the same kind."""
    mixtures = mapped(lambda part: part.unflatten(0, (3, 5)), some(kind, 15))
    z = normal64(3, 5)
    for i in range(3):
        torch.testing.assert_close(mixtures.of(i).log_prob(z[i]), log_density(mixtures, z)[i])


# -------------------------------------------------------------------------------- draws

PAIR = [
    ([0.2, 0.5, 0.3], [-3.0, 0.0, 1.0], [0.5, 0.1, 2.0]),
    ([0.9, 0.05, 0.05], [0.0, 5.0, -5.0], [1.0, 1.0, 0.3]),
]


@every_kind
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64], ids=str)
def test_draws_have_the_mixtures_law(kind, dtype):
    """By Kolmogorov and Smirnov, for two mixtures at once, whose draws are independent."""
    parts = zip(*(one(kind, *parts)[:3] for parts in PAIR), strict=True)
    pair = Mixtures(*(torch.cat(part).to(dtype) for part in parts), kind)
    drawn = mapped(lambda part: part.expand(20_000, -1, -1), pair).draw(generator(1))
    assert drawn.shape == (20_000, 2)
    assert drawn.dtype == dtype
    for values, parts in zip(drawn.double().numpy().T, PAIR, strict=True):
        assert stats.kstest(values, lambda z, parts=parts: below(kind, *parts, z)).pvalue > 1e-3
    assert abs(stats.spearmanr(*drawn.T).statistic) < 5 / np.sqrt(20_000)


@every_kind
def test_draws_follow_the_generator(kind):
    """The same seed gives the same numbers, another one others; torch's own is not read."""
    before = torch.get_rng_state()
    first, again, other = (some(kind, 20).draw(generator(seed)) for seed in (0, 0, 1))
    assert torch.equal(first, again)
    assert not torch.isclose(first, other).any()
    assert torch.equal(before, torch.get_rng_state())


# -------------------------------------------------------------------- normal quantiles

# Weights, means and scales.
SHAPES = {
    "one": ([1.0], [0.7], [0.3]),
    "overlapping": ([0.2, 0.5, 0.3], [-1.0, 0.2, 1.0], [0.5, 0.2, 1.5]),
    "far apart": ([0.5, 0.5], [-100.0, 100.0], [1.0, 0.3]),
    "rare": ([1 - 1e-6, 1e-6], [0.0, 300.0], [1.0, 0.1]),
    "narrow in wide": ([0.5, 0.5], [0.3, 0.0], [1e-4, 20.0]),
    "many": (np.arange(1, 21) / 210, np.linspace(-30, 30, 20), np.linspace(0.1, 2, 20)),
}
every_shape = pytest.mark.parametrize("parts", SHAPES.values(), ids=SHAPES.keys())


@every_kind
@every_shape
def test_normal_quantiles_are_scipys(parts, kind):
    """norm.ppf of the distribution function where that has digits."""
    _, mean, scale = parts
    z = np.concatenate([m + np.linspace(-4, 4, 81) * s for m, s in zip(mean, scale, strict=True)])
    share = below(kind, *parts, z)
    inside = (share > 1e-5) & (share < 1 - 1e-5)
    found = one(kind, *parts, len(z)).to_normal(torch.tensor(z)).numpy()
    assert inside.sum() > 40
    np.testing.assert_allclose(found[inside], stats.norm.ppf(share[inside]), atol=1e-9)


@every_kind
@every_shape
def test_normal_quantiles_in_the_tails(parts, kind):
    """Monotone and finite, 30 scales outside of all components."""
    _, mean, scale = (np.asarray(part) for part in parts)
    low, high = (mean - 30 * scale).min(), (mean + 30 * scale).max()
    z = torch.linspace(low, high, 5001, dtype=torch.float64)
    u = one(kind, *parts, len(z)).to_normal(z)
    assert u.isfinite().all()
    assert u.diff().min() >= -1e-12  # rounding, where components are far apart
    far = 20 if kind == "gaussian" else 7
    assert u[0] < -far
    assert u[-1] > far


@every_kind
@pytest.mark.parametrize("side", [-1.0, 1.0])
def test_normal_quantiles_far_out_have_all_digits(side, kind):
    """Those of the outermost component, to the log of its weight: by SciPy's log tails."""
    mixtures = one(kind, [0.4, 0.6], [-2.0 * side, side], [0.2, 2.0], 3)
    z = side * np.array([41.0, 51.0, 61.0])  # 20, 25 and 30 scales outside
    u = side * mixtures.to_normal(torch.tensor(z)).numpy()
    tail = np.log(0.6) + KINDS[kind](1.0, 2.0).logsf(side * z)
    np.testing.assert_allclose(stats.norm.logsf(u), tail, rtol=1e-11)


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64], ids=str)
def test_one_gaussian_is_linear(dtype):
    """(z - mu) / sigma, and back, in float64."""
    mixtures = mapped(lambda part: part.to(dtype), one("gaussian", [1.0], [-3.5], [0.25], 601))
    u = torch.linspace(-30, 30, 601, dtype=dtype)
    z = mixtures.mean[:, 0].double() + mixtures.log_scale[:, 0].double().exp() * u.double()
    found = mixtures.to_normal(z)
    assert found.dtype == torch.float64
    torch.testing.assert_close(found, u.double(), rtol=1e-12, atol=1e-12)
    torch.testing.assert_close(mixtures.from_normal(u), z, rtol=1e-13, atol=1e-13)


@every_kind
@every_shape
def test_from_normal_is_the_inverse(parts, kind):
    """To 1e-9, of |u| up to 8."""
    u = torch.linspace(-8, 8, 1601, dtype=torch.float64)
    mixtures = one(kind, *parts, len(u))
    z = mixtures.from_normal(u)
    assert z.diff().min() >= -1e-12
    assert (mixtures.to_normal(z) - u).abs().max() < 1e-9


@every_kind
def test_from_normal_of_unlike_mixtures(kind):
    """Each number by its own, in arrays of two axes; any of them alone gives the same."""
    mixtures = mapped(lambda part: part.unflatten(0, (40, 25)), some(kind, 1000, 5))
    u = 3 * normal64(40, 25, seed=1)
    z = mixtures.from_normal(u)
    assert (mixtures.to_normal(z) - u).abs().max() < 1e-9
    for i in range(5):
        alone = mixtures.of(i).of(i).from_normal(u[i, i])
        assert alone.item() == pytest.approx(z[i, i].item(), abs=1e-9)


@every_kind
def test_normal_quantiles_of_draws_are_normal(kind):
    """By Kolmogorov and Smirnov; and normal numbers become the mixture's."""
    mixtures = some(kind, 20_000)
    u = mixtures.to_normal(mixtures.draw(generator(5)))
    assert stats.kstest(u.numpy(), stats.norm.cdf).pvalue > 1e-3
    law = one(kind, *PAIR[0], 20_000)
    z = law.from_normal(normal64(20_000, seed=6)).numpy()
    assert stats.kstest(z, lambda z: below(kind, *PAIR[0], z)).pvalue > 1e-3


def test_log_sums_of_no_density_are_minus_infinity():
    values = np.array([[-np.inf, -np.inf], [0.0, -np.inf], [-800.0, -800.0]])
    np.testing.assert_allclose(_log_sum(values), [-np.inf, 0.0, np.log(2.0) - 800.0])
