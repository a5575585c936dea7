"""Epochs of HelmholtzMachine beside a hand-written wake-sleep loop and sklearn's BernoulliRBM.

    python benchmarks/helmholtz_training.py --mnist mnist.npz

Without `--mnist` the digits come from `sklearn.datasets.fetch_openml`. All train 784-200 on the
same binarised digits, in batches of 128, in one process, in turn; the figures are medians
of epochs. The hand-written loop has the same six matrix products in each step, the same
draws, and a fused Adam; it computes delta rules, and no losses unless it is said: skae records
the free energy and what recognition learns by.

Measured figures: docs/benchmarks.md.
"""

import argparse
import time
from pathlib import Path

import numpy as np
import torch
from _common import describe_machine, load_mnist
from _peers import BATCH, Clock
from sklearn.neural_network import BernoulliRBM
from torch.nn.functional import softplus

from skae import HelmholtzMachine

N_UNITS = 200


@torch.no_grad()
def by_hand(X: np.ndarray, epochs: int, losses: bool = False) -> list[float]:
    """Wake-sleep as one would write it: delta rules."""
    data = torch.from_numpy(X)
    n_features = data.shape[1]
    center, scale = data.float().mean(0), float(data.float().var(0).mean().sqrt())
    generation = torch.randn(n_features, N_UNITS) * 0.05
    of_rows, of_top = torch.logit(center, eps=1e-2), torch.zeros(N_UNITS)
    recognition, of_recognition = torch.randn(N_UNITS, n_features) * 0.05, torch.zeros(N_UNITS)
    weights = [generation, of_rows, of_top, recognition, of_recognition]
    optimizer = torch.optim.Adam([w.requires_grad_() for w in weights], lr=1e-3, fused=True)

    def lit(logit: torch.Tensor) -> torch.Tensor:
        return (torch.rand(logit.shape) < torch.sigmoid(logit)).float()

    def log_mass(values: torch.Tensor, logit: torch.Tensor) -> torch.Tensor:
        return (values * logit - softplus(logit)).sum(-1).mean()

    seconds = []
    for _ in range(epochs):
        start = time.perf_counter()
        total = 0.0
        for index in torch.randperm(len(data)).split(BATCH):
            x = data.index_select(0, index).float()
            n = len(x)
            # Awake: units as they are recognised, and what generation makes of them.
            up = torch.addmm(of_recognition, (x - center) / scale, recognition.T)
            h = lit(up)
            down = torch.addmm(of_rows, h, generation.T)
            error = (torch.sigmoid(down) - x) / n
            if losses:
                total += log_mass(h, up) - log_mass(h, of_top) - log_mass(x, down)
            generation.grad, of_rows.grad = error.T @ h, error.sum(0)
            of_top.grad = (torch.sigmoid(of_top) - h).mean(0)
            # Asleep: a dream, and what recognition makes of it.
            h = lit(of_top.expand(n, -1))
            read = (lit(torch.addmm(of_rows, h, generation.T)) - center) / scale
            up = torch.addmm(of_recognition, read, recognition.T)
            error = (torch.sigmoid(up) - h) / n
            if losses:
                total -= log_mass(h, up)
            recognition.grad, of_recognition.grad = error.T @ read, error.sum(0)
            optimizer.step()
        seconds.append(time.perf_counter() - start)
    return seconds


def skae(X: np.ndarray, epochs: int, **params: object) -> list[float]:
    clock = Clock()
    model = HelmholtzMachine(
        N_UNITS, batch_size=BATCH, max_iter=epochs, random_state=0, callbacks=[clock], **params
    )
    model.fit(X)
    return clock.seconds


def rbm(X: np.ndarray, epochs: int) -> list[float]:
    model = BernoulliRBM(N_UNITS, batch_size=BATCH, n_iter=1, random_state=0)
    seconds = []
    for _ in range(epochs):
        start = time.perf_counter()
        model.fit(X)
        seconds.append(time.perf_counter() - start)
    return seconds


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--mnist", type=Path, help=".npz with X_train and X_test")
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--threads", type=int, default=torch.get_num_threads())
    args = parser.parse_args()
    torch.set_num_threads(args.threads)
    grey, _ = load_mnist(args.mnist)
    X = (np.random.default_rng(0).random(grey.shape) < grey).astype(np.float32)
    print(describe_machine("torch", "skorch"))
    print(f"{args.threads} threads, 784-{N_UNITS}, {len(X)} rows, {args.rounds} rounds\n")
    runs = {
        "hand-written wake-sleep": lambda: by_hand(X, 2),
        "the same with losses": lambda: by_hand(X, 2, losses=True),
        'skae "wake-sleep"': lambda: skae(X, 2),
        'skae "reweighted", 5': lambda: skae(X, 1, algorithm="reweighted", n_particles=5),
        'skae "free-energy", 5': lambda: skae(X, 1, algorithm="free-energy", n_particles=5),
        "sklearn BernoulliRBM": lambda: rbm(X, 1),
    }
    seconds: dict[str, list[float]] = {name: [] for name in runs}
    for _ in range(args.rounds):
        for name, run in runs.items():
            seconds[name] += run()
    medians = {name: float(np.median(found)) for name, found in seconds.items()}
    for name, median in medians.items():
        ratio = median / medians["hand-written wake-sleep"]
        print(f"  {name:26} {median:7.3f} s an epoch   {ratio:5.2f} x by hand")


if __name__ == "__main__":
    main()
