"""The sizes that LatentDensityEstimator chooses by the number of rows, beside those of before.

    python benchmarks/latent_density_defaults.py --mnist mnist.npz

Held-out nats per row, and CPU seconds of a fit with one thread, of the sizes that
`n_mixture`, `n_channels` and `max_iter` have where they are left open, and of 30, 64 and 50,
which were the defaults for any number of rows before. Both densities are of the same codes:
of the rows themselves, standardised where columns have unlike units, or of whitened principal
components, which the training rows make. Nats are means over seeds, with the standard
deviation between these.

Test rows: the last 450 digits, a quarter of wine and breast cancer, the test images of MNIST.
The rule was found without them.

Measured figures: docs/benchmarks.md.
"""

import argparse
import time
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import torch
from _common import describe_machine, load_mnist
from sklearn.datasets import load_breast_cancer, load_digits, load_wine
from sklearn.decomposition import PCA
from sklearn.preprocessing import StandardScaler

from skae import LatentDensityEstimator

BEFORE = {"n_mixture": 30, "n_channels": 64, "max_iter": 50}
N_DIGITS = 1347

Split = tuple[str, np.ndarray, np.ndarray]


def small_splits() -> Iterator[Split]:
    """Name, training and test rows of data that scikit-learn holds."""
    pixels = load_digits().data
    train, test = pixels[:N_DIGITS], pixels[N_DIGITS:]
    yield "digits, pixels", train, test
    some = np.random.RandomState(0).permutation(N_DIGITS)
    for n_codes, n_rows in ((8, N_DIGITS), (16, N_DIGITS), (8, 100), (16, 300)):
        yield f"digits, PCA({n_codes})", *codes_of(train[some[:n_rows]], test, n_codes)
    for name, load in (("wine", load_wine), ("breast cancer", load_breast_cancer)):
        X = load().data
        order = np.random.RandomState(0).permutation(len(X))
        first = X[order[: len(X) * 3 // 4]]
        scaler = StandardScaler().fit(first)
        yield name, scaler.transform(first), scaler.transform(X[order[len(first) :]])


def mnist_splits(path: Path, sizes: list[int]) -> Iterator[Split]:
    """Likewise of some of the training images of MNIST."""
    train, test = load_mnist(path)
    order = np.random.RandomState(0).permutation(len(train))
    for n_rows in sizes:
        yield "MNIST, PCA(20)", *codes_of(train[order[:n_rows]], test, 20)


def codes_of(train: np.ndarray, test: np.ndarray, n_codes: int) -> tuple[np.ndarray, np.ndarray]:
    """Whitened principal components, by the training rows."""
    pca = PCA(n_codes, whiten=True, random_state=0).fit(train)
    return pca.transform(train), pca.transform(test)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--mnist", type=Path, help="an .npz file with X_train and X_test")
    parser.add_argument("--rows", type=int, nargs="*", default=[1000, 3000], help="of MNIST")
    parser.add_argument("--seeds", type=int, default=3)
    args = parser.parse_args()
    torch.set_num_threads(1)
    print(describe_machine("torch"), vars(args), sep="\n")
    splits = list(small_splits())
    if args.mnist is not None:
        splits += mnist_splits(args.mnist, args.rows)
    print("| data | rows x codes | before: nats | s | chosen: nats | s | K, channels, epochs |")
    print("|---|---|---|---|---|---|---|")
    for name, train, test in splits:
        cells = []
        for params in (BEFORE, {}):
            nats, seconds = [], []
            for seed in range(args.seeds):
                start = time.process_time()
                model = LatentDensityEstimator(random_state=seed, device="cpu", **params).fit(train)
                seconds.append(time.process_time() - start)
                nats.append(model.score(test))
            cells.append(f"{np.mean(nats):.2f} ± {np.std(nats):.2f} | {np.median(seconds):.1f}")
        chosen = f"{model.n_mixture_}, {model.n_channels_}, {model.n_iter_}"
        rows = f"{len(train)} x {train.shape[1]}"
        print(f"| {name} | {rows} | {' | '.join(cells)} | {chosen} |", flush=True)


if __name__ == "__main__":
    main()
