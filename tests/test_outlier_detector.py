"""OutlierDetector: scores of a model, a threshold from quantiles, and fits that outliers spare."""

import numpy as np
import pandas as pd
import polars as pl
import pytest
from numpy.testing import assert_allclose, assert_array_equal
from scipy import sparse, stats
from sklearn import config_context
from sklearn.base import BaseEstimator, clone
from sklearn.cluster import DBSCAN
from sklearn.covariance import EmpiricalCovariance
from sklearn.decomposition import NMF, PCA
from sklearn.exceptions import NotFittedError
from sklearn.frozen import FrozenEstimator
from sklearn.metrics import get_scorer
from sklearn.mixture import GaussianMixture
from sklearn.model_selection import GridSearchCV, KFold
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler
from sklearn.utils import get_tags
from sklearn.utils.estimator_checks import parametrize_with_checks

from helpers import make_rows, network, through_joblib, through_pickle, through_skops
from skae import (
    PPCA,
    VAE,
    VQVAE,
    AdversarialAE,
    Autoencoder,
    Ensemble,
    LatentDensityEstimator,
    LinearAE,
    OutlierDetector,
)
from skae._outlier_detector import lower_quantile, mean_squared_errors
from skae._utils.interrupts import keeps_progress

X = make_rows(n_rows=80, dtype=np.float64)
FAR = X[:8] + 30.0 * np.array([1, -1, 1, -1, 1])

every_file = pytest.mark.parametrize(
    "saved_and_loaded", [through_pickle, through_joblib, through_skops]
)


def gaussian(n_rows, n_features=4, seed=0):
    """Correlated Gaussian rows."""
    rng = np.random.default_rng(seed)
    mix = np.random.default_rng(9).normal(size=(n_features, n_features))
    return rng.normal(size=(n_rows, n_features)) @ mix


def mixed_rows():
    """Normal rows and outliers in random order, and the labels 1 and -1."""
    order = np.random.default_rng(0).permutation(len(X) + len(FAR))
    return np.vstack([X, FAR])[order], np.r_[np.ones(len(X)), -np.ones(len(FAR))][order]


def flagged(detector, rows):
    return float(np.mean(detector.predict(rows) == -1))


# ---------------------------------------------------------------- scikit-learn's laws


@pytest.mark.filterwarnings("ignore:The noise variance was raised")  # for a row or two
@parametrize_with_checks(
    [
        OutlierDetector(),
        OutlierDetector(contamination=0.1, cv=3),
        OutlierDetector(PPCA(1), contamination=0.2),
        OutlierDetector(LinearAE(1), score_method="reconstruction_error"),
    ]
)
def test_scikit_learn_check(estimator, check):
    """All checks pass, among them those of outlier detectors, without exemption."""
    check(estimator)


@pytest.mark.parametrize("name", ["check_outliers_train", "check_outliers_fit_predict"])
def test_checks_of_outlier_detectors_for_a_network(name):
    """Scores are float64, and the share of flagged rows is exact for networks too."""
    import sklearn.utils.estimator_checks as checks

    model = network(VAE, n_components=1, max_iter=2)
    getattr(checks, name)("OutlierDetector", OutlierDetector(model, contamination=0.1))


# ------------------------------------------------------------------------- formulas


@pytest.mark.parametrize("n_rows", [3, 10, 29, 100])
@pytest.mark.parametrize("share", [0.01, 0.07, 0.1, 0.125, 0.29, 0.5])
def test_quantile_has_the_share_below(n_rows, share):
    """Of all rows as many as fit into the share; it is NumPy's where NumPy's rounding is exact."""
    scores = np.random.default_rng(n_rows).normal(size=n_rows)
    found = lower_quantile(scores, None, share)
    hundredths = round(1000 * share) * n_rows
    assert np.sum(scores < found) == hundredths // 1000
    if share in (0.125, 0.5):
        assert found == np.percentile(scores, 100 * share, method="averaged_inverted_cdf")
    elif hundredths % 1000 == 0:
        assert found == np.sort(scores)[hundredths // 1000 - 1 :][:2].mean()
    else:
        assert found == np.sort(scores)[hundredths // 1000]


def test_quantile_with_weights_is_that_of_repeated_rows():
    """Rows of weight 0 do not count, and weights have no scale."""
    rng = np.random.default_rng(0)
    for _ in range(50):
        scores, weight = rng.normal(size=12), rng.integers(0, 4, size=12).astype(float)
        repeated = scores.repeat(weight.astype(int))
        for share in (0.1, 0.25, 0.5):
            expected = lower_quantile(repeated, None, share)
            assert lower_quantile(scores, weight, share) == expected
            assert lower_quantile(scores, 0.1 * weight, share) == expected


def test_quantile_of_infinite_scores_is_no_nan():
    assert lower_quantile(np.array([-np.inf, -np.inf, 1.0, 2.0]), None, 0.25) == -np.inf


def test_mean_squared_error_leaves_missing_values_out():
    rows = np.array([[1.0, np.nan, 3.0], [0.0, 1.0, 2.0], [np.nan] * 3])
    assert_allclose(mean_squared_errors(rows, np.ones((3, 3))), [2.0, 2 / 3, 0.0])


# --------------------------------------------------------------------------- scores


def test_scores_of_ppca_are_the_log_density_of_its_gaussian():
    """Its covariance is computed here from the eigenvectors of the covariance of the rows."""
    detector = OutlierDetector(make_pipeline(StandardScaler(), PPCA(2))).fit(X)
    z = (X - X.mean(axis=0)) / X.std(axis=0)
    values, axes = np.linalg.eigh(z.T @ z / len(z))
    values[:-2] = values[:-2].mean()
    expected = stats.multivariate_normal(np.zeros(5), (axes * values) @ axes.T).logpdf(z)
    assert_allclose(detector.score_samples(X), expected, rtol=1e-8)
    assert detector.score_method_ == "score_samples"


def test_the_default_is_ppca_of_standardised_rows_with_99_percent_of_the_variance():
    detector = OutlierDetector(random_state=0).fit(X)
    z = (X - X.mean(axis=0)) / X.std(axis=0)
    values = np.linalg.eigvalsh(z.T @ z)[::-1]
    n_codes = int(np.sum(np.cumsum(values) / values.sum() <= 0.99)) + 1
    assert detector.estimator_[-1].n_components_ == n_codes
    expected = make_pipeline(StandardScaler(), PPCA(n_codes)).fit(X).score_samples(X)
    assert_allclose(detector.score_samples(X), expected)


@pytest.mark.parametrize("model", [PCA(2), LinearAE(2)])
def test_reconstruction_error_is_in_the_units_of_the_model(model):
    """By hand: the mean square of what two axes of the scaled rows do not explain."""
    pipeline = make_pipeline(StandardScaler(), model)
    detector = OutlierDetector(pipeline, score_method="reconstruction_error").fit(X)
    z = (X - X.mean(axis=0)) / X.std(axis=0)
    axes = np.linalg.svd(z, full_matrices=False)[2][:2]
    assert_allclose(detector.score_samples(X), -((z - z @ axes.T @ axes) ** 2).mean(axis=1))


@pytest.mark.parametrize("n_features", [1, 2, 3])
def test_few_features_need_all_codes_and_no_warning(n_features):
    """The density is then that of the full covariance."""
    rows = gaussian(200, n_features)
    detector = OutlierDetector(random_state=0).fit(rows)
    z = (rows - rows.mean(axis=0)) / rows.std(axis=0)
    expected = stats.multivariate_normal(np.zeros(n_features), z.T @ z / 200).logpdf(z)
    assert_allclose(detector.score_samples(rows), expected, rtol=1e-6)


def test_reconstruction_error_of_sparse_rows_and_of_missing_values():
    detector = OutlierDetector(LinearAE(2), score_method="reconstruction_error", cv=None)
    rows = X * (X > 2)
    of_sparse = detector.fit(sparse.csr_array(rows)).score_samples(sparse.csr_array(rows))
    assert_allclose(of_sparse, detector.fit(rows).score_samples(rows), atol=1e-8)
    gaps = make_rows(gaps=0.1, dtype=np.float64)
    detector = OutlierDetector(PPCA(2), score_method="reconstruction_error", cv=None).fit(gaps)
    ppca = PPCA(2, random_state=detector.estimator_.random_state).fit(gaps)
    expected = -np.nanmean((gaps - ppca.reconstruct(gaps)) ** 2, axis=1)
    assert_allclose(detector.score_samples(gaps), expected)


@pytest.mark.parametrize(
    ("model", "method"),
    [
        (PPCA(2), "score_samples"),
        (PCA(2), "score_samples"),
        (GaussianMixture(2), "score_samples"),
        (network(VAE), "score_samples"),
        (network(VQVAE), "score_samples"),
        (network(Autoencoder), "data_score_samples"),
        (network(AdversarialAE), "data_score_samples"),
        (LatentDensityEstimator(PCA(2), density=GaussianMixture()), "score_samples"),
        (NMF(2), "reconstruction_error"),
        (Ensemble(network(Autoencoder), 2), "reconstruction_error"),
        (Ensemble(network(VAE), 2), "score_samples"),
    ],
    ids=lambda value: value if isinstance(value, str) else type(value).__name__,
)
def test_which_score_is_taken(model, method):
    """Densities of rows where there are any; the values are those of the method of the model."""
    rows = np.abs(X)
    detector = OutlierDetector(model, cv=None, random_state=0).fit(rows)
    assert detector.score_method_ == method
    if method != "reconstruction_error":
        expected = getattr(detector.estimator_, method)(rows)
        assert_array_equal(detector.score_samples(rows), expected.astype(np.float64))
    assert detector.score_samples(rows).dtype == np.float64


# ------------------------------------------------------------------------- threshold


def test_threshold_of_training_rows_flags_the_share_exactly():
    for share in (0.05, 0.1, 0.35):
        detector = OutlierDetector(PPCA(2), contamination=share, cv=None, support_fraction=1).fit(X)
        scores = PPCA(2).fit(X).score_samples(X)
        expected = np.percentile(scores, 100 * share, method="averaged_inverted_cdf")
        assert_allclose(detector.offset_, expected)
        assert flagged(detector, X) == pytest.approx(share)
        assert_array_equal(
            detector.decision_function(X), detector.score_samples(X) - detector.offset_
        )
        assert_array_equal(detector.predict(X) == -1, scores < expected)


def test_threshold_of_folds_is_of_rows_that_each_model_has_not_seen():
    folds = KFold(4, shuffle=True, random_state=3)
    detector = OutlierDetector(PPCA(2), cv=folds).fit(X)
    held_out = [PPCA(2).fit(X[a]).score_samples(X[b]) for a, b in folds.split(X)]
    expected = np.percentile(np.concatenate(held_out), 5, method="averaged_inverted_cdf")
    assert_allclose(detector.offset_, expected)
    assert_allclose(detector.score_samples(X), PPCA(2).fit(X).score_samples(X))
    splits = list(folds.split(X))
    assert OutlierDetector(PPCA(2), cv=splits).fit(X).offset_ == detector.offset_


def test_folds_of_an_integer_are_in_random_order():
    """Sorted rows would otherwise be held out as a block that looks like outliers."""
    rows = gaussian(200)
    rows = rows[np.argsort(rows[:, 0])]
    of_training = OutlierDetector(PPCA(2), cv=None).fit(rows).offset_
    blocks = OutlierDetector(PPCA(2), cv=KFold(2)).fit(rows).offset_
    offsets = [
        OutlierDetector(PPCA(2), cv=2, random_state=seed).fit(rows).offset_ for seed in (0, 1)
    ]
    assert offsets[0] != offsets[1]
    assert np.abs(np.array(offsets) - of_training).max() < 0.5 * abs(blocks - of_training)


def test_auto_means_five_folds_without_contamination_and_none_with_it():
    def offset(**params):
        return OutlierDetector(PPCA(2), random_state=0, **params).fit(X).offset_

    assert offset() == offset(cv=5) != offset(cv=None)
    share = {"contamination": 0.2}
    assert offset(**share) == offset(**share, cv=None) != offset(**share, cv=5)
    few = OutlierDetector(PPCA(1)).fit(X[:9]).offset_
    assert few == OutlierDetector(PPCA(1), cv=None).fit(X[:9]).offset_


@pytest.mark.parametrize("share", [0.02, 0.1, 0.3])
def test_share_of_new_gaussian_rows_is_the_intended_one(share):
    """Within four standard deviations of two binomials: of the threshold and of the new rows."""
    train, new = gaussian(4000, seed=1), gaussian(4000, seed=2)
    detector = OutlierDetector(PPCA(3), contamination=share, cv=5, support_fraction=1)
    bound = 4 * np.sqrt(share * (1 - share) * 2 / 4000)
    assert abs(flagged(detector.fit(train), new) - share) < bound


def test_folds_keep_the_share_where_training_rows_do_not():
    """A Gaussian of nearly as many parameters as values fits its training rows closely."""
    train, new = gaussian(80, 30, seed=1), gaussian(4000, 30, seed=2)
    assert flagged(OutlierDetector(PPCA(25), cv=None).fit(train), new) > 0.4
    assert flagged(OutlierDetector(PPCA(25), cv=10, random_state=0).fit(train), new) < 0.15


def test_a_frozen_model_is_not_fitted_and_its_threshold_is_of_the_rows_given():
    fitted = PPCA(2).fit(X[:40])
    before = fitted.mean_.copy()
    detector = OutlierDetector(FrozenEstimator(fitted), contamination=0.1).fit(X[40:])
    scores = fitted.score_samples(X[40:])
    assert detector.offset_ == np.percentile(scores, 10, method="averaged_inverted_cdf")
    assert_array_equal(fitted.mean_, before)
    detector = OutlierDetector(FrozenEstimator(fitted)).fit(X[40:], sample_weight=np.ones(40))
    assert detector.offset_ == np.percentile(scores, 5, method="averaged_inverted_cdf")


# ------------------------------------------------------------- outliers among the rows


def test_fits_to_the_rows_with_the_highest_scores():
    """By hand: one fit to all rows, and three to the best 80% under the model before."""
    rows = np.vstack([X, FAR])
    detector = OutlierDetector(PPCA(2), contamination=0.1).fit(rows)
    model = PPCA(2).fit(rows)
    for _ in range(3):
        scores = model.score_samples(rows)
        cut = np.percentile(scores, 20, method="averaged_inverted_cdf")
        model = PPCA(2).fit(rows[scores >= cut])
    assert_allclose(detector.estimator_.mean_, model.mean_)
    assert_allclose(detector.score_samples(rows), model.score_samples(rows))
    assert (detector.predict(FAR) == -1).all()


def test_outliers_hide_behind_themselves_in_a_fit_to_all_rows():
    """A dense group of them sets the axis of a fit to all rows, but not that of the refits."""
    normal = np.random.default_rng(0).normal(size=(180, 4))
    group = np.random.default_rng(1).normal(size=(20, 4)) * 0.3 + [6, 6, 6, 6]
    rows = np.vstack([normal, group])
    robust = OutlierDetector(PPCA(1), contamination=0.1).fit(rows)
    plain = OutlierDetector(PPCA(1), contamination=0.1, support_fraction=1).fit(rows)
    assert (robust.predict(group) == -1).all()
    assert (plain.predict(group) == -1).mean() < 0.7
    assert flagged(robust, rows) == flagged(plain, rows) == 0.1


@pytest.mark.parametrize(("share", "support"), [("auto", 1.0), (0.1, 0.8), (0.4, 0.5)])
def test_support_by_default(share, support):
    rows = np.vstack([X, FAR])
    fits = [
        OutlierDetector(PPCA(2), contamination=share, support_fraction=value, cv=None).fit(rows)
        for value in (None, support)
    ]
    assert_array_equal(fits[0].estimator_.mean_, fits[1].estimator_.mean_)


# --------------------------------------------------------------------------- weights


@pytest.mark.parametrize("params", [{"cv": None}, {"contamination": 0.2}])
@pytest.mark.parametrize("model", [None, PPCA(2), make_pipeline(StandardScaler(), PPCA(2))])
def test_weights_are_numbers_of_copies(model, params):
    weight = np.random.default_rng(0).integers(0, 4, size=len(X))
    weighted = OutlierDetector(model, **params).fit(X, sample_weight=weight)
    repeated = OutlierDetector(model, **params).fit(X.repeat(weight, axis=0))
    assert_allclose(weighted.offset_, repeated.offset_)
    assert_allclose(weighted.score_samples(X), repeated.score_samples(X))


def test_rows_of_weight_zero_are_in_no_fold():
    weight = np.ones(len(X))
    weight[::3] = 0
    fits = [
        OutlierDetector(PPCA(2), random_state=0).fit(X, sample_weight=weight),
        OutlierDetector(PPCA(2), random_state=0).fit(X[weight > 0]),
    ]
    assert_allclose(fits[0].offset_, fits[1].offset_)


def test_weights_that_the_model_does_not_take_are_refused():
    with pytest.raises(TypeError, match=r"sample_weight was given.*PCA does not accept"):
        OutlierDetector(PCA(2)).fit(X, sample_weight=np.ones(len(X)))
    pipeline = make_pipeline(StandardScaler(), GaussianMixture())
    with pytest.raises(TypeError, match=r"sample_weight was given.*GaussianMixture"):
        OutlierDetector(pipeline).fit(X, sample_weight=np.ones(len(X)))


def test_metadata_routing_passes_what_steps_request():
    weight = np.random.default_rng(0).integers(1, 4, size=len(X)).astype(float)
    expected = OutlierDetector(contamination=0.1).fit(X, sample_weight=weight)
    with config_context(enable_metadata_routing=True):
        default = OutlierDetector(contamination=0.1).fit(X, sample_weight=weight)
        assert default.offset_ == expected.offset_
        quiet = PPCA(2).set_fit_request(sample_weight=False)
        detector = OutlierDetector(quiet, support_fraction=1, cv=None)
        detector.fit(X, sample_weight=weight)
        assert_array_equal(detector.estimator_.mean_, PPCA(2).fit(X).mean_)
        search = GridSearchCV(
            OutlierDetector(PPCA().set_fit_request(sample_weight=True)).set_fit_request(
                sample_weight=True
            ),
            {"estimator__n_components": [1, 2]},
            scoring=get_scorer("roc_auc").set_score_request(sample_weight=False),
            cv=2,
        )
        rows, labels = mixed_rows()
        search.fit(rows, labels, sample_weight=np.ones(len(rows)))
        assert search.best_score_ > 0.9


# ------------------------------------------------------------------- inputs and errors


@pytest.mark.parametrize(
    ("params", "message"),
    [
        ({"contamination": 0.0}, r"contamination.*\(0\.0, 0\.5\]"),
        ({"contamination": 0.6}, r"contamination.*\(0\.0, 0\.5\]"),
        ({"contamination": "some"}, "contamination"),
        ({"score_method": "predict"}, "score_method"),
        ({"support_fraction": 0}, "support_fraction"),
        ({"support_fraction": 1.1}, "support_fraction"),
        ({"cv": 1}, "cv"),
        ({"cv": "many"}, "cv"),
        ({"cv": 81}, "n_splits=81"),
        ({"cv": []}, r"cv=\[\] has no folds"),
        ({"random_state": "x"}, "random_state"),
        ({"estimator": 3}, "estimator"),
        ({"estimator": DBSCAN()}, r"score_method='auto' is not available for DBSCAN"),
        (
            {"score_method": "data_score_samples"},
            r"score_method='data_score_samples' is not available for PPCA. Available: \['score_s",
        ),
        ({"estimator": VAE(2, conditional=True)}, "conditional=True"),
    ],
)
def test_wrong_parameters(params, message):
    detector = OutlierDetector(random_state=0).fit(X)
    before = detector.offset_, detector.estimator_
    with pytest.raises(ValueError, match=message):
        detector.set_params(**params).fit(X)
    assert (detector.offset_, detector.estimator_) == before


def test_a_class_is_refused():
    with pytest.raises(TypeError, match="class"):
        OutlierDetector(PPCA).fit(X)


class NoNumber(BaseEstimator):
    """A model whose first score is NaN."""

    def fit(self, X, y=None):
        self.fitted_ = True
        self.keeps_progress_ = keeps_progress(self)
        return self

    def score_samples(self, X):
        return np.r_[np.nan, np.zeros(len(X) - 1)]


def test_scores_that_are_no_numbers_are_refused():
    with pytest.raises(ValueError, match=r"1 of 80 scores of NoNumber by score_samples are NaN"):
        OutlierDetector(NoNumber()).fit(X)


class Listener(NoNumber):
    def score_samples(self, X):
        return np.zeros(len(X))


class Impossible(NoNumber):
    """A model under which half of the rows are impossible."""

    def score_samples(self, X):
        return np.where(np.arange(len(X)) % 2, -np.inf, 0.0)


def test_a_threshold_below_all_scores_is_refused():
    with pytest.raises(ValueError, match=r"threshold is -inf: more rows than the share 0\.05"):
        OutlierDetector(Impossible()).fit(X)


def test_ctrl_c_ends_no_fit_early():
    assert not OutlierDetector(Listener()).fit(X).estimator_.keeps_progress_


def test_unfitted():
    with pytest.raises(NotFittedError):
        OutlierDetector().predict(X)


def test_missing_values_where_the_model_takes_them():
    gaps = make_rows(gaps=0.1, dtype=np.float64)
    detector = OutlierDetector(random_state=0).fit(gaps)
    assert np.isfinite(detector.score_samples(gaps)).all()
    pipeline = make_pipeline(StandardScaler(), PPCA(0.99, random_state=0)).fit(gaps)
    fixed = OutlierDetector(clone(pipeline), cv=None).fit(gaps)
    assert_allclose(fixed.score_samples(gaps), pipeline.score_samples(gaps))
    with pytest.raises(ValueError, match="NaN"):
        OutlierDetector(PCA(2)).fit(gaps)
    assert get_tags(OutlierDetector()).input_tags.allow_nan
    assert not get_tags(OutlierDetector(make_pipeline(PCA(2), PPCA(1)))).input_tags.allow_nan
    assert get_tags(OutlierDetector(make_pipeline("passthrough", PPCA(1)))).input_tags.allow_nan


@pytest.mark.parametrize("frame", [pd.DataFrame, pl.DataFrame])
def test_data_frames(frame):
    rows = frame(dict(zip("abcde", X.T, strict=True)))
    detector = OutlierDetector(random_state=0, contamination=0.1, cv=3).fit(rows)
    assert list(detector.feature_names_in_) == list("abcde")
    assert detector.n_features_in_ == 5
    expected = OutlierDetector(random_state=0, contamination=0.1, cv=3).fit(X)
    assert_array_equal(detector.predict(rows), expected.predict(X))


def test_tables_with_categories():
    table = pd.DataFrame(X[:, :2], columns=["a", "b"])
    table["c"] = pd.Categorical(np.where(X[:, 2] > 3, "high", "low"))
    model = network(VAE, likelihood="auto")
    detector = OutlierDetector(model, contamination=0.1).fit(table)
    assert flagged(detector, table) == 0.1
    with pytest.raises(ValueError, match=r"needs rows of numbers.*score_method='score_samples'"):
        detector.set_params(score_method="reconstruction_error").fit(table)


# --------------------------------------------------------------- copies, files, searches


def test_a_seed_decides_all_and_global_generators_stay():
    detector = OutlierDetector(network(VAE, random_state=None), random_state=3, cv=3)
    state = np.random.get_state()[1].copy()  # noqa: NPY002
    first, second = clone(detector).fit(X), clone(detector).fit(X)
    assert first.offset_ == second.offset_
    assert_array_equal(first.score_samples(X), second.score_samples(X))
    assert clone(detector).set_params(random_state=4).fit(X).offset_ != first.offset_
    OutlierDetector().fit(X)
    assert_array_equal(np.random.get_state()[1], state)  # noqa: NPY002


def test_a_given_seed_of_the_model_stays():
    detector = OutlierDetector(PPCA(2, random_state=7), random_state=0).fit(X)
    assert detector.estimator_.random_state == 7
    assert detector.estimator.random_state == 7


@every_file
def test_round_trip(saved_and_loaded, tmp_path):
    detector = OutlierDetector(random_state=0, contamination=0.1).fit(X)
    loaded = saved_and_loaded(detector, tmp_path / "file")
    assert loaded.offset_ == detector.offset_
    assert_array_equal(loaded.decision_function(X), detector.decision_function(X))


def test_a_search_over_the_model():
    rows, labels = mixed_rows()
    search = GridSearchCV(
        OutlierDetector(PPCA(), random_state=0),
        {"estimator__n_components": [1, 3], "contamination": [0.1]},
        scoring="roc_auc",
        cv=2,
    ).fit(rows, labels)
    assert search.best_score_ > 0.9
    assert search.predict(FAR).tolist() == [-1] * len(FAR)


def test_a_search_as_the_model():
    search = GridSearchCV(make_pipeline(StandardScaler(), PPCA()), {"ppca__n_components": [1, 2]})
    detector = OutlierDetector(search, cv=None).fit(X)
    best = detector.estimator_.best_estimator_
    assert_array_equal(detector.score_samples(X), best.score_samples(X))


def test_a_covariance_of_scikit_learn_is_no_model():
    """It has no scores of rows, although it has a score."""
    with pytest.raises(ValueError, match="EmpiricalCovariance"):
        OutlierDetector(EmpiricalCovariance()).fit(X)


def test_progress_names_folds_and_refits(capsys):
    model = network(Autoencoder, max_iter=1, verbose=1)
    OutlierDetector(model, support_fraction=0.8, cv=2, random_state=0).fit(X)
    titles = [line.partition(":")[0] for line in capsys.readouterr().err.splitlines()]
    refits = [f"refit {i} of 3" for i in (1, 2, 3)]
    expected = [f"Autoencoder network ({refit})" for refit in refits]
    for fold in ("fold 1 of 2", "fold 2 of 2"):
        expected += [
            f"Autoencoder network ({part})" for part in (fold, *(f"{fold}, {r}" for r in refits))
        ]
    assert titles[0] == "Autoencoder network"
    # Refits end early if they keep the same rows.
    assert [title for title in expected if title in titles] == titles[1:]
    assert set(titles) >= {expected[0], "Autoencoder network (fold 2 of 2, refit 1 of 3)"}


def test_sparse_columns_whose_fill_value_is_not_zero():
    rows = pd.DataFrame(np.ones((20, 3))).astype(pd.SparseDtype(float, 1.0))
    with pytest.raises(ValueError, match=r"fill value 1\.0.*Give X\.sparse\.to_dense\(\)"):
        OutlierDetector().fit(rows)
