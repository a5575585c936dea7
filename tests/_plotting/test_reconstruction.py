"""Rows beside their reconstructions: what is drawn are those rows."""

import matplotlib as mpl
import matplotlib.pyplot as plt
import numpy as np
import pandas as pd
import polars as pl
import pytest
import torch
from scipy import sparse
from sklearn.base import clone
from sklearn.datasets import load_digits, load_wine
from sklearn.decomposition import PCA
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import SplineTransformer, StandardScaler

from helpers import make_rows, network
from skae import PPCA, VAE, Ensemble, GridSearchCV, LinearAE
from skae.plotting import ReconstructionDisplay


@pytest.fixture(scope="module")
def digits():
    return load_digits(return_X_y=True)[0][:300]


@pytest.fixture(scope="module")
def wine():
    return load_wine(as_frame=True, return_X_y=True)[0]


def blocks(picture, shape, n_rows, n_columns):
    """The images of a mosaic, cut out by the gaps between them."""
    height, width = shape
    gap = (picture.shape[1] - n_columns * width) // max(n_columns - 1, 1)
    for row in range(n_rows):
        for column in range(n_columns):
            top, left = row * (height + gap), column * (width + gap)
            yield picture[top : top + height, left : left + width]


def curves(ax):
    return {line.get_label(): line for line in ax.get_lines()}


# ------------------------------------------------------------------------------- images


def test_mosaic_holds_rows_above_reconstructions(digits):
    model = PCA(5).fit(digits)
    display = ReconstructionDisplay.from_estimator(model, digits, n_samples=3, image_shape=(8, 8))
    copies = model.inverse_transform(model.transform(digits[:3]))
    [picture] = [image.get_array() for image in display.ax_.images]
    low, high = digits[:3].min(), digits[:3].max()
    for block, row in zip(blocks(picture, (8, 8), 2, 3), [*digits[:3], *copies], strict=True):
        grey = 1 - (np.clip(row, low, high) - low).reshape(8, 8) / (high - low)
        np.testing.assert_allclose(block, np.repeat(grey[..., None], 3, axis=2), atol=1 / 255)
    labels = [label.get_text() for label in display.ax_.get_yticklabels()]
    assert labels == ["rows", "reconstructions"]


def test_missing_pixels_have_a_colour_and_a_legend(digits):
    X = digits.copy()
    X[0, 10] = np.nan
    display = ReconstructionDisplay.from_estimator(
        PPCA(3).fit(X), X, n_samples=2, image_shape=(8, 8)
    )
    picture = display.ax_.images[0].get_array()
    row, *others = blocks(picture, (8, 8), 2, 2)
    orange = np.array(mpl.colors.to_rgb("#E69F00"))
    where = np.isclose(row, orange).all(axis=2)
    np.testing.assert_array_equal(np.argwhere(where), [[1, 2]])
    assert not any(np.isclose(other, orange).all(axis=2).any() for other in others)
    assert display.ax_.get_legend().get_texts()[0].get_text() == "missing value"


def test_colour_images():
    X = np.random.default_rng(0).random((20, 3 * 4 * 5))
    display = ReconstructionDisplay.from_estimator(
        LinearAE(2).fit(X), X, n_samples=1, image_shape=(3, 4, 5)
    )
    top, _ = blocks(display.ax_.images[0].get_array(), (4, 5), 2, 1)
    span = X[0].max() - X[0].min()
    np.testing.assert_allclose(
        top, (X[0].reshape(3, 4, 5).transpose(1, 2, 0) - X[0].min()) / span, atol=1e-12
    )


def test_image_shape_of_the_model(digits):
    model = network(VAE, network="conv", image_shape=(1, 8, 8), max_iter=1).fit(digits)
    assert ReconstructionDisplay.from_estimator(model, digits).image_shape == (8, 8)
    # The model reads images, but the rows of the data have other features.
    wide = np.hstack([digits, digits])
    pipeline = make_pipeline(PCA(64), model).fit(wide)
    assert ReconstructionDisplay.from_estimator(pipeline, wide).image_shape is None


@pytest.mark.parametrize(
    ("shape", "message"),
    [
        ((8, 9), "holds 72 values, but a row has 64 features"),
        ((2, 8, 4), "2 channels"),
        (64, "must be"),
        ((8, 8.0), "must be"),
        ((8, -8), "must be"),
    ],
)
def test_wrong_image_shapes(digits, shape, message):
    with pytest.raises(ValueError, match=f"image_shape=.*{message}"):
        ReconstructionDisplay.from_estimator(PCA(2).fit(digits), digits, image_shape=shape)


# --------------------------------------------------------------------------- other rows


def test_arrays_are_curves_in_their_own_units():
    X = make_rows(30, 5, dtype=np.float64)
    model = LinearAE(2).fit(X)
    display = ReconstructionDisplay.from_estimator(model, X, n_samples=3)
    assert display.ax_.shape == (2, 2)
    for ax, row, copy in zip(display.ax_.ravel(), X, model.reconstruct(X), strict=False):
        if ax.axison:
            np.testing.assert_allclose(curves(ax)["row"].get_ydata(), row)
            np.testing.assert_allclose(curves(ax)["reconstruction"].get_ydata(), copy)
    assert [ax.axison for ax in display.ax_.ravel()] == [True, True, True, False]


def test_signals_are_two_lines():
    X = make_rows(20, 80, dtype=np.float64)
    display = ReconstructionDisplay.from_estimator(LinearAE(2).fit(X), X, n_samples=1)
    assert curves(display.ax_[0, 0])["row"].get_marker() == "None"
    assert display.ax_[0, 0].get_xlabel() == "feature"


def test_columns_of_a_table_are_in_standard_deviations(wine):
    model = make_pipeline(StandardScaler(), LinearAE(3)).fit(wine)
    display = ReconstructionDisplay.from_estimator(model, wine, n_samples=2)
    scaler, linear = model
    standard = scaler.transform(wine)[:2]
    copies = linear.reconstruct(standard)
    for ax, row, copy in zip(display.ax_.ravel(), standard, copies, strict=True):
        np.testing.assert_allclose(curves(ax)["row"].get_xdata(), row)
        np.testing.assert_allclose(curves(ax)["reconstruction"].get_xdata(), copy)
    np.testing.assert_allclose(display.rows, wine[:2])
    np.testing.assert_allclose(display.feature_stds, wine.std(ddof=0))
    labels = [label.get_text() for label in display.ax_[0, 0].get_yticklabels()]
    assert labels[0] == "alcohol"
    assert all(len(label) <= 24 for label in labels)
    assert "standard deviations" in "".join(ax.get_xlabel() for ax in display.ax_.ravel())


def test_missing_values_of_a_table_are_marked(wine):
    X = wine.astype(float)
    X.iloc[0, 3] = np.nan
    model = make_pipeline(StandardScaler(), PPCA(3)).fit(X)
    display = ReconstructionDisplay.from_estimator(model, X, n_samples=2)
    first, second = (curves(ax)["missing value, filled in"] for ax in display.ax_.ravel())
    np.testing.assert_array_equal(np.flatnonzero(~np.isnan(first.get_xdata())), [3])
    assert np.isnan(second.get_xdata()).all()


@pytest.mark.parametrize("library", ["pandas", "polars"])
def test_of_mixed_tables_the_numbers_are_drawn(library):
    rng = np.random.default_rng(0)
    n = 60
    frame = pd.DataFrame(
        {
            "city": rng.choice(["a", "b"], n),
            "age": np.where(rng.random(n) < 0.1, np.nan, rng.normal(40, 10, n)),
            "kind": pd.Categorical(rng.choice(["x", "y"], n)),
            "count": rng.integers(0, 9, n),
        }
    )
    frame = frame if library == "pandas" else pl.from_pandas(frame, nan_to_null=True)
    model = network(VAE, likelihood="auto", init=None).fit(frame)
    display = ReconstructionDisplay.from_estimator(model, frame, n_samples=4)
    assert display.feature_names == ["age", "count"]
    copies = model.reconstruct(frame[:4])
    np.testing.assert_allclose(
        display.reconstructions, np.column_stack([copies["age"], copies["count"]]).astype(float)
    )
    text = frame[["city"]]
    with pytest.raises(TypeError, match=r"X has no column of numbers.*city"):
        ReconstructionDisplay.from_estimator(model, text)


@pytest.mark.parametrize(
    "convert",
    [
        np.float32,
        lambda X: X.astype(np.uint8),
        lambda X: X.tolist(),
        np.ma.masked_array,
        lambda X: torch.tensor(X),
        sparse.csr_array,
        lambda X: pd.DataFrame(X),
    ],
)
def test_containers(digits, convert):
    X = digits[:40]
    model = LinearAE(3).fit(X)
    display = ReconstructionDisplay.from_estimator(
        model, convert(X), n_samples=2, image_shape=(8, 8)
    )
    np.testing.assert_array_equal(display.rows, X[:2])
    np.testing.assert_allclose(display.reconstructions, model.reconstruct(X[:2]), atol=1e-4)


def test_memory_maps(digits, tmp_path):
    mapped = np.memmap(tmp_path / "rows", np.float64, "w+", shape=digits.shape)
    mapped[:] = digits
    display = ReconstructionDisplay.from_estimator(PCA(3).fit(digits), mapped, n_samples=2)
    np.testing.assert_array_equal(display.rows, digits[:2])


def test_searches_and_ensembles(digits):
    search = GridSearchCV(make_pipeline(StandardScaler(), PPCA()), {"ppca__n_components": [2]})
    search.fit(digits)
    best = search.best_estimator_
    expected = best[0].inverse_transform(best[1].reconstruct(best[0].transform(digits[:8])))
    display = ReconstructionDisplay.from_estimator(search, digits)
    np.testing.assert_allclose(display.reconstructions, expected)
    ensemble = Ensemble(PPCA(2), 2, random_state=0).fit(digits)
    display = ReconstructionDisplay.from_estimator(ensemble, digits)
    np.testing.assert_allclose(display.reconstructions, ensemble.reconstruct(digits[:8]))
    search = clone(search).set_params(refit=False).fit(digits)
    with pytest.raises(TypeError, match="refit=False"):
        ReconstructionDisplay.from_estimator(search, digits)


def test_targets_of_a_conditional_model(digits):
    y = np.arange(len(digits)) / 100
    model = network(VAE, conditional=True).fit(digits, y)
    display = ReconstructionDisplay.from_estimator(model, digits, y=y)
    np.testing.assert_allclose(display.reconstructions, model.reconstruct(digits[:8], y[:8]))
    with pytest.raises(ValueError, match="y is None, but VAE was fitted with conditional=True"):
        ReconstructionDisplay.from_estimator(model, digits)
    with pytest.raises(ValueError, match="y is given, but PCA was not fitted"):
        ReconstructionDisplay.from_estimator(PCA(2).fit(digits), digits, y=y)


def test_wrong_arguments(digits):
    model = PCA(2).fit(digits)
    with pytest.raises(ValueError, match="n_samples"):
        ReconstructionDisplay.from_estimator(model, digits, n_samples=0)
    with pytest.raises(ValueError, match=r"X has shape \(64,\)"):
        ReconstructionDisplay.from_estimator(model, digits[0])
    with pytest.raises(TypeError, match="estimator=SplineTransformer has no inverse_transform"):
        ReconstructionDisplay.from_estimator(SplineTransformer().fit(digits), digits)
    pipeline = make_pipeline(SplineTransformer(), PCA(2)).fit(digits)
    with pytest.raises(TypeError, match="'splinetransformer' before PCA has no inverse_transform"):
        ReconstructionDisplay.from_estimator(pipeline, digits)
    with pytest.raises(ValueError, match=r"rows has shape.*reconstructions"):
        ReconstructionDisplay(digits, digits[:3]).plot()
    with pytest.raises(ValueError, match="feature_means and feature_stds"):
        ReconstructionDisplay(digits, digits, feature_means=[0.0]).plot()


def test_columns_with_pandas_na(wine):
    table = pd.DataFrame(wine).astype("Float64") if not hasattr(wine, "astype") else wine
    gaps = table.astype("Float64")
    gaps.iloc[0, 0] = pd.NA
    display = ReconstructionDisplay.from_estimator(PPCA(2).fit(gaps), gaps, n_samples=2)
    expected = gaps.iloc[:2].to_numpy(dtype=float, na_value=np.nan)
    np.testing.assert_array_equal(display.rows, expected)
    assert np.isfinite(display.reconstructions).all()


def test_columns_of_one_name(digits):
    table = pd.DataFrame(digits[:20, :3], columns=["a", "b", "a"])
    with pytest.raises(ValueError, match="X has several columns with the same name"):
        ReconstructionDisplay.from_estimator(PPCA(1).fit(table.to_numpy()), table)


def test_wrong_names_and_units():
    rows = np.ones((2, 3))
    with pytest.raises(ValueError, match=r"feature_names=\['a'\] must be a list of 3 names"):
        ReconstructionDisplay(rows, rows, feature_names=["a"]).plot()
    with pytest.raises(ValueError, match="feature_stds must be positive"):
        ReconstructionDisplay(rows, rows, feature_means=[0] * 3, feature_stds=[0] * 3).plot()
    with pytest.raises(ValueError, match=r"image_shape=\(True, 3\) must be"):
        ReconstructionDisplay(rows, rows, image_shape=(True, 3)).plot()


def test_the_legend_covers_no_panel_of_axes_that_are_given(wine):
    figure, axes = plt.subplots(2, 1, figsize=(7, 9), layout="constrained")
    display = ReconstructionDisplay.from_estimator(PPCA(2).fit(wine), wine, ax=axes[1])
    figure.canvas.draw()
    box = display.ax_[0, 0].get_legend().get_window_extent()
    assert not any(box.overlaps(cell.get_window_extent()) for cell in display.ax_.ravel())
    assert not any(box.overlaps(c._left_title.get_window_extent()) for c in display.ax_.ravel())
    assert not box.overlaps(axes[0].get_tightbbox())
    widths = [cell.get_window_extent().width for cell in display.ax_[0]]
    np.testing.assert_allclose(widths, widths[0])
