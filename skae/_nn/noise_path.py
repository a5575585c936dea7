"""Noise variances of ordered codes, one for each number of leading codes."""

from typing import NamedTuple

import torch
from torch import Tensor, nn

from skae._nn.likelihoods import MOMENTUM, WithNoise
from skae._training.ranks import Part


class Explained(NamedTuple):
    """Rows, outputs, weights, masks, and the number of codes that each output was computed from."""

    x: Tensor
    output: Tensor
    weight: Tensor | None
    seen: Tensor | None
    size: Tensor


class NoisePath(nn.Module):
    """Learned noise variances of all sizes, updated in training like a single variance.

    A single variance for all sizes would be far too large for the model with all codes, so that the
    codes would explain too little and collapse; and it would be too small for models with few
    codes.
    """

    variance: Tensor  # (n_sizes,) or (n_sizes, n_features)
    n_updates: Tensor

    def __init__(self, likelihood: WithNoise, n_sizes: int) -> None:
        super().__init__()
        shape = (n_sizes, *likelihood.variance.shape)
        self.register_buffer("variance", likelihood.variance.expand(shape).clone())
        self.register_buffer("n_updates", torch.zeros(n_sizes))

    def row_log_prob(
        self,
        likelihood: WithNoise,
        x: Tensor,
        output: Tensor,
        seen: Tensor | None,
        size: Tensor,
    ) -> Tensor:
        """Return the nats of rows (n, n_features), each with the noise variance of its size (n,).

        For outputs of several draws, (n, n_draws, n_features), x and `seen` are (n, 1, n_features).
        """
        variance = self.variance[size - 1]
        one = [1] * (output.ndim - 2)
        variance = variance.reshape(len(size), *one, -1)
        values = likelihood.density(x, output, variance)
        return values.sum(-1) if seen is None else (values * seen).sum(-1)

    def sums(self, likelihood: WithNoise, rows: Explained) -> tuple[Tensor, Tensor]:
        """Return the weighted sum of deviations, and the weight, of every size."""
        deviation = likelihood.deviation(rows.x, rows.output)
        counts = torch.ones_like(deviation) if rows.seen is None else rows.seen
        if rows.weight is not None:
            counts = counts * rows.weight[:, None]
        # "mps" has no float64.
        wide = torch.float32 if counts.device.type == "mps" else torch.float64
        of_sizes = [
            values.new_zeros((len(self.variance), values.shape[1]), dtype=wide).index_add(
                0, rows.size - 1, values.to(wide)
            )
            for values in (deviation * counts, counts)
        ]
        total, count = of_sizes if self.variance.ndim == 2 else (t.sum(1) for t in of_sizes)
        return total, count

    @torch.no_grad()
    def follow(self, likelihood: WithNoise, rows: Explained, part: Part | None = None) -> None:
        """Move the running variances of the sizes in a batch towards those of the batch."""
        total, count = self.sums(likelihood, rows)
        if part is not None:
            total, count = part.sums(total, count)
        seen = count > 0
        self.n_updates += seen if seen.ndim == 1 else seen.any(1)
        rate = self.n_updates.clamp(min=1.0).reciprocal().clamp(min=MOMENTUM)
        rate = rate if seen.ndim == 1 else rate[:, None]
        self._move(likelihood, total, count, torch.where(seen, rate, 0.0))

    def settle(self, likelihood: WithNoise, total: Tensor, count: Tensor) -> None:
        """Set the variances of the sizes that occur."""
        self._move(likelihood, total, count, (count > 0).float())

    def _move(self, likelihood: WithNoise, total: Tensor, count: Tensor, rate: Tensor) -> None:
        found = likelihood.variance_of((total / count.clamp(min=1e-30)).float())
        self.variance.lerp_(found, rate).clamp_(min=likelihood.floor)
