"""Masses of bivariate Gaussians on rectangles, against SciPy's distribution function."""

import numpy as np
import pytest
from scipy.stats import multivariate_normal

from skae._mixture.thin_gaussians import rectangle_masses, thin_masses


def by_scipy(x, y, covariance):
    """Double differences of the distribution function."""
    corners = np.array([[(a, b) for b in y] for a in x])
    law = multivariate_normal([0, 0], covariance, allow_singular=True)
    return np.diff(np.diff(law.cdf(corners), axis=0), axis=1)


@pytest.mark.parametrize("correlation", [-0.999, -0.5, 0.0, 0.3, 0.95])
@pytest.mark.parametrize("scale", [1.0, 0.05])
def test_a_mean_on_a_corner_is_no_exception(correlation, scale):
    """On an edge, on a corner and beside them: where Owen's T has no value of its own."""
    covariance = scale**2 * np.array([[1.0, 2 * correlation], [2 * correlation, 4.0]])
    edges = scale * np.array([-3.0, -1.0, 0.0, 0.5, 2.0])
    for x, y in ((edges, edges), (edges, edges + 0.1 * scale), (edges + 1e-9, edges)):
        found = rectangle_masses(x, y, covariance)
        np.testing.assert_allclose(found, by_scipy(x, y, covariance), atol=1e-9)


def test_a_mean_on_a_corner_of_voxels():
    """A thin plate through it has the masses of one that is shifted by next to nothing."""
    covariance = np.array([[[1.0, -0.9999999, 0.0], [-0.9999999, 1.0, 0.0], [0.0, 0.0, 1.0]]])
    here, beside = (
        thin_masses(np.zeros((1, 3)), covariance, np.full((1, 3), -1.0 + shift), 2)
        for shift in (0.0, 1e-9)
    )
    np.testing.assert_allclose(here, beside, atol=1e-4)
    assert here.sum() == pytest.approx(beside.sum(), abs=1e-8)
