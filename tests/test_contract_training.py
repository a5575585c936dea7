"""The contract's laws of what is trained: numbers of any kind, weights and rows of any size.

Estimators are discovered, never listed, as in test_contract.py.
"""

import warnings
from numbers import Integral, Real

import joblib
import numpy as np
import pytest
from contract_helpers import (
    EPOCHS,
    ESTIMATORS,
    assert_finite,
    assert_same_leaves,
    call,
    codes_of,
    every_estimator,
    fitted,
    law_for,
    learned,
    make_data,
    may_advise,
    outputs,
    public_methods,
    small,
    trained_on_batches,
)
from sklearn.callback import ScoringMonitor
from sklearn.metrics import check_scoring
from sklearn.model_selection import GridSearchCV
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler
from skorch.callbacks import Callback

every_network = law_for([E for E in ESTIMATORS if trained_on_batches(E)])


@every_estimator
@pytest.mark.parametrize("scale", [1e9, 1e20, 1e38, 1e60])
def test_rows_far_away_stay_finite(Estimator, scale):
    """As PCA's do, whatever their distance; their score is low, or -inf, and never NaN."""
    model = fitted(Estimator)
    X = scale * make_data(Estimator, (4, 6), seed=1)
    codes = codes_of(model, X)
    assert np.isfinite(codes).all()
    assert np.isfinite(model.reconstruct(X)).all()
    scores = model.score_samples(X)
    assert not np.isnan(scores).any()
    assert scores.max() < model.score_samples(X / scale).min()


def without_linear_models(Estimator):
    """A small one that wraps none of the linear models, whose weights count rows."""
    model = small(Estimator)
    return model.set_params(n_components=None) if "autoencoder" in model.get_params() else model


@every_network
@pytest.mark.parametrize("scale", [1e-46, 1e-300, 2.0**70, 1e40, 1e300])
@may_advise
def test_weights_have_no_scale(Estimator, scale):
    """Not in `fit`, also where float32 could not hold them; powers of two change no bit."""
    X = make_data(Estimator)
    weight = np.linspace(0.5, 2.0, len(X))
    model = without_linear_models(Estimator).fit(X, sample_weight=scale * weight)
    expected = without_linear_models(Estimator).fit(X, sample_weight=weight)
    exact = scale == 2.0**70
    found, wanted = (
        {k: v for k, v in outputs(m, X).items() if k != "score_samples" or exact}
        for m in (model, expected)
    )
    assert_same_leaves(found, wanted, 0.0 if exact else 1e-2)


@every_network
@may_advise
def test_weights_that_float32_loses_count_nothing(Estimator):
    """Beside the largest: no batch of them alone divides zero by zero."""
    X = make_data(Estimator)
    weight = np.where(np.arange(len(X)) < 30, 1.0, 1e-46)
    model = without_linear_models(Estimator).fit(X, sample_weight=weight)
    assert_same_leaves(
        outputs(model, X), outputs(without_linear_models(Estimator).fit(X[:30]), X), 1e-3
    )


def as_numpy(value, kind):
    """A number, or a tuple of them, as a grid of NumPy's has it; all else as it is."""
    if isinstance(value, tuple):
        return tuple(as_numpy(item, kind) for item in value)
    if isinstance(value, bool) or not isinstance(value, Real):
        return value
    if isinstance(value, Integral):
        return {"64": np.int64, "32": np.int32}[kind](value)
    return {"64": np.float64, "32": np.float32}[kind](value)


@every_estimator
@pytest.mark.parametrize("solver", ["adam", "adamw", "sgd", "lbfgs", "muon"])
@may_advise
def test_parameters_may_be_numpys(Estimator, solver):
    """Such as those of np.linspace in a search: torch takes none of them."""
    X = make_data(Estimator)
    model = small(Estimator)
    allowed = [c for c in model._parameter_constraints.get("solver", ()) if hasattr(c, "options")]
    if any(solver in c.options for c in allowed):
        model.set_params(solver=solver)
    elif solver != "adam":
        pytest.skip("no solver of this estimator")
    expected = outputs(model.fit(X), X)
    for kind in ("64", "32"):
        params = model.get_params(deep=False)
        other = type(model)(**{name: as_numpy(value, kind) for name, value in params.items()})
        rounding = 1e-3 if solver == "muon" else 1e-5  # it scales all directions of a step alike
        assert_same_leaves(outputs(other.fit(X), X), expected, rounding if kind == "32" else 0.0)


@every_estimator
@pytest.mark.filterwarnings("error")
def test_a_file_that_is_mapped(Estimator, tmp_path):
    """joblib's read-only maps compute as what was saved, and say nothing."""
    X = make_data(Estimator)
    model = fitted(Estimator)
    joblib.dump(model, tmp_path / "model")
    mapped = joblib.load(tmp_path / "model", mmap_mode="r")
    assert_same_leaves(outputs(mapped, X), outputs(model, X))
    codes = codes_of(mapped, X)
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", "partial_fit continues", UserWarning)
        for method in public_methods(Estimator):
            if "fit" not in method or method == "partial_fit":
                call(mapped, method, X, codes)


class Presses(Callback):
    """Ctrl-C as the third epoch begins, which no callback asks for."""

    def on_epoch_begin(self, net, **kwargs):
        if len(net.history) == 3:
            raise KeyboardInterrupt


@every_network
@pytest.mark.parametrize("inside", [None, "pipeline", "search"])
@may_advise
def test_the_first_ctrl_c(Estimator, inside):
    """It keeps two epochs in a network's own fit; inside another estimator it is raised."""
    X = make_data(Estimator)
    model = small(Estimator).set_params(callbacks=[Presses()])
    wraps = "autoencoder" in model.get_params()
    if inside is None and not wraps:
        with pytest.warns(UserWarning, match=r"interrupted in epoch 3; .* epoch 2 is kept"):
            model.fit(X)
        assert model.n_iter_ == len(model.history_) == 2
        assert_finite(outputs(model, X))
        return
    outer = model
    if inside == "pipeline":
        outer = make_pipeline(StandardScaler(), model)
    elif inside == "search":
        outer = GridSearchCV(model, {"alpha": [0.0, 0.1]}, cv=2)
    with pytest.raises(KeyboardInterrupt):
        outer.fit(np.abs(X) if inside == "search" else X)
    assert not learned(model)
    assert not hasattr(outer, "best_estimator_")


@every_network
def test_a_second_ctrl_c_is_raised(Estimator, monkeypatch):
    """While what follows training is computed; the model is as it was before."""
    X = make_data(Estimator)
    model = small(Estimator).fit(X)
    before = learned(model)

    def pressed(*arguments):
        raise KeyboardInterrupt

    monkeypatch.setattr(Estimator, "_finish", pressed)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", UserWarning)
        with pytest.raises(KeyboardInterrupt):
            model.set_params(callbacks=[Presses()]).fit(X + 1)
    assert_same_leaves(learned(model), before)


@every_network
def test_scores_of_epochs_are_logged(Estimator):
    """scikit-learn's ScoringMonitor logs the score after every epoch, with or without y."""
    X = make_data(Estimator)
    for y in (None, np.arange(len(X))):
        model = small(Estimator)
        monitor = ScoringMonitor(scoring={"nats": check_scoring(model)})
        model.set_callbacks(monitor).fit(X, y)
        epochs = [row for row in monitor.get_logs().data if row["task_name"] == "epoch"]
        assert len(epochs) == model.n_iter_ == EPOCHS
        assert np.isfinite([row["nats"] for row in epochs]).all()
