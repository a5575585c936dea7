"""HelmholtzMachine: likelihoods, free energies and draws, against enumeration in NumPy."""

import itertools
from dataclasses import dataclass
from functools import cache, cached_property

import numpy as np
import pandas as pd
import pytest
import torch
from scipy import integrate, optimize, special, stats

from helpers import binary_states, log_bernoulli
from skae import HelmholtzMachine
from skae._helmholtz_machine import is_binary
from skae._inference import row_draws
from skae._inference.helmholtz import drawn
from skae._modules.helmholtz import HelmholtzModule
from skae._training import data
from skae._training.data import Data

# -------------------------------------------------------------------------- helpers


@dataclass
class Truth:
    """A machine in NumPy and float64; `h` are all its configurations, layer by layer.

    Rows are in the units of the data, NaN where nothing was seen.
    """

    weights: dict[str, np.ndarray]
    sizes: tuple[int, ...]  # from the data up
    center: np.ndarray
    scale: float
    noise: np.ndarray | None = None  # variance, of Gaussian rows
    with_mask: bool = False

    @cached_property
    def h(self):
        return np.split(binary_states(sum(self.sizes)), np.cumsum(self.sizes)[:-1], axis=1)

    def logit(self, layer, states):
        return states @ self.weights[f"{layer}.weight"].T + self.weights[f"{layer}.bias"]

    def read(self, X):
        """What recognition reads: centred, zero where nothing was seen, and the mask."""
        seen = ~np.isnan(X)
        x = np.where(seen, (X - self.center) / self.scale, 0.0)
        return np.concatenate([x, seen], axis=1) if self.with_mask else x

    def log_q(self, X):
        """log q(h|x) of rows and configurations, (n_rows, n_states)."""
        log_q = log_bernoulli(self.h[0], self.logit("up.0", self.read(X))[:, None]).sum(-1)
        for i in range(1, len(self.h)):
            log_q = log_q + log_bernoulli(self.h[i], self.logit(f"up.{i}", self.h[i - 1])).sum(1)
        return log_q

    def log_prior(self):
        """log p(h) of all configurations."""
        log_p = log_bernoulli(self.h[-1], self.weights["prior_logit"]).sum(1)
        for i in range(len(self.h) - 1):
            log_p = log_p + log_bernoulli(self.h[i], self.logit(f"down.{i}", self.h[i + 1])).sum(1)
        return log_p

    def mean(self):
        """Of p(x|h), all configurations."""
        return self.means_of(self.logit("to_rows", self.h[0]))

    def means_of(self, output):
        return special.expit(output) if self.noise is None else self.center + self.scale * output

    def log_px(self, X):
        """log p(x|h) of what was seen, (n_rows, n_states)."""
        x = np.nan_to_num(X)[:, None]
        if self.noise is None:
            values = log_bernoulli(x, self.logit("to_rows", self.h[0]))
        else:
            values = stats.norm.logpdf(x, self.mean(), np.sqrt(self.noise))
        return np.where(~np.isnan(X)[:, None], values, 0.0).sum(-1)

    def log_joint(self, X):
        return self.log_px(X) + self.log_prior()

    def log_p(self, X):
        return special.logsumexp(self.log_joint(X), axis=1)

    def terms(self, X):
        """E_q[-log p(x, h)] and the entropy of q(h|x)."""
        log_q = self.log_q(X)
        q = np.exp(log_q)
        return -(q * self.log_joint(X)).sum(1), -(q * log_q).sum(1)

    def free_energy(self, X):
        energy, entropy = self.terms(X)
        return energy - entropy

    def divergence(self, X):
        """KL(q(h|x) || p(h|x)), both by enumeration."""
        log_q, log_posterior = self.log_q(X), self.log_joint(X) - self.log_p(X)[:, None]
        return (np.exp(log_q) * (log_q - log_posterior)).sum(1)


def truth_of(model, X):
    """The machine as it is now; `X` are the rows that it was fitted to."""
    named = model.net_.module_.named_parameters()
    sizes = (*map(int, np.atleast_1d(model.hidden_layer_sizes)), model.n_components)
    return Truth(
        {name: p.detach().double().numpy().copy() for name, p in named},
        tuple(map(int, sizes)),
        np.nanmean(X, axis=0),
        np.sqrt(np.nanvar(X, axis=0).mean()),
        model.noise_variance_,
        bool(np.isnan(X).any()),
    )


def machine(X, sizes, *, seed=0, size=1.0, **params):
    """A machine fitted to X whose weights are then drawn anew, and its truth."""
    *hidden, top = sizes
    model = HelmholtzMachine(
        top,
        hidden_layer_sizes=hidden,
        **{"max_iter": 1, "random_state": 0, "device": "cpu", **params},
    ).fit(X)
    rng, module = np.random.default_rng(seed), model.net_.module_
    with torch.no_grad():
        for p in module.parameters():
            p.copy_(torch.as_tensor(rng.normal(scale=size, size=p.shape)))
        if model.likelihood_ == "gaussian" and isinstance(model.noise_variance, str):
            variance = module.likelihood.variance
            variance.copy_(torch.as_tensor(rng.uniform(0.2, 0.9, variance.shape)))
            model._publish_noise()
    return model, truth_of(model, X)


def put(model, **values):
    """Set parameters of a machine by name, with _ in place of dots."""
    with torch.no_grad():
        for name, p in model.net_.module_.named_parameters():
            if name.replace(".", "_") in values:
                p.copy_(torch.as_tensor(np.asarray(values[name.replace(".", "_")])))


def rows_of_kind(kind, n_rows=20, n_features=4, *, gaps=0.0, seed=0):
    """Rows that are binary, grey, or far from zero in units far from one; some are NaN."""
    rng = np.random.default_rng(seed)
    X = rng.normal(size=(n_rows, n_features)) + 1.5 * rng.integers(0, 2, (n_rows, 1))
    X = {
        "binary": (X > 0.7).astype(float),
        "grey": special.expit(2 * X),
        "gaussian": 30 + 4 * X * np.linspace(0.5, 2, n_features) + np.arange(n_features),
    }[kind]
    X[rng.random(X.shape) < gaps] = np.nan
    return X


def independent_bits(X):
    """Mean log probability of binary rows if all features were independent."""
    p = np.clip(X.mean(0), 1e-9, 1 - 1e-9)
    return -stats.entropy([p, 1 - p]).sum()


def make_patterns(n_rows, *, seed=0, flips=0.05):
    """Four binary patterns of eight values under flips, and the log probability of all rows."""
    rng = np.random.default_rng(seed)
    patterns = np.array([[1, 1, 1, 1, 0, 0, 0, 0], [0, 0, 0, 0, 1, 1, 1, 1]])
    patterns = np.vstack([patterns, [[1, 0, 1, 0, 1, 0, 1, 0], [1, 1, 0, 0, 0, 0, 1, 1]]])
    X = patterns[rng.integers(0, 4, n_rows)] ^ (rng.random((n_rows, 8)) < flips)
    n_flips = np.abs(X[:, None] - patterns).sum(-1)
    log_p = n_flips * np.log(flips) + (8 - n_flips) * np.log1p(-flips)
    return X.astype(float), special.logsumexp(log_p, axis=1) - np.log(4)


KINDS = {
    "bernoulli": ("binary", {}),
    "grey": ("grey", {"likelihood": "bernoulli"}),
    "gaussian": ("gaussian", {}),
    "per_feature": ("gaussian", {"noise_variance": "per_feature"}),
    "given": ("gaussian", {"noise_variance": 9.0}),
}
SIZES = [(3,), (12,), (3, 2), (4, 3, 5)]


@cache
def case(kind, sizes, gaps, size=1.0):
    """A machine, its truth, and rows, of which the last saw nothing if there are gaps."""
    of_rows, params = KINDS[kind]
    X = rows_of_kind(of_rows, gaps=gaps)
    model, truth = machine(X, sizes, size=size, **params)
    X = rows_of_kind(of_rows, 7, gaps=gaps, seed=1)
    if gaps:
        X[-1] = np.nan
    return model, truth, X


every_case = [
    pytest.mark.parametrize("kind", KINDS),
    pytest.mark.parametrize("sizes", SIZES, ids=str),
    pytest.mark.parametrize("gaps", [0.0, 0.3], ids=["full", "gaps"]),
]


def for_every_case(test):
    for mark in every_case:
        test = mark(test)
    return test


# ------------------------------------------------------------- likelihood, enumerated


@for_every_case
def test_likelihoods_are_sums_over_all_configurations(kind, sizes, gaps):
    """log sum_h p(x, h), in the units of the data, of the values that were seen."""
    model, truth, X = case(kind, sizes, gaps)
    found = model.exact_log_likelihood(X)
    assert found.dtype == np.float64
    np.testing.assert_allclose(found, truth.log_p(X), rtol=1e-6, atol=2e-5)


@for_every_case
def test_free_energies_are_sums_over_all_configurations(kind, sizes, gaps):
    """Both terms; log p = -F + KL(q || p), and so F is never below -log p."""
    model, truth, X = case(kind, sizes, gaps)
    terms = model.free_energy_terms(X, n_draws=None)
    energy, entropy = truth.terms(X)
    np.testing.assert_allclose(terms.energy, energy, rtol=1e-6, atol=2e-5)
    np.testing.assert_allclose(terms.entropy, entropy, rtol=1e-6, atol=2e-5)
    F, log_p = model.free_energy(X, n_draws=None), model.exact_log_likelihood(X)
    np.testing.assert_allclose(F, terms.energy - terms.entropy, rtol=1e-12)
    np.testing.assert_allclose(log_p, -F + truth.divergence(X), rtol=1e-6, atol=4e-5)
    assert (F + log_p > -1e-9).all()
    assert (F + log_p > 0.01).any()


@pytest.mark.parametrize("sizes", SIZES, ids=str)
def test_probabilities_of_all_rows_sum_to_one(sizes):
    """Of all binary rows; and those of some values are sums over all others."""
    model, _ = machine(rows_of_kind("binary", gaps=0.1), sizes)
    X = binary_states(4)
    p = np.exp(model.exact_log_likelihood(X))
    assert p.sum() == pytest.approx(1, abs=1e-9)
    some = np.array([[1, np.nan, 0, np.nan]])
    expected = p[(X[:, 0] == 1) & (X[:, 2] == 0)].sum()
    assert np.exp(model.exact_log_likelihood(some)) == pytest.approx(expected, rel=1e-9)


@pytest.mark.parametrize("sizes", [(3,), (2, 2)], ids=str)
def test_densities_integrate_to_one(sizes):
    """Over the one feature, in its own units."""
    X = 1000 + 50 * np.random.default_rng(0).normal(size=(30, 1))
    model, truth = machine(X, sizes)

    def density(x):
        return float(np.exp(model.exact_log_likelihood([[x]]))[0])

    spread = np.sqrt(truth.noise)
    low, high = truth.mean().min() - 9 * spread, truth.mean().max() + 9 * spread
    places = sorted(truth.mean()[:, 0])
    total, _ = integrate.quad(density, low, high, points=places[:: len(places) // 4], epsabs=1e-4)
    assert total == pytest.approx(1, abs=1e-3)


def test_grey_values_bound_the_mean_over_their_draws():
    """x log λ + (1 - x) log(1 - λ) scores at most the mean log p of rows drawn from x."""
    model, _ = machine(rows_of_kind("grey"), (3, 2), likelihood="bernoulli", size=2.0)
    X, rows = rows_of_kind("grey", 6, seed=2), binary_states(4)
    chances = np.exp(log_bernoulli(rows, special.logit(X)[:, None]).sum(-1))
    mean = chances @ model.exact_log_likelihood(rows)
    bound = model.exact_log_likelihood(X)
    assert (bound < mean + 1e-5).all()
    assert (bound < mean - 0.01).any()


def test_twenty_units():
    """They can be enumerated: where only three are joined to the rows, these alone count."""
    X = rows_of_kind("binary")
    model, truth = machine(X, (20,))
    few, few_truth = machine(X, (3,))
    W = np.zeros((4, 20))
    W[:, [0, 7, 19]] = few_truth.weights["to_rows.weight"]
    prior = truth.weights["prior_logit"]
    put(model, to_rows_weight=W, to_rows_bias=few_truth.weights["to_rows.bias"])
    put(few, prior_logit=prior[[0, 7, 19]])
    X = X[:3]
    found = model.exact_log_likelihood(X)
    np.testing.assert_allclose(found, truth_of(few, rows_of_kind("binary")).log_p(X), atol=1e-5)
    assert (model.free_energy(X, n_draws=None) > -found).all()


@pytest.mark.parametrize("sizes", [(21,), (10, 11)], ids=str)
def test_more_than_twenty_units(sizes):
    """Their states are too many, and the error says so; draws do for any number."""
    X = rows_of_kind("binary")
    model, _ = machine(X, sizes)
    for method in (
        model.exact_log_likelihood,
        lambda X: model.free_energy(X, n_draws=None),
        lambda X: model.free_energy_terms(X, n_draws=None),
    ):
        with pytest.raises(ValueError, match="at most 20 units; this machine has 21"):
            method(X)
    assert np.isfinite(model.free_energy(X)).all()


def test_enumeration_in_pieces(monkeypatch):
    """Whatever the number of rows at once."""
    model, _, X = case("per_feature", (3, 2), 0.3)
    expected = model.exact_log_likelihood(X), *model.free_energy_terms(X, n_draws=None)
    monkeypatch.setattr(data, "_CHUNK_BYTES", 2 * 8 * 8)
    found = model.exact_log_likelihood(X), *model.free_energy_terms(X, n_draws=None)
    np.testing.assert_allclose(found, expected, rtol=1e-12)


# ------------------------------------------------------------------- bounds, by draws


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("sizes", [(3,), (3, 2)], ids=str)
def test_drawn_free_energies(kind, sizes):
    """Within standard errors, known by enumeration, of the exact terms."""
    model, truth, X = case(kind, sizes, 0.3)
    n = 5000
    found = model.free_energy_terms(X, n_draws=n)
    log_q, log_joint = truth.log_q(X), truth.log_joint(X)
    q = np.exp(log_q)
    for estimate, values in [(found.energy, -log_joint), (found.entropy, -log_q)]:
        mean = (q * values).sum(1)
        error = np.sqrt((q * (values - mean[:, None]) ** 2).sum(1) / n)
        assert (np.abs(estimate - mean) < 4.5 * error + 2e-5).all()
    np.testing.assert_allclose(
        model.free_energy(X, n_draws=n), found.energy - found.entropy, atol=1e-5
    )
    if len(sizes) == 1:
        np.testing.assert_allclose(
            model.free_energy_terms(X, n_draws=1).entropy, truth.terms(X)[1], rtol=1e-5, atol=1e-5
        )


def test_the_top_layer_is_averaged_given_the_layer_below():
    """One draw is exact where nothing but the top layer is random, or explains."""
    model, _, X = case("bernoulli", (3,), 0.0)
    model, _ = machine(rows_of_kind("binary"), (3,))
    put(model, to_rows_weight=np.zeros((4, 3)))
    exact = truth_of(model, rows_of_kind("binary")).terms(X)
    np.testing.assert_allclose(model.free_energy_terms(X, n_draws=1), exact, rtol=1e-5)
    model, _ = machine(rows_of_kind("binary"), (2, 3))
    put(model, up_0_bias=[40, -40], down_0_weight=np.zeros((2, 3)))  # as good as certain
    exact = truth_of(model, rows_of_kind("binary")).terms(X)
    np.testing.assert_allclose(model.free_energy_terms(X, n_draws=1), exact, rtol=1e-4)


@pytest.fixture(scope="module", params=[((3,), "bernoulli"), ((2, 3), "per_feature")], ids=str)
def seeded_scores(request):
    """Scores of the same rows under many seeds of the draws, by the number of draws."""
    sizes, kind = request.param
    model, truth, X = case(kind, sizes, 0.3, size=0.4)  # small, for tails that 600 seeds can tell
    before, scores = model._seed, {1: [], 4: []}
    for n, found in scores.items():
        for seed in range(600):
            model._seed = seed
            found.append(model.score_samples(X, n_importance=n))
    model._seed = before
    return truth, X, {n: np.array(found, dtype=float) for n, found in scores.items()}


def standard_error(values):
    return values.std(axis=0, ddof=1) / np.sqrt(len(values))


@pytest.mark.parametrize("n_importance", [1, 4])
def test_weights_are_unbiased(seeded_scores, n_importance):
    """The mean of p(x, h) / q(h|x) is p(x), so that on average their logarithm is below."""
    truth, X, scores = seeded_scores
    scores, log_p = scores[n_importance], truth.log_p(X)
    ratio = np.exp(scores - log_p)
    assert (np.abs(ratio.mean(0) - 1) < 4.5 * standard_error(ratio) + 1e-4).all()
    assert (scores.mean(0) < log_p + 4 * standard_error(scores) + 1e-4).all()


def test_one_draw_estimates_the_free_energy(seeded_scores):
    """The mean of log p(x, h) / q(h|x) is -F; more draws come nearer to log p."""
    truth, X, scores = seeded_scores
    error = standard_error(scores[1])
    assert (np.abs(scores[1].mean(0) + truth.free_energy(X)) < 4.5 * error + 1e-4).all()
    assert scores[4].mean() > scores[1].mean() + 0.05
    # Rows have draws of their own: their errors do not all go the same way.
    errors = (scores[1] + truth.free_energy(X))[:, :-1]
    assert errors.mean(1).std() < 0.8 * errors.std()


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("sizes", [(3,), (3, 2), (4, 3, 5)], ids=str)
def test_many_draws_score_the_likelihood(kind, sizes):
    """Within standard errors that are known by enumeration, and small."""
    model, truth = machine(
        rows_of_kind(KINDS[kind][0], gaps=0.3), sizes, size=0.2, **KINDS[kind][1]
    )
    X, n = rows_of_kind(KINDS[kind][0], 7, gaps=0.3, seed=1), 10_000
    log_q, log_posterior = truth.log_q(X), truth.log_joint(X) - truth.log_p(X)[:, None]
    variance = np.exp(2 * log_posterior - log_q).sum(1) - 1  # of p(x, h) / q(h|x) / p(x)
    found = model.score_samples(X, n_importance=n)
    assert found.dtype == np.float32
    assert variance.max() < n / 100
    assert (np.abs(found - truth.log_p(X)) < 4.5 * np.sqrt(variance / n) + 2e-5).all()
    assert model.score_kind == "lower_bound"


@pytest.mark.parametrize("kind", ["bernoulli", "gaussian"])
def test_scores_belong_to_their_rows(kind):
    """The same in every call, in any order, beside any other rows."""
    model, _, _ = case(kind, (3, 2), 0.3)
    X = rows_of_kind(KINDS[kind][0], 60, gaps=0.2, seed=4)
    order = np.random.default_rng(0).permutation(60)
    for score in (
        lambda X: model.score_samples(X, n_importance=7),
        lambda X: model.free_energy(X, n_draws=7),
    ):
        expected = score(X)
        np.testing.assert_array_equal(score(X), expected)
        np.testing.assert_allclose(score(X[order]), expected[order], rtol=1e-5, atol=1e-5)
        np.testing.assert_allclose(score(X[5:8]), expected[5:8], rtol=1e-5, atol=1e-5)
        alone = np.concatenate([score(x[None]) for x in X])
        np.testing.assert_allclose(alone, expected, rtol=1e-5, atol=1e-5)


def test_no_unit_is_turned_by_rounding():
    """Alone, rows score what they do beside others, up to rounding: the draws are float64's.

    In float32 a probability that other rows round otherwise turns units, and scores jump.
    """
    X = rows_of_kind("binary", 300, 10)
    model, _ = machine(X, (8, 4), size=0.5)
    together = model.score_samples(X)
    alone = np.concatenate([model.score_samples(x[None]) for x in X])
    assert np.abs(alone - together).max() < 4e-6
    assert np.mean(alone == together) > 0.85


@pytest.mark.parametrize("n_values", [1, 30, 120])
def test_draws_in_pieces(n_values, monkeypatch):
    """Whatever the number of rows and draws at once."""
    model, _, X = case("per_feature", (3, 2), 0.3)
    expected = model.score_samples(X), *model.free_energy_terms(X)
    monkeypatch.setattr(row_draws, "VALUES", n_values)
    found = model.score_samples(X), *model.free_energy_terms(X)
    np.testing.assert_allclose(found, expected, rtol=1e-5, atol=1e-5)


def test_nothing_seen_tells_nothing():
    """p of no values is 1, exactly and by draws."""
    for kind in ("bernoulli", "per_feature"):
        model, truth, X = case(kind, (3, 2), 0.3)
        nothing = np.full_like(X[:1], np.nan)
        assert abs(model.exact_log_likelihood(nothing)[0]) < 1e-12
        assert model.score(nothing) < 0.2
        model._seed, before = 5, model._seed
        assert model.score_samples(nothing, n_importance=50_000) == pytest.approx(0, abs=0.05)
        model._seed = before
        (F,) = model.free_energy(nothing, n_draws=None)
        assert pytest.approx(truth.divergence(nothing)[0], abs=1e-5) == F


def test_numbers_of_draws_are_checked():
    """The message names the argument."""
    model, _, X = case("bernoulli", (3,), 0.0)
    for n in (0, 1.5, "many"):
        with pytest.raises(ValueError, match="n_importance"):
            model.score_samples(X, n_importance=n)
        with pytest.raises(ValueError, match="n_draws"):
            model.free_energy(X, n_draws=n)


# ----------------------------------------------------------------- explaining away


def free_energy_of(logits, log_joint):
    """F of a factorial q of two units."""
    h = binary_states(2)
    log_q = log_bernoulli(h, np.asarray(logits)).sum(1)
    return np.exp(log_q) @ (log_q - log_joint)


def test_explaining_away():
    """Two rare causes of one effect: seen the effect, either makes the other less likely.

    No factorial q has that coupling: the best of all keeps a strictly positive divergence.
    """
    X = np.array([[0.0], [1.0]] * 5)
    model, _ = machine(X, (2,))
    # x = h_1 OR h_2, all but without noise.
    or_gate = {"to_rows_weight": [[10.0, 10.0]], "to_rows_bias": [-5.0]}
    put(model, prior_logit=special.logit([0.1, 0.1]), **or_gate)
    truth, x, h = truth_of(model, X), np.ones((1, 1)), binary_states(2)
    posterior = np.exp(truth.log_joint(x) - truth.log_p(x)[:, None])[0]
    # A priori independent, the causes are coupled once the effect is seen.
    prior = np.exp(truth.log_prior())
    assert prior @ h.prod(1) == pytest.approx((prior @ h).prod())
    mean = posterior @ h
    covariance = posterior @ h.prod(1) - mean.prod()
    by_hand = 0.01 / 0.19 - (0.1 / 0.19) ** 2
    assert covariance == pytest.approx(by_hand, abs=0.02)
    assert covariance < -0.2
    # The best q, from many starts, and on a grid that no descent can miss.
    log_joint = truth.log_joint(x)[0]
    starts = itertools.product([-4.0, 0.0, 4.0], repeat=2)
    found = [optimize.minimize(free_energy_of, start, (log_joint,)) for start in starts]
    best = min(found, key=lambda result: result.fun)
    divergence = best.fun + truth.log_p(x)[0]
    assert divergence > 0.5
    p = np.linspace(0.001, 0.999, 100)
    grid = [free_energy_of(special.logit([a, b]), log_joint) for a in p for b in p]
    assert min(grid) > best.fun - 1e-6
    # The machine with that recognition says the same.
    put(model, up_0_weight=np.zeros((2, 1)), up_0_bias=best.x)
    gap = model.free_energy(x, n_draws=None) + model.exact_log_likelihood(x)
    assert gap == pytest.approx(divergence, abs=1e-5)
    np.testing.assert_allclose(model.transform(x)[0], special.expit(best.x), rtol=1e-5)


# ------------------------------------------------------------------ draws of the model


def frequencies(states):
    """How often each binary row occurs, in the order of `all_of`."""
    numbers = states.astype(int) @ (1 << np.arange(states.shape[1])[::-1])
    return np.bincount(numbers, minlength=1 << states.shape[1])


@pytest.mark.parametrize("sizes", [(2,), (3, 2), (2, 2, 2)], ids=str)
def test_samples_follow_the_enumerated_distribution(sizes):
    """Frequencies of all binary rows against p(x)."""
    model, truth = machine(rows_of_kind("binary", n_features=3), sizes, size=1.5)
    counts = frequencies(model.sample(20_000, random_state=1))
    expected = 20_000 * np.exp(truth.log_p(binary_states(3)))
    assert stats.chisquare(counts, expected).pvalue > 1e-3


def test_dreams_follow_the_enumerated_joint():
    """Frequencies of rows with the units they were drawn from, against p(x, h)."""
    model, truth = machine(rows_of_kind("binary", n_features=2), (1, 3))
    rows, layers = model.dream(30_000, return_layers=True, random_state=2)
    top, below = layers
    assert [layer.shape for layer in layers] == [(30_000, 3), (30_000, 1)]
    assert rows.dtype == np.float64  # as those of training
    for values in (rows, *layers):
        assert values is rows or values.dtype == np.float32
        assert set(np.unique(values)) == {0.0, 1.0}
    # As the truth counts configurations: x slowest, then from the data up.
    counts = frequencies(np.hstack([rows, below, top]))
    expected = 30_000 * np.exp(truth.log_joint(binary_states(2))).ravel()
    assert stats.chisquare(counts, expected).pvalue > 1e-3
    np.testing.assert_array_equal(rows, model.sample(30_000, random_state=2))
    np.testing.assert_array_equal(rows, model.dream(30_000, random_state=2))


def test_samples_without_noise_are_means_of_drawn_units():
    """σ(W h + b) of some configuration each, as often as that is likely."""
    model, truth = machine(rows_of_kind("binary"), (2, 2))
    means = truth.mean()[::4]  # those of the states of h_1
    found = model.sample(8000, noise=False, random_state=0)
    distance = np.abs(found[:, None] - means).max(-1)
    assert (distance.min(1) < 1e-6).all()
    counts = np.bincount(distance.argmin(1), minlength=4)
    chance = np.exp(truth.log_prior()).reshape(4, 4).sum(1)
    assert stats.chisquare(counts, 8000 * chance).pvalue > 1e-3


def test_latent_samples_follow_the_prior():
    """Independent units of the top layer, and rows that are drawn given them."""
    model, truth = machine(rows_of_kind("binary"), (3, 2), size=1.5, seed=1)
    Z = model.sample_latent(20_000, random_state=0)
    assert Z.shape == (20_000, 2)
    chance = np.exp(log_bernoulli(binary_states(2), truth.weights["prior_logit"]).sum(1))
    assert stats.chisquare(frequencies(Z), 20_000 * chance).pvalue > 1e-3
    # Given a top layer, rows follow what units between make of it, not what their means do.
    z = np.array([[0.0, 1.0]])
    generator = np.random.RandomState(0)
    rows = model._generate(np.repeat(z, 20_000, axis=0), generator, noise=True)
    given = (truth.h[-1] == z).all(1)
    log_p = special.logsumexp(truth.log_joint(binary_states(4))[:, given], axis=1)
    chance = np.exp(log_p - special.logsumexp(truth.log_prior()[given]))
    assert stats.chisquare(frequencies(rows), 20_000 * chance).pvalue > 1e-3
    mean = np.exp(log_bernoulli(binary_states(4), special.logit(model.inverse_transform(z))).sum(1))
    assert np.abs(mean - chance).sum() > 0.05


@pytest.mark.parametrize("noise_variance", ["scalar", "per_feature"])
def test_gaussian_samples_have_the_moments_of_the_mixture(noise_variance):
    """Mean and covariance over all configurations, and the noise; in the units of the data."""
    model, truth = machine(
        rows_of_kind("gaussian", n_features=3), (3, 2), noise_variance=noise_variance
    )
    X = model.sample(40_000, random_state=0).astype(float)
    p, means = np.exp(truth.log_prior()), truth.mean()
    mean = p @ means
    covariance = (means - mean).T @ ((means - mean) * p[:, None])
    covariance += np.eye(3) * truth.noise
    spread = np.sqrt(covariance.diagonal())
    assert (np.abs(X.mean(0) - mean) < 4 * spread / 200).all()
    size = np.outer(spread, spread)
    np.testing.assert_allclose(np.cov(X.T) / size, covariance / size, atol=0.03)


# -------------------------------------------------------------- recognition, decoding


@pytest.mark.parametrize("gaps", [0.0, 0.3])
@pytest.mark.parametrize("kind", ["bernoulli", "gaussian"])
def test_codes_of_one_layer_are_its_posterior(kind, gaps):
    """σ(R x + c) of centred rows, which is the mean of q(h|x)."""
    model, truth, X = case(kind, (3,), gaps)
    mean = np.exp(truth.log_q(X)) @ truth.h[0]
    np.testing.assert_allclose(model.transform(X), mean, rtol=1e-5, atol=1e-6)


def test_codes_of_upper_layers_are_propagated():
    """Each layer reads the probabilities of the one below, from the data up."""
    model, truth, X = case("bernoulli", (4, 3, 5), 0.3)
    expected, below = [], truth.read(X)
    for i in range(3):
        below = special.expit(truth.logit(f"up.{i}", below))
        expected.append(below)
    found = model.transform(X, layer="all")
    assert isinstance(found, tuple)
    assert [z.shape[1] for z in found] == [5, 3, 4]
    for z, p in zip(found, reversed(expected), strict=True):
        np.testing.assert_allclose(z, p, rtol=1e-5, atol=1e-6)
    np.testing.assert_array_equal(found[0], model.transform(X))
    # The first layer is exact: the mean of q(h_1|x).
    np.testing.assert_allclose(found[2], np.exp(truth.log_q(X)) @ truth.h[0], rtol=1e-5)


def test_layers_as_frames():
    """Under set_output all layers are frames, whose columns and index say what they are."""
    X = pd.DataFrame(rows_of_kind("binary"), columns=list("abcd")).set_index(np.arange(20) + 5)
    model, _ = machine(X.to_numpy(), (3, 2))
    model = model.fit(X).set_output(transform="pandas")
    top, below = model.transform(X, layer="all")
    assert list(top.columns) == list(model.get_feature_names_out())
    assert list(below.columns) == ["layer1_0", "layer1_1", "layer1_2"]
    assert list(top.index) == list(below.index) == list(X.index)
    pd.testing.assert_frame_equal(top, model.transform(X))
    rows, layers = model.dream(3, return_layers=True, random_state=0)
    assert list(rows.columns) == list("abcd")
    assert isinstance(layers[0], np.ndarray)
    pd.testing.assert_frame_equal(rows, model.sample(3, random_state=0))


@pytest.mark.parametrize("layer", ["bottom", 0, None])
def test_unknown_layers(layer):
    """The message names the argument."""
    model, _, X = case("bernoulli", (3,), 0.0)
    with pytest.raises(ValueError, match="'layer' parameter of HelmholtzMachine"):
        model.transform(X, layer=layer)


@pytest.mark.parametrize("kind", ["bernoulli", "gaussian"])
def test_codes_are_decoded_by_propagation(kind):
    """From the top down, probabilities in place of units; in the units of the data."""
    model, truth, X = case(kind, (4, 3, 5), 0.3)
    Z = model.transform(X)
    below = Z.astype(float)
    for i in (1, 0):
        below = special.expit(truth.logit(f"down.{i}", below))
    output = truth.logit("to_rows", below)
    expected = truth.means_of(output)
    np.testing.assert_allclose(model.inverse_transform(Z), expected, rtol=1e-5, atol=1e-5)
    np.testing.assert_allclose(model.reconstruct(X), expected, rtol=1e-5, atol=1e-5)


# ------------------------------------------------------------------- which likelihood


def with_a_gap(X):
    X = X.astype(float)
    X[0, 0] = np.nan
    return X


@pytest.mark.parametrize(
    ("change", "expected"),
    [
        (lambda X: X, "bernoulli"),
        (lambda X: X.astype(int), "bernoulli"),
        (lambda X: X.astype(np.uint8), "bernoulli"),
        (lambda X: X.astype(bool), "bernoulli"),
        (lambda X: X.astype(np.float32), "bernoulli"),
        (with_a_gap, "bernoulli"),
        (lambda X: 2 * X.astype(int), "gaussian"),
        (lambda X: X - 1, "gaussian"),
        (lambda X: 0.5 * X, "gaussian"),
        (lambda X: with_a_gap(1.5 * X), "gaussian"),
    ],
)
def test_auto_takes_bernoulli_for_binary_rows(change, expected):
    """If all values that were seen are 0 or 1, of whatever type; and Gaussian otherwise."""
    X = change(rows_of_kind("binary"))
    model = HelmholtzMachine(2, max_iter=1, device="cpu").fit(X)
    assert model.likelihood_ == expected
    assert (model.noise_variance_ is None) == (expected == "bernoulli")
    assert is_binary(X) == (expected == "bernoulli")


def test_the_last_row_counts(monkeypatch):
    """For what "auto" takes, however rows are looked at in chunks."""
    X = rows_of_kind("binary")
    monkeypatch.setattr(data, "_CHUNK_BYTES", 64)
    assert is_binary(X)
    X[-1, -1] = 0.5
    assert not is_binary(X)


def test_gaussian_explains_binary_rows_if_asked():
    """As any numbers, with a noise variance."""
    X = rows_of_kind("binary")
    model, truth = machine(X, (3,), likelihood="gaussian")
    assert model.likelihood_ == "gaussian"
    np.testing.assert_allclose(model.exact_log_likelihood(X), truth.log_p(X), rtol=1e-6, atol=1e-5)


def test_values_that_are_no_probabilities():
    """Bernoulli refuses them when fitted and ever after, and says in which column."""
    X = rows_of_kind("grey")
    model = HelmholtzMachine(2, likelihood="bernoulli", max_iter=1, device="cpu").fit(X)
    X[3, 1] = 1.5
    message = r"likelihood='bernoulli' allows values in \[0, 1\]; column 1 of X has .* to 1\.5"
    for method in (
        model.fit,
        model.partial_fit,
        model.transform,
        model.reconstruct,
        model.score_samples,
        model.free_energy,
        model.free_energy_terms,
        model.exact_log_likelihood,
    ):
        with pytest.raises(ValueError, match=message):
            method(X)


@pytest.mark.parametrize("noise", ["per_feature", 0.5])
def test_bernoulli_has_no_noise(noise):
    """Whether it was asked for or taken by "auto", which the message tells."""
    X, model = rows_of_kind("binary"), HelmholtzMachine(2, noise_variance=noise, max_iter=1)
    with pytest.raises(ValueError, match=f"noise_variance={noise!r}.*all values are 0 or 1"):
        model.fit(X)
    with pytest.raises(ValueError, match=r"noise_variance=.*likelihood is 'bernoulli', and has no"):
        model.set_params(likelihood="bernoulli").fit(X)
    model.set_params(likelihood="gaussian").fit(X)


@pytest.fixture
def prepared(monkeypatch):
    """What rows training explains: those of all batches that were prepared for it."""
    found, prepare = [], HelmholtzModule.prepare

    def record(self, batch, generator):
        batch = prepare(self, batch, generator)
        if self.training:
            found.append(batch.y.numpy().copy())
        return batch

    monkeypatch.setattr(HelmholtzModule, "prepare", record)
    return found


def test_grey_rows_are_drawn_anew_in_every_epoch(prepared):
    """Binary values with the grey ones as probabilities, independent of each other."""
    X = np.tile([0.5, 0.0, 1.0, 0.2], (500, 1))
    HelmholtzMachine(
        2, likelihood="bernoulli", batch_size=500, max_iter=4, random_state=0, device="cpu"
    ).fit(X)
    assert len(prepared) == 4
    assert set(np.unique(prepared)) == {0.0, 1.0}
    for first, second in itertools.pairwise(prepared):
        assert 0.4 < np.mean(first[:, 0] != second[:, 0]) < 0.6
    mean = np.mean(prepared, axis=(0, 1))
    np.testing.assert_array_equal(mean[1:3], [0, 1])
    np.testing.assert_allclose(mean[[0, 3]], [0.5, 0.2], atol=0.05)
    values = np.concatenate(prepared)
    assert abs(np.corrcoef(values[:, 0], values[:, 3])[0, 1]) < 0.08


def test_binary_rows_stay_as_they_are(prepared):
    """Under "auto" and "bernoulli"; Gaussian rows, too."""
    X = rows_of_kind("binary", gaps=0.2)
    seen = np.nan_to_num(X[np.lexsort(np.nan_to_num(X).T)])
    for likelihood in ("auto", "bernoulli"):
        HelmholtzMachine(2, likelihood=likelihood, max_iter=2, device="cpu").fit(X)
    for y in prepared:
        np.testing.assert_array_equal(y[np.lexsort(y.T)], seen)
    prepared.clear()
    grey = rows_of_kind("grey")
    HelmholtzMachine(2, max_iter=1, device="cpu").fit(grey)  # "auto" takes Gaussian
    expected = (grey - grey.mean(0)) / np.sqrt(grey.var(0).mean())
    np.testing.assert_allclose(np.sort(prepared[0], 0), np.sort(expected, 0), rtol=1e-5, atol=1e-6)


def test_streams_may_turn_grey(prepared):
    """The likelihood stays what the first rows made it; later ones may be probabilities."""
    X, grey = rows_of_kind("binary"), np.full((20, 4), 0.5)
    model = HelmholtzMachine(2, random_state=0, device="cpu").partial_fit(X)
    model.partial_fit(grey).partial_fit(X)
    assert model.likelihood_ == "bernoulli"
    assert model.n_iter_ == 3
    assert set(np.unique(prepared[1])) == {0.0, 1.0}
    np.testing.assert_array_equal(np.sort(prepared[2], 0), np.sort(X, 0))
    with pytest.raises(ValueError, match="likelihood='bernoulli'"):
        model.partial_fit(rows_of_kind("gaussian"))
    stream = HelmholtzMachine(2, random_state=0, device="cpu").partial_fit(rows_of_kind("gaussian"))
    assert stream.partial_fit(X).likelihood_ == "gaussian"


# ----------------------------------------------------------------------- the noise


@pytest.mark.parametrize("noise_variance", ["scalar", "per_feature"])
@pytest.mark.parametrize("algorithm", ["wake-sleep", "reweighted", "free-energy"])
def test_the_noise_is_the_best_given_the_networks(algorithm, noise_variance):
    """The mean square of what draws of h leave unexplained, of values that were seen.

    Under "reweighted" draws count by their importance, and so follow the posterior.
    """
    X = rows_of_kind("gaussian", 20, 3, gaps=0.2)
    reweighted = algorithm == "reweighted"
    model, truth = machine(
        X,
        (2, 2),
        algorithm=algorithm,
        n_particles=3000 if reweighted else 2,
        noise_variance=noise_variance,
    )
    log_weight = truth.log_joint(X) if reweighted else truth.log_q(X)
    weight = special.softmax(log_weight, axis=1)
    squares = (weight[..., None] * (X[:, None] - truth.mean()) ** 2).sum(1)
    expected = np.nanmean(squares, axis=0 if noise_variance == "per_feature" else None)
    model._learn_from_outputs(model._dataset(Data(X)), 1.0)
    np.testing.assert_allclose(model.noise_variance_, expected, rtol=0.03)


def test_planted_noise_is_found():
    """Two binary factors of real rows, and the variance that they leave."""
    rng = np.random.default_rng(0)
    h, W = rng.integers(0, 2, (1000, 2)), np.array([[4.0, 0, 2, 0], [0, 4, 0, -2]])
    X = 10 + h @ W + 0.5 * rng.normal(size=(1000, 4))
    model = HelmholtzMachine(
        2,
        algorithm="reweighted",
        n_particles=5,
        learning_rate="cosine",
        learning_rate_init=0.05,
        max_iter=40,
        random_state=0,
        device="cpu",
    ).fit(X)
    log_p = [stats.norm.logpdf(X, 10 + s @ W, 0.5).sum(1) for s in binary_states(2)]
    best = special.logsumexp(log_p, axis=0).mean() - np.log(4)
    assert model.exact_log_likelihood(X).mean() == pytest.approx(best, abs=0.05)
    assert model.noise_variance_ == pytest.approx(0.25, rel=0.1)


# ------------------------------------------------------------------------ it learns


ALGORITHMS = {
    "wake-sleep": ({"train_energy", "train_neg_entropy", "train_sleep"}, 0.2),
    "reweighted": ({"train_bound", "train_sleep"}, 0.1),
    "free-energy": ({"train_energy", "train_neg_entropy"}, 0.1),
}


@pytest.mark.long
@pytest.mark.parametrize("algorithm", ALGORITHMS)
@pytest.mark.parametrize("sizes", [(4,), (4, 2)], ids=str)
def test_planted_patterns_are_learned(algorithm, sizes):
    """Most of what the patterns tell beyond independent values, and the losses that are named."""
    X, log_p = make_patterns(1000)
    *hidden, top = sizes
    model = HelmholtzMachine(
        top,
        hidden_layer_sizes=hidden,
        algorithm=algorithm,
        learning_rate="cosine",
        learning_rate_init=0.03,
        batch_size=50,
        max_iter=60,
        random_state=0,
        device="cpu",
    ).fit(X)
    names, gap = ALGORITHMS[algorithm]
    best, worst = log_p.mean(), independent_bits(X)
    assert worst < best - 2
    assert model.exact_log_likelihood(X).mean() > best - gap * (best - worst)
    last = model.history_[-1]
    recorded = {name for name in last if name.startswith("train_")}
    assert recorded == names | {"train_loss", "train_loss_best"}
    minimised = names - {"train_sleep"}
    assert last["train_loss"] == pytest.approx(sum(last[name] for name in minimised))


@pytest.mark.parametrize("algorithm", ALGORITHMS)
@pytest.mark.parametrize("kind", ["bernoulli", "per_feature"])
def test_losses_are_those_of_the_fitted_machine(kind, algorithm):
    """Free energies, or bounds: nats per row in the units of the data."""
    of_rows, params = KINDS[kind]
    X = rows_of_kind(of_rows, 1000, gaps=0.1)
    model = HelmholtzMachine(
        3,
        hidden_layer_sizes=2,
        algorithm=algorithm,
        n_particles=2,
        batch_size=1000,
        learning_rate_init=1e-12,
        max_iter=60,
        random_state=0,
        device="cpu",
        **params,
    ).fit(X)
    # What is learned all the same is the noise, in the first epochs.
    loss = np.mean([epoch["train_loss"] for epoch in model.history_[20:]])
    truth = truth_of(model, X)
    expected = truth.free_energy(X)
    if algorithm == "reweighted":  # all pairs of configurations
        log_q = truth.log_q(X)
        log_weight, q = truth.log_joint(X) - log_q, np.exp(log_q)
        bound = np.logaddexp(log_weight[:, :, None], log_weight[:, None]) - np.log(2)
        expected = -np.einsum("ni,nj,nij->n", q, q, bound)
    assert loss == pytest.approx(expected.mean(), abs=0.02)


@pytest.mark.parametrize("n_init", [1, 2])
def test_positive_weights(n_init):
    """Units that are 1 only raise features, even where features exclude each other.

    Without the limit, a unit lowers one of the features that it does not raise.
    """
    bit = np.random.default_rng(0).integers(2, size=400)
    X = np.stack([bit, bit, 1 - bit], axis=1)
    lowered = {}
    for positive in (False, True):
        model = HelmholtzMachine(
            2,
            algorithm="reweighted",
            positive=positive,
            n_init=n_init,
            learning_rate_init=0.05,
            max_iter=20,
            random_state=0,
            device="cpu",
        ).fit(X)
        none, *one = model.inverse_transform([[0, 0], [1, 0], [0, 1]])
        lowered[positive] = np.min(one - none)
        if positive:
            assert model.exact_log_likelihood(X).mean() > independent_bits(X) + 0.3
    assert lowered[True] >= 0 > lowered[False]


def test_early_ends_leave_layers_out():
    """A machine whose upper layers were not trained says so, and what to change."""
    X = rows_of_kind("binary")
    params = {"hidden_layer_sizes": (3, 2), "device": "cpu", "random_state": 0}
    model = HelmholtzMachine(1, layerwise_fraction=1.0, max_iter=4, **params)
    with pytest.warns(UserWarning, match=r"2 of 3 layers.*layerwise_fraction \(now 1.0\)"):
        model.fit(X)
    model.set_params(layerwise_fraction=0.5).fit(X)
    assert model.net_.module_.n_trained == 3


def test_the_loss_ends_training_only_after_all_layers_are_added():
    """With a `tol` that no epoch can meet, training ends right after them."""
    model = HelmholtzMachine(
        1,
        hidden_layer_sizes=(3,),
        layerwise_fraction=0.5,
        max_iter=20,
        tol=1e9,
        n_iter_no_change=2,
        device="cpu",
        random_state=0,
    ).fit(rows_of_kind("binary"))
    assert 10 < model.n_iter_ < 20


def test_training_goes_on_with_other_particles_but_not_by_another_algorithm():
    """What warm_start may change, and what it names if it may not."""
    X = rows_of_kind("binary")
    model = HelmholtzMachine(
        2, algorithm="reweighted", n_particles=3, warm_start=True, max_iter=2, device="cpu"
    ).fit(X)
    model.set_params(n_particles=7).fit(X)
    assert model.n_iter_ == 4
    assert model.net_.module_.architecture.n_particles == 7
    with pytest.raises(ValueError, match=r"algorithm='free-energy' cannot change.*'reweighted'"):
        model.set_params(algorithm="free-energy").fit(X)
    assert model.n_iter_ == 4
    model.set_params(algorithm="reweighted", likelihood="gaussian")
    with pytest.raises(ValueError, match="likelihood='gaussian' cannot change"):
        model.fit(X)
    model.set_params(likelihood="bernoulli").fit(rows_of_kind("grey"))
    assert model.n_iter_ == 6


def test_free_energies_need_two_particles():
    """One has no other to compare with."""
    model = HelmholtzMachine(2, algorithm="free-energy", n_particles=1)
    with pytest.raises(ValueError, match=r"n_particles=1 .*'free-energy'.* to 2 or more"):
        model.fit(rows_of_kind("binary"))


@pytest.mark.parametrize(
    ("algorithm", "n_particles"), [("wake-sleep", 1), ("reweighted", 10), ("free-energy", 10)]
)
def test_particles_by_default(algorithm, n_particles):
    """One awake and asleep, ten where they are compared."""
    model = HelmholtzMachine(2, algorithm=algorithm, max_iter=1, device="cpu")
    model.fit(rows_of_kind("binary"))
    assert model.net_.module_.architecture.n_particles == n_particles


def test_early_stopping_watches_the_loss():
    """Held-out rows are scored by the same terms."""
    X, _ = make_patterns(200)
    model = HelmholtzMachine(3, early_stopping=True, max_iter=4, random_state=0, device="cpu")
    last = model.fit(X).history_[-1]
    assert last["valid_loss"] == pytest.approx(last["valid_energy"] + last["valid_neg_entropy"])
    assert last["valid_sleep"] > 0


@pytest.mark.parametrize("algorithm", ALGORITHMS)
def test_training_in_bfloat16(algorithm):
    """Masses are summed in float32, so that losses are those of float32 but for rounding."""
    X = rows_of_kind("binary", 500, 6)
    params = {"algorithm": algorithm, "learning_rate_init": 1e-12, "max_iter": 1}
    losses = {}
    for precision in ("float32", "bfloat16"):
        model = HelmholtzMachine(
            3, hidden_layer_sizes=4, precision=precision, random_state=0, device="cpu", **params
        ).fit(X)
        losses[precision] = model.history_[0]["train_loss"]
    assert losses["bfloat16"] == pytest.approx(losses["float32"], rel=0.02)


def test_rows_with_gaps_are_reconstructed():
    """What was not seen is filled by what the rest tells."""
    X, _ = make_patterns(800, flips=0.01)
    gaps = np.random.default_rng(1).random(X.shape) < 0.2
    holed = np.where(gaps, np.nan, X)
    model = HelmholtzMachine(
        4,
        algorithm="reweighted",
        n_particles=5,
        learning_rate="cosine",
        learning_rate_init=0.03,
        batch_size=50,
        max_iter=40,
        random_state=0,
        device="cpu",
    ).fit(holed)
    found = model.reconstruct(holed)
    assert not np.isnan(found).any()
    assert np.mean((found > 0.5)[gaps] == X[gaps]) > 0.9


def test_what_auto_took_is_named():
    """Rows that "auto" did not foresee raise an error that says where the likelihood is from."""
    bits = np.random.default_rng(0).integers(0, 2, (20, 4)).astype(float)
    model = HelmholtzMachine(3, device="cpu", random_state=0).partial_fit(bits)
    for call in (model.partial_fit, model.score_samples):
        with pytest.raises(ValueError, match=r"column 0 .* likelihood='auto' chose it"):
            call(bits - 1)
    assert model.partial_fit(bits / 2).likelihood_ == "bernoulli"


def test_memory_counts_all_units():
    """Rows that are scored at once are few enough for the units that are drawn for them."""
    model = HelmholtzMachine(500, max_iter=1, device="cpu").fit(np.eye(20))
    assert model._architecture.widest() >= 500


def test_the_noise_of_a_stream_is_a_running_mean():
    """A second batch as long as the first counts 1 / 1.9 of the noise, the first the rest."""
    rng = np.random.default_rng(0)
    model = HelmholtzMachine(2, n_particles=3, device="cpu", random_state=0)
    before = model.partial_fit(rng.normal(size=(60, 3))).noise_variance_
    wide = 3 * rng.normal(size=(60, 3))
    after = model.partial_fit(wide).noise_variance_
    rows = model._dataset(Data(wide))
    model._learn_noise_of_draws(rows, 1.0, 3, drawn)  # of this batch alone, by the same draws
    alone = model.noise_variance_
    assert alone > 2 * before
    assert after == pytest.approx(before + (alone - before) / 1.9, rel=1e-4)
