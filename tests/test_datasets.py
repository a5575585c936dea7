"""Patches, found again among all windows of small images; shift patterns, by enumerating them."""

from fractions import Fraction
from itertools import product
from math import log

import numpy as np
import pytest
import torch
from scipy import stats

from skae.datasets import image_patches, make_shift_patterns, shift_patterns_entropy


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
    """A list, an array of images, nested lists, a generator, tensors."""
    pictures = np.stack([image(6, 7, seed) for seed in range(3)])
    expected = image_patches(list(pictures), 20, patch_size=3, random_state=0)
    for given in (pictures, pictures.tolist(), iter(pictures), pictures.astype(np.float64)):
        found = image_patches(given, 20, patch_size=3, random_state=0)
        np.testing.assert_array_equal(found, expected)
    grey = [torch.from_numpy(picture).bfloat16() for picture in pictures]  # of 8 bits
    expected = image_patches([g.float().numpy() for g in grey], 20, patch_size=3, random_state=0)
    found = image_patches(grey, 20, patch_size=3, random_state=0)
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
    "words": ([[["a"] * 9] * 9], {}, ValueError, r"^images\[0\] has shape \(9, 9\) and dtype <U1"),
    "complex": ([np.zeros((9, 9), complex)], {}, ValueError, r"^images\[0\] .*complex128"),
    "too small": (
        [image(9, 9), image(7, 20)],
        {},
        ValueError,
        r"^images\[1\] has shape \(7, 20\); .* patch_size=8",
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
    "masked": (
        [image(9, 9), np.ma.masked_greater(image(9, 9), 100)],
        {},
        ValueError,
        r"^images\[1\] is a masked array",
    ),
    "dates": ([np.zeros((9, 9), "M8[s]")], {}, TypeError, r"^images\[0\] holds dates"),
    "True patches": ([image(9, 9)], {"n_patches": True}, TypeError, r"n_patches must be an inst"),
    "True pixels": ([image(9, 9)], {"patch_size": True}, TypeError, r"patch_size must be an inst"),
    "no patches": ([image(9, 9)], {"n_patches": 0}, ValueError, r"n_patches == 0"),
    "half a patch": ([image(9, 9)], {"n_patches": 2.5}, TypeError, r"n_patches must be an inst"),
    "one pixel": ([image(9, 9)], {"patch_size": 1}, ValueError, r"patch_size == 1"),
}


@pytest.mark.parametrize(("images", "params", "error", "message"), BAD.values(), ids=BAD.keys())
def test_wrong_arguments_are_named(images, params, error, message):
    """With what was given."""
    with pytest.raises(error, match=message):
        image_patches(images, **{"n_patches": 5, **params})


def shift_law(p_on):
    """Probability of every image together with each direction: {image: [left, right]}."""
    law = {}
    for row in product((0, 1), repeat=8):
        half = p_on ** sum(row) * (1 - p_on) ** (8 - sum(row)) / 2
        for direction, last in enumerate([row[1:] + row[:1], row[-1:] + row[:-1]]):
            law.setdefault(row + row + last + last, [0, 0])[direction] += half
    return law


@pytest.mark.parametrize("p_on", [0, 0.1, 0.2, 0.5, 0.9, 1, Fraction(1, 3)])
def test_entropy_of_shift_patterns_is_that_of_all_images(p_on):
    """Of 508 images, as the 4 first rows of period 2 have one for both directions."""
    law = shift_law(p_on)
    assert len(law) == 508
    P = np.array([sum(both) for both in law.values()], dtype=float)
    assert P.sum() == pytest.approx(1, abs=1e-12)
    entropy = shift_patterns_entropy(p_on)
    assert type(entropy) is float
    assert entropy == pytest.approx(stats.entropy(P), abs=1e-12)


def test_entropy_of_shift_patterns_in_bits():
    """As the docstring says it, with the default among them."""
    assert round(shift_patterns_entropy() / log(2), 3) == 6.606
    assert shift_patterns_entropy() == shift_patterns_entropy(0.2)
    assert round(shift_patterns_entropy(0.3) / log(2), 3) == 7.989


@pytest.mark.parametrize("p_on", [0.2, 0.6])
@pytest.mark.parametrize("n", [1, 2, 3000])
def test_rows_of_shift_patterns_are_copies_and_shifts(n, p_on):
    """Of types that networks take; the shift wraps around."""
    X, direction = make_shift_patterns(n, p_on=p_on, random_state=0)
    assert X.shape == (n, 32)
    assert X.dtype == np.float32
    assert X.flags.c_contiguous
    assert direction.shape == (n,)
    assert direction.dtype == np.int64
    assert np.isin(X, [0, 1]).all()
    assert np.isin(direction, [0, 1]).all()
    for rows, right in zip(X.reshape(n, 4, 8), direction, strict=True):
        np.testing.assert_array_equal(rows[1], rows[0])
        np.testing.assert_array_equal(rows[2], rows[3])
        np.testing.assert_array_equal(rows[3], np.roll(rows[0], 1 if right else -1))


def test_shift_patterns_have_defaults():
    """100 images, a fifth of whose pixels is on."""
    X, direction = make_shift_patterns(random_state=0)
    given = make_shift_patterns(100, p_on=0.2, random_state=0)
    np.testing.assert_array_equal(X, given[0])
    np.testing.assert_array_equal(direction, given[1])


@pytest.mark.parametrize("p_on", [0, 0.05, 0.2, 0.5, 0.9, 1])
def test_pixels_and_directions_are_as_frequent_as_asked(p_on):
    """By binomial tests of every pixel; at 0 and 1 all are alike, in both directions."""
    n = 4000
    X, direction = make_shift_patterns(n, p_on=p_on, random_state=1)
    for on in X.sum(axis=0):
        assert stats.binomtest(int(on), n, p_on).pvalue > 1e-3
    assert stats.binomtest(int(direction.sum()), n, 0.5).pvalue > 1e-3
    if p_on in (0, 1):
        np.testing.assert_array_equal(X, p_on)


@pytest.mark.parametrize("p_on", [0.1, 0.2, 0.5])
def test_shift_patterns_follow_their_law(p_on):
    """By chi-square over images and directions; those expected less than 5 times join the first."""
    n = 20_000
    X, direction = make_shift_patterns(n, p_on=p_on, random_state=2)
    law = shift_law(p_on)
    found = {pixels: [0, 0] for pixels in law}
    for pixels, right in zip(X.astype(int).tolist(), direction, strict=True):
        found[tuple(pixels)][right] += 1
    expected = n * np.array(list(law.values())).ravel()
    counts = np.array(list(found.values())).ravel()
    assert not counts[expected == 0].any()
    cell = np.where(expected < 5, 0, np.arange(len(expected)))
    counts, expected = np.bincount(cell, counts), np.bincount(cell, expected)
    possible = expected > 0
    assert stats.chisquare(counts[possible], expected[possible]).pvalue > 1e-3
    # No order: a direction says nothing about the next.
    both = int((direction[1:] == direction[:-1]).sum())
    assert stats.binomtest(both, n - 1, 0.5).pvalue > 1e-3


def test_direction_is_told_from_shift_patterns_as_often_as_said():
    """In 91.5 % at best: by the likelier direction of each image, or left if both are."""
    law = shift_law(0.2)
    best = sum(max(both) for both in law.values())
    assert round(best, 3) == 0.915
    n = 5000
    X, direction = make_shift_patterns(n, random_state=3)
    told = np.array([np.argmax(law[tuple(pixels)]) for pixels in X.astype(int).tolist()])
    assert stats.binomtest(int((told == direction).sum()), n, best).pvalue > 1e-3


def test_shift_patterns_are_seeded():
    """By a number or a generator; NumPy's own is not read."""
    before = np.random.get_state()[1].copy()  # noqa: NPY002 (what is left alone)

    def drawn(seed):
        return np.column_stack(make_shift_patterns(20, random_state=seed))

    np.testing.assert_array_equal(drawn(3), drawn(3))
    np.testing.assert_array_equal(drawn(3), drawn(np.random.RandomState(3)))
    assert not np.array_equal(drawn(3), drawn(4))
    assert not np.array_equal(drawn(None), drawn(None))
    rng = np.random.RandomState(3)
    assert not np.array_equal(drawn(rng), drawn(rng))
    np.testing.assert_array_equal(before, np.random.get_state()[1])  # noqa: NPY002


BAD_P_ON = {
    "below zero": (-0.1, ValueError, r"^p_on == -0.1, must be >= 0"),
    "above one": (1.1, ValueError, r"^p_on == 1.1, must be <= 1"),
    "infinite": (np.inf, ValueError, r"^p_on == inf, must be <= 1"),
    "missing": (np.nan, ValueError, r"^p_on=nan is not allowed; it must be from 0 to 1"),
    "a word": ("0.2", TypeError, r"^p_on must be an instance of"),
    "an array": ([0.2], TypeError, r"^p_on must be an instance of"),
}


@pytest.mark.parametrize(("p_on", "error", "message"), BAD_P_ON.values(), ids=BAD_P_ON.keys())
def test_wrong_p_on_is_named(p_on, error, message):
    """By both functions, with what was given."""
    with pytest.raises(error, match=message):
        make_shift_patterns(5, p_on=p_on)
    with pytest.raises(error, match=message):
        shift_patterns_entropy(p_on)


def test_wrong_n_samples_is_named():
    """With what was given."""
    with pytest.raises(ValueError, match=r"^n_samples == 0, must be >= 1"):
        make_shift_patterns(0)
    with pytest.raises(TypeError, match=r"^n_samples must be an instance of"):
        make_shift_patterns(2.5)
    with pytest.raises(TypeError, match=r"^n_samples must be an instance of"):
        make_shift_patterns(True)
