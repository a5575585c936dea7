"""Files of nested containers of arrays and plain values, without pickle, written in one step.

A file is an archive of NumPy (`.npz`), whose parts have checksums. It contains the arrays, and one
text in JSON that says where they belong. A file appears under its name only when it is complete.
"""

import json
import os
import platform
import re
import time
import uuid
import zipfile
import zlib
from collections import Counter, OrderedDict, defaultdict
from contextlib import suppress
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

# Name of the text in the archive.
_STRUCTURE = "structure"
# End of the name of a file that is not complete. If a process of another machine has not changed it
# for so many seconds, nobody writes it any longer.
_PARTIAL, _LONGEST_WRITE = ".partial", 60.0
# Name of this machine in the names of partial files.
_HOST = re.sub(r"[^A-Za-z0-9]", "_", platform.node()) or "unknown"
# Marks of values that JSON does not have; a dictionary of the user may have such a key, too.
_KINDS = ("array", "tensor", "scalar", "tuple", "dict", "counter", "defaultdict")
# Types that a `defaultdict` makes its values of.
_FACTORIES = {kind.__name__: kind for kind in (bool, dict, float, int, list, str)}


class UnreadableFile(Exception):
    """Raised if a file is incomplete, damaged, or of another kind."""


def write(path: Path, value: Any) -> None:
    """Write nested dictionaries, lists and tuples of tensors, arrays and plain values to a file.

    An existing file is replaced when the new one is complete and on the disk. If anything fails,
    the existing file stays as it was.

    Raises
    ------
    TypeError
        If something is neither a container nor an array nor a plain value.
    OSError
        If the file cannot be written.
    """
    arrays: dict[str, Any] = {}
    structure = json.dumps(_encoded(value, arrays))
    arrays[_STRUCTURE] = np.frombuffer(structure.encode(), dtype=np.uint8)

    def save(file: Any) -> None:
        np.savez(file, allow_pickle=False, **arrays)

    write_whole(path, save)


def write_whole(path: Path, save: Any) -> None:
    """Call `save` with an open binary file, which replaces `path` when it is complete."""
    writer = f"{_HOST}-{os.getpid()}-{uuid.uuid4().hex[:8]}"
    partial = path.with_name(f"{path.name}.{writer}{_PARTIAL}")
    try:
        with open(partial, "xb") as file:
            save(file)
            file.flush()
            os.fsync(file.fileno())
        os.replace(partial, path)
    except BaseException:
        with suppress(OSError):
            partial.unlink()
        raise
    _sync_folder(path.parent)


def remove_partial(path: Path) -> None:
    """Remove what killed processes have left of a file; what another process writes now stays."""
    for partial in path.parent.glob(f"{path.name}.*{_PARTIAL}"):
        with suppress(OSError):
            if _is_left(partial):
                partial.unlink()


def _is_left(partial: Path) -> bool:
    """Return whether the process that wrote a partial file has ended, or seems to have ended."""
    host, *writer = partial.name.removesuffix(_PARTIAL).rpartition(".")[2].split("-")
    if os.name == "posix" and host == _HOST and writer and writer[0].isdecimal():
        try:
            os.kill(int(writer[0]), 0)  # only asks whether there is such a process
        except ProcessLookupError:
            return True
        except OSError:  # it belongs to another user
            return False
    return time.time() - partial.stat().st_mtime > _LONGEST_WRITE


def read(path: Path) -> Any:
    """Return what `write` has written, with tensors on the CPU.

    Raises
    ------
    FileNotFoundError
        If there is no such file.
    UnreadableFile
        If the file is incomplete, damaged, or of another kind.
    """
    try:
        # NumPy (2.4) does not close a file that it opens itself and cannot read.
        with open(path, "rb") as file, np.load(file, allow_pickle=False) as archive:
            if not hasattr(archive, "files"):
                raise UnreadableFile("it is not an archive of arrays")
            arrays = {name: archive[name] for name in archive.files}
        structure = json.loads(arrays.pop(_STRUCTURE).tobytes())
        return _decoded(structure, arrays)
    except FileNotFoundError:
        raise
    except (
        ArithmeticError,
        AttributeError,
        EOFError,
        LookupError,
        OSError,
        RuntimeError,
        TypeError,
        ValueError,
        zipfile.BadZipFile,
        zlib.error,
    ) as error:
        raise UnreadableFile(str(error) or type(error).__name__) from error


def is_storable(value: Any) -> bool:
    """Return whether `write` can write this value."""
    try:
        json.dumps(_encoded(value, {}))
    except (TypeError, ValueError):
        return False
    return True


def _encoded(value: Any, arrays: dict[str, Any]) -> Any:
    """Return a value for JSON; arrays are added to `arrays`."""
    if value is None or type(value) in (bool, int, float, str):
        return value
    if isinstance(value, Tensor):
        dtype = str(value.dtype).removeprefix("torch.")
        plain = value.detach().cpu().contiguous()
        if value.dtype == torch.bfloat16:  # NumPy does not have this type
            plain = plain.view(torch.int16)
        return {"tensor": [_stored(plain.numpy(), arrays), dtype]}
    if isinstance(value, np.generic):
        return {"scalar": _stored(np.asarray(value), arrays)}
    if isinstance(value, np.ndarray):
        return {"array": _stored(value, arrays)}
    if type(value) is list:
        return [_encoded(item, arrays) for item in value]
    if type(value) is tuple:
        return {"tuple": [_encoded(item, arrays) for item in value]}
    if type(value) is Counter:
        return {"counter": _encoded(dict(value), arrays)}
    if type(value) is defaultdict and value.default_factory in (None, *_FACTORIES.values()):
        factory = getattr(value.default_factory, "__name__", None)
        return {"defaultdict": [factory, _encoded(dict(value), arrays)]}
    if type(value) in (dict, OrderedDict):
        if all(isinstance(key, str) and key not in _KINDS for key in value):
            return {key: _encoded(item, arrays) for key, item in value.items()}
        return {"dict": [[_encoded(k, arrays), _encoded(v, arrays)] for k, v in value.items()]}
    raise TypeError(f"A value of type {type(value).__name__} cannot be stored in arrays.")


def _stored(array: Any, arrays: dict[str, Any]) -> str:
    if array.dtype.hasobject:
        raise TypeError("An array of Python objects cannot be stored.")
    name = str(len(arrays))
    arrays[name] = array
    return name


def _decoded(value: Any, arrays: dict[str, Any]) -> Any:
    if isinstance(value, list):
        return [_decoded(item, arrays) for item in value]
    if not isinstance(value, dict):
        return value
    if len(value) == 1:
        match next(iter(value.items())):
            case "tensor", [name, dtype]:
                tensor = torch.from_numpy(arrays[name])
                kind = getattr(torch, dtype)
                return tensor.view(kind) if kind == torch.bfloat16 else tensor.to(kind)
            case "array", name:
                return arrays[name]
            case "scalar", name:
                return arrays[name][()]
            case "tuple", items:
                return tuple(_decoded(item, arrays) for item in items)
            case "counter", counts:
                return Counter(_decoded(counts, arrays))
            case "defaultdict", [factory, items]:
                return defaultdict(_FACTORIES.get(factory), _decoded(items, arrays))
            case "dict", pairs:
                return {_decoded(k, arrays): _decoded(v, arrays) for k, v in pairs}
    return {key: _decoded(item, arrays) for key, item in value.items()}


def _sync_folder(folder: Path) -> None:
    """Make a new name in a folder durable, on systems where a folder can be opened."""
    with suppress(OSError):
        handle = os.open(folder, os.O_RDONLY)
        try:
            os.fsync(handle)
        finally:
            os.close(handle)
