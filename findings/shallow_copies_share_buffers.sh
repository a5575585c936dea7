#!/usr/bin/env bash
# torch 2.13.0: assigning a buffer or a parameter of copy.copy(module) changes the original, too.
#
# A good engineer's guess: a shallow copy shares the tensors, but has attributes of its own, so that
# `twin.variance = other` leaves the original as it is, as for any Python object; only in-place
# changes of the shared tensor would reach it.
# What happens: torch's modules have no __copy__, and hold buffers, parameters and submodules in
# dicts that the shallow copy shares. Assigning one on the copy replaces it on the original,
# while plain attributes of the copy are its own. copy.deepcopy separates both.
set -euo pipefail
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
python3 -m venv "$folder/venv"
"$folder/venv/bin/pip" install -q torch==2.13.0
"$folder/venv/bin/pip" install -q numpy==2.4.6
"$folder/venv/bin/python" - <<'PY'
import copy
import platform

import torch
from torch import nn

print("Python", platform.python_version(), "torch", torch.__version__)


class Noise(nn.Module):
    def __init__(self):
        super().__init__()
        self.register_buffer("variance", torch.tensor(1.0))
        self.scale = nn.Parameter(torch.tensor(1.0))
        self.floor = 1.0


def after(duplicate):
    original = Noise()
    twin = duplicate(original)
    twin.variance = torch.tensor(5.0)
    twin.scale = nn.Parameter(torch.tensor(5.0))
    twin.floor = 5.0
    return float(original.variance), float(original.scale.detach()), original.floor


found = {f.__name__: after(f) for f in (copy.copy, copy.deepcopy)}
for name, values in found.items():
    print(f"original after 5 was assigned to its {name:9} buffer, parameter, attribute: {values}")
assert found == {"copy": (5.0, 5.0, 1.0), "deepcopy": (1.0, 1.0, 1.0)}
print("as described")
PY
