"""The Helmholtz machine: binary latent units with a generative and a recognition network.

References
----------
P. Dayan, G. E. Hinton, R. M. Neal and R. S. Zemel (1995). The Helmholtz machine. Neural
Computation 7. :doi:`10.1162/neco.1995.7.5.889`

G. E. Hinton, P. Dayan, B. J. Frey and R. M. Neal (1995). The "wake-sleep" algorithm for
unsupervised neural networks. Science 268. :doi:`10.1126/science.7761831`

J. Bornschein and Y. Bengio (2015). Reweighted wake-sleep. ICLR.
:doi:`10.48550/arXiv.1406.2751`
"""

from __future__ import annotations

from collections.abc import Mapping
from math import ceil
from numbers import Integral, Real
from os import PathLike
from typing import Any, ClassVar, Literal, Self, overload

import numpy as np
import torch
from numpy.typing import ArrayLike, NDArray
from torch import Tensor

from skae._free_energy import FreeEnergyMixin
from skae._inference.helmholtz import (
    column_scores,
    drawn,
    importance_bounds,
    wide_type,
)
from skae._inference.row_draws import RowDraws
from skae._latent_samples import LatentSamplesMixin
from skae._modules.helmholtz import ALGORITHMS, HelmholtzArchitecture, HelmholtzModule
from skae._network_autoencoder import NetworkAutoencoder
from skae._tables.kinds import holds_categories
from skae._training.data import Data, Dataset, chunks
from skae._training.trainer import slices
from skae._utils.sparse_rows import Rows, SparseRows, dense
from skae._utils.types import (
    ArrayOrFrame,
    HelmholtzLikelihood,
    LayerSizes,
    LearningRate,
    NoiseVariance,
    Precision,
    RandomState,
)
from skae._utils.validation import Interval, StrOptions, private_generator
from skae._utils.warning import warn

Array = NDArray[Any]

_COUNT = Interval(Integral, 1, None, closed="left")
# Default number of particles of the algorithms that compare several.
_PARTICLES = 10
# Default number of draws of the units for each row in scores.
_N_IMPORTANCE = 100
# Draws of h from which the noise variance is learned: in total, and at most for each row.
_NOISE_DRAWS, _MOST_DRAWS = 10_000, 100


class HelmholtzMachine(FreeEnergyMixin, LatentSamplesMixin, NetworkAutoencoder):
    """Helmholtz machine with layers of binary units, a generative and a recognition network.

    The generative network goes from the top layer down to the row,
    p(x, h) = p(h_L) p(h_{L-1}|h_L) ... p(x|h_1). The recognition network goes from the row up to
    the top layer, q(h|x) = q(h_1|x) ... q(h_L|h_{L-1}), and approximates p(h|x). The units of a
    layer are independent given the layer on which they depend, and are 1 with probability
    σ(W h + b). There are three algorithms to train the networks.

    "wake-sleep" (Hinton et al. 1995) trains each network on draws of the other. In the wake phase,
    the generative network is fitted to the units that the recognition network draws for the rows.
    In the sleep phase, the recognition network is fitted to the units from which the generative
    network drew rows. Each update is a delta rule for one layer (for Gaussian rows times their
    noise variance); `solver="sgd"` with `momentum=0` gives the rule of the paper. The updates do
    not minimise a common objective.

    "reweighted" (Bornschein & Bengio 2015) draws several particles h for each row from q(h|x) and
    weights them by w = p(x, h) / q(h|x). The weighted particles train both networks; the
    recognition network is also trained in a sleep phase. The generative network maximises an
    importance-weighted lower bound. The cost of training grows with the number of particles. This
    algorithm usually finds better models than the others.

    "free-energy" minimises the variational free energy F = E_q[-log p(x, h)] - H(q) with unbiased
    estimates of its gradient. The gradient of the recognition network is the REINFORCE estimator,
    in which the other particles of the row give the baseline (Mnih & Gregor 2014).

    Binary units need large weights, and therefore large learning rates. For a few thousand rows,
    use `learning_rate="cosine"` with a `learning_rate_init` of 0.05 to 0.2. See the page
    "HelmholtzMachine" of the documentation.

    Tables with numeric, categorical and count columns and missing values can be given directly,
    with `likelihood="auto"` or a mapping from columns to likelihoods. `reconstruct`, `sample` and
    `impute` then return tables with the same columns, types and categories. See the page "Tables
    with categories" of the documentation.

    Parameters
    ----------
    n_components : int, default=10
        Number of units of the top layer.
    hidden_layer_sizes : array-like of int or int, default=()
        Number of units in each layer between the rows and the top layer, starting at the rows.
    algorithm : {"wake-sleep", "reweighted", "free-energy"}, default="wake-sleep"
        How the networks are trained, as described above.
    n_particles : int, default=None
        Number of draws from q(h|x) for each row in a training step. "free-energy" needs at least 2.
        None takes 1 for "wake-sleep" and 10 for the other algorithms.
    likelihood : {"auto", "bernoulli", "gaussian", "categorical"} or mapping, default="auto"
        Likelihood p(x|h) of a row given the first layer of units. With "auto", rows that contain
        only 0 and 1 get a Bernoulli likelihood; all other rows get a Gaussian likelihood with a
        noise variance. "bernoulli" also accepts values between 0 and 1. They are taken as
        probabilities, from which binary rows are drawn in every epoch. For tables, every column has
        its own likelihood. "auto" chooses it by the type and the values of the column if there is a
        categorical column; a mapping from column names or indices to likelihoods may also contain
        "laplace", "continuous_bernoulli" and "poisson"; "categorical" makes all columns
        categorical. `partial_fit` and `warm_start` keep the likelihood that "auto" chose for the
        first rows.
    noise_variance : {"scalar", "per_feature"} or float, default="scalar"
        Noise variance of the "gaussian" likelihood. It is learned, either one value for all
        features ("scalar") or one for each ("per_feature"), and is at least 1e-4 times the mean
        variance of the features; a float fixes it, in squared units of X. In a table every numeric
        column has its own noise variance. It is learned, and at least 1e-4 times the variance of
        the column; a float is a fraction of the variance of the column.
    positive : bool, default=False
        Whether the weights from the first layer of units to the rows are not negative. A unit that
        is 1 can then only raise features (for binary rows their logits), so that units represent
        parts of rows.
    layerwise_fraction : float in [0, 1], default=0.0
        Fraction of the epochs in which layers are added one by one, from the lowest to the top. The
        units of the highest layer so far are independent (greedy training). With 0, all layers are
        trained from the start. `tol` and early stopping end training only after all are added.
    missing : {"mask", "error"}, default="mask"
        With "mask", NaN marks a missing value. Missing values are left out of the likelihood. The
        encoder reads the mean of the feature in their place, and also a mask of the observed values
        if the training rows had NaN. With "error", NaN raises a ValueError.
    handle_unknown : {"error", "missing"}, default="error"
        How categories of a table that did not occur in `fit` are handled: "error" raises a
        ValueError, "missing" treats them as missing values.
    solver : {"adam", "adamw", "sgd"}, default="adam"
        Optimiser.
    alpha : float, default=0.0
        Strength of the L2 penalty on the weights. For "adamw" it is the decoupled weight decay.
    batch_size : int, default=128
        Number of rows in each step of the optimiser.
    learning_rate : {"constant", "cosine", "invscaling", "adaptive"}, default="constant"
        Schedule of the learning rate. "cosine" rises during the first tenth of the epochs and then
        falls to zero. "invscaling" divides by the square root of the epoch. "adaptive" divides by 5
        whenever the loss has not improved for two epochs.
    learning_rate_init : float, default=1e-2
        Largest learning rate of the schedule.
    momentum : float in [0, 1), default=0.9
        Nesterov momentum of "sgd".
    weight_averaging : float in [0, 1), default=0.0
        Decay of an exponential moving average of the weights over training steps. The fitted model
        has the averaged weights. With 0, it has the latest weights.
    max_iter : int, default=200
        Number of epochs.
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
        Losses of each epoch, in nats per row. `train_loss` is the free energy, the sum of
        `train_energy` and `train_neg_entropy`. For "reweighted" it is the negative
        importance-weighted bound. Algorithms with a sleep phase also have `train_sleep`, the mean
        of -log q(h|x) for rows x and units h drawn from the generative network.
    n_iter_ : int
        Number of epochs of training.
    n_components_ : int
        Number of units of the top layer.
    likelihood_ : {"bernoulli", "gaussian", "mixed"}
        Likelihood in use; "mixed" for tables.
    noise_variance_ : float or ndarray of shape (n_features,)
        Noise variance in squared units of X; None for likelihoods without one. For tables, an array
        with one value for each column, and NaN for columns without noise variance.
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
    VAE : Autoencoder with Gaussian latents.
    sklearn.neural_network.BernoulliRBM : Undirected model with binary units.

    References
    ----------
    P. Dayan, G. E. Hinton, R. M. Neal and R. S. Zemel (1995). The Helmholtz machine.
    Neural Computation 7. :doi:`10.1162/neco.1995.7.5.889`

    G. E. Hinton, P. Dayan, B. J. Frey and R. M. Neal (1995). The "wake-sleep" algorithm
    for unsupervised neural networks. Science 268. :doi:`10.1126/science.7761831`

    J. Bornschein and Y. Bengio (2015). Reweighted wake-sleep. ICLR.
    :doi:`10.48550/arXiv.1406.2751`

    A. Mnih and K. Gregor (2014). Neural variational inference and learning in belief
    networks. ICML. :doi:`10.48550/arXiv.1402.0030`

    Examples
    --------
    >>> from skae import HelmholtzMachine
    >>> from skae.datasets import make_shift_patterns
    >>> X, direction = make_shift_patterns(1000, random_state=0)
    >>> machine = HelmholtzMachine(2, hidden_layer_sizes=(16,), max_iter=20, random_state=0)
    >>> machine.fit(X).transform(X).shape
    (1000, 2)
    >>> machine.sample(3, random_state=0).shape
    (3, 32)
    >>> machine.likelihood_, machine.score_kind
    ('bernoulli', 'lower_bound')
    """

    score_kind = "lower_bound"

    _Architecture = HelmholtzArchitecture

    _architecture: HelmholtzArchitecture

    _parameter_constraints: ClassVar[dict[str, list[Any]]] = {
        **NetworkAutoencoder._parameter_constraints,
        "algorithm": [StrOptions(set(ALGORITHMS))],
        "n_particles": [_COUNT, None],
        "positive": ["boolean"],
        "layerwise_fraction": [Interval(Real, 0, 1, closed="both")],
        "likelihood": [StrOptions({"auto", "bernoulli", "gaussian", "categorical"}), Mapping],
        "solver": [StrOptions({"adam", "adamw", "sgd"})],
    }

    def __init__(
        self,
        n_components: int = 10,
        *,
        hidden_layer_sizes: LayerSizes = (),
        algorithm: Literal["wake-sleep", "reweighted", "free-energy"] = "wake-sleep",
        n_particles: int | None = None,
        likelihood: HelmholtzLikelihood = "auto",
        noise_variance: NoiseVariance = "scalar",
        positive: bool = False,
        layerwise_fraction: float = 0.0,
        missing: Literal["mask", "error"] = "mask",
        handle_unknown: Literal["error", "missing"] = "error",
        solver: Literal["adam", "adamw", "sgd"] = "adam",
        alpha: float = 0.0,
        batch_size: int = 128,
        learning_rate: LearningRate = "constant",
        learning_rate_init: float = 1e-2,
        momentum: float = 0.9,
        weight_averaging: float = 0.0,
        max_iter: int = 200,
        tol: float = 0.0,
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
        self.algorithm = algorithm
        self.n_particles = n_particles
        self.likelihood = likelihood
        self.noise_variance = noise_variance
        self.positive = positive
        self.layerwise_fraction = layerwise_fraction
        self.missing = missing
        self.handle_unknown = handle_unknown
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

    def __setstate__(self, state: dict[str, Any]) -> None:
        later = {"positive": False, "layerwise_fraction": 0.0}  # earlier files lack them
        super().__setstate__(later | state)

    # -------------------------------------------------------------------- learning

    def _check_parameters(self, n_features: int) -> None:
        super()._check_parameters(n_features)
        if self.algorithm == "free-energy" and self.n_particles == 1:
            raise ValueError(
                "n_particles=1 is not allowed with algorithm='free-energy', which compares "
                "particles with each other. Set n_particles to 2 or more."
            )
        if self.likelihood_ == "bernoulli" and self.noise_variance != "scalar":
            why = " because all values are 0 or 1" if self.likelihood == "auto" else ""
            raise ValueError(
                f"noise_variance={self.noise_variance!r} can be set for likelihood='gaussian' "
                f"only. The likelihood is 'bernoulli'{why}, and has no noise variance."
            )

    def _begin(
        self,
        X: Rows,
        sample_weight: Array | None,
        y: Array | None,
        previous: Self | None,
        rng: np.random.RandomState,
    ) -> Data:
        """Choose the likelihood if `likelihood="auto"`; then as in the base class."""
        binary = is_binary(X)
        if "_table" in vars(self):
            self.likelihood_ = "mixed"
        elif self.likelihood == "auto":
            before = None if previous is None else previous._architecture.likelihood
            self.likelihood_ = before or ("bernoulli" if binary else "gaussian")
        else:
            self.likelihood_ = self.likelihood
        self._binarised = self.likelihood_ == "bernoulli" and not binary
        return super()._begin(X, sample_weight, y, previous, rng)

    def _has_kinds(self, X: Any) -> bool:
        """Whether each column has its own likelihood: with "auto", if a column is categorical."""
        if self.likelihood != "auto":
            return super()._has_kinds(X)
        return holds_categories(X)

    def __sklearn_tags__(self) -> Any:
        tags = super().__sklearn_tags__()
        tags.input_tags.sparse |= self.likelihood == "auto"  # rows of numbers are no table
        return tags

    def _check_support(self, low: Tensor, high: Tensor) -> None:
        """As in the base class; the message explains a likelihood that "auto" chose."""
        try:
            super()._check_support(low, high)
        except ValueError as error:
            if self.likelihood != "auto" or "_table" in vars(self):
                raise
            raise ValueError(
                f"{error} likelihood='auto' chose it because all values in fit were 0 or 1. Fit "
                "again with likelihood='gaussian'."
            ) from None

    def _derived_fields(self) -> dict[str, Any]:
        n_particles = self.n_particles or (1 if self.algorithm == "wake-sleep" else _PARTICLES)
        return {
            "n_particles": int(n_particles),
            "likelihood": self.likelihood_,
            "binarised": self._binarised,
            "layerwise_epochs": ceil(self.layerwise_fraction * (self.max_iter or 0)),
        }

    def _make_module(self, generator: torch.Generator) -> HelmholtzModule:
        return HelmholtzModule(self._architecture.make_likelihood(), self._architecture, generator)

    def _first_epoch_to_stop(self) -> int:
        return self._architecture.layerwise_epochs

    def _check_trained(self, rows: Dataset) -> None:
        super()._check_trained(rows)
        n_layers, n_trained = len(self._architecture.layer_sizes), self._trainer.module.n_trained
        if n_trained < n_layers:
            warn(
                f"Training ended after {self.n_iter_} epochs, before all layers were added: "
                f"{n_trained} of {n_layers} layers are trained. Raise max_iter or lower "
                f"layerwise_fraction (now {self.layerwise_fraction})."
            )

    def _learn_from_outputs(self, rows: Dataset, weight: float) -> Array:
        codes = self._encode(rows.data.X)
        self._check_codes_are_finite(codes)
        n_draws = self._architecture.n_particles
        if self._architecture.algorithm != "reweighted" and weight == 1:
            n_draws = min(_MOST_DRAWS, ceil(_NOISE_DRAWS / len(rows)))
        self._learn_noise_of_draws(rows, weight, n_draws, drawn)
        return codes

    # ------------------------------------------------------- recognition, generation

    @overload
    def transform(self, X: ArrayLike, layer: Literal["top"] = "top") -> ArrayOrFrame: ...

    @overload
    def transform(self, X: ArrayLike, layer: Literal["all"]) -> tuple[ArrayOrFrame, ...]: ...

    def transform(
        self, X: ArrayLike, layer: Literal["top", "all"] = "top"
    ) -> ArrayOrFrame | tuple[ArrayOrFrame, ...]:
        """Probabilities of the units, given rows.

        The probabilities of the first layer are the means of q(h_1|x). For each further layer, the
        recognition network reads the probabilities of the layer below in place of its binary units
        (mean field). These are therefore approximations of the means of q(h|x).

        Parameters
        ----------
        X : array-like of shape (n_samples, n_features)
            Rows to encode.
        layer : {"top", "all"}, default="top"
            Whether to return the top layer or all layers.

        Returns
        -------
        Z : ndarray of shape (n_samples, n_components), or tuple of ndarray
            Probabilities of the units of the top layer. With `layer="all"`, a tuple of the
            probabilities of each layer, (n_samples, n_units), from the top down.

        Raises
        ------
        ValueError
            If a value has probability zero under the likelihood, or if `layer` is not allowed.
        """
        rows = self._check_new_rows(X, "transform")
        self._check_argument("layer", layer, [StrOptions({"top", "all"})])
        if layer == "top":
            return self._encode(rows)
        both = self._recognised(rows, slice(None))
        sizes = self._architecture.layer_sizes
        layers = np.split(both, np.cumsum(sizes)[:-1], axis=1)
        names = [[f"layer{i + 1}_{j}" for j in range(n)] for i, n in enumerate(sizes[:-1])]
        named = zip(layers, [*names, self.get_feature_names_out()], strict=True)
        return tuple(self._to_frame(z, X, n) for z, n in named)[::-1]

    def _draw_latent(self, n_samples: int, rng: np.random.RandomState) -> Array:
        chance = torch.sigmoid(self.net_.module_.prior_logit.detach()).cpu().numpy()
        uniform = rng.random_sample((n_samples, len(chance)))
        return (uniform < chance).astype(np.float32)

    @overload
    def dream(
        self,
        n_samples: int = ...,
        *,
        return_layers: Literal[False] = ...,
        random_state: RandomState = ...,
    ) -> ArrayOrFrame: ...

    @overload
    def dream(
        self,
        n_samples: int = ...,
        *,
        return_layers: Literal[True],
        random_state: RandomState = ...,
    ) -> tuple[ArrayOrFrame, tuple[Array, ...]]: ...

    def dream(
        self,
        n_samples: int = 1,
        *,
        return_layers: bool = False,
        random_state: RandomState = None,
    ) -> ArrayOrFrame | tuple[ArrayOrFrame, tuple[Array, ...]]:
        """Draw rows like `sample`, and optionally return the units that generated them.

        Parameters
        ----------
        n_samples : int, default=1
            Number of rows to draw.
        return_layers : bool, default=False
            Whether to return the units of the layers, in addition to the rows.
        random_state : int, RandomState instance or None, default=None
            Seed of the draw. With None, every call draws other rows.

        Returns
        -------
        X_new : ndarray of shape (n_samples, n_features)
            The rows. They equal those of `sample` with the same seed. `set_output` makes them
            a data frame.
        layers : tuple of ndarray
            Binary units of each layer, (n_samples, n_units), from the top down. Only with
            `return_layers=True`.

        Raises
        ------
        ValueError
            If `n_samples` is not a positive integer.
        """
        self._check_sample_arguments(n_samples, True)
        self._check_argument("return_layers", return_layers, ["boolean"])
        rows, layers = self._dreamt(int(n_samples), private_generator(random_state), noise=True)
        frame = self._rows_out(rows)
        return (frame, layers) if return_layers else frame

    # --------------------------------------------------------------------- density

    def score_samples(self, X: ArrayLike, *, n_importance: int = 100) -> Array:
        """Importance-weighted lower bound on log p(x), in nats.

        The bound is log 1/K sum_k p(x, h_k) / q(h_k|x) with draws h_k ~ q(h|x). Its expectation is
        at most log p(x), and approaches log p(x) as K grows; the estimate for a single row may be
        larger than log p(x). The draws depend only on the fitted model and on the row, so that a
        row has the same score in every call and beside any other rows.

        Under "bernoulli", a value x between 0 and 1 contributes x log λ + (1 - x) log(1 - λ), with
        the mean λ of p(x|h). This is the expected log p(x|h) of binary rows drawn with these values
        as probabilities, and the score is a bound on the mean log p(x) of such rows.

        Parameters
        ----------
        X : array-like of shape (n_samples, n_features)
            Rows to score. Missing values (NaN) are ignored.
        n_importance : int, default=100
            Number K of draws for each row. K = 1 is an estimate of the negative free energy
            from one draw.

        Returns
        -------
        scores : ndarray of shape (n_samples,)
            Score of each row in nats.

        Raises
        ------
        ValueError
            If `n_importance` is not a positive integer, or if a value has probability zero
            under the likelihood.
        """
        data = self._to_score(X, "score_samples")
        self._check_argument("n_importance", n_importance, [_COUNT])
        return self._bounds(data, n_importance)

    def _to_score(self, X: ArrayLike, method: str) -> Data:
        rows = self._check_new_rows(X, method)
        self._check_range(rows)
        return Data(rows)

    def _row_draws(self, n_draws: int) -> RowDraws:
        """Draws of h for each row, the same in every call."""
        device, architecture = self._trainer.device, self._architecture
        return RowDraws(
            int(n_draws),
            architecture.n_units,
            self._seed + 3,
            device,
            n_read=architecture.n_read,
            dtype=wide_type(device),
        )

    # ------------------------------------------------------------------- the hooks

    def _encode(self, X: Rows) -> Array:
        return self._recognised(X, slice(-self.n_components_, None))

    def _recognised(self, X: Rows, units: slice) -> Array:
        """Probabilities of a slice of all units; the first units are those next to the rows."""
        self._check_range(X)
        module = self._trainer.module
        width = len(range(self._architecture.n_units)[units])

        def probabilities(batch: Any) -> Tensor:
            found = module.probabilities(batch.x)
            return torch.cat(found, 1)[:, units]

        return self._map_rows(Data(X), probabilities, width)

    def _decode(self, Z: Array) -> Array:
        module = self._trainer.module
        return self._map_codes(Z, lambda z: module.likelihood.mean(module.output(z)))

    def _log_prob(self, X: Rows) -> Array:
        self._check_range(X)
        return self._bounds(Data(X), _N_IMPORTANCE)

    def _scores(self, data: Data) -> Array:
        return self._bounds(data, 1)

    def _bounds(self, data: Data, n_importance: int) -> Array:
        with self._trainer.inference(len(data.X) * n_importance):
            draws = self._row_draws(n_importance)
            return importance_bounds(self._trainer.module, self._dataset(data), draws)

    def _column_scores(self, data: Data) -> Array:
        with self._trainer.inference(len(data.X) * _N_IMPORTANCE):
            draws = self._row_draws(_N_IMPORTANCE)
            return column_scores(self._trainer.module, self._dataset(data), draws)

    def _draw(self, n_samples: int, rng: np.random.RandomState, noise: bool) -> Array:
        return self._dreamt(n_samples, rng, noise)[0]

    def _dreamt(
        self, n_samples: int, rng: np.random.RandomState, noise: bool
    ) -> tuple[Array, tuple[Array, ...]]:
        """Rows (or their means) and the units of the layers, from the top down."""
        module, generator = self._trainer.module, self._trainer.generator(rng)
        rows = np.empty((n_samples, self.n_features_in_), dtype=self._architecture.row_dtype)
        layers = [
            np.empty((n_samples, n), dtype=np.float32) for n in self._architecture.layer_sizes
        ]
        with self._trainer.inference(n_samples):
            for part in slices(n_samples):
                shape = (part.stop - part.start, self._architecture.n_units)
                uniform = torch.rand(shape, generator=generator, device=generator.device)
                states, output = module.dream(uniform)
                rows[part] = self._in_data_units(self._explained(output, generator, noise))
                for layer, units in zip(layers, states, strict=True):
                    layer[part] = units.cpu().numpy()
        return rows, tuple(layers[::-1])

    def _generate(self, Z: Array, rng: np.random.RandomState, noise: bool) -> Array:
        if not noise:
            return self._decode(Z)
        module, generator = self._trainer.module, self._trainer.generator(rng)

        def draw(z: Tensor) -> Tensor:
            shape = (len(z), self._architecture.n_units)
            uniform = torch.rand(shape, generator=generator, device=generator.device)
            return self._explained(module.dream(uniform, z).output, generator, noise)

        return self._map_codes(Z, draw)

    def _explained(self, output: Tensor, generator: torch.Generator, noise: bool) -> Tensor:
        likelihood = self._trainer.module.likelihood
        return likelihood.draw(output, generator) if noise else likelihood.mean(output)


def is_binary(X: Rows) -> bool:
    """Whether all observed values are 0 or 1."""
    if X.dtype == bool:
        return True
    if isinstance(X, SparseRows):
        X = X.values[:, None]
    for part in chunks(len(X), X.shape[1] * X.itemsize):
        x = dense(X[part])
        if not ((x == 0) | (x == 1) | (x != x)).all():
            return False
    return True
