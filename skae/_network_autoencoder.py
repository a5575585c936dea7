"""NetworkAutoencoder: the base class of autoencoders with a network for p(x|z).

It has a `Trainer`, which owns the network. This class converts rows to the input of the network,
starts or continues training, and learns quantities that depend on the trained network.
"""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Callable, Mapping
from dataclasses import replace
from numbers import Integral, Real
from typing import Any, ClassVar, Literal, Self

import numpy as np
import torch
from numpy.typing import ArrayLike, NDArray
from sklearn.callback import with_callbacks
from sklearn.exceptions import ConvergenceWarning
from sklearn.utils import get_tags
from sklearn.utils.validation import validate_data
from skorch.callbacks import Callback
from torch import Tensor

from skae._base import BaseAutoencoder
from skae._callback_parameters import CallbackParametersMixin
from skae._imputation import ImputationMixin
from skae._inference.unexplained import describe, unexplained
from skae._linear.moments import scaled_weight
from skae._mixed_rows import RowsOfTable, advised_of_tables
from skae._modules.architecture import layer_sizes
from skae._modules.scales import range_of, row_dtype, scale_of
from skae._network_state import NetworkStateMixin
from skae._nn.likelihoods import LIKELIHOODS
from skae._noise_variance import NoiseVarianceMixin
from skae._several_starts import fit_best_of
from skae._stored_rows import check_stored
from skae._tables.kinds import has_kinds
from skae._training.callbacks import check_callbacks
from skae._training.checkpoints import checkpoints_of_fit
from skae._training.data import Batch, Data, Dataset, check_finite, spread_of, without_lost_weights
from skae._training.module import TrainableModule
from skae._training.net import Net
from skae._training.random_state import preserve_rng_state
from skae._training.ranked_fit import ranks_of_fit
from skae._training.ranks import computed_once
from skae._training.recovery import DivergenceError
from skae._training.saving import is_same
from skae._training.sources import as_tensor
from skae._training.tasks import FitTasks, check_listeners
from skae._training.threads import threads_for_values
from skae._training.trainer import TRAINING_CONSTRAINTS, Trainer, TrainingOptions, batches, slices
from skae._training.units import in_float32
from skae._training_length import epochs_by_trial, n_trials, needs_trial, resolved
from skae._utils.fit_names import part_of, parts_in_search
from skae._utils.inputs import check_every_column_seen, check_same_columns, naming
from skae._utils.interrupts import keeps_progress
from skae._utils.readers import stored_rows
from skae._utils.sparse_rows import Rows, as_sparse_rows
from skae._utils.state import all_or_nothing
from skae._utils.types import LayerSizes
from skae._utils.validation import (
    Interval,
    StrOptions,
    as_rows,
    check_in_float32,
    check_weight,
    fit_context,
    remember_columns,
)
from skae._utils.warning import warn
from skae._value_ranges import ValueRangesMixin

Array = NDArray[Any]

# Factor by which each call of partial_fit reduces the weight of earlier calls.
_MEMORY = 0.9
# Number of rows from which the scale of logarithms of counts is computed: these values, or more.
_ROWS_READ, _VALUES_READ = 4096, 2**26
# Number of training rows whose scores are checked to be finite after training.
_CHECKED_ROWS = 8


class NetworkAutoencoder(
    NetworkStateMixin,
    ValueRangesMixin,
    ImputationMixin,
    NoiseVarianceMixin,
    CallbackParametersMixin,
):
    """An autoencoder with a network for the likelihood p(x|z) of rows.

    Subclasses implement at least `_make_module` and `_learn_from_outputs`.

    Attributes
    ----------
    net_ : skorch.NeuralNet
        The trained network as a skorch net. The torch module is `net_.module_`.
    history_ : list of dict
        Losses of each epoch, in nats per row, in the format of skorch.
    n_iter_ : int
        Number of epochs of training, including earlier fits that it continues.
    """

    _reads_stored_rows = True
    # Smallest number of epochs with max_iter=None.
    _least_epochs: ClassVar[int] = 0

    _state_shapes: ClassVar[dict[str, tuple[str, ...] | None]] = {
        **dict.fromkeys(["net_", "_architecture", "_seed", "_user_modules"]),
        **dict.fromkeys(["n_components_", "n_iter_"], ()),
    }

    _architecture: Any
    _trainer: Trainer
    _user_modules: tuple[Any, ...]  # the user's own modules in the network

    # Parameters of subclasses, declared for type checkers.
    n_components: int | float | None
    hidden_layer_sizes: LayerSizes
    missing: Literal["mask", "error"]
    learning_rate_init: float
    batch_size: int
    max_iter: int | None
    early_stopping: bool
    n_init: int

    _parameter_constraints: ClassVar[dict[str, list[Any]]] = {
        **TRAINING_CONSTRAINTS,
        "n_components": [Interval(Integral, 1, None, closed="left")],
        "hidden_layer_sizes": ["array-like", Interval(Integral, 1, None, closed="left")],
        "likelihood": [StrOptions({*LIKELIHOODS, "categorical", "auto"}), Mapping],
        "handle_unknown": [StrOptions({"error", "missing"})],
        "noise_variance": [
            StrOptions({"scalar", "per_feature"}),
            Interval(Real, 0, None, closed="neither"),
        ],
        "missing": [StrOptions({"mask", "error"})],
        "n_init": [Interval(Integral, 1, None, closed="left")],
    }

    # ---------------------------------------------------------------- the hooks

    @abstractmethod
    def _make_module(self, generator: torch.Generator) -> TrainableModule:
        """Build the network of `_architecture`, with weights drawn from the generator."""

    @abstractmethod
    def _learn_from_outputs(self, rows: Dataset, weight: float) -> Array | None:
        """Learn quantities that depend on the trained network. May return the codes of all rows.

        `weight` is the weight of these rows relative to all rows so far: 1 in `fit`, and less
        than 1 in a stream.
        """

    def _check_parameters(self, n_features: int) -> None:
        """Raise for combinations of parameters that are not allowed."""
        layer_sizes("hidden_layer_sizes", self.hidden_layer_sizes)
        check_in_float32(self.get_params(deep=False))
        check_callbacks(self.callbacks or [], self.early_stopping)

    def _derived_fields(self) -> dict[str, Any]:
        """Fields of the architecture that are computed from parameters."""
        return {}

    def _choose_latent_size(self, X: Rows, sample_weight: Array | None) -> None:
        """Choose `n_components_` if a rule chooses it by the training rows."""

    def _choose_sizes(self, n_rows: int) -> None:
        """Choose sizes that depend on the number of training rows."""

    def _given_modules(self) -> tuple[Any, ...]:
        """The parameters that are the user's own modules."""
        return ()

    def _n_latents(self) -> int:
        """Number of codes."""
        size: Any = self.n_components  # subclasses resolve other values than integers
        return int(size)

    def _learn_condition(
        self, y: Array | None, sample_weight: Array | None, previous: Self | None
    ) -> NDArray[np.float32] | None:
        """Targets as columns for the decoder, (n_rows, n_conditions); the first fit learns them."""
        return None

    def _check_batches(self, n_train: int) -> None:
        """Raise if batches are too small."""

    def _split(self, n_rows: int) -> tuple[Tensor, Tensor | None]:
        """Indices of training rows, and of held-out rows or None."""
        return self._trainer.split(n_rows)

    def _prepare(self, rows: Dataset, train: Tensor) -> None:
        """Called before the first training, for example for pretraining."""

    def _before_training(self, n_rows: int) -> None:
        """Called when training begins; `n_rows` includes earlier calls of a stream."""

    def _first_epoch_to_stop(self) -> int:
        """First epoch in which `tol` or early stopping may end training."""
        return 0

    def _by_trial(self) -> bool:
        """Whether trials may choose the number of epochs: not if parameters depend on the epoch."""
        return True

    def _own_listeners(self) -> list[tuple[str, Callback]]:
        """Additional callbacks of training."""
        return []

    def _train_more(
        self,
        data: Data,
        codes: Any,
        valid: Tensor | None,
        streaming: bool,
        tasks: FitTasks | None = None,
    ) -> None:
        """Called after training, for example to train a prior on the codes.

        `valid` are the indices of held-out rows, or None. Only a fit has `tasks`.
        """

    def _check_trained(self, rows: Dataset) -> None:
        """Warn if some columns are reconstructed worse than by their mean."""
        if self.net_.interrupted_:
            return
        with self._trainer.inference(len(rows)):
            found = unexplained(self._trainer.module, rows)
        if found.worse.any():
            message = describe(
                found,
                getattr(self, "feature_names_in_", None),
                scalable=self._architecture.squares,
                cures=f"Train longer (training ended after {self.n_iter_} epochs, with max_iter="
                f"{self.max_iter}), lower learning_rate_init (now {self.learning_rate_init}), or "
                f"raise n_components (now {self.n_components_}).",
            )
            warn(message, ConvergenceWarning)

    # ------------------------------------------------------------------------- learning

    @with_callbacks
    def _fit_model(
        self,
        X: Rows,
        rng: np.random.RandomState,
        sample_weight: Array | None,
        previous: Self | None,
        y: Array | None = None,
        told: Any = None,
    ) -> Array | None:
        """Fit the network; `told` is the y given to `fit`, for scikit-learn's callbacks."""
        check_listeners(getattr(self, "_skl_callbacks", []))
        n_starts = self.n_init if previous is None else 1
        n_trainings = self._n_trainings(X.shape[0], previous)
        n_tasks = self._n_tasks(X.shape[0], n_trainings)
        context = self._init_callback_context(max_subtasks=n_starts if n_starts > 1 else n_tasks)
        shown = self._shown_rows(X)
        given = {"estimator": self, "X": shown, "y": told}
        context.call_on_fit_task_begin(**given)

        def fit(model: Self, rng: np.random.RandomState, context: Any = context) -> Array | None:
            data = model._begin(X, sample_weight, y, previous, rng)
            rows = shown, told, sample_weight
            tasks = FitTasks(self, model, context, *rows, are_named=n_trainings > 1)
            return model._fit_network(data, sample_weight, previous, tasks)

        def fit_start(model: Self, rng: np.random.RandomState) -> Array | None:
            task = context.subcontext(task_name="start", max_subtasks=n_tasks)
            task.call_on_fit_task_begin(**given)
            codes = fit(model, rng, task)
            task.call_on_fit_task_end(**given)
            return codes

        # Inside torch.inference_mode() of the user, training would do nothing, without an error.
        with (
            threads_for_values(X.size),
            torch.inference_mode(False),
            torch.enable_grad(),
            part_of(*parts_in_search(self, context)),
            ranks_of_fit(self, rng, X, sample_weight, y),
            checkpoints_of_fit(self, rng, X, sample_weight, y, previous) as generator,
        ):
            if previous is None:
                self._choose_latent_size(X, sample_weight)
            if n_starts > 1:
                codes = fit_best_of(self, X, generator, sample_weight, y, fit_start)
            else:
                codes = fit(self, generator)
        context.call_on_fit_task_end(**given)
        return codes

    def _fit_network(
        self,
        data: Data,
        sample_weight: Array | None,
        previous: Self | None,
        tasks: FitTasks,
    ) -> Array | None:
        """Train the network and learn what depends on it. May return the codes of the rows."""
        architecture = self._architecture
        plain = previous is None and not architecture.reads_counts
        near = plain and architecture.affine.are_near(*architecture.range)
        rows = self._dataset(data, reread=True, near=near)
        options = self._trainer.options
        n_epochs = options.n_epochs(len(rows))
        if previous is None and self._by_trial() and needs_trial(options, len(rows)):
            least = self._least_epochs
            n_epochs = computed_once(lambda: epochs_by_trial(self, rows, tasks, least=least))
        train, valid = self._split(len(rows))
        train = rows.in_order(train)
        self._check_batches(len(train))
        if previous is None:
            self._prepare(rows, train)
        self._before_training(len(train))
        self._n_rows_seen = float(len(rows) if sample_weight is None else sample_weight.sum())
        with tasks.training("network", n_epochs, rows, shows_model=True) as listeners:
            self._trainer.fit(
                rows,
                train,
                valid,
                listeners=(*self._own_listeners(), *listeners),
                n_epochs=n_epochs,
                first_epoch_to_stop=self._first_epoch_to_stop(),
                keeps_progress=keeps_progress(self),
            )
        self.n_iter_ = self._trainer.n_epochs
        codes = self._finish_whatever_interrupts(rows)
        self._train_more(data, codes, valid, streaming=False, tasks=tasks)
        self._check_trained(rows)
        return codes

    def _n_trainings(self, n_rows: int, previous: Self | None) -> int:
        """Number of trainings of a fit: trials, that of the network, and those that follow it."""
        tried = previous is None and self._by_trial()
        return 1 + (n_trials(TrainingOptions.of(self), n_rows) if tried else 0)

    def _n_tasks(self, n_rows: int, n_trainings: int) -> int | None:
        """Number of tasks of a fit for scikit-learn's callbacks: its trainings, or epochs."""
        if n_trainings > 1:
            return n_trainings
        options = TrainingOptions.of(self)
        is_open = self._by_trial() and needs_trial(options, n_rows)
        return None if is_open else options.n_epochs(n_rows)

    def _begin(
        self,
        X: Rows,
        sample_weight: Array | None,
        y: Array | None,
        previous: Self | None,
        rng: np.random.RandomState,
    ) -> Data:
        """Start training or continue an earlier fit; returns the training data."""
        if previous is not None:
            self._go_on_from(previous, X)
        weight, _ = scaled_weight(sample_weight)  # only ratios matter; avoids overflow of float32
        data = Data(X, weight, self._learn_condition(y, weight, previous))
        if previous is None:
            self._start(data, rng)
        self.n_components_ = self._n_latents()
        return data

    def _start(self, data: Data, rng: np.random.RandomState) -> None:
        X, weight, condition = data
        self._check_parameters(X.shape[1])
        self._choose_sizes(len(X))
        self._seed = int(rng.randint(2**31 - 1))
        columns = self._columns()
        spread, of_spread = self._spread_of(X, weight)
        if spread.any_missing:
            check_every_column_seen(X, getattr(self, "feature_names_in_", None))
        architecture = self._Architecture(
            **self._fields(X.shape[0]),
            n_features=len(spread.mean),
            n_codes=self._n_latents(),
            n_conditions=0 if condition is None else condition.shape[1],
            with_mask=spread.any_missing,
            center=spread.mean.numpy(),
            scale=1.0,
            range=range_of(spread),
            row_dtype=row_dtype(X.dtype),
            **self._fields_of_table(),
            **of_spread,
        )
        read = spread
        if architecture.reading is not None:
            some = Data(X, weight)
            if architecture.reads_counts:
                some = some.some(max(_ROWS_READ, _VALUES_READ // X.shape[1]), seed=0)
            read = spread_of(some.X, some.weight, columns, architecture.reading)
        self._architecture = replace(
            architecture,
            center=read.mean.numpy(),
            scale=scale_of(read, X.dtype, columns),
            range=range_of(read if architecture.reads_counts else spread),
        )
        ends = spread.low, spread.high
        self._check_support(*(ends if columns is None else map(columns.first, ends)))
        self._check_size(spread)
        # The fitted model uses these, even if the parameters change later.
        self._user_modules = self._given_modules()
        self._trainer = Trainer(
            self._new_module(self._seed),
            resolved(TrainingOptions.of(self), X.shape[0], by_trial=self._by_trial()),
            **self._of_trainer(),
        )

    def _go_on_from(self, previous: Self, X: Rows) -> None:
        """Continue an earlier fit with the current parameters, as far as they may change."""
        self._check_parameters(X.shape[1])
        architecture = previous._architecture
        check_same_columns(self, X.shape[1], previous, previous.n_features_in_)
        self._check_same_kinds(previous)
        now, then = self._fields(X.shape[0]), architecture.as_dict()
        if not all(map(is_same, self._given_modules(), previous._user_modules)):
            raise ValueError(
                "Your own networks and distributions (encoder, decoder, prior, perceptual) cannot "
                "change when training continues. Set warm_start=False and call fit."
            )
        changed = [n for n in now if now[n] != then[n] and n not in architecture.changeable]
        if changed:
            name = changed[0]
            raise ValueError(
                f"{architecture.names.get(name, name)}={now[name]!r} cannot change when training "
                f"continues: it was {then[name]!r}. Set warm_start=False and call fit."
            )
        self._seed, self._user_modules = previous._seed, previous._user_modules
        self._architecture = replace(
            architecture, **{name: now[name] for name in architecture.changeable}
        )
        self._check_range(X, as_targets=True)
        self._trainer = previous._trainer.fork(TrainingOptions.of(self), self._architecture)

    def _fields(self, n_rows: int) -> dict[str, Any]:
        """Fields of the architecture that follow from parameters and the number of rows."""
        derived = self._derived_fields()
        if "_table" in vars(self):
            derived["likelihood"] = "mixed"
        return self._Architecture.from_params(self, derived)

    def _new_module(self, seed: int) -> TrainableModule:
        with preserve_rng_state():
            return self._make_module(torch.Generator().manual_seed(seed))

    def _of_trainer(self) -> dict[str, Any]:
        return {
            "seed": self._seed,
            "name": f"{type(self).__name__} network",
            "foreign_modules": self._has_foreign_modules(),
        }

    def _finish_whatever_interrupts(self, rows: Dataset) -> Array | None:
        """Call `_finish`, again after a first Ctrl-C, so that the training is not lost."""
        try:
            return self._finish(rows, 1.0)
        except KeyboardInterrupt:
            if self.net_.interrupted_ or not keeps_progress(self):
                raise
            warn(f"Training was interrupted. The model after epoch {self.n_iter_} is kept.")
            self.net_.interrupted_ = True
            return self._finish(rows, 1.0)

    def _finish(self, rows: Dataset, weight: float) -> Array | None:
        """Learn what depends on the trained network, and check that scores are finite."""
        codes = self._learn_from_outputs(rows, weight)
        few: list[Any] = [None if a is None else a[:_CHECKED_ROWS] for a in rows.data]
        scores = self._scores(Data(*few))
        if not np.isfinite(scores).all():
            raise self._divergence(f"a training row has score {scores[~np.isfinite(scores)][0]}")
        return codes

    def _log_prob_given(self, X: Array, y: Array | None) -> Array:
        """Scores of rows in nats, given the validated targets of a conditional model."""
        scores: Array = self._log_prob(X)
        return scores

    def _scores(self, data: Data) -> Array:
        """Scores of rows in nats, given their targets."""
        scores: Array = self._log_prob(data.X)
        return scores

    def _check_codes_are_finite(self, codes: Array) -> None:
        if not np.isfinite(codes).all():
            raise self._divergence("the codes are not finite")

    def _divergence(self, what: str) -> DivergenceError:
        rate = self.learning_rate_init
        return DivergenceError(
            f"Training diverged: after {self.n_iter_} epochs {what}. Lower learning_rate_init (now "
            f"{rate}) or rescale X."
        )

    @fit_context
    def partial_fit(
        self, X: ArrayLike, y: object = None, sample_weight: ArrayLike | None = None
    ) -> Self:
        """Train for one epoch over a batch of rows, continuing earlier calls.

        The first call, on an unfitted estimator, fixes the mean and the scale by which rows are
        standardised. The noise variance and the moments of the codes are weighted averages over the
        calls; each call has 0.9 times the weight per row of the next one. Later calls may modify
        the objects `net_` and `history_` of earlier calls; use `copy.copy` of the model to keep
        them.

        Parameters
        ----------
        X : array-like of shape (n_samples, n_features)
            Rows to train on, of the same types as in `fit`. Any number of rows is allowed; they
            are divided into batches of `batch_size`. In the first call every column needs an
            observed value; in later calls a column may consist of missing values (NaN).
        y : array-like of shape (n_samples,) or (n_samples, n_targets), default=None
            Targets for conditional models; ignored by all others.
        sample_weight : array-like of shape (n_samples,), default=None
            Weights of the rows, as in `fit`.

        Returns
        -------
        self : object
            The estimator.

        Raises
        ------
        ValueError
            If `X`, `y` or `sample_weight` is not allowed. The estimator then stays as it was
            before the call.
        """
        with all_or_nothing(self):
            previous = BaseAutoencoder.__copy__(self) if "_trainer" in vars(self) else None
            rows_in = self._check_rows(X, reset=previous is None)
            weight = check_weight(sample_weight, rows_in)
            targets = self._check_targets(y, rows_in.shape[0])
            rows_in, weight, targets = self._rows_that_count(rows_in, weight, targets)
            rng = self._generator()
            with (
                threads_for_values(rows_in.size),
                ranks_of_fit(self, rng, rows_in, weight, targets),
            ):
                if previous is None:
                    self._choose_latent_size(rows_in, weight)
                data = self._begin(rows_in, weight, targets, previous, rng)
                self._train_one_epoch(data, weight, previous)
        return self

    def _train_one_epoch(
        self, data: Data, sample_weight: Array | None, previous: Self | None
    ) -> None:
        """Train the network for one epoch in a stream, and learn what depends on it."""
        rows = self._dataset(data, reread=True)
        self._check_batches(len(rows))
        if previous is None:
            self._prepare(rows, torch.arange(len(rows)))
        self._before_training(len(rows) * (1 + self._trainer.n_epochs))
        self._trainer.partial_fit(rows)
        self.n_iter_ = self._trainer.n_epochs
        n_rows = float(len(rows) if sample_weight is None else sample_weight.sum())
        n_before = 0.0 if previous is None else _MEMORY * self._n_rows_seen
        self._n_rows_seen = n_rows + n_before
        codes = self._finish(rows, n_rows / self._n_rows_seen)
        self._train_more(data, codes, None, streaming=True)

    # --------------------------------------------------------------------- the network

    @property
    def net_(self) -> Net:
        """The trained network."""
        if "_trainer" not in vars(self):
            raise AttributeError(f"{type(self).__name__!r} object has no attribute 'net_'")
        return self._trainer.net

    @property
    def history_(self) -> list[dict[str, Any]]:
        """Losses of each epoch, in nats per row."""
        return self.net_.history

    # ------------------------------------------------------------- rows in and rows out

    def _dataset(self, data: Data, reread: bool = False, near: bool = False) -> Dataset:
        return Dataset(
            data,
            units=self._architecture.units,
            with_mask=self._architecture.with_mask,
            reread=reread,
            device=self._trainer.device,
            near=near,
            columns=self._architecture.columns,
            reading=self._architecture.reading,
        )

    def _map_rows(
        self,
        data: Data | Dataset,
        compute: Callable[[Batch], Tensor],
        *width: int,
        dtype: type[np.generic] = np.float32,
    ) -> Array:
        """Apply a function of batches to all rows; returns an array on the CPU."""
        n_rows = len(data if isinstance(data, Dataset) else data.X)
        out = np.empty((n_rows, *width), dtype=dtype)
        with self._trainer.inference(n_rows):
            rows = data if isinstance(data, Dataset) else self._dataset(data)
            for part, batch in batches(rows):
                out[part] = compute(batch).cpu().numpy()
        return out

    def _map_codes(self, Z: Array, compute: Callable[[Tensor], Tensor]) -> Array:
        """Apply a function from codes to rows; returns rows in the units of the data."""
        out = np.empty((len(Z), self.n_features_in_), dtype=self._architecture.row_dtype)
        with self._trainer.inference(len(Z)):
            for part in slices(len(Z)):
                z = in_float32(as_tensor(Z[part])).to(self._trainer.device)
                out[part] = self._in_data_units(compute(z))
        return out

    def _in_data_units(self, rows: Tensor) -> Array:
        """Convert rows from the units of the network to those of the data and their dtype."""
        found: Array = self._architecture.in_data_units(rows.cpu()).numpy()
        return found.astype(self._architecture.row_dtype, copy=False)

    # --------------------------------------------------------------------------- checks

    def _check_rows(self, X: Any, *, reset: bool, min_rows: int = 1) -> Any:
        """As in the base class, but without conversion of whole arrays; batches are converted."""
        known = "_table" in vars(self) or isinstance(X, RowsOfTable)
        stored = stored_rows(X)
        if stored is not None:
            is_table = known or (reset and self._has_kinds(np.empty((1, stored.shape[1]))))
            return check_stored(self, stored, reset=reset, min_rows=min_rows, is_table=is_table)
        if known or (reset and self._has_kinds(X)):
            return self._check_table(X, reset=reset, min_rows=min_rows)
        if reset:
            remember_columns(self, X)
        with advised_of_tables(X, self.likelihood), naming("X"):
            X = validate_data(
                self,
                as_rows(self, X),
                reset=reset,
                dtype="numeric",
                accept_sparse=("csr", "csc"),
                ensure_all_finite=False,
                ensure_min_samples=min_rows,
            )
        X = as_sparse_rows(X)
        check_finite(X, allow_nan=get_tags(self).input_tags.allow_nan)
        return X

    def _counted(self, weight: Any | None) -> Any | None:
        """As in the base class; weights that are negligible in float32 count as 0."""
        return super()._counted(without_lost_weights(weight))

    def __sklearn_tags__(self) -> Any:
        tags = super().__sklearn_tags__()
        tags.transformer_tags.preserves_dtype = ["float32"]
        tags.input_tags.allow_nan = self.missing == "mask"
        table = has_kinds(self.likelihood)
        tags.input_tags.categorical, tags.input_tags.string = table, table
        tags.input_tags.sparse = not table
        return tags
