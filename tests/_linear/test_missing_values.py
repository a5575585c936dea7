"""Rows with holes: posteriors, exact EM and PPCA's queries against a loop over rows."""

import tracemalloc
import warnings

import numpy as np
import pandas as pd
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy import optimize, stats
from sklearn.datasets import load_digits, load_iris
from sklearn.exceptions import ConvergenceWarning

from helpers import low_rank_rows
from skae import PPCA
from skae._linear import incomplete_rows
from skae._linear.em_starts import start_of
from skae._linear.incomplete_rows import blocks, e_step, group_rows
from skae._linear.linear_gaussian import LinearGaussian, log_likelihood, posterior
from skae._linear.missing_values import MaximumLikelihood, fit_em
from skae._linear.packed import invert_packed, multiply_packed, unpack

EVERY = slice(None)

repeatable = settings(deadline=None, max_examples=30, derandomize=True)


def complete_rows(n_samples=80, n_features=6, **options):
    options = {"scales": (4.0, 2.0), "noise": 0.5, "mean": 3.0, **options}
    return low_rank_rows(n_samples, n_features, **options)


def rows_with_holes(*args, gaps=0.25, seed=0, **kwargs):
    """Rows with holes at random; every row and every column shows something."""
    X = complete_rows(*args, seed=seed, **kwargs)
    rng = np.random.default_rng(seed + 1)
    hole = rng.random(X.shape) < gaps
    hole[np.arange(len(X)), rng.integers(0, X.shape[1], len(X))] = False
    hole[:2] = False
    return np.where(hole, np.nan, X)


def queries():
    """Rows of every kind: complete, with one or more holes, one value, nothing seen."""
    X = rows_with_holes(30, gaps=0.4, seed=5)
    X[3] = X[17] = np.nan
    X[4, 1:] = np.nan
    X[5, :-1] = np.nan
    X[6] = complete_rows(30, seed=5)[6]
    return X


def by_loop(X, W, mean, noise):
    """Nats, E[z], cov[z] and E[x] of each row, by conditioning the joint Gaussian on what
    was seen; nats by SciPy."""
    k = W.shape[1]
    covariance = W @ W.T + noise * np.eye(len(W))  # one noise variance, or one for each feature
    nats, codes, spreads, rows = [], [], [], []
    for x in X:
        o = ~np.isnan(x)
        C, r = covariance[np.ix_(o, o)], x[o] - mean[o]
        gain = np.linalg.solve(C, W[o]).T if o.any() else np.zeros((k, 0))
        gaussian = stats.multivariate_normal(mean[o], C) if o.any() else None
        nats.append(gaussian.logpdf(x[o]) if gaussian else 0.0)
        codes.append(gain @ r)
        spreads.append(np.eye(k) - gain @ W[o])
        rows.append(W @ codes[-1] + mean)
    return np.array(nats), np.array(codes), np.array(spreads), np.array(rows)


def loop_of(model, X):
    return by_loop(X, model.loadings_, model.mean_, model.noise_variance_)


def make_model(n_features=6, n_latents=2, seed=0, per_feature=False):
    rng = np.random.default_rng(seed)
    loadings, mean = rng.normal(size=(n_features, n_latents)), rng.normal(size=n_features) + 3.0
    noise = rng.uniform(0.3, 2.0, n_features) if per_feature else np.full(n_features, 0.7)
    return LinearGaussian(loadings, mean, noise)


def converged(X, n_components, *, sample_weight=None, random_state=0):
    """PPCA at the fixed point of EM."""
    model = PPCA(n_components, tol=1e-14, max_iter=5000, random_state=random_state)
    return model.fit(X, sample_weight=sample_weight)


# ------------------------------------------------------------------------- packed maths


def packed(matrices):
    n_latents = matrices.shape[1]
    first, second = np.tril_indices(n_latents)
    return np.ascontiguousarray(matrices[:, first, second].T)


def positive_definite(n_latents, n_matrices, seed=0):
    root = np.random.default_rng(seed).normal(size=(n_matrices, n_latents, n_latents + 2))
    return root @ root.transpose(0, 2, 1)


@pytest.mark.parametrize("n_latents", [1, 2, 3, 7, 12])
def test_packed_matrices_are_inverted_multiplied_and_unpacked_as_full_ones(n_latents):
    full = positive_definite(n_latents, 9)
    matrices = packed(full)
    np.testing.assert_array_equal(unpack(matrices), full)
    vectors = np.random.default_rng(1).normal(size=(n_latents, 9))
    expected = np.einsum("nij,jn->in", full, vectors)
    np.testing.assert_allclose(multiply_packed(matrices, vectors), expected, atol=1e-12)
    log_det = invert_packed(matrices)
    inverses = np.linalg.inv(full)
    np.testing.assert_allclose(unpack(matrices), inverses, rtol=1e-8, atol=1e-10)
    np.testing.assert_allclose(log_det, np.linalg.slogdet(full)[1], rtol=1e-9, atol=1e-10)


@repeatable
@given(n_latents=st.integers(1, 8), seed=st.integers(0, 1000), exponent=st.integers(-8, 8))
def test_inverses_keep_their_digits_at_any_scale(n_latents, seed, exponent):
    full = positive_definite(n_latents, 3, seed) * 10.0**exponent
    matrices = packed(full)
    invert_packed(matrices)
    identity = np.broadcast_to(np.eye(n_latents), full.shape)
    condition = np.linalg.cond(full).max()
    np.testing.assert_allclose(unpack(matrices) @ full, identity, atol=1e-14 * condition)


# ------------------------------------------------------------------------------- groups


def test_rows_are_grouped_alike_in_any_order_of_memory():
    rng = np.random.default_rng(0)
    X = np.where(rng.uniform(size=(30, 12)) < 0.2, np.nan, rng.normal(size=(30, 12)))
    by_row, by_column = (group_rows(np.array(X, order=order), None) for order in "CF")
    np.testing.assert_array_equal(by_row.order, by_column.order)
    np.testing.assert_array_equal(by_row.values(EVERY), by_column.values(EVERY))


@pytest.mark.parametrize("weighted", [False, True])
def test_grouped_rows_are_the_rows_in_order_of_their_holes(weighted):
    X = rows_with_holes()
    weight = np.random.default_rng(0).uniform(0.5, 2, 80) if weighted else None
    rows = group_rows(X, weight)
    np.testing.assert_array_equal(np.sort(rows.order), np.arange(80))
    shift = [
        np.average(c[~np.isnan(c)], weights=None if weight is None else weight[~np.isnan(c)])
        for c in X.T
    ]
    np.testing.assert_allclose(rows.shift, shift, rtol=1e-12)
    expected = np.nan_to_num(X[rows.order] - rows.shift)
    np.testing.assert_allclose(rows.values(EVERY), expected, atol=1e-12)
    seen = np.repeat(rows.seen(EVERY), np.diff(rows.starts), axis=0)
    np.testing.assert_array_equal(seen.astype(bool), ~np.isnan(X[rows.order]))
    assert len(np.unique(rows.seen(EVERY), axis=0)) == len(rows.seen(EVERY))
    if weighted:
        np.testing.assert_array_equal(rows.weight, weight[rows.order])


def patterned(case):
    """Few patterns with many rows, more rows than a block holds; or all different."""
    rng = np.random.default_rng(0)
    n_samples, n_features = 5300, 4
    X = rng.normal(size=(n_samples, n_features))
    X[:, 0] += 2 * X[:, 1]
    if case == "one pattern":
        X[:, 2] = np.nan
    elif case == "large and small":
        X[:5000, 2] = np.nan
        X[5000:][rng.random((300, n_features)) < 0.4] = np.nan
    else:
        X[rng.random(X.shape) < 0.3] = np.nan
    return X


@pytest.mark.parametrize("case", ["one pattern", "large and small", "many"])
@pytest.mark.parametrize("n_latents", [1, 40])
def test_blocks_cover_all_rows_once_and_are_bounded(case, n_latents):
    rows = group_rows(patterned(case), None, shift=np.zeros(4))
    found = list(blocks(rows, n_latents))
    group_slices, row_slices = zip(*found, strict=True)
    for slices, size in (
        (group_slices, len(rows.seen(EVERY))),
        (row_slices, len(rows.values(EVERY))),
    ):
        assert [s.start for s in slices] == [0, *[s.stop for s in slices[:-1]]]
        assert slices[-1].stop == size
    for groups, block in found:
        assert rows.starts[groups.start] == block.start
        assert rows.starts[groups.stop] == block.stop
        assert block.stop - block.start <= 2048


@pytest.mark.parametrize("case", ["one pattern", "large and small", "many"])
def test_the_size_of_blocks_changes_nothing(monkeypatch, case):
    X = patterned(case)
    model, shift = make_model(4), np.zeros(4)
    rows = group_rows(X, None, shift)
    whole = e_step(rows, model)
    monkeypatch.setattr(incomplete_rows, "_BLOCK_ROWS", 100)
    monkeypatch.setattr(incomplete_rows, "_BLOCK_BYTES", 1)
    cut = group_rows(X, None, shift)
    assert len(cut.starts) > len(rows.starts) or case == "many"
    assert len(list(blocks(cut, 2))) > len(list(blocks(rows, 2)))
    for a, b in zip(e_step(cut, model), whole, strict=True):
        np.testing.assert_allclose(a, b, rtol=1e-9, atol=1e-9)


def test_patterns_of_equal_hash_are_told_apart(monkeypatch):
    X = rows_with_holes()
    rows = group_rows(X, None)
    monkeypatch.setattr(incomplete_rows, "_hashes", lambda words: np.zeros(len(words), np.uint64))
    others = group_rows(X, None)
    np.testing.assert_array_equal(others.order, rows.order)
    np.testing.assert_array_equal(others.starts, rows.starts)
    np.testing.assert_array_equal(others.patterns, rows.patterns)


def test_many_features_are_hashed_too():
    """Patterns that differ in one of several words only."""
    X = np.zeros((400, 200))
    X[np.arange(400), np.arange(400) % 200] = np.nan
    rows = group_rows(X, None)
    np.testing.assert_array_equal(rows.order.reshape(200, 2), [[i, i + 200] for i in range(200)])
    np.testing.assert_array_equal(np.diff(rows.starts), np.full(200, 2))


def many_float32_rows(mean=3.0, weighted=False):
    X = rows_with_holes(12_000, 6, mean=mean).astype(np.float32)
    weight = np.random.default_rng(0).uniform(0.5, 2, len(X)) if weighted else None
    return X, weight


@pytest.mark.parametrize("mean", [3.0, 1e4])
@pytest.mark.parametrize("weighted", [False, True])
def test_sums_in_float32_are_those_in_float64(mean, weighted):
    """Up to rounding errors of rows that are centred exactly, also far from zero."""
    X, weight = many_float32_rows(mean, weighted)
    rows = group_rows(X, weight)
    exact = group_rows(X.astype(np.float64), weight, shift=rows.shift)
    assert (rows.dtype, exact.dtype) == (np.float32, np.float64)
    model = make_model()._replace(mean=rows.shift + 0.1)
    found, expected = e_step(rows, model), e_step(exact, model)
    assert found.log_likelihood == pytest.approx(expected.log_likelihood, abs=1e-4 * rows.n)
    for a, b in zip(found[1:], expected[1:], strict=True):
        np.testing.assert_allclose(a, b, atol=1e-6 * np.abs(b).max())
    for a, b in zip(rows.pairs(), exact.pairs(), strict=True):
        np.testing.assert_allclose(a, b, atol=1e-6 * np.abs(b).max())


def test_likelihoods_of_little_noise_in_float32_are_those_in_float64():
    """The rounding errors of the codes do not add up, although they are alike in all rows."""
    rng = np.random.default_rng(1)
    W = rng.normal(size=(100, 10)).astype(np.float32)
    X = rng.normal(size=(12_000, 10)).astype(np.float32) @ W.T
    X += 0.5 * rng.normal(size=X.shape).astype(np.float32)
    X[rng.random(X.shape) < 0.1] = np.nan
    rows = group_rows(X, None)
    exact = group_rows(X.astype(np.float64), None, shift=rows.shift)
    model = LinearGaussian(W.astype(np.float64), rows.shift + 0.01, np.full(100, 0.25))
    found, expected = e_step(rows, model), e_step(exact, model)
    assert not np.array_equal(found.cross, expected.cross)
    assert found.log_likelihood == pytest.approx(expected.log_likelihood, abs=3e-5 * len(X))


def test_fits_in_float32_are_as_likely_as_in_float64():
    X, _ = many_float32_rows()
    model = PPCA(2, random_state=0).fit(X)
    exact = PPCA(2, random_state=0).fit(X.astype(np.float64))
    rows = X.astype(np.float64)
    assert loop_of(model, rows[:2000])[0].mean() == pytest.approx(
        loop_of(exact, rows[:2000])[0].mean(), abs=1e-3
    )
    assert model.score(rows) == pytest.approx(exact.score(rows), abs=1e-4)


def test_little_noise_or_few_rows_are_summed_in_float64():
    X, _ = many_float32_rows()
    model = make_model()._replace(noise_variance=np.full(6, 1e-6))
    rows = group_rows(X, None)
    exact = group_rows(X.astype(np.float64), None, shift=rows.shift)
    for a, b in zip(e_step(rows, model), e_step(exact, model), strict=True):
        np.testing.assert_allclose(a, b, rtol=1e-12)
    assert group_rows(X[:5000], None).dtype == np.float64
    # A shift that float32 rounds would centre all rows at another point.
    assert group_rows(X, None, shift=np.full(6, 0.1)).dtype == np.float64


# --------------------------------------------------------------------------- inference


@pytest.mark.parametrize("per_feature", [False, True])
@pytest.mark.parametrize("n_latents", [1, 2, 5])
def test_posteriors_and_nats_are_those_of_a_loop(n_latents, per_feature):
    model, X = make_model(6, n_latents, per_feature=per_feature), queries()
    nats, codes, spreads, _ = by_loop(X, *model[:3])
    rows = group_rows(X, None, shift=model.mean - 1.0)
    n_found = 0
    for groups, positions in blocks(rows, n_latents):
        block = rows.block(groups, positions)
        found, index = posterior(block, model), rows.order[positions]
        np.testing.assert_allclose(found.mean.T, codes[index], atol=1e-10)
        matrices = np.repeat(unpack(found.covariance), block.sizes, axis=0)
        np.testing.assert_allclose(matrices, spreads[index], atol=1e-10)
        found_nats = log_likelihood(block, model, found)
        np.testing.assert_allclose(found_nats, nats[index], atol=1e-9)
        n_found += len(index)
    assert n_found == len(X)


@pytest.mark.parametrize("per_feature", [False, True])
@pytest.mark.parametrize("weighted", [False, True])
def test_expected_sums_are_those_of_a_loop(weighted, per_feature):
    X, model = rows_with_holes(), make_model(per_feature=per_feature)
    weight = np.random.default_rng(0).uniform(0.5, 2, 80) if weighted else None
    rows = group_rows(X, weight)
    sums = e_step(rows, model)
    nats, codes, spreads, _ = by_loop(X, *model[:3])
    weight = np.ones(80) if weight is None else weight
    assert sums.log_likelihood == pytest.approx(weight @ nats, rel=1e-10)
    moments = spreads + codes[:, :, None] * codes[:, None, :]
    first, second = np.tril_indices(2)
    each = np.column_stack([moments[:, first, second], codes, np.ones(80)]) * weight[:, None]
    seen = ~np.isnan(X)
    np.testing.assert_allclose(sums.per_feature, each.T @ seen, rtol=1e-9, atol=1e-9)
    np.testing.assert_allclose(sums.overall, each.sum(axis=0), rtol=1e-9, atol=1e-9)
    centred = np.nan_to_num(X - rows.shift)
    cross = centred.T @ (codes * weight[:, None])
    np.testing.assert_allclose(sums.cross, cross, rtol=1e-9, atol=1e-9)


@pytest.fixture(scope="module")
def fitted():
    return converged(rows_with_holes(), 2)


def test_all_queries_of_rows_with_holes_are_those_of_a_loop(fitted):
    X = queries()
    nats, codes, spreads, rows = loop_of(fitted, X)
    np.testing.assert_allclose(fitted.score_samples(X), nats, atol=1e-9)
    np.testing.assert_allclose(fitted.transform(X), codes, atol=1e-10)
    np.testing.assert_allclose(fitted.reconstruct(X), rows, atol=1e-10)
    means, covariances = fitted.posterior(X)
    np.testing.assert_allclose(means, codes, atol=1e-10)
    np.testing.assert_allclose(covariances, spreads, atol=1e-10)
    assert fitted.score(X) == pytest.approx(nats.mean(), rel=1e-10)
    parameters = 6 * 2 - 1 + 1 + 6
    deviance = -2 * nats.sum()
    assert fitted.bic(X) == pytest.approx(deviance + np.log(30) * parameters, rel=1e-10)
    assert fitted.aic(X) == pytest.approx(deviance + 2 * parameters, rel=1e-10)


def test_complete_rows_score_alike_beside_rows_with_holes(fitted):
    """Two formulas, one for each kind, on the same rows."""
    complete = complete_rows(20, seed=9)
    beside = np.vstack([complete, queries()])
    for method in ("score_samples", "transform", "reconstruct"):
        query = getattr(fitted, method)
        np.testing.assert_allclose(query(beside)[:20], query(complete), atol=1e-9)
    np.testing.assert_allclose(
        fitted.posterior(beside)[1][:20], fitted.posterior(complete)[1], atol=1e-10
    )


def test_a_row_of_which_nothing_was_seen_has_the_prior(fitted):
    X = np.full((2, 6), np.nan)
    np.testing.assert_array_equal(fitted.score_samples(X), [0.0, 0.0])
    np.testing.assert_array_equal(fitted.transform(X), np.zeros((2, 2)))
    np.testing.assert_allclose(fitted.reconstruct(X), [fitted.mean_] * 2, rtol=1e-14)
    np.testing.assert_allclose(fitted.impute(X), [fitted.mean_] * 2, rtol=1e-14)
    means, covariances = fitted.posterior(X)
    np.testing.assert_array_equal(means, np.zeros((2, 2)))
    np.testing.assert_allclose(covariances, [np.eye(2)] * 2, atol=1e-14)


def test_rows_of_which_nothing_was_seen_change_nothing_but_the_number_of_rows():
    X = rows_with_holes()
    model = PPCA(2, random_state=0).fit(X)
    more = PPCA(2, random_state=0).fit(np.vstack([np.full((10, 6), np.nan), X]))
    np.testing.assert_allclose(more.loadings_, model.loadings_, atol=1e-10)
    np.testing.assert_allclose(more.mean_, model.mean_, rtol=1e-10)
    assert more.noise_variance_ == pytest.approx(model.noise_variance_, rel=1e-10)
    assert more.n_samples_ == 90


# --------------------------------------------------------------------------------- EM


@pytest.mark.parametrize("gaps", [0.05, 0.3, 0.6])
@pytest.mark.parametrize("n_components", [1, 2, 4])
@pytest.mark.parametrize("seed", [0, 1])
def test_em_never_loses_likelihood_and_ends_at_the_score(gaps, n_components, seed):
    X = rows_with_holes(60, 6, gaps=gaps, seed=seed)
    model = PPCA(n_components, tol=1e-8, max_iter=3000, random_state=seed).fit(X)
    history = model.log_likelihoods_
    assert len(history) == model.n_iter_ > 2
    assert np.all(np.diff(history) > -1e-10 * np.abs(history[1:]))
    assert history[-1] == pytest.approx(model.score(X), rel=1e-8)
    assert history[-1] == pytest.approx(loop_of(model, X)[0].mean(), rel=1e-8)


@pytest.mark.parametrize("per_feature", [False, True])
@pytest.mark.parametrize("weighted", [False, True])
def test_every_step_gains_from_any_model(weighted, per_feature):
    """Models far from the data too: the expanded M-step is a maximum, not an approximation."""
    X = rows_with_holes()
    weight = np.random.default_rng(0).uniform(0.5, 2, 80) if weighted else None
    rows = group_rows(X, weight)
    weight = np.ones(80) if weight is None else weight
    learner = MaximumLikelihood(1e-12, per_feature)
    for seed in range(10):
        model = make_model(seed=seed, per_feature=per_feature)
        before = weight @ by_loop(X, *model[:3])[0]
        for _ in range(4):
            model = learner.m_step(rows, e_step(rows, model), model)
            after = weight @ by_loop(X, *model[:3])[0]
            assert after > before
            before = after


@pytest.mark.parametrize("per_feature", [False, True])
@pytest.mark.parametrize("weighted", [False, True])
def test_the_m_step_regresses_on_the_codes_and_makes_them_standard_again(weighted, per_feature):
    """PX-EM by loops: each feature on (z, 1) over the rows that show it, then z ~ N(nu, S) as
    the same rows have it with standard codes, W S^(1/2) and mu + W nu."""
    X, model = rows_with_holes(), make_model(per_feature=per_feature)
    weight = np.random.default_rng(0).uniform(0.5, 2, 80) if weighted else None
    rows = group_rows(X, weight)
    weight = np.ones(80) if weight is None else weight
    _, codes, spreads, _ = by_loop(X, *model[:3])
    W, mean, lost, counts = np.empty((6, 2)), np.empty(6), np.zeros(6), np.zeros(6)
    for d in range(6):
        design, target = np.zeros((3, 3)), np.zeros(3)
        for i in np.flatnonzero(~np.isnan(X[:, d])):
            z = np.r_[codes[i], 1.0]
            design += weight[i] * np.outer(z, z)
            design[:2, :2] += weight[i] * spreads[i]
            target += weight[i] * X[i, d] * z
        W[d, 0], W[d, 1], mean[d] = np.linalg.solve(design, target)
        for i in np.flatnonzero(~np.isnan(X[:, d])):
            error = X[i, d] - W[d] @ codes[i] - mean[d]
            lost[d] += weight[i] * (error**2 + W[d] @ spreads[i] @ W[d])
            counts[d] += weight[i]
    nu = np.average(codes, axis=0, weights=weight)
    S = np.cov(codes.T, bias=True, aweights=weight) + np.average(spreads, axis=0, weights=weight)
    learner = MaximumLikelihood(1e-12, per_feature)
    found = learner.m_step(rows, e_step(rows, model), model)
    expected = lost / counts if per_feature else lost.sum() / counts.sum()
    np.testing.assert_allclose(found.noise_variance, expected, rtol=1e-9)
    np.testing.assert_allclose(found.mean, mean + W @ nu, rtol=1e-9)
    np.testing.assert_allclose(found.loadings @ found.loadings.T, W @ S @ W.T, atol=1e-9)


def flat(W, mean, noise):
    return np.concatenate([W.ravel(), mean, [np.log(noise)]])


def observed_nats(point, X, n_latents, weight):
    D = X.shape[1]
    W, mean = point[: D * n_latents].reshape(D, n_latents), point[D * n_latents : -1]
    return weight @ by_loop(X, W, mean, np.exp(point[-1]))[0]


@pytest.mark.parametrize("n_components", [1, 2])
@pytest.mark.parametrize("weighted", [False, True])
def test_at_the_fixed_point_the_likelihood_has_no_slope(weighted, n_components):
    """By differences of the loop's log-likelihood in W, mu and log sigma2."""
    X = rows_with_holes(40, 5)
    weight = np.random.default_rng(0).uniform(0.5, 2, 40) if weighted else None
    model = converged(X, n_components, sample_weight=weight)
    weight = np.ones(40) if weight is None else weight
    point = flat(model.loadings_, model.mean_, model.noise_variance_)
    slopes = optimize.approx_fprime(point, observed_nats, 1e-6, X, n_components, weight)
    start = flat(*make_model(5, n_components)[:2], 0.7)
    steep = optimize.approx_fprime(start, observed_nats, 1e-6, X, n_components, weight)
    assert np.abs(slopes).max() < 1e-3 < 1.0 < np.abs(steep).max()


def test_scipys_optimiser_finds_nothing_better():
    X = rows_with_holes(15, 3, rank=1)
    model = converged(X, 1)
    best = loop_of(model, X)[0].sum()
    found = [
        -optimize.minimize(
            lambda point: -observed_nats(point, X, 1, np.ones(15)),
            flat(*make_model(3, 1, seed)[:2], 0.7),
        ).fun
        for seed in range(2)
    ]
    assert max(found) == pytest.approx(best, abs=1e-4)


@pytest.mark.parametrize("n_components", [1, 2, 3])
def test_a_hole_in_a_row_of_no_weight_leaves_the_closed_form(n_components):
    """The missing-value path on what are as good as complete rows."""
    X = complete_rows()
    weight = np.ones(80)
    expected = PPCA(n_components).fit(X)
    X = np.vstack([X, X[:1]])
    X[80, 2] = np.nan
    model = converged(X, n_components, sample_weight=np.r_[weight, 1e-10])
    np.testing.assert_allclose(model.loadings_, expected.loadings_, atol=2e-5)
    np.testing.assert_allclose(model.mean_, expected.mean_, atol=1e-6)
    assert model.noise_variance_ == pytest.approx(expected.noise_variance_, rel=1e-6)
    assert model.score(X[:80]) == pytest.approx(expected.score(X[:80]), abs=1e-8)
    np.testing.assert_allclose(model.explained_variance_, expected.explained_variance_, rtol=1e-5)


def test_one_hole_among_many_rows_hardly_matters():
    X = complete_rows(1000)
    expected = PPCA(2).fit(X)
    X[0, 0] = np.nan
    model = PPCA(2, random_state=0).fit(X)
    np.testing.assert_allclose(model.loadings_, expected.loadings_, atol=0.02)
    assert model.noise_variance_ == pytest.approx(expected.noise_variance_, rel=0.01)


@pytest.mark.parametrize("n_components", [1, 2])
def test_weights_count_rows_with_holes(n_components):
    """One step of EM after the other, to 1e-8: the same sums, grouped otherwise."""
    X = rows_with_holes(40)
    repeats = np.random.default_rng(0).integers(0, 4, 40)
    repeats[:2] = 2
    many = PPCA(n_components, random_state=0).fit(np.repeat(X, repeats, axis=0))
    model = PPCA(n_components, random_state=0).fit(X, sample_weight=repeats)
    assert model.n_iter_ == many.n_iter_
    np.testing.assert_allclose(model.log_likelihoods_, many.log_likelihoods_, rtol=1e-8)
    for name in ("loadings_", "mean_", "explained_variance_", "explained_variance_ratio_"):
        np.testing.assert_allclose(
            getattr(model, name), getattr(many, name), rtol=1e-8, atol=1e-8, err_msg=name
        )
    assert model.noise_variance_ == pytest.approx(many.noise_variance_, rel=1e-8)


def test_the_order_of_the_rows_does_not_matter():
    X = rows_with_holes()
    order = np.random.default_rng(3).permutation(80)
    model, shuffled = PPCA(2, random_state=0).fit(X), PPCA(2, random_state=0).fit(X[order])
    np.testing.assert_allclose(shuffled.loadings_, model.loadings_, atol=1e-8)
    np.testing.assert_allclose(shuffled.transform(X), model.transform(X), atol=1e-8)


def test_every_random_state_reaches_the_same_likelihood():
    X = rows_with_holes()
    scores = [converged(X, 2, random_state=seed).score(X) for seed in range(4)]
    assert np.ptp(scores) < 1e-6


def test_fitted_attributes_describe_the_fitted_gaussian():
    """Loadings orthogonal by decreasing length; variances from the model's own covariance."""
    X = rows_with_holes()
    model = PPCA(2, random_state=0).fit(X)
    W, noise = model.loadings_, model.noise_variance_
    values, vectors = np.linalg.eigh(W @ W.T + noise * np.eye(6))
    values = values[::-1]
    np.testing.assert_allclose(model.explained_variance_, values[:2] * 80 / 79, rtol=1e-10)
    ratio = values[:2] / values.sum()
    np.testing.assert_allclose(model.explained_variance_ratio_, ratio, rtol=1e-10)
    cosines = np.abs(np.sum(model.axes_ * vectors[:, ::-1].T[:2], axis=1))
    np.testing.assert_allclose(cosines, 1.0, rtol=1e-10)
    np.testing.assert_allclose(W, model.axes_.T * np.linalg.norm(W, axis=0), atol=1e-10)
    np.testing.assert_allclose(np.diag(W.T @ W), W.T @ W @ np.ones(2), atol=1e-10)
    assert np.all(model.axes_[np.arange(2), np.abs(model.axes_).argmax(axis=1)] > 0)


def test_em_that_stops_early_warns():
    with pytest.warns(ConvergenceWarning, match="max_iter=2"):
        model = PPCA(2, max_iter=2, tol=0.0, random_state=0).fit(rows_with_holes())
    assert model.n_iter_ == len(model.log_likelihoods_) == 2


@pytest.mark.parametrize("gaps", [0.1, 0.3])
@pytest.mark.parametrize("weighted", [False, True])
def test_em_starts_near_its_end_when_values_are_missing_at_random(gaps, weighted):
    """Less than half a nat per row from the maximum, where mean and spread alone are far."""
    X = rows_with_holes(600, 20, rank=3, gaps=gaps)
    weight = np.random.default_rng(0).uniform(0.5, 2, 600) if weighted else None
    rows = group_rows(X, weight)
    learner = MaximumLikelihood(1e-12)
    start = start_of(rows, 3, np.random.RandomState(0), learner)
    model, history, ended_by = fit_em(rows, start, learner, tol=1e-9, max_iter=500)
    assert ended_by == "convergence"
    total = 600 if weight is None else weight.sum()
    assert 0 <= (history[-1] - history[0]) / total < 0.5
    variance = np.full(X.shape[1], np.nanvar(X, axis=0).mean())
    alone = LinearGaussian(1e-6 * start.loadings, rows.shift, variance)
    assert (history[-1] - e_step(rows, alone).log_likelihood) / total > 3
    np.testing.assert_allclose(model.noise_variance, 0.25, rtol=0.1)


def test_float32_rows_give_float32_results():
    X = rows_with_holes(300)
    model = PPCA(2, random_state=0).fit(X.astype(np.float32))
    expected = PPCA(2, random_state=0).fit(X)
    for name in ("loadings_", "mean_", "components_", "explained_variance_"):
        assert getattr(model, name).dtype == np.float32, name
        np.testing.assert_allclose(getattr(model, name), getattr(expected, name), atol=1e-3)
    rows = queries().astype(np.float32)
    results = [
        *model.posterior(rows),
        *(getattr(model, m)(rows) for m in ("transform", "score_samples", "reconstruct")),
        model.impute(rows),
        model.impute(rows, n_draws=2, random_state=0),
        model.sample(3, given=rows[0], random_state=0),
    ]
    for result in results:
        assert result.dtype == np.float32
        assert np.isfinite(result).all()
    np.testing.assert_allclose(
        model.score_samples(rows), expected.score_samples(queries()), atol=1e-2
    )


# -------------------------------------------------------------- the number of components


@pytest.mark.parametrize("n_components", ["bic", "mle"])
@pytest.mark.parametrize("rank", [1, 3])
def test_a_known_rank_is_recovered_from_rows_with_holes(n_components, rank):
    X = rows_with_holes(500, 10, rank=rank, gaps=0.2)
    model = PPCA(n_components, random_state=0).fit(X)
    assert model.n_components_ == rank
    assert model.noise_variance_ == pytest.approx(0.25, rel=0.1)


@pytest.mark.parametrize("share", [0.5, 0.9])
def test_a_share_of_the_variance_is_that_of_the_complete_rows(share):
    X = rows_with_holes(500, 10, rank=3, gaps=0.2)
    expected = PPCA(share).fit(complete_rows(500, 10, rank=3)).n_components_
    model = PPCA(share, random_state=0).fit(X)
    assert model.n_components_ == expected
    assert model.explained_variance_ratio_.sum() == pytest.approx(share, abs=0.4)


def test_evidence_needs_more_rows_than_features():
    with pytest.raises(ValueError, match="'mle' is only supported if n_samples >= n_features"):
        PPCA("mle", random_state=0, tol=1e-3).fit(rows_with_holes(8, 12))


@pytest.mark.filterwarnings("ignore:The noise variance was raised:UserWarning")
def test_the_default_size_leaves_one_direction_to_the_noise():
    model = PPCA(random_state=0, tol=1e-3, max_iter=2000).fit(rows_with_holes(80, 5))
    assert model.n_components_ == 4
    assert np.isfinite(model.score(rows_with_holes(80, 5)))


# --------------------------------------------------------------------------- imputation


def conditional(model, x):
    """Mean and covariance of the missing part of a row given the rest."""
    o = ~np.isnan(x)
    C = model.loadings_ @ model.loadings_.T + model.noise_variance_ * np.eye(len(x))
    gain = C[np.ix_(~o, o)] @ np.linalg.inv(C[np.ix_(o, o)])
    mean = model.mean_[~o] + gain @ (x[o] - model.mean_[o])
    return mean, C[np.ix_(~o, ~o)] - gain @ C[np.ix_(o, ~o)]


def assert_drawn_from(draws, mean, covariance):
    """Moments within five standard errors."""
    n, spread = len(draws), np.diag(covariance)
    assert np.all(np.abs(draws.mean(axis=0) - mean) < 5 * np.sqrt(spread / n))
    error = 5 * np.sqrt((covariance**2 + np.outer(spread, spread)) / n)
    assert np.all(np.abs(np.atleast_2d(np.cov(draws.T)) - covariance) < error)


def test_imputed_values_are_conditional_means(fitted):
    X = queries()
    filled = fitted.impute(X)
    hole = np.isnan(X)
    for x, row, missing in zip(X, filled, hole, strict=True):
        np.testing.assert_allclose(row[missing], conditional(fitted, x)[0], atol=1e-10)
    np.testing.assert_array_equal(filled[~hole], X[~hole])


@pytest.mark.parametrize("dtype", [np.float64, np.float32])
def test_seen_values_come_back_bit_for_bit(fitted, dtype):
    X = queries().astype(dtype)
    X[0, 0], X[1, 0], X[2, 0] = 1e-30, -0.0, 1 / 3
    model = PPCA(2, random_state=0).fit(rows_with_holes().astype(dtype))
    seen = ~np.isnan(X)
    bits = f"u{np.dtype(dtype).itemsize}"
    for filled in (model.impute(X), *model.impute(X, n_draws=3, random_state=0)):
        np.testing.assert_array_equal(filled[seen].view(bits), X[seen].view(bits))
        assert not np.isnan(filled).any()
    complete = complete_rows().astype(dtype)
    np.testing.assert_array_equal(model.impute(complete), complete)


def test_draws_of_a_frame_are_those_of_its_values():
    X = pd.DataFrame(rows_with_holes(), columns=list("abcdef"))
    model = PPCA(2, random_state=0).fit(X)
    draws = model.impute(X, n_draws=2, random_state=0)
    plain = PPCA(2, random_state=0).fit(X.to_numpy())
    expected = plain.impute(X.to_numpy(), n_draws=2, random_state=0)
    np.testing.assert_allclose(draws, expected, rtol=1e-12)


def test_draws_have_the_moments_of_the_conditional_gaussian(fitted):
    X = queries()[[2, 3, 4, 5]]
    draws = fitted.impute(X, n_draws=8000, random_state=0)
    assert draws.shape == (8000, 4, 6)
    for i, x in enumerate(X):
        missing = np.isnan(x)
        assert missing.any()
        assert_drawn_from(draws[:, i, missing], *conditional(fitted, x))


def floored_model(seed, n_features):
    """All components kept: next to no noise, and W_o'W_o alone is singular."""
    X = np.random.default_rng(seed).normal(size=(20, n_features))
    with pytest.warns(UserWarning, match="raised to its lower bound"):
        model = PPCA(n_features).fit(X)
    hole = np.random.default_rng(seed + 1).random(X.shape) < 0.6
    hole[hole.all(axis=1), 0] = False
    return model, np.where(hole, np.nan, X)


@pytest.mark.parametrize("seed", range(3))
def test_posteriors_are_those_of_a_loop_even_without_noise(seed):
    """The block of what was seen is well conditioned, though M is not."""
    model, X = floored_model(seed, 5)
    _, codes, spreads, _ = loop_of(model, X)
    means, covariances = model.posterior(X)
    np.testing.assert_allclose(covariances, spreads, atol=1e-4)
    np.testing.assert_allclose(means, codes, atol=1e-4)


def test_draws_are_finite_even_without_noise():
    for seed in range(60):
        model, X = floored_model(seed, 8)
        assert np.isfinite(model.impute(X, n_draws=1, random_state=0)).all()


def test_rows_given_in_part_are_drawn_from_the_conditional_gaussian(fitted):
    x = np.array([1.0, np.nan, np.nan, 4.0, 2.0, np.nan])
    draws = fitted.sample(20_000, given=x, random_state=0)
    assert draws.shape == (20_000, 6)
    missing = np.isnan(x)
    np.testing.assert_array_equal(draws[:, ~missing], np.tile(x[~missing], (20_000, 1)))
    assert_drawn_from(draws[:, missing], *conditional(fitted, x))
    nothing = fitted.sample(20_000, given=np.full(6, np.nan), random_state=0)
    assert_drawn_from(nothing, fitted.mean_, fitted.get_covariance())


def test_given_rows_without_noise_lie_on_the_subspace(fitted):
    """Means of p(x|z), z from the posterior: less spread than with the noise."""
    x = np.array([1.0, np.nan, np.nan, 4.0, 2.0, np.nan])
    missing = np.isnan(x)
    draws = fitted.sample(20_000, given=x, noise=False, random_state=0)
    mean, covariance = conditional(fitted, x)
    assert_drawn_from(draws[:, missing], mean, covariance - fitted.noise_variance_ * np.eye(3))
    assert np.linalg.matrix_rank(draws[:, missing] - mean, tol=1e-6) == 2


def test_a_given_row_may_be_a_vector_a_list_a_row_or_a_frame():
    X = pd.DataFrame(rows_with_holes(), columns=list("abcdef"))
    model = PPCA(2, random_state=0).fit(X)
    row = X[X.isna().any(axis=1)].iloc[[0]]
    expected = model.sample(4, given=row, random_state=0)
    assert isinstance(expected, np.ndarray)
    plain = PPCA(2, random_state=0).fit(X.to_numpy())
    values = row.to_numpy()
    for given_row in (values, values[0], values[0].tolist()):
        found = plain.sample(4, given=given_row, random_state=0)
        np.testing.assert_allclose(found, expected, rtol=1e-12)
    frame = model.set_output(transform="pandas").sample(2, given=row, random_state=0)
    assert list(frame.columns) == list("abcdef")


@pytest.mark.parametrize(
    ("row", "message"),
    [
        (np.zeros((2, 6)), "given must be one row, got 2 rows"),
        (np.zeros(5), "5 features"),
        (np.zeros((1, 7)), "7 features"),
        (np.zeros((1, 1, 6)), "dim"),
    ],
)
def test_a_given_row_of_the_wrong_shape_is_refused(fitted, row, message):
    with pytest.raises(ValueError, match=message):
        fitted.sample(2, given=row)


@pytest.mark.parametrize("n_samples", [0, -1, 1.5])
def test_a_wrong_number_of_draws_is_refused(fitted, n_samples):
    with pytest.raises(ValueError, match="'n_samples'"):
        fitted.sample(n_samples, given=np.full(6, np.nan))
    with pytest.raises(ValueError, match="'n_draws'"):
        fitted.impute(queries(), n_draws=n_samples)


def test_draws_repeat_with_a_seed_and_differ_without(fitted):
    X = queries()
    x = X[np.isnan(X).any(axis=1)][0]
    drawers = [
        lambda seed: fitted.impute(X, n_draws=2, random_state=seed),
        lambda seed: fitted.sample(2, given=x, random_state=seed),
    ]
    for draw in drawers:
        np.testing.assert_array_equal(draw(3), draw(3))
        assert not np.array_equal(draw(3), draw(4))
        assert not np.array_equal(draw(None), draw(None))
        first, second = draw(3)
        assert not np.array_equal(first, second)


@pytest.mark.parametrize("load", [load_iris, load_digits])
def test_imputation_beats_the_column_means_on_real_data(load):
    X = load().data[:600].astype(float)
    hole = np.random.default_rng(0).random(X.shape) < 0.2
    holed = np.where(hole, np.nan, X)
    model = PPCA(2 if X.shape[1] == 4 else 15, tol=1e-4, random_state=0).fit(holed)
    error = model.impute(holed)[hole] - X[hole]
    naive = (np.nanmean(holed, axis=0) - X)[hole]
    assert np.sqrt(np.mean(error**2)) < 0.7 * np.sqrt(np.mean(naive**2))


@pytest.mark.parametrize("dtype", [np.float32, np.float64])
def test_rows_with_holes_are_read_in_blocks(dtype):
    """No second array of the size of the rows, beside their codes."""
    X = np.tile(rows_with_holes(2000, 40, gaps=0.2), (20, 1)).astype(dtype)
    X[np.random.default_rng(0).random(X.shape) < 0.05] = np.nan  # as many patterns as rows
    with pytest.warns(ConvergenceWarning):
        model = PPCA(2, max_iter=2, tol=0, random_state=0).fit(X)
    for call in (model.fit, model.transform, model.score_samples):
        tracemalloc.start()
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", ConvergenceWarning)
            call(X)
        _, peak = tracemalloc.get_traced_memory()
        tracemalloc.stop()
        assert peak < 0.5 * 8 * X.size + 2e6
