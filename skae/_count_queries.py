"""Counts as an instrument recorded them, and what a fitted mixture of counts answers.

The answers are codes, densities, draws and images of the intensity.
"""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Callable, Sequence
from dataclasses import replace
from numbers import Real
from typing import Any, Literal, overload

import numpy as np
from numpy.typing import ArrayLike, NDArray
from scipy import sparse
from sklearn.utils import check_scalar
from sklearn.utils.validation import check_is_fitted

from skae._likelihood_model import LikelihoodModel
from skae._mixture.cells import Cells
from skae._mixture.em import Algorithm
from skae._mixture.gaussians import Gaussians
from skae._mixture.image_masses import (
    image_masses,
    in_units,
    limited,
    registered_and_exposed,
    unexposed,
)
from skae._mixture.instrument import Instrument, blurred
from skae._mixture.instrument_parameters import checked_instrument
from skae._mixture.merged_rows import merged_rows, range_beside, units_of
from skae._mixture.mirror_images import folded
from skae._mixture.noise import checked_noise
from skae._mixture.pixel_cells import PixelCells, RowsOnPixels
from skae._mixture.pixel_densities import log_density_on_pixels
from skae._mixture.pixel_indices import are_integers, check_whole, takes_pixels
from skae._mixture.pixel_masses import checked_grid
from skae._mixture.recorded_rows import RecordedRows, Rows, recorded_rows
from skae._mixture.rows_in_cells import RowsInCells
from skae._mixture.variance_floor import check_distances
from skae._utils.validation import average, check_indices, check_weight
from skae._utils.versions import has_format

Array = NDArray[Any]


def rows_under_cells(rows: Array, cells: Cells) -> RowsInCells | RowsOnPixels:
    """Rows together with cells, or with the pixels of an image."""
    return RowsOnPixels(rows, cells) if isinstance(cells, PixelCells) else RowsInCells(rows, cells)


# Parameters that files of skae 0.1 lack, with the values that they had there.
_OF_EARLIER_FILES = {
    "coordinates": "continuous",
    "edges": "open",
    "exposure": None,
    "background": None,
    "psf": None,
}

# Number of draws, above the expected one, with which places on the detector are drawn.
_SPARE = 16


class CountQueries(LikelihoodModel):
    """Queries of a fitted mixture of counts, which an instrument has recorded.

    Places are continuous here: pixel (i, j) covers [i, i + 1) x [j, j + 1). Counts that are given
    as indices of pixels are at the centres of their pixels. The internal units of features are
    those of X, except for features that are no places in an image.
    """

    # The parameters that are used here.
    covariance_type: str
    covariance_type_: str
    algorithm: Algorithm
    image_shape: tuple[int, ...] | list[int] | None
    coordinates: str
    edges: str
    exposure: ArrayLike | Callable[[Array], ArrayLike] | None
    background: ArrayLike | str | None
    psf: float | ArrayLike | None
    n_jobs: int | None

    # The state after fit, with the values of models of earlier versions.
    _are_pixels: bool = False
    _are_integers: bool = False  # whether all columns were
    _units: Array | None = None
    _instrument_of_fit: dict[str, Any] | None = None
    _histogram: Array | None = None
    registered_fraction_: float
    _registered: float = 1.0  # the integral Z of the density times the exposure
    _exposed: float = 1.0  # the integral of the density over all exposed pixels
    background_share_: float
    n_components_: int
    n_counts_: float
    weights_: Array
    means_: Array
    covariances_: Array
    cells_: Array
    _floor: float
    _dtype: str
    _kind: Any

    def __setstate__(self, state: dict[str, Any]) -> None:
        if not has_format(state):
            state = _OF_EARLIER_FILES | state
            if "weights_" in state:
                state = {"registered_fraction_": 1.0, "background_share_": 0.0} | state
        if "weights_" in state and "covariance_type_" not in state:  # saved before the choice
            chosen = {"covariance_type_": state["covariance_type"]}
            state = state | chosen | {"prior_counts_": float(state["prior_counts"])}
        super().__setstate__(state)

    # -------------------------------------------------------------- the fitted model

    @property
    def _instrument(self) -> Instrument:
        return Instrument(**(self._instrument_of_fit or {}))

    @property
    def _n_places(self) -> int:
        shape = self._instrument.shape
        return self.n_features_in_ if shape is None else len(shape)

    def _mixture(self) -> Gaussians | Cells:
        """The density of the true places, in internal units."""
        units = np.ones(self.n_features_in_) if self._units is None else self._units
        if "cells_" in self.__dict__:
            cells = self.cells_ / units[:, None]
            kind = PixelCells if self.covariance_type_ == "pixel" else Cells
            return kind(self.weights_, cells[..., 0], cells[..., 1])
        gaussians = Gaussians(
            self.weights_, self.means_, self.covariances_, self._kind, self.background_share_
        )
        return gaussians if self._units is None else in_units(gaussians, 1 / units)

    def _under(self, rows: Array) -> RowsInCells | RowsOnPixels | Rows:
        """Rows in internal units together with the mixture, for queries such as log densities."""
        mixture = self._mixture()
        if isinstance(mixture, Cells):
            return rows_under_cells(rows, mixture)
        self._check_distances(rows, mixture.means)
        return recorded_rows(
            rows, None, self.n_components_, self.n_jobs, self._instrument, self._registered
        )

    @abstractmethod
    def _std_of(self, masses: Array) -> Array:
        """Standard deviation of the error of each pixel of the intensity."""

    def _check_distances(self, rows: Array, means: Array | None) -> None:
        check_distances(rows, means, self.n_counts_, self._floor)

    # ------------------------------------------------------------------- coordinates

    def _check_rows(self, X: Any, *, reset: bool, min_rows: int = 1) -> Any:
        """Validated rows, in which counts on pixels are at the centres of the pixels."""
        rows = super()._check_rows(X, reset=reset, min_rows=min_rows)
        if reset:
            self._are_pixels = takes_pixels(X, rows, self.coordinates, self.image_shape)
            self._are_integers = self._are_pixels and are_integers(X, rows.shape[1])
        if not self._are_pixels:
            return rows
        n_places = len(self.image_shape or ()) if reset else self._n_places
        if not reset:
            check_whole(rows, n_places)
        centres = rows.copy()
        centres[:, :n_places] += 0.5
        return centres

    def _record(self, rows: Array, weight: Array, has_noise: bool) -> tuple[Array, Array]:
        """Set up units and the instrument; counts on the same pixel become one weighted row."""
        instrument = self._instrument_for(
            self.covariance_type_, rows.shape[1], pixels=self._are_pixels, has_noise=has_noise
        )
        n_places = rows.shape[1] if instrument.shape is None else len(instrument.shape)
        if n_places < rows.shape[1]:
            if self.covariance_type_ != "spherical":
                self._units = units_of(rows, weight, n_places)
                rows = rows / self._units
            instrument = replace(instrument, ranges=range_beside(rows[:, n_places:]))
            if self._units is not None and instrument.blur is not None:
                blur = instrument.blur / self._units[:, None] / self._units
                instrument = replace(instrument, blur=blur)
        instrument.check_exposed(rows)
        self.registered_fraction_, self.background_share_ = 1.0, 0.0
        self._instrument_of_fit = vars(instrument).copy()
        if self._are_pixels and n_places == rows.shape[1] and not has_noise:
            rows, weight = merged_rows(rows, weight)
        return rows, weight

    def _instrument_for(
        self, covariance_type: str, n_features: int, *, pixels: bool, has_noise: bool = False
    ) -> Instrument:
        """The instrument of the parameters, for components of this kind."""
        return checked_instrument(
            n_features,
            self.image_shape,
            has_noise=has_noise,
            covariance_type=covariance_type,
            algorithm=self.algorithm,
            edges=self.edges,
            pixels=pixels,
            exposure=self.exposure,
            background=self.background,
            psf=self.psf,
        )

    def _internal(self, X: Array) -> Array:
        """Rows in float64 and in internal units."""
        rows = np.asarray(X, dtype=np.float64)
        return rows if self._units is None else rows / self._units

    def _as_given(self, rows: Array) -> Array:
        """Rows in the units and the dtype of X; places on pixels as indices."""
        if self._units is not None:
            rows = rows * self._units
        if self._are_pixels:
            rows = rows.copy()
            rows[:, : self._n_places] -= 0.5
        given: Array = rows.astype(self._dtype)
        return given

    def _rows_of_draws(self, rows: Array) -> Array:
        """Drawn rows; integers if those of `fit` were, so that these are taken as pixels, too."""
        given = self._as_given(rows)
        return given.astype(np.int64) if self._are_integers else given

    # ------------------------------------------------------------------------- codes

    def _encode(self, X: Array) -> NDArray[np.int64]:
        best = self._under(self._internal(X)).best(self._mixture())  # type: ignore[arg-type]
        return best.astype(np.int64)[:, None]

    def _decode(self, Z: Array) -> Array:
        return self._as_given(self._mixture_means()[Z[:, 0].astype(np.intp)])

    def _mixture_means(self) -> Array:
        return self.means_ if self._units is None else self.means_ / self._units

    def _check_codes(self, Z: Any) -> Any:
        Z = super()._check_codes(Z)
        check_indices(Z, self.n_components_, "components", self.get_feature_names_out())
        return Z

    def responsibilities(self, X: ArrayLike) -> sparse.csr_array:
        """Return the probability of each component given each count, w_j rho_j(x) / rho(x).

        Parameters
        ----------
        X : array-like of shape (n_samples, n_features)
            Counts.

        Returns
        -------
        responsibilities : csr_array of shape (n_samples, n_components_)
            Each row sums to 1, or with `background` to the probability that the count is no
            background. Components that together have a probability of less than 1e-10 are left out.
            A count outside of all cells is assigned to the nearest cell.
        """
        rows = self._internal(self._check_new_rows(X, "responsibilities"))
        return self._under(rows).responsibilities(self._mixture())  # type: ignore[arg-type]

    # ------------------------------------------------------------------------ density

    def score_samples(
        self, X: ArrayLike, *, noise_covariance: ArrayLike | None = None
    ) -> NDArray[Any]:
        """Return the log density of counts as they are recorded.

        It includes `psf`, `exposure` and `background`. For counts on pixels it is the log of the
        probability of the pixel; with `noise_covariance` this is approximated by the density at its
        centre, of Gaussians whose variances are larger by 1/12.

        Parameters
        ----------
        X : array-like of shape (n_samples, n_features)
            Counts, of the same types as in `fit`.
        noise_covariance : array-like of shape (n_samples,), (n_samples, n_features) or \
                (n_samples, n_features, n_features), default=None
            Covariance of the noise of each count, as in `fit`. None means that the counts have no
            noise besides `psf`.

        Returns
        -------
        scores : ndarray of shape (n_samples,)
            Log density of each count in nats. It is -inf where the density is zero.
        """
        rows = self._check_new_rows(X, "score_samples")
        if noise_covariance is None:
            return self._log_prob(rows)
        mixture, instrument = self._mixture(), self._instrument
        if isinstance(mixture, Cells) or instrument.exposure is not None or instrument.reflects:
            raise ValueError(
                "noise_covariance is only allowed for Gaussians that were fitted with "
                "noise_covariance, or without exposure and with edges='open'."
            )
        noise = self._check_of_rows("noise_covariance", noise_covariance, rows)
        under = recorded_rows(
            self._internal(rows),
            None,
            self.n_components_,
            self.n_jobs,
            instrument,
            noise=self._internal_noise(noise),
        )
        return self._scores_of(under.log_density(mixture))

    def score(
        self,
        X: ArrayLike,
        y: object = None,
        sample_weight: ArrayLike | None = None,
        *,
        noise_covariance: ArrayLike | None = None,
    ) -> float:
        """Return the mean log density of counts. Searches over parameters maximise it.

        Parameters
        ----------
        X : array-like of shape (n_samples, n_features)
            Counts.
        y : Ignored
            Present for API consistency.
        sample_weight : array-like of shape (n_samples,), default=None
            Weights of the counts in the mean.
        noise_covariance : array-like, default=None
            Covariance of the noise of each count, as in `score_samples`.

        Returns
        -------
        score : float
            Mean of `score_samples`, in nats per count.
        """
        if noise_covariance is None:
            return super().score(X, y, sample_weight)
        scores = self.score_samples(X, noise_covariance=noise_covariance)
        return float(average(scores, weights=check_weight(sample_weight, scores)))

    def _check_of_rows(self, name: str, value: Any, X: Any) -> Any:
        return checked_noise(value, *X.shape)

    def _internal_noise(self, noise: Array) -> Array:
        if self._units is None:
            return noise
        return noise / self._units[:, None] / self._units

    def _log_prob(self, X: Array) -> Array:
        rows = self._internal(X)
        mixture, instrument = self._mixture(), self._instrument
        with np.errstate(divide="ignore"):  # the density may be 0
            if isinstance(mixture, Cells):
                nats = rows_under_cells(rows, mixture).log_density(mixture)
                if instrument.exposure is not None:
                    nats = nats + np.log(instrument.exposure_of(rows))
                    nats -= np.log(self._registered)
            elif instrument.pixels:
                nats = self._log_prob_of_pixels(rows, mixture, instrument)
            else:
                nats = self._under(rows).log_density(mixture)  # type: ignore[arg-type]
                if instrument.reflects:
                    nats = np.where(instrument.is_inside(rows), nats, -np.inf)
        return self._scores_of(nats)

    def _scores_of(self, nats: Array) -> Array:
        """Log densities in the units and in the dtype of X."""
        if self._units is not None:
            nats = nats - np.log(self._units).sum()
        with np.errstate(over="ignore"):  # a log density may overflow in float32
            scores: Array = nats.astype(self._dtype)
        return scores

    def _log_prob_of_pixels(
        self, rows: Array, gaussians: Gaussians, instrument: Instrument
    ) -> Array:
        """Log of the density of recorded counts, integrated over the pixel of each row."""
        nats = log_density_on_pixels(rows, gaussians, instrument, self.n_jobs)
        if instrument.exposure is not None:
            nats += np.log(instrument.exposure_of(rows)) - np.log(self._registered)
        if instrument.background is None:
            return nats
        b = self.background_share_
        found: Array = np.logaddexp(
            np.log1p(-b) + nats, np.log(b) + instrument.log_background(rows)
        )
        return found

    # -------------------------------------------------------------------------- draws

    def _draw(self, n_samples: int, rng: np.random.RandomState, noise: bool) -> Array:
        if not noise:
            return self._decode(self._drawn_codes(n_samples, rng)[:, None])
        instrument = self._instrument
        n_background = 0
        if instrument.background is not None:
            n_background = rng.binomial(n_samples, self.background_share_)
        parts = [self._drawn_source(n_samples - n_background, rng, instrument)]
        if n_background:
            parts.append(self._drawn_background(n_background, rng, instrument))
        rows = np.concatenate(parts)
        if n_background:
            rows = rows[rng.permutation(n_samples)]
        if self._are_pixels:
            assert instrument.shape is not None
            place = rows[:, : self._n_places]
            pixel = np.where(place == instrument.shape, place - 1, np.floor(place))
            rows[:, : self._n_places] = pixel + 0.5
        return self._rows_of_draws(rows)

    def _drawn_codes(self, n_samples: int, rng: np.random.RandomState) -> NDArray[np.intp]:
        weights = self.weights_ / self.weights_.sum()
        code = np.searchsorted(np.cumsum(weights), rng.random_sample(n_samples), side="right")
        return np.minimum(code, np.flatnonzero(weights)[-1])

    def _drawn_source(
        self, n_samples: int, rng: np.random.RandomState, instrument: Instrument
    ) -> Array:
        """Draw counts of the object that the detector registers."""
        mixture = self._mixture()
        if isinstance(mixture, Gaussians):
            mixture = blurred(mixture, instrument.blur)
        if instrument.exposure is None:
            rows = mixture.draw(self._drawn_codes(n_samples, rng), rng)
            return folded(rows, instrument.frame) if instrument.reflects else rows
        found: list[Array] = []
        missing = n_samples
        while missing:
            n = int(min(1.1 * missing / self._registered + _SPARE, 2**20))
            rows = mixture.draw(self._drawn_codes(n, rng), rng)
            if instrument.reflects:
                rows = folded(rows, instrument.frame)
            kept = rng.random_sample(n) < instrument.exposure_of(rows)
            found.append(rows[kept][:missing])
            missing -= len(found[-1])
        return np.concatenate(found) if found else np.empty((0, self.n_features_in_))

    def _drawn_background(
        self, n_samples: int, rng: np.random.RandomState, instrument: Instrument
    ) -> Array:
        assert instrument.background is not None
        assert instrument.shape is not None
        shares = instrument.background.ravel()
        lit = np.flatnonzero(shares)
        pixel = rng.choice(lit, n_samples, p=shares[lit])
        rows = np.empty((n_samples, self.n_features_in_))
        place = np.stack(np.unravel_index(pixel, instrument.shape), axis=1)
        rows[:, : self._n_places] = place + rng.random_sample(place.shape)
        if instrument.ranges is not None:
            lo, hi = instrument.ranges.T
            rows[:, self._n_places :] = lo + (hi - lo) * rng.random_sample((n_samples, len(lo)))
        return rows

    # ------------------------------------------------------------------------- images

    @overload
    def intensity(
        self,
        shape: tuple[int, ...] | None = None,
        *,
        deconvolved: bool = False,
        fill: bool = False,
        ranges: ArrayLike | None = None,
        return_std: Literal[False] = False,
    ) -> NDArray[np.float64]: ...

    @overload
    def intensity(
        self,
        shape: tuple[int, ...] | None = None,
        *,
        deconvolved: bool = False,
        fill: bool = False,
        ranges: ArrayLike | None = None,
        return_std: Literal[True],
    ) -> tuple[NDArray[np.float64], NDArray[np.float64]]: ...

    def intensity(
        self,
        shape: tuple[int, ...] | None = None,
        *,
        deconvolved: bool = False,
        fill: bool = False,
        ranges: ArrayLike | None = None,
        return_std: bool = False,
    ) -> NDArray[np.float64] | tuple[NDArray[np.float64], NDArray[np.float64]]:
        """Return the density of the object on a grid of pixels, integrated over each pixel.

        It is corrected for `exposure` and `background`.

        Parameters
        ----------
        shape : tuple of int, default=None
            Number of pixels along each axis of the image. Pixel (i, j) covers [i, i + 1) x
            [j, j + 1). None takes `image_shape`. If X has further features, such as an energy, the
            shape may also have a number of bins for each of them; otherwise the density is
            integrated over their whole range.
        deconvolved : bool, default=False
            Whether to return the sharp density, before the convolution with `psf`.
        fill : bool, default=False
            Whether pixels of zero exposure have the density of the components there, which is
            extrapolated, and at most as large as in the nearest exposed pixels. With False, they
            are NaN.
        ranges : array-like of shape (n_further_features, 2), default=None
            Lowest and highest value of the bins of each further feature. None takes the range of
            the training counts.
        return_std : bool, default=False
            Whether to return the standard deviation of the error of each pixel as well. It contains
            the randomness of the counts and the bias of the model. It is estimated from the
            residuals of the training counts and from two refits to simulated counts (Luisier et
            al. 2011), with random numbers from `random_state`. Only for `shape` None, with
            `image_shape`, and not for further features, `noise_covariance` or `deconvolved`.

        Returns
        -------
        intensity : ndarray of shape `shape`
            Probability that a count of the object is on each pixel. The sum is at most 1; it is
            smaller if a part of the density lies outside of the grid. With `exposure`, the sum over
            all exposed pixels is 1, because the counts say nothing of others.
        std : ndarray of shape `shape`
            Standard deviation of the error of each pixel, only with `return_std`. About 68 % of the
            true probabilities are within one. It is NaN for pixels of zero exposure.

        Raises
        ------
        ValueError
            If `shape` does not have one length for each axis of the image, or for each feature, if
            it is None and `image_shape` is not set, if there are more than 3 axes and the
            covariances are not diagonal, if `ranges` is not allowed, or if `return_std` is not
            possible.
        MemoryError
            If there is not enough memory for so many pixels.

        References
        ----------
        F. Luisier, T. Blu and M. Unser (2011). Image denoising in mixed Poisson-Gaussian noise.
        IEEE Transactions on Image Processing 20(3), 696-708. :doi:`10.1109/TIP.2010.2073477`
        """
        grid, bins = self._on_grid(shape, ranges)
        masses = self._masses(grid, bins, deconvolved)
        std = None
        if return_std:
            if deconvolved or (shape is not None and grid != self._instrument.shape):
                raise ValueError(
                    f"return_std=True cannot be combined with deconvolved={deconvolved} and "
                    f"shape={shape}; allowed are deconvolved=False and shape=None."
                )
            std = self._std_of(masses)
        image = self._with_unexposed(masses, fill)
        return image if std is None else (image, std)

    def reconstruct_image(
        self,
        shape: tuple[int, ...] | None = None,
        total: float | None = None,
        *,
        deconvolved: bool = False,
        fill: bool = False,
        ranges: ArrayLike | None = None,
    ) -> NDArray[np.float64]:
        """Return the intensity of the mixture on a grid of pixels, scaled to a total.

        Parameters
        ----------
        shape : tuple of int, default=None
            Number of pixels along each axis, as in `intensity`. None takes `image_shape`.
        total : float, default=None
            Sum of the image over all exposed pixels. None takes the number of training counts, or
            with `exposure` or `background` the number of counts of the object that a detector with
            the largest exposure everywhere would have registered.
        deconvolved : bool, default=False
            Whether to return the sharp image, as in `intensity`.
        fill : bool, default=False
            Whether pixels of zero exposure have extrapolated values in place of NaN.
        ranges : array-like of shape (n_further_features, 2), default=None
            Lowest and highest value of the bins of each further feature, as in `intensity`.

        Returns
        -------
        image : ndarray of shape `shape`
            Expected number of counts on each pixel.

        Raises
        ------
        MemoryError
            As in `intensity`.
        ValueError
            As in `intensity`. Also if `total` is not positive, or if the mixture has no density
            on the grid.
        """
        grid, bins = self._on_grid(shape, ranges)
        if total is not None:
            check_scalar(total, "total", Real, min_val=0, include_boundaries="neither")
        masses = self._masses(grid, bins, deconvolved)
        dark = self._dark(grid)
        inside = masses.sum() if dark is None else masses[~dark].sum()
        if not inside > 0:
            raise ValueError(
                f"shape={grid} is not allowed: the mixture has no density on these pixels."
            )
        if total is None:
            total = self.n_counts_ * (1 - self.background_share_) / self.registered_fraction_
        image = masses * (total / inside)
        return self._with_unexposed(image, fill)

    def _masses(self, grid: tuple[int, ...], bins: Array | None, deconvolved: bool) -> Array:
        masses = image_masses(
            self._mixture(),
            self._instrument,
            grid,
            self.n_jobs,
            ranges=bins,
            deconvolved=deconvolved,
        )
        return masses / self._exposed

    def _dark(self, grid: tuple[int, ...]) -> NDArray[np.bool_] | None:
        """Which pixels have no exposure; None if there is no exposure."""
        return None if self._instrument.exposure is None else unexposed(grid, self._instrument)

    def _with_unexposed(self, image: Array, fill: bool) -> Array:
        """The image with limited values, or NaN, for the pixels whose exposure is zero."""
        dark = self._dark(image.shape)
        if dark is None:
            return image
        if fill:
            return limited(image, dark)
        image[dark] = np.nan
        return image

    def _store_registered(self, mixture: Gaussians | Cells) -> None:
        """Set the integrals of a mixture over the exposure."""
        instrument = self._instrument
        if instrument.exposure is None:
            return
        found = registered_and_exposed(mixture, instrument, self.n_jobs)
        self._registered, self._exposed = found
        if isinstance(mixture, Gaussians) and not (
            instrument.exposure_at is None or self._are_pixels
        ):
            centre = mixture.means[:1]
            under = recorded_rows(centre, None, len(mixture.weights), self.n_jobs, instrument)
            assert isinstance(under, RecordedRows)
            self._registered = under.registered(mixture)
        self.registered_fraction_ = self._registered / self._exposed

    def _on_grid(
        self, shape: Sequence[int] | None, ranges: ArrayLike | None
    ) -> tuple[tuple[int, ...], Array | None]:
        """The numbers of pixels and bins, and the ranges of the bins in internal units."""
        check_is_fitted(self)
        if shape is None and self.image_shape is None:
            raise ValueError(
                "shape=None is only allowed if image_shape is set. Give the number of pixels along "
                "each feature."
            )
        n_places, n_features = self._n_places, self.n_features_in_
        grid = checked_grid(
            self.image_shape if shape is None else shape, n_places, n_features, self._mixture()
        )
        if len(grid) == n_places:
            if ranges is not None:
                raise ValueError(
                    f"ranges={ranges!r} was given, but shape={grid} has no bins of further "
                    "features."
                )
            return grid, None
        n_further = n_features - n_places
        units = np.ones(n_features) if self._units is None else self._units
        if ranges is None:
            return grid, self._instrument.ranges
        bins = np.asarray(ranges, dtype=np.float64)
        if (
            bins.shape != (n_further, 2)
            or not np.isfinite(bins).all()
            or not (bins[:, 0] < bins[:, 1]).all()
        ):
            raise ValueError(
                f"ranges={ranges!r} is not allowed; expected the lowest and the highest value of "
                f"the bins of each further feature, shape ({n_further}, 2)."
            )
        return grid, bins / units[n_places:, None]
