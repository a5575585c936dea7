"""Standard deviations of the intensity of counts, from refits to simulated counts."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray

from skae._count_queries import CountQueries
from skae._mixture.cells import Cells
from skae._mixture.domain import Domain, domain_of_cells, range_of
from skae._mixture.fit_gaussians import FitOptions, wanted_size
from skae._mixture.gaussians import Gaussians
from skae._mixture.image_masses import image_masses, recorded_masses
from skae._mixture.refits import Refit, refit_of_cells, refit_of_gaussians, refit_of_pixels
from skae._mixture.uncertainty import std_of_masses
from skae._pixels.partitions import PartitionPrior
from skae._pixels.smoothing import N_ORIGINS, Smoothing

Array = NDArray[Any]


class CountDeviations(CountQueries):
    """A mixture of counts that can be fitted again, to counts that are drawn from it."""

    n_components: int | Literal["bic"] | None
    init: Literal["quantiles", "counts", "grid", "split"]
    prior_counts: float | Literal["auto"]
    prior_counts_: float
    n_averages: int | None
    tol: float
    max_iter: int
    _bounds: Array | None
    _n_mixtures: int  # number of averaged mixtures of Gaussians
    _tilings: NDArray[np.intp]  # number of cells of each averaged tiling
    _smoothing_of_fit: dict[str, Any]  # of a density on pixels

    @property
    def _n_averages(self) -> int:
        if self.n_averages is not None:
            return self.n_averages
        return N_ORIGINS if self.covariance_type_ == "pixel" else 1

    @property
    def _smoothing(self) -> Smoothing:
        known = self._smoothing_of_fit
        return Smoothing(PartitionPrior(*known["prior"]), tuple(known["weights"]))

    @_smoothing.setter
    def _smoothing(self, smoothing: Smoothing) -> None:
        self._smoothing_of_fit = {
            "prior": [float(value) for value in smoothing.prior],
            "weights": list(smoothing.weights),
        }

    def _exposure_of_pixels(self) -> Array:
        """The exposure of each pixel, as a map."""
        instrument = self._instrument
        assert instrument.shape is not None
        if instrument.exposure is None:
            return np.ones(instrument.shape)
        return np.asarray(instrument.exposure, dtype=np.float64)

    def _fit_options(self) -> FitOptions:
        kind: Any = self.covariance_type_
        return FitOptions(
            kind=kind,
            algorithm=self.algorithm,
            init=self.init,
            prior_counts=self.prior_counts_,
            n_averages=self._n_averages,
            tol=self.tol,
            max_iter=self.max_iter,
            n_jobs=self.n_jobs,
            floor=self._floor,
            bounds=self._bounds,
            instrument=self._instrument,
        )

    def _domain_of_cells(self, rows: Array) -> Domain:
        lo, hi = range_of(rows, self._bounds, self.n_counts_, self._floor)
        shape, exposure = self._instrument.shape, self._instrument.exposure
        n_pixel_axes = 0 if shape is None else len(shape)
        return domain_of_cells(lo, hi, self._floor, n_pixel_axes, exposure)

    def _refit(self, masses_of: Callable[[Any], Array]) -> Refit:
        if self.covariance_type_ == "pixel":
            return refit_of_pixels(
                self._exposure_of_pixels(), self._smoothing, self._n_averages, self.n_jobs
            )
        if "cells_" in vars(self):
            n_cells = (
                None
                if self.n_components == "bic"
                else wanted_size(self.n_components, self.n_counts_)
            )
            domain = self._domain_of_cells(self.means_)
            n_averages = len(self._tilings)
            return refit_of_cells(domain, n_cells, n_averages, self.n_jobs, masses_of)
        options = self._fit_options()
        pixels = replace(options.instrument, pixels=True)
        size = self.n_components_ // self._n_mixtures
        options = replace(options, instrument=pixels, n_averages=self._n_mixtures)
        return refit_of_gaussians(options, size, masses_of)

    def _std_of(self, masses: Array) -> Array:
        """Standard deviation of the error of each pixel of the intensity."""
        instrument = self._instrument
        if self._histogram is None or instrument.shape is None:
            raise ValueError(
                "return_std=True needs a model that was fitted with image_shape, to counts without "
                "further features and without noise_covariance."
            )
        mixture, shape = self._mixture(), instrument.shape

        def recorded(other: Gaussians | Cells) -> Array:
            found = image_masses(other, instrument, shape, self.n_jobs)
            return recorded_masses(other, instrument, found)

        std = std_of_masses(
            self._histogram,
            recorded_masses(mixture, instrument, masses),
            self._refit(recorded),
            self._generator(),
        )
        factor = 1 - (mixture.background if isinstance(mixture, Gaussians) else 0.0)
        if instrument.exposure is None:
            return std / factor
        share = factor * instrument.exposure / (masses * instrument.exposure).sum()
        return np.divide(std, share, out=np.full_like(std, np.nan), where=share > 0)
