"""What listens to training: skorch callbacks behind the parameters of the estimators."""

import copy
from typing import Any

import torch
from skorch.callbacks import Callback, EarlyStopping, LRScheduler
from tqdm import tqdm


class StopWhenFlat(EarlyStopping):
    """skorch's early stopping, from some epoch on."""

    def __init__(self, first_epoch: int = 0, **kwargs: Any) -> None:
        super().__init__(sink=_silent, **kwargs)
        self.first_epoch = first_epoch

    def on_epoch_end(self, net: Any, **kwargs: Any) -> None:
        """Compare the loss with the best one so far."""
        if len(net.history) > self.first_epoch:
            super().on_epoch_end(net, **kwargs)


def _silent(*args: object, **kwargs: object) -> None:
    """skorch's callbacks print through a sink; this one prints nothing."""


class Progress(Callback):
    """One line that shows the epochs, the losses and the time left."""

    def __init__(self, n_epochs: int) -> None:
        self.n_epochs = n_epochs

    def on_train_begin(self, net: Any, **kwargs: Any) -> None:
        """Open the line."""
        self._bar = tqdm(total=self.n_epochs, unit="epoch")

    def on_epoch_end(self, net: Any, **kwargs: Any) -> None:
        """Show the last epoch's losses."""
        last = net.history[-1]
        losses = {
            name: f"{last[name]:.4g}" for name in ("train_loss", "valid_loss") if name in last
        }
        self._bar.set_postfix(losses, refresh=False)
        self._bar.update()

    def on_train_end(self, net: Any, **kwargs: Any) -> None:
        """Close the line."""
        self._bar.close()


def adaptive_rate(monitor: str, tol: float) -> LRScheduler:
    """Divide the learning rate by 5 when two epochs in a row do not improve by `tol`."""
    return LRScheduler(
        policy=torch.optim.lr_scheduler.ReduceLROnPlateau,
        monitor=monitor,
        factor=0.2,
        patience=1,
        threshold=tol,
        threshold_mode="abs",
    )


class Tasks(Callback):
    """Tells scikit-learn's callbacks of epochs, each of which is a task."""

    def __init__(self, estimator: Any, context: Any, X: Any, weight: Any) -> None:
        self.estimator, self.context, self.X, self.weight = estimator, context, X, weight

    def _state(self) -> dict[str, Any]:
        """The attributes of the estimator as if training had ended here."""
        now = copy.copy(self.estimator)  # with a net of its own: training goes on with the other
        now.n_iter_ = len(now.net_.history)
        now._finish(self.X, self.weight, 1.0)
        return {name: now.__dict__[name] for name in now.__dict__ if name.endswith("_")}

    def _tell(self, hook: str) -> bool:
        return getattr(self.task, hook)(
            estimator=self.estimator,
            X=self.X,
            metadata={"sample_weight": self.weight},
            reconstruction_attributes=self._state,
        )

    def on_epoch_begin(self, net: Any, **kwargs: Any) -> None:
        """Open a task."""
        self.task = self.context.subcontext(task_name="epoch")
        self._tell("call_on_fit_task_begin")

    def on_epoch_end(self, net: Any, **kwargs: Any) -> None:
        """Close it; skorch stops at a KeyboardInterrupt."""
        if self._tell("call_on_fit_task_end"):
            raise KeyboardInterrupt
