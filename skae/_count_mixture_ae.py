"""A generative autoencoder of counts. The code of a count is a component of a mixture.

An image is represented by counts x_1, ..., x_n, a sample from its normalised intensity. The
intensity is modelled as rho(x|theta) = sum_j w_j rho_j(x|theta). Recognition assigns a count to
argmax_j w_j rho_j(x), and generation fits every component to its counts. Training repeats both
steps until the likelihood no longer increases.

References
----------
V. E. Antsiperov (2022). Generative model for autoencoders learning by image sampling
representations. ICPRAM.
http://scitepress.net/PublishedPapers/2022/109152/pdf/index.html
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from numbers import Integral, Real
from typing import Any, ClassVar, Literal, Self

import numpy as np
from numpy.typing import ArrayLike, NDArray
from sklearn.exceptions import ConvergenceWarning

from skae._count_deviations import CountDeviations
from skae._linear.moments import out_of_range
from skae._mixture.cells import Cells, fit_cells, recounted
from skae._mixture.domain import (
    check_inside,
    check_tiled,
    declared_bounds,
)
from skae._mixture.em import Algorithm, Trained, updated
from skae._mixture.fit_gaussians import (
    FitOptions,
    average_of,
    fit_averages,
    size_by_bic,
    wanted_size,
)
from skae._mixture.gaussians import Gaussians, Kind, Prior, n_parameters
from skae._mixture.image_masses import in_units
from skae._mixture.mirror_images import moved_inside
from skae._mixture.noise import check_noise_range
from skae._mixture.rows_in_cells import RowsInCells
from skae._mixture.variance_floor import check_distances, check_floor, variance_floor
from skae._mixture.warm_start import check_known, explains_rows, resumed
from skae._utils.interrupts import keeps_progress, warn_of_interruption
from skae._utils.state import all_or_nothing
from skae._utils.types import ArrayOrFrame, RandomState
from skae._utils.validation import Interval, StrOptions, check_weight, fit_context
from skae._utils.warning import warn

Array = NDArray[Any]

# The sum of the weights must be smaller than this.
_MOST_COUNTS = 1e100


class CountMixtureAE(CountDeviations):
    r"""Generative autoencoder of counts, a mixture whose components are the codes.

    Rows are counts, for example the positions at which photons were registered. Each count is an
    independent draw from the mixture

    .. math:: \rho(x | \theta) = \sum_j w_j \rho_j(x | \theta)

    The code of a count is the index of the component :math:`\arg\max_j w_j \rho_j(x)`.
    `inverse_transform` decodes an index to the mean of this component, and `score_samples` returns
    the exact log density of the counts.

    In few dimensions, each count is compared only with the components near it. The search for
    these components guarantees that all others are negligible. 10,000 components are fitted to a
    million counts in ten seconds, and 100,000 components in less than a minute. With Numba
    (``pip install "skae[fast]"``), fits to at least 100,000 counts of up to four features are
    several times faster, after their code has been compiled once.

    Parameters
    ----------
    n_components : int, 'bic' or None, default=None
        Number of components of each mixture. None means 8, or the number of counts if this is
        smaller. 'bic' takes the number with the lowest BIC. With cells, the fitted mixture may
        have fewer components, because a cell is only split if this improves the model.
    covariance_type : {'spherical', 'diag', 'full', 'tied', 'cell'}, default='full'
        Kind of the components. They are Gaussians with one variance ('spherical'), with a variance
        for each feature ('diag'), with any covariance matrix ('full'), or with one covariance
        matrix that all share ('tied'). With 'cell' they are uniform densities on boxes that cover
        `domain` without overlap, and the density outside of `domain` is zero. For images, 'cell'
        together with `n_averages` is by far the most accurate.
    algorithm : {'em', 'partition'}, default='em'
        Algorithm that fits the Gaussians. 'em' assigns every count to several components, with
        its responsibilities as weights. 'partition' assigns every count to its most probable
        component; this is the algorithm of the paper, and it underestimates variances. For cells
        the two are the same, because cells do not overlap.
    init : {'quantiles', 'counts', 'grid', 'split'}, default='quantiles'
        Initialisation of the Gaussians. 'quantiles' uses boxes of equal mass, from repeatedly
        halving the longest side of a box; it does not depend on the order of the rows. 'counts'
        uses the neighbourhoods of counts that are drawn at random. 'grid' uses a regular grid over
        `domain`. 'split' fits mixtures of increasing size and starts each of them from the halved
        components of the previous one.
    prior_counts : float, default=5.0
        Weight of the prior of each Gaussian, as a number of counts. 0 gives maximum likelihood.
        The prior mean is the initial mean of the component. The prior variances are eight times
        the variances of the counts in the initial component, or the geometric mean of the
        variances in the component and those of all counts if that is smaller. The prior
        correlations are those of all counts. With such a prior, neighbouring components add up to
        a smooth density.
    n_averages : int, default=1
        Number of mixtures that are fitted and averaged. Their initial components or cells are
        shifted at random against each other. The model is the mixture of all their components.
    image_shape : tuple of int, default=None
        Shape of the image in pixels, with one length for each of the first features, usually
        (height, width). The places of counts are in the range from 0 to these lengths, and cells
        begin and end between pixels. Further features, such as an energy or a delay, may have any
        values and units.
    coordinates : {'auto', 'continuous', 'pixel'}, default='auto'
        Whether the places in X are on a continuous scale, where pixel (i, j) covers [i, i + 1) x
        [j, j + 1), or indices of pixels. The likelihood of an index is that of its pixel. 'auto'
        takes them as indices if `image_shape` is set and the columns have an integer dtype. It
        warns if it is in doubt. `transform`, `score_samples` and other methods take places as `fit`
        did, and `inverse_transform` and `sample` return them so.
    edges : {'auto', 'reflect', 'open'}, default='auto'
        What happens to Gaussians at the edges of the image. With 'reflect', density that would lie
        outside is reflected, so that all of it is inside. With 'open' it extends outside: with
        `exposure`, counts outside are missed, and without, the image becomes dark at its edges.
        'auto' reflects if `image_shape` is set and there are at most 4 features. Cells end at the
        edges.
    exposure : array-like of the shape `image_shape` or callable, default=None
        Exposure, efficiency or vignetting of each pixel; only ratios of its values matter. It is 0
        for dead pixels and parts outside of a mask, where X may have no counts. A callable gets
        places, an array of shape (n_places, n_axes), and returns one value for each; it should be
        smooth on the scale of a pixel. Counts are
        registered with a probability proportional to the exposure, and `intensity` is corrected for
        it.
    background : 'flat' or array-like of the shape `image_shape`, default=None
        Distribution of registered counts that do not come from the object, such as dark counts:
        the same on all exposed pixels, or proportional to a map. Its share of the counts is fitted.
        It is at least what the darkest parts of the image contain, because wide components could
        take over any part of it. If the object is nowhere dark, a part of it counts as background.
        Along further features, the background is uniform over their range. Only for Gaussians.
    psf : float or array-like of shape (n_axes, n_axes), default=None
        Covariance of a Gaussian point spread function, in squared pixels, or its variance if it is
        the same along all axes. The components are those of the sharp image, and counts are
        compared with the blurred one (Bovy et al. 2011). EM sharpens slowly: for details that are
        smaller than the point spread set `tol` to 1e-6 or less, and a larger `max_iter`. Only for
        Gaussians. Its shape may also be (n_features, n_features), with any units.
    domain : array-like of shape (n_features, 2), default=None
        Lowest and highest value of each feature. `fit` raises an error for counts outside. None
        takes the domain from `image_shape`, or otherwise the range of the counts, extended at
        both ends by this range divided by the number of counts minus one.
    min_variance : float, default=None
        Smallest variance of a Gaussian along any axis, in squared units of the features. For cells
        it sets the smallest length of a side, the square root of 12 `min_variance`. None means
        1/12, the variance within a pixel, if `image_shape` is set, and otherwise 1e-6 times the
        mean variance of the features. Features that are no places in an image are measured in a
        unit in which their standard deviation is about that of the places.
    tol : float, default=1e-4
        Training stops when an iteration improves the objective by no more than `tol` nats per
        count.
    max_iter : int, default=100
        Maximum number of iterations.
    warm_start : bool, default=False
        Whether `fit` starts from the Gaussians of the previous fit. With a larger `n_components`,
        the Gaussians of the largest weights are halved, over several mixtures of increasing size.
        If a single Gaussian explains the counts better than the previous fit does, by 10 nats per
        count, training starts anew, with a warning.
    n_jobs : int, default=None
        Number of threads; -1 uses all cores. None means 1, or the number that is set by
        ``joblib.parallel_config("threading")``. Backends of processes, such as loky or dask, do
        not change the number of threads. Results do not depend on `n_jobs`.
    random_state : int, RandomState instance or None, default=None
        Seed of ``init='counts'`` and of the shifts of `n_averages`. Nothing else is random. With
        None, every fit uses new random numbers. The global generators are not used.

    Attributes
    ----------
    weights_ : ndarray of shape (n_components_,)
        Weights w_j of the components.
    means_ : ndarray of shape (n_components_, n_features_in_)
        Means of the Gaussians, or centres of the cells.
    covariances_ : ndarray
        Covariances of the Gaussians. The shape is (n_components_,) for 'spherical',
        (n_components_, n_features_in_) for 'diag', (n_components_, n_features_in_, n_features_in_)
        for 'full' and (n_features_in_, n_features_in_) for 'tied', as in
        :class:`sklearn.mixture.GaussianMixture`. Only for Gaussians.
    cells_ : ndarray of shape (n_components_, n_features_in_, 2)
        Lowest and highest value of each cell along each feature. Only for cells.
    background_share_ : float
        Fraction of the counts that belong to the background; 0 without `background`.
    registered_fraction_ : float
        Fraction of the counts of the object on exposed pixels that the detector registers,
        relative to a detector with the largest exposure there; 1 without `exposure`.
    n_components_ : int
        Number of components of all averaged mixtures together.
    n_counts_ : float
        Number of counts, or the sum of their weights.
    n_iter_ : int
        Number of iterations of the first mixture; 1 for cells.
    converged_ : bool
        Whether the training of all mixtures was stopped by `tol`.
    objectives_ : ndarray of shape (n_iter_,)
        Objective after each iteration, in nats per count. It never decreases. It is the truncated
        free energy ('em') or the classification log-likelihood ('partition'), plus the log prior.
        For cells it is the log-likelihood of held-out counts, from which the cells were chosen.
    n_parameters_ : int
        Number of free parameters: weights, means and covariances of Gaussians, and the share of
        the background. A tiling of K cells has K - 1 weights and K - 1 positions of splits.
    compression_ratio_ : float
        Number of coordinates of all counts, divided by `n_parameters_`.
    n_features_in_ : int
        Number of features seen in `fit`.
    feature_names_in_ : ndarray of shape (n_features_in_,)
        Names of the features, if all are strings.
    score_kind : str
        Kind of the scores: 'log_likelihood', log densities in nats per row.

    See Also
    --------
    sample_counts : Draw counts from an image.
    image_to_counts : Use pixels as weighted counts, which takes much less time.
    skae.photons.read_counts : Read the counts of detectors from files.

    Notes
    -----
    `sample_weight` weights counts: a count of weight 2 has the same effect as two copies. Pixels
    with their intensities as weights therefore give the same model as single counts at the centres
    of the pixels. In a search over `n_components`, however, the folds must hold out counts, not
    pixels. Split the counts first (:func:`thin`), or search with single counts as rows.

    The first Ctrl-C in `fit` keeps the Gaussians of the last complete iteration, or the complete
    mixtures if several are averaged, and issues a warning. In the following cases Ctrl-C raises
    KeyboardInterrupt, and the estimator stays as it was before: if no iteration is complete (those
    of the smaller mixtures of 'bic' and 'split' do not count), for cells, in `partial_fit` after
    the first frame, inside a Pipeline or a search, and at the second Ctrl-C.

    The model is a density rho of the places of the object. With `psf`, `exposure` e and background
    beta of share b, the density of the counts as they are recorded is (1 - b) (rho * N(0, psf)) e /
    Z + b beta, where Z is the integral of the numerator. `score_samples` and `sample` are of
    recorded counts, and `intensity` is of rho. EM treats the counts that the detector misses as
    latent.

    References
    ----------
    V. E. Antsiperov (2022). Generative model for autoencoders learning by image sampling
    representations. ICPRAM.
    http://scitepress.net/PublishedPapers/2022/109152/pdf/index.html

    J. Bovy, D. W. Hogg and S. T. Roweis (2011). Extreme deconvolution: inferring complete
    distribution functions from noisy, heterogeneous and incomplete observations. Annals of Applied
    Statistics 5(2B), 1657-1677. :doi:`10.1214/10-AOAS439`

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

    _state_shapes: ClassVar[dict[str, tuple[str, ...] | None]] = {
        "weights_": ("n_components_",),
        "means_": ("n_components_", "n_features_in_"),
    }
    _parameter_constraints: ClassVar[dict[str, list[Any]]] = {
        "n_components": [Interval(Integral, 1, None, closed="left"), StrOptions({"bic"}), None],
        "covariance_type": [StrOptions({"spherical", "diag", "full", "tied", "cell"})],
        "algorithm": [StrOptions({"em", "partition"})],
        "init": [StrOptions({"quantiles", "counts", "grid", "split"})],
        "prior_counts": [Interval(Real, 0, None, closed="left")],
        "n_averages": [Interval(Integral, 1, None, closed="left")],
        "image_shape": [tuple, list, None],
        "coordinates": [StrOptions({"auto", "continuous", "pixel"})],
        "edges": [StrOptions({"auto", "reflect", "open"})],
        "exposure": ["array-like", callable, None],
        "background": ["array-like", StrOptions({"flat"}), None],
        "psf": [Interval(Real, 0, None, closed="neither"), "array-like", None],
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
        n_components: int | Literal["bic"] | None = None,
        *,
        covariance_type: Kind | Literal["cell"] = "full",
        algorithm: Algorithm = "em",
        init: Literal["quantiles", "counts", "grid", "split"] = "quantiles",
        prior_counts: float = 5.0,
        n_averages: int = 1,
        image_shape: tuple[int, ...] | list[int] | None = None,
        coordinates: Literal["auto", "continuous", "pixel"] = "auto",
        edges: Literal["auto", "reflect", "open"] = "auto",
        exposure: ArrayLike | Callable[[Array], ArrayLike] | None = None,
        background: ArrayLike | Literal["flat"] | None = None,
        psf: float | ArrayLike | None = None,
        domain: ArrayLike | None = None,
        min_variance: float | None = None,
        tol: float = 1e-4,
        max_iter: int = 100,
        warm_start: bool = False,
        n_jobs: int | None = None,
        random_state: RandomState = None,
    ) -> None:
        self.n_components = n_components
        self.covariance_type = covariance_type
        self.algorithm = algorithm
        self.init = init
        self.prior_counts = prior_counts
        self.n_averages = n_averages
        self.image_shape = image_shape
        self.coordinates = coordinates
        self.edges = edges
        self.exposure = exposure
        self.background = background
        self.psf = psf
        self.domain = domain
        self.min_variance = min_variance
        self.tol = tol
        self.max_iter = max_iter
        self.warm_start = warm_start
        self.n_jobs = n_jobs
        self.random_state = random_state

    # ----------------------------------------------------------------- learning

    @fit_context
    def fit(
        self,
        X: ArrayLike,
        y: object = None,
        sample_weight: ArrayLike | None = None,
        *,
        noise_covariance: ArrayLike | None = None,
    ) -> Self:
        """Learn the mixture from counts.

        If `fit` raises an error, the estimator stays as it was before.

        Parameters
        ----------
        X : array-like of shape (n_samples, n_features)
            Counts. With `image_shape`, its first features are places in pixels, and further ones
            may be an energy or a delay. `coordinates` says whether places are indices of pixels.
        y : Ignored
            Present for API consistency.
        sample_weight : array-like of shape (n_samples,), default=None
            Weights of the counts: a count of weight 2 has the same effect as two copies.
        noise_covariance : array-like of shape (n_samples,), (n_samples, n_features) or \
                (n_samples, n_features, n_features), default=None
            Covariance of the noise of each count: one variance for all features, variances of the
            features, or a matrix, in squared units of the features. The mixture is then that of
            the true places (extreme deconvolution, Bovy et al. 2011), without reflection at edges.
            Only with Gaussians and without `exposure`; `partial_fit` does not take it. A covariance
            that all counts share is given as `psf`.

        Returns
        -------
        self : object
            The fitted estimator.

        Raises
        ------
        ValueError
            If `X`, `sample_weight`, `noise_covariance` or a parameter is not allowed. The message
            names the argument, what was given and what is allowed.
        MemoryError
            If there is not enough memory. The message names parameters that reduce its use.
        """
        of_rows = {} if noise_covariance is None else {"noise_covariance": noise_covariance}
        with all_or_nothing(self):
            self._fit_validated(X, y, sample_weight, **of_rows)
        return self

    def _fit_model(
        self,
        X: Any,
        rng: np.random.RandomState,
        sample_weight: Any | None,
        previous: Self | None,
        noise_covariance: Array | None = None,
    ) -> None:
        known: Any = None  # every fit computes new cells
        if previous is not None and "covariances_" in vars(previous):
            known = (previous._mixture(), previous._prior())
        self._dtype = X.dtype.name
        rows = np.asarray(X, dtype=np.float64)
        weight = np.ones(len(rows)) if sample_weight is None else sample_weight.astype(np.float64)
        self.n_counts_ = float(weight.sum())
        if not self.n_counts_ < _MOST_COUNTS:
            raise ValueError(
                f"sample_weight sums to {self.n_counts_:g}. The sum is the number of counts and "
                f"must be below {_MOST_COUNTS:g}."
            )
        self._bounds = declared_bounds(self.image_shape, self.domain, rows.shape[1])
        check_inside(rows, self._bounds, self.image_shape, self._are_pixels)
        rows, weight = self._record(rows, weight, has_noise=noise_covariance is not None)
        fractions = weight / weight.sum()
        mean = fractions @ rows
        self._floor = self._floor_of(mean, fractions @ (rows - mean) ** 2, np.abs(rows).max())
        if self._floor == 0 and not rows.any():
            self._floor = 1.0  # all counts are at zero, so that the width is arbitrary
        self._check_distances(rows, None)
        if noise_covariance is None:
            self._histogram = self._instrument.histogram(rows, weight)
        n_components = wanted_size(self.n_components, self.n_counts_)
        if known is not None:
            check_known(
                known[0], self.covariance_type, rows.shape[1], self.n_components, self.n_averages
            )
        if self.covariance_type == "cell":
            self._fit_cells(rows, weight, n_components, rng)
            return
        options = self._fit_options()
        if noise_covariance is not None:
            noise = self._internal_noise(noise_covariance)
            check_noise_range(noise, self._floor)
            options = replace(options, noise=noise)
        self._fit_gaussians(rows, weight, n_components, options, rng, known)

    def _fit_cells(
        self, rows: Array, weight: Array, n_cells: int | None, rng: np.random.RandomState
    ) -> None:
        domain = self._domain_of_cells(rows)
        lo = domain.lo
        shifts: list[Array | None] = [None]
        if self.n_averages > 1:
            shifts = list(rng.random_sample((self.n_averages, len(lo))))
        cells, self._shares, self._tilings, held_out = fit_cells(
            rows, weight, domain, n_cells, shifts, self.n_jobs
        )
        self.n_iter_, self.converged_ = 1, True
        self.objectives_ = np.array([held_out])
        n_splits = int((self._tilings - 1).sum())
        self._store_cells(cells)
        self._store_registered(cells)
        self._store_sizes(2 * n_splits)

    def _fit_gaussians(
        self,
        rows: Array,
        weight: Array,
        n_components: int | None,
        options: FitOptions,
        rng: np.random.RandomState,
        known: tuple[Gaussians, Prior] | None,
    ) -> None:
        if self.n_averages > 1 and self.covariance_type == "tied":
            raise ValueError(
                f"n_averages={self.n_averages} cannot be combined with covariance_type='tied', "
                "because the averaged mixtures have different covariances. Use n_averages=1 or "
                "another covariance_type."
            )
        if known is not None:
            if explains_rows(known[0], rows, weight, options):
                known = resumed(*known, float(self.prior_counts), self._floor)
            else:
                warn(
                    "warm_start=True was ignored, and training started anew: a single Gaussian "
                    "explains X better than the Gaussians of the previous fit do."
                )
                known = None
        n_components = n_components or size_by_bic(rows, weight, options, rng)
        keeps = keeps_progress(self)
        fits = fit_averages(rows, weight, n_components, options, rng, known, keeps_progress=keeps)
        self._store_training(fits)
        average, prior = average_of(fits, options)
        self._n_mixtures = len(fits)
        if self._instrument.reflects:
            average, prior = moved_inside(average, prior, self._instrument.frame)
        self._store_gaussians(average, prior)
        n = n_parameters(n_components, rows.shape[1], average.kind)
        self._store_sizes(len(fits) * (n + self._instrument.n_parameters))

    def _store_training(self, fits: list[Trained]) -> None:
        """Set the attributes of the iterations, and warn if training ended early."""
        self.objectives_ = np.array(fits[0].objectives)
        self.n_iter_ = len(self.objectives_)
        self.converged_ = len(fits) == self.n_averages and all(fit.converged for fit in fits)
        if fits[0].interrupted:
            warn_of_interruption("iteration", self.n_iter_)
        elif len(fits) < self.n_averages:
            warn_of_interruption("average", len(fits))
        elif not self.converged_:
            warn(
                f"Training did not converge in max_iter={self.max_iter} iterations. Increase "
                "max_iter or tol.",
                ConvergenceWarning,
            )

    def fit_transform(
        self,
        X: ArrayLike,
        y: object = None,
        sample_weight: ArrayLike | None = None,
        *,
        noise_covariance: ArrayLike | None = None,
    ) -> ArrayOrFrame:
        """Learn the mixture from counts, and return the indices of their components.

        Parameters
        ----------
        X : array-like of shape (n_samples, n_features)
            Counts, as in `fit`.
        y : Ignored
            Present for API consistency.
        sample_weight : array-like of shape (n_samples,), default=None
            Weights of the counts, as in `fit`.
        noise_covariance : array-like of shape (n_samples,), (n_samples, n_features) or \
                (n_samples, n_features, n_features), default=None
            Covariance of the noise of each count, as in `fit`.

        Returns
        -------
        Z : ndarray of shape (n_samples, 1)
            The most probable component of each count, as in `transform`, where counts have no noise
            besides `psf`.
        """
        return self.fit(X, y, sample_weight, noise_covariance=noise_covariance).transform(X)

    @fit_context
    def partial_fit(
        self, X: ArrayLike, y: object = None, sample_weight: ArrayLike | None = None
    ) -> Self:
        """Update the model with another frame of counts.

        The first call is the same as `fit`. Each later call assigns the counts of the frame to the
        components, by their responsibilities under the current mixture, and updates the mixture
        once. Counts of earlier frames are not assigned again (Neal and Hinton 1998). Cells keep
        their boundaries, and their weights are updated exactly.

        Parameters
        ----------
        X : array-like of shape (n_samples, n_features)
            Counts. The first frame must have at least as many counts as there are components.
        y : Ignored
            Present for API consistency.
        sample_weight : array-like of shape (n_samples,), default=None
            Weights of the counts, as in `fit`.

        Returns
        -------
        self : object
            The estimator.

        Raises
        ------
        ValueError
            If the frame or `sample_weight` is not allowed. The frame then does not change the
            estimator. The same is true if Ctrl-C interrupts the update.
        """
        self._validate_params()  # the decorator only validates before the first frame
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
                check_inside(rows, self._bounds, self.image_shape, self._are_pixels)
                rows = self._internal(rows)
                self._instrument.check_exposed(rows)
                self._add_frame(rows, weight.astype(np.float64))
        return self

    def _add_frame(self, rows: Array, weight: Array) -> None:
        before = self.n_counts_
        if self._histogram is not None:
            self._histogram = self._histogram + self._instrument.histogram(rows, weight)
        self.n_counts_ = before + float(weight.sum())
        ratio = self.n_counts_ / before
        mixture = self._mixture()
        if isinstance(mixture, Cells):
            check_tiled(rows, mixture.lo.min(axis=0), mixture.hi.max(axis=0))
            added = RowsInCells(rows, mixture).counts(weight)
            shares = self.__dict__.get("_shares", self.weights_)  # of files of earlier versions
            self._shares = recounted(shares, self._tilings, before, added, self.n_counts_)
            if self._instrument.exposure is None:
                self.weights_ = self._shares
            else:
                seen = shares > 0
                weights = self.weights_.copy()
                weights[seen] *= self._shares[seen] / shares[seen]
                self.weights_ = weights / weights.sum()
                self._store_registered(self._mixture())
        else:
            # If all counts of the first frame were equal, their variance gave no lower bound.
            moments = mixture.moments_with(before, rows, weight)
            self._floor = max(self._floor, self._floor_of(*moments, np.abs(rows).max()))
            self._check_distances(rows, mixture.means)
            prior = self._prior()
            after = updated(
                self._fit_options().rows(rows, weight, len(mixture.weights)),
                mixture,
                prior,
                algorithm=self.algorithm,
                before=before,
                registered=self._registered,
                added=float(weight.sum()),
                floor=self._floor,
            )
            self._store_gaussians(after, prior)
        self.compression_ratio_ *= ratio

    # ------------------------------------------------------- what the data allow

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
        self._store_registered(gaussians)
        self.background_share_ = gaussians.background
        self._prior_of_fit = tuple(prior)
        given = gaussians if self._units is None else in_units(gaussians, self._units)
        self.weights_, self.means_, self.covariances_, self._kind = given[:4]
        self.n_components_ = len(self.weights_)

    def _store_cells(self, cells: Cells) -> None:
        units = np.ones(cells.lo.shape[1]) if self._units is None else self._units
        self.weights_ = cells.weights
        self.cells_ = np.stack([cells.lo * units, cells.hi * units], axis=2)
        self.means_ = self.cells_.mean(axis=2)
        self.n_components_ = len(self.weights_)

    def _store_sizes(self, n_parameters: int) -> None:
        self.n_parameters_ = n_parameters
        self.compression_ratio_ = self.n_counts_ * self.n_features_in_ / max(n_parameters, 1)

    def _prior(self) -> Prior:
        prior: Any = self._prior_of_fit
        return Prior(*prior)

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
