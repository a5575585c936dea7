"""Log-likelihood of dynamically binarised MNIST under VAE, with one and with 50 importance samples.

    python benchmarks/vae_nll.py --mnist mnist.npz --epochs 2000 --warm-up 50 --save one.joblib
    python benchmarks/vae_nll.py --mnist mnist.npz --start one.joblib --importance 50 --epochs 60

The network of Burda et al. (2016): 784-200-200-50 and back, with tanh or another --activation.
Pixels are drawn anew from their grey values before every epoch, each of which is one call of
`partial_fit`. The test rows are binarised once, and never looked at before the end; the figure
is minus the mean importance-weighted bound with 5000 draws, in nats per row.

With `--save`, the state is stored after every 20 epochs; the same command goes on from there if
it was stopped, and the seconds are those of all its parts. With `--start`, training begins with
the network of another run. Without `--mnist` the digits come from `sklearn.datasets.fetch_openml`.

Measured figures: docs/benchmarks.md.
"""

import argparse
import os
import time
from math import cos, pi
from pathlib import Path
from typing import NamedTuple

import joblib
import numpy as np
import torch
from _common import describe_machine, load_mnist

from skae import VAE

# Number of epochs after which the state is stored.
_EVERY = 20


class State(NamedTuple):
    """A training: the model, the generator of the pixels, and epochs and seconds so far."""

    model: VAE
    rng: np.random.Generator
    epoch: int
    seconds: float


def binarised(grey: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    return (rng.random(grey.shape, dtype=np.float32) < grey).astype(np.uint8)


def train(state: State, grey: np.ndarray, args: argparse.Namespace) -> State:
    """Epochs of freshly binarised rows, at a rate that falls along a cosine."""
    model, rng, first, seconds = state
    start = time.perf_counter() - seconds
    for epoch in range(first, args.epochs):
        share = 0.5 * (1 + cos(pi * epoch / args.epochs))
        model.set_params(learning_rate_init=args.rate * (0.01 + 0.99 * share))
        model.partial_fit(binarised(grey, rng))
        seconds = time.perf_counter() - start
        if (epoch + 1) % max(1, args.epochs // 20) == 0:
            loss = model.history_[-1]["train_loss"]
            print(f"  epoch {epoch + 1}: {loss:.2f}, {seconds:.0f} s", flush=True)
        if args.save and (epoch + 1) % _EVERY == 0:
            store(State(model, rng, epoch + 1, seconds), args.save)
    return State(model, rng, args.epochs, seconds)


def store(state: State, path: Path) -> None:
    """Write the state; a run that is stopped meanwhile leaves the earlier one."""
    new = path.with_suffix(".new")
    joblib.dump(tuple(state), new)
    os.replace(new, path)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--mnist", type=Path, help=".npz with X_train and X_test")
    parser.add_argument("--epochs", type=int, default=200)
    parser.add_argument("--rate", type=float, default=3e-3)
    parser.add_argument("--warm-up", type=int, default=0, help="epochs in which beta grows")
    parser.add_argument("--free-bits", type=float, default=0.0)
    parser.add_argument("--activation", default="tanh")
    parser.add_argument("--solver", default="adam")
    parser.add_argument("--init", default="linear")
    parser.add_argument("--batch-size", type=int, default=256)
    parser.add_argument("--importance", type=int, default=1, help="draws for a row in training")
    parser.add_argument("--start", type=Path, help="a state that another run has saved")
    parser.add_argument("--save", type=Path, help="where the state is stored, and found again")
    parser.add_argument("--held-out", action="store_true", help="score training rows left out")
    parser.add_argument("--rows", type=int, default=10_000, help="how many rows are scored")
    parser.add_argument("--draws", type=int, default=5000)
    parser.add_argument("--precision", default="auto")
    parser.add_argument("--threads", type=int, default=torch.get_num_threads())
    args = parser.parse_args()
    torch.set_num_threads(args.threads)

    grey, test_grey = load_mnist(args.mnist)
    if args.held_out:
        grey, test_grey = grey[:50_000], grey[50_000:]
    grey = grey.astype(np.float32)
    test = binarised(test_grey, np.random.default_rng(1))[: args.rows]
    print(describe_machine("torch", "skorch"))
    print(vars(args), flush=True)

    if args.start:
        model = joblib.load(args.start)[0]
        model.set_params(beta_warm_up=0, free_bits=0.0)
    else:
        model = VAE(
            50,
            hidden_layer_sizes=(200, 200),
            activation=args.activation,
            likelihood="bernoulli",
            init=args.init,
            solver=args.solver,
            beta_warm_up=args.warm_up,
            free_bits=args.free_bits,
            random_state=0,
        )
    model.set_params(
        n_importance=args.importance, batch_size=args.batch_size, precision=args.precision
    )
    state = State(model, np.random.default_rng(0), 0, 0.0)
    if args.save and args.save.exists():
        state = State(*joblib.load(args.save))
        print(f"  goes on after epoch {state.epoch} and {state.seconds:.0f} s", flush=True)
    state = train(state, grey, args)
    if args.save:
        store(state, args.save)
    report(state, test, args.draws)


def report(state: State, test: np.ndarray, draws: int) -> None:
    model, start = state.model, time.perf_counter()
    scores = model.score_samples(test, n_importance=draws).astype(np.float64)
    seconds = time.perf_counter() - start
    elbo = float(model.score_samples(test, n_importance=1).mean(dtype=np.float64))
    print(
        f"n_importance={model.n_importance}, {state.epoch} epochs, {state.seconds:.0f} s: NLL "
        f"{-scores.mean():.3f} +- {scores.std() / len(scores) ** 0.5:.3f}, ELBO {elbo:.2f}, "
        f"{model.active_units(test)} active units ({draws} draws took {seconds:.0f} s)",
        flush=True,
    )


if __name__ == "__main__":
    main()
