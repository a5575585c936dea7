"""The linear model from which encoder and decoder networks are initialised."""

import warnings
from typing import Any, Literal

import numpy as np
import torch
from numpy.typing import NDArray

from skae._modules.architecture import Architecture
from skae._modules.linear_start import PrincipalModel
from skae._ppca import PPCA
from skae._training.data import Data, some_of, spread_of
from skae._training.threads import blas_threads_for
from skae._utils.sparse_rows import dense

Array = NDArray[Any]

# With at most this many rows or columns, PPCA uses eigenvectors; otherwise power iterations.
_CLOSED_FORM_LIMIT = 2_000
# Limits on the rows from which the linear model is learned: number of values, which are copied to
# float64; number of products for the covariance, n_rows * n_features**2, which always allows _ROWS
# rows; and number of products in a step of EM, n_rows * n_features * n_components**2.
_MOST_VALUES, _MOST_PRODUCTS, _ROWS, _MOST_PRODUCTS_OF_EM = 2**24, 2**32, 4096, 2**31
# Smallest mean variance in the units of the network. It is 1 for all rows, unless their variance is
# only rounding.
_LEAST_VARIANCE = 1e-3


def principal_model(
    data: Data,
    train: NDArray[np.intp],
    n_components: int,
    architecture: Architecture,
    *,
    seed: int,
) -> PrincipalModel | None:
    """Fit PPCA to training rows in the units of the network; None if all rows are equal.

    If there are too many rows, a random subset is used.
    """
    n_features, any_missing = architecture.n_features, architecture.with_mask
    most = min(_MOST_VALUES // n_features, max(_MOST_PRODUCTS // n_features**2, _ROWS))
    if any_missing:
        most = min(most, _MOST_PRODUCTS_OF_EM // (n_features * n_components**2))
    chosen = train[some_of(len(train), max(most, 2), seed).numpy()]
    X = dense(data.X[chosen]).astype(np.float64)
    if architecture.reading is not None:
        wide = torch.from_numpy(X)
        wide = wide if architecture.columns is None else architecture.columns.expand(wide)
        X = architecture.reading(wide).double().numpy()
    X -= architecture.center
    X /= architecture.scale
    weight = None if data.weight is None else data.weight[chosen] / data.weight[chosen].mean()
    largest = min(len(X) - 1, n_features)
    n_components = min(n_components, largest)
    variances = spread_of(X, weight).variance.numpy()
    if n_components < 1 or variances.mean() < _LEAST_VARIANCE:
        return None
    solver: Literal["auto", "randomized"] = (
        "auto" if any_missing or min(X.shape) <= _CLOSED_FORM_LIMIT else "randomized"
    )
    with warnings.catch_warnings(), blas_threads_for(X.size * n_features):
        warnings.simplefilter("ignore")  # noise at its minimum, EM without convergence
        ppca = PPCA(n_components, solver=solver, random_state=seed)
        try:
            ppca.fit(X, sample_weight=weight)
        except ValueError:  # a column without observed values in these rows
            return None
    return PrincipalModel(
        ppca.mean_,
        ppca.axes_,
        np.square(ppca.loadings_).sum(axis=0) + ppca.noise_variance_,
        ppca.noise_variance_,
        variances,
        explains_all=n_components == largest,
    )
