"""Densities of counts whose pixel is known, but not the place within it."""

from typing import Any

import numpy as np
from numpy.typing import NDArray
from scipy.special import logsumexp

from skae._mixture.gaussians import Gaussians
from skae._mixture.image_masses import image_masses
from skae._mixture.instrument import Instrument
from skae._mixture.recorded_rows import recorded_rows

Array = NDArray[Any]

# Number of places in a pixel, along each axis, at which a density is evaluated if there are further
# features. The error of the density of a pixel is below 1e-3 for the narrowest components.
_PLACES = 4


def log_density_on_pixels(
    rows: Array, gaussians: Gaussians, instrument: Instrument, n_jobs: int | None
) -> Array:
    """Log of the density of the object, integrated over the pixel of each row.

    Parameters
    ----------
    rows : ndarray of shape (n_samples, n_features)
        The first features are centres of pixels.
    gaussians : Gaussians
        The density of the true places.
    instrument : Instrument
        Its exposure and background are not used.
    n_jobs : int or None
    """
    assert instrument.shape is not None
    n_places = len(instrument.shape)
    if n_places == rows.shape[1]:
        masses = image_masses(gaussians, instrument, instrument.shape, n_jobs)
        return np.log(instrument.on_map(masses, rows))
    line, share = np.polynomial.legendre.leggauss(_PLACES)
    grids = np.meshgrid(*[line / 2] * n_places, indexing="ij")
    inner = np.stack(grids, axis=-1).reshape(-1, n_places)
    log_share = np.zeros(1)
    for _ in range(n_places):
        log_share = np.add.outer(log_share, np.log(share / 2)).ravel()
    alike = gaussians._replace(background=0.0)
    found = np.empty((len(inner), len(rows)))
    for at, place in enumerate(inner):
        moved = rows.copy()
        moved[:, :n_places] += place
        under = recorded_rows(moved, None, len(gaussians.weights), n_jobs, instrument.of_density)
        found[at] = under.log_density(alike)
    nats = logsumexp(found + log_share[:, None], axis=0)
    return np.where(instrument.is_inside(rows), nats, -np.inf)
