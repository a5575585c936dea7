"""LinearAE and PPCA on a Dask array beside the PCA of dask-ml.

    python benchmarks/dask_pca.py
    python benchmarks/dask_pca.py --dask-ml path/to/python  # of an environment with dask-ml

2,000,000 x 100 in 40 blocks, float64 and float32, 16 components, on a cluster of two worker
processes with one thread each, which hold the blocks in memory: seconds of a fit, and the errors
against the eigendecomposition of the covariance of all rows in float64. They are the largest
relative error of the variances, and the largest angle between the subspaces. dask-ml runs in an
environment of its own, on the same rows; by default it is that of this script. "randomized4" has
four power iterations, and "randomized" has none, which is the default of dask-ml.

Measured figures: docs/benchmarks.md.
"""

import argparse
import json
import subprocess
import sys
import time
from collections.abc import Callable
from typing import Any

import numpy as np
from _common import describe_machine
from scipy.linalg import subspace_angles

N_FEATURES, N_BLOCKS, N_COMPONENTS = 100, 40, 16

Array = np.ndarray[Any, Any]


def block_of_rows(i: int, n_rows: int, dtype: str) -> Array:
    """Rows of a Gaussian with a mean, and with variances 1/k along rotated axes."""
    rotation = np.linalg.qr(np.random.default_rng(0).standard_normal((N_FEATURES, N_FEATURES)))[0]
    scales = np.arange(1, N_FEATURES + 1) ** -0.5
    rows = np.random.default_rng([1, i]).standard_normal((n_rows, N_FEATURES)) * scales
    return (rows @ rotation + 0.5).astype(dtype)


def exact(n_rows: int, dtype: str) -> tuple[Array, Array]:
    """Variances and axes of all rows in float64, with the mean subtracted first."""

    def parts() -> Any:
        return (
            block_of_rows(i, n_rows // N_BLOCKS, dtype).astype(np.float64) for i in range(N_BLOCKS)
        )

    mean = sum(part.sum(axis=0) for part in parts()) / n_rows
    scatter = sum((part - mean).T @ (part - mean) for part in parts())
    values, vectors = np.linalg.eigh(scatter / (n_rows - 1))
    return values[::-1][:N_COMPONENTS], vectors[:, ::-1][:, :N_COMPONENTS]


def models_of(package: str) -> dict[str, Callable[[], Any]]:
    if package == "skae":
        from skae import PPCA, LinearAE

        return {
            "skae LinearAE": lambda: LinearAE(N_COMPONENTS),
            "skae PPCA": lambda: PPCA(N_COMPONENTS),
        }
    from dask_ml.decomposition import PCA

    # Without power iterations, which are the default, "randomized" is far from the axes.
    return {
        f"dask-ml {solver}{power or ''}": lambda solver=solver, power=power: PCA(
            N_COMPONENTS, svd_solver=solver, iterated_power=power, random_state=0
        )
        for solver, power in (("tsqr", 0), ("randomized", 0), ("randomized", 4))
    }


def measure(package: str, n_rows: int, repeats: int) -> None:
    """Print a line of JSON for each model."""
    import dask.array as da
    from dask.distributed import Client, LocalCluster, wait

    packages = ["dask", "distributed", *(["dask-ml"] if package == "dask-ml" else [])]
    print(json.dumps({"machine": describe_machine(*packages)}), flush=True)
    size = n_rows // N_BLOCKS
    cluster = LocalCluster(
        n_workers=2,
        threads_per_worker=1,
        processes=True,
        dashboard_address=None,
        memory_limit=0,
    )
    with cluster, Client(cluster):
        for dtype in ("float64", "float32"):
            X = da.arange(N_BLOCKS, chunks=1).map_blocks(
                lambda i, dtype=dtype: block_of_rows(int(i[0]), size, dtype),
                chunks=((size,) * N_BLOCKS, (N_FEATURES,)),
                new_axis=1,
                dtype=dtype,
                meta=np.empty((0, 0), dtype),
            )
            X = X.persist()
            wait(X)
            for name, make in models_of(package).items():
                make().fit(X[: 10 * size])  # loads packages on the workers
                seconds = []
                for _ in range(repeats):
                    start = time.perf_counter()
                    model = make().fit(X)
                    seconds.append(time.perf_counter() - start)
                axes = getattr(model, "axes_", model.components_)
                found = {
                    "name": name,
                    "dtype": dtype,
                    "seconds": seconds,
                    "variances": np.asarray(model.explained_variance_, np.float64).tolist(),
                    "axes": np.asarray(axes, np.float64).tolist(),
                }
                print(json.dumps(found), flush=True)


def results_of(package: str, python: str, n_rows: int, repeats: int) -> list[dict[str, Any]]:
    command = [python, __file__, "--measure", package, "--rows", str(n_rows)]
    done = subprocess.run(
        [*command, "--repeats", str(repeats)], stdout=subprocess.PIPE, text=True, check=False
    )
    if done.returncode:
        print(f"{package} failed (code {done.returncode}); install it, or set --dask-ml.")
    return [json.loads(line) for line in done.stdout.splitlines() if line.startswith("{")]


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawTextHelpFormatter
    )
    parser.add_argument("--rows", type=int, default=2_000_000)
    parser.add_argument("--repeats", type=int, default=3)
    parser.add_argument("--dask-ml", default=sys.executable, metavar="PYTHON")
    parser.add_argument("--measure", choices=["skae", "dask-ml"], help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.measure:
        measure(options.measure, options.rows, options.repeats)
        return
    print("python", " ".join(sys.argv))
    truth = {dtype: exact(options.rows, dtype) for dtype in ("float64", "float32")}
    print(f"{options.rows} x {N_FEATURES}, {N_BLOCKS} blocks, {N_COMPONENTS} components, 2 workers")
    for package, python in (("skae", sys.executable), ("dask-ml", options.dask_ml)):
        for found in results_of(package, python, options.rows, options.repeats):
            if "machine" in found:
                print(found["machine"])
                continue
            values, vectors = truth[found["dtype"]]
            error = np.max(np.abs(np.array(found["variances"]) / values - 1))
            angle = np.max(subspace_angles(np.array(found["axes"]).T, vectors))
            print(
                f"{found['name']:26s} {found['dtype']}  {np.median(found['seconds']):7.2f} s"
                f"  ({min(found['seconds']):.2f} to {max(found['seconds']):.2f})"
                f"  variances {error:.1e}  angle {angle:.1e}"
            )


if __name__ == "__main__":
    main()
