"""Mean scores of the rows of a Dask collection, from the mean scores of its blocks."""

from dataclasses import dataclass
from typing import Any

import numpy as np
from sklearn import get_config

from skae._dask.alignment import align, check_columns_known, combined, results_of_blocks
from skae._dask.fitted import Call, Fitted
from skae._linear.moments import rounded_count
from skae._utils.wrapping import model_of

Score = tuple[float, float]


def mean_score(
    estimator: Any, X: Any, y: Any = None, sample_weight: Any = None, **score_params: Any
) -> Score:
    """The mean score of all rows, and their number or the sum of their weights."""
    from dask.delayed import delayed

    check_columns_known(X)
    model = model_of(estimator)
    if type(model).__module__.startswith("skae.") and not getattr(model, "conditional", False):
        y = None  # which is ignored
    given = align(X, y=y, sample_weight=sample_weight)
    call = Call(Fitted.of(estimator, None), "score", score_params, get_config())
    task = delayed(BlockScore(call), traverse=False)
    found = combined(results_of_blocks(given, task), combined_scores)
    if found is None:
        raise ValueError(
            "X has no rows of positive weight, and the mean of their scores needs at least one."
        )
    mean, n = found
    return mean, rounded_count(n)


@dataclass(frozen=True, eq=False)
class BlockScore:
    """The mean score of a block, and its number of rows or the sum of their weights."""

    call: Call

    def __call__(self, rows: Any, sample_weight: Any = None, **beside: Any) -> Score | None:
        n = float(rows.shape[0])
        if sample_weight is not None:
            weight = np.asarray(sample_weight)
            if weight.ndim == 1 and weight.shape == rows.shape[:1] and not weight.any():
                return None
            n = float(weight.sum(dtype=np.float64) * (n if weight.ndim == 0 else 1))
            beside["sample_weight"] = sample_weight
        if not rows.shape[0]:
            return None
        return float(self.call(rows, **beside)), n


def combined_scores(parts: list[Score | None]) -> Score | None:
    """The mean score of all rows together."""
    found = [part for part in parts if part is not None]
    if not found:
        return None
    scores, counts = np.array(found).T
    n = float(counts.sum())
    return float(scores @ (counts / n)), n
