"""The mean over partitions against an explicit list of all partitions."""

from itertools import product

import numpy as np
import pytest
from scipy.special import betaln, logsumexp

from skae._pixels import partitions
from skae._pixels.edge_patterns import pattern_leaves, patterns
from skae._pixels.partitions import PartitionPrior, best_prior, halves, partition_mean

PRIOR = PartitionPrior(split=0.6, concentration=1.5)


def all_partitions(box, depths, counts, exposure, prior):
    """Every partition of a box: log probability with the counts, and the shares of its leaves."""
    n, volume = counts[box].sum(), exposure[box].sum()
    log_leaf = -n * np.log(volume) if n else 0.0
    axes = [a for a, depth in enumerate(depths) if depth]
    stop = np.log(1 - prior.split) if axes else 0.0
    yield stop + log_leaf, [(box, 1.0)]
    for axis in axes:
        start, end = box[axis].start, box[axis].stop
        middle = (start + end) // 2
        parts = [
            tuple(part if a == axis else s for a, s in enumerate(box))
            for part in (slice(start, middle), slice(middle, end))
        ]
        below = tuple(d - (a == axis) for a, d in enumerate(depths))
        lefts, rights = (
            list(all_partitions(part, below, counts, exposure, prior)) for part in parts
        )
        volumes = [exposure[part].sum() for part in parts]
        ns = [counts[part].sum() for part in parts]
        here = np.log(prior.split / len(axes))
        if min(volumes) > 0:
            a, b = (2 * prior.concentration * v / sum(volumes) for v in volumes)
            here += betaln(ns[0] + a, ns[1] + b) - betaln(a, b)
            share = (ns[0] + a) / (n + a + b)
        else:
            share = float(volumes[0] > 0)
        for (left, of_left), (right, of_right) in product(lefts, rights):
            leaves = [(leaf, share * s) for leaf, s in of_left]
            leaves += [(leaf, (1 - share) * s) for leaf, s in of_right]
            yield here + left + right, leaves


def enumerated(counts, exposure, prior):
    depths = tuple(int(np.ceil(np.log2(n))) for n in counts.shape)
    whole = tuple(slice(0, n) for n in counts.shape)
    found = list(all_partitions(whole, depths, counts, exposure, prior))
    evidence = logsumexp([nats for nats, _ in found])
    flux = np.zeros(counts.shape)
    for nats, leaves in found:
        for leaf, share in leaves:
            if exposure[leaf].sum() > 0:
                flux[leaf] += np.exp(nats - evidence) * share / exposure[leaf].sum()
    return flux, evidence


EXPOSURES = {
    "even": lambda shape: np.ones(shape),
    "uneven": lambda shape: np.random.default_rng(1).uniform(0.3, 1, shape),
}


@pytest.mark.parametrize("shape", [(4,), (8,), (1, 4), (2, 2), (4, 2), (2, 2, 2)])
@pytest.mark.parametrize("exposure", EXPOSURES.values(), ids=EXPOSURES)
def test_the_mean_is_over_all_partitions(shape, exposure):
    counts = np.random.default_rng(0).poisson(2.0, shape).astype(float)
    exposure = exposure(shape)
    zero = (0,) * len(shape)
    flux, evidence = partition_mean(counts, exposure, PRIOR, zero)
    expected, log_evidence = enumerated(counts, exposure, PRIOR)
    np.testing.assert_allclose(flux, expected, rtol=1e-10)
    assert evidence == pytest.approx(log_evidence, rel=1e-10)
    assert (flux * exposure).sum() == pytest.approx(1, rel=1e-12)


def test_a_shifted_grid_is_that_of_an_image_with_a_margin():
    counts = np.array([3.0, 1, 0, 5, 2])
    padded = np.pad(counts, (3, 0))
    exposure = np.pad(np.ones(5), (3, 0))
    flux, evidence = partition_mean(counts, np.ones(5), PRIOR, (3,))
    expected, log_evidence = enumerated(padded, exposure, PRIOR)
    np.testing.assert_allclose(flux, expected[3:], rtol=1e-10)
    assert evidence == pytest.approx(log_evidence)


def test_a_dead_pixel_has_the_intensity_of_the_smallest_box_around_it():
    """Of the pixels 0 and 1 together, or of the whole image, in proportion to the partitions."""
    counts, exposure = np.array([6.0, 0, 1, 1]), np.array([1.0, 0, 1, 1])
    flux, _ = partition_mean(counts, exposure, PRIOR, (0,))
    assert (flux * exposure).sum() == pytest.approx(1)
    # A division of the pixels 0 and 1 leaves the same intensity on both.
    assert flux[1] == pytest.approx(flux[0])


def test_a_large_image_is_divided_into_blocks(monkeypatch):
    counts = np.random.default_rng(0).poisson(4.0, (16, 12)).astype(float)
    exposure = np.ones(counts.shape)
    monkeypatch.setattr(partitions, "_MOST_PIXELS", 100)
    flux, _ = partition_mean(counts, exposure, PRIOR, (0, 0))
    assert flux.sum() == pytest.approx(1)
    monkeypatch.undo()
    whole, _ = partition_mean(counts, exposure, PRIOR, (0, 0))
    assert abs(flux - whole).sum() < 0.1


def test_largest_boxes_share_the_counts(monkeypatch):
    counts = np.zeros(1024)
    counts[:300] = 40.0
    flux, _ = partition_mean(counts, np.ones(1024), PRIOR, (0,))
    monkeypatch.setattr(partitions, "_LEAST_DEPTH", 10)
    whole, _ = partition_mean(counts, np.ones(1024), PRIOR, (0,))
    assert flux.sum() == pytest.approx(1)
    np.testing.assert_allclose(flux[:300], whole[:300], rtol=0.01)


def test_the_prior_suits_the_image():
    rng = np.random.default_rng(0)
    flat = rng.poisson(20.0, (64, 64)).astype(float)
    rough = rng.poisson(20 * rng.gamma(2, 0.5, (64, 64))).astype(float)
    ones = np.ones((64, 64))
    assert best_prior(flat, ones).concentration > best_prior(rough, ones).concentration
    assert best_prior(np.zeros((4, 4)), np.ones((4, 4))).split == 0.7


def test_halves_of_an_odd_length():
    left, right = halves(np.array([[1.0, 2, 3]]), 1)
    np.testing.assert_array_equal(left, [[1, 3]])
    np.testing.assert_array_equal(right, [[2, 0]])


@pytest.mark.parametrize("even", [True, False])
def test_patterns_against_their_likelihoods(even):
    rng = np.random.default_rng(0)
    side = 8
    shape = (16, 11)  # the last squares are only in part within the image
    exposure = np.ones(shape) if even else rng.uniform(0.2, 1, shape)
    counts = rng.poisson(3 * exposure).astype(float)
    found = pattern_leaves(counts, exposure, side)
    every = patterns(side).reshape(-1, side, side)
    np.testing.assert_allclose(every.mean(axis=(1, 2)), 1)
    level = rng.uniform(1, 2, found.log_gain.shape)
    image = found.spread(level, shape)
    for i, j in np.ndindex(found.log_gain.shape):
        square = (slice(side * i, side * i + side), slice(side * j, side * j + side))
        n, e = counts[square], exposure[square]
        templates = every[:, : n.shape[0], : n.shape[1]]
        templates = templates / ((templates * e).sum(axis=(1, 2)) / e.sum())[:, None, None]
        nats = (n * np.log(templates)).sum(axis=(1, 2))
        gain = logsumexp(nats) - np.log(len(nats))
        together = np.logaddexp(np.log(0.5), np.log(0.5) + gain)
        assert found.log_gain[i, j] == pytest.approx(together, abs=1e-3)
        weight = np.exp(nats - logsumexp(nats))
        share = np.exp(np.log(0.5) + gain - together)
        mean = 1 - share + share * np.tensordot(weight, templates, axes=1)
        np.testing.assert_allclose(image[square], level[i, j] * mean, rtol=1e-3)
