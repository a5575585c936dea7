"""How large the network of a density is, and how long it is trained, where that is left open."""

from typing import NamedTuple


class NetworkSizes(NamedTuple):
    """Components of each conditional, numbers at each position, and epochs."""

    n_mixture: int
    n_channels: int
    n_epochs: int


# From so many rows on a causal network gains by the larger sizes; fewer it learns by heart.
# Found by held-out scores of digits, wine, breast cancer and MNIST. 16 components are a whole
# number of a CPU's vectors: a softmax of 10 takes three times as long (torch 2.13).
_MANY = 5_000
_OF_FEW_ROWS = NetworkSizes(n_mixture=16, n_channels=32, n_epochs=35)
_USUAL = NetworkSizes(n_mixture=30, n_channels=64, n_epochs=50)


def sizes_for(density: str, n_rows: int | None) -> NetworkSizes:
    """The sizes of a density for so many rows; None are those of a stream, which nobody knows.

    Flows, which are smooth, have the same for any number.
    """
    is_small = density == "autoregressive" and n_rows is not None and n_rows < _MANY
    return _OF_FEW_ROWS if is_small else _USUAL


def n_epochs_for(max_iter: int | None, density: str, n_rows: int) -> int:
    """The epochs that are asked for, or those for so many rows."""
    return sizes_for(density, n_rows).n_epochs if max_iter is None else int(max_iter)
