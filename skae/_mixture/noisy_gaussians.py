"""Densities of noisy rows under Gaussians, and posteriors of the positions without the noise.

A row x = t + e is the sum of its true position t ~ N(mu, Sigma) and of noise e ~ N(0, S) with a
known covariance, so that x ~ N(mu, T) with T = Sigma + S. Given x, the true position has the mean
b = mu + Sigma T^-1 (x - mu) and the covariance B = Sigma - Sigma T^-1 Sigma.

All computations are in coordinates y = W (x - mu) in which the component is N(0, I), and in which

    T = I + W S W',    W (b - mu) = u = T^-1 y,    W B W' = I - T^-1.

T is then at least I, so that its inverse has no large entries. The differences above are accurate
also for thin components, for noise without any variance along some axes and for very large noise.

Arrays have the shape (n_blocks, n_candidates, n_members), because the last axis is the longest.
Each entry of a vector or a matrix is an array of its own (a plane), so that NumPy computes with
many rows and components in each call. Large matrices are given to LAPACK instead.

Bovy, Hogg and Roweis (2011). Extreme deconvolution. Annals of Applied Statistics 5(2B).
https://doi.org/10.1214/10-AOAS439
"""

from math import log, pi
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from skae._mixture.gaussians import Gaussians, Statistics
from skae._mixture.responsibilities import products

Array = NDArray[Any]
Indices = NDArray[np.intp]

# Number of dimensions up to which planes are faster than LAPACK.
MOST_PLANES = 12

# Noise is large if it is this many times the variance of a component along some axis, or if the
# product of the pivots may be larger than the second number.
_LARGE, _LARGEST_PRODUCT = 1e12, 1e300

# Smallest pivot of large noise, relative to the entry of T. Rounding errors of S are as large.
_ROUNDING = 1e-15


# ---------------------------------------------------------------------- the noise


class Noise(NamedTuple):
    """Covariances of noise, by the numbers in which they differ.

    There is one number if all covariances are multiples of the identity, one for each axis if they
    are diagonal, and otherwise one for each pair of axes a <= b.
    """

    numbers: Array  # (n_samples, n_numbers)
    n_dims: int

    @property
    def isotropic(self) -> bool:
        return self.numbers.shape[1] == 1

    @property
    def diagonal(self) -> bool:
        return self.numbers.shape[1] <= self.n_dims

    def matrices(self) -> Array:
        """The covariances as matrices, (n_samples, n_dims, n_dims)."""
        if self.diagonal:
            return self.numbers[:, :, None] * np.eye(self.n_dims)
        found = np.empty((len(self.numbers), self.n_dims, self.n_dims))
        for place, (a, b) in enumerate(products(self.n_dims)):
            found[:, a, b] = found[:, b, a] = self.numbers[:, place]
        return found

    def largest_variances(self) -> Array:
        """An upper bound on the largest variance along any axis for each row."""
        if self.diagonal:
            largest: Array = self.numbers.max(axis=1)
            return largest
        if self.n_dims == 2:
            a, b, c = self.numbers.T
            return (a + c) / 2 + np.hypot((a - c) / 2, b)
        bound: Array = np.abs(self.matrices()).sum(axis=2).max(axis=1)
        return bound


def noise_of(covariances: Array) -> Noise:
    """The noise with these covariances (n_samples, n_dims, n_dims)."""
    n_dims = covariances.shape[1]
    pairs = products(n_dims)
    if any(covariances[:, a, b].any() for a, b in pairs if a != b):
        return Noise(np.stack([covariances[:, a, b] for a, b in pairs], axis=1), n_dims)
    variances = np.diagonal(covariances, axis1=1, axis2=2)
    equal = (variances == variances[:, :1]).all()
    return Noise((variances[:, :1] if equal else variances).copy(), n_dims)


# ----------------------------------------------------------------- the components


class Frames(NamedTuple):
    """The coordinates y = W (x - mu) of the components, in which they are N(0, I)."""

    constant: Array  # log of w_j rho_j(mu_j) without noise, (n_components,)
    to: Array  # W, (n_components, n_dims, n_dims)
    back: Array  # W^-1
    used: NDArray[np.bool_]  # (n_dims, n_dims): the entries of W that are not 0 by construction
    of_noise: Array  # (n_components, n_entries, n_numbers): W S W' is linear in the numbers of S
    entries: list[tuple[int, int]]  # the entries a <= b of W S W' that are not 0 by construction
    large_noise: (
        bool  # whether rounding errors of T may exceed 1, or the product of pivots overflow
    )


def frames(gaussians: Gaussians, noise: Noise, largest_variance: float) -> Frames:
    """The coordinates in which the components are N(0, I).

    If both are possible, W S W' is diagonal: with isotropic noise, the axes of the coordinates are
    those of the components.
    """
    n_components, n_dims = gaussians.means.shape
    axes = np.arange(n_dims)
    used = np.eye(n_dims, dtype=bool)
    if gaussians.kind in ("diag", "spherical"):
        deviations = np.sqrt(gaussians.variances())
        back, to = np.zeros((2, n_components, n_dims, n_dims))
        back[:, axes, axes], to[:, axes, axes] = deviations, 1 / deviations
        is_diagonal = noise.diagonal
    elif noise.isotropic and n_dims > 1:
        values, vectors = np.linalg.eigh(gaussians.full())
        deviations = np.sqrt(np.maximum(values, values[:, -1:] * np.finfo(float).eps))
        back = vectors * deviations[:, None, :]
        to = (vectors / deviations[:, None, :]).swapaxes(1, 2)
        used, is_diagonal = np.ones_like(used), True
    else:
        back = np.linalg.cholesky(gaussians.full())
        deviations = np.diagonal(back, axis1=1, axis2=2)
        to = _inverse_of_triangles(back)
        used, is_diagonal = np.tri(n_dims, dtype=bool), n_dims == 1
    log_det = 2 * np.log(deviations).sum(axis=1)
    constant = gaussians.log_weights() - (log_det + n_dims * log(2 * pi)) / 2
    entries = [(a, a) for a in range(n_dims)] if is_diagonal else products(n_dims)
    spread = float((to**2).sum(axis=(1, 2)).max()) * largest_variance
    with np.errstate(over="ignore"):
        large = spread > _LARGE or bool(np.float64(1 + spread) ** n_dims > _LARGEST_PRODUCT)
    return Frames(constant, to, back, used, _of_noise(to, noise, entries), entries, large)


def _of_noise(to: Array, noise: Noise, entries: list[tuple[int, int]]) -> Array:
    """Coefficients of the entries of W S W' in the numbers of S."""
    n_dims = noise.n_dims
    found = np.zeros((len(to), len(entries), noise.numbers.shape[1]))
    for place, (a, b) in enumerate(entries):
        if noise.diagonal:
            terms = to[:, a] * to[:, b]
            found[:, place] = terms.sum(axis=1, keepdims=True) if noise.isotropic else terms
            continue
        for number, (c, d) in enumerate(products(n_dims)):
            found[:, place, number] = to[:, a, c] * to[:, b, d]
            if c != d:
                found[:, place, number] += to[:, a, d] * to[:, b, c]
    return found


def _inverse_of_triangles(lower: Array) -> Array:
    found = np.zeros_like(lower)
    for a in range(lower.shape[1]):
        found[:, a, a] = 1 / lower[:, a, a]
        if a:
            row = (lower[:, a, None, :a] @ found[:, :a, :a])[:, 0]
            found[:, a, :a] = -row / lower[:, a, a, None]
    return found


def statistics_of_sums(
    n: Array, first: Array, second: Array, frames: Frames, gaussians: Gaussians
) -> Statistics:
    """Statistics of true positions.

    Parameters
    ----------
    n : ndarray of shape (n_components,)
        Sums of responsibilities r.
    first : ndarray of shape (n_components, n_dims)
        Sums of r u.
    second : ndarray of shape (n_components, n_dims, n_dims)
        Sums of r (u u' - T^-1). For Gaussians with diagonal covariances, only the diagonals are
        used.
    """
    axes = np.arange(first.shape[1])
    second = second.copy()
    second[:, axes, axes] += n[:, None]
    if gaussians.kind in ("diag", "spherical"):
        deviations = frames.back[:, axes, axes]
        return Statistics(n, deviations * first, deviations**2 * second[:, axes, axes])
    first = (frames.back @ first[:, :, None])[:, :, 0]
    second = frames.back @ second @ frames.back.swapaxes(1, 2)
    second = (second + second.swapaxes(1, 2)) / 2
    return Statistics(n, first, second.sum(axis=0) if gaussians.kind == "tied" else second)


# ------------------------------------------------------------- densities, posteriors


class Planes(NamedTuple):
    """Posteriors of true positions in the coordinates of the components, by planes."""

    u: list[Array]  # T^-1 y, one plane for each axis
    inverse: dict[tuple[int, int], Array]  # -T^-1, entries a <= b that are not 0 everywhere

    def sums(self, responsibility: Array, pairs: list[tuple[int, int]]) -> Array:
        """Sums of r, r u and the entries `pairs` of r (u u' - T^-1) over the rows of each block.

        The result has the shape (1 + n_dims + n_pairs, n_blocks, n_candidates).
        """
        n_dims = len(self.u)
        found = np.empty((1 + n_dims + len(pairs), *responsibility.shape[:2]))
        found[0] = responsibility.sum(axis=2)
        weighted = [responsibility * u for u in self.u]
        for a in range(n_dims):
            found[1 + a] = weighted[a].sum(axis=2)
        for place, (a, b) in enumerate(pairs, 1 + n_dims):
            found[place] = np.einsum("mjr,mjr->mj", weighted[a], self.u[b])
            if (a, b) in self.inverse:
                found[place] += np.einsum("mjr,mjr->mj", responsibility, self.inverse[a, b])
        return found


class Matrices(NamedTuple):
    """Posteriors of true positions in the coordinates of the components, by matrices."""

    u: Array  # T^-1 y, (n_blocks, n_candidates, n_members, n_dims)
    inverse: Array  # T^-1, (n_blocks, n_candidates, n_members, n_dims, n_dims)

    def sums(self, responsibility: Array, pairs: list[tuple[int, int]]) -> Array:
        """The same as of `Planes`."""
        n_dims = self.u.shape[-1]
        found = np.empty((1 + n_dims + len(pairs), *responsibility.shape[:2]))
        found[0] = responsibility.sum(axis=2)
        weighted = responsibility[..., None] * self.u
        found[1 : 1 + n_dims] = np.moveaxis(weighted.sum(axis=2), -1, 0)
        second = weighted.swapaxes(2, 3) @ self.u
        flat = self.inverse.reshape(*responsibility.shape, n_dims**2)
        second -= (responsibility[:, :, None] @ flat).reshape(second.shape)
        for place, (a, b) in enumerate(pairs, 1 + n_dims):
            found[place] = second[..., a, b]
        return found


def joint(
    x: Array, numbers: Array, means: Array, frames: Frames, candidates: Indices, *, whole: bool
) -> tuple[Array, Planes | Matrices]:
    """log w_j N(x; mu_j, T), and the posteriors of true positions if `whole` is True.

    Parameters
    ----------
    x : ndarray of shape (n_blocks, n_dims, n_members)
    numbers : ndarray of shape (n_blocks, n_numbers, n_members)
        The numbers of the noise.
    means : ndarray of shape (n_components, n_dims)
    frames : Frames
    candidates : ndarray of shape (n_blocks, n_candidates)
        The components of each block.
    whole : bool
        Whether posteriors are computed, too.
    """
    y = _in_frames(x, means, frames, candidates)
    planes = _noise_in_frames(numbers, frames, candidates)
    n_dims = len(y)
    posterior: Planes | Matrices
    if len(frames.entries) == n_dims:
        value, posterior = _diagonal(y, planes, frames)
    elif n_dims <= MOST_PLANES:
        value, posterior = _swept(y, planes, frames, whole)
    else:
        value, posterior = _by_lapack(y, planes, frames)
    value *= -0.5
    value += frames.constant[candidates][:, :, None]
    return value, posterior


def _in_frames(x: Array, means: Array, frames: Frames, candidates: Indices) -> list[Array]:
    """y = W (x - mu)"""
    n_dims = x.shape[1]
    centred = []
    for a in range(n_dims):
        centred.append(x[:, a, None, :] - means[:, a][candidates][:, :, None])
    found = []
    for a in range(n_dims):
        total = None
        for b in np.flatnonzero(frames.used[a]):
            part = frames.to[:, a, b][candidates][:, :, None] * centred[b]
            total = part if total is None else np.add(total, part, out=total)
        assert total is not None
        found.append(total)
    return found


def _noise_in_frames(
    numbers: Array, frames: Frames, candidates: Indices
) -> dict[tuple[int, int], Array]:
    """The entries of T = I + W S W'."""
    n_numbers, n_dims = numbers.shape[1], len(frames.used)
    found = {}
    for place, (a, b) in enumerate(frames.entries):
        factors = frames.of_noise[:, place][candidates]
        if n_numbers == 1:
            plane = factors * numbers
        elif len(frames.entries) == n_dims:  # noise and components are diagonal
            plane = factors[:, :, a, None] * numbers[:, None, a]
        else:
            plane = factors @ numbers
        if a == b:
            plane += 1
        found[a, b] = plane
    return found


def _diagonal(
    y: list[Array], planes: dict[tuple[int, int], Array], frames: Frames
) -> tuple[Array, Planes]:
    """(y' T^-1 y + log |T|, posteriors) for diagonal T; the inverse takes the place of T."""
    squared, log_det = np.zeros_like(y[0]), _LogProduct(frames.large_noise)
    for a, of_axis in enumerate(y):
        pivot = planes[a, a]
        log_det.take(pivot)
        part = of_axis * of_axis
        np.divide(part, pivot, out=part)
        squared += part
        np.divide(of_axis, pivot, out=of_axis)
        np.divide(-1, pivot, out=pivot)
    squared += log_det.value()
    return squared, Planes(y, planes)


def _swept(
    y: list[Array], planes: dict[tuple[int, int], Array], frames: Frames, whole: bool
) -> tuple[Array, Planes]:
    """(y' T^-1 y + log |T|, posteriors) by symmetric sweeps, in the place of y and of T.

    Sweeping an axis replaces T by -T^-1, as far as it concerns this axis (Gauss-Jordan
    elimination). If the posteriors are not needed, the axes before are not updated.
    """
    n_dims = len(y)
    squared, log_det = np.zeros_like(y[0]), _LogProduct(frames.large_noise)
    least = [_ROUNDING * planes[a, a] for a in range(n_dims)] if frames.large_noise else []
    part = np.empty_like(squared)
    for k in range(n_dims):
        # The pivot is the variance of y_k given the axes before, which is at least 1. It is smaller
        # only because of rounding, for noise that is large along an oblique axis.
        pivot = np.maximum(planes[k, k], 1, out=planes[k, k])
        if least:
            np.maximum(pivot, least[k], out=pivot)
        log_det.take(pivot)
        inverse = 1 / pivot
        solved = y[k] * inverse
        np.multiply(solved, y[k], out=part)
        squared += part
        others = [a for a in range(0 if whole else k + 1, n_dims) if a != k]
        columns = {a: planes[min(a, k), max(a, k)] for a in others}
        scaled = {}
        for a in others:
            np.multiply(columns[a], solved, out=part)
            y[a] -= part
            scaled[a] = columns[a] * inverse
            for b in others:
                if b >= a:
                    np.multiply(scaled[a], columns[b], out=part)
                    planes[a, b] -= part
        for a in others:
            planes[min(a, k), max(a, k)] = scaled[a]
        y[k] = solved
        planes[k, k] = np.negative(inverse, out=inverse)
    squared += log_det.value()
    return squared, Planes(y, planes)


class _LogProduct:
    """The log of a product of planes, without overflow."""

    def __init__(self, adds_logs: bool) -> None:
        self._adds_logs = adds_logs
        self._total: Array | None = None

    def take(self, pivot: Array) -> None:
        part = np.log(pivot) if self._adds_logs else pivot
        if self._total is None:
            self._total = part.copy()
        elif self._adds_logs:
            self._total += part
        else:
            self._total *= part

    def value(self) -> Array:
        assert self._total is not None
        return self._total if self._adds_logs else np.log(self._total, out=self._total)


def _by_lapack(
    y: list[Array], planes: dict[tuple[int, int], Array], frames: Frames
) -> tuple[Array, Matrices]:
    """(y' T^-1 y + log |T|, posteriors) of many dimensions."""
    n_dims = len(y)
    matrices = np.empty((*y[0].shape, n_dims, n_dims))
    for (a, b), plane in planes.items():
        matrices[..., a, b] = matrices[..., b, a] = plane
    away = np.stack(y, axis=-1)
    if frames.large_noise:
        values, axes = np.linalg.eigh(matrices)
        values = np.maximum(np.maximum(values, 1), _ROUNDING * values[..., -1:])
        log_det = np.log(values).sum(axis=-1)
        inverse = (axes / values[..., None, :]) @ axes.swapaxes(-1, -2)
    else:
        log_det = np.linalg.slogdet(matrices)[1]
        inverse = np.linalg.inv(matrices)
    u = (inverse @ away[..., None])[..., 0]
    return np.einsum("mjra,mjra->mjr", away, u) + log_det, Matrices(u, inverse)
