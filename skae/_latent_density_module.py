"""Densities of standardised codes that are trained by gradients: a causal network, a flow.

References
----------
C. Durkan, A. Bekasov, I. Murray and G. Papamakarios (2019). Neural spline flows. NeurIPS
32. :doi:`10.48550/arXiv.1906.04032`
"""

from abc import abstractmethod
from typing import Any, cast

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn
from torch.optim.swa_utils import AveragedModel

from skae._causal import CausalMixture, dilations_for
from skae._mixtures import Mixtures
from skae._rows import Batch
from skae._training import Loss, TrainableModule, global_generators_set_aside, weighted_mean

# Rows that are drawn together.
_ROWS = 4096
# A direction in which codes vary by less than this, of a variance of 1, is a rounding error.
_FLAT = 1e-6


class TriangularMap(nn.Module):
    """u = W z with a lower triangular W of positive diagonal, that is learned.

    It starts where u is white, W W' = S^-1. There p(z) = N(0, S) is p(u) = N(0, I), whose
    conditionals need no network; and as u_t depends on z_1, ..., z_t only, what is
    autoregressive in u is so in z.

    Parameters
    ----------
    covariance : ndarray of shape (n, n)
        Covariance S of z.
    """

    def __init__(self, covariance: NDArray[np.float64]) -> None:
        super().__init__()
        n = len(covariance)
        root = np.linalg.cholesky(covariance + _FLAT * np.eye(n))
        white = torch.from_numpy(np.linalg.inv(root)).float()
        self.log_diagonal = nn.Parameter(white.diagonal().log())
        self.below = nn.Parameter(white.tril(-1))

    def matrix(self) -> Tensor:
        """W, (n, n)."""
        return self.below.tril(-1) + self.log_diagonal.exp().diag()

    def forward(self, z: Tensor) -> Tensor:
        """u of z, (n_rows, n)."""
        with torch.autocast(z.device.type, enabled=False):
            return z @ self.matrix().T

    def inverse(self, u: Tensor) -> Tensor:
        """z of u, (n_rows, n); of the first columns alone, if there are no others."""
        k = u.shape[1]
        return torch.linalg.solve_triangular(self.matrix()[:k, :k], u.T, upper=False).T

    def log_det(self) -> Tensor:
        """log |du/dz|."""
        return self.log_diagonal.sum()


class DensityModule(TrainableModule):
    """A density of standardised codes, (n, n_codes)."""

    @abstractmethod
    def log_prob(self, z: Tensor) -> Tensor:
        """log p(z), nats, (n,)."""

    @abstractmethod
    def sample(self, n: int, generator: torch.Generator) -> Tensor:
        """Codes (n, n_codes)."""

    def loss(self, batch: Batch) -> Loss:
        """-log p(z), nats per row."""
        return Loss({"density": -weighted_mean(self.log_prob(batch.x), batch.weight)}, batch.x)


class CausalDensity(nn.Module):
    """The causal mixture density of z, or of a triangular map of it."""

    def __init__(self, sequence: CausalMixture, entry: TriangularMap | None) -> None:
        super().__init__()
        self.sequence, self.entry = sequence, entry

    def log_prob(self, z: Tensor) -> Tensor:
        """log p(z), (n,)."""
        if self.entry is None:
            return self.sequence.log_prob(z).sum(1)
        return self.sequence.log_prob(self.entry(z)).sum(1) + self.entry.log_det()

    def forward(self, z: Tensor) -> Tensor:
        return self.log_prob(z)

    def sample(
        self,
        n: int,
        generator: torch.Generator,
        given: Tensor | None = None,
        *,
        cached: bool = True,
    ) -> Tensor:
        """Codes (n, n_codes), of which the first may be given, (n, n_given)."""
        known = self._enter(given)

        def choose(t: int, mixtures: Mixtures) -> Tensor:
            if known is not None and t < known.shape[1]:
                return known[:, t]
            return mixtures.draw(generator)

        return self._leave(self.sequence.unfold(n, choose, cached=cached))

    def to_normal(self, z: Tensor) -> Tensor:
        """Each code's conditional quantile as that of N(0, 1), (n, n_codes); in float64."""
        u = cast(Tensor, self._enter(z))
        return self.sequence.conditionals(u).to_normal(u)

    def from_normal(self, e: Tensor) -> Tensor:
        """The inverse of `to_normal`; in float64."""
        return self._leave(
            self.sequence.unfold(len(e), lambda t, mixtures: mixtures.from_normal(e[:, t]))
        )

    def _enter(self, z: Tensor | None) -> Tensor | None:
        if z is None or self.entry is None:
            return z
        k = z.shape[1]
        return z @ self.entry.matrix()[:k, :k].T

    def _leave(self, u: Tensor) -> Tensor:
        return u if self.entry is None else self.entry.inverse(u)


class AutoregressiveDensity(DensityModule):
    """A causal mixture density, and where it is asked for the average of its weights.

    The average over training steps, of which each counts `decay` times the one after it, is
    what a trained module computes with; steps are taken at the last weights.
    """

    def __init__(
        self, plan: dict[str, Any], covariance: NDArray[np.float64], generator: torch.Generator
    ) -> None:
        super().__init__()
        n = len(covariance)
        dilations = plan["dilations"]
        sequence = CausalMixture(
            n,
            plan["n_mixture"],
            plan["n_channels"],
            dilations_for(n, plan["filter_size"]) if dilations is None else dilations,
            generator,
            filter_size=plan["filter_size"],
            position_embedding=plan["position_embedding"],
        )
        entry = TriangularMap(covariance) if plan["input_transform"] == "triangular" else None
        self.now = CausalDensity(sequence, entry)
        self.n_codes = n
        self.average: AveragedModel | None = None
        if plan["weight_averaging"]:
            decay = plan["weight_averaging"]

            def average(before: Tensor, now: Tensor, n_before: Any) -> Tensor:
                # Early steps are forgotten sooner: the average must not hold on to the start.
                share = torch.clamp((1 + n_before) / (10 + n_before), max=decay)
                return torch.lerp(now, before, share.to(now.dtype))

            self.average = AveragedModel(self.now, avg_fn=average)
            self.average.requires_grad_(False)

    def density(self) -> CausalDensity:
        """What a trained module computes with."""
        if self.training or self.average is None:
            return self.now
        return cast(CausalDensity, self.average.module)

    def log_prob(self, z: Tensor) -> Tensor:
        return self.density().log_prob(z)

    def sample(self, n: int, generator: torch.Generator, given: Tensor | None = None) -> Tensor:
        density = self.density()
        parts = []
        for start in range(0, n, _ROWS):
            rows = slice(start, min(start + _ROWS, n))
            of_rows = None if given is None else given[rows]
            parts.append(density.sample(rows.stop - rows.start, generator, of_rows))
        return torch.cat(parts)

    def decayed(self) -> list[nn.Parameter]:
        """Weights of the network: positions and the map of the codes stay."""
        return [p for p in self.now.sequence.parameters() if p.ndim > 1]

    def step_scale(self) -> float:
        """Nats per code: steps should not grow with their number."""
        return 1 / self.n_codes

    def after_step(self, batch: Batch, loss: Loss) -> None:
        if self.average is not None:
            self.average.update_parameters(self.now)


class FlowDensity(DensityModule):
    """A neural spline flow of zuko's."""

    def __init__(self, n_codes: int, plan: dict[str, Any], generator: torch.Generator) -> None:
        super().__init__()
        try:
            import zuko
        except ImportError as error:
            raise ImportError(
                'density="flow" needs the package zuko: pip install "skae[flow]".'
            ) from error
        self.n_codes = n_codes
        seed = int(torch.randint(2**31 - 1, (1,), generator=generator))
        with global_generators_set_aside(seed=seed):
            self.flow = zuko.flows.NSF(
                self.n_codes,
                transforms=plan["n_transforms"],
                hidden_features=(plan["n_channels"],) * 2,
            )

    def log_prob(self, z: Tensor) -> Tensor:
        with torch.autocast(z.device.type, enabled=False):
            found: Tensor = self.flow().log_prob(z)
        return found

    def sample(self, n: int, generator: torch.Generator) -> Tensor:
        """Draws by torch's global generator, which is seeded and put back."""
        seed = int(torch.randint(2**31 - 1, (1,), generator=generator, device=generator.device))
        with global_generators_set_aside(str(generator.device), seed):
            flow = self.flow()
            parts = [flow.sample((min(_ROWS, n - start),)) for start in range(0, n, _ROWS)]
        return torch.cat(parts)

    def step_scale(self) -> float:
        return 1 / self.n_codes
