"""The readers of all formats: which one reads a file, blocks, and the result."""

import subprocess
import sys
from dataclasses import replace

import h5py
import numpy as np
import ptufile
import pytest
import tifffile
from astropy.io import fits

from skae import CountMixtureAE, counts_to_image, photons
from skae.photons import PhotonCounts, iter_counts, read_array, read_counts


@pytest.fixture(scope="module")
def image():
    return np.random.RandomState(0).poisson(3, (12, 10)).astype(np.uint16)


@pytest.fixture(scope="module")
def files(image, tmp_path_factory):
    """The same image in all formats; their names say nothing."""
    folder = tmp_path_factory.mktemp("files")
    ptufile.imwrite(folder / "ptu", image[..., None], 5e-8, 1e-9)
    tifffile.imwrite(folder / "tiff", image)
    with open(folder / "array", "wb") as file:
        np.save(file, image)
    rows = np.repeat(np.argwhere(image >= 0), image.ravel(), axis=0)
    columns = [fits.Column(name, "I", array=rows[:, 1 - i] + 1) for i, name in enumerate("XY")]
    table = fits.BinTableHDU.from_columns(columns)
    for i in (0, 1):
        table.header[f"TLMIN{i + 1}"], table.header[f"TLMAX{i + 1}"] = 1, image.shape[1 - i]
    with open(folder / "fits", "wb") as file:
        table.writeto(file)
    with h5py.File(folder / "photon_hdf5", "w") as file:
        file["photon_data/timestamps"] = np.arange(len(rows))
        file["photon_data/timestamps_specs/timestamps_unit"] = 1e-6
        file["photon_data/detectors"] = rows[:, 0] * 10 + rows[:, 1]
        file["setup/detectors/id"] = np.arange(120)
        file["setup/detectors/position"] = np.argwhere(image >= 0)[:, ::-1]
    return folder


@pytest.mark.parametrize("format_", ["ptu", "tiff", "fits", "photon_hdf5", "array"])
def test_formats_are_found_and_agree(files, image, format_):
    for stated in ("auto", format_):
        counts = read_counts(files / format_, format=stated)
        assert counts.image_shape == image.shape
        found = counts_to_image(counts.coordinates, image.shape, sample_weight=counts.weights)
        np.testing.assert_array_equal(found, image)
    total = sum(block.n_counts for block in iter_counts(str(files / format_), block_size=7))
    assert total == image.sum()


def test_blocks_train_a_model(image):
    stack = np.random.RandomState(0).poisson(image / 5, (30, *image.shape))
    model = CountMixtureAE(3, image_shape=image.shape)
    for block in iter_counts(stack, frame_axis=0, block_size=200):
        assert len(block) <= 200
        model.partial_fit(block.coordinates, sample_weight=block.weights)
    assert model.n_counts_ == stack.sum()


def test_iter_counts_raises_at_once(tmp_path):
    with pytest.raises(FileNotFoundError):
        iter_counts(tmp_path / "none.tif")
    with pytest.raises(ValueError, match="block_size"):
        iter_counts([[1]], block_size=0)


@pytest.mark.parametrize(
    ("source", "options", "error", "message"),
    [
        ("tiff", {"delays": True}, TypeError, "delays is no option of the format 'tiff'; allowed"),
        ("ptu", {"columns": "X"}, TypeError, "allowed are frames, channels, delays, times"),
        ("tiff", {"format": "png"}, ValueError, "format='png' is not allowed; allowed are"),
        ("tiff", {"format": "fits"}, ValueError, "cannot be read as FITS"),
        ("tiff", {"format": "ptu"}, ValueError, "cannot be read as PTU"),
        ("text", {}, ValueError, r"The format of .*text is not known.*'ptu', 'fits'"),
    ],
)
def test_wrong_formats_and_options(files, source, options, error, message):
    (files / "text").write_text("1 2 3")
    with pytest.raises(error, match=message):
        read_counts(files / source, **options)


@pytest.mark.parametrize(
    ("package", "format_"),
    [("ptufile", "ptu"), ("tifffile", "tiff"), ("astropy", "fits"), ("h5py", "photon_hdf5")],
)
def test_a_missing_package(files, monkeypatch, package, format_):
    monkeypatch.setitem(sys.modules, package, None)
    monkeypatch.setitem(sys.modules, "astropy.io", None)
    monkeypatch.setitem(sys.modules, "astropy.io.fits", None)
    with pytest.raises(ImportError, match=rf'{package}: pip install "skae\[photons\]"'):
        read_counts(files / format_)


def test_packages_are_loaded_for_their_files_only():
    code = (
        "import sys, skae.photons; skae.photons.read_counts([[1, 2]]); "
        "print(sorted({'ptufile', 'tifffile', 'astropy', 'h5py', 'torch'} & set(sys.modules)))"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout == "[]\n"


def test_options_of_signatures_are_those_of_formats():
    """Each function passes all its options on; `read_counts` finds them in the same place."""
    for name, blocks in photons._BLOCKS.items():
        reader = getattr(photons, f"read_{name}")
        own = {key for key in reader.__annotations__ if key not in ("path", "source", "return")}
        assert own == set(blocks.__kwdefaults__)
        assert reader.__kwdefaults__ == blocks.__kwdefaults__


def test_the_result():
    counts = replace(read_array([[0, 3], [1, 0]]), times=np.array([0.5, 1.5]), n_dropped=2)
    assert repr(counts) == (
        "PhotonCounts(2 rows of y, x; 4 counts; image_shape=(2, 2); weights; times)"
    )
    assert len(counts) == 2
    single = counts.repeated()
    assert single.coordinates.tolist() == [[0, 1]] * 3 + [[1, 0]]
    assert single.times.tolist() == [0.5, 0.5, 0.5, 1.5]
    assert single.weights is None
    assert single.repeated() is single
    assert single.n_counts == 4
    assert repr(PhotonCounts(np.zeros((3, 1)))) == "PhotonCounts(3 rows; 3 counts)"
