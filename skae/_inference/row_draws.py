"""Draws of codes that depend only on the row, and the sizes of pieces of rows and draws."""

from collections.abc import Iterator
from math import pi

import torch
from torch import Tensor
from torch.nn.functional import normalize

from skae._modules.architecture import Architecture
from skae._nn.gaussian_latents import DiagonalGaussian, entropy
from skae._training.data import Batch, Dataset

# Number of values of the widest layer in memory at once; on a CPU they fit into its cache.
VALUES, _ELSEWHERE = 2**19, 2**24
# Number of sets of draws that are mixed for each row, and the change of a weight's angle in radians
# when a code changes by a standard deviation of N(0, I).
_SETS, _TURNS = 32, 3.0
# Number of rows that are encoded at once.
_MOST_ROWS = 2048
# Number of rows that share converted draws.
_SHARING_ROWS = 16


def log_q(q: DiagonalGaussian, draws: Tensor) -> Tensor:
    """Return log q(z|x) at z = mean + std * draw, (n, n_draws)."""
    at_mean = (entropy(q.log_var) - 0.5).sum(-1)  # minus log q(mean|x)
    return -0.5 * draws.square().sum(-1) - at_mean[:, None]


class RowDraws:
    """Draws from N(0, I) that depend only on the row, so that they are repeatable.

    If all rows shared the same draws, all scores would have the same error, which the mean over
    rows would keep. Therefore there are M sets of draws e_m, and each row has its own mixture of
    them, sum_m w_m(x) e_m. The weight vector has length one, so that the mixture is N(0, I), too.
    The weights are smooth in x, so that rows that differ by rounding have draws that differ by
    rounding.
    """

    def __init__(
        self,
        n: int,
        n_components: int,
        seed: int,
        device: torch.device,
        *,
        n_read: int | None = None,
        dtype: torch.dtype = torch.float32,
    ) -> None:
        generator = torch.Generator().manual_seed(seed)
        self.sets = torch.randn((_SETS, n, n_components), generator=generator).to(device)
        turns = torch.randn((n_read or n_components, _SETS), generator=generator)
        self.turns = (_TURNS * turns).to(device, dtype)
        self.start = (2 * pi * torch.rand(_SETS, generator=generator)).to(device, dtype)

    def __len__(self) -> int:
        return self.sets.shape[1]

    def of(self, read: Tensor, block: slice) -> Tensor:
        """Return a block of the draws of these rows, (n, n_draws, n_components)."""
        weight = normalize((read @ self.turns + self.start).cos(), dim=1)
        sets = self.sets[:, block].to(weight.dtype)
        return (weight @ sets.flatten(1)).unflatten(1, sets.shape[1:])

    def pieces(
        self, rows: Dataset, architecture: Architecture
    ) -> Iterator[tuple[slice, Batch, list[slice]]]:
        """Yield pieces of rows, and blocks of draws that are small enough to decode for a piece.

        If the sets must be converted to another type, a piece has several rows, so that a block of
        the sets is converted once for all of them. Otherwise, single rows with many draws are
        faster.
        """
        at_once = _codes_at_once(architecture, rows.device)
        least = min(_SHARING_ROWS, at_once) if self.turns.dtype != self.sets.dtype else 1
        step = max(least, min(_MOST_ROWS, at_once // len(self)))
        for start in range(0, len(rows), step):
            part = slice(start, min(start + step, len(rows)))
            yield part, rows.batch(part), _blocks(len(self), max(1, at_once // step))


def _codes_at_once(architecture: Architecture, device: torch.device) -> int:
    """Return the number of codes that may be decoded at once."""
    values = VALUES if device.type == "cpu" else _ELSEWHERE
    return max(1, values // architecture.widest())


def pieces(
    rows: Dataset, n_draws: int, architecture: Architecture
) -> Iterator[tuple[slice, Batch]]:
    """Yield pieces of rows that are small enough to decode many draws for each row."""
    step = max(1, min(_MOST_ROWS, _codes_at_once(architecture, rows.device) // n_draws))
    for start in range(0, len(rows), step):
        part = slice(start, min(start + step, len(rows)))
        yield part, rows.batch(part)


def blocks(n_draws: int, architecture: Architecture, device: torch.device) -> list[slice]:
    """Return blocks of draws that are small enough to decode them for one row."""
    return _blocks(n_draws, _codes_at_once(architecture, device))


def _blocks(n_draws: int, size: int) -> list[slice]:
    return [slice(start, min(start + size, n_draws)) for start in range(0, n_draws, size)]
