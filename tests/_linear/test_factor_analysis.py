"""Factor analysis against densities of SciPy, finite differences and scikit-learn."""

import warnings

import numpy as np
import pytest
from scipy import optimize, sparse, stats
from sklearn.datasets import load_iris, load_wine
from sklearn.decomposition import FactorAnalysis
from sklearn.exceptions import ConvergenceWarning

from skae._linear.factor_analysis import (
    FactorModel,
    Units,
    em_factors,
    em_step,
    fit_factors,
    lower_bounds,
    n_free_parameters,
    profile,
)
from skae._linear.moments import moments
from skae._linear.subspace import CentredRows, CentredScatter


def factor_rows(n_samples=500, n_features=12, n_factors=3, seed=0):
    """Rows of a factor model, with noise variances from 0.1 to 4."""
    rng = np.random.default_rng(seed)
    X = rng.normal(size=(n_samples, n_factors)) @ rng.normal(size=(n_factors, n_features))
    noise = np.geomspace(0.1, 4, n_features)[rng.permutation(n_features)]
    return X + np.sqrt(noise) * rng.normal(size=X.shape) + rng.normal(size=n_features)


def heywood_rows():
    """Rows with the correlations of loadings (1.2, 0.6, 0.6, 0.6), of which the first exceeds 1."""
    loadings = np.array([1.2, 0.6, 0.6, 0.6])
    S = np.outer(loadings, loadings)
    np.fill_diagonal(S, 1.0)
    X = np.random.default_rng(1).normal(size=(400, 4))
    white = (X - X.mean(axis=0)) @ np.linalg.inv(np.linalg.cholesky(covariance_of(X))).T
    return white @ np.linalg.cholesky(S).T


def covariance_of(X):
    return np.cov(X.T, bias=True)


def fitted(S, n_factors, *, floor=None, tol=1e-5, max_iter=1000):
    floor = 1e-12 * np.diag(S) if floor is None else floor
    return fit_factors(S, n_factors, floor=floor, tol=tol, max_iter=max_iter)


def em(rows, S, n_factors, *, seed=0, max_iter=1000, keeps_progress=False):
    return em_factors(
        rows,
        np.diag(S),
        n_factors,
        np.random.RandomState(seed),
        floor=1e-12 * np.diag(S),
        tol=1e-5,
        max_iter=max_iter,
        keeps_progress=keeps_progress,
    )


def mean_density(X, W, psi):
    """Mean log density of the rows, by SciPy."""
    covariance = stats.Covariance.from_cholesky(np.linalg.cholesky(W @ W.T + np.diag(psi)))
    return stats.multivariate_normal(X.mean(axis=0), covariance).logpdf(X).mean()


DATA = {
    "iris, 1": (load_iris().data, 1),
    "iris, 2": (load_iris().data, 2),
    "wine, 2": (load_wine().data, 2),
    "wine, 4": (load_wine().data, 4),
    "wine, 8": (load_wine().data, 8),
    "factors": (factor_rows(), 3),
    "few rows": (factor_rows(40, 60, 3), 3),
}
every_data = pytest.mark.parametrize(("X", "n_factors"), DATA.values(), ids=DATA)


# ------------------------------------------------------------------------- few features


@every_data
def test_the_likelihood_is_that_of_scipy_and_not_below_that_of_scikit_learn(X, n_factors):
    run = fitted(covariance_of(X), n_factors)
    assert run.ended_by == "convergence"
    found = run.log_likelihoods[-1]
    assert found == pytest.approx(mean_density(X, run.loadings, run.noise_variance), abs=1e-6)
    peer = FactorAnalysis(n_factors, tol=1e-10, svd_method="lapack", max_iter=3000)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", ConvergenceWarning)  # near the bounds, its EM is slow
        expected = peer.fit(X).score(X)
    assert found >= expected - 1e-7


def test_the_maximum_is_that_of_a_general_optimiser():
    """BFGS of SciPy over all loadings and noise variances, with gradients by differences."""
    X = factor_rows(200, 5, 1)
    S = covariance_of(X)

    def objective(parameters):
        W, psi = parameters[:5, None], np.exp(parameters[5:])
        C = W @ W.T + np.diag(psi)
        return np.linalg.slogdet(C).logabsdet + np.trace(np.linalg.solve(C, S))

    start = np.r_[np.sqrt(np.diag(S)) / 2, np.log(np.diag(S))]
    expected = optimize.minimize(objective, start, method="BFGS", options={"gtol": 1e-6})
    run = fitted(S, 1)
    nats = -0.5 * (expected.fun + 5 * np.log(2 * np.pi))
    assert run.log_likelihoods[-1] == pytest.approx(nats, abs=1e-8)
    np.testing.assert_allclose(run.noise_variance, np.exp(expected.x[5:]), rtol=1e-3)


@pytest.mark.parametrize("n_factors", [1, 3, 11, 12])
def test_the_gradient_is_that_of_central_differences(n_factors):
    S = covariance_of(factor_rows())
    psi = np.random.default_rng(2).uniform(0.2, 2, len(S))
    value, gradient = profile(S, psi, n_factors)
    for d, step in enumerate(1e-5 * np.eye(len(S))):
        ahead, behind = (profile(S, psi * np.exp(h * step), n_factors)[0] for h in (1, -1))
        assert gradient[d] == pytest.approx((ahead - behind) / 2e-5, rel=1e-6, abs=1e-6)
    assert np.isfinite(value)


@every_data
def test_loadings_have_their_documented_form(X, n_factors):
    run = fitted(covariance_of(X), n_factors)
    weighted = run.loadings / np.sqrt(run.noise_variance)[:, None]
    squares = weighted.T @ weighted
    lengths = np.diag(squares)
    assert np.all(np.diff(lengths) <= 0)
    np.testing.assert_allclose(squares, np.diag(lengths), atol=1e-7 * lengths.max())
    highest = np.abs(weighted).argmax(axis=0)
    assert np.all(weighted[highest, np.arange(n_factors)] > 0)


def test_true_parameters_are_recovered_from_many_rows():
    X = factor_rows(100_000, 12, 3)
    run = fitted(covariance_of(X), 3)
    noise = np.geomspace(0.1, 4, 12)
    np.testing.assert_allclose(np.sort(run.noise_variance), noise, rtol=0.1)


def test_likelihoods_increase_from_the_first_to_the_last():
    run = fitted(covariance_of(factor_rows()), 3)
    assert np.all(np.diff(run.log_likelihoods) >= 0)
    few = fitted(covariance_of(factor_rows()), 3, max_iter=3)
    assert few.ended_by == "max_iter"
    assert few.log_likelihoods == run.log_likelihoods[:3]


@pytest.mark.parametrize("tol", [1e-5, 1e-8])
def test_a_heywood_case_ends_at_the_lower_bound(tol):
    """Feature 0 is then the factor, and the others are regressions on it."""
    X = heywood_rows()
    S = covariance_of(X)
    floor = 1e-3 * np.diag(S)
    for given in (floor, None):
        run = fitted(S, 1, floor=given, tol=tol)
        np.testing.assert_array_equal(run.floored, [True, False, False, False])
        least = floor[0] if given is not None else lower_bounds(np.diag(S), 0 * floor)[0]
        assert run.noise_variance[0] == least
        rest = X[:, 1:] - np.outer(X[:, 0], S[1:, 0] / S[0, 0])
        np.testing.assert_allclose(run.noise_variance[1:], rest.var(axis=0), rtol=2 * least + 1e-4)


def test_equal_features_end_at_the_lower_bound_of_at_least_one():
    X = factor_rows()
    X[:, 1] = 3 * X[:, 0] + 5
    run = fitted(covariance_of(X), 4)
    assert run.floored[:2].any()
    assert not run.floored[2:].any()
    assert np.isfinite(run.loadings).all()


def test_features_without_variance_have_the_noise_variance_of_their_floor():
    X = factor_rows()
    expected = fitted(covariance_of(X), 3)
    X = np.insert(X, 4, 7.0, axis=1)
    S = covariance_of(X)
    run = fitted(S, 3, floor=np.full(13, 1e-10))
    assert run.floored[4]
    assert run.noise_variance[4] == 1e-10
    assert np.abs(run.loadings[4]).max() < 1e-12
    np.testing.assert_allclose(np.delete(run.loadings, 4, axis=0), expected.loadings, atol=1e-4)
    assert np.isfinite(fitted(np.zeros((3, 3)), 1, floor=np.ones(3)).log_likelihoods).all()


@pytest.mark.parametrize("n_factors", [9, 11, 12])
def test_with_many_factors_the_model_is_the_full_gaussian(n_factors):
    """From 9 factors of 12 features on, there are as many free parameters as covariances."""
    X = factor_rows()
    S = covariance_of(X)
    run = fitted(S, n_factors)
    W, psi = run.loadings, run.noise_variance
    full = -0.5 * (np.linalg.slogdet(S).logabsdet + 12 * np.log(2 * np.pi) + 12)
    assert full - 1e-3 < mean_density(X, W, psi) <= full + 1e-6
    if n_factors > 10:
        np.testing.assert_allclose(W @ W.T + np.diag(psi), S, atol=0.05 * np.abs(S).max())


@pytest.mark.parametrize("n_samples", [2, 5, 30])
@pytest.mark.parametrize("n_factors", [1, 4, 39])
def test_singular_covariances_are_accepted(n_samples, n_factors):
    X = factor_rows(n_samples, 40, 3)
    run = fitted(covariance_of(X), n_factors)
    assert np.isfinite(run.log_likelihoods).all()
    assert np.all(run.noise_variance > 0)
    found = mean_density(X, run.loadings, run.noise_variance)
    assert found == pytest.approx(run.log_likelihoods[-1], abs=1e-4)


def test_units_of_the_features_only_change_the_units_of_the_result():
    X = factor_rows()
    units = 10.0 ** np.random.default_rng(3).integers(-60, 60, 12)
    S = covariance_of(X)
    expected, run = fitted(S, 3), fitted(S * np.outer(units, units), 3)
    np.testing.assert_allclose(run.loadings / units[:, None], expected.loadings, rtol=1e-4)
    np.testing.assert_allclose(run.noise_variance / units**2, expected.noise_variance, rtol=1e-4)
    shift = np.log(units).sum()
    assert run.log_likelihoods[-1] + shift == pytest.approx(expected.log_likelihoods[-1])


# ------------------------------------------------------------------------ many features


@pytest.mark.parametrize("name", ["wine, 2", "factors", "few rows"])
@pytest.mark.parametrize("source", ["rows", "sparse rows", "moments"])
def test_em_increases_the_likelihood_to_the_same_maximum(name, source):
    X, n_factors = DATA[name]
    S = covariance_of(X)
    rows = {
        "rows": lambda: CentredRows(X, None, X.mean(axis=0)),
        "sparse rows": lambda: CentredRows(sparse.csr_array(X), None, X.mean(axis=0)),
        "moments": lambda: CentredScatter(moments(X), X),
    }[source]()
    run = em(rows, S, n_factors)
    assert run.ended_by == "convergence"
    assert np.all(np.diff(run.log_likelihoods) >= 0)
    expected = fitted(S, n_factors)
    assert run.log_likelihoods[-1] == pytest.approx(expected.log_likelihoods[-1], abs=1e-5)
    W, psi = run.state
    assert mean_density(X, W, psi) == pytest.approx(run.log_likelihoods[-1], abs=1e-8)
    np.testing.assert_allclose(psi, expected.noise_variance, rtol=0.02)
    np.testing.assert_allclose(W, expected.loadings, atol=0.02 * np.abs(W).max())


def test_a_step_of_em_is_that_of_a_loop_over_rows():
    """E[z | x] and cov[z | x] of each row, a regression on z, and a reduction to cov[z] = I."""
    X = factor_rows(50, 6, 2)
    S, centred = covariance_of(X), X - X.mean(axis=0)
    rng = np.random.default_rng(6)
    W, psi = rng.normal(size=(6, 2)), rng.uniform(0.5, 2, 6)
    units = Units(lambda V: S @ V, np.diag(S), np.full(6, 1e-8))
    found = em_step(units, FactorModel(W, psi))
    assert found.log_likelihood == pytest.approx(mean_density(X, W, psi), rel=1e-12)
    gain = W.T @ np.linalg.inv(W @ W.T + np.diag(psi))
    codes = np.array([gain @ x for x in centred])
    C = np.eye(2) - gain @ W + codes.T @ codes / len(X)
    regression = np.linalg.solve(C, codes.T @ centred / len(X)).T
    residual = (centred - codes @ regression.T) ** 2
    residual += np.sum(regression @ (np.eye(2) - gain @ W) * regression, axis=1)
    np.testing.assert_allclose(found.following.noise_variance, residual.mean(axis=0), rtol=1e-10)
    reduced = found.following.loadings
    np.testing.assert_allclose(reduced @ reduced.T, regression @ C @ regression.T, rtol=1e-8)


def test_a_step_of_em_respects_the_lower_bounds():
    S = covariance_of(factor_rows(50, 6, 2))
    lowest = np.diag(S) * np.array([2.0, 1e-8, 1e-8, 2.0, 1e-8, 1e-8])
    start = FactorModel(np.ones((6, 2)) * [1, -0.5], np.diag(S))
    found = em_step(Units(lambda V: S @ V, np.diag(S), lowest), start).following.noise_variance
    np.testing.assert_array_equal(found == lowest, [True, False, False, True, False, False])


@pytest.mark.parametrize("keeps", [True, False])
def test_an_interrupt_keeps_the_last_complete_step(keeps):
    X = factor_rows()
    S = covariance_of(X)

    class Interrupted(CentredRows):
        left = 8

        def pull_back(self, Y):
            self.left -= 1
            if self.left == 0:
                raise KeyboardInterrupt
            return super().pull_back(Y)

    rows = Interrupted(X, None, X.mean(axis=0))
    if not keeps:
        with pytest.raises(KeyboardInterrupt):
            em(rows, S, 3)
        return
    run = em(rows, S, 3, keeps_progress=True)
    assert run.ended_by == "interrupt"
    expected = em(CentredRows(X, None, X.mean(axis=0)), S, 3, max_iter=len(run.log_likelihoods))
    np.testing.assert_array_equal(run.state.loadings, expected.state.loadings)
    assert run.log_likelihoods == expected.log_likelihoods


def test_weights_count_copies_of_rows():
    X = factor_rows(120)
    counts = np.random.default_rng(4).integers(1, 4, len(X))
    copies = np.repeat(X, counts, axis=0)
    S, mean = covariance_of(copies), copies.mean(axis=0)
    weighted = em(CentredRows(X, counts.astype(float), mean), S, 3)
    expected = em(CentredRows(copies, None, mean), S, 3)
    np.testing.assert_allclose(weighted.log_likelihoods, expected.log_likelihoods, rtol=1e-8)
    np.testing.assert_allclose(weighted.state.loadings, expected.state.loadings, atol=1e-6)


def test_em_approaches_a_heywood_case():
    X = heywood_rows()
    S = covariance_of(X)
    run = em(CentredRows(X, None, X.mean(axis=0)), S, 1)
    assert run.state.noise_variance[0] < 1e-3
    assert run.log_likelihoods[-1] == pytest.approx(fitted(S, 1).log_likelihoods[-1], abs=1e-3)


def test_float32_rows_give_the_model_of_float64_rows():
    X = factor_rows()
    S = covariance_of(X)
    narrow = X.astype(np.float32)
    run = em(CentredRows(narrow, None, narrow.mean(axis=0, dtype=np.float64)), S, 3)
    assert run.ended_by == "convergence"
    assert np.all(np.diff(run.log_likelihoods) >= 0)
    expected = fitted(S, 3)
    assert run.log_likelihoods[-1] == pytest.approx(expected.log_likelihoods[-1], abs=1e-4)
    assert run.state.loadings.dtype == np.float64


@pytest.mark.parametrize("n_samples", [3, 20])
def test_em_accepts_more_factors_than_rows(n_samples):
    X = factor_rows(n_samples, 30, 3)
    run = em(CentredRows(X, None, X.mean(axis=0)), covariance_of(X), 10, max_iter=200)
    assert np.isfinite(run.log_likelihoods).all()
    assert np.all(np.diff(run.log_likelihoods) >= 0)


def test_units_of_the_features_only_change_the_units_of_the_result_of_em():
    X = factor_rows()
    units = 10.0 ** np.random.default_rng(3).integers(-60, 60, 12)
    expected, run = (
        em(CentredRows(Y, None, Y.mean(axis=0)), covariance_of(Y), 3) for Y in (X, X * units)
    )
    np.testing.assert_allclose(run.state.loadings / units[:, None], expected.state.loadings, 1e-4)
    psi = run.state.noise_variance / units**2
    np.testing.assert_allclose(psi, expected.state.noise_variance, rtol=1e-4)


def test_seeds_repeat_and_reach_the_same_likelihood():
    X = factor_rows()
    S, rows = covariance_of(X), CentredRows(X, None, X.mean(axis=0))
    runs = [em(rows, S, 3, seed=seed) for seed in (0, 0, 1, 2)]
    assert runs[0].log_likelihoods == runs[1].log_likelihoods
    assert np.ptp([run.log_likelihoods[-1] for run in runs]) < 1e-7
    assert em(rows, S, 3, max_iter=2).ended_by == "max_iter"


@pytest.mark.parametrize("n_factors", [1, 3, 5])
def test_free_parameters_are_the_dimensions_of_the_model(n_factors):
    """The rank of the Jacobian of the covariance, and the mean."""
    rng = np.random.default_rng(5)
    n_features = 12
    W = rng.normal(size=(n_features, n_factors))
    columns = []
    for d in range(n_features):
        columns.append(np.diag(np.eye(n_features)[d]).ravel())
        for j in range(n_factors):
            change = np.zeros_like(W)
            change[d, j] = 1
            columns.append((change @ W.T + W @ change.T).ravel())
    rank = np.linalg.matrix_rank(np.array(columns))
    assert n_free_parameters(n_features, n_factors) == rank + n_features
