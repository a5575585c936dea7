#!/usr/bin/env bash
# torch 2.13.0 and skorch 1.4.0: where the caller has switched gradients off, whether a training
# step works depends on whether the optimiser is given a closure.
#
# A good engineer's guess: under torch.no_grad() no training works, and as skorch's fit does work
# there, it switches gradients on, so that a net that overrides train_step trains there, too.
# What happens: skorch switches nothing on. Its train_step hands a closure to optimizer.step, and
# torch runs closures with gradients on. A net whose train_step calls backward and then step()
# without a closure, which computes the same, raises a RuntimeError from backward. So what hides a
# gradient mode that was left off, by a caller or by an interrupted `with`, is the closure alone.
set -euo pipefail
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
python3 -m venv "$folder/venv"
"$folder/venv/bin/pip" install -q torch==2.13.0
"$folder/venv/bin/pip" install -q skorch==1.4.0 numpy==2.4.6
"$folder/venv/bin/python" - <<'PY'
import platform

import numpy as np
import skorch
import torch
from skorch import NeuralNetRegressor
from torch import nn

print("Python", platform.python_version(), "torch", torch.__version__, "skorch", skorch.__version__)


class WithoutClosure(NeuralNetRegressor):
    def train_step(self, batch, **fit_params):
        self._zero_grad_optimizer()
        step = self.train_step_single(batch, **fit_params)
        self.optimizer_.step()
        return step


def trained(kind, off):
    torch.manual_seed(0)
    X = np.linspace(-1, 1, 40, dtype=np.float32)[:, None]
    net = kind(nn.Linear, module__in_features=1, module__out_features=1, max_epochs=2,
               train_split=None, verbose=0)
    try:
        with torch.set_grad_enabled(not off):
            net.fit(X, 2 * X)
    except RuntimeError as error:
        return str(error).split(" and does")[0]
    return round(float(net.module_.weight.detach()), 6)


found = {(kind.__name__, off): trained(kind, off)
         for kind in (NeuralNetRegressor, WithoutClosure) for off in (False, True)}
for (kind, off), result in found.items():
    print(f"{kind:20} gradients {'off' if off else 'on ':4} {result}")
same = {found["NeuralNetRegressor", False], found["NeuralNetRegressor", True],
        found["WithoutClosure", False]}
assert len(same) == 1
assert found["WithoutClosure", True] == "element 0 of tensors does not require grad"
print("as described")
PY
