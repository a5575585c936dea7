"""The prior p(k) of the indices that encode a row: independent or autoregressive positions."""

import copy
from contextlib import nullcontext
from math import ceil, log
from typing import Any, Self

import numpy as np
import torch
from numpy.typing import NDArray
from scipy.optimize import minimize_scalar
from torch import Tensor, nn

from skae._nn.causal import CausalCategorical
from skae._training.data import Batch, Data, Dataset
from skae._training.module import Loss, TrainableModule, weighted_mean
from skae._training.tasks import FitTasks
from skae._training.trainer import Trainer, TrainingOptions
from skae._training.units import Units

Array = NDArray[Any]
Indices = NDArray[np.int64]

# Approximate number of logits from which the temperature of a prior is determined.
_SOFTENING_LOGITS = 2**24


def smoothed_frequencies(counts: Array, apart: tuple[Array, Array] | None = None) -> Array:
    """Return smoothed frequencies of K values (n_positions, K); all rows of counts have equal sums.

    They are (n_k + a/K) / (n + a). The pseudo-count a is the one that predicts each of the n
    observations best from the other n - 1; or, if `apart` is given, its second counts from its
    first.
    """
    n_values = counts.shape[1]
    if apart is None:
        seen, times = np.unique(counts, return_counts=True)
        known, weight, n = np.maximum(seen - 1, 0.0), seen * times, counts.sum(1).max() - 1
    else:
        known, weight, n = apart[0].ravel(), apart[1].ravel(), apart[0].sum(1).max()

    def predicted(a: float) -> float:
        return float(weight @ np.log((known + a / n_values) / (max(n, 0.0) + a)))

    # Of equally good pseudo-counts, the largest is used.
    best = max(np.geomspace(1e2 * n_values, 1e-2, 33), key=predicted)
    frequencies: Array = (counts + best / n_values) / (counts.sum(1, keepdims=True) + best)
    return frequencies


def index_counts(indices: NDArray[np.int64], weight: Array | None, n_values: int) -> Array:
    """Return the weight of each of K values at each position; it sums to the number of rows."""
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
    """Return the counts of the values in the other rows, and in the held-out rows."""
    apart = np.zeros(len(indices), dtype=bool)
    apart[held_out.numpy()] = True
    first, second = (
        index_counts(indices[of], None if weight is None else weight[of], n_values)
        for of in (~apart, apart)
    )
    return first, second


class IndexPriorModule(TrainableModule):
    """The causal network over indices as a module of the training loop."""

    def __init__(
        self, log_frequencies: Tensor, codebook: Tensor, n_channels: int, generator: torch.Generator
    ) -> None:
        super().__init__()
        self.sequence = CausalCategorical(log_frequencies, codebook, n_channels, generator)

    def loss(self, batch: Batch) -> Loss:
        """Return -log p(k) in nats per row."""
        log_prob = self.sequence.log_prob(batch.x.long()).sum(1)
        return Loss({"prior": -weighted_mean(log_prob, batch.weight)}, batch.x)

    def passes_per_row(self) -> int:
        return len(self.sequence.position)

    def decayed(self) -> list[nn.Parameter]:
        """Return the weights of the layers, without frequencies and free parameters of integers."""
        return [p for p in self.sequence.network.parameters() if p.ndim > 1]

    def step_scale(self) -> float:
        """Return the factor to nats per index: steps do not depend on the number of indices."""
        return 1 / len(self.sequence.position)


# ----------------------------------------------------------------------- densities


class UniformPrior:
    """The uniform prior, which scores codes if no prior is learned, and draws none."""

    def __init__(self, n_values: int) -> None:
        self.n_values = n_values

    def log_prob(self, k: Tensor) -> Tensor:
        """Return log p(k) of indices (n, n_positions) in nats."""
        return torch.full(k.shape[:1], -k.shape[1] * log(self.n_values), device=k.device)

    def sample(self, n: int, generator: torch.Generator) -> Tensor:
        """Raise a ValueError, because there is no learned prior."""
        raise ValueError(
            "prior=None learns no p(k) from which codes could be drawn. Fit with "
            "prior='autoregressive' or 'independent', or decode your own indices with "
            "inverse_transform."
        )


class IndependentPrior:
    """A prior with independent positions.

    Parameters
    ----------
    frequencies : ndarray of shape (n_positions, n_values)
        Frequencies of the values at each position.
    n_rows : float
        Number of rows that were counted. With fewer rows, the prior is closer to the uniform one.
    apart : tuple of ndarray, default=None
        Counts in some rows and in other rows, which determine the smoothing.
    """

    def __init__(
        self, frequencies: Array, n_rows: float, apart: tuple[Array, Array] | None = None
    ) -> None:
        self.frequencies = frequencies
        self.log_frequencies = np.log(smoothed_frequencies(n_rows * frequencies, apart))

    @classmethod
    def of_logs(cls, frequencies: Array, log_frequencies: Array) -> Self:
        """Restore from saved values."""
        new = cls.__new__(cls)
        new.frequencies, new.log_frequencies = frequencies, log_frequencies
        return new

    def log_prob(self, k: Tensor) -> Tensor:
        """Return log p(k) of indices (n, n_positions) in nats."""
        return self._on(k.device)[torch.arange(k.shape[1], device=k.device), k].sum(1)

    def sample(self, n: int, generator: torch.Generator) -> Tensor:
        """Draw indices (n, n_positions)."""
        chances = self._on(generator.device).exp()
        return torch.multinomial(chances, n, replacement=True, generator=generator).T

    def _on(self, device: torch.device) -> Tensor:
        return torch.from_numpy(self.log_frequencies.astype(np.float32)).to(device)


class AutoregressivePrior:
    """A prior with an autoregressive causal network over indices."""

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
        name: str,
    ) -> Self:
        """Return a prior that begins with independent positions of these frequencies.

        With `state`, a saved prior is restored.
        """
        generator = torch.Generator().manual_seed(seed + 5)
        start = torch.from_numpy(log_frequencies.astype(np.float32))
        module = IndexPriorModule(start, codebook.cpu(), n_channels, generator)
        more: dict[str, Any] = {"seed": seed, "name": name, "useful_untrained": True}
        if state is None:
            return cls(Trainer(module, options, **more))
        return cls(Trainer.of_state(state, module, options, **more))

    def fork(self, options: TrainingOptions) -> "AutoregressivePrior":
        """Return a prior that continues training by these options; this one does not change."""
        return AutoregressivePrior(self.trainer.fork(options))

    def __copy__(self) -> "AutoregressivePrior":
        """Return a copy with its own network."""
        return AutoregressivePrior(self.trainer.copy())

    @property
    def sequence(self) -> CausalCategorical:
        """The p(k) of sequences."""
        sequence: CausalCategorical = self.trainer.module.sequence
        return sequence

    def log_prob(self, k: Tensor) -> Tensor:
        """Return log p(k) of indices (n, n_positions) in nats."""
        return self.sequence.log_prob(k).sum(1)

    def sample(self, n: int, generator: torch.Generator) -> Tensor:
        """Draw indices (n, n_positions)."""
        return self.sequence.sample(n, generator)

    def fit(
        self,
        codes: Indices,
        weight: Array | None,
        valid: Tensor | None,
        n_values: int,
        keeps_progress: bool,
        tasks: FitTasks | None = None,
    ) -> None:
        """Train until held-out rows do not improve: `valid`, or a random part of the rows."""
        train, valid = self._split(len(codes), valid)
        if not self.trainer.n_epochs:
            self._leave_out(codes, weight, train, n_values)
        rows = self._dataset(codes, weight)
        n_epochs = self.trainer.options.n_epochs(len(rows))
        with nullcontext(()) if tasks is None else tasks.training("prior", n_epochs) as listeners:
            self.trainer.fit(
                rows,
                train,
                valid,
                listeners=listeners,
                n_epochs=n_epochs,
                keeps_progress=keeps_progress,
            )

    def partial_fit(self, codes: Indices, weight: Array | None) -> None:
        """Train for one epoch."""
        self.trainer.partial_fit(self._dataset(codes, weight))

    @torch.no_grad()
    def soften(self, codes: Indices, weight: Array | None, held_out: Tensor) -> None:
        """Multiply all logits by the number in [0, 1] that is best for held-out rows.

        These rows were used to train neither this network nor the encoder (temperature scaling; 0
        gives the uniform p).
        """
        # float64 is used, because the accuracy of a maximum is the root of the precision. A single
        # number does not need all rows of a large data set.
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
        # The cost is convex. The search does not try its bounds, which are therefore added.
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
        """Return rows to train on, and rows that determine when training ends."""
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
        """Initialise with the frequencies in the training rows of the network only."""
        kept = train.numpy()
        counts = index_counts(codes[kept], None if weight is None else weight[kept], n_values)
        self.sequence.bias.copy_(torch.from_numpy(np.log(smoothed_frequencies(counts))))
