"""Gaussians that are reflected at the edges of a frame, so that no density is lost outside.

A count that would fall outside of the frame is folded back into it, as by a mirror. The density of
a component inside the frame is then the sum of the densities of its mirror images, and it
integrates to 1 over the frame. Along an axis of the frame [lo, hi] of length L, image m is

    x + m L for even m, and 2 lo + (m + 1) L - x for odd m.

Image 0 is the component itself. Only images that reach into the frame are used.
"""

from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from skae._mixture.gaussians import Gaussians, Prior, Statistics

Array = NDArray[Any]
Indices = NDArray[np.intp]

# An image is used if its density somewhere in the frame is at least exp(-30), or 1e-13, times its
# maximum: the squared distance in units of the variances.
_REACH = 60.0

# Largest |m| of an image, and the largest standard deviation of a component, in lengths of the
# frame. Wider components are uniform over the frame, up to 1e-8.
_MOST, _WIDEST = 17, 2.0


class Frame(NamedTuple):
    """The box in which counts are registered; it extends along the first axes."""

    lo: Array  # (n_axes,)
    hi: Array


class Images(NamedTuple):
    """Images of the components of a mixture; the first ones are the components themselves."""

    component: Indices  # (n_images,)
    turn: Indices  # (n_images, n_axes): m along each axis of the frame


def images_of(gaussians: Gaussians, frame: Frame, before: Images | None = None) -> Images:
    """The images that reach into the frame, after those of an earlier list.

    The positions in the earlier list do not change, so that images may be known by their position.
    """
    found = _reaching(limited_width(gaussians, frame), frame)
    first = before or Images(
        np.arange(len(gaussians.means)), np.zeros((len(gaussians.means), len(frame.lo)), np.intp)
    )
    new = ~np.isin(_keys(found, len(gaussians.means)), _keys(first, len(gaussians.means)))
    return Images(
        np.concatenate([first.component, found.component[new]]),
        np.concatenate([first.turn, found.turn[new]]),
    )


def limited_width(gaussians: Gaussians, frame: Frame) -> Gaussians:
    """The mixture, whose components are at most so wide that they are uniform over the frame."""
    variances = gaussians.variances()
    n_axes = len(frame.lo)
    ratio = np.ones_like(variances)
    ratio[:, :n_axes] = np.minimum(
        (_WIDEST * (frame.hi - frame.lo)) ** 2 / variances[:, :n_axes], 1
    )
    if ratio.min() == 1:
        return gaussians
    if gaussians.kind in ("full", "tied"):
        scale = np.sqrt(ratio)
        covariances = gaussians.full() * scale[:, :, None] * scale[:, None, :]
        return gaussians._replace(covariances=covariances, kind="full")
    return gaussians._replace(covariances=variances * ratio, kind="diag")


def _reaching(gaussians: Gaussians, frame: Frame) -> Images:
    n_components, n_axes = len(gaussians.means), len(frame.lo)
    variances = gaussians.variances()
    component = np.arange(n_components)
    turn = np.zeros((n_components, n_axes), dtype=np.intp)
    squared = np.zeros(n_components)
    for a in range(n_axes):
        lo, hi = frame.lo[a], frame.hi[a]
        furthest = (_REACH * variances[:, a].max()) ** 0.5 / (hi - lo)
        outside = max(lo - gaussians.means[:, a].min(), gaussians.means[:, a].max() - hi, 0.0)
        most = int(min(1 + furthest + outside / (hi - lo), _MOST))
        m = np.arange(-most, most + 1)
        sign, offset = _moves(m, lo, hi)
        mean = sign * gaussians.means[component, a, None] + offset
        away = np.maximum(np.maximum(lo - mean, mean - hi), 0)
        total = squared[:, None] + away**2 / variances[component, a, None]
        kept, place = np.nonzero(total <= _REACH)
        component, turn, squared = component[kept], turn[kept], total[kept, place]
        turn[:, a] = m[place]
    return Images(component, turn)


def _moves(turn: Indices, lo: Any, hi: Any) -> tuple[Array, Array]:
    """Sign and offset of images along an axis, for their m."""
    odd = turn % 2 == 1
    offset = np.where(odd, 2 * lo + (turn + 1) * (hi - lo), turn * (hi - lo))
    return np.where(odd, -1.0, 1.0), offset


def _keys(images: Images, n_components: int) -> Indices:
    key = images.component.copy()
    size = n_components
    for a in range(images.turn.shape[1]):
        key += size * (images.turn[:, a] + _MOST)
        size *= 2 * _MOST + 1
    return key


def _signs(images: Images, n_dims: int) -> Array:
    """1 or -1 for every image and every feature."""
    signs = np.ones((len(images.component), n_dims))
    signs[:, : images.turn.shape[1]] -= 2.0 * (images.turn % 2)
    return signs


def reflected(gaussians: Gaussians, images: Images, frame: Frame) -> Gaussians:
    """The mixture of the images. Covariances are matrices, or variances for diagonal kinds."""
    gaussians = limited_width(gaussians, frame)
    j, n_axes = images.component, len(frame.lo)
    n_same = _n_same(images)  # almost all images are the components themselves
    others = Images(j[n_same:], images.turn[n_same:])
    signs = _signs(others, gaussians.means.shape[1])
    means = gaussians.means[j]
    means[n_same:] *= signs
    means[n_same:, :n_axes] += _moves(others.turn, frame.lo, frame.hi)[1]
    if gaussians.kind in ("full", "tied"):
        covariances = gaussians.full()[j]
        covariances[n_same:] *= signs[:, :, None] * signs[:, None, :]
        return gaussians._replace(
            weights=gaussians.weights[j], means=means, covariances=covariances, kind="full"
        )
    return gaussians._replace(
        weights=gaussians.weights[j], means=means, covariances=gaussians.covariances[j]
    )


def gathered(stats: Statistics, images: Images, n_components: int) -> Statistics:
    """Statistics of the components, from those of their images."""
    others = Images(images.component[n_components:], images.turn[n_components:])
    signs = _signs(others, stats.first.shape[1])
    n, first, second = stats.n, stats.first, stats.second
    more = second[n_components:]
    if second.ndim == 3:
        more = more * signs[:, :, None] * signs[:, None, :]
    return stats._replace(
        n=_sums(n[:n_components], n[n_components:], others.component),
        first=_sums(first[:n_components], first[n_components:] * signs, others.component),
        second=_sums(second[:n_components], more, others.component),
    )


def _sums(values: Array, more: Array, component: Indices) -> Array:
    """The sums of values and of those of further images of the components."""
    total = values.copy()
    np.add.at(total, component, more)
    return total


def _n_same(images: Images) -> int:
    """The number of images, from the first on, that are the components themselves."""
    differ = images.turn.any(axis=1)
    differ |= images.component != np.arange(len(images.component))
    return int(differ.argmax()) if differ.any() else len(differ)


def folded(rows: Array, frame: Frame) -> Array:
    """Rows whose coordinates outside of the frame are folded back into it."""
    found = rows.copy()
    n_axes = len(frame.lo)
    length = frame.hi - frame.lo
    away = np.mod(rows[:, :n_axes] - frame.lo, 2 * length)
    found[:, :n_axes] = np.minimum(frame.lo + np.minimum(away, 2 * length - away), frame.hi)
    return found


def moved_inside(gaussians: Gaussians, prior: Prior, frame: Frame) -> tuple[Gaussians, Prior]:
    """The same reflected density, with all means inside of the frame."""
    n_axes = len(frame.lo)
    place = np.floor((gaussians.means[:, :n_axes] - frame.lo) / (frame.hi - frame.lo))
    place[gaussians.means[:, :n_axes] == frame.hi] = 0
    outside = np.flatnonzero(place.any(axis=1))
    if not len(outside):
        return gaussians, prior
    place = place[outside].astype(np.intp)
    images = Images(outside, np.where(place % 2 == 1, place, -place))
    inside = reflected(gaussians, images, frame)
    centres = reflected(gaussians._replace(means=prior.means), images, frame)
    means, prior_means = gaussians.means.copy(), prior.means.copy()
    means[outside], prior_means[outside] = inside.means, centres.means
    covariances = gaussians.covariances
    if gaussians.kind == "full":
        covariances = covariances.copy()
        covariances[outside] = inside.covariances
    return gaussians._replace(means=means, covariances=covariances), prior._replace(
        means=prior_means
    )
