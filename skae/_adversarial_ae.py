"""The adversarial autoencoder: a discriminator makes the codes follow a given prior.

References
----------
A. Makhzani, J. Shlens, N. Jaitly, I. Goodfellow and B. Frey (2015). Adversarial
autoencoders. :doi:`10.48550/arXiv.1511.05644`
"""

from __future__ import annotations

import copy
from collections.abc import Callable
from math import log
from numbers import Integral, Real
from os import PathLike
from typing import Any, ClassVar, Literal, Self

import numpy as np
import torch
from numpy.typing import ArrayLike, NDArray
from torch import Tensor, nn

from skae._deterministic_autoencoder import DETERMINISTIC_CONSTRAINTS, DeterministicAutoencoder
from skae._encoder_decoder import EncoderDecoder
from skae._inference.bounds import LogPrior
from skae._latent_samples import LatentSamplesMixin
from skae._modules.adversarial import AdversarialArchitecture, AdversarialModule
from skae._modules.architecture import layer_sizes
from skae._modules.own_networks import Network
from skae._nn.gaussian_latents import Components, log_prior
from skae._nn.priors import PRIORS, can_be_sampled, draw_from
from skae._training.data import Data, Dataset
from skae._utils.sparse_rows import Rows
from skae._utils.types import (
    Activation,
    ImageShape,
    LayerSizes,
    LearningRate,
    Likelihood,
    NoiseVariance,
    OutActivation,
    Pooling,
    Precision,
    RandomState,
    Samplable,
    SizeFactor,
)
from skae._utils.validation import Interval, StrOptions

Array = NDArray[Any]


class AdversarialAE(LatentSamplesMixin, DeterministicAutoencoder):
    """Adversarial autoencoder, whose codes follow a prior that you choose.

    Each training step has three updates, each by its own optimiser. First, the encoder and the
    decoder maximise log p(x|z); `tol` and early stopping use this loss. Second, a discriminator
    learns to distinguish codes from draws of the prior. Third, the encoder learns to make the
    discriminator fail (with the non-saturating loss). With `adversarial_weight`, the first update
    also moves the codes to the prior, and there is no third one. If training succeeds, the codes of
    all rows together follow the prior, and `sample` decodes draws of the prior. The model has no
    likelihood of x: `score_samples` returns the log-likelihood of the reconstruction.

    For deep networks, set `normalization="batch"`. Without it, matching the prior makes the
    reconstruction worse. If the prior is concentrated on a thin set, such as "swiss_roll", use a
    larger discriminator with a larger learning rate than that of the encoder.

    The built-in networks standardise rows: they subtract the mean of every feature and divide by
    one common scale, the square root of the mean variance of the features. A scaler is therefore
    not needed for training, and the features keep their relative weight, as in PCA. Your own
    `encoder` and `decoder` get rows that are not standardised.

    Tables with numeric, categorical and count columns and missing values can be given directly,
    with `likelihood="auto"` or a mapping from columns to likelihoods. `reconstruct`, `sample` and
    `impute` then return tables with the same columns, types and categories. See the page "Tables
    with categories" of the documentation.

    Parameters
    ----------
    n_components : int, float or None, default=2
        Number of codes. A float in (0, 1) takes the smallest number of components with which PCA
        explains more than this share of the variance of the training rows (of tables, of the
        columns that the encoder reads). None takes the smaller of the numbers of rows and features,
        as in PCA: such codes leave nothing out. Training that continues from an earlier fit keeps
        its number.
    hidden_layer_sizes : array-like of int or int, default=(100,)
        Number of units in each hidden layer of the encoder. With `network="conv"`, these are
        numbers of channels, and each layer halves the height and the width of the image.
    decoder_layer_sizes : array-like of int or int, default=None
        Sizes of the hidden layers of the decoder. None takes those of the encoder in reverse order.
    activation : {"relu", "leaky_relu", "silu", "tanh", "logistic", "identity"}, default="relu"
        Activation function of the hidden layers.
    out_activation : {"identity", "logistic", "tanh", "relu"}, default="identity"
        Activation function of the mean of p(x|z), for `likelihood="gaussian"` and "laplace". It
        keeps the mean in the range of the data: "logistic" suits pixels in [0, 1]. With any value
        but "identity", the decoder models the rows in their own units, not standardised.
    normalization : {"batch"}, default=None
        With "batch", the hidden layers use batch normalisation. None uses no normalisation.
    network : {"mlp", "conv"}, default="mlp"
        Kind of the built-in networks: fully connected layers, or convolutional layers with 3x3
        filters.
    image_shape : tuple of (channels, height, width), default=None
        Shape of the image that each row holds, as (channels, height, width). It is required for
        `network="conv"`, where height and width must be at least 4. If it is set, your own
        `encoder` gets images of this shape instead of rows, and your own `decoder` must return
        them.
    pooling : {"stride", "max", "average", "min"}, default="stride"
        How the layers of `network="conv"` halve images: by convolutions of stride 2, or by the
        maximum, average or minimum of 2x2 pixels. The decoder enlarges images by repeating pixels.
    encoder, decoder : torch.nn.Module or callable, default=None
        Your own networks: modules, which are copied and not changed, or functions or classes that
        are called with (n_features_in, n_components) and return a module. The encoder maps (n,
        n_features) to (n, n_components), the decoder maps back. With `posterior="gaussian"` the
        encoder maps to (n, 2 n_components), first the means and then the log variances. If training
        rows have NaN, the encoder reads 2 n_features columns: the values, with 0 in place of
        missing ones, and then a mask, 1 where a value is observed and 0 elsewhere. The page "Use
        your own network" of the documentation describes such functions, and the columns of tables.
    likelihood : {"gaussian", "bernoulli", "continuous_bernoulli", "poisson", \
            "negative_binomial", "zero_inflated_negative_binomial", "laplace", "categorical", \
            "auto"} or mapping, default="gaussian"
        Likelihood p(x|z) of a row given its code. "gaussian" and "laplace" have a noise variance.
        "bernoulli" also accepts grey values between 0 and 1; their score is then an expected log
        probability, not a log density, and must not be compared with other likelihoods. Use
        "continuous_bernoulli" for a density on [0, 1]. Counts have the likelihood "poisson";
        "negative_binomial", with a learned dispersion of each feature; or
        "zero_inflated_negative_binomial", for which the decoder also gives a probability of
        additional zeros (Lopez et al. 2018). In a table every column has its own
        likelihood: a mapping from column names or indices to likelihoods sets them, "auto" chooses
        them by the type and the values of the columns, and "categorical" makes all columns
        categorical. Tables cannot be combined with `out_activation`, `image_shape` or
        `network="conv"`.
    noise_variance : {"scalar", "per_feature"} or float, default="scalar"
        Noise variance of "gaussian" and "laplace" likelihoods. It is learned, either one value for
        all features ("scalar") or one for each ("per_feature"); a float fixes it, in squared units
        of X. The smallest variance that can be learned is 1e-4 times the mean variance of the
        features, or a tenth of the noise variance of the linear start (see `init`) if this is
        smaller. In a table every numeric column has its own noise variance. It is learned, and at
        least 1e-4 times the variance of the column; a float is a fraction of the variance of the
        column.
    size_factor : {"total"} or None, default="total"
        Size factor of a row of counts, which multiplies its rates; other likelihoods ignore it.
        With "total", the decoder returns the share of each feature, the size factor of a training
        row is its total, and the encoder reads logarithms of counts that are scaled to equal
        totals. Scores and samples integrate over a log-normal law of size factors, which is fitted
        to the totals, and decoded codes have the size factor `size_factor_`. With None, the
        decoder returns the rates, so that the codes also hold the total.
    missing : {"mask", "error"}, default="mask"
        With "mask", NaN marks a missing value. Missing values are left out of the likelihood. The
        encoder reads the mean of the feature in their place, and also a mask of the observed values
        if the training rows had NaN. With "error", NaN raises a ValueError.
    handle_unknown : {"error", "missing"}, default="error"
        How categories of a table that did not occur in `fit` are handled: "error" raises a
        ValueError, "missing" treats them as missing values.
    posterior : {"deterministic", "gaussian"}, default="deterministic"
        Kind of encoder output. With "deterministic" it is the code. With "gaussian" the encoder
        gives the mean and the variances of a Gaussian, from which the code is drawn in training;
        `transform` returns its mean.
    prior : {"gaussian", "mixture", "swiss_roll"}, estimator or callable, default="gaussian"
        Distribution that the codes are trained to follow. "gaussian" is N(0, I). "mixture" is an
        equally weighted mixture of N(m, I) for the means m in `prior_means`. "swiss_roll" is a
        spiral of 2 codes, or a rolled-up sheet of 3 codes. It can also be an object with a method
        `sample(n)`, or a callable of n, which returns n rows of codes; it gets a seed if it has a
        parameter `random_state`. Wrap a fitted estimator in `sklearn.frozen.FrozenEstimator`, so
        that it stays fitted when this estimator is cloned, for example in a grid search.
    prior_scale : float, default=1.0
        Factor by which the standard deviations of "gaussian" and "mixture" are multiplied, or all
        coordinates of "swiss_roll", whose radius is 3.
    prior_means : array-like of float or of shape (n_means, n_components), default=(-3.0, 3.0)
        Means of the components of "mixture". A number m stands for a vector whose entries are all
        m.
    discriminator_layer_sizes : array-like of int or int, default=(100,)
        Number of units in each hidden layer of the discriminator. Their activation function is
        "leaky_relu".
    discriminator_learning_rate_init : float, default=1e-3
        Learning rate of the discriminator. It follows the same schedule as that of the other
        networks.
    adversarial_weight : float, default=None
        Weight of the divergence KL(q(z) || p(z)) of the distribution q(z) of the codes of all rows
        from the prior p(z). The discriminator estimates the divergence in nats. The encoder
        minimises the loss of the reconstruction in nats plus the weight times the divergence, in
        one update. Small weights give better reconstructions, and large ones a better match of the
        codes with the prior; try 1 to 15. With None, the encoder learns to make the discriminator
        fail in an update of its own, as in the paper. With "adam" and "adamw", the steps of that
        update stay as large as those for the reconstruction when the divergence is small. The
        weight cannot change while training continues. `score` is that of the reconstruction, so
        that a search over weights needs another scorer.
    latent_growth : {"incremental", "nested"}, default=None
        Orders the codes by importance, as in PCA, so that one fit gives a model of every size (see
        `truncate` and `reconstruction_path`). With "nested", each training step keeps the first k
        codes of a row, with a random k for each row, and sets the others to zero. With
        "incremental", training starts with one code and adds the others one at a time; for every
        second row, a random number of the codes added so far is kept. None does not order the
        codes.
    growth_fraction : float, default=0.5
        Fraction of the epochs in which "incremental" adds the codes. `tol` and early stopping take
        effect only after these epochs.
    perceptual : tuple of (torch.nn.Module, float), default=None
        A pretrained network, which is not trained further, and a weight. The loss then also
        contains this weight times the squared distance between the features that the network
        computes of a row and of its reconstruction. With `image_shape`, the network gets images.
    init : {"linear", "random"}, default=None
        Initialisation of the networks. "linear" starts from PCA of the training rows, and a VAE
        from probabilistic PCA. Networks with rectifiers and at least two units for each code
        represent this linear model exactly, others approximately. If training does not improve on
        the linear model, the fitted model stays the linear model. "random" draws random weights.
        None means "linear" where that is possible, that is, for the built-in `network="mlp"`
        without `pretraining` and `sparsity`.
    solver : {"adam", "adamw", "sgd"}, default="adam"
        Optimiser.
    alpha : float, default=1e-4
        Strength of the L2 penalty on the weights. For "adamw" it is the decoupled weight decay.
    batch_size : int, default=128
        Number of rows in each step of the optimiser.
    learning_rate : {"constant", "cosine", "invscaling", "adaptive"}, default=None
        Schedule of the learning rate. "cosine" rises during the first tenth of the epochs and then
        falls to zero. "invscaling" divides by the square root of the epoch. "adaptive" divides by 5
        whenever the loss has not improved for two epochs. None means "cosine" if `max_iter=None`
        finds the number of epochs by trials, and "constant" otherwise.
    learning_rate_init : float, default=1e-3
        Largest learning rate of the schedule.
    momentum : float in [0, 1), default=0.9
        Nesterov momentum of "sgd".
    weight_averaging : float in [0, 1), default=0.0
        Decay of an exponential moving average of the weights over training steps. The fitted model
        has the averaged weights. With 0, it has the latest weights.
    max_iter : int, default=None
        Maximum number of epochs. With 0, the networks stay as they are initialised. With None, the
        number of rows decides. From 20 to 10,000 rows, one to three trials hold out a fifth of the
        rows and find the number of epochs that is best for the held-out rows. All rows are then
        trained on for that number of epochs, or for twice as many with "cosine"; if no epoch
        improves the held-out rows, training is skipped. With more than 10,000 rows, some rows are
        held out of training, as with `early_stopping`. If `early_stopping` or `tol` is set, or if
        training continues from an earlier fit, None means 200 epochs, or as many as make 4,000
        steps if these are more.
    tol : float, default=None
        Training ends when the loss has not improved by `tol` nats per row for `n_iter_no_change`
        epochs. With None or 0, the loss does not end training.
    early_stopping : bool, default=False
        Whether to hold out rows, to end training when the loss of these rows no longer improves,
        and to keep the weights of their best epoch.
    validation_fraction : float in (0, 1), default=0.1
        Fraction of the rows that early stopping holds out.
    n_iter_no_change : int, default=10
        Number of epochs without improvement after which `tol` or early stopping ends training.
    n_init : int, default=1
        Number of fits from different seeds. They are trained together, and the one with the best
        `score` on the training rows (on at most 10,000 of them) is kept. The first uses the same
        seed as a single fit.
    warm_start : bool, default=False
        Whether `fit` continues training from the previous fit.
    verbose : int, default=0
        With 1, training shows its epochs, losses and remaining time: as a bar in a terminal or a
        notebook, and otherwise as a few lines on stderr. With 2, it prints a line for every epoch.
    random_state : int, RandomState instance or None, default=None
        Seed of the initial weights, the order of the rows, random draws and the choice of held-out
        rows. With None, every fit uses new random numbers. The global generators of NumPy and torch
        are not used.
    device : str, default="auto"
        Device of the network: "cpu", "cuda", "cuda:1", "mps" or "auto". "auto" uses a GPU if there
        is one.
    precision : {"auto", "float32", "bfloat16"}, default="auto"
        Floating-point precision in training. "auto" uses bfloat16 on GPUs that support it, and
        float32 otherwise.
    compile : bool, default=False
        Whether to compile the loss with torch.compile. Compilation takes up to a minute at the
        start of training.
    callbacks : list of skorch callbacks, default=None
        skorch callbacks that are called at each epoch, and at each batch if they implement the
        methods for batches. Use `set_callbacks` for callbacks of scikit-learn, whose tasks are
        epochs.
    checkpoint_dir : str or path-like, default=None
        Folder in which `fit` stores the state of its training after epochs. A `fit` that was
        killed goes on from there when it is called again with the same rows and parameters, and
        gives the same model. With None, no files are written.
    checkpoint_every : int, default=1
        Number of epochs from one stored state to the next.
    distributed : bool, default=False
        Whether the processes that torchrun has started train one model together. Each calls `fit`
        with all rows (page "Train in several processes" of the documentation).

    Attributes
    ----------
    net_ : skorch.NeuralNet
        The trained network as a skorch net. The torch module is `net_.module_`.
    history_ : list of dict
        Losses of each epoch. `train_loss` is the loss of the reconstruction in nats per row; with
        `perceptual` it includes the perceptual loss, and `train_reconstruction` does not.
        `train_discriminator` is the loss of the discriminator, which is 2 log 2 if it cannot
        distinguish codes from draws. `train_encoder` is the adversarial loss of the encoder, which
        is then log 2. With `adversarial_weight`, `train_loss` does not contain the divergence, and
        `train_encoder` is not minimised, but recorded.
    n_iter_ : int
        Number of epochs of training.
    n_components_ : int
        Number of codes.
    noise_variance_ : float or ndarray of shape (n_features,)
        Noise variance in squared units of X; None for likelihoods without one. For tables, an array
        with one value for each column, and NaN for columns without noise variance.
    size_factor_ : float
        Geometric mean of the totals of the training rows. Only for likelihoods of counts with
        `size_factor="total"`.
    dispersion_ : ndarray of shape (n_features,)
        Dispersion of each feature: a count of mean m has variance m + m² / dispersion. Only for
        the two negative binomial likelihoods.
    likelihoods_ : dict of str
        Likelihood of each column, by name or index. Only for tables.
    categories_ : dict of ndarray
        Levels of each categorical column, by name or index. Only for tables.
    code_mean_ : ndarray of shape (n_components,)
        Mean of the training codes.
    code_covariance_ : ndarray of shape (n_components, n_components)
        Covariance of the training codes.
    components_ : ndarray of shape (n_components_, n_features_in_)
        Derivatives of `inverse_transform` with respect to each code, at the mean code of the
        training rows. Near the mean code, `inverse_transform(Z)` is `Z @ components_ + mean_` to
        first order. The lengths depend on the units of the codes, and the directions need not be
        orthogonal. This attribute and the next three are computed when they are read. They do not
        exist for tables with categories or for `VAE(conditional=True)`.
    mean_ : ndarray of shape (n_features_in_,)
        Constant of this linear approximation. It is the mean of the rows only if the decoder is
        linear and the mean code is zero.
    explained_variance_ : ndarray of shape (n_components_,)
        Variance, with n - 1, that each code adds to the reconstructions by the codes before it, if
        the decoder is replaced by the linear approximation. For uncorrelated codes this is the
        variance of the code times the squared length of its row of `components_`. It equals that
        of PCA if the networks are the maps of PCA.
    explained_variance_ratio_ : ndarray of shape (n_components_,)
        The same as fractions of the total variance of the rows. If the decoder is far from linear,
        the sum can exceed 1, and is not the share of the variance that `reconstruct` explains.
    n_features_in_ : int
        Number of features seen in `fit`.
    feature_names_in_ : ndarray of shape (n_features_in_,)
        Names of the features, if all are strings.

    See Also
    --------
    VAE : Autoencoder with a prior and a lower bound on log p(x).
    Autoencoder : Autoencoder without a prior.

    References
    ----------
    A. Makhzani, J. Shlens, N. Jaitly, I. Goodfellow and B. Frey (2015). Adversarial
    autoencoders. :doi:`10.48550/arXiv.1511.05644`

    I. Goodfellow et al. (2014). Generative adversarial nets. NeurIPS.
    :doi:`10.48550/arXiv.1406.2661`

    R. Lopez, J. Regier, M. B. Cole, M. I. Jordan and N. Yosef (2018). Deep generative modeling
    for single-cell transcriptomics. Nature Methods 15, 1053-1058.
    :doi:`10.1038/s41592-018-0229-2`

    Examples
    --------
    >>> from sklearn.datasets import load_digits
    >>> from skae import AdversarialAE
    >>> X, _ = load_digits(return_X_y=True)
    >>> aae = AdversarialAE(4, prior="mixture", max_iter=5, random_state=0).fit(X)
    >>> aae.transform(X).shape
    (1797, 4)
    >>> aae.sample(3, random_state=0).shape
    (3, 64)
    >>> aae.score_kind
    'reconstruction'
    """

    _Architecture = AdversarialArchitecture
    # The reconstruction error does not show how well the codes follow the prior.
    _least_epochs = 200

    _architecture: AdversarialArchitecture
    _prior: Any  # a copy of the user's own prior, or None

    _parameter_constraints: ClassVar[dict[str, list[Any]]] = {
        **EncoderDecoder._parameter_constraints,
        **DETERMINISTIC_CONSTRAINTS,
        "posterior": [StrOptions({"deterministic", "gaussian"})],
        "prior": [object],
        "prior_scale": [Interval(Real, 0, None, closed="neither")],
        "prior_means": ["array-like"],
        "discriminator_layer_sizes": ["array-like", Interval(Integral, 1, None, closed="left")],
        "discriminator_learning_rate_init": [Interval(Real, 0, None, closed="neither")],
        "adversarial_weight": [Interval(Real, 0, None, closed="neither"), None],
        "solver": [StrOptions({"adam", "adamw", "sgd"})],
    }

    def __init__(
        self,
        n_components: int | float | None = 2,
        *,
        hidden_layer_sizes: LayerSizes = (100,),
        decoder_layer_sizes: LayerSizes | None = None,
        activation: Activation = "relu",
        out_activation: OutActivation = "identity",
        normalization: Literal["batch"] | None = None,
        network: Literal["mlp", "conv"] = "mlp",
        image_shape: ImageShape | None = None,
        pooling: Pooling = "stride",
        encoder: Network | None = None,
        decoder: Network | None = None,
        likelihood: Likelihood = "gaussian",
        noise_variance: NoiseVariance = "scalar",
        size_factor: SizeFactor = "total",
        missing: Literal["mask", "error"] = "mask",
        handle_unknown: Literal["error", "missing"] = "error",
        posterior: Literal["deterministic", "gaussian"] = "deterministic",
        prior: Literal["gaussian", "mixture", "swiss_roll"]
        | Samplable
        | Callable[..., Any] = "gaussian",
        prior_scale: float = 1.0,
        prior_means: ArrayLike = (-3.0, 3.0),
        discriminator_layer_sizes: LayerSizes = (100,),
        discriminator_learning_rate_init: float = 1e-3,
        adversarial_weight: float | None = None,
        latent_growth: Literal["incremental", "nested"] | None = None,
        growth_fraction: float = 0.5,
        perceptual: tuple[nn.Module, float] | None = None,
        init: Literal["linear", "random"] | None = None,
        solver: Literal["adam", "adamw", "sgd"] = "adam",
        alpha: float = 1e-4,
        batch_size: int = 128,
        learning_rate: LearningRate | None = None,
        learning_rate_init: float = 1e-3,
        momentum: float = 0.9,
        weight_averaging: float = 0.0,
        max_iter: int | None = None,
        tol: float | None = None,
        early_stopping: bool = False,
        validation_fraction: float = 0.1,
        n_iter_no_change: int = 10,
        n_init: int = 1,
        warm_start: bool = False,
        verbose: int = 0,
        random_state: RandomState = None,
        device: str = "auto",
        precision: Precision = "auto",
        compile: bool = False,  # noqa: A002 (as in skorch)
        callbacks: list[Any] | tuple[Any, ...] | None = None,
        checkpoint_dir: str | PathLike[str] | None = None,
        checkpoint_every: int = 1,
        distributed: bool = False,
    ) -> None:
        self.n_components = n_components
        self.hidden_layer_sizes = hidden_layer_sizes
        self.decoder_layer_sizes = decoder_layer_sizes
        self.activation = activation
        self.out_activation = out_activation
        self.normalization = normalization
        self.network = network
        self.image_shape = image_shape
        self.pooling = pooling
        self.encoder = encoder
        self.decoder = decoder
        self.likelihood = likelihood
        self.noise_variance = noise_variance
        self.size_factor = size_factor
        self.missing = missing
        self.handle_unknown = handle_unknown
        self.posterior = posterior
        self.prior = prior
        self.prior_scale = prior_scale
        self.prior_means = prior_means
        self.discriminator_layer_sizes = discriminator_layer_sizes
        self.discriminator_learning_rate_init = discriminator_learning_rate_init
        self.adversarial_weight = adversarial_weight
        self.latent_growth = latent_growth
        self.growth_fraction = growth_fraction
        self.perceptual = perceptual
        self.init = init
        self.solver = solver
        self.alpha = alpha
        self.batch_size = batch_size
        self.learning_rate = learning_rate
        self.learning_rate_init = learning_rate_init
        self.momentum = momentum
        self.weight_averaging = weight_averaging
        self.max_iter = max_iter
        self.tol = tol
        self.early_stopping = early_stopping
        self.validation_fraction = validation_fraction
        self.n_iter_no_change = n_iter_no_change
        self.n_init = n_init
        self.warm_start = warm_start
        self.verbose = verbose
        self.random_state = random_state
        self.device = device
        self.precision = precision
        self.compile = compile
        self.callbacks = callbacks
        self.checkpoint_dir = checkpoint_dir
        self.checkpoint_every = checkpoint_every
        self.distributed = distributed

    # -------------------------------------------------------------------- learning

    def _check_parameters(self, n_features: int) -> None:
        super()._check_parameters(n_features)
        layer_sizes("discriminator_layer_sizes", self.discriminator_layer_sizes)
        named = isinstance(self.prior, str)
        if self.prior not in PRIORS if named else not can_be_sampled(self.prior):
            raise ValueError(
                f"prior={self.prior!r} must be one of {list(PRIORS)}, an object with a method "
                "sample, or a callable."
            )
        self._means()

    def _begin(
        self,
        X: Rows,
        sample_weight: Array | None,
        y: Array | None,
        previous: Self | None,
        rng: np.random.RandomState,
    ) -> Data:
        """As in the base class, with a copy of the user's own prior.

        The fitted model draws from the copy, so that later changes of the object do not matter.
        """
        if previous is not None:
            self._prior = previous._prior
        else:
            self._check_prior()
            self._prior = None if isinstance(self.prior, str) else copy.deepcopy(self.prior)
        return super()._begin(X, sample_weight, y, previous, rng)

    def _check_prior(self) -> None:
        """Raise if the prior does not exist for this number of codes."""
        means = self._means()
        n_codes = self._n_latents()
        rolled = isinstance(self.prior, str) and self.prior == "swiss_roll"
        if rolled and n_codes not in (2, 3):
            raise ValueError(f"n_components={n_codes} must be 2 or 3 with prior='swiss_roll'.")
        if means.ndim == 2 and means.shape[1] != n_codes:
            raise ValueError(
                f"prior_means={self.prior_means!r} must contain numbers, or vectors of length "
                f"n_components={n_codes}."
            )

    def _means(self) -> Array:
        """Means of the components of "mixture", as numbers or vectors."""
        try:
            means = np.asarray(self.prior_means, dtype=np.float64)
        except (TypeError, ValueError):
            means = np.zeros(0)
        if means.ndim not in (1, 2) or not means.size or not np.isfinite(means).all():
            raise ValueError(
                f"prior_means={self.prior_means!r} must contain one or more finite numbers, or "
                "vectors of n_components finite numbers."
            )
        return means

    def _derived_fields(self) -> dict[str, Any]:
        rate = self.discriminator_learning_rate_init / self.learning_rate_init
        return {
            **super()._derived_fields(),
            "prior": self.prior if isinstance(self.prior, str) else "own",
            "prior_means": _as_tuples(self._means()),
            "discriminator_rate": float(rate),
        }

    def _given_modules(self) -> tuple[Any, ...]:
        return (*super()._given_modules(), None if isinstance(self.prior, str) else self.prior)

    def _make_module(self, generator: torch.Generator) -> AdversarialModule:
        architecture = self._architecture
        n_encoded = architecture.n_codes * (2 if architecture.posterior == "gaussian" else 1)
        parts = self._module_parts(generator, n_encoded)
        return AdversarialModule(*parts, generator)

    def _prepare(self, rows: Dataset, train: Tensor) -> None:
        """Draw a pool of codes from the user's own prior for training; then as in the base."""
        if self._prior is not None:
            module = self._trainer.module
            rng = np.random.RandomState(self._seed)
            pool = draw_from(self._prior, len(module.pool), self._architecture.n_codes, rng)
            module.pool.copy_(torch.from_numpy(pool))
        super()._prepare(rows, train)

    # -------------------------------------------------------------------- sampling

    def _has_code_density(self) -> bool:
        fitted = getattr(self, "_architecture", None)
        prior = self.prior if fitted is None else fitted.prior
        return isinstance(prior, str) and prior in ("gaussian", "mixture")

    def _log_code_density(self, k: int) -> LogPrior:
        """Log density of the prior, restricted to the codes that are not constant."""
        architecture, module = self._architecture, self._trainer.module
        varies = torch.from_numpy(self._code_stds(k) > 0).to(self._trainer.device)
        mean = torch.zeros((1, k), device=self._trainer.device)
        mean = module.means[:, :k] if architecture.prior == "mixture" else mean
        mean = mean[:, varies]
        log_var = torch.full_like(mean, 2 * log(architecture.prior_scale))
        log_weight = mean.new_full((len(mean),), -log(len(mean)))
        prior = Components(mean, log_var, log_weight)
        return lambda z: log_prior(z[..., varies], prior)

    def _draw_latent(self, n_samples: int, rng: np.random.RandomState) -> Array:
        architecture = self._architecture
        if architecture.prior == "own":
            codes: Array = draw_from(self._prior, n_samples, architecture.n_codes, rng)
        else:
            with self._trainer.inference(n_samples):
                generator = self._trainer.generator(rng)
                codes = self._trainer.module.draw_codes(n_samples, generator).cpu().numpy()
        return codes[:, : self.n_components_]

    def _draw(self, n_samples: int, rng: np.random.RandomState, noise: bool) -> Array:
        return self._generate(self._draw_latent(n_samples, rng), rng, noise)

    # ---------------------------------------------------------------------- saving

    def __setstate__(self, state: dict[str, Any]) -> None:
        super().__setstate__({"adversarial_weight": None} | state)  # earlier files lack it


def _as_tuples(means: Array) -> tuple[Any, ...]:
    return tuple(tuple(m) if isinstance(m, list) else m for m in means.tolist())
