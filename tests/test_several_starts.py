"""n_init: the best of several starts of a network."""

import numpy as np
import pytest
from sklearn.base import clone
from sklearn.datasets import load_wine
from sklearn.exceptions import ConvergenceWarning
from sklearn.preprocessing import StandardScaler
from skorch.callbacks import Callback

from helpers import network
from skae import VAE, VQVAE, AdversarialAE, Autoencoder, HelmholtzMachine

X = StandardScaler().fit_transform(load_wine().data).astype(np.float32)
COINS = (X > 0).astype(np.float32)
COMMON = {"hidden_layer_sizes": 8, "max_iter": 5, "init": "random", "random_state": 3}
MODELS = {
    "autoencoder": (Autoencoder(2, **COMMON), X),
    "vae": (VAE(2, **COMMON), X),
    "adversarial": (AdversarialAE(2, **COMMON), X),
    "discrete": (VQVAE(2, **COMMON), X),
    "helmholtz": (
        HelmholtzMachine(2, hidden_layer_sizes=8, max_iter=5, random_state=3),
        COINS,
    ),
}


def seeds(n):
    """Those of the starts: the model's own, and what its generator gives."""
    rng = np.random.RandomState(3)
    return [3, *(int(rng.randint(2**31 - 1)) for _ in range(n - 1))]


@pytest.mark.parametrize("name", MODELS)
def test_the_best_of_separate_fits_is_kept(name):
    model, rows = MODELS[name]
    separate = [clone(model).set_params(random_state=seed).fit(rows) for seed in seeds(3)]
    scores = [one.score(rows) for one in separate]
    assert len(set(scores)) == 3
    best = separate[int(np.argmax(scores))]
    found = clone(model).set_params(n_init=3).fit(rows)
    assert found.score(rows) == pytest.approx(max(scores), abs=1e-4)
    np.testing.assert_allclose(found.transform(rows), best.transform(rows), atol=1e-3)
    assert found.n_iter_ == best.n_iter_
    assert found.get_params()["random_state"] == 3


def test_weights_decide_which_is_best():
    weight = np.where(load_wine().target == 0, 1.0, 1e-3)
    model = Autoencoder(1, **COMMON)
    separate = [
        clone(model).set_params(random_state=seed).fit(X, sample_weight=weight) for seed in seeds(4)
    ]
    scores = [one.score(X, sample_weight=weight) for one in separate]
    found = clone(model).set_params(n_init=4).fit(X, sample_weight=weight)
    assert found.score(X, sample_weight=weight) == pytest.approx(max(scores), abs=1e-4)


def test_one_start_is_the_usual_fit():
    one, usual = network(n_init=1).fit(X), network().fit(X)
    np.testing.assert_array_equal(one.transform(X), usual.transform(X))


def test_going_on_has_one_start():
    """What was learned is there once: partial_fit and warm_start go on with it."""
    model = network(n_init=3, warm_start=True).fit(X)
    n_before = model.n_iter_
    model.fit(X)
    assert model.n_iter_ == n_before + model.max_iter
    model.partial_fit(X)
    assert model.n_iter_ == n_before + model.max_iter + 1


@pytest.mark.parametrize("which", [0, 1])
def test_a_start_that_diverges_is_left_out(which, monkeypatch):
    """Whether it is the first or the last; the others decide."""
    lone = clone(MODELS["autoencoder"][0]).set_params(random_state=seeds(2)[1 - which]).fit(X)
    begin, begun = Autoencoder._prepare, []

    def prepare(self, *args):
        begin(self, *args)
        begun.append(self)
        if len(begun) == 1 + which:
            for p in self._trainer.module.parameters():
                p.data.fill_(np.nan)

    monkeypatch.setattr(Autoencoder, "_prepare", prepare)
    model = clone(MODELS["autoencoder"][0]).set_params(n_init=2)
    with pytest.warns(ConvergenceWarning, match="1 of n_init=2 fits failed"):
        model.fit(X)
    assert model.score(X) == pytest.approx(lone.score(X), abs=1e-4)


class RaisesOnce(Callback):
    """An error of the user's code in one training, the `which`-th."""

    def __init__(self, error, which):
        self.error, self.which, self.n_begun_ = error, which, 0

    def on_train_begin(self, net, **kwargs):
        self.n_begun_ += 1
        if self.n_begun_ == self.which:
            raise self.error

    def __deepcopy__(self, memo):
        return self


@pytest.mark.parametrize("which", [1, 2])
def test_an_error_of_a_callback_is_no_divergence(which):
    """It ends the fit, though it is a ValueError and the other start would be of use."""
    error = ValueError("of a callback")
    model = network(n_init=2, callbacks=[RaisesOnce(error, which)])
    with pytest.raises(ValueError) as raised:
        model.fit(X)
    assert raised.value is error
    assert not hasattr(model, "net_")


def test_a_failed_fit_leaves_the_model_as_it_was():
    model = network(n_init=2).fit(X)
    codes = model.transform(X)
    with pytest.raises(ValueError, match="n_init"):
        model.set_params(n_init=0).fit(X)
    model.set_params(n_init=2, learning_rate_init=1e30)
    with pytest.raises(ValueError, match="diverged"):
        model.fit(X)
    np.testing.assert_array_equal(model.transform(X), codes)
