"""Standard deviations of estimated images, against simulations with known intensities."""

import numpy as np
import pytest
from scipy.ndimage import gaussian_filter
from scipy.stats import norm, poisson

from skae._mixture.domain import Domain
from skae._mixture.pixel_masses import pixel_masses
from skae._mixture.refits import refit_of_cells
from skae._mixture.uncertainty import (
    corrected,
    features_of,
    noise_variance,
    regressed,
    std_of_masses,
)

SHAPE = (32, 32)


def disc():
    """A bright disc on a slope, with the sum 1."""
    i, j = np.indices(SHAPE)
    image = 1 + 0.05 * j + 3.0 * ((i - 14) ** 2 + (j - 17) ** 2 < 81)
    return image / image.sum()


def texture(seed):
    """A log-normal random field, with the sum 1."""
    noise = np.random.RandomState(100 + seed).randn(*SHAPE)
    image = np.exp(4 * gaussian_filter(noise, 2, mode="wrap"))
    return image / image.sum()


def smoother(width):
    def refit(histogram, rng):
        return gaussian_filter(histogram / histogram.sum(), width, mode="wrap")

    return refit


def mean_image(histogram, rng):
    """The coarsest model. No refit differs from another, so that all of the error is bias."""
    return np.full(histogram.shape, 1 / histogram.size)


def tiling(shape=SHAPE, n_averages=2):
    length = np.array(shape, dtype=float)
    one = np.ones(len(shape))
    domain = Domain(0 * length, length, one, one, np.ones(len(shape), dtype=bool))
    return refit_of_cells(
        domain, None, n_averages, None, lambda cells: pixel_masses(cells, shape, None)
    )


def drawn(truth, n_counts, seed):
    rng = np.random.RandomState(seed)
    return rng.multinomial(n_counts, truth.ravel()).reshape(truth.shape).astype(float)


def fitted(truth, n_counts, refit, seed):
    """Standard deviations, and errors."""
    histogram = drawn(truth, n_counts, seed)
    rng = np.random.RandomState(seed)
    masses = refit(histogram, rng)
    return std_of_masses(histogram, masses, refit, rng), masses - truth


@pytest.mark.parametrize(
    ("width", "n_counts"), [(0.6, 20_000), (0.6, 1_000_000), (1.5, 20_000), (4.0, 200_000)]
)
def test_the_mean_square_is_that_of_the_error(width, n_counts):
    # The first two have nearly no bias, the last nearly no variance.
    pairs = [fitted(disc(), n_counts, smoother(width), seed) for seed in range(20)]
    variance = np.mean([std**2 for std, _ in pairs])
    truth = np.mean([error**2 for _, error in pairs])
    # The factor for heavy tails lowers the mean square by at most 1 / 1.3.
    assert 0.72 < variance / truth < 1.1


@pytest.mark.parametrize("n_counts", [20_000, 200_000])
@pytest.mark.parametrize("refit", [smoother(0.8), smoother(2.5), tiling(), mean_image])
def test_two_thirds_of_the_pixels_are_within_one_std(refit, n_counts):
    pairs = [fitted(texture(seed), n_counts, refit, seed) for seed in range(4)]
    z = np.array([error / std for std, error in pairs])
    assert 0.60 < np.mean(np.abs(z) < 1) < 0.76
    assert np.mean(np.abs(z) < 2) > 0.90


def test_bias_that_no_refit_shows_is_found():
    truth = disc()
    std, error = fitted(truth, 200_000, mean_image, 0)
    assert np.sqrt(np.mean(std**2)) == pytest.approx(np.sqrt(np.mean(error**2)), rel=0.1)
    # The disc is four times brighter than its surroundings. Its centre is far from the mean.
    assert std[14, 17] == pytest.approx(abs(error[14, 17]), rel=0.25)
    quiet = np.abs(error) < 0.3 * np.abs(error).max()
    assert std[quiet].mean() < 0.6 * std[~quiet].mean()


def test_a_constant_image():
    truth = np.full(SHAPE, 1 / 1024)
    # White noise of variance p / n, filtered: the variance is divided by 4 π width².
    exact = np.sqrt(truth / 50_000 / (4 * np.pi * 1.5**2))
    for seed in range(4):
        std, _ = fitted(truth, 50_000, smoother(1.5), seed)
        assert np.sqrt(np.mean(std**2)) == pytest.approx(exact[0, 0], rel=0.3)
        assert np.median(std) == pytest.approx(exact[0, 0], rel=0.5)
    # Large cells average nearly all noise.
    std, _ = fitted(truth, 50_000, tiling(n_averages=1), 0)
    assert (std > 0).all()
    assert std.max() < 2 * exact.max()


def test_pixels_without_counts_have_an_uncertainty():
    truth = np.zeros(SHAPE)
    truth[8:24, 8:24] = 1 / 256
    for refit in (tiling(), smoother(1.0), mean_image):
        std, error = fitted(truth, 3_000, refit, 0)
        assert np.isfinite(std).all()
        assert (std > 0).all()
        assert std[:4, :4].max() < np.abs(error).max()


def test_the_generator_determines_the_result():
    truth = disc()
    histogram = drawn(truth, 10_000, 0)
    refit = tiling()
    masses = refit(histogram, np.random.RandomState(1))
    results = [
        std_of_masses(histogram, masses, refit, np.random.RandomState(seed)) for seed in (2, 2, 3)
    ]
    np.testing.assert_array_equal(results[0], results[1])
    assert not np.array_equal(results[0], results[2])


def test_more_counts_give_smaller_deviations():
    truth = np.full(SHAPE, 1 / 1024)
    few, many = (fitted(truth, n, smoother(0.6), 0)[0] for n in (10_000, 1_000_000))
    assert many.mean() == pytest.approx(few.mean() / 10, rel=0.2)


@pytest.mark.parametrize("shape", [(1,), (2,), (64,), (1, 40), (8, 9, 10), (3, 4, 2, 5)])
def test_every_number_of_axes(shape):
    truth = np.full(shape, 1 / np.prod(shape))
    std, _ = fitted(truth, 5_000, smoother(0.7), 0)
    assert std.shape == shape
    assert np.isfinite(std).all()
    assert (std > 0).all()
    assert std.max() < 3 * np.sqrt(truth.max() / 5_000)


@pytest.mark.parametrize("total", [1.0, 1234.56, 1e12, 1e30])
def test_weights_with_any_sum(total):
    histogram = total * disc()
    masses = smoother(2.0)(histogram, None)
    std = std_of_masses(histogram, masses, smoother(2.0), np.random.RandomState(0))
    assert np.isfinite(std).all()
    assert (std > 0).all()
    if total >= 1e12:  # there is no noise, and the histogram is the truth
        error = masses - disc()
        assert np.sqrt(np.mean(std**2)) == pytest.approx(np.sqrt(np.mean(error**2)), rel=0.2)


@pytest.mark.parametrize(("mean", "bias"), [(0.3, 0.5), (2.0, 0.0), (7.5, 3.0)])
def test_moments_of_the_estimate_of_a_squared_error(mean, bias):
    h = np.arange(200)
    p = poisson.pmf(h, mean)
    estimate = (h - mean + bias) ** 2 - h
    assert p @ estimate == pytest.approx(bias**2)
    variance = p @ estimate**2 - (p @ estimate) ** 2
    assert noise_variance(np.array(mean), np.array(bias**2)) == pytest.approx(variance)


def test_the_regression_finds_the_law_of_errors():
    expected = 500 * (1 + disc() / disc().max())
    variance = gaussian_filter(np.random.RandomState(0).gamma(2, 20, SHAPE), 1)
    features = features_of(expected, variance)
    truth = 2 * variance + 1e-3 * expected**2
    rng = np.random.RandomState(1)
    noisy = truth + 30 * rng.randn(*SHAPE)
    found = regressed(noisy, expected, features, np.full(SHAPE, 1e-9))
    np.testing.assert_allclose(found, truth, rtol=0.15)


def test_features_of_an_edge():
    expected = np.where(np.arange(40) < 20, 1.0, 5.0) * np.ones((30, 1))
    slope = features_of(expected, np.ones_like(expected))[3]
    # A step of 4 between the pixels 19 and 20, smoothed, is 4 times a normal distribution function.
    step = 4 * norm.cdf(np.arange(40) - 19.5)
    np.testing.assert_allclose(slope[15], np.gradient(step) ** 2, atol=0.1)
    assert slope[15, :10].max() < 1e-9


def test_corrections_find_a_region_but_no_noise():
    rng = np.random.RandomState(0)
    shape = (64, 64)
    expected, error = np.full(shape, 20.0), np.full(shape, 40.0)
    noise = np.sqrt(noise_variance(expected, error))
    squared = error + noise * rng.randn(*shape)
    same, unresolved = corrected(squared, expected, error)
    np.testing.assert_allclose(same, error, rtol=0.25)
    assert unresolved.max() < 0.1
    truth = error.copy()
    truth[:, :32] *= 4
    squared = truth + noise * rng.randn(*shape)
    found, _ = corrected(squared, expected, error)
    assert found[:, 8:24].mean() == pytest.approx(160, rel=0.2)
    assert found[:, 40:56].mean() == pytest.approx(40, rel=0.25)
