"""Stacks of images of counts in TIFF files, page by page, by tifffile."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from math import prod
from typing import Any

import numpy as np
from numpy.typing import NDArray

from skae._photons.checks import (
    Frames,
    Path,
    check_file,
    check_frame_time,
    chosen,
    package,
    reading,
    refusing_logged_errors,
    whole_counts,
)
from skae._photons.counts import PhotonCounts, axis_names, of_frames


def blocks_of_tiff(
    path: Path,
    block_size: int | None,
    *,
    frames: Frames = None,
    frame_time: float | None = None,
) -> Iterator[PhotonCounts]:
    name = check_file(path)
    check_frame_time(frame_time)
    tifffile = package("tifffile", "TIFF files")
    with reading(name, "TIFF"):
        file = tifffile.TiffFile(name)
    with file:
        # All pages are found now; if the file is truncated, the package logs this.
        with refusing_logged_errors(name, "tifffile", "TIFF"), reading(name, "TIFF"):
            series = list(file.series)
            _ = len(file.pages)
        shapes = sorted({one.shape[-2:] for one in series})
        if len(series) != 1:
            raise ValueError(
                f"{name} has {len(series)} series of images, of shapes {shapes}; expected pages "
                "of one shape and dtype."
            )
        [stack] = series
        if not stack.axes.endswith("YX"):
            raise ValueError(
                f"{name} has the axes {stack.axes!r} and the shape {stack.shape}; expected grey "
                "images, axes that end in 'YX'. Colours are no counts."
            )
        n_frames = prod(stack.shape[:-2])
        numbers = chosen(frames, n_frames, "frames", name)
        if not numbers:
            raise ValueError(f"{name} has no frames that frames={frames!r} selects.")
        frame = _frame_reader(stack, n_frames, name)
        yield from of_frames(
            (
                (
                    whole_counts(frame(i), f"Page {i} of {name}"),
                    None if frame_time is None else i * frame_time,
                )
                for i in numbers
            ),
            axis_names(2),
            block_size,
        )


def _frame_reader(stack: Any, n_frames: int, name: str) -> Callable[[int], NDArray[Any]]:
    """A function that reads one frame."""
    shape = stack.shape[-2:]
    whole: list[NDArray[Any]] = []

    def of_page(i: int) -> NDArray[Any]:
        with refusing_logged_errors(name, "tifffile", "TIFF"), reading(name, f"TIFF, page {i}"):
            page: NDArray[Any] = np.asarray(stack.pages[i].asarray()).reshape(shape)
            return page

    def of_series(i: int) -> NDArray[Any]:
        """One page of the file can hold all frames, as in large files of ImageJ."""
        if not whole:
            with refusing_logged_errors(name, "tifffile", "TIFF"), reading(name, "TIFF"):
                if stack.dataoffset is None:
                    images = stack.asarray()
                else:
                    file = stack.parent.filehandle
                    dtype = stack.parent.byteorder + stack.dtype.char
                    images = file.memmap_array(dtype, stack.shape, stack.dataoffset)
                whole.append(images.reshape(n_frames, *shape))
        return whole[0][i]

    return of_page if len(stack.pages) == n_frames else of_series
