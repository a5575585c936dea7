"""Sparse rows with the attributes of arrays, against the dense array of the same matrix."""

import numpy as np
import pytest
from scipy import sparse

from skae._utils.sparse_rows import SparseRows, as_sparse_rows, dense, without_duplicates

FORMATS = [
    sparse.csr_array,
    sparse.csc_array,
    sparse.csr_matrix,
    sparse.csc_matrix,
    sparse.coo_array,
]


def mostly_zeros(n=30, n_features=7, dtype="float64", seed=0):
    rng = np.random.default_rng(seed)
    X = rng.integers(-9, 10, (n, n_features)) * (rng.random((n, n_features)) < 0.3)
    X[4] = 0
    return X.astype(dtype)


def copy_of(X):
    return [a.copy() for a in (X.data, X.indices, X.indptr)]


def test_attributes_and_selection_are_those_of_the_array():
    X = mostly_zeros()
    mask, index = X[:, 0] == 0, np.array([5, 4, 5, 29])
    for container in FORMATS:
        rows = SparseRows(container(X))
        assert (rows.shape, rows.dtype, rows.size) == (X.shape, X.dtype, X.size)
        assert (len(rows), rows.ndim, rows.itemsize) == (len(X), X.ndim, X.itemsize)
        for some in (slice(3, 9), slice(None, None, 4), slice(40, None), mask, index):
            selected = rows[some]
            assert isinstance(selected, SparseRows)
            np.testing.assert_array_equal(selected.toarray(), X[some])
        block = rows[slice(2, 20), slice(1, 5)]
        np.testing.assert_array_equal(dense(block), X[2:20, 1:5])
    assert dense(X) is X
    assert as_sparse_rows(X) is X


def test_the_matrix_is_shared_unless_it_has_duplicates():
    matrix = sparse.csr_array(mostly_zeros())
    assert SparseRows(matrix).matrix is matrix
    unsorted = matrix[:, ::-1]
    assert not unsorted.has_sorted_indices
    before = copy_of(unsorted)
    assert SparseRows(unsorted).matrix is unsorted
    for found, expected in zip(copy_of(unsorted), before, strict=True):
        np.testing.assert_array_equal(found, expected)


@pytest.mark.parametrize("dtype", ["float64", "float32", "int8", "bool", "uint16"])
@pytest.mark.parametrize("container", [sparse.csr_array, sparse.csc_matrix])
def test_duplicates_are_added_as_by_toarray(dtype, container):
    """Many values at few places, in no order, so that rounding and overflow show their order."""
    rng = np.random.default_rng(0)
    values = (rng.standard_normal(400) * 10.0 ** rng.integers(-8, 8, 400)).astype(dtype)
    places = rng.integers(0, 6, 400), rng.integers(0, 5, 400)
    starts = np.searchsorted(np.sort(places[0]), np.arange(7))
    given = container((values, places[1], starts[: 6 + (container is sparse.csr_array)]), (6, 5))
    expected, before = given.toarray(), copy_of(given)
    rows = SparseRows(given)
    assert rows.matrix.nnz <= 30
    assert rows.dtype == dtype
    np.testing.assert_array_equal(rows.toarray(), expected)
    for found, kept in zip(copy_of(given), before, strict=True):
        np.testing.assert_array_equal(found, kept)


def test_entries_behind_the_last_row_are_not_read():
    X = sparse.csr_array((np.array([1.0, 2.0, np.inf]), np.array([0, 2, 1]), [0, 1, 2]), (2, 3))
    rows = SparseRows(X)
    assert rows.values.tolist() == [1.0, 2.0]
    assert rows.columns.tolist() == [0, 2]
    doubled = sparse.csr_array((np.array([1.0, 2.0, 9.0]), np.array([1, 1, 0]), [0, 2, 2]), (2, 3))
    assert without_duplicates(doubled).toarray().tolist() == [[0.0, 3.0, 0.0], [0.0] * 3]


@pytest.mark.parametrize("dtype", ["float64", "int8", "bool"])
def test_ranges_are_those_of_the_columns(dtype):
    X = np.hstack([mostly_zeros(dtype=dtype), np.ones((30, 1), dtype), np.zeros((30, 1), dtype)])
    missing = dtype == "float64"
    if missing:
        X[3, 0] = X[:2, 7] = X[:, 8] = np.nan
    low, high = SparseRows(sparse.csr_array(X)).range_of_columns()
    for column, least, most in zip(X.T, low, high, strict=True):
        seen = column[~np.isnan(column)].astype(float)
        assert (least, most) == ((seen.min(), seen.max()) if len(seen) else (np.inf, -np.inf))
    explicit = sparse.csr_array(np.ones((2, 2)))
    explicit.data[0] = 0.0  # a stored zero
    assert [ends.tolist() for ends in SparseRows(explicit).range_of_columns()] == [[0, 1], [1, 1]]


def test_places_tell_whether_memory_is_shared():
    X = sparse.csr_array(mostly_zeros())
    assert SparseRows(X).place() == SparseRows(X).place()
    assert SparseRows(X).place() != SparseRows(X.copy()).place()
    wider = sparse.csr_array((X.data, X.indices, X.indptr), (30, 8))
    assert SparseRows(X).place() != SparseRows(wider).place()
