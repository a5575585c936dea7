"""What the wheel and the source distribution contain."""

import subprocess
import sys
import tarfile
import zipfile
from pathlib import Path, PurePosixPath

import pytest

ROOT = Path(__file__).parents[1]
NAME = "skae"


def build(folder, target, out):
    """Build a distribution with the backend that pip uses; returns its path."""
    command = [sys.executable, "-m", "hatchling", "build", "-d", str(out), "-t", target]
    done = subprocess.run(command, cwd=folder, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout + done.stderr
    [path] = out.iterdir()
    return path


@pytest.fixture(scope="module")
def wheel(tmp_path_factory):
    return build(ROOT, "wheel", tmp_path_factory.mktemp("wheel"))


@pytest.fixture(scope="module")
def source(tmp_path_factory):
    """The source distribution, extracted."""
    folder = tmp_path_factory.mktemp("source")
    with tarfile.open(build(ROOT, "sdist", tmp_path_factory.mktemp("sdist"))) as archive:
        archive.extractall(folder, filter="data")
    [root] = folder.iterdir()
    return root


def files_of_wheel(path):
    return {PurePosixPath(name) for name in zipfile.ZipFile(path).namelist()}


def files_of(folder):
    return {p.relative_to(folder) for p in folder.rglob("*") if p.is_file()}


def test_wheel_contains_the_package_only(wheel):
    files = files_of_wheel(wheel)
    package = {p for p in files if not p.parts[0].endswith(".dist-info")}
    written = {p.relative_to(ROOT) for p in (ROOT / NAME).rglob("*.py")}
    assert package == {PurePosixPath(p) for p in written} | {PurePosixPath("skae/py.typed")}
    assert {"LICENSE", "METADATA"} <= {p.name for p in files - package}


def test_metadata_of_the_wheel(wheel):
    with zipfile.ZipFile(wheel) as archive:
        [name] = [n for n in archive.namelist() if n.endswith("METADATA")]
        metadata = archive.read(name).decode()
    assert "\nName: skae\n" in metadata
    assert "\nRequires-Python: >=3.11\n" in metadata
    assert "\nLicense-Expression: BSD-3-Clause\n" in metadata
    assert (ROOT / "README.md").read_text(encoding="utf-8").strip() in metadata


def test_source_distribution_contains_all_that_is_versioned(source):
    found = {str(p) for p in files_of(source)}
    needed = """
        CHANGELOG.md CITATION.cff CONTRIBUTING.md LICENSE Makefile README.md constraints.txt
        pyproject.toml setup.cfg .ci/run docs/conf.py docs/index.md examples/plot_first_look.py
        benchmarks/pca_fit.py tests/helpers.py tests/test_distribution.py skae/py.typed
    """
    assert set(needed.split()) <= found
    if not (ROOT / ".git").exists():  # these tests run from a source distribution
        return
    command = ["git", "ls-files", "--cached", "--others", "--exclude-standard"]
    listed = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=True).stdout
    kept = {name for name in listed.split("\n") if name and (ROOT / name).exists()}
    assert found == kept | {"PKG-INFO"}


def test_wheel_from_the_source_distribution_is_the_same(source, wheel, tmp_path):
    assert files_of_wheel(build(source, "wheel", tmp_path)) == files_of_wheel(wheel)
