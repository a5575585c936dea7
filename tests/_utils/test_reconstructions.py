"""Scorers by reconstructions, against scikit-learn and loops over observed values."""

import numpy as np
import pandas as pd
import polars as pl
import pytest
from scipy import sparse
from sklearn.compose import ColumnTransformer
from sklearn.datasets import load_iris
from sklearn.decomposition import NMF, PCA, KernelPCA, TruncatedSVD
from sklearn.frozen import FrozenEstimator
from sklearn.impute import KNNImputer, SimpleImputer
from sklearn.linear_model import LogisticRegression
from sklearn.metrics import mean_squared_error, r2_score
from sklearn.model_selection import GridSearchCV
from sklearn.pipeline import Pipeline, make_pipeline
from sklearn.preprocessing import FunctionTransformer, PowerTransformer, StandardScaler

from skae import (
    PPCA,
    VAE,
    VQVAE,
    Autoencoder,
    Ensemble,
    LatentDensityEstimator,
    LinearAE,
    PPCAImputer,
)
from skae.metrics import (
    explained_variance_scorer,
    reconstruction_error,
    reconstruction_error_scorer,
)

X, Y = load_iris(return_X_y=True)
TRAIN, TEST = X[::2], X[1::2]
QUICK = {"max_iter": 2, "random_state": 0}


def with_holes(X, share=0.2):
    X = np.array(X)
    X[np.random.default_rng(0).random(X.shape) < share] = np.nan
    return X


def error_by_loop(X, found, weights):
    """Weighted mean over rows of the sum of the squared errors of observed values."""
    total = 0.0
    for row, other, weight in zip(X, found, weights, strict=True):
        total += weight * sum((a - b) ** 2 for a, b in zip(row, other, strict=True) if a == a)
    return total / sum(weights)


MODELS = {
    "PCA": PCA(2),
    "TruncatedSVD": TruncatedSVD(2),
    "NMF": NMF(2, init="nndsvda", max_iter=500),
    "KernelPCA": KernelPCA(2, kernel="rbf", fit_inverse_transform=True),
    "LinearAE": LinearAE(2),
    "PPCA": PPCA(2),
    "Autoencoder": Autoencoder(2, **QUICK),
    "VQVAE": VQVAE(2, n_codes=4, **QUICK),
    "LatentDensityEstimator": LatentDensityEstimator(PCA(2), density="gaussian_mixture"),
}


@pytest.mark.filterwarnings("ignore::sklearn.exceptions.ConvergenceWarning")
@pytest.mark.parametrize("name", [name for name in MODELS if name != "LatentDensityEstimator"])
def test_errors_of_models_are_those_of_scikit_learn(name):
    model = MODELS[name].fit(TRAIN)
    found = np.asarray(model.inverse_transform(model.transform(TEST)))
    if name == "PPCA":  # its codes are posterior means
        assert not np.allclose(found, PCA(2).fit(TRAIN).inverse_transform(model.transform(TEST)))
    error = TEST.shape[1] * mean_squared_error(TEST, found)
    np.testing.assert_allclose(reconstruction_error_scorer(model, TEST), -error, rtol=1e-6)
    share = r2_score(TEST, found, multioutput="variance_weighted")
    np.testing.assert_allclose(explained_variance_scorer(model, TEST), share, rtol=1e-6)


def test_latent_density_estimator_reconstructs_as_its_autoencoder():
    lde = LatentDensityEstimator(PCA(2), **QUICK).fit(TRAIN)
    alone = reconstruction_error_scorer(PCA(2).fit(TRAIN), TEST)
    np.testing.assert_allclose(reconstruction_error_scorer(lde, TEST), alone, rtol=1e-5)


def test_explained_variance_of_training_rows_is_that_of_pca():
    pca = PCA(2).fit(X)
    share = pca.explained_variance_ratio_.sum()
    np.testing.assert_allclose(explained_variance_scorer(pca, X), share)
    # A Pipeline is measured in units of X, in which PCA behind a scaler explains less.
    assert explained_variance_scorer(make_pipeline(StandardScaler(), pca).fit(X), X) < share


def test_pipelines_are_measured_in_units_of_their_input():
    scale = 10 ** np.arange(4)
    for first in (StandardScaler(), PowerTransformer(), PCA(3), "passthrough"):
        model = Pipeline([("first", first), ("none", None), ("model", PCA(2))]).fit(TRAIN * scale)
        found = model.inverse_transform(model.transform(TEST * scale))
        error = 4 * mean_squared_error(TEST * scale, found)
        np.testing.assert_allclose(reconstruction_error_scorer(model, TEST * scale), -error)


def test_nested_pipelines_and_searches_and_frozen_estimators():
    inner = make_pipeline(StandardScaler(), PPCA(2))
    nested = make_pipeline(PCA(3), inner).fit(TRAIN)
    found = nested.inverse_transform(nested.transform(TEST))
    expected = -4 * mean_squared_error(TEST, found)
    search = GridSearchCV(nested, {"pipeline__ppca__n_components": [2]}).fit(TRAIN)
    for model in (nested, search, FrozenEstimator(nested)):
        np.testing.assert_allclose(reconstruction_error_scorer(model, TEST), expected)


def test_only_observed_values_count():
    holes, weights = with_holes(TEST), np.arange(len(TEST)) % 3
    model = PPCA(2).fit(with_holes(TRAIN))
    found = model.inverse_transform(model.transform(holes))
    expected = error_by_loop(holes, found, weights)
    score = reconstruction_error_scorer(model, holes, sample_weight=weights)
    np.testing.assert_allclose(score, -expected)

    columns = [column[~np.isnan(column)] for column in holes.T]
    observed = [weights[~np.isnan(column)] for column in holes.T]
    mean = np.array([np.average(c, weights=w) for c, w in zip(columns, observed, strict=True)])
    total = error_by_loop(holes, np.tile(mean, (len(holes), 1)), weights)
    share = explained_variance_scorer(model, holes, sample_weight=weights)
    np.testing.assert_allclose(share, 1 - expected / total)


def test_weights_are_copies():
    model, weights = PCA(2).fit(TRAIN), np.arange(len(TEST)) % 3
    for scorer in (reconstruction_error_scorer, explained_variance_scorer):
        score = scorer(model, TEST, sample_weight=weights)
        np.testing.assert_allclose(score, scorer(model, np.repeat(TEST, weights, axis=0)))


@pytest.mark.parametrize(
    "imputer", [SimpleImputer(), KNNImputer(), SimpleImputer(add_indicator=True), PPCAImputer(1)]
)
def test_imputers_need_no_inverse(imputer):
    train, test = with_holes(TRAIN), with_holes(TEST)
    model = make_pipeline(imputer, PCA(2)).fit(train)
    filled = model[0].transform(test)
    found = model[1].inverse_transform(model[1].transform(filled))[:, :4]
    expected = error_by_loop(test, found, np.ones(len(test)))
    np.testing.assert_allclose(reconstruction_error_scorer(model, test), -expected)


def test_an_imputer_that_leaves_out_a_column_is_refused():
    train = np.column_stack([TRAIN, np.full(len(TRAIN), np.nan)])
    with pytest.warns(UserWarning, match="without any observed values"):
        model = make_pipeline(SimpleImputer(), PCA(2)).fit(train)
    with pytest.raises(ValueError, match="keep_empty_features=True"):
        reconstruction_error_scorer(model, train)


@pytest.mark.parametrize("model", [LinearAE(2), PPCA(2), TruncatedSVD(2)])
def test_sparse_rows_score_as_dense_rows(model, monkeypatch):
    monkeypatch.setattr("skae._utils.metric_arrays.BLOCK_BYTES", 8 * 4 * 7)  # several blocks
    rows = np.where(X > 3, X, 0)
    model.fit(rows)
    for scorer in (reconstruction_error_scorer, explained_variance_scorer):
        weights = 1 + np.arange(len(rows)) % 2
        dense = scorer(model, rows, sample_weight=weights)
        for container in (sparse.csr_array, sparse.csc_matrix):
            score = scorer(model, container(rows), sample_weight=weights)
            np.testing.assert_allclose(score, dense, rtol=1e-10)
        frame = pd.DataFrame(rows).astype(pd.SparseDtype(float, 0.0))
        score = scorer(model, frame, sample_weight=weights)
        np.testing.assert_allclose(score, dense, rtol=1e-10)


@pytest.mark.parametrize("container", [pd.DataFrame, pl.DataFrame, np.ndarray.tolist])
def test_containers(container):
    model = make_pipeline(StandardScaler(), PPCA(2)).fit(container(TRAIN))
    expected = reconstruction_error_scorer(
        make_pipeline(StandardScaler(), PPCA(2)).fit(TRAIN), TEST
    )
    np.testing.assert_allclose(reconstruction_error_scorer(model, container(TEST)), expected)
    if container is pd.DataFrame:
        model = make_pipeline(StandardScaler(), PPCA(2)).set_output(transform="pandas")
        score = reconstruction_error_scorer(model.fit(container(TRAIN)), container(TEST))
        np.testing.assert_allclose(score, expected)


def test_conditional_models_read_the_targets():
    vae = VAE(1, conditional=True, **QUICK).fit(X, Y)
    steps = make_pipeline(StandardScaler(), VAE(1, conditional=True, **QUICK)).fit(X, Y)
    both = Ensemble(VAE(1, conditional=True, **QUICK), 2).fit(X, Y)
    for model in (vae, both):
        expected = -reconstruction_error(X, model.reconstruct(X, Y))
        assert np.isclose(reconstruction_error_scorer(model, X, Y), expected)
        assert not np.isclose(reconstruction_error_scorer(model, X), expected)
    found = steps[0].inverse_transform(steps[1].reconstruct(steps[0].transform(X), Y))
    assert np.isclose(reconstruction_error_scorer(steps, X, Y), -reconstruction_error(X, found))
    # Targets of a classifier are ignored by models that read none.
    assert reconstruction_error_scorer(PCA(2).fit(X), X, Y) == reconstruction_error_scorer(
        PCA(2).fit(X), X
    )


def test_tables():
    frame = pd.DataFrame(X[:, :3], columns=list("abc"))
    model = Autoencoder(1, likelihood="auto", **QUICK).fit(frame)
    expected = -reconstruction_error(frame, model.reconstruct(frame))
    assert np.isclose(reconstruction_error_scorer(model, frame), expected)
    frame["kind"] = pd.Categorical.from_codes(Y, ["setosa", "versicolor", "virginica"])
    model = Autoencoder(1, likelihood="auto", **QUICK).fit(frame)
    with pytest.raises(
        ValueError, match=r"column 'kind', has categories.*[a-z0-9]\. The scorer.*score_columns"
    ):
        reconstruction_error_scorer(model, frame)
    numbers = np.column_stack([X, Y])
    kinds = {**dict.fromkeys(range(4), "gaussian"), 4: "categorical"}
    model = Autoencoder(1, likelihood=kinds, **QUICK).fit(numbers)
    with pytest.raises(ValueError, match="Autoencoder has columns with likelihood 'categorical'"):
        explained_variance_scorer(model, numbers)


REFUSED = {
    "has neither a method reconstruct nor": make_pipeline(StandardScaler(), LogisticRegression()),
    r"Step 'columntransformer' \(ColumnTransformer\) of the Pipeline has no method": make_pipeline(
        ColumnTransformer([("scale", StandardScaler(), [0, 1])]), PCA(1)
    ),
    "has func and no inverse_func": make_pipeline(FunctionTransformer(np.log1p), PCA(1)),
    "fit_inverse_transform": KernelPCA(2),
}


@pytest.mark.parametrize("message", REFUSED)
@pytest.mark.parametrize("scorer", [reconstruction_error_scorer, explained_variance_scorer])
def test_what_cannot_be_inverted_is_refused(message, scorer):
    model = REFUSED[message].fit(X, Y)
    with pytest.raises((ValueError, AttributeError), match=message):
        scorer(model, X)


def test_functions_with_an_inverse_are_inverted():
    logs = FunctionTransformer(np.log1p, inverse_func=np.expm1)
    model = make_pipeline(FunctionTransformer(), logs, PCA(2)).fit(TRAIN)
    found = np.expm1(model[-1].inverse_transform(model[-1].transform(np.log1p(TEST))))
    expected = -4 * mean_squared_error(TEST, found)
    np.testing.assert_allclose(reconstruction_error_scorer(model, TEST), expected)


def test_rows_that_do_not_vary():
    pca = PCA(2).fit(X)
    with pytest.raises(ValueError, match="All rows of X are equal"):
        explained_variance_scorer(pca, X[[0, 0]])
    with pytest.raises(ValueError, match="outside of the range of floats"):
        reconstruction_error_scorer(PPCA(2).fit(X), X * 1e200)
