"""Samples of counts against the images they are drawn from, and the laws behind them."""

import itertools

import numpy as np
import pandas as pd
import polars as pl
import pytest
import torch
from scipy import integrate, sparse, stats

from skae import CountMixtureAE, counts_to_image, image_to_counts, sample_counts, thin
from skae._sampling_representation import (
    dirichlet_log_evidence,
    dirichlet_posterior,
    jot_count_pmf,
    log_density_of_counts,
)

METHODS = ["multinomial", "rejection", "poisson"]
every_method = pytest.mark.parametrize("method", METHODS)


def image(*shape, seed=0, dtype=np.uint8, high=256):
    """Intensities all over the range, with the first and last pixels and some others dark."""
    picture = np.random.default_rng(seed).integers(0, high, shape)
    picture.flat[::5] = 0
    picture.flat[-1] = 0
    return picture.astype(dtype)


IMAGES = {
    "grey": image(7, 9),
    "floats": image(6, 5, dtype=np.float64) / 1000,
    "halves": image(6, 5, dtype=np.float16),
    "signal": image(40, high=5, dtype=np.int64),
    "booleans": image(8, 8, high=2, dtype=bool),
    "volume": image(4, 3, 6, seed=1, dtype=np.uint16),
    "four axes": image(2, 3, 2, 4, seed=2),
    "immense": image(5, 5) * 1e304,
    "minute": image(5, 5) * 5e-324,
    "64 bits": image(5, 5, high=2**62, dtype=np.uint64) * np.uint64(4),
    "one pixel": np.array([[7]]),
}


def found(counts, shape):
    """Counts per pixel, by NumPy's own histogram."""
    return np.histogramdd(counts, [np.arange(n + 1) for n in shape])[0]


def fits(histogram, intensity):
    """Chi-square of the histogram against the intensity, dark pixels aside: they stay empty."""
    intensity = np.asarray(intensity, dtype=np.float64)
    intensity = intensity / intensity.max()
    lit = intensity > 0
    assert (histogram[~lit] == 0).all()
    expected = histogram.sum() * intensity[lit] / intensity.sum()
    return lit.sum() == 1 or stats.chisquare(histogram[lit], expected).pvalue > 1e-3


class Counting(np.random.RandomState):
    """A generator that knows how many integers it was asked for."""

    asked = 0

    def randint(self, *args, size=None, **kwargs):
        self.asked += size
        return super().randint(*args, size=size, **kwargs)


class OnlyLit(np.random.RandomState):
    """A generator that has no multinomial with an outcome of probability 0."""

    def multinomial(self, n, pvals, size=None):
        assert (pvals > 0).all()
        return super().multinomial(n, pvals, size)


class AlmostOne(np.random.RandomState):
    """A generator of the largest number that a generator returns."""

    def random_sample(self, size=None):
        return np.full(size, 1 - 2.0**-53)


# ------------------------------------------------------------------ sample_counts


@every_method
@pytest.mark.parametrize("picture", IMAGES.values(), ids=IMAGES.keys())
def test_counts_have_the_density_of_the_image(picture, method):
    before = picture.copy()
    counts = sample_counts(picture, 20_000, method=method, random_state=0)
    assert counts.dtype == np.float64
    assert counts.shape[1:] == (picture.ndim,)
    assert method == "poisson" or len(counts) == 20_000
    histogram = found(counts, picture.shape)
    assert histogram.sum() == len(counts)
    assert fits(histogram, picture)
    np.testing.assert_array_equal(picture, before)


@every_method
@pytest.mark.parametrize("picture", [image(7, 9), image(7, 9, dtype=np.float64), image(30)])
def test_masked_counts_have_the_density_of_what_is_allowed(picture, method):
    mask = np.random.default_rng(3).random(picture.shape) < 0.5
    picture.flat[np.flatnonzero(~mask)[:3]] *= 2
    counts = sample_counts(picture, 20_000, method=method, where=mask, random_state=0)
    assert fits(found(counts, picture.shape), np.where(mask, picture, 0))
    every = np.ones(picture.shape, dtype=bool)
    np.testing.assert_array_equal(
        sample_counts(picture, 50, method=method, where=every.tolist(), random_state=0),
        sample_counts(picture, 50, method=method, random_state=0),
    )


WORST = [np.nan, -1.0, np.inf, 1e300]  # what a pixel that is left out may hold


@every_method
def test_masked_pixels_are_left_out(method):
    """As by `where`, to the bit, whatever they hold; both leave out more."""
    picture = image(7, 9, dtype=np.float64)
    bad = np.random.default_rng(3).random(picture.shape) < 0.3
    sick = picture.copy()
    sick[bad] = np.resize(WORST, bad.sum())
    options = {"n_counts": 500, "method": method, "random_state": 0}
    expected = sample_counts(picture, where=~bad, **options)
    assert found(expected, picture.shape)[bad].sum() == 0
    np.testing.assert_array_equal(sample_counts(np.ma.array(sick, mask=bad), **options), expected)
    np.testing.assert_array_equal(sample_counts(sick, where=~bad, **options), expected)
    listed = [np.ma.array(row, mask=hidden) for row, hidden in zip(sick, bad, strict=True)]
    np.testing.assert_array_equal(sample_counts(listed, **options), expected)
    half = np.arange(9) < 4
    masked = np.ma.array(sick, mask=bad & half)
    both = sample_counts(masked, where=~(bad & ~half), **options)
    np.testing.assert_array_equal(both, expected)
    unmasked = np.ma.array(picture, mask=False)
    np.testing.assert_array_equal(
        sample_counts(unmasked, **options), sample_counts(picture, **options)
    )


@pytest.mark.parametrize("channel_axis", [0, 2])
def test_channels_may_be_masked_apart(channel_axis):
    picture = np.ones((3, 4, 5))
    masked = np.random.default_rng(0).random(picture.shape) < 0.4
    given = np.ma.array(np.moveaxis(picture, 0, channel_axis))
    given.mask = np.moveaxis(masked, 0, channel_axis)
    drawn = sample_counts(given, 6000, channel_axis=channel_axis, random_state=0)
    assert fits(np.stack([found(channel, (4, 5)) for channel in drawn]), ~masked)


def test_masked_pixels_are_no_weighted_counts():
    picture = np.array([[4.0, 0, 1], [2, 5, 3]])
    sick = np.array([[4.0, 0, np.nan], [2, -5, 3]])
    X, weight = image_to_counts(np.ma.masked_where(sick != picture, sick))
    expected = image_to_counts([[4, 0, 0], [2, 0, 3]])
    np.testing.assert_array_equal(X, expected[0])
    np.testing.assert_array_equal(weight, expected[1])
    np.testing.assert_array_equal(image_to_counts(sick, where=sick == picture)[0], X)


def test_masked_pixels_are_dark_to_the_density_of_counts():
    masked = np.ma.array([1.0, 3.0, 1e9], mask=[0, 0, 1])
    counts = [[0.5], [1.2]]
    expected = log_density_of_counts(counts, [1.0, 3.0, 0.0], 2.0)
    assert log_density_of_counts(counts, masked, 2.0) == expected


MASKED = np.ma.array([[0.5], [0.7]], mask=[[0], [1]])


@pytest.mark.parametrize(
    ("call", "name"),
    [
        (lambda: thin(MASKED, 1), "counts"),
        (lambda: counts_to_image(MASKED, 1), "counts"),
        (lambda: counts_to_image(MASKED.data, 1, sample_weight=MASKED[:, 0]), "sample_weight"),
        (lambda: log_density_of_counts(MASKED, [1.0], 1.0), "counts"),
        (lambda: dirichlet_posterior(MASKED), "histogram"),
        (lambda: dirichlet_log_evidence([1], MASKED[1]), "prior"),
        (lambda: sample_counts([1, 1], 3, where=MASKED[:, 0] > 0), "where"),
    ],
)
def test_only_images_may_be_masked(call, name):
    with pytest.raises(ValueError, match=f"^{name} has 1 masked values; only pixels of images"):
        call()


@pytest.mark.parametrize("call", [sample_counts, image_to_counts])
def test_a_mask_is_refused(call):
    """It meant the opposite of a mask of NumPy's."""
    with pytest.raises(TypeError, match=r"^mask is not used any more.*Give where.*masked array"):
        call([1, 2], mask=[True, False])


@every_method
@pytest.mark.parametrize("channel_axis", [0, 1, 2, -1])
def test_colours_share_the_counts(channel_axis, method):
    """All channels together are one sample; a mask is for all of them."""
    colours = image(3, 5, 4)
    colours[1] //= 3
    picture = np.moveaxis(colours, 0, channel_axis)
    mask = np.random.default_rng(1).random((5, 4)) < 0.7
    for allowed in (None, mask):
        counts = sample_counts(
            picture,
            20_000,
            method=method,
            channel_axis=channel_axis,
            where=allowed,
            random_state=1,
        )
        assert isinstance(counts, list)
        histogram = np.stack([found(channel, (5, 4)) for channel in counts])
        assert method == "poisson" or histogram.sum() == 20_000
        assert fits(histogram, colours if allowed is None else colours * mask)


def test_a_dark_channel_has_no_counts():
    red, green, blue = sample_counts([[[0, 1, 0]]], 10, channel_axis=-1, random_state=0)
    assert red.shape == blue.shape == (0, 2)
    assert green.shape == (10, 2)


@every_method
def test_jitter_is_uniform_within_pixels(method):
    """On every axis, independently of the other and of the pixel."""
    picture = image(4, 300)
    counts = sample_counts(picture, 10_000, method=method, random_state=0)
    pixel, offset = np.floor(counts), counts % 1
    for axis in range(2):
        assert stats.kstest(offset[:, axis], "uniform").pvalue > 1e-3
        assert stats.kstest(offset[pixel[:, 0] == 2, axis], "uniform").pvalue > 1e-3
        assert abs(stats.spearmanr(offset[:, axis], pixel[:, 1]).statistic) < 0.05
    assert abs(stats.spearmanr(*offset.T).statistic) < 0.05


@every_method
def test_without_jitter_counts_are_at_centres(method):
    counts = sample_counts(image(4, 3, 5), 3000, method=method, jitter=False, random_state=0)
    assert (counts % 1 == 0.5).all()
    assert fits(found(counts, (4, 3, 5)), image(4, 3, 5))


def test_rounding_never_moves_a_count_to_the_next_pixel():
    """i + u rounds up to i + 1 for the largest u that generators return."""
    picture = np.ones(100_003)
    counts = sample_counts(picture, 100_000, random_state=AlmostOne(0))
    pixel = np.floor(counts[:, 0])
    assert pixel.max() > 99_000
    np.testing.assert_array_equal(counts[:, 0], np.nextafter(pixel + 1, 0))


@every_method
def test_order_of_counts_says_nothing(method):
    """Either half has the density of the image, and neighbours in the order are not alike."""
    picture = image(6, 6)
    counts = sample_counts(picture, 20_000, method=method, random_state=0)
    for part in (counts[:10_000], counts[10_000:], counts[::2]):
        assert fits(found(part, picture.shape), picture)
    assert abs(stats.spearmanr(counts[1:, 0], counts[:-1, 0]).statistic) < 5 / np.sqrt(20_000)


@pytest.mark.parametrize(
    ("params", "mean"),
    [({"n_counts": 30}, 30), ({"exposure": 0.04}, 0.04 * 500), ({"exposure": 2e-4}, 0.1)],
)
def test_poisson_draws_the_number_of_counts(params, mean):
    """It is Poisson, and counts of different pixels are independent Poisson variables."""
    rng = np.random.RandomState(0)
    draws = [
        sample_counts([[100, 0], [150, 250]], method="poisson", random_state=rng, **params)
        for _ in range(3000)
    ]
    assert {draw.shape[1:] for draw in draws} == {(2,)}
    n = np.array([len(draw) for draw in draws])
    poisson = stats.poisson(mean)
    assert abs(n.mean() - mean) < 4 * np.sqrt(mean / 3000)
    assert abs(n.var() / mean - 1) < 4 * np.sqrt((2 + 1 / mean) / 3000)
    assert abs((n == n.min()).mean() - poisson.pmf(n.min())) < 0.03
    pixels = np.array([found(draw, (2, 2)).ravel() for draw in draws])
    assert abs(np.corrcoef(pixels[:, 2], pixels[:, 3])[0, 1]) < 4 / np.sqrt(3000)
    if mean < 1:
        assert n.min() == 0


def test_rejection_accepts_what_it_says():
    """One in n_pixels * bound / W; the bound of integers is a power of two above them."""
    mask = np.ones((4, 5), dtype=bool)
    mask[0] = False
    for picture, allowed, bound in [
        (image(4, 5), None, 256),
        (image(4, 5, high=120), None, 128),
        (np.full((4, 5), 128), None, 256),
        (np.full((4, 5), 127), None, 128),
        (np.full((4, 5), 127.0), None, 127),
        (np.arange(20.0).reshape(4, 5), mask, 19),
        (np.arange(20).reshape(4, 5)[::-1], mask, 16),
        (np.ones((4, 5), dtype=bool), None, 2),
    ]:
        rng = Counting(0)
        sample_counts(picture, 20_000, method="rejection", where=allowed, random_state=rng)
        lit = picture if allowed is None else picture[allowed]
        expected = 20_000 * lit.size * bound / lit.sum(dtype=float)
        assert 1.09 < rng.asked / expected < 1.12  # a tenth more, so that one round is enough


def test_rejection_takes_as_many_rounds_as_it_needs():
    """A dark image, whose counts take several rounds of proposals."""
    picture = np.zeros((40, 50))
    picture[3, 4], picture[20, 30] = 3, 1
    counts = sample_counts(picture, 2000, method="rejection", random_state=0)
    assert len(counts) == 2000
    assert fits(found(counts, picture.shape), picture)


def test_extremes_of_brightness():
    """No pixel is lost to overflow, and what is too dark to be seen does no harm."""
    counts = sample_counts([[1e308, 0, 1e308, 1e308]], 3000, random_state=0)
    assert fits(found(counts, (1, 4)), [[1, 0, 1, 1]])
    for dim in (1e-30, 1e-320):
        picture = [0.1] * 10 + [dim, dim]
        for method in ("multinomial", "poisson"):
            counts = sample_counts(picture, 1000, method=method, random_state=0)
            assert counts.max() < 10
    n = [
        len(sample_counts([4e-5] * 5, method="poisson", exposure=5e6, random_state=i))
        for i in range(50)
    ]
    assert abs(np.mean(n) - 1000) < 4 * np.sqrt(1000 / 50)


@pytest.mark.parametrize("method", ["multinomial", "poisson"])
def test_rounding_never_lights_a_dark_pixel(method):
    """The last outcome takes what rounding leaves of the probability, so that none is dark."""
    sample_counts(image(5, 6), 100, method=method, random_state=OnlyLit(0))


def test_an_image_may_be_given_in_other_ways():
    """Lists, other types of integers, unlike orders in memory, read-only."""
    picture = image(5, 6)
    expected = sample_counts(picture, 30, random_state=0)
    locked = picture.copy()
    locked.flags.writeable = False
    for given in (picture.tolist(), picture.astype(np.int64), np.asfortranarray(picture), locked):
        np.testing.assert_array_equal(sample_counts(given, 30, random_state=0), expected)


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16, torch.float32, torch.uint8])
def test_tensors_are_images_and_counts(dtype):
    """Also of a type that NumPy has not, and with gradients."""
    picture = image(5, 6, high=100)
    tensor = torch.tensor(picture).to(dtype)
    if dtype.is_floating_point:
        tensor.requires_grad_()
    floats = picture.astype(np.float64) if dtype.is_floating_point else picture
    expected = sample_counts(floats, 30, random_state=0)
    np.testing.assert_array_equal(sample_counts(tensor, 30, random_state=0), expected)
    np.testing.assert_array_equal(image_to_counts(tensor)[1], image_to_counts(picture)[1])
    weight = torch.ones(30).to(dtype)
    places = torch.tensor(np.floor(expected)).to(dtype)
    np.testing.assert_array_equal(
        counts_to_image(places, picture.shape, sample_weight=weight),
        counts_to_image(expected, picture.shape),
    )
    assert len(thin(places, 3, random_state=0)) == 3
    assert dirichlet_log_evidence(tensor) == dirichlet_log_evidence(picture)


@pytest.mark.parametrize(
    ("call", "remedy"),
    [
        (lambda: sample_counts([1.0, 2.0], 10**16), "Reduce n_counts"),
        (lambda: sample_counts([1.0], method="poisson", exposure=1e16), "Reduce exposure"),
        (lambda: counts_to_image([[0.5, 0.5]], (10**8, 10**8)), "Reduce the number of pixels"),
        (lambda: counts_to_image([[0.5, 0.5]], (2**40, 2**40)), "Reduce the number of pixels"),
        (
            lambda: counts_to_image([[0.5, 0.5]], (10**8, 10**8), sample_weight=[2.0]),
            "Reduce the number of pixels",
        ),
    ],
)
def test_out_of_memory_says_what_to_set(call, remedy):
    with pytest.raises(MemoryError, match=remedy):
        call()


@pytest.mark.parametrize(
    "draw",
    [
        *[
            lambda seed, method=method: sample_counts(
                image(20, 20), 10, method=method, random_state=seed
            )
            for method in METHODS
        ],
        lambda seed: sample_counts(image(3, 9, 9), 60, channel_axis=0, random_state=seed)[1],
        lambda seed: thin(np.arange(200.0)[:, None], 50, random_state=seed),
        lambda seed: thin(np.arange(200.0)[:, None], 0.5, random_state=seed),
    ],
    ids=[*METHODS, "colour", "thin k", "thin part"],
)
def test_draws_are_seeded(draw):
    """By a number or a generator; NumPy's own is not read."""
    before = np.random.get_state()  # noqa: NPY002 (what is left alone)
    np.testing.assert_array_equal(draw(3), draw(3))
    np.testing.assert_array_equal(draw(3), draw(np.random.RandomState(3)))
    assert not np.array_equal(draw(3), draw(4))
    assert not np.array_equal(draw(None), draw(None))
    rng = np.random.RandomState(3)
    assert not np.array_equal(draw(rng), draw(rng))
    after = np.random.get_state()  # noqa: NPY002
    np.testing.assert_array_equal(before[1], after[1])
    assert before[2:] == after[2:]


BAD = {
    "a number": (3.0, {}, ValueError, r"^image has shape \(\) and dtype float64"),
    "empty": ([[]], {}, ValueError, r"^image has shape \(1, 0\)"),
    "words": (["a"], {}, ValueError, r"^image has shape \(1,\) and dtype <U1; expected numbers"),
    "complex": ([1j], {}, ValueError, r"^image .*complex128"),
    "below zero": ([1, -2], {}, ValueError, r"^image has values from -2 to 1; allowed are finite"),
    "missing": ([1, np.nan], {}, ValueError, r"^image has values from nan to nan"),
    "infinite": ([1, np.inf], {}, ValueError, r"^image has values from 1 to inf"),
    "dark": ([0, 0], {}, ValueError, r"^image is zero on all pixels; expected"),
    "dark where taken": (
        [0, 1],
        {"where": [True, False]},
        ValueError,
        r"^image is zero on all pixels that are used; expected",
    ),
    "all left out": (
        [1, 1],
        {"where": [False, False]},
        ValueError,
        r"zero on all pixels that are used",
    ),
    "where of numbers": (
        [0, 1],
        {"where": [0, 1]},
        ValueError,
        r"^where has shape \(2,\) and dtype int64; expected booleans of shape \(2,\)",
    ),
    "long where": ([0, 1], {"where": [True] * 3}, ValueError, r"^where has shape \(3,\)"),
    "where of channels": (
        [[0, 1]],
        {"where": [[True, True]], "channel_axis": 1},
        ValueError,
        r"^where has shape \(1, 2\) .* of shape \(1,\)",
    ),
    "no counts": ([1], {"n_counts": 0}, ValueError, r"^n_counts == 0, must be >= 1"),
    "half a count": ([1], {"n_counts": 2.5}, TypeError, r"^n_counts must be an instance of int"),
    "method": ([1], {"method": "gauss"}, ValueError, r"^method='gauss' is unknown; allowed are"),
    "exposure 0": ([1], {"exposure": 0}, ValueError, r"^exposure == 0, must be > 0"),
    "exposure nan": ([1], {"exposure": np.nan}, ValueError, r"^exposure=nan must be a finite"),
    "exposure text": ([1], {"exposure": "1"}, TypeError, r"^exposure must be an instance of"),
    "exposure": (
        [1],
        {"exposure": 2.0},
        ValueError,
        r"^exposure=2.0 is only allowed with method='poisson', got method='multinomial'",
    ),
    "long exposure": (
        [1],
        {"exposure": 1e30, "method": "poisson"},
        ValueError,
        r"would draw about 1e\+30 counts; .* exposure",
    ),
    "axis": (
        [[1]],
        {"channel_axis": 2},
        ValueError,
        r"^channel_axis=2 for image of shape \(1, 1\); allowed are None and .* from -2 to 1",
    ),
    "axis below": ([[1]], {"channel_axis": -3}, ValueError, r"^channel_axis=-3"),
    "half an axis": ([[1]], {"channel_axis": 0.5}, ValueError, r"^channel_axis=0.5"),
    "no space": ([1], {"channel_axis": 0}, ValueError, r"^channel_axis=0 needs an image"),
    "too dark": (
        [1000] + [0] * 9999,
        {"n_counts": 10**6, "method": "rejection"},
        ValueError,
        r"^method='rejection' would need about 1e\+10 proposals, .* one in 1.02e\+04",
    ),
}


@pytest.mark.parametrize(("picture", "params", "error", "message"), BAD.values(), ids=BAD.keys())
def test_wrong_images_and_ways_are_named(picture, params, error, message):
    with pytest.raises(error, match=message):
        sample_counts(picture, **{"n_counts": 5, **params})


# ------------------------------------------------------ thin, and images of counts


def test_thinning_to_a_number_keeps_every_subset_alike():
    """In their order, without repeats, and as a copy."""
    rng = np.random.RandomState(0)
    counts = np.arange(10.0).reshape(5, 2)
    before = counts.copy()
    subsets = dict.fromkeys(itertools.combinations(range(5), 2), 0)
    for _ in range(3000):
        kept = thin(counts, 2, random_state=rng)
        subsets[tuple((kept[:, 0] / 2).astype(int).tolist())] += 1
        kept[:] = -1
    assert stats.chisquare(list(subsets.values())).pvalue > 1e-3
    np.testing.assert_array_equal(counts, before)
    np.testing.assert_array_equal(thin(counts, np.int64(5)), counts)


def test_thinning_with_a_probability_keeps_each_by_itself():
    """The number that is kept is binomial, and so is every count's own."""
    rng = np.random.RandomState(0)
    counts = np.arange(8)[:, None]
    kept = np.zeros((3000, 8))
    for row in kept:
        row[thin(counts, 0.3, random_state=rng)[:, 0]] = 1
    observed = np.bincount(kept.sum(1).astype(int), minlength=9)
    expected = 3000 * stats.binom.pmf(np.arange(9), 8, 0.3)
    observed, expected = (
        np.append(number[:5], number[5:].sum()) for number in (observed, expected)
    )
    assert stats.chisquare(observed, expected).pvalue > 1e-3
    assert np.abs(np.corrcoef(kept.T) - np.eye(8)).max() < 5 / np.sqrt(3000)
    assert np.abs(kept.mean(0) - 0.3).max() < 5 * np.sqrt(0.21 / 3000)
    assert thin(np.empty((0, 2)), 0.5).shape == (0, 2)


def test_a_thinned_poisson_process_is_one_of_the_thinned_intensity():
    """Equation 3, by the index of dispersion of every pixel and by chi-square over them."""
    picture = np.array([[10.0, 0], [40, 50]])
    rng = np.random.RandomState(1)
    histograms = np.array(
        [
            counts_to_image(
                thin(
                    sample_counts(picture, method="poisson", exposure=0.3, random_state=rng),
                    0.4,
                    random_state=rng,
                ),
                (2, 2),
            )
            for _ in range(2000)
        ]
    )
    assert fits(histograms.sum(0), picture)
    expected = 0.4 * 0.3 * picture
    assert (np.abs(histograms.mean(0) - expected) <= 4 * np.sqrt(expected / 2000)).all()
    dispersion = histograms.var(0)[expected > 0] / expected[expected > 0]
    assert np.abs(dispersion - 1).max() < 4 * np.sqrt(3 / 2000)
    first, *_, last = histograms.reshape(-1, 4).T
    assert abs(np.corrcoef(first, last)[0, 1]) < 4 / np.sqrt(2000)


@pytest.mark.parametrize("shape", [(7,), (4, 6), (3, 2, 5)])
def test_histogram_is_that_of_numpy(shape):
    rng = np.random.default_rng(0)
    counts = rng.uniform(0, shape, (500, len(shape)))
    counts[:50] = np.floor(counts[:50])  # on the border: of the pixel that begins there
    weight = rng.exponential(size=500)
    histogram = counts_to_image(counts, shape)
    assert histogram.dtype == np.int64
    np.testing.assert_array_equal(histogram, found(counts, shape))
    weighted = counts_to_image(counts, np.array(shape), sample_weight=weight)
    assert weighted.dtype == np.float64
    bins = [np.arange(n + 1) for n in shape]
    np.testing.assert_allclose(weighted, np.histogramdd(counts, bins, weights=weight)[0])
    np.testing.assert_array_equal(counts_to_image(counts[:0], shape), np.zeros(shape))


def test_a_signal_has_a_number_for_a_shape():
    np.testing.assert_array_equal(counts_to_image([[1.5], [0.0]], 3), [1, 1, 0])


@pytest.mark.parametrize("picture", IMAGES.values(), ids=IMAGES.keys())
def test_pixels_as_weighted_counts(picture):
    """Their image is the image they came from."""
    X, sample_weight = image_to_counts(picture)
    assert X.dtype == sample_weight.dtype == np.float64
    assert X.shape == ((picture > 0).sum(), picture.ndim)
    assert (sample_weight > 0).all()
    assert (X % 1 == 0.5).all()
    again = counts_to_image(X, picture.shape, sample_weight=sample_weight)
    np.testing.assert_array_equal(again, picture.astype(np.float64))
    mask = np.arange(picture.size).reshape(picture.shape) < 0.6 * picture.size + 1
    X, sample_weight = image_to_counts(picture, where=mask)
    assert (sample_weight > 0).all()
    again = counts_to_image(X, picture.shape, sample_weight=sample_weight)
    np.testing.assert_array_equal(again, np.where(mask, picture, 0).astype(np.float64))


def test_weighted_pixels_have_the_moments_of_counts():
    picture = image(6, 7)
    X, weight = image_to_counts(picture)
    counts = sample_counts(picture, 50_000, jitter=False, random_state=0)
    spread = counts.std(0) / np.sqrt(50_000)
    mean = np.average(X, axis=0, weights=weight)
    assert (np.abs(mean - counts.mean(0)) < 4 * spread).all()
    covariance = np.cov(X.T, aweights=weight, ddof=0)
    np.testing.assert_allclose(covariance, np.cov(counts.T), atol=0.1)


def test_counts_at_the_far_edge_belong_to_the_last_pixel():
    """As in `numpy.histogram`; `fit` and `transform` take such counts too."""
    counts = np.array([[0.0, 3.0], [2.0, 0.5], [2.0, 3.0], [1.0, 1.0]])
    expected, *_ = np.histogramdd(counts, bins=(2, 3), range=((0, 2), (0, 3)))
    np.testing.assert_array_equal(counts_to_image(counts, (2, 3)), expected)
    model = CountMixtureAE(1, image_shape=(2, 3)).fit(counts)
    assert model.transform(counts).shape == (4, 1)
    with pytest.raises(ValueError, match=r"^1 of 1 counts are outside"):
        counts_to_image([[np.nextafter(2.0, 3)]], 2)
    with pytest.raises(ValueError, match=r"^1 of 2 counts .* counts\[1\] = \[2\]"):
        counts_to_image([[1], [2]], 2)  # indices of pixels


@pytest.mark.parametrize("method", ["multinomial", "poisson", "rejection"])
@pytest.mark.parametrize("channel_axis", [None, 0, 1, -1])
def test_sparse_images_are_sampled(method, channel_axis):
    """By the same random numbers as dense ones, apart from the method of rejection."""
    image = np.random.RandomState(0).poisson(0.5, (6, 4)) * 1.5
    options = {"method": method, "channel_axis": channel_axis, "random_state": 0}
    dense = sample_counts(image, 20_000, **options)
    for container in (sparse.coo_array, sparse.csc_matrix):
        found = sample_counts(container(image), 20_000, **options)
        if method == "rejection":
            shape = image.shape if channel_axis is None else (image.shape[1 - channel_axis % 2],)
            dark = image == 0 if channel_axis is None else (image == 0).all(channel_axis)
            joined = found if channel_axis is None else np.concatenate(found)
            seen = counts_to_image(joined, shape)
            total = image if channel_axis is None else image.sum(channel_axis)
            assert not seen[dark].any()
            deviation = seen / 20_000 - total / total.sum()
            assert abs(deviation).max() < 5 * 0.5 / np.sqrt(20_000)
        elif channel_axis is None:
            np.testing.assert_array_equal(found, dense)
        else:
            for one, other in zip(found, dense, strict=True):
                np.testing.assert_array_equal(one, other)


def test_sparse_images_as_weighted_counts():
    image = np.random.RandomState(0).poisson(0.5, (6, 4))
    where = np.arange(24).reshape(6, 4) % 3 > 0
    for options in ({}, {"where": where}):
        dense = image_to_counts(image, **options)
        for container in (sparse.coo_array, sparse.csr_matrix, sparse.csc_array):
            found = image_to_counts(container(image), **options)
            for one, other in zip(found, dense, strict=True):
                np.testing.assert_array_equal(one, other)
        seen = counts_to_image(
            sample_counts(sparse.coo_array(image), 1000, random_state=0, **options), (6, 4)
        )
        assert not seen[image == 0].any()
        assert not options or not seen[~where].any()
    twice = sparse.coo_array(([1, 2, 4], ([0, 0, 1], [1, 1, 0])), shape=(2, 3))
    X, weight = image_to_counts(twice)
    assert X.tolist() == [[0.5, 1.5], [1.5, 0.5]]
    assert weight.tolist() == [3, 4]
    assert twice.nnz == 3  # the image is left as it was
    huge = sparse.coo_array(([3, 4], ([5, 10**9], [0, 7])), shape=(2**31, 2**31))
    X, weight = image_to_counts(huge)
    assert X.tolist() == [[5.5, 0.5], [10**9 + 0.5, 7.5]]
    assert weight.tolist() == [3, 4]
    assert len(sample_counts(huge, 10, random_state=0)) == 10


@pytest.mark.parametrize(
    ("image", "options", "message"),
    [
        (sparse.coo_array([[-1, 2]]), {}, r"^image has values from -1 to 2; allowed"),
        (sparse.coo_array([[np.nan, 2]]), {}, r"^image has values from nan"),
        (sparse.coo_array([[1j]]), {}, r"^image has the dtype complex128; expected numbers"),
        (sparse.coo_array((2, 2)), {}, r"^image is zero on all pixels; expected"),
        (sparse.coo_array([[0, 2]]), {"where": [[True, False]]}, r"zero on all pixels that are us"),
        (sparse.coo_array([[0, 2]]), {"where": [True]}, r"^where has shape"),
    ],
)
def test_refused_sparse_images(image, options, message):
    with pytest.raises(ValueError, match=message):
        sample_counts(image, 1, **options)
    with pytest.raises(ValueError, match=message):
        image_to_counts(image, **options)


FRAMES = {
    "Int64": lambda values: pd.DataFrame(values, columns=["y", "x"], dtype="Int64"),
    "Float64": lambda values: pd.DataFrame(values, columns=["y", "x"], dtype="Float64"),
    "pyarrow": lambda values: pd.DataFrame(values, columns=["y", "x"], dtype="double[pyarrow]"),
    "int64[pyarrow]": lambda values: pd.DataFrame(
        values, columns=["y", "x"], dtype="int64[pyarrow]"
    ),
    "mixed": lambda values: pd.DataFrame(values, columns=["y", "x"]).astype({"y": "Int64"}),
    "polars": lambda values: pl.DataFrame(values, schema=["y", "x"], orient="row"),
}


@pytest.mark.parametrize("kind", FRAMES)
def test_frames_of_nullable_types(kind):
    rows = [[0, 1], [1, 2], [1, 0], [0, 1]]
    frame = FRAMES[kind](rows)
    expected = counts_to_image(rows, (2, 3))
    np.testing.assert_array_equal(counts_to_image(frame, (2, 3)), expected)
    np.testing.assert_array_equal(
        thin(frame, 2, random_state=0), thin(np.array(rows), 2, random_state=0)
    )
    missing = FRAMES[kind]([[0, 1], [1, None]])
    for call in (lambda: thin(missing, 1), lambda: counts_to_image(missing, (2, 3))):
        with pytest.raises(ValueError, match=r"^counts, column 'x', has 1 missing values"):
            call()
    weight = pd.Series([1, 2, 3, None], dtype="Int64")
    with pytest.raises(ValueError, match=r"^sample_weight has 1 missing values"):
        counts_to_image(frame, (2, 3), sample_weight=weight)
    found = counts_to_image(frame, (2, 3), sample_weight=weight.fillna(4))
    np.testing.assert_array_equal(found, [[0, 5, 0], [3, 0, 2]])


def test_thin_takes_counts_and_no_images():
    rng = np.random.RandomState(0)
    with pytest.raises(ValueError, match=r"^counts has shape \(100, 80\); .* image_to_counts"):
        thin(rng.uniform(size=(100, 80)), 0.5)
    for image in (rng.uniform(size=(8, 8)), rng.poisson(5, (100, 40)), np.ones((900, 8))):
        with pytest.warns(UserWarning, match=r"may be an image. sample_counts draws"):
            thin(image, 0.5, random_state=0)
    # Coordinates of many axes are none.
    assert len(thin(rng.uniform(size=(100, 6)), 10, random_state=0)) == 10
    assert len(thin(rng.randint(5, size=(100, 4)), 10, random_state=0)) == 10


BAD_COUNTS = {
    "one axis": (lambda: thin([1.0], 1), ValueError, r"^counts has shape \(1,\) and dtype float64"),
    "words": (lambda: thin([["a"]], 1), ValueError, r"^counts .* dtype <U1; expected numbers"),
    "none": (lambda: thin([[1], [2]], 0), ValueError, r"^k=0 must be from 1 to the number .*, 2"),
    "too many": (lambda: thin([[1], [2]], 3), ValueError, r"^k=3 must be from 1"),
    "all": (lambda: thin([[1]], 1.0), ValueError, r"^k=1.0 must be between 0 and 1"),
    "no part": (lambda: thin([[1]], 0.0), ValueError, r"^k=0.0"),
    "nan": (lambda: thin([[1]], np.nan), ValueError, r"^k=nan"),
    "text": (lambda: thin([[1]], "1"), TypeError, r"^k='1' is of type str; expected an int or"),
    "bool": (lambda: thin([[1]], True), TypeError, r"^k=True is of type bool"),
    "outside": (
        lambda: counts_to_image([[0.5, 0], [1, 2.1], [-0.1, 0], [np.nan, 0]], (2, 2)),
        ValueError,
        r"^3 of 4 counts are outside of the image of shape \(2, 2\). .* counts\[1\] = \[1.0, 2.1\]",
    ),
    "axes": (
        lambda: counts_to_image([[0.5, 0.5]], 2),
        ValueError,
        r"^counts has shape \(1, 2\); expected 1 columns for an image of shape \(2,\)",
    ),
    "shape": (lambda: counts_to_image([[0.5]], (2.0,)), TypeError, r"^shape\[0\] must be an in"),
    "no shape": (lambda: counts_to_image([[0.5, 0]], (1, 0)), ValueError, r"^shape\[1\] == 0"),
    "weights": (
        lambda: counts_to_image([[0.5]], 1, sample_weight=[1, 1]),
        ValueError,
        r"^sample_weight has shape \(2,\) and dtype int64; .* each count, shape \(1,\)",
    ),
    "light weight": (
        lambda: counts_to_image([[0.5], [0.5]], 1, sample_weight=[1, -1]),
        ValueError,
        r"^sample_weight has values from -1 to 1; allowed are finite",
    ),
    "no weight": (
        lambda: counts_to_image([[0.5]], 1, sample_weight=[np.nan]),
        ValueError,
        r"^sample_weight has values from nan",
    ),
    "dark": (lambda: image_to_counts([0.0]), ValueError, r"^image is zero on all pixels; expected"),
    "dark where taken": (
        lambda: image_to_counts([0, 1], where=[True, False]),
        ValueError,
        r"^image is zero on all pixels that are used",
    ),
    "where": (lambda: image_to_counts([1], where=[1]), ValueError, r"^where has shape \(1,\) and "),
    "image": (lambda: image_to_counts([-1]), ValueError, r"^image has values from -1 to -1"),
    "density outside": (
        lambda: log_density_of_counts([[1.1]], [1.0], 1.0),
        ValueError,
        r"^1 of 1 counts are outside",
    ),
    "density unexposed": (
        lambda: log_density_of_counts([[0.5]], [1.0], 0),
        ValueError,
        r"^exposure == 0",
    ),
    "density dim": (lambda: log_density_of_counts([[0]], [-1], 1), ValueError, r"^image has val"),
    "few jots": (
        lambda: jot_count_pmf(3.0, 2.0, 5),
        ValueError,
        r"^n_jots=5 is too small: .* exposure \* intensity = 6",
    ),
    "no jots": (lambda: jot_count_pmf(3.0, 2.0, 0), ValueError, r"^n_jots == 0"),
    "jots in the dark": (lambda: jot_count_pmf(-1.0, 2.0, 5), ValueError, r"^intensity == -1"),
    "jots exposed": (lambda: jot_count_pmf(1.0, np.inf, 5), ValueError, r"^exposure=inf"),
    "histogram": (lambda: dirichlet_posterior([-1]), ValueError, r"^histogram has values from -1"),
    "prior": (
        lambda: dirichlet_posterior([1, 2], [1, 1, 1]),
        ValueError,
        r"^prior has shape \(3,\); expected a number or shape \(2,\)",
    ),
    "improper": (
        lambda: dirichlet_log_evidence([1, 2], [1, 0]),
        ValueError,
        r"^prior has values from 0 to 1",
    ),
}


@pytest.mark.parametrize(("call", "error", "message"), BAD_COUNTS.values(), ids=BAD_COUNTS.keys())
def test_wrong_counts_are_named(call, error, message):
    with pytest.raises(error, match=message):
        call()


# ------------------------------------------------------------------ the equations


def test_jots_are_bernoulli_trials():
    """By enumeration of all jots that fire or do not."""
    p = 0.7 * 1.5 / 6
    expected = np.zeros(7)
    for jots in itertools.product([0, 1], repeat=6):
        expected[sum(jots)] += np.prod([p if jot else 1 - p for jot in jots])
    np.testing.assert_allclose(jot_count_pmf(0.7, 1.5, 6), expected, rtol=1e-12)
    np.testing.assert_array_equal(jot_count_pmf(0.0, 1.0, 2), [1, 0, 0])
    np.testing.assert_array_equal(jot_count_pmf(2.0, 1.0, 2), [0, 0, 1])


def test_jots_become_poisson():
    """At a distance that falls like 1/N, and is within the bound of Le Cam."""
    mean, N = 1.5 * 2.0, 10 * 4 ** np.arange(5)
    distance = []
    for n_jots in N:
        pmf = jot_count_pmf(1.5, 2.0, int(n_jots))
        np.testing.assert_allclose(pmf.sum(), 1, rtol=1e-11)
        poisson = stats.poisson.pmf(np.arange(n_jots + 1), mean)
        distance.append((np.abs(pmf - poisson).sum() + 1 - poisson.sum()) / 2)
    assert (np.array(distance) < mean**2 / N).all()
    np.testing.assert_allclose(-np.diff(np.log(distance))[1:], np.log(4), rtol=0.05)


def test_density_of_an_ideal_image_sums_to_one():
    """Over every number of counts and, as pixels are of area 1, over their pixels.

    The sum over the places of n counts is the Poisson probability of n, and given n the
    density is the product of those of single counts.
    """
    picture, exposure = np.array([[1.0, 0.0], [0.5, 2.0]]), 0.4
    centres = [[i + 0.3, j + 0.8] for i in range(2) for j in range(2)]
    rho = picture.ravel() / picture.sum()
    poisson = stats.poisson(exposure * picture.sum())
    total = 0.0
    for n in range(7):
        density = 0.0
        for pixels in itertools.product(range(4), repeat=n):
            counts = np.array([centres[pixel] for pixel in pixels]).reshape(n, 2)
            one = np.exp(log_density_of_counts(counts, picture, exposure))
            np.testing.assert_allclose(one, poisson.pmf(n) * np.prod(rho[list(pixels)]))
            density += one
        np.testing.assert_allclose(density, poisson.pmf(n))
        total += density
    np.testing.assert_allclose(total, poisson.cdf(6))
    assert total > 0.999


def test_density_is_a_plain_number():
    value = log_density_of_counts([[0, 0], [1, 1]], image(2, 2) + 1, 2)
    assert isinstance(value, float)
    assert log_density_of_counts([[0.5]], [0, 1], 1.0) == -np.inf


def test_given_their_number_counts_do_not_depend_on_exposure():
    """Equation 3, and they do not depend on the brightness either: only on ρ."""
    picture = image(5, 6) + 1.0
    counts = sample_counts(picture, 20, random_state=0)
    rho = picture / picture.sum()
    expected = sum(np.log(rho[int(i), int(j)]) for i, j in counts)
    for exposure, brightness in [(1e-3, 1.0), (0.05, 1.0), (7.0, 1.0), (0.05, 30.0)]:
        number = stats.poisson.logpmf(20, exposure * brightness * picture.sum())
        joint = log_density_of_counts(counts, brightness * picture, exposure)
        np.testing.assert_allclose(joint - number, expected, rtol=1e-9)


@pytest.mark.parametrize("prior", [1.0, [0.5, 2.5]])
def test_posterior_of_two_pixels_is_that_of_quadrature(prior):
    """Equation 6: prior times likelihood of a sequence of counts, over its integral."""
    h = np.array([3, 5])
    a, b = np.broadcast_to(prior, 2)

    def joint(theta):
        return stats.beta.pdf(theta, a, b) * theta ** h[0] * (1 - theta) ** h[1]

    evidence = integrate.quad(joint, 0, 1, epsabs=0)[0]
    np.testing.assert_allclose(dirichlet_log_evidence(h, prior), np.log(evidence), rtol=1e-7)
    posterior = dirichlet_posterior(h, prior)
    theta = np.linspace(0.05, 0.95, 7)
    np.testing.assert_allclose(
        stats.beta.pdf(theta, *posterior), joint(theta) / evidence, rtol=1e-7
    )
    mean = integrate.quad(lambda theta: theta * joint(theta), 0, 1, epsabs=0)[0] / evidence
    np.testing.assert_allclose(posterior[0] / posterior.sum(), mean, rtol=1e-7)


def test_evidence_is_that_of_the_dirichlet_multinomial():
    """SciPy's is of the histogram: times the number of orders of the counts."""
    h = np.array([[3, 0, 2], [1, 4, 0]])
    prior = np.random.default_rng(0).exponential(size=(2, 3))
    orders = stats.multinomial.logpmf(h.ravel(), h.sum(), [1 / 6] * 6) + h.sum() * np.log(6)
    expected = stats.dirichlet_multinomial.logpmf(h.ravel(), prior.ravel(), h.sum())
    np.testing.assert_allclose(dirichlet_log_evidence(h, prior) + orders, expected)
    assert isinstance(dirichlet_log_evidence(h), float)
    assert dirichlet_posterior(h, prior).shape == (2, 3)


def test_evidence_of_all_counts_is_that_of_one_after_the_other():
    """The chain rule: the posterior of some counts is the prior of the next."""
    counts = sample_counts(image(3, 3), 12, random_state=0)
    before, total = dirichlet_posterior(np.zeros((3, 3)), 0.7), 0.0
    for count in counts:
        one = counts_to_image(count[None], (3, 3))
        total += dirichlet_log_evidence(one, before)
        np.testing.assert_allclose(
            np.exp(dirichlet_log_evidence(one, before)), before[one == 1][0] / before.sum()
        )
        before = dirichlet_posterior(one, before)
    whole = counts_to_image(counts, (3, 3))
    np.testing.assert_allclose(dirichlet_log_evidence(whole, 0.7), total)
    np.testing.assert_allclose(before, whole + 0.7)
