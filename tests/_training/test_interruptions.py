"""Trainings that end before their time: at Ctrl-C, or where the loss is not finite any more."""

import signal
import sys
import warnings
from contextlib import contextmanager

import numpy as np
import pytest
import torch
from sklearn.exceptions import ConvergenceWarning, NotFittedError
from sklearn.model_selection import GridSearchCV
from sklearn.pipeline import Pipeline
from sklearn.preprocessing import StandardScaler
from skorch.callbacks import Callback

from helpers import (
    At,
    assert_same,
    learned,
    leaves,
    make_rows,
    network,
    own_networks,
    weights,
)
from skae import VAE, VQVAE, Autoencoder, LatentDensityEstimator
from skae._training.snapshot import Snapshot

# ------------------------------------------------------------------------------- Ctrl-C


@pytest.mark.parametrize("hook", ["on_epoch_begin", "on_grad_computed", "on_batch_end"])
@pytest.mark.parametrize(
    "params",
    [
        {},
        {"solver": "sgd"},
        {"solver": "adamw", "learning_rate": "invscaling"},
        {"solver": "lbfgs"},
        {"likelihood": "laplace", "noise_variance": "per_feature"},
        {"normalization": "batch", "noise": "gaussian"},
        {"weight_averaging": 0.9},
        own_networks(),
    ],
    ids=lambda params: "-".join(map(str, params.values()))[:20] or "default",
)
def test_an_interruption_keeps_the_last_complete_epoch(params, hook):
    """Bit for bit what a fit of so many epochs leaves; a warning names the epoch."""
    if params.get("solver") == "lbfgs" and hook == "on_batch_end":
        pytest.skip("an epoch of L-BFGS has one batch")
    X = make_rows()
    with pytest.warns(UserWarning, match=r"interrupted in epoch 3.* epoch 2 is kept"):
        model = network(callbacks=[At(3, hook=hook)], **params).fit(X)
    expected = network(max_iter=2, **params).fit(X)
    assert model.n_iter_ == len(model.history_) == 2
    assert_same(weights(model), weights(expected))
    np.testing.assert_array_equal(model.transform(X), expected.transform(X))
    assert model.score(X) == expected.score(X)
    # And training goes on from there as if nothing had happened.
    model.set_params(callbacks=None)
    if params.get("learning_rate") is None:
        assert_same(weights(model.partial_fit(X)), weights(expected.partial_fit(X)))


def test_an_interruption_of_the_first_epoch_leaves_nothing():
    """It propagates; the estimator stays unfitted, or as it was."""
    X = make_rows()
    model = network(callbacks=[At(1)])
    with pytest.raises(KeyboardInterrupt):
        model.fit(X)
    with pytest.raises(NotFittedError):
        model.transform(X)
    model.set_params(callbacks=None).fit(X)
    before = learned(model)
    with pytest.raises(KeyboardInterrupt):
        model.set_params(callbacks=[At(1)]).fit(X)
    assert_same(learned(model), before)
    with pytest.raises(KeyboardInterrupt):
        model.set_params(callbacks=[At(5)]).partial_fit(X)
    assert_same(learned(model), before)


def interrupt(*arguments, **keywords):
    raise KeyboardInterrupt


@pytest.mark.parametrize("inside", ["pipeline", "search", "density", "density's own"])
def test_an_interruption_inside_another_estimator_is_raised(inside):
    """What was cut short would stand beside complete fits; the model is as it was before."""
    X = make_rows()
    part = network(callbacks=[At(3)])
    match inside:
        case "pipeline":
            model = Pipeline([("scale", StandardScaler()), ("reduce", part)])
        case "search":
            model = GridSearchCV(part, {"n_components": [1, 2]}, cv=2)
        case "density":
            model = LatentDensityEstimator(part)
        case "density's own":
            model = LatentDensityEstimator(
                n_channels=4, n_mixture=2, batch_size=16, callbacks=[At(3)]
            )
    with pytest.raises(KeyboardInterrupt):
        model.fit(X)
    assert not hasattr(model, "best_estimator_")
    with pytest.raises(NotFittedError):
        (part if inside == "search" else model).transform(X)


def test_an_interruption_of_what_follows_training(monkeypatch):
    """The first Ctrl-C does not lose the epochs; what follows is done once more."""
    X = make_rows()
    finish, calls = Autoencoder._finish, []

    def interrupted(self, *arguments):
        calls.append(1)
        if len(calls) == 1:
            raise KeyboardInterrupt
        return finish(self, *arguments)

    monkeypatch.setattr(Autoencoder, "_finish", interrupted)
    with pytest.warns(UserWarning, match="interrupted.*after epoch 4 is kept"):
        model = network().fit(X)
    assert len(calls) == 2
    assert_same(learned(model), learned(network().fit(X)))


def test_a_second_interruption_is_raised(monkeypatch):
    """Whoever does not want to wait for what follows training gets the model of before."""
    X = make_rows()
    model = network().fit(X)
    before = learned(model)
    monkeypatch.setattr(Autoencoder, "_finish", interrupt)
    with (
        pytest.warns(UserWarning, match="interrupted in epoch 3"),
        pytest.raises(KeyboardInterrupt),
    ):
        model.set_params(callbacks=[At(3)]).fit(X)
    assert_same(learned(model), before)


def test_codes_that_were_interrupted_have_a_prior_of_frequencies():
    """VQVAE's second training does not begin after the first was ended by hand."""
    X = make_rows(80)
    model = VQVAE(2, n_codes=4, batch_size=16, max_iter=4, callbacks=[At(3)], random_state=0)
    with (
        pytest.warns(UserWarning, match="interrupted in epoch 3"),
        pytest.warns(UserWarning, match="before the prior over codes was trained"),
    ):
        model.fit(X)
    assert model.n_iter_ == 2
    assert model.prior_history_ == []
    codes, counts = np.unique(model.transform(X)[:, 0], return_counts=True)
    # Laplace's rule, which gives each of 4 codes a count beside the 80 rows.
    shares = np.exp(model.score_codes(np.c_[codes, np.zeros_like(codes)]))
    np.testing.assert_allclose(shares / shares.sum(), counts / counts.sum(), atol=0.05)
    model.set_params(callbacks=None, warm_start=True).fit(X)
    assert len(model.prior_history_) > 0


@contextmanager
def ctrl_c_raises():
    """Python's own handler of SIGINT, which test runners replace."""
    before = signal.signal(signal.SIGINT, signal.default_int_handler)
    try:
        yield
    finally:
        signal.signal(signal.SIGINT, before)


class CtrlC(Callback):
    """A Ctrl-C while a callback works, at the end of the third epoch."""

    def on_epoch_end(self, net, **kwargs):
        if len(net.history) == 3:
            signal.raise_signal(signal.SIGINT)


class Stops(Callback):
    """What skorch's callbacks do to end training."""

    def on_epoch_end(self, net, **kwargs):
        if len(net.history) == 3:
            raise KeyboardInterrupt


def test_a_callback_that_stops_is_told_from_a_ctrl_c():
    """One ends training after its epoch, also in a search; the other is an interruption."""
    X = make_rows()
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        for what in (".* worse than by their mean", "Training ended"):  # after so few steps
            warnings.filterwarnings("ignore", what)
        stopped = network(callbacks=[Stops()]).fit(X)
        search = GridSearchCV(network(callbacks=[Stops()]), {"n_components": [1, 2]}, cv=2).fit(X)
    assert stopped.n_iter_ == search.best_estimator_.n_iter_ == 3
    with ctrl_c_raises():
        with pytest.warns(UserWarning, match=r"interrupted in epoch 3.* epoch 2 is kept"):
            assert network(callbacks=[CtrlC()]).fit(X).n_iter_ == 2
        with pytest.raises(KeyboardInterrupt):
            GridSearchCV(network(callbacks=[CtrlC()]), {"n_components": [1, 2]}, cv=2).fit(X)


# ----------------------------------------------------------------- at any line of the code


class Lines:
    """Counts the lines that run in some files of skae, and interrupts at one of them."""

    def __init__(self, *files, at=None):
        self.files, self.at, self.n = files, at, 0
        self.first = {}  # when a line ran first

    def __call__(self, frame, event, argument):
        path = frame.f_code.co_filename
        return self.line if path.endswith(self.files) else None

    def line(self, frame, event, argument):
        if event == "line":
            self.n += 1
            self.first.setdefault((frame.f_code.co_filename, frame.f_lineno), self.n)
            if self.n == self.at:
                raise KeyboardInterrupt
        return self.line

    def run(self, call):
        before = sys.gettrace()
        sys.settrace(self)
        try:
            return call()
        finally:
            sys.settrace(before)


def of_training(model):
    """What training left: all but the parameters that are part of the architecture."""
    return {k: v for k, v in learned(model).items() if not k.startswith("['_architecture']")}


@pytest.mark.parametrize(
    "build",
    [network, lambda **p: network(solver="lbfgs", **p), lambda **p: network(model=VAE, **p)],
    ids=["adam", "lbfgs", "vae"],
)
@pytest.mark.parametrize("every", [pytest.param(1, marks=pytest.mark.long), 4])
def test_an_interruption_at_any_line_leaves_a_whole_epoch(build, every):
    """Weights, optimiser and history are those of a fit of so many epochs, or nothing is left.

    The test interrupts at one of `every` lines.
    """
    X = make_rows(30)
    names = ("net", "recovery", "snapshot", "callbacks")
    files = tuple(f"skae/_training/{name}.py" for name in names)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", UserWarning)
        expected = {k: of_training(build(max_iter=k).fit(X)) for k in (1, 2, 3)}
        count = Lines(*files)
        count.run(lambda: build(max_iter=3, n_iter_no_change=5, tol=1e-9).fit(X))
        later = [n for n in count.first.values() if n > count.n // 6]
        # Lines of the first epochs run again in the last one: each is met once more there.
        moments = sorted({*later, *range(count.n // 2, count.n, count.n // 60)})[::every]
        kept = 0
        for at in moments:
            model = build(max_iter=3, n_iter_no_change=5, tol=1e-9)
            try:
                Lines(*files, at=at).run(lambda model=model: model.fit(X))
            except KeyboardInterrupt:
                assert not hasattr(model, "net_")
            else:
                assert_same(of_training(model), expected[model.n_iter_])
                kept += 1
    assert kept > 20 / every  # those of the first epoch, or before, leave nothing


@pytest.mark.parametrize("solver", ["adam", "lbfgs"])
def test_a_copy_that_is_interrupted_leaves_the_one_before(solver):
    """At every line of Snapshot.take there is a whole state to go back to."""
    x = torch.from_numpy(make_rows(10, 3))

    def steps(n):
        torch.manual_seed(0)
        module = torch.nn.Linear(3, 3)
        make = {"adam": torch.optim.Adam, "lbfgs": torch.optim.LBFGS}[solver]
        optimizer = make(module.parameters(), lr=0.1)
        snapshot = Snapshot(module, [optimizer])

        def loss():
            optimizer.zero_grad()
            error = (module(x) - 1).square().mean()
            error.backward()
            return error

        def state():
            return dict(leaves([dict(module.state_dict()), optimizer.state_dict()["state"]]))

        for epoch in range(1, n + 1):
            optimizer.step(loss)
            if epoch < n:
                snapshot.take(epoch)
        return snapshot, state

    def copied(values):
        return {k: v.clone() if isinstance(v, torch.Tensor) else v for k, v in values.items()}

    whole = {n: copied(steps(n)[1]()) for n in (3, 4)}
    at, ended = 0, False
    while not ended:
        at += 1
        snapshot, state = steps(4)
        take = Lines("skae/_training/snapshot.py", at=at)
        try:
            take.run(lambda snapshot=snapshot: snapshot.take(4))
            ended = True
        except KeyboardInterrupt:
            pass
        epoch = snapshot.go_back()
        assert epoch == (4 if ended else 3)
        assert_same(copied(state()), whole[epoch])
    assert at > 5


# --------------------------------------------------------------------------- divergence


@pytest.mark.parametrize("first", ["begin", "fit"])
@pytest.mark.parametrize("solver", ["adam", "adamw", "sgd"])
def test_divergence_at_once_is_an_error(solver, first):
    """It names the epoch and the learning rate, and leaves the estimator as it was."""
    X = make_rows()
    model = network(solver=solver, hidden_layer_sizes=(8, 8))
    if first == "fit":
        model.fit(X)
        before = learned(model)
    model.set_params(learning_rate_init=1e25)
    with pytest.raises(ValueError, match=r"diverged in epoch 1.*learning_rate_init.*1e\+25"):
        model.fit(X)
    if first == "fit":
        assert_same(learned(model), before)
    else:
        with pytest.raises(NotFittedError):
            model.transform(X)


def test_divergence_later_keeps_the_last_epoch():
    """A ConvergenceWarning names the epoch and what to try; what is kept is finite."""
    X = make_rows()
    model = network(
        solver="sgd",
        activation="identity",
        learning_rate_init=1.5,
        momentum=0.0,
        batch_size=30,
        max_iter=300,
        noise_variance=0.1,
    )
    with pytest.warns(ConvergenceWarning, match=r"diverged in epoch \d+.*learning_rate_init"):
        model.fit(X)
    assert 1 <= model.n_iter_ < 300
    assert all(np.isfinite(epoch["train_loss"]) for epoch in model.history_)
    assert all(np.all(np.isfinite(value)) for value in weights(model).values())
    assert np.all(np.isfinite(model.transform(X)))


@pytest.mark.parametrize("max_iter", [1, 2])
def test_the_last_epoch_may_diverge(max_iter):
    """Its loss is measured before its steps, and is finite: what comes after is looked at, too."""
    X = np.random.RandomState(0).randn(100, 5)
    model = LatentDensityEstimator(
        n_channels=4,
        n_mixture=2,
        batch_size=256,
        learning_rate_init=1e3,
        max_iter=max_iter,
        random_state=0,
    )
    with pytest.raises(ValueError, match=r"diverged in epoch \d.*learning_rate_init"):
        model.fit(X)
    assert not hasattr(model, "net_")


class Breaks(Callback):
    """Makes weights, or the scores of rows, useless at the end of an epoch."""

    def __init__(self, epoch, value):
        self.epoch, self.value = epoch, value

    def on_batch_end(self, net, training, **kwargs):
        if training and len(net.history) == self.epoch:
            with torch.no_grad():
                next(net.module_.parameters()).fill_(self.value)


@pytest.mark.parametrize("value", [np.nan, 1e38], ids=str)
@pytest.mark.parametrize("epoch", [2, 4])
def test_what_is_kept_is_of_use(value, epoch):
    """Weights that are not finite, and those at which scores are not, are not kept."""
    X = make_rows()
    params = {"batch_size": 100, "noise_variance": 0.1}
    with pytest.warns(ConvergenceWarning, match=rf"diverged in epoch .*epoch {epoch - 1} is kept"):
        model = network(callbacks=[Breaks(epoch, value)], **params).fit(X)
    assert model.n_iter_ == epoch - 1
    assert_same(weights(model), weights(network(max_iter=epoch - 1, **params).fit(X)))
    assert np.isfinite(model.score_samples(X)).all()
