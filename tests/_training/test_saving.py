"""Models through files: after a round trip training goes on with the same bits."""

import copy

import numpy as np
import pytest
import skops.io
from torch import nn

from helpers import (
    assert_same,
    learned,
    make_rows,
    network,
    own_networks,
    through_joblib,
    through_pickle,
    through_skops,
)

every_file = pytest.mark.parametrize(
    "saved_and_loaded",
    [through_pickle, through_joblib, through_skops],
    ids=["pickle", "joblib", "skops"],
)


@every_file
@pytest.mark.parametrize(
    "params",
    [
        {"solver": "adam"},
        {"solver": "adamw", "normalization": "batch"},
        {"solver": "sgd", "tied_weights": True, "noise": "gaussian"},
        {"solver": "lbfgs", "likelihood": "laplace"},
        {"learning_rate": "cosine", "sparsity": 0.2, "latent_growth": "nested"},
        {"learning_rate": "adaptive", "tol": 1e6, "n_iter_no_change": 50},
        {"latent_growth": "incremental", "noise_variance": "per_feature"},
        {"early_stopping": True, "hidden_layer_sizes": ()},
    ],
    ids=lambda params: "-".join(map(str, params.values())),
)
def test_a_file_keeps_what_training_needs(params, saved_and_loaded, tmp_path):
    """After a round trip training goes on with the same bits, by partial_fit and warm_start."""
    X = make_rows()
    model = network(warm_start=True, **params).fit(X)
    loaded = saved_and_loaded(model, tmp_path / "model")
    assert_same(learned(loaded), learned(model))
    assert_same(learned(loaded.partial_fit(X)), learned(model.partial_fit(X)))
    assert_same(learned(loaded.fit(X)), learned(model.fit(X)))


@pytest.mark.parametrize("saved_and_loaded", [through_pickle, through_joblib])
def test_files_of_your_own_networks(saved_and_loaded, tmp_path):
    """pickle and joblib keep them, dropout's draws included; templates are never trained."""
    X = make_rows()
    params = own_networks()
    before = copy.deepcopy(params["encoder"].state_dict())
    model = network(**params).fit(X)
    assert_same(params["encoder"].state_dict(), before)
    loaded = saved_and_loaded(model, tmp_path / "model")
    np.testing.assert_array_equal(loaded.transform(X), model.transform(X))
    assert_same(learned(loaded.partial_fit(X)), learned(model.partial_fit(X)))


@pytest.mark.parametrize(
    "params",
    [own_networks(), {"perceptual": (nn.Linear(5, 3), 0.5)}],
    ids=lambda params: "-".join(params),
)
@pytest.mark.parametrize("fit", [False, True])
def test_skops_refuses_your_own_networks(fit, params):
    """Its TypeError says which parameter holds one, and what saves it instead."""
    model = network(**params)
    if fit:
        model.fit(make_rows())
    with pytest.raises(TypeError, match=rf"{next(iter(params))}.*pickle"):
        skops.io.dumps(model)
