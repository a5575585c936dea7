"""Rows as an instrument recorded them, under a mixture of the true places.

The mixture that the rows see is that of the true places, convolved with the point spread function
and reflected at the edges. Its statistics are translated back to those of the true places, with
counts that were missed and without counts of the background, so that EM updates the true mixture.
"""

from dataclasses import replace
from typing import Any

import numpy as np
from numpy.typing import NDArray
from scipy import sparse

from skae._mixture.compiled_rows import rows_under_mixture
from skae._mixture.dense_rows import DenseRows
from skae._mixture.gaussians import Gaussians, Statistics, widened
from skae._mixture.instrument import Instrument, blurred, sharpened
from skae._mixture.mirror_images import Images, gathered, images_of, reflected
from skae._mixture.missed_counts import MissedCounts
from skae._mixture.noisy_rows import NoisyRows
from skae._mixture.responsibilities import LocalRows

Array = NDArray[Any]
Indices = NDArray[np.intp]

# Smallest fraction of counts that the detector registers, so that its logarithm is finite.
_LEAST = 1e-300


# Largest part of a narrow component that may be on dead pixels, and the smallest variance of a
# component above it, in squared pixels.
_MOST_HIDDEN, _WIDTH_OF_HIDDEN = 0.5, 0.5


class RecordedRows:
    """Rows under a mixture, seen through an instrument; with the methods of `LocalRows`.

    All methods take the mixture of the true places. For queries of a fitted mixture, `registered`
    is the fraction of the counts that the detector registers; training computes it. `noise` has a
    covariance of the noise of each row.
    """

    def __init__(
        self,
        instrument: Instrument,
        X: Array,
        weight: Array | None,
        n_components: int,
        n_jobs: int | None,
        registered: float | None = None,
        noise: Array | None = None,
    ) -> None:
        self._instrument, self._n_components = instrument, n_components
        self._weight = np.ones(len(X)) if weight is None else weight
        self._spread = instrument.spread(X.shape[1])
        self._rows: LocalRows | DenseRows
        if noise is None:
            self._rows = rows_under_mixture(X, weight, n_components, n_jobs)
        else:  # the statistics of these rows are those of the true places already
            noise = noise if self._spread is None else noise + self._spread
            self._rows = NoisyRows(X, weight, noise, n_components, n_jobs)
            self._spread = None
        self._images: Images | None = None
        self._missed: MissedCounts | None = None
        self._dead: MissedCounts | None = None
        self._n_jobs = n_jobs
        self._registered = registered
        self._log_exposure = np.zeros(len(X))
        self._known: tuple[Gaussians, float, Statistics | None] | None = None
        if instrument.exposure is not None:
            self._missed = MissedCounts(instrument, n_components, n_jobs)
            with np.errstate(divide="ignore"):
                self._log_exposure = np.log(instrument.exposure_of(X))
        self._log_background: Array | None = None
        self._least_background = 0.0
        if instrument.background is not None:
            self._log_background = instrument.log_background(X)
            if registered is None:
                self._least_background = instrument.darkest_share(X, self._weight)

    # -------------------------------------------------------------------- the mixture

    def _seen(self, gaussians: Gaussians) -> Gaussians:
        wide = blurred(gaussians, self._spread)
        if self._images is None:
            if wide.kind == "tied":  # the statistics of each component are needed
                wide = wide._replace(covariances=wide.full(), kind="full")
            return wide
        return reflected(wide, self._images, self._instrument.frame)

    def _update_images(self, gaussians: Gaussians, *, anew: bool = False) -> None:
        if self._instrument.reflects:
            wide = blurred(gaussians, self._spread)
            before = None if anew else self._images
            self._images = images_of(wide, self._instrument.frame, before)
            self._known = None

    def _of_components(self, stats: Statistics) -> Statistics:
        return stats if self._images is None else gathered(stats, self._images, self._n_components)

    def _missing(self, gaussians: Gaussians) -> tuple[float, Statistics | None]:
        """The fraction Z of the counts that are registered, and integrals over missed counts."""
        if self._missed is None:
            return 1.0, None
        if self._registered is not None:
            return self._registered, None
        if self._known is None or self._known[0] is not gaussians:
            found = self._of_components(self._missed.of(self._seen(gaussians)))
            if not self._instrument.reflects:  # these are the counts that are registered
                wide = blurred(gaussians, self._spread)
                second = wide.variances() if found.second.ndim == 2 else wide.full()
                w = wide.weights
                weights = w.reshape(-1, *[1] * (second.ndim - 1))
                found = Statistics(w - found.n, -found.first, weights * second - found.second)
            registered = max(1 - float(found.n.sum()), _LEAST)
            self._known = (gaussians, registered, found)
        return self._known[1:]

    def registered(self, gaussians: Gaussians) -> float:
        """The fraction Z of the counts of the object that the detector registers.

        This is relative to a detector with the largest exposure everywhere.
        """
        self._update_images(gaussians)
        return self._missing(gaussians)[0]

    def _add_background(self, gaussians: Gaussians) -> None:
        """Add the background to the density of the mixture, in units of that density."""
        if self._log_background is None:
            return
        share = gaussians.background
        registered, _ = self._missing(gaussians)
        with np.errstate(divide="ignore", invalid="ignore"):
            odds = np.log(share) - np.log1p(-share) + np.log(registered)
            extra = np.where(
                self._log_background > -np.inf,
                odds + self._log_background - self._log_exposure,
                -np.inf,
            )
        self._rows.add_density(np.nan_to_num(extra, nan=-np.inf, posinf=700.0, neginf=-np.inf))

    def _log_constant(self, gaussians: Gaussians) -> float:
        """log (1 - b) / Z."""
        return float(np.log1p(-gaussians.background) - np.log(self._missing(gaussians)[0]))

    # ------------------------------------------------------------------------ training

    def constrained(self, gaussians: Gaussians) -> Gaussians:
        """The mixture, in which no narrow component is hidden on a dead pixel.

        The counts on other pixels say almost nothing of such a component, and its density at the
        centres of the next pixels is inaccurate, because it is too narrow for them.
        """
        exposure = self._instrument.exposure
        if not self._instrument.pixels or exposure is None or exposure.all():
            return gaussians
        if self._dead is None:
            dead = replace(
                self._instrument, exposure=(exposure > 0).astype(float), exposure_at=None
            )
            dead = replace(dead, reflects=True)
            self._dead = MissedCounts(dead, self._n_components, self._n_jobs)
        alike = gaussians._replace(weights=np.ones(len(gaussians.weights)))
        wide = blurred(alike, self._spread)
        if wide.kind == "tied":
            wide = wide._replace(covariances=wide.full(), kind="full")
        hidden = np.flatnonzero(self._dead.of(wide).n > _MOST_HIDDEN)
        if not len(hidden) or gaussians.kind == "tied":
            return gaussians
        covariances = gaussians.covariances.copy()
        covariances[hidden] = widened(gaussians.chosen(hidden), _WIDTH_OF_HIDDEN).covariances
        return gaussians._replace(covariances=covariances)

    def select_candidates(self, gaussians: Gaussians) -> None:
        """Select candidate components, and images of components that reach into the frame."""
        self._update_images(gaussians)
        self._add_background(gaussians)
        self._rows.select_candidates(self._seen(gaussians))

    def selected(self) -> Any:
        """The candidates, for `restore`; images are only ever added."""
        return self._rows.selected()

    def restore(self, pairs: Any) -> None:
        """Restore an earlier selection."""
        self._rows.restore(pairs)

    def expect(self, gaussians: Gaussians) -> tuple[float, Statistics]:
        """Log-likelihood of the recorded rows, and the statistics of the true places."""
        self._add_background(gaussians)
        total = float(self._weight.sum())
        nats, stats = self._rows.expect(self._seen(gaussians))
        nats += total * self._log_constant(gaussians) + float(self._weight @ self._log_exposure)
        stats = self._of_components(stats)
        n_source = float(stats.n.sum())
        registered, missed = self._missing(gaussians)
        if missed is not None:
            more = n_source / registered
            stats = Statistics(
                stats.n + more * missed.n,
                stats.first + more * missed.first,
                stats.second + more * missed.second,
            )
        stats = sharpened(stats, gaussians, self._spread)
        share = max(1 - n_source / total, self._least_background)
        if self._log_background is None:
            share = 0.0
        return nats, stats._replace(background=share)

    def assign(self, gaussians: Gaussians) -> tuple[float, Statistics, Indices]:
        """Classification log-likelihood, statistics and components of hard assignments."""
        self._update_images(gaussians)
        nats, stats, labels = self._rows.assign(self._seen(gaussians))
        stats = sharpened(self._of_components(stats), gaussians, self._spread)
        return nats, stats, labels if self._images is None else self._images.component[labels]

    # ------------------------------------------------------------------------- queries

    def log_density(self, gaussians: Gaussians) -> Array:
        """Log density of every row as it was recorded."""
        self._update_images(gaussians, anew=True)
        self._add_background(gaussians)
        nats = self._rows.log_density(self._seen(gaussians)) + self._log_constant(gaussians)
        found: Array = nats + self._log_exposure
        return found

    def best(self, gaussians: Gaussians) -> Indices:
        """The most probable component of every row, through its most probable image."""
        self._update_images(gaussians, anew=True)
        found = self._rows.best(self._seen(gaussians))
        return found if self._images is None else self._images.component[found]

    def responsibilities(self, gaussians: Gaussians) -> sparse.csr_array:
        """Probability of each component given each row; the rest of a row is background."""
        self._update_images(gaussians, anew=True)
        seen = self._seen(gaussians)
        self._rows.add_density(None)
        found = self._rows.responsibilities(seen)
        if self._images is not None:
            n_images = len(self._images.component)
            of_image = (np.arange(n_images), self._images.component)
            fold = sparse.coo_array(
                (np.ones(n_images), of_image), shape=(n_images, self._n_components)
            )
            found = sparse.csr_array(found @ fold.tocsr())
            found.sort_indices()
        if self._log_background is not None:
            alone = self._rows.log_density(seen)
            self._add_background(gaussians)
            share = np.exp(alone - self._rows.log_density(seen))
            found.data *= np.repeat(share, np.diff(found.indptr))
        return found


Rows = LocalRows | DenseRows | RecordedRows


def recorded_rows(
    X: Array,
    weight: Array | None,
    n_components: int,
    n_jobs: int | None,
    instrument: Instrument,
    registered: float | None = None,
    noise: Array | None = None,
) -> Rows:
    """Rows under a mixture, seen through an instrument, with noise of known covariances."""
    if instrument.is_plain and noise is not None:
        return NoisyRows(X, weight, noise, n_components, n_jobs)
    if instrument.is_plain:
        return rows_under_mixture(X, weight, n_components, n_jobs)
    return RecordedRows(instrument, X, weight, n_components, n_jobs, registered, noise)
