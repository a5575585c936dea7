import matplotlib.pyplot as plt
import numpy as np
import pandas as pd
import pytest
from sklearn.model_selection import GridSearchCV
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import FunctionTransformer

from skae import PPCA, CountMixtureAE, counts_to_image
from skae import GridSearchCV as SharingSearch
from skae.plotting import IntensityDisplay

SHAPE = (6, 9)
COUNTS = np.random.default_rng(0).beta(2, 3, (400, 2)) * SHAPE


def histogram(counts, shape):
    return counts_to_image(counts, shape)


@pytest.mark.parametrize("kind", ["full", "cell"])
def test_counts_beside_the_intensity(kind):
    model = CountMixtureAE(4, image_shape=SHAPE, covariance_type=kind).fit(COUNTS)
    display = IntensityDisplay.from_estimator(model, COUNTS[:300])
    left, right = display.ax_.ravel()
    np.testing.assert_array_equal(left.images[0].get_array(), histogram(COUNTS[:300], SHAPE))
    np.testing.assert_allclose(right.images[0].get_array(), 300 * model.intensity())
    # The middle of pixel (i, j) is at (j + 0.5, i + 0.5) of the axes, whose origin is at the top.
    assert left.get_xlim() == (0, 9)
    assert left.get_ylim() == (6, 0)
    assert (left.get_title(), right.get_title()) == ("counts", "intensity")
    bars = [ax.get_ylabel() for ax in display.figure_.axes if ax not in (left, right)]
    assert bars == ["counts per pixel"] * 2


def test_a_bright_place_is_drawn_where_it_is():
    counts = np.full((50, 2), (1.5, 7.5)) + np.random.default_rng(0).uniform(-0.4, 0.4, (50, 2))
    model = CountMixtureAE(1, image_shape=SHAPE).fit(counts)
    display = IntensityDisplay.from_estimator(model, counts)
    for ax in display.ax_.ravel():
        assert (
            ax.images[0].get_cursor_data(_event(ax, x=7.5, y=1.5)) == ax.images[0].get_array()[1, 7]
        )
        assert np.argmax(ax.images[0].get_array()) == 1 * 9 + 7


def _event(ax, x, y):
    from matplotlib.backend_bases import MouseEvent

    return MouseEvent("motion_notify_event", ax.figure.canvas, *ax.transData.transform((x, y)))


def test_the_intensity_alone_is_scaled_to_the_training_counts():
    model = CountMixtureAE(4, image_shape=SHAPE).fit(COUNTS)
    display = IntensityDisplay.from_estimator(model, shape=(3, 4))
    assert display.counts is None
    (image,) = display.ax_.images
    np.testing.assert_allclose(image.get_array(), 400 * model.intensity((3, 4)))


def test_counts_along_a_line():
    counts = COUNTS[:, :1]
    model = CountMixtureAE(3, image_shape=(6,)).fit(counts)
    display = IntensityDisplay.from_estimator(model, counts)
    bars, curve = display.ax_.patches
    np.testing.assert_array_equal(bars.get_data()[0], histogram(counts, (6,)))
    np.testing.assert_allclose(curve.get_data()[0], 400 * model.intensity())
    assert display.ax_.get_ylabel() == "counts per pixel"
    assert len(IntensityDisplay.from_estimator(model).ax_.patches) == 1


@pytest.mark.parametrize("rows", [COUNTS, pd.DataFrame(COUNTS, columns=["row", "column"])])
@pytest.mark.parametrize(
    "wrap",
    [
        lambda m: make_pipeline(FunctionTransformer(), m),
        lambda m: GridSearchCV(m, {"n_components": [2, 3]}, cv=2),
        lambda m: SharingSearch(m, {"n_components": [2, 3]}, cv=2),
    ],
    ids=["pipeline", "search", "sharing_search"],
)
def test_the_model_inside(wrap, rows):
    estimator = wrap(CountMixtureAE(image_shape=SHAPE)).fit(rows)
    display = IntensityDisplay.from_estimator(estimator, rows)
    np.testing.assert_array_equal(display.counts, histogram(COUNTS, SHAPE))


def test_counts_after_the_steps_before_the_model():
    halved = make_pipeline(
        FunctionTransformer(lambda X: X / 2), CountMixtureAE(2, image_shape=(3, 5))
    ).fit(COUNTS)
    display = IntensityDisplay.from_estimator(halved, COUNTS)
    np.testing.assert_array_equal(display.counts, histogram(COUNTS / 2, (3, 5)))


def test_few_bright_pixels_do_not_hide_the_others():
    image = np.ones((40, 40))
    image[3, 3] = 1000.0
    display = IntensityDisplay(image).plot()
    assert display.ax_.images[0].get_clim() == (0.0, 1.0)
    assert display.ax_.images[0].colorbar.extend == "max"
    dark = IntensityDisplay(np.zeros((3, 3))).plot()
    assert dark.ax_.images[0].get_clim() == (0.0, 1.0)
    even = IntensityDisplay(np.full((3, 3), 4.0)).plot()
    assert even.ax_.images[0].colorbar.extend == "neither"


def test_given_axes_and_drawing_twice():
    figure, (left, right) = plt.subplots(1, 2)
    display = IntensityDisplay(np.ones((2, 3)), np.ones((2, 3))).plot(ax=right)
    assert display.figure_ is figure
    assert left.axison
    figure.canvas.draw()
    assert display.plot().figure_ is not figure
    assert IntensityDisplay(np.ones((2, 3))).plot(ax=left).ax_ is left


def test_errors():
    cube = CountMixtureAE(2, image_shape=(2, 2, 2)).fit(np.random.default_rng(0).random((50, 3)))
    with pytest.raises(ValueError, match=r"counts of 1 or 2 features; .* was fitted to 3"):
        IntensityDisplay.from_estimator(cube)
    plain = CountMixtureAE(2).fit(COUNTS)
    with pytest.raises(ValueError, match="shape=None is only allowed if image_shape is set"):
        IntensityDisplay.from_estimator(plain)
    with pytest.raises(ValueError, match=r"shape=\(3,\) has 1 lengths; expected 2"):
        IntensityDisplay.from_estimator(plain, shape=(3,))
    flat = CountMixtureAE(2, image_shape=SHAPE).fit(COUNTS)
    with pytest.raises(ValueError, match=r"X has 1 counts outside of the pixels.*\[7\.0, 1\.0\]"):
        IntensityDisplay.from_estimator(flat, [[1.0, 1.0], [7.0, 1.0]])
    with pytest.raises(ValueError, match=r"X has shape \(1, 1\); expected \(n_counts, 2\)"):
        IntensityDisplay.from_estimator(flat, [[1.0]])
    with pytest.raises(TypeError, match="estimator=PPCA has no intensity"):
        IntensityDisplay.from_estimator(PPCA(1).fit(COUNTS))
    with pytest.raises(ValueError, match=r"counts has shape .* they must be the same"):
        IntensityDisplay(np.ones((2, 2)), np.ones((3, 2))).plot()
    with pytest.raises(ValueError, match="intensity has shape"):
        IntensityDisplay(np.ones((2, 2, 2))).plot()


def test_pixels_of_unknown_intensity_are_left_out():
    intensity = np.arange(9.0).reshape(3, 3)
    intensity[1, 1] = np.nan
    display = IntensityDisplay(intensity, np.ones((3, 3))).plot()
    drawn = np.ravel(display.ax_)[-1].images[0]
    assert np.isnan(np.ma.filled(drawn.get_array(), np.nan)[1, 1])
    assert drawn.get_clim() == (0, 8)


@pytest.mark.parametrize("value", [-1.0, np.nan, np.inf])
def test_impossible_values(value):
    with pytest.raises(ValueError, match="intensity must hold finite numbers of 0 or more"):
        IntensityDisplay(np.full((3, 3), value)).plot()
    with pytest.raises(ValueError, match="counts must hold finite numbers of 0 or more"):
        IntensityDisplay(np.ones((3, 3)), np.full((3, 3), value)).plot()
