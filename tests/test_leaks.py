"""Nothing is held after a fit: no objects, rows, networks, threads or open files.

benchmarks/leaks.py measures memory over 200 fits in processes of their own.
"""

import gc
import os
import pickle
import threading
import warnings
import weakref
from contextlib import suppress
from pathlib import Path

import numpy as np
import pytest
from contract_helpers import ESTIMATORS, law_for, make_data, may_advise, small, trained_on_batches
from skorch.callbacks import Callback, EarlyStopping

from skae import PPCA, Ensemble, GridSearchCV, OutlierDetector, PPCAImputer

pytestmark = may_advise


def brief(Estimator, **params):
    """Trained for one epoch, if it is a network."""
    one = {"max_iter": 1} if trained_on_batches(Estimator) else {}
    return small(Estimator).set_params(**one | params)


class Fails(Callback):
    def on_batch_end(self, net, **kwargs):
        raise ZeroDivisionError


def fails(Estimator):
    def fit(X):
        with suppress(ZeroDivisionError):
            brief(Estimator, callbacks=[Fails()]).fit(X)

    return fit


def refuses(Estimator):
    def fit(X):
        with suppress(ValueError):
            brief(Estimator).fit(np.where(X.mean() < X, X, np.inf))

    return fit


def used(Estimator):
    def fit(X):
        model = brief(Estimator).fit(X)
        model.score(X)
        model.sample(2)
        return pickle.loads(pickle.dumps(model)).inverse_transform(model.transform(X))

    return fit


def with_params(Estimator, **params):
    return lambda X: brief(Estimator, **params).fit(X)


def kinds_of_fits():
    for E in ESTIMATORS:
        yield f"{E.__name__}", used(E)
        yield f"{E.__name__}, refused rows", refuses(E)
        known = E().get_params()
        if "callbacks" in known:
            yield f"{E.__name__}, failing", fails(E)
            heard = [EarlyStopping("train_loss")]
            yield f"{E.__name__}, callbacks", with_params(E, callbacks=heard, early_stopping=True)
        if "n_init" in known:
            yield f"{E.__name__}, several starts", with_params(E, n_init=2)
    yield "Ensemble", lambda X: Ensemble(PPCA(1), 2).fit(X)
    yield "GridSearchCV", lambda X: GridSearchCV(PPCA(), {"n_components": [1, 2]}, cv=2).fit(X)
    yield "OutlierDetector", lambda X: OutlierDetector(PPCA(1)).fit(X)
    yield "PPCAImputer", lambda X: PPCAImputer(1).fit(X).transform(X)


def held():
    """Numbers of objects, threads and open files."""
    gc.collect()
    found = {"objects": len(gc.get_objects()), "threads": threading.active_count()}
    for name in ("task", "fd"):  # on Linux
        if os.path.isdir(f"/proc/self/{name}"):
            found[name] = len(list(Path(f"/proc/self/{name}").iterdir()))
    return found


@pytest.mark.parametrize("fit", [pytest.param(fit, id=name) for name, fit in kinds_of_fits()])
def test_fits_leave_nothing(fit):
    """After two fits, five more hold no more objects than before. One each would be five."""
    X = make_data(ESTIMATORS[0])
    X = np.abs(X)
    for _ in range(2):
        fit(X)
    before = held()
    for _ in range(5):
        fit(X)
    after = held()
    assert after["objects"] - before["objects"] < 5
    assert {**after, "objects": 0} == {**before, "objects": 0}


class Rows(np.ndarray):
    """An array to which weak references may be."""


@law_for(ESTIMATORS)
@pytest.mark.parametrize("n_init", [1, 2])
def test_a_model_that_is_deleted_is_gone(Estimator, n_init):
    """With its network, and without its rows while it lives."""
    model = brief(Estimator)
    if n_init > 1:
        if "n_init" not in model.get_params():
            pytest.skip("the estimator has one start")
        model.set_params(n_init=n_init)
    X = make_data(Estimator).view(Rows)
    rows = weakref.ref(X)
    model.fit(X)
    model.score(X)
    del X
    gc.collect()
    assert rows() is None
    parts = [model]
    if hasattr(model, "net_"):
        parts += [model.net_, model.net_.module_, model.net_.optimizer_]
        parts += list(model.net_.module_.parameters())
    alive = [weakref.ref(part) for part in parts]
    del parts, model
    gc.collect()
    assert [ref() for ref in alive] == [None] * len(alive)


@law_for([E for E in ESTIMATORS if trained_on_batches(E)])
def test_rows_of_a_failed_fit_are_gone(Estimator):
    """The estimator holds no part of what it could not finish."""
    X, model = make_data(Estimator).view(Rows), brief(Estimator, callbacks=[Fails()])
    rows = weakref.ref(X)
    with warnings.catch_warnings(), suppress(ZeroDivisionError):
        model.fit(X)
    del X
    gc.collect()
    assert rows() is None
