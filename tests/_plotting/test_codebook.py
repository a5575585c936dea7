import matplotlib.pyplot as plt
import numpy as np
import pandas as pd
import pytest
from scipy.stats import entropy
from sklearn.model_selection import GridSearchCV
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler

from helpers import make_rows, network
from skae import PPCA, VQVAE
from skae import GridSearchCV as SharingSearch
from skae.plotting import CodebookDisplay

X = make_rows()


def heights(ax):
    if len(ax.patches) == 1 and hasattr(ax.patches[0], "get_data"):
        return ax.patches[0].get_data().values
    return [bar.get_height() for bar in ax.patches]


def vqvae(**params):
    return network(VQVAE, n_codes=8, **params)


def test_bars_are_counts_of_codes_from_the_most_used_on():
    model = vqvae().fit(X)
    display = CodebookDisplay.from_estimator(model, X)
    codes = model.transform(X)
    expected = np.bincount(codes.ravel(), minlength=8)
    np.testing.assert_array_equal(display.counts, [expected])
    np.testing.assert_array_equal(heights(display.ax_), np.sort(expected)[::-1])
    perplexity = np.exp(entropy(expected))
    np.testing.assert_allclose(display.perplexity_, [perplexity])
    np.testing.assert_allclose(display.perplexity_, model.perplexity(X))
    unused = 8 - len(np.unique(codes))
    assert display.ax_.get_title() == f"perplexity {perplexity:.1f} of 8, {unused} unused"
    (line,) = display.ax_.lines
    np.testing.assert_allclose(line.get_ydata(), codes.size / 8)


def test_each_quantizer_has_its_codebook():
    model = vqvae(n_quantizers=3).fit(X)
    display = CodebookDisplay.from_estimator(model, X)
    np.testing.assert_allclose(display.perplexity_, model.perplexity(X))
    codes = model.transform(X).reshape(len(X), -1, 3)
    drawn = [ax for ax in display.ax_.ravel() if ax.get_title()]
    assert len(drawn) == 3
    for stage, ax in enumerate(drawn):
        expected = np.bincount(codes[..., stage].ravel(), minlength=8)
        np.testing.assert_array_equal(heights(ax), np.sort(expected)[::-1])
        assert ax.get_title().startswith(f"quantizer {stage + 1}: perplexity")


@pytest.mark.parametrize("rows", [X, pd.DataFrame(X, columns=list("abcde"))])
@pytest.mark.parametrize(
    "wrap",
    [
        lambda m: make_pipeline(StandardScaler(), m),
        lambda m: make_pipeline(StandardScaler(), m).set_output(transform="pandas"),
        lambda m: GridSearchCV(m, {"n_components": [1, 2]}, cv=2),
        lambda m: SharingSearch(m, {"n_components": [1, 2]}, cv=2),
    ],
    ids=["pipeline", "pandas_output", "search", "sharing_search"],
)
def test_the_model_inside(wrap, rows):
    estimator = wrap(vqvae()).fit(rows)
    display = CodebookDisplay.from_estimator(estimator, rows)
    codes = np.asarray(estimator.transform(rows), dtype=int)
    np.testing.assert_array_equal(display.counts[0], np.bincount(codes.ravel(), minlength=8))


@pytest.mark.parametrize("n_codes", [1, 16, 1024])
def test_any_number_of_entries(n_codes):
    counts = np.random.default_rng(0).integers(0, 3, n_codes) + (np.arange(n_codes) == 0)
    display = CodebookDisplay(counts).plot()
    np.testing.assert_array_equal(heights(display.ax_), np.sort(counts)[::-1])
    assert display.n_unused_ == [np.sum(counts == 0)]
    display.figure_.canvas.draw()
    assert len(display.ax_.get_xticks()) <= 8


def test_given_axes_and_drawing_twice():
    figure, (left, right) = plt.subplots(1, 2)
    display = CodebookDisplay([3, 1, 0]).plot(ax=right)
    assert display.ax_ is right
    assert display.plot().figure_ is not figure
    several = CodebookDisplay([[3, 1, 0], [1, 1, 1]]).plot(ax=left)
    assert several.figure_ is figure
    assert several.ax_.shape == (2, 1)


def test_errors():
    with pytest.raises(TypeError, match=r"entries of a codebook.*estimator=PPCA has none"):
        CodebookDisplay.from_estimator(PPCA(2).fit(X), X)
    for counts in ([0, 0], [-1, 2], [np.nan, 1.0]):
        with pytest.raises(ValueError, match="counts must be finite numbers of 0 or more"):
            CodebookDisplay(counts).plot()
    for counts in ([], np.ones((2, 2, 2))):
        with pytest.raises(ValueError, match=r"counts has shape .* expected"):
            CodebookDisplay(counts).plot()
