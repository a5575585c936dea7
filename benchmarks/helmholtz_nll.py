"""Log-likelihood of binarised MNIST under HelmholtzMachine, for each of its algorithms.

    python benchmarks/helmholtz_nll.py --mnist mnist.npz --layers 200
    python benchmarks/helmholtz_nll.py --mnist mnist.npz --layers 200 200 --algorithm reweighted

The sigmoid belief networks of Bornschein & Bengio (2015): 784 pixels below one or two layers
of 200 units. Pixels are drawn anew from their grey values in every epoch. The test rows
are binarised once, and never looked at before the end; the figure is minus the mean
importance-weighted bound, in nats per row. Choices are made with `--held-out`, which trains on
50,000 rows and scores others. `--save` stores the model, and `--start` trains a stored one for
further epochs, or only scores it with `--epochs 0`.

Without `--mnist` the digits come from `sklearn.datasets.fetch_openml`.

Measured figures: docs/benchmarks.md.
"""

import argparse
import time
from pathlib import Path

import joblib
import numpy as np
import torch
from _common import describe_machine, load_mnist

from skae import HelmholtzMachine


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--mnist", type=Path, help=".npz with X_train and X_test")
    parser.add_argument("--layers", type=int, nargs="+", default=[200], help="from the data up")
    parser.add_argument("--algorithm", default="wake-sleep")
    parser.add_argument("--particles", type=int)
    parser.add_argument("--epochs", type=int, default=100)
    parser.add_argument("--rate", type=float, default=1e-2)
    parser.add_argument("--schedule", default="cosine")
    parser.add_argument("--batch-size", type=int, default=128)
    parser.add_argument("--alpha", type=float, default=0.0)
    parser.add_argument("--draws", type=int, default=1000, help="of the importance-weighted bound")
    parser.add_argument("--rows", type=int, default=10_000, help="how many test rows are scored")
    parser.add_argument("--held-out", action="store_true", help="score training rows left out")
    parser.add_argument("--start", type=Path, help="a model that another run has saved")
    parser.add_argument("--save", type=Path, help="where the model is stored")
    parser.add_argument("--threads", type=int, default=torch.get_num_threads())
    args = parser.parse_args()
    torch.set_num_threads(args.threads)

    grey, test_grey = load_mnist(args.mnist)
    if args.held_out:
        grey, test_grey = grey[:50_000], grey[50_000:]
    coins = np.random.default_rng(1).random(test_grey.shape, dtype=np.float32)
    test = (coins < test_grey).astype(np.uint8)[: args.rows]
    print(describe_machine("torch", "skorch"))
    print(vars(args), flush=True)

    *hidden, top = args.layers
    model = HelmholtzMachine(
        top,
        hidden_layer_sizes=hidden,
        algorithm=args.algorithm,
        likelihood="bernoulli",
        warm_start=True,
        random_state=0,
    )
    model = joblib.load(args.start) if args.start else model
    model.set_params(
        n_particles=args.particles,
        batch_size=args.batch_size,
        learning_rate=args.schedule,
        learning_rate_init=args.rate,
        alpha=args.alpha,
        max_iter=args.epochs,
    )
    start = time.perf_counter()
    if args.epochs:
        model.fit(grey.astype(np.float32))
    seconds = time.perf_counter() - start
    losses = [round(epoch["train_loss"], 1) for epoch in model.history_]
    print(f"losses {losses[:: max(1, len(losses) // 10)]}, last {losses[-1]}", flush=True)
    if args.save:
        joblib.dump(model, args.save)
    start = time.perf_counter()
    nll = -float(model.score_samples(test, n_importance=args.draws).mean(dtype=np.float64))
    free_energy = float(model.free_energy(test[:2000], n_draws=10).mean(dtype=np.float64))
    print(
        f"{args.algorithm} {args.layers}, {model.n_iter_} epochs, {seconds:.0f} s: NLL {nll:.2f}, "
        f"free energy {free_energy:.2f} ({args.draws} draws took "
        f"{time.perf_counter() - start:.0f} s)",
        flush=True,
    )


if __name__ == "__main__":
    main()
