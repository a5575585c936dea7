"""HelmholtzModule: gradients in expectation, over every draw there is, against enumeration.

A draw is a row of uniform numbers, and those on either side of a probability hit either state
of a unit. So a batch that holds every draw, weighted by how likely it is, has for its loss and
its gradient their expectations.
"""

import itertools
from dataclasses import dataclass, replace

import numpy as np
import pytest
import torch
from scipy import special, stats
from skorch.callbacks import Callback

from helpers import binary_states, hear_batches, log_bernoulli
from skae import HelmholtzMachine
from skae._inference.helmholtz import all_states, entropy, log_masses
from skae._modules.helmholtz import (
    HelmholtzArchitecture,
    HelmholtzModule,
    bernoulli_at,
    leave_one_out,
    n_trained,
)
from skae._training.data import Batch, Data

# -------------------------------------------------------------------------- helpers


@dataclass
class Truth:
    """The module in NumPy, row by row; `h` are all configurations of its units by layer.

    Rows are in the network's units, and `seen` is 0 where they were not.
    """

    weights: dict[str, np.ndarray]
    architecture: HelmholtzArchitecture
    variance: np.ndarray | None  # of Gaussian rows

    def __post_init__(self):
        self.h = self.layers(binary_states(self.architecture.n_units))

    def layers(self, states):
        return np.split(states, np.cumsum(self.architecture.layer_sizes)[:-1], axis=-1)

    def logit(self, layer, states):
        return states @ self.weights[f"{layer}.weight"].T + self.weights[f"{layer}.bias"]

    def read(self, x, seen):
        """Rows centred, zero where they were not seen, and the mask beside them."""
        if self.variance is None:
            x = (x - self.architecture.center) / self.architecture.scale
        x = np.where(seen, x, 0.0)
        return np.concatenate([x, seen + 0.0 * x], -1) if self.architecture.with_mask else x

    def log_q_by_layer(self, read, h=None):
        """log q(h_l|h_{l-1}) of rows as they are read, and of units, by default all of them."""
        h = self.h if h is None else h
        below = [read, *h[:-1]]
        logits = [self.logit(f"up.{i}", b) for i, b in enumerate(below)]
        return [log_bernoulli(s, a).sum(-1) for s, a in zip(h, logits, strict=True)]

    def log_q(self, read, h=None):
        return sum(self.log_q_by_layer(read, h))

    def log_prior(self):
        log_p = log_bernoulli(self.h[-1], self.weights["prior_logit"]).sum(-1)
        for i, (below, above) in enumerate(itertools.pairwise(self.h)):
            log_p = log_p + log_bernoulli(below, self.logit(f"down.{i}", above)).sum(-1)
        return log_p

    def log_joint(self, y, seen):
        """log p(x, h) of a row and all configurations; densities in the units of the data."""
        output = self.logit("to_rows", self.h[0])
        if self.variance is None:
            values = log_bernoulli(y, output)
        else:
            values = stats.norm.logpdf(y, output, np.sqrt(self.variance)) - np.log(
                self.architecture.scale
            )
        return (values * seen).sum(-1) + self.log_prior()


SEEN = np.array([[1, 1, 1], [1, 0, 1], [0, 1, 1]])
KINDS = ["bernoulli", "masked", "scalar", "per_feature"]


def make_module(kind, sizes, algorithm, n_particles=1, *, n_features=3, seed=0, **fields):
    """A module in float64 of drawn weights, and its truth."""
    rng = np.random.default_rng(seed)
    *hidden, top = sizes
    architecture = HelmholtzArchitecture(
        n_features=n_features,
        n_codes=top,
        n_components=top,
        n_conditions=0,
        hidden_layer_sizes=tuple(hidden),
        likelihood="bernoulli" if kind in ("bernoulli", "masked") else "gaussian",
        noise_variance=kind if kind in ("scalar", "per_feature") else "scalar",
        with_mask=kind != "bernoulli",
        center=np.array([0.5, 0.25, 0.625])[:n_features],
        scale=0.5,
        range=(0.0, 1.0),
        algorithm=algorithm,
        n_particles=n_particles,
        binarised=False,
        **fields,
    )
    module = HelmholtzModule(
        architecture.make_likelihood(), architecture, torch.Generator()
    ).double()
    variance = None
    with torch.no_grad():
        for p in module.parameters():
            p.copy_(torch.as_tensor(rng.normal(scale=0.8, size=p.shape)))
        if architecture.likelihood == "gaussian":
            variance = rng.uniform(0.4, 1.5, module.likelihood.variance.shape)
            module.likelihood.variance.copy_(torch.as_tensor(variance))
    named = module.named_parameters()
    weights = {name: p.detach().numpy().copy() for name, p in named}
    return module, Truth(weights, architecture, variance)


def rows_and_seen(truth):
    """Three rows in the network's units, and what was seen of them."""
    n_features = truth.architecture.n_features
    rng = np.random.default_rng(1)
    y = rng.normal(size=(3, n_features))
    y = (y > 0).astype(float) if truth.variance is None else y
    seen = SEEN[:, :n_features] if truth.architecture.with_mask else np.ones_like(y)
    return y * seen, seen


def hitting(states, chance):
    """Uniform numbers at which units of these probabilities are just in these states."""
    return np.where(states == 1, 0.999 * chance, 0.001 + 0.999 * chance)


def recognitions(truth, read):
    """Of a row, for every configuration: the uniform numbers that make it, its probability."""
    below = [read, *truth.h[:-1]]
    chances = [special.expit(truth.logit(f"up.{i}", b)) for i, b in enumerate(below)]
    uniform = [hitting(h, p) for h, p in zip(truth.h, chances, strict=True)]
    return np.concatenate(uniform, axis=1), np.exp(truth.log_q(read))


def particles(truth, read):
    """Of a row, for every tuple of configurations: which, uniform numbers, probability."""
    uniform, chance = recognitions(truth, read)
    k = truth.architecture.n_particles
    which = np.array(list(itertools.product(range(len(chance)), repeat=k)))
    return which, uniform[which].reshape(len(which), -1), chance[which].prod(1)


def dreams(truth):
    """For every dream: its units by layer, its row, uniform numbers, probability.

    Gaussian rows are those of a quadrature, exact for polynomials of degree 17.
    """
    chances = [special.expit(truth.logit(f"down.{i}", h)) for i, h in enumerate(truth.h[1:])]
    chances.append(special.expit(truth.weights["prior_logit"]))
    uniform = np.concatenate([hitting(h, p) for h, p in zip(truth.h, chances, strict=True)], 1)
    output = truth.logit("to_rows", truth.h[0])
    d, n = truth.architecture.n_features, len(output)
    if truth.variance is None:
        rows = np.tile(binary_states(d), (n, 1, 1))
        of_rows = hitting(rows, special.expit(output)[:, None])
        log_chance = log_bernoulli(rows, output[:, None]).sum(-1)
    else:
        nodes, mass = np.polynomial.hermite_e.hermegauss(9)
        e = np.array(list(itertools.product(nodes, repeat=d)))
        rows = output[:, None] + np.sqrt(truth.variance) * e
        of_rows = np.broadcast_to(special.ndtr(e), rows.shape)
        log_chance = np.log(list(itertools.product(mass / mass.sum(), repeat=d))).sum(-1)
    chance = np.exp(truth.log_prior()[:, None] + log_chance)
    m = rows.shape[1]
    h = [np.repeat(s, m, axis=0) for s in truth.h]
    uniform = np.hstack([np.repeat(uniform, m, axis=0), of_rows.reshape(n * m, d)])
    return h, rows.reshape(n * m, d), uniform, chance.ravel()


def coupled(p, q):
    """Pairs of outcomes, and probabilities of pairs that have p and q as their margins."""
    edges = np.union1d(p.cumsum(), q.cumsum())
    chance = np.diff(edges, prepend=0.0)
    middle = edges - chance / 2
    first, second = (np.searchsorted(a.cumsum(), middle).clip(max=len(a) - 1) for a in (p, q))
    return first, second, chance


def every_draw(truth):
    """A batch that holds every draw of every row, by its probability."""
    y, seen = rows_and_seen(truth)
    n_all = truth.architecture.n_units + truth.architecture.n_features
    asleep = np.empty((1, 0)), np.ones(1)
    if truth.architecture.dreams:
        asleep = dreams(truth)[2:]
        assert asleep[0].shape[1] == n_all
    parts = []
    for x, mask in zip(y, seen, strict=True):
        _, uniform, chance = particles(truth, truth.read(x, mask))
        first, second, both = coupled(chance, asleep[1])
        draws = np.hstack([uniform[first], asleep[0][second]])
        n = len(draws)
        read = truth.read(x, mask)
        parts.append([np.tile(a, (n, 1)) for a in (read, x, mask)] + [both / len(y), draws])
    read, rows, mask, weight, draws = (
        torch.as_tensor(np.concatenate(p)) for p in zip(*parts, strict=True)
    )
    return Batch(
        read,
        rows,
        mask.double() if truth.architecture.with_mask else None,
        weight,
        None,
        None,
        draws,
    )


def slopes(truth, objective, names):
    """Derivatives of an objective of the truth by its weights, numerically."""
    found = {}
    for name in names:
        found[name] = np.empty_like(truth.weights[name])
        for i in np.ndindex(found[name].shape):
            ends = []
            for h in (1e-5, -1e-5):
                moved = truth.weights[name].copy()
                moved[i] += h
                ends.append(objective(replace(truth, weights={**truth.weights, name: moved})))
            found[name][i] = (ends[0] - ends[1]) / 2e-5
    return found


def is_recognition(name):
    return name.startswith("up.")


def assert_slopes(module, truth, for_generation, for_recognition):
    """The module's gradient is that of one objective for generation, another for recognition."""
    names = list(truth.weights)
    expected = slopes(truth, for_generation, [n for n in names if not is_recognition(n)])
    expected |= slopes(truth, for_recognition, [n for n in names if is_recognition(n)])
    assert min(np.abs(e).max() for e in expected.values()) > 1e-3
    for name, p in module.named_parameters():
        np.testing.assert_allclose(
            p.grad.numpy(), expected[name], rtol=1e-5, atol=1e-7, err_msg=name
        )


def backward(module, batch):
    """The loss of a batch, and its gradient in the parameters."""
    module.zero_grad()
    loss = module.loss(batch)
    sum(loss.terms.values()).backward()
    terms, logged = (
        {name: float(value.detach()) for name, value in some.items()}
        for some in (loss.terms, loss.logged)
    )
    return terms, logged


# ------------------------------------------------------------------------ objectives


def free_energy(truth):
    """F, averaged over the rows."""
    total = 0.0
    for y, seen in zip(*rows_and_seen(truth), strict=True):
        log_q = truth.log_q(truth.read(y, seen))
        total += np.exp(log_q) @ (log_q - truth.log_joint(y, seen)) / 3
    return total


def terms_of(truth):
    """E_q[-log p(x, h)], and minus the entropy of q(h|x)."""
    both = np.zeros(2)
    for y, seen in zip(*rows_and_seen(truth), strict=True):
        log_q = truth.log_q(truth.read(y, seen))
        both += np.exp(log_q) @ np.stack([-truth.log_joint(y, seen), log_q], 1) / 3
    return both


def asleep(start):
    """E_p(x, h)[-log q(h|x)] for dreams of the start, which see what the rows see."""
    h, rows, _, chance = dreams(start)

    def objective(truth):
        losses = [
            -chance @ truth.log_q(truth.read(rows, seen), h) for seen in rows_and_seen(truth)[1]
        ]
        return np.mean(losses)

    return objective


def of_tuples(start):
    """Of every row: which configurations particles are in, how likely, their log weights."""
    for y, seen in zip(*rows_and_seen(start), strict=True):
        read = start.read(y, seen)
        which, _, chance = particles(start, read)
        yield y, seen, read, which, chance


def importance_bound(start):
    """-E log 1/K sum_k p(x, h_k) / q(h_k|x), of particles from the q of the start."""

    def objective(truth):
        total = 0.0
        for y, seen, read, which, chance in of_tuples(start):
            log_weight = truth.log_joint(y, seen) - start.log_q(read)
            bound = special.logsumexp(log_weight[which], axis=1) - np.log(which.shape[1])
            total -= chance @ bound / 3
        return total

    return objective


def awake(start):
    """-E sum_k w_k log q(h_k|x) / sum w, of particles and weights of the start."""

    def objective(truth):
        total = 0.0
        for y, seen, read, which, chance in of_tuples(start):
            log_weight = start.log_joint(y, seen) - start.log_q(read)
            share = special.softmax(log_weight[which], axis=1)
            total -= chance @ (share * truth.log_q(read)[which]).sum(1) / 3
        return total

    return objective


# ------------------------------------------------------------ gradients in expectation


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize(
    ("sizes", "n_particles"), [((3,), 1), ((2,), 2), ((2, 2), 1), ((2, 1), 2)], ids=str
)
def test_wake_and_sleep(kind, sizes, n_particles):
    """Awake, generation descends E_q[-log p(x, h)]; asleep, recognition E_p[-log q(h|x)].

    Neither gradient reaches the other network, and the loss is the free energy.
    """
    module, truth = make_module(kind, sizes, "wake-sleep", n_particles, n_features=2)
    terms, logged = backward(module, every_draw(truth))
    # As q is held, the gradient of F for generation is that of its energy.
    assert_slopes(module, truth, lambda t: terms_of(t)[0], asleep(truth))
    energy, neg_entropy = terms_of(truth)
    assert terms["energy"] == pytest.approx(energy, rel=1e-9)
    assert terms["neg_entropy"] == pytest.approx(neg_entropy, rel=1e-9)
    assert logged["sleep"] == pytest.approx(asleep(truth)(truth), rel=1e-6)


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize(("sizes", "n_particles"), [((2,), 2), ((2,), 3), ((2, 1), 2)], ids=str)
def test_reweighted(kind, sizes, n_particles):
    """Generation ascends the bound; recognition learns by weighted particles and by dreams.

    Its gradient is the mean of both. With two particles and three.
    """
    module, truth = make_module(kind, sizes, "reweighted", n_particles, n_features=2)
    terms, logged = backward(module, every_draw(truth))
    bound = importance_bound(truth)
    by_particles, by_dreams = awake(truth), asleep(truth)
    assert_slopes(module, truth, bound, lambda t: (by_particles(t) + by_dreams(t)) / 2)
    assert list(terms) == ["bound"]
    assert terms["bound"] == pytest.approx(bound(truth), rel=1e-9)
    assert logged["sleep"] == pytest.approx(by_dreams(truth), rel=1e-6)


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize(
    ("sizes", "n_particles"),
    [((3,), 2), ((2,), 3), ((2, 2), 2), ((1, 2), 3), ((1, 1, 1), 2)],
    ids=str,
)
def test_free_energy(kind, sizes, n_particles):
    """Both networks descend F, by draws alone: without bias, for any number of layers."""
    module, truth = make_module(kind, sizes, "free-energy", n_particles)
    terms, logged = backward(module, every_draw(truth))
    assert_slopes(module, truth, free_energy, free_energy)
    np.testing.assert_allclose([terms["energy"], terms["neg_entropy"]], terms_of(truth), rtol=1e-9)
    assert not logged


@pytest.mark.parametrize("kind", ["bernoulli", "scalar"])
@pytest.mark.parametrize("algorithm", ["wake-sleep", "reweighted", "free-energy"])
def test_layers_that_are_added_later(kind, algorithm):
    """Before that, the layers below are a machine of their own, whose top units have these biases.

    The layers above learn nothing, although they are drawn.
    """
    whole, _ = make_module(kind, (2, 2), algorithm, 2, n_features=2, layerwise_epochs=2)
    lower, truth = make_module(kind, (2,), algorithm, 2, n_features=2, seed=1)
    same = {name: name for name in truth.weights if not name.startswith("prior")}
    same["down.0.bias"] = "prior_logit"
    with torch.no_grad():
        for name, of_lower in same.items():
            whole.get_parameter(name).copy_(lower.get_parameter(of_lower))
    whole.likelihood.load_state_dict(lower.likelihood.state_dict())
    batch = every_draw(truth)
    widths = [2, 2, 2, 2] if lower.architecture.dreams else [2, 2]  # particles, dreams, rows
    with_upper = []
    for i, columns in enumerate(batch.draws.split(widths, 1)):
        lit = columns.new_zeros(len(columns), 2)  # uniform numbers at which all units are 1
        with_upper += [columns] if i == 3 else [columns, lit]
    whole.begin_epoch(1)
    found = backward(whole, batch._replace(draws=torch.cat(with_upper, 1)))
    expected = backward(lower, batch)
    for of_whole, of_lower in zip(found, expected, strict=True):
        assert of_whole == pytest.approx(of_lower, rel=1e-12)
    for name, p in whole.named_parameters():
        if name in same:
            other = lower.get_parameter(same[name]).grad
            torch.testing.assert_close(p.grad, other, rtol=1e-12, atol=1e-15)
        else:
            assert p.grad is None
    whole.begin_epoch(2)
    backward(whole, batch._replace(draws=torch.cat(with_upper, 1)))
    assert whole.prior_logit.grad.abs().min() > 0


@pytest.mark.parametrize(
    ("layerwise_epochs", "n_layers", "expected"),
    [(0, 3, [3, 3]), (4, 3, [1, 1, 2, 2, 3, 3]), (3, 4, [1, 2, 3, 4]), (2, 1, [1, 1, 1])],
)
def test_layers_are_added_after_equal_times(layerwise_epochs, n_layers, expected):
    """By hand: from one layer to all of them."""
    found = [n_trained(epoch, layerwise_epochs, n_layers) for epoch in range(len(expected))]
    assert found == expected


def test_comparing_particles_reduces_the_variance():
    """Of the gradient for recognition, over all draws, beside one without a baseline."""
    module, truth = make_module("bernoulli", (2,), "free-energy", 3)
    batch = every_draw(truth)
    y, seen = rows_and_seen(truth)
    rows = slice(0, len(batch.x) // 3)  # all draws of the first row
    chance = batch.weight[rows].numpy() * 3
    found = []
    for i in range(rows.stop):
        one = Batch(*(None if t is None else t[i : i + 1] for t in batch))
        backward(module, one._replace(weight=None))
        found.append(module.up[0].bias.grad.numpy().copy())
    found = np.array(found)
    variance = chance @ (found - chance @ found) ** 2
    # Without: cost times d log q = h - p, averaged over three particles.
    read = truth.read(y[0], seen[0])
    log_q = truth.log_q(read)
    cost, q = log_q - truth.log_joint(y[0], seen[0]), np.exp(log_q)
    plain = cost[:, None] * (truth.h[0] - special.expit(truth.logit("up.0", read)))
    assert (variance < 0.5 * (q @ (plain - q @ plain) ** 2) / 3).all()


@pytest.mark.parametrize("algorithm", ["wake-sleep", "reweighted", "free-energy"])
@pytest.mark.parametrize("kind", ["scalar", "per_feature"])
def test_the_noise_follows_what_draws_leave(algorithm, kind):
    """Their mean square of what was seen; of particles by their importance, if reweighted."""
    module, truth = make_module(kind, (2,), algorithm, 2, n_features=2)
    batch = Batch(*(None if t is None else t.float() for t in every_draw(truth)))
    module.float()  # as the running variance is
    with torch.no_grad():
        module.after_step(batch, module.loss(batch))
    squares, counts = np.zeros(2), np.zeros(2)
    output = truth.logit("to_rows", truth.h[0])
    for y, seen, read, which, chance in of_tuples(truth):
        log_weight = (truth.log_joint(y, seen) - truth.log_q(read))[which]
        log_weight = log_weight if algorithm == "reweighted" else 0 * log_weight
        share = special.softmax(log_weight, axis=1) * chance[:, None]
        squares += seen * np.einsum("ik,ikd->d", share, (y - output[which]) ** 2)
        counts += seen
    expected = squares / counts if kind == "per_feature" else squares.sum() / counts.sum()
    np.testing.assert_allclose(module.likelihood.variance.numpy(), expected, rtol=1e-5)


def test_steps_keep_their_length_while_the_noise_shrinks():
    """Gradients of Gaussian rows are multiplied with the mean variance, others with nothing."""
    module, truth = make_module("per_feature", (2,), "wake-sleep")
    assert float(module.step_scale()) == pytest.approx(truth.variance.mean())
    assert float(make_module("bernoulli", (2,), "wake-sleep")[0].step_scale()) == 1.0


# ----------------------------------------------------------------- a step by hand


class Recorder(Callback):
    """The first weights, and every batch before it is prepared."""

    def on_train_begin(self, net, **kwargs):
        named = net.module_.named_parameters()
        self.start_ = {name: p.detach().double().numpy().copy() for name, p in named}
        self.batches_ = []
        hear_batches(net, lambda batch, training: self.batches_.append(batch))


def delta_rule(truth, layer, above, below, rate):
    """The change of a layer's weights that makes units (or rows) below from those above."""
    delta = (below - special.expit(truth.logit(layer, above))) / len(below)
    return {f"{layer}.weight": rate * delta.T @ above, f"{layer}.bias": rate * delta.sum(0)}


@pytest.mark.parametrize("n_particles", [1, 3])
def test_plain_steps_are_delta_rules(n_particles):
    """Awake for generation, asleep for recognition, of two layers; in NumPy, by uniform numbers."""
    X, rate, sizes = binary_states(4)[np.arange(30) % 16], 0.5, (3, 2)
    X[np.random.default_rng(0).random(X.shape) < 0.2] = np.nan
    recorder = Recorder()
    model = HelmholtzMachine(
        2,
        hidden_layer_sizes=3,
        n_particles=n_particles,
        solver="sgd",
        momentum=0.0,
        learning_rate_init=rate,
        batch_size=30,
        max_iter=3,
        random_state=0,
        device="cpu",
        callbacks=[recorder],
    ).fit(X)
    truth = Truth(recorder.start_, model.net_.module_.architecture, None)
    assert truth.architecture.layer_sizes == sizes
    assert len(recorder.batches_) == 3
    for epoch, batch in enumerate(recorder.batches_):
        generator = torch.Generator().manual_seed((model._seed * 1_000_003 + epoch) % 2**63)
        uniform = torch.rand((30, 5 * n_particles + 5 + 4), generator=generator).double().numpy()
        y, seen = batch.y.numpy().astype(float), batch.seen.numpy()
        steps = {}
        # Awake: units are recognised, and generation learns to make what lies below them.
        below = np.repeat(truth.read(y, seen), n_particles, axis=0)
        h = []
        for i, u in enumerate(truth.layers(uniform[:, : 5 * n_particles].reshape(-1, 5))):
            below = (u < special.expit(truth.logit(f"up.{i}", below))).astype(float)
            h.append(below)
        # Nothing is learned from what was not seen: as if the row were what is expected.
        expected = special.expit(truth.logit("to_rows", h[0]))
        rows = np.where(np.repeat(seen, n_particles, axis=0), y.repeat(n_particles, 0), expected)
        steps |= delta_rule(truth, "to_rows", h[0], rows, rate)
        steps |= delta_rule(truth, "down.0", h[1], h[0], rate)
        chance = special.expit(truth.weights["prior_logit"])
        steps["prior_logit"] = rate * (h[1] - chance).mean(0)
        # Asleep: rows are dreamt, and recognition learns what they were made of.
        first, top, of_rows = np.split(uniform[:, 5 * n_particles :], [3, 5], axis=1)
        top = (top < chance).astype(float)
        first = (first < special.expit(truth.logit("down.0", top))).astype(float)
        dream = (of_rows < special.expit(truth.logit("to_rows", first))).astype(float)
        steps |= delta_rule(truth, "up.0", truth.read(dream, seen), first, rate)
        steps |= delta_rule(truth, "up.1", first, top, rate)
        truth = replace(truth, weights={name: w + steps[name] for name, w in truth.weights.items()})
    for name, p in model.net_.module_.named_parameters():
        np.testing.assert_allclose(
            p.detach().numpy(), truth.weights[name], rtol=1e-4, atol=1e-5, err_msg=name
        )


# ----------------------------------------------------------------------------- draws


def test_uniform_numbers_make_dreams():
    """Top first, each layer given the one above, rows at the quantiles of their noise."""
    module, truth = make_module("per_feature", (2, 1), "wake-sleep", n_features=2)
    h, rows, uniform, chance = dreams(truth)
    assert chance.sum() == pytest.approx(1)
    uniform = torch.as_tensor(uniform)
    states, output = module.dream(uniform[:, :3])
    for found, expected in zip(states, h, strict=True):
        np.testing.assert_array_equal(found.numpy(), expected)
    found = module.rows_at(output, uniform[:, 3:]).detach().numpy()
    np.testing.assert_allclose(found, rows, rtol=1e-9, atol=1e-9)
    # A uniform number can be 0, but no row is infinite.
    assert torch.isfinite(module.rows_at(output[:1], 0 * uniform[:1, 3:])).all()
    given = torch.ones(5, 1).double()
    states, _ = module.dream(torch.full((5, 3), 0.999).double(), given)
    assert (states[1] == 1).all()


@pytest.mark.parametrize("algorithm", ["wake-sleep", "reweighted", "free-energy"])
def test_prepared_batches_hold_as_many_numbers_as_are_read(algorithm):
    """Of every particle, and of dreams where there are some; uniform, by the generator alone."""
    module, truth = make_module("masked", (2, 1), algorithm, 4)
    y, seen = (torch.as_tensor(a) for a in rows_and_seen(truth))
    batch = Batch(torch.as_tensor(truth.read(y.numpy(), seen.numpy())), y, seen.double())
    found = module.prepare(batch, torch.Generator().manual_seed(3))
    assert found.draws.shape == (3, 4 * 3 + (0 if algorithm == "free-energy" else 3 + 3))
    again = module.prepare(batch, torch.Generator().manual_seed(3))
    assert torch.equal(found.draws, again.draws)
    assert torch.equal(found.y, y)
    big = module.prepare(
        Batch(*(None if t is None else t.repeat(200, 1) for t in batch)), torch.Generator()
    )
    assert stats.kstest(big.draws.numpy().ravel(), "uniform").pvalue > 1e-3


def test_binarised_rows_are_read_as_they_were_drawn():
    """Recognition sees the row that generation explains, and nothing of what was not seen."""
    module, truth = make_module("masked", (2,), "wake-sleep")
    module.architecture = replace(module.architecture, binarised=True)
    grey = np.array([[0.5, 0.2, 0.9], [0.3, 0.0, 1.0]]).repeat(200, 0)
    seen = np.array([[1.0, 0, 1], [1, 1, 1]]).repeat(200, 0)
    grey = grey * seen
    read = truth.read(grey, seen)
    batch = Batch(*(torch.as_tensor(a) for a in (read, grey, seen)))
    found = module.prepare(batch, torch.Generator().manual_seed(0))
    y = found.y.numpy()
    np.testing.assert_array_equal(np.unique(y), [0, 1])
    np.testing.assert_allclose(found.x.numpy(), truth.read(y, seen), rtol=1e-6)
    np.testing.assert_allclose(y[:200].mean(0), [0.5, 0, 0.9], atol=0.1)
    np.testing.assert_allclose(y[200:].mean(0), [0.3, 0, 1], atol=0.1)
    np.testing.assert_array_equal(batch.y, grey)  # which later epochs read again


def test_rows_are_read_alike_awake_and_asleep():
    """What training reads of rows is what it would read of the same rows in a dream."""
    X = (np.random.default_rng(0).random((30, 4)) < 0.3).astype(float)
    X[0, 1] = np.nan
    for params in ({"likelihood": "bernoulli"}, {"likelihood": "gaussian"}):
        model = HelmholtzMachine(2, max_iter=1, device="cpu", **params).fit(X)
        batch = model._dataset(Data(X)).batch(slice(None))
        found = model.net_.module_.read(batch.y, batch.seen)
        np.testing.assert_allclose(found, batch.x, rtol=1e-5, atol=1e-6)
        scale = np.sqrt(np.nanvar(X, axis=0).mean())
        expected = np.nan_to_num((X - np.nanmean(X, axis=0)) / scale)
        np.testing.assert_allclose(batch.x, np.hstack([expected, ~np.isnan(X)]), atol=1e-6)


# -------------------------------------------------------------------------- formulas


def test_units_are_lit_below_their_probability():
    """0 or 1, the latter as often as the probability says, in any shape that broadcasts."""
    logit = torch.tensor([-2.0, 0.0, 3.0])
    uniform = torch.rand((20_000, 3), generator=torch.Generator().manual_seed(0))
    found = bernoulli_at(logit, uniform).numpy()
    np.testing.assert_array_equal(np.unique(found), [0, 1])
    np.testing.assert_allclose(found.mean(0), special.expit([-2.0, 0.0, 3.0]), atol=0.015)
    np.testing.assert_array_equal(found, uniform.numpy() < special.expit(logit.numpy()))
    np.testing.assert_array_equal(bernoulli_at(logit[None, None], uniform[None])[0], found)
    same = logit.expand(20_000, 3)
    np.testing.assert_array_equal(bernoulli_at(same, uniform), found)
    assert logit.tolist() == [-2.0, 0.0, 3.0]


@pytest.mark.parametrize("n", [2, 5])
def test_particles_are_compared_with_the_others(n):
    """Each with the mean of the others, its own cost left out."""
    costs = np.random.default_rng(0).normal(size=(4, 3, n))
    expected = np.empty_like(costs)
    for k in range(n):
        expected[..., k] = costs[..., k] - np.delete(costs, k, axis=-1).mean(-1)
    np.testing.assert_allclose(leave_one_out(torch.as_tensor(costs)), expected, atol=1e-12)


def test_entropies_of_units():
    """Those of SciPy, summed over units; none where a unit is certain."""
    logit = np.array([[-3.0, 0.0, 1.5], [0.2, 40.0, -2.0]])
    p = special.expit(logit)
    expected = stats.entropy([p, 1 - p]).sum(1)
    np.testing.assert_allclose(entropy(torch.as_tensor(logit)), expected, rtol=1e-9)
    certain = entropy(torch.tensor([[-300.0, 300.0]]))
    assert certain.tolist() == [0.0]


@pytest.mark.parametrize("n_units", [1, 3, 6])
def test_all_states_are_all_states(n_units):
    """Each once; and the masses of all, given any logits, are those of independent units."""
    states = all_states(n_units)
    assert states.dtype == torch.float64
    assert sorted(map(tuple, states.numpy())) == sorted(map(tuple, binary_states(n_units)))
    logits = np.random.default_rng(0).normal(scale=3, size=(4, n_units))
    found = log_masses(states, torch.as_tensor(logits)).numpy()
    expected = log_bernoulli(states.numpy(), logits[:, None]).sum(-1)
    np.testing.assert_allclose(found, expected, rtol=1e-9)
    np.testing.assert_allclose(np.exp(found).sum(1), 1)
