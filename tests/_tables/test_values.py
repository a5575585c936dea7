"""What containers hold, column by column, and what is refused."""

import datetime
from decimal import Decimal
from enum import Enum

import numpy as np
import pandas as pd
import polars as pl
import pyarrow as pa
import pytest
import torch
from scipy import sparse

from skae._tables.columns import Table
from skae._tables.values import container_of

nan = np.nan


@pytest.mark.parametrize(
    ("X", "container"),
    [
        (pd.DataFrame({"a": ["x"]}), "pandas"),
        (pl.DataFrame({"a": ["x"]}), "polars"),
        (pa.table({"a": ["x"]}), "pyarrow"),
        (np.array([["x", 1]], dtype=object), "objects"),
        (np.array([["x", "y"]]), "objects"),
        (np.array([["x", "y"]], dtype=np.dtypes.StringDType()), "objects"),
        ([["x", 1]], "objects"),
        ([("x", 1.5)], "objects"),
        ([[1, None]], "numbers"),
        ([[1.0, 2.0]], "numbers"),
        ([[True, False]], "numbers"),
        (np.eye(2), "numbers"),
        (np.ma.array([[1, 2]], mask=[[True, False]]), "numbers"),
        (sparse.csr_array(np.eye(2)), "numbers"),
        (torch.eye(2), "numbers"),
        (torch.eye(2, dtype=torch.bfloat16), "numbers"),
    ],
)
def test_containers(X, container):
    assert container_of(X) == container


PARTS = (["x", None], ["y"])
DICTIONARY = pd.ArrowDtype(pa.dictionary(pa.int32(), pa.string()))
MISSING = [
    pd.DataFrame({"v": [0.0, nan, 1.0]}),
    pd.DataFrame({"v": pd.array([0, None, 1], dtype="Int64")}),
    pd.DataFrame({"v": pd.array([0, None, 1], dtype="int8[pyarrow]")}),
    pd.DataFrame({"v": pd.array([False, None, True], dtype="boolean")}),
    pd.DataFrame({"v": pd.Series(["x", None, "y"])}),
    pd.DataFrame({"v": pd.Series(["x", nan, "y"], dtype=object)}),
    pd.DataFrame({"v": pd.Series(["x", pd.NA, "y"], dtype=object)}),
    pd.DataFrame({"v": pd.array(["x", pd.NA, "y"], dtype="string")}),
    pd.DataFrame({"v": pd.Categorical(["x", None, "y"])}),
    pd.DataFrame({"v": pd.Categorical([0, None, 1])}),
    pd.DataFrame({"v": pd.Series([0, pd.NA, 1], dtype=object)}),
    pd.DataFrame({"v": pd.Series([Decimal(0), None, Decimal(1)], dtype=object)}),
    pd.DataFrame({"v": pd.arrays.SparseArray([0.0, nan, 1.0])}),
    pl.DataFrame({"v": [0.0, None, 1.0]}),
    pl.DataFrame({"v": [0.0, nan, 1.0]}),
    pl.DataFrame({"v": [0, None, 1]}),
    pl.DataFrame({"v": [False, None, True]}),
    pl.DataFrame({"v": ["x", None, "y"]}),
    pl.DataFrame({"v": pl.Series(["x", None, "y"], dtype=pl.Categorical)}),
    pl.DataFrame({"v": pl.Series(["x", None, "y"], dtype=pl.Enum(["x", "y"]))}),
    pl.DataFrame({"v": pl.Series([0, None, 1], dtype=pl.Decimal(5, 2))}),
    pl.DataFrame({"v": pl.Series([0, None, 1], dtype=pl.Int128)}),
    pa.table({"v": [0, None, 1]}),
    pa.table({"v": ["x", None, "y"]}),
    pa.table({"v": pa.array(["x", None, "y"]).dictionary_encode()}),
    pa.table({"v": [False, None, True]}),
    pd.concat([pd.DataFrame({"v": pd.array(v, dtype=DICTIONARY)}) for v in PARTS]),
    pa.table({"v": pa.chunked_array([pa.array(v).dictionary_encode() for v in PARTS])}),
    np.array([[0.0], [nan], [1.0]]),
    np.array([[0], [None], [1]], dtype=object),
    np.array([["x"], [None], ["y"]], dtype=object),
    np.array([["x"], [nan], ["y"]], dtype=object),
    np.array([["x"], [pd.NA], ["y"]], dtype=object),
    np.array([["x"], [np.float32(nan)], ["y"]], dtype=object),
    np.array([[np.False_], [None], [np.True_]], dtype=object),
    np.ma.array([[0], [5], [1]], mask=[[False], [True], [False]]),
    np.ma.array([[0.0], [np.inf], [1.0]], mask=[[False], [True], [False]]),
    np.ma.array([["x"], ["z"], ["y"]], mask=[[False], [True], [False]]),
    np.ma.array([["x"], [3], ["y"]], mask=[[False], [True], [False]], dtype=object),
    [["x"], [None], ["y"]],
    [[0], [None], [1]],
    [[False], [None], [True]],
]


@pytest.mark.parametrize("X", MISSING, ids=lambda X: type(X).__module__)
@pytest.mark.parametrize("likelihood", ["auto", "categorical"])
def test_what_is_missing_is_nan(X, likelihood):
    rows = Table.learn(X, likelihood).encode(X)
    np.testing.assert_array_equal(rows, [[0.0], [nan], [1.0]])
    assert rows.dtype == np.float64


class Colour(str, Enum):  # noqa: UP042 - a StrEnum prints as its text
    """Text that prints as another: "Colour.RED"."""

    RED = "red"
    BLUE = "blue"


def test_text_of_other_classes_is_the_text_that_it_is():
    X = np.array([[Colour.RED], [Colour.BLUE], [None], [np.str_("red")]], dtype=object)
    table = Table.learn(X, "auto")
    assert table.categories[0].tolist() == ["blue", "red"]
    np.testing.assert_array_equal(table.encode(X)[:, 0], [1, 0, np.nan, 1])


@pytest.mark.parametrize("dtype", [object, "category", "str"])
def test_text_that_numpy_would_cut_is_refused(dtype):
    X = pd.DataFrame({"v": pd.Series(["a\0", "b"], dtype=dtype)})
    with pytest.raises(ValueError, match="'v', holds text that ends in a null character"):
        Table.learn(X, "auto")


def test_mask_and_nan_are_both_missing():
    X = np.ma.array([[nan], [2.0], [3.0], [4.0]], mask=[[False], [True], [False], [False]])
    for likelihood, rows in (("auto", [nan, nan, 3, 4]), ("categorical", [nan, nan, 0, 1])):
        table = Table.learn(X, likelihood)
        np.testing.assert_array_equal(table.encode(X)[:, 0], rows)
        np.testing.assert_array_equal(table.encode([X[0], *X[1:]])[:, 0], rows)
    assert table.categories[0].tolist() == [3.0, 4.0]


def test_what_is_read_stays_as_it_is():
    X = np.ma.array([["x"], ["z"], ["y"]], mask=[[False], [True], [False]], dtype=object)
    Table.learn(X, "auto").encode(X)
    assert X.data.tolist() == [["x"], ["z"], ["y"]]


@pytest.mark.parametrize("first", [np.eye(2, dtype=np.float32), torch.eye(2)])
def test_single_precision_where_every_column_has_it(first):
    table = Table.learn(first, "auto")
    assert table.encode(first).dtype == np.float32
    frame = pd.DataFrame(np.eye(2, dtype=np.float32), columns=["a", "b"])
    assert table.encode(frame).dtype == np.float32
    assert table.encode(frame.astype({"b": float})).dtype == np.float64


def test_sparse_rows_tensors_and_lists_are_read_as_arrays_are():
    X = np.array([[0.0, 2.0], [1.0, 0.0]])
    table = Table.learn(X, "auto")
    for given in (sparse.csr_array(X), sparse.coo_matrix(X), torch.tensor(X), X.tolist()):
        np.testing.assert_array_equal(table.encode(given), X)
        assert Table.learn(given, "auto").likelihoods == table.likelihoods


def test_integers_too_large_for_floats_stay_apart_as_levels():
    large = 2**60
    for X in (
        pd.DataFrame({"v": pd.array([large, large + 1, None], dtype="Int64")}),
        pl.DataFrame({"v": [large, large + 1, None]}),
        np.array([[large], [large + 1], [None]], dtype=object),
    ):
        table = Table.learn(X, "categorical")
        assert next(iter(table.categories.values())).tolist() == [large, large + 1]
        np.testing.assert_array_equal(table.encode(X), [[0], [1], [nan]])


def test_text_may_be_followed_by_numbers_after_many_rows():
    """narwhals takes a column of objects for text by its first hundred values."""
    X = pd.DataFrame({"v": pd.Series(["x", "y"] * 100 + [3], dtype=object)})
    with pytest.raises(TypeError, match="column 'v', holds values of mixed types, text and int"):
        Table.learn(X, "auto")


# ----------------------------------------------------------------------- what is refused

SHAPES = [
    (np.ones(3), ValueError, "Expected 2D array, got 1D array instead. Reshape your data"),
    (["x", "y"], ValueError, "Expected 2D array, got 1D"),
    (pd.Series(["x", "y"]), ValueError, "Expected 2D array, got 1D"),
    (pd.Series([1.0, 2.0]), ValueError, "Expected 2D array, got 1D"),
    ("a word", ValueError, "Expected 2D array, got 0D"),
    (np.ones((2, 3, 4)), ValueError, r"shape \(2, 3, 4\) with 3 dimensions; expected two"),
    (np.ones((0, 2)), ValueError, r"0 sample\(s\) \(shape=\(0, 2\)\) while a minimum of 1"),
    (pd.DataFrame({"a": []}), ValueError, r"0 sample\(s\)"),
    (np.ones((2, 0)), ValueError, r"0 feature\(s\) \(shape=\(2, 0\)\) while a minimum of 1"),
    (pl.LazyFrame({"a": [1]}), TypeError, "is a lazy frame"),
    (np.ones((2, 2)) * 1j, ValueError, "Complex data not supported"),
    (np.ones((2, 2), dtype="M8[D]"), TypeError, "X has dates or times"),
    (np.array([[b"x"]]), ValueError, "X has dtype .S1"),
    (np.zeros((2, 2), dtype="V4"), ValueError, "X has dtype .V4"),
]


@pytest.mark.parametrize(("X", "error", "message"), SHAPES)
def test_what_is_no_table(X, error, message):
    with pytest.raises(error, match=message):
        Table.learn(X, "auto")


DAY = datetime.date(2020, 1, 1)
COLUMNS = [
    ([np.inf, 1.0], ValueError, "holds infinity"),
    ([-np.inf, 1.0], ValueError, "holds infinity"),
    ([DAY, DAY], TypeError, "has dates or times, of type"),
    ([datetime.timedelta(1)] * 2, TypeError, "has dates or times, of type"),
    (["x", 1], TypeError, "holds values of mixed types, text and int"),
    (["x", 1.5, True], TypeError, "holds values of mixed types, text and bool, float"),
    ([["x"], ["y"]], TypeError, "holds values of type (list|ndarray|Series)"),
    ([1j, 2j], TypeError, "holds values of type complex"),
    ([b"x", b"y"], TypeError, "holds values of type bytes"),
    ([None, None], ValueError, "is missing in every row"),
    ([nan, nan], ValueError, "is missing in every row"),
    (["x", "x", None], ValueError, "has only the level 'x', but a categorical column needs"),
]


def as_objects(values):
    column = np.empty((len(values), 1), dtype=object)
    column[:, 0] = values
    return column


@pytest.mark.parametrize(("values", "error", "message"), COLUMNS)
def test_columns_that_are_refused_in_pandas_and_arrays(values, error, message):
    with pytest.raises(error, match=f"column 'v', {message}"):
        Table.learn(pd.DataFrame({"v": pd.Series(values, dtype=object), "w": 1}), "auto")
    with pytest.raises(error, match=f"column 0, {message}"):
        Table.learn(as_objects(values), "auto")


@pytest.mark.parametrize(
    ("series", "error", "message"),
    [
        (pd.Series(pd.date_range("2020", periods=2)), TypeError, "dates or times"),
        (pd.Series(pd.period_range("2020", periods=2, freq="D")), TypeError, "dates or times"),
        (pd.Series(pd.Categorical(pd.date_range("2020", periods=2))), TypeError, "dates or times"),
        (pd.Series(pd.cut([1.0, 2.0], 2)), TypeError, r"of type Interval.*astype\(str\)"),
        (pd.Series([1j, 2j]), TypeError, "of type complex"),
        (
            pd.Series(pd.Categorical([None, None], ["x", "y"])),
            ValueError,
            "is missing in every row",
        ),
        (pd.Series(pd.Categorical([None, None])), ValueError, "is missing in every row"),
        (pd.Series(pd.Categorical(["x", None])), ValueError, "only the level 'x'"),
        (pl.Series([DAY, DAY]), TypeError, "dates or times"),
        (pl.Series([[1], [2]]), TypeError, "holds values of type"),
        (pl.Series([None, None]), ValueError, "is missing in every row"),
        (pl.Series([None, None], dtype=pl.String), ValueError, "is missing in every row"),
        (pl.Series([np.inf, 1.0]), ValueError, "infinity"),
    ],
)
def test_columns_of_frames_that_are_refused(series, error, message):
    frame = series.to_frame("v") if isinstance(series, pd.Series) else pl.DataFrame({"v": series})
    with pytest.raises(error, match=f"column 'v', .*{message}"):
        Table.learn(frame, "auto")


def test_columns_of_one_name():
    X = pd.DataFrame([[1, 2]], columns=["a", "a"])
    with pytest.raises(ValueError, match="several columns with the same name"):
        Table.learn(X, "auto")


def test_names_that_are_numbers_are_none():
    table = Table.learn(pd.DataFrame({5: [0.5, 1.0], 7: ["x", "y"]}), "auto")
    assert table.likelihoods == {0: "gaussian", 1: "categorical"}


def test_names_of_two_types():
    with pytest.raises(TypeError, match=r"only supported if all.*\['int', 'str'\]"):
        Table.learn(pd.DataFrame({5: [0.5, 1.0], "b": [1.0, 2.0]}), "auto")
