"""Mixtures of counts against brute force, SciPy, scikit-learn and numerical derivatives."""

import copy
import signal
import sys
import tracemalloc
import warnings
from collections import Counter
from itertools import pairwise, product

import numpy as np
import pytest
from joblib import parallel_config
from scipy import optimize, sparse, stats
from scipy.special import logsumexp
from sklearn.datasets import load_digits
from sklearn.exceptions import ConvergenceWarning
from sklearn.mixture import GaussianMixture
from sklearn.model_selection import GridSearchCV
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler

from skae import CountMixtureAE, _count_learning, image_to_counts, sample_counts
from skae._mixture.gaussians import Gaussians, floored, inverses
from skae._mixture.responsibilities import LocalRows
from skae._utils.interrupts import inside_another_fit

GAUSSIANS = ["spherical", "diag", "full", "tied"]
KINDS = [*GAUSSIANS, "cell"]
INITS = ["quantiles", "counts", "grid", "split"]

every_gaussian = pytest.mark.parametrize("kind", GAUSSIANS)
every_kind = pytest.mark.parametrize("kind", KINDS)
every_algorithm = pytest.mark.parametrize("algorithm", ["em", "partition"])
every_init = pytest.mark.parametrize("init", INITS)

DIGIT = load_digits().images[0]


def fitted(X, n_components=None, *, sample_weight=None, **options):
    """A fit that may stop before it converges."""
    model = CountMixtureAE(n_components, **{"random_state": 0, **options})
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", ConvergenceWarning)
        return model.fit(X, sample_weight=sample_weight)


def scattered(n_dims, n=600, seed=0):
    """Clusters whose sizes differ by a thousand, and a few rows far from all of them."""
    rng = np.random.default_rng(seed)
    parts = [
        rng.normal(0, 0.01, (n, n_dims)),
        rng.normal(3, 10, (n, n_dims)),
        rng.normal(-5, 0.3, (n // 2, n_dims)),
        [np.full(n_dims, 100.0), np.full(n_dims, -300.0)],
    ]
    return rng.permutation(np.concatenate(parts))


def waves(n=2000, n_dims=2, seed=0):
    """Rows of a curved density, within the box from 0 to 8."""
    rng = np.random.default_rng(seed)
    X = rng.uniform(0, 8, (n, n_dims))
    X[:, -1] = 4 + 2 * np.sin(X[:, 0]) + 0.5 * rng.normal(size=n)
    return np.clip(X, 0, 8)


def clusters(n=600, n_dims=2, seed=0):
    """Three of equal size that are well apart."""
    rng = np.random.default_rng(seed)
    centres = 20.0 * np.repeat(np.arange(3), n // 3)
    return centres[:, None] + rng.normal(size=(len(centres), n_dims))


# ------------------------------------------------------- definitions, component by component


def matrices(model):
    """Covariances of all components, (n_components, n_dims, n_dims)."""
    n_components, n_dims = model.means_.shape
    match model.covariance_type_:
        case "full":
            return model.covariances_
        case "tied":
            return np.tile(model.covariances_, (n_components, 1, 1))
        case "diag":
            return np.stack([np.diag(variances) for variances in model.covariances_])
    return model.covariances_[:, None, None] * np.eye(n_dims)


def within(model, X):
    """Whether rows are in cells, [lo, hi) but for the upper faces of the domain."""
    lo, hi = model.cells_[..., 0], model.cells_[..., 1]
    last = hi.max(axis=0)
    X = X[:, None]
    return ((lo <= X) & ((hi > X) | ((hi == last) & (last == X)))).all(axis=2)


def joint(model, X):
    """log w_j rho_j(x), (n_samples, n_components)."""
    X = np.asarray(X, dtype=float)
    with np.errstate(divide="ignore"):
        log_weights = np.log(model.weights_)
    if model.covariance_type_ == "cell":
        density = log_weights - np.log(np.ptp(model.cells_, axis=2)).sum(axis=1)
        return np.where(within(model, X), density, -np.inf)
    found = np.empty((len(X), len(log_weights)))
    for j, (mean, matrix) in enumerate(zip(model.means_, matrices(model), strict=True)):
        found[:, j] = stats.multivariate_normal(mean, matrix).logpdf(X)
    return log_weights + found


def replaced(model, **parameters):
    """A fitted model with other parameters."""
    model = copy.deepcopy(model)
    for name, value in parameters.items():
        assert getattr(model, name).shape == np.shape(value)
        setattr(model, name, np.asarray(value))
    return model


# ------------------------------------------------------------------------------- queries

SIZES = [(d, k, n) for d, k, n in product([1, 2, 3], KINDS, [1, 8, 300])]
SIZES += [(6, kind, n) for kind, n in product(KINDS, [1, 30])]


@pytest.mark.parametrize(("n_dims", "kind", "n_components"), SIZES)
def test_queries_are_those_of_brute_force(n_dims, kind, n_components):
    """Densities, shares and codes, of components of all sizes, near and far."""
    X = scattered(n_dims)
    model = fitted(X, n_components, covariance_type=kind, max_iter=6)
    rng = np.random.default_rng(1)
    new = np.concatenate([X[::2], rng.normal(0, 40, (50, n_dims)), [np.full(n_dims, 1000.0)]])
    value = joint(model, new)
    nats = logsumexp(value, axis=1)
    np.testing.assert_allclose(model.score_samples(new), nats, rtol=1e-9, atol=1e-9)

    seen = nats > -np.inf
    shares = model.responsibilities(new)
    assert sparse.issparse(shares)
    assert shares.format == "csr"
    assert shares.shape == value.shape
    np.testing.assert_allclose(shares.sum(axis=1), 1, rtol=1e-12)
    expected = np.exp(value[seen] - nats[seen, None])
    np.testing.assert_allclose(shares.toarray()[seen], expected, atol=1e-8)
    omitted = np.where(shares.toarray()[seen] == 0, expected, 0).sum(axis=1)
    assert omitted.max() < 1e-10

    codes = model.transform(new)
    assert codes.shape == (len(new), 1)
    best, chosen = value.max(axis=1)[seen], value[np.arange(len(new)), codes[:, 0]][seen]
    assert (chosen >= best - 1e-9 * (1 + np.abs(best))).all()
    np.testing.assert_allclose(model.inverse_transform(codes), model.means_[codes[:, 0]])


@pytest.mark.parametrize("far", [1e3, 1e6])
@pytest.mark.parametrize("kind", ["spherical", "full"])
def test_the_score_of_a_row_does_not_depend_on_its_company(kind, far):
    """One row far away costs its neighbours no digits."""
    X = np.random.default_rng(0).normal(0, 0.01, (400, 2))
    model = fitted(X, 5, covariance_type=kind)
    together = np.concatenate([X, [[far, far]]])
    expected = logsumexp(joint(model, together), axis=1)
    np.testing.assert_allclose(model.score_samples(together), expected, rtol=1e-9, atol=1e-9)


@pytest.mark.parametrize("n_dims", [1, 2, 3, 6])
@every_kind
def test_rows_far_from_everything_have_codes(kind, n_dims):
    """The argmax of log densities that are far below the smallest float."""
    X = np.random.default_rng(0).normal(size=(300, n_dims))
    model = fitted(X, 9, covariance_type=kind, max_iter=5)
    far = np.random.default_rng(1).normal(size=(40, n_dims))
    far *= 10 ** np.linspace(2, 5, 40)[:, None] / np.linalg.norm(far, axis=1)[:, None]
    codes = model.transform(far)[:, 0]
    if kind == "cell":
        assert (model.score_samples(far) == -np.inf).all()
        lo, hi = model.cells_[..., 0], model.cells_[..., 1]
        gap = np.maximum(np.maximum(lo - far[:, None], far[:, None] - hi), 0)
        distance = np.linalg.norm(gap, axis=2)
        chosen, nearest = distance[np.arange(40), codes], distance.min(axis=1)
        np.testing.assert_allclose(chosen, nearest, rtol=1e-12)
        return
    value = joint(model, far)
    np.testing.assert_array_equal(codes, value.argmax(axis=1))
    np.testing.assert_allclose(model.score_samples(far), logsumexp(value, axis=1), rtol=1e-9)


def test_equal_components_go_to_the_first():
    """In blocks of neighbours and row by row."""
    for n_dims in (2, 6):
        model = fitted(clusters(n_dims=n_dims), 3, covariance_type="spherical")
        same = replaced(
            model,
            weights_=np.full(3, 1 / 3),
            means_=np.zeros((3, n_dims)),
            covariances_=np.ones(3),
        )
        assert not same.transform(clusters(n_dims=n_dims)).any()
        np.testing.assert_allclose(
            same.responsibilities(clusters(n_dims=n_dims)).toarray(), 1 / 3, rtol=1e-9
        )


# ------------------------------------------------------------------ identities 10 and 11


@pytest.mark.parametrize("n_dims", [2, 6])
def test_the_score_is_the_posterior_mean_of_joint_scores(n_dims):
    """Equations 10 and 11, for means, log deviations and log weights, by finite differences."""
    X = np.random.default_rng(0).uniform(0, 8, (200, n_dims))
    model = fitted(X, 4, covariance_type="diag", max_iter=5)
    rows, step = X[:30], 1e-4
    shares = model.responsibilities(rows).toarray()
    scaled = (rows[:, None] - model.means_) / np.sqrt(model.covariances_)

    def slope(name, changed):
        above, below = (
            replaced(model, **{name: changed(sign * step)}).score_samples(rows) for sign in (1, -1)
        )
        return (above - below) / (2 * step)

    for j in range(4):
        unit = np.eye(4)[j]
        by_weight = slope("weights_", lambda h, u=unit: model.weights_ * np.exp(h * u))
        np.testing.assert_allclose(by_weight, shares[:, j], atol=1e-5)
        for a in range(n_dims):
            at = unit[:, None] * np.eye(n_dims)[a]
            by_mean = slope("means_", lambda h, at=at: model.means_ + h * at)
            expected = shares[:, j] * scaled[:, j, a] / np.sqrt(model.covariances_[j, a])
            np.testing.assert_allclose(by_mean, expected, atol=1e-5)
            by_width = slope(
                "covariances_", lambda h, at=at: model.covariances_ * np.exp(2 * h * at)
            )
            np.testing.assert_allclose(
                by_width, shares[:, j] * (scaled[:, j, a] ** 2 - 1), atol=1e-5
            )


# ------------------------------------------------------------------------- the objective


@pytest.mark.parametrize("prior_counts", [0, 5])
@every_init
@every_gaussian
@every_algorithm
def test_the_objective_never_falls(algorithm, kind, init, prior_counts):
    """At every iteration, with many components and candidates that change."""
    X = sample_counts(DIGIT, 1500, random_state=0)
    options = {"covariance_type": kind, "init": init, "prior_counts": prior_counts}
    model = fitted(X, 70, algorithm=algorithm, max_iter=12, tol=0, **options)
    objectives = model.objectives_
    assert len(objectives) == model.n_iter_ > 2
    assert np.diff(objectives).min() >= -1e-12 * np.abs(objectives).max()
    assert objectives[-1] > objectives[0] + 1e-3


@pytest.mark.parametrize(
    ("X", "kind"),
    [
        (sample_counts(DIGIT, 5000, random_state=0), "full"),
        (waves(5000), "spherical"),
        (scattered(2, 1000), "full"),
        (scattered(6, 300), "full"),
    ],
    ids=["image", "waves", "scattered", "6-D"],
)
@every_algorithm
def test_the_objective_of_many_components_never_falls(algorithm, X, kind):
    """Through 20 iterations, of which candidates are chosen anew at 1, 2, 4, 8 and 16."""
    n_components = 200 if X.shape[1] == 2 else 20
    model = fitted(X, n_components, algorithm=algorithm, covariance_type=kind, max_iter=20, tol=0)
    objectives = model.objectives_
    assert np.diff(objectives).min() >= -1e-12 * np.abs(objectives).max()


def test_candidates_change_only_where_blocks_gain():
    """To meet fewer components would lower the truncated free energy: it is not done."""
    X = waves(1000)
    model = fitted(X, 200, max_iter=5)
    narrow = Gaussians(model.weights_, model.means_, model.covariances_, "full")
    rows = LocalRows(X, None, 200, 1)
    rows.select_candidates(narrow._replace(covariances=1e4 * model.covariances_))  # all meet all
    before = rows.expect(narrow)[0]
    assert before == pytest.approx(model.score_samples(X).sum(), rel=1e-12)
    rows.select_candidates(narrow)
    assert rows.expect(narrow)[0] >= before - 1e-9


@pytest.mark.parametrize("n_dims", [2, 6])
@every_gaussian
@every_algorithm
def test_the_objective_is_the_likelihood(algorithm, kind, n_dims):
    """Of what was learned: what truncation leaves out is little, and never in its favour."""
    X = waves(800, n_dims)
    options = {"algorithm": algorithm, "covariance_type": kind, "prior_counts": 0}
    model = fitted(X, 20, max_iter=7, tol=0, **options)
    value = joint(model, X)
    if algorithm == "partition":
        assert model.objectives_[-1] == pytest.approx(value.max(axis=1).mean(), rel=1e-9)
        return
    nats = logsumexp(value, axis=1).mean()
    assert nats - 1e-3 < model.objectives_[-1] <= nats + 1e-9
    assert model.score(X) == pytest.approx(nats, rel=1e-9)


def test_weights_of_rows_are_in_the_objective():
    """It is a mean over counts, not over rows."""
    X, weight = image_to_counts(DIGIT)
    options = {"algorithm": "partition", "prior_counts": 0, "image_shape": (8, 8)}
    model = fitted(X, 6, sample_weight=weight, max_iter=7, tol=0, **options)
    expected = np.average(joint(model, X).max(axis=1), weights=weight)
    assert model.objectives_[-1] == pytest.approx(expected, rel=1e-9)
    assert model.n_counts_ == pytest.approx(DIGIT.sum())


# ------------------------------------------------------------------------------ the prior


def log_prior(means, covariances, prior_means, prior_covariances, counts):
    """-nu/2 sum_j (tr(Psi Sigma^-1) - log |Psi Sigma^-1| - d + (mu - m)' Sigma^-1 (mu - m))."""
    total = 0.0
    for mu, sigma, m, psi in zip(means, covariances, prior_means, prior_covariances, strict=True):
        precision = np.linalg.inv(sigma)
        ratio = psi @ precision
        log_det = np.linalg.slogdet(ratio)[1]
        total += np.trace(ratio) - log_det - len(mu) + (mu - m) @ precision @ (mu - m)
    return -counts / 2 * total


@every_algorithm
@pytest.mark.parametrize(("kind", "n_dims"), [("full", 2), ("diag", 2), ("spherical", 1)])
def test_the_objective_with_a_prior_is_that_of_the_start(kind, n_dims, algorithm):
    """A fit of one iteration shows the start, where the prior has its mode."""
    X = waves(300, n_dims)
    options = {"covariance_type": kind, "algorithm": algorithm, "prior_counts": 7, "tol": 1e-11}
    start = fitted(X, 4, max_iter=1, **options)
    model = fitted(X, 4, max_iter=3000, **options)
    assert model.converged_

    def objective(model):
        value = joint(model, X)
        nats = logsumexp(value, axis=1) if algorithm == "em" else value.max(axis=1)
        known = (start.means_, matrices(start), 7)
        return nats.mean() + log_prior(model.means_, matrices(model), *known) / len(X)

    best = objective(model)
    assert start.objectives_[0] == pytest.approx(objective(start), abs=1e-3)
    assert model.objectives_[-1] == pytest.approx(best, abs=1e-3)
    # A stationary point: steps change it by their squares.
    for name, scale in (("means_", 1e-3), ("covariances_", 1e-3)):
        rng = np.random.default_rng(0)
        values = getattr(model, name)
        for _ in range(5):
            step = scale * rng.uniform(-1, 1, values.shape) * np.abs(values)
            if values.ndim == 3:
                step = (step + step.swapaxes(1, 2)) / 2
            above, below = (
                objective(replaced(model, **{name: values + sign * step})) for sign in (1, -1)
            )
            curvature = abs(above + below - 2 * best)
            assert abs(above - below) / 2 < curvature + 1e-6


@pytest.mark.parametrize("n_dims", [1, 2])
@every_algorithm
def test_one_gaussian_with_a_prior_is_the_numerical_optimum(algorithm, n_dims):
    """Of log likelihood plus log prior, found by SciPy; the prior expects mean and variances."""
    X = np.random.default_rng(0).normal(size=(12, n_dims)) @ np.triu(np.ones((n_dims, n_dims)))
    X[0] += 4
    model = CountMixtureAE(1, prior_counts=5, algorithm=algorithm).fit(X)
    start = fitted(X, 1, max_iter=1, algorithm=algorithm)
    np.testing.assert_allclose(start.means_[0], X.mean(axis=0))
    np.testing.assert_allclose(np.diag(start.covariances_[0]), X.var(axis=0))
    places = np.tril_indices(n_dims)

    def unpacked(theta):
        factor = np.zeros((n_dims, n_dims))
        factor[places] = theta[n_dims:]
        return theta[:n_dims], factor @ factor.T

    def negative(theta):
        mean, covariance = unpacked(theta)
        nats = stats.multivariate_normal(mean, covariance).logpdf(X).sum()
        known = (start.means_, start.covariances_, 5)
        return -(nats + log_prior([mean], [covariance], *known))

    first = np.concatenate([np.zeros(n_dims), np.eye(n_dims)[places]])
    found = optimize.minimize(negative, first, tol=1e-12, method="Nelder-Mead", options=LONG)
    mean, covariance = unpacked(found.x)
    np.testing.assert_allclose(model.means_[0], mean, atol=1e-4)
    np.testing.assert_allclose(model.covariances_[0], covariance, atol=1e-4)
    assert model.objectives_[-1] == pytest.approx(-found.fun / len(X), abs=1e-7)


LONG = {"maxiter": 20_000, "maxfev": 20_000, "xatol": 1e-9, "fatol": 1e-13}


# -------------------------------------------------------------------- equations 13 and 14


@pytest.mark.parametrize("n_dims", [1, 2, 6])
@every_gaussian
def test_partition_stops_where_components_fit_their_own_counts(kind, n_dims):
    """Labels are argmax_j w_j rho_j (13); shares, means and covariances are theirs (14)."""
    X = waves(400, n_dims)
    options = {"covariance_type": kind, "prior_counts": 0, "min_variance": 1e-12, "tol": 1e-12}
    model = CountMixtureAE(5, algorithm="partition", max_iter=500, **options).fit(X)
    labels = model.transform(X)[:, 0]
    np.testing.assert_array_equal(labels, joint(model, X).argmax(axis=1))
    pooled = np.zeros((n_dims, n_dims))
    for j in range(5):
        own = X[labels == j]
        assert len(own) > n_dims
        assert model.weights_[j] == pytest.approx(len(own) / len(X), rel=1e-9)
        np.testing.assert_allclose(model.means_[j], own.mean(axis=0), rtol=1e-7)
        covariance = np.atleast_2d(np.cov(own.T, bias=True))
        pooled += covariance * len(own) / len(X)
        expected = {
            "full": covariance,
            "diag": np.diag(np.diag(covariance)),
            "spherical": np.eye(n_dims) * np.diag(covariance).mean(),
        }
        if kind != "tied":
            np.testing.assert_allclose(matrices(model)[j], expected[kind], rtol=1e-6, atol=1e-9)
    if kind == "tied":
        np.testing.assert_allclose(model.covariances_, pooled, rtol=1e-6, atol=1e-9)


@pytest.mark.parametrize("kind", ["spherical", "diag", "full"])
def test_hard_assignments_underestimate_variances(kind):
    """Of one smooth density; counts that were held out score lower (the known bias)."""
    X = np.random.default_rng(0).normal(size=(4000, 2))
    new = np.random.default_rng(1).normal(size=(4000, 2))
    options = {"covariance_type": kind, "prior_counts": 0}
    soft, hard = (
        fitted(X, 30, algorithm=algorithm, **options) for algorithm in ("em", "partition")
    )
    volumes = [np.linalg.slogdet(matrices(model))[1] for model in (soft, hard)]
    shares = [model.weights_ for model in (soft, hard)]
    assert shares[1] @ volumes[1] < shares[0] @ volumes[0] - 0.5
    assert hard.score(new) < soft.score(new) - 0.02


# ---------------------------------------------------------------------------- scikit-learn


def as_sklearn(model):
    """scikit-learn's mixture of the same parameters."""
    if model.covariance_type_ in ("full", "tied"):
        precisions = np.linalg.inv(model.covariances_)
        roots = np.linalg.cholesky(precisions)
    else:
        precisions = 1 / model.covariances_
        roots = np.sqrt(precisions)
    other = GaussianMixture(
        len(model.weights_),
        covariance_type=model.covariance_type_,
        weights_init=model.weights_ / model.weights_.sum(),
        means_init=model.means_,
        precisions_init=precisions,
        reg_covar=0,
        max_iter=1,
        tol=0,
        random_state=0,
    )
    other.weights_, other.means_ = model.weights_, model.means_
    other.covariances_, other.precisions_cholesky_ = model.covariances_, roots
    return other


@pytest.mark.parametrize("n_dims", [1, 2, 6])
@every_gaussian
def test_every_query_is_that_of_scikit_learn(kind, n_dims):
    X = waves(500, n_dims)
    model = fitted(X, 7, covariance_type=kind, max_iter=5)
    other = as_sklearn(model)
    np.testing.assert_allclose(model.score_samples(X), other.score_samples(X), rtol=1e-9)
    np.testing.assert_array_equal(model.transform(X)[:, 0], other.predict(X))
    shares = model.responsibilities(X).toarray()
    np.testing.assert_allclose(shares, other.predict_proba(X), atol=1e-9)
    other.n_features_in_ = n_dims
    assert model.aic(X) == pytest.approx(other.aic(X), rel=1e-9)
    assert model.bic(X) == pytest.approx(other.bic(X), rel=1e-9)


@pytest.mark.parametrize("n_dims", [1, 2, 6])
@every_gaussian
def test_an_iteration_is_that_of_scikit_learn(kind, n_dims):
    """From the same start, without a prior: one more iteration is one of EM."""
    X = waves(500, n_dims)
    options = {"covariance_type": kind, "prior_counts": 0, "min_variance": 1e-9, "tol": 0}
    start, model = (fitted(X, 4, max_iter=n, **options) for n in (1, 2))
    other = as_sklearn(start)
    with pytest.warns(ConvergenceWarning):
        other.fit(X)
    for name in ("weights_", "means_", "covariances_"):
        ours, theirs = getattr(model, name), getattr(other, name)
        np.testing.assert_allclose(ours, theirs, rtol=1e-8, atol=1e-9)


def test_images_are_fitted_as_well_as_by_scikit_learn():
    """20,000 counts, 50 components, maximum likelihood."""
    X = sample_counts(DIGIT, 20_000, random_state=0)
    other = GaussianMixture(50, random_state=0).fit(X)
    options = {"prior_counts": 0, "min_variance": 1e-6, "max_iter": 1000}
    model = CountMixtureAE(50, image_shape=(8, 8), **options).fit(X)
    assert model.score(X) > other.score(X) - 0.002


# --------------------------------------------------------------------------------- cells


def tilings_of(model, n_tilings):
    """Which cells each tiling has: they follow each other, and each fills the domain."""
    lo, hi = model.cells_[..., 0], model.cells_[..., 1]
    whole = np.prod(hi.max(axis=0) - lo.min(axis=0))
    filled = np.cumsum(np.prod(hi - lo, axis=1)) / whole
    ends = [int(np.abs(filled - k).argmin()) for k in range(1, n_tilings + 1)]
    np.testing.assert_allclose(filled[ends], np.arange(1, n_tilings + 1), rtol=1e-9)
    return np.split(np.arange(len(lo)), np.array(ends[:-1], dtype=int) + 1)


CELL_DATA = {
    "1-D": (waves(500, 1), {}),
    "2-D": (waves(1000), {}),
    "3-D": (waves(500, 3), {}),
    "5-D": (waves(500, 5), {}),
    "domain": (waves(1000), {"domain": [[-1, 9], [-3, 8]]}),
    "image": (sample_counts(DIGIT, 2000, random_state=0), {"image_shape": (8, 8)}),
    "odd image": (waves(1000)[:, :2] * [1, 0.6], {"image_shape": (11, 5)}),
    "scattered": (scattered(2), {}),
}

every_tiling = pytest.mark.parametrize("n_averages", [1, 3])
every_cell_data = pytest.mark.parametrize(("X", "options"), CELL_DATA.values(), ids=CELL_DATA)


@every_tiling
@every_cell_data
def test_cells_tile_the_domain(X, options, n_averages):
    """Volumes add up to it; every point of it is in one cell of each tiling."""
    model = CountMixtureAE(
        40, covariance_type="cell", n_averages=n_averages, random_state=0, **options
    ).fit(X)
    lo, hi = model.cells_[..., 0].min(axis=0), model.cells_[..., 1].max(axis=0)
    if "domain" in options:
        np.testing.assert_array_equal([lo, hi], np.transpose(options["domain"]))
    elif "image_shape" in options:
        np.testing.assert_array_equal([lo, hi], [[0] * X.shape[1], options["image_shape"]])
        np.testing.assert_array_equal(model.cells_, np.round(model.cells_))
    else:
        assert (lo <= X.min(axis=0)).all()
        assert (hi >= X.max(axis=0)).all()
    rng = np.random.default_rng(0)
    points = np.concatenate([X, rng.uniform(lo, hi, (500, X.shape[1])), [lo, hi]])
    tilings = tilings_of(model, n_averages)
    assert sum(map(len, tilings)) == model.n_components_ == len(model.weights_)
    for cells in tilings:
        assert 1 < len(cells) <= 40
        assert (within(model, points)[:, cells].sum(axis=1) == 1).all()
        assert model.weights_[cells].sum() == pytest.approx(1 / n_averages)
    np.testing.assert_allclose(model.means_, model.cells_.mean(axis=2))


@every_tiling
@every_cell_data
def test_weights_of_cells_are_their_counts(X, options, n_averages):
    """And half a count for each beforehand; the density integrates to one."""
    weight = np.random.default_rng(0).integers(1, 4, len(X)).astype(float)
    model = CountMixtureAE(
        40, covariance_type="cell", n_averages=n_averages, random_state=0, **options
    ).fit(X, sample_weight=weight)
    counts = weight @ within(model, X)
    for cells in tilings_of(model, n_averages):
        expected = (counts[cells] + 0.5) / (weight.sum() + 0.5 * len(cells))
        np.testing.assert_allclose(model.weights_[cells], expected / n_averages, rtol=1e-9)
    # Between the bounds of cells the density is even: the sum over all such boxes is exact.
    edges = [np.unique(model.cells_[:, a]) for a in range(X.shape[1])]
    if np.prod([len(e) - 1.0 for e in edges]) < 20_000:
        middles = np.stack(np.meshgrid(*[(e[1:] + e[:-1]) / 2 for e in edges], indexing="ij"), -1)
        sides = np.stack(np.meshgrid(*[np.diff(e) for e in edges], indexing="ij"), -1)
        density = np.exp(model.score_samples(middles.reshape(-1, X.shape[1])))
        assert density @ np.prod(sides, axis=-1).ravel() == pytest.approx(1, rel=1e-9)


@every_cell_data
def test_the_objective_of_cells_leaves_each_count_out(X, options):
    """The log density of every count under the weights that all the others make."""
    model = CountMixtureAE(30, covariance_type="cell", **options).fit(X)
    inside, n_cells = within(model, X), model.n_components_
    counts = inside.sum(axis=0)
    log_volume = np.log(np.ptp(model.cells_, axis=2)).sum(axis=1)
    cell = inside.argmax(axis=1)
    left = np.log((counts[cell] - 1 + 0.5) / (len(X) - 1 + 0.5 * n_cells)) - log_volume[cell]
    np.testing.assert_allclose(model.objectives_, [left.mean()], rtol=1e-9)


@pytest.mark.parametrize("n_dims", [1, 2, 5])
@every_tiling
def test_there_is_nothing_outside_of_cells(n_averages, n_dims):
    X = np.random.default_rng(0).beta(2, 3, (300, n_dims))
    domain = [[0, 1]] * n_dims
    model = CountMixtureAE(
        10, covariance_type="cell", domain=domain, n_averages=n_averages, random_state=0
    ).fit(X)
    assert np.isfinite(model.score_samples(np.array([[0.0] * n_dims, [1.0] * n_dims]))).all()
    outside = np.full((2, n_dims), 0.5)
    outside[:, 0] = [-1e-9, 1 + 1e-9]
    assert (model.score_samples(outside) == -np.inf).all()


def test_two_cells_are_the_best_halves():
    """Of the halves of all sides those of most held-out likelihood, by brute force."""
    rng = np.random.default_rng(0)
    for axis in range(3):
        X = rng.uniform(0, 1, (400, 3))
        X[:, axis] = rng.beta(2, 6, 400)
        X[:, (axis + 1) % 3] = rng.beta(5, 6, 400)
        domain = [[0, 1]] * 3
        model = CountMixtureAE(2, covariance_type="cell", domain=domain).fit(X)
        scores = []
        for a in range(3):
            n = np.array([(X[:, a] < 0.5).sum(), (X[:, a] >= 0.5).sum()])
            scores.append((n * np.log((n - 0.5) / 0.5)).sum())
        assert np.diff(np.sort(scores))[-1] > 10
        assert np.argmax(scores) == axis
        assert model.n_components_ == 2
        sides = np.ptp(model.cells_, axis=2)
        np.testing.assert_allclose(sides, np.tile(np.where(np.arange(3) == axis, 0.5, 1), (2, 1)))


def quadrants(n=4000, seed=0):
    """Counts on a square of four even quadrants, and their log density."""
    rng = np.random.default_rng(seed)
    shares = np.array([0.1, 0.2, 0.3, 0.4])
    which = rng.choice(4, n, p=shares)
    corner = np.stack(np.divmod(which, 2), axis=1)
    return 4.0 * corner + rng.uniform(0, 4, (n, 2)), np.log(shares[which] / 16)


@pytest.mark.parametrize("n_components", [4, 50, "bic"])
def test_an_even_density_needs_few_cells(n_components):
    """Of four quadrants, four; however many are allowed the score is near the truth's."""
    X, nats = quadrants()
    options = {"covariance_type": "cell", "image_shape": (8, 8)}
    model = CountMixtureAE(n_components, **options).fit(X)
    if n_components == 50:
        assert model.n_components_ <= 50
    else:
        assert model.n_components_ == 4
        corners = {tuple(cell) for cell in model.cells_[..., 0]}
        assert corners == {(0, 0), (0, 4), (4, 0), (4, 4)}
        new, truth = quadrants(seed=1)
        assert model.score(new) == pytest.approx(truth.mean(), abs=2e-3)
    assert model.score(X) == pytest.approx(nats.mean(), abs=0.01)


@pytest.mark.parametrize("n_components", [1, 2, 3, 5, 8, 13, 60, 400])
@every_tiling
def test_the_number_of_cells_is_a_limit(n_components, n_averages):
    """Each tiling keeps to it, and fills it where counts allow."""
    X = sample_counts(DIGIT, 3000, random_state=0)
    options = {"covariance_type": "cell", "image_shape": (8, 8), "n_averages": n_averages}
    model = CountMixtureAE(n_components, random_state=0, **options).fit(X)
    for cells in tilings_of(model, n_averages):
        assert len(cells) <= n_components
        assert len(cells) == n_components or n_components > 20


def test_no_cell_is_narrower_than_the_smallest_side():
    """12 ** 0.5 times the root of min_variance; heavy duplicates would split for ever."""
    X = np.repeat(np.random.default_rng(0).uniform(0, 1, (5, 2)), 200, axis=0)
    model = CountMixtureAE(
        900, covariance_type="cell", domain=[[0, 1]] * 2, min_variance=0.01**2 / 12
    ).fit(X)
    assert np.ptp(model.cells_, axis=2).min() >= 0.01
    assert np.ptp(model.cells_, axis=2).min() < 0.02


# ------------------------------------------------------------------------------- samples


@pytest.mark.parametrize("n_dims", [1, 2, 6])
@every_gaussian
def test_samples_have_the_moments_of_the_mixture(kind, n_dims):
    """The mean and covariance of all, and chi-square of what components are drawn."""
    model = fitted(clusters(n_dims=n_dims), 3, covariance_type=kind, max_iter=2)
    model = replaced(model, means_=np.linspace(0, 200, 3)[:, None] + np.arange(n_dims))
    n = 20_000
    drawn = model.sample(n, random_state=0)
    assert drawn.shape == (n, n_dims)
    shares, means = model.weights_ / model.weights_.sum(), model.means_
    codes = np.bincount(model.transform(drawn)[:, 0], minlength=3)
    assert stats.chisquare(codes, n * shares).pvalue > 1e-3
    for j in range(3):
        own = drawn[model.transform(drawn)[:, 0] == j]
        sigma = matrices(model)[j]
        away = own - means[j]
        error = 5 * np.sqrt(np.diag(sigma) / len(own))
        assert (np.abs(away.mean(axis=0)) < error).all()
        covariance = away.T @ away / len(own)
        spread = np.sqrt(np.outer(np.diag(sigma), np.diag(sigma)) * 2 / len(own))
        assert (np.abs(covariance - sigma) < 5 * spread).all()


@every_tiling
def test_samples_are_even_within_cells(n_averages):
    """Chi-square over the quarters of all cells; all within the domain."""
    X, _ = quadrants()
    model = CountMixtureAE(
        6, covariance_type="cell", image_shape=(8, 8), n_averages=n_averages, random_state=0
    ).fit(X)
    drawn = model.sample(20_000, random_state=1)
    assert np.isfinite(model.score_samples(drawn)).all()
    counts, *_ = np.histogram2d(*drawn.T, bins=16, range=[[0, 8], [0, 8]])
    fine = replaced(model, cells_=2 * model.cells_)
    expected = 20_000 * fine.intensity((16, 16))
    assert stats.chisquare(counts.ravel(), expected.ravel()).pvalue > 1e-3


def test_samples_without_noise_are_means():
    model = fitted(clusters(), 3)
    drawn = model.sample(500, noise=False, random_state=0)
    assert (np.abs(drawn[:, None] - model.means_).max(axis=2) < 1e-12).any(axis=1).all()


# ----------------------------------------------------------------------------- intensity

SHAPES = {1: (40,), 2: (21, 16), 3: (9, 7, 10)}


@pytest.mark.parametrize("n_dims", [1, 2, 3])
@every_kind
def test_the_intensity_of_a_grid_that_holds_everything_is_one(kind, n_dims):
    X = np.random.default_rng(0).normal(3 if n_dims == 3 else 8, 0.3, (300, n_dims))
    options = {"domain": [[0, n] for n in SHAPES[n_dims]]} if kind == "cell" else {}
    model = fitted(X, 7, covariance_type=kind, **options)
    image = model.intensity(SHAPES[n_dims])
    assert image.shape == SHAPES[n_dims]
    assert image.min() >= 0
    assert image.sum() == pytest.approx(1, abs=1e-9)


@pytest.mark.parametrize("deviation", [0.3, 1.0, 6.0])
@pytest.mark.parametrize("n_dims", [1, 2])
@every_gaussian
def test_the_intensity_is_scipys_integral(kind, n_dims, deviation):
    """Of every pixel, for narrow and oblique components, also half outside of the grid."""
    rng = np.random.default_rng(0)
    model = fitted(rng.uniform(0, 5, (50, n_dims)), 3, covariance_type=kind, max_iter=2)
    root = deviation * np.linalg.qr(rng.normal(size=(n_dims, n_dims)))[0]
    root = root * np.geomspace(1, 3, n_dims)
    oblique = np.stack([root @ root.T, root.T @ root, deviation**2 * np.eye(n_dims)])
    covariances = {
        "full": oblique,
        "tied": oblique[0],
        "diag": np.diagonal(oblique, axis1=1, axis2=2),
        "spherical": deviation**2 * np.array([1, 4, 9.0]),
    }
    shape = (9, 8)[:n_dims]
    model = replaced(
        model,
        covariances_=covariances[kind],
        means_=np.array([[2.3, 4.8], [0.1, 7.6], [5, 3]])[:, :n_dims],
        weights_=np.array([0.5, 0.3, 0.2]),
    )
    expected = np.zeros(shape)
    for pixel in np.ndindex(shape):
        for weight, mean, matrix in zip(model.weights_, model.means_, matrices(model), strict=True):
            law = stats.multivariate_normal(mean, matrix)
            lower = np.array(pixel, dtype=float)
            expected[pixel] += weight * law.cdf(lower + 1, lower_limit=lower)
    np.testing.assert_allclose(model.intensity(shape), expected, atol=1e-9)


@pytest.mark.parametrize("kind", ["diag", "full"])
@pytest.mark.parametrize("shape", [(300,), (50, 41), (17, 20, 15)], ids=str)
def test_the_intensity_reaches_into_the_tails(kind, shape):
    """Of upright Gaussians it is SciPy's, axis by axis, down to 1e-12 of an even image."""
    n_dims, variances = len(shape), np.array([4.0, 0.5])
    X = np.random.default_rng(0).normal(size=(50, n_dims))
    same = np.ones(n_dims) if kind == "diag" else np.eye(n_dims)
    model = replaced(
        fitted(X, 2, covariance_type=kind, max_iter=2),
        weights_=[0.25, 0.75],
        means_=[np.array(shape) / 2, np.array(shape) / 5],
        covariances_=np.multiply.outer(variances, same),
    )
    expected = np.zeros(shape)
    for weight, mean, variance in zip(model.weights_, model.means_, variances, strict=True):
        law = stats.norm(scale=variance**0.5)
        axes = [np.diff(law.cdf(np.arange(n + 1) - m)) for n, m in zip(shape, mean, strict=True)]
        expected += weight * np.prod(np.meshgrid(*axes, indexing="ij"), axis=0)
    least = 1e-12 / expected.size
    np.testing.assert_allclose(model.intensity(shape), expected, rtol=1e-9, atol=least)


def test_the_intensity_of_a_volume_is_its_integral():
    """Of an oblique Gaussian in three dimensions, by eight Gauss nodes in each axis of a voxel."""
    rng = np.random.default_rng(0)
    model = fitted(rng.normal(3, 1, (50, 3)), 1, max_iter=2)
    root = np.linalg.qr(rng.normal(size=(3, 3)))[0] * [0.7, 1.0, 1.6]
    model = replaced(model, covariances_=(root @ root.T)[None], means_=np.array([[2.2, 1.9, 3.4]]))
    law, shape = stats.multivariate_normal(model.means_[0], model.covariances_[0]), (4, 5, 6)
    node, share = np.polynomial.legendre.leggauss(8)
    places = np.stack(np.meshgrid(*[(node + 1) / 2] * 3, indexing="ij"), axis=-1)
    shares = np.einsum("i,j,k->ijk", share, share, share) / 8
    expected = np.empty(shape)
    for voxel in np.ndindex(shape):
        expected[voxel] = (shares * law.pdf(places + voxel)).sum()
    np.testing.assert_allclose(model.intensity(shape), expected, atol=1e-9)


def one_gaussian(mean, covariance):
    """A model of one Gaussian, as if it had been learned."""
    n_dims = len(mean)
    model = fitted(np.random.default_rng(0).normal(size=(20, n_dims)), 1, max_iter=2)
    return replaced(model, means_=[mean], covariances_=[covariance])


def turned(deviations, seed):
    """A covariance with these deviations along axes at random."""
    n_dims = len(deviations)
    axes = np.linalg.qr(np.random.default_rng(seed).normal(size=(n_dims, n_dims)))[0]
    return (axes * np.square(deviations)) @ axes.T, axes


def mass_of_a_line(pixel, mean, direction, deviation):
    """Of a Gaussian on a line, on a pixel: the normal measure of the part that is in it."""
    bounds = np.array([pixel - mean, pixel + 1 - mean]) / direction
    low, high = bounds.min(axis=0).max(), bounds.max(axis=0).min()
    return max(np.diff(stats.norm.cdf([low, high], scale=deviation))[0], 0)


@pytest.mark.parametrize("width", [1e-3, 1e-5, 1e-6])
@pytest.mark.parametrize("shape", [(5, 6), (4, 5, 3)], ids=str)
def test_the_intensity_of_a_line_is_that_of_its_pieces(shape, width):
    """A Gaussian that is thinner and thinner; by the line that it becomes."""
    n_dims, mean = len(shape), np.array([2.3, 2.6, 1.4])[: len(shape)]
    for seed in range(4):
        covariance, axes = turned([1.3, *[width] * (n_dims - 1)], seed)
        expected = np.empty(shape)
        for pixel in np.ndindex(shape):
            expected[pixel] = mass_of_a_line(np.array(pixel), mean, axes[:, 0], 1.3)
        # Across the line, a corner of a pixel is at a distance: what is cut off is of this size.
        image = one_gaussian(mean, covariance).intensity(shape)
        np.testing.assert_allclose(image, expected, atol=2 * width)
        assert image.min() >= 0


@pytest.mark.parametrize("deviations", [(0.02, 1.5), (0.001, 0.3), (0.01, 0.02)], ids=str)
def test_the_intensity_of_thin_gaussians_is_an_integral(deviations):
    """Over the other axis, which SciPy cuts where the integrand turns."""
    mean, shape = np.array([1.7, 1.2]), (3, 4)
    for seed in range(3):
        covariance, _ = turned(deviations, seed)
        variance, shared = covariance[0]
        slope = shared / variance
        given = np.sqrt(covariance[1, 1] - slope * shared)
        image = one_gaussian(mean, covariance).intensity(shape)

        def integrand(x, j, variance=variance, slope=slope, given=given):
            centre = mean[1] + slope * (x - mean[0])
            along = np.diff(stats.norm.cdf([j, j + 1], centre, given))[0]
            return stats.norm.pdf(x, mean[0], variance**0.5) * along

        for i, j in np.ndindex(shape):
            about = [(mean[0], variance**0.5)]
            about += [(mean[0] + (edge - mean[1]) / slope, given / slope) for edge in (j, j + 1)]
            cuts = [c + k * w for c, w in about for k in range(-9, 10)]
            cuts = np.unique(np.clip([i, i + 1, *cuts], i, i + 1))
            node, share = np.polynomial.legendre.leggauss(20)
            place = (cuts[:-1, None] + np.diff(cuts)[:, None] * (node + 1) / 2).ravel()
            shares = (np.diff(cuts)[:, None] * share / 2).ravel()
            expected = sum(s * integrand(x, j) for x, s in zip(place, shares, strict=True) if s)
            assert image[i, j] == pytest.approx(expected, abs=1e-12)


@pytest.mark.parametrize("deviations", [(0.05, 0.6, 2.0), (0.03, 0.06, 1.0)], ids=str)
def test_the_intensity_of_thin_volumes_is_an_integral(deviations):
    """Of a plate and of a needle, over the first axis, by SciPy."""
    mean, shape = np.array([1.2, 1.7, 1.4]), (2, 3, 2)
    covariance, _ = turned(deviations, 1)
    image = one_gaussian(mean, covariance).intensity(shape)
    slope = covariance[1:, 0] / covariance[0, 0]
    given = covariance[1:, 1:] - np.outer(slope, covariance[0, 1:])
    node, share = np.polynomial.legendre.leggauss(400)
    for voxel in [(0, 1, 1), (1, 1, 1), (1, 2, 0)]:
        place = voxel[0] + (node + 1) / 2
        lower = np.array(voxel[1:]) - mean[1:] - np.multiply.outer(place - mean[0], slope)
        law = stats.multivariate_normal([0, 0], given)
        inside = np.array([law.cdf(low + 1, lower_limit=low) for low in lower])
        density = stats.norm.pdf(place, mean[0], covariance[0, 0] ** 0.5)
        assert image[voxel] == pytest.approx(share / 2 @ (density * inside), abs=1e-9)


@pytest.mark.parametrize("n_dims", [2, 3])
def test_thin_gaussians_take_no_more_memory(n_dims):
    """Of equal rows along an axis: tens of thousands of nodes in each pixel took 14 GB."""
    rs = np.random.RandomState(0)
    X = np.c_[np.full(500, 0.5), rs.rand(500, n_dims - 1)]
    model = CountMixtureAE(2).fit(X)
    tracemalloc.start()
    image = model.intensity((2,) * n_dims)
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert peak < 64 * 2**20
    within_first = model.intensity((1,) * n_dims)
    np.testing.assert_allclose(image[(0,) * n_dims], within_first.item(), atol=1e-15)
    deviation = matrices(model)[:, range(n_dims), range(n_dims)][:, 1:] ** 0.5
    if n_dims == 2:
        along = stats.norm(model.means_[:, 1:], deviation)
        expected = model.weights_ @ (along.cdf(1) - along.cdf(0))
        assert within_first.item() == pytest.approx(expected.item(), abs=1e-12)


def test_more_pixels_than_memory_say_what_to_set():
    model = fitted(waves(60), 2, max_iter=2)
    for shape in [(10**8, 10**8), (2**40, 2**40)]:
        for query in (model.intensity, model.reconstruct_image):
            with pytest.raises(MemoryError, match=r"shape=.* pixels. Reduce the number"):
                query(shape)


@pytest.mark.parametrize("n_dims", [1, 2, 3])
@every_tiling
def test_the_intensity_of_cells_is_their_overlap(n_averages, n_dims):
    """With every pixel, whatever the bounds of the cells."""
    X = np.random.default_rng(0).uniform(0.3, 6, (400, n_dims)) ** 2 / 6
    model = CountMixtureAE(9, covariance_type="cell", n_averages=n_averages, random_state=0).fit(X)
    lo, hi = model.cells_[..., 0], model.cells_[..., 1]
    shape = (4, 5, 3)[:n_dims]
    expected = np.zeros(shape)
    for pixel in np.ndindex(shape):
        overlap = np.minimum(hi, np.array(pixel) + 1) - np.maximum(lo, pixel)
        expected[pixel] = model.weights_ @ np.prod(np.maximum(overlap, 0) / (hi - lo), axis=1)
    np.testing.assert_allclose(model.intensity(shape), expected, atol=1e-12)


@every_kind
def test_the_intensity_is_the_share_of_samples(kind):
    """Chi-square of draws on the pixels of the image."""
    X = sample_counts(DIGIT, 2000, random_state=0)
    model = fitted(X, 12, covariance_type=kind, image_shape=(8, 8))
    drawn = model.sample(20_000, random_state=0)
    drawn = drawn[((drawn >= 0) & (drawn < 8)).all(axis=1)]
    counts, *_ = np.histogram2d(*drawn.T, bins=8, range=[[0, 8], [0, 8]])
    image = model.intensity()
    assert len(drawn) / 20_000 == pytest.approx(image.sum(), abs=0.02)
    expected = len(drawn) * image / image.sum()
    kept = expected > 5
    assert counts[~kept].sum() == pytest.approx(expected[~kept].sum(), abs=30)
    chi2 = ((counts - expected)[kept] ** 2 / expected[kept]).sum()
    assert stats.chi2(kept.sum() - 1).sf(chi2) > 1e-3


@every_kind
def test_reconstructions_have_their_total(kind):
    """That of the counts, or what is asked for; in proportion to the intensity."""
    X, weight = image_to_counts(DIGIT)
    model = fitted(X, 5, sample_weight=weight, covariance_type=kind, image_shape=(8, 8))
    image, shares = model.reconstruct_image(), model.intensity()
    assert image.sum() == pytest.approx(DIGIT.sum())
    np.testing.assert_allclose(image, shares * image.sum() / shares.sum())
    np.testing.assert_allclose(model.reconstruct_image(total=3), image * 3 / image.sum())
    assert model.reconstruct_image((5, 12)).shape == (5, 12)
    assert model.reconstruct_image((5, 12), total=7.5).sum() == pytest.approx(7.5)


# ------------------------------------------------------------------------------- weights


@every_kind
def test_pixels_stand_for_counts(kind):
    """A fit of the pixels, weighted, is nearly one of the counts that they hold."""
    image = np.kron(DIGIT, np.ones((3, 3)))
    counts = sample_counts(image, 30_000, random_state=0)
    histogram, *_ = np.histogram2d(*counts.T, bins=24, range=[[0, 24], [0, 24]])
    options = {"covariance_type": kind, "image_shape": (24, 24), "max_iter": 15}
    drawn = fitted(counts, 30, **options)
    X, weight = image_to_counts(histogram)
    binned = fitted(X, 30, sample_weight=weight, **options)
    assert binned.n_counts_ == drawn.n_counts_ == 30_000
    new = sample_counts(image, 20_000, random_state=1)
    assert binned.score(new) == pytest.approx(drawn.score(new), abs=0.02)


@every_kind
@every_algorithm
def test_integer_weights_are_repeats(kind, algorithm):
    """Whatever their order."""
    rng = np.random.default_rng(0)
    X, weight = waves(300), rng.integers(1, 5, 300)
    options = {"covariance_type": kind, "algorithm": algorithm, "max_iter": 8}
    once = fitted(X, 6, sample_weight=weight, **options)
    repeated = fitted(rng.permutation(np.repeat(X, weight, axis=0)), 6, **options)
    np.testing.assert_allclose(once.weights_, repeated.weights_, atol=1e-3)
    np.testing.assert_allclose(once.means_, repeated.means_, atol=1e-2)
    np.testing.assert_allclose(once.score_samples(X), repeated.score_samples(X), atol=1e-2)


# ---------------------------------------------------------------------------- more frames


@every_tiling
def test_frames_are_counted_in_the_cells_of_the_first(n_averages):
    """All counts of all frames, and half a count beforehand."""
    frames = [waves(500, seed=seed) for seed in range(4)]
    model = CountMixtureAE(
        30, covariance_type="cell", domain=[[0, 8]] * 2, n_averages=n_averages, random_state=0
    )
    cells = model.partial_fit(frames[0]).cells_.copy()
    model.partial_fit(frames[1]).partial_fit(frames[2])
    weight = np.random.default_rng(0).uniform(0.5, 2, 500)
    model.partial_fit(frames[3], sample_weight=weight)
    np.testing.assert_array_equal(model.cells_, cells)
    total = 1500 + weight.sum()
    counts = within(model, np.concatenate(frames[:3])).sum(axis=0)
    counts = counts + weight @ within(model, frames[3])
    for tiling in tilings_of(model, n_averages):
        expected = (counts[tiling] + 0.5) / (total + 0.5 * len(tiling)) / n_averages
        np.testing.assert_allclose(model.weights_[tiling], expected, rtol=1e-9)
    assert model.n_counts_ == pytest.approx(total)
    assert model.compression_ratio_ == pytest.approx(2 * total / model.n_parameters_)


@pytest.mark.parametrize("n_dims", [2, 6])
@every_gaussian
@every_algorithm
def test_the_frame_that_was_learned_moves_nothing(algorithm, kind, n_dims):
    """Statistics add up: those of the same rows once more are twice those."""
    X = waves(300, n_dims)
    options = {"algorithm": algorithm, "covariance_type": kind, "prior_counts": 0}
    model = CountMixtureAE(4, tol=1e-13, max_iter=5000, **options).fit(X)
    before = copy.deepcopy(model)
    model.partial_fit(X)
    for name in ("weights_", "means_", "covariances_"):
        np.testing.assert_allclose(getattr(model, name), getattr(before, name), atol=1e-5)
    assert model.n_counts_ == 600
    assert model.compression_ratio_ == pytest.approx(2 * before.compression_ratio_)


@every_gaussian
def test_a_frame_adds_its_statistics(kind):
    """A cluster takes over the counts of a second frame that fall on it, in every moment."""
    first, second = clusters(seed=0), clusters(300, seed=1) * 0.9
    options = {"covariance_type": kind, "prior_counts": 0, "tol": 1e-12, "max_iter": 500}
    model = CountMixtureAE(3, **options).fit(first)
    labels = np.concatenate([model.transform(rows)[:, 0] for rows in (first, second)])
    model.partial_fit(second)
    both = np.concatenate([first, second])
    covariances = np.empty((3, 2, 2))
    for j in range(3):
        own = both[labels == j]
        assert model.weights_[j] == pytest.approx(len(own) / len(both), rel=1e-4)
        np.testing.assert_allclose(model.means_[j], own.mean(axis=0), rtol=1e-3, atol=1e-3)
        covariances[j] = np.cov(own.T, bias=True)
    pooled = np.average(covariances, axis=0, weights=np.bincount(labels))
    expected = {
        "full": covariances,
        "diag": np.diagonal(covariances, axis1=1, axis2=2),
        "spherical": np.trace(covariances, axis1=1, axis2=2) / 2,
        "tied": pooled,
    }
    np.testing.assert_allclose(model.covariances_, expected[kind], rtol=1e-3, atol=1e-3)


@every_kind
@every_algorithm
def test_frames_improve_the_score_of_others(algorithm, kind):
    """Of counts that no frame holds."""
    new = waves(4000, seed=99)
    model = CountMixtureAE(
        15, covariance_type=kind, algorithm=algorithm, domain=[[0, 8]] * 2, max_iter=1000
    )
    scores = [model.partial_fit(waves(200, seed=seed)).score(new) for seed in range(10)]
    assert scores[-1] > scores[0] + 0.01
    assert scores[-1] > scores[1]


# ---------------------------------------------------------------------------- warm starts


@pytest.mark.filterwarnings("ignore::sklearn.exceptions.ConvergenceWarning")  # or it stands still
@every_gaussian
@every_algorithm
def test_a_warm_start_goes_on(algorithm, kind):
    """From the parameters and the objective of the last fit."""
    X = waves(800)
    options = {"algorithm": algorithm, "covariance_type": kind, "tol": 0, "warm_start": True}
    model = fitted(X, 12, max_iter=6, **options)
    before, nats = model.objectives_, model.score_samples(X)
    model.fit(X)
    # Candidates are chosen anew: with "em" what is left out is no longer the same.
    assert model.objectives_[0] == pytest.approx(before[-1], abs=1e-4 * (algorithm == "em") + 1e-9)
    assert np.diff(model.objectives_).min() >= -1e-12
    assert model.objectives_[-1] > before[-1]
    with pytest.warns(ConvergenceWarning):
        anew = model.set_params(warm_start=False, max_iter=1).fit(X)
    assert anew.objectives_[0] == pytest.approx(before[0], abs=1e-9)
    assert not np.allclose(anew.score_samples(X), nats, atol=1e-3)


@pytest.mark.parametrize("more", [13, 24, 55])
@pytest.mark.parametrize("kind", ["diag", "full"])
@every_algorithm
def test_a_warm_start_may_have_more_components(algorithm, kind, more):
    """Halves that stand for the whole; then they fit better."""
    X = waves(1500)
    options = {"algorithm": algorithm, "covariance_type": kind, "warm_start": True}
    model = fitted(X, 12, **options)
    score, objective = model.score(X), model.objectives_[-1]
    mean = model.weights_ @ model.means_
    larger = copy.deepcopy(model).set_params(n_components=more, max_iter=1)
    with pytest.warns(ConvergenceWarning):
        larger.fit(X)
    assert larger.n_components_ == len(larger.means_) == more
    assert larger.weights_.sum() == pytest.approx(1)
    np.testing.assert_allclose(larger.weights_ @ larger.means_, mean, rtol=1e-9)
    assert larger.score(X) == pytest.approx(score, abs=0.1)
    model.set_params(n_components=more, max_iter=500).fit(X)
    assert model.score(X) > score
    if algorithm == "em":
        assert model.objectives_[-1] > objective


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"n_components": 3}, "n_components=3"),
        ({"n_components": "bic"}, "n_components='bic'"),
        ({"n_averages": 2}, "n_averages=2"),
        ({"covariance_type": "diag"}, "covariance_type='diag'"),
    ],
)
def test_a_warm_start_cannot_become_another_mixture(change, message):
    X = waves(300)
    model = fitted(X, 5, warm_start=True).set_params(**change)
    with pytest.raises(ValueError, match=message):
        model.fit(X)


@pytest.mark.parametrize("prior_counts", [5.0, 0.0])
@pytest.mark.parametrize("n_components", [1, 3])
def test_a_warm_start_far_away_begins_anew(prior_counts, n_components):
    """Counts that have nothing of the last fit's are fitted as if it had not been, and told."""
    rows = np.random.RandomState(0).rand(300, 2)
    params = {"n_components": n_components, "prior_counts": prior_counts}
    expected = CountMixtureAE(**params).fit(rows).score(rows)
    for before in (1e9 * rows, 1e3 + rows):
        model = CountMixtureAE(warm_start=True, **params).fit(before)
        with pytest.warns(UserWarning, match="training started anew"):
            model.fit(rows)
        assert model.score(rows) == pytest.approx(expected, abs=1e-9)


def test_a_warm_start_keeps_its_features():
    model = fitted(waves(300), 5, warm_start=True)
    with pytest.raises(ValueError, match="3 features"):
        model.fit(waves(300, 3))


SWITCHES = {
    "Gaussians, then cells": ({"covariance_type": "full"}, {"covariance_type": "cell"}),
    "cells, then Gaussians": ({"covariance_type": "cell"}, {"covariance_type": "diag"}),
    "averages, then one": (
        {"covariance_type": "cell", "n_averages": 2},
        {"covariance_type": "full", "n_averages": 1},
    ),
    "pixels, then any places": (
        {"covariance_type": "cell", "image_shape": (9, 9)},
        {"image_shape": None},
    ),
}


@pytest.mark.parametrize("streamed", [False, True], ids=["fit", "partial_fit"])
@pytest.mark.parametrize("warm_start", [False, True], ids=["anew", "warm"])
@pytest.mark.parametrize(("first", "then"), SWITCHES.values(), ids=SWITCHES)
def test_nothing_of_an_earlier_fit_is_left(first, then, warm_start, streamed):
    """Neither by its name nor in what it holds, private or not."""
    before, X = waves(400, seed=1), waves(300)
    model = fitted(before, 4, **first)
    if streamed:
        model.partial_fit(waves(100, seed=2))
    params = {**first, **then, "warm_start": warm_start}
    model.set_params(**params)
    state = copy.deepcopy(vars(model))
    if warm_start and first == {"covariance_type": "full"}:
        with pytest.raises(ValueError, match="to fit anew"):  # from Gaussians to cells
            model.fit(X)
        assert same(model, state)
        model.set_params(warm_start=False)
        params["warm_start"] = False
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", ConvergenceWarning)
        model.fit(X)
    fresh = fitted(X, 4, **params)
    assert vars(model).keys() == vars(fresh).keys()
    assert same(model, vars(fresh))


@every_gaussian
def test_nothing_but_the_mixture_is_left_by_a_warm_start(kind):
    model = fitted(waves(400, seed=1), 4, covariance_type=kind, warm_start=True)
    model.partial_fit(waves(100, seed=2))
    means = model.means_
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", ConvergenceWarning)
        model.fit(waves(300))
    fresh = fitted(waves(300), 4, covariance_type=kind, warm_start=True)
    assert vars(model).keys() == vars(fresh).keys()
    assert model.n_counts_ == 300
    assert not any(means is value for value in vars(model).values())


# --------------------------------------------------------------------------------- starts


@every_kind
@every_algorithm
def test_the_order_of_rows_does_not_matter(algorithm, kind):
    """Neither to the start nor to what follows."""
    X = waves(1000)
    shuffled = np.random.default_rng(0).permutation(X)
    options = {"covariance_type": kind, "algorithm": algorithm}
    for max_iter in (1, 30):
        one, other = (fitted(rows, 20, max_iter=max_iter, **options) for rows in (X, shuffled))
        np.testing.assert_allclose(one.weights_, other.weights_, atol=1e-8)
        np.testing.assert_allclose(one.means_, other.means_, atol=1e-8)


def test_rows_that_are_repeated_have_the_start_of_rows():
    """Twice the counts are the same quantiles, also between weights that are not whole."""
    X = waves(300)
    start = fitted(X, 9, max_iter=1)
    twice = fitted(np.concatenate([X, X]), 9, max_iter=1)
    np.testing.assert_allclose(start.means_, twice.means_, atol=1e-8)
    weight = np.random.default_rng(0).integers(1, 6, 300)
    one = fitted(X, 9, sample_weight=weight, max_iter=1)
    other = fitted(np.repeat(X, weight, axis=0), 9, max_iter=1)
    np.testing.assert_allclose(one.weights_, other.weights_, atol=1e-8)
    np.testing.assert_allclose(one.means_, other.means_, atol=1e-8)
    assert not np.allclose(one.means_, start.means_, atol=1e-3)
    weight = np.random.default_rng(0).uniform(0.5, 2, 300)
    halves = np.concatenate([0.3 * weight, 0.7 * weight])
    one = fitted(X, 9, sample_weight=weight, max_iter=1)
    other = fitted(np.concatenate([X, X]), 9, sample_weight=halves, max_iter=1)
    np.testing.assert_allclose(one.means_, other.means_, atol=1e-8)
    np.testing.assert_allclose(one.covariances_, other.covariances_, atol=1e-8)


def test_only_random_starts_depend_on_the_seed():
    X = waves(300)
    for init in INITS:
        one, other = (fitted(X, 20, init=init, random_state=seed, max_iter=2) for seed in (0, 1))
        assert np.allclose(one.means_, other.means_) == (init != "counts")
        options = {"init": init, "n_averages": 2, "max_iter": 2}
        shifted = [fitted(X, 20, random_state=seed, **options) for seed in (0, 1)]
        assert not np.allclose(shifted[0].means_, shifted[1].means_)


@pytest.mark.parametrize("n_dims", [1, 2, 3, 6])
@pytest.mark.parametrize("n_components", [1, 2, 7, 13, 37])
@every_init
def test_any_number_of_components_can_start(init, n_components, n_dims):
    """All of them have counts, and the mixture beats one Gaussian."""
    X = waves(600, n_dims)
    model = fitted(X, n_components, init=init, max_iter=20)
    assert model.means_.shape == (n_components, n_dims)
    assert model.weights_.sum() == pytest.approx(1)
    assert np.isfinite(model.means_).all()
    assert (model.weights_ >= 0).all()
    one = fitted(X, 1)
    assert model.score(X) >= one.score(X) - 1e-3  # one may expect the centre of a grid
    if n_components > 2 and n_dims > 1:
        assert model.score(X) > one.score(X) + 0.01


@every_gaussian
@every_algorithm
def test_averages_are_mixtures_side_by_side(algorithm, kind):
    """As many components each, of weight 1 / n together; but not of shared covariances."""
    X = waves(400)
    model = CountMixtureAE(
        7, covariance_type=kind, algorithm=algorithm, n_averages=3, random_state=0, max_iter=1000
    )
    if kind == "tied":
        with pytest.raises(ValueError, match="n_averages=3"):
            model.fit(X)
        return
    model.fit(X)
    assert model.n_components_ == len(model.means_) == len(model.covariances_) == 21
    np.testing.assert_allclose(model.weights_.reshape(3, 7).sum(axis=1), 1 / 3)
    np.testing.assert_allclose(model.score_samples(X), logsumexp(joint(model, X), axis=1))
    parts = model.means_.reshape(3, 7, 2)
    assert not any(np.allclose(a, b) for a, b in pairwise(parts))


# ---------------------------------------------------------------------- empty components


@pytest.mark.parametrize("prior_counts", [0, 5])
@every_init
@every_gaussian
@every_algorithm
def test_more_components_than_distinct_rows(algorithm, kind, init, prior_counts):
    """Those left over stay empty or share; the objective never falls."""
    X = np.repeat(np.random.default_rng(0).uniform(0, 8, (5, 2)), 20, axis=0)
    options = {"covariance_type": kind, "init": init, "prior_counts": prior_counts}
    model = fitted(X, 12, algorithm=algorithm, min_variance=0.01, tol=0, max_iter=20, **options)
    objectives = model.objectives_
    assert np.diff(objectives).min() >= -1e-12 * np.abs(objectives).max()
    assert model.weights_.sum() == pytest.approx(1)
    assert np.isfinite(model.score_samples(X)).all()
    if prior_counts == 0 and kind != "tied" and init == "quantiles":
        found = matrices(model)[model.weights_ > 0.1]
        np.testing.assert_allclose(found, np.tile(0.01 * np.eye(2), (len(found), 1, 1)), atol=1e-9)


@pytest.mark.parametrize("prior_counts", [0, 5])
@every_algorithm
def test_empty_components_go_where_they_are_of_use(algorithm, prior_counts):
    """From a grid of which one cell in 16 holds all the counts, in eight clusters."""
    rng = np.random.default_rng(0)
    centres = rng.uniform(3, 22, (8, 2))
    X = np.repeat(centres, 100, axis=0) + rng.normal(0, 0.2, (800, 2))
    options = {"algorithm": algorithm, "prior_counts": prior_counts, "tol": 0}
    model = fitted(X, 16, init="grid", domain=[[0, 100]] * 2, max_iter=60, **options)
    objectives = model.objectives_
    assert np.diff(objectives).min() >= -1e-12 * np.abs(objectives).max()
    # The prior of wide grid cells holds them together.
    assert (model.weights_ * 800 > 1).sum() >= (3 if prior_counts else 8)
    assert model.score(X) > fitted(X, 1, **options).score(X) + (0.5 if prior_counts else 1.5)
    assert objectives[-1] > objectives[0] + (0.1 if prior_counts else 1.5)


# ------------------------------------------------------------------------ how many of them


@pytest.mark.parametrize("prior_counts", [0, 5])
@every_gaussian
def test_bic_finds_the_number_of_clusters(kind, prior_counts):
    """Three, whose BIC is the lowest of all numbers."""
    X = clusters()
    options = {"covariance_type": kind, "prior_counts": prior_counts, "max_iter": 1000}
    model = CountMixtureAE("bic", **options).fit(X)
    expected = -2 * model.score_samples(X).sum() + np.log(600) * model.n_parameters_
    assert model.bic(X) == pytest.approx(expected)
    others = [CountMixtureAE(n, **options).fit(X).bic(X) for n in (1, 2, 3, 4, 5, 6)]
    assert np.argmin(others) == 2
    assert model.n_components_ == 3


@pytest.mark.parametrize("n", [2, 5, 8, 30])
def test_eight_components_or_as_many_as_counts(n):
    """By default."""
    X = np.random.default_rng(0).normal(size=(n, 2))
    assert fitted(X).n_components_ == min(8, n)


@pytest.mark.parametrize("n_dims", [1, 2, 5])
@every_kind
def test_parameters_are_counted(kind, n_dims):
    """By hand: weights but one, means, entries of covariances; of cells splits and weights."""
    X = waves(300, n_dims)
    model = fitted(X, 6, covariance_type=kind, max_iter=2)
    entries = n_dims * (n_dims + 1) // 2
    per_covariance = {"spherical": 6, "diag": 6 * n_dims, "full": 6 * entries, "tied": entries}
    if kind == "cell":
        expected = 2 * (model.n_components_ - 1)
    else:
        expected = 5 + 6 * n_dims + per_covariance[kind]
    assert model.n_parameters_ == expected
    assert model.compression_ratio_ == pytest.approx(300 * n_dims / expected)


@pytest.mark.parametrize("kind", ["full", "cell"])
def test_averages_have_the_parameters_of_all(kind):
    X = waves(300)
    model = fitted(X, 6, covariance_type=kind, n_averages=3)
    if kind == "full":
        assert model.n_parameters_ == 3 * (5 + 12 + 18)
    else:
        assert model.n_parameters_ == 2 * (model.n_components_ - 3)


@pytest.mark.parametrize("kind", ["full", "cell"])
def test_held_out_counts_choose_the_number_of_components(kind):
    """By a grid search: three clusters, or four quadrants."""
    X = clusters() if kind == "full" else np.random.default_rng(0).permutation(quadrants()[0])
    rng = np.random.default_rng(0)
    options = {"domain": [[0, 8]] * 2} if kind == "cell" else {}
    model = CountMixtureAE(covariance_type=kind, max_iter=1000, prior_counts=0, **options)
    search = GridSearchCV(model, {"n_components": [1, 2, 3, 4, 60]}, cv=3)
    search.fit(rng.permutation(X))
    best = search.best_params_["n_components"]
    assert best in ((3, 4) if kind == "full" else (4,))


# ------------------------------------------------------------------------------ interrupts


class Interrupts:
    """Ctrl-C at some of the calls of a method, by a real signal where it is the main thread's."""

    def __init__(self, monkeypatch, *calls, owner=LocalRows, name="expect"):
        self.calls, self.n_calls = calls, 0
        method = getattr(owner, name)

        def interrupted(*args, **kwargs):
            self.n_calls += 1
            if self.n_calls in self.calls:
                signal.raise_signal(signal.SIGINT)
            return method(*args, **kwargs)

        monkeypatch.setattr(owner, name, interrupted)


def same(one, other):
    """Whether two estimators, or their attributes, are equal to the bit."""
    one, other = (flat(getattr(state, "__dict__", state)) for state in (one, other))
    assert one.keys() == other.keys()
    return all(np.array_equal(value, other[name]) for name, value in one.items())


def flat(state):
    """Attributes, tuples of arrays taken apart."""
    parts = {}
    for name, value in state.items():
        pieces = value if isinstance(value, tuple) else [value]
        parts |= {(name, i): piece for i, piece in enumerate(pieces)}
    return parts


def learned(model):
    names = ("weights_", "means_", "covariances_", "objectives_", "n_iter_", "n_components_")
    return {name: getattr(model, name) for name in names}


def by_iterations(X, n_components, **options):
    """Fits that stopped at max_iter, by the iterations that they have."""
    fits = [fitted(X, n_components, max_iter=m, tol=0, **options) for m in range(1, 13)]
    return {fit.n_iter_: learned(fit) for fit in fits}


@pytest.mark.parametrize("call", [2, 3, 7])
@pytest.mark.parametrize("algorithm", ["em", "partition"])
def test_an_interrupted_fit_keeps_the_last_complete_iteration(monkeypatch, algorithm, call):
    """It is what max_iter would have ended with, to the bit."""
    X = waves(300)
    uninterrupted = by_iterations(X, 6, algorithm=algorithm)
    Interrupts(monkeypatch, call, name="expect" if algorithm == "em" else "assign")
    model = CountMixtureAE(6, tol=0, algorithm=algorithm, random_state=0)
    with pytest.warns(UserWarning, match="interrupted in iteration .* is kept") as caught:
        model.fit(X)
    assert [warning.category for warning in caught] == [UserWarning]
    assert not model.converged_
    assert len(model.objectives_) == model.n_iter_ < 12
    assert f"the state after iteration {model.n_iter_} is kept" in str(caught[0].message)
    for name, value in uninterrupted[model.n_iter_].items():
        np.testing.assert_array_equal(getattr(model, name), value)
    monkeypatch.undo()
    model.set_params(warm_start=True, tol=1e-4).fit(X)
    assert model.converged_


RAISES = {
    "first iteration": ({}, 1),
    "a second time": ({}, (3, 4)),
    "bic": ({"n_components": "bic"}, 3),
    "coarse": ({"n_components": 40, "init": "split"}, 3),
    "cells": ({"covariance_type": "cell"}, 0),
}


@pytest.mark.parametrize("before", [False, True], ids=["new", "fitted"])
@pytest.mark.parametrize(("options", "calls"), RAISES.values(), ids=RAISES)
def test_an_interrupt_that_has_nothing_to_keep_is_raised(monkeypatch, options, calls, before):
    X = waves(300)
    model = CountMixtureAE(**{"n_components": 6, "tol": 0, "random_state": 0, **options})
    if before:
        model.set_params(tol=1e-2).fit(waves(200, seed=1))
    state = copy.deepcopy(model.__dict__)
    if calls == (3, 4):
        # The second comes as the first is dealt with.
        Interrupts(monkeypatch, 3)
        Interrupts(monkeypatch, 1, owner=_count_learning, name="warn_of_interruption")
    elif calls:
        Interrupts(monkeypatch, calls)
    else:
        Interrupts(monkeypatch, 1, owner=_count_learning, name="fit_cells")
    with pytest.raises(KeyboardInterrupt):
        model.fit(X)
    assert same(model, state)


def test_an_interrupted_frame_is_as_if_it_had_not_been_given(monkeypatch):
    model = fitted(waves(300), 6)
    state = copy.deepcopy(model.__dict__)
    Interrupts(monkeypatch, 1)
    with pytest.raises(KeyboardInterrupt):
        model.partial_fit(waves(200, seed=1))
    assert same(model, state)
    model.partial_fit(waves(200, seed=1))
    assert model.n_counts_ == 500


def test_complete_averages_are_kept(monkeypatch):
    X = waves(300)
    options = {"n_averages": 3, "max_iter": 4, "tol": 0}
    whole = fitted(X, 6, **options)
    Interrupts(monkeypatch, 10)  # in the third
    model = CountMixtureAE(6, random_state=0, **options)
    with pytest.warns(UserWarning, match="interrupted in average 3; .* average 2 is kept"):
        model.fit(X)
    assert model.n_components_ == 12
    assert not model.converged_
    np.testing.assert_allclose(model.weights_, whole.weights_[:12] * 3 / 2, rtol=1e-14)
    np.testing.assert_array_equal(model.means_, whole.means_[:12])
    assert model.n_parameters_ * 3 == whole.n_parameters_ * 2
    assert model.score(X) == pytest.approx(whole.score(X), abs=0.05)
    monkeypatch.undo()
    Interrupts(monkeypatch, 3)  # in the first
    with pytest.warns(UserWarning, match="interrupted in iteration 3; .* iteration 2 is kept"):
        model.fit(X)
    assert model.n_components_ == 6
    np.testing.assert_array_equal(model.objectives_, whole.objectives_[:2])


def fit_in_another(model, X):
    with inside_another_fit():
        model.fit(X)


AROUND = {
    "search": lambda model, X: GridSearchCV(model, {"prior_counts": [1, 2]}, cv=2).fit(X),
    "pipeline": lambda model, X: make_pipeline(StandardScaler(), model).fit(X),
    "another estimator": fit_in_another,
}


@pytest.mark.parametrize("fit", AROUND.values(), ids=AROUND)
def test_an_interrupt_inside_others_is_raised(monkeypatch, fit):
    """They would take the fit for complete, and rank it."""
    model = CountMixtureAE(6, tol=0)
    Interrupts(monkeypatch, 4)
    with pytest.raises(KeyboardInterrupt):
        fit(model, waves(300))
    assert not hasattr(model, "weights_")


def fit_interrupted_at_line(model, X, at):
    """KeyboardInterrupt at the line event `at` of a fit; all events, if it is never reached."""
    events = []

    def local(frame, event, arg):
        if event == "line":
            events.append((frame.f_code.co_name, frame.f_lineno))
            if len(events) == at:
                raise KeyboardInterrupt
        return local

    def every(frame, event, arg):
        return local if "skae" in frame.f_code.co_filename else None

    before = sys.gettrace()
    sys.settrace(every)
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            model.fit(X)
    finally:
        sys.settrace(before)
    return events


@pytest.mark.parametrize("n_dims", [2, 5])
def test_no_line_at_which_ctrl_c_tears_a_model(n_dims):
    """Every line of three iterations, once in each: raised and as before, or a whole iteration."""
    X, options = waves(40, n_dims), {"max_iter": 4, "tol": 0}
    whole = by_iterations(X, 2)
    other = fitted(waves(40, n_dims, seed=1), 3, **options)
    state = copy.deepcopy(other.__dict__)
    events = fit_interrupted_at_line(copy.copy(other).set_params(n_components=2), X, None)
    seen, places = Counter(), []
    for place, event in enumerate(events, 1):
        seen[event] += 1
        often = event[0] in ("train", "_iterations", "_averages", "_fit_gaussians")
        if seen[event] <= (4 if often else 1) or seen[event] == 40:
            places.append(place)
    kept = 0
    for place in places:
        model = copy.copy(other).set_params(n_components=2)
        try:
            fit_interrupted_at_line(model, X, place)
        except KeyboardInterrupt:
            if model.n_components_ == 3:
                assert same(model.set_params(n_components=3), state)
                continue
        kept += model.n_iter_ < 4
        for name, value in whole[model.n_iter_].items():
            np.testing.assert_array_equal(getattr(model, name), value)
    assert kept > 30


# ------------------------------------------------------------------------------- threads


@pytest.mark.parametrize("n_dims", [2, 6])
@every_kind
@every_algorithm
def test_threads_change_no_bit(algorithm, kind, n_dims):
    X = waves(1000, n_dims)
    options = {"covariance_type": kind, "algorithm": algorithm, "max_iter": 3}
    one, two = (fitted(X, 25, n_jobs=n_jobs, **options) for n_jobs in (1, 2))
    np.testing.assert_array_equal(one.weights_, two.weights_)
    np.testing.assert_array_equal(one.means_, two.means_)
    np.testing.assert_array_equal(one.score_samples(X), two.score_samples(X))
    np.testing.assert_array_equal(one.transform(X), two.transform(X))
    if n_dims == 2:
        np.testing.assert_array_equal(one.intensity((8, 8)), two.intensity((8, 8)))


BACKENDS = [{"backend": name} for name in ("loky", "multiprocessing", "threading")]


@pytest.mark.parametrize("n_jobs", [None, 2])
@pytest.mark.parametrize("context", [*BACKENDS, {"prefer": "processes"}], ids=str)
@pytest.mark.parametrize("kind", ["full", "cell"])
def test_backends_of_the_user_change_no_bit(kind, context, n_jobs):
    """Threads write into arrays of the caller, which processes would not share."""
    X = waves(1000)

    def results():
        model = fitted(X, 25, covariance_type=kind, n_averages=2, n_jobs=n_jobs, max_iter=3)
        model.partial_fit(X[:100])
        shares = model.responsibilities(X).toarray()
        queries = model.score_samples(X), model.transform(X), shares, model.intensity((8, 8))
        return model.weights_, model.means_, model.objectives_, *queries

    alone = results()
    with parallel_config(n_jobs=2, **context):
        for expected, found in zip(alone, results(), strict=True):
            np.testing.assert_array_equal(found, expected)


@pytest.mark.long
@pytest.mark.parametrize("backend", ["loky", "multiprocessing", "threading"])
def test_searches_change_no_bit(backend):
    X, options = waves(300), {"n_components": [2, 5]}
    model = CountMixtureAE(max_iter=100, tol=1e-2)
    alone = GridSearchCV(model, options, cv=2).fit(X)
    with parallel_config(backend):
        both = GridSearchCV(model.set_params(n_jobs=2), options, cv=2, n_jobs=2).fit(X)
    for name in ("split0_test_score", "split1_test_score"):
        np.testing.assert_array_equal(both.cv_results_[name], alone.cv_results_[name])


# ------------------------------------------------------------------------------ bad input

BAD_FITS = {
    "outside domain": ({"domain": [[0, 8], [0, 3]]}, r"outside of domain.*allowed"),
    "outside image": ({"image_shape": (8, 3)}, r"outside of image_shape=\(8, 3\)"),
    "few counts": ({"n_components": 61}, "n_components=61 exceeds the 60 counts"),
    "lengths": ({"image_shape": (8, 8, 8)}, "has 3 lengths, but X has 2 features"),
    "both": ({"image_shape": (9, 9), "domain": [[0, 9]] * 2}, "Set only one"),
    "domain shape": ({"domain": [0, 9]}, r"domain has shape \(2,\)"),
    "domain order": ({"domain": [[9, 0], [0, 9]]}, "lowest value below the highest"),
    "domain infinite": ({"domain": [[0, np.inf], [0, 9]]}, "finite"),
    "tied averages": ({"covariance_type": "tied", "n_averages": 2}, "covariance_type='tied'"),
    "image length": ({"image_shape": (0, 9)}, r"image_shape\[0\]"),
    "kind": ({"covariance_type": "round"}, "covariance_type"),
    "prior": ({"prior_counts": -1}, "prior_counts"),
}


@pytest.mark.parametrize(("options", "message"), BAD_FITS.values(), ids=BAD_FITS)
def test_a_fit_that_is_not_allowed_says_why(options, message):
    with pytest.raises(ValueError, match=message):
        CountMixtureAE(**options).fit(waves(60) + 0.1)


def test_lengths_of_an_image_are_integers():
    with pytest.raises(TypeError, match=r"image_shape\[1\]"):
        CountMixtureAE(image_shape=(9, 9.5)).fit(waves(60))


@every_kind
def test_rows_that_are_not_allowed_say_why(kind):
    X = waves(60)
    X[3, 1] = np.nan
    with pytest.raises(ValueError, match="NaN"):
        CountMixtureAE(covariance_type=kind).fit(X)
    model = fitted(waves(60), covariance_type=kind)
    for method in (model.score_samples, model.transform, model.responsibilities):
        with pytest.raises(ValueError, match="NaN"):
            method(X)


def test_weights_are_counts():
    """Shares that sum to less than one are no sample."""
    with pytest.raises(ValueError, match="must be at least 1"):
        CountMixtureAE().fit(waves(60), sample_weight=np.full(60, 0.01))
    with pytest.raises(ValueError, match="exceeds the 6 counts"):
        CountMixtureAE(7).fit(waves(60), sample_weight=np.full(60, 0.1))


def test_grids_that_are_not_allowed_say_why():
    model = fitted(waves(60), 3)
    for method in (model.intensity, model.reconstruct_image):
        with pytest.raises(ValueError, match="shape=None"):
            method()
        with pytest.raises(ValueError, match="1 lengths; expected 2"):
            method((8,))
        with pytest.raises(ValueError, match=r"shape\[1\]"):
            method((8, 0))
        with pytest.raises(TypeError, match=r"shape\[0\]"):
            method((8.5, 8))
    for total in (0, -3):
        with pytest.raises(ValueError, match="total"):
            model.reconstruct_image((8, 8), total=total)
    away = fitted(waves(60) + 1000, 3)
    with pytest.raises(ValueError, match="has no density on these pixels"):
        away.reconstruct_image((8, 8))


@every_kind
def test_rotated_gaussians_have_at_most_three_axes_of_pixels(kind):
    model = fitted(waves(60, 4), 3, covariance_type=kind)
    if kind in ("full", "tied"):
        with pytest.raises(ValueError, match="at most 3 axes"):
            model.intensity((2, 2, 2, 2))
    else:
        assert model.intensity((8, 8, 8, 9)).shape == (8, 8, 8, 9)


@every_kind
def test_frames_are_within_the_domain(kind):
    """A frame that is not is as if it had not been given."""
    model = CountMixtureAE(3, covariance_type=kind, domain=[[0, 8]] * 2, max_iter=1000).partial_fit(
        waves(60)
    )
    before = copy.deepcopy(model)
    with pytest.raises(ValueError, match="outside of domain"):
        model.partial_fit(waves(60) + 5)
    np.testing.assert_array_equal(model.weights_, before.weights_)
    assert model.n_counts_ == 60


def test_frames_are_within_the_cells():
    model = CountMixtureAE(3, covariance_type="cell").partial_fit(waves(60))
    with pytest.raises(ValueError, match="outside of the cells"):
        model.partial_fit(waves(60) + 50)


# -------------------------------------------------------------------- scales that change

PLANE = np.random.RandomState(0).rand(60, 2)
OF_SIX = np.random.RandomState(0).rand(60, 6)
CHANGES = {
    "equal, then even": [np.full((40, 2), 0.3), PLANE],
    "equal, then others": [np.full((40, 2), 3e8), np.full((40, 2), 7e8)],
    "equal, of six": [np.full((40, 6), 3e8), np.full((40, 6), 7e8)],
    "minute equal": [np.full((40, 2), 3e-31), np.full((40, 2), 7e-31)],
    "large, then small": [PLANE + 1e9, PLANE],
    "large, then small, of six": [OF_SIX + 1e9, OF_SIX],
    "minute, then large": [PLANE * 1e-30, PLANE],
    "large, then minute": [PLANE, PLANE * 1e-30],
    "small, then large": [OF_SIX, OF_SIX * 1e9],
}


@pytest.mark.parametrize("n_dims", [2, 3, 10])
def test_no_variance_is_lost_in_rounding(n_dims):
    """A covariance of rank one, of any size, is given others that float64 can invert."""
    for size in (1e-200, 1.0, 1e200):
        covariances = floored(np.full((1, n_dims, n_dims), size), 1e-300)
        values = np.linalg.eigvalsh(covariances[0])
        assert values[-1] == pytest.approx(n_dims * size)
        assert values[0] > 0.5e-12 * values[-1]
        inverse, log_det = inverses(covariances)
        np.testing.assert_allclose(inverse[0] @ covariances[0], np.eye(n_dims), atol=1e-2)
        assert log_det[0] == pytest.approx(np.log(values).sum(), abs=1e-2)


@pytest.mark.parametrize("how", ["stream", "warm start"])
@pytest.mark.parametrize("frames", CHANGES.values(), ids=CHANGES)
@every_gaussian
@every_algorithm
@pytest.mark.filterwarnings("ignore:warm_start=True was ignored")
def test_frames_of_other_scales_leave_a_model_that_works(algorithm, kind, frames, how):
    """Its covariances can be inverted, so that every query is finite."""
    model = CountMixtureAE(
        3, covariance_type=kind, algorithm=algorithm, warm_start=True, max_iter=100, tol=1
    )
    for X in frames:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", ConvergenceWarning)
            model = model.partial_fit(X) if how == "stream" else model.fit(X)
    for X in frames:
        assert not np.isnan(model.score_samples(X)).any()
        assert model.transform(X).max() < model.n_components_
        np.testing.assert_allclose(model.responsibilities(X).sum(axis=1), 1)
    assert np.isfinite(model.score(frames[-1]))
    assert np.isfinite(model.sample(20, random_state=0)).all()
    values = np.linalg.eigvalsh(matrices(model))
    assert (values[:, 0] > 1e-13 * values[:, -1]).all()


@every_gaussian
def test_the_floor_follows_the_stream(kind):
    """After a frame of equal counts it is as after one of all counts."""
    X = waves(400)
    stream = CountMixtureAE(1, covariance_type=kind).partial_fit(np.full((10, 2), 4.0))
    assert stream.partial_fit(X)._floor == pytest.approx(1e-6 * X.var(axis=0).mean(), rel=0.05)


@pytest.mark.parametrize("scale", [1e155, -1e300])
def test_rows_far_outside_of_cells_have_no_density(scale):
    """And the code of the nearest cell: in a corner of the domain."""
    X = waves(60)
    model = CountMixtureAE(4, covariance_type="cell", domain=[[0, 8]] * 2).fit(X)
    far = np.full((3, 2), scale)
    corner = model.transform(np.full((1, 2), 8.0 * (scale > 0)))
    np.testing.assert_array_equal(model.score_samples(far), -np.inf)
    np.testing.assert_array_equal(model.transform(far), np.tile(corner, (3, 1)))


def test_scores_too_low_for_float32_are_infinite():
    model = CountMixtureAE(2).fit((waves(60) * 1e-5).astype(np.float32))
    scores = model.score_samples(np.full((2, 2), 1e30, dtype=np.float32))
    np.testing.assert_array_equal(scores, np.full(2, -np.inf, dtype=np.float32))


@every_kind
def test_weights_beyond_all_counts_are_refused(kind):
    X, model = waves(60), CountMixtureAE(2, covariance_type=kind)
    for weight in (1e300, 1.7e308):
        with pytest.raises(ValueError, match=r"sample_weight sums to .* must be below"):
            model.fit(X, sample_weight=np.full(60, weight))
    with pytest.raises(ValueError, match="Rescale X"):
        model.fit(X * 1e-300, sample_weight=np.full(60, 1e20))


@pytest.mark.parametrize("n_dims", [2, 6])
@every_gaussian
def test_rows_whose_squares_overflow_are_refused(kind, n_dims):
    X = waves(60, n_dims)
    model = CountMixtureAE(2, covariance_type=kind, max_iter=100, tol=1)
    for scale in (1e155, 1e200, 1e300, 1e-160):
        with pytest.raises(ValueError, match=r"outside of the range of float64. Rescale X"):
            model.fit(X * scale)
    model.fit(X)
    for query in (model.score_samples, model.transform, model.responsibilities, model.partial_fit):
        with pytest.raises(ValueError, match=r"outside of the range of float64. Rescale X"):
            query(X * 1e155)


def test_a_domain_that_is_no_array_is_named():
    with pytest.raises(TypeError, match="domain: "):
        CountMixtureAE(2, domain={}).fit(np.eye(4))


def test_cells_of_far_counts_end_where_no_numbers_lie_between():
    X = np.random.default_rng(0).normal(size=(12, 2))
    X[::5] = 1e30  # halves of this range are rounded long before they are as small as 0.5
    model = CountMixtureAE(2, covariance_type="cell", min_variance=0.25, random_state=0).fit(X)
    assert np.isfinite(model.score_samples(X)).all()
