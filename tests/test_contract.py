"""The contract: laws that every public skae estimator obeys.

Estimators are discovered, never listed, and differ here only by what their tags and
parameters say, so that a new one is tested on arrival.
"""

import copy
import inspect
import re

import numpy as np
import pandas as pd
import pytest
import sklearn
import torch
from contract_helpers import (
    EPOCHS,
    ESTIMATORS,
    SQUARE,
    TALL,
    WIDE,
    as_frame,
    assert_finite,
    assert_same_leaves,
    call,
    codes_of,
    copy_of_fitted,
    default,
    documented_methods,
    every_estimator,
    every_exact_estimator,
    every_fit,
    every_forgiving_estimator,
    every_gaussian,
    every_kind_of_rows,
    every_streaming_estimator,
    fitted,
    half_at_once,
    law_for,
    learned,
    leaves,
    make_data,
    may_advise,
    may_miss_values,
    of_known_length,
    outputs,
    public_methods,
    repeatable,
    shape_for,
    small,
    state,
    tolerance,
    trained_on_batches,
)
from hypothesis import example, given, settings
from hypothesis import strategies as st
from sklearn import config_context
from sklearn.base import clone
from sklearn.decomposition import PCA
from sklearn.exceptions import InconsistentVersionWarning, NotFittedError
from sklearn.model_selection import GridSearchCV, KFold
from sklearn.pipeline import Pipeline
from sklearn.preprocessing import StandardScaler
from sklearn.utils import get_tags
from sklearn.utils.estimator_checks import parametrize_with_checks

import skae
from helpers import through_joblib, through_pickle, through_skops
from skae._training.data import Batch, Data
from skae._utils import versions as skae_versions


def test_estimators_are_found():
    """There is something to test."""
    assert ESTIMATORS


@every_estimator
def test_abstract_or_final(Estimator):
    """Every estimator is concrete, and inherits from no other one."""
    assert not inspect.isabstract(Estimator)
    assert not set(Estimator.__mro__[1:]) & set(ESTIMATORS)


# ----------------------------------------------------------------- scikit-learn's laws


def exempted(estimator):
    """The only exemption that skae allows, with the laws that take its place.

    Rows that are repeated fall into other batches than rows that are weighted. What holds
    for every batch is tested in test_weights_of_a_batch_count_as_repeated_rows, and what
    holds for the whole fit in test_rows_of_weight_zero_are_left_out and
    test_weights_have_no_scale.
    """
    encodes_by_itself = "autoencoder" not in estimator.get_params()  # else rows are the codes
    if not (trained_on_batches(type(estimator)) and encodes_by_itself):
        return {}
    reason = "trained on mini-batches"
    return dict.fromkeys(
        [f"check_sample_weight_equivalence_on_{kind}_data" for kind in ("dense", "sparse")], reason
    )


def of_tables():
    """Networks whose columns have likelihoods of their own, where they have not by default."""
    models = [of_known_length(Estimator()) for Estimator in ESTIMATORS]
    return [
        model.set_params(likelihood="auto")
        for model in models
        if model.get_params().get("likelihood", "auto") != "auto"
    ]


@may_advise
@parametrize_with_checks(
    # scikit-learn shortens the training of its own estimators, too.
    [of_known_length(Estimator()) for Estimator in ESTIMATORS] + of_tables(),
    expected_failed_checks=exempted,
)
def test_scikit_learn_check(estimator, check):
    """scikit-learn's own checks pass, with default parameters and without exemption."""
    if check.func.__name__.startswith("check_sample_weight_equivalence"):
        # Its 15 rows in 30 dimensions leave directions without variance. The default takes
        # axes among them that no data determine, so that they cannot be compared.
        estimator = clone(estimator).set_params(n_components=2)
    check(estimator)


@every_estimator
def test_tags_switch_no_check_off(Estimator):
    """No tag that makes scikit-learn skip a check is set."""
    tags = get_tags(Estimator())
    assert not any([tags._skip_test, tags.no_validation, tags.non_deterministic])


# ---------------------------------------------------------------- names and documents


@every_estimator
def test_score_kind_is_one_of_the_four(Estimator):
    """score_kind says what score_samples returns, in one of the design's four words."""
    assert Estimator.score_kind in {"log_likelihood", "lower_bound", "reconstruction", "latent"}


@every_estimator
def test_every_public_method_is_documented(Estimator):
    """Every public method says in numpydoc what it takes and what it returns."""
    for name in documented_methods(Estimator):
        doc = inspect.cleandoc(getattr(Estimator, name).__doc__ or "")
        sections = re.split(r"^(\w[\w ]*)\n-+\n", doc, flags=re.MULTILINE)
        body = dict(zip(sections[1::2], sections[2::2], strict=True))
        assert sections[0].strip(), f"{name} has no summary"
        assert body.get("Returns", "").strip(), f"{name} does not say what it returns"
        for argument in list(inspect.signature(getattr(Estimator, name)).parameters)[1:]:
            documented = re.search(rf"^\**{argument}\b", body.get("Parameters", ""), re.MULTILINE)
            assert documented, f"{name} does not document {argument}"


@every_estimator
def test_one_unique_name_per_code(Estimator):
    """get_feature_names_out names every column of transform, each differently."""
    for n_components in (1, 2):
        X = make_data(Estimator)
        model = small(Estimator, n_components).fit(X)
        names = list(model.get_feature_names_out())
        assert len(names) == len(set(names)) == codes_of(model, X).shape[1]


# -------------------------------------------------------------------- copies and files


@every_estimator
def test_state_is_plain(Estimator):
    """__getstate__ holds NumPy arrays and plain types only."""
    X = make_data(Estimator)
    frame = pd.DataFrame(X).add_prefix("column ")
    models = [fitted(Estimator), small(Estimator), small(Estimator).fit(frame)]
    if hasattr(Estimator, "partial_fit"):
        models.append(small(Estimator).partial_fit(torch.from_numpy(X)))
    plain = (type(None), bool, int, float, str, bytes, np.ndarray, np.generic)
    for model in models:
        for path, value in leaves(model.__getstate__()):
            assert isinstance(value, plain), f"{path} is a {type(value)}"


@every_estimator
def test_clone(Estimator):
    """A clone is unfitted, has the same parameters and learns the same."""
    X, model = make_data(Estimator), fitted(Estimator)
    copied = clone(model)
    assert copied.get_params() == model.get_params()
    assert not learned(copied)
    assert_same_leaves(outputs(copied.fit(X), X), outputs(model, X))


every_file = pytest.mark.parametrize(
    "saved_and_loaded",
    [through_pickle, through_joblib, through_skops],
    ids=["pickle", "joblib", "skops"],
)


@every_kind_of_rows
@every_file
def test_round_trip(Estimator, shape, gaps, saved_and_loaded, tmp_path):
    """A model that was saved and loaded holds and computes the same, bit for bit."""
    X = make_data(Estimator, shape, gaps=gaps)
    model = small(Estimator).fit(X, sample_weight=np.linspace(0.0, 2.0, len(X)))
    loaded = saved_and_loaded(model, tmp_path / "model")
    assert_same_leaves(state(loaded), state(model))
    assert_same_leaves(outputs(loaded, X), outputs(model, X))


@every_estimator
@every_file
def test_round_trip_of_a_model_of_frames(Estimator, saved_and_loaded, tmp_path):
    """Column names and the chosen container survive saving and loading."""
    frame = pd.DataFrame(make_data(Estimator)).add_prefix("column ")
    model = small(Estimator).set_output(transform="pandas").fit(frame)
    loaded = saved_and_loaded(model, tmp_path / "model")
    pd.testing.assert_frame_equal(loaded.reconstruct(frame), model.reconstruct(frame))


@every_estimator
@every_file
def test_round_trip_of_an_unfitted_model(Estimator, saved_and_loaded, tmp_path):
    """An unfitted model that was saved and loaded can be fitted."""
    X = make_data(Estimator)
    loaded = saved_and_loaded(small(Estimator), tmp_path / "model")
    assert_same_leaves(outputs(loaded.fit(X), X), outputs(fitted(Estimator), X))


@every_streaming_estimator
@every_file
def test_round_trip_amid_a_stream(Estimator, saved_and_loaded, tmp_path):
    """A model that was saved and loaded between two batches goes on as if it had not been."""
    X = make_data(Estimator)
    model = small(Estimator).partial_fit(X[:20])
    loaded = saved_and_loaded(model, tmp_path / "model")
    assert_same_leaves(
        outputs(loaded.partial_fit(X[20:]), X), outputs(model.partial_fit(X[20:]), X)
    )


def saved_elsewhere(monkeypatch, **versions):
    """As if skae or scikit-learn were of these versions."""
    there = {
        key: (of_what, versions.get(key, here))
        for key, (of_what, here) in skae_versions._VERSIONS.items()
    }
    monkeypatch.setattr(skae_versions, "_VERSIONS", there)


@every_estimator
@every_file
def test_files_of_other_versions_warn(Estimator, saved_and_loaded, tmp_path, monkeypatch):
    """As scikit-learn's own models do, with both versions; they load all the same."""
    X, model = make_data(Estimator), fitted(Estimator)
    for key, named in (
        ("_sklearn_version", rf"{Estimator.__name__} from version 1\.0\.2 when using version "),
        ("_skae_version", rf"{Estimator.__name__} of skae from version 1\.0\.2 when using version"),
    ):
        with monkeypatch.context() as patch:
            saved_elsewhere(patch, **{key: "1.0.2"})
            state_there = model.__getstate__()
            assert state_there[key] == "1.0.2"
            patch.setattr(Estimator, "__setstate__", lambda self, state: self.kept.update(state))
            patch.setattr(Estimator, "kept", {}, raising=False)
            saved_and_loaded(model, tmp_path / "model")
            assert Estimator.kept[key] == "1.0.2"
        loaded = Estimator.__new__(Estimator)
        with pytest.warns(InconsistentVersionWarning, match=named) as warned:
            loaded.__setstate__(state_there)
        assert len(warned) == 1
        assert set(vars(loaded)) == set(vars(model))
        assert_same_leaves(outputs(loaded, X), outputs(model, X))


@every_estimator
def test_files_that_state_no_version_load_in_silence(Estimator):
    """They were saved before versions were stated; the state itself is left as it is."""
    X, model = make_data(Estimator), fitted(Estimator)
    old = model.__getstate__()
    assert old.pop("_sklearn_version") == sklearn.__version__
    assert old.pop("_skae_version") == skae.__version__
    keys = set(old)
    loaded = Estimator.__new__(Estimator)
    loaded.__setstate__(old)
    assert set(old) == keys
    assert_same_leaves(outputs(loaded, X), outputs(model, X))


@every_estimator
def test_copies_hold_no_versions(Estimator):
    """Neither a deep copy nor a clone differs from its model by an attribute."""
    model = fitted(Estimator)
    assert set(vars(copy.deepcopy(model))) == set(vars(model))
    assert not {"_sklearn_version", "_skae_version"} & set(vars(clone(model)))


# --------------------------------------------------------------- shapes and degenerate data


@every_estimator
def test_one_row(Estimator):
    """A fitted model encodes, reconstructs and scores a single row as it does among others."""
    X, model = make_data(Estimator), fitted(Estimator)
    many, one = outputs(model, X), outputs(model, X[:1])
    for name in ("transform", "inverse_transform", "reconstruct", "score_samples"):
        assert one[name].shape == many[name][:1].shape
        np.testing.assert_allclose(one[name], many[name][:1], rtol=1e-5, atol=1e-5, err_msg=name)
    assert one["score"] == pytest.approx(float(one["score_samples"][0]))


@may_advise
@every_estimator
def test_fewer_rows_than_features(Estimator):
    """Rows may be fewer than features."""
    X = make_data(Estimator, (4, 10))
    for model in (small(Estimator), default(Estimator)):
        assert_finite(outputs(model.fit(X), X))


@every_estimator
@pytest.mark.parametrize("n_components", [-1, 1.5, "many", [2]])
def test_impossible_n_components(Estimator, n_components):
    """An n_components that cannot be is a ValueError that names it."""
    with pytest.raises(ValueError, match=r"n_components"):
        small(Estimator, n_components).fit(make_data(Estimator))


@every_exact_estimator
@pytest.mark.parametrize("shape", [(4, 10), (10, 4)], ids=str)
def test_n_components_beyond_the_data(Estimator, shape):
    """More codes than rows and features allow are a ValueError that names n_components."""
    X = make_data(Estimator, shape)
    for options in ({}, {"sample_weight": np.ones(len(X))}):
        with pytest.raises(ValueError, match=r"n_components=11"):
            small(Estimator, n_components=11).fit(X, **options)


# Networks train for so many epochs.
every_length = pytest.mark.parametrize(
    "max_iter", [EPOCHS, pytest.param(20, marks=pytest.mark.long)]
)

DEGENERATE = {
    "constant column": lambda X: np.column_stack([X, np.full(len(X), 7.0)]),
    "zero column": lambda X: np.column_stack([X, np.zeros(len(X))]),
    "duplicated columns": lambda X: np.column_stack([X, X]),
    "duplicated rows": lambda X: np.repeat(X[:3], 5, axis=0),
    "two rows": lambda X: X[:2],
    "all constant": lambda X: np.full_like(X, 3.0),
    "every column constant": lambda X: np.tile(X[0], (len(X), 1)),
    "all zero": lambda X: np.zeros_like(X),
    "one column": lambda X: X[:, :1],
}


@may_advise
@every_estimator
@pytest.mark.parametrize(
    ("shape", "dtype"), half_at_once([TALL, WIDE], ["float32", "float64"]), ids=str
)
@pytest.mark.parametrize("degenerate", DEGENERATE.values(), ids=DEGENERATE)
@every_length
def test_degenerate_data(Estimator, max_iter, degenerate, shape, dtype):
    """Constant and duplicated columns and rows give finite results everywhere."""
    shape = shape_for(Estimator, shape, all_codes=True)
    X = degenerate(make_data(Estimator, shape)).astype(dtype)
    for model in (small(Estimator, n_components=1), default(Estimator, max_iter)):
        model.fit(X)
        assert_finite(outputs(model, X))
        assert_finite(learned(model))


@may_advise
@every_forgiving_estimator
@pytest.mark.parametrize("dtype", [pytest.param("float64", marks=pytest.mark.long), "float32"])
@pytest.mark.parametrize("degenerate", DEGENERATE.values(), ids=DEGENERATE)
def test_degenerate_data_with_gaps(Estimator, degenerate, dtype):
    """Where NaN is allowed, degenerate data with gaps give finite results everywhere."""
    X = degenerate(make_data(Estimator)).astype(dtype)
    X[0, 0] = X[1, -1] = np.nan
    for model in (small(Estimator, n_components=1), default(Estimator)):
        model.fit(X)
        assert_finite(outputs(model, X))
        assert_finite(learned(model))


def check_scale(Estimator, max_iter, exponent, dtype, shape, weighted, gaps):
    """Huge and tiny data give finite results, or a ValueError that asks to rescale."""
    if not may_miss_values(Estimator):
        gaps = 0.0
    shape = shape_for(Estimator, shape, all_codes=True)
    X = (make_data(Estimator, shape, gaps=gaps) * 10.0**exponent).astype(dtype)
    weight = np.ones(len(X)) if weighted else None
    for model in (small(Estimator), default(Estimator, max_iter)):
        try:
            model.fit(X, sample_weight=weight)
            values = outputs(model, X)
        except ValueError as error:  # LinAlgError is one too, but does not ask to rescale
            if not re.search("(?i)rescale", str(error)):
                raise
            continue
        assert_finite(values)
        assert_finite(learned(model))


at_any_scale = given(
    exponent=st.integers(-30, 30),
    dtype=st.sampled_from(["float64", "float32"]),
    shape=st.sampled_from([TALL, SQUARE, WIDE]),
    weighted=st.booleans(),
    gaps=st.sampled_from([0.0, 0.1]),
)


@may_advise
@every_estimator
@every_length
@settings(repeatable, max_examples=2)
@at_any_scale
@example(exponent=30, dtype="float64", shape=WIDE, weighted=False, gaps=0.0)
@example(exponent=30, dtype="float32", shape=TALL, weighted=False, gaps=0.1)
@example(exponent=30, dtype="float32", shape=WIDE, weighted=True, gaps=0.0)
@example(exponent=-30, dtype="float64", shape=TALL, weighted=False, gaps=0.1)
@example(exponent=-30, dtype="float32", shape=SQUARE, weighted=False, gaps=0.0)
def test_scale(Estimator, max_iter, **rows):
    check_scale(Estimator, max_iter, **rows)


@pytest.mark.long
@may_advise
@every_estimator
@every_length
@settings(repeatable, max_examples=10)
@at_any_scale
@example(exponent=30, dtype="float64", shape=TALL, weighted=False, gaps=0.0)
@example(exponent=30, dtype="float64", shape=TALL, weighted=False, gaps=0.1)
@example(exponent=30, dtype="float32", shape=TALL, weighted=False, gaps=0.0)
@example(exponent=30, dtype="float32", shape=SQUARE, weighted=False, gaps=0.0)
@example(exponent=30, dtype="float32", shape=WIDE, weighted=False, gaps=0.0)
@example(exponent=-30, dtype="float64", shape=TALL, weighted=False, gaps=0.0)
@example(exponent=-30, dtype="float64", shape=WIDE, weighted=False, gaps=0.0)
@example(exponent=-30, dtype="float32", shape=TALL, weighted=False, gaps=0.0)
@example(exponent=-30, dtype="float32", shape=WIDE, weighted=False, gaps=0.0)
@example(exponent=-30, dtype="float32", shape=WIDE, weighted=True, gaps=0.0)
@example(exponent=-30, dtype="float32", shape=TALL, weighted=False, gaps=0.1)
def test_scale_in_every_shape(Estimator, max_iter, **rows):
    check_scale(Estimator, max_iter, **rows)


@every_forgiving_estimator
@pytest.mark.parametrize("dtype", ["float64", "float32"])
def test_unseen_values_are_left_out(Estimator, dtype):
    """Where the tag allows NaN, every result is finite and of the type that was given."""
    gaps = make_data(Estimator, gaps=0.2).astype(dtype)
    gaps[3] = np.nan  # a row of which nothing was seen
    preserved = dtype in get_tags(Estimator()).transformer_tags.preserves_dtype
    for rows in (make_data(Estimator).astype(dtype), gaps):
        values = outputs(small(Estimator).fit(rows), gaps)
        assert_finite(values)
        del values["score"]
        assert not preserved or {value.dtype.name for value in values.values()} == {dtype}


@law_for([E for E in ESTIMATORS if not may_miss_values(E)])
def test_unseen_values_are_refused(Estimator):
    """Where the tag does not allow NaN, it is an error that says NaN, in every method."""
    gaps = make_data(Estimator, gaps=0.2)
    with pytest.raises(ValueError, match="NaN"):
        small(Estimator).fit(gaps)
    for method in ("transform", "reconstruct", "score_samples", "score"):
        with pytest.raises(ValueError, match="NaN"):
            getattr(fitted(Estimator), method)(gaps)


@every_estimator
def test_unseen_codes_are_refused(Estimator):
    """Codes are complete: NaN among them is an error that says NaN."""
    codes = codes_of(fitted(Estimator), make_data(Estimator)).astype(np.float64)
    codes[0, 0] = np.nan
    with pytest.raises(ValueError, match="NaN"):
        fitted(Estimator).inverse_transform(codes)


@pytest.mark.parametrize(
    ("Estimator", "method"),
    [
        pytest.param(E, method, id=f"{E.__name__}-{method}")
        for E in ESTIMATORS
        for method in public_methods(E)
        if "fit" not in method
    ],
)
def test_unfitted(Estimator, method):
    """Before fit every method that needs one says NotFittedError."""
    X = make_data(Estimator)
    with pytest.raises(NotFittedError):
        call(Estimator(), method, X, X)


# ------------------------------------------------------------------ what fit leaves behind


@every_fit
@pytest.mark.parametrize("earlier", ["fitted", "fresh"])
@pytest.mark.parametrize(
    ("params", "spoil", "options"),
    [
        ({"n_components": -1}, lambda X: X, {}),
        ({}, lambda X: np.where(X.max() == X, np.inf, X), {}),
        ({}, lambda X: X[:, :0], {}),
        ({}, lambda X: X.astype(complex), {}),
        ({}, lambda X: X, {"sample_weight": -np.ones(60)}),
        ({}, lambda X: X, {"sample_weight": np.ones(3)}),
    ],
    ids=["n_components", "infinite", "no columns", "complex", "negative weight", "few weights"],
)
def test_failed_fit_changes_nothing(Estimator, fit, earlier, params, spoil, options):
    """A fit that fails leaves the model as it was, bit for bit; a fresh one unfitted."""
    X = make_data(Estimator)
    model = small(Estimator)
    if earlier == "fitted":
        model = model.partial_fit(X) if fit == "partial_fit" else copy_of_fitted(Estimator)
    model.set_params(**params)
    attributes, before = set(vars(model)), state(model)
    with pytest.raises(ValueError):
        getattr(model, fit)(spoil(X), **options)
    assert set(vars(model)) == attributes
    assert_same_leaves(state(model), before)
    if earlier == "fresh":
        with pytest.raises(NotFittedError):
            model.transform(X)


@every_exact_estimator
def test_fit_that_fails_late_changes_nothing(Estimator):
    """A size that only the data make impossible fails inside the model, and changes nothing."""
    X = make_data(Estimator)
    model = small(Estimator).fit(X).set_params(n_components=11)
    before = state(model)
    with pytest.raises(ValueError, match="n_components"):
        model.fit(make_data(Estimator, (10, 4)))
    assert_same_leaves(state(model), before)


@every_estimator
@pytest.mark.parametrize("fit", ["fit", "fit_transform"])
@pytest.mark.parametrize("earlier", ["fitted", "fresh"])
def test_interrupted_fit_changes_nothing(Estimator, fit, earlier, monkeypatch):
    """A fit that is interrupted when all is learned leaves the model as it was."""
    model = copy_of_fitted(Estimator) if earlier == "fitted" else small(Estimator)
    before = state(model)
    fit_model = Estimator._fit_model

    def learn_and_interrupt(self, *arguments):
        fit_model(self, *arguments)
        raise KeyboardInterrupt

    monkeypatch.setattr(Estimator, "_fit_model", learn_and_interrupt)
    with pytest.raises(KeyboardInterrupt):
        getattr(model, fit)(make_data(Estimator, shape_for(Estimator, WIDE)))
    assert_same_leaves(state(model), before)


LACKS_OF_MEMORY = {
    "NumPy": lambda: np._core._exceptions._ArrayMemoryError((10, 10), np.dtype(float)),
    "C++": lambda: MemoryError("std::bad_alloc"),
    "Python": MemoryError,
    "torch": lambda: RuntimeError("DefaultCPUAllocator: not enough memory: you tried to allocate"),
    "device": lambda: torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 2.00 GiB."),
}
every_lack_of_memory = pytest.mark.parametrize(
    "lack", LACKS_OF_MEMORY.values(), ids=LACKS_OF_MEMORY
)


def raising(error):
    def method(self, *args, **kwargs):
        raise error()

    return method


@every_estimator
@every_lack_of_memory
@pytest.mark.parametrize("fit", ["fit", "fit_transform"])
def test_too_little_memory_to_learn(Estimator, fit, lack, monkeypatch):
    """It is a MemoryError that says what to set, and the model is as before."""
    model, X = copy_of_fitted(Estimator), make_data(Estimator)
    before = state(model)
    monkeypatch.setattr(Estimator, "_fit_model", raising(lack))
    named = "batch_size \\(now 25\\)" if trained_on_batches(Estimator) else "n_components"
    with pytest.raises(MemoryError, match=f"{Estimator.__name__}.fit is out of memory.*{named}"):
        getattr(model, fit)(X)
    assert_same_leaves(state(model), before)


@every_estimator
@every_lack_of_memory
def test_too_little_memory_for_a_query(Estimator, lack, monkeypatch):
    """It is a MemoryError that says what to ask for less of; other errors stay as they are."""
    model, X = copy_of_fitted(Estimator), make_data(Estimator)
    codes = codes_of(model, X)
    for hook in ("_encode", "_decode", "_log_prob", "_draw", "_generate"):
        monkeypatch.setattr(Estimator, hook, raising(lack))
    for method, named in (("transform", "rows"), ("reconstruct", "rows"), ("sample", "n_samples")):
        argument = 7 if method == "sample" else X
        with pytest.raises(MemoryError, match=rf"{method} is out of memory.*: .*{named}"):
            getattr(model, method)(argument)
    with pytest.raises(MemoryError, match=r"inverse_transform is out of memory.*rows"):
        model.inverse_transform(codes)
    advised = MemoryError("shape=(100000, 100000) has 1e10 pixels: give fewer.")
    for hook in ("_encode", "_decode"):
        monkeypatch.setattr(Estimator, hook, raising(lambda: advised))
    with pytest.raises(MemoryError) as error:
        model.transform(X)
    assert error.value is advised
    for hook in ("_encode", "_decode"):
        other = raising(lambda: RuntimeError("mat1 and mat2 shapes cannot be multiplied"))
        monkeypatch.setattr(Estimator, hook, other)
    with pytest.raises(RuntimeError, match="shapes cannot be multiplied"):
        model.transform(X)


@every_fit
def test_refit_forgets(Estimator, fit):
    """A second fit leaves the model that a first one would have left."""
    X = make_data(Estimator)
    frame = as_frame("pandas", X[:, :5], list("abcde"))
    model = small(Estimator)
    getattr(model, fit)(frame)
    model.left_over_ = 1.0
    model.fit(X)
    assert_same_leaves(state(model), state(small(Estimator).fit(X)))


@every_estimator
def test_fit_leaves_parameters_alone(Estimator):
    """fit changes no parameter, and fit returns the estimator itself."""
    for model in (small(Estimator), default(Estimator)):
        params = model.get_params()
        assert model.fit(make_data(Estimator)) is model
        assert model.get_params() == params


# ------------------------------------------------------------------------- randomness


@every_kind_of_rows
@pytest.mark.parametrize("random_state", [0, 7])
def test_same_seed_same_bits(Estimator, shape, gaps, random_state):
    """The same random_state gives the same bits in fit, transform, scores and samples."""
    X = make_data(Estimator, shape, gaps=gaps)
    first = small(Estimator, random_state=random_state).fit(X)
    second = small(Estimator, random_state=random_state).fit(X)
    assert_same_leaves(state(first), state(second))
    assert_same_leaves(outputs(first, X), outputs(second, X))


@every_kind_of_rows
@pytest.mark.parametrize("random_state", [None, pytest.param(0, marks=pytest.mark.long)])
def test_global_generators_are_untouched(Estimator, shape, gaps, random_state):
    """No method advances NumPy's or torch's global generator, also without a seed."""
    X = make_data(Estimator, shape, gaps=gaps)

    def global_state():
        _, *words = np.random.get_state()  # noqa: NPY002 (the generator that is under test)
        return {"numpy": np.hstack(words), "torch": torch.random.get_rng_state().numpy()}

    before = global_state()
    model = small(Estimator, random_state=random_state)
    model.fit_transform(X)
    model.fit(X, sample_weight=np.linspace(0.0, 2.0, len(X)))
    model.fit(X)
    codes = codes_of(model, X)
    for method in public_methods(Estimator):
        if "fit" not in method:
            call(model, method, X, codes)
    model.sample(5, noise=False)
    model.sample(5, random_state=random_state)
    assert_same_leaves(global_state(), before)


@every_estimator
def test_samples(Estimator):
    """sample draws new rows each time, and the same ones for the same random_state."""
    model = fitted(Estimator)
    assert model.sample().shape == (1, 6)
    assert model.sample(np.int64(3)).shape == (3, 6)
    assert not np.array_equal(model.sample(5), model.sample(5))
    for noise in (True, False):  # 50 rows, as a few draws of two components may be the same
        drawn = model.sample(50, noise=noise, random_state=3)
        np.testing.assert_array_equal(drawn, model.sample(50, noise=noise, random_state=3))
        assert not np.array_equal(drawn, model.sample(50, noise=noise, random_state=4))
    generator = np.random.RandomState(3)
    np.testing.assert_array_equal(
        model.sample(5, random_state=generator), model.sample(5, random_state=3)
    )
    assert not np.array_equal(
        model.sample(5, random_state=generator), model.sample(5, random_state=3)
    )


@every_estimator
@pytest.mark.parametrize("n_samples", [0, -1, 1.5, "3", None])
def test_impossible_n_samples(Estimator, n_samples):
    """An n_samples that is no positive integer is a ValueError that names it."""
    with pytest.raises(ValueError, match=r"n_samples"):
        fitted(Estimator).sample(n_samples)


@every_gaussian
@pytest.mark.parametrize("n_components", [1, 2, 5])
def test_moments_of_samples(Estimator, n_components):
    """Samples have the model's mean and covariance; without noise they fill fewer dimensions."""
    model = small(Estimator, n_components).fit(make_data(Estimator))
    n = 200_000
    drawn = model.sample(n, random_state=0)
    covariance = np.asarray(model.get_covariance(), dtype=np.float64)
    variances = np.diag(covariance)
    # Standard errors of a Gaussian's mean and covariance. Five of them are exceeded by one
    # number in two million, and the seed is fixed.
    mean_error = np.sqrt(variances / n)
    covariance_error = np.sqrt((np.outer(variances, variances) + covariance**2) / n)
    assert np.all(np.abs(drawn.mean(axis=0) - model.mean_) < 5 * mean_error)
    assert np.all(np.abs(np.cov(drawn, rowvar=False) - covariance) < 5 * covariance_error)

    means = model.sample(100, noise=False, random_state=0)
    assert np.linalg.matrix_rank(means - model.mean_, tol=1e-4) == n_components


# ----------------------------------------------------------------------------- scores


@every_estimator
@repeatable
@given(rows=st.lists(st.integers(0, 59), min_size=1, max_size=80))
def test_scores_are_row_independent(Estimator, rows):
    """A row's score and code do not depend on the rows beside it, nor on their order."""
    gaps = 0.05 if may_miss_values(Estimator) else 0.0
    X, model = make_data(Estimator, gaps=gaps), fitted(Estimator)
    np.testing.assert_allclose(
        model.score_samples(X[rows]), model.score_samples(X)[rows], rtol=1e-5
    )
    np.testing.assert_allclose(
        model.transform(X[rows]), codes_of(model, X)[rows], rtol=1e-5, atol=1e-5
    )


@every_estimator
def test_scores_alike_twice(Estimator):
    """A fitted model scores alike twice."""
    X, model = make_data(Estimator), small(Estimator, random_state=None)
    model.fit(X)
    first = model.score_samples(X)
    model.sample(5)
    np.testing.assert_array_equal(model.score_samples(X), first)


@every_estimator
@repeatable
@given(weight=st.lists(st.floats(0.0, 10.0), min_size=60, max_size=60).filter(any))
def test_score_is_the_mean(Estimator, weight):
    """score is the mean of score_samples, weighted by sample_weight."""
    X, model = make_data(Estimator), fitted(Estimator)
    scores = np.asarray(model.score_samples(X), dtype=np.float64)
    assert isinstance(model.score(X), float)
    assert model.score(X) == pytest.approx(np.mean(scores), rel=1e-6)
    assert model.score(X, sample_weight=weight) == pytest.approx(
        np.average(scores, weights=weight), rel=1e-6
    )


@every_estimator
def test_reconstruct_decodes_the_codes(Estimator):
    """reconstruct is inverse_transform of transform."""
    X = make_data(Estimator)
    values = outputs(fitted(Estimator), X)
    assert values["reconstruct"].shape == values["inverse_transform"].shape == X.shape
    np.testing.assert_allclose(values["reconstruct"], values["inverse_transform"], rtol=1e-5)


# ----------------------------------------------------------------------------- weights


@every_estimator
def test_rows_of_weight_zero_are_left_out(Estimator):
    """Rows of weight zero change nothing, whatever they hold; they are encoded all the same."""
    X = make_data(Estimator)
    weight = np.random.default_rng(0).uniform(0.5, 2.0, len(X))
    weight[::3] = 0.0
    far = np.where(weight[:, None] > 0, X, 1e6 * X)
    kept = weight > 0
    model = small(Estimator).fit(far, sample_weight=weight)
    expected = small(Estimator).fit(X[kept], sample_weight=weight[kept])
    assert_same_leaves(outputs(model, X), outputs(expected, X), tolerance(Estimator))
    codes = small(Estimator).fit_transform(far, sample_weight=weight)
    np.testing.assert_allclose(codes, expected.transform(far), rtol=1e-5, atol=1e-5)


every_network = law_for([E for E in ESTIMATORS if trained_on_batches(E)])


@every_network
def test_weights_of_a_batch_count_as_repeated_rows(Estimator):
    """Losses and gradients of a weighted batch are those of its repeated rows, to 1e-5."""
    X = make_data(Estimator).astype(np.float32)
    weight = np.random.default_rng(0).integers(1, 4, len(X))
    model = small(Estimator).fit(X)
    module = model.net_.module_
    if hasattr(model, "_dataset"):
        rows = model._dataset(Data(X))
    else:  # it trains a density of its codes
        rows = model.density_._begin(model.transform(X).astype(np.float64), None)
    batch = module.prepare(rows.batch(slice(None)), torch.Generator())
    repeats = torch.as_tensor(weight)
    repeated = Batch(*(None if t is None else t.repeat_interleave(repeats, 0) for t in batch))
    found = []
    for rows in (batch._replace(weight=repeats.float()), repeated):
        first = module.loss(rows)
        losses = [sum(first.terms.values())]
        losses += [phase.loss(rows, first) for phase in module.phases()]
        of_losses = [
            torch.autograd.grad(
                loss, list(module.parameters()), allow_unused=True, retain_graph=True
            )
            for loss in losses
        ]
        gradients = [[g for g in of_loss if g is not None] for of_loss in of_losses]
        found.append(([float(loss.detach()) for loss in losses], gradients))
    (weighted, of_weighted), (expected, of_expected) = found
    np.testing.assert_allclose(weighted, expected, rtol=1e-5)
    for actual_gradients, expected_gradients in zip(of_weighted, of_expected, strict=True):
        size = max(float(g.abs().max()) for g in expected_gradients)
        for actual, wanted in zip(actual_gradients, expected_gradients, strict=True):
            np.testing.assert_allclose(actual, wanted, rtol=1e-5, atol=1e-5 * size)


@every_network
@pytest.mark.parametrize("early_stopping", [False, True])
def test_weights_have_no_scale(Estimator, early_stopping):
    """Weights times a constant give the same model, also with held-out rows."""
    X = make_data(Estimator)
    weight = np.random.default_rng(0).uniform(0.5, 2.0, len(X))
    model, scaled = (
        small(Estimator).set_params(early_stopping=early_stopping).fit(X, sample_weight=w)
        for w in (weight, 64 * weight)
    )
    assert_same_leaves(outputs(model, X), outputs(scaled, X), 1e-4)


@every_network
def test_rows_of_weight_zero_are_never_held_out(Estimator):
    """Held-out rows are chosen among rows that count."""
    X = make_data(Estimator)
    weight = (np.arange(len(X)) % 2).astype(float)
    model = small(Estimator).set_params(early_stopping=True)
    weighted = clone(model).fit(np.where(weight[:, None] > 0, X, 1e6), sample_weight=weight)
    assert_same_leaves(outputs(weighted, X), outputs(model.fit(X[1::2]), X), 1e-4)


@st.composite
def weighted_shapes(draw):
    """Weights of 3 to 14 rows, two or more of them positive, and a number of features."""
    weights = st.lists(st.integers(0, 4), min_size=3, max_size=14)
    weight = draw(weights.filter(lambda w: np.count_nonzero(w) > 1))
    return np.array(weight), draw(st.integers(1, 6))


@may_advise
@every_exact_estimator
@repeatable
@given(case=weighted_shapes(), seed=st.integers(0, 100))
@example(case=(np.array([4, 4, 0]), 6), seed=0)  # more counted rows than features, not more rows
@example(case=(np.full(12, 5), 6), seed=0)  # 60 counted rows: PCA changes its solver
def test_integer_weights_count_as_repeated_rows(Estimator, case, seed):
    """A row of integer weight w is learned from as w rows are, to 1e-8."""
    weight, n_features = case
    # Columns of unlike size keep the principal axes apart, and so well determined.
    X = make_data(Estimator, (len(weight), n_features), seed) * 2.0 ** np.arange(n_features)
    X /= np.abs(X).max()
    repeated = np.repeat(X, weight, axis=0)
    rank = min(np.count_nonzero(weight) - 1, n_features)

    # With the codes that the data determine, all is the same.
    weighted = small(Estimator, n_components=1).fit(X, sample_weight=weight)
    counted = small(Estimator, n_components=1).fit(repeated)
    assert_same_leaves(learned(weighted), learned(counted), 1e-8)
    np.testing.assert_allclose(weighted.transform(X), counted.transform(X), rtol=0, atol=1e-8)
    if rank > 1:
        np.testing.assert_allclose(weighted.score_samples(X), counted.score_samples(X), rtol=1e-8)

    # The default takes as many as counted rows allow. Axes without variance are arbitrary:
    # only what does not depend on them can be compared.
    weighted, counted = Estimator().fit(X, sample_weight=weight), Estimator().fit(repeated)
    assert list(weighted.get_feature_names_out()) == list(counted.get_feature_names_out())
    seen = X[weight > 0]
    np.testing.assert_allclose(
        weighted.reconstruct(seen), counted.reconstruct(seen), rtol=0, atol=1e-8
    )
    if rank == n_features:
        np.testing.assert_allclose(weighted.score_samples(X), counted.score_samples(X), rtol=1e-8)


@law_for([E for E in ESTIMATORS if may_miss_values(E) and not trained_on_batches(E)])
@repeatable
@given(weight=st.lists(st.integers(0, 3), min_size=30, max_size=30), seed=st.integers(0, 100))
def test_integer_weights_count_where_values_are_missing(Estimator, weight, seed):
    """A row with NaN of integer weight w is learned from as w rows are, to 1e-8."""
    weight = np.array(weight) + (np.arange(30) % 3 == 0)
    X = make_data(Estimator, (30, 4), seed, gaps=0.15)
    weighted = small(Estimator, 1).fit(X, sample_weight=weight)
    counted = small(Estimator, 1).fit(np.repeat(X, weight, axis=0))
    assert_same_leaves(learned(weighted), learned(counted), 1e-8)
    assert_same_leaves(outputs(weighted, X), outputs(counted, X), 1e-8)


@may_advise
@every_exact_estimator
def test_limits_count_weights(Estimator):
    """The limits on n_components count a row of weight w as w rows."""
    X = make_data(Estimator, (4, 10))
    weight = np.array([3, 2, 1, 0])
    small(Estimator, n_components=5).fit(np.repeat(X, weight, axis=0))
    small(Estimator, n_components=5).fit(X, sample_weight=weight)
    with pytest.raises(ValueError, match="n_components"):
        small(Estimator, n_components=7).fit(X, sample_weight=weight)


# ------------------------------------------------------- pipelines, searches and routing


@every_estimator
def test_in_a_pipeline(Estimator):
    """A Pipeline around the estimator computes what its steps compute by hand."""
    X = make_data(Estimator)
    pipe = Pipeline([("scale", StandardScaler()), ("reduce", small(Estimator))]).fit(X)
    scaler = StandardScaler().fit(X)
    model = small(Estimator).fit(scaler.transform(X))
    codes = codes_of(model, scaler.transform(X))
    np.testing.assert_array_equal(pipe.transform(X), codes)
    np.testing.assert_array_equal(
        pipe.inverse_transform(codes), scaler.inverse_transform(model.inverse_transform(codes))
    )
    np.testing.assert_array_equal(pipe.score_samples(X), model.score_samples(scaler.transform(X)))
    assert pipe.score(X) == model.score(scaler.transform(X))
    assert list(pipe.get_feature_names_out()) == list(model.get_feature_names_out())


@every_estimator
def test_in_a_grid_search(Estimator):
    """Whole steps and their n_components can be searched, as with PCA."""
    X, model = make_data(Estimator), of_known_length(Estimator())
    pipe = Pipeline([("scale", StandardScaler()), ("reduce", PCA())])
    grid = {"reduce": [PCA(), model], "reduce__n_components": [1, 2]}
    both = GridSearchCV(pipe, grid, cv=2, error_score="raise").fit(X)
    assert np.all(np.isfinite(both.cv_results_["mean_test_score"]))

    own = {"reduce": [model], "reduce__n_components": [1, 2]}
    best = GridSearchCV(pipe, own, cv=2, error_score="raise").fit(X).best_estimator_
    assert isinstance(best["reduce"], Estimator)
    assert codes_of(best, X).shape == (len(X), len(best.get_feature_names_out()))


@every_estimator
def test_weights_are_routed_through_a_pipeline(Estimator):
    """A requested sample_weight reaches the estimator as a Pipeline's last and middle step."""
    X = make_data(Estimator)
    weight = np.linspace(0.0, 3.0, len(X))
    expected = small(Estimator).fit(X, sample_weight=weight)
    with config_context(enable_metadata_routing=True):
        reduce = small(Estimator).set_fit_request(sample_weight=True)
        last = Pipeline([("as is", "passthrough"), ("reduce", reduce)])
        middle = Pipeline([("reduce", clone(reduce)), ("scale", StandardScaler())])
        middle.named_steps["scale"].set_fit_request(sample_weight=False)
        last.fit(X, sample_weight=weight)
        middle.fit(X, sample_weight=weight)
    for pipe in (last, middle):
        found = pipe["reduce"]
        assert_same_leaves(learned(found), learned(expected), tolerance(Estimator))
        assert_same_leaves(outputs(found, X), outputs(expected, X), tolerance(Estimator))


@every_estimator
def test_weights_are_routed_through_a_grid_search(Estimator):
    """GridSearchCV hands the weights of its folds to fit and score."""
    X = make_data(Estimator)
    weight = np.linspace(0.5, 3.0, len(X))
    folds = KFold(3)
    with config_context(enable_metadata_routing=True):
        model = small(Estimator)
        model.set_fit_request(sample_weight=True).set_score_request(sample_weight=True)
        search = GridSearchCV(model, {"n_components": [1, 2]}, cv=folds, error_score="raise")
        search.fit(X, sample_weight=weight)
    for index, n_components in enumerate([1, 2]):
        for fold, (train, test) in enumerate(folds.split(X)):
            model = small(Estimator, n_components).fit(X[train], sample_weight=weight[train])
            score = model.score(X[test], sample_weight=weight[test])
            found = search.cv_results_[f"split{fold}_test_score"][index]
            assert found == pytest.approx(score, rel=tolerance(Estimator))
    best = small(Estimator, **search.best_params_).fit(X, sample_weight=weight)
    assert_same_leaves(outputs(search.best_estimator_, X), outputs(best, X), tolerance(Estimator))
