"""Images from counts with the defaults: which model is chosen, and densities on pixels."""

import pickle

import numpy as np
import pytest
from scipy.ndimage import gaussian_filter
from sklearn.base import clone
from sklearn.mixture import GaussianMixture

from skae import CountMixtureAE, counts_to_image, image_to_counts, sample_counts

SHAPE = (40, 36)


def picture():
    """A bright half with stripes, beside a slope."""
    i, j = np.indices(SHAPE)
    return 2 + 4 * (i > 22) * (1 + (j % 6 > 2)) + 3 * (i <= 22) * j / SHAPE[1]


IMAGE = picture()
COUNTS = sample_counts(IMAGE, 60_000, random_state=0)
NEW = sample_counts(IMAGE, 20_000, random_state=1)
CENTRES = np.indices(SHAPE).reshape(2, -1).T + 0.5


def image_model(**params):
    return CountMixtureAE(image_shape=SHAPE, random_state=0, **params)


@pytest.fixture(scope="module")
def model():
    return image_model().fit(COUNTS)


def stars(n, seed):
    """20 stars of standard deviation 0.7, and 10 % background."""
    rng = np.random.RandomState(5)
    places = rng.uniform(3, 45, (20, 2))
    rng = np.random.RandomState(seed)
    X = places[rng.randint(0, 20, n)] + 0.7 * rng.standard_normal((n, 2))
    away = rng.random_sample(n) < 0.1
    X[away] = rng.uniform(0, 48, (away.sum(), 2))
    return X[((X >= 0) & (X < 48)).all(axis=1)]


def test_the_default_for_an_image_is_chosen_and_is_better_than_a_kernel(model):
    assert model.covariance_type_ == "pixel"
    assert model.n_components_ == IMAGE.size
    histogram = counts_to_image(COUNTS, SHAPE).astype(float)
    kernels = [gaussian_filter(histogram, width) for width in (0.5, 0.7, 1, 1.5, 2, 3)]
    pixels = tuple(NEW.astype(int).T)
    best = max(np.log(kernel / kernel.sum())[pixels].mean() for kernel in kernels)
    assert model.score(NEW) > best + 0.002
    for kind, size in (("full", 200), ("cell", 100)):
        other = image_model(n_components=size, covariance_type=kind, n_averages=4).fit(COUNTS)
        assert model.score(NEW) > other.score(NEW)


def test_the_density_of_pixels_is_what_all_queries_use(model):
    density = np.exp(model.score_samples(CENTRES))
    assert density.sum() == pytest.approx(1)
    np.testing.assert_allclose(model.intensity(), density.reshape(SHAPE))
    np.testing.assert_allclose(model.weights_, density)
    assert model.score_samples([[40.1, 3.0], [-0.1, 3.0]]).tolist() == [-np.inf, -np.inf]
    assert np.isfinite(model.score_samples([[40.0, 36.0]])).all()
    codes = model.transform(COUNTS[:50])
    np.testing.assert_array_equal(model.inverse_transform(codes), np.floor(COUNTS[:50]) + 0.5)
    shares = model.responsibilities(COUNTS[:50])
    np.testing.assert_array_equal(shares.indices, codes[:, 0])
    np.testing.assert_array_equal(shares.data, 1)
    coarse = model.intensity((20, 18))
    np.testing.assert_allclose(coarse, density.reshape(SHAPE)[:20, :18])
    drawn = counts_to_image(model.sample(200_000, random_state=0), SHAPE)
    assert abs(drawn / drawn.sum() - density.reshape(SHAPE)).sum() < 0.1


def test_a_stream_is_the_fit_to_all_counts(model):
    stream = image_model().partial_fit(COUNTS[:30_000])
    once = stream.score(NEW)
    stream.partial_fit(COUNTS[30_000:])
    assert stream.n_counts_ == len(COUNTS)
    assert stream.score(NEW) > once
    assert stream.score(NEW) == pytest.approx(model.score(NEW), abs=2e-3)


def test_results_do_not_depend_on_threads_order_or_files(model):
    again = clone(model).set_params(n_jobs=2).fit(COUNTS[::-1])
    np.testing.assert_allclose(again.weights_, model.weights_, rtol=1e-9)
    pixels, weight = image_to_counts(counts_to_image(COUNTS, SHAPE))
    binned = clone(model).fit(pixels, sample_weight=weight)
    assert abs(binned.weights_ - model.weights_).sum() < 0.02  # other counts are held out
    indices = clone(model).fit(COUNTS.astype(int))
    np.testing.assert_allclose(indices.weights_, binned.weights_, rtol=1e-9)
    loaded = pickle.loads(pickle.dumps(model))
    np.testing.assert_array_equal(loaded.weights_, model.weights_)
    loaded.partial_fit(NEW)


def test_gaussians_are_chosen_for_point_sources():
    train, test = stars(6000, 0), stars(6000, 1)
    found = CountMixtureAE(image_shape=(48, 48), random_state=0).fit(train)
    assert found.covariance_type_ == "full"
    assert 15 <= found.n_components_ <= 300
    pixels = CountMixtureAE(image_shape=(48, 48), covariance_type="pixel").fit(train)
    assert found.score(test) > pixels.score(test) + 0.02


def test_the_prior_of_point_sources_is_chosen():
    train, test = stars(1000, 0), stars(6000, 1)
    options = {"n_components": 40, "image_shape": (48, 48), "random_state": 0}
    chosen = CountMixtureAE(**options).fit(train)
    known = {p: CountMixtureAE(prior_counts=p, **options).fit(train) for p in (0, 0.5, 5)}
    assert chosen.prior_counts_ < 5
    assert chosen.score(test) == known[chosen.prior_counts_].score(test)
    assert chosen.score(test) > known[5].score(test) + 0.05
    peer = GaussianMixture(40, reg_covar=1 / 12, random_state=0, max_iter=500).fit(train)
    assert chosen.score(test) > peer.score(test) - 0.2


def test_a_smooth_image_keeps_the_prior():
    i, j = np.indices((32, 32))
    smooth = np.exp(-((i - 16) ** 2 + (j - 16) ** 2) / 200)
    counts = sample_counts(smooth, 5000, random_state=0)
    options = {"n_components": 60, "image_shape": (32, 32), "random_state": 0}
    assert CountMixtureAE(**options).fit(counts).prior_counts_ == 5
    # Without an image, the prior is not chosen.
    assert CountMixtureAE(60).fit(counts).prior_counts_ == 5


@pytest.mark.parametrize("kind", ["pixel", "auto"])
def test_pixels_are_corrected_for_the_exposure(kind):
    exposure = np.linspace(0.3, 1, SHAPE[1]) * np.ones(SHAPE)
    exposure[10:13, 5:8] = 0
    recorded = sample_counts(IMAGE * exposure, 60_000, random_state=0)
    model = image_model(covariance_type=kind, exposure=exposure).fit(recorded)
    assert model.covariance_type_ == "pixel"
    truth = IMAGE / IMAGE[exposure > 0].sum()
    found = model.intensity()
    assert np.isnan(found[11, 6])
    assert np.nansum(abs(found - truth)) < 0.12
    assert abs(model.intensity(fill=True) - truth)[10:13, 5:8].max() < 0.5 * truth.max()
    seen = np.exp(model.score_samples(CENTRES[(exposure > 0).ravel()]))
    assert seen.sum() == pytest.approx(1)


def test_the_std_of_pixels_covers_the_truth(model):
    image, std = model.intensity(return_std=True)
    within = abs(image - IMAGE / IMAGE.sum()) < std
    assert 0.5 < within.mean() < 0.9


@pytest.mark.filterwarnings("ignore:Training did not converge")
@pytest.mark.parametrize(
    ("params", "kind"),
    [
        ({"psf": 0.5}, "full"),
        ({"background": "flat"}, "full"),
        ({"algorithm": "partition"}, "full"),
        ({"n_components": 5}, "full"),
        ({"image_shape": None}, "full"),
    ],
)
def test_auto_means_full_covariances_elsewhere(params, kind):
    found = image_model().set_params(max_iter=3, tol=1e-2, **params).fit(COUNTS[:2000])
    assert found.covariance_type_ == kind


@pytest.mark.parametrize(
    ("params", "message"),
    [
        ({"n_components": 5}, "n_components=5 cannot be combined with covariance_type='pixel'"),
        ({"n_components": "bic"}, "n_components='bic' cannot be combined"),
        ({"image_shape": None}, "covariance_type='pixel' with image_shape=None"),
        ({"psf": 1.0}, "psf cannot be combined with covariance_type='pixel'"),
        ({"background": "flat"}, "background cannot be combined with covariance_type='pixel'"),
    ],
)
def test_what_pixels_cannot_do_is_said(params, message):
    with pytest.raises(ValueError, match=message):
        image_model(covariance_type="pixel").set_params(**params).fit(COUNTS[:500])


@pytest.mark.parametrize("n", [2, 5, 99, 101])
@pytest.mark.parametrize("shape", [(1, 9), (3, 3), (5, 40), (7,), (4, 5, 3)])
def test_few_counts_and_small_images(shape, n):
    rng = np.random.RandomState(0)
    X = rng.random_sample((n, len(shape))) * shape
    found = CountMixtureAE(image_shape=shape, random_state=0).fit(X)
    assert np.isfinite(found.score(X))
    assert found.intensity().sum() == pytest.approx(1)


@pytest.mark.parametrize("width", [2.0, 3.0])
def test_gaussians_have_no_advantage_from_a_steep_exposure(width):
    """Their integral over the exposure was lost by cancellation, so that they had 683 nats."""
    i, j = np.indices((32, 32))
    exposure = np.exp(-((i - 15.5) ** 2 + (j - 15.5) ** 2) / 2 / width**2)
    counts = sample_counts(exposure, 3000, random_state=0)
    found = CountMixtureAE(image_shape=(32, 32), exposure=exposure, random_state=0).fit(counts)
    new = sample_counts(exposure, 20_000, random_state=1)
    truth = np.log(exposure / exposure.sum())[tuple(new.astype(int).T)].mean()
    assert abs(found.score(new) - truth) < 0.1


def test_an_exposure_that_is_almost_zero_is_finite():
    exposure = np.ones((16, 16))
    exposure[:, 3] = exposure[:, 8:] = 1e-17
    X = np.random.RandomState(0).random_sample((500, 2)) * [16, 3]
    found = CountMixtureAE(image_shape=(16, 16), exposure=exposure, covariance_type="pixel").fit(X)
    assert np.isfinite(found.intensity()).all()
    assert found.sample(3, random_state=0).shape == (3, 2)


def test_an_image_of_four_axes_has_what_can_be_integrated():
    X = np.random.RandomState(0).random_sample((200, 4)) * [6, 5, 4, 3]
    assert CountMixtureAE(image_shape=(6, 5, 4, 3)).fit(X).covariance_type_ == "full"
    pixels = CountMixtureAE(image_shape=(6, 5, 4, 3), covariance_type="pixel").fit(X)
    assert pixels.intensity().sum() == pytest.approx(1)


def test_a_warm_start_keeps_what_was_chosen():
    train = stars(3000, 0)
    found = CountMixtureAE(image_shape=(48, 48), warm_start=True, random_state=0).fit(train)
    size, prior = found.n_components_, found.prior_counts_
    found.fit(train)
    assert (found.n_components_, found.prior_counts_) == (size, prior)


def test_a_given_prior_is_that_of_the_choice():
    found = CountMixtureAE(image_shape=(48, 48), prior_counts=0.2, random_state=0)
    assert found.fit(stars(2000, 0)).prior_counts_ == 0.2


def test_sizes_of_a_stream_of_pixels(model):
    stream = image_model(covariance_type="pixel").partial_fit(COUNTS[:100])
    stream.partial_fit(COUNTS[100:])
    assert stream.compression_ratio_ == pytest.approx(model.compression_ratio_)


def test_large_weights_are_allowed():
    weight = np.full(1000, 1e60)
    found = image_model().fit(COUNTS[:1000], sample_weight=weight)
    assert np.isfinite(found.score(COUNTS[:1000]))
