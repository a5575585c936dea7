"""Priors over indices, against loops, enumeration and a chain that is known."""

import itertools

import numpy as np
import pytest
import torch
from scipy import stats

from helpers import generator
from skae._densities.index_prior import (
    AutoregressivePrior,
    IndependentPrior,
    IndexPriorModule,
    UniformPrior,
    counts_apart,
    index_counts,
    smoothed_frequencies,
)
from skae._training.data import Batch
from skae._training.trainer import TrainingOptions

# Of three positions with nine rows each: few values often, many rarely.
COUNTS = [
    [[5, 3, 1, 0], [2, 3, 2, 2], [4, 4, 0, 1]],
    [[9, 0, 0, 0], [0, 8, 1, 0], [0, 0, 0, 9]],
    [[6, 2, 1, 0, 0, 0, 0, 0], [3, 0, 3, 0, 2, 0, 1, 0], [0, 4, 1, 1, 1, 1, 1, 0]],
]
CHAIN = np.array([[0.7, 0.2, 0.1], [0.05, 0.15, 0.8], [0.5, 0.25, 0.25]])
START = np.array([0.6, 0.3, 0.1])


def log_shares(n_positions, n_values, seed=0):
    drawn = torch.randn((n_positions, n_values), generator=generator(seed), dtype=torch.float64)
    return drawn.log_softmax(-1)


def independent(n_positions, n_values):
    """A prior of independent positions, and log frequencies of it."""
    found = log_shares(n_positions, n_values).double().numpy()
    return IndependentPrior.of_logs(np.exp(found), found), found


def vectors_of(n_tables, n_values):
    return torch.randn((n_tables, n_values, 2), generator=generator(8))


# ---------------------------------------------------------------------------- counts


@pytest.mark.parametrize("weighted", [False, True])
def test_counts_are_those_of_a_loop(weighted):
    """With weights scaled to add up to the number of rows."""
    rng = np.random.default_rng(0)
    indices = rng.integers(0, 4, (30, 3))
    weight = rng.uniform(size=30) if weighted else None
    expected = np.zeros((3, 5))
    for row, values in enumerate(indices):
        for position, value in enumerate(values):
            expected[position, value] += 30 * weight[row] / weight.sum() if weighted else 1.0
    found = index_counts(indices, weight, 5)
    np.testing.assert_allclose(found, expected, rtol=1e-12)
    np.testing.assert_allclose(found.sum(1), 30.0)
    assert found.dtype == np.float64


def test_weights_have_no_scale():
    """And equal ones are none."""
    rng = np.random.default_rng(0)
    indices, weight = rng.integers(0, 4, (30, 3)), rng.uniform(size=30)
    expected = index_counts(indices, weight, 4)
    np.testing.assert_allclose(index_counts(indices, 17 * weight, 4), expected, rtol=1e-12)
    alike = index_counts(indices, np.full(30, 0.3), 4)
    np.testing.assert_allclose(alike, index_counts(indices, None, 4), rtol=1e-12)


def test_counts_of_weights_are_those_of_repeated_rows():
    """In shares of all rows."""
    rng = np.random.default_rng(0)
    indices, times = rng.integers(0, 4, (30, 3)), rng.integers(0, 4, 30)
    weighted = index_counts(indices, times.astype(float), 4) / 30
    repeated = index_counts(np.repeat(indices, times, axis=0), None, 4) / times.sum()
    np.testing.assert_allclose(weighted, repeated, rtol=1e-12)


# ---------------------------------------------------------------------------- shares


def log_prediction(counts, pseudo):
    """Of every observation from all others at its position, one after the other."""
    total = 0.0
    n_values = len(counts[0])
    for position in counts:
        observed = np.repeat(np.arange(n_values), position)
        for i, value in enumerate(observed):
            others = np.delete(observed, i)
            alike = (others == value).sum()
            total += np.log((alike + pseudo / n_values) / (len(others) + pseudo))
    return total


def pseudo_count(counts, shares):
    """With which shares are (n_k + a/K) / (n + a); the same for all."""
    counts = np.asarray(counts, dtype=float)
    n, n_values = counts.sum(1, keepdims=True), counts.shape[1]
    return np.median(((shares * n - counts) / (1 / n_values - shares))[shares != 1 / n_values])


@pytest.mark.parametrize("counts", COUNTS, ids=["even", "peaked", "many"])
def test_the_pseudo_count_predicts_every_observation_from_the_others(counts):
    """Hardly another does so better: the best of all is less than a factor 1.4 away."""
    shares = smoothed_frequencies(np.array(counts, dtype=float))
    found = pseudo_count(counts, shares)
    n, n_values = 9, len(counts[0])
    np.testing.assert_allclose(shares, (np.array(counts) + found / n_values) / (n + found))
    grid = np.geomspace(1e-2, 1e2 * n_values, 200)
    best = grid[np.argmax([log_prediction(counts, pseudo) for pseudo in grid])]
    assert grid[0] < best < grid[-1]
    assert 1 / 1.4 < found / best < 1.4


def test_shares_are_positive_and_sum_to_one():
    """Also of counts that are no integers, and of values that never stand."""
    rng = np.random.default_rng(0)
    weight = rng.uniform(size=30)
    for n_values in (2, 7, 400):
        counts = index_counts(rng.integers(0, 2, (30, 5)), weight, n_values)
        shares = smoothed_frequencies(counts)
        np.testing.assert_allclose(shares.sum(1), 1.0, rtol=1e-12)
        assert (shares > 0).all()
        assert (np.diff(shares, axis=1)[np.diff(counts, axis=1) > 0] > 0).all()


def test_shares_of_many_observations_are_frequencies():
    """To less than their standard error."""
    law = np.random.default_rng(0).dirichlet(np.ones(6), 3)
    counts = np.stack([np.random.default_rng(1).multinomial(10**6, p) for p in law]).astype(float)
    shares = counts / 10**6
    found = smoothed_frequencies(counts)
    assert (np.abs(found - shares) < 0.2 * np.sqrt(shares / 10**6)).all()


def test_shares_are_nearer_to_the_law_than_frequencies():
    """Of few observations of values that are all about as likely: in what new ones cost."""
    law = np.random.default_rng(0).dirichlet(np.full(20, 20.0), 5)
    rng = np.random.default_rng(1)
    counts = np.stack([rng.multinomial(40, p) for p in law]).astype(float)
    one_each = (counts + 1e-2 / 20) / (40 + 1e-2)
    costs = [-(law * np.log(shares)).sum() for shares in (smoothed_frequencies(counts), one_each)]
    assert costs[0] < costs[1]


@pytest.mark.parametrize("n_values", [1, 2, 64])
def test_shares_of_one_observation_are_finite(n_values):
    """And largest where it is."""
    counts = np.zeros((3, n_values))
    counts[:, -1] = 1.0
    shares = smoothed_frequencies(counts)
    assert np.isfinite(np.log(shares)).all()
    np.testing.assert_allclose(shares.sum(1), 1.0)
    assert (shares[:, -1:] >= shares).all()


# ----------------------------------------------------------------------- independent


def test_independent_positions_have_the_shares_they_are_given():
    """In log probabilities, over all sequences, which sum to one."""
    prior, log_frequencies = independent(3, 4)
    k = np.array(list(itertools.product(range(4), repeat=3)))
    found = prior.log_prob(torch.tensor(k)).numpy()
    expected = [sum(log_frequencies[t, value] for t, value in enumerate(row)) for row in k]
    np.testing.assert_allclose(found, expected, rtol=1e-6)
    assert np.exp(found).sum() == pytest.approx(1.0)


def test_independent_draws():
    """By chi-square over all sequences of three positions: so independent ones."""
    prior, log_frequencies = independent(3, 4)
    drawn = prior.sample(20_000, generator()).numpy()
    assert drawn.shape == (20_000, 3)
    counts = np.bincount(drawn @ [16, 4, 1], minlength=64)
    law = np.einsum("i,j,k->ijk", *np.exp(log_frequencies)).ravel()
    assert stats.chisquare(counts, 20_000 * law / law.sum()).pvalue > 1e-3


def test_independent_draws_follow_the_generator():
    """The same seed gives the same ones, another others; torch's own is not read."""
    prior, _ = independent(3, 4)
    before = torch.get_rng_state()
    first, again, other = (prior.sample(50, generator(seed)) for seed in (0, 0, 1))
    assert torch.equal(first, again)
    assert not torch.equal(first, other)
    assert torch.equal(before, torch.get_rng_state())


def test_an_independent_prior_smooths_the_frequencies_of_its_rows():
    frequencies = np.array([[1.0, 0.0], [0.5, 0.5]])
    prior = IndependentPrior(frequencies, 8.0)
    expected = smoothed_frequencies(8.0 * frequencies)
    np.testing.assert_array_equal(np.exp(prior.log_frequencies), np.exp(np.log(expected)))


def test_the_uniform_prior_scores_and_does_not_draw():
    prior = UniformPrior(5)
    np.testing.assert_allclose(prior.log_prob(torch.zeros(3, 4)).numpy(), 3 * [-4 * np.log(5)])
    with pytest.raises(ValueError, match="prior=None learns no p\\(k\\)"):
        prior.sample(2, generator())


# -------------------------------------------------------------------------- training


def batch_of(k, weight=None):
    """As the loop gives it: indices in whatever numbers the data are kept."""
    return Batch(k.float(), k.float(), weight=weight)


def untrained(n_positions=4, n_values=3, n_tables=2):
    shares = log_shares(n_positions, n_values).float()
    module = IndexPriorModule(shares, vectors_of(n_tables, n_values), 8, generator())
    with torch.no_grad():
        module.sequence.own_leave.normal_(generator=generator(1))
    return module


def test_the_loss_is_the_mean_cost_of_rows():
    """Of all their positions, in nats."""
    module, k = untrained(), torch.randint(3, (20, 4), generator=generator())
    loss = module.loss(batch_of(k))
    costs = [-module.sequence.log_prob(row[None]).sum().item() for row in k]
    assert sum(loss.terms.values()).item() == pytest.approx(np.mean(costs), rel=1e-5)


def test_weights_of_the_loss_are_repeated_rows():
    """Zero among them; and their scale is none."""
    module, k = untrained(), torch.randint(3, (20, 4), generator=generator())
    times = torch.randint(4, (20,), generator=generator(1))
    repeated = module.loss(batch_of(k.repeat_interleave(times, 0))).terms["prior"]
    for scale in (1.0, 7.0):
        weighted = module.loss(batch_of(k, scale * times.float())).terms["prior"]
        torch.testing.assert_close(weighted, repeated)


def test_steps_are_scaled_to_nats_per_index():
    """Of K values that are alike: log K, for any number of positions."""
    for n_positions in (1, 4, 9):
        alike = torch.full((n_positions, 5), -np.log(5.0))
        module = IndexPriorModule(alike, vectors_of(1, 5), 8, generator())
        k = torch.randint(5, (10, n_positions), generator=generator())
        cost = module.loss(batch_of(k)).terms["prior"].item() * module.step_scale()
        assert cost == pytest.approx(np.log(5.0), rel=1e-6)


def chain_draws(n, n_positions, seed):
    """Of the Markov chain, by inverting its distribution functions."""
    uniform = np.random.default_rng(seed).uniform(size=(n, n_positions))
    k = np.zeros((n, n_positions), dtype=np.int64)
    k[:, 0] = (uniform[:, :1] > START.cumsum()).sum(1)
    for t in range(1, n_positions):
        k[:, t] = (uniform[:, t, None] > CHAIN.cumsum(1)[k[:, t - 1]]).sum(1)
    return torch.tensor(np.minimum(k, 2))


@pytest.mark.parametrize("n_tables", [1, 2])
def test_training_learns_a_markov_chain(n_tables):
    """To 0.02 nats an index above its entropy, which independent positions cannot reach."""
    n_positions = 6
    k = chain_draws(4000, n_positions, seed=0)
    shares = smoothed_frequencies(index_counts(k.numpy(), None, 3))
    start = torch.tensor(np.log(shares), dtype=torch.float32)
    module = IndexPriorModule(start, vectors_of(n_tables, 3), 16, generator())
    optimiser = torch.optim.Adam(module.parameters(), lr=0.02)
    for step in range(120):
        chosen = torch.randint(len(k), (256,), generator=generator(step))
        optimiser.zero_grad()
        module.loss(batch_of(k[chosen])).terms["prior"].backward()
        optimiser.step()

    # H(k_1) + sum_t H(k_t | k_t-1), of the shares that the states have at each step.
    entropies = -(CHAIN * np.log(CHAIN)).sum(1)
    entropy, independent, state = -START @ np.log(START), -START @ np.log(START), START
    for _ in range(n_positions - 1):
        entropy += state @ entropies
        state = state @ CHAIN
        independent -= state @ np.log(state)

    every = np.array(list(itertools.product(range(3), repeat=n_positions)))
    mass = START[every[:, 0]] * CHAIN[every[:, :-1], every[:, 1:]].prod(1)
    with torch.no_grad():
        cost = -mass @ module.sequence.log_prob(torch.tensor(every)).sum(1).double().numpy()
    assert entropy <= cost + 1e-5
    assert cost - entropy < 0.02 * n_positions < independent - entropy


# -------------------------------------------------------------------- held-out rows


@pytest.mark.parametrize("weighted", [False, True])
def test_counts_apart_are_those_of_the_rows_alone(weighted):
    rng = np.random.default_rng(0)
    indices = rng.integers(0, 4, (30, 3))
    weight = rng.uniform(size=30) if weighted else None
    held_out = [2, 3, 20]
    rest = [row for row in range(30) if row not in held_out]
    found = counts_apart(indices, weight, torch.tensor(held_out), 4)
    for counts, rows in zip(found, (rest, held_out), strict=True):
        w = np.ones(30) if weight is None else weight
        expected = np.zeros((3, 4))
        for row in rows:
            for position in range(3):
                expected[position, indices[row, position]] += w[row]
        np.testing.assert_allclose(counts, expected * len(rows) / w[rows].sum(), rtol=1e-12)


@pytest.mark.parametrize("kind", ["alike", "others"])
def test_the_pseudo_count_predicts_held_out_rows(kind):
    """Better than hardly another does; rows with other values make it larger by far."""
    first = np.array([[30.0, 10, 0, 0], [0, 20, 20, 0]])
    second = np.array([[8.0, 2, 0, 0], [0, 5, 5, 0]])
    second = second if kind == "alike" else second[:, ::-1].copy()
    counts = first + second
    shares = smoothed_frequencies(counts, (first, second))
    np.testing.assert_allclose(shares.sum(1), 1.0, rtol=1e-12)
    found = pseudo_count(counts, shares)

    def predicted(a):
        return (second * np.log((first + a / 4) / (40 + a))).sum()

    assert predicted(found) >= max(predicted(a) for a in np.geomspace(0.011, 390, 200)) - 0.05
    assert (found < 1) == (kind == "alike")


def causal_prior(start):
    """Of these log frequencies; positions depend on each other."""
    options = {
        "solver": "adam",
        "alpha": 0.0,
        "batch_size": 32,
        "learning_rate": "constant",
        "learning_rate_init": 1e-3,
        "momentum": 0.9,
        "max_iter": 1,
        "tol": 0.0,
        "weight_averaging": 0.0,
        "early_stopping": True,
        "validation_fraction": 0.1,
        "n_iter_no_change": 5,
        "verbose": 0,
        "device": "cpu",
        "precision": "float32",
        "compile": False,
        "callbacks": None,
    }
    prior = AutoregressivePrior.new(
        start,
        codebook=vectors_of(1, start.shape[1]),
        n_channels=4,
        options=TrainingOptions(**options),
        seed=0,
        name="VQVAE prior",
    )
    with torch.no_grad():
        prior.sequence.own_leave.normal_(generator=generator(4))
        prior.sequence.leave.normal_(std=0.3, generator=generator(5))
    return prior


def log_conditionals(before, start, k):
    """log p(k_t = v | k_<t), (n_values, n, n_positions), by another network of these weights."""
    module = IndexPriorModule(
        torch.tensor(start, dtype=torch.float32), vectors_of(1, start.shape[1]), 4, generator()
    )
    module.sequence.load_state_dict(before)
    found = np.empty((start.shape[1], *k.shape))
    with torch.no_grad():
        for value, t in itertools.product(range(start.shape[1]), range(k.shape[1])):
            other = k.clone()
            other[:, t] = value
            found[value, :, t] = module.sequence.log_prob(other)[:, t].numpy()
    return found


def log_softened(log_p, k, factor):
    """log p of rows, if all logits are multiplied by a factor."""
    logits = factor * log_p
    softened = logits - np.log(np.exp(logits).sum(0))
    return np.take_along_axis(softened, k.numpy()[None], 0)[0].sum(1)


@pytest.mark.parametrize("weighted", [False, True])
@pytest.mark.parametrize("case", ["too sure", "right", "wrong"])
def test_softened_logits_are_those_that_predict_held_out_rows(case, weighted):
    """Of a grid of factors none does so better; other rows count nothing."""
    start, rng = log_shares(3, 5).numpy(), np.random.default_rng(0)
    prior, held_out = causal_prior(start), list(range(40, 160))
    before = {name: value.clone() for name, value in prior.sequence.state_dict().items()}
    with torch.no_grad():
        codes = prior.sample(160, generator(6)).numpy()
    if case == "wrong":
        codes = np.broadcast_to(start.argmin(1), (160, 3)).copy()
    elif case == "too sure":
        codes[80:] = rng.integers(0, 5, (80, 3))
    codes[:40] = start.argmax(1)
    weight = rng.uniform(0.2, 3, 160) if weighted else None
    prior.soften(codes, weight, torch.tensor(held_out))
    k = torch.from_numpy(codes[held_out])
    w = np.ones(120) if weight is None else weight[held_out]

    log_p = log_conditionals(before, start, k)

    def predicted(factor):
        return w @ log_softened(log_p, k, factor) / w.sum()

    with torch.no_grad():
        found = prior.log_prob(k).double().numpy()
    grid = np.linspace(0, 1, 21)
    scores = [predicted(factor) for factor in grid]
    assert w @ found / w.sum() >= max(scores) - 1e-3
    factor = float((prior.sequence.bias.detach() / before["bias"]).mean())
    np.testing.assert_allclose(found, log_softened(log_p, k, factor), atol=1e-4)
    assert abs(factor - grid[np.argmax(scores)]) <= 0.05
    assert {"too sure": 0.1 < factor < 0.8, "right": factor > 0.8, "wrong": factor == 0}[case]
