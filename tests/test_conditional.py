"""VAE given several columns of labels or numbers, as those of `adata.obs`."""

import copy
import pickle

import numpy as np
import pandas as pd
import polars as pl
import pytest
import torch
from scipy.special import logsumexp
from sklearn.base import clone
from sklearn.linear_model import LinearRegression, LogisticRegression
from sklearn.model_selection import GridSearchCV, KFold, cross_val_score
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import OneHotEncoder, StandardScaler

from helpers import assert_same, network, through_joblib, through_pickle, through_skops, weights
from skae import PPCA, VAE, Ensemble

NAMES = ["batch", "donor"]
EFFECTS = np.random.default_rng(7).normal(size=(2, 3, 6)) * 6


def labelled(n_rows=150, seed=0):
    """Rows whose means depend on two columns of labels, of which one combination never occurs."""
    rng = np.random.default_rng(seed)
    pairs = np.array([[0, 0], [0, 2], [1, 0], [1, 1], [1, 2]])
    batch, donor = pairs[rng.choice(5, n_rows, p=[0.4, 0.1, 0.2, 0.2, 0.1])].T
    X = rng.normal(size=(n_rows, 2)) @ rng.normal(size=(2, 6)) + 0.4 * rng.normal(size=(n_rows, 6))
    X += EFFECTS[0, batch] + EFFECTS[1, donor]
    y = pd.DataFrame(
        {
            "batch": pd.Categorical.from_codes(batch, ["late", "early"]),
            "donor": pd.Categorical(np.array([30, 10, 20])[donor]),
        }
    )
    return X.astype(np.float32), y


def conditional(n_components=2, **params):
    options = {"hidden_layer_sizes": (16,), "batch_size": 40, "max_iter": 5, "conditional": True}
    return network(VAE, n_components=n_components, **{**options, **params})


@pytest.fixture(scope="module")
def fitted():
    X, y = labelled()
    return conditional().fit(X, y), X, y


def start(n_components=2, **params):
    """A model as it is initialised: the linear start."""
    return conditional(n_components, max_iter=0, init="linear", **params)


def indicators(y, of):
    """Columns of the decoder by scikit-learn."""
    return OneHotEncoder(sparse_output=False).fit(of[NAMES]).transform(y[NAMES])


def test_what_is_learned_from_several_columns(fitted):
    """Labels in ascending order of each column, and combinations with their frequencies."""
    model, _, y = fitted
    assert [c.tolist() for c in model.classes_] == [["early", "late"], [10, 20, 30]]
    assert model.target_names_.tolist() == NAMES
    shares = y.astype({"batch": str, "donor": int}).value_counts(normalize=True)
    found = dict(zip(map(tuple, model.class_combinations_), model.class_prior_, strict=True))
    assert found == pytest.approx(shares.to_dict())
    assert model.net_.module_.decoder[0].in_features == 2 + 5


def test_the_decoder_reads_indicators_of_every_column(fitted):
    """Decoded rows are those of the network at indicators made by hand."""
    model, X, y = fitted
    Z, module = model.transform(X), model.net_.module_
    read = torch.tensor(np.hstack([Z, indicators(y, y)])).float()
    output = module.decoder(read).detach().numpy()
    scale = np.sqrt(X.astype(float).var(axis=0).mean())
    expected = X.mean(axis=0) + scale * output
    for given in (y, y[NAMES[::-1]], y.to_numpy(dtype=object), pl.from_pandas(y.astype(str)), None):
        if isinstance(given, pl.DataFrame):
            given = given.with_columns(pl.col("donor").cast(pl.Int64))
        if given is not None:
            np.testing.assert_allclose(model.inverse_transform(Z, given), expected, atol=1e-3)
            np.testing.assert_allclose(model.reconstruct(X, given), expected, atol=1e-3)


def of_each(model, call):
    """Results of a call for each combination, and their frequencies."""
    parts = [call(tuple(labels)) for labels in model.class_combinations_]
    return np.stack(parts), model.class_prior_


@pytest.mark.parametrize("n_importance", [1, 10])
def test_scores_sum_over_the_combinations_that_occurred(fitted, n_importance):
    model, X, _ = fitted
    parts, shares = of_each(model, lambda c: model.score_samples(X, c, n_importance=n_importance))
    assert len(parts) == 5
    expected = logsumexp(parts, b=shares[:, None], axis=0)
    np.testing.assert_allclose(
        model.score_samples(X, n_importance=n_importance), expected, rtol=1e-4
    )


def test_decoded_means_over_the_combinations_that_occurred(fitted):
    model, X, y = fitted
    Z = model.transform(X[:20])
    parts, shares = of_each(model, lambda c: model.inverse_transform(Z, c))
    expected = np.einsum("c,cnj->nj", shares, parts)
    np.testing.assert_allclose(model.inverse_transform(Z), expected, rtol=1e-4, atol=1e-4)
    own = np.stack([model.inverse_transform(Z[i : i + 1], y.iloc[i])[0] for i in range(20)])
    np.testing.assert_allclose(model.inverse_transform(Z, y[:20]), own, atol=1e-4)


def test_samples_have_combinations_that_occurred():
    """Labels are drawn jointly: rows lie at the means of the combinations that occurred."""
    _, y = labelled(400)
    means = (EFFECTS[0, :2, None] + EFFECTS[1]).reshape(6, 6)
    batch, donor = y["batch"].cat.codes, np.array([1, 2, 0])[y["donor"].cat.codes]
    rng = np.random.default_rng(1)
    X = np.hstack([means[batch * 3 + donor], np.zeros((400, 2))])
    X += 0.4 * rng.normal(size=X.shape) + rng.normal(size=X.shape) * np.repeat([0, 3], [6, 2])
    model = start(hidden_layer_sizes=()).fit(X, y)
    rows = model.sample(3000, random_state=0)[:, :6]
    nearest = np.linalg.norm(rows[:, None] - means, axis=2).argmin(axis=1)
    shares = np.bincount(nearest, minlength=6) / len(rows)
    expected = np.bincount(batch * 3 + donor, minlength=6)
    np.testing.assert_allclose(shares, expected / expected.sum(), atol=0.05)
    assert shares[1] < 0.01  # the combination that did not occur
    rows = model.sample(500, y={"donor": 10, "batch": "late"}, random_state=0)  # has a mean too
    np.testing.assert_allclose(rows.mean(axis=0)[:6], means[1], atol=0.5)
    again = model.sample(500, y=("late", 10), random_state=0)
    np.testing.assert_array_equal(again, rows)


def test_nested_labels_are_those_of_the_inner_column():
    """If the donor determines the batch, both columns and the donor alone are one linear model."""
    X, y = labelled(300)
    y = y.assign(batch=np.where(y["donor"] == 30, "late", "early"))
    both = start().fit(X, y)
    inner = start().fit(X, y["donor"])
    np.testing.assert_allclose(both.class_prior_, inner.class_prior_)
    np.testing.assert_allclose(both.score(X, y), inner.score(X, y["donor"]), atol=1e-3)
    np.testing.assert_allclose(both.score(X), inner.score(X), atol=1e-3)
    Z = inner.transform(X)
    np.testing.assert_allclose(both.transform(X), Z, atol=1e-3)
    found, expected = both.inverse_transform(Z, y), inner.inverse_transform(Z, y["donor"])
    np.testing.assert_allclose(found, expected, atol=1e-2)


def test_numbers_beside_labels():
    """Scores need y then; the decoder reads standardised numbers after the labels."""
    X, y = labelled()
    y["depth"] = X[:, 0] * 10.0
    model = conditional().fit(X, y)
    assert len(model.classes_) == 2
    np.testing.assert_allclose(model.target_mean_, y["depth"].mean())
    assert not hasattr(model, "class_prior_")
    depth = StandardScaler().fit_transform(y[["depth"]])
    read = np.hstack([model.transform(X), indicators(y, y), depth])
    output = model.net_.module_.decoder(torch.tensor(read).float()).detach().numpy()
    expected = X.mean(axis=0) + output * np.sqrt(X.astype(float).var(axis=0).mean())
    np.testing.assert_allclose(model.reconstruct(X, y[["depth", *NAMES]]), expected, atol=1e-3)
    assert model.sample(3, y={"batch": "early", "donor": 10, "depth": 3.0}).shape == (3, 6)
    for call in (model.score_samples, model.reconstruct):
        with pytest.raises(ValueError, match=r"y is None, but the model was fitted with numbers"):
            call(X)
    with pytest.raises(ValueError, match="y is None"):
        model.sample(3)


def test_streams_learn_new_combinations_of_known_labels():
    """Their frequencies are running means, in which each call counts 0.9 times the next per row."""
    X, y = labelled(300)
    pair = (y["batch"] == "late") & (y["donor"] == 20)
    X, y = np.vstack([X[~pair], X[pair]]), pd.concat([y[~pair], y[pair]], ignore_index=True)
    first, second = slice(0, (~pair).sum() - 20), slice((~pair).sum() - 20, 300)
    model = conditional().partial_fit(X[first], y[first])
    assert len(model.class_combinations_) == 4
    before = copy.copy(model)
    scores = before.score_samples(X[:5])
    model.partial_fit(X[second], y[second][NAMES[::-1]])
    assert len(model.class_combinations_) == 5
    n = [0.9 * first.stop, 300 - first.stop]
    for labels, share in zip(model.class_combinations_, model.class_prior_, strict=True):
        own = (y["batch"] == labels[0]) & (y["donor"] == labels[1])
        expected = (n[0] * own[first].mean() + n[1] * own[second].mean()) / sum(n)
        assert share == pytest.approx(expected)
    np.testing.assert_array_equal(before.score_samples(X[:5]), scores)
    parts, shares = of_each(model, lambda c: model.score_samples(X, c))
    expected = logsumexp(parts, b=shares[:, None], axis=0)
    np.testing.assert_allclose(model.score_samples(X), expected, rtol=1e-4)
    with pytest.raises(ValueError, match=r"y, column 'donor', has the label 40"):
        model.partial_fit(X[:10], y[:10].assign(donor=40))
    model.partial_fit(X[first], y[first])
    assert np.isfinite(model.score_samples(X)).all()


def test_labels_of_a_warm_start():
    """Labels stay; combinations are those of the new rows."""
    X, y = labelled()
    model = conditional(warm_start=True).fit(X, y).fit(X, y.assign(donor=20))
    assert [c.tolist() for c in model.classes_] == [["early", "late"], [10, 20, 30]]
    assert model.class_combinations_.tolist() == [["early", 20], ["late", 20]]
    assert np.isfinite(model.score_samples(X)).all()
    with pytest.raises(ValueError, match=r"y has the columns \['batch', 'who'\]"):
        model.fit(X, y.rename(columns={"donor": "who"}))
    assert model.set_params(warm_start=False).fit(X, y["donor"]).classes_.tolist() == [10, 20, 30]
    assert not hasattr(model, "class_combinations_")
    assert not hasattr(model, "target_names_")


@pytest.mark.parametrize("way", [through_pickle, through_joblib, through_skops, None])
@pytest.mark.parametrize("with_numbers", [False, True])
def test_models_of_several_columns_are_saved(way, with_numbers, tmp_path):
    X, y = labelled()
    y = y.assign(treated=X[:, 0] > 0)
    y = y.assign(depth=X[:, 1]) if with_numbers else y
    model = conditional().fit(X, y)
    again = way(model, tmp_path / "model") if way else copy.deepcopy(model)
    given = y[list(y.columns)[::-1]]
    np.testing.assert_array_equal(again.score_samples(X, given), model.score_samples(X, y))
    if not with_numbers:
        np.testing.assert_array_equal(again.score_samples(X), model.score_samples(X))
        draws = [m.sample(9, random_state=0) for m in (model, again)]
        np.testing.assert_array_equal(*draws)
        assert again.class_combinations_.tolist() == model.class_combinations_.tolist()
    assert_same(weights(again.partial_fit(X, y)), weights(model.partial_fit(X, y)))
    assert_same(weights(clone(again).fit(X, y)), weights(conditional().fit(X, y)))


def test_files_of_one_column_load_as_before(fitted):
    """They have an array of labels, and neither combinations nor names."""
    X, y = fitted[1:]
    model = conditional().fit(X, y["batch"])
    state = model.__getstate__()
    assert not {"class_combinations_", "target_names_", "_label_columns"} & set(state)
    again = pickle.loads(pickle.dumps(model))
    np.testing.assert_array_equal(again.score_samples(X), model.score_samples(X))


def test_other_methods_take_one_row_of_labels(fitted):
    """Methods that take y take several columns, and one row of labels for all rows."""
    model, X, _ = fitted
    labels = ("early", 30)
    same = pd.DataFrame([labels] * 4, columns=NAMES)
    holes = np.where(np.arange(6) == 1, np.nan, X[:4])
    for one, each in (
        (model.impute(holes, y=labels), model.impute(holes, y=same)),
        (model.interpolate(X[0], X[1], 4, y=labels), model.interpolate(X[0], X[1], 4, y=same)),
        (model.traverse(X[0], 0, range(4), y=labels), model.traverse(X[0], 0, range(4), y=same)),
        (model.elbo_terms(X[:4], labels).kl, model.elbo_terms(X[:4], same).kl),
        (model.score(X[:4], labels), model.score(X[:4], same)),
    ):
        np.testing.assert_array_equal(one, each)
    assert np.isfinite(model.impute(holes)).all()
    assert np.isfinite(model.impute(holes, 3, random_state=0)).all()
    assert model.elbo_terms(X).kl.shape == (150,)


def test_searches_pipelines_and_ensembles_pass_frames_on():
    X, y = labelled()
    folds = KFold(2, shuffle=True, random_state=0)
    search = GridSearchCV(conditional(), {"beta": [0.5, 1.0]}, cv=folds).fit(X, y)
    train, test = next(folds.split(X))
    best = conditional(beta=0.5).fit(X[train], y.iloc[train])
    expected = best.score(X[test], y.iloc[test])
    assert search.cv_results_["split0_test_score"][0] == pytest.approx(expected, rel=1e-6)
    steps = make_pipeline(StandardScaler(), conditional()).fit(X, y)
    assert np.isfinite(steps.score(X, y))
    both = Ensemble(conditional(), 2, random_state=0).fit(X, y)
    assert both.sample(4, y=("early", 10), random_state=0).shape == (4, 6)
    assert both.score_samples(X, y).shape == (150,)


def test_weights_change_the_frequencies_of_combinations():
    """Those of weight zero did not occur."""
    X, y = labelled()
    weight = np.where(y["donor"] == 10, 0.0, np.where(y["batch"] == "early", 4.0, 0.5))
    model = conditional().fit(X, y, sample_weight=weight)
    assert [c.tolist() for c in model.classes_] == [["early", "late"], [20, 30]]
    own = [(y["batch"] == b) & (y["donor"] == d) for b, d in model.class_combinations_]
    expected = [weight[rows].sum() / weight.sum() for rows in own]
    np.testing.assert_allclose(model.class_prior_, expected, rtol=1e-6)


@pytest.mark.parametrize("kind", ["numbers", "labels", "columns"])
def test_several_starts_are_compared_given_the_targets(kind):
    """The best of `n_init` fits has the best score on the training rows, given y."""
    X, y = labelled()
    y = {"numbers": X[:, :1] * 2.0, "labels": y["donor"], "columns": y}[kind]
    params = {"init": "random", "max_iter": 3}
    model = conditional(n_init=3, **params).fit(X, y)
    rng = np.random.RandomState(0)
    seeds = [0, *(rng.randint(2**31 - 1) for _ in range(2))]
    alone = [conditional(**params, random_state=seed).fit(X, y).score(X, y) for seed in seeds]
    assert model.score(X, y) == pytest.approx(max(alone), rel=1e-4)


# ------------------------------------------------------------------------ the linear start


def batches(n_rows=1000, n_features=20, shift=8.0, seed=0):
    """Rows of three codes and two batches; the mean of one is shifted in a direction of its own."""
    rng = np.random.default_rng(seed)
    axes = np.linalg.qr(rng.normal(size=(n_features, 4)))[0].T
    y = rng.choice(["first", "second"], n_rows, p=[0.7, 0.3])
    X = (rng.normal(size=(n_rows, 3)) * [4.0, 3.0, 2.0]) @ axes[:3]
    X += shift * (y == "second")[:, None] * axes[3]
    return X + 0.5 * rng.normal(size=X.shape), y


@pytest.mark.parametrize("layers", [(), (20,), (20, 20)], ids=str)
def test_it_is_ppca_of_what_the_condition_leaves(layers):
    """Its score given y is that of PPCA of the residuals of least squares."""
    X, y = batches()
    model = start(3, hidden_layer_sizes=layers).fit(X, y)
    C = OneHotEncoder(sparse_output=False).fit_transform(y[:, None])
    rest = X - LinearRegression().fit(C, X).predict(C)
    expected = PPCA(3).fit(rest).score(rest)
    assert model.score_samples(X, y, n_importance=500).mean() == pytest.approx(expected, abs=0.1)
    shift = np.diff([X[y == label].mean(axis=0) for label in model.classes_], axis=0)[0]
    decoded = [model.inverse_transform(np.zeros((1, 3)), label)[0] for label in model.classes_]
    np.testing.assert_allclose(decoded[1] - decoded[0], shift, atol=0.02)


def test_its_codes_do_not_separate_batches():
    """A linear classifier finds the batch in codes of PPCA, but not in those of the model."""
    X, y = batches()
    X_new, y_new = batches(seed=0, n_rows=1000)
    short = conditional(3, hidden_layer_sizes=(20,), init="linear")

    def accuracy(codes):
        return cross_val_score(LogisticRegression(), codes, y_new).mean()

    assert accuracy(PPCA(3).fit(X).transform(X_new)) > 0.99
    share = np.mean(y_new == "first")
    for model in (clone(short).set_params(max_iter=0), short):
        assert accuracy(model.fit(X, y).transform(X_new)) < share + 0.02
    unconditional = clone(short).set_params(conditional=False).fit(X)
    assert short.score(X_new, y_new) > unconditional.score(X_new) + 1


def test_axes_are_orthogonal_to_effects_if_that_costs_little():
    """Though rows vary a little along the effect for another reason, codes have equal means."""
    rng = np.random.default_rng(0)
    y = rng.choice(["a", "b", "c"], 800)
    effects = np.zeros((3, 12))
    effects[:, 2:4] = [[0, 0], [6, 0], [0, 6]]
    effects[:, 0] = [0.0, 0.3, -0.3]
    X = rng.normal(size=(800, 2)) * [4.0, 2.0] @ np.eye(2, 12)
    X += effects[np.searchsorted(["a", "b", "c"], y)] + 0.5 * rng.normal(size=(800, 12))
    model = start(2, hidden_layer_sizes=()).fit(X, y)
    codes = model.transform(X)
    means = np.stack([codes[y == label].mean(axis=0) for label in "abc"])
    np.testing.assert_allclose(means - means[0], 0, atol=1e-4)
    free = PPCA(2).fit(X - effects[np.searchsorted(["a", "b", "c"], y)]).transform(X)
    means = np.stack([free[y == label].mean(axis=0) for label in "abc"])
    assert np.abs(means - means[0]).max() > 0.03


def test_effects_along_the_codes_are_subtracted():
    """If the batch shifts rows along the first axis, the decoder knows that the code is shifted."""
    rng = np.random.default_rng(0)
    y = rng.choice(2, 1000)
    X = rng.normal(size=(1000, 2)) * [4.0, 2.0] @ np.eye(2, 10)
    X[:, 0] += 3.0 * y
    X += 0.3 * rng.normal(size=X.shape)
    model = start(hidden_layer_sizes=()).fit(X, y)
    rest = X - np.stack([X[y == c].mean(axis=0) for c in (0, 1)])[y]
    ppca = PPCA(2).fit(rest)
    near = ppca.reconstruct(rest) + (X - rest)
    np.testing.assert_allclose(model.reconstruct(X, y), near, atol=0.1)
    # The shift of the code costs about (3 / 4)^2 / 8 nats.
    lost = ppca.score(rest) - model.score_samples(X, y, n_importance=500).mean()
    assert 0 < lost < 0.2


def test_a_condition_without_effect_is_ignored():
    """Directions of chance are not removed from the codes: the start is that of PPCA."""
    X, _ = batches(shift=0.0)
    y = np.random.default_rng(1).choice(2, len(X))
    model = start(3).fit(X, y)
    plain = start(3, conditional=False).fit(X)
    np.testing.assert_allclose(model.transform(X), plain.transform(X), atol=1e-4)
    np.testing.assert_allclose(model.score(X, y), plain.score(X), atol=1e-3)


@pytest.mark.parametrize(
    "params",
    [
        {"likelihood": "bernoulli"},
        {"likelihood": "poisson"},
        {"hidden_layer_sizes": (3,)},
        {"hidden_layer_sizes": (2,)},
        {"latent_growth": "nested"},
        {"noise_variance": "per_feature"},
        {"missing": "mask"},
    ],
    ids=str,
)
def test_it_is_better_than_without_the_condition(params):
    """For other likelihoods, in narrow networks and with missing values, it is at least as good."""
    X, y = batches(400, 8)
    rng = np.random.default_rng(0)
    if params.get("likelihood") == "bernoulli":
        X = (X - X.mean(axis=0) > 0).astype(float)
    elif params.get("likelihood") == "poisson":
        X = rng.poisson(np.exp(X / 4))
    elif "missing" in params:
        X = np.where(rng.random(X.shape) < 0.1, np.nan, X)
    model = start(**params).fit(X, y)
    plain = start(**params, conditional=False).fit(X)
    better = model.score(X, y) - plain.score(X)
    assert better > (
        -0.01 if "missing" in params or params.get("hidden_layer_sizes") == (2,) else 0.1
    )


@pytest.mark.parametrize("y", [np.ones(60), np.arange(60) // 20], ids=["constant", "all"])
def test_conditions_that_explain_nothing_or_everything(y):
    """A constant condition has no effect; rows that are equal given it have no residuals."""
    X = np.random.default_rng(0).normal(size=(3, 5))[np.arange(60) // 20]
    model = conditional(1).fit(X, y.astype(int))
    assert np.isfinite(model.score(X, y.astype(int)))
