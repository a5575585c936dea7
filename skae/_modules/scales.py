"""Scales, ranges and types of rows, from which the units of a network follow."""

from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from skae._training.columns import CATEGORICAL, Columns
from skae._training.data import Spread

# Smallest frequency of a level for the scale of its one-hot column.
_RAREST = 0.01
# Standard deviations below this, relative to the size of the values, may be rounding.
_ROUNDING = 1e-14


def range_of(spread: Spread) -> tuple[float, float]:
    """Return the smallest and the largest of all values."""
    return float(spread.low.min()), float(spread.high.max())


def shares(mean: NDArray[np.float64]) -> NDArray[np.float64]:
    """Return the share of every feature in the mean row of counts."""
    total = mean.sum()
    found: NDArray[np.float64] = mean / total if total > 0 else np.full_like(mean, 1 / len(mean))
    return found


def scale_of(
    spread: Spread, dtype: np.dtype[Any], columns: Columns | None
) -> float | NDArray[np.float64]:
    """Return the scale of the encoder's input: one number, or for a table one for each column."""
    return common_scale(spread, dtype) if columns is None else scale_of_each(spread, columns)


def scale_of_each(spread: Spread, columns: Columns) -> NDArray[np.float64]:
    """Return the standard deviation of every column of a table.

    For a level it is the root of its frequency, as in multiple correspondence analysis.
    """
    share = spread.mean.clamp(min=_RAREST).sqrt()
    size = torch.maximum(spread.low.abs(), spread.high.abs())
    size = size.where(size > 0, torch.ones_like(size))
    found = spread.variance.sqrt()
    # If a column varies only by rounding, its scale is the size of its values.
    found = found.where(found > _ROUNDING * size, size)
    scale: NDArray[np.float64] = share.where(columns.among((CATEGORICAL,)), found).numpy()
    return scale


def common_scale(spread: Spread, dtype: np.dtype[Any]) -> float:
    """Return the root of the mean variance; it is the size of values that vary only by rounding."""
    scale = float(spread.variance.mean().sqrt())
    size = float(torch.maximum(spread.low.abs(), spread.high.abs()).max())
    if not np.isfinite(scale):
        raise ValueError(
            f"The values of X, up to {size:g} in size, are too large: their squares must be "
            "finite in float64. Rescale X."
        )
    eps = float(np.finfo(dtype).eps) if dtype.kind == "f" else 0.0
    if scale > 10 * eps * size and scale > 1e-150:
        return scale
    return size if size > 1e-150 else 1.0


def row_dtype(dtype: np.dtype[Any]) -> str:
    """Return the type for rows of this type; far from zero, float32 may lose their differences."""
    return "float32" if np.result_type(dtype, np.float32) == np.float32 else "float64"
