"""The noise variance of a VAE of every size, if its codes are ordered."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from math import ceil
from typing import Any

import torch
from numpy.typing import NDArray

from skae._inference.vae import drawn
from skae._nn.likelihoods import explained
from skae._ordered_codes import PATH_ROWS, OrderedCodesMixin
from skae._training.data import Data

Array = NDArray[Any]

# Largest number of draws of z for each row from which the noise variance is learned.
MOST_DRAWS = 1000


class NestedNoiseMixin(OrderedCodesMixin):
    """Learns the noise variances from draws of q(z|x)."""

    def _learn_noise_of_sizes(self, data: Data, weight: float, before: Array | None) -> None:
        """Learn the noise variance of the model of every smaller size."""
        module, whole = self._trainer.module, self._architecture
        if module.noise_path is None:
            return
        path = module.noise_path.variance[: self.n_components_]
        some = data.some(PATH_ROWS, self._seed + 6)
        rows, n_draws = self._dataset(some), min(MOST_DRAWS, ceil(PATH_ROWS / len(some.X)))

        def explained_by(k: int) -> Iterator[tuple[Any, ...]]:
            module.architecture = replace(whole, n_components=k)
            module.likelihood.variance.copy_(path[k - 1])  # for the weights
            seed = self._seed + 1_000_003 * self.n_iter_ + k
            generator = torch.Generator(rows.device).manual_seed(seed)
            for batch, output, w in drawn(module, rows, n_draws, generator):
                yield explained(batch, output, w)

        if self.net_.at_start_:  # the linear start has the optimal noise
            self._noise_path = path.cpu().numpy().copy()
            return
        try:
            self._learn_noise_path(weight, before, explained_by)
        finally:
            module.architecture = whole
        path.copy_(torch.from_numpy(self._noise_path))
