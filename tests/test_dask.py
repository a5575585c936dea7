"""Estimators on collections of Dask, compared with the same rows in memory."""

import pickle
import re
import threading
import warnings
from itertools import pairwise

import cloudpickle
import dask
import dask.array as da
import dask.dataframe as dd
import joblib
import numpy as np
import pandas as pd
import pytest
import sklearn.model_selection
from dask.array.utils import assert_eq as assert_arrays_eq
from dask.dataframe.utils import assert_eq as assert_frames_eq
from distributed import Client, LocalCluster
from scipy import sparse
from sklearn.base import clone
from sklearn.exceptions import NotFittedError
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler

import skae
from skae import (
    PPCA,
    VAE,
    VQVAE,
    Autoencoder,
    CountMixtureAE,
    Ensemble,
    GridSearchCV,
    HelmholtzMachine,
    LatentDensityEstimator,
    LinearAE,
    OutlierDetector,
    PPCAImputer,
)
from skae._dask.dispatch import ROWWISE
from skae._dask.fitted import Fitted

N, D = 230, 6
LENGTHS = (70, 1, 0, 100, 59)
STARTS = np.cumsum((0, *LENGTHS))
NAMES = [*"abcdef"]


def rows(dtype=np.float64, missing=0.0):
    rng = np.random.default_rng(0)
    X = rng.standard_normal((N, D)) @ rng.standard_normal((D, D)) + 3 * rng.standard_normal(D)
    X[rng.random(X.shape) < missing] = np.nan
    if missing:
        X[[4, LENGTHS[0]]] = np.nan  # the second of them is a block of its own
    return X.astype(dtype)


WEIGHT = np.random.default_rng(1).integers(0, 4, N).astype(float)


def partitions(values):
    return [values[a:b] for a, b in pairwise(STARTS)]


def array_of(values, counts=None, *, known=True, columns=None):
    """Values in blocks, the computations of which are counted, one of them without rows."""

    parts = partitions(values)

    def block(i):
        i = int(i[0])
        if counts is not None:
            counts[i] = counts.get(i, 0) + 1
        return parts[i]

    lengths = tuple(map(len, parts)) if known else (np.nan,) * len(parts)
    found = da.arange(len(parts), chunks=1).map_blocks(
        block,
        chunks=(lengths, *((n,) for n in values.shape[1:])),
        new_axis=[1] if values.ndim == 2 else None,
        dtype=values.dtype,
        meta=values[:0],
    )
    return found if columns is None else found.rechunk({1: columns})


def frame_of(frame, counts=None):
    """A data frame whose partitions are counted when they are computed."""

    def partition(i):
        if counts is not None:
            counts[i] = counts.get(i, 0) + 1
        return parts[i]

    parts = partitions(frame)
    return dd.from_map(partition, range(len(parts)), meta=frame.iloc[:0])


def pandas_frame(X=None):
    X = rows() if X is None else X
    return pd.DataFrame(X, columns=NAMES, index=10 + np.arange(len(X)))


def assert_same(model, other, rtol=1e-9):
    """Assert that two estimators have the same attributes of the same types."""
    assert set(vars(model)) == set(vars(other))
    for name in set(vars(model)) - set(model.get_params()):
        a, b = getattr(model, name), getattr(other, name)
        if isinstance(b, tuple) and name == "_stream":
            for values, exact in zip(a, b, strict=True):
                np.testing.assert_allclose(values, exact, rtol=rtol)
        elif isinstance(b, np.ndarray) and b.dtype != object:
            assert a.dtype == b.dtype, name
            np.testing.assert_allclose(
                a, b, rtol=rtol, atol=rtol * np.abs(b).max(initial=0), err_msg=name
            )
        elif isinstance(b, (int, float)):
            assert isinstance(a, (int, float)), name
            assert isinstance(a, int) == isinstance(b, int), name
            np.testing.assert_allclose(a, b, rtol=rtol, err_msg=name)
        else:
            assert np.all(a == b), name


@pytest.fixture(autouse=True)
def _synchronous():
    with dask.config.set(scheduler="synchronous"):
        yield


# ----------------------------------------------------------------------------- fits

CLOSED_FORMS = [
    LinearAE(),
    LinearAE(3),
    LinearAE(0.9),
    LinearAE("mle"),
    LinearAE(2, whiten=True),
    LinearAE(2, alpha=0.1),
    LinearAE(3, svd_solver="full"),
    PPCA(),
    PPCA(2),
    PPCA(0.9),
    PPCA("mle"),
    PPCA("bic"),
    PPCA(2, solver="em", random_state=0),
    PPCA(2, solver="randomized", random_state=0),
    PPCA(2, loadings_prior="ard", rotation="varimax", random_state=0),
    PPCA(2, loadings_prior="ard", noise_variance="scalar", random_state=0),
]


@pytest.mark.parametrize("holes", [False, True])
@pytest.mark.parametrize("model", [LinearAE(2), PPCA(2, random_state=0)], ids=str)
def test_blocks_may_have_weights_of_zero_only(model, holes):
    X, weight = rows(), WEIGHT.copy()
    if holes and isinstance(model, PPCA):
        X[::7, 1] = np.nan
    blocks = array_of(X)
    weight[: blocks.chunks[0][0]] = 0
    assert_same(
        clone(model).fit(blocks, sample_weight=weight),
        clone(model).fit(X, sample_weight=weight),
        rtol=1e-7,
    )
    with pytest.raises(ValueError, match="sample_weight"):
        clone(model).fit(blocks, sample_weight=0 * weight)


@pytest.mark.parametrize("model", CLOSED_FORMS, ids=str)
@pytest.mark.parametrize("weight", [None, WEIGHT], ids=["unweighted", "weighted"])
def test_fits_to_arrays_are_those_in_memory(model, weight):
    X = rows()
    for columns in (None, (4, 2)):
        found = clone(model).fit(array_of(X, columns=columns), sample_weight=weight)
        assert_same(found, clone(model).fit(X, sample_weight=weight))


@pytest.mark.parametrize(
    "model",
    [
        LinearAE(2, svd_solver="arpack", random_state=0),
        LinearAE(svd_solver="arpack", random_state=0),
        LinearAE(2, svd_solver="randomized", random_state=0),
        LinearAE(2, solver="gradient", random_state=0),
        LinearAE(2, solver="gradient", alpha=0.5, random_state=0),
    ],
    ids=str,
)
def test_approximate_solvers_reach_the_exact_result(model):
    found, exact = model.fit(array_of(rows())), clone(model)
    exact.set_params(svd_solver="full", solver="closed_form", n_components=found.n_components_)
    exact.fit(rows())
    for name in ("components_", "explained_variance_", "noise_variance_", "encoder_"):
        np.testing.assert_allclose(
            getattr(found, name), getattr(exact, name), rtol=1e-4, atol=1e-4, err_msg=name
        )
    assert found.n_components_ == clone(model).fit(rows()).n_components_


@pytest.mark.parametrize("model", [LinearAE(2), PPCA(2)], ids=str)
@pytest.mark.parametrize("weight", [None, WEIGHT], ids=["unweighted", "weighted"])
def test_fits_to_data_frames_are_those_in_memory(model, weight):
    frame = pandas_frame()
    exact = clone(model).fit(frame, sample_weight=weight)
    assert_same(clone(model).fit(frame_of(frame), sample_weight=weight), exact)
    with_divisions = dd.from_pandas(frame, npartitions=3)
    assert_same(clone(model).fit(with_divisions, sample_weight=weight), exact)
    assert exact.feature_names_in_.tolist() == NAMES


@pytest.mark.parametrize("model", [LinearAE(2), PPCA(2)], ids=str)
def test_fits_in_float32_have_its_dtype(model):
    X = rows(np.float32)
    assert_same(clone(model).fit(array_of(X)), clone(model).fit(X), rtol=1e-5)


@pytest.mark.parametrize(
    "model",
    [
        PPCA(2),
        PPCA(),
        PPCA(0.8),
        PPCA("bic"),
        PPCA(1, solver="em"),
        PPCA(2, noise_variance="per_feature"),
        PPCA(2, loadings_prior="ard"),
        PPCA(2, loadings_prior="ard", noise_variance="scalar", rotation="quartimax"),
    ],
    ids=str,
)
@pytest.mark.parametrize("weight", [None, WEIGHT], ids=["unweighted", "weighted"])
def test_ppca_with_missing_values_is_that_in_memory(model, weight):
    X = rows(missing=0.2)
    model.set_params(random_state=0, tol=1e-3)
    exact = clone(model).fit(X, sample_weight=weight)
    assert_same(clone(model).fit(array_of(X), sample_weight=weight), exact, rtol=1e-7)
    framed = clone(model).fit(frame_of(pandas_frame(X)), sample_weight=weight)
    np.testing.assert_allclose(framed.loadings_, exact.loadings_, rtol=1e-6)


def test_values_missing_in_one_block_only():
    X = rows()
    X[STARTS[3] + 2, 1] = np.nan
    model = PPCA(2, random_state=0)
    assert_same(clone(model).fit(array_of(X)), clone(model).fit(X), rtol=1e-7)


def test_sparse_blocks():
    X = np.where(np.random.default_rng(0).random((N, D)) < 0.5, rows(), 0.0)
    lazy = array_of(X).map_blocks(sparse.csr_array, dtype=float, meta=sparse.csr_array((0, 0)))
    for model in (PPCA(2), LinearAE(2, svd_solver="covariance_eigh")):
        found = clone(model).fit(lazy)
        np.testing.assert_allclose(found.axes_, clone(model).fit(X).axes_, rtol=1e-9)
        codes = da.concatenate(found.transform(lazy).blocks).compute()
        np.testing.assert_allclose(codes, found.transform(X), atol=1e-9)


@pytest.mark.parametrize("model", [LinearAE(2), PPCA(2), PPCA(2, solver="em")], ids=str)
def test_a_fit_computes_each_block_once(model):
    counts = {}
    X = array_of(rows(), counts, known=False)
    once = dict.fromkeys(range(len(LENGTHS)), 1)
    model.fit(X)
    assert counts == once
    counts.clear()
    frame = frame_of(pandas_frame().assign(w=WEIGHT), counts)
    model.fit(frame[NAMES], sample_weight=frame["w"])
    assert counts == once


def test_em_computes_each_block_once_a_step():
    counts = {}
    X = array_of(rows(missing=0.2), counts)
    model = PPCA(2, random_state=0, max_iter=7, tol=0)
    with pytest.warns(UserWarning, match="did not converge"):
        model.fit(X)
    # One pass finds the missing values, and one gives the covariances of pairs for the start. A
    # step that is too long is taken back, and costs a second pass.
    assert counts == dict.fromkeys(range(len(LENGTHS)), 1 + 1 + 8)


class Sizes(dask.callbacks.Callback):
    """The largest number of values in a result of each kind of task."""

    def __init__(self):
        self.found = {}

    def _posttask(self, key, value, *_):
        name = key[0] if isinstance(key, tuple) else key
        name = name.rpartition("-")[0]
        size = len(pickle.dumps(value))
        self.found[name] = max(self.found.get(name, 0), size)


def test_no_result_but_the_blocks_is_larger_than_a_scatter_matrix():
    many = np.tile(rows(), (40, 1))
    parts = [dask.delayed(many[i : i + 920], name=f"source-{i}") for i in range(0, len(many), 920)]
    X = da.concatenate([da.from_delayed(part, (920, D), dtype=float) for part in parts])
    with Sizes() as sizes:
        PPCA(2).fit(X)
    own = [n for name, n in sizes.found.items() if name.startswith(("call", "combined_stat"))]
    assert len(own) >= 2
    assert max(own) < 8 * D * D + 1000


def test_unknown_lengths_with_weights_of_all_kinds():
    X, exact = rows(), PPCA(2).fit(rows(), sample_weight=WEIGHT)
    unknown = array_of(X, known=False)
    for weight in (
        WEIGHT,
        WEIGHT.tolist(),
        array_of(WEIGHT),
        array_of(WEIGHT, known=False),
        da.from_array(WEIGHT, chunks=50),
    ):
        assert_same(PPCA(2).fit(unknown, sample_weight=weight), exact)
    known = array_of(X)
    for weight in (array_of(WEIGHT, known=False), da.from_array(WEIGHT, chunks=50)):
        assert_same(PPCA(2).fit(known, sample_weight=weight), exact)
    frame = frame_of(pandas_frame())
    for weight in (array_of(WEIGHT), frame_of(pd.DataFrame({"w": WEIGHT}))["w"]):
        np.testing.assert_allclose(PPCA(2).fit(frame, sample_weight=weight).axes_, exact.axes_)
    series = frame_of(pd.DataFrame({"w": WEIGHT}))["w"]
    assert_same(PPCA(2).fit(known, sample_weight=series), exact)
    assert_same(PPCA(2).fit(known, sample_weight=2.0), PPCA(2).fit(X, sample_weight=2.0))


def test_filtered_rows():
    frame = pandas_frame()
    lazy = dd.from_pandas(frame, npartitions=6)
    some, same = lazy[lazy.a > 0], frame[frame.a > 0]
    assert 0 in some.map_partitions(len).compute().tolist()
    found = PPCA(2).fit(some)
    assert_same(found, PPCA(2).fit(same))
    assert_frames_eq(found.set_output(transform="pandas").transform(some), found.transform(same))
    X = lazy.to_dask_array()
    assert_same(PPCA(2).fit(X[X[:, 0] > 0]), PPCA(2).fit(same.to_numpy()))


def test_a_stream_takes_a_collection_as_a_batch():
    X = rows()
    model = LinearAE(2)
    model.partial_fit(da.from_array(X[:100]))
    model.partial_fit(da.from_array(X[100:], chunks=(50, D)), sample_weight=WEIGHT[100:])
    exact = LinearAE(2).partial_fit(X[:100]).partial_fit(X[100:], sample_weight=WEIGHT[100:])
    assert_same(model, exact)


def test_a_fit_by_an_ensemble():
    X = rows()
    found = Ensemble(PPCA(2, random_state=0), 2, random_state=0).fit(array_of(X))
    np.testing.assert_allclose(
        found.score_samples(array_of(X)), PPCA(2).fit(X).score_samples(X), rtol=1e-9
    )


@pytest.mark.parametrize(
    "model", [OutlierDetector(random_state=0), CountMixtureAE(2, random_state=0)], ids=str
)
def test_other_estimators_are_fitted_to_all_rows_in_memory(model):
    frame = pandas_frame(counts())
    exact = clone(model).fit(frame, sample_weight=WEIGHT)
    for weight in (WEIGHT, frame_of(pd.DataFrame({"w": WEIGHT}))["w"]):
        found = clone(model).fit(frame_of(frame), sample_weight=weight)
        assert found.feature_names_in_.tolist() == NAMES
        np.testing.assert_allclose(found.score_samples(frame), exact.score_samples(frame))


def test_masks_and_other_types():
    X = np.random.default_rng(0).integers(0, 9, (N, D))
    lazy = da.from_array(X, chunks=(50, D))
    model = PPCA(2, random_state=0)
    assert_same(clone(model).fit(lazy), clone(model).fit(X))
    assert_arrays_eq(model.fit(X).transform(lazy), model.transform(X))
    masked = np.ma.masked_greater(X.astype(float), 7)
    found = clone(model).fit(da.from_array(masked, chunks=(50, D)))
    assert_same(found, clone(model).fit(masked), rtol=1e-7)
    frame = pandas_frame(X).astype({"a": "Int64", "b": "float32"})
    assert_same(clone(model).fit(frame_of(frame)), clone(model).fit(frame))


def test_two_fits_replace_each_other():
    model = PPCA(3).fit(rows())
    assert_same(model.fit(array_of(rows() * 2)), PPCA(3).fit(rows() * 2))


# --------------------------------------------------------------------------- errors


def with_value(value, where=(200, 1)):
    X = rows()
    X[where] = value
    return X


ERRORS = [
    (LinearAE(2), with_value(np.nan), {}),
    (LinearAE(2), with_value(np.inf), {}),
    (PPCA(2), with_value(-np.inf), {}),
    (PPCA(2), rows()[:1], {}),
    (PPCA(2), rows()[:0], {}),
    (PPCA(2), rows()[:, :0], {}),
    (PPCA(7), rows(), {}),
    (LinearAE(7), rows(), {}),
    (PPCA(0.5, solver="em"), rows(), {}),
    (PPCA(2, solver="closed_form"), with_value(np.nan), {}),
    (PPCA(2), with_value(np.nan, (slice(None), 1)), {}),
    (PPCA(2), rows()[:, 0], {}),
    (PPCA(2), rows().reshape(N, 3, 2), {}),
    (PPCA(2), rows().astype("datetime64[D]"), {}),
    (PPCA(2), rows().astype(str).astype(object) + "x", {}),
    (PPCA(2), rows(), {"sample_weight": -WEIGHT}),
    (PPCA(2), rows(), {"sample_weight": WEIGHT / WEIGHT.sum()}),
    (PPCA(2), rows(), {"sample_weight": 0 * WEIGHT}),
    (PPCA(2), rows(), {"sample_weight": WEIGHT[:-1]}),
    (PPCA(2), rows(), {"sample_weight": np.where(WEIGHT > 2, np.nan, 1)}),
    (LinearAE(2, whiten=True, alpha=1), rows(), {}),
    (LinearAE(0.5, solver="gradient"), rows(), {}),
    (LinearAE(2), rows() * 1e200, {}),
    (PPCA(2), rows() * 1e200, {}),
]


START = re.compile(r"[^.(\n]+")  # of a message, before it names values


@pytest.mark.parametrize(("model", "X", "more"), ERRORS)
def test_errors_are_those_of_arrays(model, X, more):
    with pytest.raises((ValueError, TypeError)) as told:
        clone(model).fit(X, **more)
    model = clone(model)
    with pytest.raises(told.type) as found:
        model.fit(da.from_array(X, chunks=(80, *X.shape[1:])), **more)
    assert vars(model) == vars(clone(model))  # the fit leaves nothing behind
    if "sample_weight" in more and len(more["sample_weight"]) < N:
        assert "sample_weight" in str(found.value)
    else:
        assert START.match(str(found.value))[0] == START.match(str(told.value))[0]


def test_errors_of_data_frames():
    frame = pandas_frame()
    model = PPCA(2).fit(frame)
    lazy = frame_of(frame)
    with pytest.raises(ValueError, match="feature names should match"):
        model.transform(lazy[["b", "a", *NAMES[2:]]])
    with pytest.raises(ValueError, match="feature names should match"):
        model.transform(lazy[NAMES[:3]])
    with pytest.raises(ValueError, match="3 features, but PPCA is expecting 6"):
        PPCA(2).fit(rows()).transform(da.ones((4, 3)))
    with pytest.raises(TypeError, match="column 't', has dates"):
        PPCA(2).fit(frame_of(frame.assign(t=pd.Timestamp("2020-01-01"))))
    with pytest.raises(ValueError, match="could not convert string to float"):
        PPCA(2).fit(frame_of(frame.assign(t="x")))
    with pytest.raises(ValueError, match=r"Columns \['c'\] of X are NaN in every row"):
        PPCA(2).fit(frame_of(frame.assign(c=np.nan)))
    with pytest.raises(ValueError, match="Expected 2D array, got 1D array"):
        PPCA(2).fit(lazy["a"])
    with pytest.raises(ValueError, match="sample_weight has other partitions than X"):
        PPCA(2).fit(lazy, sample_weight=dd.from_pandas(frame["a"], npartitions=2))
    with pytest.raises(ValueError, match="sample_weight"):
        PPCA(2).fit(lazy, sample_weight=dd.from_pandas(frame["a"], npartitions=1))
    weights = dd.from_pandas(frame["a"], npartitions=2)
    with pytest.raises(ValueError, match="sample_weight has other partitions than X"):
        PPCA(2).fit(
            dd.from_pandas(frame, npartitions=2), sample_weight=weights.repartition([10, 40, 239])
        )
    with pytest.raises(ValueError, match="blocks of unknown lengths"):
        PPCA(2).fit(array_of(rows()), sample_weight=array_of(WEIGHT, known=False).blocks[:2])


def test_arrays_with_an_unknown_number_of_columns():
    X = da.from_array(rows(), chunks=(100, D))
    with pytest.raises(ValueError, match="X has an unknown number of columns"):
        PPCA(2).fit(X[:, X[0] > 0])


def test_estimators_that_are_not_fitted():
    with pytest.raises(NotFittedError):
        PPCA(2).transform(array_of(rows()))
    with pytest.raises(NotFittedError):
        PPCA(2).score(array_of(rows()))


def test_a_message_for_polars():
    model = PPCA(2).fit(rows()).set_output(transform="polars")
    with pytest.raises(ValueError, match=r"set_output\(transform='polars'\) is not possible"):
        model.transform(array_of(rows()))


# ---------------------------------------------------------- methods of fitted models

MODELS = [
    LinearAE(2),
    PPCA(2),
    Autoencoder(2, max_iter=2, random_state=0),
    VAE(2, max_iter=2, random_state=0),
    VQVAE(2, n_codes=8, max_iter=2, random_state=0),
    CountMixtureAE(2, random_state=0),
    HelmholtzMachine(2, max_iter=2, random_state=0, likelihood="gaussian"),
    LatentDensityEstimator(n_components=2, n_mixture=2, max_iter=2, random_state=0),
    Ensemble(PPCA(2), 2),
    OutlierDetector(random_state=0),
    PPCAImputer(2, add_indicator=True),
]


def counts():
    return np.abs(rows(np.float32)).round()


def raising(values):
    """A lazy array or data frame of these types whose blocks cannot be computed."""

    def fail(_):
        raise AssertionError("a block was computed")

    return (
        values.map_partitions(fail, meta=values._meta)
        if hasattr(values, "columns")
        else (values.map_blocks(fail, dtype=values.dtype, meta=values._meta))
    )


@pytest.mark.parametrize("model", MODELS, ids=lambda model: type(model).__name__)
@pytest.mark.parametrize("kind", ["array", "frame"])
def test_methods_of_every_model_are_lazy_and_equal_those_in_memory(model, kind):
    X = counts()
    memory = X if kind == "array" else pandas_frame(X)
    model = clone(model).fit(memory)
    lazy = array_of(X) if kind == "array" else frame_of(memory)
    for name in ROWWISE:
        if not callable(getattr(model, name, None)):
            continue
        given, same = lazy, memory
        if name in ("inverse_transform", "score_codes", "inverse_gaussianize"):
            encode = "gaussianize" if name == "inverse_gaussianize" else "transform"
            given, same = (getattr(model, encode)(values) for values in (lazy, memory))
        getattr(model, name)(raising(given))
        found, expected = getattr(model, name)(given), getattr(model, name)(same)
        if not isinstance(found, tuple):
            found, expected = (found,), (expected,)
        for result, value in zip(found, expected, strict=True):
            assert_is_like(result, value, kind, memory)


def assert_is_like(result, value, kind, frame):
    """Assert that a collection has these values and declares its dtype and shape rightly."""
    computed = result.compute()
    np.testing.assert_allclose(np.asarray(computed), np.asarray(value), rtol=2e-4, atol=1e-5)
    if kind == "array" or value.ndim == 3:
        assert isinstance(result, da.Array)
        assert result.dtype == result._meta.dtype == computed.dtype == value.dtype
        assert result.chunks[1:] == tuple((n,) for n in value.shape[1:])
        if kind == "array":
            assert result.chunks[0] == LENGTHS
            assert_arrays_eq(result, computed)
    else:
        assert isinstance(result, dd.DataFrame if value.ndim == 2 else dd.Series)
        assert_frames_eq(result, computed, check_index=True)
        assert computed.index.equals(frame.index)
        np.testing.assert_array_equal(np.unique(result.dtypes), np.unique(value.dtype))


def test_data_frames_have_names_index_and_divisions():
    frame = pandas_frame()
    lazy = dd.from_pandas(frame, npartitions=3)
    model = PPCA(2).fit(frame)
    named = clone(model).fit(frame).set_output(transform="pandas")
    for name in ("transform", "reconstruct", "impute"):
        found = getattr(model, name)(lazy)
        assert found.divisions == lazy.divisions
        assert_frames_eq(found, getattr(named, name)(frame))
    codes = model.transform(lazy)
    assert list(codes.columns) == ["ppca0", "ppca1"]
    assert_frames_eq(model.inverse_transform(codes), named.inverse_transform(codes.compute()))
    scores = model.score_samples(lazy)
    assert scores.divisions == lazy.divisions
    assert_frames_eq(lazy.assign(s=scores), frame.assign(s=model.score_samples(frame)))


def test_set_output_chooses_the_kind_of_collection():
    X, frame = array_of(rows()), frame_of(pandas_frame())
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", "X does not have valid feature names")
        model = PPCA(2).fit(pandas_frame()).set_output(transform="pandas")
        found = model.transform(X)
        assert isinstance(found, dd.DataFrame)
        assert list(found.columns) == ["ppca0", "ppca1"]
        np.testing.assert_allclose(found.compute(), model.transform(rows()))
        assert isinstance(model.score_samples(X), da.Array)
        assert list(model.inverse_transform(array_of(rows()[:, :2])).columns) == NAMES
    model.set_output(transform="default")
    codes = model.transform(frame)
    assert isinstance(codes, da.Array)
    np.testing.assert_allclose(codes.compute(), model.transform(pandas_frame()))
    with sklearn.config_context(transform_output="pandas"):
        assert isinstance(PPCA(2).fit(rows()).transform(X), dd.DataFrame)


def test_scores_and_criteria():
    X, frame = rows(), pandas_frame()
    model = PPCA(2).fit(X)
    for lazy in (array_of(X), array_of(X, known=False), array_of(X, columns=(3, 3))):
        for weight in (None, WEIGHT, array_of(WEIGHT)):
            exact = None if weight is None else WEIGHT
            for method in ("score", "aic", "bic"):
                found = getattr(model, method)(lazy, sample_weight=weight)
                assert isinstance(found, float)
                assert found == pytest.approx(getattr(model, method)(X, sample_weight=exact))
    assert model.score(array_of(X), ["ignored"]) == pytest.approx(model.score(X))
    named = PPCA(2).fit(frame)
    assert named.score(frame_of(frame)) == pytest.approx(named.score(frame))
    only = np.where(np.arange(N) == 3, 2.0, 0.0)
    assert model.score(array_of(X), sample_weight=only) == pytest.approx(
        model.score_samples(X[3:4])[0]
    )
    with pytest.raises(ValueError, match="no rows of positive weight"):
        model.score(array_of(X), sample_weight=0 * WEIGHT)
    ensemble = Ensemble(PPCA(2), 2).fit(X)
    assert ensemble.score(array_of(X)) == pytest.approx(ensemble.score(X))


def test_a_score_computes_each_block_once():
    counts = {}
    PPCA(2).fit(rows()).score(array_of(rows(), counts), sample_weight=WEIGHT)
    assert counts == dict.fromkeys(range(len(LENGTHS)), 1)


def test_fit_transform_fits_and_is_lazy():
    counts = {}
    model = PPCA(2)
    codes = model.fit_transform(array_of(rows(), counts), sample_weight=array_of(WEIGHT))
    assert set(counts.values()) == {1}
    exact = PPCA(2).fit(rows(), sample_weight=WEIGHT)
    assert_arrays_eq(codes, exact.transform(rows()))


def test_results_do_not_change_with_later_fits():
    X = rows()
    model = PPCA(2).fit(X)
    before, codes = model.transform(X), model.transform(array_of(X))
    model.fit(2 * X + 1)
    np.testing.assert_allclose(codes.compute(), before)


def test_equal_calls_have_equal_keys():
    X = array_of(rows())
    model = PPCA(2).fit(rows())
    names = {model.transform(X).name, copy_of(model).transform(X).name}
    assert len(names) == 1
    assert model.reconstruct(X).name not in names
    assert PPCA(2).fit(rows() + 1).transform(X).name not in names


def copy_of(model):
    return pickle.loads(pickle.dumps(model))


def test_draws_differ_between_blocks():
    X = np.tile(rows(missing=0.3)[:10], (3, 1))
    lazy = da.from_array(X, chunks=(10, D))
    model = PPCA(2, random_state=0).fit(rows())
    draws = model.impute(lazy, n_draws=4, random_state=0)
    assert draws.chunks == ((4,), (10, 10, 10), (D,))
    found = draws.compute()
    np.testing.assert_array_equal(found, model.impute(lazy, n_draws=4, random_state=0).compute())
    first, second = found[:, :10], found[:, 10:20]
    seen = ~np.isnan(X[:10])
    np.testing.assert_array_equal(first[:, seen], second[:, seen])
    assert (first[:, ~seen] != second[:, ~seen]).all()
    framed = model.impute(dd.from_pandas(pd.DataFrame(X), npartitions=3), n_draws=2)
    assert framed.compute().shape == (2, 30, D)


@pytest.mark.filterwarnings("ignore:X has feature names, but VQVAE was fitted without")
def test_keywords_and_forms_of_codes():
    X = rows(np.float32)
    model = VQVAE(2, n_codes=8, max_iter=2, random_state=0).fit(X)
    for output in ("indices", "onehot", "embedding"):
        found = model.transform(array_of(X), output=output)
        assert_arrays_eq(found, model.transform(X, output=output))
        framed = model.transform(frame_of(pandas_frame(X)).rename(columns=str), output=output)
        named = clone(model).fit(X).set_output(transform="pandas")
        assert list(framed.columns) == list(named.transform(X, output=output).columns)


@pytest.mark.parametrize("targets", ["labels", "numbers"])
def test_targets_are_divided_like_the_rows(targets):
    X = rows(np.float32)
    y = np.where(X[:, 0] > 3, "high", "low") if targets == "labels" else X[:, 1].astype(float)
    model = VAE(2, conditional=True, max_iter=2, random_state=0).fit(X, y)
    for lazy in (array_of(X), array_of(X, known=False)):
        for given in (y, da.from_array(y, chunks=50), y.tolist()):
            for name in ("reconstruct", "score_samples"):
                np.testing.assert_allclose(
                    getattr(model, name)(lazy, given).compute(),
                    getattr(model, name)(X, y),
                    rtol=1e-4,
                    atol=1e-5,
                )
        assert model.score(lazy, given) == pytest.approx(model.score(X, y), rel=1e-5)
    one = y[0]
    np.testing.assert_allclose(
        model.reconstruct(array_of(X), one).compute(), model.reconstruct(X, one), atol=1e-5
    )


def test_tables_keep_their_types():
    rng = np.random.default_rng(0)
    table = pd.DataFrame(
        {
            "x": rng.standard_normal(N),
            "kind": pd.Categorical(rng.choice(["a", "b", "c"], N)),
            "n": rng.integers(0, 5, N),
        }
    )
    model = Autoencoder(2, likelihood="auto", max_iter=2, random_state=0).fit(table)
    lazy = dd.from_pandas(table, npartitions=3)
    found, expected = model.reconstruct(lazy), model.reconstruct(table)
    assert dict(found.dtypes) == dict(expected.dtypes)
    pd.testing.assert_frame_equal(found.compute(), expected, rtol=1e-4, atol=1e-4)
    codes = model.transform(lazy)
    decoded = model.inverse_transform(codes.to_dask_array(lengths=True))
    expected = model.inverse_transform(model.transform(table))
    pd.testing.assert_frame_equal(decoded.compute(), expected, rtol=1e-4, atol=1e-4)


# --------------------------------------------------------------- pipelines, searches


def test_pipelines_and_searches_map_over_blocks():
    X = rows()
    pipeline = make_pipeline(StandardScaler(), PPCA(2)).fit(X)
    search = GridSearchCV(PPCA(), {"n_components": [1, 2]}).fit(X)
    for model in (pipeline, search):
        codes = skae.dask.map_blocks(model, "transform", raising(array_of(X)))
        assert codes.shape == (N, model.transform(X[:1]).shape[1])
        codes = skae.dask.map_blocks(model, "transform", array_of(X))
        assert_arrays_eq(codes, model.transform(X))
        assert_arrays_eq(
            skae.dask.map_blocks(model, "inverse_transform", codes),
            model.inverse_transform(model.transform(X)),
        )
        assert skae.dask.score(model, array_of(X)) == pytest.approx(model.score(X))
    frame = pandas_frame()
    found = skae.dask.map_blocks(pipeline.fit(frame), "transform", frame_of(frame))
    expected = clone(pipeline).set_output(transform="pandas").fit_transform(frame)
    assert_frames_eq(found, expected)
    with pytest.raises(TypeError, match="X is of type ndarray"):
        skae.dask.map_blocks(pipeline, "transform", X)
    with pytest.raises(TypeError, match="X is of type ndarray"):
        skae.dask.score(pipeline, X)


# ----------------------------------------------------------------------- schedulers


@pytest.mark.parametrize("model", [PPCA(2), VAE(2, max_iter=2, random_state=0)], ids=str)
def test_threads_share_a_model(model):
    X = np.tile(rows(np.float32), (20, 1))
    model.fit(X)
    lazy = da.from_array(X, chunks=(100, D))
    with dask.config.set(scheduler="threads", num_workers=4):
        for name in ("transform", "score_samples", "reconstruct"):
            np.testing.assert_allclose(
                getattr(model, name)(lazy).compute(), getattr(model, name)(X), rtol=1e-3, atol=1e-4
            )
        before = threading.active_count()
        assert model.score(lazy) == pytest.approx(model.score(X), rel=1e-5)
    assert threading.active_count() <= before + 4


def test_processes():
    X = rows()
    with dask.config.set(scheduler="processes", num_workers=1):
        model = PPCA(2).fit(da.from_array(X, chunks=(120, D)))
        assert_same(model, PPCA(2).fit(X))
        codes = model.transform(da.from_array(X, chunks=(120, D))).compute()
    np.testing.assert_allclose(codes, model.transform(X))


@pytest.fixture(scope="module")
def client():
    with (
        LocalCluster(
            n_workers=2, threads_per_worker=1, processes=True, dashboard_address=None
        ) as cluster,
        Client(cluster) as client,
    ):
        yield client


@pytest.fixture
def on_cluster(client):
    with client.as_current(), dask.config.set(scheduler=None):
        yield client


def test_a_cluster_fits_and_transforms(on_cluster):
    X = rows()
    lazy = da.from_array(X, chunks=(40, D))
    assert_same(PPCA(2).fit(lazy), PPCA(2).fit(X))
    frame = pandas_frame()
    partitioned = dd.from_pandas(frame, npartitions=4)
    named = PPCA(2).fit(partitioned)
    exact = PPCA(2).fit(frame)
    np.testing.assert_allclose(
        named.score_samples(partitioned).compute(), exact.score_samples(frame)
    )
    assert named.score(partitioned) == pytest.approx(exact.score(frame))
    network = VAE(2, max_iter=2, random_state=0).fit(rows(np.float32))
    codes = network.transform(da.from_array(rows(np.float32), chunks=(40, D)))
    np.testing.assert_allclose(codes.compute(), network.transform(rows(np.float32)), atol=1e-5)


def test_a_cluster_runs_em(on_cluster):
    X = rows(missing=0.1)
    model = PPCA(1, random_state=0, tol=0.1)
    found = clone(model).fit(da.from_array(X, chunks=(120, D)))
    assert_same(found, clone(model).fit(X), rtol=1e-7)


def test_errors_of_workers_are_those_in_memory(on_cluster):
    with pytest.raises(ValueError, match="Input X contains NaN"):
        LinearAE(2).fit(da.from_array(with_value(np.nan), chunks=(40, D)))


def test_a_model_is_pickled_once_for_all_blocks(on_cluster, monkeypatch):
    pickles = []

    def state(model):
        pickles.append(model)
        return original(model)

    original = PPCA.__getstate__
    model = PPCA(2).fit(rows())
    monkeypatch.setattr(PPCA, "__getstate__", state)
    for lazy in (
        da.from_array(rows(), chunks=(10, D)),
        dd.from_pandas(pandas_frame().rename(columns=str), npartitions=20),
    ):
        pickles.clear()
        with warnings.catch_warnings():
            warnings.filterwarnings("ignore", "X has feature names, but PPCA was fitted without")
            model.score_samples(lazy).compute()
        assert len(pickles) == 1


@pytest.mark.parametrize("kind", ["array", "frame"])
def test_a_model_is_one_constant_of_the_graph(kind):
    X = np.random.default_rng(0).standard_normal((40, 500))
    model = PPCA(30).fit(X)
    lazy = da.from_array(X, chunks=(4, 500))
    codes = model.transform(lazy)
    if kind == "frame":
        named = pd.DataFrame(X).rename(columns=str)
        codes = PPCA(30).fit(named).transform(dd.from_pandas(named, npartitions=10))
    (codes,) = dask.optimize(codes)
    sizes = [len(cloudpickle.dumps(task)) for task in dict(codes.__dask_graph__()).values()]
    assert len(sizes) > 10
    model_size = len(pickle.dumps(model))
    assert sum(size > model_size / 2 for size in sizes) == 1


def test_a_process_restores_a_model_once():
    fitted = Fitted.of(PPCA(2).fit(rows()), None)
    first, second = copy_of(fitted), copy_of(fitted)
    assert first.model is second.model
    other = Fitted.of(PPCA(3).fit(rows()), None)
    assert copy_of(other).model.n_components_ == 3
    assert copy_of(fitted).model.n_components_ == 2


SEARCHES = [
    (PPCA(), {"n_components": [1, 2]}),
    (VAE(1, max_iter=2, random_state=0), {"n_components": [1, 2], "learning_rate_init": [1e-3]}),
    (make_pipeline(StandardScaler(), LinearAE()), {"linearae__n_components": [1, 2]}),
    (Ensemble(PPCA(1), 2, random_state=0), {"estimator__n_components": [1, 2]}),
]


@pytest.mark.parametrize(("model", "grid"), SEARCHES)
@pytest.mark.parametrize("search", [GridSearchCV, sklearn.model_selection.GridSearchCV])
def test_searches_on_a_cluster_are_sequential_ones(on_cluster, model, grid, search):
    X = rows(np.float32)
    expected = search(clone(model), grid, cv=2).fit(X)
    with joblib.parallel_config(backend="dask"):
        found = search(clone(model), grid, cv=2).fit(X)
    for name in ("mean_test_score", "split0_test_score", "split1_test_score"):
        np.testing.assert_allclose(
            found.cv_results_[name], expected.cv_results_[name], rtol=1e-5, err_msg=name
        )
    assert found.best_params_ == expected.best_params_
    np.testing.assert_allclose(found.score(X), expected.score(X), rtol=1e-5)
