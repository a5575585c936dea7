"""Gaussian posteriors of codes, as ellipses."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

if TYPE_CHECKING:
    from matplotlib.axes import Axes

Array = NDArray[Any]

# Ellipses of all points are drawn up to so many points; of more points a part.
_MOST_ELLIPSES = 150
_SOME_ELLIPSES = 80
# Points that the part is chosen from.
_CANDIDATES = 2000


def draw_ellipses(
    ax: Axes, points: Array, covariances: Array, colours: Array, n_std: float
) -> None:
    """Draw ellipses of so many standard deviations around points, or around some of many."""
    from matplotlib.patches import Ellipse

    for row in spread_points(points):
        variances, axes = np.linalg.eigh(covariances[row])
        width, height = 2 * n_std * np.sqrt(np.maximum(variances[::-1], 0.0))
        ax.add_patch(
            Ellipse(
                tuple(points[row]),
                width,
                height,
                angle=float(np.degrees(np.arctan2(axes[1, 1], axes[0, 1]))),
                fill=False,
                edgecolor=colours[row],
                linewidth=0.6,
                alpha=0.7,
            )
        )
    ax.autoscale_view()


def covariances_of(spread: Array) -> Array:
    """Covariances as they are; standard deviations of independent codes as covariances."""
    if spread.ndim == 3:
        return spread
    covariances: Array = spread[:, :, None] ** 2 * np.eye(spread.shape[1])
    return covariances


def spread_points(points: Array) -> NDArray[np.intp]:
    """All points if they are few, else some that are far from each other.

    Each point that is chosen is the one furthest from those chosen before; the first is the one
    nearest to the mean.
    """
    if len(points) <= _MOST_ELLIPSES:
        return np.arange(len(points))
    candidates = np.linspace(0, len(points) - 1, min(len(points), _CANDIDATES)).astype(np.intp)
    scale = points.std(axis=0)
    standard = (points[candidates] - points.mean(axis=0)) / np.where(scale > 0, scale, 1.0)
    chosen = [int((standard**2).sum(axis=1).argmin())]
    distance = ((standard - standard[chosen[0]]) ** 2).sum(axis=1)
    while len(chosen) < _SOME_ELLIPSES:
        chosen.append(int(distance.argmax()))
        distance = np.minimum(distance, ((standard - standard[chosen[-1]]) ** 2).sum(axis=1))
    return np.sort(candidates[chosen])
