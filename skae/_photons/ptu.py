"""Images of PicoQuant PTU files, decoded by ptufile."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from typing import Any

import numpy as np
from numpy.typing import NDArray

from skae._photons.checks import (
    Frames,
    Path,
    check_file,
    checked_shape,
    chosen,
    package,
    reading,
    refusing_logged_errors,
)
from skae._photons.counts import PhotonCounts, axis_names, domain_of, grouped, of_frames

# Size of the histogram that is decoded at a time. Each time, the package goes through all records.
_HISTOGRAM_BYTES = 2**26
# In place of the number of a frame: the sum of all frames.
_ALL = -1


def blocks_of_ptu(
    path: Path,
    block_size: int | None,
    *,
    frames: Frames = None,
    channels: Frames = None,
    delays: bool = False,
    times: bool = False,
    image_shape: tuple[int, int] | None = None,
) -> Iterator[PhotonCounts]:
    name = check_file(path)
    shape = None if image_shape is None else checked_shape(image_shape, 2)
    ptufile = package("ptufile", "PTU files")
    with refusing_logged_errors(name, "ptufile", "PTU"), reading(name, "PTU"):
        # The first and the last frame of several are left out if they are incomplete. Channels
        # are not renumbered.
        file = ptufile.PtuFile(name, trimdims="TH")
    with file:
        _check_kind(file, name)
        with refusing_logged_errors(name, "ptufile", "PTU"), reading(name, "PTU"):
            if file.number_records:
                # Mapped into memory; the package keeps it in place of a copy of all records.
                file.read_records(memmap="c")
            n_frames, *scanned, n_channels, _ = file.shape
            per_channel = file.decode_histogram().sum(axis=1, dtype=np.int64)
        active = [int(channel) for channel in file.active_channels]
        used = active if channels is None else chosen(channels, n_channels, "channels", name)
        numbers = chosen(frames, n_frames, "frames", name)
        if not numbers:
            raise ValueError(f"{name} has no frames that frames={frames!r} selects.")
        if shape is not None and (shape[0] < scanned[0] or shape[1] < scanned[1]):
            raise ValueError(
                f"image_shape={shape} is smaller than the scan of {name}, which has "
                f"{scanned[0]} lines of {scanned[1]} pixels."
            )
        decoder = _Decoder(file, name, tuple(scanned), used)
        whole = block_size is None and not times and frames is None
        steps: list[int] = [_ALL] if whole else numbers
        frame_time = file.frame_time if times else None
        if delays:
            blocks = grouped((decoder.delays(i, frame_time) for i in steps), block_size)
        else:
            images = (
                (image, None if frame_time is None else i * frame_time)
                for i, image in zip(steps, decoder.images(steps), strict=True)
            )
            blocks = of_frames(images, axis_names(2), block_size)
        n_missing = int(per_channel[used].sum()) if frames is None else None
        for block, is_last in _with_last(blocks):
            if shape is not None:
                block = _enlarged(block, shape)
            if n_missing is not None:
                n_missing -= int(block.n_counts)
                if is_last:
                    block = replace(block, n_dropped=n_missing)
            yield block


class _Decoder:
    """Images of single frames, summed over channels."""

    def __init__(self, file: Any, name: str, shape: tuple[int, ...], channels: list[int]) -> None:
        self.file, self.name, self.shape, self.channels = file, name, shape, channels

    def _decode(self, frames: slice, lines: slice, dtime: int | None) -> NDArray[Any]:
        """Histogram (frames, lines, pixels, delays); axes with a step of -1 are added up."""
        total: NDArray[Any] | None = None
        with refusing_logged_errors(self.name, "ptufile", "PTU"), reading(self.name, "PTU"):
            for channel in self.channels:
                # All five axes are kept. Counts of 16 bits, the default, could overflow.
                part = self.file.decode_image(
                    (frames, lines, slice(None), channel),
                    dtime=dtime,
                    dtype=np.uint32,
                    keepdims=True,
                )[:, :, :, 0, :]
                total = part if total is None else total + part
        if total is None:  # no channel has photons
            n_frames = 1 if frames.step else frames.stop - frames.start
            return np.zeros((n_frames, lines.stop - lines.start, self.shape[1], 1), np.uint32)
        return total

    def images(self, numbers: list[int]) -> Iterator[NDArray[Any]]:
        """Images of frames; those that follow each other are decoded together."""
        most = max(1, _HISTOGRAM_BYTES // (self.shape[0] * self.shape[1] * 4))
        lines = slice(0, self.shape[0])
        while numbers:
            n = 1
            while n < min(most, len(numbers)) and numbers[n] == numbers[0] + n:
                n += 1
            yield from self._decode(_slice(numbers[0], n), lines, -1)[:, :, :, 0]
            numbers = numbers[n:]

    def delays(self, frame: int, frame_time: float | None) -> PhotonCounts:
        """Pixel and delay of the counts of a frame, several lines at a time."""
        file = self.file
        n_bins = max(file.number_bins, 1)
        unit = 1e9 * file.tcspc_resolution  # ns
        step = max(1, _HISTOGRAM_BYTES // (self.shape[1] * n_bins * 4))
        places, weights = [], []
        for first in range(0, self.shape[0], step):
            lines = slice(first, min(first + step, self.shape[0]))
            part = self._decode(_slice(frame), lines, None)[0]
            found = np.nonzero(part)
            place = np.column_stack(found).astype(np.float64) + 0.5
            place[:, 0] += first
            place[:, 2] *= unit
            places.append(place)
            weights.append(part[found].astype(np.float64))
        weight = np.concatenate(weights)
        longest = max(n_bins, file.number_bins_in_period) * unit
        return PhotonCounts(
            np.concatenate(places),
            image_shape=self.shape,
            weights=weight,
            times=None if frame_time is None else np.full(len(weight), frame * frame_time),
            names=(*axis_names(2), "delay"),
            domain=np.vstack([domain_of(self.shape), [0, longest]]),
        )


def _slice(frame: int, n: int = 1) -> slice:
    return slice(None, None, -1) if frame == _ALL else slice(frame, frame + n)


def _check_kind(file: Any, name: str) -> None:
    if not file.is_t3:
        raise ValueError(f"{name} has T2 records, which have no pixels; expected T3 images.")
    if file.measurement_ndim != 3 or not file.is_image:
        raise ValueError(
            f"{name} is a {file.measurement_submode.name.lower()} measurement; expected images of "
            "T3 records, with ImgHdr_PixX and ImgHdr_PixY in the header."
        )


def _with_last(blocks: Iterator[PhotonCounts]) -> Iterator[tuple[PhotonCounts, bool]]:
    before = next(blocks)
    for block in blocks:
        yield before, False
        before = block
    yield before, True


def _enlarged(block: PhotonCounts, shape: tuple[int, ...]) -> PhotonCounts:
    assert block.domain is not None
    domain = block.domain.copy()
    domain[:2] = domain_of(shape)
    return replace(block, image_shape=shape, domain=domain)
