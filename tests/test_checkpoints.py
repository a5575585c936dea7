"""A fit that is killed at any moment goes on when it is started again, and ends the same."""

import numpy as np
import pandas as pd
import pytest
import torch
from scipy import sparse
from sklearn.base import clone
from sklearn.decomposition import PCA
from skorch.callbacks import Callback, EarlyStopping, EpochScoring, Freezer, LRScheduler, Unfreezer

from helpers import assert_same, learned, make_rows, own_networks
from skae import (
    VAE,
    VQVAE,
    AdversarialAE,
    Autoencoder,
    HelmholtzMachine,
    LatentDensityEstimator,
)
from skae._training.checkpoints import StoredState

X = make_rows(64, 5)
GAPS = make_rows(64, 5, gaps=0.2)
COUNTS = np.random.default_rng(0).poisson(3.0, (64, 5))
BITS = (X.mean(0) < X).astype(float)
TABLE = pd.DataFrame({"a": X[:, 0], "b": pd.Categorical(np.where(BITS[:, 1], "x", "y"))})
WEIGHT = np.random.default_rng(1).uniform(0.1, 2.0, 64)
LABELS = np.array(["p", "q"])[BITS[:, 2].astype(int)]
MORE = {"hidden_layer_sizes": 8, "batch_size": 16, "max_iter": 4, "random_state": 0}
DENSITY = {"n_channels": 4, "batch_size": 16, "max_iter": 3, "random_state": 0}


class Killed(BaseException):
    """What stands for the end of a process in tests within one."""


class Kills:
    """Raises right after the given number of checkpoints has been written, of all trainings."""

    def __init__(self, monkeypatch):
        self.after, self.n = np.inf, 0
        save = StoredState.save

        def save_then_die(stored, *args):
            save(stored, *args)
            self.n += 1
            if self.n >= self.after:
                raise Killed

        monkeypatch.setattr(StoredState, "save", save_then_die)

    def count(self, fit):
        self.after, self.n = np.inf, 0
        model = fit()
        return self.n, model

    def kill(self, after, fit):
        self.after, self.n = after, 0
        with pytest.raises(Killed):
            fit()
        self.after = np.inf


@pytest.fixture
def kills(monkeypatch):
    return Kills(monkeypatch)


class Losses(Callback):
    """A callback of the user that gathers values, and acts on them."""

    def on_train_begin(self, net, **kwargs):
        self.losses_, self.total_ = [], torch.zeros(2)

    def on_epoch_end(self, net, **kwargs):
        self.losses_.append(net.history[-1, "train_loss"])
        self.total_ = self.total_ + 1
        if len(self.losses_) == 3:
            for group in net.optimizer_.param_groups:
                group["lr"] /= 10 * float(self.total_[0])


def halves(net):
    return 0.5 ** len(net.history)


CASES = {
    "Autoencoder": (Autoencoder(2, **MORE), (X,)),
    "weights": (Autoencoder(2, **MORE), (X, None, WEIGHT)),
    "float64": (Autoencoder(2, **MORE), (X.astype(np.float64),)),
    "gaps": (Autoencoder(2, noise_variance="per_feature", **MORE), (GAPS,)),
    "sgd": (Autoencoder(2, solver="sgd", learning_rate="invscaling", **MORE), (X,)),
    "lbfgs": (Autoencoder(2, solver="lbfgs", **MORE), (X,)),
    "adaptive": (Autoencoder(2, learning_rate="adaptive", tol=10.0, **MORE), (X,)),
    "early stopping": (
        Autoencoder(2, early_stopping=True, n_iter_no_change=2, **MORE | {"max_iter": 30}),
        (X,),
    ),
    "flat": (Autoencoder(2, tol=100.0, n_iter_no_change=2, **MORE), (X,)),
    "batch": (Autoencoder(2, normalization="batch", **MORE), (X,)),
    "denoising": (
        Autoencoder(2, noise="gaussian", latent_growth="nested", **MORE),
        (X,),
    ),
    "growing": (Autoencoder(3, latent_growth="incremental", **MORE), (X,)),
    "rbm": (
        Autoencoder(2, pretraining="rbm", activation="logistic", pretraining_max_iter=3, **MORE),
        (BITS,),
    ),
    "layerwise": (Autoencoder(2, pretraining="layerwise", pretraining_max_iter=3, **MORE), (X,)),
    "own": (Autoencoder(2, **own_networks(), batch_size=16, max_iter=4, random_state=0), (X,)),
    "trials": (
        Autoencoder(2, **MORE | {"max_iter": None, "batch_size": 64}, checkpoint_every=10),
        (X[:24],),
    ),
    "early stopping of skorch": (
        Autoencoder(2, callbacks=[EarlyStopping("train_loss", patience=2, load_best=True)], **MORE),
        (X,),
    ),
    "schedule of skorch": (
        Autoencoder(2, callbacks=[LRScheduler(policy="StepLR", step_size=2)], **MORE),
        (X,),
    ),
    "frozen for a while": (
        Autoencoder(2, callbacks=[Freezer("encoder*"), Unfreezer("encoder*", at=2)], **MORE),
        (X,),
    ),
    "scores of skorch": (
        Autoencoder(2, callbacks=[("s", EpochScoring(halves, name="h"))], **MORE),
        (X,),
    ),
    "user's callback": (Autoencoder(2, callbacks=[Losses()], **MORE), (X,)),
    "n_init": (Autoencoder(2, n_init=3, **MORE), (X,)),
    "table": (Autoencoder(2, likelihood="auto", **MORE), (TABLE,)),
    "VAE": (VAE(2, learning_rate="cosine", **MORE), (X,)),
    "importance weighted": (VAE(2, n_importance=3, **MORE), (X,)),
    "counts": (VAE(2, likelihood="negative_binomial", **MORE), (COUNTS,)),
    "sparse": (VAE(2, likelihood="poisson", **MORE), (sparse.csr_array(COUNTS),)),
    "conditional": (VAE(2, conditional=True, **MORE), (X, LABELS)),
    "VQVAE": (VQVAE(2, n_codes=8, prior_max_iter=3, **MORE), (X,)),
    "revived codes": (VQVAE(2, n_codes=32, prior="independent", **MORE), (X,)),
    "codes by a loss": (VQVAE(2, n_codes=8, codebook_update="loss", prior=None, **MORE), (X,)),
    "fsq": (VQVAE(2, quantizer="fsq", levels=(3, 3), prior_max_iter=2, **MORE), (X,)),
    "AdversarialAE": (AdversarialAE(2, **MORE), (X,)),
    "own prior": (AdversarialAE(2, prior=PCA(2), posterior="gaussian", **MORE), (X,)),
    "HelmholtzMachine": (HelmholtzMachine(3, **MORE), (BITS,)),
    "wake-sleep": (HelmholtzMachine(3, algorithm="wake-sleep", **MORE), (BITS,)),
    "density of PCA": (LatentDensityEstimator(PCA(2), **DENSITY), (X,)),
    "averaged": (
        LatentDensityEstimator(PCA(2), weight_averaging=0.9, orderings=2, **DENSITY),
        (X,),
    ),
    "flow": (LatentDensityEstimator(PCA(2), density="flow", **DENSITY), (X,)),
    "two stages": (LatentDensityEstimator(VAE(2, **MORE), **DENSITY), (X,)),
}


@pytest.fixture(params=CASES)
def case(request, monkeypatch):
    monkeypatch.setattr("skae._training_length._FEWEST_STEPS", 40)
    monkeypatch.setattr("skae._training_length._STEPS_PER_ROW", 1)
    model, data = CASES[request.param]
    if request.param == "own prior":
        model = clone(model).set_params(prior=_Normal())
    return model, data


class _Normal:
    """A prior of the user."""

    def sample(self, n, random_state=None):
        return np.random.default_rng(random_state).normal(size=(n, 2))


def fit_in(folder, model, data):
    """A function that fits a new copy of the model, with its checkpoints in a folder."""
    return lambda: clone(model).set_params(checkpoint_dir=folder).fit(*data)


def without_objects(state):
    return {name: value for name, value in state.items() if not isinstance(value, _Normal)}


def test_fit_killed_at_any_checkpoint_ends_as_if_it_had_not_been(case, kills, tmp_path):
    model, data = case
    expected = without_objects(learned(clone(model).fit(*data)))
    n, whole = kills.count(fit_in(tmp_path / "whole", model, data))
    assert_same(without_objects(learned(whole)), expected)
    assert n >= 3
    for after in {1, n // 2, n}:
        fit = fit_in(tmp_path / str(after), model, data)
        kills.kill(after, fit)
        n_left, again = kills.count(fit)
        assert n_left == n - after  # nothing was trained twice
        assert_same(without_objects(learned(again)), expected)
    assert not list(tmp_path.rglob("*.partial"))
