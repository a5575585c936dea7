"""A fit that is killed at any moment goes on when it is started again, and ends the same."""

import copy
import errno
import json
import os
import re
import signal
import subprocess
import sys
import time
import warnings
from collections import Counter, defaultdict
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import torch
from scipy import sparse
from sklearn.base import clone
from sklearn.decomposition import PCA
from sklearn.model_selection import GridSearchCV
from skorch.callbacks import (
    Callback,
    EarlyStopping,
    EpochScoring,
    Freezer,
    LRScheduler,
    Unfreezer,
)
from torch import nn

import skae.model_selection
from helpers import (
    At,
    assert_same,
    learned,
    make_rows,
    own_networks,
    through_pickle,
    through_skops,
    weights,
)
from skae import (
    VAE,
    VQVAE,
    AdversarialAE,
    Autoencoder,
    Ensemble,
    HelmholtzMachine,
    LatentDensityEstimator,
    OutlierDetector,
)
from skae._training import array_files
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


def closed_over(slope):
    return lambda n_in, n_out: nn.Sequential(nn.Linear(n_in, n_out), nn.LeakyReLU(slope))


class Counts(Callback):
    """A callback of the user with values of other kinds, one of them its argument."""

    def __init__(self, log):
        self.log = log

    def on_train_begin(self, net, **kwargs):
        self.seen_, self.kinds_ = defaultdict(int), Counter()
        self.mean_ = torch.optim.swa_utils.AveragedModel(net.module_.encoder)

    def on_epoch_end(self, net, **kwargs):
        self.log.append(len(net.history))
        self.seen_[f"epoch {len(net.history)}"] += 1
        self.kinds_[len(net.history) % 2] += 1
        self.mean_.update_parameters(net.module_.encoder)
        net.history.record("mean", float(sum(p.detach().sum() for p in self.mean_.parameters())))
        net.history.record("log", len(self.log))


class Remembers(nn.Module):
    """A network of the user with a state beside weights and buffers."""

    def __init__(self, n_in, n_out):
        super().__init__()
        self.layer = nn.Linear(n_in, n_out)
        self.mean, self.n_seen = torch.zeros(n_in), [0]

    def forward(self, x):
        if self.training:
            self.mean = 0.9 * self.mean + 0.1 * x.detach().mean(0)
            self.n_seen[0] += len(x)
        return self.layer(x - self.mean) / self.n_seen[0] ** 0.1


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
    "other values in a callback": (Autoencoder(2, callbacks=[Counts([])], **MORE), (X,)),
    "state of a user's network": (
        Autoencoder(2, encoder=Remembers, batch_size=16, max_iter=4, random_state=0),
        (X,),
    ),
    "n_init": (Autoencoder(2, n_init=3, **MORE), (X,)),
    "n_init, only the end": (VAE(2, n_init=3, checkpoint_every=9, **MORE), (X,)),
    "table": (Autoencoder(2, likelihood="auto", **MORE), (TABLE,)),
    "VAE": (VAE(2, learning_rate="cosine", **MORE), (X,)),
    "averaged weights": (Autoencoder(2, weight_averaging=0.9, **MORE), (X,)),
    "averages from several starts": (VAE(2, n_init=2, weight_averaging=0.9, **MORE), (X,)),
    "averaged codes": (VQVAE(2, n_codes=32, weight_averaging=0.9, **MORE), (X,)),
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
        # Nothing was trained twice. If final states of a stack are missing, all are written again.
        again_written = getattr(model, "n_init", 1) > 1 and n_left == n - after + 1
        assert n_left == n - after or again_written
        assert_same(without_objects(learned(again)), expected)
    assert not list(tmp_path.rglob("*.partial"))


# ----------------------------------------------------------------------- files and folders


def kill_in(folder, kills, after=2, data=(X,), **params):
    """An estimator whose fit was killed, with the only file that it has left."""
    model = Autoencoder(2, **MORE | params, checkpoint_dir=folder)
    kills.kill(after, lambda: model.fit(*data))
    [path] = folder.iterdir()
    return model, path


def test_files_hold_arrays_and_text_without_pickle(kills, tmp_path):
    model, path = kill_in(tmp_path, kills)
    assert re.fullmatch(r"Autoencoder-network-[0-9a-f]{32}\.npz", path.name)
    with np.load(path, allow_pickle=False) as archive:
        arrays = {name: archive[name] for name in archive.files}
    text = json.loads(arrays.pop("structure").tobytes())
    assert text["kind"] == "skae checkpoint"
    assert text["versions"]["skae"] == skae.__version__
    assert len(text["state"]["history"]) == 2
    model.set_params(max_iter=2, checkpoint_dir=None).fit(X)
    [name] = [k for k in text["state"]["weights"] if k.startswith("encoder") and "weight" in k][:1]
    stored = arrays[text["state"]["weights"][name]["tensor"][0]]
    np.testing.assert_array_equal(stored, weights(model)[name])


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda path: path.write_bytes(path.read_bytes()[:-100]), "incomplete or damaged"),
        (lambda path: path.write_bytes(b""), "incomplete or damaged"),
        (lambda path: path.write_bytes(flipped(path.read_bytes())), "incomplete or damaged"),
        (lambda path: path.write_bytes(b"notes of the user"), "incomplete or damaged"),
        (lambda path: save_array(path, np.zeros(3)), "incomplete or damaged"),
        (lambda path: array_files.write(path, {"a": 1}), "not a checkpoint of skae"),
        (lambda path: rewrite(path, ("versions", "skae"), "0.0.1"), "other versions.*skae 0.0.1"),
        (lambda path: rewrite(path, ("versions", "torch"), "1.0"), "other versions.*torch 1.0"),
        (lambda path: rewrite(path, ("versions", "format"), 99), "other versions.*format 99"),
        (lambda path: rewrite(path, ("key",), "0" * 32), "belongs to another training"),
        (lambda path: rewrite(path, ("state", "weights"), {}), "does not fit the training"),
        (lambda path: rewrite(path, ("state",), {}), "does not fit the training"),
    ],
)
def test_file_that_cannot_be_used_is_refused_and_kept(kills, tmp_path, change, message):
    model, path = kill_in(tmp_path, kills)
    change(path)
    content = path.read_bytes()
    with pytest.raises(ValueError, match=message) as caught:
        model.fit(X)
    assert str(path) in str(caught.value)
    assert "delete the file" in str(caught.value)
    assert path.read_bytes() == content
    assert not hasattr(model, "net_")
    path.unlink()
    assert_same(learned(model.fit(X)), learned(Autoencoder(2, **MORE).fit(X)))


def test_partial_files_of_killed_processes_are_removed(kills, tmp_path):
    model, path = kill_in(tmp_path, kills)
    child = subprocess.Popen([sys.executable, "-c", ""])
    child.wait()
    writers = {
        f"{array_files._HOST}-{child.pid}-0": False,
        f"{array_files._HOST}-{os.getpid()}-0": True,
        "elsewhere-1-0": True,
        "elsewhere-2-0": False,
    }
    partial = {w: path.with_name(f"{path.name}.{w}.partial") for w in writers}
    for left in partial.values():
        left.write_bytes(b"half a file")
    os.utime(partial["elsewhere-2-0"], (time.time() - 3600,) * 2)
    model.fit(X)
    assert {writer: left.exists() for writer, left in partial.items()} == writers


def flipped(content):
    middle = len(content) // 2
    return content[:middle] + bytes([content[middle] ^ 1]) + content[middle + 1 :]


def save_array(path, array):
    with open(path, "wb") as file:
        np.save(file, array)


def rewrite(path, place, value):
    content = inner = array_files.read(path)
    for name in place[:-1]:
        inner = inner[name]
    inner[place[-1]] = value
    array_files.write(path, content)


OTHERS = {
    "parameter": ({"alpha": 0.1}, (X,)),
    "seed": ({"random_state": 1}, (X,)),
    "callback": ({"callbacks": [EarlyStopping("train_loss")]}, (X,)),
    "setting of a callback": ({"callbacks": [EarlyStopping("train_loss", patience=3)]}, (X,)),
    "row": ({}, (np.concatenate([X[:-1], X[-1:] + 1e-3]),)),
    "number of rows": ({}, (X[:-1],)),
    "dtype": ({}, (X.astype(np.float64),)),
    "weights of rows": ({}, (X, None, WEIGHT)),
    "module": (own_networks() | {"hidden_layer_sizes": (100,)}, (X,)),
    "weight in a module": (own_networks() | {"encoder": nn.Linear(5, 2)}, (X,)),
    "function": ({"encoder": lambda n_in, n_out: nn.Linear(n_in, n_out)}, (X,)),
    "code of a function": ({"encoder": lambda n_in, n_out: nn.Sequential(nn.Linear(5, 2))}, (X,)),
    "variable of a function": ({"encoder": closed_over(0.5)}, (X,)),
    "other variable": ({"encoder": closed_over(0.6)}, (X,)),
}


def test_fits_that_differ_never_share_a_file(tmp_path):
    first = Autoencoder(2, **MORE, checkpoint_dir=tmp_path).fit(X)
    n = 1
    for params, data in OTHERS.values():
        clone(first).set_params(**params).fit(*data)
        n += 1
        assert len(list(tmp_path.iterdir())) == n
    VAE(2, **MORE, checkpoint_dir=tmp_path).fit(X)
    VAE(2, **MORE, conditional=True, checkpoint_dir=tmp_path).fit(X, LABELS)
    VAE(2, **MORE, conditional=True, checkpoint_dir=tmp_path).fit(X, LABELS[::-1])
    assert len(list(tmp_path.iterdir())) == n + 3
    whole, real = pd.DataFrame({"a": range(40)}), pd.DataFrame({"a": np.arange(40.0)})
    for table in (whole, real):  # counts, and numbers, with equal values
        VAE(1, **MORE, likelihood="auto", checkpoint_dir=tmp_path).fit(table)
    assert len(list(tmp_path.iterdir())) == n + 5
    n += 2
    for _ in range(2):  # the seconds of the earlier fit do not matter
        again = Autoencoder(2, **MORE, warm_start=True).fit(X)
        again.set_params(checkpoint_dir=tmp_path).fit(X).fit(X)
        assert len(list(tmp_path.iterdir())) == n + 5


def test_fits_of_equal_rows_and_parameters_share_a_file(kills, tmp_path):
    kill_in(tmp_path, kills)
    frame = pd.DataFrame(X, columns=list("abcde"))
    for rows in (X.tolist(), frame, np.asfortranarray(X), torch.from_numpy(X)):
        if not isinstance(rows, list):  # float64
            more = {"checkpoint_dir": str(tmp_path), "checkpoint_every": 3, "device": "cpu"}
            Autoencoder(2, **MORE, **more).fit(rows)
        assert len(list(tmp_path.iterdir())) == 1
    memory = np.memmap(tmp_path / "rows", np.float32, "w+", shape=X.shape)
    memory[:] = X
    assert kills.count(lambda: Autoencoder(2, **MORE, checkpoint_dir=tmp_path).fit(memory))[0] == 0


@pytest.mark.parametrize("seed", [None, np.random.RandomState(3)])
def test_drawn_seed_is_stored_until_the_fit_is_complete(kills, tmp_path, seed):
    params = MORE | {"random_state": seed}
    model = VQVAE(2, n_codes=8, prior_max_iter=2, **params, checkpoint_dir=tmp_path)
    kills.kill(6, lambda: model.fit(X))
    assert len(list(tmp_path.glob("VQVAE-seed-*"))) == 1
    [path] = tmp_path.glob("VQVAE-network-*")
    half = array_files.read(path)["state"]["history"]
    model.fit(X)
    assert [h["train_loss"] for h in model.history_[:4]] == [h["train_loss"] for h in half]
    assert not list(tmp_path.iterdir())  # no later fit could use them
    other = clone(model).fit(X)
    assert other.history_[-1]["train_loss"] != model.history_[-1]["train_loss"]


def test_stages_of_a_density_remove_their_files_when_its_drawn_seed_is_done(tmp_path):
    model = LatentDensityEstimator(VAE(2, **MORE), **DENSITY | {"random_state": None})
    model.set_params(checkpoint_dir=tmp_path).fit(X)
    assert not list(tmp_path.iterdir())


def test_folder_that_cannot_be_written_is_refused_before_training(tmp_path):
    file = tmp_path / "file"
    file.write_text("kept")
    heard = At(1, error=AssertionError, hook="on_epoch_begin")
    for folder in (file, file / "folder", tmp_path / "a\0b"):
        model = Autoencoder(2, **MORE, callbacks=[heard], checkpoint_dir=folder)
        with pytest.raises(ValueError, match=r"checkpoint_dir='.*' must be a folder"):
            model.fit(X)
    with pytest.raises(ValueError, match=r"checkpoint_dir='' must be a folder.*the name is empty"):
        Autoencoder(2, **MORE, checkpoint_dir="").fit(X)
    assert file.read_text() == "kept"
    with pytest.raises(ValueError, match="'checkpoint_every' parameter of Autoencoder must be"):
        Autoencoder(2, **MORE, checkpoint_every=0).fit(X)
    with pytest.raises(ValueError, match="'checkpoint_dir' parameter of Autoencoder must be"):
        Autoencoder(2, **MORE, checkpoint_dir=3).fit(X)


def test_full_disk_gives_one_warning_and_keeps_the_file_before(kills, tmp_path, monkeypatch):
    expected = learned(Autoencoder(2, **MORE).fit(X))
    model, path = kill_in(tmp_path, kills)
    content = path.read_bytes()

    def full(file, **arrays):
        file.write(b"half a file")
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    with monkeypatch.context() as patch:
        patch.setattr(np, "savez", full)
        patch.setattr("skae._training.checkpoints._made", Path)
        with pytest.warns(
            UserWarning, match="after epoch 3 could not be written.*No space"
        ) as found:
            model.fit(X)
    assert len(found) == 1
    assert_same(learned(model), expected)
    assert path.read_bytes() == content
    assert list(tmp_path.iterdir()) == [path]


def test_value_that_cannot_be_stored_is_named(tmp_path):
    class Records(Callback):
        def on_epoch_end(self, net, **kwargs):
            net.history.record("net", net)

    model = Autoencoder(2, **MORE, callbacks=[Records()], checkpoint_dir=tmp_path)
    with pytest.raises(TypeError, match=r"checkpoint_dir=.*the history.*type Net"):
        model.fit(X)


def test_object_that_begins_within_training_is_named(tmp_path):
    class Best(Callback):
        def on_epoch_end(self, net, **kwargs):
            self.best_ = copy.deepcopy(net.module_.encoder)

    model = Autoencoder(2, **MORE, callbacks=[Best()], checkpoint_dir=tmp_path)
    with pytest.raises(TypeError, match="'best_' of the callback 'Best' did not exist"):
        model.fit(X)


class Stop:
    """A callback of scikit-learn that ends training after its second epoch."""

    def __init__(self):
        self.n = 0

    def setup(self, *args, **kwargs):
        """Nothing to set up."""

    teardown = setup

    def on_fit_task_begin(self, *args, **kwargs):
        """Nothing to do."""

    def on_fit_task_end(self, estimator, context, **kwargs):
        self.n += context.task_name == "epoch"
        return self.n >= 2


@pytest.mark.parametrize("n_init", [1, 2])
def test_end_by_a_callback_that_is_no_parameter_is_not_the_end_of_other_fits(tmp_path, n_init):
    expected = learned(VAE(2, n_init=n_init, **MORE).fit(X))
    model = VAE(2, n_init=n_init, **MORE, checkpoint_dir=tmp_path)
    assert len(clone(model).set_callbacks(Stop()).fit(X).history_) < 4
    model.fit(X)
    assert len(model.history_) == 4
    if n_init == 1:  # members of a stack that stop at different epochs train on alone
        assert_same(learned(model), expected)


def test_parameter_that_cannot_be_compared_is_refused(tmp_path):
    class Unknown:
        def sample(self, n):
            return np.zeros((n, 2))

        def __reduce__(self):
            raise TypeError("cannot be pickled")

    model = AdversarialAE(2, prior=Unknown(), **MORE, checkpoint_dir=tmp_path)
    with pytest.raises(TypeError, match=r"checkpoint_dir=.*cannot be pickled"):
        model.fit(X)


# ----------------------------------------------------------------- within other estimators


@pytest.mark.parametrize("search", [GridSearchCV, skae.model_selection.GridSearchCV])
def test_killed_search_goes_on_and_trains_no_candidate_twice(kills, tmp_path, search):
    def fit(folder):
        model = VAE(**MORE | {"max_iter": 2}, checkpoint_dir=folder)
        grid = {"n_components": [1, 2], "batch_size": [16, 32]}
        found = search(model, grid, cv=2)
        return found.fit(X)

    n, expected = kills.count(lambda: fit(tmp_path / "whole"))
    kills.kill(n // 2, lambda: fit(tmp_path / "killed"))
    n_left, found = kills.count(lambda: fit(tmp_path / "killed"))
    assert n_left == n - n // 2
    names = "mean_test_score", "split0_test_score", "split1_test_score"
    for name in names:
        np.testing.assert_array_equal(found.cv_results_[name], expected.cv_results_[name])
    assert_same(learned(found.best_estimator_), learned(expected.best_estimator_))
    files = {path.name for path in (tmp_path / "killed").iterdir()}
    assert files == {path.name for path in (tmp_path / "whole").iterdir()}
    assert len(files) == 4 * 2 + 1


def test_members_and_wrapped_models_go_on(kills, tmp_path):
    def ensemble(folder):
        model = VAE(2, **MORE | {"random_state": None}, checkpoint_dir=folder)
        return Ensemble(model, 3, random_state=0).fit(X)

    def detector(folder):
        return OutlierDetector(VAE(2, **MORE, checkpoint_dir=folder)).fit(X)

    for i, fit in enumerate((ensemble, detector)):
        n, expected = kills.count(lambda: fit(tmp_path / f"whole{i}"))  # noqa: B023
        kills.kill(n - 1, lambda: fit(tmp_path / f"killed{i}"))  # noqa: B023
        found = fit(tmp_path / f"killed{i}")
        np.testing.assert_array_equal(found.score_samples(X), expected.score_samples(X))


def test_member_of_a_stack_that_diverged_is_restored_as_such(kills, tmp_path):
    def fit(folder):
        model = Autoencoder(2, **MORE | {"max_iter": 8, "solver": "sgd"}, checkpoint_dir=folder)
        grid = {"learning_rate_init": [1e-3, 1e4]}
        found = skae.model_selection.GridSearchCV(model, grid, cv=2, error_score=-1e9)
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            return found.fit(X)

    n, expected = kills.count(lambda: fit(tmp_path / "whole"))
    for after in (2, n - 4, n):
        kills.kill(after, lambda: fit(tmp_path / str(after)))  # noqa: B023
        found = fit(tmp_path / str(after))
        for name in ("split0_test_score", "split1_test_score"):
            np.testing.assert_array_equal(found.cv_results_[name], expected.cv_results_[name])


# ------------------------------------------------------------------- ends of other kinds


@pytest.mark.parametrize("error", [KeyboardInterrupt, MemoryError, ValueError])
def test_fit_that_failed_goes_on_from_its_last_epoch(kills, tmp_path, error):
    expected = learned(Autoencoder(2, **MORE).fit(X))
    at = At(3, error=error, hook="on_epoch_begin")
    model = Autoencoder(2, **MORE, callbacks=[at], checkpoint_dir=tmp_path)
    if error is KeyboardInterrupt:
        with pytest.warns(UserWarning, match="interrupted in epoch 3"):
            model.fit(X)
    else:
        with pytest.raises(error):
            model.fit(X)
    at.error, at.hook = Killed, "never"
    model.set_params(callbacks=None).fit(X)
    assert_same(learned(model), expected)


class Explodes(Callback):
    """Multiplies the weights after an epoch so that the next one diverges."""

    def on_epoch_end(self, net, **kwargs):
        if len(net.history) == 3:
            with torch.no_grad():
                for p in net.module_.parameters():
                    p *= 1e30


@pytest.mark.parametrize("after", [1, 2])
def test_divergence_after_a_resumed_epoch_ends_as_without_a_kill(kills, tmp_path, after):
    def fit(folder=None):
        model = Autoencoder(2, **MORE, callbacks=[Explodes()], checkpoint_dir=folder)
        with warnings.catch_warnings(record=True) as found:
            warnings.simplefilter("always")
            model.fit(X)
        return learned(model), [str(w.message) for w in found]

    expected, said = fit()
    assert any("diverged in epoch 4" in t and "after epoch 2 is kept" in t for t in said)
    kills.kill(after, lambda: fit(tmp_path))
    state, again = fit(tmp_path)
    assert again == said
    assert_same(state, expected)


def test_progress_says_how_many_epochs_were_left(kills, tmp_path, capfd):
    model, _ = kill_in(tmp_path, kills, after=3, verbose=1)
    capfd.readouterr()
    model.fit(X)
    assert "Autoencoder network: 4 epochs, the last 1 in " in capfd.readouterr().err


def test_two_threads_may_write_the_same_checkpoints(tmp_path):
    def fit():
        return learned(VAE(2, **MORE, checkpoint_dir=tmp_path).fit(X))

    with ThreadPoolExecutor(2) as pool:
        first, second = (future.result() for future in [pool.submit(fit), pool.submit(fit)])
    assert_same(first, second)
    assert len(list(tmp_path.iterdir())) == 1


def test_parameters_travel(tmp_path):
    model = VAE(2, **MORE, checkpoint_dir=tmp_path, checkpoint_every=2).fit(X)
    assert clone(model).checkpoint_dir == tmp_path
    for through in (through_pickle, through_skops):
        again = through(model, tmp_path)
        assert (again.checkpoint_dir, again.checkpoint_every) == (str(tmp_path), 2)
    state = {k: v for k, v in model.__getstate__().items() if not k.startswith("checkpoint")}
    old = VAE.__new__(VAE)
    old.__setstate__({k: v for k, v in state.items() if k != "_skae_version"})
    assert old.checkpoint_dir is None


# --------------------------------------------------------------------------- real kills

N_KILLED = 80
CHILD = f"""
import sys
from test_checkpoints import CASES
model, data = CASES[sys.argv[1]]
model.set_params(checkpoint_dir=sys.argv[2], max_iter={N_KILLED}).fit(*data)
"""


def test_killed_processes_leave_checkpoints_from_which_their_fits_go_on(tmp_path):
    names = ["VAE", "n_init", "AdversarialAE"]
    path = os.pathsep.join([str(Path(__file__).parent), *sys.path])
    rng = np.random.default_rng()

    def start_and_kill(name):
        command = [sys.executable, "-c", CHILD, name, str(tmp_path / name)]
        child = subprocess.Popen(command, env=os.environ | {"PYTHONPATH": path})
        while not list((tmp_path / name).glob("*-*.npz")):
            assert child.poll() is None
            time.sleep(0.002)
        time.sleep(rng.uniform(0, 0.1))
        child.kill()
        return child.wait()

    with ThreadPoolExecutor(len(names)) as pool:
        assert set(pool.map(start_and_kill, names)) == {-signal.SIGKILL}
    for name in names:
        model, data = CASES[name]
        model = clone(model).set_params(max_iter=N_KILLED)
        expected = learned(clone(model).fit(*data))
        resumed = model.set_params(checkpoint_dir=tmp_path / name, checkpoint_every=50)
        assert_same(learned(resumed.fit(*data)), expected)
