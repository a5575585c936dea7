"""p(k) of the indices that code a row: independent positions, or one after the other."""

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from skae._nn.causal import CausalCategorical
from skae._training.data import Batch
from skae._training.module import Loss, TrainableModule, weighted_mean

Array = NDArray[np.float64]


def smoothed_shares(counts: Array) -> Array:
    """Shares of K values (n_positions, K), of counts of which every row adds up alike.

    (n_k + a/K) / (n + a), with the pseudo-count a that predicts each of the n observations
    best from the n - 1 others.
    """
    n, n_values = counts.sum(1).max(), counts.shape[1]
    seen, times = np.unique(counts, return_counts=True)
    without_one, weight = np.maximum(seen - 1, 0.0), seen * times

    def predicted(a: float) -> float:
        return float(weight @ np.log((without_one + a / n_values) / (max(n - 1, 0.0) + a)))

    # Of equals the first, which is the most cautious.
    best = max(np.geomspace(1e2 * n_values, 1e-2, 33), key=predicted)
    shares: Array = (counts + best / n_values) / (counts.sum(1, keepdims=True) + best)
    return shares


def index_counts(indices: NDArray[np.int64], weight: Array | None, n_values: int) -> Array:
    """How often each of K values stands at each position; in all, as often as there are rows."""
    n_rows, n_positions = indices.shape
    places = indices + n_values * np.arange(n_positions)
    weights = None
    if weight is not None:
        weights = np.repeat(weight * (n_rows / weight.sum()), n_positions)
    counts = np.bincount(places.ravel(), weights, n_values * n_positions)
    return counts.reshape(n_positions, n_values).astype(np.float64)


class Independent:
    """Positions that know nothing of each other."""

    def __init__(self, log_shares: Tensor) -> None:
        self.log_shares = log_shares

    def log_prob(self, k: Tensor) -> Tensor:
        """log p(k_t), (n, n_positions)."""
        return self.log_shares[torch.arange(k.shape[1], device=k.device), k]

    def sample(self, n: int, generator: torch.Generator) -> Tensor:
        """Sequences (n, n_positions)."""
        drawn = torch.multinomial(self.log_shares.exp(), n, replacement=True, generator=generator)
        return drawn.T


class IndexPriorModule(TrainableModule):
    """The causal network over indices, as the loop trains it."""

    def __init__(
        self, log_shares: Tensor, codebook: Tensor, n_channels: int, generator: torch.Generator
    ) -> None:
        super().__init__()
        self.sequence = CausalCategorical(log_shares, codebook, n_channels, generator)

    def loss(self, batch: Batch) -> Loss:
        """-log p(k), nats per row."""
        log_prob = self.sequence.log_prob(batch.x.long()).sum(1)
        return Loss({"prior": -weighted_mean(log_prob, batch.weight)}, batch.x)

    def decayed(self) -> list[nn.Parameter]:
        """Weights of the layers: frequencies, and numbers that few rows speak of, stay."""
        return [p for p in self.sequence.network.parameters() if p.ndim > 1]

    def step_scale(self) -> float:
        """Nats per index: steps should not grow with their number."""
        return 1 / len(self.sequence.position)
