"""The contract's laws of what is given: rows, weights and codes, in every container.

Estimators are discovered, never listed, as in test_contract.py.
"""

import copy

import numpy as np
import pandas as pd
import polars as pl
import pytest
import torch
from contract_helpers import (
    FRAMES,
    as_frame,
    assert_same,
    call,
    codes_of,
    computes_in_float64,
    every_estimator,
    every_fit,
    every_kind_of_rows,
    every_sparse_estimator,
    fitted,
    make_data,
    outputs,
    public_methods,
    small,
    tolerance,
)
from scipy import sparse
from sklearn.base import clone

# ------------------------------------------------------------------------- the input


@every_kind_of_rows
@pytest.mark.parametrize("order", ["C", "F"])
@pytest.mark.parametrize("dtype", ["float64", "float32"])
def test_input_is_never_modified(Estimator, shape, gaps, order, dtype):
    """Rows, weights and codes are as they were after every method."""
    X = make_data(Estimator, shape, gaps=gaps).astype(dtype, order=order)
    weight = np.linspace(0.0, 2.0, len(X)).astype(dtype)
    model = small(Estimator)
    codes = codes_of(model.fit(X.copy()), X.copy())
    given = (X, weight, codes)
    before = copy.deepcopy(given)
    for method in ("fit", "fit_transform", "partial_fit"):
        if hasattr(model, method):
            getattr(clone(model), method)(X)
            getattr(clone(model), method)(X, sample_weight=weight)
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
    expected = small(Estimator).fit(plain)
    model = small(Estimator).fit(X)
    assert_same(outputs(model, X), outputs(expected, plain), tolerance(Estimator))

    codes = contain(np.round(codes_of(expected, plain)), tmp_path / "codes")
    plain_codes = np.asarray(codes).astype(np.float64, order="C")
    decoded = {"inverse_transform": model.inverse_transform(codes)}
    expected_rows = {"inverse_transform": expected.inverse_transform(plain_codes)}
    assert_same(decoded, expected_rows, tolerance(Estimator))


@every_estimator
@pytest.mark.parametrize(
    "contain",
    [list, torch.from_numpy, pd.Series, pl.Series, lambda w: w.astype("float32")],
    ids=["list", "torch", "pandas", "polars", "float32"],
)
def test_every_container_of_weights_gives_the_same(Estimator, contain):
    """Weights may be integers, lists, tensors or series."""
    X = make_data(Estimator)
    weight = np.arange(len(X)) % 3
    model = small(Estimator).fit(X, sample_weight=contain(weight))
    expected = small(Estimator).fit(X, sample_weight=weight.astype(np.float64))
    assert_same(outputs(model, X), outputs(expected, X), tolerance(Estimator))
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
    assert_same(outputs(model, container(X)), outputs(expected, X), 1e-6)


@every_estimator
@pytest.mark.parametrize("dtype", ["float64", "float32", "int64", "int32", "uint8", "bool"])
def test_dtype(Estimator, dtype):
    """A model returns the float type it was given if it preserves that, else its widest."""
    wide = computes_in_float64(Estimator)
    preserved = ["float64", "float32"] if wide else ["float32"]
    expected = dtype if dtype in preserved else preserved[0]
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
        assert given == dict.fromkeys(given, expected)


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
    plain = small(Estimator).fit(X)
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
        assert_same({method: frame.to_numpy()}, {method: array}, tolerance(Estimator))
        if wanted == "pandas":
            index = rows.index if given == "pandas" else pd.RangeIndex(len(X))
            pd.testing.assert_index_equal(frame.index, index, exact=False)

    drawn = model.sample(3, random_state=0)
    assert isinstance(drawn, FRAMES[wanted])
    assert list(drawn.columns) == names
    assert_same({"": drawn.to_numpy()}, {"": plain.sample(3, random_state=0)}, tolerance(Estimator))
    np.testing.assert_allclose(model.score_samples(rows), plain.score_samples(X), rtol=1e-5)


@every_estimator
@pytest.mark.parametrize("given", ["pandas", "polars"])
def test_arrays_out_of_frames_by_default(Estimator, given):
    """Without set_output every method returns arrays, also for frames."""
    X = make_data(Estimator)
    rows = as_frame(given, X, list("abcdef"))
    model = small(Estimator).fit(rows)
    values = outputs(model, rows)
    assert_same(values, outputs(fitted(Estimator), X), tolerance(Estimator))
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


# ------------------------------------------------------------------------ wrong input

# What is wrong -> how to make it of good rows, and what the message must name.
WRONG = {
    "no rows": (lambda X: X[:0], r"0 sample"),
    "no columns": (lambda X: X[:, :0], r"0 feature"),
    "1-D": (lambda X: X[0], r"1D array"),
    "3-D": (lambda X: X[:, :, None], r"dim 3|3D"),
    "scalar": (lambda X: 1.0, r"scalar"),
    "complex": (lambda X: X + 1j, r"(?i)complex"),
    "strings": (lambda X: np.full(X.shape, "one"), r"string"),
    "objects": (lambda X: np.full(X.shape, "one", dtype=object), r"'one'"),
    "infinite": (lambda X: np.where(X.max() == X, np.inf, X), r"infinity"),
    "minus infinite": (lambda X: np.where(X.max() == X, -np.inf, X), r"infinity"),
}
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
