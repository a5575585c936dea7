"""What each option of the causal density gains on BSDS300, in a short training.

    python benchmarks/bsds300_options.py --images bsds300.npz --rows 50000

One option at a time is changed of a base (see BASE), which sees the training patches once;
printed are nats per patch of held-out images and the CPU time. Differences below 0.1 are
within what another seed changes (last row).

Measured figures: docs/benchmarks.md.
"""

import argparse
import time
from pathlib import Path

from _common import describe_machine
from bsds300 import model_for, patches

BASE = {"orders": 1, "blocks": 6, "epochs": 1}
CHANGES = {
    "base: 64 channels, 6 blocks, K = 10, one ordering": {},
    "without divisive normalisation": {"divisive_normalization": False},
    "without the triangular input transform": {"input_transform": None},
    "without both": {"input_transform": None, "divisive_normalization": False},
    "without position embedding": {"position_embedding": False},
    "Adam (rate 3e-3) in place of Muon": {"solver": "adam", "learning_rate_init": 3e-3},
    "without weight averaging": {"weight_averaging": 0.0},
    "two orderings": {"orders": 2},
    "four orderings": {"orders": 4},
    "10 blocks": {"blocks": 10},
    "96 channels": {"n_channels": 96},
    "K = 1": {"n_mixture": 1},
    "K = 30": {"n_mixture": 30},
    "K = 100": {"n_mixture": 100},
    "logistic components": {"mixture_kind": "logistic"},
    "another seed": {"random_state": 1},
}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--images", type=Path, required=True)
    parser.add_argument("--rows", type=int, default=50_000)
    args = parser.parse_args()
    print(describe_machine("torch"), vars(args), sep="\n")
    train, valid, _ = patches(args.images)
    train, valid = train[: args.rows], valid[:5000]
    for name, change in CHANGES.items():
        model = model_for(**{**BASE, **change})
        start = time.process_time()
        model.fit(train)
        seconds = time.process_time() - start
        print(f"{name:52} {model.score(valid):7.2f}  {seconds:4.0f} s", flush=True)


if __name__ == "__main__":
    main()
