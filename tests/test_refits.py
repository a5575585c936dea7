"""Whatever a fit learned, private or not, is gone after the next one."""

import copy

import numpy as np
import pytest
from sklearn.base import clone
from sklearn.decomposition import PCA
from sklearn.mixture import GaussianMixture
from skorch.callbacks import Callback

from helpers import make_rows
from skae import (
    PPCA,
    VAE,
    VQVAE,
    AdversarialAE,
    Autoencoder,
    CountMixtureAE,
    HelmholtzMachine,
    LatentDensityEstimator,
    LinearAE,
)

NETWORK = {"max_iter": 2, "random_state": 0, "device": "cpu"}
GROWING = {"latent_growth": "nested", "noise_variance": "per_feature"}


def lde(autoencoder, **params):
    return LatentDensityEstimator(autoencoder, **{"max_iter": 2, "random_state": 0, **params})


# Models that learn more in a first fit than in the second, and what changes between them.
REFITS = {
    "gaussian, swiss roll": (AdversarialAE(2, **NETWORK), {"prior": "swiss_roll"}),
    "own prior, none": (
        AdversarialAE(2, prior=lambda n: np.zeros((n, 2)), **NETWORK),
        {"prior": "gaussian"},
    ),
    "independent, no prior": (VQVAE(2, n_codes=8, prior="independent", **NETWORK), {"prior": None}),
    "causal, no prior": (VQVAE(2, n_codes=8, **NETWORK), {"prior": None}),
    "causal, independent": (VQVAE(2, n_codes=8, **NETWORK), {"prior": "independent"}),
    "p(x|z), none": (lde(Autoencoder(2, **NETWORK)), {"autoencoder": LinearAE(2)}),
    "network, mixture": (lde(PCA(2)), {"density": GaussianMixture(), "max_iter": None}),
    "mixture, network": (
        lde(PCA(2), density=GaussianMixture(), max_iter=None),
        {"density": "flow"},
    ),
    "Gaussians, cells": (CountMixtureAE(3, random_state=0), {"covariance_type": "cell"}),
    "cells, Gaussians": (CountMixtureAE(3, covariance_type="cell"), {"covariance_type": "tied"}),
    "labels, none": (VAE(2, conditional=True, **NETWORK), {"conditional": False}),
    "growing, not": (Autoencoder(3, **GROWING, **NETWORK), {"latent_growth": None}),
    "noise, none": (HelmholtzMachine(2, likelihood="gaussian", **NETWORK), {"likelihood": "auto"}),
    "EM, closed form": (PPCA(2, solver="em", random_state=0), {"solver": "closed_form"}),
    "gradient, closed form": (LinearAE(2, solver="gradient"), {"solver": "closed_form"}),
}


@pytest.mark.parametrize("stream", [False, True], ids=["fit", "stream"])
@pytest.mark.parametrize(("model", "change"), REFITS.values(), ids=REFITS.keys())
def test_a_refit_leaves_what_a_first_fit_leaves(model, change, stream):
    X = make_rows(40, 4)
    X = np.abs(X) if isinstance(model, CountMixtureAE) else X
    y = np.arange(len(X)) % 3
    model = clone(model)
    if stream and not hasattr(model, "partial_fit"):
        pytest.skip("has no partial_fit")
    (model.partial_fit if stream else model.fit)(X, y)
    if "likelihood" in change:
        X = (np.median(X) < X).astype(np.float64)
    model.set_params(**change).fit(X, y)
    fresh = clone(model).fit(X, y)
    assert vars(model).keys() == vars(fresh).keys()
    np.testing.assert_array_equal(model.transform(X), fresh.transform(X))


@pytest.mark.parametrize("model", [lde(None), lde(PCA(2)), lde(None, n_components=2)])
def test_the_kind_of_the_score_is_that_of_the_fit(model):
    """Whatever the parameters become."""
    X = make_rows(40, 4)
    model = clone(model)
    before = model.score_kind
    assert model.fit(X).score_kind == before
    assert model.set_params(autoencoder=PCA(1), n_components=None).score_kind == before
    assert model.set_params(autoencoder=None).score_kind == before
    assert clone(model).score_kind == "log_likelihood"


def arrays_in(state):
    """Arrays of a state, also those in its tuples."""
    for value in state.values():
        parts = value if isinstance(value, tuple) else (value,)
        yield from (part for part in parts if isinstance(part, np.ndarray))


def test_models_hold_no_training_rows():
    """What is saved of many rows of many features is of the size of the network."""
    X = np.random.default_rng(0).normal(size=(200, 2000)).astype(np.float32)
    for model in (Autoencoder(2, hidden_layer_sizes=(2,), **NETWORK),):
        model.fit(X)
        held = [v for v in arrays_in(model.__getstate__()) if v.ndim == 2]
        assert not [value.shape for value in held if value.shape[1] == X.shape[1]]
        wrapped = LatentDensityEstimator(model, max_iter=1, random_state=0).fit(X)
        held = [v for v in arrays_in(wrapped.__getstate__()) if v.ndim == 2]
        assert not [value.shape for value in held if value.shape[1] == X.shape[1]]


def test_queries_change_nothing():
    """Nor does the first of them."""
    X = make_rows(40, 4)
    for model in (Autoencoder(2, **NETWORK), lde(Autoencoder(2, **NETWORK))):
        model.fit(X)
        before = dict(vars(model))
        model.data_score_samples(X)
        model.sample(3)
        model.score(X)
        assert vars(model).keys() == before.keys()
        assert all(vars(model)[name] is value for name, value in before.items())


SOLVERS = ("adam", "adamw", "sgd", "lbfgs")


@pytest.mark.parametrize("first", SOLVERS)
@pytest.mark.parametrize("other", SOLVERS)
def test_a_stream_may_change_its_solver_and_go_back(first, other):
    """Each call is what it is on a copy, whose network has memory of its own."""
    X = make_rows(60, 4)
    model = Autoencoder(2, hidden_layer_sizes=(5,), random_state=0, device="cpu")
    stream, alone = clone(model), clone(model)
    for solver in (first, first, other, first, other, other):
        stream.set_params(solver=solver).partial_fit(X)
        alone = copy.copy(alone).set_params(solver=solver).partial_fit(X)
        np.testing.assert_array_equal(stream.transform(X), alone.transform(X))
    assert len(stream.history_) == 6


def test_a_copy_does_not_change_when_its_model_goes_on():
    X = make_rows(60, 4)
    model = Autoencoder(2, hidden_layer_sizes=(5,), random_state=0, device="cpu").partial_fit(X)
    copies, codes = [], []
    for _ in range(4):
        model.partial_fit(X)
        copies.append(copy.copy(model))
        codes.append(model.transform(X))
    for kept, expected in zip(copies, codes, strict=True):
        np.testing.assert_array_equal(kept.transform(X), expected)
    assert len({code.tobytes() for code in codes}) == 4


class Counts(Callback):
    """Counts epochs on the module."""

    def on_epoch_begin(self, net, **kwargs):
        net.module_.counter = getattr(net.module_, "counter", 0) + 1


def test_what_a_callback_notes_on_the_module_goes_on():
    X = make_rows(60, 4)
    model = Autoencoder(2, callbacks=[Counts()], random_state=0, device="cpu")
    for _ in range(6):
        model.partial_fit(X)
    assert model.net_.module_.counter == 6


class Own(Autoencoder):
    """A subclass with fewer parameters, and an attribute of its own."""

    def __init__(self, n_components=2, max_iter=2, random_state=0):
        super().__init__(n_components, max_iter=max_iter, random_state=random_state, device="cpu")
        self._note = "mine"


def test_subclasses_may_have_fewer_parameters_and_attributes_of_their_own():
    X = make_rows(40, 4)
    model = Own().fit(X)
    expected = Autoencoder(2, **NETWORK).fit(X)
    np.testing.assert_array_equal(model.transform(X), expected.transform(X))
    model.note_of_another_kind = 1
    model._late = 2
    model.fit(X).partial_fit(X).fit(X)
    assert (model._note, model._late, model.note_of_another_kind) == ("mine", 2, 1)
