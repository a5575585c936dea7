"""Rows of any type as tensors that share their memory."""

from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from scipy import sparse
from torch import Tensor

from skae._training.sparse_rows import SparseTensor
from skae._utils.sparse_rows import Rows, SparseRows
from skae._utils.stored_rows import StoredRows
from skae._utils.warning import ignoring

# Types that torch can slice. Arrays of other types are converted once.
_SLICEABLE = ("float64", "float32", "float16", "uint8", "int8", "int16", "int32", "int64", "bool")


def as_tensor(X: NDArray[Any]) -> Tensor:
    """Return the array as a tensor, which shares its memory if torch can slice its type."""
    if X.dtype.name not in _SLICEABLE or not X.dtype.isnative:
        X = X.astype(np.float64)
    row_major = X.strides[1] == X.itemsize or X.shape[1] == 1
    sliceable = min(X.strides) >= 0 and not any(stride % X.itemsize for stride in X.strides)
    if not sliceable:
        X = X.copy(order="C")  # an array of one row is contiguous also with negative strides
    elif not (row_major or is_mapped(X)):
        X = np.ascontiguousarray(X)  # because selecting rows is slow if columns are contiguous
    if X.flags.writeable:
        return torch.from_numpy(X)
    # The array may be read-only, because the tensor is never written to.
    with ignoring("The given NumPy array is not writable"):
        return torch.from_numpy(X)


def source_of(X: Rows | StoredRows) -> "Source":
    """Return rows in the type of `as_tensor`; slices of sparse rows are dense."""
    if isinstance(X, StoredRows):
        return StoredTensor(X)
    if not isinstance(X, SparseRows):
        return as_tensor(X)
    values, columns = (as_tensor(part[:, None])[:, 0] for part in (X.values, X.columns))
    return SparseTensor(values, columns, torch.from_numpy(X.starts.astype(np.int64)), X.shape[1])


def is_mapped(X: Any) -> bool:
    """Return whether the array is a view of a file in memory-mapped mode."""
    while X is not None and not isinstance(X, np.memmap):
        X = getattr(X, "base", None)
    return X is not None


class StoredTensor:
    """Stored rows with the interface of a tensor; slices and `index_select` are read."""

    def __init__(self, rows: StoredRows, dtype: torch.dtype | None = None) -> None:
        self.rows, self._as = rows, dtype
        self.shape = torch.Size(rows.shape)
        self.dtype = dtype or as_tensor(np.empty((1, 1), dtype=rows.read_dtype)).dtype
        self.device = torch.device("cpu")
        # Rows that were read ahead, which are consecutive.
        self._ahead: tuple[int, int, Any] = (0, 0, None)

    def __len__(self) -> int:
        return self.shape[0]

    def element_size(self) -> int:
        """Bytes of a value."""
        return self.dtype.itemsize

    @property
    def nbytes(self) -> int:
        """Bytes of the dense tensor of all rows."""
        return self.shape.numel() * self.element_size()

    def float(self) -> "StoredTensor":
        """Return the same rows in float32."""
        return StoredTensor(self.rows, torch.float32)

    def to(self, device: torch.device) -> Tensor:
        """Read all rows into the memory of a device, part by part."""
        found = torch.empty(self.shape, dtype=self.dtype, device=device)
        for part, rows in self.rows.pieces():
            found[part] = self._tensor(rows).to(device)
        return found

    def __getitem__(self, rows: slice) -> Tensor:
        """Return consecutive rows; some of the following ones are read ahead."""
        start, stop, _ = rows.indices(len(self))
        parts = []
        while start < stop:
            begin, end, read = self._ahead
            if not begin <= start < end:
                self._ahead = (0, 0, None)  # so that its memory can be used again
                begin, end = start, self.rows.end_of_piece(start)
                read = source_of_part(self.rows.read(begin, end))
                self._ahead = begin, end, read
            part = read[start - begin : min(stop, end) - begin]
            parts.append(part)
            start += len(part)
        if not parts:
            return torch.empty((0, self.shape[1]), dtype=self.dtype)
        found = torch.cat(parts) if len(parts) > 1 else parts[0]
        return found if self._as is None else found.to(self._as)

    def index_select(self, dim: int, index: Tensor) -> Tensor:
        """Return the rows of an index (dim=0)."""
        chosen = index.numpy()
        if len(chosen) and (np.diff(chosen) == 1).all():
            return self[int(chosen[0]) : int(chosen[-1]) + 1]
        return self._tensor(self.rows.take(chosen))

    def _tensor(self, rows: Any) -> Tensor:
        found = torch.from_numpy(rows.toarray()) if sparse.issparse(rows) else as_tensor(rows)
        return found if self._as is None else found.to(self._as)


# Rows of any type, of which slices and `index_select` are dense tensors.
Source = Tensor | SparseTensor | StoredTensor


def source_of_part(rows: Any) -> Tensor | SparseTensor:
    """Return rows that were read as a tensor that shares their memory."""
    found = source_of(SparseRows(rows) if sparse.issparse(rows) else rows)
    assert isinstance(found, Tensor | SparseTensor)
    return found
