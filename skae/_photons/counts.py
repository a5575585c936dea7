"""Counts as a reader returns them, and blocks of counts with a bounded number of rows."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
from numpy.typing import NDArray


@dataclass(frozen=True, eq=False, repr=False)
class PhotonCounts:
    """Counts from a file: coordinates, the shape of the image, weights and times.

    The readers of `skae.photons` return this object. Its arrays are the arguments of
    :class:`~skae.CountMixtureAE`.

    Parameters
    ----------
    coordinates : ndarray of shape (n_rows, n_dims)
        Coordinates of the counts, in the order of the axes of the image. Pixel (i, j) covers
        [i, i + 1) x [j, j + 1). Where the detector only knows the pixel, these are the indices of
        pixels, uint32. Otherwise they are continuous positions, float64. If there are further
        columns beside the pixel, such as a delay, the array is float64, and the pixel (i, j) is
        given by its centre, (i + 0.5, j + 0.5).
    image_shape : tuple of int, default=None
        Number of pixels along each axis of the image; None if the file has no image.
    weights : ndarray of shape (n_rows,), default=None
        Number of counts that each row stands for, float64. None means 1 for all rows.
    times : ndarray of shape (n_rows,), default=None
        Times of the counts in seconds, float64; None if they were not read.
    exposure : ndarray of shape `image_shape`, default=None
        Exposure of each pixel, float64; None if it is not known.
    names : tuple of str, default=()
        Names of the columns of `coordinates`.
    domain : ndarray of shape (n_dims, 2), default=None
        Lowest and highest possible value of each column. None if it is not known.
    n_dropped : int, default=0
        Number of counts in the file that have no place in the image, and are not in `coordinates`.

    See Also
    --------
    skae.photons.read_counts : Read the counts of a file.
    skae.counts_to_image : Histogram of counts on the pixels of an image.

    Examples
    --------
    >>> from skae.photons import read_array
    >>> counts = read_array([[0, 2], [1, 0]])
    >>> counts
    PhotonCounts(2 rows of y, x; 3 counts; image_shape=(2, 2); weights)
    >>> print(counts.coordinates)
    [[0 1]
     [1 0]]
    >>> print(counts.weights)
    [2. 1.]
    """

    coordinates: NDArray[Any]
    image_shape: tuple[int, ...] | None = None
    weights: NDArray[np.float64] | None = None
    times: NDArray[np.float64] | None = None
    exposure: NDArray[np.float64] | None = None
    names: tuple[str, ...] = ()
    domain: NDArray[np.float64] | None = None
    n_dropped: int = 0

    def __len__(self) -> int:
        """Number of rows."""
        return len(self.coordinates)

    def __repr__(self) -> str:
        rows = f"{len(self)} rows"
        parts = [f"{rows} of {', '.join(self.names)}" if self.names else rows]
        parts.append(f"{self.n_counts:.15g} counts")
        if self.image_shape is not None:
            parts.append(f"image_shape={self.image_shape}")
        parts += [
            name for name in ("weights", "times", "exposure") if getattr(self, name) is not None
        ]
        return f"PhotonCounts({'; '.join(parts)})"

    @property
    def n_counts(self) -> float:
        """Number of counts, the sum of the weights."""
        return float(len(self) if self.weights is None else self.weights.sum())

    def repeated(self) -> PhotonCounts:
        """One row for each count, in place of weights.

        A search over `n_components` must hold out counts, not pixels. It therefore needs single
        counts as rows.

        Returns
        -------
        counts : PhotonCounts
            The same counts, each row as often as its weight says, and no weights.

        Examples
        --------
        >>> from skae.photons import read_array
        >>> print(read_array([[0, 2], [1, 0]]).repeated().coordinates)
        [[0 1]
         [0 1]
         [1 0]]
        """
        if self.weights is None:
            return self
        index = np.repeat(np.arange(len(self)), self.weights.astype(np.intp))
        return replace(
            self,
            coordinates=self.coordinates[index],
            weights=None,
            times=None if self.times is None else self.times[index],
        )


def merged(blocks: list[PhotonCounts]) -> PhotonCounts:
    """All rows of several blocks of one file."""
    first = blocks[0]
    if len(blocks) == 1:
        return first
    joined: dict[str, Any] = {"n_dropped": sum(block.n_dropped for block in blocks)}
    for name in ("coordinates", "weights", "times"):
        if getattr(first, name) is not None:
            joined[name] = np.concatenate([getattr(block, name) for block in blocks])
    return replace(first, **joined)


def grouped(blocks: Iterable[PhotonCounts], block_size: int | None) -> Iterator[PhotonCounts]:
    """Join blocks as long as they have at most `block_size` rows together; None joins all."""
    waiting: list[PhotonCounts] = []
    n_rows = 0
    for block in blocks:
        if waiting and block_size is not None and n_rows + len(block) > block_size:
            yield merged(waiting)
            waiting, n_rows = [], 0
        waiting.append(block)
        n_rows += len(block)
    if waiting:
        yield merged(waiting)


def of_image(
    image: NDArray[Any], names: tuple[str, ...], time: float | None = None
) -> PhotonCounts:
    """The pixels of an image of counts with at least one count, as weighted rows."""
    pixels = np.nonzero(image)
    weights = image[pixels].astype(np.float64)
    return PhotonCounts(
        np.column_stack(pixels).astype(np.uint32),
        image_shape=image.shape,
        weights=weights,
        times=None if time is None else np.full(len(weights), time, dtype=np.float64),
        names=names,
        domain=domain_of(image.shape),
    )


def of_frames(
    frames: Iterable[tuple[NDArray[Any], float | None]],
    names: tuple[str, ...],
    block_size: int | None,
) -> Iterator[PhotonCounts]:
    """Blocks of whole frames, each with the time of the frame, or None to add frames up.

    A block has at most `block_size` rows, or one frame if this has more.
    """
    total: NDArray[np.float64] | None = None
    timed: list[PhotonCounts] = []
    n_rows = 0
    for frame, time in frames:
        n_new = int(np.count_nonzero(frame))
        if n_rows and block_size is not None and n_rows + n_new > block_size:
            yield merged(timed) if total is None else of_image(total, names)
            total, timed, n_rows = None, [], 0
        if time is not None:
            timed.append(of_image(frame, names, time))
        elif total is None:
            total = frame.astype(np.float64)
        else:
            total += frame
        n_rows += n_new
    yield merged(timed) if total is None else of_image(total, names)


def domain_of(image_shape: tuple[int, ...]) -> NDArray[np.float64]:
    """The range of the coordinates of an image."""
    return np.array([[0.0, float(length)] for length in image_shape])


def axis_names(n_dims: int) -> tuple[str, ...]:
    """Names of the axes of an image of this number of axes."""
    if n_dims <= 3:
        return ("z", "y", "x")[3 - n_dims :]
    return tuple(f"axis{i}" for i in range(n_dims))
