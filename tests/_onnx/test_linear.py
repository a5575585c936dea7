"""ONNX graphs of linear models beside NumPy: the sweep, rows with gaps, other types."""

import numpy as np
import onnxruntime
import pytest
from scipy import stats
from sklearn.decomposition import PCA

from helpers import make_rows
from skae import PPCA, LinearAE
from skae._onnx.graph import Graph, described
from skae._onnx.linear import _swept
from skae.export import to_onnx


def run(model, values):
    session = onnxruntime.InferenceSession(model.SerializeToString())
    (found,) = session.run(None, {session.get_inputs()[0].name: values})
    return found


@pytest.mark.parametrize("scale", [1.0, 1e8, 1e-8])
def test_sweeping_every_index_inverts(scale):
    """Swept on all indices, a matrix is minus its inverse, also far from unit scale."""
    root = np.random.default_rng(0).normal(size=(3, 4, 6)) * scale
    matrices = root @ root.transpose(0, 2, 1)
    graph = Graph()
    value = graph.apply("Reshape", "X", graph.constant([-1, 4, 4], np.int64))
    for pivot in range(4):
        value, _ = _swept(graph, value, pivot, 4)
    graph.apply("Reshape", value, graph.constant([-1, 16], np.int64), output="Z")
    model = graph.model("encoder", 16, 16, ("float64", "float64"), 20)
    found = run(described(model, None, "encoder"), matrices.reshape(3, 16)).reshape(3, 4, 4)
    np.testing.assert_allclose(-found @ matrices, np.broadcast_to(np.eye(4), (3, 4, 4)), atol=1e-9)


def test_scores_of_rows_with_gaps_are_densities_of_their_observed_values():
    X = make_rows(gaps=0.3, dtype=np.float64)
    model = PPCA(2).fit(X)
    found = run(to_onnx(model, "score"), X)
    covariance = model.get_covariance()
    for row, nats in zip(X, found, strict=True):
        seen = ~np.isnan(row)
        if seen.any():
            normal = stats.multivariate_normal(model.mean_[seen], covariance[np.ix_(seen, seen)])
            np.testing.assert_allclose(nats, normal.logpdf(row[seen]))


def test_codes_of_rows_without_any_value_are_zero():
    X = make_rows(dtype=np.float64)
    model = PPCA(2).fit(X)
    empty = np.full((2, X.shape[1]), np.nan)
    np.testing.assert_allclose(run(to_onnx(model), empty), 0.0, atol=1e-12)
    np.testing.assert_allclose(run(to_onnx(model, "score"), empty), 0.0, atol=1e-12)


def test_codes_are_those_of_pca():
    X = make_rows(dtype=np.float64)
    pca = PCA(2, whiten=True).fit(X)
    np.testing.assert_allclose(
        run(to_onnx(LinearAE(2, whiten=True).fit(X)), X), pca.transform(X), rtol=1e-9, atol=1e-12
    )


def test_a_noise_that_is_too_small_for_gaps_is_told():
    X = make_rows(dtype=np.float64, noise=0.0)
    with pytest.warns(UserWarning, match="noise variance was raised"):
        model = PPCA(2).fit(X)
    with pytest.warns(UserWarning, match="cannot encode and score rows with missing values"):
        graph = to_onnx(model)
    np.testing.assert_allclose(run(graph, X), model.transform(X), atol=1e-7)
    X[0, 0] = np.nan
    assert np.isnan(run(graph, X)[0]).all()
