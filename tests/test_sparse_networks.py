"""Networks on sparse rows: results equal those of the same rows when dense, bit for bit."""

import copy
import pickle

import numpy as np
import pandas as pd
import pytest
import torch
from joblib import dump, load
from scipy import sparse
from sklearn.base import clone
from sklearn.callback import ScoringMonitor
from sklearn.metrics import check_scoring
from sklearn.model_selection import GridSearchCV as PlainSearch
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import MaxAbsScaler
from sklearn.utils import get_tags
from torch import nn

from skae import (
    VAE,
    VQVAE,
    AdversarialAE,
    Autoencoder,
    Ensemble,
    HelmholtzMachine,
    LatentDensityEstimator,
    OutlierDetector,
)
from skae import _linear_start as linear_start
from skae import _training_length as training_length
from skae._search.sharing import n_bytes
from skae._training import data
from skae._training.sparse_rows import SparseTensor
from skae.metrics import log_likelihood_scorer
from skae.model_selection import GridSearchCV

NETWORKS = [Autoencoder, VAE, AdversarialAE, VQVAE, HelmholtzMachine]
every_network = pytest.mark.parametrize("Estimator", NETWORKS, ids=lambda E: E.__name__)
SETTINGS = {
    "poisson": (VAE, {"likelihood": "poisson"}),
    "bernoulli": (AdversarialAE, {"likelihood": "bernoulli"}),
    "binary": (HelmholtzMachine, {}),
    "share of the variance": (Autoencoder, {"n_components": 0.8}),
    "all codes": (Autoencoder, {"n_components": None}),
    "ordered": (Autoencoder, {"latent_growth": "nested"}),
    "noise": (Autoencoder, {"noise": "salt_and_pepper", "noise_level": 0.1}),
    "early stopping": (VAE, {"early_stopping": True}),
    "trials": (VAE, {"max_iter": None}),
    "two starts": (VAE, {"n_init": 2}),
    "convolutions": (VAE, {"network": "conv", "image_shape": (1, 4, 4)}),
    "lbfgs": (Autoencoder, {"solver": "lbfgs"}),
    "per feature": (VQVAE, {"noise_variance": "per_feature"}),
}


def rows_for(Estimator=VAE, n=60, n_features=16, **params):
    """Counts of which most are 0; only 0 and 1 where the likelihood asks for them."""
    rng = np.random.default_rng(0)
    rates = rng.gamma(0.3, 1.0, (n, 3)) @ rng.gamma(0.5, 1.0, (3, n_features))
    X = rng.poisson(rates).astype(float)
    binary = params.get("likelihood") == "bernoulli"
    return np.minimum(X, 1) if binary else X


def small(Estimator, **params):
    given = {"hidden_layer_sizes": (8,)} if Estimator is not HelmholtzMachine else {}
    return Estimator(**({"max_iter": 2, "random_state": 0, "batch_size": 16} | given | params))


def weights_of(model):
    return {k: v.numpy() for k, v in model.net_.module_.state_dict().items()}


def assert_equal_models(found, expected):
    found, expected = weights_of(found), weights_of(expected)
    assert list(found) == list(expected)
    for name, weight in expected.items():
        np.testing.assert_array_equal(found[name], weight, err_msg=name)


def assert_equal_results(found, expected, X, given):
    """All methods give the same for sparse rows (`given`) as for dense ones (`X`)."""
    assert_equal_models(found, expected)
    methods = ["transform", "reconstruct", "score_samples", "score", "score_columns"]
    methods += [
        name
        for name in (
            "data_score_samples",
            "elbo_terms",
            "posterior",
            "free_energy",
            "perplexity",
            "reconstruction_path",
            "active_units",
        )
        if callable(getattr(expected, name, None))
    ]
    for name in methods:
        a, b = getattr(found, name)(given), getattr(expected, name)(X)
        np.testing.assert_equal(a, b, err_msg=name)


@every_network
@pytest.mark.parametrize("container", [sparse.csc_array, sparse.csr_matrix])
@pytest.mark.parametrize("dtype", ["float64", "float32", "int64", "uint8"])
def test_results_are_those_of_dense_rows(Estimator, container, dtype):
    X = rows_for().astype(dtype)
    found, expected = small(Estimator).fit(container(X)), small(Estimator).fit(X)
    assert_equal_results(found, expected, X, container(X))
    assert found.n_features_in_ == 16
    assert type(found.reconstruct(container(X))) is np.ndarray
    assert get_tags(found).input_tags.sparse


@pytest.mark.parametrize("name", SETTINGS)
@pytest.mark.filterwarnings("ignore::sklearn.exceptions.ConvergenceWarning")
def test_results_are_those_of_dense_rows_with_other_parameters(name, monkeypatch):
    Estimator, params = SETTINGS[name]
    monkeypatch.setattr(data, "_KEEP_BYTES", 0)  # batches are made dense one by one
    monkeypatch.setattr(training_length, "_FEWEST_STEPS", 40)
    monkeypatch.setattr(training_length, "_STEPS_PER_ROW", 1)
    X = rows_for(likelihood="bernoulli" if name == "binary" else params.get("likelihood"))
    model = small(Estimator, **params)
    found, expected = clone(model).fit(sparse.csr_array(X)), clone(model).fit(X)
    assert found.n_components_ == expected.n_components_
    assert_equal_results(found, expected, X, sparse.csr_array(X))


@every_network
def test_missing_values_are_stored_nans(Estimator):
    X = rows_for()
    X[np.random.default_rng(1).random(X.shape) < 0.1] = np.nan
    given = sparse.csr_array(X)
    found, expected = small(Estimator).fit(given), small(Estimator).fit(X)
    assert_equal_results(found, expected, X, given)
    if hasattr(expected, "impute"):
        completed = found.impute(given)
        np.testing.assert_array_equal(completed, expected.impute(X))
        assert type(completed) is np.ndarray
    with pytest.raises(ValueError, match="contains NaN"):
        small(Estimator, missing="error").fit(given)
    X[:, 3] = np.nan
    with pytest.raises(ValueError, match=r"Columns \[3\] of X are NaN in every row"):
        small(Estimator).fit(sparse.csr_array(X))


def with_stored_zeros(X):
    """A matrix that stores every value, also zeros."""
    n, k = X.shape
    return sparse.csr_array((X.ravel(), np.tile(np.arange(k), n), np.arange(n + 1) * k), X.shape)


def with_duplicates(X):
    """A matrix that stores half of each value twice."""
    half = sparse.csr_array(X / 2)
    parts = np.repeat(half.data, 2), np.repeat(half.indices, 2), 2 * half.indptr
    return sparse.csr_array(parts, X.shape)


def with_wide_indices(X):
    found = sparse.csr_array(X)
    found.indices, found.indptr = found.indices.astype(np.int64), found.indptr.astype(np.int64)
    return found


@pytest.mark.parametrize(
    "contain",
    [
        with_stored_zeros,
        with_duplicates,
        with_wide_indices,
        lambda X: sparse.csr_array(X)[:, ::-1][:, ::-1],
        sparse.coo_array,
        sparse.lil_matrix,
        sparse.dok_array,
        sparse.bsr_array,
    ],
    ids=["zeros", "duplicates", "int64", "views", "coo", "lil", "dok", "bsr"],
)
def test_every_sparse_matrix_of_the_same_values_gives_the_same(contain):
    X = rows_for()
    given = contain(X)
    np.testing.assert_array_equal(given.toarray(), X)
    before = copy.deepcopy(given)
    found, expected = small(VAE).fit(given), small(VAE).fit(X)
    assert_equal_results(found, expected, X, given)
    parts = [name for name in ("data", "indices", "indptr") if hasattr(given, name)]
    for name in parts:  # the matrix of the user is as it was
        np.testing.assert_array_equal(getattr(given, name), getattr(before, name))


def test_rows_are_never_dense_as_a_whole(monkeypatch):
    """No part that is made dense is larger than 2048 rows, those of a step of inference."""
    n, k = 3000, 60
    X = sparse.random_array((n, k), density=0.05, rng=0, format="csr")
    X.data = np.ceil(3 * X.data)
    sizes = []
    dense, toarray = SparseTensor._dense, sparse.csr_array.toarray

    def watched(self, counts, columns, values):
        sizes.append(len(counts))
        return dense(self, counts, columns, values)

    def watched_too(self, *args, **kwargs):
        sizes.append(self.shape[0])
        return toarray(self, *args, **kwargs)

    monkeypatch.setattr(SparseTensor, "_dense", watched)
    monkeypatch.setattr(sparse.csr_array, "toarray", watched_too)
    monkeypatch.setattr(data, "_KEEP_BYTES", 0)
    monkeypatch.setattr(data, "_CACHED_BYTES", 2**19)
    monkeypatch.setattr(linear_start, "_MOST_VALUES", 2**16)
    weight = np.random.default_rng(0).integers(0, 10, n)
    more = [(VAE, {"likelihood": "poisson"}), (Autoencoder, {"latent_growth": "nested"})]
    for Estimator, params in [*((E, {}) for E in NETWORKS), *more]:
        model = small(Estimator, max_iter=1, batch_size=500, **params)
        model.fit(X, sample_weight=weight)
        if hasattr(model, "partial_fit"):
            model.partial_fit(X)
        model.transform(X)
        model.score_columns(X)
        model.reconstruct(X[:10])
    assert 500 in sizes
    assert max(sizes) == 2048


@every_network
def test_weights_streams_and_continued_fits(Estimator):
    X = rows_for()
    weight = np.random.default_rng(2).integers(0, 3, len(X)).astype(float)
    given = sparse.csc_array(X)
    found, expected = small(Estimator, warm_start=True), small(Estimator, warm_start=True)
    for _ in range(2):
        codes = found.fit_transform(given, sample_weight=weight)
        np.testing.assert_array_equal(codes, expected.fit_transform(X, sample_weight=weight))
    for model, rows in ((found, given), (expected, X)):
        model.partial_fit(rows[:20], sample_weight=weight[:20]).partial_fit(rows[20:])
    assert_equal_results(found, expected, X, given)
    first, second = small(Estimator), small(Estimator)
    assert_equal_models(first.partial_fit(given), second.partial_fit(X))
    # A fit may change between sparse and dense rows.
    assert_equal_models(found.fit(X), expected.fit(given))


def test_conditional_models():
    X = rows_for()
    y = np.arange(len(X)) % 3
    found, expected = (
        small(VAE, conditional=True).fit(rows, y) for rows in (sparse.csr_array(X), X)
    )
    assert_equal_models(found, expected)
    given = sparse.csr_array(X)
    for name in ("score_samples", "reconstruct", "elbo_terms"):
        np.testing.assert_equal(getattr(found, name)(given, y), getattr(expected, name)(X, y))


def test_own_networks():
    X = rows_for()

    def encoder(n_in, n_out):
        return nn.Sequential(nn.Linear(n_in, 5), nn.Tanh(), nn.Linear(5, n_out))

    found, expected = (
        small(Autoencoder, encoder=encoder, n_components=2).fit(rows)
        for rows in (sparse.csr_array(X), X)
    )
    assert_equal_results(found, expected, X, sparse.csr_array(X))


@pytest.mark.parametrize("autoencoder", [VAE, Autoencoder, None])
def test_densities_of_codes(autoencoder):
    X = rows_for()
    inner = None if autoencoder is None else small(autoencoder)
    size = 2 if inner is None else None
    model = LatentDensityEstimator(inner, n_components=size, max_iter=2, random_state=0)
    given = sparse.csc_matrix(X)
    found, expected = clone(model).fit(given), clone(model).fit(X)
    exact = inner is not None  # LinearAE has another solver for sparse rows
    for name in ("transform", "score_samples", "reconstruct"):
        a, b = getattr(found, name)(given), getattr(expected, name)(X)
        np.testing.assert_allclose(a, b, rtol=0 if exact else 1e-3, atol=0 if exact else 1e-3)
    if autoencoder is VAE:
        np.testing.assert_array_equal(found.data_score_samples(given), found.data_score_samples(X))
        first, second = (clone(model).partial_fit(rows).partial_fit(rows) for rows in (given, X))
        np.testing.assert_array_equal(first.transform(given), second.transform(X))


@pytest.mark.parametrize("Search", [GridSearchCV, PlainSearch])
def test_searches(Search):
    X = rows_for(n=80)
    grid = {"n_components": [1, 2], "learning_rate_init": [1e-3, 1e-2]}
    model = small(VAE, likelihood="poisson", max_iter=3)
    found, expected = (Search(model, grid, cv=2).fit(rows) for rows in (sparse.csr_array(X), X))
    for name in ("mean_test_score", "std_test_score"):
        a, b = found.cv_results_[name], expected.cv_results_[name]
        np.testing.assert_allclose(a, b, rtol=1e-6)
    assert found.best_params_ == expected.best_params_
    assert_equal_models(found.best_estimator_, expected.best_estimator_)


def test_the_memory_of_folds_is_that_of_the_stored_values():
    """A search limits the number of folds in memory by the size of the rows."""
    X = sparse.csr_array(rows_for())
    stored = X.data.nbytes + X.indices.nbytes + X.indptr.nbytes
    assert n_bytes(X) == n_bytes(X.tocsc()) + X.indptr.nbytes - X.tocsc().indptr.nbytes == stored
    assert n_bytes(X.toarray()) == 8 * 60 * 16
    assert n_bytes([[1.0]]) == 0


def test_a_search_trains_networks_of_the_same_sparse_rows_together():
    X = sparse.csr_array(rows_for(n=80))
    model = small(VAE, max_iter=3)
    search = GridSearchCV(model, {"n_components": [1, 2]}, cv=2, memory_limit=1).fit(X)
    alone = GridSearchCV(model, {"n_components": [1, 2]}, cv=2, share=False).fit(X)
    a, b = (found.cv_results_["mean_test_score"] for found in (search, alone))
    np.testing.assert_allclose(a, b, rtol=1e-5)


def test_pipelines_ensembles_and_outliers():
    X = rows_for()
    given = sparse.csr_array(X)
    for model in (
        make_pipeline(MaxAbsScaler(), small(VAE)),
        Ensemble(small(VAE), 2, random_state=0),
        OutlierDetector(small(VAE), random_state=0),
    ):
        found, expected = clone(model).fit(given), clone(model).fit(X)
        np.testing.assert_array_equal(found.score_samples(given), expected.score_samples(X))
    scaled = make_pipeline(MaxAbsScaler(), small(VAE)).fit(X)
    X[::3, :8] = np.nan
    assert scaled[0].scale_[:8].max() > 2
    scores = [log_likelihood_scorer(scaled, rows) for rows in (sparse.csr_array(X), X)]
    assert scores[0] == pytest.approx(scores[1], rel=1e-6)


def test_log_likelihoods_of_sparse_bits():
    X = rows_for(likelihood="bernoulli")
    model = small(VAE, likelihood="bernoulli").fit(X)
    given = sparse.csr_array(X)
    assert log_likelihood_scorer(model, given) == pytest.approx(log_likelihood_scorer(model, X))
    X[0, X[0] > 0] = 0.5
    with pytest.raises(ValueError, match="values between 0 and 1"):
        log_likelihood_scorer(model, sparse.csr_array(X))


def test_files_and_copies(tmp_path):
    X = sparse.csr_array(rows_for())
    model = small(VAE).fit(X)
    dump(model, tmp_path / "model")
    for other in (
        pickle.loads(pickle.dumps(model)),
        copy.deepcopy(model),
        load(tmp_path / "model"),
    ):
        np.testing.assert_array_equal(other.score_samples(X), model.score_samples(X))
    assert not any(sparse.issparse(value) for value in vars(model).values())


def test_mapped_matrices(tmp_path):
    """As the processes of a parallel search get them: arrays in read-only files."""
    X = rows_for()
    dump(sparse.csr_array(X), tmp_path / "rows")
    mapped = load(tmp_path / "rows", mmap_mode="r")
    assert_equal_models(small(VAE).fit(mapped), small(VAE).fit(X))


def test_callbacks_of_scikit_learn_get_sparse_rows():
    X = rows_for()
    logs = []
    for rows in (sparse.csr_array(X), X):
        model = small(VAE)
        monitor = ScoringMonitor(scoring={"nats": check_scoring(model)})
        model.set_callbacks(monitor).fit(rows)
        logs.append([row.get("nats") for row in monitor.get_logs().data])
    assert np.isfinite([nats for nats in logs[0] if nats is not None]).sum() == 2
    assert logs[0] == logs[1]


def test_paths_between_sparse_rows():
    X = rows_for()
    given = sparse.csr_array(X)
    model = small(VAE).fit(given)
    expected = model.interpolate(X[0], X[1], n=3)
    for first, second in ((given[:1], given[1:2]), (given[0], given[1])):
        np.testing.assert_array_equal(model.interpolate(first, second, n=3), expected)
    np.testing.assert_array_equal(
        model.traverse(given[[2]], 0, [0.0, 1.0]), model.traverse(X[2], 0, [0.0, 1.0])
    )


def test_frames_of_sparse_columns():
    X = rows_for()
    frame = pd.DataFrame(X, columns=[f"c{j}" for j in range(16)])
    frame = frame.astype(pd.SparseDtype(float, 0.0))
    found, expected = small(VAE).fit(frame), small(VAE).fit(X)
    assert_equal_results(found, expected, X, frame)
    assert found.feature_names_in_.tolist() == list(frame.columns)
    with pytest.raises(ValueError, match="feature names should match"):
        found.transform(frame[frame.columns[::-1]])


@pytest.mark.parametrize("likelihood", ["auto", "categorical", {"poisson": [0, 1]}])
def test_tables_are_dense(likelihood):
    X = sparse.csr_array(rows_for())
    model = small(VAE, likelihood=likelihood)
    assert not get_tags(model).input_tags.sparse
    with pytest.raises(TypeError, match=r"own likelihood.*Give X\.toarray\(\)"):
        model.fit(X)
    rows = X.toarray()
    model = small(VAE, likelihood="auto").fit(rows)
    with pytest.raises(TypeError, match=r"Give X\.toarray\(\)"):
        model.transform(X)


@every_network
def test_wrong_values(Estimator):
    X = rows_for()
    model = small(Estimator).fit(X)
    for value, message in ((np.inf, "infinity"), (1e40, None)):
        X[3, 2] = value
        rows = sparse.csr_array(X)
        if message is None:
            np.testing.assert_array_equal(model.transform(rows), model.transform(X))
            continue
        for method in (small(Estimator).fit, model.transform, model.score_samples):
            with pytest.raises(ValueError, match=message):
                method(rows)
    with pytest.raises(ValueError, match="15 features, but"):
        model.transform(sparse.csr_array(X[:, 1:]))
    with pytest.raises(ValueError, match="Complex data"):
        small(Estimator).fit(sparse.csr_array(rows_for() * 1j))


def test_values_outside_of_the_support():
    """The message is that for dense rows, in `fit` and for new rows."""
    X = rows_for()
    fitted = small(VAE, likelihood="poisson").fit(X)
    X[7, 4] = -2.0
    for method in (small(VAE, likelihood="poisson").fit, fitted.score_samples):
        messages = []
        for rows in (X, sparse.csr_array(X)):
            with pytest.raises(ValueError, match=r"column 4 of X has values from -2 to") as caught:
                method(rows)
            messages.append(str(caught.value))
        assert messages[0] == messages[1]


def test_global_generators_are_left_alone():
    before = torch.random.get_rng_state()
    small(VAE).fit(sparse.csr_array(rows_for()))
    assert torch.equal(before, torch.random.get_rng_state())
