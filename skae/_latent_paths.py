"""Paths through the latent space: between two rows, and along one component of a code."""

from __future__ import annotations

from numbers import Integral
from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray
from scipy import sparse
from sklearn.utils.validation import check_is_fitted

from skae._base import BaseAutoencoder
from skae._utils.inputs import as_numbers, naming, of_tensor
from skae._utils.types import ArrayOrFrame
from skae._utils.validation import Interval

Array = NDArray[Any]


class LatentPathsMixin(BaseAutoencoder):
    """`interpolate` and `traverse`, for models whose codes are real numbers."""

    def interpolate(self, x0: ArrayLike, x1: ArrayLike, n: int = 10) -> ArrayOrFrame:
        """Decode codes on the straight line between the codes of two rows.

        Parameters
        ----------
        x0 : array-like of shape (n_features,) or (1, n_features)
            Row whose code is the start of the line.
        x1 : array-like of shape (n_features,) or (1, n_features)
            Row whose code is the end of the line.
        n : int, default=10
            Number of equally spaced codes, including both ends.

        Returns
        -------
        X_path : ndarray of shape (n, n_features)
            The decoded codes. `set_output` makes them a data frame with the columns of the
            training data.

        Raises
        ------
        ValueError
            If `n` is less than 2, or if `x0` or `x1` is not a single row.
        """
        check_is_fitted(self)
        return self._rows_out(self._decode(self._line(x0, x1, n)))

    def traverse(self, x: ArrayLike, component: int, values: ArrayLike) -> ArrayOrFrame:
        """Decode the code of a row while one component of the code takes given values.

        Parameters
        ----------
        x : array-like of shape (n_features,) or (1, n_features)
            Row to encode.
        component : int
            Index of the component that changes, from 0.
        values : array-like of shape (n_values,)
            Values of this component.

        Returns
        -------
        X_path : ndarray of shape (n_values, n_features)
            The decoded codes. `set_output` makes them a data frame with the columns of the
            training data.

        Raises
        ------
        ValueError
            If the code has no component `component`, if `values` is not a list of finite
            numbers, or if `x` is not a single row.
        """
        check_is_fitted(self)
        return self._rows_out(self._decode(self._replaced(x, component, values)))

    def _line(self, x0: ArrayLike, x1: ArrayLike, n: int) -> Array:
        self._check_argument("n", n, [Interval(Integral, 2, None, closed="left")])
        ends = np.concatenate([self._code_of("x0", x0), self._code_of("x1", x1)])
        fraction = np.linspace(0.0, 1.0, n)[:, None]
        line: Array = (1 - fraction) * ends[:1] + fraction * ends[1:]
        return line

    def _replaced(self, x: ArrayLike, component: int, values: ArrayLike) -> Array:
        code = self._code_of("x", x)
        last = code.shape[1] - 1
        allowed = Interval(Integral, 0, last + 1, closed="left")
        self._check_argument("component", component, [allowed])
        values = as_numbers(values, "values")
        try:
            numbers = np.asarray(values, dtype=np.float64)
        except (TypeError, ValueError):
            numbers = np.zeros(0)
        if numbers.ndim != 1 or not len(numbers) or not np.isfinite(numbers).all():
            raise ValueError(f"values={values!r} must be a list of finite numbers.")
        codes = np.repeat(code.astype(np.float64), len(numbers), axis=0)
        codes[:, component] = numbers
        return codes

    def _code_of(self, name: str, x: Any) -> Array:
        with naming(name):  # errors of the row would speak of X
            code: Array = self._encode(self._check_new_rows(self._one_row(name, x), "transform"))
        return code

    def _one_row(self, name: str, x: Any) -> Any:
        x = of_tensor(x, name)
        if hasattr(x, "to_frame") and getattr(x, "ndim", 2) == 1:  # a row of a data frame
            x = x.to_frame().T
        elif isinstance(x, (list, tuple)) and np.ndim(np.array(x, dtype=object)) == 1:
            x = [x]
        elif sparse.issparse(x):
            x = x.reshape(1, -1) if x.ndim == 1 else x
        elif np.ndim(x) == 1:
            x = np.asanyarray(x).reshape(1, -1)
        if np.shape(x)[:1] != (1,):
            raise ValueError(
                f"{name} must be one row, of shape (n_features,) or (1, n_features); given an "
                f"array of shape {np.shape(x)}."
            )
        return x
