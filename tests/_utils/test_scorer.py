"""Scorers in searches: pickles, metadata, and candidates that are refused."""

import copy
import pickle
import warnings

import numpy as np
import pytest
import sklearn
from sklearn import model_selection
from sklearn.base import clone
from sklearn.datasets import load_iris
from sklearn.decomposition import PCA
from sklearn.exceptions import UnsetMetadataPassedError
from sklearn.model_selection import cross_val_score
from sklearn.pipeline import Pipeline
from sklearn.preprocessing import StandardScaler

import skae
from skae import PPCA, Autoencoder, LatentDensityEstimator, LinearAE
from skae.metrics import (
    explained_variance_scorer,
    log_likelihood_scorer,
    reconstruction_error_scorer,
)

X, Y = load_iris(return_X_y=True)
SCORERS = [reconstruction_error_scorer, explained_variance_scorer, log_likelihood_scorer]
SEARCHES = [model_selection.GridSearchCV, skae.GridSearchCV]


@pytest.mark.parametrize("scorer", SCORERS)
def test_scorers_are_pickled_and_copied_by_name(scorer):
    assert pickle.loads(pickle.dumps(scorer)) is scorer
    assert copy.deepcopy(scorer) is copy.copy(scorer) is scorer
    assert repr(scorer) == f"skae.metrics.{scorer.__name__}"
    asking = scorer.set_score_request(sample_weight="w")
    assert repr(asking) == f"{scorer!r}.set_score_request(sample_weight='w')"
    for other in (pickle.loads(pickle.dumps(asking)), copy.deepcopy(asking)):
        assert other.get_metadata_routing().score.requests == {"sample_weight": "w"}
    assert scorer.get_metadata_routing().score.requests == {"sample_weight": None}


@pytest.mark.parametrize("Search", SEARCHES)
@pytest.mark.parametrize("scorer", SCORERS)
def test_searches_rank_by_the_scorer(Search, scorer):
    steps = Pipeline([("scale", StandardScaler()), ("reduce", PCA())])
    search = Search(steps, {"reduce__n_components": [1, 3]}, scoring=scorer, cv=3)
    clone(search).fit(X, Y)
    found = search.fit(X).cv_results_
    for split, (train, test) in enumerate(model_selection.KFold(3).split(X)):
        for number, k in enumerate((1, 3)):
            expected = scorer(
                clone(steps).set_params(reduce__n_components=k).fit(X[train]), X[test]
            )
            assert found[f"split{split}_test_score"][number] == pytest.approx(expected)


def test_several_scorers_at_once():
    scoring = {scorer.__name__: scorer for scorer in SCORERS}
    found = skae.cross_validate(PPCA(2), X, scoring=scoring, cv=3)
    for name, scorer in scoring.items():
        expected = cross_val_score(PPCA(2), X, scoring=scorer, cv=3)
        np.testing.assert_allclose(found[f"test_{name}"], expected)


@pytest.mark.parametrize("scorer", SCORERS)
def test_weights_are_routed_where_they_are_requested(scorer):
    weights = 1.0 + np.arange(len(X)) % 2
    folds = model_selection.KFold(3, shuffle=True, random_state=0)
    with sklearn.config_context(enable_metadata_routing=True):
        model = LinearAE(2).set_fit_request(sample_weight=True)
        with pytest.raises(UnsetMetadataPassedError):
            cross_val_score(model, X, scoring=scorer, cv=folds, params={"sample_weight": weights})
        asking = scorer.set_score_request(sample_weight=True)
        params = {"sample_weight": weights}
        found = cross_val_score(model, X, scoring=asking, cv=folds, params=params)
        both = skae.cross_validate(model, X, scoring={"s": asking}, cv=folds, params=params)
    np.testing.assert_allclose(both["test_s"], found)
    for score, (train, test) in zip(found, folds.split(X), strict=True):
        fitted = LinearAE(2).fit(X[train], sample_weight=weights[train])
        expected = scorer(fitted, X[test], sample_weight=weights[test])
        assert score == pytest.approx(expected)


@pytest.mark.parametrize("Search", SEARCHES)
def test_candidates_that_are_refused_are_never_picked(Search):
    """The candidate with the largest score of its own kind is last, and a warning says why."""
    others = [LatentDensityEstimator(PCA(2), max_iter=2), Autoencoder(2, max_iter=2)]
    grid = {"reduce": [*others, PPCA(2), PCA(1)]}
    model = Pipeline([("reduce", PPCA())])
    folds = model_selection.KFold(2, shuffle=True, random_state=0)
    search = Search(model, grid, scoring=log_likelihood_scorer, cv=folds)
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        search.fit(X)
    assert list(search.cv_results_["rank_test_score"]) == [3, 3, 1, 2]
    assert list(np.isnan(search.cv_results_["mean_test_score"])) == [True, True, False, False]
    messages = [str(warning.message) for warning in caught]
    for kind in ("'latent'", "'reconstruction'"):
        assert any("Scoring failed" in m and f"is {kind}" in m for m in messages)
    search.set_params(error_score="raise")
    with pytest.raises(ValueError, match="score_kind of LatentDensityEstimator is 'latent'"):
        search.fit(X)
