"""Photons of Photon-HDF5 files, by h5py."""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray

from skae._photons.checks import Path, check_file, package, reading
from skae._photons.counts import PhotonCounts, grouped
from skae._utils.warning import warn

Array = NDArray[Any]
Coordinates = Literal["auto", "position", "detector", "nanotime"]
_ALLOWED = ("auto", "position", "detector", "nanotime")

# Number of photons that are read at a time.
_CHUNK_ROWS = 2**20


def blocks_of_photon_hdf5(
    path: Path,
    block_size: int | None,
    *,
    coordinates: Coordinates = "auto",
    spot: int | None = None,
    detectors: int | Sequence[int] | None = None,
) -> Iterator[PhotonCounts]:
    name = check_file(path)
    if coordinates not in _ALLOWED:
        raise ValueError(f"coordinates={coordinates!r} is not allowed; allowed are {_ALLOWED}.")
    h5py = package("h5py", "Photon-HDF5 files")
    with reading(name, "HDF5"):
        file = h5py.File(name, "r")
    with file:
        group = _photon_data(file, name, spot)
        photons = _Photons(file, group, name, coordinates, detectors)
        rows = min(block_size or _CHUNK_ROWS, _CHUNK_ROWS)
        starts = range(0, max(photons.n_photons, 1), rows)
        yield from grouped((photons.read(i, i + rows) for i in starts), block_size)


def _photon_data(file: Any, name: str, spot: int | None) -> Any:
    """The group of a spot: photon_data, or photon_data0, photon_data1, ..."""
    groups = [key for key in file if re.fullmatch(r"photon_data\d*", key)]
    groups.sort(key=lambda key: int(key[11:] or 0))
    if not groups:
        raise ValueError(
            f"{name} has no group photon_data, which every Photon-HDF5 file has; it has "
            f"{', '.join(file) or 'no groups'}."
        )
    if spot is None:
        if len(groups) > 1:
            raise ValueError(
                f"{name} has the photons of {len(groups)} spots; spot must be given, one of "
                f"{', '.join(key[11:] for key in groups)}."
            )
        return file[groups[0]]
    for key in groups:
        if int(key[11:] or 0) == spot:
            return file[key]
    raise ValueError(
        f"{name} has no spot={spot!r}; allowed are {', '.join(key[11:] or '0' for key in groups)}."
    )


class _Photons:
    """The arrays of a group of photons, and what its coordinates are."""

    def __init__(self, file: Any, group: Any, name: str, coordinates: str, detectors: Any) -> None:
        self.name = name
        self.label = group.name.lstrip("/")
        self.spot = int(self.label[11:] or 0)
        self.timestamps = self._array(group, "timestamps")
        self.n_photons = len(self.timestamps)
        self.detectors = self._array(group, "detectors", optional=True)
        self.nanotimes = self._array(group, "nanotimes", optional=True)
        self.unit = self._number(group, "timestamps_specs/timestamps_unit")
        self.markers = _markers(group)
        setup = file.get("setup/detectors")
        self.kind = self._kind(setup, coordinates)
        self.wanted = self._wanted(detectors)
        if self.kind == "position":
            self._learn_positions(setup)
        elif self.kind == "detector":
            self._learn_ids(file, setup)
        else:
            self.bin = 1e9 * self._number(group, "nanotimes_specs/tcspc_unit")  # ns
            self.n_bins = int(self._number(group, "nanotimes_specs/tcspc_num_bins"))
        self.last = -np.inf

    def _array(self, group: Any, key: str, optional: bool = False) -> Any:
        """An array with one integer for each photon."""
        array = group.get(key)
        where = f"{self.name}, {self.label}/{key}"
        if array is None:
            if optional:
                return None
            raise ValueError(f"{where} is missing; it is needed in Photon-HDF5 files.")
        if getattr(array, "ndim", None) != 1 or array.dtype.kind not in "iu":
            raise ValueError(
                f"{where} has shape {getattr(array, 'shape', None)} and dtype "
                f"{getattr(array, 'dtype', None)}; expected one integer for each photon."
            )
        if key != "timestamps" and len(array) != self.n_photons:
            raise ValueError(
                f"{where} has {len(array)} values; expected {self.n_photons}, one for each of the "
                "timestamps."
            )
        return array

    def _number(self, group: Any, key: str) -> float:
        where = f"{self.name}, {self.label}/{key}"
        if key not in group:
            raise ValueError(f"{where} is missing, so that the unit of the times is not known.")
        value = np.asarray(group[key][()])
        if value.size != 1 or value.dtype.kind not in "iuf" or not 0 < float(value.item()) < np.inf:
            raise ValueError(f"{where}={value.tolist()!r} must be a finite number above 0.")
        return float(value.item())

    def _kind(self, setup: Any, coordinates: str) -> str:
        has = {
            "position": self.detectors is not None
            and setup is not None
            and "position" in setup
            and "id" in setup,
            "nanotime": self.nanotimes is not None,
            "detector": self.detectors is not None,
        }
        available = [kind for kind, there in has.items() if there]
        if coordinates == "auto":
            if not available:
                raise ValueError(
                    f"{self.name}, {self.label} has neither detectors nor nanotimes, so that its "
                    "photons have no coordinates beside the time."
                )
            return available[0]
        if coordinates not in available:
            raise ValueError(
                f"{self.name} does not have coordinates={coordinates!r}; allowed are "
                f"{', '.join(['auto', *available])}."
            )
        return coordinates

    def _wanted(self, detectors: Any) -> Array | None:
        if detectors is None:
            return None
        if self.detectors is None:
            raise ValueError(
                f"detectors={detectors!r} cannot be chosen, because {self.name}, {self.label} has "
                "no array detectors."
            )
        ids = np.atleast_1d(np.asarray(detectors))
        if ids.ndim != 1 or ids.dtype.kind not in "iu":
            raise TypeError(f"detectors={detectors!r} must be None, an int or a sequence of ints.")
        return ids

    def _learn_positions(self, setup: Any) -> None:
        """Pixel (y, x) of each detector; the file has (x, y)."""
        ids, places = np.asarray(setup["id"][()]), np.asarray(setup["position"][()])
        where = f"{self.name}, setup/detectors/position"
        if places.shape != (len(ids), 2):
            raise ValueError(
                f"{where} has shape {places.shape}; expected {(len(ids), 2)}, x and y of each "
                "detector in setup/detectors/id."
            )
        if places.dtype.kind not in "iu" or (places.size and places.min() < 0):
            raise ValueError(f"{where} must be pixels, integers of 0 or more.")
        if len(np.unique(ids)) < len(ids) and "spot" in setup:
            here = np.asarray(setup["spot"][()]) == self.spot  # ids of spots may be the same
            ids, places = ids[here], places[here]
        if len(np.unique(ids)) < len(ids):
            raise ValueError(f"{self.name}, setup/detectors/id has ids more than once.")
        self._set_pixels(ids, places[:, ::-1], ("y", "x"))

    def _learn_ids(self, file: Any, setup: Any) -> None:
        """Detectors in the order of their ids, along one axis."""
        if setup is not None and "id" in setup:
            ids = np.unique(np.asarray(setup["id"][()]))
        else:
            chunks = range(0, self.n_photons, _CHUNK_ROWS)
            ids = np.unique(
                np.concatenate(
                    [np.zeros(0, np.int64)]
                    + [np.unique(self.detectors[i : i + _CHUNK_ROWS]) for i in chunks]
                )
            )
        ids = ids[~np.isin(ids, self.markers)].astype(np.int64)
        if len(ids) and ids[0] < 0:
            raise ValueError(
                f"{self.name}, {self.label}/detectors has the id {ids[0]}; allowed are 0 or more."
            )
        self._set_pixels(ids, ids[:, None], ("detector",))

    def _set_pixels(self, ids: Array, places: Array, names: tuple[str, ...]) -> None:
        order = np.argsort(ids)
        self.ids, self.places, self.names = ids[order], places[order], names
        highest = places.max(axis=0) if len(places) else np.zeros(len(names), int)
        self.image_shape = tuple(int(length) + 1 for length in highest)
        unknown = [] if self.wanted is None else self.wanted[~np.isin(self.wanted, ids)].tolist()
        if unknown:
            raise ValueError(
                f"{self.name} has no detectors={unknown}; allowed are {self.ids.tolist()}."
            )

    def read(self, start: int, stop: int) -> PhotonCounts:
        with reading(self.name, "HDF5"):
            stamps = self.timestamps[start:stop]
            detectors: Any = None if self.detectors is None else self.detectors[start:stop]
            nanotimes: Any = None if self.nanotimes is None else self.nanotimes[start:stop]
        self._check_order(stamps, start)
        kept = np.ones(len(stamps), dtype=bool)
        if detectors is not None:
            kept &= ~np.isin(detectors, self.markers)
            if self.wanted is not None:
                kept &= np.isin(detectors, self.wanted)
        if self.kind == "nanotime":
            return self._of_nanotimes(stamps, nanotimes, kept)
        found = np.minimum(np.searchsorted(self.ids, detectors), max(len(self.ids) - 1, 0))
        known = self.ids[found] == detectors if len(self.ids) else np.zeros(len(kept), dtype=bool)
        if (kept & ~known).any():
            first = int((kept & ~known).argmax())
            raise ValueError(
                f"{self.name}, {self.label}/detectors has the id {detectors[first]} of photon "
                f"{start + first}, which is not in setup/detectors/id; allowed are "
                f"{self.ids.tolist()[:20]}."
            )
        return PhotonCounts(
            self.places[found[kept]].astype(np.uint32),
            image_shape=self.image_shape,
            times=stamps[kept] * self.unit,
            names=self.names,
            domain=np.array([[0.0, length] for length in self.image_shape]),
        )

    def _of_nanotimes(self, stamps: Array, nanotimes: Array, kept: Array) -> PhotonCounts:
        beyond = kept & ~((nanotimes >= 0) & (nanotimes < self.n_bins))
        n_dropped = int(beyond.sum())
        if n_dropped:
            warn(
                f"{self.name}, {self.label}/nanotimes: {n_dropped} of {len(kept)} photons have "
                f"values outside of 0 to {self.n_bins - 1} (tcspc_num_bins), and are left out."
            )
        kept = kept & ~beyond
        return PhotonCounts(
            ((nanotimes[kept] + 0.5) * self.bin)[:, None],
            times=stamps[kept] * self.unit,
            names=("nanotime",),
            domain=np.array([[0.0, self.n_bins * self.bin]]),
            n_dropped=n_dropped,
        )

    def _check_order(self, stamps: Array, start: int) -> None:
        """Timestamps must not decrease, also from block to block."""
        if not len(stamps):
            return
        back = np.flatnonzero(stamps[1:] < stamps[:-1]) + 1
        if stamps[0] < self.last:
            back = np.zeros(1, np.intp)
        if len(back):
            i = int(back[0])
            before = self.last if i == 0 else stamps[i - 1]
            raise ValueError(
                f"{self.name}, {self.label}/timestamps is not sorted: entry {start + i} is "
                f"{stamps[i]}, after {int(before)}. Timestamps must not decrease."
            )
        self.last = stamps[-1]


def _markers(group: Any) -> Array:
    """Ids in `detectors` that are no photons."""
    specs = group.get("measurement_specs/detectors_specs")
    keys = [] if specs is None else [key for key in specs if key.startswith("non_photon_id")]
    found = [np.atleast_1d(np.asarray(specs[key][()])).astype(np.int64) for key in keys]
    return np.concatenate([np.zeros(0, np.int64), *found])
