"""Sampling of codes from the p(z) of a model, and scores of codes under p(z)."""

from __future__ import annotations

from abc import abstractmethod
from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray

from skae._base import BaseAutoencoder
from skae._utils.types import RandomState
from skae._utils.validation import private_generator


class LatentSamplesMixin(BaseAutoencoder):
    """`sample_latent`, for models with a distribution of codes p(z)."""

    @abstractmethod
    def _draw_latent(self, n_samples: int, rng: np.random.RandomState) -> NDArray[Any]:
        """Draw codes from p(z)."""

    def sample_latent(
        self, n_samples: int = 1, *, random_state: RandomState = None
    ) -> NDArray[Any]:
        """Draw codes from p(z). `sample` decodes such codes.

        Parameters
        ----------
        n_samples : int, default=1
            Number of rows of codes to draw.
        random_state : int, RandomState instance or None, default=None
            Seed of the draw. With None, every call draws other codes.

        Returns
        -------
        Z : ndarray of shape (n_samples, n_codes)
            Codes, which `inverse_transform` decodes. For a VQVAE they have the form of its
            parameter `codes`, and for a HelmholtzMachine they are the binary units of the top
            layer.

        Raises
        ------
        ValueError
            If `n_samples` is not a positive integer, or if the model was fitted without p(z).
        """
        self._check_sample_arguments(n_samples, True)
        return self._draw_latent(int(n_samples), private_generator(random_state))


class CodeScoresMixin(BaseAutoencoder):
    """`score_codes`, for models that learn p(z) after the codes."""

    @abstractmethod
    def _log_code_prob(self, Z: NDArray[Any]) -> NDArray[Any]:
        """Compute log p(z) of validated codes."""

    def score_codes(self, X: ArrayLike) -> NDArray[Any]:
        """Log-density of codes under p(z), or the log-probability log p(k) of indices.

        For a VQVAE, -log p(k) / log 2 is the number of bits that an ideal code for the indices
        needs, and `score_samples` is log p(x|e_k) + log p(k).

        Parameters
        ----------
        X : array-like of shape (n_samples, n_codes)
            Codes, as `transform` returns them.

        Returns
        -------
        scores : ndarray of shape (n_samples,)
            Log-density or log-probability of each row of codes, in nats.

        Raises
        ------
        ValueError
            If the number of columns of `X` is not the number of codes, or if codes are indices, in
            any form, and `X` contains values that are not valid indices.

        Examples
        --------
        >>> import numpy as np
        >>> from sklearn.datasets import load_digits
        >>> from skae import VQVAE
        >>> X, _ = load_digits(return_X_y=True)
        >>> vq = VQVAE(4, n_codes=64, max_iter=5, random_state=0).fit(X)
        >>> bits = -vq.score_codes(vq.transform(X)) / np.log(2)
        >>> bool(bits.mean() < 4 * np.log2(64))
        True
        """
        return self._log_code_prob(self._check_codes(X))
