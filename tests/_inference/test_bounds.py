"""Bounds on log p(x) of models with a point for a code, where p(x) is a known Gaussian."""

from functools import partial
from types import SimpleNamespace

import numpy as np
import pytest
import torch
from scipy import integrate, stats

import helpers
from skae import Autoencoder
from skae._inference.bounds import Proposal, RowLikelihood, bounds
from skae._inference.proposal_width import _log_integral, best_width, proposal_width
from skae._nn.gaussian_latents import DiagonalGaussian
from skae._training.data import Dataset
from skae._training.units import Units

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

    trainer = SimpleNamespace(
        module=Linear(**params), inference=lambda n_passes: torch.inference_mode()
    )
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


@pytest.mark.parametrize("tau", [1.0, 0.02])
@pytest.mark.parametrize("n_draws", [1, 7])
def test_a_proposal_that_is_the_posterior_gives_log_p(n_draws, tau):
    """Exactly, whatever the draws: the ratio p(x, z) / p(z|x) depends on no z."""
    X = rows_of()
    found = bounds(model_of(), X, log_prior, Proposal(POSTERIOR / tau, tau), n_draws)
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


@pytest.mark.parametrize("ratio", [0.7, 1.5])
def test_one_draw_loses_the_divergence_of_the_proposal(ratio):
    """On average over draws: E log p(x, z) / q(z) = log p(x) - KL(q || p(z|x))."""
    X = np.concatenate([rows_of()[:4]] * 500)
    lost = []
    for seed in range(8):
        found = bounds(model_of(seed), X, log_prior, Proposal(POSTERIOR, ratio), 1)
        lost.append((exact(X) - found).reshape(-1, 4))
    lost = np.array(lost)[:, 0]
    error = lost.std() / np.sqrt(lost.size)
    assert abs(lost.mean() - divergence(ratio)) < 5 * error


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


def test_bounds_are_seeded():
    """By the model; the same in every pass, and torch's own generator is not read."""
    X, proposal = rows_of(), Proposal(POSTERIOR, 2.0)
    before = torch.get_rng_state()
    one, same, other = (bounds(model_of(s), X, log_prior, proposal, 3) for s in (0, 0, 1))
    np.testing.assert_array_equal(one, same)
    assert not np.isclose(one, other, atol=1e-6).any()
    assert torch.equal(before, torch.get_rng_state())


# --------------------------------------------------------------- its width, from few codes


def width(explains, X, std, prior=log_prior, **maps):
    return proposal_width(explains, X, prior, Proposal(std, 1.0, **maps))


def lost_by(widths, found, n=200, prior=log_prior, **params):
    """What the bound of 256 draws loses with the width that was found beside the best one."""
    X, std = rows_of(n, 1), params.pop("std")

    def mean(tau):
        model = model_of(**params)
        return bounds(model, X, prior, Proposal(std, tau), 256).mean(dtype=np.float64)

    return max(mean(found * ratio) for ratio in widths) - mean(found)


@pytest.mark.parametrize("tau", [0.01, 0.3, 1.9])
def test_the_width_is_that_of_the_posterior(tau):
    """Where the proposal can be the posterior, it is."""
    X = rows_of()
    found = width(model_of(), X, POSTERIOR / tau)
    np.testing.assert_allclose(found, tau, rtol=0.01)


@pytest.mark.parametrize("ratio", [3.0, 10.0])
def test_the_width_is_best_for_a_proposal_of_another_shape(ratio):
    """Between the widths of the two codes, nearer to the wider one, and no other loses less."""
    std = POSTERIOR * [1.0, ratio]
    found = width(model_of(), rows_of(400), std)
    assert 1 / ratio < found < 1.0
    assert lost_by(np.exp(np.linspace(-2, 2, 17)), found, std=std) < 0.01
    assert lost_by([1.0], found / ratio, std=std) == 0.0


def test_the_width_counts_codes_that_are_not_the_posteriors_mean():
    """Their draws have to reach where the mean is."""
    off = tensor(2 * POSTERIOR)

    class Off(Linear):
        def encode(self, x):
            return super().encode(x) + off

    model, X = model_of(), rows_of(400)
    model.model._trainer.module = Off()
    found = width(model, X, POSTERIOR)
    # E |z - f|² / k, with z of the posterior, is 1 + 2².
    assert 1.5 < found < 3.0
    lost = exact(X) - bounds(model, X, log_prior, Proposal(POSTERIOR, found), 256)
    assert lost.mean() < 0.05


def test_the_width_of_codes_with_bounds_is_that_of_real_numbers():
    """Which they are read as, and of which log_prior is."""

    class Positive(Linear):
        def encode(self, x):
            return super().encode(x).exp()

        def log_px(self, batch, z):
            return super().log_px(batch, z.log())

    model = model_of()
    model.model._trainer.module = Positive()
    found = width(model, rows_of(), POSTERIOR, to_real=torch.log, from_real=torch.exp)
    np.testing.assert_allclose(found, 1.0, rtol=0.01)


def test_the_width_under_a_mixture():
    """Of two Gaussians far from each other: the posterior of a row is near one of them."""
    means = tensor([[-3.0, 0.0], [3.0, 0.0]])

    def mixture(z):
        return torch.logsumexp(log_normal(z[..., None, :], means, tensor(PRIOR)), -1) - np.log(2)

    found = width(model_of(), rows_of(400), POSTERIOR, mixture)
    widths = np.exp(np.linspace(-1, 1, 9))
    assert lost_by(widths, found, std=POSTERIOR, prior=mixture) < 0.02


def test_codes_that_stand_still_have_no_width():
    """And change nothing of that of the others; if all do, there is nothing to find."""
    model, X = model_of(still=3.0), rows_of()
    assert width(model, X, np.zeros(3)) == 1.0
    found = width(model, X, np.r_[POSTERIOR, 0.0])
    np.testing.assert_allclose(found, 1.0, rtol=0.01)


@pytest.mark.filterwarnings("error")
@pytest.mark.parametrize("value", [np.nan, -np.inf, np.inf])
def test_log_densities_that_are_not_finite_say_nothing(value):
    """Those of some codes leave the others; those of all leave the width as it was."""
    X = rows_of()
    assert width(model_of(), X, POSTERIOR, lambda z: 0 * z[..., 0] + value) == 1.0

    def half(z):
        return torch.where(z[..., 0] > 0, log_prior(z), value)

    found = width(model_of(), X, POSTERIOR, half)
    np.testing.assert_allclose(found, 1.0, rtol=0.05)


def test_a_density_that_rises_in_all_directions_has_no_width():
    """It is not concave anywhere."""
    rising = width(model_of(), rows_of(), POSTERIOR, lambda z: 1e3 * z.square().sum(-1))
    assert rising == 1.0


def test_the_width_depends_on_no_pieces_and_no_generator():
    """However few codes are decoded together; the draws are seeded by the model."""
    X, std = rows_of(100), POSTERIOR * [1.0, 3.0]
    before = torch.get_rng_state()
    found = width(model_of(), X, std)
    assert torch.equal(before, torch.get_rng_state())
    assert found == width(model_of(), X, std)
    few = width(model_of(widest=2**17), X, std)
    np.testing.assert_allclose(few, found, rtol=1e-3)
    assert width(model_of(1), X, std) != found


@pytest.mark.parametrize("k", [1, 2, 8, 100])
@pytest.mark.parametrize("b", [-8.0, -1.0, 0.0, 1.0, 8.0])
def test_integrals_along_rays(k, b):
    """By quadrature; a factor that depends on k alone cancels."""

    def true(a, b):
        def log_f(r):
            return (k - 1) * np.log(r) - b * r - 0.5 * a * r * r

        top = np.sqrt(k / a) + abs(b) / a
        at = max(log_f(r) for r in np.linspace(1e-3, 2 * top, 500))
        whole = integrate.quad(
            lambda r: np.exp(log_f(r) - at), 0, 3 * top + 9, limit=500, points=[top]
        )
        return at + np.log(whole[0])

    found = _log_integral(np.array([2.0, 1.0]), np.array([b, 0.0]), k)
    assert abs((found[0] - found[1]) - (true(2.0, b) - true(1.0, 0.0))) < 0.2 / k


def test_rays_that_are_not_convex_are_left_out():
    """Whatever their slopes; None if there are no others."""
    slope = np.array([[0.3, -0.3, 1e9, np.nan], [np.inf, 0.0, 0.0, 0.0]])
    curvature = np.array([[4.0, 4.0, -1.0, 4.0], [4.0, 0.0, np.nan, -np.inf]])
    expected = best_width(slope[:1, :2], curvature[:1, :2], 2)
    assert best_width(slope, curvature, 2) == expected
    assert best_width(slope[1:], curvature[1:], 2) is None
    np.testing.assert_allclose(best_width(np.zeros((2, 3)), np.full((2, 3), 4.0), 5), 0.5)


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
    rows, start = rows_of(600, 3) + 5.0, Proposal(std, 1.0)
    proposal = start._replace(tau=proposal_width(explains, rows, gaussian.log_prob, start))
    found = bounds(explains, X, gaussian.log_prob, proposal, 4000)
    np.testing.assert_allclose(found, law.logpdf(X), atol=0.1)
    assert abs((found - law.logpdf(X)).mean()) < 0.03
    few = bounds(explains, X, gaussian.log_prob, proposal, 1)
    assert few.mean() < found.mean()


def test_the_width_of_rows_with_missing_values():
    """No other, of a dozen, gives scores that are better by much."""
    X = rows_of(600, 3)
    X[np.random.default_rng(0).random(X.shape) < 0.2] = np.nan
    model = Autoencoder(2, hidden_layer_sizes=(20,), max_iter=20, random_state=0, device="cpu")
    model.fit(X)
    prior, std, explains = model._log_code_density(2), model._code_stds(2), model._row_likelihood()
    assert model._proposal_tau == width(explains, X, std, prior)

    def mean(tau):
        return bounds(explains, X, prior, Proposal(std, tau), 256).mean(dtype=np.float64)

    best = max(mean(tau) for tau in np.geomspace(0.05, 2.0, 12))
    assert mean(model._proposal_tau) > best - 0.1
