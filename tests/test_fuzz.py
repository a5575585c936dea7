"""Generated calls of every public method: results or errors that name what is wrong.

The folder fuzzing/ draws the calls, and says what is judged. These are a few hundred cases, the
same in every run; benchmarks/fuzz.py runs more.
"""

import random
import warnings

import numpy as np
import pytest
from fuzzing.cases import (
    ESTIMATORS,
    Call,
    Unexplained,
    draw,
    draw_case,
    plain_setup,
    run_call,
    snippet,
)
from fuzzing.judge import call, judge_finite
from fuzzing.models import methods
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from sklearn.base import BaseEstimator


@pytest.mark.parametrize("name", ESTIMATORS)
@settings(
    deadline=None,
    derandomize=True,
    max_examples=24,
    suppress_health_check=list(HealthCheck),
    report_multiple_bugs=False,
)
@given(r=st.randoms(use_true_random=False))
def test_calls_are_explained(name, r):
    """A finite result of the documented shape, or an error that names the culprit."""
    case = draw(r, name)
    try:
        case.run()
    except Unexplained as error:
        raise AssertionError(f"{error}\n{snippet(case)}") from error


def test_every_method_is_drawn():
    """Public methods with all their arguments are found, also those that exist sometimes."""
    for name, Estimator in ESTIMATORS.items():
        assert {"fit"} <= set(methods(name)), name
        for method in ("transform", "score_samples", "data_score_samples", "dream"):
            assert hasattr(Estimator, method) == (method in methods(name)), (name, method)
    drawn = {draw_case(random.Random(i), "PPCA").call.method for i in range(300)}
    assert drawn == set(methods("PPCA"))


# ------------------------------------------------------------- the judge finds what is wrong


class Faulty(BaseEstimator):
    """An estimator that does one thing that none may do."""

    def __init__(self, fault=None):
        self.fault = fault

    def fit(self, X):
        self.half_ = 1
        raise ValueError("X has too few rows.")

    def transform(self, X):
        match self.fault:
            case "changes X":
                X[0, 0] = 7.0
            case "changes a parameter":
                self.fault = None
            case "KeyError":
                raise KeyError("X")
            case "no name":
                raise ValueError("operands could not be broadcast together")
            case "leaks":
                np.log(np.zeros(1))
            case "deprecated":
                warnings.warn("X will be removed", FutureWarning, stacklevel=2)
            case "global generator":
                np.random.rand()  # noqa: NPY002
            case "state":
                self.cache_ = X
            case "MemoryError":
                raise MemoryError("X")
        return X


@pytest.mark.parametrize(
    ("fault", "told"),
    [
        ("changes X", "changed X"),
        ("changes a parameter", "changed the parameters"),
        ("KeyError", "raised KeyError"),
        ("no name", r"names none of \['X'\]"),
        ("leaks", "leaked RuntimeWarning"),
        ("deprecated", "leaked FutureWarning"),
        ("global generator", "advanced a global generator"),
        ("state", "left another state"),
        ("MemoryError", "without advice"),
    ],
)
def test_faults_are_found(fault, told):
    with pytest.raises(Unexplained, match=told):
        call(Faulty(fault), "transform", {"X": np.ones((3, 2))}, {"X"})


def test_what_is_allowed():
    """Results, and errors that name an argument; a failed fit that leaves attributes is found."""
    outcome = call(Faulty(), "transform", {"X": np.ones((3, 2))}, set())
    assert outcome.word == "result"
    assert call(Faulty(), "predict", {}, set()).word == "no such method"
    with pytest.raises(Unexplained, match=r"another state, attributes \['half_'\]"):
        call(Faulty(), "fit", {"X": np.ones((3, 2))}, {"X"})


def test_results_are_judged():
    """Values that are not finite, also inside of tuples, and shapes that are not documented."""
    judge_finite((np.ones(2), {"a": 1.0}))
    with pytest.raises(Unexplained, match="1 has 1 of 2 values like nan"):
        judge_finite((np.ones(2), np.array([1.0, np.nan])))
    with pytest.raises(Unexplained, match="nan"):
        judge_finite(np.array([np.nan, np.inf]), infinite=True)
    setup = plain_setup("PPCA")
    rows = Call("transform", {"X": "rows(3,6)"}, frozenset())

    class Wide(ESTIMATORS["PPCA"]):
        def _encode(self, X):
            return np.ones((len(X), 9))

    from fuzzing.models import value_of

    with pytest.raises(Unexplained, match=r"returned shape \(3, 9\)"):
        run_call(Wide(2).fit(value_of(setup.rows)), setup, rows, set())
