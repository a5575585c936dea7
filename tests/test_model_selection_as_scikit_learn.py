"""scikit-learn's own tests of its searches, with ours in the place of theirs."""

import os
import re
import subprocess
import sys
from importlib.util import find_spec
from pathlib import Path

import pytest

import skae

TESTS = "sklearn.model_selection.tests"

# A plugin of pytest, by which the tests find our classes under scikit-learn's names. Their own
# subclasses of the successive-halving searches stay what they are.
PLUGIN = """
def pytest_configure(config):
    from sklearn.experimental import enable_halving_search_cv
    from sklearn import model_selection
    import skae
    for name in ("GridSearchCV", "RandomizedSearchCV", "cross_validate"):
        setattr(model_selection, name, getattr(skae, name))
    base, = set(skae.GridSearchCV.__mro__) & set(skae.RandomizedSearchCV.__mro__) - set(
        model_selection.HalvingGridSearchCV.__mro__
    )
    model_selection._search.BaseSearchCV = base
"""

# These take three quarters of the time of all.
SLOW = (
    "test_cross_validate_params_none",
    "test_cross_validate_return_indices",
    "test_cv_results_dtype_issue_29074",
    "test_n_features_in",
    "test_random_search_cv_results_multimetric",
    "test_search_cv_sample_weight_equivalence",
    "test_search_with_2d_array",
    "test_unsupervised_grid_search",
    "test_unsupported_sample_weight_scorer",
)
# Of the tests of cross-validation those of the function that is ours, without those of its
# processes.
OURS = "(test_search.py or cross_validate) and not many_jobs"


def run_their_tests(folder, *arguments):
    """They run in a process of their own, since its modules are changed."""
    (folder / "searches_of_skae.py").write_text(PLUGIN, encoding="utf-8")
    paths = [str(folder), str(Path(skae.__file__).parents[1])]
    command = [sys.executable, "-m", "pytest", "-c", os.devnull, "-p", "searches_of_skae"]
    command += ["-p", "no:cacheprovider", "-q", "--import-mode=importlib"]
    return subprocess.run(
        [*command, *arguments],
        env={**os.environ, "PYTHONPATH": os.pathsep.join(paths)},
        cwd=folder,
        capture_output=True,
        text=True,
        check=False,
    )


@pytest.mark.skipif(find_spec(f"{TESTS}.test_search") is None, reason="scikit-learn has no tests")
@pytest.mark.parametrize(
    ("which", "at_least"),
    [
        pytest.param(f"{OURS} and not ({' or '.join(SLOW)})", 150, id="quick"),
        pytest.param(f"{OURS} and ({' or '.join(SLOW)})", 14, id="slow", marks=pytest.mark.long),
    ],
)
def test_their_tests_pass(which, at_least, tmp_path):
    files = [find_spec(f"{TESTS}.{name}").origin for name in ("test_search", "test_validation")]
    done = run_their_tests(tmp_path, *files, "-k", which)
    assert done.returncode == 0, done.stdout[-5000:]
    [n_passed] = re.findall(r"(\d+) passed", done.stdout)
    assert int(n_passed) >= at_least
