"""Every member of a stack sees the batches of its own fit."""

import numpy as np
import pytest
import torch

from helpers import make_rows, network
from skae import VAE, AdversarialAE, Autoencoder, HelmholtzMachine
from skae._training.data import Batch, Data
from skae._training.loader import Loader, Subset
from skae._training.stacked_batches import StackedBatches

X = make_rows(60)
WEIGHT = np.random.default_rng(0).uniform(0.5, 2.0, 60).astype(np.float32)


def net_of(rows, model=Autoencoder, weight=None, index=None, **params):
    """A net that is about to be trained on rows, at the beginning of an epoch."""
    fitted = network(model, max_iter=1, **params).fit(rows)
    net = fitted.net_
    net.module_.train()
    data = fitted._dataset(Data(rows, weight, None))
    net.subsets_ = (Subset(data, torch.arange(len(rows)) if index is None else index), None)
    net.order_, net.generator_ = torch.Generator(), torch.Generator()
    net.seed_epoch(0)
    return net


def by_itself(net):
    """What a net sees by itself in its first epoch."""
    net.seed_epoch(0)
    loader = Loader(net.subsets_[0], net.batch_size, net.order_)
    batches = [net.module_.prepare(batch, net.generator_) for batch in loader]
    net.seed_epoch(0)
    return batches


def assert_equal_batches(first, second):
    for a, b in zip(first, second, strict=True):
        assert (a is None) == (b is None)
        if a is not None:
            torch.testing.assert_close(a, b, rtol=0, atol=0)


CASES = {
    "one data set": [{}, {}],
    "two seeds": [{"random_state": 0}, {"random_state": 1}],
    "two data sets": [{"rows": X}, {"rows": X[:50]}],
    "unequal lengths": [{"rows": X[:49]}, {"rows": X[:40]}, {"rows": X[:35]}],
    "batch sizes": [{"batch_size": 16}, {"batch_size": 18}],
    "weights": [{"weight": WEIGHT}, {"rows": X[:50], "weight": WEIGHT[:50]}],
    "noise": [{"noise": "gaussian"}, {}, {"noise": "masking", "random_state": 2}],
    "cuts": [{"latent_growth": "nested", "n_components": k} for k in (3, 1, 2)],
    "draws": [{"model": VAE, "n_components": k} for k in (1, 3, 2)],
    "draws of two kinds": [
        {"model": AdversarialAE, "posterior": "gaussian", "n_components": k} for k in (3, 1)
    ],
    "units": [
        {"model": HelmholtzMachine, "likelihood": "gaussian", "n_components": k, "rows": X[:n]}
        for k, n in [(1, 60), (2, 59)]
    ],
    "some rows": [{"index": torch.arange(5, 60)}, {"index": torch.arange(50)}],
}


@pytest.mark.parametrize("params", CASES.values(), ids=CASES)
def test_each_sees_its_own_batches(params):
    """As its own code would see them; and as rows, of draws and weights, of the whole stack."""
    nets = [net_of(**{"rows": X, **own}) for own in params]
    alone = [by_itself(net) for net in nets]
    template = max(nets, key=lambda net: net.module_.architecture.n_codes).module_
    batches = list(StackedBatches(nets, template).epoch())
    assert len(batches) == len(alone[0])
    largest = template.blocks()
    for k, batch in enumerate(batches):
        sizes = [len(of[k].x) for of in alone]
        for i, net in enumerate(nets):
            own = alone[i][k]
            assert_equal_batches(batch.of_members[i], own)
            torch.testing.assert_close(batch.stacked.x[i, : sizes[i]], own.x, rtol=0, atol=0)
            torch.testing.assert_close(batch.stacked.y[i, : sizes[i]], own.y, rtol=0, atol=0)
            if own.gate is not None:
                n = own.gate.shape[1]
                assert torch.equal(batch.stacked.gate[i, : sizes[i], :n], own.gate)
                assert not batch.stacked.gate[i, : sizes[i], n:].any()
            if own.draws is not None:
                used = in_larger(net.module_.blocks().draws, largest.draws)
                draws = batch.stacked.draws[i, : sizes[i]]
                torch.testing.assert_close(draws[:, used], own.draws, rtol=0, atol=0)
                assert (draws[:, ~used] == largest.unused_draw).all()
                left = batch.stacked.draws[i, sizes[i] :]  # chances, of which none is infinite
                assert ((left > 0) & (left < 1)).all()
            counted = torch.ones(sizes[i]) if own.weight is None else own.weight
            assert float(batch.weights[i]) == pytest.approx(float(counted.sum()))
            if batch.stacked.weight is None:
                assert set(sizes) == {sizes[i]}
            else:
                torch.testing.assert_close(batch.stacked.weight[i, : sizes[i]], counted)
                assert not batch.stacked.weight[i, sizes[i] :].any()
        assert all(t is None or t.isfinite().all() for t in batch.stacked)


def in_larger(own, largest):
    """Which of the larger module's draws are those of a smaller one."""
    return torch.cat([torch.arange(room) < n for n, room in zip(own, largest, strict=True)])


def test_gaps_are_told():
    rows = make_rows(60, gaps=0.2)
    nets = [net_of(rows), net_of(rows[:50])]
    alone = [by_itself(net) for net in nets]
    for k, batch in enumerate(StackedBatches(nets, nets[0].module_).epoch()):
        for i, of_member in enumerate(alone):
            own = of_member[k]
            assert torch.equal(batch.stacked.seen[i, : len(own.x)], own.seen)
            assert not batch.stacked.seen[i, len(own.x) :].any()


def test_members_of_equal_rows_and_seed_gather_them_once(monkeypatch):
    """Also where each has a data set of its own, of the same memory."""
    nets = [net_of(X, n_components=k) for k in (1, 2, 3)] + [net_of(X, random_state=1)]
    template = nets[2].module_
    taken = []
    for net in nets:
        whole = net.subsets_[0].rows.batch
        monkeypatch.setattr(
            net.subsets_[0].rows,
            "batch",
            lambda rows, whole=whole: taken.append(rows) or whole(rows),
        )
    batches = list(StackedBatches(nets, template).epoch())
    assert len(taken) == 2 * len(batches)
    assert all(batch.stacked.x is batch.stacked.y for batch in batches)
    copied = [net_of(X.copy()), net_of(X)]
    keys = {net.subsets_[0].rows.identity() for net in copied}
    assert len(keys) == 2


def test_what_identifies_rows():
    """Memory, types, units and the mask; weights are not looked at."""

    nets = []  # kept, since the memory of one that is gone may be given to the next

    def identity(rows, **params):
        nets.append(net_of(rows, **params))
        return nets[-1].subsets_[0].rows.identity()

    assert identity(X) == identity(X) == identity(X, random_state=3)
    others = [X[1:], X[:-1], X[::-1], X * 2, X[:, ::-1]]
    assert len({identity(X), *(identity(rows) for rows in others)}) == 6
    assert identity(X, weight=WEIGHT) != identity(X, weight=WEIGHT)


def test_an_epoch_follows_from_the_state_of_generators():
    """Which each net seeds by its own seed and epoch."""
    nets = [net_of(X, noise="gaussian"), net_of(X, noise="gaussian", random_state=1)]
    batches = StackedBatches(nets, nets[0].module_)
    first = [batch.stacked for batch in batches.epoch()]
    for net in nets:
        net.seed_epoch(1)
    second = [batch.stacked for batch in batches.epoch()]
    for net in nets:
        net.seed_epoch(0)
    again = [batch.stacked for batch in batches.epoch()]
    assert isinstance(first[0], Batch)
    for a, b, c in zip(first, second, again, strict=True):
        assert_equal_batches(a, c)
        assert not torch.equal(a.x, b.x)
