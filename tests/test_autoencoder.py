"""Autoencoder: what it learns, against PCA, SciPy and formulas written out by hand."""

import copy
import pickle
from itertools import product

import numpy as np
import pandas as pd
import pytest
import skops.io
import torch
from scipy import linalg, optimize, special, stats
from sklearn.base import clone
from sklearn.datasets import load_digits, make_swiss_roll
from sklearn.decomposition import PCA
from sklearn.linear_model import LogisticRegression
from sklearn.model_selection import GridSearchCV
from sklearn.pipeline import Pipeline
from sklearn.preprocessing import StandardScaler
from skorch.callbacks import Callback
from torch import nn

from helpers import allowed_rows, assert_same, batch_of, low_rank_rows, network, weights
from skae._modules.autoencoder import bernoulli_divergence, projected_jacobian_norm
from skae._modules.deterministic import open_codes

# -------------------------------------------------------------------------- helpers


def autoencoder(n_components=2, **params):
    """A small one that trains for a few epochs, all of them, in float32."""
    options = {"hidden_layer_sizes": (16,), "batch_size": 40, "learning_rate_init": 0.01}
    # Truths here are of p(x|z) without size factors; those are in test_count_networks.py.
    options |= {"size_factor": None}
    return network(n_components=n_components, **{**options, "max_iter": 10, **params})


def linear(n_components=2, **params):
    """Without hidden layers, trained to the optimum: PCA's subspace."""
    options = {"hidden_layer_sizes": (), "activation": "identity", "solver": "lbfgs", "alpha": 0.0}
    return autoencoder(n_components, **{**options, "max_iter": 12, **params})


def squared_error(X, back):
    """Of a row, summed over its seen features and averaged over rows."""
    return np.nansum(np.square(X - back), axis=1).mean()


class Frozen(Callback):
    """What the codes are multiplied with, and the codes of all rows, in every epoch."""

    def on_train_begin(self, net, X, **kwargs):
        self.rows_, self.gates_, self.codes_ = X, [], []

    def on_batch_end(self, net, training, **kwargs):
        module = net.module_
        if training:
            with torch.no_grad():
                codes = module.all_codes(self.rows_.batch(slice(None)).x).numpy()
            self.codes_.append(codes)
            self.gates_.append(module.gate.numpy().copy())


DIGITS = load_digits().data[:600]


# ---------------------------------------------------------------------------- PCA


@pytest.mark.parametrize("n_components", [1, 2, 4])
def test_a_linear_network_finds_pcas_subspace(n_components):
    """The same error to 0.1 %, and a decoder that spans the principal axes."""
    X = low_rank_rows(rank=4)
    model, pca = linear(n_components).fit(X), PCA(n_components).fit(X)
    expected = squared_error(X, pca.inverse_transform(pca.transform(X)))
    assert squared_error(X, model.reconstruct(X)) == pytest.approx(expected, rel=1e-3)
    (layer,) = model.net_.module_.decoder
    angles = linalg.subspace_angles(layer.weight.detach().double().numpy(), pca.components_.T)
    assert angles.max() < 0.02


def test_a_swiss_roll_unrolls():
    """Two codes leave, of new rows, under a tenth of two principal components' error."""
    X, _ = make_swiss_roll(1500, random_state=0)
    train, test = X[:1000], X[1000:]
    pca = PCA(2).fit(train)
    expected = squared_error(test, pca.inverse_transform(pca.transform(test)))
    model = autoencoder(
        hidden_layer_sizes=(64, 64),
        batch_size=50,
        learning_rate_init=0.005,
        alpha=0.0,
        max_iter=60,
        warm_start=True,
        random_state=1,
    ).fit(train)
    model.set_params(solver="lbfgs", max_iter=20).fit(train)
    assert squared_error(test, model.reconstruct(test)) < 0.1 * expected


# ------------------------------------------------------------------- noise and scores


def density_of_continuous_bernoulli(x, mean):
    """Of e^(a x), normalised: a is found numerically, as that of which the mean is the mean."""
    if abs(mean - 0.5) < 1e-4:
        return 0.0
    x, mean = (x, mean) if mean > 0.5 else (1 - x, 1 - mean)  # so that a is positive
    a = optimize.brentq(lambda a: -1 / np.expm1(-a) - 1 / a - mean, 1e-6, 1e6)
    return a * (x - 1) - np.log(-np.expm1(-a) / a)


def log_density(model, X):
    """Of every row, by SciPy, of residuals and noise in the units of the data."""
    X = np.asarray(X, dtype=np.float64)
    mean = np.asarray(model.reconstruct(X), dtype=np.float64)
    seen = ~np.isnan(X)
    counts = model.likelihood in ("bernoulli", "poisson")
    filled = np.where(seen, X, 1.0 if counts else mean)
    noise = model.noise_variance_
    values = {
        "gaussian": lambda: stats.norm(mean, np.sqrt(noise)).logpdf(filled),
        "laplace": lambda: stats.laplace(mean, np.sqrt(noise / 2)).logpdf(filled),
        "bernoulli": lambda: stats.bernoulli(mean).logpmf(filled),
        "poisson": lambda: stats.poisson(mean).logpmf(filled),
        "continuous_bernoulli": lambda: np.vectorize(density_of_continuous_bernoulli)(filled, mean),
    }[model.likelihood]()
    return (values * seen).sum(axis=1)


LIKELIHOODS = [
    ("gaussian", "scalar"),
    ("gaussian", "per_feature"),
    ("gaussian", 0.7),
    ("laplace", "scalar"),
    ("laplace", "per_feature"),
    ("laplace", 0.7),
    ("bernoulli", "scalar"),
    ("poisson", "scalar"),
    ("continuous_bernoulli", "scalar"),
]
every_likelihood = pytest.mark.parametrize(("likelihood", "noise"), LIKELIHOODS)
every_real = pytest.mark.parametrize(("likelihood", "noise"), LIKELIHOODS[:6])


def rows_for(likelihood, gaps=0.0):
    X = allowed_rows(likelihood, low_rank_rows(60), 2.0)
    X[np.random.default_rng(5).random(X.shape) < gaps] = np.nan
    if gaps:
        X[3] = np.nan  # a row of which nothing was seen
    return X


@pytest.mark.parametrize("gaps", [0.0, 0.2])
@every_likelihood
def test_scores_are_scipys(likelihood, noise, gaps):
    """log p(x | x̂) over what was seen, in nats and in the units of the data."""
    X = rows_for(likelihood, gaps)
    model = autoencoder(likelihood=likelihood, noise_variance=noise).fit(X)
    expected = log_density(model, X)
    np.testing.assert_allclose(model.score_samples(X), expected, rtol=1e-4, atol=1e-3)
    assert model.score(X) == pytest.approx(expected.mean(), rel=1e-4)
    if gaps:
        assert model.score_samples(X)[3] == 0.0


@pytest.mark.parametrize("gaps", [0.0, 0.2])
@pytest.mark.parametrize("scale", [1e-6, 1e6])
@every_real
def test_scores_shift_by_the_logarithm_of_the_scale(likelihood, noise, scale, gaps):
    """Rows times s score D log s less, and are noisier by s²."""
    X = rows_for(likelihood, gaps)
    n_seen = (~np.isnan(X)).sum(axis=1)
    model = autoencoder(likelihood=likelihood, noise_variance=noise).fit(X)
    wide = noise * scale**2 if isinstance(noise, float) else noise
    scaled = autoencoder(likelihood=likelihood, noise_variance=wide).fit(X * scale)
    np.testing.assert_allclose(
        scaled.score_samples(X * scale), log_density(scaled, X * scale), rtol=1e-4, atol=1e-3
    )
    shifted = model.score_samples(X) - n_seen * np.log(scale)
    np.testing.assert_allclose(scaled.score_samples(X * scale), shifted, rtol=1e-3, atol=1e-2)
    np.testing.assert_allclose(
        np.asarray(scaled.noise_variance_) / scale**2, model.noise_variance_, rtol=1e-3
    )


def test_scores_far_from_zero():
    """An offset that float32 could not hold beside the rows changes no score."""
    X = low_rank_rows()
    model = autoencoder().fit(X)
    far = autoencoder().fit(X + 1e6)
    np.testing.assert_allclose(far.score_samples(X + 1e6), model.score_samples(X), atol=0.02)
    assert far.noise_variance_ == pytest.approx(model.noise_variance_, rel=1e-2)


@pytest.mark.parametrize("likelihood", ["gaussian", "bernoulli"])
def test_files_of_earlier_versions_give_float32_rows(likelihood):
    """They know nothing of the type of the training rows, and gave float32 for all."""
    X = rows_for(likelihood)
    model = autoencoder(likelihood=likelihood, max_iter=1).fit(X)
    assert model.reconstruct(X).dtype == np.float64
    state = model.__getstate__()
    del state["_architecture"]["row_dtype"]
    old = autoencoder()
    old.__setstate__(state)
    assert old.reconstruct(X).dtype == np.float32
    np.testing.assert_array_equal(old.reconstruct(X), model.reconstruct(X).astype(np.float32))


def test_a_stream_returns_rows_of_the_type_of_its_first_batch():
    """As it fixes the units; and so does the first fit of a warm start."""
    X = low_rank_rows().astype(np.float64)
    for first, then in ((X, X.astype(np.float32)), (X.astype(np.float32), X)):
        model = autoencoder(max_iter=1).partial_fit(first).partial_fit(then)
        assert model.reconstruct(then).dtype == first.dtype
        warm = autoencoder(max_iter=1, warm_start=True).fit(first).fit(then)
        assert warm.reconstruct(then).dtype == first.dtype


@pytest.mark.parametrize("weighted", [False, True])
@pytest.mark.parametrize("gaps", [0.0, 0.2])
@pytest.mark.parametrize("noise", ["scalar", "per_feature"])
@pytest.mark.parametrize("likelihood", ["gaussian", "laplace"])
def test_the_noise_is_the_most_likely_one(likelihood, noise, gaps, weighted):
    """The mean squared residual, or 2 b² of the mean absolute one, over what was seen."""
    X = rows_for(likelihood, gaps)
    weight = np.random.default_rng(0).uniform(0.5, 2.0, len(X)) if weighted else None
    model = autoencoder(likelihood=likelihood, noise_variance=noise).fit(X, sample_weight=weight)
    residuals = X - model.reconstruct(X)
    counts = ~np.isnan(X) * (1.0 if weight is None else weight[:, None])
    size = np.square(residuals) if likelihood == "gaussian" else np.abs(residuals)
    axis = None if noise == "scalar" else 0
    mean = np.nansum(size * counts, axis=axis) / counts.sum(axis=axis)
    expected = mean if likelihood == "gaussian" else 2 * mean**2
    np.testing.assert_allclose(model.noise_variance_, expected, rtol=1e-5)


def test_a_given_noise_is_kept():
    """In squared units of X, whatever the residuals; counts and bits have none."""
    for scale in (1.0, 1e3):
        assert autoencoder(noise_variance=2.5).fit(low_rank_rows() * scale).noise_variance_ == (
            pytest.approx(2.5, rel=1e-6)
        )
    assert autoencoder(likelihood="poisson").fit(rows_for("poisson")).noise_variance_ is None


def test_learned_noise_has_a_floor():
    """Rows that are explained exactly leave 1e-4 of the mean feature variance."""
    X = low_rank_rows(rank=1, noise=0.0)
    model = linear(1).fit(X)
    assert model.noise_variance_ == pytest.approx(1e-4 * X.var(axis=0).mean(), rel=1e-4)


@pytest.mark.parametrize(
    ("params", "low", "high"),
    [
        ({"likelihood": "bernoulli"}, 0, 1),
        ({"likelihood": "continuous_bernoulli"}, 0, 1),
        ({"likelihood": "poisson"}, 0, np.inf),
        ({"out_activation": "logistic"}, 0, 1),
        ({"out_activation": "tanh"}, -1, 1),
        ({"out_activation": "relu"}, 0, np.inf),
    ],
    ids=lambda value: "-".join(value.values()) if isinstance(value, dict) else None,
)
def test_rows_outside_of_the_range(params, low, high):
    """An error names the parameter, the column by number or name, and its values."""
    X = np.random.default_rng(0).uniform(0, 1, (30, 4))
    ((key, value),) = params.items()
    for wrong in (low - 0.5, high + 0.5):
        if not np.isfinite(wrong):
            continue
        bad = X.copy()
        bad[7, 2] = wrong
        with pytest.raises(ValueError, match=rf"{key}='{value}'.*column 2 .*{wrong:g}"):
            autoencoder(**params).fit(bad)
        frame = pd.DataFrame(bad, columns=list("abcd"))
        with pytest.raises(ValueError, match=r"column 'c'"):
            autoencoder(**params).fit(frame)
        model = autoencoder(**params).fit(X)
        if key == "likelihood":
            with pytest.raises(ValueError, match=rf"{key}='{value}'.*column 2 "):
                model.score_samples(bad)
        with pytest.raises(ValueError, match=rf"{key}='{value}'.*column 2 "):
            model.partial_fit(bad)


@pytest.mark.parametrize(
    ("out_activation", "low", "high"),
    [("logistic", 0.0, 1.0), ("tanh", -1.0, 1.0), ("relu", 0.0, np.inf)],
)
def test_output_activations_bound_the_rows(out_activation, low, high):
    """Reconstructions and means stay within the range; noise and scores are in the data's units."""
    X = np.random.default_rng(0).uniform(0, 1, (60, 4)).round()
    model = autoencoder(out_activation=out_activation, max_iter=30).fit(X)
    back = model.reconstruct(X)
    assert low <= back.min() <= back.max() <= high
    assert model.noise_variance_ == pytest.approx(np.square(X - back).mean(), rel=1e-4)
    np.testing.assert_allclose(model.score_samples(X), log_density(model, X), rtol=1e-4, atol=1e-3)


# ------------------------------------------------------------------------------- NaN


def test_holes_are_filled_better_than_by_means():
    """Of low-rank rows, values that were held out come back with a third of the error."""
    X = low_rank_rows(300, 10, noise=0.1)
    hidden = np.random.default_rng(1).random(X.shape) < 0.15
    holes = np.where(hidden, np.nan, X)
    train, test = slice(0, 200), slice(200, None)
    model = autoencoder(hidden_layer_sizes=(32,), solver="lbfgs", alpha=1e-4, max_iter=15).fit(
        holes[train]
    )
    means = np.nanmean(holes[train], axis=0)
    for rows in (train, test):
        gone = hidden[rows]
        error = np.square(X[rows] - model.reconstruct(holes[rows]))[gone].mean()
        assert error < np.square(X[rows] - means)[gone].mean() / 3


def test_unseen_values_do_not_matter():
    """Neither loss nor gradient depends on what stands where nothing was seen."""
    X = low_rank_rows(gaps=0.2)
    model = autoencoder().fit(X)
    module = model.net_.module_
    batch = batch_of(model, X)
    other = batch._replace(y=torch.where(batch.seen > 0, batch.y, 1e3))
    found = []
    for rows in (batch, other):
        loss = sum(module.loss(rows).terms.values())
        found.append((loss.detach(), torch.autograd.grad(loss, list(module.parameters()))))
    assert torch.equal(found[0][0], found[1][0])
    for first, second in zip(found[0][1], found[1][1], strict=True):
        torch.testing.assert_close(first, second, rtol=0, atol=0)


def test_the_encoder_reads_means_and_mask():
    """Where training rows had NaN: twice as many inputs, zero and mask where nothing was seen."""
    X = low_rank_rows(gaps=0.2)
    model = autoencoder().fit(X)
    x = batch_of(model, X).x.numpy()
    seen = ~np.isnan(X)
    assert x.shape == (120, 12)
    np.testing.assert_array_equal(x[:, 6:], seen)
    assert np.all(x[:, :6][~seen] == 0)
    centred = (X - np.nanmean(X, axis=0)) / np.sqrt(np.nanvar(X, axis=0).mean())
    np.testing.assert_allclose(x[:, :6][seen], centred[seen], rtol=1e-5, atol=1e-5)


def test_holes_after_training_on_complete_rows_are_means():
    """There is no mask then: NaN is encoded as the feature's mean is, and is not scored."""
    X = low_rank_rows()
    model = autoencoder().fit(X)
    holes = low_rank_rows(gaps=0.2)
    filled = np.where(np.isnan(holes), X.mean(axis=0), holes)
    np.testing.assert_allclose(
        model.transform(holes), model.transform(filled), rtol=1e-5, atol=1e-5
    )
    np.testing.assert_allclose(
        model.score_samples(holes), log_density(model, holes), rtol=1e-4, atol=1e-3
    )


def test_holes_may_be_refused():
    """missing="error" raises at NaN, and says so, in every method."""
    X, holes = low_rank_rows(), low_rank_rows(gaps=0.1)
    with pytest.raises(ValueError, match="NaN"):
        autoencoder(missing="error").fit(holes)
    model = autoencoder(missing="error").fit(X)
    for method in ("transform", "reconstruct", "score_samples", "score", "partial_fit"):
        with pytest.raises(ValueError, match="NaN"):
            getattr(model, method)(holes)


# ------------------------------------------------------------------------ latent growth


@pytest.mark.parametrize("n_codes", [1, 2, 7, 30])
@pytest.mark.parametrize("growth_epochs", [0, 1, 5, 30, 100])
def test_codes_open_linearly(n_codes, growth_epochs):
    """From one to all, in steps of two sizes at most: none closes again."""
    opened = [open_codes(epoch, growth_epochs, n_codes) for epoch in range(growth_epochs + 5)]
    assert opened[0] == (1 if growth_epochs else n_codes)
    assert set(opened[growth_epochs:]) == {n_codes}
    assert np.all(np.diff(opened) >= 0)
    assert len(set(np.diff(opened[:growth_epochs]))) <= 2


@pytest.mark.parametrize(("growth_fraction", "n_growing"), [(0.0, 0), (0.5, 6), (1.0, 12)])
def test_codes_that_are_not_open_are_zero(growth_fraction, n_growing):
    """In every batch of the growth, by the plan; after it none is."""
    heard = Frozen()
    X = low_rank_rows(40)
    model = autoencoder(
        4,
        latent_growth="incremental",
        growth_fraction=growth_fraction,
        max_iter=12,
        callbacks=[heard],
    ).fit(X)
    for epoch, (gate, codes) in enumerate(zip(heard.gates_, heard.codes_, strict=True)):
        is_open = np.arange(4) < open_codes(epoch, n_growing, 4)
        np.testing.assert_array_equal(gate, is_open)
        np.testing.assert_array_equal(np.any(codes != 0, axis=0), is_open)
    assert np.all(np.any(model.transform(X) != 0, axis=0))


@pytest.mark.parametrize("early_stopping", [False, True])
def test_nothing_stops_training_while_codes_open(early_stopping):
    """tol and early stopping count from the end of the growth."""
    model = autoencoder(
        4,
        latent_growth="incremental",
        max_iter=40,
        tol=1e6,
        n_iter_no_change=3,
        early_stopping=early_stopping,
    ).fit(low_rank_rows())
    assert model.n_iter_ == 20 + 1 + 3


def test_nested_cuts_are_uniform():
    """In training every row keeps its first codes, any number of them equally often."""
    X = low_rank_rows(4000)
    model = autoencoder(4, latent_growth="nested", max_iter=1).fit(X)
    module = model.net_.module_
    batch = module.train().prepare(batch_of(model, X), torch.Generator().manual_seed(0))
    cuts = batch.gate.sum(1).numpy()
    np.testing.assert_array_equal(batch.gate.numpy(), np.arange(4) < cuts[:, None])
    counts = np.bincount(cuts.astype(int), minlength=5)[1:]
    assert stats.chisquare(counts).pvalue > 1e-3
    full, cut = module(batch._replace(gate=None)), module(batch)
    for row in range(5):
        z = full.z[row : row + 1, : int(cuts[row])]
        torch.testing.assert_close(module.decode(z)[0], cut.output[row])


@pytest.fixture(scope="module", params=["incremental", "nested"])
def grown(request):
    """An autoencoder of digits with ordered codes: do not refit it."""
    return autoencoder(
        6,
        hidden_layer_sizes=(64,),
        batch_size=50,
        max_iter=40,
        latent_growth=request.param,
    ).fit(DIGITS)


def test_codes_are_ordered(grown):
    """Every code more lowers the error, and the first ones lower it most."""
    path = grown.reconstruction_path(DIGITS)
    assert path.shape == (6,)
    assert np.all(path[1:] < 1.02 * path[:-1])
    assert path[0] - path[2] > path[3] - path[5]
    assert path[-1] == pytest.approx(squared_error(DIGITS, grown.reconstruct(DIGITS)), rel=1e-4)


def test_one_fit_serves_every_size(grown):
    """Of digits, the first k codes keep no less than k principal components, for every k."""
    for k, error in enumerate(grown.reconstruction_path(DIGITS), 1):
        pca = PCA(k).fit(DIGITS)
        assert error < squared_error(DIGITS, pca.inverse_transform(pca.transform(DIGITS)))


def test_linear_codes_are_ordered_as_pcas():
    """Of a nested linear network the first k keep what PCA's do, to 2 % of the variance."""
    X = low_rank_rows(400, 6, rank=3, noise=0.1)
    model = autoencoder(
        3,
        hidden_layer_sizes=(),
        activation="identity",
        latent_growth="nested",
        max_iter=60,
        alpha=0.0,
        learning_rate="cosine",
        learning_rate_init=0.03,
    ).fit(X)
    for k, error in enumerate(model.reconstruction_path(X), 1):
        pca = PCA(k).fit(X)
        expected = squared_error(X, pca.inverse_transform(pca.transform(X)))
        assert error - expected < 0.02 * squared_error(X, X.mean(axis=0))


@pytest.mark.parametrize("k", [1, 3, 6])
def test_a_cut_model_is_the_first_codes(grown, k):
    """Codes, reconstructions and errors are those of the whole model with the rest at zero."""
    before = copy.deepcopy(grown.__getstate__())
    cut = grown.truncate(k)
    assert (cut.n_components, cut.n_components_) == (k, k)
    assert len(cut.get_feature_names_out()) == k
    codes = grown.transform(DIGITS)
    np.testing.assert_array_equal(cut.transform(DIGITS), codes[:, :k])
    kept = np.where(np.arange(6) < k, codes, 0.0)
    np.testing.assert_allclose(
        cut.reconstruct(DIGITS), grown.inverse_transform(kept), rtol=1e-5, atol=1e-4
    )
    path = grown.reconstruction_path(DIGITS)
    error = squared_error(DIGITS, cut.reconstruct(DIGITS))
    assert error == pytest.approx(path[k - 1], rel=1e-4)
    np.testing.assert_allclose(cut.reconstruction_path(DIGITS), path[:k], rtol=1e-5)
    np.testing.assert_array_equal(cut.code_mean_, grown.code_mean_[:k])
    np.testing.assert_array_equal(cut.code_covariance_, grown.code_covariance_[:k, :k])
    # The whole model is as before.
    assert pickle.dumps(grown.__getstate__()["net_"]) == pickle.dumps(before["net_"])
    assert grown.n_components == grown.n_components_ == 6


@pytest.mark.parametrize("k", [1, 3, 6])
def test_a_cut_model_scores_with_its_own_noise(grown, k):
    """The noise is the mean squared residual of so many codes, and scores are SciPy's."""
    cut = grown.truncate(k)
    expected = squared_error(DIGITS, cut.reconstruct(DIGITS)) / 64
    assert cut.noise_variance_ == pytest.approx(expected, rel=1e-3)
    np.testing.assert_allclose(cut.score_samples(DIGITS), log_density(cut, DIGITS), rtol=1e-4)
    if k == 6:
        assert cut.score(DIGITS) == grown.score(DIGITS)
    else:
        assert cut.score(DIGITS) < grown.score(DIGITS)


def test_the_noise_of_cut_models_of_many_rows():
    """It is learned from some of the rows, and within 5 % that of all."""
    X = low_rank_rows(9000)
    model = autoencoder(3, latent_growth="nested", batch_size=500, max_iter=3).fit(X)
    for k in (1, 2, 3):
        cut = model.truncate(k)
        expected = squared_error(X, cut.reconstruct(X)) / 6
        assert cut.noise_variance_ == pytest.approx(expected, rel=0.05)


@pytest.mark.parametrize("gaps", [0.0, 0.2])
@every_likelihood
def test_models_of_every_likelihood_can_be_cut(likelihood, noise, gaps):
    """Scores of the cut model are SciPy's; noise that is given or absent stays so."""
    X = rows_for(likelihood, gaps)
    model = autoencoder(3, likelihood=likelihood, noise_variance=noise, latent_growth="nested").fit(
        X
    )
    cut = model.truncate(1)
    np.testing.assert_allclose(cut.score_samples(X), log_density(cut, X), rtol=1e-4, atol=1e-3)
    if noise == 0.7:
        assert cut.noise_variance_ == pytest.approx(0.7, rel=1e-6)
    assert cut.reconstruction_path(X)[0] == pytest.approx(
        squared_error(X, cut.reconstruct(X)), rel=1e-4
    )


def test_a_cut_model_is_a_model(grown, tmp_path):
    """It samples, is saved and loaded, cut again, cloned, refitted and trained further."""
    cut = grown.truncate(3)
    assert cut.sample(4, random_state=0).shape == (4, 64)
    trusted = skops.io.get_untrusted_types(data=skops.io.dumps(cut))
    for loaded in (
        pickle.loads(pickle.dumps(cut)),
        skops.io.loads(skops.io.dumps(cut), trusted=trusted),
    ):
        np.testing.assert_array_equal(loaded.transform(DIGITS), cut.transform(DIGITS))
        assert loaded.score(DIGITS) == cut.score(DIGITS)
        assert loaded.truncate(2).score(DIGITS) == cut.truncate(2).score(DIGITS)
    again = cut.truncate(2)
    assert_same(weights(again), weights(grown.truncate(2)))
    assert again.score(DIGITS) == grown.truncate(2).score(DIGITS)
    assert clone(cut).n_components == 3
    refitted = clone(cut).set_params(max_iter=2).fit(DIGITS)
    assert refitted.transform(DIGITS).shape == (600, 3)
    before = grown.score(DIGITS)
    further = grown.truncate(3).partial_fit(DIGITS)
    assert further.transform(DIGITS).shape == (600, 3)
    assert further.n_iter_ == grown.n_iter_ + 1
    assert squared_error(DIGITS, further.reconstruct(DIGITS)) < 1.1 * squared_error(
        DIGITS, cut.reconstruct(DIGITS)
    )
    warm = grown.truncate(3).set_params(warm_start=True, max_iter=2).fit(DIGITS)
    assert warm.n_iter_ == grown.n_iter_ + 2
    assert grown.score(DIGITS) == before


def test_a_cut_model_keeps_what_was_set(grown):
    """Names of columns and the container that set_output asked for."""
    frame = pd.DataFrame(DIGITS[:100]).add_prefix("pixel ")
    model = autoencoder(3, latent_growth="nested").set_output(transform="pandas").fit(frame)
    cut = model.truncate(2)
    pd.testing.assert_frame_equal(cut.transform(frame), model.transform(frame).iloc[:, :2])
    assert list(cut.reconstruct(frame).columns) == list(frame.columns)


@pytest.mark.parametrize("k", [0, 7, -1, 2.0, "2", None])
def test_impossible_cuts(grown, k):
    """A size that is none, or more than there are, is a ValueError that names it."""
    with pytest.raises(ValueError, match=r"'n_components'.*6"):
        grown.truncate(k)


def test_codes_without_an_order_cannot_be_cut():
    """Without latent_growth there is neither method, and the error says what to set."""
    model = autoencoder().fit(low_rank_rows())
    for method in ("truncate", "reconstruction_path"):
        assert not hasattr(model, method)
        with pytest.raises(AttributeError) as caught:
            getattr(model, method)
        assert "latent_growth='incremental' or 'nested'" in str(caught.value.__cause__)


# ---------------------------------------------------------------------------- denoising


def in_data_units(model, x):
    """What the encoder reads, as values of X."""
    inputs = model._architecture.units.inputs
    return x.double().numpy() if inputs is None else inputs.undo(x).numpy()


def corrupted(gaps=0.0, **params):
    """Rows as a denoising network reads them in training, and as they are."""
    X = low_rank_rows(3000, gaps=gaps)
    model = autoencoder(max_iter=1, **params).fit(X)
    batch = batch_of(model, X)
    noisy = model.net_.module_.train().prepare(batch, torch.Generator().manual_seed(1))
    assert torch.equal(noisy.y, batch.y)
    assert torch.equal(noisy.x[:, 6:], batch.x[:, 6:])
    seen = np.ones(X.shape, dtype=bool) if batch.seen is None else batch.seen.numpy() > 0
    assert torch.equal(noisy.x[:, :6][~seen], batch.x[:, :6][~seen])
    pair = (in_data_units(model, b.x[:, :6])[seen] for b in (noisy, batch))
    return (*pair, X[seen])


def own_networks(n_in=6):
    return {"encoder": nn.Linear(n_in, 2), "decoder": nn.Linear(2, 6)}


@pytest.mark.parametrize("gaps", [0.0, 0.2])
@pytest.mark.parametrize("own", [False, True])
@pytest.mark.parametrize("level", [0.0, 0.1, 0.4, 1.0])
def test_masking_replaces_values_by_zero(level, own, gaps):
    """The stated share of seen values, by zero in the units of the data."""
    networks = own_networks(12 if gaps else 6) if own else {}
    noisy, clean, X = corrupted(gaps, noise="masking", noise_level=level, **networks)
    changed = noisy != clean
    np.testing.assert_allclose(clean, X, rtol=1e-5, atol=1e-5)
    np.testing.assert_allclose(noisy[changed], 0.0, atol=1e-6)
    error = np.sqrt(level * (1 - level) / changed.size)
    assert abs(changed.mean() - level) <= 5 * error


@pytest.mark.parametrize("gaps", [0.0, 0.2])
@pytest.mark.parametrize("own", [False, True])
@pytest.mark.parametrize("level", [0.0, 0.1, 0.4, 1.0])
def test_salt_and_pepper_replaces_values_by_the_ends(level, own, gaps):
    """The stated share, half by the smallest value of X and half by the largest."""
    networks = own_networks(12 if gaps else 6) if own else {}
    noisy, clean, X = corrupted(gaps, noise="salt_and_pepper", noise_level=level, **networks)
    low, high = (np.isclose(noisy, end, rtol=1e-5, atol=1e-5) for end in (X.min(), X.max()))
    assert np.all(low | high | (noisy == clean))
    error = np.sqrt(level / 2 * (1 - level / 2) / noisy.size)
    for end in (low, high):
        # The ends themselves are among the clean values, once.
        assert abs(end.mean() - level / 2) <= 5 * error + 1 / noisy.size


@pytest.mark.parametrize("gaps", [0.0, 0.2])
@pytest.mark.parametrize("own", [False, True])
@pytest.mark.parametrize("level", [0.0, 0.1, 2.0])
def test_gaussian_noise_has_the_stated_deviation(level, own, gaps):
    """In units of the root mean variance, or of X for networks of one's own; it is normal."""
    networks = own_networks(12 if gaps else 6) if own else {}
    noisy, clean, _ = corrupted(gaps, noise="gaussian", noise_level=level, **networks)
    unit = 1.0 if own else np.sqrt(np.nanvar(low_rank_rows(3000, gaps=gaps), axis=0).mean())
    if level == 0:
        np.testing.assert_array_equal(noisy, clean)
        return
    noise = (noisy - clean) / (level * unit)
    assert stats.kstest(noise, "norm").pvalue > 1e-3
    assert noise.std() == pytest.approx(1.0, abs=5 / np.sqrt(2 * noise.size))


@pytest.mark.parametrize("kind", ["gaussian", "masking", "salt_and_pepper"])
def test_noise_is_for_training_only(kind):
    """Held-out losses and all that a fitted model computes are free of it."""
    X = low_rank_rows()
    still = {"learning_rate_init": 1e-12, "noise_variance": 0.5, "early_stopping": True}
    model = autoencoder(noise=kind, noise_level=0.5, n_iter_no_change=50, **still).fit(X)
    trained, held_out = (
        {epoch[f"{part}_loss"] for epoch in model.history_} for part in ("train", "valid")
    )
    assert len(trained) == 10
    assert max(held_out) == pytest.approx(min(held_out), rel=1e-6)
    plain = autoencoder(n_iter_no_change=50, **still).fit(X)
    np.testing.assert_allclose(model.transform(X), plain.transform(X), rtol=1e-4, atol=1e-4)
    np.testing.assert_array_equal(model.transform(X), model.transform(X))


@pytest.mark.parametrize("kind", ["masking", "salt_and_pepper"])
def test_denoising_mends_rows(kind):
    """Spoilt rows come back closer to what they were than without training on such."""
    X = low_rank_rows(400, 12)
    rng = np.random.default_rng(0)
    ends = rng.choice([X.min(), X.max()], X.shape) if kind != "masking" else 0.0
    spoilt = np.where(rng.random(X.shape) < 0.2, ends, X)
    options = {"max_iter": 40, "hidden_layer_sizes": (32,)}
    plain = autoencoder(**options).fit(X[:300])
    mending = autoencoder(noise=kind, noise_level=0.2, **options).fit(X[:300])
    errors = [squared_error(X[300:], m.reconstruct(spoilt[300:])) for m in (mending, plain)]
    assert errors[0] < 0.8 * errors[1]


# -------------------------------------------------------- sparsity, contraction, features


@pytest.mark.parametrize("target", [0.01, 0.2, 0.9])
def test_the_divergence_is_scipys(target):
    """KL between two coins, as SciPy's relative entropies sum."""
    mean = np.array([0.001, 0.1, 0.2, 0.5, 0.9, 0.999])
    expected = special.rel_entr(target, mean) + special.rel_entr(1 - target, 1 - mean)
    found = bernoulli_divergence(target, torch.from_numpy(mean)).numpy()
    np.testing.assert_allclose(found, expected, rtol=1e-10, atol=1e-15)
    at_the_ends = bernoulli_divergence(target, torch.tensor([0.0, 1.0]))
    assert torch.all(at_the_ends.isfinite() & (at_the_ends > 0))


def test_sparse_codes_approach_their_target():
    """They are shares of one, and the larger the weight, the closer their means."""
    X = low_rank_rows()
    distances = []
    for weight in (0.0, 1.0, 100.0):
        model = autoencoder(
            4, sparsity=0.1, sparsity_weight=weight, max_iter=60, learning_rate_init=0.02
        ).fit(X)
        codes = model.transform(X)
        assert 0 <= codes.min() <= codes.max() <= 1
        distances.append(np.abs(codes.mean(axis=0) - 0.1).max())
    assert distances[0] > distances[1] > distances[2]
    assert distances[2] < 0.03


def test_the_sparse_term_is_the_divergence_of_the_means():
    """By hand, of the codes of all rows; weights of rows count."""
    X = low_rank_rows()
    weight = np.random.default_rng(0).uniform(0.5, 2.0, len(X))
    model = autoencoder(
        3, sparsity=0.1, sparsity_weight=2.5, batch_size=200, learning_rate_init=1e-12
    )
    model.fit(X, sample_weight=weight)
    mean = np.average(model.transform(X).astype(float), axis=0, weights=weight)
    expected = special.rel_entr(0.1, mean) + special.rel_entr(0.9, 1 - mean)
    assert model.history_[-1]["train_sparsity"] == pytest.approx(2.5 * expected.sum(), rel=1e-4)


def test_projections_average_to_the_norm_of_the_jacobian():
    """Over all sign vectors: the squared Frobenius norm of every row's Jacobian."""
    torch.manual_seed(0)
    encoder = nn.Sequential(nn.Linear(5, 7), nn.Tanh(), nn.Linear(7, 3)).double()
    x = torch.randn(4, 5, dtype=torch.float64, requires_grad=True)
    norms = [
        projected_jacobian_norm(
            encoder(x), x, torch.tensor([signs] * 4, dtype=torch.float64)
        ).detach()
        for signs in product([-1, 1], repeat=3)
    ]
    jacobians = torch.func.vmap(torch.func.jacrev(encoder))(x.detach())
    expected = jacobians.square().sum((1, 2)).detach()
    torch.testing.assert_close(torch.stack(norms).mean(0), expected)


def jacobian_norm(model, X):
    """Mean squared Frobenius norm of the encoder's Jacobian."""
    module = model.net_.module_
    jacobian = torch.func.vmap(torch.func.jacrev(lambda x: module.encode(x[None])[0]))
    return float(jacobian(batch_of(model, X).x).detach().square().sum((1, 2)).mean())


def test_the_contractive_term_is_the_norm_of_the_jacobian():
    """Its mean over epochs, in which nothing moves, is weight times the exact norm."""
    X = low_rank_rows(400)
    model = autoencoder(
        3, contraction=0.5, activation="tanh", learning_rate_init=1e-12, max_iter=30
    ).fit(X)
    terms = [epoch["train_contraction"] for epoch in model.history_]
    error = 5 * np.std(terms) / np.sqrt(len(terms))
    assert abs(np.mean(terms) - 0.5 * jacobian_norm(model, X)) < error


@pytest.mark.parametrize("params", [{}, {"latent_growth": "nested"}, {"noise": "masking"}])
def test_contraction_lowers_the_norm_of_the_jacobian(params):
    """The more the larger its weight."""
    X = low_rank_rows()
    norms = [
        jacobian_norm(autoencoder(contraction=weight, max_iter=20, **params).fit(X), X)
        for weight in (0.0, 0.5, 5.0)
    ]
    assert norms[0] > norms[1] > norms[2]


class Square(torch.autograd.Function):
    @staticmethod
    def forward(ctx, x):
        ctx.save_for_backward(x)
        return x**2

    @staticmethod
    @torch.autograd.function.once_differentiable
    def backward(ctx, gradient):
        return 2 * ctx.saved_tensors[0] * gradient


class Squares(nn.Module):
    def forward(self, x):
        return Square.apply(x)


def test_contraction_needs_second_derivatives_of_the_encoder():
    """torch leaves the gradients of such an encoder out of the term, without an error."""
    encoder = nn.Sequential(nn.Linear(6, 2), Squares())
    model = autoencoder(2, encoder=encoder, contraction=0.5, max_iter=1)
    with pytest.raises(RuntimeError, match="once_differentiable"):
        model.fit(low_rank_rows())


@pytest.mark.parametrize("gaps", [0.0, 0.2])
@pytest.mark.parametrize("image_shape", [None, (1, 2, 3)])
@pytest.mark.parametrize("likelihood", ["gaussian", "bernoulli"])
def test_the_perceptual_term_is_its_definition(likelihood, image_shape, gaps):
    """weight times the mean squared distance of features of X and of its reconstruction."""
    X = rows_for(likelihood, gaps)
    with torch.random.fork_rng([]):
        torch.manual_seed(0)
        features = nn.Sequential(nn.Linear(6, 4), nn.Tanh())
        if image_shape:
            features = nn.Sequential(nn.Conv2d(1, 2, 2), nn.Tanh())
    before = copy.deepcopy(features.state_dict())
    model = autoencoder(
        likelihood=likelihood,
        image_shape=image_shape,
        perceptual=(features, 0.7),
        batch_size=100,
        learning_rate_init=1e-12,
    ).fit(X)
    assert_same(features.state_dict(), before)
    assert not any("perceptual" in name for name in weights(model))
    # What was not seen is the same in both: the mean, or zero where nothing is rescaled.
    fill = 0.0 if likelihood == "bernoulli" else np.nanmean(X, axis=0)
    pair = [np.where(np.isnan(X), fill, rows) for rows in (X, model.reconstruct(X))]
    with torch.no_grad():
        shape = (-1, *(image_shape or (6,)))
        of_rows, of_back = (features(torch.from_numpy(p).float().reshape(shape)) for p in pair)
    expected = 0.7 * (of_rows - of_back).square().flatten(1).sum(1).mean()
    found = model.history_[-1]["train_perceptual"]
    assert found == pytest.approx(float(expected), rel=1e-4)


def test_the_perceptual_term_pulls():
    """With its weight the features come closer, whatever the squared error does."""
    X = low_rank_rows()
    features = nn.Linear(6, 1, bias=False)
    nn.init.constant_(features.weight, 0.0)
    features.weight.data[0, 5] = 1.0
    errors = [
        np.square(X - autoencoder(1, perceptual=(features, w), max_iter=40).fit(X).reconstruct(X))
        for w in (0.0, 50.0)
    ]
    assert errors[1][:, 5].mean() < 0.5 * errors[0][:, 5].mean()


# -------------------------------------------------------------------------- pretraining


@pytest.mark.parametrize(
    "params",
    [
        {"pretraining": "layerwise"},
        {"pretraining": "layerwise", "tied_weights": True},
        {"pretraining": "layerwise", "activation": "logistic", "likelihood": "bernoulli"},
        {"pretraining": "rbm", "activation": "logistic"},
        {"pretraining": "rbm", "activation": "logistic", "tied_weights": True},
        {"pretraining": "rbm", "activation": "logistic", "likelihood": "bernoulli"},
        {"pretraining": "rbm", "activation": "logistic", "out_activation": "logistic"},
    ],
    ids=lambda params: "-".join(map(str, params.values())),
)
def test_pretraining_gives_a_better_start(params):
    """The loss in the first epoch is lower than without; the same seed, the same bits."""
    X = DIGITS / 16
    rbm = params["pretraining"] == "rbm"
    options = {
        **params,
        "hidden_layer_sizes": (32, 16),
        "n_components": 8,
        "max_iter": 1,
        "batch_size": 100 if rbm else 50,
        "noise_variance": 0.05 if "likelihood" not in params else "scalar",
        # Machines have rates of their own; layers that are pretrained in pairs have not.
        "learning_rate_init": 1e-12 if rbm else 3e-3,
    }
    pretrained = autoencoder(**options, pretraining_max_iter=10).fit(X)
    plain = autoencoder(**{**options, "pretraining": None}).fit(X)
    losses = [model.history_[0]["train_loss"] for model in (pretrained, plain)]
    assert losses[0] < losses[1]
    again = autoencoder(**options, pretraining_max_iter=10).fit(X)
    assert_same(weights(pretrained), weights(again))


@pytest.mark.parametrize("kind", ["layerwise", "rbm"])
def test_pretraining_of_rows_with_holes(kind):
    """NaN and weights are no obstacle."""
    X = low_rank_rows(gaps=0.2)
    model = autoencoder(
        pretraining=kind, activation="logistic", hidden_layer_sizes=(8, 4), pretraining_max_iter=2
    ).fit(X, sample_weight=np.linspace(0.1, 2.0, len(X)))
    assert np.all(np.isfinite(model.score_samples(X)))


# ------------------------------------------------------------------------------ clashes


MLP, CONV = {}, {"network": "conv", "image_shape": (1, 2, 3)}
ENCODER = nn.Linear(6, 2)


@pytest.mark.parametrize(
    ("params", "named"),
    [
        ({"tied_weights": True, "encoder": ENCODER}, r"tied_weights=True"),
        ({"pretraining": "layerwise", "encoder": ENCODER}, r"pretraining='layerwise'"),
        (
            {"tied_weights": True, "network": "conv", "image_shape": (1, 4, 4)},
            r"tied_weights=True.*mlp",
        ),
        (
            {"pretraining": "layerwise", "network": "conv", "image_shape": (1, 4, 4)},
            r"pretraining='layerwise'.*mlp",
        ),
        (
            {"tied_weights": True, "decoder_layer_sizes": (3,)},
            r"decoder_layer_sizes=\(3,\).*tied_weights=True",
        ),
        (
            {"pretraining": "layerwise", "decoder_layer_sizes": (3,)},
            r"decoder_layer_sizes=\(3,\).*pretraining='layerwise'",
        ),
        ({"tied_weights": True, "normalization": "batch"}, r"normalization='batch'"),
        ({"pretraining": "layerwise", "normalization": "batch"}, r"normalization='batch'"),
        ({"pretraining": "rbm"}, r"activation='relu'.*pretraining='rbm'"),
        (
            {"pretraining": "rbm", "activation": "logistic", "likelihood": "poisson"},
            r"pretraining='rbm'.*likelihood='poisson'",
        ),
        (
            {"pretraining": "rbm", "activation": "logistic", "out_activation": "tanh"},
            r"pretraining='rbm'.*out_activation='tanh'",
        ),
        (
            {
                "pretraining": "rbm",
                "activation": "logistic",
                "likelihood": "bernoulli",
                "tied_weights": True,
            },
            r"pretraining='rbm'.*tied_weights",
        ),
        ({"noise": "masking", "noise_level": 1.5}, r"noise_level=1.5.*masking"),
        ({"noise": "salt_and_pepper", "noise_level": 2}, r"noise_level=2.*salt_and_pepper"),
        ({"contraction": 0.1, "compile": True}, r"compile=True.*contraction"),
        ({"perceptual": (1, 2)}, r"perceptual=\(1, 2\)"),
        ({"perceptual": (ENCODER,)}, r"perceptual"),
        ({"perceptual": (ENCODER, -1.0)}, r"perceptual.*-1\.0"),
        ({"perceptual": (ENCODER, "much")}, r"perceptual.*much"),
        ({"image_shape": (1, 2, 2)}, r"image_shape=\(1, 2, 2\).*16 features"),
        ({"image_shape": (4, 4)}, r"image_shape=\(4, 4\)"),
        ({"image_shape": (1, 4.0, 4)}, r"image_shape=\(1, 4\.0, 4\)"),
        ({"image_shape": (-1, -4, 4)}, r"image_shape=\(-1, -4, 4\)"),
        ({"network": "conv"}, r"network=\"conv\".*image_shape"),
        ({"network": "conv", "image_shape": (1, 2, 8)}, r"image_shape=\(1, 2, 8\).*at least 4"),
        (
            {"network": "conv", "image_shape": (1, 4, 4), "hidden_layer_sizes": ()},
            r"hidden_layer_sizes=\(\)",
        ),
        ({"hidden_layer_sizes": (3, 0)}, r"hidden_layer_sizes=\(3, 0\)"),
        ({"hidden_layer_sizes": (3.5,)}, r"hidden_layer_sizes=\(3\.5,\)"),
        ({"decoder_layer_sizes": [-1]}, r"decoder_layer_sizes"),
        ({"likelihood": "bernoulli", "out_activation": "relu"}, r"out_activation='relu'"),
        ({"likelihood": "bernoulli", "noise_variance": "per_feature"}, r"noise_variance='per_f"),
        ({"likelihood": "poisson", "noise_variance": 1.0}, r"noise_variance=1\.0"),
    ],
    ids=lambda value: "-".join(value) if isinstance(value, dict) else "",
)
def test_choices_that_clash(params, named):
    """An error names the parameters and what was given, also when training goes on."""
    X = (np.random.default_rng(0).random((30, 16)) > 0.5).astype(float)
    with pytest.raises(ValueError, match=named):
        autoencoder(**params).fit(X)
    with pytest.raises(ValueError, match=named):
        autoencoder(**params).partial_fit(X)
    model = autoencoder(warm_start=True).fit(X)
    with pytest.raises(ValueError, match=named):
        model.set_params(**params).fit(X)


# ------------------------------------------------------------------------------- images


@pytest.mark.parametrize("pooling", ["stride", "max", "average", "min"])
def test_convolutions_learn_digits(pooling):
    """Four codes leave less error than four principal components' worth of the mean."""
    model = autoencoder(
        4,
        network="conv",
        image_shape=(1, 8, 8),
        hidden_layer_sizes=(8, 16),
        pooling=pooling,
        batch_size=25,
        max_iter=6,
    ).fit(DIGITS[:400])
    test = DIGITS[400:]
    error = squared_error(test, model.reconstruct(test))
    assert error < 0.75 * squared_error(test, DIGITS[:400].mean(axis=0))


@pytest.mark.parametrize("params", [{}, {"normalization": "batch"}, {"latent_growth": "nested"}])
@pytest.mark.parametrize("image_shape", [(1, 5, 7), (3, 4, 9), (2, 13, 6)])
@pytest.mark.parametrize("pooling", ["stride", "max"])
def test_images_of_any_size(image_shape, pooling, params):
    """Sides need not be even: rows come back as long as they were, with and without holes."""
    X = np.random.default_rng(0).normal(size=(30, int(np.prod(image_shape))))
    for gaps in (0.0, 0.1):
        X[np.random.default_rng(1).random(X.shape) < gaps] = np.nan
        model = autoencoder(
            network="conv",
            image_shape=image_shape,
            hidden_layer_sizes=(3, 4, 2),
            pooling=pooling,
            max_iter=2,
            **params,
        ).fit(X)
        assert model.reconstruct(X).shape == X.shape
        np.testing.assert_allclose(
            model.score_samples(X), log_density(model, X), rtol=1e-4, atol=1e-3
        )


# ------------------------------------------------------------------------------ samples


@pytest.mark.parametrize("weighted", [False, True])
def test_moments_of_codes(weighted):
    """code_mean_ and code_covariance_ are the training codes' own, by weight."""
    X = low_rank_rows()
    weight = np.random.default_rng(0).uniform(0.5, 2.0, len(X)) if weighted else None
    model = autoencoder().fit(X, sample_weight=weight)
    codes = model.transform(X).astype(np.float64)
    mean = np.average(codes, axis=0, weights=weight)
    covariance = np.cov(codes.T, aweights=weight, bias=True)
    np.testing.assert_allclose(model.code_mean_, mean, rtol=1e-5, atol=1e-6)
    np.testing.assert_allclose(model.code_covariance_, covariance, rtol=1e-5, atol=1e-6)
    assert np.atleast_2d(autoencoder(1).fit(X).code_covariance_).shape == (1, 1)


@pytest.mark.parametrize("noise", [False, True])
@pytest.mark.parametrize("noise_variance", ["scalar", "per_feature"])
def test_moments_of_samples(noise_variance, noise):
    """Through a linear decoder: W C W' and the mean code's row; with noise its variance more."""
    X = low_rank_rows()
    model = linear(noise_variance=noise_variance).fit(X)
    axes = model.inverse_transform(np.eye(2)) - model.inverse_transform(np.zeros((2, 2)))
    axes = axes.astype(np.float64)
    covariance = axes.T @ model.code_covariance_ @ axes
    if noise:
        covariance += model.noise_variance_ * np.eye(6)
    n = 50_000
    drawn = model.sample(n, noise=noise, random_state=0).astype(np.float64)
    variances = np.diag(covariance)
    mean_error = np.sqrt(variances / n)
    covariance_error = np.sqrt((np.outer(variances, variances) + covariance**2) / n)
    mean = model.inverse_transform(model.code_mean_[None])[0]
    assert np.all(np.abs(drawn.mean(axis=0) - mean) < 5 * mean_error + 1e-5)
    assert np.all(np.abs(np.cov(drawn.T) - covariance) < 5 * covariance_error + 1e-5)


@every_likelihood
def test_samples_are_in_the_support(likelihood, noise):
    """Counts for counts, bits for bits, shares for shares; noise differs from its absence."""
    model = autoencoder(likelihood=likelihood, noise_variance=noise).fit(rows_for(likelihood))
    drawn = model.sample(200, random_state=0)
    if likelihood == "bernoulli":
        assert set(np.unique(drawn)) <= {0.0, 1.0}
    if likelihood == "poisson":
        assert np.all((drawn >= 0) & (drawn == np.round(drawn)))
    if likelihood == "continuous_bernoulli":
        assert np.all((drawn >= 0) & (drawn <= 1))
    assert not np.array_equal(drawn, model.sample(200, noise=False, random_state=0))


# ----------------------------------------------------------------- pipelines and frames


def test_codes_serve_a_classifier():
    """GridSearchCV finds that three codes of digits tell more than one."""
    X, y = load_digits(n_class=4, return_X_y=True)
    pipe = Pipeline(
        [
            ("reduce", autoencoder(max_iter=8)),
            ("scale", StandardScaler()),
            ("classify", LogisticRegression(max_iter=1000)),
        ]
    )
    search = GridSearchCV(pipe, {"reduce__n_components": [1, 3]}, cv=3, error_score="raise")
    search.fit(X[:300], y[:300])
    one, three = search.cv_results_["mean_test_score"]
    assert three > one
    assert search.best_params_ == {"reduce__n_components": 3}
    assert search.score(X[300:], y[300:]) > 0.8
    pipe = pickle.loads(pickle.dumps(search.best_estimator_))
    np.testing.assert_array_equal(pipe.predict(X), search.predict(X))


def test_frames_in_and_out():
    """set_output names codes after the class and rows after the columns."""
    frame = pd.DataFrame(low_rank_rows(), columns=list("abcdef"))
    pipe = Pipeline([("scale", StandardScaler()), ("reduce", autoencoder())])
    pipe.set_output(transform="pandas")
    codes = pipe.fit_transform(frame)
    assert list(codes.columns) == ["autoencoder0", "autoencoder1"]
    assert list(pipe["reduce"].reconstruct(pipe["scale"].transform(frame)).columns) == [*"abcdef"]
    assert list(pipe["reduce"].sample(2).columns) == [*"abcdef"]
