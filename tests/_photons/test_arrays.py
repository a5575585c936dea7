"""Images of counts in arrays and in files of NumPy and SciPy."""

import numpy as np
import pytest
import torch
from scipy import sparse

from skae.photons import iter_counts, read_array


@pytest.fixture(scope="module")
def stack():
    return np.random.RandomState(0).poisson(0.4, (5, 6, 8))


def image_of(counts):
    image = np.zeros(counts.image_shape)
    np.add.at(image, tuple(counts.coordinates.T), counts.weights)
    return image


class Wrapped:
    def __init__(self, values):
        self.values = values

    def __array__(self, dtype=None, copy=None):
        return np.asarray(self.values, dtype)


@pytest.mark.parametrize(
    "container",
    [
        np.asarray,
        np.ndarray.tolist,
        Wrapped,
        torch.as_tensor,
        sparse.coo_array,
        sparse.csr_matrix,
        sparse.csc_array,
        lambda image: image.astype(np.float32),
        lambda image: image.astype(np.uint8),
    ],
)
def test_every_pixel(stack, container):
    image = stack[0]
    counts = read_array(container(image))
    assert counts.coordinates.dtype == np.uint32
    assert counts.image_shape == (6, 8)
    assert (counts.weights > 0).all()
    np.testing.assert_array_equal(image_of(counts), image)


@pytest.mark.parametrize("n_dims", [1, 2, 3, 4])
def test_axes(n_dims):
    image = np.random.RandomState(0).poisson(1, (3, 2, 4, 2)[:n_dims])
    counts = read_array(image)
    assert len(counts.names) == n_dims
    np.testing.assert_array_equal(image_of(counts), image)


def test_sums_of_sparse_arrays_with_an_entry_twice():
    twice = sparse.coo_array(([1, 2, 0], ([0, 0, 1], [1, 1, 0])), shape=(2, 3))
    counts = read_array(twice)
    assert counts.coordinates.tolist() == [[0, 1]]
    assert counts.weights.tolist() == [3]
    assert twice.nnz == 3  # the array is left as it was


def test_a_sparse_image_larger_than_memory():
    huge = sparse.coo_array(([5], ([10**6], [2 * 10**6])), shape=(2**31, 2**31))
    counts = read_array(huge)
    assert counts.coordinates.tolist() == [[10**6, 2 * 10**6]]


def test_large_counts_stay_one_row():
    counts = read_array([[0, 10**15]])
    assert len(counts) == 1
    assert counts.n_counts == 10**15


def test_masked_pixels_have_no_exposure(stack):
    image = stack[0]
    masked = np.ma.array(image, mask=image == 1)
    counts = read_array(masked)
    np.testing.assert_array_equal(image_of(counts), np.where(image == 1, 0, image))
    np.testing.assert_array_equal(counts.exposure, image != 1)


def test_files(stack, tmp_path):
    np.save(tmp_path / "image.npy", stack[0])
    np.savez(tmp_path / "one.npz", stack[0])
    np.savez_compressed(tmp_path / "two.npz", a=stack[0], b=stack[1])
    sparse.save_npz(tmp_path / "sparse.npz", sparse.csr_array(stack[0]))
    for name in ("image.npy", "one.npz", "sparse.npz"):
        np.testing.assert_array_equal(image_of(read_array(tmp_path / name)), stack[0])
    np.testing.assert_array_equal(image_of(read_array(tmp_path / "two.npz", key="b")), stack[1])
    with pytest.raises(ValueError, match=r"two.npz has no array key=None; .* \['a', 'b'\]"):
        read_array(tmp_path / "two.npz")
    with pytest.raises(ValueError, match=r"key='a' is for .npz files"):
        read_array(tmp_path / "image.npy", key="a")
    with pytest.raises(ValueError, match=r"key='a' is for .npz files"):
        read_array(stack, key="a")
    (tmp_path / "cut.npy").write_bytes((tmp_path / "image.npy").read_bytes()[:-8])
    with pytest.raises(ValueError, match=r"cut.npy cannot be read"):
        read_array(tmp_path / "cut.npy")
    np.save(tmp_path / "objects.npy", np.array([None]), allow_pickle=True)
    with pytest.raises(ValueError, match=r"objects.npy cannot be read.*Python objects"):
        read_array(tmp_path / "objects.npy")


@pytest.mark.parametrize("axis", [0, 1, -1])
def test_frames(stack, tmp_path, axis):
    turned = np.moveaxis(stack, 0, axis)
    np.save(tmp_path / "stack.npy", turned)
    for source in (turned, tmp_path / "stack.npy"):
        counts = read_array(source, frame_axis=axis)
        np.testing.assert_array_equal(image_of(counts), stack.sum(axis=0))
        counts = read_array(source, frame_axis=axis, frames=slice(1, 3))
        np.testing.assert_array_equal(image_of(counts), stack[1:3].sum(axis=0))
        blocks = list(iter_counts(source, frame_axis=axis, block_size=20))
        np.testing.assert_array_equal(sum(map(image_of, blocks)), stack.sum(axis=0))
        assert len(blocks) > 1
    timed = read_array(turned, frame_axis=axis, frame_time=0.25)
    places = np.column_stack([timed.times / 0.25, timed.coordinates]).astype(int)
    np.testing.assert_array_equal(places, np.argwhere(stack))


@pytest.mark.parametrize(
    ("source", "options", "message"),
    [
        ([[0.5, 1]], {}, r"source has 1 values that are no counts. The first is 0.5 at \[0, 0\]"),
        ([[-1, 1]], {}, "source has values from -1 to 1"),
        ([[np.nan, 1]], {}, "source has values from"),
        ([["a"]], {}, "expected numbers"),
        ([], {}, "non-empty"),
        (sparse.coo_array([[0.5, 1]]), {}, "The data of source has 1 values that are no counts"),
        (sparse.coo_array([[-2, 1]]), {}, "The first is -2"),
        (sparse.coo_array([[1]]), {"frame_axis": 0}, "sparse"),
        ([[1]], {"frames": 0}, "need frame_axis"),
        ([[1]], {"frame_time": 1.0}, "need frame_axis"),
        ([[[1]]], {"frame_axis": 3}, "from -3 to 2"),
        ([1], {"frame_axis": 0}, "one axis or more"),
        ([[1.5]], {"frame_axis": 0}, "Frame 0 of source has 1"),
        (np.ma.array([[1, 2]], mask=[[0, 1]]), {"frame_axis": 0}, "masked"),
    ],
)
def test_refused_arrays(source, options, message):
    with pytest.raises(ValueError, match=message):
        read_array(source, **options)
