import matplotlib.pyplot as plt
import numpy as np
import pandas as pd
import pytest
from sklearn.decomposition import PCA
from sklearn.model_selection import GridSearchCV
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler

from helpers import make_rows, network, through_pickle
from skae import (
    PPCA,
    VAE,
    VQVAE,
    AdversarialAE,
    Autoencoder,
    CountMixtureAE,
    LatentDensityEstimator,
)
from skae import GridSearchCV as SharingSearch
from skae.plotting import LearningCurveDisplay

X = make_rows()


def lines(ax):
    """y of every line by its legend label, but for the lines that mark an epoch."""
    return {line.get_label(): line.get_ydata() for line in ax.lines if len(line.get_xdata()) != 2}


def panels(display):
    return {ax.get_title(): ax for ax in np.ravel(display.ax_) if ax.get_title()}


def vae(**params):
    return network(VAE, max_iter=5, early_stopping=True, **params)


def column(history, key):
    return [epoch[key] for epoch in history]


def test_a_panel_for_each_term_draws_the_history():
    model = vae().fit(X)
    display = LearningCurveDisplay.from_estimator(model)
    drawn = panels(display)
    assert list(drawn) == ["loss", "reconstruction", "kl"]
    for term, ax in drawn.items():
        train, held_out = lines(ax)["training rows"], lines(ax)["held-out rows"]
        np.testing.assert_array_equal(train, column(model.history_, f"train_{term}"))
        np.testing.assert_array_equal(held_out, column(model.history_, f"valid_{term}"))
        assert [line.get_linestyle() for line in ax.lines[:2]] == ["-", "--"]
        np.testing.assert_array_equal(ax.lines[0].get_xdata(), [1, 2, 3, 4, 5])
        assert ax.get_ylabel() == "nats per row"
        assert ax.get_xlabel() == "epoch"
    assert len(display.figure_.legends) == 1


@pytest.mark.parametrize("rows", [X, pd.DataFrame(X, columns=list("abcde"))])
@pytest.mark.parametrize(
    ("wrap", "inner"),
    [
        (lambda m: make_pipeline(StandardScaler(), m), lambda m: m[-1]),
        (lambda m: GridSearchCV(m, {"n_components": [1, 2]}, cv=2), lambda m: m.best_estimator_),
        (lambda m: SharingSearch(m, {"n_components": [1, 2]}, cv=2), lambda m: m.best_estimator_),
    ],
    ids=["pipeline", "search", "sharing_search"],
)
def test_the_model_inside(wrap, inner, rows):
    estimator = wrap(vae()).fit(rows)
    display = LearningCurveDisplay.from_estimator(estimator, terms=["loss"])
    expected = column(inner(estimator).history_, "train_loss")
    np.testing.assert_array_equal(lines(display.ax_)["training rows"], expected)


def test_terms_choose_the_panels_and_their_order():
    model = vae().fit(X)
    display = LearningCurveDisplay.from_estimator(model, terms=["kl", "loss"])
    assert list(panels(display)) == ["kl", "loss"]
    with pytest.raises(ValueError, match=r"terms=\['nll'\] must name .*'loss', 'reconstruction'"):
        LearningCurveDisplay.from_estimator(model, terms=["nll"])
    with pytest.raises(ValueError, match=r"terms=\[\] must name"):
        LearningCurveDisplay.from_estimator(model, terms=[])


def test_the_prior_has_a_panel_of_its_own():
    model = network(VQVAE, n_codes=4, early_stopping=True, prior="autoregressive").fit(X)
    display = LearningCurveDisplay.from_estimator(model)
    drawn = panels(display)
    ax = drawn["prior: loss"]
    assert ax.get_xlabel() == "epoch of the prior"
    expected = column(model.prior_history_, "train_loss")
    np.testing.assert_array_equal(lines(ax)["training rows"], expected)
    assert drawn["commitment"].get_ylabel() == "squared error per row"
    alone = LearningCurveDisplay.from_estimator(model, terms=["prior_loss"])
    np.testing.assert_array_equal(lines(alone.ax_)["training rows"], expected)


@pytest.mark.parametrize(
    "model",
    [
        network(AdversarialAE),
        LatentDensityEstimator(PPCA(2), max_iter=3, random_state=0, device="cpu"),
    ],
    ids=lambda model: type(model).__name__,
)
def test_other_models_with_a_history(model):
    model.fit(X)
    drawn = panels(LearningCurveDisplay.from_estimator(model))
    named = {key[6:] for key in model.history_[0] if key.startswith("train_")} - {"loss_best"}
    assert set(drawn) == named
    for term, ax in drawn.items():
        expected = column(model.history_, f"train_{term}")
        np.testing.assert_array_equal(lines(ax)["training rows"], expected)


def test_iterations_of_em():
    model = PPCA(2, solver="em").fit(X)
    display = LearningCurveDisplay.from_estimator(model)
    assert display.ax_.get_title() == "log-likelihood"
    assert display.ax_.get_xlabel() == "iteration"
    np.testing.assert_array_equal(display.ax_.lines[0].get_ydata(), model.log_likelihoods_)
    counts = CountMixtureAE(3).fit(X[:, :2])
    display = LearningCurveDisplay.from_estimator(counts)
    np.testing.assert_array_equal(display.ax_.lines[0].get_ydata(), counts.objectives_)
    cells = CountMixtureAE(3, covariance_type="cell").fit(X[:, :2])
    display = LearningCurveDisplay.from_estimator(cells)
    assert display.ax_.lines[0].get_label() == "held-out rows"


def marks(ax):
    return [(line.get_xdata()[0], line.get_label()) for line in ax.lines if line.get_ls() == ":"]


def test_the_epoch_that_was_kept_is_marked():
    model = network(VAE, max_iter=40, early_stopping=True, learning_rate_init=0.1).fit(X)
    held_out = column(model.history_, "valid_loss")
    kept = int(np.argmin(held_out)) + 1
    assert kept < len(held_out)  # or the test says nothing
    for ax in panels(LearningCurveDisplay.from_estimator(model)).values():
        assert marks(ax) == [(kept, f"weights kept: epoch {kept}")]
    # The weights that the model has are those of that epoch: training that long yields them.
    again = network(VAE, max_iter=kept, early_stopping=True, learning_rate_init=0.1).fit(X)
    np.testing.assert_array_equal(model.transform(X), again.transform(X))


def test_a_kept_linear_start_is_marked():
    model = network(Autoencoder, init="linear", learning_rate_init=3.0).fit(X)
    display = LearningCurveDisplay.from_estimator(model)
    assert marks(display.ax_) == [(0, "weights kept: those of the start")]
    start = network(Autoencoder, init="linear", max_iter=1, learning_rate_init=1e-12).fit(X)
    np.testing.assert_allclose(model.transform(X), start.transform(X), rtol=1e-3, atol=1e-4)


def test_no_epoch_is_marked_where_it_is_not_known(tmp_path):
    assert not marks(LearningCurveDisplay.from_estimator(network().fit(X)).ax_)
    stopped = network(max_iter=40, early_stopping=True, learning_rate_init=0.3).fit(X)
    assert marks(LearningCurveDisplay.from_estimator(stopped).ax_)
    loaded = through_pickle(stopped, tmp_path)
    assert not marks(LearningCurveDisplay.from_estimator(loaded).ax_)


def test_gaps_single_epochs_and_other_entries():
    history = [
        {"epoch": 1, "dur": 0.1, "train_loss": 3.0, "train_loss_best": True, "lr": 0.1},
        {"epoch": 2, "train_loss": np.nan, "valid_loss": 2.0, "train_note": "text"},
        {"epoch": 3, "train_loss": np.float32(1.0)},
    ]
    display = LearningCurveDisplay(history).plot()
    assert list(panels(display)) == ["loss"]
    assert [line.get_label() for line in display.ax_.lines] == ["training rows", "held-out rows"]
    np.testing.assert_array_equal(display.ax_.lines[0].get_ydata(), [3.0, np.nan, 1.0])
    np.testing.assert_array_equal(display.ax_.lines[1].get_ydata(), [np.nan, 2.0, np.nan])
    one = LearningCurveDisplay(history[:1]).plot()
    assert one.ax_.lines[0].get_marker() == "."  # a line of one point would show nothing
    np.testing.assert_array_equal(one.ax_.get_xticks(), [1])
    long = LearningCurveDisplay([{"train_loss": float(i)} for i in range(3000)]).plot()
    assert len(long.ax_.lines[0].get_xdata()) == 3000
    long.figure_.canvas.draw()


def test_given_axes_and_drawing_twice():
    figure, (left, right) = plt.subplots(1, 2)
    display = LearningCurveDisplay.from_estimator(vae().fit(X), ax=right)
    assert display.figure_ is figure
    assert left.axison
    assert not right.axison
    figure.canvas.draw()
    first = display.ax_
    assert display.plot().ax_ is not first
    assert display.figure_ is not figure
    alone = LearningCurveDisplay(display.history, terms="kl").plot(ax=left)
    assert alone.ax_ is left


def test_errors():
    for closed in (PPCA(2).fit(X), PCA(2).fit(X)):
        with pytest.raises(TypeError, match=r"history_; estimator=P.* has none"):
            LearningCurveDisplay.from_estimator(closed)
    with pytest.raises(TypeError, match="history must be a list of dicts"):
        LearningCurveDisplay([1.0, 2.0]).plot()
    for empty in ([], [{"epoch": 1}]):
        with pytest.raises(ValueError, match="history has no entry"):
            LearningCurveDisplay(empty).plot()
    with pytest.raises(TypeError, match="ax must be matplotlib Axes, got int"):
        LearningCurveDisplay([{"train_loss": 1.0}]).plot(ax=3)
