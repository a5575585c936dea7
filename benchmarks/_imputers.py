"""Imputers of benchmarks/imputation.py: each maps rows with NaN to completed rows.

Packages are imported where they are used, because fancyimpute needs an older scikit-learn than
skae does, and therefore an environment of its own.
"""

from collections.abc import Callable

import numpy as np

Array = np.ndarray
Imputer = Callable[[Array], Array]


def of_standardised(impute: Imputer) -> Imputer:
    """The imputer for columns standardised by their observed values; results are scaled back."""

    def imputed(X: Array) -> Array:
        mean, std = np.nanmean(X, axis=0), np.nanstd(X, axis=0)
        std[std == 0] = 1.0
        return impute((X - mean) / std) * std + mean

    return imputed


def column_means(X: Array) -> Array:
    return np.where(np.isnan(X), np.nanmean(X, axis=0), X)


@of_standardised
def knn(X: Array) -> Array:
    from sklearn.impute import KNNImputer

    return KNNImputer().fit_transform(X)


def iterative_imputer(**parameters: object) -> object:
    from sklearn.experimental import enable_iterative_imputer  # noqa: F401  (an import switch)
    from sklearn.impute import IterativeImputer

    return IterativeImputer(**parameters)


@of_standardised
def iterative(X: Array) -> Array:
    return iterative_imputer(random_state=0).fit_transform(X)


@of_standardised
def fancyimpute(X: Array) -> Array:
    from fancyimpute import SoftImpute

    return SoftImpute(verbose=False).fit_transform(X)


def ppca(X: Array, **parameters: object) -> Array:
    from skae import PPCA

    return PPCA(random_state=0, **parameters).fit(X).impute(X)


def ard(X: Array) -> Array:
    return ppca(X, loadings_prior="ard")


# ----------------------------------------------------------------------------- SoftImpute


def soft_thresholded(Y: Array, lam: float) -> Array:
    """S_lam(Y), (n, D): Y with lam subtracted from its singular values, at least 0 (lemma 1)."""
    squares, V = np.linalg.eigh(Y.T @ Y)
    d = np.sqrt(np.maximum(squares, np.finfo(float).tiny))
    return (Y @ V) * np.maximum(1 - lam / d, 0) @ V.T


def soft_imputed(X: Array, lam: float, Z: Array, tol: float = 1e-5, max_iter: int = 100) -> Array:
    """The matrix of smallest squared error / 2 + lam |Z|_* (algorithm 1, from the start Z)."""
    missing = np.isnan(X)
    for _ in range(max_iter):
        previous, Z = Z, soft_thresholded(np.where(missing, Z, X), lam)
        if np.sum((Z - previous) ** 2) <= tol * np.sum(previous**2):
            break
    return Z


def soft_path(X: Array, fractions: Array) -> list[Array]:
    """Solutions for falling lam, (n, D) each, every one the start of the next.

    A fraction is of the largest singular value of the observed entries, from which on Z = 0.
    """
    most = np.linalg.norm(np.nan_to_num(X), 2)
    path = [np.zeros_like(X)]
    for fraction in fractions:
        path.append(soft_imputed(X, fraction * most, path[-1]))
    return path[1:]


@of_standardised
def soft_impute(X: Array) -> Array:
    """SoftImpute, with lam chosen by the error on a tenth of the observed entries.

    R. Mazumder, T. Hastie and R. Tibshirani (2010). Spectral regularization algorithms for
    learning large incomplete matrices. JMLR 11, 2287-2322.
    """
    fractions = np.geomspace(1, 0.01, 30)
    # A generator of another kind than that of the masks, which would draw the same numbers.
    judged = (np.random.RandomState(0).random_sample(X.shape) < 0.1) & ~np.isnan(X)
    path = soft_path(np.where(judged, np.nan, X), fractions)
    errors = [np.sum((Z - X)[judged] ** 2) for Z in path]
    completed = soft_path(X, fractions[: int(np.argmin(errors)) + 1])[-1]
    return np.where(np.isnan(X), completed, X)


IMPUTERS: dict[str, Imputer] = {
    "column means": column_means,
    "KNNImputer": knn,
    "IterativeImputer": iterative,
    "SoftImpute": soft_impute,
    "fancyimpute": fancyimpute,
    "PPCA": ppca,
    "PPCA, ard": ard,
    "PPCA, ard, standardised": of_standardised(ard),
}


# ------------------------------------------------------------------------------- intervals


@of_standardised
def iterative_draws(X: Array, n_draws: int = 20) -> Array:
    """Completions by IterativeImputer with as many seeds, (n_draws, n, D)."""
    imputers = (
        iterative_imputer(sample_posterior=True, random_state=seed) for seed in range(n_draws)
    )
    return np.stack([imputer.fit_transform(X) for imputer in imputers])


def ard_draws(X: Array, n_draws: int = 100) -> Array:
    """Completions by one PPCA, (n_draws, n, D)."""
    from skae import PPCA

    model = PPCA(loadings_prior="ard", random_state=0).fit(X)
    return model.impute(X, n_draws=n_draws, random_state=0)


DRAWS: dict[str, Imputer] = {"IterativeImputer": iterative_draws, "PPCA, ard": ard_draws}
