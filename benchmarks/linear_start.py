"""Networks beside the linear models whose place they take, on ten data sets that packages ship.

    python benchmarks/linear_start.py --old ../skae-50e6b12 --pythae --out figures.json
    python benchmarks/linear_start.py --longer 5
    python benchmarks/linear_start.py --table --old ../skae-50e6b12 --mnist mnist.npz

Autoencoder is judged by the squared error of a row held out, beside PCA's; VAE by the bound of
such a row in nats (100 draws), beside the log-likelihood of PPCA. Five seeds draw the split, three
quarters to learn from, and the weights; nothing is chosen on what is held out. skae is the version
on the path, with its defaults. `--old` is the checkout of an earlier version, run in a process of
its own; `--pythae` trains that package's AE and VAE with the same layers, 200 epochs of batches of
128 with Adam at 1e-3. `--longer` fits each network again with so many times the epochs that the
default took. `--table` has sizes and epochs of its own, and prints training rows, too. Nothing is
downloaded. `--peers-only` leaves skae out, and `--read` adds the records of earlier runs;
`--data` without a name fits nothing, and prints the tables of what was read.

Measured figures: docs/benchmarks.md.
"""

import argparse
import json
import os
import subprocess
import sys
import tempfile
import time
import warnings
from collections.abc import Iterator
from pathlib import Path

import numpy as np
from _common import describe_machine, load_mnist
from _linear_start_report import print_report
from sklearn import datasets
from sklearn.decomposition import PCA
from sklearn.model_selection import train_test_split
from sklearn.preprocessing import StandardScaler

MODELS = ("Autoencoder", "VAE")


def of_statsmodels(name: str) -> np.ndarray:
    import statsmodels.api as sm

    return getattr(sm.datasets, name).load_pandas().data.to_numpy(float)


def patches(name: str, side: int) -> np.ndarray:
    """Squares of an image of scikit-image that do not overlap, grey values in [0, 1]."""
    import skimage.data

    image = getattr(skimage.data, name)() / 255
    height, width = (length // side for length in image.shape)
    squares = image[: height * side, : width * side].reshape(height, side, width, side)
    return squares.swapaxes(1, 2).reshape(-1, side * side)


def some(X: np.ndarray, n_rows: int = 3000) -> np.ndarray:
    return np.random.default_rng(0).permutation(X)[:n_rows]


# The rows, and whether each column is standardised by its moments in the training rows.
SETS = {
    "digits/16": (lambda: datasets.load_digits().data / 16, False),
    "breast cancer": (lambda: datasets.load_breast_cancer().data, True),
    "wine": (lambda: datasets.load_wine().data, True),
    "wine, raw": (lambda: datasets.load_wine().data, False),
    "diabetes, as shipped": (lambda: datasets.load_diabetes().data, False),
    "iris, raw": (lambda: datasets.load_iris().data, False),
    "star98": (lambda: of_statsmodels("star98"), True),
    "fair": (lambda: some(of_statsmodels("fair")), True),
    "coins, 8x8": (lambda: patches("coins", 8), False),
    "camera, 4x4": (lambda: some(patches("camera", 4)), False),
    "digits": (lambda: datasets.load_digits().data, False),
}
TEN = list(SETS)[:10]

# Model, codes, data, what is set, seeds. One split: three tenths of the rows are held out.
RECIPE = {"batch_size": 128, "learning_rate": "constant", "learning_rate_init": 1e-3, "tol": 0.0}
TABLE = [
    ("Autoencoder", 10, "digits/16", {"max_iter": 60}, 1),
    ("Autoencoder", 5, "breast cancer", {"max_iter": 200}, 1),
    ("Autoencoder", 30, "MNIST", {"max_iter": 10, "hidden_layer_sizes": 400}, 1),
    ("Autoencoder", 10, "digits/16", {"max_iter": 60, "hidden_layer_sizes": (128, 64)}, 2),
    ("Autoencoder", 10, "digits/16", {"max_iter": 300, "hidden_layer_sizes": (128, 64)}, 2),
    ("Autoencoder", 5, "breast cancer", {"max_iter": 200, "hidden_layer_sizes": (64, 32)}, 2),
    ("VAE", 10, "digits", {"max_iter": 60}, 1),
    ("VAE", 5, "breast cancer", {"max_iter": 200}, 1),
    ("VAE", 4, "wine", {"max_iter": 200}, 1),
    ("VAE", 4, "wine, raw", {"max_iter": 200}, 1),
]


def split(name: str, share: float, seed: int, mnist: Path | None) -> list[np.ndarray]:
    """Training rows, and rows held out."""
    if name == "MNIST":
        train, test = load_mnist(mnist)
        return [train[:20_000], test]
    load, standardised = SETS[name]
    parts = train_test_split(load(), test_size=share, random_state=seed)
    if standardised:
        scaler = StandardScaler().fit(parts[0])
        parts = [scaler.transform(part) for part in parts]
    return parts


def squared_error(X: np.ndarray, X_reconstructed: np.ndarray) -> float:
    return float(np.square(X_reconstructed - X, dtype=np.float64).sum(axis=1).mean())


def linear(model: str, k: int, parts: list[np.ndarray]) -> list[float]:
    from skae import PPCA

    if model == "VAE":
        ppca = PPCA(k).fit(parts[0])
        return [-float(ppca.score(X)) for X in parts]
    pca = PCA(k).fit(parts[0])
    return [squared_error(X, pca.inverse_transform(pca.transform(X))) for X in parts]


def network(model: str, k: int, parts: list[np.ndarray], seed: int, params: dict) -> dict:
    import skae

    estimator = getattr(skae, model)(k, random_state=seed, **params)
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        start = time.perf_counter()
        estimator.fit(parts[0])
        seconds = time.perf_counter() - start
    if model == "VAE":
        losses = [-float(estimator.score_samples(X).mean(dtype=np.float64)) for X in parts]
    else:
        losses = [squared_error(X, estimator.reconstruct(X)) for X in parts]
    said = sorted({f"{warning.category.__name__}: {warning.message}" for warning in caught})
    return {"losses": losses, "seconds": seconds, "epochs": estimator.n_iter_, "warnings": said}


def pythae(model: str, k: int, parts: list[np.ndarray], seed: int) -> list[float]:
    """pythae's AE or VAE; the noise variance that its VAE has not is learned from training rows."""
    import torch
    from _peers import pythae_network, train_pythae

    torch.manual_seed(seed)
    d = parts[0].shape[1]
    net, encode, decode = pythae_network("VAE" if model == "VAE" else "AE", d, 100, k)
    try:
        train_pythae(net, parts[0].astype(np.float32), 200)
    except ArithmeticError:  # its loss is not a number
        return [np.inf, np.inf]
    tensors = [torch.from_numpy(X).float() for X in parts]
    with torch.no_grad():
        if model == "Autoencoder":
            outputs = [decode(encode(x)).numpy() for x in tensors]
            return list(map(squared_error, parts, outputs))
        errors, log_ratios = [], []  # of 100 draws of z: squared errors, log p(z) / q(z|x)
        for x in tensors:
            mean, log_var = (head.double() for head in encode(x).chunk(2, 1))
            noise = torch.randn((100, *mean.shape), dtype=torch.float64)
            z = mean + (log_var / 2).exp() * noise
            log_ratios.append(0.5 * (noise.square() + log_var - z.square()).sum(2))
            errors.append((decode(z.float()) - x).double().square().sum(2))
    variance = errors[0].mean() / d  # the best for the bound of the training rows
    constant = d / 2 * torch.log(2 * torch.pi * variance) + np.log(100)
    pairs = zip(errors, log_ratios, strict=True)
    return [float(constant - (w - e / (2 * variance)).logsumexp(0).mean()) for e, w in pairs]


def plan(args: argparse.Namespace) -> Iterator[tuple[str, int, str, dict, int]]:
    """Model, codes, data, what is set, seed of every fit."""
    if args.table:
        for model, k, name, params, n_seeds in TABLE:
            if name in args.data and (name != "MNIST" or args.mnist):
                yield from ((model, k, name, RECIPE | params, seed) for seed in range(n_seeds))
        return
    for name in filter(args.data.__contains__, TEN):
        k = max(2, min(SETS[name][0]().shape[1], 12) // 3)
        yield from ((model, k, name, {}, seed) for model in MODELS for seed in range(args.seeds))


def measure(args: argparse.Namespace) -> list[dict]:
    records = []
    for model, k, name, params, seed in plan(args):
        parts = split(name, *((0.3, 0) if args.table else (0.25, seed)), args.mnist)
        shape = f"{sum(map(len, parts))} x {parts[0].shape[1]}"
        given = [f"{key}={value}" for key, value in params.items() if key not in RECIPE]
        label = ", ".join([f"{name} ({shape}), {k} codes", *given])
        found = {"linear": {"losses": linear(model, k, parts)}}
        if not args.peers_only:
            found["skae"] = network(model, k, parts, seed, params)
        if args.longer and "skae" in found:
            longer = params | {"max_iter": args.longer * found["skae"]["epochs"], "tol": 0.0}
            found["longer"] = network(model, k, parts, seed, longer)
        if args.pythae and not args.table:
            found["pythae"] = {"losses": pythae(model, k, parts, seed)}
        for build, result in found.items():
            key = {"model": model, "data": label, "seed": seed, "build": build}
            records.append(key | result | {"table": args.table})
        figures = {build: np.round(result["losses"], 3) for build, result in found.items()}
        print(model, label, f"seed {seed}:", figures, file=sys.stderr, flush=True)
    return records


def measure_old(args: argparse.Namespace) -> list[dict]:
    """The same fits by another version of skae, found first on the path of a new process."""
    with tempfile.TemporaryDirectory() as folder:
        command = [sys.executable, __file__, "--out", f"{folder}/records.json"]
        command += ["--seeds", str(args.seeds), *["--table"] * args.table, "--data", *args.data]
        command += ["--mnist", str(args.mnist)] if args.mnist else []
        environment = os.environ | {"PYTHONPATH": str(args.old.resolve())}
        subprocess.run(command, env=environment, check=True, stdout=subprocess.DEVNULL)
        records = json.loads(Path(folder, "records.json").read_text())["records"]
    return [record | {"build": "old"} for record in records if record["build"] == "skae"]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--table", action="store_true", help="the fits with given epochs")
    parser.add_argument("--mnist", type=Path, help=".npz with X_train and X_test, for --table")
    parser.add_argument("--old", type=Path, help="checkout of an earlier version of skae")
    parser.add_argument("--pythae", action="store_true", help="that package's AE and VAE, too")
    parser.add_argument("--longer", type=int, help="times the epochs that a fit took")
    names = [*SETS, "MNIST"]
    parser.add_argument("--data", nargs="*", choices=names, default=names, help="these alone")
    parser.add_argument("--seeds", type=int, default=5)
    parser.add_argument("--peers-only", action="store_true", help="leave out the skae on the path")
    parser.add_argument("--read", type=Path, nargs="*", default=[], help="records of earlier runs")
    parser.add_argument("--out", type=Path, help="where records are written, as JSON")
    args = parser.parse_args()
    packages = ["torch", "skorch", "statsmodels", "scikit-image", *["pythae"] * args.pythae]
    command, machine = " ".join(sys.argv), describe_machine(*packages)
    records = [r for path in args.read for r in json.loads(path.read_text())["records"]]
    records += measure(args)
    if args.old:
        records += measure_old(args)
    if args.out:
        found = {"command": command, "machine": machine, "records": records}
        args.out.write_text(json.dumps(found, indent=1))
    print(f"{command}\n{machine}")
    print_report(records)


if __name__ == "__main__":
    main()
