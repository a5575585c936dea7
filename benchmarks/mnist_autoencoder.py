"""The deep autoencoder of Hinton and Salakhutdinov (2006), 784-1000-500-250-30, on MNIST.

    python benchmarks/mnist_autoencoder.py --mnist mnist.npz
    python benchmarks/mnist_autoencoder.py --mnist mnist.npz --recipe 2006
    python benchmarks/mnist_autoencoder.py --mnist mnist.npz --held-out

Prints the squared error of a test image, pixels in [0, 1], beside PCA's with as many
codes, the time taken, and the share of the machine's own speed of matrix products.
With `--held-out` the last 10,000 training images take the place of the test images and
are not trained on: that is how the settings were chosen. Without `--mnist` the digits
come from `sklearn.datasets.fetch_openml`.

Measured figures: docs/benchmarks.md.
"""

import argparse
import time
from pathlib import Path

import numpy as np
import torch
from _common import describe_machine, load_mnist
from sklearn.decomposition import PCA

from skae import Autoencoder

SIZES = (1000, 500, 250)
N_CODES = 30

# What each recipe sets, beside the sizes.
RECIPES = {
    # SiLU, batch normalisation, strong decoupled weight decay.
    "modern": {
        "activation": "silu",
        "normalization": "batch",
        "out_activation": "logistic",
        "solver": "adamw",
        "alpha": 0.3,
        "learning_rate": "cosine",
        "learning_rate_init": 5e-3,
        "batch_size": 256,
    },
    # Logistic units and cross-entropy from random weights, and from a stack of RBMs. A penalty of
    # the weights would pull logistic units with small gradients back to zero.
    "2006-random": {
        "activation": "logistic",
        "likelihood": "bernoulli",
        "alpha": 0.0,
        "learning_rate": "cosine",
        "batch_size": 256,
    },
    # 50 epochs for each machine, in batches of 100, as in 2006; then larger batches.
    "2006": {
        "activation": "logistic",
        "likelihood": "bernoulli",
        "alpha": 0.0,
        "learning_rate": "cosine",
        "batch_size": 100,
        "pretraining": "rbm",
        "pretraining_max_iter": 50,
    },
}
# What a recipe sets after pretraining.
LATER = {"2006": {"batch_size": 256, "learning_rate_init": 2e-3}}


def squared_error(X: np.ndarray, X_reconstructed: np.ndarray) -> float:
    """Mean over images of the squared error summed over pixels."""
    return float(np.square(X_reconstructed - X, dtype=np.float64).sum(axis=1).mean())


def matmul_speed(device: torch.device, dtype: torch.dtype) -> float:
    """Floating-point operations per second of a large matrix product."""
    n = 8192 if device.type == "cuda" else 2048
    a = torch.randn(n, n, device=device, dtype=dtype)
    for repeat in range(4):
        if repeat == 1:
            _wait(device)
            start = time.perf_counter()
        a @ a
    _wait(device)
    return 3 * 2 * n**3 / (time.perf_counter() - start)


def _wait(device: torch.device) -> None:
    if device.type == "cuda":
        torch.cuda.synchronize(device)


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--mnist", type=Path, help=".npz file with X_train and X_test")
    parser.add_argument("--recipe", choices=RECIPES, default="modern")
    parser.add_argument("--epochs", type=int, default=60)
    parser.add_argument("--held-out", action="store_true")
    parser.add_argument("--threads", type=int, default=torch.get_num_threads())
    parser.add_argument("--checkpoints", type=Path, help="folder from which a killed run goes on")
    parser.add_argument("--device", default="auto")
    parser.add_argument("--precision", default="bfloat16")
    parser.add_argument("--compile", action="store_true")
    parser.add_argument("--verbose", type=int, default=0)
    options = parser.parse_args()
    torch.set_num_threads(options.threads)
    print(describe_machine("torch"), vars(options), sep="\n", flush=True)
    train, test = (X.astype(np.float32) for X in load_mnist(options.mnist))
    if options.held_out:
        train, test = train[:50_000], train[50_000:]

    pca = PCA(N_CODES).fit(train)
    error = squared_error(test, pca.inverse_transform(pca.transform(test)))
    print(f"PCA            {error:.3f}", flush=True)

    model = Autoencoder(
        N_CODES,
        hidden_layer_sizes=SIZES,
        max_iter=0,
        tol=0,
        random_state=0,
        device=options.device,
        precision=options.precision,
        compile=options.compile,
        verbose=options.verbose,
        checkpoint_dir=options.checkpoints,
        **RECIPES[options.recipe],
    )
    start = time.perf_counter()
    if options.recipe in LATER:
        model.fit(train)
        error, seconds = squared_error(test, model.reconstruct(test)), time.perf_counter() - start
        print(f"pretrained     {error:.3f}, {seconds:.0f} s", flush=True)
        model.set_params(warm_start=True, **LATER[options.recipe])
    model.set_params(max_iter=options.epochs).fit(train)
    seconds = time.perf_counter() - start
    errors = [squared_error(X, model.reconstruct(X)) for X in (train, test)]
    print(
        f"{options.recipe:14} {errors[1]:.3f} (train {errors[0]:.3f}) after {options.epochs} "
        f"epochs, {seconds:.0f} s"
    )
    device = torch.device(model.net_.device)
    dtype = torch.bfloat16 if model.net_.autocast else torch.float32
    n_weights = sum(p.numel() for p in model.net_.module_.parameters() if p.ndim > 1)
    # A pass forward is 2 operations per weight and row, a pass backward 4.
    speed = 6 * n_weights * len(train) * options.epochs / seconds
    limit = matmul_speed(device, dtype)
    print(
        f"{len(train) * options.epochs / seconds:,.0f} rows per second; {speed / 1e12:.2f} "
        f"TFLOP/s, {speed / limit:.0%} of {limit / 1e12:.2f} of a large {dtype} product"
    )
