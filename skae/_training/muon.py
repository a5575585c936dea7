"""Muon, the optimiser of matrices by orthogonalised momentum.

References
----------
K. Jordan, Y. Jin, V. Boza, J. You, F. Cesista, L. Newhouse and J. Bernstein (2024). Muon: an
optimizer for hidden layers in neural networks. https://kellerjordan.github.io/posts/muon

J. Liu et al. (2025). Muon is scalable for LLM training. :doi:`10.48550/arXiv.2502.16982`
"""

from collections.abc import Iterable
from math import sqrt
from typing import Any

import torch
from torch import Tensor, nn

# Coefficients and number of the iterations, and momentum, as in the first reference.
_A, _B, _C = 3.4445, -4.7750, 2.0315
_ITERATIONS = 5
_MOMENTUM = 0.95
# A step has the root mean square of a step of AdamW, 0.2, as in the second reference.
_RMS = 0.2
_TINY = 1e-7


class Muon(torch.optim.Optimizer):
    """Muon with Nesterov momentum and decoupled weight decay.

    The steps are those of `torch.optim.Muon` with `adjust_lr_fn="match_rms_adamw"`, which always
    orthogonalises in bfloat16. CPUs without instructions for bfloat16 take more than
    ten times as long for that as in float32 (torch 2.13), so that this class uses float32 on CPUs.

    Parameters
    ----------
    matrices : iterable of nn.Parameter
        Weights of shape (n_out, n_in).
    lr : float
        Learning rate.
    weight_decay : float, default=0.0
        Decoupled weight decay.
    """

    def __init__(
        self, matrices: Iterable[nn.Parameter], *, lr: float, weight_decay: float = 0.0
    ) -> None:
        super().__init__(matrices, {"lr": lr, "weight_decay": weight_decay})

    @torch.no_grad()
    def step(self, closure: Any = None) -> Any:
        """Take a step, after evaluating the closure if there is one."""
        loss = None
        if closure is not None:
            with torch.enable_grad():
                loss = closure()
        for group in self.param_groups:
            for weight in group["params"]:
                if weight.grad is not None:
                    self._step(weight, weight.grad, group["lr"], group["weight_decay"])
        return loss

    def _step(self, weight: Tensor, gradient: Tensor, rate: float, decay: float) -> None:
        state = self.state[weight]
        if not state:
            state["momentum_buffer"] = torch.zeros_like(gradient)
        velocity = state["momentum_buffer"]
        velocity.lerp_(gradient, 1 - _MOMENTUM)
        step = orthogonalised(gradient.lerp(velocity, _MOMENTUM))
        weight.mul_(1 - rate * decay)
        weight.add_(step.to(weight.dtype), alpha=-rate * _RMS * sqrt(max(weight.shape)))


def orthogonalised(matrix: Tensor) -> Tensor:
    """Return U S' V' for the matrix U S V', where S' has values from 0.7 to 1.2.

    Very small singular values, in comparison with the largest, stay smaller.
    """
    on_cpu = matrix.device.type == "cpu"
    x = matrix if on_cpu else matrix.bfloat16()
    is_tall = x.shape[0] > x.shape[1]
    x = x.T if is_tall else x
    x = x / x.norm().clamp(min=_TINY)
    for _ in range(_ITERATIONS):
        square = x @ x.T
        x = torch.addmm(x, torch.addmm(square, square, square, beta=_B, alpha=_C), x, beta=_A)
    return x.T if is_tall else x
