"""The tasks of a fit, for callbacks of scikit-learn.

Each epoch is a task. If a fit consists of several trainings, such as those of a network and of its
prior, each training is a task that contains its epochs.
"""

import copy
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

from sklearn.callback import ScoringMonitor
from skorch.callbacks import Callback

from skae._training.callbacks import StoppedFromOutside
from skae._training.checkpoints import present_files
from skae._training.data import Dataset

Listeners = tuple[tuple[str, Callback], ...]


class FitTasks:
    """The tasks of the trainings of a fit.

    Parameters
    ----------
    estimator : estimator object
        The estimator that the user fits.
    model : estimator object
        The estimator that is trained: the same one, or one of several initialisations.
    context : CallbackContext
        The task of the fit.
    X, y, weight : array-like or None
        The rows, targets and weights as the hooks get them.
    are_named : bool
        Whether each training has a task of its own.
    """

    def __init__(
        self,
        estimator: Any,
        model: Any,
        context: Any,
        X: Any,
        y: Any,
        weight: Any,
        *,
        are_named: bool,
    ) -> None:
        self.estimator, self.model, self.context = estimator, model, context
        self.X, self.y, self.weight = X, y, weight
        self.are_named = are_named
        self._n_trainings: Counter[str] = Counter()

    @contextmanager
    def training(
        self, name: str, n_epochs: int, rows: Dataset | None = None, *, shows_model: bool = False
    ) -> Iterator[Listeners]:
        """Yield the callbacks for the training in the block.

        With `shows_model`, the hooks get the estimator as it is after each epoch.
        """
        given = {"estimator": self.estimator, "X": self.X, "y": self.y}
        context = self.context
        if self.are_named:
            context = context.subcontext(task_name=name, max_subtasks=n_epochs)
            context.call_on_fit_task_begin(**given)
        listeners = self._checkpoints(name)
        if hasattr(self.estimator, "_skl_callbacks"):
            model = self.model if shows_model else None
            epochs = Epochs(self.estimator, context, rows, self.X, self.y, self.weight, model)
            listeners = (("skae_tasks", epochs), *listeners)
        yield listeners
        if self.are_named:
            context.call_on_fit_task_end(**given)

    def _checkpoints(self, name: str) -> Listeners:
        """Return the checkpoint of the next training of this name, if the fit writes any."""
        self._n_trainings[name] += 1
        files = present_files()
        if files is None:
            return ()
        which = self.model._seed, self._n_trainings[name]
        # The result of a trial is a number of epochs.
        checkpoint = files.of_training(name, *which, keeps_weights=name != "trial")
        return (("skae_checkpoint", checkpoint),)


class Epochs(Callback):
    """Report every epoch as a task to scikit-learn's callbacks.

    The hooks get the rows. Their target is the y that `fit` was given; if there is none, the target
    is the rows themselves, because scikit-learn 1.9 computes no score without a target. `model` is
    the estimator that is trained. It differs from the given estimator if this is one of several
    initialisations (`n_init`). If it is None, the hooks get no fitted estimator.
    """

    def __init__(
        self,
        estimator: Any,
        context: Any,
        rows: Dataset | None,
        X: Any,
        y: Any,
        weight: Any,
        model: Any,
    ) -> None:
        self.estimator, self.context, self.rows = estimator, context, rows
        self.X, self.y, self.weight = X, X if y is None else y, weight
        self.model = model

    def _state(self) -> dict[str, Any]:
        """Return the attributes that the estimator would have if training ended here."""
        # The copy has its own net, because training continues with the original.
        now = copy.copy(self.model)
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
            reconstruction_attributes=None if self.model is None else self._state,
        )

    def on_epoch_begin(self, net: Any, **kwargs: Any) -> None:
        """Open a task."""
        self.task = self.context.subcontext(task_name="epoch")
        self._tell("call_on_fit_task_begin")

    def on_epoch_end(self, net: Any, **kwargs: Any) -> None:
        """Close the task, and end training if a hook asks for it."""
        if self._tell("call_on_fit_task_end"):
            raise StoppedFromOutside


def check_listeners(callbacks: list[Any]) -> None:
    """Raise for a callback that scikit-learn 1.9 accepts, but that fails at the first score."""
    for callback in callbacks:
        if isinstance(callback, ScoringMonitor) and getattr(callback, "_scoring", "") is None:
            raise ValueError(
                "ScoringMonitor(scoring=None) logs no scores in scikit-learn 1.9, which needs a "
                "name for each score. Use scoring={'nats': sklearn.metrics.check_scoring(model)}."
            )
