"""An imputer around PPCA, with the conventions of scikit-learn's imputers.

M. E. Tipping and C. M. Bishop (1999). Probabilistic principal component analysis.
J. R. Stat. Soc. B 61(3), 611-622. https://doi.org/10.1111/1467-9868.00196

C. M. Bishop (1999). Variational principal components. ICANN, 509-514.
https://doi.org/10.1049/cp:19991160
"""

from __future__ import annotations

import math
from numbers import Integral, Real
from typing import Any, ClassVar, Literal, Self

import numpy as np
from numpy.typing import ArrayLike, NDArray
from sklearn.impute import MissingIndicator
from sklearn.utils.validation import check_is_fitted

from skae._dask.dispatch import of_blocks_everywhere
from skae._ppca import PPCA
from skae._utils.bases import BaseEstimator, TransformerMixin
from skae._utils.dask_inputs import in_memory
from skae._utils.inputs import naming
from skae._utils.interrupts import inside_another_fit
from skae._utils.memory import advise_on_memory_everywhere
from skae._utils.state import all_or_nothing, learned_names
from skae._utils.types import ArrayOrFrame, MissingValue, RandomState
from skae._utils.validation import (
    MissingValues,
    check_feature_names_in,
    check_rows,
    check_weight,
    fit_context,
    private_generator,
)
from skae._utils.versions import check_state, with_versions, without_versions
from skae._utils.warning import warn

Array = NDArray[Any]

# Parameters that PPCA gets as they are.
_OF_PPCA = ("n_components", "loadings_prior", "noise_variance", "tol", "max_iter", "random_state")


def is_number(missing_values: object) -> bool:
    """Whether missing values are marked by a number, and not by NaN or NA of pandas."""
    if isinstance(missing_values, Integral):  # which may be too large for a float
        return True
    return isinstance(missing_values, Real) and not math.isnan(missing_values)


def with_nan(rows: Array, missing_values: Any) -> Array:
    """Rows (n_samples, n_features) of floats with NaN where they equal `missing_values`."""
    if not is_number(missing_values):
        return rows
    as_float = rows.dtype.type
    with naming("missing_values"), np.errstate(over="ignore"):  # infinity, which no row has
        return np.where(rows == as_float(missing_values), as_float(np.nan), rows)


class PPCAImputer(TransformerMixin, BaseEstimator):
    """Imputer that replaces missing values by their means, or by draws, under a PPCA.

    It is a transformer with the conventions of scikit-learn's imputers, for the first steps of a
    Pipeline. `fit` learns a :class:`PPCA` from the observed values. `transform` replaces each
    missing value by its conditional mean given the observed values of its row, or by a draw from
    its conditional distribution, and returns observed values as they are.

    Parameters
    ----------
    n_components : int, float, 'mle', 'bic' or None, default=None
        Number of codes, as for :class:`PPCA`. With `loadings_prior="ard"` it is an integer or None,
        and the largest number: the prior switches off codes that are not needed.
    loadings_prior : {"ard", None}, default="ard"
        Prior of the loadings. "ard" is automatic relevance determination, which switches off codes
        that are not needed, so that a large `n_components` does not overfit. None estimates the
        loadings by maximum likelihood; choose `n_components` with care then.
    noise_variance : {"auto", "scalar", "per_feature"}, default="auto"
        Whether all columns have one noise variance, or each column its own. "auto" means "scalar"
        without a prior, and "per_feature" with one.
    missing_values : int, float, np.nan or pandas.NA, default=np.nan
        Value that marks missing values. NaN and NA have the same meaning: both NaN and NA are
        missing values then. With a number, NaN is not allowed.
    sample_posterior : bool, default=False
        Whether to draw missing values from their conditional distribution, including noise, instead
        of returning its mean. Every call of `transform` draws other values, as multiple imputation
        needs.
    add_indicator : bool, default=False
        Whether to append columns that are 1 where a value was missing, and 0 elsewhere. There is
        one such column for each column with missing values in `fit`.
    keep_empty_features : bool, default=False
        Whether to keep columns that have no observed value in `fit`, with 0 for missing values. By
        default `transform` leaves them out, with a warning.
    tol : float, default=1e-5
        EM stops when its objective increases by less than `tol` nats per observed value in one
        step.
    max_iter : int, default=200
        Maximum number of iterations of EM.
    random_state : int, RandomState instance or None, default=None
        Seed of the initial values of EM, and of the draws with `sample_posterior=True`. With None,
        every fit uses new random numbers. The global generators are not used.

    Attributes
    ----------
    ppca_ : PPCA
        The fitted model of the columns with observed values.
    indicator_ : MissingIndicator or None
        The fitted :class:`~sklearn.impute.MissingIndicator`, in whose input NaN marks missing
        values. None if `add_indicator=False`.
    random_state_ : RandomState instance
        Generator of the draws with `sample_posterior=True`. Each call of `transform` advances it.
    n_iter_ : int
        Number of complete steps of EM; 1 if the model has a closed form.
    n_features_in_ : int
        Number of features seen in `fit`.
    feature_names_in_ : ndarray of shape (n_features_in_,)
        Names of the features, if all are strings.

    See Also
    --------
    PPCA : The model. Its method `impute` can return many draws at once.
    sklearn.impute.IterativeImputer : Imputer by regressions of each column on all others.
    sklearn.impute.KNNImputer : Imputer by the nearest training rows.

    Notes
    -----
    `transform` works row by row: what it fills in depends on the training rows and on the observed
    values of the row, but not on other rows. A row without observed values gets the mean of the
    model.

    A step that scales columns, such as :class:`~sklearn.preprocessing.StandardScaler`, can stand
    before the imputer, because it ignores NaN. It is needed if the columns have different units
    and `noise_variance="scalar"`.

    References
    ----------
    M. E. Tipping and C. M. Bishop (1999). Probabilistic principal component analysis.
    J. R. Stat. Soc. B 61(3), 611-622. :doi:`10.1111/1467-9868.00196`

    C. M. Bishop (1999). Variational principal components. ICANN, 509-514.
    :doi:`10.1049/cp:19991160`

    Examples
    --------
    >>> import numpy as np
    >>> from sklearn.datasets import load_iris
    >>> from skae import PPCAImputer
    >>> X, _ = load_iris(return_X_y=True)
    >>> X_seen = X.copy()
    >>> X_seen[::7, 2] = np.nan
    >>> imputer = PPCAImputer(2, random_state=0).fit(X_seen)
    >>> error = np.abs(imputer.transform(X_seen) - X)[::7, 2].mean()
    >>> error_of_means = np.abs(np.nanmean(X_seen[:, 2]) - X)[::7, 2].mean()
    >>> print(f"mean error {error:.1f} cm, of column means {error_of_means:.1f} cm")
    mean error 0.3 cm, of column means 1.7 cm
    """

    _state_shapes: ClassVar[dict[str, tuple[str, ...] | None]] = {
        "ppca_": None,
        "indicator_": None,
        "random_state_": None,
        "n_iter_": None,
        "_is_empty": ("n_features_in_",),
    }

    _parameter_constraints: ClassVar[dict[str, list[Any]]] = {
        **{name: PPCA._parameter_constraints[name] for name in _OF_PPCA},
        "missing_values": [MissingValues(numeric_only=True)],
        "sample_posterior": ["boolean"],
        "add_indicator": ["boolean"],
        "keep_empty_features": ["boolean"],
    }

    ppca_: PPCA
    indicator_: MissingIndicator | None
    random_state_: np.random.RandomState
    n_iter_: int
    n_features_in_: int
    feature_names_in_: NDArray[np.object_]

    # Mask of the columns without an observed value in rows of positive weight (n_features_in_,).
    _is_empty: NDArray[np.bool_]

    def __init__(
        self,
        n_components: int | float | Literal["mle", "bic"] | None = None,
        *,
        loadings_prior: Literal["ard"] | None = "ard",
        noise_variance: Literal["auto", "scalar", "per_feature"] = "auto",
        missing_values: MissingValue = np.nan,
        sample_posterior: bool = False,
        add_indicator: bool = False,
        keep_empty_features: bool = False,
        tol: float = 1e-5,
        max_iter: int = 200,
        random_state: RandomState = None,
    ) -> None:
        self.n_components = n_components
        self.loadings_prior = loadings_prior
        self.noise_variance = noise_variance
        self.missing_values = missing_values
        self.sample_posterior = sample_posterior
        self.add_indicator = add_indicator
        self.keep_empty_features = keep_empty_features
        self.tol = tol
        self.max_iter = max_iter
        self.random_state = random_state

    # -------------------------------------------------------------------- learning

    @fit_context
    def fit(self, X: ArrayLike, y: object = None, sample_weight: ArrayLike | None = None) -> Self:
        """Learn the model from the observed values.

        If `fit` raises an error or is interrupted, the imputer stays as it was before.

        Parameters
        ----------
        X : array-like of shape (n_samples, n_features)
            Training rows. `missing_values`, and masked entries, mark missing values.
        y : Ignored
            Present for API consistency.
        sample_weight : array-like of shape (n_samples,), default=None
            Weights of the rows. A row of weight 2 has the same effect as two copies of that
            row, and rows of weight 0 are not used. None weights all rows equally.

        Returns
        -------
        self : object
            The fitted imputer.

        Raises
        ------
        ValueError
            If `X`, `sample_weight` or a parameter is not allowed, or if `X` has no observed value
            in the rows of positive weight.
        TypeError
            If `X` is sparse, or contains dates or times.
        """
        with all_or_nothing(self):
            for name in learned_names(self):
                delattr(self, name)
            rows = self._check_rows(X, reset=True)
            weight = check_weight(in_memory(sample_weight), rows)
            counted = rows if weight is None else rows[weight > 0]
            self._is_empty = np.asarray(np.isnan(counted).all(axis=0))
            if self._is_empty.all():
                raise ValueError(
                    f"X has no observed value in {len(counted)} rows of positive weight; a model "
                    f"needs some. Missing values are marked by "
                    f"missing_values={self.missing_values!r}."
                )
            self.random_state_ = private_generator(self.random_state)
            self.indicator_ = None
            if self.add_indicator:
                self.indicator_ = MissingIndicator(error_on_new=False).fit(counted)
            self.ppca_ = PPCA(**{name: getattr(self, name) for name in _OF_PPCA})
            with inside_another_fit():
                self.ppca_.fit(rows[:, ~self._is_empty], sample_weight=weight)
            self.n_iter_ = self.ppca_.n_iter_
        return self

    def fit_transform(
        self, X: ArrayLike, y: object = None, sample_weight: ArrayLike | None = None
    ) -> ArrayOrFrame:
        """Learn the model, and fill in the missing values of the training rows.

        Parameters
        ----------
        X : array-like of shape (n_samples, n_features)
            Training rows, as in `fit`.
        y : Ignored
            Present for API consistency.
        sample_weight : array-like of shape (n_samples,), default=None
            Weights of the rows, as in `fit`. All rows are returned, including those of weight 0.

        Returns
        -------
        X_imputed : ndarray of shape (n_samples, n_features_out)
            The rows, as `transform` returns them.
        """
        return self.fit(X, sample_weight=sample_weight).transform(X)

    def _check_rows(self, X: Any, *, reset: bool) -> Array:
        """Validated rows (n_samples, n_features) with NaN for missing values."""
        rows = check_rows(self, X, reset=reset, min_rows=2 if reset else 1)
        return with_nan(rows, self.missing_values)

    # ------------------------------------------------------------------ imputation

    def transform(self, X: ArrayLike) -> ArrayOrFrame:
        """Fill in missing values.

        Parameters
        ----------
        X : array-like of shape (n_samples, n_features)
            Rows, of the same types as in `fit`.

        Returns
        -------
        X_imputed : ndarray of shape (n_samples, n_features_out)
            The rows with every missing value replaced. Observed values are not changed. Columns
            without an observed value in `fit` are left out, unless `keep_empty_features=True`. With
            `add_indicator=True`, the columns of the indicator follow. `set_output` makes the rows a
            data frame.
        """
        check_is_fitted(self)
        rows = self._check_rows(X, reset=False)
        filled = rows[:, ~self._is_empty]
        incomplete = np.isnan(filled).any(axis=1)
        if incomplete.any():
            filled[incomplete] = self._impute(filled[incomplete])
        if self.keep_empty_features:
            columns, filled = filled, np.where(np.isnan(rows), rows.dtype.type(0), rows)
            filled[:, ~self._is_empty] = columns
        elif self._is_empty.any():
            empty = check_feature_names_in(self)[self._is_empty]
            warn(
                f"Columns {empty.tolist()} of X were left out, because they had no observed values "
                "in fit. With keep_empty_features=True, they are kept."
            )
        if self.indicator_ is None:
            return filled
        return np.hstack([filled, np.asarray(self.indicator_.transform(rows))])

    def _impute(self, rows: Array) -> Array:
        """Rows (n, D) with their missing values filled in by the model of these D columns."""
        if self.sample_posterior:
            return np.asarray(self.ppca_.impute(rows, 1, self.random_state_))[0]
        return np.asarray(self.ppca_.impute(rows))

    def get_feature_names_out(self, input_features: ArrayLike | None = None) -> NDArray[np.object_]:
        """Return the names of the columns that `transform` returns.

        Parameters
        ----------
        input_features : array-like of str of shape (n_features_in_,), default=None
            Names of the features, which must equal `feature_names_in_` if this attribute exists.
            None means `feature_names_in_`, or "x0", "x1" and so on without this attribute.

        Returns
        -------
        names : ndarray of shape (n_features_out,)
            Names of the features, and ``"missingindicator_"`` with the name of a feature for each
            column of the indicator.
        """
        check_is_fitted(self)
        features = check_feature_names_in(self, input_features)
        names = features if self.keep_empty_features else features[~self._is_empty]
        if self.indicator_ is None:
            return names
        return np.concatenate([names, self.indicator_.get_feature_names_out(features)])

    # -------------------------------------------------------------- tags and files

    def __sklearn_tags__(self) -> Any:
        tags = super().__sklearn_tags__()
        tags.input_tags.allow_nan = not is_number(self.missing_values)
        tags.transformer_tags.preserves_dtype = ["float64", "float32"]
        tags.non_deterministic = self.sample_posterior
        return tags

    def __getstate__(self) -> dict[str, Any]:
        return with_versions(super().__getstate__())

    def __setstate__(self, state: dict[str, Any]) -> None:
        check_state(self, state)
        super().__setstate__(without_versions(state, type(self).__name__))


advise_on_memory_everywhere(PPCAImputer)
of_blocks_everywhere(PPCAImputer)
