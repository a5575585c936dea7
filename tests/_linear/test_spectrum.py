"""Variances along principal axes, against eigenvalues and singular values of NumPy."""

import numpy as np
import pytest

from skae._linear import spectrum
from skae._linear.spectrum import principal_variances

SHAPES = {"tall": (60, 7), "square": (9, 9), "wide": (8, 30)}
every_shape = pytest.mark.parametrize("shape", SHAPES.values(), ids=SHAPES)


def rows(shape, seed=0):
    rng = np.random.default_rng(seed)
    return rng.normal(size=shape) * np.geomspace(5, 0.1, shape[1]) + 3


def found(X, weight=None):
    """The variances, of rows that are read in blocks."""
    mean = np.ma.average(np.ma.masked_invalid(X), axis=0, weights=weight).filled(0)

    def read(some_rows, some_columns):
        return X[some_rows, some_columns] - mean[some_columns]

    return principal_variances(read, X.shape, weight, any_missing=bool(np.isnan(X).any()))


@pytest.fixture(params=[16, 2**21], ids=["small blocks", "one block"], autouse=True)
def blocks(request, monkeypatch):
    monkeypatch.setattr(spectrum, "_BLOCK", request.param)


@every_shape
def test_variances_are_squared_singular_values(shape):
    """Of the centred rows, with 1/n."""
    X = rows(shape)
    along, total = found(X)
    expected = np.linalg.svd(X - X.mean(0), compute_uv=False) ** 2 / len(X)
    assert len(along) == min(shape)
    np.testing.assert_allclose(along, expected, atol=1e-12 * expected[0])
    assert total == pytest.approx(X.var(axis=0).sum())


@every_shape
def test_a_weight_counts_copies(shape):
    """Whole weights have the effect of copies of the rows, whatever they are divided by."""
    X = rows(shape)
    copies = np.random.default_rng(1).integers(1, 4, len(X))
    expected = found(np.repeat(X, copies, axis=0))
    for factor in (1.0, 1e-3):
        along, total = found(X, factor * copies)
        n = min(len(along), len(expected.along_axes))  # the others are zero
        np.testing.assert_allclose(along[:n], expected.along_axes[:n], atol=1e-9 * total)
        assert total == pytest.approx(expected.total)


@every_shape
@pytest.mark.parametrize("weighted", [False, True])
def test_covariances_of_pairs(shape, weighted):
    """With missing values, a covariance is that of the rows in which both columns are observed."""
    X = rows(shape)
    rng = np.random.default_rng(2)
    X[rng.random(shape) < 0.2] = np.nan
    weight = rng.uniform(0.5, 2, len(X)) if weighted else None
    w = np.ones(len(X)) if weight is None else weight
    columns = range(shape[1])
    mean = [np.average(X[s, j], weights=w[s]) for j in columns if (s := ~np.isnan(X[:, j])).any()]
    expected = np.zeros((shape[1], shape[1]))
    for i in columns:
        for j in columns:
            both = ~np.isnan(X[:, i]) & ~np.isnan(X[:, j])
            if both.any():
                products = (X[both, i] - mean[i]) * (X[both, j] - mean[j])
                expected[i, j] = np.average(products, weights=w[both])
    along, total = found(X, weight)
    values = np.linalg.eigvalsh(expected)[::-1]
    np.testing.assert_allclose(along, np.maximum(values, 0), atol=1e-12 * values[0])
    assert total == pytest.approx(np.trace(expected))


def test_columns_that_are_never_observed_together():
    """Their covariance is zero."""
    X = np.array([[1.0, np.nan], [3.0, np.nan], [np.nan, 5.0], [np.nan, 9.0]])
    along, total = found(X)
    np.testing.assert_allclose(along, [4, 1])
    assert total == pytest.approx(5)
