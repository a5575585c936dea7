"""Counts that a detector does not register, because its exposure is not the same everywhere.

Of the counts that would be registered with the largest exposure everywhere, the detector misses
those that fall on a place x with probability 1 - e(x). EM treats them as latent: their expected
numbers, means and covariances are integrals of the components against 1 - e, which are computed by
Gauss-Legendre quadrature in every pixel. Without reflection, all counts outside of the detector are
missed, too.
"""

from math import log, prod
from typing import Any

import numpy as np
from numpy.typing import NDArray

from skae._mixture.gaussians import Gaussians, Statistics, extreme_variances
from skae._mixture.instrument import Instrument
from skae._mixture.responsibilities import LocalRows
from skae._utils.memory import advice_on_memory

Array = NDArray[Any]

# Smallest standard deviation of a component for each number of nodes along an axis of a pixel. The
# error of an integral over a pixel is then below 1e-6.
_NODES = ((5.0, 2), (1.5, 3), (0.7, 4), (0.41, 6), (0.2, 8), (0.0, 16))

# Densities below this value are left out, relative to a uniform density.
_SMALLEST = 1e-12


class MissedCounts:
    """Integrals of the components of a mixture over the places where counts are missed.

    Parameters
    ----------
    instrument : Instrument
        With an exposure.
    n_components : int
        Number of components, for the size of blocks of nodes.
    n_jobs : int or None
    """

    def __init__(self, instrument: Instrument, n_components: int, n_jobs: int | None) -> None:
        self._instrument = instrument
        self._n_components, self._n_jobs = n_components, n_jobs
        self._rows: dict[int, LocalRows | None] = {}
        assert instrument.shape is not None
        self._log_smallest = log(_SMALLEST / prod(instrument.shape))

    def of(self, seen: Gaussians) -> Statistics:
        """The integrals of w_j rho_j (1 - e) with reflection, and otherwise of w_j rho_j e.

        As `Statistics`, about the means of the components. `seen` is the mixture of the recorded
        places.
        """
        instrument = self._instrument
        assert instrument.shape is not None
        n_axes, n_dims = len(instrument.shape), seen.means.shape[1]
        places = _marginal(seen, n_axes)
        if instrument.pixels:
            n_nodes = np.ones(len(places.means), dtype=np.intp)
        else:
            least = (
                extreme_variances(places.full())[0]
                if places.kind == "full"
                else places.variances().min(axis=1)
            )
            widths, numbers = (np.array(values) for values in zip(*_NODES, strict=True))
            n_nodes = numbers[np.argmax(np.sqrt(least)[:, None] >= widths, axis=1)].astype(np.intp)
        shape = (len(places.means), n_axes, n_axes) if places.kind == "full" else None
        found = Statistics(
            np.zeros(len(places.means)),
            np.zeros_like(places.means),
            np.zeros(shape or places.means.shape),
        )
        for n in np.unique(n_nodes):
            rows = self._nodes(int(n))
            if rows is None:
                continue
            chosen = np.flatnonzero(n_nodes == n)
            part = rows.integrate(places.chosen(chosen), self._log_smallest)
            found.n[chosen], found.first[chosen], found.second[chosen] = part[:3]
        return found if n_dims == n_axes else _with_further(found, seen, n_axes)

    def _nodes(self, n: int) -> LocalRows | None:
        """The nodes of the quadrature with n nodes along each axis; None if no count is missed."""
        if n not in self._rows:
            with advice_on_memory(
                "There are too many nodes to integrate over the exposure. Give coordinates="
                "'pixel', or increase min_variance."
            ):
                places, weight = self._places(n)
            rows = None
            if len(places):
                rows = LocalRows(places, weight, self._n_components, self._n_jobs)
            self._rows[n] = rows
        return self._rows[n]

    def _places(self, n: int) -> tuple[Array, Array]:
        instrument = self._instrument
        assert instrument.shape is not None
        assert instrument.exposure is not None
        n_axes = len(instrument.shape)
        line, line_weight = np.polynomial.legendre.leggauss(n)
        grids = np.meshgrid(*[(line + 1) / 2] * n_axes, indexing="ij")
        inner = np.stack(grids, axis=-1).reshape(-1, n_axes)
        inner_weight = np.ones(1)
        for _ in range(n_axes):
            inner_weight = np.outer(inner_weight, line_weight / 2).ravel()
        used = 1 - instrument.exposure if instrument.reflects else instrument.exposure
        pixels = np.argwhere(used > 0)
        places = (pixels[:, None] + inner).reshape(-1, n_axes)
        exposure = instrument.exposure_of(places)
        weight = np.tile(inner_weight, len(pixels))
        weight *= 1 - exposure if instrument.reflects else exposure
        kept = weight > 0
        return places[kept], weight[kept]


def _marginal(gaussians: Gaussians, n_axes: int) -> Gaussians:
    """The mixture of the first features."""
    if gaussians.means.shape[1] == n_axes and gaussians.kind != "tied":
        return gaussians
    means, covariances, kind = gaussians.means[:, :n_axes], gaussians.covariances, gaussians.kind
    if kind in ("full", "tied"):
        covariances, kind = gaussians.full()[:, :n_axes, :n_axes], "full"
    elif kind == "diag":
        covariances = covariances[:, :n_axes]
    return gaussians._replace(means=means, covariances=covariances, kind=kind)


def _with_further(stats: Statistics, gaussians: Gaussians, n_axes: int) -> Statistics:
    """Statistics of all features, from those of the first ones.

    Given the place, the further features have a mean that depends linearly on it, with the slope B,
    and a constant covariance C.
    """
    n_components, n_dims = gaussians.means.shape
    first = np.zeros((n_components, n_dims))
    first[:, :n_axes] = stats.first
    if stats.second.ndim == 2:
        second = np.zeros((n_components, n_dims))
        second[:, :n_axes] = stats.second
        second[:, n_axes:] = stats.n[:, None] * gaussians.variances()[:, n_axes:]
        return Statistics(stats.n, first, second)
    full = gaussians.full()
    slope = np.linalg.solve(full[:, :n_axes, :n_axes], full[:, :n_axes, n_axes:]).swapaxes(1, 2)
    rest = full[:, n_axes:, n_axes:] - slope @ full[:, :n_axes, n_axes:]
    first[:, n_axes:] = np.einsum("jab,jb->ja", slope, stats.first)
    second = np.zeros((n_components, n_dims, n_dims))
    second[:, :n_axes, :n_axes] = stats.second
    second[:, n_axes:, :n_axes] = slope @ stats.second
    second[:, :n_axes, n_axes:] = second[:, n_axes:, :n_axes].swapaxes(1, 2)
    second[:, n_axes:, n_axes:] = slope @ stats.second @ slope.swapaxes(1, 2)
    second[:, n_axes:, n_axes:] += stats.n[:, None, None] * rest
    return Statistics(stats.n, first, second)
