"""Networks of several sizes, padded to the largest, and back."""

import numpy as np
import pytest
import torch

from helpers import batch_of, make_rows, network, normal
from skae import VAE, AdversarialAE, Autoencoder, HelmholtzMachine
from skae._training.stacked_weights import (
    Numbers,
    StackedTensors,
    index_of,
    places,
    put,
    taken,
)

X = make_rows()
COINS = (X.mean(axis=0) < X).astype(np.float32)


def test_places_are_the_first_of_each_part():
    assert places((2,), (4,)).tolist() == [0, 1]
    assert places((2, 1, 3), (4, 1, 3)).tolist() == [0, 1, 4, 5, 6, 7]
    assert places((1, 0), (2, 3)).tolist() == [0]


def test_axes_that_are_equal_need_no_index():
    assert index_of(torch.Size([2, 3]), {0: (2,)}, {0: (2,)}) is None
    rows, columns = index_of(torch.Size([2, 3]), {1: (2, 1)}, {1: (3, 1)})
    assert rows.tolist() == [0, 1]
    assert columns.tolist() == [0, 1, 3]


@pytest.mark.parametrize(
    ("own", "largest", "shape"),
    [
        ({0: (2,)}, {0: (4,)}, (4, 3)),
        ({1: (1, 1)}, {1: (2, 3)}, (4, 5)),
        ({0: (2,), 1: (1, 2)}, {0: (3,), 1: (2, 2)}, (3, 4)),
        ({0: (3,)}, {0: (5,)}, (5,)),
    ],
)
def test_what_is_put_is_taken(own, largest, shape):
    """And nothing else is touched."""
    sizes = [sum(own[axis]) if axis in own else n for axis, n in enumerate(shape)]
    mine = normal(*sizes)
    index = index_of(mine.shape, own, largest)
    values = torch.full(shape, 7.0)
    put(values, index, mine)
    torch.testing.assert_close(taken(values, index), mine, rtol=0, atol=0)
    assert (values == 7.0).sum() == values.numel() - mine.numel()


def modules_of(model, sizes, **params):
    rows = COINS if model is HelmholtzMachine else X
    fitted = [network(model, n_components=k, max_iter=1, **params).fit(rows) for k in sizes]
    return [m.net_.module_ for m in fitted]


MODELS = [
    (Autoencoder, {}),
    (Autoencoder, {"tied_weights": True}),
    (VAE, {}),
    (AdversarialAE, {"posterior": "gaussian"}),
    (HelmholtzMachine, {"hidden_layer_sizes": ()}),
]


@pytest.mark.parametrize(("model", "params"), MODELS)
def test_weights_come_back(model, params):
    """All of them, from where others are as they were, also after some members have left."""
    modules = modules_of(model, (1, 3, 2), **params)
    before = [{k: v.clone() for k, v in m.named_parameters()} for m in modules]
    buffers = [{k: v.clone() for k, v in m.named_buffers()} for m in modules]
    stacked = StackedTensors(modules, modules[1])
    assert {len(v) for v in [*stacked.weights.values(), *stacked.buffers.values()]} == {3}
    with torch.no_grad():
        for module in modules:
            for value in [*module.parameters(), *module.buffers()]:
                value.zero_()
    stacked.pull(1, modules[1])
    stacked.select(torch.tensor([0, 2]))
    stacked.pull(0, modules[0])
    stacked.pull(1, modules[2])
    for module, weights, others in zip(modules, before, buffers, strict=True):
        torch.testing.assert_close(dict(module.named_parameters()), weights, rtol=0, atol=0)
        torch.testing.assert_close(dict(module.named_buffers()), others, rtol=0, atol=0)


@pytest.mark.parametrize(("model", "params"), MODELS)
def test_a_padded_module_computes_what_its_own_does(model, params):
    """Its loss of a batch, by the weights of the larger module in the template."""
    rows = COINS if model is HelmholtzMachine else X
    fitted = [network(model, n_components=k, max_iter=1, **params).fit(rows) for k in (1, 3)]
    small, large = (m.net_.module_ for m in fitted)
    stacked = StackedTensors([small, large], large)
    batch = small.eval().prepare(batch_of(fitted[0], rows), torch.Generator().manual_seed(0))
    with torch.no_grad():
        expected = small.loss(batch).terms
        for name, value in [*large.named_parameters(), *large.named_buffers()]:
            value.copy_(stacked.stacked(name)[0])
        if batch.draws is not None:
            own, most = small.blocks(), large.blocks()
            draws = batch.draws.new_full((len(batch.draws), sum(most.draws)), most.unused_draw)
            index = index_of(torch.Size([sum(own.draws)]), {0: own.draws}, {0: most.draws})
            draws[:, index[0]] = batch.draws
            batch = batch._replace(draws=draws)
        torch.testing.assert_close(large.eval().loss(batch).terms, expected)


def test_parts_of_a_state_are_members_own():
    modules = modules_of(Autoencoder, (1, 3))
    stacked = StackedTensors(modules, modules[1])
    for name, weights in stacked.weights.items():
        for i, module in enumerate(modules):
            torch.testing.assert_close(stacked.part(name, weights, i), module.get_parameter(name))
    state = {k: v + 1 for k, v in {**stacked.weights, **stacked.buffers}.items()}
    before = [p.clone() for p in modules[0].parameters()]
    stacked.pull(0, modules[0], state)
    for old, new in zip(before, modules[0].parameters(), strict=True):
        torch.testing.assert_close(new, old + 1)


def test_what_is_pushed_is_taken_over():
    modules = modules_of(Autoencoder, (1, 3))
    stacked = StackedTensors(modules, modules[1])
    name = next(name for name, p in modules[0].named_parameters() if p.ndim == 1)
    with torch.no_grad():
        modules[0].get_parameter(name).fill_(9.0)
    stacked.push(0, modules[0], [name])
    assert (stacked.part(name, stacked.weights[name], 0) == 9.0).all()
    assert not (stacked.weights[name][1] == 9.0).any()
    stacked.push_buffer(1, "gate", torch.tensor([1.0, 0.0, 0.5]))
    assert stacked.buffers["gate"].tolist() == [[1.0, 0.0, 0.0], [1.0, 0.0, 0.5]]


def test_numbers_that_differ_are_tensors_for_a_while():
    """Of the architecture, and of parts; those that are equal stay as they are."""
    fitted = [
        network(VAE, beta=beta, free_bits=bits, max_iter=1).fit(X * scale)
        for beta, bits, scale in [(0.5, 0.1, 1.0), (2.0, 0.1, 3.0)]
    ]
    modules = [m.net_.module_ for m in fitted]
    template = modules[0]
    before = template.architecture
    numbers = Numbers(modules, template)
    assert numbers.values["architecture.beta"].tolist() == [0.5, 2.0]
    assert "architecture.free_bits" not in numbers.values
    of_first, of_second = (
        {name: value[i] for name, value in numbers.values.items()} for i in (0, 1)
    )
    with numbers.set_to(of_second):
        assert float(template.architecture.beta) == 2.0
        assert template.architecture.free_bits == 0.1
        assert float(template.architecture.log_scale) == pytest.approx(
            modules[1].architecture.log_scale
        )
        assert template.architecture.n_features == 5
    assert template.architecture is before
    with pytest.raises(ZeroDivisionError), numbers.set_to(of_first):
        raise ZeroDivisionError
    assert template.architecture is before
    numbers.select(torch.tensor([1]))
    assert numbers.values["architecture.beta"].tolist() == [2.0]


def test_numbers_of_parts_are_set_back():
    modules = modules_of(Autoencoder, (2, 2))
    modules[1].likelihood.floor = 0.25
    before = modules[0].likelihood.floor
    numbers = Numbers(modules, modules[0])
    values = numbers.values["likelihood.floor"]
    assert values.tolist() == pytest.approx([before, 0.25])
    with numbers.set_to({"likelihood.floor": values[1]}):
        assert float(modules[0].likelihood.floor) == 0.25
    assert modules[0].likelihood.floor == before
