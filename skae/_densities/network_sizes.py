"""How large a network of a density is, and how long it is trained, where that is left open."""

from typing import NamedTuple

# Of fewer rows than this the few sizes are taken, of more the many.
_MANY = 5_000


class NetworkSizes(NamedTuple):
    """Components of each conditional, numbers at each position, and epochs."""

    n_mixture: int
    n_channels: int
    n_epochs: int


_FEW_ROWS = NetworkSizes(n_mixture=16, n_channels=32, n_epochs=40)
_MANY_ROWS = NetworkSizes(n_mixture=30, n_channels=64, n_epochs=50)


def sizes_for(n_rows: int | None) -> NetworkSizes:
    """The sizes for so many rows; None are those of a stream, whose number nobody knows."""
    return _MANY_ROWS if n_rows is None or n_rows >= _MANY else _FEW_ROWS


def n_epochs_for(max_iter: int | None, n_rows: int) -> int:
    """The epochs that are asked for, or those for so many rows."""
    return sizes_for(n_rows).n_epochs if max_iter is None else int(max_iter)
