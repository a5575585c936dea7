"""Sampling codes from the causal mixture density, with what the layers remember and without.

    python benchmarks/latent_sampling.py

10,000 rows of 32 codes, a network of 64 channels and 30 components with a triangular map:
number by number, each of which costs one position where the layers remember the positions
before, and the whole sequence so far where they do not. Both draw the same rows.

Measured figures: docs/benchmarks.md.
"""

import argparse

import numpy as np
import torch
from _common import alternate, describe_machine

from skae import LatentDensityEstimator


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--rows", type=int, default=10_000)
    parser.add_argument("--codes", type=int, default=32)
    parser.add_argument("--repeats", type=int, default=3)
    args = parser.parse_args()
    print(describe_machine("torch"), vars(args), sep="\n")
    X = np.random.default_rng(0).normal(size=(512, args.codes))
    model = LatentDensityEstimator(n_mixture=30, n_channels=64, max_iter=1, random_state=0).fit(X)
    density = model.net_.module_.density

    def draw(cached: bool) -> torch.Tensor:
        generator = torch.Generator().manual_seed(0)
        with torch.inference_mode():
            parts = [
                density.sample(min(1000, args.rows - start), generator, cached=cached)
                for start in range(0, args.rows, 1000)
            ]
        return torch.cat(parts)

    work = {"remembering": lambda: draw(True), "from the start": lambda: draw(False)}
    apart = (draw(True) - draw(False)).abs().max()
    seconds = alternate(work, args.repeats)
    for name, value in seconds.items():
        print(f"{name:16} {value:7.2f} s")
    ratio = seconds["from the start"] / seconds["remembering"]
    print(f"ratio {ratio:.1f}; largest difference between the rows {apart:.1e}")


if __name__ == "__main__":
    main()
