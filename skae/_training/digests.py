"""Digests of parameters and rows, equal in every process in which these are equal."""

import functools
import hashlib
import inspect
import types
from collections.abc import Mapping
from typing import Any

import joblib
import numpy as np
import torch
from numpy.typing import NDArray
from scipy import sparse
from sklearn.base import BaseEstimator
from skorch.callbacks import Callback
from torch import Tensor, nn

from skae._training.array_files import is_storable
from skae._training.data import chunks
from skae._utils.sparse_rows import SparseRows

# Attributes of estimators that say nothing about what they compute.
_UNTOLD = ("_skl", "_sklearn", "_skae", "_parent_callback", "_callback")
# Packages whose classes are known by their names.
_PACKAGES = {"builtins", "numpy", "scipy", "skae", "sklearn", "skorch", "torch"}
# States of trained networks, with their histories.
_NETS = ("net_", "prior_net_")
# Parameters of estimators that change neither the training nor its result.
INDIFFERENT = ("verbose", "device", "checkpoint_dir", "checkpoint_every", "n_jobs", "warm_start")


def digest_of(*values: Any) -> str:
    """Return a digest of values, 32 hexadecimal digits.

    Raises
    ------
    TypeError
        If something cannot be compared between processes.
    """
    found = hashlib.sha256()
    for value in values:
        _add(found, value, ())
    return found.hexdigest()[:32]


def _add(found: Any, value: Any, within: tuple[int, ...]) -> None:
    """Add a value to a digest; `within` are the identities of the values that contain it."""
    if id(value) in within:  # it contains itself
        found.update(b"<above>")
        return
    inner = (*within, id(value))

    def add(kind: str, *parts: Any) -> None:
        found.update(f"<{kind}:{len(parts)}>".encode())
        for part in parts:
            _add(found, part, inner)

    if value is None or isinstance(value, bool | int | float | complex | str | bytes):
        found.update(f"<{type(value).__name__} {value!r}>".encode())
    elif isinstance(value, np.generic) and not value.dtype.hasobject:
        add("number", value.item())
    elif isinstance(value, np.ndarray):
        _add_array(found, value, inner)
    elif isinstance(value, SparseRows):
        add("sparse", value.shape, value.values, value.columns, value.starts)
    elif isinstance(value, Tensor):
        plain = value.detach().cpu()
        bits = plain.view(torch.int16) if plain.dtype == torch.bfloat16 else plain
        add("tensor", str(plain.dtype), bits.numpy())
    elif isinstance(value, Mapping):
        add("mapping", *sorted(value.items(), key=lambda item: repr(item[0])))
    elif isinstance(value, list | tuple):
        add("sequence", *value)
    elif isinstance(value, set | frozenset):
        add("set", *sorted(map(digest_of, value)))
    elif sparse.issparse(value):
        rows = value.tocsr()
        add("matrix", rows.shape, rows.data, rows.indices, rows.indptr)
    elif isinstance(value, type):
        add("class", value.__module__, value.__qualname__, *_own_code(value))
    elif isinstance(value, nn.Module):
        add("module", repr(value), dict(value.state_dict()), *map(_settings_of, value.modules()))
    elif isinstance(value, Callback):
        add("callback", type(value), _given_to(value))
    elif isinstance(value, functools.partial):
        add("partial", value.func, value.args, value.keywords)
    elif isinstance(value, types.FunctionType):
        add("function", value.__module__, value.__qualname__, *_made_of(value))
    elif isinstance(value, types.MethodType):
        add("method", value.__func__, value.__self__)
    elif isinstance(value, types.CodeType):
        add("code", value.co_code, value.co_names, value.co_consts)
    elif isinstance(value, BaseEstimator) and not isinstance(value, type):
        add("estimator", type(value), _described(value))
    elif isinstance(value, np.random.RandomState):
        add("generator", value.get_state())
    else:
        add("object", type(value), joblib.hash(value, hash_name="sha1"))


def _add_array(found: Any, array: NDArray[Any], within: tuple[int, ...]) -> None:
    """Add an array, in pieces, because it may be a file that is larger than the memory."""
    found.update(f"<array {array.dtype.str} {array.shape}>".encode())
    if array.dtype.names:
        for name in array.dtype.names:
            _add_array(found, array[name], within)
    elif array.dtype.hasobject:
        for item in array.ravel():
            _add(found, item, within)
    elif array.ndim and array.size:
        for part in chunks(len(array), array.nbytes // len(array)):
            found.update(np.ascontiguousarray(array[part]).data.cast("B"))
    else:
        found.update(array.tobytes())


def _given_to(callback: Any) -> dict[str, Any]:
    """Return the arguments with which a callback was made, as far as it keeps them."""
    names, attributes = inspect.signature(type(callback)).parameters, vars(callback)
    if any(parameter.kind is parameter.VAR_KEYWORD for parameter in names.values()):
        return {name: v for name, v in attributes.items() if not name.endswith("_")}
    return {name: attributes[name] for name in names if name in attributes}


def _settings_of(module: nn.Module) -> tuple[Any, ...]:
    """Return the class of a module, and its attributes that `repr` need not show."""
    attributes = {
        name: value
        for name, value in vars(module).items()
        if not name.startswith("_") and name != "training" and is_storable(value)
    }
    return type(module), attributes


def _own_code(cls: type) -> list[Any]:
    """Return the code of the methods of a class, and of those that it inherits, of the user."""
    return [
        (name, value.__code__)
        for base in cls.__mro__
        if base.__module__.partition(".")[0] not in _PACKAGES
        for name, value in sorted(vars(base).items())
        if isinstance(value, types.FunctionType)
    ]


def _made_of(function: types.FunctionType) -> tuple[Any, ...]:
    """Return the code of a function, its defaults, and the variables that it closes over."""
    cells = [cell.cell_contents for cell in function.__closure__ or ()]
    return function.__code__, function.__defaults__, function.__kwdefaults__, cells


def _described(estimator: Any) -> dict[str, Any]:
    """Return parameters and learned attributes of an estimator, without the seconds of epochs."""
    found = {}
    for name, value in estimator.__getstate__().items():
        if name.startswith(_UNTOLD) or name in INDIFFERENT:
            continue
        if name in _NETS and isinstance(value, dict):
            history = [{k: v for k, v in epoch.items() if k != "dur"} for epoch in value["history"]]
            value = value | {"history": history}
        found[name] = value
    return found


def parameters_of(estimator: Any) -> dict[str, Any]:
    """Return the parameters of an estimator that determine its training, without its seed."""
    left_out = (*INDIFFERENT, "random_state")
    params = estimator.get_params(deep=False)
    return {name: value for name, value in params.items() if name not in left_out}
