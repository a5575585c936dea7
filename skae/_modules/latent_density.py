"""Densities of standardised codes that are trained by gradients: a causal network, a flow.

References
----------
C. Durkan, A. Bekasov, I. Murray and G. Papamakarios (2019). Neural spline flows. NeurIPS
32. :doi:`10.48550/arXiv.1906.04032`
"""

import re
from abc import abstractmethod
from collections.abc import Hashable, Mapping
from typing import Any, cast

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from skae._nn.causal import CausalMixture, dilations_for
from skae._nn.gaussian_latents import log_mean_exp
from skae._nn.mixture_heads import Mixtures
from skae._training.averaging import OF_AVERAGE, copy_of
from skae._training.data import Batch
from skae._training.module import Loss, TrainableModule, weighted_mean
from skae._training.random_state import preserve_rng_state

# Number of rows that are drawn together.
_ROWS = 4096
# A direction in which codes have a variance below this, relative to 1, is a rounding error.
_FLAT = 1e-6


class TriangularMap(nn.Module):
    """A learned map u = W z with a lower triangular W that has a positive diagonal.

    It is initialised so that u is white, W W' = S^-1. The density p(z) = N(0, S) is then p(u) =
    N(0, I), whose conditionals are independent. Because u_t depends only on z_1, ..., z_t, a
    density that is autoregressive in u is autoregressive in z, too.

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
        """Return W, (n, n)."""
        return self.below.tril(-1) + self.log_diagonal.exp().diag()

    def forward(self, z: Tensor) -> Tensor:
        """Return u of z, (n_rows, n); only the first columns may be given."""
        k = z.shape[1]
        with torch.autocast(z.device.type, enabled=False):
            return z @ self.matrix()[:k, :k].T

    def inverse(self, u: Tensor) -> Tensor:
        """Return z of u, (n_rows, n); only the first columns may be given."""
        k = u.shape[1]
        return torch.linalg.solve_triangular(self.matrix()[:k, :k], u.T, upper=False).T

    def log_det(self) -> Tensor:
        """Return log |du/dz|."""
        return self.log_diagonal.sum()


class DensityModule(TrainableModule):
    """A density of standardised codes (n, n_codes)."""

    @abstractmethod
    def log_prob(self, z: Tensor) -> Tensor:
        """Return log p(z) in nats, (n,)."""

    @abstractmethod
    def sample(self, n: int, generator: torch.Generator) -> Tensor:
        """Draw codes (n, n_codes)."""

    def loss(self, batch: Batch) -> Loss:
        """Return -log p(z) in nats per row."""
        return Loss({"density": -weighted_mean(self.log_prob(batch.x), batch.weight)}, batch.x)


class CausalDensity(nn.Module):
    """A causal mixture density of z in one order, or the mean of such densities in several.

    In each order, the sequence consists of the codes in that order, or of a triangular map of them.

    Parameters
    ----------
    sequence : CausalMixture
        The densities of sequences.
    orders : Tensor of shape (n_orders, n_codes)
        Index of the code at each position of each order.
    entries : list of TriangularMap or None
        The map of each order.
    """

    orders: Tensor

    def __init__(
        self, sequence: CausalMixture, orders: Tensor, entries: list[TriangularMap] | None
    ) -> None:
        super().__init__()
        self.sequence = sequence
        self.entries = None if entries is None else nn.ModuleList(entries)
        self.register_buffer("orders", orders)

    def log_prob_in(self, z: Tensor, order: int) -> Tensor:
        """Return log p(z) of one order, (n,)."""
        found = self.sequence.log_prob(self._enter(z, order), order).sum(1)
        if self.entries is None:
            return found
        return found + cast(TriangularMap, self.entries[order]).log_det()

    def log_prob(self, z: Tensor) -> Tensor:
        """Return log p(z), (n,)."""
        each = [self.log_prob_in(z, order) for order in range(len(self.orders))]
        return each[0] if len(each) == 1 else log_mean_exp(torch.stack(each, -1))

    def sample(
        self,
        n: int,
        generator: torch.Generator,
        given: Tensor | None = None,
        order: int = 0,
        *,
        cached: bool = True,
    ) -> Tensor:
        """Draw codes (n, n_codes) in one order; the first codes may be given, (n, n_given)."""
        known = None if given is None else self._enter(given, order)

        def choose(t: int, mixtures: Mixtures) -> Tensor:
            if known is not None and t < known.shape[1]:
                return known[:, t]
            return mixtures.draw(generator)

        return self._leave(self.sequence.unfold(n, choose, order, cached=cached), order)

    def to_normal(self, z: Tensor) -> Tensor:
        """Return the N(0, 1) quantile of each code's conditional probability, in float64."""
        u = self._enter(z, 0).T
        return self.sequence.conditionals(u).to_normal(u).T

    def from_normal(self, e: Tensor) -> Tensor:
        """Return the inverse of `to_normal`, in float64."""

        def choose(t: int, mixtures: Mixtures) -> Tensor:
            return mixtures.from_normal(e[:, t])

        return self._leave(self.sequence.unfold(len(e), choose), 0)

    def _enter(self, z: Tensor, order: int) -> Tensor:
        """Return the sequence of all codes, or of the first ones."""
        z = z[:, self.orders[order, : z.shape[1]]]
        return z if self.entries is None else self.entries[order](z)

    def _leave(self, u: Tensor, order: int) -> Tensor:
        z = u if self.entries is None else cast(TriangularMap, self.entries[order]).inverse(u)
        return z[:, self.orders[order].argsort()]


class AutoregressiveDensity(DensityModule):
    """A causal mixture density of codes, in one or several orders."""

    def __init__(
        self,
        architecture: dict[str, Any],
        orders: NDArray[np.int64],
        covariance: NDArray[np.float64],
        generator: torch.Generator,
    ) -> None:
        super().__init__()
        n_orders, n = orders.shape
        dilations = architecture["dilations"]
        sequence = CausalMixture(
            n,
            architecture["n_mixture"],
            architecture["n_channels"],
            dilations_for(n, architecture["filter_size"]) if dilations is None else dilations,
            generator,
            filter_size=architecture["filter_size"],
            position_embedding=architecture["position_embedding"],
            relative=architecture["divisive_normalization"],
            n_orders=n_orders,
            kind=architecture["mixture_kind"],
        )
        entries = None
        if architecture["input_transform"] == "triangular":
            entries = [TriangularMap(covariance[np.ix_(order, order)]) for order in orders]
        self.density = CausalDensity(sequence, torch.from_numpy(orders), entries)
        self.n_codes, self.n_orders = n, n_orders
        self._made_of = tuple((name, str(value)) for name, value in architecture.items())

    def prepare(self, batch: Batch, generator: torch.Generator) -> Batch:
        """Draw the order for this batch in training."""
        if not self.training or self.n_orders == 1:
            return batch
        order = torch.randint(self.n_orders, (1,), generator=generator, device=generator.device)
        return batch._replace(draws=order)

    def passes_per_row(self) -> int:
        return self.n_codes

    def loss(self, batch: Batch) -> Loss:
        if batch.draws is None:
            return super().loss(batch)
        log_prob = self.density.log_prob_in(batch.x, int(batch.draws))
        return Loss({"density": -weighted_mean(log_prob, batch.weight)}, batch.x)

    def log_prob(self, z: Tensor) -> Tensor:
        return self.density.log_prob(z)

    def sample(self, n: int, generator: torch.Generator, given: Tensor | None = None) -> Tensor:
        """Draw codes (n, n_codes), each in a random order if there are several."""
        device = generator.device
        chosen = torch.randint(self.n_orders, (n,), generator=generator, device=device)
        codes = torch.empty((n, self.n_codes), device=device)
        for order in range(self.n_orders):
            for rows in (chosen == order).nonzero()[:, 0].split(_ROWS):
                known = None if given is None else given[rows]
                codes[rows] = self.density.sample(len(rows), generator, known, order)
        return codes

    def decayed(self) -> list[nn.Parameter]:
        """Return the weights of the network, except position embeddings and triangular maps."""
        sequence = self.density.sequence
        layers = (sequence.enter, sequence.network, sequence.leave)
        return [p for layer in layers for p in layer.parameters() if p.ndim > 1]

    def matrices(self) -> list[nn.Parameter]:
        return [p for p in self.density.sequence.network.parameters() if p.ndim == 2]

    def step_scale(self) -> float:
        """Return the factor to nats per code: steps do not depend on the number of codes."""
        return 1 / self.n_codes

    def stack_obstacle(self) -> str | None:
        # Each batch has one order. It is a Python number, which cannot differ within a stack.
        return None if self.n_orders == 1 else f"orderings={self.n_orders}"

    def stack_key(self) -> Hashable:
        return (self._made_of, tuple(self.density.orders.flatten().tolist()))


def present_weights(saved: Mapping[str, NDArray[Any]]) -> dict[str, NDArray[Any]]:
    """Return the saved weights of an `AutoregressiveDensity` by their present names.

    skae 0.1 had the latest weights in `now`, and their average in `average.module`.
    """
    n_steps = saved.get("average.n_averaged")
    if n_steps is None:
        return {re.sub(r"^now\.", "density.", name): values for name, values in saved.items()}
    found = {"average.n_steps": n_steps, "average.is_in_place": np.asarray(n_steps > 0)}
    for name, latest in saved.items():
        if name.startswith("now."):
            now = name.replace("now.", "density.", 1)
            found[now] = saved[name.replace("now.", "average.module.", 1)]
            if latest.dtype.kind == "f":
                found[OF_AVERAGE + copy_of(now)] = latest
    return found


def import_zuko() -> Any:
    """Import the package of the flows, which is an optional dependency."""
    try:
        import zuko
    except ImportError as error:
        raise ImportError(
            "density='flow' needs the package zuko: pip install \"skae[flow]\"."
        ) from error
    return zuko


class FlowDensity(DensityModule):
    """A neural spline flow of zuko."""

    def __init__(
        self, n_codes: int, architecture: dict[str, Any], generator: torch.Generator
    ) -> None:
        super().__init__()
        zuko = import_zuko()
        self.n_codes = n_codes
        seed = int(torch.randint(2**31 - 1, (1,), generator=generator))
        with preserve_rng_state(seed=seed):
            self.flow = zuko.flows.NSF(
                self.n_codes,
                transforms=architecture["n_transforms"],
                hidden_features=(architecture["n_channels"],) * 2,
            )

    def log_prob(self, z: Tensor) -> Tensor:
        with torch.autocast(z.device.type, enabled=False):
            found: Tensor = self.flow().log_prob(z)
        return found

    def sample(self, n: int, generator: torch.Generator) -> Tensor:
        """Draw by torch's global generator, which is seeded and restored."""
        seed = int(torch.randint(2**31 - 1, (1,), generator=generator, device=generator.device))
        with preserve_rng_state(str(generator.device), seed):
            flow = self.flow()
            parts = [flow.sample((min(_ROWS, n - start),)) for start in range(0, n, _ROWS)]
        return torch.cat(parts)

    def step_scale(self) -> float:
        return 1 / self.n_codes
