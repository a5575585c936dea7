"""Means over draws of a row, by importance weights that are added block by block."""

import torch
from torch import Tensor

# Smaller than any finite log weight.
_LEAST = -1e30


class WeightedMeans:
    """Computes sum_k w_k v_k / sum_k w_k of rows, with weights relative to the largest so far."""

    def __init__(self, n_rows: int, width: int, device: torch.device) -> None:
        self.top = torch.full((n_rows, 1), -torch.inf, device=device)
        self.weight = torch.zeros((n_rows, 1), device=device)
        self.total = torch.zeros((n_rows, width), device=device)

    def add(self, log_weight: Tensor, values: Tensor) -> None:
        """Add a block of draws: log weights (n, n_draws), values (n, n_draws, width)."""
        log_weight = log_weight.to(self.total.dtype)
        top = torch.maximum(self.top, log_weight.amax(1, keepdim=True))
        finite = top.clamp(min=_LEAST)  # a label of frequency zero has no finite weight
        old, new = (self.top - finite).exp(), (log_weight - finite).exp()
        self.weight = old * self.weight + new.sum(1, keepdim=True)
        of_block = (new[:, None] @ values.to(self.total.dtype))[:, 0]
        self.top, self.total = top, old * self.total + of_block

    @property
    def mean(self) -> Tensor:
        """Return the means over all blocks so far, (n, width)."""
        return self.total / self.weight
