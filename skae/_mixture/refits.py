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

Array = NDArray[Any]
Refit = Callable[[Array, np.random.RandomState], Array]


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
