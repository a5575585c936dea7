"""The support of codes, and the map between it and the real numbers.

Densities are densities of real numbers. Codes that have bounds, such as those of NMF, are mapped
from their support to all real numbers by a smooth function. Its derivative is part of the density,
so that log p(z) is a density on the support.

Codes on a bound have no real number. They are read as if they were within 0.03 standard deviations
of it: at random distances in training, and at the middle distance otherwise. Draws within this
distance are set to the bound, if more training codes were on the bound than beside it.
"""

from math import inf, log
from typing import Any, Literal, NamedTuple, Self, cast

import numpy as np
from numpy.typing import NDArray
from scipy.special import expit, logit
from sklearn.decomposition import NMF, MiniBatchNMF

from skae._training.data import spread_of

Array = NDArray[Any]
Limits = Literal["simplex"] | tuple[Array, Array] | None

SUPPORTS = ("auto", "nonnegative", "simplex")

# Distance from a bound, in units, up to which a code is on it.
_ON = 1e-6
# Distance over which codes on a bound are spread, and the unit of the map for a single bound, both
# relative to the standard deviation of the code. The unit is so small that codes far from the bound
# hardly change, and that codes on the bound are not far from the others.
_WIDTH, _BEND = 0.03, 0.3
# Relative difference of the sum of codes from that of a simplex that is allowed, because codes are
# float32.
_SUM = 1e-4
# Smallest number of codes on a value that show that it is a bound.
_MANY = 3


class Support(NamedTuple):
    """Intervals of codes, whose ends may be infinite, or a simplex of codes with a fixed sum.

    For a single bound, the map is y = low + s log(exp((z - low) / s) - 1), where the unit s is 0.3
    standard deviations of the code. For two bounds, it is a logit of the position of z between
    them. Both maps change codes little that are far from the bounds. For a simplex, each code is a
    fraction of what the codes before it leave of the sum, and is mapped by the logit of this
    fraction. The last code follows from the others.
    """

    low: NDArray[np.float64]  # (n_codes,)
    high: NDArray[np.float64]  # (n_codes,)
    unit: NDArray[np.float64]  # (n_codes,), units of distances from bounds
    total: float | None  # sum of the codes of a simplex
    # (n_free,), distance over which codes on a bound are spread, in units.
    width: NDArray[np.float64]
    on_low: NDArray[np.bool_]  # (n_free,), whether many training codes were on the bound
    on_high: NDArray[np.bool_]  # (n_free,)

    @classmethod
    def of(
        cls,
        codes: Array,
        weight: Array | None,
        low: Array,
        high: Array,
        std: Array,
        total: float | None = None,
    ) -> Self:
        """Return the support of codes (n, n_codes) with these limits and standard deviations."""
        two = np.isfinite(low) & np.isfinite(high)
        unit = np.where(two, high - low, _BEND * std)
        nothing = np.zeros(0)
        self = cls(low, high, unit, total, nothing, nothing.astype(bool), nothing.astype(bool))
        below, above = self._distances(codes)
        if total is None:
            width = _WIDTH * std / unit
        else:
            width = _WIDTH * np.sqrt(spread_of(below, weight).variance.numpy())
        width = np.clip(width, 2 * _ON, 0.5)
        on = [(u <= _ON).sum(0) > ((u > _ON) & (u < width)).sum(0) for u in (below, above)]
        return self._replace(width=width, on_low=on[0], on_high=on[1])

    @property
    def n_free(self) -> int:
        """Number of real numbers that represent the codes of a row."""
        return len(self.low) - (self.total is not None)

    def contains(self, codes: Array) -> NDArray[np.bool_]:
        """Return which rows of codes, or of first codes, are in the support, up to rounding."""
        k = codes.shape[1]
        slack = _ON * self.unit[:k]
        within = (codes >= self.low[:k] - slack) & (codes <= self.high[:k] + slack)
        inside: NDArray[np.bool_] = np.asarray(within.all(axis=1))
        if self.total is not None:
            over = codes.sum(1) / self.total - 1
            inside &= (over <= _SUM) & ((over >= -_SUM) | (k < len(self.low)))
        return inside

    def to_real(
        self, codes: Array, noise: np.random.RandomState | None = None
    ) -> NDArray[np.float64]:
        """Map codes to real numbers (n, n_free); `noise` spreads codes on a bound."""
        below, above = (_off_bound(u, self.width, noise) for u in self._distances(codes))
        one, other, two = self._sides()
        low, high, unit = self._free()
        real = codes[:, : self.n_free].astype(np.float64)
        real[:, one] = low[one] + unit[one] * _softplus_inverse(below[:, one])
        real[:, other] = high[other] - unit[other] * _softplus_inverse(above[:, other])
        middle, width = self._logit_units()
        real[:, two] = middle + width * logit(_fraction(below[:, two], above[:, two]))
        return real

    def from_real(self, real: Array) -> NDArray[np.float64]:
        """Map real numbers to codes (n, n_codes)."""
        one, other, two = self._sides()
        low, high, unit = self._free()
        codes = real.astype(np.float64)
        below = np.logaddexp(0.0, (codes[:, one] - low[one]) / unit[one])
        codes[:, one] = low[one] + unit[one] * _on_bound(below, self._snaps(self.on_low)[one])
        above = np.logaddexp(0.0, (high[other] - codes[:, other]) / unit[other])
        codes[:, other] = high[other] - unit[other] * _on_bound(
            above, self._snaps(self.on_high)[other]
        )
        middle, width = self._logit_units()
        fraction = _on_bound(expit((codes[:, two] - middle) / width), self._snaps(self.on_low)[two])
        fraction = 1 - _on_bound(1 - fraction, self._snaps(self.on_high)[two])
        if self.total is None:
            codes[:, two] = low[two] + unit[two] * fraction
            return codes
        left = self.total * np.cumprod(np.c_[np.ones(len(codes)), 1 - fraction], axis=1)
        return np.c_[left[:, :-1] * fraction, left[:, -1]]

    def log_slope(self, codes: Array) -> NDArray[np.float64]:
        """Return log |d real / d codes| of rows; for a simplex, without its last code."""
        below, above = (_off_bound(u, self.width) for u in self._distances(codes))
        one, other, two = self._sides()
        fraction = _fraction(below[:, two], above[:, two])
        log_slope: NDArray[np.float64] = (
            -np.log(-np.expm1(-below[:, one])).sum(1)
            - np.log(-np.expm1(-above[:, other])).sum(1)
            - (np.log(fraction) + np.log1p(-fraction)).sum(1)
        )
        if self.total is None:
            return log_slope - two.sum() * log(4)
        return log_slope - np.log(self._left(codes)).sum(1)

    def _free(self) -> tuple[NDArray[np.float64], ...]:
        """Bounds and units of the codes that are mapped."""
        return tuple(values[: self.n_free] for values in (self.low, self.high, self.unit))

    def _snaps(self, on: NDArray[np.bool_]) -> NDArray[np.float64]:
        """Return distances from a bound within which codes are on it, if training codes were."""
        return np.where(on, self.width, 0.0)

    def _sides(self) -> tuple[NDArray[np.bool_], ...]:
        """Return masks of codes with only a lower bound, only an upper bound, and both."""
        low, high = np.isfinite(self.low[: self.n_free]), np.isfinite(self.high[: self.n_free])
        return low & ~high, high & ~low, low & high

    def _logit_units(self) -> tuple[Array | float, Array | float]:
        """Return the offset and the factor that map logits of fractions to real numbers.

        In the middle of an interval, the slope is 1.
        """
        if self.total is not None:
            return 0.0, 1.0
        two = self._sides()[2]
        return (self.low[two] + self.high[two]) / 2, self.unit[two] / 4

    def _distances(self, codes: Array) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
        """Return distances of codes from both bounds, (n, n_free); fractions for a simplex."""
        codes = codes.astype(np.float64)
        if self.total is None:
            below, above = (codes - self.low) / self.unit, (self.high - codes) / self.unit
        else:
            below = codes[:, :-1] / self._left(codes)
            above = 1 - below
        return np.maximum(below, 0.0), np.maximum(above, 0.0)

    def _left(self, codes: Array) -> NDArray[np.float64]:
        """Return what the codes before each code of a simplex leave of the sum, (n, n_free)."""
        total = cast(float, self.total)
        before = np.cumsum(codes[:, :-2], axis=1, dtype=np.float64)
        left = total - np.c_[np.zeros(len(codes)), before]
        return np.maximum(left, _ON * total)


def _softplus_inverse(u: Array) -> Array:
    """Return log(exp(u) - 1)."""
    return u + np.log(-np.expm1(-u))


def _fraction(below: Array, above: Array) -> Array:
    """Return the position between two bounds, computed from the distance of the nearer one."""
    return np.where(below < above, below, 1 - above)


def _off_bound(u: Array, width: Array, noise: np.random.RandomState | None = None) -> Array:
    """Replace distances from a bound that are too small, by noise or by the middle distance."""
    on = u <= _ON
    if not on.any():
        return u
    fraction = 0.5 if noise is None else 1 - noise.random_sample(u.shape)
    return np.where(on, width * fraction, u)


def _on_bound(u: Array, width: Array) -> Array:
    """Set small distances from a bound to 0."""
    return np.where(u < width, 0.0, u)


# ------------------------------------------------------ determination of the support


def limits_of(support: Any, codes: Array, pair: Any) -> Limits:
    """Return the limits of codes (n, n_codes) for the parameter `support`.

    It is None, a pair of arrays, or "simplex"; "auto" finds the limits in the codes.
    """
    k = codes.shape[1]
    if isinstance(support, str) and support == "auto":
        return None if pair is None else _found_limits(codes, pair)
    if support is None:
        return None
    limits: Limits
    if isinstance(support, str):
        limits = "simplex" if support == "simplex" else _half_line(k)
    else:
        limits = _given_limits(support, k)
    if isinstance(limits, str):
        wrong = "not in a simplex, whose codes are positive or zero and have the sum 1"
        allowed = _is_simplex(codes)
    else:
        low, high = limits
        slack = _ON * np.maximum(np.abs(codes).max(0), 1e-150)
        wrong = f"outside of it: they are between {codes.min():g} and {codes.max():g}"
        allowed = bool(((codes >= low - slack) & (codes <= high + slack)).all())
    if not allowed:
        raise ValueError(
            f"support={support!r}, but the codes of autoencoder={pair!r} are {wrong}. With "
            "support=None, codes may be any numbers; support='auto' determines their support."
        )
    return limits


def check_support(support: Any) -> None:
    """Raise for values that cannot be a support, whatever the codes are."""
    if support is None or (isinstance(support, str) and support in SUPPORTS):
        return
    try:
        if isinstance(support, str) or len(support) != 2:
            raise ValueError
        low, high = (np.asarray(end, dtype=np.float64) for end in support)
        low, high = np.broadcast_arrays(low, high)
        allowed = low.ndim < 2 and bool((low < high).all())
    except (TypeError, ValueError):
        allowed = False
    if not allowed:
        raise ValueError(
            f"support={support!r} must be one of {list(SUPPORTS)}, None, or a pair (low, high) of "
            "limits with low < high, each a number or one number for each code; -inf and inf mean "
            "that there is no limit."
        )


def public_support(limits: Limits) -> Any:
    """Return limits in the form of the attribute `support_`."""
    if limits is None or isinstance(limits, str):
        return limits
    low, high = limits
    if (low == 0).all() and (high == inf).all():
        return "nonnegative"
    if (low == low[0]).all() and (high == high[0]).all():
        return float(low[0]), float(high[0])
    return limits


def _half_line(k: int) -> tuple[Array, Array]:
    return np.zeros(k), np.full(k, inf)


def _given_limits(support: Any, k: int) -> tuple[Array, Array]:
    low, high = (np.asarray(end, dtype=np.float64) for end in support)
    try:
        return np.broadcast_to(low, k).copy(), np.broadcast_to(high, k).copy()
    except ValueError as error:
        raise ValueError(
            f"support={support!r} has limits for {max(low.size, high.size)} codes, but there are "
            f"{k}."
        ) from error


def _found_limits(codes: Array, pair: Any) -> Limits:
    """Return limits that the codes show: values that many codes have, or the sum of a simplex.

    Codes that are only positive, or within [0, 1], without being on a bound have no limits.
    """
    k = codes.shape[1]
    if _is_simplex(codes):
        return "simplex"
    if codes.min() < 0 and not (codes.min() >= -1 and codes.max() <= 1):
        return None
    for low, high in ((0.0, 1.0), (-1.0, 1.0)):
        inside = codes.min() >= low and codes.max() <= high
        if inside and _gather(codes, low, high) and _gather(codes, high, low):
            return np.full(k, low), np.full(k, high)
    if codes.min() >= 0 and (_is_nonnegative(pair) or _gather(codes, 0.0)):
        return _half_line(k)
    return None


def _is_simplex(codes: Array) -> bool:
    return (
        codes.shape[1] > 1
        and bool(codes.min() >= -_ON)
        and bool((np.abs(codes.sum(1, dtype=np.float64) - 1) <= _SUM).all())
    )


def _gather(codes: Array, bound: float, other: float = inf) -> bool:
    """Return whether many values of a code are on a bound, more than on any value between."""
    for code in codes.T:
        slack = _ON * code.std()
        on, elsewhere = np.abs(code - bound) <= slack, np.abs(code - other) > slack
        n_on = int(on.sum())
        if _MANY <= n_on < len(code):
            counts = np.unique_counts(code[~on & elsewhere]).counts
            if n_on > counts.max(initial=0):
                return True
    return False


def _is_nonnegative(pair: Any) -> bool:
    """Return whether the codes of an autoencoder cannot be negative for any rows."""
    steps = getattr(pair, "steps", None)
    last = pair if steps is None else steps[-1][1]
    return isinstance(last, (NMF, MiniBatchNMF)) or getattr(last, "positive_code", False) is True
