"""Maximum-likelihood factor analysis of complete rows: x ~ N(mu, W W' + Psi), Psi diagonal.

With the covariance S of the rows (1/n) and Sigma = W W' + Psi, the log-likelihood in nats per row
is

    -(log |Sigma| + tr(Sigma^-1 S) + D log 2 pi) / 2.

For few features, `fit_factors` maximises over W in closed form and over log psi by L-BFGS-B, after
a few steps of EM, which are faster. With the leading eigenvalues theta_j and eigenvectors u_j of
Psi^-1/2 S Psi^-1/2 (Joreskog 1967; Lawley and Maxwell 1971, chapter 4),

    W = Psi^1/2 U (Theta - I)^1/2,
    f(psi) = sum_d (log psi_d + S_dd / psi_d) - sum_j (theta_j - 1 - log theta_j),
    df / dlog psi_d = 1 + sum_j (theta_j - 1) u_dj^2 - S_dd / psi_d,

where factors with theta_j < 1 are left out, and f = log |Sigma| + tr(Sigma^-1 S).

For many features, `em_factors` runs EM, which needs only products of S with (D, k) matrices. The
steps are those of PX-EM (Rubin and Thayer 1982; Liu et al. 1998), accelerated by Anderson's method.

A likelihood may increase until a noise variance is zero (a Heywood case). Noise variances have
lower bounds for this reason.

References
----------
K. G. Joreskog (1967). Some contributions to maximum likelihood factor analysis. Psychometrika
32(4), 443-482. :doi:`10.1007/BF02289658`

D. N. Lawley and A. E. Maxwell (1971). Factor Analysis as a Statistical Method. Butterworths.

D. B. Rubin and D. T. Thayer (1982). EM algorithms for ML factor analysis. Psychometrika 47(1),
69-76. :doi:`10.1007/BF02293851`

C. Liu, D. B. Rubin and Y. N. Wu (1998). Parameter expansion to accelerate EM: the PX-EM algorithm.
Biometrika 85(4), 755-770. :doi:`10.1093/biomet/85.4.755`

N. C. Henderson and R. Varadhan (2019). Damped Anderson acceleration with restarts and monotonicity
control for accelerating EM and EM-like algorithms. J. Comput. Graph. Stat. 28(4), 834-846.
:doi:`10.1080/10618600.2019.1594835`
"""

from collections.abc import Callable
from itertools import pairwise
from math import log, pi, sqrt
from typing import Any, Literal, NamedTuple

import numpy as np
from numpy.typing import NDArray
from scipy import linalg, optimize

from skae._linear.em import EMRun, run_em
from skae._linear.moments import leading_axes
from skae._linear.subspace import CentredRows, CentredScatter

Array = NDArray[np.float64]

# Iterations may go on with small gains for long, so that they end at these fractions of `tol`.
_STRICTER_PROFILE = 1e-6
_STRICTER_EM = 1e-4
# Steps of EM before L-BFGS-B. EM converges in fewer of them, except in Heywood cases.
_EM_STEPS = 40
# Earlier steps that Anderson's method combines. With 3 or 20 of them, EM needs about as many steps.
_MEMORY = 5
# A noise variance below this fraction of the variance of a feature may belong to a Heywood case.
_SUSPICIOUS = 1e-3


class FactorModel(NamedTuple):
    """Loadings W (D, k) with W' Psi^-1 W diagonal in decreasing order, and psi (D,)."""

    loadings: Array
    noise_variance: Array


class FactorRun(NamedTuple):
    """The fitted model, the log-likelihoods in nats per row, and why the iterations ended.

    `floored` (D,) says which noise variances are at their lower bound.
    """

    loadings: Array
    noise_variance: Array
    log_likelihoods: tuple[float, ...]
    ended_by: Literal["convergence", "max_iter"]
    floored: NDArray[np.bool_]


def n_free_parameters(n_features: int, n_factors: int) -> int:
    """Number of free parameters: loadings up to rotation, noise variances and mean."""
    loadings = n_features * n_factors - n_factors * (n_factors - 1) // 2
    return loadings + 2 * n_features


def lower_bounds(diagonal: Array, floor: Array, dtype: Any = np.float64) -> Array:
    """The smallest noise variances (D,): `floor`, but at least sqrt(eps) times the variance.

    Noise variances psi_d that are smaller by the factor r cause rounding errors of eps r in the
    log-likelihood, which would hide what the other features gain.
    """
    return np.maximum(floor, np.sqrt(float(np.finfo(dtype).eps)) * diagonal)


# ------------------------------------------------------------------------- few features


def fit_factors(
    covariance: Array, n_factors: int, *, floor: Array, tol: float, max_iter: int
) -> FactorRun:
    """Maximise the likelihood over log psi, with W in closed form.

    All computations are relative to the variances of the features. A change of units of the
    features therefore changes only the units of the result.

    Parameters
    ----------
    covariance : ndarray of shape (n_features, n_features)
        Covariance S of the rows, with 1/n. It may be singular.
    n_factors : int
        Number of factors k, at most n_features.
    floor : ndarray of shape (n_features,)
        Positive lower bounds of the noise variances; see also `lower_bounds`.
    tol : float
        The iterations end when one of them increases the log-likelihood by less than 1e-6 `tol`
        nats per value.
    max_iter : int
        Maximum number of iterations.

    Returns
    -------
    run : FactorRun
        With the log-likelihoods before every step of EM, and after every iteration of L-BFGS-B.
    """
    n_features = len(covariance)
    diagonal = np.diagonal(covariance)
    lowest = lower_bounds(diagonal, floor)
    scale = np.sqrt(np.maximum(diagonal, lowest))
    correlation = covariance / scale / scale[:, None]
    shift = float(np.log(scale).sum())
    bounds = np.minimum(np.log(lowest / scale**2), 0.0)
    change = _STRICTER_PROFILE * tol

    def objective(log_psi: Array) -> tuple[float, Array]:
        value, gradient = profile(correlation, np.exp(log_psi), n_factors)
        return value / n_features, gradient / n_features

    def record(intermediate_result: optimize.OptimizeResult) -> None:
        values.append(float(intermediate_result.fun))

    units = Units(correlation.__matmul__, np.diagonal(correlation), np.exp(bounds))
    start = _start(*leading_axes(correlation, n_factors))
    run = _accelerated_em(units, start, tol, min(max_iter, _EM_STEPS))
    history = [nats - shift for nats in run.log_likelihoods]
    log_psi = np.maximum(np.log(run.state.latest.model.noise_variance), bounds)
    ended_by: Literal["convergence", "max_iter"] = "max_iter"
    while (left := max_iter - len(history)) > 0:
        values: list[float] = []  # of f / D after every iteration
        result = optimize.minimize(
            objective,
            log_psi,
            jac=True,
            method="L-BFGS-B",
            bounds=list(zip(bounds, np.zeros(n_features), strict=True)),
            callback=record,
            # The second derivatives of f are about one or less.
            options={"maxiter": left, "ftol": change, "gtol": sqrt(2 * change) / n_features},
        )
        before = float(result.fun)
        log_psi, value = _to_the_bounds(objective, result.x, before, bounds)
        values = [*values[:-1], min(before, value)]
        history += [-0.5 * n_features * (f + log(2 * pi)) - shift for f in values]
        # There is no status if all noise variances are at their bounds.
        if result.get("status", 0) != 1 and not value < before - change:
            ended_by = "convergence"
            break
    psi = np.exp(log_psi)
    theta, u = _leading(correlation, psi, n_factors)
    floored = log_psi <= bounds
    return FactorRun(
        (scale * np.sqrt(psi))[:, None] * _oriented(u) * np.sqrt(theta - 1),
        np.where(floored, lowest, scale**2 * psi),
        tuple(history),
        ended_by,
        floored,
    )


def profile(covariance: Array, psi: Array, n_factors: int) -> tuple[float, Array]:
    """f at the best loadings for the noise variances psi (D,), and its gradient in log psi (D,)."""
    theta, u = _leading(covariance, psi, n_factors)
    ratio = np.diagonal(covariance) / psi
    value = np.sum(np.log(psi) + ratio) - np.sum(theta - 1 - np.log(theta))
    return float(value), 1 + u**2 @ (theta - 1) - ratio


def _leading(covariance: Array, psi: Array, n_factors: int) -> tuple[Array, Array]:
    """theta (k,), at least one, and u (D, k)."""
    root = np.sqrt(psi)
    theta, u = leading_axes(covariance / root / root[:, None], n_factors)
    return np.maximum(theta, 1.0), u


def _to_the_bounds(
    objective: Callable[[Array], tuple[float, Array]], log_psi: Array, value: float, bounds: Array
) -> tuple[Array, float]:
    """Set small noise variances to their bounds unless this increases the objective.

    The gradient in log psi_d vanishes for psi_d -> 0, so that L-BFGS-B may end before the bound.
    Increases that may be rounding errors are accepted; see `lower_bounds`.
    """
    rounding = 10 * np.sqrt(np.finfo(float).eps) / len(log_psi)
    small = (log_psi > bounds) & (log_psi < log(_SUSPICIOUS))
    if not small.any():
        return log_psi, value
    _, gradient = objective(log_psi)
    for d in np.flatnonzero(small & (gradient > -rounding)):
        trial = log_psi.copy()
        trial[d] = bounds[d]
        if (found := objective(trial)[0]) <= value + rounding:
            log_psi, value = trial, found
    return log_psi, value


# ------------------------------------------------------------------------ many features


class Units(NamedTuple):
    """The covariance S in units of the standard deviations of the features.

    `product` maps V (D, k) to S V; `diagonal` (D,) of S has ones, or less for features that are
    almost constant; `lowest` (D,) are the lower bounds of psi.
    """

    product: Callable[[Array], Array]
    diagonal: Array
    lowest: Array


class Evaluated(NamedTuple):
    """A model, its log-likelihood, and the model after one step of EM."""

    model: FactorModel
    log_likelihood: float
    following: FactorModel


class _Path(NamedTuple):
    """The latest model, and the latest models and their steps as vectors, the oldest first."""

    latest: Evaluated
    points: tuple[Array, ...]
    steps: tuple[Array, ...]


def em_factors(
    rows: CentredRows | CentredScatter,
    diagonal: Array,
    n_factors: int,
    rng: np.random.RandomState,
    *,
    floor: Array,
    tol: float,
    max_iter: int,
    keeps_progress: bool = False,
) -> EMRun:
    """Accelerated EM without a D x D matrix.

    Each step extrapolates the earlier steps of PX-EM by Anderson's method. If the log-likelihood
    of the extrapolated model is smaller than before, the step of PX-EM is taken. An iteration costs
    one product of S with a (D, k) matrix, or two if the extrapolation was of no use.

    Parameters
    ----------
    rows : CentredRows or CentredScatter
        The rows, with the products `pull_back(project(V))`, which are S V.
    diagonal : ndarray of shape (n_features,)
        Variances of the features, with 1/n.
    n_factors : int
        Number of factors k.
    rng : RandomState
        Generator of the first axes.
    floor : ndarray of shape (n_features,)
        Positive lower bounds of the noise variances; see also `lower_bounds`.
    tol : float
        EM ends when two steps increase the log-likelihood by less than 1e-4 `tol` nats per value.
    max_iter : int
        Maximum number of steps.
    keeps_progress : bool, default=False
        As in `run_em`.

    Returns
    -------
    run : EMRun
        With a FactorModel as the state, and the log-likelihoods in nats per row.
    """
    lowest = lower_bounds(diagonal, floor, rows.X.dtype)
    scale = np.sqrt(np.maximum(diagonal, lowest))[:, None]

    def product(V: Array) -> Array:
        return np.asarray(rows.pull_back(rows.project(V / scale)) / scale, dtype=np.float64)

    units = Units(product, diagonal / scale[:, 0] ** 2, lowest / scale[:, 0] ** 2)
    axes = rng.standard_normal((len(diagonal), n_factors))
    for _ in range(2):
        axes = np.linalg.qr(product(axes))[0]
    values, rotation = np.linalg.eigh(axes.T @ product(axes))
    start = _start(values, axes @ rotation)
    run = _accelerated_em(units, start, tol, max_iter, keeps_progress=keeps_progress)
    W, psi = _in_order(run.state.latest.model)
    shift = float(np.log(scale).sum())
    return EMRun(
        FactorModel(scale * W, scale[:, 0] ** 2 * psi),
        tuple(nats - shift for nats in run.log_likelihoods),
        run.ended_by,
    )


def _start(values: Array, axes: Array) -> FactorModel:
    """The best loadings for psi = I, from leading eigenvalues (k,) and axes (D, k).

    Other starts end in smaller maxima more often, for example PPCA or psi = 1 / diag(S^-1).
    """
    # Columns of zeros would stay zero.
    loadings = axes * np.sqrt(np.maximum(values - 1, 1e-2 * np.abs(values)))
    return FactorModel(loadings, np.ones(len(axes)))


def _accelerated_em(
    units: Units,
    start: FactorModel,
    tol: float,
    max_iter: int,
    *,
    keeps_progress: bool = False,
) -> EMRun:
    """Run PX-EM with Anderson's extrapolation; the states are of type _Path."""
    limit = _STRICTER_EM * tol * len(units.diagonal)

    def step(path: _Path, history: tuple[float, ...]) -> tuple[float, _Path | None]:
        latest = path.latest
        nats = latest.log_likelihood
        if len(history) > 1 and nats - history[-2] <= limit:
            return nats, None
        points = (*path.points[-_MEMORY:], _packed(latest.model))
        steps = (*path.steps[-_MEMORY:], _packed(latest.following) - points[-1])
        found = em_step(units, _unpacked(_extrapolated(points, steps), units.lowest))
        if found.log_likelihood >= nats:
            return nats, _Path(found, points, steps)
        found = em_step(units, latest.following)
        if found.log_likelihood >= nats:
            return nats, _Path(found, points[-1:], steps[-1:])
        return nats, None  # the gain of EM is smaller than rounding errors

    first = _Path(em_step(units, start), (), ())
    return run_em(step, first, max_iter, keeps_progress=keeps_progress)


def em_step(units: Units, model: FactorModel) -> Evaluated:
    """The log-likelihood of a model, and one step of PX-EM.

    With M = I + W' Psi^-1 W and B = Psi^-1 W M^-1, E[z | x] = B' (x - mu). The expectations of
    x z' and z z' over rows are S B and C = M^-1 + B' S B. EM gives W = S B C^-1. The expanded model
    has z ~ N(0, C), so that PX-EM gives W = S B C^-1/2.
    """
    W, psi = model
    n_features, n_factors = W.shape
    weighted = W / psi[:, None]
    lower = linalg.cholesky(np.eye(n_factors) + W.T @ weighted, lower=True)
    inverse = linalg.cho_solve((lower, True), np.eye(n_factors))
    B = weighted @ inverse
    SB = units.product(B)
    log_det = np.log(psi).sum() + 2 * np.log(np.diagonal(lower)).sum()
    distance = np.sum(units.diagonal / psi) - np.sum(SB * weighted)
    nats = -0.5 * float(log_det + distance + n_features * log(2 * pi))
    values, vectors = np.linalg.eigh(inverse + B.T @ SB)
    following = (SB @ vectors) / np.sqrt(np.maximum(values, np.finfo(float).tiny))
    psi = np.maximum(units.diagonal - np.sum(following**2, axis=1), units.lowest)
    return Evaluated(model, nats, FactorModel(following @ vectors.T, psi))


def _packed(model: FactorModel) -> Array:
    """W and log psi as one vector."""
    return np.r_[model.loadings.ravel(), np.log(model.noise_variance)]


def _unpacked(vector: Array, lowest: Array) -> FactorModel:
    """The model of a vector, with noise variances from `lowest` to 1."""
    loadings, log_psi = vector[: -len(lowest)], vector[-len(lowest) :]
    psi = np.maximum(np.exp(np.minimum(log_psi, 0.0)), lowest)
    return FactorModel(loadings.reshape(len(lowest), -1), psi)


def _extrapolated(points: tuple[Array, ...], steps: tuple[Array, ...]) -> Array:
    """Anderson's combination of points and steps, whose combined step is as short as possible."""
    following = points[-1] + steps[-1]
    if len(points) == 1:
        return following
    changes = [after - before for before, after in pairwise(steps)]
    overlap = np.array([[float(a @ b) for a in changes] for b in changes])
    target = np.array([float(a @ steps[-1]) for a in changes])
    ridge = 1e-10 * np.trace(overlap) + np.finfo(float).tiny
    weights = np.linalg.solve(overlap + ridge * np.eye(len(overlap)), target)
    for weight, change, (before, after) in zip(weights, changes, pairwise(points), strict=True):
        following -= weight * (after - before + change)
    return following


def _in_order(model: FactorModel) -> FactorModel:
    """The same model with W' Psi^-1 W diagonal in decreasing order."""
    W, psi = model
    root = np.sqrt(psi)[:, None]
    u, lengths, _ = np.linalg.svd(W / root, full_matrices=False)
    return FactorModel(root * _oriented(u) * lengths, psi)


def _oriented(u: Array) -> Array:
    """The columns of u (D, k) with the signs for which the largest entry is positive."""
    highest = np.argmax(np.abs(u), axis=0)
    return u * np.where(u[highest, np.arange(u.shape[1])] < 0, -1.0, 1.0)
