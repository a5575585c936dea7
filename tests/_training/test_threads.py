"""Threads follow the size of the work, and are afterwards what they were."""

import pickle
import subprocess
import sys
import threading
from concurrent.futures import ThreadPoolExecutor

import joblib
import numpy as np
import pytest
import torch
from skorch.callbacks import Callback
from threadpoolctl import threadpool_info, threadpool_limits

from helpers import make_rows, network
from skae import VAE, HelmholtzMachine, LatentDensityEstimator
from skae._training import threads
from skae._training.threads import PRODUCTS_PER_THREAD, threads_for


@pytest.fixture
def four(monkeypatch):
    """torch is set to four threads, on a machine that has eight."""
    before = torch.get_num_threads()
    monkeypatch.setattr(joblib, "cpu_count", lambda: 8)
    torch.set_num_threads(4)
    yield
    torch.set_num_threads(before)


def count_within(products):
    """Threads within a block."""
    with threads_for(products):
        return torch.get_num_threads()


def in_a_new_thread(compute):
    """What is computed in a thread in which torch has not computed before."""
    with ThreadPoolExecutor(1) as pool:
        return pool.submit(compute).result()


class Count(Callback):
    """Threads at the end of every epoch."""

    def initialize(self):
        self.found = set()
        return self

    def on_epoch_end(self, net, **kwargs):
        self.found.add(torch.get_num_threads())


def wide(**params):
    """A network whose steps are worth many threads, on 300 rows of 40 features."""
    return network(hidden_layer_sizes=(400, 400), batch_size=300, **params)


# ------------------------------------------------------------------------ the choice


@pytest.mark.parametrize(
    ("in_threads", "expected"), [(0, 1), (0.5, 1), (1.9, 1), (2, 2), (3.5, 3), (4, 4), (100, 4)]
)
def test_each_thread_has_work(four, in_threads, expected):
    assert count_within(in_threads * PRODUCTS_PER_THREAD) == expected
    assert torch.get_num_threads() == 4


def test_never_more_than_the_process_may_use(four, monkeypatch):
    """joblib counts the cores of its affinity and of a container's quota."""
    monkeypatch.setattr(joblib, "cpu_count", lambda: 3)
    assert count_within(100 * PRODUCTS_PER_THREAD) == 3
    torch.set_num_threads(2)
    assert count_within(100 * PRODUCTS_PER_THREAD) == 2


def test_blocks_are_nested(four):
    """A step within a fit has the number that it is worth, and the fit then its own again."""
    with threads_for(2 * PRODUCTS_PER_THREAD):
        with threads_for(100 * PRODUCTS_PER_THREAD):
            assert torch.get_num_threads() == 4
        assert torch.get_num_threads() == 2
        assert count_within(1) == 1
        assert torch.get_num_threads() == 2
    assert torch.get_num_threads() == 4


def test_a_number_that_was_set_within_a_block_stays(four):
    """As by a callback, which means it."""
    with threads_for(1):
        torch.set_num_threads(3)
    assert torch.get_num_threads() == 3


def test_threads_of_joblib_take_one_each(four):
    """None knows how many others there are; a process is told its share by joblib."""
    with joblib.parallel_config("threading", n_jobs=2):
        jobs = (joblib.delayed(count_within)(100 * PRODUCTS_PER_THREAD) for _ in range(4))
        assert joblib.Parallel()(jobs) == [1] * 4


def test_fits_in_two_threads_leave_what_was_there(four):
    """The other thread first computes while this one has few threads, and does not take them over,
    whichever of the two ends first."""
    for other_ends_first in (True, False):
        inside, go_on = threading.Event(), threading.Event()
        found = {}

        def other(inside=inside, go_on=go_on, found=found):
            with threads_for(100 * PRODUCTS_PER_THREAD):
                found["within"] = torch.get_num_threads()
                inside.set()
                assert go_on.wait(10)
            found["after"] = torch.get_num_threads()

        thread = threading.Thread(target=other)
        with threads_for(1):
            thread.start()
            assert inside.wait(10)
            assert torch.get_num_threads() == 1
            if other_ends_first:
                go_on.set()
                thread.join()
                assert torch.get_num_threads() == 1
        go_on.set()
        thread.join()
        assert found == {"within": 4, "after": 4}
        assert torch.get_num_threads() == 4
        assert threads._record.n_open == 0
        assert in_a_new_thread(torch.get_num_threads) == 4


# -------------------------------------------------------------------- the estimators


def test_training_takes_as_many_as_its_steps_are_worth(four):
    """One for a small network, several for a large one, whose small batches take one."""
    X = make_rows(300, 40)
    assert 300 * 400 * 400 // PRODUCTS_PER_THREAD >= 4
    counted = {}
    for name, model in {
        "small": network(callbacks=[Count()]),
        "large": wide(callbacks=[Count()]),
        "small batches": wide(callbacks=[Count()]).set_params(batch_size=4),
    }.items():
        model.fit(X)
        counted[name] = [model.callbacks[0].found]
        model.partial_fit(X)
        counted[name].append(model.callbacks[0].found)
    assert counted == {"small": [{1}, {1}], "large": [{4}, {4}], "small batches": [{1}, {1}]}


def test_images_are_visited_by_their_kernels(four):
    """A convolution is worth what it costs at all pixels."""
    X = make_rows(256, 16 * 16)
    count = Count()
    network(
        network="conv", image_shape=(1, 16, 16), hidden_layer_sizes=(16, 32), batch_size=256,
        callbacks=[count], max_iter=1,
    ).fit(X)  # fmt: skip
    assert count.found == {4}


@pytest.mark.parametrize(
    "make",
    [
        lambda **params: network(**params),
        lambda **params: network(VAE, **params),
        lambda **params: HelmholtzMachine(3, max_iter=2, random_state=0, **params),
        lambda **params: LatentDensityEstimator(max_iter=2, random_state=0, **params),
    ],
    ids=["Autoencoder", "VAE", "HelmholtzMachine", "LatentDensityEstimator"],
)
def test_no_method_changes_the_number(four, make):
    """Nor does one that fails."""
    X = make_rows()

    class Failing(Callback):
        def on_epoch_end(self, net, **kwargs):
            raise RuntimeError("as a callback may")

    model = make().fit(X)
    assert torch.get_num_threads() == 4
    for use in (
        lambda: model.partial_fit(X),
        lambda: model.inverse_transform(model.transform(X)),
        lambda: model.score(X),
        lambda: model.sample(3),
        lambda: pickle.loads(pickle.dumps(model)).score(X),
    ):
        use()
        assert torch.get_num_threads() == 4
    for method in ("fit", "partial_fit"):
        with pytest.raises(RuntimeError, match="as a callback may"):
            getattr(make(callbacks=[Failing()]), method)(X)
        assert torch.get_num_threads() == 4
    with pytest.raises(ValueError, match="X"):
        model.transform(X[:, :2])
    assert torch.get_num_threads() == 4


def test_one_thread_and_more_agree(four):
    """Sums have another order, and no more."""
    X = make_rows(300, 40)
    found = {}
    for n_threads in (4, 1):
        torch.set_num_threads(n_threads)
        model = wide(max_iter=3).fit(X)
        found[n_threads] = model.transform(X), model.reconstruct(X), model.score_samples(X)
    for first, second in zip(found[4], found[1], strict=True):
        np.testing.assert_allclose(first, second, rtol=1e-4, atol=1e-4)


def test_fits_beside_each_other_give_the_same_bits(four):
    """How many threads there are does not depend on what else the process does."""
    X = make_rows(300, 40)
    alone = wide().fit(X).transform(X)
    found = {}

    def fit(name):
        found[name] = wide().fit(X).transform(X)

    both = [threading.Thread(target=fit, args=(name,)) for name in "ab"]
    for thread in both:
        thread.start()
    for thread in both:
        thread.join()
    np.testing.assert_array_equal(found["a"], alone)
    np.testing.assert_array_equal(found["b"], alone)


# ------------------------------------------------------------------------------ forks

_FORKED = """
import pickle, sys
import joblib, multiprocessing
import numpy as np, torch
from skae import Autoencoder

torch.set_num_threads(2)
joblib.cpu_count = lambda: 2
X = np.random.default_rng(0).normal(size=(300, 40)).astype(np.float32)
models = [Autoencoder(3, hidden_layer_sizes=(n_hidden, n_hidden), batch_size=300, max_iter=2,
                      init="random", random_state=0).fit(X) for n_hidden in (8, 400)]

def use(model):
    again = pickle.loads(pickle.dumps(model)).fit(X)
    again.partial_fit(X).sample(2)
    return model.score(X), torch.get_num_threads()

if __name__ == "__main__":
    for model in models:
        with multiprocessing.get_context("fork").Pool(1) as pool:
            score, n_threads = pool.apply(use, (model,))
        expected = model.score(X)
        assert abs(score - expected) < 1e-4 * abs(expected), (score, expected)
        assert n_threads == 1, n_threads
        assert torch.get_num_threads() == 2
    print("done")
"""


@pytest.mark.skipif(sys.platform in ("win32", "darwin"), reason="needs a fork that is safe")
def test_a_forked_child_computes():
    """After a parent that computed with two threads, a child waits for none of them."""
    done = subprocess.run(
        [sys.executable, "-c", _FORKED], timeout=600, capture_output=True, text=True, check=False,
    )  # fmt: skip
    assert done.stdout.strip() == "done", done.stderr[-2000:]


_FORKED_WITHIN = """
import os
import numpy as np, torch
from skorch.callbacks import Callback
from skae import Autoencoder

torch.set_num_threads(2)
large = torch.ones(1000, 1000)
large.relu()  # by two threads, which a child has not
children = []

class Fork(Callback):
    def on_epoch_end(self, net, **kwargs):
        if not children:
            children.append(os.fork())

X = np.random.default_rng(0).normal(size=(60, 5))
Autoencoder(2, max_iter=3, random_state=0, callbacks=[Fork()]).fit(X)
n_threads = torch.get_num_threads()
if children == [0]:
    large.relu()
    os._exit(n_threads)
_, status = os.waitpid(children[0], 0)
print(n_threads, os.waitstatus_to_exitcode(status))
"""


@pytest.mark.skipif(sys.platform in ("win32", "darwin"), reason="needs a fork that is safe")
def test_a_child_that_leaves_a_fit_keeps_its_one_thread():
    """What the number was before the fit is its parent's, who has it again."""
    done = subprocess.run(
        [sys.executable, "-c", _FORKED_WITHIN],
        timeout=600, capture_output=True, text=True, check=False,
    )  # fmt: skip
    assert done.stdout.split() == ["2", "1"], done.stderr[-2000:]


# ------------------------------------------------------------------------------- NumPy


def blas_threads():
    """Of every library that NumPy and SciPy compute with."""
    return {found["num_threads"] for found in threadpool_info() if found["user_api"] == "blas"}


@pytest.fixture
def two_of_blas():
    """They are set to two threads, by a thread that is no more: none controls them."""
    before = max(blas_threads())
    in_a_new_thread(lambda: threadpool_limits(2, user_api="blas"))
    assert blas_threads() == {2}
    yield
    in_a_new_thread(lambda: threadpool_limits(before, user_api="blas"))


def test_small_products_of_numpy_take_one_thread(two_of_blas):
    """Those of a linear start of few columns; afterwards the number is what it was."""
    for products, expected in ((threads.PRODUCTS_PER_THREAD_ONCE - 1, {1}), (2**30, {2})):
        with threads.blas_threads_for(products):
            assert blas_threads() == expected
        assert blas_threads() == {2}
    with pytest.raises(KeyError), threads.blas_threads_for(0):
        raise KeyError
    assert blas_threads() == {2}


@pytest.mark.parametrize("first_ends_first", [True, False])
def test_numpys_number_is_set_back_whichever_thread_ends_first(two_of_blas, first_ends_first):
    """It is one for the process: blocks that overlap leave it to the first."""
    one, other = (threads.blas_threads_for(0) for _ in "ab")
    with ThreadPoolExecutor(1) as a, ThreadPoolExecutor(1) as b:
        leave = [(a, one.__exit__), (b, other.__exit__)]
        a.submit(one.__enter__).result()
        b.submit(other.__enter__).result()
        assert blas_threads() == {1}
        for pool, end in leave if first_ends_first else leave[::-1]:
            pool.submit(end, None, None, None).result()
        assert blas_threads() == {2}
