"""Learning of linear-Gaussian models from complete rows, rows with missing values, and moments."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from typing import Any, Literal, Self

import numpy as np
from numpy.typing import ArrayLike, NDArray
from scipy import sparse
from sklearn.exceptions import ConvergenceWarning
from sklearn.utils.extmath import svd_flip

from skae._gaussian_queries import GaussianQueries
from skae._linear.complete_rows import CompleteRows
from skae._linear.em import EMRun
from skae._linear.em_starts import MOST_FEATURES_OF_PAIRS, start_of
from skae._linear.factor_analysis import em_factors, fit_factors, lower_bounds
from skae._linear.incomplete_rows import group_rows, has_nan, seen_variances
from skae._linear.latent_size import by_rule, ledermann_bound
from skae._linear.linear_gaussian import LinearGaussian, signs_of, turned
from skae._linear.loadings_prior import RelevancePrior, with_relevance
from skae._linear.low_rank_gaussian import noise_floor
from skae._linear.missing_values import MaximumLikelihood, leading_model
from skae._linear.moments import (
    Moments,
    PrincipalAxes,
    axes_of_moments,
    check_scale,
    count_enough_rows,
    moments,
    out_of_range,
    principal_axes,
    row_mean,
)
from skae._linear.pca import is_count
from skae._linear.relevance_em import fit_model
from skae._linear.rotations import rotation_of
from skae._linear.subspace import (
    CentredRows,
    CentredScatter,
    Spectrum,
    em_axes,
    noise_variance,
    randomized_axes,
)
from skae._utils.inputs import check_every_column_seen
from skae._utils.interrupts import keeps_progress, warn_of_interruption
from skae._utils.memory import advice_on_memory
from skae._utils.types import RandomState
from skae._utils.warning import warn

Array = NDArray[Any]
Learner = MaximumLikelihood | RelevancePrior

# EM is faster than the closed form if there are more rows and more columns than this.
_CLOSED_FORM_LIMIT = 5_000
# With at most this many columns, factor analysis uses eigenvectors, and otherwise EM.
_PROFILE_LIMIT = 1_000


class GaussianLearning(GaussianQueries):
    """`fit` of PPCA."""

    noise_variance: Literal["auto", "scalar", "per_feature"]
    loadings_prior: Literal["ard"] | None
    rotation: Literal["varimax", "quartimax"] | None
    solver: Literal["auto", "closed_form", "em", "randomized"]
    tol: float
    max_iter: int
    random_state: RandomState

    _is_of_missing_values: bool

    def _fit_model(
        self,
        X: Any,
        rng: np.random.RandomState,
        sample_weight: Any | None,
        previous: Self | None,
    ) -> None:
        self._check_choices()
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
                rows = partial(CentredRows, X, sample_weight, mean)
                self._fit_complete(X, rng, axes, rows, partial(moments, X, sample_weight, mean))

    def _check_choices(self) -> None:
        """Raise if parameters contradict each other."""
        if not self._is_principal_model and not (
            self.n_components is None or is_count(self.n_components)
        ):
            cause = (
                "loadings_prior='ard'" if self.loadings_prior else "noise_variance='per_feature'"
            )
            remedy = (
                "the prior switches off components that are not needed"
                if self.loadings_prior
                else "compare sizes by GridSearchCV, or set loadings_prior='ard'"
            )
            raise ValueError(
                f"n_components={self.n_components!r} cannot be used with {cause}. It must then be "
                f"an integer or None; {remedy}."
            )
        if not self._is_principal_model and self.solver not in ("auto", "em"):
            raise ValueError(
                f"solver={self.solver!r} is for one noise variance and no prior. With "
                "noise_variance='per_feature' or loadings_prior='ard', solver must be 'auto' or "
                "'em'."
            )

    @property
    def _per_feature(self) -> bool:
        """Whether each feature has its own noise variance."""
        by_prior = self.noise_variance == "auto" and self.loadings_prior is not None
        return by_prior or self.noise_variance == "per_feature"

    @property
    def _is_principal_model(self) -> bool:
        """Whether the parameters are those of probabilistic PCA."""
        return not self._per_feature and self.loadings_prior is None

    # ------------------------------------------------------------- complete rows

    def _fit_complete(
        self,
        like: Any,
        rng: np.random.RandomState,
        axes: Callable[[int], PrincipalAxes],
        rows: Callable[[], CentredRows | CentredScatter],
        scatter: Callable[[], Moments],
    ) -> None:
        """Fit to rows of this shape and dtype, from their axes, from products or from moments."""
        if not self._is_principal_model:
            few = like.shape[1] <= MOST_FEATURES_OF_PAIRS
            source = CentredScatter(scatter(), like) if few else rows()
            self._fit_factors(source, rng, like)
            return
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

    def _fit_factors(
        self, source: CentredRows | CentredScatter, rng: np.random.RandomState, like: Any
    ) -> None:
        """Fit a model with one noise variance for each feature, or with a prior."""
        check_scale(np.asarray(source.trace))
        n_features = like.shape[1]
        size = self._known_size(n_features)
        assert size is not None
        mean = np.asarray(source.mean, dtype=np.float64)
        diagonal = source.diagonal
        floor = self._floors(diagonal, mean, like.dtype)
        options: Any = {"floor": floor, "tol": self.tol, "max_iter": self.max_iter}
        if self.loadings_prior is not None:
            rows = CompleteRows(source, diagonal, self.n_samples_)
            model = self._run_em(rows, size, rng, floor, keeps=keeps_progress(self))
            self._store_factors(model, like.dtype, floor, diagonal)
            return
        found: Any
        if isinstance(source, CentredScatter) and n_features <= _PROFILE_LIMIT:
            found = fit_factors(source.covariance, size, **options)
            run = EMRun(found, found.log_likelihoods, found.ended_by)
        else:
            keeps = keeps_progress(self)
            run = em_factors(source, diagonal, size, rng, keeps_progress=keeps, **options)
            found = run.state
        self._store_run(run, run.log_likelihoods)
        model = LinearGaussian(found.loadings, mean, found.noise_variance)
        self._store_factors(model, like.dtype, floor, diagonal)

    def _floors(self, variances: Array, mean: Array, dtype: Any) -> Array:
        """The smallest noise variance of each feature (D,)."""
        if not self._per_feature:
            return np.full(len(mean), noise_floor(float(variances.mean()), mean.astype(dtype)))
        each = [
            noise_floor(float(variance), np.array([center], dtype))
            for variance, center in zip(variances, mean, strict=True)
        ]
        return lower_bounds(variances, np.array(each), dtype)

    def _learn_moments(self, stats: Moments, like: Any) -> None:
        self._check_choices()
        self.n_samples_, self.n_iter_, self._is_of_missing_values = stats.n, 1, False
        if not self._is_principal_model:
            self._fit_factors(CentredScatter(stats, like), self._generator(), like)
            return
        n_features = like.shape[1]
        size = self._known_size(n_features)
        found = axes_of_moments(stats, size or int(min(stats.n, n_features)))
        self._store(self._leading(found, size), like.dtype)

    def _learn_blocks(self, blocks: Any, found: Any) -> None:
        self._check_choices()
        self.n_samples_, self._is_of_missing_values = found.n, found.any_missing
        like, rng, stats = found.like(), self._generator(), found.moments
        if found.any_missing:
            self._fit_by_em(blocks.incomplete(found), rng, like.dtype, None)
        else:
            axes = partial(axes_of_moments, stats)
            self._fit_complete(like, rng, axes, partial(CentredScatter, stats, like), lambda: stats)

    def _leading(self, found: PrincipalAxes, size: int | None) -> Spectrum:
        """The leading axes; if `size` is None, `n_components` chooses their number."""
        values = found.scatter_values / found.n
        size = size or self._size_of(values)
        return Spectrum(values[:size], found.axes[:size], found.scatter_trace / found.n, found.mean)

    # ------------------------------------------------------------ missing values

    def _fit_incomplete(
        self, X: Array, rng: np.random.RandomState, weight: Array | None, larger: Self | None
    ) -> None:
        check_every_column_seen(X, getattr(self, "feature_names_in_", None))
        some = ~np.isnan(X).all(axis=1)
        if not some.all():
            X, weight = X[some], None if weight is None else weight[some]
        self._fit_by_em(group_rows(X, weight), rng, X.dtype, larger)

    def _check_solver_of_incomplete(self) -> None:
        if self.solver not in ("auto", "em"):
            raise ValueError(
                f"X contains NaN, which solver={self.solver!r} does not accept. Use solver='em' "
                "or solver='auto'."
            )

    def _fit_by_em(
        self, rows: Any, rng: np.random.RandomState, dtype: Any, larger: Self | None
    ) -> None:
        """Fit to IncompleteRows, or to rows in blocks with the same sums."""
        self._check_solver_of_incomplete()
        n_features = rows.n_features
        variances = seen_variances(rows)
        check_scale(np.r_[rows.shift, variances])
        floor = self._floors(variances, rows.shift, dtype)
        size = self._known_size(n_features)
        if size is None:
            most = max(1, int(min(self.n_samples_, n_features)) - 1)
            # This run only chooses the size. If it is interrupted, there is no model to keep.
            model = self._run_em(rows, most, rng, floor, keeps=False)
            spectrum = np.full(n_features, model.noise_variance[0])
            spectrum[:most] += np.linalg.svd(model.loadings, compute_uv=False) ** 2
            size = self._size_of(spectrum)
        start = None
        if larger is not None and self._is_principal_model:
            start = leading_model(larger._model(), size, float(floor[0]))
        model = self._run_em(rows, size, rng, floor, keeps=keeps_progress(self), start=start)
        self._store_model(model, dtype, variances, floor)

    def _run_em(
        self,
        rows: Any,
        size: int,
        rng: np.random.RandomState,
        floor: Array,
        *,
        keeps: bool,
        start: LinearGaussian | None = None,
    ) -> LinearGaussian:
        learner = self._learner(seen_variances(rows), floor)
        run = fit_model(
            rows,
            start or start_of(rows, size, rng, learner),
            learner,
            tol=self.tol,
            max_iter=self.max_iter,
            keeps_progress=keeps,
        )
        self._store_run(run, np.divide(run.log_likelihoods, self.n_samples_))
        model: LinearGaussian = run.state
        return model

    def _learner(self, variances: Array, floor: Array) -> Learner:
        if self.loadings_prior is not None:
            return RelevancePrior(variances, floor, self._per_feature)
        return MaximumLikelihood(floor, self._per_feature)

    # -------------------------------------------------------------------- choices

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
            if self._per_feature and self.loadings_prior is None:
                most = min(most, ledermann_bound(n_features) + 1)
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

    # -------------------------------------------------------------------- storing

    def _store_run(self, run: EMRun, nats_per_row: ArrayLike) -> None:
        name = "log_likelihoods_" if self.loadings_prior is None else "lower_bounds_"
        setattr(self, name, np.asarray(nats_per_row))
        self.n_iter_ = len(run.log_likelihoods)
        self._warn_of_end(run)

    def _warn_of_end(self, run: EMRun) -> None:
        if run.ended_by == "interrupt":
            warn_of_interruption("iteration", len(run.log_likelihoods))
        elif run.ended_by == "max_iter":
            warn(
                f"EM did not converge in max_iter={self.max_iter} steps. Increase max_iter or tol.",
                ConvergenceWarning,
            )

    def _store_model(
        self, model: LinearGaussian, dtype: Any, variances: Array, floor: Array
    ) -> None:
        """Set the fitted attributes of a model from EM with missing values."""
        if not self._is_principal_model:
            self._store_factors(model, dtype, floor, variances)
            return
        noise = float(model.noise_variance[0])
        axes, lengths, _ = np.linalg.svd(model.loadings, full_matrices=False)
        values = lengths**2 + noise
        trace = float(values.sum()) + (len(model.mean) - len(values)) * noise
        self._store(Spectrum(values, axes.T, trace, model.mean), dtype, noise)

    def _store_factors(
        self, model: LinearGaussian, dtype: Any, floor: Array, variances: Array
    ) -> None:
        """Set the fitted attributes of a model with a noise variance per feature, or a prior."""
        if model.uncertainty is None:
            self._warn_of_floors(model.noise_variance, floor, variances)
            root = np.sqrt(model.noise_variance)[:, None]
            turn = np.linalg.eigh((model.loadings / root).T @ (model.loadings / root))[1]
            model = turned(model, turn[:, ::-1])
        if self.rotation is not None:
            model = turned(model, rotation_of(model.loadings, self.rotation))
            if model.uncertainty is not None:
                model = with_relevance(*model[:3], model.uncertainty.spread, prune=False)
        W, mean, psi, uncertainty = turned(model, np.diag(signs_of(model)))
        self._rotation = self._spread = None
        self.__dict__.pop("relevance_", None)  # of an earlier batch
        if uncertainty is not None:
            self._spread, self.relevance_ = uncertainty
        self.n_components_ = W.shape[1]
        self.mean_ = mean.astype(dtype)
        self.noise_variance_ = psi.astype(dtype) if self._per_feature else float(psi[0])
        self.loadings_ = np.ascontiguousarray(W, dtype=dtype)
        self.components_ = np.ascontiguousarray(self.loadings_.T)
        axes, lengths, _ = np.linalg.svd(W, full_matrices=False)
        axes = svd_flip(None, axes.T, u_based_decision=False)[1]
        values = lengths**2 + axes**2 @ psi
        self.axes_ = np.ascontiguousarray(axes, dtype=dtype)
        self._store_variances(values, float(np.sum(W**2) + psi.sum()), dtype)
        self._check_range(psi)

    def _warn_of_floors(self, psi: Array, floor: Array, variances: Array) -> None:
        """Warn of Heywood cases: features whose noise variance is at its lower bound."""
        index = np.flatnonzero((psi <= floor) & (variances > floor))
        if len(index):
            names = getattr(self, "feature_names_in_", np.arange(len(psi)))[index[:5]]
            listed = ", ".join(repr(name) for name in names.tolist())
            more = f" and {len(index) - 5} more" if len(index) > 5 else ""
            warn(
                f"The noise variance of {len(index)} feature(s) was raised to its lower bound "
                f"(features {listed}{more}): the components explain all of their variance (a "
                "Heywood case). Use fewer components, or loadings_prior='ard'."
            )

    def _store(self, spectrum: Spectrum, dtype: Any, noise: float | None = None) -> None:
        """Set the fitted attributes; `noise` is sigma^2 if EM estimated it."""
        values, axes, trace, mean = spectrum
        n_features = len(mean)
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
        loadings = axes.T * np.sqrt(np.maximum(values - noise, 0.0))
        self._spread = self._rotation = None
        self.__dict__.pop("relevance_", None)  # of an earlier batch
        if self.rotation is not None:
            self._rotation = rotation_of(loadings, self.rotation)
            loadings = loadings @ self._rotation
        self.loadings_ = loadings.astype(dtype)
        self.components_ = np.ascontiguousarray(self.loadings_.T)
        self._store_variances(values, trace, dtype)
        self._check_range(np.array([noise]))

    def _store_variances(self, values: Array, trace: float, dtype: Any) -> None:
        """Set the attributes of the variances along the axes (k,), with 1/n, and in total."""
        n = self.n_samples_
        self.explained_variance_ = (values * (n / (n - 1))).astype(dtype)
        singular = np.sqrt(values * n)  # which grow with the weights
        fits = singular.max(initial=0.0) < np.finfo(dtype).max
        self.singular_values_ = singular.astype(dtype) if fits else singular
        self.explained_variance_ratio_ = (values / (trace or 1.0)).astype(dtype)

    def _check_range(self, psi: Array) -> None:
        """Raise if noise variances or variances are outside of the range of the float dtype."""
        limits = np.finfo(self.mean_.dtype)
        fits = np.all((limits.tiny < psi) & (psi < limits.max))
        if not (fits and np.isfinite(self.explained_variance_).all()):
            raise out_of_range(np.dtype(self.mean_.dtype))
