"""Digests of parameters and rows."""

import functools
import importlib
import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import torch
from scipy import sparse, stats
from sklearn.cluster import KMeans
from sklearn.decomposition import PCA
from sklearn.frozen import FrozenEstimator
from sklearn.model_selection import GridSearchCV
from sklearn.neighbors import KernelDensity
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler
from skorch.callbacks import Callback, EarlyStopping, LRScheduler
from torch import nn

from skae import VAE
from skae._training.digests import digest_of
from skae._utils.sparse_rows import SparseRows

X = np.arange(12.0).reshape(4, 3) ** 2


ROWS = np.random.default_rng(0).normal(size=(20, 3))


def power(exponent):
    return lambda x: x**exponent


class Power(nn.Module):
    """A module whose exponent is neither a weight nor shown."""

    def __init__(self, exponent):
        super().__init__()
        self.exponent = exponent

    def forward(self, x):
        return x**self.exponent


OLD = Power


class Power(nn.Module):  # the same name and attributes, after its code was changed
    def __init__(self, exponent):
        super().__init__()
        self.exponent = exponent

    def forward(self, x):
        return -(x**self.exponent)


OTHER, Power = Power, OLD


SLOPE = 1.0


def reads_a_global(x):
    return SLOPE * calls_itself(x)


def calls_itself(x):
    return x if x < 1 else calls_itself(x - 1) + reads_a_global(x)


def net(activation, **attributes):
    class Net(nn.Module):
        def __init__(self, n_in, n_out):
            super().__init__()
            self.linear = nn.Linear(n_in, n_out)
            vars(self).update(attributes)

        def forward(self, x):
            return activation(self.linear(x))

    return Net


def shared(is_shared):
    first, second = linear(0), linear(0)
    if is_shared:
        second[0].weight = first[0].weight
    return nn.Sequential(first, second)


def frozen(module):
    return module.requires_grad_(False)


def hooked(module):
    module.register_forward_hook(lambda *arguments: None)
    return module


def buffered(value):
    module = linear(0)
    module.register_buffer("unsaved", torch.tensor(value), persistent=False)
    return module


def _zero(part):
    for p in part.parameters():
        nn.init.zeros_(p)


class Prior:
    def __init__(self, held):
        self.held = held


class Says(Callback):
    def __init__(self, text):
        self.text, self.heard = text, []


def linear(seed, dropout=0.0):
    torch.manual_seed(seed)
    return nn.Sequential(nn.Linear(2, 2), nn.Dropout(dropout))


def values():
    """Values that all differ from each other."""
    torch.manual_seed(0)
    return [
        None,
        0,
        0.0,
        False,
        "0",
        b"0",
        [],
        [[]],
        [0],
        [0, 0],
        {},
        {"a": 1},
        {"a": [1]},
        {1: "a"},
        {1, 2},
        X,
        X.T,
        X.astype(np.float32),
        X[:2],
        X.astype(object),
        np.array([(1, "a")], dtype=[("n", int), ("t", object)]),
        np.array([(1, "b")], dtype=[("n", int), ("t", object)]),
        SparseRows(sparse.csr_array(X)),
        SparseRows(sparse.csr_array(X[:2])),
        torch.from_numpy(X),
        torch.from_numpy(X).bfloat16(),
        linear(0),
        linear(1),
        linear(0, 0.5),
        nn.Linear,
        power(2),
        power(3),
        functools.partial(power, 2),
        functools.partial(power, 3),
        os.path.join,
        EarlyStopping(),
        EarlyStopping(patience=3),
        LRScheduler("StepLR", step_size=2),
        LRScheduler("StepLR", step_size=3),
        sparse.csr_array(X),
        Power(2.0),
        Power(3.0),
        OTHER(2.0),
        Power,
        OTHER,
        net(torch.tanh),
        net(torch.relu),
        net(lambda x: 2 * x),
        net(lambda x: 3 * x),
        net(torch.tanh)(2, 2).apply(_zero),
        net(torch.relu)(2, 2).apply(_zero),
        net(torch.relu, unsaved=[1])(2, 2).apply(_zero),
        net(torch.relu, act=torch.relu)(2, 2).apply(_zero),
        net(torch.relu, act=torch.tanh)(2, 2).apply(_zero),
        shared(True),
        shared(False),
        frozen(linear(0)),
        hooked(linear(0)),
        buffered(1.0),
        buffered(2.0),
        Prior(torch.ones(2)),
        Prior(torch.zeros(2)),
        Prior(linear(0)),
        Prior(stats.multivariate_normal(np.zeros(2)).rvs),
        stats.norm.rvs,
        FrozenEstimator(GridSearchCV(PCA(), {"n_components": [1, 2]}, cv=2).fit(ROWS)),
        calls_itself,
        reads_a_global,
        [Says("a")],
        [Says("b")],
        PCA(2),
        PCA(3),
        FrozenEstimator(PCA(2).fit(X)),
        FrozenEstimator(PCA(2).fit(X**2)),
        make_pipeline(StandardScaler(), PCA(2)),
        KMeans(2, n_init=1, random_state=0).fit(X),
        KernelDensity().fit(X),
        KernelDensity().fit(X[:2]),
        VAE(2),
        VAE(2, encoder=linear(0)),
        VAE(2, encoder=linear(1)),
        VAE(2, max_iter=0, random_state=0).fit(X),
        np.random.RandomState(0),
        np.random.RandomState(1),
    ]


def test_different_values_have_different_digests():
    digests = [digest_of(value) for value in values()]
    assert len(set(digests)) == len(digests)


def test_digests_are_equal_in_another_process(monkeypatch):
    monkeypatch.syspath_prepend(str(Path(__file__).parent))
    here = importlib.import_module("test_digests")  # functions have the name of their module
    code = "import test_digests as t; print(*(t.digest_of(v) for v in t.values()))"
    done = subprocess.run(
        [sys.executable, "-c", code],
        env=os.environ | {"PYTHONPATH": os.pathsep.join(sys.path)} | {"PYTHONHASHSEED": "7"},
        capture_output=True,
        text=True,
        check=True,
    )
    assert done.stdout.split() == [digest_of(value) for value in here.values()]


def test_memory_layout_and_containers_of_numbers_do_not_matter():
    assert digest_of(X) == digest_of(np.asfortranarray(X)) == digest_of(np.vstack([X, X])[:4])
    assert digest_of(np.float64(0.5)) == digest_of(0.5)
    assert digest_of({"a": 1, "b": 2}) == digest_of({"b": 2, "a": 1})


def test_what_changes_no_result_does_not_matter():
    quiet = VAE(2, random_state=0)
    loud = VAE(2, random_state=0, verbose=1, device="cpu", checkpoint_dir="x", warm_start=True)
    assert digest_of(quiet) == digest_of(loud)
    first, second = (VAE(2, max_iter=2, random_state=0).fit(X) for _ in range(2))
    assert first.history_[0]["dur"] != second.history_[0]["dur"]
    assert digest_of(first) == digest_of(second)


def test_values_that_a_function_reads_belong_to_it(monkeypatch):
    before = digest_of(calls_itself)
    monkeypatch.setitem(calls_itself.__globals__, "SLOPE", 2.0)
    assert digest_of(calls_itself) != before


def test_generator_of_numpy_that_all_share_does_not_matter():
    value = stats.multivariate_normal(np.zeros(2)).rvs
    before = digest_of(value)
    state = np.random.get_state()  # noqa: NPY002
    np.random.seed(1)  # noqa: NPY002
    assert digest_of(value) == before
    np.random.set_state(state)  # noqa: NPY002


def test_value_that_contains_itself():
    loop = [1]
    loop.append(loop)
    assert digest_of(loop) == digest_of(loop)


def test_value_that_no_process_can_compare_is_an_error():
    with open(__file__) as file, pytest.raises(Exception, match="pickle"):
        digest_of(file)
