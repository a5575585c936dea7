"""Causal networks by their gradients, and the distribution they give by enumeration."""

import itertools

import numpy as np
import pytest
import torch
from scipy import special, stats

import skae._nn.causal as causal
from helpers import generator, normal64
from skae._nn.causal import CausalCategorical, CausalNetwork, dilations_for

# Of a filter size and dilations: some leave gaps, some look further back than there are positions.
STACKS = [(2, [1]), (2, [1, 2, 4]), (2, [1, 3]), (3, [1, 3]), (3, [2]), (2, [20])]
N_VALUES, N_POSITIONS = 3, 4


def causal_network(filter_size, dilations, n_channels=5):
    return CausalNetwork(n_channels, dilations, generator(), filter_size).double()


def read_by(model, n_positions, n_channels=5):
    """Whether an output position (rows) depends on an input position, by its gradient."""
    h = normal64(n_positions, n_channels)
    jacobian = torch.autograd.functional.jacobian(lambda h: model(h[:, None])[:, 0], h)
    return jacobian.abs().amax((1, 3)) > 1e-12


def log_shares(n_positions=N_POSITIONS, n_values=N_VALUES, seed=0):
    return normal64(n_positions, n_values, seed=seed).log_softmax(-1)


def vectors_of(n_tables, n_values=N_VALUES, seed=8):
    return normal64(n_tables, n_values, 2, seed=seed)


def sequence_law(n_tables=1, n_positions=N_POSITIONS, *, spread=1.0):
    """A distribution over sequences whose positions depend on each other."""
    shares = log_shares(n_positions)
    model = CausalCategorical(shares, vectors_of(n_tables), 6, generator()).double()
    with torch.no_grad():
        for seed, values in enumerate((model.leave, model.own_leave)):
            values.copy_(0.7 * spread * normal64(*values.shape, seed=seed))
    return model


def every_sequence(n_positions=N_POSITIONS, n_values=N_VALUES):
    return torch.tensor(list(itertools.product(range(n_values), repeat=n_positions)))


# --------------------------------------------------------------------------- network


@pytest.mark.parametrize(("filter_size", "dilations"), STACKS, ids=str)
def test_positions_depend_on_those_the_filters_reach(filter_size, dilations):
    """On sums of their taps and nothing else: so never on a later position."""
    taps = [[dilation * i for i in range(filter_size)] for dilation in dilations]
    reached = {sum(steps) for steps in itertools.product(*taps)}
    found = read_by(causal_network(filter_size, dilations), 9)
    for t, s in itertools.product(range(9), range(9)):
        assert found[t, s] == (t - s in reached)


@pytest.mark.parametrize(("filter_size", "dilations"), STACKS, ids=str)
def test_steps_are_the_positions_of_one_pass(filter_size, dilations):
    """Position by position, with a memory of those before."""
    model, h = causal_network(filter_size, dilations), normal64(11, 3, 5)
    memory = model.memory()
    steps = [model.step(h[t], memory) for t in range(11)]
    torch.testing.assert_close(torch.stack(steps), model(h), rtol=1e-12, atol=1e-12)


def test_a_memory_is_new_each_time():
    """Sequences that follow each other do not see the ones before."""
    model, h = causal_network(2, [1, 2]), normal64(4, 3, 5)
    for _ in range(2):
        memory = model.memory()
        last = [model.step(h[t], memory) for t in range(4)][-1]
        torch.testing.assert_close(last, model(h)[-1], rtol=1e-12, atol=1e-12)


@pytest.mark.parametrize("filter_size", [2, 3])
@pytest.mark.parametrize("n_positions", [2, 3, 4, 5, 8, 9, 10, 28])
def test_dilations_reach_the_first_position(n_positions, filter_size):
    """Every position depends on all before it; with one block fewer the last would not."""
    dilations = dilations_for(n_positions, filter_size)
    found = read_by(causal_network(filter_size, dilations), n_positions)
    assert torch.equal(found, torch.ones_like(found).tril())
    assert not read_by(causal_network(filter_size, dilations[:-1]), n_positions)[-1, 0]


def test_a_single_position_has_a_network():
    """Which depends on it."""
    assert read_by(causal_network(2, dilations_for(1)), 1).all()


# ----------------------------------------------------------------- log probabilities


@pytest.mark.parametrize("n_tables", [1, 2, 4])
def test_probabilities_sum_to_one(n_tables):
    """Over all sequences, and over a position's values after every beginning."""
    found = sequence_law(n_tables).log_prob(every_sequence()).detach().numpy()
    assert special.logsumexp(found.sum(1)) == pytest.approx(0.0, abs=1e-10)
    for t in range(N_POSITIONS):
        after = found[:, t].reshape(N_VALUES**t, N_VALUES, -1)[:, :, 0]
        np.testing.assert_allclose(np.exp(after).sum(1), 1.0, rtol=1e-12)


@pytest.mark.parametrize("n_tables", [1, 2])
def test_a_position_depends_on_values_up_to_it(n_tables):
    """On its own and those before, not on those after, which all sequences try."""
    found = sequence_law(n_tables).log_prob(every_sequence()).detach().numpy()
    for t in range(N_POSITIONS):
        by_beginning = found[:, t].reshape(N_VALUES ** (t + 1), -1)
        assert np.ptp(by_beginning, axis=1).max() < 1e-12
        each = by_beginning[:, 0].reshape(*[N_VALUES] * (t + 1))
        for axis in range(t + 1):
            assert (np.ptp(each, axis=axis) > 1e-3).all()


@pytest.mark.parametrize("n_tables", [1, 2])
def test_positions_start_independent(n_tables):
    """With the shares that were given, in log probabilities and in draws."""
    shares = log_shares()
    model = CausalCategorical(shares, vectors_of(n_tables), 6, generator()).double()
    k = every_sequence()
    expected = np.stack([shares[t].numpy()[k[:, t]] for t in range(N_POSITIONS)], axis=1)
    np.testing.assert_allclose(model.log_prob(k).detach(), expected, rtol=1e-12)
    drawn = model.sample(5000, generator()).numpy()
    counts = np.bincount(drawn @ N_VALUES ** np.arange(3, -1, -1), minlength=len(k))
    assert stats.chisquare(counts, 5000 * np.exp(expected.sum(1))).pvalue > 1e-3


def test_shares_that_were_given_stay():
    """Training moves a copy of them."""
    shares = log_shares()
    model = CausalCategorical(shares, vectors_of(1), 6, generator())
    with torch.no_grad():
        model.bias.add_(1.0)
    assert torch.equal(shares, log_shares())


@pytest.mark.parametrize("n_tables", [1, 2, 3])
def test_positions_take_turns_through_tables(n_tables):
    """Position t has the output layer t mod n, and reads earlier values by theirs."""
    model, k = sequence_law(n_tables, 6), torch.tensor([[0, 2, 1, 1, 0, 2]])
    for t in range(6):
        of = torch.autograd.grad(
            model.log_prob(k)[0, t],
            (model.own_leave, model.leave, model.own_enter, model.enter, model.bias),
            materialize_grads=True,
        )
        of_own_leave, of_leave, of_own_enter, of_enter, of_bias = of
        read = {(s % n_tables, k[0, s].item()) for s in range(t)}
        for table in range(n_tables):
            assert of_own_leave[table].any() == of_leave[table].any() == (table == t % n_tables)
            assert of_enter[table].any() == any(table == other for other, _ in read)
            for value in range(N_VALUES):
                assert of_own_enter[table, value].any() == ((table, value) in read)
        assert torch.equal(of_bias.any(1), torch.arange(6) == t)


def test_logits_are_linear_in_vectors_and_their_squares():
    """Beside what integers have of their own; so a bump around any vector is among them."""
    shares, vectors = log_shares(2, 12), vectors_of(2, 12)
    model = CausalCategorical(shares, vectors, 6, generator()).double()
    k = torch.stack([torch.full((12,), 3), torch.arange(12)], 1)
    every = vectors[1].numpy()  # the second position's
    design = np.column_stack([np.ones(12), every, (every**2).sum(1)])

    def unexplained():
        logits = (model.log_prob(k)[:, 1] - shares[1]).detach().numpy()
        assert np.ptp(logits) > 0.1
        return np.abs(logits - design @ np.linalg.lstsq(design, logits)[0]).max()

    with torch.no_grad():
        model.leave.copy_(normal64(*model.leave.shape))
        assert unexplained() < 1e-12
        model.own_leave.copy_(normal64(*model.own_leave.shape))
        assert unexplained() > 0.1


def test_integers_of_one_vector_are_read_alike():
    """But for what they have of their own, which starts small beside the rest."""
    vectors = vectors_of(1, 4)
    vectors[0, 2] = vectors[0, 0]
    model = CausalCategorical(log_shares(3, 4), vectors, 64, generator()).double()
    read, _ = model.tables()
    apart = torch.cdist(read[0], read[0])
    assert apart[0, 2] < 0.3 * min(apart[0, 1], apart[0, 3], apart[1, 3])
    with torch.no_grad():
        model.own_enter.zero_()
    read, _ = model.tables()
    assert torch.equal(read[0, 0], read[0, 2])


@pytest.mark.parametrize("scale", [1e-3, 1.0, 1e3])
def test_vectors_count_by_their_spread(scale):
    """They and their squares have mean 0 and variance 1; new ones replace those before."""
    model = CausalCategorical(log_shares(4, 9), vectors_of(2, 9), 6, generator()).double()
    vectors = scale * (vectors_of(2, 9, seed=3) + 2.0)
    model.set_vectors(vectors)
    for table in range(2):
        v = vectors[table].numpy()
        features = stats.zscore(np.column_stack([v, (v**2).sum(1)]), axis=0)
        np.testing.assert_allclose(model.features[table], features, rtol=1e-9, atol=1e-12)


@pytest.mark.parametrize("value", [0.0, 0.3, 1e6])
def test_equal_vectors_are_read_as_finite_numbers(value):
    """Alike, but for what integers have of their own."""
    model = CausalCategorical(log_shares(4, 9), torch.full((1, 9, 2), value), 6, generator())
    assert model.features.isfinite().all()
    assert torch.equal(model.features, model.features[:, :1].expand_as(model.features))


@pytest.mark.parametrize("n_tables", [1, 2])
def test_gradients_of_log_probabilities_are_differences(n_tables):
    """By every parameter, in double precision."""
    model, k = sequence_law(n_tables), every_sequence()[::7]
    parameters = dict(model.named_parameters())
    model.log_prob(k).sum().backward()
    for name, values in parameters.items():
        direction = normal64(*values.shape, seed=5)
        sums = []
        for step in (1e-5, -1e-5):
            moved = parameters | {name: values.detach() + step * direction}
            out = torch.func.functional_call(Scored(model), to_inner(moved), (k,))
            sums.append(out.sum().item())
        slope = (sums[0] - sums[1]) / 2e-5
        assert (values.grad * direction).sum().item() == pytest.approx(slope, rel=1e-6, abs=1e-6)


class Scored(torch.nn.Module):
    """Log probabilities as what a module returns."""

    def __init__(self, inner):
        super().__init__()
        self.inner = inner

    def forward(self, k):
        return self.inner.log_prob(k)


def to_inner(parameters):
    return {f"inner.{name}": values for name, values in parameters.items()}


@pytest.mark.parametrize("n_tables", [1, 2])
@pytest.mark.parametrize("n_logits", [1, 30, 10**9])
def test_logits_in_pieces_are_those_at_once(n_tables, n_logits, monkeypatch):
    """In values and in gradients, however many are held."""
    k = every_sequence()[::4]
    whole = sequence_law(n_tables)
    expected = whole.log_prob(k)
    cotangent = normal64(*expected.shape)
    expected.backward(cotangent)
    monkeypatch.setattr(causal, "_LOGITS", n_logits)
    parts = sequence_law(n_tables)
    found = parts.log_prob(k)
    found.backward(cotangent)
    torch.testing.assert_close(found, expected, rtol=1e-12, atol=1e-12)
    pairs = zip(parts.parameters(), whole.parameters(), strict=True)
    for values, others in pairs:
        torch.testing.assert_close(values.grad, others.grad, rtol=1e-10, atol=1e-12)
    with torch.no_grad():
        torch.testing.assert_close(parts.log_prob(k), expected, rtol=1e-12, atol=1e-12)


# ---------------------------------------------------------------------------- draws


@pytest.mark.parametrize("cached", [True, False])
@pytest.mark.parametrize("n_tables", [1, 2])
def test_draws_have_the_probabilities_of_sequences(n_tables, cached):
    """By chi-square over all of them."""
    model, k = sequence_law(n_tables, spread=0.5), every_sequence()
    with torch.no_grad():
        probabilities = model.log_prob(k).sum(1).exp().numpy()
        drawn = model.sample(10_000, generator(), cached=cached).numpy()
    assert drawn.shape == (10_000, N_POSITIONS)
    counts = np.bincount(drawn @ N_VALUES ** np.arange(3, -1, -1), minlength=len(k))
    often = probabilities > 5e-4  # chi-square needs a few expected draws in every cell
    counts = [*counts[often], counts[~often].sum()]
    expected = 10_000 * np.array([*probabilities[often], probabilities[~often].sum()])
    assert stats.chisquare(counts, expected).pvalue > 1e-3


@pytest.mark.parametrize("n_tables", [1, 2, 4])
@pytest.mark.parametrize("rows", [7, 4096])
def test_the_cache_changes_no_draw(n_tables, rows, monkeypatch):
    """Whatever the number of rows that are drawn together; torch's own state is not read."""
    monkeypatch.setattr(causal, "_ROWS", rows)
    model = sequence_law(n_tables, 8)
    before = torch.get_rng_state()
    with torch.no_grad():
        fast, slow = (model.sample(50, generator(), cached=cached) for cached in (True, False))
        other = model.sample(50, generator(1))
    assert fast.shape == (50, 8)
    assert torch.equal(fast, slow)
    assert not torch.equal(fast, other)
    assert torch.equal(before, torch.get_rng_state())
