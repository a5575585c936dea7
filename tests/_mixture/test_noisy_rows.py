"""Rows with noise against SciPy's densities and the formulas of extreme deconvolution."""

import numpy as np
import pytest
from scipy.optimize import minimize
from scipy.special import logsumexp
from scipy.stats import multivariate_normal

from skae._mixture import noisy_rows
from skae._mixture.compiled_rows import rows_under_mixture
from skae._mixture.em import train, updated
from skae._mixture.gaussians import Gaussians, Prior, Statistics, maximise
from skae._mixture.noisy_gaussians import MOST_PLANES
from skae._mixture.noisy_rows import NoisyRows
from skae._mixture.responsibilities import LOCAL_DIMS

KINDS = ["spherical", "diag", "tied", "full"]
every_kind = pytest.mark.parametrize("kind", KINDS)
SHAPES = ["equal", "axes", "matrices", "some exact"]


def positive_definite(n, n_dims, rng):
    factor = rng.normal(size=(n, n_dims, n_dims))
    return factor @ factor.swapaxes(1, 2) / n_dims + 0.1 * np.eye(n_dims)


def make_mixture(n_components, n_dims, kind="full", seed=0, scale=1.0):
    rng = np.random.default_rng(seed)
    matrices = scale**2 * positive_definite(n_components, n_dims, rng)
    covariances = {
        "full": matrices,
        "tied": matrices[0],
        "diag": np.diagonal(matrices, axis1=1, axis2=2).copy(),
        "spherical": matrices[:, 0, 0].copy(),
    }[kind]
    means = rng.uniform(-3, 3, (n_components, n_dims))
    return Gaussians(rng.dirichlet(np.full(n_components, 5.0)), means, covariances, kind)


def make_noise(n, n_dims, shape="matrices", seed=1):
    rng = np.random.default_rng(seed)
    noise = positive_definite(n, n_dims, rng)
    if shape == "equal":
        return noise[:, :1, :1] * np.eye(n_dims)
    if shape == "axes":
        return noise * np.eye(n_dims)
    if shape == "some exact":  # no noise at all, or none along an oblique axis
        noise[::3] = 0
        axis = rng.normal(size=(len(noise[1::3]), n_dims, 1))
        noise[1::3] = axis @ axis.swapaxes(1, 2)
    return noise


def make_rows(n, gaussians, noise, seed=2):
    """Rows of the mixture with noise, and their weights."""
    rng = np.random.default_rng(seed)
    component = rng.choice(len(gaussians.weights), n, p=gaussians.weights)
    covariances = gaussians.full()[component] + noise
    factors = np.linalg.cholesky(covariances + 1e-12 * np.eye(noise.shape[1]))
    away = factors @ rng.normal(size=(n, noise.shape[1], 1))
    return gaussians.means[component] + away[..., 0], rng.uniform(0.5, 2, n)


def log_joint(X, gaussians, noise):
    """log w_j N(x_i; mu_j, Sigma_j + S_i)"""
    found = np.empty((len(X), len(gaussians.weights)))
    for j, matrix in enumerate(gaussians.full()):
        total, away = matrix + noise, X - gaussians.means[j]
        squared = (away * np.linalg.solve(total, away[:, :, None])[:, :, 0]).sum(axis=1)
        found[:, j] = -(squared + np.linalg.slogdet(2 * np.pi * total)[1]) / 2
    return found + np.log(gaussians.weights)


def expected(X, gaussians, noise, responsibility):
    """The statistics of the posteriors of true positions, by the formulas of the paper."""
    n_components, n_dims = gaussians.means.shape
    first, second = np.zeros((n_components, n_dims)), np.zeros((n_components, n_dims, n_dims))
    for j, matrix in enumerate(gaussians.full()):
        gain = matrix @ np.linalg.inv(matrix + noise)
        away = (gain @ (X - gaussians.means[j])[:, :, None])[..., 0]
        remains = matrix - gain @ matrix
        r = responsibility[:, j]
        first[j] = r @ away
        second[j] = np.einsum("i,ia,ib->ab", r, away, away) + np.einsum("i,iab->ab", r, remains)
    if gaussians.kind in ("diag", "spherical"):
        second = np.diagonal(second, axis1=1, axis2=2)
    elif gaussians.kind == "tied":
        second = second.sum(axis=0)
    return Statistics(responsibility.sum(axis=0), first, second)


def assert_equal_statistics(found, truth, **tolerance):
    for one, other in zip(found, truth, strict=True):
        np.testing.assert_allclose(one, other, **tolerance)


def no_prior(gaussians):
    n_dims = gaussians.means.shape[1]
    ones = np.ones_like(gaussians.means)
    return Prior(0.0, gaussians.means, ones, np.eye(n_dims))


def trained(rows, gaussians, total, **options):
    options = {"algorithm": "em", "floor": 1e-6, "tol": 1e-5, "max_iter": 100} | options
    prior = no_prior(gaussians)
    return train(rows, gaussians, prior, total=total, keeps_progress=False, **options)


@pytest.fixture
def few_candidates(monkeypatch):
    """Candidates are searched also for mixtures of few components."""
    monkeypatch.setattr(noisy_rows, "_ALL", 0)


# --------------------------------------------------------------------- brute force


@every_kind
@pytest.mark.parametrize("n_dims", [1, 2, 3])
def test_the_density_is_that_of_scipy(n_dims, kind):
    gaussians = make_mixture(3, n_dims, kind)
    noise = make_noise(20, n_dims)
    X, weight = make_rows(20, gaussians, noise)
    truth = [
        sum(
            w * multivariate_normal.pdf(x, mean, matrix + of_row)
            for w, mean, matrix in zip(*gaussians[:2], gaussians.full(), strict=True)
        )
        for x, of_row in zip(X, noise, strict=True)
    ]
    np.testing.assert_allclose(logsumexp(log_joint(X, gaussians, noise), axis=1), np.log(truth))
    rows = NoisyRows(X, weight, noise, 3, 1)
    np.testing.assert_allclose(rows.log_density(gaussians), np.log(truth))


@pytest.mark.parametrize("searched", [False, True])
@pytest.mark.parametrize("shape", SHAPES)
@every_kind
@pytest.mark.parametrize("n_dims", [1, 2, 3, 4, 5, 6, MOST_PLANES + 1])
def test_an_e_step_is_that_of_the_paper(n_dims, kind, shape, searched, monkeypatch):
    if searched:
        monkeypatch.setattr(noisy_rows, "_ALL", 0)
    gaussians = make_mixture(4, n_dims, kind)
    noise = make_noise(90, n_dims, shape)
    X, weight = make_rows(90, gaussians, noise)
    joint = log_joint(X, gaussians, noise)
    nats = logsumexp(joint, axis=1)
    soft = np.exp(joint - nats[:, None])
    rows = NoisyRows(X, weight, noise, 4, 1)
    rows.select_candidates(gaussians)
    found, statistics = rows.expect(gaussians)
    assert found == pytest.approx(weight @ nats, rel=1e-11)
    truth = expected(X, gaussians, noise, weight[:, None] * soft)
    assert_equal_statistics(statistics, truth, rtol=1e-9, atol=1e-9)
    np.testing.assert_allclose(rows.log_density(gaussians), nats, rtol=1e-10)
    np.testing.assert_allclose(rows.responsibilities(gaussians).toarray(), soft, atol=1e-9)
    # Hard assignments
    best = joint.argmax(axis=1)
    found, statistics, labels = rows.assign(gaussians)
    assert found == pytest.approx(weight @ joint.max(axis=1), rel=1e-11)
    np.testing.assert_array_equal(labels, best)
    np.testing.assert_array_equal(rows.best(gaussians), best)
    truth = expected(X, gaussians, noise, weight[:, None] * np.eye(4)[best])
    assert_equal_statistics(statistics, truth, rtol=1e-9, atol=1e-9)


@every_kind
@pytest.mark.parametrize("n_dims", [1, 2, 3, 5])
def test_rows_without_noise_are_other_rows(n_dims, kind):
    """LocalRows and DenseRows, which have no noise."""
    gaussians = make_mixture(5, n_dims, kind)
    exact = np.zeros((400, n_dims, n_dims))
    X, weight = make_rows(400, gaussians, exact)
    rows, others = NoisyRows(X, weight, exact, 5, 1), rows_under_mixture(X, weight, 5, 1)
    for each in (rows, others):
        each.select_candidates(gaussians)
    nats, statistics = rows.expect(gaussians)
    other_nats, other_statistics = others.expect(gaussians)
    assert nats == pytest.approx(other_nats, rel=1e-12)
    assert_equal_statistics(statistics, other_statistics, rtol=1e-9, atol=1e-9)
    other_density = others.log_density(gaussians)
    np.testing.assert_allclose(rows.log_density(gaussians), other_density, rtol=1e-9)


@pytest.mark.parametrize("n_dims", [2, 3, 5, MOST_PLANES + 1])
def test_thin_components_are_accurate(n_dims):
    """Without noise; the covariances have eigenvalues between 1e-10 and 1."""
    rng = np.random.default_rng(0)
    axes = np.linalg.qr(rng.normal(size=(n_dims, n_dims)))[0]
    deviations = np.geomspace(1e-5, 1, n_dims)
    matrix = (axes * deviations**2) @ axes.T
    gaussians = Gaussians(np.ones(1), np.zeros((1, n_dims)), matrix[None], "full")
    X = rng.normal(size=(200, n_dims)) * deviations @ axes.T
    exact = np.zeros((200, n_dims, n_dims))
    exact[:, 0, -1] = exact[:, -1, 0] = 1e-300  # as good as none, but not diagonal
    rows = NoisyRows(X, None, exact, 1, 1)
    rows.select_candidates(gaussians)
    after = maximise(rows.expect(gaussians)[1], gaussians, no_prior(gaussians), 0.0)
    along = axes.T @ after.covariances[0] @ axes / deviations / deviations[:, None]
    truth = np.cov((X @ axes / deviations).T, ddof=0)
    np.testing.assert_allclose(along, truth, atol=1e-4)


# --------------------------------------------------------------------- large noise


@every_kind
@pytest.mark.parametrize("size", [1e8, 1e150])
@pytest.mark.parametrize("n_dims", [2, 3, 6])
def test_a_coordinate_with_huge_noise_is_missing(n_dims, size, kind):
    """The density is that of the other coordinates, and the coordinate is predicted from them."""
    gaussians = make_mixture(3, n_dims, kind)
    noise = make_noise(60, n_dims, "axes")
    known = slice(0, n_dims - 1)
    X, weight = make_rows(60, gaussians, noise)
    noise[:, -1, -1] = size
    rows = NoisyRows(X, weight, noise, 3, 1)
    rows.select_candidates(gaussians)
    nats, statistics = rows.expect(gaussians)
    matrices = gaussians.full()
    marginal = Gaussians(
        gaussians.weights, gaussians.means[:, known], matrices[:, known, known], "full"
    )
    joint = log_joint(X[:, known], marginal, noise[:, known, known])
    density = logsumexp(joint, axis=1)
    flat = -0.5 * np.log(2 * np.pi * size)
    assert nats == pytest.approx(weight @ (density + flat), rel=1e-6)
    r = weight[:, None] * np.exp(joint - density[:, None])
    np.testing.assert_allclose(statistics.n, r.sum(axis=0), rtol=1e-6)
    for j, matrix in enumerate(matrices):
        total = matrix[known, known] + noise[:, known, known]
        away = (X - gaussians.means[j])[:, known]
        predicted = np.einsum("b,nbc,nc->n", matrix[-1, known], np.linalg.inv(total), away)
        assert statistics.first[j, -1] == pytest.approx(r[:, j] @ predicted, rel=1e-5, abs=1e-5)


@pytest.mark.filterwarnings("error")
@pytest.mark.parametrize("n_dims", [1, 2, 3, 6, MOST_PLANES + 1])
@pytest.mark.parametrize("size", [1e10, 1e30, 1e100])
def test_noise_of_any_size_has_finite_results(size, n_dims):
    """Along oblique axes its rounding errors are larger than the components, which are thin."""
    gaussians = make_mixture(3, n_dims)
    gaussians.covariances[0] *= 1e-6
    noise = make_noise(60, n_dims)
    X, _ = make_rows(60, gaussians, noise)
    axis = np.random.default_rng(3).normal(size=(30, n_dims, 1))
    noise[:30] = size * axis @ axis.swapaxes(1, 2)
    noise[30:40] *= size
    rows = NoisyRows(X, None, noise, 3, 1)
    rows.select_candidates(gaussians)
    nats, statistics = rows.expect(gaussians)
    assert np.isfinite(nats)
    assert all(np.isfinite(part).all() for part in statistics)
    assert np.isfinite(rows.log_density(gaussians)).all()
    after = maximise(statistics, gaussians, no_prior(gaussians), 1e-9)
    assert (np.linalg.eigvalsh(after.covariances) > 0).all()


# ------------------------------------------------------------------------ training


def textbook_step(X, weight, gaussians, noise):
    """An iteration of extreme deconvolution, eq. 16 and 17 of Bovy, Hogg and Roweis (2011)."""
    joint = log_joint(X, gaussians, noise)
    nats = logsumexp(joint, axis=1, keepdims=True)
    q = weight[:, None] * np.exp(joint - nats)
    n, first, second = expected(X, gaussians, noise, q)[:3]
    step = first / n[:, None]
    covariances = second / n[:, None, None] - step[:, :, None] * step[:, None, :]
    return Gaussians(n / n.sum(), gaussians.means + step, covariances, "full"), weight @ nats[:, 0]


@pytest.mark.parametrize("n_dims", [1, 2, 4])
def test_iterations_are_those_of_the_textbook(n_dims):
    truth = make_mixture(3, n_dims, seed=5)
    noise = make_noise(150, n_dims)
    X, weight = make_rows(150, truth, noise)
    one = other = make_mixture(3, n_dims, seed=6, scale=2.0)
    rows = NoisyRows(X, weight, noise, 3, 1)
    rows.select_candidates(one)
    for _ in range(8):
        nats, statistics = rows.expect(one)
        one = maximise(statistics, one, no_prior(one), 1e-9)
        other, other_nats = textbook_step(X, weight, other, noise)
        assert nats == pytest.approx(other_nats, rel=1e-9)
    for name in ("weights", "means", "covariances"):
        np.testing.assert_allclose(getattr(one, name), getattr(other, name), rtol=1e-7, atol=1e-9)


def test_iterations_are_those_of_astroml():
    """XDGMM, from the same start."""
    pytest.importorskip("astroML.density_estimation")
    from astroML.density_estimation import XDGMM

    truth = make_mixture(3, 2, seed=5)
    noise = make_noise(300, 2)
    X, _ = make_rows(300, truth, noise)
    ours = make_mixture(3, 2, seed=6, scale=2.0)
    peer = XDGMM(3)
    peer.alpha, peer.mu, peer.V = ours.weights, ours.means, ours.covariances
    rows = NoisyRows(X, None, noise, 3, 1)
    rows.select_candidates(ours)
    for _ in range(8):
        nats, statistics = rows.expect(ours)
        assert nats == pytest.approx(peer.logL(X, noise), rel=1e-9)
        ours = maximise(statistics, ours, no_prior(ours), 1e-9)
        peer._EMstep(X, noise)


@every_kind
def test_one_component_is_the_numerical_optimum(kind):
    """Of the likelihood as a function of the mean and of a factor of the covariance."""
    truth = make_mixture(1, 2, kind, seed=4)
    noise = make_noise(200, 2)
    X, weight = make_rows(200, truth, noise)

    def unpacked(theta):
        factor = np.array([[theta[2], 0], [theta[3], theta[4]]])
        if kind == "diag":
            factor[1, 0] = 0
        elif kind == "spherical":
            factor = theta[2] * np.eye(2)
        return theta[:2], factor @ factor.T

    def negative(theta):
        mean, covariance = unpacked(theta)
        total = covariance + noise
        away = X - mean
        squared = (away[:, None] @ np.linalg.inv(total) @ away[:, :, None])[:, 0, 0]
        return weight @ (squared + np.linalg.slogdet(total)[1]) / 2

    best = minimize(negative, [0, 0, 1, 0, 1], method="BFGS", options={"gtol": 1e-6})
    mean, covariance = unpacked(best.x)
    rows = NoisyRows(X, weight, noise, 1, 1)
    fit = trained(rows, truth, weight.sum(), tol=0.0, max_iter=1000).gaussians
    np.testing.assert_allclose(fit.means[0], mean, atol=1e-4)
    np.testing.assert_allclose(fit.full()[0], covariance, atol=1e-4)


@every_kind
@pytest.mark.parametrize("algorithm", ["em", "partition"])
@pytest.mark.parametrize(
    ("n_components", "n_dims"), [(4, 1), (4, 2), (4, 3), (4, 5), (100, 1), (100, 2), (100, 3)]
)
def test_the_objective_never_decreases(n_components, n_dims, algorithm, kind):
    """With candidates of all kinds, and noise of very different sizes."""
    truth = make_mixture(n_components, n_dims, kind, scale=0.3)
    n = 600
    noise = make_noise(n, n_dims, "some exact")
    noise *= 10 ** np.random.default_rng(0).uniform(-4, 2, (n, 1, 1))
    X, weight = make_rows(n, truth, noise)
    start = make_mixture(n_components, n_dims, kind, seed=8)
    rows = NoisyRows(X, weight, noise, n_components, 1)
    fit = trained(rows, start, weight.sum(), algorithm=algorithm, max_iter=40)
    assert len(fit.objectives) > 3
    assert (np.diff(fit.objectives) > -1e-9).all()
    if algorithm == "em":
        full = weight @ rows.log_density(fit.gaussians) / weight.sum()
        assert fit.objectives[-1] == pytest.approx(full, abs=0.02)
        assert fit.objectives[-1] < full + 1e-9


def test_deconvolution_recovers_the_width():
    """The variance of true positions, not that of the rows, which is five times as large."""
    rng = np.random.default_rng(0)
    n = 20_000
    noise = rng.uniform(2, 6, n)[:, None, None] * np.eye(2)
    X = rng.normal(size=(n, 2)) * np.sqrt(1 + noise[:, 0, 0])[:, None]
    rows = NoisyRows(X, None, noise, 1, 1)
    start = Gaussians(np.ones(1), np.zeros((1, 2)), 5 * np.eye(2)[None], "full")
    fit = trained(rows, start, n, tol=1e-9, max_iter=500).gaussians
    np.testing.assert_allclose(fit.covariances[0], np.eye(2), atol=0.12)


def test_new_rows_update_a_mixture():
    """As a fit to all rows does for the statistics of both parts."""
    gaussians = make_mixture(3, 2)
    noise = make_noise(100, 2)
    X, _ = make_rows(100, gaussians, noise)
    rows = NoisyRows(X, None, noise, 3, 1)
    prior = no_prior(gaussians)
    found = updated(rows, gaussians, prior, algorithm="em", before=50.0, floor=1e-6)
    n = rows.expect(gaussians)[1].n + 50 * gaussians.weights
    np.testing.assert_allclose(found.weights, n / 150, rtol=1e-9)


# ---------------------------------------------------------------------- candidates


@pytest.mark.parametrize("n_dims", [1, 2, 3])
@pytest.mark.parametrize("shape", SHAPES)
def test_no_candidate_is_missed(shape, n_dims, monkeypatch):
    """Queries with searched candidates are those with all components."""
    gaussians = make_mixture(120, n_dims, scale=0.2)
    noise = make_noise(800, n_dims, shape)
    noise *= 10 ** np.random.default_rng(0).uniform(-5, 1, (800, 1, 1))
    X, weight = make_rows(800, gaussians, noise)
    assert n_dims <= LOCAL_DIMS
    searched = NoisyRows(X, weight, noise, 120, 1)
    monkeypatch.setattr(noisy_rows, "_ALL", 1000)
    full = NoisyRows(X, weight, noise, 120, 1)
    for rows in (searched, full):
        rows.select_candidates(gaussians)
    blocks, members = searched._blocks.tree.members.shape
    assert len(searched.selected().block) < 120 * blocks
    assert members <= 64
    # Training ignores components that are 7 nats below the best one.
    nats, all_nats = searched.expect(gaussians)[0], full.expect(gaussians)[0]
    assert all_nats - weight.sum() * np.log1p(120 * np.exp(-7)) < nats < all_nats + 1e-9
    density = full.log_density(gaussians)
    np.testing.assert_allclose(searched.log_density(gaussians), density, rtol=1e-9, atol=1e-9)
    np.testing.assert_array_equal(searched.best(gaussians), full.best(gaussians))
    one, other = searched.responsibilities(gaussians), full.responsibilities(gaussians)
    np.testing.assert_allclose(one.toarray(), other.toarray(), atol=1e-9)


def test_candidates_change_only_where_blocks_gain():
    """With fewer candidates, the free energy would decrease."""
    gaussians = make_mixture(200, 2, scale=0.2)
    noise = 0.05 * make_noise(1000, 2)
    X, _ = make_rows(1000, gaussians, noise)
    rows = NoisyRows(X, None, noise, 200, 1)
    wide = gaussians._replace(covariances=1e4 * gaussians.covariances)
    rows.select_candidates(wide)  # all components are candidates
    before = rows.expect(gaussians)[0]
    assert before == pytest.approx(rows.log_density(gaussians).sum(), rel=1e-12)
    rows.select_candidates(gaussians)
    assert rows.expect(gaussians)[0] >= before - 1e-9


def test_candidates_are_restored(few_candidates):
    gaussians = make_mixture(80, 2, scale=0.2)
    noise = 0.01 * make_noise(500, 2)
    X, _ = make_rows(500, gaussians, noise)
    rows = NoisyRows(X, None, noise, 80, 1)
    rows.select_candidates(gaussians)
    before, nats = rows.selected(), rows.expect(gaussians)[0]
    rows.assign(gaussians)
    rows.restore(before)
    assert rows.expect(gaussians)[0] == nats


@pytest.mark.parametrize("n_components", [5, 100])
def test_results_do_not_depend_on_threads(n_components):
    gaussians = make_mixture(n_components, 2, scale=0.3)
    noise = make_noise(3000, 2)
    X, weight = make_rows(3000, gaussians, noise)
    found = []
    for n_jobs in (1, 2):
        rows = NoisyRows(X, weight, noise, n_components, n_jobs)
        rows.select_candidates(gaussians)
        found.append(rows.expect(gaussians))
    assert found[0][0] == found[1][0]
    for one, other in zip(found[0][1], found[1][1], strict=True):
        np.testing.assert_array_equal(one, other)


@pytest.mark.parametrize("n_dims", [2, 5])
def test_weights_are_numbers_of_rows(n_dims):
    gaussians = make_mixture(3, n_dims)
    noise = make_noise(50, n_dims)
    X, _ = make_rows(50, gaussians, noise)
    times = np.arange(50) % 3 + 1
    found = []
    for which, weight in (
        (np.arange(50), times.astype(float)),
        (np.repeat(np.arange(50), times), None),
    ):
        rows = NoisyRows(X[which], weight, noise[which], 3, 1)
        rows.select_candidates(gaussians)
        found.append(rows.expect(gaussians))
    assert found[0][0] == pytest.approx(found[1][0], rel=1e-12)
    assert_equal_statistics(found[0][1], found[1][1], rtol=1e-9, atol=1e-9)


@every_kind
def test_components_of_weight_zero_have_no_part(kind):
    gaussians = make_mixture(4, 2, kind)
    gaussians.weights[1] = 0
    gaussians.weights[:] /= gaussians.weights.sum()
    noise = make_noise(60, 2)
    X, _ = make_rows(60, gaussians, noise)
    rows = NoisyRows(X, None, noise, 4, 1)
    rows.select_candidates(gaussians)
    statistics = rows.expect(gaussians)[1]
    assert statistics.n[1] == 0
    assert not statistics.first[1].any()
    others = gaussians.chosen([0, 2, 3])
    few = NoisyRows(X, None, noise, 3, 1)
    np.testing.assert_allclose(rows.log_density(gaussians), few.log_density(others), rtol=1e-12)
    assert 1 not in rows.best(gaussians)
