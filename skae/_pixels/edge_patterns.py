"""Patterns of the intensity within a square of pixels: edges in all directions, and slopes.

The likelihood of the counts in a square is a mean over all patterns, each with the same prior
probability. An edge has a direction, a position, and a ratio of the intensities on its two sides;
a slope has a direction and a ratio of the intensities at its ends. These are the leaves of
wedgelets and platelets, in a posterior mean in place of the best one.

References
----------
D. L. Donoho (1999). Wedgelets: nearly minimax estimation of edges. Annals of Statistics 27(3),
859-897. :doi:`10.1214/aos/1018031261`

R. M. Willett and R. D. Nowak (2003). Platelets: a multiscale approach for recovering edges and
surfaces in photon-limited medical imaging. IEEE Transactions on Medical Imaging 22(3), 332-350.
:doi:`10.1109/TMI.2003.809622`
"""

from functools import cache
from math import log, pi
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

Array = NDArray[Any]

# Sides of the squares, in pixels.
PATTERN_SIZES = (8, 16)

# Prior probability of a pattern, in place of a constant intensity.
_SHARE = 0.5

# Number of directions in a half turn; ratios of intensities at edges; logarithms of the ratios at
# the ends of slopes; and the width of an edge in pixels, because pixels integrate over it.
_N_DIRECTIONS = 16
_RATIOS = (1.2, 1.4, 2.0, 4.0)
_SLOPES = (0.25, 0.5, 1.0, 2.0)
_WIDTH = 0.25

# Fewest counts in a square from which the likelihood needs double precision.
_MOST_IN_SINGLE = 1e5

# Numbers (squares x patterns) that are computed at a time.
_CHUNK = 2**20


@cache
def patterns(side: int) -> Array:
    """All patterns of a square, (n_patterns, side**2), with mean 1."""
    place = np.arange(side) + 0.5 - side / 2
    y, x = np.meshgrid(place, place, indexing="ij")
    found = []
    for k in range(2 * _N_DIRECTIONS):
        angle = pi * k / _N_DIRECTIONS
        along = np.cos(angle) * x + np.sin(angle) * y
        for position in np.arange(1 - side / 2, side / 2):
            beyond = 1 / (1 + np.exp((position - along) / _WIDTH))
            found += [1 + (ratio - 1) * beyond for ratio in _RATIOS]
        found += [np.exp(slope * along / side) for slope in _SLOPES]
    values = np.array(found).reshape(len(found), -1)
    values /= values.mean(axis=1, keepdims=True)
    values.setflags(write=False)
    return values


class PatternLeaves(NamedTuple):
    """What the patterns of the squares of an image tell."""

    log_gain: Array  # (n_rows, n_columns): log-likelihood, less that of a constant intensity
    shape: Array  # (n_squares with counts, side**2): mean pattern, of mean 1 over the exposure
    where: Array  # indices of these squares
    side: int

    def spread(self, level: Array, shape: tuple[int, ...]) -> Array:
        """An image of `shape` from the intensity level of each square."""
        side = self.side
        squares = np.repeat(level.reshape(-1, 1), side * side, axis=1)
        squares[self.where] *= self.shape
        rows, columns = level.shape
        tiles = squares.reshape(rows, columns, side, side).swapaxes(1, 2)
        image = tiles.reshape(rows * side, columns * side)
        return image[: shape[0], : shape[1]]


def pattern_leaves(counts: Array, exposure: Array, side: int) -> PatternLeaves:
    """Compare the counts in all squares with all patterns.

    Parameters
    ----------
    counts, exposure : ndarray of shape (height, width)
    side : int
        Side of a square in pixels. Squares begin at multiples of it.
    """
    n, rows_of = _squares(counts, side)
    exposures, _ = _squares(exposure, side)
    where = np.flatnonzero(n.any(axis=1))
    log_gain, mean = np.zeros(len(n)), np.empty((len(where), side * side))
    dtype = np.float32 if n.sum(axis=1).max() < _MOST_IN_SINGLE else np.float64
    every = patterns(side).astype(dtype)
    logs = np.log(every).T
    step = max(1, _CHUNK // len(every))
    for begin in range(0, len(where), step):
        part = where[begin : begin + step]
        nats = n[part].astype(dtype) @ logs
        seen: Array | None = None
        if (exposures[part] != exposures[part, :1]).any():
            # Mean of each pattern over the exposure; otherwise it is 1.
            e: Array = exposures[part].astype(dtype)
            seen = (e @ every.T) / e.sum(axis=1, keepdims=True)
            nats -= n[part].sum(axis=1, keepdims=True).astype(dtype) * np.log(seen)
        top = nats.max(axis=1, keepdims=True)
        nats -= top
        np.exp(nats, out=nats)
        total = nats.sum(axis=1, keepdims=True)
        gain = np.log(total / len(every)) + top
        together = np.logaddexp(log(1 - _SHARE), log(_SHARE) + gain)
        log_gain[part] = together[:, 0]
        share = np.exp(log(_SHARE) + gain - together)
        nats *= share / total
        if seen is not None:
            nats /= seen
        mean[begin : begin + step] = 1 - share + nats @ every
    return PatternLeaves(log_gain.reshape(rows_of), mean, where, side)


def _squares(image: Array, side: int) -> tuple[Array, tuple[int, int]]:
    """The squares of an image, (n_squares, side**2), and their numbers along both axes."""
    height, width = image.shape
    padded = np.pad(image, [(0, -height % side), (0, -width % side)])
    rows, columns = padded.shape[0] // side, padded.shape[1] // side
    squares = padded.reshape(rows, side, columns, side).swapaxes(1, 2)
    return squares.reshape(-1, side * side), (rows, columns)
