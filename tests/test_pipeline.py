"""sample_pipeline: the last step samples, the others are inverted."""

import re

import numpy as np
import pandas as pd
import polars as pl
import pytest
from numpy.testing import assert_allclose, assert_array_equal
from sklearn.base import BaseEstimator, clone
from sklearn.cluster import KMeans
from sklearn.decomposition import PCA
from sklearn.exceptions import NotFittedError
from sklearn.frozen import FrozenEstimator
from sklearn.mixture import BayesianGaussianMixture, GaussianMixture
from sklearn.model_selection import GridSearchCV
from sklearn.neighbors import KernelDensity
from sklearn.pipeline import Pipeline, make_pipeline
from sklearn.preprocessing import FunctionTransformer, Normalizer, PowerTransformer, StandardScaler

from skae import PPCA, LinearAE, sample_pipeline

SAMPLERS = [
    LinearAE(2),
    PPCA(2),
    KernelDensity(bandwidth=0.3),
    GaussianMixture(2, random_state=5),
    BayesianGaussianMixture(n_components=2, max_iter=1000, random_state=5),
]
every_sampler = pytest.mark.parametrize("sampler", SAMPLERS, ids=lambda s: type(s).__name__)

NAMES = ["a", "b", "c", "d"]


@pytest.fixture
def X():
    rng = np.random.RandomState(0)
    return rng.standard_normal((200, 4)) @ rng.standard_normal((4, 4)) + [10, 20, 30, 40]


class Noise(BaseEstimator):
    """A sampler that takes no random_state anywhere."""

    def fit(self, X, y=None):
        self.width_ = X.shape[1]
        return self

    def sample(self, n_samples):
        return np.zeros((n_samples, self.width_))


@every_sampler
def test_draw_of_the_last_step_through_the_inverse_of_the_others(sampler, X):
    pipeline = make_pipeline(StandardScaler(), PCA(3), clone(sampler)).fit(X)
    drawn = sample_pipeline(pipeline, 6, random_state=7)
    last = pipeline[-1]
    if "Mixture" in type(last).__name__:
        codes, _ = last.set_params(random_state=7).sample(6)
    else:
        codes = last.sample(6, random_state=7)
    scaler, pca = pipeline[0], pipeline[1]
    expected = (codes @ pca.components_ + pca.mean_) * scaler.scale_ + scaler.mean_
    assert drawn.shape == (6, 4)
    assert_allclose(drawn, expected, rtol=1e-12)


def test_moments_of_the_draw_are_those_of_the_data(X):
    # StandardScaler and a one-component mixture lose nothing of mean and covariance.
    pipeline = make_pipeline(StandardScaler(), GaussianMixture(1, reg_covar=0)).fit(X)
    n = 100_000
    drawn = sample_pipeline(pipeline, n, random_state=0)
    covariance = np.cov(X.T, bias=True)
    assert_allclose(drawn.mean(0), X.mean(0), atol=5 * np.sqrt(covariance.max() / n))
    assert_allclose(np.cov(drawn.T), covariance, atol=5 * covariance.max() * np.sqrt(2 / n))


@every_sampler
def test_seeds(sampler, X):
    pipeline = make_pipeline(StandardScaler(), clone(sampler)).fit(X)

    def draw(random_state):
        return sample_pipeline(pipeline, 5, random_state=random_state)

    assert_array_equal(draw(0), draw(0))
    assert_array_equal(draw(0), draw(np.random.RandomState(0)))
    assert not np.array_equal(draw(0), draw(1))
    assert not np.array_equal(draw(None), draw(None))
    generator = np.random.RandomState(0)
    assert not np.array_equal(draw(generator), draw(generator))


@every_sampler
def test_pipeline_and_global_generator_are_left_alone(sampler, X):
    pipeline = make_pipeline(StandardScaler(), clone(sampler)).fit(X)
    last, attributes, parameters = pipeline[-1], dict(vars(pipeline[-1])), str(sampler.get_params())
    np.random.seed(3)  # noqa: NPY002  what is tested is that nobody reads it
    before = np.random.get_state()  # noqa: NPY002
    sample_pipeline(pipeline, 5)
    sample_pipeline(pipeline, 5, random_state=0)
    after = np.random.get_state()  # noqa: NPY002
    assert_array_equal(before[1], after[1])
    assert before[2:] == after[2:]
    assert pipeline[-1] is last
    assert vars(last).keys() == attributes.keys()
    assert all(vars(last)[name] is value for name, value in attributes.items())
    assert str(last.get_params()) == parameters


@pytest.mark.parametrize("skipped", [None, "passthrough"])
def test_passed_through_steps(skipped, X):
    pipeline = Pipeline(
        [
            ("first", skipped),
            ("scale", StandardScaler()),
            ("middle", skipped),
            ("reduce", LinearAE(2)),
            ("end", skipped),
        ]
    ).fit(X)
    plain = make_pipeline(StandardScaler(), LinearAE(2)).fit(X)
    assert_array_equal(
        sample_pipeline(pipeline, 5, random_state=0), sample_pipeline(plain, 5, random_state=0)
    )


def test_parameters_reach_the_last_step(X):
    pipeline = make_pipeline(StandardScaler(), LinearAE(2)).fit(X)
    means = sample_pipeline(pipeline, 5, noise=False, random_state=0)
    scaled = pipeline[0].transform(means)
    # Without noise the rows lie in the plane of the two components.
    assert_allclose(pipeline[-1].reconstruct(scaled), scaled, atol=1e-12)
    with pytest.raises(TypeError, match="loud"):
        sample_pipeline(pipeline, 5, loud=True)


def test_pipelines_nest(X):
    inner = make_pipeline(PCA(3), KernelDensity())
    nested = make_pipeline(StandardScaler(), inner).fit(X)
    flat = make_pipeline(StandardScaler(), PCA(3), KernelDensity()).fit(X)
    assert_array_equal(
        sample_pipeline(nested, 5, random_state=0), sample_pipeline(flat, 5, random_state=0)
    )
    middle = make_pipeline(make_pipeline(StandardScaler(), PCA(3)), KernelDensity()).fit(X)
    assert_array_equal(
        sample_pipeline(middle, 5, random_state=0), sample_pipeline(flat, 5, random_state=0)
    )


@pytest.mark.parametrize("make_frame", [pd.DataFrame, pl.DataFrame], ids=["pandas", "polars"])
@pytest.mark.parametrize("reduce", [LinearAE(2), PPCA(2)], ids=["LinearAE", "PPCA"])
@pytest.mark.parametrize(
    "others",
    [[], [StandardScaler()], [PowerTransformer(), PCA(3)], [LinearAE(3)]],
    ids=lambda steps: "+".join(type(s).__name__ for s in steps) or "alone",
)
def test_frames(make_frame, reduce, others, X):
    library = make_frame.__module__.partition(".")[0]
    rows = dict(zip(NAMES, X.T, strict=True))
    steps = [clone(step) for step in (*others, reduce)]
    pipeline = make_pipeline(*steps).set_output(transform=library)
    drawn = sample_pipeline(pipeline.fit(make_frame(rows)), 5, random_state=0)
    assert type(drawn) is make_frame
    assert list(drawn.columns) == NAMES
    plain = make_pipeline(*(clone(step) for step in steps)).fit(X)
    assert_allclose(drawn.to_numpy(), sample_pipeline(plain, 5, random_state=0), rtol=1e-10)


def test_frame_without_names_of_the_data(X):
    pipeline = make_pipeline(PCA(3), LinearAE(2)).set_output(transform="pandas").fit(X)
    assert list(sample_pipeline(pipeline, 5).columns) == ["x0", "x1", "x2", "x3"]


def test_array_where_no_frame_is_asked_for(X):
    frame = pd.DataFrame(X, columns=NAMES)
    for last in (LinearAE(2), GaussianMixture(2)):
        drawn = sample_pipeline(make_pipeline(PowerTransformer(), last).fit(frame), 5)
        assert type(drawn) is np.ndarray


@pytest.mark.parametrize(
    ("steps", "message"),
    [
        ([("scale", StandardScaler()), ("reduce", PCA(2))], "'reduce' (PCA), has no method sample"),
        (
            [("norm", Normalizer()), ("reduce", LinearAE(2))],
            "'norm' (Normalizer) has no method inverse_transform",
        ),
        (
            [("in", Pipeline([("norm", Normalizer())])), ("reduce", LinearAE(2))],
            "'in' (Pipeline) has no method inverse_transform",
        ),
        (
            [("scale", StandardScaler()), ("in", Pipeline([("cluster", KMeans(2))]))],
            "'cluster' (KMeans), has no method sample",
        ),
        ([("nothing", "passthrough")], "All steps of the pipeline"),
    ],
)
def test_steps_that_cannot_be_sampled(steps, message, X):
    for pipeline in (Pipeline(steps), Pipeline(steps).fit(X)):
        with pytest.raises(TypeError, match=re.escape(message)):
            sample_pipeline(pipeline)


@every_sampler
def test_a_search_stands_for_its_best_pipeline(sampler, X):
    """At the whole and as the last step, frozen or not; the seed reaches what samples."""
    pipeline = make_pipeline(StandardScaler(), PCA(), clone(sampler))
    search = GridSearchCV(pipeline, {"pca__n_components": [3, 4]}, cv=2).fit(X)
    best = search.best_estimator_
    expected = sample_pipeline(best, 5, random_state=3)
    for given in (search, FrozenEstimator(search), FrozenEstimator(best)):
        assert_array_equal(sample_pipeline(given, 5, random_state=3), expected)
    parameter = next(name for name in sampler.get_params() if name in ("bandwidth", "tol"))
    value = getattr(sampler, parameter)
    inner = GridSearchCV(clone(sampler), {parameter: [value]}, cv=2)
    for last in (inner, FrozenEstimator(clone(sampler).fit(StandardScaler().fit_transform(X)))):
        nested = make_pipeline(StandardScaler(), last).fit(X)
        plain = make_pipeline(StandardScaler(), clone(sampler)).fit(X)
        expected = sample_pipeline(plain, 5, random_state=3)
        assert_allclose(sample_pipeline(nested, 5, random_state=3), expected)


def test_searches_that_chose_nothing(X):
    """Those that are not fitted, that did not refit, and that are over no pipeline."""
    grid = {"reduce__n_components": [1, 2]}
    pipeline = Pipeline([("scale", StandardScaler()), ("reduce", LinearAE())])
    with pytest.raises(NotFittedError, match="GridSearchCV"):
        sample_pipeline(GridSearchCV(pipeline, grid))
    with pytest.raises(TypeError, match="refit=False and has no best_estimator_"):
        sample_pipeline(GridSearchCV(pipeline, grid, refit=False, cv=2).fit(X))
    alone = GridSearchCV(LinearAE(), {"n_components": [1, 2]}, cv=2).fit(X)
    with pytest.raises(TypeError, match=r"got LinearAE\. Call its method sample"):
        sample_pipeline(alone)


def test_sampler_without_random_state(X):
    pipeline = make_pipeline(StandardScaler(), Noise()).fit(X)
    assert_allclose(sample_pipeline(pipeline, 2), [X.mean(0)] * 2)
    with pytest.raises(TypeError, match=re.escape("'noise' (Noise), does not accept it")):
        sample_pipeline(pipeline, 2, random_state=0)


@pytest.mark.parametrize("given", [LinearAE(2), "pipeline", None, [StandardScaler()]])
def test_not_a_pipeline(given):
    with pytest.raises(TypeError, match=f"sklearn.pipeline.Pipeline, got {type(given).__name__}"):
        sample_pipeline(given)


@pytest.mark.parametrize("sampler", [*SAMPLERS, Noise()], ids=lambda s: type(s).__name__)
def test_not_fitted(sampler):
    with pytest.raises(NotFittedError, match=type(sampler).__name__):
        sample_pipeline(make_pipeline(StandardScaler(), clone(sampler)))


def test_n_samples(X):
    pipeline = make_pipeline(StandardScaler(), KernelDensity()).fit(X)
    assert sample_pipeline(pipeline).shape == (1, 4)
    assert sample_pipeline(pipeline, np.int64(3)).shape == (3, 4)
    with pytest.raises(ValueError, match="n_samples == 0"):
        sample_pipeline(pipeline, 0)
    with pytest.raises(TypeError, match="n_samples must be an instance of int"):
        sample_pipeline(pipeline, 2.0)


def test_functions_invert_by_their_inverse(X):
    log = FunctionTransformer(np.log, inverse_func=np.exp)
    drawn = sample_pipeline(make_pipeline(log, LinearAE(2)).fit(np.abs(X)), 500, random_state=0)
    assert (drawn > 0).all()


def test_a_frame_from_an_inverted_step_is_kept(X):
    frame = pd.DataFrame(X, columns=list("abcd"))
    pipeline = make_pipeline(StandardScaler(), LinearAE(2), GaussianMixture(2, random_state=0))
    plain = sample_pipeline(pipeline.fit(frame), 5, random_state=0)
    pipeline[:-1].set_output(transform="pandas")
    drawn = sample_pipeline(pipeline.fit(frame), 5, random_state=0)
    assert list(drawn.columns) == list("abcd")
    assert_allclose(drawn, plain)


@pytest.mark.parametrize("covariance_type", ["full", "tied", "diag", "spherical"])
def test_a_mixture_of_float32_codes(covariance_type, X):
    """Networks give float32 codes; a mixture of them has the codes' moments, without a warning."""
    codes = (X * [1, 0.3, 1, 100]).astype(np.float32)
    mixture = GaussianMixture(1, covariance_type=covariance_type, random_state=0)
    pipeline = make_pipeline(FunctionTransformer(), mixture).fit(codes)
    drawn = sample_pipeline(pipeline, 100_000, random_state=0)
    sd = codes.std(axis=0) if covariance_type != "spherical" else np.sqrt(codes.var(axis=0).mean())
    assert np.all(np.abs(drawn.mean(axis=0) - codes.mean(axis=0)) < 0.02 * sd)
    assert_allclose(drawn.std(axis=0) / sd, 1, atol=0.02)
    assert mixture.covariances_.dtype == np.float32
