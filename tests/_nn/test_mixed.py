"""Tables of several likelihoods, and categories among them, against SciPy column by column."""

import copy

import numpy as np
import pytest
import torch
from scipy import special, stats

from helpers import generator, normal, normal64, tensor
from skae._nn.likelihoods import NoiseSums
from skae._nn.mixed import LOCATED, SUPPORTS, Categorical, Mixed
from skae._training.columns import Columns

SIZES = (3, 2, 7)
ENDS = np.cumsum(SIZES)[:-1]
KINDS = ("categorical", "poisson", "gaussian", "categorical", "bernoulli", "laplace", "gaussian")
KINDS += ("continuous_bernoulli",)
COLUMNS = Columns(KINDS, (3, 0, 0, 2, 0, 0, 0, 0))
# By column of the table; 1 of those without noise.
VARIANCES = np.array([1, 1, 0.3, 1, 1, 2.0, 0.05, 1])
IN_NETWORK = COLUMNS.source.numpy()


def levels_of(j):
    """Where a column of the table stands in the network."""
    return np.flatnonzero(np.equal(IN_NETWORK, j))


def by_column(values):
    """Split by the columns that the levels are of."""
    return np.split(np.asarray(values), ENDS, axis=-1)


def log_softmax(logit):
    return np.concatenate([special.log_softmax(part, axis=-1) for part in by_column(logit)], -1)


def one_hot(n_rows, sizes=SIZES, seed=0):
    rng = np.random.default_rng(seed)
    return tensor(np.hstack([np.eye(n)[rng.integers(n, size=n_rows)] for n in sizes]))


# ------------------------------------------------------------------------ categories


@pytest.mark.parametrize(("dtype", "rtol"), [(torch.float64, 1e-12), (torch.float32, 3e-6)])
@pytest.mark.parametrize("scale", [0.0, 1.0, 10.0])
@pytest.mark.parametrize("shift", [0.0, -300.0, 1000.0])
def test_log_chances_are_those_of_a_softmax_for_each_column(dtype, rtol, scale, shift):
    """What is added to all logits of a column changes nothing but by rounding."""
    logit = scale * normal64(50, sum(SIZES))
    logit = (logit + shift * tensor([1.0] * 3 + [0.0] * 2 + [-1.0] * 7)).to(dtype)
    found = Categorical(SIZES).log_chances(logit)
    assert found.dtype == dtype
    expected = log_softmax(logit.double())
    size = 1 + np.abs(logit.double().numpy()).max()
    np.testing.assert_allclose(found.double(), expected, rtol=rtol, atol=rtol * size)


def test_the_log_mass_is_that_of_the_level_of_each_column():
    x, logit = one_hot(40), 3 * normal64(40, sum(SIZES))
    found = Categorical(SIZES).log_prob(x, logit).numpy()
    for values, of_row, own in zip(*map(by_column, (x, found, logit)), strict=True):
        level = values.argmax(1)
        expected = stats.multinomial.logpmf(values, 1, special.softmax(own, axis=1))
        np.testing.assert_allclose(of_row.sum(1), expected, rtol=1e-9)
        assert (np.delete(of_row, level[0], axis=1)[0] == 0).all()


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
@pytest.mark.parametrize("size", [1e2, 1e4])
def test_extreme_logits_have_finite_masses_and_gradients_and_sum_to_one(size, dtype):
    """They count as 60 above their mean at most: beyond, levels are equally likely."""
    rng = np.random.default_rng(0)
    logit = tensor(size * rng.permuted(np.tile(np.arange(7.0) - 3.5, (20, 1)), axis=1), dtype)
    logit.requires_grad_()
    found = Categorical((7,)).log_chances(logit)
    found.sum().backward()
    assert logit.grad.isfinite().all()
    given = logit.detach().double().numpy()
    expected = special.log_softmax(np.minimum(given - given.mean(1, keepdims=True), 60), axis=1)
    np.testing.assert_allclose(found.detach(), expected, rtol=1e-5, atol=1e-5)
    np.testing.assert_allclose(found.detach().double().exp().sum(1), 1.0, rtol=1e-5)


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
@pytest.mark.parametrize("size", [1e6, 1e10, 1e30])
@pytest.mark.parametrize("sign", [-1, 1])
def test_a_row_far_from_all_others_has_finite_masses(size, dtype, sign):
    """Of equal logits beyond 1e8 rounding makes what it likes of the mean, but no gain."""
    logit = sign * size * torch.tensor([[1.0] * 3 + [-1.0] * 2 + [1.0] * 7], dtype=dtype)
    found = Categorical(SIZES).log_chances(logit)
    assert found.isfinite().all()
    assert (found <= 0).all()
    if size == 1e6:
        np.testing.assert_allclose(found, -np.log([[3] * 3 + [2] * 2 + [7] * 7]), rtol=1e-5)


@pytest.mark.parametrize("size", [15.0, 100.0, 1e5])
def test_of_two_levels_the_likelier_one_is_sure_however_far_they_are(size):
    found = Categorical((2,)).log_chances(tensor([[size, -size]]))
    expected = [0.0, -min(2 * size, size + 60)]
    np.testing.assert_allclose(found[0], expected, rtol=1e-12, atol=1e-12)


def test_probabilities_of_each_column_sum_to_one():
    chance = Categorical(SIZES).mean(5 * normal(100, sum(SIZES)))
    for own in by_column(chance):
        np.testing.assert_allclose(own.sum(1), 1.0, rtol=1e-5)


def test_gradients_of_categories_are_finite_differences():
    module, x = Categorical(SIZES), one_hot(4)
    logit = (2 * normal64(4, sum(SIZES), seed=1)).requires_grad_()
    assert torch.autograd.gradcheck(lambda a: module.log_prob(x, a), logit)
    assert torch.autograd.gradcheck(lambda a: module.row_log_prob(x, a), logit)


def test_the_gradient_is_the_level_less_its_probability():
    """Also in float32."""
    x, logit = one_hot(30), normal(30, sum(SIZES), seed=1).requires_grad_()
    Categorical(SIZES).row_log_prob(x.float(), logit).sum().backward()
    expected = x.numpy() - np.exp(log_softmax(logit.detach().double()))
    np.testing.assert_allclose(logit.grad, expected, atol=1e-6)


def test_natural_gives_the_logits_of_frequencies():
    """Also of levels that are never seen: they keep a small chance."""
    frequency = tensor([[0.2, 0.5, 0.3, 1.0, 0.0, *[1 / 7] * 7]])
    module = Categorical(SIZES)
    natural = module.natural(frequency)
    np.testing.assert_allclose(module.mean(natural), frequency, atol=2e-4)
    assert (module.mean(natural) > 5e-5).all()


def test_a_uniform_number_tells_the_level_by_the_inverse_of_the_distribution_function():
    """Its first number of each column; of SciPy's discrete law the least level enough."""
    logit = 2 * normal64(1, sum(SIZES)).expand(500, -1)
    uniform = torch.rand(500, sum(SIZES), generator=generator(), dtype=torch.float64)
    found = by_column(Categorical(SIZES).at(logit, uniform))
    for start, own, of_column in zip([0, *ENDS], found, by_column(logit[0]), strict=True):
        law = stats.rv_discrete(values=(np.arange(own.shape[1]), special.softmax(of_column)))
        assert set(own.sum(1)) == {1.0}
        np.testing.assert_array_equal(own.argmax(1), law.ppf(uniform[:, start]))


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_at_the_ends_of_the_uniform_numbers_there_is_a_level(dtype):
    """Whatever the rounding of sums of many probabilities."""
    sizes = (1000, 2)
    module, logit = Categorical(sizes), normal(64, sum(sizes)).to(dtype)
    low, high = (torch.full_like(logit, u) for u in (0.0, 1 - 2.0**-24))
    for found in (module.at(logit, low), module.at(logit, high)):
        np.testing.assert_array_equal(found[:, :1000].sum(1), 1.0)
        np.testing.assert_array_equal(found[:, 1000:].sum(1), 1.0)
    assert (module.at(logit, low)[:, 0] == 1).all()


@pytest.mark.parametrize("how", ["draw", "at"])
def test_draws_have_the_probabilities(how):
    """By a chi-square test for each column; columns are drawn independently of each other."""
    n, logit = 20_000, normal(1, sum(SIZES), seed=3).expand(20_000, -1)
    module = Categorical(SIZES)
    if how == "draw":
        drawn = module.draw(logit, generator())
    else:
        drawn = module.at(logit, torch.rand(logit.shape, generator=generator()))
    levels, laws = [], []
    for own, part in zip(*map(by_column, (drawn, logit[0])), strict=True):
        levels.append(own.argmax(1))
        laws.append(special.softmax(part.astype(np.float64)))
    for level, law in zip(levels, laws, strict=True):
        counts = np.bincount(level, minlength=len(law))
        assert stats.chisquare(counts, n * law).pvalue > 1e-3
    pairs = np.bincount(levels[0] * 2 + levels[1], minlength=6)
    assert stats.chisquare(pairs, n * np.outer(laws[0], laws[1]).ravel()).pvalue > 1e-3


def test_draws_of_many_axes_are_those_of_each_row():
    logit = normal(5, 4, sum(SIZES))
    uniform = torch.rand(logit.shape, generator=generator())
    module = Categorical(SIZES)
    expected = module.at(logit.flatten(0, 1), uniform.flatten(0, 1)).unflatten(0, (5, 4))
    assert torch.equal(module.at(logit, uniform), expected)


def test_log_masses_are_computed_in_full_precision_under_autocast():
    logit = normal(20, sum(SIZES))
    module = Categorical(SIZES)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        found = module.log_chances(logit)
    assert torch.equal(found, module.log_chances(logit))


# -------------------------------------------------------------------------- mixtures


def mixed(noise=None, columns=COLUMNS):
    """With the variances of above, given or set."""
    module = Mixed(columns, noise, 1e-4)
    if noise is None:
        module.variance.copy_(tensor(VARIANCES[IN_NETWORK]))
    return module


def table(n_rows=30, seed=0):
    """Rows of the table that every kind allows."""
    rng = np.random.default_rng(seed)
    columns = {
        "categorical": lambda j: rng.integers((3, 0, 0, 2)[j], size=n_rows),
        "poisson": lambda j: rng.poisson(3.0, n_rows),
        "bernoulli": lambda j: rng.integers(2, size=n_rows),
        "continuous_bernoulli": lambda j: rng.random(n_rows),
    }
    normal_ = lambda j: rng.normal(size=n_rows)  # noqa: E731
    return np.stack([columns.get(kind, normal_)(j) for j, kind in enumerate(KINDS)], 1)


def column_log_probs(rows, output):
    """Nats of each column of the table, (..., n_columns), by SciPy."""
    output, found = np.asarray(output), []
    for j, kind in enumerate(KINDS):
        x, own = rows[..., j], output[..., levels_of(j)]
        scale = VARIANCES[j] ** 0.5
        match kind:
            case "categorical":
                nats = special.log_softmax(own, axis=-1)
                level = np.broadcast_to(x.astype(int), own.shape[:-1])[..., None]
                found.append(np.take_along_axis(nats, level, -1)[..., 0])
            case "gaussian":
                found.append(stats.norm.logpdf(x, own[..., 0], scale))
            case "laplace":
                found.append(stats.laplace.logpdf(x, own[..., 0], scale / 2**0.5))
            case "poisson":
                found.append(stats.poisson.logpmf(x, np.exp(own[..., 0])))
            case "bernoulli":
                sign = np.where(x == 1, 1.0, -1.0)
                found.append(special.log_expit(sign * own[..., 0]))
            case "continuous_bernoulli":  # a truncated exponential, its scale -1 / logit
                a = own[..., 0]
                norm = np.log(np.expm1(a) / a)
                found.append(x * a - norm)
    return np.stack(found, -1)


@pytest.mark.parametrize("n_draws", [None, 4])
@pytest.mark.parametrize("holes", [False, True])
def test_a_row_scores_the_sum_over_its_columns(holes, n_draws):
    """Of those that were seen; rows are broadcast over draws of outputs."""
    rows = table()
    shape = (len(rows), COLUMNS.width) if n_draws is None else (len(rows), n_draws, COLUMNS.width)
    output = normal64(*shape)
    seen = np.random.default_rng(2).random(rows.shape) < 0.6 if holes else np.ones(rows.shape)
    x = COLUMNS.expand(tensor(rows))
    of_levels = tensor(seen[:, IN_NETWORK]) if holes else None
    x = x if of_levels is None else x * of_levels  # as rows are, where values were not seen
    if n_draws is not None:
        rows, seen, x = rows[:, None], seen[:, None], x[:, None]
        of_levels = of_levels[:, None] if holes else None
    module = mixed().double()
    expected = column_log_probs(rows, output)
    found = module.row_log_prob(x, output, of_levels)
    np.testing.assert_allclose(found, (expected * seen).sum(-1), rtol=1e-6)
    nats = COLUMNS.total(module.log_prob(x, output)).numpy()
    np.testing.assert_allclose(nats * seen, expected * seen, rtol=1e-6, atol=1e-9)


def test_means_are_those_of_each_column():
    output = normal64(20, COLUMNS.width)
    mean = mixed().mean(output).numpy()
    for j, kind in enumerate(KINDS):
        part = levels_of(j)
        own = output.numpy()[:, part]
        match kind:
            case "categorical":
                expected = special.softmax(own, axis=1)
            case "poisson":
                expected = np.exp(own)
            case "bernoulli":
                expected = special.expit(own)
            case "continuous_bernoulli":
                expected = 1 / (1 - np.exp(-own)) - 1 / own
            case _:
                expected = own
        np.testing.assert_allclose(mean[:, part], expected, rtol=1e-6, atol=1e-9)


def test_draws_have_the_mean_and_variance_of_each_column():
    n = 40_000
    output = normal(1, COLUMNS.width, seed=4).expand(n, -1)
    module = mixed()
    uniform = torch.rand(output.shape, generator=generator(1))
    for drawn in (module.draw(output, generator()), module.at(output, uniform)):
        mean, values = module.mean(output[:1]).double().numpy()[0], drawn.double().numpy()
        error = values.mean(0) - mean
        assert (np.abs(error) < 5 * values.std(0) / n**0.5).all()
        located = COLUMNS.among(LOCATED).numpy()
        wanted = VARIANCES[IN_NETWORK][located]
        np.testing.assert_allclose(values.var(0)[located], wanted, rtol=0.06)
        rate = mean[COLUMNS.parts["poisson"]]
        np.testing.assert_allclose(values.var(0)[COLUMNS.parts["poisson"]], rate, rtol=0.06)


def test_natural_is_inverted_by_the_mean_in_every_part():
    mean = mixed().mean(normal(1, COLUMNS.width))
    module = mixed()
    np.testing.assert_allclose(module.mean(module.natural(mean)), mean, atol=2e-3)


@pytest.mark.parametrize("weighted", [False, True])
@pytest.mark.parametrize("holes", [False, True])
def test_the_noise_of_each_column_is_its_most_likely(holes, weighted):
    """Mean squared errors of Gaussians, twice the squared mean error of Laplace's; else 1."""
    rows, output = table(200), normal64(200, COLUMNS.width, seed=1)
    rng = np.random.default_rng(3)
    seen = rng.random(rows.shape) < 0.7 if holes else np.ones(rows.shape, dtype=bool)
    weight = rng.random(200) + 0.5 if weighted else np.ones(200)
    module = Mixed(COLUMNS, None, 1e-4)
    assert module.learned
    x, output = COLUMNS.expand(tensor(rows)).float(), output.float()
    of_levels, of_rows = (tensor(t, torch.float32) for t in (seen[:, IN_NETWORK], weight))
    given = of_rows if weighted else None, of_levels if holes else None
    sums = NoiseSums(module)
    for part in (slice(0, 70), slice(70, 200)):
        sums.add(x[part], output[part], *(None if t is None else t[part] for t in given))
    sums.settle()
    followed = Mixed(COLUMNS, None, 1e-4)
    followed.follow(x, output, *given)
    expected = np.ones(COLUMNS.width)
    for j, kind in enumerate(KINDS):
        i = int(COLUMNS.place[j])
        error = np.abs(rows[:, j] - output[:, i].numpy())
        counts = weight * seen[:, j]
        if kind == "gaussian":
            expected[i] = np.average(error**2, weights=counts)
        if kind == "laplace":
            expected[i] = 2 * np.average(error, weights=counts) ** 2
    np.testing.assert_allclose(module.variance, expected, rtol=1e-5)
    np.testing.assert_allclose(followed.variance, expected, rtol=1e-5)


def test_a_given_noise_stays_and_is_of_located_columns_alone():
    module = Mixed(COLUMNS, 0.3, 1e-4)
    expected = np.where(COLUMNS.among(("gaussian", "laplace")), np.float32(0.3), 1.0)
    x, output = COLUMNS.expand(tensor(table())), normal64(30, COLUMNS.width)
    module.follow(x, output, None, None)
    sums = NoiseSums(module)
    sums.add(x, output, None, None)
    sums.settle()
    assert not module.learned
    np.testing.assert_allclose(module.variance, expected)


def test_a_table_of_categories_and_coins_has_no_noise_to_learn():
    columns = Columns(("bernoulli", "categorical"), (0, 3))
    assert not Mixed(columns, None, 1e-4).learned


def test_gradients_of_mixtures_are_finite_differences():
    module, x = mixed().double(), COLUMNS.expand(tensor(table(3)))
    output = normal64(3, COLUMNS.width, seed=1).requires_grad_()
    assert torch.autograd.gradcheck(lambda a: module.row_log_prob(x, a), output)
    seen = tensor((np.random.default_rng(0).random((3, 8)) < 0.5)[:, IN_NETWORK].astype(float))
    assert torch.autograd.gradcheck(lambda a: module.row_log_prob(x * seen, a, seen), output)


def test_noise_is_held_once():
    """Copies have noise of their own, and what is saved is the variance and its updates."""
    module = mixed()
    assert set(module.state_dict()) == {"variance", "n_updates"}
    other = copy.deepcopy(module)
    other.set_variance(torch.full((COLUMNS.width,), 9.0))
    x, output = COLUMNS.expand(tensor(table())).float(), normal(30, COLUMNS.width)
    expected = column_log_probs(table(), output.double())
    np.testing.assert_allclose(module.row_log_prob(x, output), expected.sum(1), rtol=1e-4)
    assert (other.row_log_prob(x, output) != module.row_log_prob(x, output)).all()


def test_supports_are_those_of_each_kind():
    assert set(SUPPORTS) == {*KINDS}
    assert SUPPORTS["poisson"] == (0.0, np.inf)
    assert SUPPORTS["bernoulli"] == SUPPORTS["continuous_bernoulli"] == (0.0, 1.0)
