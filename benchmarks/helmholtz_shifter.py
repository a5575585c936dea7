"""The shifter problem under HelmholtzMachine: description lengths beside the entropy, in bits.

    python benchmarks/helmholtz_shifter.py
    python benchmarks/helmholtz_shifter.py --layers 16 4 --epochs 2000
    python benchmarks/helmholtz_shifter.py --algorithms reweighted --layers 64 1 --rows 20000 \\
        --epochs 12 --rate 0.05 --schedule cosine --batch-size 25 --particles 40 --positive \\
        --layerwise 0.4 --seeds 3

Every algorithm learns from a million patterns, of which equal ones are one row with a weight, or
with --rows from this many rows of equal weight. It is judged under the true law of all 508: by the
free energy, by the importance-weighted bound of 10,000 draws, both of which no pattern costs less
than, by the exact description length where the machine has 20 units or fewer, and by how often the
best unit of the top layer tells the direction of the shift, of which no reader of images can tell
more than 91.5 %.

Measured figures: docs/benchmarks.md.
"""

import argparse
import itertools
import time
from math import log

import numpy as np
import torch
from _common import describe_machine

from skae import HelmholtzMachine
from skae.datasets import make_shift_patterns, shift_patterns_entropy


def law(p_on: float) -> tuple[np.ndarray, np.ndarray]:
    """All patterns, and how likely each is with either direction, (n_patterns, 2)."""
    found: dict[tuple[int, ...], list[float]] = {}
    for first in itertools.product((0, 1), repeat=8):
        share = p_on ** sum(first) * (1 - p_on) ** (8 - sum(first)) / 2
        for direction, last in enumerate((first[1:] + first[:1], first[-1:] + first[:-1])):
            found.setdefault(first * 2 + last * 2, [0.0, 0.0])[direction] += share
    return np.array(list(found), dtype=np.float32), np.array(list(found.values()))


def accuracy(codes: np.ndarray, shares: np.ndarray) -> float:
    """How often the best threshold of the best unit tells the direction."""
    best = 0.5
    for code in codes.T.round(6):
        group = np.unique(code, return_inverse=True)[1]
        gain = np.cumsum(np.bincount(group, shares[:, 0] - shares[:, 1]))
        best = max(best, shares[:, 1].sum() + gain.max(), shares[:, 0].sum() - gain.min())
    return best


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--layers", type=int, nargs="+", default=[32, 10], help="from the data up")
    parser.add_argument("--p-on", type=float, default=0.2)
    parser.add_argument("--epochs", type=int, default=3000)
    parser.add_argument("--rate", type=float, default=0.02)
    parser.add_argument("--schedule", default="constant")
    parser.add_argument("--batch-size", type=int, default=100)
    parser.add_argument("--particles", type=int, help="by default those of the estimator")
    parser.add_argument("--positive", action="store_true")
    parser.add_argument("--layerwise", type=float, default=0.0, help="fraction of the epochs")
    parser.add_argument("--n-init", type=int, default=1)
    parser.add_argument("--rows", type=int, help="rows of equal weight, in place of a million")
    parser.add_argument("--seeds", type=int, default=1)
    parser.add_argument(
        "--algorithms", nargs="+", default=["wake-sleep", "reweighted", "free-energy"]
    )
    args = parser.parse_args()
    torch.set_num_threads(1)
    print(describe_machine("torch", "skorch"))
    print(f"{vars(args)}\nentropy {shift_patterns_entropy(args.p_on) / log(2):.3f} bits\n")
    X, _ = make_shift_patterns(args.rows or 1_000_000, p_on=args.p_on, random_state=0)
    counts = None
    if args.rows is None:
        X, counts = np.unique(X, axis=0, return_counts=True)
    patterns, shares = law(args.p_on)
    bits = shares.sum(1) / log(2)
    *hidden, top = args.layers
    for algorithm, seed in itertools.product(args.algorithms, range(args.seeds)):
        start = time.perf_counter()
        model = HelmholtzMachine(
            top,
            hidden_layer_sizes=hidden,
            algorithm=algorithm,
            n_particles=args.particles,
            positive=args.positive,
            layerwise_fraction=args.layerwise,
            batch_size=args.batch_size,
            learning_rate=args.schedule,
            learning_rate_init=args.rate,
            max_iter=args.epochs,
            n_init=args.n_init,
            random_state=seed,
        )
        model.fit(X, sample_weight=counts)
        seconds = time.perf_counter() - start
        few = sum(args.layers) <= 20
        free_energy = bits @ model.free_energy(patterns, n_draws=None if few else 300)
        bound = -bits @ model.score_samples(patterns, n_importance=10_000)
        exact = f"{-bits @ model.exact_log_likelihood(patterns):.3f}" if few else "-"
        told = accuracy(model.transform(patterns), shares)
        print(
            f"{algorithm:12} seed {seed}: free energy {free_energy:.3f}, bound {bound:.3f}, exact "
            f"{exact} bits, direction {100 * told:.1f} %, {seconds:.0f} s",
            flush=True,
        )


if __name__ == "__main__":
    main()
