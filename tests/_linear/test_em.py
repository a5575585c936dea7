"""EM that is interrupted: what the last complete step left is kept whole, or nothing is."""

import signal
import sys
import warnings
from itertools import count
from pathlib import Path

import numpy as np
import pytest
from sklearn.exceptions import ConvergenceWarning
from sklearn.model_selection import GridSearchCV
from sklearn.pipeline import make_pipeline

import skae
from helpers import make_rows
from skae import PPCA
from skae._linear import subspace
from skae._linear.em import run_em
from skae._linear.missing_values import MaximumLikelihood
from skae._utils.interrupts import inside_another_fit

HOME = str(Path(skae.__file__).parent)

ATTRIBUTES = (
    "loadings_",
    "components_",
    "axes_",
    "mean_",
    "noise_variance_",
    "explained_variance_",
    "singular_values_",
    "log_likelihoods_",
    "n_iter_",
)


def rows_with_gaps(gaps):
    return make_rows(30, 12, scales=1.0, noise=1.0, mean=0.0, gaps=gaps, dtype=np.float64)


def ppca(n_components=2, **params):
    options = {"solver": "em", "tol": 0.0, "max_iter": 4, "random_state": 0, **params}
    return PPCA(n_components, **options)


def after_steps(n_steps, X):
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", ConvergenceWarning)
        return ppca(max_iter=n_steps).fit(X)


def assert_same_attributes(model, expected):
    for name in ATTRIBUTES:
        np.testing.assert_array_equal(getattr(model, name), getattr(expected, name), name)


class AtLine:
    """Raise KeyboardInterrupt before the n-th line of skae that runs in the block."""

    def __init__(self, n):
        self.n, self.count = n, 0

    def __call__(self, frame, event, arg):
        if not frame.f_code.co_filename.startswith(HOME):
            return None
        if event == "line":
            self.count += 1
            if self.count == self.n:
                raise KeyboardInterrupt
        return self

    def __enter__(self):
        self.before = sys.gettrace()
        sys.settrace(self)
        return self

    def __exit__(self, *error):
        sys.settrace(self.before)


@pytest.mark.parametrize("gaps", [0.0, 0.2])
def test_an_interrupt_at_any_line_keeps_a_whole_step_or_nothing(gaps):
    X = rows_with_gaps(gaps)
    complete = {n: after_steps(n, X) for n in range(1, 5)}
    kept = set()
    for n in count(1):
        model = ppca()
        unfitted = dict(vars(model))
        with warnings.catch_warnings(record=True) as caught:
            warnings.simplefilter("always")
            try:
                with AtLine(n) as lines:
                    model.fit(X)
            except KeyboardInterrupt:
                if vars(model).keys() != unfitted.keys():  # in the line that returns the model
                    assert_same_attributes(model, complete[4])
                continue
        if lines.count < n:
            break
        assert [str(w.message) for w in caught] == [
            f"Training was interrupted in iteration {model.n_iter_ + 1}; "
            f"the state after iteration {model.n_iter_} is kept."
        ]
        assert_same_attributes(model, complete[model.n_iter_])
        kept.add(model.n_iter_)
    assert {1, 2, 3} <= kept


def interrupt_step(monkeypatch, n):
    """Raise KeyboardInterrupt inside the n-th step of both EMs."""
    for module, name in ((MaximumLikelihood, "has_ended"), (subspace, "mean_log_likelihood")):
        calls, whole = [], getattr(module, name)

        def interrupted(*args, calls=calls, whole=whole):
            calls.append(None)
            if len(calls) == n:
                signal.raise_signal(signal.SIGINT)
            return whole(*args)

        monkeypatch.setattr(module, name, interrupted)


def refit(model, X):
    """Fit again, interrupted; the model must be as it was."""
    before = dict(vars(model))
    with pytest.raises(KeyboardInterrupt):
        model.fit(X)
    assert vars(model) == before


@pytest.mark.parametrize("gaps", [0.0, 0.2])
def test_the_last_complete_step_is_kept(monkeypatch, gaps):
    X = rows_with_gaps(gaps)
    interrupt_step(monkeypatch, 3)
    with pytest.warns(UserWarning, match=r"iteration 3; the state after iteration 2 is kept"):
        model = ppca().fit(X)
    monkeypatch.undo()
    assert_same_attributes(model, after_steps(2, X))
    assert len(model.log_likelihoods_) == model.n_iter_ == 2
    assert np.isfinite(model.score(X))


@pytest.mark.parametrize("gaps", [0.0, 0.2])
def test_before_the_first_step_is_complete_nothing_is_kept(monkeypatch, gaps):
    X = rows_with_gaps(gaps)
    model = after_steps(4, X)
    interrupt_step(monkeypatch, 1)
    refit(model, X)


@pytest.mark.parametrize("n_components", ["bic", "mle", 0.7])
def test_nothing_is_kept_while_the_size_is_not_known(monkeypatch, n_components):
    X = rows_with_gaps(0.2)
    interrupt_step(monkeypatch, 3)
    refit(ppca(n_components), X)
    monkeypatch.undo()
    interrupt_step(monkeypatch, 4 + 3)  # in the second stage the size is known
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", ConvergenceWarning)  # of the first stage
        with pytest.warns(UserWarning, match="after iteration 2 is kept"):
            assert ppca(n_components).fit(X).n_iter_ == 2


@pytest.mark.parametrize("gaps", [0.0, 0.2])
def test_within_another_estimator_it_is_raised(monkeypatch, gaps):
    X = rows_with_gaps(gaps)
    for outer in (make_pipeline(ppca()), GridSearchCV(ppca(), {"n_components": [1, 2]}, cv=2)):
        interrupt_step(monkeypatch, 3)
        with pytest.raises(KeyboardInterrupt):
            outer.fit(X)
        monkeypatch.undo()
    interrupt_step(monkeypatch, 3)
    with inside_another_fit():
        refit(ppca(), X)


def test_a_second_interrupt_is_raised(monkeypatch):
    X = rows_with_gaps(0.2)
    interrupt_step(monkeypatch, 3)
    monkeypatch.setattr(PPCA, "_store", lambda *_: signal.raise_signal(signal.SIGINT))
    with pytest.warns(UserWarning, match="interrupted"):
        refit(ppca(), X)


def test_a_run_is_its_steps():
    """A step that adds one, until three."""

    def step(state, history):
        assert len(history) == state
        return float(state), state + 1 if state < 3 else None

    assert run_em(step, 0, 9) == (3, (0.0, 1.0, 2.0, 3.0), "convergence")
    assert run_em(step, 0, 2) == (2, (0.0, 1.0), "max_iter")
