"""A network on a file that is larger than memory: peak memory, time of an epoch, and the loss.

    python benchmarks/larger_than_memory.py rows.f32 --gb 20 --parts memory
    python benchmarks/larger_than_memory.py rows.f32 --gb 2 --parts time loss

The file of float32 is made at the given path if it does not have this size, and stays there. Its
rows have 1000 columns and are sorted by class: 20 classes with different means, and ten factors
within each class.

* memory: the memory by which `fit` and `score` of a memory-mapped array raise the peak of the
  process, which includes mapped pages, after a fit to few rows that imports all that is needed.
* time: seconds of an epoch beside the same rows in memory. Both are fitted in turn, and the file is
  in the cache of the operating system.
* loss: the score of other rows after one epoch, beside that of rows in memory, which are shuffled
  completely. For comparison, the rows are also given in the order of the file, by `partial_fit`.

Measured figures: docs/benchmarks.md.
"""

import argparse
from pathlib import Path

import numpy as np
from _common import added_to_peak, describe_machine

from skae import Autoencoder

N_COLUMNS, N_CLASSES, N_FACTORS, N_TEST = 1000, 20, 10, 4000


def rows_of(labels: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    """Rows of these classes."""
    shape = np.random.default_rng(1)  # the same classes in all parts
    means = 2 * shape.standard_normal((N_CLASSES, N_COLUMNS), dtype=np.float32)
    factors = shape.standard_normal((N_FACTORS, N_COLUMNS), dtype=np.float32)
    codes = rng.standard_normal((len(labels), N_FACTORS), dtype=np.float32)
    noise = rng.standard_normal((len(labels), N_COLUMNS), dtype=np.float32)
    return means[labels] + codes @ factors + noise


def make_file(path: Path, n_rows: int) -> None:
    """Write rows that are sorted by class, unless there is a file of this size."""
    if path.exists() and path.stat().st_size == 4 * N_COLUMNS * n_rows:
        return
    rng = np.random.default_rng(0)
    with path.open("wb") as file:
        for start in range(0, n_rows, 10_000):
            number = np.arange(start, min(start + 10_000, n_rows))
            file.write(rows_of(number * N_CLASSES // n_rows, rng).tobytes())


def model(**params: object) -> Autoencoder:
    """The network that is measured."""
    given = {"hidden_layer_sizes": (100,), "max_iter": 1, "random_state": 0, "device": "cpu"}
    return Autoencoder(20, **(given | params))


def measure_memory(mapped: np.memmap, epochs: int) -> None:
    network = model(max_iter=epochs)
    network.fit(np.random.default_rng(0).standard_normal((3000, N_COLUMNS)))
    fitted = added_to_peak(lambda: network.fit(mapped))
    scored = added_to_peak(lambda: network.score(mapped))
    seconds = ", ".join(f"{epoch['dur']:.0f}" for epoch in network.history_)
    print(
        f"peak of fit: +{fitted:.0f} MiB; of score: +{scored:.0f} MiB; epochs of {seconds} s",
        flush=True,
    )


def measure_time(mapped: np.memmap, rounds: int) -> None:
    in_memory = np.array(mapped)
    seconds: dict[str, list[float]] = {"in memory": [], "file": []}
    for k in range(rounds):
        both = [("in memory", in_memory), ("file", mapped)]
        for name, rows in both if k % 2 else both[::-1]:
            network = model(max_iter=2, init="random").fit(rows)
            seconds[name] += [epoch["dur"] for epoch in network.history_]
    for name, times in seconds.items():
        print(
            f"{name:10s} {np.median(times):6.2f} s an epoch ({min(times):.2f} to {max(times):.2f})"
        )
    print(
        f"ratio of the medians {np.median(seconds['file']) / np.median(seconds['in memory']):.2f}"
    )


def measure_loss(mapped: np.memmap, seeds: int) -> None:
    in_memory = np.array(mapped)
    rng = np.random.default_rng(2)
    test = rows_of(rng.integers(N_CLASSES, size=N_TEST), rng)
    for seed in range(seeds):
        params = {"init": "random", "random_state": seed}
        found = {
            "shuffled completely": model(**params).fit(in_memory).score(test),
            "file, in windows": model(**params).fit(mapped).score(test),
        }
        sorted_rows = model(**params).partial_fit(in_memory[:: len(in_memory) // 2000])
        for part in np.array_split(in_memory, 50):
            sorted_rows.partial_fit(part)
        found["in the order of the file"] = sorted_rows.score(test)
        reference = found["shuffled completely"]
        for name, score in found.items():
            change = (reference - score) / abs(reference)
            print(f"seed {seed}  {name:26s} {-score:9.2f} nats per row, {change:+.2%}", flush=True)


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawTextHelpFormatter
    )
    parser.add_argument("path", type=Path)
    parser.add_argument("--gb", type=float, default=2.0)
    parser.add_argument(
        "--parts", nargs="+", choices=["memory", "time", "loss"], default=["memory"]
    )
    parser.add_argument("--epochs", type=int, default=1, help="epochs of the measurement of memory")
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--seeds", type=int, default=2)
    given = parser.parse_args()
    print(describe_machine("torch", "skorch"), flush=True)
    n_rows = int(given.gb * 1e9 / 4 / N_COLUMNS)
    make_file(given.path, n_rows)
    mapped = np.memmap(given.path, dtype=np.float32, mode="r", shape=(n_rows, N_COLUMNS))
    print(f"{n_rows} rows x {N_COLUMNS} columns of float32, {given.gb:g} GB")
    if "memory" in given.parts:
        measure_memory(mapped, given.epochs)
    if "time" in given.parts:
        measure_time(mapped, given.rounds)
    if "loss" in given.parts:
        measure_loss(mapped, given.seeds)


if __name__ == "__main__":
    main()
