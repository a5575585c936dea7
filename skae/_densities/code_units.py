"""Conversion of codes for a density: varying codes, as standardised real numbers.

The shrinkage of a covariance that is estimated from few rows is that of Ledoit and Wolf (2004),
:doi:`10.1016/S0047-259X(03)00096-4`.
"""

from typing import Any, NamedTuple, Self

import numpy as np
from numpy.typing import ArrayLike, NDArray
from sklearn.covariance import ledoit_wolf_shrinkage
from sklearn.utils import check_array

from skae._densities.code_supports import Limits, Support
from skae._training.data import chunks, spread_of
from skae._utils.inputs import as_numbers, naming

Array = NDArray[Any]

# Largest number of rows from which the shrinkage of a covariance is estimated.
_SHRINKAGE_ROWS = 2**14
# Tolerance for codes that never varied in training.
_NEAR = 1e-5


class CodeUnits(NamedTuple):
    """The codes that vary, their support, and the values of the others.

    If codes may be any numbers (`support` is None), the varying codes themselves are the real
    numbers, which are standardised.
    """

    varies: NDArray[np.bool_]  # (n_codes,)
    center: NDArray[np.float64]  # (n_free,), means of the real numbers
    scale: NDArray[np.float64]  # (n_free,), their standard deviations
    constant: NDArray[np.float64]  # (n_codes - n_varying,)
    dtype: str  # of codes
    support: Support | None = None  # of the codes that vary

    @classmethod
    def of(
        cls,
        codes: Array,
        weight: Array | None,
        limits: Limits = None,
        noise: np.random.RandomState | None = None,
    ) -> Self:
        """Return the units of codes (n, n_codes); at least the first code counts as varying."""
        spread = spread_of(codes, weight)
        mean, std = spread.mean.numpy(), spread.variance.sqrt().numpy()
        size = np.maximum(spread.low.abs().numpy(), spread.high.abs().numpy())
        eps = float(np.finfo(codes.dtype).eps)
        varies = std > np.maximum(10 * eps * size, 1e-150)
        if not varies.any():  # a density needs at least one code
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
        """Return plain values for saving."""
        support = None if self.support is None else self.support._asdict()
        return self._asdict() | {"support": support}

    @classmethod
    def of_state(cls, state: dict[str, Any]) -> Self:
        """Restore from saved values."""
        support = state["support"]
        return cls(**state | {"support": None if support is None else Support(**support)})

    @property
    def n_free(self) -> int:
        """Number of real numbers of the density.

        There is one for each code that varies, and one less for a simplex.
        """
        return len(self.center)

    def log_volume(self) -> float:
        """log |d real / d standardised|, the difference of the log densities."""
        return float(np.log(self.scale).sum())

    def stds(self) -> NDArray[np.float64]:
        """Return standard deviations of all codes; 0 for codes that never varied.

        They exist only for codes that may be any numbers.
        """
        std = np.zeros(len(self.varies))
        std[self.varies] = self.scale
        return std

    def real(self, codes: Array, noise: np.random.RandomState | None = None) -> NDArray[np.float64]:
        """Return the real numbers (n, n_free) that represent codes; see `Support`."""
        varying: NDArray[np.float64] = codes[:, self.varies].astype(np.float64)
        return varying if self.support is None else self.support.to_real(varying, noise)

    def standardised(
        self, codes: Array, noise: np.random.RandomState | None = None
    ) -> NDArray[np.float64]:
        """Return the real numbers of codes, with mean 0 and variance 1 over the training rows."""
        real = self.real(codes, noise)
        real -= self.center
        real /= self.scale
        return real

    def log_density(self, log_prob: NDArray[np.float64], codes: Array) -> NDArray[np.float64]:
        """Return log p(z) of codes from that of their real numbers; -inf outside of the support."""
        if self.support is None:
            return log_prob
        varying = codes[:, self.varies].astype(np.float64)
        inside = self.support.contains(varying)
        return np.where(inside, log_prob + self.support.log_slope(varying), -np.inf)

    def check_inside(self, codes: Array, name: str = "X") -> None:
        """Raise if codes are outside of the support; last codes may be missing."""
        if self.support is None:
            return
        inside = self.support.contains(codes[:, self.varies[: codes.shape[1]]])
        if not inside.all():
            raise ValueError(
                f"{name} has the codes {codes[~inside][0].tolist()}, which are outside of their "
                "support. The attribute support_ says which codes are allowed."
            )

    def check_number(self, codes: Array) -> None:
        """Raise if the autoencoder has another number of codes than in training."""
        if codes.shape[1] != len(self.varies):
            raise ValueError(
                f"The autoencoder has {codes.shape[1]} codes, but the density was trained on "
                f"{len(self.varies)} codes. Set warm_start=False and call fit."
            )

    def check_constant(self, codes: Array, name: str = "X") -> None:
        """Raise if codes that never varied in training have other values."""
        known = np.broadcast_to(self.constant, (len(codes), len(self.constant)))
        near = np.isclose(codes[:, ~self.varies], known, rtol=_NEAR, atol=0.0)
        if not near.all():
            row, column = np.argwhere(~near)[0]
            code = np.flatnonzero(~self.varies)[column]
            raise ValueError(
                f"{name} has {codes[row, code]:g} for code {code}, which was "
                f"{self.constant[column]:g} in all training rows, so that other values have no "
                "density. Fit the estimator anew with rows in which the code varies."
            )

    def given(self, given: ArrayLike, n: int) -> NDArray[np.float64]:
        """Return the first real numbers of n rows, which the first codes determine."""
        varies = self.varies
        codes = np.asarray(as_numbers(given, "given"))
        codes = codes[None] if codes.ndim == 1 else codes
        if codes.ndim != 2 or len(codes) not in (1, n) or not 0 < codes.shape[1] <= len(varies):
            raise ValueError(
                f"given has shape {np.shape(given)}; expected (n_given,) or (n_samples, n_given) "
                f"= ({n}, n_given) with at most {len(varies)} codes."
            )
        with naming("given"):
            codes = check_array(codes, input_name="given", dtype=np.float64)
        k = codes.shape[1]
        padded = self.completed(np.zeros((n, int(varies.sum()))), np.float64)
        self.check_constant(np.hstack([codes, padded[: len(codes), k:]]), "given")
        self.check_inside(codes, "given")
        padded[:, :k] = codes
        # A real number depends on its code, and on the codes before it.
        return self.real(padded)[:, : int(varies[:k].sum())]

    def restored(self, z: Array, dtype: Any = None) -> Array:
        """Return the codes of standardised real numbers."""
        return self.codes_of(z.astype(np.float64) * self.scale + self.center, dtype)

    def codes_of(self, real: Array, dtype: Any = None) -> Array:
        """Return the codes of real numbers."""
        return self.completed(real if self.support is None else self.support.from_real(real), dtype)

    def completed(self, varying: Array, dtype: Any = None) -> Array:
        """Return all codes, given those that vary."""
        codes = np.empty((len(varying), len(self.varies)))
        codes[:, ~self.varies] = self.constant
        codes[:, self.varies] = varying
        return codes.astype(dtype or self.dtype)


def shrunk_covariance(z: NDArray[np.float32], weight: Array | None) -> NDArray[np.float64]:
    """Return the covariance of standardised codes, shrunk as by Ledoit and Wolf (2004)."""
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


def check_not_all_equal(codes: Array) -> None:
    """Raise if the codes of the first batch of a stream have no scale."""
    if np.ptp(codes, axis=0).max() == 0:
        raise ValueError(
            f"The codes of the {len(codes)} rows of X in the first batch are all equal, but the "
            "first batch determines the scale of the codes. Give two or more different rows."
        )
