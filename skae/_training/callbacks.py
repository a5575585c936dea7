"""Callbacks of skorch that implement training parameters of the estimators."""

import copy
from collections.abc import Callable, Iterator
from dis import opmap
from math import inf
from typing import Any

import torch
from sklearn.exceptions import ConvergenceWarning
from skorch.callbacks import (
    Callback,
    InputShapeSetter,
    LRScheduler,
    PassthroughScoring,
    PrintLog,
)

from skae._training.at_rest import (
    held_out_loss,
    is_clearly_positive,
    loss_beside_means,
    objective,
    sampled,
    sampled_beside_means,
    sampled_objectives,
)
from skae._utils.warning import warn

# The loss may exceed that of the mean row by this fraction without a warning, because draws are
# noisy.
_SLACK = 1e-3


# If the final loss exceeds the initial loss by less than this many nats per row, there is no
# warning, because training had nothing to improve.
_LITTLE = 0.1


class TrainingStopped(Exception):
    """Raised by a callback to end training after a complete epoch."""


class StoppedFromOutside(TrainingStopped):
    """Raised if a callback ends training that is no parameter: another fit may train further."""


class Diverged(Exception):
    """Raised if the loss of an epoch is not finite."""


class StopWhenFlat(Callback):
    """End training when a loss has not fallen by `tol` for some epochs.

    The best epoch is the one with the smallest loss, whether or not it fell by `tol`. This is what
    scikit-learn does; skorch's EarlyStopping requires a fall by its threshold.
    """

    def __init__(
        self, monitor: str, *, patience: int, tol: float, restore: bool, first_epoch: int
    ) -> None:
        self.monitor, self.patience, self.tol = monitor, patience, tol
        self.restore, self.first_epoch = restore, first_epoch

    def on_train_begin(self, net: Any, **kwargs: Any) -> None:
        """Reset the counters; a usable initial model is the first candidate for the best."""
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

    def state_dict(self) -> dict[str, Any]:
        """Return the counters and the best weights."""
        names = ("best", "n_flat", "best_weights", "best_epoch")
        return {name: getattr(self, name) for name in names}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Set the counters and the best weights."""
        for name, value in state.items():
            setattr(self, name, value)

    def _keep(self, net: Any, loss: float) -> None:
        self.best, self.best_epoch = loss, len(net.history)
        if self.restore:
            self.best_weights = copied_state(net.module_)

    def on_train_end(self, net: Any, **kwargs: Any) -> None:
        """Restore the weights of the best epoch."""
        if self.best_weights is None:
            return
        net.module_.load_state_dict(self.best_weights)
        if net.begins_linearly and self.best_epoch == 0 and len(net.history):
            net.at_start_ = True
            warn_of_convergence(
                f"The linear model of the initialisation is kept, because none of "
                f"{len(net.history)} epochs improved the held-out rows. {how_to_step_smaller(net)}"
            )


class CompareWithStart(Callback):
    """Compare the end of training with its linear initialisation, or else with the mean row.

    Both losses are computed on all training rows with the same draws. If this loss is all that is
    trained, the better of the initial and the final model is kept. If the final model is clearly
    worse, a warning says what to change.
    """

    def __init__(self, restore: bool) -> None:
        self.restore = restore

    def on_train_begin(self, net: Any, **kwargs: Any) -> None:
        """Copy the initial weights."""
        self.start = copied_state(net.module_)
        self.n_before = len(net.history)

    def on_train_end(self, net: Any, **kwargs: Any) -> None:
        """Compare the models, unless training was interrupted."""
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
        what = "The linear model is kept."
        end_nats, of_means = loss_beside_means(net)
        if net.later_ and end_nats <= of_means:  # another loss is trained, too
            what = "The trained model is kept, because it is also trained to minimise other losses."
        else:
            net.module_.load_state_dict(self.start)
            net.at_start_ = True
            if end - start < _LITTLE:
                return
        warn_of_convergence(
            f"Training ended at a loss of {end:.6g} nats per row, above the {start:.6g} nats of "
            f"the linear model of the initialisation. {what} {how_to_step_smaller(net)}"
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
        if objective(net) < start:  # training improves the loss, but is not finished
            advice = f"Raise max_iter (now {len(net.history) - self.n_before} epochs)."
        warn_of_convergence(
            f"Training ended at a loss of {end:.6g} nats per row, above the {of_means:.6g} nats of "
            f"a model that reconstructs every row as the mean row. {advice}"
        )

    def _at_start(self, net: Any, compute: Callable[[], Any]) -> Any:
        """Return the result of a function, computed with the initial weights."""
        end = copied_state(net.module_)
        net.module_.load_state_dict(self.start)
        found = compute()
        net.module_.load_state_dict(end)
        return found


def copied_state(module: torch.nn.Module) -> dict[str, torch.Tensor]:
    """Copy the weights and buffers of a module."""
    return {name: value.clone() for name, value in module.state_dict().items()}


def how_to_step_smaller(net: Any) -> str:
    """Return the advice for training that made the loss worse."""
    if net.solver == "lbfgs":
        return "Raise alpha, or use solver='adam'."
    return f"Lower learning_rate_init (now {net.lr:g}), or raise max_iter or batch_size."


def warn_of_convergence(message: str) -> None:
    """Issue a ConvergenceWarning."""
    warn(message, ConvergenceWarning)


def adaptive_rate(monitor: str, tol: float, first_epoch: int) -> LRScheduler:
    """Divide the learning rate by 5 when two epochs in a row do not improve the loss by `tol`.

    Epochs before `first_epoch` count as improvements, because the loss may rise in them by design.
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


def is_callback(value: object) -> bool:
    """Return whether skorch accepts this value.

    It accepts an instance, a class, and a pair of a name and one of these.
    """
    if isinstance(value, (tuple, list)) and len(value) == 2:
        return isinstance(value[0], str) and is_callback(value[1])
    return isinstance(value, Callback) or (isinstance(value, type) and issubclass(value, Callback))


def named_callbacks(callbacks: Any) -> Iterator[tuple[str, Any]]:
    """Yield the names and the callbacks; names that are not given are skorch's.

    skorch names a callback by its class. Values that are not callbacks are skipped; `fit` raises
    for them.
    """
    given = callbacks if isinstance(callbacks, (list, tuple)) else []
    for value in filter(is_callback, given):
        if isinstance(value, (tuple, list)):
            yield value[0], value[1]
        else:
            yield (value if isinstance(value, type) else type(value)).__name__, value


def set_callback_params(callbacks: Any, params: dict[str, Any]) -> list[Any]:
    """Return the list of callbacks with new callbacks and parameters, addressed as in skorch."""
    found = list(callbacks or [])
    named = [next(named_callbacks([value]), ("", None)) for value in found]
    known = [name for name, _ in named]
    for key, value in params.items():
        name, _, theirs = key.removeprefix("callbacks__").partition("__")
        if known.count(name) != 1:
            raise ValueError(
                f"{key}: exactly one callback must have the name {name!r}. The callbacks have the "
                f"names {known}."
            )
        at = known.index(name)
        if theirs:
            callback = next(named_callbacks([found[at]]))[1]
            if isinstance(callback, type):
                raise ValueError(
                    f"{key}: the callback {name} is a class, and parameters can only be set on an "
                    f"instance. Use an instance, such as {callback.__name__}()."
                )
            callback.set_params(**{theirs: value})
        else:
            found[at] = (name, value) if isinstance(found[at], (tuple, list)) else value
    return found


def check_callbacks(callbacks: Any, holds_out: bool) -> None:
    """Raise for values that are not callbacks, and for callbacks that cannot work."""
    strange = [value for value in callbacks if not is_callback(value)]
    if strange:
        raise ValueError(
            f"callbacks={callbacks!r} must contain only skorch callbacks and pairs "
            f"(name, callback); given {strange[0]!r}. Callbacks of scikit-learn are set with "
            "set_callbacks."
        )
    scored = {getattr(callback, "name", None) for _, callback in named_callbacks(callbacks)}
    for name, callback in named_callbacks(callbacks):
        monitor = getattr(callback, "monitor", None)
        if monitor in ("valid_loss", "valid_loss_best") and not holds_out and monitor not in scored:
            raise ValueError(
                f"callbacks: {name} uses monitor={monitor!r}, the loss of held-out rows, but "
                "early_stopping=False holds out no rows. Set early_stopping=True, or use "
                "monitor='train_loss' ('train_loss_best')."
            )
        if isinstance(callback, InputShapeSetter):
            raise ValueError(
                f"callbacks: {name} sets the sizes of modules that skorch builds, but the networks "
                "of this estimator get their sizes from hidden_layer_sizes and X. Remove it."
            )


def lacks_in_history(name: str, error: KeyError, epoch: dict[str, Any]) -> ValueError:
    """Return the error for a skorch callback that reads a key which the history does not have."""
    known = [key for key in epoch if key != "batches"]
    return ValueError(
        f"callbacks: {name} reads a key that the history does not have "
        f"({str(error.args[0]).rstrip('.')}). The keys of an epoch are {known}; losses of held-out "
        "rows exist only with early_stopping=True."
    )


def check_copies(callbacks: Any, advice: str) -> None:
    """Raise for callbacks that cannot be copied, for example because they hold an open file."""
    for name, callback in named_callbacks(callbacks):
        try:
            copy.deepcopy(callback)
        except Exception as error:
            raise TypeError(f"callbacks: {name} cannot be copied: {error}. {advice}") from error


def without_writers(callbacks: list[Any]) -> list[Any]:
    """Return the callbacks without those of skorch that only print, or write files or logs."""

    def writes(value: Any) -> bool:
        _, callback = next(named_callbacks([value]))
        kind = callback if isinstance(callback, type) else type(callback)
        return kind.__module__.startswith("skorch.") and kind.__name__ in _WRITERS

    return [value for value in callbacks if not writes(value)]


_WRITERS = {
    "Checkpoint",
    "MlflowLogger",
    "NeptuneLogger",
    "PrintLog",
    "ProgressBar",
    "SacredLogger",
    "TensorBoard",
    "TrainEndCheckpoint",
    "WandbLogger",
}


def print_logs(callbacks: Any) -> bool:
    """Return whether one of the callbacks is skorch's PrintLog."""
    found = (callback for _, callback in named_callbacks(callbacks))
    return any(callback is PrintLog or isinstance(callback, PrintLog) for callback in found)


def release(callback: Any) -> None:
    """Remove the weights and optimisers that a skorch callback has stored.

    The callback may be a parameter of an estimator, which is cloned and saved.
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
    """Return whether a statement raised the error (as skorch's callbacks do), and not Ctrl-C."""
    trace = error.__traceback__
    while trace is not None and trace.tb_next is not None:
        trace = trace.tb_next
    if trace is None:
        return False
    return trace.tb_frame.f_code.co_code[trace.tb_lasti] == opmap["RAISE_VARARGS"]


def hears_batches(callback: Callback) -> bool:
    if isinstance(callback, PassthroughScoring):  # it needs no batches while they are trained on
        return True
    if isinstance(callback, LRScheduler) and callback.step_every == "epoch":
        return False
    return hears(callback, "on_batch_begin", "on_batch_end")


def hears(callback: Callback, *hooks: str) -> bool:
    return any(getattr(type(callback), hook) is not getattr(Callback, hook) for hook in hooks)
