"""Priors on codes: named ones against closed forms, those of users under one seed."""

from functools import partial

import numpy as np
import pytest
import torch
from scipy import integrate, stats
from sklearn.frozen import FrozenEstimator
from sklearn.mixture import BayesianGaussianMixture, GaussianMixture
from sklearn.neighbors import KernelDensity

from helpers import generator
from skae import PPCA, AdversarialAE
from skae._nn.priors import (
    can_be_sampled,
    draw_from,
    draw_gaussian,
    draw_mixture,
    draw_swiss_roll,
)

N = 40_000


def assert_moments(draws, mean, covariance):
    """Within five standard errors, of which those of covariances are bounded by kurtosis."""
    draws = np.asarray(draws, dtype=np.float64)
    n, std = len(draws), np.sqrt(np.diag(covariance))
    assert np.all(np.isfinite(draws))
    np.testing.assert_array_less(np.abs(draws.mean(axis=0) - mean) / std, 5 / np.sqrt(n))
    error = np.abs(np.cov(draws.T) - covariance) / np.outer(std, std)
    assert error.max() < 5 * np.sqrt(3 / n)


# ------------------------------------------------------------------------ named priors


@pytest.mark.parametrize("n_codes", [1, 3])
def test_a_gaussian_is_standard(n_codes):
    """Every code by a Kolmogorov-Smirnov test, and no two correlated."""
    draws = draw_gaussian(N, n_codes, generator()).numpy()
    assert draws.shape == (N, n_codes)
    for column in draws.T:
        assert stats.kstest(column, "norm").pvalue > 1e-3
    correlations = np.corrcoef(draws.T).reshape(n_codes, n_codes) - np.eye(n_codes)
    assert np.abs(correlations).max() < 5 / np.sqrt(N)


def test_a_mixture_has_the_moments_of_its_components():
    """I and the covariance of the means, whose mean is its own."""
    means = np.array([[-3.0, 1.0], [3.0, 0.0], [0.0, 5.0]])
    draws = draw_mixture(N, torch.tensor(means), generator())
    assert_moments(draws, means.mean(axis=0), np.eye(2) + np.cov(means.T, bias=True))


def test_components_of_a_mixture_are_equally_likely():
    """Draws that lie far apart are counted by a chi-squared test; each is N(m, I)."""
    means = torch.tensor([[-50.0], [0.0], [50.0], [100.0]])
    draws = draw_mixture(N, means, generator()).numpy()[:, 0]
    which = np.abs(draws[:, None] - means.numpy()[:, 0]).argmin(axis=1)
    assert stats.chisquare(np.bincount(which)).pvalue > 1e-3
    assert stats.kstest(draws - means.numpy()[which, 0], "norm").pvalue > 1e-3


def spiral(share):
    """From radius 1 to 3 in one and a half turns."""
    t = 1.5 * np.pi * (1 + 2 * np.asarray(share))
    return (t / (1.5 * np.pi)) * np.array([np.cos(t), np.sin(t)])


def moments_of_the_roll(n_codes):
    """By quadrature; the height is uniform in [-3, 3]."""

    def average(function):
        return np.array(integrate.quad_vec(function, 0, 1)[0])

    mean = average(spiral)
    second = average(lambda share: np.outer(spiral(share), spiral(share)))
    covariance = np.diag([0.0, 0.0, 36 / 12])
    covariance[:2, :2] = second - np.outer(mean, mean)
    return np.append(mean, 0.0)[:n_codes], (covariance + 0.05**2 * np.eye(3))[:n_codes, :n_codes]


@pytest.mark.parametrize("n_codes", [2, 3])
def test_a_swiss_roll_has_its_moments(n_codes):
    draws = draw_swiss_roll(N, n_codes, generator())
    assert draws.shape == (N, n_codes)
    assert_moments(draws, *moments_of_the_roll(n_codes))


@pytest.mark.parametrize("n_codes", [2, 3])
def test_a_swiss_roll_lies_about_its_spiral(n_codes):
    """At a distance that is a normal draw's of deviation 0.05; between radii 1 and 3."""
    draws = draw_swiss_roll(4000, n_codes, generator()).numpy().astype(float)
    shares = np.linspace(0, 1, 3000)
    distances = np.sqrt(np.square(draws[:, :2, None] - spiral(shares)[None]).sum(axis=1))
    nearest, along = distances.min(axis=1), shares[distances.argmin(axis=1)]
    assert nearest.max() < 0.05 * 5
    assert np.sqrt(np.square(nearest).mean()) == pytest.approx(0.05, rel=0.05)
    assert stats.kstest(along, "uniform").statistic < 0.04
    radius = np.hypot(*draws[:, :2].T)
    assert 0.75 < radius.min() < 1.1
    assert 2.9 < radius.max() < 3.25
    if n_codes == 3:
        assert stats.kstest(draws[:, 2], stats.uniform(-3, 6).cdf).statistic < 0.04


@pytest.mark.parametrize(
    ("params", "mean", "covariance"),
    [
        ({"prior_scale": 2.5}, [0, 0], 6.25 * np.eye(2)),
        ({"prior": "mixture"}, [0, 0], [[10, 9], [9, 10]]),
        # The scale is each component's deviation, and leaves the means.
        ({"prior": "mixture", "prior_scale": 0.5}, [0, 0], [[9.25, 9], [9, 9.25]]),
        ({"prior": "mixture", "prior_means": [1.0, 1.0, 4.0]}, [2, 2], [[3, 2], [2, 3]]),
        (
            {"prior": "mixture", "prior_means": [[2, 0], [0, -4]], "prior_scale": 2.0},
            [1, -2],
            [[5, 2], [2, 8]],
        ),
        ({"prior": "mixture", "prior_means": np.array([[7.0, 1.0]])}, [7, 1], np.eye(2)),
        (
            {"prior": "swiss_roll", "prior_scale": 2.0},
            2 * moments_of_the_roll(2)[0],
            4 * moments_of_the_roll(2)[1],
        ),
    ],
    ids=str,
)
def test_parameters_say_what_the_codes_shall_look_like(params, mean, covariance):
    X = np.random.default_rng(0).normal(size=(20, 3)).astype(np.float32)
    model = AdversarialAE(2, max_iter=1, random_state=0, device="cpu", **params).fit(X)
    assert_moments(model.sample_latent(N, random_state=0), mean, np.array(covariance))
    # And what training compares the codes with is the same.
    draws = model.net_.module_.draw_codes(N, generator())
    assert_moments(draws, mean, np.array(covariance))


# ------------------------------------------------------------------- priors of one's own


def clusters():
    rng = np.random.default_rng(0)
    return np.concatenate([rng.normal(-2, 0.5, (100, 2)), rng.normal([3, 0], 0.7, (100, 2))])


def normal(n, random_state):
    return np.random.RandomState(random_state).normal(size=(n, 2))


def careless(n):
    """From the global generators, which it should not read."""
    return np.random.normal(size=(n, 2)) + torch.rand(n, 1).numpy()  # noqa: NPY002


class Box:
    """What has `sample` and nothing else."""

    def sample(self, n):
        return torch.rand(n, 2, dtype=torch.float64)


class SeededBox:
    """Called, not sampled; of a seed, and a default that is none."""

    def __call__(self, n, *, random_state=None):
        return normal(n, random_state).tolist()


OWN = {
    # In a tuple with the components; seeded by a parameter, which here is an int.
    "GaussianMixture": GaussianMixture(2, random_state=0).fit(clusters()),
    "BayesianGaussianMixture": BayesianGaussianMixture(
        n_components=2, random_state=np.random.RandomState(3)
    ).fit(clusters()),
    "frozen": FrozenEstimator(GaussianMixture(2, random_state=0).fit(clusters())),
    "KernelDensity": KernelDensity(bandwidth=0.2).fit(clusters()),
    "PPCA": FrozenEstimator(PPCA(1).fit(clusters())),
    "function": normal,
    "careless": careless,
    "partial": partial(np.random.multivariate_normal, np.zeros(2), np.eye(2)),
    "sample": Box(),
    "call": SeededBox(),
}


@pytest.mark.parametrize("prior", OWN.values(), ids=OWN)
def test_draws_follow_the_seed(prior):
    """The same draws from the same one, others from another, also of an int in the object."""
    assert can_be_sampled(prior)
    draws = [draw_from(prior, 30, 2, np.random.RandomState(seed)) for seed in (0, 0, 1)]
    assert draws[0].shape == (30, 2)
    assert draws[0].dtype == np.float32
    np.testing.assert_array_equal(draws[0], draws[1])
    assert not np.any(draws[0] == draws[2])
    # Two calls with one generator go on with it.
    rng = np.random.RandomState(0)
    one, two = (draw_from(prior, 30, 2, rng) for _ in range(2))
    np.testing.assert_array_equal(one, draws[0])
    assert not np.array_equal(one, two)


@pytest.mark.parametrize("prior", OWN.values(), ids=OWN)
def test_nothing_global_and_nothing_given_changes(prior):
    kept = vars(prior).copy() if hasattr(prior, "__dict__") else {}
    numpy_state, torch_state = np.random.get_state(), torch.get_rng_state()  # noqa: NPY002
    draw_from(prior, 30, 2, np.random.RandomState(0))
    now = np.random.get_state()  # noqa: NPY002
    np.testing.assert_array_equal(now[1], numpy_state[1])
    assert now[2:] == numpy_state[2:]
    assert torch.equal(torch.get_rng_state(), torch_state)
    assert all(vars(prior)[name] is value for name, value in kept.items())


def test_global_generators_survive_a_prior_that_fails():
    def broken(n):
        np.random.normal(size=n)  # noqa: NPY002
        torch.rand(n)
        raise RuntimeError("no draws today")

    numpy_state, torch_state = np.random.get_state(), torch.get_rng_state()  # noqa: NPY002
    with pytest.raises(RuntimeError, match="today"):
        draw_from(broken, 5, 2, np.random.RandomState(0))
    np.testing.assert_array_equal(np.random.get_state()[1], numpy_state[1])  # noqa: NPY002
    assert torch.equal(torch.get_rng_state(), torch_state)


def test_draws_have_the_objects_distribution():
    """A mixture's moments from its parameters; a density's by the bandwidth."""
    mixture = OWN["GaussianMixture"]
    mean = mixture.weights_ @ mixture.means_
    spread = (mixture.means_ - mean).T * mixture.weights_ @ (mixture.means_ - mean)
    covariance = spread + np.tensordot(mixture.weights_, mixture.covariances_, 1)
    assert_moments(draw_from(mixture, N, 2, np.random.RandomState(0)), mean, covariance)
    # In whatever order it gives its components.
    alone = OWN["KernelDensity"]
    covariance = np.cov(clusters().T, bias=True) + 0.2**2 * np.eye(2)
    draws = draw_from(alone, N, 2, np.random.RandomState(0))
    assert_moments(draws, clusters().mean(axis=0), covariance)
    pca = OWN["PPCA"].estimator
    draws = draw_from(OWN["PPCA"], N, 2, np.random.RandomState(0))
    assert_moments(draws, pca.mean_, pca.get_covariance())


@pytest.mark.parametrize(
    ("draws", "shape"),
    [
        (np.zeros((5, 3)), r"\(5, 3\)"),
        (np.zeros((4, 2)), r"\(4, 2\)"),
        (np.zeros(5), r"\(5,\)"),
        (np.zeros((5, 2, 1)), r"\(5, 2, 1\)"),
        (np.full((5, 2), np.nan), r"\(5, 2\); expected finite"),
        (np.full((5, 2), np.inf), r"\(5, 2\); expected finite"),
        (None, r"\(\)"),
        ([["a", "b"]] * 5, ""),
        ([[1.0, 2.0]] * 4 + [[1.0]], ""),
    ],
    ids=str,
)
def test_wrong_draws_are_named(draws, shape):
    """By the prior that gave them, and what was expected."""

    def prior(n):
        return draws

    with pytest.raises(ValueError, match=rf"prior=.*{shape}.*\(5, 2\)"):
        draw_from(prior, 5, 2, np.random.RandomState(0))


@pytest.mark.parametrize(
    "prior",
    [GaussianMixture(2), FrozenEstimator(GaussianMixture(2)), PPCA(1), KernelDensity()],
    ids=str,
)
def test_what_is_not_fitted_is_named(prior):
    with pytest.raises(ValueError, match=r"prior=.*not fitted.*FrozenEstimator"):
        draw_from(prior, 5, 2, np.random.RandomState(0))


@pytest.mark.parametrize("prior", [None, 3, np.zeros((5, 2)), [1, 2], PPCA().set_params])
def test_what_cannot_be_sampled(prior):
    assert can_be_sampled(prior) == callable(prior)


def test_errors_of_draws_name_the_parameter():
    def without_size(n, rng):
        return rng

    with pytest.raises(TypeError, match=r"prior=.*cannot be sampled: .*'rng'"):
        draw_from(without_size, 3, 2, np.random.RandomState(0), name="prior", dtype=np.float64)
