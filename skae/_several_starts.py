"""The best of several fits of a network that begin at other seeds (`n_init`)."""

import copy
from collections.abc import Callable
from functools import partial
from typing import Any

import numpy as np
from numpy.typing import NDArray

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
    given a copy of the estimator and a generator; what it returns of the best is returned.
    """
    first = copy.deepcopy(rng)
    others = [np.random.RandomState(rng.randint(2**31 - 1)) for _ in range(estimator.n_init - 1)]
    models = [copy.copy(estimator) for _ in range(estimator.n_init)]
    calls = [partial(fit, *pair) for pair in zip(models, [first, *others], strict=True)]
    with inside_another_fit():  # of fits that are cut short none is the best
        results = run_together(calls)
    step = -(-len(X) // _MOST_SCORED)
    weight = None if sample_weight is None else sample_weight[::step]
    scores = [np.average(model._log_prob(X[::step]), weights=weight) for model in models]
    best = int(np.nanargmax(scores))
    vars(estimator).update(vars(models[best]))
    return results[best]
