"""Train a mixture of Gaussians with soft (EM) or hard (partition-maximization) assignments."""

from collections.abc import Iterator
from typing import Any, Literal, NamedTuple

import numpy as np
from numpy.typing import NDArray

from skae._mixture.gaussians import (
    Gaussians,
    Prior,
    Statistics,
    log_prior,
    maximise,
    over_relaxed,
    statistics_of,
)
from skae._mixture.initialization import split
from skae._mixture.recorded_rows import RecordedRows, Rows

Array = NDArray[Any]
Algorithm = Literal["em", "partition"]

# Iterations in which candidates are selected again and empty components are moved. They become
# rarer because later iterations change the mixture less.
_SELECTIONS = frozenset([0, *(6 * 4**k - 1 for k in range(15))])

# A component with fewer counts than this is empty, and may be moved.
_EMPTY = 1e-3

# Over-relaxation: factor by which the step length grows in each iteration, and its largest value.
# The step length returns to 1 if a step decreases the objective.
_ETA_GROWS, _MOST_ETA = 1.2, 8.0

# Size of rounding errors, relative to 1 or to the objective, in nats per count.
_ROUNDING = 1e-12

# Smallest gain for which empty components are moved, in nats per count.
_GAIN = 1e-9


class Trained(NamedTuple):
    """The result of training."""

    gaussians: Gaussians
    prior: Prior
    objectives: list[float]  # before every update, nats per count
    converged: bool = False
    interrupted: bool = False  # whether Ctrl-C ended training after the last objective


def train(
    rows: Rows,
    gaussians: Gaussians,
    prior: Prior,
    *,
    algorithm: Algorithm,
    total: float,
    floor: float,
    tol: float,
    max_iter: int,
    keeps_progress: bool,
) -> Trained:
    """Alternate between assignments and updates until the objective no longer increases.

    The objective never decreases. It is the log prior plus

    - with "em", the free energy sum_x log sum_j w_j rho_j(x), where j are the components that are
      candidates of the block of x; or the log-likelihood of the counts as an instrument records
      them;
    - with "partition", the classification log-likelihood sum_x max_j log w_j rho_j(x). Each count
      is assigned to the best component (eq. 13), and then each component solves the score equation
      of its own counts (eq. 14).

    Parameters
    ----------
    rows : LocalRows, DenseRows or RecordedRows
    gaussians : Gaussians
        The initial mixture.
    prior : Prior
    algorithm : {"em", "partition"}
    total : float
        Number of counts.
    floor : float
        Smallest variance along any axis.
    tol : float
        Training stops when an iteration gains at most this many nats per count.
    max_iter : int
        Maximum number of iterations.
    keeps_progress : bool
        Whether Ctrl-C ends training and keeps the state after the last complete iteration. If it
        is False, or if no iteration is complete, KeyboardInterrupt is raised.
    """
    reached: Trained | None = None
    iterations = _iterations(rows, gaussians, prior, algorithm, total, floor, tol, max_iter)
    try:
        # A single assignment takes over the state, so that Ctrl-C cannot leave a partial one.
        for trained in iterations:
            reached = trained
    except KeyboardInterrupt:
        if reached is None or not keeps_progress:
            raise
        return reached._replace(converged=False, interrupted=True)
    assert reached is not None
    return reached


def _iterations(
    rows: Rows,
    gaussians: Gaussians,
    prior: Prior,
    algorithm: Algorithm,
    total: float,
    floor: float,
    tol: float,
    max_iter: int,
) -> Iterator[Trained]:
    """Yield the state after every iteration of `train`; yielded objects are not changed later."""
    objectives: list[float] = []
    eta, last_eta, safe = 1.0, 1.0, None  # `safe` is the last update of EM without over-relaxation
    reached: Gaussians | None = None  # the mixture of the last objective
    gaussians = _constrained(rows, gaussians)
    may_relocate = True
    least = max(tol, _GAIN)
    for iteration in range(max_iter):
        if algorithm == "em" and iteration in _SELECTIONS:
            rows.select_candidates(gaussians)
        nats, stats = _step(rows, gaussians, algorithm)
        objective = (nats + log_prior(gaussians, prior)) / total
        if safe is not None and objective < objectives[-1] - _ROUNDING * (1 + abs(objective)):
            gaussians, safe, eta, last_eta = safe, None, 1.0, 1.0  # the step was too long
            continue
        if reached is not None and objective < objectives[-1] - _ROUNDING * (1 + abs(objective)):
            # A constraint changed the update, which is then no longer the best one.
            yield Trained(reached, prior, objectives, converged=True)
            return
        objectives, reached = [*objectives, objective], gaussians
        yield Trained(gaussians, prior, objectives)
        if len(objectives) > 1 and objectives[-1] - objectives[-2] <= tol:
            if last_eta == 1:
                better = None
                if may_relocate and (gaussians.weights * total < _EMPTY).any():
                    better = _relocated(rows, gaussians, prior, algorithm, total, floor, least)
                if better is None:
                    yield Trained(gaussians, prior, objectives, converged=True)
                    return
                (gaussians, prior), safe = better, None
                continue
            eta = 1.0  # convergence is only decided after an update without over-relaxation
        if iteration + 1 == max_iter:
            break
        update = _constrained(rows, maximise(stats, gaussians, prior, floor))
        safe = None
        if algorithm == "em":
            safe, update = update, over_relaxed(gaussians, update, eta, floor)
            update = _constrained(rows, update)
            last_eta, eta = eta, min(_ETA_GROWS * eta, _MOST_ETA)
        gaussians = update
        empty = gaussians.weights * total < _EMPTY
        if may_relocate and iteration in _SELECTIONS and empty.any():
            better = _relocated(rows, safe or gaussians, prior, algorithm, total, floor, least)
            if better is None:
                may_relocate = False
            else:
                (gaussians, prior), safe = better, None


def _constrained(rows: Rows, gaussians: Gaussians) -> Gaussians:
    return rows.constrained(gaussians) if isinstance(rows, RecordedRows) else gaussians


def _step(rows: Rows, gaussians: Gaussians, algorithm: Algorithm) -> tuple[float, Statistics]:
    if algorithm == "em":
        return rows.expect(gaussians)
    return rows.assign(gaussians)[:2]


def _relocated(
    rows: Rows,
    gaussians: Gaussians,
    prior: Prior,
    algorithm: Algorithm,
    total: float,
    floor: float,
    least: float,
) -> tuple[Gaussians, Prior] | None:
    """Replace empty components by halves of other components; None if the gain is too small.

    A half may gain up to log 2 nats for each of its counts, and more if it is wide. Therefore the
    components with the largest product of counts and log volume are halved. The gain is measured
    after one update of both mixtures, because the initial positions of the halves are arbitrary.
    """
    empty = np.flatnonzero(gaussians.weights * total < _EMPTY)
    log_volume = 0.5 * np.log(gaussians.variances()).sum(axis=1)
    worth = gaussians.weights * (log_volume - log_volume.min() + 1)
    worth[empty] = -1
    order = np.argsort(-worth, kind="stable")
    most = min(len(empty), len(worth) - len(empty))
    before = rows.selected()
    base = _settled(rows, gaussians, prior, algorithm, floor)
    for n in {most: None, most // 8: None}:  # all candidates, or only the best eighth
        if not n:
            break
        parents, children = np.sort(order[:n]), empty[:n]
        places = np.arange(len(worth))
        places[children] = parents
        # Both halves have the prior of the whole, so that the prior does not change the gain.
        of_halves = prior.chosen(places)
        halved = split(gaussians, parents, children)
        tried = _settled(rows, halved, of_halves, algorithm, floor)
        if tried[0] - base[0] > least * total:
            return tried[1], of_halves
    rows.restore(before)
    return None


def _settled(
    rows: Rows,
    gaussians: Gaussians,
    prior: Prior,
    algorithm: Algorithm,
    floor: float,
) -> tuple[float, Gaussians]:
    """The mixture after an update, and its objective in nats over all counts."""
    for more in (True, False):
        if algorithm == "em" and more:  # an update hardly changes which components are relevant
            rows.select_candidates(gaussians)
        nats, stats = _step(rows, gaussians, algorithm)
        if more:
            gaussians = maximise(stats, gaussians, prior, floor)
    return nats + log_prior(gaussians, prior), gaussians


def updated(
    rows: Rows,
    gaussians: Gaussians,
    prior: Prior,
    *,
    algorithm: Algorithm,
    before: float,
    floor: float,
    registered: float = 1.0,
    added: float = 0.0,
) -> Gaussians:
    """Update the mixture once with `added` new rows.

    It was fitted to `before` rows until now, which were the fraction `registered` of the counts of
    the object. Earlier rows keep their assignments to components (Neal and Hinton 1998).
    """
    rows.select_candidates(gaussians)
    _, new = _step(rows, gaussians, algorithm)
    old = statistics_of(gaussians, prior, before * (1 - gaussians.background) / registered)
    background = (before * gaussians.background + added * new.background) / (before + added)
    both = Statistics(old.n + new.n, old.first + new.first, old.second + new.second, background)
    return maximise(both, gaussians, prior, floor)
