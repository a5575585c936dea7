"""Gradients through a few draws of many, averaged over the uniform numbers that choose them."""

import numpy as np
import pytest
import torch
from scipy import special

from helpers import batch_of, make_rows, network
from skae import VAE
from skae._modules.importance import LEAST_TO_RESAMPLE, WITH_GRADIENTS, resampled, weighted_bound

K = 12
X = make_rows(6)
# Uniform numbers at the centres of equal intervals: their average is an integral.
GRID = torch.from_numpy((np.arange(4000) + 0.5) / 4000).float()


def vae(n_importance=K, **params):
    options = {"hidden_layer_sizes": (6,), "activation": "tanh", "max_iter": 2}
    return network(VAE, n_components=2, n_importance=n_importance, **options | params)


def batches(model, rows, row):
    """One row with its draws, and the same row for every number of the grid."""
    module = model.net_.module_.double()
    drawn = module.train().prepare(batch_of(model, rows), torch.Generator().manual_seed(0))
    if model.conditional:
        drawn = drawn._replace(condition=torch.eye(2)[torch.arange(len(rows)) % 2])
    fields = {
        name: value[[row]].double() if isinstance(value, torch.Tensor) else value
        for name, value in drawn._asdict().items()
    }
    draws = torch.from_numpy(np.random.default_rng(row).normal(size=(1, K, 2)))
    few = drawn._replace(**fields | {"draws": draws})
    chooses = torch.from_numpy(special.ndtri(GRID.double().numpy()))[:, None, None]
    many = {
        name: value.expand(len(GRID), *value.shape[1:])
        for name, value in few._asdict().items()
        if isinstance(value, torch.Tensor)
    }
    many["draws"] = torch.cat([many["draws"], chooses.expand(-1, 1, 2)], 1)
    return module, few, few._replace(**many)


@pytest.mark.parametrize("n", [1, 3, 8])
def test_every_draw_is_chosen_as_often_as_its_share_says(n):
    """Rounded up or down for a single number, and exactly on average."""
    share = torch.tensor([0.02, 0.5, 0.0, 0.13, 0.35])
    chosen = resampled(share.expand(len(GRID), -1), GRID, n)
    assert chosen.shape == (len(GRID), n)
    counts = torch.nn.functional.one_hot(chosen, 5).sum(1).double()
    expected = n * share.double()
    assert ((counts - expected).abs() < 1).all()
    np.testing.assert_allclose(counts.mean(0), expected, atol=1e-3)
    assert resampled(torch.tensor([[0.7, 0.3]]), torch.tensor([1.0]), n).max() <= 1


@pytest.mark.parametrize(
    "params",
    [
        {},
        {"prior": "mixture"},
        {"prior": "vamp"},
        {"likelihood": "bernoulli"},
        {"latent_growth": "nested", "noise_variance": "per_feature"},
        {"conditional": True},
        {"missing": "mask"},
    ],
    ids=str,
)
def test_the_mean_gradient_is_that_of_all_draws(params):
    """Of every parameter; the bound is the same for each choice, and so is what explains noise."""
    rows, y = X.copy(), np.arange(len(X)) % 2
    if "likelihood" in params:
        rows = (X > 0).astype(float)
    if "missing" in params:
        rows[::3, 1] = np.nan
    model = vae(**params).fit(rows, y)
    for row in (0, 3):
        module, few, many = batches(model, rows, row)
        exact, found = weighted_bound(module, few), weighted_bound(module, many)
        assert exact.output.shape[1] == K
        assert found.output.shape[1] == WITH_GRADIENTS
        torch.testing.assert_close(found.bound, exact.bound.expand(len(GRID)))
        explained = (found.output * found.share[..., None]).sum(1).mean(0)
        expected = (exact.output * exact.share[..., None]).sum(1)[0]
        torch.testing.assert_close(explained, expected, atol=1e-3, rtol=0)
        names, parameters = zip(*module.named_parameters(), strict=True)
        expected = torch.autograd.grad(exact.bound.mean(), parameters, allow_unused=True)
        gradients = torch.autograd.grad(found.bound.mean(), parameters, allow_unused=True)
        for name, one, other in zip(names, expected, gradients, strict=True):
            if one is not None:
                scale = 1e-3 * float(one.abs().max()) + 1e-6
                torch.testing.assert_close(other, one, atol=scale, rtol=0, msg=name)


@pytest.mark.parametrize(
    ("params", "resamples"),
    [
        ({}, True),
        ({"latent_growth": "nested"}, True),
        ({"n_importance": LEAST_TO_RESAMPLE - 1}, False),
        ({"normalization": "batch"}, False),
        ({"encoder": torch.nn.Linear(5, 4), "decoder": torch.nn.Linear(2, 5)}, False),
    ],
    ids=["many draws", "ordered codes", "few draws", "batch normalisation", "own networks"],
)
def test_when_draws_are_chosen(params, resamples):
    """In training only, if the output for a draw is a function of the draw."""
    model = vae(**{"n_importance": LEAST_TO_RESAMPLE} | params).fit(make_rows(60))
    module, generator = model.net_.module_, torch.Generator().manual_seed(0)
    batch = batch_of(model, make_rows(60))
    n = model.n_importance
    assert module.train().prepare(batch, generator).draws.shape[1] == n + resamples
    assert module.eval().prepare(batch, generator).draws.shape[1] == n
    loss = module.loss(module.prepare(batch, generator))
    assert loss.output.shape[1] == n
    assert np.isfinite(model.score(make_rows(60)))
