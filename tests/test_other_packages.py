"""Autoencoders where other packages expect PCA: imbalanced-learn, skrub and mlxtend.

benchmarks/other_packages.py does the same for packages that are larger.
"""

import warnings

import numpy as np
import pandas as pd
import pytest
from sklearn.base import clone
from sklearn.datasets import load_digits, load_iris
from sklearn.decomposition import PCA
from sklearn.linear_model import LogisticRegression
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler, scale

from helpers import network
from skae import PPCA, VAE, Autoencoder, LinearAE

MODELS = [
    PCA(2),
    LinearAE(2),
    PPCA(2),
    network(Autoencoder, init="linear"),
    network(VAE, init="linear"),
]
every_model = pytest.mark.parametrize("model", MODELS, ids=lambda model: type(model).__name__)


@every_model
def test_between_the_samplers_of_imbalanced_learn(model):
    """Rows are removed before the model and made after it, in `fit` only."""
    pytest.importorskip("imblearn")
    from imblearn.over_sampling import SMOTE
    from imblearn.pipeline import Pipeline
    from imblearn.under_sampling import RandomUnderSampler

    X, y = load_digits(return_X_y=True)
    rare = (y == 1) & (np.arange(len(y)) % 5 == 0)
    X, y = X[(y == 0) | rare], y[(y == 0) | rare]
    pipeline = Pipeline(
        [
            ("fewer", RandomUnderSampler(sampling_strategy=0.5, random_state=0)),
            ("reduce", clone(model)),
            ("more", SMOTE(random_state=0)),
            ("classify", LogisticRegression()),
        ]
    ).fit(X, y)
    seen, _ = RandomUnderSampler(sampling_strategy=0.5, random_state=0).fit_resample(X, y)
    alone = clone(model).fit(seen)
    np.testing.assert_allclose(pipeline[:2].transform(X), alone.transform(X), atol=1e-5)
    assert pipeline.score(X, y) > 0.95


@every_model
def test_behind_the_vectorizer_of_skrub(model):
    """Columns of numbers, dates and text become rows of numbers, and dates are seconds."""
    skrub = pytest.importorskip("skrub")
    rng = np.random.default_rng(0)
    table = pd.DataFrame(rng.normal(size=(40, 3)), columns=["width", "height", "weight"])
    table["city"] = ["Bonn", "Kiel"] * 20
    table["day"] = pd.date_range("2024-01-01", periods=40)
    pipeline = make_pipeline(skrub.TableVectorizer(), StandardScaler(), clone(model))
    rows = pipeline[:2].fit_transform(table)
    codes = pipeline.fit_transform(table)
    alone = clone(model).fit(rows)
    np.testing.assert_allclose(codes, alone.transform(rows), atol=1e-5)
    assert list(pipeline.get_feature_names_out()) == list(alone.get_feature_names_out())


@every_model
def test_in_place_of_some_columns_by_skrub(model):
    """The codes stand beside the columns that were not given."""
    skrub = pytest.importorskip("skrub")
    X, _ = load_iris(return_X_y=True, as_frame=True)
    X["kind"] = ["a", "b", "c"] * 50
    apply = skrub.ApplyToCols(clone(model), cols=list(X.columns[:4]))
    out = apply.fit_transform(X)
    alone = clone(model).fit(X[X.columns[:4]])
    names = list(alone.get_feature_names_out())
    assert list(out.columns) == ["kind", *names]
    expected = alone.transform(X[X.columns[:4]])
    np.testing.assert_allclose(out[names], expected, atol=1e-5)
    np.testing.assert_allclose(apply.transform(X)[names], expected, atol=1e-5)


@every_model
def test_correlation_circle_of_mlxtend(model):
    """The axes show the explained variances as shares of the variance of X."""
    plotting = pytest.importorskip("mlxtend.plotting")
    import matplotlib.pyplot as plt

    X = scale(load_iris().data)
    fitted = clone(model).fit(X)
    codes = fitted.transform(X)
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", category=DeprecationWarning)  # of Matplotlib, by mlxtend
        figure, correlations = plotting.plot_pca_correlation_graph(
            X, list("abcd"), X_pca=codes, explained_variance=fitted.explained_variance_
        )
    expected = np.corrcoef(X.T, codes.T)[:4, 4:]
    np.testing.assert_allclose(correlations, expected, atol=1e-5)
    share = 100 * fitted.explained_variance_ratio_
    axes = figure.axes[0]
    for label, found in zip([axes.get_xlabel(), axes.get_ylabel()], share, strict=True):
        assert float(label.split("(")[1].rstrip("%)")) == pytest.approx(found, abs=0.11)
    plt.close(figure)
