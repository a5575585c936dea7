"""Imputation of missing values, given the observed values of the same row."""

from __future__ import annotations

from collections.abc import Callable
from numbers import Integral
from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray

from skae._mixed_rows import MixedRowsMixin
from skae._utils.sparse_rows import dense
from skae._utils.types import ArrayOrFrame, RandomState
from skae._utils.validation import Interval, private_generator

Array = NDArray[Any]

_COUNT = Interval(Integral, 1, None, closed="left")


class ImputationMixin(MixedRowsMixin):
    """`impute`, for networks whose loss leaves out missing values."""

    _architecture: Any

    def impute(
        self,
        X: ArrayLike,
        n_draws: int | None = None,
        *,
        random_state: RandomState = None,
    ) -> ArrayOrFrame:
        """Fill in missing values, given the observed values of the same row.

        A row is encoded from its observed values. Its missing values become the mean of p(x|z) at
        this code, or draws from p(x|z). (`VAE.impute` averages over several codes, which is more
        accurate.)

        Parameters
        ----------
        X : array-like of shape (n_samples, n_features)
            Rows in which NaN, null or a mask marks missing values. In sparse rows these are
            stored NaN; their completions are dense.
        n_draws : int, default=None
            With None, missing values become means, or the most probable level of a category.
            With a number, that many completions of the rows are drawn, including noise, for
            multiple imputation.
        random_state : int, RandomState instance or None, default=None
            Seed of the draws with `n_draws`. With None, every call draws anew.

        Returns
        -------
        X_imputed : ndarray of shape (n_samples, n_features), or \
                (n_draws, n_samples, n_features)
            The rows with every missing value replaced and all observed values unchanged. With
            `n_draws` this is always an array, in which categories are indices of levels.
            Otherwise it is a data frame if `set_output` asks for one; if not, it is an array, or
            for tables a container of the type of `X`.

        Raises
        ------
        ValueError
            If `n_draws` is not a positive integer or None, or if a value has probability zero
            under its likelihood.
        """
        self._check_argument("n_draws", n_draws, [_COUNT, None])
        rows = dense(self._check_new_rows(X, "impute"))
        self._check_range(rows)

        def guess(incomplete: Array, _: Array) -> Array:
            return self._guessed(incomplete, n_draws, private_generator(random_state))

        return self._completed(X, rows, n_draws, guess)

    def _guessed(self, incomplete: Array, n_draws: int | None, rng: np.random.RandomState) -> Array:
        """Means of p(x|z) at the codes of rows, (1, n, n_features), or draws, (n_draws, ...)."""
        codes = self._encode(incomplete)
        if n_draws is None:
            return self._decode(codes)[None]
        return np.stack([self._generate(codes, rng, True) for _ in range(n_draws)])

    def _completed(
        self,
        X: Any,
        rows: Array,
        n_draws: int | None,
        guess: Callable[[Array, Array], Array],
    ) -> Any:
        """Rows in the container of X with missing values filled in, or an array of completions.

        `guess` gets the incomplete rows and their indices, and returns all their values,
        (n_draws or 1, n_incomplete, n_features).
        """
        missing = np.isnan(rows) if rows.dtype.kind == "f" else np.zeros(rows.shape, dtype=bool)
        incomplete = np.flatnonzero(missing.any(axis=1))
        # The wider type keeps observed values unchanged.
        wide = np.result_type(rows.dtype, self._architecture.row_dtype)
        wide = np.dtype(np.float64) if wide.itemsize > 8 else wide
        filled = np.repeat(rows[None].astype(wide), n_draws or 1, axis=0)
        if len(incomplete):
            values = guess(rows[incomplete], incomplete)
            filled[:, incomplete] = np.where(missing[incomplete], values, filled[:, incomplete])
        if n_draws is None:
            return self._rows_out(filled[0], like=X)
        return np.stack([self._as_numbers(completed) for completed in filled])
