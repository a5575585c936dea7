"""Moments, latent sizes and the low-rank Gaussian, against loops, enumeration and SciPy."""

from fractions import Fraction
from itertools import accumulate, pairwise

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy import sparse, stats
from sklearn.datasets import load_digits, load_iris, load_wine
from sklearn.decomposition import PCA
from sklearn.decomposition._pca import _assess_dimension, _infer_dimension

from skae import PPCA, LinearAE
from skae._linear import low_rank_gaussian
from skae._linear import moments as moments_module
from skae._linear.latent_size import (
    by_bic,
    by_evidence,
    by_variance_fraction,
    minka_log_evidence,
    n_free_parameters,
)
from skae._linear.low_rank_gaussian import draw, log_density, noise_floor
from skae._linear.moments import (
    Moments,
    axes_of_moments,
    count_rows,
    feature_scatter,
    gram,
    leading_axes,
    moments,
    principal_axes,
    row_mean,
)
from skae._linear.running import (
    merge,
    running_covariance,
    running_frequencies,
    running_mean,
    running_variance,
)

repeatable = settings(deadline=None, max_examples=30, derandomize=True)


def rows_with_zeros(n_samples, n_features, *, mean=0.0, dtype=np.float64, seed=0):
    """Correlated rows with distinct variances, a third of the entries exactly zero."""
    rng = np.random.default_rng(seed)
    X = rng.normal(size=(n_samples, n_features)) * np.linspace(3.0, 0.5, n_features)
    X = X @ (np.eye(n_features) + 0.2 * rng.normal(size=(n_features, n_features))) + mean
    return np.where(rng.random(X.shape) < 1 / 3, 0.0, X).astype(dtype)


def moments_by_loop(X, weight):
    """Number, mean and scatter of rows, one row at a time in extended precision."""
    X, weight = np.asarray(X, np.longdouble), np.asarray(weight, np.longdouble)
    n = weight.sum()
    mean = sum(w * x for w, x in zip(weight, X, strict=True)) / n
    scatter = sum(w * np.outer(x - mean, x - mean) for w, x in zip(weight, X, strict=True))
    return Moments(n, mean, scatter)


def assert_moments(actual, expected, rtol):
    assert float(actual.n) == pytest.approx(float(expected.n), rel=1e-12)
    scale = np.sqrt(float(np.trace(expected.scatter) / expected.n))
    np.testing.assert_allclose(
        actual.mean.astype(float), expected.mean.astype(float), rtol=rtol, atol=rtol * scale
    )
    atol = rtol * float(np.trace(expected.scatter))
    np.testing.assert_allclose(
        actual.scatter.astype(float), expected.scatter.astype(float), rtol=0, atol=atol
    )


CONTAINERS = {
    "C": np.ascontiguousarray,
    "F": np.asfortranarray,
    "strided": lambda X: np.repeat(X, 2, axis=0)[::2],
    "csr": sparse.csr_array,
    "csc": sparse.csc_array,
    "csr_matrix": sparse.csr_matrix,
}


# ---------------------------------------------------------------------------- moments


@pytest.mark.parametrize("weighted", [False, True])
@pytest.mark.parametrize("container", CONTAINERS)
@pytest.mark.parametrize("dtype", [np.float64, np.float32])
@pytest.mark.parametrize("mean", [0.0, 30.0])
def test_moments_are_those_of_a_loop_over_rows(container, dtype, mean, weighted):
    """In every container and type; sums of float32 are as exact as float32 products are."""
    X = rows_with_zeros(40, 5, mean=mean, dtype=dtype)
    weight = np.random.default_rng(1).uniform(0.1, 3.0, 40) if weighted else None
    found = moments(CONTAINERS[container](X), weight)
    assert found.scatter.dtype == found.mean.dtype == np.float64
    rtol = 1e-12 if dtype == np.float64 else 2e-6
    assert_moments(found, moments_by_loop(X, np.ones(40) if weight is None else weight), rtol)


@pytest.mark.parametrize("weighted", [False, True])
def test_moments_do_not_depend_on_the_blocks(monkeypatch, weighted):
    X = rows_with_zeros(1000, 4, mean=5.0)
    weight = np.random.default_rng(1).uniform(0.1, 3.0, 1000) if weighted else None
    whole = moments(X, weight)
    monkeypatch.setattr(moments_module, "_BLOCK_BYTES", 1)  # the least, 256 rows, makes 4 blocks
    monkeypatch.setattr(moments_module, "_loses_nothing", lambda *_: False)
    assert_moments(moments(X, weight), whole, 1e-13)
    np.testing.assert_allclose(row_mean(X, weight), whole.mean, rtol=1e-13)
    scatter = feature_scatter(X, whole.mean, weight)
    np.testing.assert_allclose(scatter, np.diagonal(whole.scatter), rtol=1e-12)


@pytest.mark.parametrize("weighted", [False, True])
@pytest.mark.parametrize("offset", [1e3, 1e6, 1e8])
def test_a_large_mean_costs_no_digits_of_the_scatter(offset, weighted):
    """Against exact rational arithmetic on the same floats."""
    X = np.random.default_rng(0).normal(size=(50, 2)) + offset
    repeats = np.random.default_rng(1).integers(1, 4, 50) if weighted else np.ones(50, int)
    rows = [[Fraction(value) for value in row] for row in np.repeat(X, repeats, axis=0)]
    n = len(rows)
    mean = [sum(row[j] for row in rows) / n for j in range(2)]
    scatter = [
        [float(sum((r[i] - mean[i]) * (r[j] - mean[j]) for r in rows)) for j in range(2)]
        for i in range(2)
    ]
    found = moments(X, repeats.astype(float) if weighted else None)
    np.testing.assert_allclose(found.mean, [float(value) for value in mean], rtol=1e-15)
    np.testing.assert_allclose(found.scatter, scatter, rtol=1e-11, atol=1e-11 * scatter[0][0])


@pytest.mark.parametrize(("offset", "rtol"), [(0.0, 1e-7), (100.0, 2e-6)])
def test_float32_rows_are_summed_in_float64(offset, rtol):
    """A million rows have the moments of the same numbers in float64: sums in float32 that
    are not cut into blocks are off five times as far."""
    X = (np.random.default_rng(0).normal(size=(1_000_000, 2)) + offset).astype(np.float32)
    exact = X.astype(np.float64)
    expected = Moments(len(X), exact.mean(axis=0), np.cov(exact.T, bias=True) * len(X))
    assert_moments(moments(X), expected, rtol)


@repeatable
@given(
    cuts=st.lists(st.integers(1, 29), max_size=8, unique=True),
    order=st.randoms(use_true_random=False),
)
def test_merging_any_batches_in_any_order_gives_the_moments_of_all(cuts, order):
    X, weight = rows_with_zeros(30, 3, mean=4.0), np.random.default_rng(1).uniform(0, 2, 30)
    edges = [0, *sorted(cuts), 30]
    parts = [moments(X[a:b], weight[a:b]) for a, b in pairwise(edges)]
    order.shuffle(parts)
    assert_moments(list(accumulate(parts, merge))[-1], moments(X, weight), 1e-13)


def batches(weighted, dtype=np.float64):
    """Three batches of rows far apart, their weights, and what each weighs in all so far."""
    rng = np.random.default_rng(7)
    parts = [
        (rows_with_zeros(n, 4, mean=m, seed=n) + m).astype(dtype)
        for n, m in ((5, 0), (9, 3), (2, -6))
    ]
    weights = [rng.integers(1, 4, len(X)) if weighted else np.ones(len(X), int) for X in parts]
    totals = np.cumsum([w.sum() for w in weights])
    return parts, weights, [float(w.sum() / n) for w, n in zip(weights, totals, strict=True)]


@pytest.mark.parametrize("weighted", [False, True])
def test_running_moments_of_batches_are_those_of_all_rows(weighted):
    parts, weights, counts = batches(weighted)
    mean = with_variance = with_covariance = None
    for X, weight, of_all in zip(parts, weights, counts, strict=True):
        now = np.average(X, axis=0, weights=weight)
        covariance = np.cov(X.T, fweights=weight, ddof=0)
        mean = running_mean(mean, now, of_all)
        with_variance = running_variance(with_variance, (now, np.diag(covariance)), of_all)
        with_covariance = running_covariance(with_covariance, (now, covariance), of_all)
    X, weight = np.concatenate(parts), np.concatenate(weights)
    expected = np.cov(X.T, fweights=weight, ddof=0)
    for found in (mean, with_variance[0], with_covariance[0]):
        np.testing.assert_allclose(found, np.average(X, axis=0, weights=weight), rtol=1e-13)
    np.testing.assert_allclose(with_variance[1], np.diag(expected), rtol=1e-13)
    np.testing.assert_allclose(with_covariance[1], expected, rtol=1e-12, atol=1e-13)


@pytest.mark.parametrize("weighted", [False, True])
def test_running_frequencies_of_batches_are_those_of_all_rows(weighted):
    _, weights, counts = batches(weighted)
    rng = np.random.default_rng(0)
    labels = [rng.integers(0, 3, len(weight)) for weight in weights]
    found = None
    for label, weight, of_all in zip(labels, weights, counts, strict=True):
        now = np.bincount(label, weight, 4) / weight.sum()
        found = running_frequencies(found, now, of_all)
    expected = np.bincount(np.concatenate(labels), np.concatenate(weights), 4)
    np.testing.assert_allclose(found, expected / expected.sum(), rtol=1e-14)
    assert found[3] == 0


def test_running_moments_of_a_weight_of_one_forget_and_float32_stays():
    (X, Y, _), _, _ = batches(False, np.float32)
    before, now = ((a.mean(axis=0), a.var(axis=0)) for a in (X, Y))
    assert running_mean(before[0], now[0], 1.0) is now[0]
    assert running_frequencies(before[0], now[0], 1.0) is now[0]
    assert running_variance(before, now, 1.0) is now
    assert running_covariance(None, now, 0.5) is now
    assert {a.dtype.name for a in running_variance(before, now, 0.5)} == {"float32"}


def test_running_moments_of_equal_weights_forget_as_a_moving_average_does():
    old, new = rows_with_zeros(4, 3, seed=1), rows_with_zeros(8, 3, mean=4, seed=2)
    before, now = ((a.mean(axis=0), np.cov(a.T, ddof=0)) for a in (old, new))
    mean, covariance = running_covariance(before, now, 0.5)
    # Four rows that weigh as much as eight count twice.
    twice = np.concatenate([old, old, new])
    np.testing.assert_allclose(mean, twice.mean(axis=0), rtol=1e-13)
    np.testing.assert_allclose(covariance, np.cov(twice.T, ddof=0), rtol=1e-12, atol=1e-13)


@pytest.mark.parametrize(
    ("weight", "expected", "kind"),
    [
        ([1.0, 2.0, 3.0], 6, int),
        ([0.1] * 10, 1, int),
        ([0.25, 0.5, 0.5], 1.25, float),
    ],
)
def test_whole_weights_count_whole_rows(weight, expected, kind):
    n = count_rows(np.zeros((len(weight), 1)), np.array(weight))
    assert n == expected
    assert isinstance(n, kind)


@pytest.mark.parametrize("weighted", [False, True])
@pytest.mark.parametrize("container", CONTAINERS)
def test_gram_and_feature_scatter_are_the_dense_formulas(monkeypatch, container, weighted):
    monkeypatch.setattr(moments_module, "_BLOCK_BYTES", 256)
    X = rows_with_zeros(7, 23, mean=2.0)
    weight = np.random.default_rng(1).uniform(0.1, 3.0, 7) if weighted else None
    mean = np.average(X, axis=0, weights=weight)
    centred = (X - mean) * (1.0 if weight is None else np.sqrt(weight)[:, None])
    rows = CONTAINERS[container](X)
    np.testing.assert_allclose(row_mean(rows, weight), mean, rtol=1e-13, atol=1e-13)
    products = gram(rows, mean, weight)
    np.testing.assert_allclose(products, centred @ centred.T, rtol=1e-11, atol=1e-11)
    found = feature_scatter(rows, mean, weight)
    np.testing.assert_allclose(found, np.sum(centred**2, axis=0), rtol=1e-12, atol=1e-12)


# ------------------------------------------------------------------------ leading axes


@pytest.mark.parametrize("n_axes", [1, 3, 6])
def test_leading_axes_are_the_largest_eigenpairs(n_axes):
    X = rows_with_zeros(20, 6)
    matrix = X.T @ X
    values, vectors = leading_axes(matrix, n_axes)
    np.testing.assert_allclose(values, np.linalg.svd(X)[1][:n_axes] ** 2, rtol=1e-12)
    np.testing.assert_allclose(matrix @ vectors, vectors * values, atol=1e-9)
    np.testing.assert_allclose(vectors.T @ vectors, np.eye(n_axes), atol=1e-12)


def test_leading_values_are_never_negative():
    values, _ = leading_axes(np.diag([2.0, -1e-17, -3.0]), 3)
    np.testing.assert_array_equal(values, [2.0, 0.0, 0.0])


@pytest.mark.parametrize("weighted", [False, True])
@pytest.mark.parametrize("container", CONTAINERS)
@pytest.mark.parametrize("shape", [(30, 6), (6, 6), (5, 12)])
def test_principal_axes_are_those_of_the_centred_rows(shape, container, weighted):
    """By the singular value decomposition; tall rows go by the scatter, wide by the Gram."""
    X = rows_with_zeros(*shape, mean=3.0)
    weight = np.random.default_rng(1).uniform(0.5, 3.0, shape[0]) if weighted else None
    centred = X - np.average(X, axis=0, weights=weight)
    if weight is not None:
        centred *= np.sqrt(weight)[:, None]
    _, singular, axes = np.linalg.svd(centred, full_matrices=False)
    found = principal_axes(CONTAINERS[container](X), weight, 3)
    assert found.n == pytest.approx(shape[0] if weight is None else weight.sum())
    assert found.scatter_trace == pytest.approx(np.sum(singular**2), rel=1e-12)
    np.testing.assert_allclose(found.scatter_values, singular[:3] ** 2, rtol=1e-10)
    np.testing.assert_allclose(np.abs(np.sum(found.axes * axes[:3], axis=1)), 1.0, rtol=1e-10)
    largest = np.argmax(np.abs(found.axes), axis=1)
    assert np.all(found.axes[np.arange(3), largest] > 0)


@pytest.mark.parametrize("rank", [0, 1, 2])
def test_axes_of_wide_rows_are_orthonormal_beyond_their_rank(rank):
    """The Gram matrix tells nothing about directions without variance: QR fills them in."""
    rng = np.random.default_rng(0)
    X = 5.0 + rng.normal(size=(6, rank)) @ rng.normal(size=(rank, 20))
    found = principal_axes(X, None, 6)
    np.testing.assert_allclose(found.axes @ found.axes.T, np.eye(6), atol=1e-10)
    np.testing.assert_allclose(found.scatter_values[rank:], 0.0, atol=1e-10)
    centred = X - X.mean(axis=0)
    inside = centred @ found.axes[:rank].T @ found.axes[:rank]
    np.testing.assert_allclose(inside, centred, atol=1e-8)


@pytest.mark.parametrize("weighted", [False, True])
@pytest.mark.parametrize("container", [np.asarray, np.asfortranarray])
def test_a_large_mean_costs_no_digits_of_the_axes(container, weighted):
    """Wide rows far from zero have the axes of the same rows moved there exactly."""
    X = np.round(rows_with_zeros(8, 15), 3) + 2.0**20
    weight = np.random.default_rng(1).uniform(0.5, 3.0, 8) if weighted else None
    expected = principal_axes(X - 2.0**20, weight, 5)
    found = principal_axes(container(X), weight, 5)
    np.testing.assert_allclose(found.axes, expected.axes, atol=1e-9)
    np.testing.assert_allclose(found.scatter_values, expected.scatter_values, rtol=1e-9)


def test_both_ways_to_the_axes_agree():
    """Scatter and Gram matrix of the same wide rows."""
    X = rows_with_zeros(8, 15, mean=1.0)
    by_gram, by_scatter = principal_axes(X, None, 5), axes_of_moments(moments(X), 5)
    for name in ("n", "mean", "scatter_values", "axes", "scatter_trace"):
        np.testing.assert_allclose(
            getattr(by_gram, name), getattr(by_scatter, name), rtol=1e-9, atol=1e-9, err_msg=name
        )


@pytest.mark.parametrize("shape", [(9, 3), (3, 9)])
def test_squares_that_overflow_ask_to_rescale(shape):
    X = rows_with_zeros(*shape) * 1e200
    with np.errstate(over="ignore", invalid="ignore"), pytest.raises(ValueError, match="Rescale X"):
        principal_axes(X, None, 2)


# ------------------------------------------------------------------------- latent size


@repeatable
@given(
    spectrum=st.lists(st.integers(0, 20), min_size=1, max_size=8),
    share=st.integers(1, 99),
)
def test_variance_share_is_the_fewest_components_beyond_it(spectrum, share):
    """By enumeration, with PCA's `more than`; shares are given off the ties."""
    spectrum = np.sort(np.array(spectrum, dtype=float))[::-1]
    wanted = share / 100 + 1e-4  # no sum of the integers over their total is this share
    sizes = range(1, len(spectrum) + 1)
    enough = [k for k in sizes if spectrum[:k].sum() > wanted * spectrum.sum()]
    expected = min(enough, default=1 if spectrum.sum() == 0 else len(spectrum))
    assert by_variance_fraction(spectrum, wanted) == expected


def test_a_share_that_is_reached_exactly_takes_one_more():
    """As PCA has it: the variance must exceed the share."""
    spectrum = np.array([4.0, 2.0, 1.0, 1.0])
    assert [by_variance_fraction(spectrum, share) for share in (0.5, 0.75, 0.875)] == [2, 3, 4]
    assert [by_variance_fraction(spectrum, share) for share in (0.49, 0.51, 0.99)] == [1, 2, 4]


@pytest.mark.parametrize("share", [0.3, 0.5, 0.9, 0.95, 0.99, 0.9999])
@pytest.mark.parametrize("load", [load_digits, load_iris, load_wine])
def test_variance_share_is_pcas(load, share):
    X = load().data[:300]
    spectrum = PCA(svd_solver="full").fit(X).explained_variance_
    expected = PCA(share, svd_solver="full").fit(X).n_components_
    assert by_variance_fraction(spectrum, share) == expected


def spectra():
    rng = np.random.default_rng(0)
    yield "digits", PCA().fit(load_digits().data[:, 1:30]).explained_variance_, 1797
    yield "iris", PCA().fit(load_iris().data).explained_variance_, 150
    yield "wine", PCA().fit(load_wine().data).explained_variance_, 178
    yield "flat", np.sort(rng.uniform(1, 1.1, 12))[::-1], 50
    yield "weights", np.sort(rng.gamma(0.3, size=9))[::-1], 33.5
    yield "two", np.array([2.0, 1.0]), 10


@pytest.mark.parametrize(("name", "spectrum", "n"), spectra(), ids=lambda value: str(value)[:8])
def test_minkas_evidence_is_scikit_learns(name, spectrum, n):
    """For every rank, without even a constant between them."""
    expected = [_assess_dimension(spectrum, k, n) for k in range(1, len(spectrum))]
    np.testing.assert_allclose(minka_log_evidence(spectrum, n), expected, rtol=1e-9)
    assert by_evidence(spectrum, n) == _infer_dimension(spectrum, n)


def test_minkas_evidence_of_a_singular_spectrum_is_finite_or_minus_infinity():
    spectrum = np.array([3.0, 1.0, 0.5, 0.0, 0.0])
    evidence = minka_log_evidence(spectrum, 20)
    expected = [_assess_dimension(spectrum, k, 20) for k in (1, 2)]
    np.testing.assert_allclose(evidence[:2], expected, rtol=1e-10)
    assert not np.isnan(evidence).any()
    assert evidence[3] == -np.inf


def test_evidence_of_one_feature_is_one_component():
    assert by_evidence(np.array([2.0]), 10) == 1


@pytest.mark.parametrize(("n_features", "n_components"), [(1, 1), (4, 1), (4, 2), (4, 3), (5, 2)])
def test_free_parameters_are_the_rank_of_the_model(n_features, n_components):
    """How many directions of (W, sigma2, mu) change mean or covariance, by differentiation.

    With all components sigma2 is no longer identified (D = 1, k = 1): it is counted still.
    """
    rng = np.random.default_rng(0)
    W = rng.normal(size=(n_features, n_components))
    columns = []
    for i in range(n_features):
        for j in range(n_components):
            dW = np.zeros_like(W)
            dW[i, j] = 1.0
            columns.append((dW @ W.T + W @ dW.T).ravel())
    columns.append(np.eye(n_features).ravel())
    rank = np.linalg.matrix_rank(np.array(columns)) + n_features
    assert n_free_parameters(n_features, n_components) == rank + (n_components == n_features)


@pytest.mark.parametrize(
    "X",
    [
        load_iris().data,
        load_wine().data,
        rows_with_zeros(200, 8),
        rows_with_zeros(12, 8),
        rows_with_zeros(9, 20),
    ],
    ids=["iris", "wine", "tall", "few", "wide"],
)
def test_bic_is_that_of_fitted_models(X):
    """The choice is the least bic of PPCA models fitted with every size that is tried."""
    n, n_features = X.shape
    spectrum = np.linalg.svd(X - X.mean(axis=0), compute_uv=False) ** 2 / n
    most = min(n_features - 1, n // 2, len(spectrum) - 1)
    sizes = range(1, most + 1)
    bics = [PPCA(k, solver="closed_form").fit(X).bic(X) for k in sizes]
    assert by_bic(spectrum, n, n_features) == sizes[int(np.argmin(bics))]
    assert PPCA("bic").fit(X).n_components_ == sizes[int(np.argmin(bics))]


@pytest.mark.parametrize("rank", [1, 3, 5])
def test_bic_and_evidence_recover_a_known_rank(rank):
    X = np.random.default_rng(0).normal(size=(2000, 12))
    X[:, :rank] *= np.linspace(3.0, 2.0, rank)
    spectrum = np.sort(np.linalg.eigvalsh(np.cov(X.T)))[::-1]
    assert by_bic(spectrum, 2000, 12) == rank
    assert by_evidence(spectrum, 2000) == rank


# ------------------------------------------------------------------ low-rank Gaussian


def make_gaussian(n_features, n_axes, seed=0):
    """Mean, axes, variances and noise; and the dense covariance they stand for."""
    rng = np.random.default_rng(seed)
    axes = np.linalg.qr(rng.normal(size=(n_features, n_features)))[0][:, :n_axes].T
    variances = np.sort(rng.uniform(0.5, 4.0, n_axes))[::-1]
    noise = 0.3
    covariance = axes.T @ np.diag(variances) @ axes
    covariance += noise * (np.eye(n_features) - axes.T @ axes)
    return rng.normal(size=n_features), axes, variances, noise, covariance


@pytest.mark.parametrize("container", ["C", "F", "csr", "csc"])
@pytest.mark.parametrize("n_axes", [0, 1, 3, 5])
def test_log_density_is_scipys(n_axes, container):
    mean, axes, variances, noise, covariance = make_gaussian(5, n_axes)
    X = rows_with_zeros(300, 5)
    expected = stats.multivariate_normal(mean, covariance).logpdf(X)
    found = log_density(CONTAINERS[container](X), mean, axes, variances, noise)
    np.testing.assert_allclose(found, expected, rtol=1e-11)


def test_log_density_does_not_depend_on_the_blocks(monkeypatch):
    mean, axes, variances, noise, _ = make_gaussian(5, 2)
    X = rows_with_zeros(300, 5)
    whole = log_density(X, mean, axes, variances, noise)
    monkeypatch.setattr(low_rank_gaussian, "_BLOCK_BYTES", 1)
    np.testing.assert_allclose(log_density(X, mean, axes, variances, noise), whole, rtol=1e-14)


def test_log_density_integrates_to_one():
    mean, axes, variances, noise, _ = make_gaussian(2, 1)
    grid = np.linspace(-12, 12, 400)
    points = np.stack(np.meshgrid(grid, grid), axis=-1).reshape(-1, 2) + mean
    density = np.exp(log_density(points, mean, axes, variances, noise))
    assert density.sum() * (grid[1] - grid[0]) ** 2 == pytest.approx(1.0, abs=1e-9)


def test_noise_variance_is_ignored_when_the_axes_span_the_space():
    mean, axes, variances, _, _ = make_gaussian(4, 4)
    X = rows_with_zeros(10, 4)
    expected = log_density(X, mean, axes, variances, 1.0)
    np.testing.assert_array_equal(log_density(X, mean, axes, variances, 0.0), expected)


@pytest.mark.parametrize("n_axes", [0, 2, 5])
def test_draws_have_the_mean_and_covariance_of_the_density(n_axes):
    """Within five standard errors of every entry."""
    mean, axes, variances, noise, covariance = make_gaussian(5, n_axes)
    n = 40_000
    rows = draw(n, np.random.RandomState(0), mean, axes, variances - noise, noise)
    error = 5 * np.sqrt(np.diag(covariance) / n)
    assert np.all(np.abs(rows.mean(axis=0) - mean) < error)
    spread = np.diag(covariance)
    error = 5 * np.sqrt((covariance**2 + np.outer(spread, spread)) / n)
    assert np.all(np.abs(np.cov(rows.T) - covariance) < error)


def test_draws_without_noise_lie_in_the_span_of_the_axes():
    mean, axes, variances, noise, _ = make_gaussian(5, 2)
    centred = draw(100, np.random.RandomState(0), mean, axes, variances - noise, 0.0) - mean
    np.testing.assert_allclose(centred @ axes.T @ axes, centred, atol=1e-12)
    assert np.linalg.matrix_rank(centred, tol=1e-8) == 2


@pytest.mark.parametrize("dtype", [np.float64, np.float32])
@pytest.mark.parametrize(
    ("variance", "mean", "scale"),
    [(4.0, 10.0, 4.0), (0.0, 10.0, 100.0), (0.0, 0.0, 1.0), (1e-320, 0.0, 1.0)],
)
def test_noise_floor_is_eps_times_the_scale_of_the_data(variance, mean, scale, dtype):
    floor = noise_floor(variance, np.full(3, mean, dtype))
    assert floor == pytest.approx(np.finfo(dtype).eps * scale, rel=1e-6)


def test_sparse_float32_is_summed_in_float64():
    """Also where the mean is large beside the spread, so that raw squares would cancel."""
    rng = np.random.default_rng(0)
    X = (10 + rng.normal(size=(20_000, 4)) * [1.0, 0.5, 0.1, 0.05]).astype(np.float32)
    found = moments(sparse.csr_array(X))
    np.testing.assert_allclose(found.scatter, moments(X.astype(np.float64)).scatter, rtol=1e-6)
    offset = 1e7 + rng.normal(size=(500, 3))
    found = moments(sparse.csc_array(offset), np.ones(500))
    expected = np.cov(offset.T, bias=True) * 500
    np.testing.assert_allclose(found.scatter, expected, rtol=1e-6, atol=1e-5)


def test_columns_that_are_nearly_orthogonal_are_made_so():
    """As rounding leaves the images of a Gram matrix's eigenvectors; the span is kept."""
    rng = np.random.default_rng(0)
    images = np.linalg.qr(rng.normal(size=(30, 6)))[0] + 1e-6 * rng.normal(size=(30, 6))
    images *= np.logspace(0, -3, 6)
    axes = moments_module._orthonormal(images)
    np.testing.assert_allclose(axes.T @ axes, np.eye(6), atol=1e-12)
    np.testing.assert_allclose(axes @ (axes.T @ images), images, atol=1e-12)


def test_evidence_of_a_steep_spectrum_loses_nothing():
    spectrum = np.logspace(8, -6, 8)
    theirs = np.array([_assess_dimension(spectrum, k, 100) for k in range(1, 8)])
    np.testing.assert_allclose(minka_log_evidence(spectrum, 100), theirs, rtol=1e-6)


# ------------------------------------------------------------------------------- memory


@pytest.mark.parametrize("call", [PPCA(2).fit, LinearAE(2).fit, LinearAE(2).partial_fit])
def test_out_of_memory_says_what_to_set(monkeypatch, call):
    def fail(*_):
        raise MemoryError("Unable to allocate 8 TiB")

    monkeypatch.setattr(moments_module, "_raw_scatter", fail)
    with pytest.raises(MemoryError, match=r"8 TiB\. .*(solver='em'|svd_solver='randomized')"):
        call(np.random.default_rng(0).normal(size=(100, 4)))
