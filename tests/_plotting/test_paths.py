"""Traversals and interpolations: the rows that are drawn are decoded by hand."""

import itertools

import matplotlib.pyplot as plt
import numpy as np
import pandas as pd
import pytest
from sklearn.datasets import load_digits, load_wine
from sklearn.decomposition import NMF, PCA
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import MinMaxScaler, StandardScaler

from helpers import make_rows, network
from skae import (
    PPCA,
    VAE,
    VQVAE,
    AdversarialAE,
    Autoencoder,
    CountMixtureAE,
    GridSearchCV,
    HelmholtzMachine,
    LinearAE,
)
from skae.plotting import InterpolationDisplay, TraversalDisplay


@pytest.fixture(scope="module")
def digits():
    return load_digits(return_X_y=True)[0][:300]


@pytest.fixture(scope="module")
def vae(digits):
    return VAE(3, hidden_layer_sizes=(16,), max_iter=5, random_state=0).fit(digits)


# --------------------------------------------------------------------------- traversals


@pytest.mark.parametrize("model", [LinearAE(3), PCA(3), PPCA(3)])
def test_one_code_of_the_row_is_replaced(digits, model):
    model = model.fit(digits)
    display = TraversalDisplay.from_estimator(
        model, digits[4:5], components=[2, 0], values=[-1.0, 0.0, 4.0]
    )
    code = model.transform(digits[4:5])
    for path, component in zip(display.paths, [2, 0], strict=True):
        for row, value in zip(path, [-1.0, 0.0, 4.0], strict=True):
            changed = code.copy()
            changed[0, component] = value
            np.testing.assert_allclose(row, model.inverse_transform(changed)[0])
    np.testing.assert_array_equal(display.components, [2, 0])
    assert [name[-1] for name in display.code_names] == ["2", "0"]


def test_is_what_traverse_returns(digits, vae):
    display = TraversalDisplay.from_estimator(vae, digits[:1], components=[1], n_steps=5)
    np.testing.assert_allclose(display.values, [np.linspace(-2.5, 2.5, 5)])
    expected = vae.traverse(digits[0], 1, display.values[0])
    np.testing.assert_allclose(display.paths[0], expected, atol=1e-5)


def test_pipelines_and_searches_draw_in_units_of_the_data(digits):
    search = GridSearchCV(make_pipeline(MinMaxScaler(), PPCA()), {"ppca__n_components": [2]}, cv=2)
    search.fit(digits)
    scaler, model = search.best_estimator_
    display = TraversalDisplay.from_estimator(search, digits[:1], components=0, values=[1.5])
    code = model.transform(scaler.transform(digits[:1]))
    code[0, 0] = 1.5
    expected = scaler.inverse_transform(model.inverse_transform(code))
    np.testing.assert_allclose(display.paths[0], expected)


def test_default_components_vary_most(digits, vae):
    means, stds = vae.posterior(digits)
    divergence = 0.5 * (means**2 + stds**2 - np.log(stds**2) - 1).mean(axis=0)
    order = np.argsort(-divergence)
    display = TraversalDisplay.from_estimator(vae, digits, n_components=2)
    np.testing.assert_array_equal(display.components, order[:2])
    # One row does not tell; rows that the model samples do, or its training codes.
    display = TraversalDisplay.from_estimator(vae, digits[:1])
    assert sorted(display.components) == [0, 1, 2]
    autoencoder = network(Autoencoder, n_components=3).fit(digits)
    order = np.argsort(-autoencoder.transform(digits).var(axis=0))
    display = TraversalDisplay.from_estimator(autoencoder, digits[:1], n_components=2)
    np.testing.assert_array_equal(display.components, order[:2])


def test_default_values_span_the_codes(digits):
    autoencoder = network(Autoencoder, n_components=2).fit(digits)
    codes = autoencoder.transform(digits)
    mixture = network(VAE, prior="mixture", n_prior_components=2).fit(digits)
    drawn = mixture.sample_latent(1000, random_state=0)
    expected = {
        mixture: (drawn.mean(0), drawn.std(0)),  # explained_variance_ is a variance of rows
        autoencoder: (codes.mean(0), codes.std(0)),
        PCA(2).fit(digits): ([0, 0], PCA(2).fit_transform(digits).std(0, ddof=1)),
        PCA(2, whiten=True).fit(digits): ([0, 0], [1, 1]),
        PPCA(2).fit(digits): ([0, 0], [1, 1]),
    }
    for model, (mean, std) in expected.items():
        display = TraversalDisplay.from_estimator(model, digits[:1], components=[0, 1], n_steps=3)
        mean, std = np.asarray(mean), np.asarray(std)
        values = np.column_stack([mean - 2.5 * std, mean, mean + 2.5 * std])
        np.testing.assert_allclose(display.values, values, rtol=1e-3)


def test_values_are_needed_where_nothing_tells_them(digits):
    model = NMF(2, max_iter=1000, random_state=0).fit(digits)
    with pytest.raises(ValueError, match="values is None, but NMF"):
        TraversalDisplay.from_estimator(model, digits[:1])
    codes = model.transform(digits)
    display = TraversalDisplay.from_estimator(model, digits, components=[0, 1], n_steps=3)
    np.testing.assert_allclose(display.values[:, 1], codes.mean(axis=0))


def test_other_priors_and_adversarial_models(digits):
    for model in (
        network(VAE, prior="mixture", n_prior_components=2),
        network(AdversarialAE),
    ):
        display = TraversalDisplay.from_estimator(model.fit(digits), digits[:1])
        assert np.isfinite(display.values).all()
        assert (np.diff(display.values) > 0).all()


def test_binary_units_take_both_values(digits):
    X = (digits > 7).astype(float)
    model = network(HelmholtzMachine, n_components=3).fit(X)
    display = TraversalDisplay.from_estimator(model, X[:1])
    np.testing.assert_array_equal(display.values, [[0, 1]] * 3)
    code = np.round(model.transform(X[:1]))
    code[0, display.components[1]] = 1
    np.testing.assert_allclose(display.paths[1, 1], model.inverse_transform(code)[0], atol=1e-6)


def test_images_are_labelled_with_values(digits):
    model = PCA(2).fit(digits)
    display = TraversalDisplay.from_estimator(
        model, digits[:1], values=[[-1.0, 0.0], [2.0, 3.5]], components=[0, 1], image_shape=(8, 8)
    )
    labels = [[label.get_text() for label in ax.get_xticklabels()] for ax in display.ax_]
    assert labels == [["\N{MINUS SIGN}1", "0"], ["2", "3.5"]]
    assert [ax.get_yticklabels()[0].get_text() for ax in display.ax_] == ["pca0", "pca1"]
    low, high = digits[0].min(), digits[0].max()
    picture = display.ax_[1].images[0].get_array()
    last = np.clip((display.paths[1, 1] - low) / (high - low), 0, 1).reshape(8, 8)
    np.testing.assert_allclose(picture[:, -8:, 0], 1 - last, atol=1 / 255)


def test_tables_are_drawn_beside_their_names():
    X, _ = load_wine(as_frame=True, return_X_y=True)
    model = make_pipeline(StandardScaler(), PPCA(2)).fit(X)
    display = TraversalDisplay.from_estimator(model, X, n_steps=3, components=[1])
    [line, *_] = display.ax_[0].get_lines()
    expected = (display.paths[0, 0] - X.mean().to_numpy()) / X.std(ddof=0).to_numpy()
    np.testing.assert_allclose(line.get_xdata(), expected)
    # A single row has no standard deviations; the model does.
    display = TraversalDisplay.from_estimator(model, X[:1], n_steps=3)
    np.testing.assert_allclose(display.feature_stds, X.std(), rtol=0.3)


@pytest.mark.parametrize("display", [TraversalDisplay, InterpolationDisplay])
def test_indices_have_no_order(digits, display):
    vq = network(VQVAE, n_codes=4, init=None).fit(digits)
    with pytest.raises(TypeError, match="those of VQVAE are indices"):
        display.from_estimator(vq, digits[:2])
    counts = make_rows(50, 2, dtype=np.float64)
    mixture = CountMixtureAE(2, random_state=0).fit(counts)
    with pytest.raises(TypeError, match="those of CountMixtureAE are indices"):
        display.from_estimator(mixture, counts[:2])


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"components": [3]}, "components=.*from 0 to 2"),
        ({"components": [-1]}, "components=.*from 0 to 2"),
        ({"components": [0.5]}, "components="),
        ({"components": []}, "components="),
        ({"values": [np.nan]}, "values="),
        ({"values": [[1.0], [2.0]]}, "values=.*each of the 3 codes"),
        ({"values": "all"}, "values="),
        ({"n_steps": 1}, "n_steps"),
        ({"n_components": 0}, "n_components"),
        ({"y": 1}, "y is given"),
    ],
)
def test_wrong_arguments(digits, arguments, message):
    with pytest.raises(ValueError, match=message):
        TraversalDisplay.from_estimator(PCA(3).fit(digits), digits[:1], **arguments)


def test_own_arrays():
    paths = np.zeros((2, 3, 16))
    display = TraversalDisplay(paths, [[0, 1, 2]] * 2, image_shape=(4, 4)).plot()
    assert [ax.get_yticklabels()[0].get_text() for ax in display.ax_] == ["code 0", "code 1"]
    with pytest.raises(ValueError, match="values has shape"):
        TraversalDisplay(paths, [0, 1]).plot()
    with pytest.raises(ValueError, match="paths has shape"):
        InterpolationDisplay(paths[0]).plot()
    with pytest.raises(ValueError, match="limits="):
        InterpolationDisplay(paths, image_shape=(4, 4), limits=(1, 0)).plot()


def test_conditional_models_decode_with_the_target(digits):
    y = np.arange(len(digits)) % 2
    model = network(VAE, conditional=True).fit(digits, y)
    display = TraversalDisplay.from_estimator(model, digits[:1], components=0, y=1, n_steps=3)
    expected = model.traverse(digits[0], 0, display.values[0], y=1)
    np.testing.assert_allclose(display.paths[0], expected, atol=1e-5)
    display = InterpolationDisplay.from_estimator(model, digits[:2], y=1, n_steps=3)
    expected = model.interpolate(digits[0], digits[1], 3, y=1)
    np.testing.assert_allclose(display.paths[0], expected, atol=1e-5)
    model = network(VAE, conditional=True).fit(digits, y / 3)
    with pytest.raises(ValueError, match="y is None"):
        InterpolationDisplay.from_estimator(model, digits[:2])


# ----------------------------------------------------------------------- interpolations


def test_paths_join_pairs_of_rows(digits, vae):
    display = InterpolationDisplay.from_estimator(vae, digits[:4], n_steps=3, image_shape=(8, 8))
    for path, (start, end) in zip(display.paths, [(0, 1), (2, 3)], strict=True):
        np.testing.assert_allclose(path, vae.interpolate(digits[start], digits[end], 3), atol=1e-5)
    assert len(display.ax_) == 2
    labels = [label.get_text() for label in display.ax_[-1].get_xticklabels()]
    assert labels == ["0", "0.5", "1"]


def test_interpolation_through_a_pipeline(digits):
    model = make_pipeline(MinMaxScaler(), PCA(3)).fit(digits)
    display = InterpolationDisplay.from_estimator(model, digits[:2], n_steps=3)
    middle = model.inverse_transform(model.transform(digits[:2]).mean(axis=0, keepdims=True))
    np.testing.assert_allclose(display.paths[0, 1:2], middle)
    colours = [line.get_color() for line in display.ax_[0].get_lines()]
    assert len({tuple(colour) for colour in colours}) == 3


def test_interpolation_of_a_table():
    X = pd.DataFrame(make_rows(40, 4, dtype=np.float64) * [1, 10, 100, 1000], columns=list("abcd"))
    model = make_pipeline(StandardScaler(), PPCA(2)).fit(X)
    display = InterpolationDisplay.from_estimator(model, X[:2])
    assert display.feature_names == list("abcd")
    np.testing.assert_allclose(display.feature_stds, X.std(), rtol=0.4)


@pytest.mark.parametrize("n_rows", [1, 3, 42])
def test_rows_come_in_pairs(digits, n_rows):
    with pytest.raises(ValueError, match=f"X has {n_rows} rows.*takes pairs"):
        InterpolationDisplay.from_estimator(PCA(2).fit(digits), digits[:n_rows])


def test_binary_units_have_nothing_between(digits):
    X = (digits > 7).astype(float)
    model = network(HelmholtzMachine, n_components=3).fit(X)
    with pytest.raises(TypeError, match="binary units"):
        InterpolationDisplay.from_estimator(model, X[:2])


def test_values_below_narrow_axes_do_not_overlap(digits):
    figure, axes = plt.subplots(1, 3, figsize=(9, 3), layout="constrained")
    model = PCA(2).fit(digits)
    TraversalDisplay.from_estimator(model, digits[:1], image_shape=(8, 8), ax=axes[1])
    display = TraversalDisplay.from_estimator(model, digits[:1], image_shape=(8, 8), ax=axes[2])
    figure.canvas.draw()
    labels = [label for label in display.ax_[-1].get_xticklabels() if label.get_text()]
    boxes = [label.get_window_extent() for label in labels]
    assert len(boxes) > 1
    assert all(a.x1 < b.x0 for a, b in itertools.pairwise(boxes))
