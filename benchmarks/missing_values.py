"""PPCA with missing values beside the `ppca` package and scikit-learn's IterativeImputer.

    pip install "skae[benchmarks]"
    python benchmarks/missing_values.py
    OMP_NUM_THREADS=1 python benchmarks/missing_values.py --large

Entries are removed completely at random; RMSE is over the removed entries. On the digits,
PPCA's size and number of EM steps are chosen on a twentieth of the entries that are seen,
held out for that; the time of the choice is given too.

With --large, PPCA alone is fitted to 1,000,000 rows of 100 features, each with holes of its own,
in float32 and in float64; the seconds of each phase are given. Each fit includes the time in which
Numba loads, unless another fit has loaded it.

Measured figures: docs/benchmarks.md.
"""

import argparse
import time
import warnings
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager

import numpy as np
from _common import describe_machine
from sklearn.datasets import load_digits
from sklearn.exceptions import ConvergenceWarning
from sklearn.experimental import enable_iterative_imputer  # noqa: F401  (an import switch)
from sklearn.impute import IterativeImputer

from skae import PPCA, _gaussian_learning
from skae._linear import incomplete_rows

warnings.simplefilter("ignore", ConvergenceWarning)  # IterativeImputer and few EM steps


def remove(X: np.ndarray, share: float, seed: int) -> np.ndarray:
    holes = np.random.default_rng(seed).random(X.shape) < share
    return np.where(holes & ~np.isnan(X), np.nan, X)


def rmse(filled: np.ndarray, X: np.ndarray, X_missing: np.ndarray) -> float:
    holes = np.isnan(X_missing) & ~np.isnan(X)
    return float(np.sqrt(np.mean((filled - X)[holes] ** 2)))


def low_rank_rows(n_samples: int, n_features: int, rank: int, seed: int) -> np.ndarray:
    rng = np.random.default_rng(seed)
    loadings = rng.standard_normal((n_features, rank))
    rows = rng.standard_normal((n_samples, rank)) @ loadings.T
    rows += 0.5 * rng.standard_normal(rows.shape) + rng.standard_normal(n_features)
    return rows


def peer_impute(X_missing: np.ndarray, n_components: int) -> np.ndarray:
    from ppca import PPCA as PeerPPCA  # --large does not need it

    model = PeerPPCA()
    model.fit(X_missing.copy(), d=n_components)
    return model.data * model.stds + model.means


def compare_with_ppca() -> None:
    print("20000 x 200, rank 10, 20 % missing, 10 components (medians of 3, alternating)")
    X = low_rank_rows(20_000, 200, 10, seed=0)
    X_missing = remove(X, 0.2, seed=1)
    times: dict[str, list[float]] = {"ppca": [], "skae": []}
    errors = {}
    for seed in range(3):
        np.random.seed(seed)  # noqa: NPY002  (the peer draws from the global generator)
        for name, run in (
            ("ppca", lambda: peer_impute(X_missing, 10)),
            ("skae", lambda: PPCA(10, random_state=0).fit(X_missing).impute(X_missing)),
        ):
            start = time.perf_counter()
            filled = run()
            times[name].append(time.perf_counter() - start)
            errors[name] = rmse(filled, X, X_missing)
    for name, seconds in times.items():
        print(f"  {name:6s} {np.median(seconds):6.2f} s, RMSE {errors[name]:.4f}")
    print(f"  ratio  {np.median(times['ppca']) / np.median(times['skae']):6.1f}")


def compare_with_iterative_imputer() -> None:
    print("digits, 20 % missing (5 masks)")
    X = load_digits().data
    figures: dict[str, list[tuple[float, float]]] = {}
    for seed in range(5):
        X_missing = remove(X, 0.2, seed=seed)

        start = time.perf_counter()
        filled = IterativeImputer(random_state=0).fit_transform(X_missing)
        figures.setdefault("IterativeImputer", []).append(
            (time.perf_counter() - start, rmse(filled, X, X_missing))
        )

        start = time.perf_counter()
        X_kept = remove(X_missing, 0.05, seed=seed + 100)
        choices = [(size, steps) for size in (16, 24, None) for steps in (2, 4, 8)]

        def held_out_error(choice, X_kept=X_kept, X_missing=X_missing):
            model = PPCA(choice[0], max_iter=choice[1], random_state=0).fit(X_kept)
            return rmse(model.impute(X_kept), X_missing, X_kept)

        size, steps = min(choices, key=held_out_error)
        chosen = time.perf_counter()
        model = PPCA(size, max_iter=steps, random_state=0).fit(X_missing)
        filled = model.impute(X_missing)
        end = time.perf_counter()
        error = rmse(filled, X, X_missing)
        print(f"  mask {seed}: chosen n_components={size}, max_iter={steps}")
        figures.setdefault("PPCA, chosen", []).append((end - chosen, error))
        figures.setdefault("PPCA, choice included", []).append((end - start, error))

        start = time.perf_counter()
        filled = PPCA(24, random_state=0).fit(X_missing).impute(X_missing)
        figures.setdefault("PPCA(24), to convergence", []).append(
            (time.perf_counter() - start, rmse(filled, X, X_missing))
        )
        filled = np.where(np.isnan(X_missing), np.nanmean(X_missing, axis=0), X_missing)
        figures.setdefault("column means", []).append((0.0, rmse(filled, X, X_missing)))
    for name, runs in figures.items():
        seconds, errors = np.array(runs).T
        print(
            f"  {name:26s} {np.median(seconds):6.2f} s, "
            f"RMSE {errors.mean():.3f} ± {errors.std():.3f}"
        )


def time_many_rows() -> None:
    print("1000000 x 100, rank 10, 10 % missing, 10 components, at most 5 steps of EM")
    rng = np.random.default_rng(1)
    loadings = rng.standard_normal((10, 100)).astype(np.float32)
    X = rng.standard_normal((1_000_000, 10), dtype=np.float32) @ loadings
    for part in np.split(X, 10):
        part += 0.5 * rng.standard_normal(part.shape, dtype=np.float32)
        part[rng.random(part.shape, dtype=np.float32) < 0.1] = np.nan
    for dtype in (np.float32, np.float64):
        seconds: Counter[str] = Counter()
        with phases_timed(seconds):
            wall, used = time.perf_counter(), time.process_time()
            model = PPCA(10, max_iter=5, random_state=0).fit(X.astype(dtype, copy=False))
            wall, used = time.perf_counter() - wall, time.process_time() - used
        parts = ", ".join(f"{name} {value:.2f}" for name, value in seconds.items())
        print(
            f"  {np.dtype(dtype).name}: {wall:.2f} s, {used:.2f} s of the processor ({parts}), "
            f"{len(model.log_likelihoods_)} likelihoods, last {model.log_likelihoods_[-1]:.5f}"
        )


@contextmanager
def phases_timed(seconds: Counter[str]) -> Iterator[None]:
    """Add the seconds of grouping, of the start and of all E-steps."""

    def timed(function, name):
        def run(*args, **options):
            start = time.perf_counter()
            result = function(*args, **options)
            seconds[name] += time.perf_counter() - start
            return result

        return run

    places = [
        (_gaussian_learning, "group_rows", "grouping"),
        (_gaussian_learning, "start_of", "start"),
        (incomplete_rows, "e_step", "E-steps"),
    ]
    before = [getattr(module, function) for module, function, _ in places]
    for module, function, name in places:
        setattr(module, function, timed(getattr(module, function), name))
    try:
        yield
    finally:
        for (module, function, _), plain in zip(places, before, strict=True):
            setattr(module, function, plain)


if __name__ == "__main__":
    parser = argparse.ArgumentParser()
    parser.add_argument("--large", action="store_true", help="1,000,000 rows, PPCA alone")
    print(describe_machine())
    if parser.parse_args().large:
        time_many_rows()
    else:
        compare_with_ppca()
        compare_with_iterative_imputer()
