"""The variational autoencoder: the latent becomes a distribution, and p(x) has a bound.

References
----------
D. P. Kingma and M. Welling (2014). Auto-encoding variational Bayes. ICLR.
:doi:`10.48550/arXiv.1312.6114`
"""

import warnings
from collections.abc import Iterator
from dataclasses import replace
from math import ceil
from numbers import Integral, Real
from typing import Any, ClassVar, Self

import numpy as np
import torch
from numpy.typing import ArrayLike, NDArray
from torch import Tensor, nn

from skae._conditional import ConditionalMixin
from skae._encoder_decoder import EncoderDecoder
from skae._inference.bounds import RowLikelihood
from skae._inference.row_draws import RowDraws
from skae._inference.vae import (
    column_scores,
    drawn,
    importance_bounds,
    imputed_draws,
    imputed_means,
)
from skae._latent_information import ACTIVE, ALL_DRAWS, COUNT, LatentInformationMixin
from skae._latent_samples import LatentSamplesMixin
from skae._linear.running import running_variance
from skae._modules.vae import VAEArchitecture, VAEModule
from skae._nn.likelihoods import explained
from skae._nn.networks import start_narrow
from skae._ordered_codes import PATH_ROWS, OrderedCodesMixin
from skae._training.data import Data, Dataset
from skae._training.trainer import slices
from skae._utils.validation import Interval, StrOptions, private_generator

Array = NDArray[Any]

# Rows, at most, that tell which latents are active.
_MOMENT_ROWS = 2**12
# Draws of z for one row, at most, from which the noise is learned.
_MOST_DRAWS = 1000
# Of codes, for each row, where scores are not told how many.
_N_IMPORTANCE = 100


class VAE(
    ConditionalMixin, LatentSamplesMixin, LatentInformationMixin, OrderedCodesMixin, EncoderDecoder
):
    """The variational autoencoder: z ~ p(z), x ~ p(x|z), and a network q(z|x) for p(z|x).

    q(z|x) is Gaussian with diagonal covariance. Training maximises the evidence lower
    bound, E_q log p(x|z) - KL(q(z|x) || p(z)) <= log p(x), or a tighter one of several
    importance-weighted draws of z, less the penalty of `alpha`. The loss is noisy, as z
    is drawn: the fewer the rows, the larger `n_iter_no_change` has to be. `transform`
    gives the mean of q(z|x), `score_samples` the importance-weighted bound in nats,
    `sample` rows from p(z) p(x|z).

    The built-in networks read (x - mean) / scale, with one scale for all features, the
    root of their mean variance. So no scaler is needed before it, and features keep
    their weight relative to each other, as in PCA. Your own `encoder` reads rows as they
    are.

    NaN is a value not seen: the bound is then one on the density of the seen values
    (Mattei & Frellsen 2019), and `impute` fills in what was not.

    A table of numbers, categories, counts and holes goes in as it is, with
    `likelihood="auto"` or a mapping of its columns; `reconstruct`, `sample` and `impute` give
    its columns, types and categories back (docs/mixed_tables.md, "Tables with categories").

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
        (n, 2 n_components), means and then log variances; and (n, n_components), with what
        `conditional` adds, to (n, n_features). Where rows have NaN, the encoder reads
        2 n_features columns: the values, with 0 and not the mean for those not seen, and
        then 1 where a value was seen, 0 elsewhere.
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
    prior : {"standard", "mixture", "vamp"}, default="standard"
        p(z): N(0, I); a mixture of Gaussians with diagonal covariances, learned; or the
        mean of q(z|u) over pseudo-rows u, learned (Tomczak & Welling 2018).
    n_prior_components : int, default=10
        Gaussians of "mixture", pseudo-rows of "vamp".
    conditional : bool, default=False
        Learn p(x|z,y), with y given to `fit`: labels (integers, strings, booleans) or
        numbers (floats; or several columns). The decoder reads one column for each label,
        or standardised number. q(z|x) does not see y. In a stream the first batch must
        hold all labels.
    latent_growth : {"nested"}, default=None
        Order the codes by importance, as PCA does, so that one fit serves every size
        (`truncate`). "nested" cuts each row's codes at a random size in training; codes that are
        cut take no part in its bound (Rippel et al. 2014). Each size learns a noise of its own.
    beta : float, default=1.0
        Weight of the KL divergence in training. Above 1 it holds less about each row
        in the latents; what `score_samples` gives is a bound all the same.
    beta_warm_up : int, default=0
        Epochs in which the weight grows linearly to `beta`, against posterior collapse.
        `tol` and early stopping begin after them.
    free_bits : float, default=0.0
        Nats per latent that cost nothing: the divergence of each, averaged over a batch,
        counts as at least this (Kingma et al. 2016).
    n_importance : int, default=1
        Draws of z for each row in training. More than 1 trains the importance-weighted
        bound, with doubly reparameterised gradients for q; this excludes `beta`,
        `beta_warm_up` and `free_bits`.
    init : {"linear", "random"}, default=None
        Where training begins: at PCA's maps of the training rows (a VAE at probabilistic PCA,
        whose log-likelihood its bound then is), which layers of rectifiers with two units for
        each code hold exactly and others nearly; or at random weights. Training may keep the
        linear start. None takes it where it can be had: with the built-in `network="mlp"`, and
        without `pretraining` and `sparsity` where there are such.
    solver : {"adam", "adamw", "sgd", "lbfgs"}, default="adam"
        Optimiser; "lbfgs" takes all rows at once and 20 steps an epoch, and ignores
        `learning_rate_init`.
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
        They hear of epochs, and of batches if they listen to them. scikit-learn's
        callbacks are set by `set_callbacks`; an epoch is a task.

    Attributes
    ----------
    net_ : skorch.NeuralNet
        The trained net; its module is `net_.module_`.
    history_ : list of dict
        Losses of every epoch, nats per row: `train_loss`, and with one draw a row
        `train_reconstruction` and `train_kl`; where `beta` or `free_bits` make that cost
        more or less than it is, the cost is `train_kl_cost`.
    n_iter_ : int
        Epochs that were trained.
    n_components_ : int
        Number of codes.
    n_active_units_ : int
        Latents whose posterior mean varies over the training rows, with a variance
        above 0.01.
    noise_variance_ : float or ndarray of shape (n_features,)
        Variance of the noise, in squared units of X; None for likelihoods without. In tables
        an array, NaN for columns without.
    likelihoods_ : dict of str
        Of a table: the likelihood of each column, by name or index.
    categories_ : dict of ndarray
        Of a table: the levels of each categorical column, by name or index.
    classes_ : ndarray of shape (n_classes,)
        The labels, with `conditional=True` and labels.
    class_prior_ : ndarray of shape (n_classes,)
        Their frequencies in training.
    target_mean_, target_scale_ : ndarray of shape (n_targets,)
        Means and standard deviations of y, with `conditional=True` and numbers.
    n_features_in_ : int
        Number of features seen in `fit`.
    feature_names_in_ : ndarray of shape (n_features_in_,)
        Names of the features, if all are strings.

    See Also
    --------
    PPCA : The linear one, whose likelihood is exact.
    Autoencoder : Without a distribution of the codes.

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

    A table with a category, and what `impute` makes of its hole:

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
        prior: str = "standard",
        n_prior_components: int = 10,
        conditional: bool = False,
        latent_growth: str | None = None,
        beta: float = 1.0,
        beta_warm_up: int = 0,
        free_bits: float = 0.0,
        n_importance: int = 1,
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
        if self.n_importance > 1 and (self.beta != 1 or self.beta_warm_up or self.free_bits):
            raise ValueError(
                f"n_importance={self.n_importance} trains a bound that has no KL term of its own, "
                f"so beta={self.beta}, beta_warm_up={self.beta_warm_up} and free_bits="
                f"{self.free_bits} must be 1, 0 and 0; or take n_importance=1."
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

    def _prepare(self, rows: Dataset, train: Tensor) -> None:
        super()._prepare(rows, train)
        if self._architecture.prior == "vamp":
            self._trainer.module.start_pseudo_rows(rows, train, self._seed + 2)

    def _first_epoch_to_stop(self) -> int:
        return self._architecture.beta_warm_up

    def _learn_from_outputs(self, rows: Dataset, weight: float) -> Array | None:
        data = rows.data
        self._learn_label_frequencies(data, weight)
        if hasattr(self, "class_prior_"):
            with np.errstate(divide="ignore"):  # a label that a later fit no longer sees
                self._trainer.module.set_label_frequencies(np.log(self.class_prior_))
        some = data.some(_MOMENT_ROWS, self._seed + 6)
        self._check_codes_are_finite(codes := self._means(rows if some is data else some))
        # In a stream the calls add up to many draws, and each has its own.
        n_draws = min(_MOST_DRAWS, ceil(ALL_DRAWS / len(data.X))) if weight == 1 else 1
        path = self.__dict__.pop("_noise_path", None)
        self._learn_noise_of_draws(rows, weight, n_draws, drawn)
        self._learn_noise_of_sizes(data, weight, path if weight < 1 else None)
        mean = np.average(codes, axis=0, weights=some.weight)
        variance = np.average((codes - mean) ** 2, axis=0, weights=some.weight)
        before = vars(self).get("_code_moments")
        self._code_moments = running_variance(before, (mean, variance), weight)
        self._count_active_units()
        return codes if some is data else None

    def _count_active_units(self) -> None:
        self.n_active_units_ = int((self._code_moments[1] > ACTIVE).sum())

    def _learn_noise_of_sizes(self, data: Data, weight: float, before: Array | None) -> None:
        """Noise of the models of the first codes, each learned as that of the whole is."""
        module, whole = self._trainer.module, self._architecture
        if module.noise_path is None:
            return
        path = module.noise_path.variance[: self.n_components_]
        some = data.some(PATH_ROWS, self._seed + 6)
        rows, n_draws = self._dataset(some), min(_MOST_DRAWS, ceil(PATH_ROWS / len(some.X)))

        def explained_by(k: int) -> Iterator[tuple[Any, ...]]:
            module.architecture = replace(whole, n_components=k)
            module.likelihood.variance.copy_(path[k - 1])  # of which importance weights are made
            seed = self._seed + 1_000_003 * self.n_iter_ + k
            generator = torch.Generator(rows.device).manual_seed(seed)
            for batch, output, w in drawn(module, rows, n_draws, generator):
                yield explained(batch, output, w)

        if self.net_.at_start_:  # as for the whole
            self._noise_path = path.cpu().numpy().copy()
            return
        try:
            self._learn_noise_path(weight, before, explained_by)
        finally:
            module.architecture = whole
        path.copy_(torch.from_numpy(self._noise_path))

    def _keep_codes(self, whole: Self, k: int) -> None:
        mean, variance = whole._code_moments
        self._code_moments = mean[:k].copy(), variance[:k].copy()
        self._count_active_units()

    def _check_trained(self, rows: Dataset) -> None:
        super()._check_trained(rows)
        if 2 * self.n_active_units_ >= self.n_components_:
            return
        cures = f"Train longer (max_iter, now {self.n_iter_}), or ask for fewer n_components."
        if self.n_importance == 1:
            cures = (
                f"Lower beta (now {self.beta}), let it grow over beta_warm_up epochs (now "
                f"{self.beta_warm_up}), or set free_bits (now {self.free_bits}). {cures}"
            )
        warnings.warn(
            f"Posterior collapse: {self.n_active_units_} of {self.n_components_} latents are "
            f"active, that is, have a posterior mean whose variance is above {ACTIVE}. {cures}",
            UserWarning,
            stacklevel=2,
        )

    # -------------------------------------------------------------------- sampling

    def _draw_latent(self, n_samples: int, rng: np.random.RandomState) -> Array:
        return self._draw_codes(n_samples, self._trainer.generator(rng))

    def score_samples(self, X: ArrayLike, y: Any = None, *, n_importance: int = 100) -> Array:
        """Importance-weighted bound on log p(x), or on log p(x|y), in nats.

        It is log 1/K sum_k p(x, z_k) / q(z_k|x), z_k ~ q(z|x), which on average is at most
        log p(x), and nearer to it the larger K is. The draws depend on the row alone: it has
        the same score in every call, beside any other rows.

        Parameters
        ----------
        X : array-like of shape (n_samples, n_features)
            Rows to score; of values that are NaN, only those seen count.
        y : scalar or array-like of shape (n_samples,) or (n_samples, n_targets), default=None
            For a conditional model: the targets, for log p(x|y). None sums p(x, y) over
            all labels.
        n_importance : int, default=100
            K. 1 is a one-draw estimate of the evidence lower bound.

        Returns
        -------
        scores : ndarray of shape (n_samples,)
            Nats per row.

        Raises
        ------
        ValueError
            If `n_importance` is not a positive integer, a value is impossible under the
            likelihood, or `y` does not fit the model.
        """
        rows = self._check_new_rows(X, "score_samples")
        self._check_argument("n_importance", n_importance, [COUNT])
        return self._bounds(Data(rows, None, self._condition_of(y, len(rows))), n_importance)

    def impute(
        self,
        X: ArrayLike,
        n_draws: int | None = None,
        *,
        y: Any = None,
        n_importance: int = 100,
        random_state: int | np.random.RandomState | None = None,
    ) -> Any:
        """Fill in missing values, given those that were seen.

        Codes are drawn from q(z|seen), a quarter of them from N(0, I) where that is the prior,
        and weighted by p(z, seen) over the density of the draws (Mattei & Frellsen 2019).

        Parameters
        ----------
        X : array-like of shape (n_samples, n_features)
            Rows with NaN, null or a mask where a value is missing.
        n_draws : int, default=None
            None fills in conditional means, and the most probable level of a category; a number
            draws as many completions, noise included, for multiple imputation.
        y : scalar or array-like of shape (n_samples,) or (n_samples, n_targets), default=None
            As in `score_samples`; None weighs the labels by what was seen.
        n_importance : int, default=100
            Codes that are weighted, for each row.
        random_state : int, RandomState instance or None, default=None
            Seed of the draws; means need none. None takes fresh entropy.

        Returns
        -------
        X_imputed : ndarray of shape (n_samples, n_features), or \
                (n_draws, n_samples, n_features)
            The rows with every NaN replaced; the seen values are returned as they are.
            Means are a data frame under `set_output`, and an array without it, also of
            frames of pandas, polars or pyarrow; of tables they are in the container of `X`. Draws
            are always an array, of numbers and indices of levels.

        Raises
        ------
        ValueError
            If `n_draws` is not a positive integer or None, `n_importance` is not a positive
            integer, or `y` does not fit the model.
        """
        self._check_argument("n_draws", n_draws, [COUNT, None])
        self._check_argument("n_importance", n_importance, [COUNT])
        rows = self._check_new_rows(X, "impute")
        self._check_range(rows)
        condition, module = self._condition_of(y, len(rows)), self._trainer.module

        def guess(incomplete: Array, which: NDArray[np.intp]) -> Array:
            given = None if condition is None else condition[which]
            source = self._dataset(Data(incomplete, None, given))
            with self._trainer.inference(len(incomplete) * n_importance):
                if n_draws is None:
                    draws = self._row_draws(n_importance)
                    found = imputed_means(module, source, draws)[:, None]
                else:
                    generator = self._trainer.generator(private_generator(random_state))
                    found = imputed_draws(module, source, n_importance, n_draws, generator)
            values = np.empty((n_draws or 1, *incomplete.shape), dtype=self._architecture.row_dtype)
            for completed, drawn_rows in zip(values, found.swapaxes(0, 1), strict=True):
                for part in slices(len(incomplete)):
                    completed[part] = self._in_data_units(torch.from_numpy(drawn_rows[part]))
            return values

        return self._completed(X, rows, n_draws, guess)

    # ------------------------------------------------------------------- the hooks

    def _encode(self, X: Array) -> Array:
        return self._means(Data(X))

    def _means(self, rows: Data | Dataset) -> Array:
        module, k = self._trainer.module, self.n_components_
        return self._map_rows(rows, lambda batch: module.encode(batch.x).mean, k)

    def _decode(self, Z: Array, condition: NDArray[np.float32] | None = None) -> Array:
        module = self._trainer.module
        return self._map_conditioned(Z, condition, module.mean)

    def _log_prob(self, X: Array) -> Array:
        return self._bounds(Data(X, None, self._condition_of(None, len(X))), _N_IMPORTANCE)

    def _row_likelihood(self) -> RowLikelihood | None:
        fitted: Any = getattr(self, "_architecture", self)
        return None if fitted.conditional else RowLikelihood(self)

    def _scores(self, data: Data) -> Array:
        return self._bounds(data, 1)

    def _bounds(self, data: Data, n_importance: int) -> Array:
        self._check_range(data.X)
        with self._trainer.inference(len(data.X) * n_importance):
            draws = self._row_draws(n_importance)
            return importance_bounds(self._trainer.module, self._dataset(data), draws)

    def _column_scores(self, data: Data) -> Array:
        with self._trainer.inference(len(data.X) * _N_IMPORTANCE):
            draws = self._row_draws(_N_IMPORTANCE)
            return column_scores(self._trainer.module, self._dataset(data), draws)

    def _draw(
        self,
        n_samples: int,
        rng: np.random.RandomState,
        noise: bool,
        condition: NDArray[np.float32] | None = None,
    ) -> Array:
        if condition is None:
            condition = self._drawn_labels(n_samples, rng)
        generator = self._trainer.generator(rng)
        return self._noisy(self._draw_codes(n_samples, generator), generator, noise, condition)

    def _generate(self, Z: Array, rng: np.random.RandomState, noise: bool) -> Array:
        return self._noisy(Z, self._trainer.generator(rng), noise, None)

    def _noisy(
        self,
        Z: Array,
        generator: torch.Generator,
        noise: bool,
        condition: NDArray[np.float32] | None,
    ) -> Array:
        """Draws from p(x|z), or its means."""
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
        """Draws of z for any row, the same in every call."""
        return RowDraws(int(n_draws), self.n_components_, self._seed + 3, self._trainer.device)

    def __setstate__(self, state: dict[str, Any]) -> None:
        super().__setstate__({"latent_growth": None} | state)  # as models of version 0.1.0 are

    def __sklearn_tags__(self) -> Any:
        tags = super().__sklearn_tags__()
        tags.target_tags.required = self.conditional
        return tags
