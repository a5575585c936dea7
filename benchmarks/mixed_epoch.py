"""Seconds of an epoch of a VAE on a table of kinds, beside the same number of plain numbers.

    python benchmarks/mixed_epoch.py

100,000 rows of 15 numbers, 12 categories of 2 to 12 levels (84 in all) and 3 counts, in a data
frame under `likelihood="auto"`; 30 standard normal columns, in an array under the Gaussian
likelihood; and, to tell the cost of width from that of kinds, as many such columns as the table
has once its categories are one-hot. `VAE(8)` with its defaults but a given number of epochs; the
trainings take turns, figures are medians of all epochs but the first of each. Besides, seconds of
a whole fit of these epochs, and the MB that one adds to the peak of the process, the table first:
what torch imports with its optimisers counts with neither.

Measured figures: docs/benchmarks.md.
"""

import argparse
import time

import numpy as np
import pandas as pd
from _common import added_to_peak, describe_machine
from _peers import Clock

from skae import VAE

LEVELS = (2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 12, 7)


def mixed_table(n_samples: int) -> pd.DataFrame:
    """Independent columns: what an epoch takes does not depend on what there is to learn."""
    rng = np.random.default_rng(0)
    columns = {f"number_{j}": rng.standard_normal(n_samples) for j in range(15)}
    for j, n_levels in enumerate(LEVELS):
        codes = rng.integers(0, n_levels, n_samples)
        names = [f"level_{k}" for k in range(n_levels)]
        columns[f"category_{j}"] = pd.Categorical.from_codes(codes, names)
    columns |= {f"count_{j}": rng.poisson(3.0, n_samples) for j in range(3)}
    return pd.DataFrame(columns)


def train(X: object, likelihood: str, epochs: int) -> list[float]:
    """Seconds of each epoch."""
    clock = Clock()
    VAE(8, likelihood=likelihood, max_iter=epochs, random_state=0, callbacks=[clock]).fit(X)
    return clock.seconds


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--rows", type=int, default=100_000)
    parser.add_argument("--epochs", type=int, default=4)
    parser.add_argument("--rounds", type=int, default=5)
    arguments = parser.parse_args()
    print(describe_machine("torch", "skorch", "pandas"))

    table, rng = mixed_table(arguments.rows), np.random.default_rng(1)
    numbers = rng.standard_normal((arguments.rows, table.shape[1]))
    wide = rng.standard_normal((arguments.rows, table.shape[1] - len(LEVELS) + sum(LEVELS)))
    data = {
        f"{table.shape[1]} columns of kinds": (table, "auto"),
        f"{numbers.shape[1]} numbers": (numbers, "gaussian"),
        f"{wide.shape[1]} numbers": (wide, "gaussian"),
    }
    train(numbers[:1000], "gaussian", 1)  # imports
    memory = {
        name: added_to_peak(lambda case=case: train(*case, arguments.epochs))
        for name, case in data.items()
    }
    epochs: dict[str, list[float]] = {name: [] for name in data}
    fits: dict[str, list[float]] = {name: [] for name in data}
    for _ in range(arguments.rounds):
        for name, case in data.items():
            start = time.perf_counter()
            epochs[name] += train(*case, arguments.epochs)[1:]
            fits[name].append(time.perf_counter() - start)
    base = f"{numbers.shape[1]} numbers"
    print("\n| | s an epoch | ratio | s a fit | ratio | MB |\n|---|---|---|---|---|---|")
    for name in data:
        epoch, fit = np.median(epochs[name]), np.median(fits[name])
        print(
            f"| {name} | {epoch:.3f} | {epoch / np.median(epochs[base]):.2f} | {fit:.2f} "
            f"| {fit / np.median(fits[base]):.2f} | {memory[name]:.0f} |"
        )


if __name__ == "__main__":
    main()
