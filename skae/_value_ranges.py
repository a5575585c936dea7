"""Which values rows may have: the support of the likelihood, and the range of float32."""

from __future__ import annotations

from math import inf
from typing import Any

import torch
from numpy.typing import NDArray
from torch import Tensor

from skae._mixed_rows import MixedRowsMixin
from skae._nn.likelihoods import LIKELIHOODS
from skae._nn.mixed import SUPPORTS
from skae._training.data import Spread
from skae._training.sources import source_of
from skae._training.trainer import slices
from skae._utils.sparse_rows import Rows, SparseRows

Array = NDArray[Any]

# Largest absolute value of rows that are not standardised.
_LARGEST = 1e15
# Types whose minima and maxima are computed without a conversion.
_ORDERED = (
    *(torch.uint8, torch.int8, torch.int16, torch.int32, torch.int64),
    *(torch.float32, torch.float64),
)


class ValueRangesMixin(MixedRowsMixin):
    """Checks of values against the likelihood and the networks of a model."""

    _architecture: Any

    def _check_support(self, low: Tensor, high: Tensor) -> None:
        """Raise if a column, with these minima and maxima, has values that are not allowed."""
        kinds = self._architecture.kinds
        if kinds:
            name, supports = "likelihood", [SUPPORTS[kind] for kind in kinds]
        else:
            name, support = self._support()
            supports = [support] * len(low)
        least, most = torch.tensor(supports).T
        wrong = ((low < least) | (high > most)).nonzero()
        if len(wrong):
            column = int(wrong[0])
            names = getattr(self, "feature_names_in_", None)
            which = f"column {column}" if names is None else f"column {names[column]!r}"
            value = kinds[column] if kinds else getattr(self._architecture, name)
            chosen = ""
            if kinds and self.likelihood == "auto":
                chosen = (
                    " likelihood='auto' chose it by the values in fit. To choose another, set "
                    "likelihood to a mapping, such as likelihoods_ with this column changed."
                )
            raise ValueError(
                f"{name}={value!r} allows values in [{least[column]:g}, {most[column]:g}]; {which} "
                f"of X has values from {float(low[column]):g} to {float(high[column]):g}.{chosen}"
            )

    def _check_size(self, spread: Spread) -> None:
        """Raise if rows that are not standardised are too large to be squared in float32."""
        size = float(torch.maximum(spread.low.abs(), spread.high.abs()).max())
        if self._architecture.units.targets is None and size > _LARGEST:
            raise ValueError(
                f"X has absolute values up to {size:g}; at most {_LARGEST:g} is allowed with your "
                "own networks, an out_activation and likelihoods of counts, for which rows are not "
                "standardised. Rescale X, for example with sklearn.preprocessing.StandardScaler, "
                "or divide counts by a number."
            )

    def _support(self, as_targets: bool = True) -> tuple[str, tuple[float, float]]:
        """The parameter that limits the values of rows, and the limits.

        With `as_targets`, the limits are those of training rows, which the decoder must be able to
        return.
        """
        return "likelihood", LIKELIHOODS[self._architecture.likelihood].support

    def _check_range(self, X: Rows, as_targets: bool = False) -> None:
        """Raise for values that the likelihood cannot score or the decoder cannot return."""
        kinds = self._architecture.kinds
        supports = {SUPPORTS[k] for k in kinds} if kinds else {self._support(as_targets)[1]}
        if supports == {(-inf, inf)}:
            return
        if isinstance(X, SparseRows):
            self._check_support(*map(torch.from_numpy, X.range_of_columns()))
            return
        source = source_of(X)
        low = torch.full((X.shape[1],), torch.inf, dtype=torch.float64)
        high = -low
        for part in slices(len(source)):
            least, most = _range_of_columns(source[part])
            low, high = torch.minimum(low, least), torch.maximum(high, most)
        self._check_support(low, high)


def _range_of_columns(values: Tensor) -> tuple[Tensor, Tensor]:
    """Return minima and maxima of the observed values of the columns, in float64.

    They are computed in the type of the values if that is possible, because a conversion of all
    values would take many times as long.
    """
    if values.dtype not in _ORDERED:
        values = values.double()
    low, high = values.amin(0).double(), values.amax(0).double()
    if low.isnan().any():
        values = values.double()
        low = values.nan_to_num(torch.inf, torch.inf, -torch.inf).amin(0)
        high = values.nan_to_num(-torch.inf, torch.inf, -torch.inf).amax(0)
    return low, high
