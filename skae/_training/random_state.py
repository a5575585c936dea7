"""Global generators that foreign code may read: their states are preserved, or seeded."""

from collections.abc import Iterator
from contextlib import contextmanager

import numpy as np
import torch


def global_generators(device: str) -> list[torch.Generator]:
    """Return torch's own generators that a module on this device may read."""
    generators = [torch.default_generator]
    place = torch.device(device)
    if place.type == "cuda":
        index = torch.cuda.current_device() if place.index is None else place.index
        generators.append(torch.cuda.default_generators[index])
    return generators


@contextmanager
def preserve_rng_state(device: str = "cpu", seed: int | None = None) -> Iterator[None]:
    """Restore torch's global generators when the block ends; seed them for it if asked."""
    generators = global_generators(device)
    states = [generator.get_state() for generator in generators]
    if seed is not None:
        for generator in generators:
            generator.manual_seed(seed)
    try:
        yield
    finally:
        for generator, state in zip(generators, states, strict=True):
            generator.set_state(state)


@contextmanager
def preserve_global_rngs(seed: int | None = None) -> Iterator[None]:
    """Restore NumPy's and torch's global generators after the block; seed them for it if asked."""
    state = np.random.get_state()  # noqa: NPY002 (wrapped code may read it)
    try:
        with preserve_rng_state(seed=seed):
            if seed is not None:
                np.random.seed(seed)  # noqa: NPY002
            yield
    finally:
        np.random.set_state(state)  # noqa: NPY002
