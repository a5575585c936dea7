"""Training of a mixture of Gaussians: soft (EM) or hard (partition-maximization)."""

from collections.abc import Iterator
from typing import Any, Literal, NamedTuple

import numpy as np
from numpy.typing import NDArray

from skae._mixture.dense_rows import DenseRows
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
from skae._mixture.responsibilities import LocalRows

Array = NDArray[Any]
Algorithm = Literal["em", "partition"]

# Iterations at which candidates are selected anew and empty components moved: seldom later, as
# less and less moves.
_SELECTIONS = frozenset([0, *(6 * 4**k - 1 for k in range(15))])

# Counts below which a component is empty, and may go where it is of more use.
_EMPTY = 1e-3

# How much further than EM an update goes: more and more, until it goes too far.
_ETA_GROWS, _MOST_ETA = 1.2, 8.0

# What rounding may gain or lose, relative to 1 or to the objective, nats per count.
_ROUNDING = 1e-12

# What new places of components gain at least, nats per count.
_GAIN = 1e-9


class Trained(NamedTuple):
    """The mixture that training found."""

    gaussians: Gaussians
    prior: Prior
    objectives: list[float]  # before every update, nats per count
    converged: bool = False
    interrupted: bool = False  # by Ctrl-C, after the last of the objectives


def train(
    rows: LocalRows | DenseRows,
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
    """Encode and decode in turn until the objective stops rising.

    The objective, which never falls, is the log prior plus

    - with "em", the free energy sum_x log sum_j w_j rho_j(x), over the components j that
      are candidates of each block of rows;
    - with "partition", the classification log-likelihood sum_x max_j log w_j rho_j(x):
      counts go to the best component (eq. 13), then each component solves the score
      equation of its own counts (eq. 14).

    Parameters
    ----------
    rows : LocalRows or DenseRows
    gaussians : Gaussians
        The start.
    prior : Prior
    algorithm : {"em", "partition"}
    total : float
        Number of counts.
    floor : float
        Smallest variance along any axis.
    tol : float
        Training stops when an iteration gains no more, nats per count.
    max_iter : int
        Most iterations.
    keeps_progress : bool
        Whether Ctrl-C ends training with what the last complete iteration left. It is raised
        before the first is complete, or if False.
    """
    reached: Trained | None = None
    iterations = _iterations(rows, gaussians, prior, algorithm, total, floor, tol, max_iter)
    try:
        # What an iteration left is taken over whole or not at all, wherever Ctrl-C strikes.
        for trained in iterations:
            reached = trained
    except KeyboardInterrupt:
        if reached is None or not keeps_progress:
            raise
        return reached._replace(converged=False, interrupted=True)
    assert reached is not None
    return reached


def _iterations(
    rows: LocalRows | DenseRows,
    gaussians: Gaussians,
    prior: Prior,
    algorithm: Algorithm,
    total: float,
    floor: float,
    tol: float,
    max_iter: int,
) -> Iterator[Trained]:
    """What every iteration of `train` leaves; nothing that was given out is changed later."""
    objectives: list[float] = []
    eta, last_eta, safe = 1.0, 1.0, None  # `safe`: what plain EM's update was
    may_relocate = True
    least = max(tol, _GAIN)
    for iteration in range(max_iter):
        if algorithm == "em" and iteration in _SELECTIONS:
            rows.select_candidates(gaussians)
        nats, stats = _step(rows, gaussians, algorithm)
        objective = (nats + log_prior(gaussians, prior)) / total
        if safe is not None and objective < objectives[-1] - _ROUNDING * (1 + abs(objective)):
            gaussians, safe, eta, last_eta = safe, None, 1.0, 1.0  # it was too far
            continue
        objectives = [*objectives, objective]
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
            eta = 1.0  # only what a plain update gains tells that there is no more to gain
        if iteration + 1 == max_iter:
            break
        update = maximise(stats, gaussians, prior, floor)
        safe = None
        if algorithm == "em":
            safe, update = update, over_relaxed(gaussians, update, eta, floor)
            last_eta, eta = eta, min(_ETA_GROWS * eta, _MOST_ETA)
        gaussians = update
        empty = gaussians.weights * total < _EMPTY
        if may_relocate and iteration in _SELECTIONS and empty.any():
            better = _relocated(rows, safe or gaussians, prior, algorithm, total, floor, least)
            if better is None:
                may_relocate = False
            else:
                (gaussians, prior), safe = better, None


def _step(
    rows: LocalRows | DenseRows, gaussians: Gaussians, algorithm: Algorithm
) -> tuple[float, Statistics]:
    if algorithm == "em":
        return rows.expect(gaussians)
    return rows.assign(gaussians)[:2]


def _relocated(
    rows: LocalRows | DenseRows,
    gaussians: Gaussians,
    prior: Prior,
    algorithm: Algorithm,
    total: float,
    floor: float,
    least: float,
) -> tuple[Gaussians, Prior] | None:
    """Empty components as halves of those that gain most by it; None if that is little.

    A half may gain up to log 2 nats for each of its counts and more the wider it is, so that
    the components of most counts times log volume are halved. What the proposal is worth is
    seen after an update of both mixtures: at first the halves stand where nothing put them.
    """
    empty = np.flatnonzero(gaussians.weights * total < _EMPTY)
    log_volume = 0.5 * np.log(gaussians.variances()).sum(axis=1)
    worth = gaussians.weights * (log_volume - log_volume.min() + 1)
    worth[empty] = -1
    order = np.argsort(-worth, kind="stable")
    most = min(len(empty), len(worth) - len(empty))
    before = rows.selected()
    base = _settled(rows, gaussians, prior, algorithm, floor)
    for n in {most: None, most // 8: None}:  # all of them, or the best few
        if not n:
            break
        parents, children = np.sort(order[:n]), empty[:n]
        places = np.arange(len(worth))
        places[children] = parents
        # A half is judged by the prior of the whole: nothing is gained by a change of priors.
        of_halves = prior.chosen(places)
        halved = split(gaussians, parents, children)
        tried = _settled(rows, halved, of_halves, algorithm, floor)
        if tried[0] - base[0] > least * total:
            return tried[1], of_halves
    rows.restore(before)
    return None


def _settled(
    rows: LocalRows | DenseRows,
    gaussians: Gaussians,
    prior: Prior,
    algorithm: Algorithm,
    floor: float,
) -> tuple[float, Gaussians]:
    """The objective, nats in all, after an update, and the mixture that has it."""
    for more in (True, False):
        if algorithm == "em":
            rows.select_candidates(gaussians)
        nats, stats = _step(rows, gaussians, algorithm)
        if more:
            gaussians = maximise(stats, gaussians, prior, floor)
    return nats + log_prior(gaussians, prior), gaussians


def updated(
    rows: LocalRows | DenseRows,
    gaussians: Gaussians,
    prior: Prior,
    *,
    algorithm: Algorithm,
    before: float,
    floor: float,
) -> Gaussians:
    """The mixture after one step with more rows, worth `before` counts until then.

    Earlier rows stay with the components that they were given to (Neal and Hinton 1998).
    """
    rows.select_candidates(gaussians)
    _, new = _step(rows, gaussians, algorithm)
    old = statistics_of(gaussians, prior, before)
    both = Statistics(old.n + new.n, old.first + new.first, old.second + new.second)
    return maximise(both, gaussians, prior, floor)
