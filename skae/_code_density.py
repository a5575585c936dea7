"""Scores by the density of codes that an estimator has learned, and the sizes of this density."""

from __future__ import annotations

from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray

from skae._data_scores import DataScoresMixin
from skae._densities.code_units import CodeUnits
from skae._densities.network_density import NetworkDensity
from skae._inference.bounds import LogPrior, Proposal, RowLikelihood, on_arrays
from skae._inference.proposal_width import proposal_width
from skae._latent_samples import CodeScoresMixin
from skae._training.net import Net
from skae._wrapped_autoencoder import WrappedAutoencoderMixin

Array = NDArray[Any]


class ScoreKindOfCodes:
    """ "log_likelihood" if the codes are the rows themselves, otherwise "latent"."""

    def __get__(self, model: Any, owner: type) -> Literal["log_likelihood", "latent"]:
        if model is None:
            return "latent"
        if "autoencoder_" in vars(model):  # of a fitted model
            return "log_likelihood" if model.autoencoder_ is None else "latent"
        own = model.autoencoder is None and model.n_components is None
        return "log_likelihood" if own else "latent"


class CodeDensityMixin(DataScoresMixin, CodeScoresMixin, WrappedAutoencoderMixin):
    """Scores of rows, codes and data by a fitted density of codes, and attributes of the density.

    `_units` maps the codes to real numbers, and `density_` is a density of these numbers.
    """

    density_: Any
    _settings: dict[str, Any]
    _units: CodeUnits
    _proposal_tau: float

    @property
    def net_(self) -> Net:
        """The trained network of the density."""
        density = vars(self).get("density_")
        if not isinstance(density, NetworkDensity):
            raise AttributeError(f"{type(self).__name__!r} object has no attribute 'net_'")
        return density.trainer.net

    @property
    def n_mixture_(self) -> int:
        """Number of components of each conditional."""
        return self._size("n_mixture")

    @property
    def n_channels_(self) -> int:
        """Number of channels of the causal network, or of units in hidden layers of "flow"."""
        return self._size("n_channels")

    def _size(self, name: str) -> int:
        settings = vars(self).get("_settings", {})
        if name not in settings:
            raise AttributeError(f"{type(self).__name__!r} object has no attribute '{name}_'")
        return int(settings[name])

    @property
    def history_(self) -> list[dict[str, Any]]:
        """Losses of each epoch, in nats per row."""
        return self.net_.history

    # ----------------------------------------------------------------- scores of codes

    def _log_density(self, codes: Array) -> NDArray[np.float64]:
        """log p(z) of codes, in nats."""
        return self._units.log_density(self._log_density_of_real(self._units.real(codes)), codes)

    def _log_density_of_real(self, real: Array) -> NDArray[np.float64]:
        with np.errstate(over="ignore"):  # far from the training codes, the density is zero
            return np.asarray(self.density_.score_samples(real), dtype=np.float64)

    def _log_code_prob(self, Z: Array) -> Array:
        scores: Array = self._log_density(Z).astype(Z.dtype)
        return scores

    def _log_prob(self, X: Array) -> Array:
        codes = self._encode(X)
        scores: Array = self._log_density(codes).astype(codes.dtype)
        return scores

    # -------------------------------------------------------------- scores of the data

    def _check_scores_data(self) -> None:
        if self._row_likelihood() is None:
            raise AttributeError(
                "data_score_samples needs an autoencoder with a likelihood p(x|z): Autoencoder, "
                "AdversarialAE or VAE(conditional=False), possibly wrapped in FrozenEstimator; "
                f"given autoencoder={self.autoencoder!r}."
            )

    def _importance_sampling(self) -> tuple[RowLikelihood, Proposal, LogPrior]:
        explains = self._row_likelihood()
        assert explains is not None
        return explains, *self._proposal(self._proposal_tau)

    def _proposal(self, tau: float) -> tuple[Proposal, LogPrior]:
        """The proposal around a code and log p(z), both on real numbers if codes have bounds."""
        units = self._units
        if units.support is None:
            return Proposal(units.stds(), tau), on_arrays(self._log_density)
        to_real = on_arrays(units.standardised, rowwise=False)
        from_real = on_arrays(units.restored, rowwise=False)
        log_prior = on_arrays(self._log_density_of_standardised)
        return Proposal(np.ones(units.n_free), tau, to_real, from_real), log_prior

    def _learn_proposal(self, X: Array) -> None:
        """Choose the width of the proposal, if the autoencoder has a p(x|z)."""
        explains = self._row_likelihood()
        if explains is not None:
            proposal, log_prior = self._proposal(1.0)
            self._proposal_tau = proposal_width(explains, X, log_prior, proposal)

    def _log_density_of_standardised(self, z: Array) -> NDArray[np.float64]:
        real = z.astype(np.float64) * self._units.scale + self._units.center
        return self._log_density_of_real(real) + self._units.log_volume()
