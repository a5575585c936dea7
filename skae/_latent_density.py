"""LatentDensityEstimator: a density of the codes makes any autoencoder a generative model.

References
----------
A. van den Oord et al. (2016). WaveNet: a generative model for raw audio.
:doi:`10.48550/arXiv.1609.03499`

C. M. Bishop (1994). Mixture density networks. Technical report NCRG/94/004, Aston
University.
"""

from __future__ import annotations

import copy
from inspect import signature
from numbers import Integral
from os import PathLike
from typing import Any, ClassVar, Literal, Self

import numpy as np
from numpy.typing import ArrayLike, NDArray
from sklearn.callback import with_callbacks
from sklearn.frozen import FrozenEstimator

from skae._base import BaseAutoencoder
from skae._callback_parameters import CallbackParametersMixin
from skae._code_density import CodeDensityMixin, ScoreKindOfCodes
from skae._densities.code_supports import SUPPORTS, check_support, limits_of, public_support
from skae._densities.code_units import CodeUnits, check_not_all_equal
from skae._densities.network_density import (
    NetworkDensity,
    check_all_used,
    check_orderings,
    orders_of,
)
from skae._densities.network_sizes import n_epochs_for
from skae._densities.settings import (
    check_density,
    check_unchanged,
    fingerprints,
    settings_of,
    without_unused_defaults,
)
from skae._densities.wrapped_estimators import (
    check_autoencoder,
    check_codes,
    check_names,
    check_takes_weights,
    fit_autoencoder,
    fitted_density,
    unwrapped,
    wrapped_fit,
)
from skae._gaussianize import GaussianizeMixin
from skae._given_codes import GivenCodesMixin
from skae._inference.proposal_width import looks_again
from skae._linear.moments import scaled_weight
from skae._modules.architecture import layer_sizes
from skae._modules.latent_density import import_zuko
from skae._training.callbacks import check_callbacks
from skae._training.checkpoints import LATER_PARAMETERS, checkpoints_of_fit
from skae._training.ranked_fit import ranks_of_fit
from skae._training.tasks import FitTasks, check_listeners
from skae._training.trainer import TRAINING_CONSTRAINTS, TrainingOptions
from skae._utils.availability import available_if
from skae._utils.fit_names import part_of, parts_in_search
from skae._utils.inputs import check_same_columns
from skae._utils.interrupts import inside_another_fit
from skae._utils.state import all_or_nothing
from skae._utils.types import Fittable, LayerSizes, LearningRate, Precision, RandomState
from skae._utils.validation import (
    Interval,
    StrOptions,
    check_weight,
    fit_context,
)
from skae._utils.versions import has_format, is_of_other_versions, restoring

Array = NDArray[Any]


def _can_stream(model: LatentDensityEstimator) -> bool:
    autoencoder = model.autoencoder
    frozen = autoencoder is None or isinstance(autoencoder, FrozenEstimator)
    learns = frozen or hasattr(autoencoder, "partial_fit")
    if not learns or not isinstance(model.density, str):
        raise AttributeError(
            "partial_fit needs density='autoregressive' or 'flow', and an autoencoder that has "
            "partial_fit (such as LinearAE or IncrementalPCA) or that is fitted and wrapped in "
            f"FrozenEstimator; given autoencoder={autoencoder!r} and density={model.density!r}."
        )
    return True


class LatentDensityEstimator(
    GivenCodesMixin,
    CodeDensityMixin,
    GaussianizeMixin,
    CallbackParametersMixin,
):
    """Generative model of any autoencoder and a density of its codes.

    First, the autoencoder is fitted without any constraint on its codes. Then the density p(z) of
    the codes of the training rows is estimated. By default it factorises as
    p(z) = prod_i p(z_i | z_1, ..., z_{i-1}). Each conditional is a mixture of Gaussians, whose
    parameters are the output of a dilated causal convolutional network. `transform` and
    `inverse_transform` are those of the autoencoder, `sample` decodes codes drawn from p(z), and
    `score_samples` returns the exact log p(z) in nats.

    The scores log p(z) compare densities of the same codes only, because they grow when codes
    become smaller. Without an autoencoder, the codes are the rows, and the score is log p(x).
    `data_score_samples` scores rows by a bound on log p(x), for autoencoders with a likelihood
    p(x|z).

    Parameters
    ----------
    autoencoder : estimator, default=None
        Estimator with `fit`, `transform` and `inverse_transform`: an estimator of skae, PCA,
        KernelPCA(fit_inverse_transform=True), NMF, or a Pipeline of such estimators. It is cloned
        and fitted to all rows, including those that early stopping holds out. Wrapped in
        :class:`~sklearn.frozen.FrozenEstimator`, it is used without fitting. With None, the codes
        are the rows. The codes must be real numbers; VQVAE, whose codes are indices, has its own
        prior. An autoencoder that accepts tables, such as VAE(likelihood="auto"), also makes this
        estimator accept tables; decoded rows are then tables.
    n_components : int, default=None
        Number of codes. It sets the parameter `n_components` of the autoencoder, or of the last
        step of a Pipeline that has one. None does not change the autoencoder. If it is given
        without an autoencoder, the autoencoder is a :class:`LinearAE`, that is, PCA.
    density : {"autoregressive", "flow"} or estimator, default="autoregressive"
        Density p(z). "autoregressive" is the causal mixture density described above. "flow" is a
        neural spline flow of the package zuko (Durkan et al. 2019). An estimator such as
        GaussianMixture, BayesianGaussianMixture or KernelDensity is cloned and fitted to the codes.
        The parameters after `support` are for the first two; a parameter that the density does not
        use must keep its default, otherwise `fit` raises a ValueError.
    support : {"auto", "nonnegative", "simplex"}, pair (low, high) or None, default="auto"
        Set of possible codes. "nonnegative" means codes that are not negative. "simplex" means
        codes that are not negative and have the sum 1. A pair means codes between `low` and `high`,
        which are numbers or array-likes of shape (n_codes,); -inf and inf mean no bound. None means
        all real numbers. All drawn codes lie in the support, and log p(z) is -inf outside of it.
        "auto" finds the support from the training codes (see Notes); without an autoencoder it
        means None.
    n_mixture : int, default=None
        Number of components of each conditional mixture of "autoregressive". None takes 16 for
        fewer than 5000 training rows, and 30 otherwise.
    mixture_kind : {"gaussian", "logistic"}, default="gaussian"
        Distribution of the components. Logistic distributions have heavier tails.
    n_channels : int, default=None
        Number of channels of the causal network, or number of units in the hidden layers of "flow".
        None takes 32 for "autoregressive" with fewer than 5000 training rows, and 64 otherwise.
    filter_size : int, default=2
        Number of positions that each causal convolution reads.
    dilations : array-like of int, default=None
        Dilation of the convolution in each residual block. None takes powers of `filter_size`,
        until the output for the last code depends on the first code. With an empty list there are
        no residual blocks, and each conditional depends on the previous code and on
        `input_transform` only.
    position_embedding : bool, default=False
        Whether the network also gets a learned vector for each position.
    input_transform : {"triangular"} or None, default="triangular"
        Transform of the codes before the causal network. "triangular" is a learned triangular
        linear map, which is initialised so that it whitens Gaussian codes. With None the codes are
        standardised.
    divisive_normalization : bool, default=False
        Whether to divide each code by a weighted root mean square of the codes before it, with
        learned weights. This helps if the magnitudes of the codes are dependent, as in image
        patches.
    orderings : int or array-like of shape (n_orderings, n_codes), default=1
        Number of orderings of the codes over which p(z) is averaged. The first is the order of the
        codes, the second is its reverse, and the others are random. An array gives the orderings as
        permutations of 0, 1, .... All orderings share one network, and each training step uses one
        of them.
    weight_averaging : float in [0, 1), default=0.0
        Decay of an exponential moving average of the weights over training steps. The fitted model
        has the averaged weights. With 0, it has the latest weights.
    n_transforms : int, default=3
        Number of transformations of "flow".
    solver : {"adam", "adamw", "sgd", "lbfgs", "muon"}, default="adam"
        Optimiser. "lbfgs" uses all rows at once, makes 20 steps in each epoch, and ignores
        `learning_rate_init`. "muon" orthogonalises the steps of the weight matrices of the causal
        network (Jordan et al. 2024), with five times the learning rate, and uses AdamW for all
        other parameters; `alpha` is then the decoupled weight decay.
    alpha : float, default=0.0
        Strength of the L2 penalty on the weights. For "adamw" it is the decoupled weight decay.
    batch_size : int, default=128
        Number of rows in each step of the optimiser.
    learning_rate : {"constant", "cosine", "invscaling", "adaptive"}, default="constant"
        Schedule of the learning rate. "cosine" rises during the first tenth of the epochs and then
        falls to zero. "invscaling" divides by the square root of the epoch. "adaptive" divides by 5
        whenever the loss has not improved for two epochs.
    learning_rate_init : float, default=1e-3
        Largest learning rate of the schedule.
    momentum : float in [0, 1), default=0.9
        Nesterov momentum of "sgd".
    max_iter : int, default=None
        Maximum number of epochs. None takes 35 for "autoregressive" with fewer than 5000 training
        rows, and 50 otherwise.
    tol : float, default=0.0
        Training ends when the loss has not improved by `tol` nats per row for `n_iter_no_change`
        epochs. With 0, training runs for `max_iter` epochs, unless early stopping ends it.
    early_stopping : bool, default=False
        Whether to hold out rows, to end training when the loss of these rows no longer improves,
        and to keep the weights of their best epoch.
    validation_fraction : float in (0, 1), default=0.1
        Fraction of the rows that early stopping holds out.
    n_iter_no_change : int, default=10
        Number of epochs without improvement after which `tol` or early stopping ends training.
    warm_start : bool, default=False
        Whether `fit` continues training of the density from the previous fit. The autoencoder is
        fitted again only if its own `warm_start` is True.
    verbose : int, default=0
        With 1, training shows its epochs, losses and remaining time: as a bar in a terminal or a
        notebook, and otherwise as a few lines on stderr. With 2, it prints a line for every epoch.
    random_state : int, RandomState instance or None, default=None
        Seed of the initial weights, the order of the rows, the orderings and the held-out rows, and
        of the wrapped estimators that have no seed themselves. With None, every fit uses new random
        numbers. The global generators of NumPy and torch are not used.
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
    autoencoder_ : estimator or None
        The fitted autoencoder.
    density_ : estimator
        The fitted density: an estimator of scikit-learn, or a trained network with the methods
        `fit`, `score_samples`, `sample` and `partial_fit`. The attributes `net_` and `history_`
        exist only for a network.
    net_ : skorch.NeuralNet
        The trained network as a skorch net. The torch module is `net_.module_`.
    history_ : list of dict
        Losses of each epoch, -log p(z) of standardised codes in nats per row. With several
        orderings, the training loss is that of the ordering of each step. It is computed without
        `weight_averaging`.
    n_iter_ : int
        Number of epochs of training, or of iterations of a density of scikit-learn.
    support_ : {"nonnegative", "simplex"}, pair (low, high) or None
        Set of possible codes, as given or found.
    n_mixture_, n_channels_ : int
        Sizes of the network, as given or chosen, if the density uses them.
    n_components_ : int
        Number of codes.
    n_features_in_ : int
        Number of features seen in `fit`.
    feature_names_in_ : ndarray of shape (n_features_in_,)
        Names of the features, if all are strings.

    See Also
    --------
    VAE : Autoencoder that learns the codes and their prior together.
    AdversarialAE : Autoencoder whose codes follow a prior by a discriminator.
    sample_pipeline : Draw rows from a Pipeline that ends in a density.

    Notes
    -----
    Codes that are constant in training have no density. They do not contribute to scores, and
    samples contain their constant values.

    With `support="auto"`, a code has a bound if several training codes lie exactly on it, for
    example on 0 for NMF, or on -1, 0 or 1 for saturated units. There must be at least three of
    them, more than on any other value, and no code beyond the bound. NMF codes are always bounded
    by 0. Codes that are not negative and have the sum 1 in each row form a simplex. That all codes
    are positive is not a reason for a bound.

    Codes with a support are mapped to real numbers by a smooth map, and the density takes its
    derivative into account. For a single bound, the map is s log(exp(u / s) - 1), where u is the
    distance from the bound and s is 0.3 standard deviations of the code. For two bounds it is a
    logit. For a simplex it is stick-breaking, and the density is one of all codes but the last.
    Codes exactly on a bound have a probability and no density. They are treated as if they were
    distributed uniformly within 0.03 standard deviations of the bound. Drawn codes in this range
    are set to the bound, if more training codes lay on the bound than in the range.

    References
    ----------
    B. Uria, I. Murray and H. Larochelle (2013). RNADE: the real-valued neural autoregressive
    density-estimator. NeurIPS 26. :doi:`10.48550/arXiv.1306.0186`

    A. van den Oord et al. (2016). WaveNet: a generative model for raw audio.
    :doi:`10.48550/arXiv.1609.03499`

    C. Durkan, A. Bekasov, I. Murray and G. Papamakarios (2019). Neural spline flows. NeurIPS
    32. :doi:`10.48550/arXiv.1906.04032`

    K. Jordan et al. (2024). Muon: an optimizer for hidden layers in neural networks.
    https://kellerjordan.github.io/posts/muon/

    Examples
    --------
    >>> from sklearn.datasets import load_digits
    >>> from sklearn.decomposition import PCA
    >>> from sklearn.mixture import GaussianMixture
    >>> from skae import LatentDensityEstimator
    >>> X, _ = load_digits(return_X_y=True)
    >>> lde = LatentDensityEstimator(PCA(8), max_iter=8, random_state=0).fit(X)
    >>> lde.sample(3, random_state=0).shape
    (3, 64)
    >>> gaussian = LatentDensityEstimator(PCA(8), density=GaussianMixture(), random_state=0)
    >>> bool(lde.score(X) > gaussian.fit(X).score(X))  # the codes are the same
    True
    >>> lde.score_kind
    'latent'
    """

    score_kind = ScoreKindOfCodes()

    autoencoder_: Any
    density_: Any
    n_iter_: int
    support_: Literal["nonnegative", "simplex"] | tuple[Any, Any] | None
    _settings: dict[str, Any]
    _units: CodeUnits
    _proposal_tau: float

    _state_shapes = dict.fromkeys(["autoencoder_", "_units", "_settings", "n_components_"])
    _parameter_constraints: ClassVar[dict[str, list[Any]]] = {
        **TRAINING_CONSTRAINTS,
        "autoencoder": [object],
        "n_components": [Interval(Integral, 1, None, closed="left"), None],
        "density": [object],
        "support": [StrOptions(set(SUPPORTS)), tuple, list, None],
        "max_iter": [*TRAINING_CONSTRAINTS["max_iter"], None],
        "n_mixture": [Interval(Integral, 1, None, closed="left"), None],
        "mixture_kind": [StrOptions({"gaussian", "logistic"})],
        "n_channels": [Interval(Integral, 1, None, closed="left"), None],
        "filter_size": [Interval(Integral, 2, None, closed="left")],
        "dilations": ["array-like", Interval(Integral, 1, None, closed="left"), None],
        "position_embedding": ["boolean"],
        "divisive_normalization": ["boolean"],
        "input_transform": [StrOptions({"triangular"}), None],
        "orderings": ["array-like", Interval(Integral, 1, None, closed="left")],
        "n_transforms": [Interval(Integral, 1, None, closed="left")],
    }

    def __init__(
        self,
        autoencoder: Fittable | None = None,
        n_components: int | None = None,
        *,
        density: Literal["autoregressive", "flow"] | Fittable = "autoregressive",
        support: Literal["auto", "nonnegative", "simplex"]
        | tuple[ArrayLike, ArrayLike]
        | list[Any]
        | None = "auto",
        n_mixture: int | None = None,
        mixture_kind: Literal["gaussian", "logistic"] = "gaussian",
        n_channels: int | None = None,
        filter_size: int = 2,
        dilations: LayerSizes | None = None,
        position_embedding: bool = False,
        input_transform: Literal["triangular"] | None = "triangular",
        divisive_normalization: bool = False,
        orderings: int | ArrayLike = 1,
        weight_averaging: float = 0.0,
        n_transforms: int = 3,
        solver: Literal["adam", "adamw", "sgd", "lbfgs", "muon"] = "adam",
        alpha: float = 0.0,
        batch_size: int = 128,
        learning_rate: LearningRate = "constant",
        learning_rate_init: float = 1e-3,
        momentum: float = 0.9,
        max_iter: int | None = None,
        tol: float = 0.0,
        early_stopping: bool = False,
        validation_fraction: float = 0.1,
        n_iter_no_change: int = 10,
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
        self.autoencoder = autoencoder
        self.n_components = n_components
        self.density = density
        self.support = support
        self.n_mixture = n_mixture
        self.mixture_kind = mixture_kind
        self.n_channels = n_channels
        self.filter_size = filter_size
        self.dilations = dilations
        self.position_embedding = position_embedding
        self.input_transform = input_transform
        self.divisive_normalization = divisive_normalization
        self.orderings = orderings
        self.weight_averaging = weight_averaging
        self.n_transforms = n_transforms
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
        self.checkpoint_dir = checkpoint_dir
        self.checkpoint_every = checkpoint_every
        self.distributed = distributed

    # -------------------------------------------------------------------- learning

    def _check_parameters(self) -> None:
        """Raise for combinations of parameters that are not allowed."""
        if self.autoencoder is not None:
            check_autoencoder(self.autoencoder)
        if self.dilations is not None:
            layer_sizes("dilations", self.dilations)
        check_density(self.density)
        if self.density == "flow":
            import_zuko()
        check_support(self.support)
        check_orderings(self.orderings, self.solver)

    @with_callbacks
    def _fit_model(
        self,
        X: Array,
        rng: np.random.RandomState,
        sample_weight: Array | None,
        previous: Self | None,
        y: Array | None = None,
        told: Any = None,
    ) -> None:
        """Fit the model; `told` is the y given to `fit`, for scikit-learn's callbacks."""
        check_listeners(getattr(self, "_skl_callbacks", []))
        n_epochs = 0
        if isinstance(self.density, str):
            n_epochs = n_epochs_for(self.max_iter, self.density, X.shape[0])
        context = self._init_callback_context(max_subtasks=n_epochs)
        shown = self._shown_rows(X)
        context.call_on_fit_task_begin(estimator=self, X=shown, y=told)
        with (
            part_of(*parts_in_search(self, context)),
            ranks_of_fit(self, rng, X, sample_weight, y),
            checkpoints_of_fit(self, rng, X, sample_weight, y, previous) as generator,
        ):
            if isinstance(self.density, str):
                tasks = FitTasks(self, self, context, shown, told, sample_weight, are_named=False)
                # Ctrl-C in the fit of the autoencoder must not keep a partly trained one.
                with inside_another_fit():
                    self._fit_network(X, generator, sample_weight, previous, y, tasks)
            else:
                self._fit_estimator(X, generator, sample_weight, previous, y)
        self._learn_proposal(X)
        context.call_on_fit_task_end(estimator=self, X=shown, y=told)

    def _fit_network(
        self,
        X: Array,
        rng: np.random.RandomState,
        sample_weight: Array | None,
        previous: Self | None,
        y: Array | None,
        tasks: FitTasks,
    ) -> None:
        """Fit a network to the codes."""
        real = self._learn_codes(X, sample_weight, y, previous, rng)
        self.density_ = self._network_density(previous)
        n_epochs = n_epochs_for(self.max_iter, str(self.density), X.shape[0])
        with tasks.training("density", n_epochs, shows_model=True) as listeners:
            self.density_.fit(real, sample_weight, listeners=listeners)
        self.n_iter_ = self.density_.trainer.n_epochs

    def _network_density(self, previous: Self | None) -> NetworkDensity:
        """A density to train: a new one, or a copy of the previous one."""
        options = TrainingOptions.of(self)
        if previous is not None:
            density: NetworkDensity = previous.density_.fork(options)
            return density
        orders = np.zeros((1, self._units.n_free), dtype=np.int64)
        if self._settings["density"] == "autoregressive":
            units = self._units
            orders = orders_of(self._settings["orderings"], units.varies, units.n_free, self._seed)
        return NetworkDensity(
            self._settings,
            orders,
            options,
            seed=self._seed,
            center=self._units.center,
            scale=self._units.scale,
            name=f"{type(self).__name__} density",
        )

    def _finish(self, rows: None, weight: float) -> None:
        """Nothing else depends on the trained network."""

    def _fit_estimator(
        self,
        X: Array,
        rng: np.random.RandomState,
        sample_weight: Array | None,
        previous: Self | None,
        y: Array | None,
    ) -> None:
        """Fit a density of scikit-learn to the codes, mapped to real numbers."""
        check_takes_weights(self.density, sample_weight)
        z = self._learn_codes(X, sample_weight, y, previous, rng)
        before = None if previous is None else previous.density_
        density = fitted_density(self.density, z, sample_weight, before, rng, self._seed)
        self.density_ = density
        self.n_iter_ = int(getattr(density, "n_iter_", 1))

    def _learn_codes(
        self,
        X: Array,
        sample_weight: Array | None,
        y: Array | None,
        previous: Self | None,
        rng: np.random.RandomState,
        streaming: bool = False,
    ) -> NDArray[np.float64]:
        """Fit the autoencoder, learn the map of codes to real numbers, and apply it to the rows."""
        check_callbacks(self.callbacks or [], self.early_stopping)
        defaults = signature(LatentDensityEstimator).parameters
        check_all_used(self, {name: parameter.default for name, parameter in defaults.items()})
        before = None if previous is None else previous._settings
        settings = settings_of(self, None if streaming else X.shape[0], before)
        if previous is None:
            self._seed, self._settings = int(rng.randint(2**31 - 1)), settings
            autoencoder = self._new_autoencoder(rng)
            learns = not isinstance(autoencoder, FrozenEstimator)
        else:
            check_same_columns(self, X.shape[1], previous, previous.n_features_in_)
            check_unchanged(self, settings, previous._settings)
            self._seed, self._settings = previous._seed, previous._settings
            autoencoder = previous.autoencoder_
            goes_on = bool(getattr(autoencoder, "warm_start", False))
            learns = hasattr(autoencoder, "partial_fit") if streaming else goes_on
            learns = learns and not isinstance(autoencoder, FrozenEstimator)
            autoencoder = copy.deepcopy(autoencoder) if learns else autoencoder
        if autoencoder is not None and learns:
            with wrapped_fit(self._seed):
                fit_autoencoder(autoencoder, self._rows_to_learn(X), y, sample_weight, streaming)
        elif autoencoder is not None:
            check_names(autoencoder, getattr(self, "feature_names_in_", None))
        self.autoencoder_ = autoencoder
        codes = self._encode(X)
        check_codes(self.autoencoder, codes)
        # Spreads codes that lie on a bound, equally each time a fit maps them.
        noise = np.random.RandomState((self._seed + _epochs_before(previous)) % 2**32)
        if previous is None:
            limits = limits_of(self.support, codes, unwrapped(autoencoder))
            weight, _ = scaled_weight(sample_weight)
            first = np.random.RandomState(self._seed % 2**32)
            self._units = CodeUnits.of(codes, weight, limits, first)
            self._support = public_support(limits)
            if streaming:
                check_not_all_equal(codes)
            self._check_decodes(codes[:1])
        else:
            self._units, self._support = previous._units, previous._support
            self._units.check_number(codes)
            self._units.check_constant(codes)
            self._units.check_inside(codes, "autoencoder's new codes")
        self.n_components_ = codes.shape[1]
        self.support_ = self._support
        return self._units.real(codes, noise)

    @available_if(_can_stream)
    @fit_context
    def partial_fit(
        self, X: ArrayLike, y: object = None, sample_weight: ArrayLike | None = None
    ) -> Self:
        """Train the density for one epoch over a batch of rows, continuing earlier calls.

        An autoencoder with `partial_fit` is updated as well; a frozen one does not change. The
        first call fixes the scale and the support of the codes.

        Parameters
        ----------
        X : array-like of shape (n_samples, n_features)
            Rows to train on, any number; they are divided into batches of `batch_size`.
        y : array-like of shape (n_samples,) or (n_samples, n_targets), default=None
            Targets, for autoencoders that need them.
        sample_weight : array-like of shape (n_samples,), default=None
            Weights of the rows, as in `fit`.

        Returns
        -------
        self : object
            The estimator.

        Raises
        ------
        AttributeError
            If the autoencoder has no `partial_fit`, or if the density is one of scikit-learn.
        ValueError
            If the rows are not allowed, if their codes are all equal in the first call, or if a
            code is not constant that was constant in the first call. The estimator then stays
            as it was before the call.
        """
        with inside_another_fit(), all_or_nothing(self):
            previous = BaseAutoencoder.__copy__(self) if "density_" in vars(self) else None
            rows = self._check_rows(X, reset=previous is None)
            weight = check_weight(sample_weight, rows)
            targets = self._check_targets(y, rows.shape[0])
            rows, weight, targets = self._rows_that_count(rows, weight, targets)
            rng = self._generator()
            with ranks_of_fit(self, rng, rows, weight, targets):
                real = self._learn_codes(rows, weight, targets, previous, rng, streaming=True)
                self.density_ = self._network_density(previous).partial_fit(real, weight)
            self.n_iter_ = self.density_.trainer.n_epochs
            if looks_again(self.n_iter_):
                self._learn_proposal(rows)
        return self

    # ------------------------------------------------------------------- the hooks

    def _draw(self, n_samples: int, rng: np.random.RandomState, noise: bool) -> Array:
        return self._generate(self._draw_codes(n_samples, rng), rng, noise)

    # ------------------------------------------------------------------- validation

    def _check_rows(self, X: Any, *, reset: bool, min_rows: int = 1) -> Any:
        if reset:
            self._check_parameters()
        return super()._check_rows(X, reset=reset, min_rows=min_rows)

    # ----------------------------------------------------------------------- files

    def __copy__(self) -> Self:
        """A copy with its own network."""
        new = super().__copy__()
        if isinstance(vars(self).get("density_"), NetworkDensity):
            new.density_ = copy.copy(self.density_)
        return new

    def __getstate__(self) -> dict[str, Any]:
        """State with the network and the map of codes as plain values."""
        state = super().__getstate__()
        if "_units" in state:
            state["_units"] = self._units.state()
        if isinstance(state.get("density_"), NetworkDensity):
            state["net_"] = state.pop("density_").trainer.state()
        return state

    def __setstate__(self, state: dict[str, Any]) -> None:
        unknown: dict[str, Any] = {"support": None, **LATER_PARAMETERS}  # earlier files lack them
        if is_of_other_versions(state) and not has_format(state):
            state = without_unused_defaults(state)
        if "_units" in state:
            unknown["_support"] = None
        is_old = "_plan" in state
        state = {"_settings" if name == "_plan" else name: v for name, v in state.items()}
        rows, tau = state.pop("_proposal_rows", None), state.get("_proposal_tau")
        super().__setstate__(unknown | state)
        with restoring(type(self).__name__):
            if isinstance(vars(self).get("_units"), dict):
                self._units = CodeUnits.of_state(vars(self)["_units"])
            needs_net = "_units" in vars(self) and "density_" not in vars(self)
            net = self.__dict__.pop("net_") if needs_net else None
        if (is_old or is_of_other_versions(state)) and "_settings" in self.__dict__:
            # Fingerprints of other versions cannot be compared with those of this version.
            self._settings |= fingerprints(self)
        if net is not None:
            self.density_ = self._network_density(None).restore(net)
        if rows is not None and tau is None:
            self._learn_proposal(rows)


def _epochs_before(previous: LatentDensityEstimator | None) -> int:
    """Number of epochs that the network was trained before."""
    density = None if previous is None else previous.density_
    return density.trainer.n_epochs if isinstance(density, NetworkDensity) else 0
