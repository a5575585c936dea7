"""Images of counts in arrays, and in files of NumPy and SciPy."""

from __future__ import annotations

import os
from collections.abc import Iterator
from dataclasses import replace
from numbers import Integral
from typing import Any

import numpy as np
from numpy.typing import NDArray
from scipy import sparse

from skae._photons.checks import (
    Frames,
    check_file,
    check_frame_time,
    chosen,
    reading,
    whole_counts,
)
from skae._photons.counts import PhotonCounts, axis_names, domain_of, grouped, of_frames
from skae._utils.images import checked_image


def blocks_of_array(
    source: Any,
    block_size: int | None,
    *,
    key: str | None = None,
    frame_axis: int | None = None,
    frames: Frames = None,
    frame_time: float | None = None,
) -> Iterator[PhotonCounts]:
    check_frame_time(frame_time)
    name = "source"
    if isinstance(source, str | os.PathLike):
        name = check_file(source)
        source = loaded(name, key)
    elif key is not None:
        raise ValueError(f"key={key!r} is for .npz files, but source is {type(source).__name__}.")
    if frame_axis is None and not (frames is None and frame_time is None):
        raise ValueError(
            "frames and frame_time need frame_axis, the axis of the array that counts frames."
        )
    if sparse.issparse(source):
        if frame_axis is not None:
            raise ValueError(f"frame_axis={frame_axis} cannot be combined with a sparse array.")
        yield from grouped(_of_sparse(source, name), block_size)
    elif frame_axis is None:
        yield from _of_image(source, name)
    else:
        stack = _stack(source, name, frame_axis)
        numbers = chosen(frames, len(stack), "frames", name)
        yield from (
            of_frames(
                (
                    (
                        whole_counts(stack[i], f"Frame {i} of {name}"),
                        None if frame_time is None else i * frame_time,
                    )
                    for i in numbers
                ),
                axis_names(stack.ndim - 1),
                block_size,
            )
            if numbers
            else iter([_empty(stack.shape[1:])])
        )


def loaded(name: str, key: str | None) -> Any:
    """The array of an .npy file, mapped into memory, or one array of an .npz file."""
    with reading(name, "a file of NumPy"):
        found = np.load(name, mmap_mode="r", allow_pickle=False)
    if isinstance(found, np.ndarray):
        if key is not None:
            raise ValueError(f"key={key!r} is for .npz files, but {name} holds one array.")
        return found
    with found:
        names = list(found.files)
        if key is None and "format" in names and "shape" in names:
            with reading(name, "a sparse array of SciPy"):
                return sparse.load_npz(name)
        if key is None and len(names) == 1:
            key = names[0]
        if key not in names:
            raise ValueError(f"{name} has no array key={key!r}; allowed are {names}.")
        with reading(name, "a file of NumPy"):
            array: NDArray[Any] = found[key]
            return array


def _of_image(source: Any, name: str) -> Iterator[PhotonCounts]:
    image, taken = checked_image(source, name)
    image = whole_counts(image, name)
    [counts] = of_frames([(image, None)], axis_names(image.ndim), None)
    if taken is not None:
        counts = replace(counts, exposure=taken.astype(np.float64))
    yield counts


def _of_sparse(source: Any, name: str) -> Iterator[PhotonCounts]:
    """Rows of a sparse array, which is never made dense."""
    array = sparse.coo_array(source)
    array.sum_duplicates()
    weights = whole_counts(array.data, f"The data of {name}")
    lit = weights > 0
    yield PhotonCounts(
        np.column_stack([index[lit] for index in array.coords]).astype(np.uint32),
        image_shape=array.shape,
        weights=weights[lit].astype(np.float64),
        names=axis_names(array.ndim),
        domain=domain_of(array.shape),
    )


def _stack(source: Any, name: str, frame_axis: int) -> NDArray[Any]:
    if isinstance(source, np.ma.MaskedArray) and np.ma.is_masked(source):
        raise ValueError(
            f"{name} is masked, which cannot be combined with frame_axis. Fill in the masked "
            "counts, or add the frames up."
        )
    stack: NDArray[Any] = np.asarray(source)
    if stack.ndim < 2:
        raise ValueError(
            f"{name} has shape {stack.shape}; expected frames of one axis or more beside "
            f"frame_axis={frame_axis}."
        )
    if not (isinstance(frame_axis, Integral) and -stack.ndim <= frame_axis < stack.ndim):
        raise ValueError(
            f"frame_axis={frame_axis!r} for {name} of shape {stack.shape}; allowed are None and "
            f"integers from {-stack.ndim} to {stack.ndim - 1}."
        )
    return np.moveaxis(stack, frame_axis, 0)


def _empty(image_shape: tuple[int, ...]) -> PhotonCounts:
    n_dims = len(image_shape)
    return PhotonCounts(
        np.zeros((0, n_dims), np.uint32),
        image_shape=image_shape,
        weights=np.zeros(0),
        names=axis_names(n_dims),
        domain=domain_of(image_shape),
    )
