"""In which units a density reads codes: those that vary, as real numbers, standardised; and back.

:doi:`10.1016/S0047-259X(03)00096-4` (Ledoit and Wolf 2004) is how far a covariance of few
rows is to be trusted.
"""

from typing import Any, NamedTuple, Self

import numpy as np
from numpy.typing import ArrayLike, NDArray
from sklearn.covariance import ledoit_wolf_shrinkage
from sklearn.utils import check_array

from skae._densities.code_supports import Limits, Support
from skae._training.data import chunks, spread_of
from skae._utils.inputs import as_numbers

Array = NDArray[Any]

# Rows from which the shrinkage of a covariance is estimated.
_SHRINKAGE_ROWS = 2**14
# How far codes that never varied may be from what they were.
_NEAR = 1e-5


class CodeUnits(NamedTuple):
    """Which codes vary, what they can be, and the values of the others.

    Where codes can be any numbers (`support` is None), those that vary are themselves the real
    numbers that are standardised.
    """

    varies: NDArray[np.bool_]  # (n_codes,)
    center: NDArray[np.float64]  # (n_free,), means of the real numbers
    scale: NDArray[np.float64]  # (n_free,), their standard deviations
    constant: NDArray[np.float64]  # (n_codes - n_varying,)
    dtype: str  # of codes
    support: Support | None = None  # of those that vary

    @classmethod
    def of(
        cls,
        codes: Array,
        weight: Array | None,
        limits: Limits = None,
        noise: np.random.RandomState | None = None,
    ) -> Self:
        """Those of codes (n, n_codes); where none varies, the first counts as if it did."""
        spread = spread_of(codes, weight)
        mean, std = spread.mean.numpy(), spread.variance.sqrt().numpy()
        size = np.maximum(spread.low.abs().numpy(), spread.high.abs().numpy())
        eps = float(np.finfo(codes.dtype).eps)
        varies = std > np.maximum(10 * eps * size, 1e-150)
        if not varies.any():  # something has to have a density
            varies[0], limits = True, None
            std[0] = 1e3 * max(eps * float(size[0]), 1e-150)
        units = cls(varies, mean[varies], std[varies], mean[~varies], codes.dtype.name)
        if limits is None:
            return units
        varying, k = codes[:, varies], int(varies.sum())
        if isinstance(limits, str):
            total = 1 - float(mean[~varies].sum())
            ends = np.zeros(k), np.full(k, total)
        else:
            total, ends = None, (limits[0][varies], limits[1][varies])
        units = units._replace(support=Support.of(varying, weight, *ends, std[varies], total))
        real = spread_of(units.real(codes, noise), weight)
        scale = np.maximum(real.variance.sqrt().numpy(), 1e-150)
        return units._replace(center=real.mean.numpy(), scale=scale)

    def state(self) -> dict[str, Any]:
        """As plain values."""
        support = None if self.support is None else self.support._asdict()
        return self._asdict() | {"support": support}

    @classmethod
    def of_state(cls, state: dict[str, Any]) -> Self:
        """As they were saved."""
        support = state["support"]
        return cls(**state | {"support": None if support is None else Support(**support)})

    @property
    def n_free(self) -> int:
        """How many real numbers a density is of: one for each code that varies; of a simplex,
        one less."""
        return len(self.center)

    def log_volume(self) -> float:
        """log |d real / d standardised|, by which log densities differ."""
        return float(np.log(self.scale).sum())

    def stds(self) -> NDArray[np.float64]:
        """Standard deviations of all codes that can be any numbers; 0 of those that never
        varied."""
        std = np.zeros(len(self.varies))
        std[self.varies] = self.scale
        return std

    def real(self, codes: Array, noise: np.random.RandomState | None = None) -> NDArray[np.float64]:
        """The real numbers (n, n_free) that codes are read as; see `Support`."""
        varying: NDArray[np.float64] = codes[:, self.varies].astype(np.float64)
        return varying if self.support is None else self.support.to_real(varying, noise)

    def standardised(
        self, codes: Array, noise: np.random.RandomState | None = None
    ) -> NDArray[np.float64]:
        """The real numbers of codes, each with mean 0 and variance 1 in training."""
        real = self.real(codes, noise)
        real -= self.center
        real /= self.scale
        return real

    def log_density(self, log_prob: NDArray[np.float64], codes: Array) -> NDArray[np.float64]:
        """log p(z) of codes whose real numbers have this; -inf outside of their support."""
        if self.support is None:
            return log_prob
        varying = codes[:, self.varies].astype(np.float64)
        inside = self.support.contains(varying)
        return np.where(inside, log_prob + self.support.log_slope(varying), -np.inf)

    def check_inside(self, codes: Array, name: str = "X") -> None:
        """Raise if some of the codes, or of the first of them, are out of the support."""
        if self.support is None:
            return
        inside = self.support.contains(codes[:, self.varies[: codes.shape[1]]])
        if not inside.all():
            raise ValueError(
                f"{name} has the codes {codes[~inside][0].tolist()}, which lie outside of their "
                "support: see support_."
            )

    def check_constant(self, codes: Array, name: str = "X") -> None:
        """Raise if codes that never varied are other than they were."""
        known = np.broadcast_to(self.constant, (len(codes), len(self.constant)))
        near = np.isclose(codes[:, ~self.varies], known, rtol=_NEAR, atol=0.0)
        if not near.all():
            row, column = np.argwhere(~near)[0]
            code = np.flatnonzero(~self.varies)[column]
            raise ValueError(
                f"{name} has {codes[row, code]:g} for code {code}, which was always "
                f"{self.constant[column]:g} when training began, and has no density. Fit anew."
            )

    def given(self, given: ArrayLike, n: int) -> NDArray[np.float64]:
        """The first of the real numbers of n rows, of which the first codes are given."""
        varies = self.varies
        codes = np.asarray(as_numbers(given, "given"))
        codes = codes[None] if codes.ndim == 1 else codes
        if codes.ndim != 2 or len(codes) not in (1, n) or not 0 < codes.shape[1] <= len(varies):
            raise ValueError(
                f"given has shape {np.shape(given)}; expected (n_given,) or (n_samples, n_given) "
                f"= ({n}, n_given) with at most {len(varies)} codes."
            )
        codes = check_array(codes, input_name="given", dtype=np.float64)
        k = codes.shape[1]
        padded = self.completed(np.zeros((n, int(varies.sum()))), np.float64)
        self.check_constant(np.hstack([codes, padded[: len(codes), k:]]), "given")
        self.check_inside(codes, "given")
        padded[:, :k] = codes
        # A number is read of its code, and of those before it.
        return self.real(padded)[:, : int(varies[:k].sum())]

    def restored(self, z: Array, dtype: Any = None) -> Array:
        """The codes of standardised real numbers."""
        return self.codes_of(z.astype(np.float64) * self.scale + self.center, dtype)

    def codes_of(self, real: Array, dtype: Any = None) -> Array:
        """The codes of real numbers."""
        return self.completed(real if self.support is None else self.support.from_real(real), dtype)

    def completed(self, varying: Array, dtype: Any = None) -> Array:
        """All codes, of those that vary; the others as they were."""
        codes = np.empty((len(varying), len(self.varies)))
        codes[:, ~self.varies] = self.constant
        codes[:, self.varies] = varying
        return codes.astype(dtype or self.dtype)


def shrunk_covariance(z: NDArray[np.float32], weight: Array | None) -> NDArray[np.float64]:
    """Covariance of standardised codes, shrunk to I as Ledoit and Wolf (2004) would."""
    n, k = z.shape
    covariance = np.zeros((k, k))
    weights = np.ones(n) if weight is None else weight / weight.mean()
    for rows in chunks(n, 8 * k):
        part = z[rows].astype(np.float64)
        covariance += (part.T * weights[rows]) @ part
    covariance /= n
    some = slice(None, None, -(-n // _SHRINKAGE_ROWS))
    rooted = z[some].astype(np.float64) * np.sqrt(weights[some])[:, None]
    shrinkage = (
        ledoit_wolf_shrinkage(rooted, assume_centered=True) * len(rooted) / n if k > 1 else 0.0
    )
    return (1 - shrinkage) * covariance + shrinkage * np.eye(k)
