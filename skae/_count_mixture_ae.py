"""A generative autoencoder of counts: the code of a count is its component of a mixture.

An image is a sample of counts x_1, ..., x_n from its normalised intensity, modelled as
rho(x|theta) = sum_j w_j rho_j(x|theta). Recognition assigns a count to argmax_j w_j rho_j(x);
generation fits every component to its counts; the two alternate until the likelihood stops
rising.

References
----------
V. E. Antsiperov (2022). Generative model for autoencoders learning by image sampling
representations. ICPRAM.
http://scitepress.net/PublishedPapers/2022/109152/pdf/index.html
"""

import warnings
from numbers import Integral, Real
from typing import Any, ClassVar, Literal, Self

import numpy as np
from numpy.typing import ArrayLike, NDArray
from scipy import sparse
from sklearn.exceptions import ConvergenceWarning
from sklearn.utils import check_scalar
from sklearn.utils.validation import check_is_fitted

from skae._likelihood_model import LikelihoodModel
from skae._linear.moments import out_of_range
from skae._mixture.cells import Cells, fit_cells, recounted
from skae._mixture.dense_rows import DenseRows
from skae._mixture.domain import (
    check_inside,
    check_tiled,
    declared_bounds,
    domain_of_cells,
    range_of,
)
from skae._mixture.em import Algorithm, Trained, updated
from skae._mixture.fit_gaussians import (
    FitOptions,
    average_of,
    explains_rows,
    fit_averages,
    resumed,
    size_by_bic,
)
from skae._mixture.gaussians import Gaussians, Kind, Prior, n_parameters
from skae._mixture.pixel_masses import checked_grid, pixel_masses
from skae._mixture.responsibilities import LocalRows, rows_under_mixture
from skae._mixture.rows_in_cells import RowsInCells
from skae._mixture.variance_floor import check_distances, check_floor, variance_floor
from skae._utils.interrupts import keeps_progress, warn_of_interruption
from skae._utils.state import all_or_nothing
from skae._utils.validation import Interval, StrOptions, check_indices, check_weight, fit_context

Array = NDArray[Any]

# Components if none are asked for, where there are as many counts.
_DEFAULT_COMPONENTS = 8

# The sum of weights is below this.
_MOST_COUNTS = 1e100


class CountMixtureAE(LikelihoodModel):
    r"""Generative autoencoder of counts: a mixture whose components are the codes.

    Rows are counts, such as the places where photons were registered; each is a draw from

    .. math:: \rho(x | \theta) = \sum_j w_j \rho_j(x | \theta)

    The code of a count is the component :math:`j = \arg\max_j w_j \rho_j(x)`, and its
    decoding that component's mean. Counts of a few dimensions are compared with the components
    near them, found by a search that proves that no other matters: 10,000 components are fitted
    to a million counts in ten seconds, and 100,000 in less than a minute. `score_samples` is
    the exact log density.

    Parameters
    ----------
    n_components : int, 'bic' or None, default=None
        Number of components of each mixture. None is 8, or the number of counts if that is
        smaller. 'bic' takes the number with the lowest BIC. Cells may be fewer, where no
        split of one gains.
    covariance_type : {'spherical', 'diag', 'full', 'tied', 'cell'}, default='full'
        The components: Gaussians with one variance, a variance for each feature, any
        covariance, or a covariance that all share; or boxes of even density that tile
        `domain`, outside of which the density is zero. For images 'cell' with `n_averages`
        is the most accurate by far.
    algorithm : {'em', 'partition'}, default='em'
        How Gaussians are fitted. 'em': every count belongs to the components that matter to
        it, by their responsibilities. 'partition': every count belongs to its best component,
        the paper's procedure, which underestimates variances. Cells do not overlap: for them
        the two are the same.
    init : {'quantiles', 'counts', 'grid', 'split'}, default='quantiles'
        Where Gaussians begin. 'quantiles': cells of equal mass, by halving the longest side
        again and again; independent of the order of rows. 'counts': the neighbourhoods of
        counts drawn at random. 'grid': a regular grid over `domain`. 'split': from coarse to
        fine, each mixture from the halved components of a smaller one.
    prior_counts : float, default=5.0
        How many counts the prior of each Gaussian is worth. It expects the mean where the
        component began, and eight times the variances of counts there, or their geometric
        mean with those of all counts if that is less, with the correlations of all counts:
        then neighbours add up to a smooth density. 0 is maximum likelihood.
    n_averages : int, default=1
        How many mixtures are fitted, from starts or tilings shifted at random against each
        other, and averaged. The model is the mixture of all their components.
    image_shape : tuple of int, default=None
        Shape of the image that the counts are of, in pixels, one length for each feature;
        a shorthand for the domain from 0 to these lengths, with cells that begin and end
        between pixels.
    domain : array-like of shape (n_features, 2), default=None
        Lowest and highest value of each feature. Counts outside are an error in `fit`. None
        takes that of `image_shape`; or else the range of the counts, widened by the mean
        distance of neighbours in one dimension.
    min_variance : float, default=None
        Smallest variance of a Gaussian along any axis, squared units of the features; side
        of a cell 12 ** 0.5 times its root. None is 1/12, that of a pixel, with `image_shape`,
        and otherwise 1e-6 times the mean variance of the features.
    tol : float, default=1e-4
        Training stops when an iteration gains no more, in nats per count.
    max_iter : int, default=100
        Iterations at most.
    warm_start : bool, default=False
        Begin with the Gaussians of the last fit. With a larger `n_components` those of most
        mass are halved, from coarse to fine. Counts that one Gaussian explains better by 10 nats
        each begin anew, with a warning.
    n_jobs : int, default=None
        Threads, -1 all cores. None means 1, or in ``joblib.parallel_config("threading")`` as
        many as that says; of a backend of processes, as of loky or dask, only the threads
        that are asked for here are used. Results do not depend on it.
    random_state : int, RandomState instance or None, default=None
        Seed of ``init='counts'`` and of the shifts of `n_averages`; nothing else is random.
        None takes fresh entropy; the global generators are never touched.

    Attributes
    ----------
    weights_ : ndarray of shape (n_components_,)
        w_j.
    means_ : ndarray of shape (n_components_, n_features_in_)
        Means of the components; of cells, their centres.
    covariances_ : ndarray
        Of Gaussians only, shaped as in :class:`sklearn.mixture.GaussianMixture`:
        (n_components_,), (n_components_, n_features_in_), (n_components_, n_features_in_,
        n_features_in_) or, if tied, (n_features_in_, n_features_in_).
    cells_ : ndarray of shape (n_components_, n_features_in_, 2)
        Of cells only: their lowest and highest values.
    n_components_ : int
        Number of components, of all averages together.
    n_counts_ : float
        Number of counts, the sum of their weights.
    n_iter_ : int
        Iterations of training, of the first of several averages; 1 for cells.
    converged_ : bool
        Whether all trainings stopped by `tol`.
    objectives_ : ndarray of shape (n_iter_,)
        What the iterations raised, in nats per count and never falling: the truncated free
        energy ('em') or the classification log-likelihood ('partition') plus the log prior.
        For cells the log-likelihood of held-out counts by which they were chosen.
    n_parameters_ : int
        Free parameters: weights, means and covariances; of a tiling of K cells K - 1
        weights and as many splits.
    compression_ratio_ : float
        Coordinates of all counts over `n_parameters_`.
    n_features_in_ : int
        Number of features seen in `fit`.
    feature_names_in_ : ndarray of shape (n_features_in_,)
        Names of the features, if all are strings.
    score_kind : str
        'log_likelihood': scores are log densities, in nats per row.

    See Also
    --------
    sample_counts : Counts of an image.
    image_to_counts : Pixels as weighted counts, which take a fraction of the time.

    Notes
    -----
    A weight counts a row as that many counts: pixels with their intensities as weights, or
    counts binned to pixels, are fitted as the counts themselves.

    Not so for a search over `n_components`: its folds must hold out counts, not pixels. Split
    counts first (:func:`thin`), or search on the rows of single counts.

    The first Ctrl-C in `fit` keeps the Gaussians of the last complete iteration, or of several
    averages those that are complete, and warns. It is raised, and the estimator is as before,
    until the first iteration is complete (of the mixture itself, not of those by which 'bic' or
    'split' come to it), of cells, in `partial_fit` after the first frame, in a Pipeline or a
    search, and at the second time.

    The density of a Gaussian mixture extends over all space, also where `domain` is given:
    near the edges of an image some of it is lost to the outside. Cells lose nothing.

    References
    ----------
    V. E. Antsiperov (2022). Generative model for autoencoders learning by image sampling
    representations. ICPRAM.
    http://scitepress.net/PublishedPapers/2022/109152/pdf/index.html

    R. M. Neal and G. E. Hinton (1998). A view of the EM algorithm that justifies incremental,
    sparse, and other variants. Learning in Graphical Models, 355-368.
    :doi:`10.1007/978-94-011-5014-9_12`

    Examples
    --------
    >>> from sklearn.datasets import load_digits
    >>> from skae import CountMixtureAE, sample_counts
    >>> image = load_digits().images[0]
    >>> counts = sample_counts(image, 20_000, random_state=0)
    >>> ae = CountMixtureAE(30, image_shape=(8, 8)).fit(counts)
    >>> ae.transform(counts).shape
    (20000, 1)
    >>> restored = ae.reconstruct_image(total=image.sum())
    >>> bool(abs(restored - image).mean() < 1)
    True
    """

    _parameter_constraints: ClassVar[dict[str, list[Any]]] = {
        "n_components": [Interval(Integral, 1, None, closed="left"), StrOptions({"bic"}), None],
        "covariance_type": [StrOptions({"spherical", "diag", "full", "tied", "cell"})],
        "algorithm": [StrOptions({"em", "partition"})],
        "init": [StrOptions({"quantiles", "counts", "grid", "split"})],
        "prior_counts": [Interval(Real, 0, None, closed="left")],
        "n_averages": [Interval(Integral, 1, None, closed="left")],
        "image_shape": [tuple, list, None],
        "domain": ["array-like", None],
        "min_variance": [Interval(Real, 0, None, closed="neither"), None],
        "tol": [Interval(Real, 0, None, closed="left")],
        "max_iter": [Interval(Integral, 1, None, closed="left")],
        "warm_start": ["boolean"],
        "n_jobs": [Integral, None],
        "random_state": ["random_state"],
    }

    def __init__(
        self,
        n_components: int | str | None = None,
        *,
        covariance_type: Kind | Literal["cell"] = "full",
        algorithm: Algorithm = "em",
        init: Literal["quantiles", "counts", "grid", "split"] = "quantiles",
        prior_counts: float = 5.0,
        n_averages: int = 1,
        image_shape: tuple[int, ...] | None = None,
        domain: ArrayLike | None = None,
        min_variance: float | None = None,
        tol: float = 1e-4,
        max_iter: int = 100,
        warm_start: bool = False,
        n_jobs: int | None = None,
        random_state: int | np.random.RandomState | None = None,
    ) -> None:
        self.n_components = n_components
        self.covariance_type = covariance_type
        self.algorithm = algorithm
        self.init = init
        self.prior_counts = prior_counts
        self.n_averages = n_averages
        self.image_shape = image_shape
        self.domain = domain
        self.min_variance = min_variance
        self.tol = tol
        self.max_iter = max_iter
        self.warm_start = warm_start
        self.n_jobs = n_jobs
        self.random_state = random_state

    # ----------------------------------------------------------------- learning

    def _fit_model(
        self,
        X: Any,
        rng: np.random.RandomState,
        sample_weight: Any | None,
        previous: Self | None,
    ) -> None:
        known: Any = None  # cells begin anew in every fit
        if previous is not None and "covariances_" in vars(previous):
            known = (previous._mixture(), previous._prior())
        self._dtype = X.dtype.name
        rows = np.asarray(X, dtype=np.float64)
        weight = np.ones(len(rows)) if sample_weight is None else sample_weight.astype(np.float64)
        self.n_counts_ = float(weight.sum())
        if not self.n_counts_ < _MOST_COUNTS:
            raise ValueError(
                f"sample_weight sums to {self.n_counts_:g}; allowed are sums below "
                f"{_MOST_COUNTS:g}: weights count rows."
            )
        self._bounds = declared_bounds(self.image_shape, self.domain, rows.shape[1])
        check_inside(rows, self._bounds, self.image_shape)
        fractions = weight / weight.sum()
        mean = fractions @ rows
        self._floor = self._floor_of(mean, fractions @ (rows - mean) ** 2, np.abs(rows).max())
        if self._floor == 0 and not rows.any():
            self._floor = 1.0  # all counts at zero: any width is as good as another
        self._check_distances(rows, None)
        n_components = self._n_wanted(None if known is None else known[0])
        if self.covariance_type == "cell":
            self._fit_cells(rows, weight, n_components, rng)
        else:
            self._fit_gaussians(rows, weight, n_components, rng, known)

    def _fit_cells(
        self, rows: Array, weight: Array, n_cells: int | None, rng: np.random.RandomState
    ) -> None:
        lo, hi = range_of(rows, self._bounds, self.n_counts_, self._floor)
        domain = domain_of_cells(lo, hi, self._floor, self.image_shape is not None)
        shifts: list[Array | None] = [None]
        if self.n_averages > 1:
            shifts = list(rng.random_sample((self.n_averages, len(lo))))
        cells, self._tilings, held_out = fit_cells(
            rows, weight, domain, n_cells, shifts, self.n_jobs
        )
        self.n_iter_, self.converged_ = 1, True
        self.objectives_ = np.array([held_out])
        n_splits = int((self._tilings - 1).sum())
        self._store_cells(cells)
        self._store_sizes(2 * n_splits)

    def _fit_gaussians(
        self,
        rows: Array,
        weight: Array,
        n_components: int | None,
        rng: np.random.RandomState,
        known: tuple[Gaussians, Prior] | None,
    ) -> None:
        if self.n_averages > 1 and self.covariance_type == "tied":
            raise ValueError(
                f"n_averages={self.n_averages} with covariance_type='tied': averages share no "
                "covariance. Allowed is n_averages=1, or another covariance_type."
            )
        if known is not None:
            if explains_rows(known[0], rows, weight, self._floor, self.n_jobs):
                known = resumed(*known, float(self.prior_counts), self._floor)
            else:
                warnings.warn(
                    "warm_start=True, but X is so far from the Gaussians of the last fit that a "
                    "single one explains it better: training begins anew.",
                    UserWarning,
                    stacklevel=2,
                )
                known = None
        options = self._fit_options()
        n_components = n_components or size_by_bic(rows, weight, options, rng)
        keeps = keeps_progress(self)
        fits = fit_averages(rows, weight, n_components, options, rng, known, keeps_progress=keeps)
        self._store_training(fits)
        average, prior = average_of(fits, options.prior_counts)
        self._store_gaussians(average, prior)
        self._store_sizes(len(fits) * n_parameters(n_components, rows.shape[1], average.kind))

    def _fit_options(self) -> FitOptions:
        kind: Any = self.covariance_type
        return FitOptions(
            kind=kind,
            algorithm=self.algorithm,
            init=self.init,
            prior_counts=float(self.prior_counts),
            n_averages=self.n_averages,
            tol=self.tol,
            max_iter=self.max_iter,
            n_jobs=self.n_jobs,
            floor=self._floor,
            bounds=self._bounds,
        )

    def _store_training(self, fits: list[Trained]) -> None:
        """Set what the iterations raised, and warn if they ended early."""
        self.objectives_ = np.array(fits[0].objectives)
        self.n_iter_ = len(self.objectives_)
        self.converged_ = len(fits) == self.n_averages and all(fit.converged for fit in fits)
        if fits[0].interrupted:
            warn_of_interruption("iteration", self.n_iter_)
        elif len(fits) < self.n_averages:
            warn_of_interruption("average", len(fits))
        elif not self.converged_:
            warnings.warn(
                f"Training did not converge in max_iter={self.max_iter} iterations; raise "
                "max_iter or tol.",
                ConvergenceWarning,
                stacklevel=2,
            )

    @fit_context
    def partial_fit(
        self, X: ArrayLike, y: object = None, sample_weight: ArrayLike | None = None
    ) -> Self:
        """Learn from one more frame of counts.

        The first call is `fit`. Each later one adds the counts of its frame to the components,
        by their responsibilities under the mixture as it is, and updates the mixture once:
        counts of earlier frames stay where they were put (Neal and Hinton 1998). Cells keep
        their boxes and count exactly.

        Parameters
        ----------
        X : array-like of shape (n_samples, n_features)
            Counts; the first frame holds as many as there are components, or more.
        y : Ignored
            Present for API consistency.
        sample_weight : array-like of shape (n_samples,), default=None
            How often each row counts.

        Returns
        -------
        self : object
            The estimator.

        Raises
        ------
        ValueError
            If the frame or `sample_weight` is not allowed; it is then as if it had not been
            given, and so it is after Ctrl-C.
        """
        self._validate_params()  # the decorator leaves it out after the first frame
        if not hasattr(self, "weights_"):
            with all_or_nothing(self):
                self._fit_validated(X, y, sample_weight)
            return self
        with all_or_nothing(self):
            rows = self._check_rows(X, reset=False)
            weight = check_weight(sample_weight, rows)
            rows, weight, _ = self._rows_that_count(rows, weight)
            rows = np.asarray(rows, dtype=np.float64)
            if weight is None:
                weight = np.ones(len(rows))
            if len(rows):
                check_inside(rows, self._bounds, self.image_shape)
                self._add_frame(rows, weight.astype(np.float64))
        return self

    def _add_frame(self, rows: Array, weight: Array) -> None:
        before = self.n_counts_
        self.n_counts_ = before + float(weight.sum())
        ratio = self.n_counts_ / before
        mixture = self._mixture()
        if isinstance(mixture, Cells):
            check_tiled(rows, mixture.lo.min(axis=0), mixture.hi.max(axis=0))
            added = RowsInCells(rows, mixture).counts(weight)
            weights = recounted(mixture.weights, self._tilings, before, added, self.n_counts_)
            self.weights_ = weights
        else:
            # A first frame of equal counts says nothing about how narrow a component may be.
            moments = mixture.moments_with(before, rows, weight)
            self._floor = max(self._floor, self._floor_of(*moments, np.abs(rows).max()))
            self._check_distances(rows, self.means_)
            prior = self._prior()
            after = updated(
                rows_under_mixture(rows, weight, len(mixture.weights), self.n_jobs),
                mixture,
                prior,
                algorithm=self.algorithm,
                before=before,
                floor=self._floor,
            )
            self._store_gaussians(after, prior)
        self.compression_ratio_ *= ratio

    # ------------------------------------------------------- what the data allow

    def _n_wanted(self, known: Gaussians | None) -> int | None:
        """Components of a mixture; None where BIC tells."""
        most = int(self.n_counts_ * (1 + 1e-9))
        if most < 1:
            raise ValueError(
                f"sample_weight sums to {self.n_counts_:g}, fewer than one count; weights count "
                "rows: multiply frequencies by the number of counts."
            )
        if known is not None:
            self._check_known(known)
        if self.n_components == "bic":
            return None
        if self.n_components is None:
            return min(_DEFAULT_COMPONENTS, most)
        wanted = int(self.n_components)
        if wanted > most:
            raise ValueError(
                f"n_components={wanted} is more than the {most} counts of X; allowed are 1 to "
                f"{most}."
            )
        return wanted

    def _check_known(self, gaussians: Gaussians) -> None:
        """Whether the Gaussians of the last fit can be gone on from."""
        has = len(gaussians.weights)
        if gaussians.kind != self.covariance_type:
            raise ValueError(
                f"covariance_type={self.covariance_type!r} with warm_start=True, but the last "
                f"fit had {gaussians.kind!r}. Fit anew, with warm_start=False."
            )
        if gaussians.means.shape[1] != self.n_features_in_:
            raise ValueError(
                f"X has {self.n_features_in_} features with warm_start=True, but the last fit "
                f"had {gaussians.means.shape[1]}. Fit anew, with warm_start=False."
            )
        wanted = self.n_components
        if self.n_averages > 1 or wanted == "bic" or (wanted is not None and int(wanted) < has):
            raise ValueError(
                f"n_components={wanted!r} and n_averages={self.n_averages} with warm_start=True; "
                f"allowed are {has} components, those of the last fit, or more, and one average."
            )

    def _floor_of(self, mean: Array, variances: Array, largest: float) -> float:
        return variance_floor(
            mean,
            variances,
            largest,
            min_variance=self.min_variance,
            of_pixels=self.image_shape is not None,
            dtype=self._dtype,
        )

    def _check_distances(self, rows: Array, means: Array | None) -> None:
        if self.covariance_type == "cell":
            check_floor(self._floor)
        else:
            check_distances(rows, means, self.n_counts_, self._floor)

    # ------------------------------------------------------------------- fitted

    def _store_gaussians(self, gaussians: Gaussians, prior: Prior) -> None:
        if not (np.isfinite(gaussians.means).all() and np.isfinite(gaussians.covariances).all()):
            raise out_of_range(np.dtype(self._dtype))
        self.weights_, self.means_, self.covariances_, self._kind = gaussians
        self._prior_of_fit = tuple(prior)
        self.n_components_ = len(self.weights_)

    def _store_cells(self, cells: Cells) -> None:
        self.weights_ = cells.weights
        self.cells_ = np.stack([cells.lo, cells.hi], axis=2)
        self.means_ = self.cells_.mean(axis=2)
        self.n_components_ = len(self.weights_)

    def _store_sizes(self, n_parameters: int) -> None:
        self.n_parameters_ = n_parameters
        numbers = self.n_counts_ * self.n_features_in_
        self.compression_ratio_ = numbers / max(n_parameters, 1)

    def _mixture(self) -> Gaussians | Cells:
        if "cells_" in self.__dict__:
            return Cells(self.weights_, self.cells_[..., 0], self.cells_[..., 1])
        kind: Any = self._kind
        return Gaussians(self.weights_, self.means_, self.covariances_, kind)

    def _prior(self) -> Prior:
        prior: Any = self._prior_of_fit
        return Prior(*prior)

    # ------------------------------------------------------------------ queries

    def _encode(self, X: Array) -> NDArray[np.int64]:
        best = self._under(X).best(self._mixture())  # type: ignore[arg-type]
        return best.astype(np.int64)[:, None]

    def _decode(self, Z: Array) -> Array:
        means: Array = self.means_[Z[:, 0].astype(np.intp)].astype(self._dtype)
        return means

    def _log_prob(self, X: Array) -> Array:
        nats: Array = self._under(X).log_density(self._mixture())  # type: ignore[arg-type]
        with np.errstate(over="ignore"):  # in float32 a density may be too low for its log
            return nats.astype(self._dtype)

    def _draw(self, n_samples: int, rng: np.random.RandomState, noise: bool) -> Array:
        weights = self.weights_ / self.weights_.sum()
        code = np.searchsorted(np.cumsum(weights), rng.random_sample(n_samples), side="right")
        code = np.minimum(code, np.flatnonzero(weights)[-1])
        if not noise:
            return self._decode(code[:, None])
        rows: Array = self._mixture().draw(code, rng).astype(self._dtype)
        return rows

    def _under(self, X: Array) -> RowsInCells | LocalRows | DenseRows:
        """Rows under the mixture, ready to be asked."""
        rows = np.asarray(X, dtype=np.float64)
        mixture = self._mixture()
        if isinstance(mixture, Cells):
            return RowsInCells(rows, mixture)
        self._check_distances(rows, self.means_)
        return rows_under_mixture(rows, None, self.n_components_, self.n_jobs)

    def _check_codes(self, Z: Any) -> Any:
        Z = super()._check_codes(Z)
        check_indices(Z, self.n_components_, "components", self.get_feature_names_out())
        return Z

    def responsibilities(self, X: ArrayLike) -> sparse.csr_array:
        """Probabilities of the components, given each count: w_j rho_j(x) / rho(x).

        Parameters
        ----------
        X : array-like of shape (n_samples, n_features)
            Counts.

        Returns
        -------
        responsibilities : csr_array of shape (n_samples, n_components_)
            Rows sum to 1. Components that have less than 1e-10 together are left out. A count
            outside of all cells belongs to the nearest.
        """
        rows = self._check_new_rows(X, "responsibilities")
        return self._under(rows).responsibilities(self._mixture())  # type: ignore[arg-type]

    def intensity(self, shape: tuple[int, ...] | None = None) -> NDArray[np.float64]:
        """The density on a grid of pixels, integrated over each of them.

        Parameters
        ----------
        shape : tuple of int, default=None
            Number of pixels along each feature; pixel (i, j) covers [i, i + 1) x [j, j + 1).
            None is `image_shape`.

        Returns
        -------
        intensity : ndarray of shape `shape`
            Probabilities of a count to fall on the pixels. They sum to 1, less what the
            mixture has outside the grid.

        Raises
        ------
        ValueError
            If `shape` has not one length for each feature, or is None without `image_shape`;
            or if Gaussians with any axes have more than 3 features.
        MemoryError
            If so many pixels do not fit into memory.
        """
        return pixel_masses(*self._on_grid(shape), self.n_jobs)

    def reconstruct_image(
        self, shape: tuple[int, ...] | None = None, total: float | None = None
    ) -> NDArray[np.float64]:
        """The image that the mixture stands for: its intensity, scaled to a total.

        Parameters
        ----------
        shape : tuple of int, default=None
            As in `intensity`.
        total : float, default=None
            Sum of the image. None is the number of counts that were learned from.

        Returns
        -------
        image : ndarray of shape `shape`
            Expected counts, or intensities, of the pixels.

        Raises
        ------
        MemoryError
            As `intensity`.
        ValueError
            As `intensity`; or if `total` is not positive, or nothing of the mixture is on the
            grid.
        """
        mixture, grid = self._on_grid(shape)
        if total is not None:
            check_scalar(total, "total", Real, min_val=0, include_boundaries="neither")
        masses = pixel_masses(mixture, grid, self.n_jobs)
        inside = masses.sum()
        if not inside > 0:
            raise ValueError(f"shape={grid}: no count of the mixture falls on these pixels.")
        return masses * ((self.n_counts_ if total is None else total) / inside)

    def _on_grid(self, shape: Any) -> tuple[Gaussians | Cells, tuple[int, ...]]:
        check_is_fitted(self)
        if shape is None and self.image_shape is None:
            raise ValueError("shape=None needs image_shape; give the pixels of each axis.")
        mixture = self._mixture()
        return mixture, checked_grid(self.image_shape if shape is None else shape, mixture)

    def _n_free_parameters(self) -> int:
        return self.n_parameters_

    # -------------------------------------------------------------- names and files

    @property
    def _n_features_out(self) -> int:
        self.n_components_  # noqa: B018  (an unfitted model has no codes to name)
        return 1

    def __sklearn_tags__(self) -> Any:
        tags = super().__sklearn_tags__()
        tags.transformer_tags.preserves_dtype = []  # indices are integers
        return tags
