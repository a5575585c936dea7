"""Evaluate all calls of a search, in place of Parallel of scikit-learn."""

from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field
from itertools import chain, pairwise
from typing import Any

from joblib import effective_n_jobs
from scipy import sparse
from sklearn.utils import parallel

from skae._search.advice import warn_of_scores
from skae._search.evaluation import Call, named
from skae._search.moments import MomentsOfFolds
from skae._search.pieces import Piece
from skae._search.plan import make_plan, split_of
from skae._search.report import Report
from skae._search.scikit_learn import fit_and_score
from skae._search.units import Result, evaluate_together, evaluate_unit
from skae._utils.fit_names import Part, present_parts

# Default limit in bytes for the rows of folds whose networks train together.
_MEMORY_LIMIT = 2 * 2**30
# Arrays of sparse matrices.
_PARTS = ("data", "indices", "indptr", "row", "col")


@dataclass
class Sharing:
    """Options for sharing, and a report of the work that was shared."""

    share: bool = True
    approximate: bool = False
    memory_limit: int | None = None
    advises: str | None = None  # name of the search if it ranks by the scores of the estimators
    report: Report = field(default_factory=Report)
    within: tuple[Part, ...] = field(default_factory=present_parts)  # what the search is part of

    def parallel(self, **options: Any) -> "Parallel":
        """Create the object that scikit-learn uses under the name Parallel."""
        return Parallel(self, **options)


class Parallel(parallel.Parallel):
    """Parallel of scikit-learn, for calls of `_fit_and_score` that may have work in common."""

    def __init__(self, sharing: Sharing, **options: Any) -> None:
        super().__init__(**options)
        self._sharing = sharing
        self._n_jobs_asked = options.get("n_jobs")

    def __call__(self, iterable: Iterable[Call]) -> list[Result]:
        """Evaluate the calls; returns their results in the same order."""
        calls = list(iterable)
        if not calls or any(
            getattr(call[0], "function", None) is not fit_and_score for call in calls
        ):
            return super().__call__(calls)
        sharing = self._sharing
        if sharing.advises is not None:
            warn_of_scores(sharing.advises, calls)
        calls = named(calls, sharing.within)
        if not sharing.share:
            sharing.report.add(calls, [], dict.fromkeys(range(len(calls)), "share is False"))
            return super().__call__(calls)
        plan = make_plan(calls, effective_n_jobs(self._n_jobs_asked), sharing.approximate)
        results: dict[int, Result] = {}
        pieces: list[Piece] = []
        moments = MomentsOfFolds(calls, plan)
        tasks = [
            parallel.delayed(evaluate_unit)(
                [calls[i] for i in unit], sharing.approximate, moments.of(unit)
            )
            for unit in plan.units
        ]
        tasks += [calls[number] for number in plan.alone]
        done = super().__call__(tasks) if tasks else []
        for unit, (found, made) in zip(plan.units, done, strict=False):
            moments.add_time(unit, found)
            results.update(zip(unit, found, strict=True))
            pieces += [piece.renumbered(unit) for piece in made]
        results.update(zip(plan.alone, done[len(plan.units) :], strict=True))
        for numbers in self._that_fit_memory(plan.networks, calls):
            for found, made, reasons in self._train(numbers, calls):
                results.update(found)
                pieces += made
                plan.reasons.update(reasons)
        line = sharing.report.add(calls, pieces, plan.reasons)
        if calls[0][2].get("verbose"):
            print(line)
        return [results[number] for number in range(len(calls))]

    def _train(self, numbers: list[int], calls: list[Call]) -> list[Any]:
        """Evaluate calls whose networks train together, divided equally among the jobs.

        Each job trains its own networks, so that the jobs do not wait for each other.
        """
        n_jobs = min(effective_n_jobs(self._n_jobs_asked), max(1, len(numbers) // 2))
        by_split = sorted(numbers, key=lambda number: (split_of(number, calls[number]), number))
        limit = self._sharing.memory_limit
        bounds = [len(numbers) * job // n_jobs for job in range(n_jobs + 1)]
        done: list[Any] = super().__call__(
            [
                parallel.delayed(evaluate_together)(
                    {number: calls[number] for number in sorted(by_split[begin:end])},
                    approximate=self._sharing.approximate,
                    memory_limit=None if limit is None else limit // n_jobs,
                )
                for begin, end in pairwise(bounds)
            ]
        )
        return done

    def _that_fit_memory(self, numbers: list[int], calls: list[Call]) -> Iterator[list[int]]:
        """Groups of calls: as many folds at a time as the memory limit allows for their rows."""
        folds: dict[int, list[int]] = {}
        for number in numbers:
            folds.setdefault(split_of(number, calls[number]), []).append(number)
        groups = list(folds.values())
        bytes_per_fold = max(n_bytes(calls[0][1][1]), 1)
        at_once = max(1, (self._sharing.memory_limit or _MEMORY_LIMIT) // bytes_per_fold)
        for begin in range(0, len(groups), at_once):
            yield sorted(chain.from_iterable(groups[begin : begin + at_once]))


def n_bytes(X: Any) -> int:
    """Bytes of rows; 0 for containers that do not know it."""
    if sparse.issparse(X):  # which have no nbytes
        return sum(getattr(X, name).nbytes for name in _PARTS if hasattr(X, name))
    return int(getattr(X, "nbytes", 0))
