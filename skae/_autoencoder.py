"""The nonlinear autoencoder, and its denoising, sparse, contractive and growing variants.

References
----------
G. E. Hinton and R. R. Salakhutdinov (2006). Reducing the dimensionality of data with
neural networks. Science 313, 504-507. :doi:`10.1126/science.1127647`
"""

import copy
import warnings
from dataclasses import replace
from math import ceil
from numbers import Integral, Real
from typing import Any, ClassVar, Self

import numpy as np
import torch
from numpy.typing import ArrayLike, NDArray
from sklearn.utils.metaestimators import available_if
from sklearn.utils.validation import check_is_fitted
from torch import Tensor, nn

from skae._autoencoder_module import AutoencoderBlueprint, AutoencoderModule
from skae._base import Interval, StrOptions
from skae._likelihoods import LIKELIHOODS, NoiseSums, WithNoise
from skae._pretraining import pretrain
from skae._rows import Batch, Rows
from skae._torch import TorchAutoencoder

Array = NDArray[Any]

# Adam's step in layer-wise pretraining, where the solver is another.
_PAIR_RATE = 1e-3
# From how many rows the noise of the smaller sizes of a growing autoencoder is learned.
_PATH_ROWS = 4096


def _orders_codes(model: "Autoencoder") -> bool:
    fitted = getattr(model, "_blueprint", None)
    if (model if fitted is None else fitted).latent_growth is None:
        raise AttributeError(
            "Codes are ordered by importance, and so can be cut, only with latent_growth="
            "'incremental' or 'nested'; given None."
        )
    return True


def _is_perceptual(value: Any) -> bool:
    if len(value) != 2:
        return False
    network, weight = value
    return isinstance(network, nn.Module) and isinstance(weight, Real) and float(weight) >= 0


class Autoencoder(TorchAutoencoder):
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
        What a row is; needed for "conv", with sides of at least 4. With it your own
        networks read images, and `perceptual` does.
    pooling : {"stride", "max", "average", "min"}, default="stride"
        How "conv" halves images. The decoder enlarges them by nearest neighbours.
    encoder, decoder : torch.nn.Module, default=None
        Your own networks, (n, n_features) to (n, n_components) and back. They are
        copied, never trained in place. Where rows have NaN, the encoder reads
        2 n_features columns, the second half 1 where a value was seen.
    tied_weights : bool, default=False
        The decoder's weights are the encoder's, transposed ("mlp" only).
    likelihood : {"gaussian", "bernoulli", "continuous_bernoulli", "poisson", "laplace"}, \
            default="gaussian"
        p(x|z). "bernoulli" of grey values in (0, 1) scores an expected log-mass, which
        is no density: compare it with nothing else. "continuous_bernoulli" is one.
    noise_variance : {"scalar", "per_feature"} or float, default="scalar"
        Of "gaussian" and "laplace": learned, one for all features or one for each,
        at least 1e-4 of the mean feature variance; or given, in squared units of X.
    missing : {"mask", "error"}, default="mask"
        What NaN is: a value not seen, left out of the loss, and filled with the mean at
        the input, beside which, if training rows had NaN, the encoder reads the mask;
        or an error.
    pretraining : {"rbm", "layerwise"}, default=None
        Start from a greedily trained stack: of restricted Boltzmann machines (for
        `activation="logistic"`), or of one-layer autoencoders ("mlp" only).
    pretraining_max_iter : int, default=10
        Epochs of each layer's pretraining.
    latent_growth : {"incremental", "nested"}, default=None
        Order the codes by importance, as PCA does, so that one fit serves every size
        (`truncate`, `reconstruction_path`). "incremental" opens them one by one, and cuts
        every other row's codes at a random size among those open; "nested" cuts every
        row's, all being open.
    growth_fraction : float, default=0.5
        The share of `max_iter` in which "incremental" grows from 1 code to all. `tol`
        and early stopping begin after it.
    noise : {"gaussian", "masking", "salt_and_pepper"}, default=None
        Denoising: what is added to the rows that the encoder reads in training.
    noise_level : float, default=0.1
        Standard deviation of "gaussian", in units of the root of the mean feature
        variance (of X for your own networks); or the share of values that become zero
        ("masking"), or the smallest or largest value of X ("salt_and_pepper").
    sparsity : float in (0, 1), default=None
        Target of the mean of every code, which then is logistic, in (0, 1).
    sparsity_weight : float, default=1.0
        Weight of the divergence from the target, nats per row.
    contraction : float, default=0.0
        Weight of the mean squared Frobenius norm of the encoder's Jacobian, in the
        units in which the encoder reads rows.
    perceptual : tuple of (torch.nn.Module, float), default=None
        A fixed network, and the weight of the squared distance between its features of
        a row and of its reconstruction.
    solver : {"adam", "adamw", "sgd", "lbfgs"}, default="adam"
        Optimiser; "lbfgs" takes all rows at once and 20 steps an epoch.
    alpha : float, default=1e-4
        L2 penalty on weights; for "adamw" the decoupled decay.
    batch_size : int, default=128
        Rows per step.
    learning_rate : {"constant", "cosine", "invscaling", "adaptive"}, default="constant"
        "cosine" rises over a tenth of `max_iter` and falls to zero at its end,
        "invscaling" falls with the root of the epoch, "adaptive" is divided by 5 when
        the loss stalls for two epochs.
    learning_rate_init : float, default=1e-3
        Its largest value; of no effect on "lbfgs".
    momentum : float in [0, 1), default=0.9
        Nesterov momentum of "sgd".
    max_iter : int, default=200
        Epochs.
    tol : float, default=1e-4
        Training ends when the loss has not improved by this, in nats per row, for
        `n_iter_no_change` epochs; 0 never ends it without early stopping.
    early_stopping : bool, default=False
        Watch the loss on rows that are held out, and go back to the best epoch.
    validation_fraction : float in (0, 1), default=0.1
        Share of the rows that early stopping holds out.
    n_iter_no_change : int, default=10
        Epochs that `tol` waits for.
    warm_start : bool, default=False
        `fit` goes on from the earlier fit.
    verbose : int, default=0
        1 shows one line with the epochs, the losses and the time left.
    random_state : int, RandomState instance or None, default=None
        Seed of weights, batches, noise and held-out rows.
    device : str, default="auto"
        "auto", "cpu", "cuda", "cuda:1", "mps"; "auto" takes a GPU if there is one.
    precision : {"auto", "float32", "bfloat16"}, default="auto"
        Of training; all else is float32. "auto" takes bfloat16 on a GPU that has it.
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
        Variance of the noise, in squared units of X; None for likelihoods without.
    code_mean_ : ndarray of shape (n_components,)
        Mean of the training codes.
    code_covariance_ : ndarray of shape (n_components, n_components)
        Their covariance.
    n_features_in_ : int
        Number of features.
    feature_names_in_ : ndarray of shape (n_features,)
        Their names, if all are strings.

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

    _Blueprint = AutoencoderBlueprint

    _blueprint: AutoencoderBlueprint
    code_mean_: Array
    code_covariance_: Array

    _parameter_constraints: ClassVar[dict[str, list[Any]]] = {
        **TorchAutoencoder._parameter_constraints,
        "tied_weights": ["boolean"],
        "pretraining": [StrOptions({"rbm", "layerwise"}), None],
        "pretraining_max_iter": [Interval(Integral, 1, None, closed="left")],
        "latent_growth": [StrOptions({"incremental", "nested"}), None],
        "growth_fraction": [Interval(Real, 0, 1, closed="both")],
        "noise": [StrOptions({"gaussian", "masking", "salt_and_pepper"}), None],
        "noise_level": [Interval(Real, 0, None, closed="left")],
        "sparsity": [Interval(Real, 0, 1, closed="neither"), None],
        "sparsity_weight": [Interval(Real, 0, None, closed="left")],
        "contraction": [Interval(Real, 0, None, closed="left")],
        "perceptual": [tuple, None],
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
        likelihood: str = "gaussian",
        noise_variance: str | float = "scalar",
        missing: str = "mask",
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
        solver: str = "adam",
        alpha: float = 1e-4,
        batch_size: int = 128,
        learning_rate: str = "constant",
        learning_rate_init: float = 1e-3,
        momentum: float = 0.9,
        max_iter: int = 200,
        tol: float = 1e-4,
        early_stopping: bool = False,
        validation_fraction: float = 0.1,
        n_iter_no_change: int = 10,
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
        self.warm_start = warm_start
        self.verbose = verbose
        self.random_state = random_state
        self.device = device
        self.precision = precision
        self.compile = compile
        self.callbacks = callbacks

    # -------------------------------------------------------------------- learning

    def _check_choices(self, n_features: int) -> None:
        super()._check_choices(n_features)
        built_in = self.network == "mlp" and not self._has_own_networks()
        mirrored = self.decoder_layer_sizes is None and self.normalization is None
        bounded = self.likelihood == "poisson" or self.out_activation in ("tanh", "relu")
        # Whether two choices clash, and how to say so.
        clashes = [
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
                self.contraction and self.compile,
                "compile=True cannot differentiate twice, as contraction > 0 asks; take one.",
            ),
            (
                self.perceptual is not None and not _is_perceptual(self.perceptual),
                f"perceptual={self.perceptual!r} must be a pair of a torch.nn.Module and a "
                "weight >= 0.",
            ),
        ]
        for clash, message in clashes:
            if clash:
                raise ValueError(message)

    def _reads_as_it_writes(self) -> bool:
        return LIKELIHOODS[self.likelihood].location and self.out_activation == "identity"

    def _choices(self) -> dict[str, Any]:
        return {
            **super()._choices(),
            "tied_weights": self.tied_weights,
            "latent_growth": self.latent_growth,
            "growth_epochs": ceil(self.growth_fraction * self.max_iter),
            "noise": self.noise,
            "noise_level": float(self.noise_level),
            "sparsity": self.sparsity,
            "sparsity_weight": float(self.sparsity_weight),
            "contraction": float(self.contraction),
        }

    def _own_modules(self) -> tuple[Any, ...]:
        return (*super()._own_modules(), self.perceptual)

    def _make_module(self, generator: torch.Generator) -> AutoencoderModule:
        plan = self._blueprint
        own_encoder, own_decoder, pair = self._own
        encoder, decoder = plan.make_networks(
            own_encoder, own_decoder, generator, n_encoded=plan.n_codes
        )
        perceptual = None
        if pair is not None:
            network = copy.deepcopy(pair[0]).cpu().eval()
            perceptual = (network.requires_grad_(False), float(pair[1]))
        module = AutoencoderModule(encoder, decoder, plan.make_likelihood(), plan, perceptual)
        if perceptual is not None:
            self._try_perceptual(module)
        return module

    def _try_perceptual(self, module: AutoencoderModule) -> None:
        """Compare two rows of zeros by the perceptual network, to fail before training."""
        rows = torch.zeros(2, self._blueprint.n_features)
        try:
            with torch.no_grad():
                module.feature_distance(module.perceptual[0][0], Batch(rows, rows), rows)
        except (AttributeError, RuntimeError, TypeError, ValueError) as error:
            shape = self._blueprint.image_shape or (self._blueprint.n_features,)
            raise ValueError(
                f"perceptual cannot take a batch of shape {(2, *shape)}: {error}"
            ) from error

    def _prepare(self, rows: Rows, train: Tensor) -> None:
        if self.pretraining is not None:
            adam = self.solver in ("adam", "adamw")  # other solvers' rates are of another size
            pretrain(
                self.net_.module_,
                rows,
                train,
                self.pretraining,
                n_epochs=self.pretraining_max_iter,
                batch_size=self.batch_size,
                rate=self.learning_rate_init if adam else _PAIR_RATE,
                seed=self._seed + 2,
            )

    def _check_trained(self) -> None:
        n_open = int(self.net_.module_.gate.sum())
        if n_open < self.n_components_:
            warnings.warn(
                f"Training ended after {self.n_iter_} epochs with {n_open} of "
                f"{self.n_components_} codes open; the others are zero. Raise max_iter or lower "
                f"growth_fraction (now {self.growth_fraction}).",
                UserWarning,
                stacklevel=2,
            )

    def _first_epoch_to_stop(self) -> int:
        plan = self._blueprint
        return plan.growth_epochs if plan.latent_growth == "incremental" else 0

    def _finish(self, X: Array, sample_weight: Array | None, share: float) -> Array:
        module = self.net_.module_
        k = self.n_components_
        rows = self._rows(X, sample_weight)
        codes = np.empty((len(X), k), dtype=np.float32)
        path = self.__dict__.pop("_noise_path", None)
        noise = NoiseSums(module.likelihood)
        with self._inference():
            for part, batch in self._chunks(rows):
                z = module.encode(batch.x)
                noise.add(batch, module.decode(z))
                codes[part] = z.cpu().numpy()
        if not np.isfinite(codes).all():
            raise ValueError(
                f"Training diverged: after {self.n_iter_} epochs the codes are not finite. Lower "
                f"learning_rate_init (now {self.learning_rate_init}) or rescale X."
            )
        noise.settle(share, self._noise_so_far() if share < 1 else None)
        mean = np.average(codes.astype(np.float64), axis=0, weights=sample_weight)
        weight = np.ones(len(X)) if sample_weight is None else sample_weight
        centred = codes - mean
        covariance = (centred.T * (weight / weight.sum())) @ centred
        if share < 1:
            step = mean - self.code_mean_
            mean = self.code_mean_ + share * step
            covariance = share * covariance + (1 - share) * (
                self.code_covariance_ + share * np.outer(step, step)
            )
        self.code_mean_, self.code_covariance_ = mean, covariance
        if self._blueprint.latent_growth is not None:
            self._learn_path(X, sample_weight, codes, share, path if share < 1 else None)
        self._publish_noise()
        return codes

    def _learn_path(
        self,
        X: Array,
        sample_weight: Array | None,
        codes: Array,
        share: float,
        before: Array | None,
    ) -> None:
        """Noise at every smaller size, for `truncate`; learned from some rows."""
        module = self.net_.module_
        if not isinstance(module.likelihood, WithNoise) or not module.likelihood.learned:
            return
        step = -(-len(X) // _PATH_ROWS)
        weight = None if sample_weight is None else sample_weight[::step]
        rows = self._rows(X[::step], weight)
        path = []
        with self._inference():
            kept = module.likelihood.variance.clone()
            for k in range(1, self.n_components_):
                noise = NoiseSums(module.likelihood)
                for part, batch in self._chunks(rows):
                    z = torch.from_numpy(codes[::step][part][:, :k]).to(rows.device)
                    noise.add(batch, module.decode(z))
                old = None if before is None else torch.as_tensor(before[k - 1]).to(rows.device)
                noise.settle(share, old)
                path.append(module.likelihood.variance.cpu().numpy().copy())
            module.likelihood.variance.copy_(kept)
        self._noise_path = np.array([*path, kept.cpu().numpy()])

    # ------------------------------------------------------ ordered codes

    @available_if(_orders_codes)
    def truncate(self, k: int) -> Self:
        """The model of the first k codes, without refitting.

        Parameters
        ----------
        k : int
            Number of codes to keep, from 1 to `n_components`.

        Returns
        -------
        truncated : Autoencoder
            A fitted estimator with `n_components=k`; this one stays as it is.

        Raises
        ------
        AttributeError
            If the codes are not ordered (`latent_growth=None`).
        ValueError
            If there are fewer codes than k.

        Examples
        --------
        >>> from sklearn.datasets import load_digits
        >>> from skae import Autoencoder
        >>> X, _ = load_digits(return_X_y=True)
        >>> ae = Autoencoder(8, latent_growth="nested", max_iter=10, random_state=0).fit(X)
        >>> ae.truncate(3).transform(X).shape
        (1797, 3)
        """
        check_is_fitted(self)
        self._check_argument("k", k, [Interval(Integral, 1, self.n_components_, closed="both")])
        k = int(k)
        other = copy.copy(self).set_params(n_components=k)  # with a net of its own
        other.n_components_ = k
        other._blueprint = replace(self._blueprint, n_components=k)
        module = other.net_.module_
        module.plan = other._blueprint
        with torch.no_grad():
            module.gate[k:] = 0.0
            if "_noise_path" in self.__dict__:
                other._noise_path = self._noise_path[:k].copy()
                variance = torch.as_tensor(other._noise_path[-1])
                module.likelihood.variance.copy_(variance)
        other.code_mean_ = self.code_mean_[:k].copy()
        other.code_covariance_ = self.code_covariance_[:k, :k].copy()
        other._publish_noise()
        return other

    @available_if(_orders_codes)
    def reconstruction_path(self, X: ArrayLike) -> Array:
        """Reconstruction errors with the first 1, 2, ..., n_components codes.

        Parameters
        ----------
        X : array-like of shape (n_samples, n_features)
            Rows to reconstruct.

        Returns
        -------
        errors : ndarray of shape (n_components,)
            Squared error of a row, summed over its seen features and averaged over rows,
            in squared units of X.

        Raises
        ------
        AttributeError
            If the codes are not ordered (`latent_growth=None`).
        """
        rows = self._rows(self._check_new_rows(X, "reconstruction_path"))
        module = self.net_.module_
        errors = np.zeros(self.n_components_)
        with self._inference():
            for _, batch in self._chunks(rows):
                z = module.encode(batch.x)
                for k in range(1, self.n_components_ + 1):
                    error = (batch.y - module.likelihood.mean(module.decode(z[:, :k]))).square()
                    if batch.seen is not None:
                        error = error * batch.seen
                    errors[k - 1] += float(error.sum(1).cpu().double().sum())
        return self._blueprint.target_scale**2 * errors / len(rows)

    # ------------------------------------------------------------------- the hooks

    def _encode(self, X: Array) -> Array:
        module = self.net_.module_
        return self._map_rows(X, lambda batch: module.encode(batch.x), self.n_components_)

    def _decode(self, Z: Array) -> Array:
        module = self.net_.module_
        return self._map_codes(Z, lambda z: module.likelihood.mean(module.decode(z)))

    def _log_prob(self, X: Array) -> Array:
        self._check_range(X)
        module = self.net_.module_
        log_scale = self._blueprint.log_scale

        def compute(batch: Batch) -> Tensor:
            output = module.decode(module.encode(batch.x))
            log_prob = module.likelihood.row_log_prob(batch.y, output, batch.seen)
            n_seen = batch.y.shape[1] if batch.seen is None else batch.seen.sum(1)
            return log_prob - n_seen * log_scale

        return self._map_rows(X, compute)

    def _draw(self, n_samples: int, rng: np.random.RandomState, noise: bool) -> Array:
        variance, axes = np.linalg.eigh(self.code_covariance_)
        normal = rng.standard_normal((n_samples, self.n_components_))
        Z = self.code_mean_ + (normal * np.sqrt(np.maximum(variance, 0.0))) @ axes.T
        module = self.net_.module_
        if not noise:
            return self._decode(Z)
        generator = torch.Generator(self._net_device()).manual_seed(int(rng.randint(2**31 - 1)))
        return self._map_codes(Z, lambda z: module.likelihood.draw(module.decode(z), generator))
