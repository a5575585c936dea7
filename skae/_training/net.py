"""The training loop of all networks: a skorch net with its own batches.

skorch provides history, callbacks, schedulers and checkpoints. Parts that take time for each sample
or batch are replaced: the data loader, and the history entry and the device synchronisation of each
batch. The latter two remain if a callback needs them.
"""

from collections.abc import Iterable, Iterator
from contextlib import AbstractContextManager, ExitStack, nullcontext
from functools import reduce
from typing import Any

import torch
from skorch import NeuralNet
from skorch.callbacks import Callback, EpochTimer
from torch import Tensor, nn

from skae._training.averaging import Averaging, begin_averaging, show_average
from skae._training.callbacks import (
    TrainingStopped,
    hears,
    hears_batches,
    is_raised_by_code,
    lacks_in_history,
)
from skae._training.checkpoints import Checkpoint
from skae._training.compilation import compiled
from skae._training.data import WHOLE, Batch, Dataset
from skae._training.epoch_losses import EpochLosses, record_batch, record_losses
from skae._training.fused_steps import StepsOf
from skae._training.loader import Loader, Subset, batch_sizes
from skae._training.module import Loss, Phase, TrainableModule
from skae._training.optimizers import Schedule, make_optimizer, make_schedule, settings_of
from skae._training.random_state import Stream
from skae._training.ranked_training import RankedTraining
from skae._training.ranks import backward, present_ranks
from skae._training.recovery import run_epochs
from skae._training.snapshot import Snapshot
from skae._training.threads import threads_for

# Attributes that a net has only during training.
_WHILE_TRAINING = [
    "subsets_",
    "order_",
    "generator_",
    "snapshot_",
    "schedule_",
    "steps_",
    "loss_",
    "best_",
    "stream_",
    "checkpoint_",
    "writes_checkpoints_",
    "ranked_",
    "averaging_",
]


class Net(NeuralNet):
    """A skorch net whose module computes the terms of its own loss.

    Parameters beyond skorch's
    --------------------------
    solver, alpha, momentum, weight_averaging, learning_rate : as in the estimators
    seed : int
        Seed of the order of the rows and of the noise, together with the number of the epoch.
    autocast : torch.dtype or None
        Type in which training computes.
    compiled : bool
        Whether the computation of the loss is compiled.
    foreign_modules : bool
        Whether a module may read torch's global generator, whose state is then preserved.
    useful_untrained : bool
        Whether the module is usable before its first epoch. An interruption of the first epoch then
        restores this state.

    Attributes beyond skorch's
    --------------------------
    keeps_progress : bool
        Whether Ctrl-C ends the next training without raising KeyboardInterrupt.
    interrupted_ : bool
        Whether Ctrl-C ended the last training.
    begins_linearly : bool
        Whether the next training begins at a linear model, which may then be the result.
    at_start_ : bool
        Whether the last training ended with the weights that it began with.
    """

    keeps_progress = False
    interrupted_ = False
    begins_linearly = False
    at_start_ = False
    ranked_: RankedTraining | None = None
    averaging_: Averaging | None = None

    def __init__(
        self,
        module: TrainableModule,
        *,
        solver: str = "adam",
        alpha: float = 0.0,
        momentum: float = 0.9,
        weight_averaging: float = 0.0,
        learning_rate: str = "constant",
        seed: int = 0,
        autocast: torch.dtype | None = None,
        compiled: bool = False,
        foreign_modules: bool = False,
        useful_untrained: bool = False,
        **kwargs: Any,
    ) -> None:
        self.solver = solver
        self.alpha = alpha
        self.momentum = momentum
        self.weight_averaging = weight_averaging
        self.learning_rate = learning_rate
        self.seed = seed
        self.autocast = autocast
        self.compiled = compiled
        self.foreign_modules = foreign_modules
        self.useful_untrained = useful_untrained
        super().__init__(module, criterion=nn.Identity, train_split=None, verbose=0, **kwargs)

    # --------------------------------------------------------------------- setting up

    @property
    def _default_callbacks(self) -> list[tuple[str, Callback]]:
        return [("epoch_timer", EpochTimer())]

    def initialize_module(self) -> "Net":
        """Use the module that the estimator has built with its own generator."""
        self.module_ = self.module
        return self

    def initialize_optimizer(self, triggered_directly: object = None) -> "Net":
        """Create the optimisers; `alpha` penalises weights, but not biases and scales."""
        self.optimizer_ = self._make_optimizer(self.module_.parameters(), self.alpha)
        # They are kept in a list, because skorch steps every optimiser that it finds for each loss.
        self.later_ = []
        for phase in self.module_.phases():
            if any(p.requires_grad for p in phase.parameters):  # your own network may be frozen
                optimizer = self._make_optimizer(phase.parameters, self.alpha * phase.decays)
                self.later_.append((phase, optimizer))
        # The settings of the parameters (rates, decay, momentum), before training changes them.
        self.settings_ = settings_of(self.optimizers_)
        return self

    def _make_optimizer(
        self, parameters: Iterable[nn.Parameter], alpha: float
    ) -> torch.optim.Optimizer:
        return make_optimizer(
            self.solver,
            self.module_,
            parameters,
            lr=self.lr,
            alpha=alpha,
            momentum=self.momentum,
        )

    def _make_schedule(self, epochs: int) -> Schedule | None:
        return make_schedule(
            self.learning_rate,
            self.optimizer_,
            self.lr,
            epochs=epochs,
            steps=self.steps_per_epoch,
        )

    @property
    def steps_per_epoch(self) -> int:
        """Number of batches of the training rows."""
        return len(batch_sizes(len(self.subsets_[0]), self.batch_size))

    @property
    def optimizers_(self) -> list[torch.optim.Optimizer]:
        """The optimiser of the loss, followed by those of the phases."""
        return [self.optimizer_, *(optimizer for _, optimizer in self.later_)]

    # -------------------------------------------------------------------- the loop

    def train(
        self,
        rows: Dataset,
        train: Tensor,
        valid: Tensor | None,
        epochs: int,
        scheduled: bool = True,
    ) -> "Net":
        """Train on rows[train] for some epochs, and evaluate rows[valid] after each.

        A schedule of the learning rate covers exactly these epochs; without a schedule, the rate is
        constant.
        """
        if not self.initialized_:
            self.initialize()
        ranks = present_ranks()
        self.ranked_ = None if ranks is None else RankedTraining(ranks, self.module_)
        held_out = None if valid is None else Subset.held_out(rows, valid)
        self.subsets_ = (Subset(rows, train), held_out)
        self.order_ = torch.Generator()
        self.generator_ = torch.Generator(self.device)
        self.snapshot_ = Snapshot(self.module_, self.optimizers_)
        # If only one epoch is trained and its progress is not kept, a snapshot after it is never
        # used.
        self.takes_snapshots_ = epochs > 1 or self.keeps_progress
        if self.useful_untrained:
            self.snapshot_.take(len(self.history))
        self.schedule_ = self._make_schedule(epochs) if scheduled else None
        self.best_: dict[str, float] = {}
        self.interrupted_ = self.at_start_ = False
        listeners = [callback for _, callback in self.callbacks_]
        self.hears_batches_ = any(map(hears_batches, listeners))
        self.hears_gradients_ = any(hears(listener, "on_grad_computed") for listener in listeners)
        checkpoints = (c for c in listeners if isinstance(c, Checkpoint))
        self.checkpoint_: Checkpoint | None = next(checkpoints, None)
        self.writes_checkpoints_ = True
        self.steps_ = StepsOf()
        n_products = min(self.batch_size, len(train)) * self.module_.products_per_row()
        self.loss_ = self.module_.loss
        if self.compiled:
            self.loss_ = compiled(self.loss_, torch.device(self.device), n_products)
        try:
            with ExitStack() as stack:
                stack.callback(self.subsets_[0].close)
                # The caller, or an interruption of an earlier training, may have disabled
                # gradients. Optimisers enable them only in steps with a closure (torch 2.13).
                stack.enter_context(torch.enable_grad())
                stack.enter_context(threads_for(n_products))
                if self.foreign_modules:
                    self.stream_ = stack.enter_context(Stream(self.device).opened())
                if self.ranked_ is not None:
                    stack.enter_context(self.ranked_.running())
                self.notify("on_train_begin", X=rows, y=None)
                run_epochs(self, epochs)
                self.notify("on_train_end", X=rows, y=None)
                if ranks is not None:
                    ranks.synchronise(self.module_)
        finally:
            self.begins_linearly = False
            for name in _WHILE_TRAINING:
                self.__dict__.pop(name, None)
        return self

    def get_split_datasets(self, X: object, y: object = None, **params: object) -> Any:
        """Return the training and validation rows, which are already separate."""
        return self.subsets_

    def get_iterator(self, dataset: Subset, training: bool = False) -> Loader:
        """Return batches selected by index, in random order for training.

        Of several processes, each gets its parts of the batches.
        """
        ranks = None if self.ranked_ is None else self.ranked_.ranks
        if self.solver == "lbfgs" and training:
            return Loader(dataset, len(dataset), None, ranks)
        if training:
            return Loader(dataset, self.batch_size, self.order_, ranks)
        return Loader(dataset, max(self.batch_size, WHOLE), None, ranks)

    def all_batches(self, dataset: Subset) -> Loader:
        """Return batches of all rows in evaluation mode, also if processes share the training."""
        return Loader(dataset, max(self.batch_size, WHOLE), None)

    def notify(self, method_name: str, **kwargs: Any) -> None:
        """Call a method of all callbacks, as skorch does.

        If one of them ends training at the end of an epoch, the others are called first.
        """
        if method_name == "on_grad_computed" and self.hears_gradients_:
            kwargs["batch"] = self._shown(kwargs["batch"])
        if method_name != "on_epoch_end":
            super().notify(method_name, **kwargs)
            return
        stop: TrainingStopped | None = None
        for name, callback in self.callbacks_:
            try:
                callback.on_epoch_end(self, **kwargs)
            except TrainingStopped as error:
                stop = error
            except KeyboardInterrupt as error:
                if not is_raised_by_code(error):
                    raise
                stop = TrainingStopped()
            except KeyError as error:
                if not type(callback).__module__.startswith("skorch."):
                    raise
                raise lacks_in_history(name, error, self.history[-1]) from error
        end = stop if self.ranked_ is None else self.ranked_.agreed(stop, self.optimizers_)
        if self.takes_snapshots_:
            self.snapshot_.take(len(self.history))
        if self.checkpoint_ is not None and self.writes_checkpoints_:
            self.checkpoint_.after_epoch(self, end)
        if end is not None:
            raise end

    def _shown(self, batch: Batch) -> tuple[Tensor, Tensor]:
        """Return the rows of a batch as callbacks get them, also as the target."""
        rows = self.module_.shown_rows(batch)
        return rows, rows

    def forward_iter(
        self, X: Subset | Tensor, training: bool = False, device: str = "cpu"
    ) -> Iterator[Tensor]:
        """Yield the output of the module during training, in the units of the data."""
        if not hasattr(self, "subsets_"):
            raise TypeError(
                "net_ predicts only for callbacks during training. Use the method reconstruct of "
                "the estimator."
            )
        if isinstance(X, Subset):
            batches: Iterable[Batch] = self.all_batches(X)
        else:
            batches = [self.subsets_[0].rows.batch_of(X)]
        generator = torch.Generator(self.device).manual_seed(self.seed + 4)
        mode = self.module_.training
        self.module_.train(training)
        try:
            with torch.no_grad():
                for batch in batches:
                    loss = self.module_.loss(self.module_.prepare(batch, generator))
                    yield self.module_.shown_output(loss.output).to(device)
        finally:
            self.module_.train(mode)

    def on_epoch_begin(self, net: Any, **kwargs: Any) -> None:
        """Seed the generators for each epoch, so that training can be continued elsewhere."""
        super().on_epoch_begin(net, **kwargs)
        self.seed_epoch(len(self.history) - 1)

    def seed_epoch(self, epoch: int) -> None:
        """Seed the generators for an epoch, and prepare the module for it."""
        self.averaging_ = begin_averaging(self.module_, self.weight_averaging)
        seed = (self.seed * 1_000_003 + epoch) % 2**63
        self.order_.manual_seed(seed)
        self.generator_.manual_seed(seed)
        if self.foreign_modules:
            # Modules of the user draw for the rows of this process only.
            self.stream_.seed((seed + (self.ranked_.rank if self.ranked_ else 0)) % 2**63)
        self.module_.begin_epoch(epoch)

    def run_single_epoch(
        self, iterator: Loader | None, training: bool, prefix: str, step_fn: Any, **params: Any
    ) -> None:
        """Process the batches once; their losses are read from the device once, at the end."""
        if iterator is None:
            return
        if self.module_.training != training:
            self.module_.train(training)
        if not training:
            self.generator_.manual_seed(self.seed + 4)
        elif self.ranked_ is not None:  # a callback may have drawn other weights on each rank
            self.ranked_.ranks.synchronise(self.module_)
        losses = EpochLosses()
        for batch in iterator:
            if self.hears_batches_:
                shown = self._shown(batch)
                self.notify("on_batch_begin", batch=shown, training=training)
            with self.stream_.drawing() if self.foreign_modules else nullcontext():
                step = step_fn(batch)
            losses.add(step["terms"] | step["logged"], batch)
            if self.hears_batches_:
                record_batch(self, prefix, batch, step["terms"])
                step["y_pred"] = self.module_.shown_output(step["y_pred"])
                self.notify("on_batch_end", batch=shown, training=training, **step)
        if training:
            show_average(self.module_)
        record_losses(self, prefix, losses.means(), step["terms"])

    # ------------------------------------------------------------------- one batch

    def _precision(self) -> AbstractContextManager[Any]:
        if self.autocast is None:
            return nullcontext()
        return torch.autocast(torch.device(self.device).type, self.autocast)

    def train_step(self, batch: Batch, **params: Any) -> dict[str, Any]:
        """Take a step of the optimiser, and steps for the later phases."""
        batch = self.module_.prepare(batch, self.generator_)
        if self.ranked_ is not None:
            self.ranked_.begin_step(batch)
        if self.solver == "lbfgs" or self.hears_gradients_:
            step: dict[str, Any] = super().train_step(batch)
        else:  # a closure would take longer than the step of a small network
            steps = self.steps_[self.optimizer_]  # a callback may have replaced the optimiser
            steps.zero_grad()
            step = self.train_step_single(batch)
            steps.step()
        loss = Loss(step["terms"], step["y_pred"], step["aux"])
        for phase, optimizer in self.later_:
            step["logged"][phase.name] = self._phase_step(phase, optimizer, batch, loss)
        self.module_.after_step(batch, loss)
        if self.averaging_ is not None:
            self.averaging_.step()
        if self.schedule_ is not None:
            self.schedule_.step()
        return step

    def _phase_step(
        self, phase: Phase, optimizer: torch.optim.Optimizer, batch: Batch, before: Loss
    ) -> Tensor:
        """Take a step of a later phase, at the current rate of the schedule."""
        for group in optimizer.param_groups:
            group["lr"] = phase.rate * self.optimizer_.param_groups[0]["lr"]
        with self._precision():
            loss = phase.loss(batch, before)
        steps = self.steps_[optimizer]
        steps.zero_grad()
        trained = [p for p in phase.parameters if p.requires_grad]
        if trained:  # a callback may freeze them; gradients of other networks are kept
            backward(loss, batch.part, trained, inputs=trained)
            steps.step()
        return loss.detach()

    def train_step_single(self, batch: Batch, **params: Any) -> dict[str, Any]:
        """Compute the loss and its gradient."""
        with self._precision():
            terms, output, aux, logged = self.loss_(batch)
            loss = reduce(torch.add, terms.values())
        objective = loss * self.module_.step_scale()
        if self.solver == "lbfgs":
            decayed = [p for p in self.module_.decayed() if p.requires_grad]
            objective = objective + 0.5 * self.alpha * sum(p.square().sum() for p in decayed)
        if objective.requires_grad:
            backward(objective, batch.part, list(self.module_.parameters()))
        if batch.part is not None and self.solver == "lbfgs":  # its line search compares values
            objective = batch.part.ranks.sum(objective * batch.part.share)
        detached = {name: term.detach() for name, term in terms.items()}
        return {
            "loss": objective,
            "y_pred": output.detach(),
            "terms": detached,
            "aux": tuple(value.detach() for value in aux),
            "logged": {name: value.detach() for name, value in logged.items()},
        }

    def validation_step(self, batch: Batch, **params: Any) -> dict[str, Any]:
        """Compute the loss terms in float32 without noise, with the same draws in each epoch."""
        batch = self.module_.prepare(batch, self.generator_)
        if self.ranked_ is not None:
            self.ranked_.begin_step(batch)
        with torch.no_grad():
            loss = self.module_.loss(batch)
            later = {phase.name: phase.loss(batch, loss) for phase, _ in self.later_}
        return {
            "loss": sum(loss.terms.values()),
            "y_pred": loss.output,
            "terms": loss.terms,
            "logged": {**loss.logged, **later},
        }
