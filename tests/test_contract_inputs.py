"""The contract's laws of what is given: rows, weights and codes, in every container.

Estimators are discovered, never listed, as in test_contract.py.
"""

import copy
import inspect
from functools import cache

import numpy as np
import pandas as pd
import polars as pl
import pyarrow as pa
import pytest
import torch
from contract_helpers import (
    ESTIMATORS,
    FRAMES,
    as_frame,
    assert_finite,
    assert_same_leaves,
    begun_at_random,
    call,
    codes_of,
    computes_in_float64,
    copy_of_fitted,
    every_estimator,
    every_fit,
    every_forgiving_estimator,
    every_gaussian_network,
    every_kind_of_rows,
    every_sparse_estimator,
    fitted,
    half_at_once,
    law_for,
    leaves,
    make_data,
    may_advise,
    may_miss_values,
    outputs,
    public_methods,
    small,
    tolerance,
)
from numpy.lib.recfunctions import unstructured_to_structured
from scipy import sparse
from sklearn.base import clone
from sklearn.utils import get_tags

# ------------------------------------------------------------------------- the input


@every_kind_of_rows
@pytest.mark.parametrize(("order", "dtype"), half_at_once("CF", ["float64", "float32"]))
def test_input_is_never_modified(Estimator, shape, gaps, order, dtype):
    """Rows, weights and codes are as they were after every method."""
    X = make_data(Estimator, shape, gaps=gaps).astype(dtype, order=order)
    weight = np.linspace(0.0, 2.0, len(X)).astype(dtype)
    rows_before = X.copy()
    model = small(Estimator)
    codes = codes_of(model.fit(X), rows_before.copy())
    given = (X, weight, codes)
    before = (rows_before, *copy.deepcopy(given[1:]))
    for method in ("fit", "fit_transform", "partial_fit"):
        if hasattr(model, method):
            getattr(clone(model), method)(X, sample_weight=weight)
            if method != "fit":
                getattr(clone(model), method)(X)
    for method in public_methods(Estimator):
        if "fit" not in method:
            call(model, method, X, codes)
    model.score(X, sample_weight=weight)
    for now, then in zip(given, before, strict=True):
        np.testing.assert_array_equal(now, then, strict=True)


def as_memmap(X, path):
    mapped = np.memmap(path, dtype=X.dtype, mode="w+", shape=X.shape)
    mapped[:] = X
    return np.memmap(path, dtype=X.dtype, mode="r", shape=X.shape)


def as_read_only(X, path):
    X = X.copy()
    X.flags.writeable = False
    return X


CONTAINERS = {
    "int64": lambda X, path: X.astype("int64"),
    "uint8": lambda X, path: np.abs(X).astype("uint8"),
    "bool": lambda X, path: X > 1,
    "every second row": lambda X, path: np.repeat(X, 2, axis=0)[::2],
    "every second column": lambda X, path: np.repeat(X, 2, axis=1)[:, ::2],
    "backwards": lambda X, path: X[::-1, ::-1],
    "Fortran": lambda X, path: np.asfortranarray(X),
    "read-only": as_read_only,
    "memmap": as_memmap,
    "list": lambda X, path: X.tolist(),
    "torch": lambda X, path: torch.from_numpy(X),
    "torch int": lambda X, path: torch.from_numpy(X).to(torch.int32),
    "pandas": lambda X, path: pd.DataFrame(X),
}


@every_estimator
@pytest.mark.parametrize("contain", CONTAINERS.values(), ids=CONTAINERS)
def test_every_container_gives_the_same(Estimator, contain, tmp_path):
    """Integers, booleans, views, mapped files, lists and tensors compute as float64 arrays do."""
    X = contain(np.round(3 * make_data(Estimator)), tmp_path / "rows")
    plain = np.asarray(X).astype(np.float64, order="C")
    # Where PCA's maps begin, gradients are about zero, and Adam makes steps of their rounding.
    expected = begun_at_random(small(Estimator)).fit(plain)
    model = begun_at_random(small(Estimator)).fit(X)
    assert_same_leaves(outputs(model, X), outputs(expected, plain), tolerance(Estimator))

    codes = contain(np.round(codes_of(expected, plain)), tmp_path / "codes")
    plain_codes = np.asarray(codes).astype(np.float64, order="C")
    decoded = {"inverse_transform": model.inverse_transform(codes)}
    expected_rows = {"inverse_transform": expected.inverse_transform(plain_codes)}
    assert_same_leaves(decoded, expected_rows, tolerance(Estimator))


@cache
def weighted(Estimator):
    """Rows, integer weights and a model that was fitted on both."""
    X = make_data(Estimator)
    weight = np.arange(len(X)) % 3
    return X, weight, small(Estimator).fit(X, sample_weight=weight.astype(np.float64))


@every_estimator
@pytest.mark.parametrize(
    "contain",
    [list, torch.from_numpy, pd.Series, pl.Series, lambda w: w.astype("float32")],
    ids=["list", "torch", "pandas", "polars", "float32"],
)
def test_every_container_of_weights_gives_the_same(Estimator, contain):
    """Weights may be integers, lists, tensors or series."""
    X, weight, expected = weighted(Estimator)
    model = small(Estimator).fit(X, sample_weight=contain(weight))
    assert_same_leaves(outputs(model, X), outputs(expected, X), tolerance(Estimator))
    scores = [m.score(X, sample_weight=contain(weight)) for m in (model, expected)]
    assert scores[0] == pytest.approx(scores[1], rel=tolerance(Estimator))


@every_sparse_estimator
@pytest.mark.parametrize("container", [sparse.csr_array, sparse.csc_array, sparse.csr_matrix])
def test_sparse_rows_compute_as_dense_rows(Estimator, container):
    """Sparse rows give what the same rows give when dense."""
    X = make_data(Estimator)
    X[np.random.default_rng(0).random(X.shape) < 0.5] = 0.0
    model, expected = small(Estimator).fit(container(X)), small(Estimator).fit(X)
    # The two need not share a solver, and iterative ones stop at their own tolerance.
    assert_same_leaves(outputs(model, container(X)), outputs(expected, X), 1e-6)


@every_sparse_estimator
@pytest.mark.parametrize("kind", ["float", "int", "bool"])
def test_sparse_frames_compute_as_dense_rows(Estimator, kind):
    """Frames of pandas whose columns are sparse with the fill value 0 are sparse rows."""
    X = make_data(Estimator)
    X[np.random.default_rng(0).random(X.shape) < 0.5] = 0.0
    X = np.round(X).astype(kind)
    frame = pd.DataFrame(X).astype(pd.SparseDtype(kind, np.zeros(1, kind)[0]))
    model, expected = small(Estimator).fit(frame), small(Estimator).fit(X.astype(float))
    found, wanted = (m.inverse_transform(m.transform(X)) for m in (model, expected))
    np.testing.assert_allclose(found, wanted, rtol=1e-6, atol=1e-6)
    assert model.score(frame) == pytest.approx(expected.score(X), rel=1e-6)


@every_estimator
@pytest.mark.parametrize("fill", [np.nan, 1.0])
def test_fill_values_of_sparse_frames(Estimator, fill):
    """The message says how to give other fill values; what it says works."""
    X = make_data(Estimator)
    X[0, 0] = 1.0
    frame = pd.DataFrame(X, columns=[f"c{i}" for i in range(X.shape[1])])
    frame = frame.astype(pd.SparseDtype(float, fill))
    message = rf"column 'c0', has sparse values with the fill value {fill}.*X\.sparse\.to_dense\(\)"
    with pytest.raises(ValueError, match=message):
        small(Estimator).fit(frame)
    small(Estimator).fit(frame.sparse.to_dense())
    zero = frame.astype(pd.SparseDtype(float, 0.0))
    if get_tags(small(Estimator)).input_tags.sparse:
        small(Estimator).fit(zero)
    else:
        with pytest.raises(TypeError, match=r"dense rows only. Give X\.sparse\.to_dense\(\)"):
            small(Estimator).fit(zero)


@every_estimator
@pytest.mark.parametrize(
    ("dtype", "narrow"),
    [
        ("float64", False),
        ("float32", True),
        ("float16", True),
        ("int64", False),
        ("int32", False),
        ("int16", True),
        ("uint8", True),
        ("bool", True),
    ],
)
def test_dtype(Estimator, dtype, narrow):
    """float32 rows give float32, others float64. Networks give codes and scores in float32, and
    rows, too, of a type of which float32 keeps every value (`narrow`)."""
    wide = computes_in_float64(Estimator)
    expected = "float32" if dtype == "float32" else "float64" if wide else "float32"
    of_rows = expected if wide else "float32" if narrow else "float64"
    X = make_data(Estimator)
    X = X > 1 if dtype == "bool" else np.abs(3 * X).astype(dtype)
    weight = np.ones(len(X))  # float64 weights do not widen float32 rows
    for model in (small(Estimator).fit(X), small(Estimator).fit(X, sample_weight=weight)):
        values = outputs(model, X)
        del values["score"]
        values["fit_transform"] = clone(model).fit_transform(X, sample_weight=weight)
        given = {name: value.dtype.name for name, value in values.items()}
        for name in ("transform", "fit_transform"):
            if values[name].dtype.kind == "i":
                assert given.pop(name) == "int64", name
        rows = {name: given.pop(name) for name in list(given) if name in OF_ROWS}
        assert given == dict.fromkeys(given, expected)
        assert rows == dict.fromkeys(OF_ROWS, of_rows)


# What comes back in the units of the rows.
OF_ROWS = ("inverse_transform", "reconstruct", "sample", "sample without noise")


@every_gaussian_network
@pytest.mark.parametrize("gaps", [0.0, 0.1])
def test_networks_explain_as_much_far_from_zero(Estimator, gaps):
    """At an offset of which float32 holds every eighth number alone, rows of spread 1 to 3."""
    X = make_data(Estimator, (200, 6), gaps=gaps)
    seen = ~np.isnan(X)
    shares = []
    for offset in (0.0, 1e8):
        rows = X + offset
        model = small(Estimator).set_params(max_iter=15).fit(rows)
        residuals = (rows - model.reconstruct(rows))[seen]
        shares.append(1 - residuals.var() / rows[seen].var())
        drawn = model.sample(2000, random_state=0)
        assert np.abs(drawn - offset - model.sample(2000, noise=False, random_state=0)).max() > 0
        np.testing.assert_allclose(drawn.mean(0) - offset, np.nanmean(X, 0), atol=1.0)
    assert shares[1] == pytest.approx(shares[0], abs=2e-3)


# ------------------------------------------------------------------------ data frames


@every_estimator
@pytest.mark.parametrize("given", ["pandas", "polars", "array"])
@pytest.mark.parametrize("wanted", ["pandas", "polars"])
def test_frames_in_and_out(Estimator, given, wanted):
    """set_output gives frames out of every method: the input's names, index and values."""
    X = make_data(Estimator)
    names = [f"x{i}" for i in range(X.shape[1])]
    rows = X
    if given != "array":
        names = [f"column {i}" for i in range(X.shape[1])]
        rows = as_frame(given, X, names)
    plain = fitted(Estimator)
    model = small(Estimator).set_output(transform=wanted).fit(rows)
    codes = model.transform(rows)

    # Method -> the frame, the same as an array, the frame's columns.
    code_names = list(model.get_feature_names_out())
    Z = plain.transform(X)
    framed = {
        "transform": (codes, Z, code_names),
        "fit_transform": (clone(model).fit_transform(rows), Z, code_names),
        "inverse_transform": (model.inverse_transform(codes), plain.inverse_transform(Z), names),
        "reconstruct": (model.reconstruct(rows), plain.reconstruct(X), names),
    }
    if hasattr(model, "impute"):
        gaps = make_data(Estimator, gaps=0.2)
        gappy = gaps if given == "array" else as_frame(given, gaps, names)
        framed["impute"] = (model.impute(gappy), plain.impute(gaps), names)
    for method, (frame, array, columns) in framed.items():
        assert isinstance(frame, FRAMES[wanted]), method
        assert list(frame.columns) == columns, method
        assert_same_leaves({method: frame.to_numpy()}, {method: array}, tolerance(Estimator))
        if wanted == "pandas":
            index = rows.index if given == "pandas" else pd.RangeIndex(len(X))
            pd.testing.assert_index_equal(frame.index, index, exact=False)

    drawn = model.sample(3, random_state=0)
    assert isinstance(drawn, FRAMES[wanted])
    assert list(drawn.columns) == names
    assert_same_leaves(
        {"": drawn.to_numpy()}, {"": plain.sample(3, random_state=0)}, tolerance(Estimator)
    )
    np.testing.assert_allclose(model.score_samples(rows), plain.score_samples(X), rtol=1e-5)


@every_estimator
@pytest.mark.parametrize("given", ["pandas", "polars"])
def test_arrays_out_of_frames_by_default(Estimator, given):
    """Without set_output every method returns arrays, also for frames."""
    X = make_data(Estimator)
    rows = as_frame(given, X, list("abcdef"))
    model = small(Estimator).fit(rows)
    values = outputs(model, rows)
    assert_same_leaves(values, outputs(fitted(Estimator), X), tolerance(Estimator))
    assert {type(value) for name, value in values.items() if name != "score"} == {np.ndarray}


@every_estimator
@pytest.mark.parametrize("library", ["pandas", "polars"])
def test_codes_in_another_order_are_refused(Estimator, library):
    """A frame of codes whose columns were reordered is an error, not a wrong row."""
    model = fitted(Estimator)
    names = list(model.get_feature_names_out())
    if len(names) < 2:
        pytest.skip("one code has one order")
    codes = as_frame(library, codes_of(model, make_data(Estimator)), names)
    model.inverse_transform(codes)
    with pytest.raises(ValueError, match="order"):
        model.inverse_transform(codes[names[::-1]])


# ------------------------------------------------------------------ values that are missing


def masked(X, share=0.1, seed=1):
    """A masked array whose data, where it is masked, are far off; and NaN in their place."""
    mask = np.random.default_rng(seed).random(X.shape) < share
    filled = np.array(X, dtype=float)
    filled[mask] = np.nan
    return np.ma.array(np.where(mask, -9999, X), mask=mask), filled


def methods_of_rows(Estimator):
    """Public methods of a fitted model that are given rows, and nothing else that is needed."""
    names = [name for name in public_methods(Estimator) if "fit" not in name]
    parameters = {n: inspect.signature(getattr(Estimator, n)).parameters for n in names}
    of_codes = {"inverse_transform", "score_codes", "inverse_gaussianize"}
    return [n for n in names if {"X", "x", "x0"} & set(parameters[n]) and n not in of_codes]


every_way_to_miss = pytest.mark.parametrize(
    "contain",
    [
        lambda X: np.ma.masked_invalid(X),
        lambda X: np.ma.array(np.where(np.isnan(X), -9999, X).astype(int), mask=np.isnan(X)),
        lambda X: list(np.ma.masked_invalid(X)),
        lambda X: pd.DataFrame(X).convert_dtypes(),
        lambda X: pd.DataFrame(X).convert_dtypes(dtype_backend="pyarrow"),
        lambda X: pd.DataFrame(np.where(np.isnan(X), pd.NA, X.astype(object))),
        lambda X: np.where(np.isnan(X), pd.NA, X.astype(object)),
        lambda X: np.where(np.isnan(X), None, X.astype(object)),
        lambda X: np.where(np.isnan(X), pd.NA, X.astype(object)).tolist(),
        lambda X: pl.from_numpy(X).with_columns(pl.all().fill_nan(None)),
        lambda X: pl.from_numpy(X).with_columns(pl.all().fill_nan(None).cast(pl.Int32)),
        lambda X: pl.from_numpy(X).with_columns(pl.all().fill_nan(None).cast(pl.Decimal(9, 1))),
        lambda X: pa.table({f"{i}": pa.array(x, from_pandas=True) for i, x in enumerate(X.T)}),
    ],
    ids=[
        "masked",
        "masked integers",
        "list of masked rows",
        "pandas Int64",
        "pandas of arrow",
        "pandas objects",
        "objects",
        "None",
        "list",
        "polars",
        "polars integers",
        "polars decimals",
        "arrow",
    ],
)


def rows_with_gaps(Estimator):
    return np.round(9 * make_data(Estimator, gaps=0.1))


@cache
def outputs_of_gaps(Estimator):
    """What models of these rows compute, by the method that fitted them."""
    X = rows_with_gaps(Estimator)
    fits = [fit for fit in ("fit", "partial_fit") if hasattr(Estimator, fit)]
    return {fit: outputs(getattr(small(Estimator), fit)(X), X) for fit in fits}


@every_forgiving_estimator
@every_way_to_miss
def test_what_is_masked_or_null_is_missing(Estimator, contain):
    """A mask, pandas' NA and nulls compute, bit for bit, as NaN does in a float64 array."""
    rows = contain(rows_with_gaps(Estimator))
    for fit, expected in outputs_of_gaps(Estimator).items():
        model = getattr(small(Estimator), fit)(rows)
        assert_same_leaves(outputs(model, rows), expected)


@may_advise
@law_for([E for E in ESTIMATORS if not may_miss_values(E)])
@every_way_to_miss
def test_what_is_masked_or_null_is_refused(Estimator, contain):
    """Where NaN is not allowed it is an error that says what was given, in every method."""
    rows = contain(rows_with_gaps(Estimator))
    for fit in ("fit", "fit_transform", "partial_fit"):
        if hasattr(Estimator, fit):
            with pytest.raises(ValueError, match=r"NaN|X is a masked array, of which \d+"):
                getattr(small(Estimator), fit)(rows)
    for method in ("transform", "reconstruct", "score_samples", "score"):
        with pytest.raises(ValueError, match=r"NaN|X is a masked array, of which \d+"):
            getattr(fitted(Estimator), method)(rows)


@pytest.mark.parametrize(
    ("Estimator", "method"),
    [
        pytest.param(E, method, id=f"{E.__name__}-{method}")
        for E in ESTIMATORS
        for method in methods_of_rows(E)
    ],
)
def test_every_method_of_rows_sees_the_mask(Estimator, method):
    """Masked rows compute as rows of NaN, or are refused, in every method that takes rows."""
    model, X = fitted(Estimator), make_data(Estimator)
    rows, filled = masked(X)
    codes = codes_of(model, X)
    if may_miss_values(Estimator):
        expected = call(model, method, filled, codes)
        assert_same_leaves(dict(leaves(call(model, method, rows, codes))), dict(leaves(expected)))
    else:
        rows = rows[np.ma.getmaskarray(rows).any(axis=1)]
        with pytest.raises(ValueError, match="X is a masked array"):
            call(model, method, rows, codes)


@law_for([E for E in ESTIMATORS if hasattr(E, "interpolate")])
def test_single_rows_keep_their_mask(Estimator):
    """Also one of one dimension; values to set a code to are seen."""
    model, X = fitted(Estimator), make_data(Estimator)
    rows, filled = masked(X, share=0.3)
    if may_miss_values(Estimator):
        for row, same in ((rows[0], filled[0]), (rows[:1], filled[:1])):
            expected = model.interpolate(same, X[1])
            np.testing.assert_array_equal(model.interpolate(row, X[1]), expected)
    else:
        with pytest.raises(ValueError, match="X is a masked array"):
            model.interpolate(rows[0], X[1])
    with pytest.raises(ValueError, match="values is a masked array"):
        model.traverse(X[0], 0, np.ma.masked_less([-1.0, 1.0], 0))


@every_estimator
def test_masked_arrays_without_a_masked_value(Estimator):
    """They are plain arrays: rows, codes and weights."""
    X, model = make_data(Estimator), fitted(Estimator)
    weight = np.ma.ones(len(X))
    for mask in (np.ma.nomask, False):
        rows = np.ma.array(X, mask=mask)
        assert_same_leaves(outputs(small(Estimator).fit(rows), rows), outputs(model, X))
        codes = np.ma.array(codes_of(model, X), mask=mask)
        expected = model.inverse_transform(codes.data)
        np.testing.assert_array_equal(model.inverse_transform(codes), expected)
    assert model.score(rows, sample_weight=weight) == pytest.approx(model.score(X))


@every_estimator
def test_masked_codes_and_weights_are_refused(Estimator):
    """Codes and weights are complete: a mask is an error that names them."""
    X, model = make_data(Estimator), fitted(Estimator)
    codes, _ = masked(codes_of(model, X), share=0.5)
    with pytest.raises(ValueError, match="X is a masked array"):
        model.inverse_transform(codes)
    weight, _ = masked(np.ones(len(X)))
    for method in (small(Estimator).fit, small(Estimator).fit_transform, model.score):
        with pytest.raises(ValueError, match="sample_weight is a masked array"):
            method(X, sample_weight=weight)


@law_for([E for E in ESTIMATORS if "conditional" in E().get_params()])
def test_masked_targets_are_refused(Estimator):
    """Targets that a model is conditioned on are complete, in fit and afterwards."""
    X = make_data(Estimator)
    y, _ = masked(np.arange(len(X)) % 2)
    model = small(Estimator).set_params(conditional=True)
    with pytest.raises(ValueError, match="y is a masked array"):
        clone(model).fit(X, y)
    with pytest.raises(ValueError, match="y is a masked array"):
        model.fit(X, y.data % 2).score_samples(X, y)


@every_forgiving_estimator
def test_columns_without_a_value_are_refused(Estimator):
    """Of a column that is NaN in every row that counts nothing is learned: an error names it."""
    X = make_data(Estimator, gaps=0.1)
    empty = X.copy()
    empty[:, [2, 4]] = np.nan
    almost = empty.copy()
    almost[7, [2, 4]] = 1.0
    weight = np.ones(len(X))
    weight[7] = 0.0
    small(Estimator).fit(almost)
    for fit in ("fit", "fit_transform", "partial_fit"):
        if not hasattr(Estimator, fit):
            continue
        learn = getattr(small(Estimator), fit)
        for rows, options in ((empty, {}), (almost, {"sample_weight": weight})):
            with pytest.raises(ValueError, match=r"Columns \[2, 4\] of X are NaN in every row"):
                learn(rows, **options)
        with pytest.raises(ValueError, match=r"Columns \['c', 'e'\] of X are NaN in every row"):
            learn(pd.DataFrame(empty, columns=list("abcdef")))
        with pytest.raises(ValueError, match=r"Columns \[2, 4\] of X are NaN in every row"):
            learn(np.ma.masked_invalid(empty))


@law_for([E for E in ESTIMATORS if may_miss_values(E) and hasattr(E, "partial_fit")])
def test_columns_without_a_value_later_in_a_stream(Estimator):
    """After a first batch that had a value in every column, a batch may have none of one."""
    X = make_data(Estimator, gaps=0.1)
    later = X[:20].copy()
    later[:, 2] = np.nan
    model = small(Estimator).partial_fit(X).partial_fit(later)
    assert_finite(outputs(model, X))
    assert_finite(outputs(model, later))
    if "warm_start" in model.get_params():
        model.set_params(warm_start=True).fit(later)
        assert_finite(outputs(model, later))


# ------------------------------------------------------------------------ tensors, sparse rows


@every_estimator
def test_bfloat16_computes_as_float32(Estimator):
    """NumPy has no bfloat16: such tensors become float32, rows, codes and weights."""
    X = torch.from_numpy(make_data(Estimator)).bfloat16()
    plain = X.float().numpy()
    weight = torch.linspace(0.5, 2, len(X)).bfloat16()
    model = small(Estimator).fit(X, sample_weight=weight)
    expected = small(Estimator).fit(plain, sample_weight=weight.float().numpy())
    assert_same_leaves(outputs(model, X), outputs(expected, plain))
    codes = torch.from_numpy(codes_of(expected, plain))
    codes = torch.round(4 * codes).bfloat16() / 4 if codes.is_floating_point() else codes
    decoded = expected.inverse_transform(codes.float().numpy())
    np.testing.assert_array_equal(model.inverse_transform(codes), decoded)


@every_estimator
def test_tensors_with_gradients_are_rows(Estimator):
    """Nothing that is learned goes back through them."""
    X = make_data(Estimator)
    rows = torch.tensor(X, requires_grad=True)
    assert_same_leaves(outputs(small(Estimator).fit(rows), rows), outputs(fitted(Estimator), X))


@law_for([E for E in ESTIMATORS if not get_tags(small(E)).input_tags.sparse])
def test_sparse_rows_are_refused_where_no_tag_allows_them(Estimator):
    """And no docstring promises them."""
    rows = sparse.csr_array(make_data(Estimator))
    for method in (small(Estimator).fit, fitted(Estimator).transform):
        with pytest.raises(TypeError, match=r"(?i)sparse"):
            method(rows)
    for name in ("fit", "fit_transform", "transform", "reconstruct", "score_samples", "score"):
        assert "sparse matrix}" not in getattr(Estimator, name).__doc__


# ------------------------------------------------------------------------ wrong input

# What is wrong -> how to make it of good rows, and what the message must name.
WRONG = {
    "no rows": (lambda X: X[:0], r"0 sample"),
    "no columns": (lambda X: X[:, :0], r"0 feature"),
    "1-D": (lambda X: X[0], r"1D array"),
    "3-D": (lambda X: X[:, :, None], r"3 dimensions.*X\.reshape\(len\(X\), -1\)"),
    "4-D": (lambda X: X.reshape(len(X), 1, -1, 1), r"4 dimensions.*X\.reshape\(len\(X\), -1\)"),
    "list of images": (lambda X: X[:, :, None].tolist(), r"3 dimensions.*reshape"),
    "dates": (lambda X: X.astype("int64").astype("M8[D]"), r"(?i)X .*dates.* numbers"),
    "durations": (lambda X: X.astype("int64").astype("m8[s]"), r"(?i)X .*times.* numbers"),
    "list of dates": (lambda X: X.astype("int64").astype("M8[D]").tolist(), r"dates.* numbers"),
    "objects of dates": (lambda X: X.astype("int64").astype("M8[s]").astype(object), r"dates"),
    "masked dates": (lambda X: np.ma.array(X.astype("int64").astype("M8[D]")), r"dates"),
    "pandas dates": (lambda X: dated(pd.DataFrame(X)), r"column 1.*dates.* numbers"),
    "pandas dates with a zone": (
        lambda X: dated(pd.DataFrame(X), "datetime64[s, UTC]"),
        r"column 1.*dates.* numbers",
    ),
    "pandas periods": (
        lambda X: pd.DataFrame(X).assign(p=pd.period_range("2000", periods=len(X))),
        r"column 'p'.*dates.* numbers",
    ),
    "polars dates": (
        lambda X: pl.DataFrame(X).with_columns(d=pl.date(2000, 1, 1)),
        r"column 'd'.*dates.* numbers",
    ),
    "arrow dates": (
        lambda X: pa.table({"a": X[:, 0], "d": X[:, 0].astype("int64").astype("M8[s]")}),
        r"column 'd'.*dates.* numbers",
    ),
    "polars strings": (lambda X: pl.DataFrame({"a": ["one"] * len(X)}), r"string|column 'a'"),
    "names that repeat": (
        lambda X: pd.DataFrame(np.c_[X, X], columns=["a"] * (2 * X.shape[1])),
        r"X has several columns with the same name.*Rename",
    ),
    "scalar": (lambda X: 1.0, r"scalar"),
    "complex": (lambda X: X + 1j, r"(?i)complex"),
    "strings": (lambda X: np.full(X.shape, "one"), r"string|only the level"),
    "objects": (lambda X: np.full(X.shape, "one", dtype=object), r"'one'"),
    "ragged": (lambda X: [[1.0, 2.0], [3.0]], r"X\b"),
    "a set": (lambda X: {1.0, 2.0}, r"X\b"),
    "a mapping": (lambda X: {"a": [1.0, 2.0]}, r"X\b"),
    "functions": (lambda X: np.full(X.shape, len), r"X: .*not 'builtin"),
    "text beside numbers": (lambda X: [[1.0, "one"]] * 5, r"X\b"),
    "integers beyond floats": (lambda X: [[10**400] * X.shape[1]] * 5, r"X.*too large"),
    "structured": (lambda X: unstructured_to_structured(X * 1.0), r"X\b"),
    "sparse tensor": (lambda X: torch.tensor(X).to_sparse(), r"X is a tensor .*dense"),
    "tensor without values": (lambda X: torch.tensor(X).to("meta"), r"X is a tensor"),
    "lazy polars": (lambda X: pl.DataFrame(X).lazy(), r"X is a lazy frame.*collect"),
    "infinite": (lambda X: np.where(X.max() == X, np.inf, X), r"infinity"),
    "minus infinite": (lambda X: np.where(X.max() == X, -np.inf, X), r"infinity"),
}


def dated(frame, dtype="datetime64[s]"):
    """A frame of numbers with dates in its second column, one of them missing."""
    dates = pd.Series(pd.date_range("2000", periods=len(frame)))
    dates = dates.dt.tz_localize("UTC") if "UTC" in dtype else dates
    frame = frame.copy()
    frame[1] = dates.astype(dtype).where(dates.index > 0)
    return frame


every_wrong_input = pytest.mark.parametrize(("wrong", "named"), WRONG.values(), ids=WRONG)


@every_fit
@every_wrong_input
def test_wrong_training_rows(Estimator, fit, wrong, named):
    """Training rows that are none are a ValueError or TypeError that names what was given."""
    with pytest.raises((ValueError, TypeError), match=named):
        getattr(small(Estimator), fit)(wrong(make_data(Estimator)))


@every_estimator
@every_wrong_input
@pytest.mark.parametrize("method", ["transform", "reconstruct", "score_samples", "score"])
def test_wrong_rows(Estimator, method, wrong, named):
    """Rows that are none are a ValueError or TypeError that names what was given."""
    with pytest.raises((ValueError, TypeError), match=named):
        getattr(fitted(Estimator), method)(wrong(make_data(Estimator)))


@law_for([E for E in ESTIMATORS if hasattr(E, "interpolate")])
@pytest.mark.parametrize(
    ("wrong", "named"),
    [WRONG[k] for k in WRONG if k != "1-D"],
    ids=[k for k in WRONG if k != "1-D"],
)
def test_wrong_ends_of_paths(Estimator, wrong, named):
    """The rows of paths are named as the arguments are, and not X."""
    model, X = fitted(Estimator), make_data(Estimator)
    with pytest.raises((ValueError, TypeError), match=r"\bx0\b"):
        model.interpolate(wrong(X), X[0])
    with pytest.raises((ValueError, TypeError), match=r"\bx\b"):
        model.traverse(wrong(X), 0, [0.0])


@every_estimator
@every_wrong_input
def test_wrong_codes(Estimator, wrong, named):
    """Codes that are none are a ValueError or TypeError that names what was given."""
    model = fitted(Estimator)
    codes = codes_of(model, make_data(Estimator))
    with pytest.raises((ValueError, TypeError), match=named):
        model.inverse_transform(wrong(codes))


@every_estimator
@pytest.mark.parametrize("method", ["transform", "reconstruct", "score_samples", "score"])
@pytest.mark.parametrize("width", [5, 7])
def test_rows_of_the_wrong_width(Estimator, method, width):
    """Rows of another width than in fit are a ValueError that names both widths."""
    with pytest.raises(ValueError, match=f"{width} features.* 6 features"):
        getattr(fitted(Estimator), method)(make_data(Estimator, (60, width)))


@every_estimator
@pytest.mark.parametrize("step", [np.s_[::-1], np.s_[:, ::-1], np.s_[::-1, ::-1]])
def test_one_row_backwards(Estimator, step):
    """NumPy calls an array of one row contiguous, whatever its strides."""
    row = make_data(Estimator)[:1][step]
    plain = np.ascontiguousarray(row + 0.0)
    for method in ("transform", "reconstruct", "score_samples"):
        found, expected = (getattr(fitted(Estimator), method)(rows) for rows in (row, plain))
        np.testing.assert_allclose(found, expected, rtol=tolerance(Estimator))


@every_estimator
@pytest.mark.parametrize("seed", [2**64, -1, "a seed"])
def test_wrong_seeds(Estimator, seed):
    with pytest.raises(ValueError, match="random_state"):
        fitted(Estimator).sample(1, random_state=seed)


@every_estimator
@pytest.mark.parametrize("largest", [1e300, np.finfo(float).max])
def test_weights_near_the_range_of_floats(Estimator, largest):
    """The weighted mean of scores does not depend on the scale of the weights."""
    X, model = make_data(Estimator), fitted(Estimator)
    share = np.linspace(0.5, 1.0, len(X))
    expected = model.score(X, sample_weight=share)
    assert model.score(X, sample_weight=largest * share) == pytest.approx(expected, rel=1e-6)


@law_for([E for E in ESTIMATORS if hasattr(E, "impute")])
def test_imputed_long_doubles_are_doubles(Estimator):
    X = make_data(Estimator).astype(np.longdouble)
    assert fitted(Estimator).impute(X, n_draws=2).dtype == np.float64


@law_for([E for E in ESTIMATORS if hasattr(E, "partial_fit")])
def test_parameters_that_change_in_a_stream_are_validated(Estimator):
    """Not only in the first batch."""
    X, model = make_data(Estimator), copy_of_fitted(Estimator)
    model.set_params(n_components=-1)
    with pytest.raises(ValueError, match="'n_components' parameter"):
        model.partial_fit(X)


@every_estimator
@pytest.mark.parametrize("change", [-1, 1])
def test_codes_of_the_wrong_width(Estimator, change):
    """Codes of another width than transform's are a ValueError that names both widths."""
    model = fitted(Estimator)
    width = len(model.get_feature_names_out())
    if width + change == 0:
        pytest.skip("no columns at all are refused in test_wrong_codes")
    with pytest.raises(ValueError, match=rf"X has {width + change} .*expect\w* {width}\b"):
        model.inverse_transform(np.zeros((3, width + change)))


@every_estimator
@pytest.mark.parametrize(
    ("weight", "named"),
    [
        (np.ones(59), r"sample_weight.*59"),
        (np.ones((60, 1)), r"[Ss]ample.weight"),
        (-np.ones(60), r"[Nn]egative.*sample_weight|sample_weight.*[Nn]egative"),
        (np.full(60, np.nan), r"sample_weight.*NaN|NaN.*sample_weight"),
        (np.full(60, np.inf), r"sample_weight.*infinity|infinity.*sample_weight"),
        (np.zeros(60), r"[Ss]ample.weight"),
    ],
    ids=["too few", "2-D", "negative", "NaN", "infinite", "all zero"],
)
def test_wrong_weights(Estimator, weight, named):
    """Weights that are none are a ValueError that names sample_weight, in fit and score."""
    X = make_data(Estimator)
    for method in (small(Estimator).fit, small(Estimator).fit_transform, fitted(Estimator).score):
        with pytest.raises(ValueError, match=named):
            method(X, sample_weight=weight)


def counts_of(Estimator):
    """Public methods, and of each the arguments that are numbers of something."""
    for method in public_methods(Estimator):
        for name, p in inspect.signature(getattr(Estimator, method)).parameters.items():
            if str(p.annotation) in ("int", "int | None"):
                yield method, name


@pytest.mark.parametrize(
    ("Estimator", "method", "name"),
    [
        pytest.param(E, method, name, id=f"{E.__name__}-{method}-{name}")
        for E in ESTIMATORS
        for method, name in counts_of(E)
    ],
)
@pytest.mark.parametrize("value", [True, np.True_, 1.5, "2", 2**62, 10**30])
def test_arguments_that_are_no_counts(Estimator, method, name, value):
    """True is no number of rows or draws, nor is what no memory holds: it is refused by name."""
    X, model = make_data(Estimator), fitted(Estimator)
    arguments = {"X": X, "x": X[:1], "x0": X[:1], "x1": X[1:2], "values": [0.0]}
    needed = inspect.signature(getattr(Estimator, method)).parameters
    given = {k: v for k, v in arguments.items() if k in needed}
    try:
        getattr(model, method)(**{**given, name: value})
    except (ValueError, TypeError, MemoryError) as error:
        assert name in str(error)  # noqa: PT017
    else:
        assert value in (2**62, 10**30)  # complete rows need no draws
