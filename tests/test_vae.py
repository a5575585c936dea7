"""VAE: bounds, gradients and imputations, against PPCA, quadrature and formulas by hand."""

import copy
import pickle
import shutil
import warnings
from functools import partial

import numpy as np
import pandas as pd
import pytest
import torch
from scipy import linalg, special, stats
from sklearn.base import clone
from sklearn.linear_model import LinearRegression
from sklearn.mixture import GaussianMixture
from sklearn.model_selection import GridSearchCV, KFold
from sklearn.pipeline import Pipeline
from sklearn.preprocessing import StandardScaler
from skorch.callbacks import Callback
from torch import nn

from helpers import (
    allowed_rows,
    assert_same,
    batch_of,
    low_rank_rows,
    make_rows,
    network,
    weights,
)
from skae import PPCA, VAE
from skae._inference import row_draws
from skae._inference.row_draws import blocks as blocks_of
from skae._inference.row_draws import log_q
from skae._inference.row_draws import pieces as pieces_of
from skae._inference.vae import mutual_information
from skae._nn.gaussian_latents import DiagonalGaussian
from skae._training.data import Batch, Data, some_of

# -------------------------------------------------------------------------- helpers


noisy_rows = partial(low_rank_rows, n_features=5, scales=(3.0, 1.5), noise=0.5)


def rows_for(likelihood, n_rows=80, gaps=0.0):
    """Rows that this likelihood allows."""
    X = allowed_rows(likelihood, noisy_rows(n_rows), 2.0)
    X[np.random.default_rng(5).random(X.shape) < gaps] = np.nan
    return X


def vae(n_components=2, **params):
    """A small one that trains for a few epochs, all of them, in float32."""
    options = {"hidden_layer_sizes": (16,), "activation": "tanh", "batch_size": 40}
    options |= {"learning_rate_init": 0.01, "max_iter": 10}
    # Truths here are of p(x|z) without size factors; those are in test_count_networks.py.
    options |= {"size_factor": None}
    return network(VAE, n_components=n_components, **{**options, **params})


def linear(n_components=2, **params):
    """Without hidden layers: PPCA, trained to the optimum."""
    options = {
        "hidden_layer_sizes": (),
        "learning_rate": "cosine",
        "learning_rate_init": 0.05,
        "batch_size": 64,
        "max_iter": 40,
    }
    return vae(n_components, **{**options, **params})


def start(**params):
    """Parameters of a model that stays where it starts."""
    return {"learning_rate_init": 1e-12, "max_iter": 1, **params}


def fitted(model, *given, **kwargs):
    """After a fit of which no collapse matters."""
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", "Posterior collapse")
        return model.fit(*given, **kwargs)


# ------------------------------------------------------------------- the linear truth


def as_ppca(X, n_components=2, *, blind=False, **params):
    """A VAE with the weights of PPCA's optimum, q(z|x) = p(z|x), and that PPCA.

    The network reads (x - center) / scale. A blind one has q(z|x) = p(z), which is as
    good a proposal for rows with holes as for others.
    """
    pca = PPCA(n_components).fit(X)
    model = fitted(linear(n_components, **start(), **params), X)
    module, units = model.net_.module_, model._architecture.units.inputs
    center, scale = units.center.numpy(), units.scale
    loadings, noise = pca.loadings_.astype(float), pca.noise_variance_
    precision = np.sum(loadings**2, axis=0) + noise
    to_codes = loadings / precision
    log_var = np.log(noise / precision)
    if blind:
        to_codes, log_var = np.zeros_like(to_codes), np.zeros_like(log_var)
    values = {
        module.encoder[0].weight: np.vstack([scale * to_codes.T, np.zeros(to_codes.T.shape)]),
        module.encoder[0].bias: np.concatenate([(center - pca.mean_) @ to_codes, log_var]),
        module.decoder[0].weight: loadings / scale,
        module.decoder[0].bias: (pca.mean_ - center) / scale,
        module.likelihood.variance: noise / scale**2,
    }
    with torch.no_grad():
        for tensor, value in values.items():
            tensor.copy_(torch.as_tensor(value))
    model._publish_noise()
    return model, pca


@pytest.mark.parametrize(
    "params", [{}, {"n_importance": 5}, {"prior": "mixture"}], ids=["elbo", "iwae", "mixture"]
)
def test_a_linear_network_is_ppca(params):
    """Its likelihood to 0.05 nats a row, its subspace, its noise; new rows too."""
    X = noisy_rows(1600, n_features=8)
    train, test = X[:1200], X[1200:]
    model, pca = linear(**params).fit(train), PPCA(2).fit(train)
    assert model.score(train) == pytest.approx(pca.score(train), abs=0.05)
    assert model.score(test) == pytest.approx(pca.score(test), abs=0.05)
    (layer,) = model.net_.module_.decoder
    angles = linalg.subspace_angles(layer.weight.detach().double().numpy(), pca.components_.T)
    assert angles.max() < 0.02
    assert model.noise_variance_ == pytest.approx(pca.noise_variance_, rel=0.05)


def test_the_bound_of_an_exact_posterior_is_the_likelihood():
    """Of every row, with any number of draws, whichever they are."""
    X = noisy_rows(200)
    model, pca = as_ppca(X)
    expected = pca.score_samples(X)
    for seed, n_importance in [(0, 1), (1, 1), (2, 3), (3, 100)]:
        model._seed = seed
        found = model.score_samples(X, n_importance=n_importance)
        np.testing.assert_allclose(found, expected, rtol=1e-4, atol=1e-4)
    means, stds = model.posterior(X)
    np.testing.assert_allclose(means, pca.transform(X), rtol=1e-4, atol=1e-5)
    np.testing.assert_allclose(stds**2, pca.posterior(X)[1].diagonal(0, 1, 2), rtol=1e-4)


@pytest.mark.parametrize("scale", [1e-3, 1e4])
def test_bounds_shift_by_the_logarithm_of_the_scale(scale):
    """Rows times s, far from zero, score D log s less, by value that was seen."""
    X = noisy_rows(100) * scale + 50 * scale
    model, pca = as_ppca(X)
    np.testing.assert_allclose(model.score_samples(X), pca.score_samples(X), rtol=1e-3, atol=1e-2)
    terms = model.elbo_terms(X, n_draws=2000)
    assert np.mean(terms.reconstruction - terms.kl) == pytest.approx(pca.score(X), abs=0.05)
    X[:, 0] = np.nan
    blind, _ = as_ppca(noisy_rows(100) * scale + 50 * scale, blind=True)
    found = blind.score_samples(X, n_importance=5000)
    assert found.mean() == pytest.approx(pca.score(X), abs=0.1)


def test_the_terms_of_an_exact_posterior():
    """Divergences in closed form, sums of those by latent; both terms make the likelihood."""
    X = noisy_rows(50)
    model, pca = as_ppca(X)
    terms = model.elbo_terms(X, n_draws=4000)
    means, stds = (a.astype(float) for a in model.posterior(X))
    expected = 0.5 * (means**2 + stds**2 - 1) - np.log(stds)
    np.testing.assert_allclose(terms.kl_per_latent, expected, rtol=1e-4, atol=1e-5)
    np.testing.assert_allclose(terms.kl, expected.sum(axis=1), rtol=1e-4)
    residual = X - pca.inverse_transform(means)
    spread = np.sum(stds**2 * np.sum(pca.loadings_**2, axis=0), axis=1)  # of what is decoded
    noise = pca.noise_variance_
    squares = np.sum(residual**2, axis=1) + spread
    exact = -0.5 * squares / noise - 2.5 * np.log(2 * np.pi * noise)
    np.testing.assert_allclose(terms.reconstruction, exact, atol=0.2)
    assert terms.reconstruction.mean() == pytest.approx(exact.mean(), abs=0.05)
    np.testing.assert_allclose(exact - expected.sum(axis=1), pca.score_samples(X), rtol=1e-6)


def test_information_of_a_linear_model():
    """Half the log determinant of I + W'W / s2, if p(x) is as learned."""
    X = noisy_rows(1500, noise=1.0)
    model, pca = as_ppca(X)
    gain = np.sum(pca.loadings_.astype(float) ** 2, axis=0) / pca.noise_variance_
    expected = 0.5 * np.log1p(gain).sum()
    assert model.mutual_information(X, n_draws=4) == pytest.approx(expected, abs=0.03)
    divergence = model.elbo_terms(X, n_draws=1).kl.mean()
    assert model.mutual_information(X, n_draws=4) <= divergence + 0.01


def test_information_by_quadrature():
    """Of five rows and one latent: the mean divergence of q(z|x) from their mean."""
    means, stds = np.array([-2.0, -1.8, 0.0, 1.0, 4.0]), np.array([0.3, 0.6, 1.0, 0.2, 0.5])
    z = np.linspace(-8.0, 9.0, 20_001)
    q = stats.norm(means, stds).pdf(z[:, None])
    ratio = special.xlogy(q, q) - special.xlogy(q, q.mean(axis=1, keepdims=True))
    expected = np.sum(ratio.mean(axis=1)) * (z[1] - z[0])
    rng = np.random.RandomState(0)
    found = mutual_information(means[:, None], stds[:, None], 2000, rng)
    assert found == pytest.approx(expected, abs=0.02)


def test_information_lies_between_nothing_and_the_logarithm_of_the_rows():
    """Rows of one posterior share all, rows whose posteriors never meet nothing."""
    rng = np.random.RandomState(0)
    means = np.linspace(-3, 3, 8)[:, None]
    assert mutual_information(means, np.full((8, 1), 1e-3), 5, rng) == pytest.approx(np.log(8))
    assert mutual_information(0 * means, np.ones((8, 1)), 5, rng) == pytest.approx(0.0, abs=1e-12)


@pytest.mark.parametrize("n_values", [1, 7, 40])
def test_information_in_chunks(n_values, monkeypatch):
    """Whatever the number of pairs at once."""
    rng = np.random.default_rng(0)
    means, stds = rng.normal(size=(20, 2)), rng.uniform(0.1, 1, (20, 2))
    expected = mutual_information(means, stds, 3, np.random.RandomState(0))
    monkeypatch.setattr(row_draws, "VALUES", n_values)
    found = mutual_information(means, stds, 3, np.random.RandomState(0))
    assert found == pytest.approx(expected, rel=1e-12)


# ------------------------------------------------------------ missing values, linearly


HOLES = np.array([[0, 0, 1, 0, 0], [1, 0, 0, 1, 0], [1, 1, 0, 1, 1], [0, 1, 1, 0, 1]], dtype=bool)


def conditional_moments(pca, x):
    """Mean and covariance of the missing values of a row, given the seen ones."""
    gone, covariance = np.isnan(x), pca.get_covariance().astype(float)
    mean = pca.mean_.astype(float)
    to_gone = linalg.solve(covariance[~gone][:, ~gone], covariance[~gone][:, gone]).T
    given = mean[gone] + to_gone @ (x[~gone] - mean[~gone])
    return given, covariance[gone][:, gone] - to_gone @ covariance[~gone][:, gone]


@pytest.fixture(scope="module")
def blind():
    """A blind linear VAE, its PPCA, and rows with holes."""
    X = noisy_rows(300, noise=1.0)
    model, pca = as_ppca(X, blind=True)
    return model, pca, np.where(HOLES, np.nan, X[: len(HOLES)])


def test_bounds_of_rows_with_holes(blind):
    """With many draws they are the likelihood of what was seen."""
    model, pca, X = blind
    found = model.score_samples(X, n_importance=50_000)
    np.testing.assert_allclose(found, pca.score_samples(X), atol=0.05)


def test_imputed_means_are_conditional_means(blind):
    """Of the exact model; what was seen is returned as it is."""
    model, pca, X = blind
    found = model.impute(X, n_importance=50_000)
    np.testing.assert_array_equal(found[~HOLES], X[~HOLES])
    np.testing.assert_allclose(found, pca.impute(X), atol=0.05)
    for row, filled in zip(X, found, strict=True):
        given, _ = conditional_moments(pca, row)
        np.testing.assert_allclose(filled[np.isnan(row)], given, atol=0.05)
    np.testing.assert_array_equal(model.impute(X), model.impute(X))


def test_imputed_draws_have_the_conditional_moments(blind):
    """Noise included: mean and covariance of the exact conditional distribution."""
    model, pca, X = blind
    draws = model.impute(X, 1500, n_importance=3000, random_state=0)
    assert draws.shape == (1500, 4, 5)
    np.testing.assert_array_equal(draws[:, ~HOLES], np.broadcast_to(X[~HOLES], (1500, 10)))
    for i, row in enumerate(X):
        gone = np.isnan(row)
        mean, covariance = conditional_moments(pca, row)
        found = draws[:, i][:, gone]
        size = covariance.diagonal().max()
        np.testing.assert_allclose(found.mean(axis=0), mean, atol=0.15 * np.sqrt(size))
        np.testing.assert_allclose(
            np.cov(found.T).reshape(covariance.shape), covariance, atol=0.2 * size
        )


def test_imputed_draws_follow_the_seed(blind):
    """The same seed fills in the same values, another one others; None takes fresh entropy."""
    model, _, X = blind
    first, again, other, fresh, anew = (
        model.impute(X, 3, random_state=seed) for seed in (0, 0, 1, None, None)
    )
    np.testing.assert_array_equal(first, again)
    for draws in (other, fresh):
        assert np.all(draws[:, HOLES] != first[:, HOLES])
    assert np.all(fresh[:, HOLES] != anew[:, HOLES])


@pytest.mark.parametrize("n_values", [1, 64, 5000])
def test_imputation_in_chunks(blind, n_values, monkeypatch):
    """Means are the same in blocks of any size; draws have the same moments."""
    model, pca, X = blind
    expected = model.impute(X, n_importance=50)
    monkeypatch.setattr(row_draws, "VALUES", n_values)
    np.testing.assert_allclose(model.impute(X, n_importance=50), expected, rtol=1e-4, atol=1e-4)
    if n_values == 64:
        draws = model.impute(X[:2], 300, n_importance=500, random_state=0)
        exact = np.where(HOLES[:2], pca.impute(X[:2]), X[:2])
        np.testing.assert_allclose(draws.mean(axis=0), exact, atol=0.4)


def test_rows_without_holes_and_without_values():
    """The first come back, the second are means of all rows, and score nothing."""
    X = noisy_rows(60)
    model = vae().fit(X)
    np.testing.assert_array_equal(model.impute(X), X)
    np.testing.assert_array_equal(model.impute(X, 2), np.stack([X, X]))
    exact, pca = as_ppca(X, blind=True)
    nothing = np.full((1, 5), np.nan)
    assert exact.score_samples(nothing)[0] == pytest.approx(0.0, abs=1e-5)
    found = exact.impute(nothing, n_importance=50_000)
    np.testing.assert_allclose(found[0], pca.mean_, atol=0.05)


@pytest.mark.parametrize(
    ("arguments", "named"),
    [({"n_draws": 0}, "n_draws"), ({"n_draws": 1.5}, "n_draws"), ({"n_importance": 0}, "n_imp")],
)
def test_impossible_imputations(blind, arguments, named):
    """The error names the argument."""
    model, _, X = blind
    with pytest.raises(ValueError, match=named):
        model.impute(X, **arguments)


def test_imputation_far_from_zero():
    """An offset that float32 could not hold beside the rows is added to what is filled in."""
    X = noisy_rows(60).astype(np.float64)
    X[np.random.default_rng(0).random(X.shape) < 0.2] = np.nan
    seen = ~np.isnan(X)
    model, far = vae().fit(X), vae().fit(X + 1e8)
    for draws in (None, 3):
        expected, found = (
            fitted.impute(rows, draws, random_state=0)
            for fitted, rows in ((model, X), (far, X + 1e8))
        )
        np.testing.assert_array_equal(
            found[..., seen], np.broadcast_to((X + 1e8)[seen], found[..., seen].shape)
        )
        np.testing.assert_allclose(found - 1e8, expected, atol=0.05)
    # Whatever type the rows to fill have; and theirs where that is the wider one.
    assert model.impute(X.astype(np.float32)).dtype == np.float64
    assert vae(max_iter=1).fit(X.astype(np.float32)).impute(X).dtype == np.float64


def test_imputed_rows_in_a_frame(blind):
    """Means under the names of the columns; draws an array."""
    _, _, X = blind
    frame = pd.DataFrame(noisy_rows(60), columns=list("abcde"))
    model = vae().set_output(transform="pandas").fit(frame)
    holes = pd.DataFrame(X, columns=list("abcde"), index=[3, 1, 4, 9])
    found = model.impute(holes)
    assert list(found.columns) == list("abcde")
    assert list(found.index) == [3, 1, 4, 9]
    assert not found.isna().any(axis=None)
    assert isinstance(model.impute(holes, 2), np.ndarray)


@pytest.mark.parametrize("prior", ["standard", "vamp"])
def test_training_on_rows_with_holes(prior):
    """Held-out values come back with a third of the error of column means."""
    X = noisy_rows(400, n_features=10, noise=0.2)
    hidden = np.random.default_rng(1).random(X.shape) < 0.15
    holes = np.where(hidden, np.nan, X)
    model = vae(2, hidden_layer_sizes=(32,), max_iter=60, learning_rate="cosine", prior=prior).fit(
        holes[:300]
    )
    found = model.impute(holes)
    means = np.nanmean(holes[:300], axis=0)
    for part in (slice(0, 300), slice(300, None)):
        gone = hidden[part]
        error = np.square(X[part] - found[part])[gone].mean()
        assert error < np.square(X[part] - means)[gone].mean() / 3


@pytest.mark.parametrize("n_importance", [1, 3])
def test_unseen_values_do_not_matter(n_importance):
    """Neither loss nor gradient depends on what stands where nothing was seen."""
    X = noisy_rows(gaps=0.2)
    model = vae(n_importance=n_importance).fit(X)
    module = model.net_.module_
    batch = module.prepare(batch_of(model, X), torch.Generator().manual_seed(0))
    other = batch._replace(y=torch.where(batch.seen > 0, batch.y, 1e3))
    found = []
    for rows in (batch, other):
        loss = sum(module.loss(rows).terms.values())
        found.append((loss.detach(), torch.autograd.grad(loss, list(module.parameters()))))
    assert torch.equal(found[0][0], found[1][0])
    for first, second in zip(found[0][1], found[1][1], strict=True):
        torch.testing.assert_close(first, second, rtol=0, atol=0)


def test_holes_may_be_refused():
    """missing="error" raises at NaN, and says so."""
    model = vae(missing="error").fit(noisy_rows())
    for method in ("score_samples", "elbo_terms", "impute", "posterior", "active_units"):
        with pytest.raises(ValueError, match="NaN"):
            getattr(model, method)(noisy_rows(gaps=0.1))


# ------------------------------------------------------------------ truth by quadrature


GRID = np.linspace(-9.0, 9.0, 1801)


def continuous_bernoulli(x, mean):
    """Log density e^(a x) of this mean: a solves 1 / (1 - e^-a) - 1 / a = mean, by table."""
    a = np.linspace(-60.0, 60.0, 4000)  # without zero
    a = np.interp(mean, -1 / np.expm1(-a) - 1 / a, a)
    return a * x - np.log(np.expm1(a) / a)


LAWS = {
    "gaussian": lambda x, mean, noise: stats.norm.logpdf(x, mean, np.sqrt(noise)),
    "laplace": lambda x, mean, noise: stats.laplace.logpdf(x, mean, np.sqrt(noise / 2)),
    "bernoulli": lambda x, p, _: special.xlogy(x, p) + special.xlog1py(1 - x, -p),
    "poisson": lambda x, rate, _: stats.poisson.logpmf(x, rate),
    "continuous_bernoulli": lambda x, mean, _: continuous_bernoulli(x, mean),
}


def log_joint(model, X, y=None):
    """log p(x|z) at every grid point and row, by SciPy, in the units of the data."""
    mean = np.asarray(model.inverse_transform(GRID[:, None], y), dtype=float)[:, None]
    filled = np.where(np.isnan(X), 1.0, X)
    values = LAWS[model.likelihood](filled, mean, model.noise_variance_)
    return np.where(np.isnan(X), 0.0, values).sum(axis=-1)


def log_prior_on_grid(model):
    """Of one latent, by SciPy, from the learned components."""
    module = model.net_.module_
    if model.prior == "standard":
        return stats.norm.logpdf(GRID)
    if model.prior == "mixture":
        mean, log_var, logit = (
            t.detach().double().numpy()
            for t in (module.prior_mean, module.prior_log_var, module.prior_logit)
        )
        share, std = special.softmax(logit), np.exp(log_var[:, 0] / 2)
        return np.log(stats.norm.pdf(GRID[:, None], mean[:, 0], std) @ share)
    means, stds = model.posterior(pseudo_rows(model))
    return np.log(stats.norm.pdf(GRID[:, None], means[:, 0], stds[:, 0]).mean(axis=1))


def pseudo_rows(model):
    """In the units of the data."""
    inputs = model._architecture.units.inputs
    return inputs.undo(model.net_.module_.pseudo_rows.detach()).numpy()


def integral(log_values):
    """Logarithm of the integral over the grid."""
    return special.logsumexp(log_values, axis=0) + np.log(GRID[1] - GRID[0])


def exact(model, X, y=None):
    """log p(x) of every row, of a model with one latent."""
    return integral(log_joint(model, X, y) + log_prior_on_grid(model)[:, None])


EVERY = [
    ("gaussian", "standard"),
    ("gaussian", "mixture"),
    ("gaussian", "vamp"),
    ("laplace", "standard"),
    ("bernoulli", "standard"),
    ("bernoulli", "vamp"),
    ("poisson", "standard"),
    ("poisson", "mixture"),
    ("continuous_bernoulli", "standard"),
]


@pytest.fixture(scope="module", params=EVERY, ids=lambda value: "-".join(value))
def one_latent(request):
    """A nonlinear model with one latent, its rows, and their log p(x)."""
    likelihood, prior = request.param
    X = rows_for(likelihood, 40)
    options = {"likelihood": likelihood, "prior": prior, "n_prior_components": 3}
    model = vae(1, batch_size=10, max_iter=30, **options).fit(X)
    return model, X, exact(model, X)


def test_the_prior_is_normalised(one_latent):
    """And the grid holds all of it."""
    model, _, _ = one_latent
    assert integral(log_prior_on_grid(model)) == pytest.approx(0.0, abs=1e-6)


def test_terms_by_quadrature(one_latent):
    """Expectations under q(z|x) of log p(x|z) and log q(z|x) / p(z); below log p(x)."""
    model, X, log_px = one_latent
    terms = model.elbo_terms(X, n_draws=3000)
    means, stds = (a.astype(float)[:, 0] for a in model.posterior(X))
    log_q = stats.norm(means, stds).logpdf(GRID[:, None])
    q = np.exp(log_q) * (GRID[1] - GRID[0])
    of_rows = log_joint(model, X)
    reconstruction = np.sum(q * of_rows, axis=0)
    kl = np.sum(q * (log_q - log_prior_on_grid(model)[:, None]), axis=0)
    spread = np.sqrt(np.sum(q * (of_rows - reconstruction) ** 2, axis=0) / 3000)
    assert np.all(np.abs(terms.reconstruction - reconstruction) < 5 * spread + 1e-3)
    np.testing.assert_allclose(terms.kl, kl, atol=1e-4 if model.prior == "standard" else 0.1)
    np.testing.assert_allclose(terms.kl_per_latent[:, 0], terms.kl)
    assert np.all(reconstruction - kl <= log_px + 1e-5)
    assert np.all(terms.reconstruction - terms.kl <= log_px + 5 * spread + 0.01)


def strata(n):
    """Standard normal draws, one of every n-th part, in random order."""
    parts = np.random.default_rng(0).permutation(n)
    return torch.tensor(stats.norm.ppf((parts + 0.5) / n)[:, None], dtype=torch.float32)


class Given(list):
    """Draws that are the same for all rows."""

    pieces = row_draws.RowDraws.pieces
    sets = turns = torch.zeros(0)  # of one type

    def of(self, mean, block):
        return torch.stack(self[block])[None].expand(len(mean), -1, -1)


def test_the_bound_rises_to_the_likelihood(one_latent, monkeypatch):
    """With the number of draws, on average; with 5000 it is there."""
    model, X, log_px = one_latent
    apart = model.score_samples(X, n_importance=5000) - log_px
    assert np.quantile(np.abs(apart), 0.9) < 0.1
    found = []
    for n_importance, n_sets in [(1, 100), (4, 100), (50, 20), (5000, 1)]:
        scores = []
        for draws in strata(n_importance * n_sets).split(n_importance):
            monkeypatch.setattr(model, "_row_draws", lambda n, draws=draws: Given(draws))
            scores.append(model.score_samples(X, n_importance=n_importance).mean())
        found.append(np.mean(scores))
    assert np.all(np.diff(found) > 0)
    assert found[-1] == pytest.approx(log_px.mean(), abs=0.02)


def test_codes_of_the_prior(one_latent):
    """By Kolmogorov and Smirnov, against the integral of its density."""
    model, _, _ = one_latent
    Z = model.sample_latent(5000, random_state=0)
    assert Z.shape == (5000, 1)
    mass = np.cumsum(np.exp(log_prior_on_grid(model))) * (GRID[1] - GRID[0])
    assert stats.kstest(Z[:, 0], lambda z: np.interp(z, GRID, mass)).pvalue > 1e-3
    np.testing.assert_array_equal(Z, model.sample_latent(5000, random_state=0))
    assert np.any(model.sample_latent(5000) != Z)


def test_moments_of_samples(one_latent):
    """Mean and variance of p(x), by quadrature over the means, and the noise."""
    model, _, _ = one_latent
    share = np.exp(log_prior_on_grid(model)) * (GRID[1] - GRID[0])
    decoded = model.inverse_transform(GRID[:, None]).astype(float)
    mean = share @ decoded
    variance = share @ (decoded - mean) ** 2
    smooth = model.sample(20_000, noise=False, random_state=0)
    error = 6 * np.sqrt(variance / len(smooth))
    assert np.all(np.abs(smooth.mean(axis=0) - mean) < error)
    np.testing.assert_allclose(smooth.var(axis=0), variance, rtol=0.1)
    noise = {
        "gaussian": model.noise_variance_,
        "laplace": model.noise_variance_,
        "bernoulli": share @ (decoded * (1 - decoded)),
        "poisson": mean,
    }.get(model.likelihood)
    if noise is not None:
        drawn = model.sample(20_000, random_state=0)
        np.testing.assert_allclose(drawn.var(axis=0), variance + noise, rtol=0.1)
        assert np.all(np.abs(drawn.mean(axis=0) - mean) < 6 * np.sqrt((variance + noise) / 20_000))


@pytest.mark.parametrize("likelihood", ["gaussian", "bernoulli", "poisson"])
def test_rows_with_holes_by_quadrature(likelihood):
    """Bound and conditional means of a nonlinear model, of what was seen."""
    X = rows_for(likelihood, 80, gaps=0.3)
    model = vae(1, likelihood=likelihood, max_iter=15).fit(X)
    rows = X[:20]
    joint = log_joint(model, rows) + stats.norm.logpdf(GRID)[:, None]
    np.testing.assert_allclose(
        model.score_samples(rows, n_importance=5000), integral(joint), atol=0.15
    )
    share = np.exp(joint - special.logsumexp(joint, axis=0))
    means = share.T @ model.inverse_transform(GRID[:, None]).astype(float)
    expected = np.where(np.isnan(rows), means, rows)
    found = model.impute(rows, n_importance=5000)
    apart = np.abs(found - expected)  # a narrow q(z|x) makes a few means noisy
    assert np.quantile(apart, 0.98) < 0.05 * np.nanstd(X) + 1e-3
    assert apart.max() < 0.3 * np.nanstd(X)
    draws = model.impute(rows, 400, n_importance=1000, random_state=0)
    np.testing.assert_allclose(draws.mean(axis=0), expected, atol=0.5 * np.nanstd(X))
    gone = np.isnan(rows)
    assert draws[:, gone].mean() == pytest.approx(expected[gone].mean(), abs=0.05 * np.nanstd(X))


def test_the_noise_is_the_most_likely_one():
    """Of the bound: the mean of (x - decoded)² under q(z|x), by quadrature."""
    X = noisy_rows(60)
    for noise in ("scalar", "per_feature"):
        model = vae(1, noise_variance=noise).fit(X)
        means, stds = (a.astype(float)[:, 0] for a in model.posterior(X))
        q = stats.norm(means, stds).pdf(GRID[:, None]) * (GRID[1] - GRID[0])
        squares = np.square(X - model.inverse_transform(GRID[:, None])[:, None])
        expected = np.einsum("gn,gnj->nj", q, squares).mean(axis=0)
        expected = expected.mean() if noise == "scalar" else expected
        np.testing.assert_allclose(model.noise_variance_, expected, rtol=0.02)


# ------------------------------------------------------------------ gradients in one latent


class Tiny:
    """The bound of one row with one feature and one latent, written out in float64."""

    def __init__(self, module, prior):
        self.prior = prior
        self.values = {name: p.detach().double().numpy() for name, p in module.named_parameters()}
        self.variance = float(module.likelihood.variance)

    @staticmethod
    def encode(p, x):
        mean, log_var = p["encoder.0.weight"] @ x + p["encoder.0.bias"][:, None]
        return mean, log_var

    def log_prior(self, p, z):
        if self.prior == "standard":
            return stats.norm.logpdf(z)
        if self.prior == "mixture":
            mean, log_var = p["prior_mean"][:, 0], p["prior_log_var"][:, 0]
            share = special.softmax(p["prior_logit"])
        else:
            mean, log_var = self.encode(p, p["pseudo_rows"].T)
            share = np.full(len(mean), 1 / len(mean))
        return np.log(stats.norm.pdf(z[..., None], mean, np.exp(log_var / 2)) @ share)

    def log_px(self, p, x, z):
        hidden = np.tanh(z[..., None] * p["decoder.0.weight"][:, 0] + p["decoder.0.bias"])
        decoded = hidden @ p["decoder.2.weight"][0] + p["decoder.2.bias"][0]
        return stats.norm.logpdf(x, decoded, np.sqrt(self.variance))

    def log_weights(self, p, x, draws):
        """log p(x, z) / q(z|x) at draws (n, K)."""
        mean, log_var = (t[0] for t in self.encode(p, np.array([[x]])))
        z = mean + np.exp(log_var / 2) * draws
        log_q = stats.norm.logpdf(z, mean, np.exp(log_var / 2))
        return self.log_px(p, x, z) + self.log_prior(p, z) - log_q

    def loss(self, p, x, draws, share):
        """Minus the expected bound, shares of draws given."""
        log_weights = self.log_weights(p, x, draws)
        bound = special.logsumexp(log_weights, axis=1) - np.log(draws.shape[1])
        return -share @ bound

    def gradient(self, x, draws, share, step=1e-5):
        """By central differences in every parameter."""
        found = {}
        for name, value in self.values.items():
            found[name] = np.empty_like(value)
            for i in np.ndindex(value.shape):
                ends = []
                for sign in (1, -1):
                    moved = copy.deepcopy(self.values)
                    moved[name][i] += sign * step
                    ends.append(self.loss(moved, x, draws, share))
                found[name][i] = (ends[0] - ends[1]) / (2 * step)
        return found


def every_draw(n_importance):
    """Draws (n, K) on a grid, and their shares under a normal distribution."""
    draws = np.linspace(-6.5, 6.5, 2001 if n_importance == 1 else 53)
    share = stats.norm.pdf(draws)
    share /= share.sum()
    if n_importance == 1:
        return draws[:, None], share
    both = np.stack(np.meshgrid(draws, draws, indexing="ij"), axis=-1)
    return both.reshape(-1, 2), np.outer(share, share).ravel()


def tiny(prior, n_importance):
    """A module with one feature and one latent, and the same in float64."""
    X = noisy_rows(100, n_features=1, rank=1)
    model = vae(
        1,
        hidden_layer_sizes=(),
        decoder_layer_sizes=(3,),
        prior=prior,
        n_prior_components=2,
        n_importance=n_importance,
        max_iter=3,
    )
    module = fitted(model, X).net_.module_
    with torch.no_grad():  # so that q(z|x) is far from p(z|x)
        module.encoder[0].weight.copy_(torch.tensor([[0.8], [0.4]]))
        module.encoder[0].bias.copy_(torch.tensor([0.3, -0.5]))
        module.decoder[0].weight.mul_(2.0)
        module.likelihood.variance.fill_(0.3)
    module.train()
    return model, Tiny(module, prior)


def as_batch(model, x, draws, share):
    """The row as often as there are draws, each by its share."""
    rows = torch.full((len(draws), 1), x)
    shape = draws.shape if draws.shape[1] == 1 else (*draws.shape, 1)
    return Batch(
        rows,
        rows,
        weight=torch.as_tensor(share, dtype=torch.float32),
        draws=torch.as_tensor(draws, dtype=torch.float32).reshape(shape),
    )


@pytest.mark.parametrize("prior", ["standard", "mixture", "vamp"])
@pytest.mark.parametrize("n_importance", [1, 2])
def test_the_expected_gradient_is_that_of_the_expected_bound(prior, n_importance):
    """By differences and quadrature, for encoder, decoder and prior."""
    model, truth = tiny(prior, n_importance)
    module = model.net_.module_
    draws, share = every_draw(n_importance)
    log_scale = model._architecture.log_scale  # of a density in the units of the data
    for x in (-1.2, 0.5):
        loss = sum(module.loss(as_batch(model, x, draws, share)).terms.values())
        expected = truth.loss(truth.values, x, draws, share) + log_scale
        assert loss.item() == pytest.approx(expected, rel=1e-4)
        names, parameters = zip(*module.named_parameters(), strict=True)
        found = torch.autograd.grad(loss, parameters)
        expected = truth.gradient(x, draws, share)
        for name, gradient in zip(names, found, strict=True):
            np.testing.assert_allclose(
                gradient.numpy(), expected[name], rtol=2e-3, atol=2e-3, err_msg=name
            )


def test_the_weighted_loss_by_hand():
    """Minus log 1/K sum_k p(x, z_k) / q(z_k|x) of every row, averaged by weight."""
    model, truth = tiny("mixture", 2)
    rng = np.random.default_rng(0)
    x, draws, share = 0.7, rng.normal(size=(6, 2)), rng.uniform(0.5, 2.0, 6)
    found = model.net_.module_.loss(as_batch(model, x, draws, share)).terms["bound"].item()
    expected = truth.loss(truth.values, x, draws, share / share.sum())
    assert found == pytest.approx(expected + model._architecture.log_scale, rel=1e-5)


def test_no_draw_moves_an_exact_posterior():
    """There the importance weights are equal: the doubly reparameterised gradient has no noise."""
    X = noisy_rows(50)
    model, _ = as_ppca(X, n_importance=4)
    module = model.net_.module_
    batch = module.prepare(batch_of(model, X), torch.Generator().manual_seed(0))
    assert batch.draws.shape == (50, 4, 2)
    loss = sum(module.loss(batch).terms.values())
    of_encoder = torch.autograd.grad(loss, list(module.encoder.parameters()), retain_graph=True)
    of_decoder = torch.autograd.grad(loss, list(module.decoder.parameters()))
    assert max(g.abs().max() for g in of_encoder) < 1e-3
    assert max(g.abs().max() for g in of_decoder) > 1e-2


# ----------------------------------------------------------------------- the objective


def by_hand(model, X, beta=1.0, free_bits=0.0):
    """The two terms of the loss of all rows at the draws of a batch, by NumPy and SciPy."""
    module, architecture = model.net_.module_, model._architecture
    batch = module.prepare(batch_of(model, X), torch.Generator().manual_seed(0))
    means, stds = (a.astype(float) for a in model.posterior(X))
    z = means + stds * batch.draws.numpy()
    decoded = model.inverse_transform(z).astype(float)
    log_px = LAWS[model.likelihood](X, decoded, model.noise_variance_).sum(axis=1)
    kl = 0.5 * (means**2 + stds**2 - 1) - np.log(stds)
    kl = np.maximum(kl.mean(axis=0), free_bits).sum()
    assert architecture.beta == beta
    return batch, -log_px.mean(), beta * kl


@pytest.mark.parametrize("likelihood", ["gaussian", "laplace", "bernoulli", "poisson"])
@pytest.mark.parametrize(("beta", "free_bits"), [(1.0, 0.0), (0.0, 0.0), (2.5, 0.0), (2.0, 3.0)])
def test_the_loss_by_hand(likelihood, beta, free_bits):
    """Minus the log density of one draw, and beta times the divergence with its floor."""
    X = rows_for(likelihood)
    model = fitted(vae(likelihood=likelihood, beta=beta, free_bits=free_bits, max_iter=3), X)
    batch, reconstruction, kl = by_hand(model, X, beta, free_bits)
    terms = model.net_.module_.loss(batch).terms
    assert terms["reconstruction"].item() == pytest.approx(reconstruction, rel=1e-4)
    cost = terms["kl" if beta == 1 and not free_bits else "kl_cost"]
    assert cost.item() == pytest.approx(kl, rel=1e-4, abs=1e-6)


def test_free_bits_cost_nothing():
    """A latent below the floor has no gradient of its divergence; one above has all of it."""
    X = noisy_rows()
    model = vae(free_bits=1.5, max_iter=3).fit(X)
    module = model.net_.module_
    with torch.no_grad():  # the first latent says nothing, the second much
        module.encoder[-1].weight[[0, 2]] = 0.0
        module.encoder[-1].bias.copy_(torch.tensor([0.1, 0.0, -0.1, -8.0]))
    batch = module.prepare(batch_of(model, X), torch.Generator().manual_seed(0))
    kl = module.loss(batch).terms["kl_cost"]
    (gradient,) = torch.autograd.grad(kl, [module.encoder[-1].bias])
    assert gradient[[0, 2]].tolist() == [0.0, 0.0]
    assert np.all(gradient[[1, 3]].abs().numpy() > 1e-3)
    means, stds = (a.astype(float)[:, 1] for a in model.posterior(X))
    second = np.mean(0.5 * (means**2 + stds**2 - 1) - np.log(stds))
    assert kl.item() == pytest.approx(1.5 + second, rel=1e-4)


def test_the_advice_against_collapse_helps():
    """Under a large beta latents sleep; free bits, or a smaller beta, wake them."""
    X = noisy_rows(200)
    with pytest.warns(UserWarning, match="Posterior collapse"):
        asleep = vae(beta=30.0, max_iter=40).fit(X)
    assert asleep.elbo_terms(X).kl.mean() < 0.1
    assert vae(max_iter=40).fit(X).n_active_units_ == 2
    awake = vae(beta=30.0, free_bits=0.5, max_iter=60).fit(X)
    assert awake.n_active_units_ == 2
    held = awake.elbo_terms(X).kl_per_latent.mean(axis=0)
    assert np.all((held > 0.2) & (held < 0.8))


class Beta(Callback):
    """The weight of the divergence in every epoch."""

    def on_train_begin(self, net, **kwargs):
        self.values_ = getattr(self, "values_", [])

    def on_epoch_end(self, net, **kwargs):
        self.values_.append(float(net.module_.beta))


def test_beta_grows_linearly():
    """From its share after one epoch to all of it, where it stays; a warm start goes on."""
    heard = Beta()
    model = vae(beta=2.0, beta_warm_up=8, max_iter=5, callbacks=[heard], warm_start=True)
    model = fitted(fitted(model, noisy_rows()), noisy_rows())
    expected = 2.0 * np.minimum(1.0, np.arange(1, 11) / 8)
    np.testing.assert_allclose(model.callbacks[0].values_, expected, rtol=1e-6)
    loaded = pickle.loads(pickle.dumps(model))
    assert float(loaded.net_.module_.beta) == 2.0


@pytest.mark.parametrize("early_stopping", [False, True])
def test_nothing_stops_training_while_beta_grows(early_stopping):
    """A loss that is flat from the start ends training only after the warm-up."""
    model = vae(
        tol=1e3,
        n_iter_no_change=2,
        beta_warm_up=7,
        early_stopping=early_stopping,
        max_iter=30,
    ).fit(noisy_rows())
    assert 8 <= model.n_iter_ <= 10
    again = vae(tol=1e3, n_iter_no_change=2, early_stopping=early_stopping, max_iter=30)
    assert again.fit(noisy_rows()).n_iter_ <= 3


def test_a_larger_beta_holds_less():
    """In the latents about each row."""
    X = noisy_rows(200)
    held = [
        vae(beta=beta, noise_variance=0.25, max_iter=40).fit(X).elbo_terms(X).kl.mean()
        for beta in (0.3, 1.0, 4.0)
    ]
    assert held[0] > held[1] + 0.5 > held[2] + 1.0


@pytest.mark.parametrize(
    ("params", "named"),
    [
        ({"beta": 2.0}, r"beta=2\.0"),
        ({"beta_warm_up": 5}, "beta_warm_up=5"),
        ({"free_bits": 0.1}, r"free_bits=0\.1"),
    ],
)
def test_importance_weights_exclude_weights_of_the_divergence(params, named):
    """The error names both."""
    with pytest.raises(ValueError, match=rf"n_importance=3.*{named}"):
        vae(n_importance=3, **params).fit(noisy_rows())
    vae(n_importance=3, max_iter=1).fit(noisy_rows())


def test_history_holds_the_terms():
    """Which sum to the loss; a weighted bound has none."""
    model = vae(beta=2.0).fit(noisy_rows())
    for epoch in model.history_:
        both = epoch["train_reconstruction"] + epoch["train_kl_cost"]
        assert epoch["train_loss"] == pytest.approx(both, rel=1e-6)
        assert epoch["train_kl_cost"] == pytest.approx(2 * epoch["train_kl"], rel=1e-5)
    assert len(model.history_) == model.n_iter_ == 10
    weighted = vae(n_importance=3).fit(noisy_rows())
    assert weighted.history_[-1]["train_loss"] < weighted.history_[0]["train_loss"]


# ----------------------------------------------------------------------------- priors


def test_pseudo_rows_start_at_training_rows():
    """Each at one, in the network's units; of rows with holes at what was seen, and means."""
    X = noisy_rows()
    model = fitted(vae(prior="vamp", n_prior_components=6, **start()), X)
    found = pseudo_rows(model)
    assert found.shape == (6, 5)
    distance = np.abs(found[:, None] - X).max(axis=2).min(axis=1)
    assert distance.max() < 1e-5
    holes = noisy_rows(gaps=0.3)
    model = fitted(vae(prior="vamp", n_prior_components=6, **start()), holes)
    filled = np.where(np.isnan(holes), np.nanmean(holes, axis=0), holes)
    distance = np.abs(pseudo_rows(model)[:, None] - filled).max(axis=2).min(axis=1)
    assert distance.max() < 1e-5


def test_pseudo_rows_are_not_held_out_ones():
    """Early stopping keeps its rows to itself."""
    X = noisy_rows(40)
    model = fitted(
        vae(
            prior="vamp",
            n_prior_components=200,
            early_stopping=True,
            validation_fraction=0.5,
            **start(),
        ),
        X,
    )
    nearest = np.abs(pseudo_rows(model)[:, None] - X).max(axis=2).argmin(axis=1)
    train, _ = model._trainer.split(len(X))
    assert set(nearest) <= set(train.tolist())


@pytest.mark.parametrize("prior", ["mixture", "vamp"])
def test_learned_priors_learn(prior):
    """Where they lie moves; weights of the layers decay, they do not."""
    X = noisy_rows()
    names = {"mixture": ["prior_mean", "prior_log_var", "prior_logit"], "vamp": ["pseudo_rows"]}
    first = weights(fitted(vae(prior=prior, **start()), X))
    last = weights(vae(prior=prior).fit(X))
    module = vae(prior=prior, max_iter=1).fit(X).net_.module_
    decayed = {id(p) for p in module.decayed()}
    for name in names[prior]:
        assert np.any(first[name] != last[name])
        assert id(getattr(module, name)) not in decayed
    assert id(module.encoder[0].weight) in decayed


def two_clusters(n_rows=400):
    rng = np.random.default_rng(0)
    side = rng.choice([-1, 1], n_rows)
    return np.outer(6 * side, [1.0, 0.5, -0.5]) + rng.normal(size=(n_rows, 3))


@pytest.mark.parametrize("prior", ["mixture", "vamp"])
def test_clusters_want_a_prior_with_clusters(prior):
    """A linear decoder then has the density of scikit-learn's mixture; N(0, I) is far below."""
    X = two_clusters()
    model = linear(1, prior=prior, n_prior_components=10, max_iter=60).fit(X)
    plain = linear(1, max_iter=60).fit(X)
    best = GaussianMixture(2, covariance_type="tied", random_state=0).fit(X).score(X)
    assert model.score(X) > plain.score(X) + 0.7
    assert model.score(X) == pytest.approx(best, abs=0.25)
    along = model.sample(4000, random_state=0) @ [1.0, 0.5, -0.5] / 9
    assert np.mean(np.abs(along) > 0.5) > 0.95  # in between lies nothing
    assert np.mean(along > 0) == pytest.approx(np.mean(X[:, 0] > 0), abs=0.2)


def test_batch_normalisation_sees_pseudo_rows():
    """prior="vamp" beside normalization="batch": rows still have a score of their own."""
    X = noisy_rows()
    model = vae(prior="vamp", normalization="batch", max_iter=15).fit(X)
    assert model.history_[-1]["train_loss"] < model.history_[0]["train_loss"]
    np.testing.assert_allclose(model.score_samples(X)[:3], model.score_samples(X[:3]), atol=1e-3)
    means, stds = model.posterior(pseudo_rows(model))
    Z = model.sample_latent(20_000, random_state=0)
    spread = np.sqrt(means.var(axis=0) + np.mean(stds**2, axis=0))
    np.testing.assert_allclose(Z.mean(axis=0), means.mean(axis=0), atol=0.05 * spread.max())
    np.testing.assert_allclose(Z.std(axis=0), spread, rtol=0.05)


# ------------------------------------------------------------------ conditional models


def labelled(n_rows=150, kind=int, seed=0):
    """Rows whose means lie far apart, by label; the labels are not equally frequent."""
    rng = np.random.default_rng(seed)
    which = rng.choice(3, n_rows, p=[0.6, 0.3, 0.1])
    X = noisy_rows(n_rows, seed=seed) + np.eye(3, 5)[which] * 12
    names = {int: [3, 5, 11], str: ["ant", "bee", "cat"], object: ["ant", "bee", "cat"]}
    y = which > 0 if kind is bool else np.array(names[kind], dtype=kind)[which]
    return X, y


def conditional(n_components=1, **params):
    return vae(n_components, conditional=True, **params)


@pytest.fixture(scope="module")
def by_label():
    """A conditional model with one latent, its rows and labels."""
    X, y = labelled()
    return conditional(max_iter=20).fit(X, y), X, y


@pytest.mark.parametrize("kind", [int, str, object, bool])
def test_labels_of_every_kind(kind):
    """They are found in order, with their frequencies; names do not matter."""
    X, y = labelled(kind=kind)
    model = fitted(conditional(), X, y)
    classes, counts = np.unique(y, return_counts=True)
    np.testing.assert_array_equal(model.classes_, classes)
    np.testing.assert_allclose(model.class_prior_, counts / len(y))
    codes = fitted(conditional(), X, np.searchsorted(classes, y))
    assert_same(weights(model), weights(codes))
    expected = codes.inverse_transform([[0.5]], y=1)
    for label in (classes[1], [classes[1]], classes[1:2]):
        np.testing.assert_array_equal(model.inverse_transform([[0.5]], y=label), expected)


def test_the_encoder_does_not_see_labels(by_label):
    """transform, posterior and active units need none; the decoder reads one column a label."""
    model, X, _ = by_label
    assert model.transform(X).shape == (150, 1)
    module = model.net_.module_
    assert module.encoder[0].in_features == 5
    assert module.decoder[0].in_features == 4
    assert model.active_units(X) == model.n_active_units_
    assert model.mutual_information(X) > 0
    assert model.__sklearn_tags__().target_tags.required
    assert not vae().__sklearn_tags__().target_tags.required


def test_bounds_of_conditional_models(by_label):
    """log p(x|y) for each label and log p(x) of all, by quadrature."""
    model, X, y = by_label
    rows = X[:30]
    parts = np.stack([exact(model, rows, label) for label in model.classes_])
    own = parts[np.searchsorted(model.classes_, y[:30]), np.arange(30)]
    found = model.score_samples(rows, y[:30], n_importance=5000)
    np.testing.assert_allclose(found, own, atol=0.1)
    everything = special.logsumexp(parts, b=model.class_prior_[:, None], axis=0)
    found = model.score_samples(rows, n_importance=5000)
    np.testing.assert_allclose(found, everything, atol=0.1)
    assert model.score(rows, y[:30]) > model.score_samples(rows).mean()


@pytest.mark.parametrize("n_importance", [1, 20])
def test_the_sum_over_labels_is_exact(by_label, n_importance):
    """sum_y p(y) p(x|y): the draws are shared, so it holds of bounds with any number of them."""
    model, X, _ = by_label
    parts = [model.score_samples(X, c, n_importance=n_importance) for c in model.classes_]
    expected = special.logsumexp(parts, b=model.class_prior_[:, None], axis=0)
    found = model.score_samples(X, n_importance=n_importance)
    np.testing.assert_allclose(found, expected, rtol=1e-4)


def test_decoded_means_over_labels(by_label):
    """By their frequencies; one label for all codes, or one for each."""
    model, X, y = by_label
    Z = model.transform(X)
    parts = np.stack([model.inverse_transform(Z, c) for c in model.classes_])
    expected = np.einsum("c,cnj->nj", model.class_prior_, parts)
    np.testing.assert_allclose(model.inverse_transform(Z), expected, rtol=1e-4, atol=1e-4)
    own = parts[np.searchsorted(model.classes_, y), np.arange(len(X))]
    np.testing.assert_allclose(model.inverse_transform(Z, y), own, rtol=1e-5, atol=1e-5)
    np.testing.assert_allclose(model.reconstruct(X, y), own, rtol=1e-5, atol=1e-5)
    assert np.mean((X - model.reconstruct(X, y)) ** 2) < np.mean((X - model.reconstruct(X)) ** 2)


def test_terms_of_conditional_models(by_label):
    """Given its label a row is explained better, at the same divergence."""
    model, X, y = by_label
    given, summed = model.elbo_terms(X, y), model.elbo_terms(X)
    np.testing.assert_allclose(given.kl, summed.kl, rtol=1e-6)
    assert given.reconstruction.mean() > summed.reconstruction.mean()
    bound = given.reconstruction - given.kl
    assert bound.mean() < model.score(X, y)


def test_samples_of_labels():
    """Of one label, one for each row, or by frequency: with the means of such rows."""
    X, y = labelled(600)
    model = conditional(2, hidden_layer_sizes=(32,), max_iter=40).fit(X, y)
    means = np.stack([X[y == c].mean(axis=0) for c in model.classes_])
    for label, mean in zip(model.classes_, means, strict=True):
        rows = model.sample(2000, y=label, random_state=0)
        np.testing.assert_allclose(rows.mean(axis=0), mean, atol=1.0)

    def nearest(rows):
        return model.classes_[np.linalg.norm(rows[:, None] - means, axis=2).argmin(axis=1)]

    wanted = np.repeat(model.classes_, [5, 20, 7])
    assert np.mean(nearest(model.sample(32, y=wanted, random_state=0)) == wanted) > 0.9
    found = nearest(model.sample(3000, random_state=0))
    shares = np.mean(found[:, None] == model.classes_, axis=0)
    np.testing.assert_allclose(shares, model.class_prior_, atol=0.05)
    same = [model.sample(5, random_state=3, noise=False) for _ in range(2)]
    np.testing.assert_array_equal(*same)


def test_weights_change_the_frequencies_of_labels():
    """They are weighted means; labels of no weight are none."""
    X, y = labelled()
    weight = np.where(y == 3, 0.5, np.where(y == 5, 4.0, 0.0))
    model = fitted(conditional(), X, y, sample_weight=weight)
    assert model.classes_.tolist() == [3, 5]
    expected = [weight[y == c].sum() / weight.sum() for c in (3, 5)]
    np.testing.assert_allclose(model.class_prior_, expected, rtol=1e-6)


@pytest.mark.parametrize("n_targets", [1, 2])
def test_numbers_as_conditions(n_targets):
    """Rows that depend on them linearly: the exact density of rows, given numbers.

    It is PPCA's of what regression leaves. What numbers add to rows lies across its
    axes, so that q(z|x), which does not see them, can be p(z|x,y).
    """
    rng = np.random.default_rng(0)
    axes = np.linalg.qr(rng.normal(size=(6, 4)))[0]
    size = np.array([50.0, 0.2])[:n_targets]
    standard = rng.normal(size=(1500, n_targets))
    y = 30 + size * standard
    codes = rng.normal(size=(1500, 2)) * [3.0, 1.5]
    X = codes @ axes[:, :2].T + 2 * standard @ axes[:, 2 : 2 + n_targets].T
    X += 0.5 * rng.normal(size=X.shape)
    given = y[:, 0] if n_targets == 1 else y
    model = linear(2, conditional=True).fit(X, given)
    regression = LinearRegression().fit(y, X)
    rest = X - regression.predict(y)
    assert model.score(X, given) == pytest.approx(PPCA(2).fit(rest).score(rest), abs=0.06)
    assert not hasattr(model, "classes_")
    at = y[:1] + size
    rows = model.sample(3000, y=np.repeat(at, 3000, axis=0), random_state=0)
    np.testing.assert_allclose(rows.mean(axis=0), regression.predict(at)[0], atol=0.3)
    if n_targets == 1:
        same = model.sample(3000, y=at[0, 0], random_state=0)
        np.testing.assert_array_equal(same, rows)
    decoded = model.inverse_transform(np.zeros((1, 2)), y=at)
    np.testing.assert_allclose(decoded, regression.predict(at), atol=0.3)


def ask(model, method, X, **y):
    """Call a method that takes y, of two rows."""
    given = {
        "sample": (2,),
        "inverse_transform": (np.zeros((2, model.n_components_)),),
        "interpolate": (X[0], X[1], 2),
        "traverse": (X[0], 0, [0.0, 1.0]),
    }.get(method, (X[:2],))
    return getattr(model, method)(*given, **y)


@pytest.fixture(scope="module")
def unconditional_and_numeric():
    """Models for which y has to be left out, and has to be given."""
    X, _ = labelled()
    return fitted(vae(max_iter=1), X), fitted(conditional(max_iter=1), X, X[:, 0])


@pytest.mark.parametrize(
    "method",
    [
        "inverse_transform",
        "reconstruct",
        "sample",
        "score_samples",
        "elbo_terms",
        "impute",
        "interpolate",
        "traverse",
    ],
)
def test_methods_with_conditions(by_label, unconditional_and_numeric, method):
    """They take one for all rows or one for each, and errors name y."""
    model, X, _ = by_label
    plain, numeric = unconditional_and_numeric
    one, each = ask(model, method, X, y=5), ask(model, method, X, y=[5, 5])
    if method != "sample":
        for first, second in zip(one, each, strict=True):
            np.testing.assert_array_equal(first, second)
    ask(model, method, X)
    ask(numeric, method, X, y=0.5)
    with pytest.raises(ValueError, match=r"y has the label .*7.*did not occur in fit"):
        ask(model, method, X, y=[7, 5])
    with pytest.raises(ValueError, match=r"y has shape \(3,\)"):
        ask(model, method, X, y=[5, 5, 5])
    with pytest.raises(ValueError, match=r"y is None.*numbers.*give y"):
        ask(numeric, method, X)
    with pytest.raises(ValueError, match=r"y has 2 columns of numbers.*fitted with 1"):
        ask(numeric, method, X, y=[[0.5, 1.5], [0.5, 1.5]])
    with pytest.raises(ValueError, match="y contains NaN"):
        ask(numeric, method, X, y=[np.nan, 1.0])
    with pytest.raises(ValueError, match=r"y is given.*conditional=False"):
        ask(plain, method, X, y=5)


@pytest.mark.parametrize(
    ("kind", "y", "named"),
    [
        ("labels", [[3, 5], [5, 3]], "y "),
        ("labels", [[3.5, 5], [5, 3]], "y "),
        ("labels", "ant", "y has the label"),
        ("labels", [None, 3], "y "),
        ("numbers", "ant", "y "),
        ("numbers", [None, 3.0], "y "),
    ],
)
def test_conditions_of_another_kind(by_label, unconditional_and_numeric, kind, y, named):
    """Rows of labels, or names for numbers: the error is about y."""
    model, numeric = by_label[0], unconditional_and_numeric[1]
    with pytest.raises(ValueError, match=rf"^(Input )?{named}"):
        (model if kind == "labels" else numeric).sample(2, y=y)


@pytest.mark.parametrize(
    ("spoil", "named"),
    [
        (lambda y: None, "y is None.*conditional=True"),
        (lambda y: y[:-1], r"y has shape \(149,\)"),
        (lambda y: np.zeros((150, 1, 1)), r"y has shape \(150, 1, 1\)"),
        (lambda y: np.where(y == 3, np.nan, y + 0.5), "y contains NaN"),
        (lambda y: np.where(y == 3, np.inf, y + 0.5), "y contains inf"),
        (lambda y: np.where(y == 3, None, "bee"), "y "),
    ],
    ids=["none", "short", "cube", "nan", "inf", "mixed"],
)
@pytest.mark.parametrize("fit", ["fit", "partial_fit", "fit_transform"])
def test_conditions_that_are_none(spoil, named, fit):
    """The error names y."""
    X, y = labelled()
    with pytest.raises(ValueError, match=named):
        getattr(conditional(), fit)(X, spoil(y))


def test_plain_models_take_no_notice_of_y():
    """In fit and score, as everywhere in scikit-learn."""
    X, y = labelled()
    model = vae().fit(X, y)
    assert_same(weights(model), weights(vae().fit(X)))
    assert model.score(X, y) == model.score(X)


def test_labels_of_a_warm_start():
    """They are those of the first fit; their frequencies are the new ones."""
    X, y = labelled()
    model = fitted(fitted(conditional(warm_start=True), X, y), X, np.full(150, 5))
    assert model.n_iter_ == 20
    assert model.classes_.tolist() == [3, 5, 11]
    np.testing.assert_allclose(model.class_prior_, [0, 1, 0])
    np.testing.assert_allclose(model.score_samples(X), model.score_samples(X, 5), rtol=1e-5)
    holes = np.where(np.arange(5) == 1, np.nan, X[:3])
    assert np.isfinite(model.impute(holes)).all()
    assert np.isfinite(model.impute(holes, 2)).all()
    before = weights(model)
    with pytest.raises(ValueError, match=r"y has the label .*7"):
        model.fit(X, np.full(150, 7))
    assert_same(weights(model), before)


@pytest.mark.parametrize("fit", ["fit", "partial_fit"])
def test_a_model_does_not_become_conditional(fit):
    """While training goes on, nor the other way round: the error says so."""
    X, y = labelled()
    model = fitted(vae(warm_start=True), X).set_params(conditional=True)
    with pytest.raises(ValueError, match="conditional=True cannot change"):
        getattr(model, fit)(X, y)
    model = fitted(conditional(2, warm_start=True), X, y).set_params(conditional=False)
    with pytest.raises(ValueError, match="conditional=False cannot change"):
        getattr(model, fit)(X)


def test_conditions_of_a_stream():
    """Frequencies are running means, in which each call counts 0.9 times the next per row."""
    X, y = labelled()
    first, second = slice(0, 100), slice(100, 150)
    model = conditional().partial_fit(X[first], y[first]).partial_fit(X[second], y[second])
    shares = [np.mean(y[part][:, None] == model.classes_, axis=0) for part in (first, second)]
    expected = (90 * shares[0] + 50 * shares[1]) / 140
    np.testing.assert_allclose(model.class_prior_, expected, rtol=1e-6)
    with pytest.raises(ValueError, match="y is None"):
        model.partial_fit(X)
    numeric = conditional().partial_fit(X, X[:, :2]).partial_fit(X, X[:, :2])
    assert numeric.sample(2, y=X[:2, :2]).shape == (2, 5)


@pytest.mark.parametrize("kind", [int, str, bool, float])
def test_conditional_models_are_saved(kind):
    """With labels or numbers, and with their frequencies; training goes on alike."""
    X, y = labelled(kind=int if kind is float else kind)
    y = X[:, 0] + 0.5 if kind is float else y
    model = fitted(conditional(), X, y)
    again = pickle.loads(pickle.dumps(model))
    np.testing.assert_array_equal(again.score_samples(X, y), model.score_samples(X, y))
    if kind is not float:
        np.testing.assert_array_equal(again.score_samples(X), model.score_samples(X))
    more = {"random_state": 0, "y": y[:4]}
    np.testing.assert_array_equal(again.sample(4, **more), model.sample(4, **more))
    assert_same(weights(again.partial_fit(X, y)), weights(model.partial_fit(X, y)))


def test_conditional_models_in_pipelines_and_searches():
    """y passes to fit and to score."""
    X, y = labelled()
    pipeline = Pipeline([("scale", StandardScaler()), ("vae", conditional())])
    fitted(pipeline, X, y)
    scaled = StandardScaler().fit_transform(X)
    alone = fitted(conditional(), scaled, y)
    assert pipeline.score(X, y) == pytest.approx(alone.score(scaled, y), abs=1e-4)
    assert pipeline.transform(X).shape == (150, 1)
    folds = KFold(2, shuffle=True, random_state=0)
    search = GridSearchCV(conditional(), {"beta": [0.5, 1.0]}, cv=folds)
    fitted(search, X, y)
    (train, test), *_ = folds.split(X)
    best = fitted(conditional(beta=0.5), X[train], y[train])
    expected = best.score(X[test], y[test])
    assert search.cv_results_["split0_test_score"][0] == pytest.approx(expected, rel=1e-6)


@pytest.mark.parametrize("given", [True, False])
def test_imputation_of_conditional_models(given):
    """A missing value is its mean given the label, or over labels weighted by what was seen."""
    X, y = labelled(400)
    gone = np.random.default_rng(0).random(X.shape) < 0.3
    model = conditional(max_iter=30).fit(np.where(gone, np.nan, X), y)
    hidden = np.zeros((25, 5), dtype=bool)
    hidden[:, 0] = hidden[::2, 3] = True
    rows, labels = np.where(hidden, np.nan, X[:25]), y[:25]
    joint = np.stack([log_joint(model, rows, c) for c in model.classes_])
    joint += stats.norm.logpdf(GRID)[:, None] + np.log(model.class_prior_)[:, None, None]
    if given:
        own = np.searchsorted(model.classes_, labels)
        joint = np.where(np.arange(3)[:, None, None] == own, joint, -np.inf)
    share = np.exp(joint - special.logsumexp(joint, axis=(0, 1)))
    decoded = np.stack([model.inverse_transform(GRID[:, None], c) for c in model.classes_])
    means = np.einsum("cgn,cgj->nj", share, decoded)
    arguments = {"y": labels if given else None, "n_importance": 5000}
    found = model.impute(rows, **arguments)
    np.testing.assert_allclose(found, np.where(hidden, means, rows), atol=0.4)
    draws = model.impute(rows, 200, random_state=0, **arguments)
    apart = draws.mean(axis=0)[hidden] - means[hidden]
    assert np.abs(apart).max() < 1.0
    assert np.mean(apart) == pytest.approx(0, abs=0.1)


@pytest.mark.parametrize("n_importance", [1, 3])
@pytest.mark.parametrize("gaps", [0.0, 0.2])
def test_conditions_in_training(n_importance, gaps):
    """Every row's loss is that of its own label, with any number of draws, and with holes."""
    X, y = labelled()
    X[np.random.default_rng(0).random(X.shape) < gaps] = np.nan
    model = fitted(conditional(n_importance=n_importance), X, y)
    one_hot = (y[:, None] == model.classes_).astype(np.float32)
    module = model.net_.module_
    batch = module.prepare(batch_of(model, X, condition=one_hot), torch.Generator().manual_seed(0))
    loss = sum(module.loss(batch).terms.values()).item()
    parts = []
    for c in model.classes_:
        some = np.flatnonzero(y == c)
        part = batch_of(model, X[some], condition=one_hot[some])._replace(draws=batch.draws[some])
        parts.append(len(some) * sum(module.loss(part).terms.values()).item())
    assert loss == pytest.approx(sum(parts) / len(X), rel=1e-3)
    wrong = module.loss(batch._replace(condition=batch.condition.roll(1, 1)))
    assert sum(wrong.terms.values()).item() > loss + 1


# -------------------------------------------------------------- what the latents hold


def test_the_posterior_is_what_the_encoder_says():
    """Means as in transform, deviations from log variances; of rows in any number."""
    X = noisy_rows(4200)  # more than go through the network at once
    model = fitted(vae(max_iter=1, batch_size=400), X)
    means, stds = model.posterior(X)
    assert means.shape == stds.shape == (4200, 2)
    np.testing.assert_array_equal(means, model.transform(X))
    standard = (X - X.mean(axis=0)) / np.sqrt(X.var(axis=0).mean())
    w = {k: v.astype(float) for k, v in weights(model).items()}
    hidden = np.tanh(standard @ w["encoder.0.weight"].T + w["encoder.0.bias"])
    out = hidden @ w["encoder.2.weight"].T + w["encoder.2.bias"]
    np.testing.assert_allclose(means, out[:, :2], rtol=1e-3, atol=1e-4)
    np.testing.assert_allclose(stds, np.exp(out[:, 2:] / 2), rtol=1e-3)


def test_density_of_the_posterior():
    """At mean + std * draw, from the draws alone: it is SciPy's."""
    rng = np.random.default_rng(0)
    means, stds = rng.normal(size=(4, 3)), rng.uniform(0.1, 2.0, (4, 3))
    q = DiagonalGaussian(torch.tensor(means), torch.tensor(2 * np.log(stds)))
    draws = rng.normal(size=(1, 7, 3))
    z = means[:, None] + stds[:, None] * draws
    expected = stats.norm(means[:, None], stds[:, None]).logpdf(z).sum(axis=-1)
    np.testing.assert_allclose(log_q(q, torch.tensor(draws)), expected)


def test_extreme_posteriors_stay_finite():
    """Log variances beyond 16 grow only logarithmically, whatever the encoder says."""
    X = noisy_rows()
    model = fitted(linear(**start()), X)
    module = model.net_.module_
    far = np.exp((16 + np.log1p(1e6 - 16)) / 2)
    for bias, std in [(1e6, far), (-1e6, 1 / far)]:
        with torch.no_grad():
            module.encoder[0].bias[2:] = bias
        np.testing.assert_allclose(model.posterior(X)[1], std, rtol=1e-5)
        assert np.isfinite(model.score_samples(X)).all()
        assert np.isfinite(model.elbo_terms(X).kl).all()


@pytest.mark.parametrize("weighted", [False, True])
def test_active_units_vary(weighted):
    """Their posterior mean, by more than 0.01; the training rows' by weight."""
    X = noisy_rows(300)
    weight = np.where(X[:, 0] > X[:, 0].mean(), 3.0, 0.0) if weighted else None
    model = vae(4, hidden_layer_sizes=(), max_iter=60).fit(X, sample_weight=weight)
    assert model.active_units(X) == np.sum(model.transform(X).var(axis=0) > 0.01) >= 2
    rows = X if weight is None else X[weight > 0]
    assert model.n_active_units_ == np.sum(model.transform(rows).var(axis=0) > 0.01)
    assert model.active_units(np.repeat(X[:1], 5, axis=0)) == 0
    with torch.no_grad():
        model.net_.module_.encoder[0].weight[:3] = 0.0
        model.net_.module_.encoder[0].weight[3] = 1.0
    assert model.active_units(X) == 1


def test_collapse_is_noticed():
    """The warning names how many units are active, and what to change."""
    X = np.random.default_rng(0).normal(size=(300, 5))
    pattern = (
        r"Posterior collapse: 0 of 3 latents .*beta \(now 50\.0\).*beta_warm_up .*now 0.*"
        r"free_bits \(now 0\.0\).*now 30 epochs.*max_iter.*n_components"
    )
    with pytest.warns(UserWarning, match=pattern):
        model = vae(3, beta=50.0, max_iter=30).fit(X)
    assert model.n_active_units_ == model.active_units(X) == 0
    assert model.mutual_information(X) < 0.05


@pytest.mark.parametrize("prior", ["standard", "mixture", "vamp"])
def test_structure_does_not_collapse(prior):
    """No warning, which would be an error here; all latents that data have are active."""
    model = vae(2, prior=prior, max_iter=30).fit(noisy_rows(300))
    assert model.n_active_units_ == 2


# ------------------------------------------------------------- walks through the latents


@pytest.fixture(scope="module")
def of_frames():
    """A model of data frames, and its rows."""
    frame = pd.DataFrame(noisy_rows(60), columns=list("abcde"))
    model = vae(3).set_output(transform="pandas")
    return fitted(model, frame), frame


def test_lines_between_rows(of_frames):
    """Ends are the reconstructions of the ends; codes between are equally spaced."""
    model, frame = of_frames
    Z = model.transform(frame.iloc[:2]).to_numpy().astype(float)
    share = np.linspace(0, 1, 5)[:, None]
    line = (1 - share) * Z[0] + share * Z[1]
    codes = pd.DataFrame(line, columns=model.get_feature_names_out())
    expected = model.inverse_transform(codes).to_numpy()
    ends = model.reconstruct(frame.iloc[:2]).to_numpy()
    for first, last in [
        (frame.iloc[0], frame.iloc[1]),
        (frame.iloc[:1], frame.iloc[1:2]),
    ]:
        path = model.interpolate(first, last, 5)
        assert list(path.columns) == list("abcde")
        np.testing.assert_allclose(path.to_numpy()[[0, -1]], ends, rtol=1e-4, atol=1e-4)
        np.testing.assert_allclose(path.to_numpy(), expected, rtol=1e-4, atol=1e-4)
    assert len(model.interpolate(frame.iloc[0], frame.iloc[1])) == 10


def test_walks_along_one_latent(of_frames):
    """The others stay; at its own value the row is reconstructed."""
    model, frame = of_frames
    Z = model.transform(frame.iloc[:1]).to_numpy()[0].astype(float)
    path = model.traverse(frame.iloc[0], 1, [-2.0, Z[1], 2.0])
    assert list(path.columns) == list("abcde")
    back = model.reconstruct(frame.iloc[:1]).to_numpy()[0]
    np.testing.assert_allclose(path.to_numpy()[1], back, rtol=1e-4, atol=1e-4)
    codes = np.stack([[Z[0], value, Z[2]] for value in (-2.0, Z[1], 2.0)])
    codes = pd.DataFrame(codes, columns=model.get_feature_names_out())
    expected = model.inverse_transform(codes).to_numpy()
    np.testing.assert_allclose(path.to_numpy(), expected, rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize(
    ("method", "arguments", "named"),
    [
        ("interpolate", (np.zeros((2, 5)), np.zeros(5)), "x0 must be one row"),
        ("interpolate", (np.zeros(5), np.zeros((0, 5))), "x1 must be one row"),
        ("interpolate", (np.zeros(5), np.zeros(5), 1), "'n'"),
        ("interpolate", (np.zeros(5), np.zeros(5), 2.5), "'n'"),
        ("interpolate", (np.zeros(4), np.zeros(5)), "4 features"),
        ("traverse", (np.zeros(5), 3, [0.0]), "'component'"),
        ("traverse", (np.zeros(5), -1, [0.0]), "'component'"),
        ("traverse", (np.zeros(5), 0, []), "values"),
        ("traverse", (np.zeros(5), 0, 1.0), "values"),
        ("traverse", (np.zeros(5), 0, [np.nan]), "values"),
        ("traverse", (np.zeros(5), 0, ["far"]), "values"),
        ("traverse", (np.zeros((3, 5)), 0, [0.0]), "x must be one row"),
    ],
)
def test_walks_that_lead_nowhere(method, arguments, named):
    """The error names the argument."""
    model = fitted(vae(3, max_iter=1), noisy_rows(60))
    with pytest.raises(ValueError, match=named):
        getattr(model, method)(*arguments)


def test_walks_of_a_single_latent():
    """There is one to walk along."""
    X = noisy_rows(60)
    model = fitted(vae(1, max_iter=1), X)
    expected = model.inverse_transform([[-1.0], [2.0]])
    np.testing.assert_allclose(model.traverse(X[0], 0, [-1.0, 2.0]), expected, rtol=1e-5)
    with pytest.raises(ValueError, match="'component'"):
        model.traverse(X[0], 1, [0.0])


def test_walks_given_a_label(by_label):
    """They stay with it; without one they are means over labels."""
    model, X, _ = by_label
    path = model.interpolate(X[0], X[1], 3, y=5)
    np.testing.assert_allclose(path[0], model.reconstruct(X[:1], 5)[0], rtol=1e-4, atol=1e-4)
    each = model.traverse(X[0], 0, [0.5, 0.5, 0.5], y=model.classes_)
    mean = model.traverse(X[0], 0, [0.5])
    np.testing.assert_allclose(model.class_prior_ @ each, mean[0], rtol=1e-4, atol=1e-4)


# ---------------------------------------------------------------------------- scores


def test_scores_alike_twice_and_beside_others():
    """Of a row alone, among others, in another order; with the seed they change."""
    X = noisy_rows()
    model = vae().fit(X)
    for n_importance in (1, 30):
        scores = model.score_samples(X, n_importance=n_importance)
        again = model.score_samples(X[::-1], n_importance=n_importance)[::-1]
        np.testing.assert_allclose(scores, again, rtol=1e-4, atol=1e-4)
        alone = [model.score_samples(X[i : i + 1], n_importance=n_importance)[0] for i in range(4)]
        np.testing.assert_allclose(scores[:4], alone, rtol=1e-4, atol=1e-4)
    np.testing.assert_array_equal(model.score_samples(X), model.score_samples(X, n_importance=100))
    again = pickle.loads(pickle.dumps(model))
    np.testing.assert_array_equal(model.score_samples(X), again.score_samples(X))
    again._seed += 1
    assert np.all(again.score_samples(X) != model.score_samples(X))


@pytest.mark.parametrize("prior", ["standard", "vamp"])
@pytest.mark.parametrize("n_values", [1, 50, 1000, 30_000])
def test_scores_and_terms_in_chunks(prior, n_values, monkeypatch):
    """They do not depend on how many numbers may be held at once."""
    X, y = labelled(30)
    X[0, 0] = np.nan
    model = conditional(prior=prior, n_prior_components=3, max_iter=2)
    fitted(model, X, y)
    expected = model.score_samples(X, n_importance=33)
    terms = np.column_stack(model.elbo_terms(X, y, n_draws=33))
    monkeypatch.setattr(row_draws, "VALUES", n_values)
    found = model.score_samples(X, n_importance=33)
    np.testing.assert_allclose(found, expected, rtol=1e-4, atol=1e-4)
    found = np.column_stack(model.elbo_terms(X, y, n_draws=33))
    np.testing.assert_allclose(found, terms, rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize("n_draws", [1, 100, 5000, 10**6])
@pytest.mark.parametrize(
    ("params", "least"),
    [
        ({}, 20),
        ({"hidden_layer_sizes": (3000,)}, 3000),
        ({"prior": "mixture", "n_prior_components": 500}, 1000),
        ({"network": "conv", "image_shape": (1, 4, 5), "hidden_layer_sizes": (64, 8)}, 64 * 20),
    ],
    ids=["small", "wide", "mixture", "conv"],
)
def test_memory_has_a_limit(params, least, n_draws):
    """No piece has more numbers than `VALUES`; all rows and draws are in just one."""
    X = noisy_rows(300, n_features=20)
    model = fitted(vae(**start(batch_size=300), **params), X)
    architecture = model._architecture
    assert architecture.widest() >= least
    pieces = [part for part, _ in pieces_of(model._dataset(Data(X)), n_draws, architecture)]
    blocks = blocks_of(n_draws, architecture, torch.device("cpu"))
    rows = np.concatenate([np.arange(300)[part] for part in pieces])
    np.testing.assert_array_equal(rows, np.arange(300))
    assert [b.start for b in blocks[1:]] == [b.stop for b in blocks[:-1]]
    assert (blocks[0].start, blocks[-1].stop) == (0, n_draws)
    most = max(p.stop - p.start for p in pieces) * max(b.stop - b.start for b in blocks)
    assert most == 1 or most * architecture.widest() <= row_draws.VALUES


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
@pytest.mark.parametrize("n_draws", [1, 33, 5000])
@pytest.mark.parametrize("width", [16, 3000])
def test_pieces_of_rows_with_draws(dtype, n_draws, width):
    """Every row has every draw once, and no piece more numbers than `VALUES`."""
    X = noisy_rows(70, n_features=20)
    model = fitted(vae(**start(batch_size=70), hidden_layer_sizes=(width,)), X)
    architecture, cpu = model._architecture, torch.device("cpu")
    draws = row_draws.RowDraws(n_draws, 2, 0, cpu, dtype=dtype)
    met = np.zeros((70, n_draws), dtype=int)
    for part, batch, blocks in draws.pieces(model._dataset(Data(X)), architecture):
        assert len(batch.x) == part.stop - part.start
        for block in blocks:
            met[part, block] += 1
            n_codes = met[part, block].size
            assert n_codes == 1 or n_codes * architecture.widest() <= row_draws.VALUES
            assert draws.of(batch.x[:, :2].to(dtype), block).shape == (*met[part, block].shape, 2)
    assert np.all(met == 1)


@pytest.mark.parametrize("number", [0, -1, 1.5, "many"])
def test_impossible_numbers_of_draws(by_label, number):
    """The error names the argument."""
    model, X, _ = by_label
    for method, name in [
        ("score_samples", "n_importance"),
        ("elbo_terms", "n_draws"),
        ("mutual_information", "n_draws"),
    ]:
        with pytest.raises(ValueError, match=name):
            getattr(model, method)(X, **{name: number})


@pytest.mark.parametrize(
    ("likelihood", "wrong"), [("bernoulli", 1.5), ("poisson", -1.0), ("continuous_bernoulli", -0.5)]
)
def test_rows_outside_of_the_range(likelihood, wrong):
    """Are not scored: the error names likelihood and column. They can be encoded."""
    X = rows_for(likelihood)
    model = fitted(vae(likelihood=likelihood, max_iter=2), X)
    bad = X.copy()
    bad[3, 2] = wrong
    for method in ("score_samples", "elbo_terms", "impute"):
        with pytest.raises(ValueError, match=rf"likelihood='{likelihood}'.*column 2"):
            getattr(model, method)(bad)
    assert model.transform(bad).shape == (80, 2)


# ------------------------------------------------------------------ networks and training


def own_networks(n_in=5, n_codes=2, n_read=2, n_out=5):
    """An encoder and a decoder whose weights are the same in every call."""
    networks = {
        "encoder": nn.Sequential(nn.Linear(n_in, 16), nn.Tanh(), nn.Linear(16, 2 * n_codes)),
        "decoder": nn.Sequential(nn.Linear(n_read, 16), nn.Tanh(), nn.Linear(16, n_out)),
    }
    rng = np.random.default_rng(0)
    with torch.no_grad():
        for net in networks.values():
            for p in net.parameters():
                p.copy_(torch.from_numpy(rng.uniform(-0.3, 0.3, p.shape)))
    return networks


@pytest.mark.parametrize("n_importance", [1, 4])
@pytest.mark.parametrize(
    "likelihood", ["gaussian", "laplace", "bernoulli", "continuous_bernoulli", "poisson"]
)
def test_every_likelihood_trains(likelihood, n_importance):
    """The loss falls, and so does that of rows held out; samples are in the support."""
    X = rows_for(likelihood, 200)
    model = vae(likelihood=likelihood, n_importance=n_importance, early_stopping=True)
    fitted(model, X)
    for name in ("train_loss", "valid_loss"):
        assert model.history_[-1][name] < model.history_[0][name] - 0.1
    rows = model.sample(200, random_state=0)
    low, high = {"poisson": (0, np.inf), "bernoulli": (0, 1), "continuous_bernoulli": (0, 1)}.get(
        likelihood, (-np.inf, np.inf)
    )
    assert low <= rows.min() <= rows.max() <= high
    if likelihood in ("poisson", "bernoulli"):
        np.testing.assert_array_equal(rows, rows.round())


@pytest.mark.parametrize("kind", ["plain", "holes", "labels", "vamp"])
def test_own_networks(kind):
    """They read rows as they are, and learn; yours are not changed."""
    X, y = labelled()
    sizes = {"holes": {"n_in": 10}, "labels": {"n_read": 5}}.get(kind, {})
    own = own_networks(**sizes)
    if kind == "holes":
        X[np.random.default_rng(0).random(X.shape) < 0.2] = np.nan
    params = {"labels": {"conditional": True}, "vamp": {"prior": "vamp"}}.get(kind, {})
    before = copy.deepcopy(own["encoder"].state_dict())
    model = fitted(vae(2, max_iter=20, **own, **params), X, y)
    assert_same(own["encoder"].state_dict(), before)
    assert model.history_[-1]["train_loss"] < model.history_[0]["train_loss"] - 0.5
    read = np.where(np.isnan(X), 0.0, X)
    if kind == "holes":
        read = np.hstack([read, ~np.isnan(X)])
    with torch.no_grad():
        out = model.net_.module_.encoder(torch.from_numpy(read.astype(np.float32))).numpy()
    np.testing.assert_allclose(model.transform(X), out[:, :2], rtol=1e-4, atol=1e-5)
    np.testing.assert_allclose(model.posterior(X)[1], np.exp(out[:, 2:] / 2), rtol=1e-4)
    if kind == "vamp":
        assert np.isfinite(model.sample(5, random_state=0)).all()


def test_bounds_of_own_networks():
    """In the units of the data, by quadrature; NaN included."""
    X = noisy_rows(60, gaps=0.2)
    model = fitted(vae(1, max_iter=30, **own_networks(10, 1, 1)), X)
    found, expected = model.score_samples(X, n_importance=5000), exact(model, X)
    np.testing.assert_allclose(found, expected, atol=0.5)
    assert found.mean() == pytest.approx(expected.mean(), abs=0.05)


def test_own_networks_that_do_not_fit():
    """The error shows both shapes: log variances belong to the encoder, labels to the decoder."""
    X, y = labelled()
    with pytest.raises(ValueError, match=r"encoder maps .*expected \(2, 6\)"):
        vae(3, **own_networks()).fit(X)
    with pytest.raises(ValueError, match=r"decoder must accept a batch of shape \(2, 5\)"):
        vae(2, conditional=True, **own_networks()).fit(X, y)
    with pytest.raises(ValueError, match=r"encoder must accept a batch of shape \(2, 10\)"):
        vae(2, **own_networks()).fit(noisy_rows(gaps=0.1))


@pytest.mark.parametrize(
    "params", [{}, {"conditional": True}, {"prior": "vamp"}], ids=["plain", "labels", "vamp"]
)
def test_convolutions(params):
    """Images in and out, with labels and pseudo-rows."""
    rng = np.random.default_rng(0)
    which = rng.integers(2, size=100)
    images = np.zeros((100, 6, 6))
    images[which == 0, 2:4] = 1.0
    images[which == 1, :, 2:4] = 1.0
    X = (images.reshape(100, 36) + 0.1 * rng.normal(size=(100, 36))).clip(0, 1)
    model = vae(
        2,
        network="conv",
        image_shape=(1, 6, 6),
        hidden_layer_sizes=(8,),
        likelihood="continuous_bernoulli",
        max_iter=20,
        **params,
    )
    fitted(model, X, which)
    assert model.history_[-1]["train_loss"] < model.history_[0]["train_loss"] - 5
    assert model.sample(3, random_state=0).shape == (3, 36)
    y = which if params.get("conditional") else None
    assert np.mean((model.reconstruct(X, y) - X) ** 2) < 0.5 * X.var(axis=0).mean()


@pytest.mark.parametrize("n_importance", [1, 3])
def test_held_out_rows_are_watched_at_the_same_draws(n_importance):
    """A model that stays where it is has the same loss in every epoch."""
    model = vae(
        early_stopping=True,
        noise_variance=0.5,
        n_importance=n_importance,
        **start(max_iter=5, n_iter_no_change=50),
    )
    history = fitted(model, noisy_rows()).history_
    losses = [epoch["valid_loss"] for epoch in history]
    np.testing.assert_allclose(losses, losses[0], rtol=1e-6)
    assert len({epoch["train_loss"] for epoch in history}) == 5


@pytest.mark.parametrize(
    "params", [{}, {"n_importance": 5}, {"prior": "vamp"}], ids=["elbo", "iwae", "vamp"]
)
def test_all_rows_at_once(params):
    """solver="lbfgs" lowers the loss, though every epoch has draws of its own."""
    X = noisy_rows()
    model = fitted(vae(solver="lbfgs", max_iter=8, **params), X)
    assert model.history_[-1]["train_loss"] < model.history_[0]["train_loss"] - 1
    assert np.isfinite(model.score(X))


@pytest.mark.parametrize("n_importance", [5])
def test_narrow_numbers(n_importance):
    """bfloat16 in training ends near float32; what follows is computed in float32."""
    X = noisy_rows(300)
    options = {"n_importance": n_importance, "max_iter": 20}
    narrow = vae(precision="bfloat16", **options).fit(X)
    wide = vae(precision="float32", **options).fit(X)
    assert all(p.dtype == torch.float32 for p in narrow.net_.module_.parameters())
    assert narrow.score(X) == pytest.approx(wide.score(X), abs=0.2)


# torch's compiler, when it is first imported, uses what torch itself has deprecated.
@pytest.mark.filterwarnings("ignore:`torch.jit.script_method` is deprecated:DeprecationWarning")
@pytest.mark.skipif(shutil.which("g++") is None, reason="torch.compile needs a C++ compiler")
@pytest.mark.long
def test_a_compiled_loss_trains_alike():
    """compile=True ends at the same weights to 1e-4, hooks on gradients included."""
    X = noisy_rows(32)
    options = {"n_importance": 5, "max_iter": 2, "hidden_layer_sizes": (4,)}
    compiled = fitted(vae(compile=True, **options), X)
    plain = weights(fitted(vae(**options), X))
    for name, value in weights(compiled).items():
        np.testing.assert_allclose(value, plain[name], atol=1e-4, err_msg=name)
    pickle.loads(pickle.dumps(compiled)).transform(X)


@pytest.mark.filterwarnings("ignore")  # of the compiler
@pytest.mark.parametrize("likelihood", ["gaussian", "bernoulli", "poisson"])
def test_a_compiled_loss_is_the_loss(likelihood):
    """In nats of the data, also of rows that are not standardised; by the compiler's tracing."""
    X = rows_for(likelihood)
    model = fitted(vae(likelihood=likelihood, max_iter=1), X)
    module = model.net_.module_
    batch = module.prepare(batch_of(model, X), torch.Generator().manual_seed(0))
    compiled = torch.compile(module.loss, backend="eager")(batch)
    for name, value in module.loss(batch).terms.items():
        torch.testing.assert_close(compiled.terms[name], value)


def test_training_goes_on_with_another_objective():
    """beta, free_bits and n_importance may change between fits, the prior may not."""
    X = noisy_rows()
    model = vae(warm_start=True, beta=0.5, free_bits=0.1).fit(X)
    model.set_params(beta=1.0, free_bits=0.0, n_importance=3).fit(X)
    assert model.n_iter_ == 20
    assert "train_kl" in model.history_[9]
    assert "train_kl" not in model.history_[10]
    with pytest.raises(ValueError, match="prior='vamp' cannot change"):
        model.set_params(prior="vamp").fit(X)


@pytest.mark.parametrize(
    ("params", "named"),
    [
        ({"prior": "flow"}, "prior"),
        ({"n_prior_components": 0}, "n_prior_components"),
        ({"beta": -1.0}, "beta"),
        ({"beta_warm_up": 1.5}, "beta_warm_up"),
        ({"free_bits": -0.1}, "free_bits"),
        ({"n_importance": 0}, "n_importance"),
        ({"conditional": "yes"}, "conditional"),
    ],
)
def test_impossible_parameters(params, named):
    """The error names the parameter."""
    with pytest.raises(ValueError, match=f"'{named}'"):
        clone(vae(**params)).fit(noisy_rows())


def test_of_many_rows_some_tell_which_latents_are_active(monkeypatch):
    """Those that are drawn; the codes that `fit_transform` returns are those of all rows."""
    X = low_rank_rows(300)
    whole = network(VAE, max_iter=2).fit(X)
    monkeypatch.setattr("skae._vae._MOMENT_ROWS", 60)
    some = network(VAE, max_iter=2)
    codes = some.fit_transform(X)
    np.testing.assert_allclose(codes, whole.transform(X), rtol=1e-6)
    np.testing.assert_allclose(codes, some.transform(X), rtol=1e-6)
    drawn = codes[some_of(300, 60, some._seed + 6).numpy()]
    np.testing.assert_allclose(some._code_moments[0], drawn.mean(axis=0), atol=1e-6)
    covariance = np.cov(drawn.T, bias=True)
    np.testing.assert_allclose(some._code_moments[1], covariance, rtol=1e-4, atol=1e-6)
    np.testing.assert_allclose(whole._code_moments[0], codes.mean(axis=0), atol=1e-6)


def test_one_row_tells_little_of_codes():
    """The information about one row is 0, and the variance of its codes is not known."""
    X = low_rank_rows()
    model = network(VAE, max_iter=1).fit(X)
    assert model.mutual_information(X[:1]) == 0.0
    with pytest.raises(ValueError, match="X has one row"):
        model.active_units(X[:1])


def test_sizes_of_layers_are_named():
    with pytest.raises(TypeError, match="decoder_layer_sizes"):
        network(VAE, decoder_layer_sizes=np.array(3)).fit(low_rank_rows())


@pytest.mark.parametrize("size_factor", [[[1, [2]]], np.ones(3), "column"])
def test_other_size_factors_are_named(size_factor):
    X = low_rank_rows()
    with pytest.raises(ValueError, match="size_factor"):
        network(VAE, max_iter=1).fit(X).reconstruct(X, size_factor=size_factor)


def test_networks_that_change_in_a_stream_are_named():
    X = low_rank_rows()
    model = network(VAE).partial_fit(X)
    with pytest.raises(ValueError, match="encoder, decoder"):
        model.set_params(encoder=nn.Linear(X.shape[1], 4)).partial_fit(X)


@pytest.mark.parametrize("warm", [False, True])
def test_parameter_beyond_float32_is_named(warm):
    X = make_rows(20, 4)
    model = VAE(2, max_iter=1, random_state=0, warm_start=True)
    model = model.fit(X) if warm else model
    with pytest.raises(ValueError, match=r"beta=1e\+300 exceeds the range of float32"):
        model.set_params(beta=1e300).fit(X)
