"""LinearAE and PPCA beside scikit-learn's PCA: reconstruction error, time and memory of fit.

    python benchmarks/pca_fit.py --mnist mnist.npz

Without `--mnist` the digits come from `sklearn.datasets.fetch_openml`. Times are medians
of alternating fits with 32 components; memory is what a fit adds to the peak of a process
that holds the data. "error" of PCA and LinearAE is against an exact eigendecomposition in
float64: the largest relative error among the 32 variances.

Measured figures: docs/benchmarks.md.
"""

import argparse
from functools import partial
from pathlib import Path

import numpy as np
from _common import alternate, describe_machine, load_mnist, peak_extra_memory
from sklearn.decomposition import PCA

from skae import PPCA, LinearAE

MODELS = {"PCA": PCA, "LinearAE": LinearAE, "PPCA": PPCA}


def random_rows(n_samples: int, n_features: int) -> np.ndarray:
    """Rows whose spectrum falls as 1 / sqrt(j), as that of natural data does, off-centre."""
    rng = np.random.default_rng(0)
    scales = np.arange(1, n_features + 1) ** -0.5
    rows = rng.standard_normal((n_samples, n_features), dtype=np.float32)
    rows *= scales.astype(np.float32)
    return rows.astype(np.float64) + 0.5


def exact_variances(X: np.ndarray) -> np.ndarray:
    centred = X.astype(np.float64) - X.mean(axis=0, dtype=np.float64)
    products = centred.T @ centred if len(X) >= X.shape[1] else centred @ centred.T
    return np.linalg.eigvalsh(products)[::-1][:32] / (len(X) - 1)


def fit(model: type, X: np.ndarray) -> PCA:
    return model(32, random_state=0).fit(X)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--mnist", type=Path, help="an .npz file with X_train and X_test")
    parser.add_argument("--repeats", type=int, default=5)
    options = parser.parse_args()
    print(describe_machine())

    train, test = load_mnist(options.mnist)
    for name, model in {"PCA": PCA(30), "LinearAE": LinearAE(30), "PPCA": PPCA(30)}.items():
        model.fit(train)
        decoded = model.inverse_transform(model.transform(test))
        print(f"MNIST, 30 codes, {name}: {np.sum((test - decoded) ** 2, axis=1).mean():.4f}")

    data = {
        "MNIST 60000 x 784": lambda: train,
        "1000000 x 100": lambda: random_rows(1_000_000, 100),
        "2000 x 20000": lambda: random_rows(2_000, 20_000),
        "500 x 500": lambda: random_rows(500, 500),
    }
    print(
        f"{'data':18s} {'dtype':8s} {'model':9s} {'s':>7s} {'ratio':>6s} {'MB':>6s} {'error':>8s}"
    )
    for title, make in data.items():
        rows = make()
        for dtype in (np.float32, np.float64):
            X = rows.astype(dtype)
            exact = exact_variances(X)
            seconds = alternate(
                {name: partial(fit, model, X) for name, model in MODELS.items()},
                options.repeats * (10 if X.size < 10**6 else 1),
            )
            for name, model in MODELS.items():
                memory = peak_extra_memory(partial(fit, model, X))
                found = fit(model, X).explained_variance_
                error = np.max(np.abs(found / exact - 1))
                print(
                    f"{title:18s} {np.dtype(dtype)!s:8s} {name:9s} {seconds[name]:7.3f} "
                    f"{seconds[name] / seconds['PCA']:6.2f} {memory:6.0f} {error:8.1e}",
                    flush=True,
                )


if __name__ == "__main__":
    main()
