"""p(k) of the indices that code a row: independent positions, or one after the other."""

import copy
from math import ceil, log
from typing import Any, Self

import numpy as np
import torch
from numpy.typing import NDArray
from scipy.optimize import minimize_scalar
from torch import Tensor, nn

from skae._nn.causal import CausalCategorical
from skae._training.data import Batch, Data, Dataset, Units
from skae._training.module import Loss, TrainableModule, weighted_mean
from skae._training.trainer import Trainer, TrainingOptions

Array = NDArray[Any]
Indices = NDArray[np.int64]

# Logits by which a prior is softened, about.
_SOFTENING_LOGITS = 2**24


def smoothed_frequencies(counts: Array, apart: tuple[Array, Array] | None = None) -> Array:
    """Frequencies of K values (n_positions, K), of counts of which every row adds up alike.

    (n_k + a/K) / (n + a), with the pseudo-count a that predicts each of the n observations
    best from the n - 1 others; or, if these are given, the second counts from the first.
    """
    n_values = counts.shape[1]
    if apart is None:
        seen, times = np.unique(counts, return_counts=True)
        known, weight, n = np.maximum(seen - 1, 0.0), seen * times, counts.sum(1).max() - 1
    else:
        known, weight, n = apart[0].ravel(), apart[1].ravel(), apart[0].sum(1).max()

    def predicted(a: float) -> float:
        return float(weight @ np.log((known + a / n_values) / (max(n, 0.0) + a)))

    # Of equals the first, which is the most cautious.
    best = max(np.geomspace(1e2 * n_values, 1e-2, 33), key=predicted)
    frequencies: Array = (counts + best / n_values) / (counts.sum(1, keepdims=True) + best)
    return frequencies


def index_counts(indices: NDArray[np.int64], weight: Array | None, n_values: int) -> Array:
    """How often each of K values stands at each position; in all, as often as there are rows."""
    n_rows, n_positions = indices.shape
    places = indices + n_values * np.arange(n_positions)
    weights = None
    if weight is not None:
        weights = np.repeat(weight * (n_rows / weight.sum()), n_positions)
    counts = np.bincount(places.ravel(), weights, n_values * n_positions)
    return counts.reshape(n_positions, n_values).astype(np.float64)


def counts_apart(
    indices: Indices, weight: Array | None, held_out: Tensor, n_values: int
) -> tuple[Array, Array]:
    """Counts of the values in the rows that are not held out, and in those that are."""
    apart = np.zeros(len(indices), dtype=bool)
    apart[held_out.numpy()] = True
    first, second = (
        index_counts(indices[of], None if weight is None else weight[of], n_values)
        for of in (~apart, apart)
    )
    return first, second


class IndexPriorModule(TrainableModule):
    """The causal network over indices, as the loop trains it."""

    def __init__(
        self, log_frequencies: Tensor, codebook: Tensor, n_channels: int, generator: torch.Generator
    ) -> None:
        super().__init__()
        self.sequence = CausalCategorical(log_frequencies, codebook, n_channels, generator)

    def loss(self, batch: Batch) -> Loss:
        """-log p(k), nats per row."""
        log_prob = self.sequence.log_prob(batch.x.long()).sum(1)
        return Loss({"prior": -weighted_mean(log_prob, batch.weight)}, batch.x)

    def passes_per_row(self) -> int:
        return len(self.sequence.position)

    def decayed(self) -> list[nn.Parameter]:
        """Weights of the layers: frequencies, and numbers that few rows speak of, stay."""
        return [p for p in self.sequence.network.parameters() if p.ndim > 1]

    def step_scale(self) -> float:
        """Nats per index: steps should not grow with their number."""
        return 1 / len(self.sequence.position)


# ----------------------------------------------------------------------- densities


class UniformPrior:
    """All indices alike: what scores codes where no prior is learned, and draws none."""

    def __init__(self, n_values: int) -> None:
        self.n_values = n_values

    def log_prob(self, k: Tensor) -> Tensor:
        """log p(k) of indices (n, n_positions), nats."""
        return torch.full((len(k),), -k.shape[1] * log(self.n_values), device=k.device)

    def sample(self, n: int, generator: torch.Generator) -> Tensor:
        """Refused."""
        raise ValueError(
            "prior=None: there is no p(k) to draw codes from. Fit with prior='autoregressive' "
            "or 'independent', or decode indices of your own by inverse_transform."
        )


class IndependentPrior:
    """Positions that know nothing of each other.

    Parameters
    ----------
    frequencies : ndarray of shape (n_positions, n_values)
        Of the values at each position.
    n_rows : float
        Of so many rows: the fewer they are, the more even is the prior.
    apart : tuple of ndarray, default=None
        Counts in some of the rows, and in others, by which it is told how even.
    """

    def __init__(
        self, frequencies: Array, n_rows: float, apart: tuple[Array, Array] | None = None
    ) -> None:
        self.frequencies = frequencies
        self.log_frequencies = np.log(smoothed_frequencies(n_rows * frequencies, apart))

    @classmethod
    def of_logs(cls, frequencies: Array, log_frequencies: Array) -> Self:
        """As it was saved."""
        new = cls.__new__(cls)
        new.frequencies, new.log_frequencies = frequencies, log_frequencies
        return new

    def log_prob(self, k: Tensor) -> Tensor:
        """log p(k) of indices (n, n_positions), nats."""
        return self._on(k.device)[torch.arange(k.shape[1], device=k.device), k].sum(1)

    def sample(self, n: int, generator: torch.Generator) -> Tensor:
        """Indices (n, n_positions)."""
        chances = self._on(generator.device).exp()
        return torch.multinomial(chances, n, replacement=True, generator=generator).T

    def _on(self, device: torch.device) -> Tensor:
        return torch.from_numpy(self.log_frequencies.astype(np.float32)).to(device)


class AutoregressivePrior:
    """A causal network over indices, one after the other."""

    def __init__(self, trainer: Trainer) -> None:
        self.trainer = trainer

    @classmethod
    def new(
        cls,
        log_frequencies: Array,
        state: dict[str, Any] | None = None,
        *,
        codebook: Tensor,
        n_channels: int,
        options: TrainingOptions,
        seed: int,
    ) -> Self:
        """One that starts at these frequencies of positions, apart from each other; or as it was
        saved."""
        generator = torch.Generator().manual_seed(seed + 5)
        start = torch.from_numpy(log_frequencies.astype(np.float32))
        module = IndexPriorModule(start, codebook.cpu(), n_channels, generator)
        more: dict[str, Any] = {"seed": seed, "name": "VQVAE, prior", "useful_untrained": True}
        if state is None:
            return cls(Trainer(module, options, **more))
        return cls(Trainer.of_state(state, module, options, **more))

    def fork(self, options: TrainingOptions) -> "AutoregressivePrior":
        """One that goes on from this one by these options; this one stays as it is."""
        return AutoregressivePrior(self.trainer.fork(options))

    def __copy__(self) -> "AutoregressivePrior":
        """The same with a network of its own."""
        return AutoregressivePrior(self.trainer.copy())

    @property
    def sequence(self) -> CausalCategorical:
        """p(k) of sequences."""
        sequence: CausalCategorical = self.trainer.module.sequence
        return sequence

    def log_prob(self, k: Tensor) -> Tensor:
        """log p(k) of indices (n, n_positions), nats."""
        return self.sequence.log_prob(k).sum(1)

    def sample(self, n: int, generator: torch.Generator) -> Tensor:
        """Indices (n, n_positions)."""
        return self.sequence.sample(n, generator)

    def fit(
        self,
        codes: Indices,
        weight: Array | None,
        valid: Tensor | None,
        n_values: int,
        keeps_progress: bool,
    ) -> None:
        """Train until held-out rows gain nothing: `valid`, or a random part of them."""
        train, valid = self._split(len(codes), valid)
        if not self.trainer.n_epochs:
            self._leave_out(codes, weight, train, n_values)
        rows = self._dataset(codes, weight)
        self.trainer.fit(rows, train, valid, keeps_progress=keeps_progress)

    def partial_fit(self, codes: Indices, weight: Array | None) -> None:
        """Train for one epoch."""
        self.trainer.partial_fit(self._dataset(codes, weight))

    @torch.no_grad()
    def soften(self, codes: Indices, weight: Array | None, held_out: Tensor) -> None:
        """Multiply all logits by the number in [0, 1] at which rows that neither this network nor
        the encoder was trained on are most likely (temperature scaling; 0 is the uniform p)."""
        # In float64: a flat maximum is found to the root of the precision. One number needs not
        # all rows of a large set.
        wide = copy.deepcopy(self.sequence).cpu().double()
        step = ceil(len(held_out) * wide.bias.numel() / _SOFTENING_LOGITS)
        rows = held_out.numpy()[::step]
        k = torch.from_numpy(codes[rows])
        w = None if weight is None else torch.as_tensor(weight[rows], dtype=torch.float64)
        heads = (wide.leave, wide.own_leave, wide.bias)
        as_trained = [head.clone() for head in heads]

        def cost(factor: float) -> float:
            for head, value in zip(heads, as_trained, strict=True):
                head.copy_(factor * value)
            return -float(weighted_mean(wide.log_prob(k).sum(1), w))

        found = minimize_scalar(cost, bounds=(0.0, 1.0), method="bounded", options={"xatol": 1e-6})
        # The cost is convex; the search stays off its bounds.
        factor = min((1.0, 0.0, float(found.x)), key=cost)
        for head in (self.sequence.leave, self.sequence.own_leave, self.sequence.bias):
            head.mul_(factor)

    def _dataset(self, codes: Indices, weight: Array | None) -> Dataset:
        return Dataset(
            Data(codes, weight),
            units=Units(None, None),
            with_mask=False,
            reread=True,
            device=self.trainer.device,
        )

    def _split(self, n_rows: int, valid: Tensor | None) -> tuple[Tensor, Tensor]:
        """Rows to train on, and rows that tell when to stop."""
        if n_rows == 1:
            return torch.arange(1), torch.arange(1)
        if valid is None:
            fraction = self.trainer.options.validation_fraction
            n_valid = min(ceil(fraction * n_rows), n_rows - 1)
            generator = torch.Generator().manual_seed(self.trainer.seed + 1)
            valid = torch.randperm(n_rows, generator=generator)[:n_valid].sort().values
        held_out = torch.zeros(n_rows, dtype=torch.bool)
        held_out[valid] = True
        return (~held_out).nonzero()[:, 0], valid

    @torch.no_grad()
    def _leave_out(
        self, codes: Indices, weight: Array | None, train: Tensor, n_values: int
    ) -> None:
        """Start at the frequencies in rows that the network is trained on, and no others."""
        kept = train.numpy()
        counts = index_counts(codes[kept], None if weight is None else weight[kept], n_values)
        self.sequence.bias.copy_(torch.from_numpy(np.log(smoothed_frequencies(counts))))
