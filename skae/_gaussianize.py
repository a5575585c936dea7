"""Codes transformed to independent standard normal numbers, and paths between them."""

from __future__ import annotations

from typing import Any, Literal

import numpy as np
from numpy.typing import ArrayLike, NDArray
from sklearn.utils.validation import check_array, check_is_fitted

from skae._densities.code_units import CodeUnits
from skae._densities.network_density import is_one_ordering
from skae._densities.settings import settings_of
from skae._latent_paths import LatentPathsMixin
from skae._utils.availability import available_if
from skae._utils.inputs import as_numbers, naming
from skae._utils.types import ArrayOrFrame
from skae._utils.validation import StrOptions

Array = NDArray[Any]


def _is_autoregressive(model: Any) -> bool:
    settings = vars(model).get("_settings") or settings_of(model, None, None)
    if settings["density"] != "autoregressive":
        raise AttributeError(
            "gaussianize needs density='autoregressive', because it uses the conditional "
            f"distributions of this density; given density={model.density!r}."
        )
    if not is_one_ordering(settings["orderings"]):
        raise AttributeError(
            "gaussianize needs orderings=1, because an average over several orderings has no "
            f"conditional distributions; given orderings={model.orderings!r}."
        )
    return True


class GaussianizeMixin(LatentPathsMixin):
    """`gaussianize` and its inverse, for densities with known conditional distributions."""

    density_: Any
    _units: CodeUnits

    @available_if(_is_autoregressive)
    def gaussianize(self, X: ArrayLike) -> NDArray[np.float64]:
        """Encode rows and transform the codes to independent standard normal numbers.

        The transform is u_i = Phi^-1(F(z_i | z_1, ..., z_{i-1})), where F is the conditional
        distribution function of the density and Phi is that of N(0, 1). If the codes follow the
        learned density, u follows N(0, I).

        Parameters
        ----------
        X : array-like of shape (n_samples, n_features)
            Rows to encode.

        Returns
        -------
        U : ndarray of shape (n_samples, n_varying_codes), float64
            One number for each code that was not constant in training. For codes on a simplex,
            the last of them is left out.

        Raises
        ------
        AttributeError
            If `density` is not "autoregressive", or there are several `orderings`.

        References
        ----------
        S. S. Chen and R. A. Gopinath (2001). Gaussianization. NeurIPS 13.

        Examples
        --------
        >>> from sklearn.datasets import load_iris
        >>> from skae import LatentDensityEstimator
        >>> X, _ = load_iris(return_X_y=True)
        >>> lde = LatentDensityEstimator(n_mixture=5, max_iter=10, random_state=0).fit(X)
        >>> U = lde.gaussianize(X)
        >>> bool(abs(lde.inverse_gaussianize(U) - X).max() < 1e-5)
        True
        """
        codes = self._encode(self._check_new_rows(X, "gaussianize"))
        self._units.check_inside(codes, "X")
        normal: NDArray[np.float64] = self.density_.to_normal(self._units.real(codes))
        return normal

    @available_if(_is_autoregressive)
    def inverse_gaussianize(self, X: ArrayLike, *, decode: bool = True) -> ArrayOrFrame:
        """Rows from standard normal numbers: the inverse of `gaussianize`.

        Parameters
        ----------
        X : array-like of shape (n_samples, n_varying_codes)
            Numbers, as `gaussianize` returns them.
        decode : bool, default=True
            Whether to return rows. With False, the method returns their codes.

        Returns
        -------
        X_new : ndarray of shape (n_samples, n_features), or (n_samples, n_codes) of codes
            Decoded rows, or codes with `decode=False`. `set_output` makes them a data frame with
            the columns of the training data, or of the codes.

        Raises
        ------
        AttributeError
            If `density` is not "autoregressive", or there are several `orderings`.
        ValueError
            If the number of columns of `X` is not that which `gaussianize` returns.
        """
        check_is_fitted(self)
        self._check_argument("decode", decode, ["boolean"])
        with naming("X"):
            U = check_array(as_numbers(X), input_name="X", dtype=np.float64)
        n_free = self._units.n_free
        if U.shape[1] != n_free:
            raise ValueError(
                f"X has {U.shape[1]} columns, but inverse_gaussianize expects {n_free}, the number "
                "of codes that were not constant in training (without the last one on a simplex)."
            )
        # float64: after rounding to float32, gaussianize would not return these numbers.
        codes = self._units.codes_of(self.density_.from_normal(U), np.float64)
        if not decode:
            return self._to_frame(codes, X, self.get_feature_names_out())
        return self._rows_out(self._decode(codes), beside=X)

    def interpolate(
        self,
        x0: ArrayLike,
        x1: ArrayLike,
        n: int = 10,
        *,
        path: Literal["codes", "gaussianized"] = "codes",
    ) -> ArrayOrFrame:
        """Decode codes on a path between the codes of two rows.

        Parameters
        ----------
        x0 : array-like of shape (n_features,) or (1, n_features)
            Row whose code is the start of the path.
        x1 : array-like of shape (n_features,) or (1, n_features)
            Row whose code is the end of the path.
        n : int, default=10
            Number of equally spaced codes, including both ends.
        path : {"codes", "gaussianized"}, default="codes"
            Space in which the path is a straight line: the codes themselves, or the numbers that
            `gaussianize` returns. A path of the second kind stays where codes are likely.

        Returns
        -------
        X_path : ndarray of shape (n, n_features)
            The decoded codes. `set_output` makes them a data frame with the columns of the
            training data.

        Raises
        ------
        ValueError
            If `n` is less than 2, if `x0` or `x1` is not a single row, or if
            `path="gaussianized"` and the density has no `gaussianize`.
        """
        check_is_fitted(self)
        self._check_argument("path", path, [StrOptions({"codes", "gaussianized"})])
        codes = self._line(x0, x1, n)
        if path == "gaussianized":
            try:
                _is_autoregressive(self)
            except AttributeError as error:
                raise ValueError(f"path='gaussianized': {error}") from error
            first, last = self.density_.to_normal(self._units.real(codes[[0, -1]]))
            fraction = np.linspace(0.0, 1.0, n)[:, None]
            between = (1 - fraction) * first + fraction * last
            codes = self._units.codes_of(self.density_.from_normal(between))
        return self._rows_out(self._decode(codes))
