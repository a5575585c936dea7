"""Learning, sampling and saving of the prior p(k), for estimators whose codes are indices."""

from __future__ import annotations

import copy
from abc import abstractmethod
from dataclasses import replace
from math import ceil
from typing import Any, Literal, Self, cast

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from skae._densities.index_prior import (
    AutoregressivePrior,
    IndependentPrior,
    UniformPrior,
    counts_apart,
    index_counts,
    smoothed_frequencies,
)
from skae._latent_samples import CodeScoresMixin, LatentSamplesMixin
from skae._linear.running import running_mean
from skae._modules.vqvae import VQVAEArchitecture
from skae._network_autoencoder import NetworkAutoencoder
from skae._training.data import Data
from skae._training.net import Net
from skae._training.tasks import FitTasks
from skae._training.trainer import TrainingOptions, slices
from skae._utils.interrupts import keeps_progress
from skae._utils.sparse_rows import Rows
from skae._utils.warning import warn

Array = NDArray[Any]
Indices = NDArray[np.int64]

# calibration="auto" holds rows out if there are at least the first and fewer than the second.
_LEAST_ROWS, _MANY_ROWS = 10, 10_000


class IndexPriorMixin(LatentSamplesMixin, CodeScoresMixin, NetworkAutoencoder):
    """A prior over the indices of a row, which is learned after the network."""

    _architecture: VQVAEArchitecture
    _prior: UniformPrior | IndependentPrior | AutoregressivePrior

    # Parameters of subclasses, declared for type checkers.
    prior_learning_rate_init: float
    prior_max_iter: int | None
    max_iter: int | None
    calibration: Literal["auto"] | bool
    validation_fraction: float
    codes: str

    @abstractmethod
    def _in_form(self, codes: Indices, form: str) -> Array:
        """Indices in the form that the parameter `codes` can choose."""

    prior: Any

    @abstractmethod
    def _codebooks(self) -> Tensor:
        """Entries of the codebooks, (n_quantizers, n_codes, code_dim)."""

    def _split(self, n_rows: int) -> tuple[Tensor, Tensor | None]:
        calibrates = self.calibration
        if calibrates == "auto":
            n_kept = ceil(self.validation_fraction * n_rows)
            calibrates = n_kept < n_rows and _LEAST_ROWS <= n_rows < _MANY_ROWS
        return self._trainer.split(n_rows, bool(calibrates) or self._trainer.options.early_stopping)

    def _unseen(self, n_rows: int) -> Tensor | None:
        """Indices of the rows that were held out when the network was trained; None without any."""
        history = self.net_.history
        if self.calibration is False or not history or "valid_loss" not in history[-1]:
            return None
        return self._trainer.split(n_rows, True)[1]

    def _learn_frequencies(self, codes: Indices, row_weight: Array | None, weight: float) -> Array:
        """Learn the prior from frequencies, and return the frequencies, (n_indices, n_codes).

        `weight` is the weight of these rows relative to all rows so far.
        """
        n_values, unseen = self._architecture.codebook_size, self._unseen(len(codes))
        shares: Array = index_counts(codes, row_weight, n_values) / len(codes)
        frequencies, n_rows = shares, len(codes) / weight
        match self._architecture.prior:
            case "independent":
                if weight < 1:
                    before = cast(IndependentPrior, self._prior).frequencies
                    frequencies = running_mean(before, frequencies, weight)
                apart = None
                if unseen is not None:
                    apart = counts_apart(codes, row_weight, unseen, n_values)
                self._prior = IndependentPrior(frequencies, n_rows, apart)
            case "autoregressive":
                if "_prior" not in vars(self):
                    start = np.log(smoothed_frequencies(n_rows * frequencies))
                    self._prior = AutoregressivePrior.new(start, **self._of_prior())
                cast(AutoregressivePrior, self._prior).sequence.set_vectors(self._codebooks())
            case _:
                self._prior = UniformPrior(n_values)
        return shares

    def _of_prior(self) -> dict[str, Any]:
        """Arguments of the causal network and of its training.

        Training has the options of the main network, except for its own learning rate, and always
        uses early stopping.
        """
        options = replace(
            TrainingOptions.of(self),
            learning_rate_init=self.prior_learning_rate_init,
            learning_rate="constant",
            max_iter=self.prior_max_iter or self.max_iter,
            tol=0.0,
            early_stopping=True,
            callbacks=None,
        )
        return {
            "codebook": self._codebooks(),
            "n_channels": self._architecture.prior_channels,
            "options": options,
            "seed": self._seed,
            "name": f"{type(self).__name__} prior",
        }

    def _n_trainings(self, n_rows: int, previous: Self | None) -> int:
        return super()._n_trainings(n_rows, previous) + (self.prior == "autoregressive")

    def _train_more(
        self,
        data: Data,
        codes: Indices,
        valid: Tensor | None,
        streaming: bool,
        tasks: FitTasks | None = None,
    ) -> None:
        """Train the causal network over the codes of the rows."""
        if not isinstance(self._prior, AutoregressivePrior):
            return
        if streaming:
            self._prior.partial_fit(codes, data.weight)
        elif self.net_.interrupted_:
            warn(
                "Training was interrupted before the prior over codes was trained. The prior is "
                "that of the previous fit, or the frequencies of the codes in a first fit. To "
                "continue training, call fit with warm_start=True."
            )
        else:
            n_values = self._architecture.codebook_size
            self._prior.fit(codes, data.weight, valid, n_values, keeps_progress(self), tasks)
            unseen = self._unseen(len(codes))
            if unseen is not None:
                self._prior.soften(codes, data.weight, unseen)

    def _go_on_from(self, previous: Self, X: Rows) -> None:
        super()._go_on_from(previous, X)
        self._prior = previous._prior
        if isinstance(self._prior, AutoregressivePrior):
            self._prior = self._prior.fork(self._of_prior()["options"])

    @property
    def prior_net_(self) -> Net:
        """Trained network of the "autoregressive" prior."""
        prior = vars(self).get("_prior")
        if not isinstance(prior, AutoregressivePrior):
            raise AttributeError(f"{type(self).__name__!r} object has no attribute 'prior_net_'")
        return prior.trainer.net

    @property
    def prior_history_(self) -> list[dict[str, Any]]:
        """Losses of the prior in each epoch, in nats per row."""
        return self.prior_net_.history

    def _log_code_prob(self, Z: Array) -> NDArray[np.float32]:
        found = np.empty(len(Z), dtype=np.float32)
        with self._trainer.inference(len(Z)):
            for part in slices(len(Z)):
                k = torch.from_numpy(Z[part].astype(np.int64)).to(self._trainer.device)
                found[part] = self._prior.log_prob(k).cpu().numpy()
        return found

    def _draw_latent(self, n_samples: int, rng: np.random.RandomState) -> Array:
        codes = self._draw_codes(n_samples, self._trainer.generator(rng))
        return self._in_form(codes, self.codes)

    def _draw_codes(self, n: int, generator: torch.Generator) -> Indices:
        with self._trainer.inference(n):
            codes: Indices = self._prior.sample(n, generator).cpu().numpy()
        return codes

    def __copy__(self) -> Self:
        new = super().__copy__()
        if "_prior" in vars(self):
            new._prior = copy.copy(self._prior)
        return new

    def __getstate__(self) -> dict[str, Any]:
        """State that includes the prior as arrays."""
        state = super().__getstate__()
        match state.pop("_prior", None):
            case AutoregressivePrior() as prior:
                state["prior_net_"] = prior.trainer.state()
            case IndependentPrior() as prior:
                state["_index_shares"] = prior.frequencies
                state["_log_shares"] = prior.log_frequencies
        return state

    def __setstate__(self, state: dict[str, Any]) -> None:
        super().__setstate__(state)
        net = self.__dict__.pop("prior_net_", None)
        frequencies = self.__dict__.pop("_index_shares", None)
        log_frequencies = self.__dict__.pop("_log_shares", None)
        if "_trainer" not in vars(self):
            return
        architecture = self._architecture
        self._prior = UniformPrior(architecture.codebook_size)
        if net is not None:
            shape = architecture.n_indices, architecture.codebook_size
            self._prior = AutoregressivePrior.new(np.zeros(shape), net, **self._of_prior())
        elif architecture.prior == "independent":
            self._prior = IndependentPrior.of_logs(frequencies, log_frequencies)
