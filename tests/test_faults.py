"""Faults while training: errors of the user's code, rows that break it, lack of memory, threads.

Whatever fails, the user gets the error itself, and nothing that was there before is lost: neither
the estimator nor the state of the process. Ctrl-C and divergence, which may keep a part of the
training, have their own tests in tests/_training/test_interruptions.py.
"""

import sys
import threading
import warnings

import numpy as np
import pytest
import sklearn
import torch
from contract_helpers import (
    ESTIMATORS,
    assert_finite,
    assert_same_leaves,
    copy_of_fitted,
    fitted,
    law_for,
    make_data,
    may_advise,
    outputs,
    small,
    state,
    trained_on_batches,
)
from sklearn.exceptions import ConvergenceWarning, NotFittedError
from sklearn.mixture import GaussianMixture
from sklearn.model_selection import GridSearchCV as SklearnGridSearchCV
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler
from skorch.callbacks import Callback
from torch import nn

from helpers import assert_same, learned, make_rows, network, own_networks, weights
from skae import (
    VAE,
    VQVAE,
    AdversarialAE,
    Autoencoder,
    Ensemble,
    GridSearchCV,
    LatentDensityEstimator,
    LinearAE,
    OutlierDetector,
)
from skae import _linear_start as linear_start
from skae._densities.index_prior import IndexPriorModule
from skae._training import trainer as trainer_module
from skae._training.data import Dataset

NETWORKS = [E for E in ESTIMATORS if trained_on_batches(E)]
every_network = law_for(NETWORKS)
every_network_with_starts = law_for([E for E in NETWORKS if "n_init" in E().get_params()])


@pytest.fixture(scope="module", autouse=True)
def _packages_are_loaded():
    """Packages that torch loads at the first use, such as sympy, add filters of warnings."""
    fitted(VQVAE)
    brief(VAE, n_init=2).fit(make_data(VAE))


def surroundings():
    """What a process has besides the estimator, and what a fit must leave as it was."""
    return {
        "gradients": torch.is_grad_enabled(),
        "inference mode": torch.is_inference_mode_enabled(),
        "autocast": torch.is_autocast_enabled("cpu"),
        "type of numbers": torch.get_default_dtype(),
        "threads of torch": torch.get_num_threads(),
        "generator of torch": torch.get_rng_state().numpy().copy(),
        "generator of NumPy": np.random.get_state()[1].copy(),  # noqa: NPY002
        # check_array of scikit-learn 1.9 leaves a filter of ComplexWarning if threads overlap.
        "filters": [f for f in warnings.filters if f[2] is not np.exceptions.ComplexWarning],
        "shows warnings": warnings.showwarning,
        "errors of NumPy": np.geterr(),
        "configuration": sklearn.get_config(),
        "threads": sorted(thread.name for thread in threading.enumerate()),
    }


def assert_same_surroundings(before):
    after = surroundings()
    for name, value in before.items():
        np.testing.assert_array_equal(after[name], value, err_msg=name)


# --------------------------------------------------------- errors of the user's callbacks

HOOKS = (
    "initialize",
    "on_train_begin",
    "on_epoch_begin",
    "on_batch_begin",
    "on_grad_computed",
    "on_batch_end",
    "on_epoch_end",
    "on_train_end",
)


# What the present callback does and has counted. It is shared by all its copies and clones.
CASE = {}


class Raises(Callback):
    """Raises an error at one call of a hook; counts the calls of all hooks."""

    def _called(self, hook):
        CASE["calls"][hook] += 1
        if (hook, CASE["calls"][hook]) == (CASE["hook"], CASE["at"]):
            raise CASE["error"]

    def initialize(self):
        self._called("initialize")
        return self


def raises_at(hook=None, at=None, error=None):
    CASE.update(hook=hook, at=at, error=error, calls=dict.fromkeys(HOOKS, 0))
    return Raises()


def _hook(name):
    def method(self, net, *arguments, **keywords):
        self._called(name)

    return method


for _name in HOOKS[1:]:
    setattr(Raises, _name, _hook(_name))


class OwnError(Exception):
    """An error that no library knows."""


# Types that code of skae or of its packages catches for its own purposes come first.
ERRORS = (
    ValueError,
    KeyError,
    RuntimeError,
    StopIteration,
    AttributeError,
    ZeroDivisionError,
    OwnError,
    SystemExit,
    GeneratorExit,
)


def brief(Estimator, **params):
    return small(Estimator).set_params(**{"max_iter": 2, **params})


def counted(build, fit, X, earlier):
    """The number of calls of each hook in a training that is not disturbed."""
    heard = raises_at()
    model = build()
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", UserWarning)
        if earlier:
            model.fit(X)
        getattr(model.set_params(callbacks=[heard]), fit)(X)
    return CASE["calls"]


def check_error(build, fit, X, *, hook, at, error, earlier):
    """A callback raises; the error is the callback's, and nothing has changed."""
    model, undisturbed = build(), build()
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", UserWarning)
        if earlier:
            model.fit(X)
            undisturbed.fit(X)
        before, around = state(model), surroundings()
        model.set_params(callbacks=[raises_at(hook, at, error)])
        with pytest.raises(BaseException) as raised:
            getattr(model, fit)(X)
        assert raised.value is error, (hook, at)
        assert_same_surroundings(around)
        model.set_params(callbacks=None)
        assert_same_leaves(state(model), before)
        getattr(model, fit)(X)
        getattr(undisturbed, fit)(X)
    assert_same_leaves(state(model), state(undisturbed))


def disturbed(build, fit, X, *, earlier=False, hooks=HOOKS):
    """Errors of several kinds at hooks, at the first or at the last call of each."""
    calls = counted(build, fit, X, earlier)
    assert all(calls[hook] for hook in hooks)
    for i, hook in enumerate(hooks):
        cases = [(at, kind) for at in sorted({1, calls[hook]}) for kind in ERRORS]
        at, kind = cases[(5 * i + len(fit)) % len(cases)]
        check_error(build, fit, X, hook=hook, at=at, error=kind("own"), earlier=earlier)


@every_network
@pytest.mark.parametrize(
    ("fit", "earlier"), [("fit", False), ("fit_transform", True), ("partial_fit", True)]
)
@pytest.mark.parametrize("all_hooks", [False, pytest.param(True, marks=pytest.mark.long)])
def test_an_error_of_a_callback_reaches_the_user(Estimator, fit, earlier, all_hooks):
    """The same object, whatever its type; the model and the process are as before.

    What follows is what would have followed without it, bit for bit.
    """
    if not hasattr(Estimator(), fit):
        pytest.skip("the estimator has no such method")
    X = make_data(Estimator)
    hooks = HOOKS if all_hooks else HOOKS[len(fit) % 3 :: 3]
    disturbed(lambda: brief(Estimator), fit, X, earlier=earlier, hooks=hooks)


@every_network
@pytest.mark.parametrize("params", [{"warm_start": True}, {"early_stopping": True}], ids=str)
def test_an_error_when_training_goes_on_or_stops_early(Estimator, params):
    X = make_data(Estimator)
    earlier = "warm_start" in params
    disturbed(lambda: brief(Estimator, **params), "fit", X, earlier=earlier, hooks=HOOKS[5:7])


@every_network_with_starts
def test_an_error_in_one_of_several_starts(Estimator):
    """The fits run in threads of their own, which end."""
    X = make_data(Estimator)
    disturbed(lambda: brief(Estimator, n_init=2), "fit", X, hooks=HOOKS[1::4])


@pytest.mark.parametrize("solver", ["sgd", "lbfgs"])
def test_an_error_with_another_solver(solver):
    """L-BFGS calls the module within the step of the optimiser."""
    X = make_data(Autoencoder)
    disturbed(lambda: brief(Autoencoder, solver=solver), "fit", X, hooks=HOOKS[3:6])


@may_advise
@pytest.mark.parametrize("at", [1, 5])
@pytest.mark.parametrize("earlier", [False, True])
def test_an_error_in_the_prior_of_a_vqvae(at, earlier, monkeypatch):
    """The network is trained by then, and is not kept without its prior."""
    X, error, calls = make_data(VQVAE), ValueError("in the prior"), []
    model = brief(VQVAE, n_codes=4, prior_channels=4)
    if earlier:
        model.fit(X)
    before, around, whole = state(model), surroundings(), IndexPriorModule.loss

    def raises(self, batch):
        calls.append(batch)
        if len(calls) == at:
            raise error
        return whole(self, batch)

    with monkeypatch.context() as patch:
        patch.setattr(IndexPriorModule, "loss", raises)
        with pytest.raises(ValueError) as raised:
            model.fit(X + 1)
    assert raised.value is error
    assert_same_surroundings(around)
    assert_same_leaves(state(model), before)


@may_advise
@pytest.mark.parametrize("stage", ["autoencoder", "density"])
@pytest.mark.parametrize("earlier", [False, True])
def test_an_error_in_a_stage_of_a_density_of_codes(stage, earlier):
    X, error = make_data(Autoencoder), KeyError("in a stage")
    model = LatentDensityEstimator(
        brief(Autoencoder), n_channels=4, n_mixture=2, max_iter=2, random_state=0
    )
    if earlier:
        model.fit(X)
    before, around = state(model), surroundings()
    raises = [raises_at("on_epoch_end", 2, error)]
    name = "callbacks" if stage == "density" else "autoencoder__callbacks"
    model.set_params(**{name: raises})
    with pytest.raises(KeyError) as raised:
        model.fit(X + 1)
    assert raised.value is error
    assert_same_surroundings(around)
    assert_same_leaves(state(model.set_params(**{name: None})), before)


@may_advise
@pytest.mark.parametrize("error", [ValueError("own"), OwnError("own"), SystemExit(3)], ids=repr)
@pytest.mark.parametrize(
    "wrap",
    [
        lambda part: GridSearchCV(part, {"alpha": [0.0, 0.1]}, cv=2, error_score="raise"),
        lambda part: SklearnGridSearchCV(part, {"alpha": [0.0, 0.1]}, cv=2, error_score="raise"),
        lambda part: Ensemble(part, 2, random_state=0),
        lambda part: OutlierDetector(part, random_state=0),
        lambda part: make_pipeline(StandardScaler(), part),
    ],
    ids=["GridSearchCV", "scikit-learn's", "Ensemble", "OutlierDetector", "Pipeline"],
)
def test_an_error_inside_another_estimator(wrap, error):
    """It is raised by the outer one, which is not fitted; no thread of its fits is left."""
    X = make_data(VAE)
    raises = raises_at("on_epoch_end", 2, error)
    outer, around = wrap(brief(VAE, callbacks=[raises])), surroundings()
    with pytest.raises(type(error)) as raised:
        outer.fit(X)
    assert raised.value is error
    assert_same_surroundings(around)
    names = ("best_estimator_", "estimators_", "estimator_", "offset_")
    assert not any(hasattr(outer, name) for name in names)


# ---------------------------------------------------------- errors of the user's networks


class Faulty(nn.Module):
    """A linear map that does something from one of its calls on, in one mode or its gradient."""

    def __init__(self, n_in, n_out, does, at, where):
        super().__init__()
        torch.manual_seed(0)
        self.map, self.does, self.at, self.where = nn.Linear(n_in, n_out), does, at, where
        self.n_calls = 0

    def forward(self, x):
        y = self.map(x)
        if not self.training and self.where == "evaluation":
            return self._now(y)
        if self.training and self.where == "training":
            return self._now(y)
        if self.training and self.where == "gradient" and y.requires_grad:
            y.register_hook(self._now)
        return y

    def _now(self, value):
        self.n_calls += 1
        return self.does(value) if self.n_calls >= self.at else value

    def __deepcopy__(self, memo):
        with torch.random.fork_rng([]):
            new = Faulty(
                self.map.in_features, self.map.out_features, self.does, self.at, self.where
            )
        new.load_state_dict(self.state_dict())
        new.n_calls = self.n_calls
        return new


def faulty(does, at, where):
    with torch.random.fork_rng([]):
        return Faulty(5, 2, does, at, where)


@may_advise
@pytest.mark.parametrize(("where", "at"), [("training", 2), ("gradient", 6), ("evaluation", 2)])
@pytest.mark.parametrize(
    ("Estimator", "params"),
    [
        (Autoencoder, {}),
        (Autoencoder, {"solver": "lbfgs"}),
        (Autoencoder, {"early_stopping": True}),
        (Autoencoder, {"n_init": 2}),
        (VQVAE, {"n_components": 1, "code_dim": 2, "n_codes": 4, "prior_channels": 4}),
        (AdversarialAE, {}),
    ],
    ids=str,
)
def test_an_error_of_a_network_reaches_the_user(Estimator, params, where, at):
    """In training, in evaluation or in the gradient; the given network is as it was."""
    X = make_rows()

    def raises(value):
        raise error

    error = OwnError("in the network")
    mine = faulty(raises, at, where)
    weights = {name: value.clone() for name, value in mine.state_dict().items()}
    model = network(Estimator, **({"encoder": mine} | params))
    before, around = dict(vars(model)), surroundings()
    with pytest.raises(OwnError) as raised:
        model.fit(X)
    assert raised.value is error
    assert vars(model) == before
    with pytest.raises(NotFittedError):
        model.transform(X)
    assert_same_surroundings(around)
    assert mine.n_calls == 0
    assert mine.training
    for name, value in mine.state_dict().items():
        torch.testing.assert_close(value, weights[name], rtol=0, atol=0)


# -------------------------------------------------------------------- lack of memory

LACKS = {
    "torch": lambda: RuntimeError(
        "[enforce fail at alloc_cpu.cpp:127] err == 0. DefaultCPUAllocator: can't allocate memory: "
        "you tried to allocate 8000000000 bytes. Error code 12 (Cannot allocate memory)"
    ),
    "GPU": lambda: torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 2.00 GiB."),
    "NumPy": lambda: np._core._exceptions._ArrayMemoryError((10, 10), np.dtype(float)),
    "Python": MemoryError,
}


@every_network
@pytest.mark.parametrize("lack", LACKS)
@pytest.mark.parametrize("n_init", [1, 2])
@may_advise
def test_too_little_memory_in_a_step(Estimator, lack, n_init, monkeypatch):
    """The error says which batch_size was tried. Nothing is tried again with less memory.

    With several starts, the loss is computed for a stack of networks. A stack that cannot be
    computed is trained one by one, which must not hide that memory is short.
    """
    if n_init > 1 and "n_init" not in Estimator().get_params():
        pytest.skip("the estimator has one start")
    X, model, calls = make_data(Estimator), copy_of_fitted(Estimator), []
    if n_init > 1:
        model.set_params(n_init=n_init)
    kind = type(model.net_.module_)
    before, around, whole = state(model), surroundings(), kind.loss

    def loss(self, *arguments, **keywords):
        if self.training:
            calls.append(1)
            if len(calls) >= (1 if n_init > 1 else 4):
                raise LACKS[lack]()
        return whole(self, *arguments, **keywords)

    with monkeypatch.context() as patch:
        patch.setattr(kind, "loss", loss)
        with pytest.raises(MemoryError, match=r"fit is out of memory.*batch_size \(now 25\)"):
            model.fit(X)
    assert len(calls) == (1 if n_init > 1 else 4)
    assert_same_surroundings(around)
    assert_same_leaves(state(model), before)


@every_network
@may_advise
def test_too_little_memory_beside_the_steps(Estimator, monkeypatch):
    """In the linear start, where the network and batches are made, and in what follows training."""
    X, model = make_data(Estimator), copy_of_fitted(Estimator)
    before = state(model)

    def raises(*arguments, **keywords):
        raise LACKS["NumPy"]()

    places = [(linear_start, "PPCA"), (trainer_module, "Net"), (Dataset, "batch")]
    n_raised = 0
    for module, name in [*places, (Estimator, "_finish")]:
        with monkeypatch.context() as patch:
            patch.setattr(module, name, raises)
            try:
                model.fit(X)
            except MemoryError as error:
                n_raised += 1
                assert "batch_size (now 25)" in str(error), name  # noqa: PT017
                assert_same_leaves(state(model), before)
            else:  # not every estimator begins linearly, or has an encoder
                model = copy_of_fitted(Estimator)
    assert n_raised >= 2


@pytest.mark.parametrize("at", ["encoder", "factory"])
@pytest.mark.parametrize("lack", ["torch", "Python"])
def test_too_little_memory_in_a_network_that_is_tried(at, lack):
    """It is not called a network of the wrong shape."""

    class Large(nn.Module):
        def forward(self, x):
            raise LACKS[lack]()

    def make(n_features, n_components):
        raise LACKS[lack]()

    model = network(encoder=Large() if at == "encoder" else make)
    with pytest.raises(MemoryError, match=r"batch_size \(now 16\)"):
        model.fit(make_rows())


# ------------------------------------------------------------------------- two threads


OWN = own_networks()  # made once, because this seeds torch's generator for a moment


def dropped_networks():
    return network(Autoencoder, **OWN, max_iter=3)


# Fits that use what all threads of a process share: torch's generator, filters of warnings, stacks.
SHARING = {
    "networks of the user": (dropped_networks, make_rows()),
    "others of the user": (lambda: dropped_networks().set_params(random_state=1), make_rows()),
    "linear start": (lambda: brief(VAE), make_data(VAE)),
    "k-means": (lambda: brief(VQVAE, n_codes=4, prior_channels=4), make_data(VQVAE)),
    "several starts": (lambda: brief(Autoencoder, n_init=2), make_data(Autoencoder)),
    "early stopping": (lambda: brief(AdversarialAE, early_stopping=True), make_data(VAE)),
    "density": (
        lambda: LatentDensityEstimator(LinearAE(2), density=GaussianMixture(2), random_state=0),
        make_data(LinearAE),
    ),
    "closed form": (lambda: LinearAE(2), make_data(LinearAE)),
}


@pytest.fixture
def quick_switches():
    """Threads of Python take turns a hundred times as often as usual."""
    before = sys.getswitchinterval()
    sys.setswitchinterval(5e-5)
    yield
    sys.setswitchinterval(before)


def in_threads(*calls):
    """The results of calls that run at the same time."""
    results, ready = [None] * len(calls), threading.Barrier(len(calls))

    def run(i, call):
        ready.wait()
        try:
            results[i] = call()
        except BaseException as error:
            results[i] = error

    threads = [threading.Thread(target=run, args=pair) for pair in enumerate(calls)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    return results


def fit_and_use(name):
    build, X = SHARING[name]
    return outputs(build().fit(X), X)


@pytest.fixture(scope="module")
def alone():
    """What each fit computes where no other runs."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", UserWarning)
        return {name: fit_and_use(name) for name in SHARING}


@may_advise
@pytest.mark.parametrize("repeat", [0, *(pytest.param(i, marks=pytest.mark.long) for i in (1, 2))])
@pytest.mark.parametrize(
    ("first", "second"),
    [
        ("networks of the user", "others of the user"),
        ("networks of the user", "early stopping"),
        ("linear start", "k-means"),
        ("k-means", "several starts"),
        ("several starts", "several starts"),
        ("density", "linear start"),
        ("closed form", "networks of the user"),
    ],
)
def test_two_fits_in_two_threads(first, second, repeat, alone, quick_switches):
    """Each gives the bits that it gives alone, and the process is as before."""
    around = surroundings()
    found = in_threads(lambda: fit_and_use(first), lambda: fit_and_use(second))
    for name, values in zip((first, second), found, strict=True):
        assert not isinstance(values, BaseException), values
        assert_same_leaves(values, alone[name])
    assert_same_surroundings(around)


@every_network
@may_advise
def test_a_fit_beside_the_use_of_another_model(Estimator, quick_switches):
    """A fitted model answers in one thread while another one is trained in a second thread."""
    X = make_data(Estimator)
    model, expected = fitted(Estimator), outputs(fitted(Estimator), X)
    trained = outputs(brief(Estimator).fit(X), X)
    around = surroundings()

    def uses():
        return [outputs(model, X) for _ in range(5)]

    answers, fit = in_threads(uses, lambda: outputs(brief(Estimator).fit(X), X))
    for answer in answers:
        assert_same_leaves(answer, expected)
    assert_same_leaves(fit, trained)
    assert_same_surroundings(around)


# ----------------------------------------------------------------- numbers that are no use


class Poison:
    """Multiplies by a number, in the gradient or in the value."""

    def __init__(self, factor):
        self.factor = factor

    def __call__(self, value):
        return value * self.factor


@pytest.mark.parametrize("factor", [np.nan, np.inf], ids=str)
@pytest.mark.parametrize("where", ["training", "gradient"])
@pytest.mark.parametrize(
    "params",
    [{}, {"solver": "sgd"}, {"solver": "lbfgs"}, {"early_stopping": True}],
    ids=str,
)
def test_a_batch_that_becomes_nan(params, where, factor):
    """From the first epoch: an error that names learning_rate_init. Later: the epoch before.

    L-BFGS rejects steps to a loss that is NaN, and needs an epoch more to end.
    """
    X = make_rows(64)
    with pytest.raises(ValueError, match=r"diverged in epoch [12].*learning_rate_init"):
        network(encoder=faulty(Poison(factor), 1, where), **params).fit(X)
    earlier = network(encoder=faulty(Poison(factor), 10**9, where), **params).fit(X)
    before = learned(earlier)
    earlier.set_params(warm_start=False, encoder=faulty(Poison(factor), 1, where))
    with pytest.raises(ValueError, match=r"diverged in epoch [12]"):
        earlier.fit(X)
    assert_same(learned(earlier), before)
    # An epoch of L-BFGS calls the network up to 25 times, one of the others four times.
    at = 30 if params.get("solver") == "lbfgs" else 9
    model = network(encoder=faulty(Poison(factor), at, where), max_iter=6, **params)
    with pytest.warns(ConvergenceWarning, match=r"diverged in epoch \d.*state after epoch \d is"):
        model.fit(X)
    n = model.n_iter_
    assert 1 <= n < 6
    assert all(np.isfinite(epoch["train_loss"]) for epoch in model.history_)
    assert_finite(outputs(model, X))
    if params.get("solver") != "lbfgs":
        whole = network(encoder=faulty(Poison(factor), 10**9, where), max_iter=n, **params).fit(X)
        assert_same(weights(model), weights(whole))


@may_advise
def test_a_start_that_becomes_nan_is_left_out():
    """With several starts of a network of the user, the others decide."""
    X = make_rows(64)
    model = network(encoder=faulty(Poison(np.nan), 1, "training"), n_init=2)
    with pytest.raises(ValueError, match=r"diverged in epoch [12]"):  # both starts copy the network
        model.fit(X)
    assert not hasattr(model, "net_")
