"""Weighted means that come block by block, against NumPy's average of all draws at once."""

import numpy as np
import pytest
import torch
from scipy import special

from helpers import normal
from skae._inference.weighted_means import WeightedMeans

CPU = torch.device("cpu")


def mean_of(log_weight, values, n_blocks=1):
    found = WeightedMeans(*values.shape[::2], CPU)
    for weights, some in zip(log_weight.chunk(n_blocks, 1), values.chunk(n_blocks, 1), strict=True):
        found.add(weights, some)
    return found.mean


@pytest.mark.parametrize("n_blocks", [1, 3, 12])
@pytest.mark.parametrize("scale", [0.0, 1.0, 30.0])
def test_the_mean_is_that_of_all_draws_at_once(scale, n_blocks):
    """However the draws are cut, and also where one draw has all the weight."""
    log_weight, values = scale * normal(20, 12), normal(20, 12, 3, seed=1)
    found = mean_of(log_weight, values, n_blocks)
    weight = special.softmax(log_weight.double().numpy(), axis=1)[..., None]
    np.testing.assert_allclose(found, (weight * values.numpy()).sum(1), rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("shift", [-1e4, 1e4])
def test_weights_may_be_of_any_size(shift):
    """Only their ratios count, which no exponential overflows; also where they rise with blocks."""
    log_weight = torch.tensor([[0.0, 1.0, 2.0, 3.0]]) + shift
    values = normal(1, 4, 2)
    expected = np.average(values[0], axis=0, weights=np.exp([0.0, 1.0, 2.0, 3.0]))
    for n_blocks in (1, 2, 4):
        np.testing.assert_allclose(mean_of(log_weight, values, n_blocks)[0], expected, rtol=1e-3)


def test_later_blocks_that_weigh_vastly_more_or_less_take_over_or_change_nothing():
    values = torch.tensor([[[1.0], [2.0]]])
    rising = mean_of(torch.tensor([[-500.0, 500.0]]), values, 2)
    falling = mean_of(torch.tensor([[500.0, -500.0]]), values, 2)
    assert rising.item() == 2.0
    assert falling.item() == 1.0


@pytest.mark.parametrize("n_blocks", [1, 4])
def test_draws_without_weight_do_not_count(n_blocks):
    """As of labels that are never seen, whose log frequency is minus infinity."""
    log_weight = torch.tensor([[-torch.inf, 0.0, -torch.inf, 0.0]])
    values = torch.tensor([[[7.0], [1.0], [9.0], [3.0]]])
    assert mean_of(log_weight, values, n_blocks).item() == 2.0


def test_rows_do_not_weigh_on_each_other():
    log_weight, values = 5 * normal(6, 9), normal(6, 9, 2, seed=1)
    whole = mean_of(log_weight, values, 3)
    for i in range(6):
        row = slice(i, i + 1)
        np.testing.assert_allclose(whole[row], mean_of(log_weight[row], values[row], 3), rtol=1e-6)
