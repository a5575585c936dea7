"""Updates of many Gaussians, which Numba compiles; see `skae._mixture.compiled`.

NumPy would allocate an array for each operation, which takes most of its time.
"""

from typing import Any

import numpy as np
from numpy.typing import NDArray

from skae._utils.compiler import compiled

Array = NDArray[Any]


@compiled("contract")
def maximised(
    n: Array,
    first: Array,
    second: Array,
    before: tuple[Array, Array],
    nu: float,
    prior_means: Array,
    prior_variances: Array,
    correlation: Array,
) -> tuple[Array, Array]:
    """Means and covariances of `maximise` for full covariances, without the floor.

    `before` are the means and the covariances before the update, which components without counts
    keep.
    """
    means, covariances = before[0].copy(), before[1].copy()
    n_components, n_dims = means.shape
    deviations, away, step = np.empty(n_dims), np.empty(n_dims), np.empty(n_dims)
    for j in range(n_components):
        size = n[j] + nu
        if size <= 0:
            continue
        for a in range(n_dims):
            step[a] = (first[j, a] + nu * (prior_means[j, a] - means[j, a])) / size
            means[j, a] += step[a]
            away[a] = means[j, a] - prior_means[j, a]
            deviations[a] = np.sqrt(prior_variances[j, a])
        for a in range(n_dims):
            for b in range(a, n_dims):
                total = second[j, a, b] - first[j, a] * step[b] - first[j, b] * step[a]
                total += n[j] * step[a] * step[b]
                psi = deviations[a] * correlation[a, b] * deviations[b]
                total += nu * (psi + away[a] * away[b])
                covariances[j, a, b] = covariances[j, b, a] = total / size
    return means, covariances


@compiled("contract")
def trace(
    precision: Array,
    means: Array,
    prior_means: Array,
    prior_variances: Array,
    correlation: Array,
) -> float:
    """Sum of tr((Psi_j + (mu_j - m_j)(mu_j - m_j)') Sigma_j^-1) over all components."""
    n_components, n_dims = means.shape
    deviations, away = np.empty(n_dims), np.empty(n_dims)
    total = 0.0
    for j in range(n_components):
        for a in range(n_dims):
            away[a] = means[j, a] - prior_means[j, a]
            deviations[a] = np.sqrt(prior_variances[j, a])
        for a in range(n_dims):
            for b in range(n_dims):
                psi = deviations[a] * correlation[a, b] * deviations[b]
                total += precision[j, a, b] * (psi + away[a] * away[b])
    return total


@compiled("contract")
def scaled(covariances: Array, scale: Array) -> Array:
    """Covariances whose standard deviations are multiplied by `scale`."""
    found = np.empty_like(covariances)
    n_components, n_dims = scale.shape
    for j in range(n_components):
        for a in range(n_dims):
            for b in range(n_dims):
                found[j, a, b] = covariances[j, a, b] * scale[j, a] * scale[j, b]
    return found
