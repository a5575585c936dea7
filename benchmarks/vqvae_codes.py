"""VQVAE's codes: how many are used, bits per dimension, memory, and sampling with the cache.

    python benchmarks/vqvae_codes.py --mnist mnist.npz

- usage: 784-400 and 16 positions, batches of 128. Of the test rows: the share of codes that
  they hit, the perplexity beside the number of codes, and the squared error per row, pixels in
  [0, 1]. Beside the default the plain quantiser: straight-through gradients and a codebook
  learned by its loss from small random vectors, no code ever restarted.
- bits: pixels (k + u) / 256 with u ~ U(0, 1), one noise variance for all, 784-400 networks; bits
  per pixel of the test rows, and of training rows that were held out (the last 10,000).
- memory: what encoding 60,000 rows to 49 of 65,536 codes adds to the peak of the process.
- sampling: 1000 rows of 49 indices from the causal prior, and decoded, with and without the
  cache; networks hardly trained, which costs nothing here.

`--parts` chooses some of them. Without `--mnist` the digits come from
`sklearn.datasets.fetch_openml`. Measured figures: docs/benchmarks.md.
"""

import argparse
import time
from collections.abc import Callable
from pathlib import Path

import numpy as np
import torch
from _common import added_to_peak, alternate, describe_machine, load_mnist

from skae import PPCA, VAE, VQVAE
from skae.metrics import bits_per_dim

N_HIDDEN, N_POSITIONS = 400, 16
PLAIN = {"codebook_update": "loss", "codebook_init": "random", "dead_code_threshold": 0}


def usage(X: np.ndarray, X_test: np.ndarray, epochs: int) -> None:
    """Codes in use by size of the codebook and quantiser."""
    kinds: list[tuple[str, int, dict[str, object]]] = [
        *[("default", n_codes, {}) for n_codes in (64, 512, 8192)],
        *[("plain straight-through", n_codes, PLAIN) for n_codes in (64, 512, 8192)],
        *[("simvq", n_codes, {"quantizer": "simvq"}) for n_codes in (512, 8192)],
        ("fsq", 512, {"quantizer": "fsq", "levels": (8, 8, 8)}),
        ("fsq", 8192, {"quantizer": "fsq", "levels": (8, 8, 8, 4, 4)}),
    ]
    print(f"{epochs} epochs: share of codes hit, perplexity / n_codes, error, s of the fit")
    for name, n_codes, params in kinds:
        model = VQVAE(
            N_POSITIONS,
            n_codes=n_codes,
            hidden_layer_sizes=N_HIDDEN,
            prior=None,
            max_iter=epochs,
            random_state=0,
            **params,
        )
        start = time.perf_counter()
        model.fit(X)
        seconds = time.perf_counter() - start
        hit = len(np.unique(model.transform(X_test))) / n_codes
        error = float(((model.reconstruct(X_test) - X_test) ** 2).sum(1).mean())
        share = model.perplexity(X_test) / n_codes
        print(f"  {name:24} {n_codes:5} {hit:7.2%} {share:6.3f} {error:7.3f} {seconds:6.0f}")


def bits(X: np.ndarray, X_test: np.ndarray, epochs: int, n_codes: int, n_components: int) -> None:
    """Bits per pixel of dequantised rows."""
    rng = np.random.default_rng(0)

    def dequantised(rows: np.ndarray) -> np.ndarray:
        return ((255 * rows + rng.random(rows.shape)) / 256).astype(np.float32)

    X, X_test = dequantised(X), dequantised(X_test)
    X, X_held = X[:-10_000], X[-10_000:]
    shared = {
        "hidden_layer_sizes": N_HIDDEN,
        "learning_rate": "cosine",
        "max_iter": epochs,
        "random_state": 0,
    }
    codes = {"n_components": n_components, "n_codes": n_codes, "prior_max_iter": epochs}
    models = {
        **{f"PPCA({k})": PPCA(k, random_state=0) for k in (50, 200)},
        **{f"VAE({k})": VAE(k, **shared) for k in (20, 50)},
        **{
            f"VQVAE({n_components}, n_codes={n_codes}, prior={prior!r})": VQVAE(
                prior=prior, **codes, **shared
            )
            for prior in (None, "independent", "autoregressive")
        },
    }
    print(f"{epochs} epochs; bits per pixel: held-out training rows, test rows; s of the fit")
    for name, model in models.items():
        start = time.perf_counter()
        model.fit(X)
        seconds = time.perf_counter() - start
        found = [bits_per_dim(model.score_samples(rows), X.shape[1]) for rows in (X_held, X_test)]
        print(f"  {name:52} {found[0]:.3f} {found[1]:.3f} {seconds:6.0f}", flush=True)


def memory(X: np.ndarray) -> None:
    """Of encoding by a codebook whose distances would take terabytes."""
    model = VQVAE(
        49,
        n_codes=65_536,
        codebook_init="random",
        dead_code_threshold=0,
        prior=None,
        max_iter=1,
        random_state=0,
    ).fit(X[:200])
    start = time.perf_counter()
    added = added_to_peak(lambda: model.transform(X))
    seconds = time.perf_counter() - start
    print(f"{len(X)} rows to 49 of 65,536 codes: {added:.0f} MB more at the peak, {seconds:.0f} s")


def sampling(X: np.ndarray) -> None:
    """With and without the cache."""
    options = {"n_codes": 512, "hidden_layer_sizes": N_HIDDEN, "max_iter": 1, "random_state": 0}
    model = VQVAE(49, calibration=False, **options).fit(X[:2000])
    sequence = model.prior_net_.module_.sequence

    def draw(cached: bool) -> Callable[[], object]:
        def work() -> object:
            with torch.inference_mode():
                generator = torch.Generator().manual_seed(0)
                return model.inverse_transform(sequence.sample(1000, generator, cached=cached))

        return work

    seconds = alternate({"cached": draw(True), "anew": draw(False)}, 3)
    print(
        f"1000 rows of 49 indices: {seconds['cached']:.3f} s with the cache, {seconds['anew']:.3f}"
    )
    print(f"  s without: {seconds['anew'] / seconds['cached']:.1f} times")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--mnist", type=Path, help=".npz with X_train and X_test")
    parser.add_argument("--parts", nargs="+", default=["usage", "bits", "memory", "sampling"])
    parser.add_argument("--epochs", type=int, default=10)
    parser.add_argument("--n-codes", type=int, default=512, help="of the part bits")
    parser.add_argument("--n-components", type=int, default=N_POSITIONS, help="of the part bits")
    args = parser.parse_args()
    X, X_test = (pixels.astype(np.float32) for pixels in load_mnist(args.mnist))
    print(describe_machine("torch", "skorch"), f"{torch.get_num_threads()} threads", flush=True)
    if "usage" in args.parts:
        usage(X, X_test, args.epochs)
    if "bits" in args.parts:
        bits(X, X_test, args.epochs, args.n_codes, args.n_components)
    if "memory" in args.parts:
        memory(X)
    if "sampling" in args.parts:
        sampling(X)


if __name__ == "__main__":
    main()
