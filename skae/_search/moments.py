"""Moments of the rows of all folds, for families of linear models that are fitted to them."""

import time
from typing import Any

from skae._linear.fold_moments import FoldMoments
from skae._linear.sizes import fold_moments
from skae._search.evaluation import Call, model_of
from skae._search.plan import Plan


class MomentsOfFolds:
    """Of the units of a plan, where models of all sizes and folds follow from one pass."""

    def __init__(self, calls: list[Call], plan: Plan) -> None:
        self._found: dict[int, dict[str, FoldMoments]] = {}  # by the first call of the unit
        self._seconds: dict[int, float] = {}  # of each of its calls
        for key, units in plan.families.items():
            begin = time.time()
            folds = _moments(calls, units)
            seconds = (time.time() - begin) / sum(map(len, units))
            for unit, fold in zip(units, folds or (), strict=False):
                self._found[unit[0]] = {key: fold}
                self._seconds[unit[0]] = seconds

    def of(self, unit: list[int]) -> dict[str, FoldMoments]:
        """By the family of models."""
        return self._found.get(unit[0], {})

    def add_time(self, unit: list[int], results: list[dict[str, Any]]) -> None:
        """Add to each fit its share of the pass."""
        for result in results:
            result["fit_time"] += self._seconds.get(unit[0], 0.0)


def _moments(calls: list[Call], units: list[list[int]]) -> list[FoldMoments] | None:
    _, (_, X, _), keywords = calls[units[0][0]]
    if keywords["fit_params"]:  # weights
        return None
    models = [model_of(calls[number]) for number in units[0]]
    splits = [(calls[unit[0]][2]["train"], calls[unit[0]][2]["test"]) for unit in units]
    try:
        return fold_moments(models[0], X, [model.n_components for model in models], splits)
    except Exception:  # a fit tells its reason
        return None
