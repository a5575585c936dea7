"""Counts that an instrument recorded: pixels, edges, exposure, background, blur and more."""

import pickle
import warnings
from itertools import product

import numpy as np
import pandas as pd
import polars as pl
import pytest
import sklearn
from scipy.stats import multivariate_normal, norm
from sklearn.datasets import load_digits
from sklearn.exceptions import ConvergenceWarning
from sklearn.model_selection import GridSearchCV

from skae import CountMixtureAE, counts_to_image, sample_counts
from skae._mixture.gaussians import Gaussians, Prior
from skae._mixture.instrument import Instrument
from skae._mixture.mirror_images import Frame, moved_inside
from skae._mixture.recorded_rows import RecordedRows

H, W = 12, 10
ROW, COLUMN = np.mgrid[:H, :W]
OBJECT = 1 + 4 * np.exp(-((ROW - 4) ** 2 + (COLUMN - 7) ** 2) / 6) + 3 * (ROW > 8)
DEAD = np.random.RandomState(0).rand(H, W) < 0.06
EXPOSURE = np.exp(-((ROW - 6) ** 2 + (COLUMN - 5) ** 2) / 60) * ~DEAD
X = sample_counts(OBJECT * EXPOSURE, 6_000, random_state=0)
TRUTH = OBJECT / OBJECT.sum()


def exposure_at(places):
    """A smooth exposure at places, as a function."""
    return 1e3 * np.exp(-((places[:, 0] - 6.5) ** 2 + (places[:, 1] - 5.5) ** 2) / 60)


# Nodes of a quadrature over the detector, six along each axis of a pixel.
_node, _weight = np.polynomial.legendre.leggauss(6)
_line = [(np.arange(n)[:, None] + (_node + 1) / 2).ravel() for n in (H, W)]
PLACES = np.stack(np.meshgrid(*_line, indexing="ij"), axis=-1).reshape(-1, 2)
VOLUME = np.multiply.outer(np.tile(_weight / 2, H), np.tile(_weight / 2, W)).ravel()

CASES = {
    "edges": {},
    "open": {"edges": "open", "exposure": EXPOSURE},
    "map": {"exposure": EXPOSURE},
    "diag": {"exposure": EXPOSURE, "covariance_type": "diag"},
    "tied": {"exposure": EXPOSURE, "covariance_type": "tied"},
    "spherical": {"exposure": EXPOSURE, "covariance_type": "spherical", "psf": 0.3},
    "function": {"exposure": exposure_at},
    "background": {"background": EXPOSURE + 0.1, "exposure": EXPOSURE},
    "flat": {"background": "flat", "exposure": EXPOSURE, "psf": [[0.5, 0.2], [0.2, 0.3]]},
    "averages": {"n_averages": 3, "exposure": EXPOSURE, "background": "flat"},
    "cells": {"covariance_type": "cell", "exposure": EXPOSURE},
    "averaged cells": {"covariance_type": "cell", "exposure": EXPOSURE, "n_averages": 3},
    "partition": {"algorithm": "partition", "psf": 0.2},
}


def fitted(options, rows=X, n_components=12):
    options = {"image_shape": (H, W), "prior_counts": 5.0, "random_state": 0, **options}
    return CountMixtureAE(n_components, **options).fit(rows)


# ------------------------------------------------------------------------- densities


@pytest.mark.parametrize("options", CASES.values(), ids=CASES)
def test_densities_of_recorded_counts_integrate_to_one(options):
    model = fitted(options)
    assert VOLUME @ np.exp(model.score_samples(PLACES)) == pytest.approx(1, abs=1e-4)
    outside = [[-0.1, 3.0], [3.0, W + 0.1]]
    assert (model.score_samples(outside) == -np.inf).all()
    if "exposure" in options and not callable(options["exposure"]):
        assert (model.score_samples(np.argwhere(DEAD) + 0.5) == -np.inf).all()


@pytest.mark.parametrize("options", CASES.values(), ids=CASES)
def test_training_never_decreases_the_objective(options):
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", ConvergenceWarning)
        gains = np.diff(fitted({**options, "tol": 0, "max_iter": 40}).objectives_)
    assert (gains > -1e-9).all()


@pytest.mark.parametrize("options", CASES.values(), ids=CASES)
def test_samples_follow_the_density(options):
    model = fitted(options)
    drawn = model.sample(20_000, random_state=0)
    masses = VOLUME * np.exp(model.score_samples(PLACES))
    masses = masses.reshape(H, 6, W, 6).sum(axis=(1, 3))
    seen = counts_to_image(drawn, (H, W))
    assert (seen[masses == 0] == 0).all()
    lit = masses * len(drawn) > 5
    squared = (seen - masses * len(drawn))[lit] ** 2 / (masses[lit] * len(drawn))
    assert squared.mean() == pytest.approx(1, abs=5 * np.sqrt(2 / lit.sum()))


@pytest.mark.parametrize("kind", ["full", "diag", "tied", "spherical"])
def test_reflection_adds_the_densities_of_mirror_images(kind):
    model = fitted({"covariance_type": kind, "n_averages": 1}, n_components=4)
    lengths = np.array([H, W])
    some = X[:20]
    expected = np.zeros(len(some))
    mixture = model._mixture()
    for turn in product(range(-3, 4), repeat=2):
        turn = np.array(turn)
        odd = turn % 2 == 1
        seen = np.where(odd, (turn + 1) * lengths - some, some - turn * lengths)
        for w, mean, covariance in zip(*mixture[:2], mixture.full(), strict=True):
            expected += w * multivariate_normal(mean, covariance).pdf(seen)
    np.testing.assert_allclose(np.exp(model.score_samples(some)), expected, rtol=1e-9)


def test_no_density_is_lost_at_the_edges():
    reflected, open_ = fitted({}), fitted({"edges": "open"})
    assert reflected.intensity().sum() == pytest.approx(1, abs=1e-12)
    assert open_.intensity().sum() < 0.99
    assert reflected.intensity((H + 4, W + 4))[H:].sum() == 0
    # A uniform image stays uniform up to its edges.
    flat = sample_counts(np.ones((H, W)), 20_000, random_state=1)
    edge = fitted({}, flat, 20).intensity()[0] * H * W
    dark = fitted({"edges": "open"}, flat, 20).intensity()[0] * H * W
    assert abs(edge.mean() - 1) < 0.05
    assert dark.mean() < 0.85


def test_means_are_inside_of_the_image():
    gaussians = Gaussians(
        np.full(3, 1 / 3),
        np.array([[-1.0, 3.0], [4.0, 2 * W + 1.0], [5.0, 5.0]]),
        np.array([[[2.0, 0.5], [0.5, 1.0]]] * 3),
        "full",
    )
    prior = Prior(1.0, gaussians.means.copy(), np.ones((3, 2)), np.eye(2))
    frame = Frame(np.zeros(2), np.array([H, W], dtype=float))
    inside, moved = moved_inside(gaussians, prior, frame)
    np.testing.assert_allclose(inside.means, [[1, 3], [4, 1], [5, 5]])
    np.testing.assert_allclose(moved.means, inside.means)
    np.testing.assert_allclose(inside.covariances[:, 0, 1], [-0.5, 0.5, 0.5])
    instrument = Instrument(shape=(H, W), reflects=True)
    rows = RecordedRows(instrument, X[:50], None, 3, None)
    np.testing.assert_allclose(rows.log_density(inside), rows.log_density(gaussians), rtol=1e-9)


# ------------------------------------------------------------------------ statistics


def brute_statistics(rows, gaussians, blur, exposure, reflects):
    """Sums over rows and over missed counts of the moments of true places, by enumeration."""
    lengths = np.array([H, W])
    turns = list(product(range(-2, 3), repeat=2)) if reflects else [(0, 0)]
    full = gaussians.full()

    def joint(places):
        """Density and moments of the true place, for places x components x images."""
        density, first, second = [], [], []
        for turn in np.array(turns):
            odd = turn % 2 == 1
            seen = np.where(odd, (turn + 1) * lengths - places, places - turn * lengths)
            for w, mean, covariance in zip(gaussians.weights, gaussians.means, full, strict=True):
                wide = covariance + blur
                gain = covariance @ np.linalg.inv(wide)
                density.append(w * multivariate_normal(mean, wide).pdf(seen))
                away = (seen - mean) @ gain.T
                first.append(away)
                rest = covariance - gain @ covariance
                second.append(away[:, :, None] * away[:, None, :] + rest)
        shape = (len(turns), len(gaussians.weights), len(places))
        return (
            np.reshape(density, shape),
            np.reshape(first, (*shape, 2)),
            np.reshape(second, (*shape, 2, 2)),
        )

    density, first, second = joint(rows)
    share = density / density.sum(axis=(0, 1))
    n = share.sum(axis=(0, 2))
    firsts = np.einsum("tjn,tjna->ja", share, first)
    seconds = np.einsum("tjn,tjnab->jab", share, second)
    nats = np.log(density.sum(axis=(0, 1))).sum()
    if exposure is not None:
        # Without reflection, the places extend beyond the detector, where the exposure is zero.
        margin = 0 if reflects else 2 * H
        around = np.pad(exposure, margin)
        line = [(np.arange(n + 2 * margin)[:, None] - margin + (_node + 1) / 2) for n in (H, W)]
        places = np.stack(np.meshgrid(*map(np.ravel, line), indexing="ij"), axis=-1)
        volume = np.multiply.outer(*(np.tile(_weight / 2, n) for n in around.shape)).ravel()
        density, first, second = joint(places.reshape(-1, 2))
        e = np.repeat(np.repeat(around, 6, axis=0), 6, axis=1).ravel()
        registered = (density * e * volume).sum()
        missed = density * (1 - e) * volume * len(rows) / registered
        n += missed.sum(axis=(0, 2))
        firsts += np.einsum("tjn,tjna->ja", missed, first)
        seconds += np.einsum("tjn,tjnab->jab", missed, second)
        pixel = tuple(np.floor(rows).astype(int).T)
        nats += np.log(exposure[pixel]).sum() - len(rows) * np.log(registered)
    return nats, n, firsts, seconds


@pytest.mark.parametrize("reflects", [True, False])
@pytest.mark.parametrize("blurs", [True, False])
@pytest.mark.parametrize("exposed", [True, False])
@pytest.mark.parametrize("kind", ["full", "diag", "spherical", "tied"])
def test_statistics_are_those_of_an_enumeration(kind, exposed, blurs, reflects):
    rng = np.random.RandomState(0)
    rows, weights = X[:40], np.array([0.5, 0.3, 0.2])
    means = np.array([[2.0, 3.0], [8.0, 8.0], [6.0, 2.0]])
    root = rng.standard_normal((3, 2, 2))
    covariances = {
        "full": root @ root.swapaxes(1, 2) + np.eye(2),
        "diag": np.array([[1.0, 2.0], [2.0, 0.7], [0.6, 0.9]]),
        "spherical": np.array([1.0, 2.0, 0.7]),
        "tied": root[0] @ root[0].T + np.eye(2),
    }[kind]
    gaussians = Gaussians(weights, means, covariances, kind)
    blur = np.array([[0.4, 0.1], [0.1, 0.3]]) if blurs else np.zeros((2, 2))
    relative = EXPOSURE / EXPOSURE.max() if exposed else None
    instrument = Instrument(
        shape=(H, W), reflects=reflects, blur=blur if blurs else None, exposure=relative
    )
    seen = RecordedRows(instrument, rows, None, 3, None)
    seen.select_candidates(gaussians)
    nats, stats = seen.expect(gaussians)
    nats_, n, first, second = brute_statistics(rows, gaussians, blur, relative, reflects)
    assert nats == pytest.approx(nats_, rel=1e-6)
    np.testing.assert_allclose(stats.n, n, rtol=1e-5)
    np.testing.assert_allclose(stats.first, first, rtol=1e-4, atol=1e-4)
    if kind == "tied":
        second = second.sum(axis=0)
    elif kind != "full":
        second = np.diagonal(second, axis1=1, axis2=2)
    np.testing.assert_allclose(stats.second, second, rtol=1e-4, atol=1e-4)


# ---------------------------------------------------------------------------- pixels

PICTURE = 1 + 5 * np.exp(
    -((np.mgrid[:32, :24][0] - 9) ** 2 + (np.mgrid[:32, :24][1] - 6) ** 2) / 20
)
PHOTONS = sample_counts(PICTURE, 40_000, random_state=0)
PIXELS = np.floor(PHOTONS).astype("uint16")


def centre_of(image):
    return [float((places * image).sum() / image.sum()) for places in np.indices(image.shape)]


@pytest.mark.parametrize("kind", ["full", "cell"])
def test_integers_are_pixels_and_not_corners(kind):
    options = {"image_shape": PICTURE.shape, "covariance_type": kind}
    truth = PICTURE / PICTURE.sum()
    on_pixels = fitted(options, PIXELS, 40).intensity()
    between = fitted(options, PHOTONS, 40).intensity()
    np.testing.assert_allclose(centre_of(on_pixels), centre_of(truth), atol=0.1)
    error, known = (np.abs(image - truth).sum() for image in (on_pixels, between))
    assert error < 1.1 * known + 1e-3
    if kind == "full":  # cells begin and end between pixels
        shifted = fitted({**options, "coordinates": "continuous"}, PIXELS, 40).intensity()
        assert np.abs(shifted - truth).sum() > 1.5 * error
        assert centre_of(shifted)[0] < centre_of(truth)[0] - 0.25


@pytest.mark.parametrize("options", CASES.values(), ids=CASES)
def test_scores_on_pixels_are_log_probabilities(options):
    if options.get("algorithm") == "partition":
        options = {}
    rows = np.floor(X)
    model = fitted({**options, "coordinates": "pixel"}, rows)
    everywhere = np.argwhere(np.ones((H, W))).astype(float)
    probabilities = np.exp(model.score_samples(everywhere))
    assert probabilities.sum() == pytest.approx(1, abs=1e-9)
    plain = {**options, "edges": "reflect"} == options or "exposure" not in options
    if plain and "background" not in options and "psf" not in options:
        np.testing.assert_allclose(probabilities.reshape(H, W), model.intensity(), rtol=1e-9)
    drawn = model.sample(500, random_state=0)
    assert (drawn == np.floor(drawn)).all()
    assert np.isfinite(model.score_samples(drawn)).all()


def test_the_width_of_a_pixel_does_not_widen_components():
    rng = np.random.RandomState(0)
    places = np.array([16.2, 12.4]) + np.array([0.8, 1.2]) * rng.standard_normal((20_000, 2))
    options = {"image_shape": (32, 24), "prior_counts": 0}
    model = CountMixtureAE(1, **options).fit(np.floor(places).astype(int))
    # The variance of the indices is larger by 1/12 = 0.083.
    np.testing.assert_allclose(model.means_[0], [16.2, 12.4], atol=0.03)
    np.testing.assert_allclose(model.covariances_[0], np.diag([0.64, 1.44]), atol=0.03)


def test_equal_pixels_and_weighted_pixels_are_the_same():
    model = fitted({"image_shape": PICTURE.shape}, PIXELS, 20)
    image = counts_to_image(PIXELS, PICTURE.shape)
    options = {"image_shape": PICTURE.shape, "random_state": 0}
    weighted = CountMixtureAE(20, **options).fit(np.argwhere(image > 0), None, image[image > 0])
    np.testing.assert_allclose(weighted.means_, model.means_, rtol=1e-9)
    assert weighted.n_counts_ == model.n_counts_ == len(PIXELS)


def test_decoded_pixels_have_the_coordinates_of_the_rows():
    model = fitted({"image_shape": PICTURE.shape}, PIXELS, 20)
    codes = model.transform(PIXELS[:200])
    np.testing.assert_allclose(model.inverse_transform(codes), model.means_[codes[:, 0]] - 0.5)
    errors = model.reconstruct(PIXELS) - PIXELS
    np.testing.assert_allclose(errors.mean(axis=0), 0, atol=0.2)


CONTAINERS = {
    "int64": lambda rows: rows.astype(np.int64),
    "list": lambda rows: rows.tolist(),
    "pandas": lambda rows: pd.DataFrame(rows),
    "nullable": lambda rows: pd.DataFrame(rows).astype("UInt16"),
    "polars": lambda rows: pl.DataFrame(rows),
    "pyarrow": lambda rows: pl.DataFrame(rows).to_arrow(),
    "torch": lambda rows: __import__("torch").as_tensor(rows.astype(np.int32)),
}


@pytest.mark.parametrize("container", CONTAINERS.values(), ids=CONTAINERS)
def test_integers_of_all_containers_are_pixels(container):
    rows = PIXELS[:2000]
    model = fitted({"image_shape": PICTURE.shape}, container(rows), 5)
    plain = fitted({"image_shape": PICTURE.shape}, rows, 5)
    np.testing.assert_array_equal(model.means_, plain.means_)
    scores = model.score_samples(container(rows))
    np.testing.assert_array_equal(scores, plain.score_samples(rows.astype(float)))


def test_coordinates_that_may_be_misread_get_a_warning():
    options = {"image_shape": PICTURE.shape}
    with pytest.warns(UserWarning, match="set coordinates='pixel'"):
        fitted(options, PIXELS.astype(float), 5)
    with pytest.warns(UserWarning, match="set image_shape"):
        fitted({"image_shape": None}, PIXELS, 5)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        for rows in (PIXELS, PIXELS.astype(float)):
            for coordinates in ("continuous", "pixel"):
                fitted({**options, "coordinates": coordinates}, rows[:3000], 5)
        fitted({"image_shape": None, "coordinates": "continuous"}, PIXELS[:3000], 5)
        fitted(options, PHOTONS[:3000], 5)


def test_rows_that_are_no_pixels_are_refused():
    options = {"image_shape": PICTURE.shape}
    with pytest.raises(ValueError, match=r"X holds \d+ counts that are not indices of pixels"):
        fitted({**options, "coordinates": "pixel"}, PHOTONS, 5)
    model = fitted(options, PIXELS, 5)
    with pytest.raises(ValueError, match=r"X\[0\] = \[1\.5, 2\.0\]"):
        model.transform([[1.5, 2.0]])
    with pytest.raises(ValueError, match="outside of image_shape"):
        fitted(options, np.array([[0, 0], [32, 3]]), 1)
    assert model.score_samples([[32, 3]]) == -np.inf


def test_the_far_edge_belongs_to_the_last_pixel():
    edge = np.vstack([PHOTONS, [[32.0, 24.0]]])
    for kind in ("full", "cell"):
        model = fitted({"image_shape": PICTURE.shape, "covariance_type": kind}, edge, 20)
        assert np.isfinite(model.score_samples(edge[-1:]))
        assert model.transform(edge[-1:]).shape == (1, 1)
        assert model.n_counts_ == len(edge)


# ------------------------------------------------------------------------ instruments


def test_the_object_is_corrected_for_the_exposure():
    for options in ({}, {"covariance_type": "cell", "n_averages": 4}):
        corrected = fitted({**options, "exposure": EXPOSURE}, n_components=20)
        error = np.abs(corrected.intensity(fill=True) * TRUTH[~DEAD].sum() - TRUTH).sum()
        assert error < 0.2
        assert np.abs(fitted(options, n_components=20).intensity() - TRUTH).sum() > 1.5 * error
        registered = (TRUTH * EXPOSURE / EXPOSURE.max()).sum() / TRUTH[~DEAD].sum()
        assert corrected.registered_fraction_ == pytest.approx(registered, rel=0.03)
        total = np.nansum(corrected.reconstruct_image())
        assert total == pytest.approx(len(X) / corrected.registered_fraction_)


@pytest.mark.parametrize("on_pixels", [True, False])
def test_components_on_dead_pixels_do_not_change_the_image(on_pixels):
    image = load_digits().images[0]
    exposure = np.exp(-((np.indices((8, 8)) - 3.5) ** 2).sum(axis=0) / 30)
    exposure[2, 2] = 0
    rows = sample_counts(image * exposure, 50_000, random_state=0)
    rows = np.floor(rows).astype(int) if on_pixels else rows
    model = CountMixtureAE(30, image_shape=(8, 8), exposure=exposure).fit(rows)
    truth = np.where(exposure > 0, image, np.nan)
    truth /= np.nansum(truth)
    assert model.weights_.max() < 0.3
    assert np.nansum(np.abs(model.intensity() - truth)) < 0.25
    assert model.registered_fraction_ == pytest.approx(np.nansum(truth * exposure), rel=0.03)
    filled = model.intensity(fill=True)
    assert filled[2, 2] <= np.nanmax(model.intensity()[1:4, 1:4])


def test_only_the_ratios_of_exposures_matter():
    model, other = (fitted({"exposure": e}) for e in (EXPOSURE, 1e-7 * EXPOSURE))
    np.testing.assert_allclose(other.means_, model.means_, rtol=1e-9)
    np.testing.assert_allclose(other.score_samples(X[:9]), model.score_samples(X[:9]), rtol=1e-9)


def test_an_exposure_that_is_the_same_everywhere_changes_nothing():
    for options in ({}, {"covariance_type": "cell"}):
        model, other = fitted(options), fitted({**options, "exposure": np.full((H, W), 7.0)})
        np.testing.assert_allclose(other.intensity(), model.intensity(), rtol=1e-9)
        np.testing.assert_allclose(other.score_samples(X), model.score_samples(X), rtol=1e-9)
        assert other.registered_fraction_ == pytest.approx(1)


def test_pixels_without_exposure_are_unknown():
    model = fitted({"exposure": EXPOSURE})
    image = model.intensity()
    np.testing.assert_array_equal(np.isnan(image), DEAD)
    filled = model.intensity(fill=True)
    np.testing.assert_array_equal(filled[~DEAD], image[~DEAD])
    assert (filled[DEAD] > 0).all()
    assert image[~DEAD].sum() == pytest.approx(1)
    assert filled.sum() < 1.5
    larger = model.intensity((H + 2, W - 1))
    assert np.isnan(larger[H:]).all()
    np.testing.assert_allclose(larger[:H], image[:, : W - 1], rtol=1e-9)
    np.testing.assert_array_equal(np.isnan(model.reconstruct_image()), DEAD)
    cells = fitted({"exposure": EXPOSURE, "covariance_type": "cell"})
    assert (cells.intensity(fill=True) > 0).all()


def test_the_exposure_of_a_function_is_that_of_its_map():
    def smooth(places):
        return exposure_at(places)

    places = (np.argwhere(np.ones((H, W)))[:, None] + np.array([0.25, 0.75])[:, None]).reshape(
        -1, 2
    )
    by_map = exposure_at(places).reshape(H, W, -1).mean(axis=2)
    function, pixels = (fitted({"exposure": e}) for e in (smooth, by_map))
    assert function.registered_fraction_ == pytest.approx(pixels.registered_fraction_, rel=0.02)
    difference = np.abs(function.intensity() - pixels.intensity()).sum()
    assert difference < 0.03


def test_the_share_of_a_flat_background_is_found():
    rng = np.random.RandomState(0)
    stars = np.array([[6.0, 5.0], [20.0, 15.0], [24.0, 6.0]])
    source = stars[rng.randint(3, size=3000)] + 0.6 * rng.standard_normal((3000, 2))
    sky = rng.random_sample((7000, 2)) * (32, 24)
    rows = np.vstack([source, sky])
    options = {"image_shape": (32, 24), "background": "flat", "prior_counts": 0, "tol": 1e-7}
    model = fitted({**options, "init": "counts", "max_iter": 500}, rows, 3)
    assert model.background_share_ == pytest.approx(0.7, abs=0.03)
    # The rest of each row is the probability of the background.
    shares = model.responsibilities(rows).sum(axis=1)
    assert shares[:3000].mean() > 0.85
    assert shares[3000:].mean() < 0.1
    assert shares.mean() == pytest.approx(1 - model.background_share_, abs=1e-3)
    # A dark frame in place of a flat background.
    dark = np.ones((32, 24))
    dark[:, 12:] = 0
    half = fitted({**options, "background": dark}, np.vstack([source, sky[sky[:, 1] < 12]]), 3)
    assert half._instrument.background[:, 12:].sum() == 0


def test_a_point_spread_is_taken_off():
    rng = np.random.RandomState(0)
    blur = np.array([[2.0, 0.5], [0.5, 1.0]])
    sharp = np.array([0.8, 0.6])
    true = np.array([16.0, 12.0]) + np.sqrt(sharp) * rng.standard_normal((20_000, 2))
    seen = true + rng.multivariate_normal([0, 0], blur, len(true))
    model = fitted({"image_shape": (32, 24), "psf": blur, "prior_counts": 0}, seen, 1)
    np.testing.assert_allclose(model.covariances_[0], np.diag(sharp), atol=0.06)
    image = model.intensity(deconvolved=True)
    edges = np.arange(33)
    along = np.diff(norm(16, sharp[0] ** 0.5).cdf(edges))
    np.testing.assert_allclose(image.sum(axis=1), along, atol=0.01)
    blurred = np.diff(norm(16, (sharp[0] + blur[0, 0]) ** 0.5).cdf(edges))
    np.testing.assert_allclose(model.intensity().sum(axis=1), blurred, atol=0.01)
    # Without image_shape, too.
    plain = fitted({"image_shape": None, "psf": blur, "prior_counts": 0}, seen, 1)
    np.testing.assert_allclose(plain.covariances_, model.covariances_, atol=1e-3)
    expected = multivariate_normal(plain.means_[0], plain.covariances_[0] + blur)
    np.testing.assert_allclose(plain.score_samples(seen[:9]), expected.logpdf(seen[:9]))


def test_one_frame_after_another():
    options = {"exposure": EXPOSURE, "image_shape": (H, W), "random_state": 0}
    for more in ({"background": "flat"}, {"covariance_type": "cell"}, {"psf": 0.2}):
        once = CountMixtureAE(12, **options, **more).fit(X)
        frames = CountMixtureAE(12, **options, **more)
        first = None
        for frame in np.array_split(X, 4):
            frames.partial_fit(frame)
            first = frames.score(X) if first is None else first
        assert frames.n_counts_ == len(X)
        assert frames.score(X) >= first
        assert frames.score(X) == pytest.approx(once.score(X), abs=0.02)
        assert frames.registered_fraction_ == pytest.approx(once.registered_fraction_, rel=0.03)
        assert VOLUME @ np.exp(frames.score_samples(PLACES)) == pytest.approx(1, abs=1e-4)


# ------------------------------------------------------------------------ uncertainty


@pytest.mark.parametrize(
    "options",
    [
        {"exposure": EXPOSURE},
        {"exposure": EXPOSURE, "covariance_type": "cell", "n_averages": 3},
        {"coordinates": "pixel", "edges": "open"},
        {"psf": 0.2},
    ],
)
def test_standard_deviations_of_pixels(options):
    exposure = options.get("exposure", np.ones((H, W)))
    within = []
    for seed in range(3):
        rows = sample_counts(OBJECT * exposure, 6_000, random_state=seed)
        rows = np.floor(rows) if "coordinates" in options else rows
        model = fitted(options, rows)
        image, std = model.intensity(return_std=True)
        np.testing.assert_array_equal(np.isnan(std), exposure == 0)
        np.testing.assert_array_equal(image, model.intensity())
        lit = exposure > 0
        within.append(np.mean(np.abs(image - TRUTH)[lit] < std[lit]))
    assert 0.5 < np.mean(within) < 0.9


def test_standard_deviations_are_refused_where_they_are_unknown():
    with pytest.raises(ValueError, match="return_std=True needs a model"):
        fitted({}, WITH_DELAY).intensity(return_std=True)
    noisy = CountMixtureAE(5, image_shape=(H, W)).fit(X, noise_covariance=np.full(len(X), 0.1))
    with pytest.raises(ValueError, match="return_std=True needs a model"):
        noisy.intensity(return_std=True)
    with pytest.raises(ValueError, match="cannot be combined with deconvolved=True"):
        fitted({"psf": 0.1}).intensity(return_std=True, deconvolved=True)


# ------------------------------------------------------------------ noise of each count


def test_counts_with_noise_of_their_own():
    rng = np.random.RandomState(0)
    noise = rng.uniform(0.1, 6, len(X))
    true = np.array([6.0, 5.0]) + np.array([0.7, 1.0]) * rng.standard_normal((len(X), 2))
    seen = true + np.sqrt(noise)[:, None] * rng.standard_normal((len(X), 2))
    model = CountMixtureAE(1, prior_counts=0, min_variance=1e-3, tol=1e-7)
    model.fit(seen, noise_covariance=noise)
    np.testing.assert_allclose(model.means_[0], [6, 5], atol=0.06)
    np.testing.assert_allclose(model.covariances_[0], np.diag([0.49, 1.0]), atol=0.1)
    expected = [
        multivariate_normal(model.means_[0], model.covariances_[0] + v * np.eye(2)).logpdf(row)
        for v, row in zip(noise[:20], seen[:20], strict=True)
    ]
    scores = model.score_samples(seen[:20], noise_covariance=noise[:20])
    np.testing.assert_allclose(scores, expected)
    assert model.score(seen[:20], noise_covariance=noise[:20]) == pytest.approx(scores.mean())
    # The same covariance for all counts is a point spread; weights are copies.
    same = CountMixtureAE(3).fit(seen, noise_covariance=np.full(len(X), 0.5))
    np.testing.assert_allclose(same.means_, CountMixtureAE(3, psf=0.5).fit(seen).means_, rtol=1e-3)
    weight = rng.randint(0, 3, len(X))
    copies = np.repeat(np.arange(len(X)), weight)
    weighted = CountMixtureAE(3, max_iter=5, tol=0.1)
    weighted.fit(seen, sample_weight=weight, noise_covariance=noise)
    repeated = CountMixtureAE(3, max_iter=5, tol=0.1)
    repeated.fit(seen[copies], noise_covariance=noise[copies])
    np.testing.assert_allclose(weighted.means_, repeated.means_, rtol=1e-6)


def test_noise_is_combined_with_the_instrument():
    noise = np.random.RandomState(0).uniform(0, 1, (len(X), 2))
    for options in ({}, {"psf": 0.3}, {"background": "flat"}, {"coordinates": "pixel"}):
        rows = np.floor(X) if "coordinates" in options else X
        model = CountMixtureAE(8, image_shape=(H, W), tol=1e-3, **options)
        model.fit(rows, noise_covariance=noise)
        assert (np.diff(model.objectives_) > -1e-9).all()
        assert 0.9 < model.intensity(deconvolved=True).sum() <= 1
        assert np.isfinite(model.score(rows, noise_covariance=noise))
    delayed = CountMixtureAE(8, image_shape=(H, W), tol=1e-3)
    of_delay = np.column_stack([noise, np.full(len(X), 1e-20)])
    delayed.fit(WITH_DELAY, noise_covariance=of_delay)
    assert delayed.score(WITH_DELAY, noise_covariance=of_delay) > 10


def test_searches_route_the_noise():
    rng = np.random.RandomState(0)
    noise = rng.uniform(0.1, 2, 400)
    with sklearn.config_context(enable_metadata_routing=True):
        model = CountMixtureAE(tol=1e-2).set_fit_request(noise_covariance=True)
        model.set_score_request(noise_covariance=True)
        search = GridSearchCV(model, {"n_components": [1, 2]}, cv=2)
        search.fit(X[:400], noise_covariance=noise)
    alone = CountMixtureAE(2, tol=1e-2).fit(X[:200], noise_covariance=noise[:200])
    score = alone.score(X[200:400], noise_covariance=noise[200:])
    assert search.cv_results_["split1_test_score"][1] == pytest.approx(score)


# ------------------------------------------------------------------------- extremes


@pytest.mark.parametrize("psf", [1e2, 1e6])
def test_a_wide_point_spread_is_uniform(psf):
    model = fitted({"psf": psf, "max_iter": 3, "tol": 1}, n_components=3)
    assert model.intensity().sum() == pytest.approx(1, abs=1e-6)
    if psf > 1e4:
        np.testing.assert_allclose(model.score_samples(X[:5]), -np.log(H * W), atol=1e-6)


def test_a_warm_start_finds_the_background():
    rng = np.random.RandomState(0)
    source = np.array([6.0, 5.0]) + 0.5 * rng.standard_normal((2000, 2))
    rows = np.vstack([source, rng.random_sample((2000, 2)) * (H, W)])
    model = CountMixtureAE(2, image_shape=(H, W), warm_start=True).fit(rows)
    assert model.set_params(background="flat").fit(rows).background_share_ > 0.35
    many = CountMixtureAE(8, image_shape=(H, W), background="flat").fit(rows)
    assert 0.33 < many.background_share_ < 0.6  # at least that of the darkest parts


def test_the_units_of_a_point_spread_are_those_of_the_features():
    blur = np.diag([0.2, 0.2, 1e-20])
    model = fitted({"psf": blur}, WITH_DELAY, 3)
    drawn = model.sample(5000, random_state=0)
    assert drawn[:, 2].std() == pytest.approx(DELAY.std(), rel=0.1)
    noise = np.broadcast_to(blur, (len(X), 3, 3))
    options = {"image_shape": (H, W), "prior_counts": 5.0}
    alike = CountMixtureAE(3, **options, edges="open", psf=blur).fit(WITH_DELAY)
    other = CountMixtureAE(3, **options).fit(WITH_DELAY, noise_covariance=noise)
    assert alike.score(WITH_DELAY) == pytest.approx(
        other.score(WITH_DELAY, noise_covariance=noise), abs=1e-6
    )


def test_a_background_is_within_the_range_of_further_features():
    model = fitted({"background": "flat"}, WITH_DELAY, 3)
    far = np.array([[5.0, 5.0, 1.0]])
    assert model.score_samples(far) < -1e3
    assert model.sample(5000, random_state=0)[:, 2].max() < 3 * DELAY.max()


@pytest.mark.parametrize("edges", ["reflect", "open"])
def test_the_expected_counts_are_those_that_were_recorded(edges):
    exposure = np.where(ROW < 6, 0.5, 1.0)
    rows = sample_counts(OBJECT * exposure, 4000, random_state=0)
    model = fitted({"exposure": exposure, "edges": edges}, rows)
    assert (model.reconstruct_image() * exposure).sum() == pytest.approx(4000)


def test_draws_of_pixels_are_pixels():
    for edges in ("reflect", "open"):
        model = fitted({"edges": edges}, np.floor(X).astype("uint16"))
        drawn = model.sample(5000, random_state=0)
        assert drawn.dtype.kind == "i"
        assert counts_to_image(drawn, (H, W)).sum() == 5000
        assert np.isfinite(model.score(drawn))
        again = fitted({"edges": edges}, drawn)  # the draws are taken as pixels, too
        centre = centre_of(again.intensity())
        np.testing.assert_allclose(centre, centre_of(model.intensity()), atol=0.15)


def test_noise_extends_beyond_the_image():
    noise = np.full(len(X), 0.4)
    model = CountMixtureAE(3, image_shape=(H, W)).fit(X, noise_covariance=noise)
    line = np.arange(-6, 18, 0.25)
    places = np.stack(np.meshgrid(line, line, indexing="ij"), axis=-1).reshape(-1, 2)
    scores = model.score_samples(places, noise_covariance=np.full(len(places), 0.4))
    assert np.exp(scores).sum() / 16 == pytest.approx(1, abs=1e-3)
    with pytest.raises(ValueError, match="noise_covariance is only allowed for Gaussians"):
        fitted({}).score_samples(X, noise_covariance=noise)
    with pytest.raises(ValueError, match="edges='reflect' cannot be combined"):
        CountMixtureAE(image_shape=(H, W), edges="reflect").fit(X, noise_covariance=noise)
    codes = CountMixtureAE(3).fit_transform(X, noise_covariance=noise)
    assert codes.shape == (len(X), 1)


def test_deviations_are_those_of_the_fitted_sizes():
    model = fitted({"n_averages": 2}, n_components=3)
    _, std = model.intensity(return_std=True)
    model.set_params(n_components=50, n_averages=7)
    np.testing.assert_array_equal(model.intensity(return_std=True)[1], std)


def test_attributes_of_the_fit_are_not_there_before():
    for name in ("background_share_", "registered_fraction_"):
        assert not hasattr(CountMixtureAE(), name)
        for kind in ("full", "cell"):
            assert name in vars(fitted({"covariance_type": kind}))


# ------------------------------------------------------------------- further features

DELAY = 1e-9 * (2 + 0.2 * X[:, 1] + np.random.RandomState(1).standard_exponential(len(X)))
WITH_DELAY = np.column_stack([X, DELAY])


@pytest.mark.parametrize("options", CASES.values(), ids=CASES)
def test_an_energy_or_a_delay_beside_the_place(options):
    if options.get("covariance_type") == "spherical":
        options = {**options, "covariance_type": "full"}
    model = fitted(options, WITH_DELAY, 40 if options.get("covariance_type") == "cell" else 12)
    assert model.means_.shape[1] == 3
    # The density, integrated over all places and delays.
    rng = np.random.RandomState(0)
    delays = np.linspace(-1e-8, 2.5e-8, 701)
    places = rng.random_sample((12, 2)) * (H, W)
    grid = np.column_stack([np.repeat(places, len(delays), axis=0), np.tile(delays, len(places))])
    density = np.exp(model.score_samples(grid)).reshape(len(places), -1)
    marginal = np.trapezoid(density, delays)
    image = model.intensity(fill=True)
    whole = model.intensity((H, W, 12), ranges=[(-1e-8, 2.5e-8)], fill=True)
    np.testing.assert_allclose(whole.sum(axis=2), image, rtol=0.01, atol=1e-6)
    if set(options) <= {"n_averages", "covariance_type"}:
        pixel = tuple(np.floor(places).astype(int).T)
        assert np.corrcoef(marginal, image[pixel])[0, 1] > 0.9
    drawn = model.sample(3000, random_state=0)
    assert np.corrcoef(drawn[:, 1:].T)[0, 1] == pytest.approx(
        np.corrcoef(WITH_DELAY[:, 1:].T)[0, 1], abs=0.15
    )
    assert model.score(WITH_DELAY) > 10  # a density in 1/s


def test_units_of_further_features_do_not_matter():
    scale = 2.0**30  # a power of two, so that rounding is the same
    for kind in ("full", "diag", "tied", "cell"):
        options = {"covariance_type": kind, "exposure": EXPOSURE}
        model = fitted(options, WITH_DELAY)
        other = fitted(options, WITH_DELAY * (1, 1, scale))
        np.testing.assert_allclose(other.intensity(), model.intensity(), rtol=1e-9)
        np.testing.assert_allclose(
            other.score(WITH_DELAY * (1, 1, scale)), model.score(WITH_DELAY) - np.log(scale)
        )


def test_pixels_beside_a_delay():
    rows = np.column_stack([np.floor(X), DELAY])
    model = fitted({"coordinates": "pixel"}, rows)
    delays = np.linspace(-1e-8, 2.5e-8, 401)
    grid = np.column_stack([np.full((401, 2), (4, 7)), delays])
    probability = np.trapezoid(np.exp(model.score_samples(grid)), delays)
    assert probability == pytest.approx(model.intensity()[4, 7], rel=1e-3)
    frame = pd.DataFrame({"y": PIXELS[:900, 0], "x": PIXELS[:900, 1], "energy": DELAY[:900]})
    mixed = fitted({"image_shape": (32, 24)}, frame, 5)
    assert mixed._are_pixels
    drawn = mixed.sample(9, random_state=0)
    assert (drawn[:, :2] == np.floor(drawn[:, :2])).all()
    assert (drawn[:, 2] != np.floor(drawn[:, 2])).all()


def test_a_refit_forgets_the_instrument():
    model = fitted({"exposure": EXPOSURE, "background": "flat", "coordinates": "auto"}, WITH_DELAY)
    model.set_params(exposure=None, background=None).fit(X)
    fresh = fitted({})
    np.testing.assert_array_equal(model.score_samples(X), fresh.score_samples(X))
    assert (model.registered_fraction_, model.background_share_) == (1, 0)


@pytest.mark.parametrize("options", CASES.values(), ids=CASES)
def test_files_hold_the_instrument(options):
    model = fitted(options)
    loaded = pickle.loads(pickle.dumps(model))
    np.testing.assert_array_equal(loaded.score_samples(X[:50]), model.score_samples(X[:50]))
    np.testing.assert_array_equal(loaded.intensity(), model.intensity())


# ------------------------------------------------------------------------------ errors

BAD = {
    "shape of the exposure": ({"exposure": np.ones((3, 3))}, r"exposure has shape \(3, 3\)"),
    "negative exposure": ({"exposure": -np.ones((H, W))}, "exposure has values from -1"),
    "no exposure": ({"exposure": np.zeros((H, W))}, "exposure is zero everywhere"),
    "text": ({"exposure": np.full((H, W), "a")}, "exposure has dtype <U1"),
    "function": ({"exposure": lambda x: x}, r"exposure returned values of shape \(\d+, 2\)"),
    "unexposed": ({"exposure": np.eye(H, W)}, "counts where exposure is zero"),
    "without shape": ({"exposure": EXPOSURE, "image_shape": None}, "exposure was given, but image"),
    "background": ({"background": "dark"}, "'background' parameter"),
    "dark": ({"background": np.zeros((H, W))}, "background is zero on all exposed pixels"),
    "cells": ({"background": "flat", "covariance_type": "cell"}, "background cannot be combined"),
    "cells with psf": ({"psf": 1.0, "covariance_type": "cell"}, "psf cannot be combined"),
    "partition": ({"exposure": EXPOSURE, "algorithm": "partition"}, "exposure cannot be combined"),
    "kernel": ({"psf": np.ones((5, 5))}, r"psf has shape \(5, 5\); expected one variance"),
    "asymmetric": ({"psf": [[1.0, 0.5], [0.0, 1.0]]}, "psf must be finite and symmetric"),
    "negative": ({"psf": [[1.0, 2.0], [2.0, 1.0]]}, "psf has the variances"),
    "zero": ({"psf": 0.0}, "'psf' parameter"),
    "reflect": ({"edges": "reflect", "image_shape": None}, "edges='reflect' was given"),
    "edges": ({"edges": "mirror"}, "'edges' parameter"),
    "pixel": ({"coordinates": "pixel", "image_shape": None}, "coordinates='pixel' was given"),
    "coordinates": ({"coordinates": "pixels"}, "'coordinates' parameter"),
}


def test_noise_that_is_not_allowed_says_why():
    noise = np.ones(len(X))
    for options in ({"exposure": EXPOSURE}, {"covariance_type": "cell"}):
        with pytest.raises(ValueError, match="noise_covariance cannot be combined with"):
            CountMixtureAE(5, image_shape=(H, W), **options).fit(X, noise_covariance=noise)
    with pytest.raises(ValueError, match="use the parameter psf"):
        CountMixtureAE(5).fit(X, noise_covariance=np.eye(2))
    with pytest.raises(ValueError, match="noise_covariance is only allowed for Gaussians"):
        fitted({"exposure": EXPOSURE}).score(X, noise_covariance=noise)


@pytest.mark.parametrize(("options", "message"), BAD.values(), ids=BAD)
def test_instruments_that_are_not_allowed_say_why(options, message):
    with pytest.raises(ValueError, match=message):
        fitted(options)


def test_ranges_of_bins_are_checked():
    model = fitted({}, WITH_DELAY)
    with pytest.raises(ValueError, match="has no bins of further features"):
        model.intensity((H, W), ranges=[(0, 1)])
    with pytest.raises(ValueError, match=r"expected the lowest and the highest value"):
        model.intensity((H, W, 4), ranges=[(1, 0)])
    with pytest.raises(ValueError, match=r"expected 2, one for each axis of the image, or 3"):
        model.intensity((H,))


def test_files_of_earlier_versions_have_the_former_meaning():
    model = fitted({"edges": "open", "coordinates": "continuous"})
    new = ("coordinates", "edges", "exposure", "background", "psf", "background_share_")
    lacking = {*new, "registered_fraction_", "_instrument_of_fit", "_histogram", "_skae_format"}
    state = {name: v for name, v in model.__getstate__().items() if name not in lacking}
    loaded = object.__new__(CountMixtureAE)
    loaded.__setstate__(state)
    np.testing.assert_array_equal(loaded.score_samples(X), model.score_samples(X))
    np.testing.assert_array_equal(loaded.intensity(), model.intensity())
    np.testing.assert_array_equal(loaded.fit(X).means_, model.means_)
