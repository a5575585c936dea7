"""Compiled loops over rows with holes against NumPy, and fits with and without Numba."""

import subprocess
import sys

import numpy as np
import pytest

from helpers import low_rank_rows
from skae import PPCA
from skae._linear import compiled
from skae._linear.incomplete_rows import e_step, group_rows
from skae._linear.linear_gaussian import LinearGaussian
from skae._linear.packed import invert_packed, pack, unpack


@pytest.fixture
def compiles(monkeypatch):
    """Loops of any length are compiled."""
    pytest.importorskip("numba")
    monkeypatch.setattr(compiled, "WORTH_COMPILING", {"invert": 0, "centre": 0})


def rows_with_holes(n_samples=300, dtype=np.float64):
    X = low_rank_rows(n_samples, 7, scales=(4.0, 2.0), noise=0.5, mean=3.0, seed=0).astype(dtype)
    hole = np.random.default_rng(1).random(X.shape) < 0.3
    hole[np.arange(n_samples), np.arange(n_samples) % 7] = False
    return np.where(hole, np.nan, X)


def make_model(n_latents=3):
    rng = np.random.default_rng(2)
    loadings, mean = rng.normal(size=(7, n_latents)), rng.normal(size=7) + 3.0
    return LinearGaussian(loadings, mean, rng.uniform(0.1, 0.5, 7))


@pytest.mark.usefixtures("compiles")
@pytest.mark.parametrize("n_matrices", [1, 63, 64, 65, 150])
@pytest.mark.parametrize("n_latents", [1, 2, 5, 12])
@pytest.mark.parametrize(("dtype", "tol"), [(np.float64, 1e-9), (np.float32, 1e-4)])
def test_inverses_and_determinants_are_those_of_numpy(n_matrices, n_latents, dtype, tol):
    root = np.random.default_rng(0).normal(size=(n_matrices, n_latents, 2 * n_latents + 2))
    full = root @ root.transpose(0, 2, 1)
    matrices = pack(full).astype(dtype)
    invert = compiled.inverter(n_latents, n_matrices)
    assert invert is not invert_packed
    log_det = invert(matrices)
    assert matrices.dtype == dtype
    assert log_det.dtype == np.float64
    np.testing.assert_allclose(unpack(matrices), np.linalg.inv(full), rtol=tol, atol=tol)
    np.testing.assert_allclose(log_det, np.linalg.slogdet(full)[1], rtol=tol, atol=tol)


@pytest.mark.usefixtures("compiles")
@pytest.mark.parametrize("order", ["C", "F"])
@pytest.mark.parametrize("dtype", [np.float64, np.float32, ">f8"])
def test_values_are_the_rows_centred_with_zeros_for_holes(order, dtype):
    X = np.array(rows_with_holes(), dtype=dtype, order=order)
    rows = group_rows(X, None)
    expected = np.nan_to_num(X[rows.order[5:90]].astype(float) - rows.shift)
    np.testing.assert_allclose(rows.values(slice(5, 90)), expected, rtol=1e-12, atol=1e-12)


@pytest.mark.parametrize("weighted", [False, True])
def test_expected_sums_are_those_of_numpy(weighted, request):
    X, model = rows_with_holes(), make_model()
    weight = np.random.default_rng(0).uniform(0.5, 2, len(X)) if weighted else None
    expected = e_step(group_rows(X, weight), model)
    request.getfixturevalue("compiles")
    found = e_step(group_rows(X, weight), model)
    for a, b in zip(found, expected, strict=True):
        np.testing.assert_allclose(a, b, rtol=1e-10, atol=1e-10)


@pytest.mark.parametrize("loadings_prior", [None, "ard"])
def test_fits_are_those_of_numpy(loadings_prior, request):
    X = rows_with_holes()
    options = {"loadings_prior": loadings_prior, "tol": 1e-3, "random_state": 0}
    plain = PPCA(3, **options).fit(X)
    request.getfixturevalue("compiles")
    model = PPCA(3, **options).fit(X)
    np.testing.assert_allclose(model.loadings_, plain.loadings_, rtol=1e-7, atol=1e-9)
    np.testing.assert_allclose(model.impute(X), plain.impute(X), rtol=1e-8)


def test_small_fits_are_not_compiled():
    code = (
        "import sys, numpy as np; from skae import PPCA; "
        "X = np.random.RandomState(0).normal(size=(500, 5)); X[::3, 1] = np.nan; PPCA(2).fit(X); "
        "assert 'numba' not in sys.modules"
    )
    subprocess.run([sys.executable, "-c", code], check=True)


def test_large_fits_work_without_numba(monkeypatch):
    monkeypatch.setattr(compiled, "WORTH_COMPILING", {"invert": 0, "centre": 0})
    for name in ("skae._utils.compiler", "skae._linear.kernels"):
        monkeypatch.delitem(sys.modules, name, raising=False)
    monkeypatch.setitem(sys.modules, "numba", None)
    assert compiled.inverter(3, 300) is invert_packed
    X = rows_with_holes()
    assert np.isfinite(PPCA(2, random_state=0).fit(X).score(X))
