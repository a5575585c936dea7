"""What all readers check: packages, files, frames, and values that are counts."""

from __future__ import annotations

import logging
import operator
import os
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from importlib import import_module
from numbers import Integral, Real
from typing import Any

import numpy as np
from numpy.typing import NDArray

from skae._utils.inputs import check_count

Path = str | os.PathLike[str]
Frames = int | slice | Sequence[int] | NDArray[np.integer[Any]] | None


def package(name: str, what: str) -> Any:
    """Import a package of the extra `photons`; raise an ImportError that names the pip command."""
    try:
        return import_module(name)
    except ModuleNotFoundError as error:
        missing = (error.name or name).partition(".")[0]
        raise ImportError(
            f'{what} need the package {missing}: pip install "skae[photons]".', name=missing
        ) from error


@contextmanager
def reading(path: Path, what: str) -> Iterator[None]:
    """Let errors of another package in the block name the file."""
    try:
        yield
    except (FileNotFoundError, PermissionError, IsADirectoryError, MemoryError, ImportError):
        raise
    except Exception as error:
        raise ValueError(
            f"{os.fspath(path)} cannot be read as {what}: {type(error).__name__}, {error}"
        ) from error


@contextmanager
def refusing_logged_errors(path: Path, logger: str, what: str) -> Iterator[None]:
    """Raise if a package logs an error or a warning about the file, in place of an exception.

    tifffile and ptufile log that a file is truncated, and return what is left of it.
    """
    collector = _Collector()
    log = logging.getLogger(logger)
    log.addHandler(collector)
    try:
        yield
    finally:
        log.removeHandler(collector)
    if collector.messages:
        raise ValueError(
            f"{os.fspath(path)} is damaged or incomplete, so that it cannot be read as {what}: "
            f"{collector.messages[0]}"
        )


class _Collector(logging.Handler):
    def __init__(self) -> None:
        super().__init__(logging.WARNING)
        self.messages: list[str] = []

    def emit(self, record: logging.LogRecord) -> None:
        self.messages.append(record.getMessage())


def check_file(path: Path) -> str:
    """The path as a string; raises if there is no such file."""
    name = os.fspath(path)
    if not isinstance(name, str):
        raise TypeError(f"path={path!r} is of type {type(path).__name__}; expected a str or Path.")
    if not os.path.exists(name):
        raise FileNotFoundError(f"There is no file {name!r}.")
    if os.path.isdir(name):
        raise IsADirectoryError(f"{name!r} is a folder; expected a file.")
    return name


def checked_shape(image_shape: Any, n_dims: int | None = None) -> tuple[int, ...]:
    try:
        shape = tuple(image_shape)
    except TypeError:
        shape = (image_shape,)
    for axis, length in enumerate(shape):
        check_count(f"image_shape[{axis}]", length)
    if not shape or (n_dims is not None and len(shape) != n_dims):
        raise ValueError(
            f"image_shape={image_shape!r} has {len(shape)} lengths; expected "
            f"{'at least one' if n_dims is None else n_dims}."
        )
    return tuple(operator.index(length) for length in shape)


def chosen(selection: Frames, available: int, name: str, path: Path) -> list[int]:
    """Indices that `frames` or `channels` selects; negative ones count from the end."""
    if selection is None:
        return list(range(available))
    if isinstance(selection, slice):
        return list(range(available))[selection]
    given: Any = [selection] if isinstance(selection, Integral) else selection
    found = []
    for index in given:
        if isinstance(index, bool | np.bool_) or not isinstance(index, Integral):
            raise TypeError(
                f"{name}={selection!r} must be None, an int, a slice or a sequence of ints."
            )
        if not -available <= int(index) < available:
            raise ValueError(
                f"{name}={selection!r} is not in {os.fspath(path)}, which has {available} "
                f"{name}; allowed are {-available} to {available - 1}."
            )
        found.append(int(index) % available)
    return found


def check_frame_time(frame_time: float | None) -> None:
    if frame_time is None:
        return
    if isinstance(frame_time, bool) or not isinstance(frame_time, Real):
        raise TypeError(
            f"frame_time={frame_time!r} is of type {type(frame_time).__name__}; expected seconds "
            "as a number, or None."
        )
    if not 0 < float(frame_time) < np.inf:
        raise ValueError(f"frame_time={frame_time} must be a finite number of seconds above 0.")


def whole_counts(values: Any, where: str) -> NDArray[Any]:
    """Check that an array holds counts: whole numbers of 0 or more."""
    array: NDArray[Any] = np.asarray(values)
    if array.dtype.kind not in "buif":
        raise ValueError(
            f"{where} has the dtype {array.dtype}; expected counts, whole numbers of 0 or more."
        )
    if array.dtype.kind in "bu":
        return array
    wrong = array < 0
    if array.dtype.kind == "f":
        wrong |= ~np.isfinite(array)
        wrong |= array != np.rint(array)
    if wrong.any():
        place = np.unravel_index(int(wrong.argmax()), wrong.shape)
        index = ", ".join(str(int(i)) for i in place)
        raise ValueError(
            f"{where} has {int(wrong.sum())} values that are no counts. The first is "
            f"{array[place]} at [{index}]; allowed are whole numbers of 0 or more."
        )
    return array
