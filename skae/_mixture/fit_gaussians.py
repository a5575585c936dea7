"""Fit mixtures of Gaussians to rows: initialisation, training and averages of several mixtures."""

from dataclasses import dataclass, field
from math import log
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray

from skae._mixture.domain import range_of
from skae._mixture.em import Algorithm, Trained, train
from skae._mixture.gaussians import (
    Gaussians,
    Kind,
    Prior,
    n_parameters,
)
from skae._mixture.initialization import (
    enlarged,
    grid_start,
    initialise,
    nearest_cells,
    quantile_cells,
    start_of_cells,
)
from skae._mixture.instrument import Instrument
from skae._mixture.noise import without_noise
from skae._mixture.recorded_rows import RecordedRows, Rows, recorded_rows

Array = NDArray[Any]
Init = Literal["quantiles", "counts", "grid", "split"]

# For `init="split"`: iterations of each smaller mixture, and largest size of the first mixture.
_COARSE_ITERATIONS, _COARSEST = 5, 16

# Default number of components; fewer if there are fewer counts.
_DEFAULT_SIZE = 8


@dataclass(frozen=True)
class FitOptions:
    """Options of the fit, with the names and the meaning of the parameters of CountMixtureAE."""

    kind: Kind
    algorithm: Algorithm
    init: Init
    prior_counts: float
    n_averages: int
    tol: float
    max_iter: int
    n_jobs: int | None
    floor: float  # smallest variance along any axis
    bounds: Array | None  # (n_dims, 2), from `domain` or `image_shape`
    instrument: Instrument = field(default_factory=Instrument)
    noise: Array | None = None  # (n_samples, n_dims, n_dims): covariances of the noise of the rows

    def rows(self, X: Array, weight: Array | None, n_components: int) -> Rows:
        """The rows of the fit under a mixture, seen through the instrument."""
        return recorded_rows(
            X, weight, n_components, self.n_jobs, self.instrument, noise=self.noise
        )

    def mean_noise(self, weight: Array, n_dims: int) -> Array | None:
        """Mean covariance of what the optics and the noise of each row add to its true place."""
        spread = self.instrument.spread(n_dims)
        if self.noise is None:
            return spread
        mean = np.tensordot(weight / weight.sum(), self.noise, axes=1)
        return mean if spread is None else mean + spread

    def registered(self, gaussians: Gaussians) -> float:
        """The fraction of the counts of the object that the detector registers."""
        n_components = len(gaussians.weights)
        under = recorded_rows(gaussians.means[:1], None, n_components, self.n_jobs, self.instrument)
        return under.registered(gaussians) if isinstance(under, RecordedRows) else 1.0


def wanted_size(n_components: Any, n_counts: float) -> int | None:
    """Number of components of a mixture, from the parameter; None if BIC chooses it."""
    most = int(n_counts * (1 + 1e-9))
    if most < 1:
        raise ValueError(
            f"sample_weight sums to {n_counts:g}. The sum is the number of counts and must be at "
            "least 1. Multiply relative frequencies by the number of counts."
        )
    if n_components == "bic":
        return None
    if n_components is None:
        return min(_DEFAULT_SIZE, most)
    if n_components > most:
        raise ValueError(
            f"n_components={n_components} exceeds the {most} counts of X; allowed are 1 to {most}."
        )
    return int(n_components)


def fit_averages(
    rows: Array,
    weight: Array,
    n_components: int,
    options: FitOptions,
    rng: np.random.RandomState,
    known: tuple[Gaussians, Prior] | None,
    *,
    keeps_progress: bool,
) -> list[Trained]:
    """Fit the mixtures that are averaged. After Ctrl-C, only the complete mixtures are returned.

    If the first mixture is interrupted, its state after the last complete iteration is returned.
    """
    fits: list[Trained] = []
    while len(fits) < options.n_averages:
        keeps = keeps_progress and not fits
        try:
            trained = fit_mixture(rows, weight, n_components, options, rng, known, keeps)
        except KeyboardInterrupt:
            if not (fits and keeps_progress):
                raise
            break
        fits.append(trained)
        if trained.interrupted:
            break
    return fits


def average_of(fits: list[Trained], options: FitOptions) -> tuple[Gaussians, Prior]:
    """The mixture of all components of several mixtures, and the priors of the components.

    The densities of the counts as they are recorded are averaged.
    """
    mixtures = [fit.gaussians for fit in fits]
    covariances = [mixture.covariances for mixture in mixtures]
    flux = np.array(
        [(1 - mixture.background) / options.registered(mixture) for mixture in mixtures]
    )
    flux /= flux.sum()
    average = Gaussians(
        np.concatenate([f * mixture.weights for f, mixture in zip(flux, mixtures, strict=True)]),
        np.concatenate([mixture.means for mixture in mixtures]),
        covariances[0] if len(fits) == 1 else np.concatenate(covariances),
        mixtures[0].kind,
        float(np.mean([mixture.background for mixture in mixtures])),
    )
    prior = Prior(
        options.prior_counts,
        np.concatenate([fit.prior.means for fit in fits]),
        np.concatenate([fit.prior.variances for fit in fits]),
        fits[0].prior.correlation,
    )
    return average, prior


def fit_mixture(
    rows: Array,
    weight: Array,
    n_components: int,
    options: FitOptions,
    rng: np.random.RandomState,
    known: tuple[Gaussians, Prior] | None = None,
    keeps_progress: bool = False,
) -> Trained:
    """Fit a mixture of Gaussians; with `init="split"`, smaller mixtures are fitted first."""
    sizes = [n_components]
    while options.init == "split" and known is None and sizes[0] > _COARSEST:
        sizes.insert(0, -(-sizes[0] // 2))
    trained = None
    for size in sizes:
        if known is None:
            gaussians, prior = start(rows, weight, size, options, rng)
        else:
            gaussians, prior = enlarged(*known, size)
        share = 0.0
        if options.instrument.background is not None:
            share = max(gaussians.background, options.instrument.darkest_share(rows, weight))
        gaussians = gaussians._replace(background=share)
        final = size == n_components
        trained = train(
            options.rows(rows, weight, size),
            gaussians,
            prior,
            algorithm=options.algorithm,
            total=float(weight.sum()),
            floor=options.floor,
            tol=options.tol,
            max_iter=options.max_iter if final else min(options.max_iter, _COARSE_ITERATIONS),
            keeps_progress=keeps_progress and final,
        )
        known = trained.gaussians, trained.prior
    assert trained is not None
    return trained


def start(
    rows: Array,
    weight: Array,
    n_components: int,
    options: FitOptions,
    rng: np.random.RandomState,
) -> tuple[Gaussians, Prior]:
    """The initial mixture and its prior; with several averages, it is shifted at random."""
    shifting = rng if options.n_averages > 1 else None
    if options.init == "grid":
        lo, hi = range_of(rows, options.bounds, float(weight.sum()), options.floor)
        shift = None if shifting is None else shifting.random_sample(len(lo))
        cells = grid_start(rows, weight, n_components, lo, hi, shift)
    else:
        if options.init == "counts":
            labels = nearest_cells(rows, weight, n_components, rng)
        else:
            labels = quantile_cells(rows, weight, n_components, shifting)
        cells = start_of_cells(rows, weight, labels, n_components)
    gaussians, prior = initialise(cells, options.kind, options.prior_counts, options.floor)
    noise = options.mean_noise(weight, rows.shape[1])
    if noise is not None:
        gaussians, prior = without_noise(gaussians, prior, noise, options.floor)
    return gaussians, prior


def size_by_bic(rows: Array, weight: Array, options: FitOptions, rng: np.random.RandomState) -> int:
    """Find the number of components with the lowest BIC.

    Sizes increase by factors of about 1.5 until the BIC has increased twice. Then sizes near the
    best one are tried. No size is tried that has fewer counts than parameters for each component.
    """
    n_dims, n_counts = rows.shape[1], float(weight.sum())
    most = max(1, int(n_counts / (n_parameters(1, n_dims, options.kind) + 1)))
    found: dict[int, float] = {}

    def bic(size: int) -> float:
        if size not in found:
            mixture = fit_mixture(rows, weight, size, options, rng).gaussians
            under = options.rows(rows, weight, size)
            fit = float(weight @ under.log_density(mixture))
            n = n_parameters(size, n_dims, options.kind)
            found[size] = -2 * fit + log(n_counts) * (n + options.instrument.n_parameters)
        return found[size]

    size, risen = 1, 0
    while size <= most and risen < 2:
        lowest = min(found.values(), default=np.inf)
        here = min(bic(k) for k in (size, size + size // 2) if k <= most)
        risen = risen + 1 if here > lowest else 0
        size *= 2
    step = 0.5
    while step > 0.1:
        best = min(found, key=lambda k: found[k])
        for size in (round(best / 2**step), round(best * 2**step)):
            if 1 <= size <= most:
                bic(size)
        step /= 2
    return min(found, key=lambda k: found[k])
