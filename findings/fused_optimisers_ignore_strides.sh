#!/usr/bin/env bash
# torch 2.13.0: fused optimisers on CPUs pair weights with gradients by their place in memory, so
# that a gradient with other strides, such as a transposed one, moves the wrong weights.
#
# A good engineer's guess: `fused=True` is faster, and takes the same steps: a gradient of the same
# shape is of the same weights, however it lies in memory, as with `fused=False` and
# `foreach=True`; or else it is refused.
# What happens: the step is as if the gradient's memory, read in order, lay in the order of the
# weights. Adam, AdamW and SGD do so without an error or a warning. Autograd gives gradients the
# strides of their weights, so that `loss.backward()` never shows it; gradients that are assigned,
# as those of torch.func.grad, keep the strides that they were computed with.
set -euo pipefail
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
python3 -m venv "$folder/venv"
"$folder/venv/bin/pip" install -q torch==2.13.0
"$folder/venv/bin/pip" install -q numpy==2.4.6
"$folder/venv/bin/python" - <<'PY'
import platform

import torch

print("Python", platform.python_version(), "torch", torch.__version__)
# The gradient of sum(W x) * coefficients with respect to W, as torch.func computes it.
weights = torch.zeros(2, 3)
values = torch.tensor([[1.0, 2.0], [3.0, 4.0], [5.0, 6.0]])
gradient = torch.func.grad(lambda w: (w.T * values).sum())(weights)
print("gradient", gradient.tolist(), "strides", gradient.stride(), "of weights", weights.stride())


def step(solver, given, **options):
    parameter = torch.nn.Parameter(weights.clone())
    parameter.grad = given
    solver([parameter], lr=1.0, **options).step()
    return parameter.detach()


for solver in (torch.optim.SGD, torch.optim.Adam, torch.optim.AdamW):
    # Of a start at zero the first step of Adam tells signs only: these differ in some places.
    signed = gradient - 3.5
    plain = step(solver, signed, foreach=False)
    assert torch.equal(step(solver, signed, foreach=True), plain)
    assert torch.allclose(step(solver, signed.contiguous(), fused=True), plain, atol=1e-4)
    fused = step(solver, signed, fused=True)
    in_memory = signed.T.contiguous().view(2, 3)  # the gradient's memory, read in order
    assert torch.allclose(fused, step(solver, in_memory, foreach=False), atol=1e-4)
    assert not torch.allclose(fused, plain, atol=1e-1)
    print(f"{solver.__name__:6} fused=False {plain.tolist()} fused=True {fused.tolist()}")
print("as described")
PY
