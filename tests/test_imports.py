"""What importing skae loads, and what it offers."""

import ast
import json
import subprocess
import sys
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path

import pytest

import skae

ROOT = Path(skae.__file__).parents[1]

# Run in a fresh interpreter: in this one, other tests have loaded everything.
USE_EVERYTHING = """
import numpy as np
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler
from skae import PPCA, CountMixtureAE, LinearAE, sample_pipeline
X = np.random.RandomState(0).standard_normal((30, 5))
for model in (LinearAE(2), PPCA(2), CountMixtureAE(2)):
    model.inverse_transform(model.fit_transform(X))
    model.fit(X).reconstruct(X)
    model.score(X)
    model.sample(3, random_state=0)
    sample_pipeline(make_pipeline(StandardScaler(), model).fit(X), 3, random_state=0)
"""


def packages_loaded_by(code):
    """Top-level packages outside the standard library that `code` loads."""
    report = """
import json, sys
before = set(sys.modules)
{code}
loaded = {{name.partition(".")[0] for name in set(sys.modules) - before}}
print(json.dumps(sorted(loaded - set(sys.stdlib_module_names))))
"""
    done = subprocess.run(
        [sys.executable, "-c", report.format(code=code)],
        cwd=ROOT,
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    return set(json.loads(done.stdout))


def test_import_skae_loads_nothing_else():
    assert packages_loaded_by("import skae") == {"skae"}


def test_closed_form_estimators_never_load_torch():
    loaded = packages_loaded_by(USE_EVERYTHING)
    assert {"skae", "sklearn"} <= loaded
    assert not loaded & {"torch", "skorch"}


def test_every_public_name_is_defined_where_the_table_says():
    for name in skae.__all__:
        value = getattr(skae, name)
        assert value.__name__ == name
        assert value.__module__ == f"skae.{skae._HOME[name]}"


def test_type_checkers_see_the_lazy_table():
    source = ast.parse(Path(skae.__file__).read_text(encoding="utf-8"))
    [block] = [
        node
        for node in source.body
        if isinstance(node, ast.If) and ast.unparse(node.test) == "TYPE_CHECKING"
    ]
    # `import X as X` is what makes a type checker export X.
    seen = {alias.asname: (line.module, alias.name) for line in block.body for alias in line.names}
    assert seen == {name: (f"skae.{home}", name) for name, home in skae._HOME.items()}
    assert skae.__all__ == sorted(skae._HOME)


def test_dir_lists_every_public_name_without_loading_it():
    code = "import skae; assert {*skae.__all__, '__version__'} <= set(dir(skae))"
    assert packages_loaded_by(code) == {"skae"}
    assert len(dir(skae)) == len(set(dir(skae)))


def test_unknown_name():
    with pytest.raises(AttributeError, match="module 'skae' has no attribute 'nothing'"):
        skae.nothing  # noqa: B018
    with pytest.raises(ImportError, match="nothing"):
        from skae import nothing  # noqa: F401


def test_version_is_that_of_the_package():
    try:
        installed = version("skae")
    except PackageNotFoundError:
        pytest.skip("skae runs from its source folder here and is not installed")
    assert skae.__version__ == installed
