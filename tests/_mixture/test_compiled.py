"""Compiled loops against enumeration, and against the loops of NumPy."""

import subprocess
import sys

import numpy as np
import pytest
from scipy.special import logsumexp

from skae import CountMixtureAE
from skae._mixture import compiled
from skae._mixture.component_search import build_tree
from skae._mixture.gaussians import (
    Gaussians,
    Prior,
    Statistics,
    log_joint,
    log_prior,
    maximise,
    over_relaxed,
)
from skae._mixture.initialization import quantile_cells
from skae._mixture.responsibilities import LocalRows, products, training_margin

pytest.importorskip("numba")
from skae._mixture import compiler, kernels
from skae._mixture.compiled_rows import CompiledRows, rows_under_mixture
from skae._utils import compiler as shared_compiler

KINDS = ["spherical", "diag", "full", "tied"]


@pytest.fixture
def compiles(monkeypatch):
    """Fits of any size are compiled."""
    monkeypatch.setattr(compiled, "WORTH_COMPILING", 0)


def make_mixture(n_components, n_dims, kind="full", seed=0):
    rng = np.random.default_rng(seed)
    roots = rng.normal(size=(n_components, n_dims, n_dims))
    matrices = roots @ roots.swapaxes(1, 2) / n_dims + 0.1 * np.eye(n_dims)
    covariances = {
        "full": matrices,
        "tied": matrices[0],
        "diag": np.ascontiguousarray(np.diagonal(matrices, axis1=1, axis2=2)),
        "spherical": matrices[:, 0, 0],
    }[kind]
    weights = rng.dirichlet(np.ones(n_components))
    weights[:2] = 0, weights[0] + weights[1]
    return Gaussians(weights, rng.uniform(0, 20, (n_components, n_dims)), covariances, kind)


def make_rows(n, n_dims, how="even", seed=1):
    rng = np.random.default_rng(seed)
    if how == "even":
        return rng.uniform(0, 20, (n, n_dims))
    return rng.integers(0, 4, (n, n_dims)).astype(float)


def test_exp_is_accurate():
    x = np.concatenate([-np.logspace(-300, np.log10(707.9), 20_000), [0.0, -1.0, -np.log(2)]])
    found = np.array([compiler.exp(value) for value in x])
    np.testing.assert_allclose(found, np.exp(x), rtol=3e-15)
    assert [compiler.exp(value) for value in (-709.0, -1e308, -np.inf)] == [0, 0, 0]


# ------------------------------------------------------------------------------- trees


@pytest.mark.parametrize("how", ["even", "duplicates"])
@pytest.mark.parametrize("n", [1, 33, 1000, 4097])
def test_a_tree_of_rows_holds_every_row_once_in_tight_boxes(n, how):
    X = make_rows(n, 2, how)
    tree = compiled.tree_of_rows(X, 16, 2)
    assert tree.members.shape == build_tree(X, X, 16).members.shape
    np.testing.assert_array_equal(np.sort(tree.members[~tree.filler]), np.arange(n))
    np.testing.assert_array_equal(tree.lo[-1], X[tree.members].min(axis=1))
    np.testing.assert_array_equal(tree.hi[-1], X[tree.members].max(axis=1))


@pytest.mark.parametrize("n", [512, 4096])
def test_leaves_of_rows_are_neighbourhoods(n):
    """In one dimension no leaf reaches into another."""
    X = np.random.default_rng(0).uniform(size=(n, 1))
    tree = compiled.tree_of_rows(X, 8, 1)
    order = np.argsort(tree.lo[-1][:, 0])
    assert (tree.hi[-1][order[:-1], 0] <= tree.lo[-1][order[1:], 0]).all()


# ------------------------------------------------------------------- rows of a mixture


def blocks_of_rows(rows):
    """The rows of every block, without repeated ones."""
    tree = rows._blocks.tree
    return [tree.members[b][~tree.filler[b]] for b in range(len(tree.members))]


@pytest.mark.parametrize("extra", [False, True])
@pytest.mark.parametrize("n_components", [50, 200])  # with the margin of few components, and more
@pytest.mark.parametrize(("n_dims", "kind"), [(2, kind) for kind in KINDS] + [(3, "full")])
def test_expectations_are_those_of_enumeration(n_dims, kind, n_components, extra):
    """With exactly those components that are within the margin for some row of a block."""
    X, gaussians = make_rows(1500, n_dims), make_mixture(n_components, n_dims, kind)
    weight = np.random.default_rng(2).integers(1, 5, len(X)).astype(float)
    log_extra = np.random.default_rng(3).normal(-6, 2, len(X)) if extra else None
    rows = CompiledRows(X, weight, n_components, 2, kernels)
    rows.add_density(log_extra)
    rows.select_candidates(gaussians)
    nats, stats = rows.expect(gaussians)
    joint = log_joint(X, gaussians)
    start, component = rows.selected()
    expected = np.full_like(joint, -np.inf)
    for b, members in enumerate(blocks_of_rows(rows)):
        values = joint[members]
        near = (values >= values.max(axis=1, keepdims=True) - training_margin(n_components)).any(0)
        assert set(component[start[b] : start[b + 1]]) == set(np.flatnonzero(near))
        expected[members] = np.where(near, values, -np.inf)
    total = logsumexp(expected, axis=1)
    if extra:
        total = np.logaddexp(total, log_extra)
    np.testing.assert_allclose(nats, weight @ total, rtol=1e-12)
    shares = weight[:, None] * np.exp(expected - total[:, None])
    away = X[:, None] - gaussians.means
    np.testing.assert_allclose(stats.n, shares.sum(axis=0), rtol=1e-9, atol=1e-12)
    first = np.einsum("ij,ija->ja", shares, away)
    np.testing.assert_allclose(stats.first, first, rtol=1e-9, atol=1e-9)
    second = np.einsum("ij,ija,ijb->jab", shares, away, away)
    if kind == "tied":
        second = second.sum(axis=0)
    elif kind != "full":
        second = np.diagonal(second, axis1=1, axis2=2)
    np.testing.assert_allclose(stats.second, second, rtol=1e-9, atol=1e-9)


@pytest.mark.parametrize(("n_dims", "how"), [(2, "even"), (2, "duplicates"), (3, "even")])
def test_queries_are_those_of_enumeration(n_dims, how):
    X, gaussians = make_rows(1500, n_dims, how), make_mixture(200, n_dims)
    gaussians.means[7], gaussians.covariances[7] = gaussians.means[5], gaussians.covariances[5]
    gaussians.weights[7] = gaussians.weights[5] = 0.5  # two equal components: the first one wins
    weight = np.random.default_rng(2).integers(1, 5, len(X)).astype(float)
    rows = CompiledRows(X, weight, 200, 2, kernels)
    joint = log_joint(X, gaussians)
    joint[:, 7] = joint[:, 5]
    np.testing.assert_allclose(rows.log_density(gaussians), logsumexp(joint, axis=1), atol=1e-9)
    nats, stats, labels = rows.assign(gaussians)
    np.testing.assert_array_equal(labels, joint.argmax(axis=1))
    np.testing.assert_array_equal(rows.best(gaussians), labels)
    np.testing.assert_allclose(nats, weight @ joint.max(axis=1), rtol=1e-12)
    np.testing.assert_allclose(stats.n, np.bincount(labels, weight, 200))
    away = X - gaussians.means[labels]
    for a, b in products(n_dims):
        product = np.bincount(labels, weight * away[:, a] * away[:, b], 200)
        np.testing.assert_allclose(stats.second[:, a, b], product, rtol=1e-9, atol=1e-9)
    found = rows.responsibilities(gaussians).toarray()
    np.testing.assert_allclose(
        found, np.exp(joint - logsumexp(joint, axis=1, keepdims=True)), atol=1e-9
    )


def test_a_selection_never_lowers_the_objective():
    """Earlier candidates of a block are kept if they are better for it."""
    X, rows = make_rows(3000, 2), None
    rows = CompiledRows(X, None, 300, 1, kernels)
    before = make_mixture(300, 2)
    after = before._replace(means=before.means + 0.3)
    rows.select_candidates(before)
    earlier = rows.selected()
    nats = rows.expect(after)[0]
    rows.select_candidates(after)
    assert rows.expect(after)[0] >= nats
    rows.restore(earlier)
    assert rows.expect(after)[0] == nats
    # A margin that is narrower than that of the earlier candidates loses for every block.
    kept = rows._search(after, 1e-3, earlier)
    np.testing.assert_array_equal(np.diff(kept.start), np.diff(earlier.start))
    np.testing.assert_array_equal(kept.component, earlier.component)


def test_rows_out_of_reach_have_no_density():
    gaussians = make_mixture(100, 2)
    rows = CompiledRows(np.full((40, 2), 1e200), None, 100, 1, kernels)
    assert (rows.log_density(gaussians) == -np.inf).all()


# ---------------------------------------------------------------------------- components


@pytest.mark.parametrize("n_dims", [2, 3])
def test_updates_are_those_of_numpy(n_dims, monkeypatch):
    rng = np.random.default_rng(0)
    before = make_mixture(50, n_dims)
    means = before.means + rng.normal(size=before.means.shape)
    variances = rng.uniform(1, 2, means.shape)
    correlation = 0.9 * np.eye(n_dims) + 0.1
    n = rng.uniform(0, 20, 50)
    n[3] = 0
    second = 7 * make_mixture(50, n_dims, seed=4).covariances
    stats = Statistics(n, rng.normal(size=means.shape), second)
    for counts in (0.0, 5.0):
        prior = Prior(counts, means, variances, correlation)
        found = []
        for least in (0, 10**9):
            monkeypatch.setattr(compiled, "WORTH_COMPILING", least)
            after = maximise(stats, before, prior, 1e-3)
            further = over_relaxed(before, after, 2.5, 1e-3)
            found.append((*after[:3], *further[:3], log_prior(after, prior)))
        for one, other in zip(*found, strict=True):
            np.testing.assert_allclose(one, other, rtol=1e-10, atol=1e-12)


# --------------------------------------------------------------------------------- cells


@pytest.mark.parametrize("n_dims", [1, 2, 3])
@pytest.mark.parametrize("how", ["even", "duplicates"])
@pytest.mark.parametrize("weights", ["ones", "whole", "any"])
@pytest.mark.parametrize("shifted", [False, True])
def test_cells_are_those_of_numpy(n_dims, how, weights, shifted, monkeypatch):
    rng = np.random.default_rng(0)
    for n, n_cells in ((1, 1), (40, 40), (200, 1), (200, 2), (300, 70)):
        X = make_rows(n, n_dims, how, seed=n)
        weight = {"ones": np.ones(n), "whole": rng.integers(1, 6, n) * 1.0}.get(
            weights, rng.exponential(size=n) + 0.01
        )
        found = []
        for least in (0, 10**9):
            monkeypatch.setattr(compiled, "WORTH_COMPILING", least)
            generator = np.random.RandomState(n) if shifted else None
            found.append(quantile_cells(X, weight, n_cells, generator))
        np.testing.assert_array_equal(*found)


# ---------------------------------------------------------------------------------- fits


def fits(monkeypatch, counts, **params):
    """The same fit with and without compiled loops."""
    models = []
    for least in (0, 10**9):
        monkeypatch.setattr(compiled, "WORTH_COMPILING", least)
        models.append(CountMixtureAE(80, tol=1e-3, random_state=0, **params).fit(counts))
    return models


EXPOSURE = np.ones((20, 20))
EXPOSURE[5:9, 3:16] = 0.3


@pytest.mark.parametrize(
    "params",
    [
        {},
        {"covariance_type": "diag"},
        {"algorithm": "partition"},
        {"image_shape": (20, 20)},
        {"image_shape": (20, 20), "background": "flat", "exposure": EXPOSURE},
        {"n_averages": 2, "image_shape": (20, 20)},
    ],
    ids=["plain", "diag", "partition", "image", "instrument", "averages"],
)
def test_fits_are_those_of_numpy(params, monkeypatch):
    rng = np.random.default_rng(0)
    counts = np.concatenate([rng.normal(7, 2, (2000, 2)), rng.uniform(0, 20, (2000, 2))])
    counts = counts[((counts > 0) & (counts < 20)).all(axis=1)]
    one, other = fits(monkeypatch, counts, **params)
    np.testing.assert_allclose(one.objectives_, other.objectives_, rtol=1e-5)
    np.testing.assert_allclose(one.score(counts), other.score(counts), rtol=1e-5)
    assert (np.diff(one.objectives_) >= -1e-11).all()


@pytest.mark.usefixtures("compiles")
def test_results_do_not_depend_on_the_number_of_threads():
    counts = make_rows(20_000, 2)
    models = [
        CountMixtureAE(500, n_jobs=n_jobs, max_iter=8, tol=0.1).fit(counts) for n_jobs in (1, 3)
    ]
    assert len(rows_under_mixture(counts, None, 500, 1)._ranges) > 1
    for name in ("means_", "covariances_", "weights_", "objectives_"):
        np.testing.assert_array_equal(*(getattr(model, name) for model in models))


# ------------------------------------------------------------------------ with and without


def test_small_fits_are_not_compiled():
    assert type(rows_under_mixture(make_rows(100, 2), None, 5, 1)) is LocalRows
    code = (
        "import sys, numpy as np; from skae import CountMixtureAE; "
        "CountMixtureAE(3).fit(np.random.RandomState(0).normal(size=(500, 2))); "
        "assert 'numba' not in sys.modules"
    )
    subprocess.run([sys.executable, "-c", code], check=True)


@pytest.mark.usefixtures("compiles")
def test_large_fits_work_without_numba(monkeypatch):
    for name in ("compiler", "kernels", "cell_kernels", "component_kernels"):
        monkeypatch.delitem(sys.modules, f"skae._mixture.{name}", raising=False)
    monkeypatch.delitem(sys.modules, "skae._utils.compiler")
    monkeypatch.setitem(sys.modules, "numba", None)
    X = make_rows(300, 2)
    assert compiled.kernels(len(X), "kernels") is None
    assert type(rows_under_mixture(X, None, 5, 1)) is LocalRows
    assert np.isfinite(CountMixtureAE(5, tol=0.1).fit(X).objectives_).all()


def test_compiled_code_needs_no_folder(monkeypatch):
    """Numba raises an error if there is no folder for its cache; the code is compiled anyway."""
    plain = shared_compiler.njit

    def njit(*args, cache=False, **options):
        if cache:
            raise RuntimeError("cannot cache function: no locator available")
        return plain(*args, **options)

    monkeypatch.setattr(shared_compiler, "njit", njit)

    @shared_compiler.compiled()
    def twice(x):
        return 2 * x

    assert twice(3) == 6
