"""Tables of numbers, categories and counts in all that stands around the models."""

import copy
import math
import warnings
from functools import cache

import numpy as np
import pandas as pd
import polars as pl
import pytest
from numpy.testing import assert_allclose, assert_array_equal
from scipy import sparse, special, stats
from sklearn.base import clone
from sklearn.callback import ScoringMonitor
from sklearn.compose import ColumnTransformer
from sklearn.exceptions import NotFittedError
from sklearn.frozen import FrozenEstimator
from sklearn.linear_model import LogisticRegression
from sklearn.metrics import check_scoring
from sklearn.model_selection import GridSearchCV, KFold, cross_val_score
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler
from torch import nn

from helpers import generator, make_rows, through_joblib, through_pickle, through_skops
from skae import (
    VAE,
    VQVAE,
    AdversarialAE,
    Autoencoder,
    Ensemble,
    HelmholtzMachine,
    LatentDensityEstimator,
    model_selection,
    sample_pipeline,
)
from skae._training.data import Data
from skae._training.trainer import batches
from skae.metrics import reconstruction_error

# Trainings are cut short everywhere here, and say so.
pytestmark = pytest.mark.filterwarnings("ignore::UserWarning")

TOWNS = ["Bonn", "Ulm", "Wien"]
KINDS = {
    "price": "gaussian",
    "town": "categorical",
    "stars": "categorical",
    "visits": "poisson",
    "member": "bernoulli",
}


def make_table(n_rows=60, seed=0, gaps=True):
    """Columns that one hidden group tells of; two values are missing, and the index is odd.

    Levels of `stars` are numbers that are not their own indices, and one of them is not seen.
    """
    rng = np.random.default_rng(seed)
    group = rng.integers(0, 3, n_rows)
    table = pd.DataFrame(
        {
            "price": rng.normal(10 + 2 * group, 1.0),
            "town": np.array(TOWNS, dtype=object)[group],
            "stars": pd.Categorical(np.array([1, 2, 5])[group], categories=[1, 2, 4, 5]),
            "visits": rng.poisson(1 + group),
            "member": rng.random(n_rows) < 0.5,
        },
        index=100 + np.arange(n_rows),
    )
    if gaps:
        table.loc[101, "town"] = None
        table.loc[102, "price"] = np.nan
    return table


TABLE = make_table()
WHOLE = make_table(gaps=False)


def small(Estimator, **params):
    """A network that is trained for two epochs on tables."""
    params = {"n_components": 2, "likelihood": "auto", "max_iter": 2, "random_state": 0} | params
    if "hidden_layer_sizes" in Estimator().get_params():
        params.setdefault("hidden_layer_sizes", 8)
    return Estimator(**params)


def density(autoencoder, **params):
    return LatentDensityEstimator(
        autoencoder, n_channels=4, n_mixture=2, max_iter=1, random_state=0, **params
    )


def assert_alike(first, second):
    """Frames of the same index, types and values, numbers as float32 has them."""
    pd.testing.assert_frame_equal(first, second, rtol=1e-5)


NETWORKS = [VAE, Autoencoder, VQVAE, AdversarialAE, HelmholtzMachine]
every_network = pytest.mark.parametrize("Estimator", NETWORKS)
MODELS = [*map(small, NETWORKS), density(small(VAE)), Ensemble(small(VAE), 2, random_state=0)]


@cache
def fitted(model):
    """One of `MODELS` fitted on the table, shared by tests that do not change it."""
    return clone(model).fit(TABLE)


every_model = pytest.mark.parametrize("model", MODELS, ids=lambda model: type(model).__name__)

# ------------------------------------------------------------------ densities of codes


@pytest.mark.parametrize("Estimator", [VAE, Autoencoder, AdversarialAE, HelmholtzMachine])
def test_density_of_codes_takes_tables_as_its_autoencoder_does(Estimator):
    """Codes, rows and their containers are those of the autoencoder; all of it in nats."""
    model = density(small(Estimator)).fit(TABLE)
    inner = model.autoencoder_
    assert_array_equal(model.transform(TABLE), inner.transform(TABLE))
    assert_alike(model.reconstruct(TABLE), inner.reconstruct(TABLE))
    codes = model.transform(TABLE)
    assert_alike(model.inverse_transform(codes), inner.inverse_transform(codes))
    assert model.likelihoods_ == KINDS == inner.likelihoods_
    assert_array_equal(model.categories_["stars"], [1, 2, 4, 5])
    drawn = model.sample(5, random_state=0)
    assert drawn.dtypes.equals(TABLE.dtypes)
    assert drawn["town"].isin(TOWNS).all()
    assert np.isfinite(model.score(TABLE))
    path = model.interpolate(TABLE.iloc[0], TABLE.iloc[[5]], 3)
    ends = np.stack([codes[0], (codes[0] + codes[5]) / 2, codes[5]])
    assert_alike(path, inner.inverse_transform(ends))
    assert model.feature_names_in_.tolist() == list(KINDS) == list(inner.feature_names_in_)
    assert model.n_features_in_ == inner.n_features_in_ == 5


def test_data_scores_of_tables_are_probabilities():
    """Those of all tables of two categories add up to one, but for what the bound is below."""
    table = pd.DataFrame({"town": TABLE["town"].fillna("Ulm"), "member": TABLE["member"]})
    model = density(small(VAE, likelihood="categorical")).fit(table)
    rows = pd.DataFrame([(t, m) for t in TOWNS for m in (False, True)], columns=["town", "member"])
    total = np.exp(model.data_score_samples(rows, n_draws=2000)).sum()
    assert 0.9 < total < 1.01


def test_levels_of_rows_that_do_not_count():
    """A density of codes and its autoencoder know the same levels, also of weight zero."""
    weight = (TABLE["town"] != "Bonn").to_numpy(dtype=float)
    model = density(small(VAE)).fit(TABLE, sample_weight=weight)
    for known in (model.categories_, model.autoencoder_.categories_):
        assert known["town"].tolist() == TOWNS
    assert_alike(model.reconstruct(TABLE), model.autoencoder_.reconstruct(TABLE))


def test_density_of_codes_of_a_frozen_autoencoder_and_in_a_stream():
    """A frozen autoencoder knows the table; others learn it from the first batch."""
    frozen = small(VAE).fit(TABLE)
    model = density(FrozenEstimator(frozen)).fit(TABLE[:20])
    assert model.categories_ == frozen.categories_
    assert_alike(model.reconstruct(TABLE), frozen.reconstruct(TABLE))
    stream = density(small(VAE)).partial_fit(TABLE).partial_fit(TABLE[:20])
    assert stream.sample(2).dtypes.equals(TABLE.dtypes)
    other = TABLE.assign(town="Rom")
    with pytest.raises(ValueError, match=r"'town', holds \['Rom'\]"):
        stream.partial_fit(other)
    lenient = density(small(VAE, handle_unknown="missing")).fit(TABLE)
    unseen = TABLE.assign(town=None)
    assert_array_equal(lenient.transform(other), lenient.transform(unseen))


def test_density_of_codes_that_are_indices_or_text():
    """A VQVAE has no density of codes, and text none without an autoencoder for it."""
    with pytest.raises(ValueError, match="integer codes"):
        density(small(VQVAE)).fit(TABLE)
    with pytest.raises(ValueError, match="could not convert string"):
        density(None).fit(TABLE[["town"]])


# --------------------------------------------------------------------------- ensembles


@pytest.mark.parametrize("pipeline", [False, True])
def test_ensembles_take_means_of_numbers_and_votes_of_levels(pipeline):
    """By the members' own arrays of numbers, with SciPy's mode for levels."""
    vae = small(VAE, init="random", max_iter=1)
    ensemble = Ensemble(make_pipeline(vae) if pipeline else vae, 5, random_state=0).fit(TABLE)
    found = ensemble.reconstruct(TABLE)
    assert found.dtypes.equals(TABLE.dtypes)
    assert found.index.equals(TABLE.index)
    members = [m[-1] if pipeline else m for m in ensemble.estimators_]
    parts = [copy.copy(m).set_output(transform="default").reconstruct(TABLE) for m in members]
    assert_allclose(found["price"], np.mean(parts, axis=0)[:, 0], rtol=1e-5)
    assert_array_equal(found["visits"], np.rint(np.mean(parts, axis=0)[:, 3]))
    assert_array_equal(found["member"], np.mean(parts, axis=0)[:, 4] >= 0.5)
    votes = np.stack(parts)[:, :, 1]
    assert len(np.unique(votes, axis=0)) > 1  # members differ
    assert_array_equal(found["town"], np.array(TOWNS)[stats.mode(votes).mode.astype(int)])
    assert_array_equal(found["stars"], stats.mode(np.stack(parts)[:, :, 2]).mode)
    scores = [member.score_samples(TABLE) for member in members]
    expected = special.logsumexp(scores, axis=0) - math.log(5)
    assert_allclose(ensemble.score_samples(TABLE), expected, rtol=1e-5)


def test_samples_of_ensembles_are_tables():
    """In the container of training, or that which is set; of members that are searches, too."""
    search = GridSearchCV(small(VAE), {"n_components": [1]}, cv=2)
    for estimator in (small(VAE), search, density(small(VAE))):
        ensemble = Ensemble(estimator, 2, random_state=0).fit(TABLE)
        drawn = ensemble.sample(40, random_state=0)
        assert drawn.dtypes.equals(TABLE.dtypes)
        assert_alike(drawn, ensemble.sample(40, random_state=0))
        assert ensemble.reconstruct(TABLE).dtypes.equals(TABLE.dtypes)
    ensemble = Ensemble(small(VAE), 2, random_state=0).fit(TABLE)
    frame = ensemble.sample(40, random_state=0)
    numbers = ensemble.set_output(transform="default").sample(40, random_state=0)
    assert_allclose(numbers[:, 2], frame["stars"].astype(float))
    assert_array_equal(np.array(TOWNS)[numbers[:, 1].astype(int)], frame["town"])
    assert isinstance(ensemble.set_output(transform="polars").sample(2), pl.DataFrame)


# ---------------------------------------------------------------- pipelines and searches


def test_pipelines_of_tables():
    """Behind a ColumnTransformer that returns frames, and before a classifier."""
    vae = small(VAE).fit(TABLE)
    alone = sample_pipeline(make_pipeline(vae), 4, random_state=0)
    assert_alike(alone, vae.sample(4, random_state=np.random.RandomState(0)))
    columns = ColumnTransformer(
        [("numbers", StandardScaler(), ["price"]), ("rest", "passthrough", ["town", "member"])],
        verbose_feature_names_out=False,
    ).set_output(transform="pandas")
    kinds = {name: KINDS[name] for name in ("price", "town", "member")}
    pipeline = make_pipeline(columns, small(VAE, likelihood=kinds)).fit(TABLE)
    changed = pipeline[:-1].transform(TABLE)
    assert_array_equal(pipeline.transform(TABLE), small(VAE).fit(changed).transform(changed))
    y = TABLE["member"].to_numpy()
    classifier = make_pipeline(small(VAE), LogisticRegression()).fit(TABLE, y)
    expected = LogisticRegression().fit(vae.transform(TABLE), y).predict(vae.transform(TABLE))
    assert_array_equal(classifier.predict(TABLE), expected)


def test_searches_over_tables():
    """Both searches and both cross-validations score folds as a fit by hand does."""
    folds = list(KFold(2).split(TABLE))
    by_hand = [
        [small(VAE, n_components=k).fit(TABLE.iloc[a]).score(TABLE.iloc[b]) for a, b in folds]
        for k in (1, 2)
    ]
    grid = {"n_components": [1, 2]}
    for Search in (GridSearchCV, model_selection.GridSearchCV):
        search = Search(small(VAE), grid, cv=2).fit(TABLE)
        assert_allclose(search.cv_results_["mean_test_score"], np.mean(by_hand, axis=1), rtol=1e-5)
        assert search.best_estimator_.sample(2).dtypes.equals(TABLE.dtypes)
    assert_allclose(cross_val_score(small(VAE), TABLE, cv=2), by_hand[1], rtol=1e-5)
    own = model_selection.cross_validate(small(VAE), TABLE, cv=2)
    assert_allclose(own["test_score"], by_hand[1], rtol=1e-5)


def test_folds_with_levels_that_training_has_not():
    """An error, a value not seen, or what a categorical type declares."""
    rare = TABLE.copy()
    rare.iloc[0, 1] = "Rom"
    folds = KFold(2)
    strict = cross_val_score(small(VAE), rare, cv=folds, error_score=np.nan)
    assert_array_equal(np.isnan(strict), [True, False])
    with pytest.raises(ValueError, match=r"'town', holds \['Rom'\], which fit has not seen"):
        model_selection.GridSearchCV(
            small(VAE), {"n_components": [1]}, cv=folds, error_score="raise"
        ).fit(rare)
    lenient = small(VAE, handle_unknown="missing")
    unseen = rare.replace({"town": {"Rom": None}})
    assert cross_val_score(lenient, rare, cv=folds)[0] == pytest.approx(
        cross_val_score(lenient, unseen, cv=folds)[0], rel=1e-6
    )
    declared = rare.astype({"town": "category"})
    assert np.isfinite(cross_val_score(small(VAE), declared, cv=folds)).all()


def test_searches_warn_of_densities_beside_probabilities():
    """Scores under likelihoods of other measures may not be compared; under others they may."""
    X = pd.DataFrame({"a": np.arange(20.0), "b": np.arange(20) % 3})

    def warned(*likelihoods):
        search = model_selection.GridSearchCV(small(VAE), {"likelihood": list(likelihoods)}, cv=2)
        with warnings.catch_warnings(record=True) as caught:
            warnings.simplefilter("always")
            search.fit(X)
        return any("probabilities for others" in str(w.message) for w in caught)

    counts = {"a": "gaussian", "b": "poisson"}
    assert warned("gaussian", "poisson")
    assert warned(counts, "gaussian")
    assert not warned("gaussian", "laplace")
    assert not warned(counts, "auto")
    assert not warned({"a": "gaussian", "b": "laplace"}, "gaussian")


# ------------------------------------------------------- parameters, files, going on


@every_model
@pytest.mark.parametrize("saved_and_loaded", [through_pickle, through_joblib, through_skops])
def test_files_hold_tables(model, saved_and_loaded, tmp_path):
    """Levels, kinds and containers come back, and draws are the same."""
    model = fitted(model)
    loaded = saved_and_loaded(model, tmp_path / "model")
    assert_alike(loaded.sample(6, random_state=0), model.sample(6, random_state=0))
    assert_alike(loaded.reconstruct(TABLE), model.reconstruct(TABLE))
    inner, old = (getattr(m, "estimators_", [m])[0] for m in (loaded, model))
    assert inner.likelihoods_ == old.likelihoods_ == KINDS
    for name, levels in old.categories_.items():
        assert_array_equal(inner.categories_[name], levels)
        assert inner.categories_[name].dtype == levels.dtype
    assert_alike(copy.copy(model).reconstruct(TABLE), model.reconstruct(TABLE))


@every_network
def test_mappings_are_parameters(Estimator):
    """A mapping is cloned, shown and set; what was learned is the same mapping again."""
    model = small(Estimator, likelihood=dict(KINDS)).fit(TABLE)
    assert clone(model).get_params()["likelihood"] == KINDS
    assert "'town': 'categorical'" in repr(model)
    again = clone(model).set_params(likelihood=small(Estimator).fit(TABLE).likelihoods_)
    assert_alike(again.fit(TABLE).reconstruct(TABLE), model.reconstruct(TABLE))


@every_network
def test_levels_and_kinds_hold_while_training_goes_on(Estimator):
    """By warm starts and in streams; other levels and likelihoods are errors that change
    nothing."""
    model = small(Estimator, warm_start=True).fit(TABLE)
    before = model.reconstruct(TABLE)
    other = TABLE.assign(town="Rom")
    for fit in (model.fit, model.partial_fit):
        with pytest.raises(ValueError, match=r"'town', holds \['Rom'\]"):
            fit(other)
    for likelihood in ("gaussian", "categorical", KINDS | {"price": "laplace"}):
        model.set_params(likelihood=likelihood)
        if Estimator is HelmholtzMachine and likelihood not in ("gaussian", "categorical"):
            continue  # which has no Laplace
        for fit in (model.fit, model.partial_fit):
            with pytest.raises(ValueError, match="differs from the likelihoods of the earlier fit"):
                fit(TABLE)
    assert_alike(model.reconstruct(TABLE), before)
    few = TABLE[TABLE["town"] == "Bonn"]
    model.set_params(likelihood=model.likelihoods_).fit(few).partial_fit(few)
    assert model.categories_["town"].tolist() == TOWNS
    assert model.set_params(warm_start=False, likelihood="auto").fit(WHOLE[:3]).likelihoods_


def test_one_likelihood_for_all_cannot_become_several():
    """Nor is a table learned where training goes on without one."""
    numbers = TABLE[["price", "visits"]].fillna(0.0)
    model = small(VAE, likelihood="gaussian", warm_start=True).fit(numbers)
    with pytest.raises(ValueError, match=r"'auto' differs from the likelihoods.*'gaussian'"):
        model.set_params(likelihood="auto").fit(numbers)
    with pytest.raises(AttributeError, match="one likelihood for all columns"):
        _ = model.likelihoods_
    with pytest.raises(NotFittedError, match="call fit first"):
        _ = small(VAE).likelihoods_


@pytest.mark.parametrize("Estimator", [VAE, Autoencoder, VQVAE, AdversarialAE])
@pytest.mark.parametrize(
    "params",
    [
        {"n_init": 2},
        {"solver": "lbfgs"},
        {"early_stopping": True},
        {"normalization": "batch"},
        {"init": "random"},
        {"noise_variance": 0.5},
        {"latent_growth": "nested"},
        {"noise": "masking"},
        {"noise": "gaussian"},
        {"tied_weights": True},
        {"sparsity": 0.1},
        {"missing": "error"},
    ],
    ids=str,
)
def test_options_of_networks(Estimator, params):
    """Every option goes with tables: rows are explained by levels there are, in finite nats."""
    allowed = Estimator().get_params()
    if not set(params) <= set(allowed) or (
        params == {"solver": "lbfgs"} and Estimator in (VQVAE, AdversarialAE)
    ):
        return
    rows = WHOLE if params == {"missing": "error"} else TABLE
    model = small(Estimator, **params).fit(rows)
    found = model.reconstruct(rows)
    assert found.dtypes.equals(rows.dtypes)
    assert found.notna().all(axis=None)
    assert found["town"].isin(TOWNS).all()
    assert np.isfinite(model.score_samples(rows)).all()
    if "latent_growth" in params:
        assert model.truncate(1).reconstruct(rows).dtypes.equals(rows.dtypes)
    if "missing" in params:
        with pytest.raises(ValueError, match="NaN"):
            model.transform(TABLE)


def test_own_modules_read_and_write_the_columns_of_the_network():
    """3 numbers and 7 levels, beside marks of which of 5 columns are seen where some are not."""
    model = small(VAE, encoder=nn.Linear(10, 4), decoder=nn.Linear(2, 10)).fit(WHOLE)
    assert model.sample(3).dtypes.equals(WHOLE.dtypes)
    model = small(Autoencoder, encoder=nn.Linear(15, 2), decoder=nn.Linear(2, 10)).fit(TABLE)
    assert model.reconstruct(TABLE).dtypes.equals(TABLE.dtypes)
    with pytest.raises(ValueError, match="decoder"):
        small(VAE, decoder=nn.Linear(2, 5)).fit(WHOLE)


def test_conditional_tables():
    """Labels stand beside the codes, and rows come out as they came in."""
    y = np.arange(60) % 3
    model = small(VAE, conditional=True).fit(TABLE, y)
    assert model.reconstruct(TABLE, y).dtypes.equals(TABLE.dtypes)
    assert model.sample(3, y=1).dtypes.equals(TABLE.dtypes)
    assert model.score_columns(TABLE, y).shape == TABLE.shape
    filled = model.impute(TABLE, y=y)
    assert filled.notna().all(axis=None)
    pd.testing.assert_frame_equal(filled.drop([101, 102]), TABLE.drop([101, 102]))


def test_errors_of_ordered_codes_are_in_units_of_the_data():
    """Squared errors of numbers, and of a category with two levels 2 (1 - p)²."""
    table = pd.DataFrame({"price": TABLE["price"], "member": TABLE["member"].astype("category")})
    model = small(Autoencoder, latent_growth="nested").fit(table)
    for k, error in enumerate(model.reconstruction_path(table), start=1):
        some = model.truncate(k)
        numbers = some.reconstruct(table)["price"] - table["price"]
        p = np.exp(some.score_columns(table)[:, 1])
        expected = np.nansum(numbers**2) + (2 * (1 - p) ** 2).sum()
        assert error == pytest.approx(expected / len(table), rel=1e-4)


# --------------------------------------------------------------- callbacks and starts


@pytest.mark.parametrize("Estimator", [VAE, Autoencoder, HelmholtzMachine])
def test_callbacks_are_given_rows_that_methods_read(Estimator):
    """The score at the last epoch is that of the fitted model, of levels that are numbers."""
    model = small(Estimator, **{} if Estimator is HelmholtzMachine else {"init": "random"})
    monitor = ScoringMonitor(scoring={"nats": check_scoring(model)})
    model.set_callbacks(monitor).fit(TABLE)
    nats = [row["nats"] for row in monitor.get_logs().data if len(row["task_id_path"]) == 2]
    assert len(nats) == 2
    assert nats[-1] == pytest.approx(model.score(TABLE), rel=1e-5)


@pytest.mark.parametrize("Estimator", [VAE, HelmholtzMachine])
def test_the_best_start_is_that_of_the_best_score(Estimator):
    """Of two starts, by the score of the table as it is given."""
    model = small(Estimator, n_init=2).fit(TABLE)
    seeds = [0, int(np.random.RandomState(0).randint(2**31 - 1))]
    alone = [small(Estimator, random_state=seed).fit(TABLE).score(TABLE) for seed in seeds]
    assert model.score(TABLE) == pytest.approx(max(alone), rel=1e-4)


# ---------------------------------------------------------------------- containers


@every_network
def test_set_output_decides_for_all_that_has_columns(Estimator):
    """Frames of either kind under the names of the columns, or arrays of numbers."""
    model = small(Estimator).fit(TABLE)
    calls = {
        "inverse_transform": lambda m: m.inverse_transform(m.transform(TABLE)),
        "reconstruct": lambda m: m.reconstruct(TABLE),
        "sample": lambda m: m.sample(60, random_state=0),
        "score_columns": lambda m: m.score_columns(TABLE),
        "impute": lambda m: m.impute(TABLE),
    }
    for name, call in calls.items():
        if not hasattr(model, name):
            continue
        numbers = call(model.set_output(transform="default"))
        assert isinstance(numbers, np.ndarray)
        assert numbers.dtype.kind == "f"
        frame = call(model.set_output(transform="pandas"))
        assert list(frame.columns) == list(KINDS)
        assert frame.index.equals(TABLE.index) or name == "sample"
        other = call(model.set_output(transform="polars"))
        assert isinstance(other, pl.DataFrame)
        assert other.columns == list(KINDS)
        assert_allclose(numbers[:, 0], frame["price"].astype(float), rtol=1e-5)
        assert_allclose(other["price"].to_numpy(), frame["price"].astype(float), rtol=1e-5)
        if name != "score_columns":
            assert_array_equal(np.array(TOWNS)[numbers[:, 1].astype(int)], frame["town"])
            assert_array_equal(other["town"].to_list(), frame["town"].tolist())
            assert_allclose(numbers[:, 2], frame["stars"].astype(float))
    numbers = model.set_output(transform="default").reconstruct(TABLE)
    assert model.transform(numbers).shape == (60, 2)  # what comes out can go in
    names = model.get_feature_names_out()
    assert len(names) == 2
    assert model.feature_names_in_.tolist() == list(KINDS)


@every_model
def test_containers_of_new_rows(model):
    """Arrays are read as frames are; columns in another order are scikit-learn's error."""
    model = fitted(model)
    scored = model.score_samples if hasattr(model, "score_samples") else model.transform
    expected = scored(TABLE)
    assert_allclose(scored(TABLE.astype(object).to_numpy()), expected, rtol=1e-5)
    assert_allclose(scored(pl.from_pandas(TABLE.astype({"stars": int}))), expected, rtol=1e-5)
    with pytest.raises(ValueError, match="same order as they were in fit"):
        scored(TABLE[TABLE.columns[::-1]])
    with pytest.raises(ValueError, match="now missing"):
        scored(TABLE[TABLE.columns[:-1]])


def test_polars_tables_come_back_as_such():
    """Frames in, frames out, also of what holds a model."""
    frame = pl.from_pandas(WHOLE.assign(stars=WHOLE["stars"].astype(str)))
    frame = frame.with_columns(pl.col("town").cast(pl.Enum(TOWNS)))
    for model in (small(VAE), density(small(VAE)), Ensemble(small(VAE), 2, random_state=0)):
        found = model.fit(frame).reconstruct(frame[:5])
        assert found.schema == frame.schema
        assert model.sample(3).schema == frame.schema


def test_rows_given_as_lists():
    """One row of a table as a list keeps the types of its values."""
    model = small(VAE).fit(TABLE)
    rows = TABLE.astype(object).iloc[[0, 5]].to_numpy().tolist()
    found = model.interpolate(*rows, 4)
    assert_alike(found, model.interpolate(TABLE.iloc[[0]], TABLE.iloc[[5]], 4))


# -------------------------------------------------------------------------- errors


@every_model
def test_a_fit_that_fails_leaves_nothing(model):
    """Neither of an estimator that was not fitted, nor of the table of one that was."""
    one_level = TABLE.assign(town="Bonn")
    model = clone(model)
    untouched = set(vars(model))
    with pytest.raises(ValueError, match="'town', has only the level 'Bonn'"):
        model.fit(one_level)
    assert set(vars(model)) == untouched
    before = model.fit(TABLE).reconstruct(TABLE)
    negative = TABLE.assign(visits=-1 - TABLE["visits"], price="text")
    with pytest.raises(ValueError, match=r"visits|price"):
        model.fit(negative) if isinstance(model, Ensemble) else _fit_with_kinds(model, negative)
    assert_alike(model.reconstruct(TABLE), before)


def _fit_with_kinds(model, table):
    """The fit of a model that is told kinds which the table does not have."""
    name = "autoencoder__likelihood" if hasattr(model, "autoencoder") else "likelihood"
    return model.set_params(**{name: dict(KINDS)}).fit(table)


@every_model
def test_values_that_a_kind_cannot_have(model):
    """Also in what gives no score: a code of a negative count is the code of nothing."""
    model = clone(model).fit(TABLE)
    negative = TABLE.assign(visits=TABLE["visits"] - 9)
    for method in ("transform", "reconstruct", "score_samples"):
        if method == "transform" and not hasattr(model, method):  # ensembles have no codes
            continue
        with pytest.raises(ValueError, match="'visits' of X has values from -9") as caught:
            getattr(model, method)(negative)
    assert "likelihood='auto' chose it" in str(caught.value)
    model = small(VAE, likelihood=KINDS).fit(TABLE)
    with pytest.raises(ValueError, match="'visits' of X has values from -9") as caught:
        model.transform(negative)
    assert "auto" not in str(caught.value)


def test_holes_that_are_not_allowed():
    """The error names the column and the parameter."""
    model = small(VAE, missing="error").fit(WHOLE)
    for hidden in ("town", "price", "stars"):
        holed = WHOLE.assign(**{hidden: WHOLE[hidden].where(WHOLE.index > 102)})
        with pytest.raises(ValueError, match=f"NaN.*in column '{hidden}'.*missing='mask'"):
            model.transform(holed)
        with pytest.raises(ValueError, match=f"NaN.*in column '{hidden}'.*missing='mask'"):
            small(VAE, missing="error").fit(holed)


def test_text_under_one_likelihood():
    """The error says what takes text; others say nothing of it."""
    for rows in (TABLE, TABLE[["town"]].to_numpy(), [["a", "b"], ["c", "d"]]):
        with pytest.raises(ValueError, match=r"need likelihood='auto'.*given.*'gaussian'"):
            small(VAE, likelihood="gaussian").fit(rows)
    with pytest.raises(ValueError, match="infinity") as caught:
        small(VAE, likelihood="gaussian").fit(np.full((3, 2), np.inf))
    assert "auto" not in str(caught.value)


def test_what_is_no_table():
    """Sparse rows, single ones, and rows of text where errors are squared."""
    rows = make_rows(dtype=np.float64)
    with pytest.raises(TypeError, match="Sparse data"):
        small(VAE).fit(sparse.csr_array(rows))
    model = small(VAE).fit(rows)
    with pytest.raises(ValueError, match="Reshape your data"):
        model.transform(rows[0])
    with pytest.raises(ValueError, match="could not convert string"):
        reconstruction_error(TABLE[["town"]], TABLE[["town"]])


def test_helmholtz_machine_takes_numbers_as_before():
    """With likelihood="auto", its default, tables of numbers have one likelihood for all."""
    rows = make_rows(dtype=np.float64)
    frame = pd.DataFrame(rows, columns=list("abcde"))
    model = small(HelmholtzMachine).fit(frame)
    expected = small(HelmholtzMachine, likelihood="gaussian").fit(rows)
    assert model.likelihood_ == "gaussian"
    assert not hasattr(model, "likelihoods_")
    assert_array_equal(model.transform(frame), expected.transform(rows))
    assert_array_equal(model.score_samples(frame), expected.score_samples(rows))
    assert isinstance(model.reconstruct(frame), np.ndarray)  # as before


def test_helmholtz_machine_takes_arrays_of_text():
    """Their type tells as much as the values of an array of objects."""
    text = np.array([["a", "b"], ["b", "a"], ["a", "a"]] * 4)
    model = small(HelmholtzMachine).fit(text)
    assert model.likelihoods_ == {0: "categorical", 1: "categorical"}
    expected = small(HelmholtzMachine).fit(text.astype(object))
    assert_array_equal(model.score_samples(text), expected.score_samples(text))
    with pytest.raises(ValueError, match=r"need likelihood='auto'"):
        small(HelmholtzMachine, likelihood="gaussian").fit(text)


def test_masking_takes_whole_columns():
    """All levels of a category go together, and with them the mark that says what is seen."""
    model = small(Autoencoder, noise="masking", noise_level=0.5).fit(TABLE)
    module, columns = model._trainer.module, model._architecture.columns
    rows = model._dataset(Data(model._check_new_rows(WHOLE, "transform")))
    batch = next(batches(rows))[1]
    x, mask = module._corrupted(batch, generator()).split([10, 5], dim=1)
    assert 0.3 < mask.mean() < 0.7
    for j in range(5):
        at = np.flatnonzero(columns.source == j)
        expected = batch.x[:, at] * mask[:, [j]]
        assert_array_equal(x[:, at], expected)
