"""The number of epochs of training if it is not given (`max_iter=None`)."""

from dataclasses import replace
from math import ceil
from typing import Any

from skae._training.callbacks import how_to_step_smaller, warn_of_convergence
from skae._training.data import Dataset
from skae._training.length import HeldOutTrial, Looks
from skae._training.loader import Subset, batch_sizes
from skae._training.tasks import FitTasks, Listeners
from skae._training.trainer import Trainer, TrainingOptions, split_rows
from skae._utils.fit_names import numbered, part_of

# Smallest number of rows for trials, and the fraction of the rows that a trial holds out.
_FEWEST, _HELD_OUT = 20, 0.2
# Largest number of trials, and the number of rows from which one trial is enough.
_MOST_TRIALS, _TRIAL_ROWS = 3, 1_000
# Above the first number of rows, early stopping replaces trials; it holds out at most the second.
_MANY, _MOST_HELD_OUT = 10_000, 10_000
# Number of epochs if neither held-out rows nor a linear start decide.
_EPOCHS = 200
# Largest number of steps of a trial: steps for each row, and limits.
_STEPS_PER_ROW, _FEWEST_STEPS, _MOST_STEPS = 8, 2_000, 10_000
# The cosine schedule has half the mean rate of a constant one and needs twice as many steps.
_COSINE = 2.0


def resolved(options: TrainingOptions, n_rows: int, *, by_trial: bool) -> TrainingOptions:
    """Options with the learning rate schedule and held-out rows that `max_iter=None` implies."""
    schedule = options.learning_rate
    if _is_open(options) and by_trial and n_rows > _MANY:
        options = replace(
            options,
            early_stopping=True,
            validation_fraction=min(0.1, _MOST_HELD_OUT / n_rows),
        )
    elif needs_trial(options, n_rows) and by_trial:
        schedule = schedule or "cosine"
    return replace(options, learning_rate=schedule or "constant")


def needs_trial(options: TrainingOptions, n_rows: int) -> bool:
    """Whether trials find the number of epochs."""
    return _is_open(options) and n_rows <= _MANY


def _is_open(options: TrainingOptions) -> bool:
    ends = options.early_stopping or options.tol or options.solver == "lbfgs"
    return options.max_iter is None and not ends


def n_trials(options: TrainingOptions, n_rows: int) -> int:
    """Number of trials; 0 if there are too few rows, or if the number of epochs is known."""
    if n_rows < _FEWEST or not needs_trial(options, n_rows):
        return 0
    return min(_MOST_TRIALS, ceil(_TRIAL_ROWS / n_rows))


def epochs_by_trial(estimator: Any, rows: Dataset, tasks: FitTasks, *, least: int) -> int:
    """Find the number of epochs for training on all rows, by trials with held-out rows.

    The trials do not change the estimator. The result is at least `least`. It is 0 if the linear
    start is best, or if there are too few rows for a trial.
    """
    unknown = max(least, 0 if estimator._begins_linearly() else _EPOCHS)
    if len(rows) < _FEWEST:  # too few for trials
        return unknown
    options = replace(
        TrainingOptions.of(estimator), learning_rate="constant", callbacks=None, compile=False
    )
    # As many batches as all rows make: with fewer, larger batches a network overfits sooner.
    per_epoch = _n_steps(len(rows), options)
    n_train = len(split_rows(len(rows), _HELD_OUT, 0)[0])
    options = replace(options, batch_size=ceil(n_train / per_epoch))
    most = min(max(_STEPS_PER_ROW * len(rows), _FEWEST_STEPS), _MOST_STEPS)
    n_epochs = ceil(most / per_epoch)
    several = []
    n_splits = n_trials(options, len(rows))
    for split in range(n_splits):
        part = part_of(numbered("trial", split, n_splits))
        with part, tasks.training("trial", n_epochs) as listeners:
            looks = _trial(estimator, rows, options, n_epochs, least, split, listeners)
        if not looks.steps:  # all rows are equal
            return _EPOCHS
        n_epochs = ceil(looks.steps[-1] / per_epoch)  # the same length as the first trial
        several.append(looks)
    found = Looks.mean_of(several)
    if found.still_gains:
        warn_of_convergence(
            f"Held-out rows still improved after {n_epochs} epochs, the largest number that "
            f"max_iter=None tries. Set max_iter, for example to {5 * n_epochs}."
        )
    if not found.best_steps:
        if found.only_loses:
            warn_of_convergence(
                "The linear model of the initialisation is kept, because training made the score "
                f"of held-out rows worse. {how_to_step_smaller(estimator._trainer.net)}"
            )
        return 0
    falls = estimator._trainer.options.learning_rate == "cosine"
    # The trial trained on fewer rows; all rows allow more steps.
    n_steps = found.best_steps * (_COSINE if falls else 1.0) / (1 - _HELD_OUT)
    return max(least, ceil(n_steps / per_epoch))


def _trial(
    estimator: Any,
    rows: Dataset,
    options: TrainingOptions,
    n_epochs: int,
    least: int,
    split: int,
    listeners: Listeners,
) -> Looks:
    before = vars(estimator).copy()
    train, valid = split_rows(len(rows), _HELD_OUT, estimator._seed + split)
    train = rows.in_order(train)
    try:
        estimator._trainer = trainer = Trainer(
            estimator._new_module(estimator._seed), options, **estimator._of_trainer()
        )
        estimator._prepare(rows, train)
        if estimator._begins_linearly() and not trainer.net.begins_linearly:  # all rows are equal
            return Looks(counts_start=False)
        estimator._before_training(len(train))
        trial = HeldOutTrial(
            Subset.held_out(rows, valid),
            first_epoch=estimator._first_epoch_to_stop(),
            counts_start=trainer.net.begins_linearly and not least,
            stops=split == 0,
        )
        listeners = (("skae_trial", trial), *listeners)
        trainer.fit(rows, train, None, n_epochs=n_epochs, listeners=listeners)
    finally:
        vars(estimator).clear()
        vars(estimator).update(before)
    return trial.looks


def _n_steps(n_rows: int, options: TrainingOptions) -> int:
    return len(batch_sizes(n_rows, options.batch_size))
