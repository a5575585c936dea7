"""Threads that use one core because others compute beside them."""

import threading

from skae._training import threads
from skae._utils.concurrency import is_one_of_many, one_of_many


def test_a_block_says_that_others_compute():
    assert not is_one_of_many()
    with one_of_many():
        assert is_one_of_many()
        with one_of_many(False):
            assert is_one_of_many()
    assert not is_one_of_many()


def test_other_threads_are_not_affected():
    found = []
    with one_of_many():
        thread = threading.Thread(target=lambda: found.append(is_one_of_many()))
        thread.start()
        thread.join()
    assert found == [False]


def test_torch_then_uses_one_thread(monkeypatch):
    monkeypatch.setattr(threads._mine, "most", 4)
    monkeypatch.setattr(threads.joblib, "cpu_count", lambda: 4)
    assert threads._number(2**40) == 4
    with one_of_many():
        assert threads._number(2**40) == 1
