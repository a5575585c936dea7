"""Models of tables whose columns have likelihoods of their own, against enumeration and quadrature.

A table of two categories and a coin has twelve rows: what a model says of all of them, and of
what it draws, can be added up. The decoder's outputs are taken from the module, and what follows
from them is computed here.
"""

import copy
import itertools

import numpy as np
import pandas as pd
import pytest
import torch
from scipy import special, stats
from sklearn.preprocessing import StandardScaler

from helpers import network
from skae import PPCA, VAE, VQVAE, AdversarialAE, Autoencoder, HelmholtzMachine
from skae._training.data import Data

# ----------------------------------------------------------------------- tiny tables

TINY = {"place": "categorical", "size": "categorical", "open": "bernoulli"}
PLACES, SIZES = ["north", "south"], [1, 2, 5]
# Every row as indices of levels, and as a table.
CODES = np.array(list(itertools.product(range(2), range(3), range(2))))
# Columns of the network: the coin, the places, the sizes.
PARTS = {"open": slice(0, 1), "place": slice(1, 3), "size": slice(3, 6)}


def as_table(codes):
    place, size, coin = np.asarray(codes, dtype=int).T
    return pd.DataFrame(
        {
            "place": np.array(PLACES, dtype=object)[place],
            "size": np.array(SIZES)[size],
            "open": coin.astype(bool),
        }
    )


def tiny_codes(n_rows=400, seed=0):
    """Columns that depend on each other by a hidden coin."""
    rng = np.random.default_rng(seed)
    hidden = rng.integers(2, size=n_rows)
    place = (rng.random(n_rows) < np.array([0.1, 0.8])[hidden]).astype(int)
    sizes = np.array([[0.7, 0.2, 0.1], [0.1, 0.3, 0.6]]).cumsum(1)[hidden]
    coin = (rng.random(n_rows) < np.array([0.25, 0.9])[hidden]).astype(int)
    return np.stack([place, (sizes < rng.random((n_rows, 1))).sum(1), coin], 1)


def index_of(codes):
    """Which of all rows these are."""
    return np.asarray(codes, dtype=int) @ [6, 2, 1]


def log_column_masses(output):
    """log p(x_j|z) of every row of all and every column j, (..., 12, 3), of outputs."""
    output = np.asarray(output, dtype=np.float64)
    place = special.log_softmax(output[..., PARTS["place"]], -1)
    size = special.log_softmax(output[..., PARTS["size"]], -1)
    coin = special.log_expit(output[..., PARTS["open"]] * [-1, 1])
    parts = (place[..., CODES[:, 0]], size[..., CODES[:, 1]], coin[..., CODES[:, 2]])
    return np.stack(parts, -1)


@pytest.fixture(scope="module")
def tiny():
    return as_table(tiny_codes())


def gauss_hermite(n=100):
    """Nodes and log weights of N(0, 1)."""
    nodes, weights = np.polynomial.hermite_e.hermegauss(n)
    return nodes, np.log(weights / weights.sum())


def vae_log_joint(model):
    """log p(z_i) weights beside log p(x_j|z_i), (n_nodes,) and (n_nodes, 12, 3)."""
    nodes, log_weight = gauss_hermite()
    with torch.no_grad():
        z = torch.tensor(nodes[:, None], dtype=torch.float32)
        output = model.net_.module_.decode(z)
    return log_weight, log_column_masses(output)


def small_vae(**params):
    defaults = {"max_iter": 20, "learning_rate_init": 0.02, "batch_size": 64}
    return network(VAE, n_components=1, **defaults, **params)


def widened(model):
    """With twice as wide a q(z|x), so that few importance weights are large."""
    module = model.net_.module_
    encode = module.encode

    def wide(x):
        q = encode(x)
        return q._replace(log_var=q.log_var + np.log(4.0))

    module.encode = wide
    return model


@pytest.fixture(scope="module")
def vae(tiny):
    return widened(small_vae(likelihood=TINY).fit(tiny))


@pytest.fixture(scope="module")
def blind_vae(tiny):
    """One that has learned from rows with holes."""
    holes = np.random.default_rng(5).random(tiny.shape) < 0.2
    return widened(small_vae(likelihood=TINY, missing="mask").fit(tiny.mask(holes)))


def enumerated(log_weight, log_masses):
    """p(x) of every row."""
    return np.exp(special.logsumexp(log_weight[:, None] + log_masses.sum(-1), 0))


def assert_frequencies(table, chance):
    """By a chi-square test, that rows of a frame have these probabilities."""
    codes = np.stack(
        [
            table["place"].map(PLACES.index),
            table["size"].map(SIZES.index),
            table["open"].astype(int),
        ],
        1,
    )
    counts = np.bincount(index_of(codes), minlength=len(CODES))
    assert stats.chisquare(counts, len(codes) * chance / chance.sum()).pvalue > 1e-3


def test_the_probabilities_of_a_vae_sum_to_one(vae):
    """And are those of the integral over its codes; columns depend on each other."""
    chance = enumerated(*vae_log_joint(vae))
    np.testing.assert_allclose(chance.sum(), 1.0, rtol=1e-6)
    scores = vae.score_samples(as_table(CODES), n_importance=5000)
    np.testing.assert_allclose(scores, np.log(chance), atol=0.03)
    np.testing.assert_allclose(np.exp(scores).sum(), 1.0, atol=0.01)
    independent = [chance.reshape(2, 3, 2).sum(axes) for axes in [(1, 2), (0, 2), (0, 1)]]
    independent = np.einsum("i,j,k->ijk", *independent).ravel()
    assert (chance * np.log(chance / independent)).sum() > 0.1


def test_the_probabilities_of_what_was_seen_sum_over_what_was_not(blind_vae):
    """p(x_seen) is the sum of p(x) over all rows that agree with it."""
    chance = enumerated(*vae_log_joint(blind_vae)).reshape(2, 3, 2)
    rows = as_table(CODES).astype(object)
    rows["place"] = None
    scores = blind_vae.score_samples(rows, n_importance=5000).reshape(2, 3, 2)
    np.testing.assert_allclose(scores[0], np.log(chance.sum(0)), atol=0.03)
    np.testing.assert_allclose(scores[1], scores[0], atol=1e-5)
    rows["open"] = None
    scores = blind_vae.score_samples(rows, n_importance=5000).reshape(2, 3, 2)
    np.testing.assert_allclose(scores[0, :, 0], np.log(chance.sum((0, 2))), atol=0.03)
    rows["size"] = None
    scores = blind_vae.score_samples(rows, n_importance=5000)
    np.testing.assert_allclose(scores, 0.0, atol=0.03)


def test_samples_of_a_vae_have_its_probabilities(vae):
    rows = vae.sample(8000, random_state=0)
    assert list(rows) == list(TINY)
    assert_frequencies(rows, enumerated(*vae_log_joint(vae)))


@pytest.fixture
def many_draws(monkeypatch):
    """Shares of columns by so many draws that they are expectations."""
    for model in (VAE, HelmholtzMachine):
        draws = model._row_draws
        monkeypatch.setattr(model, "_row_draws", lambda self, n, of=draws: of(self, 5000))


def test_shares_of_columns_are_their_means_given_the_row(vae, many_draws):
    """E[log p(x_j|z)|x] of every column j, over the posterior on a grid."""
    log_weight, log_masses = vae_log_joint(vae)
    posterior = special.softmax(log_weight[:, None] + log_masses.sum(-1), 0)
    expected = (posterior[..., None] * log_masses).sum(0)
    shares = vae.score_columns(as_table(CODES))
    np.testing.assert_allclose(shares, expected, atol=0.06)


def test_shares_of_columns_exceed_the_score_by_what_the_codes_cost(vae, many_draws):
    """KL(p(z|x) || p(z)), by quadrature."""
    log_weight, log_masses = vae_log_joint(vae)
    log_posterior = special.log_softmax(log_weight[:, None] + log_masses.sum(-1), 0)
    cost = (np.exp(log_posterior) * (log_posterior - log_weight[:, None])).sum(0)
    table = as_table(CODES)
    difference = vae.score_columns(table).sum(1) - vae.score_samples(table, n_importance=5000)
    np.testing.assert_allclose(difference, cost, atol=0.05)


def conditional(model, place):
    """p(size, open | place), (3, 2)."""
    chance = enumerated(*vae_log_joint(model)).reshape(2, 3, 2)[place]
    return chance / chance.sum()


@pytest.mark.parametrize("place", [0, 1])
def test_completions_have_the_conditional_probabilities(blind_vae, place):
    """Of arrays: indices of levels that are text, levels that are numbers."""
    row = pd.DataFrame({"place": [PLACES[place]], "size": [np.nan], "open": [None]})
    drawn = blind_vae.impute(row, n_draws=4000, n_importance=2000, random_state=0)
    assert drawn.shape == (4000, 1, 3)
    assert set(drawn[:, 0, 0]) == {place}
    size = np.searchsorted(SIZES, drawn[:, 0, 1])
    np.testing.assert_array_equal(np.array(SIZES)[size], drawn[:, 0, 1])
    found = np.bincount(2 * size + drawn[:, 0, 2].astype(int), minlength=6) / 4000
    np.testing.assert_allclose(found, conditional(blind_vae, place).ravel(), atol=0.03)


@pytest.mark.parametrize("place", [0, 1])
def test_imputed_are_the_most_probable_level_and_the_mean(blind_vae, place):
    """Of what is missing, each for itself; in frames of a coin the likelier value."""
    chance = conditional(blind_vae, place)
    row = pd.DataFrame({"place": [PLACES[place]], "size": [np.nan], "open": [None]})
    filled = blind_vae.impute(row, n_importance=2000)
    assert filled["place"].tolist() == [PLACES[place]]
    assert filled["size"].tolist() == [SIZES[chance.sum(1).argmax()]]
    assert filled["open"].tolist() == [chance.sum(0)[1] > 0.5]
    of_arrays = copy.deepcopy(blind_vae).set_output(transform="default")
    numbers = of_arrays.impute(row, n_importance=2000)
    np.testing.assert_allclose(numbers[0, 2], chance.sum(0)[1], atol=0.03)


def test_imputed_levels_are_the_most_probable_over_all_codes(blind_vae):
    """Not at one code: the mean of probabilities decides."""
    chance = enumerated(*vae_log_joint(blind_vae)).reshape(2, 3, 2)
    rows = as_table(CODES).astype(object)
    rows["size"] = None
    filled = blind_vae.impute(rows, n_importance=2000)
    given = chance.transpose(0, 2, 1)[CODES[:, 0], CODES[:, 2]]
    given /= given.sum(1, keepdims=True)
    clear = np.diff(np.sort(given, 1)[:, 1:]).ravel() > 0.05
    assert clear.sum() > 6
    expected = np.array(SIZES)[given.argmax(1)]
    np.testing.assert_array_equal(filled["size"].to_numpy()[clear], expected[clear])


# ------------------------------------------------------------------- discrete codes


@pytest.fixture(scope="module", params=["independent", "autoregressive"])
def vqvae(request, tiny):
    return network(
        VQVAE,
        n_components=2,
        n_codes=3,
        code_dim=2,
        likelihood=TINY,
        prior=request.param,
        max_iter=10,
        learning_rate_init=0.02,
        batch_size=64,
        prior_max_iter=5,
        prior_channels=8,
    ).fit(tiny)


def vqvae_truth(model):
    """All codes k, log p(k), and log p(x_j|k) of every row and column."""
    codes = np.array(list(itertools.product(range(3), repeat=2)))
    with torch.no_grad():
        log_prior = model._prior.log_prob(torch.tensor(codes)).double().numpy()
        output = model.net_.module_.of_indices(torch.tensor(codes))
    return codes, log_prior, log_column_masses(output)


def test_the_probabilities_of_a_vqvae_sum_to_one(vqvae):
    """Those of codes, and sum_k p(k) p(x|k) of rows."""
    _, log_prior, log_masses = vqvae_truth(vqvae)
    np.testing.assert_allclose(np.exp(log_prior).sum(), 1.0, rtol=1e-5)
    chance = enumerated(log_prior, log_masses)
    np.testing.assert_allclose(chance.sum(), 1.0, rtol=1e-5)


def test_the_score_of_a_vqvae_is_that_of_its_code(vqvae):
    """log p(x|k) + log p(k): a bound from below."""
    codes, log_prior, log_masses = vqvae_truth(vqvae)
    table = as_table(CODES)
    found = np.asarray(vqvae.transform(table), dtype=int)
    which = (codes[:, None] == found).all(-1).argmax(0)
    shares = log_masses[which, np.arange(len(CODES))]
    scores = vqvae.score_samples(table)
    np.testing.assert_allclose(vqvae.score_columns(table), shares, rtol=1e-4, atol=1e-4)
    np.testing.assert_allclose(scores, shares.sum(1) + log_prior[which], rtol=1e-4)
    assert (scores <= np.log(enumerated(log_prior, log_masses)) + 1e-5).all()


def test_samples_of_a_vqvae_have_its_probabilities(vqvae):
    _, log_prior, log_masses = vqvae_truth(vqvae)
    assert_frequencies(vqvae.sample(8000, random_state=1), enumerated(log_prior, log_masses))


@pytest.fixture(scope="module")
def machine(tiny):
    return HelmholtzMachine(
        2,
        hidden_layer_sizes=(3,),
        likelihood=TINY,
        max_iter=30,
        learning_rate_init=0.05,
        random_state=0,
    ).fit(tiny)


def machine_truth(model):
    """log p(h_1) of all its states, and log p(x_j|h_1) of every row and column."""
    states = [np.array(list(itertools.product([0.0, 1.0], repeat=n))) for n in (3, 2)]
    module = model.net_.module_
    with torch.no_grad():
        top = module.prior_logit.double().numpy()
        lower = module.down[0](torch.tensor(states[1]).float()).double().numpy()
        output = module.to_rows(torch.tensor(states[0]).float())

    def log_coins(x, logit):
        return (x * special.log_expit(logit) + (1 - x) * special.log_expit(-logit)).sum(-1)

    log_joint = log_coins(states[0][:, None], lower) + log_coins(states[1], top)
    return special.logsumexp(log_joint, 1), log_column_masses(output)


def test_the_probabilities_of_a_helmholtz_machine_sum_to_one(machine):
    chance = enumerated(*machine_truth(machine))
    table = as_table(CODES)
    exact = machine.exact_log_likelihood(table)
    np.testing.assert_allclose(exact, np.log(chance), atol=1e-5)
    np.testing.assert_allclose(np.exp(exact).sum(), 1.0, rtol=1e-6)
    assert (machine.free_energy(table, n_draws=None) >= -exact - 1e-6).all()
    bound = machine.score_samples(table, n_importance=3000)
    np.testing.assert_allclose(bound, exact, atol=0.05)


def test_exact_likelihoods_of_rows_with_holes_are_sums(tiny):
    model = HelmholtzMachine(3, likelihood=TINY, max_iter=3, missing="mask", random_state=0)
    model.fit(tiny.mask(np.random.default_rng(5).random(tiny.shape) < 0.2))
    chance = np.exp(model.exact_log_likelihood(as_table(CODES))).reshape(2, 3, 2)
    np.testing.assert_allclose(chance.sum(), 1.0, rtol=1e-6)
    rows = as_table(CODES[:2]).astype(object)
    rows["size"] = None
    exact = model.exact_log_likelihood(rows)
    np.testing.assert_allclose(np.exp(exact), chance[0].sum(0), rtol=1e-5)


def test_samples_of_a_helmholtz_machine_have_its_probabilities(machine):
    assert_frequencies(machine.sample(8000, random_state=0), enumerated(*machine_truth(machine)))


def test_shares_of_a_helmholtz_machine_are_their_means_given_the_row(machine, many_draws):
    log_prior, log_masses = machine_truth(machine)
    posterior = special.softmax(log_prior[:, None] + log_masses.sum(-1), 0)
    expected = (posterior[..., None] * log_masses).sum(0)
    shares = machine.score_columns(as_table(CODES))
    np.testing.assert_allclose(shares, expected, atol=0.05)


# --------------------------------------------------------------- numbers and categories

KINDS = {
    "width": "gaussian",
    "length": "laplace",
    "n_rings": "poisson",
    "kind": "categorical",
    "wet": "bernoulli",
    "share": "continuous_bernoulli",
}
MODELS = [Autoencoder, VAE, VQVAE, AdversarialAE, HelmholtzMachine]


def make_table(n_rows=150, seed=0, gaps=0.0):
    """Every kind of column, all of which follow one factor."""
    rng = np.random.default_rng(seed)
    z = rng.normal(size=n_rows)
    labels = np.array(["ash", "birch", "cedar", "date"], dtype=object)
    table = pd.DataFrame(
        {
            "width": 30.0 + 4.0 * z + rng.normal(size=n_rows),
            "length": 0.02 * z + rng.laplace(scale=0.01, size=n_rows),
            "n_rings": rng.poisson(np.exp(1.0 + 0.5 * z)),
            "kind": labels[np.clip(np.round(1.5 + z + rng.normal(size=n_rows)), 0, 3).astype(int)],
            "wet": special.expit(2 * z) > rng.random(n_rows),
            "share": special.expit(z + 0.5 * rng.normal(size=n_rows)),
        }
    )
    return table.mask(rng.random(table.shape) < gaps) if gaps else table


def small(model, **params):
    defaults = {"likelihood": KINDS, "max_iter": 3, "random_state": 0, "device": "cpu"}
    if model is VQVAE:
        defaults |= {"n_codes": 4, "prior": "independent", "prior_max_iter": 1}
    if model is HelmholtzMachine:
        del defaults["device"]
    return model(2, **{**defaults, **params})


def one_kind(kind):
    """The mapping with all columns that are no reals left as they are, and reals of this kind."""
    return KINDS | {"width": kind, "length": kind}


@pytest.mark.parametrize("gaps", [0.0, 0.2])
@pytest.mark.parametrize("model", [Autoencoder, AdversarialAE])
def test_shares_of_columns_add_up_to_the_score_of_a_point(model, gaps):
    """What was not seen has none."""
    table = make_table(gaps=gaps)
    fitted = small(model).fit(table)
    shares = fitted.score_columns(table)
    np.testing.assert_allclose(shares.sum(1), fitted.score_samples(table), rtol=1e-4, atol=1e-4)
    np.testing.assert_array_equal(shares[table.isna().to_numpy()], 0.0)
    assert (shares[table.notna().to_numpy()] != 0).all()


def test_shares_of_columns_are_scipys_at_what_is_reconstructed():
    """Of each kind at the mean of p(x|z), in the units of the table."""
    table = make_table()
    model = small(Autoencoder).fit(table)
    shares = model.score_columns(table)
    means = copy.deepcopy(model).set_output(transform="default").reconstruct(table)
    scale = model.noise_variance_**0.5
    coin = np.where(table["wet"], means[:, 4], 1 - means[:, 4])
    expected = {
        0: stats.norm.logpdf(table["width"], means[:, 0], scale[0]),
        1: stats.laplace.logpdf(table["length"], means[:, 1], scale[1] / 2**0.5),
        2: stats.poisson.logpmf(table["n_rings"], means[:, 2]),
        4: np.log(coin),
    }
    for j, nats in expected.items():
        np.testing.assert_allclose(shares[:, j], nats, rtol=2e-3, atol=2e-3)


@pytest.mark.parametrize("model", MODELS)
def test_the_noise_is_that_of_the_columns_that_have_some(model):
    """In squared units, NaN of the others."""
    kinds = KINDS if model is not HelmholtzMachine else one_kind("gaussian")
    table = make_table()
    noise = small(model, likelihood=kinds).fit(table).noise_variance_
    np.testing.assert_array_equal(np.isnan(noise), [False, False, True, True, True, True])
    variances = table[["width", "length"]].var()
    assert (noise[:2] < 2.5 * variances).all()
    assert (noise[:2] > 0.02 * variances).all()


@pytest.mark.parametrize("model", MODELS)
def test_in_other_units_scores_change_by_the_logarithm_of_the_scale(model):
    """And nothing else does; the noise by its square."""
    kinds = KINDS if model is not HelmholtzMachine else one_kind("gaussian")
    table = make_table()
    scaled = table.assign(length=1024 * table["length"])
    first, second = small(model, likelihood=kinds), small(model, likelihood=kinds)
    first.fit(table)
    second.fit(scaled)
    difference = first.score_samples(table) - second.score_samples(scaled)
    np.testing.assert_allclose(difference, np.log(1024), rtol=1e-4)
    shares = first.score_columns(table) - second.score_columns(scaled)
    np.testing.assert_allclose(shares, np.log(1024) * np.eye(6)[[1] * len(table)], atol=1e-3)
    ratio = second.noise_variance_[:2] / first.noise_variance_[:2]
    np.testing.assert_allclose(ratio, [1, 1024**2], rtol=1e-4)
    codes = first.transform(table), second.transform(scaled)
    np.testing.assert_allclose(*codes, rtol=1e-3, atol=1e-4)


def test_a_given_noise_is_a_share_of_the_variance_of_every_column():
    """In the score, too; it is published in squared units of each."""
    table = make_table()[["width", "length"]]
    model = small(Autoencoder, likelihood=dict.fromkeys(table, "gaussian"), noise_variance=0.25)
    model.fit(table)
    np.testing.assert_allclose(model.noise_variance_, 0.25 * table.var(ddof=0), rtol=1e-6)
    expected = stats.norm.logpdf(table, model.reconstruct(table), 0.5 * table.std(ddof=0))
    np.testing.assert_allclose(model.score_columns(table), expected, rtol=1e-3, atol=1e-3)


@pytest.mark.parametrize("model", MODELS)
def test_the_names_of_levels_do_not_matter(model):
    """Where they sort alike."""
    kinds = KINDS if model is not HelmholtzMachine else one_kind("gaussian")
    table = make_table()
    named = table.assign(kind=table["kind"].map({"ash": 1, "birch": 2, "cedar": 5, "date": 90}))
    scores = [
        small(model, likelihood=kinds).fit(rows).score_samples(rows) for rows in (table, named)
    ]
    np.testing.assert_array_equal(*scores)


# ------------------------------------------------------------------- the linear start


def start(table, kinds=KINDS, **params):
    """What a VAE begins as."""
    return small(VAE, likelihood=kinds, max_iter=0, **params).fit(table)


def test_the_start_does_not_depend_on_the_order_of_columns_or_levels():
    """But for draws: the axes of the linear model are found up to their sign."""
    table = make_table(1000)
    expected = start(table).score_columns(table).mean(0)
    turned = table[list(table)[::-1]]
    found = start(turned, {name: KINDS[name] for name in turned}).score_columns(turned).mean(0)
    np.testing.assert_allclose(found[::-1], expected, atol=0.05)
    renamed = table.assign(kind=table["kind"].map({"ash": 3, "birch": 1, "cedar": 4, "date": 2}))
    found = start(renamed).score_columns(renamed).mean(0)
    np.testing.assert_allclose(found, expected, atol=0.05)


def test_the_start_of_real_columns_is_the_linear_model_of_standardised_ones():
    """PPCA's maps, with what they leave of each column as its own noise: a density in closed
    form, which is no worse than PPCA's."""
    rng = np.random.default_rng(0)
    X = rng.normal(size=(600, 2)) @ rng.normal(size=(2, 5)) + rng.normal(size=(600, 5)) * 0.5
    X = X * [1, 10, 100, 1e-3, 5] + [0, 5, -300, 0, 1e3]
    model = VAE(2, likelihood=dict.fromkeys(range(5), "gaussian"), max_iter=0, random_state=0)
    scores = model.fit(X).score_samples(X, n_importance=2000)
    scaler = StandardScaler()
    Z = scaler.fit_transform(X)
    ppca = PPCA(2).fit(Z)
    loadings = ppca.loadings_
    noise = 1 - np.square(loadings).sum(1)
    covariance = loadings @ loadings.T + np.diag(noise)
    units = np.log(scaler.scale_).sum()
    expected = stats.multivariate_normal(np.zeros(5), covariance).logpdf(Z) - units
    np.testing.assert_allclose(model.noise_variance_, noise * scaler.var_, rtol=1e-3)
    np.testing.assert_allclose(scores, expected, atol=0.15)
    np.testing.assert_allclose(scores.mean(), expected.mean(), atol=0.01)
    assert scores.mean() > ppca.score_samples(Z).mean() - units


def test_categories_are_read_as_in_multiple_correspondence_analysis():
    """Centred by their frequency and scaled by its root: their variance is 1 - p."""
    table = make_table(500)[["kind"]]
    model = start(table, {"kind": "categorical"})
    architecture = model._architecture
    frequency = table["kind"].value_counts(normalize=True).sort_index().to_numpy()
    np.testing.assert_allclose(architecture.center, frequency)
    np.testing.assert_allclose(architecture.scale, frequency**0.5)
    read = model._dataset(Data(model._table.encode(table))).batch(slice(None)).x
    np.testing.assert_allclose(read.mean(0), 0.0, atol=1e-5)
    np.testing.assert_allclose(read.var(0, correction=0), 1 - frequency, rtol=1e-4)


# -------------------------------------------------------------------- a planted model


def planted(n_rows, seed):
    """Ten columns that are linear in one code, and their log p(x) by quadrature."""
    rng = np.random.default_rng(7)
    slope, start = rng.normal(size=(2, 3))
    deviation = np.array([0.5, 0.8, 1.2])
    logits = [(1.5 * rng.normal(size=n), 0.5 * rng.normal(size=n)) for n in (2, 3, 5)]
    coins = 1.5 * rng.normal(size=2), 0.5 * rng.normal(size=2)
    log_rates = np.array([0.3, -0.4]), np.log([1.5, 4.0])
    rng = np.random.default_rng(seed)
    z = rng.normal(size=(n_rows, 1))
    reals = z * slope + start + deviation * rng.normal(size=(n_rows, 3))
    levels = np.stack(
        [np.argmax(z * a + b + rng.gumbel(size=(n_rows, len(a))), 1) for a, b in logits], 1
    )
    ones = special.expit(z * coins[0] + coins[1]) > rng.random((n_rows, 2))
    counts = rng.poisson(np.exp(z * log_rates[0] + log_rates[1]))
    nodes, log_weight = gauss_hermite(60)
    at = nodes[:, None]
    log_p = log_weight + stats.norm.logpdf(reals[:, None], at * slope + start, deviation).sum(-1)
    for j, (a, b) in enumerate(logits):
        log_p = log_p + special.log_softmax(at * a + b, 1)[:, levels[:, j]].T
    sign, log_rate = np.where(ones, 1, -1)[:, None], at * log_rates[0] + log_rates[1]
    log_p = log_p + special.log_expit(sign * (at * coins[0] + coins[1])).sum(-1)
    log_p = log_p + stats.poisson.logpmf(counts[:, None], np.exp(log_rate)).sum(-1)
    return np.hstack([reals, levels, ones, counts]), special.logsumexp(log_p, 1)


def test_a_planted_model_is_recovered():
    """Held-out rows score what they do under the truth, but for a little."""
    kinds = ["gaussian"] * 3 + ["categorical"] * 3 + ["bernoulli"] * 2 + ["poisson"] * 2
    X, _ = planted(1000, seed=0)
    held_out, truth = planted(1000, seed=1)
    model = VAE(1, likelihood=dict(enumerate(kinds)), max_iter=15, random_state=0).fit(X)
    gap = (truth - model.score_samples(held_out)).mean()
    assert -0.02 < gap < 0.06
    # What columns tell about each other is ten times that.
    alone = stats.norm.logpdf(held_out[:, :3], X[:, :3].mean(0), X[:, :3].std(0)).sum(1)
    for j in range(3, 10):
        counts = np.bincount(X[:, j].astype(int), minlength=50) + 0.01
        alone += np.log(counts / counts.sum())[held_out[:, j].astype(int)]
    assert (truth - alone).mean() > 0.5


# --------------------------------------------------------------------- what networks read


@pytest.mark.parametrize("model", MODELS)
def test_networks_read_the_logarithm_of_counts_and_explain_the_counts(model):
    """Standardised; what a machine draws is read as rows are; outputs begin at the mean count."""
    table = make_table()
    fitted = small(model, likelihood=KINDS, max_iter=1).fit(table)
    rows = fitted._table.encode(table)
    batch, columns = fitted._dataset(Data(rows)).batch(slice(None)), fitted._architecture.columns
    place = columns.parts["poisson"]
    counts = table["n_rings"].to_numpy()
    logs = np.log1p(counts)
    read = (logs - logs.mean()) / logs.std()
    np.testing.assert_allclose(batch.x[:, place].squeeze(1), read, atol=1e-5)
    np.testing.assert_array_equal(batch.y[:, place].squeeze(1), counts)
    start = fitted._architecture.start_output()[place]
    np.testing.assert_allclose(start.exp(), [counts.mean()], rtol=1e-5)
    if model is HelmholtzMachine:
        drawn = fitted.net_.module_.read(batch.y, None)
        np.testing.assert_allclose(drawn, batch.x, atol=1e-5)


@pytest.mark.parametrize(
    ("params", "named"),
    [
        ({"network": "conv", "image_shape": (1, 2, 3)}, "network='conv'"),
        ({"image_shape": (1, 2, 3)}, "image_shape"),
        ({"out_activation": "tanh"}, "out_activation='tanh'"),
        ({"pretraining": "rbm"}, "pretraining='rbm'"),
        ({"noise": "salt_and_pepper"}, "noise='salt_and_pepper'"),
    ],
)
def test_parameters_that_do_not_go_with_tables_are_named_first(params, named):
    with pytest.raises(ValueError, match=f"^{named}.* likelihood="):
        small(Autoencoder, likelihood=KINDS, **params).fit(make_table())
