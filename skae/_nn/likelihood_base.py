"""The interface of likelihoods p(x|z), whose parameters are the decoder's outputs."""

from abc import ABC, abstractmethod

import torch
from torch import Tensor, nn

from skae._training.ranks import Part


class Likelihood(nn.Module, ABC):
    """p(x|z) with features that are independent given the decoder's output."""

    # Whether x may be shifted and scaled, which changes the log density only by a constant.
    location = False
    # Whether it has a noise variance that is learned.
    learned = False
    # The range of values that features may have, including both ends.
    support = (float("-inf"), float("inf"))
    # Number of outputs of the decoder for each feature.
    n_outputs = 1

    @abstractmethod
    def log_prob(self, x: Tensor, output: Tensor) -> Tensor:
        """Return the nats of every value."""

    @abstractmethod
    def mean(self, output: Tensor) -> Tensor:
        """Return the mean of p(x|z)."""

    @abstractmethod
    def draw(self, output: Tensor, generator: torch.Generator) -> Tensor:
        """Draw from p(x|z)."""

    @abstractmethod
    def at(self, output: Tensor, uniform: Tensor) -> Tensor:
        """Return the draw from p(x|z) that uniform numbers, one for each output, determine."""

    def natural(self, mean: Tensor) -> Tensor:
        """Return the output with this mean, from which the decoder is initialised."""
        return mean

    def row_log_prob(self, x: Tensor, output: Tensor, seen: Tensor | None = None) -> Tensor:
        """Return the nats of every row, summed over observed values.

        `x` and `seen` are broadcast against `output`: they may have one row for many outputs.
        """
        values = self.log_prob(x, output)
        return values.sum(-1) if seen is None else (values * seen).sum(-1)

    def row_log_prob_and_slope(
        self, x: Tensor, output: Tensor, seen: Tensor | None
    ) -> tuple[Tensor, Tensor]:
        """Return `row_log_prob`, and its gradient with respect to the output.

        The gradient is x minus its mean, because the output is the natural parameter of an
        exponential family.
        """
        slope = x - self.mean(output)
        slope = slope if seen is None else slope * seen
        return self.row_log_prob(x, output, seen), slope

    def row_log_marginal(self, x: Tensor, output: Tensor, seen: Tensor | None = None) -> Tensor:
        """Return log p(x|z) of every row in nats, as scores use it.

        It differs from `row_log_prob` if that is conditional on the size factor of the row.
        """
        return self.row_log_prob(x, output, seen)

    def row_log_given(self, x: Tensor, output: Tensor, seen: Tensor | None = None) -> Tensor:
        """Return log p(x|z, s) given the size factor s of every row, as scores use it."""
        return self.row_log_prob(x, output, seen)

    def log_prob_of_rows(self, x: Tensor, output: Tensor, seen: Tensor | None = None) -> Tensor:
        """Return the nats of every value, given the size factors of rows x, if they have any."""
        return self.log_prob(x, output)

    def mean_of_rows(self, x: Tensor, output: Tensor, seen: Tensor | None = None) -> Tensor:
        """Return the mean of p(x|z), and of p(x|z, s) if rows x have size factors s."""
        return self.mean(output)

    def imputed_mean(self, x: Tensor, output: Tensor, seen: Tensor | None) -> Tensor:
        """Return the mean of p(x|z), given the observed values of rows x."""
        return self.mean(output)

    def imputed_draw(
        self, x: Tensor, output: Tensor, seen: Tensor | None, generator: torch.Generator
    ) -> Tensor:
        """Draw from p(x|z), given the observed values of rows x."""
        return self.draw(output, generator)

    def follow(
        self,
        x: Tensor,
        output: Tensor,
        weight: Tensor | None,
        seen: Tensor | None,
        part: Part | None = None,
    ) -> None:
        """Update the noise variance with a batch, or with a part; without noise, do nothing."""

    def step_scale(self) -> Tensor | float:
        """Return a factor that keeps the size of gradients constant as the noise decreases."""
        return 1.0
