"""PPCA of complete rows against dense formulas of Tipping and Bishop, SciPy and PCA."""

import tracemalloc
from itertools import pairwise

import numpy as np
import pandas as pd
import pytest
from scipy import sparse, stats
from sklearn.datasets import load_digits, load_iris, load_wine
from sklearn.decomposition import PCA
from sklearn.exceptions import ConvergenceWarning

from helpers import low_rank_rows
from skae import PPCA, _gaussian_learning
from skae._linear.moments import row_mean
from skae._linear.subspace import CentredRows, em_axes, mean_log_likelihood, noise_variance


def complete_rows(n_samples=60, n_features=6, **options):
    """Rows of a few factors of separated strength under noise."""
    return low_rank_rows(n_samples, n_features, **{"rank": 3, "noise": 0.4, **options})


def maximum_likelihood(X, n_components, weight=None):
    """W, mu, sigma2 by equations 7 and 8, from a dense covariance with 1/n; W up to signs."""
    mean = np.average(X, axis=0, weights=weight)
    covariance = np.cov(X.T, bias=True, aweights=weight)
    values, vectors = np.linalg.eigh(covariance)
    values, vectors = values[::-1], vectors[:, ::-1]
    noise = values[n_components:].mean()
    scales = np.sqrt(values[:n_components] - noise)
    return vectors[:, :n_components] * scales, mean, noise


def up_to_signs(W, like):
    return W * np.sign(np.sum(W * like, axis=0))


DATA = {
    "iris": load_iris().data,
    "wine": load_wine().data,
    "digits": load_digits().data[:300],
    "tall": complete_rows(500, 8),
    "wide": complete_rows(15, 40),
    "square": complete_rows(20, 20),
    "large mean": complete_rows(60, 6, mean=1e4),
}

every_data = pytest.mark.parametrize("X", DATA.values(), ids=DATA)


# ------------------------------------------------------------------- the closed form


@every_data
def test_the_closed_form_is_that_of_tipping_and_bishop(X):
    model = PPCA(2).fit(X)
    W, mean, noise = maximum_likelihood(X, 2)
    np.testing.assert_allclose(model.mean_, mean, rtol=1e-12)
    assert model.noise_variance_ == pytest.approx(noise, rel=1e-8)
    tolerance = 1e-8 * np.abs(W).max()
    np.testing.assert_allclose(model.loadings_, up_to_signs(W, model.loadings_), atol=tolerance)
    assert model.n_samples_ == len(X)
    assert model.n_iter_ == 1


@every_data
def test_axes_and_variances_are_pcas(X):
    """Signs too, and n - 1; each loading points along its axis."""
    model, pca = PPCA(2).fit(X), PCA(2, svd_solver="full").fit(X)
    np.testing.assert_allclose(model.axes_, pca.components_, atol=1e-7)
    np.testing.assert_allclose(model.explained_variance_, pca.explained_variance_, rtol=1e-8)
    ratio = pca.explained_variance_ratio_
    np.testing.assert_allclose(model.explained_variance_ratio_, ratio, rtol=1e-8)
    lengths = np.linalg.norm(model.loadings_, axis=0)
    np.testing.assert_allclose(model.loadings_, model.axes_.T * lengths, rtol=1e-10)
    assert lengths[0] > lengths[1]


def test_no_model_nearby_is_more_likely():
    """Random steps of W, mu and sigma2 away from the fit lower SciPy's log-likelihood."""
    X = complete_rows()
    model = PPCA(2).fit(X)
    best = model.score(X)
    rng = np.random.default_rng(0)
    for _ in range(200):
        W = model.loadings_ + 0.02 * rng.normal(size=(6, 2))
        mean = model.mean_ + 0.02 * rng.normal(size=6)
        noise = model.noise_variance_ * np.exp(0.05 * rng.normal())
        covariance = W @ W.T + noise * np.eye(6)
        assert stats.multivariate_normal(mean, covariance).logpdf(X).mean() < best


@pytest.mark.parametrize("n_components", [1, 3, 5])
@every_data
def test_scores_are_scipys(X, n_components):
    if n_components >= X.shape[1]:
        n_components = X.shape[1] - 1
    model = PPCA(n_components).fit(X)
    C = model.loadings_ @ model.loadings_.T + model.noise_variance_ * np.eye(X.shape[1])
    expected = stats.multivariate_normal(model.mean_, C).logpdf(X)
    np.testing.assert_allclose(model.score_samples(X), expected, rtol=1e-7)
    np.testing.assert_allclose(model.get_covariance(), C, rtol=0, atol=1e-10 * np.trace(C))


@every_data
def test_precision_is_the_inverse_of_the_covariance(X):
    model = PPCA(2).fit(X)
    product = model.get_precision() @ model.get_covariance()
    np.testing.assert_allclose(product, np.eye(X.shape[1]), atol=1e-6)


def test_precision_is_the_inverse_when_all_components_are_kept():
    with pytest.warns(UserWarning, match="raised to its lower bound"):
        model = PPCA(6).fit(complete_rows())
    product = model.get_precision() @ model.get_covariance()
    np.testing.assert_allclose(product, np.eye(6), atol=1e-8)


@every_data
def test_codes_are_the_means_of_bayes_rule(X):
    """M^-1 W'(x - mu), and their covariance sigma2 M^-1."""
    model = PPCA(2).fit(X)
    W, noise = model.loadings_, model.noise_variance_
    M = W.T @ W + noise * np.eye(2)
    codes = np.linalg.solve(M, W.T @ (X - X.mean(axis=0)).T).T
    np.testing.assert_allclose(model.transform(X), codes, rtol=1e-7, atol=1e-8)
    means, covariances = model.posterior(X)
    np.testing.assert_array_equal(means, model.transform(X))
    assert covariances.shape == (len(X), 2, 2)
    expected = np.broadcast_to(noise * np.linalg.inv(M), covariances.shape)
    np.testing.assert_allclose(covariances, expected, rtol=1e-8, atol=1e-12)


def test_the_posterior_is_the_joint_gaussian_conditioned_on_the_row():
    """With the dense covariance of (z, x), whatever Woodbury says."""
    X = complete_rows()
    model = PPCA(3).fit(X)
    joint = np.block([[np.eye(3), model.loadings_.T], [model.loadings_, model.get_covariance()]])
    gain = joint[:3, 3:] @ np.linalg.inv(joint[3:, 3:])
    means, covariances = model.posterior(X)
    np.testing.assert_allclose(means, (X - model.mean_) @ gain.T, atol=1e-10)
    np.testing.assert_allclose(covariances[7], np.eye(3) - gain @ joint[3:, :3], atol=1e-10)


def test_codes_are_pcas_on_the_scale_of_the_prior():
    """Their variance is 1 - sigma2 / lambda, with lambda of the covariance with 1/n."""
    X = complete_rows()
    model, pca = PPCA(3).fit(X), PCA(3).fit(X)
    values, noise = pca.explained_variance_ * 59 / 60, model.noise_variance_
    codes = model.transform(X)
    np.testing.assert_allclose(np.var(codes, axis=0), 1 - noise / values, rtol=1e-10)
    expected = pca.transform(X) * np.sqrt(values - noise) / values
    np.testing.assert_allclose(codes, expected, atol=1e-10)


def test_decoded_codes_are_the_means_of_the_rows():
    X = complete_rows()
    model = PPCA(3).fit(X)
    Z = np.random.default_rng(0).normal(size=(10, 3))
    expected = Z @ model.loadings_.T + model.mean_
    np.testing.assert_allclose(model.inverse_transform(Z), expected, atol=1e-12)
    reconstructed = model.transform(X) @ model.loadings_.T + model.mean_
    np.testing.assert_allclose(model.reconstruct(X), reconstructed, atol=1e-12)


def test_samples_have_the_moments_of_the_model():
    model = PPCA(3).fit(complete_rows())
    n = 40_000
    rows, covariance = model.sample(n, random_state=0), model.get_covariance()
    spread = np.diag(covariance)
    assert np.all(np.abs(rows.mean(axis=0) - model.mean_) < 5 * np.sqrt(spread / n))
    error = 5 * np.sqrt((covariance**2 + np.outer(spread, spread)) / n)
    assert np.all(np.abs(np.cov(rows.T) - covariance) < error)
    means = model.sample(50, noise=False, random_state=0) - model.mean_
    inside = means @ model.axes_.T @ model.axes_
    np.testing.assert_allclose(means, inside, atol=1e-12)


def test_the_parameters_of_a_known_model_are_recovered():
    """From many rows drawn with SciPy; W up to rotation."""
    rng = np.random.default_rng(0)
    W, mean, noise = rng.normal(size=(5, 2)), rng.normal(size=5), 0.5
    C = W @ W.T + noise * np.eye(5)
    X = stats.multivariate_normal(mean, C, seed=0).rvs(40_000)
    model = PPCA(2).fit(X)
    np.testing.assert_allclose(model.mean_, mean, atol=0.05)
    assert model.noise_variance_ == pytest.approx(noise, rel=0.02)
    np.testing.assert_allclose(model.loadings_ @ model.loadings_.T, W @ W.T, atol=0.1)


@pytest.mark.parametrize("n_components", [1, 2, 4])
def test_information_criteria_are_their_definitions(n_components):
    """Free parameters counted by hand for six features: 6 of the mean, 1 of the noise, and
    6 k of the loadings less the k (k - 1) / 2 angles of a rotation of the codes."""
    X, other = complete_rows(), complete_rows(25, seed=1)
    model = PPCA(n_components).fit(X)
    free = {1: 6 + 1 + 6, 2: 6 + 1 + 12 - 1, 4: 6 + 1 + 24 - 6}[n_components]
    for rows in (X, other):
        gaussian = stats.multivariate_normal(model.mean_, model.get_covariance())
        deviance = -2 * gaussian.logpdf(rows).sum()
        assert model.aic(rows) == pytest.approx(deviance + 2 * free, rel=1e-10)
        assert model.bic(rows) == pytest.approx(deviance + np.log(len(rows)) * free, rel=1e-10)


# ---------------------------------------------------------------------- the latent size


@pytest.mark.parametrize(
    ("shape", "expected"), [((60, 6), 5), ((5, 20), 4), ((2, 5), 1), ((9, 1), 1), ((2, 1), 1)]
)
@pytest.mark.filterwarnings("ignore:The noise variance was raised:UserWarning")
def test_the_default_size_leaves_one_direction_to_the_noise(shape, expected):
    """min(n, D) - 1, at least 1: one feature or two rows too."""
    X = complete_rows(shape[0], max(shape[1], 3))[:, : shape[1]]
    model = PPCA().fit(X)
    assert model.n_components_ == expected
    assert np.isfinite(model.score(X))


@pytest.mark.parametrize("n_components", [0.3, 0.8, 0.95, "mle"])
@pytest.mark.parametrize("name", ["iris", "wine", "digits", "tall"])
def test_the_size_by_share_or_evidence_is_pcas(name, n_components):
    X = DATA[name][:, DATA[name].var(axis=0) > 0]  # log 0 of a constant column is rounding
    expected = PCA(n_components, svd_solver="full").fit(X).n_components_
    assert PPCA(n_components).fit(X).n_components_ == expected


@pytest.mark.parametrize("rank", [1, 2, 4])
@pytest.mark.parametrize("n_components", ["mle", "bic"])
@pytest.mark.parametrize("n_features", [10, 40])
def test_a_known_rank_is_recovered(n_features, n_components, rank):
    X = complete_rows(400, n_features, rank=rank)
    model = PPCA(n_components).fit(X)
    assert model.n_components_ == rank
    assert model.noise_variance_ == pytest.approx(0.16, rel=0.05)


def test_bic_recovers_a_known_rank_from_fewer_rows_than_features():
    assert PPCA("bic").fit(complete_rows(60, 200, rank=3)).n_components_ == 3


@pytest.mark.parametrize("name", ["iris", "wine", "tall"])
def test_bic_chooses_the_least_bic(name):
    X = DATA[name]
    bics = [PPCA(k).fit(X).bic(X) for k in range(1, X.shape[1])]
    model = PPCA("bic").fit(X)
    assert model.n_components_ == 1 + int(np.argmin(bics))
    assert model.bic(X) == pytest.approx(min(bics), rel=1e-10)


@pytest.mark.parametrize("n_components", [2, None, 0.8, "mle", "bic"])
def test_weights_count_rows_in_the_size(n_components):
    X = complete_rows(30)
    repeats = np.random.default_rng(0).integers(0, 4, 30)
    expected = PPCA(n_components).fit(np.repeat(X, repeats, axis=0))
    model = PPCA(n_components).fit(X, sample_weight=repeats)
    assert model.n_components_ == expected.n_components_
    np.testing.assert_allclose(model.loadings_, expected.loadings_, atol=1e-8)
    assert model.noise_variance_ == pytest.approx(expected.noise_variance_, rel=1e-8)


# --------------------------------------------------------------------------- bad input


@pytest.mark.parametrize("shape", [(20, 4), (4, 20)])
def test_more_components_than_rows_or_features_are_refused(shape):
    with pytest.raises(ValueError, match=r"n_components=5 .*=4"):
        PPCA(5).fit(complete_rows(*shape))
    with pytest.raises(ValueError, match=r"n_components=3 .*=2"):
        PPCA(3).fit(complete_rows(*shape)[:2])


def test_evidence_needs_more_rows_than_features():
    with pytest.raises(ValueError, match=r"'mle'.*n_samples=10 and n_features=20"):
        PPCA("mle").fit(complete_rows(10, 20))


@pytest.mark.parametrize("solver", ["em", "randomized"])
@pytest.mark.parametrize("n_components", [0.9, "mle", "bic"])
def test_a_size_from_the_spectrum_needs_the_closed_form(n_components, solver):
    with pytest.raises(ValueError, match=f"n_components={n_components!r}.*solver='{solver}'"):
        PPCA(n_components, solver=solver).fit(complete_rows())


@pytest.mark.parametrize("solver", ["closed_form", "randomized"])
def test_missing_values_need_em(solver):
    X = complete_rows()
    X[0, 0] = np.nan
    with pytest.raises(ValueError, match=f"NaN.*solver='{solver}'"):
        PPCA(2, solver=solver).fit(X)


def test_columns_never_seen_are_named():
    X = complete_rows()
    X[:, [1, 4]] = np.nan
    with pytest.raises(ValueError, match=r"Columns \[1, 4\] of X are NaN in every row"):
        PPCA(2).fit(X)
    frame = pd.DataFrame(X, columns=list("abcdef"))
    with pytest.raises(ValueError, match=r"Columns \['b', 'e'\] of X are NaN"):
        PPCA(2).fit(frame)


def test_columns_seen_only_in_rows_of_no_weight_are_named():
    X, weight = complete_rows(), np.ones(60)
    X[3:, 1] = np.nan
    weight[:3] = 0
    with pytest.raises(ValueError, match=r"Columns \[1\] of X are NaN"):
        PPCA(2).fit(X, sample_weight=weight)


def test_sparse_rows_have_no_missing_values():
    X = complete_rows()
    X[0, 0] = np.nan
    with pytest.raises(ValueError, match="Sparse X contains NaN"):
        PPCA(2).fit(sparse.csr_array(X))
    model = PPCA(2).fit(complete_rows())
    for method in (model.transform, model.score_samples, model.posterior):
        with pytest.raises(ValueError, match="Sparse X contains NaN"):
            method(sparse.csr_array(X))
    with pytest.raises(TypeError, match="X must be dense rows"):
        model.impute(sparse.csr_array(complete_rows()))


@pytest.mark.parametrize("total", [0.5, 1.0])
def test_weights_of_less_than_two_rows_are_refused(total):
    with pytest.raises(ValueError, match=f"sample_weight adds up to {total:g}"):
        PPCA(1).fit(complete_rows(20), sample_weight=np.full(20, total / 20))


# --------------------------------------------------------------------------- solvers


def assert_same_model(actual, expected, X, tol):
    """Loadings, mean and noise within tol of their scale, scores within tol nats."""
    scale = np.abs(expected.loadings_).max()
    np.testing.assert_allclose(actual.loadings_, expected.loadings_, atol=tol * scale)
    np.testing.assert_allclose(actual.mean_, expected.mean_, rtol=tol, atol=tol * scale)
    assert actual.noise_variance_ == pytest.approx(expected.noise_variance_, rel=tol)
    names = ("explained_variance_", "explained_variance_ratio_")
    for name in names:
        np.testing.assert_allclose(getattr(actual, name), getattr(expected, name), rtol=tol)
    assert actual.score(X) == pytest.approx(expected.score(X), abs=tol * max(1.0, X.shape[1]))


@pytest.mark.parametrize("weighted", [False, True])
@pytest.mark.parametrize("n_components", [1, 3])
@every_data
def test_em_reaches_the_closed_form(X, n_components, weighted):
    weight = np.random.default_rng(0).uniform(0, 3, len(X)) if weighted else None
    expected = PPCA(n_components, solver="closed_form").fit(X, sample_weight=weight)
    for seed in (0, 1):
        model = PPCA(n_components, solver="em", random_state=seed).fit(X, sample_weight=weight)
        assert_same_model(model, expected, X, 1e-6)


@pytest.mark.parametrize("solver", ["closed_form", "em", "randomized"])
@pytest.mark.parametrize("container", [sparse.csr_array, sparse.csc_array])
@pytest.mark.parametrize("shape", [(80, 10), (20, 60)])
@pytest.mark.parametrize("weighted", [False, True])
def test_sparse_rows_give_what_dense_rows_give(shape, container, solver, weighted):
    X = complete_rows(*shape, mean=0.0)
    X[np.random.default_rng(0).random(shape) < 0.5] = 0.0
    weight = np.random.default_rng(0).uniform(0, 3, shape[0]) if weighted else None
    params = {"n_components": 2, "solver": solver, "random_state": 0}
    expected = PPCA(**params).fit(X, sample_weight=weight)
    model = PPCA(**params).fit(container(X), sample_weight=weight)
    assert_same_model(model, expected, X, 1e-6)
    for method in ("transform", "score_samples", "reconstruct"):
        found = getattr(model, method)(container(X))
        np.testing.assert_allclose(found, getattr(expected, method)(X), rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize("solver", ["closed_form", "em", "randomized"])
@pytest.mark.parametrize("shape", [(500, 8), (15, 40)])
def test_float32_rows_keep_float32_precision(shape, solver):
    X = complete_rows(*shape)
    expected = PPCA(2).fit(X)
    model = PPCA(2, solver=solver, random_state=0).fit(X.astype(np.float32))
    assert model.loadings_.dtype == model.mean_.dtype == np.float32
    assert_same_model(model, expected, X.astype(np.float32), 2e-3)


@every_data
def test_randomized_comes_close(X):
    """In the likelihood; the spectrum of noise is flat, and its axes are poorly told apart."""
    expected = PPCA(3, solver="closed_form").fit(X)
    model = PPCA(3, solver="randomized", random_state=0).fit(X)
    assert model.score(X) <= expected.score(X) + 1e-8
    assert model.score(X) == pytest.approx(expected.score(X), abs=1e-3 * X.shape[1])
    variances = expected.explained_variance_
    np.testing.assert_allclose(model.explained_variance_, variances, rtol=1e-2)


@pytest.mark.parametrize("n_components", [1, 2, 4])
@every_data
def test_em_is_monotone_and_ends_at_the_score(X, n_components):
    n_components = min(n_components, X.shape[1] - 1)
    model = PPCA(n_components, solver="em", random_state=0).fit(X)
    history = model.log_likelihoods_
    assert len(history) == model.n_iter_
    assert np.all(np.diff(history) > -1e-9 * np.abs(history[1:]))
    assert history[-1] == pytest.approx(model.score(X), rel=1e-8)


def test_a_step_of_em_gains_at_least_what_plain_em_gains():
    """Tipping and Bishop's EM with sigma2 at its optimum only sees the span of S W."""
    X = complete_rows(100, 12, rank=4, noise=1.0)
    covariance = np.cov(X.T, bias=True)
    trace = np.trace(covariance)

    def likelihood(span):
        basis = np.linalg.qr(span)[0]
        values = np.linalg.eigvalsh(basis.T @ covariance @ basis)[::-1]
        return mean_log_likelihood(values, trace, 12), basis

    span = covariance @ np.random.RandomState(0).standard_normal((12, 3))
    plain = []
    for _ in range(6):
        value, span = likelihood(span)
        plain.append(value)
        span = covariance @ span
    rows = CentredRows(X, None, X.mean(axis=0))
    _, (_, history, ended_by) = em_axes(rows, 3, np.random.RandomState(0), 6)
    assert ended_by == "max_iter"
    assert history[0] == pytest.approx(plain[0], rel=1e-10)
    assert np.all(np.array(history) >= np.array(plain) - 1e-10)
    assert history[-1] > plain[-1]


def test_mean_log_likelihood_is_scipys_at_the_maximum():
    X = complete_rows()
    values = np.linalg.eigvalsh(np.cov(X.T, bias=True))[::-1]
    for k in range(1, 6):
        W, mean, noise = maximum_likelihood(X, k)
        gaussian = stats.multivariate_normal(mean, W @ W.T + noise * np.eye(6))
        found = mean_log_likelihood(values[:k], values.sum(), 6)
        assert found == pytest.approx(gaussian.logpdf(X).mean(), rel=1e-12)
        assert noise_variance(values[:k], values.sum(), 6) == pytest.approx(noise, rel=1e-12)


def test_an_axis_weaker_than_the_noise_is_left_to_the_noise():
    """In a span that is not the top one: W's column is zero there, as eq. 7 has it."""
    values, trace = np.array([5.0, 0.1]), 5.0 + 0.1 + 4 * 1.0
    alone = mean_log_likelihood(values[:1], trace, 6)
    assert mean_log_likelihood(values, trace, 6) == pytest.approx(alone, rel=1e-12)


@pytest.mark.parametrize("container", [np.asarray, sparse.csr_array])
@pytest.mark.parametrize("weighted", [False, True])
def test_products_with_centred_rows_are_dense_products(container, weighted):
    X = complete_rows(20, 7)
    weight = np.random.default_rng(0).uniform(0.5, 2, 20) if weighted else None
    rows = CentredRows(container(X), weight, np.average(X, axis=0, weights=weight))
    centred = X - np.average(X, axis=0, weights=weight)
    n = 20 if weight is None else weight.sum()
    if weight is not None:
        assert 1 < weight.max() < 2  # so that these are the scaled weights
        centred *= np.sqrt(weight)[:, None]
    V, Y = np.random.default_rng(1).normal(size=(7, 3)), np.random.default_rng(2).normal(size=20)
    np.testing.assert_allclose(rows.project(V), centred @ V, atol=1e-12)
    Y = Y[:, None]
    np.testing.assert_allclose(rows.pull_back(Y), centred.T @ Y / n, atol=1e-12)
    assert rows.trace == pytest.approx(np.sum(centred**2) / n, rel=1e-12)
    np.testing.assert_allclose(rows.mean, row_mean(X, weight), rtol=1e-12)


@pytest.mark.parametrize("solver", ["em", "closed_form", "randomized"])
@pytest.mark.parametrize("container", [np.asarray, sparse.csr_array])
def test_wide_rows_need_no_matrix_of_features_squared(solver, container):
    """Fit and queries on 300 x 4000 take less than half of what such a matrix would."""
    X = container(complete_rows(300, 4000, mean=0.0))
    tracemalloc.start()
    try:
        model = PPCA(3, solver=solver, random_state=0).fit(X)
        model.score(X)
        model.transform(X)
        _, peak = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
    assert peak < 4000 * 4000 * 8 / 2


def test_auto_takes_em_only_for_large_or_incomplete_rows(monkeypatch):
    X = complete_rows(20, 20)
    assert not hasattr(PPCA(2).fit(X), "log_likelihoods_")
    monkeypatch.setattr(_gaussian_learning, "_CLOSED_FORM_LIMIT", 19)
    assert hasattr(PPCA(2, random_state=0).fit(X), "log_likelihoods_")
    assert not hasattr(PPCA(0.5).fit(X), "log_likelihoods_")
    assert not hasattr(PPCA(2).fit(X[:19]), "log_likelihoods_")
    assert not hasattr(PPCA(2).fit(X[:, :19]), "log_likelihoods_")


def test_em_that_stops_early_warns():
    X = load_digits().data
    with pytest.warns(ConvergenceWarning, match="max_iter=2"):
        model = PPCA(10, solver="em", max_iter=2, random_state=0).fit(X)
    assert model.n_iter_ == 2
    assert model.score(X) < PPCA(10).fit(X).score(X)


def test_the_history_of_em_is_forgotten():
    X = complete_rows()
    model = PPCA(2, solver="em", random_state=0).fit(X)
    assert not hasattr(model.set_params(solver="closed_form").fit(X), "log_likelihoods_")


# --------------------------------------------------------------- no variance left over


FLOORED = {
    "wide": (complete_rows(5, 20), None),
    "all components": (complete_rows(), 6),
    "constant": (np.full((10, 4), 3.0), 2),
    "zero": (np.zeros((10, 4)), 2),
    "one feature": (complete_rows()[:, :1], None),
    "two rows": (complete_rows()[:2], None),
    "wider": (complete_rows(11, 13), None),
}


@pytest.mark.parametrize("dtype", [np.float64, np.float32])
@pytest.mark.parametrize(("X", "n_components"), FLOORED.values(), ids=FLOORED)
def test_the_noise_is_floored_with_a_warning(X, n_components, dtype):
    """At the float precision times the mean variance, or the mean square of constant rows."""
    X = X.astype(dtype)
    with pytest.warns(UserWarning, match="noise variance was raised"):
        model = PPCA(n_components).fit(X)
    scale = np.var(X, axis=0, dtype=np.float64).mean() or np.mean(X**2) or 1.0
    floor = np.finfo(dtype).eps * scale
    assert model.noise_variance_ == pytest.approx(floor, rel=1e-4)
    scores = model.score_samples(X)
    assert np.isfinite(scores).all()
    for values in (model.transform(X), model.reconstruct(X), model.sample(5, random_state=0)):
        assert np.isfinite(values).all()
    if model.n_components_ < X.shape[1]:
        off = np.linalg.svd(X - X.mean(axis=0))[2][-1]
        assert np.all(model.score_samples((X + 0.1 * off).astype(dtype)) < scores.min())


def test_a_noise_well_above_the_floor_gives_no_warning():
    X = complete_rows(noise=1e-5)
    model = PPCA(3).fit(X)
    assert model.noise_variance_ == pytest.approx(1e-10, rel=0.2)


def test_more_components_never_score_less_on_the_training_rows():
    X = complete_rows(200, 8)
    scores = [PPCA(k).fit(X).score(X) for k in range(1, 8)]
    assert all(b > a for a, b in pairwise(scores))


def test_criteria_count_weights_as_rows():
    X = complete_rows()
    weight = np.random.default_rng(0).integers(0, 4, len(X))
    model, repeated = PPCA(2).fit(X), np.repeat(X, weight, axis=0)
    assert model.aic(X, sample_weight=weight) == pytest.approx(model.aic(repeated), rel=1e-10)
    assert model.bic(X, sample_weight=weight) == pytest.approx(model.bic(repeated), rel=1e-10)


def test_a_given_series_is_read_by_its_names():
    X = pd.DataFrame(complete_rows(), columns=list("abcdef"))
    model = PPCA(2).fit(X)
    row = X.iloc[0].copy()
    row["b"] = np.nan
    expected = model.sample(3, given=row.to_numpy(), random_state=0)
    np.testing.assert_allclose(model.sample(3, given=row, random_state=0), expected)
    with pytest.raises(ValueError, match="feature names"):
        model.sample(3, given=row[::-1])
    with pytest.raises(TypeError, match="given must be a dense row"):
        model.sample(3, given=sparse.csr_array(X.to_numpy()[:1]))


def test_a_hole_does_not_change_the_type_of_the_other_rows():
    X = complete_rows()
    model = PPCA(2).fit(X)
    whole = X[:4].astype(np.float32)
    holed = whole.copy()
    holed[0, 0] = np.nan
    for method in (model.transform, model.score_samples):
        assert method(whole).dtype == method(holed).dtype == np.float64


# ---------------------------------------------------------------------- in PCA's place


@pytest.mark.parametrize("options", [{}, {"solver": "em"}, {"solver": "randomized"}], ids=str)
@pytest.mark.parametrize("gaps", [False, True])
def test_the_formula_of_pcas_users_decodes(options, gaps):
    X = complete_rows()
    if gaps:
        if options.get("solver") == "randomized":
            pytest.skip("a solver of complete rows")
        X[::7, 2] = np.nan
    model = PPCA(3, random_state=0, **options).fit(X)
    Z = np.random.default_rng(0).normal(size=(5, 3))
    by_hand = Z @ model.components_ + model.mean_
    np.testing.assert_allclose(by_hand, model.inverse_transform(Z), rtol=1e-14)
    np.testing.assert_array_equal(model.components_, model.loadings_.T)
    np.testing.assert_allclose(model.axes_ @ model.axes_.T, np.eye(3), atol=1e-12)


def test_axes_of_components_without_signal_are_orthonormal():
    """Rows of equal variance in all directions: the loadings of an axis may be zero."""
    X = np.vstack([np.eye(4), -np.eye(4)])
    model = PPCA(2).fit(X)
    np.testing.assert_allclose(model.axes_ @ model.axes_.T, np.eye(2), atol=1e-12)
    np.testing.assert_allclose(model.score_samples(X), model.score_samples(X)[0])


@pytest.mark.parametrize("solver", ["closed_form", "em", "randomized"])
@every_data
def test_singular_values_are_pcas(X, solver):
    model = PPCA(2, solver=solver, random_state=0).fit(X)
    expected = PCA(2, svd_solver="full").fit(X).singular_values_
    np.testing.assert_allclose(model.singular_values_, expected, rtol=1e-4)


def test_the_variance_of_the_codes_is_not_explained_variance():
    """It is 1 - sigma2 / lambda, with 1/n."""
    X = complete_rows(500)
    model = PPCA(3).fit(X)
    variances = model.explained_variance_ * 499 / 500
    expected = 1 - model.noise_variance_ / variances
    np.testing.assert_allclose(model.transform(X).var(axis=0), expected, rtol=1e-10)


def test_models_saved_by_the_first_version_load_right():
    X = complete_rows()
    model = PPCA(2).fit(X)
    state = model.__getstate__()
    del state["_skae_format"]  # the first version stated none
    state["components_"] = state.pop("axes_")
    singular_values = state.pop("singular_values_")
    loaded = PPCA.__new__(PPCA)
    loaded.__setstate__(state)
    for name in ("components_", "axes_"):
        np.testing.assert_array_equal(getattr(loaded, name), getattr(model, name))
    np.testing.assert_allclose(loaded.singular_values_, singular_values, rtol=1e-14)
    np.testing.assert_array_equal(loaded.score_samples(X), model.score_samples(X))


# ---------------------------------------------------------------- degenerate rows


@pytest.mark.parametrize("solver", ["em", "randomized", "closed_form"])
@pytest.mark.parametrize("value", [0.0, 3.0, 1e100])
def test_constant_rows_have_a_model_without_leaked_warnings(solver, value):
    X = np.full((20, 4), value)
    with pytest.warns(UserWarning, match="raised to its lower bound"):
        model = PPCA(2, solver=solver, random_state=0).fit(X)
    np.testing.assert_allclose(model.reconstruct(X), X)
    assert np.isfinite(model.score_samples(X)).all()
    np.testing.assert_allclose(model.axes_ @ model.axes_.T, np.eye(2), atol=1e-12)


@pytest.mark.parametrize("solver", ["em", "randomized", "closed_form"])
@pytest.mark.parametrize("container", [np.asarray, sparse.csr_array])
@pytest.mark.parametrize("shape", [(60, 6), (15, 40)])
@pytest.mark.parametrize("scale", [1e20, 1e40, 1e150])
def test_large_weights_have_no_scale(solver, container, shape, scale):
    """Also beyond float32; as shares they are the weights that they are."""
    X = complete_rows(*shape).astype(np.float32)
    weight = np.random.default_rng(0).uniform(0.5, 2, shape[0])
    weight *= 100 / weight.sum()
    expected = PPCA(2, random_state=0).fit(X, sample_weight=weight)
    model = PPCA(2, solver=solver, random_state=0).fit(container(X), sample_weight=weight * scale)
    np.testing.assert_allclose(model.mean_, expected.mean_, rtol=1e-5)
    np.testing.assert_allclose(model.loadings_, expected.loadings_, atol=1e-2)
    assert model.noise_variance_ == pytest.approx(expected.noise_variance_, rel=1e-3)


@pytest.mark.parametrize("gaps", [False, True])
@pytest.mark.parametrize("solver", ["em", "randomized", "closed_form"])
def test_rows_whose_squares_leave_float32_are_refused(gaps, solver):
    X = (complete_rows(30, 4) * 1e30).astype(np.float32)
    if gaps:
        X[0, 0], solver = np.nan, "em"
    with pytest.raises(ValueError, match="Rescale X"):
        PPCA(2, solver=solver, random_state=0).fit(X)


@pytest.mark.parametrize("first", ["closed_form", "em", "randomized", "gaps"])
@pytest.mark.parametrize("then", ["closed_form", "em", "randomized"])
def test_nothing_of_an_earlier_fit_is_left(first, then):
    X = complete_rows()
    before = complete_rows(20, seed=1)
    if first == "gaps":
        before[::3, 0] = np.nan
    solver = "em" if first == "gaps" else first
    model = PPCA(2, solver=solver, random_state=0).fit(before)
    expected = PPCA(2, solver=then, random_state=0).fit(X)
    model.set_params(solver=then).fit(X)
    assert vars(model).keys() == vars(expected).keys()
    for name, value in vars(expected).items():
        np.testing.assert_array_equal(getattr(model, name), value)


# ------------------------------------------------------------------- a smaller model


FITTED = (
    "loadings_",
    "components_",
    "axes_",
    "mean_",
    "noise_variance_",
    "explained_variance_",
    "explained_variance_ratio_",
    "singular_values_",
)


@every_data
def test_truncation_is_the_fit_of_fewer_components(X):
    largest = PPCA(3).fit(X)
    before = {name: np.copy(getattr(largest, name)) for name in FITTED}
    for size in (1, 2, 3):
        smaller, expected = largest.truncate(size), PPCA(size).fit(X)
        assert smaller.get_params() == expected.get_params()
        assert smaller.n_components_ == size
        for name in FITTED:
            value = getattr(expected, name)
            limit = 1e-8 * np.max(np.abs(value))
            np.testing.assert_allclose(getattr(smaller, name), value, rtol=0, atol=limit)
        smaller.axes_ *= 0
        smaller.mean_ *= 0
    for name, value in before.items():
        np.testing.assert_array_equal(getattr(largest, name), value)


def test_truncation_gives_variance_back_to_a_floored_noise():
    """A model that left nothing to the noise, and one that leaves as little, which says so."""
    X = low_rank_rows(80, 6, rank=3, noise=0.0)
    with pytest.warns(UserWarning, match="raised to its lower bound"):
        largest = PPCA(6).fit(X)
    smaller = largest.truncate(2)
    np.testing.assert_allclose(smaller.noise_variance_, PPCA(2).fit(X).noise_variance_, rtol=1e-9)
    with pytest.warns(UserWarning, match=r"lower bound .*: 4 components"):
        floored = largest.truncate(4)
    with pytest.warns(UserWarning, match="raised to its lower bound"):
        expected = PPCA(4).fit(X)
    np.testing.assert_allclose(floored.noise_variance_, expected.noise_variance_, rtol=1e-6)


def test_constant_rows_are_cut_as_they_are_fitted():
    X = np.full((10, 4), 3.0)
    with pytest.warns(UserWarning, match="raised to its lower bound"):
        expected = PPCA(1).fit(X)
    with pytest.warns(UserWarning, match="raised to its lower bound"):
        smaller = PPCA(2).fit(X).truncate(1)
    assert smaller.noise_variance_ == expected.noise_variance_
    assert smaller.explained_variance_ratio_ == [0.0]


@pytest.mark.parametrize("size", [0, -1, 4, 1.0, 0.5, "bic", None, True])
def test_truncation_refuses_what_it_cannot_cut(size):
    model = PPCA(3).fit(complete_rows())
    with pytest.raises(ValueError, match="n_components"):
        model.truncate(size)


def test_em_of_missing_values_cannot_be_cut():
    X = complete_rows(gaps=0.1)
    model = PPCA(3, random_state=0).fit(X)
    with pytest.raises(ValueError, match=r"missing values.* Fit a PPCA with n_components=2"):
        model.truncate(2)
    same = model.truncate(3)
    np.testing.assert_allclose(same.score_samples(X), model.score_samples(X), rtol=1e-12)
    # The same estimator, fitted anew to complete rows by EM, can.
    model.set_params(solver="em").fit(complete_rows())
    assert model.truncate(2).n_components_ == 2


def test_files_of_before_do_not_tell_of_missing_values_and_are_not_cut():
    model = PPCA(3, random_state=0).fit(complete_rows(gaps=0.1))
    state = model.__getstate__()
    del state["_is_of_missing_values"], state["_skae_format"]
    loaded = object.__new__(PPCA)
    loaded.__setstate__(state)
    with pytest.raises(ValueError, match="missing values"):
        loaded.truncate(2)


def test_rows_too_far_for_a_density_have_none():
    """-inf is what a density below the range of floats rounds to; nothing warns of it."""
    far = np.full((2, 12), 1e300)
    far[1, 0] = np.nan
    model = PPCA(2).fit(low_rank_rows(60, 12))
    np.testing.assert_array_equal(model.score_samples(far), -np.inf)
    assert model.score(far[:1], sample_weight=[1.0]) == -np.inf
    rows = np.vstack([low_rank_rows(60, 12)[:1], far])
    np.testing.assert_allclose(
        model.score(rows, sample_weight=[1, 0, 0]), model.score_samples(rows[:1])[0]
    )


@pytest.mark.parametrize("given", [5e-324, ["a"] * 12, np.zeros(3)])
def test_rows_that_cannot_be_given_are_named(given):
    with pytest.raises(ValueError, match="given"):
        PPCA(2).fit(low_rank_rows(60, 12)).sample(2, given=given)


def test_singular_values_of_large_weights_are_finite():
    """They grow with the square root of the weights, beyond float32."""
    X, weight = low_rank_rows(60, 12).astype(np.float32), np.full(60, 1e300)
    plain = PPCA(2).fit(X)
    heavy = PPCA(2).fit(X, sample_weight=weight)
    np.testing.assert_allclose(heavy.singular_values_ / 1e150, plain.singular_values_, rtol=1e-4)
