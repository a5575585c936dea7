"""Sampling from a density of codes, also conditionally on the first codes."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray

from skae._base import BaseAutoencoder
from skae._densities.code_units import CodeUnits
from skae._densities.network_density import NetworkDensity
from skae._nn.priors import draw_from
from skae._utils.types import ArrayOrFrame, RandomState
from skae._utils.validation import private_generator

Array = NDArray[Any]


class GivenCodesMixin(BaseAutoencoder):
    """`sample_latent` and `sample` with a parameter `given`, for densities of codes."""

    density_: Any
    _settings: dict[str, Any]
    _units: CodeUnits

    def sample_latent(
        self,
        n_samples: int = 1,
        *,
        given: ArrayLike | None = None,
        random_state: RandomState = None,
    ) -> Array:
        """Draw codes from p(z).

        Parameters
        ----------
        n_samples : int, default=1
            Number of rows of codes to draw.
        given : array-like of shape (n_given,) or (n_samples, n_given), default=None
            Values of the first codes, the same for all rows or for each row. The other codes
            are drawn conditionally on them. It needs `density="autoregressive"` and
            `orderings=1`.
        random_state : int, RandomState instance or None, default=None
            Seed of the draw. With None, every call draws new codes.

        Returns
        -------
        Z : ndarray of shape (n_samples, n_codes)
            Drawn codes.

        Raises
        ------
        ValueError
            If `n_samples` is not a positive integer, if `given` is not an array of possible
            codes, or if the density does not support it.
        """
        self._check_sample_arguments(n_samples, True)
        return self._draw_codes(int(n_samples), private_generator(random_state), given)

    def sample(
        self,
        n_samples: int = 1,
        *,
        given: ArrayLike | None = None,
        noise: bool = True,
        random_state: RandomState = None,
    ) -> ArrayOrFrame:
        """Draw codes from p(z) and decode them.

        Parameters
        ----------
        n_samples : int, default=1
            Number of rows to draw.
        given : array-like of shape (n_given,) or (n_samples, n_given), default=None
            Values of the first codes, the same for all rows or for each row. The other codes
            are drawn conditionally on them. It needs `density="autoregressive"` and
            `orderings=1`.
        noise : bool, default=True
            Whether to draw from p(x|z). This needs an autoencoder of skae, possibly wrapped in
            FrozenEstimator. With False, and for other autoencoders, the rows are decoded codes.
        random_state : int, RandomState instance or None, default=None
            Seed of the draw. With None, every call draws new codes.

        Returns
        -------
        X_new : ndarray of shape (n_samples, n_features)
            Drawn rows. `set_output` makes them a data frame with the columns of the training
            data.

        Raises
        ------
        ValueError
            If `n_samples` is not a positive integer, if `given` is not an array of possible
            codes, or if the density does not support it.

        Examples
        --------
        >>> from sklearn.datasets import load_digits
        >>> from skae import LatentDensityEstimator
        >>> X, _ = load_digits(return_X_y=True)
        >>> lde = LatentDensityEstimator(n_components=4, max_iter=2, random_state=0).fit(X)
        >>> first = lde.transform(X[:1])[:, :2]
        >>> lde.sample(3, given=first, random_state=0).shape
        (3, 64)
        """
        self._check_sample_arguments(n_samples, noise)
        rng = private_generator(random_state)
        codes = self._draw_codes(int(n_samples), rng, given)
        return self._rows_out(self._generate(codes, rng, noise))

    def _draw_codes(
        self, n: int, rng: np.random.RandomState, given: ArrayLike | None = None
    ) -> Array:
        known = None if given is None else self._given(given, n)
        if isinstance(self.density_, NetworkDensity):
            return self._units.codes_of(self.density_.sample(n, rng, known))
        n_free = self._units.n_free
        drawn = draw_from(self.density_, n, n_free, rng, name="density", dtype=np.float64)
        return self._units.codes_of(drawn)

    def _given(self, given: ArrayLike, n: int) -> Array:
        """The given first codes of n rows, mapped to real numbers."""
        kind = self._settings["density"]
        if kind != "autoregressive":
            kind = self.density_ if kind == "own" else kind
            raise ValueError(f"given needs density='autoregressive', but the density is {kind!r}.")
        orderings = self._settings["orderings"]
        if orderings != 1:
            raise ValueError(
                "given needs orderings=1, the ordering in which the first codes come first, but "
                f"orderings={orderings!r}."
            )
        return self._units.given(given, n)
