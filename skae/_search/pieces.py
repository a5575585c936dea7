"""Pieces of work that several candidates share: their time, and who shares it."""

import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any


@dataclass
class Piece:
    """Work done once on one fold. The seconds are those of its fit, and of scoring test rows."""

    how: str
    step: str
    users: list[int] = field(default_factory=list)
    seconds: dict[str, float] = field(default_factory=lambda: {"fit_time": 0.0, "score_time": 0.0})
    payer: dict[str, int] = field(default_factory=dict)

    @contextmanager
    def paid_by(self, user: int, time_of: str | None = "fit_time") -> Iterator[None]:
        """Count the seconds of the block, which stand in the time that `user` measures."""
        begin = time.time()
        yield
        if time_of is not None:
            self.seconds[time_of] += time.time() - begin
            self.payer[time_of] = user

    def used_by(self, user: int) -> None:
        """Another candidate, or one that was here before."""
        if user not in self.users:
            self.users.append(user)

    def renumbered(self, numbers: list[int]) -> "Piece":
        """The same piece, whose users have the numbers that stand in a list."""
        return Piece(self.how, self.step, [numbers[user] for user in self.users], self.seconds)

    def divide(self, results: dict[int, dict[str, Any]]) -> None:
        """Take the seconds from who measured them, and give each user an equal share."""
        for time_of, payer in self.payer.items():
            seconds = self.seconds[time_of]
            results[payer][time_of] -= seconds
            for user in self.users:
                results[user][time_of] += seconds / len(self.users)
