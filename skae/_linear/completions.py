"""Posteriors of codes and draws of missing values of rows, given their observed values."""

from collections.abc import Callable, Iterable
from typing import Any

import numpy as np
from numpy.typing import NDArray

from skae._linear.missing_values import Block, Posterior
from skae._linear.packed import unpack

Array = NDArray[Any]


def moments_of_codes(
    inferred: Iterable[tuple[Array, Block, Posterior]],
    shape: tuple[int, int, int],
    noise_variance: float,
    dtype: Any,
) -> tuple[Array, Array]:
    """Means (n, k) and covariances (n, k, k) of p(z|x), from (indices, block, posterior)."""
    means, covariances = np.empty(shape[:2], dtype), np.empty(shape, dtype)
    for index, block, found in inferred:
        means[index] = found.mean.T
        matrices = noise_variance * unpack(found.inverse)
        covariances[index] = np.repeat(matrices, block.sizes, axis=0)
    return means, covariances


def completions(
    X: Array,
    means: Array,
    covariances: Array,
    decode: Callable[[Array], Array],
    noise_variance: float | None,
    n_draws: int,
    rng: np.random.RandomState,
) -> Array:
    """Rows (n_draws, n, D) whose missing values are draws from p(missing values | observed values).

    The codes of the rows have these means (n, k) and covariances (n, k, k). Without a noise
    variance, the values are the means of p(x|z).
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
