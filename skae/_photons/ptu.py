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

# Size of the part of the histogram of delays that is decoded at a time.
_HISTOGRAM_BYTES = 2**26


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
        steps: list[int] = [-1] if whole else numbers  # -1 adds all frames up
        frame_time = file.frame_time if times else None
        if delays:
            blocks = grouped((decoder.delays(i, frame_time) for i in steps), block_size)
        else:
            images = (
                (decoder.image(i), None if frame_time is None else i * frame_time) for i in steps
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

    def _decode(self, frame: int, lines: slice, dtime: int | None) -> NDArray[Any]:
        """Histogram (lines, pixels, delays); the package adds up axes with a step of -1."""
        time: int | slice = frame if frame >= 0 else slice(None, None, -1)
        total: NDArray[Any] | None = None
        with refusing_logged_errors(self.name, "ptufile", "PTU"), reading(self.name, "PTU"):
            for channel in self.channels:
                # All five axes are kept. Counts of 16 bits, the default, could overflow.
                part = self.file.decode_image(
                    (time, lines, slice(None), channel),
                    dtime=dtime,
                    dtype=np.uint32,
                    keepdims=True,
                )[0, :, :, 0, :]
                total = part if total is None else total + part
        if total is None:  # no channel has photons
            return np.zeros(
                (len(range(*lines.indices(self.shape[0]))), self.shape[1], 1), np.uint32
            )
        return total

    def image(self, frame: int) -> NDArray[Any]:
        return self._decode(frame, slice(0, self.shape[0]), -1)[:, :, 0]

    def delays(self, frame: int, frame_time: float | None) -> PhotonCounts:
        """Pixel and delay of the counts of a frame, several lines at a time."""
        file = self.file
        n_bins = max(file.number_bins, 1)
        unit = 1e9 * file.tcspc_resolution  # ns
        step = max(1, _HISTOGRAM_BYTES // (self.shape[1] * n_bins * 4))
        places, weights = [], []
        for first in range(0, self.shape[0], step):
            part = self._decode(frame, slice(first, min(first + step, self.shape[0])), None)
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
