"""Posteriors of codes and draws of missing values of rows, given their observed values."""

from collections.abc import Callable, Iterable, Iterator
from typing import Any

import numpy as np
from numpy.typing import NDArray

from skae._linear.incomplete_rows import blocks, group_rows
from skae._linear.linear_gaussian import Block, LinearGaussian, Posterior, posterior
from skae._linear.packed import unpack

Array = NDArray[Any]


def moments_of_codes(
    inferred: Iterable[tuple[Array, Block, Posterior]],
    shape: tuple[int, int, int],
    dtype: Any,
) -> tuple[Array, Array]:
    """Means (n, k) and covariances (n, k, k) of p(z|x), from (indices, block, posterior)."""
    means, covariances = np.empty(shape[:2], dtype), np.empty(shape, dtype)
    for index, block, found in inferred:
        means[index] = found.mean.T
        covariances[index] = np.repeat(unpack(found.covariance), block.sizes, axis=0)
    return means, covariances


def completions(
    X: Array,
    means: Array,
    covariances: Array,
    decode: Callable[[Array], Array],
    noise_variance: Any | None,
    n_draws: int,
    rng: np.random.RandomState,
) -> Array:
    """Rows (n_draws, n, D) whose missing values are draws from p(missing values | observed values).

    The codes of the rows have these means (n, k) and covariances (n, k, k). `noise_variance` is one
    number or one for each feature. If it is None, the values are the means of p(x|z).
    """
    # A Cholesky factor need not exist: without noise, some directions of z are determined.
    scales, axes = np.linalg.eigh(covariances.astype(np.float64))
    roots = axes * np.sqrt(np.maximum(scales, 0.0))[:, None, :]
    missing = np.isnan(X)
    draws = np.empty((n_draws, *X.shape), dtype=X.dtype)
    for draw in draws:
        e = rng.standard_normal((*means.shape, 1))
        rows = decode(means + (roots @ e)[:, :, 0])
        if noise_variance is not None:
            rows = rows + np.sqrt(noise_variance) * rng.standard_normal(rows.shape)
        draw[...] = np.where(missing, rows, X)
    return draws


def completions_of_uncertain(
    X: Array,
    model: LinearGaussian,
    models: Iterator[LinearGaussian],
    n_draws: int,
    rng: np.random.RandomState,
    noise: bool,
) -> Array:
    """Rows (n_draws, n, D) whose missing values are drawn given draws of the model.

    Each completion of all rows has the next of `models`, which are draws of `model` from its
    posterior, as in multiple imputation (Rubin 1987). Given it, the codes are drawn without any
    factorisation of their covariances: if (z, x) are a draw from the model, z + E[z | x_o' - x_o]
    is a draw from p(z | x_o'), where E[z | .] is the posterior mean for rows with mean zero.
    """
    mean, n_latents = model.mean, model.loadings.shape[1]
    rows = group_rows(X, None, shift=mean)
    draws = np.empty((n_draws, *X.shape), dtype=X.dtype)
    for draw, (W, mu, psi, _) in zip(draws, models, strict=False):
        centred = LinearGaussian(W, np.zeros(len(mu)), psi)
        for groups, positions in blocks(rows, n_latents):
            block, index = rows.block(groups, positions), rows.order[positions]
            seen = np.repeat(block.seen, block.sizes, axis=0)
            z = rng.standard_normal((len(seen), n_latents))
            noise_of_rows = np.sqrt(psi) * rng.standard_normal(seen.shape)
            x = mu - mean + z @ W.T + noise_of_rows
            rest = Block(block.values - seen * x, block.seen, block.sizes, np.zeros(len(mu)))
            z += posterior(rest, centred).mean.T
            filled = mu + z @ W.T
            if noise:
                filled += np.sqrt(psi) * rng.standard_normal(filled.shape)
            draw[index] = np.where(np.isnan(X[index]), filled, X[index])
    return draws
