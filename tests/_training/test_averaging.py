"""The average of the weights over training steps, compared with its recursion by hand."""

import copy

import numpy as np
import pytest
import torch
from sklearn.datasets import load_digits
from sklearn.model_selection import train_test_split
from skorch.callbacks import Callback

from helpers import (
    assert_same,
    learned,
    make_rows,
    network,
    own_networks,
    through_pickle,
    through_skops,
)
from skae import VAE, VQVAE, AdversarialAE, Autoencoder, HelmholtzMachine, LatentDensityEstimator
from skae._modules.latent_density import present_weights
from skae._training.averaging import show_latest

X = make_rows(48)
COINS = (X.mean(axis=0) < X).astype(np.float32)
# Last names of buffers that are averaged and that nothing changes after training.
BUFFERS = ("running_mean", "running_var", "vectors")


def tensors(net):
    """Copies of the weights, and of the buffers that are averaged."""
    module = net.module_
    named = dict(module.named_parameters()) | {
        name: values
        for name, values in module.named_buffers()
        if name.rpartition(".")[2] in BUFFERS and not name.startswith("average.")
    }
    return {name: values.detach().double().clone() for name, values in named.items()}


class Recorder(Callback):
    """The tensors after every step, in place at the end of every epoch, and the averages then."""

    def __init__(self, decay):
        self.decay, self.n_steps, self.average = decay, 0, {}
        self.at_ends = []

    def on_batch_end(self, net, training, **kwargs):
        """Take the average one step further: s a + (1 - s) w, where s rises to the decay."""
        if not training:
            return
        n = self.n_steps
        share = min(self.decay, (1 + n) / (10 + n)) if n else 0.0
        for name, latest in tensors(net).items():
            before = self.average.get(name, latest)
            self.average[name] = share * before + (1 - share) * latest
        self.n_steps += 1

    def on_epoch_end(self, net, **kwargs):
        """Keep what is in place, and what should be."""
        self.at_ends.append((tensors(net), dict(self.average)))


def averaged(model=Autoencoder, decay=0.8, **params):
    """An estimator whose weights are averaged, and its recorder."""
    recorder = Recorder(decay)
    more = {"weight_averaging": decay, "callbacks": [recorder], "learning_rate_init": 0.01}
    return network(model, **(more | params)), recorder


def assert_close(found, expected):
    assert found.keys() == expected.keys()
    for name, values in expected.items():
        torch.testing.assert_close(found[name], values, rtol=1e-5, atol=1e-6, msg=name)


def latest(model):
    """The weights of the last step."""
    module = copy.deepcopy(model.net_.module_)
    show_latest(module)
    return {name: p.detach().numpy() for name, p in module.named_parameters()}


MODELS = {
    "autoencoder": (Autoencoder, {}),
    "early": (Autoencoder, {"weight_averaging": 0.15, "decay": 0.15}),
    "tied": (Autoencoder, {"tied_weights": True}),
    "batch normalisation": (Autoencoder, {"normalization": "batch"}),
    "own": (Autoencoder, own_networks()),
    "lbfgs": (Autoencoder, {"solver": "lbfgs"}),
    "cosine": (Autoencoder, {"learning_rate": "cosine", "solver": "sgd"}),
    "vae": (VAE, {"prior": "mixture"}),
    "ordered": (VAE, {"latent_growth": "nested", "noise_variance": "per_feature"}),
    "vqvae": (VQVAE, {"n_codes": 6, "dead_code_threshold": 0.5, "prior": None}),
    "codes by a loss": (VQVAE, {"n_codes": 6, "codebook_update": "loss", "prior": None}),
    "adversarial": (AdversarialAE, {"posterior": "gaussian"}),
    "helmholtz": (HelmholtzMachine, {"hidden_layer_sizes": (3,)}),
}


@pytest.mark.parametrize(("model", "params"), MODELS.values(), ids=MODELS)
def test_fitted_weights_are_the_average_of_all_steps(model, params):
    """Also at the end of every epoch; and what is trained does not depend on the average."""
    rows = COINS if model is HelmholtzMachine else X
    estimator, recorder = averaged(model, **params)
    estimator.fit(rows)
    for found, expected in recorder.at_ends:
        assert_close(found, expected)
    assert_close(tensors(estimator.net_), recorder.average)
    plain = copy.deepcopy(estimator).set_params(weight_averaging=0.0, callbacks=None).fit(rows)
    assert_same(latest(estimator), latest(plain))
    losses = [[epoch["train_loss"] for epoch in m.history_] for m in (estimator, plain)]
    assert losses[0] == losses[1]
    assert not any(name.startswith("average.") for name in plain.net_.module_.state_dict())
    assert np.abs(estimator.score(rows) - plain.score(rows)) > 1e-6


@pytest.mark.parametrize("density", ["autoregressive", "flow"])
def test_densities_of_codes_have_the_average(density):
    if density == "flow":
        pytest.importorskip("zuko")
    recorder = Recorder(0.8)
    more = {"n_channels": 4, "max_iter": 3, "batch_size": 16, "random_state": 0, "device": "cpu"}
    model = LatentDensityEstimator(
        density=density, weight_averaging=0.8, callbacks=[recorder], **more
    ).fit(X)
    assert_close(tensors(model.net_), recorder.average)


def test_a_prior_of_indices_is_averaged_too():
    model = network(VQVAE, n_codes=6, weight_averaging=0.9, prior_max_iter=3).fit(X)
    average = model.prior_net_.module_.average
    assert int(average.n_steps) > 0
    assert bool(average.is_in_place)


# ----------------------------------------------------------------- going on, and files


@pytest.mark.parametrize("method", ["fit", "partial_fit"])
def test_the_average_goes_on_over_calls(method):
    estimator, recorder = averaged(VAE, warm_start=True, max_iter=2)
    for _ in range(4):
        getattr(estimator, method)(X)
        assert_close(tensors(estimator.net_), recorder.average)
    assert (
        int(estimator.net_.module_.average.n_steps)
        == recorder.n_steps
        == 12 * (2 if method == "fit" else 1)
    )


def test_without_averaging_training_goes_on_from_the_latest_weights():
    """As if there had been no average, bit for bit; a later average begins anew."""
    estimator = averaged(max_iter=2, warm_start=True)[0].set_params(callbacks=None).fit(X)
    estimator.set_params(weight_averaging=0.0).fit(X)
    plain = averaged(max_iter=4)[0].set_params(callbacks=None, weight_averaging=0.0).fit(X)
    assert_same(latest(estimator), latest(plain))
    assert estimator.net_.module_.average is None
    recorder = Recorder(0.7)
    estimator.set_params(weight_averaging=0.7, callbacks=[recorder])
    for _ in range(3):
        assert_close(tensors(estimator.partial_fit(X).net_), recorder.average)


@pytest.mark.parametrize("through", [through_pickle, through_skops])
@pytest.mark.parametrize("model", [Autoencoder, VQVAE, LatentDensityEstimator])
def test_files_have_both_copies(model, through, tmp_path):
    """A restored model scores the same, and goes on like one that was never saved."""
    params = {"weight_averaging": 0.8, "warm_start": True, "max_iter": 2, "random_state": 0}
    estimator = model(device="cpu", batch_size=16, **params).fit(X)
    other = through(estimator, tmp_path / "model")
    assert_same(learned(other), learned(estimator))
    np.testing.assert_array_equal(other.score_samples(X), estimator.score_samples(X))
    assert_same(learned(other.fit(X)), learned(estimator.fit(X)))


def test_a_file_has_the_average_whatever_the_parameter_is_now(tmp_path):
    """Only further training ends it."""
    estimator = averaged()[0].set_params(callbacks=None).fit(X)
    expected = estimator.score_samples(X)
    other = through_pickle(estimator.set_params(weight_averaging=0.0), tmp_path / "model")
    np.testing.assert_array_equal(other.score_samples(X), expected)
    assert_same(latest(other), latest(estimator))
    assert other.partial_fit(X).net_.module_.average is None


def test_files_of_earlier_versions_have_other_names():
    """They have the latest weights in `now`, and the average in `average.module`."""
    model = LatentDensityEstimator(
        n_channels=4, weight_averaging=0.9, max_iter=2, random_state=0, device="cpu"
    ).fit(X)
    module = model.net_.module_
    now, earlier = latest(model), {"average.n_averaged": np.array(2)}
    for name, values in module.density.state_dict().items():
        earlier[f"average.module.{name}"] = values.numpy()
        earlier[f"now.{name}"] = now.get(f"density.{name}", values.numpy())
    expected = {name: values.numpy() for name, values in module.state_dict().items()}
    assert_same(present_weights(earlier), expected)
    plain = {name.replace("density.", "now."): values for name, values in now.items()}
    assert_same(present_weights(plain), now)


# ---------------------------------------------------------------- what ends a training


def test_early_stopping_keeps_the_best_average():
    """The loss of held-out rows is that of the average, whose best epoch is the fitted model."""
    estimator, recorder = averaged(
        decay=0.5, early_stopping=True, max_iter=40, learning_rate_init=0.2
    )
    estimator.fit(X)
    losses = [epoch["valid_loss"] for epoch in estimator.history_]
    best = int(np.argmin(losses))
    assert best + 1 < len(losses)
    assert_close(tensors(estimator.net_), recorder.at_ends[best][1])
    plain = copy.deepcopy(estimator).set_params(weight_averaging=0.0, callbacks=None).fit(X)
    assert losses[5] != plain.history_[5]["valid_loss"]


# ---------------------------------------------------------------------- what it is for


@pytest.mark.parametrize("model", [Autoencoder, VAE])
def test_averages_score_better_at_a_high_constant_rate(model):
    train, test = train_test_split(load_digits().data.astype(np.float32), random_state=0)
    params = {
        "n_components": 8,
        "hidden_layer_sizes": (32,),
        "batch_size": 64,
        "max_iter": 15,
        "learning_rate_init": 0.02,
    }
    plain, average = (
        network(model, weight_averaging=decay, **params).fit(train).score(test)
        for decay in (0.0, 0.99)
    )
    assert average > plain + 0.5
