#!/usr/bin/env bash
# torch 2.13.0: second derivatives through a Function whose backward is @once_differentiable lack
# its part, mostly without an error, also with strict=True.
#
# A good engineer's guess: as torch's notes on custom functions say, such a double backward produces
# an error, so that whatever torch returns is right.
# What happens: the error is raised by a node that a traversal reaches only if it follows all paths,
# and the node exists only if the gradient that enters the function depends on something. So
# backward() of square(x) * x raises, but torch.autograd.grad and hessian follow only the paths to
# x and return the rest of the derivative, and for square(x) + x * x backward() does as well. The
# functions of torch.autograd.functional put 0 for what is missing; strict=True finds only results
# of which every part is missing.
set -euo pipefail
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
python3 -m venv "$folder/venv"
"$folder/venv/bin/pip" install -q torch==2.13.0
"$folder/venv/bin/pip" install -q numpy==2.4.6
"$folder/venv/bin/python" - <<'PY'
import platform

import torch
from torch.autograd import Function, grad
from torch.autograd.function import once_differentiable
from torch.autograd.functional import hessian, hvp, jvp

print("Python", platform.python_version(), "torch", torch.__version__)


class Square(Function):
    @staticmethod
    def forward(ctx, x):
        ctx.save_for_backward(x)
        return x**2

    @staticmethod
    @once_differentiable
    def backward(ctx, gradient):
        (x,) = ctx.saved_tensors
        return 2 * x * gradient


def by_backward(f):
    x = start.clone().requires_grad_()
    grad(f(x).sum(), x, create_graph=True)[0].sum().backward()
    return x.grad


def by_grad(f):
    x = start.clone().requires_grad_()
    return grad(grad(f(x).sum(), x, create_graph=True)[0].sum(), x)[0]


def by_hessian(f):
    return hessian(lambda x: f(x).sum(), start, strict=True).sum(0)


def by_hvp(f):
    return hvp(lambda x: f(x).sum(), start, torch.ones(2))[1]


def by_jvp(f):  # the first derivative, which torch computes by differentiating twice
    return jvp(f, start, torch.ones(2), strict=True)[1]


def result(way, f):
    try:
        return way(f).tolist()
    except RuntimeError as error:
        assert "trying to differentiate twice" in str(error), error
        return "error"


start = torch.tensor([1.0, 2.0])
square = Square.apply
cases = {
    "square(x) * x": (lambda x: square(x) * x, lambda x: x**2 * x),
    "square(x) + x * x": (lambda x: square(x) + x * x, lambda x: x**2 + x * x),
}
found = {}
for name, (f, plain) in cases.items():
    for way in (by_backward, by_grad, by_hessian, by_hvp, by_jvp):
        found[name, way.__name__] = result(way, f), result(way, plain)
        print(f"{name:18} {way.__name__:12} {found[name, way.__name__][0]!s:12} true:",
              found[name, way.__name__][1])
assert found == {
    ("square(x) * x", "by_backward"): ("error", [6.0, 12.0]),
    ("square(x) * x", "by_grad"): ([2.0, 4.0], [6.0, 12.0]),
    ("square(x) * x", "by_hessian"): ([2.0, 4.0], [6.0, 12.0]),
    ("square(x) * x", "by_hvp"): ([0.0, 0.0], [6.0, 12.0]),
    ("square(x) * x", "by_jvp"): ([1.0, 4.0], [3.0, 12.0]),
    ("square(x) + x * x", "by_backward"): ([2.0, 2.0], [4.0, 4.0]),
    ("square(x) + x * x", "by_grad"): ([2.0, 2.0], [4.0, 4.0]),
    ("square(x) + x * x", "by_hessian"): ([2.0, 2.0], [4.0, 4.0]),
    ("square(x) + x * x", "by_hvp"): ([2.0, 2.0], [4.0, 4.0]),
    ("square(x) + x * x", "by_jvp"): ([2.0, 4.0], [4.0, 8.0]),
}
print("as described")
PY
