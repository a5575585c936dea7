"""PPCAImputer: the conventions of scikit-learn's imputers, and the values of PPCA."""

import copy

import numpy as np
import pandas as pd
import polars as pl
import pytest
from numpy.testing import assert_allclose, assert_array_equal
from scipy import sparse
from sklearn import config_context
from sklearn.base import clone
from sklearn.exceptions import NotFittedError
from sklearn.experimental import enable_iterative_imputer  # noqa: F401  provides IterativeImputer
from sklearn.impute import IterativeImputer, KNNImputer, SimpleImputer
from sklearn.linear_model import LinearRegression
from sklearn.model_selection import GridSearchCV, cross_val_score
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler
from sklearn.utils import get_tags
from sklearn.utils.estimator_checks import parametrize_with_checks

from helpers import low_rank_rows, through_joblib, through_pickle, through_skops
from skae import PPCA, PPCAImputer
from skae._utils.interrupts import keeps_progress

X = low_rank_rows(60, 5, gaps=0.15)
NAMES = ["a", "b", "c", "d", "e"]
# One column is complete, and one has no observed value.
HOLES = X.copy()
HOLES[:, 1] = 1.5 * np.nanmean(X, axis=1)
HOLES[:, 3] = np.nan
MARK = -999.0

OTHERS = [SimpleImputer(), KNNImputer(), IterativeImputer(max_iter=3, random_state=0)]
every_other = pytest.mark.parametrize("other", OTHERS, ids=lambda other: type(other).__name__)
every_kind = pytest.mark.parametrize("keep_empty_features", [False, True])
with_and_without_indicator = pytest.mark.parametrize("add_indicator", [False, True])
may_leave_out = pytest.mark.filterwarnings(
    "ignore:.*(had no observed values|without any observed values)"
)
# IterativeImputer has few iterations here.
pytestmark = pytest.mark.filterwarnings("ignore:.*Early stopping criterion not reached")


def imputer(**params):
    return PPCAImputer(**{"n_components": 2, "random_state": 0, **params})


def like(other, model):
    """The other imputer with the parameters that both have."""
    names = ("missing_values", "add_indicator", "keep_empty_features")
    return clone(other).set_params(**{name: getattr(model, name) for name in names})


def assert_same_kind_of_error(call, first, second):
    """Both raise errors of the same type; returns that of the first."""
    with pytest.raises(Exception) as expected:
        call(second)
    with pytest.raises(expected.type) as found:
        call(first)
    return found.value


# ---------------------------------------------------------------- scikit-learn's laws


@pytest.mark.filterwarnings("ignore:The noise variance was raised", "ignore:EM did not converge")
@parametrize_with_checks(
    [
        PPCAImputer(),
        PPCAImputer(1, loadings_prior=None, noise_variance="scalar"),
        PPCAImputer(add_indicator=True, keep_empty_features=True),
        PPCAImputer(missing_values=-1),
    ]
)
def test_scikit_learn_check(estimator, check):
    """All checks pass, without exemption."""
    check(estimator)


# ------------------------------------------------------- conventions of other imputers


@every_other
@every_kind
@with_and_without_indicator
@may_leave_out
def test_columns_are_those_of_other_imputers(other, keep_empty_features, add_indicator):
    """Only the filled-in values differ, in the training rows and in new rows."""
    model = imputer(keep_empty_features=keep_empty_features, add_indicator=add_indicator)
    other = like(other, model)
    new = np.where(np.eye(60, 5, dtype=bool), np.nan, 1.0)  # also where no value was missing in fit
    new[:, 3] = np.nan
    for rows, learns in ((HOLES, True), (new, False)):
        found, expected = (
            m.fit_transform(rows.copy()) if learns else m.transform(rows.copy())
            for m in (model, other)
        )
        assert found.shape == expected.shape
        assert found.dtype == expected.dtype
        assert not np.isnan(found).any()
        columns = [0, 1, 2, 3, 4] if keep_empty_features else [0, 1, 2, 4]
        observed = ~np.isnan(rows[:, columns])
        assert_array_equal(
            found[:, : len(columns)][observed], expected[:, : len(columns)][observed]
        )
        assert_array_equal(found[:, len(columns) :], expected[:, len(columns) :])
        if keep_empty_features:
            assert_array_equal(found[:, 3], np.zeros(60))
    assert (model.indicator_ is None) == (other.indicator_ is None) == (not add_indicator)
    if add_indicator:
        assert_array_equal(model.indicator_.features_, other.indicator_.features_)


@every_kind
@with_and_without_indicator
def test_names_are_those_of_the_simple_imputer(keep_empty_features, add_indicator):
    """Those of KNNImputer lack the columns that are kept."""
    model = imputer(keep_empty_features=keep_empty_features, add_indicator=add_indicator)
    other = like(SimpleImputer(), model)
    for rows in (HOLES, pd.DataFrame(HOLES, columns=NAMES), pd.DataFrame(HOLES)):
        found, expected = model.fit(rows), other.fit(rows)
        assert found.n_features_in_ == expected.n_features_in_
        has_names = hasattr(expected, "feature_names_in_")
        assert hasattr(found, "feature_names_in_") == has_names
        for given in (None, NAMES):
            names = expected.get_feature_names_out(given)
            assert_array_equal(found.get_feature_names_out(given), names, strict=True)
        if has_names:
            assert_array_equal(found.feature_names_in_, expected.feature_names_in_, strict=True)
            assert ("missingindicator_d" in names) == add_indicator


@pytest.mark.parametrize("other", [OTHERS[0], OTHERS[2]], ids=["SimpleImputer", "IterativeImputer"])
@may_leave_out
def test_values_of_new_rows_in_columns_that_were_empty_in_fit(other):
    """Observed ones are kept; all others are 0. KNNImputer would replace them all by 0."""
    found = imputer(keep_empty_features=True).fit(HOLES)
    new = np.array([[1.0, 2, np.nan, 7, 3], [1, 2, 3, np.nan, 5]])
    expected = like(other, found).fit(HOLES).transform(new)
    assert_array_equal(found.transform(new)[:, 3], expected[:, 3])


@every_other
@pytest.mark.parametrize("output", ["pandas", "polars"])
@with_and_without_indicator
def test_frames(other, output, add_indicator):
    """set_output, also as a global setting, gives frames with these names and this index."""
    model = imputer(add_indicator=add_indicator)
    for rows in (pd.DataFrame(X, columns=NAMES, index=np.arange(60) + 7), pl.DataFrame(X, NAMES)):
        expected = like(other, model).set_output(transform=output).fit_transform(rows)
        found = clone(model).set_output(transform=output).fit_transform(rows)
        assert type(found) is type(expected)
        assert list(found.columns) == list(expected.columns)
        assert_array_equal(found.to_numpy()[:, :5], clone(model).fit_transform(X)[:, :5])
        if output == "pandas":
            assert_array_equal(found.index, expected.index)
        with config_context(transform_output=output):
            assert found.equals(clone(model).fit_transform(rows))


@every_other
def test_wrong_input(other):
    """Errors are of the types that the other imputers raise, and name what is wrong."""
    model = imputer()
    other = clone(other)
    for rows, said in (
        (sparse.csr_array(np.eye(9)), "dense"),
        (np.where(np.isnan(X), np.inf, X), "infinity"),
        ([["a", "b"], ["c", "d"]], "convert"),
        (X[0], "2D"),
        (X[:0], "0 sample"),
    ):
        if isinstance(other, SimpleImputer) and sparse.issparse(rows):
            continue
        error = assert_same_kind_of_error(lambda e, X=rows: e.fit(X), model, other)
        assert said in str(error)
    for call, said in (
        (lambda e: clone(e).transform(X), "not fitted"),
        (lambda e: clone(e).get_feature_names_out(), "not fitted"),
        (lambda e: clone(e).fit(X).transform(X[:, :3]), "3 features"),
        (lambda e: clone(e).fit(X).get_feature_names_out(["a"]), "input_features"),
        (lambda e: clone(e).set_params(add_indicator="yes").fit(X), "add_indicator"),
        (lambda e: clone(e).set_params(keep_empty_features=2).fit(X), "keep_empty_features"),
        (lambda e: clone(e).set_params(missing_values=MARK).fit(X), "NaN"),
    ):
        error = assert_same_kind_of_error(call, model, other)
        assert said in str(error)


@every_other
@pytest.mark.parametrize("mark", [np.nan, MARK, 0, pd.NA])
def test_tag_of_missing_values(other, mark):
    model = imputer(missing_values=mark)
    found, expected = (get_tags(m).input_tags for m in (model, like(other, model)))
    # SimpleImputer accepts NaN with NA as the mark, and its tag does not say so.
    assert found.allow_nan == (expected.allow_nan or mark is pd.NA)
    assert not found.sparse


def test_columns_without_observed_values_are_named_when_they_are_left_out():
    model = imputer().fit(pd.DataFrame(HOLES, columns=NAMES))
    with pytest.warns(UserWarning, match=r"Columns \['d'\] of X .* keep_empty_features=True"):
        found = model.transform(pd.DataFrame(HOLES, columns=NAMES))
    assert_array_equal(found, imputer().fit_transform(np.delete(HOLES, 3, axis=1)))


def test_rows_without_any_observed_value_are_refused():
    with pytest.raises(ValueError, match=r"X has no observed value in 60 .*missing_values=nan"):
        imputer(keep_empty_features=True).fit(np.full((60, 5), np.nan))


# ---------------------------------------------------------------------------- values


@pytest.mark.parametrize(
    "params",
    [
        {},
        {"loadings_prior": None, "noise_variance": "scalar"},
        {"noise_variance": "per_feature", "n_components": None},
        {"max_iter": 3, "tol": 0.1},
    ],
)
@pytest.mark.filterwarnings("ignore:EM did not converge")
def test_values_are_conditional_means_of_ppca(params):
    params = {"n_components": 2, "random_state": 0, "loadings_prior": "ard", **params}
    model = PPCA(**params).fit(X)
    found = PPCAImputer(**params).fit(X)
    assert_allclose(found.transform(X), model.impute(X), rtol=1e-12)
    assert found.n_iter_ == model.n_iter_
    assert {name: getattr(found.ppca_, name) for name in params} == params


def test_values_are_conditional_means_of_the_gaussian():
    """m_u + C_uo C_oo^-1 (x_o - m_o), row by row; also in rows without an observed value."""
    model = imputer(loadings_prior=None).fit(X)
    rows = np.vstack([X, np.full(5, np.nan)])
    mean, covariance = model.ppca_.mean_, model.ppca_.get_covariance()
    expected = rows.copy()
    for row in expected:
        u, o = np.flatnonzero(np.isnan(row)), np.flatnonzero(~np.isnan(row))
        gain = np.linalg.solve(covariance[np.ix_(o, o)], covariance[np.ix_(o, u)])
        row[u] = mean[u] + (row[o] - mean[o]) @ gain
    assert_allclose(model.transform(rows), expected, rtol=1e-9)


@pytest.mark.parametrize("dtype", [np.float32, np.float64])
def test_observed_values_are_returned_bit_for_bit(dtype):
    rows = X.astype(dtype)
    rows[0, 0] = -0.0
    assert rows.dtype in get_tags(imputer()).transformer_tags.preserves_dtype
    for fitted_to in (np.float32, np.float64):
        found = imputer(add_indicator=True).fit(X.astype(fitted_to)).transform(rows)
        assert found.dtype == dtype
        observed = ~np.isnan(rows)
        assert found[:, :5][observed].tobytes() == rows[observed].tobytes()
        assert np.isfinite(found).all()


def test_complete_rows_pass_unchanged_and_are_copied():
    complete = low_rank_rows(60, 5, seed=1)
    for model in (imputer().fit(X), imputer().fit(complete)):
        found = model.transform(complete)
        assert_array_equal(found, complete, strict=True)
        assert not np.shares_memory(found, complete)
    before = X.copy()
    imputer().fit_transform(X)
    assert_array_equal(X, before)


def test_rows_do_not_depend_on_other_rows():
    model = imputer().fit(X)
    one_by_one = np.vstack([model.transform(row[None]) for row in X])
    assert_allclose(one_by_one, model.transform(X), rtol=1e-12)


# ----------------------------------------------------------------- marks of missing values


@pytest.mark.parametrize("dtype", [np.float32, np.float64, np.int64])
@pytest.mark.parametrize("mark", [-1, -1.0, np.float64(-1), np.int8(-1)])
def test_a_number_marks_missing_values(dtype, mark):
    counts = np.abs(np.round(np.nan_to_num(10 * X)))
    missing = np.isnan(X)
    marked = np.where(missing, -1, counts).astype(dtype)
    as_nan = np.where(missing, np.nan, counts).astype(np.result_type(dtype, np.float32))
    params = {"add_indicator": True, "keep_empty_features": True}
    found = imputer(missing_values=mark, **params).fit_transform(marked)
    assert_array_equal(found, imputer(**params).fit_transform(as_nan), strict=True)


def test_a_number_that_float32_rounds_is_found():
    rows = np.where(np.isnan(X), 0.1, X).astype(np.float32)
    found = imputer(missing_values=np.float64(0.1)).fit_transform(rows)
    assert_array_equal(found, imputer().fit_transform(X.astype(np.float32)), strict=True)


@pytest.mark.parametrize("mark", [np.nan, pd.NA])
def test_nan_and_na_are_the_same(mark):
    expected = imputer().fit_transform(X)
    frame = pd.DataFrame(X, columns=NAMES)
    for rows in (X, frame.convert_dtypes(), frame.astype(object).where(frame.notna(), pd.NA)):
        assert_array_equal(imputer(missing_values=mark).fit_transform(rows), expected)
    masked = np.ma.masked_invalid(X)
    assert_array_equal(imputer(missing_values=mark).fit_transform(masked), expected)


@pytest.mark.parametrize("mark", [10**400, 1e300])
def test_a_number_that_no_row_has(mark):
    rows = low_rank_rows(30, 4).astype(np.float32)
    if isinstance(mark, int):
        with pytest.raises(ValueError, match="missing_values: int too large"):
            imputer(missing_values=mark).fit(rows)
    else:
        assert_array_equal(imputer(missing_values=mark).fit_transform(rows), rows)


@pytest.mark.parametrize("mark", ["?", None])
def test_marks_that_are_no_numbers_are_refused(mark):
    with pytest.raises(ValueError, match="missing_values"):
        imputer(missing_values=mark).fit(X)


# ---------------------------------------------------------------------------- draws


def test_draws_are_those_of_ppca_and_differ_from_call_to_call():
    """The seed determines the sequence of draws; a new fit begins it again."""
    model = imputer(sample_posterior=True).fit(X)
    first, second = model.transform(X), model.transform(X)
    assert_array_equal(first, model.ppca_.impute(X, n_draws=1, random_state=0)[0])
    missing = np.isnan(X)
    assert (first != second)[missing].all()
    assert_array_equal(first[~missing], X[~missing])
    assert_array_equal(clone(model).fit_transform(X), first)
    assert_array_equal(model.fit(X).transform(X), first)
    assert get_tags(model).non_deterministic
    assert not get_tags(imputer()).non_deterministic


def test_draws_have_the_conditional_moments():
    """Means are those that transform fills in by default; variances those of the Gaussian."""
    row = np.array([[1.0, np.nan, 3.0, np.nan, 2.0]])
    params = {"loadings_prior": None, "noise_variance": "per_feature", "n_components": 1}
    model = imputer(**params).fit(X)
    mean, covariance = model.transform(row)[0], model.ppca_.get_covariance()
    u, o = [1, 3], [0, 2, 4]
    gain = np.linalg.solve(covariance[np.ix_(o, o)], covariance[np.ix_(o, u)])
    expected = covariance[np.ix_(u, u)] - covariance[np.ix_(u, o)] @ gain
    drawing = imputer(sample_posterior=True, **params).fit(X)
    draws = drawing.transform(np.repeat(row, 20_000, axis=0))[:, u]
    spread = np.sqrt(np.diag(expected))
    assert_allclose(draws.mean(axis=0), mean[u], rtol=0, atol=0.03 * spread.max())
    assert_allclose(np.cov(draws.T), expected, rtol=0, atol=0.05 * expected.max())


def test_global_generators_are_not_used():
    before = np.random.get_state()[1].copy()  # noqa: NPY002
    model = imputer(sample_posterior=True, random_state=None)
    assert (model.fit_transform(X) != clone(model).fit_transform(X)).any()
    assert_array_equal(np.random.get_state()[1], before)  # noqa: NPY002


# ---------------------------------------------------------------------------- weights


@with_and_without_indicator
def test_weights_are_numbers_of_copies(add_indicator):
    """Rows of weight 0 are not used, also for columns without values and for the indicator."""
    weight = np.arange(60) % 3
    rows = X.copy()
    rows[:, 0] = np.where(weight == 0, rows[:, 0], np.nan)
    rows[:, 1] = np.where(weight == 0, np.nan, np.nan_to_num(rows[:, 1]))
    params = {"add_indicator": add_indicator, "keep_empty_features": True, "tol": 1e-9}
    found = imputer(**params).fit(rows, sample_weight=weight)
    expected = imputer(**params).fit(np.repeat(rows, weight, axis=0))
    assert_allclose(found.transform(rows), expected.transform(rows), rtol=1e-4, atol=1e-5)
    assert_array_equal(found.fit_transform(rows, sample_weight=weight), found.transform(rows))


def test_metadata_routing():
    weight = np.arange(60) % 3
    expected = imputer().fit(X, sample_weight=weight).transform(X)
    with config_context(enable_metadata_routing=True):
        model = imputer().set_fit_request(sample_weight=True)
        pipeline = make_pipeline(model, LinearRegression().set_fit_request(sample_weight=False))
        pipeline.fit(X, np.ones(60), sample_weight=weight)
    assert_array_equal(pipeline[0].transform(X), expected)


# ---------------------------------------------------------------- pipelines, files, state


def test_in_pipelines_and_searches():
    """Targets that the complete rows determine are predicted better than after column means."""
    complete = low_rank_rows(200, 6, seed=3)
    y = complete @ np.arange(6)
    rows = np.where(np.random.default_rng(0).random(complete.shape) < 0.2, np.nan, complete)
    by_ppca = make_pipeline(StandardScaler(), imputer(), LinearRegression())
    by_means = make_pipeline(StandardScaler(), SimpleImputer(), LinearRegression())
    score, score_of_means = (cross_val_score(m, rows, y).mean() for m in (by_ppca, by_means))
    assert score > score_of_means + 0.05
    search = GridSearchCV(by_ppca, {"ppcaimputer__n_components": [1, 2]}, cv=3).fit(rows, y)
    assert search.best_params_ == {"ppcaimputer__n_components": 2}


@pytest.mark.parametrize("saved_and_loaded", [through_pickle, through_joblib, through_skops])
@may_leave_out
def test_round_trip(saved_and_loaded, tmp_path):
    """A loaded imputer goes on with the draws that the saved one would make."""
    for params in ({"add_indicator": True}, {"sample_posterior": True}):
        model = imputer(**params).fit(HOLES)
        loaded = saved_and_loaded(model, tmp_path / "file")
        assert_array_equal(loaded.transform(HOLES), copy.deepcopy(model).transform(HOLES))
        assert_array_equal(loaded.get_feature_names_out(), model.get_feature_names_out())


def test_a_damaged_state_is_refused():
    saved = imputer().fit(X).__getstate__()
    for name in ("ppca_", "indicator_", "random_state_"):
        damaged = {key: value for key, value in saved.items() if key != name}
        with pytest.raises(ValueError, match=rf"The saved PPCAImputer .*{name} is missing"):
            PPCAImputer().__setstate__(damaged)
    with pytest.raises(ValueError, match=r"_is_empty has shape \(2,\), expected \(5,\)"):
        PPCAImputer().__setstate__({**saved, "_is_empty": saved["_is_empty"][:2]})


def test_a_fit_that_fails_changes_nothing():
    model = imputer(add_indicator=True).fit(X)
    before = model.transform(X)
    with pytest.raises(ValueError, match="n_components=5"):
        model.set_params(n_components=5).fit(X[:, :3])
    assert_array_equal(model.transform(X), before)
    model.set_params(n_components=2, add_indicator=False).fit(X[:, :3])
    assert model.transform(X[:, :3]).shape == (60, 3)


def test_ctrl_c_ends_no_fit_early(monkeypatch):
    """An incomplete model would not be seen in a Pipeline."""
    kept = []
    learn = PPCA._fit_model

    def fit_model(self, *args):
        kept.append(keeps_progress(self))
        return learn(self, *args)

    monkeypatch.setattr(PPCA, "_fit_model", fit_model)
    imputer().fit(X)
    assert kept == [False]
    assert keeps_progress(imputer())


def test_unfitted():
    with pytest.raises(NotFittedError):
        imputer().transform(X)


def test_draws_of_a_collection_of_dask_are_refused():
    da = pytest.importorskip("dask.array")
    lazy = da.from_array(X, chunks=(20, 5))
    model = imputer(sample_posterior=True).fit(lazy)
    assert_array_equal(model.ppca_.loadings_, imputer().fit(X).ppca_.loadings_)
    with pytest.raises(ValueError, match=r"sample_posterior=True .* Dask.*X\.compute\(\)"):
        model.transform(lazy)
