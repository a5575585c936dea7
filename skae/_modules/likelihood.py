"""The common part of modules with a likelihood of rows: the units of the rows."""

import copy
from abc import abstractmethod
from collections.abc import Hashable, Iterable
from dataclasses import fields
from typing import Any, ClassVar

import torch
from torch import Tensor, nan, nn

from skae._nn.likelihood_base import Likelihood
from skae._nn.likelihoods import NoiseSums, WithNoise, explained
from skae._nn.mixed import Mixed
from skae._nn.networks import inner_weights
from skae._training.data import Batch
from skae._training.module import Loss, TrainableModule, weighted_mean

# Fields that may differ between the members of a stack: those determined by the rows, the sizes in
# `blocks`, and values that only `prepare` reads.
_MAY_DIFFER = (
    *(
        "center",
        "explained_mean",
        "common_total",
        "range",
        "n_codes",
        "n_components",
        "row_dtype",
        "noise_variance",
        "noise",
    ),
    *("growth_epochs", "beta_warm_up"),  # each module computes its own gate or beta from them
)


class LikelihoodModule(TrainableModule):
    """A module with a likelihood p(x|z) of rows."""

    # Whether a linear initialisation also sets the noise variance, which then needs no estimate.
    begins_at_best_noise: ClassVar[bool] = False

    likelihood: Likelihood
    architecture: Any  # a Architecture

    @abstractmethod
    def output_of(self, batch: Batch) -> Tensor:
        """Return the output of the decoder at the code of each row."""

    def reconstructed(self, batch: Batch) -> Tensor:
        """Return the mean of p(x|z) at the code of each row, in the decoder's units.

        Counts have the size factors of their rows.
        """
        return self.likelihood.mean_of_rows(batch.y, self.output_of(batch), batch.seen)

    def matrices(self) -> list[nn.Parameter]:
        """Return the weights that neither read nor give rows, for the solver "muon"."""
        networks = dict(self.named_children())
        if not {"encoder", "decoder"} <= networks.keys():
            return []
        return inner_weights(networks["encoder"], networks["decoder"])

    def passes_per_row(self) -> int:
        passes: int = self.architecture.passes_per_row()
        return passes

    def log_units(self, batch: Batch) -> Tensor | float:
        """Return the change of the log density of observed values in the units of the data."""
        if isinstance(self.likelihood, Mixed):
            if batch.seen is None:
                return self.likelihood.total_log_scale
            return batch.seen @ self.likelihood.log_scale.to(batch.seen)
        n_seen = self.architecture.n_features if batch.seen is None else batch.seen.sum(1)
        return n_seen * self.architecture.log_scale

    def column_nats(self, batch: Batch, output: Tensor) -> Tensor:
        """Return log p(x_j|z) of every column j in the units of the data; 0 for missing values.

        There may be outputs of several draws for each row, (n, n_draws, n_outputs).
        """
        y, seen = batch.y, batch.seen
        if output.ndim == 3:
            y, seen = y[:, None], None if seen is None else seen[:, None]
        architecture = self.architecture
        log_scale = torch.as_tensor(architecture.log_scale).to(output)
        nats = self.likelihood.log_prob_of_rows(y, output, seen) - log_scale
        nats = nats if seen is None else nats * seen
        return nats if architecture.columns is None else architecture.columns.total(nats)

    def step_scale(self) -> Tensor | float:
        return self.likelihood.step_scale() / self.architecture.n_features

    @torch.no_grad()
    def settle_noise(self, losses: Iterable[tuple[Batch, Loss]]) -> None:
        noise = NoiseSums(self.likelihood)
        if noise.likelihood is None:
            return  # and no losses are computed
        for batch, loss in losses:
            noise.add(*explained(batch, loss.output, self.importance(loss)))
        noise.settle()

    def importance(self, loss: Loss) -> Tensor | None:
        """Return the weights of a row's draws, (n_rows, n_draws), or None for a single draw."""
        return None

    def nats(self, loss: Loss) -> Tensor:
        """Return the part of a loss that scores rows, without penalties and weights of terms."""
        found = {**loss.terms, **loss.logged}
        return found["bound"] if "bound" in found else found["reconstruction"] + found.get("kl", 0)

    def nats_of_means(self, batch: Batch) -> Tensor:
        """Return -log p(x) of a batch if every row is explained by the mean row."""
        architecture, likelihood = self.architecture, self.likelihood
        output = architecture.start_output().to(batch.y).expand(len(batch.y), -1)
        if isinstance(likelihood, WithNoise) and likelihood.learned:
            likelihood = copy.deepcopy(likelihood)  # a shallow copy would share the variance
            likelihood.variance = torch.full_like(likelihood.variance, architecture.mean_variance)
        log_prob = likelihood.row_log_prob(batch.y, output, batch.seen)
        return weighted_mean(self.log_units(batch) - log_prob, batch.weight)

    def stack_key(self) -> Hashable:
        """Return the architecture without the values that may differ in a stack."""
        likelihood, architecture = self.likelihood, self.architecture
        values = {
            field.name: getattr(architecture, field.name)
            for field in fields(architecture)
            if field.name not in _MAY_DIFFER
        }
        alike = tuple((n, v) for n, v in values.items() if not isinstance(v, float))
        kind = (type(likelihood), likelihood.learned, architecture.rescaled)
        return (*alike, *kind)

    def followed(self) -> tuple[str, ...]:
        return ("likelihood.variance", "likelihood.n_updates") * self.likelihood.learned

    def shown_rows(self, batch: Batch) -> Tensor:
        """Return the rows in the units of the data; missing values are NaN."""
        rows: Tensor = self.architecture.in_data_units(batch.y)
        if batch.seen is None:
            return rows
        seen, columns = batch.seen, self.architecture.columns
        seen = seen if columns is None else columns.first(seen)
        return rows.masked_fill(seen.to(rows.device) == 0, nan)

    def shown_output(self, output: Tensor) -> Tensor:
        """Return the means of p(x|z) in the units of the data, averaged over the draws of a row."""
        means = self.likelihood.mean(output)
        rows: Tensor = self.architecture.in_data_units(means if means.ndim == 2 else means.mean(1))
        return rows
