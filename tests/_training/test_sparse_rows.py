"""Batches of sparse rows, against batches of the dense array of the same rows."""

import numpy as np
import pytest
import torch
from scipy import sparse

from skae._training import data
from skae._training.data import Data, Dataset, check_finite, spread_of
from skae._training.sources import source_of
from skae._training.sparse_rows import SparseTensor
from skae._training.units import Affine, Units
from skae._utils.sparse_rows import SparseRows

CPU = torch.device("cpu")
DTYPES = ["float64", "float32", "longdouble", "int64", "int32", "int8", "uint8", "uint16"]


def counts(n=60, n_features=9, dtype="float64", missing=0.0):
    rng = np.random.default_rng(0)
    X = rng.poisson(0.3, (n, n_features)).astype(dtype)
    X[5] = 0
    if missing:
        X[rng.random(X.shape) < missing] = np.nan
    return X


def equal(a, b):
    return a.dtype == b.dtype and torch.equal(a.nan_to_num(-7.0), b.nan_to_num(-7.0))


@pytest.mark.parametrize("dtype", [*DTYPES, "bool"])
@pytest.mark.parametrize("wide", [False, True], ids=["int32", "int64"])
def test_slices_and_indices_are_dense(dtype, wide):
    X = counts(dtype=dtype)
    matrix = sparse.csr_array(X)
    if wide:
        matrix.indices, matrix.indptr = (
            matrix.indices.astype("int64"),
            matrix.indptr.astype("int64"),
        )
    found, expected = source_of(SparseRows(matrix)), source_of(X)
    assert isinstance(found, SparseTensor)
    assert (found.shape, found.dtype, len(found)) == (expected.shape, expected.dtype, len(X))
    for rows in (slice(0, 60), slice(4, 7), slice(5, 6), slice(59, 60)):
        assert equal(found[rows], expected[rows])
    for index in ([3, 5, 5, 59, 0], [5], [], list(range(60))):
        some = torch.tensor(index, dtype=torch.int64)
        assert equal(found.index_select(0, some), expected.index_select(0, some))


def test_copies_on_a_device_and_in_float32():
    X = counts()
    found = source_of(SparseRows(sparse.csr_array(X)))
    assert found.nbytes == found.values.nbytes + found._columns.nbytes + found._starts.nbytes
    assert equal(found.float().to(CPU)[slice(0, 60)], torch.from_numpy(X).float())
    there = found.to(torch.device("meta"))
    assert (there.device.type, there.shape) == ("meta", found.shape)


def test_values_are_shared_and_may_be_read_only(tmp_path, recwarn):
    matrix = sparse.csr_array(counts())
    for name in ("data", "indices", "indptr"):
        getattr(matrix, name).flags.writeable = False
    found = source_of(SparseRows(matrix))
    assert found.values.data_ptr() == matrix.data.ctypes.data
    assert found._columns.data_ptr() == matrix.indices.ctypes.data
    assert not recwarn.list


@pytest.mark.parametrize("missing", [0.0, 0.2])
@pytest.mark.parametrize("weighted", [False, True])
@pytest.mark.parametrize("shape", [(700, 33), (3000, 501)], ids=["one chunk", "chunks"])
def test_moments_are_equal_bit_for_bit(shape, weighted, missing):
    X = counts(*shape, missing=missing)
    weight = np.random.default_rng(1).random(len(X)) if weighted else None
    found = spread_of(SparseRows(sparse.csc_array(X)), weight)
    expected = spread_of(X, weight)
    assert found.any_missing == expected.any_missing == bool(missing)
    assert all(map(torch.equal, found[:4], expected[:4]))


@pytest.mark.parametrize("kept", [False, True])
@pytest.mark.parametrize("missing", [0.0, 0.2])
@pytest.mark.parametrize("standardised", ["both", "inputs", "none"])
def test_batches_are_those_of_dense_rows(kept, missing, standardised, monkeypatch):
    if not kept:
        monkeypatch.setattr(data, "_KEEP_BYTES", 0)
    X = counts(missing=missing)
    affine = Affine(torch.linspace(-1, 1, 9, dtype=torch.float64), 0.7)
    units = {"both": (affine, affine), "inputs": (affine, None), "none": (None, None)}
    weight, condition = np.arange(1.0, 61.0), np.ones((60, 2), np.float32)
    found, expected = (
        Dataset(
            Data(rows, weight, condition),
            units=Units(*units[standardised]),
            with_mask=bool(missing),
            reread=True,
            device=CPU,
        )
        for rows in (SparseRows(sparse.csr_array(X)), X)
    )
    assert found.may_miss == expected.may_miss == bool(missing)
    assert (found.n_kept > 0) == kept
    assert len(found) == len(X)
    for rows in (slice(2, 30), torch.tensor([7, 5, 59])):
        for a, b in zip(found.batch(rows), expected.batch(rows), strict=True):
            assert (a is None and b is None) or equal(a, b)


def test_small_counts_are_kept_although_arrays_of_integers_need_not_be(monkeypatch):
    """Making a batch dense takes longer than its conversion to float32."""
    monkeypatch.setattr(data, "_KEEP_BYTES_OF_COMPACT", 0)
    X = counts(dtype="int8")
    options = {"units": Units(None, None), "with_mask": False, "reread": True, "device": CPU}
    assert Dataset(Data(SparseRows(sparse.csr_array(X))), **options).n_kept == X.size
    assert Dataset(Data(X), **options).n_kept == 0


def test_data_sets_of_the_same_memory_have_the_same_identity():
    matrix = sparse.csr_array(counts())
    options = {"units": Units(None, None), "with_mask": False, "reread": False, "device": CPU}
    first, second, other = (
        Dataset(Data(SparseRows(X)), **options) for X in (matrix, matrix, matrix.copy())
    )
    assert first.identity() == second.identity() != other.identity()
    weighted = Dataset(Data(SparseRows(matrix), np.ones(60)), **options)
    assert weighted.identity() != first.identity()


def test_some_rows_with_their_weights():
    X, weight = counts(), np.arange(60.0)
    some = Data(SparseRows(sparse.csr_array(X)), weight).some(10, seed=0)
    expected = Data(X, weight).some(10, seed=0)
    np.testing.assert_array_equal(some.X.toarray(), expected.X)
    np.testing.assert_array_equal(some.weight, expected.weight)


def test_errors_of_values_that_are_not_finite():
    X = counts()
    check_finite(SparseRows(sparse.csr_array(X)), allow_nan=False)
    X[3, 4] = np.nan
    rows = SparseRows(sparse.csr_array(X))
    check_finite(rows, allow_nan=True)
    with pytest.raises(ValueError, match="Input X contains NaN"):
        check_finite(rows, allow_nan=False)
    X[3, 4] = -np.inf
    with pytest.raises(ValueError, match="Input X contains infinity"):
        check_finite(SparseRows(sparse.csr_array(X)), allow_nan=True)
