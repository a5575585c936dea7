"""Out of memory: the error that says what to ask for instead."""

from collections.abc import Iterator
from contextlib import contextmanager


@contextmanager
def advising(remedy: str) -> Iterator[None]:
    """Add to a MemoryError of the block which argument takes so much, and what takes less."""
    try:
        yield
    except MemoryError as error:
        what = str(error).rstrip(".") or "Out of memory"
        raise MemoryError(f"{what}. {remedy}") from error
