"""Restricted Boltzmann machines against enumeration, quadrature and scikit-learn's."""

from itertools import pairwise, product

import numpy as np
import pytest
import torch
from scipy import special
from sklearn.datasets import load_digits
from sklearn.decomposition import PCA
from sklearn.neural_network import BernoulliRBM

from skae import Autoencoder
from skae._modules import pretraining
from skae._nn import rbm
from skae._nn.likelihoods import continuous_bernoulli_mean
from skae._nn.networks import linear_layers
from skae._nn.rbm import RestrictedBoltzmannMachine

KINDS = list(product(["bernoulli", "gaussian"], repeat=2))
every_kind = pytest.mark.parametrize(("visible", "hidden"), KINDS)


def make_machine(n_visible=3, n_hidden=2, *, scale=0.6, seed=0, **kinds):
    """A machine of float64 with weights and biases that matter."""
    machine = RestrictedBoltzmannMachine(
        n_visible, n_hidden, generator=torch.Generator().manual_seed(seed), **kinds
    )
    rng = np.random.default_rng(seed)
    machine.W = torch.tensor(rng.normal(size=(n_visible, n_hidden)) * scale)
    machine.b = torch.tensor(rng.normal(size=n_visible) * 0.5)
    machine.c = torch.tensor(rng.normal(size=n_hidden) * 0.5)
    return machine


def arrays(machine):
    return machine.W.double().numpy(), machine.b.double().numpy(), machine.c.double().numpy()


def states(kind, n, n_nodes=24):
    """All states of some units, and log weights that turn sums over them into integrals."""
    if kind == "bernoulli":
        return np.array(list(product([0.0, 1.0], repeat=n))), np.zeros(2**n)
    nodes, weights = np.polynomial.hermite_e.hermegauss(n_nodes)
    u = np.array(list(product(nodes, repeat=n)))
    log_weight = np.array([sum(x) for x in product(np.log(weights), repeat=n)])
    return u, log_weight + 0.5 * np.sum(u**2, axis=1)  # the rule's own e^(-u²/2) is undone


def own_energy(u, bias, kind):
    return -u @ bias if kind == "bernoulli" else 0.5 * np.sum((u - bias) ** 2, axis=1)


def energy(machine, v, h):
    """E of every pair, by the definition."""
    W, b, c = arrays(machine)
    pair = v @ W @ h.T
    return (
        own_energy(v, b, machine.visible)[:, None] + own_energy(h, c, machine.hidden)[None] - pair
    )


def given_visible(machine, v):
    """States of the hidden units, and their probabilities given every row."""
    h, log_weight = states(machine.hidden, machine.W.shape[1])
    return h, special.softmax(log_weight - energy(machine, v, h), axis=1)


def given_hidden(machine, h):
    """States of the visible units, and their probabilities given every hidden row."""
    v, log_weight = states(machine.visible, machine.W.shape[0])
    return v, special.softmax(log_weight - energy(machine, v, h).T, axis=1)


def make_visible(machine, n=6, seed=1):
    rng = np.random.default_rng(seed)
    shape = (n, machine.W.shape[0])
    if machine.visible == "bernoulli":
        return (rng.random(shape) < 0.5).astype(float)
    return rng.normal(size=shape)


def log_likelihood(machine, v):
    """Exact log p(v): hidden states are enumerated, bits or reals are summed out."""
    W, b, c = arrays(machine)
    h, log_weight = states("bernoulli", W.shape[1])
    drive = b + h @ W.T
    if machine.visible == "bernoulli":
        log_sums = np.logaddexp(0, drive).sum(axis=1)
    else:
        log_sums = 0.5 * (np.sum(drive**2, axis=1) - b @ b + len(b) * np.log(2 * np.pi))
    log_partition = special.logsumexp(h @ c + log_sums + log_weight)
    return special.logsumexp(-energy(machine, v, h), axis=1) - log_partition


# ---------------------------------------------------------------------- conditionals


@every_kind
def test_the_free_energy_sums_out_the_hidden_units(visible, hidden):
    """By enumeration of bits, by Gauss-Hermite quadrature of reals."""
    machine = make_machine(visible=visible, hidden=hidden)
    v = make_visible(machine)
    h, log_weight = states(hidden, 2)
    expected = -special.logsumexp(log_weight - energy(machine, v, h), axis=1)
    np.testing.assert_allclose(machine.free_energy(torch.tensor(v)), expected, rtol=1e-7)


@every_kind
def test_means_are_those_of_the_conditionals(visible, hidden):
    """E[h|v] and E[v|h], by enumeration or quadrature of e^-E."""
    machine = make_machine(visible=visible, hidden=hidden)
    v = make_visible(machine)
    h, share = given_visible(machine, v)
    np.testing.assert_allclose(machine.hidden_mean(torch.tensor(v)), share @ h, rtol=1e-6)
    picked = h[:: max(1, len(h) // 5)]
    picked = picked[np.abs(picked).max(axis=1) < 3]
    v, share = given_hidden(machine, picked)
    np.testing.assert_allclose(
        machine.visible_mean(torch.tensor(picked)), share @ v, rtol=1e-6, atol=1e-9
    )


@every_kind
def test_the_slope_of_the_free_energy_is_what_the_statistics_say(visible, hidden):
    """-dF/dW = v E[h|v]': the gradient that contrastive divergence follows, by differences."""
    machine = make_machine(visible=visible, hidden=hidden)
    v = torch.tensor(make_visible(machine))
    W, step = machine.W.clone(), 1e-6
    expected = v[:, :, None] * machine.hidden_mean(v)[:, None]
    for i, j in np.ndindex(3, 2):
        ends = []
        for sign in (1, -1):
            machine.W = W.clone()
            machine.W[i, j] += sign * step
            ends.append(machine.free_energy(v))
        slope = (ends[1] - ends[0]) / (2 * step)
        np.testing.assert_allclose(slope, expected[:, i, j], rtol=1e-5, atol=1e-8)


def test_bits_are_scikit_learns():
    """Free energies, hidden means and Gibbs probabilities of a BernoulliRBM with these weights."""
    X = (load_digits().data[:50] > 8).astype(float)
    machine = make_machine(64, 10, scale=0.3)
    rbm = BernoulliRBM(10)
    rbm.components_, rbm.n_features_in_ = machine.W.numpy().T, 64
    rbm.intercept_visible_, rbm.intercept_hidden_ = machine.b.numpy(), machine.c.numpy()
    v = torch.tensor(X)
    np.testing.assert_allclose(machine.free_energy(v), rbm._free_energy(X), rtol=1e-12)
    np.testing.assert_allclose(machine.hidden_mean(v), rbm.transform(X), rtol=1e-12)


@pytest.mark.parametrize("kind", ["bernoulli", "gaussian"])
def test_samples_have_the_mean_and_the_variance_of_the_units(kind):
    machine = make_machine()
    mean = torch.tensor([0.1, 0.5, 0.9]).expand(50_000, 3)
    x = machine.sample(mean, kind).double().numpy()
    p = mean[0].double().numpy()
    variance = p * (1 - p) if kind == "bernoulli" else np.ones(3)
    assert np.all(np.abs(x.mean(axis=0) - p) < 5 * np.sqrt(variance / len(x)))
    np.testing.assert_allclose(x.var(axis=0), variance, rtol=0.05)
    assert kind == "gaussian" or set(np.unique(x)) == {0.0, 1.0}


# -------------------------------------------------------------- contrastive divergence


def expected_dream(machine, v0, n_steps):
    """Expected v h', v and h after n steps of Gibbs sampling from every row of v0."""
    h, share = given_visible(machine, v0)
    for step in range(n_steps):
        v, emission = given_hidden(machine, h)
        reached = share @ emission
        _, back = given_visible(machine, v)
        if step < n_steps - 1:
            share = reached @ back
    mean = back @ h
    return np.einsum("rs,si,sj->rij", reached, v, mean), reached @ v, reached @ mean


@pytest.mark.parametrize("n_steps", [1, 2])
@every_kind
def test_chains_average_to_their_exact_expectation(visible, hidden, n_steps):
    """Data side exactly, dream side within 5 standard errors of many chains."""
    machine = make_machine(visible=visible, hidden=hidden)
    v0 = make_visible(machine, n=3)
    repeats, n_runs = 2000, 20
    v = torch.tensor(np.repeat(v0, repeats, axis=0))
    runs = [machine.contrast(v, n_steps) for _ in range(n_runs)]
    h, share = given_visible(machine, v0)
    first = share @ h
    data = runs[0][0]
    np.testing.assert_allclose(data.vh, v0.T @ first / 3, rtol=1e-6, atol=1e-9)
    np.testing.assert_allclose(data.v, v0.mean(axis=0), rtol=1e-9)
    np.testing.assert_allclose(data.h, first.mean(axis=0), rtol=1e-6)
    for i, expected in enumerate(expected_dream(machine, v0, n_steps)):
        found = np.array([dream[i].numpy() for _, dream in runs])
        error = found.std(axis=0, ddof=1) / np.sqrt(n_runs)
        assert np.all(np.abs(found.mean(axis=0) - expected.mean(axis=0)) < 5 * error + 1e-12)


def test_a_machine_does_not_move_from_its_own_distribution():
    """All states weighted by their exact probability: the expected contrast is zero."""
    machine = make_machine()
    v, _ = states("bernoulli", 3)
    weight = np.exp(log_likelihood(machine, v))
    assert weight.sum() == pytest.approx(1.0, rel=1e-12)
    rows, weight = (torch.tensor(np.repeat(a, 500, axis=0)) for a in (v, weight))
    runs = [machine.contrast(rows, 1, weight) for _ in range(30)]
    for i in range(3):
        found = np.array([(data[i] - dream[i]).numpy() for data, dream in runs])
        error = found.std(axis=0, ddof=1) / np.sqrt(len(runs))
        assert np.all(np.abs(found.mean(axis=0)) < 5 * error)
        other = np.array([d[i].numpy() - machine.contrast(rows)[0][i].numpy() for d, _ in runs])
        assert np.abs(other.mean(axis=0)).max() > 10 * error.max()  # unweighted rows would move it


@every_kind
def test_weights_count_rows(visible, hidden):
    """A row of weight 3 is three rows: data side exactly, dream side on average."""
    machine = make_machine(visible=visible, hidden=hidden)
    v0, weight = make_visible(machine, n=4), np.array([1, 3, 0, 2])
    weighted, _ = machine.contrast(torch.tensor(v0), weight=torch.tensor(weight).double())
    repeated, _ = machine.contrast(torch.tensor(np.repeat(v0, weight, axis=0)))
    for one, other in zip(weighted, repeated, strict=True):
        np.testing.assert_allclose(one, other, rtol=1e-12, atol=1e-14)
    share = weight / weight.sum()
    many = torch.tensor(np.repeat(v0, 2000, axis=0))
    tall = torch.tensor(np.repeat(weight, 2000)).double()
    runs = [machine.contrast(many, 1, tall)[1] for _ in range(20)]
    for i, expected in enumerate(expected_dream(machine, v0, 1)):
        found = np.array([dream[i].numpy() for dream in runs])
        error = found.std(axis=0, ddof=1) / np.sqrt(len(runs))
        expected = np.tensordot(share, expected, 1)
        assert np.all(np.abs(found.mean(axis=0) - expected) < 5 * error + 1e-12)


@every_kind
def test_steps_are_hintons(visible, hidden):
    """Momentum 0.5 in five epochs and 0.9 after them, decay of the weights alone."""
    machine, twin = (make_machine(visible=visible, hidden=hidden) for _ in range(2))
    rate = rbm._RATE_OF_REALS if "gaussian" in (visible, hidden) else rbm._RATE_OF_BITS
    v = torch.tensor(make_visible(machine, n=50))
    velocity = [0.0, 0.0, 0.0]
    for epoch in (0, 4, 5, 20):
        before = [p.clone() for p in (machine.W, machine.b, machine.c)]
        data, dream = twin.contrast(v)
        machine.step(v, epoch)
        decay = (2e-4, 0.0, 0.0)
        after = (machine.W, machine.b, machine.c)
        for i in range(3):
            gradient = data[i] - dream[i] - decay[i] * before[i]
            velocity[i] = (0.5 if epoch < 5 else 0.9) * velocity[i] + rate * gradient
            np.testing.assert_allclose(after[i], before[i] + velocity[i], rtol=1e-7, atol=1e-8)
        twin.W, twin.b, twin.c = (p.clone() for p in after)


def test_machines_depend_on_their_generator_alone():
    state = torch.get_rng_state()
    found = []
    for seed in (0, 0, 1):
        generator = torch.Generator().manual_seed(seed)
        machine = RestrictedBoltzmannMachine(4, 3, generator=generator)
        machine.step(torch.ones(5, 4), 0)
        found.append(machine.W)
    assert torch.equal(found[0], found[1])
    assert not torch.equal(found[0], found[2])
    assert torch.equal(torch.get_rng_state(), state)


# ---------------------------------------------------------------------------- learning


def test_training_explains_bits_better_than_independent_bits_can():
    """By the exact likelihood: the partition function is enumerated."""
    rng = np.random.default_rng(0)
    patterns = np.array([[1, 1, 1, 0, 0, 0], [0, 0, 0, 1, 1, 1], [1, 0, 1, 0, 1, 0]], dtype=float)
    rows = patterns[rng.integers(0, 3, 300)]
    rows = np.where(rng.random(rows.shape) < 0.05, 1 - rows, rows)
    machine = RestrictedBoltzmannMachine(6, 4, generator=torch.Generator().manual_seed(0))
    everything, _ = states("bernoulli", 6)
    scores = [log_likelihood(machine, rows).mean()]
    for epoch in range(60):
        for part in torch.tensor(rows, dtype=torch.float32).split(50):
            machine.step(part, epoch)
        scores.append(log_likelihood(machine, rows).mean())
    assert np.exp(log_likelihood(machine, everything)).sum() == pytest.approx(1.0, rel=1e-9)
    mean = rows.mean(axis=0)
    independent = -special.entr([mean, 1 - mean]).sum()
    assert scores[0] < independent < scores[-1] - 0.5
    assert np.median(np.diff(scores[:20])) > 0


def test_training_explains_reals_better_than_their_mean_does():
    """Two clusters, farther apart than the unit noise, by the exact likelihood."""
    rng = np.random.default_rng(0)
    centres = np.array([[2.0, -2.0, 1.0], [-2.0, 2.0, 1.0]])
    rows = centres[rng.integers(0, 2, 400)] + rng.normal(size=(400, 3))
    rows -= rows.mean(axis=0)
    machine = RestrictedBoltzmannMachine(
        3, 2, visible="gaussian", generator=torch.Generator().manual_seed(0)
    )
    scores = []
    for epoch in range(100):
        scores.append(log_likelihood(machine, rows).mean())
        for part in torch.tensor(rows, dtype=torch.float32).split(50):
            machine.step(part, epoch)
    mean_alone = -0.5 * (np.sum(rows**2, axis=1).mean() + 3 * np.log(2 * np.pi))
    assert scores[0] == pytest.approx(mean_alone, abs=0.01)
    assert min(scores[50:]) > mean_alone + 1.0


# -------------------------------------------------------------------------- pretraining


DIGITS = load_digits().data / 16
FROZEN = {"solver": "sgd", "learning_rate_init": 1e-30, "momentum": 0.0, "max_iter": 1}


@pytest.fixture
def machines(monkeypatch):
    """The machines that pretraining makes, in order."""
    made = []

    class Recorded(RestrictedBoltzmannMachine):
        def __init__(self, *args, **kwargs):
            super().__init__(*args, **kwargs)
            made.append(self)

    monkeypatch.setattr(pretraining, "RestrictedBoltzmannMachine", Recorded)
    return made


STACKS = [(), (12,), (12, 7)]
every_stack = pytest.mark.parametrize("sizes", STACKS, ids=str)
every_unit = pytest.mark.parametrize(
    "options",
    [
        {},
        {"likelihood": "bernoulli"},
        {"likelihood": "continuous_bernoulli"},
        {"out_activation": "logistic"},
    ],
    ids=["reals", "bernoulli", "continuous_bernoulli", "logistic"],
)


def pretrained(sizes, **options):
    params = {
        "activation": "logistic",
        "hidden_layer_sizes": sizes,
        "pretraining": "rbm",
        "pretraining_max_iter": 2,
        "random_state": 0,
    }
    return Autoencoder(3, **{**params, **FROZEN, **options})


def as_machines_see(X, options):
    """Raw rows for bits; for reals rows in units of their common scale."""
    if options:
        return X
    return (X - X.mean(axis=0)) / np.sqrt(X.var(axis=0).mean())


@every_unit
@every_stack
def test_machines_are_of_the_kinds_that_the_rows_are(machines, sizes, options):
    """Bits within, reals at the codes; at the rows what they are."""
    pretrained(sizes, **options).fit(DIGITS[:100])
    n_units = [64, *sizes, 3]
    assert [machine.W.shape for machine in machines] == list(pairwise(n_units))
    bottom = "bernoulli" if options else "gaussian"
    assert [m.visible for m in machines] == [bottom, *["bernoulli"] * len(sizes)]
    assert [m.hidden for m in machines] == [*["bernoulli"] * len(sizes), "gaussian"]


@every_unit
@every_stack
def test_the_encoder_computes_the_machines_hidden_means(machines, sizes, options):
    """Layer by layer of the rows as the machines saw them: center and scale fold in exactly."""
    X = DIGITS[:200]
    model = pretrained(sizes, **options).fit(X)
    h = torch.tensor(as_machines_see(X, options), dtype=torch.float32)
    for machine in machines:
        h = machine.hidden_mean(h)
    np.testing.assert_allclose(model.transform(X), h, rtol=1e-4, atol=1e-5)
    assert h.std() > 1e-4


@pytest.mark.parametrize("tied_weights", [False, True])
@every_unit
@every_stack
def test_the_decoder_computes_the_machines_visible_means(machines, sizes, options, tied_weights):
    """From the codes to the rows; one weight cannot both read rescaled bits and write bits."""
    X = DIGITS[:200]
    model = pretrained(sizes, tied_weights=tied_weights, **options)
    if tied_weights and options:
        with pytest.raises(ValueError, match="tied_weights=False"):
            model.fit(X)
        return
    model.fit(X)
    Z = np.random.default_rng(0).normal(size=(20, 3))
    v = torch.tensor(Z, dtype=torch.float32)
    for machine in machines[::-1]:
        v = machine.visible_mean(v)
    v = v.double().numpy()
    if not options:
        v = v * np.sqrt(X.var(axis=0).mean()) + X.mean(axis=0)
    if options.get("likelihood") == "continuous_bernoulli":  # the same logit, another mean
        v = continuous_bernoulli_mean(torch.tensor(special.logit(v))).numpy()
    np.testing.assert_allclose(model.inverse_transform(Z), v, rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize("options", [{}, {"likelihood": "bernoulli"}], ids=["reals", "bits"])
def test_an_encoder_of_incomplete_rows_starts_without_the_mask(machines, options):
    """Complete rows get the machine's hidden means, whatever the mask says."""
    X = DIGITS[:200].copy()
    X[np.random.default_rng(0).random(X.shape) < 0.1] = np.nan
    model = pretrained((12,), **options).fit(X)
    (first, _) = linear_layers(model.net_.module_.encoder)
    assert first.in_features == 128
    assert first.weight[:, 64:].abs().max() < 1e-20
    h = DIGITS[:200]
    if not options:
        h = (h - np.nanmean(X, axis=0)) / np.sqrt(np.nanvar(X, axis=0).mean())
    h = torch.tensor(h, dtype=torch.float32)
    for machine in machines:
        h = machine.hidden_mean(h)
    np.testing.assert_allclose(model.transform(DIGITS[:200]), h, rtol=1e-4, atol=1e-5)


def reconstruction_error(model):
    return np.mean((model.reconstruct(DIGITS) - DIGITS) ** 2)


@pytest.mark.parametrize(
    ("kind", "likelihood", "tied_weights"),
    [
        ("rbm", "gaussian", False),
        ("rbm", "gaussian", True),
        ("rbm", "bernoulli", False),
        ("layerwise", "gaussian", False),
        ("layerwise", "gaussian", True),
        ("layerwise", "bernoulli", False),
        ("layerwise", "bernoulli", True),
    ],
)
def test_pretraining_gives_a_head_start(kind, likelihood, tied_weights):
    """One epoch after it explains the rows better than one epoch without it."""
    errors = []
    for stage in (kind, None):
        model = Autoencoder(
            8,
            hidden_layer_sizes=(40,),
            activation="logistic",
            likelihood=likelihood,
            tied_weights=tied_weights,
            pretraining=stage,
            init="random" if stage is None else None,
            max_iter=1,
            random_state=0,
        )
        errors.append(reconstruction_error(model.fit(DIGITS)))
    assert errors[0] < errors[1]


@pytest.mark.parametrize("tied_weights", [False, True])
def test_a_deep_stack_is_pretrained_layer_by_layer(tied_weights):
    """Hardly trained together, it explains more than half of the variance."""
    model = Autoencoder(
        8,
        activation="tanh",
        hidden_layer_sizes=(40, 20),
        tied_weights=tied_weights,
        pretraining="layerwise",
        pretraining_max_iter=15,
        batch_size=32,
        solver="sgd",
        learning_rate_init=3e-3,
        momentum=0.0,
        max_iter=1,
        random_state=0,
    ).fit(DIGITS)
    variance = DIGITS.var(axis=0).mean()
    assert reconstruction_error(model) < 0.5 * variance
    model.set_params(pretraining=None, init="random").fit(DIGITS)
    assert reconstruction_error(model) > 0.5 * variance


def test_a_single_layer_is_pretrained_to_pca():
    """Of one linear layer, pretraining is training: its error comes close to the least."""
    X = DIGITS[:, 1:20]
    model = Autoencoder(
        3,
        hidden_layer_sizes=(),
        pretraining="layerwise",
        pretraining_max_iter=30,
        learning_rate_init=1e-2,
        max_iter=1,
        random_state=0,
    ).fit(X)
    pca = PCA(3).fit(X)
    least = np.mean((pca.inverse_transform(pca.transform(X)) - X) ** 2)
    assert np.mean((model.reconstruct(X) - X) ** 2) < 1.1 * least


@pytest.mark.parametrize("kind", ["rbm", "layerwise"])
def test_pretraining_depends_on_the_seed_alone(kind):
    X = DIGITS[:100]
    state = torch.get_rng_state()
    codes = [
        pretrained((12,), pretraining=kind, random_state=seed).fit_transform(X)
        for seed in (0, 0, 1)
    ]
    np.testing.assert_array_equal(codes[0], codes[1])
    assert not np.array_equal(codes[0], codes[2])
    assert torch.equal(torch.get_rng_state(), state)


@pytest.mark.parametrize("kind", ["rbm", "layerwise"])
@pytest.mark.parametrize("likelihood", ["gaussian", "bernoulli"])
def test_rows_that_weigh_nothing_teach_nothing(likelihood, kind):
    """Other rows in their place, and the pretrained networks are the same."""
    X, weight = DIGITS[:200].copy(), np.ones(200)
    weight[::2] = 1e-12
    codes = []
    for w in (weight, None):
        for other in (DIGITS[200:300], 1 - DIGITS[300:400]):
            X[::2] = other
            model = pretrained((12,), likelihood=likelihood, pretraining=kind)
            if kind == "layerwise":
                model.set_params(learning_rate_init=1e-2)
            codes.append(model.fit(X, sample_weight=w).transform(DIGITS[:50]))
    np.testing.assert_allclose(codes[0], codes[1], rtol=1e-3, atol=1e-4)
    assert np.abs(codes[2] - codes[3]).max() > 10 * np.abs(codes[0] - codes[1]).max()
