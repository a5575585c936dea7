"""Factor analysis beside scikit-learn's FactorAnalysis: time of fit and log-likelihood.

    python benchmarks/factor_analysis.py

The rows are 20,000 x 200, from a factor model with 10 factors and noise variances from 0.01 to 10.
Times are medians of alternating fits. "nats" is the mean log-likelihood of the rows under the
fitted model, and "short of" is its distance from the largest of all, in nats for all rows together.

Measured figures: docs/benchmarks.md.
"""

import argparse
from collections.abc import Callable
from functools import partial

import numpy as np
from _common import alternate, describe_machine
from sklearn.decomposition import FactorAnalysis

from skae._linear.factor_analysis import fit_factors
from skae._linear.moments import moments

N_FACTORS = 10


def rows_of_factors(n_samples: int, n_features: int, seed: int) -> np.ndarray:
    rng = np.random.default_rng(seed)
    noise = np.geomspace(0.01, 10, n_features)[rng.permutation(n_features)]
    rows = rng.standard_normal((n_samples, N_FACTORS)) @ rng.standard_normal(
        (N_FACTORS, n_features)
    )
    rows += np.sqrt(noise) * rng.standard_normal(rows.shape)
    return rows + rng.standard_normal(n_features)


def fit_skae(X: np.ndarray) -> np.ndarray:
    stats = moments(X)
    covariance = stats.scatter / stats.n
    floor = np.finfo(float).eps * np.diagonal(covariance)
    run = fit_factors(covariance, N_FACTORS, floor=floor, tol=1e-5, max_iter=200)
    return run.loadings @ run.loadings.T + np.diag(run.noise_variance)


def fit_peer(X: np.ndarray, **options: object) -> np.ndarray:
    return FactorAnalysis(N_FACTORS, random_state=0, **options).fit(X).get_covariance()


def log_likelihood(X: np.ndarray, covariance: np.ndarray) -> float:
    """Mean over rows, in nats, with the mean of the rows."""
    scatter = np.cov(X.T, bias=True)
    log_det = np.linalg.slogdet(covariance).logabsdet + X.shape[1] * np.log(2 * np.pi)
    return -0.5 * float(log_det + np.trace(np.linalg.solve(covariance, scatter)))


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--repeats", type=int, default=5)
    options = parser.parse_args()
    print(describe_machine())

    fits: dict[str, Callable[[np.ndarray], np.ndarray]] = {
        "skae": fit_skae,
        "FactorAnalysis": fit_peer,
        "FactorAnalysis, lapack": partial(fit_peer, svd_method="lapack"),
        "FactorAnalysis, lapack, tol=1e-10": partial(fit_peer, svd_method="lapack", tol=1e-10),
    }
    X = rows_of_factors(20_000, 200, seed=0)
    nats = {name: log_likelihood(X, fit(X)) for name, fit in fits.items()}
    seconds = alternate({name: partial(fit, X) for name, fit in fits.items()}, options.repeats)
    print(f"{'model':34s} {'s':>7s} {'ratio':>6s} {'nats':>13s} {'short of':>9s}")
    for name in fits:
        print(
            f"{name:34s} {seconds[name]:7.3f} {seconds['skae'] / seconds[name]:6.2f} "
            f"{nats[name]:13.7f} {len(X) * (max(nats.values()) - nats[name]):9.1e}"
        )


if __name__ == "__main__":
    main()
