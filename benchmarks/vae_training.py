"""VAE beside a hand-written loop and pythae's VAE: seconds of an epoch, and the bound after five.

    python benchmarks/vae_training.py --mnist mnist.npz

The same 784-400-20-400-784 network with ReLU, Adam at 1e-3, batches of 128, and the Bernoulli
likelihood of grey pixels in [0, 1], in eager float32, in one process, in turn; the figures
are medians of epochs. The bound is that of the test rows with one draw of z each, nats.
Without `--mnist` the digits come from `sklearn.datasets.fetch_openml`; without pythae its
row is left out.

Measured figures: docs/benchmarks.md.
"""

import argparse
import time
from importlib.util import find_spec
from pathlib import Path

import numpy as np
import torch
from _common import describe_machine, load_mnist
from _peers import BATCH, Clock, median_epoch, train_pythae
from torch import nn
from torch.nn.functional import binary_cross_entropy_with_logits

from skae import VAE

N_CODES, N_HIDDEN = 20, 400


def networks(n_features: int) -> tuple[nn.Sequential, nn.Sequential]:
    encoder = nn.Sequential(
        nn.Linear(n_features, N_HIDDEN), nn.ReLU(), nn.Linear(N_HIDDEN, 2 * N_CODES)
    )
    decoder = nn.Sequential(
        nn.Linear(N_CODES, N_HIDDEN), nn.ReLU(), nn.Linear(N_HIDDEN, n_features)
    )
    return encoder, decoder


def elbo(encoder: nn.Module, decoder: nn.Module, X: np.ndarray) -> float:
    """The bound with one draw of z a row."""
    x = torch.from_numpy(X)
    with torch.no_grad():
        mean, log_var = encoder(x).chunk(2, 1)
        noise = torch.randn(mean.shape, generator=torch.Generator().manual_seed(0))
        logits = decoder(mean + (log_var / 2).exp() * noise)
        loss = binary_cross_entropy_with_logits(logits, x, reduction="none").sum(1)
        kl = 0.5 * (mean.square() + log_var.exp() - log_var - 1).sum(1)
    return -float((loss + kl).mean())


class Runs:
    """Trainings of the peers; the bound of each is kept."""

    def __init__(self, X: np.ndarray, X_test: np.ndarray, epochs: int) -> None:
        self.X, self.X_test, self.epochs = X, X_test, epochs
        self.bounds: dict[str, list[float]] = {}

    def _keep(self, name: str, bound: float) -> None:
        self.bounds.setdefault(name, []).append(bound)

    def by_hand(self) -> list[float]:
        """What one would write by hand."""
        data, (encoder, decoder) = torch.from_numpy(self.X), networks(self.X.shape[1])
        parameters = [*encoder.parameters(), *decoder.parameters()]
        optimizer = torch.optim.Adam(parameters, lr=1e-3, fused=True)
        seconds = []
        for _ in range(self.epochs):
            start = time.perf_counter()
            for rows in torch.randperm(len(data)).split(BATCH):
                x = data.index_select(0, rows)
                mean, log_var = encoder(x).chunk(2, 1)
                z = mean + (log_var / 2).exp() * torch.randn_like(mean)
                misfit = binary_cross_entropy_with_logits(decoder(z), x, reduction="none").sum(1)
                kl = 0.5 * (mean.square() + log_var.exp() - log_var - 1).sum(1)
                loss = (misfit + kl).mean()
                optimizer.zero_grad()
                loss.backward()
                optimizer.step()
            seconds.append(time.perf_counter() - start)
        self._keep("hand-written loop", elbo(encoder, decoder, self.X_test))
        return seconds

    def skae(self, **params: object) -> list[float]:
        clock = Clock()
        model = VAE(
            N_CODES,
            hidden_layer_sizes=N_HIDDEN,
            likelihood="bernoulli",
            batch_size=BATCH,
            max_iter=self.epochs,
            tol=0,
            device="cpu",
            callbacks=[clock],
            **params,
        ).fit(self.X)
        name = " ".join(["skae", *(f"{key}={value}" for key, value in params.items())])
        self._keep(name, float(model.score_samples(self.X_test, n_importance=1).mean()))
        return clock.seconds

    def pythae(self) -> list[float]:
        from pythae.models import VAE as PythaeVAE
        from pythae.models import VAEConfig
        from pythae.models.base.base_utils import ModelOutput
        from pythae.models.nn import BaseDecoder, BaseEncoder

        encoder, decoder = networks(self.X.shape[1])

        class Encoder(BaseEncoder):
            def __init__(self):
                super().__init__()
                self.layers = encoder

            def forward(self, x):
                mean, log_var = self.layers(x).chunk(2, 1)
                return ModelOutput(embedding=mean, log_covariance=log_var)

        class Decoder(BaseDecoder):
            def __init__(self):
                super().__init__()
                self.layers = decoder

            def forward(self, z):
                return ModelOutput(reconstruction=torch.sigmoid(self.layers(z)))

        config = VAEConfig(
            input_dim=(self.X.shape[1],), latent_dim=N_CODES, reconstruction_loss="bce"
        )
        model = PythaeVAE(config, encoder=Encoder(), decoder=Decoder())
        seconds = train_pythae(model, self.X, self.epochs)
        self._keep("pythae", elbo(encoder, decoder, self.X_test))
        return seconds


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--mnist", type=Path, help=".npz with X_train and X_test")
    parser.add_argument("--epochs", type=int, default=5)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--all", action="store_true", help="compiled and bfloat16 rows, too")
    args = parser.parse_args()
    X, X_test = (pixels.astype(np.float32) for pixels in load_mnist(args.mnist))
    runs = Runs(X, X_test, args.epochs)
    timed = {"hand-written loop": runs.by_hand, "skae": runs.skae}
    if args.all:
        timed["skae compile=True"] = lambda: runs.skae(compile=True)
        timed["skae precision=bfloat16"] = lambda: runs.skae(precision="bfloat16")
    packages = ["torch", "skorch"]
    if find_spec("pythae"):
        timed["pythae"] = runs.pythae
        packages.append("pythae")
    print(describe_machine(*packages), f"{torch.get_num_threads()} threads")
    medians = median_epoch(timed, args.rounds)
    base = medians.get("pythae", medians["hand-written loop"])
    print(f"{args.epochs} epochs in each of {args.rounds} rounds")
    for name, seconds in medians.items():
        bounds = ", ".join(f"{bound:.2f}" for bound in runs.bounds[name])
        print(f"  {name:26} {seconds:6.3f} s an epoch, {seconds / base:.2f}x; test bound {bounds}")


if __name__ == "__main__":
    main()
