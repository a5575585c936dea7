"""What listens to training: skorch callbacks behind the parameters of the estimators."""

import copy
import warnings
from collections.abc import Callable, Iterator
from dis import opmap
from math import inf
from typing import Any

import torch
from sklearn.callback import ScoringMonitor
from sklearn.exceptions import ConvergenceWarning
from skorch.callbacks import (
    Callback,
    InputShapeSetter,
    LRScheduler,
    PassthroughScoring,
    PrintLog,
)
from tqdm import tqdm

from skae._training.at_rest import (
    held_out_loss,
    is_clearly_positive,
    loss_beside_means,
    objective,
    sampled,
    sampled_beside_means,
    sampled_objectives,
)
from skae._training.data import Dataset

# By which share a loss may be above that of means before it is a failure: noise of draws.
_SLACK = 1e-3


# By how many nats a row an end above the start is no failure: there was nothing to gain.
_LITTLE = 0.1


class TrainingStopped(Exception):
    """A callback asks to stop after a complete epoch."""


class Diverged(Exception):
    """The loss of an epoch is not finite."""


class StopWhenFlat(Callback):
    """Stops training when a loss has not fallen by `tol` for some epochs.

    As in scikit-learn, and unlike in skorch's EarlyStopping, any smaller loss is the
    best one: `tol` decides when to stop, not what to go back to.
    """

    def __init__(
        self, monitor: str, *, patience: int, tol: float, restore: bool, first_epoch: int
    ) -> None:
        self.monitor, self.patience, self.tol = monitor, patience, tol
        self.restore, self.first_epoch = restore, first_epoch

    def on_train_begin(self, net: Any, **kwargs: Any) -> None:
        """Forget an earlier training; what is of use untrained is what epochs have to beat."""
        self.best, self.n_flat = inf, 0
        self.best_weights: dict[str, torch.Tensor] | None = None
        self.best_epoch = 0
        if self.restore and (net.useful_untrained or net.begins_linearly):
            self._keep(net, held_out_loss(net))

    def on_epoch_end(self, net: Any, **kwargs: Any) -> None:
        """Compare the loss with the best one so far."""
        if len(net.history) <= self.first_epoch:
            return
        loss = net.history[-1, self.monitor]
        self.n_flat = 0 if loss < self.best - self.tol else self.n_flat + 1
        if loss < self.best:
            self._keep(net, loss)
        if self.n_flat >= self.patience:
            raise TrainingStopped

    def _keep(self, net: Any, loss: float) -> None:
        self.best, self.best_epoch = loss, len(net.history)
        if self.restore:
            self.best_weights = copied_state(net.module_)

    def on_train_end(self, net: Any, **kwargs: Any) -> None:
        """Go back to the best epoch."""
        if self.best_weights is None:
            return
        net.module_.load_state_dict(self.best_weights)
        if net.begins_linearly and self.best_epoch == 0 and len(net.history):
            net.at_start_ = True
            warn_of_convergence(
                f"The linear model that training began as is kept: after none of {len(net.history)}"
                f" epochs were held-out rows explained better. {how_to_step_smaller(net)}"
            )


class CompareWithStart(Callback):
    """Compares the end of training with its linear start, or else with explaining rows by means.

    Both are the loss of all training rows with the same draws. Of a start and an end whose whole
    loss this is, the better is kept; where the end is clearly worse, a warning says what to change.
    """

    def __init__(self, restore: bool) -> None:
        self.restore = restore

    def on_train_begin(self, net: Any, **kwargs: Any) -> None:
        """Keep the start."""
        self.start = copied_state(net.module_)
        self.n_before = len(net.history)

    def on_train_end(self, net: Any, **kwargs: Any) -> None:
        """Compare, unless an interruption says already that this is no end."""
        if net.interrupted_:
            return
        if len(net.history) == self.n_before:
            net.at_start_ = net.begins_linearly
        elif not net.begins_linearly:
            self._compare_with_means(net)
        elif self.restore:
            self._compare_with_start(net)

    def _compare_with_start(self, net: Any) -> None:
        sample = sampled(net)
        if sample is not None:
            losses = sampled_objectives(net, sample)
            at_start = self._at_start(net, lambda: sampled_objectives(net, sample))
            if is_clearly_positive(at_start - losses):
                return
        end, start = objective(net), self._at_start(net, lambda: objective(net))
        if end <= start:
            return
        what = "which is kept"
        end_nats, of_means = loss_beside_means(net)
        if net.later_ and end_nats <= of_means:  # there is more than this loss
            what = "though what comes beside it may be better"
        else:
            net.module_.load_state_dict(self.start)
            net.at_start_ = True
            if end - start < _LITTLE:
                return
        warn_of_convergence(
            f"Training ended at a loss of {end:.6g} nats per row, above the {start:.6g} of the "
            f"linear model that it began as, {what}. {how_to_step_smaller(net)}"
        )

    def _compare_with_means(self, net: Any) -> None:
        sample = sampled(net)
        if sample is not None:
            losses, at_means = sampled_beside_means(net, sample).T
            if is_clearly_positive(at_means - losses):
                return
        end, of_means = loss_beside_means(net)
        if end <= of_means + _SLACK * abs(of_means):
            return
        advice = how_to_step_smaller(net)
        start = self._at_start(net, lambda: objective(net))
        if objective(net) < start:  # on a good way, but not far
            advice = f"Raise max_iter (now {len(net.history) - self.n_before} epochs)."
        warn_of_convergence(
            f"Training ended at a loss of {end:.6g} nats per row, above the {of_means:.6g} of "
            f"explaining every row by the mean row. {advice}"
        )

    def _at_start(self, net: Any, compute: Callable[[], Any]) -> Any:
        """What is computed at the start."""
        end = copied_state(net.module_)
        net.module_.load_state_dict(self.start)
        found = compute()
        net.module_.load_state_dict(end)
        return found


def copied_state(module: torch.nn.Module) -> dict[str, torch.Tensor]:
    """A copy of the weights and buffers of a module."""
    return {name: value.clone() for name, value in module.state_dict().items()}


def how_to_step_smaller(net: Any) -> str:
    """What to change where training made things worse."""
    if net.solver == "lbfgs":
        return "Raise alpha, or take solver='adam'."
    return f"Lower learning_rate_init (now {net.lr:g}), or raise max_iter or batch_size."


def warn_of_convergence(message: str) -> None:
    """Warn that training did not end well."""
    warnings.warn(message, ConvergenceWarning, stacklevel=2)


class Progress(Callback):
    """One line that shows what is trained, the epochs, the losses and the time left."""

    def __init__(self, n_epochs: int, name: str) -> None:
        self.n_epochs, self.name = n_epochs, name

    def on_train_begin(self, net: Any, **kwargs: Any) -> None:
        """Open the line."""
        self._bar = tqdm(total=self.n_epochs, unit="epoch", desc=self.name)

    def on_epoch_end(self, net: Any, **kwargs: Any) -> None:
        """Show the last epoch's losses."""
        last = net.history[-1]
        losses = {
            name: f"{last[name]:.4g}" for name in ("train_loss", "valid_loss") if name in last
        }
        self._bar.set_postfix(losses, refresh=False)
        self._bar.update()

    def close(self) -> None:
        """Close the line, also after an error."""
        if hasattr(self, "_bar"):
            self._bar.close()


def adaptive_rate(monitor: str, tol: float, first_epoch: int) -> LRScheduler:
    """Divide the learning rate by 5 when two epochs in a row do not improve by `tol`.

    Before `first_epoch` the loss may rise by design: these epochs count as improvements.
    """

    def loss(net: Any) -> float:
        epoch = len(net.history) - 1
        return float(net.history[-1][monitor]) if epoch >= first_epoch else 1e30 / (epoch + 1)

    return LRScheduler(
        policy=torch.optim.lr_scheduler.ReduceLROnPlateau,
        monitor=loss,
        factor=0.2,
        patience=1,
        threshold=tol,
        threshold_mode="abs",
    )


class Tasks(Callback):
    """Tells scikit-learn's callbacks of epochs, each of which is a task.

    The hooks are given the rows, and as target the y that `fit` was given or, as for every
    autoencoder, the rows themselves: scikit-learn 1.9 scores nothing without a target.
    `model` is what is trained, where that is not the estimator itself but one of its starts.
    """

    def __init__(
        self,
        estimator: Any,
        context: Any,
        rows: Dataset | None,
        X: Any,
        y: Any,
        weight: Any,
        model: Any = None,
    ) -> None:
        self.estimator, self.context, self.rows = estimator, context, rows
        self.X, self.y, self.weight = X, X if y is None else y, weight
        self.model = estimator if model is None else model

    def _state(self) -> dict[str, Any]:
        """The attributes of the estimator as if training had ended here."""
        now = copy.copy(self.model)  # with a net of its own: training goes on with the other
        now.n_iter_ = len(now.net_.history)
        now._finish(self.rows, 1.0)
        before = self.estimator.__dict__
        return {
            name: value
            for name, value in now.__dict__.items()
            if name.endswith("_") or value is not before.get(name)
        }

    def _tell(self, hook: str) -> bool:
        return getattr(self.task, hook)(
            estimator=self.estimator,
            X=self.X,
            y=self.y,
            metadata=None if self.weight is None else {"sample_weight": self.weight},
            reconstruction_attributes=self._state,
        )

    def on_epoch_begin(self, net: Any, **kwargs: Any) -> None:
        """Open a task."""
        self.task = self.context.subcontext(task_name="epoch")
        self._tell("call_on_fit_task_begin")

    def on_epoch_end(self, net: Any, **kwargs: Any) -> None:
        """Close it, and stop if a hook asks for it."""
        if self._tell("call_on_fit_task_end"):
            raise TrainingStopped


def check_listeners(callbacks: list[Any]) -> None:
    """Raise for what scikit-learn 1.9 takes, and fails on at the first score."""
    for callback in callbacks:
        if isinstance(callback, ScoringMonitor) and getattr(callback, "_scoring", "") is None:
            raise ValueError(
                "ScoringMonitor(scoring=None) logs no scores in scikit-learn 1.9, which expects "
                "scores by name. Name it: scoring={'nats': sklearn.metrics.check_scoring(model)}."
            )


def is_callback(value: object) -> bool:
    """Whether skorch takes this as a callback: an instance, a class, or a name and one."""
    if isinstance(value, (tuple, list)) and len(value) == 2:
        return isinstance(value[0], str) and is_callback(value[1])
    return isinstance(value, Callback) or (isinstance(value, type) and issubclass(value, Callback))


def named_callbacks(callbacks: Any) -> Iterator[tuple[str, Any]]:
    """Callbacks and their names: those given, or else those of their classes, as skorch's.

    What is no callback, which `fit` refuses, is passed over.
    """
    given = callbacks if isinstance(callbacks, (list, tuple)) else []
    for value in filter(is_callback, given):
        if isinstance(value, (tuple, list)):
            yield value[0], value[1]
        else:
            yield (value if isinstance(value, type) else type(value)).__name__, value


def set_callback_params(callbacks: Any, params: dict[str, Any]) -> list[Any]:
    """The list with callbacks replaced, and parameters of others set, by skorch's names."""
    found = list(callbacks or [])
    named = [next(named_callbacks([value]), ("", None)) for value in found]
    known = [name for name, _ in named]
    for key, value in params.items():
        name, _, theirs = key.removeprefix("callbacks__").partition("__")
        if known.count(name) != 1:
            raise ValueError(
                f"{key}: the names of callbacks are {known}, and of those one has to be {name!r}."
            )
        at = known.index(name)
        if theirs:
            callback = next(named_callbacks([found[at]]))[1]
            if isinstance(callback, type):
                raise ValueError(f"{key}: {name} is a class; give an instance, to set parameters.")
            callback.set_params(**{theirs: value})
        else:
            found[at] = (name, value) if isinstance(found[at], (tuple, list)) else value
    return found


def check_callbacks(callbacks: Any, holds_out: bool) -> None:
    """Raise for what skorch would not take, and for what would wait in vain for held-out rows."""
    strange = [value for value in callbacks if not is_callback(value)]
    if strange:
        raise ValueError(
            f"callbacks={callbacks!r} must hold skorch callbacks, or pairs of a name and one; "
            f"{strange[0]!r} is none. scikit-learn's are set by set_callbacks."
        )
    scored = {getattr(callback, "name", None) for _, callback in named_callbacks(callbacks)}
    for name, callback in named_callbacks(callbacks):
        monitor = getattr(callback, "monitor", None)
        if monitor in ("valid_loss", "valid_loss_best") and not holds_out and monitor not in scored:
            raise ValueError(
                f"callbacks: {name} watches monitor={monitor!r}, the loss of rows that are held "
                "out, and early_stopping=False holds none out. Set early_stopping=True, or "
                "monitor='train_loss' ('train_loss_best')."
            )
        if isinstance(callback, InputShapeSetter):
            raise ValueError(
                f"callbacks: {name} sets sizes of modules that skorch builds; here networks are "
                "built by hidden_layer_sizes, for as many features as X has."
            )


def lacks_in_history(name: str, error: KeyError, epoch: dict[str, Any]) -> ValueError:
    """The error of a callback of skorch's that looks for what an epoch has not."""
    known = [key for key in epoch if key != "batches"]
    return ValueError(
        f"callbacks: {name} looks for what no epoch has ({str(error.args[0]).rstrip('.')}); "
        f"epochs have {known}, and losses of held-out rows only with early_stopping=True."
    )


def check_copies(callbacks: Any, advice: str) -> None:
    """Raise for callbacks that hold what cannot be copied, such as an open file or a lock."""
    for name, callback in named_callbacks(callbacks):
        try:
            copy.deepcopy(callback)
        except Exception as error:
            raise TypeError(f"callbacks: {name} cannot be copied: {error}. {advice}") from error


def print_logs(callbacks: Any) -> bool:
    """Whether skorch is asked to print."""
    found = (callback for _, callback in named_callbacks(callbacks))
    return any(callback is PrintLog or isinstance(callback, PrintLog) for callback in found)


def release(callback: Any) -> None:
    """Have one of skorch's callbacks let go of the weights and optimisers that it kept.

    It may be a parameter of an estimator, which is cloned and saved.
    """
    if not type(callback).__module__.startswith("skorch."):
        return
    for name, value in list(vars(callback).items()):
        held = list(value.values()) if isinstance(value, dict) else [value]
        if name.endswith("_") and any(isinstance(item, _HEAVY) for item in held):
            setattr(callback, name, None)


_HEAVY = (
    torch.Tensor,
    torch.nn.Module,
    torch.optim.Optimizer,
    torch.optim.lr_scheduler.LRScheduler,
)


def is_raised_by_code(error: KeyboardInterrupt) -> bool:
    """Whether a statement raised it, as skorch's callbacks do to end training, and no Ctrl-C."""
    trace = error.__traceback__
    while trace is not None and trace.tb_next is not None:
        trace = trace.tb_next
    if trace is None:
        return False
    return trace.tb_frame.f_code.co_code[trace.tb_lasti] == opmap["RAISE_VARARGS"]


def hears_batches(callback: Callback) -> bool:
    if isinstance(callback, PassthroughScoring):  # it reads of them afterwards
        return True
    if isinstance(callback, LRScheduler) and callback.step_every == "epoch":
        return False
    return hears(callback, "on_batch_begin", "on_batch_end")


def hears(callback: Callback, *hooks: str) -> bool:
    return any(getattr(type(callback), hook) is not getattr(Callback, hook) for hook in hooks)
