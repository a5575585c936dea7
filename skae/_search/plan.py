"""Find the calls of a search that have work in common, and divide them into units."""

from collections import defaultdict
from dataclasses import dataclass, field
from typing import Any

from sklearn.utils import get_tags

from skae._search.evaluation import Call, model_of
from skae._search.same_work import (
    family,
    fingerprint,
    is_network,
    is_repeatable,
    sizes_of_one_fit,
    steps_of,
    trains_network,
)

ALONE = "no other candidate has the same work"
_UNSEEDED = "its training may give another result each time: it needs an integer random_state"
_SEVERAL_STARTS = "its starts (n_init) are trained together, without other candidates"


@dataclass
class Plan:
    """The numbers of the calls that are evaluated together, and reasons for all others.

    Calls of a unit in `units` share steps or sizes within a fold. The calls in `networks` train
    together. `families` are the units of each family of models that differ only in size.
    """

    units: list[list[int]] = field(default_factory=list)
    families: dict[str, list[list[int]]] = field(default_factory=dict)
    networks: list[int] = field(default_factory=list)
    alone: list[int] = field(default_factory=list)
    reasons: dict[int, str] = field(default_factory=dict)


def candidate_of(call: Call) -> int:
    """The number of the candidate; 0 in cross-validation, which has only one."""
    return (call[2].get("candidate_progress") or (0,))[0]


def split_of(number: int, call: Call) -> int:
    """The number of the fold, which is the number of the call in cross-validation."""
    return (call[2].get("split_progress") or (number,))[0]


def make_plan(calls: list[Call], n_jobs: int, approximate: bool) -> Plan:
    """Find calls with work in common.

    With several jobs, the last folds may be fewer than the jobs. Their calls are then divided into
    several units, and steps are fitted once for each unit.
    """
    candidates = _Candidates(calls, approximate)
    plan = Plan(reasons=dict(candidates.reasons))
    groups: dict[tuple[int, str], list[int]] = defaultdict(list)
    for number, call in enumerate(calls):
        candidate = candidate_of(call)
        if candidate in candidates.networks:
            plan.networks.append(number)
        elif candidate in candidates.shared:
            groups[split_of(number, call), candidates.shared[candidate]].append(number)
        else:
            plan.alone.append(number)
    if len(plan.networks) == 1:
        plan.reasons[candidate_of(calls[plan.networks[0]])] = ALONE
        plan.alone += plan.networks
        plan.networks = []
    splits = sorted({split for split, _ in groups})
    last = splits[len(splits) // n_jobs * n_jobs :]
    for (split, key), numbers in groups.items():
        if len(numbers) < 2:
            plan.alone += numbers
            plan.reasons.update({candidate_of(calls[number]): ALONE for number in numbers})
            continue
        is_cut = split in last and key not in candidates.whole
        n_pieces = min(len(numbers) // 2, -(-2 * n_jobs // len(last))) if is_cut else 1
        size = -(-len(numbers) // n_pieces)
        plan.units += [numbers[i : i + size] for i in range(0, len(numbers), size)]
        if key in candidates.whole:
            plan.families.setdefault(key, []).append(numbers)
    plan.alone.sort()
    return plan


class _Candidates:
    """The work that candidates of a search have in common in every fold."""

    def __init__(self, calls: list[Call], approximate: bool) -> None:
        self.networks: set[int] = set()
        self.shared: dict[int, str] = {}  # key of the common first step of each candidate
        self.whole: set[str] = set()  # keys of single fits for all sizes, which are not divided
        self.reasons: dict[int, str] = {}
        families: dict[str, list[tuple[int, list[Any]]]] = defaultdict(list)
        first = {candidate_of(call): call for call in reversed(calls)}
        for candidate, call in sorted(first.items(), key=lambda item: item[0]):
            try:
                model = model_of(call)
                pairwise = get_tags(model).input_tags.pairwise
            except Exception:  # the call itself will raise this error
                self.reasons[candidate] = "its parameters are not accepted"
                continue
            steps = steps_of(model)
            if pairwise:
                self.reasons[candidate] = "its rows are pairwise distances or kernels"
            elif any(map(is_network, steps)):
                self.networks.add(candidate)
                if any(getattr(step, "n_init", 1) > 1 for step in steps):
                    self.reasons[candidate] = _SEVERAL_STARTS
            elif (key := family(steps[0])) is not None:
                families[key].append((candidate, steps))
            else:
                self._by_step(candidate, steps)
        X = calls[0][1][1]
        for key, members in families.items():
            sizes = [steps[0].n_components for _, steps in members]
            shared = sizes_of_one_fit(members[0][1][0], X, sizes, approximate)
            for candidate, steps in members:
                size = steps[0].n_components
                if any(type(size) is type(other) and size == other for other in shared):
                    self.shared[candidate] = key
                    if len(steps) == 1:
                        self.whole.add(key)
                else:
                    self._by_step(candidate, steps)

    def _by_step(self, candidate: int, steps: list[Any]) -> None:
        """Store the first step of a candidate, whose fit it may share with other candidates."""
        key = fingerprint(steps[0])
        if len(steps) < 2 and trains_network(steps[0]):
            self.reasons[candidate] = _UNSEEDED
        elif len(steps) < 2:
            self.reasons[candidate] = "it has no earlier step, and its sizes need separate fits"
        elif key is None or not is_repeatable(steps[0]):
            self.reasons[candidate] = (
                f"repeated fits of its first step, {type(steps[0]).__name__}, may give different "
                "results: only steps of scikit-learn and skae with an integer random_state are "
                "shared"
            )
        else:
            self.shared[candidate] = key
