"""Photon-HDF5 files, which phconvert writes."""

import warnings

import h5py
import numpy as np
import phconvert
import pytest

from skae.photons import iter_counts, read_photon_hdf5

UNIT, BIN, N_BINS = 50e-9, 16e-12, 4096
# x and y of the detectors with the ids 0, 1, 2 and 5.
IDS, POSITIONS = np.array([0, 1, 2, 5]), np.array([[0, 0], [3, 0], [1, 2], [2, 1]])


@pytest.fixture(scope="module")
def photons():
    rng = np.random.RandomState(0)
    n = 300
    return {
        "timestamps": np.sort(rng.randint(0, 10**9, n)),
        "detectors": rng.choice(IDS, n).astype(np.uint8),
        "nanotimes": rng.randint(0, N_BINS, n),
    }


def written(path, groups, positions=False, spots=None):
    """Write groups of photons by phconvert, which also checks them."""
    setup = {
        "num_pixels": len(IDS),
        "num_spots": len(groups),
        "num_spectral_ch": 1,
        "num_polarization_ch": 1,
        "num_split_ch": 1,
        "modulated_excitation": False,
        "excitation_alternated": [False],
        "excitation_cw": [False],
        "laser_repetition_rates": [20e6],
        "lifetime": True,
    }
    if positions:
        setup["detectors"] = {"id": IDS, "position": POSITIONS}
        if spots is not None:
            setup["detectors"]["spot"] = spots
    content = {"description": "photons", "setup": setup}
    for name, photons in groups.items():
        content[name] = {
            **photons,
            "timestamps_specs": {"timestamps_unit": UNIT},
            "nanotimes_specs": {"tcspc_unit": BIN, "tcspc_num_bins": N_BINS},
        }
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        phconvert.hdf5.save_photon_hdf5(content, h5_fname=str(path), overwrite=True)
    return path


@pytest.fixture
def path(photons, tmp_path):
    return written(tmp_path / "photons.h5", {"photon_data": photons})


def test_nanotimes(path, photons):
    counts = read_photon_hdf5(path)
    assert counts.names == ("nanotime",)
    assert counts.image_shape is None
    np.testing.assert_allclose(counts.coordinates[:, 0], (photons["nanotimes"] + 0.5) * BIN * 1e9)
    np.testing.assert_allclose(counts.domain, [[0, N_BINS * BIN * 1e9]])
    np.testing.assert_allclose(counts.times, photons["timestamps"] * UNIT)


def test_detectors(path, photons):
    counts = read_photon_hdf5(path, coordinates="detector")
    assert counts.coordinates.dtype == np.uint32
    assert counts.image_shape == (6,)
    np.testing.assert_array_equal(counts.coordinates[:, 0], photons["detectors"])
    some = read_photon_hdf5(path, coordinates="detector", detectors=[0, 5])
    keep = np.isin(photons["detectors"], [0, 5])
    np.testing.assert_array_equal(some.coordinates[:, 0], photons["detectors"][keep])
    np.testing.assert_allclose(some.times, photons["timestamps"][keep] * UNIT)


def test_positions_of_detectors(photons, tmp_path):
    path = written(tmp_path / "positions.h5", {"photon_data": photons}, positions=True)
    counts = read_photon_hdf5(path)
    assert counts.names == ("y", "x")
    assert counts.image_shape == (3, 4)
    index = np.searchsorted(IDS, photons["detectors"])
    np.testing.assert_array_equal(counts.coordinates, POSITIONS[index][:, ::-1])


def test_spots(photons, tmp_path):
    second = {name: values[:100] for name, values in photons.items()}
    groups = {"photon_data0": photons, "photon_data1": second}
    path = written(tmp_path / "spots.h5", groups)
    with pytest.raises(ValueError, match=r"photons of 2 spots; spot must be given, one of 0, 1"):
        read_photon_hdf5(path)
    assert len(read_photon_hdf5(path, spot=0)) == 300
    assert len(read_photon_hdf5(path, spot=1)) == 100
    with pytest.raises(ValueError, match="no spot=2; allowed are 0, 1"):
        read_photon_hdf5(path, spot=2)


def test_markers_are_no_photons(path, photons):
    with h5py.File(path, "r+") as file:
        file["photon_data/measurement_specs/detectors_specs/non_photon_id1"] = [5]
    counts = read_photon_hdf5(path, coordinates="detector")
    keep = photons["detectors"] != 5
    np.testing.assert_array_equal(counts.coordinates[:, 0], photons["detectors"][keep])
    assert counts.image_shape == (3,)


@pytest.mark.parametrize("block_size", [1, 70, 10_000])
def test_blocks(path, block_size):
    whole = read_photon_hdf5(path)
    blocks = list(iter_counts(path, block_size=block_size))
    assert max(map(len, blocks)) <= block_size
    for name in ("coordinates", "times"):
        joined = np.concatenate([getattr(block, name) for block in blocks])
        np.testing.assert_array_equal(joined, getattr(whole, name))


def changed(path, key, values):
    with h5py.File(path, "r+") as file:
        if key in file:
            del file[key]
        if values is not None:
            file[key] = values


@pytest.mark.parametrize(
    ("key", "change", "message"),
    [
        ("timestamps", lambda x: x[::-1], "timestamps is not sorted: entry 1 is"),
        ("timestamps", lambda x: x * 1.0, "dtype float64; expected one integer"),
        ("timestamps", lambda x: None, "timestamps is missing"),
        ("timestamps", lambda x: x.reshape(2, -1), r"shape \(2, 150\)"),
        ("detectors", lambda x: x[:-1], "detectors has 299 values; expected 300"),
        ("nanotimes", lambda x: x[:50], "nanotimes has 50 values; expected 300"),
        ("nanotimes_specs/tcspc_unit", lambda x: None, "tcspc_unit is missing"),
        ("timestamps_specs/timestamps_unit", lambda x: None, "timestamps_unit is missing"),
        ("timestamps_specs/timestamps_unit", lambda x: np.nan, "finite number above 0"),
    ],
)
def test_refused_arrays(path, photons, key, change, message):
    changed(path, f"photon_data/{key}", change(photons.get(key)))
    with pytest.raises(ValueError, match=rf"photons.h5, photon_data/.*{message}"):
        read_photon_hdf5(path)


def test_timestamps_are_sorted_from_block_to_block(path, photons):
    stamps = photons["timestamps"].copy()
    stamps[:100] += stamps[-1]
    changed(path, "photon_data/timestamps", stamps)
    with pytest.raises(ValueError, match="not sorted: entry 100 is"):
        list(iter_counts(path, block_size=100))


def test_nanotimes_beyond_the_bins(path, photons):
    nanotimes = photons["nanotimes"].copy()
    nanotimes[[4, 9]] = N_BINS
    changed(path, "photon_data/nanotimes", nanotimes)
    with pytest.warns(UserWarning, match="2 of 300 photons .* 0 to 4095"):
        counts = read_photon_hdf5(path)
    assert len(counts) == 298
    assert counts.n_dropped == 2


def test_other_refused_files(photons, tmp_path):
    path = written(tmp_path / "positions.h5", {"photon_data": photons}, positions=True)
    changed(path, "setup/detectors/id", np.array([0, 1, 2, 3]))
    with pytest.raises(ValueError, match=r"has the id 5 of photon \d+, which is not in setup"):
        read_photon_hdf5(path)
    changed(path, "setup/detectors/id", np.array([0, 1, 2]))
    with pytest.raises(ValueError, match=r"position has shape \(4, 2\); expected \(3, 2\)"):
        read_photon_hdf5(path)
    changed(path, "setup/detectors/id", np.array([0, 1, 2, 2]))
    with pytest.raises(ValueError, match="ids more than once"):
        read_photon_hdf5(path)
    changed(path, "setup/detectors/id", IDS)
    changed(path, "setup/detectors/position", POSITIONS - 1)
    with pytest.raises(ValueError, match="integers of 0 or more"):
        read_photon_hdf5(path)
    with h5py.File(tmp_path / "other.h5", "w") as file:
        file["data"] = [1]
    with pytest.raises(ValueError, match=r"other.h5 has no group photon_data.* data"):
        read_photon_hdf5(tmp_path / "other.h5")
    (tmp_path / "text.h5").write_bytes(b"no HDF5 at all")
    with pytest.raises(ValueError, match=r"text.h5 cannot be read as HDF5"):
        read_photon_hdf5(tmp_path / "text.h5")


@pytest.mark.parametrize(
    ("options", "error", "message"),
    [
        ({"coordinates": "pixel"}, ValueError, "allowed are .'auto', 'position'"),
        ({"coordinates": "position"}, ValueError, "allowed are auto, nanotime, detector"),
        ({"detectors": [0.5]}, TypeError, "detectors="),
        ({"detectors": 7, "coordinates": "detector"}, ValueError, r"no detectors=\[7\]; allowed"),
    ],
)
def test_wrong_options(path, options, error, message):
    with pytest.raises(error, match=message):
        read_photon_hdf5(path, **options)


def test_times_alone_are_no_coordinates(path):
    for key in ("detectors", "nanotimes"):
        changed(path, f"photon_data/{key}", None)
    with pytest.raises(ValueError, match="neither detectors nor nanotimes"):
        read_photon_hdf5(path)
