"""The variational autoencoder: a distribution of codes, and a lower bound on log p(x).

References
----------
D. P. Kingma and M. Welling (2014). Auto-encoding variational Bayes. ICLR.
:doi:`10.48550/arXiv.1312.6114`
"""

from __future__ import annotations

from math import ceil
from numbers import Integral, Real
from os import PathLike
from typing import Any, ClassVar, Literal

import numpy as np
import torch
from numpy.typing import ArrayLike, NDArray
from torch import Tensor

from skae._conditional import ConditionalMixin
from skae._encoder_decoder import EncoderDecoder
from skae._importance_imputation import ImportanceImputationMixin
from skae._inference.row_draws import RowDraws
from skae._inference.vae import column_scores, drawn, importance_bounds
from skae._latent_information import ALL_DRAWS, COUNT, LatentInformationMixin
from skae._latent_samples import LatentSamplesMixin
from skae._latent_size import LATENT_SIZE_CONSTRAINTS, LatentSizeMixin
from skae._local_linear import LocalLinearMixin
from skae._modules.own_networks import Network
from skae._modules.vae import VAEModule
from skae._modules.vae_architecture import VAEArchitecture
from skae._nested_noise import MOST_DRAWS, NestedNoiseMixin
from skae._nn.networks import start_narrow
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
    SizeFactor,
)
from skae._utils.validation import Interval, StrOptions

Array = NDArray[Any]
Condition = NDArray[np.float32] | None

# Largest number of rows from which the active latents are counted.
_MOMENT_ROWS = 2**12
# Default number of draws of z for each row in scores.
_N_IMPORTANCE = 100


class VAE(
    ConditionalMixin,
    LatentSamplesMixin,
    LatentInformationMixin,
    ImportanceImputationMixin,
    LocalLinearMixin,
    NestedNoiseMixin,
    LatentSizeMixin,
    EncoderDecoder,
):
    """Variational autoencoder with a Gaussian approximate posterior q(z|x).

    The model is z ~ p(z), x ~ p(x|z), with a decoder network for p(x|z). An encoder network gives
    the mean and the diagonal covariance of q(z|x), which approximates p(z|x). Training maximises
    the evidence lower bound E_q log p(x|z) - KL(q(z|x) || p(z)) <= log p(x), or a tighter
    importance-weighted bound (see `n_importance`). This loss is noisy; with few rows, use a larger
    `n_iter_no_change`. `transform` returns the mean of q(z|x), `score_samples` the importance-
    weighted bound in nats, and `sample` draws rows.

    The built-in networks standardise rows: they subtract the mean of every feature and divide by
    one scale, the square root of the mean variance of the features. Training needs no scaler, and
    features keep their relative weight, as in PCA. Your own `encoder` reads rows as given.

    NaN marks a missing value. The bound is then a bound on the log density of the observed values
    (Mattei & Frellsen 2019), and `impute` fills in the missing values.

    Tables with numeric, categorical and count columns and missing values can be given directly,
    with `likelihood="auto"` or a mapping from columns to likelihoods. `reconstruct`, `sample` and
    `impute` then return such tables. See the page "Tables with categories" of the documentation.

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
        n_features) to (n, 2 n_components), first the means and then the log variances of q(z|x).
        The decoder maps (n, n_components), followed by the columns that `conditional` adds, to (n,
        n_features), or with additional zeros of counts to (n, 2 n_features). If training rows have
        NaN, the encoder reads 2 n_features columns: the values, with 0 in place of missing ones,
        and then a mask, 1 where a value is observed and 0 elsewhere. The page "Use your own
        network" of the documentation describes such functions, and the columns of tables.
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
    prior : {"standard", "mixture", "vamp"}, default="standard"
        Prior p(z): N(0, I) ("standard"); a learned mixture of Gaussians with diagonal covariances
        ("mixture"); or the mixture of q(z|u) over learned pseudo-rows u ("vamp", Tomczak & Welling
        2018).
    n_prior_components : int, default=10
        Number of Gaussians of "mixture", or of pseudo-rows of "vamp".
    conditional : bool, default=False
        Whether to learn p(x|z, y), with targets y given to `fit`. One column of y has labels
        (integers, strings, booleans or categories) or numbers (floats). Of a data frame, columns of
        strings, booleans or categories are labels, and other columns are numbers. An array of
        several columns has numbers, or strings and objects, of which floats are numbers. The
        decoder gets y in additional columns: one indicator for each label of each column, and the
        standardised numbers. The encoder does not get y. In a stream, the first batch must contain
        all labels.
    latent_growth : {"nested"}, default=None
        Orders the codes by importance, as in PCA, so that one fit gives a model of every size (see
        `truncate`). With "nested", each training step keeps the first k codes of a row, with a
        random k for each row; the other codes do not contribute to the bound of this row (Rippel et
        al. 2014). Every size has its own learned noise variance. None does not order the codes.
    beta : float, default=1.0
        Weight of the KL divergence in the training loss. With a weight above 1, the latents hold
        less information about each row. `score_samples` does not use this weight and returns a
        bound for every value.
    beta_warm_up : int, default=0
        Number of epochs in which the weight of the KL divergence grows linearly from 0 to `beta`.
        This helps against posterior collapse. `tol` and early stopping take effect only after these
        epochs.
    free_bits : float, default=0.0
        Smallest cost of the KL divergence of each latent, in nats. If the mean divergence of a
        latent over a batch is below this value, it is replaced by this value, so that training does
        not reduce it further (Kingma et al. 2016).
    n_importance : int, default=1
        Number of draws of z for each row in training. With more than one, training maximises the
        importance-weighted bound, with doubly reparameterised gradients for q (Tucker et al. 2019).
        `beta`, `beta_warm_up` and `free_bits` must then have their default values.
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
    alpha : float, default=0.0
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
        Losses of each epoch, in nats per row: `train_loss` and, with `n_importance=1`, its terms
        `train_reconstruction` and `train_kl`. If `beta` or `free_bits` change the cost of the KL
        divergence, `train_kl_cost` is this cost, and `train_kl` is the divergence.
    n_iter_ : int
        Number of epochs of training.
    n_components_ : int
        Number of codes.
    n_active_units_ : int
        Number of active latents. A latent is active if its posterior mean has a variance above 0.01
        over the training rows.
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
    classes_ : ndarray of shape (n_classes,), or list of ndarray
        Labels in `y`, or a list with those of each column. Only with `conditional=True` and labels.
    class_prior_ : ndarray of shape (n_classes,) or (n_combinations,)
        Frequencies of labels, or of `class_combinations_`, in training. Not with numbers in `y`.
    class_combinations_ : ndarray of shape (n_combinations, n_targets)
        Combinations of labels that occurred in training. Only with several columns of labels.
    target_mean_, target_scale_ : ndarray of shape (n_targets,)
        Means and standard deviations of the numbers in `y`. Only with `conditional=True`.
    target_names_ : ndarray of shape (n_targets,)
        Names of the columns of `y`, if it was a data frame with several columns.
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
    PPCA : Linear model with an exact likelihood.
    Autoencoder : Autoencoder without a distribution of codes.

    References
    ----------
    D. P. Kingma and M. Welling (2014). Auto-encoding variational Bayes. ICLR.
    :doi:`10.48550/arXiv.1312.6114`

    Y. Burda, R. Grosse and R. Salakhutdinov (2016). Importance weighted autoencoders.
    ICLR. :doi:`10.48550/arXiv.1509.00519`

    D. P. Kingma et al. (2016). Improved variational inference with inverse
    autoregressive flow. NeurIPS. :doi:`10.48550/arXiv.1606.04934`

    G. Tucker, D. Lawson, S. Gu and C. Maddison (2019). Doubly reparameterized gradient
    estimators for Monte Carlo objectives. ICLR. :doi:`10.48550/arXiv.1810.04152`

    J. Tomczak and M. Welling (2018). VAE with a VampPrior. AISTATS.
    :doi:`10.48550/arXiv.1705.07120`

    O. Rippel, M. Gelbart and R. Adams (2014). Learning ordered representations with
    nested dropout. ICML. :doi:`10.48550/arXiv.1402.0915`

    P.-A. Mattei and J. Frellsen (2019). MIWAE: deep generative modelling and imputation
    of incomplete data sets. ICML. :doi:`10.48550/arXiv.1812.02633`

    K. Jordan et al. (2024). Muon: an optimizer for hidden layers in neural networks.
    https://kellerjordan.github.io/posts/muon/

    R. Lopez, J. Regier, M. B. Cole, M. I. Jordan and N. Yosef (2018). Deep generative modeling
    for single-cell transcriptomics. Nature Methods 15, 1053-1058.
    :doi:`10.1038/s41592-018-0229-2`

    Examples
    --------
    >>> from sklearn.datasets import load_digits
    >>> from skae import VAE
    >>> X, _ = load_digits(return_X_y=True)
    >>> vae = VAE(4, max_iter=5, random_state=0).fit(X)
    >>> vae.transform(X).shape
    (1797, 4)
    >>> vae.sample(3, random_state=0).shape
    (3, 64)
    >>> vae.score_kind
    'lower_bound'

    Impute a missing category in a table:

    >>> import pandas as pd
    >>> size, pet = [0.3, 0.4, 4.1, 3.9] * 9, ["cat", "cat", "dog", None] * 9
    >>> table = pd.DataFrame({"size": size, "pet": pet})
    >>> vae = VAE(1, likelihood="auto", max_iter=100, random_state=0).fit(table)
    >>> vae.impute(table)["pet"].tolist()[:4]
    ['cat', 'cat', 'dog', 'dog']
    """

    score_kind = "lower_bound"

    _Architecture = VAEArchitecture

    _architecture: VAEArchitecture
    _code_moments: tuple[Array, Array]

    _parameter_constraints: ClassVar[dict[str, list[Any]]] = {
        **EncoderDecoder._parameter_constraints,
        **LATENT_SIZE_CONSTRAINTS,
        "prior": [StrOptions({"standard", "mixture", "vamp"})],
        "n_prior_components": [Interval(Integral, 1, None, closed="left")],
        "conditional": ["boolean"],
        "latent_growth": [StrOptions({"nested"}), None],
        "beta": [Interval(Real, 0, None, closed="left")],
        "beta_warm_up": [Interval(Integral, 0, None, closed="left")],
        "free_bits": [Interval(Real, 0, None, closed="left")],
        "n_importance": [Interval(Integral, 1, None, closed="left")],
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
        prior: Literal["standard", "mixture", "vamp"] = "standard",
        n_prior_components: int = 10,
        conditional: bool = False,
        latent_growth: Literal["nested"] | None = None,
        beta: float = 1.0,
        beta_warm_up: int = 0,
        free_bits: float = 0.0,
        n_importance: int = 1,
        init: Literal["linear", "random"] | None = None,
        solver: Literal["adam", "adamw", "sgd", "lbfgs", "muon"] = "adam",
        alpha: float = 0.0,
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
        self.prior = prior
        self.n_prior_components = n_prior_components
        self.conditional = conditional
        self.latent_growth = latent_growth
        self.beta = beta
        self.beta_warm_up = beta_warm_up
        self.free_bits = free_bits
        self.n_importance = n_importance
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
        if self.n_importance > 1 and (self.beta != 1 or self.beta_warm_up or self.free_bits):
            raise ValueError(
                f"n_importance={self.n_importance} trains a bound without a separate KL term, so "
                "that beta, beta_warm_up and free_bits must be 1, 0 and 0; given "
                f"beta={self.beta}, beta_warm_up={self.beta_warm_up} and "
                f"free_bits={self.free_bits}. Set these values, or n_importance=1."
            )

    def _make_module(self, generator: torch.Generator) -> VAEModule:
        architecture = self._architecture
        encoder, decoder = self._user_modules
        networks = architecture.make_networks(
            encoder, decoder, generator, n_encoded=2 * architecture.n_codes
        )
        if encoder is None:
            start_narrow(networks[0], architecture.n_codes)
        return VAEModule(*networks, architecture.make_likelihood(), architecture, generator)

    def _reads_totals(self) -> bool:
        return self.network == "mlp" and not self._has_own_networks()

    def _prepare(self, rows: Dataset, train: Tensor) -> None:
        super()._prepare(rows, train)
        if self._architecture.prior == "vamp":
            self._trainer.module.start_pseudo_rows(rows, train, self._seed + 2)

    def _by_trial(self) -> bool:
        return self.beta_warm_up == 0

    def _first_epoch_to_stop(self) -> int:
        return self._architecture.beta_warm_up

    def _learn_from_outputs(self, rows: Dataset, weight: float) -> Array | None:
        data = rows.data
        self._learn_label_frequencies(data, weight)
        some = data.some(_MOMENT_ROWS, self._seed + 6)
        self._check_codes_are_finite(codes := self._means(rows if some is data else some))
        # In a stream, one draw for each row is enough, because every call adds new draws.
        n_draws = min(MOST_DRAWS, ceil(ALL_DRAWS / len(data.X))) if weight == 1 else 1
        path = self.__dict__.pop("_noise_path", None)
        self._learn_noise_of_draws(rows, weight, n_draws, drawn)
        self._learn_noise_of_sizes(data, weight, path if weight < 1 else None)
        self._learn_code_moments(codes, some.weight, weight)
        return codes if some is data else None

    # -------------------------------------------------------------------- sampling

    def _draw_latent(self, n_samples: int, rng: np.random.RandomState) -> Array:
        return self._draw_codes(n_samples, self._trainer.generator(rng))

    def score_samples(
        self,
        X: ArrayLike,
        y: Any = None,
        *,
        n_importance: int = 100,
        size_factor: Literal["row"] | None = None,
    ) -> Array:
        """Importance-weighted lower bound on log p(x), or on log p(x|y), in nats.

        The bound is log 1/K sum_k p(x, z_k) / q(z_k|x) with draws z_k ~ q(z|x). Its expectation is
        at most log p(x), and approaches log p(x) as K grows. For counts, half of the draws are from
        a Gaussian at the mode of p(z|x). The draws depend only on the fitted model and on the row,
        so that a row has the same score in every call and, up to rounding, beside any other rows.

        Parameters
        ----------
        X : array-like of shape (n_samples, n_features)
            Rows to score. Missing values (NaN) are ignored.
        y : scalar or array-like of shape (n_samples,) or (n_samples, n_targets), default=None
            Targets of a conditional model, to score log p(x|y), as in `inverse_transform`. With
            None, the score is log p(x), the log of the sum of p(x, y) over all labels (or over
            `class_combinations_`), which takes time proportional to their number.
        n_importance : int, default=100
            Number K of draws for each row. K = 1 is an estimate of the evidence lower bound
            from one draw.
        size_factor : {"row"}, default=None
            For likelihoods of counts with `size_factor="total"`. With "row", the score is a bound
            on log p(x|s), given the size factor s of the row, which is its total; models with
            size factors of other kinds can only be compared by such scores. None integrates over
            the law of size factors, for a bound on log p(x).

        Returns
        -------
        scores : ndarray of shape (n_samples,)
            Nats per row.

        Raises
        ------
        ValueError
            If `n_importance` is not a positive integer, if a value has probability zero under
            the likelihood, if `y` is not what the model was fitted with, or if `size_factor` is
            "row" and the model has no size factors.
        """
        given = self._asks_for_row_sizes(size_factor)
        rows = self._check_new_rows(X, "score_samples")
        self._check_argument("n_importance", n_importance, [COUNT])
        data = Data(rows, None, self._condition_of(y, len(rows)))
        return self._bounds(data, n_importance, given)

    # ------------------------------------------------------------------- the hooks

    def _encode(self, X: Rows) -> Array:
        return self._means(Data(X))

    def _means(self, rows: Data | Dataset) -> Array:
        module, k = self._trainer.module, self.n_components_
        return self._map_rows(rows, lambda batch: module.encode(batch.x).mean, k)

    def _decode(self, Z: Array, condition: Condition = None) -> Array:
        return self._map_conditioned(Z, condition, self._trainer.module.mean)

    def _mean_rows(self, z: Tensor) -> Tensor:
        mean: Tensor = self._trainer.module.mean(z, None)
        return mean

    def _log_prob(self, X: Rows, condition: Condition = None) -> Array:
        given = self._condition_of(None, len(X)) if condition is None else condition
        return self._bounds(Data(X, None, given), _N_IMPORTANCE)

    def _scores(self, data: Data) -> Array:
        return self._bounds(data, 1)

    def _bounds(self, data: Data, n_importance: int, sizes_of_rows: bool = False) -> Array:
        self._check_range(data.X)
        with self._trainer.inference(len(data.X) * n_importance):
            draws = self._row_draws(n_importance)
            rows = self._dataset(data)
            return importance_bounds(self._trainer.module, rows, draws, sizes_of_rows)

    def _column_scores(self, data: Data) -> Array:
        with self._trainer.inference(len(data.X) * _N_IMPORTANCE):
            draws = self._row_draws(_N_IMPORTANCE)
            return column_scores(self._trainer.module, self._dataset(data), draws)

    def _draw(
        self, n_samples: int, rng: np.random.RandomState, noise: bool, condition: Condition = None
    ) -> Array:
        if condition is None:
            condition = self._drawn_labels(n_samples, rng)
        generator = self._trainer.generator(rng)
        return self._noisy(self._draw_codes(n_samples, generator), generator, noise, condition)

    def _generate(self, Z: Array, rng: np.random.RandomState, noise: bool) -> Array:
        return self._noisy(Z, self._trainer.generator(rng), noise, None)

    def _noisy(
        self, Z: Array, generator: torch.Generator, noise: bool, condition: Condition
    ) -> Array:
        """Draws from p(x|z), or with noise=False its means."""
        module = self._trainer.module
        if not noise:
            return self._decode(Z, condition)

        def draw(z: Tensor, given: Tensor | None) -> Tensor:
            return module.likelihood.draw(module.decode(z, given), generator)

        return self._map_conditioned(Z, condition, draw)

    def _draw_codes(self, n: int, generator: torch.Generator) -> Array:
        with self._trainer.inference(n):
            codes: Array = self._trainer.module.draw_codes(n, generator).cpu().numpy()
        return codes

    def _row_draws(self, n_draws: int) -> RowDraws:
        """Draws of z for each row, the same in every call."""
        return RowDraws(int(n_draws), self.n_components_, self._seed + 3, self._trainer.device)

    def __setstate__(self, state: dict[str, Any]) -> None:
        super().__setstate__({"latent_growth": None} | state)  # files of 0.1.0 lack it
