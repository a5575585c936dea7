import warnings

import matplotlib.pyplot as plt
import numpy as np
import pandas as pd
import pytest
from scipy import stats
from sklearn.base import clone
from sklearn.cluster import KMeans
from sklearn.decomposition import PCA
from sklearn.exceptions import NotFittedError
from sklearn.experimental import enable_halving_search_cv  # noqa: F401
from sklearn.linear_model import LogisticRegression
from sklearn.model_selection import (
    GridSearchCV,
    GroupKFold,
    HalvingGridSearchCV,
    KFold,
    RandomizedSearchCV,
    ShuffleSplit,
    cross_val_score,
)
from sklearn.pipeline import Pipeline, make_pipeline
from sklearn.preprocessing import StandardScaler

from helpers import low_rank_rows, network
from skae import PPCA, VAE, Autoencoder, LinearAE
from skae import GridSearchCV as SharingSearch
from skae.metrics import reconstruction_error
from skae.plotting import LatentSizeDisplay

X = low_rank_rows()
FRAME = pd.DataFrame(X, columns=list("abcdef"))
Y = X[:, 0] > X[:, 0].mean()
SIZES = [1, 2, 3, 5]


def curve(display, name):
    (line,) = [line for line in display.ax_.lines if line.get_label() == name]
    return line.get_xydata().T


def names(display):
    return [line.get_label() for line in display.ax_.lines]


def ppca_search(search=GridSearchCV, **params):
    return search(PPCA(), {"n_components": SIZES}, **{"cv": 4, **params})


@pytest.mark.parametrize("rows", [X, FRAME], ids=["array", "frame"])
@pytest.mark.parametrize("search", [GridSearchCV, SharingSearch])
def test_means_errors_and_the_chosen_size(search, rows):
    fitted = ppca_search(search).fit(rows)
    display = LatentSizeDisplay.from_estimator(fitted)
    sizes, means = curve(display, "PPCA")
    np.testing.assert_array_equal(sizes, SIZES)
    np.testing.assert_allclose(means, fitted.cv_results_["mean_test_score"])
    folds = np.array([cross_val_score(PPCA(size), X, cv=4) for size in SIZES])
    np.testing.assert_allclose(display.curves["PPCA"][1], folds)
    (band,) = display.ax_.collections
    error = stats.sem(folds, axis=1)
    (path,) = band.get_paths()
    for size, low, high in zip(SIZES, means - error, means + error, strict=True):
        ends = path.vertices[path.vertices[:, 0] == size, 1]
        np.testing.assert_allclose([ends.min(), ends.max()], [low, high])
    chosen = fitted.best_params_["n_components"]
    assert display.chosen == ("PPCA", chosen)
    (place,) = curve(display, f"chosen: {chosen} codes").T
    np.testing.assert_allclose(place, [chosen, fitted.best_score_])
    assert display.ax_.get_ylabel() == "mean held-out log-likelihood\n(nats per row)"


@pytest.mark.parametrize("rows", [X, FRAME], ids=["array", "frame"])
def test_pca_is_scored_on_the_same_folds(rows):
    cv = KFold(3, shuffle=True, random_state=3)
    pipeline = Pipeline([("scale", StandardScaler()), ("reduce", PPCA())])
    search = SharingSearch(pipeline, {"reduce__n_components": SIZES}, cv=cv).fit(rows)
    display = LatentSizeDisplay.from_estimator(search, rows)
    sizes, means = curve(display, "PCA")
    np.testing.assert_array_equal(sizes, SIZES)
    expected = [
        cross_val_score(make_pipeline(StandardScaler(), PCA(size)), X, cv=cv) for size in SIZES
    ]
    np.testing.assert_allclose(display.pca[1], expected)
    np.testing.assert_allclose(means, np.mean(expected, axis=1))
    assert "PCA" not in names(LatentSizeDisplay.from_estimator(search, rows, pca=False))


def test_pca_beside_a_network():
    search = GridSearchCV(network(VAE), {"n_components": [1, 2]}, cv=2).fit(X)
    display = LatentSizeDisplay.from_estimator(search, X)
    expected = [cross_val_score(PCA(size), X, cv=2).mean() for size in (1, 2)]
    np.testing.assert_allclose(curve(display, "PCA")[1], expected)
    label = "mean held-out lower bound on the\nlog-likelihood (nats per row)"
    assert display.ax_.get_ylabel() == label


def test_sizes_that_pca_does_not_have_are_left_out():
    search = GridSearchCV(network(VAE), {"n_components": [2, 6, 9]}, cv=2).fit(X)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        display = LatentSizeDisplay.from_estimator(search, X)
    np.testing.assert_array_equal(curve(display, "PCA")[0], [2, 6])
    np.testing.assert_array_equal(curve(display, "VAE")[0], [2, 6, 9])


def test_pca_before_a_classifier():
    pipeline = Pipeline([("reduce", PPCA()), ("classify", LogisticRegression())])
    grid = {"reduce__n_components": SIZES, "classify__C": [0.01, 10.0]}
    search = GridSearchCV(pipeline, grid, cv=3).fit(X, Y)
    display = LatentSizeDisplay.from_estimator(search, X, Y)
    best = LogisticRegression(C=search.best_params_["classify__C"])
    expected = [cross_val_score(make_pipeline(PCA(k), best), X, Y, cv=3).mean() for k in SIZES]
    np.testing.assert_allclose(curve(display, "PCA")[1], expected)
    assert display.ax_.get_ylabel() == "mean held-out accuracy"
    for C, name in ((0.01, "C=0.01"), (10.0, "C=10")):
        alone = [
            cross_val_score(make_pipeline(PPCA(k), LogisticRegression(C=C)), X, Y, cv=3).mean()
            for k in SIZES
        ]
        np.testing.assert_allclose(curve(display, name)[1], alone)


def test_a_search_over_models_names_their_classes():
    pipeline = Pipeline([("scale", StandardScaler()), ("reduce", PPCA())])
    grid = {"reduce": [LinearAE(), PPCA(), PPCA(solver="em")], "reduce__n_components": [2, 1]}
    search = GridSearchCV(pipeline, grid, cv=2).fit(X)
    display = LatentSizeDisplay.from_estimator(search, X)
    assert names(display)[:4] == ["LinearAE", "PPCA()", "PPCA(solver='em')", "PCA"]
    for model, name in ((LinearAE, "LinearAE"), (PPCA, "PPCA()"), (PCA, "PCA")):
        expected = [
            cross_val_score(make_pipeline(StandardScaler(), model(k)), X, cv=2) for k in (1, 2)
        ]
        np.testing.assert_allclose(curve(display, name), [[1, 2], np.mean(expected, axis=1)])
    grid["reduce"] = [PCA(), PPCA()]
    display = LatentSizeDisplay.from_estimator(GridSearchCV(pipeline, grid, cv=2).fit(X), X)
    assert names(display)[:2] == ["PCA", "PPCA"]
    assert display.pca is None


def test_the_best_six_of_many_curves():
    grid = {"n_components": [1, 2], "noise_variance": [0.01, 0.1, 0.3, 1.0, 3.0, 10.0, 100.0]}
    search = GridSearchCV(network(Autoencoder, max_iter=1), grid, cv=2)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        search.fit(X)
    display = LatentSizeDisplay.from_estimator(search, pca=False)
    results = search.cv_results_
    highest = {
        value: max(
            score
            for score, params in zip(results["mean_test_score"], results["params"], strict=True)
            if params["noise_variance"] == value
        )
        for value in grid["noise_variance"]
    }
    worst = min(highest, key=highest.get)
    left = [f"noise_variance={value:g}" for value in grid["noise_variance"] if value != worst]
    assert list(display.curves) == left
    assert display.ax_.get_legend().get_title().get_text() == "6 best of 7"
    looks = {(line.get_linestyle(), line.get_marker()) for line in display.ax_.lines[:6]}
    assert len(looks) == 6  # not told apart by colour alone


@pytest.mark.parametrize(
    ("search", "why"),
    [
        (ppca_search(cv=KFold(3, shuffle=True)), "the folds of the search cannot be made again"),
        (ppca_search(cv=ShuffleSplit(2)), "the folds of the search cannot be made again"),
        (ppca_search(cv=iter(KFold(3).split(X))), "the folds of the search cannot be made again"),
        (ppca_search(scoring=lambda model, X, y=None: 1.0), "candidates were ranked by scoring"),
        (
            GridSearchCV(network(Autoencoder), {"n_components": [1, 2]}, cv=2),
            "scores are no log-likelihoods of rows",
        ),
        (
            GridSearchCV(network(VAE, likelihood="poisson"), {"n_components": [1, 2]}, cv=2),
            "scores are probabilities, PCA's are densities",
        ),
    ],
)
def test_why_there_is_no_pca(search, why):
    rows = np.floor(np.abs(X))
    display = LatentSizeDisplay.from_estimator(search.fit(rows), rows)
    assert display.pca is None
    assert display.ax_.get_xlabel() == f"number of codes\n(no PCA: {why})"


def test_no_pca_where_another_model_is_scored():
    pipeline = Pipeline([("first", PPCA(4)), ("second", PPCA(1))])
    search = GridSearchCV(pipeline, {"first__n_components": [2, 3]}, cv=2)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        search.fit(X)
    display = LatentSizeDisplay.from_estimator(search, X)
    assert "(no PCA: scores are not those of the model itself)" in display.ax_.get_xlabel()


def test_no_pca_of_missing_values_or_groups():
    gaps = low_rank_rows(gaps=0.05)
    display = LatentSizeDisplay.from_estimator(ppca_search(cv=2).fit(gaps), gaps)
    assert "(no PCA: it cannot be fitted to these rows)" in display.ax_.get_xlabel()
    search = ppca_search(cv=GroupKFold(2)).fit(X, groups=np.arange(len(X)) % 7)
    display = LatentSizeDisplay.from_estimator(search, X)
    assert "folds of the search cannot" in display.ax_.get_xlabel()


def test_searches_of_other_kinds():
    drawn = RandomizedSearchCV(PPCA(), {"n_components": SIZES}, n_iter=3, cv=2, random_state=0)
    sizes, _ = curve(LatentSizeDisplay.from_estimator(drawn.fit(X)), "PPCA")
    tried = sorted(params["n_components"] for params in drawn.cv_results_["params"])
    np.testing.assert_array_equal(sizes, tried)
    scored = ppca_search(scoring={"own": _own, "none": _zero}, refit="own").fit(X)
    display = LatentSizeDisplay.from_estimator(scored, X)
    np.testing.assert_allclose(curve(display, "PPCA")[1], scored.cv_results_["mean_test_own"])
    assert display.ax_.get_ylabel() == "mean held-out own"
    unfit = ppca_search(refit=False).fit(X)
    display = LatentSizeDisplay.from_estimator(unfit, X)
    assert display.chosen == ("PPCA", unfit.best_params_["n_components"])
    assert "PCA" in names(display)
    one_fold = ppca_search(cv=ShuffleSplit(1, random_state=0)).fit(X)
    assert not LatentSizeDisplay.from_estimator(one_fold).ax_.collections


def _own(model, X, y=None):
    return model.score(X)


def _zero(model, X, y=None):
    return 0.0


@pytest.fixture(scope="module")
def ordered():
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        return network(Autoencoder, n_components=4, latent_growth="nested").fit(X)


@pytest.mark.parametrize("rows", [X, FRAME], ids=["array", "frame"])
def test_a_reconstruction_path_beside_pca(ordered, rows):
    if rows is FRAME:
        ordered = clone(ordered).fit(rows)
    display = LatentSizeDisplay.from_estimator(ordered, rows)
    np.testing.assert_array_equal(curve(display, "Autoencoder")[0], [1, 2, 3, 4])
    errors = [reconstruction_error(X, ordered.truncate(k).reconstruct(rows)) for k in (1, 2, 3, 4)]
    np.testing.assert_allclose(curve(display, "Autoencoder")[1], errors, rtol=1e-4)
    pca = [
        reconstruction_error(X, p.inverse_transform(p.transform(X)))
        for p in (PCA(k).fit(X) for k in (1, 2, 3, 4))
    ]
    np.testing.assert_allclose(curve(display, "PCA"), [[1, 2, 3, 4], pca])
    assert "PCA" not in names(LatentSizeDisplay.from_estimator(ordered, rows, pca=False))


def test_a_reconstruction_path_in_a_pipeline():
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        model = network(Autoencoder, n_components=2, latent_growth="nested")
        pipeline = make_pipeline(StandardScaler(), model).fit(X)
    display = LatentSizeDisplay.from_estimator(pipeline, X)
    scaled = StandardScaler().fit_transform(X)
    expected = pipeline[-1].reconstruction_path(scaled)
    np.testing.assert_allclose(curve(display, "Autoencoder")[1], expected)
    pca = PCA(2).fit(scaled)
    left = reconstruction_error(scaled, pca.inverse_transform(pca.transform(scaled)))
    np.testing.assert_allclose(curve(display, "PCA")[1][-1], left)


def test_ticks_are_sizes_and_the_axis_is_logarithmic_beyond_a_decade():
    few = LatentSizeDisplay({"a": ([2, 4, 8], np.zeros((3, 2)))}).plot()
    assert few.ax_.get_xscale() == "linear"
    np.testing.assert_array_equal(few.ax_.get_xticks(), [2, 4, 8])
    sizes = np.arange(1, 101)
    many = LatentSizeDisplay({"a": (sizes, np.zeros((100, 1)))}).plot()
    assert many.ax_.get_xscale() == "log"
    ticks = many.ax_.get_xticks()
    assert set(ticks) <= set(sizes)
    assert (ticks[0], ticks[-1]) == (1, 100)
    assert len(ticks) < 16
    one = LatentSizeDisplay({"a": ([3], [[1.0, 2.0]])}, pca=([3], [[0.0, 1.0]])).plot()
    np.testing.assert_array_equal(one.ax_.get_xticks(), [3])
    one.figure_.canvas.draw()


def test_given_axes_and_drawing_twice():
    figure, (left, right) = plt.subplots(1, 2)
    display = LatentSizeDisplay.from_estimator(ppca_search().fit(X), X, ax=right)
    assert display.ax_ is right
    assert not left.lines
    assert display.plot().figure_ is not figure


def test_which_parameter_is_the_size():
    pipeline = Pipeline([("first", PPCA(4)), ("second", PPCA(1))])
    grid = {"first__n_components": [3, 4], "second__n_components": [1, 2]}
    search = GridSearchCV(pipeline, grid, cv=2).fit(X)
    with pytest.raises(ValueError, match=r"param=None, but the search has .*name one of them"):
        LatentSizeDisplay.from_estimator(search)
    display = LatentSizeDisplay.from_estimator(search, param="second__n_components")
    assert list(display.curves) == ["n_components=3", "n_components=4"]
    with pytest.raises(ValueError, match="param='third' must be a searched parameter"):
        LatentSizeDisplay.from_estimator(search, param="third")
    clusters = GridSearchCV(KMeans(n_init=1), {"n_clusters": [2, 3]}, cv=2).fit(X)
    with pytest.raises(ValueError, match=r"No searched parameter ends in n_components; .*clusters"):
        LatentSizeDisplay.from_estimator(clusters)
    display = LatentSizeDisplay.from_estimator(clusters, X, param="n_clusters")
    assert list(display.curves) == ["KMeans"]
    assert "(no PCA: PCA has no n_clusters)" in display.ax_.get_xlabel()


def test_errors(ordered):
    with pytest.raises(NotFittedError, match="GridSearchCV instance is not fitted"):
        LatentSizeDisplay.from_estimator(ppca_search())
    with pytest.raises(TypeError, match="reconstruction_path; estimator=PPCA is neither"):
        LatentSizeDisplay.from_estimator(PPCA(2).fit(X), X)
    with pytest.raises(ValueError, match="X=None"):
        LatentSizeDisplay.from_estimator(ordered)
    with pytest.raises(ValueError, match="param='n_components' names a parameter of a search"):
        LatentSizeDisplay.from_estimator(ordered, X, param="n_components")
    shares = GridSearchCV(PPCA(), {"n_components": [0.5, 0.9]}, cv=2).fit(X)
    with pytest.raises(ValueError, match=r"tried n_components=0\.5; only whole numbers"):
        LatentSizeDisplay.from_estimator(shares)
    halving = HalvingGridSearchCV(PPCA(), {"n_components": SIZES}, cv=2, random_state=0).fit(X)
    with pytest.raises(TypeError, match="scored its candidates on different numbers of rows"):
        LatentSizeDisplay.from_estimator(halving)
    several = ppca_search(scoring={"own": _own, "none": _zero}, refit=False).fit(X)
    with pytest.raises(ValueError, match=r"several scores \(own, none\) and refit=False"):
        LatentSizeDisplay.from_estimator(several)
    with pytest.raises(ValueError, match=r"The curve a has sizes .* expected"):
        LatentSizeDisplay({"a": ([1, 2], [1.0, 2.0])}).plot()
    with pytest.raises(ValueError, match="curves is empty"):
        LatentSizeDisplay({}).plot()
    with pytest.raises(ValueError, match=r"chosen=.* must be the name of a curve"):
        LatentSizeDisplay({"a": ([1], [[1.0]])}, chosen=("a", 4)).plot()
