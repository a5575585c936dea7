"""What is printed for reports of problems."""

import re
import subprocess
import sys
import tomllib
from importlib.metadata import version
from pathlib import Path

import torch
from threadpoolctl import threadpool_info

import skae
from skae import _show_versions as module

ROOT = Path(skae.__file__).parents[1]


def printed(capsys):
    """The parts of the output: title to {name: value}; pools of threads are joined."""
    skae.show_versions()
    parts, part = {}, None
    for line in capsys.readouterr().out.splitlines():
        if line.endswith(":") and not line.startswith(" "):
            part = parts.setdefault(line[:-1], {})
        elif line:
            name, _, value = line.strip().partition(": ")
            part.setdefault(name, []).append(value)
    return parts


def test_the_parts_and_versions(capsys):
    parts = printed(capsys)
    assert list(parts) == [
        "System",
        "Python dependencies",
        "Optional dependencies",
        "torch",
        "threadpoolctl info",
    ]
    assert parts["System"]["executable"] == [sys.executable]
    needed = parts["Python dependencies"]
    assert needed["skae"] == [skae.__version__]
    for name in ("numpy", "scipy", "scikit-learn", "torch", "skorch", "threadpoolctl"):
        assert needed[name] == [version(name)]
    assert parts["torch"]["threads"] == [str(torch.get_num_threads())]
    assert parts["torch"]["CUDA available"] == [str(torch.cuda.is_available())]
    pools = parts["threadpoolctl info"]
    assert len(pools["filepath"]) == len(threadpool_info())


def test_all_dependencies_of_the_package_are_shown():
    project = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]
    needed = {re.match(r"[\w-]+", line)[0] for line in project["dependencies"]}
    assert needed <= set(module._NEEDED)
    optional = project["optional-dependencies"]
    for extra in ("flow", "photons", "plots"):
        names = {re.match(r"[\w-]+", line)[0] for line in optional[extra]}
        assert names <= set(module._OPTIONAL)


def test_a_missing_package_is_none(capsys, monkeypatch):
    monkeypatch.setattr(module, "_OPTIONAL", ("no-such-package",))
    assert printed(capsys)["Optional dependencies"] == {"no-such-package": ["None"]}


def test_devices_are_named(capsys, monkeypatch):
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 2)
    monkeypatch.setattr(torch.cuda, "get_device_name", lambda i: f"Device {i}")
    found = printed(capsys)["torch"]
    assert (found["cuda:0"], found["cuda:1"]) == (["Device 0"], ["Device 1"])


def test_it_works_without_torch(capsys, monkeypatch):
    monkeypatch.setitem(sys.modules, "torch", None)
    assert list(printed(capsys)["torch"]) == ["not available"]


def test_in_a_fresh_interpreter():
    """As in the line that the documentation names."""
    done = subprocess.run(
        [sys.executable, "-c", "import skae; skae.show_versions()"],
        capture_output=True,
        text=True,
        check=True,
        cwd=ROOT,
    )
    assert "Python dependencies:" in done.stdout
    assert done.stderr == ""
