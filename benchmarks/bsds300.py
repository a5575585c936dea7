"""Density of 8x8 patches of natural images, BSDS300, by LatentDensityEstimator.

    python benchmarks/bsds300.py --images bsds300.npz --epochs 2 --test
    python benchmarks/bsds300.py --images bsds300.npz --epochs 6 --orders 8 --test

The protocol of the literature: grey patches at random positions with noise from U(0, 1),
divided by 256, less their own mean, without the last pixel; 1,000,000 of the training images
and 250,000 of the test images. Every tenth training image is held out, patches of which are
scored while a setting is chosen. First the Gaussian baseline, as a check of the protocol.

The file has one grey image per key, `train/...` and `test/...`.

Published, nats per patch: Gaussian 96.67, MADE-MoG 153.71, Real NVP 153.28, MAF-MoG 156.36,
NSF 157.5, NAF-DDSF 157.73, UMNN 157.98, the LDE paper 158.02 (K = 30), TAN 159.80.

Measured figures: docs/benchmarks.md.
"""

import argparse
import time
from pathlib import Path
from typing import Any

import joblib
import numpy as np
import torch
from _common import describe_machine
from skorch.callbacks import Callback

from skae import LatentDensityEstimator, LinearAE
from skae.datasets import image_patches

N_TRAIN, N_VALID, N_TEST = 1_000_000, 50_000, 250_000


def patches(path: Path) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Training, held-out and test patches."""
    with np.load(path) as file:
        train = [file[key] for key in sorted(file) if key.startswith("train/")]
        test = [file[key] for key in sorted(file) if key.startswith("test/")]
    order = np.random.default_rng(0).permutation(len(train))
    n_valid = len(train) // 10
    kept = [train[i] for i in order[n_valid:]]
    held_out = [train[i] for i in order[:n_valid]]
    return (
        image_patches(kept, N_TRAIN, random_state=0),
        image_patches(held_out, N_VALID, random_state=1),
        image_patches(test, N_TEST, random_state=2),
    )


def scan_orders(n: int) -> list[np.ndarray]:
    """The first n of the eight ways to scan a patch line by line; its last pixel is missing."""
    grid = np.arange(64).reshape(8, 8)
    turned = [grid, grid[::-1, ::-1], grid.T, grid[::-1, ::-1].T]
    turned += [grid[:, ::-1], grid[::-1], grid[:, ::-1].T, grid[::-1].T]
    return [order.ravel()[order.ravel() != 63] for order in turned[:n]]


def model_for(
    *, orders: int = 4, blocks: int = 10, epochs: int = 4, **options: Any
) -> LatentDensityEstimator:
    """The estimator of the full run, where options say nothing else."""
    chosen = {
        "n_mixture": 10,
        "dilations": [2 ** (i % 6) for i in range(blocks)],
        "position_embedding": True,
        "divisive_normalization": True,
        "orderings": scan_orders(orders) if orders > 1 else 1,
        "weight_averaging": 0.998,
        "solver": "muon",
        "alpha": 0.01,
        "learning_rate": "cosine",
        "learning_rate_init": 4e-3,
        "max_iter": epochs,
        "precision": "bfloat16",
        "random_state": 0,
    }
    return LatentDensityEstimator(**{**chosen, **options})


class Report(Callback):
    """Prints what held-out patches score after every epoch."""

    def __init__(self, valid: np.ndarray) -> None:
        self.valid = valid

    def on_train_begin(self, net: Any, **kwargs: Any) -> None:
        self.start, self.cpu = time.perf_counter(), time.process_time()

    def on_epoch_end(self, net: Any, **kwargs: Any) -> None:
        module = net.module_.eval()
        with torch.inference_mode():
            z = torch.from_numpy(self.valid)
            found = torch.cat([module.log_prob(part) for part in z.split(500)]).mean()
        seconds, cpu = time.perf_counter() - self.start, time.process_time() - self.cpu
        print(
            f"  epoch {len(net.history)}: training loss {net.history[-1]['train_loss']:.3f}, "
            f"held out {-found:.3f}; {seconds:.0f} s, {cpu:.0f} s of CPU",
            flush=True,
        )


def fit(model: LatentDensityEstimator, train: np.ndarray, valid: np.ndarray) -> None:
    center, scale = train.mean(axis=0), train.std(axis=0)
    model.set_params(callbacks=[Report((valid[:5000] - center) / scale)])
    start, cpu = time.perf_counter(), time.process_time()
    model.fit(train)
    model.set_params(callbacks=None)
    seconds, cpu = time.perf_counter() - start, time.process_time() - cpu
    print(f"{torch.get_num_threads()} threads, {seconds:.0f} s, {cpu:.0f} s of CPU")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--images", type=Path, required=True)
    parser.add_argument("--epochs", type=int, default=2)
    parser.add_argument("--rows", type=int, default=N_TRAIN, help="training patches")
    parser.add_argument("--mixture", type=int, default=10)
    parser.add_argument("--kind", default="gaussian", help="of the mixture's components")
    parser.add_argument("--channels", type=int, default=64)
    parser.add_argument("--rate", type=float, default=4e-3)
    parser.add_argument("--orders", type=int, default=4)
    parser.add_argument("--blocks", type=int, default=10)
    parser.add_argument("--solver", default="muon")
    parser.add_argument("--averaging", type=float, default=0.998)
    parser.add_argument("--precision", default="bfloat16", help="float32 on CPUs without AVX-512")
    parser.add_argument("--no-positions", action="store_true")
    parser.add_argument("--no-transform", action="store_true")
    parser.add_argument("--no-normalization", action="store_true")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--test", action="store_true", help="score the test patches, too")
    parser.add_argument("--checkpoints", type=Path, help="folder from which a killed run goes on")
    parser.add_argument("--threads", type=int, default=torch.get_num_threads())
    parser.add_argument("--save", type=Path, help="where the fitted model goes to")
    parser.add_argument("--load", type=Path, help="score a model that was saved")
    args = parser.parse_args()
    torch.set_num_threads(args.threads)
    print(describe_machine("torch", "skorch"), vars(args), sep="\n")
    train, valid, test = patches(args.images)
    gaussian = LinearAE().fit(train.astype(np.float64))
    print(f"Gaussian: {gaussian.score(valid):.2f} held out, {gaussian.score(test):.2f} test")

    model = model_for(
        n_mixture=args.mixture,
        mixture_kind=args.kind,
        n_channels=args.channels,
        blocks=args.blocks,
        position_embedding=not args.no_positions,
        input_transform=None if args.no_transform else "triangular",
        divisive_normalization=not args.no_normalization,
        orders=args.orders,
        weight_averaging=args.averaging,
        solver=args.solver,
        learning_rate_init=args.rate,
        epochs=args.epochs,
        precision=args.precision,
        random_state=args.seed,
        checkpoint_dir=args.checkpoints,
    )
    if args.load:
        model = joblib.load(args.load)
    else:
        fit(model, train[: args.rows], valid)
    print(f"held out {model.score(valid):.2f} nats per patch", flush=True)
    if args.save:
        joblib.dump(model, args.save)
    if args.test:
        scores = model.score_samples(test)
        error = scores.std() / len(scores) ** 0.5
        print(f"test {scores.mean():.2f} +- {error:.2f} nats per patch")


if __name__ == "__main__":
    main()
