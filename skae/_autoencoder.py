"""The nonlinear autoencoder, and its denoising, sparse, contractive and growing variants.

References
----------
G. E. Hinton and R. R. Salakhutdinov (2006). Reducing the dimensionality of data with
neural networks. Science 313, 504-507. :doi:`10.1126/science.1127647`
"""

from math import log, pi
from numbers import Integral, Real
from typing import Any, ClassVar

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from skae._deterministic_autoencoder import DETERMINISTIC_CONSTRAINTS, DeterministicAutoencoder
from skae._encoder_decoder import EncoderDecoder
from skae._inference.bounds import LogPrior
from skae._modules.autoencoder import AutoencoderArchitecture, AutoencoderModule
from skae._modules.pretraining import pretrain
from skae._nn.likelihoods import LIKELIHOODS
from skae._nn.linear_maps import has_exact_pairs
from skae._tables.kinds import has_kinds
from skae._training.data import Dataset
from skae._utils.validation import Interval, StrOptions

Array = NDArray[Any]

# Adam's step in layer-wise pretraining, where the solver is another.
_PAIR_RATE = 1e-3
# Directions in which codes vary by less than this, beside the widest, count as this wide.
_FLAT = 1e-12


class Autoencoder(DeterministicAutoencoder):
    """A nonlinear autoencoder: z = G(x), p(x | H(z)), both networks.

    `transform` encodes, `inverse_transform` decodes to the mean of p(x|z). It is
    trained by maximising log p(x | H(G(x))) over G, H and the noise, in batches.

    The built-in networks read (x - mean) / scale, with one scale for all features, the
    root of their mean variance. So no scaler is needed before it, and features keep
    their weight relative to each other, as in PCA; put a StandardScaler before it where
    they should not. Your own `encoder` and `decoder` read rows as they are.

    A plain autoencoder is not a generative model. Nothing in its training makes the
    codes continuous (near codes give near rows), complete (every code gives a sensible
    row) or samplable (a known distribution of the codes). `sample` draws codes from a
    Gaussian fitted to the training codes, which have no reason to be Gaussian: it is
    there because every model here has it, and its rows are poor.

    A table of numbers, categories, counts and holes goes in as it is, with
    `likelihood="auto"` or a mapping of its columns; `reconstruct` and `sample` give its
    columns, types and categories back. See the page "Tables with categories" of the
    documentation.

    Parameters
    ----------
    n_components : int, default=2
        Number of codes.
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
        (n, n_components), and back. Where rows have NaN, the encoder reads 2 n_features
        columns: the values, with 0 and not the mean for those not seen, and then 1 where a
        value was seen, 0 elsewhere.
        For the columns of a table, see the page "Tables with categories" of the documentation,
        section "Your own networks".
    tied_weights : bool, default=False
        The decoder's weights are the encoder's, transposed ("mlp" only).
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
    missing : {"mask", "error"}, default="mask"
        "mask": NaN is a value not seen. It is left out of the likelihood; recognition reads
        the mean in its place and, if training rows had NaN, beside the row the mask of what
        was seen. "error": NaN is an error.
    handle_unknown : {"error", "missing"}, default="error"
        What a category of a table is that `fit` has not seen: an error, or a value not seen.
    pretraining : {"rbm", "layerwise"}, default=None
        Start from a greedily trained stack: of restricted Boltzmann machines (for
        `activation="logistic"`, not of tables), or of one-layer autoencoders ("mlp" only).
    pretraining_max_iter : int, default=10
        Epochs of each layer's pretraining.
    latent_growth : {"incremental", "nested"}, default=None
        Order the codes by importance, as PCA does, so that one fit serves every size
        (`truncate`, `reconstruction_path`). "incremental" opens them one by one, and cuts
        every other row's codes at a random size among those open; "nested" cuts every
        row's, all being open.
    growth_fraction : float, default=0.5
        The share of the epochs in which "incremental" grows from 1 code to all. `tol`
        and early stopping begin after it.
    noise : {"gaussian", "masking", "salt_and_pepper"}, default=None
        Denoising: what is added to the rows that the encoder reads in training.
    noise_level : float, default=0.1
        Standard deviation of "gaussian", in units of the root of the mean feature
        variance (of X for your own networks); or the share of values that become zero, in tables
        missing ("masking"), or the smallest or largest value of X ("salt_and_pepper", which
        tables go without).
    sparsity : float in (0, 1), default=None
        Target of the mean of every code, which then is logistic, in (0, 1).
    sparsity_weight : float, default=1.0
        Weight of the divergence from the target, nats per row.
    contraction : float, default=0.0
        Weight of the mean squared Frobenius norm of the encoder's Jacobian, in the
        units in which the encoder reads rows.
    perceptual : tuple of (torch.nn.Module, float), default=None
        A fixed network, and the weight of the squared distance between its features of a
        row and of its reconstruction; with `image_shape` it reads images.
    init : {"linear", "random"}, default=None
        Where training begins: at PCA's maps of the training rows (a VAE at probabilistic PCA,
        whose log-likelihood its bound then is), which layers of rectifiers with two units for
        each code hold exactly and others nearly; or at random weights. Training may keep the
        linear start. None takes it where it can be had: with the built-in `network="mlp"`, and
        without `pretraining` and `sparsity` where there are such.
    solver : {"adam", "adamw", "sgd", "lbfgs"}, default="adam"
        Optimiser; "lbfgs" takes all rows at once and 20 steps an epoch, and ignores
        `learning_rate_init`.
    alpha : float, default=1e-4
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
        They hear of epochs, and of batches if they listen to them. scikit-learn's
        callbacks are set by `set_callbacks`; an epoch is a task.

    Attributes
    ----------
    net_ : skorch.NeuralNet
        The trained net; its module is `net_.module_`.
    history_ : list of dict
        Losses of every epoch, nats per row.
    n_iter_ : int
        Epochs that were trained.
    n_components_ : int
        Number of codes.
    noise_variance_ : float or ndarray of shape (n_features,)
        Variance of the noise, in squared units of X; None for likelihoods without. In tables
        an array, NaN for columns without.
    likelihoods_ : dict of str
        Of a table: the likelihood of each column, by name or index.
    categories_ : dict of ndarray
        Of a table: the levels of each categorical column, by name or index.
    code_mean_ : ndarray of shape (n_components,)
        Mean of the training codes.
    code_covariance_ : ndarray of shape (n_components, n_components)
        Their covariance.
    n_features_in_ : int
        Number of features seen in `fit`.
    feature_names_in_ : ndarray of shape (n_features_in_,)
        Names of the features, if all are strings.

    See Also
    --------
    LinearAE : The linear one, whose optimum is PCA.

    References
    ----------
    G. E. Hinton and R. R. Salakhutdinov (2006). Reducing the dimensionality of data with
    neural networks. Science 313, 504-507. :doi:`10.1126/science.1127647`

    P. Vincent et al. (2010). Stacked denoising autoencoders. JMLR 11, 3371-3408.

    S. Rifai et al. (2011). Contractive auto-encoders. ICML.

    O. Rippel, M. Gelbart and R. Adams (2014). Learning ordered representations with
    nested dropout. ICML. :doi:`10.48550/arXiv.1402.0915`

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
        n_components: int = 2,
        *,
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
        tied_weights: bool = False,
        likelihood: Any = "gaussian",
        noise_variance: str | float = "scalar",
        missing: str = "mask",
        handle_unknown: str = "error",
        pretraining: str | None = None,
        pretraining_max_iter: int = 10,
        latent_growth: str | None = None,
        growth_fraction: float = 0.5,
        noise: str | None = None,
        noise_level: float = 0.1,
        sparsity: float | None = None,
        sparsity_weight: float = 1.0,
        contraction: float = 0.0,
        perceptual: tuple[nn.Module, float] | None = None,
        init: str | None = None,
        solver: str = "adam",
        alpha: float = 1e-4,
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

    def _check_parameters(self, n_features: int) -> None:
        super()._check_parameters(n_features)
        built_in = self.network == "mlp" and not self._has_own_networks()
        mirrored = self.decoder_layer_sizes is None and self.normalization is None
        table = has_kinds(self.likelihood)
        bounded = self.likelihood == "poisson" or self.out_activation in ("tanh", "relu")
        # Whether two choices clash, and how to say so.
        clashes = [
            (
                table and self.pretraining == "rbm",
                "pretraining='rbm' goes with one likelihood for all columns; with likelihood="
                f"{self.likelihood!r} it must be None or 'layerwise'.",
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
                f"pretraining={self.pretraining!r}: the decoder mirrors the encoder.",
            ),
            (
                self.pretraining == "rbm" and self.activation != "logistic",
                f"activation={self.activation!r} must be 'logistic' with pretraining='rbm', whose "
                "hidden units are.",
            ),
            (
                self.pretraining == "rbm" and bounded,
                "pretraining='rbm' has units for reals and for values in [0, 1], not for "
                f"likelihood={self.likelihood!r} with out_activation={self.out_activation!r}.",
            ),
            (
                self.pretraining == "rbm" and self.tied_weights and not self._reads_as_it_writes(),
                "pretraining='rbm' of values in [0, 1] needs tied_weights=False: the encoder reads "
                "them rescaled, the decoder writes them as they are.",
            ),
            (
                self.pretraining and self.sparsity is not None,
                f"sparsity={self.sparsity} must be None with pretraining={self.pretraining!r}, "
                "whose codes are linear.",
            ),
            (
                self.noise in ("masking", "salt_and_pepper") and self.noise_level > 1,
                f"noise_level={self.noise_level} must be at most 1: it is the share of values "
                f"that noise={self.noise!r} replaces.",
            ),
            (
                table and self.noise == "salt_and_pepper",
                "noise='salt_and_pepper' sets numbers to the ends of their range, which columns "
                f"with likelihood={self.likelihood!r} do not share; take 'masking'.",
            ),
            (
                self.contraction and self.compile,
                "compile=True cannot differentiate twice, as contraction > 0 asks; take one.",
            ),
        ]
        for clash, message in clashes:
            if clash:
                raise ValueError(message)

    def _obstacle_to_linear_start(self) -> str | None:
        if self.pretraining is not None:
            return f"pretraining=None, given {self.pretraining!r}: either starts the networks."
        if self.sparsity is not None:
            return f"linear codes, which sparsity=None has, given {self.sparsity}."
        if self.tied_weights and not has_exact_pairs(self.activation):
            return f"an activation of rectifiers with tied_weights=True, given {self.activation!r}."
        if self.tied_weights and not self._reads_as_it_writes():
            return (
                "likelihood='gaussian' or 'laplace' and no out_activation with tied_weights=True."
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
            adam = self.solver in ("adam", "adamw")  # other solvers' rates are of another size
            pretrain(
                self._trainer.module,
                rows,
                train,
                self.pretraining,
                n_epochs=self.pretraining_max_iter,
                batch_size=self.batch_size,
                rate=self.learning_rate_init if adam else _PAIR_RATE,
                seed=self._seed + 2,
            )

    # -------------------------------------------------------------------- sampling

    def _log_code_density(self, k: int) -> LogPrior:
        """Of the Gaussian with the moments of the training codes, where these vary."""
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
