"""Groups of similar patches, and the choice and the pooling of estimates."""

import numpy as np
import pytest
from scipy.ndimage import gaussian_filter

from skae._pixels import similar_patches
from skae._pixels.similar_patches import (
    posterior_means,
    restored_by_patches,
    similar_groups,
)
from skae._pixels.smoothing import (
    Smoothing,
    chosen_smoothing,
    estimated_intensity,
    held_out_of,
    origins,
    pooling_weights,
    scale_is_suitable,
)


def picture(side=48):
    """Stripes, an edge and a slope: 1 to 8."""
    i, j = np.indices((side, side)) / side
    return 1 + 3 * (i > 0.5) + 2 * j + 1.5 * (np.sin(40 * j) > 0) * (i < 0.5)


def drawn(image, n, seed=0):
    share = image / image.sum()
    return np.random.RandomState(seed).multinomial(n, share.ravel()).reshape(image.shape) * 1.0


def test_patches_of_pure_noise_get_the_mean_of_their_group():
    rng = np.random.default_rng(0)
    mean = rng.uniform(1, 5, 16)
    patches = rng.poisson(mean, (400, 16)).astype(float)
    restored, weight = posterior_means(patches, mean)
    np.testing.assert_allclose(restored, np.broadcast_to(patches.mean(axis=0), restored.shape))
    assert weight == 1


def test_a_group_has_the_posterior_mean_of_its_covariance():
    """One direction of a large variance, of a known size: the linear estimate of least error."""
    rng = np.random.default_rng(0)
    mean, direction = np.full(16, 50.0), np.sign(rng.standard_normal(16)) / 4
    scores = 30 * rng.standard_normal(5000)
    patches = mean + scores[:, None] * direction + np.sqrt(50) * rng.standard_normal((5000, 16))
    restored, _ = posterior_means(patches, mean)
    kept = 30**2 / (30**2 + 50)
    expected = mean + kept * ((patches - mean) @ direction)[:, None] * direction
    assert abs(restored - expected).max() < 0.1 * 30


def test_similar_rows_are_grouped():
    rng = np.random.default_rng(0)
    features = np.concatenate([rng.normal(0, 0.1, (100, 3)), rng.normal(5, 0.1, (100, 3))])
    groups = similar_groups(features, 60)
    assert sorted(np.concatenate(groups)) == list(range(200))
    assert sorted({tuple(np.unique(group >= 100)) for group in groups}) == [(False,), (True,)]
    assert all(60 <= len(group) < 120 for group in groups)


@pytest.mark.parametrize("n_pixels", [1, 2, 4])
def test_patches_improve_a_first_estimate(n_pixels):
    image = picture(70)[:, :61]
    counts = drawn(image, 40_000)
    expected = counts.sum() * image / image.sum()
    first = gaussian_filter(counts, 2.0, mode="reflect")
    found = restored_by_patches(counts, first, n_pixels, None)
    assert found.shape == counts.shape
    assert found.sum() == pytest.approx(counts.sum(), rel=0.02)
    assert ((found - expected) ** 2).mean() < 0.8 * ((first - expected) ** 2).mean()


def test_parts_of_an_image_fit_together(monkeypatch):
    image = picture(64)
    counts = drawn(image, 60_000)
    first = gaussian_filter(counts, 1.5)
    whole = restored_by_patches(counts, first, 1, None)
    monkeypatch.setattr(similar_patches, "_PART", 32)
    parts = restored_by_patches(counts, first, 1, 2)
    assert abs(parts - whole).mean() < 0.05 * whole.mean()


def test_weights_of_a_pool_are_optimal():
    """At the maximum, the mean of p_k / p is 1 for all weights that are not zero."""
    rng = np.random.default_rng(0)
    densities = rng.dirichlet(np.ones(200), 3)
    densities[2] = 0.5 * densities[0] + 0.5 * densities[1]
    densities[2] *= rng.uniform(0.5, 1.5, 200)
    shares = 0.7 * densities[0] + 0.3 * densities[1]
    shares /= shares.sum()
    weights = pooling_weights(densities, shares)
    slopes = densities @ (shares / (weights @ densities))
    np.testing.assert_allclose(slopes[weights > 0], 1, atol=1e-4)
    assert (slopes < 1 + 1e-3).all()
    assert weights.sum() == pytest.approx(1)


def test_every_tenth_count_is_held_out():
    rng = np.random.RandomState(0)
    weight = np.r_[np.ones(20_000), np.full(100, 1000.0), np.full(20_000, 0.5), 1e60]
    held = held_out_of(weight, rng)
    assert ((held >= 0) & (held <= weight)).all()
    assert held[:20_000].sum() == pytest.approx(2000, rel=0.1)
    assert held[20_000:20_100].sum() == pytest.approx(10_000, rel=0.05)
    assert held[20_100:-1].sum() == pytest.approx(1000, rel=0.1)
    assert held[-1] == pytest.approx(1e59, rel=1e-3)


def test_origins_fill_the_grid_evenly():
    places = np.array(origins((512, 512), 32, 0.5))
    assert places.min() >= 0
    assert places.max() < 64
    quarters = np.histogram2d(*places.T, bins=2, range=[[0, 64]] * 2)[0]
    assert (quarters >= 6).all()
    assert origins((1, 3), 4, 0.5)[0] == (0, 0)


def test_estimates_are_chosen_by_held_out_counts():
    image = picture()
    counts, test = drawn(image, 100_000), drawn(image, 20_000, seed=1)
    ones = np.ones_like(counts)
    smoothing, nats, log_density = chosen_smoothing(counts, test, ones, 8, None)
    assert (test * log_density).sum() / test.sum() == pytest.approx(nats)
    assert np.exp(log_density).sum() == pytest.approx(1)
    assert sum(smoothing.weights) == pytest.approx(1)
    density = estimated_intensity(counts, ones, smoothing, 8, None)
    assert density.sum() == pytest.approx(1)
    share = test / test.sum()
    assert (share * np.log(density)).sum() == pytest.approx(nats, abs=1e-6)
    kernels = [gaussian_filter(counts, width) for width in (0.7, 1, 1.5, 2, 3)]
    best = max((share * np.log(k / k.sum())).sum() for k in kernels)
    assert nats > best
    alone = estimated_intensity(counts, ones, Smoothing(smoothing.prior), 8, None)
    assert nats >= (share * np.log(alone)).sum() - 1e-9


def test_patches_need_two_dimensions_and_the_same_exposure():
    assert scale_is_suitable(np.ones((40, 32)), np.ones((40, 32)), 2)
    assert not scale_is_suitable(np.ones((40, 31)), np.ones((40, 31)), 2)
    assert not scale_is_suitable(np.ones(400), np.ones(400), 1)
    rare = np.full((64, 64), 0.1)
    assert not scale_is_suitable(rare, np.ones((64, 64)), 1)
    assert scale_is_suitable(rare, np.ones((64, 64)), 2)
    uneven = np.ones((40, 40))
    uneven[3, 3] = 0.5
    assert not scale_is_suitable(np.ones((40, 40)), uneven, 1)
