"""Rows before a fit: equal rows become one, and features that are no places get suitable units."""

from typing import Any

import numpy as np
from numpy.typing import NDArray

Array = NDArray[Any]


def merged_rows(rows: Array, weight: Array) -> tuple[Array, Array]:
    """Distinct rows, and the sums of their weights. The likelihood does not change."""
    distinct, inverse = np.unique(rows, axis=0, return_inverse=True)
    return distinct, np.bincount(inverse.ravel(), weight, len(distinct))


def units_of(rows: Array, weight: Array, n_places: int) -> Array:
    """Units of all features: 1 for places, and powers of two for further features.

    In these units the standard deviations of further features are about those of the places, so
    that distances along all axes may be compared.
    """
    share = weight / weight.sum()
    mean = share @ rows
    deviation = np.sqrt(share @ (rows - mean) ** 2)
    typical = deviation[:n_places].mean() or 1.0
    ratio = np.where(deviation > 0, deviation, typical) / typical
    units = 2.0 ** np.round(np.log2(ratio))
    units[:n_places] = 1.0
    return units


def range_beside(values: Array) -> Array:
    """Lowest and highest value of each column, (n_columns, 2); a positive length for constants."""
    lo, hi = values.min(axis=0), values.max(axis=0)
    alike = lo == hi
    return np.stack([np.where(alike, lo - 0.5, lo), np.where(alike, hi + 0.5, hi)], axis=1)
