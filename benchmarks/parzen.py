"""Parzen log-likelihood of the means that VAE and AdversarialAE decode, on MNIST.

    python benchmarks/parzen.py --mnist mnist.npz --epochs 20
    python benchmarks/parzen.py --mnist mnist.npz --epochs 20 --only "VAE, learned prior"

8 codes, networks of three layers of 500; trained on the first 50,000 training images. The
Parzen window has 10,000 decoder means of codes from p(z), a Gaussian kernel whose width is
chosen on 1000 of the last 10,000 training images, and is scored on the test images, pixels
in [0, 1]. Published: GAN 225, GMMN + AE 282, VAE 325, AdversarialAE 340.

The figure says little of a density: it rewards smooth samples, and real training images
score below what blurred means do (first row). It is here because papers state it.

Without `--mnist` the digits come from `sklearn.datasets.fetch_openml`.

Measured figures: docs/benchmarks.md.
"""

import argparse
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import torch
from _common import describe_machine, load_mnist
from sklearn.decomposition import PCA
from sklearn.frozen import FrozenEstimator
from sklearn.mixture import GaussianMixture

from skae import VAE, AdversarialAE, Autoencoder
from skae.metrics import parzen_log_likelihood

N_SAMPLES = 10_000


def learners(epochs: int, seed: int) -> dict[str, Callable[[np.ndarray], VAE | AdversarialAE]]:
    common: dict[str, Any] = {
        "hidden_layer_sizes": (500, 500, 500),
        "likelihood": "bernoulli",
        "learning_rate": "cosine",
        "batch_size": 128,
        "max_iter": epochs,
        "tol": 0,
        "random_state": seed,
    }
    # Without batch normalisation, matching the prior makes reconstructions worse.
    deep = {"normalization": "batch", **common}
    adversarial = {"discriminator_layer_sizes": (500, 500), **deep}

    def with_a_prior_of_codes(train: np.ndarray) -> AdversarialAE:
        """The prior is a mixture fitted to the white codes of an Autoencoder of the same size."""
        codes = Autoencoder(8, **deep).fit_transform(train).astype(np.float64)
        white = PCA(whiten=True).fit_transform(codes)
        prior = FrozenEstimator(GaussianMixture(100, random_state=seed).fit(white))
        return AdversarialAE(8, prior=prior, adversarial_weight=10.0, **adversarial).fit(train)

    return {
        "VAE": VAE(8, **common).fit,
        "VAE, learned prior": VAE(8, prior="vamp", n_prior_components=200, **common).fit,
        "AdversarialAE": AdversarialAE(8, **adversarial).fit,
        "AdversarialAE, weight 5": AdversarialAE(8, adversarial_weight=5.0, **adversarial).fit,
        "AdversarialAE, prior of codes": with_a_prior_of_codes,
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--mnist", type=Path, help=".npz with X_train and X_test")
    parser.add_argument("--epochs", type=int, default=40)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--only", help="the name of one model")
    parser.add_argument("--held-out", action="store_true", help="score training images left out")
    parser.add_argument("--threads", type=int, default=torch.get_num_threads())
    args = parser.parse_args()
    torch.set_num_threads(args.threads)
    pixels, test = (grey.astype(np.float32) for grey in load_mnist(args.mnist))
    train, rest = pixels[:50_000], pixels[50_000:]
    valid = np.random.default_rng(0).permutation(rest)[:1000]
    if args.held_out:
        test = np.random.default_rng(0).permutation(rest)[1000:3000]
    print(describe_machine("torch", "skorch"), vars(args), sep="\n")

    def show(name: str, rows: np.ndarray, more: str = "") -> None:
        score = parzen_log_likelihood(rows, valid, test)
        print(
            f"{name:29} {score.log_likelihood:6.1f} +- {score.standard_error:.1f}, "
            f"bandwidth {score.bandwidth:.3f}{more}",
            flush=True,
        )

    show("real training images", np.random.default_rng(0).permutation(train)[:N_SAMPLES])
    for name, learn in learners(args.epochs, args.seed).items():
        if args.only in (None, name):
            start = time.perf_counter()
            model = learn(train)
            seconds = time.perf_counter() - start
            rows = model.sample(N_SAMPLES, noise=False, random_state=0)
            show(name, rows, f"; {model.n_iter_} epochs, {seconds:.0f} s")


if __name__ == "__main__":
    main()
