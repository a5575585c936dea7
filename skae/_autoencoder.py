"""The nonlinear autoencoder with its denoising, sparse, contractive and ordered variants.

References
----------
G. E. Hinton and R. R. Salakhutdinov (2006). Reducing the dimensionality of data with
neural networks. Science 313, 504-507. :doi:`10.1126/science.1127647`
"""

from __future__ import annotations

from math import log, pi
from numbers import Integral, Real
from os import PathLike
from typing import Any, ClassVar, Literal

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from skae._deterministic_autoencoder import DETERMINISTIC_CONSTRAINTS, DeterministicAutoencoder
from skae._encoder_decoder import EncoderDecoder
from skae._inference.bounds import LogPrior
from skae._modules.autoencoder import AutoencoderArchitecture, AutoencoderModule
from skae._modules.own_networks import Network
from skae._modules.pretraining import pretrain
from skae._nn.likelihoods import LIKELIHOODS
from skae._nn.linear_maps import has_exact_pairs
from skae._tables.kinds import has_kinds
from skae._training.checkpoints import present_files
from skae._training.data import Dataset
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
    SizeFactor,
)
from skae._utils.validation import Interval, StrOptions

Array = NDArray[Any]

# Learning rate of Adam in pretraining if `solver` is not one of Adam's variants.
_PAIR_RATE = 1e-3
# Variances of codes along principal axes are at least this fraction of the largest variance.
_FLAT = 1e-12


class Autoencoder(DeterministicAutoencoder):
    """Nonlinear autoencoder with an encoder network G and a decoder network H.

    The code of a row x is z = G(x), and the decoder gives the parameters of p(x|z). Training
    maximises log p(x | H(G(x))) over the weights of both networks and the noise variance, in
    batches of rows. `transform` returns the codes, and `inverse_transform` returns the mean of
    p(x|z).

    The built-in networks standardise rows: they subtract the mean of every feature and divide by
    one common scale, the square root of the mean variance of the features. A scaler is therefore
    not needed for training, and the features keep their relative weight, as in PCA. Put a
    StandardScaler in front if all features should have the same weight. Your own `encoder` and
    `decoder` get rows that are not standardised.

    An autoencoder is not a generative model. Nothing in its training makes similar codes decode to
    similar rows, makes every code decode to a realistic row, or gives the codes a known
    distribution. `sample` draws codes from a Gaussian fitted to the training codes. The rows that
    it returns are usually unrealistic, because the codes need not be Gaussian.

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
        n_features) to (n, n_components), the decoder maps back. If training rows have NaN, the
        encoder reads 2 n_features columns: the values, with 0 in place of missing ones, and then a
        mask, 1 where a value is observed and 0 elsewhere. The page "Use your own network" of the
        documentation describes such functions, and the columns of tables.
    tied_weights : bool, default=False
        Whether the decoder uses the transposed weights of the encoder. Only for `network="mlp"`.
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
    pretraining : {"rbm", "layerwise"}, default=None
        Greedy pretraining of the layers, one after the other: as restricted Boltzmann machines
        ("rbm"; needs `activation="logistic"` and is not available for tables), or as autoencoders
        with one hidden layer ("layerwise"). Only for `network="mlp"`. None trains all layers
        together from the start.
    pretraining_max_iter : int, default=10
        Number of epochs of pretraining for each layer.
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
    noise : {"gaussian", "masking", "salt_and_pepper"}, default=None
        Kind of noise in the rows that the encoder reads in training (denoising autoencoder). The
        rows to be reconstructed have no noise. None adds no noise.
    noise_level : float, default=0.1
        Amount of noise. For "gaussian" it is the standard deviation, in units of the square root of
        the mean variance of the features, or in units of X for your own networks. For "masking" it
        is the fraction of values that are set to zero, or in tables to missing. For
        "salt_and_pepper" it is the fraction of values that are set to the smallest or the largest
        value of X; this kind of noise is not available for tables.
    sparsity : float in (0, 1), default=None
        Target for the mean of each code (sparse autoencoder). The codes then have a logistic
        activation and lie in (0, 1). None sets no target, and the codes are linear.
    sparsity_weight : float, default=1.0
        Weight of the penalty for sparsity, the divergence of the means of the codes from the
        target, in nats per row.
    contraction : float, default=0.0
        Weight of the penalty of the contractive autoencoder, the mean squared Frobenius norm of the
        Jacobian of the encoder. It is computed in the units in which the encoder reads rows.
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
    solver : {"adam", "adamw", "sgd", "lbfgs", "muon"}, default="adam"
        Optimiser. "lbfgs" uses all rows at once, makes 20 steps in each epoch, and ignores
        `learning_rate_init`. "muon" orthogonalises the steps of the weights of linear layers
        that neither read nor give rows (Jordan et al. 2024), with five times the learning rate, and
        uses AdamW for all other parameters; `alpha` is then the decoupled weight decay.
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
        Losses of each epoch, in nats per row.
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
    LinearAE : Linear autoencoder, whose optimum is PCA.
    VAE : Autoencoder with a distribution of the codes.

    References
    ----------
    G. E. Hinton and R. R. Salakhutdinov (2006). Reducing the dimensionality of data with
    neural networks. Science 313, 504-507. :doi:`10.1126/science.1127647`

    P. Vincent et al. (2010). Stacked denoising autoencoders. JMLR 11, 3371-3408.

    S. Rifai et al. (2011). Contractive auto-encoders. ICML.

    O. Rippel, M. Gelbart and R. Adams (2014). Learning ordered representations with
    nested dropout. ICML. :doi:`10.48550/arXiv.1402.0915`

    K. Jordan et al. (2024). Muon: an optimizer for hidden layers in neural networks.
    https://kellerjordan.github.io/posts/muon/

    R. Lopez, J. Regier, M. B. Cole, M. I. Jordan and N. Yosef (2018). Deep generative modeling
    for single-cell transcriptomics. Nature Methods 15, 1053-1058.
    :doi:`10.1038/s41592-018-0229-2`

    Examples
    --------
    >>> from sklearn.datasets import load_digits
    >>> from skae import Autoencoder
    >>> X, _ = load_digits(return_X_y=True)
    >>> ae = Autoencoder(8, max_iter=20, random_state=0).fit(X)
    >>> ae.transform(X).shape
    (1797, 8)
    >>> ae.score_kind
    'reconstruction'
    """

    score_kind = "reconstruction"

    _Architecture = AutoencoderArchitecture

    _architecture: AutoencoderArchitecture

    _parameter_constraints: ClassVar[dict[str, list[Any]]] = {
        **EncoderDecoder._parameter_constraints,
        **DETERMINISTIC_CONSTRAINTS,
        "tied_weights": ["boolean"],
        "pretraining": [StrOptions({"rbm", "layerwise"}), None],
        "pretraining_max_iter": [Interval(Integral, 1, None, closed="left")],
        "noise": [StrOptions({"gaussian", "masking", "salt_and_pepper"}), None],
        "noise_level": [Interval(Real, 0, None, closed="left")],
        "sparsity": [Interval(Real, 0, 1, closed="neither"), None],
        "sparsity_weight": [Interval(Real, 0, None, closed="left")],
        "contraction": [Interval(Real, 0, None, closed="left")],
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
        tied_weights: bool = False,
        likelihood: Likelihood = "gaussian",
        noise_variance: NoiseVariance = "scalar",
        size_factor: SizeFactor = "total",
        missing: Literal["mask", "error"] = "mask",
        handle_unknown: Literal["error", "missing"] = "error",
        pretraining: Literal["layerwise", "rbm"] | None = None,
        pretraining_max_iter: int = 10,
        latent_growth: Literal["incremental", "nested"] | None = None,
        growth_fraction: float = 0.5,
        noise: Literal["gaussian", "masking", "salt_and_pepper"] | None = None,
        noise_level: float = 0.1,
        sparsity: float | None = None,
        sparsity_weight: float = 1.0,
        contraction: float = 0.0,
        perceptual: tuple[nn.Module, float] | None = None,
        init: Literal["linear", "random"] | None = None,
        solver: Literal["adam", "adamw", "sgd", "lbfgs", "muon"] = "adam",
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
        self.tied_weights = tied_weights
        self.likelihood = likelihood
        self.noise_variance = noise_variance
        self.size_factor = size_factor
        self.missing = missing
        self.handle_unknown = handle_unknown
        self.pretraining = pretraining
        self.pretraining_max_iter = pretraining_max_iter
        self.latent_growth = latent_growth
        self.growth_fraction = growth_fraction
        self.noise = noise
        self.noise_level = noise_level
        self.sparsity = sparsity
        self.sparsity_weight = sparsity_weight
        self.contraction = contraction
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
        built_in = self.network == "mlp" and not self._has_own_networks()
        mirrored = self.decoder_layer_sizes is None and self.normalization is None
        table = has_kinds(self.likelihood)
        several = not table and LIKELIHOODS[self.likelihood].n_outputs > 1
        bounded = self._has_counts() or self.out_activation in ("tanh", "relu")
        # Pairs of a condition that is an error and its message.
        clashes = [
            (
                table and self.pretraining == "rbm",
                "pretraining='rbm' cannot be combined with a likelihood for each column, given "
                f"likelihood={self.likelihood!r}; allowed are None and 'layerwise'.",
            ),
            (
                (self.tied_weights or self.pretraining) and not built_in,
                f"tied_weights={self.tied_weights} and pretraining={self.pretraining!r} need the "
                "built-in network='mlp', not convolutions or your own encoder or decoder.",
            ),
            (
                (self.tied_weights or self.pretraining) and not mirrored,
                f"decoder_layer_sizes={self.decoder_layer_sizes!r} and normalization="
                f"{self.normalization!r} must be None with tied_weights={self.tied_weights} and "
                f"pretraining={self.pretraining!r}, because the decoder mirrors the encoder.",
            ),
            (
                self.tied_weights and several,
                f"tied_weights=True cannot be combined with likelihood={self.likelihood!r}, for "
                "which the decoder has several outputs for each feature. Set tied_weights=False "
                "or likelihood='negative_binomial'.",
            ),
            (
                self.pretraining == "rbm" and self.activation != "logistic",
                f"activation={self.activation!r} must be 'logistic' with pretraining='rbm', whose "
                "hidden units are logistic.",
            ),
            (
                self.pretraining == "rbm" and bounded,
                "pretraining='rbm' supports real values and values in [0, 1]; it cannot be "
                f"combined with likelihood={self.likelihood!r} and "
                f"out_activation={self.out_activation!r}.",
            ),
            (
                self.pretraining == "rbm" and self.tied_weights and not self._reads_as_it_writes(),
                "tied_weights=True cannot be combined with pretraining='rbm' for values in [0, 1], "
                "because only the encoder rescales these values. Set tied_weights=False.",
            ),
            (
                self.pretraining and self.sparsity is not None,
                f"sparsity={self.sparsity} must be None with pretraining={self.pretraining!r}, "
                "which needs linear codes.",
            ),
            (
                self.noise in ("masking", "salt_and_pepper") and self.noise_level > 1,
                f"noise_level={self.noise_level} must be at most 1: it is the fraction of "
                f"values that noise={self.noise!r} replaces.",
            ),
            (
                table and self.noise == "salt_and_pepper",
                "noise='salt_and_pepper' needs one range of values for all columns, which a table "
                f"with likelihood={self.likelihood!r} does not have. Set noise='masking'.",
            ),
            (
                self.contraction and self.compile,
                f"contraction={self.contraction} needs second derivatives, which compile=True does "
                "not support. Set contraction=0 or compile=False.",
            ),
        ]
        for clash, message in clashes:
            if clash:
                raise ValueError(message)

    def _obstacle_to_linear_start(self) -> str | None:
        if self.pretraining is not None:
            return f"pretraining=None, given {self.pretraining!r}: both initialise the networks."
        if self.sparsity is not None:
            return f"linear codes, that is, sparsity=None, given {self.sparsity}."
        if self.tied_weights and not has_exact_pairs(self.activation):
            return (
                "activation='relu', 'leaky_relu', 'silu' or 'identity' with tied_weights=True, "
                f"given {self.activation!r}."
            )
        if self.tied_weights and not self._reads_as_it_writes():
            return (
                "likelihood='gaussian' or 'laplace' and out_activation='identity' with "
                "tied_weights=True."
            )
        return super()._obstacle_to_linear_start()

    def _reads_as_it_writes(self) -> bool:
        located = not has_kinds(self.likelihood) and LIKELIHOODS[self.likelihood].location
        return located and self.out_activation == "identity"

    def _make_module(self, generator: torch.Generator) -> AutoencoderModule:
        return AutoencoderModule(*self._module_parts(generator))

    def _prepare(self, rows: Dataset, train: Tensor) -> None:
        super()._prepare(rows, train)
        if self.pretraining is not None:
            files = present_files()
            stored = None if files is None else files.stored("pretraining", self._seed, train)
            adam = self.solver in ("adam", "adamw", "muon")  # rates of others do not suit Adam
            pretrain(
                self._trainer.module,
                rows,
                train,
                self.pretraining,
                n_epochs=self.pretraining_max_iter,
                batch_size=self.batch_size,
                rate=self.learning_rate_init if adam else _PAIR_RATE,
                seed=self._seed + 2,
                stored=stored,
                every=1 if files is None else files.every,
            )

    # -------------------------------------------------------------------- sampling

    def _log_code_density(self, k: int) -> LogPrior:
        """Log density of the Gaussian fitted to those training codes that are not constant."""
        varies = self._code_stds(k) > 0
        n_varying = int(varies.sum())
        which = np.flatnonzero(varies)
        covariance = self.code_covariance_[np.ix_(which, which)].astype(np.float64)
        variance, axes = np.linalg.eigh(covariance)
        variance = np.maximum(variance, _FLAT * variance.max(initial=0.0))
        white = torch.as_tensor(axes / np.sqrt(variance), dtype=torch.float32)
        mean = torch.as_tensor(self.code_mean_[:k][varies], dtype=torch.float32)
        at_mean = -0.5 * (n_varying * log(2 * pi) + np.log(variance).sum())
        mask = torch.from_numpy(varies)

        def log_prior(z: Tensor) -> Tensor:
            device = z.device
            moved = z[..., mask.to(device)] - mean.to(device)
            return at_mean - 0.5 * (moved @ white.to(device)).square().sum(-1)

        return log_prior

    def _draw(self, n_samples: int, rng: np.random.RandomState, noise: bool) -> Array:
        variance, axes = np.linalg.eigh(self.code_covariance_)
        normal = rng.standard_normal((n_samples, self.n_components_))
        Z = self.code_mean_ + (normal * np.sqrt(np.maximum(variance, 0.0))) @ axes.T
        return self._generate(Z, rng, noise)
