"""Probabilistic principal component analysis, a Gaussian model with an exact encoder.

p(z) = N(0, I), p(x|z) = N(W z + mu, sigma2 I), and so p(x) = N(mu, W W' + sigma2 I).

References
----------
M. E. Tipping and C. M. Bishop (1999). Probabilistic principal component analysis.
J. R. Stat. Soc. B 61(3), 611-622. :doi:`10.1111/1467-9868.00196`
"""

from __future__ import annotations

import copy
from collections.abc import Callable
from functools import partial
from numbers import Integral, Real
from typing import Any, ClassVar, Literal, Self

import numpy as np
from numpy.typing import ArrayLike, NDArray
from scipy import sparse
from sklearn.exceptions import ConvergenceWarning
from sklearn.utils.extmath import svd_flip
from sklearn.utils.validation import check_is_fitted

from skae._likelihood_model import LikelihoodModel
from skae._linear.completions import completions, moments_of_codes
from skae._linear.em import EMRun
from skae._linear.latent_size import by_rule, n_free_parameters
from skae._linear.low_rank_gaussian import draw, log_density, noise_floor, precision
from skae._linear.missing_values import (
    LinearGaussian,
    blocks,
    fit_em,
    group_rows,
    has_nan,
    leading_model,
    log_likelihood,
    posterior,
    seen_variances,
    start_from_pairs,
)
from skae._linear.moments import (
    Moments,
    PrincipalAxes,
    axes_of_moments,
    check_scale,
    count_enough_rows,
    out_of_range,
    principal_axes,
    row_mean,
)
from skae._linear.old_files import ppca_state
from skae._linear.pca import is_count
from skae._linear.subspace import (
    CentredRows,
    CentredScatter,
    Spectrum,
    em_axes,
    noise_variance,
    randomized_axes,
)
from skae._truncation import TruncationMixin
from skae._utils.inputs import check_every_column_seen, naming, of_tensor
from skae._utils.interrupts import keeps_progress, warn_of_interruption
from skae._utils.memory import advice_on_memory
from skae._utils.types import ArrayOrFrame, RandomState
from skae._utils.validation import Interval, RealNotInt, StrOptions, private_generator
from skae._utils.warning import ignoring, warn

Array = NDArray[Any]

# EM is faster than the closed form if there are more rows and more columns than this.
_CLOSED_FORM_LIMIT = 5_000


class PPCA(TruncationMixin, LikelihoodModel):
    r"""Probabilistic PCA, a linear Gaussian latent variable model that accepts missing values.

    The model is

    .. math:: p(z) = N(0, I), \quad p(x | z) = N(W z + \mu, \sigma^2 I)

    Bayes' rule gives the encoder
    :math:`p(z | x) = N(M^{-1} W^T (x - \mu), \sigma^2 M^{-1})`, with
    :math:`M = W^T W + \sigma^2 I`. `transform` returns its mean, and `score_samples` returns the
    exact log density of the rows. NaN marks a missing value. `fit`, `transform`, `score_samples`
    and `reconstruct` integrate over the missing values, and `impute` fills them in.

    Parameters
    ----------
    n_components : int, float, 'mle', 'bic' or None, default=None
        Number of codes. A float in (0, 1) takes the smallest number whose codes explain more than
        this fraction of the variance. `'mle'` chooses the number by Minka's method, which needs
        n_samples >= n_features. `'bic'` takes the number with the lowest BIC, at most
        n_samples / 2. None takes min(n_samples, n_features) - 1, but at least 1.
    solver : {'auto', 'closed_form', 'randomized', 'em'}, default='auto'
        How the model is computed. `'closed_form'` computes exact eigenvectors of the covariance or
        of the Gram matrix, whichever is smaller. `'randomized'` approximates them by block power
        iterations. `'em'` uses the EM algorithm: each step needs
        O(n_samples n_features n_components) operations and no matrix of shape
        (n_features, n_features). `'auto'` means `'em'` if values are missing, or if n_samples and
        n_features both exceed 5000 and `n_components` is an integer or None. Otherwise it means
        `'closed_form'`. For collections of Dask, all but EM with missing values use the covariance.
    tol : float, default=1e-5
        With missing values, EM stops when the log-likelihood increases by less than `tol` nats
        per observed value in one step. Without missing values it is not used, and EM stops when
        the axes are accurate to the square root of the float precision.
    max_iter : int, default=200
        Maximum number of iterations.
    random_state : int, RandomState instance or None, default=None
        Seed of the initial values of EM and of the solver 'randomized'. With None, every fit uses
        new random numbers. The global generators are not used.

    Attributes
    ----------
    loadings_ : ndarray of shape (n_features_in_, n_components_)
        Loadings W. The columns are orthogonal and in order of decreasing length.
    mean_ : ndarray of shape (n_features_in_,)
        Mean mu of the rows.
    noise_variance_ : float
        Noise variance sigma^2, in squared units of X. It is at least about the float precision
        times the mean variance of the features.
    components_ : ndarray of shape (n_components_, n_features_in_)
        Transpose of the loadings W, as in FactorAnalysis. `inverse_transform(Z)` equals
        `Z @ components_ + mean_`.
    axes_ : ndarray of shape (n_components_, n_features_in_)
        Principal axes, orthonormal and in order of decreasing variance. They equal `components_`
        of PCA.
    explained_variance_ : ndarray of shape (n_components_,)
        Variance lambda of the rows along each axis, with n - 1, as in PCA. (The likelihood uses
        1/n.) It is not the variance of the codes, which is 1 - sigma^2 / lambda.
    explained_variance_ratio_ : ndarray of shape (n_components_,)
        Fraction of the total variance along each axis.
    singular_values_ : ndarray of shape (n_components_,)
        Singular values of the centred rows, as in PCA: sqrt((n - 1) explained_variance_).
    n_components_ : int
        Number of codes.
    n_samples_ : int or float
        Number of training rows, or the sum of their weights if weights were given.
    n_iter_ : int
        Number of complete steps of EM; 1 for the other solvers.
    log_likelihoods_ : ndarray of shape (n_iter_,)
        Log-likelihood before each step of EM, in nats per row. Only with EM.
    n_features_in_ : int
        Number of features seen in `fit`.
    feature_names_in_ : ndarray of shape (n_features_in_,)
        Names of the features, if all are strings.
    score_kind : str
        Kind of the scores: 'log_likelihood', log densities in nats per row.

    See Also
    --------
    LinearAE : PCA with the same axes.
    sklearn.decomposition.FactorAnalysis : Model with one noise variance for each feature.

    Notes
    -----
    Codes are posterior means in units of the prior. The variance of a code is
    1 - sigma^2 / lambda, where lambda is the variance of the rows along the axis. The variance of
    a code of PCA is lambda. The codes equal those of PCA times sqrt(lambda - sigma^2) / lambda.

    The first Ctrl-C ends EM after the last complete step. The model at that point is kept, and a
    warning is issued. In the following cases Ctrl-C raises KeyboardInterrupt, and the estimator
    stays as it was before `fit`: before the first step is complete, inside a Pipeline or a search,
    and, with missing values and an `n_components` that is neither an integer nor None, during the
    first run of EM, from which the number of components is chosen.

    `sample_weight` weights rows: a row of weight 2 has the same effect as two copies of that row.
    The sum of the weights replaces n_samples everywhere, and it must exceed 1.

    References
    ----------
    M. E. Tipping and C. M. Bishop (1999). Probabilistic principal component analysis.
    J. R. Stat. Soc. B 61(3), 611-622. :doi:`10.1111/1467-9868.00196`

    T. P. Minka (2000). Automatic choice of dimensionality for PCA. NIPS 13.

    C. Liu, D. B. Rubin and Y. N. Wu (1998). Parameter expansion to accelerate EM: the
    PX-EM algorithm. Biometrika 85(4), 755-770. :doi:`10.1093/biomet/85.4.755`

    N. Halko, P. G. Martinsson and J. A. Tropp (2011). Finding structure with randomness.
    SIAM Review 53(2), 217-288. :doi:`10.1137/090771806`

    Examples
    --------
    >>> import numpy as np
    >>> from sklearn.datasets import load_iris
    >>> from skae import PPCA
    >>> X, _ = load_iris(return_X_y=True)
    >>> X[::7, 2] = np.nan
    >>> ppca = PPCA(n_components=2, random_state=0).fit(X)
    >>> print(f"{ppca.score(X):.2f} nats per row")
    -2.64 nats per row
    >>> ppca.transform(X).shape
    (150, 2)
    >>> bool(np.isnan(ppca.impute(X)).any())
    False
    """

    loadings_: Array

    _state_shapes = TruncationMixin._state_shapes | {
        "loadings_": ("n_features_in_", "n_components_")
    }
    _parameter_constraints: ClassVar[dict[str, list[Any]]] = {
        "n_components": [
            Interval(Integral, 1, None, closed="left"),
            Interval(RealNotInt, 0, 1, closed="neither"),
            StrOptions({"mle", "bic"}),
            None,
        ],
        "solver": [StrOptions({"auto", "closed_form", "randomized", "em"})],
        "tol": [Interval(Real, 0, None, closed="left")],
        "max_iter": [Interval(Integral, 1, None, closed="left")],
        "random_state": ["random_state"],
    }

    def __init__(
        self,
        n_components: int | float | Literal["mle", "bic"] | None = None,
        *,
        solver: Literal["auto", "closed_form", "em", "randomized"] = "auto",
        tol: float = 1e-5,
        max_iter: int = 200,
        random_state: RandomState = None,
    ) -> None:
        self.n_components = n_components
        self.solver = solver
        self.tol = tol
        self.max_iter = max_iter
        self.random_state = random_state

    # ----------------------------------------------------------------- learning

    def _fit_model(
        self,
        X: Any,
        rng: np.random.RandomState,
        sample_weight: Any | None,
        previous: Self | None,
    ) -> None:
        self.n_samples_ = count_enough_rows(X, sample_weight)
        mean = row_mean(X, sample_weight)
        # The mean of dense rows shows whether there is NaN; the mean of sparse rows ignores NaN.
        with advice_on_memory(
            "Set n_components to a small integer and use solver='em' or solver='randomized', which "
            "need no matrix of shape (n_features, n_features)."
        ):
            self._is_of_missing_values = bool(
                (sparse.issparse(X) or np.isnan(mean).any()) and has_nan(X)
            )
            if self._is_of_missing_values:
                self._fit_incomplete(X, rng, sample_weight, previous)
            else:
                axes = partial(principal_axes, X, sample_weight, mean=mean)
                self._fit_complete(X, rng, axes, partial(CentredRows, X, sample_weight, mean))

    def _fit_complete(
        self,
        like: Any,
        rng: np.random.RandomState,
        axes: Callable[[int], PrincipalAxes],
        rows: Callable[[], CentredRows | CentredScatter],
    ) -> None:
        """Fit to rows of this shape and dtype, from their exact axes or from products."""
        n_features = like.shape[1]
        solver, size = self._choose_solver(like), self._known_size(n_features)
        self.n_iter_ = 1
        if solver == "closed_form":
            spectrum = self._leading(axes(size or int(min(self.n_samples_, n_features))), size)
        elif size is None:
            raise ValueError(
                f"n_components={self.n_components!r} needs all eigenvalues, which "
                f"solver={solver!r} does not compute. Use solver='closed_form', or set "
                "n_components to an integer."
            )
        else:
            source = rows()
            check_scale(np.asarray(source.trace))
            if solver == "em":
                keeps = keeps_progress(self)
                spectrum, run = em_axes(source, size, rng, self.max_iter, keeps_progress=keeps)
                self._store_run(run, run.log_likelihoods)
            else:
                spectrum = randomized_axes(source, size, rng)
        self._store(spectrum, like.dtype)

    def _learn_moments(self, stats: Moments, like: Any) -> None:
        self.n_samples_, self.n_iter_, self._is_of_missing_values = stats.n, 1, False
        n_features = like.shape[1]
        size = self._known_size(n_features)
        found = axes_of_moments(stats, size or int(min(stats.n, n_features)))
        self._store(self._leading(found, size), like.dtype)

    def _learn_blocks(self, blocks: Any, found: Any) -> None:
        self.n_samples_, self._is_of_missing_values = found.n, found.any_missing
        like, rng, stats = found.like(), self._generator(), found.moments
        if found.any_missing:
            self._fit_by_em(blocks.incomplete(found), rng, like.dtype, None)
        else:
            axes = partial(axes_of_moments, stats)
            self._fit_complete(like, rng, axes, partial(CentredScatter, stats, like))

    def _leading(self, found: PrincipalAxes, size: int | None) -> Spectrum:
        """The leading axes; if `size` is None, `n_components` chooses their number."""
        values = found.scatter_values / found.n
        size = size or self._size_of(values)
        return Spectrum(values[:size], found.axes[:size], found.scatter_trace / found.n, found.mean)

    def _fit_incomplete(
        self, X: Array, rng: np.random.RandomState, weight: Array | None, larger: Self | None
    ) -> None:
        check_every_column_seen(X, getattr(self, "feature_names_in_", None))
        some = ~np.isnan(X).all(axis=1)
        if not some.all():
            X, weight = X[some], None if weight is None else weight[some]
        self._fit_by_em(group_rows(X, weight), rng, X.dtype, larger)

    def _fit_by_em(
        self, rows: Any, rng: np.random.RandomState, dtype: Any, larger: Self | None
    ) -> None:
        """Fit to IncompleteRows, or to rows in blocks with the same sums."""
        if self.solver not in ("auto", "em"):
            raise ValueError(
                f"X contains NaN, which solver={self.solver!r} does not accept. Use solver='em' "
                "or solver='auto'."
            )
        n_features = rows.n_features
        variances = seen_variances(rows)
        check_scale(np.r_[rows.shift, variances])
        floor = noise_floor(float(variances.mean()), rows.shift.astype(dtype))
        size = self._known_size(n_features)
        if size is None:
            most = max(1, int(min(self.n_samples_, n_features)) - 1)
            # This run only chooses the size. If it is interrupted, there is no model to keep.
            model = self._run_em(rows, most, rng, floor, keeps=False)
            spectrum = np.full(n_features, model.noise_variance)
            spectrum[:most] += np.linalg.svd(model.loadings, compute_uv=False) ** 2
            size = self._size_of(spectrum)
        start = None if larger is None else leading_model(larger._model(), size, floor)
        model = self._run_em(rows, size, rng, floor, keeps=keeps_progress(self), start=start)
        axes, lengths, _ = np.linalg.svd(model.loadings, full_matrices=False)
        values = lengths**2 + model.noise_variance
        trace = float(values.sum()) + (n_features - size) * model.noise_variance
        self._store(Spectrum(values, axes.T, trace, model.mean), dtype, model.noise_variance)

    def _run_em(
        self,
        rows: Any,
        size: int,
        rng: np.random.RandomState,
        floor: float,
        *,
        keeps: bool,
        start: LinearGaussian | None = None,
    ) -> LinearGaussian:
        run = fit_em(
            rows,
            start or start_from_pairs(rows, size, rng, floor),
            tol=self.tol,
            max_iter=self.max_iter,
            floor=floor,
            keeps_progress=keeps,
        )
        self._store_run(run, np.divide(run.log_likelihoods, self.n_samples_))
        return run.state

    def _choose_solver(self, X: Any) -> str:
        if self.solver != "auto":
            return self.solver
        needs_no_spectrum = self.n_components is None or is_count(self.n_components)
        large = min(X.shape) > _CLOSED_FORM_LIMIT and needs_no_spectrum
        return "em" if large else "closed_form"

    def _known_size(self, n_features: int) -> int | None:
        """The number of components; None if the eigenvalues are needed to choose it."""
        most = int(min(self.n_samples_, n_features))
        if self.n_components is None:
            return max(1, most - 1)
        if not is_count(self.n_components):
            return None
        if self.n_components > most:
            raise ValueError(
                f"n_components={self.n_components} must be between 1 and "
                f"min(n_samples, n_features)={most}"
            )
        return int(self.n_components)

    def _size_of(self, spectrum: Array) -> int:
        return by_rule(self.n_components, spectrum, self.n_samples_, self.n_features_in_)

    def _store_run(self, run: EMRun, nats_per_row: ArrayLike) -> None:
        self.log_likelihoods_ = np.asarray(nats_per_row)
        self.n_iter_ = len(self.log_likelihoods_)
        if run.ended_by == "interrupt":
            warn_of_interruption("iteration", self.n_iter_)
        elif run.ended_by == "max_iter":
            warn(
                f"EM did not converge in max_iter={self.max_iter} steps. Increase max_iter or tol.",
                ConvergenceWarning,
            )

    def _store(self, spectrum: Spectrum, dtype: Any, noise: float | None = None) -> None:
        """Set the fitted attributes; `noise` is sigma^2 if EM estimated it."""
        values, axes, trace, mean = spectrum
        n, n_features = self.n_samples_, len(mean)
        floor = noise_floor(trace / n_features, mean.astype(dtype))
        if noise is None:
            noise = noise_variance(values, trace, n_features)
            # Rounding errors alone can cause such a small difference.
            if noise * (n_features - len(values)) <= 10 * np.finfo(dtype).eps * trace:
                noise = 0.0
        if noise <= floor:
            warn(
                f"The noise variance was raised to its lower bound {floor:.3g}: {len(values)} "
                "components explain all variance. For a reliable density, use fewer components."
            )
            noise = floor
        _, axes = svd_flip(None, axes, u_based_decision=False)
        self.n_components_ = len(values)
        self.noise_variance_ = float(noise)
        self.mean_ = mean.astype(dtype)
        self.axes_ = np.ascontiguousarray(axes, dtype=dtype)
        self.loadings_ = (axes.T * np.sqrt(np.maximum(values - noise, 0.0))).astype(dtype)
        self.components_ = np.ascontiguousarray(self.loadings_.T)
        self.explained_variance_ = (values * (n / (n - 1))).astype(dtype)
        singular = np.sqrt(values * n)  # which grow with the weights
        fits = singular.max(initial=0.0) < np.finfo(dtype).max
        self.singular_values_ = singular.astype(dtype) if fits else singular
        self.explained_variance_ratio_ = (values / (trace or 1.0)).astype(dtype)
        limits = np.finfo(dtype)
        if not (limits.tiny < noise < limits.max and np.isfinite(self.explained_variance_).all()):
            raise out_of_range(np.dtype(dtype))

    def _cut(self, size: int) -> None:
        by_em = self._is_of_missing_values
        if by_em and size < self.n_components_:
            raise ValueError(
                "truncate cannot reduce a PPCA that was fitted to rows with missing values, "
                "because the maximum-likelihood model with fewer components has other axes. Fit a "
                f"PPCA with n_components={size}."
            )
        values, left_out = self._kept_and_left_out()
        axes, mean = (a.astype(np.float64) for a in (self.axes_[:size], self.mean_))
        trace = float(values.sum()) + left_out
        noise = self.noise_variance_ if by_em else None
        self._store(Spectrum(values[:size], axes, trace, mean), self.mean_.dtype, noise)

    def _kept_and_left_out(self) -> tuple[Array, float]:
        """Eigenvalues of the covariance with 1/n (k,), and the sum of all others."""
        n, n_features = self.n_samples_, self.n_features_in_
        values = self.explained_variance_.astype(np.float64) * ((n - 1) / n)
        noise = self.noise_variance_
        # A noise variance at its lower bound means that there is no noise.
        if noise <= 2 * noise_floor(float(values.sum()) / n_features, self.mean_):
            noise = 0.0
        return values, noise * (n_features - len(values))

    def _size_of_rule(self, rule: Literal["mle", "bic"] | float | None) -> int:
        """Size that n_components=rule chooses. The model may lack at most one component."""
        model = copy.copy(self)
        model.n_components = rule
        values, left_out = self._kept_and_left_out()
        if len(values) < min(self.n_samples_, self.n_features_in_):
            values = np.r_[values, left_out]
        return model._known_size(self.n_features_in_) or model._size_of(values)

    # ------------------------------------------------------------------ queries

    def _encode(self, X: Any) -> Array:
        if has_nan(X):
            codes = np.empty((X.shape[0], self.n_components_), dtype=self._dtype_for(X))
            for index, _, found in self._inferred(X):
                codes[index] = found.mean.T
            return codes
        # W'W and M are diagonal. The entries of M are the variances along the axes.
        encoder = self.loadings_ / self._variances
        return X @ encoder - self.mean_ @ encoder

    def _decode(self, Z: Array) -> Array:
        return Z @ self.loadings_.T + self.mean_

    def _log_prob(self, X: Any) -> Array:
        if not has_nan(X):
            return log_density(X, self.mean_, self.axes_, self._variances, self.noise_variance_)
        nats = np.empty(X.shape[0], dtype=self._dtype_for(X))
        model = self._model()
        for index, block, found in self._inferred(X):
            nats[index] = log_likelihood(block, model, found)
        return nats

    def _draw(self, n_samples: int, rng: np.random.RandomState, noise: bool) -> Array:
        variance = self.noise_variance_ if noise else 0.0
        rows = draw(n_samples, rng, self.mean_, self.axes_, self._signal, variance)
        return rows.astype(self.mean_.dtype)

    def sample(
        self,
        n_samples: int = 1,
        *,
        given: ArrayLike | None = None,
        noise: bool = True,
        random_state: RandomState = None,
    ) -> ArrayOrFrame:
        """Draw new rows from the model, or draw the missing values of a given row.

        Parameters
        ----------
        n_samples : int, default=1
            Number of rows to draw.
        given : array-like of shape (n_features,) or (1, n_features), default=None
            A row with NaN for its missing values. They are drawn from their distribution given the
            other values of the row. With None, whole rows are drawn.
        noise : bool, default=True
            Whether to draw from p(x|z). With False, the rows are the means of p(x|z).
        random_state : int, RandomState instance or None, default=None
            Seed of the draw. With None, every call draws other rows.

        Returns
        -------
        X_new : ndarray of shape (n_samples, n_features)
            The drawn rows, with the values that `given` has. `set_output` makes them a data frame.

        Raises
        ------
        ValueError
            If `n_samples` is not a positive integer, or if `given` is not one row.
        TypeError
            If `given` is sparse.
        """
        if given is None:
            return super().sample(n_samples, noise=noise, random_state=random_state)
        self._check_sample_arguments(n_samples, noise)
        if sparse.issparse(given):
            raise TypeError("given must be a dense row, got a sparse one. Use given.toarray().")
        if hasattr(given, "index") and hasattr(given, "to_frame"):  # a row of a data frame
            given = given.to_frame().T
        given = of_tensor(given, "given")
        with ignoring("X does not have valid feature names"), naming("given"):
            if np.ndim(given) == 1:  # a plain row need not have names
                given = np.asanyarray(given)[None, :]  # a masked array keeps its mask
            row = self._check_new_rows(given, "sample")
        if row.shape[0] != 1:
            raise ValueError(f"given must be one row, got {row.shape[0]} rows.")
        rng = private_generator(random_state)
        draws = self._conditional_draws(row, n_samples, rng, noise)[:, 0, :]
        return self._to_frame(draws)

    def posterior(self, X: ArrayLike) -> tuple[Array, Array]:
        """Return the means and the covariances of p(z|x).

        Parameters
        ----------
        X : {array-like, sparse matrix} of shape (n_samples, n_features)
            Rows. NaN marks a missing value; the posterior is then given the observed values.

        Returns
        -------
        means : ndarray of shape (n_samples, n_components_)
            Posterior means, as `transform` returns them.
        covariances : ndarray of shape (n_samples, n_components_, n_components_)
            Posterior covariances. Complete rows have the same covariance. If no row has NaN, the
            array is a read-only view of this one matrix.
        """
        return self._posterior(self._check_new_rows(X, "posterior"))

    def impute(
        self,
        X: ArrayLike,
        n_draws: int | None = None,
        random_state: RandomState = None,
    ) -> ArrayOrFrame:
        """Fill in missing values.

        Parameters
        ----------
        X : array-like of shape (n_samples, n_features)
            Rows with NaN for missing values.
        n_draws : int, default=None
            Number of imputations to draw for multiple imputation. Missing values are drawn from
            their distribution given the observed values, including noise. None fills in the
            conditional means.
        random_state : int, RandomState instance or None, default=None
            Seed of the draws. With None, every call draws other values.

        Returns
        -------
        X_imputed : ndarray of shape (n_samples, n_features), or \
                (n_draws, n_samples, n_features)
            The rows with every NaN replaced. Observed values are not changed. `set_output` makes
            conditional means a data frame; without it they are an array, also if `X` is a data
            frame. Draws are always an array.

        Raises
        ------
        ValueError
            If `n_draws` is not a positive integer or None.
        TypeError
            If `X` is sparse.
        """
        self._check_argument("n_draws", n_draws, [Interval(Integral, 1, None, closed="left"), None])
        rows = self._check_new_rows(X, "impute")
        if sparse.issparse(rows):
            raise TypeError("X must be dense rows for impute, got a sparse matrix.")
        if n_draws is None:
            return self._to_frame(
                np.where(np.isnan(rows), self._decode(self._encode(rows)), rows), X
            )
        return self._conditional_draws(rows, n_draws, private_generator(random_state), True)

    def get_covariance(self) -> Array:
        """Return the covariance of p(x), W W' + sigma^2 I.

        Returns
        -------
        covariance : ndarray of shape (n_features, n_features)
            The covariance, with 1/n, as in the likelihood.
        """
        check_is_fitted(self)
        covariance = self.loadings_ @ self.loadings_.T
        covariance[np.diag_indices_from(covariance)] += self.noise_variance_
        return covariance

    def get_precision(self) -> Array:
        """Return the inverse of `get_covariance`, by the matrix inversion lemma.

        Returns
        -------
        precision : ndarray of shape (n_features, n_features)
            The inverse of the covariance.
        """
        check_is_fitted(self)
        return precision(self.axes_, self._variances, self.noise_variance_)

    # ------------------------------------------------------------------ helpers

    def _posterior(self, X: Any) -> tuple[Array, Array]:
        shape = (X.shape[0], self.n_components_, self.n_components_)
        if not has_nan(X):
            shared = np.diag(self.noise_variance_ / self._variances).astype(self.mean_.dtype)
            return self._encode(X), np.broadcast_to(shared, shape)
        inferred, dtype = self._inferred(X), self._dtype_for(X)
        return moments_of_codes(inferred, shape, self.noise_variance_, dtype)

    def _conditional_draws(
        self, X: Array, n_draws: int, rng: np.random.RandomState, noise: bool
    ) -> Array:
        """Draws (n_draws, n, D) of the rows from p(missing values | observed values)."""
        draws = np.tile(X, (n_draws, 1, 1))
        if (some := np.isnan(X).any(axis=1)).any():
            variance = self.noise_variance_ if noise else None
            codes = self._posterior(X[some])
            draws[:, some] = completions(X[some], *codes, self._decode, variance, n_draws, rng)
        return draws

    def _dtype_for(self, X: Any) -> Any:
        """The dtype of products of rows with the loadings."""
        return np.result_type(X.dtype, self.mean_.dtype)

    def _model(self) -> LinearGaussian:
        loadings, mean = (a.astype(np.float64) for a in (self.loadings_, self.mean_))
        return LinearGaussian(loadings, mean, self.noise_variance_)

    def _inferred(self, X: Array) -> Any:
        """Posteriors of rows with missing values, by blocks: (indices, block, posterior)."""
        model = self._model()
        rows = group_rows(X, None, shift=model.mean)
        for groups, positions in blocks(rows, self.n_components_):
            block = rows.block(groups, positions)
            yield rows.order[positions], block, posterior(block, model)

    def _floored_gaussian(self) -> tuple[Array, float]:
        """Variances along the axes and noise variance of p(x)."""
        return self._variances, self.noise_variance_

    @property
    def _signal(self) -> Array:
        """Squared lengths of the loadings (k,)."""
        return np.sum(self.loadings_**2, axis=0)

    @property
    def _variances(self) -> Array:
        """Variances of p(x) along the axes (k,)."""
        return self._signal + self._signal.dtype.type(self.noise_variance_)

    def _n_free_parameters(self) -> int:
        return n_free_parameters(self.n_features_in_, self.n_components_)

    def __setstate__(self, state: dict[str, Any]) -> None:
        super().__setstate__(ppca_state(state))

    def __sklearn_tags__(self) -> Any:
        tags = super().__sklearn_tags__()
        tags.input_tags.allow_nan = True
        tags.input_tags.sparse = True
        tags.transformer_tags.preserves_dtype = ["float64", "float32"]
        return tags
