"""Callbacks of skorch and of scikit-learn: what they hear, may do and are handed."""

import pickle
import warnings

import numpy as np
import pytest
import torch
from sklearn.base import clone
from sklearn.callback import ScoringMonitor
from sklearn.metrics import check_scoring
from sklearn.model_selection import GridSearchCV
from sklearn.pipeline import Pipeline
from sklearn.preprocessing import StandardScaler
from skorch.callbacks import (
    Callback,
    Checkpoint,
    EarlyStopping,
    EpochScoring,
    Freezer,
    GradientNormClipping,
    LRScheduler,
    PrintLog,
)

from helpers import (
    Recorder,
    assert_same,
    learned,
    make_rows,
    network,
    own_networks,
    parameters,
    weights,
)

# ----------------------------------------------------------------- skorch's callbacks


def test_a_callback_hears_every_batch():
    """Losses of batches average to those of epochs."""
    X = make_rows(60)

    class Losses(Callback):
        heard = ()

        def on_batch_end(self, net, batch, training, **kwargs):
            self.heard = (*self.heard, (len(net.history), len(batch[0]), training))

    listener = Losses()
    model = network(callbacks=[("mine", listener)], early_stopping=True).fit(X)
    trained = [(e, n) for e, n, training in listener.heard if training]
    assert trained == [(e, n) for e in (1, 2, 3, 4) for n in (16, 16, 16, 6)]
    held_out = [(e, n) for e, n, training in listener.heard if not training]
    assert held_out == [(e, 6) for e in (1, 2, 3, 4)]
    for epoch in model.history_:
        batches = [b for b in epoch["batches"] if "train_loss" in b]
        losses = [batch["train_loss"] for batch in batches]
        sizes = [batch["train_batch_size"] for batch in batches]
        assert np.average(losses, weights=sizes) == pytest.approx(epoch["train_loss"], rel=1e-5)


@pytest.mark.parametrize(
    "callback",
    [Recorder(), PrintLog(sink=lambda *args: None), EpochScoring("explained_variance", name="x")],
    ids=lambda c: type(c).__name__,
)
def test_listening_changes_nothing(callback):
    """With a callback that only listens, the same bits come out."""
    if isinstance(callback, EpochScoring):
        callback = EpochScoring(lambda net, X, y: 0.0, name="zero", use_caching=False)
    X = make_rows()
    assert_same(weights(network(callbacks=[callback]).fit(X)), weights(network().fit(X)))


def test_a_skorch_callback_may_stop_training():
    """skorch's EarlyStopping ends training where it says."""
    stop = EarlyStopping(monitor="train_loss", patience=2, threshold=1e6, threshold_mode="abs")
    stop.set_params(sink=lambda *args, **kwargs: None)
    X = make_rows()
    model = network(callbacks=[stop], max_iter=50).fit(X)
    assert model.n_iter_ == 3
    assert_same(weights(model), weights(network(max_iter=3).fit(X)))


def test_a_checkpoint_is_saved(tmp_path):
    """skorch's Checkpoint writes the weights of the last epoch."""
    path = Checkpoint(monitor=None, dirname=str(tmp_path), f_criterion=None)
    model = network(callbacks=[path]).fit(make_rows())
    saved = torch.load(tmp_path / "params.pt", weights_only=True)
    # The noise is learned exactly when training has ended.
    named = {name: saved[name].numpy() for name in parameters(model)}
    assert_same(named, parameters(model))


@pytest.mark.parametrize("loss", ["train_loss", "valid_loss"])
def test_a_checkpoint_brings_back_the_best_epoch(loss, tmp_path):
    """skorch's Checkpoint watches *_loss_best, as in its own nets, and loads that epoch."""
    X = make_rows()
    best = Checkpoint(monitor=f"{loss}_best", dirname=str(tmp_path), load_best=True)
    model = network(
        callbacks=[best],
        early_stopping=loss == "valid_loss",
        n_iter_no_change=50,
        solver="sgd",
        learning_rate_init=0.1,
        batch_size=4,
        max_iter=15,
    ).fit(X)
    losses = [epoch[loss] for epoch in model.history_]
    assert [e["event_cp"] for e in model.history_] == [
        value == min(losses[: i + 1]) for i, value in enumerate(losses)
    ]
    saved = torch.load(tmp_path / "params.pt", weights_only=True)
    named = {name: saved[name].numpy() for name in parameters(model)}
    assert_same(named, parameters(model))


def test_gradients_can_be_clipped():
    """Behind skorch's GradientNormClipping no gradient is longer than its threshold."""

    class Norms(Callback):
        heard = ()

        def on_grad_computed(self, net, named_parameters, **kwargs):
            total = sum(p.grad.square().sum() for _, p in named_parameters)
            self.heard = (*self.heard, float(total.sqrt()))

    X = make_rows()
    free, clipped = Norms(), Norms()
    network(callbacks=[free]).fit(X)
    network(callbacks=[GradientNormClipping(1e-3), clipped]).fit(X)
    assert min(free.heard) > 1e-3
    assert max(clipped.heard) < 1.001e-3
    assert len(clipped.heard) == 16


def test_skorchs_schedules_rule_the_rate():
    """skorch's LRScheduler halves the rate every epoch."""
    halve = LRScheduler("StepLR", step_size=1, gamma=0.5)
    recorder = Recorder()
    network(callbacks=[halve, recorder], learning_rate_init=0.01).fit(make_rows())
    np.testing.assert_allclose(recorder.end_rates_, 0.01 / 2.0 ** np.arange(1, 5))


def test_weights_can_be_frozen():
    """skorch's Freezer keeps the encoder's first layer as it was."""
    recorder = Recorder()
    model = network(callbacks=[Freezer("encoder.0.*"), recorder]).fit(make_rows())
    start = dict(recorder.start_.named_parameters())
    for name, value in parameters(model).items():
        same = np.array_equal(value, start[name].detach().numpy())
        assert same == name.startswith("encoder.0."), name


def test_callbacks_survive_clone_and_files():
    """A parameter that holds callbacks is cloned, pickled, and set back to None."""
    X = make_rows()
    model = network(callbacks=[Recorder(), LRScheduler("StepLR", step_size=1)]).fit(X)
    copied = clone(model)
    assert [type(c) for c in copied.callbacks] == [Recorder, LRScheduler]
    assert_same(weights(copied.fit(X)), weights(model))
    loaded = pickle.loads(pickle.dumps(model))
    np.testing.assert_array_equal(loaded.transform(X), model.transform(X))
    assert copied.set_params(callbacks=None).fit(X).n_iter_ == 4


# ----------------------------------------------------------- scikit-learn's callbacks


class Tasks:
    """Hears of tasks; stops after some epochs."""

    def __init__(self, stop_after=None):
        self.stop_after = stop_after
        self.begun, self.ended, self.at_setup, self.at_teardown = [], [], 0, 0

    def setup(self, estimator, context):
        self.at_setup += 1

    def teardown(self, estimator, context):
        self.at_teardown += 1

    def on_fit_task_begin(self, estimator, context):
        self.begun.append((context.estimator_name, context.task_name, context.task_id))

    def on_fit_task_end(self, estimator, context):
        self.ended.append((context.estimator_name, context.task_name, context.task_id))
        return self.stop_after is not None and context.task_id + 1 == self.stop_after


class Everywhere(Tasks):
    """Hears of the tasks of sub-estimators too."""

    max_propagation_depth = None


class Models(Tasks):
    """Keeps the estimators as they were after every epoch."""

    def __init__(self):
        super().__init__()
        self.models, self.rows, self.codes = [], [], []

    def on_fit_task_end(
        self, estimator, context, *, X=None, y=None, metadata=None, fitted_estimator=None
    ):
        if fitted_estimator is not None:
            self.models.append(fitted_estimator)
            self.rows.append(X)
            self.codes.append(fitted_estimator.transform(X))


def epochs_of(tasks):
    return [task_id for name, task, task_id in tasks if (name, task) == ("Autoencoder", "epoch")]


@pytest.mark.parametrize("fit", ["fit", "fit_transform"])
def test_an_epoch_is_a_task(fit):
    """Every epoch begins and ends a task, within that of the fit."""
    tasks = Tasks()
    model = network().set_callbacks(tasks)
    getattr(model, fit)(make_rows())
    assert tasks.begun[0][1:] == tasks.ended[-1][1:] == ("fit", 0)
    assert epochs_of(tasks.begun) == epochs_of(tasks.ended) == [0, 1, 2, 3]
    assert (tasks.at_setup, tasks.at_teardown) == (1, 1)
    assert not hasattr(model, "_callback_fit_ctx")


def test_scikit_learns_callback_may_stop_training():
    """A hook that returns True ends training after its epoch."""
    X = make_rows()
    tasks = Tasks(stop_after=3)
    model = network(max_iter=50).set_callbacks(tasks).fit(X)
    assert model.n_iter_ == len(model.history_) == 3
    assert epochs_of(tasks.ended) == [0, 1, 2]
    assert_same(weights(model), weights(network(max_iter=3).fit(X)))


def test_another_fit_has_its_own_tasks():
    """Epochs are counted from 0 again in a second fit, and with warm_start too."""
    X = make_rows()
    for warm_start in (False, True):
        tasks = Tasks()
        model = network(warm_start=warm_start).set_callbacks(tasks).fit(X)
        model.fit(X)
        assert epochs_of(tasks.ended) == [0, 1, 2, 3] * 2


@pytest.mark.parametrize(
    "params",
    [
        {},
        {"likelihood": "laplace", "tied_weights": True},
        {"latent_growth": "nested"},
        {"latent_growth": "incremental"},
        {"early_stopping": True},
        {"sparsity": 0.1, "noise": "masking"},
        own_networks(),
    ],
    ids=lambda params: "-".join(params) or "default",
)
def test_callbacks_are_handed_the_model_so_far(params):
    """After every epoch a model that encodes as a fit of so many epochs does, and stays so."""
    X = make_rows()
    heard = Models()
    model = network(**params).set_callbacks(heard).fit(X)
    assert len(heard.models) == 4
    for epoch, (so_far, codes) in enumerate(zip(heard.models, heard.codes, strict=True), 1):
        assert so_far.n_iter_ == len(so_far.history_) == epoch
        np.testing.assert_array_equal(so_far.transform(X), codes)
        assert np.isfinite(so_far.score(X))
        assert so_far.sample(2, random_state=0).shape == (2, 5)
        if "early_stopping" in params or "latent_growth" in params:
            continue  # their shorter fits are others
        shorter = network(**{**params, "max_iter": epoch}).fit(X)
        np.testing.assert_array_equal(codes, shorter.transform(X))
        assert so_far.score(X) == shorter.score(X)
    assert_same(learned(model), learned(network(**params).fit(X)))


@pytest.mark.parametrize("latent_growth", ["nested", "incremental"])
def test_the_model_so_far_can_be_cut_and_continued(latent_growth):
    """truncate and partial_fit work on what a callback was handed."""
    X = make_rows()
    heard = Models()
    network(n_components=3, latent_growth=latent_growth).set_callbacks(heard).fit(X)
    for so_far in heard.models:
        so_far.set_callbacks()
        assert np.isfinite(so_far.truncate(1).score(X))
        assert so_far.partial_fit(X).n_iter_ == len(so_far.history_)


def test_the_model_so_far_may_be_trained_without_a_trace():
    """Training the model that a callback was handed leaves the one in training alone."""

    class Meddler(Tasks):
        def on_fit_task_end(self, estimator, context, *, X=None, fitted_estimator=None):
            if fitted_estimator is not None:
                with torch.no_grad():
                    for tensor in fitted_estimator.net_.module_.state_dict().values():
                        tensor.zero_()
                fitted_estimator.history_.clear()

    X = make_rows()
    model = network().set_callbacks(Meddler()).fit(X)
    assert_same(learned(model), learned(network().fit(X)))


def test_callbacks_hear_from_inside_a_pipeline():
    """A callback set on a Pipeline hears the epochs of the network in it."""
    X = make_rows()
    tasks = Everywhere()
    pipe = Pipeline([("scale", StandardScaler()), ("reduce", network())])
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", "The estimator StandardScaler does not support")
        pipe.set_callbacks(tasks).fit(X)
    assert epochs_of(tasks.ended) == [0, 1, 2, 3]
    plain = clone(pipe)
    plain.__dict__.pop("_skl_callbacks", None)
    np.testing.assert_array_equal(plain.fit(X).transform(X), pipe.transform(X))


def test_callbacks_hear_from_inside_a_grid_search():
    """A callback set on GridSearchCV hears the epochs of every fit."""
    X = make_rows()
    tasks = Everywhere()
    search = GridSearchCV(network(), {"n_components": [1, 2]}, cv=2, n_jobs=1)
    search.set_callbacks(tasks).fit(X)
    assert epochs_of(tasks.ended) == [0, 1, 2, 3] * 5  # two sizes, two folds, and the best again
    plain = GridSearchCV(network(), {"n_components": [1, 2]}, cv=2, n_jobs=1).fit(X)
    found, expected = (s.cv_results_["mean_test_score"] for s in (search, plain))
    np.testing.assert_array_equal(found, expected)
    pickle.dumps(search.best_estimator_)


@pytest.mark.parametrize("y", [None, np.arange(60.0), [str(i % 3) for i in range(60)]])
def test_scikit_learns_own_monitor_logs_every_epochs_score(y):
    """ScoringMonitor writes, after every epoch, the score of a fit of so many epochs."""
    X = make_rows()
    weight = np.repeat([1.0, 0.0], 30)  # rows that do not count leave with their targets
    for options in ({}, {"sample_weight": weight}):
        model = network()
        monitor = ScoringMonitor(scoring={"nats": check_scoring(model)})
        model.set_callbacks(monitor).fit(X, y, **options)
        rows = [row for row in monitor.get_logs().data if len(row["task_id_path"]) == 2]
        assert [row["task_id_path"] for row in rows] == [(0, 0), (0, 1), (0, 2), (0, 3)]
        shorter = [network(max_iter=k).fit(X, **options) for k in (1, 2, 3, 4)]
        expected = [model.score(X, **options) for model in shorter]
        np.testing.assert_allclose([row["nats"] for row in rows], expected, rtol=1e-6)


def test_each_start_is_a_task_of_its_epochs():
    """With n_init, scikit-learn's callbacks hear of every start and its epochs, and score them."""
    X = make_rows()
    tasks, model = Tasks(), network(n_init=2, random_state=3)
    monitor = ScoringMonitor(scoring={"nats": check_scoring(model)})
    model.set_callbacks(tasks, monitor).fit(X)
    assert sorted(tasks.begun) == sorted(tasks.ended)
    assert [task_id for _, task, task_id in tasks.ended if task == "start"] == [0, 1]
    rows = monitor.get_logs().data
    scores = {row["task_id_path"]: row["nats"] for row in rows if len(row["task_id_path"]) == 3}
    assert sorted(scores) == [(0, start, epoch) for start in range(2) for epoch in range(4)]
    seeds = [3, int(np.random.RandomState(3).randint(2**31 - 1))]
    for start, seed in enumerate(seeds):
        alone = network(random_state=seed).fit(X).score(X)
        assert scores[0, start, 3] == pytest.approx(alone, rel=1e-5)
    assert model.score(X) == pytest.approx(max(scores[0, 0, 3], scores[0, 1, 3]), rel=1e-5)


def test_a_monitor_without_names_is_refused():
    """scikit-learn fails on it at the first score; the error says what to give."""
    model = network().set_callbacks(ScoringMonitor(scoring=None))
    with pytest.raises(ValueError, match=r"scoring=\{'nats'"):
        model.fit(make_rows())


def test_scikit_learns_progress_bar(capsys):
    """ProgressBar shows the fit and its epochs."""
    pytest.importorskip("rich")
    from sklearn.callback import ProgressBar

    network().set_callbacks(ProgressBar()).fit(make_rows())
    assert "Autoencoder" in capsys.readouterr().out


@pytest.mark.parametrize("fails_at", ["begin", "end"])
def test_a_failing_callback_fails_the_fit_without_a_trace(fails_at):
    """Its error is heard, callbacks are torn down, and the model is as before."""

    class Failing(Tasks):
        def on_fit_task_begin(self, estimator, context):
            if fails_at == "begin" and context.task_id == 2:
                raise RuntimeError("no more")

        def on_fit_task_end(self, estimator, context):
            if fails_at == "end" and context.task_id == 2:
                raise RuntimeError("no more")

    X = make_rows()
    failing = Failing()
    model = network().fit(X)
    before = learned(model)
    with pytest.raises(RuntimeError, match="no more"):
        model.set_callbacks(failing).fit(X + 1)
    assert failing.at_teardown == 1
    assert_same(learned(model), before)
