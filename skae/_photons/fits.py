"""Event lists of FITS files, by astropy."""

from __future__ import annotations

import os
from collections.abc import Iterator, Mapping, Sequence
from math import ceil, floor
from typing import Any, Literal, NamedTuple

import numpy as np
from numpy.typing import ArrayLike, NDArray

from skae._photons.checks import Path, check_file, checked_shape, package, reading
from skae._photons.counts import PhotonCounts, domain_of, grouped
from skae._utils.warning import warn

Range = tuple[float | None, float | None]

# Number of rows that are read at a time.
_CHUNK_ROWS = 2**20
# Names of extensions with good time intervals, or their beginnings.
_GTI_NAMES = ("GTI", "STDGTI")


class Axis(NamedTuple):
    """A column of positions, and the range of pixels that it can have."""

    column: str
    lowest: float  # lower end of the first pixel, in units of the column
    length: int  # number of pixels
    whole: bool  # whether the values are the numbers of pixels


def blocks_of_fits(
    path: Path,
    block_size: int | None,
    *,
    columns: Sequence[str] = ("X", "Y"),
    more_columns: Sequence[str] = (),
    extension: str | int | None = None,
    image_shape: tuple[int, ...] | None = None,
    first_pixel: int = 1,
    ranges: Mapping[str, Range] | None = None,
    gti: bool | str | int = False,
    time_column: str = "TIME",
    exposure: Path | ArrayLike | None = None,
    outside: Literal["raise", "drop"] = "raise",
) -> Iterator[PhotonCounts]:
    name = check_file(path)
    if outside not in ("raise", "drop"):
        raise ValueError(f"outside={outside!r} is not allowed; allowed are 'raise' and 'drop'.")
    fits = package("astropy.io.fits", "FITS files")
    with reading(name, "FITS"):
        file = fits.open(name, memmap=True)
    with file:
        with reading(name, "FITS"):
            list(file)  # the headers of all extensions
        _check_length(file, name)
        table = _events(file, name, extension, (*columns, *more_columns))
        more = tuple(_column(table, name, column).name for column in more_columns)
        axes = _axes(table, name, columns, image_shape, first_pixel)[::-1]
        shape = tuple(axis.length for axis in axes)
        selection = _Selection(table, name, ranges, time_column)
        if gti is not False:
            of_events = 1.0
            if _has(table, time_column):
                of_events = seconds_of(table, name, time_column)
            selection.keep_intervals(*_intervals(file, name, gti, of_events))
        extent = _extent(table, name, more, ranges or {})
        counts = PhotonCounts(
            np.zeros((0, len(shape) + len(more))),
            image_shape=shape,
            exposure=None if exposure is None else _exposure_map(fits, exposure, shape),
            names=(*(axis.column for axis in axes), *more),
            domain=None if extent is None else np.vstack([domain_of(shape), *extent]),
        )
        reader = _Reader(table, name, axes, more, selection, outside, counts)
        rows = min(block_size or _CHUNK_ROWS, _CHUNK_ROWS)
        starts = range(0, max(int(table.header["NAXIS2"]), 1), rows)
        yield from grouped((reader.read(i, i + rows) for i in starts), block_size)


# ------------------------------------------------------------------- the header


def _check_length(file: Any, name: str) -> None:
    """Raise if data of an extension are missing at the end of the file; padding may be."""
    with open(name, "rb") as start:
        if start.read(6) != b"SIMPLE":  # the file is compressed
            return
    length = os.path.getsize(name)
    for hdu in file:
        place = hdu.fileinfo()
        if place is not None and place["datLoc"] + hdu.size > length:
            raise ValueError(
                f"{name} is damaged or incomplete: extension {hdu.name!r} ends after "
                f"{place['datLoc'] + hdu.size} bytes, but the file has {length}."
            )


def _events(file: Any, name: str, extension: str | int | None, columns: tuple[str, ...]) -> Any:
    """The table of events; the first that has all columns, if `extension` is None."""
    tables = {i: hdu for i, hdu in enumerate(file) if hasattr(hdu, "columns")}
    names = [f"{i} ({hdu.name})" for i, hdu in tables.items()]
    if extension is not None:
        try:
            index = file.index_of(extension)
        except KeyError:
            index = -1
        if index not in tables:
            raise ValueError(
                f"{name} has no table extension={extension!r}; allowed are {', '.join(names)}."
            )
        return tables[index]
    for hdu in tables.values():
        if all(_has(hdu, column) for column in columns):
            return hdu
    found = "; ".join(
        f"{i} ({hdu.name}) has {', '.join(hdu.columns.names)}" for i, hdu in tables.items()
    )
    raise ValueError(
        f"{name} has no table with the columns {', '.join(columns)}. "
        f"{f'Tables: {found}.' if found else 'It has no tables at all.'}"
    )


def _has(table: Any, column: str) -> bool:
    return column.upper() in (known.upper() for known in table.columns.names)


def _column(table: Any, name: str, column: str) -> Any:
    """The definition of a column; names do not depend on the case."""
    for known in table.columns:
        if known.name.upper() == column.upper():
            dtype = known.dtype
            if dtype is None or dtype.kind not in "iufb" or dtype.subdtype is not None:
                raise ValueError(
                    f"{name}, column {known.name}: format {known.format} is not allowed; expected "
                    "one number for each row."
                )
            return known
    raise ValueError(
        f"{name} has no column {column!r} in extension {table.name!r}; allowed are "
        f"{', '.join(table.columns.names)}."
    )


def _keyword(table: Any, name: str, column: str, keyword: str) -> float | None:
    """A keyword of a column, such as TLMIN3, as a number."""
    number = [known.upper() for known in table.columns.names].index(column.upper()) + 1
    value = table.header.get(f"{keyword}{number}")
    if value is None:
        return None
    if isinstance(value, bool | str) or not np.isfinite(value):
        raise ValueError(
            f"{name}, column {column}: {keyword}{number}={value!r} is not allowed; expected a "
            "finite number."
        )
    return float(value)


def _axes(
    table: Any,
    name: str,
    columns: Sequence[str],
    image_shape: tuple[int, ...] | None,
    first_pixel: int,
) -> list[Axis]:
    """Pixels have their centres at whole numbers; the axes are those pixels that the range has."""
    if isinstance(columns, str) or not columns:
        raise ValueError(f"columns={columns!r} must be names of columns, such as ('X', 'Y').")
    lengths: list[int | None] = [None] * len(columns)
    if image_shape is not None:
        lengths = [*checked_shape(image_shape, len(columns))[::-1]]
    axes = []
    positions = [_column(table, name, given) for given in columns]
    for column, length in zip(positions, lengths, strict=True):
        low = _keyword(table, name, column.name, "TLMIN")
        high = _keyword(table, name, column.name, "TLMAX")
        lowest = (first_pixel if low is None else floor(low + 0.5)) - 0.5
        if length is None:
            if low is None or high is None:
                raise ValueError(
                    f"{name}, column {column.name}: the header has no TLMIN and TLMAX, the range "
                    "of the values. image_shape must be given."
                )
            length = round(ceil(high - 0.5) + 0.5 - lowest)
            if length < 1:
                raise ValueError(
                    f"{name}, column {column.name}: TLMIN={low:g} and TLMAX={high:g} are no range."
                )
        whole = column.dtype.kind in "iu" and all(
            float(scale or 0).is_integer() for scale in (column.bscale, column.bzero)
        )
        axes.append(Axis(column.name, lowest, length, whole))
    return axes


def _extent(
    table: Any, name: str, columns: Sequence[str], ranges: Mapping[str, Range]
) -> list[list[float]] | None:
    """Ranges of further columns: what is selected, and otherwise TLMIN and TLMAX."""
    extent = []
    for column in columns:
        selected: Range = next(
            (ends for key, ends in ranges.items() if key.upper() == column.upper()), (None, None)
        )
        keywords = (_keyword(table, name, column, key) for key in ("TLMIN", "TLMAX"))
        ends = [
            stated if end is None else end for end, stated in zip(selected, keywords, strict=True)
        ]
        if ends[0] is None or ends[1] is None:
            return None
        extent.append([float(ends[0]), float(ends[1])])
    return extent


def _intervals(
    file: Any, name: str, gti: bool | str | int, unit: float
) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """Starts and stops of good time intervals, in seconds; `unit` is that of the events."""
    for i, hdu in enumerate(file):
        wanted = gti == i or str(gti).upper() == hdu.name.upper()
        if gti is True:
            wanted = hdu.name.upper().startswith(_GTI_NAMES)
        if wanted and hasattr(hdu, "columns"):
            ends = [
                np.asarray(hdu.data[_column(hdu, name, key).name], np.float64)
                * seconds_of(hdu, name, key, unit)
                for key in ("START", "STOP")
            ]
            if not (np.isfinite(ends).all() and (ends[0] <= ends[1]).all()):
                raise ValueError(
                    f"{name}, extension {hdu.name}: START and STOP must be finite, and START at "
                    "most STOP."
                )
            return ends[0], ends[1]
    names = ", ".join(hdu.name for hdu in file)
    raise ValueError(
        f"{name} has no table gti={gti!r} of good time intervals; extensions are {names}."
    )


def seconds_of(table: Any, name: str, column: str, default: float = 1.0) -> float:
    """Length of the unit of a column of times in seconds; `default` if the unit is not stated."""
    found = _column(table, name, column)
    if found.unit is None:
        return default
    units = package("astropy.units", "FITS files")
    try:
        return float(units.Unit(found.unit).to("s"))
    except (ValueError, TypeError) as error:
        raise ValueError(
            f"{name}, column {found.name}: the unit {found.unit!r} is not allowed; expected a unit "
            "of time, such as 's'."
        ) from error


def _exposure_map(fits: Any, exposure: Any, shape: tuple[int, ...]) -> NDArray[np.float64]:
    """The first image of a second file, or an array."""
    name = "exposure"
    if isinstance(exposure, str | os.PathLike):
        name = check_file(exposure)
        with reading(name, "FITS"), fits.open(name) as file:
            images = [hdu.data for hdu in file if hdu.is_image and hdu.data is not None]
        if not images:
            raise ValueError(f"{name} has no image; expected an exposure map of shape {shape}.")
        exposure = images[0]
    values: NDArray[np.float64] = np.array(exposure, dtype=np.float64)
    if values.shape != shape:
        raise ValueError(
            f"{name} has shape {values.shape}; expected an exposure map of the shape of the image, "
            f"{shape}."
        )
    if not (np.isfinite(values) & (values >= 0)).all():
        raise ValueError(
            f"{name} has values that are negative or not finite, which no exposure is."
        )
    return values


# ---------------------------------------------------------------------- the rows


class _Selection:
    """Which events are kept: ranges of columns, and good time intervals."""

    def __init__(
        self, table: Any, name: str, ranges: Mapping[str, Range] | None, time_column: str
    ) -> None:
        self.name = name
        self.ranges = {}
        for given, ends in (ranges or {}).items():
            try:
                low, high = ends
            except (TypeError, ValueError) as error:
                raise ValueError(
                    f"ranges[{given!r}]={ends!r} must be a pair (lowest, highest), of which None "
                    "is no limit."
                ) from error
            self.ranges[_column(table, name, given).name] = (low, high)
        self.table = table
        self.has_times = _has(table, time_column)
        self.time = time_column
        self.unit = seconds_of(table, name, time_column) if self.has_times else 1.0
        self.intervals: tuple[NDArray[np.float64], NDArray[np.float64]] | None = None

    def keep_intervals(self, start: NDArray[np.float64], stop: NDArray[np.float64]) -> None:
        if not self.has_times:
            _column(self.table, self.name, self.time)  # raises, with the columns that there are
        order = np.argsort(start)
        self.intervals = start[order], np.maximum.accumulate(stop[order])

    def times(self, block: Any) -> NDArray[np.float64] | None:
        if not self.has_times:
            return None
        column = _column(self.table, self.name, self.time)
        return _values(block, column, column.name) * self.unit

    def mask(self, block: Any, times: NDArray[np.float64] | None) -> NDArray[np.bool_]:
        kept = np.ones(len(block), dtype=bool)
        for key, (low, high) in self.ranges.items():
            values = _values(block, _column(self.table, self.name, key), key)
            kept &= ~np.isnan(values)
            if low is not None:
                kept &= values >= low
            if high is not None:
                kept &= values <= high
        if self.intervals is not None and times is not None:
            starts, stops = self.intervals
            index = np.searchsorted(starts, times, side="right") - 1
            inside = index >= 0
            inside[inside] = times[inside] < stops[index[inside]]
            kept &= inside
        return kept


class _Reader(NamedTuple):
    table: Any
    name: str
    axes: list[Axis]
    more: tuple[str, ...]
    selection: _Selection
    outside: str
    counts: PhotonCounts

    def read(self, start: int, stop: int) -> PhotonCounts:
        """The events of some rows."""
        with reading(self.name, "FITS, as rows of a table"):
            block = self.table.data[start:stop]
            times = self.selection.times(block)
            kept = self.selection.mask(block, times)
            columns = [*(axis.column for axis in self.axes), *self.more]
            places = np.column_stack(
                [
                    _values(block, _column(self.table, self.name, column), column)[kept]
                    for column in columns
                ]
            )
        numbers = start + np.flatnonzero(kept)
        n_before = len(places)
        good: NDArray[np.bool_] = np.array(np.isfinite(places).all(axis=1))
        n_null = n_before - int(good.sum())
        if n_null:
            warn(
                f"{self.name}: {n_null} of {n_before} events have no position (NaN or TNULL in "
                f"the columns {', '.join(columns)}), and are left out."
            )
        n_dims = len(self.axes)
        places[:, :n_dims] -= [axis.lowest for axis in self.axes]
        inside = self._inside(places, good, numbers)
        good &= inside
        places = places[good]
        if all(axis.whole for axis in self.axes) and not self.more:
            places = np.floor(places).astype(np.uint32)
        kept_times = None if times is None else times[kept][good]
        return PhotonCounts(
            places,
            image_shape=self.counts.image_shape,
            times=kept_times,
            exposure=self.counts.exposure,
            names=self.counts.names,
            domain=self.counts.domain,
            n_dropped=n_before - len(places),
        )

    def _inside(
        self, places: NDArray[np.float64], good: NDArray[np.bool_], numbers: NDArray[np.intp]
    ) -> NDArray[np.bool_]:
        """Whether events lie in the image, both ends included."""
        inside = np.ones(len(places), dtype=bool)
        for i, axis in enumerate(self.axes):
            out = good & ~((places[:, i] >= 0) & (places[:, i] <= axis.length))
            if not out.any():
                continue
            first = int(out.argmax())
            told = (
                f"{self.name}, column {axis.column}: {int(out.sum())} events are outside of the "
                f"image. The first is {places[first, i] + axis.lowest:g} in row {numbers[first]}; "
                f"allowed are {axis.lowest:g} to {axis.lowest + axis.length:g}"
            )
            if self.outside == "raise":
                raise ValueError(f"{told}. With outside='drop', such events are left out.")
            warn(f"{told}. They are left out.")
            inside &= ~out
        return inside


def _values(block: Any, column: Any, name: str) -> NDArray[np.float64]:
    """Values of a column, scaled by TSCAL and TZERO; NaN where they are TNULL."""
    # Neither the data of astropy nor its Table mark TNULL in scaled columns.
    values: NDArray[np.float64] = np.array(block[name], dtype=np.float64)
    if column.null is not None and column.dtype.kind in "iu":
        values[block.view(np.ndarray)[name] == column.null] = np.nan
    return values
