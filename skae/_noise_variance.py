"""Learning of the noise variance of p(x|z), and its attribute in units of the data."""

from collections.abc import Callable, Iterator
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from skae._base import BaseAutoencoder
from skae._nn.likelihoods import NoiseSums, WithNoise, explained
from skae._training.data import Dataset
from skae._training.trainer import Trainer
from skae._utils.types import NoiseVariance


class NoiseVarianceMixin(BaseAutoencoder):
    """`noise_variance_` of estimators with a network for p(x|z).

    Attributes
    ----------
    noise_variance_ : float or ndarray of shape (n_features,)
        Noise variance in squared units of the data; None for likelihoods without one.
    """

    noise_variance_: float | NDArray[np.float64] | None
    n_iter_: int

    noise_variance: NoiseVariance
    _architecture: Any
    _trainer: Trainer
    _seed: int

    def _noise_so_far(self) -> Tensor | None:
        """`noise_variance_`, converted to the units of the network."""
        if self.noise_variance_ is None:
            return None
        architecture, variance = self._architecture, np.asarray(self.noise_variance_)
        if architecture.columns is not None:
            variance = variance[architecture.columns.source.numpy()]
        variance = np.nan_to_num(variance / architecture.target_scale**2, nan=1.0)
        return torch.as_tensor(variance, dtype=torch.float32).to(self._trainer.device)

    def _learn_noise_of_draws(
        self, rows: Dataset, weight: float, n_draws: int, drawn: Callable[..., Iterator[Any]]
    ) -> None:
        """Learn the noise variance from outputs at new draws of codes.

        `drawn(module, rows, n_draws, generator)` yields batches, outputs and weights.
        """
        module = self._trainer.module
        noise = NoiseSums(module.likelihood)
        # The linear start has the optimal noise; an estimate from draws would be less accurate.
        if noise.likelihood is not None and not self._trainer.net.at_start_:
            seed = self._seed + 1_000_003 * self.n_iter_
            generator = torch.Generator(rows.device).manual_seed(seed)
            with self._trainer.inference(len(rows) * n_draws):
                for batch, output, w in drawn(module, rows, n_draws, generator):
                    noise.add(*explained(batch, output, w))
            noise.settle(weight, self._noise_so_far() if weight < 1 else None)
        self._publish_noise()

    def _publish_noise(self) -> None:
        """Set `noise_variance_`, in squared units of the data."""
        architecture, likelihood = self._architecture, self._trainer.module.likelihood
        self.noise_variance_ = None
        if not isinstance(likelihood, WithNoise):
            return
        variance = likelihood.variance.cpu().double().numpy() * architecture.target_scale**2
        if architecture.columns is None:
            self.noise_variance_ = variance if variance.ndim else float(variance)
        elif architecture.located.any():
            variance = np.where(architecture.located, variance, np.nan)
            self.noise_variance_ = variance[architecture.columns.place.numpy()]
