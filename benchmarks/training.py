"""Autoencoder beside a hand-written loop, skorch's default and pythae: epochs, transform, memory.

    python benchmarks/training.py --mnist mnist.npz

Without `--mnist` the digits come from `sklearn.datasets.fetch_openml`; without pythae its
rows are left out. All train the same 784-400-20-400-784 network with ReLU, Adam and
squared error in batches of 128, in one process, in turn; the figures are medians of
epochs, from the first batch to the last. The hand-written loop slices batches by index
from one tensor and steps a fused Adam.

Measured figures: docs/benchmarks.md.
"""

import argparse
import contextlib
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

import numpy as np
import torch
from _common import alternate, describe_machine, load_mnist, peak_extra_memory
from _peers import BATCH, Clock, median_epoch, train_pythae
from skorch import NeuralNet
from torch import nn

from skae import Autoencoder

N_CODES, N_HIDDEN = 20, 400


def network(n_features: int, n_hidden: int, n_codes: int) -> nn.Sequential:
    return nn.Sequential(
        nn.Linear(n_features, n_hidden),
        nn.ReLU(),
        nn.Linear(n_hidden, n_codes),
        nn.Linear(n_codes, n_hidden),
        nn.ReLU(),
        nn.Linear(n_hidden, n_features),
    )


# ---------------------------------------------------- what is timed: seconds of each epoch


def plain_loop(X: np.ndarray, epochs: int, n_hidden: int = N_HIDDEN) -> list[float]:
    """What one would write by hand."""
    data = torch.from_numpy(X)
    net = network(X.shape[1], n_hidden, N_CODES)
    optimizer = torch.optim.Adam(net.parameters(), lr=1e-3, fused=True)
    seconds = []
    for _ in range(epochs):
        start = time.perf_counter()
        order = torch.randperm(len(data))
        for rows in order.split(BATCH):
            x = data.index_select(0, rows)
            loss = (net(x) - x).square().sum(1).mean()
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()
        seconds.append(time.perf_counter() - start)
    return seconds


def skae(X: np.ndarray, epochs: int, n_hidden: int = N_HIDDEN, **params: object) -> list[float]:
    clock = Clock()
    model = Autoencoder(
        N_CODES,
        hidden_layer_sizes=n_hidden,
        batch_size=BATCH,
        max_iter=epochs,
        tol=0,
        random_state=0,
        device="cpu",
        callbacks=[clock],
        **params,
    )
    model.fit(X)
    return clock.seconds


def skorch_default(X: np.ndarray, epochs: int, n_hidden: int = N_HIDDEN) -> list[float]:
    clock = Clock()
    net = NeuralNet(
        network(X.shape[1], n_hidden, N_CODES),
        nn.MSELoss,
        optimizer=torch.optim.Adam,
        lr=1e-3,
        batch_size=BATCH,
        iterator_train__shuffle=True,
        max_epochs=epochs,
        train_split=None,
        callbacks=[clock],
        verbose=0,
    )
    net.fit(X, X)
    return clock.seconds


def pythae(X: np.ndarray, epochs: int) -> list[float]:
    from pythae.models import AE, AEConfig
    from pythae.models.base.base_utils import ModelOutput
    from pythae.models.nn import BaseDecoder, BaseEncoder

    layers = network(X.shape[1], N_HIDDEN, N_CODES)

    class Encoder(BaseEncoder):
        def __init__(self):
            super().__init__()
            self.layers = layers[:3]

        def forward(self, x):
            return ModelOutput(embedding=self.layers(x))

    class Decoder(BaseDecoder):
        def __init__(self):
            super().__init__()
            self.layers = layers[3:]

        def forward(self, z):
            return ModelOutput(reconstruction=self.layers(z))

    config = AEConfig(input_dim=(X.shape[1],), latent_dim=N_CODES)
    return train_pythae(AE(config, encoder=Encoder(), decoder=Decoder()), X, epochs)


def show(title: str, figures: dict[str, float], base: str, unit: str = "s") -> None:
    print(f"\n{title}")
    for name, value in figures.items():
        print(f"  {name:28} {value:9.4f} {unit}   {value / figures[base]:6.2f} x {base}")


# ------------------------------------------------------------------------------ the tables


def epochs_of_mnist(X: np.ndarray, rounds: int, slow: bool) -> None:
    runs: dict[str, Callable[[], list[float]]] = {
        "hand-written loop": lambda: plain_loop(X, 2),
        "skae": lambda: skae(X, 2),
        "skorch's default": lambda: skorch_default(X, 1),
    }
    with contextlib.suppress(ImportError):
        import pythae as _  # noqa: F401

        runs["pythae"] = lambda: pythae(X, 1)
    if slow:
        # The first epoch compiles; it is left out.
        runs["skae, compile"] = lambda: skae(X, 3, compile=True)[1:]
        runs["skae, bfloat16"] = lambda: skae(X, 2, precision="bfloat16")
        runs["skae, bfloat16, compile"] = lambda: skae(X, 3, precision="bfloat16", compile=True)[1:]
    show("One epoch, 60,000 x 784, batch 128", median_epoch(runs, rounds), "skorch's default")


def epochs_of_small_data(rounds: int) -> None:
    X = np.random.default_rng(0).normal(size=(80, 301)).astype(np.float32)
    runs = {
        "hand-written loop": lambda: sum(plain_loop(X, 100, 100)),
        "skae": lambda: sum(skae(X, 100, 100)),
        "skae, the whole fit": lambda: skae(X, 100, 100),
        "skorch's default": lambda: sum(skorch_default(X, 100, 100)),
    }
    show("100 epochs, 80 x 301", alternate(runs, rounds), "hand-written loop")


def transform(X: np.ndarray, rounds: int) -> None:
    model = Autoencoder(
        N_CODES, hidden_layer_sizes=N_HIDDEN, max_iter=1, random_state=0, device="cpu"
    ).fit(X[:2000])
    encoder, data = model.net_.module_.encoder, torch.from_numpy(X)

    def forward() -> torch.Tensor:
        with torch.inference_mode():
            return encoder(data)

    runs = {"bare forward pass": forward, "skae": lambda: model.transform(X)}
    show("transform of 60,000 rows", alternate(runs, rounds), "bare forward pass")


def memory(X: np.ndarray) -> None:
    print("\nMB that a fit of two epochs adds to a process that holds the data")
    for name, rows in {
        "uint8": (X * 255).astype(np.uint8),
        "float32": X,
        "float64": X.astype(np.float64),
    }.items():
        print(f"  {name:10} {rows.nbytes / 2**20:6.0f} MB + {_fit_memory(rows):6.0f} MB")


def _fit_memory(rows: np.ndarray) -> float:
    return peak_extra_memory(lambda: skae(rows, 2))


def import_time(rounds: int) -> None:
    def load(what: str) -> Callable[[], object]:
        return lambda: subprocess.run([sys.executable, "-c", f"import {what}"], check=True)

    runs = {
        "import skorch": load("skorch"),
        "import skae": load("skae"),
        "from skae import PPCA": load("skae._ppca"),
        "from skae import Autoencoder": load("skae._autoencoder"),
    }
    show("import, with Python's own start", alternate(runs, rounds), "import skorch")


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--mnist", type=Path, help=".npz file with X_train and X_test")
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--quick", action="store_true", help="without compile and bfloat16")
    options = parser.parse_args()
    print(describe_machine("torch", "skorch"))
    X = load_mnist(options.mnist)[0].astype(np.float32)
    memory(X)
    epochs_of_mnist(X, options.rounds, slow=not options.quick)
    epochs_of_small_data(options.rounds)
    transform(X, options.rounds)
    import_time(options.rounds)
