"""Units of codes, shrunk covariances and wrapped estimators, against NumPy and scikit-learn."""

import warnings

import numpy as np
import pytest
import torch
from sklearn.base import clone
from sklearn.covariance import ledoit_wolf
from sklearn.decomposition import PCA, IncrementalPCA, KernelPCA
from sklearn.feature_extraction.text import CountVectorizer
from sklearn.frozen import FrozenEstimator
from sklearn.mixture import GaussianMixture
from sklearn.pipeline import Pipeline, make_pipeline
from sklearn.preprocessing import StandardScaler

from skae import Autoencoder, LinearAE
from skae._densities.code_units import CodeUnits, shrunk_covariance
from skae._densities.wrapped_estimators import (
    call_quietly,
    check_autoencoder,
    check_codes,
    fingerprint,
    fit_autoencoder,
    size_parameter,
    unwrapped,
)


def codes_of(n=50, seed=0, dtype=np.float64):
    """Five codes in unlike units, of which the second and the last are constant."""
    varying = np.random.default_rng(seed).gamma(2.0, size=(n, 3)) * [1e-6, 1.0, 1e6] + [0, -5, 3e6]
    first, second, third = varying.T
    return np.stack([first, np.full(n, 0.1), second, third, np.full(n, -7.0)], 1).astype(dtype)


# ---------------------------------------------------------------------------- units


@pytest.mark.parametrize("dtype", [np.float32, np.float64])
def test_standardised_codes_are_those_that_vary(dtype):
    """With mean 0 and variance 1; back they are what they were, constants too."""
    codes = codes_of(dtype=dtype)
    before = codes.copy()
    units = CodeUnits.of(codes, None)
    z = units.standardised(codes)
    assert units.varies.tolist() == [True, False, True, True, False]
    assert units.n_free == 3
    assert z.dtype == np.float64
    tolerance = 1e-9 if dtype is np.float64 else 1e-5
    np.testing.assert_allclose(z.mean(0), 0.0, atol=tolerance)
    np.testing.assert_allclose(z.std(0), 1.0, atol=tolerance)
    back = units.restored(z)
    assert back.dtype == dtype
    np.testing.assert_allclose(back, codes, rtol=1e-6 if dtype is np.float32 else 1e-12)
    other = np.float64 if dtype is np.float32 else np.float32
    assert units.restored(z, other).dtype == other
    np.testing.assert_allclose(units.completed(codes[:, units.varies]), codes, rtol=1e-7)
    np.testing.assert_array_equal(codes, before)
    np.testing.assert_allclose(units.standardised(units.restored(z, np.float64)), z, atol=1e-9)


def test_standard_deviations_and_the_log_volume():
    """Of codes that vary; 0 of the others. The volume is the product."""
    codes = codes_of()
    units = CodeUnits.of(codes, None)
    expected = np.where([1, 0, 1, 1, 0], codes.std(0), 0.0)
    np.testing.assert_allclose(units.stds(), expected, rtol=1e-9)
    assert units.log_volume() == pytest.approx(np.log(codes.std(0)[[0, 2, 3]]).sum())


def test_weights_count_like_repeated_rows():
    """In means and deviations."""
    codes, counts = codes_of(), np.random.default_rng(1).integers(0, 5, 50)
    one = CodeUnits.of(codes, counts.astype(float))
    many = CodeUnits.of(np.repeat(codes, counts, axis=0), None)
    np.testing.assert_array_equal(one.varies, many.varies)
    np.testing.assert_allclose(one.center, many.center, rtol=1e-12)
    np.testing.assert_allclose(one.scale, many.scale, rtol=1e-9)


def test_a_code_that_varies_in_rows_of_no_weight_does_not():
    """Its value is that of the rows that count."""
    codes, weight = codes_of(), np.r_[np.zeros(25), np.ones(25)]
    codes[25:, 2] = 4.0
    units = CodeUnits.of(codes, weight)
    assert units.varies.tolist() == [True, False, False, True, False]
    np.testing.assert_allclose(units.constant, [0.1, 4.0, -7.0])


@pytest.mark.parametrize("dtype", [np.float32, np.float64])
def test_rounding_is_not_variation(dtype):
    """Codes around 1e6 that move by a unit in the last place are constant; by many they vary."""
    rng = np.random.default_rng(0)
    last = np.spacing(dtype(1e6))
    rounding = 1e6 + last * rng.integers(-1, 2, 60)
    moving = 1e6 + 1000 * last * rng.normal(size=60)
    codes = np.stack([rounding, moving], 1).astype(dtype)
    units = CodeUnits.of(codes, None)
    assert units.varies.tolist() == [False, True]
    np.testing.assert_allclose(units.restored(units.standardised(codes))[:, 1], codes[:, 1])
    np.testing.assert_allclose(units.constant, 1e6, rtol=1e-6)


@pytest.mark.parametrize("value", [0.0, 1e6, -3.0])
@pytest.mark.parametrize("dtype", [np.float32, np.float64])
def test_something_varies_where_nothing_does(value, dtype):
    """The first code, as if by a little: back it is the value."""
    codes = np.full((9, 3), value, dtype=dtype)
    units = CodeUnits.of(codes, None)
    assert units.varies.tolist() == [True, False, False]
    z = units.standardised(codes)
    np.testing.assert_array_equal(z, 0.0)
    np.testing.assert_array_equal(units.restored(z), codes)
    assert np.isfinite(units.log_volume())
    assert 0 < units.scale[0] <= 1e-3 * max(abs(value), 1e-3)


def test_one_row_has_units():
    """No code varies."""
    units = CodeUnits.of(codes_of(1), None)
    assert units.n_free == 1
    np.testing.assert_allclose(units.restored(units.standardised(codes_of(1))), codes_of(1))


# ---------------------------------------------------------------- shrunk covariances


def standardised(n, k, seed=0):
    """Correlated codes of mean 0 and variance 1."""
    rng = np.random.default_rng(seed)
    z = rng.normal(size=(n, k)) @ (np.eye(k) + 0.5 * rng.normal(size=(k, k)))
    return ((z - z.mean(0)) / z.std(0)).astype(np.float32)


@pytest.mark.parametrize(("n", "k"), [(5, 8), (20, 6), (300, 4), (2**14, 3), (50, 1)])
def test_covariances_are_shrunk_as_scikit_learn_shrinks_them(n, k):
    """By Ledoit and Wolf."""
    z = standardised(n, k)
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", "Only one sample", UserWarning)
        expected, _ = ledoit_wolf(z.astype(np.float64), assume_centered=True)
    np.testing.assert_allclose(shrunk_covariance(z, None), expected, atol=1e-5)
    np.testing.assert_allclose(shrunk_covariance(z, np.full(n, 3.0)), expected, atol=1e-5)


@pytest.mark.parametrize("n", [40_000, 100_000])
def test_many_rows_are_hardly_shrunk(n):
    """The covariance is NumPy's, though its shrinkage is estimated from some rows."""
    z = standardised(n, 5)
    found, plain = shrunk_covariance(z, None), np.cov(z.T.astype(np.float64), bias=True)
    np.testing.assert_allclose(found, plain, atol=1e-3)
    with_all, _ = ledoit_wolf(z.astype(np.float64), assume_centered=True)
    assert 0.5 < np.abs(found - plain).max() / np.abs(with_all - plain).max() < 2


def test_weights_of_covariances_count_like_repeated_rows():
    """Of many rows, which are hardly shrunk."""
    z, counts = standardised(4000, 4), np.random.default_rng(1).integers(0, 4, 4000)
    many = np.repeat(z, counts, axis=0)
    found = shrunk_covariance(z, counts.astype(float))
    expected = many.T.astype(np.float64) @ many / len(many)
    np.testing.assert_allclose(found, expected, atol=5e-3)
    np.testing.assert_allclose(found, shrunk_covariance(many, None), atol=5e-3)
    assert np.abs(found - shrunk_covariance(z, None)).max() > 1e-2


@pytest.mark.parametrize("weighted", [False, True], ids=["equal", "weighted"])
@pytest.mark.parametrize("n", [3, 5, 10])
def test_few_rows_have_a_covariance_of_full_rank(n, weighted):
    """Fewer rows than codes: eigenvalues are above zero."""
    z = standardised(n, 12)
    weight = np.random.default_rng(0).random(n) + 0.5 if weighted else None
    found = shrunk_covariance(z, weight)
    np.testing.assert_allclose(found, found.T, atol=1e-14)
    assert np.linalg.eigvalsh(found).min() > 0.05


def test_chunks_change_no_covariance(monkeypatch):
    """Sums over pieces of the rows, of any size, with weights that belong to them."""
    z, weight = standardised(101, 3), np.random.default_rng(0).random(101)
    expected = shrunk_covariance(z, weight)
    monkeypatch.setattr("skae._training.data._CHUNK_BYTES", 240)
    np.testing.assert_allclose(shrunk_covariance(z, weight), expected, rtol=1e-12)


# ---------------------------------------------------------------------- what is wrapped

SIZES = {
    "plain": (PCA(), "n_components"),
    "Autoencoder": (Autoencoder(), "n_components"),
    "Pipeline": (Pipeline([("scale", StandardScaler()), ("pca", PCA())]), "pca__n_components"),
    "two steps": (Pipeline([("one", PCA(4)), ("two", LinearAE(2))]), "two__n_components"),
    "size first": (Pipeline([("one", PCA(4)), ("two", StandardScaler())]), "one__n_components"),
}


@pytest.mark.parametrize(("pair", "name"), SIZES.values(), ids=SIZES.keys())
def test_size_parameter_is_that_of_the_last_step_that_has_one(pair, name):
    """In a pipeline; else the estimator's own. Set, it is the number of codes."""
    assert size_parameter(pair) == name
    X = np.random.default_rng(0).normal(size=(30, 5))
    if not isinstance(pair, Autoencoder):  # which would be trained
        assert clone(pair).set_params(**{name: 2}).fit_transform(X).shape == (30, 2)


@pytest.mark.parametrize(
    "pair", [StandardScaler(), make_pipeline(StandardScaler())], ids=["plain", "Pipeline"]
)
def test_what_has_no_size_is_named(pair):
    """With what to do."""
    with pytest.raises(ValueError, match=r"autoencoder=.*StandardScaler.*Set n_components=None"):
        size_parameter(pair)


@pytest.mark.parametrize("first", [StandardScaler(), PCA(4)], ids=["scaler", "PCA"])
def test_size_parameter_of_a_pipeline_within_a_pipeline(first):
    """That of the inner one, if it is the last step; the codes are the inner one's."""
    inner = Pipeline([("scale", StandardScaler()), ("pca", PCA(3))])
    pair = Pipeline([("first", first), ("inner", inner)])
    assert size_parameter(pair) == "inner__pca__n_components"


def test_fingerprints_tell_parameters_apart():
    """By their types, parameters and, if frozen, what they have learned; None has none."""
    rows = np.random.default_rng(0).normal(size=(9, 3))
    assert fingerprint(None) is None
    assert fingerprint(PCA(2)) == fingerprint(PCA(2)) != fingerprint(PCA(3))
    seeds = [PCA(2, random_state=np.random.RandomState(seed)) for seed in (0, 0, 1)]
    found = [fingerprint(pair) for pair in seeds]
    assert found[0] == found[1] != found[2]
    first, same, other = (FrozenEstimator(PCA(2).fit(X)) for X in (rows, rows, rows + rows**2))
    assert fingerprint(first) == fingerprint(same) != fingerprint(other)


@pytest.mark.parametrize("n", [31, 2000])
@pytest.mark.parametrize("kind", ["list", "array"])
def test_long_parameters_differ_where_they_do(kind, n):
    """Wherever that is."""

    def with_means(value):
        means = np.zeros((n, 1))
        means[n // 2 + 15] = value
        means = means.tolist() if kind == "list" else means
        return GaussianMixture(n_components=n, means_init=means)

    assert fingerprint(with_means(0.0)) == fingerprint(with_means(0.0))
    assert fingerprint(with_means(0.0)) != fingerprint(with_means(1.0))


@pytest.mark.parametrize(
    ("pair", "message"),
    [
        (PCA, "given a class"),
        (StandardScaler, "given a class"),
        (CountVectorizer, "given a class"),
        (GaussianMixture(), "fit, transform and inverse_transform"),
        (7, "autoencoder=7 must be"),
        (KernelPCA(2), "Set its fit_inverse_transform=True"),
        (FrozenEstimator(KernelPCA(2)), "Set its fit_inverse_transform=True"),
    ],
    ids=["class", "scaler", "vectorizer", "density", "number", "KernelPCA", "frozen"],
)
def test_what_cannot_encode_and_decode_is_named(pair, message):
    """Before anything is fitted."""
    with pytest.raises(ValueError, match=message):
        check_autoencoder(pair)
    check_autoencoder(PCA(2))
    check_autoencoder(KernelPCA(2, fit_inverse_transform=True))


def test_frozen_estimators_are_unwrapped():
    """Others are themselves."""
    pca = PCA(2)
    assert unwrapped(FrozenEstimator(pca)) is pca
    assert unwrapped(pca) is pca


@pytest.mark.parametrize(
    ("codes", "message"),
    [
        (np.zeros((3, 2), dtype=int), "integer codes"),
        (np.zeros((3, 2), dtype=bool), "integer codes"),
        (np.zeros(3), r"shape \(3,\)"),
        (np.full((3, 2), np.nan), "expected finite floats"),
        (np.full((3, 2), np.inf), "expected finite floats"),
        (np.zeros((3, 2), dtype=complex), "complex128"),
    ],
    ids=["integers", "booleans", "one axis", "missing", "infinite", "complex"],
)
def test_codes_of_no_density_are_named(codes, message):
    """With whose codes they are."""
    with pytest.raises(ValueError, match=rf"^autoencoder=PCA\(n_components=2\).*{message}"):
        check_codes(PCA(2), codes)
    check_codes(PCA(2), np.zeros((3, 2), dtype=np.float32))
    for pair, whose in ((None, "X, which are the codes,"), (PCA(2), "codes of autoencoder=PCA")):
        with pytest.raises(
            ValueError, match=rf"^The values of {whose}.* up to 1e\+160 .*Rescale X"
        ):
            check_codes(pair, np.full((3, 2), -1e160))


def test_weights_reach_what_is_fitted_or_are_warned_of():
    """Those of LinearAE count; PCA takes none."""
    X = np.random.default_rng(0).normal(size=(40, 3)) * [1.0, 2.0, 3.0]
    weight = np.repeat([1.0, 3.0], 20)
    pair = LinearAE(2)
    fit_autoencoder(pair, X, None, weight, False)
    np.testing.assert_allclose(pair.mean_, np.average(X, axis=0, weights=weight), rtol=1e-6)
    fit_autoencoder(pair, X, None, None, False)
    np.testing.assert_allclose(pair.mean_, X.mean(0), rtol=1e-6, atol=1e-9)
    plain = PCA(2)
    with pytest.warns(
        UserWarning, match=r"autoencoder=PCA\(n_components=2\) does not support weights"
    ):
        fit_autoencoder(plain, X, None, weight, False)
    np.testing.assert_allclose(plain.mean_, X.mean(0))
    stream = IncrementalPCA(2)  # which takes none where it goes on, nor elsewhere
    with pytest.warns(UserWarning, match="does not support weights"):
        fit_autoencoder(stream, X, None, weight, True)


def test_calls_are_quiet_and_leave_torchs_generator_alone():
    """Of what was fitted on columns with names, or reads the generator; other warnings stay."""
    before = torch.get_rng_state()

    def reads(X):
        warnings.warn("X does not have valid feature names, but", UserWarning, stacklevel=1)
        return torch.rand(3).numpy() + X

    assert call_quietly(reads, 1.0).shape == (3,)
    assert torch.equal(before, torch.get_rng_state())

    def warns(X):
        warnings.warn("something else", UserWarning, stacklevel=1)

    with pytest.warns(UserWarning, match="something else"):
        call_quietly(warns, None)
