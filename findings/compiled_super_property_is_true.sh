#!/usr/bin/env bash
# torch 2.13.0: torch.compile takes super().name as true if name is a property of the base class.
#
# A good engineer's guess: a compiled function reads Python attributes as Python does, or it stops
# compiling there. super().name is the value of the property of the base class.
# What happens: in a property of a subclass that begins "return super().name and ...", the base class
# returns False, and the compiled function goes on with the second operand. There is no error, no
# warning and no graph break. A method in place of the property is compiled correctly.
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


class Base:
    @property
    def is_scaled(self):
        return False

    def may_be_scaled(self):
        return False


class Derived(Base):
    @property
    def is_scaled(self):
        return super().is_scaled and True

    def may_be_scaled(self):
        return super().may_be_scaled() and True


def by_property(x):
    return x * (10.0 if model.is_scaled else 1.0)


def by_method(x):
    return x * (10.0 if model.may_be_scaled() else 1.0)


model, x = Derived(), torch.ones(1)
for function in (by_property, by_method):
    compiled = torch.compile(function, backend="eager", fullgraph=True)
    found = float(function(x)), float(compiled(x))
    print(f"{function.__name__}: {found[0]:g} as written, {found[1]:g} compiled")
    assert found == ((1.0, 10.0) if function is by_property else (1.0, 1.0))
PY
# Output seen:
# Python 3.11.7 torch 2.13.0
# by_property: 1 as written, 10 compiled
# by_method: 1 as written, 1 compiled
