"""Rotations against finite differences, scikit-learn and a grid of angles."""

import numpy as np
import pytest
from scipy.linalg import expm
from scipy.stats import multivariate_normal
from sklearn.datasets import load_digits, load_wine
from sklearn.decomposition import FactorAnalysis
from sklearn.preprocessing import scale

from skae._linear.rotations import criterion_of, rotation_of

methods = pytest.mark.parametrize("method", ["varimax", "quartimax"])


def sparse_loadings(n_features=30, n_factors=4, seed=0):
    """Loadings with many zeros, and then rotated at random."""
    rng = np.random.default_rng(seed)
    loadings = rng.normal(size=(n_features, n_factors))
    loadings *= rng.random(loadings.shape) < 0.4
    return loadings @ np.linalg.qr(rng.normal(size=(n_factors, n_factors)))[0]


def criterion_of_definition(L, method):
    """Variances of the squared entries of each column, or their sum of squares."""
    if method == "quartimax":
        return np.sum(L**4)
    return len(L) * np.sum(np.var(L**2, axis=0))


@methods
def test_the_criterion_is_its_definition(method):
    W = sparse_loadings()
    assert criterion_of(W, method) == pytest.approx(criterion_of_definition(W, method))


@methods
@pytest.mark.parametrize("n_factors", [2, 3, 4, 7])
@pytest.mark.parametrize("size", [1e-90, 1.0, 1e60])
def test_the_criterion_is_stationary_and_not_below_its_surroundings(method, n_factors, size):
    """Along every skew-symmetric direction, by central differences."""
    W = sparse_loadings(n_factors=n_factors)
    R = rotation_of(size * W, method)
    np.testing.assert_allclose(R.T @ R, np.eye(n_factors), atol=1e-12)
    best = criterion_of_definition(W @ R, method)
    rng = np.random.default_rng(1)
    for _ in range(10):
        skew = rng.normal(size=(n_factors, n_factors))
        skew -= skew.T
        ahead, behind = (
            criterion_of_definition(W @ R @ expm(h * skew), method) for h in (1e-4, -1e-4)
        )
        assert abs(ahead - behind) / 2e-4 < 1e-5 * best
        assert max(ahead, behind) <= best * (1 + 1e-12)


@methods
def test_two_factors_against_a_grid_of_angles(method):
    W = sparse_loadings(n_factors=2)
    angles = np.linspace(0, np.pi / 2, 2001)
    c, s = np.cos(angles), np.sin(angles)
    grid = [
        criterion_of_definition(W @ np.array([[a, -b], [b, a]]), method)
        for a, b in zip(c, s, strict=True)
    ]
    found = criterion_of(W @ rotation_of(W, method), method)
    assert max(grid) <= found < max(grid) * (1 + 1e-5)


@methods
@pytest.mark.parametrize("n_components", [2, 3, 6])
@pytest.mark.parametrize("load", [load_wine, load_digits])
def test_the_criterion_is_at_least_that_of_scikit_learn(method, n_components, load):
    X = scale(load().data)
    X = X[:, X.std(axis=0) > 0]
    options = {"n_components": n_components, "svd_method": "lapack", "max_iter": 5000}
    W = FactorAnalysis(**options).fit(X).components_.T
    expected = FactorAnalysis(rotation=method, **options).fit(X).components_.T
    found = W @ rotation_of(W, method)
    assert criterion_of(found, method) >= criterion_of(expected, method) * (1 - 1e-9)


@methods
def test_the_likelihood_does_not_change(method):
    W = sparse_loadings()
    psi = np.linspace(0.1, 2, len(W))
    rotated = W @ rotation_of(W, method)
    x = np.random.default_rng(2).normal(size=(5, len(W)))
    before, after = (
        multivariate_normal.logpdf(x, cov=L @ L.T + np.diag(psi)) for L in (W, rotated)
    )
    np.testing.assert_allclose(after, before, rtol=1e-10)


@methods
@pytest.mark.parametrize("n_factors", [1, 4, 5])
def test_rotated_columns_have_one_order_and_one_sign(method, n_factors):
    """Any other order, sign or rotation of the loadings gives the same rotated loadings."""
    W = sparse_loadings(n_factors=n_factors)
    rotated = W @ rotation_of(W, method)
    lengths = np.sum(rotated**2, axis=0)
    assert np.all(np.diff(lengths) <= 0)
    highest = np.abs(rotated).argmax(axis=0)
    assert np.all(rotated[highest, np.arange(n_factors)] > 0)
    rng = np.random.default_rng(3)
    other = -W[:, rng.permutation(n_factors)]
    np.testing.assert_allclose(other @ rotation_of(other, method), rotated, atol=1e-6)


@methods
def test_one_factor_only_changes_its_sign(method):
    W = np.array([[0.5], [-2.0], [1.0]])
    np.testing.assert_array_equal(rotation_of(W, method), [[-1.0]])
    np.testing.assert_array_equal(rotation_of(-W, method), [[1.0]])


@methods
@pytest.mark.parametrize("W", [np.zeros((5, 3)), np.ones((1, 3)), np.eye(4)[:, :3]])
def test_loadings_without_a_best_rotation_are_accepted(method, W):
    R = rotation_of(W, method)
    np.testing.assert_allclose(R.T @ R, np.eye(3), atol=1e-12)
    assert criterion_of(W @ R, method) >= criterion_of(W, method) - 1e-12
