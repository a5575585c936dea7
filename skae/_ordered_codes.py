"""Codes ordered by importance: models of the first codes without another fit."""

from __future__ import annotations

import copy
from collections.abc import Callable, Iterable
from dataclasses import replace
from numbers import Integral
from typing import Any, Self

import numpy as np
import torch
from numpy.typing import NDArray
from sklearn.utils.validation import check_is_fitted

from skae._network_autoencoder import NetworkAutoencoder
from skae._nn.likelihoods import NoiseSums
from skae._utils.availability import silent_available_if
from skae._utils.validation import Interval

Array = NDArray[Any]

# Number of rows from which the noise variances of smaller sizes are learned.
PATH_ROWS = 4096


def orders_codes(model: Any) -> bool:
    """True if the codes are ordered; raises AttributeError otherwise."""
    fitted = getattr(model, "_architecture", None)
    if (model if fitted is None else fitted).latent_growth is None:
        allowed = sorted(model._parameter_constraints["latent_growth"][0].options)
        raise AttributeError(
            "This method needs codes that are ordered by importance, that is, latent_growth="
            f"{' or '.join(map(repr, allowed))}; given None."
        )
    return True


class OrderedCodesMixin(NetworkAutoencoder):
    """`truncate`, for networks with a parameter `latent_growth`."""

    _noise_path: Array  # noise variance of each size, in the units of the decoder

    def _keep_codes(self, whole: Self, k: int) -> None:
        """Keep the first k codes in the fitted attributes of the model `whole`."""

    @silent_available_if(orders_codes)
    def truncate(self, n_components: int) -> Self:
        """Return the model of the first codes, without fitting again.

        With `latent_growth`, the codes are ordered by importance, and the first codes form a model
        of their own. Its p(z), p(x|z) and scores are those of the first codes alone.

        Parameters
        ----------
        n_components : int
            Number of codes to keep, from 1 to `n_components_`.

        Returns
        -------
        truncated : estimator
            A fitted estimator with this number of codes. The original does not change.

        Raises
        ------
        AttributeError
            If the codes are not ordered (`latent_growth=None`).
        ValueError
            If `n_components` is not an integer from 1 to `n_components_`.

        Examples
        --------
        >>> from sklearn.datasets import load_digits
        >>> from skae import VAE
        >>> X, _ = load_digits(return_X_y=True)
        >>> vae = VAE(8, latent_growth="nested", max_iter=3, random_state=0).fit(X)
        >>> vae.truncate(3).transform(X).shape
        (1797, 3)
        """
        check_is_fitted(self)
        allowed = Interval(Integral, 1, self.n_components_, closed="both")
        self._check_argument("n_components", n_components, [allowed])
        k = int(n_components)
        other = copy.copy(self).set_params(n_components=k)  # with its own network
        other.n_components_ = k
        other._architecture = replace(self._architecture, n_components=k)
        module = other._trainer.module
        module.architecture = other._architecture
        if "_noise_path" in vars(self):
            other._noise_path = self._noise_path[:k].copy()
            with torch.no_grad():
                module.likelihood.variance.copy_(torch.tensor(other._noise_path[-1]))
        other._keep_codes(self, k)
        other._publish_noise()
        return other

    def _learn_noise_path(
        self,
        weight: float,
        before: Array | None,
        explained_by: Callable[[int], Iterable[tuple[Any, ...]]],
    ) -> None:
        """Learn the noise variance of every smaller size, for `truncate`.

        `explained_by(k)` yields arguments of `NoiseSums.add` for the model of k codes. `weight` is
        the weight of these rows relative to those of `before`, the noise variances so far.
        """
        likelihood = self._trainer.module.likelihood
        path = []
        with self._trainer.inference():
            kept = likelihood.variance.clone()
            for k in range(1, self.n_components_):
                noise = NoiseSums(likelihood)
                for piece in explained_by(k):
                    noise.add(*piece)
                old = None if before is None else torch.tensor(before[k - 1]).to(kept.device)
                noise.settle(weight, old)
                path.append(likelihood.variance.cpu().numpy().copy())
            likelihood.variance.copy_(kept)
        self._noise_path = np.array([*path, kept.cpu().numpy()])
