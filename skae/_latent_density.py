"""LatentDensityEstimator: any autoencoder becomes a generative model, by a density of its codes.

References
----------
A. van den Oord et al. (2016). WaveNet: a generative model for raw audio.
:doi:`10.48550/arXiv.1609.03499`

C. M. Bishop (1994). Mixture density networks. Technical report NCRG/94/004, Aston
University.
"""

import copy
from inspect import signature
from numbers import Integral, Real
from typing import Any, ClassVar, Self

import numpy as np
from numpy.typing import ArrayLike, NDArray
from sklearn.callback import with_callbacks
from sklearn.frozen import FrozenEstimator

from skae._base import BaseAutoencoder
from skae._callback_parameters import CallbackParametersMixin
from skae._data_scores import DataScoresMixin
from skae._densities.code_supports import SUPPORTS, check_support, limits_of, public_support
from skae._densities.code_units import CodeUnits
from skae._densities.network_density import (
    NetworkDensity,
    check_all_used,
    given_orderings,
    is_one_ordering,
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
from skae._inference.bounds import (
    LogPrior,
    Proposal,
    RowLikelihood,
    on_arrays,
)
from skae._inference.proposal_width import looks_again, proposal_width
from skae._latent_samples import CodeScoresMixin
from skae._linear.moments import scaled_weight
from skae._modules.architecture import layer_sizes
from skae._modules.latent_density import import_zuko
from skae._nn.priors import draw_from
from skae._training.callbacks import Tasks, check_callbacks, check_listeners
from skae._training.net import Net
from skae._training.optimizers import MATRIX_OPTIMIZER, OPTIMIZERS
from skae._training.trainer import TRAINING_CONSTRAINTS, TrainingOptions
from skae._utils.availability import available_if
from skae._utils.inputs import check_same_columns
from skae._utils.interrupts import inside_another_fit
from skae._utils.state import all_or_nothing
from skae._utils.validation import (
    Interval,
    StrOptions,
    check_weight,
    fit_context,
    private_generator,
)
from skae._utils.versions import is_of_other_versions
from skae._wrapped_autoencoder import WrappedAutoencoderMixin

Array = NDArray[Any]


class _ScoreKind:
    """ "log_likelihood" where codes are the rows themselves, else "latent"."""

    def __get__(self, model: Any, owner: type) -> str:
        if model is None:
            return "latent"
        if "autoencoder_" in vars(model):  # a fitted model stays what it is
            return "log_likelihood" if model.autoencoder_ is None else "latent"
        own = model.autoencoder is None and model.n_components is None
        return "log_likelihood" if own else "latent"


def _can_stream(model: "LatentDensityEstimator") -> bool:
    autoencoder = model.autoencoder
    frozen = autoencoder is None or isinstance(autoencoder, FrozenEstimator)
    learns = frozen or hasattr(autoencoder, "partial_fit")
    if not learns or not isinstance(model.density, str):
        raise AttributeError(
            "partial_fit needs an autoencoder that has one, as LinearAE (which is PCA) and "
            "IncrementalPCA, or that was fitted before and is in FrozenEstimator; and "
            f"density='autoregressive' or 'flow'. Given autoencoder={autoencoder!r} and "
            f"density={model.density!r}."
        )
    return True


class LatentDensityEstimator(
    DataScoresMixin,
    CodeScoresMixin,
    GaussianizeMixin,
    WrappedAutoencoderMixin,
    CallbackParametersMixin,
):
    """Any autoencoder as a generative model: a density of its codes, learned after it.

    Nothing is asked of the codes while the autoencoder learns; then p(z) is estimated from
    them. By default it factorises as p(z) = prod_i p(z_i | z_1, ..., z_{i-1}), where each
    conditional is a mixture of Gaussians whose parameters a dilated causal convolution gives.
    `transform` and `inverse_transform` are the autoencoder's, `sample` decodes codes drawn
    from p(z), and `score_samples` is log p(z), nats, exact.

    A score of codes ranks densities of the same codes and nothing else: it grows as codes
    shrink. Without an autoencoder codes are the rows themselves, and it is log p(x).
    `data_score_samples` scores rows where the autoencoder has a p(x|z).

    Parameters
    ----------
    autoencoder : estimator, default=None
        Anything with `fit`, `transform` and `inverse_transform`, such as one of skae's,
        PCA, KernelPCA(fit_inverse_transform=True), NMF or a Pipeline of them. It is cloned
        and fitted to all rows, also to those that early stopping holds out; wrapped in
        :class:`~sklearn.frozen.FrozenEstimator` it is used as it is. None takes rows as
        codes. Codes have to be real: VQVAE, whose codes are integers, has a prior of its
        own. One with likelihoods of its own for each column, as VAE(likelihood="auto"), itself
        or in FrozenEstimator, is given tables as they are, and what it decodes comes out as
        its own rows do.
    n_components : int, default=None
        The `n_components` of the autoencoder, or of the last step that has one; None leaves
        it as it is. Given without an autoencoder, that is a :class:`LinearAE`, which is PCA.
    density : {"autoregressive", "flow"} or estimator, default="autoregressive"
        p(z): the causal mixture density; a neural spline flow of the package zuko (Durkan et
        al. 2019); or a scikit-learn density, which is cloned and fitted to the codes as they
        are, such as GaussianMixture, BayesianGaussianMixture or KernelDensity. What follows is
        about the first two; what is set for a density that does not use it is an error.
    support : {"auto", "nonnegative", "simplex"}, pair (low, high) or None, default="auto"
        Which codes there can be: those that are not negative; those of a simplex, which are
        not negative and have the sum 1; those between two numbers, or two array-likes of
        shape (n_codes,) with one for each code, where -inf and inf are no bounds; None, any.
        The density is one on the support, where all codes that are drawn lie; elsewhere
        log p(z) is -inf. "auto" finds the support in training codes (see Notes); without an
        autoencoder it is None.
    n_mixture : int, default=None
        Components of each conditional, for "autoregressive". None takes 16 in a fit on fewer
        than 5000 rows, else 30.
    mixture_kind : {"gaussian", "logistic"}, default="gaussian"
        What they are; logistics have the heavier tails.
    n_channels : int, default=None
        Numbers at each position of the causal network; width of the hidden layers of "flow".
        None takes 32 for "autoregressive" in a fit on fewer than 5000 rows, else 64.
    filter_size : int, default=2
        Positions that a causal convolution reads.
    dilations : array-like of int, default=None
        Their distances, one residual block for each; none, an empty list, leaves each
        conditional to the map and the number before; None takes the powers of `filter_size`
        until the last position reads the first.
    position_embedding : bool, default=False
        Tell the network at which position it is, by a learned vector.
    input_transform : {"triangular"} or None, default="triangular"
        The causal network models a learned triangular map of the codes, which starts where it
        makes a Gaussian white; or the codes, standardised.
    divisive_normalization : bool, default=False
        Read and predict each number in units of a weighted root mean square of those before
        it, with learned weights: for codes whose sizes go together, as in image patches.
    orderings : int or array-like of shape (n_orderings, n_codes), default=1
        How many orderings of the codes p(z) is averaged over; they share the network, of
        which each training step learns one. The first is that of the codes, the second its
        reverse, others are random; or those given, as permutations of 0, 1, ....
    weight_averaging : float in [0, 1), default=0.0
        How much a training step counts beside the one after it in the average of the weights
        with which the causal network scores and samples; 0 takes the last ones.
    n_transforms : int, default=3
        Transformations of "flow".
    solver : {"adam", "adamw", "sgd", "lbfgs", "muon"}, default="adam"
        Optimiser; "lbfgs" takes all rows at once and 20 steps an epoch, and ignores
        `learning_rate_init`. "muon" orthogonalises the steps of the causal network's
        weights (Jordan et al. 2024), at five times the rate, and is AdamW for all others;
        `alpha` is the decoupled decay of both.
    alpha : float, default=0.0
        L2 penalty on weights; for "adamw" the decoupled decay.
    batch_size : int, default=128
        Rows per step.
    learning_rate : {"constant", "cosine", "invscaling", "adaptive"}, default="constant"
        "cosine" rises over a tenth of `max_iter` and falls to zero at its end,
        "invscaling" falls with the root of the epoch, "adaptive" is divided by 5 when
        the loss stalls for two epochs.
    learning_rate_init : float, default=1e-3
        The largest learning rate.
    momentum : float in [0, 1), default=0.9
        Nesterov momentum of "sgd".
    max_iter : int, default=None
        Epochs; None takes 35 for "autoregressive" on fewer than 5000 rows, else 50.
    tol : float, default=0.0
        Training ends when the loss has not improved by this, in nats per row, for
        `n_iter_no_change` epochs; 0 never ends it without early stopping.
    early_stopping : bool, default=False
        Watch the loss on rows that are held out, and go back to the best epoch.
    validation_fraction : float in (0, 1), default=0.1
        Share of the rows that early stopping holds out.
    n_iter_no_change : int, default=10
        Epochs that `tol` and early stopping wait for.
    warm_start : bool, default=False
        `fit` goes on from the earlier fit: with the density, and with an autoencoder that has
        `warm_start=True` itself; another one stays as it is.
    verbose : int, default=0
        1 shows one line with the epochs, the losses and the time left.
    random_state : int, RandomState instance or None, default=None
        Seed of weights, batches, orderings and held-out rows, and of whatever is wrapped
        and has none. None takes fresh entropy; the global generators are never touched.
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
    autoencoder_ : estimator or None
        The fitted autoencoder.
    density_ : estimator
        The fitted density: one of scikit-learn's; or one that a network learned, with
        `fit`, `score_samples`, `sample` and `partial_fit`. Only then there are `net_` and
        `history_`.
    net_ : skorch.NeuralNet
        The trained net; its module is `net_.module_`.
    history_ : list of dict
        Losses of every epoch, -log p(z) of standardised codes, nats per row; in training
        that of one ordering, if there are several, at the last weights.
    n_iter_ : int
        Epochs, or iterations of a scikit-learn density, that were trained.
    support_ : {"nonnegative", "simplex"}, pair (low, high) or None
        Which codes there can be.
    n_mixture_, n_channels_ : int
        Sizes of the network, as given or chosen; where the density uses them.
    n_components_ : int
        Number of codes.
    n_features_in_ : int
        Number of features seen in `fit`.
    feature_names_in_ : ndarray of shape (n_features_in_,)
        Names of the features, if all are strings.

    See Also
    --------
    VAE : Learns codes that follow a prior.
    AdversarialAE : Likewise, by a discriminator.
    sample_pipeline : Samples a Pipeline that ends in a density.

    Notes
    -----
    Codes that do not vary in training have no density: they are set aside, scored as if they
    were not there, and put back into samples.

    Codes are taken to have a bound where several lie on it, as those of NMF on 0, or of units
    that saturate on 0 and 1 or -1 and 1: at least three of one code, and more of them than on
    any other number, while no code lies beyond. Codes of NMF always have theirs. Codes that are
    not negative, and have the sum 1 in every row, are those of a simplex. That codes are merely
    positive says nothing.

    Densities read codes that have a support through a smooth map to real numbers, whose
    derivative is counted. Beside a single bound it is s log(exp(u / s) - 1), with u the distance
    from it and s 0.3 standard deviations of the code; between two a logit; and a simplex is read
    as a stick of which each code but the last breaks off a share: its density is one of all
    codes but the last. Codes on a bound, which have a probability and no density, count as if
    they were spread evenly over 0.03 standard deviations beside it, and codes that are drawn
    there are put on it, if more training codes lay on it than there.

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

    score_kind = _ScoreKind()  # type: ignore[assignment]

    autoencoder_: Any
    density_: Any
    _settings: dict[str, Any]
    _units: CodeUnits
    _proposal_tau: float

    _parameter_constraints: ClassVar[dict[str, list[Any]]] = {
        **TRAINING_CONSTRAINTS,
        "autoencoder": [object],
        "n_components": [Interval(Integral, 1, None, closed="left"), None],
        "density": [object],
        "support": [StrOptions(set(SUPPORTS)), tuple, list, None],
        "solver": [StrOptions({*OPTIMIZERS, MATRIX_OPTIMIZER})],
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
        "weight_averaging": [Interval(Real, 0, 1, closed="left")],
        "n_transforms": [Interval(Integral, 1, None, closed="left")],
    }

    def __init__(
        self,
        autoencoder: Any = None,
        n_components: int | None = None,
        *,
        density: Any = "autoregressive",
        support: Any = "auto",
        n_mixture: int | None = None,
        mixture_kind: str = "gaussian",
        n_channels: int | None = None,
        filter_size: int = 2,
        dilations: Any = None,
        position_embedding: bool = False,
        input_transform: str | None = "triangular",
        divisive_normalization: bool = False,
        orderings: Any = 1,
        weight_averaging: float = 0.0,
        n_transforms: int = 3,
        solver: str = "adam",
        alpha: float = 0.0,
        batch_size: int = 128,
        learning_rate: str = "constant",
        learning_rate_init: float = 1e-3,
        momentum: float = 0.9,
        max_iter: int | None = None,
        tol: float = 0.0,
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

    # -------------------------------------------------------------------- learning

    def _check_parameters(self) -> None:
        """Raise for parameters that cannot go together."""
        check_callbacks(self.callbacks or [], self.early_stopping)
        if self.autoencoder is not None:
            check_autoencoder(self.autoencoder)
        if self.dilations is not None:
            layer_sizes("dilations", self.dilations)
        check_density(self.density)
        if self.density == "flow":
            import_zuko()
        check_support(self.support)
        if getattr(unwrapped(self.autoencoder), "conditional", False) is True:
            raise ValueError(
                f"autoencoder={self.autoencoder!r} is conditional: it decodes codes beside "
                "targets, which codes alone do not tell. Set conditional=False."
            )
        if self.solver == "lbfgs" and not is_one_ordering(given_orderings(self.orderings)):
            raise ValueError(
                f"orderings={self.orderings!r} goes with solvers that take steps by batches, each "
                "of one ordering; given solver='lbfgs'."
            )

    def _fit_model(
        self,
        X: Array,
        rng: np.random.RandomState,
        sample_weight: Array | None,
        previous: Self | None,
        y: Array | None = None,
        told: Any = None,
    ) -> None:
        if isinstance(self.density, str):
            # What is wrapped is complete then: of two trainings none is kept in part.
            with inside_another_fit():
                self._fit_network(X, rng, sample_weight, previous, y, told)
        else:
            self._fit_estimator(X, rng, sample_weight, previous, y)
        self._learn_proposal(X)

    @with_callbacks
    def _fit_network(
        self,
        X: Array,
        rng: np.random.RandomState,
        sample_weight: Array | None,
        previous: Self | None,
        y: Array | None,
        told: Any,
    ) -> None:
        """`told` is the y that `fit` was given, for scikit-learn's callbacks."""
        check_listeners(getattr(self, "_skl_callbacks", []))
        n_epochs = n_epochs_for(self.max_iter, self.density, X.shape[0])
        context = self._init_callback_context(max_subtasks=n_epochs)
        shown = self._shown_rows(X)
        context.call_on_fit_task_begin(estimator=self, X=shown, y=told)
        real = self._learn_codes(X, sample_weight, y, previous, rng)
        listeners = []
        if hasattr(self, "_skl_callbacks"):
            tasks = Tasks(self, context, None, shown, told, sample_weight)
            listeners.append(("skae_tasks", tasks))
        self.density_ = self._network_density(previous)
        self.density_.fit(real, sample_weight, listeners=tuple(listeners))
        self.n_iter_ = self.density_.trainer.n_epochs
        context.call_on_fit_task_end(estimator=self, X=shown, y=told)

    def _network_density(self, previous: Self | None) -> NetworkDensity:
        """A density that is to be trained: a new one, or one that goes on."""
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
            name=type(self).__name__,
        )

    def _finish(self, rows: None, weight: float) -> None:
        """Nothing follows from the network: it is all there is."""

    def _fit_estimator(
        self,
        X: Array,
        rng: np.random.RandomState,
        sample_weight: Array | None,
        previous: Self | None,
        y: Array | None,
    ) -> None:
        """Fit a scikit-learn density of the real numbers that codes are read as."""
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
        """Fit the autoencoder and learn in which units its codes are read; the real numbers
        that those of the rows are read as."""
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
        # What spreads codes that lie on a bound: alike whenever a fit reads them.
        noise = np.random.RandomState((self._seed + _epochs_before(previous)) % 2**32)
        if previous is None:
            limits = limits_of(self.support, codes, unwrapped(autoencoder))
            weight, _ = scaled_weight(sample_weight)
            first = np.random.RandomState(self._seed % 2**32)
            self._units = CodeUnits.of(codes, weight, limits, first)
            self._support = public_support(limits)
            if streaming and np.ptp(codes, axis=0).max() == 0:
                raise ValueError(
                    f"The first batch of a stream has {len(codes)} rows with codes that are all "
                    "alike; it says in which units codes are read. Give two or more rows that "
                    "differ."
                )
            self._check_decodes(codes[:1])
        else:
            self._units, self._support = previous._units, previous._support
            if codes.shape[1] != len(self._units.varies):
                raise ValueError(
                    f"The autoencoder now has {codes.shape[1]} codes, but training goes on from "
                    f"{len(self._units.varies)}. Fit anew, with warm_start=False."
                )
            self._units.check_constant(codes)
            self._units.check_inside(codes, "autoencoder's new codes")
        self.n_components_ = codes.shape[1]
        self.support_ = self._support
        return self._units.real(codes, noise)

    @property
    def net_(self) -> Net:
        """The trained net of a density that a network learns."""
        density = vars(self).get("density_")
        if not isinstance(density, NetworkDensity):
            raise AttributeError(f"{type(self).__name__!r} object has no attribute 'net_'")
        return density.trainer.net

    @property
    def n_mixture_(self) -> int:
        """Components of each conditional."""
        return self._size("n_mixture")

    @property
    def n_channels_(self) -> int:
        """Numbers at each position of the causal network; width of the hidden layers of "flow"."""
        return self._size("n_channels")

    def _size(self, name: str) -> int:
        settings = vars(self).get("_settings", {})
        if name not in settings:
            raise AttributeError(f"{type(self).__name__!r} object has no attribute '{name}_'")
        return int(settings[name])

    @property
    def history_(self) -> list[dict[str, Any]]:
        """The losses of every epoch, in nats per row."""
        return self.net_.history

    # ------------------------------------------------------------------- the codes

    def _log_density(self, codes: Array) -> NDArray[np.float64]:
        """log p(z) of codes, nats."""
        return self._units.log_density(self._log_density_of_real(self._units.real(codes)), codes)

    def _log_density_of_real(self, real: Array) -> NDArray[np.float64]:
        return np.asarray(self.density_.score_samples(real), dtype=np.float64)

    def _draw_codes(
        self, n: int, rng: np.random.RandomState, given: ArrayLike | None = None
    ) -> Array:
        known = None if given is None else self._given(given, n)
        if isinstance(self.density_, NetworkDensity):
            return self._units.codes_of(self.density_.sample(n, rng, known))
        n_free = self._units.n_free
        drawn = draw_from(self.density_, n, n_free, rng, name="density", dtype=np.float64)
        return self._units.codes_of(drawn)

    def _given(self, given: ArrayLike, n: int) -> Array:
        """The first of the real numbers of n rows, where the first codes are given."""
        kind = self._settings["density"]
        if kind != "autoregressive":
            kind = self.density_ if kind == "own" else kind
            raise ValueError(f"given goes with density='autoregressive'; this is density={kind!r}.")
        orderings = self._settings["orderings"]
        if orderings != 1:
            raise ValueError(
                f"given goes with orderings=1, in which the given codes come first; this is "
                f"orderings={orderings!r}."
            )
        return self._units.given(given, n)

    @available_if(_can_stream)
    @fit_context
    def partial_fit(
        self, X: ArrayLike, y: object = None, sample_weight: ArrayLike | None = None
    ) -> Self:
        """Train the density for one epoch over these rows, going on from earlier calls.

        An autoencoder with a `partial_fit` goes on, too; a frozen one stays as it is. The first
        call fixes the units in which codes are read.

        Parameters
        ----------
        X : array-like of shape (n_samples, n_features)
            A batch of rows, of any length; it is cut into batches of `batch_size`.
        y : array-like of shape (n_samples,) or (n_samples, n_targets), default=None
            Targets for an autoencoder that needs them.
        sample_weight : array-like of shape (n_samples,), default=None
            How often each row counts.

        Returns
        -------
        self : object
            The estimator.

        Raises
        ------
        AttributeError
            If the autoencoder cannot go on, or the density is one of scikit-learn's.
        ValueError
            If the rows are not allowed: in the first call, if their codes are all alike; later,
            if a code varies that did not in the first. The batch is then as if it had not
            been given.
        """
        with inside_another_fit(), all_or_nothing(self):
            previous = BaseAutoencoder.__copy__(self) if "density_" in vars(self) else None
            rows = self._check_rows(X, reset=previous is None)
            weight = check_weight(sample_weight, rows)
            targets = self._check_targets(y, rows.shape[0])
            rows, weight, targets = self._rows_that_count(rows, weight, targets)
            rng = self._generator()
            real = self._learn_codes(rows, weight, targets, previous, rng, streaming=True)
            self.density_ = self._network_density(previous).partial_fit(real, weight)
            self.n_iter_ = self.density_.trainer.n_epochs
            if looks_again(self.n_iter_):
                self._learn_proposal(rows)
        return self

    # ------------------------------------------------------------- codes and their density

    def _log_code_prob(self, Z: Array) -> Array:
        scores: Array = self._log_density(Z).astype(Z.dtype)
        return scores

    def sample_latent(
        self,
        n_samples: int = 1,
        *,
        given: ArrayLike | None = None,
        random_state: int | np.random.RandomState | None = None,
    ) -> Array:
        """Draw codes from p(z).

        Parameters
        ----------
        n_samples : int, default=1
            How many codes to draw.
        given : array-like of shape (n_given,) or (n_samples, n_given), default=None
            The first codes, the same for all rows or those of each; the others are drawn
            given them (`density="autoregressive"` and `orderings=1` only).
        random_state : int, RandomState instance or None, default=None
            Seed of the draw. None takes fresh entropy, so that two calls differ.

        Returns
        -------
        Z : ndarray of shape (n_samples, n_codes)
            The codes.

        Raises
        ------
        ValueError
            If `n_samples` is not a positive integer, or `given` are no codes, too many, or go
            with another density.
        """
        self._check_sample_arguments(n_samples, True)
        return self._draw_codes(n_samples, private_generator(random_state), given)

    def sample(
        self,
        n_samples: int = 1,
        *,
        given: ArrayLike | None = None,
        noise: bool = True,
        random_state: int | np.random.RandomState | None = None,
    ) -> Any:
        """Draw codes from their density, and decode them.

        Parameters
        ----------
        n_samples : int, default=1
            How many rows to draw.
        given : array-like of shape (n_given,) or (n_samples, n_given), default=None
            The first codes, the same for all rows or those of each; the others are drawn
            given them (`density="autoregressive"` and `orderings=1` only).
        noise : bool, default=True
            Draw from p(x|z), if the autoencoder is itself one of skae's, or frozen; False
            returns its means.
        random_state : int, RandomState instance or None, default=None
            Seed of the draw. None takes fresh entropy, so that two calls differ.

        Returns
        -------
        X_new : ndarray of shape (n_samples, n_features)
            The drawn rows; a data frame with the columns of the training data under
            `set_output`.

        Raises
        ------
        ValueError
            If `n_samples` is not a positive integer, or `given` are no codes, too many, or go
            with another density.

        Examples
        --------
        >>> from sklearn.datasets import load_digits
        >>> from skae import LatentDensityEstimator
        >>> X, _ = load_digits(return_X_y=True)
        >>> lde = LatentDensityEstimator(n_components=4, max_iter=2, random_state=0).fit(X)
        >>> first = lde.transform(X[:1])[:, :2]
        >>> lde.sample(3, given=first, random_state=0).shape
        (3, 64)
        """
        self._check_sample_arguments(n_samples, noise)
        rng = private_generator(random_state)
        codes = self._draw_codes(n_samples, rng, given)
        return self._rows_out(self._generate(codes, rng, noise))

    # -------------------------------------------------------------- scores of the data

    def _check_scores_data(self) -> None:
        if self._row_likelihood() is None:
            raise AttributeError(
                "data_score_samples needs an autoencoder with a p(x|z): Autoencoder, "
                "AdversarialAE or a VAE that is not conditional, itself or in FrozenEstimator; "
                f"given autoencoder={self.autoencoder!r}."
            )

    def _importance_sampling(self) -> tuple[RowLikelihood, Proposal, LogPrior]:
        explains = self._row_likelihood()
        assert explains is not None
        return explains, *self._proposal(self._proposal_tau)

    def _proposal(self, tau: float) -> tuple[Proposal, LogPrior]:
        """Where draws around a code are, and p(z) of them: of codes, or of what is read of
        those that have bounds."""
        units = self._units
        if units.support is None:
            return Proposal(units.stds(), tau), on_arrays(self._log_density)
        to_real = on_arrays(units.standardised, rowwise=False)
        from_real = on_arrays(units.restored, rowwise=False)
        log_prior = on_arrays(self._log_density_of_standardised)
        return Proposal(np.ones(units.n_free), tau, to_real, from_real), log_prior

    def _learn_proposal(self, X: Array) -> None:
        """The width of the proposal, where rows have a p(x|z)."""
        explains = self._row_likelihood()
        if explains is not None:
            proposal, log_prior = self._proposal(1.0)
            self._proposal_tau = proposal_width(explains, X, log_prior, proposal)

    def _log_density_of_standardised(self, z: Array) -> NDArray[np.float64]:
        real = z.astype(np.float64) * self._units.scale + self._units.center
        return self._log_density_of_real(real) + self._units.log_volume()

    # ------------------------------------------------------------------- the hooks

    def _log_prob(self, X: Array) -> Array:
        codes = self._encode(X)
        scores: Array = self._log_density(codes).astype(codes.dtype)
        return scores

    def _draw(self, n_samples: int, rng: np.random.RandomState, noise: bool) -> Array:
        return self._generate(self._draw_codes(n_samples, rng), rng, noise)

    # ------------------------------------------------------------------- validation

    def _check_rows(self, X: Any, *, reset: bool, min_rows: int = 1) -> Any:
        if reset:
            self._check_parameters()
        return super()._check_rows(X, reset=reset, min_rows=min_rows)

    # ----------------------------------------------------------------------- files

    def __copy__(self) -> Self:
        """A copy with a network of its own."""
        new = super().__copy__()
        if isinstance(vars(self).get("density_"), NetworkDensity):
            new.density_ = copy.copy(self.density_)
        return new

    def __getstate__(self) -> dict[str, Any]:
        """A network and the units of codes as plain values."""
        state = super().__getstate__()
        if "_units" in state:
            state["_units"] = self._units.state()
        if isinstance(state.get("density_"), NetworkDensity):
            state["net_"] = state.pop("density_").trainer.state()
        return state

    def __setstate__(self, state: dict[str, Any]) -> None:
        unknown: dict[str, Any] = {"support": None}  # to files of version 0.1.0
        if is_of_other_versions(state):
            state = without_unused_defaults(state)
        if "_units" in state:
            unknown["_support"] = None
        is_old = "_plan" in state
        state = {"_settings" if name == "_plan" else name: v for name, v in state.items()}
        rows, tau = state.pop("_proposal_rows", None), state.get("_proposal_tau")
        super().__setstate__(unknown | state)
        if isinstance(vars(self).get("_units"), dict):
            self._units = CodeUnits.of_state(vars(self)["_units"])
        if (is_old or is_of_other_versions(state)) and "_settings" in self.__dict__:
            # Fingerprints of other versions cannot be compared with those of today.
            self._settings |= fingerprints(self)
        net = self.__dict__.pop("net_", None)
        if net is not None:
            self.density_ = self._network_density(None).restore(net)
        if rows is not None and tau is None:
            self._learn_proposal(rows)


def _epochs_before(previous: LatentDensityEstimator | None) -> int:
    """How many epochs a network was trained before."""
    density = None if previous is None else previous.density_
    return density.trainer.n_epochs if isinstance(density, NetworkDensity) else 0
