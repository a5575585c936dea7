"""The linear model that networks of encoder and decoder begin as."""

import warnings
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from skae._modules.architecture import Architecture
from skae._modules.linear_start import PrincipalModel
from skae._ppca import PPCA
from skae._training.data import Data, some_of, spread_of
from skae._training.threads import blas_threads_for

Array = NDArray[Any]

# Up to so many rows and columns, the axes are eigenvectors; beyond, power iterations find them.
_CLOSED_FORM_LIMIT = 2_000
# How much the model is learned from: values, of which a float64 copy is made; products, of which
# the covariance takes the square of the features from each row, but these rows in any case; and
# products in a step of EM, where each value of a row with holes costs the square of the size.
_MOST_VALUES, _MOST_PRODUCTS, _ROWS, _MOST_PRODUCTS_OF_EM = 2**24, 2**32, 4096, 2**31
# The mean variance in the network's units, which is one unless rounding is all that varies.
_LEAST_VARIANCE = 1e-3


def principal_model(
    data: Data,
    train: NDArray[np.intp],
    n_components: int,
    architecture: Architecture,
    *,
    seed: int,
) -> PrincipalModel | None:
    """PPCA of rows, as `PPCA.fit` finds it, in the network's units; None where nothing varies.

    Of more rows than can be, so many are drawn at random.
    """
    n_features, any_missing = architecture.n_features, architecture.with_mask
    most = min(_MOST_VALUES // n_features, max(_MOST_PRODUCTS // n_features**2, _ROWS))
    if any_missing:
        most = min(most, _MOST_PRODUCTS_OF_EM // (n_features * n_components**2))
    chosen = train[some_of(len(train), max(most, 2), seed).numpy()]
    X = data.X[chosen].astype(np.float64)
    if architecture.columns is not None:
        columns = architecture.columns
        X = columns.as_read(columns.expand(torch.from_numpy(X))).numpy()
    X -= architecture.center
    X /= architecture.scale
    weight = None if data.weight is None else data.weight[chosen] / data.weight[chosen].mean()
    largest = min(len(X) - 1, n_features)
    n_components = min(n_components, largest)
    variances = spread_of(X, weight).variance.numpy()
    if n_components < 1 or variances.mean() < _LEAST_VARIANCE:
        return None
    solver = "auto" if any_missing or min(X.shape) <= _CLOSED_FORM_LIMIT else "randomized"
    with warnings.catch_warnings(), blas_threads_for(X.size * n_features):
        warnings.simplefilter("ignore")  # of noise at its floor, and of EM that is cut short
        ppca = PPCA(n_components, solver=solver, random_state=seed)
        try:
            ppca.fit(X, sample_weight=weight)
        except ValueError:  # a column of which these rows have no value
            return None
    return PrincipalModel(
        ppca.mean_,
        ppca.axes_,
        np.square(ppca.loadings_).sum(axis=0) + ppca.noise_variance_,
        ppca.noise_variance_,
        variances,
        explains_all=n_components == largest,
    )
