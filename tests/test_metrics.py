"""Metrics against closed forms, SciPy, scikit-learn, quadrature and loops."""

import inspect
import subprocess
import sys
import tracemalloc

import numpy as np
import pandas as pd
import polars as pl
import pytest
import torch
from scipy import integrate, linalg, sparse, stats
from scipy.spatial.distance import cdist
from scipy.special import logsumexp
from sklearn.datasets import load_iris
from sklearn.decomposition import PCA
from sklearn.neighbors import KernelDensity

from skae import PPCA, metrics
from skae._utils import metric_arrays
from skae.metrics import (
    active_units,
    bits_per_dim,
    frechet_distance,
    parzen_log_likelihood,
    reconstruction_error,
)


def correlated_rows(n_samples, n_features, *, seed=0, mean=0.0):
    """Correlated Gaussian rows."""
    rng = np.random.default_rng(seed)
    mixing = rng.normal(size=(n_features, n_features))
    return rng.normal(size=(n_samples, n_features)) @ mixing + mean


def rotation(n_features, seed=0):
    return np.linalg.qr(np.random.default_rng(seed).normal(size=(n_features, n_features)))[0]


def set_block_bytes(monkeypatch, n_bytes):
    for module in (metrics, metric_arrays):
        monkeypatch.setattr(module, "BLOCK_BYTES", n_bytes)


CONTAINERS = {
    "list": lambda X: X.tolist(),
    "F": np.asfortranarray,
    "strided": lambda X: np.repeat(X, 2, axis=0)[::2],
    "pandas": pd.DataFrame,
    "polars": pl.DataFrame,
}

# ------------------------------------------------------------------------------ module


def test_all_lists_what_is_defined_here():
    here = {
        name
        for name, value in vars(metrics).items()
        if not name.startswith("_") and inspect.getmodule(value) is metrics
    }
    assert set(metrics.__all__) == here


def test_torch_is_never_loaded():
    code = """
import sys
import numpy as np
from skae.metrics import *
X = np.random.default_rng(0).normal(size=(20, 3))
reconstruction_error(X, X), bits_per_dim(0.0, 3), active_units(X), frechet_distance(X, X)
parzen_log_likelihood(X, X, X, bandwidths=[0.5])
assert "torch" not in sys.modules
"""
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr


def test_results_are_pythons_own_numbers():
    X = correlated_rows(20, 3).astype(np.float32)
    assert type(reconstruction_error(X, X + 1)) is float
    assert type(reconstruction_error(X, X + 1, sample_weight=np.ones(20))) is float
    assert type(bits_per_dim(X[:, 0], 3)) is float
    assert type(active_units(X)) is int
    assert type(frechet_distance(X, X + 1)) is float
    score = parzen_log_likelihood(X, X, X, bandwidths=[0.5])
    assert [type(value) for value in score] == [float] * 3
    assert score._fields == ("log_likelihood", "standard_error", "bandwidth")


# ---------------------------------------------------------------------- reconstruction


def error_by_loop(X, other, weight=None):
    """Over the values that were seen, one at a time."""
    weight = np.ones(len(X)) if weight is None else weight
    total = 0.0
    for row, other_row, w in zip(X, other, weight, strict=True):
        total += w * sum((a - b) ** 2 for a, b in zip(row, other_row, strict=True) if a == a)
    return total / sum(weight)


@pytest.mark.parametrize("weighted", [False, True])
@pytest.mark.parametrize("missing", [False, True])
@pytest.mark.parametrize("container", CONTAINERS)
def test_error_is_that_of_a_loop(container, missing, weighted):
    X, other = correlated_rows(9, 4), correlated_rows(9, 4, seed=1)
    if missing:
        X[np.random.default_rng(2).random(X.shape) < 0.3] = np.nan
        X[3] = np.nan
    weight = np.arange(9.0) if weighted else None
    convert = CONTAINERS[container]
    found = reconstruction_error(convert(X), convert(other), sample_weight=weight)
    assert found == pytest.approx(error_by_loop(X, other, weight), rel=1e-13)


@pytest.mark.parametrize("n_components", [1, 2, 3])
def test_error_of_pca_is_the_variance_it_leaves_out(n_components):
    X = load_iris().data
    pca = PCA(n_components).fit(X)
    spectrum = np.linalg.svd(X - X.mean(axis=0), compute_uv=False) ** 2 / len(X)
    found = reconstruction_error(X, pca.inverse_transform(pca.transform(X)))
    assert found == pytest.approx(spectrum[n_components:].sum(), rel=1e-10)


@pytest.mark.parametrize("dtype", [np.uint8, np.int16, np.int64, bool, np.float16, np.float32])
def test_error_of_any_numbers_is_taken_in_doubles(dtype):
    """Unsigned numbers do not wrap, and halves do not overflow."""
    X = np.array([[0, 1, 250], [3, 0, 0]]).astype(dtype)
    other = np.array([[1, 0, 255], [0, 200, 251]]).astype(dtype)
    expected = ((X.astype(float) - other.astype(float)) ** 2).sum(axis=1).mean()
    assert reconstruction_error(X, other) == expected
    assert reconstruction_error(X, other + 0.25) == reconstruction_error(X - 0.25, other)


def test_error_reads_missing_values_of_pandas():
    X = pd.DataFrame({"a": [1, 2, None], "b": [4, None, 6]}, dtype="Int64")
    assert reconstruction_error(X, np.zeros((3, 2))) == pytest.approx((1 + 16 + 4 + 36) / 3)


def test_weights_count_rows():
    X, other = correlated_rows(6, 3), correlated_rows(6, 3, seed=1)
    weight = np.array([2, 0, 1, 3, 1, 1])
    found = reconstruction_error(X, other, sample_weight=weight)
    repeated = reconstruction_error(np.repeat(X, weight, axis=0), np.repeat(other, weight, axis=0))
    assert found == pytest.approx(repeated, rel=1e-14)
    assert reconstruction_error(X, other, sample_weight=5.0 * weight) == pytest.approx(found)


def test_error_grows_with_the_square_of_the_scale():
    X, other = correlated_rows(6, 3), correlated_rows(6, 3, seed=1)
    error = reconstruction_error(X, other)
    assert reconstruction_error(8 * X, 8 * other) == pytest.approx(64 * error, rel=1e-14)
    assert reconstruction_error(other, X) == error
    assert reconstruction_error(X, X) == 0


def test_error_does_not_depend_on_the_blocks(monkeypatch):
    X, other = correlated_rows(11, 3), correlated_rows(11, 3, seed=1)
    whole = reconstruction_error(X, other)
    set_block_bytes(monkeypatch, 4 * 3 * 8)
    assert reconstruction_error(X, other) == whole


@pytest.mark.parametrize(
    ("arguments", "kind", "message"),
    [
        ({"X": np.ones(3)}, ValueError, "X: Expected 2D array"),
        ({"X": np.full((4, 3), np.inf)}, ValueError, "X: Input contains infinity"),
        ({"X": np.full((4, 3), "a")}, ValueError, "X: "),
        ({"X": np.full((4, 3), 1j)}, ValueError, "X: Complex data"),
        ({"X_reconstructed": np.full((4, 3), np.nan)}, ValueError, "X_reconstructed: .*NaN"),
        ({"X_reconstructed": np.full((4, 3), np.inf)}, ValueError, "X_reconstructed: .*infinity"),
        (
            {"X_reconstructed": np.ones((3, 4))},
            ValueError,
            r"X_reconstructed has shape \(3, 4\), but X has shape \(4, 3\)",
        ),
        ({"X_reconstructed": np.ones((4, 1))}, ValueError, r"shape \(4, 1\)"),
        ({"sample_weight": np.ones(3)}, ValueError, r"sample_weight has shape \(3,\).* 4 rows"),
        ({"sample_weight": np.ones((4, 1))}, ValueError, r"sample_weight has shape \(4, 1\)"),
        (
            {"sample_weight": [1, 1, 1, -1]},
            ValueError,
            "sample_weight must be zero or pos.* from -1 to",
        ),
        ({"sample_weight": np.zeros(4)}, ValueError, "sample_weight .*not all weights may be zero"),
        ({"sample_weight": [1, 1, 1, np.nan]}, ValueError, "sample_weight: .*NaN"),
        ({"sample_weight": 2.0}, TypeError, "sample_weight: "),
    ],
)
def test_error_says_what_is_wrong(arguments, kind, message):
    arguments = {"X": np.ones((4, 3)), "X_reconstructed": np.ones((4, 3)), **arguments}
    with pytest.raises(kind, match=message):
        reconstruction_error(**arguments)


def test_sparse_rows_are_refused_by_name():
    with pytest.raises(TypeError, match="X: Sparse data"):
        reconstruction_error(sparse.csr_array(np.eye(3)), np.eye(3))


# ----------------------------------------------------------------------------- density


@pytest.mark.parametrize("n_features", [1, 784])
@pytest.mark.parametrize("top", [1.0, 256.0, 2.0**-7])
def test_uniform_bytes_cost_eight_bits(top, n_features):
    """With 256 levels between 0 and `top`, to the last digit where that has no rounding."""
    nats = -n_features * np.log(top)
    found = bits_per_dim(np.full(5, nats), n_features, level=top / 256)
    assert found == pytest.approx(8.0, rel=1e-14)
    assert bits_per_dim(nats, n_features, level=top / 256) == pytest.approx(found, rel=1e-14)
    assert bits_per_dim(0.0, n_features) == 8.0


@pytest.mark.parametrize("level", [1.0, 1 / 256, 0.3])
def test_bits_of_a_piecewise_constant_density_are_the_entropy(level):
    """Rows hold each level as often as its probability says; the density is p(k) / level."""
    counts = np.array([[8, 4, 2, 1, 1], [3, 3, 5, 4, 1]])
    mass = counts / 16
    pairs = np.array(
        [
            np.log(mass[0, i] / level) + np.log(mass[1, j] / level)
            for i in range(5)
            for j in range(5)
            for _ in range(counts[0, i] * counts[1, j])
        ]
    )
    expected = stats.entropy(mass.T, base=2).mean()
    assert bits_per_dim(pairs, 2, level=level) == pytest.approx(expected, rel=1e-13)
    assert bits_per_dim(pairs.mean(), 2, level=level) == pytest.approx(expected, rel=1e-13)
    first = np.repeat(np.log(mass[0] / level), counts[0])
    assert bits_per_dim(first, 1, level=level) == pytest.approx(1.875, rel=1e-13)


def test_bits_do_not_depend_on_the_units():
    """A density changes with the units as the level does."""
    rows = correlated_rows(50, 3)
    bits = bits_per_dim(stats.norm.logpdf(rows).sum(axis=1), 3, level=0.1)
    for scale in (0.01, 255.0):
        nats = stats.norm(scale=scale).logpdf(rows * scale).sum(axis=1)
        assert bits_per_dim(nats, 3, level=0.1 * scale) == pytest.approx(bits, rel=1e-12)


def test_columns_of_different_scales_are_brought_back_as_the_notes_say():
    scales = np.array([2.0, 5.0, 0.1])
    rows = correlated_rows(50, 3)
    expected = bits_per_dim(stats.norm(scale=scales).logpdf(rows).sum(axis=1), 3, level=1)
    scaled = stats.norm.logpdf(rows / scales).sum(axis=1)
    found = bits_per_dim(scaled - np.log(scales).sum(), 3, level=1)
    assert found == pytest.approx(expected, rel=1e-12)


@pytest.mark.parametrize("spread", [0.3, 1.0, 20.0])
def test_bits_are_an_upper_bound_for_the_discrete_model(spread):
    """Averaged over the noise by quadrature; close where the density is flat in a cell."""
    levels = np.array([0, 1, 3, 4, 9])
    law = stats.norm(3.0, spread)
    nats = [integrate.quad(lambda u, k=k: law.logpdf(k + u), 0, 1)[0] for k in levels]
    mass = law.cdf(levels + 1) - law.cdf(levels)
    discrete = -np.mean(np.log2(np.maximum(mass, law.sf(levels) - law.sf(levels + 1))))
    found = bits_per_dim(nats, 1, level=1)
    assert found > discrete
    if spread == 20.0:
        assert found == pytest.approx(discrete, abs=2e-3)


@pytest.mark.parametrize("container", [list, np.asarray, pd.Series, pl.Series])
def test_bits_take_any_array_of_scores(container):
    nats = [-1.0, -2.0, -6.0]
    assert bits_per_dim(container(nats), 2, level=1) == pytest.approx(1.5 / np.log(2))


@pytest.mark.parametrize(
    ("arguments", "kind", "message"),
    [
        ({"log_likelihood": [0.0, np.nan]}, ValueError, "log_likelihood: .*NaN"),
        ({"log_likelihood": -np.inf}, ValueError, "log_likelihood: .*infinity"),
        ({"log_likelihood": []}, ValueError, "log_likelihood: .*0 sample"),
        ({"log_likelihood": "a"}, ValueError, "log_likelihood: "),
        ({"log_likelihood": np.zeros((3, 1))}, ValueError, r"log_likelihood .* shape \(3, 1\)"),
        ({"n_features": 0}, ValueError, "n_features must be a positive integer, got 0"),
        ({"n_features": -3}, ValueError, "n_features must be a positive integer, got -3"),
        ({"n_features": 2.0}, TypeError, r"n_features must be a positive integer, got 2\.0"),
        ({"n_features": True}, TypeError, "n_features must be a positive integer, got True"),
        ({"level": 0}, ValueError, "level must be a positive number, got 0"),
        ({"level": -0.5}, ValueError, r"level must be a positive number, got -0\.5"),
        ({"level": np.inf}, ValueError, "level must be a positive number, got inf"),
        ({"level": np.nan}, ValueError, "level must be a positive number, got nan"),
        ({"level": "1/256"}, TypeError, "level must be a positive number, got '1/256'"),
    ],
)
def test_bits_say_what_is_wrong(arguments, kind, message):
    with pytest.raises(kind, match=message):
        bits_per_dim(**{"log_likelihood": 0.0, "n_features": 3, **arguments})


# ------------------------------------------------------------------------------- codes


@pytest.mark.parametrize("dtype", [np.float64, np.float32])
def test_active_units_are_those_of_more_variance(dtype):
    """Columns of exact variance, also far from zero."""
    signs = np.tile([1.0, -1.0], 500)[:, None]
    deviations = np.array([2.0, 0.5, 0.125, 0.0625, 0.0])
    for mean in (0.0, 1024.0):
        Z = (signs * deviations + mean).astype(dtype)
        assert active_units(Z) == 3
        assert [active_units(Z, threshold=t) for t in (0, 0.2, 0.25, 3.9, 4)] == [4, 2, 1, 1, 0]


def test_the_variance_of_codes_is_divided_by_their_number():
    """As in the authors' code: 1, where n - 1 would give 2."""
    assert active_units([[0.0], [2.0]], threshold=1.5) == 0
    assert active_units([[0.0], [2.0]], threshold=0.99) == 1


def test_active_units_of_ppca_are_by_its_spectrum():
    """Its codes have variance 1 - sigma^2 / lambda."""
    rng = np.random.default_rng(0)
    X = rng.normal(size=(4000, 8)) * [3.0, 2.0, 1.0, 0.4, 0.4, 0.4, 0.4, 0.4]
    ppca = PPCA(5).fit(X)
    spectrum = np.linalg.eigvalsh(np.cov(X.T, bias=True))[::-1]
    variances = 1 - spectrum[5:].mean() / spectrum[:5]
    for threshold in (0.01, 0.1, 0.9, 0.97):
        found = active_units(ppca.transform(X), threshold=threshold)
        assert found == np.sum(variances > threshold)


@pytest.mark.parametrize(
    ("arguments", "kind", "message"),
    [
        ({"Z": [[1.0, 2.0]]}, ValueError, "Z: .*1 sample.*minimum of 2"),
        ({"Z": [1.0, 2.0]}, ValueError, "Z: Expected 2D"),
        ({"Z": [[1.0], [np.nan]]}, ValueError, "Z: .*NaN"),
        ({"threshold": -0.1}, ValueError, r"threshold must be zero or a positive .* got -0\.1"),
        ({"threshold": np.nan}, ValueError, "threshold must be zero or a positive .* got nan"),
        ({"threshold": None}, TypeError, "threshold must be zero or a positive .* got None"),
    ],
)
def test_active_units_say_what_is_wrong(arguments, kind, message):
    with pytest.raises(kind, match=message):
        active_units(**{"Z": np.eye(3), **arguments})


# ------------------------------------------------------------------------------ Parzen


def parzen_by_scipy(samples, X, h):
    """Without any product of rows."""
    d = samples.shape[1]
    log_kernel = -(cdist(X, samples) ** 2) / (2 * h**2) - d / 2 * np.log(2 * np.pi * h**2)
    return logsumexp(log_kernel, axis=1) - np.log(len(samples))


def parzen_rows(n_features=4):
    """Samples, validation rows and test rows of one law."""
    return np.split(correlated_rows(75, n_features), [30, 50])


@pytest.mark.parametrize("bandwidth", [0.05, 0.4, 3.0])
@pytest.mark.parametrize("n_features", [1, 3])
def test_parzen_is_scikit_learns_kernel_density(n_features, bandwidth):
    samples, valid, test = parzen_rows(n_features)
    # One leaf: a tree loses digits to its bounds, all of them in many dimensions.
    kde = KernelDensity(bandwidth=bandwidth, leaf_size=1000).fit(samples)
    nats = kde.score_samples(test)
    found = parzen_log_likelihood(samples, valid, test, bandwidths=[bandwidth])
    assert found.log_likelihood == pytest.approx(nats.mean(), rel=1e-10)
    assert found.standard_error == pytest.approx(stats.sem(nats), rel=1e-10)
    assert found.bandwidth == bandwidth


@pytest.mark.parametrize("bandwidth", [0.1, 1.0])
def test_parzen_in_many_dimensions_is_that_of_scipy(bandwidth):
    samples, valid, test = parzen_rows(300)
    nats = parzen_by_scipy(samples, test, bandwidth)
    found = parzen_log_likelihood(samples, valid, test, bandwidths=[bandwidth])
    assert found.log_likelihood == pytest.approx(nats.mean(), rel=1e-11)
    assert found.standard_error == pytest.approx(stats.sem(nats), rel=1e-9)


def test_parzen_of_one_sample_is_the_kernel():
    test = correlated_rows(40, 3)
    law = stats.multivariate_normal([1.0, 2.0, 3.0], 0.25)
    found = parzen_log_likelihood([[1.0, 2.0, 3.0]], test, test, bandwidths=[0.5])
    assert found.log_likelihood == pytest.approx(law.logpdf(test).mean(), rel=1e-12)


@pytest.mark.parametrize("bandwidth", [0.1, 0.7])
def test_parzen_density_integrates_to_one(bandwidth):
    samples = correlated_rows(12, 1)
    grid = np.linspace(samples.min() - 9, samples.max() + 9, 4001)
    nats = metrics._parzen_log_densities(samples, grid[:, None], np.array([bandwidth]))
    assert integrate.simpson(np.exp(nats[:, 0]), x=grid) == pytest.approx(1.0, abs=1e-9)


def test_bandwidth_is_the_best_for_the_validation_rows():
    """And not for the test rows, whatever the order of the candidates."""
    rng = np.random.default_rng(0)
    samples, valid = rng.normal(size=(200, 2)), rng.normal(size=(100, 2))
    test = samples[:50] + 0.001 * rng.normal(size=(50, 2))
    bandwidths = rng.permutation(np.geomspace(1e-3, 5, 12))
    by_valid = [parzen_by_scipy(samples, valid, h).mean() for h in bandwidths]
    by_test = [parzen_by_scipy(samples, test, h).mean() for h in bandwidths]
    found = parzen_log_likelihood(samples, valid, test, bandwidths=bandwidths)
    assert found.bandwidth == bandwidths[np.argmax(by_valid)] != bandwidths[np.argmax(by_test)]
    assert found.log_likelihood == pytest.approx(by_test[np.argmax(by_valid)], rel=1e-10)


def test_bandwidths_are_by_default_those_of_the_literature():
    rng = np.random.default_rng(0)
    samples, valid, test = (rng.normal(size=(n, 2)) for n in (200, 100, 50))
    found = parzen_log_likelihood(samples, valid, test)
    assert found == parzen_log_likelihood(samples, valid, test, bandwidths=np.logspace(-1, 0, 10))
    assert found.bandwidth in np.logspace(-1, 0, 10)


@pytest.mark.parametrize(
    ("bandwidths", "end"), [([3.0, 2.0, 4.0], 2.0), ([0.01, 0.02, 0.005], 0.02)]
)
def test_best_bandwidth_at_an_end_warns(bandwidths, end):
    rng = np.random.default_rng(0)
    samples, valid, test = (rng.normal(size=(n, 2)) for n in (200, 100, 50))
    with pytest.warns(UserWarning, match=f"{end:g}, is at an end .*Use a wider range") as caught:
        found = parzen_log_likelihood(samples, valid, test, bandwidths=bandwidths)
    assert found.bandwidth == end
    assert caught[0].filename == __file__


@pytest.mark.parametrize("bandwidths", [2.0, [2.0], [2.0, 2.0]])
def test_one_bandwidth_is_no_choice_to_warn_of(bandwidths):
    samples, valid, test = parzen_rows()
    found = parzen_log_likelihood(samples, valid, test, bandwidths=bandwidths)
    assert found.bandwidth == 2.0


@pytest.mark.parametrize("block_bytes", [1, 8 * 4 * 7, 8 * 16 * 16])
def test_parzen_does_not_depend_on_the_blocks(monkeypatch, block_bytes):
    samples, valid, test = parzen_rows()
    bandwidths = [0.01, 0.3, 1.0, 50.0]
    whole = parzen_log_likelihood(samples, valid, test, bandwidths=bandwidths)
    set_block_bytes(monkeypatch, block_bytes)
    found = parzen_log_likelihood(samples, valid, test, bandwidths=bandwidths)
    np.testing.assert_allclose(found, whole, rtol=1e-12)


@pytest.mark.parametrize("shape", [(3000, 40), (50, 200_000)])
def test_parzen_takes_little_memory(shape):
    """Neither a table of all distances nor a copy of the rows: either takes over 70 MB."""
    rows = np.random.default_rng(0).random(shape, dtype=np.float32)
    tracemalloc.start()
    try:
        parzen_log_likelihood(rows, rows, rows, bandwidths=[1.0])
        peak = tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()
    assert peak < 32e6


@pytest.mark.parametrize("offset", [1e3, -1e7])
def test_a_large_mean_costs_no_digits_of_the_distances(offset):
    samples, valid, test = (np.round(rows, 3) for rows in parzen_rows())
    offset = 2.0 ** np.round(np.log2(abs(offset))) * np.sign(offset)
    moved = [rows + offset for rows in (samples, valid, test)]
    expected = parzen_by_scipy(*(rows - offset for rows in (moved[0], moved[2])), 0.1)
    found = parzen_log_likelihood(*moved, bandwidths=[0.1])
    assert found.log_likelihood == pytest.approx(expected.mean(), rel=1e-10)


@pytest.mark.parametrize("dtype", [np.uint8, np.float32])
def test_parzen_is_taken_in_doubles(dtype):
    rng = np.random.default_rng(0)
    rows = [rng.integers(0, 256, size=(n, 30)).astype(dtype) for n in (40, 20, 20)]
    expected = parzen_by_scipy(rows[0].astype(float), rows[2].astype(float), 30.0)
    found = parzen_log_likelihood(*rows, bandwidths=[30.0])
    assert found.log_likelihood == pytest.approx(expected.mean(), rel=1e-12)


@pytest.mark.parametrize("container", CONTAINERS)
def test_parzen_takes_any_rows(container):
    rows = parzen_rows()
    convert = CONTAINERS[container]
    expected = parzen_log_likelihood(*rows, bandwidths=[0.5])
    found = parzen_log_likelihood(*(convert(X) for X in rows), bandwidths=[0.5])
    np.testing.assert_allclose(found, expected, rtol=1e-12)


def test_parzen_density_changes_with_the_units():
    samples, valid, test = parzen_rows()
    nats, error, _ = parzen_log_likelihood(samples, valid, test, bandwidths=[0.5])
    found = parzen_log_likelihood(10 * samples, 10 * valid, 10 * test, bandwidths=[5.0])
    assert found.log_likelihood == pytest.approx(nats - 4 * np.log(10), rel=1e-12)
    assert found.standard_error == pytest.approx(error, rel=1e-12)


def test_parzen_depends_only_on_the_cloud_of_samples():
    """Not on their order, on repeating them all, or on a rigid motion of everything."""
    samples, valid, test = parzen_rows()
    expected = parzen_log_likelihood(samples, valid, test, bandwidths=[0.5])
    turn = rotation(4)
    for changed in (
        (samples[::-1], valid, test),
        (np.repeat(samples, 3, axis=0), valid, test),
        tuple(rows @ turn + 5.0 for rows in (samples, valid, test)),
    ):
        found = parzen_log_likelihood(*changed, bandwidths=[0.5])
        np.testing.assert_allclose(found, expected, rtol=1e-10)


def test_rows_far_from_every_sample_do_not_underflow():
    samples, valid, test = parzen_rows()
    test = test + 1e5
    found = parzen_log_likelihood(samples, valid, test, bandwidths=[0.5])
    expected = parzen_by_scipy(samples, test, 0.5).mean()
    assert expected < -1e10
    assert found.log_likelihood == pytest.approx(expected, rel=1e-12)


def test_kernels_that_underflow_are_no_error_for_those_who_raise_them():
    samples, valid, test = parzen_rows()
    expected = parzen_log_likelihood(samples, valid, test, bandwidths=[0.01])
    with np.errstate(all="raise"):
        assert parzen_log_likelihood(samples, valid, test, bandwidths=[0.01]) == expected


@pytest.mark.parametrize(
    ("arguments", "kind", "message"),
    [
        ({"samples": np.ones(3)}, ValueError, "samples: Expected 2D"),
        ({"samples": np.ones((0, 3))}, ValueError, "samples: .*0 sample"),
        ({"samples": [[np.nan] * 3]}, ValueError, "samples: .*NaN"),
        ({"X_validation": [[np.inf] * 3]}, ValueError, "X_validation: .*infinity"),
        ({"X_validation": np.ones((5, 2))}, ValueError, "X_validation has 2 col.*samples has 3"),
        ({"X_test": [[np.nan] * 3] * 2}, ValueError, "X_test: .*NaN"),
        ({"X_test": np.ones((5, 4))}, ValueError, "X_test has 4 columns, but samples has 3"),
        ({"X_test": np.ones((1, 3))}, ValueError, "X_test: .*1 sample.*minimum of 2"),
        ({"bandwidths": [0.1, 0.0]}, ValueError, "bandwidths must be positive"),
        ({"bandwidths": [-0.1]}, ValueError, r"bandwidths must be positive .*\[-0\.1\]"),
        ({"bandwidths": [[0.1]]}, ValueError, "bandwidths must be positive"),
        ({"bandwidths": []}, ValueError, "bandwidths: .*0 sample"),
        ({"bandwidths": [np.nan, 0.1]}, ValueError, "bandwidths: .*NaN"),
        ({"bandwidths": "auto"}, ValueError, "bandwidths: "),
        ({"bandwidths": [1e-200]}, ValueError, "outside of the range of floats.*larger bandwidths"),
        (
            {"X_test": np.full((2, 3), 1e200)},
            ValueError,
            "X_test is outside of the range of floats",
        ),
    ],
)
def test_parzen_says_what_is_wrong(arguments, kind, message):
    rows = {
        "samples": np.ones((4, 3)),
        "X_validation": np.zeros((4, 3)),
        "X_test": np.zeros((4, 3)),
        "bandwidths": [1.0],
    }
    with pytest.raises(kind, match=message):
        parzen_log_likelihood(**{**rows, **arguments})


# ----------------------------------------------------------------------------- Fréchet


def rows_with(mean, covariance, n_samples, seed=0):
    """Rows of exactly this mean and covariance, with n - 1."""
    noise = np.random.default_rng(seed).normal(size=(n_samples, len(mean)))
    noise -= noise.mean(axis=0)
    white = np.linalg.qr(noise)[0] * np.sqrt(n_samples - 1)
    values, axes = np.linalg.eigh(covariance)
    return white @ (axes * np.sqrt(np.maximum(values, 0))).T + mean


def frechet_by_sqrtm(X, Y):
    """By the definition, for covariances of full rank."""
    S, T = (np.cov(rows.T) for rows in (X, Y))
    root = linalg.sqrtm(S @ T)
    shift = X.mean(axis=0) - Y.mean(axis=0)
    return shift @ shift + np.trace(S + T - 2 * root.real)


@pytest.mark.parametrize(("n", "m"), [(2, 2), (5, 40)])
def test_frechet_distance_on_a_line(n, m):
    """The difference of means squared and that of standard deviations squared."""
    X, Y = correlated_rows(n, 1), correlated_rows(m, 1, seed=3, mean=2.0)
    expected = (X.mean() - Y.mean()) ** 2 + (X.std(ddof=1) - Y.std(ddof=1)) ** 2
    assert frechet_distance(X, Y) == pytest.approx(expected, rel=1e-12)


def test_frechet_distance_of_commuting_covariances():
    """The same axes: every axis is a line of its own."""
    axes = rotation(4)
    variances = np.array([[4.0, 1.0, 0.25, 9.0], [1.0, 1.0, 4.0, 0.01]])
    X, Y = (
        rows_with(mean, axes @ np.diag(values) @ axes.T, 20, seed)
        for mean, values, seed in zip([np.zeros(4), np.arange(4.0)], variances, (0, 1), strict=True)
    )
    expected = 14.0 + np.sum((np.sqrt(variances[0]) - np.sqrt(variances[1])) ** 2)
    assert frechet_distance(X, Y) == pytest.approx(expected, rel=1e-12)


@pytest.mark.parametrize("n_features", [2, 5, 12])
def test_frechet_distance_is_that_of_a_matrix_square_root(n_features):
    X, Y = correlated_rows(50, n_features), correlated_rows(31, n_features, seed=1, mean=0.5)
    assert frechet_distance(X, Y) == pytest.approx(frechet_by_sqrtm(X, Y), rel=1e-9)


@pytest.mark.parametrize(("n", "m"), [(4, 5), (6, 4), (4, 400)])
def test_frechet_distance_of_few_rows_is_that_in_their_span(n, m):
    """Three dimensions inside of thirty; with four rows the covariances have their rank."""
    X, Y = correlated_rows(n, 3), correlated_rows(m, 3, seed=1, mean=1.0)
    inside = rotation(30)[:, :3].T
    found = frechet_distance(X @ inside + 7.0, Y @ inside + 7.0)
    assert found == pytest.approx(frechet_by_sqrtm(X, Y), rel=1e-10)


@pytest.mark.parametrize(("n", "m"), [(5, 8), (60, 70)])
def test_frechet_distance_of_orthogonal_subspaces_adds_all_variance(n, m):
    """Nothing is shared: no digit may come from roots of rounding errors."""
    axes = rotation(40)
    X, Y = correlated_rows(n, 20) @ axes[:, :20].T, correlated_rows(m, 20, seed=1) @ axes[:, 20:].T
    variance = np.sum(X.var(axis=0, ddof=1)) + np.sum(Y.var(axis=0, ddof=1))
    expected = np.sum((X.mean(axis=0) - Y.mean(axis=0)) ** 2) + variance
    assert frechet_distance(X, Y) == pytest.approx(expected, rel=1e-12)


@pytest.mark.parametrize("shape", [(50, 4), (5, 30), (2, 3)])
def test_frechet_distance_of_moved_and_stretched_copies(shape):
    X = correlated_rows(*shape)
    shift = np.arange(shape[1], dtype=float)
    variance = np.sum(X.var(axis=0, ddof=1))
    assert frechet_distance(X, X) == pytest.approx(0.0, abs=1e-13 * variance)
    assert frechet_distance(X, X[::-1]) == pytest.approx(0.0, abs=1e-13 * variance)
    assert frechet_distance(X, X + shift) == pytest.approx(shift @ shift, rel=1e-11)
    centre = X.mean(axis=0)
    stretched = centre + 3 * (X - centre)
    assert frechet_distance(X, stretched) == pytest.approx(4 * variance, rel=1e-12)
    assert frechet_distance(X, centre + 0 * X) == pytest.approx(variance, rel=1e-12)


@pytest.mark.parametrize("shape", [(50, 4), (5, 30)])
def test_frechet_distance_is_a_distance(shape):
    """Symmetric, never negative, with the triangle inequality for its root."""
    clouds = [correlated_rows(*shape, seed=seed, mean=seed) for seed in range(3)]
    table = np.array([[frechet_distance(X, Y) for Y in clouds] for X in clouds])
    np.testing.assert_allclose(table, table.T, rtol=1e-12, atol=1e-12)
    assert (table >= 0).all()
    roots = np.sqrt(table)
    assert roots[0, 2] <= roots[0, 1] + roots[1, 2]


@pytest.mark.parametrize("shape", [(50, 4), (5, 30)])
def test_frechet_distance_keeps_under_rigid_motions_and_goes_with_the_scale(shape):
    X, Y = correlated_rows(*shape), correlated_rows(*shape, seed=1)
    expected = frechet_distance(X, Y)
    turn = rotation(shape[1])
    assert frechet_distance(X @ turn + 5, Y @ turn + 5) == pytest.approx(expected, rel=1e-11)
    assert frechet_distance(7 * X, 7 * Y) == pytest.approx(49 * expected, rel=1e-12)


def test_a_large_mean_costs_no_digits_of_the_covariance():
    X, Y = np.round(correlated_rows(50, 4), 3), np.round(correlated_rows(30, 4, seed=1), 3)
    expected = frechet_distance(X + 2.0**20 - 2.0**20, Y + 2.0**20 - 2.0**20)
    assert frechet_distance(X + 2.0**20, Y + 2.0**20) == pytest.approx(expected, rel=1e-8)


def test_frechet_distance_does_not_depend_on_the_blocks(monkeypatch):
    X, Y = correlated_rows(70, 3), correlated_rows(50, 3, seed=1)
    whole = frechet_distance(X, Y)
    monkeypatch.setattr(metrics, "_ROOT_ROWS", 1)
    assert frechet_distance(X, Y) == pytest.approx(whole, rel=1e-12)
    mean, root = metrics._mean_and_root(X)
    assert root.shape == (3, 3)
    np.testing.assert_allclose(root.T @ root, np.cov(X.T), rtol=1e-12)
    np.testing.assert_allclose(mean, X.mean(axis=0), rtol=1e-13)


@pytest.mark.parametrize("container", CONTAINERS)
def test_frechet_distance_takes_any_rows(container):
    X, Y = correlated_rows(30, 3), correlated_rows(20, 3, seed=1)
    convert = CONTAINERS[container]
    found = frechet_distance(convert(X), convert(Y))
    assert found == pytest.approx(frechet_distance(X, Y), rel=1e-13)


@pytest.mark.parametrize("dtype", [np.uint8, np.float32])
def test_frechet_distance_is_taken_in_doubles(dtype):
    rng = np.random.default_rng(0)
    X, Y = (rng.integers(0, 256, size=(n, 5)).astype(dtype) for n in (30, 40))
    expected = frechet_by_sqrtm(X.astype(float), Y.astype(float))
    assert frechet_distance(X, Y) == pytest.approx(expected, rel=1e-10)


def test_frechet_distance_of_features_is_that_of_their_rows():
    """Features see the rows as they were given: frames with names, images."""
    X = pd.DataFrame(correlated_rows(40, 5), columns=list("abcde"))
    Y = pd.DataFrame(correlated_rows(30, 5, seed=1), columns=list("abcde"))
    pca = PCA(2).fit(X)
    expected = frechet_distance(pca.transform(X), pca.transform(Y))
    assert frechet_distance(X, Y, features=pca.transform) == expected
    images = [correlated_rows(n, 6, seed=n).reshape(n, 2, 3) for n in (20, 30)]
    expected = frechet_distance(*(rows.reshape(len(rows), 6) for rows in images))
    assert frechet_distance(*images, features=lambda rows: rows.reshape(-1, 6)) == expected


@pytest.mark.parametrize(
    ("arguments", "kind", "message"),
    [
        ({"X": np.ones(3)}, ValueError, "X: Expected 2D"),
        ({"X": np.ones((1, 3))}, ValueError, "X: .*1 sample.*minimum of 2"),
        ({"Y": np.ones((1, 3))}, ValueError, "Y: .*1 sample.*minimum of 2"),
        ({"Y": [[np.nan] * 3] * 2}, ValueError, "Y: .*NaN"),
        ({"Y": np.ones((5, 2))}, ValueError, "Y has 2 columns, but X has 3"),
        (
            {"X": np.diag([1e200, 1, 1])},
            ValueError,
            "X or Y are outside of the range of floats. Rescale",
        ),
        ({"Y": np.diag([1e308, -1e308, 1])}, ValueError, "range of floats. Rescale"),
        ({"features": PCA()}, TypeError, r"features must be a function .*; got PCA\(\)"),
        ({"features": "inception"}, TypeError, "features must be a function .*; got 'inception'"),
        ({"features": lambda rows: rows[:2]}, ValueError, r"features\(X\) has 2 rows, but X has 4"),
        ({"features": lambda rows: rows[:, 0]}, ValueError, r"features\(X\): Expected 2D"),
        ({"features": lambda rows: rows * np.nan}, ValueError, r"features\(X\): .*NaN"),
        (
            {"features": lambda rows: rows[:, : int(rows[0, 0])]},
            ValueError,
            r"features\(Y\) has 1 columns, but features\(X\) has 2",
        ),
    ],
)
def test_frechet_distance_says_what_is_wrong(arguments, kind, message):
    arguments = {"X": np.full((4, 3), 2.0), "Y": np.full((4, 3), 1.0), **arguments}
    with pytest.raises(kind, match=message):
        frechet_distance(**arguments)


# ------------------------------------------------------------------------------ what is given

X, Y = correlated_rows(40, 3), correlated_rows(40, 3, seed=1)
# What every metric computes of rows, by the names of the rows.
OF_ROWS = {
    "X": lambda rows: reconstruction_error(rows, Y),
    "X_reconstructed": lambda rows: reconstruction_error(Y, rows),
    "Z": active_units,
    "samples": lambda rows: parzen_log_likelihood(rows, Y, Y, bandwidths=1.0),
    "X_validation": lambda rows: parzen_log_likelihood(Y, rows, Y, bandwidths=1.0),
    "X_test": lambda rows: parzen_log_likelihood(Y, Y, rows, bandwidths=1.0),
    "X ": lambda rows: frechet_distance(rows, Y),
    "Y": lambda rows: frechet_distance(Y, rows),
}
every_argument = pytest.mark.parametrize(("name", "metric"), OF_ROWS.items())


@every_argument
def test_dates_are_no_rows(name, metric):
    days = np.arange("2000", "2010", dtype="datetime64[M]").reshape(40, 3)
    frame = pd.DataFrame(days.astype("datetime64[s]"))
    for dates in (days, frame, pl.from_pandas(frame.rename(columns=str)), days - days[0]):
        with pytest.raises(TypeError, match=rf"^{name.strip()}\W.*dates or times.* numbers"):
            metric(dates)


@every_argument
def test_images_are_no_rows_yet(name, metric):
    with pytest.raises(ValueError, match=rf"{name.strip()}.*\.reshape\(len\("):
        metric(np.ones((40, 3, 1)))


@every_argument
def test_masked_rows_are_refused_where_none_may_miss(name, metric):
    masked = np.ma.masked_greater(X, 0.0)
    if name == "X":
        assert metric(masked) == metric(masked.filled(np.nan))
    else:
        with pytest.raises(ValueError, match=f"{name.strip()} is a masked array"):
            metric(masked)
    assert metric(np.ma.array(X)) == metric(X)


@every_argument
def test_bfloat16_rows_are_float32_rows(name, metric):
    rows = torch.from_numpy(X).bfloat16()
    assert metric(rows) == metric(rows.float().numpy())
    assert metric(torch.tensor(X, requires_grad=True)) == metric(X)


@every_argument
def test_missing_objects_of_pandas(name, metric):
    objects = X.astype(object)
    objects[3, 1] = pd.NA
    if name == "X":
        assert metric(objects) == metric(np.where(pd.isna(objects), np.nan, X))
    else:
        with pytest.raises(ValueError, match=f"{name.strip()}: .*NaN"):
            metric(objects)


def test_other_arguments_are_numbers_that_are_seen():
    masked = np.ma.masked_greater(np.linspace(0.1, 1.0, 40), 0.5)
    with pytest.raises(ValueError, match="sample_weight is a masked array"):
        reconstruction_error(X, Y, sample_weight=masked)
    with pytest.raises(ValueError, match="log_likelihood is a masked array"):
        bits_per_dim(masked, 3)
    with pytest.raises(ValueError, match="bandwidths is a masked array"):
        parzen_log_likelihood(X, X, X, bandwidths=masked)
    with pytest.raises(TypeError, match="log_likelihood has dates"):
        bits_per_dim(np.array(["2000", "2001"], dtype="M8[Y]"), 3)
    nats = torch.linspace(-3, 3, 40).bfloat16()
    assert bits_per_dim(nats, 3) == bits_per_dim(nats.double().numpy(), 3)


@pytest.mark.parametrize("size", [1e155, 1e300, 1.7e308])
def test_what_is_beyond_the_float_range_is_said(size):
    """Without a warning of NumPy's."""
    rows = np.where(X > 0, size, -size)
    for metric, name in (
        (lambda: reconstruction_error(rows, Y), "squared error of X and X_reconstructed"),
        (lambda: reconstruction_error(rows, -rows), "squared error of X and X_reconstructed"),
        (lambda: active_units(rows), "variance of Z"),
        (lambda: bits_per_dim(np.full(40, 1.7e308), 3), "mean of log_likelihood"),
    ):
        with pytest.raises(
            ValueError, match=f"The {name} is outside of the range of floats. Rescale"
        ):
            metric()
    for n in (10**400, 2**2000):
        with pytest.raises(ValueError, match="n_features must be a positive integer"):
            bits_per_dim(0.0, n)


@pytest.mark.parametrize("scale", [1e-320, 1e-300, 1e300, 4e306])
def test_weights_of_an_error_have_no_scale(scale):
    weight = np.arange(40.0)
    expected = np.average(((X - Y) ** 2).sum(axis=1), weights=weight)
    found = reconstruction_error(X, Y, sample_weight=scale * weight)
    assert found == pytest.approx(expected, rel=1e-12 if scale > 1e-310 else 0.05)
