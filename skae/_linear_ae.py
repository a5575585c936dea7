"""The linear autoencoder, whose optimum is the principal subspace.

References
----------
P. Baldi and K. Hornik (1989). Neural networks and principal component analysis:
learning from examples without local minima. Neural Networks 2(1), 53-58.
:doi:`10.1016/0893-6080(89)90014-2`

D. Kunin, J. Bloom, A. Goeva and C. Seed (2019). Loss landscapes of regularized linear
autoencoders. ICML, PMLR 97, 3560-3569. :arxiv:`1901.08168`
"""

from __future__ import annotations

from numbers import Real
from typing import Any, ClassVar, Literal, Self

import numpy as np
from numpy.typing import ArrayLike, NDArray
from scipy import sparse
from scipy.sparse.linalg import ArpackError
from sklearn import config_context
from sklearn.exceptions import NotFittedError
from sklearn.utils import get_tags
from sklearn.utils.validation import check_is_fitted, validate_data

from skae._dask.fitting import moments_of
from skae._linear.latent_size import by_evidence, by_variance_fraction
from skae._linear.linear_maps import (
    canonical_axes,
    minimise_linear_ae,
    shrinkage_along,
    whitening_scales,
)
from skae._linear.low_rank_gaussian import draw, log_density, noise_floor, precision
from skae._linear.moments import (
    Moments,
    PrincipalAxes,
    axes_of_moments,
    check_scale,
    count_enough_rows,
    moments,
    out_of_range,
    principal_axes,
    variance_of_rounding,
)
from skae._linear.old_files import linear_ae_state
from skae._linear.pca import choose_svd_solver, cut_axes, is_count
from skae._linear.pca_base import PCA
from skae._linear.running import merge
from skae._truncation import TruncationMixin
from skae._utils.dask_inputs import is_dask
from skae._utils.memory import advice_on_memory
from skae._utils.state import all_or_nothing
from skae._utils.types import RandomState
from skae._utils.validation import (
    Interval,
    StrOptions,
    check_weight,
    fit_context,
    get_namespace,
    get_namespace_and_device,
    move_to,
    widest_float,
)
from skae._utils.warning import warn


class LinearAE(TruncationMixin, PCA):
    r"""Linear autoencoder, which extends scikit-learn's PCA.

    It can replace :class:`sklearn.decomposition.PCA`: it has the same arguments, methods,
    attributes and results, for dense, sparse and array-API input. In addition, it accepts weighted
    rows, learns exactly from a stream of batches (`partial_fit`), draws new rows (`sample`),
    shrinks weak components with a penalty (`alpha`), can be trained by L-BFGS (`solver`), returns
    data frames from `inverse_transform`, and does not divide by a standard deviation of zero when
    it whitens.

    The linear maps minimise

    .. math:: \mathrm{tr}((I - W_d W_e) \Sigma (I - W_d W_e)^T)
        + \alpha (\|W_e\|^2 + \|W_d\|^2),

    where :math:`\Sigma` is the covariance of the rows, with 1/n. At the optimum
    :math:`W_e = W_d^T`, their singular vectors are the principal axes, and their singular values
    are given by :math:`s_i^2 = \max(0, 1 - \alpha / \lambda_i)`.

    Parameters
    ----------
    n_components : int, float or 'mle', default=None
        Number of codes. A float in (0, 1) takes the smallest number whose codes explain more than
        this fraction of the variance. `'mle'` chooses the number by Minka's method. None takes
        min(n_samples, n_features), or one less with `svd_solver='arpack'`.
    copy : bool, default=True
        Whether to copy the training data. With False, `fit` may overwrite them.
    whiten : bool, default=False
        Whether to scale the codes to unit variance. If the variance along an axis is not larger
        than rounding errors, the code is divided by the standard deviation along the first axis
        instead. Such codes are about 0 for the training rows and finite for other rows.
    svd_solver : {'auto', 'full', 'covariance_eigh', 'arpack', 'randomized'}, default='auto'
        Algorithm of the decomposition, as in PCA. Weighted rows and collections of Dask always use
        an exact algorithm.
    tol : float, default=0.0
        Tolerance of the singular values for `svd_solver='arpack'`. 0 means machine precision.
    iterated_power : int or 'auto', default='auto'
        Number of power iterations of `svd_solver='randomized'`, as in PCA.
    n_oversamples : int, default=10
        Number of additional random vectors of `svd_solver='randomized'`.
    power_iteration_normalizer : {'auto', 'QR', 'LU', 'none'}, default='auto'
        Normalisation between the power iterations of `svd_solver='randomized'`, as in PCA.
    random_state : int, RandomState instance or None, default=None
        Seed of the solvers 'arpack', 'randomized' and 'gradient'. With None, every fit uses new
        random numbers. The global generators are not used.
    alpha : float, default=0.0
        Strength of the L2 penalty on both maps, in squared units of X. With `alpha` > 0,
        `transform`, `inverse_transform` and `components_` use the shrunken maps. The penalty does
        not change the other attributes of PCA, `score` and `sample`. It cannot be combined with
        `whiten`.
    solver : {'closed_form', 'gradient'}, default='closed_form'
        How the maps are computed. `'closed_form'` decomposes the rows or their covariance, as
        `svd_solver` says. `'gradient'` minimises the objective by L-BFGS from random maps. It
        reaches the same optimum, and then rotates the maps to the principal axes.

    Attributes
    ----------
    encoder_ : ndarray of shape (n_components_, n_features_in_)
        Encoder W_e. The codes are `(X - mean_) @ encoder_.T`.
    decoder_ : ndarray of shape (n_features_in_, n_components_)
        Decoder W_d. The reconstructions are `Z @ decoder_.T + mean_`.
    components_ : ndarray of shape (n_components_, n_features_in_)
        Principal axes, or the shrunken axes with `alpha` > 0. Without `whiten`,
        `inverse_transform(Z)` equals `Z @ components_ + mean_`. With `whiten=True`, multiply the
        codes by `sqrt(explained_variance_)` first, as in PCA.
    axes_ : ndarray of shape (n_components_, n_features_in_)
        Principal axes, orthonormal and in order of decreasing variance. They equal `components_`
        of PCA.
    explained_variance_ : ndarray of shape (n_components_,)
        Variance of the rows along each axis, with n - 1. It equals the variance of the codes
        only without `alpha` and `whiten`.
    explained_variance_ratio_ : ndarray of shape (n_components_,)
        Fraction of the total variance along each axis.
    singular_values_ : ndarray of shape (n_components_,)
        Singular values of the centred rows, as in PCA: sqrt((n - 1) explained_variance_).
    mean_ : ndarray of shape (n_features_in_,)
        Mean mu of the rows.
    n_components_ : int
        Number of codes.
    n_samples_ : int or float
        Number of training rows, or the sum of their weights if weights were given.
    n_samples_seen_ : int or float
        The same number, under the name that IncrementalPCA uses. It is also set while
        `partial_fit` has not seen enough rows for a model.
    var_ : ndarray of shape (n_features_in_,)
        Variance of each feature, with 1/n. Only after `partial_fit`.
    noise_variance_ : float
        Mean variance along the axes that are left out, with n - 1 (Tipping and Bishop 1999).
    n_features_in_ : int
        Number of features seen in `fit`.
    feature_names_in_ : ndarray of shape (n_features_in_,)
        Names of the features, if all are strings.
    n_iter_ : int
        Number of iterations of L-BFGS. Only with `solver='gradient'`.
    score_kind : str
        Kind of the scores: 'log_likelihood', log densities in nats per row.

    See Also
    --------
    PPCA : Probabilistic model with missing values, posteriors and exact densities.

    Notes
    -----
    `score_samples` and `sample` use the Gaussian with the covariance `get_covariance`, as PCA does.
    With `whiten=True`, scikit-learn's PCA multiplies the variances along the axes by the variances
    once more. LinearAE does the same, so that its scores agree with those of PCA, but they are then
    not the log density of the rows. Use `whiten=False` or PPCA for a density.

    `sample_weight` weights rows: a row of weight 2 has the same effect as two copies of that row.
    The sum of the weights replaces n_samples everywhere, and it must exceed 1.

    References
    ----------
    P. Baldi and K. Hornik (1989). Neural networks and principal component analysis.
    Neural Networks 2(1), 53-58. :doi:`10.1016/0893-6080(89)90014-2`

    D. Kunin et al. (2019). Loss landscapes of regularized linear autoencoders. ICML.
    :arxiv:`1901.08168`

    T. F. Chan, G. H. Golub and R. J. LeVeque (1983). Algorithms for computing the sample
    variance. The American Statistician 37(3). :doi:`10.1080/00031305.1983.10483115`

    M. E. Tipping and C. M. Bishop (1999). Mixtures of probabilistic principal component
    analysers. Neural Computation 11(2), 443-482. :doi:`10.1162/089976699300016728`

    Examples
    --------
    >>> from sklearn.datasets import load_digits
    >>> from skae import LinearAE
    >>> X, _ = load_digits(return_X_y=True)
    >>> ae = LinearAE(n_components=10).fit(X)
    >>> ae.transform(X).shape
    (1797, 10)
    >>> print(f"{ae.explained_variance_ratio_.sum():.3f} of the variance")
    0.738 of the variance
    >>> ae.sample(3, random_state=0).shape
    (3, 64)
    """

    score_kind = "log_likelihood"
    _namespace_attribute = "components_"

    encoder_: NDArray[Any]
    decoder_: NDArray[Any]
    axes_: NDArray[Any]
    var_: NDArray[Any]

    _parameter_constraints: ClassVar[dict[str, list[Any]]] = {
        **PCA._parameter_constraints,
        "alpha": [Interval(Real, 0, None, closed="left")],
        "solver": [StrOptions({"closed_form", "gradient"})],
    }

    def __init__(
        self,
        n_components: int | float | Literal["mle"] | None = None,
        *,
        copy: bool = True,
        whiten: bool = False,
        svd_solver: Literal["auto", "full", "covariance_eigh", "arpack", "randomized"] = "auto",
        tol: float = 0.0,
        iterated_power: int | Literal["auto"] = "auto",
        n_oversamples: int = 10,
        power_iteration_normalizer: Literal["auto", "QR", "LU", "none"] = "auto",
        random_state: RandomState = None,
        alpha: float = 0.0,
        solver: Literal["closed_form", "gradient"] = "closed_form",
    ) -> None:
        super().__init__(
            n_components,
            copy=copy,
            whiten=whiten,
            svd_solver=svd_solver,
            tol=tol,
            iterated_power=iterated_power,
            n_oversamples=n_oversamples,
            power_iteration_normalizer=power_iteration_normalizer,
            random_state=random_state,
        )
        self.alpha = alpha
        self.solver = solver

    def _fit_model(
        self, X: Any, rng: np.random.RandomState, sample_weight: Any, previous: Self | None
    ) -> Any | None:
        self._check_choices()
        n = count_enough_rows(X, sample_weight)
        self._fit_svd_solver = self._choose_svd_solver(n, X)
        with advice_on_memory(
            f"Set a smaller n_components and n_oversamples (now {self.n_oversamples}) with "
            "svd_solver='randomized' and solver='closed_form', which need no matrix of shape "
            "(n_features, n_features). For weighted rows, use PPCA(solver='em')."
        ):
            return self._fit_rows(X, n, rng, sample_weight)

    def _fit_rows(
        self, X: Any, n: float, rng: np.random.RandomState, sample_weight: Any
    ) -> Any | None:
        if self.solver == "gradient" or self._fit_svd_solver == "covariance_eigh":
            self._fit_moments(moments(X, sample_weight), X, rng)
            return None
        if sample_weight is not None:
            n_axes = self._largest_size(X, n)
            self._store_axes(principal_axes(X, sample_weight, n_axes), X)
            return None
        return self._fit_as_pca(X, rng)

    @fit_context
    def partial_fit(
        self,
        X: ArrayLike,
        y: object = None,
        sample_weight: ArrayLike | None = None,
        *,
        check_input: bool = True,
    ) -> Self:
        """Update the model with a batch of rows.

        The mean and the scatter matrix of the batch are merged with those of the earlier rows (Chan
        et al. 1983). Any division of the rows into batches therefore gives the same model as `fit`
        on all rows at once. Memory grows with the square of n_features and does not depend on the
        number of rows. There is no model until there are as many rows as components.

        After `fit`, `partial_fit` continues from the fitted model. The result is exact if `fit`
        kept all components. Otherwise the variance that was left out is assumed to be the same in
        all directions that were left out, and a warning is issued.

        Parameters
        ----------
        X : {array-like, sparse matrix} of shape (n_samples, n_features)
            A batch of rows. A batch may have any number of rows. An array or a data frame of Dask
            is one batch, whose moments are computed block by block.
        y : Ignored
            Present for API consistency.
        sample_weight : array-like of shape (n_samples,), default=None
            Weights of the rows, as in `fit`.
        check_input : bool, default=True
            Whether to check that all values are finite. With False, `X` must be an array or a CSR
            matrix of float32 or float64. The number of its columns is checked in any case.

        Returns
        -------
        self : object
            The estimator.

        Raises
        ------
        ValueError
            If the batch or `sample_weight` is not allowed, or if `n_components` exceeds the number
            of features. The batch then does not change the estimator.
        """
        self._check_argument("check_input", check_input, ["boolean"])
        with all_or_nothing(self):
            seen = self._seen_moments()
            with advice_on_memory(
                "partial_fit stores a matrix of shape (n_features, n_features). Use fit with "
                "svd_solver='randomized' and a small n_components, which does not need it."
            ):
                if is_dask(X):
                    rows, stats = moments_of(self, X, sample_weight, reset=seen is None)
                else:
                    rows = self._check_batch(X, check_input, reset=seen is None)
                    stats = moments(rows, check_weight(sample_weight, rows))
                if seen is not None:
                    stats = merge(seen, stats)
            check_scale(stats.scatter)
            self._stream = tuple(stats)
            self._check_choices()
            self._store_seen(stats, rows)
            if stats.n >= self._rows_needed(rows.shape[1]):
                self.__dict__.pop("n_iter_", None)  # an earlier fit with "gradient" may have set it
                self._fit_moments(stats, rows, self._generator())
        return self

    def _check_batch(self, X: Any, check_input: bool, *, reset: bool) -> Any:
        if check_input:
            return self._check_rows(X, reset=reset)
        return validate_data(self, X, reset=reset, skip_check_array=True)

    def _seen_moments(self) -> Moments | None:
        """Moments of all rows seen so far, from `partial_fit` or reconstructed after `fit`."""
        if "_stream" in self.__dict__:
            return Moments(*self._stream)
        if not hasattr(self, "components_"):
            return None
        xp, _, device = get_namespace_and_device(self.axes_)
        n_features, left_out = self.n_features_in_, 0.0
        if self.n_components_ < (rank := min(self.n_samples_, n_features)):
            warn(
                f"partial_fit continues from the {self.n_components_} components that fit kept, "
                "and assumes the same variance in all directions that they leave out. For an "
                "exact result, give all rows to partial_fit."
            )
            fraction = (rank - self.n_components_) / (n_features - self.n_components_)
            left_out = float(self.noise_variance_) * fraction
        dtype = widest_float(self.axes_)
        axes, variance, mean = (
            xp.astype(a, dtype) for a in (self.axes_, self.explained_variance_, self.mean_)
        )
        scatter = (axes.T * (variance - left_out)) @ axes
        scatter += left_out * xp.eye(n_features, dtype=dtype, device=device)
        return Moments(self.n_samples_, mean, scatter * (self.n_samples_ - 1))

    def _store_seen(self, stats: Moments, like: Any) -> None:
        """Set the attributes that IncrementalPCA also has, even if there are too few rows yet."""
        xp, _, device = get_namespace_and_device(like)
        self.n_samples_seen_ = stats.n
        variances = get_namespace(stats.scatter)[0].linalg.diagonal(stats.scatter) / stats.n
        self.var_ = xp.asarray(variances, dtype=like.dtype, device=device)

    def _rows_needed(self, n_features: int) -> int:
        """Smallest number of rows from which a model can be computed."""
        if is_count(self.n_components):
            self._check_size(self.n_components, n_features, n_features)
            return max(2, self.n_components)
        return n_features if self.n_components == "mle" else 2

    def _largest_size(self, X: Any, n: float) -> int:
        """Number of axes that are needed to choose the number of components."""
        if is_count(self.n_components):
            self._check_size(self.n_components, n, X.shape[1])
            return self.n_components
        return int(min(n, X.shape[1]))

    def _check_rows(self, X: Any, **options: Any) -> Any:
        if sparse.issparse(X) and not get_tags(self).input_tags.sparse:
            raise TypeError(
                'PCA only support sparse inputs with the "arpack" and "covariance_eigh" '
                f'solvers, while "{self.svd_solver}" was passed as svd_solver.'
            )
        return super()._check_rows(X, **options)

    def _check_choices(self) -> None:
        if self.alpha > 0 and self.whiten:
            raise ValueError(
                f"alpha={self.alpha} cannot be combined with whiten=True, because whitening would "
                "undo the shrinkage. Use alpha=0 or whiten=False."
            )
        if self.solver == "gradient" and not (
            self.n_components is None or is_count(self.n_components)
        ):
            raise ValueError(
                "solver='gradient' needs an integer n_components or None, got "
                f"n_components={self.n_components!r}. Use solver='closed_form', which can choose "
                "the number of components."
            )

    def _choose_solver(self, X: Any) -> str:
        """Name of the algorithm that is used for unweighted rows."""
        return "gradient" if self.solver == "gradient" else self._choose_svd_solver(X.shape[0], X)

    def _choose_svd_solver(self, n: float, X: Any) -> str:
        return choose_svd_solver(self.svd_solver, self.n_components, n, X)

    def _fit_as_pca(self, X: Any, rng: np.random.RandomState) -> Any | None:
        """Fit scikit-learn's PCA with the generator `rng`; return the codes of the rows."""
        pca = PCA(**{name: getattr(self, name) for name in PCA().get_params()})
        pca.set_params(svd_solver=self._fit_svd_solver, random_state=rng)
        try:
            # The rows are validated already. For constant rows, PCA divides zero by zero.
            with config_context(assume_finite=True), np.errstate(divide="ignore"):
                U, S, *_ = pca._fit(X)
        except (ArpackError, np.linalg.LinAlgError):
            # The rows are constant or out of range. `principal_axes` raises in the second case.
            self._store_axes(principal_axes(X, None, self._largest_size(X, X.shape[0])), X)
            return None
        self.__dict__.update({k: v for k, v in vars(pca).items() if k.endswith("_")})
        self.axes_ = self.components_
        self.n_samples_seen_ = self.n_samples_
        self.n_components_ = int(pca.n_components_)
        if float(sum(pca.singular_values_)) == 0:  # constant rows, for which PCA computes 0 / 0
            self.explained_variance_ratio_ = self.explained_variance_ * 0
        gains = self._store_maps(from_squares=False)
        return U[:, : self.n_components_] * (S[: self.n_components_] * gains)

    def _learn_moments(self, stats: Moments, like: Any) -> None:
        self._check_choices()
        self._fit_svd_solver = self._choose_svd_solver(stats.n, like)
        self._fit_moments(stats, like, self._generator())

    def _fit_moments(self, stats: Moments, like: Any, rng: np.random.RandomState) -> None:
        """Learn from moments; fitted arrays have the dtype and the device of `like`."""
        most = int(min(stats.n, stats.mean.shape[0]))
        size = most if self.n_components is None else self.n_components
        if self.solver == "closed_form":
            n_axes = min(size, stats.mean.shape[0]) if is_count(size) else stats.mean.shape[0]
            self._store_axes(axes_of_moments(stats, n_axes), like)
            return
        self._check_size(size, stats.n, stats.mean.shape[0])
        check_scale(stats.scatter)
        covariance = move_to(stats.scatter, xp=np, device="cpu") / stats.n
        _, decoder, n_iter = minimise_linear_ae(covariance, size, 0.0, rng)
        variances, axes = canonical_axes(decoder, covariance)
        trace = float(np.trace(covariance)) * stats.n
        found = PrincipalAxes(stats.n, stats.mean, variances * stats.n, axes, trace)
        self._store_axes(found, like)
        self.n_iter_ = n_iter
        if self.alpha > 0:
            encoder, decoder, n_iter = minimise_linear_ae(covariance, size, self.alpha, rng)
            scales = shrinkage_along(axes, encoder, decoder)
            xp, _, device = get_namespace_and_device(like)
            maps = xp.asarray(scales[:, None] * axes, dtype=like.dtype, device=device)
            self.encoder_, self.decoder_, self.components_ = maps, maps.T, maps
            self.n_iter_ += n_iter

    def _check_size(self, size: Any, n: float, n_features: int) -> None:
        """Check the size as PCA does, with the same messages as PCA."""
        solver = getattr(self, "_fit_svd_solver", self.svd_solver)
        least, most = int(solver in ("arpack", "randomized")), min(n, n_features)
        if size == "mle":
            if n < n_features:
                raise ValueError("n_components='mle' is only supported if n_samples >= n_features")
        elif not least <= size <= most:
            raise ValueError(
                f"n_components={size} must be between {least} and "
                f"min(n_samples, n_features)={most} with svd_solver={solver!r}"
            )

    def _store_axes(self, found: PrincipalAxes, like: Any) -> None:
        """Set the attributes of PCA, with the dtype and on the device of `like`."""
        n, n_features = found.n, found.mean.shape[0]
        xp, _, device = get_namespace_and_device(like)
        most = int(min(n, n_features))
        size: Any = self.n_components
        if size is None:
            size = most - (
                getattr(self, "_fit_svd_solver", None) == "arpack"
                and "_stream" not in self.__dict__
            )
        self._check_size(size, n, n_features)
        spectrum = np.asarray(move_to(found.scatter_values, xp=np, device="cpu")) / (n - 1)
        if size == "mle":
            size = by_evidence(spectrum, n)
        elif not is_count(size):
            size = by_variance_fraction(spectrum[:most], size)
        total = found.scatter_trace / (n - 1)
        kept = spectrum[:size]

        def stored(values: Any) -> Any:
            return xp.asarray(values, dtype=like.dtype, device=device, copy=True)

        self.n_samples_ = self.n_samples_seen_ = n
        self.n_components_ = int(size)
        self.mean_ = stored(found.mean)
        self.axes_ = stored(found.axes[:size, :])
        self.explained_variance_ = stored(kept)
        self.explained_variance_ratio_ = stored(kept / (total or 1.0))
        singular = np.sqrt(kept * (n - 1))  # which grow with the weights
        fits = singular.max(initial=0.0) < xp.finfo(like.dtype).max
        self.singular_values_ = stored(singular) if fits else xp.asarray(singular, device=device)
        self.noise_variance_ = (
            max(total - float(kept.sum()), 0.0) / (most - size) if size < most else 0.0
        )
        self._store_maps(from_squares=True)

    def _store_maps(self, from_squares: bool) -> Any:
        """Set W_e, W_d and `components_`; return each code divided by its projection on the axis.

        `from_squares` says whether the variances are eigenvalues of a matrix of sums of squares.
        """
        xp, _ = get_namespace(self.axes_)
        self._check_range()
        variance = self.explained_variance_
        if self.whiten:
            least = self._variance_of_rounding(from_squares)
            gains = 1.0 / whitening_scales(variance, least)
            self.encoder_ = self.axes_ * gains[:, None]
            self.decoder_ = self.axes_.T / gains
            self.components_ = self.axes_
            return gains
        eigenvalues = variance * ((self.n_samples_ - 1) / self.n_samples_)
        alive = eigenvalues > self.alpha
        ratio = xp.where(alive, self.alpha / xp.where(alive, eigenvalues, 1.0), 1.0)
        shrinkage = xp.sqrt(1.0 - ratio) if self.alpha > 0 else xp.ones_like(eigenvalues)
        self.encoder_ = self.axes_ * shrinkage[:, None]
        self.decoder_ = self.encoder_.T
        self.components_ = self.encoder_ if self.alpha > 0 else self.axes_
        return shrinkage

    def _variance_of_rounding(self, from_squares: bool) -> float:
        """Largest variance along an axis that rounding errors alone can cause."""
        mean, variance = (
            np.asarray(move_to(a, xp=np, device="cpu"))
            for a in (self.mean_, self.explained_variance_)
        )
        left_out = int(min(self.n_samples_, len(mean))) - self.n_components_
        total = float(variance.sum(dtype=np.float64)) + left_out * float(self.noise_variance_)
        return variance_of_rounding(mean, total, from_squares)

    def _check_range(self) -> None:
        """Raise if a variance overflows or underflows in the dtype of the rows."""
        xp, _ = get_namespace(self.axes_)
        variance = self.explained_variance_
        squared_away = (self.singular_values_[:1] > 0) & (variance[:1] == 0)
        if bool(xp.any(xp.isinf(variance))) or bool(xp.any(squared_away)):
            raise out_of_range(variance.dtype)

    def _cut(self, size: int) -> None:
        cut_axes(self, size)

    def _encode(self, X: Any) -> Any:
        # Subtracting the mean after the projection needs no copy of X and keeps X sparse.
        return X @ self.encoder_.T - self.mean_[None, :] @ self.encoder_.T

    def _decode(self, Z: Any) -> Any:
        return Z @ self.decoder_.T + self.mean_

    def _log_prob(self, X: Any) -> Any:
        variances, noise = self._floored_gaussian()
        return log_density(X, self.mean_, self.axes_, variances, noise)

    def _draw(self, n_samples: int, rng: np.random.RandomState, noise: bool) -> Any:
        xp, _, device = get_namespace_and_device(self.axes_)
        signal, noise_variance = self._gaussian()
        mean, axes, signal = (
            np.asarray(move_to(a, xp=np, device="cpu"), dtype=np.float64)
            for a in (self.mean_, self.axes_, signal)
        )
        rows = draw(n_samples, rng, mean, axes, signal, noise_variance if noise else 0.0)
        return xp.asarray(rows, dtype=self.axes_.dtype, device=device)

    def get_covariance(self) -> NDArray[Any]:
        """Return the covariance of the Gaussian that `score_samples` uses.

        Returns
        -------
        covariance : ndarray of shape (n_features, n_features)
            The variances along the axes, with n - 1, and the noise variance in all other
            directions.
        """
        self._check_model()
        xp, _, device = get_namespace_and_device(self.axes_)
        signal, noise = self._gaussian()
        covariance = (self.axes_.T * signal) @ self.axes_
        return covariance + noise * xp.eye(
            covariance.shape[0], dtype=covariance.dtype, device=device
        )

    def get_precision(self) -> NDArray[Any]:
        """Return the inverse of `get_covariance`, by the matrix inversion lemma.

        Returns
        -------
        precision : ndarray of shape (n_features, n_features)
            The inverse of the covariance. If the covariance has no inverse, the noise variance is
            first raised to about the float precision times the mean variance of the features.
        """
        self._check_model()
        variances, noise = self._floored_gaussian()
        return precision(self.axes_, variances, noise)

    def _gaussian(self) -> tuple[Any, float]:
        """Signal variances along the axes and noise variance of `get_covariance`."""
        xp, _ = get_namespace(self.axes_)
        variance, noise = self.explained_variance_, self.noise_variance_
        signal = xp.where(variance > noise, variance - noise, xp.zeros_like(variance))
        if self.whiten:
            with np.errstate(over="ignore"):
                signal = signal * variance
            check_scale(signal)
        return signal, float(noise)

    def _floored_gaussian(self) -> tuple[Any, float]:
        """Variances along the axes and noise variance, raised above zero to be invertible."""
        xp, _ = get_namespace(self.axes_)
        signal, noise = self._gaussian()
        n_features = self.axes_.shape[1]
        total = float(xp.sum(signal)) + noise * n_features
        floor = noise_floor(total / n_features, self.mean_)
        noise = max(noise, floor)
        variances = signal + noise
        return variances, noise

    def get_feature_names_out(self, input_features: ArrayLike | None = None) -> NDArray[np.object_]:
        """Return the names of the codes, which are the same as in PCA.

        Parameters
        ----------
        input_features : array-like of str or None, default=None
            Names of the features. They are only compared with the names seen in `fit`.

        Returns
        -------
        names : ndarray of str objects
            The names pca0, pca1, ...
        """
        self._check_model()
        names = super().get_feature_names_out(input_features)
        return np.asarray([f"pca{i}" for i in range(len(names))], dtype=object)

    def __sklearn_is_fitted__(self) -> bool:
        return hasattr(self, "components_")

    def _check_new_rows(self, X: Any, method: str) -> Any:
        self._check_model()
        return super()._check_new_rows(X, method)

    def _check_codes(self, Z: Any) -> Any:
        self._check_model()
        return super()._check_codes(Z)

    def _check_sample_arguments(self, n_samples: object, noise: object) -> None:
        self._check_model()
        super()._check_sample_arguments(n_samples, noise)

    def _check_model(self) -> None:
        """Raise NotFittedError if not fitted, or if `partial_fit` has seen too few rows."""
        if "_stream" in self.__dict__ and not self.__sklearn_is_fitted__():
            needed = self._rows_needed(self.n_features_in_)
            raise NotFittedError(
                f"This {type(self).__name__} has seen {self.n_samples_seen_:g} rows, and a model "
                f"with n_components={self.n_components!r} needs {needed}. Give more rows to "
                "partial_fit."
            )
        check_is_fitted(self)

    def __setstate__(self, state: dict[str, Any]) -> None:
        super().__setstate__(linear_ae_state(state))
