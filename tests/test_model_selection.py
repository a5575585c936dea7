"""Searches that share work: against scikit-learn's, and how much work they do."""

import gc
import pickle
import re
import time
import weakref
from collections import Counter
from contextlib import contextmanager
from functools import wraps

import numpy as np
import pandas as pd
import pytest
from joblib import parallel_config
from scipy.stats import randint
from sklearn import config_context, model_selection
from sklearn.base import BaseEstimator, TransformerMixin, clone
from sklearn.decomposition import PCA, TruncatedSVD
from sklearn.exceptions import FitFailedWarning
from sklearn.impute import SimpleImputer
from sklearn.linear_model import LogisticRegression, Ridge
from sklearn.metrics import make_scorer
from sklearn.mixture import GaussianMixture
from sklearn.pipeline import Pipeline, make_pipeline
from sklearn.preprocessing import FunctionTransformer, MinMaxScaler, StandardScaler
from sklearn.svm import SVC

import skae
from helpers import make_rows, network
from skae import PPCA, VAE, Autoencoder, LatentDensityEstimator, LinearAE, cross_validate
from skae._search.fold import Root

# torch says so of one operation of stacked networks, whose values are right.
pytestmark = pytest.mark.filterwarnings("ignore:There is a performance drop")

X = make_rows(60, 6, dtype=np.float64)
Y = (X[:, 0] > np.median(X[:, 0])).astype(int)
SIZES = [1, 2, 4]


def searches(estimator, grid, **options):
    """Our search and scikit-learn's."""
    options = {"cv": 3, **options}
    theirs = {k: v for k, v in options.items() if not k.startswith("share")}
    return (
        skae.GridSearchCV(estimator, grid, **options),
        model_selection.GridSearchCV(estimator, grid, **theirs),
    )


def assert_same_results(ours, theirs, rtol=1e-9, atol=1e-10):
    found, expected = ours.cv_results_, theirs.cv_results_
    assert list(found) == list(expected)
    assert found["params"] == expected["params"]
    for name, values in expected.items():
        if name.startswith(("split", "mean_test", "mean_train", "std_t")):
            np.testing.assert_allclose(found[name], values, rtol=rtol, atol=atol, err_msg=name)
        elif name.startswith("rank"):
            np.testing.assert_array_equal(found[name], values)
    if theirs.refit:
        assert ours.best_params_ == theirs.best_params_
        np.testing.assert_allclose(ours.best_score_, theirs.best_score_, rtol=rtol)


def how_shared(search):
    """How many pieces of work of each kind and step there were."""
    return Counter((entry["how"], entry["step"]) for entry in search.shared_fits_)


def counting(method, counts, name):
    @wraps(method)
    def count(self, *args, **kwargs):
        counts[name] += 1
        return method(self, *args, **kwargs)

    return count


@contextmanager
def counted(monkeypatch, *classes, method="fit"):
    """Counts of the calls of a method that classes define."""
    counts = Counter()
    with monkeypatch.context() as patch:
        for cls in classes:
            patch.setattr(cls, method, counting(getattr(cls, method), counts, cls.__name__))
        yield counts


SCALED = make_pipeline(StandardScaler(), PPCA())
CLASSIFIER = make_pipeline(StandardScaler(), PCA(), LogisticRegression())
CASES = {
    "PPCA": (PPCA(), {"n_components": SIZES}, {("sizes", "PPCA"): 3}),
    "LinearAE": (LinearAE(), {"n_components": SIZES}, {("sizes", "LinearAE"): 3}),
    "PCA": (PCA(), {"n_components": [*SIZES, 0.9, None]}, {("sizes", "PCA"): 3}),
    "two families": (
        PCA(),
        {"n_components": SIZES, "whiten": [False, True]},
        {("sizes", "PCA"): 6},
    ),
    "PPCA behind a scaler": (
        SCALED,
        {"ppca__n_components": SIZES},
        {("step", "StandardScaler"): 3, ("sizes", "PPCA"): 3},
    ),
    "PCA before a classifier": (
        CLASSIFIER,
        {"pca__n_components": SIZES, "logisticregression__C": [0.1, 1]},
        {("step", "StandardScaler"): 3, ("sizes", "PCA"): 3, ("step", "PCA"): 9},
    ),
    "one size of PCA": (
        make_pipeline(PCA(2), LogisticRegression()),
        {"logisticregression__C": [0.1, 1]},
        {("step", "PCA"): 3},
    ),
    "steps that differ": (
        Pipeline([("scale", StandardScaler()), ("last", SVC())]),
        {"scale": [StandardScaler(), MinMaxScaler(), "passthrough"], "last__C": [0.1, 1]},
        {("step", "StandardScaler"): 3, ("step", "MinMaxScaler"): 3, (None, None): 1},
    ),
    "models in the grid": (
        Pipeline([("scale", StandardScaler()), ("last", PCA())]),
        {"last": [PCA(1), PCA(2), PPCA(2), LinearAE(3)]},
        {("step", "StandardScaler"): 3, ("sizes", "PCA"): 3},
    ),
    "a pipeline in a pipeline": (
        make_pipeline(make_pipeline(SimpleImputer(), StandardScaler()), Ridge()),
        {"ridge__alpha": [0.1, 1]},
        {("step", "Pipeline"): 3},
    ),
    "nothing to share": (SVC(), {"C": [0.1, 1]}, {(None, None): 1}),
    "one candidate": (SCALED, {"ppca__n_components": [2]}, {(None, None): 1}),
    "a random step": (
        make_pipeline(TruncatedSVD(2), Ridge()),
        {"ridge__alpha": [0.1, 1]},
        {(None, None): 1},
    ),
    "a seeded step": (
        make_pipeline(TruncatedSVD(2, random_state=0), Ridge()),
        {"ridge__alpha": [0.1, 1]},
        {("step", "TruncatedSVD"): 3},
    ),
    "a randomized solver": (
        PCA(svd_solver="randomized", random_state=0),
        {"n_components": SIZES},
        {(None, None): 1},
    ),
    "a verbose pipeline": (
        make_pipeline(StandardScaler(), Ridge(), verbose=True),
        {"ridge__alpha": [0.1, 1]},
        {(None, None): 1},
    ),
    "pairwise rows": (SVC(kernel="precomputed"), {"C": [0.1, 1]}, {(None, None): 1}),
}


@pytest.mark.filterwarnings("ignore:With scoring=None:UserWarning")
@pytest.mark.parametrize("case", CASES)
def test_results_are_those_of_scikit_learn(case):
    estimator, grid, shared = CASES[case]
    rows = X @ X.T if case == "pairwise rows" else X
    if case == "a random step":  # what it draws does not matter: all directions are kept
        estimator = clone(estimator).set_params(truncatedsvd__n_components=5)
        rows = X[:, :5]
    ours, theirs = searches(estimator, grid, return_train_score=True)
    rtol = 1e-4 if case == "a random step" else 1e-7
    assert_same_results(ours.fit(rows, Y), theirs.fit(rows, Y), rtol=rtol)
    assert how_shared(ours) == shared


@pytest.mark.parametrize("scoring", ["accuracy", ["accuracy", "roc_auc"], "dict", "function"])
def test_metrics(scoring):
    if scoring == "dict":
        scoring = {"a": make_scorer(lambda y, p: float(np.mean(y == p))), "b": "neg_log_loss"}
    elif scoring == "function":
        scoring = lambda model, X, y: {"a": model.score(X, y), "b": model.predict(X).mean()}  # noqa: E731
    refit = "accuracy" if isinstance(scoring, list) else "a"
    options = {"scoring": scoring, "refit": True if scoring == "accuracy" else refit}
    grid = {"pca__n_components": SIZES}
    ours, theirs = searches(CLASSIFIER, grid, return_train_score=True, **options)
    assert_same_results(ours.fit(X, Y), theirs.fit(X, Y))
    assert ours.score(X, Y) == theirs.score(X, Y)


def test_each_step_is_fitted_once_per_fold(monkeypatch):
    pipeline = make_pipeline(SimpleImputer(), StandardScaler(), PPCA(), LogisticRegression())
    grid = {"ppca__n_components": SIZES, "logisticregression__C": [0.1, 1]}
    ours = skae.GridSearchCV(pipeline, grid, cv=3, refit=False)
    with counted(monkeypatch, SimpleImputer, StandardScaler, PPCA, LogisticRegression) as counts:
        ours.fit(X, Y)
    assert counts == {
        "SimpleImputer": 3,
        "StandardScaler": 3,
        "PPCA": 3,
        "LogisticRegression": 3 * 3 * 2,
    }


def test_rows_are_transformed_once_for_scoring(monkeypatch):
    ours = skae.GridSearchCV(SCALED, {"ppca__n_components": SIZES}, cv=3, refit=False)
    with counted(monkeypatch, StandardScaler, method="transform") as counts:
        ours.fit(X)
    assert counts["StandardScaler"] == 2 * 3  # training rows, test rows


def test_with_several_jobs():
    grid = {"pca__n_components": SIZES, "logisticregression__C": [0.1, 1]}
    ours, theirs = searches(CLASSIFIER, grid, n_jobs=8)
    with parallel_config(backend="threading"):
        assert_same_results(ours.fit(X, Y), theirs.fit(X, Y))
    # More pieces than folds, so that eight threads have work.
    assert how_shared(ours)["step", "StandardScaler"] > 3


def test_share_is_false(monkeypatch):
    ours, theirs = searches(SCALED, {"ppca__n_components": SIZES}, share=False, refit=False)
    with counted(monkeypatch, StandardScaler) as counts:
        ours.fit(X)
    assert counts["StandardScaler"] == 9
    assert_same_results(ours, theirs.fit(X), rtol=0, atol=0)
    [entry] = ours.shared_fits_
    assert entry["candidates"] == [0, 1, 2]
    assert entry["why"] == "share is False"


@pytest.mark.parametrize("model", [PPCA(), LinearAE()])
@pytest.mark.parametrize("weighted", [False, True])
def test_moments_of_all_folds_serve_all_sizes(model, weighted, monkeypatch):
    rows = make_rows(90, 6, noise=2.0, dtype=np.float64)  # enough to tell all by moments
    params = {"sample_weight": np.linspace(1, 2, 90)} if weighted else {}
    ours, theirs = searches(model, {"n_components": SIZES}, return_train_score=True, refit=False)
    with counted(monkeypatch, type(model)) as counts:
        ours.fit(rows, **params)
    assert counts[type(model).__name__] == (3 if weighted else 0)
    assert_same_results(ours, theirs.fit(rows, **params))


def test_randomized_search():
    sizes = {"n_components": randint(1, 6)}
    ours = skae.RandomizedSearchCV(PPCA(), sizes, n_iter=5, cv=3, random_state=0)
    theirs = model_selection.RandomizedSearchCV(PPCA(), sizes, n_iter=5, cv=3, random_state=0)
    assert_same_results(ours.fit(X), theirs.fit(X))
    assert how_shared(ours) == {("sizes", "PPCA"): 3}


def test_approximate_sizes_are_shared_on_request():
    pca = PCA(svd_solver="randomized", random_state=0)
    ours, theirs = searches(pca, {"n_components": SIZES}, share_approximate=True)
    ours.fit(X)
    assert how_shared(ours) == {("sizes", "PCA"): 3}
    assert_same_results(ours, theirs.fit(X), rtol=1e-9, atol=1e-3)


def test_frames_keep_their_names():
    frame = pd.DataFrame(X, columns=list("abcdef"))
    pipeline = make_pipeline(StandardScaler(), PCA(), LogisticRegression())
    pipeline.set_output(transform="pandas")
    ours, theirs = searches(pipeline, {"pca__n_components": SIZES})
    assert_same_results(ours.fit(frame, Y), theirs.fit(frame, Y))
    assert list(ours.feature_names_in_) == list("abcdef")
    assert how_shared(ours)["sizes", "PCA"] == 3


# ------------------------------------------------------------------- what must not be shared


class Shift(TransformerMixin, BaseEstimator):
    """A step that nobody knows, and that writes on its rows."""

    def fit(self, X, y=None):
        return self

    def transform(self, X):
        X += 1.0
        return X

    def __sklearn_is_fitted__(self):
        return True


def double_in_place(X):
    X *= 2
    return X


@pytest.mark.parametrize(
    "writer",
    [Shift(), StandardScaler(copy=False), FunctionTransformer(double_in_place)],
    ids=["foreign", "copy=False", "function"],
)
@pytest.mark.parametrize("first", [True, False])
def test_who_writes_on_rows_has_rows_of_its_own(writer, first):
    steps = [writer, StandardScaler()] if first else [StandardScaler(), writer]
    pipeline = make_pipeline(*steps, Ridge())
    ours, theirs = searches(pipeline, {"ridge__alpha": [0.1, 1, 10]}, return_train_score=True)
    assert_same_results(ours.fit(X.copy(), Y), theirs.fit(X.copy(), Y))
    assert how_shared(ours) == ({(None, None): 1} if first else {("step", "StandardScaler"): 3})


def test_memory_of_the_user_is_left_alone(tmp_path):
    pipeline = make_pipeline(StandardScaler(), Ridge(), memory=str(tmp_path))
    ours = skae.GridSearchCV(pipeline, {"ridge__alpha": [0.1, 1]}, cv=3).fit(X, Y)
    assert how_shared(ours) == {(None, None): 1}
    assert ours.best_estimator_.memory == str(tmp_path)
    assert list(tmp_path.iterdir())


def test_steps_with_sample_weight_are_fitted_by_themselves():
    weight = np.linspace(1, 2, len(X))
    grid = {"ridge__alpha": [0.1, 1], "standardscaler__with_mean": [True, False]}
    ours, theirs = searches(make_pipeline(StandardScaler(), Ridge()), grid)
    params = {"standardscaler__sample_weight": weight, "ridge__sample_weight": weight}
    assert_same_results(ours.fit(X, Y, **params), theirs.fit(X, Y, **params))
    assert how_shared(ours) == {(None, None): 1}
    # Where only the last step has weights, those before it are shared.
    params = {"ridge__sample_weight": weight}
    assert_same_results(ours.fit(X, Y, **params), theirs.fit(X, Y, **params))
    assert how_shared(ours) == {("step", "StandardScaler"): 6}


def test_sample_weight_of_a_model(monkeypatch):
    weight = np.linspace(1, 2, len(X))
    ours, theirs = searches(PPCA(), {"n_components": SIZES}, refit=False)
    with counted(monkeypatch, PPCA) as counts:
        ours.fit(X, sample_weight=weight)
    assert counts["PPCA"] == 3
    assert_same_results(ours, theirs.fit(X, sample_weight=weight))


def test_metadata_routing():
    weight = np.linspace(1, 2, len(X))
    with config_context(enable_metadata_routing=True):
        ridge = Ridge().set_fit_request(sample_weight=True).set_score_request(sample_weight=True)
        pipeline = make_pipeline(StandardScaler().set_fit_request(sample_weight=False), ridge)
        ours, theirs = searches(pipeline, {"ridge__alpha": [0.1, 1]})
        assert_same_results(
            ours.fit(X, Y, sample_weight=weight), theirs.fit(X, Y, sample_weight=weight)
        )
    assert how_shared(ours) == {("step", "StandardScaler"): 3}


def test_groups():
    groups = np.arange(len(X)) % 5
    ours, theirs = searches(PPCA(), {"n_components": SIZES}, cv=model_selection.GroupKFold(5))
    assert_same_results(ours.fit(X, groups=groups), theirs.fit(X, groups=groups))


# ----------------------------------------------------------------------------------- errors


def test_only_the_candidate_that_fails_is_marked(monkeypatch):
    ours, theirs = searches(PPCA(), {"n_components": [1, 2, 99]}, refit=False)
    with counted(monkeypatch, PPCA) as counts, pytest.warns() as caught:
        ours.fit(X)
    assert counts["PPCA"] == 3  # by itself; the others are fitted to moments of all folds
    with pytest.warns() as expected:
        theirs.fit(X)
    assert [w.category for w in caught] == [w.category for w in expected]
    assert "3 fits failed" in str(caught[0].message)
    assert_same_results(ours, theirs)
    assert np.isnan(ours.cv_results_["mean_test_score"]).tolist() == [False, False, True]


def test_a_shared_fit_that_fails_is_repeated_by_each():
    grid = {"step": [StandardScaler(), SimpleImputer(strategy="nothing")], "last__C": [0.1, 1]}
    ours, theirs = searches(Pipeline([("step", None), ("last", SVC())]), grid, error_score=-1.0)
    for search in (ours, theirs):
        with pytest.warns(FitFailedWarning, match="6 fits failed") as caught:
            search.fit(X, Y)
        assert "'strategy' parameter of SimpleImputer" in str(caught[0].message)
    assert_same_results(ours, theirs)
    ours.set_params(error_score="raise")
    with pytest.raises(ValueError, match="'strategy' parameter of SimpleImputer"):
        ours.fit(X, Y)


def test_parameters_that_nobody_knows():
    with pytest.raises(ValueError, match="Invalid parameter 'nothing'"):
        skae.GridSearchCV(PPCA(), {"nothing": [1, 2]}).fit(X)
    with pytest.raises(ValueError, match="'memory_limit' parameter of GridSearchCV"):
        skae.GridSearchCV(PPCA(), {"n_components": [1]}, memory_limit=0).fit(X)
    with pytest.raises(ValueError, match="'share' parameter of cross_validate"):
        cross_validate(PPCA(), X, share="yes")


def test_a_scorer_that_fails():
    def fails(y, prediction):
        raise ValueError("no score")

    ours, theirs = searches(
        CLASSIFIER, {"pca__n_components": [1, 2]}, scoring=make_scorer(fails), refit=False
    )
    for search in (ours, theirs):
        with pytest.warns(UserWarning, match="no score|non-finite"):
            search.fit(X, Y)
    assert_same_results(ours, theirs)


# -------------------------------------------------------------------------------- callbacks


class Listener:
    """A callback that counts what it hears, in no order, of a search and all below it."""

    max_propagation_depth = None

    def __init__(self):
        self.heard = Counter()

    def setup(self, estimator, context):
        pass

    def teardown(self, estimator, context):
        pass

    def on_fit_task_begin(self, estimator, context, *, X=None):
        self.heard["begin", context.task_name, context.estimator_name, np.shape(X)] += 1

    def on_fit_task_end(self, estimator, context, *, X=None):
        self.heard["end", context.task_name, context.estimator_name, np.shape(X)] += 1


def tasks_of(search, *data):
    listener = Listener()
    search.set_callbacks(listener).fit(*data)
    return listener.heard


@pytest.mark.filterwarnings("ignore:The estimator .* does not support callbacks")
@pytest.mark.parametrize(
    ("estimator", "grid", "shared"),
    [
        (PPCA(), {"n_components": SIZES}, True),
        (make_pipeline(PCA(), Ridge()), {"pca__n_components": SIZES}, True),
        (CLASSIFIER, {"pca__n_components": SIZES}, False),  # StandardScaler tells of its fits
    ],
)
def test_callbacks_hear_of_the_same_tasks(estimator, grid, shared):
    ours, theirs = searches(estimator, grid)
    heard = tasks_of(ours, X, Y)
    assert heard == tasks_of(theirs, X, Y)
    assert heard
    assert any(entry["how"] for entry in ours.shared_fits_) == shared


# --------------------------------------------------------------------------------- networks


NETWORK = network(Autoencoder, batch_size=10)
DENSITY = LatentDensityEstimator(PCA(1), density=GaussianMixture(random_state=0), random_state=0)


def test_networks_of_all_folds_are_trained_together():
    pipeline = make_pipeline(StandardScaler(), NETWORK)
    grid = {"autoencoder__n_components": [1, 2], "autoencoder__learning_rate_init": [1e-3, 1e-2]}
    scoring = lambda model, X, y=None: model.score(X)  # noqa: E731
    ours, theirs = searches(pipeline, grid, scoring=scoring)
    assert_same_results(ours.fit(X), theirs.fit(X), rtol=1e-4, atol=1e-4)
    shared = [entry for entry in ours.shared_fits_ if entry["how"] == "training"]
    assert [(entry["split"], entry["candidates"]) for entry in shared] == [
        (split, [0, 1, 2, 3]) for split in range(3)
    ]
    assert how_shared(ours)["step", "StandardScaler"] == 3


def test_a_network_before_the_last_step_is_trained_once(monkeypatch):
    pipeline = make_pipeline(network(VAE, batch_size=10), LogisticRegression())
    grid = {"vae__n_components": [1, 2], "logisticregression__C": [0.1, 1, 10]}
    ours, theirs = searches(pipeline, grid, refit=False)
    with counted(monkeypatch, VAE, method="_fit_model") as counts:
        ours.fit(X, Y)
    assert counts["VAE"] == 2 * 3
    assert_same_results(ours, theirs.fit(X, Y), rtol=1e-4, atol=1e-4)


def test_a_network_without_a_seed_is_trained_by_itself():
    estimator = clone(NETWORK).set_params(random_state=None)
    ours = skae.GridSearchCV(estimator, {"alpha": [0.0, 0.1]}, cv=2, refit=False).fit(X)
    assert how_shared(ours) == {(None, None): 1}
    assert "needs an integer random_state" in ours.shared_fits_[0]["why"]


def test_the_starts_of_a_network_train_apart_from_other_candidates():
    estimator = clone(NETWORK).set_params(n_init=2)
    ours, theirs = searches(estimator, {"alpha": [0.0, 0.1]}, refit=False)
    assert_same_results(ours.fit(X), theirs.fit(X), rtol=1e-4, atol=1e-4)
    assert [entry["how"] for entry in ours.shared_fits_] == [None]
    assert "n_init" in ours.shared_fits_[0]["why"]


def test_starts_are_trained_by_themselves():
    ours, theirs = searches(clone(NETWORK).set_params(n_init=2), {"alpha": [0.0, 0.1]})
    ours, theirs = ours.set_params(refit=False), theirs.set_params(refit=False)
    assert_same_results(ours.fit(X), theirs.fit(X), rtol=1e-4, atol=1e-4)
    assert [(e["candidates"], e["how"]) for e in ours.shared_fits_] == [([0, 1], None)]
    assert "n_init" in ours.shared_fits_[0]["why"]


def test_a_network_that_fails_harms_no_other():
    grid = {"batch_size": [10, -1], "alpha": [0.0, 0.1]}
    ours, theirs = searches(NETWORK, grid, refit=False, cv=2, error_score=-1e3)
    for search in (ours, theirs):
        with pytest.warns(FitFailedWarning, match="4 fits failed"):
            search.fit(X)
    assert_same_results(ours, theirs, rtol=1e-4, atol=1e-4)


def test_folds_of_cross_validation_are_trained_together():
    found = cross_validate(NETWORK, X, cv=3, return_estimator=True, return_train_score=True)
    expected = model_selection.cross_validate(NETWORK, X, cv=3, return_train_score=True)
    for name in ("test_score", "train_score"):
        np.testing.assert_allclose(found[name], expected[name], rtol=1e-4)
    assert np.ptp(found["fit_time"]) == 0  # divided equally
    codes = [model.transform(X) for model in found["estimator"]]
    assert not np.allclose(codes[0], codes[1])


def test_estimators_of_cross_validation_are_as_fitted_by_themselves():
    pipeline = make_pipeline(StandardScaler(), NETWORK)
    for model in cross_validate(pipeline, X, cv=2, return_estimator=True)["estimator"]:
        assert model.memory is None
        assert "fit" not in vars(model)
        assert "fit" not in vars(model[-1])
        assert len(pickle.dumps(model)) < 30_000


def test_folds_that_memory_does_not_hold_come_one_after_the_other(monkeypatch):
    together = []
    from skae._training import together as module

    run_together = module.run_together
    monkeypatch.setattr(
        module,
        "run_together",
        lambda calls, **options: (together.append(len(calls)), run_together(calls, **options))[1],
    )
    options = {"cv": 3, "refit": False, "memory_limit": X.nbytes + 1}
    skae.GridSearchCV(NETWORK, {"alpha": [0.0, 0.1]}, **options).fit(X)
    assert together == [2, 2, 2]


# --------------------------------------------------------------------- warnings about scores


@pytest.mark.parametrize(
    ("estimator", "grid", "message"),
    [
        (NETWORK, {"n_components": [1, 2]}, "increase with the number of codes"),
        (
            make_pipeline(StandardScaler(), NETWORK),
            {"autoencoder__n_components": [1, 2]},
            "increase",
        ),
        (
            Pipeline([("model", NETWORK)]),
            {"model": [NETWORK, PPCA(2)]},
            "cannot be compared: log_likelihood, reconstruction",
        ),
        (make_pipeline(PCA(), PPCA(1)), {"pca__n_components": [2, 3]}, "the earlier steps differ"),
        (DENSITY, {"autoencoder__n_components": [1, 2]}, "depend on the scale of the codes"),
    ],
)
def test_scores_that_rank_wrongly_are_warned_of(estimator, grid, message):
    with pytest.warns(UserWarning, match=f"(?s){message}.*frechet_distance") as caught:
        skae.GridSearchCV(estimator, grid, cv=2, refit=False).fit(X)
    ours = [w for w in caught if "ranks the candidates" in str(w.message)]
    assert len(ours) == 1
    assert ours[0].filename == __file__


def test_the_scoring_that_the_warning_names_ranks_sizes():
    with pytest.warns(UserWarning, match="ranks the candidates") as caught:
        skae.GridSearchCV(NETWORK, {"n_components": [1, 2]}, cv=2, refit=False).fit(X)
    [code] = re.findall(r"scoring=(lambda .*random_state=0\)\))", str(caught[0].message))
    scoring = eval(code, {"skae": skae})
    search = skae.GridSearchCV(NETWORK, {"n_components": [1, 2]}, cv=2, scoring=scoring).fit(X)
    assert np.isfinite(search.cv_results_["mean_test_score"]).all()


@pytest.mark.parametrize(
    ("estimator", "grid", "scoring"),
    [
        (PPCA(), {"n_components": [1, 2]}, None),
        (network(VAE), {"n_components": [1, 2]}, None),
        (Pipeline([("m", PPCA(1))]), {"m": [PPCA(1), network(VAE)]}, None),
        (NETWORK, {"alpha": [0.0, 0.1]}, None),
        (DENSITY, {"density__n_components": [1, 2]}, None),
        (make_pipeline(NETWORK, Ridge()), {"autoencoder__n_components": [1, 2]}, None),
        (NETWORK, {"n_components": [1, 2]}, lambda model, X, y=None: model.score(X)),
    ],
)
def test_scores_that_may_rank_are_not_warned_of(estimator, grid, scoring):
    skae.GridSearchCV(estimator, grid, cv=2, refit=False, scoring=scoring).fit(X, Y)


# ------------------------------------------------------------------- as any other estimator


def test_no_rows_are_kept(monkeypatch):
    alive = []
    split = Root.split

    def watch(self, *args, **kwargs):
        rows, y = split(self, *args, **kwargs)
        alive.append(weakref.ref(rows))
        return rows, y

    monkeypatch.setattr(Root, "split", watch)
    gc.collect()
    gc.disable()  # rows go as soon as their fold is done
    try:
        search = skae.GridSearchCV(SCALED, {"ppca__n_components": SIZES}, cv=3).fit(X)
        left = [rows() is not None for rows in alive]
    finally:
        gc.enable()
    assert left
    assert not any(left)
    assert len(pickle.dumps(search)) < 2 * len(pickle.dumps(search.best_estimator_)) + 10_000


def test_clone_pickle_and_repr():
    search = skae.GridSearchCV(PPCA(), {"n_components": SIZES}, cv=3, share_approximate=True)
    copy = clone(search)
    assert copy.get_params()["share_approximate"]
    assert repr(copy) == repr(search)
    assert "GridSearchCV" in search._repr_html_()
    copy.set_params(estimator__tol=1e-3, share=False)
    fitted = pickle.loads(pickle.dumps(search.fit(X)))
    assert fitted.shared_fits_ == search.shared_fits_
    np.testing.assert_array_equal(fitted.transform(X), search.transform(X))
    assert isinstance(search, model_selection.GridSearchCV)


def test_inside_of_others():
    search = skae.GridSearchCV(PPCA(), {"n_components": SIZES}, cv=3)
    theirs = model_selection.GridSearchCV(PPCA(), {"n_components": SIZES}, cv=3)
    np.testing.assert_allclose(
        model_selection.cross_val_score(search, X), model_selection.cross_val_score(theirs, X)
    )
    pipeline = make_pipeline(StandardScaler(), search, LogisticRegression()).fit(X, Y)
    assert pipeline.predict(X).shape == Y.shape
    outer, expected = searches(
        make_pipeline(StandardScaler(), search, LogisticRegression()),
        {"logisticregression__C": [0.1, 1]},
    )
    assert_same_results(outer.fit(X, Y), expected.fit(X, Y))


def test_a_search_of_ones_own(capsys):
    class InTwoGoes(skae.GridSearchCV):
        def _run_search(self, evaluate_candidates, *, callback_ctx=None):
            evaluate_candidates([{"n_components": 1}, {"n_components": 2}])
            evaluate_candidates([{"n_components": 3}, {"n_components": 4}])

    search = InTwoGoes(PPCA(), {"n_components": [1]}, cv=2, verbose=1).fit(X)
    assert [entry["candidates"] for entry in search.shared_fits_] == [[0, 1]] * 2 + [[2, 3]] * 2
    told = capsys.readouterr().out
    assert told.count("Work was shared in 4 of 4 fits: PPCA fitted once for several sizes") == 2


def test_time_is_divided():
    ours = skae.GridSearchCV(PPCA(), {"n_components": [1, 2, 3]}, cv=2, refit=False)
    begin = time.perf_counter()
    ours.fit(X)
    seconds = time.perf_counter() - begin
    times = ours.cv_results_["mean_fit_time"]
    assert (times > 0).all()
    assert 2 * times.sum() < seconds


@pytest.mark.filterwarnings("ignore")  # of folds that could not be fitted or scored
@pytest.mark.parametrize("Search", [skae.GridSearchCV, skae.RandomizedSearchCV])
def test_a_search_whose_fit_fails_stays_as_it_was(Search):
    """Whether the rows, the folds or the last fit to all rows are at fault."""
    X, search = make_rows(20), Search(PPCA(), {"n_components": [1]}, cv=2)
    with pytest.raises(ValueError, match="n_splits"):
        search.fit(X[:1])
    assert set(vars(search)) == set(search.get_params(deep=False))
    search.fit(X)
    before, expected = dict(vars(search)), search.transform(X)
    for wrong in (X[:1], np.where(X.max() == X, np.inf, X)):
        with pytest.raises(ValueError):
            search.fit(wrong)
        assert all(vars(search)[name] is value for name, value in before.items())
        assert len(vars(search)) == len(before)
    np.testing.assert_array_equal(search.transform(X), expected)


def test_limits_of_memory_may_be_numpy_integers():
    X, grid = make_rows(20), {"n_components": [1, 2]}
    found, expected = (
        skae.GridSearchCV(PPCA(), grid, cv=2, memory_limit=limit).fit(X).best_score_
        for limit in (np.uint8(3), 3)
    )
    assert found == expected
