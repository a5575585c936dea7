"""Rows on their way into a network, against NumPy in float64 and scikit-learn's checks."""

import numpy as np
import pytest
import torch
from sklearn.utils import check_array

from skae._training import data
from skae._training.data import Data, Dataset, check_finite, chunks, spread_of
from skae._training.loader import Loader, Subset
from skae._training.sources import as_tensor
from skae._training.units import Affine, Units

CPU = torch.device("cpu")
FLOATS = ["float16", "float32", "float64"]
INTEGERS = ["uint8", "int8", "int16", "int32", "int64", "uint16", "uint32", "uint64", "bool"]
OTHERS = [">f8", ">f4", ">i4", "longdouble"]
every_dtype = pytest.mark.parametrize("dtype", [*FLOATS, *INTEGERS, *OTHERS])


def whole_numbers(n=50, n_features=4, dtype="float64", *, missing=0.0, seed=0):
    """Small whole numbers, which every type holds; NaN where asked."""
    rng = np.random.default_rng(seed)
    X = rng.integers(0, 2 if dtype == "bool" else 100, (n, n_features)).astype(dtype)
    if missing:
        X[rng.random(X.shape) < missing] = np.nan
    return X


def on_disk(tmp_path, X, order="C"):
    """A read-only memory map of the rows."""
    made = np.memmap(tmp_path / "rows", dtype=X.dtype, mode="w+", shape=X.shape, order=order)
    made[:] = X
    made.flush()
    return np.memmap(tmp_path / "rows", dtype=X.dtype, mode="r", shape=X.shape, order=order)


def read_only(X):
    X = X.copy()
    X.flags.writeable = False
    return X


def packed(X):
    """A field of records whose length is no multiple of the value's."""
    records = np.zeros(len(X), dtype=[("label", "u1"), ("x", X.dtype, X.shape[1])])
    records["x"] = X
    return records["x"]


LAYOUTS = {
    "C": np.ascontiguousarray,
    "Fortran": np.asfortranarray,
    "rows backwards": lambda X: X[::-1].copy()[::-1],
    "columns backwards": lambda X: X[:, ::-1].copy()[:, ::-1],
    "every second row": lambda X: np.repeat(X, 2, axis=0)[::2],
    "every second column": lambda X: np.repeat(X, 2, axis=1)[:, ::2],
    "some columns": lambda X: np.hstack([X, X])[:, : X.shape[1]],
    "read-only": read_only,
    "packed": packed,
}


def weighted_spread(X, weight):
    """Mean, variance, minimum and maximum of the seen values, one column at a time."""
    X = np.asarray(X, np.longdouble)
    columns = []
    for column in X.T:
        seen = ~np.isnan(column)
        x, w = column[seen], np.asarray(weight, np.longdouble)[seen]
        if not len(x):
            columns.append([0.0] * 4)
            continue
        mean = (w * x).sum() / w.sum()
        columns.append([mean, (w * (x - mean) ** 2).sum() / w.sum(), x.min(), x.max()])
    return np.array(columns, dtype=float).T


def assert_spread(X, weight=None, rtol=1e-12):
    found = spread_of(X, weight)
    expected = weighted_spread(X, np.ones(len(X)) if weight is None else weight)
    for values, wanted, name in zip(found[:4], expected, found._fields[:4], strict=True):
        assert values.dtype == torch.float64
        np.testing.assert_allclose(values, wanted, rtol=rtol, atol=1e-12, err_msg=name)
    assert found.any_missing == bool(np.isnan(np.asarray(X, np.longdouble)).any())


# ---------------------------------------------------------------------------- spread


@pytest.mark.parametrize("chunk_bytes", [1, 7 * 4 * 8, 49 * 4 * 8, 2**20])
@pytest.mark.parametrize("weighted", [False, True])
@pytest.mark.parametrize("missing", [0.0, 0.3, 0.9])
def test_moments_and_range_do_not_depend_on_the_chunks(monkeypatch, missing, weighted, chunk_bytes):
    """One row, seven, all but one or all at a time, with NaN in some of them."""
    monkeypatch.setattr(data, "_CACHED_BYTES", chunk_bytes)
    X = whole_numbers(missing=missing)
    X[:20] = np.nan_to_num(X[:20], nan=3.0)  # some chunks have no NaN
    weight = np.random.default_rng(1).uniform(0.1, 3.0, len(X)) if weighted else None
    assert_spread(X, weight)


@every_dtype
def test_moments_are_those_of_every_type(dtype):
    assert_spread(whole_numbers(dtype=dtype))


@pytest.mark.parametrize("layout", LAYOUTS.values(), ids=LAYOUTS)
def test_moments_are_those_of_every_layout(layout):
    assert_spread(layout(whole_numbers(missing=0.2)))


@pytest.mark.parametrize("chunk_bytes", [1, 2**20])
@pytest.mark.parametrize("weighted", [False, True])
@pytest.mark.parametrize(
    ("dtype", "mean"), [("float32", 1e6), ("float64", 1e8), (">f8", 1e8), ("int64", 10**9)]
)
def test_a_large_mean_costs_no_digits(monkeypatch, dtype, mean, weighted, chunk_bytes):
    monkeypatch.setattr(data, "_CACHED_BYTES", chunk_bytes)
    X = (np.random.default_rng(0).normal(size=(200, 3)) * 5 + mean).astype(dtype)
    weight = np.random.default_rng(1).uniform(0.1, 3.0, 200) if weighted else None
    assert_spread(X, weight, rtol=1e-7)


@pytest.mark.parametrize("chunk_bytes", [1, 2**20])
def test_a_column_never_seen_stays_where_it_is(monkeypatch, chunk_bytes):
    """At 0, without a variance; the others do not mind, also where they begin late."""
    monkeypatch.setattr(data, "_CACHED_BYTES", chunk_bytes)
    X = whole_numbers()
    X[:, 1] = np.nan
    X[:-1, 2] = np.nan
    X[5:, 3] = np.nan
    assert_spread(X)
    assert spread_of(X, None).mean[1] == 0


@pytest.mark.parametrize("missing", [0.0, 0.3])
@pytest.mark.parametrize("dtype", FLOATS)
def test_nothing_changes_the_rows(dtype, missing):
    """Neither taking moments nor making batches, of shared memory."""
    X = whole_numbers(dtype=dtype, missing=missing)
    before, weight = X.copy(), np.ones(len(X))
    spread = spread_of(X, weight)
    affine = Affine(spread.mean, 3.0)
    for units in (Units(affine, affine), Units(affine, None), Units(None, None)):
        rows = make(X, weight, units=units, with_mask=missing > 0)
        rows.batch(slice(0, 10))
        rows.batch(torch.tensor([3, 1]))
    np.testing.assert_array_equal(X, before)
    np.testing.assert_array_equal(weight, 1)


@pytest.mark.parametrize("n_rows", [0, 1, 9, 10])
@pytest.mark.parametrize("row_bytes", [0, 1, 3, 10, 100])
def test_chunks_take_every_row_once_and_no_more_bytes_than_they_may(monkeypatch, n_rows, row_bytes):
    """Except for a row that is larger than that by itself."""
    monkeypatch.setattr(data, "_CHUNK_BYTES", 10)
    monkeypatch.setattr(data, "_CACHED_BYTES", 5)
    for cached, most in ((False, 10), (True, 5)):
        parts = list(chunks(n_rows, row_bytes, cached=cached))
        assert [i for part in parts for i in range(part.start, part.stop)] == list(range(n_rows))
        assert all(part.stop - part.start <= max(1, most // max(1, row_bytes)) for part in parts)


def test_some_rows_come_with_their_weights_and_conditions():
    """Drawn by the seed, in order; all of few are the same object."""
    X = np.arange(20.0).reshape(10, 2)
    whole = data.Data(X, np.arange(10.0), np.arange(10.0, dtype=np.float32)[:, None])
    assert whole.some(10, 0) is whole
    some = whole.some(4, 0)
    index = some.weight.astype(int)
    assert len(index) == 4
    assert (np.diff(index) > 0).all()
    np.testing.assert_array_equal(some.X, X[index])
    np.testing.assert_array_equal(some.condition[:, 0], index)
    np.testing.assert_array_equal(whole.some(4, 0).X, some.X)
    assert data.Data(X).some(3, 0).weight is None


def test_every_row_is_as_likely_among_some():
    """Also of rows that are ordered in periods: every second one is taken half of the time."""
    drawn = torch.cat([data.some_of(40, 10, seed) for seed in range(400)])
    counts = drawn.bincount(minlength=40)
    assert counts.sum() == 4000
    assert ((counts - 100).abs() < 50).all()  # five standard deviations are 43
    assert torch.equal(data.some_of(3, 5, 0), torch.arange(3))


# --------------------------------------------------------------------------- batches


CENTER = np.array([10.0, -3.0, 50.25, 0.1])
AFFINE = Affine(torch.from_numpy(CENTER), 7.0)
UNITS = {
    "raw": Units(None, None),
    "standardised": Units(AFFINE, AFFINE),
    "raw targets": Units(AFFINE, None),
}
every_unit = pytest.mark.parametrize("units", UNITS.values(), ids=UNITS)
INDEX = torch.tensor([7, 3, 3, 0, 49, 12])


def make(
    X, weight=None, *, condition=None, units=UNITS["standardised"], with_mask=False, reread=True
):
    data = Data(X, weight, condition)
    return Dataset(data, units=units, with_mask=with_mask, reread=reread, device=CPU)


@pytest.mark.parametrize("units", UNITS.values(), ids=UNITS)
@pytest.mark.parametrize("dtype", ["float32", "float64", "uint8"])
def test_of_rows_that_are_near_none_is_looked_for_that_is_not(monkeypatch, dtype, units):
    """The batches are the same, to the bit, and copies where networks may write to them."""
    X = whole_numbers(dtype=dtype)
    before = X.copy()
    monkeypatch.setattr(data, "_KEEP_BYTES", 0)
    monkeypatch.setattr(data, "_KEEP_BYTES_OF_COMPACT", 0)
    near, looked_at = (
        Dataset(Data(X), units=units, with_mask=False, reread=True, device=CPU, near=near)
        for near in (True, False)
    )
    for which in (INDEX, slice(3, 9)):
        found, expected = near.batch(which), looked_at.batch(which)
        assert torch.equal(found.x, expected.x)
        assert torch.equal(found.y, expected.y)
        found.x.zero_()
    np.testing.assert_array_equal(X, before)


@pytest.mark.parametrize(
    ("low", "high", "expected"),
    [(-1.0, 1.0, True), (-6e9, 6e9, True), (-1.0, 8e9, False), (-8e9, 1.0, False)],
)
def test_rows_are_near_within_a_billion_scales_of_every_centre(low, high, expected):
    """And within what float32 can square, whatever the scale."""
    assert AFFINE.are_near(low, high) == expected
    wide = Affine(torch.from_numpy(CENTER), 1e15)
    assert wide.are_near(-1e17, 1e17)
    assert not wide.are_near(0.0, 2e18)


def paths(monkeypatch, X, weight=None, **options):
    """The same rows, converted once and kept, and converted batch by batch."""
    kept = make(X, weight, **options)
    with monkeypatch.context() as patch:
        patch.setattr(data, "_KEEP_BYTES", 0)
        patch.setattr(data, "_KEEP_BYTES_OF_COMPACT", 0)
        lazy = make(X, weight, **options)
    assert kept._kept is not None
    assert lazy._kept is None
    return kept, lazy


def expected_batch(X, affine, index):
    """(x - center) / scale, in float64, zero where x is NaN."""
    x = np.asarray(X, dtype=np.float64)[index]
    x = x if affine is None else (x - affine.center.numpy()) / affine.scale
    return np.nan_to_num(x, nan=0.0)


def assert_batch(batch, X, units, index, *, with_mask=False, rtol=1e-6):
    seen = ~np.isnan(np.asarray(X, dtype=np.float64)[index])
    x = expected_batch(X, units.inputs, index)
    x = np.hstack([x, seen]) if with_mask else x
    y = expected_batch(X, units.targets, index)
    for values, wanted in ((batch.x, x), (batch.y, y)):
        assert values.dtype == torch.float32
        np.testing.assert_allclose(values, wanted, rtol=rtol, atol=rtol)
    if seen.all() and not np.isnan(np.asarray(X, dtype=np.float64)).any():
        assert batch.seen is None
    else:
        np.testing.assert_array_equal(batch.seen, seen)


def assert_same_batches(one, other):
    for a, b in zip(one, other, strict=True):
        assert (a is None) == (b is None)
        assert a is None or torch.equal(a, b)


@every_unit
@every_dtype
def test_batches_are_the_rows_in_the_networks_units(monkeypatch, dtype, units):
    """Of every type, whether they are kept or converted when they are asked for."""
    X = whole_numbers(dtype=dtype)
    kept, lazy = paths(monkeypatch, X, units=units)
    for index in (INDEX, slice(3, 9), slice(0, 50)):
        assert_batch(kept.batch(index), X, units, index)
        assert_same_batches(kept.batch(index), lazy.batch(index))


@every_unit
@pytest.mark.parametrize("layout", LAYOUTS.values(), ids=LAYOUTS)
@pytest.mark.parametrize("dtype", ["uint8", "float32", "float64"])
def test_batches_do_not_depend_on_the_layout(monkeypatch, dtype, layout, units):
    X = whole_numbers(dtype=dtype)
    for rows in paths(monkeypatch, layout(X), units=units):
        for index in (INDEX, slice(3, 9)):
            assert_batch(rows.batch(index), X, units, index)


@pytest.mark.parametrize("order", ["C", "F"])
@pytest.mark.parametrize("dtype", ["uint8", "float32", ">f4"])
def test_batches_come_from_disk(monkeypatch, tmp_path, dtype, order):
    X = whole_numbers(dtype=dtype)
    for rows in paths(monkeypatch, on_disk(tmp_path, X, order)):
        for index in (INDEX, slice(3, 9)):
            assert_batch(rows.batch(index), X, UNITS["standardised"], index)


@every_unit
@pytest.mark.parametrize("with_mask", [False, True])
@pytest.mark.parametrize("missing", [0.0, 0.4])
@pytest.mark.parametrize("dtype", ["float16", "float32", "float64"])
def test_missing_values_are_zero_and_masked(monkeypatch, dtype, missing, with_mask, units):
    """The mask is beside the rows if the encoder wants it, of complete rows as well."""
    X = whole_numbers(dtype=dtype, missing=missing)
    kept, lazy = paths(monkeypatch, X, units=units, with_mask=with_mask)
    for index in (INDEX, slice(3, 9)):
        assert_batch(kept.batch(index), X, units, index, with_mask=with_mask)
        assert_same_batches(kept.batch(index), lazy.batch(index))


def test_one_missing_value_anywhere_masks_all_batches(monkeypatch):
    """It is looked for in chunks; rows of integers have none."""
    monkeypatch.setattr(data, "_CHUNK_BYTES", 1)
    X = whole_numbers(dtype="float32")
    assert make(X).batch(slice(0, 2)).seen is None
    for i, j in ((0, 0), (49, 3), (20, 1)):
        Y = X.copy()
        Y[i, j] = np.nan
        for rows in paths(monkeypatch, Y):
            assert rows.batch(slice(0, 50)).seen.sum() == 199
            assert rows.batch(torch.tensor([5, 6])).seen.all()


def test_sums_that_overflow_are_no_missing_values(monkeypatch):
    """The quick look at a chunk's sum can be infinite though all values are seen."""
    for dtype, size in (("float16", 6e4), ("float32", 3e38), ("float64", 1e308)):
        X = np.full((50, 4), size, dtype=dtype)
        assert make(X, units=UNITS["raw"])._may_miss is False
        X[-1, -1] = np.nan
        assert make(X, units=UNITS["raw"])._may_miss is True


@pytest.mark.parametrize(
    ("dtype", "mean"),
    [
        ("float64", 1.7e9),
        ("float64", -1e12),
        (">f8", 1.7e9),
        ("longdouble", 1.7e9),
        ("int32", 1_700_000_000),
        ("int64", 1_700_000_000),
        ("int64", 2**50),
        ("uint32", 4_000_000_000),
        ("uint64", 2**50),
        ("float32", 1e6),
        ("float16", 1e3),
    ],
)
def test_rows_far_from_zero_keep_their_digits(monkeypatch, dtype, mean):
    """Time stamps, say: what is subtracted is subtracted in the precision of the rows."""
    X = (np.random.default_rng(0).integers(-50, 50, (50, 4)) + mean).astype(dtype)
    exact = X.astype(np.longdouble)
    center = exact.mean(axis=0)
    affine = Affine(torch.from_numpy(center.astype(float)), 30.0)
    expected = ((exact - center.astype(float)) / 30.0).astype(float)
    # Of float32 rows, half of the distance between two numbers around the center.
    slack = 0.5 * float(np.spacing(np.float32(mean))) / 30.0 if dtype == "float32" else 0.0
    for rows in paths(monkeypatch, X, units=Units(affine, affine)):
        np.testing.assert_allclose(rows.batch(slice(0, 50)).x, expected, atol=1e-6 + slack)


@pytest.mark.parametrize("center", [-3e4, 0.1, 3e4])
def test_float16_rows_are_computed_with_as_float32(monkeypatch, center):
    """Differences of two half-precision numbers need not be one."""
    X = np.random.default_rng(0).uniform(-6e4, 6e4, (50, 4)).astype("float16")
    affine = Affine(torch.full((4,), center, dtype=torch.float64), 3e4)
    units = Units(affine, affine)
    wide = make(X.astype("float32"), units=units)
    for rows in paths(monkeypatch, X, units=units):
        assert_same_batches(rows.batch(INDEX), wide.batch(INDEX))


@pytest.mark.parametrize("dtype", ["float32", "float64", "uint8"])
def test_undoing_the_units_gives_the_rows(dtype):
    X = whole_numbers(dtype=dtype)
    back = AFFINE.undo(AFFINE.apply(torch.from_numpy(X)))
    assert back.dtype == torch.float64
    np.testing.assert_allclose(back, X.astype(float), rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize("dtype", [np.float64, np.float32, np.int64])
def test_weights_come_with_their_rows(monkeypatch, dtype):
    weight = np.random.default_rng(1).integers(1, 9, 50).astype(dtype)
    for rows in paths(monkeypatch, whole_numbers(), weight):
        assert len(rows) == 50
        for index in (INDEX, slice(3, 9)):
            found = rows.batch(index).weight
            assert found.dtype == torch.float32
            np.testing.assert_array_equal(found, weight[index])
    for rows in paths(monkeypatch, whole_numbers()):
        assert rows.batch(INDEX).weight is None


@pytest.mark.parametrize("weighted", [False, True])
@pytest.mark.parametrize("missing", [0.0, 0.3])
@pytest.mark.parametrize("units", UNITS.values(), ids=UNITS)
def test_conditions_come_with_their_rows(monkeypatch, units, missing, weighted):
    """As they are, also where values are missing; the rest of the batch does not mind them."""
    X = whole_numbers(missing=missing)
    condition = np.random.default_rng(2).normal(size=(50, 3)).astype(np.float32)
    weight = np.random.default_rng(1).uniform(1, 2, 50) if weighted else None
    options = {"units": units, "with_mask": bool(missing)}
    given = paths(monkeypatch, X, weight, condition=condition, **options)
    without = paths(monkeypatch, X, weight, **options)
    backwards = torch.arange(49, -1, -1)
    for rows, others in zip(given, without, strict=True):
        for index in (INDEX, backwards, slice(3, 9), slice(None)):
            batch = rows.batch(index)
            assert batch.condition.dtype == torch.float32
            np.testing.assert_array_equal(batch.condition, condition[index])
            assert_same_batches(batch._replace(condition=None), others.batch(index))


def test_conditions_come_in_every_batch_of_an_epoch(monkeypatch):
    """Shuffled together with their rows, of a view of some of them."""
    X = whole_numbers()
    X[:, 0] = np.arange(50)
    condition = (10 * X[:, :1]).astype(np.float32)
    raw = UNITS["raw"]
    for rows in paths(monkeypatch, X, condition=condition, units=raw):
        view = Subset(rows, torch.arange(5, 45))
        seen = []
        for batch in Loader(view, 16, torch.Generator().manual_seed(0)):
            np.testing.assert_array_equal(batch.condition, 10 * batch.x[:, :1])
            seen += batch.condition[:, 0].tolist()
        assert sorted(seen) == [10.0 * i for i in range(5, 45)]
        assert seen != sorted(seen)


# --------------------------------------------------------------------- nothing is copied


@pytest.mark.parametrize("dtype", [*FLOATS, "uint8", "int8", "int16", "int32", "int64", "bool"])
@pytest.mark.parametrize("layout", ["C", "every second row", "some columns", "read-only"])
def test_rows_are_sliced_where_they_lie(dtype, layout):
    """Large rows are never converted or copied whole."""
    X = LAYOUTS[layout](whole_numbers(dtype=dtype))
    rows = make(X, reread=False)
    assert np.shares_memory(rows._source.numpy(), X)
    assert rows._source.numpy().dtype == X.dtype


@pytest.mark.parametrize("order", ["C", "F"])
@pytest.mark.parametrize("dtype", ["uint8", "float32"])
def test_rows_on_disk_stay_there(tmp_path, dtype, order):
    X = on_disk(tmp_path, whole_numbers(dtype=dtype), order)
    rows = make(X, reread=False)
    assert np.shares_memory(rows._source.numpy(), X)


@pytest.mark.parametrize("missing", [0.0, 0.2])
@pytest.mark.parametrize("dtype", ["uint8", "float32", "float64"])
def test_no_step_converts_more_than_a_chunk(monkeypatch, dtype, missing):
    """Of 1000 rows, moments and checks take 100 at a time, batches those they are asked for."""
    X = whole_numbers(1000, dtype=dtype, missing=missing if dtype != "uint8" else 0.0)
    for name in ("_CHUNK_BYTES", "_CACHED_BYTES"):
        monkeypatch.setattr(data, name, 100 * 4 * X.itemsize)
    sizes = []

    def record(function):
        def recorded(values, *args, **kwargs):
            sizes.append(len(values) if values.ndim else 0)
            return function(values, *args, **kwargs)

        return recorded

    for name in ("double", "float", "isnan", "isfinite"):
        monkeypatch.setattr(torch.Tensor, name, record(getattr(torch.Tensor, name)))
    spread = spread_of(X, None)
    affine = Affine(spread.mean, 3.0)
    rows = make(X, units=Units(affine, affine), reread=False)
    rows.batch(torch.arange(60))
    rows.batch(slice(0, 60))
    assert 0 < max(sizes) <= 100


@pytest.mark.parametrize("reread", [False, True])
@pytest.mark.parametrize("kind", ["float32", "float64", "uint8", "bool", "mapped", "mapped part"])
@pytest.mark.parametrize("spare", [-1, 0])
def test_only_small_rows_that_are_read_again_are_kept(monkeypatch, tmp_path, kind, reread, spare):
    """As float32, 800 bytes: integers and files have a limit of their own."""
    X = whole_numbers(dtype="float32" if "mapped" in kind else kind)
    if "mapped" in kind:
        X = on_disk(tmp_path, X)
        X = np.asarray(X)[:] if kind == "mapped part" else X
    compact = kind not in ("float32", "float64")
    limits = {"_KEEP_BYTES": 800 + spare, "_KEEP_BYTES_OF_COMPACT": 0}
    if compact:
        limits = {"_KEEP_BYTES": 10**9, "_KEEP_BYTES_OF_COMPACT": 800 + spare}
    for name, limit in limits.items():
        monkeypatch.setattr(data, name, limit)
    rows = make(X, reread=reread)
    kept = reread and spare >= 0
    assert (rows._kept is not None) == kept
    if kept:  # and never converted again
        monkeypatch.setattr(Dataset, "_convert", None)
    assert_batch(rows.batch(INDEX), X, UNITS["standardised"], INDEX)


def test_tensors_of_read_only_arrays_do_not_warn(recwarn):
    tensor = as_tensor(read_only(whole_numbers()))
    assert tensor.shape == (50, 4)
    assert not recwarn.list


# --------------------------------------------------------------------------- what is refused


def scikit_learns_message(X, allow_nan):
    silent = np.errstate(invalid="ignore")  # its own sums of both infinities warn
    with silent, pytest.raises(ValueError, match="Input X contains") as error:
        check_array(X, ensure_all_finite="allow-nan" if allow_nan else True, input_name="X")
    return str(error.value)


BAD = {
    "nan": [(3, 1, np.nan)],
    "inf": [(49, 3, np.inf)],
    "-inf": [(0, 0, -np.inf)],
    "both infinities": [(5, 0, np.inf), (5, 1, -np.inf)],
    "nan and inf": [(2, 0, np.nan), (40, 2, np.inf)],
}


@pytest.mark.parametrize("chunk_bytes", [1, 2**20])
@pytest.mark.parametrize("allow_nan", [False, True])
@pytest.mark.parametrize("dtype", FLOATS)
@pytest.mark.parametrize("entries", BAD.values(), ids=BAD)
def test_values_that_are_not_finite_raise_what_scikit_learn_raises(
    monkeypatch, entries, dtype, allow_nan, chunk_bytes
):
    """NaN and infinity by name, in whatever chunk they are; NaN only if it is an error."""
    monkeypatch.setattr(data, "_CHUNK_BYTES", chunk_bytes)
    X = whole_numbers(dtype=dtype)
    for i, j, value in entries:
        X[i, j] = value
    if allow_nan and not np.isinf(X).any():
        check_finite(X, allow_nan)
        return
    with pytest.raises(ValueError, match=r"Input X contains (NaN|infinity)") as error:
        check_finite(X, allow_nan)
    if len(entries) == 1 or chunk_bytes > 1:
        first_line = scikit_learns_message(X, allow_nan).splitlines()[0]
        assert str(error.value).splitlines()[0] == first_line


@every_dtype
def test_finite_rows_of_every_type_pass(dtype):
    check_finite(whole_numbers(dtype=dtype), allow_nan=False)


@pytest.mark.parametrize("dtype", FLOATS)
def test_sums_that_overflow_are_finite_rows(dtype):
    """Silently: values may be as large as their type goes."""
    largest = np.finfo(dtype).max
    check_finite(np.full((50, 4), largest, dtype=dtype), allow_nan=False)
    check_finite(np.tile([largest, -largest], (50, 2)).astype(dtype), allow_nan=False)


# --------------------------------------------------------------------- batches of an epoch


def numbered(n):
    """Rows that hold their number."""
    X = np.arange(n, dtype="float32")[:, None]
    return make(X, units=UNITS["raw"])


def numbers(batches):
    return [batch.x[:, 0].int().tolist() for batch in batches]


def flat(parts):
    return [i for part in parts for i in part]


@pytest.mark.parametrize("n", [1, 2, 5, 16, 17, 33, 100])
@pytest.mark.parametrize("batch_size", [2, 4, 16, 200])
def test_an_epoch_takes_every_row_once(n, batch_size):
    """In batches of the size, the last one less, and no row alone unless it is all there is."""
    generator = torch.Generator().manual_seed(0)
    batches = Loader(Subset(numbered(n), None), batch_size, generator)
    epochs = [numbers(batches) for _ in range(3)]
    for parts in epochs:
        assert sorted(flat(parts)) == list(range(n))
        sizes = [len(part) for part in parts]
        assert all(size == batch_size for size in sizes[:-2])
        assert max(sizes) <= batch_size + 1
        assert min(sizes) > 1 or n == 1
        assert len(parts) == -(-n // batch_size) - (n % batch_size == 1 and n > batch_size)


def test_orders_differ_by_epoch_and_return_with_the_seed():
    """torch's global generator is not asked."""
    state = torch.get_rng_state()
    runs = []
    for seed in (0, 0, 1):
        generator = torch.Generator().manual_seed(seed)
        batches = Loader(Subset(numbered(50), None), 8, generator)
        runs.append([flat(numbers(batches)) for _ in range(2)])
    assert runs[0] == runs[1]
    assert len({tuple(order) for run in (runs[0], runs[2]) for order in run}) == 4
    assert torch.equal(torch.get_rng_state(), state)


def test_every_order_is_as_likely():
    """Over many epochs every row is as often in the first batch as any other."""
    generator = torch.Generator().manual_seed(0)
    batches = Loader(Subset(numbered(8), None), 2, generator)
    counts = np.bincount(flat([numbers(batches)[0] for _ in range(800)]), minlength=8)
    assert np.all(np.abs(counts - 200) < 5 * np.sqrt(800 * 0.25 * 0.75))


@pytest.mark.parametrize("shuffled", [False, True])
def test_a_view_gives_its_rows_alone(shuffled):
    index = torch.tensor([9, 2, 5, 7, 30])
    generator = torch.Generator().manual_seed(0) if shuffled else None
    view = Subset(numbered(40), index)
    assert len(view) == 5
    parts = numbers(Loader(view, 2, generator))
    assert [len(part) for part in parts] == [2, 3]
    if shuffled:
        assert sorted(flat(parts)) == sorted(index.tolist())
    else:
        assert flat(parts) == index.tolist()


def test_without_a_generator_rows_come_in_order():
    assert numbers(Loader(Subset(numbered(7), None), 3, None)) == [[0, 1, 2], [3, 4, 5], [6]]
