"""Rules for the number of codes of a network, as in PCA: all, or a share of the variance."""

from numbers import Integral, Real
from typing import Any, Self

import numpy as np
import torch
from numpy.typing import NDArray
from torch import nn

from skae._count_rows import count_reading
from skae._encoder_decoder import EncoderDecoder
from skae._linear.latent_size import by_variance_fraction
from skae._linear.pca import is_count
from skae._linear.spectrum import Variances, principal_variances
from skae._modules.scales import scale_of
from skae._training.columns import Columns
from skae._training.data import Reading, some_of, spread_of
from skae._training.threads import blas_threads_for
from skae._utils.sparse_rows import Rows, dense
from skae._utils.validation import Interval

Array = NDArray[Any]

# If there are more rows and more columns, this number of random rows is used. The decomposition
# then takes at most about as long as some epochs of training.
_MOST = 4096


# Constraints of the parameter to which the rules belong.
LATENT_SIZE_CONSTRAINTS: dict[str, list[Any]] = {
    "n_components": [
        Interval(Integral, 1, None, closed="left"),
        Interval(Real, 0, 1, closed="neither"),
        None,
    ],
}


class LatentSizeMixin(EncoderDecoder):
    """Rules that choose `n_components_`, for networks whose `n_components` need not be a number."""

    # The rule, or the number, that the first fit had. It may not change when training continues.
    _size_rule: float | None

    def _n_latents(self) -> int:
        return int(self.n_components) if is_count(self.n_components) else self.n_components_

    def _choose_latent_size(self, X: Rows, sample_weight: Array | None) -> None:
        rule = self.n_components
        if isinstance(rule, bool):
            raise ValueError(
                f"n_components={rule} must be a positive integer, a float between 0 and 1 or None, "
                "not a boolean."
            )
        self._size_rule = None if rule is None else float(rule)
        if is_count(rule):
            return
        for name in ("encoder", "decoder"):
            if isinstance(getattr(self, name), nn.Module):
                raise ValueError(
                    f"n_components={rule} chooses the number of codes by the rows, but your own "
                    f"{name} is a module for a fixed number. Set n_components to this number, or "
                    f"set {name} to a function of two numbers, (n_features_in, n_components), that "
                    "returns a module."
                )
        columns = self._columns()
        if rule is None:
            n_columns = X.shape[1] if columns is None else columns.width
            self.n_components_ = min(len(X), n_columns)
        else:
            reading: Reading | None = None if columns is None else columns.as_read
            if self._has_counts() and not self._has_own_networks():
                reading = count_reading(X, sample_weight, self.size_factor)
            found = _variances(X, sample_weight, columns, reading, rule)
            self.n_components_ = by_variance_fraction(found.along_axes, float(rule), found.total)

    def _go_on_from(self, previous: Self, X: Rows) -> None:
        """As in the base class; the rows of the first fit have chosen the number of codes."""
        rule, before = self.n_components, getattr(previous, "_size_rule", previous.n_components_)
        if not is_count(rule):
            if rule != before:
                raise ValueError(
                    f"n_components={rule} cannot change when training continues: it was "
                    f"{before if before is None or before < 1 else int(before)}. Set "
                    "warm_start=False and call fit."
                )
            self.n_components_ = previous.n_components_
        self._size_rule = before
        super()._go_on_from(previous, X)


def _variances(
    X: Rows,
    sample_weight: Array | None,
    columns: Columns | None,
    reading: Reading | None,
    share: float,
) -> Variances:
    """Variances along the principal axes of the rows; of a table as the encoder reads it."""
    n_columns = X.shape[1] if columns is None else columns.width
    if min(len(X), n_columns) > _MOST:
        index = some_of(len(X), _MOST, seed=0).numpy()
        X, sample_weight = X[index], None if sample_weight is None else sample_weight[index]
    spread = spread_of(X, sample_weight, columns, reading)
    if spread.any_missing and n_columns > _MOST:
        raise ValueError(
            f"n_components={share} needs the covariances of all columns if X has missing values, "
            f"and is then limited to {_MOST} columns; got {n_columns}. Set n_components to an "
            "integer."
        )
    center, scale = spread.mean.numpy(), scale_of(spread, X.dtype, columns)

    def read(rows: slice, some: slice) -> NDArray[np.float64]:
        if reading is None:
            return (dense(X[rows, some]).astype(np.float64) - center[some]) / scale
        wide = torch.from_numpy(dense(X[rows]).astype(np.float64))
        wide = reading(wide if columns is None else columns.expand(wide))
        found: NDArray[np.float64] = (wide.double().numpy() - center) / scale
        return found[:, some]

    shape = (len(X), n_columns)
    with blas_threads_for(len(X) * n_columns * min(shape)):
        return principal_variances(read, shape, sample_weight, any_missing=spread.any_missing)
