"""Codes ordered by importance: a model of the first ones, cut from the whole without refitting."""

import copy
from collections.abc import Callable, Iterable
from dataclasses import replace
from numbers import Integral
from typing import Any, Self

import numpy as np
import torch
from numpy.typing import NDArray
from sklearn.utils.metaestimators import available_if
from sklearn.utils.validation import check_is_fitted

from skae._network_autoencoder import NetworkAutoencoder
from skae._nn.likelihoods import NoiseSums
from skae._utils.validation import Interval

Array = NDArray[Any]

# From how many rows the noise of the smaller sizes is learned.
PATH_ROWS = 4096


def orders_codes(model: Any) -> bool:
    """Whether codes are ordered; an AttributeError that says what to set, where they are not."""
    fitted = getattr(model, "_architecture", None)
    if (model if fitted is None else fitted).latent_growth is None:
        allowed = sorted(model._parameter_constraints["latent_growth"][0].options)
        raise AttributeError(
            "Codes are ordered by importance, and so can be cut, only with latent_growth="
            f"{' or '.join(map(repr, allowed))}; given None."
        )
    return True


class OrderedCodesMixin(NetworkAutoencoder):
    """`truncate`, for networks with a parameter `latent_growth`."""

    _noise_path: Array  # noise variances of every size, in the decoder's units

    def _keep_codes(self, whole: Self, k: int) -> None:
        """Of what the whole model learned beside its network, keep what is of the first k codes."""

    @available_if(orders_codes)
    def truncate(self, n_components: int) -> Self:
        """The model of the first codes, cut from this one without refitting.

        With `latent_growth` the codes are ordered by importance, and the first ones are a model
        of their own. Its p(z) and p(x|z) are those of these codes alone, and so are its scores.

        Parameters
        ----------
        n_components : int
            Number of codes to keep, from 1 to `n_components_`.

        Returns
        -------
        truncated : estimator
            A fitted estimator of so many codes; this one stays as it is.

        Raises
        ------
        AttributeError
            If the codes are not ordered (`latent_growth=None`).
        ValueError
            If `n_components` is no integer from 1 to `n_components_`.

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
        other = copy.copy(self).set_params(n_components=k)  # with a net of its own
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
        """Noise of every smaller size, for `truncate`; that of all codes has been learned.

        `explained_by` makes of a size what `NoiseSums.add` takes, piece by piece. `weight` is what
        these count beside the path `before`.
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
