"""Noise of ordered codes: each number of first codes is a model of its own, with its own noise."""

from typing import NamedTuple

import torch
from torch import Tensor, nn

from skae._nn.likelihoods import MOMENTUM, WithNoise


class Explained(NamedTuple):
    """Rows, outputs, weights, what was seen, and of how many codes each output was made."""

    x: Tensor
    output: Tensor
    weight: Tensor | None
    seen: Tensor | None
    size: Tensor


class NoisePath(nn.Module):
    """The learned noise variances of every size, which training follows as it does that of one.

    One variance for all sizes would be far too large for all codes, which then seemed to explain
    little and would collapse, and too small for few.
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
        """Nats of rows (n, n_features), each with the noise of its size (n,).

        Of outputs of several draws, (n, n_draws, n_features), x and `seen` are (n, 1, n_features).
        """
        variance = self.variance[size - 1]
        one = [1] * (output.ndim - 2)
        variance = variance.reshape(len(size), *one, -1)
        values = likelihood.density(x, output, variance)
        return values.sum(-1) if seen is None else (values * seen).sum(-1)

    def sums(self, likelihood: WithNoise, rows: Explained) -> tuple[Tensor, Tensor]:
        """Of every size, the weighted sum of the deviations that were seen, and their weight."""
        deviation = likelihood.deviation(rows.x, rows.output)
        counts = torch.ones_like(deviation) if rows.seen is None else rows.seen
        if rows.weight is not None:
            counts = counts * rows.weight[:, None]
        wide = torch.float32 if counts.device.type == "mps" else torch.float64  # which has none
        of_sizes = [
            values.new_zeros((len(self.variance), values.shape[1]), dtype=wide).index_add(
                0, rows.size - 1, values.to(wide)
            )
            for values in (deviation * counts, counts)
        ]
        total, count = of_sizes if self.variance.ndim == 2 else (t.sum(1) for t in of_sizes)
        return total, count

    @torch.no_grad()
    def follow(self, likelihood: WithNoise, rows: Explained) -> None:
        """Move the running variances of the sizes that a batch has towards those of the batch."""
        total, count = self.sums(likelihood, rows)
        seen = count > 0
        self.n_updates += seen if seen.ndim == 1 else seen.any(1)
        rate = self.n_updates.clamp(min=1.0).reciprocal().clamp(min=MOMENTUM)
        rate = rate if seen.ndim == 1 else rate[:, None]
        self._move(likelihood, total, count, torch.where(seen, rate, 0.0))

    def settle(self, likelihood: WithNoise, total: Tensor, count: Tensor) -> None:
        """Set the variances of the sizes that there are."""
        self._move(likelihood, total, count, (count > 0).float())

    def _move(self, likelihood: WithNoise, total: Tensor, count: Tensor, rate: Tensor) -> None:
        found = likelihood.variance_of((total / count.clamp(min=1e-30)).float())
        self.variance.lerp_(found, rate).clamp_(min=likelihood.floor)
