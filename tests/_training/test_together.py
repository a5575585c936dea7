"""Calls that train networks side by side give what each gives alone, and leave nothing behind."""

import gc
import threading
import warnings
import weakref
from contextvars import ContextVar

import numpy as np
import pytest
import torch
from sklearn import config_context, get_config

from helpers import At, assert_same, make_rows, network, weights
from skae._training import together
from skae._training.stack import Stack
from skae._training.stackable import bytes_of
from skae._training.together import run_together

X = make_rows()


@pytest.fixture(autouse=True)
def _no_thread_is_left():
    """Nor does torch compute with another number of threads than before."""
    before, threads = set(threading.enumerate()), torch.get_num_threads()
    yield
    for thread in set(threading.enumerate()) - before:
        thread.join(10)
        assert not thread.is_alive()
    assert torch.get_num_threads() == threads


def fits(n, rows=X, **params):
    """Calls that fit networks of several seeds."""
    return [lambda s=s: network(random_state=s, **params).fit(rows) for s in range(n)]


def test_results_are_in_the_order_of_calls():
    """Of those that train and those that do not, of those that end early and late."""
    calls = [lambda: "first", *fits(2), lambda: None, *fits(2, n_components=1, max_iter=2)]
    report = []
    results = run_together(calls, report=report)
    assert results[0] == "first"
    assert results[3] is None
    for result, call in zip(results[1:3] + results[4:], calls[1:3] + calls[4:], strict=True):
        assert_same(weights(result), weights(call()), 1e-5)
    assert [training.calls for training in report] == [(1, 2, 4, 5)]


def test_no_calls_have_no_results():
    assert run_together([]) == []
    assert run_together([lambda: 3]) == [3]


def test_one_call_trains_alone():
    report = []
    run_together(fits(1), report=report)
    assert [(t.calls, t.obstacle) for t in report] == [
        ((0,), "no other network is of the same kind")
    ]


def test_only_one_call_runs_at_a_time():
    """So that what they share needs no locks."""
    running, most = set(), []

    def call(s):
        for _ in range(3):
            running.add(s)
            most.append(len(running))
            network(random_state=s, max_iter=1).fit(X[:20])
            running.discard(s)
        return s

    enter = together._Call.wait_for_training

    def waiting(self, *args):
        running.discard(self.number)
        enter(self, *args)
        running.add(self.number)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(together._Call, "wait_for_training", waiting)
        assert run_together([lambda s=s: call(s) for s in range(4)]) == [0, 1, 2, 3]
    assert set(most) == {1}


@pytest.mark.parametrize("error", [ValueError, KeyboardInterrupt, SystemExit])
@pytest.mark.parametrize("when", ["before", "after"])
def test_the_first_error_of_a_call_is_raised(error, when):
    """Calls that wait are given up: they end, and nothing of what they would do follows."""
    ended = []

    def failing():
        if when == "after":
            network().fit(X)
        raise error("as asked")

    def fit(s):
        try:
            network(random_state=s).fit(X)
            ended.append(s)
            network(random_state=s, max_iter=2).fit(X)
            ended.append(s)
        finally:
            ended.append("left")

    with pytest.raises(error, match="as asked"):
        run_together([lambda: fit(0), failing, lambda: fit(1)])
    expected = ["left"] if when == "before" else [0, "left", "left"]
    assert ended == expected


def test_errors_that_calls_catch_are_theirs():
    """As of a search whose `error_score` is a number."""

    def fit(rate):
        try:
            return network(solver="sgd", learning_rate_init=rate).fit(X)
        except ValueError as error:
            return str(error)

    rates = [0.01, 1e30, 0.02]
    results = run_together([lambda rate=rate: fit(rate) for rate in rates])
    assert "Training diverged in epoch 1" in results[1]
    for i in (0, 2):
        assert_same(weights(results[i]), weights(fit(rates[i])), 1e-5)


@pytest.mark.parametrize("place", ["_epoch", "_take_snapshot", "_step", "_give_back"])
def test_an_interruption_of_a_stack_leaves_no_thread_waiting(place, monkeypatch):
    """It is raised in the thread that trains, once."""
    whole, calls = getattr(Stack, place), []

    def interrupted(self, *args):
        calls.append(args)
        if len(calls) == 2:
            raise KeyboardInterrupt
        return whole(self, *args)

    monkeypatch.setattr(Stack, place, interrupted)
    with pytest.raises(KeyboardInterrupt):
        run_together(fits(3))


def test_an_interruption_while_a_call_runs_leaves_no_thread_waiting(monkeypatch):
    """A Ctrl-C is heard where the first thread waits for another."""
    go_on, calls = together._Call.go_on, []

    class Interrupted:
        """A semaphore of which waiting is interrupted, once."""

        def __init__(self, semaphore):
            self.acquire_again, self.release = semaphore.acquire, semaphore.release

        def acquire(self):
            calls.append(self)
            if len(calls) == 4:
                raise KeyboardInterrupt
            return self.acquire_again()

    def with_interruption(self):
        if not isinstance(self._stopped, Interrupted):
            self._stopped = Interrupted(self._stopped)
        go_on(self)

    monkeypatch.setattr(together._Call, "go_on", with_interruption)
    with pytest.raises(KeyboardInterrupt):
        run_together(fits(3))


def test_an_interruption_of_one_that_trains_alone(monkeypatch):
    net = type(network(max_iter=1).fit(X).net_)

    def interrupted(self, *args, **kwargs):
        raise KeyboardInterrupt

    monkeypatch.setattr(net, "train_step", interrupted)
    with pytest.raises(KeyboardInterrupt):
        run_together(fits(2, contraction=0.1))


def test_calls_may_run_calls():
    """Within one, others wait for each other and for nobody else."""
    inner, outer = [], []

    def several(k):
        calls = fits(2, n_components=k)
        return run_together(calls, report=inner), network(n_components=k).fit(X)

    results = run_together([lambda k=k: several(k) for k in (1, 2)], report=outer)
    assert [training.calls for training in inner] == [(0, 1)] * 2
    assert [training.calls for training in outer] == [(0, 1)]
    for k, (pair, other) in zip((1, 2), results, strict=True):
        for fitted, call in zip([*pair, other], [*fits(2, n_components=k), *fits(1)], strict=True):
            expected = call() if fitted is not other else network(n_components=k).fit(X)
            assert_same(weights(fitted), weights(expected), 1e-5)


variable = ContextVar("variable", default="unset")


def test_calls_have_the_configuration_and_the_context_of_the_caller():
    def seen():
        before = variable.get(), get_config()["assume_finite"], get_config()["transform_output"]
        variable.set("of a call")
        network().fit(X)
        return *before, variable.get()

    token = variable.set("of the caller")
    try:
        with config_context(assume_finite=True, transform_output="pandas"):
            results = run_together([seen, seen])
        assert variable.get() == "of the caller"
    finally:
        variable.reset(token)
    assert results == [("of the caller", True, "pandas", "of a call")] * 2
    assert get_config()["transform_output"] == "default"


def test_filters_of_warnings_are_those_of_before():
    """Though calls change them for a while, overlap, and catch what each of them warns of."""

    def fit(s):
        with warnings.catch_warnings(record=True) as caught:
            warnings.simplefilter("always")
            warnings.warn(f"before {s}", stacklevel=1)
            network(random_state=s).fit(X)
            warnings.warn(f"after {s}", stacklevel=1)
        return [str(warning.message) for warning in caught]

    with warnings.catch_warnings(record=True) as caught:
        before = list(warnings.filters)
        results = run_together([lambda s=s: fit(s) for s in range(3)])
        assert warnings.filters == before
        warnings.simplefilter("always")
        warnings.warn("the caller's", stacklevel=1)
    for s, (first, *_, last) in enumerate(results):
        assert (first, last) == (f"before {s}", f"after {s}")
    assert [str(warning.message) for warning in caught] == ["the caller's"]


# ----------------------------------------------------------------------------------- memory


@pytest.mark.parametrize(("n_at_once", "sizes"), [(0.5, [1] * 5), (2, [2, 2, 1]), (9, [5])])
def test_memory_cuts_stacks(n_at_once, sizes, monkeypatch):
    """As many networks wait for each other as may take memory; what they learn is the same."""
    taken = []
    monkeypatch.setattr(together, "bytes_of", lambda net: taken.append(bytes_of(net)) or 1000.0)
    report = []
    results = run_together(fits(5), memory_limit=1000 * n_at_once, report=report)
    assert [len(training.calls) for training in report] == sizes
    held = "no other network among those that memory_limit allows is of the same kind"
    assert [t.obstacle for t in report] == [held if size == 1 else None for size in sizes]
    for result, call in zip(results, fits(5), strict=True):
        assert_same(weights(result), weights(call()), 1e-5)
    assert min(taken) > 4 * sum(w.size for w in weights(results[0]).values())


def test_calls_that_wait_are_at_most_so_many(monkeypatch):
    monkeypatch.setattr(together, "_MOST_CALLS", 3)
    report = []
    run_together(fits(7), report=report)
    assert [len(training.calls) for training in report] == [3, 3, 1]


def test_calls_that_train_again_leave_room_to_others():
    """One that goes on to a second training waits with those that come after it."""

    def twice(s):
        first = network(random_state=s).fit(X)
        return first, network(random_state=s, max_iter=2).fit(X)

    limit = 2.5 * 1000
    report = []
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(together, "bytes_of", lambda net: 1000.0)
        results = run_together([lambda s=s: twice(s) for s in range(4)], memory_limit=limit)
    for s, pair in enumerate(results):
        for fitted, alone in zip(pair, twice(s), strict=True):
            assert_same(weights(fitted), weights(alone), 1e-5)
    assert report == []


def test_bytes_are_those_of_weights_and_rows():
    """More of either are more bytes."""
    taken = []

    def of(rows, **params):
        with pytest.MonkeyPatch.context() as patch:
            patch.setattr(together, "bytes_of", lambda net: taken.append(bytes_of(net)) or 0.0)
            run_together(fits(1, rows, max_iter=1, **params))
        return taken.pop()

    least = of(X)
    assert of(make_rows(120)) - least == 4 * 60 * 5
    assert of(X, hidden_layer_sizes=100) > 2 * least
    assert of(X, batch_size=60) > least


def test_nothing_is_held_afterwards():
    """Not the rows, nor the networks."""

    class Rows(np.ndarray):
        """An array to which weak references may be."""

    held = []

    def fit(s):
        rows = make_rows(seed=s).view(Rows)
        model = network(random_state=s, max_iter=1).fit(rows)
        held.extend(map(weakref.ref, (rows, model, model.net_.module_)))
        return model.score(rows)

    scores = run_together([lambda s=s: fit(s) for s in range(3)])
    gc.collect()
    assert len(scores) == 3
    assert [ref() for ref in held] == [None] * 9


def test_what_has_ended_is_let_go_while_others_go_on():
    held = []

    def fit(s):
        gc.collect()
        alive = sum(ref() is not None for ref in held)
        module = network(random_state=s, max_iter=1).fit(X).net_.module_
        held.append(weakref.ref(module))
        return alive

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(together, "bytes_of", lambda net: 1.0)
        assert run_together([lambda s=s: fit(s) for s in range(6)], memory_limit=2) == [0] * 6


def test_gradients_are_computed_whatever_the_caller_set():
    with torch.no_grad():
        results = run_together(fits(2))
    for result, call in zip(results, fits(2), strict=True):
        assert_same(weights(result), weights(call()), 1e-5)


@pytest.mark.parametrize("mode", [torch.inference_mode, torch.no_grad])
def test_what_the_caller_does_without_gradients_is_learned_all_the_same(mode):
    """Within torch.inference_mode() nothing was learned, and no error said so."""
    expected = [call() for call in fits(3)]
    with mode():
        alone = [call() for call in fits(3)]
        report = []
        together = run_together(fits(3), report=report)
    assert [training.obstacle for training in report] == [None]
    for models in (alone, together):
        for model, other in zip(models, expected, strict=True):
            assert_same(weights(model), weights(other), 1e-5)


def test_an_error_in_a_training_of_its_own_is_that_calls():
    """A network with callbacks is trained alone, and others hear nothing of what these raise."""

    def fails():
        try:
            network(callbacks=[At(2, RuntimeError)]).fit(X)
        except RuntimeError as error:
            return str(error)

    broken, fitted = run_together([fails, lambda: network(random_state=5).fit(X)])
    assert broken == "at an inconvenient time"
    np.testing.assert_allclose(fitted.score(X), network(random_state=5).fit(X).score(X))
