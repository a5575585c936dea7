"""Bounds on log p(x) of models with a point for a code, where p(x) is a known Gaussian."""

from functools import partial
from types import SimpleNamespace

import numpy as np
import pytest
import torch
from scipy import stats

import helpers
from skae import Autoencoder
from skae._inference.bounds import Proposal, RowLikelihood, _FreshDraws, best_proposal, bounds, some_rows
from skae._inference.row_draws import RowDraws
from skae._nn.gaussian_latents import DiagonalGaussian
from skae._training.data import Dataset, Units

# x = A z + noise: columns are orthogonal, so that codes are independent given x.
A = np.array([[1.0, 1.0], [2.0, -1.0], [0.5, 1.0], [-0.5, -1.0]])
PRIOR = np.array([1.5, 0.5])  # standard deviations of codes
NOISE = 0.4  # standard deviation
POSTERIOR = (PRIOR**-2.0 + (A**2).sum(0) / NOISE**2) ** -0.5


tensor = partial(helpers.tensor, dtype=torch.float32)


def log_normal(x, mean, std):
    """Sums of log densities over the last axis."""
    return torch.distributions.Normal(mean, std).log_prob(x).sum(-1)


def log_prior(z):
    return log_normal(z[..., :2], 0.0, tensor(PRIOR))


class Linear:
    """Encodes a row as the posterior's mean, and decodes it; more codes may stand still."""

    def __init__(self, widest=4, still=None, units=0.0, gaussian=False):
        self.architecture = SimpleNamespace(widest=lambda: widest)
        self.still, self.units, self.gaussian = still, units, gaussian

    def encode(self, x):
        mean = x @ tensor(A / NOISE**2 * POSTERIOR**2)
        if self.still is not None:
            mean = torch.cat([mean, torch.full((len(x), 1), self.still)], 1)
        return DiagonalGaussian(mean, torch.full_like(mean, 50.0)) if self.gaussian else mean

    def log_px(self, batch, z):
        mean = z[..., :2] @ tensor(A).T
        if self.still is not None:
            mean = mean + (z[..., 2:] - self.still)  # nothing, if it stands still
        return log_normal(batch.y[:, None], mean, NOISE)

    def log_units(self, batch):
        return self.units


def model_of(seed=0, **params):
    """What bounds asks of a model."""

    def rows(data):
        cpu = torch.device("cpu")
        return Dataset(data, units=Units(None, None), with_mask=False, reread=False, device=cpu)

    trainer = SimpleNamespace(module=Linear(**params), inference=torch.inference_mode)
    return RowLikelihood(SimpleNamespace(_trainer=trainer, _dataset=rows, _seed=seed))


def rows_of(n=40, seed=0):
    rng = np.random.default_rng(seed)
    return (rng.normal(size=(n, 2)) * PRIOR) @ A.T + NOISE * rng.normal(size=(n, 4))


def exact(X):
    """log p(x) of N(0, A S A' + noise)."""
    covariance = (A * PRIOR**2) @ A.T + NOISE**2 * np.eye(4)
    return stats.multivariate_normal(np.zeros(4), covariance).logpdf(X)


def divergence(ratio, k=2):
    """KL of k Gaussians from those of the same means, with deviations `ratio` times as large."""
    return k * (0.5 * (ratio**2 - 1) - np.log(ratio))


# ---------------------------------------------------------------------------- bounds


@pytest.mark.parametrize("kind", [RowDraws, _FreshDraws], ids=["rows", "fresh"])
@pytest.mark.parametrize("tau", [1.0, 0.02])
@pytest.mark.parametrize("n_draws", [1, 7])
def test_a_proposal_that_is_the_posterior_gives_log_p(n_draws, tau, kind):
    """Exactly, whatever the draws: the ratio p(x, z) / p(z|x) depends on no z."""
    X = rows_of()
    found = bounds(model_of(), X, log_prior, Proposal(POSTERIOR / tau, tau), n_draws, kind)
    assert found.dtype == np.float32
    np.testing.assert_allclose(found, exact(X), atol=2e-4)


def test_bounds_are_in_units_of_the_rows():
    """What a log density loses by them is subtracted, once for each row."""
    X, proposal = rows_of(), Proposal(POSTERIOR, 1.0)
    found = bounds(model_of(units=3.5), X, log_prior, proposal, 5)
    np.testing.assert_allclose(found, exact(X) - 3.5, atol=2e-4)


def test_encoders_that_give_a_gaussian_count_by_its_mean():
    """Its variance is not read."""
    X, proposal = rows_of(), Proposal(POSTERIOR, 2.0)
    found = bounds(model_of(gaussian=True), X, log_prior, proposal, 5)
    np.testing.assert_array_equal(found, bounds(model_of(), X, log_prior, proposal, 5))


@pytest.mark.parametrize("still", [0.0, 3.0])
def test_codes_of_no_deviation_stay_where_they_are(still):
    """They are no part of the integral: the bound is that without them."""
    X, proposal = rows_of(), Proposal(np.r_[POSTERIOR, 0.0], 1.0)
    found = bounds(model_of(still=still), X, log_prior, proposal, 3)
    np.testing.assert_allclose(found, exact(X), atol=2e-4)


@pytest.mark.parametrize("kind", [RowDraws, _FreshDraws], ids=["rows", "fresh"])
@pytest.mark.parametrize("ratio", [0.7, 1.5])
def test_one_draw_loses_the_divergence_of_the_proposal(ratio, kind):
    """On average over draws: E log p(x, z) / q(z) = log p(x) - KL(q || p(z|x))."""
    X = np.concatenate([rows_of()[:4]] * 500)
    lost = []
    for seed in range(8):
        found = bounds(model_of(seed), X, log_prior, Proposal(POSTERIOR, ratio), 1, kind)
        lost.append((exact(X) - found).reshape(-1, 4))
    lost = np.concatenate(lost) if kind is _FreshDraws else np.array(lost)[:, 0]
    error = lost.std() / np.sqrt(lost.size)
    assert abs(lost.mean() - divergence(ratio)) < 5 * error
    assert kind is RowDraws or error < 0.02


@pytest.mark.parametrize("ratio", [0.8, 2.0])
def test_bounds_rise_to_log_p_with_the_number_of_draws(ratio):
    """On average over rows; of many draws they are log p(x) of each."""
    X, model, proposal = rows_of(300), model_of(), Proposal(POSTERIOR, ratio)
    means = [bounds(model, X, log_prior, proposal, n).mean() for n in (1, 8, 64)]
    assert means[0] < means[1] < means[2] < exact(X).mean() + 0.03
    many = bounds(model, X[:30], log_prior, proposal, 20_000)
    np.testing.assert_allclose(many, exact(X[:30]), atol=0.06)
    assert abs((many - exact(X[:30])).mean()) < 0.02


@pytest.mark.parametrize("widest", [1, 2**17, 2**22])
def test_pieces_and_blocks_change_no_bound(widest):
    """However few draws and rows are decoded together; nor do the rows beside."""
    X, proposal = rows_of(), Proposal(POSTERIOR, 2.0)
    expected = bounds(model_of(), X, log_prior, proposal, 9)
    found = bounds(model_of(widest=widest), X, log_prior, proposal, 9)
    np.testing.assert_allclose(found, expected, rtol=1e-4, atol=1e-4)
    alone = bounds(model_of(), X[7:9], log_prior, proposal, 9)
    np.testing.assert_allclose(alone, expected[7:9], rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize("kind", [RowDraws, _FreshDraws], ids=["rows", "fresh"])
def test_bounds_are_seeded(kind):
    """By the model; the same in every pass, and torch's own generator is not read."""
    X, proposal = rows_of(), Proposal(POSTERIOR, 2.0)
    before = torch.get_rng_state()
    one, same, other = (bounds(model_of(s), X, log_prior, proposal, 3, kind) for s in (0, 0, 1))
    np.testing.assert_array_equal(one, same)
    assert not np.isclose(one, other, atol=1e-6).any()
    assert torch.equal(before, torch.get_rng_state())


def test_fresh_draws_are_independent():
    """Of rows and of codes, N(0, I), also of rows with the same codes."""
    draws = _FreshDraws(5, 2, 0, torch.device("cpu"))
    e = draws.of(torch.zeros(4000, 2), slice(0, 5)).numpy()
    assert e.shape == (4000, 5, 2)
    assert stats.kstest(e.ravel(), stats.norm.cdf).pvalue > 1e-3
    assert np.abs(np.corrcoef(e.reshape(4000, 10).T) - np.eye(10)).max() < 5 / np.sqrt(4000)
    after = draws.of(torch.zeros(4000, 2), slice(0, 5)).numpy()
    assert abs(np.corrcoef(e.ravel(), after.ravel())[0, 1]) < 5 / np.sqrt(e.size)


# -------------------------------------------------------------------- the best proposal


@pytest.mark.parametrize("tau", [0.01, 0.3, 2.0])
@pytest.mark.parametrize("n_rows", [40, 1000])
def test_the_best_proposal_is_the_posterior(n_rows, tau):
    """About: its bound is log p(x) to hundredths."""
    X, std = rows_of(n_rows), POSTERIOR / tau
    found = best_proposal(model_of(), X, log_prior, std)
    np.testing.assert_array_equal(found.std, std)
    assert abs(np.log(found.tau / tau)) < 0.5
    lost = exact(X) - bounds(model_of(), X, log_prior, found, 256)
    assert abs(lost.mean()) < 0.1


def test_the_proposal_is_chosen_by_some_rows_in_turn():
    """At most 128, from all over; copies, that do not keep all of them in memory."""
    X = rows_of(1000)
    found = some_rows(X)
    np.testing.assert_array_equal(found, X[::8])
    assert found.base is None
    np.testing.assert_array_equal(some_rows(X[:128]), X[:128])


# ------------------------------------------------------------------- of an autoencoder


@pytest.fixture(scope="module")
def autoencoder():
    """Linear, with two codes."""
    X = rows_of(600, 3) + 5.0
    return Autoencoder(
        2,
        hidden_layer_sizes=(),
        activation="identity",
        max_iter=20,
        learning_rate_init=0.02,
        batch_size=100,
        random_state=0,
        device="cpu",
    ).fit(X)


def test_bounds_of_a_linear_autoencoder_are_its_gaussian(autoencoder):
    """With a Gaussian of its codes: by SciPy, from its map, its noise and theirs."""
    model, X = autoencoder, rows_of(30, 4) + 5.0
    mean, S = model.code_mean_, model.code_covariance_
    origin = model.inverse_transform(np.zeros((1, 2)))[0].astype(np.float64)
    weight = model.inverse_transform(np.eye(2)).astype(np.float64) - origin
    noise = model.noise_variance_
    law = stats.multivariate_normal(
        origin + mean @ weight, weight.T @ S @ weight + noise * np.eye(4)
    )
    gaussian = torch.distributions.MultivariateNormal(tensor(mean), tensor(S))
    std = np.sqrt(np.diag(S))
    explains = model._row_likelihood()
    proposal = best_proposal(explains, rows_of(600, 3) + 5.0, gaussian.log_prob, std)
    found = bounds(explains, X, gaussian.log_prob, proposal, 4000)
    np.testing.assert_allclose(found, law.logpdf(X), atol=0.1)
    assert abs((found - law.logpdf(X)).mean()) < 0.03
    few = bounds(explains, X, gaussian.log_prob, proposal, 1)
    assert few.mean() < found.mean()
