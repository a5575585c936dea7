"""How an encoder reads rows of counts."""

from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from skae._training.contexts import is_exporting

# Smallest total for its logarithm; rows without counts get it.
LEAST_TOTAL = 0.1
# Smallest share of the observed features of a row in the mean row.
_LEAST_SHARE = 1e-6


class CountReading:
    """Reads counts x as log(1 + x), after the totals of rows have been made equal.

    Without the logarithm, a few bright rows would have codes far from all others. Missing values
    stay NaN.

    Parameters
    ----------
    total : float or None
        Total to which rows are scaled; None leaves them as they are.
    share : ndarray of shape (n_features,)
        Share of every feature in the mean row.
    spread : float, default=None
        Standard deviation of the logarithms of totals, if the encoder also reads this logarithm in
        standardised form: codes of rows with many counts are known more exactly.
    """

    def __init__(
        self, total: float | None, share: NDArray[Any], spread: float | None = None
    ) -> None:
        self.total, self.share, self.spread = total, share.astype(np.float32), spread

    def __call__(self, rows: Tensor) -> Tensor:
        """Return what the encoder reads before standardisation, as float32."""
        return self.read(rows)[0]

    def read(self, rows: Tensor) -> tuple[Tensor, Tensor | None]:
        """Return what the encoder reads, and the standardised logarithms of totals, if it does."""
        rows = rows.float().clamp(min=0.0)
        if self.total is None:
            return rows.log1p_(), None
        found = totals(rows, self.share)
        read = rows.mul_(self.total / found.clamp(min=1e-30)).log1p_()
        if self.spread is None:
            return read, None
        return read, (found.clamp(min=LEAST_TOTAL) / self.total).log() / self.spread

    def __eq__(self, other: object) -> bool:
        return isinstance(other, CountReading) and self._key() == other._key()

    def __hash__(self) -> int:
        return hash(self._key())

    def _key(self) -> tuple[Any, ...]:
        return self.total, self.spread, self.share.tobytes()


def totals(rows: Tensor, share: NDArray[Any]) -> Tensor:
    """Return the totals of rows, (n_rows, 1).

    With missing values, it is the sum of the observed values divided by their share in the mean
    row.
    """
    found = rows.sum(1, keepdim=True)
    if not is_exporting() and bool(found.isfinite().all()):
        return found  # no value is missing
    missing = rows.isnan()
    lost = missing.to(rows) @ torch.as_tensor(share).to(rows)[:, None]
    return rows.nansum(1, keepdim=True) / (1 - lost).clamp(min=_LEAST_SHARE)
