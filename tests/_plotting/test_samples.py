"""New rows beside rows of the data: they are those that the model draws."""

import numpy as np
import pandas as pd
import pytest
from sklearn.datasets import load_digits, load_wine
from sklearn.decomposition import PCA
from sklearn.mixture import GaussianMixture
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import MinMaxScaler, StandardScaler

from helpers import make_rows, network
from skae import PPCA, VAE, GridSearchCV, LinearAE, sample_pipeline
from skae._plotting.canvas import n_mosaic_columns
from skae.plotting import SampleDisplay


@pytest.fixture(scope="module")
def digits():
    return load_digits(return_X_y=True)[0][:300]


@pytest.mark.parametrize("noise", [False, True])
def test_rows_of_a_model(digits, noise):
    model = LinearAE(5).fit(digits)
    display = SampleDisplay.from_estimator(model, n_samples=6, noise=noise, random_state=3)
    np.testing.assert_allclose(display.samples, model.sample(6, noise=noise, random_state=3))
    assert display.rows is None
    lines = display.ax_.get_lines()
    np.testing.assert_allclose([line.get_ydata() for line in lines], display.samples)


def test_rows_of_pipelines_and_searches(digits):
    pipeline = make_pipeline(MinMaxScaler(), PPCA())
    search = GridSearchCV(pipeline, {"ppca__n_components": [2, 3]}, cv=2).fit(digits)
    display = SampleDisplay.from_estimator(search, digits, n_samples=4, random_state=0)
    expected = sample_pipeline(search, 4, random_state=0, noise=False)
    np.testing.assert_allclose(display.samples, expected)
    np.testing.assert_array_equal(display.rows, digits[:4])


def test_rows_of_a_density_of_codes(digits):
    for last in (LinearAE(4), PCA(4)):
        model = make_pipeline(last, GaussianMixture(2, random_state=0)).fit(digits)
        display = SampleDisplay.from_estimator(model, n_samples=4, random_state=0)
        expected = sample_pipeline(model, 4, random_state=0)
        np.testing.assert_allclose(display.samples, expected)
        with pytest.raises(TypeError, match=r"noise is given, but .* GaussianMixture"):
            SampleDisplay.from_estimator(model, noise=True)


def test_mosaics_beside_each_other(digits):
    digits = digits.copy()
    digits[200, 0] = 32.0  # brighter than all pixels of the rows that are drawn
    model = LinearAE(5).fit(digits)
    display = SampleDisplay.from_estimator(
        model, digits, n_samples=4, random_state=0, image_shape=(8, 8)
    )
    data, new = (ax.images[0].get_array()[..., 0] for ax in display.ax_)
    assert [ax.get_title() for ax in display.ax_] == ["rows of the data", "new rows"]
    low, high = digits.min(), digits.max()  # of all rows that were given
    for picture, rows in ((data, digits), (new, display.samples)):
        last = np.clip((rows[3] - low) / (high - low), 0, 1).reshape(8, 8)
        np.testing.assert_allclose(picture[-8:, -8:], 1 - last, atol=1 / 255)


def test_tables_are_in_standard_deviations():
    X, _ = load_wine(as_frame=True, return_X_y=True)
    model = make_pipeline(StandardScaler(), PPCA(3)).fit(X)
    display = SampleDisplay.from_estimator(model, X, n_samples=5, random_state=0)
    drawn = [[line.get_xdata() for line in ax.get_lines()] for ax in display.ax_]
    mean, std = X.mean().to_numpy(), X.std(ddof=0).to_numpy()
    np.testing.assert_allclose(drawn[0], (X[:5] - mean) / std)
    np.testing.assert_allclose(drawn[1], (display.samples - mean) / std)
    # Without X the new rows themselves tell means and standard deviations.
    model = PPCA(2).set_output(transform="pandas").fit(X)
    display = SampleDisplay.from_estimator(model, random_state=0)
    assert display.feature_names == list(X.columns)
    np.testing.assert_allclose(display.feature_means, display.samples.mean(axis=0))


def test_missing_values_of_the_data():
    X = pd.DataFrame(make_rows(40, 3, gaps=0.2, dtype=np.float64), columns=list("abc"))
    display = SampleDisplay.from_estimator(PPCA(1).fit(X), X, random_state=0)
    np.testing.assert_allclose(display.feature_means, X.mean())
    np.testing.assert_allclose(display.feature_stds, X.std(ddof=0))


def test_conditional_models(digits):
    y = np.arange(len(digits)) % 2
    model = network(VAE, conditional=True).fit(digits, y)
    display = SampleDisplay.from_estimator(model, n_samples=3, y=1, random_state=0)
    expected = model.sample(3, y=1, noise=False, random_state=0)
    np.testing.assert_allclose(display.samples, expected, atol=1e-5)
    with pytest.raises(TypeError, match="y is given, but the method sample of LinearAE"):
        SampleDisplay.from_estimator(LinearAE(2).fit(digits), y=1)


def test_without_a_seed_draws_differ(digits):
    model = PPCA(2).fit(digits)
    first, second = (SampleDisplay.from_estimator(model).samples for _ in range(2))
    assert not np.allclose(first, second)


def test_wrong_arguments(digits):
    with pytest.raises(TypeError, match="estimator=PCA has no sample"):
        SampleDisplay.from_estimator(PCA(2).fit(digits))
    with pytest.raises(TypeError, match="noise='no' must be True or False"):
        SampleDisplay.from_estimator(PPCA(2).fit(digits), noise="no")
    with pytest.raises(ValueError, match="n_samples"):
        SampleDisplay.from_estimator(PPCA(2).fit(digits), n_samples=0)
    with pytest.raises(ValueError, match="rows has 3 features and samples has 64"):
        SampleDisplay(digits, digits[:, :3]).plot()
    with pytest.raises(ValueError, match="image_shape"):
        SampleDisplay.from_estimator(PPCA(2).fit(digits), image_shape=(7, 7))


@pytest.mark.parametrize("n_images", [1, 2, 7, 32, 64, 100])
@pytest.mark.parametrize("shape", [(8, 8), (8, 40), (40, 8), (3, 28, 28)])
def test_mosaics_are_about_as_wide_as_wanted(n_images, shape):
    n_columns = n_mosaic_columns(n_images, shape, 1.0)
    assert 1 <= n_columns <= n_images
    n_rows = -(-n_images // n_columns)
    assert n_rows * n_columns - n_images < n_columns  # no empty line
    if n_images >= 32:
        aspect = n_columns * shape[-1] / (n_rows * shape[-2])
        assert 0.3 < aspect < 3


def test_rows_without_finite_values_are_drawn():
    for value in (np.nan, np.inf):
        display = SampleDisplay(np.full((4, 9), value), image_shape=(3, 3)).plot()
        assert display.ax_.images
