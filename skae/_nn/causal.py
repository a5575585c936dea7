"""A dilated causal network over short sequences, and the distributions that it parametrises.

The output of the network at a position depends only on that position and on earlier ones. If the
inputs are shifted by one position, one pass gives the density of a sequence by the chain rule, log
p(k) = sum_t log p(k_t | k_<t). Sampling draws one value after another; each step computes a single
position, because the layers store their inputs from earlier positions.

References
----------
A. van den Oord et al. (2016). WaveNet: a generative model for raw audio.
:doi:`10.48550/arXiv.1609.03499`
"""

from collections.abc import Callable, Sequence
from functools import partial
from typing import cast

import torch
from torch import Tensor, nn
from torch.nn.functional import cross_entropy, glu, linear, pad
from torch.utils.checkpoint import checkpoint

from skae._nn.gated_convolution import gated_convolution
from skae._nn.mixture_heads import Mixtures
from skae._nn.networks import dense
from skae._training.contexts import is_exporting

# Number of logits that are in memory at once.
_LOGITS = 2**24
# Number of rows that are drawn together.
_ROWS = 4096
# Relative variation of numbers below which they differ only by rounding.
_FLAT = 1e-5
# Initial scale of each integer's free parameters, relative to those that follow from its vector.
_OWN = 0.1
# Initial scale of the weights that map the network's output to the mixture components.
_FIRST = 0.1
# In a scale's initial weights, the decrease per position of distance, as a logarithm.
_FADING = 0.05
# Number of inputs of the network at each position if there is a scale, and the largest absolute
# value of one that is in units of the scale.
_N_READ, _FAR = 5, 8.0


def dilations_for(n_positions: int, filter_size: int = 2) -> list[int]:
    """Return powers of the filter size, so many that the last position reads the first."""
    dilations, reach = [1], filter_size
    while reach < n_positions:
        dilations.append(dilations[-1] * filter_size)
        reach += dilations[-1] * (filter_size - 1)
    return dilations


class CausalBlock(nn.Module):
    """The block h + W'(a sigmoid(b)), with convolutions a and b of h at t, t - d, t - 2d, ..."""

    def __init__(
        self, n_channels: int, dilation: int, filter_size: int, generator: torch.Generator
    ) -> None:
        super().__init__()
        self.norm = nn.LayerNorm(n_channels)
        self.enter = dense(filter_size * n_channels, 2 * n_channels, 1.0, generator)
        self.past = [dilation * i for i in range(filter_size - 1, -1, -1)]
        self.leave = dense(n_channels, n_channels, 1.0, generator)

    def forward(self, h: Tensor) -> Tensor:
        """Compute all positions at once, (n_positions, n, n_channels)."""
        read: Tensor = self.norm(h)
        weight, bias = cast(Tensor, self.enter.weight), cast(Tensor, self.enter.bias)
        return h + self.leave(gated_convolution(read, weight, bias, self.past))

    def step(self, h: Tensor, seen: list[Tensor]) -> Tensor:
        """Compute one position, (n, n_channels), after those in `seen`, and append it to them."""
        seen.append(self.norm(h))
        t = len(seen) - 1
        taps = [seen[t - d] if d <= t else torch.zeros_like(h) for d in self.past]
        return h + self.leave(glu(self.enter(torch.cat(taps, -1)), -1))


class CausalNetwork(nn.Module):
    """Causal blocks of increasing dilation.

    Positions are the first axis, so that the earlier positions that a block reads are contiguous.

    Parameters
    ----------
    n_channels : int
        Number of inputs and outputs at each position.
    dilations : sequence of int
        Dilation of each block.
    filter_size : int
        Number of positions that a block reads.
    generator : torch.Generator
        Generator that draws the weights.
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
        """Compute outputs (n_positions, n, n_channels), each from the positions up to its own."""
        out: Tensor = self.norm(self.blocks(h))
        return out

    def memory(self) -> list[list[Tensor]]:
        """Return the memory of `step` before the first position, which is empty."""
        return [[] for _ in self.blocks]

    def step(self, h: Tensor, memory: list[list[Tensor]]) -> Tensor:
        """Compute the next position, (n, n_channels), and append it to the memory."""
        for block, seen in zip(self.blocks, memory, strict=True):
            h = cast(CausalBlock, block).step(h, seen)
        out: Tensor = self.norm(h)
        return out


class CausalScale(nn.Module):
    """Size of z_t as predicted from the numbers before it, g_t = (sum_{j<t} w_tj z_j² + w_t0)^1/2.

    If the sizes of numbers are related, as those of an image patch are by its contrast, the numbers
    are easier to predict in units of g. The weights of each position are positive and have the sum
    one, so that g is near 1 for white noise.
    """

    def __init__(self, n_positions: int) -> None:
        super().__init__()
        lag = torch.arange(n_positions)[:, None] - torch.arange(n_positions)
        self.logit = nn.Parameter(-_FADING * lag.clamp(min=0).float())
        self.constant = nn.Parameter(torch.full((n_positions, 1), -1.0))

    def log_scales(self, z: Tensor, first: int = 0) -> Tensor:
        """Return log g of z (n_positions, n) from `first` on, (n_positions - first, n)."""
        n = len(z)
        past = torch.ones((n, n), dtype=torch.bool, device=z.device).tril(-1)[first:]
        logit = self.logit[first:n, :n].masked_fill(~past, -torch.inf)
        weight = torch.cat([logit, self.constant[first:n]], 1).softmax(1)
        # The weights of positions t and later are zero, so that their values may be any finite
        # numbers.
        return 0.5 * (linear(z.square().T, weight[:, :-1]).T + weight[:, -1:]).log()


class CausalMixture(nn.Module):
    """p(z) of sequences of numbers, with a mixture of Gaussians or logistics for each conditional.

    log p(z) = sum_t log p(z_t | z_<t), where the causal network gives the components of each
    conditional. Its input is the sequence shifted by one: at position t the number z_{t-1} and a
    mask of 1. At the first position the input is 0 and the mask is 0.

    Parameters
    ----------
    n_positions : int
        Length of the sequences.
    n_mixture : int
        Number K of components of each conditional.
    n_channels : int
        Number of hidden units at each position.
    dilations : sequence of int
        Dilation of each block of the network.
    filter_size : int
        Number of positions that a block reads.
    position_embedding : bool
        Whether the network reads an embedding of the position.
    relative : bool
        Whether numbers are read and predicted in units of a `CausalScale`.
    n_orders : int
        Number of orders of the same numbers that share the network. Each order has its own scales
        and position embeddings.
    kind : {"gaussian", "logistic"}
        Kind of the components.
    generator : torch.Generator
        Generator that draws the weights.
    """

    def __init__(
        self,
        n_positions: int,
        n_mixture: int,
        n_channels: int,
        dilations: Sequence[int],
        generator: torch.Generator,
        *,
        filter_size: int = 2,
        position_embedding: bool = False,
        relative: bool = False,
        n_orders: int = 1,
        kind: str = "gaussian",
    ) -> None:
        super().__init__()
        self.n_positions, self.kind = n_positions, kind
        scales = [CausalScale(n_positions) for _ in range(n_orders)]
        self.scales = nn.ModuleList(scales) if relative else None
        self.enter: nn.Module = dense(_N_READ if relative else 2, n_channels, 1.0, generator)
        self.position: nn.Parameter | None = None
        self.start: nn.Parameter | None = None
        if position_embedding:
            drawn = torch.randn((n_orders, n_positions, n_channels), generator=generator)
            self.position = nn.Parameter(drawn * n_channels**-0.5)
            self.start = nn.Parameter(torch.zeros(n_orders, n_positions, 3 * n_mixture))
        self.network = CausalNetwork(n_channels, dilations, generator, filter_size)
        self.leave = dense(n_channels, 3 * n_mixture, _FIRST, generator)
        # Equal components would all learn the same.
        _, mean, log_scale = cast(Tensor, self.leave.bias).view(3, -1)
        spread = torch.linspace(-1, 1, n_mixture + 2)[1:-1]
        with torch.no_grad():
            mean.copy_(spread)
            log_scale.copy_(spread[torch.randperm(n_mixture, generator=generator)])

    def conditionals(self, z: Tensor, order: int = 0) -> Mixtures:
        """Return p(z_t | z_<t) for every t, (n_positions, n, K), of sequences (n_positions, n)."""
        with torch.autocast(z.device.type, enabled=False):  # inputs and outputs need full precision
            log_g = self._log_scales(z, order)
            h = self._enter(self._read(z, log_g), order)
        h = self.network(h)
        with torch.autocast(z.device.type, enabled=False):
            return self._head(h.to(z.dtype), log_g, order)

    def _log_scales(self, z: Tensor, order: int, first: int = 0) -> Tensor | None:
        if self.scales is None:
            return None
        return cast(CausalScale, self.scales[order]).log_scales(z, first)

    def _read(self, z: Tensor, log_g: Tensor | None) -> Tensor:
        """Return the network's inputs at each position: the number before it, and the scale."""
        seen = [z] if log_g is None else [*_in_units(z, log_g)]
        before = torch.stack([*seen, torch.ones_like(z)], -1)
        before = pad(before, (0, 0, 0, 0, 1, 0))[:-1]
        return before if log_g is None else torch.cat([before, log_g[..., None]], -1)

    def _enter(self, read: Tensor, order: int, first: int = 0) -> Tensor:
        h: Tensor = self.enter(read)
        if self.position is None:
            return h
        return h + self.position[order, first : first + len(h), None]

    def _head(self, h: Tensor, log_g: Tensor | None, order: int, first: int = 0) -> Mixtures:
        out = self.leave(h)
        if self.start is not None:
            out = out + self.start[order, first : first + len(h), None]
        found = Mixtures.from_network(out, self.kind)
        return found if log_g is None else found.in_units(log_g)

    def log_prob(self, z: Tensor, order: int = 0) -> Tensor:
        """Return log p(z_t | z_<t), (n, n_positions)."""
        steps = z.T.contiguous()
        return self.conditionals(steps, order).log_prob(steps).T

    def unfold(
        self,
        n: int,
        choose: Callable[[int, Mixtures], Tensor],
        order: int = 0,
        *,
        cached: bool = True,
    ) -> Tensor:
        """Build sequences (n, n_positions), one number after another.

        `choose` is called with a position and the conditionals there, (n, K), and returns the
        numbers. Without `cached`, every step computes the network from the first position on.
        """
        memory = self.network.memory()
        z = cast(Tensor, self.leave.weight).new_zeros((self.n_positions, n))
        for t in range(self.n_positions):
            some = z[: t + 1]  # the last number is not known yet, and has no effect
            first = max(t - 1, 0) if cached else 0
            log_g = self._log_scales(some, order, first)
            if cached:
                read = self._read(some[first:], log_g)[-1:]
                h = self.network.step(self._enter(read, order, t)[0], memory)
            else:
                h = self.network(self._enter(self._read(some, log_g), order))[-1]
            now = None if log_g is None else log_g[-1:]
            found = self._head(h[None], now, order, t)
            z[t] = choose(t, found.of(0))
        return z.T


def _in_units(z: Tensor, log_g: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """Return a number clipped to a moderate size, and in units of the scale before it."""
    relative = z * (-log_g).exp()
    return z.asinh(), relative.tanh(), 0.5 * relative.clamp(-_FAR, _FAR)


class CausalCategorical(nn.Module):
    """p(k) of sequences of integers 0..K-1, log p(k) = sum_t log p(k_t | k_<t).

    Each integer stands for a vector v, and integers with similar vectors are likely in similar
    places. The network's input for an integer and its logit are therefore linear in (v, |v|²),
    which includes the log density of a Gaussian around a point; free parameters of each integer are
    added. Positions use the tables of these vectors in turn.

    Initially, the positions are independent, with the given log frequencies.

    Parameters
    ----------
    log_frequencies : Tensor of shape (n_positions, K)
        Log frequencies of the integers at each position.
    vectors : Tensor of shape (n_tables, K, n_dimensions)
        Vectors of the integers; position t uses vectors[t % n_tables].
    n_channels : int
        Number of hidden units at each position.
    generator : torch.Generator
        Generator that draws the weights.
    """

    features: Tensor

    def __init__(
        self, log_frequencies: Tensor, vectors: Tensor, n_channels: int, generator: torch.Generator
    ) -> None:
        super().__init__()
        n_positions, n_values = log_frequencies.shape
        self.n_tables, n_features = vectors.shape[0], vectors.shape[2] + 1
        self.register_buffer("features", vectors.new_zeros(self.n_tables, n_values, n_features))
        self.set_vectors(vectors)

        def drawn(*shape: int, scale: float) -> nn.Parameter:
            return nn.Parameter(scale * torch.randn(shape, generator=generator))

        tables = (self.n_tables, n_values, n_channels)
        self.enter = drawn(self.n_tables, n_features, n_channels, scale=n_features**-0.5)
        self.own_enter = drawn(*tables, scale=_OWN / n_channels**0.5)
        self.position = drawn(n_positions, n_channels, scale=n_channels**-0.5)
        self.network = CausalNetwork(n_channels, dilations_for(n_positions), generator)
        self.leave = nn.Parameter(torch.zeros(self.n_tables, n_features, n_channels))
        self.own_leave = nn.Parameter(torch.zeros(tables))
        self.bias = nn.Parameter(log_frequencies.clone())

    @torch.no_grad()
    def set_vectors(self, vectors: Tensor) -> None:
        """Set the vectors of the integers."""
        wide = vectors.cpu().double()  # far from zero, squares overflow or lose precision
        features = torch.cat([wide, wide.square().sum(-1, keepdim=True)], -1)
        size = features.square().mean(1, keepdim=True).sqrt()
        features -= features.mean(1, keepdim=True)
        spread = features.square().mean(1, keepdim=True).sqrt()
        self.features.copy_(torch.where(spread > _FLAT * size, features / spread, 0.0))

    def tables(self) -> tuple[Tensor, Tensor]:
        """Return the inputs of each integer and the weights of its logit, (..., K, C)."""
        return (
            self.features @ self.enter + self.own_enter,
            self.features @ self.leave + self.own_leave,
        )

    def log_prob(self, k: Tensor) -> Tensor:
        """Return log p(k_t | k_<t), (n, n_positions), of integers (n, n_positions)."""
        enter, leave = self.tables()
        h = self.network(self._inputs(k, enter).transpose(0, 1)).transpose(0, 1)
        h = h.unflatten(1, (-1, self.n_tables))
        bias = self.bias.unflatten(0, (-1, self.n_tables))
        values = k.unflatten(1, (-1, self.n_tables))
        found = [
            _in_pieces(h[:, :, table], leave[table], bias[:, table], values[:, :, table])
            for table in range(self.n_tables)
        ]
        return torch.stack(found, -1).flatten(1)

    def _inputs(self, k: Tensor, enter: Tensor) -> Tensor:
        """Return the network's inputs: values shifted by one, and zero at the first position."""
        table = torch.arange(k.shape[1], device=k.device) % self.n_tables
        return pad(enter[table, k], (0, 0, 1, 0))[:, :-1] + self.position[: k.shape[1]]

    def sample(self, n: int, generator: torch.Generator, *, cached: bool = True) -> Tensor:
        """Draw sequences (n, n_positions) from p(k).

        Without `cached`, every step computes the network from the first position on.
        """
        draw = self._draw if cached else self._draw_slowly
        rows = min(_ROWS, max(1, _LOGITS // self.bias.shape[1]))
        shape, device = (n, len(self.position)), self.position.device
        drawn = torch.empty(shape, dtype=torch.int64, device=device)  # raises before a long loop
        for done in range(0, n, rows):
            drawn[done : done + rows] = draw(min(rows, n - done), generator)
        return drawn

    def _draw(self, n: int, generator: torch.Generator) -> Tensor:
        enter, leave = self.tables()
        memory = self.network.memory()
        drawn: list[Tensor] = []
        h = self.position[0].expand(n, -1)
        for t, position in enumerate(self.position):
            if t:
                h = enter[(t - 1) % self.n_tables, drawn[-1]] + position
            out = self.network.step(h, memory)
            drawn.append(_draw_one(out @ leave[t % self.n_tables].T + self.bias[t], generator))
        return torch.stack(drawn, 1)

    def _draw_slowly(self, n: int, generator: torch.Generator) -> Tensor:
        enter, leave = self.tables()
        k = torch.zeros((n, len(self.position)), dtype=torch.int64, device=self.bias.device)
        for t in range(len(self.position)):
            out = self.network(self._inputs(k[:, : t + 1], enter).transpose(0, 1))[t]
            k[:, t] = _draw_one(out @ leave[t % self.n_tables].T + self.bias[t], generator)
        return k


def _in_pieces(h: Tensor, leave: Tensor, bias: Tensor, k: Tensor) -> Tensor:
    """Return log masses of integers (n, n_positions), with the logits of some rows at a time."""
    rows = max(1, _LOGITS // bias.numel())
    if is_exporting() or len(h) <= rows:
        return _log_mass(h, leave, bias, k)
    parts = zip(h.split(rows), k.split(rows), strict=True)
    if not torch.is_grad_enabled():
        return torch.cat([_log_mass(part, leave, bias, of) for part, of in parts])
    # Logits are computed again for the gradient, because those of all rows would not fit into
    # memory.
    anew = partial(checkpoint, _log_mass, use_reentrant=False, preserve_rng_state=False)
    return torch.cat([anew(part, leave, bias, of) for part, of in parts])


def _log_mass(h: Tensor, leave: Tensor, bias: Tensor, k: Tensor) -> Tensor:
    logits = h @ leave.T + bias
    if is_exporting():  # torch 2.13 cannot translate the cross entropy below
        return logits.log_softmax(-1).gather(-1, k[..., None])[..., 0]
    return -cross_entropy(logits.flatten(0, 1), k.flatten(), reduction="none").view(k.shape)


def _draw_one(logits: Tensor, generator: torch.Generator) -> Tensor:
    """Draw an integer for every row by inverting its distribution function."""
    wide = torch.float32 if logits.device.type == "mps" else torch.float64  # "mps" has no float64
    reached = logits.softmax(-1, dtype=wide).cumsum(-1)
    chance = torch.rand((len(logits), 1), generator=generator, device=logits.device, dtype=wide)
    drawn = torch.searchsorted(reached, chance * reached[:, -1:], right=True)[:, 0]
    return drawn.clamp(max=logits.shape[1] - 1)
