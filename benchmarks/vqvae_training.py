"""VQVAE beside pythae's VQVAE: seconds of an epoch, and the error after five.

    python benchmarks/vqvae_training.py --mnist mnist.npz

The same 784-400-128-400-784 network with ReLU, 16 positions of 8 numbers, one codebook of 512
codes with running means, Adam at 1e-3, batches of 128, squared error of pixels in [0, 1], in
eager float32, in one process, in turn; the figures are medians of epochs. No prior is
trained. The error is that of the test rows, squared and summed over pixels. Without
`--mnist` the digits come from `sklearn.datasets.fetch_openml`.

Measured figures: docs/benchmarks.md.
"""

import argparse
import time
from pathlib import Path

import numpy as np
import torch
from _common import describe_machine, load_mnist
from _peers import BATCH, Clock, median_epoch, train_pythae
from torch import nn

from skae import VQVAE

N_HIDDEN, N_POSITIONS, CODE_DIM = 400, 16, 8


def networks(n_features: int) -> tuple[nn.Sequential, nn.Sequential]:
    n_code = N_POSITIONS * CODE_DIM
    encoder = nn.Sequential(nn.Linear(n_features, N_HIDDEN), nn.ReLU(), nn.Linear(N_HIDDEN, n_code))
    decoder = nn.Sequential(nn.Linear(n_code, N_HIDDEN), nn.ReLU(), nn.Linear(N_HIDDEN, n_features))
    return encoder, decoder


class Runs:
    """Trainings of the peers; the test error and the codes in use of each are kept."""

    def __init__(self, X: np.ndarray, X_test: np.ndarray, n_codes: int, epochs: int) -> None:
        self.X, self.X_test = X, X_test
        self.n_codes, self.epochs = n_codes, epochs
        self.found: dict[str, list[str]] = {}

    def _keep(self, name: str, decoded: np.ndarray, indices: np.ndarray) -> None:
        error = float(((decoded - self.X_test) ** 2).sum(1).mean())
        used = len(np.unique(indices)) / self.n_codes
        self.found.setdefault(name, []).append(f"{error:.2f} with {used:.0%} of the codes")

    def skae(self, **params: object) -> list[float]:
        clock = Clock()
        model = VQVAE(
            N_POSITIONS,
            n_codes=self.n_codes,
            hidden_layer_sizes=N_HIDDEN,
            prior=None,
            batch_size=BATCH,
            max_iter=self.epochs,
            device="cpu",
            callbacks=[clock],
            **params,
        ).fit(self.X)
        name = " ".join(["skae", *(f"{key}={value}" for key, value in params.items())])
        self._keep(name, model.reconstruct(self.X_test), model.transform(self.X_test))
        return clock.seconds

    def hand_written(self) -> list[float]:
        """The networks alone, by index batches and fused Adam: nothing is quantised."""
        data, (encoder, decoder) = torch.from_numpy(self.X), networks(self.X.shape[1])
        both = nn.Sequential(encoder, decoder)
        optimizer = torch.optim.Adam(both.parameters(), lr=1e-3, fused=True)
        seconds = []
        for _ in range(self.epochs):
            start = time.perf_counter()
            for rows in torch.randperm(len(data)).split(BATCH):
                x = data.index_select(0, rows)
                loss = nn.functional.mse_loss(both(x), x)
                optimizer.zero_grad()
                loss.backward()
                optimizer.step()
            seconds.append(time.perf_counter() - start)
        return seconds

    def pythae(self) -> list[float]:
        from pythae.models import VQVAE as PythaeVQVAE
        from pythae.models import VQVAEConfig
        from pythae.models.base.base_utils import ModelOutput
        from pythae.models.nn import BaseDecoder, BaseEncoder

        to_codes, to_rows = networks(self.X.shape[1])

        class Encoder(BaseEncoder):
            def __init__(self):
                super().__init__()
                self.layers = to_codes

            def forward(self, x):
                # An image of channels: as it stands in the quantiser's input.
                grid = self.layers(x).reshape(-1, N_POSITIONS, 1, CODE_DIM).permute(0, 3, 1, 2)
                return ModelOutput(embedding=grid)

        class Decoder(BaseDecoder):
            def __init__(self):
                super().__init__()
                self.layers = to_rows

            def forward(self, z):
                return ModelOutput(reconstruction=self.layers(z.permute(0, 2, 3, 1).flatten(1)))

        config = VQVAEConfig(
            input_dim=(self.X.shape[1],),
            latent_dim=CODE_DIM,
            num_embeddings=self.n_codes,
            use_ema=True,
            decay=0.99,
        )
        model = PythaeVQVAE(config, encoder=Encoder(), decoder=Decoder())
        seconds = train_pythae(model, self.X, self.epochs)
        model.eval()
        with torch.no_grad():
            out = model({"data": torch.from_numpy(self.X_test)})
        self._keep("pythae", out.recon_x.numpy(), out.quantized_indices.numpy())
        return seconds


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--mnist", type=Path, help=".npz with X_train and X_test")
    parser.add_argument("--n-codes", type=int, default=512)
    parser.add_argument("--epochs", type=int, default=5)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--all", action="store_true", help="compiled and bfloat16 rows, too")
    args = parser.parse_args()
    X, X_test = (pixels.astype(np.float32) for pixels in load_mnist(args.mnist))
    runs = Runs(X, X_test, args.n_codes, args.epochs)
    timed = {"pythae": runs.pythae, "skae": runs.skae, "networks alone": runs.hand_written}
    if args.all:
        timed["skae compile=True"] = lambda: runs.skae(compile=True)
        timed["skae precision=bfloat16"] = lambda: runs.skae(precision="bfloat16")
    print(describe_machine("torch", "skorch", "pythae"), f"{torch.get_num_threads()} threads")
    medians = median_epoch(timed, args.rounds)
    print(f"{args.epochs} epochs in each of {args.rounds} rounds")
    for name, seconds in medians.items():
        found = "; ".join(runs.found.get(name, []))
        ratio = seconds / medians["pythae"]
        print(f"  {name:26} {seconds:6.3f} s an epoch, {ratio:.2f}x; {found}")


if __name__ == "__main__":
    main()
