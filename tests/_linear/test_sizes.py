"""Models of several sizes from one decomposition, against a fit of every size."""

import pickle
import warnings

import numpy as np
import pandas as pd
import pytest
from scipy import sparse
from sklearn.base import clone
from sklearn.datasets import load_iris, load_wine
from sklearn.decomposition import PCA
from sklearn.model_selection import KFold, ShuffleSplit, StratifiedKFold
from sklearn.pipeline import make_pipeline

from helpers import low_rank_rows
from skae import PPCA, LinearAE
from skae._linear import sizes as sizes_module
from skae._linear.sizes import can_share, fit_sizes, fold_moments, score_sizes

ROWS = {
    "iris": load_iris().data,
    "wine": load_wine().data,
    "tall": low_rank_rows(300, 8, rank=5, scales=(6.0, 1.0)),
    "wide": low_rank_rows(15, 40, rank=10, scales=(9.0, 2.0)),
    "square": low_rank_rows(20, 20, rank=12, scales=(9.0, 2.0)),
    "far from zero": low_rank_rows(60, 6, mean=1e4),
}
MODELS = {
    "PPCA": PPCA(),
    "PCA": PCA(),
    "PCA full": PCA(svd_solver="full"),
    "PCA covariance": PCA(svd_solver="covariance_eigh"),
    "PCA whitened": PCA(whiten=True, svd_solver="full"),
    "LinearAE": LinearAE(),
    "LinearAE full": LinearAE(svd_solver="full"),
    "LinearAE covariance": LinearAE(svd_solver="covariance_eigh"),
    "LinearAE whitened": LinearAE(whiten=True),
    "LinearAE shrunken": LinearAE(alpha=0.4),
}
every_model = pytest.mark.parametrize("model", MODELS.values(), ids=MODELS)
every_rows = pytest.mark.parametrize("X", ROWS.values(), ids=ROWS)


def sizes_for(model, X):
    """Some that leave noise, and rules that the model knows."""
    most = min(X.shape)
    rules = ["mle"] if len(X) >= X.shape[1] and X.dtype == np.float64 else []
    rules += ["bic"] if isinstance(model, PPCA) else []
    return [2, 1, most // 2, 0.5, 0.9, 2, *rules]


def fit_each(model, sizes, X, **fit_params):
    return [clone(model).set_params(n_components=n).fit(X, **fit_params) for n in sizes]


def assert_same(found, expected, rtol=1e-8):
    """Every attribute of fitted models, arrays to `rtol` of their largest value."""
    assert type(found) is type(expected)
    assert vars(found).keys() == vars(expected).keys()
    for name, value in vars(expected).items():
        if isinstance(value, np.ndarray | float | np.floating) and name.endswith("_"):
            ours = getattr(found, name)
            if np.asarray(value).dtype.kind in "OU":
                assert list(ours) == list(value)
                continue
            assert np.shape(ours) == np.shape(value), name
            scale = np.max(np.abs(value), initial=0.0)
            np.testing.assert_allclose(ours, value, rtol=0, atol=rtol * scale, err_msg=name)
            if isinstance(value, np.ndarray):
                assert ours.dtype == value.dtype, name
        else:
            assert getattr(found, name) == value, name


def assert_all_same(found, expected, rtol=1e-8):
    for ours, theirs in zip(found, expected, strict=True):
        assert_same(ours, theirs, rtol)


def messages_of(work):
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        work()
    return [(w.category, str(w.message)) for w in caught]


# ------------------------------------------------------------------------ exact fits


@every_model
@every_rows
def test_models_of_all_sizes_are_those_of_a_fit_each(model, X):
    sizes = sizes_for(model, X)
    assert can_share(model, X, sizes)
    found, expected = fit_sizes(model, sizes, X), fit_each(model, sizes, X)
    assert_all_same(found, expected)
    held_out = X[::3] + 0.01 * X[::3] ** 2
    scores = score_sizes(found, held_out)
    np.testing.assert_allclose(scores, [m.score(held_out) for m in expected], rtol=1e-8)


@every_model
def test_float32_rows_give_float32_models(model):
    X = ROWS["tall"].astype(np.float32)
    sizes = sizes_for(model, X)
    assert can_share(model, X, sizes)
    found, expected = fit_sizes(model, sizes, X), fit_each(model, sizes, X)
    assert_all_same(found, expected, rtol=2e-5)
    scores = score_sizes(found, X)
    np.testing.assert_allclose(scores, [m.score(X) for m in expected], rtol=1e-5)


@pytest.mark.parametrize("model", [PPCA(), LinearAE(), LinearAE(svd_solver="full", alpha=0.1)])
@pytest.mark.parametrize("rows", ["tall", "wide"])
def test_weights_count_rows(model, rows):
    X = ROWS[rows]
    weight = np.random.default_rng(0).integers(0, 4, len(X)) + 0.5 * (np.arange(len(X)) > 4)
    sizes = [1, 3, 0.9, 5]
    found = fit_sizes(model, sizes, X, sample_weight=weight)
    expected = fit_each(model, sizes, X, sample_weight=weight)
    assert_all_same(found, expected)
    scores = score_sizes(found, X, sample_weight=weight)
    separate = [m.score(X, sample_weight=weight) for m in expected]
    np.testing.assert_allclose(scores, separate, rtol=1e-8)


@every_model
def test_all_components_and_rules_together(model):
    """The largest is the whole spectrum, of which None of PPCA leaves one to the noise."""
    X = ROWS["tall"]
    sizes = [None, 8, "mle", 0.99, 1]
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", "The noise variance was raised")
        found, expected = fit_sizes(model, sizes, X), fit_each(model, sizes, X)
    assert_all_same(found, expected)
    assert [m.n_components for m in found] == sizes
    scores = score_sizes(found, X)
    np.testing.assert_allclose(scores, [m.score(X) for m in expected], rtol=1e-8)


@pytest.mark.parametrize("sizes", [[1, 8], [8, 1, 0.9], ["bic", 2]])
def test_warnings_are_those_of_a_fit_each(sizes):
    X = ROWS["tall"]
    ours = messages_of(lambda: fit_sizes(PPCA(), sizes, X))
    theirs = messages_of(lambda: fit_each(PPCA(), sizes, X))
    assert ours == theirs
    assert len(ours) == sizes.count(8)


@every_model
def test_frames_leave_their_names(model):
    X = pd.DataFrame(ROWS["tall"], columns=list("abcdefgh"))
    found = fit_sizes(model, [1, 3], X)
    assert_all_same(found, fit_each(model, [1, 3], X))
    assert list(found[0].feature_names_in_) == list("abcdefgh")
    with pytest.raises(ValueError, match="feature names"):
        score_sizes(found, X[list("hgfedcba")])
    np.testing.assert_allclose(score_sizes(found, X), [m.score(X) for m in found], rtol=1e-8)


@pytest.mark.parametrize("model", [PPCA(), LinearAE(svd_solver="covariance_eigh")])
def test_sparse_rows(model):
    X = sparse.csr_matrix(np.where(ROWS["tall"] > 2, ROWS["tall"], 0.0))
    assert can_share(model, X, [1, 3, 0.8])
    found, expected = fit_sizes(model, [1, 3, 0.8], X), fit_each(model, [1, 3, 0.8], X)
    assert_all_same(found, expected)
    scores = score_sizes(found, X)
    np.testing.assert_allclose(scores, [m.score(X) for m in expected], rtol=1e-8)


def test_one_decomposition_is_all_that_is_computed(monkeypatch):
    fits = []
    fit = PPCA.fit
    monkeypatch.setattr(PPCA, "fit", lambda *args, **kwargs: fits.append(args) or fit(*args))
    fit_sizes(PPCA(), [2, 1, "mle", "bic", 0.8, None], ROWS["tall"])
    assert len(fits) == 1


# ------------------------------------------------------------------ what is shared


@pytest.mark.parametrize(
    ("model", "sizes", "exact", "approximate"),
    [
        (PCA(), [2, 5], False, True),  # randomized
        (PCA(), [60, 0.5, None], True, True),  # full: too many for a randomized solver
        (PCA(), [2, 60], False, True),
        (PCA(svd_solver="arpack"), [2, 5], False, True),
        (PCA(svd_solver="arpack"), [2, 64], False, False),  # fails
        (PCA(svd_solver="arpack"), [2, 0.5], False, False),
        (PCA(svd_solver="full"), [2, "bic"], False, False),
        (PCA(), ["bic", 2], False, False),
        (PCA(), [{}, 2], False, False),
        (PCA(svd_solver="full"), [2, "mle"], True, True),
        (PCA(svd_solver="full"), [2, 65], False, False),
        (PCA(svd_solver="full"), [0, 2], False, False),
        (PCA(svd_solver="full"), [True], False, False),
        (PCA(svd_solver="full"), [1.0, 2], False, False),
        (PCA(svd_solver="full"), [], False, False),
        (LinearAE(), [2, 5], False, True),
        (LinearAE(solver="gradient"), [2, 5], False, True),
        (LinearAE(solver="gradient"), [2, 0.5], False, False),
        (PPCA(), [2, "bic", "mle", 0.5, None, 64], True, True),
        (PPCA(solver="em"), [2, 5], False, True),
        (PPCA(solver="em"), [2, 0.5], False, False),
        (PPCA(solver="randomized"), [2, 5], False, True),
        (make_pipeline(PCA()), [2, 5], False, False),
    ],
)
def test_what_is_shared(model, sizes, exact, approximate):
    X = np.random.default_rng(0).normal(size=(600, 64))
    assert can_share(model, X, sizes) is exact
    assert can_share(model, X, sizes, approximate=True) is approximate


def test_the_solver_that_each_size_takes_is_that_of_its_fit():
    """scikit-learn's own choice, at the sizes where it changes."""
    rng = np.random.default_rng(0)
    for shape in [(40, 600), (600, 40), (600, 300), (500, 500)]:
        X = rng.normal(size=shape)
        most = min(shape)
        for model in (PCA(), LinearAE()):
            for size in (1, int(0.8 * most) - 1, int(0.8 * most), most, None, 0.5):
                chosen = clone(model).set_params(n_components=size).fit(X)._fit_svd_solver
                exact = chosen in ("full", "covariance_eigh")
                assert can_share(model, X, [size]) is exact, (shape, size)


def test_subclasses_fit_otherwise_and_are_not_shared():
    class Other(PCA):
        pass

    class OtherPPCA(PPCA):
        pass

    X = ROWS["tall"]
    assert not can_share(Other(), X, [1, 2])
    assert not can_share(OtherPPCA(), X, [1, 2])
    assert score_sizes([Other(1).fit(X), Other(2).fit(X)], X) is None


def test_rows_that_no_fit_takes_are_not_shared():
    X = ROWS["tall"].copy()
    X[3, 2] = np.nan
    for model in MODELS.values():
        assert not can_share(model, X, [1, 2])
    assert not can_share(PPCA(solver="closed_form"), X, [1, 2], approximate=True)
    assert can_share(PPCA(), X, [1, 2], approximate=True)
    assert not can_share(PPCA(), X, [1, 0.5], approximate=True)
    assert not can_share(PCA(), [["a", "b"]], [1])
    assert not can_share(PPCA(), sparse.csr_matrix(X), [1, 2], approximate=True)


def test_rounding_of_float32_variances_chooses_no_shared_size():
    X = ROWS["tall"].astype(np.float32)
    assert not can_share(PCA(), X, [1, "mle"])
    assert can_share(PPCA(), X, [1, "mle"])
    assert can_share(LinearAE(svd_solver="covariance_eigh"), X, [1, "mle"])


# ----------------------------------------------------------------- approximate fits


@pytest.mark.parametrize(
    "model",
    [
        PPCA(solver="em", random_state=0),
        PPCA(solver="randomized", random_state=0),
        LinearAE(solver="gradient", random_state=0),
        LinearAE(solver="gradient", alpha=0.1, random_state=0),
        LinearAE(svd_solver="randomized", random_state=0),
        PCA(svd_solver="arpack", random_state=0),
    ],
)
def test_a_cut_of_an_iterative_fit_is_as_good_as_one(model):
    X = ROWS["tall"]
    assert can_share(model, X, [1, 3, 5], approximate=True)
    found, expected = fit_sizes(model, [1, 3, 5], X), fit_each(model, [1, 3, 5], X)
    scores = score_sizes(found, X)
    np.testing.assert_allclose(scores, [m.score(X) for m in found], rtol=1e-8)
    np.testing.assert_allclose(scores, [m.score(X) for m in expected], atol=1e-3)


def test_em_of_missing_values_begins_at_the_larger_size():
    """Each size ends at a likelihood as high as that of its own fit, to the tolerance of EM."""
    X = low_rank_rows(200, 10, rank=6, scales=(6.0, 1.0), gaps=0.2)
    model, sizes = PPCA(random_state=0, tol=1e-7, max_iter=500), [1, 6, 3, None]
    found, expected = fit_sizes(model, sizes, X), fit_each(model, sizes, X)
    assert [m.n_components_ for m in found] == [1, 6, 3, 9]
    assert [m.n_components for m in found] == sizes
    for ours, theirs in zip(found, expected, strict=True):
        assert ours.score(X) > theirs.score(X) - 1e-3
        assert len(ours.log_likelihoods_) == ours.n_iter_
        assert pickle.loads(pickle.dumps(ours)).score(X) == ours.score(X)
    # At the optimum of three axes the likelihood begins higher than from pairs of entries.
    assert found[2].log_likelihoods_[0] > expected[2].log_likelihoods_[0]
    assert score_sizes(found, X) is None
    assert score_sizes(found, np.nan_to_num(X)) is None  # means differ


def test_em_with_weights_leaves_out_rows_of_weight_zero():
    X = low_rank_rows(120, 6, gaps=0.1)
    weight = np.r_[np.zeros(20), np.ones(100)]
    X[:20] *= 50
    found = fit_sizes(PPCA(random_state=0), [1, 3], X, sample_weight=weight)
    expected = fit_sizes(PPCA(random_state=0), [1, 3], X[20:])
    np.testing.assert_allclose(found[0].loadings_, expected[0].loadings_, rtol=1e-8)


# --------------------------------------------------------------------------- scores


def test_models_of_separate_fits_are_not_scored_together():
    X = ROWS["tall"]
    models = [PPCA(2).fit(X), PPCA(3).fit(X[:200])]
    assert score_sizes(models, X) is None
    assert score_sizes([PPCA(2).fit(X), LinearAE(3).fit(X)], X) is None
    assert score_sizes([], X) is None
    assert score_sizes(fit_sizes(PCA(), [1, 2], X), X, sample_weight=np.ones(len(X))) is None


def test_scores_of_little_noise_keep_their_digits():
    """The residual is then no difference of sums."""
    X = low_rank_rows(100, 8, rank=3, scales=(9.0, 5.0), noise=1e-6)
    for model in (PPCA(), LinearAE(svd_solver="full")):
        found = fit_sizes(model, [1, 2, 3], X)
        separate = [m.score(X[:50]) for m in found]
        np.testing.assert_allclose(score_sizes(found, X[:50]), separate, rtol=1e-8)


def test_rows_out_of_range_are_scored_by_each_model():
    X = ROWS["tall"].astype(np.float32)
    models = fit_sizes(PPCA(), [1, 2], X)
    assert score_sizes(models, np.full_like(X, 1e30)) is None


def test_blocks_of_rows_add_up(monkeypatch):
    X = ROWS["tall"]
    models = fit_sizes(PPCA(), [1, 4], X)
    weight = np.random.default_rng(1).random(len(X))
    whole = score_sizes(models, X, weight)
    monkeypatch.setattr("skae._linear.low_rank_gaussian._BLOCK_BYTES", 1)  # 64 rows a block
    np.testing.assert_allclose(score_sizes(models, X, weight), whole, rtol=1e-12)


def test_scikit_learn_scores_what_it_inverts_badly_itself(monkeypatch):
    """So that scores are PCA's own, with its roundings."""
    X = ROWS["tall"] * np.r_[1e6, np.ones(7)]
    models = fit_sizes(PCA(whiten=True, svd_solver="full"), [2, 3], X)
    monkeypatch.setattr(sizes_module, "mean_log_density", lambda *args: pytest.fail("not its own"))
    assert score_sizes(models, X) == [m.score(X) for m in models]


# ------------------------------------------------------------------ moments of folds


FOLDS = {
    "KFold": KFold(5),
    "shuffled": KFold(3, shuffle=True, random_state=0),
    "StratifiedKFold": StratifiedKFold(4),
}


@pytest.mark.parametrize("cv", FOLDS.values(), ids=FOLDS)
@pytest.mark.parametrize("mean", [0.0, 3.0, 1e5])
@pytest.mark.parametrize(
    "model",
    [PPCA(), LinearAE(), LinearAE(alpha=0.5), LinearAE(whiten=True, svd_solver="covariance_eigh")],
)
def test_moments_of_folds_give_the_fits_and_scores_of_their_rows(model, mean, cv):
    """Of rows in order, so that means of folds differ, and far from zero."""
    X = ROWS["tall"] - 2.0 + mean
    X = X[np.argsort(X[:, 0])]
    y = np.arange(len(X)) % 2
    splits = list(cv.split(X, y))
    sizes = [1, 3, 0.9, "mle"]
    folds = fold_moments(model, X, sizes, splits)
    for (train, test), fold in zip(splits, folds, strict=True):
        found = fit_sizes(model, sizes, X[train], moments=fold.train)
        expected = fit_each(model, sizes, X[train])
        assert_all_same(found, expected)
        scores = score_sizes(found, X[test], moments=fold.test)
        np.testing.assert_allclose(scores, [m.score(X[test]) for m in expected], rtol=1e-8)


def test_moments_are_all_that_is_read_of_the_rows():
    """Others of the same shape and names change nothing; weights do, which moments lack."""
    X = ROWS["tall"]
    splits = list(KFold(3).split(X))
    fold = fold_moments(PPCA(), X, [1, 2], splits)[0]
    train, test = (X[rows] for rows in splits[0])
    models = fit_sizes(PPCA(), [1, 2], np.zeros_like(train), moments=fold.train)
    assert_all_same(models, fit_each(PPCA(), [1, 2], train))
    scores = score_sizes(models, np.zeros_like(test), moments=fold.test)
    np.testing.assert_allclose(scores, [m.score(test) for m in models], rtol=1e-8)
    weight = 1.0 + np.arange(len(train)) % 2
    weighted = fit_sizes(PPCA(), [1, 2], train, moments=fold.train, sample_weight=weight)
    assert_all_same(weighted, fit_each(PPCA(), [1, 2], train, sample_weight=weight))
    weight = weight[: len(test)]
    scores = score_sizes(models, test, weight, moments=fold.test)
    separate = [m.score(test, sample_weight=weight) for m in models]
    np.testing.assert_allclose(scores, separate, rtol=1e-8)


def test_a_residual_without_digits_is_read_from_the_rows():
    X = low_rank_rows(90, 6, rank=2, noise=1e-5)
    splits = list(KFold(3).split(X))
    fold = fold_moments(PPCA(), X, [1, 2], splits)[0]
    train, test = (X[rows] for rows in splits[0])
    models = fit_sizes(PPCA(), [1, 2], train)
    scores = score_sizes(models, test, moments=fold.test)
    np.testing.assert_allclose(scores, [m.score(test) for m in models], rtol=1e-8)


def test_folds_of_which_moments_would_not_do():
    X = ROWS["tall"]
    splits = list(KFold(5).split(X))
    assert fold_moments(PPCA(), X, [1, 2], splits) is not None
    refused = {
        "some rows are left out": [(train[1:], test) for train, test in splits],
        "rows are held out twice": splits + splits,
        "a row is trained on twice": [(np.r_[train, train[:1]], test) for train, test in splits],
        "one fold": splits[:1],
        "folds of few rows": list(KFold(60).split(X)),
        "random folds": list(ShuffleSplit(5, random_state=0).split(X)),
    }
    for reason, others in refused.items():
        assert fold_moments(PPCA(), X, [1, 2], others) is None, reason
    for model in (PCA(), LinearAE(svd_solver="full"), PPCA(solver="em")):
        assert fold_moments(model, X, [1, 2], splits) is None
    X = X.copy()
    X[0, 0] = np.nan
    assert fold_moments(PPCA(), X, [1, 2], splits) is None
    assert fold_moments(LinearAE(), X, [1, 2], splits) is None
    wide = ROWS["wide"]
    assert fold_moments(PPCA(), wide, [1, 2], list(KFold(3).split(wide))) is None
