"""Images of PTU files, which the writer of ptufile makes from histograms."""

import numpy as np
import ptufile
import pytest

from skae.photons import iter_counts, read_ptu

PERIOD, BIN = 5e-8, 1e-9  # seconds


@pytest.fixture(scope="module")
def histogram():
    """Counts of frames, lines, pixels, channels and delays; borders and a frame are empty."""
    found = np.random.RandomState(0).poisson(0.3, (4, 6, 5, 2, 20)).astype(np.uint16)
    found[:, 0] = found[:, -1] = 0
    found[:, :, 0] = found[:, :, -1] = 0
    found[1] = 0
    found[..., 12:] = 0
    found[0, 2, 3, 0, 3] = 300
    return found


@pytest.fixture(scope="module")
def path(histogram, tmp_path_factory):
    path = tmp_path_factory.mktemp("ptu") / "image.ptu"
    ptufile.imwrite(path, histogram, PERIOD, BIN)
    return path


def image_of(counts):
    image = np.zeros(counts.image_shape)
    np.add.at(image, tuple(counts.coordinates[:, :2].astype(int).T), counts.weights)
    return image


def test_every_pixel(path, histogram):
    counts = read_ptu(path)
    assert counts.image_shape == (6, 5)  # although the borders have no photon
    assert counts.coordinates.dtype == np.uint32
    assert counts.names == ("y", "x")
    assert counts.times is None
    assert counts.n_dropped == 0
    np.testing.assert_array_equal(image_of(counts), histogram.sum(axis=(0, 3, 4)))


@pytest.mark.parametrize("frames", [0, 1, -1, [0, 2], slice(1, None), np.array([3])])
def test_frames(path, histogram, frames):
    some = histogram[np.atleast_1d(np.arange(4)[frames])]
    counts = read_ptu(path, frames=frames)
    np.testing.assert_array_equal(image_of(counts), some.sum(axis=(0, 3, 4)))


@pytest.mark.parametrize("channels", [0, 1, [0, 1]])
def test_channels(path, histogram, channels):
    some = histogram[:, :, :, np.atleast_1d(channels)]
    counts = read_ptu(path, channels=channels)
    np.testing.assert_array_equal(image_of(counts), some.sum(axis=(0, 3, 4)))
    assert counts.n_dropped == 0


def test_a_channel_keeps_its_number_if_the_first_is_empty(histogram, tmp_path):
    """ptufile removes empty first channels, and would number the others anew."""
    second = histogram.copy()
    second[..., 0, :] = 0
    ptufile.imwrite(tmp_path / "second.ptu", second, PERIOD, BIN)
    both = read_ptu(tmp_path / "second.ptu")
    assert len(read_ptu(tmp_path / "second.ptu", channels=0)) == 0
    one = read_ptu(tmp_path / "second.ptu", channels=1)
    np.testing.assert_array_equal(image_of(one), image_of(both))
    np.testing.assert_array_equal(image_of(one), second.sum(axis=(0, 3, 4)))


@pytest.mark.parametrize("frames", [None, [0, 3]])
def test_delays_are_centres_of_bins_in_nanoseconds(path, histogram, frames):
    counts = read_ptu(path, delays=True, frames=frames)
    assert counts.names == ("y", "x", "delay")
    assert counts.image_shape == (6, 5)
    found = np.zeros((6, 5, 20))
    index = np.floor(counts.coordinates / [1, 1, 1e9 * BIN]).astype(int)
    np.testing.assert_allclose(counts.coordinates, (index + 0.5) * [1, 1, 1e9 * BIN])
    np.add.at(found, tuple(index.T), counts.weights)
    some = histogram if frames is None else histogram[frames]
    np.testing.assert_array_equal(found, some.sum(axis=(0, 3)))
    # The laser period of 50 ns has 49 whole bins: 5e-8 / 1e-9 is rounded to less than 50.
    np.testing.assert_allclose(counts.domain, [[0, 6], [0, 5], [0, 49]], atol=1)


def test_delays_in_parts_of_few_lines(path, histogram, monkeypatch):
    whole = read_ptu(path, delays=True)
    monkeypatch.setattr("skae._photons.ptu._HISTOGRAM_BYTES", 1)
    parts = read_ptu(path, delays=True)
    np.testing.assert_array_equal(parts.coordinates, whole.coordinates)
    np.testing.assert_array_equal(parts.weights, whole.weights)


@pytest.mark.parametrize("size", [1, 2 * 6 * 5 * 4])
def test_images_of_few_frames_at_a_time(path, histogram, monkeypatch, size):
    monkeypatch.setattr("skae._photons.ptu._HISTOGRAM_BYTES", size)
    for frames in ([0, 1, 2, 3], [2, 3, 0], [1]):
        counts = read_ptu(path, frames=frames)
        np.testing.assert_array_equal(image_of(counts), histogram[frames].sum(axis=(0, 3, 4)))


def test_times_are_those_of_frames(path, histogram):
    counts = read_ptu(path, times=True)
    with ptufile.PtuFile(path) as file:
        frame_time = file.frame_time
    frame = np.rint(counts.times / frame_time).astype(int)
    np.testing.assert_allclose(counts.times, frame * frame_time)
    found = np.bincount(frame, counts.weights, 4)
    np.testing.assert_array_equal(found, histogram.sum(axis=(1, 2, 3, 4)))


@pytest.mark.parametrize("options", [{}, {"delays": True}, {"times": True}])
@pytest.mark.parametrize("block_size", [1, 25, 10_000])
def test_blocks_add_up(path, histogram, options, block_size):
    blocks = list(iter_counts(path, block_size=block_size, **options))
    assert len(blocks) == (3 if block_size == 1 else len(blocks))  # one frame is empty
    total = sum(image_of(block) for block in blocks)
    np.testing.assert_array_equal(total, histogram.sum(axis=(0, 3, 4)))


def test_photons_outside_of_lines_are_counted(path, histogram, tmp_path):
    """A header with fewer pixels per line: the photons after them have no pixel."""
    data = bytearray(path.read_bytes())
    place = data.find(b"ImgHdr_PixX") + 40
    data[place : place + 8] = (3).to_bytes(8, "little")
    (tmp_path / "narrow.ptu").write_bytes(data)
    counts = read_ptu(tmp_path / "narrow.ptu")
    assert counts.image_shape == (6, 3)
    np.testing.assert_array_equal(image_of(counts), histogram[:, :, :3].sum(axis=(0, 3, 4)))
    assert counts.n_dropped == histogram[:, :, 3:].sum()
    blocks = list(iter_counts(tmp_path / "narrow.ptu", block_size=1))
    assert sum(block.n_dropped for block in blocks) == counts.n_dropped


def test_a_larger_image(path, histogram):
    counts = read_ptu(path, image_shape=(8, 5))
    assert counts.image_shape == (8, 5)
    np.testing.assert_array_equal(image_of(counts)[:6], histogram.sum(axis=(0, 3, 4)))
    np.testing.assert_array_equal(counts.domain, [[0, 8], [0, 5]])
    with pytest.raises(ValueError, match=r"image_shape=\(5, 5\) is smaller than the scan of .*ptu"):
        read_ptu(path, image_shape=(5, 5))


def test_no_photons(tmp_path):
    path = tmp_path / "empty.ptu"
    ptufile.imwrite(path, np.zeros((1, 4, 3, 1, 5), np.uint16), PERIOD, BIN)
    for delays in (False, True):
        counts = read_ptu(path, delays=delays)
        assert counts.coordinates.shape == (0, 2 + delays)
        assert counts.image_shape == (4, 3)
    assert list(iter_counts(path)) == []


def test_refused_files(path, tmp_path):
    data = path.read_bytes()
    (tmp_path / "cut.ptu").write_bytes(data[:-400])
    with pytest.raises(ValueError, match=r"cut.ptu cannot be read as PTU"):
        read_ptu(tmp_path / "cut.ptu")
    (tmp_path / "header.ptu").write_bytes(data[:200])
    with pytest.raises(ValueError, match=r"header.ptu cannot be read as PTU"):
        read_ptu(tmp_path / "header.ptu")
    with pytest.raises(FileNotFoundError, match=r"none.ptu"):
        read_ptu(tmp_path / "none.ptu")
    with pytest.raises(IsADirectoryError, match="folder"):
        read_ptu(tmp_path)


@pytest.mark.parametrize(
    ("tag", "value", "message"),
    [("Measurement_Mode", 2, "T2 records"), ("Measurement_SubMode", 1, "measurement; expected")],
)
def test_other_measurements(path, tmp_path, tag, value, message):
    data = bytearray(path.read_bytes())
    place = data.find(tag.encode()) + 40
    data[place : place + 8] = value.to_bytes(8, "little")
    (tmp_path / "other.ptu").write_bytes(data)
    with pytest.raises(ValueError, match=message):
        read_ptu(tmp_path / "other.ptu")


@pytest.mark.parametrize(
    ("options", "error", "message"),
    [
        ({"frames": 4}, ValueError, r"frames=4 is not in .*, which has 4 frames"),
        ({"frames": [0.5]}, TypeError, "frames=.* must be None, an int"),
        ({"frames": []}, ValueError, "no frames"),
        ({"channels": 9}, ValueError, "channels=9"),
        ({"image_shape": (4,)}, ValueError, "1 lengths; expected 2"),
    ],
)
def test_wrong_options(path, options, error, message):
    with pytest.raises(error, match=message):
        read_ptu(path, **options)
