"""Imputation by PPCA with its prior, beside scikit-learn's imputers and PPCA without it."""

import numpy as np
import pytest
from sklearn.datasets import load_wine
from sklearn.experimental import enable_iterative_imputer  # noqa: F401  (an import switch)
from sklearn.impute import IterativeImputer, KNNImputer
from sklearn.preprocessing import StandardScaler

from skae import PPCA


@pytest.mark.filterwarnings("ignore::sklearn.exceptions.ConvergenceWarning")  # of ten rounds
def test_the_prior_completes_wine_better_than_neighbours_regressions_and_no_prior():
    X = load_wine().data
    scale = X.std(axis=0)
    errors = []
    for seed in range(3):
        holes = np.random.default_rng(seed).random(X.shape) < 0.3
        X_missing = np.where(holes, np.nan, X)
        scaler = StandardScaler().fit(X_missing)
        standardised = scaler.transform(X_missing)
        completed = [
            PPCA(loadings_prior="ard", random_state=0).fit(X_missing).impute(X_missing),
            PPCA(random_state=0).fit(X_missing).impute(X_missing),
            scaler.inverse_transform(KNNImputer().fit_transform(standardised)),
            scaler.inverse_transform(IterativeImputer(random_state=0).fit_transform(standardised)),
        ]
        errors.append([np.sqrt(np.mean(((Y - X) / scale)[holes] ** 2)) for Y in completed])
    ard, *others = np.mean(errors, axis=0)
    assert ard < min(others)
