"""What all displays have in common; they are discovered, never listed."""

import inspect
import re
import sys

import matplotlib as mpl
import matplotlib.pyplot as plt
import numpy as np
import pytest
from matplotlib.axes import Axes
from matplotlib.figure import FigureBase
from sklearn.datasets import load_digits

import skae.plotting
from helpers import make_rows
from skae import PPCA, VAE, VQVAE, CountMixtureAE, GridSearchCV

DISPLAYS = [getattr(skae.plotting, name) for name in skae.plotting.__all__]


def arguments(display):
    """A fitted model and rows that a display takes."""
    name = display.__name__
    rng = np.random.default_rng(0)
    if name == "IntensityDisplay":
        counts = rng.uniform(0, 6, size=(80, 2))
        return CountMixtureAE(2, image_shape=(6, 6), random_state=0).fit(counts), counts
    if name == "LatentSizeDisplay":
        X = make_rows(dtype=np.float64)
        return (GridSearchCV(PPCA(), {"n_components": [1, 2]}, cv=3).fit(X),)
    X, _ = load_digits(return_X_y=True)
    if name == "LearningCurveDisplay":
        return (VAE(2, hidden_layer_sizes=(8,), max_iter=2, random_state=0).fit(X[:60]),)
    if name == "CodebookDisplay":
        vq = VQVAE(2, n_codes=4, hidden_layer_sizes=(8,), max_iter=2, random_state=0)
        return vq.fit(X[:60]), X[:60]
    return PPCA(3).fit(X[:200]), X[:4]


@pytest.fixture(scope="module")
def fitted():
    return {display: arguments(display) for display in DISPLAYS}


def all_axes(display):
    return np.atleast_1d(np.asarray(display.ax_, dtype=object)).ravel()


@pytest.mark.parametrize("display", DISPLAYS)
def test_has_the_convention_of_scikit_learn(display):
    assert display.__name__.endswith("Display")
    own = inspect.signature(display.from_estimator).parameters
    assert next(iter(own)) == "estimator"
    assert own["ax"].default is None
    for name, parameter in own.items():
        positional = name in ("estimator", "X", "y") and not parameter.kind.name.startswith("KEY")
        assert positional or parameter.kind is parameter.KEYWORD_ONLY, name
    plot = inspect.signature(display.plot).parameters
    assert list(plot)[:2] == ["self", "ax"]
    assert plot["ax"].default is None


def sections(documented):
    text = inspect.cleandoc(documented.__doc__)
    return set(re.findall(r"^(\w[\w ]*)\n-{3,}$", text, re.MULTILINE))


def entries(documented):
    text = inspect.cleandoc(documented.__doc__)
    names = re.findall(r"^([\w, ]+) :", text, re.MULTILINE)
    return {name for line in names for name in re.split(r",\s*", line)}


@pytest.mark.parametrize("display", DISPLAYS)
def test_docstrings_have_their_sections(display):
    assert {"Parameters", "Attributes", "Examples"} <= sections(display)
    assert {"Parameters", "Returns", "Raises"} <= sections(display.from_estimator)
    assert {"Parameters", "Returns"} <= sections(display.plot)
    assert {"ax_", "figure_", *inspect.signature(display).parameters} <= entries(display)
    parameters = set(inspect.signature(display.from_estimator).parameters)
    assert parameters <= entries(display.from_estimator)


@pytest.mark.parametrize("display", DISPLAYS)
def test_draws_a_figure_of_its_own(display, fitted):
    current, ax = plt.subplots()  # pyplot's current axes, which a display leaves alone
    drawn = display.from_estimator(*fitted[display])
    assert isinstance(drawn, display)
    assert isinstance(drawn.figure_, FigureBase)
    assert drawn.figure_ is not current
    assert not ax.has_data()
    assert all(isinstance(ax, Axes) for ax in all_axes(drawn))
    assert all(ax.figure is drawn.figure_ for ax in all_axes(drawn))
    drawn.figure_.canvas.draw()


@pytest.mark.parametrize("display", DISPLAYS)
def test_plot_returns_itself_and_draws_again(display, fitted):
    drawn = display.from_estimator(*fitted[display])
    before = drawn.figure_
    assert drawn.plot() is drawn
    assert drawn.figure_ is not before
    assert len(drawn.figure_.axes) == len(before.axes)


@pytest.mark.parametrize("display", DISPLAYS)
@pytest.mark.parametrize("by_hand", [False, True])
def test_draws_in_the_place_of_axes_that_are_given(display, fitted, by_hand):
    if by_hand:
        figure = plt.figure()
        left, right = (figure.add_axes((x, 0.1, 0.35, 0.8)) for x in (0.1, 0.6))
    else:
        figure, (left, right) = plt.subplots(1, 2, layout="constrained")
    drawn = display.from_estimator(*fitted[display], ax=right)
    n_axes, n_figures = len(figure.axes), len(plt.get_fignums())
    assert drawn.figure_ is figure
    assert not left.has_data()
    assert drawn.plot(ax=right) is drawn  # in place of what was drawn there before
    figure.canvas.draw()
    assert len(figure.axes) == n_axes
    assert len(plt.get_fignums()) == n_figures
    for ax in all_axes(drawn):
        assert ax.get_position().x0 > left.get_position().x1


@pytest.mark.parametrize("display", DISPLAYS)
def test_axes_of_another_type(display, fitted):
    with pytest.raises(TypeError, match="ax must be matplotlib Axes, got"):
        display.from_estimator(*fitted[display], ax=plt.figure())


@pytest.mark.parametrize("display", DISPLAYS)
def test_without_matplotlib(display, fitted, monkeypatch):
    drawn = display.from_estimator(*fitted[display])
    monkeypatch.setitem(sys.modules, "matplotlib", None)
    message = rf'{display.__name__} needs matplotlib.*pip install "skae\[plots\]"'
    with pytest.raises(ImportError, match=message):
        display.from_estimator(*fitted[display])
    with pytest.raises(ImportError, match=message):
        drawn.plot()


@pytest.mark.parametrize("display", DISPLAYS)
def test_what_is_not_fitted(display, fitted):
    from sklearn.exceptions import NotFittedError

    model, *rows = fitted[display]
    with pytest.raises((NotFittedError, TypeError)):
        display.from_estimator(type(model)(**model.get_params(deep=False)), *rows)


@pytest.mark.parametrize("display", DISPLAYS)
def test_leaves_no_figure_where_drawing_fails(display, fitted, monkeypatch):
    def fail(*args, **kwargs):
        raise RuntimeError("broken")

    figures = plt.get_fignums()
    for method in ("set_xticks", "set_ylabel", "set_xlabel", "set_title", "plot", "imshow"):
        monkeypatch.setattr(Axes, method, fail)
    with pytest.raises(RuntimeError, match="broken"):
        display.from_estimator(*fitted[display])
    assert plt.get_fignums() == figures


def colours_of(figure):
    """Colours of all that is drawn of rows, without the text and the frames."""
    for ax in figure.axes:
        for artist in [*ax.lines, *ax.collections, *ax.patches]:
            for name in ("get_color", "get_facecolor", "get_edgecolor"):
                colour = getattr(artist, name, list)()
                yield from mpl.colors.to_rgba_array(colour) if len(colour) else []


@pytest.mark.parametrize("display", DISPLAYS)
def test_nothing_is_black_on_black(display, fitted):
    with plt.style.context("dark_background"):
        drawn = display.from_estimator(*fitted[display])
    for colour in colours_of(drawn.figure_):
        assert colour[3] == 0 or colour[:3].max() > 0.3
