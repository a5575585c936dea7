"""Orthogonal rotations of loadings to few large entries: varimax and quartimax.

With the rotated loadings L = W R, the criteria are

    quartimax: sum_dj L_dj^4,
    varimax:   sum_dj L_dj^4 - sum_j (sum_d L_dj^2)^2 / D.

Varimax is D times the sum of the variances of the squared entries of each column. Rows are not
normalised, as in scikit-learn. The rotation of a pair of columns by the angle phi changes the
criterion by a cosine of 4 phi, so that the best angle of a pair has a closed form. Sweeps over all
pairs increase the criterion until no angle changes, which is a stationary point.

References
----------
H. F. Kaiser (1958). The varimax criterion for analytic rotation in factor analysis.
Psychometrika 23(3), 187-200. :doi:`10.1007/BF02289233`
"""

from typing import Literal

import numpy as np
from numpy.typing import NDArray

Array = NDArray[np.float64]

_MAX_SWEEPS = 500
# The gradient at the end is about this fraction of the criterion.
_SMALLEST_ANGLE = 1e-8


def criterion_of(loadings: Array, method: Literal["varimax", "quartimax"]) -> float:
    """The criterion that the rotation maximises, of rotated loadings (D, k)."""
    squares = loadings**2
    peaks = float(np.sum(squares**2))
    if method == "quartimax":
        return peaks
    return peaks - float(np.sum(squares.sum(axis=0) ** 2)) / len(loadings)


def rotation_of(loadings: Array, method: Literal["varimax", "quartimax"]) -> Array:
    """Orthogonal matrix R (k, k) at which the criterion of `loadings` R is stationary.

    The columns of `loadings` R are in order of decreasing squared length, and the largest entry of
    each is positive. R may therefore include reflections.

    Parameters
    ----------
    loadings : ndarray of shape (n_features, n_factors)
        Loadings W.
    method : {'varimax', 'quartimax'}
        The criterion.

    Returns
    -------
    rotation : ndarray of shape (n_factors, n_factors)
    """
    size = float(np.max(np.abs(loadings), initial=0.0)) or 1.0
    rotated = np.ascontiguousarray(loadings.T) / size  # fourth powers neither overflow nor vanish
    rotation = np.eye(len(rotated))  # the transpose of R
    rounds = _rounds(len(rotated))
    for _ in range(_MAX_SWEEPS):
        largest = 0.0
        for first, second in rounds:
            angles = _best_angles(rotated[first], rotated[second], method)
            largest = max(largest, float(np.max(np.abs(angles))))
            for rows in (rotated, rotation):
                _turn(rows, first, second, angles)
        if largest < _SMALLEST_ANGLE:
            break
    rotated = rotation @ loadings.T
    highest = np.argmax(np.abs(rotated), axis=1)
    signs = np.where(rotated[np.arange(len(rotated)), highest] < 0, -1.0, 1.0)
    order = np.argsort(-np.sum(rotated**2, axis=1), kind="stable")
    return (rotation * signs[:, None])[order].T


def _rounds(n_factors: int) -> list[tuple[NDArray[np.intp], NDArray[np.intp]]]:
    """Rounds of disjoint pairs of factors, which contain every pair once (circle method)."""
    ring = np.arange(n_factors + n_factors % 2)
    half = len(ring) // 2
    rounds = []
    for _ in range(len(ring) - 1):
        first, second = ring[:half], ring[: half - 1 : -1]
        real = (first < n_factors) & (second < n_factors)
        if real.any():
            rounds.append((first[real], second[real]))
        ring = np.r_[ring[0], ring[-1], ring[1:-1]]
    return rounds


def _best_angles(x: Array, y: Array, method: Literal["varimax", "quartimax"]) -> Array:
    """Angles (p,) that maximise the criterion of p pairs of factors with loadings x, y (p, D).

    They are zero for pairs whose criterion does not depend on the angle, up to rounding errors.
    """
    u, v = x**2 - y**2, 2 * x * y
    sine, cosine = 2 * np.sum(u * v, axis=1), np.sum(u**2 - v**2, axis=1)
    if method == "varimax":
        a, b = u.sum(axis=1), v.sum(axis=1)
        sine -= 2 * a * b / x.shape[1]
        cosine -= (a**2 - b**2) / x.shape[1]
    rounding = 1e-13 * np.sum((x**2 + y**2) ** 2, axis=1)
    return np.where(np.hypot(sine, cosine) > rounding, np.arctan2(sine, cosine) / 4, 0.0)


def _turn(rows: Array, first: NDArray[np.intp], second: NDArray[np.intp], angles: Array) -> None:
    """Rotate p pairs of rows by angles (p,), in place."""
    c, s = np.cos(angles)[:, None], np.sin(angles)[:, None]
    x, y = rows[first], rows[second]
    rows[first], rows[second] = c * x + s * y, c * y - s * x
