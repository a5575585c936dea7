"""Variances of rows along their principal axes, without the axes, for rows of any real type.

The rows are read in blocks, and sums are in float64.
"""

from collections.abc import Callable
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray
from scipy import linalg
from sklearn.utils import gen_batches

Array = NDArray[np.float64]
# Returns the centred values of some rows and columns; NaN marks a missing value.
Reader = Callable[[slice, slice], Array]

# Number of values in a block.
_BLOCK = 2**21


class Variances(NamedTuple):
    """Variances along the principal axes in decreasing order, and their total."""

    along_axes: Array
    total: float


def principal_variances(
    read: Reader, shape: tuple[int, int], weight: Array | None, *, any_missing: bool
) -> Variances:
    """Variances along the principal axes of rows of this shape.

    They are the eigenvalues of the covariance, or of the Gram matrix if it is smaller. With missing
    values, the covariance of two columns is estimated from the rows in which both are observed.
    Such an estimate may have negative eigenvalues, which are replaced by zero.
    """
    n_rows, n_columns = shape
    weight = np.ones(n_rows) if weight is None else weight / weight.mean()
    if any_missing:
        matrix = _covariance_of_pairs(read, shape, weight)
    elif n_columns <= n_rows:
        matrix = _covariance(read, shape, weight)
    else:
        matrix = _gram(read, shape, weight)
    found = linalg.eigvalsh(matrix, overwrite_a=True, check_finite=False)[::-1]
    return Variances(np.maximum(found, 0.0), float(found.sum()))


def _covariance(read: Reader, shape: tuple[int, int], weight: Array) -> Array:
    n_rows, n_columns = shape
    scatter = np.zeros((n_columns, n_columns))
    for rows in gen_batches(n_rows, max(1, _BLOCK // n_columns)):
        values = read(rows, slice(None)) * np.sqrt(weight[rows])[:, None]
        scatter += values.T @ values
    return scatter / n_rows


def _gram(read: Reader, shape: tuple[int, int], weight: Array) -> Array:
    n_rows, n_columns = shape
    products = np.zeros((n_rows, n_rows))
    for columns in gen_batches(n_columns, max(1, _BLOCK // n_rows)):
        values = read(slice(None), columns) * np.sqrt(weight)[:, None]
        products += values @ values.T
    return products / n_rows


def _covariance_of_pairs(read: Reader, shape: tuple[int, int], weight: Array) -> Array:
    n_rows, n_columns = shape
    scatter, together = np.zeros((2, n_columns, n_columns))
    for rows in gen_batches(n_rows, max(1, _BLOCK // n_columns)):
        values, root = read(rows, slice(None)), np.sqrt(weight[rows])[:, None]
        seen = root * ~np.isnan(values)
        values = root * np.nan_to_num(values)
        scatter += values.T @ values
        together += seen.T @ seen
    covariance: Array = np.divide(scatter, together, out=scatter, where=together > 0)
    return covariance
