"""Expected sums over complete rows from their covariance, against a loop over the rows."""

import numpy as np
import pytest
from scipy import sparse

from skae._linear.complete_rows import CompleteRows
from skae._linear.incomplete_rows import group_rows
from skae._linear.linear_gaussian import LinearGaussian, Uncertainty, encoder_of
from skae._linear.moments import moments, row_mean
from skae._linear.subspace import CentredRows, CentredScatter

X = np.random.default_rng(0).normal(size=(50, 5)) @ np.diag([1, 2, 3, 1, 1]) + [0, 3, 0, 0, -9]
WEIGHT = np.random.default_rng(1).uniform(0.5, 2.0, 50)

every_weight = pytest.mark.parametrize("weight", [None, WEIGHT], ids=["unweighted", "weighted"])
every_source = pytest.mark.parametrize("source", ["rows", "sparse", "scatter"])


def complete(source, weight):
    """The rows by products with them, or by their scatter matrix."""
    values = sparse.csr_array(X) if source == "sparse" else X
    mean = row_mean(values, weight)
    if source == "scatter":
        found = CentredScatter(moments(values, weight, mean), values)
    else:
        found = CentredRows(values, weight, mean)
    return CompleteRows(found, found.diagonal, 50.0 if weight is None else weight.sum())


def make_model(uncertain, *, n_latents=2, one_spread=False):
    rng = np.random.default_rng(2)
    W, mean = rng.normal(size=(5, n_latents)), X.mean(axis=0) + rng.normal(size=5)
    root = rng.normal(size=(1 if one_spread else 5, n_latents + 1, n_latents + 3)) / 5
    spread, relevance = root @ root.transpose(0, 2, 1), rng.uniform(0.5, 2.0, n_latents)
    uncertainty = Uncertainty(spread, relevance) if uncertain else None
    return LinearGaussian(W, mean, rng.uniform(0.3, 2.0, 5), uncertainty)


@every_source
@every_weight
def test_totals_are_those_of_the_rows(source, weight):
    found, rows = complete(source, weight), group_rows(X, weight)
    assert found.n == pytest.approx(rows.n)
    assert found.n_features == rows.n_features
    for name in ("counts", "totals", "squares", "shift"):
        np.testing.assert_allclose(getattr(found, name), getattr(rows, name), atol=1e-10)
    V = np.random.default_rng(3).normal(size=(5, 2))
    np.testing.assert_allclose(found.products(V), rows.products(V), rtol=1e-9)
    if source == "scatter":
        for a, b in zip(found.pairs(), rows.pairs(), strict=True):
            np.testing.assert_allclose(a, b, rtol=1e-9, atol=1e-9)


@every_source
@every_weight
@pytest.mark.parametrize("kind", ["certain", "spread of each", "one spread"])
@pytest.mark.parametrize("n_latents", [1, 3])
def test_expected_sums_are_those_of_a_loop(source, weight, kind, n_latents):
    model = make_model(kind != "certain", n_latents=n_latents, one_spread=kind == "one spread")
    W, mean, psi, uncertainty = model
    spread = np.zeros((5, n_latents + 1, n_latents + 1))
    if uncertainty is not None:
        spread = np.broadcast_to(uncertainty.spread, spread.shape)
    M = np.eye(n_latents) + sum(
        np.outer(W[d], W[d]) / psi[d] + spread[d, :-1, :-1] for d in range(5)
    )
    center = X.mean(axis=0) if weight is None else weight @ X / weight.sum()
    each = np.ones(50) if weight is None else weight
    overall, cross = 0, 0
    for x, w in zip(X, each, strict=True):
        b = sum(W[d] * (x[d] - mean[d]) / psi[d] - spread[d, :-1, -1] for d in range(5))
        z = np.linalg.solve(M, b)
        second = np.outer(z, z) + np.linalg.inv(M)
        overall = overall + w * np.r_[second[np.tril_indices(n_latents)], z, 1.0]
        cross = cross + w * np.outer(x - center, z)
    sums = complete(source, weight).sums(model)
    np.testing.assert_allclose(sums.overall, overall, rtol=1e-9, atol=1e-9)
    np.testing.assert_allclose(sums.per_feature, overall[:, None], rtol=1e-9, atol=1e-9)
    np.testing.assert_allclose(sums.cross, cross, rtol=1e-9, atol=1e-9)


@every_source
@every_weight
@pytest.mark.parametrize("uncertain", [False, True])
def test_sums_and_the_bound_are_those_of_rows_that_may_have_holes(source, weight, uncertain):
    model = make_model(uncertain)
    found, expected = complete(source, weight).sums(model), group_rows(X, weight).sums(model)
    assert found.log_likelihood == pytest.approx(expected.log_likelihood, rel=1e-10)
    np.testing.assert_allclose(found.overall, expected.overall, rtol=1e-9, atol=1e-9)
    same = np.broadcast_to(found.per_feature, expected.per_feature.shape)
    np.testing.assert_allclose(same, expected.per_feature, rtol=1e-9, atol=1e-9)
    np.testing.assert_allclose(found.cross, expected.cross, rtol=1e-9, atol=1e-9)


def test_the_code_of_the_mean_is_zero_without_uncertainty():
    assert not encoder_of(make_model(False))[2].any()
    assert encoder_of(make_model(True))[2].all()
