"""Missing values filled in from what was seen of their rows."""

from collections.abc import Callable
from numbers import Integral
from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray

from skae._mixed_rows import MixedRowsMixin
from skae._utils.validation import Interval, private_generator

Array = NDArray[Any]

COUNT = Interval(Integral, 1, None, closed="left")


class ImputationMixin(MixedRowsMixin):
    """`impute`, for networks that leave out of the loss what was not seen."""

    _architecture: Any

    def impute(
        self,
        X: ArrayLike,
        n_draws: int | None = None,
        *,
        random_state: int | np.random.RandomState | None = None,
    ) -> Any:
        """Fill in missing values, given those that were seen.

        A row is encoded from what was seen of it; what was not is the mean of p(x|z) at its
        code, or draws from there. (A VAE weighs several codes, which is the better guess.)

        Parameters
        ----------
        X : array-like of shape (n_samples, n_features)
            Rows with NaN, null or a mask where a value is missing.
        n_draws : int, default=None
            None fills in means, and of categories the most probable level; a number draws as
            many completions, noise included, for multiple imputation.
        random_state : int, RandomState instance or None, default=None
            Seed of the draws; means need none. None takes fresh entropy.

        Returns
        -------
        X_imputed : ndarray of shape (n_samples, n_features), or \
                (n_draws, n_samples, n_features)
            The rows with every missing value replaced; those that were seen are returned as they
            are. Means of a table with kinds come as it came, others as an array, or as a data
            frame under `set_output`; draws are always an array.

        Raises
        ------
        ValueError
            If `n_draws` is not a positive integer or None, or a value is impossible under its
            likelihood.
        """
        self._check_argument("n_draws", n_draws, [COUNT, None])
        rows = self._check_new_rows(X, "impute")
        self._check_range(rows)

        def guess(incomplete: Array, _: Array) -> Array:
            codes = self._encode(incomplete)
            if n_draws is None:
                return self._decode(codes)[None]
            rng = private_generator(random_state)
            return np.stack([self._generate(codes, rng, True) for _ in range(n_draws)])

        return self._completed(X, rows, n_draws, guess)

    def _completed(
        self,
        X: Any,
        rows: Array,
        n_draws: int | None,
        guess: Callable[[Array, Array], Array],
    ) -> Any:
        """The rows as they came, or completions, with guesses where they were not seen.

        `guess` makes of the rows that are incomplete, and of which these are, all their values,
        (n_draws or 1, n_incomplete, n_features).
        """
        missing = np.isnan(rows) if rows.dtype.kind == "f" else np.zeros(rows.shape, dtype=bool)
        incomplete = np.flatnonzero(missing.any(axis=1))
        # Seen values stay what they are.
        wide = np.result_type(rows.dtype, self._architecture.row_dtype)
        filled = np.repeat(rows[None].astype(wide), n_draws or 1, axis=0)
        if len(incomplete):
            values = guess(rows[incomplete], incomplete)
            filled[:, incomplete] = np.where(missing[incomplete], values, filled[:, incomplete])
        if n_draws is None:
            return self._rows_out(filled[0], like=X)
        return np.stack([self._as_numbers(completed) for completed in filled])
