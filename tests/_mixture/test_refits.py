"""Refits of mixtures to other histograms."""

import numpy as np
import pytest

from skae import CountMixtureAE, image_to_counts
from skae._mixture.domain import Domain
from skae._mixture.fit_gaussians import FitOptions
from skae._mixture.pixel_masses import pixel_masses
from skae._mixture.refits import pixel_rows, refit_of_cells, refit_of_gaussians

SHAPE = (20, 24)
BOUNDS = np.array([[0.0, 20.0], [0.0, 24.0]])


def options(**changes):
    standard = {
        "kind": "full",
        "algorithm": "em",
        "init": "quantiles",
        "prior_counts": 0.0,
        "n_averages": 1,
        "tol": 1e-4,
        "max_iter": 100,
        "n_jobs": None,
        "floor": 1 / 12,
        "bounds": BOUNDS,
    }
    return FitOptions(**{**standard, **changes})


def histogram():
    rng = np.random.RandomState(0)
    i, j = np.indices(SHAPE)
    mean = 80 * np.exp(-((i - 9) ** 2 / 8 + (j - 11) ** 2 / 12 + (i - 9) * (j - 11) / 20))
    return rng.poisson(mean).astype(float)


def masses_of(mixture):
    return pixel_masses(mixture, SHAPE, None)


def cells(n_cells, n_averages):
    aligned = np.ones(2, dtype=bool)
    domain = Domain(BOUNDS[:, 0], BOUNDS[:, 1], np.ones(2), np.ones(2), aligned)
    return refit_of_cells(domain, n_cells, n_averages, None, masses_of)


def test_pixels_as_rows():
    rows, weight = pixel_rows(np.array([[0.0, 2.0], [3.0, 0.0]]))
    np.testing.assert_array_equal(rows, [[0.5, 1.5], [1.5, 0.5]])
    np.testing.assert_array_equal(weight, [2, 3])


def test_one_gaussian_has_the_moments_of_the_histogram():
    seen = histogram()
    masses = refit_of_gaussians(options(), 1, masses_of)(seen, np.random.RandomState(0))
    centre = np.indices(SHAPE).reshape(2, -1) + 0.5

    def moments(image):
        share = image.ravel() / image.sum()
        mean = centre @ share
        return mean, (centre - mean[:, None]) * share @ (centre - mean[:, None]).T

    mean, covariance = moments(masses)
    seen_mean, seen_covariance = moments(seen)
    np.testing.assert_allclose(mean, seen_mean, atol=1e-3)
    # The density is integrated over pixels, which adds 1/12, the variance within a pixel.
    np.testing.assert_allclose(covariance, seen_covariance + np.eye(2) / 12, atol=2e-2)
    assert masses.sum() == pytest.approx(1, abs=1e-4)


def test_one_cell_is_uniform():
    masses = cells(1, 1)(histogram(), np.random.RandomState(0))
    np.testing.assert_allclose(masses, 1 / masses.size)


@pytest.mark.parametrize(
    "refit", [cells(20, 1), cells(None, 3), refit_of_gaussians(options(), 6, masses_of)]
)
def test_the_start_is_shifted_by_the_generator(refit):
    seen = histogram()
    first, again, other = (refit(seen, np.random.RandomState(seed)) for seed in (0, 0, 1))
    np.testing.assert_array_equal(first, again)
    assert np.abs(first - other).max() > 1e-6
    # They are still fits to the same histogram.
    assert np.abs(first - other).sum() < 0.8
    assert np.abs(first - seen / seen.sum()).sum() < 0.8


@pytest.mark.parametrize(
    "params",
    [
        {"n_components": 12, "covariance_type": "cell", "n_averages": 3},
        {"n_components": 4, "n_averages": 2, "prior_counts": 0.0, "edges": "open"},
    ],
)
def test_averages_are_those_of_the_estimator(params):
    seen = histogram()
    rows, weight = image_to_counts(seen)
    model = CountMixtureAE(image_shape=SHAPE, random_state=0, **params)
    expected = model.fit(rows, sample_weight=weight).intensity()
    if model.covariance_type_ == "cell":
        refit = cells(12, 3)
    else:
        refit = refit_of_gaussians(options(n_averages=2), 4, masses_of)
    np.testing.assert_allclose(refit(seen, np.random.RandomState(0)), expected, rtol=1e-9)
