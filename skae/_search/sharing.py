"""The evaluation of all calls of a search, in the place of scikit-learn's Parallel."""

import time
from collections.abc import Callable, Iterable
from dataclasses import dataclass, field
from functools import partial
from typing import Any

from joblib import effective_n_jobs
from sklearn import config_context, get_config
from sklearn.utils.parallel import Parallel, delayed

from skae._search.advice import warn_of_scores
from skae._search.evaluation import Call, Evaluation, model_of
from skae._search.fold import Root, path_of, sizes_of
from skae._search.pieces import Piece
from skae._search.plan import candidate_of, make_plan, split_of
from skae._search.same_work import by_first_appearance, is_network, steps_of
from skae._search.scikit_learn import fit_and_score

Result = dict[str, Any]


@dataclass
class Sharing:
    """What may be shared, and a report of what was."""

    share: bool = True
    approximate: bool = False
    memory_limit: int | None = None
    advises: str | None = None  # the name of a search that ranks by the estimators' own scores
    report: list[dict[str, Any]] = field(default_factory=list)

    def parallel(self, **options: Any) -> "SharingParallel":
        """In the place of scikit-learn's Parallel."""
        return SharingParallel(self, **options)


class SharingParallel(Parallel):
    """scikit-learn's Parallel, for calls of `_fit_and_score` that may have work in common."""

    def __init__(self, sharing: Sharing, **options: Any) -> None:
        super().__init__(**options)
        self._sharing = sharing
        self._n_jobs_asked = options.get("n_jobs")

    def __call__(self, iterable: Iterable[Call]) -> list[Result]:
        calls = list(iterable)
        known = all(getattr(call[0], "function", None) is fit_and_score for call in calls)
        options = self._sharing
        if options.advises is not None and known:
            warn_of_scores(options.advises, calls)
        if not (options.share and known and calls):
            return super().__call__(calls)
        plan = make_plan(calls, effective_n_jobs(self._n_jobs_asked), options.approximate)
        tasks = [
            delayed(evaluate_unit)([calls[i] for i in unit], options.approximate)
            for unit in plan.units
        ]
        done = super().__call__([*tasks, *(calls[i] for i in plan.alone)])
        results: dict[int, Result] = {}
        pieces: list[Piece] = []
        for unit, (unit_results, unit_pieces) in zip(plan.units, done, strict=False):
            results.update(zip(unit, unit_results, strict=True))
            for piece in unit_pieces:
                piece.users = [unit[user] for user in piece.users]
                pieces.append(piece)
        results.update(zip(plan.alone, done[len(plan.units) :], strict=True))
        for numbers in _within(options.memory_limit, plan.networks, calls):
            found, made = evaluate_together(
                {number: calls[number] for number in numbers}, options
            )
            results.update(found)
            pieces += made
        self._tell(calls, pieces, plan.reasons)
        return [results[number] for number in range(len(calls))]

    def _tell(self, calls: list[Call], pieces: list[Piece], reasons: dict[int, str]) -> None:
        """Add to the report; candidates that share nothing after all are named, too."""
        report = self._sharing.report
        shared: set[int] = set()
        for piece in pieces:
            if len(piece.users) < 2:
                continue
            shared.update(piece.users)
            by_split: dict[int, list[int]] = {}
            for number in sorted(piece.users):
                of_split = by_split.setdefault(split_of(number, calls[number]), [])
                of_split.append(candidate_of(calls[number]))
            for split, candidates in sorted(by_split.items()):
                report.append(_entry(split, candidates, piece.how, piece.step, None))
        whys: dict[str, list[int]] = {}
        for number, call in enumerate(calls):
            candidate = candidate_of(call)
            if number not in shared:
                why = reasons.get(candidate, "the rows or its steps do not allow it")
                if candidate not in whys.setdefault(why, []):
                    whys[why].append(candidate)
        report.extend(_entry(None, whos, None, None, why) for why, whos in whys.items())
        if shared and calls[0][2].get("verbose"):
            print(f"Shared work in {len(shared)} of {len(calls)} fits: {_summary(pieces)}")


def _entry(
    split: int | None, candidates: list[int], how: str | None, step: str | None, why: str | None
) -> dict[str, Any]:
    return {"split": split, "candidates": candidates, "how": how, "step": step, "why": why}


def _summary(pieces: list[Piece]) -> str:
    counts: dict[str, int] = {}
    for piece in pieces:
        if len(piece.users) > 1:
            words = {"step": "fitted", "sizes": "fitted for all sizes", "training": "trained together"}
            text = f"{piece.step} {words[piece.how]}"
            counts[text] = counts.get(text, 0) + 1
    return ", ".join(f"{text} ({count} times)" for text, count in counts.items())


def evaluate_unit(calls: list[Call], approximate: bool) -> tuple[list[Result], list[Piece]]:
    """Evaluate calls of one fold in turn, so that what one has done serves the next.

    Those with the same steps stand together, and what no later one needs is let go.
    """
    candidates = [steps_of(model_of(call)) for call in calls]
    root = Root(sizes_of(candidates), approximate=approximate)
    paths = [path_of(steps) for steps in candidates]
    depth = max(map(len, paths))
    ranks = [by_first_appearance([path[:n] for path in paths]) for n in range(1, depth + 1)]
    order = sorted(
        range(len(calls)),
        key=lambda user: [rank(paths[user][: n + 1]) for n, rank in enumerate(ranks)],
    )
    results = {user: Evaluation(calls[user], root, user).run() for user in order}
    for piece in root.pieces:
        piece.divide(results)
    return [results[user] for user in range(len(calls))], root.pieces


def evaluate_together(
    calls: dict[int, Call], sharing: Sharing
) -> tuple[dict[int, Result], list[Piece]]:
    """Evaluate calls that train networks, those of all folds together.

    A network before the last step that several have in common is trained by the first of them,
    and the others come in a later round.
    """
    from skae._training.together import run_together

    steps = {number: steps_of(model_of(call)) for number, call in calls.items()}
    splits = {number: split_of(number, call) for number, call in calls.items()}
    roots = {}
    for split in dict.fromkeys(splits.values()):
        members = [steps[number] for number in calls if splits[number] == split]
        roots[split] = Root(sizes_of(members), approximate=sharing.approximate, keep=True)
    results: dict[int, Result] = {}
    pieces: list[Piece] = []
    for numbers in _rounds(steps, splits):
        begin = time.time()
        jobs = [
            _in_context(Evaluation(calls[number], roots[splits[number]], number).run)
            for number in numbers
        ]
        found = run_together(jobs, memory_limit=sharing.memory_limit)
        seconds = time.time() - begin
        # All have waited for all: what is not scoring is divided.
        scoring = sum(result.get("score_time", 0.0) for result in found)
        for result in found:
            if "fit_time" in result:
                result["fit_time"] = max(seconds - scoring, 0.0) / len(found)
        results.update(zip(numbers, found, strict=True))
        names = sorted({type(steps[number][-1]).__name__ for number in numbers})
        pieces.append(Piece("training", ", ".join(names), list(numbers)))
    return results, pieces + [piece for root in roots.values() for piece in root.pieces]


def _rounds(steps: dict[int, list[Any]], splits: dict[int, int]) -> Iterable[list[int]]:
    """The calls in rounds in which no two wait for the same network to be trained."""
    needs = {}
    for number, its_steps in steps.items():
        path = path_of(its_steps)
        needs[number] = {
            (splits[number], path[: index + 1])
            for index, step in enumerate(its_steps[:-1])
            if is_network(step) and None not in path[: index + 1]
        }
    done: set[Any] = set()
    waiting = list(steps)
    while waiting:
        claimed: set[Any] = set()
        now = []
        for number in waiting:
            if not (needs[number] - done) & claimed:
                claimed |= needs[number] - done
                now.append(number)
        yield now
        done |= claimed
        waiting = [number for number in waiting if number not in set(now)]


def _in_context(run: Callable[[], Result]) -> Callable[[], Result]:
    """scikit-learn's settings are those of a thread."""
    return partial(_run_in_context, run, get_config())


def _run_in_context(run: Callable[[], Result], config: dict[str, Any]) -> Result:
    with config_context(**config):
        return run()


def _within(limit: int | None, numbers: list[int], calls: list[Call]) -> Iterable[list[int]]:
    """Calls of as many folds at a time as have their rows within a limit, in bytes."""
    folds: dict[int, list[int]] = {}
    for number in numbers:
        folds.setdefault(split_of(number, calls[number]), []).append(number)
    X = calls[0][1][1]
    size = getattr(X, "nbytes", 0)
    at_once = len(folds) if limit is None or not size else max(1, int(limit // size))
    groups = list(folds.values())
    for i in range(0, len(groups), max(at_once, 1)):
        yield sorted(sum(groups[i : i + at_once], []))
