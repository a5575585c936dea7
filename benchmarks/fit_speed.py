"""Whole fits on a quiet and on a busy machine, beside hand-written loops and an earlier build.

    python benchmarks/fit_speed.py --mnist mnist.npz --old ../skae-50e6b12

Each figure is the median of rounds in which the builds take turns, each in a process of its
own with the threads that torch chooses by itself; `--busy` runs as many processes beside it that
do nothing but compute. `--old` is a checkout of another build; without `--mnist` the tables that
need its digits are left out. The hand-written loops are those of training.py, vae_training.py and
helmholtz_training.py.

Measured figures: docs/benchmarks.md.
"""

import argparse
import contextlib
import json
import os
import subprocess
import sys
import time
import warnings
from collections.abc import Callable, Iterator
from pathlib import Path

import numpy as np
from _common import describe_machine, load_mnist

HERE = Path(__file__).resolve()


def timed(run: Callable[[], object]) -> float:
    """Wall-clock seconds."""
    start = time.perf_counter()
    run()
    return time.perf_counter() - start


# -------------------------------------------- what is measured: seconds by name, of one process


def digits(epochs: int | None) -> dict[str, float]:
    """An Autoencoder of eight codes; a regressor of scikit-learn of the same layers."""
    from sklearn.datasets import load_digits
    from sklearn.neural_network import MLPRegressor

    from skae import Autoencoder

    X = load_digits().data
    Autoencoder(8, max_iter=1, random_state=0).fit(X)
    params = {} if epochs is None else {"max_iter": epochs}
    model = Autoencoder(8, random_state=0, **params)
    found = {"skae": timed(lambda: model.fit(X))}
    if epochs is not None:
        peer = MLPRegressor(
            hidden_layer_sizes=(100, 8, 100), batch_size=128, max_iter=epochs, random_state=0
        )
        found["sklearn MLPRegressor"] = timed(lambda: peer.fit(X, X))
    return found


def small() -> dict[str, float]:
    """80 x 301, 100 epochs of one step."""
    import training

    X = np.random.default_rng(0).normal(size=(80, 301)).astype(np.float32)
    training.plain_loop(X, 5, 100)
    training.skae(X, 5, 100)
    found = {"by hand": sum(training.plain_loop(X, 100, 100))}
    found["skae, whole fit"] = timed(lambda: found.update(skae=sum(training.skae(X, 100, 100))))
    return found


def vae(mnist: Path) -> dict[str, float]:
    """One epoch of the 784-400-20 VAE over 60,000 rows, and the fit around it."""
    import vae_training

    X = load_mnist(mnist)[0].astype(np.float32)
    vae_training.Runs(X[:1000], X[:10], 1).skae()
    runs = vae_training.Runs(X, X[:10], 1)
    found = {"by hand": sum(runs.by_hand())}
    found["skae, whole fit"] = timed(lambda: found.update(skae=sum(runs.skae())))
    return found


def wake_sleep(mnist: Path) -> dict[str, float]:
    """One epoch of 784-200 over 60,000 binary rows."""
    import helmholtz_training

    grey = load_mnist(mnist)[0]
    X = (np.random.default_rng(0).random(grey.shape) < grey).astype(np.float32)
    helmholtz_training.skae(X[:1000], 1)
    return {
        "by hand": sum(helmholtz_training.by_hand(X, 1)),
        "by hand, with losses": sum(helmholtz_training.by_hand(X, 1, losses=True)),
        "skae": sum(helmholtz_training.skae(X, 1)),
    }


def latent_density() -> dict[str, float]:
    """LatentDensityEstimator() on 1347 x 64, all defaults."""
    from sklearn.datasets import load_digits

    from skae import LatentDensityEstimator

    X = load_digits().data[:1347]
    start = time.process_time()
    found = {"skae": timed(lambda: LatentDensityEstimator(random_state=0).fit(X))}
    return found | {"skae, CPU": time.process_time() - start}


CASES: dict[str, Callable[..., dict[str, float]]] = {
    "digits, 20 epochs": lambda mnist: digits(20),
    "digits, default fit": lambda mnist: digits(None),
    "80 x 301, 100 epochs": lambda mnist: small(),
    "VAE, 60,000 x 784, one epoch": vae,
    "wake-sleep, 60,000 x 784, one epoch": wake_sleep,
    "LatentDensityEstimator(), 1347 x 64": lambda mnist: latent_density(),
}
NEED_MNIST = {"VAE, 60,000 x 784, one epoch", "wake-sleep, 60,000 x 784, one epoch"}


# ------------------------------------------------------------------------------ the tables


@contextlib.contextmanager
def busy_processes(number: int) -> Iterator[None]:
    """So many processes beside this one, which compute all the time."""
    command = [sys.executable, "-c", "while True: pass"]
    processes = [subprocess.Popen(command) for _ in range(number)]
    try:
        yield
    finally:
        for process in processes:
            process.kill()
            process.wait()


def measure(case: str, build: Path, mnist: Path | None) -> dict[str, float]:
    """The figures of a case, by a process that imports this build."""
    command = [sys.executable, str(HERE), "--measure", case]
    if mnist is not None:
        command += ["--mnist", str(mnist)]
    environment = os.environ | {"PYTHONPATH": str(build)}
    done = subprocess.run(command, env=environment, check=True, capture_output=True, text=True)
    found: dict[str, float] = json.loads(done.stdout.splitlines()[-1])
    return found


def show(case: str, builds: dict[str, Path], mnist: Path | None, rounds: int) -> None:
    """Medians of a case by build."""
    seconds: dict[str, list[float]] = {}
    for _ in range(rounds):
        for build, path in builds.items():
            for name, value in measure(case, path, mnist).items():
                # What is no model of skae is measured once in each process, for a fair share.
                key = name.replace("skae", build) if name.startswith("skae") else name
                seconds.setdefault(key, []).append(value)
    medians = {name: float(np.median(values)) for name, values in seconds.items()}
    base = next((name for name in medians if name.startswith("by hand")), "this build")
    for name, median in sorted(medians.items(), key=lambda item: item[1]):
        spread = f"{min(seconds[name]):.3f} to {max(seconds[name]):.3f}"
        print(f"  {name:24} {median:8.3f} s ({spread})   {median / medians[base]:6.2f} x {base}")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--mnist", type=Path, help=".npz with X_train and X_test")
    parser.add_argument("--old", type=Path, help="a checkout of an earlier build")
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--busy", type=int, default=0, help="processes that compute beside it")
    parser.add_argument("--cases", nargs="*", default=list(CASES), choices=list(CASES))
    parser.add_argument("--measure", help=argparse.SUPPRESS)
    args = parser.parse_args()
    warnings.simplefilter("ignore")
    if args.measure:
        print(json.dumps(CASES[args.measure](args.mnist)))
        return
    builds = {"this build": HERE.parents[1]}
    if args.old is not None:
        builds["the earlier one"] = args.old.resolve()
    print(describe_machine("torch", "skorch"), f"{args.busy} busy processes beside it")
    with busy_processes(args.busy):
        for case in args.cases:
            if case in NEED_MNIST and args.mnist is None:
                continue
            print(f"\n{case}", flush=True)
            show(case, builds, args.mnist, args.rounds)


if __name__ == "__main__":
    main()
