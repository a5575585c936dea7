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
from numbers import Integral, Real
from typing import Any, ClassVar, Literal, Self

import numpy as np
from numpy.typing import ArrayLike, NDArray

from skae._count_learning import CountLearning
from skae._mixture.domain import (
    check_inside,
)
from skae._mixture.em import Algorithm
from skae._mixture.gaussians import Kind
from skae._utils.state import all_or_nothing
from skae._utils.types import ArrayOrFrame, RandomState
from skae._utils.validation import Interval, StrOptions, check_weight, fit_context

Array = NDArray[Any]

# The sum of the weights must be smaller than this.
_MOST_COUNTS = 1e100


class CountMixtureAE(CountLearning):
    r"""Generative autoencoder of counts, a mixture whose components are the codes.

    Rows are counts, for example the positions at which photons were registered. Each count is an
    independent draw from the mixture

    .. math:: \rho(x | \theta) = \sum_j w_j \rho_j(x | \theta)

    The code of a count is the index of the component :math:`\arg\max_j w_j \rho_j(x)`.
    `inverse_transform` decodes an index to the mean of this component, and `score_samples` returns
    the exact log density of the counts.

    In few dimensions, each count is compared only with the components near it. The search for
    these components guarantees that all others are negligible. 10,000 components are fitted to a
    million counts in ten seconds. With Numba (``pip install "skae[fast]"``), fits to at least
    100,000 counts of up to four features are several times faster, after their code has been
    compiled once.

    For an image (`image_shape`), the defaults choose the kind and the number of the components, and
    the prior, by the log-likelihood of held-out counts.

    Parameters
    ----------
    n_components : int, 'bic' or None, default=None
        Number of components of each mixture. None chooses the number together with
        ``covariance_type='auto'`` for an image; otherwise it means 8, or the number of counts if
        this is smaller. 'bic' takes the number with the lowest BIC. With cells, the fitted mixture
        may have fewer components, because a cell is only split if this improves the model.
    covariance_type : {'auto', 'spherical', 'diag', 'full', 'tied', 'cell', 'pixel'}, default='auto'
        Kind of the components. They are Gaussians with one variance ('spherical'), with a variance
        for each feature ('diag'), with any covariance matrix ('full'), or with one covariance
        matrix that all share ('tied'). With 'cell' they are uniform densities on boxes that cover
        `domain` without overlap, and the density outside of `domain` is zero. With 'pixel' there is
        one for each pixel of the image, and the weights are smooth estimates of the intensity; see
        Notes. 'auto' chooses 'pixel' or 'full' by held-out counts if `image_shape` has one length
        for each of up to 3 features, and `n_components` is None; it is 'full' otherwise, and with
        `psf`, `background`, `noise_covariance`, ``algorithm='partition'`` or a warm start.
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
    prior_counts : float or 'auto', default='auto'
        Weight of the prior of each Gaussian, as a number of counts. 0 gives maximum likelihood, and
        suits point sources. 'auto' takes 5, 0.5 or 0, chosen by held-out counts if `image_shape` is
        set, and 5 otherwise or with `noise_covariance`.
        The prior mean is the initial mean of the component. The prior variances are eight times
        the variances of the counts in the initial component, or the geometric mean of the
        variances in the component and those of all counts if that is smaller. The prior
        correlations are those of all counts. With such a prior, neighbouring components add up to
        a smooth density.
    n_averages : int, default=None
        Number of mixtures that are fitted and averaged. Their initial components or cells are
        shifted at random against each other. The model is the mixture of all their components. For
        'pixel' it is the number of grids of the partitions. None means 32 for 'pixel', and 1
        otherwise.
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
        Seed of ``init='counts'``, of the shifts of `n_averages`, and of the counts that are held
        out for choices. Nothing else is random. With None, every fit uses new random numbers. The
        global generators are not used.

    Attributes
    ----------
    weights_ : ndarray of shape (n_components_,)
        Weights w_j of the components.
    means_ : ndarray of shape (n_components_, n_features_in_)
        Means of the Gaussians, or centres of the cells or pixels.
    covariances_ : ndarray
        Covariances of the Gaussians. The shape is (n_components_,) for 'spherical',
        (n_components_, n_features_in_) for 'diag', (n_components_, n_features_in_, n_features_in_)
        for 'full' and (n_features_in_, n_features_in_) for 'tied', as in
        :class:`sklearn.mixture.GaussianMixture`. Only for Gaussians.
    cells_ : ndarray of shape (n_components_, n_features_in_, 2)
        Lowest and highest value of each cell or pixel along each feature. Only for these.
    covariance_type_ : str
        Kind of the components, 'full' or 'pixel' if it was chosen.
    prior_counts_ : float
        Weight of the prior of each Gaussian, which may have been chosen.
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
        Number of iterations of the first mixture; 1 for cells and pixels.
    converged_ : bool
        Whether the training of all mixtures was stopped by `tol`.
    objectives_ : ndarray of shape (n_iter_,)
        Objective after each iteration, in nats per count. It never decreases. It is the truncated
        free energy ('em') or the classification log-likelihood ('partition'), plus the log prior.
        For cells and pixels it is the log-likelihood of held-out counts, from which the cells or
        the weights of estimates were chosen.
    n_parameters_ : int
        Number of free parameters: weights, means and covariances of Gaussians, and the share of
        the background. A tiling of K cells has K - 1 weights and K - 1 positions of splits.
        For pixels it is their number minus one.
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

    With 'pixel', the intensity is a mixture of up to four estimates. One is the posterior mean over
    all recursive partitions of the image into boxes (Wong and Ma 2010), whose leaves may contain an
    edge or a slope, averaged over the origins of the grid. The others are posterior means of groups
    of similar patches (Lebrun et al. 2013), of pixels and of squares of 2 x 2 and 4 x 4 pixels.
    They need two dimensions and the same exposure everywhere. The weights of the mixture and the
    choice between 'pixel' and 'full' are those with which a tenth of the counts, held out, has the
    highest log-likelihood; more complex models must be better by more than 1.5 standard errors.
    With fewer than 100 counts, nothing is held out. `partial_fit` keeps these choices, and computes
    the estimate of all counts together.

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

    M. Lebrun, A. Buades and J.-M. Morel (2013). A nonlocal Bayesian image denoising algorithm. SIAM
    Journal on Imaging Sciences 6(3), 1665-1688. :doi:`10.1137/120874989`

    R. M. Neal and G. E. Hinton (1998). A view of the EM algorithm that justifies incremental,
    sparse, and other variants. Learning in Graphical Models, 355-368.
    :doi:`10.1007/978-94-011-5014-9_12`

    W. H. Wong and L. Ma (2010). Optional Pólya tree and Bayesian inference. Annals of Statistics
    38(3), 1433-1459. :doi:`10.1214/09-AOS755`

    Examples
    --------
    >>> from sklearn.datasets import load_digits
    >>> from skae import CountMixtureAE, sample_counts
    >>> image = load_digits().images[0]
    >>> counts = sample_counts(image, 20_000, random_state=0)
    >>> ae = CountMixtureAE(image_shape=(8, 8), random_state=0).fit(counts)
    >>> ae.covariance_type_
    'pixel'
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
        "covariance_type": [
            StrOptions({"auto", "spherical", "diag", "full", "tied", "cell", "pixel"})
        ],
        "algorithm": [StrOptions({"em", "partition"})],
        "init": [StrOptions({"quantiles", "counts", "grid", "split"})],
        "prior_counts": [Interval(Real, 0, None, closed="left"), StrOptions({"auto"})],
        "n_averages": [Interval(Integral, 1, None, closed="left"), None],
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
        covariance_type: Kind | Literal["auto", "cell", "pixel"] = "auto",
        algorithm: Algorithm = "em",
        init: Literal["quantiles", "counts", "grid", "split"] = "quantiles",
        prior_counts: float | Literal["auto"] = "auto",
        n_averages: int | None = None,
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
        their boundaries, and their weights are updated exactly. Densities on pixels are estimated
        anew from the counts of all frames. What was chosen by the counts of the first frame is
        kept: the kind and the number of components, the prior and the smoothing.

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

    # -------------------------------------------------------------- names and files

    @property
    def _n_features_out(self) -> int:
        self.n_components_  # noqa: B018  (an unfitted model has no codes to name)
        return 1

    def __sklearn_tags__(self) -> Any:
        tags = super().__sklearn_tags__()
        tags.transformer_tags.preserves_dtype = []  # indices are integers
        return tags
