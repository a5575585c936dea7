"""Streams of batches: exact for complete rows, near the fit of all rows if values are missing."""

import copy
import pickle

import dask.array as da
import numpy as np
import pytest
from scipy import sparse

from helpers import low_rank_rows
from skae import PPCA

KINDS = {
    "ppca": {"n_components": 2},
    "factors": {"n_components": 2, "noise_variance": "per_feature"},
    "prior": {"n_components": 4, "loadings_prior": "ard"},
}


def rows(n=600, missing=0.0, seed=0):
    X = low_rank_rows(n, 7, scales=(4.0, 2.0), noise=0.5, mean=3.0, seed=seed)
    hole = np.random.default_rng(seed + 1).random(X.shape) < missing
    return np.where(hole, np.nan, X)


def streamed(X, n_batches, sample_weight=None, **params):
    model = PPCA(random_state=0, **params)
    for index in np.array_split(np.arange(X.shape[0]), n_batches):
        weight = None if sample_weight is None else sample_weight[index]
        model.partial_fit(X[index], sample_weight=weight)
    return model


@pytest.mark.filterwarnings("ignore:The noise variance of 1 feature:UserWarning")  # of few rows
@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("n_batches", [1, 7, 20])
def test_complete_rows_in_any_batches_give_the_model_of_all(kind, n_batches):
    X = rows()
    weight = np.random.default_rng(2).uniform(0.5, 2.0, len(X))
    for given in (None, weight):
        model = streamed(X, n_batches, given, **KINDS[kind])
        expected = PPCA(random_state=0, **KINDS[kind]).fit(X, sample_weight=given)
        np.testing.assert_allclose(model.mean_, expected.mean_, rtol=1e-10)
        np.testing.assert_allclose(model.get_covariance(), expected.get_covariance(), atol=2e-4)
        assert model.score(X) == pytest.approx(expected.score(X), abs=1e-6)
        assert model.n_samples_ == pytest.approx(expected.n_samples_)


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("weighted", [False, True])
def test_a_stream_with_missing_values_is_near_the_fit_of_all(kind, weighted):
    X, new = np.split(rows(15_000, 0.2), [12_000])
    weight = np.random.default_rng(2).integers(1, 4, len(X)) if weighted else None
    model = streamed(X, 12, weight, **KINDS[kind])
    expected = PPCA(random_state=0, **KINDS[kind]).fit(X, sample_weight=weight)
    assert model.score(new) == pytest.approx(expected.score(new), abs=0.02)
    one = PPCA(random_state=0, **KINDS[kind]).fit(X[:100])
    assert one.score(new) < model.score(new)  # so that later batches count
    assert model.n_samples_ == expected.n_samples_
    assert model.n_components_ == 2


def test_one_batch_is_fitted_to_convergence():
    X = rows(500, 0.2)
    model, expected = streamed(X, 1, n_components=2), PPCA(2, random_state=0).fit(X)
    assert model.score(X) == pytest.approx(expected.score(X), abs=0.01)


@pytest.mark.parametrize("kind", KINDS)
def test_missing_values_may_begin_and_end_in_the_stream(kind):
    X, new = np.split(rows(8000), [6000])
    hole = np.random.default_rng(3).random(X.shape) < 0.3
    hole[:2000] = hole[4000:] = False
    model = streamed(np.where(hole, np.nan, X), 6, **KINDS[kind])
    expected = PPCA(random_state=0, **KINDS[kind]).fit(X)
    assert model.score(new) == pytest.approx(expected.score(new), abs=0.03)


def test_rows_without_any_value_count_as_rows_only():
    X = rows(400, 0.2)
    empty = np.full((50, 7), np.nan)
    model = streamed(X, 2, n_components=2)
    before = copy.deepcopy(model)
    model.partial_fit(empty)
    assert model.n_samples_ == before.n_samples_ + 50
    assert model.score(X) == pytest.approx(before.score(X), abs=1e-2)


def test_after_fit_the_earlier_rows_count_with_their_number():
    first, second = rows(300), rows(300, seed=9) + 1.0
    model = PPCA(6).fit(first).partial_fit(second)  # six components keep all but one direction
    expected = PPCA(6).fit(np.vstack([first, second]))
    np.testing.assert_allclose(model.mean_, expected.mean_, rtol=1e-10)
    np.testing.assert_allclose(model.get_covariance(), expected.get_covariance(), atol=1e-8)
    assert model.n_samples_ == 600
    anew = model.fit(second)
    np.testing.assert_array_equal(anew.mean_, PPCA(6).fit(second).mean_)
    assert not hasattr(anew, "_stream")


def test_sparse_and_dask_batches_are_those_of_arrays():
    X = np.where(np.random.default_rng(0).random((200, 7)) < 0.5, rows(200), 0.0)
    expected = streamed(X, 2, n_components=2).get_covariance()
    by_sparse = streamed(sparse.csr_array(X), 1, n_components=2).get_covariance()
    lazy = PPCA(2)
    for half in (X[:100], X[100:]):
        lazy.partial_fit(da.from_array(half, chunks=(30, 7)))
    np.testing.assert_allclose(by_sparse, expected, atol=1e-10)
    np.testing.assert_allclose(lazy.get_covariance(), expected, atol=1e-10)


@pytest.mark.parametrize("missing", [0.0, 0.2])
def test_a_stream_continues_after_it_was_saved(missing):
    X = rows(600, missing)
    model = streamed(X[:300], 2, n_components=2)
    loaded = pickle.loads(pickle.dumps(model)).partial_fit(X[300:])
    np.testing.assert_array_equal(loaded.loadings_, model.partial_fit(X[300:]).loadings_)


@pytest.mark.parametrize("missing", [0.0, 0.2])
@pytest.mark.parametrize(
    "batch", [np.ones((3, 6)), np.full((3, 7), np.inf), np.full((3, 7), 1e200)]
)
def test_a_refused_batch_changes_nothing(missing, batch):
    model = streamed(rows(300, missing), 2, n_components=2)
    before = pickle.dumps(model)
    with pytest.raises(ValueError, match=r"features|infinity|range of float64|too large"):
        model.partial_fit(batch)
    assert pickle.dumps(model) == before


def test_first_batches_that_cannot_be_fitted_say_why():
    X = rows(50, 0.2)
    with pytest.raises(ValueError, match="n_components='bic' cannot be used by partial_fit"):
        PPCA("bic").partial_fit(X)
    with pytest.raises(ValueError, match="n_components=5 must be between 1 and"):
        PPCA(5).partial_fit(np.where(np.eye(3, 7) > 0, np.nan, rows(3)))
    X[:, 2] = np.nan
    with pytest.raises(ValueError, match=r"Columns \[2\] of X are NaN in every row"):
        PPCA(2).partial_fit(X)
    with pytest.raises(ValueError, match="sample_weight adds up to"):
        PPCA(2).partial_fit(rows(50, 0.2), sample_weight=np.full(50, 1e-3))
    with pytest.raises(ValueError, match="X contains NaN, which solver='closed_form'"):
        PPCA(2, solver="closed_form").partial_fit(rows(50, 0.2))
    with pytest.raises(ValueError, match="Dask with missing values"):
        PPCA(2).partial_fit(da.from_array(rows(50, 0.2)))
    with pytest.raises(ValueError, match="partial_fit does not accept after batches"):
        PPCA(2).partial_fit(rows(50, 0.2)).partial_fit(da.from_array(rows(50)))
    with pytest.warns(UserWarning, match="did not converge"):
        PPCA(2, max_iter=1, random_state=0).partial_fit(rows(50, 0.2))
    assert not hasattr(PPCA(5).partial_fit(rows(3)), "loadings_")


@pytest.mark.parametrize(
    "changed", [{"loadings_prior": "ard"}, {"noise_variance": "per_feature"}, {"n_components": 3}]
)
def test_the_model_cannot_change_in_a_stream_with_missing_values(changed):
    X = rows(300, 0.2)
    model = streamed(X, 2, n_components=2)
    with pytest.raises(ValueError, match=f"{next(iter(changed))}.* cannot change in a stream"):
        model.set_params(**changed).partial_fit(X)
    assert model.fit(X).partial_fit(X).n_samples_ == 600


def test_attributes_of_an_earlier_fit_do_not_stay():
    X = rows(300, 0.2)
    model = PPCA(2, random_state=0).fit(X)
    assert len(model.log_likelihoods_) == model.n_iter_
    model.partial_fit(X)
    assert not hasattr(model, "log_likelihoods_")
    assert model.n_iter_ == 1
    assert isinstance(streamed(rows(300), 2, n_components=2).partial_fit(X).n_samples_, int)
