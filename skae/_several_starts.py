"""The best of several fits of a network that begin at other seeds (`n_init`)."""

import copy
import warnings
from collections.abc import Callable
from functools import partial
from typing import Any

import numpy as np
from numpy.typing import NDArray
from sklearn.exceptions import ConvergenceWarning

from skae._training.together import run_together
from skae._utils.interrupts import inside_another_fit

Array = NDArray[Any]

# Rows whose scores tell which fit is best.
_MOST_SCORED = 10_000


def fit_best_of(
    estimator: Any,
    X: Array,
    rng: np.random.RandomState,
    sample_weight: Array | None,
    fit: Callable[[Any, np.random.RandomState], Any],
) -> Any:
    """Let an estimator be the best of its fits from `n_init` seeds, by the score of the rows.

    The first is the one that it would be without others; they are trained as one. `fit` is
    given a copy of the estimator and a generator; what it returns of the best is returned. Fits
    that diverge are left out, with a warning; where all fail, the error of the first is raised.
    """
    first = copy.deepcopy(rng)
    others = [np.random.RandomState(rng.randint(2**31 - 1)) for _ in range(estimator.n_init - 1)]
    models = [copy.copy(estimator) for _ in range(estimator.n_init)]
    starts = zip(models, [first, *others], strict=True)
    calls = [partial(_result_or_error, fit, *start) for start in starts]
    with inside_another_fit():  # of fits that are cut short none is the best
        found = run_together(calls)
    errors = [error for _, error in found if error is not None]
    if len(errors) == len(found):
        raise errors[0]
    if errors:
        warnings.warn(
            f"Of n_init={len(found)} starts {len(errors)} failed and are left out, the first "
            f"with: {errors[0]}",
            ConvergenceWarning,
            stacklevel=2,
        )
    usable = [i for i, (_, error) in enumerate(found) if error is None]
    step = -(-len(X) // _MOST_SCORED)
    weight = None if sample_weight is None else sample_weight[::step]
    scores = [np.average(models[i]._log_prob(X[::step]), weights=weight) for i in usable]
    best = usable[int(np.nanargmax(scores))]
    vars(estimator).update(vars(models[best]))
    return found[best][0]


def _result_or_error(
    fit: Callable[..., Any], model: Any, rng: np.random.RandomState
) -> tuple[Any, ValueError | None]:
    """What a fit returns, or why it cannot: a start may diverge that others do not."""
    try:
        return fit(model, rng), None
    except ValueError as error:
        return None, error
