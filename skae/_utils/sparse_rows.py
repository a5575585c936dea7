"""Sparse matrices of SciPy as rows that are read in the same way as those of an array."""

from typing import Any, Self

import numpy as np
from numpy.typing import NDArray
from scipy import sparse

Array = NDArray[Any]


class SparseRows:
    """Rows of a sparse matrix, with the attributes and the indexing of an array of rows.

    Models that convert rows batch by batch get sparse matrices in this form. Its `size` is that of
    the dense array. An index selects rows that are still sparse; only `toarray` makes an array.
    The matrix of the user is shared, and never modified.

    Parameters
    ----------
    matrix : sparse matrix or array of SciPy
        Matrix in the format CSR, or in another format, which is converted to CSR.

    Attributes
    ----------
    matrix : sparse matrix or array of SciPy
        The rows in the format CSR without duplicate entries. The column indices of a row may be
        unsorted.
    """

    ndim = 2

    def __init__(self, matrix: Any) -> None:
        self.matrix = without_duplicates(matrix.tocsr())

    @classmethod
    def _of(cls, matrix: Any) -> Self:
        """Rows of a matrix in the format CSR that has no duplicates."""
        new = object.__new__(cls)
        new.matrix = matrix
        return new

    def __len__(self) -> int:
        return int(self.matrix.shape[0])

    def __getitem__(self, index: Any) -> Self:
        """Select rows by a slice, a mask or indices; or a block by slices of rows and columns."""
        return self._of(self.matrix[index])

    @property
    def shape(self) -> tuple[int, int]:
        """Number of rows and columns."""
        n_rows, n_columns = self.matrix.shape
        return int(n_rows), int(n_columns)

    @property
    def dtype(self) -> np.dtype[Any]:
        """Type of the values."""
        return np.dtype(self.matrix.dtype)

    @property
    def size(self) -> int:
        """Number of values of the dense array."""
        return self.shape[0] * self.shape[1]

    @property
    def itemsize(self) -> int:
        """Bytes of a value."""
        return self.dtype.itemsize

    @property
    def values(self) -> Array:
        """The stored values, in the order of `columns`."""
        stored: Array = self.matrix.data[: self.starts[-1]]
        return stored

    @property
    def columns(self) -> Array:
        """The columns of the stored values."""
        stored: Array = self.matrix.indices[: self.starts[-1]]
        return stored

    @property
    def starts(self) -> Array:
        """Position of the first stored value of each row, and the number of stored values."""
        found: Array = self.matrix.indptr
        return found

    def toarray(self) -> Array:
        """Convert all rows to an array."""
        dense: Array = self.matrix.toarray()
        return dense

    def range_of_columns(self) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
        """Minimum and maximum of each column without NaN; inf and -inf if there is no value."""
        values, columns = self.values.astype(np.float64), self.columns
        n_rows, n_columns = self.shape
        # A column with fewer stored values than rows also contains zeros.
        is_full = np.bincount(columns, minlength=n_columns) == n_rows
        low, high = np.where(is_full, np.inf, 0.0), np.where(is_full, -np.inf, 0.0)
        observed = ~np.isnan(values)
        values, columns = values[observed], columns[observed]
        np.minimum.at(low, columns, values)
        np.maximum.at(high, columns, values)
        return low, high

    def place(self) -> tuple[Any, ...]:
        """Return a key that is equal for rows that share their memory."""
        parts = (self.matrix.data, self.matrix.indices, self.matrix.indptr)
        memory = tuple((a.ctypes.data, a.strides, a.shape, a.dtype.str) for a in parts)
        return (self.shape, *memory)


# Validated rows of models with a network. `StoredRows` have the same attributes as `SparseRows`.
Rows = NDArray[Any] | SparseRows


def dense(X: Any) -> Any:
    """Convert sparse or stored rows to an array; arrays stay as they are."""
    return X.toarray() if hasattr(X, "toarray") else X


def as_sparse_rows(X: Any) -> Any:
    """Convert sparse matrices of SciPy to `SparseRows`; other rows stay as they are."""
    return SparseRows(X) if sparse.issparse(X) else X


def without_duplicates(X: Any) -> Any:
    """Return a CSR matrix in which each position is stored at most once.

    Values at the same position are added in the order in which they are stored, as by `toarray`, so
    that rounding is the same. A matrix without duplicates is returned as it is.
    """
    if X.has_canonical_format:
        return X
    n_stored = X.indptr[-1]
    # Sorting changes a matrix in place. This one has its own indices, and no values.
    indices = X.indices[:n_stored].copy()
    pattern = sparse.csr_array((np.zeros(n_stored, np.int8), indices, X.indptr.copy()), X.shape)
    pattern.sort_indices()
    if pattern.has_canonical_format:
        return X
    n_rows, n_columns = map(int, X.shape)
    row = np.repeat(np.arange(n_rows, dtype=np.int64), np.diff(X.indptr))
    position = row * n_columns + X.indices[:n_stored]
    unique, which = np.unique(position, return_inverse=True)
    values = np.zeros(len(unique), dtype=X.dtype)
    np.add.at(values, which, X.data[:n_stored])
    starts = np.searchsorted(unique, np.arange(n_rows + 1, dtype=np.int64) * n_columns)
    return type(X)((values, unique % n_columns, starts), shape=X.shape)
