"""Approximations of p(z|x) at its mode, and bounds with them, against integrals on a grid."""

import numpy as np
import pytest
import torch
from scipy import special

from helpers import tensor
from skae import VAE
from skae._inference.refined import FullGaussian, refined
from skae._inference.row_draws import RowDraws
from skae._inference.vae import batch_bounds
from skae._nn.gaussian_latents import log_prior
from skae._training.data import Data

KINDS = ["poisson", "negative_binomial", "zero_inflated_negative_binomial"]


def make_counts(n=150, seed=0, gaps=0.0):
    """Log rates that are linear in two codes, with log-normal sizes."""
    rng = np.random.default_rng(seed)
    loadings = np.array([[0.8, 0.3, -0.5, -0.8, 0.1, 0.4], [0.0, 0.6, 0.5, -0.3, -0.7, 0.1]])
    log_rate = rng.normal(size=(n, 2)) @ loadings + rng.normal(3, 0.4, (n, 1))
    X = rng.poisson(np.exp(log_rate)).astype(float)
    if gaps:
        X[rng.random(X.shape) < gaps] = np.nan
    return X


def fit(n_components=1, likelihood="poisson", gaps=0.0, **options):
    options = {"hidden_layer_sizes": (), "max_iter": 3, "random_state": 0} | options
    y = options.pop("y", None)
    return VAE(n_components, likelihood=likelihood, **options).fit(make_counts(gaps=gaps), y)


def batch_of(model, X, condition=None):
    return model._dataset(Data(X, None, condition)).batch(slice(None))


def spoil(model, by=1.5):
    """Move the means of q(z|x) by many of its standard deviations."""
    with torch.no_grad():
        bias = model._trainer.module.encoder[-1].bias
        bias[: model.n_components_] += by
    return model


def grid_of(module, batch, *, marginal, k=1):
    """Codes on a grid, and log p(x, z) of each row and code, by which integrals are sums."""
    axis = torch.linspace(-8, 8, 3201 if k == 1 else 321)
    z = torch.cartesian_prod(*[axis] * k).reshape(-1, k)
    condition = batch.condition
    found = []
    with torch.inference_mode():
        for i in range(len(batch.x)):
            given = None if condition is None else condition[i].expand(len(z), -1)
            output = module.decode(z, given)[None].double()
            seen = None if batch.seen is None else batch.seen[i].double()
            name = "row_log_marginal" if marginal else "row_log_prob"
            x = batch.y[i].double().expand(1, len(z), -1)
            mask = None if seen is None else seen.expand(x.shape)
            log_px = getattr(module.likelihood, name)(x, output, mask)[0]
            found.append(log_px + log_prior(z, module.prior()))
    return z.double().numpy(), torch.stack(found).double().numpy(), float(axis[1] - axis[0]) ** k


@pytest.mark.parametrize("gaps", [0.0, 0.3])
@pytest.mark.parametrize("k", [1, 2])
@pytest.mark.parametrize("kind", KINDS[:2])
def test_it_is_the_exact_distribution_of_the_codes(kind, k, gaps):
    """Of a decoder with linear log rates, given the size factors, wherever q(z|x) is."""
    model = spoil(fit(k, kind, gaps))
    module, batch = model._trainer.module, batch_of(model, make_counts(6, 1, gaps))
    with torch.inference_mode():
        found = refined(module, batch, module.encode(batch.x), module.prior(), 16)
    z, log_joint, _ = grid_of(module, batch, marginal=False, k=k)
    mass = special.softmax(log_joint, 1)
    mean = mass @ z
    deviation = np.sqrt(mass @ z**2 - mean**2)
    covariance = (found.root @ found.root.mT).double().numpy()
    root = np.sqrt(np.diagonal(covariance, axis1=1, axis2=2))
    np.testing.assert_allclose(found.mean.numpy(), mean, atol=0.25 * deviation.max())
    np.testing.assert_allclose(root, deviation, rtol=0.25)


def test_the_density_is_that_of_its_draws():
    """By numerical inversion of the map from draws to codes."""
    root = tensor([[[0.5, 0.0], [-0.3, 0.2]]])
    gaussian = FullGaussian(tensor([[1.0, -2.0]]), root)
    draws = tensor(np.random.default_rng(0).normal(size=(1, 9, 2)))
    z = gaussian.at(draws)
    white = np.linalg.solve(root[0].numpy(), (z[0] - gaussian.mean[0]).numpy().T).T
    expected = -0.5 * (white**2).sum(1) - np.log(2 * np.pi) - np.log(np.linalg.det(root[0].numpy()))
    np.testing.assert_allclose(white, draws[0], atol=1e-12)
    np.testing.assert_allclose(gaussian.log_density(z)[0], expected, rtol=1e-12)


def bounds(model, batch, n_draws, seed=0):
    module = model._trainer.module
    draws = RowDraws(n_draws, model.n_components_, seed, torch.device("cpu"))
    with torch.inference_mode():
        found = batch_bounds(module, batch, draws, [slice(0, n_draws)], module.prior())
    return found.double().numpy()


@pytest.mark.parametrize("gaps", [0.0, 0.3])
@pytest.mark.parametrize("prior", ["standard", "mixture", "vamp"])
@pytest.mark.parametrize("kind", KINDS)
def test_bounds_are_close_to_the_truth_where_the_encoder_is_not(kind, prior, gaps):
    """By integrals over codes and size factors; the bounds are never above them."""
    model = spoil(fit(1, kind, gaps, prior=prior, n_prior_components=2))
    module, batch = model._trainer.module, batch_of(model, make_counts(5, 1, gaps))
    _, log_joint, cell = grid_of(module, batch, marginal=True)
    truth = special.logsumexp(log_joint, 1) + np.log(cell)
    error = np.array([bounds(model, batch, 400, seed) - truth for seed in range(10)])
    assert (np.abs(error.mean(0)) < 0.05).all()
    ratio = np.exp(error)
    assert (ratio.mean(0) < 1 + 5 * ratio.std(0) / 3 + 1e-3).all()


@pytest.mark.parametrize("n_draws", [9, 10])
@pytest.mark.parametrize("gaps", [0.0, 0.3])
def test_bounds_are_logs_of_unbiased_estimates(gaps, n_draws):
    """The mean of exp(bound) is p(x) for any number of draws, also odd ones."""
    model = spoil(fit(1, gaps=gaps), 0.1)
    module, batch = model._trainer.module, batch_of(model, make_counts(4, 1, gaps))
    _, log_joint, cell = grid_of(module, batch, marginal=True)
    truth = special.logsumexp(log_joint, 1) + np.log(cell)
    ratio = np.exp([bounds(model, batch, n_draws, seed) - truth for seed in range(150)])
    error = ratio.mean(1).std() / 150**0.5
    assert abs(ratio.mean() - 1) < 4 * error + 1e-3
    assert error < 0.01  # so that a wrong share of draws is seen


def test_bounds_given_a_label():
    X, y = make_counts(), np.repeat([0, 1], 75)
    model = spoil(
        VAE(1, likelihood="poisson", conditional=True, max_iter=3, random_state=0).fit(X, y)
    )
    new, labels = make_counts(5, 1), np.array([0, 1, 0, 1, 1])
    batch = batch_of(model, new, np.eye(2, dtype=np.float32)[labels])
    _, log_joint, cell = grid_of(model._trainer.module, batch, marginal=True)
    truth = special.logsumexp(log_joint, 1) + np.log(cell)
    found = model.score_samples(new, labels, n_importance=400)
    np.testing.assert_allclose(found, truth, atol=0.1)


def test_what_is_not_refined():
    """Few draws, many codes, and likelihoods of other rows keep q(z|x)."""
    model = fit()
    module, batch = model._trainer.module, batch_of(model, make_counts(3, 1))
    with torch.inference_mode():
        q = module.encode(batch.x)
        assert refined(module, batch, q, None, 7) is None
        assert refined(module, batch, q, None, 8) is not None
        gaussian = fit(likelihood="gaussian")
        rows = batch_of(gaussian, make_counts(3, 1))
        module = gaussian._trainer.module
        assert refined(module, rows, module.encode(rows.x), None, 100) is None
