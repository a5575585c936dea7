"""The engine: how networks are trained, logged, stopped and continued."""

import copy
import pickle
import shutil

import joblib
import numpy as np
import pandas as pd
import pytest
import torch
from scipy import optimize, stats
from sklearn.exceptions import NotFittedError
from skorch.callbacks import (
    Callback,
    EarlyStopping,
    LRScheduler,
)
from torch import nn

from helpers import (
    At,
    Recorder,
    allowed_rows,
    assert_same,
    differ,
    learned,
    leaves,
    make_rows,
    network,
    own_networks,
    parameters,
    standardised,
    weights,
)
from skae import VAE, Autoencoder
from skae._training.data import Batch, Data, Dataset
from skae._training.module import Loss, Phase, TrainableModule
from skae._training.net import Net
from skae._training.snapshot import Snapshot
from skae._training.units import Units

# ------------------------------------------------------------------------- the loop


def plain_loop(recorder, solver, *, alpha, rate, momentum):
    """Squared errors of the same batches, minimised from the same weights."""
    encoder, decoder = recorder.start_.encoder, recorder.start_.decoder
    tensors = [*encoder.parameters(), *decoder.parameters()]
    groups = [
        {"params": [p for p in tensors if p.ndim > 1], "weight_decay": alpha},
        {"params": [p for p in tensors if p.ndim == 1], "weight_decay": 0.0},
    ]
    optimizer = {
        "adam": lambda: torch.optim.Adam(groups, lr=rate, fused=False),
        "adamw": lambda: torch.optim.AdamW(groups, lr=rate, fused=False),
        "sgd": lambda: torch.optim.SGD(groups, lr=rate, momentum=momentum, nesterov=True),
    }[solver]()
    for epoch in recorder.batches_:
        for x in epoch:
            optimizer.zero_grad()
            error = (x - decoder(encoder(x))).square()
            (0.5 * error.mean()).backward()
            optimizer.step()
    return {
        **{f"encoder.{k}": v.detach().numpy() for k, v in encoder.named_parameters()},
        **{f"decoder.{k}": v.detach().numpy() for k, v in decoder.named_parameters()},
    }


@pytest.mark.parametrize("noise_variance", ["scalar", 0.3])
@pytest.mark.parametrize("activation", ["relu", "tanh"])
@pytest.mark.parametrize("solver", ["adam", "adamw", "sgd"])
def test_a_fit_is_a_plain_loop(solver, activation, noise_variance):
    """A hand-written loop over the same batches, from the same weights, ends at the same ones."""
    X = make_rows()
    recorder = Recorder()
    options = {"alpha": 0.05, "momentum": 0.8, "learning_rate_init": 0.01}
    model = network(
        solver=solver,
        activation=activation,
        noise_variance=noise_variance,
        callbacks=[recorder],
        **options,
    ).fit(X)
    center, scale = torch.from_numpy(X.mean(axis=0)), np.sqrt(X.var(axis=0).mean())
    recorder.batches_ = [
        [((rows - center) / scale).float() for rows, _ in epoch] for epoch in recorder.batches_
    ]
    expected = plain_loop(recorder, solver, alpha=0.05, rate=0.01, momentum=0.8)
    assert_same(parameters(model), expected, 1e-4)


@pytest.mark.parametrize("n_rows", [60, 64, 65])
def test_every_epoch_sees_every_row_once(n_rows):
    """In batches, in an order that changes; no batch has a single row."""
    X = make_rows(n_rows)
    recorder = Recorder()
    network(callbacks=[recorder]).fit(X)
    orders = []
    for epoch in recorder.batches_:
        seen = torch.cat([rows for rows, _ in epoch]).numpy()
        distance = np.abs(seen[:, None] - X[None]).max(axis=2)
        orders.append(distance.argmin(axis=1))
        assert distance.min(axis=1).max() < 1e-5 * np.abs(X).max()
        assert min(len(rows) for rows, _ in epoch) > 1
        np.testing.assert_array_equal(np.sort(orders[-1]), np.arange(n_rows))
    assert len({tuple(order) for order in orders}) == len(orders)


def test_decoupled_decay_shrinks_weights_and_not_biases():
    """One step of AdamW with alpha is one without, less rate alpha times the weights."""
    X = make_rows()
    options = {"solver": "adamw", "learning_rate_init": 0.01, "batch_size": 60, "max_iter": 1}
    recorder = Recorder()
    decayed = network(alpha=0.5, callbacks=[recorder], **options).fit(X)
    plain = parameters(network(alpha=0.0, **options).fit(X))
    for name, value in parameters(decayed).items():
        start = recorder.start_.get_parameter(name).detach().numpy()
        expected = -0.01 * 0.5 * start if value.ndim > 1 else np.zeros_like(start)
        np.testing.assert_allclose(value - plain[name], expected, rtol=0, atol=1e-6)


def linear_objective(flat, shapes, Y, alpha):
    """0.5 mean squared error + 0.5 alpha |weights|², of a linear network, in float64."""
    pieces = np.split(flat, np.cumsum([np.prod(s) for s in shapes])[:-1])
    up, up_bias, down, down_bias = (p.reshape(s) for p, s in zip(pieces, shapes, strict=True))
    output = (Y @ up.T + up_bias) @ down.T + down_bias
    penalty = np.square(up).sum() + np.square(down).sum()
    return 0.5 * np.square(Y - output).mean() + 0.5 * alpha * penalty


@pytest.mark.parametrize("alpha", [0.0, 0.02])
def test_alpha_is_an_l2_penalty(alpha):
    """At L-BFGS's optimum the numerical gradient of error plus penalty is zero."""
    X = make_rows()
    model = network(
        solver="lbfgs", hidden_layer_sizes=(), activation="identity", alpha=alpha, max_iter=30
    ).fit(X)
    found = [v.astype(np.float64) for v in parameters(model).values()]
    shapes, flat = [v.shape for v in found], np.concatenate([v.ravel() for v in found])
    Y = standardised(X)
    gradient = optimize.approx_fprime(flat, linear_objective, 1e-6, shapes, Y, alpha)
    elsewhere = optimize.approx_fprime(flat, linear_objective, 1e-6, shapes, Y, alpha + 0.02)
    assert np.abs(gradient).max() < 1e-4
    assert np.abs(elsewhere).max() > 1e-3


def test_lbfgs_takes_all_rows_at_once_and_beats_adam():
    """One batch an epoch, in any batch_size; a lower loss in as many epochs."""
    X = make_rows()
    recorder = Recorder()
    model = network(solver="lbfgs", callbacks=[recorder], max_iter=10).fit(X)
    assert [[len(rows) for rows, _ in epoch] for epoch in recorder.batches_] == [[60]] * 10
    other = network(solver="lbfgs", batch_size=1000, max_iter=10).fit(X)
    assert_same(weights(model), weights(other))
    assert model.score(X) > network(max_iter=10, learning_rate_init=0.01).fit(X).score(X)


def test_lbfgs_is_scipys():
    """The penalised optimum of a linear network is that of SciPy's L-BFGS."""
    X = make_rows()
    model = network(
        solver="lbfgs", hidden_layer_sizes=(), activation="identity", alpha=0.02, max_iter=30
    ).fit(X)
    found = [v.astype(np.float64) for v in parameters(model).values()]
    shapes, flat = [v.shape for v in found], np.concatenate([v.ravel() for v in found])
    arguments = (shapes, standardised(X), 0.02)
    start = np.random.default_rng(0).normal(size=len(flat))
    best = optimize.minimize(linear_objective, start, arguments, method="L-BFGS-B", tol=1e-12)
    assert linear_objective(flat, *arguments) == pytest.approx(best.fun, rel=1e-4)


# ------------------------------------------------------------------ steps within the step


class InTurn(TrainableModule):
    """One linear map follows the rows' sum, another the first, a third the second, times 2.

    Each has an optimiser of its own; the second reads what the first gave before its step.
    """

    def __init__(self, rates=(0.5, 2.0)):
        super().__init__()
        self.first, self.second, self.third = (nn.Linear(3, 1, bias=False) for _ in range(3))
        with torch.no_grad():
            for i, layer in enumerate((self.first, self.second, self.third)):
                layer.weight.copy_(torch.tensor([[1.0, -1.0, 0.5]]) * (i + 1))
        self.rates = rates
        self.heard = []

    def loss(self, batch):
        out = self.first(batch.x)
        error = (out - batch.x.sum(1, keepdim=True)).square().mean()
        return Loss({"error": error}, out, (out,))

    def phases(self):
        return [
            Phase("second", self.follow, list(self.second.parameters()), self.rates[0]),
            Phase("third", self.follow_twice, list(self.third.parameters()), self.rates[1]),
        ]

    def follow(self, batch, before):
        self.heard.append((torch.is_grad_enabled(), before.aux[0].requires_grad, self.training))
        return (self.second(batch.x) - before.aux[0]).square().mean()

    def follow_twice(self, batch, before):
        # That the second is read does not make it this phase's.
        return (self.third(batch.x) - 2 * self.second(batch.x)).square().mean()

    def after_step(self, batch, loss):
        self.heard.append("after")


def as_rows(X):
    units = Units(None, None)
    return Dataset(Data(X), units=units, with_mask=False, reread=True, device=torch.device("cpu"))


def trained_in_turn(epochs, module=None, valid=None, **params):
    """The net, after some epochs of one batch."""
    options = {"solver": "sgd", "momentum": 0.0, "lr": 0.05, "batch_size": 100}
    net = Net(module or InTurn(), **{**options, **params}).initialize()
    X = np.random.default_rng(0).normal(size=(20, 3)).astype(np.float32)
    return net.train(as_rows(X), torch.arange(20), valid, epochs), X


@pytest.mark.parametrize("rates", [(0.5, 2.0), (1.0, 1.0)])
def test_phases_are_gradient_steps_in_turn(rates):
    """By hand in NumPy: what is read of earlier phases is from before or after their step."""
    net, X = trained_in_turn(3, InTurn(rates))
    X = X.astype(np.float64)
    a, b, c = (np.array([1.0, -1.0, 0.5]) * k for k in (1, 2, 3))
    losses = []
    for _ in range(3):
        aside = X @ a
        errors = [aside - X.sum(axis=1)]
        a = a - 0.05 * 2 / 20 * X.T @ errors[0]
        errors.append(X @ b - aside)
        b = b - 0.05 * rates[0] * 2 / 20 * X.T @ errors[1]
        errors.append(X @ c - 2 * X @ b)
        c = c - 0.05 * rates[1] * 2 / 20 * X.T @ errors[2]
        losses.append([np.square(error).mean() for error in errors])
    module = net.module_
    for layer, expected in ((module.first, a), (module.second, b), (module.third, c)):
        np.testing.assert_allclose(layer.weight.detach()[0], expected, rtol=1e-5)
    names = ("train_loss", "train_second", "train_third")
    np.testing.assert_allclose([[e[n] for n in names] for e in net.history], losses, rtol=1e-4)
    assert [epoch["train_error"] for epoch in net.history] == [e["train_loss"] for e in net.history]


def test_phases_are_given_what_came_before_detached():
    """In training with gradients of their own; held-out rows are only logged."""
    held_out = torch.arange(5)
    net, _ = trained_in_turn(2, valid=held_out)
    assert net.module_.heard == [(True, False, True), "after", (False, False, False)] * 2
    for epoch in net.history:
        assert {"valid_loss", "valid_second", "valid_third"} <= set(epoch)
    assert_same(weights_of(net), weights_of(trained_in_turn(2)[0]))


def weights_of(net):
    return {k: v.numpy().copy() for k, v in net.module_.state_dict().items()}


def test_phases_follow_the_schedule():
    """At the end of a cosine nothing moves: rates are multiples of the main one."""
    recorder = RatesOfAll()
    trained_in_turn(20, learning_rate="cosine", callbacks=[recorder])
    rates = np.array(recorder.rates_)
    np.testing.assert_allclose(rates[:, 1:], rates[:, :1] * [0.5, 2.0], rtol=1e-9)
    assert rates[:, 0].max() == pytest.approx(0.05, rel=0.05)
    assert rates[-1, 0] < 0.01 * rates[:, 0].max()


class RatesOfAll(Callback):
    """Of all optimisers, as they stepped."""

    def on_train_begin(self, net, **kwargs):
        self.rates_ = []

    def on_batch_begin(self, net, **kwargs):
        self._rate = net.optimizer_.param_groups[0]["lr"]

    def on_batch_end(self, net, **kwargs):
        later = [optimizer.param_groups[0]["lr"] for optimizer in net.optimizers_[1:]]
        self.rates_.append([self._rate, *later])


@pytest.mark.parametrize("solver", ["adam", "adamw", "sgd"])
def test_a_snapshot_holds_every_optimiser(solver):
    """After going back, the same steps lead to the same weights, bit for bit."""
    module = InTurn()
    net = Net(module, solver=solver, lr=0.1, alpha=0.01, momentum=0.9).initialize()
    snapshot = Snapshot(module, net.optimizers_)
    x = torch.from_numpy(make_rows(10, 3))

    def step():
        for layer, optimizer in zip(
            (module.first, module.second, module.third), net.optimizers_, strict=True
        ):
            optimizer.zero_grad()
            (layer(x) - 1).square().mean().backward()
            optimizer.step()

    def state():
        states = [optimizer.state_dict()["state"] for optimizer in net.optimizers_]
        assert all(states)
        return copy.deepcopy(dict(leaves([dict(module.state_dict()), *states])))

    for epoch in (1, 2, 3):
        step()
        snapshot.take(epoch)
    kept = state()
    step()
    later = state()
    step()
    assert differ(later, kept)
    assert snapshot.go_back() == 3
    assert_same(state(), kept)
    step()
    assert_same(state(), later)


# ------------------------------------------------------------------- what alpha penalises


class TwoMaps(TrainableModule):
    """Two linear maps of zeros, so that nothing but the penalty moves them."""

    def __init__(self, names):
        super().__init__()
        self.one, self.other = nn.Linear(3, 2), nn.Linear(3, 2)
        self.names = names

    def loss(self, batch):
        out = self.one(0 * batch.x) + self.other(0 * batch.x)
        return Loss({"error": (0 * out).sum()}, out)

    def decayed(self):
        return super().decayed() if self.names is None else [getattr(self, self.names).weight]


@pytest.mark.parametrize("solver", ["adam", "adamw", "sgd", "lbfgs"])
@pytest.mark.parametrize(("names", "smaller"), [(None, ("one", "other")), ("other", ("other",))])
def test_the_module_says_what_alpha_penalises(solver, names, smaller):
    """Weights, unless it names others; biases never."""
    module = TwoMaps(names)
    with torch.no_grad():
        for parameter in module.parameters():
            parameter.fill_(0.5)
    trained_in_turn(1, module, solver=solver, alpha=0.2, lr=0.1)
    for name, parameter in module.named_parameters():
        value = parameter.detach().numpy()
        if name.split(".")[0] in smaller and name.endswith("weight"):
            # A step down the gradient, one of a fixed length, or all the way to the optimum.
            expected = {"adam": 0.4, "lbfgs": 0.0}.get(solver, 0.5 * (1 - 0.1 * 0.2))
            np.testing.assert_allclose(value, expected, atol=1e-5)
        else:
            np.testing.assert_array_equal(value, 0.5)


@pytest.mark.parametrize("prior", ["mixture", "vamp"])
def test_a_learned_prior_is_not_pulled_to_zero(prior):
    """alpha shrinks the weights of the layers, and nothing of where p(z) lies."""
    model = VAE(
        2, prior=prior, n_prior_components=3, alpha=0.1, max_iter=1, random_state=0, device="cpu"
    ).fit(make_rows())
    module = model.net_.module_
    decayed = {id(p) for p in module.decayed()}
    for name, parameter in module.named_parameters():
        of_a_layer = name.startswith(("encoder.", "decoder.")) and name.endswith("weight")
        assert (id(parameter) in decayed) == of_a_layer, name
    groups = model.net_.optimizer_.param_groups
    penalised = {id(p) for g in groups if g["weight_decay"] > 0 for p in g["params"]}
    assert penalised == decayed
    everything = {id(p) for g in groups for p in g["params"]}
    assert everything == {id(p) for p in module.parameters()}


@pytest.mark.parametrize(
    "params",
    [{"noise": "gaussian"}, {"latent_growth": "nested"}, {"contraction": 0.1}],
    ids=lambda params: next(iter(params)),
)
def test_what_is_held_out_is_read_as_it_is(params):
    """Batches are prepared for training only; nothing is drawn for others."""
    module = network(**params).fit(make_rows()).net_.module_
    x = torch.from_numpy(make_rows())
    batch, generator = Batch(x, x), torch.Generator().manual_seed(0)
    before = generator.get_state()
    assert module.eval().prepare(batch, generator) is batch
    assert torch.equal(generator.get_state(), before)
    prepared = module.train().prepare(batch, generator)
    assert not torch.equal(generator.get_state(), before)
    assert any(new is not old for new, old in zip(prepared, batch, strict=True))
    torch.testing.assert_close(batch.x, torch.from_numpy(make_rows()))


# -------------------------------------------------------------------- learning rates


def rates(n_rows=60, **params):
    recorder = Recorder()
    network(callbacks=[recorder], learning_rate_init=0.01, **params).fit(make_rows(n_rows))
    return np.array(recorder.rates_), np.array(recorder.end_rates_)


def test_a_constant_rate():
    """It stays learning_rate_init."""
    of_batches, of_epochs = rates(learning_rate="constant")
    assert set(of_batches) == set(of_epochs) == {0.01}


@pytest.mark.parametrize(
    ("n_rows", "batch_size"), [(60, 16), (64, 16), (65, 16), (12, 1), (60, 1000), (2, 1)]
)
def test_a_cosine_rises_and_falls(n_rows, batch_size):
    """For a tenth of all steps it rises to learning_rate_init, and ends at zero."""
    of_batches, of_epochs = rates(
        n_rows, learning_rate="cosine", max_iter=20, batch_size=batch_size
    )
    assert len(of_epochs) == 20
    top = of_batches.argmax()
    assert abs(top / len(of_batches) - 0.1) < 0.05
    assert of_batches[top] == pytest.approx(0.01, rel=0.02)
    assert np.all(np.diff(of_batches[: top + 1]) > 0)
    assert np.all(np.diff(of_batches[top:]) < 0)
    assert of_epochs[-1] == pytest.approx(0.0, abs=1e-8)


@pytest.mark.parametrize("n_rows", [60, 64, 65])
def test_invscaling_falls_with_the_root_of_the_epoch(n_rows):
    """After e epochs it is learning_rate_init / sqrt(1 + e)."""
    of_batches, of_epochs = rates(n_rows, learning_rate="invscaling", max_iter=6)
    assert of_batches[0] == 0.01
    np.testing.assert_allclose(of_epochs, 0.01 / np.sqrt(1 + np.arange(1, 7)), rtol=1e-6)
    assert np.all(np.diff(of_batches) < 0)


@pytest.mark.parametrize("early_stopping", [False, True])
def test_an_adaptive_rate_is_divided_by_five_when_the_loss_is_flat(early_stopping):
    """No improvement by tol in two epochs divides it, and two more divide it again."""
    flat = {"tol": 1e6, "n_iter_no_change": 50, "early_stopping": early_stopping}
    _, of_epochs = rates(learning_rate="adaptive", max_iter=7, **flat)
    np.testing.assert_allclose(of_epochs * 100, [1, 1, 0.2, 0.2, 0.04, 0.04, 0.008], rtol=1e-6)


def test_an_adaptive_rate_stays_while_the_loss_falls():
    """A loss that falls by more than tol keeps the rate."""
    _, of_epochs = rates(learning_rate="adaptive", max_iter=6, tol=1e-6)
    assert set(of_epochs) == {0.01}


@pytest.mark.parametrize("learning_rate", ["constant", "cosine", "invscaling", "adaptive"])
def test_batches_are_not_recorded_when_none_listens(learning_rate):
    """What costs time per batch is done only for callbacks that hear batches."""
    model = network(learning_rate=learning_rate).fit(make_rows())
    # An epoch has four batches; skorch's checkpoints want an entry for one.
    assert max(len(epoch["batches"]) for epoch in model.history_) <= 1


# ------------------------------------------------------------------------- stopping


@pytest.mark.parametrize("tol", [0.0, 1e-4, 1.0])
def test_early_stopping_goes_back_to_the_best_epoch(tol):
    """The held-out rows' loss at the end is the smallest of all epochs."""
    X = make_rows(80)
    recorder = Recorder()
    model = network(
        early_stopping=True,
        validation_fraction=0.25,
        n_iter_no_change=8,
        learning_rate_init=0.05,
        solver="sgd",
        momentum=0.9,
        batch_size=4,
        noise_variance=0.1,
        max_iter=60,
        tol=tol,
        callbacks=[recorder],
    ).fit(X)
    held_out = torch.cat([rows for rows, _ in recorder.held_out_]).double().numpy()
    assert len(held_out) == 20
    residuals = held_out - model.reconstruct(held_out)
    loss = -stats.norm(scale=np.sqrt(0.1)).logpdf(residuals).sum(axis=1).mean()
    losses = [epoch["valid_loss"] for epoch in model.history_]
    assert losses[-1] > min(losses)
    assert loss == pytest.approx(min(losses), rel=1e-4)


def test_held_out_rows_are_not_trained_on():
    """Training and held-out rows are a partition of the rows, in the units of X."""
    X = make_rows(40)
    recorder = Recorder()
    network(early_stopping=True, callbacks=[recorder]).fit(X)
    held_out = torch.cat([rows for rows, _ in recorder.held_out_])
    trained = torch.cat([rows for rows, _ in recorder.batches_[0]])
    assert len(held_out) == 4
    together = np.sort(torch.cat([held_out, trained]).numpy(), axis=0)
    np.testing.assert_allclose(together, np.sort(X, axis=0), rtol=1e-5, atol=1e-5)


def test_too_few_rows_to_hold_out():
    """A share that leaves no row to train on is an error that names validation_fraction."""
    with pytest.raises(ValueError, match=r"validation_fraction=0.9"):
        network(early_stopping=True, validation_fraction=0.9).fit(make_rows(3))


def test_a_flat_loss_ends_training():
    """n_iter_no_change epochs that do not improve by tol end it; with tol=0 none do."""
    X = make_rows()
    flat = {"learning_rate_init": 1e-9, "max_iter": 30, "n_iter_no_change": 4}
    model = network(tol=1e6, **flat).fit(X)
    assert model.n_iter_ == len(model.history_) == 5
    model = network(tol=0.0, noise_variance=0.1, **flat).fit(X)
    assert model.n_iter_ == len(model.history_) == 30


def test_a_falling_loss_does_not_end_training():
    """As long as the loss improves by tol, training goes on."""
    model = network(tol=1e-4, max_iter=15, n_iter_no_change=2, learning_rate_init=0.01)
    assert model.fit(make_rows()).n_iter_ == 15


# ---------------------------------------------------------------------- the history


def rows_for(likelihood):
    return allowed_rows(likelihood, make_rows(), 3.0)


@pytest.mark.parametrize("weighted", [False, True])
@pytest.mark.parametrize(
    ("likelihood", "noise_variance"),
    [
        ("gaussian", 0.2),
        ("laplace", 0.2),
        ("bernoulli", "scalar"),
        ("continuous_bernoulli", "scalar"),
        ("poisson", "scalar"),
    ],
)
def test_the_history_is_minus_the_score(likelihood, noise_variance, weighted):
    """Losses are nats per row of the same rows: where nothing moves, minus the score."""
    X = rows_for(likelihood)
    weight = np.random.default_rng(1).uniform(0.5, 2.0, len(X)) if weighted else None
    model = network(
        likelihood=likelihood, noise_variance=noise_variance, learning_rate_init=1e-12
    ).fit(X, sample_weight=weight)
    for epoch in model.history_:
        expected = -model.score(X, sample_weight=weight)
        assert epoch["train_loss"] == pytest.approx(expected, rel=1e-5)


@pytest.mark.parametrize("likelihood", ["gaussian", "laplace"])
def test_the_history_follows_the_learned_noise(likelihood):
    """Where the weights stay, the running noise settles, and the loss on minus the score."""
    X = make_rows(512)
    model = network(likelihood=likelihood, learning_rate_init=1e-12, max_iter=4).fit(X)
    assert model.history_[-1]["train_loss"] == pytest.approx(-model.score(X), abs=0.05)


def test_terms_add_up():
    """Named terms of the loss are recorded, and their sum is the loss."""
    model = network(
        sparsity=0.2,
        contraction=0.1,
        perceptual=(nn.Linear(5, 3), 0.5),
        early_stopping=True,
    ).fit(make_rows())
    names = ["reconstruction", "sparsity", "contraction", "perceptual"]
    for epoch in model.history_:
        terms = [epoch[f"train_{name}"] for name in names]
        assert all(np.isfinite(terms))
        assert epoch["train_loss"] == pytest.approx(sum(terms), rel=1e-6)
        # Held-out rows are not differentiated.
        terms = [epoch[f"valid_{name}"] for name in names if f"valid_{name}" in epoch]
        assert epoch["valid_loss"] == pytest.approx(sum(terms), rel=1e-6)


def test_epochs_are_counted():
    """The history has one entry an epoch, numbered from 1."""
    model = network(max_iter=3).fit(make_rows())
    assert [epoch["epoch"] for epoch in model.history_] == [1, 2, 3]
    assert model.n_iter_ == 3


# ------------------------------------------------------------------ reproducibility


def test_workers_give_the_same_bits():
    """Two fits beside each other do, and one with other threads agrees to 1e-4."""
    X = make_rows(300, 40)
    common = {"batch_size": 100, "max_iter": 4, "tol": 0.0, "random_state": 0, "device": "cpu"}
    built = {**common, "hidden_layer_sizes": (64,), "noise": "gaussian"}
    own = {**common, **own_networks(40)}

    # Within the test, so that workers need not import the tests.
    def fit(params, n_threads):
        before = torch.get_num_threads()
        torch.set_num_threads(n_threads)
        try:
            model = Autoencoder(**params).fit(X)
            state = model.net_.module_.state_dict()
            return {name: value.numpy() for name, value in state.items()}, model.score(X)
        finally:
            torch.set_num_threads(before)

    jobs = [(built, 1), (built, 1), (own, 1), (own, 1), (built, 2)]
    with joblib.parallel_config("loky", n_jobs=2, inner_max_num_threads=1):
        found = joblib.Parallel()(joblib.delayed(fit)(*job) for job in jobs)
    for first, second in ((0, 1), (2, 3)):
        assert_same(found[first][0], found[second][0])
        assert found[first][1] == found[second][1]
    assert_same(found[4][0], found[0][0], 1e-4)
    if torch.get_num_threads() == 1:
        assert_same(weights(Autoencoder(**built).fit(X)), found[0][0])


@pytest.mark.parametrize("own", [False, True])
def test_nothing_global_matters(own):
    """Whatever state torch's and NumPy's generators are in, and stay in, the bits are the same."""
    X = make_rows()
    params = own_networks() if own else {"noise": "salt_and_pepper", "latent_growth": "nested"}

    class Drawing(Callback):
        def on_epoch_begin(self, net, **kwargs):
            np.random.random()  # noqa: NPY002 (the generator that must not matter)
            if not own:
                torch.rand(3)

    torch.manual_seed(1)
    first = network(callbacks=[Drawing()], **params).fit(X)
    before = torch.random.get_rng_state()
    second = network(**params).fit(X)
    assert torch.equal(torch.random.get_rng_state(), before)
    assert_same(learned(first), learned(second))
    torch.manual_seed(2)
    first.partial_fit(X)
    torch.manual_seed(3)
    before = torch.random.get_rng_state()
    second.partial_fit(X)
    assert torch.equal(torch.random.get_rng_state(), before)
    assert_same(learned(first), learned(second))


def test_the_seed_matters():
    """Another random_state is another model."""
    X = make_rows()
    assert differ(weights(network().fit(X)), weights(network(random_state=1).fit(X)))


# -------------------------------------------------------------- going on with training


SOLVERS = ["adam", "adamw", "sgd", "lbfgs"]


@pytest.mark.parametrize("solver", SOLVERS)
def test_warm_start_goes_on(solver):
    """Twice three epochs are six: bit for bit, where the rate and the noise are constant."""
    X = make_rows()
    params = {"solver": solver, "noise_variance": 0.2}
    model = network(max_iter=3, warm_start=True, **params).fit(X)
    first = copy.deepcopy(list(model.history_))
    model.fit(X)
    assert model.n_iter_ == len(model.history_) == 6
    assert list(model.history_)[:3] == first
    expected = network(max_iter=6, **params).fit(X)
    assert_same(weights(model), weights(expected))
    losses = [[epoch["train_loss"] for epoch in m.history_] for m in (model, expected)]
    assert losses[0] == losses[1]


def test_warm_start_goes_on_with_learned_noise():
    """The noise settles after every fit; the network does not mind."""
    X = make_rows()
    model = network(max_iter=3, warm_start=True).fit(X).fit(X)
    expected = network(max_iter=6).fit(X)
    assert_same(parameters(model), parameters(expected), 1e-4)
    assert model.noise_variance_ == pytest.approx(expected.noise_variance_, rel=1e-4)


def test_warm_start_of_the_first_fit_is_a_fit():
    """With nothing to go on from, nothing differs; without warm_start all starts anew."""
    X = make_rows()
    model = network(warm_start=True).fit(X)
    assert_same(weights(model), weights(network().fit(X)))
    assert_same(weights(model.set_params(warm_start=False).fit(X)), weights(network().fit(X)))


@pytest.mark.parametrize("method", ["fit", "partial_fit"])
@pytest.mark.parametrize(
    ("params", "key"),
    [({"learning_rate_init": 1e-7}, "lr"), ({"alpha": 0.7}, "weight_decay")],
    ids=["learning_rate_init", "alpha"],
)
def test_training_goes_on_with_the_present_parameters(params, key, method):
    """A learning rate or penalty that was changed in between is the one that counts."""
    X = make_rows()
    heard = []

    class Groups(Callback):
        def on_batch_begin(self, net, **kwargs):
            heard.append(net.optimizer_.param_groups[0][key])

    model = network(warm_start=True).fit(X)
    getattr(model.set_params(callbacks=[Groups()], **params), method)(X)
    assert set(heard) == set(params.values())


def test_another_solver_goes_on_from_the_weights():
    """Changing solver keeps the weights: L-BFGS after Adam lowers the loss further."""
    X = make_rows()
    model = network(warm_start=True, noise_variance=0.2).fit(X)
    before = model.score(X)
    model.set_params(solver="lbfgs").fit(X)
    assert model.n_iter_ == 8
    assert -model.history_[4]["train_loss"] == pytest.approx(before, rel=1e-5)
    assert model.score(X) > before


@pytest.mark.parametrize("learning_rate", ["cosine", "invscaling"])
def test_every_fit_has_a_schedule_of_its_own(learning_rate):
    """A warm start runs through the rates of a first fit again; partial_fit has none."""
    X = make_rows()
    first, second, single = Recorder(), Recorder(), Recorder()
    params = {"learning_rate": learning_rate, "learning_rate_init": 0.01}
    model = network(warm_start=True, callbacks=[first], **params).fit(X)
    model.set_params(callbacks=[second]).fit(X)
    assert first.rates_ == second.rates_
    model.set_params(callbacks=[single]).partial_fit(X)
    assert set(single.rates_) == {0.01}


@pytest.mark.parametrize("method", ["fit", "partial_fit"])
@pytest.mark.parametrize(
    ("params", "width", "named"),
    [({"n_components": 3}, 5, r"n_components=3.*2"), ({}, 6, r"6 features.* 5")],
    ids=["n_components", "width"],
)
def test_what_cannot_change_while_training_goes_on(params, width, named, method):
    """Another n_components or width is an error that names both; the model stays."""
    model = network(warm_start=True).fit(make_rows())
    before = learned(model)
    model.set_params(**params)
    with pytest.raises(ValueError, match=named):
        getattr(model, method)(make_rows(60, width))
    assert_same(learned(model), before)


@pytest.mark.parametrize("solver", SOLVERS)
def test_partial_fit_is_one_epoch(solver):
    """Three calls with the same rows train as a fit of three epochs does."""
    X = make_rows()
    params = {"solver": solver, "noise_variance": 0.2}
    model = network(**params)
    for epoch in (1, 2, 3):
        model.partial_fit(X)
        assert model.n_iter_ == len(model.history_) == epoch
    assert_same(weights(model), weights(network(max_iter=3, **params).fit(X)))


def test_partial_fit_after_fit_goes_on():
    """An epoch after a fit is that of a longer fit."""
    X = make_rows()
    params = {"noise_variance": 0.2}
    model = network(max_iter=3, **params).fit(X).partial_fit(X)
    assert_same(weights(model), weights(network(max_iter=4, **params).fit(X)))


def test_partial_fit_weighs_calls():
    """Noise and moments are averages in which an earlier call counts 0.9 times the next."""
    parts = np.split(make_rows(90), 3)
    model = network(learning_rate_init=1e-12)
    for part in parts:
        model.partial_fit(part)
    share = 0.9 ** np.arange(2, -1, -1)
    codes = [model.transform(part).astype(np.float64) for part in parts]
    mean = np.average([c.mean(axis=0) for c in codes], axis=0, weights=share)
    np.testing.assert_allclose(model.code_mean_, mean, rtol=1e-4, atol=1e-5)
    covariance = np.cov(np.concatenate(codes).T, aweights=np.repeat(share, 30), bias=True)
    np.testing.assert_allclose(model.code_covariance_, covariance, rtol=1e-4, atol=1e-5)
    errors = [np.square(part - model.reconstruct(part)).mean() for part in parts]
    assert model.noise_variance_ == pytest.approx(np.average(errors, weights=share), rel=1e-4)


@pytest.mark.parametrize("hook", ["on_epoch_begin", "on_grad_computed", "on_batch_end"])
def test_a_partial_fit_that_fails_changes_nothing(hook):
    """Whenever a callback raises, weights, optimiser and history are bit for bit as before."""
    X = make_rows()
    model = network().partial_fit(X)
    before = learned(model)
    model.set_params(callbacks=[At(2, RuntimeError, hook)])
    with pytest.raises(RuntimeError, match="inconvenient"):
        model.partial_fit(X)
    assert_same(learned(model), before)
    model.set_params(callbacks=None)
    assert_same(weights(model.partial_fit(X)), weights(network().partial_fit(X).partial_fit(X)))


# ------------------------------------------------------------- precision and devices


def test_bfloat16_trains():
    """Almost as well as float32, with weights and codes in float32."""
    X = make_rows(200)
    options = {"max_iter": 40, "learning_rate_init": 0.01}
    wide = network(**options).fit(X)
    narrow = network(precision="bfloat16", **options).fit(X)
    assert differ(weights(wide), weights(narrow))
    assert narrow.score(X) == pytest.approx(wide.score(X), abs=0.5)
    assert all(p.dtype == torch.float32 for p in narrow.net_.module_.parameters())
    codes = narrow.transform(X)
    assert codes.dtype == np.float32
    # Codes of bfloat16 would have eight bits.
    assert np.any(torch.from_numpy(codes).bfloat16().float().numpy() != codes)
    layers = narrow.net_.module_.encoder
    x = torch.from_numpy(standardised(X)).float()
    np.testing.assert_allclose(codes, layers(x).detach().numpy(), rtol=1e-5, atol=1e-5)


# torch's compiler, when it is first imported, uses what torch itself has deprecated.
@pytest.mark.filterwarnings("ignore:`torch.jit.script_method` is deprecated:DeprecationWarning")
@pytest.mark.skipif(shutil.which("g++") is None, reason="torch.compile needs a C++ compiler")
def test_a_compiled_loss_trains_alike():
    """compile=True ends at the same weights to 1e-4."""
    X = make_rows(32)
    options = {"max_iter": 2, "learning_rate_init": 0.01, "hidden_layer_sizes": (4,)}
    compiled = network(compile=True, **options).fit(X)
    assert_same(weights(compiled), weights(network(**options).fit(X)), 1e-4)
    pickle.loads(pickle.dumps(compiled)).transform(X)


@pytest.mark.parametrize("device", ["cuda:99", "nonsense", "cpu:x", "meta", ""])
def test_devices_that_are_none(device):
    """A device that cannot be is a ValueError that names it and 'auto'; nothing is fitted."""
    model = network(device=device)
    with pytest.raises(ValueError, match=rf"device='{device}'.*'auto'"):
        model.fit(make_rows())
    with pytest.raises(NotFittedError):
        model.transform(make_rows())


@pytest.mark.skipif(torch.cuda.is_available(), reason="the law is for machines without CUDA")
@pytest.mark.parametrize(
    "params",
    [{}, own_networks(), {"perceptual": (nn.Linear(5, 3), 0.5)}, {"latent_growth": "nested"}],
    ids=lambda params: "-".join(params) or "default",
)
def test_a_model_of_a_gpu_loads_on_the_cpu(params):
    """A file from a machine with CUDA encodes on one without; training asks for a device."""
    X = make_rows()
    model = network(**params).fit(X)
    state = model.__getstate__()
    state["device"] = "cuda"
    loaded = Autoencoder.__new__(Autoencoder)
    loaded.__setstate__(pickle.loads(pickle.dumps(state)))
    np.testing.assert_array_equal(loaded.transform(X), model.transform(X))
    assert loaded.score(X) == model.score(X)
    if "latent_growth" in params:
        np.testing.assert_array_equal(
            loaded.truncate(1).transform(X), model.truncate(1).transform(X)
        )
    with pytest.raises(ValueError, match=r"device='cuda'"):
        loaded.partial_fit(X)
    loaded.set_params(device="cpu")
    assert_same(weights(loaded.partial_fit(X)), weights(model.partial_fit(X)))


@pytest.mark.parametrize("solver", ["adam", "lbfgs"])
def test_training_needs_no_gradients_of_the_caller(solver):
    """It is the same where these are off, which they are afterwards, too."""
    X = make_rows()
    expected = weights(network(solver=solver).fit(X))
    with torch.no_grad():
        model = network(solver=solver).fit(X)
        assert not torch.is_grad_enabled()
    assert_same(weights(model), expected)


# ------------------------------------------------- what a fitted model depends on


@pytest.mark.parametrize(
    ("params", "later"),
    [
        ({}, {"solver": "lbfgs"}),
        ({"solver": "lbfgs"}, {"solver": "adam"}),
        ({"solver": "sgd"}, {"solver": "adam"}),
        ({}, {"likelihood": "bernoulli"}),
        ({}, {"hidden_layer_sizes": (3, 3)}),
        ({}, {"latent_growth": "nested"}),
        ({"latent_growth": "nested"}, {"latent_growth": None}),
        (own_networks(), {"encoder": None, "decoder": None}),
        ({}, own_networks()),
    ],
    ids=str,
)
def test_a_fitted_model_does_not_change_until_it_is_refitted(params, later):
    """Parameters that are set afterwards change no result, no file and no method."""
    X = make_rows()
    model = network(**params).fit(X)
    expected = {m: getattr(model, m)(X) for m in ("transform", "reconstruct", "score_samples")}
    ordered = hasattr(model, "truncate")
    model.set_params(**later)
    for copied in (model, pickle.loads(pickle.dumps(model)), copy.deepcopy(model)):
        for method, values in expected.items():
            np.testing.assert_array_equal(getattr(copied, method)(X), values, err_msg=method)
        assert hasattr(copied, "truncate") == ordered


@pytest.mark.parametrize(
    "change",
    [
        {"likelihood": "laplace"},
        {"hidden_layer_sizes": (7,)},
        {"activation": "tanh"},
        {"noise_variance": 0.5},
        {"sparsity": 0.2},
        {"latent_growth": "nested"},
        {"tied_weights": True},
        {"encoder": nn.Linear(5, 2)},
    ],
    ids=str,
)
def test_what_the_network_is_built_from_cannot_change_meanwhile(change):
    """warm_start and partial_fit name the parameter, and leave the model as it was."""
    X = make_rows()
    model = network(warm_start=True).fit(X)
    before = weights(model)
    model.set_params(**change)
    for method in (model.fit, model.partial_fit):
        with pytest.raises(ValueError, match=next(iter(change)) + "|own_networks"):
            method(X)
        assert_same(weights(model), before)


def test_columns_in_another_order_are_refused_meanwhile():
    """Training goes on with the columns it began with."""
    frame = pd.DataFrame(make_rows(), columns=list("abcde"))
    model = network(warm_start=True).fit(frame)
    with pytest.raises(ValueError, match=r"columns|feature names"):
        model.fit(frame[list("edcba")])


@pytest.mark.parametrize("mapped", [False, True])
def test_your_network_may_write_to_what_it_reads(mapped, tmp_path):
    """The rows stay as they are, in memory and on a read-only file."""
    X = make_rows().astype(np.float32) + 5
    if mapped:
        np.save(tmp_path / "rows.npy", X)
        rows = np.load(tmp_path / "rows.npy", mmap_mode="r")
    else:
        rows = X.copy()
    encoder = nn.Sequential(nn.ReLU(inplace=True), nn.Linear(5, 2))
    encoder = nn.Sequential(nn.Threshold(5.0, 0.0, inplace=True), *encoder)
    model = network(encoder=encoder).fit(rows)
    model.score_samples(rows)
    model.transform(rows)
    np.testing.assert_array_equal(rows, X)


def test_weights_of_one_are_no_weights_in_bfloat16_either():
    """The loss itself is computed in float32."""
    X = make_rows()
    losses = [
        [e["train_loss"] for e in network(precision="bfloat16").fit(X, sample_weight=w).history_]
        for w in (None, np.ones(len(X)))
    ]
    np.testing.assert_allclose(losses[0], losses[1], rtol=1e-4)


def test_skorchs_callbacks_keep_no_tensors():
    """They are parameters, which are saved and cloned."""
    kept = [
        EarlyStopping(monitor="train_loss", load_best=True),
        LRScheduler(torch.optim.lr_scheduler.StepLR, step_size=1),
    ]
    network(callbacks=kept).fit(make_rows())
    heavy = (torch.Tensor, torch.optim.Optimizer, torch.optim.lr_scheduler.LRScheduler)
    for callback in kept:
        for value in vars(callback).values():
            held = value.values() if isinstance(value, dict) else [value]
            assert not any(isinstance(item, heavy) for item in held)


def test_what_is_no_callback_is_refused():
    """And named."""
    with pytest.raises(ValueError, match=r"callbacks=.*print"):
        network(callbacks=[print]).fit(make_rows())


def test_a_refit_forgets_the_noise_of_smaller_sizes():
    """A given noise is that of every size."""
    X = make_rows()
    model = network(latent_growth="nested").fit(X).set_params(noise_variance=1.0).fit(X)
    assert model.truncate(1).noise_variance_ == pytest.approx(1.0, rel=1e-6)
