"""Fits that are killed by SIGKILL at random moments, and go on until they end.

    python benchmarks/kills.py --kills 60 --seed 0

Each case is an estimator or a search with `checkpoint_dir`, in a process of its own. A first
process fits it without a kill. Further processes are killed after a random time of the fit and
started again, in the same folder, until one of them ends before its kill. The learned state of its
model is then compared, bit for bit, with that of the first process: weights, states of the
optimisers, losses of all epochs, noise, priors and scores. Cases take turns until there were enough
kills. The exit status is 1 if a state differs, or if a process ends with an error.

Measured figures: docs/benchmarks.md.
"""

import argparse
import hashlib
import subprocess
import sys
import tempfile
import time
import warnings
from collections import Counter
from pathlib import Path
from typing import Any

import numpy as np
from _common import describe_machine
from sklearn.base import BaseEstimator
from sklearn.datasets import load_digits
from sklearn.decomposition import PCA

import skae

PIXELS = load_digits(return_X_y=True)[0][:600] / 16.0
LABELS = load_digits(return_X_y=True)[1][:600]
COUNTS = np.round(16 * PIXELS)
BITS = (PIXELS > 0.5).astype(float)
FEW = {"hidden_layer_sizes": 32, "random_state": 0}
EPOCHS = FEW | {"max_iter": 150}


def cases() -> dict[str, tuple[Any, tuple[Any, ...]]]:
    """Return the estimators, and the arguments of their `fit`."""
    vae = skae.VAE(4, **EPOCHS)
    return {
        "Autoencoder": (skae.Autoencoder(4, **EPOCHS), (PIXELS,)),
        "early stopping": (
            skae.Autoencoder(4, early_stopping=True, learning_rate="adaptive", **EPOCHS),
            (PIXELS,),
        ),
        "RBM pretraining": (
            skae.Autoencoder(
                4, pretraining="rbm", activation="logistic", pretraining_max_iter=40, **EPOCHS
            ),
            (BITS,),
        ),
        "VAE, trials": (skae.VAE(2, checkpoint_every=10, **FEW), (PIXELS[:100],)),
        "VAE, conditional": (
            skae.VAE(4, conditional=True, learning_rate="cosine", **EPOCHS),
            (PIXELS, LABELS),
        ),
        "VAE of counts": (skae.VAE(4, likelihood="negative_binomial", **EPOCHS), (COUNTS,)),
        "VQVAE and prior": (skae.VQVAE(4, n_codes=32, prior_max_iter=10, **EPOCHS), (PIXELS,)),
        "AdversarialAE": (skae.AdversarialAE(4, posterior="gaussian", **EPOCHS), (PIXELS,)),
        "HelmholtzMachine": (skae.HelmholtzMachine(8, **EPOCHS), (BITS,)),
        "density of a VAE": (
            skae.LatentDensityEstimator(vae, max_iter=40, random_state=0),
            (PIXELS,),
        ),
        "flow on PCA": (
            skae.LatentDensityEstimator(PCA(4), density="flow", max_iter=40, random_state=0),
            (PIXELS,),
        ),
        "n_init=3": (skae.VAE(4, n_init=3, **EPOCHS), (PIXELS,)),
        "Ensemble": (skae.Ensemble(vae, 3, random_state=0), (PIXELS,)),
        "search": (skae.GridSearchCV(vae, {"n_components": [2, 4, 6]}, cv=2), (PIXELS,)),
    }


def with_folder(estimator: Any, folder: str) -> Any:
    """Set the folder of an estimator, or of the one that it contains."""
    inner = estimator
    if "checkpoint_dir" not in estimator.get_params(deep=False):
        inner = estimator.estimator
    inner.set_params(checkpoint_dir=folder)
    return estimator


def digest(value: Any) -> str:
    """Return a digest of all that was learned, without records of how it was computed."""
    found = hashlib.sha256()

    def add(path: str, value: Any) -> None:
        if isinstance(value, BaseEstimator):
            params = value.get_params(deep=False)
            state = value.__getstate__()
            add(path, {k: v for k, v in state.items() if k not in params})
        elif isinstance(value, dict):
            for key in sorted(value, key=str):
                # How long it took, and what was computed together.
                if key not in ("dur", "shared_fits_") and "time" not in str(key):
                    add(f"{path}/{key}", value[key])
        elif isinstance(value, list | tuple):
            for index, item in enumerate(value):
                add(f"{path}/{index}", item)
        elif isinstance(value, np.ndarray) and not value.dtype.hasobject:
            found.update(f"{path} {value.dtype} {value.shape}".encode() + value.tobytes())
        elif isinstance(value, bool | int | float | str | bytes | np.generic | None):
            found.update(f"{path} {value!r}".encode())

    add("", value)
    return found.hexdigest()


def child(name: str, folder: str) -> None:
    """Fit a case and print a digest of its state."""
    estimator, data = cases()[name]
    with_folder(estimator, folder)
    with warnings.catch_warnings():  # what the first fit of a process imports takes seconds
        warnings.simplefilter("ignore")
        skae.VAE(1, max_iter=1, n_init=2, random_state=0).fit(PIXELS[:20])
    print("fits", flush=True)
    begin = time.perf_counter()
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        estimator.fit(*data)
    print(time.perf_counter() - begin, digest(estimator), flush=True)


def start(name: str, folder: Path) -> subprocess.Popen[str]:
    """Start a process, and wait until its fit begins."""
    command = [sys.executable, __file__, "--child", name, "--folder", str(folder)]
    process = subprocess.Popen(command, stdout=subprocess.PIPE, text=True)
    assert process.stdout is not None
    if process.stdout.readline().strip() != "fits":
        raise RuntimeError(f"{name}: the process ended before its fit.")
    return process


def end(process: subprocess.Popen[str]) -> tuple[float, str]:
    """Return the seconds of a fit that ended, and the digest of its state."""
    text, _ = process.communicate()
    if process.returncode:
        raise RuntimeError(f"The process ended with status {process.returncode}.")
    seconds, found = text.split()
    return float(seconds), found


def until_it_ends(
    name: str, folder: Path, seconds: float, rng: np.random.Generator
) -> tuple[int, int, str]:
    """Kill a fit again and again; return kills, kills while a file was written, and the digest."""
    n_kills = n_amid = 0
    while True:
        process = start(name, folder)
        try:
            process.wait(timeout=rng.uniform(0, 1.0) * seconds)
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait()
            n_kills += 1
            n_amid += any(folder.glob("*.partial"))
            for path in folder.glob("*.partial"):
                path.unlink()
            continue
        return n_kills, n_amid, end(process)[1]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("cases", nargs="*", help="names of cases; all by default")
    parser.add_argument("--kills", type=int, default=60)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--child", help=argparse.SUPPRESS)
    parser.add_argument("--folder", help=argparse.SUPPRESS)
    args = parser.parse_args()
    if args.child:
        child(args.child, args.folder)
        return
    print(describe_machine("torch", "skorch"), flush=True)
    rng = np.random.default_rng(args.seed)
    names = args.cases or list(cases())
    expected: dict[str, tuple[float, str]] = {}
    chains, kills, amid, equal = Counter(), Counter(), Counter(), Counter()
    while sum(kills.values()) < args.kills:
        for name in names:
            with tempfile.TemporaryDirectory() as folder:
                if name not in expected:
                    expected[name] = end(start(name, Path(folder) / "whole"))
                killed = Path(folder) / "killed"
                n_kills, n_amid, found = until_it_ends(name, killed, expected[name][0], rng)
            chains[name] += 1
            kills[name] += n_kills
            amid[name] += n_amid
            equal[name] += found == expected[name][1]
            print(
                f"{name}: {n_kills} kills, {'equal' if found == expected[name][1] else 'DIFFERS'}"
            )
            sys.stdout.flush()
    print("\n| case | s without a kill | fits | kills | while a file was written | equal fits |")
    print("|---|---|---|---|---|---|")
    for name in names:
        row = (f"{expected[name][0]:.1f}", chains[name], kills[name], amid[name], equal[name])
        print(f"| {name} | {' | '.join(map(str, row))} |")
    sums = sum(chains.values()), sum(kills.values()), sum(amid.values()), sum(equal.values())
    print(f"| all | | {' | '.join(map(str, sums))} |")
    sys.exit(sums[0] != sums[3])


if __name__ == "__main__":
    main()
