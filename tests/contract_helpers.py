"""What the tests of the contract have in common: the estimators, rows for them, comparisons."""

import copy
import inspect
import re
from functools import cache

import numpy as np
import pandas as pd
import polars as pl
import pytest
from hypothesis import settings
from sklearn.utils import get_tags

import skae
from helpers import leaves
from skae._base import BaseAutoencoder

# ------------------------------------------------------------------- what is tested

ESTIMATORS = [
    value
    for value in (getattr(skae, name) for name in skae.__all__)
    if inspect.isclass(value) and issubclass(value, BaseAutoencoder)
]


def trained_on_batches(Estimator):
    """Networks name a batch size; all others are closed-form or EM."""
    return "batch_size" in Estimator().get_params()


def may_miss_values(Estimator):
    return get_tags(Estimator()).input_tags.allow_nan


def computes_in_float64(Estimator):
    """Networks compute in float32; where codes are integers no tag tells."""
    preserved = get_tags(Estimator()).transformer_tags.preserves_dtype
    return "float64" in preserved or not trained_on_batches(Estimator)


def law_for(estimators):
    return pytest.mark.parametrize("Estimator", estimators, ids=lambda value: value.__name__)


every_estimator = law_for(ESTIMATORS)
every_exact_estimator = law_for([E for E in ESTIMATORS if not trained_on_batches(E)])
every_gaussian = law_for([E for E in ESTIMATORS if hasattr(E, "get_covariance")])
every_gaussian_network = law_for(
    [E for E in ESTIMATORS if trained_on_batches(E) and "likelihood" in E().get_params()]
)
every_sparse_estimator = law_for([E for E in ESTIMATORS if get_tags(E()).input_tags.sparse])
every_forgiving_estimator = law_for([E for E in ESTIMATORS if may_miss_values(E)])
every_streaming_estimator = law_for([E for E in ESTIMATORS if hasattr(E, "partial_fit")])
every_fit = pytest.mark.parametrize(
    ("Estimator", "fit"),
    [
        pytest.param(E, fit, id=f"{E.__name__}-{fit}")
        for E in ESTIMATORS
        for fit in ("fit", "fit_transform", "partial_fit")
        if hasattr(E, fit)
    ],
)


def half_at_once(first, second):
    """All pairs from two lists of two values; the marker long is on those of unlike places.

    The pairs without it hold every value once.
    """
    return [
        pytest.param(a, b, marks=pytest.mark.long if i != j else ())
        for i, a in enumerate(first)
        for j, b in enumerate(second)
    ]


# A floor that was used or a fit that did not converge is said by a UserWarning. What
# NumPy says when numbers go wrong is a RuntimeWarning, and stays an error.
may_advise = pytest.mark.filterwarnings("ignore::UserWarning")

# The same examples in every run, so that CI is repeatable.
repeatable = settings(deadline=None, max_examples=25, derandomize=True)

# Rows that call for different solvers; PCA takes its randomized one for the last.
TALL, SQUARE, WIDE = (60, 6), (20, 20), (30, 510)


def shape_for(Estimator, shape, all_codes=False):
    """The shape of the rows that an estimator is tested on.

    A mixture of full Gaussians factorises a covariance of all features for each component, and a
    causal network draws one code after another, which is slow with `all_codes`. That takes seconds
    with 510 features, and runs the same lines with 120.
    """
    params = Estimator().get_params()
    slow = params.get("covariance_type") == "full" or (all_codes and "n_channels" in params)
    return (30, 120) if slow and shape == WIDE else shape


# Estimator, shape of the rows, share of NaN among them.
every_kind_of_rows = pytest.mark.parametrize(
    ("Estimator", "shape", "gaps"),
    [
        pytest.param(E, shape_for(E, shape), gaps, id=f"{E.__name__}-{shape_for(E, shape)}-{gaps}")
        for E in ESTIMATORS
        for shape, gaps in [(TALL, 0.0), (SQUARE, 0.0), (WIDE, 0.0), (TALL, 0.1)]
        if may_miss_values(E) or not gaps
    ],
)


# -------------------------------------------------------------------------- helpers


# After fewer epochs a VAE keeps the linear model of the start more often, and then what training
# does is not tested.
EPOCHS = 6


def small(Estimator, n_components=2, random_state=0, **params):
    """An estimator with few codes and, where it takes one, a seed; networks train briefly."""
    model = Estimator(n_components=n_components, **params)
    if "random_state" in model.get_params():
        model.set_params(random_state=random_state)
    if trained_on_batches(Estimator):
        model.set_params(max_iter=EPOCHS, batch_size=25)
    if "coordinates" in model.get_params():  # without a warning for integers
        model.set_params(coordinates="continuous")
    return narrow(model)


def default(Estimator, max_iter=EPOCHS):
    """An estimator as it comes; a causal network, which is slow on hundreds of codes, narrow.

    Networks train for `max_iter` epochs.
    """
    return narrow(of_known_length(Estimator(), max_iter))


def begun_at_random(model):
    """A network that does not begin at PCA's maps."""
    if model.get_params().get("init", "") is None:
        model.set_params(init="random")
    return model


def of_known_length(model, max_iter=EPOCHS):
    """A network that trains for `max_iter` epochs.

    How long networks train by default is tested in tests/_training/test_length.py.
    """
    if trained_on_batches(type(model)):
        model.set_params(max_iter=max_iter)
    return model


def narrow(model):
    if "n_channels" in model.get_params():
        model.set_params(n_channels=8, n_mixture=3)
    return model


def make_data(Estimator, shape=TALL, seed=0, gaps=0.0):
    """Two strong factors under noise, off centre: two codes are well determined.

    A share `gaps` of the values is NaN.
    """
    rng = np.random.default_rng(seed)
    n_samples, n_features = shape
    loadings = rng.normal(size=(2, n_features)) * [[2.0], [1.0]]
    X = 1.0 + rng.normal(size=(n_samples, 2)) @ loadings + 0.3 * rng.normal(size=shape)
    X[rng.random(shape) < gaps] = np.nan
    return np.abs(X) if get_tags(Estimator()).input_tags.positive_only else X


@cache
def fitted(Estimator):
    """A model fitted on `make_data(Estimator)`, shared: do not refit it."""
    return small(Estimator).fit(make_data(Estimator))


def copy_of_fitted(Estimator):
    """A model fitted on `make_data(Estimator)`, for tests that change it."""
    return copy.deepcopy(fitted(Estimator))


def codes_of(model, X):
    return np.asarray(model.transform(X))


def outputs(model, X):
    """All that a fitted model computes from rows."""
    codes = model.transform(X)
    return {
        "transform": codes,
        "inverse_transform": model.inverse_transform(codes),
        "reconstruct": model.reconstruct(X),
        "sample": model.sample(5, random_state=0),
        "sample without noise": model.sample(5, noise=False, random_state=0),
        "score_samples": model.score_samples(X),
        "score": model.score(X),
    }


def state(model):
    """A copy of all that the model holds, flat; private attributes too."""
    return copy.deepcopy(dict(leaves(model.__getstate__(), "state")))


def learned(model):
    """A copy of what `fit` learned, flat."""
    return {path: v for path, v in state(model).items() if re.match(r"state\['\w+_'\]", path)}


def assert_same_leaves(actual, expected, tol=0.0):
    """Equal dicts: bit for bit, or floats within tol of the larger of 1 and their maximum."""
    assert actual.keys() == expected.keys()
    for name, value in expected.items():
        if tol and np.asarray(value).dtype.kind == "f":
            atol = tol * max(1.0, np.max(np.abs(value), initial=0.0))
            np.testing.assert_allclose(actual[name], value, rtol=0, atol=atol, err_msg=name)
        else:
            np.testing.assert_array_equal(actual[name], value, strict=True, err_msg=name)


def assert_finite(values):
    for name, value in values.items():
        if np.asarray(value).dtype.kind in "fiu":
            assert np.all(np.isfinite(value)), name


def tolerance(Estimator):
    """How exactly equal data give equal results: networks compute in float32."""
    return 1e-8 if computes_in_float64(Estimator) else 1e-4


def documented_methods(Estimator):
    """Names of skae's own public methods, without what every scikit-learn estimator has."""
    inherited = re.compile(r"_|set_\w+$|get_params$|get_metadata_routing$")
    return [
        name
        for name in dir(Estimator)
        if not inherited.match(name) and inspect.isroutine(getattr(Estimator, name))
    ]


# Methods that need rows to be places on a grid of pixels, which those of `make_data` are not.
OF_IMAGES = {"intensity", "reconstruct_image"}


def public_methods(Estimator):
    """Those that the estimator has as it comes, without a parameter that adds them."""
    names = [name for name in documented_methods(Estimator) if name not in OF_IMAGES]
    return [name for name in names if hasattr(Estimator(), name)]


def call(model, method, rows, codes):
    """Call a public method with the arguments that it needs."""
    method = getattr(model, method)
    needed = [p for p in inspect.signature(method).parameters.values() if p.default is p.empty]
    needed = [p for p in needed if p.kind is p.POSITIONAL_OR_KEYWORD]
    arguments = {"x": rows[:1], "x0": rows[:1], "x1": rows[-1:], "component": 0, "values": [0.0]}
    if method.__name__ == "truncate":
        arguments["n_components"] = getattr(model, "n_components_", 1)
    if method.__name__ in ("inverse_transform", "score_codes", "inverse_gaussianize"):
        arguments["X"] = codes
    return method(*[arguments.get(p.name, rows) for p in needed])


# ------------------------------------------------------------------------- data frames

FRAMES = {"pandas": pd.DataFrame, "polars": pl.DataFrame}


def as_frame(library, X, names):
    """A data frame; a pandas one with an index that is not 0, 1, ..."""
    if library == "pandas":
        return pd.DataFrame(X, columns=names, index=[f"row {i}" for i in range(len(X))])
    return pl.DataFrame(X, schema=list(names))
