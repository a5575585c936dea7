"""Integrals of a fitted density over the pixels of a detector, with reflection and the optics."""

from typing import Any

import numpy as np
from numpy.typing import NDArray
from scipy.ndimage import distance_transform_edt, maximum_filter

from skae._mixture.cells import Cells
from skae._mixture.gaussians import Gaussians
from skae._mixture.instrument import Instrument, blurred
from skae._mixture.mirror_images import images_of, reflected
from skae._mixture.pixel_cells import PixelCells
from skae._mixture.pixel_masses import pixel_masses

Array = NDArray[Any]


def image_masses(
    mixture: Gaussians | Cells,
    instrument: Instrument,
    grid: tuple[int, ...],
    n_jobs: int | None,
    *,
    ranges: Array | None = None,
    deconvolved: bool = False,
) -> Array:
    """Integrals of the density over pixels, and over bins of further features.

    Parameters
    ----------
    mixture : Gaussians or Cells
        The density of the true places.
    instrument : Instrument
    grid : tuple of int
        Number of pixels along the first features, and then of bins along further ones. Features
        without a number are integrated over their whole range.
    n_jobs : int or None
    ranges : ndarray of shape (n_further, 2), default=None
        Lowest and highest value of the bins of each further feature of `grid`.
    deconvolved : bool, default=False
        Whether the density is that of the true places, and not convolved with the point spread.
    """
    if isinstance(mixture, Gaussians):
        if not deconvolved:
            mixture = blurred(mixture, instrument.blur)
        if instrument.reflects:
            images = images_of(mixture, instrument.frame)
            mixture = reflected(mixture, images, instrument.frame)
    if isinstance(mixture, PixelCells) and mixture.shape == grid:
        return mixture.image()
    n_places = len(grid) if ranges is None else len(grid) - len(ranges)
    mixture = _first_features(mixture, len(grid))
    if ranges is not None:
        lo = np.concatenate([np.zeros(n_places), ranges[:, 0]])
        width = (ranges[:, 1] - ranges[:, 0]) / grid[n_places:]
        mixture = _in_units(mixture, lo, np.concatenate([np.ones(n_places), width]))
    if not instrument.reflects:
        return pixel_masses(mixture, grid, n_jobs)
    # There is no density outside of the detector.
    assert instrument.shape is not None
    inside = [min(n, length) for n, length in zip(grid, instrument.shape, strict=False)]
    inside += grid[len(inside) :]
    masses = pixel_masses(mixture, tuple(inside), n_jobs)
    return np.pad(masses, [(0, n - m) for n, m in zip(grid, inside, strict=True)])


def recorded_masses(mixture: Gaussians | Cells, instrument: Instrument, masses: Array) -> Array:
    """Probability of each pixel for a count as it is recorded, from the masses of the object."""
    background = mixture.background if isinstance(mixture, Gaussians) else 0.0
    if instrument.exposure is not None:
        masses = masses * instrument.exposure
        masses = masses / masses.sum()
    if instrument.background is None:
        return masses
    return (1 - background) * masses + background * instrument.background


def registered_and_exposed(
    mixture: Gaussians | Cells, instrument: Instrument, n_jobs: int | None
) -> tuple[float, float]:
    """The integral Z of the density times the exposure, and that over all exposed pixels.

    The exposure is that of the pixels, so that Z is exact if it was given as a map.
    """
    assert instrument.shape is not None
    assert instrument.exposure is not None
    masses = image_masses(mixture, instrument, instrument.shape, n_jobs)
    exposed = masses[instrument.exposure > 0]
    return float((masses * instrument.exposure).sum()), float(exposed.sum())


def unexposed(grid: tuple[int, ...], instrument: Instrument) -> NDArray[np.bool_]:
    """Which pixels have no exposure, also outside of the detector."""
    assert instrument.exposure is not None
    found = np.ones(grid[: instrument.exposure.ndim], dtype=bool)
    both = tuple(map(slice, np.minimum(found.shape, instrument.exposure.shape)))
    found[both] = instrument.exposure[both] == 0
    return found


def limited(image: Array, dark: NDArray[np.bool_]) -> Array:
    """The image, of which dark pixels are at most as bright as those around the nearest other one.

    The counts say nothing of dark pixels. Components there may have any weight.
    """
    if not dark.any() or dark.all():
        return image
    further = tuple(range(dark.ndim, image.ndim))
    total = image.sum(axis=further)
    largest = maximum_filter(np.where(dark, 0, total), size=3, mode="nearest")
    nearest = distance_transform_edt(dark, return_distances=False, return_indices=True)
    most = np.where(dark, largest[tuple(nearest)], np.inf)
    factor = np.divide(most, total, out=np.ones_like(total), where=total > most)
    return np.asarray(image * np.expand_dims(factor, further))


def _first_features(mixture: Gaussians | Cells, n: int) -> Gaussians | Cells:
    """The marginal density of the first features."""
    if isinstance(mixture, Cells):
        return Cells(mixture.weights, mixture.lo[:, :n], mixture.hi[:, :n])
    covariances = mixture.covariances
    match mixture.kind:
        case "full" | "tied":
            covariances = covariances[..., :n, :n]
        case "diag":
            covariances = covariances[:, :n]
    return mixture._replace(means=mixture.means[:, :n], covariances=covariances)


def _in_units(mixture: Gaussians | Cells, origin: Array, unit: Array) -> Gaussians | Cells:
    """The mixture of features relative to an origin, in other units."""
    if isinstance(mixture, Cells):
        return Cells(mixture.weights, (mixture.lo - origin) / unit, (mixture.hi - origin) / unit)
    return in_units(mixture._replace(means=mixture.means - origin), 1 / unit)


def in_units(gaussians: Gaussians, factor: Array) -> Gaussians:
    """The mixture of features that are multiplied by factors."""
    means = gaussians.means * factor
    covariances, kind = gaussians.covariances, gaussians.kind
    if kind == "spherical":
        covariances, kind = gaussians.variances(), "diag"
    if kind == "diag":
        return gaussians._replace(means=means, covariances=covariances * factor**2, kind=kind)
    covariances = covariances * factor[:, None] * factor
    return gaussians._replace(means=means, covariances=covariances, kind=kind)
