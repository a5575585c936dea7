"""Codes as independent normal numbers, and paths through them."""

from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray
from sklearn.utils.validation import check_array, check_is_fitted

from skae._densities.code_units import CodeUnits
from skae._densities.network_density import is_one_ordering
from skae._densities.settings import settings_of
from skae._latent_paths import LatentPathsMixin
from skae._utils.availability import available_if
from skae._utils.inputs import as_numbers
from skae._utils.validation import StrOptions

Array = NDArray[Any]


def _is_autoregressive(model: Any) -> bool:
    settings = vars(model).get("_settings") or settings_of(model, None, None)
    if settings["density"] != "autoregressive":
        raise AttributeError(
            f"gaussianize needs density='autoregressive', whose conditionals it inverts; given "
            f"density={model.density!r}."
        )
    if not is_one_ordering(settings["orderings"]):
        raise AttributeError(
            f"gaussianize needs orderings=1: a mean over several has no conditionals; given "
            f"orderings={model.orderings!r}."
        )
    return True


class GaussianizeMixin(LatentPathsMixin):
    """`gaussianize` and its inverse, for densities whose conditionals are known."""

    density_: Any
    _units: CodeUnits

    @available_if(_is_autoregressive)
    def gaussianize(self, X: ArrayLike) -> NDArray[np.float64]:
        """Codes of rows as independent numbers from N(0, 1).

        u_i = Phi^-1(F(z_i | z_1, ..., z_{i-1})) with the conditional distribution functions F
        of the density: if it is that of the codes, u is N(0, I).

        Parameters
        ----------
        X : array-like of shape (n_samples, n_features)
            Rows.

        Returns
        -------
        U : ndarray of shape (n_samples, n_varying_codes), float64
            One number for each code that varied in training; of a simplex, all but the last.

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
    def inverse_gaussianize(self, X: ArrayLike, *, decode: bool = True) -> Any:
        """Rows of numbers from N(0, 1): the inverse of `gaussianize`.

        Parameters
        ----------
        X : array-like of shape (n_samples, n_varying_codes)
            Numbers, as `gaussianize` returns them.
        decode : bool, default=True
            Return rows; False returns their codes.

        Returns
        -------
        X_new : ndarray of shape (n_samples, n_features), or (n_samples, n_codes) of codes
            The codes with these conditional quantiles, decoded. A data frame with the columns
            of the training data, or of the codes, under `set_output`.

        Raises
        ------
        AttributeError
            If `density` is not "autoregressive", or there are several `orderings`.
        ValueError
            If `X` has not one column for each code that varied.
        """
        check_is_fitted(self)
        self._check_argument("decode", decode, ["boolean"])
        U = check_array(as_numbers(X), input_name="X", dtype=np.float64)
        n_free = self._units.n_free
        if U.shape[1] != n_free:
            raise ValueError(
                f"X has {U.shape[1]} columns, but inverse_gaussianize expects {n_free}: one for "
                "each code that varied in training, and for all but one of those of a simplex."
            )
        # float64, of which rounding to float32 would lose what the inverse has to find again.
        codes = self._units.codes_of(self.density_.from_normal(U), np.float64)
        if not decode:
            return self._to_frame(codes, X, self.get_feature_names_out())
        return self._rows_out(self._decode(codes), beside=X)

    def interpolate(self, x0: ArrayLike, x1: ArrayLike, n: int = 10, *, path: str = "codes") -> Any:
        """Decode codes on the way from that of one row to that of another.

        Parameters
        ----------
        x0 : array-like of shape (n_features,) or (1, n_features)
            The row whose code the way starts at.
        x1 : array-like of shape (n_features,) or (1, n_features)
            The row whose code it ends at.
        n : int, default=10
            How many codes, equally spaced, both ends included.
        path : {"codes", "gaussianized"}, default="codes"
            A straight line of codes; or of what `gaussianize` makes of them, which keeps to
            where codes are likely.

        Returns
        -------
        X_path : ndarray of shape (n, n_features)
            The decoded codes; a data frame with the columns of the training data under
            `set_output`.

        Raises
        ------
        ValueError
            If `n` is less than 2, `x0` or `x1` is no row, or codes cannot be gaussianized.
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
