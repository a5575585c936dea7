"""The number of codes that rows use, for models whose codes are indices."""

from __future__ import annotations

import numpy as np
from numpy.typing import ArrayLike, NDArray
from scipy.stats import entropy

from skae._modules.vqvae import VQVAEArchitecture
from skae._network_autoencoder import NetworkAutoencoder


class PerplexityMixin(NetworkAutoencoder):
    """`perplexity`, for networks whose codes are indices of entries of codebooks."""

    _architecture: VQVAEArchitecture

    def perplexity(self, X: ArrayLike) -> float | NDArray[np.float64]:
        """Effective number of codes that these rows use.

        The perplexity is exp(-sum_k p_k log p_k), with the frequency p_k of code k over all
        positions and rows. It is the number of codes if all are used equally often.

        Parameters
        ----------
        X : array-like of shape (n_samples, n_features)
            Rows to encode.

        Returns
        -------
        perplexity : float, or ndarray of shape (n_quantizers,)
            Perplexity, between 1 and `n_codes`. With several quantizers, an array with one value
            for each.
        """
        codes = self._encode(self._check_new_rows(X, "perplexity"))
        stages = self._architecture.n_quantizers
        found = [
            float(np.exp(entropy(np.bincount(codes[:, stage::stages].ravel()))))
            for stage in range(stages)
        ]
        return found[0] if len(found) == 1 else np.array(found)
