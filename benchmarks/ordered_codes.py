"""One fit that serves every latent size beside a fit for each: latent_growth on MNIST.

    python benchmarks/ordered_codes.py --mnist mnist.npz
    python benchmarks/ordered_codes.py --vae

Squared error of a test image, pixels in [0, 1], with the first 2, 4, 8, 16 and 30 codes: of
networks trained for that size, and of one with `latent_growth="nested"` or "incremental", all
with the same layers and epochs; of "nested" with the epochs of the five; and of "opening
alone", which is incremental growth without its cuts: codes open one by one over half of the
epochs, and nothing more. Without `--mnist` the digits come from
`sklearn.datasets.fetch_openml`. What else was tried: `ordered_codes_tried.py`.

`--vae` compares the scores of a VAE's first codes, nats of 597 held-out rows of
`sklearn.datasets.load_digits`, with those of a VAE and of PPCA for each size.

Measured figures: docs/benchmarks.md.
"""

import argparse
import time
from pathlib import Path

import numpy as np
from _common import describe_machine, load_mnist
from sklearn.datasets import load_digits

from skae import PPCA, VAE, Autoencoder
from skae._modules.autoencoder import AutoencoderModule

SIZES = (2, 4, 8, 16, 30)


def network(n_codes: int, epochs: int, growth: str | None = None) -> Autoencoder:
    return Autoencoder(
        n_codes,
        hidden_layer_sizes=(512, 256),
        normalization="batch",
        out_activation="logistic",
        solver="adamw",
        alpha=0.1,
        learning_rate="cosine",
        learning_rate_init=5e-3,
        batch_size=256,
        latent_growth=growth,
        max_iter=epochs,
        tol=0,
        random_state=0,
        precision="bfloat16",
    )


def show(name: str, errors: list[float], base: list[float], seconds: float) -> None:
    cells = "".join(f"{e:8.2f} ({e / b:4.2f})" for e, b in zip(errors, base, strict=True))
    print(f"{name:18}{cells}{seconds:8.0f} s", flush=True)


def compare_vaes(epochs: int, sizes: tuple[int, ...] = (1, 2, 4, 8)) -> None:
    X = load_digits(return_X_y=True)[0]
    train, held_out = X[:1200], X[1200:]
    scores = {
        "PPCA": [PPCA(k).fit(train).score(held_out) for k in sizes],
        "a VAE each": [
            VAE(k, max_iter=epochs, random_state=0).fit(train).score(held_out) for k in sizes
        ],
    }
    for name, n_epochs in (("nested", epochs), ("nested, 4x epochs", len(sizes) * epochs)):
        whole = VAE(max(sizes), latent_growth="nested", max_iter=n_epochs, random_state=0)
        whole.fit(train)
        scores[name] = [whole.truncate(k).score(held_out) for k in sizes]
    for name, found in scores.items():
        print(f"{name:18}" + "".join(f"{score:10.2f}" for score in found), flush=True)


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--mnist", type=Path, help=".npz file with X_train and X_test")
    parser.add_argument("--vae", action="store_true", help="compare VAEs of the digits instead")
    parser.add_argument("--epochs", type=int, default=20)
    options = parser.parse_args()
    print(describe_machine("torch"), flush=True)
    if options.vae:
        compare_vaes(options.epochs)
        raise SystemExit
    train, test = (X.astype(np.float32) for X in load_mnist(options.mnist))

    start = time.perf_counter()
    separate = []
    for k in SIZES:
        model = network(k, options.epochs).fit(train)
        separate.append(float(np.square(model.reconstruct(test) - test).sum(axis=1).mean()))
    show("a fit each", separate, separate, time.perf_counter() - start)

    def one_fit(name: str, growth: str, times: int = 1) -> None:
        start = time.perf_counter()
        model = network(max(SIZES), times * options.epochs, growth).fit(train)
        path = model.reconstruction_path(test)
        show(name, [float(path[k - 1]) for k in SIZES], separate, time.perf_counter() - start)

    one_fit("nested", "nested")
    one_fit("incremental", "incremental")
    one_fit("nested, 5x epochs", "nested", times=len(SIZES))
    AutoencoderModule._cuts = lambda self, batch, generator: None  # type: ignore[assignment]
    one_fit("opening alone", "incremental")
