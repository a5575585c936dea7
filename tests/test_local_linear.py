"""PCA's attributes of networks, against PCA, finite differences and regressions on the codes."""

import copy
import warnings

import numpy as np
import pandas as pd
import pytest
import torch
from sklearn.decomposition import PCA
from sklearn.exceptions import NotFittedError
from torch import nn

from helpers import allowed_rows, low_rank_rows, network, through_pickle, through_skops
from skae import PPCA, VAE, VQVAE, AdversarialAE, Autoencoder, CountMixtureAE, HelmholtzMachine
from skae._local_linear import explained_by_each

NAMES = ["components_", "mean_", "explained_variance_", "explained_variance_ratio_"]
every_model = pytest.mark.parametrize("Model", [Autoencoder, VAE, AdversarialAE])


def rows(n_rows=80, **params):
    return low_rank_rows(n_rows, n_features=6, rank=3, scales=(3.0, 1.0), noise=0.3, **params)


def fitted(Model=Autoencoder, X=None, y=None, sample_weight=None, **params):
    params = {"n_components": 3, "activation": "tanh", "learning_rate_init": 0.02, **params}
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", "Posterior collapse")
        return network(Model, **params).fit(rows() if X is None else X, y, sample_weight)


def covariance_of(codes, weight=None):
    return np.cov(codes.astype(np.float64).T, aweights=weight, bias=True)


def by_differences(model, code, step=0.03):
    """The Jacobian of `inverse_transform`, transposed, by differences of fourth order."""

    def moved(by):
        decoded = model.inverse_transform(code + by * np.eye(len(code)))
        return np.asarray(decoded, dtype=np.float64)

    near, far = moved(step) - moved(-step), moved(2 * step) - moved(-2 * step)
    return (8 * near - far) / (12 * step)


# ------------------------------------------------------------------------ as PCA


@pytest.mark.parametrize("Model", [Autoencoder, AdversarialAE])
def test_linear_networks_have_the_attributes_of_pca(Model):
    """At PCA's maps, for which identity networks begin; a code has its own length, and sign."""
    X = rows()
    linear = {"activation": "identity", "init": "linear", "max_iter": 0}
    model, pca = fitted(Model, X, **linear), PCA(3).fit(X)
    assert np.allclose(model.explained_variance_, pca.explained_variance_, rtol=1e-5)
    assert np.allclose(model.explained_variance_ratio_, pca.explained_variance_ratio_, rtol=1e-5)
    axes = model.components_ / np.linalg.norm(model.components_, axis=1, keepdims=True)
    axes *= np.sign((axes * pca.components_).sum(axis=1, keepdims=True))
    np.testing.assert_allclose(axes, pca.components_, atol=1e-5)
    mean = model.mean_ + model.code_mean_ @ model.components_
    np.testing.assert_allclose(mean, pca.mean_, atol=1e-5)
    if Model is Autoencoder:  # whose codes have the mean 0
        np.testing.assert_allclose(model.mean_, pca.mean_, atol=1e-5)


def test_a_linear_vae_explains_what_ppca_reconstructs():
    """Posterior means are shrunk, so that this is less than the variance along PCA's axes."""
    X = rows()
    model = fitted(VAE, X, activation="identity", init="linear", max_iter=0)
    reconstructed = PPCA(3).fit(X).reconstruct(X)
    variances = np.linalg.eigvalsh(np.cov(reconstructed.T))[:-4:-1]
    np.testing.assert_allclose(model.explained_variance_, variances, rtol=1e-4)
    total = X.var(axis=0, ddof=1).sum()
    np.testing.assert_allclose(model.explained_variance_ratio_, variances / total, rtol=1e-4)
    assert (model.explained_variance_ < PCA(3).fit(X).explained_variance_).all()


@every_model
def test_trained_linear_networks(Model):
    """For codes that are correlated: the sum is the variance of all reconstructions."""
    X = rows()
    model = fitted(Model, X, activation="identity", max_iter=10)
    Z, found = model.transform(X), model.reconstruct(X)
    assert np.abs(np.corrcoef(Z.T) - np.eye(3)).max() > 0.05
    np.testing.assert_allclose(Z @ model.components_ + model.mean_, found, atol=1e-4)
    variance = found.astype(np.float64).var(axis=0, ddof=1).sum()
    np.testing.assert_allclose(model.explained_variance_.sum(), variance, rtol=1e-4)
    # Each code adds what a regression on it and those before it predicts.
    explained = []
    for k in range(1, 4):
        basis = np.column_stack([np.ones(len(Z)), Z[:, :k]]).astype(np.float64)
        predicted = basis @ np.linalg.lstsq(basis, found.astype(np.float64))[0]
        explained.append(predicted.var(axis=0, ddof=1).sum())
    np.testing.assert_allclose(np.cumsum(model.explained_variance_), explained, rtol=1e-4)


@pytest.mark.parametrize("kind", ["independent", "correlated", "repeated", "constant"])
def test_each_code_adds_the_variance_of_a_regression(kind):
    rng = np.random.default_rng(0)
    Z = rng.normal(size=(50, 4))
    match kind:
        case "independent":
            Z = np.linalg.qr(Z - Z.mean(axis=0))[0] * [4.0, 3.0, 2.0, 1.0]
        case "correlated":
            Z = Z @ rng.normal(size=(4, 4))
        case "repeated":
            Z[:, 1] = -2 * Z[:, 0]
        case "constant":
            Z[:, 2] = 5.0
    components = rng.normal(size=(4, 6))
    found = explained_by_each(components, covariance_of(Z))
    before = 0.0
    for k in range(1, 5):
        basis = np.column_stack([np.ones(50), Z[:, :k]])
        X = Z @ components
        now = (basis @ np.linalg.lstsq(basis, X)[0]).var(axis=0).sum()
        assert found[k - 1] == pytest.approx(now - before, abs=1e-9)
        before = now
    if kind == "independent":
        expected = Z.var(axis=0) * np.square(components).sum(axis=1)
        np.testing.assert_allclose(found, expected, rtol=1e-9)


# ------------------------------------------------------------------- derivatives


@pytest.mark.parametrize(
    ("Model", "params"),
    [
        (Autoencoder, {}),
        (VAE, {}),
        (AdversarialAE, {}),
        (Autoencoder, {"activation": "logistic", "tied_weights": True}),
        (Autoencoder, {"normalization": "batch", "out_activation": "tanh"}),
        (AdversarialAE, {"posterior": "gaussian"}),
        (Autoencoder, {"likelihood": "laplace", "latent_growth": "nested"}),
        (VAE, {"likelihood": "bernoulli", "prior": "mixture"}),
        (VAE, {"likelihood": "continuous_bernoulli"}),
        (Autoencoder, {"likelihood": "poisson"}),
        (Autoencoder, {"network": "conv", "image_shape": (1, 4, 4)}),
    ],
    ids=lambda value: str(value) if isinstance(value, dict) else value.__name__,
)
def test_components_are_derivatives_of_inverse_transform(Model, params):
    """Beside the mean code, decoded rows are those of the linear approximation."""
    X = rows()
    if "image_shape" in params:
        X = np.random.default_rng(0).normal(size=(40, 16))
    likelihood = params.get("likelihood", "gaussian")
    X = allowed_rows(likelihood, np.tanh(X) / 2 if "out_activation" in params else X, X.mean())
    model = fitted(Model, X, **params)
    code = model.transform(X).astype(np.float64).mean(axis=0)
    expected = by_differences(model, code)
    assert model.components_.shape == expected.shape == (3, X.shape[1])
    size = np.abs(expected).max()
    np.testing.assert_allclose(model.components_, expected, atol=2e-4 * size)
    at_mean = model.inverse_transform(code[None])[0]
    np.testing.assert_allclose(code @ model.components_ + model.mean_, at_mean, rtol=1e-4)


def test_a_table_of_numbers():
    """Columns are in the order of the table, whatever the order in the network."""
    rng, X = np.random.default_rng(0), rows()
    table = pd.DataFrame({"count": rng.poisson(30.0, 80), "width": X[:, 0], "height": X[:, 1]})
    kinds = {"count": "poisson", "width": "gaussian", "height": "laplace"}
    model = fitted(X=table, likelihood=kinds).set_output(transform="default")
    code = model.transform(table).astype(np.float64).mean(axis=0)
    Z = code + 0.01 * np.eye(3)
    expected = np.asarray(model.inverse_transform(Z))[:, 1:]  # counts are rounded
    np.testing.assert_allclose((Z @ model.components_ + model.mean_)[:, 1:], expected, rtol=1e-3)
    assert model.mean_[0] == pytest.approx(30.0, rel=0.2)
    total = table.var().sum()
    ratio = model.explained_variance_ / model.explained_variance_ratio_
    np.testing.assert_allclose(ratio, total, rtol=1e-5)


class Recurrent(nn.Module):
    """A decoder of which torch has derivatives, but none in forward mode."""

    def __init__(self):
        super().__init__()
        self.lstm, self.out = nn.LSTM(3, 4, batch_first=True), nn.Linear(4, 6)

    def forward(self, z):
        return self.out(self.lstm(z[:, None])[0][:, 0])


class _Once(torch.autograd.Function):
    @staticmethod
    def forward(ctx, x):
        return torch.tanh(x)

    @staticmethod
    @torch.autograd.function.once_differentiable
    def backward(ctx, gradient):
        return gradient


class Opaque(nn.Linear):
    """A decoder that can be trained, and no more."""

    def forward(self, z):
        return _Once.apply(super().forward(z))


class PartlyOpaque(Opaque):
    """A decoder of whose second derivatives torch computes only a part, without an error."""

    def forward(self, z):
        return super().forward(z) + nn.functional.pad(z, (0, 3))


class Attention(nn.Module):
    """A decoder whose operation has no second derivative."""

    def __init__(self):
        super().__init__()
        self.layer, self.out = (
            nn.TransformerEncoderLayer(4, 2, 8, batch_first=True),
            nn.Linear(4, 6),
        )

    def forward(self, z):
        z = nn.functional.pad(z, (0, 1))
        return self.out(self.layer(torch.stack([z, -z], 1))[:, 0])


def test_own_decoders():
    torch.manual_seed(0)
    model = fitted(decoder=Recurrent())
    code = model.transform(rows()).astype(np.float64).mean(axis=0)
    np.testing.assert_allclose(model.components_, by_differences(model, code), atol=1e-4)


@pytest.mark.parametrize("Decoder", [Opaque, PartlyOpaque, Attention])
def test_own_decoders_without_second_derivatives(Decoder):
    torch.manual_seed(0)
    model = fitted(decoder=Decoder(3, 6) if Decoder is not Attention else Attention())
    for name in NAMES:
        with pytest.raises(AttributeError, match="second derivatives of your decoder"):
            getattr(model, name)


# ------------------------------------------------------------------- types, moments


@every_model
@pytest.mark.parametrize("dtype", [np.float32, np.float64, np.int16])
def test_types_are_those_of_inverse_transform(Model, dtype):
    X = rows().astype(dtype)
    model = fitted(Model, X, max_iter=2)
    expected = model.inverse_transform(model.transform(X)).dtype
    assert {getattr(model, name).dtype for name in NAMES} == {expected}


def test_rows_far_from_zero():
    """The Jacobian does not lose the digits that the rows have before the decimal point."""
    near, far = fitted(X=rows()), fitted(X=rows() + 2.0**27)
    np.testing.assert_allclose(far.components_, near.components_, rtol=1e-4, atol=1e-5)
    np.testing.assert_allclose(far.mean_ - 2.0**27, near.mean_, atol=1e-4)
    for name in NAMES[2:]:
        np.testing.assert_allclose(getattr(far, name), getattr(near, name), rtol=1e-4)


@every_model
def test_weights_are_numbers_of_copies(Model):
    """The mean code, the covariance of the codes and the total variance are weighted."""
    X, weight = rows(), np.arange(80) % 3 + 1
    model = fitted(Model, X, sample_weight=weight, max_iter=2)
    Z = model.transform(X).astype(np.float64)
    n, mean = weight.sum(), np.average(Z, axis=0, weights=weight)
    expected = explained_by_each(model.components_, covariance_of(Z, weight)) * n / (n - 1)
    np.testing.assert_allclose(model.explained_variance_, expected, rtol=1e-4)
    total = np.repeat(X, weight, axis=0).var(axis=0, ddof=1).sum()
    ratio = model.explained_variance_ratio_
    np.testing.assert_allclose(ratio, expected / total, rtol=1e-4)
    at_mean = model.inverse_transform(mean[None])[0]
    np.testing.assert_allclose(mean @ model.components_ + model.mean_, at_mean, rtol=1e-4)
    shares = fitted(Model, X, sample_weight=weight / n, max_iter=2)
    np.testing.assert_allclose(shares.explained_variance_ratio_, ratio, rtol=1e-3)
    biased = total * (n - 1) / n  # weights that are shares of 1 are no numbers of rows
    found = shares.explained_variance_ / shares.explained_variance_ratio_
    np.testing.assert_allclose(found, biased * 80 / 79, rtol=1e-5)


def test_missing_values():
    """The total variance is that of the observed values."""
    X = rows(gaps=0.1)
    model = fitted(X=X)
    total = np.nanvar(X, axis=0).sum() * 80 / 79
    found = model.explained_variance_ / model.explained_variance_ratio_
    np.testing.assert_allclose(found, total, rtol=1e-5)


@every_model
def test_streams(Model):
    """All are running averages; the first batch may be a single row."""
    X = rows(60)
    model = network(Model, n_components=3).partial_fit(X[:1])
    assert np.isfinite(model.explained_variance_ratio_).all()
    for start in (0, 20, 40):
        model.partial_fit(X[start : start + 20])
    batches = [X[:1], X[:20], X[20:40], X[40:]]
    weights = np.concatenate([np.full(len(b), 0.9 ** (3 - i)) for i, b in enumerate(batches)])
    all_rows = np.concatenate(batches)
    mean = np.average(all_rows, axis=0, weights=weights)
    total = np.average((all_rows - mean) ** 2, axis=0, weights=weights).sum()
    n = weights.sum()
    found = model.explained_variance_ / model.explained_variance_ratio_
    np.testing.assert_allclose(found, total * n / (n - 1), rtol=1e-4)


def test_warm_starts_use_the_rows_of_the_last_fit():
    X = rows()
    model = fitted(X=X, warm_start=True)
    model.fit(3 * X[:40])
    found = model.explained_variance_ / model.explained_variance_ratio_
    np.testing.assert_allclose(found, 9 * X[:40].var(axis=0, ddof=1).sum(), rtol=1e-5)


@pytest.mark.parametrize("Model", [Autoencoder, VAE])
def test_truncated_models(Model):
    """They decode codes of which the others are zero."""
    X = rows()
    model = fitted(Model, X, latent_growth="nested").truncate(2)
    code = model.transform(X).astype(np.float64).mean(axis=0)
    np.testing.assert_allclose(model.components_, by_differences(model, code), atol=1e-3)
    Z = model.transform(X)
    expected = explained_by_each(model.components_, covariance_of(Z)) * 80 / 79
    np.testing.assert_allclose(model.explained_variance_, expected, rtol=1e-4)


# --------------------------------------------------------------- on demand, or not at all


@every_model
def test_nothing_is_stored(Model, tmp_path):
    model = fitted(Model, max_iter=2)
    before = set(vars(model)), model.__getstate__().keys()
    values = {name: getattr(model, name) for name in NAMES}
    assert (set(vars(model)), model.__getstate__().keys()) == before
    assert not before[0].intersection(NAMES)
    for through in (through_pickle, through_skops):
        loaded = through(model, tmp_path / "model")
        for name, value in values.items():
            np.testing.assert_array_equal(getattr(loaded, name), value)
    with torch.inference_mode():
        np.testing.assert_array_equal(model.components_, values["components_"])
    assert not any(p.grad is not None for p in copy.copy(model).net_.module_.parameters())


def test_displays_compute_nothing(monkeypatch):
    """scikit-learn's HTML representation reads every attribute that it finds."""
    model = fitted(max_iter=2)
    monkeypatch.setattr("skae._local_linear.jacobian", lambda *args: pytest.fail("computed"))
    shown = model._repr_html_()
    assert "code_mean_" in shown
    assert not any(f"anchor-name: --doc-link-{name};" in shown for name in NAMES)
    repr(model)
    monkeypatch.undo()
    assert model.components_.shape == (3, 6)


@pytest.mark.parametrize("name", NAMES)
def test_models_without_a_linear_approximation(name):
    """hasattr is False, and the error says what to use."""
    X = rows()
    with pytest.raises(NotFittedError, match="not fitted"):
        getattr(Autoencoder(), name)
    conditional = fitted(VAE, X, np.arange(80) % 2, conditional=True, max_iter=1)
    with pytest.raises(AttributeError, match=r"conditional=True.* argument y"):
        getattr(conditional, name)
    table = pd.DataFrame({"size": X[:, 0], "pet": ["cat", "dog"] * 40})
    mixed = fitted(X=table, likelihood="auto", max_iter=1)
    with pytest.raises(AttributeError, match=r"'pet' is categorical\. Use traverse"):
        getattr(mixed, name)
    others = [Autoencoder(), conditional, mixed, VQVAE(), HelmholtzMachine(), CountMixtureAE()]
    assert not any(hasattr(model, name) for model in others)


def test_files_of_earlier_versions():
    """What they do not hold has to be learned again."""
    model = fitted(VAE)
    state = model.__getstate__()
    mean, covariance = state["_code_moments"]
    del state["_rows_so_far"]
    old = VAE()
    old.__setstate__({**state, "_code_moments": (mean, np.diag(covariance))})
    np.testing.assert_array_equal(old.components_, model.components_)
    np.testing.assert_array_equal(old.mean_, model.mean_)
    assert old.n_active_units_ == model.n_active_units_
    for name in NAMES[2:]:
        with pytest.raises(AttributeError, match=r"earlier version.* Fit it again"):
            getattr(old, name)
    del state["_code_moments"]
    older = VAE()
    older.__setstate__(state)
    assert not any(hasattr(older, name) for name in NAMES)
    old.partial_fit(rows())
    assert not hasattr(old, "explained_variance_")
    old.fit(rows())
    assert hasattr(old, "explained_variance_")
