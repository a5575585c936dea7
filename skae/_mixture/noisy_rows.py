"""Rows with noise of known covariances under a mixture of Gaussians (extreme deconvolution).

The components are those of the true positions. The statistics of an E-step are those of the
posteriors of the true positions, so that the M-step is the same as without noise (Bovy, Hogg and
Roweis 2011, Annals of Applied Statistics 5(2B), https://doi.org/10.1214/10-AOAS439).
"""

from typing import Any

import numpy as np
from numpy.typing import NDArray

from skae._mixture.component_search import (
    Pairs,
    Rectangles,
    build_tree,
    find_pairs,
    rectangles,
)
from skae._mixture.gaussians import Gaussians, Statistics, reach_of, rounding_of
from skae._mixture.noisy_gaussians import (
    Frames,
    Matrices,
    Planes,
    frames,
    joint,
    noise_of,
    statistics_of_sums,
)
from skae._mixture.responsibilities import LOCAL_DIMS, LocalRows, blocks_of, products

Array = NDArray[Any]

# Largest number of components that are all candidates of every row.
_ALL = 64

# Numbers of pairs of rows and components that are computed at a time if all components are
# candidates, and the smallest and largest number of rows in a block.
_AT_A_TIME, _SMALLEST, _LARGEST = 2**14, 256, 1024


class NoisyRows(LocalRows):
    """Rows with noise, with the same interface as rows without noise.

    Parameters
    ----------
    X : ndarray of shape (n_samples, n_dims)
    weight : ndarray of shape (n_samples,) or None
    noise : ndarray of shape (n_samples, n_dims, n_dims)
        Covariances of the noise, which are positive semi-definite.
    n_components : int
        Approximate number of components, for the sizes of blocks.
    n_jobs : int or None
    """

    def __init__(
        self, X: Array, weight: Array | None, noise: Array, n_components: int, n_jobs: int | None
    ) -> None:
        n, n_dims = X.shape
        self._noise = noise_of(noise)
        largest = self._noise.largest_variances()
        self._largest_variance = float(largest.max())
        self._takes_all = n_dims > LOCAL_DIMS or n_components <= _ALL
        if self._takes_all:
            n_members = int(np.clip(_AT_A_TIME // n_components, _SMALLEST, _LARGEST))
        else:
            n_members = int(np.clip(n / (2 * n_components), 32, 64))
        # The standard deviation of the noise is another coordinate of the tree, so that the rows of
        # a block have similar noise.
        deviation = np.minimum(np.sqrt(largest), np.ptp(X, axis=0).max())
        places = np.column_stack([X, deviation])
        tree = build_tree(places, places, n_members)
        tree = tree._replace(
            lo=[lo[:, :n_dims] for lo in tree.lo], hi=[hi[:, :n_dims] for hi in tree.hi]
        )
        self._set_up(X, blocks_of(tree, weight), n_jobs)
        self._x = X[tree.members].swapaxes(1, 2).copy()
        self._numbers = self._noise.numbers[tree.members].swapaxes(1, 2).copy()
        self._widening = largest[tree.members].max(axis=1)

    def select_candidates(self, gaussians: Gaussians) -> None:
        """Select the candidates of each block; the truncated free energy never decreases."""
        if not self._takes_all:
            super().select_candidates(gaussians)
        else:
            pairs = self._all_pairs(len(gaussians.weights))
            if self._pairs is None or len(self._pairs.block) < len(pairs.block):
                self._use(pairs)

    def _form(self, gaussians: Gaussians) -> Frames:
        return frames(gaussians, self._noise, self._largest_variance)

    def _all_pairs(self, n_components: int) -> Pairs:
        n_blocks = len(self._blocks.centre)
        block = np.repeat(np.arange(n_blocks), n_components)
        return Pairs(block, np.tile(np.arange(n_components), n_blocks))

    def _candidates(self, gaussians: Gaussians, form: Frames, margin: float) -> Pairs:
        """All pairs in which a component may be within `margin` of the best one for some row.

        Noise decreases the peak of a component, and increases its variances by at most the largest
        variance of the noise.
        """
        if self._takes_all:
            return self._all_pairs(len(gaussians.weights))
        lowest = self._lowest(gaussians, form)
        threshold = lowest - margin - rounding_of(gaussians) * (1 + np.abs(lowest))
        reach = reach_of(gaussians, form.constant)
        return find_pairs(self._blocks.tree, threshold, reach, self._widening * (1 + 1e-9))

    def _rectangles(self, pairs: Pairs) -> list[Rectangles]:
        n_blocks, n_members = self._blocks.tree.members.shape
        n_planes = 4 + len(self._sums_of())  # of each pair of a row and a component
        parts = rectangles(pairs, n_blocks, n_members * n_planes)
        return [part for part in parts if len(part.blocks)]

    def _sums_of(self) -> list[tuple[int, int]]:
        return products(self._X.shape[1])

    def _log_joint(self, part: Rectangles, form: Frames, gaussians: Gaussians) -> Array:
        return self._joint(part, form, gaussians, whole=False)[0]

    def _log_joint_and_offsets(
        self, part: Rectangles, form: Frames, gaussians: Gaussians
    ) -> tuple[Array, Planes | Matrices]:
        """The log densities, and the posteriors of the true positions."""
        return self._joint(part, form, gaussians, whole=True)

    def _joint(
        self, part: Rectangles, form: Frames, gaussians: Gaussians, whole: bool
    ) -> tuple[Array, Planes | Matrices]:
        x, numbers = self._x[part.blocks], self._numbers[part.blocks]
        value, posterior = joint(x, numbers, gaussians.means, form, part.candidates, whole=whole)
        if not part.valid.all():
            value[~part.valid] = -np.inf
        return value.swapaxes(1, 2), posterior

    def _collect(self, part: Rectangles, responsibility: Array, away: Planes | Matrices) -> None:
        """The sums of each pair of block and component, in the coordinates of the component."""
        sums = away.sums(responsibility.swapaxes(1, 2), self._sums_of())
        self._sums[:, part.pairs[part.valid]] = sums[:, part.valid]

    def _statistics(self, gaussians: Gaussians, form: Frames) -> Statistics:
        """The sums of all pairs for each component."""
        assert self._pairs is not None
        n_components, n_dims = gaussians.means.shape
        added = [np.bincount(self._pairs.component, values, n_components) for values in self._sums]
        second = np.empty((n_components, n_dims, n_dims))
        for (a, b), product in zip(products(n_dims), added[1 + n_dims :], strict=True):
            second[:, a, b] = second[:, b, a] = product
        first = np.stack(added[1 : 1 + n_dims], axis=1)
        return statistics_of_sums(added[0], first, second, form, gaussians)
