"""Readers of rows in files and lazy containers of packages that the user has imported."""

import mmap
import sys
from typing import Any

import numpy as np
from numpy.typing import NDArray
from scipy import sparse

from skae._utils import stored_rows as limits
from skae._utils.stored_rows import Index, StoredRows
from skae._utils.table_readers import (
    check_dtype,
    check_shape,
    of_dask_array,
    of_dask_frame,
    of_parquet,
    of_pyarrow_dataset,
)

Array = NDArray[Any]


def stored_rows(X: Any, name: str = "X") -> StoredRows | None:
    """Return the rows of a file or a lazy container; None for values of any other type.

    Raises TypeError or ValueError for containers that have no rows of numbers.
    """
    if isinstance(X, StoredRows):
        return X
    if isinstance(X, np.ndarray):
        mapped = _mapped(X)
        return None if mapped is None else StoredRows(mapped)
    for package, find in _FINDERS.items():
        if package in sys.modules and (reader := find(X, name)) is not None:
            return StoredRows(reader)
    return None


def check_table(reader: "ArrayReader", name: str) -> None:
    """Raise if a container is not a table of numbers."""
    check_shape(tuple(reader.source.shape), reader.kind, name)
    check_dtype(reader.source.dtype, f"{name} is {reader.kind}")


class ArrayReader:
    """Reads rows of an object that can be sliced, such as a dataset of h5py or an array of zarr."""

    def __init__(self, source: Any, kind: str, chunk_rows: int | None = None) -> None:
        self.source, self.kind = source, kind
        self.edges: int | Index = int(chunk_rows or 1)

    is_sparse = False

    @property
    def shape(self) -> tuple[int, int]:
        """Number of rows and columns."""
        n_rows, n_columns = self.source.shape
        return int(n_rows), int(n_columns)

    @property
    def dtype(self) -> np.dtype[Any]:
        """Type of the rows."""
        return np.dtype(self.source.dtype).newbyteorder("=")

    @property
    def row_bytes(self) -> float:
        """Number of bytes of a row."""
        return float(self.shape[1] * max(self.dtype.itemsize, 1))

    def read(self, start: int, stop: int) -> Any:
        """Return rows as an array."""
        return self.source[start:stop]

    def release(self, start: int, stop: int) -> None:
        """Rows are copies, which need no release."""

    def header(self) -> Any:
        """Return an array without rows."""
        return np.empty((0, self.shape[1]))

    def content(self) -> tuple[Any, ...]:
        """Return the names of the columns, if they have any."""
        return (self.kind, list(getattr(self.header(), "columns", [])))


# ---------------------------------------------------------------------------- memory-mapped files


# When a page is read, the operating system also maps pages around it, in this many bytes.
_AROUND = 64 * 2**10


class MappedReader(ArrayReader):
    """Reads rows of an array in memory-mapped mode.

    Pages that were read do not stay in the memory of the process where the operating system allows
    this.
    """

    def __init__(self, source: Array, mapping: Any) -> None:
        super().__init__(source.view(np.ndarray), "a memory-mapped array")
        self.mapping = mapping
        self.base = np.frombuffer(mapping, dtype=np.uint8).ctypes.data
        self.is_by_row = source.strides[0] >= source.shape[1] * source.itemsize

    def release(self, start: int, stop: int) -> None:
        """Remove the pages of rows from the memory of the process; they stay in the file."""
        if not hasattr(mmap, "MADV_DONTNEED"):
            return
        low, high = 0, len(self.mapping)
        if self.is_by_row:
            first = self.source.ctypes.data - self.base
            low, high = (first + row * self.source.strides[0] for row in (start, stop))
            low, high = low - _AROUND, high + _AROUND
        low = max(0, low) // mmap.PAGESIZE * mmap.PAGESIZE
        self.mapping.madvise(mmap.MADV_DONTNEED, low, min(high, len(self.mapping)) - low)


def _mapped(X: Array) -> MappedReader | None:
    """Return a reader of an array in memory-mapped mode that does not fit into memory.

    Arrays that may hold changes which are not in the file (mode "c") are read as other arrays.
    """
    found: Any = X
    while found is not None and not isinstance(found, np.memmap):
        found = getattr(found, "base", None)
    mapping = getattr(found, "_mmap", None)
    if mapping is None or getattr(found, "mode", "c") not in ("r", "r+", "w+"):
        return None
    if X.ndim != 2 or X.dtype.kind not in "biuf" or isinstance(X, np.ma.MaskedArray):
        return None
    return MappedReader(X, mapping) if X.nbytes > limits.WINDOW_BYTES else None


# ------------------------------------------------------------------------------- HDF5, Zarr, torch


def _of_h5py(X: Any, name: str) -> ArrayReader | None:
    h5py = sys.modules["h5py"]
    if isinstance(X, h5py.Group):  # a File is a Group
        which = "a file" if isinstance(X, h5py.File) else "a group"
        keys = (
            [repr(key) for key, value in X.items() if isinstance(value, h5py.Dataset)] if X else []
        )
        known = f" It has the datasets {', '.join(keys)}." if keys else ""
        raise TypeError(
            f"{name} is {which} of h5py; allowed is a dataset in it, such as file['name'].{known}"
        )
    if not isinstance(X, h5py.Dataset):
        return None
    if not X:
        raise ValueError(f"{name} is an HDF5 dataset of a closed file. Open the file again.")
    reader = ArrayReader(X, "an HDF5 dataset", X.chunks[0] if X.chunks else None)
    check_table(reader, name)
    return reader


def _of_zarr(X: Any, name: str) -> ArrayReader | None:
    zarr: Any = sys.modules["zarr"]
    group_type: Any = getattr(zarr, "Group", ())
    if isinstance(X, group_type):
        keys = [repr(key) for key in X.array_keys()]
        known = f" It has the arrays {', '.join(keys)}." if keys else ""
        raise TypeError(
            f"{name} is a group of zarr; allowed is an array in it, such as group['name'].{known}"
        )
    array_type: Any = getattr(zarr, "Array", ())
    if not isinstance(X, array_type):
        return None
    reader = ArrayReader(X, "a Zarr array", X.chunks[0] if X.chunks else None)
    check_table(reader, name)
    return reader


class ItemReader(ArrayReader):
    """Reads the items of a map-style Dataset of torch, of which each is a row."""

    def __init__(self, source: Any, name: str) -> None:
        self.source, self.kind, self.name, self.edges = source, "a Dataset of torch", name, 1
        self.n_rows = len(source)
        first = self._row(source[0], 0) if self.n_rows else np.empty(0)
        self.n_columns, self.of_rows = len(first), first.dtype

    @property
    def shape(self) -> tuple[int, int]:
        """Number of rows and columns."""
        return self.n_rows, self.n_columns

    @property
    def dtype(self) -> np.dtype[Any]:
        """Type of the rows."""
        return self.of_rows

    def read(self, start: int, stop: int) -> Array:
        """Return rows as an array."""
        numbers = list(range(start, stop))
        if hasattr(self.source, "__getitems__"):
            items = self.source.__getitems__(numbers)
        else:
            items = [self.source[i] for i in numbers]
        found = np.empty((len(numbers), self.n_columns), dtype=self.of_rows)
        for i, item in zip(numbers, items, strict=True):
            row = self._row(item, i)
            if len(row) != self.n_columns:
                raise ValueError(
                    f"{self.name} is a Dataset of torch whose items have different lengths: item 0 "
                    f"has {self.n_columns} values, and item {i} has {len(row)}. All rows must have "
                    "the same length."
                )
            if not np.can_cast(row.dtype, self.of_rows):
                raise TypeError(
                    f"{self.name} is a Dataset of torch whose item 0 has values of type "
                    f"{self.of_rows}, which cannot represent those of item {i}, of type "
                    f"{row.dtype}. All rows must have the same type, such as float32."
                )
            found[i - start] = row
        return found

    def _row(self, item: Any, number: int) -> Array:
        """Return the row of an item, which may be the first of several values."""
        row = item[0] if isinstance(item, (tuple, list)) and len(item) else item
        what = f"{self.name} is a Dataset of torch whose item {number}"
        if hasattr(row, "detach"):
            row = row.detach().cpu()
            row = row.float() if str(row.dtype) == "torch.bfloat16" else row
        if isinstance(row, (dict, str, bytes)) or not hasattr(row, "__array__"):
            raise TypeError(
                f"{what} is of type {type(item).__name__}; allowed are a row as a tensor or an "
                "array, and a tuple that begins with a row."
            )
        values = np.asarray(row)
        if values.ndim != 1:
            raise ValueError(
                f"{what} has shape {values.shape}; expected one dimension, (n_features,). Return "
                "item.flatten() for images."
            )
        check_dtype(values.dtype, what)
        return values


def _of_torch(X: Any, name: str) -> ItemReader | None:
    data = sys.modules["torch.utils.data"]
    if isinstance(X, data.DataLoader):
        raise TypeError(
            f"{name} is a DataLoader of torch; allowed is its dataset, {name}.dataset, because fit "
            "makes batches itself."
        )
    if isinstance(X, data.IterableDataset):
        raise TypeError(
            f"{name} is an IterableDataset of torch, whose rows can neither be counted nor read in "
            "another order. Give a Dataset with __len__ and __getitem__, or call partial_fit with "
            "arrays of rows."
        )
    if not isinstance(X, data.Dataset):
        return None
    if not (hasattr(X, "__len__") and hasattr(X, "__getitem__")):
        raise TypeError(f"{name} is a Dataset of torch without __len__ or __getitem__.")
    return ItemReader(X, name)


# -------------------------------------------------------------------------------------- AnnData


class SparseReader(ArrayReader):
    """Reads rows of a sparse matrix in a file of anndata, in the format CSR.

    Its parts are read from the file, because slices of anndata 0.12 fail with SciPy 1.17.
    """

    is_sparse = True

    def __init__(self, source: Any) -> None:
        super().__init__(source, "a sparse dataset of anndata")
        self.starts = source.group["indptr"][:]
        self.values, self.columns = source.group["data"], source.group["indices"]

    @property
    def row_bytes(self) -> float:
        """Mean number of bytes of a row as a sparse matrix."""
        of_entry = self.values.dtype.itemsize + self.columns.dtype.itemsize
        return float(8 + of_entry * int(self.starts[-1]) / max(1, self.shape[0]))

    def read(self, start: int, stop: int) -> Any:
        """Return rows as a sparse matrix in the format CSR."""
        starts = self.starts[start : stop + 1]
        some = slice(int(starts[0]), int(starts[-1]))
        parts = (self.values[some], self.columns[some], starts - starts[0])
        return sparse.csr_array(parts, shape=(stop - start, self.shape[1]))


class NamedReader:
    """A reader whose columns have names.

    Parameters
    ----------
    reader : Reader
        Reads the rows.
    names : sequence of str
        The names.
    """

    def __init__(self, reader: Any, names: Any) -> None:
        self._reader, self._names = reader, names

    def __getattr__(self, name: str) -> Any:
        if name.startswith("_"):  # before copies have attributes of their own
            raise AttributeError(name)
        return getattr(self._reader, name)

    def header(self) -> Any:
        """Return a data frame without rows."""
        return sys.modules["pandas"].DataFrame(columns=list(self._names))

    def content(self) -> tuple[Any, ...]:
        """Return the names of the columns."""
        return (self._reader.kind, list(self._names))


def _of_anndata(X: Any, name: str) -> Any:
    anndata = sys.modules["anndata"]
    if isinstance(X, anndata.AnnData):
        return _of_object(X, name)
    # Datasets are instances of these classes, which earlier versions have elsewhere.
    of_csc = getattr(getattr(anndata, "abc", None), "CSCDataset", ())
    of_csr = getattr(getattr(anndata, "abc", None), "CSRDataset", ())
    if isinstance(X, of_csc):
        raise TypeError(
            f"{name} is a sparse dataset of anndata in the format CSC, which stores columns, so "
            "that each row would need all of the file. Write it in the format CSR: "
            "adata.X = adata.X.to_memory().tocsr()."
        )
    if not isinstance(X, of_csr):
        return None
    reader = SparseReader(X)
    check_table(reader, name)
    return reader


def _of_object(X: Any, name: str) -> Any:
    """Return a reader of the rows of an AnnData object."""
    if X.isbacked and X.is_view:
        raise TypeError(
            f"{name} is a view of an AnnData object in a file, whose rows would be read one by "
            "one. Give view.to_memory(), or view.copy(filename)."
        )
    if X.X is None:
        raise ValueError(f"{name} is an AnnData object without X, whose rows are needed.")
    rows = X.X
    found = stored_rows(rows, f"{name}.X")
    reader: Any
    reader = _InMemory(rows, "an AnnData object") if found is None else found._reader
    check_dtype(reader.dtype, f"{name}.X is {reader.kind}")
    return NamedReader(reader, [str(column) for column in X.var_names])


class _InMemory(ArrayReader):
    """Reads rows of an array or of a sparse matrix in memory."""

    def __init__(self, source: Any, kind: str) -> None:
        self.is_sparse = hasattr(source, "tocsr")
        super().__init__(source.tocsr() if self.is_sparse else np.asarray(source), kind)

    def whole(self) -> Any:
        """Return all rows, which are shared with the user."""
        return self.source


# Functions that recognise containers, by the package that must have been imported for one to exist.
_FINDERS: dict[str, Any] = {
    "h5py": _of_h5py,
    "zarr": _of_zarr,
    "torch.utils.data": _of_torch,
    "anndata": _of_anndata,
    "pyarrow.dataset": of_pyarrow_dataset,
    "pyarrow.parquet": of_parquet,
    "dask.array": of_dask_array,
    "dask.dataframe": of_dask_frame,
}
