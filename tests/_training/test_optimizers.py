"""Muon beside AdamW, against singular values and torch's own optimisers."""

import pickle
from copy import deepcopy

import numpy as np
import pytest
import torch
from sklearn.datasets import load_digits

from helpers import normal64
from skae import VAE, Autoencoder, LatentDensityEstimator
from skae._training.muon import Muon, orthogonalised
from skae._training.optimizers import MuonAndAdamW

RATE, ALPHA = 0.02, 0.1
SHAPES = [(6, 4), (5,), (3, 6), (4, 2)]  # of which the first and third are orthogonalised


class Few(torch.nn.Module):
    """Some parameters, with gradients that follow from their values."""

    def __init__(self):
        super().__init__()
        values = [normal64(*shape, seed=i).float() for i, shape in enumerate(SHAPES)]
        self.values = torch.nn.ParameterList(values)

    def set_gradients(self, step=0):
        for i, values in enumerate(self.values):
            noise = normal64(*values.shape, seed=100 + 10 * step + i).float()
            values.grad = values.detach().sin() + noise

    def hidden(self):
        return [self.values[0], self.values[2]]

    def groups(self):
        return [
            {"params": [self.values[3]], "weight_decay": ALPHA},
            {"params": [self.values[1]], "weight_decay": 0.0},
        ]


def muon_of(few):
    return MuonAndAdamW(few.hidden(), few.groups(), lr=RATE, alpha=ALPHA)


def separately(few, rate):
    """Muon at five times the rate for matrices, AdamW for the others."""
    hidden = Muon(few.hidden(), lr=5 * rate, weight_decay=ALPHA)
    return [hidden, torch.optim.AdamW(few.groups(), lr=rate)]


def assert_same_values(few, other, **tolerance):
    for values, others in zip(few.values, other.values, strict=True):
        torch.testing.assert_close(values, others, **tolerance)


@pytest.mark.parametrize("shape", [(6, 4), (4, 6), (5, 5), (1, 3)])
def test_orthogonalisation_is_five_polynomials_of_the_singular_values(shape):
    """Of the matrix divided by its Frobenius norm; its singular vectors stay."""
    matrix = normal64(*shape)
    U, values, V = np.linalg.svd(matrix.numpy(), full_matrices=False)
    values /= np.sqrt(np.sum(values**2))
    for _ in range(5):
        values = 3.4445 * values - 4.7750 * values**3 + 2.0315 * values**5
    assert np.all((values > 0.65) & (values < 1.25))
    found = orthogonalised(matrix)
    torch.testing.assert_close(found, torch.from_numpy(U * values @ V), rtol=0, atol=1e-10)


@pytest.mark.skipif(not hasattr(torch.optim, "Muon"), reason="torch is older than 2.9")
def test_steps_of_muon_are_those_of_torch():
    """Apart from the rounding of bfloat16, in which torch computes them."""
    few, other = Few(), Few()
    own = Muon(few.hidden(), lr=RATE, weight_decay=ALPHA)
    torchs = torch.optim.Muon(
        other.hidden(), lr=RATE, weight_decay=ALPHA, adjust_lr_fn="match_rms_adamw"
    )
    for step in range(4):
        for each, optimizer in ((few, own), (other, torchs)):
            each.set_gradients(step)
            optimizer.step()
    for mine, theirs, start in zip(few.hidden(), other.hidden(), Few().hidden(), strict=True):
        moved = float((theirs - start).detach().abs().max())
        torch.testing.assert_close(mine, theirs, rtol=0, atol=0.03 * moved)
        assert own.state[mine].keys() == torchs.state[theirs].keys()  # files of earlier versions


def test_a_matrix_without_gradient_stays():
    """As one that is frozen in the course of training."""
    few = Few()
    optimizer = Muon(few.hidden(), lr=RATE, weight_decay=ALPHA)
    optimizer.step()
    assert_same_values(few, Few(), rtol=0, atol=0)


@pytest.mark.parametrize("n_steps", [1, 4])
def test_steps_are_those_of_both_optimisers(n_steps):
    """Muon's for matrices, at five times the rate, and AdamW's for all else."""
    few, other = Few(), Few()
    optimizer, own = muon_of(few), separately(other, RATE)
    for step in range(n_steps):
        few.set_gradients(step)
        optimizer.step()
        other.set_gradients(step)
        for each in own:
            each.step()
    assert_same_values(few, other, rtol=1e-5, atol=1e-6)
    for values, start in zip(few.values, Few().values, strict=True):
        assert not torch.isclose(values, start).any()
    assert {group["lr"] for group in optimizer.param_groups} == {RATE}


def test_a_new_rate_reaches_both_optimisers():
    """As a schedule of torch's sets it: the steps are those of optimisers of that rate."""
    few, other = Few(), Few()
    optimizer = muon_of(few)
    schedule = torch.optim.lr_scheduler.LambdaLR(optimizer, [0.25, 0.5].__getitem__)
    for step, rate in enumerate((0.25 * RATE, 0.5 * RATE)):
        before = [values.detach().clone() for values in few.values]
        few.set_gradients(step)
        if step == 0:
            other.set_gradients(step)
            for each in separately(other, rate):
                each.step()
        optimizer.step()
        if step == 0:
            assert_same_values(few, other, rtol=1e-5, atol=1e-7)
            schedule.step()
        for values, old in zip(few.values, before, strict=True):
            assert not torch.equal(values, old)
    assert {group["lr"] for group in optimizer.param_groups} == {0.5 * RATE}
    for group in optimizer.param_groups:
        group["lr"] = 0.0
    before = [values.detach().clone() for values in few.values]
    optimizer.step()
    for values, old in zip(few.values, before, strict=True):
        assert torch.equal(values, old)


def test_a_saved_state_goes_on_bit_for_bit():
    """After steps of both, in another optimiser; a new rate reaches that one's parts, too."""
    few, other = Few(), Few()
    first = muon_of(few)
    for step in range(3):
        few.set_gradients(step)
        first.step()
    other.load_state_dict(few.state_dict())
    second = muon_of(other)
    second.load_state_dict(deepcopy(first.state_dict()))
    for optimizer in (first, second):
        for group in optimizer.param_groups:
            group["lr"] = 0.3 * RATE
    for step in range(3, 5):
        for each, optimizer in ((few, first), (other, second)):
            each.set_gradients(step)
            optimizer.step()
        assert_same_values(few, other, rtol=0, atol=0)
    assert set(first.state) == set(few.values)


def test_gradients_are_cleared_of_all_parameters():
    """Of matrices and others; a closure is called once for a step of both."""
    few = Few()
    optimizer, calls = muon_of(few), []

    def closure():
        assert torch.is_grad_enabled()
        calls.append(0)
        few.set_gradients()
        return 7.0

    assert optimizer.step(closure) == 7.0
    assert len(calls) == 1
    optimizer.zero_grad()
    assert [values.grad for values in few.values] == [None] * 4


@pytest.mark.parametrize("learning_rate", ["constant", "cosine"])
@pytest.mark.parametrize("averaging", [0.0, 0.9])
def test_a_model_trained_by_muon_goes_on_after_pickle(learning_rate, averaging):
    """As one that was never saved, bit for bit; and it has learned."""
    X = np.random.default_rng(0).normal(size=(200, 3)) @ np.triu(np.ones((3, 3)))
    X[:, 1] += np.sin(2 * X[:, 0])
    params = {"learning_rate": learning_rate, "weight_averaging": averaging}
    model = LatentDensityEstimator(
        solver="muon",
        n_mixture=3,
        n_channels=8,
        batch_size=50,
        max_iter=4,
        learning_rate_init=5e-3,
        warm_start=True,
        random_state=0,
        device="cpu",
        **params,
    ).fit(X)
    before = model.score(X)
    other = pickle.loads(pickle.dumps(model))
    one, two = (each.fit(X) for each in (model, other))
    assert one.n_iter_ == two.n_iter_ == 8
    np.testing.assert_array_equal(one.score_samples(X), two.score_samples(X))
    assert one.score(X) > before
    if learning_rate == "constant":
        whole = model.set_params(max_iter=8, warm_start=False).fit(X)
        np.testing.assert_allclose(whole.score_samples(X), two.score_samples(X), atol=1e-4)


OF_LAYERS = {
    "Autoencoder": (Autoencoder, {}, [(5, 7), (3, 5), (5, 3), (7, 5)]),
    "VAE": (VAE, {}, [(5, 7), (6, 5), (5, 3), (7, 5)]),
    "another decoder": (VAE, {"decoder_layer_sizes": 8}, [(5, 7), (6, 5), (8, 3)]),
    "no hidden layers": (Autoencoder, {"hidden_layer_sizes": ()}, []),
    "tied weights": (Autoencoder, {"tied_weights": True}, [(5, 7), (3, 5)]),
    "images": (
        Autoencoder,
        {"network": "conv", "image_shape": (1, 4, 4), "hidden_layer_sizes": (2,)},
        [],
    ),
}


@pytest.mark.parametrize("case", OF_LAYERS)
def test_muon_trains_the_weights_that_neither_read_nor_give_rows(case):
    """One step changes them along all singular directions alike, and other weights as AdamW."""
    Estimator, params, expected = OF_LAYERS[case]
    X = np.random.default_rng(0).normal(size=(40, 16)).astype(np.float32)
    options = {"hidden_layer_sizes": (7, 5), "init": "random", "tol": 0.0, "device": "cpu"}
    options |= {"batch_size": 40, "learning_rate": "constant", "learning_rate_init": RATE}
    options |= {"alpha": 0.0, "max_iter": 1, "random_state": 0} | params
    begun, model, other = (
        Estimator(3, **options | {"solver": solver, "learning_rate_init": rate}).fit(X)
        for solver, rate in (("muon", 1e-12), ("muon", RATE), ("adamw", RATE))
    )
    start, end, by_adam = (dict(m.net_.module_.named_parameters()) for m in (begun, model, other))
    by_muon = [name for name, w in end.items() if not torch.equal(w, by_adam[name])]
    assert [tuple(end[name].shape) for name in by_muon] == expected
    for name in by_muon:
        step = (end[name] - start[name]).detach().double()
        longest = 5 * RATE * 0.2 * max(step.shape) ** 0.5  # Muon's scale, and skae's factor of 5
        values = torch.linalg.svdvals(step) / longest
        assert 0.3 < values.min() <= values.max() < 1.3


def test_muon_alone():
    """If all weights that AdamW would train are frozen, and if all weights are."""
    X = np.random.default_rng(0).normal(size=(40, 5)).astype(np.float32)
    nn = torch.nn
    encoder = nn.Sequential(nn.Linear(5, 4), nn.ReLU(), nn.Linear(4, 2, bias=False))
    encoder[0].requires_grad_(False)
    decoder = nn.Linear(2, 5).requires_grad_(False)
    options = {"solver": "muon", "max_iter": 3, "random_state": 0, "device": "cpu"}
    model = Autoencoder(2, encoder=encoder, decoder=decoder, warm_start=True, **options).fit(X)
    assert not torch.equal(model.net_.module_.encoder[2].weight, encoder[2].weight)
    other = pickle.loads(pickle.dumps(model))
    np.testing.assert_array_equal(model.fit(X).transform(X), other.fit(X).transform(X))
    encoder[2].requires_grad_(False)
    frozen = Autoencoder(2, encoder=encoder, decoder=decoder, **options).fit(X)
    assert torch.equal(frozen.net_.module_.encoder[2].weight, encoder[2].weight)


def test_muon_lowers_the_loss_of_digits():
    """Of a deep autoencoder, below that of Adam with as many epochs of the same rate."""
    X = load_digits().data[:600]
    options = {"hidden_layer_sizes": (64, 32), "activation": "tanh", "max_iter": 30, "tol": 0.0}
    losses = [
        Autoencoder(8, solver=solver, init="random", alpha=0.0, random_state=0, **options)
        .fit(X)
        .history_[-1]["train_loss"]
        for solver in ("adam", "muon")
    ]
    assert losses[1] < losses[0] - 1.0
