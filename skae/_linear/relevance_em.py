"""Variational EM that also removes components whose evidence is too weak.

The loadings of an unneeded component shrink slowly if there are many rows, because a weak
component hardly changes the codes. When EM has converged, the weakest components are therefore
removed if that increases the bound, and costs less than one nat of likelihood for each loading, as
in Akaike's criterion. The bound alone would also remove weak components that help to predict
missing values.
"""

from typing import Any

import numpy as np

from skae._linear.em import EMRun
from skae._linear.linear_gaussian import LinearGaussian, Uncertainty
from skae._linear.loadings_prior import RelevancePrior, total_spread
from skae._linear.missing_values import fit_em

# Steps after which the bound without a component is compared.
_TRIAL_STEPS = 4


def fit_model(
    rows: Any,
    start: LinearGaussian,
    learner: Any,
    *,
    tol: float,
    max_iter: int,
    keeps_progress: bool = False,
) -> EMRun:
    """Run the EM of the learner: `fit_relevant` for a `RelevancePrior`, `fit_em` for others."""
    fit: Any = fit_relevant if isinstance(learner, RelevancePrior) else fit_em
    run: EMRun = fit(
        rows, start, learner, tol=tol, max_iter=max_iter, keeps_progress=keeps_progress
    )
    return run


def fit_relevant(
    rows: Any,
    start: LinearGaussian,
    learner: RelevancePrior,
    *,
    tol: float,
    max_iter: int,
    keeps_progress: bool = False,
) -> EMRun:
    """Run `fit_em`, and remove weak components until the bound does not increase."""
    options: Any = {"tol": tol, "keeps_progress": keeps_progress}
    run = fit_em(rows, start, learner, max_iter=max_iter, **options)
    n_removed, grows = 1, True
    while run.ended_by == "convergence" and n_removed and run.state.loadings.shape[1] > 1:
        history = run.log_likelihoods
        left = max_iter - len(history)
        if left <= _TRIAL_STEPS:
            break
        n_removed = min(n_removed, run.state.loadings.shape[1] - 1)
        smaller = without_weakest(run.state, n_removed)
        try:
            trial = fit_em(rows, smaller, learner, tol=tol, max_iter=_TRIAL_STEPS)
        except KeyboardInterrupt:
            if not keeps_progress:
                raise
            return run._replace(ended_by="interrupt")
        if trial.log_likelihoods[-1] > history[-1] + _least_gain(run.state, n_removed):
            rest = left - len(trial.log_likelihoods)
            try:
                found = fit_em(rows, trial.state, learner, max_iter=rest, **options)
            except KeyboardInterrupt:
                if not keeps_progress:
                    raise
                found = EMRun(trial.state, (), "interrupt")
            joined = (*history, *trial.log_likelihoods, *found.log_likelihoods)
            run = found._replace(log_likelihoods=joined)
            n_removed *= 2 if grows else 1
        else:
            n_removed, grows = n_removed // 2, False
    return run


def without_weakest(model: LinearGaussian, n_removed: int) -> LinearGaussian:
    """The model without the components of smallest loadings."""
    W, mean, psi, uncertainty = model
    assert uncertainty is not None
    kept = np.sort(np.argsort(np.sum(W**2 / psi[:, None], axis=0))[n_removed:])
    index = np.append(kept, W.shape[1])
    spread = uncertainty.spread[:, index[:, None], index]
    return LinearGaussian(W[:, kept], mean, psi, Uncertainty(spread, uncertainty.relevance[kept]))


def _least_gain(model: LinearGaussian, n_removed: int) -> float:
    """How much the bound must gain without the weakest components, in nats.

    Without a component whose squared loadings are r times their uncertainty, the divergence from
    the prior is smaller by about D log(1 + r) / 2. At most D nats of this may be lost likelihood.
    """
    W, _, psi, uncertainty = model
    assert uncertainty is not None
    signal = np.sum(W**2 / psi[:, None], axis=0)
    unsure = np.diagonal(total_spread(uncertainty.spread, len(W)))[:-1]
    weakest = np.argsort(signal)[:n_removed]
    saved = 0.5 * len(W) * np.log1p(signal[weakest] / unsure[weakest])
    return float(np.maximum(saved - len(W), 0.0).sum())
