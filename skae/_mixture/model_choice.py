"""Choose a mixture of Gaussians by the nats of held-out counts: its size and its prior."""

from dataclasses import replace
from math import inf
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from skae._mixture.fit_gaussians import FitOptions, fit_mixture
from skae._mixture.image_masses import (
    image_masses,
    recorded_masses,
    registered_and_exposed,
)
from skae._mixture.initialization import quantile_cells
from skae._mixture.recorded_rows import recorded_rows

Array = NDArray[Any]

# Weights of the prior that are compared. Later ones are only tried if each improves the previous.
PRIOR_COUNTS = (5.0, 0.5, 0.0)

# Sizes of mixtures that are compared differ by this factor, and the weight of their prior.
_FACTOR, _PRIOR_OF_SIZES = 4, 0.5

# From this number of components on, sizes are no longer increased if a mixture with a gain as large
# as the last one would still be worse than the model it is compared with.
_HOPELESS = 64

# Fewest counts of a component.
_FEWEST = 10

# Numbers of counts on which sizes and priors are compared.
_COUNTS_OF_SIZES, _COUNTS_OF_PRIORS = 200_000, 50_000

# Log densities below this one are taken for it, so that their differences are finite.
_LOWEST = -1e4

# Tolerance and number of iterations of the fits that are compared.
_TOL, _MAX_ITER = 2e-4, 100


class GaussianChoice(NamedTuple):
    """A mixture of Gaussians, with its log densities of the held-out rows."""

    n_components: int
    prior_counts: float
    log_density: Array


class _Trials:
    """Mixtures that are fitted to some counts and compared by others."""

    def __init__(self, rows: Array, weight: Array, held_out: Array, options: FitOptions) -> None:
        seen = weight > 0
        self._rows, self._weight = rows[seen], weight[seen]
        tested = held_out > 0
        self._new, self._held_out = rows[tested], held_out[tested]
        self._options = replace(
            options,
            tol=max(options.tol, _TOL),
            max_iter=min(options.max_iter, _MAX_ITER),
            n_averages=1,
        )
        shape = options.instrument.shape
        self._of_image = shape is not None and len(shape) == rows.shape[1]

    def is_worse(self, one: Array, other: Array) -> bool:
        """Whether one mixture is worse than another by more than a standard error."""
        difference = other - one
        mean = self.mean(difference)
        variance = self.mean((difference - mean) ** 2) / self._held_out.sum()
        return mean > variance**0.5

    def mean(self, values: Array) -> float:
        """The mean over the held-out counts."""
        return float(self._held_out @ values / self._held_out.sum())

    def log_densities(self, n_components: int, prior_counts: float) -> Array:
        """Log densities of the held-out rows under a mixture that is fitted to the others."""
        options = replace(self._options, prior_counts=prior_counts)
        rng = np.random.RandomState(0)
        fitted = fit_mixture(self._rows, self._weight, n_components, options, rng)
        gaussians, instrument = fitted.gaussians, options.instrument
        if instrument.pixels and instrument.shape is not None and self._of_image:
            # Exactly: the density at the centre of a pixel favours narrow components there.
            masses = image_masses(gaussians, instrument, instrument.shape, options.n_jobs)
            masses = recorded_masses(gaussians, instrument, masses)
            with np.errstate(divide="ignore"):
                found = np.log(instrument.on_map(masses, self._new))
            return np.maximum(found, _LOWEST)
        registered = None
        if instrument.exposure is not None:
            registered = registered_and_exposed(gaussians, instrument, options.n_jobs)[0]
        under = recorded_rows(self._new, None, n_components, options.n_jobs, instrument, registered)
        return np.maximum(under.log_density(gaussians), _LOWEST)

    def best_prior(self, n_components: int, priors: tuple[float, ...]) -> GaussianChoice:
        """The mixture of this size with the best weight of the prior."""
        best, most = None, -inf
        for prior_counts in priors:
            found = self.log_densities(n_components, prior_counts)
            if best is not None and not self.mean(found) > most:
                break
            best, most = GaussianChoice(n_components, prior_counts, found), self.mean(found)
        assert best is not None
        return best


def chosen_gaussians(
    rows: Array,
    weight: Array,
    held_out: Array,
    options: FitOptions,
    at_least: float,
    priors: tuple[float, ...],
) -> GaussianChoice:
    """Choose the size of a mixture and the weight of its prior.

    Parameters
    ----------
    rows : ndarray of shape (n_samples, n_dims)
    weight, held_out : ndarray of shape (n_samples,)
        Weights for training and for the comparison.
    options : FitOptions
    at_least : float
        Nats of another model. Large mixtures that are unlikely to be better are not fitted.
    priors : tuple of float
        Weights of the prior that are allowed.
    """
    share = min(1.0, _COUNTS_OF_SIZES / weight.sum())
    if share < 1:  # the weights of a part of the counts, which are chosen at random
        rng = np.random.RandomState(0)
        expected = share * weight
        part = np.floor(expected)
        weight = part + (rng.random_sample(len(weight)) < expected - part)
    trials = _Trials(rows, weight, held_out, options)
    most = max(1, int(weight.sum() / _FEWEST))
    found: dict[int, Array] = {}
    prior_of_sizes = _PRIOR_OF_SIZES if len(priors) > 1 else priors[0]

    def nats_of(size: int) -> float:
        if size not in found:
            found[size] = trials.log_densities(size, prior_of_sizes)
        return trials.mean(found[size])

    size, before = min(_FACTOR, most), -inf
    while size not in found:
        nats = nats_of(size)
        gain, before = nats - before, nats
        if gain <= 0 or (size >= _HOPELESS and nats + gain < at_least):
            break
        size = min(size * _FACTOR, most)
    best = max(found, key=nats_of)
    if nats_of(best) + 1 > at_least:
        for size in (best // 2, min(best * 2, most)):
            if size >= 1:
                nats_of(size)
        best = max(found, key=nats_of)
    # Of sizes that are about equally good, the smallest one has the most counts for each component.
    best = min(k for k in found if not trials.is_worse(found[k], found[best]))
    return trials.best_prior(best, priors)


def chosen_prior(
    rows: Array,
    weight: Array,
    held_out: Array,
    n_components: int,
    options: FitOptions,
) -> float:
    """Choose the weight of the prior for mixtures of a given size.

    If there are many counts, it is chosen on neighbouring ones, with as many counts for each
    component.
    """
    total = weight + held_out
    n_parts = int(min(total.sum() / _COUNTS_OF_PRIORS, n_components))
    if n_parts > 1:
        part = quantile_cells(rows, total, n_parts) == n_parts // 2
        rows, weight, held_out = rows[part], weight[part], held_out[part]
        n_components = max(1, round(n_components / n_parts))
        # The density of counts of a part is not that of the whole image.
        whole = options.instrument
        options = replace(
            options, bounds=None, instrument=replace(whole.without_exposure, reflects=False)
        )
    if weight.sum() < n_components or not held_out.any():
        return PRIOR_COUNTS[0]
    trials = _Trials(rows, weight, held_out, options)
    return trials.best_prior(n_components, PRIOR_COUNTS).prior_counts
