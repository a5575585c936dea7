"""Whether training may continue from an earlier mixture of Gaussians."""

from typing import Any

import numpy as np
from numpy.typing import NDArray

from skae._mixture.fit_gaussians import FitOptions
from skae._mixture.gaussians import Gaussians, Prior, floored, log_joint, widened
from skae._mixture.recorded_rows import recorded_rows

Array = NDArray[Any]

# Training continues from a mixture if its log-likelihood is at most this many nats per count below
# that of a single Gaussian.
_FOREIGN = 10.0


def check_known(
    gaussians: Gaussians, covariance_type: str, n_features: int, wanted: Any, n_averages: int
) -> None:
    """Raise if training cannot continue from the Gaussians of the previous fit."""
    has = len(gaussians.weights)
    if gaussians.kind != covariance_type:
        raise ValueError(
            f"covariance_type={covariance_type!r} with warm_start=True, but the previous "
            f"fit had {gaussians.kind!r}. Set warm_start=False to fit anew."
        )
    if gaussians.means.shape[1] != n_features:
        raise ValueError(
            f"X has {n_features} features with warm_start=True, but the previous "
            f"fit had {gaussians.means.shape[1]}. Set warm_start=False to fit anew."
        )
    if n_averages > 1 or wanted == "bic" or (wanted is not None and int(wanted) < has):
        raise ValueError(
            f"n_components={wanted!r} and n_averages={n_averages} with warm_start=True. "
            f"Allowed are n_components of at least {has}, the number of the previous fit, and "
            "n_averages=1."
        )


def explains_rows(gaussians: Gaussians, rows: Array, weight: Array, options: FitOptions) -> bool:
    """Whether a mixture explains rows almost as well as a single Gaussian with their moments.

    Otherwise the priors of the mixture do not suit the rows either.
    """
    covariance = np.atleast_2d(np.cov(rows.T, aweights=weight, ddof=0))
    alone = Gaussians(
        np.ones(1),
        np.average(rows, axis=0, weights=weight)[None],
        floored(covariance[None], options.floor),
        "full",
    )
    under = recorded_rows(
        rows,
        None,
        len(gaussians.weights),
        options.n_jobs,
        options.instrument.without_exposure,
        noise=options.noise,
    )
    nats = [weight @ under.log_density(widened(gaussians, options.floor))]
    nats.append(weight @ log_joint(rows, alone)[:, 0])
    known, anew = np.array(nats) / weight.sum()
    return bool(known > anew - _FOREIGN)


def resumed(
    gaussians: Gaussians, prior: Prior, prior_counts: float, floor: float
) -> tuple[Gaussians, Prior]:
    """An earlier mixture and its prior, with the current prior counts and floor."""
    variances = np.maximum(prior.variances, floor)
    return widened(gaussians, floor), prior._replace(counts=prior_counts, variances=variances)
