"""Conversion of tensors to arrays for saving, and detection of modules in parameters."""

from numbers import Real
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn


def is_same(new: object, old: object) -> bool:
    """Return whether two parameters hold the same module, alone or in a pair with a number."""
    if isinstance(new, tuple) and isinstance(old, tuple):
        return len(new) == len(old) and all(map(is_same, new, old))
    return new is old or (isinstance(new, Real) and new == old)


def holds_module(value: object) -> bool:
    if isinstance(value, (tuple, list)):
        return any(map(holds_module, value))
    return isinstance(value, nn.Module)


def to_arrays(value: Any) -> Any:
    """Return the same nested containers with arrays instead of tensors."""
    if isinstance(value, Tensor):
        return value.detach().cpu().numpy().copy()
    if isinstance(value, dict):
        return {key: to_arrays(item) for key, item in value.items()}
    if isinstance(value, (list, tuple)):
        return type(value)(to_arrays(item) for item in value)
    return value


def to_tensors(value: Any) -> Any:
    """Return the same nested containers with tensors instead of arrays."""
    if isinstance(value, (np.ndarray, np.generic)):
        return torch.as_tensor(np.array(value))
    if isinstance(value, dict):
        return {key: to_tensors(item) for key, item in value.items()}
    if isinstance(value, (list, tuple)):
        return type(value)(to_tensors(item) for item in value)
    return value
