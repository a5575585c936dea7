"""Densities, means, draws and noise of the likelihoods, against SciPy and quadrature."""

import numpy as np
import pytest
import torch
from scipy import integrate, optimize, special, stats

from helpers import tensor
from skae._nn.count_densities import poisson_log_mass
from skae._nn.likelihoods import (
    LIKELIHOODS,
    Bernoulli,
    ContinuousBernoulli,
    Gaussian,
    Laplace,
    NoiseSums,
    Poisson,
    bernoulli_log_mass,
    bernoulli_row_log_mass,
    continuous_bernoulli_log_density,
    continuous_bernoulli_mean,
    gaussian_log_density,
    laplace_log_density,
    likelihood_module,
)
from skae._nn.negative_binomial import NegativeBinomial
from skae._training.data import Batch

# Around zero, on both sides of where the series ends (0.3 and 0.6), and far out.
LOGITS = [0.0, 1e-8, 1e-4, 0.29, 0.31, 0.59, 0.61, 1.0, 3.0, 12.0, 40.0, 80.0]
LOGITS = np.array([*(-a for a in LOGITS[:0:-1]), *LOGITS])
REALS = np.linspace(-4.0, 5.0, 19)
COUNTS = np.arange(0.0, 40.0, 3.0)
# Negative binomials have parameters of their own; tests of them are in test_counts.py.
PLAIN = [name for name, kind in LIKELIHOODS.items() if not issubclass(kind, NegativeBinomial)]
UNITS = np.linspace(0.0, 1.0, 11)


def grid(function, x, output, dtype=torch.float64):
    """A density at every pair of a value and an output."""
    return function(tensor(x, dtype)[:, None], tensor(output, dtype)[None]).double().numpy()


def log_integral(logit):
    """log of the integral of e^(logit x) over [0, 1], by quadrature of what is at most 1."""
    top = max(logit, 0.0)
    points = np.unique(np.clip([np.abs(1 / logit), 1 - np.abs(1 / logit)], 0, 1)) if logit else None
    return top + np.log(integrate.quad(lambda x: np.exp(logit * x - top), 0, 1, points=points)[0])


def continuous_bernoulli_by_quadrature(logit, moment=0):
    """E[x^moment]."""
    log_norm = log_integral(logit)
    width = min(1.0, 1 / abs(logit)) if logit else 1.0
    return integrate.quad(
        lambda x: x**moment * np.exp(logit * x - log_norm), 0, 1, points=[width / 2, 1 - width / 2]
    )[0]


def noise_module(kind, noise="scalar", *, n_features=3, mean_variance=1.0):
    return kind(n_features, noise, mean_variance)


# ------------------------------------------------------------------------- densities


@pytest.mark.parametrize("variance", [1e-4, 0.7, 1.0, 300.0])
@pytest.mark.parametrize(
    ("function", "law"),
    [
        (gaussian_log_density, lambda mean, variance: stats.norm(mean, variance**0.5)),
        (laplace_log_density, lambda mean, variance: stats.laplace(mean, (variance / 2) ** 0.5)),
    ],
)
def test_densities_of_reals_are_scipys(function, law, variance):
    """And have this mean and variance."""
    x = REALS[:, None] * variance**0.5 + REALS  # SciPy's Laplace density underflows far out
    found = function(tensor(x), tensor(REALS), tensor(variance))
    expected = law(REALS, variance)
    np.testing.assert_allclose(found, expected.logpdf(x), rtol=1e-11, atol=1e-11)
    np.testing.assert_allclose(expected.var(), variance)
    np.testing.assert_allclose(expected.mean(), REALS)


@pytest.mark.parametrize("logit", LOGITS)
def test_bernoulli_mass_is_scipys(logit):
    """Of bits; of grey values it is the mean of both with the value as the weight."""
    one, zero = special.log_expit(logit), special.log_expit(-logit)
    found = bernoulli_log_mass(tensor(UNITS), tensor(logit)).numpy()
    np.testing.assert_allclose(found, UNITS * one + (1 - UNITS) * zero, rtol=1e-13, atol=1e-13)
    if abs(logit) < 15:
        bits = stats.bernoulli(special.expit(logit)).logpmf([0, 1])
        np.testing.assert_allclose(found[[0, -1]], bits, rtol=1e-9, atol=1e-9)


def test_poisson_mass_is_scipys():
    """For rates from e^-12 to e^12."""
    log_rate = np.linspace(-12.0, 12.0, 25)
    found = grid(poisson_log_mass, COUNTS, log_rate)
    expected = stats.poisson(np.exp(log_rate)).logpmf(COUNTS[:, None])
    np.testing.assert_allclose(found, expected, rtol=1e-11, atol=1e-11)


@pytest.mark.parametrize("logit", LOGITS)
def test_continuous_bernoulli_density_is_that_of_quadrature(logit):
    """e^(logit x) over its integral, from logits that vanish to those of 80."""
    found = continuous_bernoulli_log_density(tensor(UNITS), tensor(logit)).numpy()
    np.testing.assert_allclose(found, logit * UNITS - log_integral(logit), rtol=1e-9, atol=1e-9)


@pytest.mark.parametrize("logit", LOGITS)
def test_continuous_bernoulli_integrates_to_one(logit):
    """By Gauss and Legendre, on a grid that is fine where the mass is."""
    nodes, weights = np.polynomial.legendre.leggauss(40)
    edges = np.unique([0.0, 1.0, *np.geomspace(1e-3, 0.5, 9), *(1 - np.geomspace(1e-3, 0.5, 9))])
    middle, half = (edges[1:] + edges[:-1]) / 2, np.diff(edges) / 2
    x = (middle[:, None] + half[:, None] * nodes).ravel()
    density = continuous_bernoulli_log_density(tensor(x), tensor(logit)).exp().numpy()
    assert density @ (half[:, None] * weights).ravel() == pytest.approx(1.0, rel=1e-10)


@pytest.mark.parametrize("logit", LOGITS)
def test_continuous_bernoulli_mean_is_that_of_quadrature(logit):
    found = float(continuous_bernoulli_mean(tensor(logit)))
    assert found == pytest.approx(continuous_bernoulli_by_quadrature(logit, 1), rel=1e-8)
    flipped = float(continuous_bernoulli_mean(tensor(-logit)))
    assert found + flipped == pytest.approx(1.0, rel=1e-14)


def test_continuous_bernoulli_mean_rises():
    """Also where the series ends, in float32."""
    logit = torch.linspace(-20, 20, 4001)
    mean = continuous_bernoulli_mean(logit)
    assert (mean.diff() > -1e-6).all()
    assert mean[0] < 0.06 < 0.94 < mean[-1]


DENSITIES = {
    "gaussian": (lambda x, m: gaussian_log_density(x, m, tensor(0.3)), REALS, REALS + 0.1),
    "laplace": (lambda x, m: laplace_log_density(x, m, tensor(0.3)), REALS, REALS + 0.1),
    "bernoulli": (bernoulli_log_mass, UNITS, LOGITS),
    "continuous_bernoulli": (continuous_bernoulli_log_density, UNITS, LOGITS),
    "continuous_bernoulli_mean": (lambda x, a: continuous_bernoulli_mean(a + 0 * x), [0], LOGITS),
    "poisson": (poisson_log_mass, COUNTS, np.linspace(-8.0, 6.0, 20)),
}


@pytest.mark.parametrize(("function", "x", "output"), DENSITIES.values(), ids=DENSITIES)
def test_gradients_are_finite_differences(function, x, output):
    """In the output: what training follows; central differences in float64."""
    at = tensor(np.broadcast_to(output, (len(x), len(output)))).requires_grad_()
    values = tensor(x)[:, None]
    (found,) = torch.autograd.grad(function(values, at).sum(), at)
    step = 1e-5
    with torch.no_grad():
        expected = (function(values, at + step) - function(values, at - step)) / (2 * step)
    scale = 1 + function(values, at).detach().abs().max()
    np.testing.assert_allclose(found, expected, rtol=1e-6, atol=1e-9 * float(scale))


def test_the_gradient_in_the_variance_is_a_finite_difference():
    for function in (gaussian_log_density, laplace_log_density):
        variance = tensor([0.2, 1.0, 30.0]).requires_grad_()
        x, mean = tensor(1.3), tensor(0.4)
        (found,) = torch.autograd.grad(function(x, mean, variance).sum(), variance)
        with torch.no_grad():
            up, down = (function(x, mean, variance * (1 + s)) for s in (1e-6, -1e-6))
        expected = (up - down) / (2e-6 * variance.detach())
        np.testing.assert_allclose(found, expected, rtol=1e-7)


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
@pytest.mark.parametrize("name", ["bernoulli", "continuous_bernoulli", "poisson"])
def test_values_and_gradients_are_finite_everywhere(name, dtype):
    """At zero, at 100 and beyond any sensible output, at both ends of the support."""
    module = LIKELIHOODS[name]()
    far = [0.0, 1e-30, 1e-6, 0.3, 0.6, 50.0, 88.0, 100.0, 1e4]
    output = tensor([*far, *(-a for a in far)], dtype).requires_grad_()
    x = tensor([[0.0], [0.5], [1.0]] if name != "poisson" else [[0.0], [1.0], [1000.0]], dtype)
    for values in (module.log_prob(x, output), module.mean(output)):
        (gradient,) = torch.autograd.grad(values.sum(), output)
        assert values.isfinite().all()
        assert gradient.isfinite().all()


@pytest.mark.parametrize(("function", "x", "output"), DENSITIES.values(), ids=DENSITIES)
def test_float32_is_as_exact_as_float32_can_be(function, x, output):
    x, output = np.float32(x), np.float32(output)
    if function is poisson_log_mass:
        output = output[np.abs(output) > 0]
    exact, found = grid(function, x, output), grid(function, x, output, torch.float32)
    size = 1 + np.abs(x).max() * np.abs(output).max()
    np.testing.assert_allclose(found, exact, rtol=3e-6, atol=1e-6 * size)


# ---------------------------------------------------------------- modules: mean, draws


@pytest.mark.parametrize("kind", [Gaussian, Laplace])
def test_the_output_is_the_mean_of_reals(kind):
    output = torch.randn(4, 3, generator=torch.Generator().manual_seed(0))
    assert torch.equal(noise_module(kind).mean(output), output)


@pytest.mark.parametrize(
    ("module", "output", "law"),
    [
        (Bernoulli(), LOGITS, lambda a: stats.bernoulli(special.expit(a))),
        (Poisson(), REALS, lambda a: stats.poisson(np.exp(a))),
    ],
    ids=["bernoulli", "poisson"],
)
def test_means_are_scipys(module, output, law):
    np.testing.assert_allclose(module.mean(tensor(output)), law(output).mean(), rtol=1e-12)


def means_of(name):
    """Means within the reach of a likelihood."""
    if name in ("gaussian", "laplace"):
        return np.linspace(-3.0, 3.0, 13)
    return np.linspace(0.02, 0.98, 25) * (100.0 if name == "poisson" else 1.0)


@pytest.mark.parametrize("name", PLAIN)
def test_natural_inverts_the_mean(name):
    """The decoder starts at the output whose mean is the mean row."""
    module = likelihood_module(name, 3, "scalar", unit=1.0, mean_variance=1.0)
    mean = tensor(means_of(name), torch.float32)
    np.testing.assert_allclose(module.mean(module.natural(mean)), mean, rtol=1e-4)


@pytest.mark.parametrize("name", PLAIN)
def test_natural_is_finite_at_the_ends_of_the_support(name):
    module = likelihood_module(name, 3, "scalar", unit=1.0, mean_variance=1.0)
    ends = tensor([0.0, 1.0], torch.float32)
    output = module.natural(ends)
    assert output.isfinite().all()
    np.testing.assert_allclose(module.mean(output), ends, atol=0.02)


def draws(module, output, n=20_000, seed=0):
    generator = torch.Generator().manual_seed(seed)
    return module.draw(torch.full((n, 1), float(output)), generator).double().numpy().ravel()


@pytest.mark.parametrize("variance", [0.01, 4.0])
@pytest.mark.parametrize("output", [-3.0, 0.5])
@pytest.mark.parametrize(
    ("kind", "law"),
    [
        (Gaussian, lambda mean, variance: stats.norm(mean, variance**0.5)),
        (Laplace, lambda mean, variance: stats.laplace(mean, (variance / 2) ** 0.5)),
    ],
)
def test_draws_of_reals_have_the_density(kind, law, output, variance):
    module = kind(1, variance, 1.0)
    x = draws(module, output)
    assert stats.kstest(x, law(output, variance).cdf).pvalue > 1e-3
    found = module.log_prob(torch.tensor(x[:50]).float(), torch.tensor(output)).numpy()
    np.testing.assert_allclose(found, law(output, variance).logpdf(x[:50]), rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize("logit", [-80.0, -8.0, -1.0, -1e-3, 0.0, 1e-6, 0.5, 3.0, 80.0])
def test_draws_of_the_continuous_bernoulli_have_the_density(logit):
    x = draws(ContinuousBernoulli(), logit)
    assert x.min() >= 0
    assert x.max() <= 1

    def cdf(x):
        return np.expm1(logit * x) / np.expm1(logit) if logit else x

    assert stats.kstest(x, cdf).pvalue > 1e-3
    mean = continuous_bernoulli_by_quadrature(logit, 1)
    spread = np.sqrt(continuous_bernoulli_by_quadrature(logit, 2) - mean**2)
    assert x.mean() == pytest.approx(mean, abs=5 * spread / np.sqrt(len(x)))


@pytest.mark.parametrize(
    ("module", "output", "law"),
    [
        (Bernoulli(), -2.0, stats.bernoulli(special.expit(-2.0))),
        (Bernoulli(), 0.3, stats.bernoulli(special.expit(0.3))),
        (Poisson(), -1.0, stats.poisson(np.exp(-1.0))),
        (Poisson(), 2.0, stats.poisson(np.exp(2.0))),
    ],
)
def test_draws_of_counts_have_the_mass(module, output, law):
    """By chi-square over the values that are expected at least ten times."""
    x = draws(module, output)
    values = np.arange(100)
    expected = law.pmf(values) * len(x)
    common = expected >= 10
    seen = np.array([(x == value).sum() for value in values[common]])
    rest = np.array([len(x) - seen.sum()]), np.array([len(x) - expected[common].sum()])
    if rest[1] >= 10:
        seen, expected = np.append(seen, rest[0]), np.append(expected[common], rest[1])
    else:
        expected = expected[common] * seen.sum() / expected[common].sum()
    assert stats.chisquare(seen, expected).pvalue > 1e-3
    assert set(np.unique(x)) <= set(values)


@pytest.mark.parametrize("name", PLAIN)
def test_draws_depend_on_the_generator_alone(name):
    module = likelihood_module(name, 1, "scalar", unit=1.0, mean_variance=1.0)
    state = torch.get_rng_state()
    first, again, other = (draws(module, 0.5, 50, seed) for seed in (0, 0, 1))
    np.testing.assert_array_equal(first, again)
    assert (first != other).any()
    assert torch.equal(torch.get_rng_state(), state)


# -------------------------------------------------------------------- rows of features


def make_batch(name="gaussian", n=40, n_features=3, *, weighted=False, masked=False, seed=0):
    """A batch within the support, and outputs for it."""
    rng = np.random.default_rng(seed)
    output = torch.tensor(rng.normal(size=(n, n_features)), dtype=torch.float32)
    x = rng.normal(size=(n, n_features)) * [0.5, 1.0, 3.0][:n_features]
    low, high = LIKELIHOODS[name].support
    if high == 1:
        x = rng.random((n, n_features))
    elif low == 0:
        x = rng.poisson(2.0, (n, n_features))
    x = torch.tensor(x, dtype=torch.float32)
    seen = torch.tensor(rng.random((n, n_features)) < 0.6).float() if masked else None
    if seen is not None:
        x = x * seen
    weight = torch.tensor(rng.uniform(0.1, 3.0, n)).float() if weighted else None
    return Batch(x, x, seen, weight), output


@pytest.mark.parametrize("masked", [False, True])
@pytest.mark.parametrize("noise", ["scalar", "per_feature", 0.7])
@pytest.mark.parametrize("name", PLAIN)
def test_a_row_scores_the_sum_over_what_was_seen(name, noise, masked):
    module = likelihood_module(name, 3, noise, unit=1.0, mean_variance=1.0)
    if noise == "per_feature" and name in ("gaussian", "laplace"):
        module.set_variance(tensor([0.2, 1.0, 5.0], torch.float32))
    batch, output = make_batch(name, masked=masked)
    values = module.log_prob(batch.y, output).double().numpy()
    expected = (values * (1 if batch.seen is None else batch.seen.numpy())).sum(axis=1)
    found = module.row_log_prob(batch.y, output, batch.seen)
    np.testing.assert_allclose(found, expected, rtol=1e-5, atol=1e-5)


def test_every_feature_has_its_own_variance():
    variance = np.array([0.2, 1.0, 5.0])
    batch, output = make_batch()
    for kind, law in ((Gaussian, stats.norm), (Laplace, stats.laplace)):
        module = noise_module(kind, "per_feature")
        module.set_variance(tensor(variance, torch.float32))
        scale = np.sqrt(variance / (2 if kind is Laplace else 1))
        expected = law(output.numpy(), scale).logpdf(batch.y.numpy())
        np.testing.assert_allclose(module.log_prob(batch.y, output), expected, rtol=1e-5, atol=1e-5)


# ------------------------------------------------------------------------------- noise


def counted(batch):
    """How much every value counts."""
    counts = np.ones(batch.y.shape) if batch.seen is None else batch.seen.double().numpy()
    return counts if batch.weight is None else counts * batch.weight.double().numpy()[:, None]


def most_likely_variance(kind, batch, output):
    """By numerical search over SciPy's weighted log-likelihood."""
    x, mean = batch.y.double().numpy(), output.double().numpy()
    counts = counted(batch)
    law, divisor = (stats.norm, 1) if kind is Gaussian else (stats.laplace, 2)

    def loss(log_variance, columns):
        scale = np.sqrt(np.exp(log_variance) / divisor)
        values = law(mean[:, columns], scale).logpdf(x[:, columns])
        return -(counts[:, columns] * values).sum()

    def search(columns):
        found = optimize.minimize_scalar(loss, (-2, 2), args=(columns,), tol=1e-12)
        return np.exp(found.x)

    return search(slice(None)), np.array([search([j]) for j in range(x.shape[1])])


@pytest.mark.parametrize("masked", [False, True])
@pytest.mark.parametrize("weighted", [False, True])
@pytest.mark.parametrize("noise", ["scalar", "per_feature"])
@pytest.mark.parametrize("kind", [Gaussian, Laplace])
def test_sums_over_chunks_give_the_most_likely_variance(kind, noise, weighted, masked):
    """Of all rows, however they are cut."""
    batch, output = make_batch(weighted=weighted, masked=masked)
    scalar, per_feature = most_likely_variance(kind, batch, output)
    module = noise_module(kind, noise, mean_variance=7.0)
    sums = NoiseSums(module)
    for rows in (slice(0, 1), slice(1, 25), slice(25, 40)):
        part = Batch(*(None if t is None else t[rows] for t in batch[:4]))
        sums.add(part.y, output[rows], part.weight, part.seen)
    sums.settle()
    expected = scalar if noise == "scalar" else per_feature
    np.testing.assert_allclose(module.variance, expected, rtol=1e-5)


@pytest.mark.parametrize("noise", ["scalar", "per_feature"])
@pytest.mark.parametrize("kind", [Gaussian, Laplace])
def test_a_share_weighs_new_rows_against_the_variance_so_far(kind, noise):
    batch, output = make_batch()
    module = noise_module(kind, noise, mean_variance=7.0)
    sums = NoiseSums(module)
    sums.add(batch.y, output, batch.weight, batch.seen)
    module.follow(batch.y, output, None, None)  # what training did meanwhile does not count
    sums.settle(0.25, torch.full_like(module.variance, 7.0))
    scalar, per_feature = most_likely_variance(kind, batch, output)
    expected = 0.25 * (scalar if noise == "scalar" else per_feature) + 0.75 * 7.0
    np.testing.assert_allclose(module.variance, expected, rtol=1e-5)


@pytest.mark.parametrize("kind", [Gaussian, Laplace])
def test_of_a_column_never_seen_nothing_is_learned(kind):
    batch, output = make_batch(masked=True)
    batch.seen[:, 1] = 0
    module = noise_module(kind, "per_feature", mean_variance=7.0)
    sums = NoiseSums(module)
    sums.add(batch.y, output, batch.weight, batch.seen)
    sums.settle()
    assert module.variance[1] == 7.0
    assert (module.variance[[0, 2]] != 7.0).all()


@pytest.mark.parametrize("kind", [Gaussian, Laplace])
def test_one_batch_without_a_column_teaches_nothing_about_its_noise(kind):
    """Also in the running variance: a batch of rows that all lack a feature leaves it."""
    batch, output = make_batch(masked=True)
    module = noise_module(kind, "per_feature", mean_variance=7.0)
    module.follow(batch.y, output, None, batch.seen)
    before = module.variance.clone()
    batch.seen[:, 1] = 0
    module.follow(batch.y * batch.seen, output, None, batch.seen)
    assert module.variance[1] == before[1]


@pytest.mark.parametrize("noise", ["scalar", "per_feature"])
@pytest.mark.parametrize("kind", [Gaussian, Laplace])
def test_the_variance_has_a_floor(kind, noise):
    """1e-4 of the mean variance, for outputs that explain every row exactly."""
    batch, _ = make_batch()
    followed, summed = (noise_module(kind, noise, mean_variance=50.0) for _ in range(2))
    followed.follow(batch.y, batch.y, None, None)
    sums = NoiseSums(summed)
    sums.add(batch.y, batch.y, batch.weight, batch.seen)
    sums.settle()
    for module in (followed, summed):
        np.testing.assert_allclose(module.variance, 50.0e-4, rtol=1e-6)


@pytest.mark.parametrize("variance", [1e-9, 0.3])
@pytest.mark.parametrize("kind", [Gaussian, Laplace])
def test_a_given_variance_stays(kind, variance):
    """Also below the floor of a learned one."""
    batch, output = make_batch()
    module = noise_module(kind, variance)
    module.follow(batch.y, output, None, None)
    sums = NoiseSums(module)
    sums.add(batch.y, output, batch.weight, batch.seen)
    sums.settle()
    assert module.variance == torch.tensor(variance)


@pytest.mark.parametrize("name", ["bernoulli", "continuous_bernoulli", "poisson"])
def test_without_noise_there_is_nothing_to_learn(name):
    batch, output = make_batch(name)
    module = likelihood_module(name, 3, "scalar", unit=1.0, mean_variance=1.0)
    module.follow(batch.y, output, None, None)
    sums = NoiseSums(module)
    sums.add(batch.y, output, batch.weight, batch.seen)
    sums.settle()
    assert not module.state_dict()


@pytest.mark.parametrize("noise", ["scalar", "per_feature"])
@pytest.mark.parametrize("kind", [Gaussian, Laplace])
def test_the_first_batches_count_alike(kind, noise):
    """The running variance is the plain mean of theirs; where it started is forgotten."""
    module, expected = noise_module(kind, noise, mean_variance=1000.0), []
    for seed in range(20):
        batch, output = make_batch(seed=seed, weighted=True, masked=True)
        module.follow(batch.y, output, batch.weight, batch.seen)
        error, axis = (batch.y - output).abs().double().numpy(), None if noise == "scalar" else 0
        power = 2 if kind is Gaussian else 1
        mean = np.average(error**power, axis=axis, weights=counted(batch))
        expected.append(mean if kind is Gaussian else 2 * mean**2)
        wanted = np.maximum(np.mean(expected, axis=0), 0.1)
        np.testing.assert_allclose(module.variance, wanted, rtol=1e-4)


@pytest.mark.parametrize("noise", ["scalar", "per_feature"])
@pytest.mark.parametrize("kind", [Gaussian, Laplace])
def test_the_running_variance_ends_at_the_most_likely(kind, noise):
    """Within its noise, also when the noise of the data has changed."""
    rng = np.random.default_rng(0)
    draw = rng.normal if kind is Gaussian else rng.laplace
    unit = 1.0 if kind is Gaussian else 0.5**0.5
    module = noise_module(kind, noise, mean_variance=1.0)
    scale = np.array([0.5, 1.0, 2.0])
    for factor in (3.0, 1.0):
        for _ in range(200):
            x = draw(0.0, unit * factor * scale, (200, 3))
            module.follow(tensor(x, torch.float32), torch.zeros(200, 3), None, None)
        # Given Laplace noise, a scalar is that of the mean deviation, not of the mean square.
        pooled = np.mean(scale**2) if kind is Gaussian else np.mean(scale) ** 2
        expected = factor**2 * (pooled if noise == "scalar" else scale**2)
        np.testing.assert_allclose(module.variance, expected, rtol=0.12)


@pytest.mark.parametrize("variance", [1e-3, 1.0, 40.0])
def test_steps_do_not_grow_as_the_noise_shrinks(variance):
    """The gradient of the scaled Gaussian loss is that of half the squared error."""
    module = Gaussian(3, variance, 1.0)
    batch, output = make_batch()
    output.requires_grad_()
    loss = -module.row_log_prob(batch.y, output).sum() * module.step_scale()
    (found,) = torch.autograd.grad(loss, output)
    np.testing.assert_allclose(found, (output - batch.y).detach(), rtol=1e-4, atol=1e-5)


# ----------------------------------------------------------------------- what is built


@pytest.mark.parametrize("name", ["gaussian", "laplace"])
def test_a_given_variance_is_in_the_units_of_the_data(name):
    """log p of rows in units of 4 differs by log 4 per feature, and by nothing else."""
    batch, output = make_batch()
    plain = likelihood_module(name, 3, 0.8, unit=1.0, mean_variance=1.0)
    scaled = likelihood_module(name, 3, 0.8, unit=4.0, mean_variance=1.0)
    found = scaled.row_log_prob(batch.y / 4, output / 4) - 3 * np.log(4)
    np.testing.assert_allclose(found, plain.row_log_prob(batch.y, output), rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize("noise", [1e-40, 1e40])
def test_a_variance_that_float32_cannot_hold_is_refused(noise):
    with pytest.raises(ValueError, match=r"noise_variance=.* differs too much from .* of X, 4"):
        likelihood_module("gaussian", 3, noise, unit=2.0, mean_variance=1.0)


@pytest.mark.parametrize("name", LIKELIHOODS)
def test_the_support_is_where_the_density_lives(name):
    """Reals, [0, 1] or counts; only reals may be shifted and scaled."""
    kind = LIKELIHOODS[name]
    expected = {"gaussian": (-np.inf, np.inf), "laplace": (-np.inf, np.inf)}
    for counts in ("poisson", "negative_binomial", "zero_inflated_negative_binomial"):
        expected[counts] = (0.0, np.inf)
    assert kind.support == expected.get(name, (0.0, 1.0))
    assert kind.location == (name in ("gaussian", "laplace"))


@pytest.mark.parametrize("shape", [(5, 3, 7), (5, 1, 7), (7,)])
def test_rows_of_coins_have_the_gradient_of_their_sum(shape):
    """Sums over features, and their gradients by the logits, are those of the single values."""
    generator = torch.Generator().manual_seed(0)
    x = torch.rand((5, 3, 7), generator=generator).round(decimals=1).double()
    logit = 8 * torch.randn(shape, generator=generator).double()
    share = torch.rand((5, 3), generator=generator).double()
    found = []
    for rows in (bernoulli_row_log_mass, lambda x, a: bernoulli_log_mass(x, a).sum(-1)):
        of = logit.clone().requires_grad_()
        value = rows(x, of)
        (share * value).sum().backward()
        found.append((value.detach(), of.grad))
    torch.testing.assert_close(*found)
    torch.testing.assert_close(bernoulli_row_log_mass(x, logit), found[1][0])


# ------------------------------------------------------ draws that uniform numbers tell

UNIFORM = np.linspace(0.003, 0.997, 143)


def at_grid(module, output, dtype=torch.float64):
    """What every uniform number tells of every output, (n_outputs, n_uniform)."""
    output = tensor(output, dtype)[:, None].expand(-1, len(UNIFORM))
    return module.at(output, tensor(UNIFORM, dtype).expand(output.shape)).double().numpy()


@pytest.mark.parametrize("variance", [1e-6, 0.7, 300.0])
@pytest.mark.parametrize(
    ("kind", "law"),
    [
        (Gaussian, lambda mean, variance: stats.norm(mean, variance**0.5)),
        (Laplace, lambda mean, variance: stats.laplace(mean, (variance / 2) ** 0.5)),
    ],
)
def test_uniform_numbers_tell_reals_by_the_inverse_of_scipys_distribution(kind, law, variance):
    found = at_grid(noise_module(kind, variance, n_features=1).double(), REALS)
    expected = law(REALS[:, None], variance).ppf(UNIFORM)
    np.testing.assert_allclose(found, expected, rtol=1e-6, atol=1e-6 * variance**0.5)


@pytest.mark.parametrize("kind", [Gaussian, Laplace, ContinuousBernoulli, Poisson, Bernoulli])
def test_the_ends_of_the_uniform_numbers_tell_values_that_are_allowed(kind):
    module = noise_module(kind, 1.0) if kind in (Gaussian, Laplace) else kind()
    output = torch.linspace(-9.0, 9.0, 31)
    ends = [module.at(output, torch.full_like(output, u)) for u in (0.0, 1 - 2.0**-24)]
    assert all(x.isfinite().all() for x in ends)
    assert all(((x >= kind.support[0]) & (x <= kind.support[1])).all() for x in ends)


def test_uniform_numbers_tell_values_of_the_continuous_bernoulli_by_the_inverse():
    """Of SciPy's exponential that ends at 1; of positive logits its mirror image."""
    logit = LOGITS[np.abs(LOGITS) > 0.2][:, None]
    found = at_grid(ContinuousBernoulli(), logit[:, 0])
    size = np.abs(logit)
    expected = stats.truncexpon(b=size, scale=1 / size).ppf(UNIFORM)
    expected = np.where(logit > 0, 1 - expected, expected)
    np.testing.assert_allclose(found, expected, rtol=1e-9, atol=1e-9)


RATES = np.array([1e-3, 0.1, 1.0, 7.3, 50.0, 1e3, 1e5, 1e6])


def test_uniform_numbers_tell_counts_by_the_inverse_of_scipys_distribution():
    found = at_grid(Poisson(), np.log(RATES))
    np.testing.assert_array_equal(found, stats.poisson(RATES[:, None]).ppf(UNIFORM))


def test_counts_that_float32_numbers_tell_are_right_to_rounding():
    """Of its rates: these are exact to one part in ten million, times the logarithm."""
    found = at_grid(Poisson(), np.log(RATES), torch.float32)
    expected = stats.poisson(RATES[:, None]).ppf(UNIFORM)
    assert (np.abs(found - expected) <= 1 + 3e-6 * expected).all()


def test_uniform_numbers_tell_coins_by_their_probability():
    """1 below it, so that a number for each row gives the share that it should."""
    logit = np.array([-3.0, -0.2, 0.0, 1.5])
    expected = special.expit(logit)[:, None] > UNIFORM
    np.testing.assert_array_equal(at_grid(Bernoulli(), logit), expected)
