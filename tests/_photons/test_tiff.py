"""Stacks of TIFF files, which tifffile writes."""

import numpy as np
import pytest
import tifffile

from skae.photons import iter_counts, read_tiff


@pytest.fixture(scope="module")
def stack():
    found = np.random.RandomState(0).poisson(0.5, (6, 9, 7)).astype(np.uint16)
    found[2, 3, 4] = 60_000
    found[:, -1] = 0
    return found


def image_of(counts):
    image = np.zeros(counts.image_shape)
    np.add.at(image, tuple(counts.coordinates.T), counts.weights)
    return image


@pytest.mark.parametrize(
    "options",
    [
        {},
        {"imagej": True},
        {"bigtiff": True},
        {"compression": "zlib"},
        {"metadata": None},
        {"byteorder": ">"},
        {"contiguous": False},
    ],
)
def test_every_pixel(stack, tmp_path, options):
    path = tmp_path / "stack.tif"
    tifffile.imwrite(path, stack, photometric="minisblack", **options)
    counts = read_tiff(path)
    assert counts.coordinates.dtype == np.uint32
    np.testing.assert_array_equal(image_of(counts), stack.sum(axis=0))
    np.testing.assert_array_equal(image_of(read_tiff(path, frames=-2)), stack[-2])
    blocks = list(iter_counts(path, block_size=1))
    assert len(blocks) == 6
    np.testing.assert_array_equal(sum(map(image_of, blocks)), stack.sum(axis=0))


@pytest.mark.parametrize("byteorder", ["<", ">"])
def test_all_frames_in_one_page(stack, tmp_path, byteorder):
    """As ImageJ writes large stacks: only the first frame has a page of its own."""
    path = tmp_path / "stack.tif"
    with tifffile.TiffWriter(path, imagej=True, byteorder=byteorder) as writer:
        writer.write(stack, volumetric=False, truncate=True)
    with tifffile.TiffFile(path) as file:
        assert len(file.pages) == 1
        assert file.series[0].shape == stack.shape
    np.testing.assert_array_equal(image_of(read_tiff(path)), stack.sum(axis=0))
    np.testing.assert_array_equal(image_of(read_tiff(path, frames=[3])), stack[3])


def test_whole_numbers_of_other_types(stack, tmp_path):
    path = tmp_path / "stack.tif"
    for dtype in (np.float32, np.int32, np.uint32, bool):
        tifffile.imwrite(path, stack.astype(dtype), photometric="minisblack")
        total = stack.astype(dtype).astype(float).sum(axis=0)
        np.testing.assert_array_equal(image_of(read_tiff(path)), total)


def test_times(stack, tmp_path):
    path = tmp_path / "stack.tif"
    tifffile.imwrite(path, stack, photometric="minisblack")
    counts = read_tiff(path, frame_time=0.5)
    places = np.column_stack([counts.times / 0.5, counts.coordinates]).astype(int)
    np.testing.assert_array_equal(places, np.argwhere(stack))
    np.testing.assert_array_equal(counts.weights, stack[stack > 0])


def test_axes_before_the_last_two_count_frames(stack, tmp_path):
    path = tmp_path / "stack.tif"
    tifffile.imwrite(path, stack.reshape(3, 2, 9, 7), photometric="minisblack")
    np.testing.assert_array_equal(image_of(read_tiff(path, frames=3)), stack[3])


@pytest.mark.parametrize("value", [0.5, -1.0, np.nan, np.inf])
def test_values_that_are_no_counts(stack, tmp_path, value):
    wrong = stack.astype(np.float32)
    wrong[4, 1, 2] = value
    path = tmp_path / "wrong.tif"
    tifffile.imwrite(path, wrong, photometric="minisblack")
    with pytest.raises(ValueError, match=rf"Page 4 of .*wrong.tif has 1 .* is {value} at \[1, 2\]"):
        read_tiff(path)
    assert read_tiff(path, frames=slice(0, 4)).n_counts == stack[:4].sum()


@pytest.mark.parametrize("compression", [None, "zlib"])
@pytest.mark.parametrize("cut", [100, 350, 1000])
def test_truncated_files(stack, tmp_path, compression, cut):
    """tifffile returns the pages that are left, and logs an error."""
    path = tmp_path / "cut.tif"
    tifffile.imwrite(path, stack, photometric="minisblack", metadata=None, compression=compression)
    path.write_bytes(path.read_bytes()[:-cut])
    with pytest.raises(ValueError, match=r"cut.tif"):
        read_tiff(path)


def test_refused_files(stack, tmp_path):
    path = tmp_path / "other.tif"
    tifffile.imwrite(path, stack[:, :, :3].astype(np.uint8), photometric="rgb")
    with pytest.raises(ValueError, match=r"other.tif has the axes 'YXS'.*grey"):
        read_tiff(path)
    with tifffile.TiffWriter(path) as writer:
        writer.write(stack[0])
        writer.write(stack[1][:4])
    with pytest.raises(ValueError, match=r"2 series of images, of shapes \[\(4, 7\), \(9, 7\)\]"):
        read_tiff(path)
    path.write_bytes(b"no TIFF at all")
    with pytest.raises(ValueError, match=r"other.tif cannot be read as TIFF"):
        read_tiff(path)
    tifffile.imwrite(path, stack, photometric="minisblack")
    with pytest.raises(ValueError, match=r"frames=6 is not in .*other.tif"):
        read_tiff(path, frames=6)
