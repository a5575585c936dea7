"""What a model is conditioned on: which targets are labels, which are numbers."""

import numpy as np
import pandas as pd
import pytest
from sklearn.preprocessing import LabelBinarizer, StandardScaler

from skae._modules.conditioning import check_condition, one_hot, standardised

N = 6
LABELS = {
    "ints": [0, 1, 2, 0, 1, 2],
    "negative ints": np.array([-1, 4, 4, -1, 7, 7], dtype=np.int8),
    "booleans": [True, False, True, True, False, False],
    "strings": ["a", "b", "a", "b", "c", "c"],
    "objects": np.array(["a", "b", "a", "b", "c", "c"], dtype=object),
    "series": pd.Series(["a", "b", "a", "b", "c", "c"]),
    "categories": pd.Series(pd.Categorical(["a", "b", "a", "b", "c", "c"])),
}
NUMBERS = {
    "whole floats": [1.0, 2.0, 1.0, 2.0, 1.0, 2.0],
    "fractions": [0.5, 1.0, 1.0, 2.0, 2.0, 3.0],
    "float32": np.array([0.5, 1.0, 1.0, 2.0, 2.0, 3.0], dtype=np.float32),
    "two columns": np.arange(12.0).reshape(N, 2) / 4,
    "two columns of ints": np.arange(12).reshape(N, 2),
    "two columns of booleans": np.arange(12).reshape(N, 2) % 2 == 0,
    "frame": pd.DataFrame({"a": np.arange(6), "b": np.arange(6) / 2}),
}


@pytest.mark.parametrize("y", LABELS.values(), ids=LABELS)
def test_labels(y):
    """One per row, with the values that were given."""
    checked = check_condition(y, N)
    assert checked.shape == (N,)
    assert list(checked) == list(y)


@pytest.mark.parametrize("y", NUMBERS.values(), ids=NUMBERS)
def test_numbers(y):
    """float64, one or several for each row."""
    checked = check_condition(y, N)
    assert checked.dtype == np.float64
    np.testing.assert_array_equal(checked, np.asarray(y, dtype=float).reshape(N, -1))


@pytest.mark.parametrize("y", [*LABELS.values(), NUMBERS["fractions"]], ids=[*LABELS, "fractions"])
def test_a_column_is_what_its_values_are(y):
    """(n_rows, 1) and (n_rows,) mean the same."""
    found, expected = check_condition(np.asarray(y)[:, None], N), check_condition(y, N)
    assert found.shape == expected.shape
    np.testing.assert_array_equal(found, expected)


@pytest.mark.parametrize(
    "y",
    [
        [0, 1, 2],
        3,
        "a",
        np.zeros((N, 2, 2)),
        [0.5, np.nan, 1.0, 1.0, 1.0, 1.0],
        [0.5, np.inf, 1.0, 1.0, 1.0, 1.0],
        [1.0, np.nan, 1.0, 1.0, 1.0, 1.0],
        np.full((N, 2), np.nan),
    ],
    ids=str,
)
def test_wrong_targets_are_named(y):
    with pytest.raises(ValueError, match=r"\by\b"):
        check_condition(y, N)


@pytest.mark.parametrize(
    "y",
    [
        [["a", "b"]] * N,
        [[1, 2], [1]] * 3,
        ["a", None] * 3,
        np.array(["a", 1] * 3, dtype=object),
        np.arange(N).astype("datetime64[D]"),
        np.arange(N) * 1j,
        [None] * N,
    ],
    ids=[
        "strings in columns",
        "ragged",
        "a label is missing",
        "mixed",
        "dates",
        "complex",
        "all are missing",
    ],
)
def test_targets_that_are_neither_are_named(y):
    """What is no label and no number is an error that says y; of dates a TypeError, as of rows."""
    with pytest.raises((ValueError, TypeError), match=r"\by\b"):
        check_condition(y, N)


def test_one_row_may_have_a_target():
    assert check_condition(["a"], 1).tolist() == ["a"]
    assert check_condition([0.25], 1).tolist() == [[0.25]]


@pytest.mark.parametrize("name", ["ints", "strings", "booleans"])
def test_labels_are_read_as_scikit_learns(name):
    """A column for each class; LabelBinarizer merges two into one."""
    labels = check_condition(LABELS[name], N)
    classes = np.unique(labels)
    columns = one_hot(labels, classes)
    assert columns.dtype == np.float32
    np.testing.assert_array_equal(columns.sum(axis=1), 1)
    np.testing.assert_array_equal(classes[columns.argmax(axis=1)], labels)
    expected = LabelBinarizer().fit(classes).transform(labels)
    np.testing.assert_array_equal(columns[:, -expected.shape[1] :], expected)


def test_a_column_for_a_class_that_is_not_there():
    np.testing.assert_array_equal(one_hot(np.array([2, 0]), np.arange(3)), [[0, 0, 1], [1, 0, 0]])


@pytest.mark.parametrize(("label", "classes"), [(3, np.arange(3)), ("z", np.array(["a", "b"]))])
def test_a_label_of_no_class_is_named(label, classes):
    with pytest.raises(ValueError, match=rf"y has the label .*{label}.*not occur in fit.*allowed"):
        one_hot(np.array([classes[0], label, classes[1]]), classes)


def test_numbers_are_read_as_scikit_learns():
    numbers = np.random.default_rng(0).normal(3.0, 2.0, (20, 2))
    scaler = StandardScaler().fit(numbers)
    found = standardised(numbers, scaler.mean_, scaler.scale_)
    assert found.dtype == np.float32
    np.testing.assert_allclose(found, scaler.transform(numbers), rtol=1e-6, atol=1e-6)


def test_the_wrong_number_of_numbers():
    with pytest.raises(ValueError, match=r"y has 3 columns of numbers.*fitted with 2"):
        standardised(np.zeros((4, 3)), np.zeros(2), np.ones(2))
