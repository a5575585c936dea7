"""The restricted Boltzmann machine, for layer-wise pretraining.

p(v, h) is proportional to exp(-E), and with unit variances

    E(v, h) = e(v, b) + e(h, c) - v W h,    e(u, a) = -u a          for binary units
                                            e(u, a) = |u - a|² / 2  for Gaussian units

so that p(h|v) and p(v|h) factorise, with means sigmoid(c + v W) or c + v W.

References
----------
G. E. Hinton (2002). Training products of experts by minimizing contrastive divergence.
Neural Computation 14, 1771-1800. :doi:`10.1162/089976602760128018`

G. E. Hinton and R. R. Salakhutdinov (2006). Reducing the dimensionality of data with
neural networks. Science 313, 504-507. :doi:`10.1126/science.1127647`
"""

from typing import Any, NamedTuple

import torch
from torch import Tensor
from torch.nn.functional import softplus

# Momentum of the first epochs and of the later ones, and weight decay, as in Hinton's own work.
_EARLY_MOMENTUM, _LATE_MOMENTUM, _EARLY_EPOCHS = 0.5, 0.9, 5
_WEIGHT_DECAY = 2e-4
# Learning rates. Gaussian units diverge at the rate that binary units need.
_RATE_OF_BITS, _RATE_OF_REALS = 0.1, 0.01


class Statistics(NamedTuple):
    """Means over rows of v h', v and h."""

    vh: Tensor
    v: Tensor
    h: Tensor


class RestrictedBoltzmannMachine:
    """Visible and hidden units, each either binary ("bernoulli") or Gaussian ("gaussian").

    Parameters
    ----------
    n_visible, n_hidden : int
        Number of units.
    visible, hidden : {"bernoulli", "gaussian"}, default="bernoulli"
        Kind of the units.
    generator : torch.Generator
        Generator that draws the initial weights, N(0, 0.01²), and the chains.
    """

    def __init__(
        self,
        n_visible: int,
        n_hidden: int,
        *,
        visible: str = "bernoulli",
        hidden: str = "bernoulli",
        generator: torch.Generator,
    ) -> None:
        self.visible, self.hidden, self.generator = visible, hidden, generator
        device = generator.device
        self.W = torch.empty(n_visible, n_hidden, device=device)
        self.W.normal_(0, 0.01, generator=generator)
        self.b = torch.zeros(n_visible, device=device)
        self.c = torch.zeros(n_hidden, device=device)
        self._velocity = Statistics(*(torch.zeros_like(p) for p in (self.W, self.b, self.c)))

    def state_dict(self) -> dict[str, Any]:
        """Return weights, biases and the velocities of their steps."""
        return {"W": self.W, "b": self.b, "c": self.c, "velocity": list(self._velocity)}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Set weights, biases and the velocities of their steps."""
        device = self.generator.device
        self.W, self.b, self.c = (state[name].to(device) for name in ("W", "b", "c"))
        self._velocity = Statistics(*(values.to(device) for values in state["velocity"]))

    def start_at(self, mean: Tensor) -> None:
        """Set the visible bias to give this mean while the weights are small."""
        self.b = torch.logit(mean, eps=1e-2) if self.visible == "bernoulli" else mean.clone()

    def hidden_mean(self, v: Tensor) -> Tensor:
        """Return E[h | v]."""
        drive = torch.addmm(self.c, v, self.W)
        return torch.sigmoid(drive) if self.hidden == "bernoulli" else drive

    def visible_mean(self, h: Tensor) -> Tensor:
        """Return E[v | h]."""
        drive = torch.addmm(self.b, h, self.W.T)
        return torch.sigmoid(drive) if self.visible == "bernoulli" else drive

    def free_energy(self, v: Tensor) -> Tensor:
        """Return F(v) = -log of the sum or integral of exp(-E(v, h)) over h, for every row."""
        energy = -(v @ self.b)
        if self.visible == "gaussian":
            energy = 0.5 * (v - self.b).square().sum(1)
        drive = v @ self.W
        if self.hidden == "bernoulli":
            return energy - softplus(drive + self.c).sum(1)
        # The integral of exp(-|h - c|²/2 + a h) is (2 pi)^(n/2) exp(a c + |a|²/2).
        constant = 0.5 * len(self.c) * torch.log(torch.tensor(2 * torch.pi))
        return energy - drive @ self.c - 0.5 * drive.square().sum(1) - constant

    def sample(self, mean: Tensor, kind: str) -> Tensor:
        """Draw units with these means."""
        if kind == "bernoulli":
            return torch.bernoulli(mean, generator=self.generator)
        return mean + torch.empty_like(mean).normal_(generator=self.generator)

    def contrast(
        self, v: Tensor, n_steps: int = 1, weight: Tensor | None = None
    ) -> tuple[Statistics, Statistics]:
        """Return statistics of the data, and after `n_steps` of Gibbs sampling (CD-k).

        The statistics use the means of the hidden units in place of draws. This reduces their noise
        without a bias, because the means given v are exact.
        """
        first = mean = self.hidden_mean(v)
        for _ in range(n_steps):
            chain = self.sample(self.visible_mean(self.sample(mean, self.hidden)), self.visible)
            mean = self.hidden_mean(chain)
        fraction = v.new_full((len(v),), 1 / len(v)) if weight is None else weight / weight.sum()
        return _statistics(v, first, fraction), _statistics(chain, mean, fraction)

    def step(self, v: Tensor, epoch: int, n_steps: int = 1, weight: Tensor | None = None) -> None:
        """Make one update with a batch; epochs count from 0."""
        data, dream = self.contrast(v, n_steps, weight)
        momentum = _EARLY_MOMENTUM if epoch < _EARLY_EPOCHS else _LATE_MOMENTUM
        reals = "gaussian" in (self.visible, self.hidden)
        rate = _RATE_OF_REALS if reals else _RATE_OF_BITS
        for velocity, parameter, up, down in zip(
            self._velocity, (self.W, self.b, self.c), data, dream, strict=True
        ):
            gradient = up - down
            if parameter is self.W:
                gradient = gradient - _WEIGHT_DECAY * parameter
            velocity.mul_(momentum).add_(gradient, alpha=rate)
            parameter.add_(velocity)


def _statistics(v: Tensor, h: Tensor, fraction: Tensor) -> Statistics:
    return Statistics((v.T * fraction) @ h, fraction @ v, fraction @ h)
