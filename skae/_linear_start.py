"""The linear model that networks of encoder and decoder begin as."""

import warnings
from typing import Any

import numpy as np
from numpy.typing import NDArray

from skae._modules.linear_start import PrincipalModel
from skae._ppca import PPCA
from skae._training.data import Data, spread_of

Array = NDArray[Any]

# Up to so many rows and columns, the axes are eigenvectors; beyond, power iterations find them.
_CLOSED_FORM_LIMIT = 2_000
# How much the model is learned from: values that have to be copied first, and products in a step
# of EM, where each value of a row with holes costs the square of the size.
_MOST_VALUES, _MOST_PRODUCTS = 2**26, 2**31


def principal_model(
    data: Data, train: NDArray[np.intp], n_components: int, *, any_missing: bool, seed: int
) -> PrincipalModel | None:
    """PPCA of some of the rows, as `PPCA.fit` finds it; None where nothing varies."""
    row_cost = data.X.shape[1] * n_components**2 if any_missing else 0
    X, weight = _rows(data, train, min(_MOST_PRODUCTS // max(1, row_cost), _MOST_VALUES))
    most = min(X.shape[0] - 1, X.shape[1])
    n_components = min(n_components, most)
    if n_components < 1:
        return None
    spread = spread_of(X, weight)
    variances = spread.variance.numpy()
    if not variances.any():
        return None
    if weight is not None:
        weight = weight / weight.mean()
    solver = "auto" if spread.any_missing or min(X.shape) <= _CLOSED_FORM_LIMIT else "randomized"
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # of noise at its floor, and of EM that is cut short
        ppca = PPCA(n_components, solver=solver, random_state=seed)
        try:
            ppca.fit(X, sample_weight=weight)
        except ValueError:  # nothing varies, or values are out of range
            return None
    axes, loadings = (a.astype(np.float64) for a in (ppca.axes_, ppca.loadings_))
    along = np.square(loadings).sum(axis=0) + ppca.noise_variance_
    mean = ppca.mean_.astype(np.float64)
    explains_all = n_components == most
    return PrincipalModel(mean, axes, along, ppca.noise_variance_, variances, explains_all)


def _rows(data: Data, train: NDArray[np.intp], most: int) -> tuple[Array, Array | None]:
    """The rows of `train` and their weights; of more than can be, so many, evenly taken."""
    X, weight = data.X, data.weight
    copied = len(train) < len(X) or X.dtype.kind != "f"
    if copied:
        most = min(most, _MOST_VALUES // X.shape[1])
    step = -(-len(train) // max(most, 2))
    if not copied and step == 1:
        return X, weight
    chosen = train[::step]
    X = X[chosen] if X.dtype.kind == "f" else X[chosen].astype(np.float64)
    return X, None if weight is None else weight[chosen]
