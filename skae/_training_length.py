"""How long a network is trained where that is left open (`max_iter=None`)."""

from dataclasses import replace
from math import ceil
from typing import Any

from skae._training.callbacks import how_to_step_smaller, warn_of_convergence
from skae._training.data import Dataset
from skae._training.length import HeldOutTrial, Looks
from skae._training.loader import Subset, batch_sizes
from skae._training.trainer import Trainer, TrainingOptions, split_rows

# Of at least so many rows, a trial holds out a share, to find how long to train on all of them.
_FEWEST, _HELD_OUT = 20, 0.2
# The fewer rows, the more trials, of other rows.
_MOST_TRIALS, _TRIAL_ROWS = 3, 1_000
# Of more than so many, some are held out of training itself, whose best epoch is kept.
_MANY, _MOST_HELD_OUT = 10_000, 10_000
# Epochs of what neither rows nor a linear start tell when to end.
_EPOCHS = 200
# Steps of a trial at most: so many for each row, within these bounds.
_STEPS_PER_ROW, _FEWEST_STEPS, _MOST_STEPS = 8, 2_000, 10_000
# A rate that falls to zero is on average half of a constant one, and takes twice as many steps.
_COSINE = 2.0


def resolved(options: TrainingOptions, n_rows: int, *, by_trial: bool) -> TrainingOptions:
    """Options with the schedule, and what is held out, that follow from how training ends."""
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
    """Whether a trial is to tell how long to train."""
    return _is_open(options) and n_rows <= _MANY


def _is_open(options: TrainingOptions) -> bool:
    ends = options.early_stopping or options.tol or options.solver == "lbfgs"
    return options.max_iter is None and not ends


def epochs_by_trial(estimator: Any, rows: Dataset, *, least: int) -> int:
    """How many epochs to train on all rows, by how many steps held-out rows gain from.

    They are held out in trials, which leave the estimator as it was. At least so many epochs
    are trained, if any; none if the linear start is best, or rows are too few to tell.
    """
    unknown = max(least, 0 if estimator._begins_linearly() else _EPOCHS)
    if len(rows) < _FEWEST:  # too few to hold some out
        return unknown
    options = replace(
        TrainingOptions.of(estimator), learning_rate="constant", callbacks=None, compile=False
    )
    # As many batches as all rows make: fewer would be less noisy, and learn by heart sooner.
    per_epoch = _n_steps(len(rows), options)
    n_train = len(split_rows(len(rows), _HELD_OUT, 0)[0])
    options = replace(options, batch_size=ceil(n_train / per_epoch))
    most = min(max(_STEPS_PER_ROW * len(rows), _FEWEST_STEPS), _MOST_STEPS)
    n_epochs = ceil(most / per_epoch)
    several = []
    for split in range(min(_MOST_TRIALS, ceil(_TRIAL_ROWS / len(rows)))):
        looks = _trial(estimator, rows, options, n_epochs, least, split)
        if not looks.steps:  # nothing varies
            return _EPOCHS
        n_epochs = ceil(looks.steps[-1] / per_epoch)  # as long as the first
        several.append(looks)
    found = Looks.mean_of(several)
    if found.still_gains:
        warn_of_convergence(
            f"Held-out rows still gained after {n_epochs} epochs, where the search for a length "
            f"of training ends. Raise max_iter, for example to {5 * n_epochs}."
        )
    if not found.best_steps:
        if found.only_loses:
            warn_of_convergence(
                "The linear model that training begins as is kept: all that followed it explained "
                f"held-out rows worse. {how_to_step_smaller(estimator._trainer.net)}"
            )
        return 0
    falls = estimator._trainer.options.learning_rate == "cosine"
    # More rows than in the trial bear more epochs.
    n_steps = found.best_steps * (_COSINE if falls else 1.0) / (1 - _HELD_OUT)
    return max(least, ceil(n_steps / per_epoch))


def _trial(
    estimator: Any, rows: Dataset, options: TrainingOptions, n_epochs: int, least: int, split: int
) -> Looks:
    before = vars(estimator).copy()
    train, valid = split_rows(len(rows), _HELD_OUT, estimator._seed + split)
    try:
        estimator._trainer = trainer = Trainer(
            estimator._new_module(estimator._seed), options, **estimator._of_trainer()
        )
        trainer.name += " (how long to train)"
        estimator._prepare(rows, train)
        if estimator._begins_linearly() and not trainer.net.begins_linearly:  # nothing varies
            return Looks(counts_start=False)
        estimator._before_training(len(train))
        trial = HeldOutTrial(
            Subset(rows, valid),
            first_epoch=estimator._first_epoch_to_stop(),
            counts_start=trainer.net.begins_linearly and not least,
            stops=split == 0,
        )
        trainer.fit(rows, train, None, n_epochs=n_epochs, listeners=(("skae_trial", trial),))
    finally:
        vars(estimator).clear()
        vars(estimator).update(before)
    return trial.looks


def _n_steps(n_rows: int, options: TrainingOptions) -> int:
    return len(batch_sizes(n_rows, options.batch_size))
