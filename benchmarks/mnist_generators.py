"""Samples of seven generators of MNIST digits with 8 codes: Parzen and Fréchet figures.

    python benchmarks/mnist_generators.py --mnist mnist.npz --epochs 40

All have networks of three layers of 500 and the Bernoulli likelihood, and are trained on the
first 50,000 training images: an Autoencoder whose codes get a Gaussian, a GaussianMixture of
100 components or the autoregressive density of LatentDensityEstimator with 30 components; an
Autoencoder whose codes open one by one, and that density; a VAE and an AdversarialAE, for
a quarter of the epochs.

The Parzen window has 10,000 decoder means, a Gaussian kernel whose width is chosen on 1000 of
the last 10,000 training images, and is scored on the test images, pixels in [0, 1]. Published:
AE + LDE and incremental AE + LDE 326, AdversarialAE 340. It rewards smooth samples: real
training images score less than blurred means do (first row). So beside it stands the Fréchet
distance between the same means and the test images, in the 64 features before the output of
a small convolutional classifier that is trained on the training images (its accuracy is
printed). "reconstructed" are the test images as the autoencoders return them: no samples of
theirs can be expected to be nearer.

Without `--mnist` the digits come from `sklearn.datasets.fetch_openml`.

Measured figures: docs/benchmarks.md.
"""

import argparse
import time
from collections.abc import Callable
from pathlib import Path

import joblib
import numpy as np
import torch
from _common import describe_machine, load_mnist
from sklearn.frozen import FrozenEstimator
from sklearn.mixture import GaussianMixture
from torch import nn

from skae import VAE, AdversarialAE, Autoencoder, LatentDensityEstimator
from skae.metrics import frechet_distance, parzen_log_likelihood

N_SAMPLES = 10_000


def classifier_features(
    X: np.ndarray, y: np.ndarray, X_test: np.ndarray, y_test: np.ndarray, epochs: int = 3
) -> Callable[[np.ndarray], np.ndarray]:
    """Of a small convolutional network that tells digits apart, before its last layer."""
    torch.manual_seed(0)
    body = nn.Sequential(
        *(nn.Unflatten(1, (1, 28, 28)), nn.Conv2d(1, 16, 5, stride=2, padding=2), nn.ReLU()),
        *(nn.Conv2d(16, 32, 5, stride=2, padding=2), nn.ReLU(), nn.Flatten()),
        *(nn.Linear(32 * 49, 64), nn.ReLU()),
    )
    network = nn.Sequential(body, nn.Linear(64, 10))
    optimizer = torch.optim.Adam(network.parameters(), lr=2e-3)
    rows, labels = torch.from_numpy(X), torch.from_numpy(y)
    for _ in range(epochs):
        for batch in torch.randperm(len(rows)).split(128):
            optimizer.zero_grad()
            nn.functional.cross_entropy(network(rows[batch]), labels[batch]).backward()
            optimizer.step()

    def features(images: np.ndarray) -> np.ndarray:
        with torch.no_grad():
            return body(torch.from_numpy(images.astype(np.float32))).numpy()

    with torch.no_grad():
        right = network(torch.from_numpy(X_test)).argmax(1).numpy() == y_test
    print(f"the classifier is right on {right.mean():.2%} of the test images")
    return features


def labels_of(path: Path | None) -> tuple[np.ndarray, np.ndarray]:
    if path is None:
        from sklearn.datasets import fetch_openml

        target = fetch_openml("mnist_784", as_frame=False).target.astype(np.int64)
        return target[:60_000], target[60_000:]
    with np.load(path) as file:
        return file["y_train"].astype(np.int64), file["y_test"].astype(np.int64)


def autoencoders(epochs: int, seed: int) -> dict[str, Autoencoder | VAE | AdversarialAE]:
    common = {
        "hidden_layer_sizes": (500, 500, 500),
        "likelihood": "bernoulli",
        "learning_rate": "cosine",
        "batch_size": 128,
        "max_iter": epochs,
        "random_state": seed,
    }
    plain = {**common, "normalization": "batch"}
    fewer = {"max_iter": epochs // 4}
    return {
        "Autoencoder": Autoencoder(8, **plain),
        "incremental Autoencoder": Autoencoder(8, latent_growth="incremental", **plain),
        "VAE": VAE(8, **{**common, **fewer}),
        "AdversarialAE": AdversarialAE(
            8, discriminator_layer_sizes=(500, 500), **{**plain, **fewer}
        ),
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--mnist", type=Path, help=".npz with X_train, y_train, X_test, y_test")
    parser.add_argument("--epochs", type=int, default=40, help="of the autoencoders")
    parser.add_argument("--density-epochs", type=int, default=30)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--models", type=Path, help="where fitted autoencoders are, or go to")
    parser.add_argument("--only-autoencoders", action="store_true", help="fit and keep them")
    parser.add_argument("--held-out", action="store_true", help="score training images left out")
    args = parser.parse_args()
    pixels, test = (grey.astype(np.float32) for grey in load_mnist(args.mnist))
    labels, test_labels = labels_of(args.mnist)
    train, rest = pixels[:50_000], pixels[50_000:]
    shuffled = np.random.default_rng(0).permutation(rest)
    valid = shuffled[:1000]
    if args.held_out:
        test = shuffled[1000:]
    print(describe_machine("torch", "skorch"), vars(args), sep="\n", flush=True)

    fitted = {}
    for name, model in autoencoders(args.epochs, args.seed).items():
        file = args.models and args.models / f"{name}-{args.epochs}-{args.seed}.joblib"
        start = time.perf_counter()
        if file and file.exists():
            model = joblib.load(file)
        else:
            model.fit(train)
            print(
                f"{name}: {model.n_iter_} epochs, {time.perf_counter() - start:.0f} s", flush=True
            )
            if file:
                joblib.dump(model, file)
        fitted[name] = model
    if args.only_autoencoders:
        return
    features = classifier_features(train, labels[:50_000], *load_test(args, test_labels))

    def show(name: str, rows: np.ndarray, more: str = "") -> None:
        score = parzen_log_likelihood(rows, valid, test)
        distance = frechet_distance(rows, test, features=features)
        print(
            f"{name:36} Parzen {score.log_likelihood:6.1f} +- {score.standard_error:.1f} nats, "
            f"Fréchet {distance:7.2f}{more}",
            flush=True,
        )

    show("training images", np.random.default_rng(0).permutation(train)[:N_SAMPLES])
    for name, model in fitted.items():
        show(f"{name}, reconstructed", model.reconstruct(test))
        show(name, model.sample(N_SAMPLES, noise=False, random_state=0))
        if name in ("VAE", "AdversarialAE"):
            continue
        densities = {"LDE": "autoregressive"}
        if name == "Autoencoder":
            densities = {"GaussianMixture(100)": GaussianMixture(100), **densities}
        for kind, density in densities.items():
            generator = LatentDensityEstimator(
                FrozenEstimator(model),
                density=density,
                n_mixture=30,
                max_iter=args.density_epochs,
                learning_rate="cosine",
                learning_rate_init=3e-3,
                early_stopping=True,
                n_iter_no_change=args.density_epochs,
                random_state=args.seed,
            )
            start = time.perf_counter()
            generator.fit(train)
            seconds = time.perf_counter() - start
            rows = generator.sample(N_SAMPLES, noise=False, random_state=0)
            held_out = generator.score(rest)
            show(f"{name} + {kind}", rows, f"; log p(z) {held_out:.2f}, {seconds:.0f} s")


def load_test(args: argparse.Namespace, labels: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    return load_mnist(args.mnist)[1].astype(np.float32), labels


if __name__ == "__main__":
    main()
