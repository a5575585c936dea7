#!/usr/bin/env bash
# ruff 0.17.5, UP037: where Literal is imported from a module of the project, the fix of "quoted
# annotations", which counts as safe, removes the quotes of its values.
#
# A good engineer's guess: safe fixes keep the meaning of code that works, and the strings within
# Literal[...] are values, wherever the name comes from, as for Python and for type checkers.
# What happens: ruff looks for Literal in typing and typing_extensions only. Under any other module
# the strings count as annotations, and with `from __future__ import annotations`
# Literal["mean", "sum"] becomes Literal[mean, sum]. The module can still be imported; what reads
# the hints raises a NameError. The setting typing-modules, if it names the module, prevents it.
set -euo pipefail
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
python3 -m venv "$folder/venv"
"$folder/venv/bin/pip" install -q ruff==0.17.5
cd "$folder"
"$folder/venv/bin/python" - <<'PY'
import platform
import subprocess
import sys
from pathlib import Path

RUFF = [sys.executable, "-m", "ruff"]
CODE = '''from __future__ import annotations

from {module} import Literal


def reduce(how: Literal["mean", "sum"]) -> None:
    """Reduce."""
'''
HINTS = "import typing, code; print(typing.get_type_hints(code.reduce)['how'])"
Path("compat.py").write_text("from typing import Literal as Literal\n")


def run(*command):
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    return (done.stdout + done.stderr).strip().splitlines()[-1]


def fixed(module, *options):
    """The annotation after safe fixes, and the hint before and after them."""
    Path("code.py").write_text(CODE.format(module=module))
    before = run(sys.executable, "-c", HINTS)
    run(*RUFF, "check", "--isolated", "--select", "UP037", "--fix", *options, "code.py")
    line = next(line for line in Path("code.py").read_text().splitlines() if "def " in line)
    return line.split("how: ")[1].split(")")[0], before, run(sys.executable, "-c", HINTS)


print("Python", platform.python_version(), run(*RUFF, "--version"))
found = {
    "from typing": fixed("typing"),
    "from compat": fixed("compat"),
    "from compat, typing-modules": fixed("compat", "--config", 'lint.typing-modules = ["compat"]'),
}
for name, (annotation, before, after) in found.items():
    print(f"{name:28} {annotation:23} hint before: {before}, after: {after}")
kept = ('Literal["mean", "sum"]', "typing.Literal['mean', 'sum']", "typing.Literal['mean', 'sum']")
lost = ("Literal[mean, sum]", "typing.Literal['mean', 'sum']", "NameError: name 'mean' is not defined")
assert found["from typing"] == found["from compat, typing-modules"] == kept
assert found["from compat"] == lost
print("as described")
PY
