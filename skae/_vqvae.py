"""The vector-quantised variational autoencoder: codes are integers, and have a prior.

References
----------
A. van den Oord, O. Vinyals and K. Kavukcuoglu (2017). Neural discrete representation
learning. NeurIPS 30. :doi:`10.48550/arXiv.1711.00937`
"""

from math import ceil, prod
from numbers import Integral, Real
from typing import Any, ClassVar, Self, cast

import numpy as np
import torch
from numpy.typing import ArrayLike, NDArray
from scipy.stats import entropy
from torch import Tensor, nn

from skae._embedding_output import EmbeddingOutputMixin
from skae._encoder_decoder import EncoderDecoder
from skae._index_prior import IndexPriorMixin
from skae._linear.running import running_mean
from skae._modules.architecture import layer_sizes
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
from skae._utils.validation import Interval, StrOptions, check_indices

Array = NDArray[Any]
Indices = NDArray[np.int64]

# Numbers of a code's vector, where none is asked for.
_CODE_DIM = 8
# float32, in which codes go through the networks' rooms, holds integers up to this.
_MOST_CODES = 2**24
# Of how many rows calibration="auto" keeps some from the network: from so many to fewer than.
_LEAST_ROWS, _MANY_ROWS = 10, 10_000


class VQVAE(EmbeddingOutputMixin, IndexPriorMixin, EncoderDecoder):
    """The vector-quantised variational autoencoder: a row is a few integers.

    The encoder gives `n_components` vectors, each of which is rounded to the nearest entry
    of a codebook; the decoder reads these. Gradients pass the rounding as if it were not
    there. After training, a prior p(k) over the indices k is learned. `transform` gives
    the indices, `sample` decodes indices drawn from the prior, and `score_samples` is
    log p(x|e_k) + log p(k), nats: one term of log p(x) = log sum_k p(x|e_k) p(k), and so a
    lower bound.

    The built-in networks read (x - mean) / scale, with one scale for all features, the
    root of their mean variance. So no scaler is needed before it, and features keep
    their weight relative to each other, as in PCA. Your own `encoder` reads rows as they
    are.

    A table of numbers, categories, counts and holes goes in as it is, with
    `likelihood="auto"` or a mapping of its columns; `reconstruct` and `sample` give its
    columns, types and categories back (docs/mixed_tables.md, "Tables with categories").

    Parameters
    ----------
    n_components : int or None, default=8
        Number of positions, each of which has a code. With `network="conv"` they are the
        pixels of the image when all layers have halved it, in raster order, and so follow
        from `hidden_layer_sizes`: None takes that number, and another one is an error.
    n_codes : int, default=None
        Entries of the codebook, K. None takes the largest power of two, from 2 to 512, with
        8 rows for each code of each position, or 1024 encodings (rows times positions) for
        each code where those are fewer rows; for "fsq" the product of `levels`. In a stream
        the first call of `partial_fit` decides.
    code_dim : int, default=None
        Numbers of a code's vector; None takes 8, or as many as there are `levels`.
    quantizer : {"vq", "fsq", "simvq"}, default="vq"
        "vq" learns every entry of the codebook; "simvq" one linear map over a random
        codebook, which moves all entries at once (Zhu et al. 2025); "fsq" learns none: each
        number of a vector has a fixed number of cells, by tanh (Mentzer et al. 2024).
    levels : sequence of int, default=(8, 8, 8)
        Cells of each number for "fsq"; their product must be `n_codes`, if that is given.
    n_quantizers : int, default=1
        Codes of each position: each further one codes what the sum of those before has
        left (residual quantisation).
    codebook_update : {"ema", "loss"}, default="ema"
        How "vq" learns: running means of the encodings of each code, or gradients of their
        squared distances.
    codebook_init : {"kmeans", "random"}, default="kmeans"
        Start "vq" at the means of k-means over the first encodings, and "simvq" at their
        second moments; or at random.
    decay : float in [0, 1), default=0.99
        Share of a running mean that a step keeps; also of the counts that tell dead codes.
    commitment_weight : float, default=0.25
        How much squared distances of encodings from their codes (means over positions and
        numbers) count beside squared errors (means over features, in units of their mean
        variance; for likelihoods without noise, nats per feature). "fsq" has no use for it.
    dead_code_threshold : float, default=0.1
        A code of "vq" that is used less than this times as often as if all were used alike
        begins anew at a random encoding of the batch, if there are more encodings in all
        than codes; 0 leaves dead codes dead.
    rotation_trick : bool, default=False
        Turn gradients from a code to its encoding (Fifty et al. 2025), for "vq" and
        "simvq".
    prior : {"autoregressive", "independent"} or None, default="autoregressive"
        p(k): a dilated causal network over all indices of a row, in order; frequencies at
        each position; or none, which scores as if all codes were equally likely, and
        cannot be sampled: the quickest fit where only the codes are wanted.
    prior_channels : int, default=64
        Width of the causal network.
    prior_learning_rate_init : float, default=3e-3
        Its learning rate, which is constant.
    prior_max_iter : int, default=None
        Epochs of the causal network at most; None takes `max_iter`. It goes back to the
        best one on held-out rows (`validation_fraction`), and ends when `n_iter_no_change`
        epochs were no better. In `partial_fit` it is one, over all rows of the call.
        Callbacks do not hear of these epochs.
    hidden_layer_sizes : array-like of int or int, default=(100,)
        Units of the encoder's hidden layers; for `network="conv"` channels, each entry
        halving the image.
    decoder_layer_sizes : array-like of int or int, default=None
        The decoder's hidden layers; None mirrors the encoder's.
    activation : {"relu", "leaky_relu", "tanh", "logistic", "identity"}, default="relu"
        Of the hidden layers.
    out_activation : {"identity", "logistic", "tanh", "relu"}, default="identity"
        Of the mean of "gaussian" and "laplace", for data within its range, such as
        pixels in [0, 1] for "logistic". The decoder then explains rows as they are.
    normalization : {"batch"}, default=None
        Batch normalisation of the hidden layers.
    network : {"mlp", "conv"}, default="mlp"
        Fully connected or convolutional layers (3x3).
    image_shape : tuple of (channels, height, width), default=None
        What a row is; needed for "conv", with sides of at least 4. With it your own encoder
        reads images, and your own decoder writes them.
    pooling : {"stride", "max", "average", "min"}, default="stride"
        How "conv" halves images. The decoder enlarges them by nearest neighbours.
    encoder, decoder : torch.nn.Module, default=None
        Your own networks, copied and never trained in place: (n, n_features) to
        (n, n_components * code_dim), position by position, and back. Where rows have NaN,
        the encoder reads 2 n_features columns: the values, with 0 and not the mean for
        those not seen, and then 1 where a value was seen, 0 elsewhere.
        In tables these are the columns that docs/mixed_tables.md, "Your own networks", tells.
    likelihood : {"gaussian", "bernoulli", "continuous_bernoulli", "poisson", "laplace", \
            "categorical", "auto"} or mapping, default="gaussian"
        p(x|z); "gaussian" and "laplace" have a noise variance. "bernoulli" of grey values
        in (0, 1) scores an expected log-mass, which is no density: compare it with nothing
        else. "continuous_bernoulli" is one. In a table each column has a likelihood of its
        own: by a mapping of column names or indices to the above, by its type ("auto"), or all
        are "categorical". Tables go without `out_activation`, `image_shape` and convolutions.
    noise_variance : {"scalar", "per_feature"} or float, default="scalar"
        Variance of the noise, where the likelihood has one: learned, one for all features
        or one for each; or given, in squared units of X. A learned one is at least 1e-4 of
        the mean feature variance, or, where the linear start has less noise, a tenth of that.
        In a table each number has its own, learned, of at least 1e-4 of the variance of its
        column, or given, as a share of that.
    calibration : "auto" or bool, default="auto"
        Keep a random `validation_fraction` of the rows from the network in `fit`. A network
        that memorises rows explains them better than new ones, and gives them codes that are
        surer: how large the noise is, when the prior ends its training and how even it is are
        learned from the rows that were kept, as they are with `early_stopping`. "auto" keeps
        some of less than 10,000 rows. False learns all of this from rows that trained the
        network.
    missing : {"mask", "error"}, default="mask"
        "mask": NaN is a value not seen. It is left out of the likelihood; recognition reads
        the mean in its place and, if training rows had NaN, beside the row the mask of what
        was seen. "error": NaN is an error.
    handle_unknown : {"error", "missing"}, default="error"
        What a category of a table is that `fit` has not seen: an error, or a value not seen.
    init : {"linear", "random"}, default=None
        Where training begins: at PCA's maps of the training rows (a VAE at probabilistic PCA,
        whose log-likelihood its bound then is), which layers of rectifiers with two units for
        each code hold exactly and others nearly; or at random weights. Training may keep the
        linear start. None takes it where it can be had: with the built-in `network="mlp"`, and
        without `pretraining` and `sparsity` where there are such.
    solver : {"adam", "adamw", "sgd"}, default="adam"
        Optimiser.
    alpha : float, default=0.0
        L2 penalty on weights; for "adamw" the decoupled decay.
    batch_size : int, default=128
        Rows per step.
    learning_rate : {"constant", "cosine", "invscaling", "adaptive"}, default=None
        "cosine" rises over a tenth of the epochs and falls to zero at their end, "invscaling"
        falls with the root of the epoch, "adaptive" is divided by 5 when the loss stalls for
        two epochs. None is "cosine" where trials have told how many epochs there will be
        (`max_iter=None`), and else "constant".
    learning_rate_init : float, default=1e-3
        The largest learning rate.
    momentum : float in [0, 1), default=0.9
        Nesterov momentum of "sgd".
    max_iter : int, default=None
        Epochs; 0 leaves the network where it begins. None finds out, from 20 to 10,000 rows,
        in one to three trials that hold out a fifth of them: all rows are then trained on for
        as many epochs as held-out rows gained from, twice as many with "cosine", or not at all
        where they gained nothing. Of more rows some are held out of training itself, as by
        `early_stopping`. Where `early_stopping` or `tol` is to end training, or it goes on
        from an earlier fit, None is 200 epochs, and on few rows as many as make 4,000 steps.
    tol : float, default=None
        Training ends when the loss has not improved by this, in nats per row, for
        `n_iter_no_change` epochs. None and 0 leave the end to `max_iter` and `early_stopping`.
    early_stopping : bool, default=False
        Watch the loss on rows that are held out, and go back to the best epoch.
    validation_fraction : float in (0, 1), default=0.1
        Share of the rows that early stopping holds out.
    n_iter_no_change : int, default=10
        Epochs that `tol` and early stopping wait for.
    n_init : int, default=1
        Number of starts, from other seeds. They are trained as one, and the fit with the best
        `score` of the training rows (of at most 10,000) is kept. The first is that of `n_init=1`.
    warm_start : bool, default=False
        `fit` goes on from the earlier fit.
    verbose : int, default=0
        1 shows one line with the epochs, the losses and the time left.
    random_state : int, RandomState instance or None, default=None
        Seed of weights, batches, draws and held-out rows. None takes fresh entropy; the
        global generators are never touched.
    device : str, default="auto"
        "auto", "cpu", "cuda", "cuda:1", "mps"; "auto" takes a GPU if there is one.
    precision : {"auto", "float32", "bfloat16"}, default="auto"
        Of training only; "auto" takes bfloat16 on a GPU that has it, else float32.
    compile : bool, default=False
        Compile the loss with torch.compile, which takes up to a minute at first.
    callbacks : list of skorch callbacks, default=None
        They hear of epochs, and of batches if they listen to them. scikit-learn's callbacks
        are set by `set_callbacks`; an epoch is a task.

    Attributes
    ----------
    net_ : skorch.NeuralNet
        The trained net; its module is `net_.module_`.
    history_ : list of dict
        Losses of every epoch: `train_reconstruction`, nats per row, and what draws
        encodings and codes together, `train_commitment` and, where codes learn by a loss,
        `train_codebook`, in units that make them squared errors; their sum is `train_loss`,
        and that of rows that were kept from the network `valid_loss`.
    n_iter_ : int
        Epochs that were trained.
    prior_net_ : skorch.NeuralNet
        The net of the "autoregressive" prior.
    prior_history_ : list of dict
        Its losses in every epoch, -log p(k) in nats per row, also of held-out rows
        (`valid_loss`).
    n_components_ : int
        Number of positions.
    n_codes_ : int
        Entries of the codebook, as given or chosen.
    codebook_ : ndarray of shape (n_codes, code_dim), or (n_quantizers, n_codes, code_dim)
        The codes' vectors.
    code_usage_ : ndarray of shape (n_codes,), or (n_quantizers, n_codes)
        How often each code is used in training rows, as a share.
    noise_variance_ : float or ndarray of shape (n_features,)
        Variance of the noise, in squared units of X; None for likelihoods without. In tables
        an array, NaN for columns without.
    likelihoods_ : dict of str
        Of a table: the likelihood of each column, by name or index.
    categories_ : dict of ndarray
        Of a table: the levels of each categorical column, by name or index.
    n_features_in_ : int
        Number of features seen in `fit`.
    feature_names_in_ : ndarray of shape (n_features_in_,)
        Names of the features, if all are strings.

    See Also
    --------
    VAE : With Gaussian codes.
    Autoencoder : Without a prior.

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
        quantizer: str = "vq",
        levels: Any = (8, 8, 8),
        n_quantizers: int = 1,
        codebook_update: str = "ema",
        codebook_init: str = "kmeans",
        decay: float = 0.99,
        commitment_weight: float = 0.25,
        dead_code_threshold: float = 0.1,
        rotation_trick: bool = False,
        prior: str | None = "autoregressive",
        prior_channels: int = 64,
        prior_learning_rate_init: float = 3e-3,
        prior_max_iter: int | None = None,
        hidden_layer_sizes: Any = (100,),
        decoder_layer_sizes: Any = None,
        activation: str = "relu",
        out_activation: str = "identity",
        normalization: str | None = None,
        network: str = "mlp",
        image_shape: tuple[int, int, int] | None = None,
        pooling: str = "stride",
        encoder: nn.Module | None = None,
        decoder: nn.Module | None = None,
        likelihood: Any = "gaussian",
        noise_variance: str | float = "scalar",
        calibration: str | bool = "auto",
        missing: str = "mask",
        handle_unknown: str = "error",
        init: str | None = None,
        solver: str = "adam",
        alpha: float = 0.0,
        batch_size: int = 128,
        learning_rate: str | None = None,
        learning_rate_init: float = 1e-3,
        momentum: float = 0.9,
        max_iter: int | None = None,
        tol: float | None = None,
        early_stopping: bool = False,
        validation_fraction: float = 0.1,
        n_iter_no_change: int = 10,
        n_init: int = 1,
        warm_start: bool = False,
        verbose: int = 0,
        random_state: int | np.random.RandomState | None = None,
        device: str = "auto",
        precision: str = "auto",
        compile: bool = False,  # noqa: A002 (as in skorch)
        callbacks: list[Any] | None = None,
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
            raise ValueError(f"levels={self.levels!r} must hold integers of at least 2.")
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

    def _split(self, n_rows: int) -> tuple[Tensor, Tensor | None]:
        calibrates = self.calibration
        if calibrates == "auto":
            n_kept = ceil(self.validation_fraction * n_rows)
            calibrates = n_kept < n_rows and _LEAST_ROWS <= n_rows < _MANY_ROWS
        return self._trainer.split(n_rows, bool(calibrates) or self._trainer.options.early_stopping)

    def _unseen(self, n_rows: int) -> Tensor | None:
        history = self.net_.history
        if self.calibration is False or not history or "valid_loss" not in history[-1]:
            return None
        return self._trainer.split(n_rows, True)[1]

    def _before_training(self, n_rows: int) -> None:
        """Codes begin anew only where encodings are more than codes: else each has its own."""
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
        self, data: Data, codes: Indices, valid: Tensor | None, streaming: bool
    ) -> None:
        if not streaming:
            n_positions = self._architecture.n_codes
            warn_of_collapse(self.code_usage_, len(codes) * n_positions)
            if self.n_codes is not None:
                warn_of_few_encodings(int(self.n_codes), len(codes), n_positions)
        super()._train_more(data, codes, valid, streaming)

    def _go_on_from(self, previous: Self, X: Array) -> None:
        self.n_codes_ = previous.n_codes_ if self.n_codes is None else int(self.n_codes)
        super()._go_on_from(previous, X)

    # --------------------------------------------------------- the codebook, sampling

    @property
    def codebook_(self) -> NDArray[np.float32]:
        """The codes' vectors, of every quantizer."""
        vectors: NDArray[np.float32] = self._codebooks().cpu().numpy()
        return vectors[0] if len(vectors) == 1 else vectors

    @torch.no_grad()
    def _codebooks(self) -> Tensor:
        """(n_quantizers, n_codes, code_dim)."""
        quantizer = self._trainer.module.quantizer
        return torch.stack([quantizer.codebook(q) for q in range(quantizer.n_quantizers)])

    def perplexity(self, X: ArrayLike) -> Any:
        """How many codes these rows use, counted as if all were used alike.

        It is exp(-sum_k p_k log p_k) of the frequencies p_k over all positions.

        Parameters
        ----------
        X : array-like of shape (n_samples, n_features)
            Rows.

        Returns
        -------
        perplexity : float, or ndarray of shape (n_quantizers,)
            From 1 to `n_codes`; one for each quantizer where there are several.
        """
        codes = self._encode(self._check_new_rows(X, "perplexity"))
        stages = self._architecture.n_quantizers
        found = [
            float(np.exp(entropy(np.bincount(codes[:, stage::stages].ravel()))))
            for stage in range(stages)
        ]
        return found[0] if len(found) == 1 else np.array(found)

    # ------------------------------------------------------------------- the hooks

    def _encode(self, X: Array) -> Indices:
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

    def _check_codes(self, Z: Any) -> Any:
        Z, n = super()._check_codes(Z), self._architecture.codebook_size
        check_indices(Z, n, "codebook", self.get_feature_names_out())
        return Z

    def _log_prob(self, X: Array) -> Array:
        self._check_range(X)
        module = self._trainer.module

        def compute(batch: Batch) -> Tensor:
            _, quantized, output = module(batch)
            log_prob: Tensor = module.likelihood.row_log_prob(batch.y, output, batch.seen)
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

    @property
    def _n_features_out(self) -> int:
        return self._architecture.n_indices

    def __sklearn_tags__(self) -> Any:
        tags = super().__sklearn_tags__()
        tags.transformer_tags.preserves_dtype = []  # indices are integers
        return tags

    def __setstate__(self, state: dict[str, Any]) -> None:
        super().__setstate__({"calibration": False} | state)  # as models of version 0.1.0 are
        if "_trainer" in vars(self):
            self.n_codes_ = self._architecture.codebook_size
