"""Frames of single-photon cameras (SPAD arrays), one bit for each pixel."""

from __future__ import annotations

import os
from collections.abc import Iterator
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray

from skae._photons.arrays import loaded
from skae._photons.checks import Frames, check_file, check_frame_time, checked_shape, chosen
from skae._photons.counts import PhotonCounts, axis_names, of_frames

# Number of pixels of the frames that are unpacked at a time.
_CHUNK_PIXELS = 2**24


def blocks_of_spad(
    source: Any,
    block_size: int | None,
    *,
    image_shape: tuple[int, int] | None = None,
    bit_order: Literal["big", "little"] = "big",
    frames: Frames = None,
    frame_time: float | None = None,
    offset: int = 0,
    key: str | None = None,
) -> Iterator[PhotonCounts]:
    if bit_order not in ("big", "little"):
        raise ValueError(f"bit_order={bit_order!r} is not allowed; allowed are 'big' and 'little'.")
    check_frame_time(frame_time)
    shape = None if image_shape is None else checked_shape(image_shape, 2)
    packed, name = _packed(source, shape, offset, key)
    height, n_bytes = packed.shape[1:]
    shape = shape or (height, 8 * n_bytes)
    if (height, n_bytes) != (shape[0], -(-shape[1] // 8)):
        raise ValueError(
            f"{name} has frames of shape {(height, n_bytes)} in bytes; image_shape={shape} needs "
            f"{(shape[0], -(-shape[1] // 8))}, 8 pixels of a row in each byte."
        )
    numbers = chosen(frames, len(packed), "frames", name)
    if not numbers:
        raise ValueError(f"{name} has no frames that frames={frames!r} selects.")
    yield from of_frames(
        _unpacked(packed, numbers, shape, bit_order, frame_time, name), axis_names(2), block_size
    )


def _packed(
    source: Any, shape: tuple[int, ...] | None, offset: int, key: str | None
) -> tuple[NDArray[np.uint8], str]:
    """Frames of bytes, (n_frames, height, bytes of a row); files are mapped into memory."""
    name = "source"
    if isinstance(source, str | os.PathLike):
        name = check_file(source)
        with open(name, "rb") as file:
            start = file.read(6)
        if not start.startswith((b"\x93NUMPY", b"PK\x03\x04")):
            return _raw(name, shape, offset), name
        source = loaded(name, key)
    if offset:
        raise ValueError(f"offset={offset} is for raw files, but {name} is an array of NumPy.")
    packed: NDArray[Any] = np.asanyarray(source)
    if packed.dtype != np.uint8 or packed.ndim != 3:
        raise ValueError(
            f"{name} has shape {packed.shape} and dtype {packed.dtype}; expected packed frames of "
            "shape (n_frames, height, width / 8) and dtype uint8."
        )
    return packed, name


def _raw(name: str, shape: tuple[int, ...] | None, offset: int) -> NDArray[np.uint8]:
    if shape is None:
        raise ValueError(f"{name} is a raw file without a header; image_shape must be given.")
    size = os.path.getsize(name)
    if not 0 <= offset <= size:
        raise ValueError(f"offset={offset} is outside of {name}, which has {size} bytes.")
    row = -(-shape[1] // 8)
    n_frames, rest = divmod(size - offset, shape[0] * row)
    if rest or not n_frames:
        raise ValueError(
            f"{name} has {size - offset} bytes after offset={offset}; expected a multiple of "
            f"{shape[0] * row}, the bytes of one frame of image_shape={shape}. The file is "
            "truncated, or image_shape or offset is wrong."
        )
    return np.memmap(name, np.uint8, "r", offset, (n_frames, shape[0], row))


def _unpacked(
    packed: NDArray[np.uint8],
    numbers: list[int],
    shape: tuple[int, ...],
    bit_order: Literal["big", "little"],
    frame_time: float | None,
    name: str,
) -> Iterator[tuple[NDArray[Any], float | None]]:
    """Frames with their times; without `frame_time`, sums of several frames."""
    step = max(1, _CHUNK_PIXELS // (shape[0] * 8 * packed.shape[2]))
    for first in range(0, len(numbers), step):
        some = numbers[first : first + step]
        bits = np.unpackbits(packed[some], axis=2, bitorder=bit_order)
        beyond = np.flatnonzero(bits[:, :, shape[1] :].any(axis=(1, 2)))
        if beyond.size:
            raise ValueError(
                f"Frame {some[beyond[0]]} of {name} has counts beyond the width of "
                f"image_shape={shape}. bit_order={bit_order!r} or image_shape is wrong."
            )
        bits = bits[:, :, : shape[1]]
        if frame_time is None:
            yield bits.sum(axis=0, dtype=np.int64), None
        else:
            for i, frame in zip(some, bits, strict=True):
                yield frame, i * frame_time
