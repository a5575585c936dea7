"""The gated causal convolution by its sum, and its gradient by differences."""

import pytest
import torch
from torch.autograd import gradcheck

import skae._nn.gated_convolution as module
from helpers import normal64
from skae._nn.gated_convolution import gated_convolution

# Distances, some beyond the five positions.
PASTS = [[1, 0], [4, 0], [5, 0], [2, 1, 0], [6, 3, 0], [0]]
every_past = pytest.mark.parametrize("past", PASTS, ids=str)
both_ways = pytest.mark.parametrize("in_place", [True, False])


def arguments(past, n=2, n_read=3, n_channels=4):
    read = normal64(5, n, n_read)
    weight = normal64(2 * n_channels, len(past) * n_read, seed=1)
    return read, weight, normal64(2 * n_channels, seed=2)


def by_the_sum(read, weight, bias, past):
    """Position by position, and distance by distance."""
    n_read = read.shape[2]
    positions = []
    for t in range(len(read)):
        total = bias
        for i, d in enumerate(past):
            if d <= t:
                total = total + read[t - d] @ weight[:, i * n_read : (i + 1) * n_read].T
        a, b = total.chunk(2, -1)
        positions.append(a / (1 + torch.exp(-b)))
    return torch.stack(positions)


@every_past
@both_ways
def test_sum_of_shifted_products(past, in_place, monkeypatch):
    monkeypatch.setattr(module, "_in_place", lambda read: in_place)
    given = arguments(past)
    found = gated_convolution(*given, past)
    torch.testing.assert_close(found, by_the_sum(*given, past), rtol=1e-12, atol=1e-12)


@every_past
def test_gradient_is_that_of_the_function(past):
    """By differences; all of it, and of each argument where the others are held."""
    given = arguments(past)
    for wanted in ({0, 1, 2}, {0}, {1}, {2}):
        tensors = [t.clone().requires_grad_(i in wanted) for i, t in enumerate(given)]
        assert gradcheck(lambda *t: gated_convolution(*t, past), tensors)


def test_rows_may_lie_anyhow():
    """Also where positions do not come first in memory."""
    read, weight, bias = arguments([2, 0])
    apart = read.transpose(0, 1).contiguous().transpose(0, 1).requires_grad_()
    together = read.clone().requires_grad_()
    for t in (apart, together):
        gated_convolution(t, weight, bias, [2, 0]).square().sum().backward()
    torch.testing.assert_close(apart.grad, together.grad, rtol=1e-12, atol=1e-12)


def test_bfloat16_goes_another_way():
    """Where types are chosen by operation, gradients are as rounded as values."""
    given = [t.float().requires_grad_() for t in arguments([1, 0])]
    exact = gated_convolution(*given, [1, 0])
    with torch.autocast("cpu", dtype=torch.bfloat16):
        rounded = gated_convolution(*given, [1, 0])
    assert rounded.dtype is torch.bfloat16
    torch.testing.assert_close(rounded.float(), exact, rtol=0.05, atol=0.05)
    rounded.float().sum().backward()
    assert all(torch.isfinite(t.grad).all() for t in given)
