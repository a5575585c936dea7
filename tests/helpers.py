"""What several tests are made of: rows, small networks, who listens to them, comparisons."""

import copy
import itertools
import pickle

import joblib
import numpy as np
import skops.io
import torch
from scipy import special, stats
from sklearn.base import BaseEstimator
from skorch.callbacks import Callback
from torch import nn

from skae import Autoencoder
from skae._training.data import Data


def make_rows(
    n_rows=60,
    n_features=5,
    seed=0,
    *,
    scales=(2.0, 1.0),
    noise=0.3,
    mean=3.0,
    gaps=0.0,
    dtype=np.float32,
):
    """Two factors under noise, off centre; some are NaN."""
    rng = np.random.default_rng(seed)
    factors = rng.normal(size=(n_rows, 2)) * scales
    rows = factors @ rng.normal(size=(2, n_features))
    rows = rows + noise * rng.normal(size=(n_rows, n_features)) + mean
    if gaps:
        rows[rng.random(rows.shape) < gaps] = np.nan
    return rows.astype(dtype)


def low_rank_rows(
    n_rows=120,
    n_features=6,
    *,
    rank=2,
    scales=(4.0, 1.5),
    noise=0.3,
    mean=2.0,
    seed=0,
    gaps=0.0,
):
    """Rows of orthogonal factors of separated strength under noise, off centre; some are NaN."""
    rng = np.random.default_rng(seed)
    axes = np.linalg.qr(rng.normal(size=(n_features, rank)))[0]
    codes = rng.normal(size=(n_rows, rank)) * np.geomspace(*scales, rank)
    X = codes @ axes.T + noise * rng.normal(size=(n_rows, n_features)) + mean
    if gaps:
        X[rng.random(X.shape) < gaps] = np.nan
    return X


def allowed_rows(likelihood, X, center, squash=stats.norm.cdf):
    """Rows that a likelihood allows, made of rows around a center."""
    match likelihood:
        case "poisson":
            return np.floor(np.abs(X))
        case "bernoulli":
            return (center < X).astype(X.dtype)
        case "continuous_bernoulli":
            return squash(X - center).astype(X.dtype)
    return X


def generator(seed=0):
    return torch.Generator().manual_seed(seed)


def normal(*shape, seed=0, dtype=torch.float32):
    return torch.randn(shape, generator=generator(seed), dtype=dtype)


def normal64(*shape, seed=0):
    return normal(*shape, seed=seed, dtype=torch.float64)


def tensor(values, dtype=torch.float64):
    return torch.tensor(np.asarray(values), dtype=dtype)


def binary_states(n_units):
    """All states of binary units, (2 ** n_units, n_units)."""
    return np.array(list(itertools.product([0.0, 1.0], repeat=n_units)))


def log_bernoulli(values, logit):
    """x log λ + (1 - x) log(1 - λ), value by value."""
    return values * special.log_expit(logit) + (1 - values) * special.log_expit(-logit)


def network(model=Autoencoder, **params):
    """A small network that trains for a few epochs, all of them, from random weights.

    There a few epochs change much, and what they end at is kept.
    """
    defaults = {
        "n_components": 2,
        "hidden_layer_sizes": (8,),
        "batch_size": 16,
        "max_iter": 4,
        "tol": 0.0,
        "random_state": 0,
        "device": "cpu",
    }
    if "init" in model().get_params():
        defaults["init"] = "random"
    return model(**{**defaults, **params})


def batch_of(model, X, weight=None, condition=None):
    """All rows as the network reads them."""
    return model._dataset(Data(X, weight, condition)).batch(slice(None))


def leaves(value, path=""):
    """Path and value of every leaf of nested dicts, lists and tuples."""
    if isinstance(value, dict):
        for key, item in value.items():
            if key != "dur":  # the seconds that an epoch took
                yield from leaves(item, f"{path}[{key!r}]")
    elif isinstance(value, (list, tuple)):
        for index, item in enumerate(value):
            yield from leaves(item, f"{path}[{index}]")
    elif isinstance(value, BaseEstimator):
        yield from leaves(value.__getstate__(), path)
    else:
        yield path, value


def learned(model):
    """A copy of all that a fit left behind, flat: weights, optimiser, history, noise, ..."""
    state = model.__getstate__()
    params = model.get_params()
    skip = {"_skl_callbacks", "_sklearn_version"}
    return copy.deepcopy(
        dict(leaves({k: v for k, v in state.items() if k not in params and k not in skip}))
    )


def weights(model):
    """A copy of the network's weights and buffers."""
    return {k: v.numpy().copy() for k, v in model.net_.module_.state_dict().items()}


def parameters(model):
    """A copy of what the optimiser learns: without the noise."""
    return {k: v.detach().numpy().copy() for k, v in model.net_.module_.named_parameters()}


def assert_same(actual, expected, tol=0.0):
    """Equal dicts: bit for bit, or arrays within tol; modules by their weights."""
    assert actual.keys() == expected.keys()
    for name, value in expected.items():
        if isinstance(value, nn.Module):
            assert_same(actual[name].state_dict(), value.state_dict())
        elif tol:
            np.testing.assert_allclose(actual[name], value, rtol=tol, atol=tol, err_msg=name)
        else:
            np.testing.assert_array_equal(actual[name], value, err_msg=name)


def through_pickle(model, path):
    return pickle.loads(pickle.dumps(model))


def through_joblib(model, path):
    joblib.dump(model, path)
    return joblib.load(path)


def through_skops(model, path):
    dumped = skops.io.dumps(model)
    foreign = skops.io.get_untrusted_types(data=dumped)
    assert all(name.startswith("skae.") for name in foreign), foreign
    return skops.io.loads(dumped, trusted=foreign)


def differ(first, second):
    return any(not np.array_equal(first[name], second[name]) for name in first)


class Recorder(Callback):
    """The first weights, every batch, and the learning rate at every batch and epoch's end.

    As in all of skorch's callbacks, what is no parameter ends in an underscore.
    """

    def on_train_begin(self, net, **kwargs):
        self.start_ = copy.deepcopy(net.module_)
        self.batches_, self.rates_, self.end_rates_ = [], [], []
        self.held_out_ = []

    def on_epoch_begin(self, net, **kwargs):
        self.batches_.append([])

    def on_batch_begin(self, net, batch, training, **kwargs):
        if training:
            self.batches_[-1].append(batch)
            self.rates_.append(net.optimizer_.param_groups[0]["lr"])
        elif len(self.batches_) == 1:
            self.held_out_.append(batch)

    def on_epoch_end(self, net, **kwargs):
        self.end_rates_.append(net.optimizer_.param_groups[0]["lr"])


def standardised(X):
    """By hand: centred, and divided by the root of the mean variance."""
    X = X.astype(np.float64)
    return (X - X.mean(axis=0)) / np.sqrt(X.var(axis=0).mean())


def dropped(n_in, n_out):
    """A network of the user's that draws from torch's global generator."""
    with torch.random.fork_rng([]):
        torch.manual_seed(0)
        layers = [nn.Linear(n_in, 16), nn.Dropout(0.3), nn.ReLU(), nn.Linear(16, n_out)]
    return nn.Sequential(*layers)


def own_networks(n_features=5):
    return {"encoder": dropped(n_features, 2), "decoder": dropped(2, n_features)}


class At(Callback):
    """Raises amid an epoch, after its second batch."""

    def __init__(self, epoch, error=KeyboardInterrupt, hook="on_batch_end"):
        self.epoch, self.error, self.hook = epoch, error, hook

    def _maybe(self, net, hook):
        if hook == self.hook and len(net.history) == self.epoch:
            if hook == "on_batch_end" and len(net.history[-1, "batches"]) < 2:
                return
            raise self.error("at an inconvenient time")

    def on_epoch_begin(self, net, **kwargs):
        self._maybe(net, "on_epoch_begin")

    def on_batch_end(self, net, **kwargs):
        self._maybe(net, "on_batch_end")

    def on_grad_computed(self, net, **kwargs):
        self._maybe(net, "on_grad_computed")


def hear_batches(net, hear):
    """Have a function hear, in the coming training, of batches as the module sees them."""
    whole = net.get_iterator

    class Heard:
        def __init__(self, batches, training):
            self.batches, self.training = batches, training

        def __iter__(self):
            for batch in self.batches:
                hear(batch, self.training)
                yield batch

    net.get_iterator = lambda data, training=False: Heard(whole(data, training), training)
