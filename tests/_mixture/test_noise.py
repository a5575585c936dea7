"""Validation of covariances of noise, and initial mixtures without the noise."""

import re

import numpy as np
import pandas as pd
import pytest
from scipy import linalg, sparse

from skae._mixture.gaussians import Gaussians, Prior
from skae._mixture.noise import check_noise_range, checked_noise, without_noise


def make_matrices(n, n_dims, seed=0):
    factor = np.random.default_rng(seed).normal(size=(n, n_dims, n_dims))
    return factor @ factor.swapaxes(1, 2)


# --------------------------------------------------------------------- what is allowed


@pytest.mark.parametrize("container", [np.asarray, list, pd.Series])
def test_a_variance_for_each_row(container):
    found = checked_noise(container([0.0, 1.0, 2.5]), 3, 2)
    np.testing.assert_array_equal(found, np.array([0, 1, 2.5])[:, None, None] * np.eye(2))
    assert found.dtype == np.float64


@pytest.mark.parametrize("container", [np.asarray, list, pd.DataFrame])
def test_variances_of_features(container):
    given = [[1, 2], [0, 3], [4, 0]]
    found = checked_noise(container(given), 3, 2)
    np.testing.assert_array_equal(found, [np.diag(row) for row in given])


def test_as_many_rows_as_features_have_variances():
    given = np.array([[1.0, 2.0], [2.0, 5.0]])
    np.testing.assert_array_equal(checked_noise(given, 2, 2), [np.diag(row) for row in given])


@pytest.mark.parametrize("dtype", [np.float64, np.float32])
@pytest.mark.parametrize("n_dims", [1, 2, 3, 7])
def test_matrices(n_dims, dtype):
    """They become symmetric; singular ones are allowed, in which rounding errors are negative."""
    given = make_matrices(20, n_dims)
    given[0] = 0
    axis = np.random.default_rng(1).normal(size=(n_dims, 1))
    given[1] = 1e20 * axis @ axis.T
    given[2] = 1e-20 * axis @ axis.T
    given = given.astype(dtype)
    if n_dims > 1:
        given[3, 0, 1] *= 1 + 4 * np.finfo(dtype).eps
    before = given.copy()
    found = checked_noise(given, 20, n_dims)
    assert found.dtype == np.float64
    np.testing.assert_array_equal(found, found.swapaxes(1, 2))
    np.testing.assert_allclose(found, given, rtol=1e-6)
    np.testing.assert_array_equal(given, before)


# ------------------------------------------------------------------ what is not allowed


@pytest.mark.parametrize(
    ("given", "message"),
    [
        (np.ones(4), r"shape \(4,\); allowed are \(5,\) for a variance of each row, \(5, 2\) for"),
        (np.ones((5, 3)), r"shape \(5, 3\); allowed are"),
        (np.ones((5, 2, 3)), r"shape \(5, 2, 3\); allowed are .* \(5, 2, 2\) for a covariance"),
        (np.eye(2), r"shape \(2, 2\); .* all rows share, use the parameter psf"),
        (1.0, r"shape \(\); .* all rows share, use the parameter psf"),
        ([0, 1, -0.5, 0, -3], r"noise_covariance\[2\] is -0.5; .* at least 0"),
        ([[0, 1]] * 4 + [[0, -2]], r"noise_covariance\[4, 1\] is -2; .* at least 0"),
        ([0, 1, np.nan, 0, 0], r"noise_covariance\[2\] is nan; allowed are finite"),
        ([0, np.inf, np.nan, 0, 0], r"noise_covariance\[1\] is inf; .* a large variance"),
        ([None, 1, 2, 3, 4], r"noise_covariance\[0\] is nan"),
        (np.ma.masked_less([0, 1, 2, 3, -4], 0), "noise_covariance is a masked array"),
    ],
)
def test_errors_of_values(given, message):
    with pytest.raises(ValueError, match=message):
        checked_noise(given, 5, 2)


@pytest.mark.parametrize(
    "given",
    [
        sparse.csr_array(np.eye(5)[:, :2]),
        np.ones(5, dtype=complex),
        np.array(["a"] * 5),
        np.arange(5).astype("datetime64[D]"),
    ],
)
def test_errors_of_types(given):
    with pytest.raises(TypeError, match="noise_covariance"):
        checked_noise(given, 5, 2)


@pytest.mark.parametrize("n_dims", [2, 3, 6])
@pytest.mark.parametrize("size", [1e-200, 1.0, 1e200])
def test_errors_of_matrices(size, n_dims):
    """They name the first row."""
    good = make_matrices(6, n_dims)
    checked_noise(size * good, 6, n_dims)
    given = good.copy()
    given[4, 0, 1] += 1e-3
    given[5, 0, 1] += 1
    with pytest.raises(ValueError, match=r"noise_covariance\[4\] is not symmetric"):
        checked_noise(size * given, 6, n_dims)
    given = good.copy()
    least = linalg.eigvalsh(given[3])[0]
    given[3] -= (least + 0.25) * np.eye(n_dims)
    given[5] = -given[5]
    message = rf"noise_covariance\[3\] is not positive .* is {-0.25 * size:g}\."
    with pytest.raises(ValueError, match=message.replace("+", re.escape("+"))):
        checked_noise(size * given, 6, n_dims)


def test_one_feature_has_no_negative_matrices():
    with pytest.raises(ValueError, match=r"noise_covariance\[1\] .* eigenvalue is -2"):
        checked_noise(np.array([1.0, -2.0, 0.0])[:, None, None], 3, 1)


def test_the_range_of_floats():
    noise = 1e200 * np.array([np.zeros((2, 2)), np.eye(2)])
    check_noise_range(noise, 1e-6)
    for floor in (1e-150, 1e-101):
        with pytest.raises(ValueError, match=r"noise_covariance\[1\] has entries of up to 1e\+200"):
            check_noise_range(noise, floor)


# --------------------------------------------------------------- the initial mixture


def make_start(kind, n_dims=3):
    matrices = make_matrices(4, n_dims) + 0.5 * np.eye(n_dims)
    variances = np.diagonal(matrices, axis1=1, axis2=2).copy()
    covariances = {
        "full": matrices,
        "tied": matrices[0],
        "diag": variances,
        "spherical": variances.mean(axis=1),
    }[kind]
    means = np.random.default_rng(1).normal(size=(4, n_dims))
    prior = Prior(2.0, means, variances, np.eye(n_dims))
    return Gaussians(np.full(4, 0.25), means, covariances, kind), prior


@pytest.mark.parametrize("kind", ["spherical", "diag", "tied", "full"])
def test_small_noise_is_subtracted(kind):
    start, prior = make_start(kind)
    noise = 0.1 * make_matrices(1, 3, seed=3)[0] / 3
    found, of_prior = without_noise(start, prior, noise, 1e-9)
    truth = start.full() - noise
    if kind == "diag":
        truth = truth * np.eye(3)
    elif kind == "spherical":
        truth = start.full() - np.trace(noise) / 3 * np.eye(3)
    np.testing.assert_allclose(found.full(), truth, atol=1e-12)
    np.testing.assert_allclose(of_prior.variances, prior.variances - np.diag(noise))
    np.testing.assert_array_equal(found.means, start.means)
    assert of_prior.counts == prior.counts


@pytest.mark.parametrize("kind", ["spherical", "diag", "tied", "full"])
def test_a_tenth_remains_of_large_noise(kind):
    """Along the axes where the noise is larger, and along all axes at least the floor."""
    start, prior = make_start(kind)
    axis = np.random.default_rng(5).normal(size=(3, 1))
    for noise in (1e6 * np.eye(3), 1e3 * axis @ axis.T):
        found, of_prior = without_noise(start, prior, noise, 1e-9)
        for after, before in zip(found.full(), start.full(), strict=True):
            ratio = linalg.eigh(after, before, eigvals_only=True)
            assert ratio.min() == pytest.approx(0.1)
            assert ratio.max() < 1 + 1e-9
        assert (of_prior.variances >= 0.1 * prior.variances * (1 - 1e-12)).all()
    found, of_prior = without_noise(start, prior, 1e6 * np.eye(3), 7.0)
    assert np.linalg.eigvalsh(found.full()).min() == pytest.approx(7)
    assert (of_prior.variances >= 7).all()
