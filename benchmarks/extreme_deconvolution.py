"""A mixture of rows with known noise (extreme deconvolution) beside XDGMM of astroML.

    OMP_NUM_THREADS=1 python benchmarks/extreme_deconvolution.py
    OMP_NUM_THREADS=1 python benchmarks/extreme_deconvolution.py --astroml path/to/python

Both run the same number of EM iterations on the same rows, from the same start, in one thread. Each
row has its own covariance of noise. astroML runs in an environment of its own, which needs a numpy
that it accepts; by default it is that of this script. Processes take turns, and seconds are medians
over all iterations.

An iteration of XDGMM.fit is a step of EM and the likelihood after it. "step" is the time of the
step alone. skae has the likelihood before a step without further computations.

Measured figures: docs/benchmarks.md.
"""

import argparse
import json
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

import numpy as np
from _common import describe_machine

# Rows, components, dimensions, and iterations in each turn.
SIZES = ((2_000, 10, 2, 20), (20_000, 10, 3, 5), (100_000, 20, 2, 2))


def write_data(path: Path, n: int, n_components: int, n_dims: int) -> None:
    """Rows of a mixture with noise that is half as large as the components on average."""
    rng = np.random.default_rng(0)

    def matrices(k: int) -> np.ndarray[Any, Any]:
        factor = rng.standard_normal((k, n_dims, n_dims))
        return factor @ factor.swapaxes(1, 2) / n_dims

    width = 10 * n_components ** (-1 / n_dims)
    truth = 0.2 * width**2 * (matrices(n_components) + 0.1 * np.eye(n_dims))
    noise = 0.1 * width**2 * matrices(n)
    means = rng.uniform(0, 10, (n_components, n_dims))
    component = rng.integers(0, n_components, n)
    factor = np.linalg.cholesky(truth[component] + noise)
    X = means[component] + (factor @ rng.standard_normal((n, n_dims, 1)))[:, :, 0]
    start = X[rng.permutation(n)[:n_components]]
    covariances = np.tile(np.cov(X.T) / n_components ** (2 / n_dims), (n_components, 1, 1))
    np.savez(path, X=X, noise=noise, means=start, covariances=covariances)


def run_skae(data: dict[str, Any], n_iter: int) -> dict[str, Any]:
    from skae._mixture.gaussians import Gaussians, Prior, maximise
    from skae._mixture.noisy_rows import NoisyRows

    X, means = data["X"], data["means"]
    k, n_dims = means.shape
    mixture = Gaussians(np.full(k, 1 / k), means, data["covariances"], "full")
    prior = Prior(0.0, means, np.ones_like(means), np.eye(n_dims))
    start = time.perf_counter()
    rows = NoisyRows(X, None, data["noise"], k, 1)
    rows.select_candidates(mixture)
    setup = time.perf_counter() - start
    seconds = []
    for _ in range(n_iter):
        start = time.perf_counter()
        mixture = maximise(rows.expect(mixture)[1], mixture, prior, 1e-12)
        seconds.append(time.perf_counter() - start)
    nats = float(rows.log_density(mixture).sum())
    return {"nats": nats, "setup": setup, "step": seconds, "fit": seconds}


def run_astroml(data: dict[str, Any], n_iter: int) -> dict[str, Any]:
    from astroML.density_estimation import XDGMM

    X, noise = data["X"], data["noise"]
    k = len(data["means"])
    model = XDGMM(k)
    model.alpha, model.mu, model.V = np.full(k, 1 / k), data["means"], data["covariances"]
    steps, whole = [], []
    for _ in range(n_iter):
        start = time.perf_counter()
        model._EMstep(X, noise)
        steps.append(time.perf_counter() - start)
        nats = float(model.logL(X, noise))
        whole.append(time.perf_counter() - start)
    return {"nats": nats, "setup": 0.0, "step": steps, "fit": whole}


def measure(package: str, path: Path, n_iter: int) -> None:
    with np.load(path) as file:
        data = dict(file)
    run = run_skae if package == "skae" else run_astroml
    print(json.dumps(run(data, n_iter)), flush=True)


def result_of(package: str, python: str, path: Path, n_iter: int) -> dict[str, Any]:
    command = [python, __file__, "--measure", package, "--data", str(path), "--n-iter", str(n_iter)]
    done = subprocess.run(command, stdout=subprocess.PIPE, text=True, check=False)
    if done.returncode:
        raise SystemExit(f"{package} failed; install it, or set --astroml.")
    found: dict[str, Any] = json.loads(done.stdout.splitlines()[-1])
    return found


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawTextHelpFormatter
    )
    parser.add_argument("--repeats", type=int, default=3, help="turns of each package")
    parser.add_argument("--sizes", type=int, nargs="+", default=list(range(len(SIZES))))
    parser.add_argument("--astroml", default=sys.executable, metavar="PYTHON")
    parser.add_argument("--measure", choices=["skae", "astroml"], help=argparse.SUPPRESS)
    parser.add_argument("--data", type=Path, help=argparse.SUPPRESS)
    parser.add_argument("--n-iter", type=int, help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.measure:
        measure(options.measure, options.data, options.n_iter)
        return
    print(describe_machine())
    print(
        f"{'rows':>7} {'K':>3} {'d':>2} {'iterations':>10}   {'skae, s':>9} {'setup, s':>9}"
        f" {'step, s':>9} {'fit, s':>9} {'ratio of steps':>15} {'difference':>11}"
    )
    with tempfile.TemporaryDirectory() as folder:
        for n, k, d, n_iter in [SIZES[i] for i in options.sizes]:
            path = Path(folder, "rows.npz")
            write_data(path, n, k, d)
            turns = [
                (
                    result_of("skae", sys.executable, path, n_iter),
                    result_of("astroml", options.astroml, path, n_iter),
                )
                for _ in range(options.repeats)
            ]
            own, peer = turns[0]
            apart = abs(own["nats"] / peer["nats"] - 1)
            ours = np.median([turn[0]["step"] for turn in turns])
            setup = np.median([turn[0]["setup"] for turn in turns])
            step, fit = (np.median([turn[1][name] for turn in turns]) for name in ("step", "fit"))
            print(
                f"{n:>7} {k:>3} {d:>2} {n_iter:>10}   {ours:>9.4f} {setup:>9.4f} {step:>9.3f}"
                f" {fit:>9.3f} {step / ours:>15.0f} {apart:>11.1e}",
                flush=True,
            )


if __name__ == "__main__":
    main()
