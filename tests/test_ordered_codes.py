"""Ordered codes of a VAE: models of the first codes, against quadrature, PPCA and enumeration."""

import copy
import pickle
import warnings

import numpy as np
import pytest
import torch
from scipy import special, stats
from torch import nn

from helpers import allowed_rows, assert_same, batch_of, low_rank_rows, network, parameters
from skae import PPCA, VAE
from skae._training.module import total_of

GENERATOR = torch.Generator()


def vae(n_components=3, **params):
    """A small one with ordered codes, trained for a few epochs."""
    options = {"hidden_layer_sizes": (16,), "activation": "tanh", "batch_size": 40}
    options |= {"learning_rate_init": 0.01, "max_iter": 10, "latent_growth": "nested"}
    return network(VAE, n_components=n_components, **{**options, **params})


def fitted(model, *given, **kwargs):
    """After a fit of which no collapse matters."""
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", "Posterior collapse")
        return model.fit(*given, **kwargs)


def rows(n_rows=120, **params):
    return low_rank_rows(n_rows, n_features=5, rank=3, scales=(3.0, 1.0), noise=0.4, **params)


def own_networks():
    torch.manual_seed(0)
    return {"encoder": nn.Linear(5, 6), "decoder": nn.Linear(3, 5)}


# -------------------------------------------------------------------------- the bound


def one_size(model, batch, k):
    """The loss of a batch by the model of the first k codes, at the same draws."""
    module = model.truncate(k).net_.module_.train()
    if model.noise_variance_ is not None and model.noise_variance == "scalar":
        module.likelihood.variance.copy_(model.net_.module_.noise_path.variance[k - 1])
    part = batch._replace(gate=None, draws=batch.draws[..., :k])
    return module.loss(part)


@pytest.mark.parametrize("n_importance", [1, 4])
@pytest.mark.parametrize(
    "params",
    [
        {},
        {"prior": "mixture"},
        {"prior": "vamp"},
        {"likelihood": "laplace", "beta": 0.5},
        {"likelihood": "poisson", "free_bits": 0.3},
        {"noise_variance": 0.5},
        {"conditional": True},
        own_networks(),
    ],
    ids=lambda params: ",".join(map(str, params)),
)
def test_the_loss_is_the_mean_bound_of_the_models_of_every_size(params, n_importance):
    """Every cut enumerated: each row counts as by the model of the codes that it is left.

    That model has no other codes, so that nothing of theirs is in the bound or its gradient.
    """
    if n_importance > 1:
        params = {n: v for n, v in params.items() if n not in ("beta", "free_bits")}
    X = allowed_rows(params.get("likelihood", "gaussian"), rows(), 2.0)
    y = np.arange(len(X)) % 2 if params.get("conditional") else None
    model = fitted(vae(n_importance=n_importance, **params), X, y)
    weight = np.linspace(0.5, 2.0, len(X)).astype(np.float32)
    condition = None if y is None else np.eye(2, dtype=np.float32)[y]
    module = model.net_.module_.train()
    batch = module.prepare(batch_of(model, X, weight, condition), GENERATOR.manual_seed(0))
    for k in (1, 2, 3):
        cut = batch._replace(gate=(torch.arange(3) < k).float().expand(len(X), -1))
        loss, expected = module.loss(cut), one_size(model, batch, k)
        assert loss.terms.keys() == expected.terms.keys()
        for name, term in expected.terms.items():
            torch.testing.assert_close(loss.terms[name], term, rtol=1e-4, atol=1e-4)
    if "free_bits" in params:  # whose least is of a mean over rows
        return
    size = batch.gate.sum(1)
    of_sizes = 0.0
    for k in (1, 2, 3):
        kept = size == k
        part = type(batch)(
            *(v if v is None or v.ndim == 0 else v[kept] for v in batch[:-2]),
            draws=batch.draws[kept],
        )
        share = batch.weight[kept].sum() / batch.weight.sum()
        of_sizes += share * total_of(one_size(model, part, k))
    torch.testing.assert_close(total_of(module.loss(batch)), of_sizes, rtol=1e-4, atol=1e-4)


def test_the_divergence_by_hand():
    """The mean over rows of what the kept codes cost (Kingma & Welling 2014, appendix B)."""
    X = rows()
    model = fitted(vae(beta=2.0, free_bits=0.7), X)
    module = model.net_.module_.train()
    batch = module.prepare(batch_of(model, X), GENERATOR.manual_seed(0))
    with torch.no_grad():
        loss = module.loss(batch)
    each = np.zeros((len(X), 3))
    for k in (1, 2, 3):
        mean, std = model.truncate(k).posterior(X)
        kept = batch.gate.numpy().sum(1) == k
        each[kept, :k] = (0.5 * (mean**2 + std**2 - 2 * np.log(std) - 1))[kept]
    assert float(loss.logged["kl"]) == pytest.approx(each.sum(1).mean(), rel=1e-4)
    kept = batch.gate.numpy().sum(0)
    least = np.maximum(each.sum(0) / kept, 0.7) * kept / len(X)
    assert float(loss.terms["kl_cost"]) == pytest.approx(2 * least.sum(), rel=1e-4)


@pytest.mark.parametrize("n_importance", [1, 4])
def test_codes_that_are_cut_have_no_gradient(n_importance):
    """With all rows cut to one code, nothing that the others are made of is moved."""
    X = rows()
    model = fitted(vae(n_importance=n_importance, hidden_layer_sizes=()), X)
    module = model.net_.module_.train()
    batch = module.prepare(batch_of(model, X), GENERATOR.manual_seed(0))
    module.zero_grad()
    loss = module.loss(batch._replace(gate=(torch.arange(3) < 1).float().expand(len(X), -1)))
    with torch.enable_grad():
        total_of(loss).backward()
    moved = next(module.encoder.parameters()).grad.abs().sum(1) > 0
    np.testing.assert_array_equal(moved, [True, False, False] * 2)
    moved = next(module.decoder.parameters()).grad.abs().sum(0) > 0
    np.testing.assert_array_equal(moved, [True, False, False])


def test_sizes_are_uniform_in_training_and_whole_otherwise():
    model = vae(max_iter=1).fit(rows())
    batch, module = batch_of(model, rows(6000)), model.net_.module_
    size = module.train().prepare(batch, GENERATOR.manual_seed(0)).gate.sum(1).long()
    assert stats.chisquare(torch.bincount(size)[1:].numpy()).pvalue > 1e-3
    assert module.eval().prepare(batch, GENERATOR).gate is None


# --------------------------------------------------------------------- models of a size


@pytest.mark.parametrize(
    "params", [{}, {"conditional": True}, {"prior": "mixture"}, {"noise_variance": "per_feature"}]
)
def test_a_cut_model_is_the_whole_one_with_other_codes_at_zero(params):
    """Codes, reconstructions and draws; the whole model stays as it is."""
    X = rows()
    y = np.arange(len(X)) % 2
    model = fitted(vae(**params), X, y)
    before = copy.deepcopy(model.__getstate__())
    cut = model.truncate(2)
    assert (cut.n_components, cut.n_components_) == (2, 2)
    assert len(cut.get_feature_names_out()) == 2
    Z = model.transform(X)
    np.testing.assert_array_equal(cut.transform(X), Z[:, :2])
    wider = model.net_.module_.log_var_of_size.numpy(force=True)
    expected = model.posterior(X)[1] * np.exp((wider[1] - wider[2]) / 2)
    np.testing.assert_allclose(cut.posterior(X)[1], expected[:, :2], rtol=1e-5)
    Z[:, 2] = 0
    np.testing.assert_allclose(cut.reconstruct(X), model.inverse_transform(Z), rtol=1e-5, atol=1e-5)
    assert cut.sample_latent(7, random_state=0).shape == (7, 2)
    assert cut.sample(7, random_state=0).shape == (7, 5)
    assert cut.elbo_terms(X, y if "conditional" in params else None).kl_per_latent.shape[1] == 2
    assert cut.active_units(X) == cut.n_active_units_ <= 2
    assert pickle.dumps(model.__getstate__()["net_"]) == pickle.dumps(before["net_"])
    assert model.truncate(3).score(X) == model.score(X)


def log_likelihood(model, X):
    """log p(x) of a model of one code: p(z) p(x|z) integrated on a grid of z."""
    grid = np.linspace(-8, 8, 4001)
    mean = model.inverse_transform(grid[:, None])
    density = stats.norm if model.likelihood == "gaussian" else stats.laplace
    scale = np.sqrt(model.noise_variance_ / (1 if model.likelihood == "gaussian" else 2))
    log_px = density.logpdf(X[:, None], mean, scale).sum(-1)
    module = model.net_.module_
    if model.prior == "standard":
        log_prior = stats.norm.logpdf(grid)
    else:
        at, log_var = module.prior_mean[:, 0].numpy(force=True), module.prior_log_var[:, 0]
        log_weight = special.log_softmax(module.prior_logit.numpy(force=True))
        std = np.exp(log_var.numpy(force=True) / 2)
        log_prior = special.logsumexp(
            stats.norm.logpdf(grid[:, None], at, std) + log_weight, axis=1
        )
    return special.logsumexp(log_px + log_prior, axis=1) + np.log(grid[1] - grid[0])


@pytest.mark.parametrize(
    "params",
    [
        {},
        {"prior": "mixture", "n_prior_components": 3},
        {"likelihood": "laplace"},
        {"noise_variance": "per_feature"},
        {"n_importance": 5},
    ],
)
def test_the_score_of_a_cut_model_is_a_bound_on_its_likelihood(params):
    """Below it on average, and equal to it where there are many draws, but for their noise."""
    X = rows(60)
    cut = fitted(vae(2, max_iter=20, **params), X).truncate(1)
    exact = log_likelihood(cut, X)
    few = cut.score_samples(X, n_importance=1).mean()
    assert few < exact.mean() + 0.05
    off = cut.score_samples(X, n_importance=20_000) - exact
    assert abs(off.mean()) < 0.03
    assert np.median(abs(off)) < 0.02


def test_cut_linear_models_are_gaussian():
    """p(x) is N(mean, W W' + noise) with the first columns of the loadings alone."""
    X = rows(300)
    model = vae(hidden_layer_sizes=(), init="linear", max_iter=0).fit(X)
    for k in (1, 2, 3):
        cut = model.truncate(k)
        mean, *ends = cut.inverse_transform(np.vstack([np.zeros(k), np.eye(k)])).astype(float)
        loadings = np.array(ends) - mean
        covariance = loadings.T @ loadings + cut.noise_variance_ * np.eye(5)
        exact = stats.multivariate_normal(mean, covariance).logpdf(X)
        np.testing.assert_allclose(cut.score_samples(X, n_importance=5000), exact, atol=0.05)
        assert exact.mean() == pytest.approx(PPCA(k).fit(X).score(X), abs=0.05)
        terms = cut.elbo_terms(X)
        bound = (terms.reconstruction - terms.kl).mean()
        assert bound == pytest.approx(exact.mean(), abs=0.1)  # q(z|x) is nearly p(z|x)


@pytest.mark.parametrize("noise_variance", ["scalar", "per_feature"])
def test_codes_begin_ordered_as_those_of_ppca(noise_variance):
    """The first k explain what k principal components do, and their noise is what is left."""
    X = rows(300)
    model = vae(init="linear", noise_variance=noise_variance, max_iter=0).fit(X)
    for k in (1, 2, 3):
        expected = PPCA(k).fit(X).noise_variance_
        if noise_variance == "per_feature":
            expected = np.var(X, axis=0) - np.square(PPCA(3).fit(X).loadings_[:, :k]).sum(axis=1)
        np.testing.assert_allclose(model.truncate(k).noise_variance_, expected, rtol=1e-3)


def test_one_fit_serves_every_size():
    """The first k codes of a trained linear model explain what PPCA of k codes does."""
    X = rows(400)
    model = vae(
        hidden_layer_sizes=(),
        init="linear",
        learning_rate="cosine",
        learning_rate_init=0.05,
        max_iter=60,
    ).fit(X)
    assert not model.net_.at_start_
    for k in (1, 2, 3):
        assert model.truncate(k).score(X) == pytest.approx(PPCA(k).fit(X).score(X), abs=0.03)


@pytest.mark.parametrize("n_importance", [1, 4])
def test_every_size_has_the_noise_that_explains_it_best(n_importance):
    """The mean squared error at draws of q(z|x), or at importance-weighted ones."""
    X = rows(200)
    model = fitted(vae(max_iter=20, n_importance=n_importance), X)
    rng = np.random.default_rng(0)
    noise = []
    for k in (1, 2, 3):
        cut = model.truncate(k)
        noise.append(cut.noise_variance_)
        mean, std = cut.posterior(X)
        draws = rng.standard_normal((400, n_importance, *mean.shape))
        Z = mean + std * draws
        at = cut.inverse_transform(Z.reshape(-1, k)).reshape(*Z.shape[:-1], 5)
        error = np.square(at - X).sum(-1)
        log_weight = -0.5 * error / cut.noise_variance_ - 0.5 * (Z**2 - draws**2).sum(-1)
        weight = special.softmax(log_weight, axis=1)
        expected = (weight * error).sum(1).mean() / 5
        # Learned at a weight that itself depends on the noise, in one step.
        assert noise[-1] == pytest.approx(expected, rel=0.03 if n_importance == 1 else 0.1)
    assert noise[0] > noise[1] > noise[2]


def test_imputations_of_a_cut_model():
    """Those of the whole model where the last code is drawn as zero: by importance on a grid."""
    X = rows(20)
    cut = vae(2, max_iter=20).fit(rows()).truncate(1)
    holes = X.copy()
    holes[:, 0] = np.nan
    grid = np.linspace(-8, 8, 2001)
    mean = cut.inverse_transform(grid[:, None])
    std = np.sqrt(cut.noise_variance_)
    log_weight = stats.norm.logpdf(X[:, None, 1:], mean[:, 1:], std).sum(-1)
    weight = special.softmax(log_weight + stats.norm.logpdf(grid), axis=1)
    found = cut.impute(holes, n_importance=20_000)[:, 0]
    np.testing.assert_allclose(found, weight @ mean[:, 0], atol=0.1)
    assert np.isfinite(cut.impute(holes, 3, random_state=0)).all()


def test_draws_of_a_cut_conditional_model():
    """The decoder reads conditions after all codes, those that are cut among them.

    Draws of a column that the label decides lie around its mean.
    """
    X = rows(200)
    y = (X[:, 0] > X[:, 0].mean()).astype(int)
    cut = fitted(vae(conditional=True, max_iter=30), X, y).truncate(1)
    holes = X.copy()
    holes[:, 0] = np.nan
    means = cut.impute(holes, y=y, n_importance=500)[:, 0]
    draws = cut.impute(holes, 200, y=y, n_importance=500, random_state=0)[..., 0]
    np.testing.assert_allclose(draws.mean(0), means, atol=0.5)
    assert means[y == 1].mean() > means[y == 0].mean() + 1


# ----------------------------------------------------------------- going on, and errors


def test_training_of_a_cut_model_goes_on():
    """By batches and by a warm start, with the codes that are left, which stay ordered."""
    X = rows()
    model = vae(max_iter=20).fit(X)
    before = model.score(X)
    further = model.truncate(2).partial_fit(X)
    assert further.n_iter_ == 21
    assert further.transform(X).shape == (120, 2)
    assert further.truncate(1).score(X) > model.truncate(1).score(X) - 0.5
    assert len(further._noise_path) == 2
    warm = model.truncate(2).set_params(warm_start=True, max_iter=2).fit(X)
    assert warm.n_iter_ == 22
    assert warm.score(X) > model.truncate(2).score(X) - 0.5
    assert model.score(X) == before
    with pytest.raises(ValueError, match="latent_growth=None cannot change"):
        model.set_params(warm_start=True, latent_growth=None).fit(X)


def test_noise_of_a_stream_is_a_running_mean():
    """Of every size, as of the whole: a batch of large errors moves it, but not all the way."""
    X = rows()
    model = vae(max_iter=20).fit(X)
    before = model._noise_path.copy()
    model.partial_fit(X)
    np.testing.assert_allclose(model._noise_path, before, rtol=0.2)
    settled = model._noise_path.copy()
    model.set_params(learning_rate_init=1e-9).partial_fit(3 * X)
    whole = copy.deepcopy(model).set_params(warm_start=True, max_iter=0).fit(3 * X)._noise_path
    assert np.all((settled < model._noise_path) & (model._noise_path < whole))


@pytest.mark.parametrize("params", [{}, {"prior": "vamp"}, {"likelihood": "poisson"}])
def test_saved_models_can_be_cut(params):
    X = allowed_rows(params.get("likelihood", "gaussian"), rows(), 2.0)
    model = fitted(vae(**params), X)
    loaded = pickle.loads(pickle.dumps(model))
    cut = pickle.loads(pickle.dumps(model.truncate(2)))
    assert loaded.truncate(2).score(X) == cut.score(X) == model.truncate(2).score(X)
    assert cut.truncate(1).score(X) == model.truncate(1).score(X)
    assert_same(parameters(cut), parameters(model))


@pytest.mark.parametrize("k", [0, 4, 2.0, "2", None])
def test_impossible_sizes(k):
    model = vae(max_iter=1).fit(rows())
    with pytest.raises(ValueError, match=r"'n_components'.*3"):
        model.truncate(k)


def test_codes_without_an_order_cannot_be_cut():
    model = vae(max_iter=1, latent_growth=None).fit(rows())
    assert not hasattr(model, "truncate")
    with pytest.raises(AttributeError) as caught:
        model.truncate(1)
    assert "that is, latent_growth='nested'; given None" in str(caught.value.__cause__)
    with pytest.raises(ValueError, match="latent_growth"):
        vae(latent_growth="incremental").fit(rows())


def test_models_saved_before_there_was_an_order_load():
    model = vae(latent_growth=None).fit(rows())
    state = model.__getstate__()
    del state["latent_growth"], state["_architecture"]["latent_growth"]
    loaded = VAE.__new__(VAE)
    loaded.__setstate__(state)
    assert loaded.latent_growth is None
    assert loaded.score(rows()) == model.score(rows())
