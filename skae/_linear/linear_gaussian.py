"""The linear-Gaussian latent model of rows with missing values, and posteriors of its codes.

The model is x = W z + mu + e with z ~ N(0, I_k) and e ~ N(0, Psi), where Psi is diagonal. Only the
entries o of each row are observed. With M = I + W_o' Psi_o^-1 W_o and r = x_o - mu_o,

    E[z | x_o] = M^-1 W_o' Psi_o^-1 r,    cov[z | x_o] = M^-1,
    -2 log N(x_o) = r' Psi_o^-1 r - E[z]' M E[z] + log |M| + log |Psi_o| + |o| log 2 pi.

Probabilistic PCA has Psi = sigma2 I. Rows with the same missing entries have the same M and form a
group. The symmetric matrices of the groups are stored as lower triangles, packed along the first
axis, with the groups along the last axis. Every step is then a matrix product or an operation on
contiguous memory for all groups.

References
----------
M. E. Tipping and C. M. Bishop (1999). Probabilistic principal component analysis.
J. R. Stat. Soc. B 61(3), 611-622. :doi:`10.1111/1467-9868.00196`

A. Ilin and T. Raiko (2010). Practical approaches to principal component analysis in the presence
of missing values. J. Mach. Learn. Res. 11, 1957-2000. https://jmlr.org/papers/v11/ilin10a.html
"""

from collections.abc import Callable
from math import log, pi
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from skae._linear.packed import invert_packed, multiply_packed, triangle, unpack

Array = NDArray[np.float64]


class Uncertainty(NamedTuple):
    """The posterior of loadings and mean under a prior, beside their means.

    `spread` (D or 1, k + 1, k + 1) has the covariances of (w_d, mu_d) divided by psi_d, one for
    each feature or one for all. `relevance` (k,) has the precisions alpha of the prior
    w_dj ~ N(0, psi_d / alpha_j).
    """

    spread: Array
    relevance: Array


class LinearGaussian(NamedTuple):
    """Loadings W (D, k), mean mu (D,) and noise variances psi (D,).

    If `uncertainty` is given, loadings and mean are those of a Gaussian posterior.
    """

    loadings: Array
    mean: Array
    noise_variance: Array
    uncertainty: Uncertainty | None = None


class Block(NamedTuple):
    """Groups of rows.

    `values` (n, D) are centred at `shift`, with zero for missing entries. `seen` (G, D) is one for
    entries that a group observes, and otherwise zero. `sizes` (G,) are the numbers of rows.
    """

    values: NDArray[Any]
    seen: NDArray[Any]
    sizes: NDArray[np.intp]
    shift: Array


class EntryTerms(NamedTuple):
    """What an observed entry contributes to the posterior of the codes.

    `sums` (D, k(k+1)/2 + k) has what an entry adds to M and what it subtracts from W' Psi^-1 x
    because of the mean. `weights` (D, k) is Psi^-1 W.
    """

    sums: NDArray[Any]
    weights: NDArray[Any]


class Posterior(NamedTuple):
    """E[z] (k, n) and, for each group, packed M^-1 (k(k+1)/2, G) and log |M| (G,)."""

    mean: NDArray[Any]
    covariance: NDArray[Any]
    log_det: Array


def expected_precision(model: LinearGaussian) -> Array:
    """What every observed entry adds to M, the mean of w_d w_d' / psi_d, packed (D, k(k+1)/2)."""
    W, _, psi, uncertainty = model
    first, second = triangle(W.shape[1])
    products: Array = W[:, first] * (W / psi[:, None])[:, second]
    if uncertainty is not None:
        products += uncertainty.spread[:, first, second]
    return products


def expected_offset(model: LinearGaussian, step: Array) -> Array:
    """What every observed entry subtracts from W' Psi^-1 x, the mean of w_d mu_d / psi_d (D, k).

    `step` (D,) is the mean, relative to the shift of the rows.
    """
    offset: Array = model.loadings * (step / model.noise_variance)[:, None]
    if model.uncertainty is not None:
        offset = offset + model.uncertainty.spread[:, :-1, -1]
    return offset


def entry_terms(model: LinearGaussian, shift: Array, dtype: Any = np.float64) -> EntryTerms:
    """The terms of all entries, for rows that are centred at `shift` and have this dtype."""
    W, mean, psi, _ = model
    offset = expected_offset(model, mean - shift)
    sums = np.concatenate([expected_precision(model), offset], axis=1)
    return EntryTerms(sums.astype(dtype), (W / psi[:, None]).astype(dtype))


def encoder_of(model: LinearGaussian) -> tuple[Array, Array, Array]:
    """Psi^-1 W M^-1 (D, k) and M^-1 (k, k) of complete rows, and the code of the mean (k,).

    The code of a complete row is (x - mu)' Psi^-1 W M^-1, plus the code of the mean. The latter is
    zero unless loadings and mean are uncertain.
    """
    W, mean, psi, _ = model
    M = np.eye(W.shape[1]) + unpack(expected_precision(model).sum(axis=0)[:, None])[0]
    covariance = np.linalg.inv(M)
    offset = expected_offset(model, np.zeros(len(mean))).sum(axis=0)
    return (W / psi[:, None]) @ covariance, covariance, -covariance @ offset


def turned(model: LinearGaussian, R: Array) -> LinearGaussian:
    """The same model with the loadings W R, for an orthogonal R (k, k)."""
    W, mean, psi, uncertainty = model
    if uncertainty is not None:
        L = np.eye(len(R) + 1)
        L[:-1, :-1] = R
        uncertainty = uncertainty._replace(spread=L.T @ uncertainty.spread @ L)
    return LinearGaussian(W @ R, mean, psi, uncertainty)


def signs_of(model: LinearGaussian) -> Array:
    """Signs (k,) for which the largest entry of each column is positive, in units of the noise.

    They therefore do not depend on the units of the features.
    """
    loadings = model.loadings / np.sqrt(model.noise_variance)[:, None]
    highest = np.argmax(np.abs(loadings), axis=0)
    return np.where(loadings[highest, np.arange(loadings.shape[1])] < 0, -1.0, 1.0)


def posterior(
    block: Block,
    model: LinearGaussian,
    terms: EntryTerms | None = None,
    invert: Callable[[NDArray[Any]], Array] = invert_packed,
) -> Posterior:
    """p(z | x_o) of the rows of a block, or its variational approximation for uncertain loadings.

    The approximation is q(z) of Ilin and Raiko (2010), with means over the posterior of the
    loadings in M and in W' Psi^-1 r. `terms` are the `entry_terms`, in the dtype of the block.
    `invert` does what `invert_packed` does.
    """
    found = _by_latents(block, terms or entry_terms(model, block.shift), invert)
    W, _, psi, uncertainty = model
    if uncertainty is None and np.max(np.sum(W**2, axis=1) / psi) > 1e8:
        few = block.seen.sum(axis=1) < W.shape[1]
        if few.any():
            _by_entries(block, model, few, found)
    return found


def _by_latents(
    block: Block, terms: EntryTerms, invert: Callable[[NDArray[Any]], Array]
) -> Posterior:
    """Posteriors from the k x k matrix M."""
    values, seen, sizes, _ = block
    n_latents = terms.weights.shape[1]
    sums = terms.sums.T @ seen.T
    covariance, offset = sums[:-n_latents], sums[-n_latents:]
    first, second = triangle(n_latents)
    covariance[first == second] += 1.0
    log_det = invert(covariance)
    b = terms.weights.T @ values.T
    alone = len(sizes) == len(values)
    b -= offset if alone else np.repeat(offset, sizes, axis=1)
    repeated = covariance if alone else np.repeat(covariance, sizes, axis=1)
    return Posterior(multiply_packed(repeated, b), covariance, log_det)


def _by_entries(
    block: Block, model: LinearGaussian, few: NDArray[np.bool_], found: Posterior
) -> None:
    """Overwrite the posteriors of groups that observe fewer entries than there are latents.

    For these groups W_o' Psi_o^-1 W_o is singular, so that M is badly conditioned if the noise is
    small. C = W_o W_o' + Psi_o is used instead, with E[z] = W_o' C^-1 r, M^-1 = I - W_o' C^-1 W_o
    and |M| = |C| / |Psi_o|.
    """
    W, mean, psi, _ = model
    n_latents = W.shape[1]
    seen = block.seen[few]
    n_seen = seen.sum(axis=1)
    most = max(1, int(n_seen.max()))
    entries = np.argsort(-seen, axis=1, kind="stable")[:, :most]
    present = np.arange(most) < n_seen[:, None]
    W_o = W[entries] * present[:, :, None]
    noise = np.where(present, psi[entries], 1.0)  # entries that fill up have no effect
    C = W_o @ W_o.transpose(0, 2, 1)
    C[:, np.arange(most), np.arange(most)] += noise
    solved = np.linalg.solve(C, W_o)
    spread = np.eye(n_latents) - W_o.transpose(0, 2, 1) @ solved
    first, second = triangle(n_latents)
    found.covariance[:, few] = spread[:, first, second].T
    pivots = np.diagonal(np.linalg.cholesky(C), axis1=1, axis2=2)
    found.log_det[few] = 2 * np.log(pivots).sum(axis=1) - np.log(noise).sum(axis=1)
    of_few = np.repeat(few, block.sizes)
    group = np.repeat(np.arange(len(n_seen)), block.sizes[few])
    residual = np.take_along_axis(block.values[of_few], entries[group], axis=1)
    residual = (residual - (mean - block.shift)[entries[group]]) * present[group]
    found.mean[:, of_few] = np.einsum("nok,no->kn", solved[group], residual)


def log_likelihood(block: Block, model: LinearGaussian, found: Posterior) -> Array:
    """Log-likelihood of each row of a block, from its residual, which avoids cancellation."""
    W, mean, psi, _ = model
    seen = np.repeat(block.seen, block.sizes, axis=0)
    residual = block.values - seen * ((mean - block.shift) + found.mean.T @ W.T)
    # r' Psi^-1 r - E[z]' M E[z] = (r - W z)' Psi^-1 (r - W z) + |z|^2 at the posterior mean z.
    with np.errstate(over="ignore"):  # a density below the range of floats is zero
        distance = residual**2 @ (1.0 / psi) + np.sum(found.mean**2, axis=0)
    log_det = np.repeat(found.log_det, block.sizes) + seen @ np.log(psi)
    return -0.5 * (distance + log_det + np.sum(seen, axis=1) * log(2 * pi))
