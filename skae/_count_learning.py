"""How a mixture of counts is learned: the choice of the model, fits, and updates by new counts."""

from __future__ import annotations

from dataclasses import replace
from typing import Any, Self

import numpy as np
from numpy.typing import ArrayLike, NDArray
from sklearn.exceptions import ConvergenceWarning

from skae._count_deviations import CountDeviations
from skae._linear.moments import out_of_range
from skae._mixture.cells import Cells, fit_cells, recounted
from skae._mixture.domain import check_inside, check_tiled, declared_bounds
from skae._mixture.em import Trained, updated
from skae._mixture.fit_gaussians import (
    FitOptions,
    average_of,
    fit_averages,
    size_by_bic,
    wanted_size,
)
from skae._mixture.gaussians import Gaussians, Kind, Prior, n_parameters
from skae._mixture.image_masses import in_units
from skae._mixture.mirror_images import moved_inside
from skae._mixture.model_choice import PRIOR_COUNTS, GaussianChoice, chosen_gaussians, chosen_prior
from skae._mixture.noise import check_noise_range
from skae._mixture.pixel_cells import PixelCells
from skae._mixture.refits import pixel_rows
from skae._mixture.rows_in_cells import RowsInCells
from skae._mixture.variance_floor import check_distances, check_floor, variance_floor
from skae._mixture.warm_start import check_known, explains_rows, resumed
from skae._pixels.smoothing import (
    FEWEST_COUNTS,
    chosen_smoothing,
    estimated_intensity,
    held_out_of,
    is_better,
)
from skae._utils.interrupts import keeps_progress, warn_of_interruption
from skae._utils.warning import warn

Array = NDArray[Any]

# Largest number of axes of an image for which a model is chosen. Gaussians with full covariances
# are not integrated over pixels of more axes.
_MOST_AXES = 3

# The sum of the weights must be smaller than this.
_MOST_COUNTS = 1e100


class CountLearning(CountDeviations):
    """A mixture of counts that is learned from rows."""

    domain: ArrayLike | None
    min_variance: float | None
    warm_start: bool

    def _fit_model(
        self,
        X: Any,
        rng: np.random.RandomState,
        sample_weight: Any | None,
        previous: Self | None,
        noise_covariance: Array | None = None,
    ) -> None:
        known: Any = None  # every fit computes new cells
        if previous is not None and "covariances_" in vars(previous):
            known = (previous._mixture(), previous._prior())
        may_choose = self._may_choose(X.shape[1], noise_covariance is not None, known)
        self.covariance_type_ = self.covariance_type
        if self.covariance_type == "auto":
            self.covariance_type_ = "pixel" if may_choose else "full"
        self._check_kind(X.shape[1])
        self._dtype = X.dtype.name
        rows = np.asarray(X, dtype=np.float64)
        weight = np.ones(len(rows)) if sample_weight is None else sample_weight.astype(np.float64)
        self.n_counts_ = float(weight.sum())
        if not self.n_counts_ < _MOST_COUNTS:
            raise ValueError(
                f"sample_weight sums to {self.n_counts_:g}. The sum is the number of counts and "
                f"must be below {_MOST_COUNTS:g}."
            )
        self._bounds = declared_bounds(self.image_shape, self.domain, rows.shape[1])
        check_inside(rows, self._bounds, self.image_shape, self._are_pixels)
        given = rows, weight
        rows, weight = self._record(rows, weight, has_noise=noise_covariance is not None)
        fractions = weight / weight.sum()
        mean = fractions @ rows
        self._floor = self._floor_of(mean, fractions @ (rows - mean) ** 2, np.abs(rows).max())
        if self._floor == 0 and not rows.any():
            self._floor = 1.0  # all counts are at zero, so that the width is arbitrary
        self._check_distances(rows, None)
        if noise_covariance is None:
            self._histogram = self._instrument.histogram(rows, weight)
        n_components = wanted_size(self.n_components, self.n_counts_)
        chooses_prior = self.prior_counts == "auto" and self.image_shape is not None
        self.prior_counts_ = PRIOR_COUNTS[0]
        if not isinstance(self.prior_counts, str):
            self.prior_counts_ = float(self.prior_counts)
        elif known is not None:
            self.prior_counts_ = known[1].counts
        if known is not None and self.n_components is None:
            n_components = max(n_components or 1, len(known[0].weights))
        if self.covariance_type_ == "pixel":
            choice = self._fit_pixels(rows, weight, rng, may_choose)
            if choice is None:
                return
            self.covariance_type_ = "full"
            del self._smoothing_of_fit
            rows, weight = self._record(*given, has_noise=False)
            self._check_distances(rows, None)
            n_components = choice.n_components
            if chooses_prior:
                self.prior_counts_, chooses_prior = choice.prior_counts, False
        if known is not None:
            check_known(
                known[0], self.covariance_type_, rows.shape[1], self.n_components, self._n_averages
            )
        if self.covariance_type_ == "cell":
            self._fit_cells(rows, weight, n_components, rng)
            return
        options = self._fit_options()
        if noise_covariance is not None:
            noise = self._internal_noise(noise_covariance)
            check_noise_range(noise, self._floor)
            options = replace(options, noise=noise)
        self._fit_gaussians(
            rows, weight, n_components, options, rng, known, chooses_prior=chooses_prior
        )

    # ------------------------------------------------------------ choices of the model

    def _may_choose(self, n_features: int, has_noise: bool, known: Any) -> bool:
        """Whether the kind and the number of the components are chosen by held-out counts."""
        return (
            self.covariance_type == "auto"
            and self.n_components is None
            and self.image_shape is not None
            and len(self.image_shape) == n_features <= _MOST_AXES
            and self.algorithm == "em"
            and not has_noise
            and known is None
            and self.background is None
            and self.psf is None
        )

    def _check_kind(self, n_features: int) -> None:
        if self.covariance_type_ != "pixel":
            return
        if self.image_shape is None or len(self.image_shape) != n_features:
            raise ValueError(
                f"covariance_type='pixel' with image_shape={self.image_shape} and X with "
                f"{n_features} features; expected image_shape with one length for each feature."
            )
        if self.n_components is not None:
            raise ValueError(
                f"n_components={self.n_components!r} cannot be combined with "
                "covariance_type='pixel', which has one component for each pixel. Use "
                "n_components=None."
            )

    def _options_of_choice(self, kind: Kind, rows: Array) -> FitOptions:
        """Options of Gaussians that are compared by held-out counts.

        Rows at centres of pixels are pixels, in which the place of a count is unknown. Otherwise
        the narrowest components at the centres were the best ones.
        """
        n_places = len(self.image_shape or ())
        pixels = self._are_pixels or bool((rows[:, :n_places] % 1 == 0.5).all())
        instrument = self._instrument_for(kind, rows.shape[1], pixels=pixels)
        known = self._instrument
        instrument = replace(instrument, ranges=known.ranges, blur=known.blur)
        return replace(self._fit_options(), kind=kind, instrument=instrument)

    def _chosen_prior(
        self,
        rows: Array,
        weight: Array,
        n_components: int,
        options: FitOptions,
        rng: np.random.RandomState,
    ) -> float:
        """The weight of the prior of a mixture of this size."""
        if weight.sum() < FEWEST_COUNTS:
            return options.prior_counts
        held_out = _held_out_of_rows(rows, weight, rng)
        options = self._options_of_choice(options.kind, rows)
        return chosen_prior(rows, weight - held_out, held_out, n_components, options)

    # ------------------------------------------------------------------------- fits

    def _fit_pixels(
        self, rows: Array, weight: Array, rng: np.random.RandomState, may_choose: bool
    ) -> GaussianChoice | None:
        """Fit a density on pixels, unless a mixture of Gaussians is better; returns this choice."""
        instrument, exposure = self._instrument, self._exposure_of_pixels()
        held_out = np.zeros_like(weight)
        if self.n_counts_ >= FEWEST_COUNTS:
            held_out = _held_out_of_rows(rows, weight, rng)
        counts, new = (instrument.histogram(rows, part) for part in (weight - held_out, held_out))
        assert counts is not None
        assert new is not None
        self._smoothing, nats, log_density = chosen_smoothing(
            counts, new, exposure, self._n_averages, self.n_jobs
        )
        if may_choose and held_out.any():
            options = self._options_of_choice("full", rows)
            priors = PRIOR_COUNTS if self.prior_counts == "auto" else (self.prior_counts_,)
            choice = chosen_gaussians(rows, weight - held_out, held_out, options, nats, priors)
            tested = held_out > 0
            of_pixels = log_density[instrument.pixels_of(rows[tested])]
            if is_better(choice.log_density, of_pixels, held_out[tested]):
                return choice
        self.n_iter_, self.converged_ = 1, True
        self.objectives_ = np.array([nats])
        self._update_pixels()
        return None

    def _update_pixels(self) -> None:
        """Estimate the density on pixels from the histogram of all counts."""
        assert self._histogram is not None
        density = estimated_intensity(
            self._histogram,
            self._exposure_of_pixels(),
            self._smoothing,
            self._n_averages,
            self.n_jobs,
        )
        cells = PixelCells.of_image(density)
        self._store_cells(cells)
        self._store_registered(cells)
        self._store_sizes(density.size - 1)

    def _fit_cells(
        self, rows: Array, weight: Array, n_cells: int | None, rng: np.random.RandomState
    ) -> None:
        domain = self._domain_of_cells(rows)
        lo = domain.lo
        if self._histogram is not None and domain.aligned.all():
            rows, weight = pixel_rows(self._histogram)  # cells begin and end between pixels
        shifts: list[Array | None] = [None]
        if self._n_averages > 1:
            shifts = list(rng.random_sample((self._n_averages, len(lo))))
        cells, self._shares, self._tilings, held_out = fit_cells(
            rows, weight, domain, n_cells, shifts, self.n_jobs
        )
        self.n_iter_, self.converged_ = 1, True
        self.objectives_ = np.array([held_out])
        n_splits = int((self._tilings - 1).sum())
        self._store_cells(cells)
        self._store_registered(cells)
        self._store_sizes(2 * n_splits)

    def _fit_gaussians(
        self,
        rows: Array,
        weight: Array,
        n_components: int | None,
        options: FitOptions,
        rng: np.random.RandomState,
        known: tuple[Gaussians, Prior] | None,
        *,
        chooses_prior: bool,
    ) -> None:
        if self._n_averages > 1 and self.covariance_type_ == "tied":
            raise ValueError(
                f"n_averages={self.n_averages} cannot be combined with covariance_type='tied', "
                "because the averaged mixtures have different covariances. Use n_averages=1 or "
                "another covariance_type."
            )
        if known is not None:
            if explains_rows(known[0], rows, weight, options):
                known = resumed(*known, self.prior_counts_, self._floor)
            else:
                warn(
                    "warm_start=True was ignored, and training started anew: a single Gaussian "
                    "explains X better than the Gaussians of the previous fit do."
                )
                known = None
        n_components = n_components or size_by_bic(rows, weight, options, rng)
        if chooses_prior and known is None and options.noise is None:
            self.prior_counts_ = self._chosen_prior(rows, weight, n_components, options, rng)
            options = replace(options, prior_counts=self.prior_counts_)
        keeps = keeps_progress(self)
        fits = fit_averages(rows, weight, n_components, options, rng, known, keeps_progress=keeps)
        self._store_training(fits)
        average, prior = average_of(fits, options)
        self._n_mixtures = len(fits)
        if self._instrument.reflects:
            average, prior = moved_inside(average, prior, self._instrument.frame)
        self._store_gaussians(average, prior)
        n = n_parameters(n_components, rows.shape[1], average.kind)
        self._store_sizes(len(fits) * (n + self._instrument.n_parameters))

    def _store_training(self, fits: list[Trained]) -> None:
        """Set the attributes of the iterations, and warn if training ended early."""
        self.objectives_ = np.array(fits[0].objectives)
        self.n_iter_ = len(self.objectives_)
        self.converged_ = len(fits) == self._n_averages and all(fit.converged for fit in fits)
        if fits[0].interrupted:
            warn_of_interruption("iteration", self.n_iter_)
        elif len(fits) < self._n_averages:
            warn_of_interruption("average", len(fits))
        elif not self.converged_:
            warn(
                f"Training did not converge in max_iter={self.max_iter} iterations. Increase "
                "max_iter or tol.",
                ConvergenceWarning,
            )

    def _add_frame(self, rows: Array, weight: Array) -> None:
        before = self.n_counts_
        if self._histogram is not None:
            self._histogram = self._histogram + self._instrument.histogram(rows, weight)
        self.n_counts_ = before + float(weight.sum())
        ratio = self.n_counts_ / before
        mixture = self._mixture()
        if isinstance(mixture, PixelCells):
            self._update_pixels()
            return
        if isinstance(mixture, Cells):
            check_tiled(rows, mixture.lo.min(axis=0), mixture.hi.max(axis=0))
            added = RowsInCells(rows, mixture).counts(weight)
            shares = self.__dict__.get("_shares", self.weights_)  # of files of earlier versions
            self._shares = recounted(shares, self._tilings, before, added, self.n_counts_)
            if self._instrument.exposure is None:
                self.weights_ = self._shares
            else:
                seen = shares > 0
                weights = self.weights_.copy()
                weights[seen] *= self._shares[seen] / shares[seen]
                self.weights_ = weights / weights.sum()
                self._store_registered(self._mixture())
        else:
            # If all counts of the first frame were equal, their variance gave no lower bound.
            moments = mixture.moments_with(before, rows, weight)
            self._floor = max(self._floor, self._floor_of(*moments, np.abs(rows).max()))
            self._check_distances(rows, mixture.means)
            prior = self._prior()
            after = updated(
                self._fit_options().rows(rows, weight, len(mixture.weights)),
                mixture,
                prior,
                algorithm=self.algorithm,
                before=before,
                registered=self._registered,
                added=float(weight.sum()),
                floor=self._floor,
            )
            self._store_gaussians(after, prior)
        self.compression_ratio_ *= ratio

    # ------------------------------------------------------- what the data allow

    def _floor_of(self, mean: Array, variances: Array, largest: float) -> float:
        return variance_floor(
            mean,
            variances,
            largest,
            min_variance=self.min_variance,
            of_pixels=self.image_shape is not None,
            dtype=self._dtype,
        )

    def _check_distances(self, rows: Array, means: Array | None) -> None:
        if self.covariance_type_ == "pixel":
            return
        if self.covariance_type_ == "cell":
            check_floor(self._floor)
        else:
            check_distances(rows, means, self.n_counts_, self._floor)

    # ------------------------------------------------------------------- fitted

    def _store_gaussians(self, gaussians: Gaussians, prior: Prior) -> None:
        if not (np.isfinite(gaussians.means).all() and np.isfinite(gaussians.covariances).all()):
            raise out_of_range(np.dtype(self._dtype))
        self._store_registered(gaussians)
        self.background_share_ = gaussians.background
        self._prior_of_fit = tuple(prior)
        given = gaussians if self._units is None else in_units(gaussians, self._units)
        self.weights_, self.means_, self.covariances_, self._kind = given[:4]
        self.n_components_ = len(self.weights_)

    def _store_cells(self, cells: Cells) -> None:
        units = np.ones(cells.lo.shape[1]) if self._units is None else self._units
        self.weights_ = cells.weights
        self.cells_ = np.stack([cells.lo * units, cells.hi * units], axis=2)
        self.means_ = self.cells_.mean(axis=2)
        self.n_components_ = len(self.weights_)

    def _store_sizes(self, n_parameters: int) -> None:
        self.n_parameters_ = n_parameters
        self.compression_ratio_ = self.n_counts_ * self.n_features_in_ / max(n_parameters, 1)

    def _prior(self) -> Prior:
        prior: Any = self._prior_of_fit
        return Prior(*prior)

    def _n_free_parameters(self) -> int:
        return self.n_parameters_


def _held_out_of_rows(rows: Array, weight: Array, rng: np.random.RandomState) -> Array:
    """The part of the weights that is held out; the order in which rows are given has no effect."""
    held_out, order = np.empty_like(weight), np.lexsort(rows.T)
    held_out[order] = held_out_of(weight[order], rng)
    return held_out
