"""Warnings name the line of the user's code, however skae is called."""

import copy
import inspect
import io
import pickle
import re
import subprocess
import sys
import warnings
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import joblib
import numpy as np
import pytest
import skops.io
from contract_helpers import ESTIMATORS
from sklearn.model_selection import GridSearchCV as SklearnGridSearchCV
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import FunctionTransformer, StandardScaler

import skae
from helpers import make_rows, network
from skae import PPCA, VAE, Autoencoder, CountMixtureAE, Ensemble, GridSearchCV, LinearAE
from skae._utils import versions
from skae._utils.warning import ignoring, quietly, warn

ROOT = Path(skae.__file__).parent
FLAT = np.full((20, 4), 3.0)  # PPCA warns that its noise variance was raised
X = make_rows()
# Training ends above the loss of its linear start. This is noticed in the threads of networks that
# are trained together.
WORSE = Autoencoder(2, max_iter=1, learning_rate_init=1.0, random_state=0)


def test_no_other_function_of_skae_issues_warnings():
    """But for those that were recorded, and have the line of the user already."""
    for file in ROOT.rglob("*.py"):
        if file.name != "warning.py":
            assert "warnings.warn(" not in file.read_text(encoding="utf-8"), file


def here():
    """Number of the line that calls this function."""
    return inspect.currentframe().f_back.f_lineno


def assert_points_at(caught, line, category=UserWarning):
    assert caught
    for one in caught:
        assert issubclass(one.category, category)
        assert (Path(one.filename).name, one.lineno) == (Path(__file__).name, line)


CALLS = {
    "fit": lambda: PPCA(1).fit(FLAT),
    "fit_transform": lambda: PPCA(1).fit_transform(FLAT),
    "Pipeline.fit": lambda: make_pipeline(StandardScaler(), PPCA(1)).fit(FLAT),
    "Pipeline.fit_transform": lambda: make_pipeline(PPCA(1)).fit_transform(FLAT),
    "GridSearchCV": lambda: SklearnGridSearchCV(PPCA(), {"n_components": [1]}, cv=2).fit(FLAT),
    "skae.GridSearchCV": lambda: GridSearchCV(PPCA(), {"n_components": [1, 2]}, cv=2).fit(FLAT),
    "Ensemble": lambda: Ensemble(PPCA(1), 2).fit(FLAT),
    "EM": lambda: PPCA(2, solver="em", max_iter=1, tol=0.0).fit(X),
    "training": lambda: network(max_iter=1, learning_rate_init=1e-7).fit(X),
    "trained together": lambda: GridSearchCV(WORSE, {"alpha": [0, 1e-4]}, cv=2).fit(X),
    "members": lambda: Ensemble(WORSE, 2, random_state=0).fit(X),
    "codes added": lambda: network(latent_growth="incremental", max_iter=1).fit(X),
    "mixture": lambda: CountMixtureAE(2, max_iter=1, tol=0.0).fit(X),
    "collapse": lambda: network(VAE, beta=1e4, max_iter=3).fit(X),
    "stream": lambda: LinearAE(1).fit(X[:30]).partial_fit(X[30:]),
}


@pytest.mark.parametrize("name", CALLS)
def test_warnings_of_calls_name_the_line_of_the_call(name):
    line = CALLS[name].__code__.co_firstlineno
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        CALLS[name]()
    of_skae = [w for w in caught if issubclass(w.category, UserWarning)]
    assert_points_at(of_skae, line)


LOADS = {
    "pickle": lambda data: pickle.loads(data["pickle"]),
    "joblib": lambda data: joblib.load(io.BytesIO(data["joblib"])),
    "skops": lambda data: skops.io.loads(data["skops"], trusted=data["trusted"]),
    "copy": lambda data: copy.deepcopy(data["model"]),
}


@pytest.mark.parametrize("name", LOADS)
def test_warnings_of_versions_name_the_line_that_loads(name, monkeypatch):
    model = make_pipeline(PPCA(2)).fit(X)
    file = io.BytesIO()
    with monkeypatch.context() as patch:
        there = {**versions._VERSIONS, "_skae_version": (" of skae", "0.1.9")}
        patch.setattr(versions, "_VERSIONS", there)
        joblib.dump(model, file)
        data = {"pickle": pickle.dumps(model), "joblib": file.getvalue()}
        data |= {"skops": skops.io.dumps(model), "trusted": ["skae._ppca.PPCA"]}
    if name == "copy":

        class Elsewhere(PPCA):
            def __getstate__(self):
                return {**super().__getstate__(), "_skae_version": "0.1.9"}

        data["model"] = Elsewhere()
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        LOADS[name](data)
    assert len(caught) == 1
    assert "from version 0.1.9" in str(caught[0].message)
    assert_points_at(caught, LOADS[name].__code__.co_firstlineno)


def function_of_skae():
    """A function that warns, as if it were in a file of skae."""
    space = {"warn": warn}
    code = "def issue(*_):\n    warn('told', RuntimeWarning)\n"
    exec(compile(code, str(ROOT / "_ppca.py"), "exec"), space)
    return space["issue"]


def test_a_warning_is_shown_once_for_each_line_of_the_user():
    """As Python's filter "default" does with its register of the module that is named."""
    issue = function_of_skae()
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("default")
        for _ in range(3):
            issue()
        first = here() - 1
        issue()
    assert [one.lineno for one in caught] == [first, first + 2]


def test_a_way_through_another_package_names_its_caller():
    """scikit-learn calls the function here."""
    issue = function_of_skae()
    step = FunctionTransformer(issue)
    with pytest.warns(RuntimeWarning, match="told") as caught:
        step.fit_transform(X)
    assert_points_at(caught, here() - 1, RuntimeWarning)


WORKER = """
import numpy as np
from joblib import Parallel, delayed
from skae import PPCA
if __name__ == "__main__":
    X = np.full((20, 4), 3.0)
    Parallel(2)([delayed(PPCA(1).fit)(X)])
    PPCA(1).fit(X)
"""


def test_in_a_worker_process_the_line_in_skae_is_named(tmp_path):
    """There, no line of the user is on the stack."""
    script = tmp_path / "script.py"
    script.write_text(WORKER, encoding="utf-8")
    done = subprocess.run(
        [sys.executable, script],
        capture_output=True,
        text=True,
        check=True,
        env={"PYTHONPATH": str(ROOT.parent), "PATH": "", "OMP_NUM_THREADS": "1"},
    )
    found = re.findall(r"(\w+\.py):\d+: UserWarning: The noise", done.stderr)
    assert found == ["_gaussian_learning.py", "script.py"]


def test_estimators_are_all_in_folders_that_are_skipped():
    for Estimator in (*ESTIMATORS, Autoencoder):
        assert Path(inspect.getfile(Estimator)).is_relative_to(ROOT)


@pytest.mark.parametrize("first_ends_first", [True, False])
def test_overlapping_blocks_leave_the_filters_as_they_were(first_ends_first):
    """As of two threads, and of catch_warnings, which restores the list that it found."""
    before, found = list(warnings.filters), warnings.filters
    first, second, foreign = ignoring("one"), ignoring("two"), warnings.catch_warnings()
    blocks = [first, foreign, second]
    for block in blocks:
        block.__enter__()
    warnings.warn("one of them", stacklevel=1)
    warnings.warn("Two of them", stacklevel=1)
    for block in blocks if first_ends_first else blocks[::-1]:
        block.__exit__(None, None, None)
    assert warnings.filters is found
    assert warnings.filters == before


def test_a_quiet_block_is_that_of_one_thread():
    def loud():
        with pytest.warns(UserWarning, match="heard"):
            warn("heard")

    with quietly():
        warn("not heard")  # it would be an error
        with ThreadPoolExecutor(1) as pool:
            pool.submit(loud).result()
    loud()
