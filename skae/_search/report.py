"""Report of the work that a search has shared, as entries and as one line."""

from typing import Any

from skae._search.evaluation import Call
from skae._search.pieces import Piece
from skae._search.plan import candidate_of, split_of

_WORDS = {
    "step": "{} fitted once for several candidates",
    "sizes": "{} fitted once for several sizes",
    "training": "{} trained together",
}
_OTHERWISE = (
    "its fit raised an error, its steps cannot be shared on these rows, or they have callbacks"
)


class Report:
    """Entries for `shared_fits_`. A search may evaluate its candidates in several rounds."""

    def __init__(self) -> None:
        self.entries: list[dict[str, Any]] = []
        self._n_candidates = 0

    def add(self, calls: list[Call], pieces: list[Piece], reasons: dict[int, str]) -> str:
        """Add shared pieces of work, and the reasons of candidates without any; return one line.

        The keys of `reasons` are the numbers of the candidates among these calls.
        """
        shared: set[int] = set()
        counts: dict[str, int] = {}
        for piece in pieces:
            if len(piece.users) < 2:
                continue
            shared.update(piece.users)
            text = _WORDS[piece.how].format(piece.step)
            counts[text] = counts.get(text, 0) + 1
            by_split: dict[int, list[int]] = {}
            for number in sorted(piece.users):
                members = by_split.setdefault(split_of(number, calls[number]), [])
                members.append(self._n_candidates + candidate_of(calls[number]))
            for split, members in sorted(by_split.items()):
                self._enter(split, members, piece.how, piece.step)
        for number, call in enumerate(calls):
            if number not in shared:
                why = reasons.get(candidate_of(call), _OTHERWISE)
                self._enter_alone(self._n_candidates + candidate_of(call), why)
        self._n_candidates += len({candidate_of(call) for call in calls})
        if not shared:
            return f"No work was shared in {len(calls)} fits."
        times = {text: "once" if n == 1 else f"{n} times" for text, n in counts.items()}
        done = "; ".join(f"{text} ({often})" for text, often in times.items())
        return f"Work was shared in {len(shared)} of {len(calls)} fits: {done}."

    def _enter(self, split: int, candidates: list[int], how: str, step: str) -> None:
        entry = {"split": split, "candidates": candidates, "how": how, "step": step, "why": None}
        if entry not in self.entries:  # an estimator may train several networks
            self.entries.append(entry)

    def _enter_alone(self, candidate: int, why: str) -> None:
        for entry in self.entries:
            if entry["why"] == why:
                if candidate not in entry["candidates"]:
                    entry["candidates"].append(candidate)
                return
        self.entries.append(
            {"split": None, "candidates": [candidate], "how": None, "step": None, "why": why}
        )
