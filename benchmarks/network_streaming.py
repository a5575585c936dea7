"""Autoencoder.partial_fit beside the same steps by hand, early and late in a stream.

    OMP_NUM_THREADS=1 python benchmarks/network_streaming.py

Batches of 1000 rows x 64 features through a hidden layer of 100 units, 8 codes, 8 steps of Adam
each. By hand stands for what a call learns and nothing else: standardised rows, the steps with a
running noise variance, and then the noise of the batch and the moments of its codes. What the
estimator does besides: it checks the rows, leaves the model as it was if a call fails, records
history, hears callbacks, and looks whether training diverged.

Measured figures: docs/benchmarks.md.
"""

import numpy as np
import torch
from _common import alternate, describe_machine
from torch import nn

from skae import Autoencoder

N_ROWS, N_FEATURES, HIDDEN, N_CODES, BATCH = 1000, 64, 100, 8, 128
CALLS, ROUNDS, LATE = 20, 15, 2000


class ByHand:
    """The same network, trained as a stream."""

    def __init__(self) -> None:
        self.encoder = nn.Sequential(
            nn.Linear(N_FEATURES, HIDDEN), nn.ReLU(), nn.Linear(HIDDEN, N_CODES)
        )
        self.decoder = nn.Sequential(
            nn.Linear(N_CODES, HIDDEN), nn.ReLU(), nn.Linear(HIDDEN, N_FEATURES)
        )
        parameters = [*self.encoder.parameters(), *self.decoder.parameters()]
        self.optimizer = torch.optim.Adam(parameters, lr=1e-3, weight_decay=1e-4, fused=True)
        self.variance = torch.tensor(1.0)

    def partial_fit(self, rows: torch.Tensor) -> None:
        x = (rows - 0.1) / 1.5
        for part in torch.randperm(len(x)).split(BATCH):
            batch = x[part]
            error = (self.decoder(self.encoder(batch)) - batch).square()
            loss = 0.5 * (error / self.variance + self.variance.log()).sum(1).mean()
            self.optimizer.zero_grad()
            loss.backward()
            self.optimizer.step()
            self.variance = self.variance.lerp(error.detach().mean(), 0.05)
        with torch.inference_mode():
            z = self.encoder(x)
            self.variance = (self.decoder(z) - x).square().mean().clone()
        self.variance = self.variance.detach().clone()
        self.moments = z.mean(0), np.cov(z.numpy().T)


def main() -> None:
    print(describe_machine("torch", "skorch"))
    rng = np.random.default_rng(0)
    factors = rng.standard_normal((N_ROWS, N_CODES)) @ rng.standard_normal((N_CODES, N_FEATURES))
    X = (factors + 0.1 * rng.standard_normal(factors.shape)).astype(np.float32)
    rows, hand = torch.from_numpy(X), ByHand()
    model = Autoencoder(N_CODES, hidden_layer_sizes=(HIDDEN,), random_state=0, device="cpu")

    def calls(trained: object, data: object) -> None:
        for _ in range(CALLS):
            trained.partial_fit(data)  # type: ignore[attr-defined]

    work = {
        "by hand": lambda: calls(hand, rows),
        "Autoencoder.partial_fit": lambda: calls(model, X),
    }
    for when in ("early", f"after {LATE} calls"):
        for _ in range(0 if when == "early" else LATE):
            model.partial_fit(X)
        for name, seconds in alternate(work, ROUNDS).items():
            print(f"{when:18s} {name:24s} {1e3 * seconds / CALLS:6.2f} ms a call")


if __name__ == "__main__":
    main()
