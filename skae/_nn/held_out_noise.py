"""Estimation of the noise variance from held-out rows."""

from typing import cast

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from skae._nn.likelihood_base import Likelihood
from skae._nn.likelihoods import NoiseSums
from skae._training.data import Batch

# Number of rows that the ratio common to all features counts as, in the estimate of one feature.
_ROWS_OF_RATIO = 16.0


class HeldOutNoise:
    """Estimates the noise of a likelihood from training rows and held-out rows.

    An overfitted network leaves less noise in its training rows than in others. Let d_f be the mean
    deviation of feature f in the training rows, m_f and n_f the mean deviation and the weight of
    the held-out rows, and r = sum n_f m_f / sum n_f d_f. The noise variance follows from (c r d_f +
    n_f m_f) / (c + n_f), and is at least that of d_f. If all features share one variance, it is
    that of the held-out rows.

    Parameters
    ----------
    likelihood : Likelihood
        Likelihood whose variance is set.
    n_rows : int
        Number of all rows.
    held_out : Tensor or None
        Indices of the held-out rows.
    """

    def __init__(self, likelihood: Likelihood, n_rows: int, held_out: Tensor | None) -> None:
        self.trained, self.new = NoiseSums(likelihood), NoiseSums(likelihood)
        self.is_new: NDArray[np.bool_] | None = None
        if held_out is not None:
            self.is_new = np.zeros(n_rows, dtype=bool)
            self.is_new[held_out.numpy()] = True

    def add(self, part: slice, batch: Batch, output: Tensor) -> None:
        """Add a chunk of rows."""
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
        """Set the variance; `weight` is the weight of these rows against the variance `before`."""
        total, count, n = self.trained.total, self.trained.count, self.new.count
        if isinstance(total, Tensor) and isinstance(count, Tensor) and isinstance(n, Tensor):
            mean = total / count.clamp(min=1e-300)
            left = cast(Tensor, self.new.total)
            expected = (n * mean).sum()
            ratio = left.sum() / expected if expected > 0 else 1.0
            found = (_ROWS_OF_RATIO * ratio * mean + left) / (_ROWS_OF_RATIO + n)
            self.trained.total = count * torch.maximum(found, mean)
        self.trained.settle(weight, before)
