"""The free energy and the exact log-likelihood of a Helmholtz machine.

References
----------
P. Dayan, G. E. Hinton, R. M. Neal and R. S. Zemel (1995). The Helmholtz machine. Neural
Computation 7. :doi:`10.1162/neco.1995.7.5.889`
"""

from __future__ import annotations

from abc import abstractmethod
from numbers import Integral
from typing import Any, NamedTuple

from numpy.typing import ArrayLike, NDArray

from skae._inference.helmholtz import MAX_UNITS, Enumeration, drawn_terms
from skae._inference.row_draws import RowDraws
from skae._network_autoencoder import NetworkAutoencoder
from skae._training.data import Data
from skae._utils.validation import Interval

Array = NDArray[Any]

_COUNT = Interval(Integral, 1, None, closed="left")


class FreeEnergyTerms(NamedTuple):
    """The two terms of the variational free energy, F = energy - entropy.

    Attributes
    ----------
    energy : ndarray of shape (n_samples,)
        E_q[-log p(x, h)] of each row, in nats.
    entropy : ndarray of shape (n_samples,)
        Entropy of q(h|x) of each row, in nats.
    """

    energy: NDArray[Any]
    entropy: NDArray[Any]


class FreeEnergyMixin(NetworkAutoencoder):
    """`free_energy`, its terms, and the exact log-likelihood by enumeration of all states."""

    @abstractmethod
    def _to_score(self, X: ArrayLike, method: str) -> Data:
        """Validated rows whose values the likelihood allows."""

    @abstractmethod
    def _row_draws(self, n_draws: int) -> RowDraws:
        """Draws of h for each row, the same in every call."""

    def free_energy(self, X: ArrayLike, *, n_draws: int | None = 100) -> Array:
        """Variational free energy F = E_q[-log p(x, h)] - H(q), in nats.

        The free energy is -log p(x) + KL(q(h|x) || p(h|x)), and therefore at least -log p(x). An
        estimate from draws may be smaller.

        Parameters
        ----------
        X : array-like of shape (n_samples, n_features)
            Rows to evaluate.
        n_draws : int or None, default=100
            Number of draws of h for each row, over which the expectation is averaged. None sums
            over all states instead, which is possible for machines with at most 20 units.

        Returns
        -------
        free_energy : ndarray of shape (n_samples,)
            Free energy of each row in nats; float32, or float64 with `n_draws=None`.

        Raises
        ------
        ValueError
            For the same reasons as in `free_energy_terms`.
        """
        energy, entropy = self._terms(X, "free_energy", n_draws)
        return energy - entropy

    def free_energy_terms(self, X: ArrayLike, *, n_draws: int | None = 100) -> FreeEnergyTerms:
        """The two terms of the free energy of each row.

        Parameters
        ----------
        X : array-like of shape (n_samples, n_features)
            Rows to evaluate.
        n_draws : int or None, default=100
            As in `free_energy`.

        Returns
        -------
        terms : FreeEnergyTerms
            `energy` is E_q[-log p(x, h)] and `entropy` is the entropy of q(h|x), in nats. The free
            energy is their difference.

        Raises
        ------
        ValueError
            If `n_draws` is neither None nor a positive integer, if it is None and the machine has
            more than 20 units, or if a value has probability zero under the likelihood.
        """
        return self._terms(X, "free_energy_terms", n_draws)

    def exact_log_likelihood(self, X: ArrayLike) -> NDArray[Any]:
        """Exact log p(x), by a sum over all states of the units.

        Parameters
        ----------
        X : array-like of shape (n_samples, n_features)
            Rows to score. Missing values (NaN) are ignored. Values between 0 and 1 under
            "bernoulli" are treated as in `score_samples`.

        Returns
        -------
        log_likelihood : ndarray of shape (n_samples,)
            Log-likelihood of each row in nats, float64.

        Raises
        ------
        ValueError
            If the machine has more than 20 units, or if a value has probability zero under the
            likelihood.
        """
        data = self._to_score(X, "exact_log_likelihood")
        self._check_few_units("exact_log_likelihood")
        with self._trainer.inference():
            return Enumeration(self._trainer.module).log_likelihoods(self._dataset(data))

    def _terms(self, X: ArrayLike, method: str, n_draws: int | None) -> FreeEnergyTerms:
        data = self._to_score(X, method)
        self._check_argument("n_draws", n_draws, [_COUNT, None])
        module, rows = self._trainer.module, self._dataset(data)
        with self._trainer.inference(len(data.X) * (n_draws or 1)):
            if n_draws is None:
                self._check_few_units(f"{method} with n_draws=None")
                return FreeEnergyTerms(*Enumeration(module).terms(rows).T)
            return FreeEnergyTerms(*drawn_terms(module, rows, self._row_draws(n_draws)).T)

    def _check_few_units(self, what: str) -> None:
        n = self._architecture.n_units
        if n > MAX_UNITS:
            raise ValueError(
                f"{what} sums over all states, which is possible for at most {MAX_UNITS} units; "
                f"this machine has {n}. Use score_samples for a lower bound on log p(x)."
            )
