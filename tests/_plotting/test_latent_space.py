"""Codes in the latent space: places, colours and ellipses are those of the model."""

import matplotlib as mpl
import numpy as np
import pandas as pd
import polars as pl
import pytest
from scipy import stats
from sklearn.datasets import load_digits, load_iris
from sklearn.decomposition import PCA
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler

from helpers import make_rows, network
from skae import PPCA, VAE, VQVAE, GridSearchCV
from skae.plotting import LatentSpaceDisplay


@pytest.fixture(scope="module")
def iris():
    return load_iris(return_X_y=True)


@pytest.fixture(scope="module")
def gappy():
    """Rows whose posteriors have correlated codes."""
    return make_rows(60, 4, gaps=0.3, dtype=np.float64)


def scattered(ax):
    return [np.asarray(group.get_offsets()) for group in ax.collections]


def outline(ellipse):
    angle = np.linspace(0, 2 * np.pi, 100)
    return ellipse.get_patch_transform().transform(np.column_stack([np.cos(angle), np.sin(angle)]))


def legend_of(ax):
    return [text.get_text() for text in ax.get_legend().get_texts()]


# -------------------------------------------------------------------------------- places


def test_points_are_codes(iris):
    X, _ = iris
    search = GridSearchCV(make_pipeline(StandardScaler(), PPCA()), {"ppca__n_components": [2]})
    search.fit(X)
    display = LatentSpaceDisplay.from_estimator(search, X, posterior=False)
    [points] = scattered(display.ax_)
    np.testing.assert_allclose(points, search.transform(X))
    assert (display.ax_.get_xlabel(), display.ax_.get_ylabel()) == ("ppca0", "ppca1")


def test_components(iris):
    X, _ = iris
    model = PCA(3).fit(X)
    display = LatentSpaceDisplay.from_estimator(model, X, components=[2, 0])
    [points] = scattered(display.ax_)
    np.testing.assert_allclose(points, model.transform(X)[:, [2, 0]])
    assert display.ax_.get_xlabel() == "pca2"
    for wrong in ([3], [-1], [0.5], [], "all"):
        with pytest.raises(ValueError, match=r"components=.*from 0 to 2"):
            LatentSpaceDisplay.from_estimator(model, X, components=wrong)


def test_pairs_of_codes(iris):
    X, y = iris
    model = PCA(3).fit(X)
    codes = model.transform(X)
    grid = LatentSpaceDisplay.from_estimator(model, X, y).ax_
    assert grid.shape == (2, 2)
    for line, column in ((0, 0), (1, 0), (1, 1)):
        points = np.concatenate(scattered(grid[line, column]))
        np.testing.assert_allclose(points, codes[:, [column, line + 1]])  # y is sorted
    assert not grid[0, 1].axison
    assert legend_of(grid[0, 1]) == ["0", "1", "2"]


def test_the_four_codes_that_vary_most_are_drawn():
    X, _ = load_digits(return_X_y=True)
    X = np.random.default_rng(0).permutation(X[:200], axis=1)
    scaled = StandardScaler(with_std=False).fit(X)
    display = LatentSpaceDisplay.from_estimator(scaled, X)
    expected = np.sort(np.argsort(-X.var(axis=0))[:4])
    np.testing.assert_allclose(display.codes, (X - X.mean(axis=0))[:, expected])


def test_integer_codes_are_moved_within_their_cell():
    X, _ = load_digits(return_X_y=True)
    vq = network(VQVAE, n_components=2, n_codes=4, init=None).fit(X[:200])
    display = LatentSpaceDisplay.from_estimator(vq, X[:200])
    [points] = scattered(display.ax_)
    codes = vq.transform(X[:200])
    np.testing.assert_array_equal(display.codes, codes)
    np.testing.assert_array_equal(np.round(points), codes)
    assert len(np.unique(points, axis=0)) == 200
    [again] = scattered(display.plot().ax_)
    np.testing.assert_array_equal(points, again)


# ------------------------------------------------------------------------------ one code


def test_one_code_is_a_histogram(iris):
    X, _ = iris
    display = LatentSpaceDisplay.from_estimator(PPCA(1).fit(X), X)
    assert sum(bar.get_height() for bar in display.ax_.patches) == len(X)
    assert display.ax_.get_ylabel() == "number of rows"


def test_one_integer_code_is_counted():
    codes = np.array([[0], [2], [2], [5]])
    ax = LatentSpaceDisplay(codes).plot().ax_
    counts = {bar.get_x() + bar.get_width() / 2: bar.get_height() for bar in ax.patches}
    assert counts == {0: 1, 1: 0, 2: 2, 3: 0, 4: 0, 5: 1}


def test_one_code_of_classes_is_a_strip_for_each(iris):
    X, y = iris
    model = PPCA(1).fit(X)
    display = LatentSpaceDisplay.from_estimator(model, X, y, n_std=2.0)
    bars, *strips = display.ax_.collections
    for place, strip in enumerate(strips):
        points = np.asarray(strip.get_offsets())
        np.testing.assert_allclose(points[:, 0], model.transform(X)[y == place, 0])
        assert (np.round(points[:, 1]) == place).all()
    widths = [segment[1, 0] - segment[0, 0] for segment in bars.get_segments()]
    np.testing.assert_allclose(widths, 4 * np.sqrt(model.posterior(X)[1][:, 0, 0]))


def test_one_code_against_numbers(iris):
    X, _ = iris
    model = PCA(1).fit(X)
    y = pd.Series(np.linspace(0, 1, len(X)), name="age")
    display = LatentSpaceDisplay.from_estimator(model, X, y)
    [points] = scattered(display.ax_)
    np.testing.assert_allclose(points, np.column_stack([model.transform(X), y]))
    assert display.ax_.get_ylabel() == "age"


# ----------------------------------------------------------------------------- posteriors


@pytest.mark.parametrize("n_std", [1.0, 2.5])
def test_ellipses_are_contours_of_the_posterior(gappy, n_std):
    model = PPCA(2).fit(gappy)
    means, covariances = model.posterior(gappy)
    assert np.abs(covariances[:, 0, 1]).max() > 0.01
    display = LatentSpaceDisplay.from_estimator(model, gappy, n_std=n_std)
    ellipses = display.ax_.patches
    assert len(ellipses) == len(gappy)
    for ellipse, mean, covariance in zip(ellipses, means, covariances, strict=True):
        axes = sorted([ellipse.width / 2 / n_std, ellipse.height / 2 / n_std])
        np.testing.assert_allclose(np.square(axes), np.linalg.eigvalsh(covariance), rtol=1e-6)
        on_it = outline(ellipse)
        distance = np.einsum("ni,ij,nj->n", on_it - mean, np.linalg.inv(covariance), on_it - mean)
        np.testing.assert_allclose(distance, n_std**2, rtol=1e-2)


def test_ellipses_of_a_vae_are_parallel_to_the_axes(gappy):
    model = network(VAE).fit(gappy)
    display = LatentSpaceDisplay.from_estimator(model, gappy)
    stds = model.posterior(gappy)[1]
    np.testing.assert_allclose(
        np.sqrt(np.diagonal(display.posterior, axis1=1, axis2=2)), stds, rtol=1e-5
    )
    for ellipse, std in zip(display.ax_.patches, stds, strict=True):
        extent = np.ptp(outline(ellipse), axis=0)
        np.testing.assert_allclose(extent, 2 * std, rtol=1e-2)


def test_of_many_rows_some_ellipses_are_drawn():
    X = make_rows(2000, 4, dtype=np.float64)
    display = LatentSpaceDisplay.from_estimator(PPCA(2).fit(X), X)
    centers = np.array([ellipse.get_center() for ellipse in display.ax_.patches])
    assert len(centers) == 80
    # They are spread: each is further from the next than points that are drawn at random.
    chosen = np.random.default_rng(0).choice(2000, 80, replace=False)

    def nearest(points):
        distance = np.linalg.norm(points[:, None] - points[None], axis=2)
        return (distance + np.eye(len(points)) * 1e9).min(axis=1).min()

    assert nearest(centers) > 3 * nearest(display.codes[chosen])
    assert "1 standard deviation of" in display.ax_.get_title(loc="left")


def test_models_without_a_posterior(iris):
    X, _ = iris
    display = LatentSpaceDisplay.from_estimator(PCA(2).fit(X), X)
    assert display.posterior is None
    assert not display.ax_.patches
    with pytest.raises(TypeError, match="estimator=PCA has no posterior"):
        LatentSpaceDisplay.from_estimator(PCA(2).fit(X), X, posterior=True)


# -------------------------------------------------------------------------------- colours

NAMES = np.array(["setosa", "versicolor", "virginica"])


@pytest.mark.parametrize(
    ("target", "names"),
    [
        (lambda y: y, ["0", "1", "2"]),
        (lambda y: NAMES[y], list(NAMES)),
        (lambda y: NAMES[y].tolist(), list(NAMES)),
        (lambda y: pd.Series(NAMES[y]), list(NAMES)),
        (lambda y: pd.Categorical.from_codes(y, NAMES[::-1]), list(NAMES[::-1])),
        (lambda y: pd.Series(pd.Categorical.from_codes(y, NAMES[::-1])), list(NAMES[::-1])),
        (lambda y: pl.Series(NAMES[y]), list(NAMES)),
        (lambda y: pl.Series(NAMES[y], dtype=pl.Enum(NAMES[::-1])), list(NAMES[::-1])),
        (lambda y: y == 1, ["False", "True"]),
        (lambda y: pd.DataFrame({"kind": NAMES[y]}), list(NAMES)),
    ],
)
def test_classes(iris, target, names):
    X, y = iris
    y = target(y)
    ax = LatentSpaceDisplay.from_estimator(PCA(2).fit(X), X, y).ax_
    assert legend_of(ax) == names
    codes = PCA(2).fit_transform(X)
    labels = np.asarray(y).ravel().astype(str)
    for group, name in zip(ax.collections, names, strict=True):
        np.testing.assert_allclose(group.get_offsets(), codes[labels == name])
    colours = {tuple(group.get_facecolor()[0]) for group in ax.collections}
    markers = {group.get_paths()[0].vertices.tobytes() for group in ax.collections}
    assert len(colours) == len(markers) == len(names)


def test_numbers_have_a_colour_bar(iris):
    X, _ = iris
    y = pd.Series(np.linspace(-1, 5, len(X)), name="length")
    display = LatentSpaceDisplay.from_estimator(PCA(2).fit(X), X, y)
    [points] = display.ax_.collections
    np.testing.assert_allclose(points.get_array(), y)
    bar = next(ax for ax in display.figure_.axes if ax is not display.ax_)
    assert bar.get_ylabel() == "length"
    assert bar.get_ylim() == (-1, 5)
    # Integers of many values are numbers.
    display = LatentSpaceDisplay.from_estimator(PCA(2).fit(X), X, np.arange(len(X)))
    assert display.ax_.get_legend() is None


def test_missing_targets_are_grey(iris):
    X, y = iris
    numbers = np.linspace(0, 1, len(X))
    numbers[:5] = np.nan
    ax = LatentSpaceDisplay.from_estimator(PCA(2).fit(X), X, numbers).ax_
    grey, coloured = ax.collections
    assert (len(grey.get_offsets()), len(coloured.get_offsets())) == (5, len(X) - 5)
    assert mpl.colors.to_hex(grey.get_edgecolor()[0]) == "#999999"
    labels = NAMES[y].astype(object)
    labels[7] = None
    ax = LatentSpaceDisplay.from_estimator(PCA(2).fit(X), X, labels).ax_
    assert legend_of(ax) == [*NAMES, "other or missing"]
    assert len(ax.collections[-1].get_offsets()) == 1


def test_rare_classes_of_many_are_grey():
    rng = np.random.default_rng(0)
    names = [f"class {place:02d}" for place in range(30)]
    y = np.array(names)[np.concatenate([np.arange(30), np.arange(20), np.arange(20)])]
    ax = LatentSpaceDisplay(rng.normal(size=(70, 2)), y).plot().ax_
    assert legend_of(ax) == [*names[:20], "other or missing"]
    assert len(ax.collections[-1].get_offsets()) == 10


def test_ten_classes_are_named_at_their_medians():
    X, y = load_digits(return_X_y=True)
    ax = LatentSpaceDisplay.from_estimator(PCA(2).fit(X), X, y).ax_
    codes = PCA(2).fit(X).transform(X)
    for text in ax.texts:
        median = np.median(codes[y == int(text.get_text())], axis=0)
        np.testing.assert_allclose(text.get_position(), median)
    assert len(ax.texts) == 10
    colours = [mpl.colors.to_hex(group.get_facecolor()[0]) for group in ax.collections]
    assert len(set(colours)) == 10


@pytest.mark.parametrize(
    ("arguments", "error", "message"),
    [
        ({"posterior": "all"}, ValueError, "posterior='all' must be True, False or 'auto'"),
        ({"n_std": 0}, ValueError, "n_std=0 must be a positive number"),
        ({"n_std": "one"}, ValueError, "n_std='one'"),
        ({"y": [0, 1]}, ValueError, r"y has shape \(2,\).*150 rows"),
        ({"y": pd.DataFrame(np.zeros((150, 2)))}, ValueError, "y has 2 columns"),
    ],
)
def test_wrong_arguments(iris, arguments, error, message):
    X, _ = iris
    with pytest.raises(error, match=message):
        LatentSpaceDisplay.from_estimator(PPCA(2).fit(X), X, **arguments)


def test_wrong_arrays():
    codes = stats.norm.rvs(size=(5, 2), random_state=0)
    with pytest.raises(ValueError, match="codes has shape"):
        LatentSpaceDisplay(codes[0]).plot()
    with pytest.raises(ValueError, match="posterior has shape"):
        LatentSpaceDisplay(codes, posterior=codes).plot()


@pytest.mark.parametrize(
    "y",
    [
        pd.Series([0, 1, None] * 50, dtype="Int64"),
        pl.Series([0, 1, None] * 50),
        pd.Series(["0", "1", None] * 50, dtype="string"),
        pd.Series([False, True, None] * 50, dtype="boolean"),
        np.ma.masked_array([0, 1, 5] * 50, mask=[0, 0, 1] * 50),
        np.array([0, 1, None] * 50),
    ],
    ids=["Int64", "polars", "string", "boolean", "masked", "objects"],
)
def test_missing_classes_of_all_containers_are_grey(y):
    codes = np.random.default_rng(0).normal(size=(150, 2))
    ax = LatentSpaceDisplay(codes, y).plot().ax_
    *names, missing = legend_of(ax)
    assert [name.replace("False", "0").replace("True", "1") for name in names] == ["0", "1"]
    assert missing == "other or missing"
    np.testing.assert_array_equal(ax.collections[-1].get_offsets(), codes[2::3])


def test_numbers_in_an_array_of_objects_are_numbers():
    y = [0.5, None, *range(28)]
    ax = LatentSpaceDisplay(np.random.default_rng(0).normal(size=(30, 2)), y).plot().ax_
    assert ax.get_legend() is None
    np.testing.assert_array_equal(ax.collections[1].get_array(), [0.5, *range(28)])


def test_wrong_names_and_codes():
    codes = np.zeros((4, 2))
    with pytest.raises(ValueError, match=r"code_names=\['a'\] must be a list of 2 names"):
        LatentSpaceDisplay(codes, code_names=["a"]).plot()
    assert LatentSpaceDisplay(codes, code_names=np.array(["a", "b"])).plot().ax_.get_xlabel() == "a"
    with pytest.raises(ValueError, match="codes has values that are NaN or infinite"):
        LatentSpaceDisplay(np.full((4, 1), np.nan)).plot()


@pytest.mark.filterwarnings("error:.*tight_layout")
def test_colour_bars_suit_tight_layout(iris):
    X, _ = iris
    figure, axes = mpl.pyplot.subplots(1, 2)
    LatentSpaceDisplay.from_estimator(PCA(2).fit(X), X, X[:, 0], ax=axes[1])
    figure.tight_layout()


def test_all_classes_are_seen_in_a_dark_style():
    codes = np.random.default_rng(0).normal(size=(100, 2))
    with mpl.pyplot.style.context("dark_background"):
        ax = LatentSpaceDisplay(codes, np.arange(100) % 10).plot().ax_
    for points in ax.collections:
        assert points.get_facecolor()[0, :3].max() > 0.3
    assert all(text.get_path_effects()[0]._gc["foreground"][:3] == (0, 0, 0) for text in ax.texts)
