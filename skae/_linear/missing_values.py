"""Exact EM for the linear-Gaussian latent model of rows with missing values.

Steps are longer than those of EM where that gains (Salakhutdinov and Roweis 2003). A step that
loses is taken back, and replaced by the step of EM.

References
----------
D. B. Rubin and D. T. Thayer (1982). EM algorithms for ML factor analysis. Psychometrika 47(1),
69-76. :doi:`10.1007/BF02293851`

M. E. Tipping and C. M. Bishop (1999). Probabilistic principal component analysis.
J. R. Stat. Soc. B 61(3), 611-622. :doi:`10.1111/1467-9868.00196`

C. Liu, D. B. Rubin and Y. N. Wu (1998). Parameter expansion to accelerate EM: the PX-EM
algorithm. Biometrika 85(4), 755-770. :doi:`10.1093/biomet/85.4.755`

R. Salakhutdinov and S. Roweis (2003). Adaptive overrelaxed bound optimization methods. ICML,
664-671. https://aaai.org/papers/ICML03-087
"""

from dataclasses import dataclass
from typing import Any, NamedTuple, Protocol

import numpy as np
from numpy.typing import NDArray

from skae._linear.em import EMRun, run_em
from skae._linear.incomplete_rows import Sums
from skae._linear.linear_gaussian import LinearGaussian
from skae._linear.packed import triangle, unpack

Array = NDArray[Any]

# Steps grow by this factor while they gain, up to this length.
_GROWTH, _LONGEST = 1.5, 8.0


class Learner(Protocol):
    """What EM maximises, and its M-step."""

    def log_prior(self, model: LinearGaussian) -> float:
        """What is added to the log-likelihood, in nats."""

    def m_step(
        self,
        rows: Any,
        sums: Sums,
        model: LinearGaussian,
        length: float = 1.0,
        *,
        expand: bool = True,
    ) -> LinearGaussian:
        """The next model, from a step of EM that is `length` times as long.

        If `expand` is false, its codes have the coordinates of those of `model`.
        """

    def has_ended(self, model: LinearGaussian) -> bool:
        """Whether no further step can gain."""


class Regression(NamedTuple):
    """Sums of (z, 1)(z, 1)' (D or 1, k + 1, k + 1) and of x (z, 1)' (D, k + 1) for each feature."""

    design: Array
    target: Array


def regression(rows: Any, sums: Sums) -> Regression:
    """The normal equations of the regression of every feature on (z, 1)."""
    n_latents = sums.cross.shape[1]
    first, second = triangle(n_latents)
    size = len(first)
    design = np.empty((sums.per_feature.shape[1], n_latents + 1, n_latents + 1))
    design[:, first, second] = design[:, second, first] = sums.per_feature[:size].T
    design[:, n_latents, :] = design[:, :, n_latents] = sums.per_feature[size:].T
    return Regression(design, np.column_stack([sums.cross, rows.totals]))


def codes_of(sums: Sums) -> tuple[Array, Array]:
    """Mean nu (k,) and covariance S (k, k) of the codes over all rows."""
    n_latents = sums.cross.shape[1]
    average = sums.overall / sums.overall[-1]
    nu = average[-1 - n_latents : -1]
    return nu, unpack(average[: -1 - n_latents, None])[0] - np.outer(nu, nu)


@dataclass(frozen=True, eq=False)
class MaximumLikelihood:
    """PX-EM for one noise variance, or for one for each feature (factor analysis).

    `floor` has the smallest noise variances, one or one for each feature.
    """

    floor: Any
    per_feature: bool = False

    def log_prior(self, model: LinearGaussian) -> float:
        """Zero, because there is no prior."""
        return 0.0

    def has_ended(self, model: LinearGaussian) -> bool:
        """Whether all noise variances are at their floors."""
        return bool(np.all(model.noise_variance <= self.floor))

    def m_step(
        self,
        rows: Any,
        sums: Sums,
        model: LinearGaussian,
        length: float = 1.0,
        *,
        expand: bool = True,
    ) -> LinearGaussian:
        """Regress every feature on (z, 1) over the rows that observe it, and reduce (PX-EM).

        The expanded model has z ~ N(nu, S), and nu and S are also fitted. With a standard normal z,
        the same model has the loadings W S^(1/2) and the mean mu + W nu, which are returned. If
        `expand` is false, the prior stays N(0, I), as in EM.
        """
        design, target = regression(rows, sums)
        solution = _solved(design, target)
        residual = rows.squares - np.sum(solution * target, axis=1)
        counts = np.broadcast_to(sums.per_feature[-1], residual.shape)
        if self.per_feature:
            noise_variance = np.maximum(residual / counts, self.floor)
        else:
            pooled = max(float(residual.sum() / counts.sum()), float(np.max(self.floor)))
            noise_variance = np.full(len(target), pooled)
        solution, noise_variance = lengthened(
            solution, noise_variance, self.floor, rows, model, length
        )
        W, step = solution[:, :-1], solution[:, -1]
        if not expand:
            return LinearGaussian(W, rows.shift + step, noise_variance)
        nu, S = codes_of(sums)
        scales, axes = np.linalg.eigh(S)
        root = (axes * np.sqrt(np.maximum(scales, 0.0))) @ axes.T
        return LinearGaussian(W @ root, rows.shift + step + W @ nu, noise_variance)


def _solved(design: Array, target: Array) -> Array:
    """Solutions of the normal equations (D, k + 1)."""
    try:
        if len(design) == 1:
            return np.linalg.solve(design[0], target.T).T
        return np.linalg.solve(design, target[:, :, None])[:, :, 0]
    except np.linalg.LinAlgError:  # a feature has fewer observed values than there are codes
        inverse = np.linalg.pinv(design, hermitian=True)
        if len(inverse) == 1:
            return target @ inverse[0]
        return np.einsum("dij,dj->di", inverse, target)


def lengthened(
    solution: Array, psi: Array, floor: Any, rows: Any, model: LinearGaussian, length: float
) -> tuple[Array, Array]:
    """(W, mu) and psi of a step from `model` that is `length` times as long; psi in its log."""
    if length == 1.0:
        return solution, psi
    before = np.column_stack([model.loadings, model.mean - rows.shift])
    stretched = psi * (psi / model.noise_variance) ** (length - 1.0)
    return before + length * (solution - before), np.maximum(stretched, floor)


class _Stage(NamedTuple):
    """A model, the sums and the model from which it was made, and the length of that step.

    `was_larger` says whether that step switched components off, which may lose likelihood.
    """

    model: LinearGaussian
    sums: Sums | None
    before: LinearGaussian
    length: float
    was_larger: bool = False


def fit_em(
    rows: Any,
    start: LinearGaussian,
    learner: Learner,
    *,
    tol: float,
    max_iter: int,
    keeps_progress: bool = False,
) -> EMRun:
    """Run EM. The states of the run are models; what is maximised is a sum over all rows.

    `rows` are IncompleteRows, or rows elsewhere with the same sums. EM stops when a step gains less
    than `tol` nats per observed entry, and no component is switched off.
    """

    least = tol * float(rows.counts.sum())

    def evaluated(model: LinearGaussian) -> tuple[Sums, float]:
        sums = rows.sums(model)
        return sums, sums.log_likelihood + learner.log_prior(model)

    def step(stage: _Stage, history: tuple[float, ...]) -> tuple[float, _Stage | None]:
        model, length = stage.model, stage.length
        sums, nats = evaluated(model)
        is_lost = length > 1.0 and not nats >= history[-1]
        if is_lost:
            model, length = short(stage), 1.0 / _GROWTH
            sums, nats = evaluated(model)
        length = min(_GROWTH * length, _LONGEST)
        following = learner.m_step(rows, sums, model, length)
        is_smaller = following.loadings.shape[1] < model.loadings.shape[1]
        if is_smaller and length > 1.0:
            length, following = 1.0, learner.m_step(rows, sums, model)
        gained = nats - history[-1] if history else np.inf
        is_slow = gained < least and not (is_smaller or stage.was_larger)
        if not is_lost and (is_slow or learner.has_ended(model)):
            return nats, None
        return nats, _Stage(following, sums, model, length, is_smaller)

    def short(stage: _Stage) -> LinearGaussian:
        assert stage.sums is not None
        return learner.m_step(rows, stage.sums, stage.before)

    run = run_em(step, _Stage(start, None, start, 1.0), max_iter, keeps_progress=keeps_progress)
    stage = run.state
    is_unseen = run.ended_by != "convergence" and stage.length > 1.0
    return run._replace(state=short(stage) if is_unseen else stage.model)


def leading_model(larger: LinearGaussian, n_latents: int, floor: float) -> LinearGaussian:
    """A model with the leading axes of a larger model; the rest of the variance becomes noise.

    For complete rows, this is the maximum-likelihood model of the smaller size (Tipping and Bishop
    1999, eqs. 7 and 8). For rows with missing values, it is an initial model for EM. The noise
    variances of `larger` must be equal.
    """
    W, mean, psi = larger[:3]
    axes, lengths, _ = np.linalg.svd(W, full_matrices=False)
    values, noise_variance = lengths**2, float(psi[0])
    noise = noise_variance + float(values[n_latents:].sum()) / max(len(W) - n_latents, 1)
    noise = max(noise, floor)
    signal = np.maximum(values[:n_latents] + noise_variance - noise, 1e-3 * noise)
    return LinearGaussian(axes[:, :n_latents] * np.sqrt(signal), mean, np.full(len(W), noise))
