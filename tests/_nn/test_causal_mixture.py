"""Causal mixtures and the densities made of them, by gradients, quadrature and closed forms."""

import itertools

import numpy as np
import pytest
import torch
from scipy import special, stats

from helpers import generator, normal64
from skae._modules.latent_density import (
    AutoregressiveDensity,
    CausalDensity,
    FlowDensity,
    TriangularMap,
)
from skae._nn.causal import CausalMixture, CausalScale, dilations_for
from skae._nn.mixture_heads import LEAST_LOG_SCALE
from skae._training.data import Batch

N = 5  # positions
PLAN = {
    "dilations": None,
    "n_mixture": 3,
    "mixture_kind": "gaussian",
    "n_channels": 6,
    "filter_size": 2,
    "position_embedding": False,
    "divisive_normalization": False,
    "input_transform": "triangular",
    "n_transforms": 2,
}
# What a causal mixture may be made with.
KINDS = {
    "plain": {},
    "relative": {"relative": True},
    "positions": {"position_embedding": True},
    "logistic": {"kind": "logistic"},
    "all": {"relative": True, "position_embedding": True, "n_orders": 2, "kind": "logistic"},
}
every_kind = pytest.mark.parametrize("params", KINDS.values(), ids=KINDS.keys())


def perturbed(model, size=0.3, seed=1):
    """In float64, with all weights moved."""
    model = model.double()
    numbers = generator(seed)
    with torch.no_grad():
        for values in model.parameters():
            step = torch.randn(values.shape, generator=numbers, dtype=torch.float64)
            values.add_(size * step)
    return model


def mixture(n=N, n_mixture=3, dilations=None, filter_size=2, size=0.3, **params):
    dilations = dilations_for(n, filter_size) if dilations is None else dilations
    model = CausalMixture(
        n, n_mixture, 6, dilations, generator(), filter_size=filter_size, **params
    )
    return perturbed(model, size)


def covariance(n=3, seed=0):
    root = np.random.default_rng(seed).normal(size=(n, 2 * n))
    return root @ root.T / n


def entries_of(S, orders):
    return [TriangularMap(S[np.ix_(order, order)]) for order in orders]


def density(n=3, orders=None, S=None, transformed=True, n_mixture=3, size=0.3, **params):
    """A causal density with perturbed weights, but its triangular maps as they start."""
    orders = np.arange(n)[None] if orders is None else np.array(orders)
    sequence = mixture(n, n_mixture, size=size, n_orders=len(orders), **params)
    entries = entries_of(covariance(n) if S is None else S, orders) if transformed else None
    return CausalDensity(sequence, torch.from_numpy(orders), entries).double()


def gaussian_density(S, orders=None):
    """One whose conditionals in u are all N(0, 1), whatever came before."""
    model = density(len(S), orders, S, n_mixture=1)
    leave = model.sequence.leave
    with torch.no_grad():
        leave.weight.zero_()
        leave.bias.copy_(torch.tensor([0.0, 0.0, LEAST_LOG_SCALE + np.log(np.expm1(9.0))]))
    return model


def grid(n, reach, n_points):
    """Points that lie close near zero and far apart elsewhere, and the log of their shares."""
    s = np.linspace(-np.arcsinh(reach), np.arcsinh(reach), n_points)
    each = np.log(np.cosh(s) * (s[1] - s[0]))
    points = np.stack(np.meshgrid(*[np.sinh(s)] * n, indexing="ij"), -1).reshape(-1, n)
    shares = sum(np.meshgrid(*[each] * n, indexing="ij")).reshape(-1)
    return torch.from_numpy(points), shares


def integral(log_prob, n, reach=2000.0, n_points=None):
    points, shares = grid(n, reach, n_points or (2001 if n == 1 else 301))
    with torch.no_grad():
        found = torch.cat([log_prob(part) for part in points.split(20_000)]).numpy()
    return np.exp(special.logsumexp(found + shares))


# ---------------------------------------------------------------------------- scales


def test_a_causal_scale_is_the_root_of_a_weighted_mean_of_squares():
    """Of numbers before and a one, with weights that are a softmax."""
    model, z = perturbed(CausalScale(N)), 3 * normal64(N, 4)
    logit, constant = (p.detach().numpy() for p in (model.logit, model.constant))
    expected = np.empty((N, 4))
    for t in range(N):
        weight = special.softmax(np.r_[logit[t, :t], constant[t]])
        expected[t] = 0.5 * np.log(weight[:t] @ z.numpy()[:t] ** 2 + weight[t])
    found = model.log_scales(z).detach()
    np.testing.assert_allclose(found, expected, rtol=1e-12, atol=1e-14)
    for n, first in itertools.product(range(1, N + 1), range(N)):
        if first < n:
            part = model.log_scales(z[:n], first).detach()
            np.testing.assert_allclose(part, expected[first:n], rtol=1e-12, atol=1e-14)


@pytest.mark.parametrize("value", [1.0, -1.0])
def test_a_causal_scale_of_ones_is_one(value):
    """Whatever the weights, which sum to one."""
    z = torch.full((N, 3), value, dtype=torch.float64)
    assert perturbed(CausalScale(N), 2.0).log_scales(z).abs().max() < 1e-15


def test_a_causal_scale_starts_with_more_weight_on_the_near():
    """A number counts more than those before it, at every position."""
    model = CausalScale(N).double()
    z = torch.ones((N, 1), dtype=torch.float64)
    of = torch.autograd.functional.jacobian(lambda z: model.log_scales(z)[:, 0], z)[..., 0]
    for t in range(2, N):
        assert (of[t, :t].diff() > 0).all()


def test_a_causal_scale_depends_on_earlier_numbers_only():
    """By its gradient, exactly; and a later number may be of any size."""
    model, z = perturbed(CausalScale(N)), normal64(N, 1)
    of = torch.autograd.functional.jacobian(lambda z: model.log_scales(z)[:, 0], z)[..., 0]
    assert torch.equal(of != 0, torch.ones(N, N).tril(-1).bool())
    moved = z.clone()
    moved[3:] = 1e100
    assert torch.equal(model.log_scales(z)[:4], model.log_scales(moved)[:4])


# ------------------------------------------------------------------------ causality

STACKS = {
    "reaching": {},
    "filters of three": {"filter_size": 3},
    "dilations": {"dilations": [1, 3]},
    "filters of three, dilations": {"filter_size": 3, "dilations": [2]},
}


@pytest.mark.parametrize("n_orders", [1, 3])
@pytest.mark.parametrize("positions", [False, True], ids=["nowhere", "positions"])
@pytest.mark.parametrize("relative", [False, True], ids=["absolute", "relative"])
@pytest.mark.parametrize("stack", STACKS.values(), ids=STACKS.keys())
def test_conditionals_depend_on_earlier_numbers_only(stack, relative, positions, n_orders):
    """By gradients, exactly; on those that the filters reach, or all by a scale."""
    params = {"relative": relative, "position_embedding": positions, "n_orders": n_orders}
    model = mixture(**stack, **params)
    filter_size = stack.get("filter_size", 2)
    dilations = stack.get("dilations", dilations_for(N, filter_size))
    taps = [[dilation * i for i in range(filter_size)] for dilation in dilations]
    reached = {1 + sum(steps) for steps in itertools.product(*taps)}
    z = normal64(N, 1)
    for order in range(n_orders):

        def parameters(z, order=order):
            return torch.cat([part[:, 0] for part in model.conditionals(z, order)[:3]], -1)

        of = torch.autograd.functional.jacobian(parameters, z)[..., 0]
        depends = (of != 0).any(1)
        for i, j in itertools.product(range(N), range(N)):
            assert depends[i, j] == (j < i and (relative or i - j in reached))


def test_orders_share_the_network_and_nothing_else():
    """Each has positions, starts and scales of its own, by gradients; else they are the same."""
    z = normal64(N, 7)
    model = mixture(n_orders=2, relative=True, position_embedding=True)
    for order in (0, 1):
        model.zero_grad()
        model.log_prob(z.T, order).sum().backward()
        for values in (model.position, model.start):
            used = (values.grad != 0).flatten(1)
            assert used[order].all()
            assert not used[1 - order].any()
        assert (model.scales[order].constant.grad[1:] != 0).all()
        assert not any(p.grad is not None for p in model.scales[1 - order].parameters())
        assert all(p.grad.any() for p in model.network.parameters())
    plain = mixture(n_orders=2)
    assert torch.equal(plain.log_prob(z.T, 0), plain.log_prob(z.T, 1))


def test_a_mask_tells_a_zero_from_no_number():
    """What position 1 reads of a zero is not what position 0 reads, but for the mask."""
    model = mixture(2, dilations=[5])  # each position reads its input alone
    z = torch.zeros((2, 1), dtype=torch.float64)
    found = model.conditionals(z)
    assert not torch.isclose(found.mean[0], found.mean[1]).any()
    with torch.no_grad():
        model.enter.weight[:, 1].zero_()
    found = model.conditionals(z)
    assert torch.equal(found.mean[0], found.mean[1])


@every_kind
def test_log_probabilities_are_those_of_the_conditionals(params):
    """At each position its own, by SciPy's laws of the components, in units of the scale."""
    model, z = mixture(**params), normal64(7, N)
    found = model.log_prob(z).detach()
    parts = model.conditionals(z.T)
    weight, mean, log_scale = (part.detach().numpy() for part in parts[:3])
    law = stats.logistic if params.get("kind") == "logistic" else stats.norm
    each = weight + law(mean, np.exp(log_scale)).logpdf(z.T.numpy()[..., None])
    np.testing.assert_allclose(found.T, special.logsumexp(each, -1), rtol=1e-10)


@pytest.mark.parametrize("n", [1, 2])
@every_kind
def test_a_causal_mixture_integrates_to_one(params, n):
    """By quadrature."""
    model = mixture(n, **params)
    for order in range(params.get("n_orders", 1)):
        found = integral(lambda z, order=order: model.log_prob(z, order).sum(1), n)
        assert found == pytest.approx(1.0, abs=1e-6)


# --------------------------------------------------------------------- number by number


@every_kind
@pytest.mark.parametrize("filter_size", [2, 3])
def test_unfolding_gives_the_conditionals_of_one_pass(params, filter_size):
    """With a cache and without, number by number, in every order."""
    model, u = mixture(filter_size=filter_size, **params), normal64(7, N, seed=4)
    for order in range(params.get("n_orders", 1)):
        found, seen = [], []
        for cached in (True, False):
            told = []

            def choose(t, mixtures, told=told):
                assert t == len(told)
                told.append(mixtures)
                return mixtures.from_normal(u[:, t])

            with torch.no_grad():
                found.append(model.unfold(7, choose, order, cached=cached))
            seen.append(told)
        assert found[0].shape == (7, N)
        assert found[0].dtype == torch.float64
        torch.testing.assert_close(found[0], found[1], rtol=1e-9, atol=1e-9)
        at_once = model.conditionals(found[0].T, order)
        for told, (i, name) in itertools.product(seen, enumerate(at_once._fields[:3])):
            steps = torch.stack([getattr(mixtures, name) for mixtures in told])
            torch.testing.assert_close(steps, at_once[i].detach(), rtol=1e-8, atol=1e-8)
        back = at_once.to_normal(found[0].T).T
        torch.testing.assert_close(back, u, rtol=1e-8, atol=1e-8)


@every_kind
def test_unfolded_draws_have_the_density(params):
    """Their conditional quantiles are independent N(0, 1); with other weights they are not."""
    model = mixture(2, size=0.5, **params)
    numbers = generator(3)
    with torch.no_grad():
        z = model.unfold(10_000, lambda t, mixtures: mixtures.draw(numbers))
        u = model.conditionals(z.T).to_normal(z.T).numpy()
        other = mixture(2, size=0.8, **params).conditionals(z.T).to_normal(z.T).numpy()
    for values in u:
        assert stats.kstest(values, stats.norm.cdf).pvalue > 1e-3
    assert abs(stats.spearmanr(*u).statistic) < 5 / 100
    assert abs(stats.spearmanr(*np.abs(u)).statistic) < 5 / 100
    assert stats.kstest(other[1], stats.norm.cdf).pvalue < 1e-6


# -------------------------------------------------------------------- triangular maps


def test_a_triangular_map_starts_white():
    """W S W' = I, up to float32 and the floor of 1e-6 on variances."""
    S = covariance(6)
    W = TriangularMap(S).matrix().detach().numpy().astype(np.float64)
    np.testing.assert_allclose(W @ (S + 1e-6 * np.eye(6)) @ W.T, np.eye(6), atol=2e-5)
    np.testing.assert_array_equal(np.triu(W, 1), 0.0)
    assert (np.diag(W) > 0).all()
    singular = TriangularMap(np.ones((3, 3))).matrix()
    assert singular.isfinite().all()


def test_a_triangular_map_and_its_inverse():
    """Perturbed, it is still lower triangular with a positive diagonal; of any columns."""
    entry, z = perturbed(TriangularMap(covariance(6)), 1.0), normal64(9, 6)
    W, u = entry.matrix(), entry(z)
    assert torch.equal(W, W.tril())
    assert W.diagonal().min() > 0
    np.testing.assert_allclose(u.detach(), z.numpy() @ W.detach().numpy().T, rtol=1e-12)
    for k in range(1, 7):
        torch.testing.assert_close(entry.inverse(u[:, :k]), z[:, :k], rtol=1e-7, atol=1e-7)
    of = torch.autograd.functional.jacobian(lambda z: entry(z[None])[0], z[0])
    assert entry.log_det().item() == pytest.approx(torch.linalg.slogdet(of)[1].item(), abs=1e-10)


# ---------------------------------------------------------------------- densities of codes

ORDERS = [[0, 1, 2], [2, 1, 0], [1, 2, 0]]


@pytest.mark.parametrize("n_orders", [1, 3])
def test_standard_conditionals_make_the_gaussian(n_orders):
    """Of the covariance that the triangular maps were given, whatever the orders."""
    S, z = covariance(3), normal64(20, 3).numpy()
    model = gaussian_density(S, ORDERS[:n_orders])
    expected = stats.multivariate_normal(np.zeros(3), S + 1e-6 * np.eye(3)).logpdf(z)
    np.testing.assert_allclose(model.log_prob(torch.tensor(z)).detach(), expected, atol=2e-5)


def test_orders_are_averaged_as_densities():
    """The log of the mean of p(z) in each order."""
    model, z = density(3, ORDERS, position_embedding=True), normal64(20, 3)
    each = np.stack([model.log_prob_in(z, i).detach().numpy() for i in range(3)])
    assert np.ptp(each, axis=0).min() > 1e-3
    expected = special.logsumexp(each, axis=0) - np.log(3)
    np.testing.assert_allclose(model.log_prob(z).detach(), expected, rtol=1e-12)


@pytest.mark.parametrize("transformed", [True, False], ids=["triangular", "untransformed"])
@every_kind
def test_a_density_integrates_to_one_in_every_order(params, transformed):
    """Also when the triangular maps have moved."""
    params = {name: value for name, value in params.items() if name != "n_orders"}
    S = np.array([[1.0, 0.5], [0.5, 1.0]])
    model = density(2, [[0, 1], [1, 0]], S, transformed, **params)
    if transformed:
        perturbed(model.entries, 0.3)
    for order in range(2):
        reach = 2000.0 if params.get("relative") else 150.0
        found = integral(lambda z, order=order: model.log_prob_in(z, order), 2, reach, 401)
        assert found == pytest.approx(1.0, abs=1e-3)


@pytest.mark.parametrize("transformed", [True, False], ids=["triangular", "untransformed"])
@every_kind
def test_normal_numbers_of_codes_are_a_change_of_variables(params, transformed):
    """log p(z) = log N(u; 0, I) + log |du/dz|, by finite differences; and back."""
    params = {name: value for name, value in params.items() if name != "n_orders"}
    model = density(3, [[2, 0, 1]], transformed=transformed, **params)
    z, step = normal64(6, 3), 1e-5
    with torch.no_grad():
        u = model.to_normal(z)
        slopes = [
            (model.to_normal(z + move) - model.to_normal(z - move)) / (2 * step)
            for move in step * torch.eye(3, dtype=torch.float64)
        ]
        log_det = torch.linalg.slogdet(torch.stack(slopes, -1))[1].numpy()
        expected = stats.norm.logpdf(u).sum(1) + log_det
        np.testing.assert_allclose(model.log_prob(z), expected, atol=1e-6)
        torch.testing.assert_close(model.from_normal(u), z, rtol=1e-8, atol=1e-8)


@pytest.mark.parametrize("order", [0, 1, 2])
@pytest.mark.parametrize("cached", [True, False])
def test_samples_of_an_order_are_the_gaussians(order, cached):
    """With standard conditionals: by Kolmogorov and Smirnov, whitened by SciPy's root."""
    S = covariance(3)
    model = gaussian_density(S, ORDERS)
    with torch.no_grad():
        z = model.sample(5000, generator(), order=order, cached=cached).numpy()
    u = np.linalg.solve(np.linalg.cholesky(S), z.T)
    assert np.abs(np.corrcoef(u) - np.eye(3)).max() < 5 / np.sqrt(5000)
    for values in u:
        assert stats.kstest(values, stats.norm.cdf).pvalue > 1e-3


@pytest.mark.parametrize("order", [[0, 1, 2, 3], [1, 0, 3, 2]], ids=str)
def test_samples_given_the_first_codes(order):
    """Those stay; the others have the Gaussian's conditional law."""
    S, n = covariance(4), 5000
    model = gaussian_density(S, [order])
    known = normal64(n, 2, seed=3)
    with torch.no_grad():
        z = model.sample(n, generator(), known)
    torch.testing.assert_close(z[:, :2], known, rtol=1e-9, atol=1e-9)
    slope = np.linalg.solve(S[:2, :2], S[:2, 2:])
    rest = z[:, 2:].numpy() - known.numpy() @ slope
    u = np.linalg.solve(np.linalg.cholesky(S[2:, 2:] - S[2:, :2] @ slope), rest.T)
    for values in u:
        assert stats.kstest(values, stats.norm.cdf).pvalue > 1e-3
    every = np.corrcoef(np.vstack([u, known.numpy().T]))
    assert np.abs(every - np.eye(4)).max() < 5 / np.sqrt(n)


# ---------------------------------------------------------------- as modules that are trained


def module(orders=((0, 1, 2),), **params):
    orders = np.array(orders)
    S = covariance(orders.shape[1])
    return AutoregressiveDensity(PLAN | params, orders, S, generator())


def batch_of(z, weight=None):
    return Batch(z, z, weight=weight)


def test_orders_are_drawn_in_training_only():
    """One for a batch, each as often; the loss is then that of the order, and else of the mean."""
    model, z = module(ORDERS, position_embedding=True), normal64(9, 3).float()
    weight = torch.rand(9, generator=generator())
    batch, numbers = batch_of(z, weight), generator()
    model.train()
    drawn = [int(model.prepare(batch, numbers).draws) for _ in range(600)]
    assert stats.chisquare(np.bincount(drawn, minlength=3)).pvalue > 1e-3
    for order in range(3):
        terms = model.loss(batch._replace(draws=torch.tensor([order]))).terms
        expected = np.average(model.density.log_prob_in(z, order).detach(), weights=weight)
        assert terms["density"].item() == pytest.approx(-expected, rel=1e-5)
    assert model.eval().prepare(batch, numbers) is batch
    expected = np.average(model.log_prob(z).detach(), weights=weight)
    assert model.loss(batch).terms["density"].item() == pytest.approx(-expected, rel=1e-5)
    alone = module().train()
    assert alone.prepare(batch, numbers) is batch


def test_which_weights_decay_and_which_steps_are_orthogonalised():
    """Matrices of layers; not positions, starts, scales, maps, biases and norms."""
    params = {"position_embedding": True, "divisive_normalization": True}
    model = module(ORDERS, **params)
    names = {id(p): name for name, p in model.named_parameters()}
    decayed = {names[id(p)] for p in model.decayed()}
    matrices = {names[id(p)] for p in model.matrices()}
    n_blocks = len(model.density.sequence.network.blocks)
    blocks = {
        f"density.sequence.network.blocks.{i}.{layer}.weight"
        for i in range(n_blocks)
        for layer in ("enter", "leave")
    }
    assert matrices == blocks
    assert decayed == blocks | {"density.sequence.enter.weight", "density.sequence.leave.weight"}
    assert len(model.decayed()) == len(decayed)


def test_samples_take_every_order():
    """As often; rows of an order are its own draws, wherever they stand."""
    model = module([[0, 1], [1, 0]], position_embedding=True, input_transform=None).eval()
    with torch.no_grad():  # in the second order, numbers are around 100
        for part, mean in zip(model.density.sequence.start, (0.0, 100.0), strict=True):
            part[:, 3:6] += mean
        z = model.sample(3000, generator())
    far = (z > 50).all(1)
    assert ((z < 50).all(1) | far).all()
    assert stats.binomtest(int(far.sum()), 3000).pvalue > 1e-3
    assert stats.binomtest(int((far[1:] != far[:-1]).sum()), 2999).pvalue > 1e-3


def test_samples_of_a_module_have_its_density():
    """Conditional quantiles of draws are N(0, 1)."""
    model = module([[1, 0, 2]])
    perturbed(model.density, 0.5).float()
    model.eval()
    with torch.no_grad():
        z = model.sample(5000, generator()).double()
        u = model.density.double().to_normal(z)
    for values in u.numpy().T:
        assert stats.kstest(values, stats.norm.cdf).pvalue > 1e-3


# ----------------------------------------------------------------------------- flows


def flow(n_codes):
    pytest.importorskip("zuko")
    return FlowDensity(n_codes, PLAN, generator())


def test_a_flow_integrates_to_one():
    """Of one number, by quadrature."""
    model = perturbed(flow(1)).float()
    found = integral(lambda z: model.log_prob(z.float()).double(), 1, 20.0, 8001)
    assert found == pytest.approx(1.0, abs=1e-3)


def test_a_flow_leaves_torchs_generator_alone():
    """Weights and samples are seeded by the generator that is given."""
    before = torch.get_rng_state()
    model, again = flow(2), flow(2)
    with torch.no_grad():
        first, same, other = (model.sample(50, generator(seed)) for seed in (0, 0, 1))
    assert torch.equal(before, torch.get_rng_state())
    for values, others in zip(model.parameters(), again.parameters(), strict=True):
        assert torch.equal(values, others)
    assert torch.equal(first, same)
    assert not torch.isclose(first, other).any()


def test_samples_of_a_flow_have_its_density():
    """Of one number, by Kolmogorov and Smirnov against the integral of the density."""
    model = perturbed(flow(1)).float()
    z = np.linspace(-12, 12, 8001)
    with torch.no_grad():
        p = model.log_prob(torch.tensor(z[:, None], dtype=torch.float32)).exp().numpy()
        drawn = model.sample(10_000, generator())[:, 0].numpy()
    reached = np.cumsum(p.astype(np.float64)) * (z[1] - z[0])
    assert stats.kstest(drawn, lambda x: np.interp(x, z, reached)).pvalue > 1e-3
