"""The Helmholtz machine: layers of binary units that explain rows, and layers that recognise them.

References
----------
P. Dayan, G. E. Hinton, R. M. Neal and R. S. Zemel (1995). The Helmholtz machine. Neural
Computation 7. :doi:`10.1162/neco.1995.7.5.889`

G. E. Hinton, P. Dayan, B. J. Frey and R. M. Neal (1995). The "wake-sleep" algorithm for
unsupervised neural networks. Science 268. :doi:`10.1126/science.7761831`

J. Bornschein and Y. Bengio (2015). Reweighted wake-sleep. ICLR.
:doi:`10.48550/arXiv.1406.2751`
"""

from collections.abc import Mapping
from math import ceil
from numbers import Integral
from typing import Any, ClassVar, NamedTuple, Self

import numpy as np
import torch
from numpy.typing import ArrayLike, NDArray
from torch import Tensor

from skae._inference.helmholtz import (
    MAX_UNITS,
    Enumeration,
    column_scores,
    drawn,
    drawn_terms,
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
from skae._utils.validation import Interval, StrOptions, private_generator

Array = NDArray[Any]

_COUNT = Interval(Integral, 1, None, closed="left")
# Particles of the algorithms that compare some, where none are asked for.
_PARTICLES = 10
# Draws of units, for each row, where scores are not told how many.
_N_IMPORTANCE = 100
# Draws of h in all, and at most for each row, that the noise is learned from.
_NOISE_DRAWS, _MOST_DRAWS = 10_000, 100


class FreeEnergyTerms(NamedTuple):
    """F = energy - entropy, of every row; nats."""

    energy: NDArray[Any]
    entropy: NDArray[Any]


class HelmholtzMachine(LatentSamplesMixin, NetworkAutoencoder):
    """A Helmholtz machine: binary units in layers, with a network down and a network up.

    Units of a layer are independent given the layer they are drawn from. Generation goes
    down from the top layer to the row, p(x, h) = p(h_L) p(h_{L-1}|h_L) ... p(x|h_1),
    recognition up, q(h|x) = q(h_1|x) ... q(h_L|h_{L-1}), each by probabilities σ(W h + b).
    Three ways to train them:

    "wake-sleep" (Hinton et al. 1995) fits each network to draws of the other: awake,
    generation to units that rows were recognised as; asleep, recognition to units that a
    dreamt row was generated from. Its updates are local, a delta rule for each layer (the
    plain one with `solver="sgd"` and `momentum=0`, for Gaussian rows times their noise
    variance). They do not descend one objective.

    "reweighted" (Bornschein & Bengio 2015) recognises each row several times and weighs
    these particles by w = p(x, h) / q(h|x), for both networks awake, and learns asleep, too.
    Generation ascends an importance-weighted bound. It costs as many times more as there are
    particles, and finds the better models.

    "free-energy" descends F = E_q[-log p(x, h)] - H(q), with an unbiased gradient: for
    recognition by REINFORCE, each particle compared with the others.

    Binary units want large weights, and so large rates: with `learning_rate="cosine"`, a
    `learning_rate_init` of 0.05 to 0.2 for some thousand rows (docs/helmholtz_machine.md).

    A table of numbers, categories, counts and holes goes in as it is, with
    `likelihood="auto"` or a mapping of its columns; `reconstruct` and `sample` give its
    columns, types and categories back. See the page "Tables with categories" of the
    documentation.

    Parameters
    ----------
    n_components : int, default=10
        Units of the top layer.
    hidden_layer_sizes : array-like of int or int, default=()
        Units of the layers between, from the data up.
    algorithm : {"wake-sleep", "reweighted", "free-energy"}, default="wake-sleep"
        How the networks are trained.
    n_particles : int, default=None
        Draws from q(h|x) for each row and step; two or more for "free-energy". None takes 1
        for "wake-sleep" and 10 for the others.
    likelihood : {"auto", "bernoulli", "gaussian", "categorical"} or mapping, default="auto"
        p(x|h). "auto" takes "bernoulli" if all values are 0 or 1, and "gaussian", which has a
        noise variance, otherwise. Where a column holds categories it takes a likelihood for
        each column by its type; a mapping of column names or indices gives them: also
        "laplace", "continuous_bernoulli", "poisson".
        "bernoulli" takes values between 0 and 1, too: as probabilities, from which rows are
        drawn anew in every epoch. What "auto" took of the first rows holds while `partial_fit`
        or `warm_start` go on.
    noise_variance : {"scalar", "per_feature"} or float, default="scalar"
        Variance of the noise, where the likelihood has one: learned, one for all features
        or one for each, at least 1e-4 of the mean feature variance; or given, in squared
        units of X. In a table each number has its own, learned, of at least 1e-4 of the variance
        of its column, or given, as a share of that.
    missing : {"mask", "error"}, default="mask"
        "mask": NaN is a value not seen. It is left out of the likelihood; recognition reads
        the mean in its place and, if training rows had NaN, beside the row the mask of what
        was seen. "error": NaN is an error.
    handle_unknown : {"error", "missing"}, default="error"
        What a category of a table is that `fit` has not seen: an error, or a value not seen.
    solver : {"adam", "adamw", "sgd"}, default="adam"
        Optimiser.
    alpha : float, default=0.0
        L2 penalty on weights; for "adamw" the decoupled decay.
    batch_size : int, default=128
        Rows per step.
    learning_rate : {"constant", "cosine", "invscaling", "adaptive"}, default="constant"
        "cosine" rises over a tenth of `max_iter` and falls to zero at its end,
        "invscaling" falls with the root of the epoch, "adaptive" is divided by 5 when
        the loss stalls for two epochs.
    learning_rate_init : float, default=1e-2
        The largest learning rate.
    momentum : float in [0, 1), default=0.9
        Nesterov momentum of "sgd".
    max_iter : int, default=200
        Epochs.
    tol : float, default=0.0
        Training ends when the loss has not improved by this, in nats per row, for
        `n_iter_no_change` epochs; 0 never ends it without early stopping.
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
        Losses of every epoch, nats per row: `train_loss`, the free energy
        `train_energy + train_neg_entropy`, or for "reweighted" minus the importance-weighted
        bound; beside it, of those that dream, -log q(h|x) of dreams, `train_sleep`.
    n_iter_ : int
        Epochs that were trained.
    n_components_ : int
        Units of the top layer.
    likelihood_ : {"bernoulli", "gaussian", "mixed"}
        Which p(x|h) it is; "mixed" of tables.
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
    VAE : With Gaussian latents, through which gradients pass.
    sklearn.neural_network.BernoulliRBM : Binary units without a direction.

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
        "likelihood": [StrOptions({"auto", "bernoulli", "gaussian", "categorical"}), Mapping],
        "solver": [StrOptions({"adam", "adamw", "sgd"})],
    }

    def __init__(
        self,
        n_components: int = 10,
        *,
        hidden_layer_sizes: Any = (),
        algorithm: str = "wake-sleep",
        n_particles: int | None = None,
        likelihood: Any = "auto",
        noise_variance: str | float = "scalar",
        missing: str = "mask",
        handle_unknown: str = "error",
        solver: str = "adam",
        alpha: float = 0.0,
        batch_size: int = 128,
        learning_rate: str = "constant",
        learning_rate_init: float = 1e-2,
        momentum: float = 0.9,
        max_iter: int = 200,
        tol: float = 0.0,
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
        self.algorithm = algorithm
        self.n_particles = n_particles
        self.likelihood = likelihood
        self.noise_variance = noise_variance
        self.missing = missing
        self.handle_unknown = handle_unknown
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
        if self.algorithm == "free-energy" and self.n_particles == 1:
            raise ValueError(
                "n_particles=1 leaves none to compare with: algorithm='free-energy' needs two or "
                "more."
            )
        if self.likelihood_ == "bernoulli" and self.noise_variance != "scalar":
            why = ", as all values are 0 or 1" if self.likelihood == "auto" else ""
            raise ValueError(
                f"noise_variance={self.noise_variance!r} goes with likelihood='gaussian'; it is "
                f"'bernoulli'{why}, which has no noise variance."
            )

    def _begin(
        self,
        X: Array,
        sample_weight: Array | None,
        y: Array | None,
        previous: Self | None,
        rng: np.random.RandomState,
    ) -> Data:
        """Choose the likelihood, where that is left to the rows; then as in the base."""
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
        """With "auto" only where some column is a category: else there is one for all columns."""
        if self.likelihood != "auto":
            return super()._has_kinds(X)
        return holds_categories(X)

    def _check_support(self, low: Tensor, high: Tensor) -> None:
        """As in the base; where the likelihood was not asked for, say where it comes from."""
        try:
            super()._check_support(low, high)
        except ValueError as error:
            if self.likelihood != "auto" or "_table" in vars(self):
                raise
            raise ValueError(
                f"{error} likelihood='auto' took it, as all values in fit were 0 or 1; fit anew "
                "with likelihood='gaussian'."
            ) from None

    def _derived_fields(self) -> dict[str, Any]:
        n_particles = self.n_particles or (1 if self.algorithm == "wake-sleep" else _PARTICLES)
        return {
            "n_particles": int(n_particles),
            "likelihood": self.likelihood_,
            "binarised": self._binarised,
        }

    def _make_module(self, generator: torch.Generator) -> HelmholtzModule:
        return HelmholtzModule(self._architecture.make_likelihood(), self._architecture, generator)

    def _learn_from_outputs(self, rows: Dataset, weight: float) -> Array:
        codes = self._encode(rows.data.X)
        self._check_codes_are_finite(codes)
        n_draws = self._architecture.n_particles
        if self._architecture.algorithm != "reweighted" and weight == 1:
            n_draws = min(_MOST_DRAWS, ceil(_NOISE_DRAWS / len(rows)))
        self._learn_noise_of_draws(rows, weight, n_draws, drawn)
        return codes

    # ------------------------------------------------------- recognition, generation

    def transform(self, X: ArrayLike, layer: str = "top") -> Any:
        """Probabilities of units, given rows.

        Those of the first layer are q(h_1|x). Above it they are propagated: each layer reads
        the probabilities of the one below in place of its units (mean field), which is no
        longer the mean of q(h|x).

        Parameters
        ----------
        X : array-like of shape (n_samples, n_features)
            Rows.
        layer : {"top", "all"}, default="top"
            Of which layers.

        Returns
        -------
        Z : ndarray of shape (n_samples, n_components), or tuple of ndarray
            Of the top layer; with "all" of every layer, from the top down, each
            (n_samples, n_units).

        Raises
        ------
        ValueError
            If a value is impossible under the likelihood, or `layer` is neither.
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

    def dream(
        self,
        n_samples: int = 1,
        *,
        return_layers: bool = False,
        random_state: int | np.random.RandomState | None = None,
    ) -> Any:
        """Draw rows as `sample` does, and show the units that they were generated from.

        Parameters
        ----------
        n_samples : int, default=1
            How many rows to draw.
        return_layers : bool, default=False
            Whether to return the units of the layers, too.
        random_state : int, RandomState instance or None, default=None
            Seed of the draw. None takes fresh entropy, so that two calls differ.

        Returns
        -------
        X_new : ndarray of shape (n_samples, n_features)
            The rows, equal to those of `sample` with the same seed; a data frame under
            `set_output`.
        layers : tuple of ndarray
            With `return_layers`: units, 0 or 1, of every layer, from the top down, each
            (n_samples, n_units).

        Raises
        ------
        ValueError
            If `n_samples` is not a positive integer.
        """
        self._check_sample_arguments(n_samples, True)
        self._check_argument("return_layers", return_layers, ["boolean"])
        rows, layers = self._dreamt(n_samples, private_generator(random_state), noise=True)
        frame = self._rows_out(rows)
        return (frame, layers) if return_layers else frame

    # --------------------------------------------------------------------- density

    def score_samples(self, X: ArrayLike, *, n_importance: int = 100) -> Array:
        """Importance-weighted bound on log p(x), in nats.

        It is log 1/K sum_k p(x, h_k) / q(h_k|x), h_k ~ q(h|x), which on average is at most
        log p(x), and nearer to it the larger K is; the score of one row may be above. The draws
        depend on the row alone: it has the same score in every call, beside any other rows.

        Values between 0 and 1 under "bernoulli" count as x log λ + (1 - x) log(1 - λ), the
        mean of log p(x|h) over rows drawn from them: a bound on the mean of their log p(x).

        Parameters
        ----------
        X : array-like of shape (n_samples, n_features)
            Rows to score; of values that are NaN, only those seen count.
        n_importance : int, default=100
            K. 1 is a one-draw estimate of minus the free energy.

        Returns
        -------
        scores : ndarray of shape (n_samples,)
            Nats per row.

        Raises
        ------
        ValueError
            If `n_importance` is not a positive integer, or a value is impossible under the
            likelihood.
        """
        data = self._to_score(X, "score_samples")
        self._check_argument("n_importance", n_importance, [_COUNT])
        return self._bounds(data, n_importance)

    def free_energy(self, X: ArrayLike, *, n_draws: int | None = 100) -> Array:
        """Variational free energy F = E_q[-log p(x, h)] - H(q), in nats.

        It is -log p(x) + KL(q(h|x) || p(h|x)), and so never below -log p(x); its estimate by
        draws may be.

        Parameters
        ----------
        X : array-like of shape (n_samples, n_features)
            Rows.
        n_draws : int or None, default=100
            Draws of h that expectations are means over; None sums over all states, of
            machines of up to 20 units.

        Returns
        -------
        free_energy : ndarray of shape (n_samples,)
            Nats per row, float32; with None float64.

        Raises
        ------
        ValueError
            As in `free_energy_terms`.
        """
        energy, entropy = self._terms(X, "free_energy", n_draws)
        return energy - entropy

    def free_energy_terms(self, X: ArrayLike, *, n_draws: int | None = 100) -> FreeEnergyTerms:
        """The two terms of the free energy, row by row.

        Parameters
        ----------
        X : array-like of shape (n_samples, n_features)
            Rows.
        n_draws : int or None, default=100
            As in `free_energy`.

        Returns
        -------
        terms : FreeEnergyTerms
            `energy`, E_q[-log p(x, h)], and `entropy`, that of q(h|x); nats.

        Raises
        ------
        ValueError
            If `n_draws` is no positive integer, or None for a machine of more than 20
            units, or a value is impossible under the likelihood.
        """
        return self._terms(X, "free_energy_terms", n_draws)

    def exact_log_likelihood(self, X: ArrayLike) -> NDArray[np.float64]:
        """log p(x), summed over all states of a machine of up to 20 units.

        Parameters
        ----------
        X : array-like of shape (n_samples, n_features)
            Rows; of values that are NaN, only those seen count. Values between 0 and 1
            under "bernoulli" count as in `score_samples`.

        Returns
        -------
        log_likelihood : ndarray of shape (n_samples,)
            Nats per row, float64.

        Raises
        ------
        ValueError
            If the machine has more than 20 units, or a value is impossible under the
            likelihood.
        """
        data = self._to_score(X, "exact_log_likelihood")
        self._check_few_units("exact_log_likelihood")
        with self._trainer.inference():
            return Enumeration(self._trainer.module).log_likelihoods(self._dataset(data))

    def _terms(self, X: ArrayLike, method: str, n_draws: int | None) -> FreeEnergyTerms:
        data = self._to_score(X, method)
        self._check_argument("n_draws", n_draws, [_COUNT, None])
        module, rows = self._trainer.module, self._dataset(data)
        with self._trainer.inference(len(data.X) * (n_draws or 1)):
            if n_draws is None:
                self._check_few_units(f"{method} with n_draws=None")
                return FreeEnergyTerms(*Enumeration(module).terms(rows).T)
            return FreeEnergyTerms(*drawn_terms(module, rows, self._row_draws(n_draws)).T)

    def _to_score(self, X: ArrayLike, method: str) -> Data:
        rows = self._check_new_rows(X, method)
        self._check_range(rows)
        return Data(rows)

    def _check_few_units(self, what: str) -> None:
        n = self._architecture.n_units
        if n > MAX_UNITS:
            raise ValueError(
                f"{what} sums over all states of at most {MAX_UNITS} units; this machine has {n}. "
                "score_samples bounds log p(x) for any number."
            )

    def _row_draws(self, n_draws: int) -> RowDraws:
        """Draws of h for any row, the same in every call."""
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

    def _encode(self, X: Array) -> Array:
        return self._recognised(X, slice(-self.n_components_, None))

    def _recognised(self, X: Array, units: slice) -> Array:
        """Probabilities of some of all units, from the data up."""
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

    def _log_prob(self, X: Array) -> Array:
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
        """Rows, or their means, and the units of the layers, from the top down."""
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


def is_binary(X: Array) -> bool:
    """Whether all values that were seen are 0 or 1."""
    if X.dtype == bool:
        return True
    for part in chunks(len(X), X.shape[1] * X.itemsize):
        x = X[part]
        if not ((x == 0) | (x == 1) | (x != x)).all():
            return False
    return True
