"""AdversarialAE: its losses and steps by hand, and codes that follow the prior."""

import copy
import io
import math
import pickle

import joblib
import numpy as np
import pytest
import torch
from scipy import sparse, special, stats
from sklearn.base import clone
from sklearn.frozen import FrozenEstimator
from sklearn.linear_model import LogisticRegression
from sklearn.metrics import log_loss
from sklearn.mixture import GaussianMixture
from sklearn.model_selection import GridSearchCV, cross_val_score
from sklearn.neighbors import KernelDensity, KNeighborsClassifier
from skorch.callbacks import Callback, Freezer
from torch import nn

from helpers import allowed_rows, assert_same, differ, hear_batches, network
from skae import PPCA, AdversarialAE, Autoencoder
from skae._modules.adversarial import discriminator_loss, divergence_loss, encoder_loss
from skae._training.data import Data

# -------------------------------------------------------------------------- helpers


def bent_rows(n_rows=48, n_features=5, *, seed=0, gaps=0.0):
    """Two factors on a bent surface under noise, off centre; some are NaN."""
    rng = np.random.default_rng(seed)
    linear = rng.normal(size=(n_rows, 2)) @ np.random.default_rng(1).normal(size=(2, n_features))
    X = linear + np.tanh(linear) + 0.1 * rng.normal(size=(n_rows, n_features)) + 2.0
    X[rng.random(X.shape) < gaps] = np.nan
    return X.astype(np.float32)


def aae(n_components=2, **params):
    """A small one that trains for a few epochs, all of them."""
    options = {"discriminator_layer_sizes": (6,), "max_iter": 3, **params}
    return network(AdversarialAE, n_components=n_components, **options)


def state(model):
    """A copy of weights, buffers and the states of all optimisers, by name."""
    found = {k: v.numpy().copy() for k, v in model.net_.module_.state_dict().items()}
    for i, optimizer in enumerate(model.net_.optimizers_):
        for j, values in optimizer.state_dict()["state"].items():
            for name, value in values.items():
                found[f"optimizer {i}: {name} of {j}"] = np.array(
                    value if isinstance(value, float) else value.numpy()
                )
    return found


def parameters(module):
    return {k: v.detach().numpy().copy() for k, v in module.named_parameters()}


def generator_of_epoch(model, epoch):
    """The generator whose draws training reads in an epoch, from 0."""
    return torch.Generator().manual_seed((model._seed * 1_000_003 + epoch) % 2**63)


class Recorder(Callback):
    """The first weights, every batch before it is prepared, and the rates of the optimisers."""

    def on_train_begin(self, net, **kwargs):
        self.start_ = copy.deepcopy(net.module_)
        self.batches_, self.held_out_, self.rates_ = [], [], []
        hear_batches(net, self.hear)

    def on_epoch_begin(self, net, **kwargs):
        self.batches_.append([])

    def hear(self, batch, training):
        if training:
            self.batches_[-1].append(batch)
        elif len(self.batches_) == 1:
            self.held_out_.append(batch)

    def on_batch_begin(self, net, training, **kwargs):
        if training:
            self._rate = net.optimizer_.param_groups[0]["lr"]

    def on_batch_end(self, net, training, **kwargs):
        if training:
            later = [{g["lr"] for g in o.param_groups} for _, o in net.later_]
            assert all(len(rates) == 1 for rates in later)
            self.rates_.append([self._rate, *(rates.pop() for rates in later)])


# --------------------------------------------------------------------------- losses


def test_losses_are_cross_entropies():
    """Of the discriminator for both its classes; of the encoder for the class of draws."""
    rng = np.random.default_rng(0)
    of_prior, of_codes = rng.normal(scale=3.0, size=(2, 50))
    chances = special.expit(np.concatenate([of_prior, of_codes]))
    truth = np.repeat([1, 0], 50)
    found = discriminator_loss(torch.tensor(of_prior), torch.tensor(of_codes))
    assert found.shape == (50,)
    # Both classes count alike, so that it is twice the mean over them.
    assert float(found.mean()) == pytest.approx(2 * log_loss(truth, chances), rel=1e-9)
    deceived = log_loss(np.ones(50), special.expit(of_codes), labels=[0, 1])
    assert float(encoder_loss(torch.tensor(of_codes)).mean()) == pytest.approx(deceived, rel=1e-9)


def test_losses_of_certain_discriminators_are_finite():
    """Linear in the logit where they are wrong, zero where they are right."""
    logits = torch.tensor([-200.0, 200.0])
    np.testing.assert_allclose(encoder_loss(logits), [200.0, 0.0])
    np.testing.assert_allclose(discriminator_loss(logits, -logits), [400.0, 0.0])


@pytest.mark.parametrize("logit", [-30.0, -3.0, 0.0, 3.0])
def test_the_encoders_loss_does_not_saturate(logit):
    """Its slope is D(z) - 1, and so 1 in size where the discriminator is sure of the code.

    That of the saturating loss log(1 - D(z)) is -D(z), and so nothing there.
    """
    z = torch.tensor(logit, dtype=torch.float64, requires_grad=True)
    (slope,) = torch.autograd.grad(encoder_loss(z), z)
    h = 1e-5
    numerical = (-special.log_expit(logit + h) + special.log_expit(logit - h)) / (2 * h)
    assert float(slope) == pytest.approx(numerical, abs=1e-8)
    assert float(slope) == pytest.approx(special.expit(logit) - 1, abs=1e-8)


def test_the_divergence_of_the_best_discriminator():
    """Between N(1, 0.25) and N(0, 1), whose divergence has a closed form; by quadrature."""
    z, dz = np.linspace(-4, 6, 20_001, retstep=True)
    q, p = stats.norm(1, 0.5).pdf(z), stats.norm().pdf(z)
    logit = torch.from_numpy(np.log(p) - np.log(q))  # of D = p / (p + q)
    found = float((torch.from_numpy(q) * divergence_loss(logit)).sum()) * dz
    assert found == pytest.approx(math.log(2) + (0.25 + 1) / 2 - 0.5, abs=1e-6)


# ---------------------------------------------------------------------- a step by hand


def optimizer_of(solver, modules, rate, alpha):
    tensors = [p for module in modules for p in module.parameters()]
    groups = [
        {"params": [p for p in tensors if p.ndim > 1], "weight_decay": alpha},
        {"params": [p for p in tensors if p.ndim == 1], "weight_decay": 0.0},
    ]
    return {
        "adam": lambda: torch.optim.Adam(groups, lr=rate, fused=False),
        "adamw": lambda: torch.optim.AdamW(groups, lr=rate, fused=False),
        "sgd": lambda: torch.optim.SGD(groups, lr=rate, momentum=0.8, nesterov=True),
    }[solver]()


def three_steps(model, recorder, *, n_open=(2, 2)):
    """The paper's three updates of the same batches, from the same weights, in plain torch.

    With `adversarial_weight` there are two, and the first has the divergence, too.
    """
    start, k = recorder.start_.train(), model.n_components
    encoder, decoder, discriminator = start.encoder, start.decoder, start.discriminator
    args = (model.solver, model.alpha)
    rebuild = optimizer_of(args[0], [encoder, decoder], model.learning_rate_init, args[1])
    rate = model.discriminator_learning_rate_init
    tell = optimizer_of(args[0], [discriminator], rate, args[1])
    deceive = optimizer_of(args[0], [encoder], model.learning_rate_init, 0.0)  # decays once

    def codes_of(batch):
        if model.posterior == "deterministic":
            return encoder(batch.x) * gate
        mean, log_var = encoder(batch.x).split(k, dim=1)
        return (mean + torch.exp(0.5 * log_var) * batch.draws[:, k:]) * gate

    def cross_entropy(z, target):
        logits = discriminator(z)[:, 0]
        target = torch.full_like(logits, target)
        weight = torch.ones_like(logits) if batch.weight is None else batch.weight
        losses = nn.functional.binary_cross_entropy_with_logits(
            logits, target, weight=weight, reduction="sum"
        )
        return losses / weight.sum()

    for epoch, batches in enumerate(recorder.batches_):
        generator = generator_of_epoch(model, epoch)
        gate = (torch.arange(k) < n_open[epoch]).float()
        start.gate.copy_(gate)
        for batch in batches:
            batch = start.prepare(batch, generator)
            # The reconstruction, over encoder and decoder.
            rebuild.zero_grad()
            z = codes_of(batch)
            error = (batch.y - decoder(z if batch.gate is None else z * batch.gate)).square()
            weight = torch.ones(len(error)) if batch.weight is None else batch.weight
            losses = 0.5 * error.mean(dim=1)
            if model.adversarial_weight is not None:  # in nats, as the error over 2 variances
                variance = model.noise_variance / bent_rows().var(axis=0).mean()
                divergence = -discriminator(z)[:, 0] * model.adversarial_weight
                losses = losses + divergence * float(variance) / error.shape[1]
            ((losses @ weight) / weight.sum()).backward()
            rebuild.step()
            # The discriminator, with the codes of before that update.
            tell.zero_grad()
            prior = batch.draws[:, :k] * gate
            (cross_entropy(prior, 1.0) + cross_entropy(z.detach(), 0.0)).backward()
            tell.step()
            if model.adversarial_weight is None:
                # The encoder, against the discriminator as it is now.
                deceive.zero_grad()
                cross_entropy(codes_of(batch), 1.0).backward()
                deceive.step()
    return parameters(start)


@pytest.mark.parametrize("solver", ["adam", "adamw", "sgd"])
@pytest.mark.parametrize(
    ("params", "n_open"),
    [
        ({}, (2, 2)),
        ({"posterior": "gaussian"}, (2, 2)),
        ({"prior": "mixture", "noise_variance": 0.3}, (2, 2)),
        ({"latent_growth": "nested"}, (2, 2)),
        ({"latent_growth": "incremental", "posterior": "gaussian"}, (1, 2)),
        ({"prior": "swiss_roll", "weighted": True}, (2, 2)),
        ({"adversarial_weight": 2, "noise_variance": 0.3}, (2, 2)),
        (
            {
                "adversarial_weight": 0.5,
                "noise_variance": 0.3,
                "posterior": "gaussian",
                "latent_growth": "nested",
                "weighted": True,
            },
            (2, 2),
        ),
    ],
    ids=[
        *("plain", "drawn codes", "mixture", "nested", "incremental", "weighted"),
        *("divergence", "divergence of drawn codes"),
    ],
)
def test_training_is_three_steps_by_hand(solver, params, n_open):
    """Two epochs of six steps end at the weights of three optimisers in a plain loop."""
    params = dict(params)
    weight = None
    if params.pop("weighted", False):
        weight = np.random.default_rng(3).uniform(0.2, 3.0, 48)
    recorder = Recorder()
    options = {"alpha": 0.05, "momentum": 0.8, "learning_rate_init": 0.01, "max_iter": 2}
    model = aae(
        solver=solver,
        discriminator_learning_rate_init=0.03,
        callbacks=[recorder],
        **options,
        **params,
    ).fit(bent_rows(), sample_weight=weight)
    begun = parameters(recorder.start_)
    found = parameters(model.net_.module_)
    assert all(not np.array_equal(found[name], begun[name]) for name in found)
    assert_same(found, three_steps(model, recorder, n_open=n_open), 2e-4)


@pytest.mark.parametrize("solver", ["adam", "adamw", "sgd"])
def test_every_optimiser_changes_its_own_weights(solver):
    """Of the discriminator, or of the encoder alone, or of encoder and decoder."""
    recorder = Recorder()
    options = {"solver": solver, "alpha": 0.0, "max_iter": 1}
    # Rates that move nothing in float32.
    still = aae(
        learning_rate_init=1e-30,
        discriminator_learning_rate_init=0.01,
        callbacks=[recorder],
        **options,
    ).fit(bent_rows())
    begun, found = parameters(recorder.start_), parameters(still.net_.module_)
    for name in begun:
        moved = np.abs(begun[name] - found[name]).max() > 1e-20
        assert moved == name.startswith("discriminator"), name
    frozen = aae(
        learning_rate_init=0.01,
        discriminator_learning_rate_init=1e-30,
        callbacks=[recorder],
        **options,
    ).fit(bent_rows())
    begun, found = parameters(recorder.start_), parameters(frozen.net_.module_)
    for name in begun:
        moved = np.abs(begun[name] - found[name]).max() > 1e-20
        assert moved != name.startswith("discriminator"), name


@pytest.mark.parametrize("learning_rate", ["constant", "cosine", "invscaling"])
def test_the_discriminators_rate_follows_the_schedule(learning_rate):
    """At every batch it is to the others' as discriminator_learning_rate_init to theirs."""
    recorder = Recorder()
    aae(
        learning_rate=learning_rate,
        learning_rate_init=0.01,
        discriminator_learning_rate_init=0.002,
        max_iter=10,
        callbacks=[recorder],
    ).fit(bent_rows())
    main, discriminator, encoder = np.array(recorder.rates_).T
    np.testing.assert_allclose(discriminator, 0.2 * main, rtol=1e-9)
    np.testing.assert_array_equal(encoder, main)
    assert (len(set(main)) > 1) == (learning_rate != "constant")


def test_the_discriminators_rate_adapts():
    """A flat loss divides both rates by five."""
    recorder = Recorder()
    aae(
        learning_rate="adaptive",
        discriminator_learning_rate_init=0.01,
        tol=1e6,
        n_iter_no_change=50,
        max_iter=5,
        callbacks=[recorder],
    ).fit(bent_rows())
    by_epoch = np.array(recorder.rates_)[::3]
    np.testing.assert_allclose(by_epoch[:, 0] * 1000, [1, 1, 1, 0.2, 0.2], rtol=1e-6)
    np.testing.assert_allclose(by_epoch[:, 1] * 100, [1, 1, 1, 0.2, 0.2], rtol=1e-6)


@pytest.mark.parametrize("method", ["fit", "partial_fit"])
def test_training_goes_on_with_the_present_rates(method):
    """A rate that was changed meanwhile is that of its own networks, and of no others."""
    recorder = Recorder()
    X = bent_rows()
    model = aae(warm_start=True, callbacks=[recorder]).fit(X)
    for rate, discriminator_rate in [(1e-3, 0.05), (0.02, 0.05), (0.02, 0.03)]:
        model.set_params(
            learning_rate_init=rate, discriminator_learning_rate_init=discriminator_rate
        )
        getattr(model, method)(X)
        expected = np.tile([rate, discriminator_rate, rate], (len(recorder.rates_), 1))
        np.testing.assert_allclose(recorder.rates_, expected, rtol=1e-6)


@pytest.mark.parametrize("n_frozen", [1, 3])
def test_layers_of_your_encoder_may_be_frozen(n_frozen):
    """Some or all stay as they are, as in Autoencoder; the others are trained."""
    with torch.random.fork_rng([]):
        torch.manual_seed(0)
        encoder = nn.Sequential(nn.Linear(5, 4), nn.ReLU(), nn.Linear(4, 2))
    encoder[:n_frozen].requires_grad_(False)
    module = aae(encoder=encoder, alpha=0.0).fit(bent_rows()).net_.module_
    assert torch.equal(module.encoder[0].weight, encoder[0].weight)
    assert torch.equal(module.encoder[2].weight, encoder[2].weight) == (n_frozen == 3)


@pytest.mark.parametrize("part", ["encoder", "discriminator", "encoder.0"])
def test_weights_can_be_frozen(part):
    """skorch's Freezer keeps what it names, whichever optimiser it belongs to."""
    recorder = Recorder()
    model = aae(callbacks=[recorder, Freezer(f"{part}*")]).fit(bent_rows())
    begun, found = parameters(recorder.start_), parameters(model.net_.module_)
    for name in begun:
        assert np.array_equal(begun[name], found[name]) == name.startswith(part), name


# ----------------------------------------------------------------------- the history


def test_the_history_names_every_loss():
    """The three terms; train_loss is the reconstruction's alone."""
    model = aae(early_stopping=True).fit(bent_rows())
    for epoch in model.history_:
        for prefix in ("train", "valid"):
            assert epoch[f"{prefix}_loss"] == epoch[f"{prefix}_reconstruction"]
            assert epoch[f"{prefix}_discriminator"] > 0
            assert epoch[f"{prefix}_encoder"] > 0
    names = {name for name in aae().fit(bent_rows()).history_[0] if name.startswith("valid")}
    assert not names


def test_the_history_with_the_divergence_has_the_same_names():
    """The reconstruction and the two cross-entropies: the divergence has a gradient only."""
    model = aae(adversarial_weight=1.0, early_stopping=True).fit(bent_rows())
    assert (
        model.history_[-1].keys() == aae(early_stopping=True).fit(bent_rows()).history_[-1].keys()
    )
    for epoch in model.history_:
        assert epoch["train_loss"] == epoch["train_reconstruction"]
    assert len(model.net_.optimizers_) == 2


@pytest.mark.parametrize("posterior", ["deterministic", "gaussian"])
@pytest.mark.parametrize("weighted", [False, True])
def test_the_history_is_the_cross_entropy(posterior, weighted):
    """Weighted means over all batches, by scikit-learn, of networks that do not move."""
    X = bent_rows(70)
    weight = np.random.default_rng(2).uniform(0.1, 3.0, 70) if weighted else None
    recorder = Recorder()
    model = aae(
        posterior=posterior,
        learning_rate_init=1e-30,
        discriminator_learning_rate_init=1e-30,
        early_stopping=True,
        max_iter=1,
        callbacks=[recorder],
        prior_scale=1.5,
    ).fit(X, sample_weight=weight)
    module = recorder.start_
    held_out = torch.Generator().manual_seed(model._seed + 4)
    for prefix, batches, generator in [
        ("train", recorder.batches_[0], generator_of_epoch(model, 0)),
        ("valid", recorder.held_out_, held_out),
    ]:
        of_prior, of_codes, counts = [], [], []
        for batch in batches:
            normal = torch.randn((len(batch.x), 2), generator=generator)
            with torch.no_grad():
                z = module.encoder(batch.x)
                if posterior == "gaussian":
                    noise = torch.randn((len(batch.x), 2), generator=generator)
                    z = z[:, :2] + (z[:, 2:] / 2).exp() * noise
                of_prior.append(module.discriminator(1.5 * normal)[:, 0].double())
                of_codes.append(module.discriminator(z)[:, 0].double())
            counts.append(torch.ones(len(z)) if batch.weight is None else batch.weight)
        a, b = (special.expit(torch.cat(t).numpy()) for t in (of_prior, of_codes))
        w = torch.cat(counts).numpy()
        assert len(a) == {"train": 63, "valid": 7}[prefix]
        n = len(a)
        both = 2 * log_loss([1] * n + [0] * n, [*a, *b], sample_weight=[*w, *w])
        deceived = log_loss([1] * n, b, sample_weight=w, labels=[0, 1])
        assert model.history_[0][f"{prefix}_discriminator"] == pytest.approx(both, rel=1e-5)
        assert model.history_[0][f"{prefix}_encoder"] == pytest.approx(deceived, rel=1e-5)


def test_rows_of_weight_zero_are_not_there():
    """All three optimisers are as if those rows had been deleted."""
    X = bent_rows()
    weight = np.tile([1.0, 0.0, 2.0], 16)
    model = aae().fit(X, sample_weight=weight)
    expected = aae().fit(X[weight > 0], sample_weight=weight[weight > 0])
    assert_same(state(model), state(expected))


def test_held_out_rows_meet_the_same_draws_in_every_epoch():
    """Losses of networks that do not move do not, either; those of training do."""
    model = aae(
        posterior="gaussian",
        learning_rate_init=1e-30,
        discriminator_learning_rate_init=1e-30,
        noise_variance=0.3,
        early_stopping=True,
    ).fit(bent_rows())
    for name in ("discriminator", "encoder", "reconstruction"):
        assert len({epoch[f"valid_{name}"] for epoch in model.history_}) == 1
        assert len({epoch[f"train_{name}"] for epoch in model.history_}) == 3


# ----------------------------------------------------- stopping, going on, files


def test_early_stopping_goes_back_to_the_best_reconstruction():
    """Of all networks: they are those of a run that ends with that epoch."""
    X = bent_rows(60)
    params = {"early_stopping": True, "validation_fraction": 0.3, "batch_size": 8}
    params |= {"learning_rate_init": 0.03, "discriminator_learning_rate_init": 0.03}
    model = aae(n_iter_no_change=6, max_iter=40, **params).fit(X)
    losses = [epoch["valid_reconstruction"] for epoch in model.history_]
    best = int(np.argmin(losses)) + 1
    assert best < model.n_iter_  # or nothing was tested
    expected = aae(max_iter=best, **params).fit(X)
    found, wanted = (
        {k: v.numpy() for k, v in m.net_.module_.state_dict().items()} for m in (model, expected)
    )
    assert any(name.startswith("discriminator") for name in found)
    assert_same(found, wanted)
    np.testing.assert_array_equal(model.code_covariance_, expected.code_covariance_)


@pytest.mark.parametrize("solver", ["adam", "adamw", "sgd"])
@pytest.mark.parametrize("method", ["fit", "partial_fit"])
def test_training_goes_on_where_it_ended(solver, method):
    """Three times one epoch is three epochs, bit for bit, with all three optimisers."""
    X = bent_rows()
    params = {"solver": solver, "posterior": "gaussian", "noise_variance": 0.2}
    expected = aae(max_iter=3, **params).fit(X)
    model = aae(max_iter=1, warm_start=True, **params)
    for _ in range(3):
        getattr(model, method)(X)
    assert model.n_iter_ == 3
    assert sum(name.startswith("optimizer 2") for name in state(model)) > 0
    assert_same(state(model), state(expected))
    for name in ("train_loss", "train_discriminator", "train_encoder"):
        losses = [[epoch[name] for epoch in m.history_] for m in (model, expected)]
        assert losses[0] == losses[1]


def cubic(n, random_state):
    """A prior of one's own, at the top of a module, which files want."""
    return np.random.RandomState(random_state).normal(size=(n, 2)) ** 3


def own_prior():
    rng = np.random.default_rng(0)
    Z = np.concatenate([rng.normal([2, 0], 0.5, (150, 2)), rng.normal([-1, 1], 0.5, (150, 2))])
    return FrozenEstimator(GaussianMixture(2, random_state=0).fit(Z))


@pytest.mark.parametrize("save", ["pickle", "joblib", "copy"])
@pytest.mark.parametrize("prior", ["mixture", own_prior(), cubic], ids=["named", "object", "call"])
def test_a_file_keeps_what_training_needs(save, prior):
    """The loaded model samples, encodes and goes on with the same bits."""
    X = bent_rows()
    model = aae(prior=prior, posterior="gaussian", warm_start=True).fit(X)
    if save == "joblib":
        file = io.BytesIO()
        joblib.dump(model, file)
        file.seek(0)
        loaded = joblib.load(file)
    else:
        loaded = pickle.loads(pickle.dumps(model)) if save == "pickle" else copy.deepcopy(model)
    assert_same(state(loaded), state(model))
    np.testing.assert_array_equal(loaded.transform(X), model.transform(X))
    np.testing.assert_array_equal(loaded.sample(9, random_state=1), model.sample(9, random_state=1))
    assert_same(state(loaded.fit(X)), state(model.fit(X)))
    assert_same(state(loaded.partial_fit(X)), state(model.partial_fit(X)))


class Interrupts(Callback):
    """Ctrl-C amid the third epoch, after its second batch."""

    def on_batch_end(self, net, **kwargs):
        if len(net.history) == 3 and len(net.history[-1, "batches"]) == 2:
            raise KeyboardInterrupt


@pytest.mark.parametrize("solver", ["adam", "sgd"])
def test_an_interruption_keeps_the_last_complete_epoch(solver):
    """All networks and all optimisers are those of a fit of two epochs, also afterwards."""
    X = bent_rows()
    params = {"solver": solver, "noise_variance": 0.2}
    with pytest.warns(UserWarning, match=r"interrupted in epoch 3.* epoch 2 is kept"):
        model = aae(max_iter=5, callbacks=[Interrupts()], **params).fit(X)
    expected = aae(max_iter=2, **params).fit(X)
    assert_same(state(model), state(expected))
    model.set_params(callbacks=None)
    assert_same(state(model.partial_fit(X)), state(expected.partial_fit(X)))


# --------------------------------------------------------------- the codes' distribution


def trained(X, **params):
    """Trained until the codes follow the prior, about."""
    defaults = {
        "hidden_layer_sizes": (32,),
        "discriminator_layer_sizes": (32,),
        "batch_size": 60,
        "max_iter": 60,
        "learning_rate_init": 3e-3,
        "discriminator_learning_rate_init": 1e-2,
        "learning_rate": "cosine",
        "alpha": 0.0,
    }
    return aae(2, **{**defaults, **params}).fit(X)


def fitted_ppca():
    rng = np.random.default_rng(5)
    return FrozenEstimator(PPCA(1).fit(rng.normal(size=(300, 2)) @ [[1, 0.5], [0, 0.6]] + [1, -1]))


def rectangle(n, random_state):
    return np.random.RandomState(random_state).uniform([-3, 0], [0, 1], size=(n, 2))


# A prior, its mean and its covariance.
PRIORS = {
    "scaled": ({"prior_scale": 2.0}, [0, 0], 4 * np.eye(2)),
    "drawn codes": ({"posterior": "gaussian"}, [0, 0], np.eye(2)),
    "mixture": ({"prior": "mixture"}, [0, 0], [[10, 9], [9, 10]]),
    "means": (
        {"prior": "mixture", "prior_means": [[4, 0], [0, 2]], "prior_scale": 0.5},
        [2, 1],
        [[4.25, -2], [-2, 1.25]],
    ),
    "swiss_roll": ({"prior": "swiss_roll"}, None, None),
    "callable": ({"prior": rectangle}, [-1.5, 0.5], np.diag([9 / 12, 1 / 12])),
    "GaussianMixture": ({"prior": own_prior()}, None, None),
    "PPCA": ({"prior": fitted_ppca()}, None, None),
}


def moments_of(prior, mean, covariance):
    if prior == "swiss_roll":
        t = 1.5 * np.pi * (1 + 2 * (np.arange(10_000) + 0.5) / 10_000)
        spiral = np.stack([t * np.cos(t), t * np.sin(t)]) * 3 / (4.5 * np.pi)
        return spiral.mean(axis=1), np.cov(spiral)
    if isinstance(prior, FrozenEstimator):
        prior = prior.estimator
        if isinstance(prior, PPCA):
            return prior.mean_, prior.get_covariance()
        mean = prior.weights_ @ prior.means_
        spread = (prior.means_ - mean).T * prior.weights_ @ (prior.means_ - mean)
        return mean, spread + np.tensordot(prior.weights_, prior.covariances_, 1)
    return np.array(mean), np.array(covariance)


@pytest.mark.long
@pytest.mark.parametrize("name", PRIORS)
def test_moments_of_codes_approach_the_priors(name):
    """Mean and covariance, in the units of the prior's standard deviations."""
    params, mean, covariance = PRIORS[name]
    X = bent_rows(600)
    model = trained(X, **params)
    mean, covariance = moments_of(params.get("prior"), mean, covariance)
    std = np.sqrt(np.diag(covariance))
    codes = model.transform(X)
    assert np.abs((codes.mean(axis=0) - mean) / std).max() < 0.2
    error = np.cov(codes.T) - covariance
    assert np.abs(error / np.outer(std, std)).max() < 0.3


def accuracy_of_telling_apart(codes, draws):
    """Of the nearest neighbours, cross-validated: 1/2 where the distributions are one."""
    both = np.concatenate([codes, draws])
    which = np.repeat([0, 1], [len(codes), len(draws)])
    order = np.random.default_rng(0).permutation(len(both))
    return cross_val_score(KNeighborsClassifier(25), both[order], which[order], cv=5).mean()


def energy_distance(a, b):
    """Székely's: 2 E|a - b| - E|a - a'| - E|b - b'|, which is 0 for one distribution."""

    def apart(u, v):
        return np.sqrt(np.square(u[:, None] - v[None]).sum(axis=2)).mean()

    return 2 * apart(a, b) - apart(a, a) - apart(b, b)


def test_codes_of_new_rows_are_hard_to_tell_from_the_prior():
    """By neighbours and by the energy distance; those of the same training, unasked, are not."""
    X, new = bent_rows(1000), bent_rows(600, seed=7)
    model = trained(X)
    codes, draws = model.transform(new), model.sample_latent(600, random_state=0)
    plain = Autoencoder(
        2,
        hidden_layer_sizes=(32,),
        batch_size=100,
        max_iter=20,
        learning_rate_init=5e-3,
        random_state=0,
        device="cpu",
    ).fit(X)
    free = plain.transform(new)
    assert accuracy_of_telling_apart(codes, draws) < 0.59 < accuracy_of_telling_apart(free, draws)
    assert energy_distance(codes, draws) < 0.05 < energy_distance(free, draws)
    # The reconstruction is not given up for it, and decoded draws look like rows.
    assert np.square(new - model.reconstruct(new)).mean() < 0.1 * new.var(axis=0).mean()
    made = model.sample(600, random_state=0)
    guess = cross_val_score(
        LogisticRegression(), np.concatenate([new, made]), np.repeat([0, 1], 600), cv=5
    )
    assert guess.mean() < 0.6
    # The discriminator, too, is left guessing.
    last = model.history_[-1]
    assert last["train_discriminator"] == pytest.approx(2 * math.log(2), abs=0.1)
    assert last["train_encoder"] == pytest.approx(math.log(2), abs=0.1)


def test_codes_of_a_gaussian_encoder_are_its_means():
    """transform gives q(z|x)'s mean, the first half of what the encoder writes."""
    X = bent_rows()
    model = aae(posterior="gaussian").fit(X)
    module = model.net_.module_
    with torch.no_grad():
        written = module.encoder(model._dataset(Data(X)).batch(slice(None)).x)
    assert written.shape == (48, 4)
    np.testing.assert_allclose(model.transform(X), written[:, :2], rtol=1e-5, atol=1e-6)
    mean, covariance = model.code_mean_, model.code_covariance_
    np.testing.assert_allclose(mean, model.transform(X).mean(axis=0), atol=1e-5)
    np.testing.assert_allclose(covariance, np.cov(model.transform(X).T, bias=True), atol=1e-5)


# --------------------------------------------------------------------- a prior of one's own


def test_samples_decode_draws_of_the_prior():
    """Without noise they are the decoded sample_latent of the same seed."""
    for prior in ("mixture", own_prior(), cubic):
        model = aae(prior=prior, likelihood="laplace").fit(bent_rows())
        codes = model.sample_latent(7, random_state=3)
        rows = model.sample(7, noise=False, random_state=3)
        np.testing.assert_allclose(model.inverse_transform(codes), rows, rtol=1e-5, atol=1e-6)
        np.testing.assert_array_equal(codes, model.sample_latent(7, random_state=3))
        assert not np.array_equal(codes, model.sample_latent(7, random_state=4))
        assert not np.array_equal(model.sample_latent(7), model.sample_latent(7))


@pytest.mark.parametrize("n_samples", [0, -1, 2.5, "3"])
def test_impossible_numbers_of_codes(n_samples):
    with pytest.raises(ValueError, match="n_samples"):
        aae().fit(bent_rows()).sample_latent(n_samples)


@pytest.mark.parametrize("prior", [own_prior(), cubic], ids=["object", "callable"])
def test_training_chooses_from_the_priors_own_draws(prior):
    """What the discriminator compares with has the prior's distribution."""
    model = aae(prior=prior).fit(bent_rows())
    module = model.net_.module_
    draws = module.draw_codes(3000, torch.Generator().manual_seed(0)).numpy()
    assert len(np.unique(draws, axis=0)) > 2500
    fresh = model.sample_latent(3000, random_state=0)
    assert energy_distance(draws, fresh) < 0.02


@pytest.mark.parametrize("prior", ["global", "wrapped"])
def test_training_by_a_prior_of_ones_own_repeats(prior):
    """Also if it reads NumPy's or torch's global generator; these stay as they are."""

    def careless(n):
        return np.random.normal(size=(n, 1)) + torch.randn(n, 2).numpy()  # noqa: NPY002

    prior = careless if prior == "global" else own_prior()
    X = bent_rows()
    before = np.random.get_state()[1].copy(), torch.get_rng_state()  # noqa: NPY002
    first = state(aae(prior=prior).fit(X))
    np.testing.assert_array_equal(before[0], np.random.get_state()[1])  # noqa: NPY002
    assert torch.equal(before[1], torch.get_rng_state())
    assert_same(state(aae(prior=prior).fit(X)), first)
    assert differ(first, state(aae(prior=prior, random_state=1).fit(X)))


def test_a_frozen_prior_survives_clones_and_searches():
    """A grid over the networks keeps the prior fitted."""
    X = bent_rows()
    prior = own_prior()
    search = GridSearchCV(
        aae(prior=prior, max_iter=1), {"hidden_layer_sizes": [(4,), (8,)]}, cv=2
    ).fit(X)
    assert np.all(np.isfinite(search.cv_results_["mean_test_score"]))
    assert search.best_estimator_.sample(3, random_state=0).shape == (3, 5)
    clone(aae(prior=prior)).fit(X)


def test_a_prior_that_a_clone_left_unfitted():
    """The error says what to put it into."""
    bare = own_prior().estimator
    aae(prior=bare).fit(bent_rows())
    with pytest.raises(ValueError, match=r"prior=GaussianMixture.*not fitted.*FrozenEstimator"):
        clone(aae(prior=bare)).fit(bent_rows())
    search = GridSearchCV(
        aae(prior=bare), {"hidden_layer_sizes": [(4,)]}, cv=2, error_score="raise"
    )
    with pytest.raises(ValueError, match="FrozenEstimator"):
        search.fit(bent_rows())


def test_the_prior_cannot_change_while_training_goes_on():
    """Neither by name, nor another object."""
    X = bent_rows()
    model = aae(warm_start=True).fit(X)
    with pytest.raises(ValueError, match="prior='mixture' cannot change"):
        model.set_params(prior="mixture").fit(X)
    with pytest.raises(ValueError, match=r"prior_scale=2\.0 cannot change"):
        model.set_params(prior="gaussian", prior_scale=2.0).fit(X)
    model = aae(warm_start=True, prior=own_prior()).fit(X)
    with pytest.raises(ValueError, match=r"own networks and distributions .*cannot change"):
        model.set_params(prior=own_prior()).fit(X)


# ------------------------------------------------------------------------- wrong values


@pytest.mark.parametrize(
    ("params", "named"),
    [
        ({"solver": "lbfgs"}, "'solver'"),
        ({"prior": "normal"}, "prior='normal' must be one of"),
        ({"prior": None}, "prior=None must be one of"),
        ({"prior": 3.0}, "prior=3.0 must be one of"),
        ({"prior": GaussianMixture}, "prior="),
        ({"prior": lambda n: np.zeros((n, 3))}, r"prior=.*shape \(16384, 3\)"),
        ({"prior": lambda n: np.zeros(n)}, r"prior=.*shape \(16384,\)"),
        ({"prior": lambda n: np.zeros((n - 1, 2))}, r"prior=.*shape \(16383, 2\)"),
        ({"prior": lambda n: np.full((n, 2), np.nan)}, "prior=.*finite"),
        ({"prior": lambda n: np.full((n, 2), -np.inf)}, "prior=.*finite"),
        ({"prior": lambda n: None}, "prior="),
        ({"prior": GaussianMixture(2)}, "prior=GaussianMixture.*not fitted"),
        ({"prior": FrozenEstimator(PPCA(1))}, "prior=.*not fitted"),
        ({"prior": FrozenEstimator(KernelDensity())}, "prior=.*not fitted"),
        ({"prior_scale": 0.0}, "'prior_scale'"),
        ({"prior_scale": np.inf}, "'prior_scale'"),
        ({"prior_means": 3.0}, "'prior_means'"),
        ({"prior_means": [np.nan]}, "prior_means=.*finite"),
        ({"prior_means": [[1.0, 2.0, 3.0]]}, "prior_means=.*n_components=2"),
        ({"prior_means": [[[1.0, 2.0]]]}, "prior_means="),
        ({"prior_means": [], "prior": "mixture"}, "prior_means="),
        ({"prior_means": [[1.0, 2.0], [3.0]]}, "prior_means="),
        ({"prior_means": ["left", "right"]}, "prior_means="),
        ({"prior": "swiss_roll", "n_components": 1}, "n_components=1 must be 2 or 3"),
        ({"prior": "swiss_roll", "n_components": 4}, "n_components=4 must be 2 or 3"),
        ({"discriminator_layer_sizes": 0}, "'discriminator_layer_sizes'"),
        ({"discriminator_layer_sizes": (8, 0)}, "discriminator_layer_sizes="),
        ({"discriminator_layer_sizes": (2.5,)}, "discriminator_layer_sizes="),
        ({"discriminator_layer_sizes": None}, "'discriminator_layer_sizes'"),
        ({"discriminator_learning_rate_init": 0.0}, "'discriminator_learning_rate_init'"),
        ({"adversarial_weight": 0.0}, "'adversarial_weight'"),
        ({"adversarial_weight": np.inf}, "'adversarial_weight'"),
        ({"adversarial_weight": "kl"}, "'adversarial_weight'"),
        ({"posterior": "laplace"}, "'posterior'"),
        ({"latent_growth": "sideways"}, "'latent_growth'"),
        ({"encoder": nn.Linear(5, 2), "posterior": "gaussian"}, r"encoder .*\(2, 2\).*\(2, 4\)"),
        ({"encoder": nn.Linear(5, 4)}, r"encoder .*\(2, 4\).*\(2, 2\)"),
    ],
    ids=lambda value: "-".join(value) if isinstance(value, dict) else value[:40],
)
def test_wrong_values_are_named(params, named):
    with pytest.raises(ValueError, match=named):
        aae(**params).fit(bent_rows())


# ------------------------------------------------------------------------- what it can take


def rows_for(likelihood):
    return allowed_rows(likelihood, bent_rows(64), 2.0, special.expit)


@pytest.mark.parametrize("posterior", ["deterministic", "gaussian"])
@pytest.mark.parametrize(
    "likelihood", ["gaussian", "laplace", "bernoulli", "continuous_bernoulli", "poisson"]
)
def test_every_likelihood_trains(likelihood, posterior):
    """The reconstruction improves; samples are in the range of the rows that can be."""
    X = rows_for(likelihood)
    model = aae(
        likelihood=likelihood, posterior=posterior, learning_rate_init=0.01, max_iter=12
    ).fit(X)
    losses = [epoch["train_loss"] for epoch in model.history_]
    assert losses[-1] < losses[0]
    rows = model.sample(50, random_state=0)
    assert np.all(np.isfinite(rows))
    assert np.all(np.isfinite(model.score_samples(X)))
    if likelihood in ("bernoulli", "poisson"):
        np.testing.assert_array_equal(rows, np.round(rows))
        assert rows.min() >= 0
    if "bernoulli" in likelihood:
        assert 0 <= rows.min() <= rows.max() <= 1


@pytest.mark.parametrize("latent_growth", ["incremental", "nested"])
@pytest.mark.parametrize("prior", ["mixture", cubic], ids=["named", "own"])
def test_a_cut_model_has_the_smaller_prior(latent_growth, prior):
    """Its codes and draws are the first ones of the whole model's."""
    X = bent_rows()
    if prior is cubic:

        def prior(n, random_state):
            return np.hstack([cubic(n, random_state), cubic(n, random_state + 1)])

    model = aae(4, latent_growth=latent_growth, prior=prior, max_iter=8).fit(X)
    before = model.sample_latent(6, random_state=0)
    cut = model.truncate(2)
    codes = cut.sample_latent(6, random_state=0)
    np.testing.assert_array_equal(codes, before[:, :2])
    np.testing.assert_array_equal(cut.transform(X), model.transform(X)[:, :2])
    padded = np.hstack([codes, np.zeros((6, 2), dtype=codes.dtype)])
    rows = cut.sample(6, noise=False, random_state=0)
    np.testing.assert_allclose(rows, model.inverse_transform(padded), rtol=1e-5, atol=1e-5)
    np.testing.assert_array_equal(model.sample_latent(6, random_state=0), before)
    path = [np.square(X - model.truncate(k).reconstruct(X)).sum(axis=1).mean() for k in range(1, 5)]
    np.testing.assert_allclose(model.reconstruction_path(X), path, rtol=1e-4)


@pytest.mark.parametrize(
    "params",
    [{}, {"prior": "mixture"}, {"prior": "mixture", "prior_means": [[1.0, 2.0, 3.0]]}],
    ids=["gaussian", "mixture", "means"],
)
def test_training_of_a_cut_model_goes_on(params):
    """As Autoencoder's does, with the codes that are left."""
    X = bent_rows()
    cut = aae(3, latent_growth="nested", **params).fit(X).truncate(2)
    before = cut.transform(X)
    cut.partial_fit(X)
    assert cut.n_iter_ == 4
    assert cut.transform(X).shape == (48, 2)
    assert not np.array_equal(cut.transform(X), before)
    assert cut.sample_latent(3).shape == (3, 2)


def test_codes_without_an_order_cannot_be_cut():
    model = aae().fit(bent_rows())
    for name in ("truncate", "reconstruction_path"):
        assert not hasattr(model, name)


def test_codes_are_ordered():
    """The first alone explains more than one that was not asked to come first."""
    X = bent_rows(300)
    params = {"max_iter": 40, "batch_size": 30, "learning_rate_init": 0.01}
    model = aae(2, latent_growth="nested", **params).fit(X)
    path = model.reconstruction_path(X)
    assert path[1] < path[0] < np.square(X - X.mean(axis=0)).sum(axis=1).mean()


def test_the_perceptual_term_counts_as_reconstruction():
    """train_loss is the sum of both; the user's network stays as it is."""
    torch.manual_seed(0)
    features = nn.Linear(5, 3)
    kept = features.weight.detach().clone()
    model = aae(perceptual=(features, 0.5)).fit(bent_rows())
    for epoch in model.history_:
        assert epoch["train_perceptual"] > 0
        total = epoch["train_reconstruction"] + epoch["train_perceptual"]
        assert epoch["train_loss"] == pytest.approx(total, rel=1e-9)
    assert torch.equal(features.weight, kept)


@pytest.mark.parametrize("posterior", ["deterministic", "gaussian"])
def test_values_may_be_missing(posterior):
    """The encoder reads the mask; what is under it changes nothing."""
    X = bent_rows(gaps=0.2)
    model = aae(posterior=posterior, early_stopping=True).fit(X)
    assert model.net_.module_.encoder[0].in_features == 10
    for values in (model.transform(X), model.reconstruct(X), model.score_samples(X)):
        assert np.all(np.isfinite(values))
    with pytest.raises(ValueError, match="NaN"):
        aae(missing="error").fit(X)


def two_headed(n_features):
    """Means and log variances of two codes."""
    with torch.random.fork_rng([]):
        torch.manual_seed(0)
        return nn.Sequential(nn.Linear(n_features, 7), nn.Tanh(), nn.Linear(7, 4))


def test_networks_of_ones_own():
    """Copies are trained; a Gaussian encoder writes two numbers for each code."""
    X = bent_rows()
    encoder, decoder = two_headed(5), nn.Linear(2, 5)
    before = copy.deepcopy(encoder.state_dict()), copy.deepcopy(decoder.state_dict())
    model = aae(encoder=encoder, decoder=decoder, posterior="gaussian").fit(X)
    assert model.transform(X).shape == (48, 2)
    for network_, kept in zip((encoder, decoder), before, strict=True):
        assert_same(dict(network_.state_dict()), kept)
    assert differ(dict(model.net_.module_.encoder.state_dict()), before[0])
    with torch.no_grad():  # your own networks read rows as they are
        expected = model.net_.module_.encoder(torch.from_numpy(X))[:, :2]
    np.testing.assert_allclose(model.transform(X), expected, rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize(
    "params",
    [
        {"network": "conv", "image_shape": (1, 4, 5), "posterior": "gaussian"},
        {"network": "conv", "image_shape": (1, 4, 5), "normalization": "batch"},
        {"normalization": "batch", "posterior": "gaussian"},
        {"precision": "bfloat16"},
        {"precision": "bfloat16", "posterior": "gaussian", "prior": cubic},
        {"hidden_layer_sizes": (), "discriminator_layer_sizes": ()},
        {"hidden_layer_sizes": 5, "discriminator_layer_sizes": 3},
        {"hidden_layer_sizes": (4, 6), "discriminator_layer_sizes": (3, 5)},
        {"adversarial_weight": 1.0, "normalization": "batch"},
        {"adversarial_weight": 1.0, "network": "conv", "image_shape": (1, 4, 5)},
    ],
    ids=lambda params: "-".join(params),
)
def test_networks_of_every_kind_train(params):
    """The losses are finite, every weight moves, and codes do not depend on other rows."""
    X = bent_rows(48, 20)
    recorder = Recorder()
    model = aae(callbacks=[recorder], learning_rate_init=0.01, **params).fit(X)
    begun, found = parameters(recorder.start_), parameters(model.net_.module_)
    still = [name for name in found if np.array_equal(found[name], begun[name])]
    assert not still
    assert found.keys() == begun.keys()
    for epoch in model.history_:
        for name in ("train_reconstruction", "train_discriminator", "train_encoder"):
            assert math.isfinite(epoch[name])
    np.testing.assert_allclose(model.transform(X[:1]), model.transform(X)[:1], rtol=1e-4, atol=1e-5)
    assert model.transform(X).dtype == np.float32


def test_bfloat16_trains_alike():
    """Losses of the first epoch agree with float32's within its precision."""
    X = bent_rows()
    losses = [
        aae(precision=precision, max_iter=1).fit(X).history_[0]
        for precision in ("float32", "bfloat16")
    ]
    for name in ("train_reconstruction", "train_discriminator", "train_encoder"):
        assert losses[1][name] == pytest.approx(losses[0][name], rel=0.02)
        assert losses[1][name] != losses[0][name]


# --------------------------------------------------------------- the prior that was given


def test_a_fitted_model_keeps_its_prior():
    """Whatever becomes of the object that was given."""
    rng = np.random.RandomState(0)
    prior = GaussianMixture(1, random_state=0).fit(rng.normal(size=(100, 2)))
    model = aae(prior=prior).fit(bent_rows())
    before = model.sample_latent(50, random_state=0)
    prior.fit(rng.normal(100.0, size=(100, 2)))
    np.testing.assert_array_equal(model.sample_latent(50, random_state=0), before)


def test_a_prior_is_drawn_from_once():
    """Copies and cut models take over what training chose from."""
    calls = []

    def prior(n, random_state):
        calls.append(n)
        return np.random.RandomState(random_state).normal(size=(n, 2))

    model = aae(prior=prior, latent_growth="nested").fit(bent_rows())
    copy.copy(model)
    model.truncate(1)
    assert len(calls) == 1


def test_weights_decay_once():
    """In the step of the reconstruction, not again in that of the encoder."""
    model = aae(alpha=0.1).fit(bent_rows())
    decays = {
        phase.name: {group["weight_decay"] for group in optimizer.param_groups}
        for phase, optimizer in model.net_.later_
    }
    assert decays == {"discriminator": {0.0, 0.1}, "encoder": {0.0}}


def test_prior_that_compares_by_elements_is_refused():
    with pytest.raises(ValueError, match=r"(?s)prior=.*must be one of"):
        AdversarialAE(2, prior=sparse.csr_array(np.ones((2, 2)))).fit(np.eye(4))
