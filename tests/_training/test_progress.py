"""What verbose shows: the names of trainings, their losses, and no bar where none can be read."""

import io
import re
import sys
from types import SimpleNamespace

import pytest
import sklearn.model_selection
from joblib import Parallel, delayed
from joblib.externals.loky import get_reusable_executor
from skorch.callbacks import Callback

from helpers import assert_same, make_rows, network, weights
from skae import (
    VAE,
    VQVAE,
    AdversarialAE,
    Ensemble,
    GridSearchCV,
    HelmholtzMachine,
    LatentDensityEstimator,
    cross_validate,
)
from skae._training import progress
from skae._training.progress import Display


class Stream(io.StringIO):
    """A stderr that is a terminal, or is not."""

    def __init__(self, is_terminal):
        super().__init__()
        self.is_terminal = is_terminal

    def isatty(self):
        return self.is_terminal


def shown_on(stream, monkeypatch):
    """The stream as stderr of this module only, because pytest replaces that of all modules."""
    seen = SimpleNamespace(stderr=stream, modules=sys.modules)
    monkeypatch.setattr(progress, "sys", seen)
    return stream


@pytest.fixture
def log(monkeypatch):
    """A stderr that is a file."""
    return shown_on(Stream(False), monkeypatch)


@pytest.fixture
def terminal(monkeypatch):
    """A stderr that is a terminal."""
    return shown_on(Stream(True), monkeypatch)


class Clock:
    """Seconds that pass only between two calls."""

    def __init__(self, step):
        self.now, self.step = 0.0, step

    def __call__(self):
        self.now += self.step
        return self.now


def lines_of(stream):
    text = stream.getvalue()
    assert "\r" not in text
    assert text.endswith("\n")
    return text.splitlines()


def titles_of(stream):
    return [line.split(": ")[0] for line in lines_of(stream)]


def losses_in(line):
    """The losses that a line names, and the best one."""
    found = {name: float(v) for name, v in re.findall(r"(\w+)=(-?[\d.]+(?:e[+-]\d+)?)", line)}
    return found, float(re.search(r"\(best (-?[\d.]+(?:e[+-]\d+)?)", line)[1])


def rounded(value):
    return float(f"{value:.5g}")


# ---------------------------------------------------------------------------------- lines


@pytest.mark.parametrize("early_stopping", [False, True])
def test_lines_have_the_losses_of_the_history(log, early_stopping):
    """verbose=2 prints every epoch: each loss of training, that of held-out rows, and the best."""
    params = {"early_stopping": early_stopping, "n_iter_no_change": 9}
    model = network(VAE, verbose=2, **params).fit(make_rows())
    *epochs, result = lines_of(log)
    assert len(epochs) == len(model.history_) == 4
    monitor = "valid_loss" if early_stopping else "train_loss"
    for n, (line, epoch) in enumerate(zip(epochs, model.history_, strict=True), 1):
        assert line.startswith(f"VAE network: epoch {n} of 4, train_loss=")
        losses, best = losses_in(line)
        names = ["train_loss", "train_reconstruction", "train_kl"] + ["valid_loss"] * early_stopping
        assert losses == {name: rounded(epoch[name]) for name in names}
        assert best == rounded(min(e[monitor] for e in model.history_[:n]))
    best_epoch = min(range(4), key=lambda n: model.history_[n][monitor]) + 1
    assert re.search(r"VAE network: 4 epochs in \d+\.\d s, train_loss=", result)
    assert f", epoch {best_epoch})" in result
    assert losses_in(result) == losses_in(epochs[-1])


def test_a_short_fit_has_one_line(log):
    """Below ten seconds there is only the result; training is the same as without."""
    X = make_rows()
    model = network(verbose=1).fit(X)
    assert titles_of(log) == ["Autoencoder network"]
    assert_same(weights(model), weights(network().fit(X)))


def test_verbose_0_shows_nothing(log):
    X = make_rows()
    network(verbose=0).fit(X).partial_fit(X)
    network(VQVAE, n_codes=8).fit(X)
    assert log.getvalue() == ""


@pytest.mark.parametrize(
    ("seconds", "n_epochs", "n_lines"),
    [
        (0.001, 1000, 1),  # a second in all: the result
        (1, 40, 4),  # 40 seconds: after 10, 20 and 30 seconds
        (1, 1000, 21),  # after each tenth, and between two of them after a minute
        (20, 1000, 334),  # one a minute
        (0.1, 1000, 10),  # after each tenth, and the last tenth is the result
    ],
)
def test_the_number_of_lines_is_bounded(log, monkeypatch, seconds, n_epochs, n_lines):
    """At most one after each tenth of the epochs, and one a minute."""
    monkeypatch.setattr(progress, "perf_counter", Clock(seconds))
    display = Display("fit", n_epochs, verbose=1)
    for n in range(1, n_epochs + 1):
        display.update(n, lambda: "loss=1")
    display.close(n_epochs, lambda: "loss=1", is_complete=True)
    lines = lines_of(log)
    assert abs(len(lines) - n_lines) <= 0.1 * n_lines + 1
    assert len(lines) <= 11 + n_epochs * seconds / 60
    assert lines[-1].startswith(f"fit: {n_epochs} epochs in ")


def test_a_fit_that_ends_early(log):
    """The line says how many epochs there were, or in which epoch an error ended training."""

    class Raises(Callback):
        def on_epoch_end(self, net, **kwargs):
            if len(net.history) == 3:
                raise RuntimeError

    class RaisesWithin(Callback):
        def on_batch_end(self, net, **kwargs):
            if len(net.history) == 1:
                raise KeyboardInterrupt

    X = make_rows()
    params = {"early_stopping": True, "tol": 1e6, "n_iter_no_change": 2, "max_iter": 50}
    model = network(verbose=1, **params).fit(X)
    assert f": {model.n_iter_} of 50 epochs in " in lines_of(log)[-1]
    for callback, error in ((Raises(), RuntimeError), (RaisesWithin(), KeyboardInterrupt)):
        with pytest.raises(error):
            network(verbose=1, callbacks=[callback]).fit(X)
    assert "stopped in epoch 4 of 4 after" in lines_of(log)[-2]
    assert "train_loss=" in lines_of(log)[-2]
    assert "stopped in epoch 1 of 4 after" in lines_of(log)[-1]


def test_without_a_stderr(monkeypatch):
    """pythonw has none."""
    monkeypatch.setattr(sys, "stderr", None)
    network(verbose=1).fit(make_rows())


# ---------------------------------------------------------------------------------- names


@pytest.mark.parametrize(
    ("model", "titles"),
    [
        (lambda: network(VAE, n_importance=2), ["VAE network"]),
        (lambda: network(VQVAE, n_codes=8), ["VQVAE network", "VQVAE prior"]),
        (lambda: network(VQVAE, n_codes=8, prior="independent"), ["VQVAE network"]),
        (lambda: network(AdversarialAE), ["AdversarialAE network"]),
        (lambda: network(HelmholtzMachine), ["HelmholtzMachine network"]),
        (
            lambda: LatentDensityEstimator(
                network(verbose=1), n_channels=4, n_mixture=2, max_iter=2, random_state=0
            ),
            ["Autoencoder network", "LatentDensityEstimator density"],
        ),
        (lambda: network(n_init=2), ["2 fits of Autoencoder network (2 starts)"]),
        (
            lambda: network(n_init=2, solver="lbfgs", alpha=0.1, max_iter=1),
            [f"Autoencoder network (start {i} of 2)" for i in (1, 2)],
        ),
        (
            lambda: Ensemble(network(verbose=1), 3, random_state=0),
            ["3 fits of Autoencoder network (3 members)"],
        ),
    ],
)
def test_every_training_is_named(log, model, titles):
    model = model()
    if "verbose" in model.get_params(deep=False):
        model.set_params(verbose=1)
    model.fit(make_rows())
    assert titles_of(log) == titles


def test_trials_are_numbered(log):
    """Those of max_iter=None are shown beside the training that follows."""
    network(VAE, max_iter=None, tol=None, n_importance=1, verbose=1).fit(make_rows(30))
    trials = [f"VAE network (trial {i} of 3)" for i in (1, 2, 3)]
    assert list(dict.fromkeys(titles_of(log))) in ([*trials, "VAE network"], trials)


# Networks that are not trained together.
ALONE = {"solver": "lbfgs", "alpha": 0.1, "max_iter": 1, "verbose": 1}


@pytest.mark.parametrize("share", [False, True])
def test_a_search_names_folds_and_candidates(log, share):
    search = GridSearchCV(network(**ALONE), {"n_components": [1, 2]}, cv=2, share=share)
    search.set_params(scoring=lambda model, X, y=None: 0.0).fit(make_rows())
    assert titles_of(log) == [
        *[
            f"Autoencoder network (fold {fold} of 2, n_components={k})"
            for k in (1, 2)
            for fold in (1, 2)
        ],
        "Autoencoder network (refit on all rows)",
    ]


def test_a_search_names_what_is_trained_together(log):
    """The common line has the smallest and the largest loss of the networks."""
    X, k = make_rows(), [1, 2]
    search = GridSearchCV(network(verbose=1), {"n_components": k}, cv=2, refit=False)
    search.set_params(scoring=lambda model, X, y=None: 0.0).fit(X)
    (line,) = lines_of(log)
    assert line.startswith("4 fits of Autoencoder network (2 folds, n_components=1, 2): 4 epochs")
    losses = []
    for train, _ in sklearn.model_selection.KFold(2).split(X):
        losses += [network(n_components=n).fit(X[train]).history_[-1]["train_loss"] for n in k]
    ends = re.search(r"train_loss=(\S+) to (\S+) \(best", line).groups()
    found = [float(end) for end in ends]
    assert found == pytest.approx([min(losses), max(losses)], rel=1e-4)


def test_networks_trained_together_are_shown_for_every_epoch(log):
    network(n_init=2, verbose=2).fit(make_rows())
    assert [line.split(", ")[0].split(": ")[1] for line in lines_of(log)[:-1]] == [
        f"epoch {n} of 4" for n in (1, 2, 3, 4)
    ]


def test_folds_of_cross_validate(log):
    cross_validate(network(**ALONE), make_rows(), cv=3)
    assert titles_of(log) == [f"Autoencoder network (fold {i} of 3)" for i in (1, 2, 3)]


def test_a_search_within_a_fold(log):
    """The outer fold stands first."""
    scoring = {"scoring": lambda model, X, y=None: 0.0}
    search = GridSearchCV(network(**ALONE), {"n_components": [2]}, cv=2, **scoring)
    cross_validate(search, make_rows(), cv=2, **scoring)
    assert titles_of(log)[:3] == [
        "Autoencoder network (fold 1 of 2, fold 1 of 2, n_components=2)",
        "Autoencoder network (fold 1 of 2, fold 2 of 2, n_components=2)",
        "Autoencoder network (fold 1 of 2, refit on all rows)",
    ]


def test_a_search_of_scikit_learn_counts_its_fits(log):
    """It does not say which fold and which candidate: the parameters of the model do."""
    search = sklearn.model_selection.GridSearchCV(
        VAE(max_iter=1, verbose=1, random_state=0, tol=0.0), {"n_components": [1, 2]}, cv=2
    ).fit(make_rows())
    expected = [
        f"VAE network (fit {1 + i} of 4, n_components={1 + i // 2}, max_iter=1, tol=0.0)"
        for i in range(4)
    ]
    assert titles_of(log) == [*expected, "VAE network (refit on all rows)"]
    assert search.n_splits_ == 2


# --------------------------------------------------------------------- terminals, notebooks


def test_a_bar_in_a_terminal(terminal, monkeypatch):
    """It is overwritten, ends with the result, and leaves the cursor on a new line."""
    monkeypatch.setattr(progress, "_REFRESH", 0.0)
    model = network(VAE, n_importance=2, verbose=1, early_stopping=True).fit(make_rows())
    shown = terminal.getvalue()
    assert shown.count("\n") == 1
    assert shown.endswith("\n")
    frames = [frame for frame in shown.strip().split("\r") if frame.strip()]
    assert frames[0].startswith("VAE network:   0%")
    for n, epoch in enumerate(model.history_, 1):
        assert any(
            f" {n}/4 [" in frame and f"train_loss={epoch['train_loss']:.5g}" in frame
            for frame in frames
        )
    assert "100%" in frames[-1]
    assert "valid_loss=" in frames[-1]
    assert progress._bars == []


def test_a_bar_ends_where_training_ends(terminal):
    """A full one when training was stopped, a part of one after an error."""

    class Raises(Callback):
        def on_epoch_end(self, net, **kwargs):
            if len(net.history) == 3:
                raise RuntimeError

    X = make_rows()
    params = {"early_stopping": True, "tol": 1e6, "n_iter_no_change": 2, "max_iter": 50}
    n_iter = network(verbose=1, **params).fit(X).n_iter_
    assert f" {n_iter}/{n_iter} [" in terminal.getvalue()
    with pytest.raises(RuntimeError):
        network(verbose=1, callbacks=[Raises()]).fit(X)
    assert " 3/4 [" in terminal.getvalue().split("\r")[-1]
    assert terminal.getvalue().endswith("\n")
    assert progress._bars == []


def test_only_one_bar_is_open(terminal):
    """A fit beside it has lines, which do not end within the bar."""
    first, second = (Display(title, 2, verbose=1) for title in ("first", "second"))
    for display in (second, first):
        display.update(2, lambda: "loss=1")
        display.close(2, lambda: "loss=1", is_complete=True)
    assert re.search(r"\rsecond: 2 epochs in \S+ s, loss=1\n", terminal.getvalue())
    assert "\rfirst: 100%" in terminal.getvalue()


def test_every_epoch_is_a_line_in_a_terminal_too(terminal):
    network(verbose=2).fit(make_rows())
    assert len(lines_of(terminal)) == 5


def test_bars_start_no_thread(terminal):
    """tqdm's own thread would be copied by a fork."""
    from tqdm import tqdm

    before = tqdm.monitor
    Display("fit", 1, verbose=1).close(1, lambda: "", is_complete=True)
    assert tqdm.monitor is before


def test_workers_print_lines(capfd):
    """Bars of several processes would overwrite each other."""
    X = make_rows()
    # Workers of earlier tests would write to the stderr that they were started with.
    get_reusable_executor().shutdown(wait=True)
    Parallel(2)(delayed(network(n_components=k, verbose=1).fit)(X) for k in (1, 2))
    shown = capfd.readouterr().err
    assert "\r" not in shown
    assert shown.count("Autoencoder network: 4 epochs in ") == 2


@pytest.fixture
def notebook(monkeypatch, log):
    """The kernel of a notebook, as modules see it."""
    shell = SimpleNamespace(config={"IPKernelApp": {}})
    ipython = SimpleNamespace(get_ipython=lambda: shell)
    monkeypatch.setitem(sys.modules, "IPython", ipython)
    return log


def test_a_notebook_without_widgets_has_lines(notebook, monkeypatch):
    """tqdm would warn that IProgress was not found."""
    monkeypatch.setattr(progress, "find_spec", lambda name: None)
    network(verbose=1).fit(make_rows())
    assert titles_of(notebook) == ["Autoencoder network"]


def test_a_notebook_with_widgets_has_their_bar(notebook, monkeypatch):
    opened = []

    class Bar:
        def __init__(self, **options):
            opened.append(options)

        def set_postfix_str(self, losses):
            self.losses = losses

        def close(self):
            opened.append(self.losses)

    monkeypatch.setattr(progress, "find_spec", lambda name: name)
    monkeypatch.setattr(progress, "_notebook_bar", lambda: Bar)
    network(verbose=1).fit(make_rows())
    assert opened[0]["desc"] == "Autoencoder network"
    assert opened[1].startswith("train_loss=")
    assert notebook.getvalue() == ""
