"""Fits of the same kind of mixture to other histograms, from other initial positions."""

from collections.abc import Callable
from dataclasses import replace
from typing import Any

import numpy as np
from numpy.typing import NDArray

from skae._mixture.cells import Cells, fit_cells
from skae._mixture.domain import Domain
from skae._mixture.fit_gaussians import FitOptions, average_of, fit_mixture
from skae._mixture.gaussians import Gaussians
from skae._pixels.smoothing import Smoothing, estimated_intensity

Array = NDArray[Any]
Refit = Callable[[Array, np.random.RandomState], Array]

# Largest number of origins of the partitions in a refit.
_ORIGINS_OF_REFITS = 8


def pixel_rows(histogram: Array) -> tuple[Array, Array]:
    """Centres of the pixels that have counts, and their counts as weights."""
    pixels = np.nonzero(histogram)
    return np.stack(pixels, axis=1) + 0.5, histogram[pixels]


def refit_of_gaussians(
    options: FitOptions, n_components: int, masses_of: Callable[[Gaussians], Array]
) -> Refit:
    """Refits of mixtures of `n_components` Gaussians each, from shifted initial components.

    Parameters
    ----------
    options : FitOptions
        The options of the fit. `bounds` is the image.
    n_components : int
        Number of components of each of the averaged mixtures.
    masses_of : callable
        Probability of each pixel under a mixture.
    """
    # The initial components are only shifted if there are several averages.
    shifted = replace(options, n_averages=max(2, options.n_averages))

    def refit(histogram: Array, rng: np.random.RandomState) -> Array:
        rows, weight = pixel_rows(histogram)
        fits = [
            fit_mixture(rows, weight, n_components, shifted, rng) for _ in range(options.n_averages)
        ]
        return masses_of(average_of(fits, options)[0])

    return refit


def refit_of_cells(
    domain: Domain,
    n_cells: int | None,
    n_averages: int,
    n_jobs: int | None,
    masses_of: Callable[[Cells], Array],
) -> Refit:
    """Refits of tilings whose boundaries are shifted.

    Parameters
    ----------
    domain : Domain
        The image.
    n_cells : int or None
        Largest number of cells of a tiling. None takes the number with the lowest BIC.
    n_averages : int
        Number of tilings that are averaged.
    n_jobs : int or None
        Number of threads.
    masses_of : callable
        Probability of each pixel under the cells.
    """

    def refit(histogram: Array, rng: np.random.RandomState) -> Array:
        rows, weight = pixel_rows(histogram)
        shifts = list(rng.random_sample((n_averages, len(domain.lo))))
        cells = fit_cells(rows, weight, domain, n_cells, shifts, n_jobs)[0]
        return masses_of(cells)

    return refit


def refit_of_pixels(
    exposure: Array, smoothing: Smoothing, n_origins: int, n_jobs: int | None
) -> Refit:
    """Refits of densities on pixels, with other origins of the partitions.

    Parameters
    ----------
    exposure : ndarray of shape `image_shape`
    smoothing : Smoothing
    n_origins : int
        Number of origins. Refits use up to 8.
    n_jobs : int or None
        Number of threads.
    """

    def refit(histogram: Array, rng: np.random.RandomState) -> Array:
        start = float(rng.random_sample())
        some = min(n_origins, _ORIGINS_OF_REFITS)
        density = estimated_intensity(histogram, exposure, smoothing, some, n_jobs, start)
        recorded = density * exposure
        return np.asarray(recorded / recorded.sum())

    return refit
