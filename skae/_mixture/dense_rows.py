"""Rows of many dimensions under a mixture of Gaussians, where every component is a candidate."""

from collections.abc import Iterator
from math import log
from typing import Any

import numpy as np
from numpy.typing import NDArray
from scipy import sparse
from scipy.special import logsumexp
from sklearn.utils import gen_batches

from skae._mixture.gaussians import Gaussians, Statistics, log_joint

Array = NDArray[Any]
Indices = NDArray[np.intp]

# Largest fraction of the density of a row that the omitted components may have together.
_OMITTED = 1e-10

_DENSE_NUMBERS = 2**22


def margin_of_scores(n_components: int) -> float:
    """Log ratio to the best component below which all others together are less than 1e-10."""
    return log(n_components / _OMITTED)


class DenseRows:
    """Rows of many dimensions, with all components as candidates."""

    def __init__(self, X: Array, weight: Array | None) -> None:
        self._X = X
        self._weight = np.ones(len(X)) if weight is None else weight
        self._log_extra: Array | None = None

    def add_density(self, log_extra: Array | None) -> None:
        """Add a density to that of the mixture, as its log at every row; it may be -inf."""
        self._log_extra = log_extra

    def _log_density(self, rows: slice, value: Array) -> Array:
        nats: Array = logsumexp(value, axis=1)
        return nats if self._log_extra is None else np.logaddexp(nats, self._log_extra[rows])

    def select_candidates(self, gaussians: Gaussians) -> None:
        """Do nothing, because every component is a candidate."""

    def selected(self) -> Any:
        """Return None, because no candidates were selected."""

    def restore(self, pairs: Any) -> None:
        """Do nothing, because there are no earlier candidates."""

    def expect(self, gaussians: Gaussians) -> tuple[float, Statistics]:
        """Log-likelihood of all rows, and the statistics of soft responsibilities."""
        nats, sums = 0.0, None
        for rows, value in self._joint(gaussians):
            weight = self._weight[rows]
            log_density = self._log_density(rows, value)
            nats += float((weight * log_density).sum())
            responsibility = weight[:, None] * np.exp(value - log_density[:, None])
            sums = self._added(sums, rows, responsibility, gaussians)
        assert sums is not None
        return nats, sums

    def assign(self, gaussians: Gaussians) -> tuple[float, Statistics, Indices]:
        """Classification log-likelihood, statistics and components of hard assignments."""
        nats, sums = 0.0, None
        labels = np.empty(len(self._X), dtype=np.intp)
        for rows, value in self._joint(gaussians):
            weight = self._weight[rows]
            best = value.argmax(axis=1)
            labels[rows] = best
            nats += float((weight * value[np.arange(len(best)), best]).sum())
            responsibility = np.zeros_like(value)
            responsibility[np.arange(len(best)), best] = weight
            sums = self._added(sums, rows, responsibility, gaussians)
        assert sums is not None
        return nats, sums, labels

    def _added(
        self, sums: Statistics | None, rows: slice, responsibility: Array, gaussians: Gaussians
    ) -> Statistics:
        n_components, n_dims = gaussians.means.shape
        matrices = gaussians.kind in ("full", "tied")
        shape = (n_dims, n_dims) if matrices else (n_dims,)
        if gaussians.kind != "tied":
            shape = (n_components, *shape)
        if sums is None:
            first = np.zeros((n_components, n_dims))
            sums = Statistics(np.zeros(n_components), first, np.zeros(shape))
        n, first, second = sums[:3]
        n += responsibility.sum(axis=0)
        for j, mean in enumerate(gaussians.means):
            centred = self._X[rows] - mean
            weighted = responsibility[:, j, None] * centred
            first[j] += weighted.sum(axis=0)
            whole = second if gaussians.kind == "tied" else second[j]
            whole += weighted.T @ centred if matrices else (weighted * centred).sum(axis=0)
        return sums

    def log_density(self, gaussians: Gaussians) -> Array:
        """log sum_j w_j rho_j(x) of every row."""
        parts = [self._log_density(rows, value) for rows, value in self._joint(gaussians)]
        return np.concatenate(parts)

    def best(self, gaussians: Gaussians) -> Indices:
        """argmax_j w_j rho_j(x) of every row; the first one of equal maxima."""
        return np.concatenate([value.argmax(axis=1) for _, value in self._joint(gaussians)])

    def responsibilities(self, gaussians: Gaussians) -> sparse.csr_array:
        """w_j rho_j(x) / rho(x); omits components below 1e-10 together, and rows sum to 1."""
        lowest = -margin_of_scores(len(gaussians.weights))
        parts = []
        for _, value in self._joint(gaussians):
            value -= value.max(axis=1, keepdims=True)
            responsibility = np.where(value > lowest, np.exp(value), 0)
            parts.append(
                sparse.csr_array(responsibility / responsibility.sum(axis=1, keepdims=True))
            )
        return sparse.vstack(parts, format="csr")

    def _joint(self, gaussians: Gaussians) -> Iterator[tuple[slice, Array]]:
        n_components, n_dims = gaussians.means.shape
        n_rows = max(1, _DENSE_NUMBERS // max(n_components, n_dims))
        for rows in gen_batches(len(self._X), n_rows):
            yield rows, log_joint(self._X[rows], gaussians)
