"""Targets of every container: which columns are labels, and which are numbers."""

import numpy as np
import pandas as pd
import polars as pl
import pytest

from skae._modules.targets import Targets, check_condition

N = 6
LABELS = {
    "ints": [0, 1, 2, 0, 1, 2],
    "negative ints": np.array([-1, 4, 4, -1, 7, 7], dtype=np.int8),
    "booleans": [True, False, True, True, False, False],
    "strings": ["a", "b", "a", "b", "c", "c"],
    "objects": np.array(["a", "b", "a", "b", "c", "c"], dtype=object),
    "series": pd.Series(["a", "b", "a", "b", "c", "c"]),
    "categories": pd.Series(pd.Categorical(["a", "b", "a", "b", "c", "c"])),
    "categories that are ints": pd.Series([7, 3, 7, 3, 5, 5], dtype="category", name="batch"),
    "categories that are floats": pd.Series([0.5, 1.0, 0.5, 1.0, 2.0, 2.0], dtype="category"),
    "Categorical": pd.Categorical([7, 3, 7, 3, 5, 5], categories=[3, 4, 5, 7]),
    "categories of polars": pl.Series(["a", "b", "a", "b", "c", "c"], dtype=pl.Categorical),
}
NUMBERS = {
    "whole floats": [1.0, 2.0, 1.0, 2.0, 1.0, 2.0],
    "fractions": [0.5, 1.0, 1.0, 2.0, 2.0, 3.0],
    "float32": np.array([0.5, 1.0, 1.0, 2.0, 2.0, 3.0], dtype=np.float32),
    "two columns": np.arange(12.0).reshape(N, 2) / 4,
    "two columns of ints": np.arange(12).reshape(N, 2),
    "two columns of booleans": np.arange(12).reshape(N, 2) % 2 == 0,
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


@pytest.mark.parametrize(
    "name", [*sorted(set(LABELS) - {"categories that are floats"}), "fractions"]
)
def test_a_column_is_what_its_values_are(name):
    """(n_rows, 1) and (n_rows,) mean the same."""
    y = (LABELS | NUMBERS)[name]
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
        [[1, 2], [1]] * 3,
        ["a", None] * 3,
        np.array(["a", 1] * 3, dtype=object),
        np.arange(N).astype("datetime64[D]"),
        np.arange(N) * 1j,
        [None] * N,
    ],
    ids=[
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


@pytest.mark.parametrize("dtype", ["category", "str", object, bool, np.int64])
def test_a_frame_with_one_column_is_that_column(dtype):
    values = pd.Series([0, 1, 1, 0, 1, 0]).astype(dtype)
    found, expected = (check_condition(y, N) for y in (values.to_frame("batch"), values))
    assert found.ndim == 1
    np.testing.assert_array_equal(found, expected)


# ------------------------------------------------------------------------ several columns

COLUMNS = {
    "batch": ["a", "b", "a", "b", "c", "c"],
    "donor": [7, 3, 7, 3, 5, 5],
    "treated": [True, False, True, True, False, False],
    "age": [1, 2, 3, 4, 5, 6],
    "dose": [0.5, 1.0, 1.0, 2.0, 2.0, 3.0],
}
OF_LABELS = ["batch", "donor", "treated"]


def of_pandas():
    frame = pd.DataFrame(COLUMNS).astype({"donor": "category"})
    frame["batch"] = pd.Categorical(frame["batch"], categories=["unused", "c", "b", "a"])
    return frame


def of_polars():
    return pl.DataFrame(COLUMNS).with_columns(pl.col("donor").cast(pl.String).cast(pl.Categorical))


@pytest.mark.parametrize("make", [of_pandas, of_polars])
def test_columns_of_a_frame(make):
    """Each is what it is alone, except that integers beside other columns are numbers."""
    found = check_condition(make(), N)
    assert isinstance(found, Targets)
    assert found.names == tuple(COLUMNS)
    for name, values in COLUMNS.items():
        if name in OF_LABELS:
            expected = list(map(str, values)) if (name, make) == ("donor", of_polars) else values
            assert found[name].tolist() == expected
        else:
            np.testing.assert_array_equal(found[name], np.array(values, dtype=float)[:, None])
    some = np.array([True, False, False, True, False, True])
    assert found[some]["donor"].tolist() == found["donor"][some].tolist()


def test_a_frame_of_numbers_is_numbers_with_names():
    frame = of_pandas()[["age", "dose"]]
    found = check_condition(frame, N)
    assert found.names == ("age", "dose")
    assert found.are_numbers
    np.testing.assert_array_equal(found.numbers(), frame.to_numpy())


@pytest.mark.parametrize(
    "y",
    [
        [["a", 7], ["b", 3], ["a", 7]],
        np.array([["a", 7], ["b", 3], ["a", 7]], dtype=object),
        (("a", 7), ("b", 3), ("a", 7)),
    ],
    ids=["list", "objects", "tuple"],
)
def test_columns_of_an_array_of_objects(y):
    """They have no names; whole numbers in them are labels."""
    found = check_condition(y, 3)
    assert found.names == ("0", "1")
    assert found["0"].tolist() == ["a", "b", "a"]
    assert found["1"].tolist() == [7, 3, 7]
    assert found["1"].dtype == np.int64


def test_columns_of_an_array_of_strings():
    found = check_condition(np.array([["a", "7"], ["b", "3"]]), 2)
    assert found["1"].tolist() == ["7", "3"]


@pytest.mark.parametrize("missing", [None, np.nan, pd.NA])
@pytest.mark.parametrize("dtype", ["category", object])
def test_a_missing_label_is_an_error_that_names_the_column(missing, dtype):
    frame = pd.DataFrame({"batch": ["a", missing, "b"], "donor": ["x", "y", "z"]}, dtype=dtype)
    with pytest.raises(ValueError, match=r"y, column 'batch', has missing values in 1 of its rows"):
        check_condition(frame, 3)
    with pytest.raises(ValueError, match=r"y, column 0, has missing values in 1 of its rows"):
        check_condition(frame.to_numpy(dtype=object), 3)
    if dtype == "category":
        with pytest.raises(ValueError, match=r"y, column 'batch', has missing values in 1"):
            check_condition(frame["batch"], 3)


@pytest.mark.parametrize(
    ("column", "error", "named"),
    [
        ([1.0, np.nan, 2.0], ValueError, "has missing values"),
        ([1.0, np.inf, 2.0], ValueError, "contains infinity"),
        (["a", 1, 2.5], ValueError, "has values of the types"),
        (pd.to_datetime(["2020-01-01"] * 3), TypeError, "has dates"),
        (pd.Categorical(pd.to_datetime(["2020-01-01"] * 3)), ValueError, "has categories of type"),
        ([1j, 2j, 3j], ValueError, "has values of type complex"),
    ],
)
def test_a_column_that_is_neither_is_named(column, error, named):
    frame = pd.DataFrame({"batch": ["a", "b", "c"], "strange": column})
    with pytest.raises(error, match=f"y, column 'strange',? {named}"):
        check_condition(frame, 3)


def test_columns_need_different_names():
    frame = pd.DataFrame([["a", "x"], ["b", "y"]], columns=["batch", "batch"])
    with pytest.raises(ValueError, match=r"y has several columns with the same name"):
        check_condition(frame, 2)
    frame.columns = [1, "1"]
    with pytest.raises(ValueError, match=r"The columns of y are \['1', '1'\]"):
        check_condition(frame, 2)


def test_one_target_for_each_row():
    with pytest.raises(ValueError, match=r"y has shape \(6, 5\).*one row for each row of X"):
        check_condition(of_pandas(), 4)
