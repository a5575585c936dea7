"""The adversarial autoencoder: codes that a discriminator cannot tell from a prior's draws.

References
----------
A. Makhzani, J. Shlens, N. Jaitly, I. Goodfellow and B. Frey (2015). Adversarial
autoencoders. :doi:`10.48550/arXiv.1511.05644`
"""

import copy
from math import log
from numbers import Integral, Real
from typing import Any, ClassVar, Self

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from skae._deterministic_autoencoder import DETERMINISTIC_CONSTRAINTS, DeterministicAutoencoder
from skae._encoder_decoder import EncoderDecoder
from skae._inference.bounds import LogPrior
from skae._latent_samples import LatentSamplesMixin
from skae._modules.adversarial import AdversarialArchitecture, AdversarialModule
from skae._modules.architecture import layer_sizes
from skae._nn.gaussian_latents import Components, log_prior
from skae._nn.priors import PRIORS, can_be_sampled, draw_from
from skae._training.data import Data, Dataset
from skae._utils.validation import Interval, StrOptions

Array = NDArray[Any]


class AdversarialAE(LatentSamplesMixin, DeterministicAutoencoder):
    """An adversarial autoencoder: an autoencoder whose codes follow a distribution of choice.

    Each step of training has three updates, each by an optimiser of its own: encoder and
    decoder maximise log p(x|z), the loss that `tol` and early stopping watch; a
    discriminator learns to tell codes from draws of the prior; the encoder learns to
    deceive it (with the non-saturating loss). Where it succeeds, the codes of all rows
    together follow the prior, and `sample` decodes draws of the prior. No density of x
    comes with that: `score_samples` is the log-likelihood of the reconstruction.

    Deep networks want `normalization="batch"`: without it the encoder deceives the
    discriminator at the cost of the reconstruction (docs/benchmarks.md). Thin priors want a
    discriminator that is larger, and learns faster than the encoder.

    The built-in networks read (x - mean) / scale, with one scale for all features, the
    root of their mean variance. Your own `encoder` and `decoder` read rows as they are.

    A table of numbers, categories, counts and holes goes in as it is, with
    `likelihood="auto"` or a mapping of its columns; `reconstruct` and `sample` give its
    columns, types and categories back (docs/mixed_tables.md, "Tables with categories").

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
        (n, n_components), and back; with `posterior="gaussian"` the encoder writes
        (n, 2 n_components), means and then log variances. Where rows have NaN, the encoder
        reads 2 n_features columns: the values, with 0 and not the mean for those not seen,
        and then 1 where a value was seen, 0 elsewhere.
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
    missing : {"mask", "error"}, default="mask"
        "mask": NaN is a value not seen. It is left out of the likelihood; recognition reads
        the mean in its place and, if training rows had NaN, beside the row the mask of what
        was seen. "error": NaN is an error.
    handle_unknown : {"error", "missing"}, default="error"
        What a category of a table is that `fit` has not seen: an error, or a value not seen.
    posterior : {"deterministic", "gaussian"}, default="deterministic"
        Whether the encoder gives the code, or a Gaussian that the code is drawn from in
        training; `transform` then gives its mean.
    prior : {"gaussian", "mixture", "swiss_roll"}, estimator or callable, default="gaussian"
        What the codes shall look like: N(0, I); N(m, I) for each m of `prior_means`,
        equally likely; a spiral (for 2 codes, with a height for 3); or what has
        `sample(n)`, or is called with n, and returns n rows of codes. It is seeded where
        it takes a `random_state`. Put a fitted estimator into
        `sklearn.frozen.FrozenEstimator`, so that clones, as in a grid search, keep it fitted.
    prior_scale : float, default=1.0
        What the standard deviations of "gaussian" and "mixture" and the whole of
        "swiss_roll", of radius 3, are multiplied with.
    prior_means : array-like of float or of shape (n_means, n_components), default=(-3.0, 3.0)
        Means of "mixture"; a number stands for a vector of it.
    discriminator_layer_sizes : array-like of int or int, default=(100,)
        Units of the discriminator's hidden layers (leaky rectifiers).
    discriminator_learning_rate_init : float, default=1e-3
        Its learning rate, which follows the schedule of the others.
    latent_growth : {"incremental", "nested"}, default=None
        Order the codes by importance, as PCA does, so that one fit serves every size
        (`truncate`, `reconstruction_path`). "incremental" opens them one by one, and cuts
        every other row's codes at a random size among those open; "nested" cuts every
        row's, all being open.
    growth_fraction : float, default=0.5
        The share of the epochs in which "incremental" grows from 1 code to all. `tol`
        and early stopping begin after it.
    perceptual : tuple of (torch.nn.Module, float), default=None
        A fixed network, and the weight of the squared distance between its features of a
        row and of its reconstruction; with `image_shape` it reads images.
    init : {"linear", "random"}, default=None
        Where training begins: at PCA's maps of the training rows (a VAE at probabilistic PCA,
        whose log-likelihood its bound then is), which layers of rectifiers with two units for
        each code hold exactly and others nearly; or at random weights. Training may keep the
        linear start. None takes it where it can be had: with the built-in `network="mlp"`, and
        without `pretraining` and `sparsity` where there are such.
    solver : {"adam", "adamw", "sgd"}, default="adam"
        Optimiser.
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
        Losses of every epoch: `train_loss` of the reconstruction, nats per row, and those
        of the discriminator, `train_discriminator` (2 log 2 where it cannot tell), and of
        the deceiving encoder, `train_encoder` (log 2). `train_reconstruction` is the first
        without `perceptual`.
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
    VAE : With a bound on the density of x.
    Autoencoder : Without a prior.

    References
    ----------
    A. Makhzani, J. Shlens, N. Jaitly, I. Goodfellow and B. Frey (2015). Adversarial
    autoencoders. :doi:`10.48550/arXiv.1511.05644`

    I. Goodfellow et al. (2014). Generative adversarial nets. NeurIPS.
    :doi:`10.48550/arXiv.1406.2661`

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
    # Errors do not tell how well codes fit the prior.
    _least_epochs = 200

    _architecture: AdversarialArchitecture
    _prior: Any  # a copy of the user's own

    _parameter_constraints: ClassVar[dict[str, list[Any]]] = {
        **EncoderDecoder._parameter_constraints,
        **DETERMINISTIC_CONSTRAINTS,
        "posterior": [StrOptions({"deterministic", "gaussian"})],
        "prior": [object],
        "prior_scale": [Interval(Real, 0, None, closed="neither")],
        "prior_means": ["array-like"],
        "discriminator_layer_sizes": ["array-like", Interval(Integral, 1, None, closed="left")],
        "discriminator_learning_rate_init": [Interval(Real, 0, None, closed="neither")],
        "solver": [StrOptions({"adam", "adamw", "sgd"})],
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
        likelihood: Any = "gaussian",
        noise_variance: str | float = "scalar",
        missing: str = "mask",
        handle_unknown: str = "error",
        posterior: str = "deterministic",
        prior: Any = "gaussian",
        prior_scale: float = 1.0,
        prior_means: Any = (-3.0, 3.0),
        discriminator_layer_sizes: Any = (100,),
        discriminator_learning_rate_init: float = 1e-3,
        latent_growth: str | None = None,
        growth_fraction: float = 0.5,
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
        self.likelihood = likelihood
        self.noise_variance = noise_variance
        self.missing = missing
        self.handle_unknown = handle_unknown
        self.posterior = posterior
        self.prior = prior
        self.prior_scale = prior_scale
        self.prior_means = prior_means
        self.discriminator_layer_sizes = discriminator_layer_sizes
        self.discriminator_learning_rate_init = discriminator_learning_rate_init
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
        X: Array,
        sample_weight: Array | None,
        y: Array | None,
        previous: Self | None,
        rng: np.random.RandomState,
    ) -> Data:
        """As in the base, with a copy of the user's own prior: whatever becomes of the object,
        the fitted model draws from the copy."""
        if previous is not None:
            self._prior = previous._prior
        else:
            self._check_prior()
            self._prior = None if isinstance(self.prior, str) else copy.deepcopy(self.prior)
        return super()._begin(X, sample_weight, y, previous, rng)

    def _check_prior(self) -> None:
        """Raise for a prior that cannot have so many codes."""
        means = self._means()
        n_codes = self.n_components
        if self.prior == "swiss_roll" and n_codes not in (2, 3):
            raise ValueError(f"n_components={n_codes} must be 2 or 3 with prior='swiss_roll'.")
        if means.ndim == 2 and means.shape[1] != n_codes:
            raise ValueError(
                f"prior_means={self.prior_means!r} must be numbers, or vectors of n_components="
                f"{n_codes} of them."
            )

    def _means(self) -> Array:
        """Means of the "mixture": numbers, or vectors."""
        try:
            means = np.asarray(self.prior_means, dtype=np.float64)
        except (TypeError, ValueError):
            means = np.zeros(0)
        if means.ndim not in (1, 2) or not means.size or not np.isfinite(means).all():
            raise ValueError(
                f"prior_means={self.prior_means!r} must be finite numbers, or vectors of "
                "n_components of them; one or more."
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
        """Draw from a user's own prior what training chooses from; then as in the base."""
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
        """Of the prior, of the codes that vary: its parts are independent."""
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


def _as_tuples(means: Array) -> tuple[Any, ...]:
    return tuple(tuple(m) if isinstance(m, list) else m for m in means.tolist())
