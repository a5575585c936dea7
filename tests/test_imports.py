"""What importing skae loads, and what it offers."""

import ast
import json
import subprocess
import sys
from collections import Counter
from importlib import import_module
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path

import pytest

import skae

ROOT = Path(__file__).parents[1]  # of the tests
PACKAGE = Path(skae.__file__).parent  # of the package, which may be installed elsewhere

# The rooms of machinery from the ground up; estimators stand on top.
FLOORS = (
    "_utils",
    "_linear",
    "_dask",
    "_pixels",
    "_mixture",
    "_photons",
    "_tables",
    "_training",
    "_nn",
    "_modules",
    "_inference",
    "_densities",
    "_search",
    "_onnx",
    "_plotting",
)

# Run in a fresh interpreter: in this one, other tests have loaded everything.
USE_EVERYTHING = """
import numpy as np
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler
from skae import PPCA, CountMixtureAE, Ensemble, LinearAE, OutlierDetector, sample_pipeline
from skae import PPCAImputer
X = np.random.RandomState(0).standard_normal((30, 5))
for model in (LinearAE(2), PPCA(2), CountMixtureAE(2)):
    model.inverse_transform(model.fit_transform(X))
    model.fit(X).reconstruct(X)
    model.score(X)
    model.sample(3, random_state=0)
    sample_pipeline(make_pipeline(StandardScaler(), model).fit(X), 3, random_state=0)
    Ensemble(model, 2).fit(X).sample(3, random_state=0)
    OutlierDetector(model).fit(X).predict(X)
PPCAImputer(2).fit_transform(np.where(X < 1.5, X, np.nan))
"""


def run_python(code, cwd=PACKAGE.parent):
    done = subprocess.run(
        [sys.executable, "-c", code],
        cwd=cwd,
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    return done.stdout


def packages_loaded_by(code):
    """Top-level packages outside the standard library that `code` loads."""
    report = """
import json, sys
before = set(sys.modules)
{code}
loaded = {{name.partition(".")[0] for name in set(sys.modules) - before}}
print(json.dumps(sorted(loaded - set(sys.stdlib_module_names))))
"""
    return set(json.loads(run_python(report.format(code=code))))


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


SEARCH = """
import numpy as np
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler
from skae import PPCA, GridSearchCV, RandomizedSearchCV, cross_validate
X = np.random.RandomState(0).standard_normal((30, 5))
model = make_pipeline(StandardScaler(), PPCA())
GridSearchCV(model, {"ppca__n_components": [1, 2]}).fit(X)
RandomizedSearchCV(model, {"ppca__n_components": [1, 2]}, n_iter=2).fit(X)
cross_validate(model, X)
"""


def test_searches_load_torch_for_networks_only():
    assert "torch" not in packages_loaded_by(SEARCH)


EXPORT = """
import numpy as np
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler
from skae import PPCA, LinearAE, to_onnx
X = np.random.RandomState(0).standard_normal((30, 5))
to_onnx(make_pipeline(StandardScaler(), LinearAE(4), PPCA(2)).fit(X), "score")
"""


def test_exports_load_torch_for_networks_only():
    loaded = packages_loaded_by(EXPORT)
    assert {"onnx", "skl2onnx"} <= loaded
    assert not loaded & {"torch", "onnxscript"}


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


def test_a_clone_called_skae_does_not_hide_the_package(tmp_path):
    """Beside a folder of that name, an installation in the editable mode must be found first."""
    (tmp_path / "skae").mkdir()
    assert run_python("import skae; print(skae.PPCA.__name__)", cwd=tmp_path) == "PPCA\n"


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


def test_version_is_the_one_to_cite():
    citation = (ROOT / "CITATION.cff").read_text(encoding="utf-8")
    assert f"\nversion: {skae.__version__}\n" in citation


# ----------------------------------------------------------------------- the house


def imports_of(file):
    """What a file imports, wherever in it: (module, name), the name None for whole modules."""
    for node in ast.walk(ast.parse(file.read_text(encoding="utf-8"))):
        if isinstance(node, ast.Import):
            yield from ((alias.name, None) for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, f"{file}: imports are absolute"
            yield from ((node.module, alias.name) for alias in node.names)


def private(name):
    return name is not None and name.startswith("_") and not name.endswith("__")


FILES = sorted(PACKAGE.rglob("*.py"))
ROOMS = sorted({file.parent.name for file in FILES} - {"skae"})


def test_floors_are_all_rooms():
    assert sorted(FLOORS) == ROOMS


@pytest.mark.parametrize("room", FLOORS)
def test_a_room_imports_only_from_floors_below(room):
    below = {room, *FLOORS[: FLOORS.index(room)]}
    for file in (PACKAGE / room).glob("*.py"):
        for module, name in imports_of(file):
            package, *path = module.split(".")
            if package == "skae" and (path or name != "__version__"):
                assert (path or [name])[0] in below, f"{file.name} imports {module}, {name}"


def test_no_private_name_of_another_file_is_imported():
    """Files of skae take from each other what has a public name in them; or whole modules."""
    modules = {file.stem for file in FILES} | set(ROOMS)
    for file in FILES:
        for module, name in imports_of(file):
            if module.split(".")[0] == "skae" and name not in modules:
                assert not private(name), f"{file.name} imports {name} of {module}"


def test_estimators_import_of_each_other_the_class_alone():
    """Machinery that two estimators need stands in a room, or in a file of its own."""
    homes = {f"skae.{home}": name for name, home in skae._HOME.items() if name[0].isupper()}
    for home in homes:
        for module, name in imports_of(PACKAGE / f"{home.removeprefix('skae.')}.py"):
            assert module not in homes or name == homes[module], f"{home} takes {name} of {module}"


def test_private_helpers_of_scikit_learn_are_imported_in_two_places():
    """For estimators, and for searches; what is in the __all__ of a public module is none."""
    for file in FILES:
        if file.match("skae/_utils/validation.py") or file.match("skae/_search/scikit_learn.py"):
            continue
        for module, name in imports_of(file):
            package, *path = module.split(".")
            if package == "sklearn":
                helper = private(name) and name not in getattr(import_module(module), "__all__", ())
                assert not helper, f"{file.name} imports {name} of {module}"
                assert not any(map(private, path)), f"{file.name} imports {module}"


# Names that Python and scikit-learn give to every class.
EVERYWHERE = {"_abc_impl", "_sklearn_auto_wrap_output_keys", "_is_protocol"}


@pytest.mark.parametrize("name", [n for n in skae.__all__ if n[0].isupper()])
def test_what_a_private_name_means_stands_in_few_classes(name):
    """In three at most of those that an estimator inherits from."""
    count = Counter(
        private
        for ancestor in getattr(skae, name).__mro__
        if ancestor.__module__.startswith("skae.")
        for private in vars(ancestor)
        if private.startswith("_") and not private.startswith("__") and private not in EVERYWHERE
    )
    assert not {private: n for private, n in count.items() if n > 3}
