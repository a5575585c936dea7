"""A density of real vectors that a network learns, with methods as in scikit-learn."""

import copy
from numbers import Integral
from typing import Any, Self

import numpy as np
import torch
from numpy.typing import NDArray
from skorch.callbacks import Callback

from skae._densities.code_units import shrunk_covariance
from skae._densities.network_sizes import n_epochs_for
from skae._linear.moments import scaled_weight
from skae._modules.latent_density import (
    AutoregressiveDensity,
    DensityModule,
    FlowDensity,
    present_weights,
)
from skae._training.data import Data, Dataset
from skae._training.trainer import Trainer, TrainingOptions, slices
from skae._training.units import Units
from skae._utils.versions import restoring

Array = NDArray[Any]

NETWORK_DENSITIES = ("autoregressive", "flow")
# Parameters that only the causal network uses, and those that only the flow uses.
CAUSAL_PARAMETERS = (
    "n_mixture",
    "mixture_kind",
    "filter_size",
    "dilations",
    "position_embedding",
    "input_transform",
    "divisive_normalization",
    "orderings",
)
FLOW_PARAMETERS = ("n_transforms",)
# Parameters for the training of networks, and those that a density does not use.
_TRAINED = (
    "n_channels",
    "solver",
    "alpha",
    "batch_size",
    "learning_rate",
    "learning_rate_init",
    "momentum",
    "weight_averaging",
    "max_iter",
    "tol",
    "early_stopping",
    "validation_fraction",
    "n_iter_no_change",
    "precision",
    "compile",
    "callbacks",
)
UNUSED_BY = {
    "autoregressive": FLOW_PARAMETERS,
    "flow": CAUSAL_PARAMETERS,
    "own": (*CAUSAL_PARAMETERS, *FLOW_PARAMETERS, *_TRAINED),
}
# Number of codes that are scored together, in batches of equal size. Rounding depends on the shape
# of matrices, and must not depend on the other rows. Few rows stay in the cache of a CPU.
_SCORED, _SCORED_ELSEWHERE = 2**12, 2**17
# Standardised numbers beyond this limit are scored at the limit, whose square float32 can
# represent.
_FARTHEST = 1e9


class NetworkDensity:
    """p(z) of real vectors, by a causal network or a flow.

    The methods are those of scikit-learn's densities, with two differences: `fit` continues from an
    earlier call, and `sample` takes a generator.

    Parameters
    ----------
    settings : dict
        Settings of the network as plain values: `density`, and the parameters of its kind.
    orders : ndarray of shape (n_orders, n_features)
        Orders in which the causal network reads the numbers.
    options : TrainingOptions
        How the network is trained.
    seed : int
        Seed of its weights and of its training.
    center, scale : ndarray of shape (n_features,)
        The network reads (z - center) / scale.
    name : str
        What is trained, as `verbose` shows it.

    Attributes
    ----------
    trainer : Trainer
        Trainer of the network; it exists after the first fit.
    """

    trainer: Trainer

    def __init__(
        self,
        settings: dict[str, Any],
        orders: NDArray[np.int64],
        options: TrainingOptions,
        *,
        seed: int,
        center: NDArray[np.float64],
        scale: NDArray[np.float64],
        name: str,
    ) -> None:
        self.settings, self.orders, self.options = settings, orders, options
        self.seed, self.center, self.scale, self.name = seed, center, scale, name

    # -------------------------------------------------------------------- learning

    def fit(
        self,
        X: Array,
        sample_weight: Array | None = None,
        *,
        listeners: tuple[tuple[str, Callback], ...] = (),
        keeps_progress: bool = False,
    ) -> Self:
        """Learn from rows (n_samples, n_features), continuing from an earlier training if any."""
        rows = self._begin(X, sample_weight)
        train, valid = self.trainer.split(len(rows))
        self.trainer.fit(
            rows,
            train,
            valid,
            listeners=listeners,
            n_epochs=n_epochs_for(self.options.max_iter, self.settings["density"], len(rows)),
            keeps_progress=keeps_progress,
        )
        return self

    def partial_fit(self, X: Array, sample_weight: Array | None = None) -> Self:
        """Train for one epoch over these rows."""
        rows = self._begin(X, sample_weight)
        self.trainer.partial_fit(rows)
        return self

    def fork(self, options: TrainingOptions) -> "NetworkDensity":
        """Return a density that continues training by these options; this one does not change."""
        new = self._alike(options)
        new.trainer = self.trainer.fork(options)
        return new

    def __copy__(self) -> "NetworkDensity":
        """Return a copy with its own network."""
        new = self._alike(self.options)
        if "trainer" in vars(self):
            new.trainer = self.trainer.copy()
        return new

    def _alike(self, options: TrainingOptions) -> "NetworkDensity":
        return NetworkDensity(
            self.settings,
            self.orders,
            options,
            seed=self.seed,
            center=self.center,
            scale=self.scale,
            name=self.name,
        )

    def _begin(self, X: Array, sample_weight: Array | None) -> Dataset:
        z = self._standardised(X).astype(np.float32)
        weight, _ = scaled_weight(sample_weight)
        if "trainer" not in vars(self):
            module = self._new_module(shrunk_covariance(z, weight))
            self.trainer = Trainer(module, self.options, seed=self.seed, name=self.name)
        return Dataset(
            Data(z, weight),
            units=Units(None, None),
            with_mask=False,
            reread=True,
            device=self.trainer.device,
        )

    def _new_module(self, covariance: Array | None = None) -> DensityModule:
        generator = torch.Generator().manual_seed(self.seed)
        if self.settings["density"] == "flow":
            return FlowDensity(len(self.center), self.settings, generator)
        covariance = np.eye(len(self.center)) if covariance is None else covariance
        return AutoregressiveDensity(self.settings, self.orders, covariance, generator)

    # --------------------------------------------------------------------- density

    def score_samples(self, X: Array) -> NDArray[np.float64]:
        """Return log p(z) of rows (n_samples, n_features) in nats."""
        module, device = self.trainer.module, self.trainer.device
        found = np.empty(len(X))
        n_scored, n_free = _SCORED if device.type == "cpu" else _SCORED_ELSEWHERE, len(self.center)
        step = max(1, n_scored // n_free)
        z = torch.zeros((step, n_free), device=device)
        with self.trainer.inference(len(X)):
            for start in range(0, len(X), step):
                part = self._standardised(X[start : start + step])
                part = part.clip(-_FARTHEST, _FARTHEST).astype(np.float32)
                z[: len(part)] = torch.from_numpy(part)
                found[start : start + step] = module.log_prob(z)[: len(part)].cpu().numpy()
        return found - float(np.log(self.scale).sum())

    def sample(
        self, n_samples: int, rng: np.random.RandomState, given: Array | None = None
    ) -> NDArray[np.float64]:
        """Draw rows (n_samples, n_features), whose first numbers may be given."""
        generator = self.trainer.generator(rng)
        more = {}
        if given is not None:
            known = self._standardised(given).clip(-_FARTHEST, _FARTHEST).astype(np.float32)
            more["given"] = torch.from_numpy(known).to(self.trainer.device)
        with self.trainer.inference(n_samples):
            z = self.trainer.module.sample(n_samples, generator, **more).cpu().numpy()
        return self._restored(z)

    def to_normal(self, X: Array) -> NDArray[np.float64]:
        """Return the N(0, 1) quantile of each number's conditional probability, in float64."""
        return self._through_conditionals(self._standardised(X), inverse=False)

    def from_normal(self, U: Array) -> NDArray[np.float64]:
        """Return the inverse of `to_normal`, in float64."""
        return self._restored(self._through_conditionals(U, inverse=True))

    def _through_conditionals(self, rows: Array, *, inverse: bool) -> NDArray[np.float64]:
        density = copy.deepcopy(self.trainer.module.density).cpu().double()
        through = density.from_normal if inverse else density.to_normal
        found = np.empty(rows.shape)
        with torch.inference_mode():
            for part in slices(len(rows)):
                near = rows[part].clip(-_FARTHEST, _FARTHEST)  # as for scores
                found[part] = through(torch.from_numpy(near)).numpy()
        return found

    def _standardised(self, X: Array) -> NDArray[np.float64]:
        """Standardise all numbers, or the first ones; far ones may become infinite."""
        k = X.shape[1]
        with np.errstate(over="ignore"):
            z: NDArray[np.float64] = (X - self.center[:k]) / self.scale[:k]
        return z

    def _restored(self, z: Array) -> NDArray[np.float64]:
        rows: NDArray[np.float64] = z.astype(np.float64) * self.scale + self.center
        return rows

    # ----------------------------------------------------------------------- files

    def restore(self, state: dict[str, Any]) -> Self:
        """Restore the saved state of a trainer."""
        with restoring(self.name):
            state = {**state, "weights": present_weights(state["weights"])}
        self.trainer = Trainer.of_state(
            state, self._new_module(), self.options, seed=self.seed, name=self.name
        )
        return self


def given_orderings(orderings: Any) -> int | tuple[tuple[int, ...], ...]:
    """Return the number of orderings, or the given orderings of the codes."""
    if isinstance(orderings, Integral):
        return int(orderings)
    try:
        orders = np.array(orderings)
    except ValueError:
        orders = np.zeros(0)
    whole = orders.ndim == 2 and orders.size and orders.dtype.kind in "iu"
    if not whole or (np.sort(orders) != np.arange(orders.shape[1])).any():
        raise ValueError(
            f"orderings={orderings!r} must be a positive integer, or a list of permutations of "
            "the indices 0, 1, ... of the codes."
        )
    return tuple(tuple(order) for order in orders.tolist())


def check_orderings(orderings: Any, solver: str) -> None:
    """Raise for orderings that cannot be combined with the solver."""
    if solver == "lbfgs" and not is_one_ordering(given_orderings(orderings)):
        raise ValueError(
            f"orderings={orderings!r} cannot be combined with solver='lbfgs', because every step "
            "uses one ordering. Set orderings=1 or another solver."
        )


def is_one_ordering(given: int | tuple[tuple[int, ...], ...]) -> bool:
    """Return whether the numbers are read in a single order."""
    return given == 1 or (isinstance(given, tuple) and len(given) == 1)


def orders_of(
    wanted: int | tuple[tuple[int, ...], ...], varies: NDArray[np.bool_], n_free: int, seed: int
) -> NDArray[np.int64]:
    """Return permutations of the real numbers that represent codes, (n_orders, n_free)."""
    if not isinstance(wanted, int):
        if len(wanted[0]) != len(varies):
            raise ValueError(
                f"orderings must be permutations of {len(varies)} codes; given permutations of "
                f"{len(wanted[0])}."
            )
        number = np.cumsum(varies) - 1
        orders = [[number[code] for code in order if varies[code]] for order in wanted]
        # The last code of a simplex follows from the others.
        return np.array([[code for code in order if code < n_free] for order in orders])
    rng = np.random.RandomState(seed)
    first = [np.arange(n_free), np.arange(n_free)[::-1]][:wanted]
    return np.array(first + [rng.permutation(n_free) for _ in range(wanted - 2)])


def check_all_used(estimator: Any, defaults: dict[str, Any]) -> None:
    """Raise for parameters of an estimator that are set, but not used by its density."""
    kind = estimator.density if isinstance(estimator.density, str) else "own"
    unused = [n for n in UNUSED_BY[kind] if not _is_default(getattr(estimator, n), defaults[n])]
    if unused:
        given = ", ".join(f"{name}={getattr(estimator, name)!r}" for name in unused)
        remedy = " Set parameters of the density itself." if kind == "own" else ""
        raise ValueError(
            f"density={estimator.density!r} does not use {given}; leave them at their defaults."
            f"{remedy}"
        )


def _is_default(value: Any, default: Any) -> bool:
    """Return whether a parameter equals its default; an empty list equals None."""
    if isinstance(value, np.floating):
        return bool(value == default)
    if default is None and isinstance(value, list | tuple):
        return not value
    return value is default or plain(value) == default


def plain(value: Any) -> Any:
    """Convert arrays and lists to tuples, which can be compared."""
    if isinstance(value, np.ndarray | np.generic):
        value = value.tolist()
    return tuple(map(plain, value)) if isinstance(value, list | tuple) else value
