"""VQVAE: densities by enumeration, codes by brute force, and what its parameters promise."""

import copy
import itertools
import pickle
import re

import numpy as np
import pandas as pd
import polars as pl
import pytest
import torch
from scipy import special, stats
from sklearn.base import clone
from sklearn.callback import ScoringMonitor
from sklearn.cluster import KMeans
from sklearn.datasets import load_digits
from sklearn.ensemble import HistGradientBoostingClassifier
from sklearn.metrics import check_scoring
from sklearn.model_selection import GridSearchCV
from sklearn.pipeline import make_pipeline
from skorch.callbacks import Callback
from torch import nn

from helpers import assert_same, hear_batches, through_joblib, through_pickle, through_skops
from skae import VQVAE
from skae._densities.index_prior import (
    AutoregressivePrior,
    IndexPriorModule,
    index_counts,
    smoothed_frequencies,
)
from skae._modules.vqvae import codebook_size_for
from skae._training.data import Data
from skae.metrics import bits_per_dim

# -------------------------------------------------------------------------- helpers


def clustered_rows(n_rows=96, n_features=6, *, seed=0, gaps=0.0):
    """A few clusters along two bent factors, off centre, in units of hundreds; some are NaN."""
    rng = np.random.default_rng(seed)
    axes = np.random.default_rng(1).normal(size=(2, n_features))
    factors = rng.integers(0, 4, size=(n_rows, 2)) + 0.2 * rng.normal(size=(n_rows, 2))
    X = 100 * (factors @ axes + np.sin(factors @ axes)) + 10 * rng.normal(size=(n_rows, n_features))
    X += 500.0
    X[rng.random(X.shape) < gaps] = np.nan
    return X


def rows_for(likelihood, n_rows=96, gaps=0.0):
    """Rows that this likelihood allows."""
    X = clustered_rows(n_rows)
    X = {
        "bernoulli": (X > 550).astype(float),
        "continuous_bernoulli": special.expit((X - 550) / 200),
        "poisson": np.floor(np.abs(X) / 50),
    }.get(likelihood, X)
    X[np.random.default_rng(5).random(X.shape) < gaps] = np.nan
    return X


def vqvae(n_components=3, **params):
    """A small model that trains for a few epochs, all of them."""
    # Truths here are of p(x|z) without size factors; those are in test_count_networks.py.
    defaults = {
        "size_factor": None,
        "n_codes": 5,
        "calibration": False,
        "init": "random",
        "code_dim": 2,
        "hidden_layer_sizes": (16,),
        "activation": "tanh",
        "batch_size": 32,
        "learning_rate_init": 0.01,
        "max_iter": 4,
        "prior_channels": 8,
        "random_state": 0,
        "device": "cpu",
    }
    return VQVAE(n_components, **{**defaults, **params})


def still(**params):
    """Parameters of a model that stays where it starts."""
    return {
        "learning_rate_init": 1e-12,
        "max_iter": 1,
        "decay": 0.9999999,
        "dead_code_threshold": 0,
        **params,
    }


# n_codes, the parameters, and an id, of every way to learn a codebook.
QUANTIZERS = {
    "ema": {"quantizer": "vq", "codebook_update": "ema"},
    "loss": {"quantizer": "vq", "codebook_update": "loss"},
    "simvq": {"quantizer": "simvq"},
    "fsq": {"quantizer": "fsq", "levels": (2, 4), "n_codes": 8},
}
# What the tests of so few rows are about.
few_encodings = pytest.mark.filterwarnings("ignore:n_codes=.* is too many:UserWarning")
every_quantizer = pytest.mark.parametrize("kind", QUANTIZERS)
every_prior = pytest.mark.parametrize("prior", ["autoregressive", "independent", None])


def stages_of(model):
    """The codebooks (n_quantizers, n_codes, code_dim), float64."""
    return model.codebook_.astype(float).reshape(model.n_quantizers, model.n_codes, -1)


def encodings_of(model, X, trained_on=None):
    """Vectors (n, n_components, code_dim) by the encoder's copy in float64, of whole rows."""
    X_train = X if trained_on is None else trained_on
    standard = (X - X_train.mean(axis=0)) / np.sqrt(X_train.var(axis=0).mean())
    encoder = copy.deepcopy(model.net_.module_.encoder).double().eval()
    with torch.no_grad():
        z = encoder(torch.from_numpy(standard)).numpy()
    z = np.tanh(z) if model.quantizer == "fsq" else z
    return z.reshape(len(X), model.n_components_, -1)


def embedded(model, codes):
    """The sum of the stages' vectors, position by position, by a loop."""
    codebooks, n_stages = stages_of(model), model.n_quantizers
    rows = []
    for code in codes:
        vectors = [
            sum(codebooks[q][code[p * n_stages + q]] for q in range(n_stages))
            for p in range(model.n_components_)
        ]
        rows.append(np.concatenate(vectors))
    return np.array(rows)


def decoded(model, codes):
    """What the decoder's copy in float64 makes of codes, in its own units."""
    decoder = copy.deepcopy(model.net_.module_.decoder).double().eval()
    with torch.no_grad():
        return decoder(torch.from_numpy(embedded(model, codes))).numpy()


def means_of(model, codes, X_train):
    """E[x|e_k] in the units of the data."""
    output = decoded(model, codes)
    match model.likelihood:
        case "bernoulli":
            return special.expit(output)
        case "poisson":
            return np.exp(output)
    if model.out_activation == "logistic":
        return special.expit(output)
    scale = np.sqrt(np.nanvar(X_train, axis=0).mean())
    return output * scale + np.nanmean(X_train, axis=0)


def log_densities(model, X, codes, X_train):
    """log p(x|e_k) of rows and codes side by side, by SciPy, over what was seen."""
    mean = means_of(model, codes, X_train)
    match model.likelihood:
        case "bernoulli":
            values = stats.bernoulli.logpmf(X, mean)
        case "poisson":
            values = stats.poisson.logpmf(X, mean)
        case "laplace":
            values = stats.laplace.logpdf(X, mean, np.sqrt(np.divide(model.noise_variance_, 2)))
        case _:
            values = stats.norm.logpdf(X, mean, np.sqrt(model.noise_variance_))
    return np.nansum(np.where(np.isnan(X), 0.0, values), axis=1)


def every_code(model):
    """All rows of indices that there are."""
    n_indices = model.n_components_ * model.n_quantizers
    return np.array(list(itertools.product(range(model.n_codes), repeat=n_indices)))


def place_of(codes, n_codes):
    """Where rows of indices stand in `every_code`."""
    places = n_codes ** np.arange(codes.shape[1])[::-1]
    return codes @ places


def log_priors(model):
    """log p(k) of all rows of indices."""
    codes = every_code(model)
    if model.prior is None:
        return np.full(len(codes), -codes.shape[1] * np.log(model.n_codes))
    with torch.no_grad():
        values = model._prior.log_prob(torch.from_numpy(codes))
    return values.double().numpy()


def state(model):
    """A copy of the weights and buffers, of the prior's, and of both optimisers' states."""
    found = {}
    for name in ("net_", "prior_net_"):
        if not hasattr(model, name):
            continue
        net = getattr(model, name)
        for key, value in net.module_.state_dict().items():
            found[f"{name}: {key}"] = value.numpy().copy()
        for i, values in net.optimizer_.state_dict()["state"].items():
            for key, value in values.items():
                found[f"{name}: {key} of {i}"] = value.numpy().copy()
    return found


def error_of(model, X):
    return np.square(X - model.reconstruct(X)).mean()


# -------------------------------------------------------------------------- density


SCORED = {
    "gaussian": {},
    "NaN": {"gaps": 0.2},
    "per feature": {"noise_variance": "per_feature"},
    "per feature, NaN": {"noise_variance": "per_feature", "gaps": 0.2},
    "given noise": {"noise_variance": 3000.0},
    "laplace": {"likelihood": "laplace"},
    "bernoulli": {"likelihood": "bernoulli"},
    "bernoulli, NaN": {"likelihood": "bernoulli", "gaps": 0.2},
    "poisson": {"likelihood": "poisson"},
    "bounded": {"likelihood": "gaussian", "out_activation": "logistic"},
    "two quantizers": {"n_quantizers": 2, "n_components": 2, "n_codes": 3},
    "simvq": {"quantizer": "simvq"},
    "fsq": {"quantizer": "fsq", "levels": (2, 2), "n_codes": 4},
}


@every_prior
@pytest.mark.parametrize("case", SCORED)
def test_scores_are_one_term_of_the_likelihood(case, prior):
    """log p(x|e_k) + log p(k) at the codes of transform, by SciPy in the data's units."""
    params = dict(SCORED[case])
    gaps = params.pop("gaps", 0.0)
    X = rows_for(params.get("likelihood"), gaps=gaps)
    if "out_activation" in params:
        X = special.expit((X - 550) / 200)
    model = vqvae(prior=prior, max_iter=2, **params).fit(X)
    X_train, X = X, X[:12]
    codes = model.transform(X)
    p_codes = log_priors(model)
    expected = log_densities(model, X, codes, X_train) + p_codes[place_of(codes, model.n_codes)]
    np.testing.assert_allclose(model.score_samples(X), expected, rtol=1e-4, atol=2e-3)
    np.testing.assert_allclose(model.score_codes(every_code(model)), p_codes, rtol=1e-4, atol=1e-4)
    # All rows of indices share a probability of one.
    assert np.exp(special.logsumexp(p_codes)) == pytest.approx(1, abs=1e-5)
    # The sum over all of them is log p(x), of which one term is a lower bound.
    terms = [
        log_densities(model, X, np.tile(code, (len(X), 1)), X_train) + log_p
        for code, log_p in zip(every_code(model), p_codes, strict=True)
    ]
    log_px = special.logsumexp(terms, axis=0)
    assert np.all(model.score_samples(X) <= log_px + 2e-3)
    assert np.any(log_px > expected + 1e-6)


@pytest.mark.parametrize("scale", [1e-3, 1e3])
def test_scores_shift_by_the_logarithm_of_the_scale(scale):
    """Rows times s score log s less for every value that was seen."""
    X = clustered_rows(gaps=0.1)
    scores = vqvae().fit(X).score_samples(X)
    scaled = vqvae().fit(scale * X).score_samples(scale * X)
    n_seen = (~np.isnan(X)).sum(axis=1)
    np.testing.assert_allclose(scaled, scores - n_seen * np.log(scale), rtol=1e-3, atol=0.05)


def test_scores_of_unseen_values_are_left_out():
    """A model that was fitted on whole rows scores holes as if there were fewer features."""
    X = clustered_rows()
    model = vqvae().fit(X)
    holes = X.copy()
    holes[:, 2] = np.nan
    codes = model.transform(holes)
    expected = log_densities(model, holes, codes, X)
    expected += log_priors(model)[place_of(codes, 5)]
    np.testing.assert_allclose(model.score_samples(holes), expected, rtol=1e-4, atol=2e-3)


@pytest.mark.parametrize("weighted", [False, True])
def test_an_independent_prior_is_smoothed_frequencies(weighted):
    """(n_k + c) / (n + K c) at every position, with one c, the best of its neighbours.

    Best is what predicts every observation from the others.
    """
    X = clustered_rows()
    weight = np.random.default_rng(0).uniform(0.5, 2, len(X)) if weighted else None
    model = vqvae(prior="independent", n_codes=16).fit(X, sample_weight=weight)
    codes = model.transform(X)
    w = np.ones(len(X)) if weight is None else weight * len(X) / weight.sum()
    counts = np.array([np.bincount(k, w, minlength=16) for k in codes.T])
    shares = np.exp(model._prior.log_frequencies)
    np.testing.assert_allclose(shares.sum(axis=1), 1, rtol=1e-5)
    n, k = len(X), 16
    # Codes that were never seen tell c: s = c / (n + K c).
    assert np.any(counts == 0)
    s = shares[counts == 0].mean()
    c = n * s / (1 - k * s)
    np.testing.assert_allclose(shares, (counts + c) / (n + k * c), rtol=1e-4)

    def left_out(c):
        rest = np.maximum(counts - 1, 0)
        return np.sum(counts * np.log((rest + c) / (n - 1 + k * c)))

    lower = max(c / 2.5, 1e-2 / k)  # the least that is tried is a hundredth of an observation
    assert left_out(c) >= max(left_out(lower), left_out(c * 2.5)) - 1e-6


# -------------------------------------------------------------------------- sampling


def chi_square(codes, log_p, n_codes):
    """Chance of frequencies that are further from these probabilities."""
    expected = len(codes) * np.exp(log_p)
    observed = np.bincount(place_of(codes, n_codes), minlength=len(expected))
    rare = expected < 5
    pairs = [(observed[~rare], expected[~rare])]
    if rare.any():
        pairs.append(([observed[rare].sum()], [expected[rare].sum()]))
    observed, expected = (np.concatenate(values) for values in zip(*pairs, strict=True))
    return stats.chisquare(observed, expected * observed.sum() / expected.sum()).pvalue


@pytest.mark.parametrize("prior", ["autoregressive", "independent"])
@pytest.mark.parametrize("n_quantizers", [1, 2])
def test_draws_of_codes_have_their_probabilities(prior, n_quantizers):
    """Frequencies of all rows of indices, against p(k)."""
    sizes = {1: (3, 5), 2: (2, 3)}[n_quantizers]
    model = vqvae(sizes[0], n_codes=sizes[1], n_quantizers=n_quantizers, prior=prior)
    model.set_params(prior_max_iter=8).fit(clustered_rows())
    codes = model.sample_latent(10_000, random_state=3)
    assert codes.dtype == np.int64
    assert codes.shape == (10_000, sizes[0] * n_quantizers)
    assert chi_square(codes, log_priors(model), sizes[1]) > 1e-3
    # Equal chances would not do.
    even = np.full(sizes[1] ** codes.shape[1], -codes.shape[1] * np.log(sizes[1]))
    assert chi_square(codes, even, sizes[1]) < 1e-6


@pytest.mark.parametrize("prior", ["autoregressive", "independent"])
def test_rows_without_noise_are_decoded_codes(prior):
    """Each is the mean at some row of indices; which, is told by p(k)."""
    X = clustered_rows()
    model = vqvae(2, prior=prior).fit(X)
    rows = model.sample(2000, noise=False, random_state=1)
    every = means_of(model, every_code(model), X)
    distances = np.abs(rows[:, None] - every).max(axis=2)
    assert distances.min(axis=1).max() < 1e-2  # of hundreds
    assert chi_square(every_code(model)[distances.argmin(axis=1)], log_priors(model), 5) > 1e-3


@pytest.mark.parametrize("noise", ["scalar", "per_feature"])
def test_noise_has_its_variance(noise):
    """What it adds to the same codes has mean zero, the variance, and a normal's shape."""
    model = vqvae(noise_variance=noise).fit(clustered_rows())
    added = model.sample(4000, random_state=1) - model.sample(4000, noise=False, random_state=1)
    standard = added / np.sqrt(model.noise_variance_)
    np.testing.assert_allclose(standard.mean(axis=0), 0, atol=5 / 4000**0.5)
    np.testing.assert_allclose(standard.var(axis=0), 1, atol=5 * (2 / 4000) ** 0.5)
    assert stats.kstest(standard.ravel(), "norm").pvalue > 1e-3
    assert np.abs(np.corrcoef(standard.T) - np.eye(6)).max() < 5 / 4000**0.5


def test_draws_of_coins_are_coins():
    """Zeros and ones, as often as the means at the same codes say."""
    model = vqvae(likelihood="bernoulli").fit(rows_for("bernoulli"))
    drawn, means = (model.sample(4000, noise=noise, random_state=1) for noise in (True, False))
    assert set(np.unique(drawn)) <= {0, 1}
    errors = np.sqrt((means * (1 - means)).sum(axis=0)) + 1
    assert np.all(np.abs((drawn - means).sum(axis=0)) < 5 * errors)


def test_without_a_prior_there_are_no_draws():
    """sample and sample_latent say which prior to take; everything else works."""
    X = clustered_rows()
    model = vqvae(prior=None).fit(X)
    for draw in (model.sample, model.sample_latent):
        with pytest.raises(ValueError, match=r"prior=None.*autoregressive"):
            draw(3)
    assert np.isfinite(model.score(X))
    assert model.reconstruct(X).shape == X.shape
    assert not hasattr(model, "prior_net_")
    with pytest.raises(AttributeError):
        _ = model.prior_history_


def test_draws_of_codes_refuse_impossible_numbers():
    model = vqvae().fit(clustered_rows())
    for n in (0, -1, 2.5):
        with pytest.raises(ValueError, match="n_samples"):
            model.sample_latent(n)


# ---------------------------------------------------------------------------- codes


@pytest.mark.parametrize("n_quantizers", [1, 2, 3])
@every_quantizer
def test_codes_are_the_nearest_of_what_is_left(kind, n_quantizers):
    """At each position, stage after stage, of all vectors; columns go position by position."""
    X = clustered_rows()
    params = {"n_codes": 7, **QUANTIZERS[kind]}
    model = vqvae(n_quantizers=n_quantizers, prior=None, **params).fit(X)
    codes = model.transform(X)
    assert codes.dtype == np.int64
    assert codes.shape == (len(X), 3 * n_quantizers)
    left = encodings_of(model, X)
    codebooks = stages_of(model)
    for q in range(n_quantizers):
        k = codes[:, q::n_quantizers]
        squares = np.square(left[:, :, None] - codebooks[q]).sum(axis=-1)
        chosen = np.take_along_axis(squares, k[:, :, None], axis=2)[:, :, 0]
        np.testing.assert_allclose(chosen, squares.min(axis=2), rtol=1e-3, atol=1e-5)
        assert np.mean(k == squares.argmin(axis=2)) > 0.99
        left = left - codebooks[q][k]


@pytest.mark.parametrize("n_quantizers", [1, 2])
@every_quantizer
def test_reconstructions_decode_the_nearest_codes(kind, n_quantizers):
    """The mean at these codes, in the data's units; the same rows by inverse_transform."""
    X = clustered_rows()
    model = vqvae(n_quantizers=n_quantizers, prior=None, **QUANTIZERS[kind]).fit(X)
    codes = model.transform(X)
    expected = means_of(model, codes, X)
    np.testing.assert_allclose(model.reconstruct(X), expected, rtol=1e-4, atol=1e-2)
    np.testing.assert_allclose(model.inverse_transform(codes), expected, rtol=1e-4, atol=1e-2)


@pytest.mark.parametrize("n_quantizers", [1, 2])
@every_quantizer
def test_embeddings_are_the_codes_vectors(kind, n_quantizers):
    """Of every position, summed over the stages, float32."""
    X = clustered_rows()
    model = vqvae(n_quantizers=n_quantizers, prior=None, **QUANTIZERS[kind]).fit(X)
    vectors = model.transform(X, output="embedding")
    assert vectors.dtype == np.float32
    assert vectors.shape == (len(X), 6)
    np.testing.assert_allclose(vectors, embedded(model, model.transform(X)), rtol=1e-5, atol=1e-6)
    with pytest.raises(ValueError, match=r"output.*nonsense"):
        model.transform(X, output="nonsense")


@pytest.mark.parametrize("output", ["indices", "embedding"])
@pytest.mark.parametrize("library", ["pandas", "polars"])
def test_frames_of_codes(output, library):
    """The same numbers and types, under names of their own, with the input's index."""
    X = clustered_rows()
    names = [f"column {i}" for i in range(6)]
    index = pd.Index([f"row {i}" for i in range(len(X))])
    X_in = pd.DataFrame(X, index, names) if library == "pandas" else pl.DataFrame(X, names)
    model = vqvae(prior=None).fit(X_in)
    plain = model.transform(X_in, output=output)
    assert isinstance(plain, np.ndarray)
    frame = model.set_output(transform=library).transform(X_in, output=output)
    assert type(frame) is type(X_in)
    np.testing.assert_array_equal(frame.to_numpy(), plain)
    assert {str(t).lower() for t in frame.dtypes} == {str(plain.dtype)}
    columns = list(frame.columns)
    assert len(set(columns)) == plain.shape[1]
    if library == "pandas":
        assert frame.index.equals(index)
    if output == "indices":
        assert columns == list(model.get_feature_names_out())
        back = model.inverse_transform(frame)
        assert list(back.columns) == names
        np.testing.assert_array_equal(back.to_numpy(), model.reconstruct(X_in).to_numpy())
    else:
        assert not set(columns) & set(model.get_feature_names_out())


@pytest.mark.parametrize("wrong", [-1, 5, 1.5, 1e30])
def test_indices_that_are_none_are_refused(wrong):
    """The message says the value, its column, and what is allowed."""
    X = clustered_rows()
    model = vqvae(prior=None).fit(X)
    codes = model.transform(X).astype(float)
    np.testing.assert_array_equal(model.inverse_transform(codes), model.reconstruct(X))
    codes[4, 2] = wrong
    message = rf"{re.escape(f'{wrong:g}')} .*'vqvae2'.* 0 to 4"
    with pytest.raises(ValueError, match=message):
        model.inverse_transform(codes)


@pytest.mark.parametrize("wrong", [np.nan, np.inf])
def test_indices_that_are_not_finite_are_refused(wrong):
    model = vqvae(prior=None).fit(clustered_rows())
    with pytest.raises(ValueError, match=r"NaN|infinity"):
        model.inverse_transform([[0, wrong, 0]])


# --------------------------------------------------------------------------- training


@pytest.mark.parametrize("n_quantizers", [1, 2])
@pytest.mark.parametrize(
    ("kind", "rotation"),
    [(k, r) for k in QUANTIZERS for r in (False, True) if not (r and k == "fsq")],
)
def test_every_codebook_learns(kind, rotation, n_quantizers):
    """The loss falls, and rows are explained far better than by their mean."""
    X = clustered_rows(192)
    params = {"n_codes": 8, **QUANTIZERS[kind], "rotation_trick": rotation}
    model = vqvae(n_quantizers=n_quantizers, prior=None, max_iter=10, **params).fit(X)
    losses = [epoch["train_loss"] for epoch in model.history_]
    assert losses[-1] < losses[0] - 1
    assert error_of(model, X) < 0.4 * X.var(axis=0).mean()
    names = {name for name in model.history_[0] if name.startswith("train_")}
    terms = {"train_reconstruction"}
    if kind != "fsq":
        terms |= {"train_commitment"}
    if kind in ("loss", "simvq"):
        terms |= {"train_codebook"}
    assert terms == names - {"train_loss", "train_loss_best", "train_batch_count"} or kind == "fsq"
    for epoch in model.history_:
        if kind != "fsq":
            assert epoch["train_loss"] == pytest.approx(sum(epoch[t] for t in terms), rel=1e-9)


@every_quantizer
def test_more_quantizers_explain_more(kind):
    """One, two and three codes a position, of the same sizes."""
    X = clustered_rows(160)
    errors = [
        error_of(
            vqvae(
                2, n_quantizers=n, prior=None, max_iter=10, **{"n_codes": 4, **QUANTIZERS[kind]}
            ).fit(X),
            X,
        )
        for n in (1, 2, 3)
    ]
    assert errors[2] < errors[1] < errors[0]


@pytest.mark.parametrize("gaps", [0.0, 0.2])
@pytest.mark.parametrize("kind", ["ema", "loss", "simvq"])
def test_penalties_are_squared_distances(kind, gaps):
    """Means over positions and numbers, beside squared errors, at a model that stays put."""
    X = clustered_rows(48, gaps=gaps)
    v, weight = 2000.0, np.random.default_rng(0).uniform(0.5, 2, 48)
    model = vqvae(
        noise_variance=v, batch_size=48, commitment_weight=0.7, prior=None, **QUANTIZERS[kind]
    )
    model.set_params(**still()).fit(X, sample_weight=weight)
    # The encoder's vectors, by the rows as it reads them.
    center, scale = np.nanmean(X, axis=0), None
    spread = np.array(
        [
            np.average(
                (x - np.average(x[~np.isnan(x)], weights=weight[~np.isnan(x)]))[~np.isnan(x)] ** 2,
                weights=weight[~np.isnan(x)],
            )
            for x in X.T
        ]
    )
    scale = np.sqrt(spread.mean())
    center = np.array([np.average(x[~np.isnan(x)], weights=weight[~np.isnan(x)]) for x in X.T])
    standard = np.nan_to_num((X - center) / scale)
    if gaps:
        standard = np.hstack([standard, ~np.isnan(X)])
    with torch.no_grad():
        z = model.net_.module_.encoder(torch.from_numpy(standard).float()).numpy()
    e = embedded(model, model.transform(X))
    distance = np.average(np.square(z - e).mean(axis=1), weights=weight)
    # Half a squared error of all features over the noise, where a feature's variance is one.
    expected = 0.5 * 6 * distance / (v / scale**2)
    epoch = model.history_[0]
    assert epoch["train_commitment"] == pytest.approx(0.7 * expected, rel=1e-3)
    if kind != "ema":
        assert epoch["train_codebook"] == pytest.approx(expected, rel=1e-3)
    log_px = stats.norm.logpdf(X, model.reconstruct(X), np.sqrt(v))
    expected = -np.average(np.nansum(log_px, axis=1), weights=weight)
    assert epoch["train_reconstruction"] == pytest.approx(expected, rel=1e-4)


def test_commitment_draws_encodings_to_codes():
    """With a large weight encodings lie nearer to their codes, relative to their spread."""
    X = clustered_rows(160)
    ratios = []
    for weight in (0.0, 10.0):
        model = vqvae(prior=None, commitment_weight=weight, max_iter=8).fit(X)
        z = encodings_of(model, X).reshape(len(X), -1)
        e = embedded(model, model.transform(X))
        ratios.append(np.square(z - e).sum() / z.var(axis=0).sum() / len(X))
    assert ratios[1] < 0.8 * ratios[0]


@pytest.mark.parametrize(
    ("kind", "rotation"),
    [(k, r) for k in QUANTIZERS for r in (False, True) if not (r and k == "fsq")],
)
def test_squared_errors_alone_train_the_encoder(kind, rotation):
    """Gradients pass the rounding, though nothing draws encodings to their codes."""
    X = clustered_rows()
    params = {"prior": None, "commitment_weight": 0.0, "rotation_trick": rotation}
    model = vqvae(max_iter=1, **params, **QUANTIZERS[kind]).fit(X)
    begun = vqvae(**params, **QUANTIZERS[kind]).set_params(**still()).fit(X)
    for name in ("encoder.0.weight", "encoder.2.weight", "encoder.2.bias"):
        moved = state(model)[f"net_: {name}"] - state(begun)[f"net_: {name}"]
        assert np.abs(moved).max() > 1e-3


@pytest.mark.parametrize("decay", [0.0, 0.6])
def test_running_means_are_those_of_a_loop(decay):
    """N <- γN + (1 - γ)n and m <- γm + (1 - γ)Σz over two epochs of three batches."""
    X = clustered_rows(96)
    batches = []

    class Recorder(Callback):
        def on_train_begin(self, net, **kwargs):
            quantizer = net.module_.quantizer
            self.counts = quantizer.counts.double().numpy()[0].copy()
            self.sums = quantizer.sums.double().numpy()[0].copy()
            hear_batches(net, lambda batch, training: batches.append(batch.x))

    recorder = Recorder()
    options = still(max_iter=2, decay=decay)
    model = vqvae(1, callbacks=[recorder], prior=None, **options).fit(X)
    counts, sums = recorder.counts, recorder.sums
    assert counts.sum() == pytest.approx(32)  # the weight of a batch
    codebook = sums / counts[:, None]
    encoder = copy.deepcopy(model.net_.module_.encoder).double()
    for x in batches:
        with torch.no_grad():
            z = encoder(x.double()).numpy()
        k = np.square(z[:, None] - codebook).sum(axis=2).argmin(axis=1)
        for code in range(5):
            n, total = np.sum(k == code), z[k == code].sum(axis=0)
            counts[code] = decay * counts[code] + (1 - decay) * n
            sums[code] = decay * sums[code] + (1 - decay) * total
            if counts[code] > 1e-12:
                codebook[code] = sums[code] / counts[code]
    assert len(batches) == 6
    np.testing.assert_allclose(model.codebook_, codebook, rtol=1e-3, atol=1e-4)


# -------------------------------------------------------------- parameters that do not fit


@pytest.mark.parametrize(
    ("params", "message"),
    [
        ({"levels": (3, 4), "n_codes": 16}, r"n_codes=16, but levels=\(3, 4\).*give 12 codes"),
        ({"levels": (2, 4), "n_codes": 8, "code_dim": 3}, r"code_dim=3.*2 levels.*code_dim=2"),
        ({"levels": (2, 4), "n_codes": 8, "rotation_trick": True}, r"rotation_trick=True.*'fsq'"),
        ({"levels": (1, 8), "n_codes": 8}, r"levels=\(1, 8\).*at least 2"),
        ({"levels": (2.5, 2), "n_codes": 5}, r"levels=\(2.5, 2\).*integers"),
        ({"levels": (), "n_codes": 1}, r"levels=\(\).*integers"),
        ({"levels": [[2, 4]], "n_codes": 8}, r"levels=.*integers"),
        ({"levels": 8, "n_codes": 8}, "levels"),
        ({"levels": "24", "n_codes": 8}, "levels"),
    ],
    ids=["product", "code_dim", "rotation", "one cell", "fraction", "none", "nested", "int", "str"],
)
def test_levels_that_do_not_fit(params, message):
    """The message names the parameters, what was given, and what goes together."""
    with pytest.raises(ValueError, match=message):
        vqvae(quantizer="fsq", **{"code_dim": None, **params}).fit(clustered_rows())


@pytest.mark.parametrize("levels", [(2, 4), [4, 2], np.array([8]), (2, 2, 2)], ids=str)
def test_levels_make_a_grid_of_codes(levels):
    """All combinations of the cells' centres; the decoder reads as many numbers."""
    model = vqvae(quantizer="fsq", levels=levels, n_codes=8, code_dim=None, prior=None)
    model.fit(clustered_rows())
    axes = [(np.arange(n) + 0.5) * 2 / n - 1 for n in levels]
    expected = {tuple(np.round(code, 5)) for code in itertools.product(*axes)}
    assert {tuple(np.round(code.astype(float), 5)) for code in model.codebook_} == expected
    assert model.net_.module_.decoder[0].in_features == 3 * len(levels)


def test_defaults_of_finite_scalar_quantisation_fit():
    """Three times eight levels are 512 codes."""
    model = VQVAE(2, quantizer="fsq", max_iter=1, prior=None, device="cpu", random_state=0)
    assert model.fit(clustered_rows()).codebook_.shape == (512, 3)


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("n_codes", 0),
        ("n_codes", 2**24 + 1),
        ("code_dim", 0),
        ("quantizer", "nearest"),
        ("n_quantizers", 0),
        ("codebook_update", "sgd"),
        ("codebook_init", "zeros"),
        ("decay", 1.0),
        ("commitment_weight", -0.1),
        ("dead_code_threshold", -0.1),
        ("prior", "pixelcnn"),
        ("prior_channels", 0),
        ("prior_max_iter", 0),
        ("solver", "lbfgs"),
        ("n_components", None),
    ],
)
def test_parameters_out_of_range(name, value):
    with pytest.raises(ValueError, match=name):
        vqvae(**{name: value}).fit(clustered_rows())


# ------------------------------------------------------------------------------ images


def images(n_rows, shape, seed=0):
    """Blobs at random places."""
    rng = np.random.default_rng(seed)
    channels, height, width = shape
    rows, columns = np.mgrid[:height, :width]
    where = rng.uniform(0, 1, (n_rows, channels, 2)) * [height, width]
    squares = (rows - where[..., :1, None]) ** 2 + (columns - where[..., 1:, None]) ** 2
    return np.exp(-squares / 4).reshape(n_rows, -1) + 0.05 * rng.normal(
        size=(n_rows, channels * height * width)
    )


def convolutional(n_components=None, *, shape=(1, 8, 8), **params):
    defaults = {"network": "conv", "image_shape": shape, "hidden_layer_sizes": (4,)}
    return vqvae(n_components, **{**defaults, "prior": None, "max_iter": 2, **params})


@pytest.mark.parametrize(
    ("shape", "layers", "grid"),
    [
        ((1, 8, 8), (4,), (4, 4)),
        ((1, 8, 8), (4, 5), (2, 2)),
        ((2, 5, 7), (3,), (3, 4)),
        ((3, 9, 4), (3, 4), (3, 1)),
        ((1, 5, 13), (3, 4, 5), (1, 2)),
    ],
    ids=str,
)
@pytest.mark.parametrize("gaps", [0.0, 0.2])
def test_positions_of_images_are_the_halved_grid(shape, layers, grid, gaps):
    """None takes it; the number that an error tells works; NaN is read as more channels."""
    X = images(40, shape)
    X[np.random.default_rng(0).random(X.shape) < gaps] = np.nan
    n = grid[0] * grid[1]
    model = convolutional(shape=shape, hidden_layer_sizes=layers).fit(X)
    assert model.n_components_ == n
    assert model.transform(X).shape == (40, n)
    assert model.transform(X, output="embedding").shape == (40, 2 * n)
    assert model.reconstruct(X).shape == X.shape
    assert np.isfinite(model.score(X))
    convolutions = [m for m in model.net_.module_.encoder if isinstance(m, nn.Conv2d)]
    assert convolutions[0].in_channels == shape[0] * (2 if gaps else 1)
    with pytest.raises(ValueError, match=rf"n_components={n + 1}.*{grid[0]} x {grid[1]}") as error:
        convolutional(n + 1, shape=shape, hidden_layer_sizes=layers).fit(X)
    told = int(re.search(r"Set n_components=(\d+)", str(error.value))[1])
    again = convolutional(told, shape=shape, hidden_layer_sizes=layers).fit(X)
    np.testing.assert_array_equal(again.transform(X), model.transform(X))


@pytest.mark.parametrize("pooling", ["stride", "max", "average", "min"])
def test_positions_of_images_are_in_raster_order(pooling):
    """A pixel changes the codes around it alone, and a code the pixels around it."""
    X = images(60, (1, 8, 8))
    model = convolutional(pooling=pooling, n_codes=16).fit(X)
    codes = model.transform(X).reshape(-1, 4, 4)
    # A 3x3 filter at every second pixel, or at every pixel and then 2x2 of these.
    after = 1 if pooling == "stride" else 2
    for row, column in [(0, 0), (0, 7), (5, 2), (6, 7)]:
        changed = X.reshape(-1, 8, 8).copy()
        changed[:, row, column] += 5.0
        different = np.any(model.transform(changed.reshape(-1, 64)).reshape(-1, 4, 4) != codes, 0)
        reads = [
            [
                2 * i - 1 <= row <= 2 * i + after and 2 * j - 1 <= column <= 2 * j + after
                for j in range(4)
            ]
            for i in range(4)
        ]
        assert different.any()
        assert not np.any(different & ~np.array(reads))
    before = model.inverse_transform(codes.reshape(-1, 16))
    for i, j in [(0, 0), (0, 3), (2, 1), (3, 3)]:
        other = codes.copy()
        other[:, i, j] = (other[:, i, j] + 1) % 16
        moved = np.abs(model.inverse_transform(other.reshape(-1, 16)) - before).max(axis=0)
        rows, columns = np.nonzero(moved.reshape(8, 8) > 1e-6)
        assert len(rows)
        # Twice as large, and then a 3x3 filter.
        assert 2 * i - 1 <= rows.min() <= rows.max() <= 2 * i + 2
        assert 2 * j - 1 <= columns.min() <= columns.max() <= 2 * j + 2


def test_images_are_learned():
    """Convolutions with a code for each of four positions beat the mean image."""
    X = images(200, (1, 8, 8))
    model = convolutional(
        hidden_layer_sizes=(8, 16), n_codes=16, code_dim=4, max_iter=15, n_quantizers=2
    ).fit(X)
    assert error_of(model, X) < 0.6 * X.var(axis=0).mean()


def test_a_grid_of_other_networks_is_not_known():
    """None is for built-in convolutions, of which one is enough."""
    X = images(20, (1, 8, 8))
    with pytest.raises(ValueError, match=r"n_components=None.*conv"):
        vqvae(None).fit(clustered_rows())
    with torch.random.fork_rng([]):
        torch.manual_seed(0)
        encoder = nn.Sequential(nn.Flatten(), nn.Linear(64, 32))
        decoder = nn.Sequential(nn.Linear(32, 64), nn.Unflatten(1, (1, 8, 8)))
    with pytest.raises(ValueError, match=r"n_components=None.*conv"):
        convolutional(encoder=encoder, decoder=decoder).fit(X)
    for own in ({"encoder": encoder}, {"decoder": decoder}):
        assert convolutional(**own).fit(X).n_components_ == 16
        with pytest.raises(ValueError, match=r"n_components=15.*n_components=16"):
            convolutional(15, **own).fit(X)


# ------------------------------------------------------------------ networks of one's own


def own_networks(dropout=0.0):
    with torch.random.fork_rng([]):
        torch.manual_seed(0)
        encoder = nn.Sequential(nn.Linear(6, 8), nn.Tanh(), nn.Dropout(dropout), nn.Linear(8, 6))
        return encoder, nn.Linear(6, 6)


def test_networks_of_ones_own():
    """The encoder's numbers are taken position by position, of rows as they are."""
    X = (clustered_rows() - 500) / 100
    encoder, decoder = own_networks()
    kept = [copy.deepcopy(n.state_dict()) for n in (encoder, decoder)]
    model = vqvae(encoder=encoder, decoder=decoder).fit(X)
    for given, before in zip((encoder, decoder), kept, strict=True):
        assert all(torch.equal(given.state_dict()[name], before[name]) for name in before)
    with torch.no_grad():
        z = model.net_.module_.encoder(torch.from_numpy(X).float()).numpy()
    squares = np.square(z.reshape(len(X), 3, 1, 2) - model.codebook_).sum(axis=-1)
    codes = model.transform(X)
    assert np.mean(codes == squares.argmin(axis=-1)) > 0.99
    np.testing.assert_allclose(model.reconstruct(X), decoded(model, codes), rtol=1e-4, atol=1e-4)
    assert model.sample(3).shape == (3, 6)


@pytest.mark.parametrize("which", ["encoder", "decoder"])
def test_networks_of_ones_own_must_fit(which):
    """n_components * code_dim numbers go between them; the message shows both shapes."""
    wrong = {"encoder": nn.Linear(6, 3), "decoder": nn.Linear(3, 6)}[which]
    expected = {"encoder": r"\(2, 3\); expected \(2, 6\)", "decoder": r"shape \(2, 6\)"}[which]
    with pytest.raises(ValueError, match=rf"{which}.*{expected}"):
        vqvae(**{which: wrong}).fit(clustered_rows())


def test_networks_of_ones_own_read_images():
    """With image_shape they see (n, channels, height, width); one network may be built in."""
    X = images(40, (2, 4, 4))
    with torch.random.fork_rng([]):
        torch.manual_seed(0)
        encoder = nn.Sequential(nn.Conv2d(2, 2, 2, stride=2), nn.Flatten())
        decoder = nn.Sequential(nn.Unflatten(1, (2, 2, 2)), nn.ConvTranspose2d(2, 2, 2, stride=2))
    params = {"image_shape": (2, 4, 4), "prior": None, "max_iter": 2}
    for own in ({"encoder": encoder, "decoder": decoder}, {"encoder": encoder}):
        model = vqvae(4, **own, **params).fit(X)
        assert model.transform(X).shape == (40, 4)
        assert model.reconstruct(X).shape == X.shape


@every_quantizer
def test_torchs_global_generator_is_left_alone(kind):
    """It is neither advanced nor read, though your encoder drops units."""
    X = (clustered_rows() - 500) / 100
    encoder, decoder = own_networks(dropout=0.5)
    found = []
    for seed in (1, 2):
        with torch.random.fork_rng([]):
            torch.manual_seed(seed)
            before = torch.get_rng_state()
            model = vqvae(encoder=encoder, decoder=decoder, max_iter=2, **QUANTIZERS[kind])
            model.fit(X).partial_fit(X)
            model.sample(3, random_state=0)
            model.transform(X)
            assert torch.equal(torch.get_rng_state(), before)
        found.append(state(model))
    assert_same(found[1], found[0])


# ------------------------------------------------------------------ where codebooks start


@pytest.mark.parametrize("update", ["ema", "loss"])
@pytest.mark.parametrize("n_quantizers", [1, 2])
@pytest.mark.parametrize("seed", [0, 1])
def test_codebooks_start_at_the_means_of_clusters(update, n_quantizers, seed):
    """As good as scikit-learn's best of ten, of the encodings and of what they leave."""
    X = clustered_rows(150, seed=seed)
    model = vqvae(
        1, n_codes=10, n_quantizers=n_quantizers, prior=None, codebook_update=update, **still()
    ).fit(X)
    left = encodings_of(model, X)[:, 0]
    # What is left has no clusters, and so many optima that are nearly alike.
    for codebook, at_most in zip(stages_of(model), (1.01, 1.05), strict=False):
        squares = np.square(left[:, None] - codebook).sum(axis=2)
        best = KMeans(10, n_init=10, random_state=0).fit(left)
        assert squares.min(axis=1).sum() < at_most * best.inertia_
        left = left - codebook[squares.argmin(axis=1)]


def test_random_codebooks_do_not_look_at_rows():
    """They are the same for other rows, within ±1/K."""
    options = {"codebook_init": "random", "prior": None, "codebook_update": "loss", **still()}
    first, other = (vqvae(**options).fit(clustered_rows(seed=s)).codebook_ for s in (0, 1))
    np.testing.assert_allclose(first, other, atol=1e-6)
    assert np.abs(first).max() <= 1 / 5 + 1e-6
    assert len(np.unique(first)) == first.size


@pytest.mark.parametrize("weighted", [False, True])
def test_linear_codebooks_start_at_the_second_moments(weighted):
    """A codebook of standard normals times W has those of the encodings: W'W = E[zz']."""
    X = clustered_rows(150)
    weight = np.random.default_rng(0).uniform(0.1, 3, 150) if weighted else None
    model = vqvae(1, n_codes=16, quantizer="simvq", prior=None, **still()).fit(
        X, sample_weight=weight
    )
    w = np.ones(150) if weight is None else weight
    center = np.average(X, axis=0, weights=w)
    scale = np.sqrt(np.average(np.square(X - center), axis=0, weights=w).mean())
    with torch.no_grad():
        x = torch.from_numpy((X - center) / scale).float()
        z = model.net_.module_.encoder(x).double().numpy()
        (W,) = model.net_.module_.quantizer.maps.double().numpy()
    moments = (z.T * w) @ z / w.sum()
    np.testing.assert_allclose(W.T @ W, moments, rtol=1e-3, atol=1e-3 * moments.max())


@few_encodings
@pytest.mark.parametrize("n_rows", [2, 6, 15])
@pytest.mark.parametrize("kind", ["ema", "loss", "simvq"])
def test_fewer_rows_than_codes(kind, n_rows):
    """Every row finds codes near it, none is like another, and training goes well."""
    X = clustered_rows(n_rows)
    model = vqvae(1, prior=None, n_codes=16, **QUANTIZERS[kind], **still()).fit(X)
    assert np.all(np.isfinite(model.codebook_))
    assert len(np.unique(model.codebook_, axis=0)) == 16
    if kind != "simvq":
        z = encodings_of(model, X)[:, 0]
        distances = np.sqrt(np.square(z - embedded(model, model.transform(X))).sum(axis=1))
        assert distances.max() < 0.5 * z.std()
    trained = vqvae(1, n_codes=16, max_iter=10, **QUANTIZERS[kind]).fit(X)
    assert np.isfinite(trained.score(X))


@pytest.mark.parametrize("n_rows", [2049, 4097])
def test_batch_normalisation_of_many_rows(n_rows):
    """However many rows the codebook starts from, none is normalised alone."""
    X = clustered_rows(n_rows)
    model = vqvae(1, n_codes=512, normalization="batch", max_iter=1, prior=None)
    assert np.isfinite(model.fit(X).score(X))


@pytest.mark.parametrize("method", ["fit", "partial_fit"])
def test_batch_normalisation_needs_two_rows(method):
    """With one row to train on the message says so."""
    model = vqvae(normalization="batch", early_stopping=True, validation_fraction=0.5)
    with pytest.raises(ValueError, match=r"normalization='batch' needs at least two rows"):
        getattr(model, method)(clustered_rows(2 if method == "fit" else 1))


# ------------------------------------------------------------------------- dead codes


def crowd(**params):
    """Many codes for one position, that start in a corner."""
    options = {
        "n_codes": 64,
        "codebook_init": "random",
        "codebook_update": "loss",
        "dead_code_threshold": 0,
        "learning_rate_init": 1e-3,
        "max_iter": 3,
        "prior": None,
    }
    return vqvae(1, **{**options, **params})


@pytest.mark.parametrize("n_quantizers", [1, 2])
def test_codebooks_collapse_where_dead_codes_stay_dead(n_quantizers):
    """The warning says how many are used, and names what helps."""
    X = clustered_rows(640)
    with pytest.warns(UserWarning, match=r"Codebook collapse: (\d+) of n_codes=64.*dead_code") as w:
        dead = crowd(n_quantizers=n_quantizers).fit(X)
    n_used = np.sum(dead.code_usage_ > 0, axis=-1)
    assert np.min(n_used) < 6.4
    assert f" {np.min(n_used)} of " in str(w[0].message)
    # Of too few rows nothing is said: they cannot use all codes often.
    crowd(n_quantizers=n_quantizers).fit(X[:300])


def test_codebooks_do_not_collapse_otherwise():
    """Codes that begin anew, or a start by k-means, let many be used; nothing is said."""
    X = clustered_rows(640)
    restarted = crowd(dead_code_threshold=0.1, decay=0.9).fit(X)
    started = crowd(codebook_init="kmeans").fit(X)
    default = crowd(codebook_init="kmeans", codebook_update="ema", dead_code_threshold=0.1).fit(X)
    for alive in (restarted, started, default):
        assert np.sum(alive.code_usage_ > 0) > 4 * 6
        assert alive.perplexity(X) > 4 * 4


@pytest.mark.parametrize("update", ["ema", "loss"])
def test_dead_codes_begin_anew_at_encodings(update):
    """Those far from all rows come back among them, at rows of the batch; live ones stay."""
    X = clustered_rows(65)
    options = still(max_iter=1, dead_code_threshold=0.5, batch_size=65, decay=0.4)
    model = vqvae(1, n_codes=64, codebook_init="random", prior=None, codebook_update=update)
    model.set_params(**options).fit(X)
    z = encodings_of(model, X)[:, 0]
    codebook = stages_of(model)[0]
    near = np.sqrt(np.square(codebook[:, None] - z).sum(axis=2)).min(axis=1)
    # Alike would be one row a code: what had none has 0.4 < 0.5 left.
    assert np.mean(near < 1e-4) > 0.7


# ------------------------------------------------------------------------------- usage


@pytest.mark.parametrize("weighted", [False, True])
@pytest.mark.parametrize("n_quantizers", [1, 2])
def test_usage_is_the_frequency_of_codes(n_quantizers, weighted):
    """In training rows, by weight, over all positions, for each quantizer."""
    X = clustered_rows()
    weight = np.random.default_rng(0).integers(1, 5, len(X)) if weighted else None
    model = vqvae(n_quantizers=n_quantizers, prior=None)
    codes = model.fit_transform(X, sample_weight=weight)
    np.testing.assert_array_equal(codes, model.transform(X))
    repeated = codes if weight is None else np.repeat(codes, weight, axis=0)
    expected = np.array(
        [
            [np.mean(repeated[:, q::n_quantizers] == k) for k in range(5)]
            for q in range(n_quantizers)
        ]
    )
    expected = expected[0] if n_quantizers == 1 else expected
    assert model.code_usage_.shape == expected.shape
    np.testing.assert_allclose(model.code_usage_, expected, rtol=1e-5, atol=1e-9)
    np.testing.assert_allclose(model.code_usage_.sum(axis=-1), 1, rtol=1e-6)


@pytest.mark.parametrize("n_quantizers", [1, 2])
def test_perplexity_is_the_exponential_of_the_entropy(n_quantizers):
    """Of the codes of the given rows, a float for one quantizer, else one for each."""
    X = clustered_rows()
    model = vqvae(n_quantizers=n_quantizers, prior=None).fit(X)
    found = model.perplexity(X[:50])
    codes = model.transform(X[:50])
    expected = [
        np.exp(stats.entropy([np.mean(codes[:, q::n_quantizers] == k) for k in range(5)]))
        for q in range(n_quantizers)
    ]
    np.testing.assert_allclose(found, expected[0] if n_quantizers == 1 else expected, rtol=1e-9)
    assert np.shape(found) == (() if n_quantizers == 1 else (2,))


@pytest.mark.parametrize("kind", QUANTIZERS)
def test_weights_have_no_scale(kind):
    """Weights times four make the same model."""
    X = clustered_rows()
    weight = np.random.default_rng(0).uniform(0.5, 2, len(X))
    params = {"n_quantizers": 2, "dead_code_threshold": 0.5, **QUANTIZERS[kind]}
    one, four = (vqvae(max_iter=2, **params).fit(X, sample_weight=w) for w in (weight, 4 * weight))
    np.testing.assert_allclose(one.codebook_, four.codebook_, rtol=1e-4, atol=1e-5)
    np.testing.assert_allclose(one.code_usage_, four.code_usage_, rtol=1e-5, atol=1e-8)
    np.testing.assert_allclose(one.score_samples(X), four.score_samples(X), rtol=1e-3)


# ---------------------------------------------------------------------- going on training


class Watcher(Callback):
    """The state after every epoch, and how many epochs were heard of."""

    def on_train_begin(self, net, **kwargs):
        self.states = []

    def on_epoch_end(self, net, **kwargs):
        self.states.append(copy.deepcopy(net.module_.state_dict()))


@pytest.mark.parametrize("kind", ["ema", "simvq"])
def test_early_stopping_goes_back_to_the_best_epoch(kind):
    """Codebooks and their counts too."""
    watcher = Watcher()
    model = vqvae(
        early_stopping=True,
        learning_rate_init=0.05,
        max_iter=12,
        n_iter_no_change=3,
        validation_fraction=0.3,
        callbacks=[watcher],
        prior=None,
        **QUANTIZERS[kind],
    ).fit(clustered_rows(60))
    losses = [epoch["valid_loss"] for epoch in model.history_]
    best = watcher.states[int(np.argmin(losses))]
    for name, value in model.net_.module_.state_dict().items():
        if name != "likelihood.variance":  # which is learned from all rows at the end
            assert torch.equal(value, best[name]), name


@pytest.mark.parametrize("weighted", [False, True])
def test_streams_keep_a_running_mean_of_the_usage(weighted):
    """Every call counts 0.9 times the one after it per row; the prior has an epoch in each."""
    rng = np.random.default_rng(0)
    parts = [clustered_rows(n, seed=n) for n in (64, 96, 40)]
    model = vqvae(n_quantizers=2)
    seen, total = 0.0, np.zeros((2, 5))
    for call, X in enumerate(parts):
        weight = rng.uniform(0.5, 2, len(X)) if weighted else np.ones(len(X))
        model.partial_fit(X, sample_weight=weight if weighted else None)
        codes = model.transform(X)
        now = [
            [np.average(np.mean(codes[:, q::2] == k, axis=1), weights=weight) for k in range(5)]
            for q in range(2)
        ]
        seen = 0.9 * seen + weight.sum()
        total = 0.9 * total + weight.sum() * np.array(now)
        np.testing.assert_allclose(model.code_usage_, total / seen, rtol=1e-4, atol=1e-6)
        assert len(model.prior_history_) == call + 1
        assert len(model.history_) == call + 1
    assert np.isfinite(model.score(parts[0]))


def test_streams_learn():
    """Rows that come again and again are explained ever better, and so are their codes."""
    X = clustered_rows(256)
    model = vqvae()
    scores, chances = [], []
    for _ in range(10):
        model.partial_fit(X)
        scores.append(error_of(model, X))
        chances.append(model.prior_history_[-1]["train_loss"])
    assert scores[-1] < 0.7 * scores[0]
    assert model.code_usage_.sum() == pytest.approx(1, rel=1e-5)
    assert chances[-1] < chances[0]


@pytest.mark.parametrize("n_quantizers", [1, 2])
def test_an_independent_prior_follows_a_stream(n_quantizers):
    """After many calls with new rows, p(k) has forgotten the old ones."""
    model = vqvae(
        2, n_codes=4, prior="independent", n_quantizers=n_quantizers, dead_code_threshold=0
    )
    model.partial_fit(clustered_rows(32))
    X = clustered_rows(100)[:1].repeat(32, axis=0)
    for _ in range(30):
        model.partial_fit(X)
    codes = model.transform(X[:1])
    assert log_priors(model)[place_of(codes, 4)[0]] > np.log(0.5)


def test_warm_starts_go_on():
    """Histories grow, and codebooks are not started anew at the new rows."""
    X, other = clustered_rows(), clustered_rows(seed=7) + 300
    model = vqvae(warm_start=True, prior_max_iter=3, prior_learning_rate_init=1e-12, **still()).fit(
        X
    )
    codebook = model.codebook_
    bias = state(model)["prior_net_: sequence.bias"]
    fresh = vqvae(**still()).fit(other).codebook_
    model.fit(other)
    np.testing.assert_allclose(state(model)["prior_net_: sequence.bias"], bias, atol=1e-5)
    np.testing.assert_allclose(model.codebook_, codebook, rtol=1e-3, atol=1e-4)
    assert np.abs(codebook - fresh).max() > 1e-2
    assert len(model.history_) == 2
    assert len(model.prior_history_) == 6
    codes = model.transform(other)
    np.testing.assert_allclose(
        model.code_usage_, np.bincount(codes.ravel(), minlength=5) / codes.size, rtol=1e-5
    )


def test_counts_go_on_in_a_warm_start():
    """Of the network; running counts go on where they were."""
    X = clustered_rows()
    for kind in QUANTIZERS.values():
        halves = vqvae(warm_start=True, prior=None, max_iter=2, **kind).fit(X).fit(X)
        whole = vqvae(prior=None, max_iter=4, **kind).fit(X)
        # At the end of a fit the noise is learned anew from all rows: all but that agrees.
        name = "quantizer.counts"
        if kind.get("codebook_update") == "ema":
            found, expected = (m.net_.module_.state_dict()[name] for m in (halves, whole))
            assert float(found.sum()) == pytest.approx(float(expected.sum()), rel=1e-4)
        assert halves.n_iter_ == whole.n_iter_ == 4


@pytest.mark.parametrize("method", ["fit", "partial_fit"])
@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("n_components", 2),
        ("n_codes", 6),
        ("code_dim", 3),
        ("quantizer", "simvq"),
        ("n_quantizers", 2),
        ("codebook_update", "loss"),
        ("codebook_init", "random"),
        ("rotation_trick", True),
        ("prior", "independent"),
        ("prior", None),
        ("prior_channels", 9),
    ],
)
def test_some_parameters_cannot_change_while_training_goes_on(method, name, value):
    """The message says what it was; the model is as before."""
    X = clustered_rows(40)
    model = vqvae(warm_start=True, max_iter=1).fit(X)
    before = state(model)
    model.set_params(**{name: value})
    with pytest.raises(ValueError, match="cannot change"):
        getattr(model, method)(X)
    assert_same(state(model), before)


def test_some_parameters_change_while_training_goes_on():
    """A decay of nearly one stops running means; a new commitment weight is paid."""
    X = clustered_rows()
    model = vqvae(warm_start=True, max_iter=2, prior=None).fit(X)
    codebook = model.codebook_
    model.set_params(**still(commitment_weight=0.5, max_iter=2)).fit(X)
    np.testing.assert_allclose(model.codebook_, codebook, rtol=1e-4, atol=1e-5)
    paid = model.history_[-2]["train_commitment"]
    model.set_params(commitment_weight=1.0).partial_fit(X)
    assert model.history_[-1]["train_commitment"] == pytest.approx(2 * paid, rel=0.1)


# ---------------------------------------------------------------------------- the prior


def test_a_network_knows_positions_that_depend_on_each_other():
    """Of new rows it knows codes better than frequencies do, and draws them together."""
    X, test = clustered_rows(300), clustered_rows(200, seed=1)
    options = {"n_codes": 6, "max_iter": 6, "prior_max_iter": 15, "prior_channels": 16}
    models = [vqvae(prior=prior, **options).fit(X) for prior in ("autoregressive", "independent")]
    codes = [model.transform(test) for model in models]
    np.testing.assert_array_equal(*codes)  # the prior is learned afterwards
    gain = models[0].score(test) - models[1].score(test)
    assert gain > 0.3
    # The gain is that of log p(k).
    at = place_of(codes[0], 6)
    direct = [log_priors(model)[at].mean() for model in models]
    assert gain == pytest.approx(direct[0] - direct[1], abs=1e-3)
    # Pairs of codes that no row has are rare among draws.
    pairs = {tuple(k[:2]) for k in models[0].transform(X)}
    missed = [
        np.mean([tuple(k[:2]) not in pairs for k in model.sample_latent(1000, random_state=0)])
        for model in models
    ]
    assert missed[0] < 0.5 * missed[1]


@pytest.mark.parametrize("early_stopping", [False, True])
def test_the_prior_goes_back_to_its_best_epoch(early_stopping):
    """The loss of the rows that are held out, by hand, is the least in the history."""
    X = clustered_rows(100)
    model = vqvae(
        early_stopping=early_stopping,
        validation_fraction=0.25,
        prior_max_iter=30,
        n_iter_no_change=5,
        prior_channels=32,
        learning_rate_init=0.05,
    ).fit(X)
    history = model.prior_history_
    assert all({"train_loss", "valid_loss"} <= set(epoch) for epoch in history)
    valid = [epoch["valid_loss"] for epoch in history]
    # It ends when five epochs in a row were no better.
    best, flat = np.inf, 0
    for i, loss in enumerate(valid):
        best, flat = (loss, 0) if loss < best else (best, flat + 1)
        assert flat < 5 or i == len(valid) - 1
    assert len(valid) < 30
    assert flat == 5
    split = model._trainer.split(100)[1] if early_stopping else None
    train, held_out = model._prior._split(100, split)
    assert len(held_out) == 25
    assert sorted(torch.cat([train, held_out]).tolist()) == list(range(100))
    if early_stopping:
        assert torch.equal(held_out, split)
    at = place_of(model.transform(X[held_out]), 5)
    assert -log_priors(model)[at].mean() == pytest.approx(min(valid), rel=1e-4)


def test_the_prior_never_sees_the_rows_that_are_held_out():
    """Other codes in these rows change the losses of the others in no epoch."""
    X = clustered_rows(100)
    options = still(validation_fraction=0.3, prior_max_iter=4, n_iter_no_change=50)
    model = vqvae(**options).fit(X)
    _, held_out = model._prior._split(100, None)
    codes = model.transform(X)
    other = codes.copy()
    other[held_out] = (other[held_out] + 1) % 5
    losses = []
    for values in (codes, other):
        again = vqvae(**options).fit(X)
        start = np.zeros((model.n_components, 5))
        again._prior = AutoregressivePrior.new(start, **again._of_prior())
        again._train_more(Data(X), values, None, streaming=False)
        losses.append([[e["train_loss"], e["valid_loss"]] for e in again.prior_history_])
    train, valid = np.moveaxis(losses, 2, 0)  # of both codes, epoch by epoch
    np.testing.assert_array_equal(train[0], train[1])
    assert np.all(valid[0] != valid[1])


@pytest.mark.parametrize("prior_max_iter", [1, 3, None])
def test_epochs_of_the_prior(prior_max_iter):
    """At most prior_max_iter, or as many as the network has."""
    model = vqvae(prior_max_iter=prior_max_iter, n_iter_no_change=50).fit(clustered_rows())
    assert len(model.prior_history_) == (prior_max_iter or 4)
    assert len(model.history_) == 4


@pytest.mark.parametrize("prior_channels", [1, 8, 24])
def test_width_of_the_prior(prior_channels):
    """Every hidden vector of the network has it."""
    model = vqvae(prior_channels=prior_channels, n_quantizers=2).fit(clustered_rows())
    shapes = {name: tuple(p.shape) for name, p in model.prior_net_.module_.named_parameters()}
    norms = [shape for name, shape in shapes.items() if "norm" in name]
    assert norms
    assert set(norms) == {(prior_channels,)}
    assert shapes["sequence.position"] == (6, prior_channels)
    assert np.exp(special.logsumexp(log_priors(model))) == pytest.approx(1, abs=1e-4)


@every_prior
@pytest.mark.parametrize("n_rows", [2, 3, 4, 5])
def test_few_rows_are_scored(n_rows, prior):
    """Probabilities of codes that were never seen are positive, and add up to one."""
    X = clustered_rows(n_rows)
    model = vqvae(prior=prior, max_iter=2).fit(X)
    new = clustered_rows(50, seed=3)
    assert np.all(np.isfinite(model.score_samples(X)))
    assert np.all(np.isfinite(model.score_samples(new)))
    assert np.exp(special.logsumexp(log_priors(model))) == pytest.approx(1, abs=1e-5)
    if prior is not None:
        assert np.all(np.isfinite(model.sample(5, random_state=0)))


def test_the_prior_counts_weights():
    """Rows that weigh a hundred times as much have likely codes."""
    X = clustered_rows(100)
    heavy = X[:, 0] > np.median(X[:, 0])
    scores = []
    for of in (heavy, ~heavy):
        weight = np.where(of, 100.0, 1.0)
        # Where the network stays, only the prior (and the noise) differs.
        model = vqvae(1, n_codes=8, prior_max_iter=15, noise_variance=1e4, batch_size=16, **still())
        model.set_params(learning_rate_init=0.01, max_iter=6).fit(X, sample_weight=weight)
        log_p = log_priors(model)[place_of(model.transform(X), 8)]
        scores.append(log_p[of].mean() - log_p[~of].mean())
    assert min(scores) > 0.5


# ----------------------------------------------------------------------------- callbacks


def test_callbacks_hear_of_the_networks_epochs_only():
    """The prior has epochs of its own."""
    heard = []

    class Counter(Callback):
        def on_train_begin(self, net, **kwargs):
            heard.append("begin")

        def on_epoch_end(self, net, **kwargs):
            heard.append(type(net.module_).__name__)

    vqvae(callbacks=[Counter()], prior_max_iter=7).fit(clustered_rows())
    assert heard == ["begin", *["VQVAEModule"] * 4]


def test_scikit_learns_own_monitor_logs_every_epoch():
    """ScoringMonitor writes one line an epoch of the first training, that of the network."""
    model = vqvae()
    monitor = ScoringMonitor(scoring={"nats": check_scoring(model)})
    model.set_callbacks(monitor).fit(clustered_rows())
    tasks = [row["task_id_path"] for row in monitor.get_logs().data]
    assert [path for path in tasks if len(path) == 3] == [(0, 0, epoch) for epoch in range(4)]
    assert all(np.isfinite(row["nats"]) for row in monitor.get_logs().data if "nats" in row)


class Scores:
    """What scikit-learn's callbacks find when they score the model of every epoch."""

    def __init__(self):
        self.found = []

    def setup(self, estimator, context):
        pass

    def teardown(self, estimator, context):
        pass

    def on_fit_task_begin(self, estimator, context):
        pass

    def on_fit_task_end(self, estimator, context, *, X=None, fitted_estimator=None):
        if fitted_estimator is not None:
            twin = pickle.loads(pickle.dumps(fitted_estimator))
            assert twin.score(X) == fitted_estimator.score(X)
            self.found.append((fitted_estimator.score(X), fitted_estimator.n_iter_))


@every_prior
def test_models_of_every_epoch_are_scored(prior):
    """With p(k) as far as it is known by then; training is none the wiser."""
    X = clustered_rows()
    scores = Scores()
    model = vqvae(prior=prior, max_iter=3).set_callbacks(scores).fit(X)
    assert [epoch for _, epoch in scores.found[:3]] == [1, 2, 3]
    assert all(np.isfinite(score) for score, _ in scores.found)
    if prior != "autoregressive":
        assert scores.found[2][0] == pytest.approx(model.score(X), rel=1e-6)
    assert_same(state(model), state(vqvae(prior=prior, max_iter=3).fit(X)))


# --------------------------------------------------------------------------------- files


@pytest.mark.parametrize(
    "saved_and_loaded",
    [through_pickle, through_joblib, through_skops],
    ids=["pickle", "joblib", "skops"],
)
@every_quantizer
def test_models_survive_files(kind, saved_and_loaded, tmp_path):
    """Two quantizers and the prior: the same bits come out, and training goes on alike."""
    X = clustered_rows()
    model = vqvae(n_quantizers=2, max_iter=1, **QUANTIZERS[kind]).fit(X)
    loaded = saved_and_loaded(model, tmp_path / "model")

    def outputs(of):
        return {
            "codes": of.transform(X),
            "vectors": of.transform(X, output="embedding"),
            "scores": of.score_samples(X),
            "draws": of.sample(20, random_state=0),
            "codebook": of.codebook_,
            "usage": of.code_usage_,
            "losses": [epoch["train_loss"] for epoch in of.prior_history_],
            **state(of),
        }

    before = outputs(model)
    assert_same(outputs(loaded), before)
    for each in (model, loaded):
        each.partial_fit(clustered_rows(seed=3))
    assert_same(outputs(loaded), outputs(model))
    for each in (model, loaded):
        each.set_params(warm_start=True).fit(X)
    assert_same(outputs(loaded), outputs(model))


@every_prior
def test_copies_train_without_each_other(prior):
    """A copy that goes on training leaves the other as it is."""
    X = clustered_rows()
    model = vqvae(prior=prior).fit(X)
    before = state(model), model.score(X)
    twin = copy.copy(model)
    twin.partial_fit(clustered_rows(seed=3))
    assert_same(state(model), before[0])
    assert model.score(X) == before[1]
    assert twin.n_iter_ == 5


# ------------------------------------------------------------------------------- in use


def digits(n_rows=300):
    X, y = load_digits(return_X_y=True)
    return X[:n_rows], y[:n_rows]


def test_bits_per_dimension_of_grey_levels():
    """Finite, fewer than for equally likely levels; more codes leave smaller errors."""
    X, _ = digits(200)
    X = X + np.random.default_rng(0).random(X.shape)  # levels 0 to 16
    errors = []
    for n_codes in (2, 8, 32):
        model = vqvae(4, n_codes=n_codes, hidden_layer_sizes=(32,), max_iter=8, prior_max_iter=2)
        bits = bits_per_dim(model.fit(X).score_samples(X), 64, level=1)
        assert 0 < bits < np.log2(17)
        errors.append(error_of(model, X))
    assert errors[2] < errors[1] < errors[0]


def test_codes_are_categories_for_gradient_boosting():
    """A classifier of four integers a row is far better than chance."""
    X, y = digits(600)
    model = make_pipeline(
        vqvae(4, n_codes=16, hidden_layer_sizes=(64,), max_iter=10, prior=None),
        HistGradientBoostingClassifier(
            categorical_features=[0, 1, 2, 3], max_iter=10, min_samples_leaf=5, random_state=0
        ),
    )
    assert model.fit(X[:400], y[:400]).score(X[400:], y[400:]) > 0.4


def test_searched_over_a_grid():
    """The held-out bound decides over positions and codes."""
    X = clustered_rows(120)
    grid = {"n_components": [1, 3], "n_codes": [2, 8]}
    search = GridSearchCV(vqvae(), grid, cv=2).fit(X)
    scores = search.cv_results_["mean_test_score"]
    assert np.all(np.isfinite(scores))
    assert len(set(scores)) == 4
    assert search.best_params_ == search.cv_results_["params"][int(np.argmax(scores))]
    assert search.best_estimator_.n_components_ == search.best_params_["n_components"]


def test_a_prior_that_learns_nothing_stays_with_the_frequencies():
    """Where every epoch is worse than before them, what is kept is the start."""
    X = clustered_rows(100)
    model = vqvae(prior_learning_rate_init=30.0, validation_fraction=0.3).fit(X)
    train, held_out = model._prior._split(len(X), None)
    counts = index_counts(model.transform(X[train]), None, 5)
    shares = smoothed_frequencies(counts)
    codes = model.transform(X[held_out])
    expected = np.log(shares[np.arange(codes.shape[1]), codes]).sum(1)
    assert min(epoch["valid_loss"] for epoch in model.prior_history_) > -expected.mean()
    np.testing.assert_allclose(model.score_codes(codes), expected, rtol=1e-5)


def test_an_interruption_of_the_first_epoch_leaves_frequencies(monkeypatch):
    """What the networks learned is not lost: the prior stays at its start."""
    X = clustered_rows(100)
    with monkeypatch.context() as patch:
        patch.setattr(IndexPriorModule, "loss", interrupt_in_training(IndexPriorModule.loss))
        with pytest.warns(UserWarning, match=r"interrupted in epoch 1"):
            model = vqvae(validation_fraction=0.3).fit(X)
    train, _ = model._prior._split(len(X), None)
    shares = smoothed_frequencies(index_counts(model.transform(X[train]), None, 5))
    codes = model.transform(X)
    expected = np.log(shares[np.arange(codes.shape[1]), codes]).sum(1)
    np.testing.assert_allclose(model.score_codes(codes), expected, rtol=1e-5)
    assert model.sample(3).shape == (3, 6)


def interrupt_in_training(loss):
    """A loss that is interrupted where gradients are wanted."""

    def interrupted(self, batch):
        if torch.is_grad_enabled():
            raise KeyboardInterrupt
        return loss(self, batch)

    return interrupted


@few_encodings
def test_one_row_that_counts():
    """Is all that the prior has: it is certain of its codes, as far as smoothing lets it."""
    X = clustered_rows(20)
    weight = np.zeros(20)
    weight[7] = 1.0
    model = vqvae().fit(X, sample_weight=weight)
    assert np.isfinite(model.score_samples(X)).all()


def test_networks_without_weights_leave_the_codebook_to_learn():
    """Then it is k-means in small steps: nearly the inertia of scikit-learn's."""
    X = clustered_rows(400, 2) / 100
    identity = torch.nn.Identity()
    model = vqvae(
        1, n_codes=8, encoder=identity, decoder=identity, prior=None, max_iter=30, decay=0.9
    ).fit(X)
    inertia = ((model.reconstruct(X) - X) ** 2).sum()
    assert inertia < 1.1 * KMeans(8, n_init=10, random_state=0).fit(X).inertia_


@pytest.mark.parametrize("decoder_layer_sizes", [(), (3,), (3, 4, 5)])
def test_every_position_of_a_grid_is_decoded(decoder_layer_sizes):
    """However many layers the decoder has."""
    X = clustered_rows(40, 144)
    model = vqvae(
        None,
        network="conv",
        image_shape=(1, 12, 12),
        hidden_layer_sizes=(4,),
        decoder_layer_sizes=decoder_layer_sizes,
        prior=None,
        max_iter=1,
    ).fit(X)
    assert model.n_components_ == 36
    codes = np.repeat(model.transform(X[:1]), 37, axis=0)
    codes[np.arange(36), np.arange(36)] = (codes[0] + 1) % 5
    rows = model.inverse_transform(codes)
    assert np.all(np.abs(rows[:36] - rows[36]).max(axis=1) > 0)


def test_cells_that_float32_cannot_tell_apart_are_refused():
    """By the name of what asks for them."""
    with pytest.raises(ValueError, match=r"n_quantizers=40 with levels"):
        vqvae(quantizer="fsq", levels=(2, 4), n_codes=8, n_quantizers=40).fit(clustered_rows())


@pytest.mark.parametrize("scale", [1.0, 1e-2, 1e-4])
def test_commitment_does_not_depend_on_the_units(scale):
    """Of outputs that are bounded, too: it weighs a quarter of an error of the whole variance."""
    X = scale * np.random.default_rng(0).uniform(size=(60, 5))
    model = vqvae(out_activation="tanh", prior=None, max_iter=1).fit(X)
    batch = model._dataset(Data(X)).batch(slice(None))
    with torch.no_grad():
        cost = model.net_.module_.loss(batch).terms["commitment"]
        distance = model.net_.module_.quantise(batch.x).penalties["commitment"].mean()
    # Nats of an error of each feature as large as its standard deviation.
    of_error = 0.5 * X.var(axis=0).sum() / model.noise_variance_
    assert float(cost / distance) == pytest.approx(0.25 * of_error, rel=1e-4)


def test_a_change_of_the_codebooks_size_is_refused_by_its_name():
    """Of the parameter, not of the field that it fills."""
    model = vqvae(warm_start=True).fit(clustered_rows())
    with pytest.raises(ValueError, match=r"n_codes=8 cannot change"):
        model.set_params(n_codes=8).fit(clustered_rows())


def test_no_code_begins_anew_where_each_encoding_may_have_its_own():
    """With as many codes as encodings, a code out of use stays where it is."""
    X = clustered_rows(64)
    options = still(max_iter=1, dead_code_threshold=0.5, batch_size=64, decay=0.4)
    model = vqvae(1, n_codes=64, codebook_init="random", prior=None, codebook_update="loss")
    model.set_params(**options).fit(X)
    assert np.abs(stages_of(model)).max() <= 1 / 64 + 1e-6  # where random codes start


# ------------------------------------------------------- few rows: codes, noise, prior


@pytest.mark.parametrize("n_positions", [1, 2, 5, 8, 11, 12, 49])
def test_codebooks_grow_with_the_encodings(n_positions):
    """By powers of two, each with 8 rows for each place, or 1024 encodings for each code."""
    for n_rows in (1, 30, 133, 426, 1347, 4000, 20_000, 60_000, 10**6):
        fit = [
            k
            for k in (4, 8, 16, 32, 64, 128, 256, 512)
            if n_rows >= 8 * k * n_positions or n_rows * n_positions >= 1024 * k
        ]
        assert codebook_size_for(n_rows, n_positions) == max(fit, default=2)


def test_codebooks_of_known_data():
    """Wine, breast cancer and digits, three quarters of them; MNIST."""
    sizes = [codebook_size_for(n, 8) for n in (133, 426, 1347, 60_000)]
    assert sizes == [2, 4, 16, 512]
    assert codebook_size_for(60_000, 49) == 512


@pytest.mark.parametrize("prior", ["independent", None])
@pytest.mark.parametrize("n_rows", [20, 96])
def test_a_codebooks_size_is_chosen_in_fit(n_rows, prior):
    model = vqvae(2, n_codes=None, prior=prior, n_quantizers=2).fit(clustered_rows(n_rows))
    expected = {20: 2, 96: 4}[n_rows]
    assert model.n_codes is None
    assert model.n_codes_ == expected
    assert model.codebook_.shape == (2, expected, 2)
    assert model.transform(clustered_rows(n_rows)).max() < expected


def test_a_given_codebooks_size_is_an_attribute_too():
    assert vqvae(n_codes=6).fit(clustered_rows()).n_codes_ == 6


def test_a_codebooks_size_follows_from_the_levels():
    model = vqvae(quantizer="fsq", levels=(3, 4), n_codes=None, code_dim=None)
    assert model.fit(clustered_rows()).n_codes_ == 12
    assert model.codebook_.shape == (12, 2)


def test_a_codebooks_size_follows_from_the_grid():
    """Whose positions are not given, either."""
    model = convolutional(n_codes=None).fit(images(64, (1, 8, 8)))
    assert model.n_codes_ == codebook_size_for(64, model.n_components_)


@pytest.mark.parametrize("method", ["fit", "partial_fit"])
def test_a_chosen_size_stays_while_training_goes_on(method):
    """Whatever rows come, and in a copy from a file."""
    model = vqvae(2, n_codes=None, warm_start=True, prior=None)
    getattr(model, method)(clustered_rows(20))
    model = pickle.loads(pickle.dumps(model))
    getattr(model, method)(clustered_rows(200))
    assert model.n_codes_ == len(model.codebook_) == 2
    model.set_params(warm_start=False).fit(clustered_rows(200))
    assert model.n_codes_ == len(model.codebook_) == 8


def test_files_without_these_parameters_load_and_go_on():
    """As version 0.1.0 wrote them, whose n_codes was an integer."""
    model = vqvae(2, n_codes=6, warm_start=True).fit(clustered_rows())
    state = model.__getstate__()
    del state["calibration"], state["n_codes_"]
    old = VQVAE.__new__(VQVAE)
    old.__setstate__(state)
    assert (old.n_codes_, old.calibration) == (6, False)
    X = clustered_rows(30, seed=3)
    np.testing.assert_array_equal(old.score_samples(X), model.score_samples(X))
    assert np.isfinite(old.fit(clustered_rows()).score(X))
    assert clone(old).get_params()["calibration"] is False


@pytest.mark.parametrize(
    ("n_components", "n_codes", "n_rows", "better"),
    [(8, 40, 39, 2), (4, 40, 19, 2), (1, 41, 40, 4)],
)
def test_too_many_codes_are_warned_of(n_components, n_codes, n_rows, better):
    """Where each has less than eight encodings, or two at four positions, one at one."""
    model = vqvae(n_components, n_codes=n_codes, prior=None, max_iter=1)
    message = (
        rf"n_codes={n_codes} is too many for {n_rows * n_components} encodings "
        rf"\({n_rows} rows x {n_components} positions\).*Set n_codes={better},"
    )
    with pytest.warns(UserWarning, match=message):
        model.fit(clustered_rows(n_rows))


def test_enough_encodings_are_not_warned_of():
    """Nor are streams, of which more may come. Warnings are errors here."""
    vqvae(8, n_codes=40, prior=None, max_iter=1).fit(clustered_rows(40))
    vqvae(1, n_codes=40, prior=None, max_iter=1).fit(clustered_rows(40))
    vqvae(1, n_codes=40, prior=None).partial_fit(clustered_rows(10))
    vqvae(8, n_codes=None, prior=None, max_iter=1).fit(clustered_rows(3))


def watches(model):
    """Whether rows were kept from the network in the last fit."""
    return {"valid_loss" in epoch for epoch in model.history_}


def test_few_rows_are_calibrated():
    """From ten rows to less than ten thousand, unless told otherwise."""
    options = {"prior": None, "max_iter": 1, "calibration": "auto", "n_codes": None}
    options["batch_size"] = 1000
    for n_rows, expected in ((9, False), (10, True), (9_999, True), (10_000, False)):
        assert watches(vqvae(**options).fit(clustered_rows(n_rows))) == {expected}
    assert watches(vqvae(**options | {"calibration": True}).fit(clustered_rows(10_000))) == {True}
    assert watches(vqvae(**options | {"calibration": False}).fit(clustered_rows(20))) == {False}
    assert watches(vqvae(**options).partial_fit(clustered_rows(20))) == {False}


def test_calibration_keeps_rows_from_the_network():
    """Exchanged among each other, they change neither weights nor codebook, but what is scored."""
    X = clustered_rows(60)
    model = vqvae(calibration="auto", validation_fraction=0.2).fit(X)
    kept = model._trainer.split(60, True)[1]
    assert len(kept) == 12
    other = X.copy()
    other[kept] = X[kept][::-1]
    again = vqvae(calibration="auto", validation_fraction=0.2).fit(other)
    weights, others = (m.net_.module_.state_dict() for m in (model, again))
    assert all(torch.equal(weights[name], others[name]) for name in weights)
    other[[kept[0], 0]] = other[[0, kept[0]]]
    assert not np.array_equal(model.codebook_, vqvae(calibration="auto").fit(other).codebook_)


@pytest.mark.parametrize("early_stopping", [False, True])
@pytest.mark.parametrize("gaps", [0.0, 0.1])
@pytest.mark.parametrize("weighted", [False, True])
def test_calibrated_noise_is_that_of_rows_that_were_kept(weighted, gaps, early_stopping):
    """The mean squared error of what was seen of them, by hand."""
    X = clustered_rows(80, gaps=gaps)
    weight = np.random.default_rng(0).uniform(0.5, 2, 80) if weighted else None
    model = vqvae(
        2, calibration=True, validation_fraction=0.25, early_stopping=early_stopping, prior=None
    ).set_params(max_iter=60, learning_rate_init=0.03)
    model.fit(X, sample_weight=weight)
    train, kept = model._trainer.split(80, True)
    squares = (model.inverse_transform(model.transform(X)) - X) ** 2
    w = (np.ones(80) if weight is None else weight)[:, None] * ~np.isnan(X)
    errors = [
        (np.nan_to_num(squares[of]) * w[of]).sum() / w[of].sum() for of in (train.numpy(), kept)
    ]
    assert early_stopping or errors[1] > 1.05 * errors[0]
    assert model.noise_variance_ == pytest.approx(max(errors), rel=1e-3)


def test_calibration_lowers_the_price_of_memory():
    """Held out, a network that memorises scores better by far, and claims less in training."""
    X, new = clustered_rows(48, 12), clustered_rows(200, 12, seed=7)
    models = [
        vqvae(
            4,
            n_codes=8,
            hidden_layer_sizes=(64,),
            max_iter=150,
            prior_max_iter=40,
            calibration=calibration,
        ).fit(X)
        for calibration in (False, "auto")
    ]
    train, test = np.transpose([[model.score(X), model.score(new)] for model in models])
    assert train[1] < train[0]
    assert test[1] > test[0] + 3
    chances = [model.score_codes(model.transform(new)).mean() for model in models]
    assert chances[1] > chances[0]


@pytest.mark.parametrize("weighted", [False, True])
def test_a_calibrated_independent_prior_predicts_rows_that_were_kept(weighted):
    """All codes count, and as many alike as predict the kept rows best from the others."""
    X = clustered_rows(100)
    weight = np.random.default_rng(0).uniform(0.5, 2, 100) if weighted else None
    model = vqvae(prior="independent", n_codes=16, calibration=True, validation_fraction=0.3)
    model.fit(X, sample_weight=weight)
    codes, (train, kept) = model.transform(X), model._trainer.split(100, True)

    def counts(rows):
        w = np.ones(len(rows)) if weight is None else weight[rows] / weight[rows].mean()
        return np.array([np.bincount(k, w, minlength=16) for k in codes[rows].T])

    every, of_train, of_kept = map(counts, (np.arange(100), train.numpy(), kept.numpy()))
    tried = np.geomspace(1e2 * 16, 1e-2, 33)
    scores = [(of_kept * np.log((of_train + a / 16) / (70 + a))).sum() for a in tried]
    a = tried[int(np.argmax(scores))]
    expected = (every + a / 16) / (100 + a)
    np.testing.assert_allclose(np.exp(model._prior.log_frequencies), expected, rtol=1e-5)


def test_a_calibrated_prior_is_as_sure_as_rows_that_were_kept_allow():
    """No other factor of all logits makes these likelier."""
    X = clustered_rows(60)
    options = {"validation_fraction": 0.3, "prior_max_iter": 30, "prior_learning_rate_init": 0.1}
    model = vqvae(n_codes=24, max_iter=40, calibration=True, **options).fit(X)
    kept = model.transform(X[model._trainer.split(60, True)[1]])
    sequence, scores = model.prior_net_.module_.sequence, []
    heads = (sequence.leave, sequence.own_leave, sequence.bias)
    as_fitted = [head.detach().clone() for head in heads]
    for factor in (0.9, 1.0, 1.1):
        with torch.no_grad():
            for head, value in zip(heads, as_fitted, strict=True):
                head.copy_(factor * value)
        scores.append(model.score_codes(kept).mean())
    assert scores[1] > max(scores[0], scores[2])
