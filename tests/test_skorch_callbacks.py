"""skorch's callbacks beside a plain net of skorch's: each works as there, or is refused clearly."""

import pickle
import threading
from unittest.mock import MagicMock

import numpy as np
import pytest
import skorch.callbacks
import torch
from sklearn.base import clone
from sklearn.model_selection import GridSearchCV
from skorch import NeuralNet
from skorch.callbacks import (
    BatchScoring,
    Callback,
    Checkpoint,
    EarlyStopping,
    EpochScoring,
    EpochTimer,
    Freezer,
    GradientNormClipping,
    Initializer,
    InputShapeSetter,
    LoadInitState,
    LRScheduler,
    ParamMapper,
    PassthroughScoring,
    PrintLog,
    ProgressBar,
    SacredLogger,
    TensorBoard,
    TrainEndCheckpoint,
    Unfreezer,
)
from torch import nn

from helpers import assert_same, make_rows, network, weights
from skae import VAE, VQVAE, AdversarialAE, HelmholtzMachine, LatentDensityEstimator

MSE = "neg_mean_squared_error"


def silent(*arguments):
    """A sink that pickle finds."""


def halved(parameter):
    parameter.data.mul_(0.5)


def at_a_tenth(parameter):
    nn.init.constant_(parameter, 0.1)


# How each is built, in a folder.
CALLBACKS = {
    "BatchScoring": lambda _: BatchScoring(MSE, name="mse", lower_is_better=False, on_train=True),
    "EpochScoring": lambda _: EpochScoring(MSE, name="mse", lower_is_better=False),
    "PassthroughScoring": lambda _: PassthroughScoring("train_loss", on_train=True),
    "EpochTimer": lambda _: EpochTimer(),
    "PrintLog": lambda _: PrintLog(sink=silent),
    "ProgressBar": lambda _: ProgressBar(),
    "LRScheduler": lambda _: LRScheduler("StepLR", step_size=1, gamma=0.5),
    "WarmRestartLR": lambda _: LRScheduler("WarmRestartLR"),
    "GradientNormClipping": lambda _: GradientNormClipping(0.1),
    "Freezer": lambda _: Freezer("encoder*"),
    "Unfreezer": lambda _: Unfreezer("encoder*", at=2),
    "ParamMapper": lambda _: ParamMapper("encoder*", halved, at=2),
    "Initializer": lambda _: Initializer("encoder*bias", at_a_tenth),
    "Checkpoint": lambda path: Checkpoint(dirname=path, load_best=True),
    "TrainEndCheckpoint": lambda path: TrainEndCheckpoint(dirname=path),
    "LoadInitState": lambda path: LoadInitState(Checkpoint(monitor=None, dirname=path)),
    "EarlyStopping": lambda _: EarlyStopping(patience=2, load_best=True),
    "TensorBoard": lambda _: TensorBoard(MagicMock()),
    "SacredLogger": lambda _: SacredLogger(MagicMock()),
}
# What the packages of these services have to be there for, or is refused.
ELSEWHERE = {"MlflowLogger", "NeptuneLogger", "WandbLogger"}
NETWORKS = {
    "Autoencoder": lambda **p: network(**p),
    "VAE": lambda **p: network(VAE, n_importance=2, **p),
    "AdversarialAE": lambda **p: network(AdversarialAE, **p),
    "HelmholtzMachine": lambda **p: network(HelmholtzMachine, **p),
    "VQVAE": lambda **p: network(VQVAE, n_codes=8, **p),
    "LatentDensityEstimator": lambda **p: LatentDensityEstimator(
        n_channels=4, n_mixture=2, batch_size=16, max_iter=4, random_state=0, **p
    ),
}


class Pair(nn.Module):
    """A plain autoencoder as skorch's users write it."""

    def __init__(self):
        super().__init__()
        self.encoder, self.decoder = nn.Linear(5, 2), nn.Linear(2, 5)

    def forward(self, X):
        return self.decoder(torch.tanh(self.encoder(X)))


def test_every_callback_of_skorch_is_here():
    """A new one is to be tried on the day that skorch ships it."""
    known = {*CALLBACKS, *ELSEWHERE, "InputShapeSetter", "Callback"}
    assert known == set(skorch.callbacks.__all__)


@pytest.mark.parametrize("kind", NETWORKS)
@pytest.mark.parametrize("name", CALLBACKS)
def test_it_writes_what_it_writes_in_a_plain_net(name, kind, tmp_path):
    """The same keys of its own in the history, the same files, the same number of epochs."""
    X = make_rows()
    plain = NeuralNet(
        Pair, criterion=nn.MSELoss, max_epochs=4, verbose=0, callbacks=[CALLBACKS[name](tmp_path)]
    ).fit(X, X)
    of_every_net = {"epoch", "batches", "dur", "train_batch_count", "valid_batch_count"}
    expected = set(plain.history[-1]) - of_every_net
    files = sorted(path.name for path in tmp_path.iterdir())
    for path in tmp_path.iterdir():
        path.unlink()
    model = NETWORKS[kind](early_stopping=True, callbacks=[CALLBACKS[name](tmp_path)]).fit(X)
    assert set(model.history_[-1]) >= expected
    assert len(model.history_) == 4
    # There are no weights of a criterion, which is part of the network.
    written = sorted(path.name for path in tmp_path.iterdir())
    assert [n for n in files if "criterion" not in n] == [
        n for n in written if "criterion" not in n
    ]


def test_scores_are_in_the_units_of_the_data():
    """By EpochScoring and, averaged over batches, BatchScoring: squared errors, by hand."""
    X = 100 * make_rows()
    scores = [
        ("epoch", EpochScoring(MSE, name="epoch", lower_is_better=False)),
        ("afresh", EpochScoring(MSE, name="afresh", lower_is_better=False, use_caching=True)),
        ("batch", BatchScoring(MSE, name="batch", lower_is_better=False)),
        ("anew", BatchScoring(MSE, name="anew", lower_is_better=False, use_caching=False)),
    ]
    params = {"early_stopping": True, "validation_fraction": 0.3, "n_iter_no_change": 50}
    model = network(callbacks=scores, **params).fit(X)
    _, held_out = model._trainer.split(len(X))
    for epoch in range(1, 5):
        shorter = network(**{**params, "early_stopping": True, "max_iter": epoch}).fit(X)
        if shorter.history_[-1]["valid_loss"] != min(e["valid_loss"] for e in shorter.history_):
            continue  # it went back to an epoch before
        error = -np.mean((shorter.reconstruct(X[held_out]) - X[held_out]) ** 2)
        for name, _ in scores:
            assert model.history_[epoch - 1][name] == pytest.approx(error, rel=1e-4)
    assert_same(weights(model), weights(network(**params).fit(X)))


def test_callbacks_hear_of_rows_far_from_zero():
    """Batches of float64 rows are those rows, and outputs lie between them."""
    X = 1e8 + make_rows(dtype=np.float64)
    heard, outputs = [], []

    class Hears(Callback):
        def on_batch_end(self, net, batch, y_pred, **kwargs):
            heard.append(batch[0])
            outputs.append(y_pred)

    network(max_iter=1, callbacks=[Hears()]).fit(X)
    rows = torch.cat(heard).numpy()
    assert rows.dtype == X.dtype
    order, theirs = (np.argsort(values[:, 0]) for values in (X, rows))
    np.testing.assert_allclose(rows[theirs] - 1e8, X[order] - 1e8, atol=1e-5)
    found = torch.cat(outputs).numpy()
    assert found.dtype == X.dtype
    assert len(np.unique(found)) == found.size


def test_a_scorer_may_ask_the_net_itself():
    """Without caching it is given the rows, predicts, and leaves the training as it was."""
    X = make_rows()
    seen = []

    def error(net, rows, y=None):
        found = net.predict(rows)
        seen.append(found.shape)
        return float(np.square(found).mean())

    scoring = EpochScoring(error, name="mean", use_caching=False, on_train=True)
    model = network(noise="gaussian", callbacks=[scoring]).fit(X)
    assert seen == [(60, 5)] * 4
    assert_same(weights(model), weights(network(noise="gaussian").fit(X)))
    with pytest.raises(TypeError, match="reconstruct"):
        model.net_.predict(X)


def test_values_that_were_not_seen_are_nan_in_a_target():
    """A scorer that has no use for them says so; they are not zeros."""
    X = make_rows()
    X[::7, 1] = np.nan
    targets = []

    def share(net, rows, y):
        targets.append(np.isnan(y).mean())
        return 0.0

    network(callbacks=[EpochScoring(share, name="share", on_train=True)]).fit(X)
    assert targets == [pytest.approx(np.isnan(X).mean())] * 4


def test_frozen_weights_stay():
    """Freezer holds them from the first epoch on."""
    X = make_rows()
    frozen = network(callbacks=[Freezer("encoder*")])
    after = weights(frozen.fit(X))
    start = weights(network(max_iter=1, learning_rate_init=1e-30).fit(X))
    for name in after:
        same = np.allclose(after[name], start[name], rtol=0, atol=1e-20)
        assert same == name.startswith("encoder") or name in ("gate", "likelihood.variance")


def test_print_log_prints(capsys):
    """Epochs, losses and seconds, where the user asks for it."""
    network(callbacks=[PrintLog()]).fit(make_rows())
    printed = capsys.readouterr().out
    assert "train_loss" in printed
    assert "dur" in printed
    assert len(printed.strip().split("\n")) == 2 + 4
    network().fit(make_rows())
    assert capsys.readouterr().out == ""


def test_seconds_of_epochs_are_in_the_history():
    """As in skorch's own nets."""
    assert all(epoch["dur"] > 0 for epoch in network().fit(make_rows()).history_)


@pytest.mark.parametrize("callback", [EarlyStopping(), Checkpoint(), ("mine", EarlyStopping())])
def test_held_out_rows_are_asked_for_before_training(callback):
    """The monitor of skorch's default waits for rows that early_stopping holds out."""
    with pytest.raises(ValueError, match=r"monitor='valid_loss.*early_stopping=True"):
        network(callbacks=[callback]).fit(make_rows())


def test_a_monitor_that_nothing_writes():
    """The error says what there is."""
    stop = EarlyStopping(monitor="train_los")
    with pytest.raises(ValueError, match=r"EarlyStopping .*train_los.*'train_loss'"):
        network(callbacks=[stop]).fit(make_rows())


def test_sizes_are_no_business_of_a_callback():
    """InputShapeSetter would have skorch build another module."""
    with pytest.raises(ValueError, match=r"InputShapeSetter.*hidden_layer_sizes"):
        network(callbacks=[InputShapeSetter()]).fit(make_rows())


# ------------------------------------------------------------------ as parameters


def test_parameters_of_callbacks_are_parameters():
    """By the name beside the callback, or that of its class; a search sets them."""
    stop = EarlyStopping(monitor="train_loss", patience=7)
    model = network(callbacks=[("stop", stop), GradientNormClipping(2.0)])
    found = model.get_params()
    assert found["callbacks__stop"] is stop
    assert found["callbacks__stop__patience"] == 7
    assert found["callbacks__GradientNormClipping__gradient_clip_value"] == 2.0
    assert "callbacks__stop" not in model.get_params(deep=False)
    model.set_params(callbacks__stop__patience=3, alpha=0.5)
    assert (stop.patience, model.alpha) == (3, 0.5)
    other = EarlyStopping(monitor="train_loss", patience=1)
    model.set_params(callbacks__stop=other)
    assert model.callbacks[0] == ("stop", other)
    for name in ("callbacks__none__patience", "callbacks__none"):
        with pytest.raises(ValueError, match=r"'stop', 'GradientNormClipping'"):
            model.set_params(**{name: 1})
    search = GridSearchCV(
        network(max_iter=6, callbacks=[("stop", EarlyStopping("train_loss", threshold=1e6))]),
        {"callbacks__stop__patience": [1, 3], "n_components": [2]},
        cv=2,
        refit=False,
    ).fit(make_rows())
    assert [p["callbacks__stop__patience"] for p in search.cv_results_["params"]] == [1, 3]
    copied = clone(model)
    assert copied.callbacks[0][1] is not other
    assert copied.get_params()["callbacks__stop__patience"] == 1


class HoldsALock(EpochTimer):
    """A callback that nothing can copy, such as one with a writer of events."""

    def __init__(self):
        self.lock = threading.Lock()


def test_what_cannot_be_copied_is_named():
    """In a clone and in a file, with what to do; a copy that shares it is no problem."""
    model = network(callbacks=[("events", HoldsALock())]).fit(make_rows())
    with pytest.raises(TypeError, match=r"callbacks: events cannot be copied.*initialize"):
        clone(model)
    with pytest.raises(TypeError, match=r"events cannot be copied.*callbacks=None"):
        pickle.dumps(model)
    saved = pickle.loads(pickle.dumps(model.set_params(callbacks=None)))
    assert saved.score(make_rows()) == model.score(make_rows())
