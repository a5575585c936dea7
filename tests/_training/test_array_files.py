"""Files of nested containers of arrays."""

import os
from collections import Counter, OrderedDict, defaultdict

import numpy as np
import pytest
import torch

from skae._training import array_files

VALUES = {
    "nothing": None,
    "flag": True,
    "whole": 2**70,
    "real": 0.1 + 0.2,
    "infinite": [float("inf"), -float("inf")],
    "text": 'ö "quoted" \x00',
    "array": np.arange(6.0).reshape(2, 3),
    "column order": np.asfortranarray(np.arange(6).reshape(2, 3)),
    "empty": np.zeros((0, 3), dtype=np.float32),
    "texts": np.array(["a", "bcd"]),
    "scalar": np.float32(0.1),
    "tensor": torch.arange(4, dtype=torch.int32),
    "half": torch.tensor([1.5, -2.25], dtype=torch.bfloat16),
    "strided": torch.arange(6.0).reshape(2, 3).T,
    "flags": torch.tensor([True, False]),
    "number in a tensor": torch.tensor(3.0, dtype=torch.float64),
    "pair": (1, ["a", (2.0,)]),
    "numbered": {0: "a", 1: {"b": (None,)}, (1, 2): "c"},
    "marks": {"tensor": 1, "tuple": 2},
    "mark": {"array": "0"},
    "counts": Counter({"a": 2, 3: 1}),
    "with a default": defaultdict(int, {"a": 2}),
    "without a default": defaultdict(None, {"a": 2}),
    "no items": [{}, [], ()],
}


def assert_equal(actual, expected):
    assert type(actual) is type(expected)
    if isinstance(expected, dict):
        assert list(actual) == list(expected)
        for key, value in expected.items():
            assert_equal(actual[key], value)
    elif isinstance(expected, list | tuple):
        assert len(actual) == len(expected)
        for a, b in zip(actual, expected, strict=True):
            assert_equal(a, b)
    elif isinstance(expected, torch.Tensor):
        assert actual.dtype == expected.dtype
        assert torch.equal(actual, expected)
    else:
        np.testing.assert_array_equal(actual, expected, strict=isinstance(expected, np.ndarray))


@pytest.mark.parametrize("name", VALUES)
def test_value_comes_back_with_its_type(name, tmp_path):
    path = tmp_path / "file"
    array_files.write(path, {"value": VALUES[name]})
    assert_equal(array_files.read(path)["value"], VALUES[name])


def test_nan_comes_back(tmp_path):
    array_files.write(tmp_path / "file", [float("nan")])
    [value] = array_files.read(tmp_path / "file")
    assert np.isnan(value)


@pytest.mark.parametrize(
    "value",
    [
        object(),
        {1, 2},
        [lambda: 0],
        np.array([None]),
        OrderedDict(a=object()),
        defaultdict(lambda: 0),
        1j,
    ],
)
def test_other_values_are_refused_and_leave_no_file(value, tmp_path):
    assert not array_files.is_storable(value)
    with pytest.raises(TypeError):
        array_files.write(tmp_path / "file", value)
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize("error", [OSError("full"), KeyboardInterrupt()])
def test_file_stays_as_it_was_if_writing_fails(tmp_path, monkeypatch, error):
    path = tmp_path / "file"
    array_files.write(path, [1])

    def fail(handle):
        raise error

    monkeypatch.setattr(os, "fsync", fail)
    with pytest.raises(type(error)):
        array_files.write(path, [2])
    assert array_files.read(path) == [1]
    assert list(tmp_path.iterdir()) == [path]


def test_every_truncated_file_is_unreadable(tmp_path):
    path = tmp_path / "file"
    array_files.write(path, {"a": np.arange(3), "b": "text"})
    content = path.read_bytes()
    for n in range(len(content)):
        path.write_bytes(content[:n])
        with pytest.raises(array_files.UnreadableFile):
            array_files.read(path)


def test_pickled_arrays_are_never_loaded(tmp_path):
    path = tmp_path / "file"
    with open(path, "wb") as file:
        np.savez(file, structure=np.array([{"a": 1}], dtype=object))
    with pytest.raises(array_files.UnreadableFile, match="allow_pickle=False"):
        array_files.read(path)


def test_absent_file(tmp_path):
    with pytest.raises(FileNotFoundError):
        array_files.read(tmp_path / "file")
