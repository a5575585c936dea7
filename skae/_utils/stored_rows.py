"""Rows that are read from a file or a lazy container in parts, and never all at once."""

from collections.abc import Callable, Iterator
from typing import Any, Protocol, Self

import numpy as np
from numpy.typing import NDArray
from scipy import sparse
from sklearn.utils import assert_all_finite

from skae._utils.sparse_rows import SparseRows

Array = NDArray[Any]
Index = NDArray[np.intp]

# Rows that take at most this many bytes are read once and kept; of others, this many are in memory
# at once, from which batches are drawn. The next ones are read meanwhile, so that it is taken
# twice.
WINDOW_BYTES = 256 * 2**20
# Bytes that are read at once, and the number of bytes between two rows up to which they are read in
# one go.
_PIECE_BYTES, _GAP_BYTES = 4 * 2**20, 64 * 2**10
# Bytes of the indices by which a row is chosen and shuffled.
_INDEX_BYTES = 16.0
# Bytes of consecutive rows that stay together when rows are shuffled. Smaller blocks mix better;
# larger ones are read faster from a disk.
_BLOCK_BYTES = 256 * 2**10
# Types that torch can slice. Values of other types are converted when they are read.
_SLICEABLE = ("float64", "float32", "float16", "uint8", "int8", "int16", "int32", "int64", "bool")
_EXACTLY = {"uint16": "int32"}


class Reader(Protocol):
    """Reads consecutive rows of a container.

    Attributes
    ----------
    kind : str
        What the container is, for messages.
    shape : tuple of int
        Number of rows and columns.
    dtype : dtype
        Type of the rows; their values may be read in another type.
    row_bytes : float
        Mean number of bytes of a row in memory.
    is_sparse : bool
        Whether rows are read as a sparse matrix.
    edges : int or ndarray
        Rows at which it is best to begin reading: multiples of an integer, or the given rows, from
        0 to the number of rows.
    """

    kind: str
    is_sparse: bool
    edges: int | Index

    @property
    def shape(self) -> tuple[int, int]: ...

    @property
    def dtype(self) -> np.dtype[Any]: ...

    @property
    def row_bytes(self) -> float: ...

    def read(self, start: int, stop: int) -> Any:
        """Return rows as an array, or as a sparse matrix in the format CSR."""

    def release(self, start: int, stop: int) -> None:
        """Called when rows that were read are no longer needed."""

    def header(self) -> Any:
        """Return an array or a data frame with the columns, without rows."""

    def content(self) -> tuple[Any, ...]:
        """Return what a digest of the rows should contain beside the rows."""


class StoredRows:
    """Rows of a container, with the attributes and the indexing of an array of rows.

    Models that convert rows batch by batch get large containers in this form. An index selects rows
    without reading them; `toarray` and `take` read. The container of the user is never modified.

    Parameters
    ----------
    reader : Reader
        Reads the rows.
    allow_nan : bool, default=True
        Whether NaN are allowed. Other values must be finite in any case.

    Attributes
    ----------
    read_dtype : dtype
        Type in which values are read, which torch can slice.
    is_checked : bool
        Whether all values are known to be finite, or NaN if that is allowed. If not, values are
        checked when they are read.
    any_missing : bool or None
        Whether a value is NaN; None if that is not known yet.
    spread : object
        Moments and range of the columns, once they have been computed.
    """

    ndim = 2

    def __init__(self, reader: Reader, *, allow_nan: bool = True) -> None:
        self._reader, self._index, self._allow_nan = reader, None, allow_nan
        self.is_checked = reader.dtype.kind != "f"
        self.any_missing: bool | None = False if self.is_checked else None
        self.spread: Any = None
        self._is_sorted = True
        name = reader.dtype.name
        self.read_dtype = np.dtype(name if name in _SLICEABLE else _EXACTLY.get(name, "float64"))

    _index: Index | None

    def __len__(self) -> int:
        return self._reader.shape[0] if self._index is None else len(self._index)

    def __getitem__(self, key: Any) -> Any:
        """Select rows by a slice, a mask or indices; or read a block by slices of both axes."""
        if isinstance(key, tuple):
            key, columns = key
            if columns is not Ellipsis:
                return self[key].toarray()[:, columns]
        if isinstance(key, slice) and key == slice(None):
            return self
        new = self._copy()
        new._index, new.spread = self._positions(key), None
        new.any_missing = False if self.any_missing is False else None
        new._is_sorted = bool((np.diff(new._index) > 0).all())
        return new

    def _positions(self, key: Any) -> Index:
        """Return the rows of the container that a key selects."""
        if isinstance(key, slice):
            chosen = np.arange(*key.indices(len(self)), dtype=np.intp)
        else:
            key = np.asarray(key)
            chosen = np.flatnonzero(key) if key.dtype == bool else key.astype(np.intp)
            if len(chosen) and not -len(self) <= chosen.min() <= chosen.max() < len(self):
                raise IndexError(f"indices must be from {-len(self)} to {len(self) - 1}")
            chosen = np.where(chosen < 0, chosen + len(self), chosen)
        return chosen if self._index is None else self._index[chosen]

    @property
    def shape(self) -> tuple[int, int]:
        """Number of rows and columns."""
        return len(self), self._reader.shape[1]

    @property
    def dtype(self) -> np.dtype[Any]:
        """Type of the values."""
        return self._reader.dtype

    @property
    def is_sparse(self) -> bool:
        """Whether rows are read as a sparse matrix."""
        return self._reader.is_sparse

    @property
    def is_small(self) -> bool:
        """Whether all rows are in memory, or may be in memory at once."""
        return self.nbytes <= WINDOW_BYTES or hasattr(self._reader, "whole")

    @property
    def kind(self) -> str:
        """What the container is."""
        return self._reader.kind

    @property
    def size(self) -> int:
        """Number of values of the dense array."""
        return self.shape[0] * self.shape[1]

    @property
    def itemsize(self) -> int:
        """Bytes of a value."""
        return self.dtype.itemsize

    @property
    def row_bytes(self) -> float:
        """Mean number of bytes of a row in memory; rows also need their indices."""
        return max(_INDEX_BYTES, self._reader.row_bytes)

    @property
    def nbytes(self) -> float:
        """Number of bytes of all rows in memory."""
        return len(self) * self.row_bytes

    def header(self) -> Any:
        """Return an array or a data frame with the columns, without rows."""
        return self._reader.header()

    def content(self) -> tuple[Any, ...]:
        """Return what a digest of the rows should contain beside the values of `pieces`.

        The places at which reading begins are part of it, because the order of shuffled rows
        depends on them.
        """
        return (*self._reader.content(), self.shape, self._reader.edges, WINDOW_BYTES, self._index)

    def without_names(self) -> Self:
        """Return the same rows, whose columns have no names."""
        new = self._copy()
        new._reader = _Nameless(self._reader)
        return new

    # ---------------------------------------------------------------------- reading

    def toarray(self) -> Array:
        """Read all rows as an array."""
        found: Any = self.rows_in_memory()
        dense: Array = found.toarray() if isinstance(found, SparseRows) else found
        return dense

    def rows_in_memory(self) -> Array | SparseRows:
        """Read all rows, as an array or as sparse rows."""
        if hasattr(self._reader, "whole"):
            whole = self._reader.whole()
            whole = whole if self._index is None else whole[self._index]
            return SparseRows(whole) if self.is_sparse else whole
        if self.is_sparse:
            return SparseRows(self.take(np.arange(len(self))))
        found: Array = self.take(np.arange(len(self)), np.empty(self.shape, dtype=self.dtype))
        return found

    def allowing(self, allow_nan: bool) -> Self:
        """Return the same rows, in which NaN are allowed or not."""
        if allow_nan == self._allow_nan:
            return self
        new = self._copy()
        new._allow_nan = allow_nan
        new.is_checked = self.is_checked and (allow_nan or self.any_missing is False)
        return new

    def _copy(self) -> Self:
        new = type(self).__new__(type(self))
        vars(new).update(vars(self))
        return new

    def pieces(self) -> Iterator[tuple[slice, Any]]:
        """Yield all rows in order, in parts that fit into memory, as slices and rows."""
        start = 0
        while start < len(self):
            stop = self.end_of_piece(start)
            yield slice(start, stop), self.read(start, stop)
            start = stop

    def end_of_piece(self, start: int) -> int:
        """Return the end of a part that begins here and is read well at once."""
        n_rows = max(1, int(_PIECE_BYTES / self.row_bytes))
        most = max(n_rows, int(WINDOW_BYTES / self.row_bytes))
        if self._index is not None and not self._is_sorted:
            return min(start + n_rows, len(self))
        first = start if self._index is None else int(self._index[start])
        stop = min(max(self._next_edge(first + n_rows), first + 1), first + most)
        if self._index is not None:
            stop = int(np.searchsorted(self._index, stop))
        return min(max(stop, start + 1), len(self))

    def _next_edge(self, row: int) -> int:
        """Return the first row at or after this one at which it is best to begin reading."""
        edges = self._reader.edges
        if isinstance(edges, int):
            return -(-row // edges) * edges
        return int(edges[min(int(np.searchsorted(edges, row)), len(edges) - 1)])

    def read(self, start: int, stop: int) -> Any:
        """Read consecutive rows, as an array or a sparse matrix in the format CSR."""
        if self._index is not None:
            return self.take(np.arange(start, stop))
        return self._gathered(np.arange(start, stop), np.array([0]), None, None)

    def take(
        self,
        rows: Index,
        out: Array | None = None,
        is_stopped: Callable[[], bool] | None = None,
    ) -> Any:
        """Read rows by their indices, as an array or a sparse matrix in the format CSR.

        Consecutive rows are read at once. Rows are written to `out` if they are not sparse. If
        `is_stopped` becomes true, reading ends, and the result is not complete.
        """
        positions = rows if self._index is None else self._index[rows]
        steps = np.diff(positions)
        if (steps < 0).any():
            order = np.argsort(positions, kind="stable")
            found = self.take(rows[order], None, is_stopped)
            back = np.empty_like(order)
            back[order] = np.arange(len(order))
            if out is None or sparse.issparse(found):
                return found[back]
            np.take(found, back, axis=0, out=out)
            return out
        starts = np.concatenate([[0], np.flatnonzero(steps > 1 + self._gap()) + 1])
        return self._gathered(positions, starts, out, is_stopped)

    def _gap(self) -> float:
        """Return how many rows are read although they are not needed, rather than skipped."""
        edges = self._reader.edges
        of_chunk = edges if isinstance(edges, int) and edges > 1 else 0
        return max(_GAP_BYTES / self.row_bytes, of_chunk)

    def _gathered(
        self,
        positions: Index,
        starts: Index,
        out: Array | None,
        is_stopped: Callable[[], bool] | None,
    ) -> Any:
        """Read increasing rows; those between two of the starts are read at once."""
        parts: list[Any] = []
        n_columns = self._reader.shape[1]
        stops = [*starts[1:], len(positions)]
        for begin, end in zip(starts, stops, strict=True):
            for some in self._pieces_of(positions, int(begin), int(end)):
                if is_stopped is not None and is_stopped():
                    return out
                wanted = positions[some]
                if not len(wanted):
                    continue
                first, last = int(wanted[0]), int(wanted[-1]) + 1
                read = self._reader.read(first, last)
                if (np.diff(wanted) != 1).any():
                    read = read[wanted - first]
                if sparse.issparse(read):
                    self._check(read.data)
                    parts.append(read)
                else:
                    if out is None:
                        out = np.empty((len(positions), n_columns), dtype=self.read_dtype)
                    out[some] = read
                    self._check(out[some])
                    self._reader.release(first, last)
        if parts:
            return parts[0] if len(parts) == 1 else sparse.vstack(parts, format="csr")
        if out is None:
            return np.empty((0, n_columns), dtype=self.read_dtype)
        return out

    def _pieces_of(self, positions: Index, begin: int, end: int) -> Iterator[slice]:
        """Yield slices of increasing rows that are read at once, which end at edges."""
        step = max(1, int(_PIECE_BYTES / self.row_bytes))
        while begin < end:
            edge = self._next_edge(int(positions[begin]) + step)
            stop = begin + int(np.searchsorted(positions[begin:end], edge))
            stop = min(max(stop, begin + 1), end)
            yield slice(begin, stop)
            begin = stop

    def _check(self, values: Array) -> None:
        """Raise scikit-learn's error for values that are not allowed."""
        if self.is_checked:
            return
        with np.errstate(over="ignore", invalid="ignore"):
            is_fine = np.isfinite(values.sum(dtype=np.float64))
        if not is_fine:
            assert_all_finite(values, allow_nan=self._allow_nan, input_name="X")

    # -------------------------------------------------------------------- shuffling

    def blocks(self) -> Index:
        """Return where the blocks begin that stay together when rows are shuffled, and the end.

        Blocks begin where reading begins best. They are smaller than what can be read at once only
        if that is larger than memory allows.
        """
        n_rows = self._reader.shape[0]
        size = max(1, int(_BLOCK_BYTES / self.row_bytes))
        most = max(1, int(WINDOW_BYTES / self.row_bytes))
        edges = self._reader.edges
        if isinstance(edges, int):
            step = min(edges * max(1, size // edges), most)
            return np.append(np.arange(0, n_rows, step), n_rows)
        found = [0]
        for edge in edges[1:]:
            if edge - found[-1] >= size or edge == n_rows:
                while edge - found[-1] > most:
                    found.append(found[-1] + most)
                if edge > found[-1]:
                    found.append(int(edge))
        return np.array(found, dtype=np.intp)

    def places(self, rows: Index | None) -> tuple[Index, Index]:
        """Return increasing indices of rows, and where blocks of them begin, and the end.

        `rows` are the rows to shuffle; None means all.
        """
        rows = np.arange(len(self), dtype=np.intp) if rows is None else np.sort(rows)
        if self._index is None:
            return rows, np.unique(np.searchsorted(rows, self.blocks()))
        if self._is_sorted:
            return rows, np.unique(np.searchsorted(self._index[rows], self.blocks()))
        size = max(1, int(_BLOCK_BYTES / self.row_bytes))
        return rows, np.append(np.arange(0, len(rows), size), len(rows))


class _Nameless:
    """A reader without names of columns."""

    def __init__(self, reader: Any) -> None:
        self._reader = reader

    def __getattr__(self, name: str) -> Any:
        if name.startswith("_"):  # before copies have attributes of their own
            raise AttributeError(name)
        return getattr(self._reader, name)

    def header(self) -> Array:
        """Return an array without rows."""
        return np.empty((0, self._reader.shape[1]))
