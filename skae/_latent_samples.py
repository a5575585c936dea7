"""Draws of codes from a model's own p(z), and scores of codes by it."""

from abc import abstractmethod
from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray

from skae._base import BaseAutoencoder
from skae._utils.validation import private_generator


class LatentSamplesMixin(BaseAutoencoder):
    """`sample_latent`, for models with a p(z) of their own."""

    @abstractmethod
    def _draw_latent(self, n_samples: int, rng: np.random.RandomState) -> NDArray[Any]:
        """Codes from p(z)."""

    def sample_latent(
        self, n_samples: int = 1, *, random_state: int | np.random.RandomState | None = None
    ) -> NDArray[Any]:
        """Draw codes from p(z), which `sample` decodes.

        Parameters
        ----------
        n_samples : int, default=1
            How many times to draw.
        random_state : int, RandomState instance or None, default=None
            Seed of the draw. None takes fresh entropy, so that two calls differ.

        Returns
        -------
        Z : ndarray of shape (n_samples, n_codes)
            Codes, as `inverse_transform` takes them: indices (int64) of a VQVAE, units of the top
            layer (0 or 1) of a HelmholtzMachine.

        Raises
        ------
        ValueError
            If `n_samples` is not a positive integer, or the model was fitted without p(z).
        """
        self._check_sample_arguments(n_samples, True)
        return self._draw_latent(n_samples, private_generator(random_state))


class CodeScoresMixin(BaseAutoencoder):
    """`score_codes`, for models whose p(z) is learned after their codes."""

    @abstractmethod
    def _log_code_prob(self, Z: NDArray[Any]) -> NDArray[Any]:
        """log p(z) of validated codes."""

    def score_codes(self, X: ArrayLike) -> NDArray[Any]:
        """log p(z) of codes; of indices, -log p / log 2 is the length of their code in bits.

        What `score_samples` of a VQVAE adds to it is log p(x|z).

        Parameters
        ----------
        X : array-like of shape (n_samples, n_codes)
            Codes, as `transform` returns them.

        Returns
        -------
        scores : ndarray of shape (n_samples,)
            Nats per row.

        Raises
        ------
        ValueError
            If `X` has not one column per code, or holds what is no index where codes are some.

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
