"""Patches of images, found again among all windows of small images."""

import numpy as np
import pytest
from scipy import stats

from skae.datasets import image_patches


def image(height, width, seed=0, dtype=np.uint8):
    """Grey levels all over the range, so that no window is like another."""
    return np.random.default_rng(seed).integers(0, 256, (height, width)).astype(dtype)


def completed(rows, patch_size):
    """Patches with the pixel that was dropped: minus the sum of the others."""
    rows = rows.astype(np.float64)
    return np.column_stack([rows, -rows.sum(1)]).reshape(-1, patch_size, patch_size)


def windows(picture, patch_size):
    """All windows, from left to right and then downwards."""
    picture = np.asarray(picture)
    height, width = picture.shape
    return np.array(
        [
            picture[i : i + patch_size, j : j + patch_size]
            for i in range(height - patch_size + 1)
            for j in range(width - patch_size + 1)
        ],
        dtype=np.float64,
    )


def found_in(rows, pictures, patch_size):
    """The window that each row is nearest to, and its noise less that of the mean."""
    every = np.concatenate([windows(picture, patch_size) for picture in pictures]) / 256
    every -= every.mean((1, 2), keepdims=True)
    patches = completed(rows, patch_size).reshape(len(rows), -1)
    every = every.reshape(len(every), -1)
    distance = (patches**2).sum(1)[:, None] - 2 * patches @ every.T + (every**2).sum(1)
    which = distance.argmin(1)
    return which, patches - every[which]


@pytest.mark.parametrize("patch_size", [2, 3, 8])
def test_rows_are_patches_without_their_last_pixel(patch_size):
    """Of the right shape and type; n_patches may be any number."""
    for n in (1, 7, 20_001 if patch_size == 2 else 300):
        X = image_patches([image(9, 11)], n, patch_size=patch_size, random_state=0)
        assert X.shape == (n, patch_size**2 - 1)
        assert X.dtype == np.float32
        assert X.flags.c_contiguous
        assert np.isfinite(X).all()
    assert image_patches([image(9, 11)], 3).shape == (3, 63)


@pytest.mark.parametrize("dtype", [np.uint8, np.int64, np.float64, np.float32])
def test_patches_are_windows_of_the_image(dtype):
    """Differences of pixels are those of a window, divided by 256, within those of the noise.

    The pixel that was dropped among them: it is minus the sum of the others.
    """
    picture = image(10, 13, dtype=dtype)
    before = picture.copy()
    X = image_patches([picture], 400, patch_size=4, random_state=1)
    _, noise = found_in(X, [picture], 4)
    assert (np.ptp(noise, axis=1) < 1 / 256 + 1e-6).all()
    np.testing.assert_array_equal(picture, before)


def test_noise_is_uniform():
    """Between grey levels: U(0, 1) / 256, less its mean, whose variance is known."""
    n, size = 4000, 3
    X = image_patches([image(6, 6)], n, patch_size=size, random_state=2)
    _, noise = found_in(X, [image(6, 6)], size)
    covariance = np.cov(256 * noise.T)
    expected = (np.eye(9) - 1 / 9) / 12
    assert np.abs(covariance - expected).max() < 5 * 0.1 / np.sqrt(n)
    # Of two pixels the difference has a triangular law, and no more than noise of both.
    apart = 256 * (noise[:, 0] - noise[:, 8])
    assert stats.kstest(apart, stats.triang(0.5, loc=-1, scale=2).cdf).pvalue > 1e-3


def test_positions_are_as_likely_as_each_other():
    """By chi-square over the windows of images of unlike sizes."""
    pictures = [image(5, 9), image(3, 3, 1), image(12, 4, 2)]
    counts = [len(windows(picture, 3)) for picture in pictures]
    assert counts == [21, 1, 20]
    X = image_patches(pictures, 4200, patch_size=3, random_state=0)
    which, noise = found_in(X, pictures, 3)
    assert (np.ptp(noise, axis=1) < 1 / 256 + 1e-6).all()
    found = np.bincount(which, minlength=42)
    assert found.min() > 0
    assert stats.chisquare(found).pvalue > 1e-3
    # No order: neighbours in X are from unlike places.
    assert abs(stats.spearmanr(which[1:], which[:-1]).statistic) < 5 / np.sqrt(4200)


def test_patches_do_not_depend_on_how_images_are_given():
    """A list, an array of images, nested lists or a generator."""
    pictures = np.stack([image(6, 7, seed) for seed in range(3)])
    expected = image_patches(list(pictures), 20, patch_size=3, random_state=0)
    for given in (pictures, pictures.tolist(), iter(pictures), pictures.astype(np.float64)):
        found = image_patches(given, 20, patch_size=3, random_state=0)
        np.testing.assert_array_equal(found, expected)


def test_patches_are_seeded():
    """By a number or a generator; NumPy's own is not read."""
    pictures = [image(20, 20)]
    before = np.random.get_state()[1].copy()  # noqa: NPY002 (what is left alone)

    def drawn(seed):
        return image_patches(pictures, 10, patch_size=3, random_state=seed)

    np.testing.assert_array_equal(drawn(3), drawn(3))
    np.testing.assert_array_equal(drawn(3), drawn(np.random.RandomState(3)))
    assert not np.array_equal(drawn(3), drawn(4))
    assert not np.array_equal(drawn(None), drawn(None))
    rng = np.random.RandomState(3)
    assert not np.array_equal(drawn(rng), drawn(rng))
    np.testing.assert_array_equal(before, np.random.get_state()[1])  # noqa: NPY002


BAD = {
    "no images": ([], {}, ValueError, r"^images is empty"),
    "colours": ([np.zeros((9, 9, 3))], {}, ValueError, r"^images\[0\] has shape \(9, 9, 3\)"),
    "one image": (np.zeros((9, 9)), {}, ValueError, r"^images\[0\] has shape \(9,\)"),
    "words": ([[["a"] * 9] * 9], {}, ValueError, r"^images\[0\] has shape \(9, 9\) and type <U1"),
    "complex": ([np.zeros((9, 9), complex)], {}, ValueError, r"^images\[0\] .*complex128"),
    "too small": (
        [image(9, 9), image(7, 20)],
        {},
        ValueError,
        r"^images\[1\] of shape \(7, 20\) holds no patch of patch_size=8",
    ),
    "empty": ([np.zeros((0, 9))], {}, ValueError, r"^images\[0\] of shape \(0, 9\) holds no"),
    "too bright": (
        [image(9, 9), np.full((9, 9), 255.5)],
        {},
        ValueError,
        r"^images\[1\] has values from 255.5 to 255.5; allowed are grey levels from 0 to 255",
    ),
    "below zero": ([np.full((9, 9), -1)], {}, ValueError, r"^images\[0\] has values from -1 to -1"),
    "missing": ([np.full((9, 9), np.nan)], {}, ValueError, r"^images\[0\] has values from nan"),
    "no patches": ([image(9, 9)], {"n_patches": 0}, ValueError, r"n_patches == 0"),
    "half a patch": ([image(9, 9)], {"n_patches": 2.5}, TypeError, r"n_patches must be an inst"),
    "one pixel": ([image(9, 9)], {"patch_size": 1}, ValueError, r"patch_size == 1"),
}


@pytest.mark.parametrize(("images", "params", "error", "message"), BAD.values(), ids=BAD.keys())
def test_wrong_arguments_are_named(images, params, error, message):
    """With what was given."""
    with pytest.raises(error, match=message):
        image_patches(images, **{"n_patches": 5, **params})
