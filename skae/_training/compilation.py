"""Compiled losses; on a GPU, those of small networks run as CUDA graphs."""

from collections.abc import Callable

import torch

from skae._training.data import Batch
from skae._training.module import Loss

# With at most this many multiplications in the largest product of a step, a GPU takes longer to
# start the operations of a step than to compute them. A CUDA graph starts them all at once.
_SMALL = 2**31


def compiled(
    loss: Callable[[Batch], Loss], device: torch.device, n_products: int
) -> Callable[[Batch], Loss]:
    """Return a compiled loss; `n_products` are the multiplications of a step's largest product."""
    if device.type != "cuda" or n_products > _SMALL:
        return torch.compile(loss, dynamic=False)
    graph = torch.compile(loss, dynamic=False, mode="reduce-overhead")

    def recorded(batch: Batch) -> Loss:
        # The next step writes its results to the same memory. What is read after it is copied.
        torch.compiler.cudagraph_mark_step_begin()
        found = graph(batch)
        terms, logged = (
            {name: value.clone() for name, value in values.items()}
            for values in (found.terms, found.logged)
        )
        return found._replace(terms=terms, logged=logged)

    return recorded
