"""PPCA with one noise variance for each feature, with a prior of the loadings, and rotated."""

import dask.array as da
import numpy as np
import pytest
from scipy import optimize, sparse, stats
from sklearn.decomposition import FactorAnalysis
from sklearn.exceptions import ConvergenceWarning
from sklearn.model_selection import GridSearchCV as ReferenceSearch

from helpers import low_rank_rows, through_joblib, through_pickle, through_skops
from skae import PPCA, GridSearchCV, _gaussian_learning
from skae._linear import em_starts

FACTORS = {"noise_variance": "per_feature"}
PRIOR = {"loadings_prior": "ard"}
SCALAR_PRIOR = {"loadings_prior": "ard", "noise_variance": "scalar"}
OPTIONS = [FACTORS, PRIOR, SCALAR_PRIOR]

every_model = pytest.mark.parametrize("options", OPTIONS, ids=["factors", "prior", "scalar prior"])
every_gap = pytest.mark.parametrize("gaps", [0.0, 0.2])
every_rotation = pytest.mark.parametrize("rotation", ["varimax", "quartimax"])


def factor_rows(n_rows=80, n_features=6, n_factors=2, *, gaps=0.0, seed=0, noise=(0.3, 1.5)):
    """Rows of a factor model with different noise variances; some values are NaN."""
    rng = np.random.default_rng(seed)
    W = 0.4 * rng.normal(size=(n_features, n_factors))
    W[np.arange(n_features), np.arange(n_features) % n_factors] += np.linspace(2.0, 1.0, n_features)
    psi = rng.uniform(*noise, n_features)
    X = rng.normal(size=(n_rows, n_factors)) @ W.T
    X += np.sqrt(psi) * rng.normal(size=X.shape) + 3.0
    hole = rng.random(X.shape) < gaps
    hole[:2] = False
    return np.where(hole, np.nan, X)


def model_of(options, n_components=2, **others):
    return PPCA(n_components, random_state=0, **{**options, **others})


def converged(options, X, n_components=2, *, sample_weight=None, **others):
    """PPCA at the fixed point of EM."""
    model = model_of(options, n_components, tol=1e-10, max_iter=5_000, **others)
    return model.fit(X, sample_weight=sample_weight)


def conditional(model, x):
    """Mean and covariance of the missing values of a row, given the others, by SciPy's inverse."""
    C, o = model.get_covariance(), ~np.isnan(x)
    gain = np.linalg.solve(C[np.ix_(o, o)], C[np.ix_(o, ~o)]).T
    mean = model.mean_[~o] + gain @ (x[o] - model.mean_[o])
    return mean, C[np.ix_(~o, ~o)] - gain @ C[np.ix_(o, ~o)]


def nats_by_scipy(X, mean, C):
    return np.array(
        [
            stats.multivariate_normal(mean[o], C[np.ix_(o, o)]).logpdf(x[o]) if o.any() else 0.0
            for x, o in zip(X, ~np.isnan(X), strict=True)
        ]
    )


# ----------------------------------------------------------------------- maximum likelihood


@pytest.mark.parametrize("n_components", [1, 2, 3])
@pytest.mark.parametrize("solver", ["auto", "em"])
def test_the_likelihood_is_not_below_that_of_scikit_learn(n_components, solver):
    X = factor_rows(200, 9, 3, seed=1)
    other = FactorAnalysis(n_components, tol=1e-10, max_iter=10_000, svd_method="lapack").fit(X)
    model = model_of(FACTORS, n_components, solver=solver).fit(X)
    assert model.score(X) >= other.score(X) - 1e-7
    np.testing.assert_allclose(
        model.get_covariance(), other.get_covariance(), rtol=0, atol=2e-3 * X.var(axis=0).max()
    )


def test_few_missing_values_hardly_matter():
    X = factor_rows(500, 8)
    complete = model_of(FACTORS).fit(X)
    X[[3, 80, 200], [0, 4, 7]] = np.nan
    model = converged(FACTORS, X)
    np.testing.assert_allclose(model.noise_variance_, complete.noise_variance_, rtol=0.02)
    np.testing.assert_allclose(model.loadings_, complete.loadings_, atol=0.02)


def flat(W, mean, psi):
    return np.r_[W.ravel(), mean, np.log(psi)]


def test_scipys_optimiser_finds_nothing_better_with_missing_values():
    X = factor_rows(60, 5, 1, gaps=0.25)
    model = converged(FACTORS, X, 1)

    def loss(point):
        W, mean, psi = point[:5, None], point[5:10], np.exp(point[10:])
        return -nats_by_scipy(X, mean, W @ W.T + np.diag(psi)).mean()

    start = flat(model.loadings_, model.mean_, model.noise_variance_)
    assert loss(start) == pytest.approx(-model.score(X), rel=1e-9)
    slope = optimize.approx_fprime(start, loss, 1e-6)
    np.testing.assert_allclose(slope, 0.0, atol=1e-4)
    found = optimize.minimize(loss, start, options={"maxiter": 10})
    assert loss(start) - found.fun < 1e-8


@every_gap
def test_the_true_model_is_recovered_from_many_rows(gaps):
    rng = np.random.default_rng(0)
    W, psi = np.kron(np.eye(2), [[2.0], [1.0], [1.0], [-1.0]]), rng.uniform(0.3, 1.5, 8)
    X = rng.normal(size=(20_000, 2)) @ W.T + np.sqrt(psi) * rng.normal(size=(20_000, 8))
    X[rng.random(X.shape) < gaps] = np.nan
    for options in (FACTORS, PRIOR):
        model = model_of(options, tol=1e-8, max_iter=2000).fit(X)
        np.testing.assert_allclose(model.noise_variance_, psi, rtol=0.1)
        np.testing.assert_allclose(model.loadings_ @ model.loadings_.T, W @ W.T, atol=0.15)


@every_gap
def test_factors_are_uncorrelated_given_a_row_and_in_order(gaps):
    """Lawley and Maxwell's form: W' Psi^-1 W is diagonal and decreases."""
    model = model_of(FACTORS, 3).fit(factor_rows(200, 9, 3, gaps=gaps))
    W = model.loadings_
    sizes = W.T @ (W / model.noise_variance_[:, None])
    np.testing.assert_allclose(sizes, np.diag(np.diagonal(sizes)), atol=1e-8 * sizes.max())
    assert np.all(np.diff(np.diagonal(sizes)) < 0)
    in_noise = W / np.sqrt(model.noise_variance_)[:, None]
    assert np.all(in_noise[np.argmax(np.abs(in_noise), axis=0), np.arange(3)] > 0)


@every_gap
def test_likelihoods_increase_to_the_score(gaps):
    X = factor_rows(gaps=gaps)
    model = converged(FACTORS, X)
    assert np.all(np.diff(model.log_likelihoods_) > -1e-10)
    assert model.log_likelihoods_[-1] == pytest.approx(model.score(X), abs=1e-9)
    assert not hasattr(model, "lower_bounds_")


def test_components_that_explain_a_feature_are_named():
    """A feature without noise (a Heywood case)."""
    rng = np.random.default_rng(0)
    z = rng.normal(size=(200, 1))
    X = z @ np.array([[1.0, 2.0, -1.0, 1.5, 0.5]]) + rng.normal(size=(200, 5))
    X[:, 2] = z[:, 0]
    with pytest.warns(UserWarning, match=r"1 feature\(s\).*\(features 2\).*Heywood"):
        model = model_of(FACTORS, 1, max_iter=5000).fit(X)
    assert model.noise_variance_[2] < 1e-6 * np.min(model.noise_variance_[[0, 1, 3, 4]])


@pytest.mark.parametrize("n_components", [1, 2, 3])
@every_gap
def test_information_criteria_count_the_free_parameters(n_components, gaps):
    X = factor_rows(200, 9, 3, gaps=gaps)
    model = model_of(FACTORS, n_components).fit(X)
    # Loadings up to rotations, noise variances and means.
    count = 9 * n_components - n_components * (n_components - 1) // 2 + 9 + 9
    nats = model.score_samples(X).sum()
    assert model.aic(X) == pytest.approx(2 * count - 2 * nats, rel=1e-12)
    assert model.bic(X) == pytest.approx(np.log(200) * count - 2 * nats, rel=1e-12)


# --------------------------------------------------------------------------- the prior


@every_gap
@pytest.mark.parametrize("options", [PRIOR, SCALAR_PRIOR], ids=["each", "scalar"])
@pytest.mark.parametrize("rank", [1, 2, 3])
def test_the_prior_recovers_the_number_of_components(options, gaps, rank):
    noise = (0.5, 0.5) if options is SCALAR_PRIOR else (0.3, 1.5)
    X = factor_rows(300, 9, rank, gaps=gaps, seed=rank, noise=noise)
    model = model_of(options, None).fit(X)
    assert model.n_components_ == rank
    assert model.relevance_.shape == (rank,)
    assert model.loadings_.shape == (9, rank)


@every_gap
def test_the_prior_leaves_one_component_to_rows_of_noise(gaps):
    X = np.random.default_rng(0).normal(size=(200, 6))
    X[np.random.default_rng(1).random(X.shape) < gaps] = np.nan
    model = model_of(PRIOR, None).fit(X)
    assert model.n_components_ == 1
    np.testing.assert_allclose(model.get_covariance(), np.eye(6), atol=0.3)


@every_gap
@pytest.mark.parametrize("options", [PRIOR, SCALAR_PRIOR], ids=["each", "scalar"])
def test_lower_bounds_increase_unless_components_are_switched_off(options, gaps):
    X = factor_rows(gaps=gaps)
    model = converged(options, X, 1)
    assert model.lower_bounds_.shape == (model.n_iter_,)
    assert np.all(np.diff(model.lower_bounds_) > -1e-9)
    assert not hasattr(model, "log_likelihoods_")


@pytest.mark.parametrize("n_rows", [60, 200])
@pytest.mark.parametrize("n_factors", [1, 2])
def test_intervals_of_drawn_values_hold_what_they_promise(n_rows, n_factors):
    """Ranks of the hidden values among 19 draws: the outer two are 10 %."""
    ranks = []
    for seed in range(25 if n_rows == 60 else 10):
        X = factor_rows(n_rows, 8, n_factors, seed=seed)
        hidden = np.random.default_rng(seed).random(X.shape) < 0.3
        X_missing = np.where(hidden, np.nan, X)
        model = PPCA(loadings_prior="ard", random_state=0).fit(X_missing)
        draws = model.impute(X_missing, n_draws=19, random_state=seed)
        ranks.append(np.sum(draws[:, hidden] < X[hidden], axis=0))
    ranks = np.concatenate(ranks)
    assert np.mean((ranks > 0) & (ranks < 19)) == pytest.approx(0.9, abs=0.02)


def test_the_prior_predicts_hidden_values_better_than_maximum_likelihood():
    errors = []
    for seed in range(3):
        X = factor_rows(40, 10, 2, seed=seed)
        hidden = np.random.default_rng(seed).random(X.shape) < 0.3
        X_missing = np.where(hidden, np.nan, X)
        both = [model_of(options, 6, max_iter=1000) for options in (PRIOR, {})]
        errors.append(
            [np.mean((m.fit(X_missing).impute(X_missing) - X)[hidden] ** 2) for m in both]
        )
    with_prior, without = np.mean(errors, axis=0)
    assert with_prior < 0.9 * without


# ----------------------------------------------------------------- queries of all models


@every_model
@every_gap
def test_densities_are_scipys(options, gaps):
    X = factor_rows(gaps=gaps)
    model = model_of(options).fit(X)
    psi = np.broadcast_to(model.noise_variance_, 6)
    C = model.loadings_ @ model.loadings_.T + np.diag(psi)
    assert np.ndim(model.noise_variance_) == (options is not SCALAR_PRIOR)
    np.testing.assert_allclose(model.get_covariance(), C, rtol=1e-12)
    np.testing.assert_allclose(model.get_precision(), np.linalg.inv(C), rtol=1e-8, atol=1e-10)
    np.testing.assert_allclose(model.score_samples(X), nats_by_scipy(X, model.mean_, C), rtol=1e-9)


@every_gap
def test_posteriors_of_factors_are_the_joint_gaussian_conditioned_on_the_row(gaps):
    X = factor_rows(20, gaps=gaps)
    model = model_of(FACTORS).fit(X)
    C, W = model.get_covariance(), model.loadings_
    means, covariances = model.posterior(X)
    np.testing.assert_array_equal(means, model.transform(X))
    for x, mean, covariance in zip(X, means, covariances, strict=True):
        o = ~np.isnan(x)
        gain = np.linalg.solve(C[np.ix_(o, o)], W[o]).T
        np.testing.assert_allclose(mean, gain @ (x[o] - model.mean_[o]), atol=1e-9)
        np.testing.assert_allclose(covariance, np.eye(2) - gain @ W[o], atol=1e-9)


@every_model
def test_complete_rows_have_the_same_codes_beside_rows_with_missing_values(options):
    X = factor_rows(gaps=0.2)
    model = model_of(options).fit(X)
    complete = np.nan_to_num(X, nan=1.0)
    beside = np.vstack([complete, np.full(6, np.nan)])
    np.testing.assert_allclose(
        model.transform(complete), model.transform(beside)[:-1], rtol=1e-9, atol=1e-9
    )
    for alone, among in zip(model.posterior(complete), model.posterior(beside), strict=True):
        np.testing.assert_allclose(alone, among[:-1], rtol=1e-9, atol=1e-9)


@every_model
def test_a_row_without_any_value_has_the_prior(options):
    model = model_of(options).fit(factor_rows(gaps=0.2))
    row = np.full((1, 6), np.nan)
    mean, covariance = model.posterior(row)
    np.testing.assert_allclose(mean, 0.0, atol=1e-12)
    np.testing.assert_allclose(covariance[0], np.eye(2), atol=1e-12)
    np.testing.assert_allclose(model.impute(row)[0], model.mean_, rtol=1e-9)
    assert model.score_samples(row) == 0.0


@every_model
@every_rotation
def test_drawn_rows_have_the_moments_of_the_model(options, rotation):
    model = model_of(options, rotation=rotation).fit(factor_rows())
    C = model.get_covariance()
    for noise in (True, False):
        X = model.sample(40_000, noise=noise, random_state=0)
        expected = C if noise else model.loadings_ @ model.loadings_.T
        np.testing.assert_allclose(X.mean(axis=0), model.mean_, atol=0.05 * np.sqrt(C.max()))
        np.testing.assert_allclose(np.cov(X.T), expected, atol=0.05 * C.max())


@every_gap
def test_completions_of_factors_are_those_of_the_conditional_gaussian(gaps):
    model = model_of(FACTORS).fit(factor_rows(gaps=gaps))
    x = np.array([1.0, np.nan, 4.0, np.nan, np.nan, 2.0])
    mean, covariance = conditional(model, x)
    hole = np.isnan(x)
    imputed = model.impute(x[None])[0]
    np.testing.assert_allclose(imputed[hole], mean, rtol=1e-9)
    np.testing.assert_array_equal(imputed[~hole], x[~hole])
    limit = 0.05 * covariance.max()
    for draws in (
        model.sample(20_000, given=x, random_state=0),
        model.impute(x[None], n_draws=20_000, random_state=0)[:, 0],
    ):
        np.testing.assert_array_equal(draws[:, ~hole], np.tile(x[~hole], (20_000, 1)))
        np.testing.assert_allclose(draws[:, hole].mean(axis=0), mean, atol=limit)
        np.testing.assert_allclose(np.cov(draws[:, hole].T), covariance, atol=limit)


@pytest.mark.parametrize("options", [PRIOR, SCALAR_PRIOR], ids=["each", "scalar"])
def test_completions_of_many_rows_with_the_prior_are_those_of_the_conditional_gaussian(options):
    """With 3000 rows, little uncertainty of the loadings is left."""
    model = model_of(options).fit(factor_rows(3000, gaps=0.1, noise=(1.0, 1.0)))
    x = np.array([1.0, np.nan, 4.0, np.nan, np.nan, 2.0])
    mean, covariance = conditional(model, x)
    hole, limit = np.isnan(x), 0.1 * covariance.max()
    np.testing.assert_allclose(model.impute(x[None])[0, hole], mean, atol=0.01)
    for noise in (True, False):
        draws = model.sample(2_000, given=x, noise=noise, random_state=0)[:, hole]
        expected = covariance - (
            0 if noise else np.diag(np.broadcast_to(model.noise_variance_, 6)[hole])
        )
        np.testing.assert_allclose(draws.mean(axis=0), mean, atol=limit)
        np.testing.assert_allclose(np.cov(draws.T), expected, atol=limit)


@every_model
@pytest.mark.parametrize("dtype", [np.float32, np.float64])
def test_draws_repeat_with_a_seed_and_keep_observed_values(options, dtype):
    X = factor_rows(gaps=0.2).astype(dtype)
    model = model_of(options).fit(X)
    first, again, other = (model.impute(X, n_draws=3, random_state=s) for s in (0, 0, 1))
    assert first.shape == (3, 80, 6)
    assert first.dtype == dtype
    np.testing.assert_array_equal(first, again)
    hole = np.isnan(X)
    assert np.all(first[:, hole] != other[:, hole])
    assert np.all(first[0, hole] != first[1, hole])
    np.testing.assert_array_equal(first[:, ~hole], np.tile(X[~hole], (3, 1)))


# --------------------------------------------------------------------- what does not matter


@every_gap
@pytest.mark.parametrize("options", [FACTORS, PRIOR], ids=["factors", "prior"])
def test_units_of_the_features_only_change_the_units_of_the_result(options, gaps):
    X, units = factor_rows(gaps=gaps), np.array([1e3, 1.0, 1e-3, 7.0, 0.1, 50.0])
    first, second = (converged(options, rows) for rows in (X, X * units))
    close = {"rtol": 1e-4, "atol": 1e-5}
    np.testing.assert_allclose(second.noise_variance_ / units**2, first.noise_variance_, rtol=1e-4)
    np.testing.assert_allclose(second.mean_ / units, first.mean_, rtol=1e-5)
    sign = np.sign(np.sum(second.loadings_ / units[:, None] * first.loadings_, axis=0))
    np.testing.assert_allclose(sign * second.loadings_ / units[:, None], first.loadings_, **close)
    np.testing.assert_allclose(sign * second.transform(X * units), first.transform(X), **close)
    np.testing.assert_allclose(second.impute(X * units) / units, first.impute(X), **close)
    change = np.sum(~np.isnan(X) * np.log(units), axis=1)
    np.testing.assert_allclose(
        second.score_samples(X * units) + change, first.score_samples(X), rtol=1e-4, atol=1e-4
    )


@every_model
@every_gap
def test_weights_are_copies_of_rows(options, gaps):
    X = factor_rows(gaps=gaps)
    weight = np.random.default_rng(0).integers(0, 3, 80).astype(float)
    weight[:40] = 1
    weighted = converged(options, X, sample_weight=weight)
    copies = converged(options, np.repeat(X, weight.astype(int), axis=0))
    np.testing.assert_allclose(
        weighted.get_covariance(), copies.get_covariance(), rtol=1e-4, atol=1e-5
    )
    np.testing.assert_allclose(weighted.mean_, copies.mean_, rtol=1e-5)
    np.testing.assert_allclose(weighted.impute(X), copies.impute(X), rtol=1e-4)
    assert weighted.n_samples_ == weight.sum()


@every_model
def test_rows_without_any_value_change_nothing_but_the_number_of_rows(options):
    X = factor_rows(gaps=0.2)
    model = model_of(options).fit(X)
    longer = model_of(options).fit(np.vstack([X, np.full((3, 6), np.nan)]))
    np.testing.assert_allclose(longer.loadings_, model.loadings_, rtol=1e-6)
    np.testing.assert_allclose(longer.noise_variance_, model.noise_variance_, rtol=1e-6)
    assert longer.n_samples_ == 83


@every_model
@every_gap
def test_float32_rows_give_the_model_of_float64_rows(options, gaps):
    X = factor_rows(gaps=gaps)
    exact, found = (model_of(options).fit(X.astype(t)) for t in (np.float64, np.float32))
    names = ("loadings_", "components_", "axes_", "mean_", "explained_variance_")
    for name in names:
        assert getattr(found, name).dtype == np.float32, name
        np.testing.assert_allclose(getattr(found, name), getattr(exact, name), rtol=2e-3, atol=2e-3)
    np.testing.assert_allclose(found.noise_variance_, exact.noise_variance_, rtol=2e-3)
    assert found.transform(X.astype(np.float32)).dtype == np.float32
    np.testing.assert_allclose(found.score(X.astype(np.float32)), exact.score(X), rtol=1e-4)


@every_model
@pytest.mark.parametrize("container", [sparse.csr_array, sparse.csc_matrix])
def test_sparse_rows_give_what_dense_rows_give(options, container):
    X = factor_rows() - 3.0
    X[np.abs(X) < 0.5] = 0.0
    dense, found = model_of(options).fit(X), model_of(options).fit(container(X))
    np.testing.assert_allclose(found.loadings_, dense.loadings_, rtol=1e-6, atol=1e-7)
    np.testing.assert_allclose(found.noise_variance_, dense.noise_variance_, rtol=1e-6)
    np.testing.assert_allclose(found.transform(container(X)), dense.transform(X), atol=1e-6)
    np.testing.assert_allclose(found.score_samples(container(X)), dense.score_samples(X), rtol=1e-6)


@every_model
@every_gap
def test_rows_in_blocks_have_the_model_of_rows_in_memory(options, gaps):
    X = factor_rows(gaps=gaps)
    exact, found = model_of(options).fit(X), model_of(options).fit(da.from_array(X, chunks=(30, 6)))
    close = {"rtol": 1e-6, "atol": 1e-7}
    np.testing.assert_allclose(found.loadings_, exact.loadings_, **close)
    np.testing.assert_allclose(found.noise_variance_, exact.noise_variance_, **close)
    np.testing.assert_allclose(found.mean_, exact.mean_, **close)


@every_model
@every_gap
def test_a_constant_feature_is_accepted_and_imputed_by_its_value(options, gaps):
    X = factor_rows(gaps=gaps)
    X[:, 3] = np.where(np.isnan(X[:, 3]), np.nan, 7.0)
    model = model_of(options).fit(X)
    row = np.array([[1.0, 2.0, 3.0, np.nan, 3.0, 3.0]])
    tolerance = 1.0 if options is SCALAR_PRIOR else 1e-3
    assert model.impute(row)[0, 3] == pytest.approx(7.0, abs=tolerance)
    assert np.isfinite(model.score(X))


@every_model
def test_a_hole_in_a_row_of_no_weight_leaves_the_fit_of_complete_rows(options):
    X = factor_rows()
    complete = model_of(options).fit(X)
    holed = np.vstack([X, X[:1]])
    holed[-1, 2] = np.nan
    model = model_of(options).fit(holed, sample_weight=np.r_[np.ones(80), 0.0])
    np.testing.assert_allclose(model.loadings_, complete.loadings_, rtol=1e-6, atol=1e-8)


@every_model
def test_complete_rows_have_the_model_of_rows_with_one_missing_value(options):
    """The sums from the covariance and those of rows with missing values give one model."""
    X = factor_rows(60)
    complete = converged(options, X)
    holed = np.vstack([X, np.full((1, 6), 3.0)])
    holed[-1, 2] = np.nan
    weight = np.r_[np.ones(60), 1e-9]
    model = converged(options, holed, sample_weight=weight)
    np.testing.assert_allclose(
        model.get_covariance(), complete.get_covariance(), rtol=1e-3, atol=1e-4
    )
    np.testing.assert_allclose(model.mean_, complete.mean_, rtol=1e-6)


# ---------------------------------------------------------------------------- rotations


@every_model
@every_gap
@every_rotation
def test_rotations_change_only_the_codes(options, gaps, rotation):
    X = factor_rows(gaps=gaps)
    plain, rotated = (model_of(options, 2, rotation=r).fit(X) for r in (None, rotation))
    np.testing.assert_allclose(rotated.score_samples(X), plain.score_samples(X), rtol=1e-9)
    np.testing.assert_allclose(rotated.get_covariance(), plain.get_covariance(), rtol=1e-9)
    np.testing.assert_allclose(rotated.get_precision(), plain.get_precision(), rtol=1e-8)
    np.testing.assert_allclose(rotated.impute(X), plain.impute(X), rtol=1e-9)
    np.testing.assert_allclose(rotated.reconstruct(X), plain.reconstruct(X), rtol=1e-9)
    np.testing.assert_allclose(rotated.explained_variance_, plain.explained_variance_, rtol=1e-9)
    np.testing.assert_allclose(np.abs(rotated.axes_), np.abs(plain.axes_), atol=1e-9)
    turn = np.linalg.lstsq(plain.loadings_, rotated.loadings_)[0]
    np.testing.assert_allclose(turn.T @ turn, np.eye(2), atol=1e-9)
    np.testing.assert_allclose(rotated.transform(X), plain.transform(X) @ turn, atol=1e-9)
    means, covariances = plain.posterior(X)
    found_means, found = rotated.posterior(X)
    np.testing.assert_allclose(found_means, means @ turn, atol=1e-9)
    np.testing.assert_allclose(found, turn.T @ covariances @ turn, atol=1e-9)


@every_gap
@every_rotation
def test_rotations_of_one_noise_variance_change_only_the_codes(gaps, rotation):
    X = factor_rows(gaps=gaps)
    plain, rotated = (model_of({}, rotation=r).fit(X) for r in (None, rotation))
    for name in ("score_samples", "impute", "reconstruct"):
        np.testing.assert_allclose(getattr(rotated, name)(X), getattr(plain, name)(X), rtol=1e-9)
    np.testing.assert_allclose(rotated.get_covariance(), plain.get_covariance(), rtol=1e-9)
    np.testing.assert_array_equal(rotated.axes_, plain.axes_)
    turn = np.linalg.lstsq(plain.loadings_, rotated.loadings_)[0]
    np.testing.assert_allclose(rotated.transform(X), plain.transform(X) @ turn, atol=1e-9)
    np.testing.assert_allclose(
        rotated.sample(3, random_state=0).mean(axis=0), plain.mean_, atol=10.0
    )


@every_rotation
def test_rotated_loadings_are_those_of_scikit_learn(rotation):
    X = factor_rows(400, 9, 3, seed=2)
    other = FactorAnalysis(
        3, tol=1e-12, max_iter=20_000, svd_method="lapack", rotation=rotation
    ).fit(X)
    model = converged(FACTORS, X, 3, rotation=rotation)
    overlap = np.abs(model.components_ @ other.components_.T)
    order = np.argmax(overlap, axis=1)
    assert sorted(order) == [0, 1, 2]
    expected = other.components_[order]
    expected *= np.sign(np.sum(expected * model.components_, axis=1))[:, None]
    np.testing.assert_allclose(model.components_, expected, atol=5e-3)


# ------------------------------------------------------------------------ sizes and choices


@every_model
def test_default_sizes(options):
    model = model_of(options, None, tol=0.1).fit(factor_rows(80, 6, 2))
    most = 5
    if options is FACTORS:
        # Three factors have as many parameters as the covariance of six features.
        most = 3
        assert model.n_components_ == most
    assert 1 <= model.n_components_ <= most


@every_model
@pytest.mark.parametrize("n_components", [0.9, "mle", "bic"])
def test_sizes_by_rule_are_refused(options, n_components):
    name = "noise_variance" if options is FACTORS else "loadings_prior"
    with pytest.raises(ValueError, match=rf"n_components={n_components!r} .* {name}="):
        model_of(options, n_components).fit(factor_rows())


@every_model
@every_gap
@pytest.mark.parametrize("solver", ["closed_form", "randomized"])
def test_solvers_of_one_noise_variance_are_refused(options, gaps, solver):
    with pytest.raises(ValueError, match=f"solver='{solver}' .*must be 'auto' or 'em'"):
        model_of(options, solver=solver).fit(factor_rows(gaps=gaps))


@every_model
def test_more_components_than_features_are_refused(options):
    with pytest.raises(ValueError, match=r"n_components=7 must be between 1 and .*=6"):
        model_of(options, 7).fit(factor_rows())


@pytest.mark.parametrize("name", ["noise_variance", "loadings_prior", "rotation"])
def test_unknown_choices_are_refused(name):
    with pytest.raises(ValueError, match=f"'{name}' parameter of PPCA must be"):
        PPCA(2, **{name: "unknown"}).fit(factor_rows())


@every_model
@every_gap
def test_em_that_stops_early_warns(options, gaps):
    with pytest.warns(ConvergenceWarning, match="max_iter=1"):
        model = model_of(options, max_iter=1, tol=1e-12).fit(factor_rows(gaps=gaps))
    assert model.n_iter_ == 1


# ------------------------------------------------------------- smaller models, and searches


@every_model
def test_models_with_other_axes_for_each_size_are_not_truncated(options):
    model = model_of(options).fit(factor_rows())
    with pytest.raises(ValueError, match="Fit a PPCA with n_components=1"):
        model.truncate(1)


@every_rotation
def test_rotated_models_of_one_noise_variance_are_truncated_as_they_are_fitted(rotation):
    X = factor_rows(80, 6, 3)
    smaller = PPCA(3, rotation=rotation).fit(X).truncate(2)
    expected = PPCA(2, rotation=rotation).fit(X)
    for name in ("loadings_", "components_", "axes_", "noise_variance_", "explained_variance_"):
        np.testing.assert_allclose(getattr(smaller, name), getattr(expected, name), atol=1e-8)
    np.testing.assert_allclose(smaller.transform(X), expected.transform(X), atol=1e-8)
    np.testing.assert_allclose(smaller.score_samples(X), expected.score_samples(X), rtol=1e-9)


@pytest.mark.filterwarnings("ignore:The noise variance of")  # some folds are Heywood cases
@every_gap
@pytest.mark.parametrize(
    "options", [*OPTIONS, {"rotation": "varimax"}], ids=["factors", "prior", "scalar", "rotated"]
)
def test_searches_give_the_scores_of_separate_fits(options, gaps):
    X = factor_rows(120, gaps=gaps)
    sizes = {"n_components": [1, 2]}
    found, expected = (
        search(model_of(options, tol=1e-6), sizes, cv=3).fit(X)
        for search in (GridSearchCV, ReferenceSearch)
    )
    np.testing.assert_allclose(
        found.cv_results_["mean_test_score"], expected.cv_results_["mean_test_score"], rtol=1e-4
    )
    assert found.best_params_ == expected.best_params_
    np.testing.assert_allclose(found.score(X), expected.score(X), rtol=1e-6)


# -------------------------------------------------------------------------------- files


@every_model
@every_gap
@pytest.mark.parametrize("through", [through_pickle, through_joblib, through_skops])
def test_saved_models_are_the_same(options, gaps, through, tmp_path):
    X = factor_rows(gaps=gaps)
    model = model_of(options, rotation="varimax").fit(X)
    loaded = through(model, tmp_path / "model")
    holed = factor_rows(gaps=0.3, seed=4)
    for name in ("transform", "score_samples", "impute"):
        np.testing.assert_array_equal(getattr(loaded, name)(holed), getattr(model, name)(holed))
    draws = (m.impute(holed, n_draws=2, random_state=0) for m in (loaded, model))
    np.testing.assert_array_equal(*draws)


@every_gap
def test_files_without_the_new_parameters_load(gaps):
    X = factor_rows(gaps=gaps)
    model = PPCA(2, random_state=0).fit(X)
    state = model.__getstate__()
    for name in ("noise_variance", "loadings_prior", "rotation", "_rotation", "_spread"):
        del state[name]
    loaded = PPCA.__new__(PPCA)
    loaded.__setstate__(state)
    assert loaded.get_params() == model.get_params()
    for name in ("transform", "score_samples", "impute"):
        np.testing.assert_array_equal(getattr(loaded, name)(X), getattr(model, name)(X))
    assert loaded.fit(X).score(X) == pytest.approx(model.score(X))


@pytest.mark.parametrize(
    "params", [{"n_components": 2, "noise_variance": "per_feature"}, {"loadings_prior": "ard"}]
)
def test_units_do_not_matter_where_no_covariance_is_computed(monkeypatch, params):
    """With many features, the start of EM uses products with the rows."""
    X = low_rank_rows(200, 7, scales=(4.0, 2.0), gaps=0.2)
    units = np.geomspace(1e-4, 1e4, 7)
    for module in (em_starts, _gaussian_learning):
        monkeypatch.setattr(module, "MOST_FEATURES_OF_PAIRS", 6)
    model = PPCA(random_state=0, **params).fit(X)
    scaled = PPCA(random_state=0, **params).fit(X * units)
    np.testing.assert_allclose(scaled.noise_variance_, model.noise_variance_ * units**2, rtol=1e-6)
    np.testing.assert_allclose(scaled.transform(X * units), model.transform(X), atol=1e-6)
    monkeypatch.undo()
    by_pairs = PPCA(random_state=0, **params).fit(X)
    assert model.score(X) == pytest.approx(by_pairs.score(X), abs=0.02)
