"""The gated causal convolution of a WaveNet block, with a fast gradient on CPUs.

References
----------
A. van den Oord et al. (2016). WaveNet: a generative model for raw audio.
:doi:`10.48550/arXiv.1609.03499`
"""

from typing import Any

import torch
from torch import Tensor
from torch.autograd.function import once_differentiable
from torch.nn.functional import glu, linear, pad

from skae._training.contexts import is_stacking


def gated_convolution(read: Tensor, weight: Tensor, bias: Tensor, past: list[int]) -> Tensor:
    """Return a sigmoid(b), with convolutions a and b of `read` at t - d for distances d in `past`.

    Parameters
    ----------
    read : Tensor of shape (n_positions, n, n_read)
        Inputs. Positions before the first count as zeros.
    weight : Tensor of shape (2 n_channels, len(past) * n_read)
        Weights of both convolutions, one block of columns for each distance.
    bias : Tensor of shape (2 n_channels,)
        Biases of both convolutions.
    past : list of int
        Distances in decreasing order; the last is 0.

    Returns
    -------
    Tensor of shape (n_positions, n, n_channels)
    """
    if _in_place(read):
        found: Tensor = _GatedConvolution.apply(read, weight, bias, past)
        return found
    *earlier, now = weight.chunk(len(past), 1)
    total = linear(read, now, bias)
    for d, tap in zip(past, earlier, strict=False):
        if d < len(read):
            total = total + pad(linear(read[:-d], tap), (0, 0, 0, 0, d, 0))
    return glu(total, -1)


def _in_place(read: Tensor) -> bool:
    """Return whether the CPU version is faster: GPUs and compilers avoid the copies themselves."""
    return (
        read.device.type == "cpu"
        and not torch.is_autocast_enabled("cpu")
        and not torch.compiler.is_compiling()
        and not is_stacking()
    )


class _GatedConvolution(torch.autograd.Function):
    """The gated convolution with shifted products that are added in place, in both passes.

    It needs no padded copies, and avoids the gradient of `glu`, which is slow (torch 2.13).
    """

    @staticmethod
    def forward(ctx: Any, read: Tensor, weight: Tensor, bias: Tensor, past: list[int]) -> Tensor:
        read = read.contiguous()
        *earlier, now = weight.chunk(len(past), 1)
        total = linear(read, now, bias)
        for d, tap in zip(past, earlier, strict=False):
            if d < len(read):
                _rows(total[d:]).addmm_(_rows(read[:-d]), tap.T)
        ctx.save_for_backward(read, weight, total)
        ctx.past = past
        return glu(total, -1)

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor | None, ...]:
        read, weight, total = ctx.saved_tensors
        a, b = total.chunk(2, -1)
        gate = b.sigmoid()
        grad_total, grad_weight = torch.empty_like(total), torch.zeros_like(weight)
        grad_a, grad_b = grad_total.chunk(2, -1)
        torch.mul(grad, gate, out=grad_a)
        torch.mul(grad_a, a, out=grad_b)
        grad_b.addcmul_(grad_b, gate, value=-1)  # the gradient of the gate is a gate (1 - gate)
        *earlier, now = weight.chunk(len(ctx.past), 1)
        *grad_earlier, grad_now = grad_weight.chunk(len(ctx.past), 1)
        grad_read = grad_total @ now
        grad_now.copy_(_rows(grad_total).T @ _rows(read))
        for d, tap, grad_tap in zip(ctx.past, earlier, grad_earlier, strict=False):
            if d < len(read):
                late, early = _rows(grad_total[d:]), _rows(read[:-d])
                _rows(grad_read[:-d]).addmm_(late, tap)
                grad_tap.copy_(late.T @ early)
        return grad_read, grad_weight, _rows(grad_total).sum(0), None


def _rows(t: Tensor) -> Tensor:
    """View all positions as rows of one matrix."""
    return t.view(-1, t.shape[-1])
