"""The bound of Bayesian factor analysis, against loops, quadrature and perturbations."""

import numpy as np
import pytest
from scipy import optimize, stats

from skae._linear import loadings_prior
from skae._linear.em_starts import start_of
from skae._linear.incomplete_rows import e_step, group_rows, seen_variances
from skae._linear.linear_gaussian import LinearGaussian, Uncertainty, turned
from skae._linear.loadings_prior import (
    RelevancePrior,
    drawn_models,
    leverages,
    with_prior,
    with_relevance,
)
from skae._linear.missing_values import codes_of, fit_em, regression

every_noise = pytest.mark.parametrize("per_feature", [False, True])
every_weight = pytest.mark.parametrize("weighted", [False, True])
every_gap = pytest.mark.parametrize("gaps", [0.0, 0.3])


def factor_rows(n_rows=40, n_features=5, n_factors=2, *, gaps=0.3, seed=0):
    """Rows of a factor model in which every column has values."""
    rng = np.random.default_rng(seed)
    W = 2 * rng.normal(size=(n_features, n_factors))
    psi = rng.uniform(0.3, 1.5, n_features)
    X = rng.normal(size=(n_rows, n_factors)) @ W.T
    X += np.sqrt(psi) * rng.normal(size=X.shape) + 3.0
    hole = rng.random(X.shape) < gaps
    hole[:3] = False
    return np.where(hole, np.nan, X)


def weights_of(X, weighted):
    return np.random.default_rng(7).uniform(0.5, 2.0, len(X)) if weighted else None


def make_model(n_features=5, n_latents=2, *, seed=0, per_feature=True):
    """A posterior without any structure."""
    rng = np.random.default_rng(seed)
    root = rng.normal(size=(n_features, n_latents + 1, n_latents + 4)) / 10
    W, mean = rng.normal(size=(n_features, n_latents)), 3.0 + rng.normal(size=n_features)
    psi = rng.uniform(0.3, 1.5, n_features) if per_feature else np.full(n_features, 0.6)
    relevance = rng.uniform(0.5, 3.0, n_latents)
    uncertainty = Uncertainty(root @ root.transpose(0, 2, 1), relevance)
    return LinearGaussian(W, mean, psi, uncertainty)


def learner_of(rows, per_feature=True):
    variances = seen_variances(rows)
    return RelevancePrior(variances, np.full(len(variances), 1e-9), per_feature)


def bound_of(rows, learner, model):
    return e_step(rows, model).log_likelihood + learner.log_prior(model)


def codes_by_loop(X, model):
    """Mean and covariance of q(z) of each row, from a sum over its observed entries."""
    W, mean, psi, (spread, _) = model
    found = []
    for x in X:
        M, b = np.eye(W.shape[1]), np.zeros(W.shape[1])
        for d in np.flatnonzero(~np.isnan(x)):
            second = np.outer(np.r_[W[d], mean[d]], np.r_[W[d], mean[d]]) / psi[d] + spread[d]
            M += second[:-1, :-1]
            b += W[d] * x[d] / psi[d] - second[:-1, -1]
        found.append((np.linalg.solve(M, b), np.linalg.inv(M)))
    return found


def log_prior_by_loop(model, variances, per_feature):
    """E[log p(W | psi, alpha)] + the entropy of q(W, mu) + log p(psi)."""
    W, mean, psi, (spread, relevance) = model
    nats = 0.0
    for d in range(len(W)):
        for j in range(W.shape[1]):
            sd = np.sqrt(psi[d] / relevance[j])
            nats += stats.norm.logpdf(W[d, j], scale=sd) - psi[d] * spread[d, j, j] / (2 * sd**2)
        a = np.r_[W[d], mean[d]]
        nats += stats.multivariate_normal(a, psi[d] * spread[d]).entropy()
    # The prior of psi is an inverse gamma with this mode. Its constant is left out.
    count = loadings_prior._PRIOR_COUNT
    modes = loadings_prior._PRIOR_FRACTION * variances
    if not per_feature:
        psi, modes = psi[:1], np.array([modes.mean()])
    for value, mode in zip(psi, modes, strict=True):
        prior = stats.invgamma(count / 2 - 1, scale=count * mode / 2)
        at_one = prior.logpdf(1.0) + count * mode / 2
        nats += prior.logpdf(value) - at_one
    return nats


def bound_by_loop(X, weight, model, codes, variances, per_feature):
    """E[log p(x, z, W, mu, psi | alpha)] + the entropies of q(z) and q(W, mu), by loops."""
    W, mean, psi, (spread, _) = model
    k = W.shape[1]
    nats = log_prior_by_loop(model, variances, per_feature)
    for x, w, (m, S) in zip(X, np.ones(len(X)) if weight is None else weight, codes, strict=True):
        z = np.r_[m, 1.0]
        zz = np.outer(z, z)
        zz[:k, :k] += S
        row = -0.5 * (k * np.log(2 * np.pi) + m @ m + np.trace(S))
        row += stats.multivariate_normal(m, S).entropy()
        for d in np.flatnonzero(~np.isnan(x)):
            a = np.r_[W[d], mean[d]]
            second = np.outer(a, a) + psi[d] * spread[d]
            squared = x[d] ** 2 - 2 * x[d] * (a @ z) + np.sum(second * zz)
            row -= 0.5 * (np.log(2 * np.pi * psi[d]) + squared / psi[d])
        nats += w * row
    return nats


# ------------------------------------------------------------------------------ the bound


@every_gap
@every_noise
@every_weight
def test_the_bound_is_that_of_loops(gaps, per_feature, weighted):
    X = factor_rows(15, gaps=gaps)
    X[4] = np.nan  # nothing observed
    weight = weights_of(X, weighted)
    model = make_model(per_feature=per_feature)
    rows = group_rows(X, weight)
    expected = bound_by_loop(
        X, weight, model, codes_by_loop(X, model), seen_variances(rows), per_feature
    )
    assert bound_of(rows, learner_of(rows, per_feature), model) == pytest.approx(expected, rel=1e-9)


def test_one_spread_of_all_features_is_that_of_each():
    rows = group_rows(factor_rows(), None)
    model, learner = make_model(), learner_of(rows)
    spread, relevance = model.uncertainty
    one = model._replace(uncertainty=Uncertainty(spread[:1], relevance))
    each = model._replace(uncertainty=Uncertainty(np.repeat(spread[:1], 5, axis=0), relevance))
    assert learner.log_prior(one) == pytest.approx(learner.log_prior(each), rel=1e-12)
    assert bound_of(rows, learner, one) == pytest.approx(bound_of(rows, learner, each), rel=1e-12)


@pytest.mark.parametrize("seed", range(3))
def test_no_other_distribution_of_the_codes_has_a_higher_bound(seed):
    X, model = factor_rows(8), make_model(seed=seed)
    rng = np.random.default_rng(seed)
    variances, best = np.ones(5), codes_by_loop(X, model)
    highest = bound_by_loop(X, None, model, best, variances, True)
    for step in (1e-3, 0.1):
        others = [(m + step * rng.normal(size=2), S * np.exp(step * rng.normal())) for m, S in best]
        assert bound_by_loop(X, None, model, others, variances, True) < highest


@pytest.mark.parametrize("gaps", [0.0, 0.25])
def test_the_bound_is_below_the_evidence(gaps):
    """The evidence of one factor and two features, with W on a grid and mu integrated exactly."""
    X = factor_rows(8, 2, 1, gaps=gaps, seed=3)
    rows = group_rows(X, None)
    learner = learner_of(rows)
    model = fit_em(rows, with_prior(make_model(2, 1), rows.counts), learner, tol=1e-9, max_iter=500)
    _, _, psi, (_, relevance) = model.state
    grid = np.linspace(-12, 12, 241)
    first, second = (axis.ravel() for axis in np.meshgrid(grid, grid))
    loadings = np.column_stack([first, second])
    C = loadings[:, :, None] * loadings[:, None, :] + np.diag(psi)
    # The rows are a Gaussian in mu: exp(-(mu'A mu - 2 b'mu + c) / 2).
    A, b, c = np.zeros((len(C), 2, 2)), np.zeros((len(C), 2)), np.zeros(len(C))
    for x in X:
        o = np.flatnonzero(~np.isnan(x))
        if len(o):
            P = np.linalg.inv(C[:, o[:, None], o])
            A[:, o[:, None], o] += P
            b[:, o] += P @ x[o]
            c += x[o] @ P @ x[o] - np.linalg.slogdet(P)[1] + len(o) * np.log(2 * np.pi)
    solved = np.linalg.solve(A, b[:, :, None])[:, :, 0]
    nats = 0.5 * (np.sum(b * solved, axis=1) - c - np.linalg.slogdet(A)[1]) + np.log(2 * np.pi)
    nats += stats.norm.logpdf(loadings, scale=np.sqrt(psi / relevance[0])).sum(axis=1)
    top = nats.max()
    evidence = top + np.log(np.sum(np.exp(nats - top)) * (grid[1] - grid[0]) ** 2)
    count, modes = loadings_prior._PRIOR_COUNT, loadings_prior._PRIOR_FRACTION * learner.variances
    of_psi = -0.5 * np.sum(count * (np.log(psi) + modes / psi))
    gap = evidence + of_psi - model.log_likelihoods[-1]
    # q has one of two modes, W and -W, which alone accounts for log 2.
    assert np.log(2) < gap < 5.0


# ---------------------------------------------------------------------------- steps of EM


@every_noise
@every_weight
@every_gap
def test_every_step_increases_the_bound_unless_components_are_switched_off(
    per_feature, weighted, gaps
):
    X = factor_rows(gaps=gaps)
    rows = group_rows(X, weights_of(X, weighted))
    learner = learner_of(rows, per_feature)
    model = with_prior(make_model(n_latents=4, per_feature=per_feature), rows.counts)
    bounds, sizes = [], []
    for _ in range(60):
        sums = e_step(rows, model)
        bounds.append(sums.log_likelihood + learner.log_prior(model))
        sizes.append(model.loadings.shape[1])
        model = learner.m_step(rows, sums, model)
    kept = np.diff(sizes) == 0
    assert np.all(np.diff(bounds)[kept] > -1e-9 * np.abs(bounds[-1]))
    assert np.all(np.diff(sizes) <= 0)
    assert sizes[0] > sizes[-1]


@every_noise
def test_a_run_of_longer_steps_increases_the_bound_to_that_of_its_result(per_feature):
    rows = group_rows(factor_rows(), None)
    learner = learner_of(rows, per_feature)
    start = with_prior(make_model(n_latents=1, per_feature=per_feature), rows.counts)
    run = fit_em(rows, start, learner, tol=1e-8, max_iter=1000)
    assert run.ended_by == "convergence"
    gains = np.diff(run.log_likelihoods)
    assert np.all(gains[:-1] > 0)
    assert gains[-1] > -1e-9 * np.abs(run.log_likelihoods[-1])
    assert bound_of(rows, learner, run.state) == pytest.approx(run.log_likelihoods[-1], rel=1e-12)


@every_noise
def test_a_step_leaves_uncorrelated_codes_and_loadings(per_feature):
    rows = group_rows(factor_rows(), None)
    model = make_model(per_feature=per_feature)
    sums = e_step(rows, model)
    W, _, psi, (spread, relevance) = learner_of(rows, per_feature).m_step(rows, sums, model)
    sizes = sum(np.outer(w, w) / p + s[:-1, :-1] for w, p, s in zip(W, psi, spread, strict=True))
    np.testing.assert_allclose(sizes, np.diag(np.diagonal(sizes)), atol=1e-9 * sizes.max())
    assert np.all(np.diff(np.diagonal(sizes)) <= 0)
    np.testing.assert_allclose(relevance, len(W) / np.diagonal(sizes), rtol=1e-12)
    S = codes_of(sums)[1]
    # The regression on the codes is the same function of z in other coordinates.
    design, target = regression(rows, sums)
    index = np.arange(2)
    design[:, index, index] += model.uncertainty.relevance
    ridge = np.linalg.solve(design, target[:, :, None])[:, :, 0]
    np.testing.assert_allclose(W @ W.T, ridge[:, :-1] @ S @ ridge[:, :-1].T, rtol=1e-9, atol=1e-9)
    np.testing.assert_allclose(
        np.linalg.slogdet(spread)[1],
        np.linalg.slogdet(np.linalg.inv(design))[1] + np.linalg.slogdet(S)[1],
        rtol=1e-9,
    )


@every_noise
@every_gap
def test_at_the_fixed_point_no_change_increases_the_bound(per_feature, gaps):
    X = factor_rows(gaps=gaps)
    rows = group_rows(X, None)
    learner = learner_of(rows, per_feature)
    start = with_prior(make_model(per_feature=per_feature), rows.counts)
    model = fit_em(rows, start, learner, tol=0.0, max_iter=5000).state
    highest = bound_of(rows, learner, model)
    rng = np.random.default_rng(0)
    W, mean, psi, (spread, relevance) = model
    assert W.shape[1] == 2

    def changed(step):
        yield model._replace(loadings=W + step * rng.normal(size=W.shape))
        yield model._replace(mean=mean + step * rng.normal(size=mean.shape))
        factor = rng.normal(size=psi.shape if per_feature else 1)
        # The spread is relative to psi, and the prior of W too.
        yield model._replace(noise_variance=psi * np.exp(step * factor))
        yield model._replace(
            uncertainty=Uncertainty(spread, relevance * np.exp(step * rng.normal(size=2)))
        )
        L = np.eye(3) + step * rng.normal(size=(len(W), 3, 3))
        yield model._replace(uncertainty=Uncertainty(L @ spread @ L.transpose(0, 2, 1), relevance))
        angle = step * rng.normal()
        R = np.array([[np.cos(angle), np.sin(angle)], [-np.sin(angle), np.cos(angle)]])
        yield turned(model, R)

    for step in (1e-4, 1e-3, 1e-2):
        for _ in range(5):
            gains = [bound_of(rows, learner, other) - highest for other in changed(step)]
            # At the optimum, the loss is quadratic in the step.
            assert max(gains) < 1e-7
            assert min(gains) > -1e6 * step**2


def test_noise_variances_stay_above_their_floor():
    rows = group_rows(factor_rows(), None)
    floor = np.array([1e-9, 20.0, 1e-9, 1e-9, 1e-9])
    learner = RelevancePrior(seen_variances(rows), floor, True)
    found = fit_em(rows, with_prior(make_model(), rows.counts), learner, tol=1e-5, max_iter=200)
    psi = found.state.noise_variance
    assert psi[1] == 20.0
    assert np.all(psi[[0, 2, 3, 4]] > 1e-3)


# -------------------------------------------------------------------------- relevances


@every_noise
def test_relevances_maximise_the_bound(per_feature):
    W, mean, psi, (spread, _) = make_model(per_feature=per_feature)
    model = with_relevance(W, mean, psi, spread)
    learner = RelevancePrior(np.ones(5), np.full(5, 1e-9), per_feature)

    def loss(log_alpha):
        uncertainty = Uncertainty(spread, np.exp(log_alpha))
        return -learner.log_prior(model._replace(uncertainty=uncertainty))

    found = optimize.minimize(loss, np.zeros(2), tol=1e-10)
    np.testing.assert_allclose(model.uncertainty.relevance, np.exp(found.x), rtol=1e-4)


def test_components_below_their_uncertainty_are_switched_off():
    model = make_model(n_latents=3)
    W, mean, psi, (spread, _) = model
    W[:, 1] = 0.0
    found = with_relevance(W, mean, psi, spread)
    np.testing.assert_array_equal(found.loadings, W[:, [0, 2]])
    np.testing.assert_array_equal(found.uncertainty.spread, spread[:, [[0], [2], [3]], [0, 2, 3]])
    alone = with_relevance(0 * W, mean, psi, spread)
    assert alone.loadings.shape == (5, 1)


def test_the_first_posterior_is_as_wide_as_that_of_so_many_values():
    W, mean, psi, _ = make_model()
    counts = np.array([3.0, 10.0, 20.0, 50.0, 100.0])
    found = with_prior(LinearGaussian(W, mean, psi), counts)
    for d in range(5):
        # The ridge regression on counts[d] rows with standard codes.
        precision = counts[d] * np.eye(3) + np.diag(np.r_[found.uncertainty.relevance, 0.0])
        np.testing.assert_allclose(found.uncertainty.spread[d], np.linalg.inv(precision))
    np.testing.assert_allclose(
        found.uncertainty.relevance, 5 / np.sum(W**2 / psi[:, None], axis=0), rtol=1e-12
    )


# -------------------------------------------------------------------- draws of the model


def test_leverages_are_the_derivatives_of_fitted_by_observed_values():
    """A row observes feature d, and the features of frequency one."""
    model = make_model()
    frequency = np.array([1.0, 0.0, 1.0, 0.0, 1.0])
    found = leverages(model, frequency)
    step = 1e-3
    for d in range(5):
        x = np.where((frequency == 1.0) | (np.arange(5) == d), model.mean, np.nan)
        fits = []
        for change in (-step, step):
            moved = x.copy()
            moved[d] += change
            fits.append(model.loadings[d] @ codes_by_loop(moved[None], model)[0][0])
        assert found[d] == pytest.approx((fits[1] - fits[0]) / (2 * step), rel=1e-6)
    assert np.all((found > 0) & (found < 1))


@every_noise
def test_drawn_models_have_the_moments_of_their_distributions(per_feature):
    model = make_model(per_feature=per_feature)
    W, mean, psi, (spread, _) = model
    n = 2 / spread[:, -1, -1].min()
    informative = 1 - leverages(model, 1 / (n * spread[:, -1, -1]))
    free = informative / spread[:, -1, -1] - 1
    if not per_feature:
        free = np.full(5, free.sum())
    free += loadings_prior._PRIOR_COUNT
    draws = drawn_models(model, n, per_feature, np.random.RandomState(0))
    drawn = [next(draws) for _ in range(8_000)]
    noise = np.array([m.noise_variance for m in drawn])
    law = stats.invgamma(free / 2 - 1, scale=free * psi / 2)
    for q in (0.05, 0.5, 0.95):
        np.testing.assert_allclose(np.quantile(noise, q, axis=0), law.ppf(q), rtol=0.05)
    values = np.array([np.column_stack([m.loadings, m.mean]) for m in drawn])
    values = (values - np.column_stack([W, mean])) / np.sqrt(noise)[:, :, None]
    covariance = np.einsum("ndi,ndj->dij", values, values) / len(values)
    expected = spread / informative[:, None, None]
    limit = 0.05 * expected[:, [0, 1, 2], [0, 1, 2]].max()
    np.testing.assert_allclose(covariance, expected, rtol=0, atol=limit)
    assert per_feature == bool(np.ptp(noise, axis=1).any())


# ------------------------------------------------------------------- starts and their end


@every_noise
@pytest.mark.parametrize("gaps", [0.1, 0.4])
def test_the_start_is_near_the_end(per_feature, gaps):
    X = factor_rows(300, 8, gaps=gaps)
    rows = group_rows(X, None)
    learner = learner_of(rows, per_feature)
    start = start_of(rows, 7, np.random.RandomState(0), learner)
    model = fit_em(rows, start, learner, tol=1e-9, max_iter=1000).state
    assert 2 <= model.loadings.shape[1] <= start.loadings.shape[1] <= 7
    poor = with_prior(make_model(8, 2, per_feature=per_feature), rows.counts)
    highest, first, other = (bound_of(rows, learner, m) for m in (model, start, poor))
    assert 0 <= highest - first < 0.1 * (highest - other)


@every_noise
def test_every_start_ends_at_the_same_bound(per_feature):
    rows = group_rows(factor_rows(100, 6), None)
    learner = learner_of(rows, per_feature)
    bounds = []
    for seed in range(3):
        start = with_prior(make_model(6, 5, seed=seed, per_feature=per_feature), rows.counts)
        run = fit_em(rows, start, learner, tol=1e-10, max_iter=5000)
        assert run.state.loadings.shape[1] == 2
        bounds.append(run.log_likelihoods[-1])
    np.testing.assert_allclose(bounds, bounds[0], rtol=0, atol=1e-4)
