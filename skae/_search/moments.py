"""Moments of the rows of all folds, to which families of linear models are fitted."""

import time
from typing import Any

from skae._linear.fold_moments import FoldMoments
from skae._linear.sizes import fold_moments
from skae._search.evaluation import Call, model_of
from skae._search.plan import Plan


class MomentsOfFolds:
    """Moments for the units of a plan whose models are fitted in one pass over all rows."""

    def __init__(self, calls: list[Call], plan: Plan) -> None:
        self._found: dict[int, dict[str, FoldMoments]] = {}  # key: the first call of the unit
        self._seconds: dict[int, float] = {}  # seconds for each call of the unit
        for key, units in plan.families.items():
            begin = time.time()
            folds = _moments(calls, units)
            seconds = (time.time() - begin) / sum(map(len, units))
            for unit, fold in zip(units, folds or (), strict=False):
                self._found[unit[0]] = {key: fold}
                self._seconds[unit[0]] = seconds

    def of(self, unit: list[int]) -> dict[str, FoldMoments]:
        """Moments for a unit, by family of models."""
        return self._found.get(unit[0], {})

    def add_time(self, unit: list[int], results: list[dict[str, Any]]) -> None:
        """Add to each fit its share of the time of the pass."""
        for result in results:
            result["fit_time"] += self._seconds.get(unit[0], 0.0)


def _moments(calls: list[Call], units: list[list[int]]) -> list[FoldMoments] | None:
    _, (_, X, _), keywords = calls[units[0][0]]
    if keywords["fit_params"]:  # these may contain weights
        return None
    models = [model_of(calls[number]) for number in units[0]]
    splits = [(calls[unit[0]][2]["train"], calls[unit[0]][2]["test"]) for unit in units]
    try:
        return fold_moments(models[0], X, [model.n_components for model in models], splits)
    except Exception:  # the fit of a candidate will raise this error
        return None
