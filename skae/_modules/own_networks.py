"""Networks of the user: modules, which are copied, and functions that make modules."""

import copy
from collections.abc import Callable
from typing import Any, NamedTuple

import torch
from torch import nn

from skae._nn.networks import FromImages, Shape, ToImages, check_network
from skae._training.random_state import preserve_global_rngs
from skae._utils.memory import is_lack_of_memory

# A module, or a function or class that is called with the number of columns of rows and the number
# of values of a code, and returns a module.
Network = nn.Module | Callable[[int, int], nn.Module]


class Place(NamedTuple):
    """Where a network belongs: the parameter that gives it, and the sizes that it has to have."""

    name: str  # of the parameter
    n_features: int  # columns of rows that it reads or writes
    n_code_values: int  # for which a function is asked
    n_inputs: int
    n_outputs: int  # of the encoder more than code values, if it also gives variances


def is_factory(network: object) -> bool:
    """Return whether a parameter is a function that makes a network, and not a network."""
    return callable(network) and not isinstance(network, nn.Module)


def own_network(
    given: Network,
    place: Place,
    image_shape: Shape | None,
    generator: torch.Generator,
) -> nn.Module:
    """Return a copy of a module, or the module that a function makes, with the right shapes.

    What a function draws from the global generators is determined by the given generator.
    """
    if isinstance(given, nn.Module):
        return _for_rows(copy.deepcopy(given).cpu(), place, image_shape)
    seed = int(torch.randint(2**31 - 1, (), generator=generator))
    # Modules that choose their sizes at the first batch draw their weights in the check.
    with preserve_global_rngs(seed):
        return _for_rows(_made(given, place), place, image_shape)


def _made(factory: Callable[[int, int], nn.Module], place: Place) -> nn.Module:
    call = f"{place.name}={factory!r}, called with ({place.n_features}, {place.n_code_values}),"
    try:
        made: Any = factory(place.n_features, place.n_code_values)
    except Exception as error:
        if is_lack_of_memory(error):
            raise
        raise ValueError(
            f"{call} raised {type(error).__name__}: {error}. It is called with two positional "
            "arguments, (n_features_in, n_components), and must return a torch.nn.Module."
        ) from error
    if not isinstance(made, nn.Module):
        raise TypeError(f"{call} must return a torch.nn.Module, got {made!r}.")
    # A function may return a module that it also keeps elsewhere, such as a pretrained one.
    return copy.deepcopy(made).cpu()


def _for_rows(network: nn.Module, place: Place, image_shape: Shape | None) -> nn.Module:
    """Return a network that reads or writes rows; raise an error if its shapes are wrong."""
    if image_shape is not None:
        is_encoder = place.name == "encoder"
        network = FromImages(network, image_shape) if is_encoder else ToImages(network)
    check_network(place.name, network, place.n_inputs, place.n_outputs)
    return network
