"""Pieces of work that several candidates share, with their time and their users."""

import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any


@dataclass
class Piece:
    """Work that is done once on a fold, with the seconds for its fit and for scoring test rows."""

    how: str
    step: str
    users: list[int] = field(default_factory=list)
    seconds: dict[str, float] = field(default_factory=lambda: {"fit_time": 0.0, "score_time": 0.0})
    payer: dict[str, int] = field(default_factory=dict)

    @contextmanager
    def paid_by(self, user: int, time_of: str | None = "fit_time") -> Iterator[None]:
        """Count the seconds of the block, which the measured time of `user` contains."""
        begin = time.time()
        yield
        if time_of is not None:
            self.seconds[time_of] += time.time() - begin
            self.payer[time_of] = user

    def used_by(self, user: int) -> None:
        """Add a candidate that uses the work, if it is new."""
        if user not in self.users:
            self.users.append(user)

    def renumbered(self, numbers: list[int]) -> "Piece":
        """The same piece with other numbers for its users: user i becomes `numbers[i]`."""
        return Piece(self.how, self.step, [numbers[user] for user in self.users], self.seconds)

    def divide(self, results: dict[int, dict[str, Any]]) -> None:
        """Divide the seconds equally among all users, instead of the one that measured them."""
        for time_of, payer in self.payer.items():
            seconds = self.seconds[time_of]
            results[payer][time_of] -= seconds
            for user in self.users:
                results[user][time_of] += seconds / len(self.users)
