"""Noise of rows that a network has not been trained on."""

from typing import cast

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from skae._nn.likelihoods import Likelihood, NoiseSums
from skae._training.data import Batch

# Rows of which the ratio that is common to all features counts as many in the noise of one.
_ROWS_OF_RATIO = 16.0


class HeldOutNoise:
    """Learns a likelihood's noise from rows that trained a network, and rows that did not.

    A network that memorises leaves less noise of the former. Let d_f be their mean deviation of
    a feature, m_f and n_f that of the others and its weight, and r = sum n_f m_f / sum n_f d_f.
    The noise is that of (c r d_f + n_f m_f) / (c + n_f), and never less than that of d_f: for
    one variance of all features, simply that of the rows that were held out.

    Parameters
    ----------
    likelihood : Likelihood
        Whose variance is set.
    n_rows : int
        Rows in all.
    held_out : Tensor or None
        Indices of those that did not train the network.
    """

    def __init__(self, likelihood: Likelihood, n_rows: int, held_out: Tensor | None) -> None:
        self.trained, self.new = NoiseSums(likelihood), NoiseSums(likelihood)
        self.is_new: NDArray[np.bool_] | None = None
        if held_out is not None:
            self.is_new = np.zeros(n_rows, dtype=bool)
            self.is_new[held_out.numpy()] = True

    def add(self, part: slice, batch: Batch, output: Tensor) -> None:
        """Take in one chunk of rows."""
        if self.is_new is None:
            self.trained.add(batch.y, output, batch.weight, batch.seen)
            return
        of = torch.from_numpy(self.is_new[part]).to(output.device)
        for sums, chosen in ((self.trained, ~of), (self.new, of)):
            weight, seen = (
                None if given is None else given[chosen] for given in (batch.weight, batch.seen)
            )
            sums.add(batch.y[chosen], output[chosen], weight, seen)

    def settle(self, weight: float = 1.0, before: Tensor | None = None) -> None:
        """Set the variance; `weight` is what these rows count beside the variance `before`."""
        total, count, n = self.trained.total, self.trained.count, self.new.count
        if isinstance(total, Tensor) and isinstance(count, Tensor) and isinstance(n, Tensor):
            mean = total / count.clamp(min=1e-300)
            left = cast(Tensor, self.new.total)
            expected = (n * mean).sum()
            ratio = left.sum() / expected if expected > 0 else 1.0
            found = (_ROWS_OF_RATIO * ratio * mean + left) / (_ROWS_OF_RATIO + n)
            self.trained.total = count * torch.maximum(found, mean)
        self.trained.settle(weight, before)
