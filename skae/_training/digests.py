"""Digests of parameters and rows, equal in every process in which these are equal."""

import functools
import hashlib
import sys
import types
from collections.abc import Iterator, Mapping
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from scipy import sparse
from sklearn.base import BaseEstimator
from skorch.callbacks import Callback
from torch import Tensor, nn

from skae._training.data import chunks
from skae._utils.sparse_rows import SparseRows
from skae._utils.stored_rows import StoredRows

# Attributes of estimators that say nothing about what they compute.
_UNTOLD = ("_skl", "_sklearn", "_skae", "_parent_callback", "_callback")
# Parameters of estimators that change neither the training nor its result.
INDIFFERENT = ("verbose", "device", "checkpoint_dir", "checkpoint_every", "n_jobs", "warm_start")
# States of trained networks, with their histories.
_NETS = ("net_", "prior_net_")
# Packages whose classes and functions are known by their names.
_PACKAGES = {"builtins", "joblib", "numpy", "scipy", "skae", "sklearn", "skorch", "torch"}
# Attributes of every torch module, which are digested in their own ways.
_OF_MODULES = {*vars(nn.Module())}
# NumPy's global generator: distributions of SciPy hold it.
_GLOBAL = np.random.mtrand._rand


def digest_of(*values: Any) -> str:
    """Return a digest of values, 32 hexadecimal digits.

    Raises
    ------
    TypeError
        If something cannot be compared between processes, which pickle cannot store either.
    """
    digest = _Digest([], set())
    for value in values:
        digest.add(value)
    return str(digest)


class _Digest:
    """A digest of values.

    `within` are the identities of the values that contain the present one, and `known` those of
    functions and classes that were added before, and need not be added completely again.
    """

    def __init__(self, within: list[int], known: set[int]) -> None:
        self.found, self.within, self.known = hashlib.sha256(), within, known

    def __str__(self) -> str:
        return self.found.hexdigest()[:32]

    def add(self, value: Any) -> None:
        """Add a value with all that it contains."""
        if id(value) in self.within:  # it contains itself
            self.found.update(b"<above>")
            return
        self.within.append(id(value))
        try:
            self._add(value)
        finally:
            self.within.pop()

    def _safe(self, value: Any) -> str:
        """Return a digest of a value, or its type if it cannot be compared between processes."""
        inner = _Digest(self.within, self.known)
        try:
            inner.add(value)
        except Exception:
            return type(value).__qualname__
        return str(inner)

    def _parts(self, kind: str, *parts: Any) -> None:
        self.found.update(f"<{kind}:{len(parts)}>".encode())
        for part in parts:
            self.add(part)

    def _add(self, value: Any) -> None:
        if isinstance(value, np.generic) and not value.dtype.hasobject:
            plain = value.item()
            self._plain(value if isinstance(plain, np.generic) else plain)
        elif value is None or isinstance(value, bool | int | float | complex | str | bytes):
            self._plain(value)
        elif isinstance(value, np.ndarray):
            self._array(value)
        elif isinstance(value, SparseRows):
            self._parts("sparse", value.shape, value.values, value.columns, value.starts)
        elif isinstance(value, StoredRows):
            self._parts("stored", *value.content())
            for _, part in value.pieces():
                self.add(part)
        elif sparse.issparse(value):
            rows = value.tocsr()
            self._parts("matrix", rows.shape, rows.data, rows.indices, rows.indptr)
        elif isinstance(value, Tensor):
            plain = value.detach().cpu()
            bits = plain.view(torch.int16) if plain.dtype == torch.bfloat16 else plain
            self._parts("tensor", str(plain.dtype), bits.numpy())
        elif isinstance(value, Mapping):
            self._parts("mapping", *sorted(value.items(), key=lambda item: repr(item[0])))
        elif isinstance(value, list | tuple):
            self._parts("sequence", *value)
        elif isinstance(value, set | frozenset):
            self._parts("set", *sorted(map(digest_of, value)))
        elif isinstance(value, nn.Module):
            self._parts("module", repr(value), *self._parts_of_module(value))
        elif isinstance(value, Callback):
            given = {n: self._safe(v) for n, v in vars(value).items() if n[-1] != "_"}
            self._parts("callback", type(value), given)
        elif isinstance(value, BaseEstimator) and not isinstance(value, type):
            self._parts("estimator", type(value), _described(value))
        else:
            self._code_or_object(value)

    def _plain(self, value: Any) -> None:
        self.found.update(f"<{type(value).__name__} {value!r}>".encode())

    def _array(self, array: NDArray[Any]) -> None:
        """Add an array, in pieces, because it may be a file that is larger than the memory."""
        self.found.update(f"<array {array.dtype.str} {array.shape}>".encode())
        if array.dtype.names:
            for name in array.dtype.names:
                self._array(array[name])
        elif array.dtype.hasobject:
            for item in array.ravel():
                self.add(item)
        elif array.ndim and array.size:
            for part in chunks(len(array), array.nbytes // len(array)):
                self.found.update(np.ascontiguousarray(array[part]).data.cast("B"))
        else:
            self.found.update(array.tobytes())

    def _code_or_object(self, value: Any) -> None:
        if isinstance(value, type | types.FunctionType):
            self._parts("code", value.__module__, value.__qualname__)
            if _is_of_user(value.__module__) and id(value) not in self.known:
                self.known.add(id(value))
                found = self._of_class(value) if isinstance(value, type) else self._of(value)
                self.add(found)
        elif isinstance(value, types.CodeType):
            self._parts("code", value.co_code, value.co_names, value.co_consts)
        elif isinstance(value, types.MethodType):
            self._parts("method", value.__func__, value.__self__)
        elif isinstance(value, staticmethod | classmethod):
            self._parts("method of a class", value.__func__)
        elif isinstance(value, property):
            self._parts("property", value.fget, value.fset)
        elif isinstance(value, functools.partial):
            self._parts("partial", value.func, value.args, value.keywords)
        elif isinstance(value, types.ModuleType):
            self._parts("package", value.__name__)
        elif isinstance(value, types.BuiltinFunctionType | np.ufunc):
            self._parts("built-in", getattr(value, "__module__", None), value.__name__)
        elif value is _GLOBAL:
            self._parts("global generator")
        else:
            reduced = value.__reduce_ex__(4)  # as pickle stores it
            if isinstance(reduced, str):
                self._parts("global", type(value), reduced)
            else:
                parts = [list(part) if isinstance(part, Iterator) else part for part in reduced]
                self._parts("object", type(value), *parts)

    def _parts_of_module(self, module: nn.Module) -> Iterator[Any]:
        """Yield the class, attributes and tensors of a module and of its parts.

        Tensors have numbers, which say which of them are shared.
        """
        numbers: dict[int, int] = {}
        for name, part in module.named_modules(remove_duplicate=False):
            own = {n: v for n, v in vars(part).items() if n not in _OF_MODULES and n != "training"}
            yield name, type(part), {n: self._safe(v) for n, v in own.items()}
            for n, tensor in (*part._parameters.items(), *part._buffers.items()):
                if tensor is not None:
                    number = numbers.setdefault(id(tensor), len(numbers))
                    yield n, number, tensor.requires_grad, tensor.detach()
            hooks = [vars(part)[kind] for kind in sorted(_OF_MODULES) if kind.endswith("hooks")]
            yield [self._safe(hook) for kind in hooks for hook in kind.values()]

    def _of(self, function: types.FunctionType) -> list[Any]:
        """Return the code of a function, and all that it reads beside its arguments."""
        code, around = function.__code__, function.__globals__
        cells = [cell.cell_contents for cell in function.__closure__ or ()]
        read = {n: self._safe(around[n]) for n in sorted(_names_in(code)) if n in around}
        return [code, function.__defaults__, function.__kwdefaults__, cells, read]

    def _of_class(self, cls: type) -> list[Any]:
        """Return the methods and attributes of a class, and of the user's ones that it inherits."""
        return [
            (name, self._safe(value))
            for base in cls.__mro__
            if _is_of_user(base.__module__)
            for name, value in sorted(vars(base).items())
            if name == "__init__" or not name.startswith("__")
        ]


def _names_in(code: types.CodeType) -> set[str]:
    """Return the names of globals and attributes in a code, and in the codes within it."""
    inner = (c for c in code.co_consts if isinstance(c, types.CodeType))
    return {*code.co_names}.union(*map(_names_in, inner))


def _is_of_user(module_name: str | None) -> bool:
    """Return whether code is not of Python or of an installed package, and may change."""
    root = (module_name or "").partition(".")[0]
    if root == "__main__":
        return True
    if root in _PACKAGES or root in sys.stdlib_module_names:
        return False
    file = getattr(sys.modules.get(module_name or ""), "__file__", None) or ""
    return "site-packages" not in file and "dist-packages" not in file


def _described(estimator: Any) -> dict[str, Any]:
    """Return parameters and learned attributes of an estimator, without measured times."""
    found = {}
    for name, value in estimator.__getstate__().items():
        if name.startswith(_UNTOLD) or name in INDIFFERENT or name == "refit_time_":
            continue
        if name in _NETS and isinstance(value, dict):
            history = [{k: v for k, v in epoch.items() if k != "dur"} for epoch in value["history"]]
            value = value | {"history": history}
        if name == "cv_results_":
            value = {k: v for k, v in value.items() if not k.endswith("_time")}
        found[name] = value
    return found


def parameters_of(estimator: Any) -> dict[str, Any]:
    """Return the parameters of an estimator that determine its training, without its seed."""
    left_out = (*INDIFFERENT, "random_state")
    params = estimator.get_params(deep=False)
    return {name: value for name, value in params.items() if name not in left_out}
