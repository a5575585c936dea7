"""Packed frames of one bit for each pixel."""

import numpy as np
import pytest

from skae.photons import iter_counts, read_spad

SHAPE = (5, 13)


@pytest.fixture(scope="module")
def frames():
    return np.random.RandomState(0).random_sample((40, *SHAPE)) < 0.1


def image_of(counts):
    image = np.zeros(counts.image_shape)
    np.add.at(image, tuple(counts.coordinates.T), 1 if counts.weights is None else counts.weights)
    return image


def saved(frames, tmp_path, kind, bit_order):
    """The same frames as an array, and in three kinds of files."""
    packed = np.packbits(frames, axis=2, bitorder=bit_order)
    if kind == "array":
        return packed, {}
    path = tmp_path / f"frames.{kind}"
    if kind == "npy":
        np.save(path, packed)
    elif kind == "npz":
        np.savez(path, packed)
    else:
        path.write_bytes(b"header" + packed.tobytes())
        return path, {"offset": 6}
    return path, {}


@pytest.mark.parametrize("bit_order", ["big", "little"])
@pytest.mark.parametrize("kind", ["array", "npy", "npz", "bin"])
def test_every_pixel(frames, tmp_path, kind, bit_order):
    source, options = saved(frames, tmp_path, kind, bit_order)
    options |= {"image_shape": SHAPE, "bit_order": bit_order}
    counts = read_spad(source, **options)
    assert counts.coordinates.dtype == np.uint32
    np.testing.assert_array_equal(image_of(counts), frames.sum(axis=0))
    blocks = list(iter_counts(source, format="spad", block_size=30, **options))
    np.testing.assert_array_equal(sum(image_of(block) for block in blocks), frames.sum(axis=0))


def test_the_order_of_bits():
    packed = np.array([[[0b10000000, 0b00000011]]], np.uint8)
    assert read_spad(packed).coordinates.tolist() == [[0, 0], [0, 14], [0, 15]]
    little = read_spad(packed, bit_order="little")
    assert little.coordinates.tolist() == [[0, 7], [0, 8], [0, 9]]


def test_parts_of_files(frames, monkeypatch):
    packed = np.packbits(frames, axis=2)
    monkeypatch.setattr("skae._photons.spad._CHUNK_PIXELS", 3 * 5 * 16)
    counts = read_spad(packed, image_shape=SHAPE, frames=slice(1, None, 2))
    np.testing.assert_array_equal(image_of(counts), frames[1::2].sum(axis=0))
    blocks = list(iter_counts(packed, format="spad", image_shape=SHAPE, block_size=50))
    assert len(blocks) > 1
    assert max(map(len, blocks)) <= 50
    np.testing.assert_array_equal(sum(image_of(block) for block in blocks), frames.sum(axis=0))


def test_times(frames):
    packed = np.packbits(frames, axis=2)
    counts = read_spad(packed, image_shape=SHAPE, frame_time=1e-5)
    assert len(counts) == frames.sum()
    assert (counts.weights == 1).all()
    places = np.column_stack([np.rint(counts.times / 1e-5), counts.coordinates]).astype(int)
    np.testing.assert_array_equal(places, np.argwhere(frames))


@pytest.mark.parametrize(
    ("options", "error", "message"),
    [
        ({"image_shape": (5, 20)}, ValueError, r"bytes; image_shape=\(5, 20\) needs \(5, 3\)"),
        ({"image_shape": (5, 9)}, ValueError, "beyond the width"),
        ({"bit_order": "middle"}, ValueError, "allowed are 'big' and 'little'"),
        ({"frame_time": 0.0}, ValueError, "above 0"),
        ({"frame_time": "1"}, TypeError, "frame_time"),
        ({"frames": 40}, ValueError, "which has 40 frames"),
        ({"frames": []}, ValueError, "no frames"),
        ({"offset": 1}, ValueError, "for raw files"),
    ],
)
def test_wrong_options(frames, options, error, message):
    with pytest.raises(error, match=message):
        read_spad(np.packbits(frames, axis=2), **{"image_shape": SHAPE, **options})


def test_refused_sources(frames, tmp_path):
    with pytest.raises(ValueError, match="expected packed frames"):
        read_spad(frames)
    path = tmp_path / "frames.bin"
    path.write_bytes(np.packbits(frames, axis=2).tobytes()[:-1])
    with pytest.raises(ValueError, match=r"frames.bin has 399 bytes.*truncated"):
        read_spad(path, image_shape=SHAPE)
    with pytest.raises(ValueError, match="image_shape must be given"):
        read_spad(path)
    with pytest.raises(ValueError, match="outside of"):
        read_spad(path, image_shape=SHAPE, offset=500)
