"""The noise of rows that did not train a network, by loops."""

import numpy as np
import pytest
import torch

from skae._nn.held_out_noise import HeldOutNoise
from skae._nn.likelihoods import Gaussian, Laplace
from skae._training.data import Batch

HELD_OUT = [3, 4, 11, 17, 18]


def rows_and_outputs(spread):
    """Of three features, 20 rows: those held out are farther from their outputs by a factor."""
    rng = np.random.default_rng(0)
    x = rng.normal(size=(20, 3)) * [0.5, 1.0, 2.0]
    x[HELD_OUT] *= spread
    return x, 0.1 * rng.normal(size=(20, 3))


def settled(likelihood, x, output, held_out, weight=None, seen=None):
    """The variance, of rows in two chunks."""

    def tensor(array, part):
        return None if array is None else torch.tensor(array[part], dtype=torch.float32)

    noise = HeldOutNoise(likelihood, 20, None if held_out is None else torch.tensor(held_out))
    for part in (slice(0, 12), slice(12, 20)):
        y = tensor(x, part)
        batch = Batch(y, y, weight=tensor(weight, part), seen=tensor(seen, part))
        noise.add(part, batch, tensor(output, part))
    noise.settle()
    return likelihood.variance.double().numpy()


def weighted_means(deviation, weight, seen, of):
    """Mean deviations of features over some rows, and their weights, value by value."""
    total, n = np.zeros(3), np.zeros(3)
    for row in of:
        for feature in range(3):
            w = (1.0 if weight is None else weight[row]) * (
                1.0 if seen is None else seen[row][feature]
            )
            total[feature] += w * deviation[row, feature]
            n[feature] += w
    return total / n, n


@pytest.mark.parametrize("weighted", [False, True])
@pytest.mark.parametrize("gaps", [False, True])
@pytest.mark.parametrize("kind", [Gaussian, Laplace])
def test_one_variance_is_that_of_held_out_rows(kind, gaps, weighted):
    x, output = rows_and_outputs(3.0)
    rng = np.random.default_rng(1)
    weight = rng.uniform(0.5, 2, 20) if weighted else None
    seen = (rng.random((20, 3)) < 0.7).astype(float) if gaps else None
    found = settled(kind(3, "scalar", 1.0), x, output, HELD_OUT, weight, seen)
    error = x - output
    deviation = error**2 if kind is Gaussian else np.abs(error)
    means, n = weighted_means(deviation, weight, seen, HELD_OUT)
    mean = (means * n).sum() / n.sum()
    expected = mean if kind is Gaussian else 2 * mean**2
    assert found == pytest.approx(expected, rel=1e-5)


@pytest.mark.parametrize("weighted", [False, True])
def test_the_variance_of_a_feature_is_drawn_to_the_ratio_of_all(weighted):
    """As if sixteen rows more had been held out, farther out by that ratio."""
    x, output = rows_and_outputs(3.0)
    weight = np.random.default_rng(1).uniform(0.5, 2, 20) if weighted else None
    found = settled(Gaussian(3, "per_feature", 1.0), x, output, HELD_OUT, weight)
    trained = [row for row in range(20) if row not in HELD_OUT]
    deviation = (x - output) ** 2
    d, _ = weighted_means(deviation, weight, None, trained)
    m, n = weighted_means(deviation, weight, None, HELD_OUT)
    ratio = (n * m).sum() / (n * d).sum()
    np.testing.assert_allclose(found, (16 * ratio * d + n * m) / (16 + n), rtol=1e-5)
    assert np.all(found > 2 * d)


@pytest.mark.parametrize("noise", ["scalar", "per_feature"])
def test_rows_that_were_not_learned_are_never_explained_better(noise):
    """By luck they may be: the noise is that of the training rows then."""
    x, output = rows_and_outputs(0.01)
    found = settled(Gaussian(3, noise, 1.0), x, output, HELD_OUT)
    trained = [row for row in range(20) if row not in HELD_OUT]
    d = ((x - output)[trained] ** 2).mean(0)
    np.testing.assert_allclose(found, d if noise == "per_feature" else d.mean(), rtol=1e-5)


def test_without_held_out_rows_all_count():
    x, output = rows_and_outputs(3.0)
    found = settled(Gaussian(3, "scalar", 1.0), x, output, None)
    assert found == pytest.approx(((x - output) ** 2).mean(), rel=1e-5)


def test_outputs_without_error_leave_the_noise_of_new_rows():
    """Whatever ratio there is to nothing."""
    x, output = rows_and_outputs(1.0)
    x[:, 0] = output[:, 0]
    x[HELD_OUT, 0] += 1.0
    found = settled(Gaussian(3, "per_feature", 1.0), x, output, HELD_OUT)
    assert found[0] == pytest.approx(5 / (16 + 5), rel=1e-4)
    assert np.isfinite(found).all()


def test_given_noise_stays():
    x, output = rows_and_outputs(3.0)
    assert settled(Gaussian(3, 0.7, 1.0), x, output, HELD_OUT) == pytest.approx(0.7)
