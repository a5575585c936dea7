"""Distributions over codes, against SciPy, quadrature and moments in closed form."""

import numpy as np
import pytest
import torch
from scipy import integrate, special, stats

from helpers import tensor
from skae._nn.gaussian_latents import (
    Components,
    DiagonalGaussian,
    bounded,
    draw_prior,
    entropy,
    equally_likely,
    from_network,
    kl_by_code,
    kl_of_rows,
    kl_to_standard,
    log_mean_exp,
    log_normal,
    log_prior,
    log_prior_by_code,
)

MEANS = np.array([[0.7, -1.5], [-2.0, 0.3], [0.1, 2.5]])
STDS = np.array([[0.5, 1.5], [1.0, 0.4], [0.8, 0.9]])
WEIGHTS = np.array([0.5, 0.2, 0.3])
# Of q(z|x), from narrow to wide and far out.
POSTERIORS = [(0.0, 1.0), (0.0, 0.1), (1.3, 0.6), (-4.0, 2.5), (9.0, 1e-3)]


def gaussians(means, stds):
    """As a posterior, with its rows in two dimensions."""
    means, stds = np.atleast_2d(means), np.atleast_2d(stds)
    return DiagonalGaussian(tensor(means), tensor(2 * np.log(stds)))


MIXTURE = Components(*gaussians(MEANS, STDS), tensor(np.log(WEIGHTS)))


def log_density(z, means=MEANS, stds=STDS):
    """Of the mixture at points (..., n_codes), by SciPy's normal densities."""
    each = stats.norm(means, stds).logpdf(np.asarray(z)[..., None, :]).sum(axis=-1)
    return special.logsumexp(each, b=WEIGHTS, axis=-1)


def nodes(mean, std, n=801):
    """Points and weights of which sums are expectations under a normal distribution."""
    draws = np.linspace(-9, 9, n)
    density = stats.norm.pdf(draws)
    return mean + std * draws, density / density.sum()


def points(n=50, seed=0):
    return np.random.default_rng(seed).normal(scale=2.0, size=(n, 2))


# ------------------------------------------------------------------------ one Gaussian


@pytest.mark.parametrize(("mean", "std"), POSTERIORS)
def test_densities_are_scipys(mean, std):
    """And so is the entropy."""
    z = mean + std * np.linspace(-5, 5, 11)
    law = stats.norm(mean, std)
    log_var = tensor(2 * np.log(std))
    np.testing.assert_allclose(log_normal(tensor(z), tensor(mean), log_var), law.logpdf(z))
    assert entropy(log_var).item() == pytest.approx(law.entropy())


@pytest.mark.parametrize(("mean", "std"), POSTERIORS)
def test_divergence_from_a_standard_normal_is_the_integral(mean, std):
    """Of q log(q / p), by quadrature."""
    q, p = stats.norm(mean, std), stats.norm()
    expected, _ = integrate.quad(
        lambda z: q.pdf(z) * (q.logpdf(z) - p.logpdf(z)), mean - 12 * std, mean + 12 * std
    )
    found = kl_to_standard(gaussians(mean, std)).item()
    assert found == pytest.approx(expected, rel=1e-7, abs=1e-10)


def test_divergence_from_a_standard_normal_is_that_of_draws():
    """In several dimensions: the mean of log q - log p over draws, to five standard errors."""
    rng = np.random.default_rng(0)
    mean, std = np.array([0.5, -1.0, 2.0]), np.array([0.3, 1.4, 0.9])
    z = mean + std * rng.standard_normal((100_000, 3))
    ratio = (stats.norm(mean, std).logpdf(z) - stats.norm.logpdf(z)).sum(axis=1)
    found = kl_of_rows(gaussians(mean, std), tensor(mean), None).item()
    assert abs(found - ratio.mean()) < 5 * ratio.std() / np.sqrt(len(z))


def test_codes_are_mean_plus_deviation_times_draw():
    """One draw a row, several a row, or several that all rows share."""
    q = gaussians(MEANS, STDS)
    rng = np.random.default_rng(0)
    one, several = rng.normal(size=(3, 2)), rng.normal(size=(3, 5, 2))
    np.testing.assert_allclose(q.at(tensor(one)), MEANS + STDS * one)
    expected = MEANS[:, None] + STDS[:, None] * several
    np.testing.assert_allclose(q.at(tensor(several)), expected)
    shared = MEANS[:, None] + STDS[:, None] * several[:1]
    np.testing.assert_allclose(q.at(tensor(several[:1])), shared)


# -------------------------------------------------------------------------- the prior


@pytest.mark.parametrize("shape", [(2,), (7, 2), (4, 3, 2)])
def test_density_of_a_prior_is_scipys(shape):
    """N(0, I) and a mixture, of codes in arrays of any shape."""
    z = np.random.default_rng(0).normal(scale=2.0, size=shape)
    standard = stats.norm.logpdf(z).sum(axis=-1)
    np.testing.assert_allclose(log_prior(tensor(z), None), standard)
    np.testing.assert_allclose(log_prior(tensor(z), MIXTURE), log_density(z))


def test_density_far_from_all_components():
    """Where every component underflows, the nearest decides."""
    z = np.array([[300.0, -400.0], [-1e4, 1e4]])
    found = log_prior(tensor(z), MIXTURE).numpy()
    assert np.isfinite(found).all()
    np.testing.assert_allclose(found, log_density(z))


@pytest.mark.parametrize("prior", [None, MIXTURE], ids=["standard", "mixture"])
def test_conditionals_of_codes_multiply_to_the_density(prior):
    """Of codes of any shape."""
    z = tensor(np.random.default_rng(0).normal(scale=2.0, size=(4, 3, 2)))
    torch.testing.assert_close(log_prior_by_code(z, prior).sum(-1), log_prior(z, prior))


def test_conditionals_of_codes_are_ratios_of_marginals():
    """p(z_1) is the integral of p(z_1, z_2) over z_2, and p(z_2 | z_1) is what is left."""
    z = points(4)
    marginal = [
        integrate.quad(lambda b, a=a: np.exp(log_density([a, b])), -15, 15, limit=200)[0]
        for a in z[:, 0]
    ]
    found = log_prior_by_code(tensor(z), MIXTURE).numpy()
    np.testing.assert_allclose(found[:, 0], np.log(marginal), rtol=1e-6)
    np.testing.assert_allclose(found[:, 1], log_density(z) - np.log(marginal), rtol=1e-6)


@pytest.mark.parametrize(("mean", "std"), POSTERIORS)
def test_divergence_from_a_mixture_is_the_integral(mean, std):
    """Averaged over draws, which here are the nodes of a quadrature."""
    one = Components(MIXTURE.mean[:, :1], MIXTURE.log_var[:, :1], MIXTURE.log_weight)
    q = stats.norm(mean, std)

    def integrand(z):
        log_p = log_density([z], MEANS[:, :1], STDS[:, :1])
        return q.pdf(z) * (q.logpdf(z) - log_p)

    expected, _ = integrate.quad(integrand, mean - 10 * std, mean + 10 * std, limit=200)
    z, weight = nodes(mean, std)
    found = kl_of_rows(gaussians(mean, std), tensor(z[:, None]), one).numpy() @ weight
    assert found == pytest.approx(expected, rel=1e-5)


@pytest.mark.parametrize("prior", [None, MIXTURE], ids=["standard", "mixture"])
def test_divergences_of_codes_sum_to_that_of_the_row(prior):
    """At every draw, one a row or several."""
    q = gaussians(MEANS, STDS)
    z = q.at(tensor(np.random.default_rng(0).normal(size=(3, 2))))
    torch.testing.assert_close(kl_by_code(q, z, prior).sum(-1), kl_of_rows(q, z, prior))


def test_divergence_of_the_first_code_is_that_from_its_marginal():
    """It knows of no other code; both are mixtures of the same weights."""
    mean, std = np.array([0.4, -0.2]), np.array([0.7, 0.5])
    q = stats.norm(mean[0], std[0])
    z, weight = nodes(0.0, 1.0)
    codes = mean + std * np.stack([z, z], axis=1)
    found = kl_by_code(gaussians(mean, std), tensor(codes), MIXTURE)[:, 0].numpy() @ weight
    expected, _ = integrate.quad(
        lambda a: q.pdf(a) * (q.logpdf(a) - log_density([a], MEANS[:, :1], STDS[:, :1])), -8, 8
    )
    assert found == pytest.approx(expected, rel=1e-6)


def test_a_mixture_of_standard_normals_is_one():
    """Whatever the weights: in densities and, averaged over draws, in divergences."""
    same = Components(torch.zeros(3, 2).double(), torch.zeros(3, 2).double(), MIXTURE.log_weight)
    z = tensor(points())
    torch.testing.assert_close(log_prior(z, same), log_prior(z, None))
    torch.testing.assert_close(log_prior_by_code(z, same), log_prior_by_code(z, None))
    q = gaussians(MEANS[0], STDS[0])
    (a, weight), (b, _) = nodes(0.0, 1.0, 61), nodes(0.0, 1.0, 61)
    draws = np.stack(np.meshgrid(a, b, indexing="ij"), axis=-1).reshape(1, -1, 2)
    both = np.outer(weight, weight).ravel()
    wide = DiagonalGaussian(*(t[:, None] for t in q))
    found = both @ kl_by_code(wide, q.at(tensor(draws)), same)[0].numpy()
    np.testing.assert_allclose(found, kl_to_standard(q)[0], rtol=1e-10)


# ---------------------------------------------------------------------------- draws


def test_draws_of_a_standard_normal():
    """By Kolmogorov and Smirnov, with codes that are not correlated."""
    z = draw_prior(20_000, 3, None, torch.Generator().manual_seed(0)).numpy()
    assert z.shape == (20_000, 3)
    for column in z.T:
        assert stats.kstest(column, stats.norm.cdf).pvalue > 1e-3
    assert np.abs(np.corrcoef(z.T) - np.eye(3)).max() < 5 / np.sqrt(len(z))


def test_draws_of_a_mixture():
    """Marginals by Kolmogorov and Smirnov; mean and covariance in closed form."""
    z = draw_prior(50_000, 2, MIXTURE, torch.Generator().manual_seed(0)).numpy()
    for j in range(2):

        def cdf(a, j=j):
            return stats.norm(MEANS[:, j], STDS[:, j]).cdf(a[:, None]) @ WEIGHTS

        assert stats.kstest(z[:, j], cdf).pvalue > 1e-3
    mean = WEIGHTS @ MEANS
    apart = MEANS - mean
    covariance = np.diag(WEIGHTS @ STDS**2) + (apart.T * WEIGHTS) @ apart
    error = 5 / np.sqrt(len(z))
    assert np.abs(z.mean(axis=0) - mean).max() < error * np.sqrt(covariance.max())
    assert np.abs(np.cov(z.T) - covariance).max() < error * 2 * covariance.max()


def test_draws_follow_the_generator():
    """The same seed gives the same codes, another one others; torch's own is not read."""
    first, again, other = (
        draw_prior(10, 2, MIXTURE, torch.Generator().manual_seed(seed)) for seed in (0, 0, 1)
    )
    before = torch.get_rng_state()
    assert torch.equal(first, again)
    assert not torch.equal(first, other)
    assert torch.equal(before, torch.get_rng_state())


# -------------------------------------------------------------------------- the rest


def test_an_encoders_output():
    """Means, then log variances, which grow only logarithmically beyond 16."""
    out = torch.tensor([[1.0, -2.0, 0.5, 100.0], [3.0, 4.0, -0.5, -100.0]], dtype=torch.bfloat16)
    q = from_network(out)
    assert q.mean.tolist() == [[1.0, -2.0], [3.0, 4.0]]
    far = 16 + np.log(1 + 100 - 16)
    np.testing.assert_allclose(q.log_var, [[0.5, far], [-0.5, -far]], rtol=1e-6)
    assert q.log_var.dtype == torch.float32


def test_log_variances_always_have_a_slope():
    """Without one, a network whose variances are extreme would never learn better ones."""
    log_var = torch.linspace(-60.0, 60.0, 1201, dtype=torch.float64).requires_grad_()
    found = bounded(log_var)
    (slope,) = torch.autograd.grad(found.sum(), log_var)
    np.testing.assert_allclose(found.detach(), -found.detach().flip(0), atol=1e-12)
    middle = log_var.detach().abs() < 16
    assert torch.equal(found.detach()[middle], log_var.detach()[middle])
    assert (slope > 0.01).all()
    assert (found.detach().diff() <= 0.1 + 1e-9).all()  # steps of 0.1: nothing jumps
    expected = torch.where(middle, 1.0, 1 / (log_var.detach().abs() - 15))
    np.testing.assert_allclose(slope[expected < 1], expected[expected < 1], rtol=1e-9)


def test_equally_likely_components():
    """The density is the mean of theirs."""
    z = points()
    each = stats.norm(MEANS, STDS).pdf(z[:, None]).prod(axis=-1)
    mixture = equally_likely(gaussians(MEANS, STDS))
    np.testing.assert_allclose(log_prior(tensor(z), mixture), np.log(each.mean(axis=1)))


def test_log_mean_exp_is_scipys():
    """Also where every value would overflow or underflow."""
    values = np.random.default_rng(0).normal(size=(5, 7)) * 3 + np.array(
        [[0.0], [1e4], [-1e4], [5.0], [-300.0]]
    )
    expected = special.logsumexp(values, axis=-1) - np.log(7)
    np.testing.assert_allclose(log_mean_exp(tensor(values)), expected, rtol=1e-12)
    assert log_mean_exp(tensor([[2.0]])).item() == 2.0
