"""The best of several fits of a network from different seeds (`n_init`)."""

import copy
from collections.abc import Callable
from functools import partial
from typing import Any

import numpy as np
from numpy.typing import NDArray
from sklearn.exceptions import ConvergenceWarning

from skae._training.recovery import DivergenceError
from skae._training.together import run_together
from skae._utils.fit_names import Part, numbered, part_of
from skae._utils.interrupts import inside_another_fit
from skae._utils.sparse_rows import Rows
from skae._utils.warning import warn

Array = NDArray[Any]

# Number of rows on which the fits are compared.
_MOST_SCORED = 10_000


def fit_best_of(
    estimator: Any,
    X: Rows,
    rng: np.random.RandomState,
    sample_weight: Array | None,
    y: Any,
    fit: Callable[[Any, np.random.RandomState], Any],
) -> Any:
    """Make an estimator the best of its fits from `n_init` seeds, by the score of the rows.

    `y` are the validated targets of a conditional model, or None. Rows are scored given them.

    The first fit has the seed of a single fit. All fits are trained together. `fit` is called with
    a copy of the estimator and a generator; the result of the best fit is returned. Fits that
    diverge are ignored with a warning; if all diverge, the error of the first is raised. Any other
    error, such as that of a callback, ends all fits.
    """
    first = copy.deepcopy(rng)
    others = [np.random.RandomState(rng.randint(2**31 - 1)) for _ in range(estimator.n_init - 1)]
    models = [copy.copy(estimator) for _ in range(estimator.n_init)]
    starts = zip(models, [first, *others], strict=True)
    calls = [
        partial(_result_or_error, numbered("start", i, estimator.n_init), fit, *start)
        for i, start in enumerate(starts)
    ]
    with inside_another_fit():  # interrupted fits cannot be compared
        found = run_together(calls)
    errors = [error for _, error in found if error is not None]
    if len(errors) == len(found):
        raise errors[0]
    if errors:
        warn(
            f"{len(errors)} of n_init={len(found)} fits failed and are ignored. The first error "
            f"was: {errors[0]}",
            ConvergenceWarning,
        )
    usable = [i for i, (_, error) in enumerate(found) if error is None]
    step = -(-len(X) // _MOST_SCORED)
    weight, targets = (None if a is None else a[::step] for a in (sample_weight, y))
    some = X[::step]
    scores = [np.average(models[i]._log_prob_given(some, targets), weights=weight) for i in usable]
    best = usable[int(np.nanargmax(scores))]
    vars(estimator).update(vars(models[best]))
    return found[best][0]


def _result_or_error(
    start: Part, fit: Callable[..., Any], model: Any, rng: np.random.RandomState
) -> tuple[Any, DivergenceError | None]:
    """The result of a fit, or its error if it diverges."""
    try:
        with part_of(start):
            return fit(model, rng), None
    except DivergenceError as error:
        return None, error
