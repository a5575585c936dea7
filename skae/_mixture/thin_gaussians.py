"""Masses on pixels of Gaussians that are much narrower than a pixel along some direction.

In two dimensions, the mass of a rectangle is a double difference of the bivariate normal
distribution function, which is computed exactly with Owen's T function. In three dimensions, this
is integrated numerically over one axis, in pieces that suit the integrand. The amount of work does
not depend on the widths of the Gaussians.

References
----------
D. B. Owen (1956). Tables for computing bivariate normal probabilities. Annals of Mathematical
Statistics 27, 1075-1090. :doi:`10.1214/aoms/1177728074`
"""

from math import pi
from typing import Any

import numpy as np
from numpy.typing import NDArray
from scipy.special import owens_t

Array = NDArray[Any]

# Number of standard deviations beyond which the density is negligible.
_FAR = 8.5

# Number of quadrature nodes in each piece, largest length of a piece in pixels, and the width of a
# turn of the integrand below which pieces end at the following numbers of widths around the turn.
_NODES, _LONGEST, _TURNS = 12, 0.5, 0.3
_AROUND = np.array([-8.0, -5.0, -2.5, 0.0, 2.5, 5.0, 8.0])

# Variance that rounding errors can cause, relative to the other variances of a covariance.
_LEAST = float(np.finfo(float).eps)

# Number of corners of pixels that are computed at a time.
_CORNERS = 2**17


def reaches(
    means: Array, variances: Array, axes: Array, origins: Array, side: float
) -> NDArray[np.bool_]:
    """Whether Gaussians have mass on boxes, from distances along their principal axes.

    Parameters
    ----------
    means, origins : ndarray of shape (n_pairs, n_dims)
    variances : ndarray of shape (n_pairs, n_dims)
        Eigenvalues of the covariances.
    axes : ndarray of shape (n_pairs, n_dims, n_dims)
        Eigenvectors of the covariances, as columns.
    side : float
        Length of the sides of the boxes.
    """
    away = np.abs(np.einsum("pa,pak->pk", origins + side / 2 - means, axes))
    half = np.abs(axes).sum(axis=1) * side / 2  # half of the extent of the box along each axis
    return (away <= half + _FAR * np.sqrt(np.maximum(variances, 0))).all(axis=1)


def rectangle_masses(x: Array, y: Array, covariance: Array) -> Array:
    """Masses of bivariate Gaussians of mean 0 on a grid of rectangles.

    Parameters
    ----------
    x : ndarray of shape (..., n_x + 1)
        Edges along the first axis.
    y : ndarray of shape (..., n_y + 1)
        Edges along the second.
    covariance : ndarray of shape (..., 2, 2)

    Returns
    -------
    masses : ndarray of shape (..., n_x, n_y)
    """
    var_x, var_y = covariance[..., 0, 0, None, None], covariance[..., 1, 1, None, None]
    cross = covariance[..., 0, 1, None, None]
    x, y = x[..., :, None], y[..., None, :]
    corners = _owen(x, y, var_x, var_y, cross) + _owen(y, x, var_y, var_x, cross)
    corners += np.where((x < 0) != (y < 0), 0.5, 0.0)
    # The other terms of the distribution function depend on one axis only, and cancel.
    masses = np.diff(np.diff(-corners, axis=-2), axis=-1)
    return np.maximum(masses, 0)


def _owen(x: Array, y: Array, var_x: Array, var_y: Array, cross: Array) -> Array:
    """T(h, a) with h = x / sd_x and a h = (y - E[y|x]) / sd_y|x.

    At x = y = 0, a depends on the direction of the limit. The values for both orders of x and y
    are chosen so that they add up along the diagonal x / sd_x = y / sd_y.
    """
    given = np.maximum(var_y - cross * (cross / var_x), _LEAST * var_y)
    h = np.clip(x / np.sqrt(var_x), -40, 40)
    h = np.where(h == 0, 1e-300, h)
    with np.errstate(over="ignore"):
        a = (y - cross / var_x * x) / np.sqrt(given) / h
    at_mean = (np.sqrt(var_y) - cross / np.sqrt(var_x)) / np.sqrt(given)
    return owens_t(h, np.where((x == 0) & (y == 0), at_mean, a))


def thin_masses(means: Array, covariances: Array, origins: Array, side: int) -> Array:
    """Masses of Gaussians on the pixels of tiles.

    Parameters
    ----------
    means : ndarray of shape (n_pairs, n_dims)
    covariances : ndarray of shape (n_pairs, n_dims, n_dims)
    origins : ndarray of shape (n_pairs, n_dims)
        Lowest corners of the tiles; of two or three axes.
    side : int
        Pixels along each axis of a tile.

    Returns
    -------
    masses : ndarray of shape (n_pairs, side, ...)
    """
    edges = (origins - means)[:, :, None] + np.arange(side + 1)
    if edges.shape[1] == 2:
        return rectangle_masses(edges[:, 0], edges[:, 1], covariances)
    pairs = zip(edges, covariances, strict=True)
    return np.array([_volume_masses(*pair) for pair in pairs]).reshape(-1, side, side, side)


def _volume_masses(edges: Array, covariance: Array) -> Array:
    """Masses of a Gaussian of mean 0 on voxels, (side, side, side), by edges (3, side + 1).

    The axis along which the density changes most slowly, given the others, is integrated
    numerically.
    """
    side = edges.shape[1] - 1
    values, axes = np.linalg.eigh(covariance)
    values = np.maximum(values, _LEAST * values[-1])
    first = int((axes**2 / values).sum(axis=1).argmin())
    rest = [a for a in range(3) if a != first]
    variance = covariance[first, first]
    slope = covariance[rest, first] / variance
    given = covariance[np.ix_(rest, rest)] - np.outer(slope, covariance[rest, first])
    given[[0, 1], [0, 1]] = np.maximum(np.diag(given), _LEAST * values[-1])
    masses = np.zeros((side, side, side))
    cuts = _cuts(edges[first], edges[rest], variance, slope, given)
    node, node_weight = np.polynomial.legendre.leggauss(_NODES)
    voxel = np.searchsorted(edges[first], (cuts[:-1] + cuts[1:]) / 2) - 1
    step = max(1, _CORNERS // (_NODES * (side + 1) ** 2))
    for begin in range(0, len(voxel), step):
        low, high = cuts[begin : begin + step + 1][:-1], cuts[begin : begin + step + 1][1:]
        half = (high - low)[:, None] / 2
        place = (low[:, None] + half * (node + 1)).ravel()
        density = np.exp(-(place**2) / variance / 2) / np.sqrt(2 * pi * variance)
        density *= (half * node_weight).ravel()
        along = edges[rest][:, None] - slope[:, None, None] * place[:, None]
        part = density[:, None, None] * rectangle_masses(along[0], along[1], given)
        part = part.reshape(-1, _NODES, side, side).sum(axis=1)
        np.add.at(masses, voxel[begin : begin + step], part)
    return np.moveaxis(masses, 0, first)


def _cuts(edges: Array, others: Array, variance: float, slope: Array, given: Array) -> Array:
    """Positions to cut the first axis so that the integrand is smooth in each piece.

    The integrand turns at three kinds of positions: at the mean; where the mean of another axis,
    given the first, is at an edge; and where the mean of another axis, given the first and an edge
    of the third, is at an edge. These are the terms of the derivative of a bivariate distribution
    function.
    """
    reach = _FAR * np.sqrt(variance)
    low, high = max(edges[0], -reach), min(edges[-1], reach)
    if not low < high:
        return np.zeros(1)
    centres, widths = [np.zeros(1)], [np.sqrt([variance])]
    with np.errstate(divide="ignore", invalid="ignore", over="ignore"):
        for b, c in ((0, 1), (1, 0)):
            crossing, width = others[b] / slope[b], np.sqrt(given[b, b]) / abs(slope[b])
            centres.append(crossing)
            widths.append(np.full(len(crossing), width))
            pull = given[b, c] / given[b, b]
            turn = slope[c] - pull * slope[b]
            deviation = np.sqrt(max(given[c, c] - pull * given[b, c], 0))
            corner = (others[c] - pull * others[b][:, None]) / turn
            near = np.abs(others[b][:, None] - slope[b] * corner) < _FAR * np.sqrt(given[b, b])
            centres.append(corner[near])
            widths.append(np.full(near.sum(), deviation / abs(turn)))
        centre, width = np.concatenate(centres), np.concatenate(widths)
        narrow = (width < _TURNS) & (np.abs(centre) < np.inf)
        cuts = centre[narrow, None] + width[narrow, None] * _AROUND
    even = np.arange(edges[0], edges[-1] + _LONGEST / 2, _LONGEST)
    cuts = np.concatenate([cuts.ravel(), even, [low, high]])
    return np.unique(np.clip(cuts, low, high))
