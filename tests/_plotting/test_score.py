import matplotlib.pyplot as plt
import numpy as np
import pandas as pd
import pytest
from sklearn.cluster import KMeans
from sklearn.decomposition import PCA
from sklearn.ensemble import IsolationForest
from sklearn.linear_model import LogisticRegression
from sklearn.mixture import GaussianMixture
from sklearn.model_selection import GridSearchCV
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler

from helpers import low_rank_rows, network
from skae import PPCA, VAE, Autoencoder, LatentDensityEstimator
from skae import GridSearchCV as SharingSearch
from skae.plotting import ScoreDisplay

ROWS = low_rank_rows(200)
X, NEW = ROWS[:120], ROWS[120:]


def outlines(ax):
    """Heights and edges by label."""
    return {patch.get_label(): patch.get_data()[:2] for patch in ax.patches}


def test_histograms_have_the_same_bins_and_integrate_to_one():
    model = PPCA(2).fit(X)
    display = ScoreDisplay.from_estimator(model, {"usual": X, "new": NEW})
    np.testing.assert_array_equal(display.scores["new"], model.score_samples(NEW))
    drawn = outlines(display.ax_)
    assert list(drawn) == ["usual", "new"]
    (heights, edges), (others, same) = drawn.values()
    np.testing.assert_array_equal(edges, same)
    expected, _ = np.histogram(model.score_samples(X), edges, density=True)
    np.testing.assert_allclose(heights, expected)
    for values in (heights, others):
        np.testing.assert_allclose(np.sum(values * np.diff(edges)), 1.0)
    styles = {(str(p.get_edgecolor()), p.get_linestyle()) for p in display.ax_.patches}
    assert len({style for _, style in styles}) == 2  # not told apart by colour alone
    assert display.ax_.get_xlabel().startswith("log-likelihood (nats per row)")


@pytest.mark.parametrize(
    ("model", "label"),
    [
        (network(VAE), "lower bound on the log-likelihood (nats per row)"),
        (network(Autoencoder), "log-likelihood of the reconstruction (nats per row)"),
        (
            LatentDensityEstimator(PPCA(2), density=GaussianMixture(), random_state=0),
            None,
        ),
        (PCA(2), "log-likelihood (nats per row)"),
        (GaussianMixture(), "log-likelihood (nats per row)"),
        (IsolationForest(n_estimators=5, random_state=0), "score of IsolationForest"),
    ],
    ids=lambda value: type(value).__name__,
)
def test_the_axis_names_the_kind_of_the_scores(model, label):
    display = ScoreDisplay.from_estimator(model.fit(X), X)
    if label is None:
        kind = model.score_kind
        label = {"latent": "code", "reconstruction": "reconstruction"}.get(kind, "likelihood")
    assert label in display.ax_.get_xlabel()
    np.testing.assert_array_equal(display.scores, model.score_samples(X))
    assert display.ax_.get_legend() is None


FRAME = pd.DataFrame(X, columns=list("abcdef"))


@pytest.mark.parametrize("rows", [X, FRAME], ids=["array", "frame"])
@pytest.mark.parametrize(
    "wrap",
    [
        lambda m: make_pipeline(StandardScaler(), m),
        lambda m: GridSearchCV(m, {"n_components": [1, 2]}, cv=2),
        lambda m: SharingSearch(make_pipeline(StandardScaler(), m), {"ppca__n_components": [1, 2]}),
    ],
    ids=["pipeline", "search", "sharing_search"],
)
def test_the_model_inside(wrap, rows):
    estimator = wrap(PPCA(2)).fit(rows)
    display = ScoreDisplay.from_estimator(estimator, {"rows": rows})
    inner = getattr(estimator, "best_estimator_", estimator)
    np.testing.assert_array_equal(display.scores["rows"], inner.score_samples(rows))
    assert display.ax_.get_xlabel().startswith("log-likelihood (nats per row)")


def test_a_model_before_a_classifier():
    y = X[:, 0] > X[:, 0].mean()
    estimator = make_pipeline(StandardScaler(), PPCA(2), LogisticRegression()).fit(X, y)
    display = ScoreDisplay.from_estimator(estimator, X)
    expected = estimator[1].score_samples(estimator[0].transform(X))
    np.testing.assert_array_equal(display.scores, expected)


def test_the_threshold_is_a_quantile_of_the_first_set():
    model = PPCA(2).fit(X)
    display = ScoreDisplay.from_estimator(model, {"usual": X, "new": NEW}, threshold=0.1)
    expected = np.quantile(model.score_samples(X), 0.1)
    assert display.threshold_ == expected
    (line,) = display.ax_.lines
    np.testing.assert_array_equal(line.get_xdata(), expected)
    below = np.mean(model.score_samples(NEW) < expected)
    assert display.shares_below_ == {"usual": 0.1, "new": below}
    labels = [text.get_text() for text in display.ax_.get_legend().get_texts()]
    assert labels[0] == "usual: 10% below"
    assert labels[2] == "10% quantile of usual"
    assert ScoreDisplay(display.scores).plot().shares_below_ is None


@pytest.mark.parametrize("threshold", [0.0, 1.0, -3, 5, "low", np.nan])
def test_wrong_thresholds(threshold):
    with pytest.raises(ValueError, match=r"threshold=.* must be a float between 0 and 1"):
        ScoreDisplay([1.0, 2.0], threshold=threshold).plot()


def test_far_rows_do_not_squash_the_others():
    usual = np.random.default_rng(0).normal(size=1000)
    scores = {
        "usual": usual,
        "few far": np.r_[usual, -1e6, -1e5],
        "all far": usual - 1e8,
        "not finite": np.r_[usual[:999], -np.inf],
    }
    display = ScoreDisplay(scores).plot()
    low, high = display.ax_.get_xlim()
    assert high - low < 2 * (usual.max() - usual.min())
    label = display.ax_.get_xlabel()
    assert "0.2% of few far" in label
    assert "100% of all far" in label
    assert "0.1% of not finite" in label
    assert " usual" not in label
    heights, edges = outlines(display.ax_)["few far"]
    np.testing.assert_allclose(np.sum(heights * np.diff(edges)), 1000 / 1002)


@pytest.mark.parametrize("bins", [7, np.int64(7), "sturges", [-3.0, 0.0, 1.0, 5.0]], ids=repr)
def test_bins(bins):
    values = np.random.default_rng(0).normal(size=200)
    _, edges = outlines(ScoreDisplay(values, bins=bins).plot().ax_)["rows"]
    expected = np.histogram_bin_edges(values, bins)
    np.testing.assert_allclose(edges, expected)


def test_equal_scores_and_single_rows():
    for scores in ([2.0], [3.0] * 5, [1e9, 1e9]):
        display = ScoreDisplay(scores).plot()
        heights, edges = outlines(display.ax_)["rows"]
        np.testing.assert_allclose(np.sum(heights * np.diff(edges)), 1.0)
        display.figure_.canvas.draw()


def test_given_axes_and_drawing_twice():
    figure, (left, right) = plt.subplots(1, 2)
    display = ScoreDisplay.from_estimator(PPCA(2).fit(X), X, ax=right)
    assert display.ax_ is right
    assert not left.patches
    assert display.plot().figure_ is not figure


def test_errors():
    with pytest.raises(TypeError, match="KMeans has no score_samples"):
        ScoreDisplay.from_estimator(KMeans(2, n_init=1).fit(X), X)
    with pytest.raises(ValueError, match=r"scores of bad have shape .* at least one finite"):
        ScoreDisplay({"bad": [np.nan, np.inf]}).plot()
    with pytest.raises(ValueError, match="scores has no set"):
        ScoreDisplay({}).plot()
    for bins in ([1.0], True, None):
        with pytest.raises(ValueError, match=r"bins=.* must be a number of bins, .* or rising"):
            ScoreDisplay([1.0, 2.0], bins=bins).plot()
    with pytest.raises(TypeError, match="estimator is the class PPCA"):
        ScoreDisplay.from_estimator(PPCA, X)
    with pytest.raises(ValueError, match=r"threshold=0\.1, but the first set has NaN or infinite"):
        ScoreDisplay([-np.inf, -np.inf, 1.0], threshold=0.1).plot()


@pytest.mark.parametrize("bins", [0, 10_001])
def test_numbers_of_bins_have_limits(bins):
    with pytest.raises(ValueError, match=f"bins={bins} must be from 1 to 10000"):
        ScoreDisplay({"rows": np.arange(5.0)}, bins=bins).plot()
