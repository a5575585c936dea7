"""What a model is conditioned on, as the decoder reads it."""

import numpy as np
import pandas as pd
import pytest
from sklearn.preprocessing import LabelBinarizer, OneHotEncoder, StandardScaler

from skae._modules.conditioning import (
    Labels,
    Numbers,
    Several,
    condition_of,
    one_hot,
    standardised,
)
from skae._modules.targets import check_condition

N = 6
LABELS = {
    "ints": [0, 1, 2, 0, 1, 2],
    "strings": ["a", "b", "a", "b", "c", "c"],
    "booleans": [True, False, True, True, False, False],
}


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


def test_labels_of_another_kind_did_not_occur():
    """The string "3" is not the number 3."""
    with pytest.raises(ValueError, match=r"y has the label '3', which did not occur in fit"):
        one_hot(np.array(["3", "5"]), np.array([3, 5]))


# ------------------------------------------------------------------------ several columns

FRAME = pd.DataFrame(
    {
        "batch": pd.Categorical(["b", "a", "b", "b", "a", "c"], categories=["c", "b", "a", "z"]),
        "dose": [0.5, 1.0, 1.0, 2.0, 2.0, 3.0],
        "donor": pd.Categorical([7, 3, 7, 3, 5, 5]),
        "treated": [True, False, True, True, False, False],
    }
)
NAMES = ["batch", "donor", "treated"]


def by_hand(frame):
    """Indicators of the labels, and then the standardised numbers, by scikit-learn."""
    encoder = OneHotEncoder(sparse_output=False).fit(FRAME[NAMES])
    parts = [encoder.transform(frame[NAMES])]
    if "dose" in frame:
        parts.append(StandardScaler().fit(FRAME[["dose"]].values).transform(frame[["dose"]].values))
    return np.hstack(parts)


@pytest.mark.parametrize("names", [NAMES, list(FRAME.columns)], ids=["labels", "with numbers"])
def test_inputs_of_the_decoder_for_several_columns(names):
    """By scikit-learn's encoder; found by name in any order, or by position without names."""
    y = FRAME[names]
    condition = condition_of(check_condition(y, N), None)
    assert isinstance(condition, Several)
    expected = by_hand(y)
    found = condition.columns(check_condition(y, N))
    assert found.dtype == np.float32
    np.testing.assert_allclose(found, expected, rtol=1e-6)
    np.testing.assert_array_equal(condition.of(y[names[::-1]], N), found)
    np.testing.assert_array_equal(condition.of(y.to_numpy(dtype=object), N), found)


def test_one_row_of_targets_for_all_rows():
    y = FRAME.iloc[:1]
    condition = condition_of(check_condition(FRAME, N), None)
    expected = np.repeat(by_hand(y), 3, axis=0)
    row = y.iloc[0]
    shuffled = {name: row[name] for name in ("dose", "treated", "batch", "donor")}
    for given in (y, row, shuffled, tuple(row), list(row), row[::-1], row.to_numpy()):
        np.testing.assert_allclose(condition.of(given, 3), expected, rtol=1e-6)


def test_whole_numbers_for_labels_that_are_whole_numbers():
    """An array of ints, whose columns are numbers in fit, is read as these labels."""
    y = pd.DataFrame({"a": [3, 5, 3], "b": [1, 1, 2]}).astype("category")
    condition = condition_of(check_condition(y, 3), None)
    expected = condition.of(y, 3)
    for given in (y.to_numpy(dtype=np.int64), y.astype(int)[["b", "a"]], y.to_numpy(dtype=float)):
        np.testing.assert_array_equal(condition.of(given, 3), expected)
    np.testing.assert_array_equal(condition.of((5, 1), 2), expected[[1, 1]])


def test_categories_that_are_floats_stay_labels():
    y = pd.Series([0.5, 2.0, 0.5], dtype="category")
    condition = condition_of(check_condition(y, 3), None)
    assert isinstance(condition, Labels)
    np.testing.assert_array_equal(condition.of(np.array([0.5, 2.0, 0.5]), 3), condition.of(y, 3))
    np.testing.assert_array_equal(condition.of(2.0, 2), [[0, 1], [0, 1]])


def test_columns_of_numbers_are_found_by_name():
    y = pd.DataFrame({"a": [0.0, 2.0, 4.0], "b": [1.0, 1.0, 7.0]})
    condition = condition_of(check_condition(y, 3), None)
    assert isinstance(condition, Numbers)
    expected = StandardScaler().fit_transform(y)
    for given in (y, y[["b", "a"]], y.to_numpy()):
        np.testing.assert_allclose(condition.of(given, 3), expected, rtol=1e-6)
    for given in ({"b": 1.0, "a": 2.0}, (2.0, 1.0), y.iloc[1], y.iloc[1:2]):
        np.testing.assert_allclose(condition.of(given, 2), expected[[1, 1]], rtol=1e-6)
    with pytest.raises(ValueError, match=r"y has the columns \['a', 'c'\], but .* \['a', 'b'\]"):
        condition.of(y.rename(columns={"b": "c"}), 3)


@pytest.mark.parametrize(
    ("y", "named"),
    [
        (FRAME.rename(columns={"donor": "who"}), r"y has the columns .*'who'.* fitted with"),
        (FRAME[NAMES], r"y has the columns .*fitted with the columns"),
        (FRAME.assign(donor=8), r"y, column 'donor', has the label 8.*did not occur.*\[3, 5, 7\]"),
        (FRAME.assign(batch="z"), r"y, column 'batch', has the label 'z'.*did not occur in fit"),
        (FRAME.assign(dose="high"), r"y, column 'dose', contains labels.*fitted with numbers"),
        ({"batch": "a", "donor": 3}, r"y has the entries \['batch', 'donor'\].*fitted with"),
        ("a", r"y has 1 column, but the model was fitted with 4 columns \['batch'"),
        (["a", "b", "c"], r"y has 1 column, but the model was fitted with 4 columns"),
        (("a", 1.0, 8, True), r"y, column 'donor', has the label 8"),
        (("a", None, 3, True), r"y, column 'dose', has missing values"),
        (FRAME.iloc[:3], r"y has shape \(3, 4\)"),
    ],
)
def test_other_columns_than_in_fit(y, named):
    condition = condition_of(check_condition(FRAME, N), None)
    with pytest.raises(ValueError, match=named):
        condition.of(y, N)


def test_several_columns_for_a_model_of_one():
    condition = condition_of(check_condition(FRAME["batch"], N), None)
    with pytest.raises(ValueError, match=r"y has 2 columns.*fitted with one column of labels"):
        condition.of(FRAME[["batch", "donor"]], N)


def test_combinations_of_labels():
    """Indices from indicators, and back; and the labels at them."""
    y = FRAME[NAMES]
    condition = condition_of(check_condition(y, N), None)
    columns = condition.of(y, N)
    codes = condition.codes(columns)
    expected = np.stack([np.unique(y[n], return_inverse=True)[1] for n in NAMES], axis=1)
    np.testing.assert_array_equal(codes, expected)
    np.testing.assert_array_equal(condition.indicators(codes), columns)
    labels = condition.labels(codes)
    assert labels.tolist() == y.to_numpy(dtype=object).tolist()
    np.testing.assert_array_equal(condition.codes_of(labels), codes)
