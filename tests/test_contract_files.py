"""Files of models: newer formats, damage; and names of columns that files keep."""

import copy
import io
import pickle
import re
from zipfile import BadZipFile

import joblib
import numpy as np
import pandas as pd
import pytest
import skops.io
from contract_helpers import (
    ESTIMATORS,
    assert_same_leaves,
    every_estimator,
    fitted,
    law_for,
    make_data,
    outputs,
    small,
    state,
    trained_on_batches,
)
from sklearn.decomposition import PCA
from sklearn.mixture import GaussianMixture
from sklearn.model_selection import GridSearchCV as SklearnGridSearchCV
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler

import skae
from skae import PPCA, Autoencoder, Ensemble, GridSearchCV, LatentDensityEstimator, PPCAImputer
from skae._base import BaseAutoencoder
from skae._utils import versions

every_network = law_for([E for E in ESTIMATORS if trained_on_batches(E)])


def joblib_dumps(model, **options):
    file = io.BytesIO()
    joblib.dump(model, file, **options)
    return file.getvalue()


def joblib_loads(data):
    return joblib.load(io.BytesIO(data))


def skops_loads(data):
    try:
        trusted = skops.io.get_untrusted_types(data=data)
    except TypeError:  # of an empty file
        trusted = []
    return skops.io.loads(data, trusted=trusted)


FORMATS = {
    "pickle": (pickle.dumps, pickle.loads),
    "joblib": (joblib_dumps, joblib_loads),
    "skops": (skops.io.dumps, skops_loads),
}
every_format = pytest.mark.parametrize("file", FORMATS)


def as_if_newer(patch):
    """What is saved within the context seems to come from a later skae."""
    patch.setattr(versions, "FORMAT", versions.FORMAT + 1)
    newer = {**versions._VERSIONS, "_skae_version": (" of skae", "9.1.0")}
    patch.setattr(versions, "_VERSIONS", newer)


REFUSED = (
    rf"was saved by skae 9\.1\.0 in file format {versions.FORMAT + 1}\. The installed skae "
    rf"{skae.__version__} reads formats up to {versions.FORMAT}\. .* "
    r'pip install "skae>=9\.1\.0"'
)


# ------------------------------------------------------------------------- newer formats


@every_estimator
@every_format
def test_files_of_a_newer_format_are_refused(Estimator, file, monkeypatch):
    """The error names the versions, the formats, and what to install."""
    dumps, loads = FORMATS[file]
    model = fitted(Estimator)
    with monkeypatch.context() as patch:
        as_if_newer(patch)
        data = dumps(model)
    # A LatentDensityEstimator contains another estimator, which is read first.
    with pytest.raises(ValueError, match=f"This ({Estimator.__name__}|LinearAE) {REFUSED}"):
        loads(data)


@every_estimator
def test_unfitted_models_of_a_newer_format_are_refused(Estimator, monkeypatch):
    with monkeypatch.context() as patch:
        as_if_newer(patch)
        data = pickle.dumps(Estimator())
    with pytest.raises(ValueError, match=REFUSED):
        pickle.loads(data)


def composites():
    X = make_data(PPCA)
    return {
        "Pipeline": make_pipeline(StandardScaler(), PPCA(2)).fit(X),
        "Ensemble": Ensemble(PPCA(2), 2, random_state=0).fit(X),
        "Ensemble of PCA": Ensemble(PCA(2), 2, random_state=0).fit(X),
        "PPCAImputer": PPCAImputer(2, random_state=0).fit(X),
        "GridSearchCV": GridSearchCV(PPCA(), {"n_components": [1, 2]}, cv=2).fit(X),
        "scikit-learn's": SklearnGridSearchCV(PPCA(), {"n_components": [1]}, cv=2).fit(X),
        "LatentDensityEstimator": LatentDensityEstimator(
            PPCA(2), density=GaussianMixture(), random_state=0
        ).fit(X),
    }


@pytest.mark.parametrize("name", composites())
@every_format
def test_composites_of_a_newer_format_are_refused(name, file, monkeypatch):
    """Whatever holds an estimator of skae, the first one that is read raises."""
    model = composites()[name]
    dumps, loads = FORMATS[file]
    loads(dumps(model))
    with monkeypatch.context() as patch:
        as_if_newer(patch)
        data = dumps(model)
    with pytest.raises(ValueError, match=REFUSED):
        loads(data)


def test_a_newer_format_is_refused_before_anything_is_read():
    """An entry that only the newer version can read does not hide the cause."""
    saved = {"_skae_format": versions.FORMAT + 1, "_skae_version": "9.1.0", "components_": None}
    for Estimator in ESTIMATORS:
        with pytest.raises(ValueError, match=REFUSED):
            Estimator.__new__(Estimator).__setstate__(saved)


@every_estimator
def test_states_without_a_format_load_as_they_did(Estimator):
    """Those of earlier versions; what they lack is not called damage."""
    X, model = make_data(Estimator), fitted(Estimator)
    old = model.__getstate__()
    assert old.pop("_skae_format") == versions.FORMAT
    loaded = Estimator.__new__(Estimator)
    loaded.__setstate__(old)
    assert set(vars(loaded)) == set(vars(model))
    assert_same_leaves(outputs(loaded, X), outputs(model, X))
    del old["n_components"]
    Estimator.__new__(Estimator).__setstate__(old)


# ------------------------------------------------------------------- damaged states


def assert_damaged(Estimator, saved, match):
    with pytest.raises(ValueError, match=match) as caught:
        Estimator.__new__(Estimator).__setstate__(saved)
    message = str(caught.value)
    part = "( network| prior| density)?"
    assert re.match(rf"The saved {Estimator.__name__}{part} cannot be restored \(", message)
    assert "damaged" in message
    assert "checksum" in message


def error_of_loading(Estimator, saved):
    """The message of the ValueError, or the loaded model."""
    loaded = Estimator.__new__(Estimator)
    try:
        loaded.__setstate__(saved)
    except ValueError as error:
        return str(error)
    return loaded


@every_estimator
def test_a_missing_parameter_is_damage(Estimator):
    """Parameters that files of 0.1 lack get the value that they had there."""
    names, n_named = Estimator().get_params(deep=False), 0
    for name in names:
        saved = fitted(Estimator).__getstate__()
        del saved[name]
        found = error_of_loading(Estimator, saved)
        if isinstance(found, str):
            assert name in found
            assert "damaged" in found
            n_named += 1
        else:
            assert name in vars(found)
    assert n_named >= len(names) - 10


@every_estimator
def test_a_missing_or_misshapen_array_is_damage(Estimator):
    """It is found at once, not in the first call that needs it."""
    assert Estimator._state_shapes
    whole = fitted(Estimator).__getstate__()
    arrays = 0
    for name, shape in Estimator._state_shapes.items():
        if name in whole:
            assert_damaged(Estimator, {k: v for k, v in whole.items() if k != name}, name)
        if name in whole and shape:
            arrays += 1
            assert_damaged(Estimator, {**whole, name: whole[name][:-1]}, rf"{name} has shape ")
            assert_damaged(Estimator, {**whole, name: None}, rf"{name} has shape \(\)")
    assert arrays or trained_on_batches(Estimator)


@every_network
def test_weights_must_fit_the_network(Estimator):
    """None may be missing or have another shape, none may be too many."""
    for net in ("net_", "prior_net_"):
        whole = fitted(Estimator).__getstate__()
        if net not in whole:
            continue
        assert_damaged(Estimator, {**whole, net: {}}, "KeyError")
        for name, weight in list(whole[net]["weights"].items())[:6]:
            saved = copy.deepcopy(whole)
            del saved[net]["weights"][name]
            assert_damaged(Estimator, saved, name.replace(".", r"\."))
            saved[net]["weights"][name] = np.zeros((3, *weight.shape), weight.dtype)
            assert_damaged(Estimator, saved, f"size mismatch for {name}")
            saved[net]["weights"] |= {name: weight, "more": weight}
            assert_damaged(Estimator, saved, "more")


@every_network
def test_a_fitted_network_needs_its_weights_and_its_architecture(Estimator):
    whole = fitted(Estimator).__getstate__()
    for name in {"net_", "_architecture", "_settings", "_units"} & set(whole):
        assert_damaged(Estimator, {k: v for k, v in whole.items() if k != name}, "missing|Error")
    if "_architecture" in whole:
        fields = {**whole["_architecture"]}
        del fields["n_features"]
        assert_damaged(Estimator, {**whole, "_architecture": fields}, "n_features")


def test_a_format_that_is_no_number_is_damage():
    assert_damaged(PPCA, {**PPCA().__getstate__(), "_skae_format": "1"}, "its format is '1'")


def test_an_ensemble_without_members_is_damage():
    saved = composites()["Ensemble"].__getstate__()
    del saved["estimators_"], saved["n_members"]
    assert_damaged(Ensemble, saved, "n_members is missing")


def test_the_error_says_that_other_versions_may_be_the_cause():
    saved = {**fitted(PPCA).__getstate__(), "_skae_version": "0.1.9", "mean_": np.zeros(9)}
    assert_damaged(PPCA, saved, r"If other models of sklearn .* and skae 0\.1\.9 fail too")


# -------------------------------------------------------------------- damaged files


def small_network():
    return small(Autoencoder, hidden_layer_sizes=(3,), max_iter=1).fit(make_data(Autoencoder))


MODELS = {"PPCA": lambda: fitted(PPCA), "Autoencoder": small_network}
every_model = pytest.mark.parametrize("model", MODELS)

# Formats of files that have a checksum of all their bytes.
CHECKED = {
    "skops": FORMATS["skops"],
    "joblib, zlib": (lambda model: joblib_dumps(model, compress=3), joblib_loads),
    "joblib, gzip": (lambda model: joblib_dumps(model, compress=("gzip", 3)), joblib_loads),
}


@every_model
@every_format
def test_a_truncated_file_raises(model, file):
    dumps, loads = FORMATS[file]
    data = dumps(MODELS[model]())
    for length in np.linspace(0, len(data) - 1, 40).astype(int):
        with pytest.raises(Exception):  # noqa: B017  (each format has its own errors)
            loads(data[:length])


@every_model
@pytest.mark.parametrize("file", CHECKED)
def test_a_flipped_bit_raises_in_files_with_a_checksum(model, file):
    """Or it is in a byte without a meaning, such as the date of a zip entry."""
    dumps, loads = CHECKED[file]
    model = MODELS[model]()
    data, whole, n_raised = dumps(model), state(model), 0
    rng = np.random.default_rng(0)
    places = rng.choice(len(data), 100, replace=False)
    for place in places.tolist():
        damaged = bytearray(data)
        damaged[place] ^= 1 << int(rng.integers(8))
        try:
            loaded = loads(bytes(damaged))
        except Exception:
            n_raised += 1
        else:
            assert isinstance(loaded, BaseAutoencoder)
            assert_same_leaves(state(loaded), whole)
    assert n_raised > 85


def test_skops_names_the_checksum():
    """Bytes of an array in the middle of the file are overwritten."""
    data = skops.io.dumps(fitted(PPCA))
    place = data.index(fitted(PPCA).mean_.tobytes())
    with pytest.raises(BadZipFile, match="Bad CRC-32"):
        skops_loads(data[:place] + b"\0" * 8 + data[place + 8 :])


@pytest.mark.parametrize("file", ["pickle", "joblib"])
def test_a_wrong_name_in_a_file_without_a_checksum_is_found(file):
    """By the names that a state must have; a wrong value is not found, as the page says."""
    dumps, loads = FORMATS[file]
    data = dumps(fitted(PPCA))
    for name, wrong in ((b"loadings_", b"loadingz_"), (b"n_components", b"n_componentz")):
        assert data.count(name) >= 1
        with pytest.raises(ValueError, match="damaged"):
            loads(data.replace(name, wrong, 1))


# ------------------------------------------------------- names of columns that are no text

NAMES = {
    "integers": [5, 7, 9, 11, 13, 15],
    "the default": range(6),
    "wavelengths": [400.5, 410.0, 500.0, 600.0, 700.25, 1e4],
    "days": pd.date_range("2024-02-27", periods=6),
}
every_kind_of_names = pytest.mark.parametrize("names", NAMES)


def frame_of(Estimator, names):
    return pd.DataFrame(make_data(Estimator), columns=NAMES[names])


def assert_same_columns(frame, X):
    assert list(frame.columns) == list(X.columns)
    assert frame.columns.dtype == X.columns.dtype


@every_estimator
@every_kind_of_names
def test_columns_get_their_names_back(Estimator, names):
    """scikit-learn keeps names that are text; others are kept for the output, also in files."""
    X = frame_of(Estimator, names)
    model = small(Estimator).set_output(transform="pandas").fit(X)
    assert not hasattr(model, "feature_names_in_")
    for one in (model, skops_loads(skops.io.dumps(model))):
        codes = one.transform(X)
        for rows in (one.inverse_transform(codes), one.reconstruct(X), one.sample(2)):
            assert_same_columns(rows, X)
        assert list(codes.columns) == list(one.get_feature_names_out())
    again = model.fit(X.to_numpy())
    assert list(again.sample(2).columns) == [f"x{j}" for j in range(6)]


@every_kind_of_names
def test_tables_and_composites_give_the_names_back(names):
    X = frame_of(PPCA, names)
    table = X.copy()
    table.isetitem(0, (table.iloc[:, 0] > 1).map({True: "yes", False: "no"}))
    network = small(Autoencoder, likelihood="auto").fit(table)
    assert_same_columns(network.sample(2), X)
    assert_same_columns(network.reconstruct(table), X)
    member = PPCA(2).set_output(transform="pandas")
    ensemble = Ensemble(member, 2, random_state=0).fit(X)
    assert_same_columns(ensemble.sample(2), X)
    pipeline = make_pipeline(member, GaussianMixture(2, random_state=0)).fit(X)
    rows = skae.sample_pipeline(pipeline, 2, random_state=0)
    assert_same_columns(rows, X)


def test_polars_gets_the_names_as_text():
    model = PPCA(2).set_output(transform="polars").fit(frame_of(PPCA, "integers"))
    assert model.sample(2).columns == ["5", "7", "9", "11", "13", "15"]


def test_text_and_numbers_together_raise_as_in_scikit_learn():
    X = pd.DataFrame(make_data(PPCA), columns=[0, "a", 2, 3, 4, 5])
    with pytest.raises(TypeError, match="only supported if all input features have string names"):
        PPCA(2).fit(X)
