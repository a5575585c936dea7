"""What was tried to make ordered codes cost less: other ways to cut, on training rows of MNIST.

    python benchmarks/ordered_codes_tried.py --mnist mnist.npz

Squared error of an image with the first 2, 4, 8, 16 and 30 codes, on 5,000 training rows that were
held out of 10,000 others; the test rows are not touched. The network is that of `ordered_codes.py`.
Beside a fit for each size there is `latent_growth="nested"` as it is, and with

- sizes drawn in proportion to k^-power, in strata of a batch, with a share of the rows whole;
- errors of size k weighted by their mean to the power -weight, so that weight=1 is a noise of its
  own for every size;
- several cuts of each row in a batch, at that price;
- only some sizes; wider layers; codes up to a share of the size held fixed by the gradient, so that
  small sizes alone move the first codes; a random start.

Measured figures: docs/benchmarks.md.
"""

import argparse
import time
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from _common import describe_machine, load_mnist
from ordered_codes import SIZES, network, show
from torch import Tensor

import skae._autoencoder
from skae._modules.autoencoder import AutoencoderModule
from skae._training.data import Batch
from skae._training.module import Loss

N_TRAIN, N_VALID = 10_000, 5_000
# How much of the running errors of the sizes a batch leaves as they were.
_MEMORY = 0.98


@dataclass
class Cuts:
    """A way to cut codes, which takes the place of that of `AutoencoderModule`."""

    power: float = 0.0
    whole: float = 0.0
    weight: float = 0.0
    times: int = 1
    fixed: float = 0.0
    sizes: tuple[int, ...] = tuple(range(1, max(SIZES) + 1))

    def __post_init__(self) -> None:
        chance = torch.zeros(max(SIZES), dtype=torch.float64)
        for k in self.sizes:
            chance[k - 1] = k**-self.power
        chance *= (1 - self.whole) / chance.sum()
        chance[-1] += self.whole
        self.cumulative = chance.cumsum(0).float()
        self.errors, self.counts = torch.zeros(2, max(SIZES) + 1)

    def cuts(self, module: Any, batch: Batch, generator: torch.Generator) -> Tensor:
        n = len(batch.x)
        total = n * self.times
        u = (torch.arange(total) + torch.rand(total, generator=generator)) / total
        u = torch.stack([part[torch.randperm(n, generator=generator)] for part in u.split(n)])
        cut = torch.searchsorted(self.cumulative, u.clamp(max=float(self.cumulative[-1]) - 1e-7))
        self.cut = cut + 1
        return (torch.arange(max(SIZES)) < self.cut[..., None]).float()

    def loss(self, module: Any, batch: Batch) -> Loss:
        z = module.all_codes(batch.x)
        codes = z.expand(self.times, *z.shape)
        if self.fixed:
            first = torch.arange(1, max(SIZES) + 1) <= self.fixed * self.cut[..., None]
            codes = torch.where(first, codes.detach(), codes)
        output = module.decode((codes * batch.gate).flatten(0, 1))
        error = (batch.y.repeat(self.times, 1) - output).square().sum(1)
        weight = self.weight_of_errors(error.detach(), self.cut.flatten())
        variance = module.likelihood.variance
        nats = 0.5 * ((weight * error).mean() / variance + output.shape[1] * variance.log())
        return Loss({"reconstruction": nats}, output)

    def weight_of_errors(self, error: Tensor, cut: Tensor) -> Tensor:
        self.errors.mul_(_MEMORY).index_add_(0, cut, error)
        self.counts.mul_(_MEMORY).index_add_(0, cut, torch.ones_like(error))
        mean = (self.errors / self.counts.clamp(min=1e-9)).clamp(min=1e-3)
        weight = mean[cut] ** -self.weight
        return weight / weight.mean()

    def after_step(self, module: Any, batch: Batch, loss: Loss) -> None:
        module.likelihood.follow(batch.y.repeat(self.times, 1), loss.output, None, None)


class CutModule(AutoencoderModule):
    """Trained by cuts of another way."""

    way: Cuts

    def _cuts(self, batch: Batch, generator: torch.Generator) -> Tensor:
        return self.way.cuts(self, batch, generator)

    def loss(self, batch: Batch) -> Loss:
        return super().loss(batch) if batch.gate is None else self.way.loss(self, batch)

    def settle_noise(self, losses: Any) -> None:
        """One row has several outputs; the running noise will do."""

    def after_step(self, batch: Batch, loss: Loss) -> None:
        self.way.after_step(self, batch, loss)


GEOMETRIC = (1, 2, 4, 8, 16, 30)
WIDER = {"hidden_layer_sizes": (1024, 512)}
TRIED: dict[str, tuple[dict[str, Any], dict[str, Any]]] = {
    "strata": ({}, {}),
    "1/sqrt(k)": ({"power": 0.5}, {}),
    "1/k": ({"power": 1.0}, {}),
    "noise by size": ({"weight": 1.0}, {}),
    "half of that": ({"weight": 0.5}, {}),
    "1/k, noise by size": ({"power": 1.0, "weight": 1.0}, {}),
    "1/sqrt(k), 1/5 whole": ({"power": 0.5, "whole": 0.2}, {}),
    "first half fixed": ({"fixed": 0.5}, {}),
    "6 sizes": ({"sizes": GEOMETRIC}, {}),
    "random start": ({}, {"init": "random"}),
    "4 cuts": ({"times": 4}, {}),
    "4 cuts, 1/sqrt(k)": ({"times": 4, "power": 0.5}, {}),
    "wider": ({}, WIDER),
    "4 cuts, 6 sizes": ({"times": 4, "sizes": GEOMETRIC}, {}),
    "8 cuts, 1/sqrt(k), wider": ({"times": 8, "power": 0.5}, WIDER),
}


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--mnist", type=Path, help=".npz file with X_train and X_test")
    parser.add_argument("--epochs", type=int, default=30)
    parser.add_argument("--only", nargs="*", default=list(TRIED))
    options = parser.parse_args()
    print(describe_machine("torch"), flush=True)
    rows = load_mnist(options.mnist)[0].astype(np.float32)
    order = np.random.RandomState(0).permutation(len(rows))
    train, valid = rows[order[:N_TRAIN]], rows[order[-N_VALID:]]

    def error(model: Any) -> float:
        return float(np.square(model.reconstruct(valid) - valid).sum(axis=1).mean())

    start = time.perf_counter()
    separate = [error(network(k, options.epochs).fit(train)) for k in SIZES]
    show("a fit each", separate, separate, time.perf_counter() - start)

    def one_fit(name: str, **params: Any) -> None:
        start = time.perf_counter()
        model = network(max(SIZES), options.epochs, "nested").set_params(**params).fit(train)
        path = model.reconstruction_path(valid)
        show(name, [float(path[k - 1]) for k in SIZES], separate, time.perf_counter() - start)

    one_fit("nested")
    skae._autoencoder.AutoencoderModule = CutModule  # type: ignore[misc]
    for name in options.only:
        how, params = TRIED[name]
        CutModule.way = Cuts(**how)
        one_fit(name, **params)
