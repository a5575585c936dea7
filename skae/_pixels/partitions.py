"""The mean of an intensity over all recursive partitions of an image into boxes.

A partition halves boxes along one axis or another, beginning with the whole image, until it stops.
Its prior probability is that of these decisions: a box is divided with probability s, along each
axis with the same probability, and a count of a divided box falls into a half with a probability
that has a beta distribution. Within the boxes at the end, the intensity is proportional to the
exposure, or to one of the patterns of `edge_patterns`. The marginal likelihood of a box is then

    Phi(A) = (1 - s) leaf(A) + s / n_axes sum_axes B(n_left, n_right) Phi(left) Phi(right)

with the beta-binomial distribution B, and the posterior mean of the intensity, over all partitions
together, is computed exactly by one pass from the pixels to the image and one pass back (Wong and
Ma 2010). The halves are at multiples of powers of two from an origin; averaging over several
origins removes the traces of the grid.

References
----------
W. H. Wong and L. Ma (2010). Optional Pólya tree and Bayesian inference. Annals of Statistics 38(3),
1433-1459. :doi:`10.1214/09-AOS755`

E. D. Kolaczyk and R. D. Nowak (2004). Multiscale likelihood analysis and complexity penalized
estimation. Annals of Statistics 32(2), 500-527. :doi:`10.1214/009053604000000076`
"""

from itertools import product
from math import ceil, log, log2, prod
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray
from scipy.special import gammaln

from skae._pixels.edge_patterns import PATTERN_SIZES, PatternLeaves, pattern_leaves

Array = NDArray[Any]
Level = tuple[int, ...]

# Images with more pixels are divided into blocks, which bounds the memory.
_MOST_PIXELS = 2**20

# Prior count of each block of such an image, and of each of the largest boxes.
_PRIOR = 0.5

# The largest boxes have sides of at least this power of two in pixels, or the length of the image,
# and about so many counts.
_LEAST_DEPTH, _OF_ROOT = 7, 1000

# Values of each parameter of the prior that are compared; the first ones are the start.
_CHOICES = {"concentration": (4.0, 1.0, 16.0), "split": (0.7, 0.5, 0.85)}

# Smallest fraction of the exposure of a box in one of its halves, for the beta distribution.
_LEAST_FRACTION = 1e-12

# Size of the table of log Gamma.
_TABLE = 4096

# Pixels of the middle of an image on which priors are compared.
_COMPARED = 2**18


class PartitionPrior(NamedTuple):
    """Prior of the partitions."""

    split: float  # probability that a box is divided
    concentration: float  # of the beta distribution of halves of equal size, beta(c, c)


def partition_mean(
    counts: Array, exposure: Array, prior: PartitionPrior, shift: tuple[int, ...]
) -> tuple[Array, float]:
    """The posterior mean of the intensity over partitions whose grid begins `shift` pixels before.

    Parameters
    ----------
    counts, exposure : ndarray of shape `image_shape`
        Counts, or the sums of their weights, and the exposure of each pixel. Where the exposure is
        zero there are no counts.
    prior : PartitionPrior
    shift : tuple of int
        Number of pixels between the origin of the grid and the image, along each axis.

    Returns
    -------
    flux : ndarray of shape `image_shape`
        Probability of each pixel per unit of exposure: ``(flux * exposure).sum()`` is 1. On pixels
        without exposure it is that of the smallest box around them that has exposure.
    log_evidence : float
        Log marginal likelihood of the places of the counts, up to the sum of the log exposures at
        the counts, in nats.
    """
    if counts.size <= _MOST_PIXELS or max(counts.shape) == 1:
        return _Tree(counts, exposure, prior, shift).mean()
    axis = int(np.argmax(counts.shape))
    middle = counts.shape[axis] // 2
    parts = [
        partition_mean(part, of_part, prior, shift)
        for part, of_part in zip(
            np.split(counts, [middle], axis), np.split(exposure, [middle], axis), strict=True
        )
    ]
    n = np.array([half.sum() for half in np.split(counts, [middle], axis)])
    lit = np.array([bool(half.any()) for half in np.split(exposure, [middle], axis)])
    shares = np.where(lit, n + _PRIOR, 0)
    shares /= shares.sum()
    flux = np.concatenate([s * part[0] for s, part in zip(shares, parts, strict=True)], axis)
    nats = sum(part[1] for part in parts) + float((n[lit] * np.log(shares[lit])).sum())
    return flux, float(nats)


def halves(values: Array, axis: int) -> tuple[Array, Array]:
    """The left and the right halves of all boxes; a box without a neighbour gets an empty one."""
    if values.shape[axis] % 2:
        values = np.pad(values, [(0, int(a == axis)) for a in range(values.ndim)])
    left, right = (values[_every_second(half, axis, values.ndim)] for half in (0, 1))
    return left, right


def _every_second(first: int, axis: int, n_axes: int) -> tuple[slice, ...]:
    """The index of every second box along an axis."""
    return tuple(slice(first, None, 2) if a == axis else slice(None) for a in range(n_axes))


def _log_beta(a: Array, b: Array) -> Array:
    found: Array = gammaln(a) + gammaln(b) - gammaln(a + b)
    return found


def _log_gamma(n: Array, offset: float) -> Array:
    """log Gamma(n + offset), from a table if the numbers are small integers."""
    if n.size > _TABLE and n.max() < _TABLE:
        index = n.astype(np.intp)
        if (index == n).all():
            table: Array = gammaln(np.arange(_TABLE) + offset)
            return table[index]
    found: Array = gammaln(n + offset)
    return found


class _Division(NamedTuple):
    """The division of the boxes of a level along one axis."""

    axis: int
    log_likelihood: Array  # of the division and of the halves
    left: Array  # posterior mean of the share of the left half


class _Tree:
    """All boxes with sides of powers of two; level (a, b) has boxes of 2^a x 2^b pixels."""

    def __init__(
        self, counts: Array, exposure: Array, prior: PartitionPrior, shift: tuple[int, ...]
    ) -> None:
        self._prior = prior
        self._inner = tuple(slice(s, s + n) for s, n in zip(shift, counts.shape, strict=True))
        before = [(s, 0) for s in shift]
        zero: Level = (0,) * counts.ndim
        self._n = {zero: np.pad(counts, before)}
        self._volume = {zero: np.pad(exposure, before)}
        deepest = max(
            _LEAST_DEPTH, ceil(log2(_OF_ROOT * counts.size / max(counts.sum(), 1)) / counts.ndim)
        )
        depths = [min(ceil(log2(n)), deepest) for n in self._n[zero].shape]
        levels = product(*(range(depth + 1) for depth in depths))
        self._levels = sorted(levels, key=sum)
        for level in self._levels[1:]:
            axis = next(a for a, depth in enumerate(level) if depth)
            below = _below(level, axis)
            for values in (self._n, self._volume):
                left, right = halves(values[below], axis)
                values[level] = left + right
        self._patterns: dict[Level, PatternLeaves] = {}
        self._known: dict[tuple[Level, float], Array] = {}

    def mean(self) -> tuple[Array, float]:
        """The posterior mean of the intensity per exposure, and the log marginal likelihood."""
        log_phi: dict[Level, Array] = {}
        stops: dict[Level, Array] = {}
        divisions: dict[Level, list[tuple[_Division, Array]]] = {}
        split = self._prior.split
        for level in self._levels:
            leaf = self._log_leaf(level)
            axes = [a for a, depth in enumerate(level) if depth]
            if not axes:
                log_phi[level] = leaf
                continue
            found = [self._division(level, a, log_phi) for a in axes]
            ways = [leaf + log(1 - split)]
            ways += [d.log_likelihood + log(split / len(axes)) for d in found]
            top = np.maximum.reduce(ways)
            shares = [np.exp(way - top) for way in ways]
            total = sum(shares)
            log_phi[level] = top + np.log(total)
            stops[level] = shares[0] / total
            divisions[level] = [(d, s / total) for d, s in zip(found, shares[1:], strict=True)]
        root = self._levels[-1]
        n, of_roots = self._n[root], self._shares_of_roots()
        evidence = log_phi[root].sum() + (n * np.log(np.where(n > 0, of_roots, 1))).sum()
        return self._flux(stops, divisions)[self._inner], float(evidence)

    def _shares_of_roots(self) -> Array:
        """The shares of the largest boxes, which a large image has several of."""
        root = self._levels[-1]
        shares = np.where(self._volume[root] > 0, self._n[root] + _PRIOR, 0.0)
        return np.asarray(shares / shares.sum())

    def _log_leaf(self, level: Level) -> Array:
        """Log-likelihood of the counts in boxes that are not divided."""
        n, volume = self._n[level], self._volume[level]
        nats = np.where(n > 0, -n * np.log(np.where(n > 0, volume, 1)), 0.0)
        if len(level) == 2 and level[0] == level[1] and 2 ** level[0] in PATTERN_SIZES:
            zero = (0, 0)
            found = pattern_leaves(self._n[zero], self._volume[zero], 2 ** level[0])
            self._patterns[level] = found
            nats = nats + found.log_gain
        return nats

    def _division(self, level: Level, axis: int, log_phi: dict[Level, Array]) -> _Division:
        below, c = _below(level, axis), self._prior.concentration
        n_left, n_right = halves(self._n[below], axis)
        left, right = halves(self._volume[below], axis)
        both = (left > 0) & (right > 0)
        fraction = np.divide(left, left + right, out=np.full_like(left, 0.5), where=both)
        a = 2 * c * np.clip(fraction, _LEAST_FRACTION, 1 - _LEAST_FRACTION)
        mean = np.where(both, (n_left + a) / (n_left + n_right + 2 * c), (left > 0) * 1.0)
        share = sum(halves(self._log_gammas(below, c), axis), -self._log_gammas(level, 2 * c))
        share += gammaln(2 * c) - 2 * gammaln(c)
        share[~both] = 0
        uneven = both & (left != right)
        if uneven.any():
            a, b = a[uneven], 2 * c - a[uneven]
            share[uneven] = _log_beta(n_left[uneven] + a, n_right[uneven] + b) - _log_beta(a, b)
        return _Division(axis, sum(halves(log_phi[below], axis), share), mean)

    def _log_gammas(self, level: Level, offset: float) -> Array:
        """log Gamma of the counts of a level plus a number; both axes use them."""
        key = (level, offset)
        if key not in self._known:
            self._known[key] = _log_gamma(self._n[level], offset)
        return self._known[key]

    def _flux(
        self, stops: dict[Level, Array], divisions: dict[Level, list[tuple[_Division, Array]]]
    ) -> Array:
        """The intensity per exposure of all pixels, with the traces of all stops above them."""
        mass = {level: np.zeros_like(values) for level, values in self._n.items()}
        flux = {level: np.zeros_like(values) for level, values in self._n.items()}
        mass[self._levels[-1]][...] = self._shares_of_roots()
        patterned = np.zeros_like(self._n[self._levels[0]])
        for level in self._levels[::-1]:
            volume = self._volume[level]
            inverse = np.divide(1.0, volume, out=np.zeros_like(volume), where=volume > 0)
            stopped = mass[level] * stops.get(level, 1.0)
            if level in self._patterns:
                patterned += self._patterns[level].spread(stopped * inverse, patterned.shape)
            else:
                flux[level] += stopped * inverse
            for division, share in divisions.get(level, []):
                below = _below(level, division.axis)
                going = mass[level] * share
                for half, part in enumerate((division.left, 1 - division.left)):
                    at = _every_second(half, division.axis, len(level))
                    target = mass[below][at]
                    inside = tuple(slice(0, n) for n in target.shape)
                    target += (going * part)[inside]
                    # A half without exposure gets the intensity of the whole box.
                    empty = self._volume[below][at] == 0
                    if empty.any():
                        flux[below][at] += np.where(empty, (going * inverse)[inside], 0)
        for level in self._levels[:0:-1]:
            axis = next(a for a, depth in enumerate(level) if depth)
            finer = flux[_below(level, axis)]
            wide = np.repeat(flux[level], 2, axis=axis)
            finer += wide[tuple(slice(0, n) for n in finer.shape)]
        return flux[self._levels[0]] + patterned


def _below(level: Level, axis: int) -> Level:
    """The level whose boxes are the halves along an axis."""
    return tuple(depth - (a == axis) for a, depth in enumerate(level))


def best_prior(counts: Array, exposure: Array) -> PartitionPrior:
    """The prior with the largest marginal likelihood, of those with a choice of parameters."""
    middle = middle_of(counts.shape)
    counts, exposure = counts[middle], exposure[middle]
    best = PartitionPrior(_CHOICES["split"][0], _CHOICES["concentration"][0])
    if not counts.any():
        return best
    found: dict[PartitionPrior, float] = {}
    for name, values in _CHOICES.items():
        for prior in [best._replace(**{name: value}) for value in values]:
            if prior not in found:
                found[prior] = partition_mean(counts, exposure, prior, (0,) * counts.ndim)[1]
        best = max(found, key=lambda prior: found[prior])
    return best


def middle_of(shape: tuple[int, ...]) -> tuple[slice, ...]:
    """The middle of a large image."""
    lengths = list(shape)
    while prod(lengths) > _COMPARED:
        axis = int(np.argmax(lengths))
        lengths[axis] = -(-lengths[axis] // 2)
    return tuple(slice((n - m) // 2, (n + m) // 2) for n, m in zip(shape, lengths, strict=True))
