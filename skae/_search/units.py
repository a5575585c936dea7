"""Evaluate units of calls: calls of a fold one after the other, or networks together."""

import time
from collections.abc import Iterator
from numbers import Integral
from typing import Any

from skae._linear.fold_moments import FoldMoments
from skae._search.evaluation import Call, Evaluation, model_of
from skae._search.fold import Root
from skae._search.pieces import Piece
from skae._search.plan import candidate_of, split_of
from skae._search.same_work import Keys, by_first_appearance, is_network, steps_of

Result = dict[str, Any]

_OWN_STARTS = "its starts (n_init) are trained together, without other candidates"


def evaluate_unit(
    calls: list[Call], approximate: bool, moments: dict[str, FoldMoments]
) -> tuple[list[Result], list[Piece]]:
    """Evaluate calls of a fold one after the other, so that they can share work.

    Calls with the same steps follow each other, and results that no later call needs are freed.
    `moments` are the moments of the rows of the fold.
    """
    models = [model_of(call) for call in calls]
    candidates = [steps_of(model) for model in models]
    keys = Keys()
    root = Root(candidates, keys, approximate=approximate, moments=moments)
    paths = [keys.path(steps) for steps in candidates]
    depth = max(map(len, paths))
    ranks = [by_first_appearance([path[:n] for path in paths]) for n in range(1, depth + 1)]
    order = sorted(
        range(len(calls)),
        key=lambda user: [rank(paths[user][: n + 1]) for n, rank in enumerate(ranks)],
    )
    try:
        results = {user: Evaluation(calls[user], models[user], root, user).run() for user in order}
    finally:
        root.let_go()
    for piece in root.pieces:
        piece.divide(results)
    return [results[user] for user in range(len(calls))], root.pieces


def evaluate_together(
    calls: dict[int, Call], *, approximate: bool, memory_limit: int | None
) -> tuple[dict[int, Result], list[Piece], dict[int, str]]:
    """Evaluate calls that train networks; the networks of all folds are trained together.

    If several calls have a common network before the last step, the first call trains it, and the
    others follow in a later round. The third result says why the networks of some candidates were
    trained separately.
    """
    from skae._training.together import SharedTraining, run_together  # loads torch

    models = {number: model_of(call) for number, call in calls.items()}
    steps = {number: steps_of(model) for number, model in models.items()}
    splits = {number: split_of(number, call) for number, call in calls.items()}
    keys, roots = Keys(), {}
    for split in dict.fromkeys(splits.values()):
        candidates = [steps[number] for number in calls if splits[number] == split]
        roots[split] = Root(candidates, keys, approximate=approximate, keep=True)
    results: dict[int, Result] = {}
    pieces: list[Piece] = []
    reasons: dict[int, str] = {}
    try:
        for numbers in _rounds(steps, splits, keys):
            jobs = [
                Evaluation(calls[number], models[number], roots[splits[number]], number).run
                for number in numbers
            ]
            trainings: list[SharedTraining] = []
            begin = time.time()
            found = run_together(jobs, memory_limit=memory_limit, report=trainings)
            _divide_time(found, time.time() - begin)
            results.update(zip(numbers, found, strict=True))
            for training in trainings:
                members = [numbers[call] for call in training.calls]
                if training.obstacle is None:
                    pieces.append(Piece("training", _network_of(steps[members[0]]), members))
                else:
                    reasons[candidate_of(calls[members[0]])] = training.obstacle
            for number in numbers:
                if any(is_network(step) and _n_starts(step) > 1 for step in steps[number]):
                    reasons[candidate_of(calls[number])] = _OWN_STARTS
    finally:
        for root in roots.values():
            root.let_go()
    for root in roots.values():
        pieces += root.pieces
    return results, pieces, reasons


def _divide_time(results: list[Result], seconds: float) -> None:
    """Divide the time of the training equally among all calls that were trained together."""
    if results and "fit_time" in results[0]:
        scoring = sum(result["score_time"] for result in results)
        for result in results:
            result["fit_time"] = max(seconds - scoring, 0.0) / len(results)


def _n_starts(network: Any) -> int:
    n_init = getattr(network, "n_init", 1)
    return int(n_init) if isinstance(n_init, Integral) else 1


def _network_of(steps: list[Any]) -> str:
    return ", ".join(type(step).__name__ for step in steps if is_network(step))


def _rounds(steps: dict[int, list[Any]], splits: dict[int, int], keys: Keys) -> Iterator[list[int]]:
    """Divide the calls into rounds. In a round, no two calls need to train the same network."""
    needs = {}
    for number, its_steps in steps.items():
        path = keys.path(its_steps)
        needs[number] = {
            (splits[number], path[: index + 1])
            for index, step in enumerate(its_steps[:-1])
            if is_network(step) and None not in path[: index + 1]
        }
    done: set[Any] = set()
    waiting = list(steps)
    while waiting:
        claimed: set[Any] = set()
        now, later = [], []
        for number in waiting:
            missing = needs[number] - done
            if missing & claimed:
                later.append(number)
            else:
                claimed |= missing
                now.append(number)
        yield now
        done |= claimed
        waiting = later
