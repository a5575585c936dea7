"""Sizes of networks that are left open: chosen by the rows of the first fit, and kept."""

import copy
import warnings

import numpy as np
import pytest
from sklearn.base import clone
from sklearn.decomposition import PCA
from sklearn.mixture import GaussianMixture

import skae._densities.network_sizes as network_sizes
from skae import LatentDensityEstimator
from skae._densities.network_sizes import NetworkSizes, n_epochs_for, sizes_for

FEW, MANY = NetworkSizes(16, 32, 35), NetworkSizes(30, 64, 50)
OPEN = ("n_mixture", "n_channels", "max_iter")


def rows(n=60, seed=0):
    return np.random.default_rng(seed).normal(size=(n, 2))


def open_model(**params):
    return LatentDensityEstimator(random_state=0, device="cpu", **params)


def sizes(model):
    return model.n_mixture_, model.n_channels_


@pytest.fixture
def hundred_are_many(monkeypatch):
    monkeypatch.setattr(network_sizes, "_MANY", 100)


# ------------------------------------------------------------------------- the rule


@pytest.mark.parametrize(
    ("n_rows", "wanted"), [(1, FEW), (1347, FEW), (4999, FEW), (5000, MANY), (10**6, MANY)]
)
def test_sizes_by_the_number_of_rows(n_rows, wanted):
    assert sizes_for("autoregressive", n_rows) == wanted
    assert n_epochs_for(None, "autoregressive", n_rows) == wanted.n_epochs
    assert n_epochs_for(np.int64(7), "autoregressive", n_rows) == 7


def test_streams_and_flows_have_the_sizes_for_many_rows():
    assert sizes_for("autoregressive", None) == sizes_for("flow", None) == MANY
    assert sizes_for("flow", 100) == MANY
    assert n_epochs_for(None, "flow", 100) == 50


# ----------------------------------------------------------------- what the fit takes


def test_open_sizes_are_those_of_the_rule():
    """Attributes say so, and so does the network; parameters, also of a clone, stay open."""
    X = rows()
    model = open_model().fit(X)
    assert (*sizes(model), model.n_iter_) == FEW
    leave = model.net_.module_.density.sequence.leave
    assert leave.weight.shape == (3 * 16, 32)
    for same in (model, clone(model)):
        assert all(getattr(same, name) is None for name in OPEN)


def test_only_rows_that_count_are_counted(hundred_are_many):
    X = rows(120)
    weight = np.r_[np.zeros(40), np.ones(80)]
    assert sizes(open_model(max_iter=1).fit(X)) == MANY[:2]
    assert sizes(open_model(max_iter=1).fit(X, sample_weight=weight)) == FEW[:2]


@pytest.mark.parametrize("params", [{}, {"learning_rate": "cosine"}, {"density": "flow"}])
def test_open_sizes_are_as_good_as_given(params):
    """The same network, schedule and rows: the same scores, bit for bit."""
    X = rows()
    given = dict(zip(OPEN, FEW, strict=True))
    if "density" in params:
        given = {"n_channels": 64, "max_iter": 50}
    found, wanted = (open_model(**params, **more).fit(X) for more in ({}, given))
    np.testing.assert_array_equal(found.score_samples(X), wanted.score_samples(X))
    assert found.n_iter_ == wanted.n_iter_ == given["max_iter"]


@pytest.mark.parametrize(("name", "value"), [("n_mixture", 5), ("n_channels", 7), ("max_iter", 3)])
def test_given_numbers_are_obeyed(name, value, hundred_are_many):
    """Whatever the rows; the others follow the rule."""
    for n, sizes_there in ((60, FEW), (100, MANY)):
        short = {} if name == "max_iter" else {"max_iter": 1}
        model = open_model(**{name: value, **short}).fit(rows(n))
        wanted = dict(zip(OPEN, sizes_there, strict=True)) | short | {name: value}
        assert (*sizes(model), model.n_iter_) == tuple(wanted.values())


def test_only_what_a_density_uses_has_a_size():
    X = rows()
    flow = open_model(density="flow", max_iter=1).fit(X)
    assert flow.n_channels_ == 64
    own = open_model(density=GaussianMixture()).fit(X)
    for model, names in (
        (flow, ["n_mixture_"]),
        (own, ["n_mixture_", "n_channels_"]),
        (open_model(), ["n_mixture_", "n_channels_"]),
    ):
        for name in names:
            with pytest.raises(AttributeError, match=f"no attribute '{name}'"):
                getattr(model, name)


class Announced:
    """A callback of scikit-learn's: how many epochs a fit says that it has."""

    def setup(self, estimator, context):
        self.n_epochs = []

    def teardown(self, estimator, context):
        pass

    def on_fit_task_begin(self, estimator, context):
        if context.task_name == "fit":
            self.n_epochs.append(context.max_subtasks)

    def on_fit_task_end(self, estimator, context):
        return False


@pytest.mark.parametrize(("params", "wanted"), [({}, 35), ({"max_iter": 3}, 3)])
def test_callbacks_are_told_the_number_of_epochs(params, wanted):
    announced = Announced()
    open_model(**params).set_callbacks(announced).fit(rows())
    assert announced.n_epochs == [wanted]


@pytest.mark.parametrize(("name", "value"), zip(OPEN, MANY, strict=True))
def test_scikit_learns_densities_use_none_of_them(name, value):
    """Also a value that was once the default."""
    model = open_model(density=GaussianMixture(), **{name: value})
    with pytest.raises(
        ValueError, match=f"does not use {name}={value}; leave them at their defaults"
    ):
        model.fit(rows())


@pytest.mark.parametrize("name", OPEN)
@pytest.mark.parametrize("value", [0, 2.5, "auto"])
def test_wrong_sizes_are_named(name, value):
    with pytest.raises(ValueError, match=f"'{name}' parameter.*None"):
        open_model(**{name: value}).fit(rows())


# ----------------------------------------------------------------- training that goes on


def test_a_stream_keeps_its_sizes():
    """Batches have any length."""
    model = open_model()
    for n in (10, 60, 3):
        assert sizes(model.partial_fit(rows(n, seed=n))) == MANY[:2]
    assert model.n_iter_ == 3


def test_what_the_first_fit_took_stays(hundred_are_many):
    """In fits and streams of more rows; epochs are those for the rows of each fit."""
    model = open_model(warm_start=True).fit(rows(60))
    assert (*sizes(model), model.n_iter_) == FEW
    model.fit(rows(100))
    assert (*sizes(model), model.n_iter_) == (*FEW[:2], 35 + 50)
    model.partial_fit(rows(200))
    assert (*sizes(model), model.n_iter_) == (*FEW[:2], 35 + 50 + 1)
    assert sizes(clone(model).set_params(max_iter=1).fit(rows(100))) == MANY[:2]


@pytest.mark.parametrize(("name", "was"), [("n_mixture", 16), ("n_channels", 32)])
def test_a_size_cannot_change_while_training_goes_on(name, was):
    """The same number may be given then; another is an error that says what it was."""
    model = open_model(warm_start=True, max_iter=1).fit(rows())
    model.set_params(**{name: was}).fit(rows())
    with pytest.raises(ValueError, match=rf"^{name}=9 cannot change .*: it was {was}\. Fit anew"):
        model.set_params(**{name: 9}).fit(rows())
    model.set_params(**{name: None}).fit(rows())
    assert model.n_iter_ == 3


@pytest.mark.parametrize(
    ("density", "size", "n_epochs"), [("autoregressive", 32, 35), ("flow", 64, 50)]
)
def test_copies_and_files_know_their_sizes(density, size, n_epochs):
    X = rows()
    model = open_model(density=density, warm_start=True).fit(X)
    state = copy.deepcopy(model.__getstate__())
    loaded = LatentDensityEstimator.__new__(LatentDensityEstimator)
    loaded.__setstate__(state)
    for other in (loaded, copy.copy(model)):
        assert other.n_channels_ == size
        assert other.fit(X).n_iter_ == 2 * n_epochs


# ------------------------------------------------------------------ files of version 0.1.0


def loaded_from_0_1_0(model):
    """The model as if version 0.1.0 had saved it, where sizes were numbers."""
    state = model.__getstate__() | dict(zip(OPEN, MANY, strict=True))
    for name in ("_skae_version", "_sklearn_version", "_skae_format"):
        del state[name]
    loaded = LatentDensityEstimator.__new__(LatentDensityEstimator)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        loaded.__setstate__(copy.deepcopy(state))
    return loaded


def test_networks_of_0_1_0_keep_their_sizes():
    X = rows()
    saved = open_model(n_mixture=30, n_channels=64, max_iter=2).fit(X)
    loaded = loaded_from_0_1_0(saved)
    assert tuple(getattr(loaded, name) for name in OPEN) == MANY
    assert sizes(loaded) == MANY[:2]
    np.testing.assert_array_equal(loaded.score_samples(X), saved.score_samples(X))
    assert loaded.partial_fit(X).n_iter_ == 3


def test_models_of_0_1_0_can_be_fitted_again():
    """Where the density does not use what were the defaults; what was set stays an error."""
    X = rows()
    saved = open_model(autoencoder=PCA(1), density=GaussianMixture()).fit(X)
    loaded = loaded_from_0_1_0(saved)
    np.testing.assert_array_equal(loaded.score_samples(X), saved.score_samples(X))
    again = clone(loaded).fit(X)
    np.testing.assert_array_equal(again.score_samples(X), saved.score_samples(X))
    flow = loaded_from_0_1_0(open_model(density="flow", max_iter=1).fit(X))
    assert tuple(getattr(flow, name) for name in OPEN) == (None, 64, 50)
