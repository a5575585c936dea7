"""A dilated causal network over short sequences, and heads that make it a distribution.

What the network gives at a position depends on that position and on earlier ones only.
So a sequence whose inputs are shifted by one has a density by the chain rule,
log p(k) = sum_t log p(k_t | k_<t), in one pass; and is drawn value by value, each step of
which costs one position, as the layers remember what they have seen.

References
----------
A. van den Oord et al. (2016). WaveNet: a generative model for raw audio.
:doi:`10.48550/arXiv.1609.03499`
"""

from collections.abc import Sequence
from typing import cast

import torch
from torch import Tensor, nn
from torch.nn.functional import cross_entropy, glu, pad
from torch.utils.checkpoint import checkpoint

from skae._networks import dense

# Logits that are held at once.
_LOGITS = 2**24
# Values of all rows that are drawn together.
_ROWS = 4096


def dilations_for(n_positions: int, filter_size: int = 2) -> list[int]:
    """Powers of the filter size until the last position reads the first."""
    dilations, reach = [1], filter_size
    while reach < n_positions:
        dilations.append(dilations[-1] * filter_size)
        reach += dilations[-1] * (filter_size - 1)
    return dilations


class CausalBlock(nn.Module):
    """h + W'(a sigmoid(b)), where a and b are convolutions of h at t, t - d, t - 2d, ..."""

    def __init__(
        self, n_channels: int, dilation: int, filter_size: int, generator: torch.Generator
    ) -> None:
        super().__init__()
        self.past = [dilation * i for i in range(filter_size - 1, -1, -1)]
        self.norm = nn.LayerNorm(n_channels)
        self.enter = dense(filter_size * n_channels, 2 * n_channels, 1.0, generator)
        self.leave = dense(n_channels, n_channels, 1.0, generator)

    def forward(self, h: Tensor) -> Tensor:
        """All positions at once, (n, n_positions, n_channels)."""
        n_positions, read = h.shape[1], self.norm(h)
        taps = [pad(read, (0, 0, d, 0))[:, :n_positions] for d in self.past]
        return self._combine(h, torch.cat(taps, -1))

    def step(self, h: Tensor, seen: list[Tensor]) -> Tensor:
        """One position, (n, n_channels), after those in `seen`, which it joins."""
        seen.append(self.norm(h))
        t = len(seen) - 1
        taps = [seen[t - d] if d <= t else torch.zeros_like(h) for d in self.past]
        return self._combine(h, torch.cat(taps, -1))

    def _combine(self, h: Tensor, taps: Tensor) -> Tensor:
        return h + self.leave(glu(self.enter(taps), -1))


class CausalNetwork(nn.Module):
    """Causal blocks of growing dilation.

    Parameters
    ----------
    n_channels : int
        Numbers at each position, in and out.
    dilations : sequence of int
        One block for each.
    filter_size : int
        Positions that a block reads.
    generator : torch.Generator
        From which weights are drawn.
    """

    def __init__(
        self,
        n_channels: int,
        dilations: Sequence[int],
        generator: torch.Generator,
        filter_size: int = 2,
    ) -> None:
        super().__init__()
        self.blocks = nn.Sequential(
            *(CausalBlock(n_channels, dilation, filter_size, generator) for dilation in dilations)
        )
        self.norm = nn.LayerNorm(n_channels)

    def forward(self, h: Tensor) -> Tensor:
        """(n, n_positions, n_channels): at each position a function of those up to it."""
        out: Tensor = self.norm(self.blocks(h))
        return out

    def memory(self) -> list[list[Tensor]]:
        """What `step` remembers of the positions before: nothing yet."""
        return [[] for _ in self.blocks]

    def step(self, h: Tensor, memory: list[list[Tensor]]) -> Tensor:
        """The next position, (n, n_channels), which the memory keeps."""
        for block, seen in zip(self.blocks, memory, strict=True):
            h = cast(CausalBlock, block).step(h, seen)
        out: Tensor = self.norm(h)
        return out


class CausalCategorical(nn.Module):
    """p(k) of sequences of integers 0..K-1, log p(k) = sum_t log p(k_t | k_<t).

    Positions take turns through `n_tables` tables: each has its own embedding of the
    integers, and its own output layer. The network starts as independent positions, with
    the log shares that it is given.

    Parameters
    ----------
    log_shares : Tensor of shape (n_positions, K)
        Log frequencies of the integers at each position.
    n_tables : int
        After how many positions the tables repeat.
    n_channels : int
        Numbers at each position inside.
    generator : torch.Generator
        From which weights are drawn.
    """

    def __init__(
        self, log_shares: Tensor, n_tables: int, n_channels: int, generator: torch.Generator
    ) -> None:
        super().__init__()
        n_positions, n_values = log_shares.shape
        self.n_tables = n_tables
        drawn = [
            torch.randn(shape, generator=generator) / n_channels**0.5
            for shape in ((n_tables, n_values, n_channels), (n_positions, n_channels))
        ]
        self.embedding, self.position = (nn.Parameter(values) for values in drawn)
        self.network = CausalNetwork(n_channels, dilations_for(n_positions), generator)
        self.head = nn.Parameter(torch.zeros(n_tables, n_channels, n_values))
        self.bias = nn.Parameter(log_shares.clone())

    def log_prob(self, k: Tensor) -> Tensor:
        """log p(k_t | k_<t), (n, n_positions), of integers (n, n_positions)."""
        h = self.network(self._inputs(k)).unflatten(1, (-1, self.n_tables))
        values = k.unflatten(1, (-1, self.n_tables))
        bias = self.bias.unflatten(0, (-1, self.n_tables))
        found = []
        for table in range(self.n_tables):
            parts = (h[:, :, table], self.head[table], bias[:, table], values[:, :, table])
            found.append(self._of_table(*parts))
        return torch.stack(found, -1).flatten(1)

    def _of_table(self, h: Tensor, head: Tensor, bias: Tensor, k: Tensor) -> Tensor:
        """The same of one table's positions; logits are held for some rows at a time."""
        rows = max(1, _LOGITS // bias.numel())
        if len(h) <= rows:
            return _log_mass(h, head, bias, k)
        parts = zip(h.split(rows), k.split(rows), strict=True)
        if not torch.is_grad_enabled():
            return torch.cat([_log_mass(part, head, bias, of) for part, of in parts])
        # Logits are computed anew for the gradient: those of all rows would not fit.
        return torch.cat(
            [
                checkpoint(
                    _log_mass, part, head, bias, of, use_reentrant=False, preserve_rng_state=False
                )
                for part, of in parts
            ]
        )

    def _inputs(self, k: Tensor) -> Tensor:
        """What the network reads: values shifted by one, nothing at the first position."""
        return pad(self._embedded(k), (0, 0, 1, 0))[:, :-1] + self.position

    def _embedded(self, k: Tensor, start: int = 0) -> Tensor:
        """Embeddings of integers whose first position is `start`."""
        table = torch.arange(start, start + k.shape[1], device=k.device) % self.n_tables
        return self.embedding[table, k]

    def _logits(self, h: Tensor, t: int) -> Tensor:
        return h @ self.head[t % self.n_tables] + self.bias[t]

    def sample(self, n: int, generator: torch.Generator, *, cached: bool = True) -> Tensor:
        """Sequences (n, n_positions) from p(k).

        Without the cache every step goes through the network from the first position on.
        """
        draw = self._draw if cached else self._draw_slowly
        parts = [draw(min(_ROWS, n - start), generator) for start in range(0, n, _ROWS)]
        return torch.cat(parts)

    def _draw(self, n: int, generator: torch.Generator) -> Tensor:
        memory, drawn = self.network.memory(), []
        h = self.position[0].expand(n, -1)
        for t in range(len(self.position)):
            drawn.append(_draw_one(self._logits(self.network.step(h, memory), t), generator))
            if t + 1 < len(self.position):
                h = self._embedded(drawn[-1], t)[:, 0] + self.position[t + 1]
        return torch.cat(drawn, 1)

    def _draw_slowly(self, n: int, generator: torch.Generator) -> Tensor:
        k = self.bias.new_zeros((n, len(self.position)), dtype=torch.int64)
        for t in range(len(self.position)):
            h = self.network(self._inputs(k))[:, t]
            k[:, t] = _draw_one(self._logits(h, t), generator)[:, 0]
        return k


def _log_mass(h: Tensor, head: Tensor, bias: Tensor, k: Tensor) -> Tensor:
    logits = h @ head + bias
    return -cross_entropy(logits.flatten(0, 1), k.flatten(), reduction="none").view(k.shape)


def _draw_one(logits: Tensor, generator: torch.Generator) -> Tensor:
    return torch.multinomial(logits.softmax(-1), 1, generator=generator)
