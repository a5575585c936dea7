"""Minima and maxima of columns, by which values are checked, against NumPy."""

import numpy as np
import pytest
import torch

from skae._value_ranges import _range_of_columns

TYPES = ["bool", "uint8", "int8", "int16", "int32", "int64", "float16", "float32", "float64"]


@pytest.mark.parametrize("dtype", TYPES)
@pytest.mark.parametrize("missing", [False, True])
def test_ranges_are_those_of_the_observed_values(dtype, missing):
    """A column without any has an empty range, which no limit excludes."""
    kind = np.dtype(dtype).kind
    values = 40 * np.random.default_rng(0).normal(size=(30, 4))
    values = (np.abs(values) if kind in "ub" else values).astype(dtype)
    expected = values.min(axis=0), values.max(axis=0)
    if missing and kind == "f":
        values[:5, 0] = values[:, 2] = np.nan
        expected = np.nanmin(values[:, [0, 1, 3]], axis=0), np.nanmax(values[:, [0, 1, 3]], axis=0)
        expected = (
            np.insert(e, 2, nothing) for e, nothing in zip(expected, (np.inf, -np.inf), strict=True)
        )
    for found, truth in zip(_range_of_columns(torch.from_numpy(values)), expected, strict=True):
        assert found.dtype == torch.float64
        np.testing.assert_array_equal(found.numpy(), truth.astype(float))
