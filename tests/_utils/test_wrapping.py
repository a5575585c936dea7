"""Models inside of other estimators, the rows that they get, and their seeds."""

import numpy as np
from numpy.testing import assert_allclose
from sklearn.cluster import KMeans
from sklearn.decomposition import PCA
from sklearn.frozen import FrozenEstimator
from sklearn.mixture import GaussianMixture
from sklearn.model_selection import GridSearchCV
from sklearn.pipeline import FeatureUnion, Pipeline, make_pipeline
from sklearn.preprocessing import StandardScaler

from helpers import make_rows
from skae import Autoencoder
from skae._utils.wrapping import model_of, rows_for_model, seeded

X = make_rows(dtype=np.float64)


def test_the_model_is_the_last_step_of_whatever_wraps_it():
    """Pipelines in Pipelines, frozen estimators and searches, before and after the fit."""
    pca = PCA(2)
    inner = make_pipeline(StandardScaler(), pca)
    assert model_of(pca) is pca
    assert model_of(make_pipeline(inner)) is pca
    assert model_of(FrozenEstimator(inner)) is pca
    search = GridSearchCV(inner, {"pca__n_components": [1]}, cv=2)
    assert model_of(search) is pca
    assert model_of(search.fit(X)) is search.best_estimator_[-1]


def test_rows_for_the_model_have_passed_all_steps_before_it():
    """Computed by hand, also where Pipelines, searches and frozen estimators are nested."""
    inner = make_pipeline(StandardScaler(), PCA(3), PCA(2))
    outer = make_pipeline(StandardScaler(with_std=False), inner).fit(X)
    centred = X - X.mean(axis=0)
    expected = outer[1][1].transform(centred / X.std(axis=0))
    assert_allclose(rows_for_model(outer, X), expected)
    assert_allclose(rows_for_model(FrozenEstimator(outer), X), expected)
    search = GridSearchCV(make_pipeline(StandardScaler(), PCA()), {"pca__n_components": [1]}, cv=2)
    assert_allclose(rows_for_model(search.fit(X), X), centred / X.std(axis=0))
    assert rows_for_model(PCA(2).fit(X), X) is X
    assert rows_for_model(make_pipeline(KMeans(2)).fit(X), X) is X


def test_seeds_are_set_where_there_are_none():
    """Those that were given stay; they follow the generator, and differ from each other."""

    def made():
        steps = [("one", PCA(2)), ("two", PCA(2, random_state=7)), ("three", Autoencoder(2))]
        return FeatureUnion([("a", Pipeline(steps)), ("b", GaussianMixture())])

    def seeds(estimator):
        params = estimator.get_params()
        return {name: params[name] for name in params if name.endswith("random_state")}

    model = made()
    first = seeds(seeded(model, np.random.RandomState(0)))
    assert first["a__two__random_state"] == 7
    drawn = [value for name, value in first.items() if name != "a__two__random_state"]
    assert len(set(drawn)) == 3
    assert all(type(value) is int and 0 <= value < 2**31 for value in drawn)
    assert seeds(seeded(made(), np.random.RandomState(0))) == first
    assert seeds(seeded(made(), np.random.RandomState(1))) != first
    assert seeds(seeded(model, np.random.RandomState(1))) == first


def test_seeds_of_frozen_estimators_stay():
    """And of what knows no seeds nothing changes."""
    frozen = FrozenEstimator(PCA(2).fit(np.eye(3)))
    assert seeded(frozen, np.random.RandomState(0)) is frozen
    assert frozen.estimator.random_state is None
    rng = np.random.RandomState(0)
    seeded(StandardScaler(), rng)
    assert rng.randint(1000) == np.random.RandomState(0).randint(1000)
