"""Log-likelihood of dynamically binarised MNIST under VAE, with one and with 50 importance samples.

    python benchmarks/vae_nll.py --mnist mnist.npz --epochs 200
    python benchmarks/vae_nll.py --mnist mnist.npz --then-importance 50 --more-epochs 20

The network of Burda et al. (2016): 784-200-200-50 and back, with tanh or another --activation.
Pixels are drawn anew from their grey values before every epoch, each of which is one call of
`partial_fit`. The test rows are binarised once, and never looked at before the end; the figure
is minus the mean importance-weighted bound with 5000 draws, in nats per row.

With `--then-importance` the training goes on with that many importance samples. Without
`--mnist` the digits come from `sklearn.datasets.fetch_openml`.

Measured figures: docs/benchmarks.md.
"""

import argparse
import time
from math import cos, pi
from pathlib import Path

import numpy as np
from _common import describe_machine, load_mnist

from skae import VAE


def binarised(grey: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    return (rng.random(grey.shape, dtype=np.float32) < grey).astype(np.uint8)


def train(
    model: VAE, grey: np.ndarray, epochs: int, rates: tuple[float, float], rng: np.random.Generator
) -> float:
    """Epochs of freshly binarised rows at a rate that falls along a cosine; their seconds."""
    start = time.perf_counter()
    for epoch in range(epochs):
        share = 0.5 * (1 + cos(pi * epoch / epochs))
        model.set_params(learning_rate_init=rates[1] + share * (rates[0] - rates[1]))
        model.partial_fit(binarised(grey, rng))
        if (epoch + 1) % max(1, epochs // 10) == 0:
            loss = model.history_[-1]["train_loss"]
            print(
                f"  epoch {epoch + 1}: {loss:.2f}, {time.perf_counter() - start:.0f} s", flush=True
            )
    return time.perf_counter() - start


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--mnist", type=Path, help=".npz with X_train and X_test")
    parser.add_argument("--epochs", type=int, default=200)
    parser.add_argument("--rate", type=float, default=2e-3)
    parser.add_argument("--warm-up", type=int, default=0, help="epochs in which beta grows")
    parser.add_argument("--activation", default="tanh")
    parser.add_argument("--batch-size", type=int, default=128)
    parser.add_argument("--then-importance", type=int, default=0, metavar="K")
    parser.add_argument("--more-epochs", type=int, default=20)
    parser.add_argument("--more-rate", type=float, default=5e-4)
    parser.add_argument("--held-out", action="store_true", help="score training rows left out")
    parser.add_argument("--precision", default="auto")
    args = parser.parse_args()

    grey, test_grey = load_mnist(args.mnist)
    if args.held_out:
        grey, test_grey = grey[:50_000], grey[50_000:]
    grey = grey.astype(np.float32)
    rng = np.random.default_rng(0)
    test = binarised(test_grey, np.random.default_rng(1))
    print(describe_machine("torch", "skorch"))
    print(vars(args), flush=True)

    model = VAE(
        50,
        hidden_layer_sizes=(200, 200),
        activation=args.activation,
        likelihood="bernoulli",
        beta_warm_up=args.warm_up,
        batch_size=args.batch_size,
        precision=args.precision,
        random_state=0,
    )
    seconds = train(model, grey, args.epochs, (args.rate, args.rate / 100), rng)
    report(model, test, args.epochs, seconds)
    if args.then_importance:
        model.set_params(n_importance=args.then_importance, beta_warm_up=0)
        more = train(model, grey, args.more_epochs, (args.more_rate, args.more_rate / 100), rng)
        report(model, test, args.epochs + args.more_epochs, seconds + more)


def report(model: VAE, test: np.ndarray, epochs: int, seconds: float) -> None:
    start = time.perf_counter()
    nll = -float(model.score_samples(test, n_importance=5000).mean(dtype=np.float64))
    elbo = float(model.score_samples(test, n_importance=1).mean(dtype=np.float64))
    print(
        f"n_importance={model.n_importance}, {epochs} epochs, {seconds:.0f} s: "
        f"NLL {nll:.2f}, ELBO {elbo:.2f}, {model.active_units(test)} active units "
        f"(5000 draws took {time.perf_counter() - start:.0f} s)",
        flush=True,
    )


if __name__ == "__main__":
    main()
