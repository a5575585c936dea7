"""What was read is written as it came; in other containers, in their types."""

import numpy as np
import pandas as pd
import polars as pl
import pyarrow as pa
import pytest

from skae._tables.columns import Table
from skae._tables.values import container_of

nan = np.nan

PANDAS = {
    "float64": [1.5, nan, 2.0],
    "float32": np.array([1.5, nan, 2.0], dtype=np.float32),
    "float16": np.array([1.5, nan, 2.0], dtype=np.float16),
    "int64": [7, -3, 2**40],
    "uint8": np.array([0, 255, 3], dtype=np.uint8),
    "bool": [True, False, True],
    "Int8": pd.array([0, None, 127], dtype="Int8"),
    "UInt16": pd.array([0, None, 2**16 - 1], dtype="UInt16"),
    "Float32": pd.array([0.5, None, 7.0], dtype="Float32"),
    "boolean": pd.array([True, None, False], dtype="boolean"),
    "str": ["b", None, "a"],
    "string": pd.array(["b", None, "a"], dtype="string"),
    "string[python]": pd.array(["b", None, "a"], dtype="string[python]"),
    "object": pd.Series(["b", nan, "a"], dtype=object),
    "integers": pd.Series([5, nan, 7], dtype=object),
    "booleans": pd.Series([True, nan, False], dtype=object),
    "category": pd.Categorical(["b", None, "a"]),
    "declared": pd.Categorical(["b", None, "a"], ["c", "b", "a"]),
    "ordered": pd.Categorical(["b", None, "a"], ["b", "c", "a"], ordered=True),
    "of_objects": pd.Categorical(pd.Series(["b", None, "a"], dtype=object)),
    "of_string": pd.Categorical(pd.Series(["b", None, "a"], dtype="string")),
    "of_integers": pd.Categorical([3, None, 1], [3, 2, 1]),
    "of_floats": pd.Categorical([3.5, None, 1.0]),
    "of_booleans": pd.Categorical([True, None, False]),
    "sparse": pd.arrays.SparseArray([1.5, nan, 2.0]),
    "arrow int16": pd.array([1, None, 300], dtype="int16[pyarrow]"),
    "arrow double": pd.array([1.5, None, 3.0], dtype="double[pyarrow]"),
    "arrow bool": pd.array([True, None, False], dtype="bool[pyarrow]"),
    "arrow string": pd.array(["b", None, "a"], dtype=pd.ArrowDtype(pa.string())),
    "arrow large_string": pd.array(["b", None, "a"], dtype=pd.ArrowDtype(pa.large_string())),
    "arrow dictionary": pd.array(
        ["b", None, "a"], dtype=pd.ArrowDtype(pa.dictionary(pa.int8(), pa.string()))
    ),
}


@pytest.mark.parametrize("values", PANDAS.values(), ids=PANDAS)
@pytest.mark.parametrize("likelihood", ["auto", "categorical"])
def test_pandas_columns_come_back(values, likelihood):
    X = pd.DataFrame({"v": values})
    X.index = ["first", "second", "third"]
    table = Table.learn(X, likelihood)
    pd.testing.assert_frame_equal(table.write(table.encode(X), "pandas", X.index), X)
    # Networks give single precision, which holds all of these numbers; and no index.
    rows = table.encode(X).astype(np.float32)
    pd.testing.assert_frame_equal(table.write(rows, "pandas"), X.reset_index(drop=True))


POLARS = [
    pl.Series([1.5, None, 2.0]),
    pl.Series([1.5, None, 2.0], dtype=pl.Float32),
    pl.Series([7, None, 2**40]),
    pl.Series([0, None, 255], dtype=pl.UInt8),
    pl.Series([0, None, 255], dtype=pl.Int128),
    pl.Series([True, None, False]),
    pl.Series(["b", None, "a"]),
    pl.Series(["b", None, "a"], dtype=pl.Categorical),
    pl.Series(["b", None, "a"], dtype=pl.Enum(["b", "c", "a"])),
]


@pytest.mark.parametrize("values", POLARS, ids=lambda values: str(values.dtype))
@pytest.mark.parametrize("likelihood", ["auto", "categorical"])
def test_polars_columns_come_back(values, likelihood):
    X = pl.DataFrame({"v": values})
    table = Table.learn(X, likelihood)
    written = table.write(table.encode(X), "polars")
    assert written.schema == X.schema
    assert written.equals(X)


ARROW = [
    pa.array([1.5, None, 2.0]),
    pa.array([1.5, None, 2.0], pa.float32()),
    pa.array([7, None, 2**40]),
    pa.array([0, None, 255], pa.uint8()),
    pa.array([True, None, False]),
    pa.array(["b", None, "a"]),
    pa.array(["b", None, "a"], pa.large_string()),
    pa.array(["b", None, "a"], pa.string_view()),
    pa.array(["b", None, "a"]).dictionary_encode(),
    pa.array([3, None, 1]).dictionary_encode(),
    pa.array(["b", None, "a"], pa.dictionary(pa.int8(), pa.large_string(), ordered=True)),
]


@pytest.mark.parametrize("values", ARROW, ids=lambda values: str(values.type))
@pytest.mark.parametrize("likelihood", ["auto", "categorical"])
def test_pyarrow_columns_come_back(values, likelihood):
    X = pa.table({"v": values})
    table = Table.learn(X, likelihood)
    written = table.write(table.encode(X), "pyarrow")
    assert written.schema == X.schema
    assert written.to_pylist() == X.to_pylist()


OBJECTS = np.array(
    [["b", 1.5, 3, True, 2], [nan, nan, nan, nan, nan], ["a", 2.5, 4, False, 1]], dtype=object
)


def test_arrays_of_objects_come_back():
    table = Table.learn(OBJECTS, "auto")
    written = table.write(table.encode(OBJECTS), "objects")
    assert written.dtype == object
    assert written[[0, 2]].tolist() == OBJECTS[[0, 2]].tolist()
    assert [*map(type, written[0])] == [*map(type, OBJECTS[0])]
    assert all(value is nan or value != value for value in written[1])


def test_arrays_of_numbers_come_back():
    X = np.array([[1.0, 0.5], [5.0, nan], [nan, 1.0], [2.0, 3.0]])
    table = Table.learn(X, {0: "categorical", 1: "gaussian"})
    rows = table.encode(X)
    np.testing.assert_array_equal(rows, [[0, 0.5], [2, nan], [nan, 1], [1, 3]])
    np.testing.assert_array_equal(table.write(rows, "numbers"), X)
    assert table.write(rows.astype(np.float32), "numbers").dtype == np.float32
    np.testing.assert_array_equal(rows[:, 0], [0, 2, nan, 1])  # not written into


MIXED = pd.DataFrame(
    {
        "price": [1.5, 3.0, 2.0],
        "colour": ["red", "blue", "red"],
        "size": pd.Categorical(["L", "S", "L"], ["S", "M", "L"], ordered=True),
        "stars": pd.Categorical([5, 1, 5]),
        "visits": [0, 3, 1],
        "member": [True, False, True],
    }
)


@pytest.mark.parametrize("container", ["numbers", "objects", "pandas", "polars", "pyarrow"])
@pytest.mark.parametrize("trained", ["objects", "pandas", "polars", "pyarrow"])
def test_what_comes_out_goes_in_again(trained, container):
    X = {
        "objects": MIXED.to_numpy(dtype=object),
        "pandas": MIXED,
        "polars": pl.from_pandas(MIXED.astype({"stars": int})),
        "pyarrow": pa.Table.from_pandas(MIXED),
    }[trained]
    kinds = ["gaussian", "categorical", "categorical", "categorical", "poisson", "bernoulli"]
    table = Table.learn(X, dict(enumerate(kinds)))
    rows = table.encode(X)
    rows[0, 2] = nan  # of the size
    written = table.write(rows, container)
    assert container_of(written) == container
    np.testing.assert_array_equal(table.encode(written), rows)


def test_means_are_rounded_in_frames_alone():
    table = Table.learn(MIXED, "auto")
    rows = np.array([[1.7, 1, 2, 0, 2.6, 0.5], [-1.5, 0, 1, 1, -0.4, 0.4]])
    expected = pd.DataFrame(
        {
            "price": [1.7, -1.5],
            "colour": ["red", "blue"],
            "size": pd.Categorical(["L", "M"], ["S", "M", "L"], ordered=True),
            "stars": pd.Categorical([1, 5]),
            "visits": [3, 0],
            "member": [True, False],
        }
    )
    pd.testing.assert_frame_equal(table.write(rows, "pandas"), expected)
    objects = table.write(rows, "objects")
    assert objects.tolist() == expected.to_numpy(dtype=object).tolist()
    numbers = [[1.7, 1, 2, 1, 2.6, 0.5], [-1.5, 0, 1, 5, -0.4, 0.4]]
    np.testing.assert_array_equal(table.write(rows, "numbers"), numbers)


@pytest.mark.parametrize(
    ("dtype", "number", "written"),
    [
        (np.uint8, 255.4, 255),
        (np.uint8, 300.0, 255),
        (np.uint8, -3.0, 0),
        (np.int8, -200.0, -128),
        (np.int64, 1e30, 2**63 - 1),
        (np.int64, -1e30, -(2**63)),
        (np.uint64, 1e30, 2**64 - 1),
        (np.int64, 2.5e15, 2_500_000_000_000_000),
    ],
)
def test_integers_stay_within_their_type(dtype, number, written):
    table = Table.learn(pd.DataFrame({"v": np.array([3, 5], dtype=dtype)}), {"v": "gaussian"})
    column = table.write(np.array([[number]]), "pandas")["v"]
    assert column.dtype == dtype
    assert column.tolist() == [written]


def test_natural_types_of_a_frame_that_fit_did_not_see():
    table = Table.learn(MIXED, "auto")
    rows = table.encode(MIXED)
    polars = table.write(rows, "polars")
    assert polars.schema == {
        "price": pl.Float64(),
        "colour": pl.String(),
        "size": pl.Enum(["S", "M", "L"]),
        "stars": pl.Int64(),
        "visits": pl.Int64(),
        "member": pl.Boolean(),
    }
    assert polars.rows() == [tuple(row) for row in MIXED.to_numpy(dtype=object).tolist()]
    arrow = table.write(rows, "pyarrow")
    assert arrow.schema.types == [
        pa.float64(),
        pa.string(),
        pa.dictionary(pa.int32(), pa.string(), ordered=True),
        pa.dictionary(pa.int32(), pa.int64()),
        pa.int64(),
        pa.bool_(),
    ]
    back = Table.learn(polars, "auto")
    columns = ["price", "colour", "size", "visits", "member"]
    pd.testing.assert_frame_equal(back.write(rows, "pandas")[columns], MIXED[columns])


def test_arrays_give_frames_of_categories_and_counted_names():
    rows = np.array([[0, 1.0], [1, 2.0], [nan, 3.0]])
    table = Table.learn(np.array([["b", 5], ["a", 6]], dtype=object), "auto")
    pandas = table.write(rows, "pandas")
    expected = {"x0": pd.Categorical(["a", "b", None]), "x1": [1, 2, 3]}
    pd.testing.assert_frame_equal(pandas, pd.DataFrame(expected))
    polars = table.write(rows, "polars")
    assert polars.schema == {"x0": pl.Enum(["a", "b"]), "x1": pl.Int64()}
    numbers = Table.learn(np.array([[2.0, 1.0], [5.0, 2.0]]), {0: "categorical", 1: "poisson"})
    expected = {"x0": pd.Categorical([2.0, 5.0, None]), "x1": [1.0, 2.0, 3.0]}
    pd.testing.assert_frame_equal(numbers.write(rows, "pandas"), pd.DataFrame(expected))


def test_numbers_that_were_categories_are_numbers_under_other_kinds():
    X = pd.DataFrame({"v": pd.Categorical([3, 1])})
    table = Table.learn(X, {"v": "gaussian"})
    pd.testing.assert_frame_equal(
        table.write(np.array([[2.2]]), "pandas"), pd.DataFrame({"v": [2]})
    )
    arrow = Table.learn(pa.table({"v": pa.array([3, 1]).dictionary_encode()}), {"v": "laplace"})
    assert arrow.write(np.array([[2.2]]), "pyarrow").to_pydict() == {"v": [2]}


@pytest.mark.parametrize("values", [[7, 8], [True, False]])
@pytest.mark.parametrize("kind", ["gaussian", "categorical"])
def test_types_that_cannot_hold_what_is_missing(values, kind):
    X = pd.DataFrame({"v": values})
    table = Table.learn(X, {"v": kind})
    with pytest.raises(ValueError, match=f"Column 'v' of type {X['v'].dtype} cannot hold"):
        table.write(np.array([[nan]]), "pandas")
    assert table.write(np.array([[nan]]), "polars").rows() == [(None,)]
    nullable = Table.learn(pl.from_pandas(X), {"v": kind}).write(np.array([[nan], [1.0]]), "pandas")
    assert nullable["v"].isna().tolist() == [True, False]
    assert str(nullable["v"].dtype) == {7: "Int64", True: "boolean"}[values[0]]


def test_decimals_are_written_as_floats():
    for X, container in (
        (pl.DataFrame({"v": pl.Series([1, 2], dtype=pl.Decimal(5, 2))}), "polars"),
        (pa.table({"v": pa.array([1, 2], pa.decimal128(5, 2))}), "pyarrow"),
        (pd.DataFrame({"v": pd.array([1, 2], dtype=pd.ArrowDtype(pa.decimal128(5, 2)))}), "pandas"),
    ):
        table = Table.learn(X, "auto")
        written = table.write(np.array([[1.25]]), container)
        assert table.encode(written).tolist() == [[1.25]]


def test_unknown_containers():
    table = Table.learn(MIXED, "auto")
    with pytest.raises(ValueError, match="container='dask' is unknown; allowed are 'pandas'"):
        table.write(table.encode(MIXED), "dask")
