"""What is recorded gives what the function gives, of any values."""

import pytest
import torch
from torch.func import grad_and_value, vmap

from helpers import normal
from skae._training.recorded import Recorded


def in_place(x, y):
    z = x * 1
    z += y
    z.clamp_(min=0).mul_(2)
    return z


def through_views(x, y):
    """What is written to a view is in the whole, and what reads the view later sees it."""
    z = x.clone()
    row = z[1]
    row.add_(y[0])
    z[:, 0] = 5.0
    z.view(-1)[2:4].zero_()
    return z, row, z.t()


def with_constants(x, y):
    return x * torch.arange(x.shape[1]) + LEVEL + torch.tensor([1.0, 2.0, 3.0]), torch.ones(2)


def anew(x, y):
    """Tensors that are made in every call, and added to."""
    total, known = torch.zeros(3), torch.tensor([1.0, 2.0, 3.0])
    for row in x:
        total += row
    known += total
    return total, known


def in_parts(x, y):
    values, places = x.sort(dim=1)
    first, *others = y.split(1)
    low, high = torch.aminmax(x)
    return {"sorted": values, "places": places}, (first, sum(others)), [low, high]


def of_gradients(x, y):
    """As a stack's: of several members, of losses with gradients, with outputs besides."""

    def loss(w, rows):
        out = torch.tanh(rows * w)
        return out.square().sum(), out.detach()

    return vmap(grad_and_value(loss, has_aux=True))(x, y)


def of_what_it_is_given(x, y):
    return x, y, x


LEVEL = normal(3, seed=9)


def sums_of_products(x, y):
    """Sums that are computed with the product, and sums that cannot be."""
    a, b = x.expand(2, 4, 3), y.t().expand(2, 3, 4)
    product = torch.bmm(a, b)
    plain = x[:, :1] + product
    narrow = x[:, :1] + torch.bmm(a.bfloat16(), b.bfloat16())
    twice = torch.add(x[:, :1], torch.bmm(a, b), alpha=2)
    used_again = torch.bmm(a, b)
    both = (x[:, :1] + used_again, used_again.square())
    factor = a.clone()
    early = torch.bmm(factor, b)
    factor.zero_()
    wide = torch.zeros(3, 2, 4, 4) + torch.bmm(a, b)
    return plain, narrow, twice, both, x[:, :1] + early, wide


def through_views_of_the_same_shape(x, y):
    z = x.clone()
    view = z.view(z.shape)
    view.add_(y.expand(y.shape))
    return z, view.view(12).view(4, 3), z.reshape(z.shape) * 2


def products_of_few_columns(x, y):
    """Of so many rows they are computed the other way round; what follows may look at memory."""
    a, b = x.repeat(20, 1).expand(2, 80, 3), y.t().expand(2, 3, 4)
    plain, added = torch.bmm(a, b), y[:, :1].t().expand(2, 1, 4) + torch.bmm(a, b)
    return plain, added, added.view(2, 320).sum(1), plain.contiguous().view(-1)[:9]


def activations_of_products(x, y):
    """Which may take the memory of the product, if nothing else reads it."""
    a, b = x.expand(2, 4, 3), y.t().expand(2, 3, 4)
    found = []
    for activation in (torch.relu, torch.tanh, torch.sigmoid):
        again = torch.bmm(a, b)
        found += [activation(torch.bmm(a, b)), activation(again), again * 2]
    return found


def gradients_of_activations(x, y):
    """By the product that is passed back, which may be read once more."""

    def loss(x, y):
        hidden = [f(x @ y.t()) for f in (torch.relu, torch.tanh, torch.sigmoid)]
        return sum((h @ x).square().sum() for h in hidden), hidden

    return vmap(grad_and_value(loss, has_aux=True))(x.expand(2, 4, 3), y.expand(2, 4, 3))


FUNCTIONS = [
    in_place,
    through_views,
    with_constants,
    anew,
    in_parts,
    of_gradients,
    of_what_it_is_given,
    sums_of_products,
    through_views_of_the_same_shape,
    products_of_few_columns,
    activations_of_products,
    gradients_of_activations,
]


@pytest.mark.parametrize("function", FUNCTIONS, ids=lambda function: function.__name__)
def test_other_values_give_what_the_function_gives(function):
    """Several times, and in any order."""
    pairs = [(normal(4, 3, seed=i), normal(4, 3, seed=10 + i)) for i in range(3)]
    recorded = Recorded(function, tuple(t.clone() for t in pairs[0]))
    for x, y in [*pairs, *pairs]:
        found, expected = recorded(x.clone(), y.clone()), function(x.clone(), y.clone())
        torch.testing.assert_close(found, expected, rtol=1e-6, atol=1e-6)


def test_arguments_may_be_nested():
    def function(named, pair):
        return {name: value * pair[0] + pair[1]["b"] for name, value in named.items()}

    arguments = [
        (
            {"u": normal(2, seed=i), "v": normal(2, 2, seed=i + 5)},
            (normal(2, seed=i), {"b": LEVEL[:2]}),
        )
        for i in (1, 2)
    ]
    recorded = Recorded(function, arguments[0])
    torch.testing.assert_close(recorded(*arguments[1]), function(*arguments[1]))


def test_no_gradients_are_recorded():
    x = normal(3).requires_grad_()
    assert not Recorded(torch.sin, (x,))(x).requires_grad


def test_arguments_are_written_to_where_the_function_does():
    x = torch.zeros(3)
    recorded = Recorded(lambda t: t.add_(1) * 2, (torch.zeros(3),))
    recorded(x)
    recorded(x)
    assert x.tolist() == [2.0] * 3


def test_draws_are_made_anew():
    recorded = Recorded(lambda x: x + torch.rand(3), (torch.zeros(3),))
    assert not torch.equal(recorded(torch.zeros(3)), recorded(torch.zeros(3)))


@pytest.mark.parametrize(
    "function",
    [
        lambda x: x * float(x.sum()),
        lambda x: x if x.sum() > 0 else -x,
        lambda x: x * x.argmax().item(),
        lambda x: x[: int(x.abs().ceil().max())],
        lambda x: x if torch.equal(x, x.abs()) else -x,
    ],
    ids=["float", "if", "item", "int", "equal"],
)
def test_functions_that_read_values_are_refused(function):
    """They might do something else with other values."""
    with pytest.raises(ValueError, match="the value of a tensor is read"):
        Recorded(function, (normal(3),))
