"""LatentDensityEstimator: densities by quadrature, known laws, what is wrapped, and the engine."""

import copy
import os
import pickle
import subprocess
import sys
import warnings

import joblib
import numpy as np
import pandas as pd
import pytest
import torch
from scipy import integrate, sparse, special, stats
from sklearn import config_context
from sklearn.base import clone
from sklearn.cross_decomposition import PLSRegression
from sklearn.decomposition import NMF, PCA, KernelPCA, TruncatedSVD
from sklearn.ensemble import RandomForestRegressor
from sklearn.exceptions import NotFittedError
from sklearn.frozen import FrozenEstimator
from sklearn.mixture import BayesianGaussianMixture, GaussianMixture
from sklearn.model_selection import GridSearchCV, KFold
from sklearn.neighbors import KernelDensity
from sklearn.pipeline import Pipeline, make_pipeline
from sklearn.preprocessing import StandardScaler
from skorch.callbacks import Callback

from helpers import make_rows, own_networks
from skae import PPCA, VAE, VQVAE, AdversarialAE, Autoencoder, LatentDensityEstimator, LinearAE
from skae._densities.network_density import UNUSED_BY
from skae._modules.latent_density import TriangularMap
from skae._utils.interrupts import keeps_progress

# -------------------------------------------------------------------------- helpers


def lde(autoencoder=None, n_components=None, **params):
    """A small model that trains for two epochs; without what its density does not use."""
    defaults = {
        "n_mixture": 3,
        "n_channels": 8,
        "max_iter": 2,
        "batch_size": 64,
        "learning_rate_init": 5e-3,
        "random_state": 0,
        "device": "cpu",
    }
    params = {**defaults, **params}
    density = params.get("density", "autoregressive")
    for name in UNUSED_BY[density if isinstance(density, str) and density in UNUSED_BY else "own"]:
        params.pop(name, None)
    return LatentDensityEstimator(autoencoder, n_components, **params)


def learner(**params):
    """A model that learns a law from many rows in some seconds."""
    defaults = {
        "n_mixture": 8,
        "n_channels": 32,
        "learning_rate": "cosine",
        "batch_size": 512,
        "max_iter": 12,
    }
    return lde(**{**defaults, **params})


def small_autoencoder(n_components=2, **params):
    defaults = {"hidden_layer_sizes": (6,), "max_iter": 3, "random_state": 0, "device": "cpu"}
    return Autoencoder(n_components, **{**defaults, **params})


def skewed(n_rows=200, n_features=3, *, seed=0):
    """Correlated rows of gamma factors, off centre, in unlike units, all positive."""
    rng = np.random.default_rng(seed)
    mix = np.triu(np.full((n_features, n_features), 0.7)) + 0.3 * np.eye(n_features)
    units = 2.0 ** np.arange(n_features)
    return units * (rng.gamma(2.0, size=(n_rows, n_features)) @ mix + 1.0)


def curved_law(n_rows, seed):
    """z1 ~ N(0, 1), z2 ~ N(sin 2 z1, (0.2 + 0.1 z1²)²), z3 one of two Gaussians given both."""
    rng = np.random.default_rng(seed)
    a = rng.normal(size=n_rows)
    b = np.sin(2 * a) + (0.2 + 0.1 * a**2) * rng.normal(size=n_rows)
    side = np.where(rng.random(n_rows) < special.expit(2 * b), 1.0, -1.0)
    c = side + 0.5 * a * b + 0.3 * rng.normal(size=n_rows)
    return np.stack([a, b, c], 1)


def curved_log_density(z):
    a, b, c = z.T
    share, middle = special.expit(2 * b), 0.5 * a * b
    last = share * stats.norm.pdf(c, middle + 1, 0.3)
    last += (1 - share) * stats.norm.pdf(c, middle - 1, 0.3)
    second = stats.norm.logpdf(b, np.sin(2 * a), 0.2 + 0.1 * a**2)
    return stats.norm.logpdf(a) + second + np.log(last)


MIXTURE = [
    (0.5, [0.0, 0.0], [[1.0, 0.8], [0.8, 1.0]]),
    (0.3, [3.0, 1.0], [[0.3, -0.2], [-0.2, 0.5]]),
    (0.2, [-2.0, 3.0], [[0.5, 0.0], [0.0, 0.1]]),
]


def mixture_law(n_rows, seed):
    rng = np.random.default_rng(seed)
    counts = rng.multinomial(n_rows, [weight for weight, _, _ in MIXTURE])
    parts = [
        rng.multivariate_normal(mean, cov, count)
        for count, (_, mean, cov) in zip(counts, MIXTURE, strict=True)
    ]
    return np.concatenate(parts)


def mixture_log_density(z):
    return np.log(sum(w * stats.multivariate_normal(m, c).pdf(z) for w, m, c in MIXTURE))


GAUSSIAN_MEAN = np.array([1.0, -2.0, 0.5])
GAUSSIAN_COVARIANCE = np.array([[4.0, 1.5, -0.6], [1.5, 1.0, 0.2], [-0.6, 0.2, 0.9]])


def gaussian_law(n_rows, seed):
    return np.random.default_rng(seed).multivariate_normal(
        GAUSSIAN_MEAN, GAUSSIAN_COVARIANCE, n_rows
    )


@pytest.fixture(scope="module")
def curved():
    """A model of the curved law."""
    return learner(learning_rate_init=7e-3, max_iter=14).fit(curved_law(30_000, 0))


@pytest.fixture(scope="module")
def gaussian():
    """One Gaussian for each conditional, trained on Gaussian rows."""
    return learner(n_mixture=1, max_iter=6).fit(gaussian_law(6000, 0))


NETWORKS = {
    "triangular": {"input_transform": "triangular"},
    "untransformed": {"input_transform": None},
    "logistic": {"mixture_kind": "logistic"},
    "several orders": {"orderings": 3, "position_embedding": True, "solver": "muon"},
    "divisive": {"divisive_normalization": True, "weight_averaging": 0.9},
    "flow": {"density": "flow"},
}
WRAPPED = {
    "gaussian mixture": {"density": GaussianMixture(n_components=2)},
    "variational mixture": {"density": BayesianGaussianMixture(n_components=2, max_iter=300)},
    "kernels": {"density": KernelDensity(bandwidth=0.5)},
}
every_network = pytest.mark.parametrize("params", NETWORKS.values(), ids=NETWORKS.keys())
every_wrapped = pytest.mark.parametrize("params", WRAPPED.values(), ids=WRAPPED.keys())
ALL = {**NETWORKS, **WRAPPED}
every_density = pytest.mark.parametrize("params", ALL.values(), ids=ALL.keys())


def gaussian_logs(X, mean, covariance):
    return stats.multivariate_normal(mean, covariance).logpdf(X)


def why_missing(model, name):
    """What the error of a method that is not there says."""
    with pytest.raises(AttributeError, match=f"has no attribute '{name}'") as caught:
        getattr(model, name)
    return str(caught.value.__cause__)


def fitted_state(model):
    """Names and identities of what a model holds."""
    return {name: id(value) for name, value in vars(model).items()}


# ---------------------------------------------------------------- integrals of densities


def grid_of(codes, n_points, reach=12.0):
    """Points of a grid `reach` standard deviations around codes, and the log of its cells."""
    center, std = codes.mean(0), codes.std(0)
    axis = np.linspace(-reach, reach, n_points)
    points = np.stack(np.meshgrid(*[axis] * codes.shape[1], indexing="ij"), -1)
    points = points.reshape(-1, codes.shape[1]) * std + center
    return points, np.log((axis[1] - axis[0]) * std).sum()


def integral(score, codes, n_points):
    points, log_cell = grid_of(codes, n_points)
    return np.exp(special.logsumexp(score(points)) + log_cell)


INTEGRABLE = {name: ALL[name] for name in ALL if name != "variational mixture"}


@pytest.mark.parametrize("n_features", [1, 2])
@pytest.mark.parametrize("params", INTEGRABLE.values(), ids=INTEGRABLE.keys())
def test_density_of_rows_integrates_to_one(params, n_features):
    """By a sum over a grid, of correlated and skewed rows in unlike units."""
    X = skewed(400, n_features)
    model = lde(**params, max_iter=10).fit(X)
    found = integral(model.score_samples, X, 4001 if n_features == 1 else 221)
    assert found == pytest.approx(1.0, abs=3e-3)


@pytest.mark.parametrize("scale", [1.0, 1000.0, 1e-3])
@pytest.mark.parametrize("k", [1, 2])
def test_density_of_codes_integrates_to_one_in_their_own_units(k, scale):
    """Whatever units the codes have: the change to standardised codes is counted."""
    X = scale * skewed(400, 4)
    model = lde(PCA(k), max_iter=6).fit(X)
    codes = PCA(k).fit_transform(X)
    assert integral(model.score_codes, codes, 2001 if k == 1 else 181) == pytest.approx(1, abs=3e-3)


@every_network
def test_score_of_scaled_rows_differs_by_the_log_of_the_scale(params):
    """p(c x) = p(x) / c^k: a training on c x is that on x in other units."""
    X = skewed(200, 3)
    plain = lde(**params).fit(X).score_samples(X)
    scaled = lde(**params).fit(1000 * X).score_samples(1000 * X)
    np.testing.assert_allclose(scaled, plain - 3 * np.log(1000), atol=2e-3)


# ------------------------------------------------------------------------- known laws


def test_learns_a_curved_autoregressive_law(curved):
    """The mean score of fresh rows is the law's to 0.02 nats, and not above it."""
    fresh = curved_law(30_000, 1)
    lost = curved_log_density(fresh) - curved.score_samples(fresh)
    assert -0.003 < lost.mean() < 0.02


@pytest.mark.parametrize(
    ("n_rows", "params"),
    [
        pytest.param(12_000, {"max_iter": 10}, id="triangular"),
        pytest.param(12_000, {"max_iter": 10, "input_transform": None}, id="untransformed"),
        pytest.param(20_000, {"density": "flow", "n_transforms": 2}, id="flow"),
    ],
)
def test_learns_a_mixture_of_gaussians(n_rows, params):
    """The mean score of fresh rows is the law's to 0.02 nats, and not above it."""
    fresh = mixture_law(10_000, 1)
    model = learner(**params).fit(mixture_law(n_rows, 0))
    lost = mixture_log_density(fresh) - model.score_samples(fresh)
    assert -0.003 < lost.mean() < 0.02


def test_samples_follow_a_learned_law(curved):
    """Two-sample tests of each code, and of their products, against fresh rows of the law."""
    drawn, true = curved.sample(3000, random_state=0), curved_law(3000, 2)
    for function in (
        lambda z: z[:, 0],
        lambda z: z[:, 1],
        lambda z: z[:, 2],
        lambda z: z[:, 1] - np.sin(2 * z[:, 0]),
        lambda z: z[:, 2] - 0.5 * z[:, 0] * z[:, 1],
    ):
        assert stats.ks_2samp(function(drawn), function(true)).statistic < 0.05


def test_one_gaussian_for_each_conditional_is_the_gaussian_fit(gaussian):
    """Trained on Gaussian rows: scores are those of the sample mean and covariance."""
    X, fresh = gaussian_law(6000, 0), gaussian_law(6000, 1)
    exact = gaussian_logs(fresh, X.mean(0), np.cov(X.T, bias=True))
    found = gaussian.score_samples(fresh)
    assert found.mean() == pytest.approx(exact.mean(), abs=0.01)
    assert np.quantile(np.abs(found - exact), 0.9) < 0.15


def test_triangular_map_starts_as_the_exact_gaussian():
    """N(0, I) of u = W z, times |W|, is N(0, S) of z; and W has its inverse."""
    covariance = GAUSSIAN_COVARIANCE
    z = np.random.default_rng(0).normal(size=(50, 3)).astype(np.float32)
    entry = TriangularMap(covariance)
    with torch.inference_mode():
        u = entry(torch.from_numpy(z))
        found = stats.norm.logpdf(u.numpy()).sum(1) + float(entry.log_det())
        back = entry.inverse(u).numpy()
        first = entry.inverse(u[:, :2]).numpy()
    np.testing.assert_allclose(found, gaussian_logs(z, np.zeros(3), covariance), atol=1e-3)
    np.testing.assert_allclose(back, z, atol=1e-4)
    np.testing.assert_allclose(first, z[:, :2], atol=1e-4)


def start(X, sample_weight=None, **params):
    """A model before it has learned anything."""
    model = lde(n_mixture=1, n_channels=64, max_iter=1, learning_rate_init=1e-12, **params)
    return model.fit(X, sample_weight=sample_weight)


def test_training_starts_near_the_gaussian_fit():
    """With the triangular map; without it correlations are not known, by nats."""
    X = gaussian_law(2000, 0)
    exact = gaussian_logs(X, X.mean(0), np.cov(X.T, bias=True)).mean()
    assert exact - 0.12 < start(X).score(X) <= exact + 1e-4
    assert start(X, input_transform=None).score(X) < exact - 0.6


def test_weights_count_from_the_start_on():
    """Means, units and the covariance of the Gaussian start are the weighted ones."""
    X = gaussian_law(2000, 0)
    weight = np.exp(X[:, 0] / 2)
    mean = np.average(X, axis=0, weights=weight)
    exact = gaussian_logs(X, mean, np.cov(X.T, aweights=weight, bias=True))
    found, average = start(X, weight), np.average(exact, weights=weight)
    assert average - 0.15 < found.score(X, sample_weight=weight) <= average + 1e-4
    assert start(X).score(X, sample_weight=weight) < average - 0.4


def test_rows_of_weight_zero_are_as_if_they_were_not_there():
    """Same bits."""
    X, more = skewed(100), skewed(30, seed=5) + 100
    weight = np.r_[np.ones(100), np.zeros(30)]
    model = lde().fit(np.concatenate([X, more]), sample_weight=weight)
    plain = lde().fit(X, sample_weight=np.ones(100))
    np.testing.assert_array_equal(model.score_samples(X), plain.score_samples(X))


# ------------------------------------------------------------------- what is wrapped

PAIRS = {
    "PCA": PCA(2),
    "KernelPCA": KernelPCA(2, kernel="rbf", gamma=0.01, fit_inverse_transform=True),
    "NMF": NMF(2, init="nndsvda", max_iter=2000, tol=1e-3),
    "Pipeline": Pipeline([("scale", StandardScaler()), ("pca", PCA(2))]),
    "Autoencoder": small_autoencoder(),
    "LinearAE": LinearAE(2),
}
every_pair = pytest.mark.parametrize("pair", PAIRS.values(), ids=PAIRS.keys())


@every_pair
def test_codes_are_the_autoencoders(pair):
    """transform, inverse_transform and names are those of a clone fitted by hand."""
    X = skewed(80, 4)
    by_hand = clone(pair).fit(X)
    model = lde(pair).fit(X)
    Z = by_hand.transform(X)
    np.testing.assert_allclose(model.transform(X), Z, rtol=1e-6, atol=1e-8)
    np.testing.assert_allclose(lde(pair).fit_transform(X), Z, rtol=1e-6, atol=1e-8)
    rows = by_hand.inverse_transform(Z)
    np.testing.assert_allclose(model.inverse_transform(Z), rows, rtol=1e-6, atol=1e-8)
    np.testing.assert_allclose(model.reconstruct(X), rows, rtol=1e-6, atol=1e-8)
    names = by_hand.get_feature_names_out()
    assert list(model.get_feature_names_out()) == list(names)
    assert model.n_components_ == 2
    assert model.n_features_in_ == 4
    assert model.sample(7, random_state=0).shape == (7, 4)
    assert model.sample_latent(7, random_state=0).shape == (7, 2)
    assert np.isfinite(model.score_samples(X)).all()


@every_pair
def test_what_is_given_is_never_fitted_or_changed(pair):
    """Only clones are: of the autoencoder, and of the density."""
    density = GaussianMixture(n_components=2)
    before = joblib.hash((pair, density))
    model = lde(pair, density=density).fit(skewed(80, 4))
    assert joblib.hash((pair, density)) == before
    assert model.autoencoder is pair
    assert model.density is density
    assert model.autoencoder_ is not pair
    assert model.density_ is not density
    with pytest.raises(NotFittedError):
        density.score_samples(np.zeros((2, 2)))


def test_score_kind_says_whether_codes_are_rows():
    """The attribute of the class, of an unfitted and of a fitted model."""
    X = skewed(60)
    assert LatentDensityEstimator.score_kind == "latent"
    for model, kind in [
        (lde(), "log_likelihood"),
        (lde(PCA(2)), "latent"),
        (lde(n_components=2), "latent"),
    ]:
        assert model.score_kind == kind
        assert model.fit(X).score_kind == kind


def test_without_an_autoencoder_codes_are_the_rows():
    """transform and its inverse give the rows, under their names; sample gives codes."""
    X = skewed(60)
    model = lde().fit(X)
    np.testing.assert_array_equal(model.transform(X), X)
    np.testing.assert_array_equal(model.inverse_transform(X), X)
    np.testing.assert_array_equal(model.score_codes(X), model.score_samples(X))
    drawn = model.sample_latent(5, random_state=3)
    np.testing.assert_array_equal(model.sample(5, random_state=3), drawn)
    assert model.autoencoder_ is None


def test_score_is_that_of_the_codes():
    """score_samples of rows is score_codes of their codes, and score its weighted mean."""
    X = skewed(60, 4)
    model = lde(PCA(2)).fit(X)
    scores = model.score_samples(X)
    np.testing.assert_array_equal(scores, model.score_codes(model.transform(X)))
    weight = np.arange(1.0, 61.0)
    assert model.score(X, sample_weight=weight) == pytest.approx(np.average(scores, weights=weight))


@pytest.mark.parametrize("kind", ["PCA", "Autoencoder", "Pipeline"])
def test_frozen_autoencoder_is_left_alone(kind):
    """The same object, the same bits."""
    X, others = skewed(80, 4), skewed(80, 4, seed=1)
    frozen = FrozenEstimator(clone(PAIRS[kind]).fit(X))
    before, codes = pickle.dumps(frozen), frozen.transform(others)
    model = lde(frozen).fit(others)
    assert model.autoencoder_ is frozen
    assert pickle.dumps(frozen) == before
    np.testing.assert_array_equal(model.transform(others), codes)
    assert np.isfinite(model.score(others))


def test_frozen_autoencoder_may_know_names():
    """Fitted on a data frame, it encodes the arrays of this one without a warning."""
    names = ["a", "b", "c", "d"]
    frame = pd.DataFrame(skewed(80, 4), columns=names)
    frozen = FrozenEstimator(PCA(2).fit(frame))
    for X in (frame, frame.to_numpy()):
        model = lde(frozen).fit(X)
        np.testing.assert_allclose(model.transform(X), frozen.transform(frame), rtol=1e-12)
        assert np.isfinite(model.score_samples(X)).all()
        assert np.shape(model.sample(3, random_state=0)) == (3, 4)


@pytest.mark.parametrize(
    ("pair", "found"),
    [
        (PCA(4), {"n_components": 2}),
        (make_pipeline(PCA(4), StandardScaler()), {"pca__n_components": 2}),
        (make_pipeline(PCA(4), PCA(3)), {"pca-1__n_components": 4, "pca-2__n_components": 2}),
    ],
    ids=["PCA", "one step", "two steps"],
)
def test_n_components_is_set_on_the_clone(pair, found):
    """On the last step of a pipeline that has one; the user's own keeps what it had."""
    X = skewed(60, 5)
    before = pair.get_params()
    model = lde(pair, 2).fit(X)
    assert model.transform(X).shape == (60, 2)
    assert model.n_components_ == 2
    params = model.autoencoder_.get_params()
    assert {name: params[name] for name in found} == found
    assert {name: pair.get_params()[name] for name in found} == {n: before[n] for n in found}


def test_n_components_alone_is_pca():
    """Codes are those of scikit-learn's PCA, but for signs."""
    X = skewed(60, 5)
    Z = PCA(2).fit_transform(X)
    np.testing.assert_allclose(np.abs(lde(n_components=2).fit_transform(X)), np.abs(Z), rtol=1e-6)


# ----------------------------------------------------------------------- errors


class NoInverse:
    def fit(self, X):
        return self

    def transform(self, X):
        return X


X_SMALL = skewed(60, 4)
BAD = {
    "frozen size": (
        {"autoencoder": FrozenEstimator(PCA(2).fit(X_SMALL)), "n_components": 2},
        "n_components=2 cannot be set.* frozen",
    ),
    "no size": (
        {"autoencoder": StandardScaler(), "n_components": 2},
        "n_components was set, but .*StandardScaler.* has no such parameter",
    ),
    "KernelPCA": ({"autoencoder": KernelPCA(2)}, "fit_inverse_transform=True"),
    "KernelPCA in a pipeline": (
        {"autoencoder": make_pipeline(StandardScaler(), KernelPCA(2))},
        "cannot decode",
    ),
    "no transform": ({"autoencoder": RandomForestRegressor()}, "fit, transform and"),
    "no inverse": ({"autoencoder": NoInverse()}, "inverse_transform"),
    "class": ({"autoencoder": PCA}, "given a class"),
    "string": ({"autoencoder": "pca"}, "autoencoder='pca' must be an estimator"),
    "VQVAE": (
        {"autoencoder": VQVAE(n_codes=4, hidden_layer_sizes=(4,), max_iter=1, device="cpu")},
        "VQVAE has its own prior",
    ),
    "density by name": ({"density": "gaussian"}, "density='gaussian' must be one of"),
    "density of numbers": ({"density": 3}, "density=3 must be one of"),
    "density is none": ({"density": None}, "density=None must be one of"),
    "density is a class": ({"density": GaussianMixture}, "density=.* must be one of"),
    "density has no score": ({"density": StandardScaler()}, "density=.* must be one of"),
    "mixture of none": ({"n_mixture": 0}, "n_mixture"),
    "no filter": ({"filter_size": 1}, "filter_size"),
    "dilations": ({"dilations": [1, 0]}, "dilations"),
    "transform": ({"input_transform": "square"}, "input_transform"),
    "averaging": ({"weight_averaging": 1.0}, "weight_averaging"),
}


@pytest.mark.parametrize(("params", "message"), BAD.values(), ids=BAD.keys())
def test_wrong_parameters_are_named(params, message):
    """In a message that says what was given; nothing is fitted."""
    model = lde(**params)
    before = fitted_state(model)
    with pytest.raises(ValueError, match=message):
        model.fit(X_SMALL)
    assert fitted_state(model) == before


@pytest.mark.parametrize(
    ("params", "message"),
    [
        ({"autoencoder": Autoencoder(2.5)}, "'n_components' parameter of Autoencoder"),
        ({"autoencoder": VAE(2, beta=-3.0)}, "'beta' parameter of VAE"),
        ({"autoencoder": Autoencoder(2, activation="relo")}, "'activation' parameter of Auto"),
        ({"autoencoder": PCA(2.5)}, "'n_components' parameter of PCA"),
        ({"autoencoder": make_pipeline(StandardScaler(), PCA(-1))}, "'n_components' parameter"),
        ({"density": GaussianMixture(n_components=0)}, "'n_components' parameter of Gaussian"),
        ({"density": KernelDensity(bandwidth=-1.0)}, "'bandwidth' parameter of KernelDensity"),
    ],
)
@pytest.mark.parametrize("streaming", [False, True])
def test_parameters_of_what_is_wrapped_are_validated(params, message, streaming):
    """As they are where it is fitted alone; nothing is fitted then."""
    model = lde(**params)
    if streaming and not hasattr(model, "partial_fit"):
        pytest.skip("has no partial_fit")
    before = fitted_state(model)
    with pytest.raises(ValueError, match=message):
        (model.partial_fit if streaming else model.fit)(X_SMALL)
    assert fitted_state(model) == before


UNUSED = {
    "own": (
        {"density": GaussianMixture(1), "n_mixture": 99, "solver": "muon", "early_stopping": True},
        r"GaussianMixture\(\) does not use n_mixture=99, solver='muon', early_stopping=True; leave "
        r"them at their defaults. Set parameters of the density itself\.$",
    ),
    "own, arrays": ({"density": KernelDensity(), "orderings": [[1, 0]]}, "does not use orderings"),
    "flow": ({"density": "flow", "dilations": [1]}, r"density='flow' does not use dilations=\[1\]"),
    "autoregressive": ({"n_transforms": 5}, "'autoregressive' does not use n_transforms=5"),
}


@pytest.mark.parametrize(("params", "message"), UNUSED.values(), ids=UNUSED.keys())
def test_parameters_that_a_density_does_not_use_are_named(params, message):
    """In an error, before anything is fitted; with their defaults the model is fitted."""
    model = LatentDensityEstimator(random_state=0, **params)
    if isinstance(model.density, str):
        model.set_params(max_iter=1)
    before = fitted_state(model)
    with pytest.raises(ValueError, match=message):
        model.fit(X_SMALL)
    assert fitted_state(model) == before
    unused = {name: value for name, value in params.items() if name != "density"}
    defaults = LatentDensityEstimator().get_params(deep=False)
    model.set_params(**{name: defaults[name] for name in unused}).fit(X_SMALL)


def test_parameters_that_ask_for_nothing_are_no_error():
    """By their values, whatever their types."""
    params = {"callbacks": [], "momentum": np.float32(0.9), "orderings": np.int64(1)}
    LatentDensityEstimator(density=GaussianMixture(), random_state=0, **params).fit(X_SMALL)


def test_unused_parameters_are_refused_in_a_stream_too():
    model = LatentDensityEstimator(random_state=0).partial_fit(X_SMALL)
    with pytest.raises(ValueError, match="does not use n_transforms=9"):
        model.set_params(n_transforms=9).partial_fit(X_SMALL)


class Interrupted(PCA):
    """A PCA that tells whether it would keep what an interrupted training has learned."""

    def fit(self, X, y=None):
        self.keeps_ = keeps_progress(self)
        return super().fit(X)

    def partial_fit(self, X, y=None):
        return self.fit(X)


class Keeping(KernelDensity):
    """Likewise a density."""

    def fit(self, X, y=None, sample_weight=None):
        self.keeps_ = keeps_progress(self)
        return super().fit(X, y, sample_weight)


class Asking(Callback):
    """Asks the same of the model itself, while its own network trains."""

    def on_epoch_begin(self, net, **_):
        self.answers = [*getattr(self, "answers", []), keeps_progress(self.model)]


def test_nothing_is_kept_of_an_interrupted_part():
    """Of two trainings, a first Ctrl-C is raised in both: neither is what the other began with."""
    model = lde(Interrupted(2), density=Keeping()).fit(X_SMALL)
    assert model.autoencoder_.keeps_ is model.density_.keeps_ is False
    asking = Asking()
    model = lde(Interrupted(2), callbacks=[asking])
    asking.model = model
    assert model.fit(X_SMALL).partial_fit(X_SMALL).autoencoder_.keeps_ is False
    assert asking.answers == [False] * 3
    assert keeps_progress(model)


def test_files_of_version_0_1_0_load_and_go_on():
    """They name no versions and no support, and their fingerprints are others."""
    saved = lde(small_autoencoder()).fit(X_SMALL)
    state = saved.__getstate__()
    stated = ("_skae_version", "_sklearn_version", "_skae_format")
    for name in (*stated, "support", "_support", "support_"):
        state.pop(name, None)
    settings = state.pop("_settings")
    state["_plan"] = {k: v for k, v in settings.items() if k != "support"}
    state["_plan"]["autoencoder"] = "of another version"
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        model = LatentDensityEstimator.__new__(LatentDensityEstimator)
        model.__setstate__(copy.deepcopy(state))
    np.testing.assert_array_equal(model.score_samples(X_SMALL), saved.score_samples(X_SMALL))
    assert model.partial_fit(X_SMALL).n_iter_ == saved.n_iter_ + 1


class Pressed(Callback):
    """Presses Ctrl-C at the start of the second epoch."""

    def on_epoch_begin(self, net, **_):
        if len(net.history) > 1:
            raise KeyboardInterrupt


@pytest.mark.parametrize("part", ["autoencoder", "density"])
def test_an_interrupted_fit_leaves_the_model_as_it_was(part):
    """Whichever of the two trains."""
    model = lde(small_autoencoder()).fit(X_SMALL)
    before = fitted_state(model)
    kept, pressed = model.get_params(deep=False), [Pressed()]
    if part == "density":
        model.set_params(callbacks=pressed)
    else:
        model.set_params(autoencoder=small_autoencoder(callbacks=pressed))
    with pytest.raises(KeyboardInterrupt):
        model.fit(X_SMALL)
    assert fitted_state(model.set_params(**kept)) == before


@pytest.mark.parametrize("kind", [small_autoencoder, lambda: small_adversarial(max_iter=2)])
@pytest.mark.parametrize("wrapped", [False, True])
def test_score_of_rows_that_are_all_alike(kind, wrapped):
    """They are likely, and more so than others; no code varies."""
    X = np.full((50, 4), 3.0)
    model = kind().fit(X)
    model = lde(FrozenEstimator(model), max_iter=1).fit(X) if wrapped else model
    same, other = model.data_score_samples(np.array([[3.0] * 4, [3.1] * 4]), n_draws=4)
    assert np.isfinite([same, other]).all()
    assert same > other


def test_a_density_that_takes_no_weights_is_named():
    """In an error: there is nothing else that they would count for."""
    model = lde(density=GaussianMixture(n_components=2))
    with pytest.raises(ValueError, match=r"density=GaussianMixture.* does not support weights"):
        model.fit(X_SMALL, sample_weight=np.ones(60))


@pytest.mark.parametrize("density", ["autoregressive", KernelDensity(bandwidth=0.5)])
def test_weights_count_for_the_density_where_the_autoencoder_takes_none(density):
    """PCA is fitted without, which a warning says; scores are those of its codes with weights."""
    weight = np.random.default_rng(0).uniform(0.1, 3, 60)
    model = lde(PCA(2), density=density)
    with pytest.warns(UserWarning, match=r"autoencoder=PCA.* does not support weights.*LinearAE"):
        model.fit(X_SMALL, sample_weight=weight)
    codes = PCA(2).fit_transform(X_SMALL)
    np.testing.assert_allclose(model.transform(X_SMALL), codes, rtol=1e-9)
    alone = lde(density=density).fit(codes, sample_weight=weight)
    np.testing.assert_allclose(model.score_codes(codes), alone.score_samples(codes), atol=1e-4)
    unweighted = lde(density=density).fit(codes)
    assert np.abs(model.score_codes(codes) - unweighted.score_samples(codes)).max() > 0.02


@pytest.mark.parametrize("pair", [None, LinearAE(2)], ids=["rows", "codes"])
def test_weights_reach_a_kernel_density(pair):
    """Scores are those of a KernelDensity that is fitted by hand on codes and weights."""
    weight = np.random.default_rng(0).uniform(0.1, 3, 60)
    model = lde(pair, density=KernelDensity(bandwidth=0.7)).fit(X_SMALL, sample_weight=weight)
    codes = X_SMALL
    if pair is not None:
        codes = clone(pair).fit(X_SMALL, sample_weight=weight).transform(X_SMALL)
    by_hand = KernelDensity(bandwidth=0.7).fit(codes, sample_weight=weight)
    np.testing.assert_allclose(
        model.score_samples(X_SMALL), by_hand.score_samples(codes), rtol=1e-9
    )
    unweighted = KernelDensity(bandwidth=0.7).fit(codes).score_samples(codes)
    assert np.abs(by_hand.score_samples(codes) - unweighted).max() > 0.1


@pytest.mark.parametrize(
    "density", ["flow", GaussianMixture(n_components=2)], ids=["flow", "GaussianMixture"]
)
def test_what_needs_conditionals_is_refused_by_others(density):
    """given is an error that names the density; gaussianize is not there."""
    model = lde(density=density).fit(X_SMALL)
    for method in (model.sample, model.sample_latent):
        with pytest.raises(ValueError, match="given needs density='autoregressive'"):
            method(3, given=[1.0])
    for name in ("gaussianize", "inverse_gaussianize"):
        assert not hasattr(model, name)
        assert "gaussianize needs density='autoregressive'" in why_missing(model, name)


@pytest.mark.parametrize(
    "given",
    [np.zeros((2, 1)), np.zeros(5), np.zeros((3, 5)), np.zeros((3, 1, 1)), [], [np.nan], ["a"]],
    ids=["rows", "many", "many in rows", "three axes", "none", "nan", "words"],
)
def test_given_of_a_wrong_kind_is_an_error(given):
    """Shapes other than (n_given,) and (n_samples, n_given), too many codes, no numbers."""
    model = lde(max_iter=1).fit(X_SMALL)
    with pytest.raises(ValueError):
        model.sample_latent(3, given=given)


def test_score_of_data_needs_what_explains_rows():
    """PCA, and no autoencoder at all, have no p(x|z); nor has a conditional VAE one of x alone."""
    for model in (lde(PCA(2)), lde(), lde(n_components=2), lde(VAE(2, conditional=True))):
        assert not hasattr(model, "data_score_samples")
        reason = why_missing(model, "data_score_samples")
        assert reason.startswith("data_score_samples needs an autoencoder with a likelihood p(x|z)")
    assert hasattr(lde(small_autoencoder()), "data_score_samples")
    assert hasattr(lde(FrozenEstimator(small_autoencoder())), "data_score_samples")


@pytest.mark.parametrize(
    "params",
    [{"autoencoder": PCA(2)}, {"density": GaussianMixture(n_components=2)}],
    ids=["autoencoder", "density"],
)
def test_streams_need_parts_that_can_go_on(params):
    """PCA cannot, nor a scikit-learn density: partial_fit is not there."""
    model = lde(**params)
    assert not hasattr(model, "partial_fit")
    assert "and an autoencoder that has partial_fit" in why_missing(model, "partial_fit")
    with pytest.raises(AttributeError, match=r"LinearAE.*IncrementalPCA.*FrozenEstimator.*given"):
        model.partial_fit(X_SMALL)
    for other in (lde(), lde(FrozenEstimator(PCA(2))), lde(small_autoencoder())):
        assert hasattr(other, "partial_fit")


def test_stray_columns_of_codes_are_an_error():
    """score_codes takes one column per code, inverse_gaussianize one per code that varies."""
    model = lde(PCA(2)).fit(X_SMALL)
    with pytest.raises(ValueError, match="one for each code"):
        model.score_codes(np.zeros((3, 4)))
    with pytest.raises(ValueError, match="inverse_gaussianize expects 2"):
        model.inverse_gaussianize(np.zeros((3, 4)))
    with pytest.raises(NotFittedError):
        lde().gaussianize(X_SMALL)


@pytest.mark.parametrize(
    "change",
    [
        {"density": "none"},
        {"autoencoder": KernelPCA(2)},
        {"density": GaussianMixture(n_components=100)},
        {"autoencoder": PCA(9)},
    ],
    ids=["density", "decoder", "too few rows", "too many codes"],
)
def test_a_fit_that_fails_leaves_the_model_as_it_was(change):
    """It scores and samples as before."""
    model = lde(PCA(2)).fit(X_SMALL)
    scores, before = model.score_samples(X_SMALL), fitted_state(model)
    kept = {name: getattr(model, name) for name in change}
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", "density=.* does not use", UserWarning)
        with pytest.raises(ValueError):
            model.set_params(**change).fit(X_SMALL)
    model.set_params(**kept)
    assert fitted_state(model) == before
    np.testing.assert_array_equal(model.score_samples(X_SMALL), scores)


# ------------------------------------------------------------- densities of scikit-learn


@every_wrapped
@pytest.mark.parametrize("pair", [None, PCA(2)], ids=["rows", "PCA"])
def test_wrapped_density_is_that_of_the_codes(params, pair):
    """Scores are those of the density fitted by hand, with the same seed; samples have shape."""
    density = clone(params["density"])
    if "random_state" in density.get_params():
        density.set_params(random_state=5)
    model = lde(pair, density=density).fit(X_SMALL)
    codes = X_SMALL if pair is None else PCA(2).fit_transform(X_SMALL)
    by_hand = clone(density).fit(codes)
    np.testing.assert_allclose(
        model.score_samples(X_SMALL), by_hand.score_samples(codes), rtol=1e-7, atol=1e-7
    )
    np.testing.assert_allclose(model.score_codes(codes), by_hand.score_samples(codes), rtol=1e-7)
    assert model.sample(11, random_state=0).shape == (11, 4)
    drawn = model.sample_latent(4000, random_state=0)
    assert drawn.shape == (4000, codes.shape[1])
    np.testing.assert_allclose(drawn.mean(0), codes.mean(0), atol=0.15 * codes.std())


@every_density
def test_everything_is_seeded(params):
    """Same seed, same fit and same samples; the global generators stay where they were."""
    before, torch_before = np.random.get_state()[1].copy(), torch.get_rng_state()  # noqa: NPY002
    first, second = (lde(PCA(2), **params).fit(X_SMALL) for _ in range(2))
    np.testing.assert_array_equal(first.score_samples(X_SMALL), second.score_samples(X_SMALL))
    one, two = (model.sample(20, random_state=1) for model in (first, second))
    np.testing.assert_array_equal(one, two)
    assert not np.array_equal(one, first.sample(20, random_state=2))
    assert not np.array_equal(first.sample(20), first.sample(20))
    np.testing.assert_array_equal(np.random.get_state()[1], before)  # noqa: NPY002
    assert torch.equal(torch.get_rng_state(), torch_before)


@every_network
def test_seeds_make_different_fits(params):
    """Other weights, other batches."""
    first, second = (lde(random_state=s, **params).fit(X_SMALL) for s in (0, 1))
    assert not np.array_equal(first.score_samples(X_SMALL), second.score_samples(X_SMALL))


def test_wrapped_parts_have_seeds_of_their_own_or_ours():
    """What the user set stays; what has none is given one that follows from random_state."""
    pair = make_pipeline(PCA(3, random_state=7), PCA(2))
    model = lde(pair, density=GaussianMixture(n_components=2)).fit(X_SMALL)
    params = model.autoencoder_.get_params()
    assert params["pca-1__random_state"] == 7
    assert isinstance(params["pca-2__random_state"], int)
    assert isinstance(model.density_.random_state, int)
    assert model.density.random_state is None
    assert pair.get_params()["pca-2__random_state"] is None
    again = lde(pair, density=GaussianMixture(n_components=2)).fit(X_SMALL)
    assert again.density_.random_state == model.density_.random_state
    other = lde(pair, density=GaussianMixture(n_components=2), random_state=1).fit(X_SMALL)
    assert other.density_.random_state != model.density_.random_state
    kept = lde(density=GaussianMixture(n_components=2, random_state=11)).fit(X_SMALL)
    assert kept.density_.random_state == 11


# ------------------------------------------------------------------ codes that stand still


def with_constants(dtype=np.float64):
    """Columns 1 and 3 do not vary."""
    X = skewed(120, 4)
    X[:, 1], X[:, 3] = 7.25, -1e6 / 3
    return X.astype(dtype)


@every_density
@pytest.mark.parametrize("dtype", [np.float64, np.float32], ids=["float64", "float32"])
def test_constant_codes_are_set_aside_and_put_back(params, dtype):
    """Scores are those of the other columns alone; samples have exactly the constants."""
    X = with_constants(dtype)
    model = lde(**params).fit(X)
    others = lde(**params).fit(X[:, [0, 2]])
    scores = model.score_samples(X)
    assert np.isfinite(scores).all()
    np.testing.assert_array_equal(scores, others.score_samples(X[:, [0, 2]]))
    drawn = model.sample(50, random_state=0)
    assert drawn.dtype == dtype
    np.testing.assert_array_equal(drawn[:, [1, 3]], X[:50, [1, 3]])
    np.testing.assert_array_equal(drawn[:, [0, 2]], others.sample(50, random_state=0))


def test_constant_codes_have_no_normal_numbers():
    """gaussianize has a column for each of the others, and its inverse puts constants back."""
    X = with_constants()
    model = lde().fit(X)
    U = model.gaussianize(X)
    assert U.shape == (120, 2)
    np.testing.assert_allclose(model.inverse_gaussianize(U), X, rtol=1e-9, atol=1e-5)
    given = model.sample_latent(5, given=X[:5, :2], random_state=0)
    np.testing.assert_allclose(given[:, [0, 1, 3]], X[:5, [0, 1, 3]], rtol=1e-6)


@every_density
def test_rows_that_are_all_alike_can_be_fitted(params):
    """Scores are finite, and samples are that row but for rounding."""
    X = np.tile([[2.0, -3.0]], (30, 1))
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", "Number of distinct clusters")
        model = lde(**params).fit(X)
    assert np.isfinite(model.score_samples(X)).all()
    if "density" not in params or isinstance(params["density"], str):
        np.testing.assert_allclose(model.sample(20, random_state=0), X[:20], rtol=1e-6)


# ---------------------------------------------------------------- samples and conditionals


def test_samples_have_the_moments_of_the_rows(gaussian):
    """Mean and covariance, of a model that was trained on Gaussian rows."""
    drawn = gaussian.sample(20_000, random_state=0)
    std = np.sqrt(np.diag(GAUSSIAN_COVARIANCE))
    np.testing.assert_allclose(drawn.mean(0) / std, GAUSSIAN_MEAN / std, atol=0.05)
    np.testing.assert_allclose(
        np.cov(drawn.T) / np.outer(std, std), GAUSSIAN_COVARIANCE / np.outer(std, std), atol=0.05
    )


@pytest.mark.parametrize("k", [1, 2])
@pytest.mark.parametrize("in_rows", [False, True], ids=["one", "one per row"])
def test_samples_given_the_first_codes(gaussian, k, in_rows):
    """They have these, and the conditional mean and covariance of the Gaussian law."""
    n = 8000
    first = np.array([2.5, -1.2])[:k]
    given = np.tile(first, (n, 1)) if in_rows else first
    drawn = gaussian.sample_latent(n, given=given, random_state=0)
    np.testing.assert_allclose(drawn[:, :k], np.tile(first, (n, 1)), rtol=1e-5)
    S, m = GAUSSIAN_COVARIANCE, GAUSSIAN_MEAN
    gain = S[k:, :k] @ np.linalg.inv(S[:k, :k])
    rest = S[k:, k:] - gain @ S[:k, k:]
    std = np.sqrt(np.diag(rest))
    mean = m[k:] + gain @ (first - m[:k])
    np.testing.assert_allclose(drawn[:, k:].mean(0) / std, mean / std, atol=0.08)
    found = np.cov(drawn[:, k:].T).reshape(rest.shape)
    np.testing.assert_allclose(found / np.outer(std, std), rest / np.outer(std, std), atol=0.08)


def test_each_row_is_given_its_own_codes(gaussian):
    """The regression of later codes on given ones is that of the Gaussian law."""
    first = np.random.default_rng(0).normal(1.0, 2.0, (8000, 1))
    drawn = gaussian.sample_latent(8000, given=first, random_state=0)
    slope = np.polyfit(first[:, 0], drawn[:, 1:], 1)[0]
    expected = GAUSSIAN_COVARIANCE[1:, 0] / GAUSSIAN_COVARIANCE[0, 0]
    np.testing.assert_allclose(slope, expected, atol=0.03)


def test_all_codes_may_be_given():
    """Then nothing is drawn; and decoded rows have the codes that were given."""
    X = skewed(100, 4)
    model = lde(PCA(3)).fit(X)
    codes = model.transform(X[:6])
    found = model.sample_latent(6, given=codes)
    np.testing.assert_allclose(found, codes, rtol=1e-4, atol=1e-4)
    rows = model.sample(6, given=codes[:, :2], random_state=0)
    np.testing.assert_allclose(model.transform(rows)[:, :2], codes[:, :2], rtol=1e-4, atol=1e-4)


def test_given_codes_do_not_depend_on_the_others(curved):
    """A bent conditional: z2 around sin 2 z1, and its spread, at a given z1."""
    for a in (-1.0, 0.7):
        b = curved.sample_latent(8000, given=[a], random_state=0)[:, 1]
        assert b.mean() == pytest.approx(np.sin(2 * a), abs=0.04)
        assert b.std() == pytest.approx(0.2 + 0.1 * a**2, rel=0.12)


# --------------------------------------------------------------------------- gaussianize


def test_normal_numbers_of_a_learned_law_are_normal(curved):
    """Each is N(0, 1) and none is correlated with another, on held-out rows; codes are not so."""
    X = curved_law(4000, 3)
    U = curved.gaussianize(X)
    assert U.dtype == np.float64
    for i in range(3):
        assert stats.kstest(U[:, i], "norm").pvalue > 1e-3
    for values in (U, U**2, np.abs(U)):
        assert np.abs(np.corrcoef(values.T) - np.eye(3)).max() < 0.06
    assert stats.kstest(X[:, 2], "norm").pvalue < 1e-6
    assert np.abs(np.corrcoef(X.T) - np.eye(3)).max() > 0.2


def test_gaussianize_has_an_inverse_on_draws(curved):
    """Rows to normal numbers and back, to 1e-5."""
    X = curved.sample(1000, random_state=0)
    np.testing.assert_allclose(curved.inverse_gaussianize(curved.gaussianize(X)), X, atol=1e-5)


def test_gaussianize_is_the_inverse_up_to_six_deviations(curved):
    """Normal numbers to rows and back, to 1e-5."""
    U = np.random.default_rng(0).uniform(-6, 6, (1000, 3))
    np.testing.assert_allclose(curved.gaussianize(curved.inverse_gaussianize(U)), U, atol=1e-5)


@pytest.mark.parametrize("pair", [None, PCA(2)], ids=["rows", "PCA"])
@pytest.mark.parametrize("transform", ["triangular", None], ids=["triangular", "untransformed"])
def test_gaussianize_has_an_inverse_for_every_kind(pair, transform):
    """Of codes in unlike units, with and without the triangular map."""
    X = skewed(200, 4)
    model = lde(pair, input_transform=transform, position_embedding=True, max_iter=5).fit(X)
    U = model.gaussianize(X)
    back = model.inverse_gaussianize(U)
    np.testing.assert_allclose(model.transform(back), model.transform(X), atol=1e-5)
    np.testing.assert_allclose(model.gaussianize(back), U, atol=1e-5)
    np.testing.assert_allclose(back, model.reconstruct(X), atol=1e-5)


def test_inverse_gaussianize_samples_the_model(curved):
    """Of draws from N(0, I) it makes draws from p(z)."""
    U = np.random.default_rng(0).normal(size=(3000, 3))
    drawn, other = curved.inverse_gaussianize(U), curved.sample(3000, random_state=1)
    for i in range(3):
        assert stats.ks_2samp(drawn[:, i], other[:, i]).statistic < 0.05


def test_normal_number_of_one_code_is_by_quadrature():
    """Phi^-1 of the integral of the density up to there."""
    X = skewed(400, 1)
    model = lde(max_iter=20).fit(X)
    axis = np.linspace(X.mean() - 12 * X.std(), X.mean() + 12 * X.std(), 40_001)
    p = np.exp(model.score_samples(axis[:, None]))
    below = integrate.cumulative_trapezoid(p, axis, initial=0)
    some = np.interp([0.001, 0.02, 0.3, 0.5, 0.9, 0.999], below, axis)
    expected = special.ndtri(np.interp(some, axis, below))
    np.testing.assert_allclose(model.gaussianize(some[:, None])[:, 0], expected, atol=1e-3)


@pytest.mark.parametrize(
    "params",
    [{}, {"input_transform": None}, {"weight_averaging": 0.9}],
    ids=["triangular", "untransformed", "averaged"],
)
def test_gaussianize_is_a_change_of_variables(params):
    """log p(x) = log N(u; 0, I) + log |det du/dx|, of finite differences; it is triangular."""
    X = skewed(200, 3)
    model = lde(max_iter=10, **params).fit(X)
    for x in X[:8]:
        step = 1e-5 * np.diag(X.std(0))
        moved = model.gaussianize(np.concatenate([x + step, x - step]))
        jacobian = (moved[:3] - moved[3:]).T / (2 * np.diag(step))
        np.testing.assert_allclose(np.triu(jacobian, 1), 0, atol=1e-8)
        found = stats.norm.logpdf(model.gaussianize(x[None])).sum()
        found += np.linalg.slogdet(jacobian)[1]
        assert model.score_samples(x[None])[0] == pytest.approx(found, abs=2e-3)


# ------------------------------------------------------------------- scores of the data


def factor_rows(n_rows, seed=0):
    """Two Gaussian factors of four features under noise of deviation 0.6."""
    rng = np.random.default_rng(seed)
    loads = np.array([[1.5, 0.5, -1.0, 0.8], [0.3, 1.2, 0.9, -0.7]])
    return rng.normal(size=(n_rows, 2)) @ loads + 0.6 * rng.normal(size=(n_rows, 4)) + 1.0


def linear_autoencoder(**params):
    return small_autoencoder(
        hidden_layer_sizes=(),
        activation="identity",
        alpha=0.0,
        learning_rate="cosine",
        learning_rate_init=2e-2,
        max_iter=20,
        init="random",
        **params,
    )


@pytest.fixture(scope="module")
def linear():
    """An autoencoder without hidden layers."""
    return linear_autoencoder().fit(factor_rows(2000))


def log_p_by_quadrature(model, X, log_prior, center, std, n_points=121, reach=6.5):
    """log of the integral of p(z) N(x; decoded z, noise), by a sum over a grid of codes."""
    axis = np.linspace(-reach, reach, n_points)
    Z = np.stack(np.meshgrid(*[axis] * len(std), indexing="ij"), -1).reshape(-1, len(std))
    Z = (Z * std + center).astype(np.float64)
    noise = np.broadcast_to(model.noise_variance_, X.shape[1])
    weighted, means = X / np.sqrt(noise), model.inverse_transform(Z) / np.sqrt(noise)
    distance = (weighted**2).sum(1)[:, None] - 2 * weighted @ means.T + (means**2).sum(1)
    logs = log_prior(Z) - 0.5 * distance
    constant = -0.5 * np.log(2 * np.pi * noise).sum() + np.log((axis[1] - axis[0]) * std).sum()
    return special.logsumexp(logs, axis=1) + constant


def assert_bounds_data(found, exact, slack):
    """Below the exact log p(x), but for the luck of the draws, and close to it."""
    lost = exact - found
    assert np.isfinite(found).all()
    assert -0.02 < lost.mean() < slack
    assert np.quantile(lost, 0.02) > -0.45


def exact_log_p(model, X):
    """With Gaussian codes and a linear decoder: N(decoded mean, W S W' + noise)."""
    decoded = model.inverse_transform(np.r_[np.eye(2), np.zeros((1, 2)), [model.code_mean_]])
    W = (decoded[:2] - decoded[2]).astype(np.float64)
    covariance = W.T @ model.code_covariance_ @ W + model.noise_variance_ * np.eye(4)
    return gaussian_logs(X, decoded[3], covariance)


def test_score_of_a_linear_autoencoders_data_is_in_closed_form(linear):
    """A bound on the log density of a Gaussian, of which PPCA is the one of most likelihood."""
    X, fresh = factor_rows(2000), factor_rows(400, seed=1)
    assert_bounds_data(linear.data_score_samples(fresh), exact_log_p(linear, fresh), 0.05)
    best = PPCA(2).fit(X).score(X)
    assert best - 0.4 < exact_log_p(linear, X).mean() <= best + 1e-4


def test_more_draws_are_never_worse_on_average():
    """Over rows and seeds, and no number of draws exceeds the exact log p(x)."""
    X, fresh = factor_rows(2000), factor_rows(400, seed=1)
    lost = []
    for seed in range(4):
        model = linear_autoencoder(random_state=seed).fit(X)
        scores = [model.data_score_samples(fresh, n_draws=n).mean() for n in (1, 4, 16, 64, 256)]
        lost.append(exact_log_p(model, fresh).mean() - scores)
    lost = np.mean(lost, axis=0)
    assert np.diff(lost).max() < 0.02
    assert lost.min() > -0.03
    assert lost[0] > 0.3 > 0.05 > lost[-1]


def test_score_of_data_is_comparable_with_probabilistic_pca(linear):
    """On Gaussian rows PPCA is the best, and others are near it; scores of codes are not."""
    X = factor_rows(2000)
    model = lde(FrozenEstimator(linear), max_iter=8).fit(X)
    best = PPCA(2).fit(X).score(X[:400])
    for estimator in (linear, model):
        assert best - 0.4 < estimator.data_score_samples(X[:400]).mean() < best + 0.03
    assert abs(model.score(X[:400]) - best) > 0.5


@pytest.mark.parametrize(
    "params",
    [{}, {"density": "flow"}, {"density": GaussianMixture(n_components=2)}],
    ids=["autoregressive", "flow", "GaussianMixture"],
)
def test_score_of_data_by_quadrature_over_codes(linear, params):
    """log p(x) of a learned p(z), by a sum over a grid of codes."""
    model = lde(FrozenEstimator(linear), max_iter=5, **params).fit(factor_rows(600))
    X = factor_rows(200, seed=1)
    exact = log_p_by_quadrature(
        linear, X, model.score_codes, linear.code_mean_, np.sqrt(np.diag(linear.code_covariance_))
    )
    assert_bounds_data(model.data_score_samples(X), exact, 0.06)


def bent_rows(n_rows, seed=0):
    """Three features around a curved line."""
    rng = np.random.default_rng(seed)
    t = rng.normal(size=(n_rows, 1))
    return np.concatenate([t, np.sin(2 * t), t**2], 1) + 0.3 * rng.normal(size=(n_rows, 3))


def test_score_of_bent_data_by_quadrature():
    """One code, a decoder with a hidden layer, and a noise for each feature."""
    options = {"init": "random", "max_iter": 20, "learning_rate_init": 0.01}
    pair = small_autoencoder(1, noise_variance="per_feature", **options)
    model = lde(pair, max_iter=10).fit(bent_rows(800))
    X, codes = bent_rows(200, seed=1), model.transform(bent_rows(800))
    own = model.autoencoder_
    center, std = codes.mean(0), codes.std(0)
    exact = log_p_by_quadrature(own, X, model.score_codes, center, std, 2001)
    assert_bounds_data(model.data_score_samples(X), exact, 0.06)
    # The Autoencoder alone has a Gaussian of codes.
    gaussian = stats.norm(own.code_mean_[0], np.sqrt(own.code_covariance_[0, 0]))
    exact = log_p_by_quadrature(own, X, lambda Z: gaussian.logpdf(Z[:, 0]), center, std, 2001)
    assert_bounds_data(own.data_score_samples(X), exact, 0.06)


def small_adversarial(**params):
    defaults = {
        "hidden_layer_sizes": (6,),
        "discriminator_layer_sizes": (6,),
        "max_iter": 10,
        "learning_rate_init": 0.01,
        "init": "random",
        "random_state": 0,
        "device": "cpu",
    }
    return AdversarialAE(2, **{**defaults, **params})


MEANS = [[-2.0, -1.0], [2.0, 0.0], [0.0, 2.0]]


@pytest.mark.parametrize("prior", ["gaussian", "mixture"])
def test_score_of_an_adversarial_autoencoders_data_by_quadrature(prior):
    """Its p(z) is the prior: N(0, s²I), or the mean of N(m, s²I) over the means."""
    model = small_adversarial(prior=prior, prior_means=MEANS, prior_scale=1.5)
    model.fit(factor_rows(800))
    X = factor_rows(200, seed=1)
    means = np.array(MEANS if prior == "mixture" else [[0.0, 0.0]])

    def log_prior(Z):
        logs = stats.norm.logpdf(Z[:, None], means, 1.5).sum(-1)
        return special.logsumexp(logs, axis=1) - np.log(len(means))

    exact = log_p_by_quadrature(model, X, log_prior, np.zeros(2), np.full(2, 1.5))
    assert_bounds_data(model.data_score_samples(X, n_draws=1024), exact, 0.15)


def test_score_of_data_needs_a_prior_with_a_density():
    """Swiss rolls and what is called have none; inside an estimator of codes they need none."""
    X = factor_rows(200)
    for prior in ("swiss_roll", lambda n: np.zeros((n, 2))):
        model = small_adversarial(prior=prior, max_iter=1)
        assert not hasattr(model, "data_score_samples")
        reason = why_missing(model, "data_score_samples")
        assert "data_score_samples needs a prior with a known density" in reason
    assert hasattr(small_adversarial(prior="mixture"), "data_score_samples")
    model = lde(small_adversarial(prior="swiss_roll", max_iter=1)).fit(X)
    assert np.isfinite(model.data_score_samples(X[:20], n_draws=8)).all()


def test_score_of_data_of_a_variational_autoencoder():
    """Its own p(x|z) under the learned p(z), by a sum over a grid of codes."""
    pair = VAE(
        2,
        hidden_layer_sizes=(6,),
        max_iter=15,
        learning_rate_init=0.01,
        random_state=0,
        device="cpu",
    )
    X, fresh = factor_rows(1000), factor_rows(200, seed=1)
    model = lde(pair, max_iter=5).fit(X)
    own, codes = model.autoencoder_, model.transform(X)
    exact = log_p_by_quadrature(own, fresh, model.score_codes, codes.mean(0), codes.std(0))
    assert_bounds_data(model.data_score_samples(fresh), exact, 0.1)


def test_score_of_data_does_not_depend_on_the_rows_beside(linear):
    """Nor on their number; and n_draws is a positive integer."""
    X = factor_rows(300, seed=1)
    model = lde(FrozenEstimator(linear)).fit(factor_rows(300))
    scores = model.data_score_samples(X, n_draws=8)
    np.testing.assert_array_equal(scores, model.data_score_samples(X, n_draws=8))
    np.testing.assert_allclose(model.data_score_samples(X[5:9], n_draws=8), scores[5:9], rtol=1e-4)
    for wrong in (0, -1, 1.5):
        with pytest.raises(ValueError, match="n_draws"):
            model.data_score_samples(X, n_draws=wrong)


# ----------------------------------------------------------------------- the engine


class Listener(Callback):
    """Counts epochs and batches, and keeps the rows that were held out."""

    def on_train_begin(self, net, **kwargs):
        self.n_epochs_, self.n_batches_, self.held_out_ = 0, 0, []

    def on_epoch_end(self, net, **kwargs):
        self.n_epochs_ += 1

    def on_batch_begin(self, net, batch, training, **kwargs):
        self.n_batches_ += training
        if not training and self.n_epochs_ == 0:
            self.held_out_.append(batch[0].numpy().copy())


def test_callbacks_hear_of_epochs_and_batches():
    """As many as there are: 130 rows in batches of 64."""
    listener = Listener()
    model = lde(max_iter=4, callbacks=[listener]).fit(skewed(130))
    assert listener.n_epochs_ == model.n_iter_ == len(model.history_) == 4
    assert listener.n_batches_ == 4 * 3
    assert listener.held_out_ == []


@pytest.mark.parametrize("density", ["autoregressive", "flow"])
def test_early_stopping_goes_back_to_the_best_epoch(density):
    """Held-out rows have its loss, in nats of standardised codes, under the final model."""
    X = skewed(120, 2)
    listener = Listener()
    model = lde(
        density=density,
        early_stopping=True,
        n_iter_no_change=3,
        max_iter=60,
        n_channels=32,
        batch_size=16,
        learning_rate_init=0.02,
        callbacks=[listener],
    ).fit(X)
    losses = [epoch["valid_loss"] for epoch in model.history_]
    assert model.n_iter_ < 60
    assert np.argmin(losses) < len(losses) - 1
    z = np.concatenate(listener.held_out_)
    assert len(z) == 12
    rows = z * X.std(0) + X.mean(0)
    found = -model.score(rows) - np.log(X.std(0)).sum()
    assert found == pytest.approx(min(losses), abs=1e-3)


def test_early_stopping_holds_out_no_rows_of_the_autoencoder():
    """PCA is that of all rows."""
    X = skewed(100, 4)
    model = lde(PCA(2), early_stopping=True).fit(X)
    np.testing.assert_allclose(model.transform(X), PCA(2).fit_transform(X), rtol=1e-9)
    assert "valid_loss" in model.history_[0]


def test_history_is_minus_the_mean_score_of_standardised_codes():
    """A learning rate of nothing: the loss of an epoch is the score of the rows, in its units."""
    X = skewed(128, 3)
    model = lde(max_iter=1, learning_rate_init=1e-12).fit(X)
    found = -model.score(X) - np.log(X.std(0)).sum()
    assert model.history_[0]["train_loss"] == pytest.approx(found, abs=1e-4)


@pytest.mark.parametrize("density", ["autoregressive", "flow"])
def test_warm_start_goes_on(density):
    """Two fits of two epochs are one of four; an autoencoder that does not go on is kept."""
    X = skewed(150, 4)
    model = lde(PCA(2), density=density, warm_start=True).fit(X)
    pair = model.autoencoder_
    model.fit(X)
    assert model.n_iter_ == len(model.history_) == 4
    assert model.autoencoder_ is pair
    whole = lde(PCA(2), density=density, max_iter=4).fit(X)
    np.testing.assert_allclose(model.score_samples(X), whole.score_samples(X), atol=1e-4)


def test_warm_start_goes_on_with_an_autoencoder_that_does():
    """The epochs of both add up; units of codes stay."""
    X = skewed(100, 4)
    model = lde(small_autoencoder(warm_start=True), warm_start=True).fit(X)
    before = model.autoencoder_
    codes = model.transform(X)
    model.fit(X)
    assert model.autoencoder_.n_iter_ == 6
    assert before.n_iter_ == 3
    assert model.n_iter_ == 4
    assert not np.array_equal(model.transform(X), codes)


def test_warm_start_goes_on_on_other_rows():
    """Mixtures that go on do, too; without warm_start nothing is kept."""
    X, more = skewed(100, 2), skewed(100, 2, seed=1)
    model = lde(warm_start=True).fit(X).fit(more)
    assert model.n_iter_ == 4
    np.testing.assert_array_equal(
        lde().fit(X).fit(more).score_samples(X), lde().fit(more).score_samples(X)
    )
    mixture = GaussianMixture(n_components=2, warm_start=True, random_state=0)
    wrapped = lde(density=mixture, warm_start=True).fit(X).fit(more)
    by_hand = clone(mixture).fit(X).fit(more)
    np.testing.assert_allclose(wrapped.score_samples(X), by_hand.score_samples(X), rtol=1e-9)


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("n_mixture", 5),
        ("n_channels", 4),
        ("filter_size", 3),
        ("dilations", [1]),
        ("position_embedding", True),
        ("input_transform", None),
        ("n_components", 1),
        ("autoencoder", PCA(2)),
    ],
)
def test_what_cannot_change_while_training_goes_on(name, value):
    """An error that names the parameter; the model stays as it was, and goes on without it."""
    X = skewed(100, 4)
    model = lde(PCA(3), warm_start=True).fit(X)
    scores, before = model.score_samples(X), getattr(model, name)
    with pytest.raises(ValueError, match=f"^{name}=.* cannot change while training continues"):
        model.set_params(**{name: value}).fit(X)
    model.set_params(**{name: before})
    np.testing.assert_array_equal(model.score_samples(X), scores)
    assert model.set_params(max_iter=1).fit(X).n_iter_ == 3


def test_the_kind_of_density_cannot_change_while_training_goes_on():
    X = skewed(100, 4)
    model = LatentDensityEstimator(PCA(3), max_iter=1, warm_start=True, random_state=0).fit(X)
    with pytest.raises(ValueError, match=r"^density='flow' cannot change while training continues"):
        model.set_params(density="flow").fit(X)


def test_a_model_that_went_on_knows_its_size():
    """Codes have names and can be decoded and scored, as after a first fit."""
    X = skewed(60, 4)
    model = lde(PCA(3), warm_start=True).fit(X).fit(X)
    assert model.n_components_ == 3
    assert len(model.get_feature_names_out()) == 3
    assert model.inverse_transform(model.transform(X)).shape == X.shape
    assert np.isfinite(model.score_codes(model.transform(X))).all()


def test_warm_start_needs_the_same_columns():
    """A number of features, or codes, that changed is an error."""
    model = lde(warm_start=True).fit(skewed(100, 4))
    with pytest.raises(ValueError, match="3 features, but training continues from a fit to 4"):
        model.fit(skewed(100, 3))


@pytest.mark.parametrize("kind", ["rows", "frozen", "Autoencoder"])
def test_stream_of_batches(kind):
    """Each call is an epoch; scores of later rows rise; a frozen autoencoder stays."""
    X = skewed(2000, 3)
    frozen = FrozenEstimator(PCA(2).fit(X))
    pair = {"rows": None, "frozen": frozen, "Autoencoder": small_autoencoder()}[kind]
    model = lde(pair)
    before = None if pair is None else joblib.hash(pair)
    for part in range(10):
        model.partial_fit(X[200 * part : 200 * part + 200])
        if part == 0:
            first = model.score(X)
    assert model.n_iter_ == 10
    assert before is None or joblib.hash(pair) == before
    assert model.sample(3, random_state=0).shape == (3, 3)
    if kind == "Autoencoder":
        assert model.autoencoder_.n_iter_ == 10
    else:
        assert model.score(X) > first + 0.02
    if kind == "frozen":
        assert model.autoencoder_ is frozen


def test_a_batch_that_fails_is_as_if_it_had_not_been_given():
    """Wrong columns, or weights below zero."""
    X = skewed(100, 3)
    model = lde().partial_fit(X)
    scores = model.score_samples(X)
    with pytest.raises(ValueError):
        model.partial_fit(X[:, :2])
    with pytest.raises(ValueError):
        model.partial_fit(X, sample_weight=-np.ones(100))
    np.testing.assert_array_equal(model.score_samples(X), scores)
    assert model.n_iter_ == 1


def test_average_of_one_step_is_that_step():
    """Scores and samples are those without averaging, bit for bit."""
    X = skewed(60, 3)
    plain, averaged = (lde(max_iter=1, weight_averaging=w).fit(X) for w in (0.0, 0.99))
    np.testing.assert_array_equal(averaged.score_samples(X), plain.score_samples(X))
    np.testing.assert_array_equal(
        averaged.sample(9, random_state=0), plain.sample(9, random_state=0)
    )


def test_average_of_weights_is_what_scores_and_samples():
    """It is smoother than steps of a high rate; draws follow the density that scores."""
    X, fresh = gaussian_law(1000, 0), gaussian_law(2000, 1)
    params = {"n_mixture": 1, "learning_rate_init": 0.05, "max_iter": 12, "batch_size": 32}
    plain, averaged = (lde(weight_averaging=w, **params).fit(X) for w in (0.0, 0.99))
    assert averaged.score(fresh) > plain.score(fresh) + 0.01
    np.testing.assert_array_equal(
        [epoch["train_loss"] for epoch in averaged.history_],
        [epoch["train_loss"] for epoch in plain.history_],
    )
    U = averaged.gaussianize(averaged.sample(3000, random_state=0))
    for i in range(3):
        assert stats.kstest(U[:, i], "norm").pvalue > 1e-3


@every_network
def test_bfloat16_learns_like_float32(params):
    """Scores, which are float32, differ by what rounding in training does."""
    X = skewed(500, 3)
    wide, narrow = (lde(precision=p, max_iter=6, **params).fit(X) for p in ("float32", "bfloat16"))
    assert narrow.score(X) == pytest.approx(wide.score(X), abs=0.1)
    assert np.isfinite(narrow.sample(3, random_state=0)).all()


SAVED = {**ALL, "averaged": {"weight_averaging": 0.9}, "positions": {"position_embedding": True}}


@pytest.mark.parametrize("pair", [None, PCA(2)], ids=["rows", "PCA"])
@pytest.mark.parametrize("params", SAVED.values(), ids=SAVED.keys())
def test_saved_models_are_the_same(params, pair, tmp_path):
    """After pickle and joblib: scores, samples, and a fit that goes on."""
    X = skewed(80, 3)
    model = lde(pair, **params).fit(X)
    joblib.dump(model, tmp_path / "model.joblib")
    others = [pickle.loads(pickle.dumps(model)), joblib.load(tmp_path / "model.joblib")]
    for other in others:
        assert repr(other.get_params()) == repr(model.get_params())
        np.testing.assert_array_equal(other.score_samples(X), model.score_samples(X))
        np.testing.assert_array_equal(
            other.sample(9, random_state=0), model.sample(9, random_state=0)
        )
        assert other.n_iter_ == model.n_iter_
    if hasattr(model, "gaussianize"):
        np.testing.assert_array_equal(others[0].gaussianize(X), model.gaussianize(X))
    if isinstance(params.get("density", ""), str):
        one, two = (m.set_params(warm_start=True).fit(X) for m in (model, others[0]))
        np.testing.assert_array_equal(one.score_samples(X), two.score_samples(X))


def test_saved_bounds_are_the_same(linear):
    """data_score_samples after pickle."""
    X = factor_rows(50, seed=1)
    model = lde(FrozenEstimator(linear)).fit(factor_rows(200))
    other = pickle.loads(pickle.dumps(model))
    np.testing.assert_array_equal(other.data_score_samples(X, 8), model.data_score_samples(X, 8))


def test_clone_has_the_parameters_and_nothing_fitted():
    """Also those of what is wrapped, which grid searches set."""
    model = lde(PCA(2), density=GaussianMixture(n_components=2)).fit(X_SMALL)
    copy = clone(model)
    assert repr(copy.get_params()) == repr(model.get_params())
    assert not [name for name in vars(copy) if name.endswith("_") and name[0] != "_"]
    with pytest.raises(NotFittedError):
        copy.score_samples(X_SMALL)
    copy.set_params(autoencoder__n_components=3, density__n_components=1).fit(X_SMALL)
    assert copy.n_components_ == 3
    assert copy.density_.n_components == 1
    assert model.autoencoder.n_components == 2


@pytest.mark.parametrize("name", ["lde__autoencoder__n_components", "lde__n_components"])
def test_grid_search_over_the_number_of_codes(name):
    """In a pipeline; scores are those of fits by hand on the same folds."""
    X = skewed(90, 4)
    pipeline = Pipeline([("scale", StandardScaler()), ("lde", lde(PCA(), max_iter=1))])
    folds = KFold(3)
    search = GridSearchCV(pipeline, {name: [1, 2]}, cv=folds).fit(X)
    by_hand = [
        np.mean(
            [
                clone(pipeline).set_params(**{name: k}).fit(X[train]).score(X[test])
                for train, test in folds.split(X)
            ]
        )
        for k in (1, 2)
    ]
    np.testing.assert_allclose(search.cv_results_["mean_test_score"], by_hand, rtol=1e-6)
    best = search.best_params_[name]
    assert best == 1 + int(np.argmax(by_hand))
    assert search.best_estimator_.named_steps["lde"].n_components_ == best


# ----------------------------------------------------------------- rows of every kind


@pytest.mark.parametrize("pair", [None, PCA(2), small_autoencoder()], ids=["rows", "PCA", "AE"])
def test_data_frames_in_and_out(pair):
    """Codes have the autoencoder's names, rows and samples those of the columns."""
    frame = pd.DataFrame(skewed(60, 3), columns=["a", "b", "c"])
    plain = lde(pair).fit(frame.to_numpy())
    model = lde(pair).set_output(transform="pandas").fit(frame)
    Z = model.transform(frame)
    names = list("abc") if pair is None else [f"{type(pair).__name__.lower()}{i}" for i in (0, 1)]
    assert list(Z.columns) == names == list(model.get_feature_names_out())
    np.testing.assert_allclose(Z.to_numpy(), plain.transform(frame.to_numpy()), rtol=1e-6)
    for rows in (
        model.inverse_transform(Z),
        model.reconstruct(frame),
        model.sample(4, random_state=0),
        model.interpolate(frame.iloc[0], frame.iloc[1], 4),
    ):
        assert list(rows.columns) == ["a", "b", "c"]
    np.testing.assert_allclose(
        model.score_samples(frame), plain.score_samples(frame.to_numpy()), rtol=1e-5
    )
    assert list(model.feature_names_in_) == ["a", "b", "c"]
    with pytest.raises(ValueError, match="feature names"):
        model.score_samples(frame[["b", "a", "c"]])


@every_density
def test_what_is_wrapped_may_return_data_frames(params):
    """By its own set_output, or by scikit-learn's configuration."""
    X = skewed(60, 3)
    frame = pd.DataFrame(X, columns=["a", "b", "c"])
    plain = lde(PCA(2), **params).fit(X).score_samples(X)
    own = lde(PCA(2).set_output(transform="pandas"), **params).fit(frame)
    np.testing.assert_allclose(own.score_samples(frame), plain, rtol=1e-6)
    assert isinstance(own.transform(frame), np.ndarray)
    with config_context(transform_output="pandas"):
        model = lde(PCA(2), **params).fit(frame)
        np.testing.assert_allclose(model.score_samples(frame), plain, rtol=1e-6)
        assert isinstance(model.transform(frame), pd.DataFrame)
        assert list(model.sample(2, random_state=0).columns) == ["a", "b", "c"]


@pytest.mark.parametrize(
    "pair", [PCA(2, svd_solver="arpack"), TruncatedSVD(2)], ids=["PCA", "TruncatedSVD"]
)
def test_sparse_rows_where_the_autoencoder_takes_them(pair):
    """Codes and scores are those of the same rows when dense."""
    X = skewed(60, 5) * (np.random.default_rng(1).random((60, 5)) < 0.4)
    by_hand = clone(pair).set_params(random_state=0).fit(X)
    model = lde(clone(pair).set_params(random_state=0)).fit(sparse.csr_array(X))
    codes = model.transform(sparse.csr_array(X))
    np.testing.assert_allclose(np.abs(codes), np.abs(by_hand.transform(X)), rtol=1e-5, atol=1e-8)
    np.testing.assert_allclose(
        model.score_samples(sparse.csr_array(X)), model.score_codes(codes), rtol=1e-6
    )
    with pytest.raises(TypeError, match="dense data is required"):
        lde().fit(sparse.csr_array(X))


@pytest.mark.parametrize("pair", [None, PCA(2)], ids=["rows", "PCA"])
def test_torch_tensors_are_rows(pair):
    """Scores are those of the same rows as an array."""
    X = skewed(60, 3)
    model, other = lde(pair).fit(X), lde(pair).fit(torch.from_numpy(X))
    np.testing.assert_array_equal(model.score_samples(X), other.score_samples(torch.from_numpy(X)))


@every_density
def test_scores_do_not_depend_on_the_rows_beside(params):
    """Nor on their number."""
    X = skewed(300, 3)
    model = lde(**params, max_iter=1).fit(X)
    scores = model.score_samples(X)
    np.testing.assert_allclose(
        np.concatenate([model.score_samples(X[:7]), model.score_samples(X[7:])]),
        scores,
        rtol=1e-6 if "divisive_normalization" in params else 1e-12,
    )


def test_line_between_two_rows():
    """Codes on it are those between the codes of its ends, decoded."""
    X = skewed(60, 4)
    model = lde(PCA(2)).fit(X)
    ends = model.transform(X[:2])
    line = ends[0] + np.linspace(0, 1, 5)[:, None] * (ends[1] - ends[0])
    np.testing.assert_allclose(
        model.interpolate(X[0], X[1], 5), model.inverse_transform(line), rtol=1e-9
    )


def test_gaussianized_path_is_a_line_of_normal_numbers(curved):
    """Between those of its ends; without conditionals there is none."""
    X = curved_law(2, 5)
    path = curved.interpolate(X[0], X[1], 5, path="gaussianized")
    np.testing.assert_allclose(path[[0, -1]], X, atol=1e-5)
    found, ends = curved.gaussianize(path), curved.gaussianize(X)
    line = ends[0] + np.linspace(0, 1, 5)[:, None] * (ends[1] - ends[0])
    np.testing.assert_allclose(found, line, atol=1e-4)
    with pytest.raises(ValueError, match=r"path='gaussianized'.*density='flow'"):
        lde(density="flow").fit(X.repeat(9, 0)).interpolate(X[0], X[1], path="gaussianized")
    with pytest.raises(ValueError, match="path"):
        curved.interpolate(X[0], X[1], path="straight")


def test_codes_of_normal_numbers():
    """They are what is decoded."""
    X = skewed(80, 4)
    model = lde(PCA(2)).fit(X)
    codes = model.inverse_gaussianize(model.gaussianize(X), decode=False)
    np.testing.assert_allclose(codes, model.transform(X), atol=1e-6)


# ------------------------------------------------------------------------- orderings


def test_orders_are_of_codes_by_their_number():
    """A constant code has a place in an order that is given, and none in the density."""
    X = np.insert(skewed(100, 3), 1, 7.0, axis=1)
    orders = [[0, 1, 2, 3], [3, 1, 2, 0]]
    model = lde(orderings=orders).fit(X)
    found = model.net_.module_.density.orders
    assert found.tolist() == [[0, 1, 2], [2, 1, 0]]
    drawn = model.sample(50, random_state=0)
    np.testing.assert_array_equal(drawn[:, 1], 7.0)


def test_numbered_orders_are_the_codes_own_its_reverse_and_others():
    """All of them permutations, the same for the same seed."""
    X = skewed(100, 5)
    found = [lde(orderings=4).fit(X).net_.module_.density.orders.numpy() for _ in range(2)]
    np.testing.assert_array_equal(found[0], found[1])
    np.testing.assert_array_equal(found[0][:2], [range(5), range(4, -1, -1)])
    np.testing.assert_array_equal(np.sort(found[0]), [range(5)] * 4)


@pytest.mark.parametrize(
    "orderings",
    [[[0, 1], [0, 1, 2]], [[0, 1, 1]], [0, 1, 2], [[1, 2, 3]], [[]], "reverse", [[0.5, 1, 2]]],
    ids=str,
)
def test_orders_that_are_none_are_refused(orderings):
    """By an error that names the parameter."""
    with pytest.raises(ValueError, match="orderings"):
        lde(orderings=orderings).fit(skewed(50, 3))


def test_orders_of_other_codes_are_refused():
    """By an error that says how many codes there are."""
    with pytest.raises(ValueError, match="permutations of 3 codes; given permutations of 2"):
        lde(orderings=[[1, 0]]).fit(skewed(50, 3))


def test_several_orders_have_no_conditionals():
    """Of codes given the first, or as normal numbers."""
    model = lde(orderings=2).fit(skewed(50, 3))
    assert "orderings=1" in why_missing(model, "gaussianize")
    with pytest.raises(ValueError, match="orderings=1"):
        model.sample(given=[1.0])


def test_divisive_normalization_finds_sizes_that_go_together():
    """A scale mixture, whose numbers are uncorrelated and as large as each other."""
    rng = np.random.default_rng(0)
    X, test = (np.exp(rng.normal(size=(n, 1))) * rng.normal(size=(n, 6)) for n in (3000, 3000))
    with_it, without = (
        learner(divisive_normalization=divisive, max_iter=4).fit(X).score(test)
        for divisive in (True, False)
    )
    assert with_it > without + 0.1


def test_targets_reach_an_autoencoder_that_needs_them():
    """As PLSRegression, which is not fitted without."""
    X = skewed(80, 4)
    y = X @ [1.0, -1.0, 0.5, 0.0]
    weight = np.arange(80) % 2
    model = lde(PLSRegression(2)).fit(X, y)
    np.testing.assert_allclose(model.transform(X), PLSRegression(2).fit(X, y).transform(X))
    with pytest.warns(UserWarning, match=r"sample_weight.*PLSRegression"):
        weighted = lde(PLSRegression(2)).fit(X, y, sample_weight=weight)
    by_hand = PLSRegression(2).fit(X[1::2], y[1::2])  # rows of weight zero are left out
    np.testing.assert_allclose(weighted.transform(X), by_hand.transform(X))
    with pytest.raises(ValueError, match=r"y must have one target for each .*shape \(79,\)"):
        lde(PLSRegression(2)).fit(X, y[:-1])


def test_noise_of_samples_is_the_autoencoders(linear):
    """Draws from p(x|z) differ from its means by the noise; those of PCA have none."""
    model = lde(FrozenEstimator(linear)).fit(factor_rows(300))
    drawn = model.sample(5000, random_state=0)
    means = model.sample(5000, noise=False, random_state=0)
    noise = (drawn - means).astype(np.float64)
    assert noise.var() == pytest.approx(linear.noise_variance_, rel=0.05)
    plain = lde(PCA(2)).fit(factor_rows(300))
    np.testing.assert_array_equal(
        plain.sample(5, random_state=0), plain.sample(5, noise=False, random_state=0)
    )


def test_training_goes_on_in_another_process_with_an_autoencoder_of_own_modules(tmp_path):
    X = make_rows(40, 5)
    own = own_networks(5)
    model = LatentDensityEstimator(
        Autoencoder(2, **own, max_iter=1, random_state=0), max_iter=1, warm_start=True
    ).fit(X)
    joblib.dump(model, tmp_path / "model")
    np.save(tmp_path / "rows", X)
    code = f"""
import joblib, numpy as np
model = joblib.load({str(tmp_path / "model")!r})
print(model.fit(np.load({str(tmp_path / "rows.npy")!r})).n_iter_)
"""
    done = subprocess.run(
        [sys.executable, "-W", "ignore", "-c", code],
        env=os.environ | {"PYTHONPATH": os.pathsep.join(sys.path)},
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    assert done.stdout.split() == ["2"]


def test_far_codes_that_are_given():
    """Nothing warns, and rows are finite."""
    X = np.random.default_rng(0).normal(size=(30, 3))
    model = LatentDensityEstimator(max_iter=2, n_channels=4, n_mixture=2, random_state=0).fit(X)
    assert np.isfinite(model.sample(2, given=[1e300])).all()
    assert np.isfinite(model.inverse_gaussianize(np.full((2, 3), 1e300))).all()
    np.testing.assert_array_equal(
        model.inverse_gaussianize(X[::-1]), model.inverse_gaussianize(X[::-1].copy())
    )
    with pytest.raises(ValueError, match="given"):
        model.sample(2, given=["a"])
    few = LatentDensityEstimator(max_iter=2, n_channels=4, n_mixture=2, random_state=0)
    few.fit(np.full((20, 2), 3.0) + 1e-12 * X[:20, :2])  # a tiny scale
    assert np.isfinite(few.gaussianize(np.full((2, 2), 1e300))).all()


def test_callbacks_that_are_none_are_refused_within_a_stream():
    X = make_rows(20, 4)
    model = LatentDensityEstimator(max_iter=1, n_channels=4, n_mixture=2, random_state=0)
    model.partial_fit(X)
    with pytest.raises((TypeError, ValueError), match="callbacks"):
        model.set_params(callbacks=[object()]).partial_fit(X)


def test_filter_beyond_all_memory_is_a_memory_error_at_once():
    model = LatentDensityEstimator(filter_size=10**30, dilations=(1,), n_channels=4, max_iter=1)
    with pytest.raises(MemoryError, match=r"Estimator\.fit is out of memory"):
        model.fit(make_rows(20, 4))
