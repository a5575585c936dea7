#!/usr/bin/env bash
# torch 2.13.0: torch.optim.Muon computes the steps of float64 matrices in bfloat16.
#
# A good engineer's guess: an optimiser computes in the type of its parameters, as Adam and SGD do,
# so that a float64 matrix gets steps that are exact to about 1e-15.
# What happens: the orthogonalisation converts the momentum to bfloat16, whatever the type of the
# parameter and the device. The same five iterations in float64 give steps that differ by about two
# percent. On CPUs without instructions for bfloat16 it is also slow; times are not part of this.
set -euo pipefail
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
python3 -m venv "$folder/venv"
"$folder/venv/bin/pip" install -q torch==2.13.0
"$folder/venv/bin/pip" install -q numpy==2.4.6
"$folder/venv/bin/python" - <<'PY'
import platform

import torch

print("Python", platform.python_version(), "torch", torch.__version__.split("+")[0])
generator = torch.Generator().manual_seed(0)
gradient = torch.randn(6, 4, generator=generator, dtype=torch.float64)
weight = torch.nn.Parameter(torch.zeros(6, 4, dtype=torch.float64))
weight.grad = gradient
torch.optim.Muon([weight], lr=1.0, weight_decay=0.0, adjust_lr_fn="match_rms_adamw").step()
step = -weight.detach()
U, values, V = torch.linalg.svd(gradient, full_matrices=False)
values = values / values.norm()
for _ in range(5):
    values = 3.4445 * values - 4.7750 * values**3 + 2.0315 * values**5
exact = 0.2 * 6**0.5 * (U * values) @ V
error = float((step - exact).norm() / exact.norm())
scale = 0.2 * 6**0.5
is_rounded = torch.allclose((step / scale).bfloat16().double() * scale, step)
print(f"relative difference from float64: {error:.4f}; all values of 8 bits: {is_rounded}")
assert step.dtype == torch.float64
assert 1e-3 < error < 0.1
assert is_rounded
PY
# Output seen:
# Python 3.11.7 torch 2.13.0
# relative difference from float64: 0.0235; all values of 8 bits: True
