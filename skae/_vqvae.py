"""The vector-quantised variational autoencoder: integer codes with a learned prior.

References
----------
A. van den Oord, O. Vinyals and K. Kavukcuoglu (2017). Neural discrete representation
learning. NeurIPS 30. :doi:`10.48550/arXiv.1711.00937`
"""

from __future__ import annotations

from math import prod
from numbers import Integral, Real
from os import PathLike
from typing import Any, ClassVar, Literal, Self, cast

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from skae._encoder_decoder import EncoderDecoder
from skae._index_prior import IndexPriorMixin
from skae._linear.running import running_mean
from skae._modules.architecture import layer_sizes
from skae._modules.own_networks import Network
from skae._modules.vqvae import (
    VQVAEArchitecture,
    VQVAEModule,
    check_levels,
    check_positions,
    codebook_size_for,
    warn_of_collapse,
    warn_of_few_encodings,
)
from skae._nn.held_out_noise import HeldOutNoise
from skae._nn.networks import Shape, grid_size
from skae._training.data import Batch, Data, Dataset
from skae._training.trainer import batches
from skae._utils.sparse_rows import Rows
from skae._utils.types import (
    Activation,
    ImageShape,
    Integers,
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
from skae._vector_codes import FORMS, VectorCodesMixin

Array = NDArray[Any]
Indices = NDArray[np.int64]

# Default length of the vectors of the codebook.
_CODE_DIM = 8
# Largest codebook: float32, to which indices are converted, represents integers up to this.
_MOST_CODES = 2**24


class VQVAE(VectorCodesMixin, IndexPriorMixin, EncoderDecoder):
    """Vector-quantised variational autoencoder, which encodes a row as a few integers.

    The encoder gives one vector for each of the `n_components` positions of a code. Each vector is
    replaced by the nearest entry of a codebook, and the decoder reads these entries. In
    backpropagation, the gradient of an entry is copied to the vector that it replaces
    (straight-through estimator). After training, a prior p(k) over the indices k of a row is
    learned. `transform` returns the indices (see `codes` for other forms), and `sample` decodes
    indices drawn from the prior.
    `score_samples` returns log p(x|e_k) + log p(k) in nats, where k are the indices of the row.
    This is a lower bound on log p(x) = log sum_k p(x|e_k) p(k), because it keeps one term of the
    sum.

    The built-in networks standardise rows: they subtract the mean of every feature and divide by
    one scale, the square root of the mean variance of the features. Training needs no scaler, and
    features keep their relative weight, as in PCA. Your own `encoder` reads rows as given.

    Tables with numeric, categorical and count columns and missing values can be given directly,
    with `likelihood="auto"` or a mapping from columns to likelihoods. `reconstruct`, `sample` and
    `impute` then return tables with the same columns, types and categories. See the page "Tables
    with categories" of the documentation.

    Parameters
    ----------
    n_components : int or None, default=8
        Number of positions of a code, each with one encoder vector. With `network="conv"`, the
        positions are the pixels of the image that the last encoder layer returns, in raster order.
        Their number follows from `image_shape` and `hidden_layer_sizes`: None uses it, and any
        other number raises a ValueError.
    n_codes : int, default=None
        Number of entries K of the codebook. None takes the largest power of two, from 2 to 512, for
        which there are at least 8 training rows for each code and position, or at least 1024
        encodings (rows times positions) for each code if these are fewer rows. For "fsq", None
        takes the product of `levels`. In a stream, the first call of `partial_fit` decides.
    code_dim : int, default=None
        Length of the vectors of the codebook. None takes 8, or for "fsq" the number of `levels`.
    quantizer : {"vq", "fsq", "simvq"}, default="vq"
        How vectors are quantised. "vq" learns every entry of the codebook. "simvq" learns one
        linear map of a random codebook, which changes all entries together (Zhu et al. 2025). "fsq"
        has no learned codebook: each number of a vector is limited by tanh and rounded to a fixed
        number of levels (Mentzer et al. 2024).
    levels : sequence of int, default=(8, 8, 8)
        Number of levels of each number of a vector for "fsq". If `n_codes` is given, it must be the
        product of the levels.
    n_quantizers : int, default=1
        Number of codes for each position (residual quantisation). Each further code quantises what
        remains of the vector after the codes before it are subtracted.
    codebook_update : {"ema", "loss"}, default="ema"
        How "vq" learns its entries: as running means of the vectors that are assigned to them
        ("ema"), or by gradient descent on their squared distances to these vectors ("loss").
    codebook_init : {"kmeans", "random"}, default="kmeans"
        Initialisation of the codebook: random, or by the encoder vectors of the first rows. With
        "kmeans", "vq" starts at the means of k-means over these vectors, and "simvq" starts with
        their second moments.
    decay : float in [0, 1), default=0.99
        Weight of the old value when a step updates a running mean ("ema"). It also applies to the
        counts by which unused codes are found (see `dead_code_threshold`).
    commitment_weight : float, default=0.25
        Weight of the squared distances between encoder vectors and their codes (averaged over
        positions and numbers) relative to the squared errors of reconstruction (averaged over
        features, in units of their mean variance; for likelihoods without noise variance, nats per
        feature). "fsq" does not use it.
    dead_code_threshold : float, default=0.1
        Threshold of use below which a code of "vq" is restarted at a random encoder vector of the
        batch. It is relative to the use of each code if all were used equally often. Codes are
        restarted only if there are more encodings than codes. With 0, unused codes are never
        restarted.
    rotation_trick : bool, default=False
        Whether to rotate and rescale gradients from a code to its encoder vector, instead of
        copying them (Fifty et al. 2025). For "vq" and "simvq".
    codes : {"indices", "embedding", "onehot"}, default="indices"
        Form of the codes that `transform` returns, and that `inverse_transform` and `score_codes`
        accept: "indices" (int64), the vectors of the codebook ("embedding", float32), or one number
        for each index and entry, which is 1 for the entry in use and 0 for the others ("onehot",
        float32, n_components * n_quantizers * n_codes columns). Linear models need one of the last
        two. The form does not change what is learned, and can be set after `fit` by `set_params`.
    prior : {"autoregressive", "independent"} or None, default="autoregressive"
        Prior p(k) of the indices. "autoregressive" is a dilated causal network over all indices of
        a row, in order. "independent" uses the frequencies of the codes at each position. With None
        no prior is learned: fitting is fastest, `score_samples` treats all codes as equally likely,
        and `sample` is not available.
    prior_channels : int, default=64
        Number of channels of the causal network.
    prior_learning_rate_init : float, default=3e-3
        Constant learning rate of the causal network.
    prior_max_iter : int, default=None
        Maximum number of epochs of the causal network; None takes `max_iter`. Training holds out
        `validation_fraction` of the rows, ends after `n_iter_no_change` epochs without improvement,
        and keeps the weights of the best epoch. `partial_fit` trains the causal network for one
        epoch over all rows of the call. Callbacks are not called in these epochs.
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
        n_features) to (n, n_components * code_dim), one vector after the other, and the decoder
        maps back. If training rows have NaN, the encoder reads 2 n_features columns: the values,
        with 0 in place of missing ones, and then a mask, 1 where a value is observed and 0
        elsewhere. The page "Use your own network" of the documentation describes such functions,
        and the columns of tables.
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
    calibration : "auto" or bool, default="auto"
        Whether `fit` holds a random `validation_fraction` of the rows out of the training of the
        networks, to learn the noise variance and the prior from them. Networks that have overfitted
        reconstruct training rows better than new rows, and their codes of training rows are less
        spread out; quantities that are learned from training rows alone are then too optimistic.
        The held-out rows set the noise variance, end the training of the prior, and smooth it. With
        `early_stopping`, its held-out rows are used. "auto" means True for 10 to 9,999 rows. With
        False, everything is learned from the training rows.
    missing : {"mask", "error"}, default="mask"
        With "mask", NaN marks a missing value. Missing values are left out of the likelihood. The
        encoder reads the mean of the feature in their place, and also a mask of the observed values
        if the training rows had NaN. With "error", NaN raises a ValueError.
    handle_unknown : {"error", "missing"}, default="error"
        How categories of a table that did not occur in `fit` are handled: "error" raises a
        ValueError, "missing" treats them as missing values.
    init : {"linear", "random"}, default=None
        Initialisation of the networks. "linear" starts from PCA of the training rows, and a VAE
        from probabilistic PCA. Networks with rectifiers and at least two units for each code
        represent this linear model exactly, others approximately. If training does not improve on
        the linear model, the fitted model stays the linear model. "random" draws random weights.
        None means "linear" where that is possible, that is, for the built-in `network="mlp"`
        without `pretraining` and `sparsity`.
    solver : {"adam", "adamw", "sgd"}, default="adam"
        Optimiser.
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
        Losses of each epoch. `train_reconstruction` is in nats per row. `train_commitment` and, if
        codes are learned by a loss, `train_codebook` are the weighted squared distances of encoder
        vectors and codes, in the same units. `train_loss` is their sum, and `valid_loss` is that of
        the held-out rows.
    n_iter_ : int
        Number of epochs of training.
    prior_net_ : skorch.NeuralNet
        Trained network of the "autoregressive" prior.
    prior_history_ : list of dict
        Losses of the "autoregressive" prior in each epoch, -log p(k) in nats per row. `valid_loss`
        is that of the held-out rows.
    n_components_ : int
        Number of positions.
    n_codes_ : int
        Number of entries of the codebook, as given or chosen.
    codebook_ : ndarray of shape (n_codes, code_dim), or (n_quantizers, n_codes, code_dim)
        Entries of the codebook.
    code_usage_ : ndarray of shape (n_codes,), or (n_quantizers, n_codes)
        Fraction of the encodings of the training rows that use each code.
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
    n_features_in_ : int
        Number of features seen in `fit`.
    feature_names_in_ : ndarray of shape (n_features_in_,)
        Names of the features, if all are strings.

    See Also
    --------
    VAE : Autoencoder with Gaussian codes.
    Autoencoder : Autoencoder with real codes and without a prior.

    References
    ----------
    A. van den Oord, O. Vinyals and K. Kavukcuoglu (2017). Neural discrete representation
    learning. NeurIPS 30. :doi:`10.48550/arXiv.1711.00937`

    N. Zeghidour, A. Luebs, A. Omran, J. Skoglund and M. Tagliasacchi (2022). SoundStream:
    an end-to-end neural audio codec. IEEE/ACM TASLP 30.
    :doi:`10.1109/TASLP.2021.3129994`

    F. Mentzer, D. Minnen, E. Agustsson and M. Tschannen (2024). Finite scalar quantization:
    VQ-VAE made simple. ICLR. :doi:`10.48550/arXiv.2309.15505`

    Y. Zhu, B. Li, Y. Xin and L. Xu (2025). Addressing representation collapse in vector
    quantized models with one linear layer. ICCV. :doi:`10.48550/arXiv.2411.02038`

    C. Fifty et al. (2025). Restructuring vector quantization with the rotation trick.
    ICLR. :doi:`10.48550/arXiv.2410.06424`

    R. Lopez, J. Regier, M. B. Cole, M. I. Jordan and N. Yosef (2018). Deep generative modeling
    for single-cell transcriptomics. Nature Methods 15, 1053-1058.
    :doi:`10.1038/s41592-018-0229-2`

    Examples
    --------
    >>> from sklearn.datasets import load_digits
    >>> from skae import VQVAE
    >>> X, _ = load_digits(return_X_y=True)
    >>> vq = VQVAE(4, n_codes=64, max_iter=5, random_state=0).fit(X)
    >>> codes = vq.transform(X)
    >>> codes.shape, codes.dtype
    ((1797, 4), dtype('int64'))
    >>> vq.inverse_transform(codes).shape
    (1797, 64)
    >>> vq.sample(3, random_state=0).shape
    (3, 64)
    >>> vq.score_kind
    'lower_bound'
    """

    score_kind = "lower_bound"

    _Architecture = VQVAEArchitecture

    _architecture: VQVAEArchitecture

    _parameter_constraints: ClassVar[dict[str, list[Any]]] = {
        **EncoderDecoder._parameter_constraints,
        "n_components": [Interval(Integral, 1, None, closed="left"), None],
        "n_codes": [Interval(Integral, 1, _MOST_CODES, closed="both"), None],
        "code_dim": [Interval(Integral, 1, None, closed="left"), None],
        "quantizer": [StrOptions({"vq", "fsq", "simvq"})],
        "levels": ["array-like"],
        "n_quantizers": [Interval(Integral, 1, None, closed="left")],
        "codebook_update": [StrOptions({"ema", "loss"})],
        "codebook_init": [StrOptions({"kmeans", "random"})],
        "decay": [Interval(Real, 0, 1, closed="left")],
        "commitment_weight": [Interval(Real, 0, None, closed="left")],
        "dead_code_threshold": [Interval(Real, 0, 1, closed="left")],
        "rotation_trick": ["boolean"],
        "codes": [StrOptions(set(FORMS))],
        "prior": [StrOptions({"autoregressive", "independent"}), None],
        "prior_channels": [Interval(Integral, 1, None, closed="left")],
        "prior_learning_rate_init": [Interval(Real, 0, None, closed="neither")],
        "prior_max_iter": [Interval(Integral, 1, None, closed="left"), None],
        "calibration": [StrOptions({"auto"}), "boolean"],
        "solver": [StrOptions({"adam", "adamw", "sgd"})],
    }

    def __init__(
        self,
        n_components: int | None = 8,
        *,
        n_codes: int | None = None,
        code_dim: int | None = None,
        quantizer: Literal["vq", "simvq", "fsq"] = "vq",
        levels: Integers = (8, 8, 8),
        n_quantizers: int = 1,
        codebook_update: Literal["ema", "loss"] = "ema",
        codebook_init: Literal["kmeans", "random"] = "kmeans",
        decay: float = 0.99,
        commitment_weight: float = 0.25,
        dead_code_threshold: float = 0.1,
        rotation_trick: bool = False,
        codes: Literal["indices", "embedding", "onehot"] = "indices",
        prior: Literal["independent", "autoregressive"] | None = "autoregressive",
        prior_channels: int = 64,
        prior_learning_rate_init: float = 3e-3,
        prior_max_iter: int | None = None,
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
        calibration: Literal["auto"] | bool = "auto",
        missing: Literal["mask", "error"] = "mask",
        handle_unknown: Literal["error", "missing"] = "error",
        init: Literal["linear", "random"] | None = None,
        solver: Literal["adam", "adamw", "sgd"] = "adam",
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
        self.n_codes = n_codes
        self.code_dim = code_dim
        self.quantizer = quantizer
        self.levels = levels
        self.n_quantizers = n_quantizers
        self.codebook_update = codebook_update
        self.codebook_init = codebook_init
        self.decay = decay
        self.commitment_weight = commitment_weight
        self.dead_code_threshold = dead_code_threshold
        self.rotation_trick = rotation_trick
        self.codes = codes
        self.prior = prior
        self.prior_channels = prior_channels
        self.prior_learning_rate_init = prior_learning_rate_init
        self.prior_max_iter = prior_max_iter
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
        self.calibration = calibration
        self.missing = missing
        self.handle_unknown = handle_unknown
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

    def _n_latents(self) -> int:
        if self.n_components is not None:
            return int(self.n_components)
        return prod(self._grid())

    def _grid(self) -> tuple[int, int]:
        """The grid of the built-in convolutional networks."""
        n_halvings = len(layer_sizes("hidden_layer_sizes", self.hidden_layer_sizes))
        channels, height, width = map(int, cast(Shape, self.image_shape))
        return grid_size((channels, height, width), n_halvings)

    def _levels(self) -> tuple[int, ...]:
        levels = layer_sizes("levels", self.levels)
        if not levels or min(levels) < 2:
            raise ValueError(f"levels={self.levels!r} must contain integers that are at least 2.")
        return levels

    def _code_dim(self) -> int:
        if self.quantizer == "fsq":
            return len(self._levels())
        return _CODE_DIM if self.code_dim is None else int(self.code_dim)

    def _check_parameters(self, n_features: int) -> None:
        super()._check_parameters(n_features)
        built_in = self.network == "conv" and (self.encoder is None or self.decoder is None)
        check_positions(self._grid() if built_in else None, self)
        if self.quantizer == "fsq":
            check_levels(self._levels(), self)

    def _derived_fields(self) -> dict[str, Any]:
        return {
            **super()._derived_fields(),
            "codebook_size": self.n_codes_,
            "code_dim": self._code_dim(),
            "levels": self._levels() if self.quantizer == "fsq" else (),
        }

    def _choose_sizes(self, n_rows: int) -> None:
        if self.n_codes is not None:
            self.n_codes_ = int(self.n_codes)
        elif self.quantizer == "fsq":
            self.n_codes_ = prod(self._levels())
        else:
            self.n_codes_ = codebook_size_for(n_rows, self._n_latents())

    def _make_module(self, generator: torch.Generator) -> VQVAEModule:
        architecture = self._architecture
        encoder, decoder = self._user_modules
        networks = architecture.make_networks(
            encoder, decoder, generator, n_encoded=architecture.n_decoded
        )
        quantizer = architecture.make_quantizer(generator)
        return VQVAEModule(*networks, quantizer, architecture.make_likelihood(), architecture)

    def _prepare(self, rows: Dataset, train: Tensor) -> None:
        super()._prepare(rows, train)
        self._trainer.module.start_codebook(rows, train, self.batch_size, self._seed)
        self._settle_start(rows, train)

    def _before_training(self, n_rows: int) -> None:
        """Restart unused codes only if there are more encodings than codes."""
        architecture = self._architecture
        self._trainer.module.restarts = (
            architecture.quantizer == "vq"
            and architecture.dead_code_threshold > 0
            and n_rows * architecture.n_codes > architecture.codebook_size
        )

    def _learn_from_outputs(self, rows: Dataset, weight: float) -> Indices:
        architecture, module = self._architecture, self._trainer.module
        codes = np.empty((len(rows), architecture.n_indices), dtype=np.int64)
        noise = HeldOutNoise(module.likelihood, len(rows), self._unseen(len(rows)))
        with self._trainer.inference(len(rows)):
            for part, batch in batches(rows):
                z, quantized, output = module(batch)
                self._check_codes_are_finite(z.cpu().numpy())
                noise.add(part, batch, output)
                codes[part] = quantized.indices.flatten(1).cpu().numpy()
        noise.settle(weight, self._noise_so_far() if weight < 1 else None)
        self._publish_noise()
        n_values = architecture.codebook_size
        frequencies = self._learn_frequencies(codes, rows.data.weight, weight)
        usage = frequencies.reshape(-1, architecture.n_quantizers, n_values).mean(0)
        usage = usage[0] if architecture.n_quantizers == 1 else usage
        self.code_usage_ = running_mean(vars(self).get("code_usage_"), usage, weight)
        return codes

    def _train_more(
        self, data: Data, codes: Indices, valid: Tensor | None, streaming: bool, tasks: Any = None
    ) -> None:
        if not streaming:
            n_positions = self._architecture.n_codes
            warn_of_collapse(self.code_usage_, len(codes) * n_positions)
            if self.n_codes is not None:
                warn_of_few_encodings(int(self.n_codes), len(codes), n_positions)
        super()._train_more(data, codes, valid, streaming, tasks)

    def _go_on_from(self, previous: Self, X: Rows) -> None:
        self.n_codes_ = previous.n_codes_ if self.n_codes is None else int(self.n_codes)
        super()._go_on_from(previous, X)

    # ------------------------------------------------------------------- the hooks

    def _encode(self, X: Rows) -> Indices:
        module, width = self._trainer.module, self._architecture.n_indices
        return self._map_rows(
            Data(X),
            lambda batch: module.quantise(batch.x).indices.flatten(1),
            width,
            dtype=np.int64,
        )

    def _decode(self, Z: Array) -> Array:
        module = self._trainer.module
        return self._map_codes(Z, lambda k: module.likelihood.mean(module.of_indices(k.long())))

    def _log_prob(self, X: Rows) -> Array:
        self._check_range(X)
        module = self._trainer.module

        def compute(batch: Batch) -> Tensor:
            _, quantized, output = module(batch)
            log_prob: Tensor = module.likelihood.row_log_marginal(batch.y, output, batch.seen)
            log_prior = self._prior.log_prob(quantized.indices.flatten(1))
            return log_prob - module.log_units(batch) + log_prior

        return self._map_rows(Data(X), compute)

    def _column_scores(self, data: Data) -> Array:
        module = self._trainer.module

        def compute(batch: Batch) -> Tensor:
            nats: Tensor = module.column_nats(batch, module(batch)[2])
            return nats

        return self._map_rows(data, compute, self.n_features_in_)

    def _draw(self, n_samples: int, rng: np.random.RandomState, noise: bool) -> Array:
        generator = self._trainer.generator(rng)
        codes = self._draw_codes(n_samples, generator)
        if not noise:
            return self._decode(codes)
        module = self._trainer.module
        return self._map_codes(
            codes, lambda k: module.likelihood.draw(module.of_indices(k.long()), generator)
        )

    # -------------------------------------------------------------- names and files

    def __setstate__(self, state: dict[str, Any]) -> None:
        super().__setstate__({"calibration": False} | state)  # files of 0.1.0 lack it
        if "_trainer" in vars(self):
            self.n_codes_ = self._architecture.codebook_size
