"""Ensemble: the mixture of its members, in equal parts."""

import re
from concurrent.futures import ThreadPoolExecutor

import numpy as np
import pandas as pd
import polars as pl
import pytest
from numpy.testing import assert_allclose, assert_array_equal
from scipy import sparse, special, stats
from sklearn import config_context, get_config
from sklearn.base import BaseEstimator, clone
from sklearn.cluster import KMeans
from sklearn.decomposition import PCA
from sklearn.exceptions import NotFittedError
from sklearn.frozen import FrozenEstimator
from sklearn.mixture import GaussianMixture
from sklearn.model_selection import GridSearchCV
from sklearn.neighbors import KernelDensity
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import MaxAbsScaler, StandardScaler
from sklearn.utils import get_tags
from sklearn.utils.estimator_checks import parametrize_with_checks

from helpers import make_rows, network, through_joblib, through_pickle, through_skops
from skae import PPCA, VAE, Autoencoder, Ensemble, LatentDensityEstimator, LinearAE, _ensemble
from skae._utils.interrupts import keeps_progress

NAMES = ["a", "b", "c", "d", "e"]
X = make_rows(dtype=np.float64)

every_file = pytest.mark.parametrize(
    "saved_and_loaded", [through_pickle, through_joblib, through_skops]
)


class Level(BaseEstimator):
    """N(seed, 1) in every feature, independent of rows; its reconstruction is the mean."""

    score_kind = "log_likelihood"

    def __init__(self, random_state=0, fails=None):
        self.random_state = random_state
        self.fails = fails

    def fit(self, X, y=None, sample_weight=None):
        self.given_ = y, sample_weight
        self.level_ = self.random_state % 10
        self.keeps_progress_ = keeps_progress(self)
        self.output_ = get_config()["transform_output"]
        self.width_ = np.shape(X)[1]
        if self.fails is not None and self.fails(self.random_state):
            raise ValueError("this member fails")
        return self

    def score_samples(self, X):
        return stats.norm.logpdf(X, self.level_).sum(axis=1)

    def reconstruct(self, X):
        return np.full(np.shape(X), float(self.level_))

    def sample(self, n_samples=1, *, y=None, noise=True, random_state=None):
        rng = np.random.RandomState() if random_state is None else random_state
        levels = np.full((n_samples, self.width_), float(self.level_))
        levels = levels + noise * 1e-3 * rng.standard_normal(levels.shape)
        return levels if y is None else levels + 100.0 * np.broadcast_to(y, n_samples)[:, None]


def levels_of(ensemble):
    return np.array([member.level_ for member in ensemble.estimators_])


@pytest.fixture(scope="module")
def of_vaes():
    return Ensemble(network(VAE, max_iter=2), n_members=3, random_state=0).fit(X)


# ---------------------------------------------------------------- scikit-learn's laws


@parametrize_with_checks([Ensemble(PPCA(1), n_members=2, random_state=0)])
def test_scikit_learn_check(estimator, check):
    check(estimator)


def test_clone_and_nested_parameters():
    ensemble = Ensemble(make_pipeline(StandardScaler(), PPCA(2)), 3, random_state=4)
    copied = clone(ensemble.set_params(estimator__ppca__n_components=1, memory_limit=1e6))
    assert copied.get_params()["estimator__ppca__n_components"] == 1
    assert copied.estimator is not ensemble.estimator
    assert (copied.n_members, copied.random_state, copied.memory_limit) == (3, 4, 1e6)


def test_it_has_no_codes():
    assert not hasattr(Ensemble(PPCA(2)).fit(X), "transform")
    assert not hasattr(Ensemble(PPCA(2)), "fit_transform")


@pytest.mark.parametrize("estimator", [PPCA(2), LinearAE(2), Autoencoder(2)])
def test_tags_are_those_of_the_estimator(estimator):
    assert get_tags(Ensemble(estimator)).input_tags == get_tags(estimator).input_tags


def test_missing_values_and_sparse_rows_are_taken_where_members_take_them():
    gaps = make_rows(gaps=0.1, dtype=np.float64)
    ensemble = Ensemble(PPCA(1), 2).fit(gaps)
    assert_allclose(ensemble.score_samples(gaps), PPCA(1).fit(gaps).score_samples(gaps))
    assert not np.isnan(ensemble.reconstruct(gaps)).any()
    rows = sparse.csr_array(X)
    assert_allclose(Ensemble(PPCA(1), 2).fit(rows).score_samples(rows), ensemble_scores(X))


def ensemble_scores(rows):
    return PPCA(1).fit(rows).score_samples(rows)


@pytest.mark.parametrize(
    ("params", "message"),
    [
        ({"n_members": 0}, "n_members"),
        ({"n_members": 1.5}, "n_members"),
        ({"random_state": "many"}, "random_state"),
        ({"memory_limit": 0}, "memory_limit"),
        ({"estimator": 3}, "estimator"),
        ({"estimator__n_components": -1}, "n_components"),
    ],
)
def test_wrong_parameters(params, message):
    with pytest.raises(ValueError, match=message):
        Ensemble(PPCA(2)).set_params(**params).fit(X)


def test_a_class_is_no_estimator():
    with pytest.raises(TypeError, match="instance"):
        Ensemble(PPCA).fit(X)


# ---------------------------------------------------------------------- the members


def test_seeds_of_members_differ_and_follow_from_random_state():
    estimator = LatentDensityEstimator(network(random_state=5), random_state=5)
    names = ["random_state", "autoencoder__random_state"]
    ensemble = Ensemble(clone(estimator).set_params(density=GaussianMixture(2)), 3, random_state=1)
    names.append("density__random_state")
    fitted = clone(ensemble).fit(X)
    again = clone(ensemble).fit(X)
    seeds = [[m.get_params()[name] for name in names] for m in fitted.estimators_]
    assert len({seed for member in seeds for seed in member}) == 9
    assert all(type(seed) is int for member in seeds for seed in member)
    assert seeds == [[m.get_params()[name] for name in names] for m in again.estimators_]
    assert ensemble.estimator.random_state == 5


def test_no_seed_draws_anew():
    first, second = (levels_of(Ensemble(Level(), 50).fit(X)) for _ in range(2))
    assert (first != second).any()


def test_members_are_what_their_seeds_make_of_them_alone(of_vaes):
    for member in of_vaes.estimators_:
        alone = clone(member).fit(X)
        assert_allclose(alone.score_samples(X), member.score_samples(X), rtol=1e-5)


def test_equal_members_are_one():
    """Closed forms have nothing to draw."""
    one, ensemble = PPCA(2).fit(X), Ensemble(PPCA(2), 4, random_state=0).fit(X)
    assert len(ensemble.estimators_) == 4
    assert_allclose(ensemble.score_samples(X), one.score_samples(X), rtol=1e-12)
    assert_allclose(ensemble.reconstruct(X), one.reconstruct(X), rtol=1e-12)
    assert ensemble.score(X) == pytest.approx(one.score(X), rel=1e-12)


def test_what_is_frozen_stays():
    fitted = PPCA(2).fit(X)
    ensemble = Ensemble(FrozenEstimator(fitted), 2).fit(X[:10])
    assert_allclose(ensemble.score_samples(X), fitted.score_samples(X))
    assert ensemble.score_kind == "log_likelihood"


def test_members_are_never_cut_short():
    """They ask that Ctrl-C be raised."""
    assert keeps_progress(Level())
    assert not any(m.keeps_progress_ for m in Ensemble(Level(), 2).fit(X).estimators_)


def test_members_may_be_fitted_in_threads(monkeypatch):
    """What the caller set holds there, too."""

    def in_threads(estimator, calls, memory_limit):
        with ThreadPoolExecutor(2) as pool:
            return list(pool.map(lambda call: call(), calls))

    monkeypatch.setattr(_ensemble, "_call", in_threads)
    with config_context(transform_output="pandas"):
        ensemble = Ensemble(Level(), 2).fit(X)
    assert [m.output_ for m in ensemble.estimators_] == ["pandas", "pandas"]
    assert not any(m.keeps_progress_ for m in ensemble.estimators_)


def test_targets_and_weights_reach_every_member():
    y, weight = np.arange(60), np.linspace(1, 2, 60)
    for member in Ensemble(Level(), 2).fit(X, y, weight).estimators_:
        assert member.given_ == (y, weight)
    weighted = Ensemble(PPCA(2), 2).fit(X, sample_weight=weight)
    expected = PPCA(2).fit(X, sample_weight=weight).score_samples(X)
    assert_allclose(weighted.score_samples(X), expected)
    with pytest.raises(TypeError, match=r"fit\(\).*sample_weight"):
        Ensemble(GaussianMixture()).fit(X, sample_weight=weight)


def test_parameters_of_fit_reach_a_step():
    weight = np.linspace(1, 2, 60)
    ensemble = Ensemble(make_pipeline(MaxAbsScaler(), PPCA(2)), 2)
    ensemble.fit(X, ppca__sample_weight=weight)
    scaled = X / abs(X).max(axis=0)
    expected = PPCA(2).fit(scaled, sample_weight=weight).score_samples(scaled)
    assert_allclose(ensemble.score_samples(X), expected)


def test_metadata_are_routed():
    weight = np.linspace(1, 9, 60)
    with config_context(enable_metadata_routing=True):
        estimator = Level().set_fit_request(sample_weight=True)
        ensemble = Ensemble(estimator, 2).set_score_request(sample_weight=True)
        for member in clone(ensemble).fit(X, sample_weight=weight).estimators_:
            assert member.given_[1] is weight
        deaf = Ensemble(Level().set_fit_request(sample_weight=False), 2)
        with pytest.raises(TypeError, match="sample_weight"):
            deaf.fit(X, sample_weight=weight)
        ppca = PPCA().set_fit_request(sample_weight=True)
        ensemble = Ensemble(ppca, 2).set_score_request(sample_weight=True)
        grid = {"estimator__n_components": [1]}
        search = GridSearchCV(ensemble, grid, cv=[(range(30), range(30, 60))], refit=False)
        search.fit(X, sample_weight=weight)
    one = PPCA(1).fit(X[:30], sample_weight=weight[:30])
    expected = one.score(X[30:], sample_weight=weight[30:])
    assert search.cv_results_["mean_test_score"] == pytest.approx([expected])


@pytest.mark.parametrize("earlier", ["fitted", "fresh"])
def test_failed_fit_changes_nothing(earlier):
    ensemble = Ensemble(Level(), 3, random_state=0)
    if earlier == "fitted":
        ensemble.fit(pd.DataFrame(X, columns=NAMES))
    last = Ensemble(Level(), 3, random_state=0).fit(X).estimators_[-1].random_state
    ensemble.set_params(estimator__fails=lambda seed: seed == last)
    before = dict(vars(ensemble))
    with pytest.raises(ValueError, match="this member fails"):
        ensemble.fit(X)
    assert vars(ensemble) == before


def test_refit_forgets():
    ensemble = Ensemble(PPCA(2), 2).fit(pd.DataFrame(X, columns=NAMES))
    assert list(ensemble.feature_names_in_) == NAMES
    ensemble.fit(X[:, :3])
    assert not hasattr(ensemble, "feature_names_in_")
    assert ensemble.n_features_in_ == 3
    assert ensemble.sample().shape == (1, 3)


# --------------------------------------------------------------------------- scores


def test_likelihoods_are_averaged(of_vaes):
    for ensemble in (of_vaes, Ensemble(Level(), 4, random_state=0).fit(X)):
        scores = [member.score_samples(X) for member in ensemble.estimators_]
        expected = special.logsumexp(scores, axis=0) - np.log(len(scores))
        assert_allclose(ensemble.score_samples(X), expected, rtol=1e-6)
        assert np.ptp(scores, axis=0).min() > 0
        assert ensemble.score(X) > np.mean(scores)


def test_likelihoods_beyond_floats_are_averaged():
    """Rows so unlikely that no float holds their likelihood, and impossible ones."""
    far = np.full((2, 5), 100.0)
    ensemble = Ensemble(Level(), 3, random_state=0).fit(X)
    scores = [stats.norm.logpdf(100, level) * 5 for level in levels_of(ensemble)]
    expected = special.logsumexp(scores) - np.log(3)
    assert expected < -2e4
    assert_allclose(ensemble.score_samples(far), expected, rtol=1e-12)
    assert_array_equal(ensemble.score_samples(np.full((1, 5), np.inf)), [-np.inf])


def test_score_is_the_weighted_mean(of_vaes):
    weight = np.linspace(0, 1, 60)
    expected = np.average(of_vaes.score_samples(X), weights=weight)
    assert of_vaes.score(X, sample_weight=weight) == pytest.approx(expected)
    assert of_vaes.score(X, np.arange(60)) == of_vaes.score(X)  # y is ignored
    with pytest.raises(ValueError, match="sample_weight"):
        of_vaes.score(X, sample_weight=weight[:10])


def test_parameters_of_scores_reach_the_members(of_vaes):
    one_draw = of_vaes.score_samples(X, n_importance=1)
    scores = [member.score_samples(X, n_importance=1) for member in of_vaes.estimators_]
    assert_allclose(one_draw, special.logsumexp(scores, axis=0) - np.log(3), rtol=1e-6)
    with pytest.raises(TypeError, match=r"PPCA|score_samples"):
        Ensemble(PPCA(2), 2).fit(X).score_samples(X, n_importance=1)


def test_kinds_of_scores():
    assert Ensemble(PPCA()).score_kind == "log_likelihood"
    assert Ensemble(VAE()).score_kind == "lower_bound"
    assert Ensemble(make_pipeline(StandardScaler(), VAE())).score_kind == "lower_bound"
    assert Ensemble(Ensemble(VAE())).score_kind == "lower_bound"
    for density in (GaussianMixture(), KernelDensity(), PCA()):
        assert Ensemble(density).score_kind == "log_likelihood"
    assert Ensemble(LatentDensityEstimator(LinearAE())).score_kind == "latent"
    search = GridSearchCV(make_pipeline(PPCA()), {"ppca": [PPCA(2)]})
    assert Ensemble(search).score_kind == "log_likelihood"


def test_the_kind_of_members_that_differ_is_the_weakest():
    ensemble = Ensemble(Level(), 3).fit(X)
    ensemble.estimators_[1].score_kind = "lower_bound"
    assert ensemble.score_kind == "lower_bound"
    ensemble.estimators_[2].score_kind = "reconstruction"
    assert ensemble.score_kind == "reconstruction"
    assert not hasattr(ensemble, "score")


@pytest.mark.parametrize(
    ("estimator", "kind"),
    [(Autoencoder(2), "reconstruction"), (LatentDensityEstimator(LinearAE(2)), "latent")],
)
@pytest.mark.parametrize("method", ["score", "score_samples"])
def test_scores_that_are_no_likelihoods_have_no_mean(estimator, kind, method):
    ensemble = Ensemble(estimator)
    assert not hasattr(ensemble, method)
    said = f"{type(estimator).__name__}.*'{kind}'.*PPCA.*reconstruction_error"
    with pytest.raises(AttributeError, match=said):
        getattr(ensemble, method)


@pytest.mark.parametrize(
    ("method", "reason"),
    [
        ("score", "KMeans has no score_kind"),
        ("score_samples", "KMeans has no score_kind"),
        ("score_kind", "KMeans has no score_kind"),
        ("reconstruct", "KMeans has neither a method reconstruct"),
        ("sample", "KMeans has no method sample"),
    ],
)
def test_estimators_without_a_method_are_named(method, reason):
    ensemble = Ensemble(make_pipeline(StandardScaler(), KMeans()))
    with pytest.raises(AttributeError, match=reason):
        getattr(ensemble, method)


@pytest.mark.parametrize("method", ["score", "score_samples", "reconstruct"])
def test_unfitted(method):
    with pytest.raises(NotFittedError):
        getattr(Ensemble(PPCA(2)), method)(X)
    with pytest.raises(NotFittedError):
        Ensemble(PPCA(2)).sample()


# ------------------------------------------------------------------ rows that are made


def test_reconstructions_are_averaged(of_vaes):
    for rows in (X, X.astype(np.float32)):
        parts = [member.reconstruct(rows) for member in of_vaes.estimators_]
        reconstructed = of_vaes.reconstruct(rows)
        assert reconstructed.dtype == parts[0].dtype
        assert_allclose(reconstructed, np.mean(parts, axis=0), rtol=1e-5)


def test_each_row_is_drawn_from_some_member():
    """Members are told apart by their level, and are drawn alike, in any order."""
    ensemble = Ensemble(Level(), 2, random_state=0).fit(X)
    first, second = levels_of(ensemble)
    assert first != second
    drawn = ensemble.sample(2000, random_state=0)
    of_first = np.abs(drawn - first).max(axis=1) < 0.1
    assert_array_equal(of_first, np.abs(drawn - second).max(axis=1) > 0.1)
    assert stats.binomtest(int(of_first.sum()), 2000).pvalue > 0.01
    changes = np.count_nonzero(np.diff(of_first))
    assert stats.binomtest(changes, 1999).pvalue > 0.01
    assert len(np.unique(drawn[:, 0])) == 2000
    assert set(ensemble.sample(50, noise=False).flat) == {first, second}


def test_moments_of_draws_are_those_of_the_mixture(of_vaes):
    drawn = of_vaes.sample(4000, random_state=0)
    means = [member.sample(4000, random_state=1).mean(axis=0) for member in of_vaes.estimators_]
    error = drawn.std(axis=0) / np.sqrt(4000)
    assert np.all(np.abs(drawn.mean(axis=0) - np.mean(means, axis=0)) < 6 * error)


def test_rows_of_another_array_library():
    xp = pytest.importorskip("array_api_strict")
    with config_context(array_api_dispatch=True):
        rows = xp.asarray(X)
        ensemble = Ensemble(LinearAE(2, svd_solver="full"), 2).fit(rows)
        found = [ensemble.score_samples(rows), ensemble.reconstruct(rows), ensemble.sample(9)]
        assert all(type(values) is type(rows) for values in found)
        scores, reconstructed, _ = map(np.asarray, found)
    one = LinearAE(2, svd_solver="full").fit(X)
    assert_allclose(scores, one.score_samples(X))
    assert_allclose(reconstructed, one.reconstruct(X))


def test_seeds_of_draws(of_vaes):
    first = of_vaes.sample(20, random_state=3)
    assert_array_equal(of_vaes.sample(20, random_state=3), first)
    assert_array_equal(of_vaes.sample(20, random_state=np.random.RandomState(3)), first)
    assert (of_vaes.sample(20, random_state=4) != first).any()
    assert (of_vaes.sample(20) != of_vaes.sample(20)).any()


@pytest.mark.parametrize("n_samples", [0, 1.5, "3", None, True])
def test_impossible_draws(n_samples, of_vaes):
    with pytest.raises(ValueError, match="n_samples"):
        of_vaes.sample(n_samples)
    with pytest.raises(ValueError, match="noise"):
        of_vaes.sample(noise=2)


def test_targets_of_draws_belong_to_their_rows():
    ensemble = Ensemble(Level(), 3, random_state=0).fit(X)
    y = np.arange(30)
    drawn = ensemble.sample(30, y=y, noise=False, random_state=0)
    assert_array_equal(drawn[:, 0] // 100, y)
    assert len(set(drawn[:, 0] % 100)) > 1
    assert_array_equal(ensemble.sample(4, y=7)[:, 0] // 100, np.full(4, 7))


def test_conditional_members():
    y = np.where(X[:, 0] > np.median(X[:, 0]), "high", "low")
    ensemble = Ensemble(network(VAE, conditional=True), 2, random_state=0).fit(X, y)
    scores = [member.score_samples(X, y) for member in ensemble.estimators_]
    expected = special.logsumexp(scores, axis=0) - np.log(2)
    assert_allclose(ensemble.score_samples(X, y), expected, rtol=1e-5)
    assert ensemble.score(X, y) == pytest.approx(expected.mean(), rel=1e-5)
    reconstructions = [member.reconstruct(X, y) for member in ensemble.estimators_]
    assert_allclose(ensemble.reconstruct(X, y), np.mean(reconstructions, axis=0), rtol=1e-5)
    assert ensemble.sample(3, y="high").shape == (3, 5)

    scaled = make_pipeline(StandardScaler(), network(VAE, conditional=True))
    ensemble = Ensemble(scaled, 2, random_state=0).fit(X, y)
    members = ensemble.estimators_
    decoded = [m[-1].reconstruct(m[0].transform(X), y) for m in members]
    expected = [m[0].inverse_transform(rows) for m, rows in zip(members, decoded, strict=True)]
    assert_allclose(ensemble.reconstruct(X, y), np.mean(expected, axis=0), rtol=1e-5)
    scores = [m[-1].score_samples(m[:-1].transform(X), y) for m in members]
    assert_allclose(ensemble.score_samples(X, y), special.logsumexp(scores, axis=0) - np.log(2))
    assert ensemble.sample(3, y=["low", "high", "low"]).shape == (3, 5)
    with pytest.raises(TypeError, match=r"sample\(\).*'y'"):
        Ensemble(PPCA(2), 2).fit(X).sample(y="high")


def test_pipelines_come_back_to_the_space_of_the_data():
    pipeline = make_pipeline(StandardScaler(), PPCA(2))
    ensemble, one = Ensemble(pipeline, 2).fit(X), clone(pipeline).fit(X)
    assert_allclose(ensemble.score_samples(X), one.score_samples(X))
    assert_allclose(ensemble.reconstruct(X), one.inverse_transform(one.transform(X)))
    drawn = ensemble.sample(4000, random_state=0)
    assert_allclose(drawn.mean(axis=0), X.mean(axis=0), atol=0.2)
    alone = Ensemble(make_pipeline(PPCA(2)), 2).fit(X)
    assert_allclose(alone.reconstruct(X), PPCA(2).fit(X).reconstruct(X))
    assert_allclose(alone.score_samples(X), PPCA(2).fit(X).score_samples(X))


def test_estimators_of_others():
    mixture = Ensemble(GaussianMixture(2), 2, random_state=0).fit(X)
    scores = [member.score_samples(X) for member in mixture.estimators_]
    assert_allclose(mixture.score_samples(X), special.logsumexp(scores, axis=0) - np.log(2))
    assert_array_equal(mixture.sample(3, random_state=0), mixture.sample(3, random_state=0))
    with pytest.raises(TypeError, match=r"GaussianMixture|BaseMixture"):
        mixture.sample(noise=False)
    pca = PCA(2).fit(X)
    expected = pca.inverse_transform(pca.transform(X))
    assert_allclose(Ensemble(PCA(2), 2).fit(X).reconstruct(X), expected)


# --------------------------------------------------------------------- names and files


@pytest.mark.parametrize(("library", "frame"), [("pandas", pd.DataFrame), ("polars", pl.DataFrame)])
@pytest.mark.parametrize(
    "estimator", [PPCA(2), make_pipeline(StandardScaler(), PPCA(2)), network()]
)
@pytest.mark.parametrize("dtype", ["float32", "float64"])
def test_names_in_names_out(library, frame, estimator, dtype):
    rows = frame(X.astype(dtype), **{"columns" if library == "pandas" else "schema": NAMES})
    plain = Ensemble(clone(estimator), 2, random_state=0).fit(rows)
    named = Ensemble(clone(estimator), 2, random_state=0).set_output(transform=library).fit(rows)
    assert list(named.feature_names_in_) == NAMES
    made = {"reconstruct": (rows,), "sample": (7,)}
    for method, arguments in made.items():
        options = {"random_state": 0} if method == "sample" else {}
        values = getattr(plain, method)(*arguments, **options)
        assert isinstance(values, np.ndarray)
        given = getattr(named, method)(*arguments, **options)
        assert isinstance(given, frame)
        assert list(given.columns) == NAMES
        assert np.asarray(given).dtype == values.dtype
        assert_allclose(given, values, rtol=1e-5)


@pytest.mark.parametrize("configured", ["estimator", "fitted", "everywhere"])
def test_output_may_be_chosen_elsewhere(configured):
    estimator = PPCA(2)
    if configured == "estimator":
        estimator.set_output(transform="polars")
    ensemble = Ensemble(estimator, 2).fit(X)
    if configured == "fitted":
        ensemble.set_output(transform="polars")
    with config_context(transform_output="polars" if configured == "everywhere" else "default"):
        for made in (ensemble.reconstruct(X), ensemble.sample(3)):
            assert isinstance(made, pl.DataFrame)
            assert made.columns == ["x0", "x1", "x2", "x3", "x4"]
    ensemble.set_output(transform="default")
    assert isinstance(ensemble.sample(3), np.ndarray)


@pytest.mark.parametrize("estimator", [PPCA(2), make_pipeline(StandardScaler(), PPCA(2))])
def test_reconstructions_keep_the_index_of_their_rows(estimator):
    rows = pd.DataFrame(X, columns=NAMES, index=[f"row {i}" for i in range(60)])
    ensemble = Ensemble(clone(estimator), 2).set_output(transform="pandas").fit(rows)
    assert list(ensemble.reconstruct(rows).index) == list(rows.index)


def test_columns_in_another_order_are_refused():
    rows = pd.DataFrame(X, columns=NAMES)
    with pytest.raises(ValueError, match="feature names"):
        Ensemble(PPCA(2), 2).fit(rows).score_samples(rows[NAMES[::-1]])


@every_file
@pytest.mark.parametrize("estimator", [PPCA(2), network(VAE)], ids=["PPCA", "VAE"])
def test_round_trip(estimator, saved_and_loaded, tmp_path):
    ensemble = Ensemble(estimator, 2, random_state=0).fit(X)
    loaded = saved_and_loaded(ensemble, tmp_path / "ensemble")
    assert_array_equal(loaded.score_samples(X), ensemble.score_samples(X))
    assert_array_equal(loaded.sample(5, random_state=0), ensemble.sample(5, random_state=0))
    assert not [name for name in vars(loaded) if name.endswith("_version")]


def test_search_over_the_latent_size():
    grid = {"estimator__n_components": [1, 2, 3]}
    rows = make_rows(200, scales=(3.0, 2.0), dtype=np.float64)
    search = GridSearchCV(Ensemble(PPCA(), 2, random_state=0), grid, cv=3).fit(rows)
    alone = GridSearchCV(PPCA(), {"n_components": [1, 2, 3]}, cv=3).fit(rows)
    assert_allclose(search.cv_results_["mean_test_score"], alone.cv_results_["mean_test_score"])
    assert search.best_params_ == {"estimator__n_components": 2}


def test_a_search_as_member():
    search = GridSearchCV(PPCA(), {"n_components": [1, 2]}, cv=3)
    ensemble = Ensemble(search, 2).fit(X)
    best = ensemble.estimators_[0].best_estimator_
    assert_allclose(ensemble.score_samples(X), best.score_samples(X))
    assert_allclose(ensemble.reconstruct(X), best.reconstruct(X))
    assert ensemble.sample(3, random_state=0).shape == (3, 5)


def test_it_is_shown_with_what_is_in_it():
    assert re.search("Ensemble.*PPCA", Ensemble(PPCA(2))._repr_html_(), re.DOTALL)


def test_containers_of_members_without_such_a_setting():
    """GaussianMixture has no set_output, but the ensemble has."""
    X = make_rows()
    ensemble = Ensemble(GaussianMixture(1), 2, random_state=0).set_output(transform="pandas").fit(X)
    assert isinstance(clone(ensemble).fit(X).sample(3), pd.DataFrame)
    assert isinstance(ensemble.set_output(transform="default").sample(3), np.ndarray)


def test_a_class_has_no_containers():
    with pytest.raises(TypeError, match=r"estimator=.*PPCA.* is a class"):
        Ensemble(PPCA).set_output(transform="pandas")


def test_draws_that_no_memory_holds():
    ensemble = Ensemble(PPCA(1), 2, random_state=0).fit(make_rows())
    with pytest.raises(MemoryError, match=r"reduce n_samples \(now 10{30}\)"):
        ensemble.sample(10**30)
