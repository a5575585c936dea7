"""Gaussian components of a mixture: densities, sufficient statistics and updates.

The mixture is sum_j w_j rho_j(x) with rho_j = N(mu_j, Sigma_j). The prior on the parameters of a
component has the weight of nu rows with the initial mean m_j of the component and with a covariance
Psi_j. Psi_j has its own variances v_j and the correlations C of all rows:

    log p(theta) = -nu / 2 sum_j (tr(Psi_j Sigma_j^-1) - log |Psi_j Sigma_j^-1| - d
                                  + (mu_j - m_j)' Sigma_j^-1 (mu_j - m_j)),

The maximum of the log prior is 0. For Gaussians with diagonal covariances, Psi_j is diagonal, too.
"""

from math import log, pi
from types import ModuleType
from typing import Any, Literal, NamedTuple

import numpy as np
from numpy.typing import NDArray
from scipy import linalg

from skae._mixture.compiled import kernels
from skae._mixture.component_search import Reach

# Matrices up to this size are inverted by one call for all of them.
_SMALL = 8

# Rounding error of log densities if no covariance is ill-conditioned.
_ROUNDING = 1e-9

# Smallest eigenvalue of a covariance, relative to an upper bound on the largest eigenvalue.
_LEAST_CONDITION = 1e-12

# A mixture of many components has at least so many rows for each.
_LEAST_ROWS = 4

Array = NDArray[Any]
Kind = Literal["spherical", "diag", "tied", "full"]


class Gaussians(NamedTuple):
    """A mixture of Gaussians, in float64."""

    weights: Array  # (n_components,)
    means: Array  # (n_components, n_dims)
    covariances: Array  # shape depends on the kind, as in GaussianMixture of scikit-learn
    kind: Kind
    background: float = 0.0  # fraction of the recorded rows that belong to no component

    def full(self) -> Array:
        """The covariances as matrices, (n_components, n_dims, n_dims)."""
        n_components, n_dims = self.means.shape
        match self.kind:
            case "full":
                return self.covariances
            case "tied":
                return np.broadcast_to(self.covariances, (n_components, n_dims, n_dims))
            case "diag":
                return self.covariances[:, :, None] * np.eye(n_dims)
        return self.covariances[:, None, None] * np.eye(n_dims)

    def variances(self) -> Array:
        """The variance of every feature in every component, (n_components, n_dims)."""
        match self.kind:
            case "full":
                return np.diagonal(self.covariances, axis1=1, axis2=2)
            case "tied":
                return np.broadcast_to(np.diag(self.covariances), self.means.shape)
            case "diag":
                return self.covariances
        return np.broadcast_to(self.covariances[:, None], self.means.shape)

    def log_weights(self) -> Array:
        with np.errstate(divide="ignore"):
            return np.log(self.weights)

    def chosen(self, index: Any) -> "Gaussians":
        """A mixture with only some of the components, in the given order."""
        covariances = self.covariances if self.kind == "tied" else self.covariances[index]
        return self._replace(
            weights=self.weights[index], means=self.means[index], covariances=covariances
        )

    def draw(self, component: NDArray[np.intp], rng: np.random.RandomState) -> Array:
        """Draw a row from each of these components."""
        away = rng.standard_normal((len(component), self.means.shape[1]))
        if self.kind in ("full", "tied"):
            factors = np.linalg.cholesky(self.covariances)
            factors = factors[component] if self.kind == "full" else factors
            away = np.einsum("...ab,...b->...a", factors, away)
        else:
            away *= np.sqrt(self.variances()[component])
        return self.means[component] + away

    def moments_with(self, n: float, rows: Array, weight: Array) -> tuple[Array, Array]:
        """Mean and variances of the features of rows and the mixture, which counts as `n` rows."""
        total = n + weight.sum()
        mean = (n * (self.weights @ self.means) + weight @ rows) / total
        squares = n * (self.weights @ (self.variances() + (self.means - mean) ** 2))
        return mean, (squares + weight @ (rows - mean) ** 2) / total


class Prior(NamedTuple):
    """Prior of the components, with the weight of `counts` rows for each."""

    counts: float  # nu
    means: Array  # m, (n_components, n_dims)
    variances: Array  # v, the diagonals of Psi, (n_components, n_dims)
    correlation: Array  # C, (n_dims, n_dims)

    def covariances(self) -> Array:
        """Psi, (n_components, n_dims, n_dims)."""
        deviations = np.sqrt(self.variances)
        return deviations[:, :, None] * self.correlation * deviations[:, None, :]

    def summed_covariance(self) -> Array:
        """The sum of Psi over all components, (n_dims, n_dims)."""
        deviations = np.sqrt(self.variances)
        return (deviations.T @ deviations) * self.correlation

    def chosen(self, index: Any) -> "Prior":
        """The prior of only some of the components, in the given order."""
        means, variances = self.means[index], self.variances[index]
        return Prior(self.counts, means, variances, self.correlation)


class Statistics(NamedTuple):
    """Sums over rows x, weighted by the responsibilities r_j of component j for them."""

    n: Array  # sum r_j, (n_components,)
    first: Array  # sum r_j (x - mu_j), (n_components, n_dims)
    second: Array  # sum r_j (x - mu_j)(x - mu_j)': matrices for "full", diagonals for "diag"
    # and "spherical", and the sum of the matrices over all components for "tied"
    background: float = 0.0  # fraction of the rows that belong to no component


def n_parameters(n_components: int, n_dims: int, kind: Kind) -> int:
    """Number of free parameters of a mixture of Gaussians."""
    per_covariance = {
        "spherical": n_components,
        "diag": n_components * n_dims,
        "full": n_components * n_dims * (n_dims + 1) // 2,
        "tied": n_dims * (n_dims + 1) // 2,
    }
    return n_components - 1 + n_components * n_dims + per_covariance[kind]


# ------------------------------------------------------------------ small matrices


def inverses(covariances: Array) -> tuple[Array, Array]:
    """Inverses and log determinants of positive definite matrices (n, d, d)."""
    if covariances.shape[-1] == 2:  # faster than many calls of LAPACK
        a, b, c = covariances[:, 0, 0], covariances[:, 0, 1], covariances[:, 1, 1]
        part = 1 - (b / a) * (b / c)  # the determinant divided by a c, which may overflow
        inverse = np.empty_like(covariances)
        inverse[:, 0, 0] = 1 / (a * part)
        inverse[:, 1, 1] = 1 / (c * part)
        inverse[:, 0, 1] = inverse[:, 1, 0] = -(b / a) / (c * part)
        return inverse, np.log(a) + np.log(c) + np.log(part)
    if covariances.shape[-1] <= _SMALL:
        return np.linalg.inv(covariances), np.linalg.slogdet(covariances)[1]
    inverse, log_det = np.empty_like(covariances), np.empty(len(covariances))
    for j, matrix in enumerate(covariances):
        factor, log_det[j] = whitening(matrix)
        inverse[j] = factor @ factor.T
    return inverse, log_det


def whitening(covariance: Array) -> tuple[Array, float]:
    """A matrix F such that F F' is the inverse of a matrix (d, d), and its log determinant."""
    cholesky = np.linalg.cholesky(covariance)
    factor = linalg.solve_triangular(cholesky, np.eye(len(cholesky)), lower=True).T
    return factor, float(2 * np.log(np.diag(cholesky)).sum())


def extreme_variances(covariances: Array) -> tuple[Array, Array]:
    """Smallest and largest eigenvalues of symmetric matrices (n, d, d)."""
    if covariances.shape[-1] == 2:
        a, b, c = covariances[:, 0, 0], covariances[:, 0, 1], covariances[:, 1, 1]
        middle, radius = (a + c) / 2, np.hypot((a - c) / 2, b)
        return middle - radius, middle + radius
    values = np.linalg.eigvalsh(covariances)
    return values[:, 0], values[:, -1]


def floored(covariances: Array, floor: float) -> Array:
    """The matrices with their eigenvalues raised to at least `floor`.

    These matrices maximise the likelihood among all matrices whose eigenvalues are at least `floor`
    (the eigenvectors do not change). If it is larger, 1e-12 times the largest eigenvalue is used
    instead of `floor`, because matrices with smaller eigenvalues cannot be inverted accurately.
    """
    most = np.abs(covariances).max(axis=(1, 2)) * covariances.shape[-1]
    floors = np.maximum(floor, _LEAST_CONDITION * most)
    # Eigenvalues that are at the floor up to rounding errors are not raised again.
    slack = np.where(floors > floor, 1e-3, 1e-9)
    low = np.flatnonzero(_reach_below(covariances, floors * (1 - slack)))
    if len(low):
        covariances = covariances.copy()
        values, axes = np.linalg.eigh(covariances[low])
        values = np.maximum(values, floors[low, None])
        covariances[low] = (axes * values[:, None, :]) @ axes.swapaxes(1, 2)
    return covariances


def widened(gaussians: Gaussians, floor: float) -> Gaussians:
    """The mixture with no variance below `floor` along any axis."""
    covariances = gaussians.covariances
    match gaussians.kind:
        case "full":
            covariances = floored(covariances, floor)
        case "tied":
            covariances = floored(covariances[None], floor)[0]
        case _:
            covariances = np.maximum(covariances, floor)
    return gaussians._replace(covariances=covariances)


def _reach_below(covariances: Array, floors: Array) -> NDArray[np.bool_]:
    """Whether matrices have eigenvalues below their floors."""
    if covariances.shape[-1] <= _SMALL:
        below: NDArray[np.bool_] = extreme_variances(covariances)[0] < floors
        return below
    found = np.zeros(len(covariances), dtype=bool)
    for j, matrix in enumerate(covariances):  # Cholesky takes a tenth of the time
        try:
            np.linalg.cholesky(matrix - floors[j] * np.eye(len(matrix)))
        except np.linalg.LinAlgError:
            found[j] = True
    return found


def _loops(n_components: int) -> ModuleType | None:
    """Compiled loops over components, for mixtures of many rows."""
    return kernels(_LEAST_ROWS * n_components, "component_kernels")


# ----------------------------------------------------------------------- densities


class Quadratics(NamedTuple):
    """log w_j rho_j(x) = constant_j - (x - mu_j)' precision_j (x - mu_j) / 2."""

    constant: Array  # (n_components,)
    precision: Array  # (n_components, n_dims, n_dims)


def quadratics(gaussians: Gaussians) -> Quadratics:
    precision, log_det = inverses(gaussians.full())
    n_dims = gaussians.means.shape[1]
    constant = gaussians.log_weights() - (log_det + n_dims * log(2 * pi)) / 2
    return Quadratics(constant, precision)


def rounding_of(gaussians: Gaussians) -> float:
    """Rounding error of a log density, relative to 1 or to the log density."""
    if gaussians.kind not in ("full", "tied"):
        return _ROUNDING
    least, most = extreme_variances(gaussians.full())
    eps = float(np.finfo(float).eps)
    return max(_ROUNDING, float((8 * eps * most / np.maximum(least, eps * most)).max()))


def reach_of(gaussians: Gaussians, peak: Array) -> Reach:
    """Upper bounds on the densities of the components; `peak` is the log of w_j rho_j(mu_j)."""
    if gaussians.kind in ("full", "tied"):
        spread = extreme_variances(gaussians.full())[1]
    else:
        spread = gaussians.variances().max(axis=1)
    # Slightly more than the largest variance, because of rounding errors.
    return Reach(gaussians.means, gaussians.means, peak, spread * (1 + 1e-9))


def log_joint(X: Array, gaussians: Gaussians) -> Array:
    """log w_j rho_j(x) of all rows and all components, (n_samples, n_components)."""
    n_dims = X.shape[1]
    means, covariances = gaussians.means, gaussians.covariances
    found = np.empty((len(X), len(means)))
    factor = None
    for j, mean in enumerate(means):
        centred = X - mean
        if gaussians.kind in ("full", "tied"):
            if factor is None or gaussians.kind == "full":
                matrix = covariances if gaussians.kind == "tied" else covariances[j]
                factor, log_det = whitening(matrix)
            whitened = centred @ factor
        else:
            variance = np.broadcast_to(covariances[j], n_dims)
            log_det = np.log(variance).sum()
            whitened = centred / np.sqrt(variance)
        found[:, j] = np.einsum("ij,ij->i", whitened, whitened) + log_det
    return gaussians.log_weights() - (found + n_dims * log(2 * pi)) / 2


def log_prior(gaussians: Gaussians, prior: Prior) -> float:
    """log p(theta) in nats; it is 0 at the mode."""
    if not prior.counts:
        return 0.0
    away = gaussians.means - prior.means
    log_det_prior = np.log(prior.variances).sum()
    if gaussians.kind == "full":
        precision, log_dets = inverses(gaussians.covariances)
        log_det, loops = log_dets.sum(), _loops(len(away))
        if loops is None:
            expected = prior.covariances() + away[:, :, None] * away[:, None, :]
            trace = np.vdot(precision, expected)
        else:
            trace = loops.trace(precision, gaussians.means, *prior[1:])
    elif gaussians.kind == "tied":
        precision, log_dets = inverses(gaussians.covariances[None])
        expected = prior.summed_covariance() + away.T @ away
        trace, log_det = np.vdot(precision[0], expected), len(away) * log_dets[0]
    else:
        variances = gaussians.variances()
        trace = ((prior.variances + away**2) / variances).sum()
        log_det = np.log(variances).sum()
    if gaussians.kind in ("full", "tied"):
        log_det_prior += len(away) * np.linalg.slogdet(prior.correlation)[1]
    away_from_mode = trace + log_det - log_det_prior - away.size
    return float(-0.5 * prior.counts * away_from_mode)


# ------------------------------------------------------------------------- updates


def maximise(stats: Statistics, before: Gaussians, prior: Prior, floor: float) -> Gaussians:
    """The parameters that maximise the expected log density of the rows plus the log prior.

    With the statistics about the means before,

        mu = (N xbar + nu m) / (N + nu),
        Sigma = (sum r (x - mu)(x - mu)' + nu (Psi + (mu - m)(mu - m)')) / (N + nu).
    """
    n, nu = stats.n, prior.counts
    total = n.sum()
    loops = _loops(len(n)) if before.kind == "full" else None
    if loops is not None:
        means, covariances = loops.maximised(
            n, stats.first, stats.second, (before.means, before.covariances), nu, *prior[1:]
        )
        covariances = floored(covariances, floor)
        return Gaussians(n / total, means, covariances, "full", stats.background)
    size = (n + nu)[:, None]
    held = size[:, 0] > 0
    step = stats.first + nu * (prior.means - before.means)
    np.divide(step, size, out=step, where=held[:, None])
    step[~held] = 0
    means = before.means + step
    away = means - prior.means
    weights = n / total
    if before.kind in ("diag", "spherical"):
        second = stats.second - 2 * step * stats.first + n[:, None] * step**2
        second += nu * (prior.variances + away**2)
        if before.kind == "spherical":
            second = second.mean(axis=1, keepdims=True)
        variances = np.divide(second, size, out=np.zeros_like(second), where=held[:, None])
        variances = np.maximum(variances, floor)
        if before.kind == "diag":
            variances[~held] = before.covariances[~held]
            return Gaussians(weights, means, variances, "diag", stats.background)
        spherical = np.where(held, variances[:, 0], before.covariances)
        return Gaussians(weights, means, spherical, "spherical", stats.background)
    if before.kind == "tied":
        cross = step.T @ stats.first
        second = stats.second - cross - cross.T + (n[:, None] * step).T @ step
        second += nu * (prior.summed_covariance() + away.T @ away)
        second /= size.sum()
        tied = floored(second[None], floor)[0]
        return Gaussians(weights, means, tied, "tied", stats.background)
    cross = stats.first[:, :, None] * step[:, None, :]
    second = stats.second - cross
    second -= cross.swapaxes(1, 2)
    second += n[:, None, None] * step[:, :, None] * step[:, None, :]
    if nu:
        second += nu * (prior.covariances() + away[:, :, None] * away[:, None, :])
    covariances = before.covariances.copy()
    np.divide(second, size[:, :, None], out=covariances, where=held[:, None, None])
    return Gaussians(weights, means, floored(covariances, floor), "full", stats.background)


def over_relaxed(before: Gaussians, after: Gaussians, eta: float, floor: float) -> Gaussians:
    """An over-relaxed update, with `eta` times the step from one mixture to the other.

    Weights and variances change by factors, so that they stay positive. The variances of
    covariances change in this way, and their correlations are those of the update without
    over-relaxation. The step may be too long (Salakhutdinov and Roweis 2003).
    """
    if eta == 1:
        return after
    more = eta - 1
    with np.errstate(divide="ignore", invalid="ignore"):
        factor = np.where(after.weights > 0, after.weights / before.weights, 1.0)
    weights = after.weights * np.clip(factor, 0.5, 2.0) ** more
    means = after.means + more * (after.means - before.means)
    ratio = np.clip(after.variances() / before.variances(), 0.5, 2.0) ** more
    match after.kind:
        case "spherical":
            covariances = np.maximum(after.covariances * ratio[:, 0], floor)
        case "diag":
            covariances = np.maximum(after.covariances * ratio, floor)
        case _:
            scale = np.sqrt(ratio)
            loops = _loops(len(scale)) if after.kind == "full" else None
            if loops is not None:
                longer = floored(loops.scaled(after.covariances, scale), floor)
                return Gaussians(
                    weights / weights.sum(), means, longer, after.kind, after.background
                )
            scale = scale[0] if after.kind == "tied" else scale
            widened = after.covariances * scale[..., :, None] * scale[..., None, :]
            matrices = floored(widened.reshape(-1, *widened.shape[-2:]), floor)
            covariances = matrices.reshape(widened.shape)
    return Gaussians(weights / weights.sum(), means, covariances, after.kind, after.background)


def statistics_of(gaussians: Gaussians, prior: Prior, total: float) -> Statistics:
    """The statistics for which `maximise` returns this mixture (the inverse of `maximise`)."""
    n, nu = total * gaussians.weights, prior.counts
    away = gaussians.means - prior.means
    first = nu * away
    size = (n + nu)[:, None]
    if gaussians.kind in ("diag", "spherical"):
        second = size * gaussians.variances() - nu * (prior.variances + away**2)
        return Statistics(n, first, second)
    if gaussians.kind == "tied":
        expected = prior.summed_covariance() + away.T @ away
        second = size.sum() * gaussians.covariances - nu * expected
        return Statistics(n, first, second)
    second = size[:, :, None] * gaussians.covariances
    second -= nu * (prior.covariances() + away[:, :, None] * away[:, None, :])
    return Statistics(n, first, second)
