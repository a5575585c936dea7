"""Rows of any type as tensors that share their memory."""

from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from skae._training.sparse_rows import SparseTensor
from skae._utils.sparse_rows import Rows, SparseRows
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


def source_of(X: Rows) -> Tensor | SparseTensor:
    """Return rows in the type of `as_tensor`; slices of sparse rows are dense."""
    if not isinstance(X, SparseRows):
        return as_tensor(X)
    values, columns = (as_tensor(part[:, None])[:, 0] for part in (X.values, X.columns))
    return SparseTensor(values, columns, torch.from_numpy(X.starts.astype(np.int64)), X.shape[1])


def is_mapped(X: Any) -> bool:
    """Return whether the array is a view of a file in memory-mapped mode."""
    while X is not None and not isinstance(X, np.memmap):
        X = getattr(X, "base", None)
    return X is not None
