"""Probabilistic principal component analysis: a Gaussian model whose encoder is Bayes' rule.

p(z) = N(0, I), p(x|z) = N(W z + mu, sigma2 I), and so p(x) = N(mu, W W' + sigma2 I).

References
----------
M. E. Tipping and C. M. Bishop (1999). Probabilistic principal component analysis.
J. R. Stat. Soc. B 61(3), 611-622. :doi:`10.1111/1467-9868.00196`
"""

import copy
import warnings
from numbers import Integral, Real
from typing import Any, ClassVar, Self

import numpy as np
from numpy.typing import ArrayLike, NDArray
from scipy import sparse
from sklearn.exceptions import ConvergenceWarning
from sklearn.utils.extmath import svd_flip
from sklearn.utils.validation import check_is_fitted

from skae._likelihood_model import LikelihoodModel
from skae._linear.em import EMRun
from skae._linear.latent_size import by_bic, by_evidence, by_variance_fraction, n_free_parameters
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
from skae._linear.packed import unpack
from skae._linear.pca import is_count
from skae._linear.subspace import CentredRows, Spectrum, em_axes, noise_variance, randomized_axes
from skae._truncation import TruncationMixin
from skae._utils.inputs import check_every_column_seen
from skae._utils.interrupts import keeps_progress, warn_of_interruption
from skae._utils.memory import advice_on_memory
from skae._utils.validation import Interval, RealNotInt, StrOptions, private_generator

Array = NDArray[Any]

# Beyond this many rows and columns, eigenvectors cost more than EM.
_CLOSED_FORM_LIMIT = 5_000


class PPCA(TruncationMixin, LikelihoodModel):
    r"""Probabilistic PCA: a Gaussian latent model with missing values.

    .. math:: p(z) = N(0, I), \quad p(x | z) = N(W z + \mu, \sigma^2 I)

    and by Bayes' rule, with :math:`M = W^T W + \sigma^2 I`, the encoder
    :math:`p(z | x) = N(M^{-1} W^T (x - \mu), \sigma^2 M^{-1})`. `score_samples` is the
    exact log density. NaN is data that was not seen: it is integrated out in `fit`,
    `transform`, `score_samples` and `reconstruct`, and filled in by `impute`.

    Parameters
    ----------
    n_components : int, float, 'mle', 'bic' or None, default=None
        Number of codes. A float in (0, 1) is a fraction of the variance, `'mle'` Minka's
        choice (needs n_samples >= n_features), `'bic'` the size with the lowest BIC, at
        most n_samples / 2; None is min(n_samples, n_features) - 1, at least 1, which
        leaves noise to estimate if there are more rows than features.
    solver : {'auto', 'closed_form', 'randomized', 'em'}, default='auto'
        `'closed_form'`: eigenvectors of the smaller of the covariance and the Gram
        matrix, exact. `'randomized'`: block power iterations, approximate. `'em'`: EM,
        each step O(n_samples n_features n_components), never a matrix of n_features
        squared. `'auto'`: `'em'` when values are missing, or when both n_samples and
        n_features exceed 5000 and `n_components` is an integer or None; else
        `'closed_form'`.
    tol : float, default=1e-5
        With missing values, EM stops when a step gains less than `tol` nats for each
        value seen. Complete rows are solved until the axes are right to the square root
        of the float precision, and the variances to that precision.
    max_iter : int, default=200
        Iterations at most.
    random_state : int, RandomState instance or None, default=None
        Seed of the start of EM and of the randomized solver. None takes fresh entropy; the
        global generators are never touched.

    Attributes
    ----------
    loadings_ : ndarray of shape (n_features_in_, n_components_)
        W, with orthogonal columns by decreasing length.
    mean_ : ndarray of shape (n_features_in_,)
        Mean row, mu.
    noise_variance_ : float
        sigma squared, at least the float precision times the mean variance.
    components_ : ndarray of shape (n_components_, n_features_in_)
        The transpose of W, as FactorAnalysis has it: `Z @ components_ + mean_` is
        `inverse_transform(Z)`.
    axes_ : ndarray of shape (n_components_, n_features_in_)
        Principal axes, orthonormal, by decreasing variance, as PCA's `components_`.
    explained_variance_ : ndarray of shape (n_components_,)
        Variance lambda of the rows along each axis with n - 1, as PCA's. (The likelihood
        uses 1/n.) It is not the variance of the codes, which is 1 - sigma^2 / lambda.
    explained_variance_ratio_ : ndarray of shape (n_components_,)
        Their fractions of the total variance.
    singular_values_ : ndarray of shape (n_components_,)
        Singular values of the centred rows, as PCA's: sqrt((n - 1) explained_variance_).
    n_components_ : int
        Number of codes.
    n_samples_ : int or float
        Number of training rows; the sum of their weights, where given.
    n_iter_ : int
        E-steps of EM, the complete ones if it was interrupted; 1 for the other solvers.
    log_likelihoods_ : ndarray of shape (n_iter_,)
        With EM, the log-likelihood before each step, nats per row.
    n_features_in_ : int
        Number of features seen in `fit`.
    feature_names_in_ : ndarray of shape (n_features_in_,)
        Names of the features, if all are strings.
    score_kind : str
        'log_likelihood': scores are log densities, in nats per row.

    See Also
    --------
    LinearAE : PCA itself, with the same axes.
    sklearn.decomposition.FactorAnalysis : One noise variance for each feature.

    Notes
    -----
    Codes are posterior means in units of the prior: their variance is
    1 - sigma^2 / lambda, near one for strong components, where PCA's is lambda. They are
    PCA's codes times sqrt(lambda - sigma^2) / lambda.

    A first Ctrl-C during EM ends it; what the last complete step left is kept, with a
    warning. It is raised, and the estimator is as before `fit`, within a Pipeline or a
    search, before the first step is complete, and in the EM of most components by which an
    `n_components` that is no integer is chosen when values are missing.

    Weights count rows, as if each row were repeated: their sum takes the place of
    n_samples everywhere, and it must exceed 1.

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
        n_components: int | float | str | None = None,
        *,
        solver: str = "auto",
        tol: float = 1e-5,
        max_iter: int = 200,
        random_state: int | np.random.RandomState | None = None,
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
        # A dense mean shows NaN without a further look at X; a sparse one leaves it out.
        with advice_on_memory(
            "Set an integer n_components, a small one, and solver='em' or 'randomized', which "
            "form no matrix of n_features squared."
        ):
            self._is_of_missing_values = bool(
                (sparse.issparse(X) or np.isnan(mean).any()) and has_nan(X)
            )
            if self._is_of_missing_values:
                self._fit_incomplete(X, rng, sample_weight, previous)
            else:
                self._fit_complete(X, rng, sample_weight, mean)

    def _fit_complete(
        self, X: Any, rng: np.random.RandomState, weight: Array | None, mean: Array
    ) -> None:
        n, n_features = self.n_samples_, X.shape[1]
        solver = self._choose_solver(X)
        size = self._known_size(n_features)
        self.n_iter_ = 1
        if solver == "closed_form":
            found = principal_axes(X, weight, size or int(min(n, n_features)), mean)
            spectrum = self._leading(found, size)
        elif size is None:
            raise ValueError(
                f"n_components={self.n_components!r} needs the whole spectrum, which "
                f"solver={solver!r} does not compute; use solver='closed_form'."
            )
        else:
            rows = CentredRows(X, weight, mean)
            check_scale(np.asarray(rows.trace))
            if solver == "em":
                spectrum, run = em_axes(
                    rows, size, rng, self.max_iter, keeps_progress=keeps_progress(self)
                )
                self._store_run(run, run.log_likelihoods)
            else:
                spectrum = randomized_axes(rows, size, rng)
        self._store(spectrum, X.dtype)

    def _learn_moments(self, stats: Moments, like: Any) -> None:
        self.n_samples_, self.n_iter_, self._is_of_missing_values = stats.n, 1, False
        n_features = like.shape[1]
        size = self._known_size(n_features)
        found = axes_of_moments(stats, size or int(min(stats.n, n_features)))
        self._store(self._leading(found, size), like.dtype)

    def _leading(self, found: PrincipalAxes, size: int | None) -> Spectrum:
        """The axes that are kept; without a size, of all."""
        values = found.scatter_values / found.n
        size = size or self._size_of(values)
        return Spectrum(values[:size], found.axes[:size], found.scatter_trace / found.n, found.mean)

    def _fit_incomplete(
        self, X: Array, rng: np.random.RandomState, weight: Array | None, larger: Self | None
    ) -> None:
        if self.solver not in ("auto", "em"):
            raise ValueError(
                f"X contains NaN, which solver={self.solver!r} cannot fit; use solver='em' or "
                "'auto'."
            )
        check_every_column_seen(X, getattr(self, "feature_names_in_", None))
        some = ~np.isnan(X).all(axis=1)
        if not some.all():
            X, weight = X[some], None if weight is None else weight[some]
        rows = group_rows(X, weight)
        variances = seen_variances(rows)
        check_scale(np.r_[rows.shift, variances])
        floor = noise_floor(float(variances.mean()), rows.shift.astype(X.dtype))
        size = self._known_size(X.shape[1])
        if size is None:
            most = max(1, int(min(self.n_samples_, X.shape[1])) - 1)
            # Cut short, this stage would leave no model of the size that is asked for.
            model = self._run_em(rows, most, rng, floor, keeps=False)
            spectrum = np.full(X.shape[1], model.noise_variance)
            spectrum[:most] += np.linalg.svd(model.loadings, compute_uv=False) ** 2
            size = self._size_of(spectrum)
        start = None if larger is None else leading_model(larger._model(), size, floor)
        model = self._run_em(rows, size, rng, floor, keeps=keeps_progress(self), start=start)
        axes, lengths, _ = np.linalg.svd(model.loadings, full_matrices=False)
        values = lengths**2 + model.noise_variance
        trace = float(values.sum()) + (X.shape[1] - size) * model.noise_variance
        self._store(Spectrum(values, axes.T, trace, model.mean), X.dtype, model.noise_variance)

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
        """The number of components, if no spectrum is needed to tell it."""
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
        n, n_features = self.n_samples_, self.n_features_in_
        if self.n_components == "bic":
            return by_bic(spectrum, n, n_features)
        if self.n_components == "mle":
            if n < n_features:
                raise ValueError(
                    "n_components='mle' is only supported if n_samples >= n_features, got "
                    f"n_samples={n} and n_features={n_features}"
                )
            return by_evidence(spectrum * (n / (n - 1)), n)
        return by_variance_fraction(spectrum, float(self.n_components))  # type: ignore[arg-type]

    def _store_run(self, run: EMRun, nats_per_row: ArrayLike) -> None:
        self.log_likelihoods_ = np.asarray(nats_per_row)
        self.n_iter_ = len(self.log_likelihoods_)
        if run.ended_by == "interrupt":
            warn_of_interruption("iteration", self.n_iter_)
        elif run.ended_by == "max_iter":
            warnings.warn(
                f"EM did not converge in max_iter={self.max_iter} steps; raise max_iter or tol.",
                ConvergenceWarning,
                stacklevel=2,
            )

    def _store(self, spectrum: Spectrum, dtype: Any, noise: float | None = None) -> None:
        """Set the fitted attributes; `noise` is sigma2 where EM estimated it."""
        values, axes, trace, mean = spectrum
        n, n_features = self.n_samples_, len(mean)
        floor = noise_floor(trace / n_features, mean.astype(dtype))
        if noise is None:
            noise = noise_variance(values, trace, n_features)
            # A difference that rounding alone could have left is none.
            if noise * (n_features - len(values)) <= 10 * np.finfo(dtype).eps * trace:
                noise = 0.0
        if noise <= floor:
            warnings.warn(
                f"The noise variance was floored at {floor:.3g}: {len(values)} components leave "
                "no variance to the noise. Take fewer for a density that can be trusted.",
                UserWarning,
                stacklevel=2,
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
        self.singular_values_ = np.sqrt(values * n).astype(dtype)
        self.explained_variance_ratio_ = (values / (trace or 1.0)).astype(dtype)
        limits = np.finfo(dtype)
        if not (limits.tiny < noise < limits.max and np.isfinite(self.explained_variance_).all()):
            raise out_of_range(np.dtype(dtype))

    def _cut(self, size: int) -> None:
        by_em = self._is_of_missing_values
        if by_em and size < self.n_components_:
            raise ValueError(
                "truncate cannot cut a PPCA that was fitted to rows with missing values: its "
                "smaller model of maximum likelihood has other axes. Fit it with "
                f"n_components={size}."
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
        # What is floored stands for no noise.
        if noise <= 2 * noise_floor(float(values.sum()) / n_features, self.mean_):
            noise = 0.0
        return values, noise * (n_features - len(values))

    def _size_of_rule(self, rule: str | float | None) -> int:
        """What n_components=rule means, of a model of all components but one at most."""
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
        # W'W is diagonal, and so is M: its entries are the variances along the axes.
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
        random_state: int | np.random.RandomState | None = None,
    ) -> Any:
        """Draw new rows, or the missing part of a given row.

        Parameters
        ----------
        n_samples : int, default=1
            How many rows to draw.
        given : array-like of shape (n_features,) or (1, n_features), default=None
            A row with NaN where it is to be drawn, conditionally on its other values.
        noise : bool, default=True
            Draw from p(x|z); False returns its means, without the noise.
        random_state : int, RandomState instance or None, default=None
            Seed of the draw. None takes fresh entropy, so that two calls differ.

        Returns
        -------
        X_new : ndarray of shape (n_samples, n_features)
            The drawn rows; where `given` has a value, that value.

        Raises
        ------
        ValueError
            If `n_samples` is not a positive integer or `given` is not one row.
        TypeError
            If `given` is sparse.
        """
        if given is None:
            return super().sample(n_samples, noise=noise, random_state=random_state)
        self._check_sample_arguments(n_samples, noise)
        if sparse.issparse(given):
            raise TypeError("given must be a dense row: a sparse one has no missing values.")
        if hasattr(given, "index") and hasattr(given, "to_frame"):  # a row of a data frame
            given = given.to_frame().T
        if np.ndim(given) == 1:
            given = np.asanyarray(given)[None, :]  # a mask stays
        with warnings.catch_warnings():  # a plain row need not repeat the names
            warnings.filterwarnings("ignore", "X does not have valid feature names", UserWarning)
            row = self._check_new_rows(given, "sample")
        if row.shape[0] != 1:
            raise ValueError(f"given must be one row, got {row.shape[0]} rows.")
        rng = private_generator(random_state)
        draws = self._conditional_draws(row, n_samples, rng, noise)[:, 0, :]
        return self._to_frame(draws)

    def posterior(self, X: ArrayLike) -> tuple[Array, Array]:
        """Means and covariances of p(z | what was seen of x).

        Parameters
        ----------
        X : {array-like, sparse matrix} of shape (n_samples, n_features)
            Rows; NaN is a value not seen. A row of NaN alone has the prior.

        Returns
        -------
        means : ndarray of shape (n_samples, n_components_)
            What `transform` returns.
        covariances : ndarray of shape (n_samples, n_components_, n_components_)
            For complete rows a read-only view of one matrix, which they share.
        """
        return self._posterior(self._check_new_rows(X, "posterior"))

    def impute(
        self,
        X: ArrayLike,
        n_draws: int | None = None,
        random_state: int | np.random.RandomState | None = None,
    ) -> Any:
        """Fill in missing values.

        Parameters
        ----------
        X : array-like of shape (n_samples, n_features)
            Rows with NaN where a value is missing.
        n_draws : int, default=None
            None fills in conditional means; a number draws as many completions from
            the posterior, noise included, for multiple imputation.
        random_state : int, RandomState instance or None, default=None
            Seed of the draws. None takes fresh entropy.

        Returns
        -------
        X_imputed : ndarray of shape (n_samples, n_features), or \
                (n_draws, n_samples, n_features)
            The rows with every NaN replaced; the seen values are returned as they are.
            Means are a data frame under `set_output`, and an array without it, also of
            frames of pandas, polars or pyarrow; draws are always an array.

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
            raise TypeError("impute takes dense rows; a sparse matrix has no missing values.")
        if n_draws is None:
            return self._to_frame(
                np.where(np.isnan(rows), self._decode(self._encode(rows)), rows), X
            )
        return self._conditional_draws(rows, n_draws, private_generator(random_state), True)

    def get_covariance(self) -> Array:
        """Covariance of p(x): W W' + sigma^2 I.

        Returns
        -------
        covariance : ndarray of shape (n_features, n_features)
            With 1/n, as the likelihood has it.
        """
        check_is_fitted(self)
        covariance = self.loadings_ @ self.loadings_.T
        covariance[np.diag_indices_from(covariance)] += self.noise_variance_
        return covariance

    def get_precision(self) -> Array:
        """Inverse of `get_covariance`, by the matrix inversion lemma.

        Returns
        -------
        precision : ndarray of shape (n_features, n_features)
            The inverse.
        """
        check_is_fitted(self)
        return precision(self.axes_, self._variances, self.noise_variance_)

    # ------------------------------------------------------------------ helpers

    def _posterior(self, X: Any) -> tuple[Array, Array]:
        shape = (X.shape[0], self.n_components_, self.n_components_)
        if not has_nan(X):
            shared = np.diag(self.noise_variance_ / self._variances).astype(self.mean_.dtype)
            return self._encode(X), np.broadcast_to(shared, shape)
        means = np.empty(shape[:2], dtype=self._dtype_for(X))
        covariances = np.empty(shape, dtype=means.dtype)
        for index, block, found in self._inferred(X):
            means[index] = found.mean.T
            matrices = self.noise_variance_ * unpack(found.inverse)
            covariances[index] = np.repeat(matrices, block.sizes, axis=0)
        return means, covariances

    def _conditional_draws(
        self, X: Array, n_draws: int, rng: np.random.RandomState, noise: bool
    ) -> Array:
        """Completions (n_draws, n, D) from p(missing | seen)."""
        draws = np.tile(X, (n_draws, 1, 1))
        if not (some := np.isnan(X).any(axis=1)).any():
            return draws
        X = X[some]
        means, covariances = self._posterior(X)
        # Not Cholesky: without noise, what was seen leaves no variance in some directions.
        scales, axes = np.linalg.eigh(covariances.astype(np.float64))
        roots = axes * np.sqrt(np.maximum(scales, 0.0))[:, None, :]
        missing = np.isnan(X)
        for i in range(n_draws):
            e = rng.standard_normal((*means.shape, 1))
            rows = self._decode(means + (roots @ e)[:, :, 0])
            if noise:
                rows = rows + np.sqrt(self.noise_variance_) * rng.standard_normal(rows.shape)
            draws[i, some] = np.where(missing, rows, X)
        return draws

    def _dtype_for(self, X: Any) -> Any:
        """The type that NumPy gives to products of rows with the loadings."""
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
        # Version 0.1.0 did not tell whether EM was of missing values.
        if "loadings_" in state and "_is_of_missing_values" not in state:
            state = {**state, "_is_of_missing_values": "log_likelihoods_" in state}
        # Until version 0.1.0, components_ were the axes.
        if "components_" in state and "axes_" not in state:
            n, variance = state["n_samples_"], state["explained_variance_"]
            state = {
                **state,
                "axes_": state["components_"],
                "components_": np.ascontiguousarray(state["loadings_"].T),
                "singular_values_": np.sqrt(variance * (n - 1)).astype(variance.dtype),
            }
        super().__setstate__(state)

    def __sklearn_tags__(self) -> Any:
        tags = super().__sklearn_tags__()
        tags.input_tags.allow_nan = True
        tags.input_tags.sparse = True
        tags.transformer_tags.preserves_dtype = ["float64", "float32"]
        return tags
