"""The number of codes by rules: a share of the variance, against PCA of scikit-learn, and None."""

import copy
import pickle
import warnings

import numpy as np
import pandas as pd
import pytest
from sklearn import model_selection
from sklearn.base import clone
from sklearn.datasets import load_breast_cancer, load_digits, load_iris, load_wine
from sklearn.decomposition import PCA
from torch import nn

import skae._latent_size as module
from helpers import low_rank_rows
from skae import VAE, AdversarialAE, Autoencoder, Ensemble, GridSearchCV, LatentDensityEstimator

pytestmark = pytest.mark.filterwarnings("ignore::UserWarning")

every_network = pytest.mark.parametrize("Network", [Autoencoder, VAE, AdversarialAE])
SHARES = (0.05, 0.5, 0.9, 0.99, 0.999999)


def dominated(rng):
    """One column has nearly all variance."""
    return rng.normal(size=(50, 6)) * [1e4, 1, 1, 1, 1, 1]


ROWS = {
    "digits": load_digits().data[:400],
    "iris": load_iris().data,
    "wine": load_wine().data,
    "cancer": load_breast_cancer().data,
    "wide": low_rank_rows(15, 40, rank=10, scales=(9.0, 2.0)),
    "square": low_rank_rows(20, 20, rank=12, scales=(9.0, 2.0)),
    "far from zero": low_rank_rows(60, 6, mean=1e6),
    "one dominant column": dominated(np.random.default_rng(0)),
    "integers": load_digits().data[:200].astype(np.int16),
    "one column": np.arange(8.0)[:, None],
}


def small(Network, n_components, **params):
    params = {"hidden_layer_sizes": 4, "max_iter": 0, "random_state": 0} | params
    return Network(n_components, **params)


def size(X, share, Network=Autoencoder, y=None, sample_weight=None, **params):
    model = small(Network, share, **params).fit(X, y, sample_weight=sample_weight)
    k = model.n_components_
    assert isinstance(k, int)
    assert model.transform(X).shape == (len(X), k)
    assert len(model.get_feature_names_out()) == k
    return k


@pytest.mark.parametrize("X", ROWS.values(), ids=ROWS)
def test_a_share_is_pcas(X):
    """The number is that of PCA of scikit-learn; LinearAE and PPCA have the same rule."""
    for share in SHARES:
        assert size(X, share) == PCA(share).fit(X).n_components_, share


@pytest.mark.parametrize("X", ROWS.values(), ids=ROWS)
def test_none_is_pcas(X):
    """None is the smaller of the numbers of rows and columns."""
    assert size(X, None) == PCA(None).fit(X).n_components_


@every_network
def test_every_network_has_the_rules(Network):
    """They agree, whatever else their parameters are."""
    X = ROWS["wine"] / ROWS["wine"].std(0)
    expected = [PCA(rule).fit(X).n_components_ for rule in (0.5, 0.9, None)]
    assert [size(X, rule, Network) for rule in (0.5, 0.9, None)] == expected
    of_images = {"network": "conv", "image_shape": (1, 8, 8), "n_init": 2}
    digits = ROWS["digits"]
    assert size(digits, 0.5, Network, **of_images) == PCA(0.5).fit(digits).n_components_


@pytest.mark.parametrize("n_features", [6, 90], ids=["tall", "wide"])
def test_weights_count_copies(n_features):
    """Rows of weight 0 are not there."""
    rng = np.random.default_rng(3)
    X = rng.normal(size=(40, n_features))
    X[:20, 1:] *= 0.01  # along one axis
    copies = np.repeat([200, 1, 0], [20, 15, 5])
    assert PCA(0.5).fit(X).n_components_ > 1
    assert PCA(0.5).fit(np.repeat(X, copies, axis=0)).n_components_ == 1
    assert size(X, 0.5, sample_weight=0.1 * copies) == 1
    assert size(X, None, sample_weight=copies) == min(35, n_features)


@pytest.mark.parametrize("rank", [2, 4])
def test_missing_values_hide_no_dimension(rank):
    """Rows of low rank with holes need as many codes as without holes."""
    X = low_rank_rows(2000, 12, rank=rank, scales=(4.0, 2.0), noise=0.1)
    assert PCA(0.97).fit(X).n_components_ == rank
    X[np.random.default_rng(0).random(X.shape) < 0.15] = np.nan
    assert size(X, 0.97) == rank
    assert size(X, None) == 12


def test_the_total_counts_negative_eigenvalues():
    """An estimated covariance may have some; without them, the shares would be too small."""
    X = low_rank_rows(12, 8, rank=3, noise=1.0)
    X[np.random.default_rng(1).random(X.shape) < 0.4] = np.nan
    found = module._variances(X, None, None, None, 0.8)
    assert found.along_axes.sum() > 1.02 * found.total
    assert found.total == pytest.approx(8)  # columns, in units of their mean variance
    for share in (0.5, 0.8, 0.95):
        enough = np.cumsum(found.along_axes) > share * found.total
        assert size(X, share) == np.argmax(enough) + 1


@pytest.mark.parametrize("name", ["cancer", "wide"])
def test_many_rows_and_columns(name, monkeypatch):
    """If both are many, PCA of a random part of the rows decides."""
    X = ROWS[name]
    X = np.tile(X / X.std(0), (1, 3))
    monkeypatch.setattr(module, "_MOST", 12)
    assert abs(size(X, 0.5) - PCA(0.5).fit(X).n_components_) <= 1
    assert size(X, 0.99) <= 12
    X[::2, 0] = np.nan
    with pytest.raises(ValueError, match=r"n_components=0\.5 needs .* limited to 12 columns; got"):
        small(Autoencoder, 0.5).fit(X)


def test_a_table_is_read_by_the_encoder():
    """PCA of standardised numbers, logarithms of counts, and scaled indicators of levels."""
    rng = np.random.default_rng(0)
    factor = rng.normal(size=300)
    table = pd.DataFrame(
        {
            "size": 100 * factor + rng.normal(size=300),
            "price": factor + 0.5 * rng.normal(size=300),
            "visits": rng.poisson(3, 300).astype(float),
            "place": rng.choice(["a", "b", "c"], 300, p=[0.5, 0.3, 0.2]),
        }
    )
    kinds = {"place": "categorical", "visits": "poisson", "size": "gaussian", "price": "gaussian"}
    numbers = table.drop(columns="place").assign(visits=np.log1p(table["visits"]))
    levels = pd.get_dummies(table["place"]).astype(float)
    read = pd.concat([numbers / numbers.std(ddof=0), levels / np.sqrt(levels.mean())], axis=1)
    expected = [PCA(share).fit(read.to_numpy()).n_components_ for share in SHARES]
    assert len(set(expected)) >= 4
    assert [size(table, share, likelihood=kinds) for share in SHARES] == expected
    assert size(table, None, likelihood=kinds) == 3 + 3


@every_network
@pytest.mark.parametrize("value", [True, False, 0, -1, 0.0, 1.0, 1.5, -0.5, np.nan, "mle", [2]])
def test_impossible_sizes(Network, value):
    """As PCA, 1.0 is no share."""
    with pytest.raises(ValueError, match="n_components"):
        small(Network, value).fit(ROWS["iris"])


@pytest.mark.parametrize("value", [np.int64(2), np.int8(2), np.float64(0.97), np.float32(0.97)])
def test_numbers_of_numpy(value):
    assert size(ROWS["iris"], value) == 2
    assert size(ROWS["iris"], value, latent_growth="nested") == 2


@pytest.mark.parametrize("rule", [0.5, None])
def test_modules_have_a_fixed_size(rule):
    """A rule cannot change a module, and the message says what can."""
    for name, own in {"encoder": nn.Linear(4, 2), "decoder": nn.Linear(2, 4)}.items():
        with pytest.raises(ValueError, match=rf"n_components={rule} .* own {name} .* function"):
            small(Autoencoder, rule, **{name: own}).fit(ROWS["iris"])


@every_network
def test_the_rule_is_kept(Network):
    """A clone, a file and a search have the rule, and the number is found again."""
    X = ROWS["wine"] / ROWS["wine"].std(0)
    model = small(Network, 0.5).fit(X)
    assert clone(model).get_params()["n_components"] == 0.5
    loaded = pickle.loads(pickle.dumps(model))
    assert (loaded.n_components, loaded.n_components_) == (0.5, model.n_components_)
    np.testing.assert_array_equal(loaded.transform(X), model.transform(X))
    assert model.fit(X[:, :4]).n_components_ == PCA(0.5).fit(X[:, :4]).n_components_


@every_network
@pytest.mark.parametrize("rule", [0.5, None])
def test_going_on_keeps_the_size(Network, rule):
    """Later rows do not change it, and another rule is an error."""
    X = ROWS["wine"] / ROWS["wine"].std(0)
    other = X[:20] * np.geomspace(1e3, 1, X.shape[1])
    assert PCA(0.5).fit(other).n_components_ != PCA(0.5).fit(X).n_components_
    model = small(Network, rule, warm_start=True, max_iter=1).fit(X)
    n = model.n_components_
    assert model.fit(other).n_components_ == n
    assert model.partial_fit(other).n_components_ == n
    stream = small(Network, rule).partial_fit(X).partial_fit(other)
    assert stream.n_components_ == n
    assert pickle.loads(pickle.dumps(stream)).partial_fit(other).n_components_ == n
    for value in (0.6, None if rule else 0.5):
        with pytest.raises(ValueError, match=rf"n_components={value} .* it was {rule}\."):
            copy.copy(model).set_params(n_components=value).fit(X)
    assert copy.copy(model).set_params(n_components=n).fit(X).n_components_ == n
    with pytest.raises(ValueError, match=r"n_components=0\.5 cannot change .* it was 2\."):
        small(Network, 2, warm_start=True).fit(X).set_params(n_components=0.5).fit(X)


def test_a_rule_for_a_prior_of_given_size():
    """The prior is checked against the number that the rule found."""
    X = ROWS["iris"]
    assert size(X, 0.97, AdversarialAE, prior="swiss_roll") == 2
    with pytest.raises(ValueError, match=r"n_components=4 must be 2 or 3"):
        small(AdversarialAE, None, prior="swiss_roll").fit(X)
    with pytest.raises(ValueError, match=r"n_components=4"):
        small(AdversarialAE, None, prior="mixture", prior_means=[[0.0, 1.0]]).fit(X)


def test_ordered_codes_and_targets():
    """Truncation has a number; a condition is no part of the codes."""
    X, y = load_wine(return_X_y=True)
    X = X / X.std(0)
    model = small(VAE, 0.9, latent_growth="nested", conditional=True, n_init=2).fit(X, y)
    assert model.n_components_ == PCA(0.9).fit(X).n_components_
    cut = model.truncate(2)
    assert cut.n_components == cut.n_components_ == 2
    np.testing.assert_array_equal(cut.transform(X), model.transform(X)[:, :2])


def test_several_starts_decompose_once(monkeypatch):
    """The starts of a fit have one size, which is found once."""
    calls = []
    variances = module._variances
    monkeypatch.setattr(module, "_variances", lambda *args: calls.append(1) or variances(*args))
    small(Autoencoder, 0.97, n_init=3).fit(ROWS["iris"])
    assert len(calls) == 1


def test_inside_other_estimators():
    """The members of an ensemble and a density of codes have the number that the rule finds."""
    X = ROWS["iris"]
    ensemble = Ensemble(small(VAE, 0.97), n_members=2, random_state=0).fit(X)
    assert [member.n_components_ for member in ensemble.estimators_] == [2, 2]
    density = LatentDensityEstimator(small(VAE, 0.97), max_iter=1, random_state=0).fit(X)
    assert density.transform(X).shape == (150, 2)
    assert density.sample(3, random_state=0).shape == (3, 4)


@every_network
def test_a_grid_with_rules(Network):
    """Each fold has its own size, and networks trained together score as those trained alone."""
    X = ROWS["wine"][::2] / ROWS["wine"].std(0)
    grid = {"n_components": [2, 0.5, None]}
    folds = model_selection.KFold(2)
    model = small(Network, 2, max_iter=2)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        together = GridSearchCV(model, grid, cv=folds).fit(X)
        alone = model_selection.GridSearchCV(model, grid, cv=folds).fit(X)
    assert {entry["how"] for entry in together.shared_fits_} == {"training"}
    for split in range(2):
        key = f"split{split}_test_score"
        np.testing.assert_allclose(together.cv_results_[key], alone.cv_results_[key], rtol=1e-3)
    assert together.best_params_ == alone.best_params_
