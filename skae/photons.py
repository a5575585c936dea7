"""Read the counts of real detectors: PTU, FITS, Photon-HDF5, SPAD frames, TIFF and arrays.

Each reader returns the arrays that :class:`~skae.CountMixtureAE` takes. Well-kept packages read
the formats: ptufile, astropy, h5py and tifffile, which ``pip install "skae[photons]"`` installs.
The page "Photon files" of the documentation has examples.
"""

from __future__ import annotations

import inspect
import os
from collections.abc import Callable, Iterator, Mapping, Sequence
from itertools import chain
from typing import Any, Literal

from numpy.typing import ArrayLike, NDArray

from skae._photons.arrays import blocks_of_array as _blocks_of_array
from skae._photons.checks import check_file as _check_file
from skae._photons.counts import PhotonCounts
from skae._photons.counts import merged as _merged
from skae._photons.fits import blocks_of_fits as _blocks_of_fits
from skae._photons.photon_hdf5 import blocks_of_photon_hdf5 as _blocks_of_photon_hdf5
from skae._photons.ptu import blocks_of_ptu as _blocks_of_ptu
from skae._photons.spad import blocks_of_spad as _blocks_of_spad
from skae._photons.tiff import blocks_of_tiff as _blocks_of_tiff
from skae._utils.inputs import check_count as _check_count
from skae._utils.types import Integers

__all__ = [
    "PhotonCounts",
    "iter_counts",
    "read_array",
    "read_counts",
    "read_fits",
    "read_photon_hdf5",
    "read_ptu",
    "read_spad",
    "read_tiff",
]

_BLOCKS: dict[str, Callable[..., Iterator[PhotonCounts]]] = {
    "ptu": _blocks_of_ptu,
    "fits": _blocks_of_fits,
    "photon_hdf5": _blocks_of_photon_hdf5,
    "spad": _blocks_of_spad,
    "tiff": _blocks_of_tiff,
    "array": _blocks_of_array,
}

# The first bytes of files.
_BEGINNINGS = {
    b"PQTTTR": "ptu",
    b"SIMPLE  =": "fits",
    b"\x89HDF\r\n\x1a\n": "photon_hdf5",
    b"II*\x00": "tiff",
    b"MM\x00*": "tiff",
    b"II+\x00": "tiff",
    b"MM\x00+": "tiff",
    b"\x93NUMPY": "array",
    b"PK\x03\x04": "array",
}
_COMPRESSED_FITS = (".fits.gz", ".fit.gz", ".fits.bz2", ".evt.gz", ".ftz")


def read_counts(
    source: object,
    *,
    format: Literal[  # noqa: A002
        "auto", "ptu", "fits", "photon_hdf5", "spad", "tiff", "array"
    ] = "auto",
    **options: object,
) -> PhotonCounts:
    """Read all counts of a file or an array.

    Parameters
    ----------
    source : str, PathLike, array-like or sparse array
        File, or array of the numbers of counts in pixels.
    format : {'auto', 'ptu', 'fits', 'photon_hdf5', 'spad', 'tiff', 'array'}, default='auto'
        Format of the source. 'auto' finds it from the first bytes of the file. It never takes a
        file for frames of a SPAD array, because these have no mark.
    **options : dict
        Options of the format. They are the arguments of :func:`read_ptu`, :func:`read_fits`,
        :func:`read_photon_hdf5`, :func:`read_spad`, :func:`read_tiff` or :func:`read_array`.

    Returns
    -------
    counts : PhotonCounts
        Coordinates, the shape of the image, weights and times.

    Raises
    ------
    FileNotFoundError
        If there is no such file.
    ImportError
        If the package that reads the format is not installed.
    TypeError
        If the format does not have an option, or an option has the wrong type.
    ValueError
        If the format is not known, or if the file is damaged, has wrong columns, or has values
        that no counts can have. The error names the file, the column, and what is allowed.

    See Also
    --------
    iter_counts : Read a file in blocks.

    Examples
    --------
    >>> from skae import CountMixtureAE
    >>> from skae.photons import read_counts
    >>> counts = read_counts([[9, 0, 2], [4, 1, 0], [0, 3, 7]])
    >>> counts
    PhotonCounts(6 rows of y, x; 26 counts; image_shape=(3, 3); weights)
    >>> model = CountMixtureAE(2, image_shape=counts.image_shape)
    >>> model = model.fit(counts.coordinates, sample_weight=counts.weights)
    >>> model.n_counts_
    26.0
    """
    return _all(_blocks(source, None, format, options))


def iter_counts(
    source: object,
    *,
    block_size: int = 1_000_000,
    format: Literal[  # noqa: A002
        "auto", "ptu", "fits", "photon_hdf5", "spad", "tiff", "array"
    ] = "auto",
    **options: object,
) -> Iterator[PhotonCounts]:
    """Read a file in blocks, for `partial_fit`.

    Only one block is in memory at a time.

    Parameters
    ----------
    source : str, PathLike, array-like or sparse array
        File, or array of the numbers of counts in pixels.
    block_size : int, default=1_000_000
        Largest number of rows of a block. Frames are not divided: a block is one frame if this has
        more rows.
    format : {'auto', 'ptu', 'fits', 'photon_hdf5', 'spad', 'tiff', 'array'}, default='auto'
        Format of the source, as in :func:`read_counts`.
    **options : dict
        Options of the format, as in :func:`read_counts`.

    Yields
    ------
    counts : PhotonCounts
        The counts of a block. Blocks without counts are left out.

    Raises
    ------
    TypeError
        If the format does not have an option, or an argument has the wrong type.
    ValueError
        As in :func:`read_counts`. Errors in a later part of the file are raised when that part is
        read.

    See Also
    --------
    read_counts : Read all counts.

    Examples
    --------
    >>> import numpy as np
    >>> from skae import CountMixtureAE
    >>> from skae.photons import iter_counts
    >>> stack = np.random.RandomState(0).poisson(2, size=(20, 4, 4))
    >>> model = CountMixtureAE(2, image_shape=(4, 4))
    >>> for block in iter_counts(stack, frame_axis=0, block_size=100):
    ...     model = model.partial_fit(block.coordinates, sample_weight=block.weights)
    >>> bool(model.n_counts_ == stack.sum())
    True
    """
    _check_count("block_size", block_size)
    blocks = _blocks(source, block_size, format, options)
    first = next(blocks)  # raises errors now, rather than in the loop
    return (block for block in chain([first], blocks) if len(block))


def read_ptu(
    path: str | os.PathLike[str],
    *,
    frames: int | slice | Integers | None = None,
    channels: int | slice | Integers | None = None,
    delays: bool = False,
    times: bool = False,
    image_shape: tuple[int, int] | None = None,
) -> PhotonCounts:
    """Read an image of a PicoQuant PTU file (T3 records).

    The pixels are those of the image that ptufile decodes from the markers of the scan. Photons
    between lines (retrace), and in an incomplete first or last frame, have no pixel. Their number
    is `n_dropped`.

    Parameters
    ----------
    path : str or PathLike
        PTU file.
    frames : int, slice or sequence of int, default=None
        Frames to read, counted from 0. None reads all complete frames.
    channels : int, slice or sequence of int, default=None
        Channels to read, as the file numbers them. Their counts are added up. None reads all
        channels.
    delays : bool, default=False
        Whether to return the delay after the laser pulse as a third column, in nanoseconds. It is
        the centre of a TCSPC bin. `coordinates` are then float64, with the centres of pixels.
    times : bool, default=False
        Whether to return times. Each count has the time at which its frame begins, in seconds;
        frames are taken to be of equal length. If False, frames are added up.
    image_shape : tuple of 2 ints, default=None
        Number of lines and pixels. None takes those of the header, PixY and PixX. A larger image
        is allowed, and its further pixels are empty.

    Returns
    -------
    counts : PhotonCounts
        One row of (y, x) for each pixel with counts, uint32, with the number of counts as weight.
        With `delays`, one row for each pixel and delay with counts. If `frames` is given,
        `n_dropped` is 0.

    Raises
    ------
    FileNotFoundError
        If there is no such file.
    ImportError
        If ptufile is not installed.
    TypeError
        If an argument has the wrong type.
    ValueError
        If the file is damaged or truncated, is no image of T3 records, or does not have the frames
        or channels, or if `image_shape` is smaller than the scan.

    Examples
    --------
    >>> import tempfile
    >>> import numpy as np
    >>> import ptufile
    >>> from skae.photons import read_ptu
    >>> image = np.random.RandomState(0).poisson(0.1, size=(3, 8, 8, 1, 16))  # TYXCH
    >>> with tempfile.TemporaryDirectory() as folder:
    ...     ptufile.imwrite(f"{folder}/image.ptu", image.astype(np.uint16), 5e-8, 1e-9)
    ...     counts = read_ptu(f"{folder}/image.ptu")
    ...     with_delays = read_ptu(f"{folder}/image.ptu", delays=True)
    >>> counts
    PhotonCounts(64 rows of y, x; 358 counts; image_shape=(8, 8); weights)
    >>> with_delays.names
    ('y', 'x', 'delay')
    """
    return _all(
        _blocks_of_ptu(
            path,
            None,
            frames=frames,
            channels=channels,
            delays=delays,
            times=times,
            image_shape=image_shape,
        )
    )


def read_fits(
    path: str | os.PathLike[str],
    *,
    columns: Sequence[str] = ("X", "Y"),
    more_columns: Sequence[str] = (),
    extension: str | int | None = None,
    image_shape: tuple[int, ...] | None = None,
    first_pixel: int = 1,
    ranges: Mapping[str, tuple[float | None, float | None]] | None = None,
    gti: bool | str | int = False,
    time_column: str = "TIME",
    exposure: str | os.PathLike[str] | ArrayLike | None = None,
    outside: Literal["raise", "drop"] = "raise",
) -> PhotonCounts:
    """Read an event list of a FITS file, such as those of X-ray and gamma-ray telescopes.

    In FITS, whole numbers are the centres of pixels, and the first pixel has number 1. Its range
    is [0.5, 1.5). The coordinate of a position x is therefore x - 0.5. The image begins with the
    pixel in which TLMIN lies, which need not be number 1.

    Parameters
    ----------
    path : str or PathLike
        FITS file, which may be compressed.
    columns : sequence of str, default=("X", "Y")
        Columns of the positions in the order of FITS, of which the first runs along the rows of an
        image. `coordinates` have the reverse order, (y, x). The names do not depend on the case.
    more_columns : sequence of str, default=()
        Further columns of `coordinates`, such as the energy, in the units of the file.
        `coordinates` are then float64, with the centres of pixels if the positions are integers.
    extension : str or int, default=None
        Name or number of the extension with the table. None takes the first table that has all
        columns.
    image_shape : tuple of int, default=None
        Number of pixels, in the order (y, x). None takes the pixels from TLMIN to TLMAX of the
        columns.
    first_pixel : int, default=1
        Number of the first pixel, if a column has no TLMIN. Detectors may count from 0.
    ranges : dict of str to (float or None, float or None), default=None
        Lowest and highest value of columns, both included, in the units of the file. Other events
        are not read. None as one of the ends is no limit.
    gti : bool, str or int, default=False
        Whether to read only events in good time intervals, START <= t < STOP. True takes the
        first extension whose name begins with GTI or STDGTI. Otherwise, the name or the number of
        the extension.
    time_column : str, default="TIME"
        Column with the times. `times` are None if the table does not have it. They are converted
        to seconds; TIMEZERO is not added.
    exposure : str, PathLike or array-like of shape `image_shape`, default=None
        Exposure map: an array, or a FITS file whose first image it is.
    outside : {'raise', 'drop'}, default='raise'
        What to do with events outside of the image. 'drop' leaves them out, with a warning.

    Returns
    -------
    counts : PhotonCounts
        One row for each event. `coordinates` are the indices of pixels, uint32, if all columns of
        positions are integers, and otherwise float64. Events without a position (NaN, or TNULL in
        columns of integers) are left out, with a warning.

    Raises
    ------
    FileNotFoundError
        If there is no such file.
    ImportError
        If astropy is not installed.
    ValueError
        If the file is damaged or truncated, if there are no such columns or extensions, if the
        range of the positions is not known, if events are outside of the image, or if the
        exposure map has another shape, or values that are negative or not finite.

    References
    ----------
    W. D. Pence, L. Chiappetti, C. G. Page, R. A. Shaw and E. Stobie (2010). Definition of the
    Flexible Image Transport System (FITS), version 3.0. Astronomy & Astrophysics 524, A42.
    https://doi.org/10.1051/0004-6361/201015362

    Examples
    --------
    >>> import tempfile
    >>> from astropy.io import fits
    >>> from skae.photons import read_fits
    >>> columns = [
    ...     fits.Column("X", "I", array=[1, 3, 2]),
    ...     fits.Column("Y", "I", array=[1, 1, 2]),
    ...     fits.Column("PI", "I", array=[20, 500, 90]),
    ... ]
    >>> events = fits.BinTableHDU.from_columns(columns, name="EVENTS")
    >>> with tempfile.TemporaryDirectory() as folder:
    ...     events.writeto(f"{folder}/events.fits")
    ...     counts = read_fits(
    ...         f"{folder}/events.fits", image_shape=(2, 3), ranges={"PI": (30, None)}
    ...     )
    >>> print(counts.coordinates)
    [[0 2]
     [1 1]]
    """
    return _all(
        _blocks_of_fits(
            path,
            None,
            columns=columns,
            more_columns=more_columns,
            extension=extension,
            image_shape=image_shape,
            first_pixel=first_pixel,
            ranges=ranges,
            gti=gti,
            time_column=time_column,
            exposure=exposure,
            outside=outside,
        )
    )


def read_photon_hdf5(
    path: str | os.PathLike[str],
    *,
    coordinates: Literal["auto", "position", "detector", "nanotime"] = "auto",
    spot: int | None = None,
    detectors: int | Sequence[int] | None = None,
) -> PhotonCounts:
    """Read the photons of a Photon-HDF5 file.

    Most of these files are single-molecule measurements, which have times but no image. Ids that
    the file lists as markers (non_photon_id) are left out. The validation of phconvert accepts
    timestamps that are not sorted, and too few nanotimes; this function does not.

    Parameters
    ----------
    path : str or PathLike
        Photon-HDF5 file.
    coordinates : {'auto', 'position', 'detector', 'nanotime'}, default='auto'
        What the columns are. 'position' is the pixel (y, x) of the detector, from
        setup/detectors/position. 'nanotime' is the delay after the laser pulse in nanoseconds, the
        centre of a TCSPC bin, as the only column. 'detector' is the id of the detector, as the
        only column. 'auto' takes the first of the three that the file has.
    spot : int, default=None
        Which group of photons to read, photon_data0, photon_data1 and so on. It must be given if
        there are several.
    detectors : int or sequence of int, default=None
        Ids of detectors whose photons are read. None reads all.

    Returns
    -------
    counts : PhotonCounts
        One row for each photon, with the time in seconds. `coordinates` are uint32 for 'position'
        and 'detector', and float64 for 'nanotime'. `image_shape` reaches to the highest position
        or id of a detector in setup/detectors. It is None for 'nanotime'. Nanotimes that exceed
        the number of TCSPC bins are left out, with a warning.

    Raises
    ------
    FileNotFoundError
        If there is no such file.
    ImportError
        If h5py is not installed.
    TypeError
        If `detectors` are no integers.
    ValueError
        If the file is damaged, does not have the coordinates or the spot, or if its arrays are not
        of equal length, timestamps are not sorted, units are missing, or an id is not in
        setup/detectors.

    References
    ----------
    A. Ingargiola, T. Laurence, R. Boutelle, S. Weiss and X. Michalet (2016). Photon-HDF5: an open
    file format for timestamp-based single-molecule fluorescence experiments. Biophysical Journal
    110(1), 26-33. https://doi.org/10.1016/j.bpj.2015.11.013

    Examples
    --------
    >>> import tempfile
    >>> import h5py
    >>> from skae.photons import read_photon_hdf5
    >>> with tempfile.TemporaryDirectory() as folder:
    ...     with h5py.File(f"{folder}/photons.h5", "w") as file:
    ...         file["photon_data/timestamps"] = [10, 20, 50]
    ...         file["photon_data/timestamps_specs/timestamps_unit"] = 1e-6
    ...         file["photon_data/detectors"] = [1, 0, 1]
    ...     counts = read_photon_hdf5(f"{folder}/photons.h5")
    >>> print(counts.coordinates.ravel(), counts.times)
    [1 0 1] [1.e-05 2.e-05 5.e-05]
    """
    return _all(
        _blocks_of_photon_hdf5(path, None, coordinates=coordinates, spot=spot, detectors=detectors)
    )


def read_spad(
    source: str | os.PathLike[str] | NDArray[Any],
    *,
    image_shape: tuple[int, int] | None = None,
    bit_order: Literal["big", "little"] = "big",
    frames: int | slice | Integers | None = None,
    frame_time: float | None = None,
    offset: int = 0,
    key: str | None = None,
) -> PhotonCounts:
    """Read frames of a single-photon camera (SPAD array), packed to one bit for each pixel.

    Each row of a frame begins at a new byte, as `numpy.packbits` packs the last axis. A pixel has
    one count at most in each frame. Files are mapped into memory, and unpacked in parts.

    Parameters
    ----------
    source : str, PathLike or ndarray of shape (n_frames, height, ceil(width / 8)), uint8
        Packed frames, or a file with them: .npy, .npz or raw bytes. Arrays of .npz files are read
        as a whole.
    image_shape : tuple of 2 ints, default=None
        Height and width in pixels. None takes the shape of the array, and a width that is a
        multiple of 8. It must be given for raw bytes.
    bit_order : {'big', 'little'}, default='big'
        Whether the first pixel of a byte is its most significant bit ('big') or its least
        significant one ('little').
    frames : int, slice or sequence of int, default=None
        Frames to read, counted from 0. None reads all.
    frame_time : float, default=None
        Time from frame to frame in seconds. Each count then has the time at which its frame
        begins. None adds up the frames.
    offset : int, default=0
        Number of bytes of a raw file before the first frame.
    key : str, default=None
        Name of the array in an .npz file with several arrays.

    Returns
    -------
    counts : PhotonCounts
        One row of (y, x) for each pixel with counts, uint32, with the number of counts as weight.
        With `frame_time`, one row for each count.

    Raises
    ------
    FileNotFoundError
        If there is no such file.
    TypeError
        If an argument has the wrong type.
    ValueError
        If the frames have another shape or dtype, if a raw file does not end with a complete
        frame, if bits beyond the width are set, or if there are no such frames.

    Examples
    --------
    >>> import numpy as np
    >>> from skae.photons import read_spad
    >>> frames = np.array([[[1, 0, 0], [0, 0, 1]], [[1, 0, 0], [0, 0, 0]]])
    >>> counts = read_spad(np.packbits(frames, axis=2), image_shape=(2, 3))
    >>> print(counts.coordinates)
    [[0 0]
     [1 2]]
    >>> print(counts.weights)
    [2. 1.]
    """
    return _all(
        _blocks_of_spad(
            source,
            None,
            image_shape=image_shape,
            bit_order=bit_order,
            frames=frames,
            frame_time=frame_time,
            offset=offset,
            key=key,
        )
    )


def read_tiff(
    path: str | os.PathLike[str],
    *,
    frames: int | slice | Integers | None = None,
    frame_time: float | None = None,
) -> PhotonCounts:
    """Read a stack of images of counts from a TIFF file, page by page.

    Parameters
    ----------
    path : str or PathLike
        TIFF file with grey images of one shape. All axes before the last two, such as those of
        time and channels, count frames.
    frames : int, slice or sequence of int, default=None
        Frames to read, counted from 0. None reads all.
    frame_time : float, default=None
        Time from frame to frame in seconds. Each count then has the time at which its frame
        begins. None adds up the frames.

    Returns
    -------
    counts : PhotonCounts
        One row of (y, x) for each pixel with counts, uint32, with the number of counts as weight.
        With `frame_time`, one row for each frame and pixel with counts.

    Raises
    ------
    FileNotFoundError
        If there is no such file.
    ImportError
        If tifffile is not installed.
    TypeError
        If an argument has the wrong type.
    ValueError
        If the file is damaged or truncated, has colours or images of several shapes, or does not
        have the frames, or if values are negative or not whole. The error names the page.

    Examples
    --------
    >>> import tempfile
    >>> import numpy as np
    >>> import tifffile
    >>> from skae.photons import read_tiff
    >>> stack = np.random.RandomState(0).poisson(1, size=(5, 16, 12)).astype(np.uint16)
    >>> with tempfile.TemporaryDirectory() as folder:
    ...     tifffile.imwrite(f"{folder}/stack.tif", stack, photometric="minisblack")
    ...     counts = read_tiff(f"{folder}/stack.tif")
    >>> bool(counts.n_counts == stack.sum())
    True
    """
    return _all(_blocks_of_tiff(path, None, frames=frames, frame_time=frame_time))


def read_array(
    source: object,
    *,
    key: str | None = None,
    frame_axis: int | None = None,
    frames: int | slice | Integers | None = None,
    frame_time: float | None = None,
) -> PhotonCounts:
    """Convert an image of counts to weighted counts.

    Parameters
    ----------
    source : array-like, sparse array, str or PathLike
        Number of counts of each pixel, of one axis or more: an array, anything that has the method
        ``__array__``, an array or matrix of SciPy, or a file of them (.npy, .npz). Masked pixels
        of a masked array are left out, and their exposure is 0. Sparse arrays are not made dense.
    key : str, default=None
        Name of the array in an .npz file with several arrays.
    frame_axis : int, default=None
        Axis that counts frames. None means that all axes are axes of the image.
    frames : int, slice or sequence of int, default=None
        Frames to read, counted from 0. None reads all.
    frame_time : float, default=None
        Time from frame to frame in seconds. Each count then has the time at which its frame
        begins. None adds up the frames.

    Returns
    -------
    counts : PhotonCounts
        One row for each pixel with counts, uint32, with the number of counts as weight. With
        `frame_time`, one row for each frame and pixel with counts. For a masked array, `exposure`
        is 0 on masked pixels and 1 on the others.

    Raises
    ------
    FileNotFoundError
        If there is no such file.
    TypeError
        If an argument has the wrong type.
    ValueError
        If values are negative, not finite or not whole, if the array is empty, or if options do
        not fit to it.

    See Also
    --------
    skae.image_to_counts : The same for images of any intensities, with the centres of pixels.

    Examples
    --------
    >>> from scipy import sparse
    >>> from skae.photons import read_array
    >>> counts = read_array(sparse.coo_array([[0, 0, 5], [1, 0, 0]]))
    >>> print(counts.coordinates, counts.weights)
    [[0 2]
     [1 0]] [5. 1.]
    """
    return _all(
        _blocks_of_array(
            source, None, key=key, frame_axis=frame_axis, frames=frames, frame_time=frame_time
        )
    )


def _all(blocks: Iterator[PhotonCounts]) -> PhotonCounts:
    return _merged(list(blocks))


def _blocks(
    source: object,
    block_size: int | None,
    stated: str,
    options: Mapping[str, object],
) -> Iterator[PhotonCounts]:
    """Blocks of a source of any format; the options must be those of the format."""
    if stated not in ("auto", *_BLOCKS):
        raise ValueError(f"format={stated!r} is not allowed; allowed are {['auto', *_BLOCKS]}.")
    kind = _format_of(source) if stated == "auto" else stated
    blocks = _BLOCKS[kind]
    allowed = [
        name
        for name, parameter in inspect.signature(blocks).parameters.items()
        if parameter.kind is parameter.KEYWORD_ONLY
    ]
    for name in options:
        if name not in allowed:
            raise TypeError(
                f"{name} is no option of the format {kind!r}; allowed are {', '.join(allowed)}."
            )
    return blocks(source, block_size, **options)


def _format_of(source: object) -> str:
    """The format of a file, from its first bytes; 'array' for what is no file."""
    if not isinstance(source, str | os.PathLike):
        return "array"
    name = _check_file(source)
    with open(name, "rb") as file:
        start = file.read(16)
    for beginning, kind in _BEGINNINGS.items():
        if start.startswith(beginning):
            return kind
    if name.lower().endswith(_COMPRESSED_FITS):
        return "fits"
    raise ValueError(
        f"The format of {name} is not known, from its first bytes {start!r}. Give format, one of "
        f"{list(_BLOCKS)}."
    )
