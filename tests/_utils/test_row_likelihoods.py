"""The scorer of log-likelihoods, against quadrature in the units of the rows."""

import numpy as np
import pandas as pd
import pytest
from scipy import sparse, stats
from sklearn.datasets import load_digits
from sklearn.decomposition import PCA, FactorAnalysis, IncrementalPCA
from sklearn.frozen import FrozenEstimator
from sklearn.impute import SimpleImputer
from sklearn.mixture import GaussianMixture
from sklearn.neighbors import KernelDensity
from sklearn.pipeline import Pipeline, make_pipeline
from sklearn.preprocessing import (
    FunctionTransformer,
    MaxAbsScaler,
    MinMaxScaler,
    PowerTransformer,
    RobustScaler,
    StandardScaler,
)

from skae import (
    PPCA,
    VAE,
    VQVAE,
    AdversarialAE,
    Autoencoder,
    CountMixtureAE,
    Ensemble,
    HelmholtzMachine,
    LatentDensityEstimator,
    LinearAE,
)
from skae._utils.row_likelihoods import row_log_likelihoods
from skae.metrics import log_likelihood_scorer

RNG = np.random.default_rng(0)
X = RNG.multivariate_normal([3.0, -40.0], [[1.0, 6.0], [6.0, 100.0]], 200)
QUICK = {"max_iter": 2, "random_state": 0}

SCALERS = {
    "standard": StandardScaler(),
    "mean only": StandardScaler(with_std=False),
    "minmax": MinMaxScaler(feature_range=(-2, 3)),
    "maxabs": MaxAbsScaler(),
    "robust": RobustScaler(unit_variance=True),
    "robust, unscaled": RobustScaler(with_scaling=False),
    "passthrough": "passthrough",
    "identity": FunctionTransformer(),
    "two": make_pipeline(StandardScaler(), MinMaxScaler()),
    "frozen": FrozenEstimator(StandardScaler().fit(X)),
    "imputer": SimpleImputer(),
}
DENSITIES = {
    "PPCA": PPCA(1),
    "PCA": PCA(1),
    "GaussianMixture": GaussianMixture(2, random_state=0),
}


@pytest.mark.parametrize("scaler", SCALERS)
@pytest.mark.parametrize("density", DENSITIES)
def test_densities_behind_scalers_integrate_to_one_in_units_of_the_rows(scaler, density):
    model = Pipeline([("scale", SCALERS[scaler]), ("density", DENSITIES[density])]).fit(X)
    x, dx = np.linspace(-2.5, 8.5, 45, retstep=True)
    y, dy = np.linspace(-95, 15, 45, retstep=True)
    grid = np.stack(np.meshgrid(x, y), axis=-1).reshape(-1, 2)
    assert np.exp(row_log_likelihoods(model, grid)).sum() * dx * dy == pytest.approx(1, abs=0.01)


def test_observed_values_alone_count_in_rows_with_missing_values():
    """p(x_2) is a density of x_2, whatever the scale of x_1."""
    model = make_pipeline(StandardScaler(), PPCA(1)).fit(X)
    y, dy = np.linspace(-95, 15, 400, retstep=True)
    rows = np.column_stack([np.full_like(y, np.nan), y])
    assert np.exp(row_log_likelihoods(model, rows)).sum() * dy == pytest.approx(1, abs=1e-3)


def test_the_score_is_the_mean_over_weighted_rows():
    """A Gaussian with full covariance behind a scaler is the same Gaussian, by SciPy."""
    weights = np.arange(200) % 3
    truth = stats.multivariate_normal(X.mean(0), np.cov(X.T, bias=True)).logpdf(X)
    full = GaussianMixture(1, reg_covar=0)
    for model in (full, make_pipeline(RobustScaler(), full)):
        model.fit(X)
        assert log_likelihood_scorer(model, X) == pytest.approx(truth.mean())
        expected = np.average(truth, weights=weights)
        assert log_likelihood_scorer(model, X, None, weights) == pytest.approx(expected)


ALLOWED = {
    "LinearAE": LinearAE(1),
    "PPCA": PPCA(1),
    "VAE": VAE(1, **QUICK),
    "VQVAE": VQVAE(1, n_codes=4, **QUICK),
    "CountMixtureAE": CountMixtureAE(2, random_state=0),
    "HelmholtzMachine": HelmholtzMachine(2, **QUICK),
    "LatentDensityEstimator": LatentDensityEstimator(None, **QUICK),
    "Ensemble": Ensemble(PPCA(1), 2, random_state=0),
    "PCA": PCA(1),
    "FactorAnalysis": FactorAnalysis(1),
    "KernelDensity": KernelDensity(),
}


@pytest.mark.filterwarnings("ignore::sklearn.exceptions.ConvergenceWarning")
@pytest.mark.parametrize("name", ALLOWED)
def test_log_likelihoods_and_bounds_are_their_means(name):
    model = ALLOWED[name].fit(X)
    expected = np.mean(model.score_samples(X))
    assert log_likelihood_scorer(model, X) == pytest.approx(expected, rel=1e-6)
    scaled = make_pipeline(FunctionTransformer(), MinMaxScaler(), model).fit(X)
    inner = np.mean(scaled[-1].score_samples(MinMaxScaler().fit_transform(X)))
    volume = np.log(np.ptp(X, axis=0)).sum()
    assert log_likelihood_scorer(scaled, X) == pytest.approx(inner - volume, rel=1e-5)


def test_sparse_rows():
    rows = np.where(load_digits().data[:, :20] > 4, 1.0, 0.0) + np.eye(20)[np.arange(1797) % 20]
    dense = log_likelihood_scorer(make_pipeline(MaxAbsScaler(), PPCA(2)).fit(rows), rows)
    some = sparse.csr_array(rows)
    score = log_likelihood_scorer(make_pipeline(MaxAbsScaler(), PPCA(2)).fit(some), some)
    assert score == pytest.approx(dense, rel=1e-8)


REFUSED = {
    r"score_kind of Autoencoder is 'reconstruction'.*data_score_samples": Autoencoder(1, **QUICK),
    r"score_kind of AdversarialAE is 'reconstruction'": AdversarialAE(1, **QUICK),
    r"score_kind of LatentDensityEstimator is 'latent': its scores are log p\(z\)": (
        LatentDensityEstimator(PCA(1), **QUICK)
    ),
    r"IncrementalPCA has no score_kind": IncrementalPCA(1),
    r"Ensemble is 'reconstruction'": Ensemble(Autoencoder(1, **QUICK), 2),
    r"members of Ensemble are Pipelines": Ensemble(make_pipeline(StandardScaler(), PPCA(1)), 2),
    r"Step 'powertransformer' \(PowerTransformer\)": make_pipeline(PowerTransformer(), PPCA(1)),
    r"Step 'pca' \(PCA\) of the Pipeline does not only shift": make_pipeline(PCA(2), PPCA(1)),
    r"'pipeline__pca' \(PCA\)": make_pipeline(make_pipeline(PCA(2)), PPCA(1)),
    r"'minmaxscaler' \(MinMaxScaler\) of the Pipeline has clip=True": make_pipeline(
        MinMaxScaler(clip=True), PPCA(1)
    ),
    r"All steps of the Pipeline": Pipeline([("none", None)]),
}


@pytest.mark.filterwarnings("ignore::sklearn.exceptions.ConvergenceWarning")
@pytest.mark.parametrize("message", REFUSED)
def test_other_scores_are_refused(message):
    model = REFUSED[message].fit(X)
    with pytest.raises(ValueError, match=message):
        log_likelihood_scorer(model, X)


def test_no_method_is_named_that_a_model_lacks():
    lde = LatentDensityEstimator(PCA(1), **QUICK).fit(X)
    with pytest.raises(ValueError, match="'latent'") as caught:
        log_likelihood_scorer(lde, X)
    assert ("data_score_samples" in str(caught.value)) == hasattr(lde, "data_score_samples")


def test_imputed_values_are_no_data():
    holes = X.copy()
    holes[::5, 0] = np.nan
    model = make_pipeline(SimpleImputer(), PPCA(1)).fit(holes)
    with pytest.raises(ValueError, match=r"fills in missing values.*such as PPCA or VAE"):
        log_likelihood_scorer(model, holes)
    assert np.isfinite(log_likelihood_scorer(model, X))


def test_conditional_models_are_scored_without_targets():
    y = (X[:, 0] > 3).astype(int)
    vae = VAE(1, conditional=True, **QUICK).fit(X, y)
    expected = vae.score_samples(X).mean()
    assert log_likelihood_scorer(vae, X, y) == pytest.approx(expected, rel=1e-6)
    assert log_likelihood_scorer(vae, X, y) != pytest.approx(vae.score(X, y), rel=1e-6)
    on_numbers = VAE(1, conditional=True, **QUICK).fit(X, X[:, 0])
    with pytest.raises(ValueError, match=r"conditional on numbers.*log p\(x\|y\)"):
        log_likelihood_scorer(on_numbers, X, X[:, 0])


@pytest.mark.filterwarnings("ignore::sklearn.exceptions.ConvergenceWarning")
def test_probabilities_do_not_change_with_units():
    bits = (RNG.random((100, 4)) < 0.5).astype(float)
    vae = VAE(1, likelihood="bernoulli", **QUICK)
    scaled = make_pipeline(MinMaxScaler(), vae).fit(3 * bits)
    expected = scaled[-1].score(bits)
    assert log_likelihood_scorer(scaled, 3 * bits) == pytest.approx(expected, rel=1e-6)
    grey = np.clip(bits, 0.1, 0.9)
    with pytest.raises(ValueError, match=r"between 0 and 1, and VAE has likelihood='bernoulli'"):
        log_likelihood_scorer(vae.fit(grey), grey)


@pytest.mark.filterwarnings("ignore::sklearn.exceptions.ConvergenceWarning")
def test_columns_with_densities_alone_have_units():
    frame = pd.DataFrame({"a": X[:, 0], "n": RNG.poisson(3, 200)})
    kinds = {0: "gaussian", 1: "poisson"}
    vae = VAE(1, likelihood=kinds, **QUICK)
    scale = FrozenEstimator(StandardScaler(with_mean=False).fit([[0.0, 0.0], [2.0, 2.0]]))
    assert list(scale.scale_) == [1, 1]
    half = FrozenEstimator(MaxAbsScaler().fit([[2.0, 0.5]]))
    model = make_pipeline(half, vae).fit(frame.to_numpy(float) * [2.0, 0.5])
    rows = frame.to_numpy(float)
    inner = model[-1].score(rows)
    score = log_likelihood_scorer(model, rows * [2.0, 0.5])
    assert score == pytest.approx(inner - np.log(2), rel=1e-6)
