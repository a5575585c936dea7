"""The architecture of VAE, from which its module is built."""

from dataclasses import dataclass
from typing import ClassVar

from skae._modules.architecture import EncoderDecoderArchitecture
from skae._modules.importance import LEAST_TO_RESAMPLE


@dataclass(frozen=True, kw_only=True)
class VAEArchitecture(EncoderDecoderArchitecture):
    """Architecture with a prior and the terms of the bound."""

    prior: str
    n_prior_components: int
    conditional: bool
    beta: float
    beta_warm_up: int
    free_bits: float
    n_importance: int
    latent_growth: str | None = None  # saved models of version 0.1.0 lack this field

    changeable: ClassVar[tuple[str, ...]] = ("beta", "beta_warm_up", "free_bits", "n_importance")

    def widest(self) -> int:
        return max(super().widest(), self.n_prior_components * self.n_components)

    def passes_per_row(self) -> int:
        return super().passes_per_row() * self.n_importance

    @property
    def resamples(self) -> bool:
        """Whether gradients pass through a few of the draws of a row only.

        This needs networks whose output does not depend on the other rows of a batch, nor on draws
        of their own.
        """
        fixed = self.normalization is None and not self.own_networks
        return fixed and self.n_importance >= LEAST_TO_RESAMPLE

    @property
    def has_free_bits(self) -> bool:
        """Whether a part of the divergence has no cost."""
        return self.free_bits > 0

    @property
    def kl_is_cost(self) -> bool:
        """Whether the cost of the divergence is the divergence itself."""
        return self.beta == 1 and not self.beta_warm_up and not self.free_bits
