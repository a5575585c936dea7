"""Draws of missing values given drawn models, against conditional Gaussians."""

import itertools

import numpy as np
import pytest

from skae._linear.completions import completions_of_uncertain
from skae._linear.linear_gaussian import LinearGaussian


def make_model(seed):
    rng = np.random.default_rng(seed)
    return LinearGaussian(rng.normal(size=(5, 2)), rng.normal(size=5), rng.uniform(0.3, 1.0, 5))


@pytest.mark.parametrize("noise", [False, True])
def test_each_completion_has_the_conditional_gaussian_of_its_own_model(noise):
    X = np.tile([1.0, np.nan, 0.0, np.nan, 2.0], (6_000, 1))
    X[3_000:] = [np.nan, np.nan, np.nan, 1.0, -1.0]
    models = [make_model(1), make_model(2)]
    draws = completions_of_uncertain(
        X, make_model(0), iter(models), 2, np.random.RandomState(0), noise
    )
    for draw, (W, mean, psi, _) in zip(draws, models, strict=True):
        C = W @ W.T + np.diag(psi)
        for rows in (slice(0, 3_000), slice(3_000, None)):
            x, o = X[rows][0], ~np.isnan(X[rows][0])
            gain = np.linalg.solve(C[np.ix_(o, o)], C[np.ix_(o, ~o)]).T
            expected = mean[~o] + gain @ (x[o] - mean[o])
            covariance = C[np.ix_(~o, ~o)] - gain @ C[np.ix_(o, ~o)]
            covariance -= 0 if noise else np.diag(psi[~o])
            found = draw[rows][:, ~o]
            np.testing.assert_allclose(found.mean(axis=0), expected, atol=0.08 * np.sqrt(C.max()))
            np.testing.assert_allclose(np.cov(found.T), covariance, atol=0.08 * C.max())
            np.testing.assert_array_equal(draw[rows][:, o], X[rows][:, o])


def test_there_is_one_model_for_each_completion():
    X, models = np.full((1, 5), np.nan), itertools.count()
    taken = (make_model(next(models)) for _ in itertools.repeat(None))
    rng = np.random.RandomState(0)
    assert completions_of_uncertain(X, make_model(0), taken, 3, rng, True).shape == (3, 1, 5)
    assert next(models) == 3
