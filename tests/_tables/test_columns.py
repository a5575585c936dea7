"""Rows of numbers and codes: as scikit-learn encodes them, and what may come after fit."""

import io
import pickle

import numpy as np
import pandas as pd
import polars as pl
import pyarrow as pa
import pytest
import skops.io
from sklearn.model_selection import KFold
from sklearn.preprocessing import OrdinalEncoder

from skae._tables.columns import Table

nan = np.nan
rng = np.random.default_rng(0)
WORDS = np.array(["red", "", "Blue", "ä", "green", "12"], dtype=object)

MIXED = pd.DataFrame(
    {
        "price": [1.5, nan, 3.0, 2.0],
        "colour": ["red", "blue", None, "red"],
        "size": pd.Categorical(["L", "S", "L", None], ["S", "M", "L"], ordered=True),
        "visits": [0, 3, 1, 4],
        "member": [True, False, True, True],
    }
)
KINDS = {
    "price": "gaussian",
    "colour": "categorical",
    "size": "categorical",
    "visits": "poisson",
    "member": "bernoulli",
}
ROWS = [[1.5, 1, 2, 0, 1], [nan, 0, 0, 3, 0], [3.0, nan, 2, 1, 1], [2.0, 1, nan, 4, 1]]


def levels_of(table):
    return {name: levels.tolist() for name, levels in table.categories.items()}


def table_of(likelihood="auto", **columns):
    return Table.learn(pd.DataFrame(columns), likelihood)


def test_a_mixed_table():
    table = Table.learn(MIXED, "auto")
    assert table.likelihoods == KINDS
    assert table.names == [*KINDS]
    assert table.kinds == tuple(KINDS.values())
    assert table.n_levels == (0, 2, 3, 0, 0)
    assert table.container == "pandas"
    assert levels_of(table) == {"colour": ["blue", "red"], "size": ["S", "M", "L"]}
    assert table.categories["colour"].dtype.kind == "U"
    np.testing.assert_array_equal(table.encode(MIXED), ROWS)


@pytest.mark.parametrize(
    "X",
    [
        rng.choice(WORDS, (200, 3)),
        rng.choice(WORDS, (200, 3)).astype(str),
        rng.choice([5, -1, 0, 12], (200, 3)),
        rng.choice([5.5, -1.0, 0.25], (200, 3)).astype(np.float32),
        rng.choice([True, False], (200, 3)),
        pd.DataFrame(rng.choice(WORDS, (200, 3)), columns=list("abc")),
        pd.DataFrame(rng.choice([5, -1, 0, 12], (200, 3)), columns=list("abc")),
        pl.DataFrame(rng.choice(WORDS, (200, 3)).tolist(), schema=list("abc"), orient="row"),
    ],
)
def test_codes_are_those_of_scikit_learn(X):
    encoder = OrdinalEncoder().fit(X)
    table = Table.learn(X, "categorical")
    np.testing.assert_array_equal(table.encode(X), encoder.transform(X))
    for levels, known in zip(table.categories.values(), encoder.categories_, strict=True):
        np.testing.assert_array_equal(levels, known)


@pytest.mark.parametrize(
    ("column", "levels"),
    [
        (pd.Series(pd.Categorical(["x", "y"], ["y", "z", "x"])), ["y", "z", "x"]),
        (pd.Series(pd.Categorical([2, 1], [2, 3, 1])), [2, 3, 1]),
        (pd.Series(pd.Categorical([2.5, 1.0], [2.5, 3.0, 1.0])), [2.5, 3.0, 1.0]),
        (pd.Series(pd.Categorical([True, False], [True, False])), [True, False]),
        (pl.Series(["x", "y"], dtype=pl.Enum(["y", "z", "x"])), ["y", "z", "x"]),
        (pl.Series(["y", "x"], dtype=pl.Categorical), ["x", "y"]),
        (pl.Series(["y", "x"]), ["x", "y"]),
        (pa.DictionaryArray.from_arrays([2, 0], ["y", "z", "x"]), ["y", "z", "x"]),
        (pd.Series([True, True]), [False, True]),
        (pd.Series([3, 1, 2]), [1, 2, 3]),
    ],
)
def test_levels_are_those_of_the_type_in_its_order_or_sorted(column, levels):
    module = {pd.Series: pd.DataFrame, pl.Series: pl.DataFrame}.get(type(column), pa.table)
    X = module({"v": column})
    table = Table.learn(X, "categorical")
    assert levels_of(table) == {"v": levels}
    values = column.to_pylist() if isinstance(column, pa.Array) else column.to_list()
    assert [levels[int(code)] for code in table.encode(X)[:, 0]] == values


def test_folds_know_every_declared_level():
    X = pd.DataFrame({"v": pd.Categorical(["a", "a", "b", "b", "c", "c"])})
    whole = Table.learn(X, "auto").encode(X)
    for train, test in KFold(3).split(X):
        table = Table.learn(X.iloc[train], "auto")
        np.testing.assert_array_equal(table.encode(X.iloc[test]), whole[test])


# ----------------------------------------------------------------------- after fit


def test_unseen_categories():
    table = table_of(city=["Oslo", "Rome"], size=[1.0, 2.0])
    new = pd.DataFrame({"city": ["Rome", "Paris", None], "size": [3.0, 4.0, 5.0]})
    message = (
        r"column 'city', holds \['Paris'\], which fit has not seen; its levels are "
        r"\['Oslo', 'Rome'\].*handle_unknown='missing'.*CategoricalDtype"
    )
    with pytest.raises(ValueError, match=message):
        table.encode(new)
    rows = table.encode(new, handle_unknown="missing")
    np.testing.assert_array_equal(rows, [[1, 3], [nan, 4], [nan, 5]])


def test_unseen_categories_of_numbers():
    table = Table.learn(np.array([[1.0, 0], [2.0, 0], [5.0, 1]]), "categorical")
    new = np.array([[5.0, 1], [4.0, 0], [nan, 7], [9.0, nan]])
    with pytest.raises(ValueError, match=r"column 0, holds \[4\.0, 9\.0\].*\[1\.0, 2\.0, 5\.0\]"):
        table.encode(new)
    rows = table.encode(new, handle_unknown="missing")
    np.testing.assert_array_equal(rows, [[2, 1], [nan, 0], [nan, nan], [nan, nan]])


def test_a_message_shows_some_levels_only():
    table = Table.learn(np.array([[f"level {j:03d}"] for j in range(500)]), "auto")
    with pytest.raises(ValueError, match="has not seen") as error:
        table.encode(np.array([[f"other {j}"] for j in range(500)]))
    assert len(str(error.value)) < 700


NUMBERS = {"v": [1.5, 2.0]}
COUNTS = {"v": [0, 3]}
TEXT = {"v": ["a", "b"]}
CODES = {"v": pd.Categorical([3, 1])}
FLAGS = {"v": [True, False]}


@pytest.mark.parametrize(
    ("fitted", "new", "message"),
    [
        (
            NUMBERS,
            TEXT,
            r"holds text, such as 'a', but in fit it held numbers, with the likelihood 'gaussian'",
        ),
        (
            COUNTS,
            TEXT,
            "holds text, such as 'a', but in fit it held numbers, with the likelihood 'poisson'",
        ),
        (
            FLAGS,
            TEXT,
            "holds text, such as 'a', but in fit it held numbers, with the likelihood 'bernoulli'",
        ),
        (TEXT, NUMBERS, r"holds numbers, such as 1\.5, but in fit its levels were \['a', 'b'\]"),
        (TEXT, COUNTS, "holds numbers, such as 0, but in fit its levels were"),
        (TEXT, CODES, "holds numbers, such as 3, but in fit its levels were"),
        (TEXT, FLAGS, "holds numbers, such as True, but in fit its levels were"),
        (CODES, TEXT, r"holds text, such as 'a', but in fit its levels were \[1, 3\]"),
        (CODES, FLAGS, r"holds \[False\], which fit has not seen; its levels are \[1, 3\]"),
    ],
)
def test_columns_of_another_family(fitted, new, message):
    table = table_of(**fitted)
    with pytest.raises(ValueError, match=f"column 'v', {message}"):
        table.encode(pd.DataFrame(new))
    np.testing.assert_array_equal(table.encode(pd.DataFrame({"v": [None, nan]})), [[nan], [nan]])
    empty = pd.DataFrame({"v": pd.array([None, None], dtype="string")})
    np.testing.assert_array_equal(table.encode(empty), [[nan], [nan]])


@pytest.mark.parametrize(
    ("fitted", "new", "rows"),
    [
        ([0, 3], [0.5, 2.0], [0.5, 2.0]),
        ([1.5, 2.5], [True, False], [1.0, 0.0]),
        ([True, False], [0, 1], [0.0, 1.0]),
        (["a", "b"], pd.Categorical(["b", None], ["b", "never seen"]), [1.0, nan]),
        (pd.Categorical(["a", "b"], ["b", "a"]), ["a", None], [1.0, nan]),
        (pd.Categorical([3, 1], [3, 1]), [1.0, nan], [1.0, nan]),
        (pd.Categorical([3, 1], [3, 1]), pd.array([1, None], dtype="Int8"), [1.0, nan]),
        (pd.Categorical([True, False]), [1, 0], [1.0, 0.0]),
        (pd.Categorical([True, False]), pd.Series([0, None], dtype=object), [0.0, nan]),
        (pd.Categorical([0, 1], [1, 0]), [False, True], [1.0, 0.0]),
    ],
)
def test_other_types_of_the_same_family_are_read(fitted, new, rows):
    table = table_of(v=fitted)
    np.testing.assert_array_equal(table.encode(pd.DataFrame({"v": new}))[:, 0], rows)


def test_containers_may_change():
    table = Table.learn(MIXED, "auto")
    for X in (
        pl.from_pandas(MIXED),
        pa.Table.from_pandas(MIXED),
        MIXED.to_numpy(dtype=object),
        MIXED.to_numpy(dtype=object).tolist(),
        MIXED.astype(object),
        MIXED.convert_dtypes(),
    ):
        np.testing.assert_array_equal(table.encode(X), ROWS)


def test_arrays_of_numbers_hold_indices_of_text_levels():
    table = Table.learn(MIXED, "auto")
    np.testing.assert_array_equal(table.encode(np.array(ROWS)), ROWS)
    for bad in (2.0, -1.0, 0.5):
        message = rf"column 'colour', holds {bad}. .* indices .* 0 to 1: \['blue', 'red'\]"
        with pytest.raises(ValueError, match=message):
            table.encode(np.array([[1.5, bad, 2, 0, 1]]))


def test_other_columns():
    table = Table.learn(MIXED, "auto")
    with pytest.raises(ValueError, match="X has 4 columns, but there were 5 in fit"):
        table.encode(MIXED.drop(columns="size"))
    with pytest.raises(ValueError, match=r"columns of X are .* Names and order must be equal"):
        table.encode(MIXED[[*MIXED][::-1]])
    with pytest.raises(
        ValueError, match=r"columns of X are .*'cost'.* Names and order must be equal"
    ):
        table.encode(MIXED.rename(columns={"price": "cost"}))


def test_text_of_another_kind_is_advised_to_be_categorical():
    with pytest.raises(ValueError, match=r"column 'v', holds text, such as 'a', .*'bernoulli'.*"):
        table_of({"v": "bernoulli"}, v=["a", "b"])
    with pytest.raises(ValueError, match="Use the likelihood 'categorical' for text"):
        table_of({"v": "gaussian"}, v=pd.Categorical(["a", "b"]))


def test_fit_is_not_changed_by_what_is_done_to_its_rows():
    X = np.array([[1.0, 2.0], [2.0, 3.0]])
    before = X.copy()
    table = Table.learn(X, {0: "categorical", 1: "gaussian"})
    table.encode(X)[:] = 7
    np.testing.assert_array_equal(X, before)
    X[:] = 9
    assert levels_of(table) == {0: [1.0, 2.0]}


# ----------------------------------------------------------------------- saved

TABLES = [
    Table.learn(MIXED, "auto"),
    Table.learn(pl.from_pandas(MIXED), "auto"),
    Table.learn(pa.Table.from_pandas(MIXED), "categorical"),
    Table.learn(MIXED.to_numpy(dtype=object), "auto"),
    Table.learn(rng.choice([1.0, 2.0, 5.0], (50, 2)), {0: "categorical", np.int64(1): "gaussian"}),
    table_of("categorical", v=[True, False]),
]


def by_skops(state):
    saved = skops.io.dumps(state)
    assert skops.io.get_untrusted_types(data=saved) == []
    return skops.io.loads(saved)


@pytest.mark.parametrize("table", TABLES, ids=lambda table: table.container)
@pytest.mark.parametrize("through", [by_skops, lambda state: pickle.loads(pickle.dumps(state))])
def test_saved_and_loaded(table, through):
    loaded = Table.from_dict(through(table.as_dict()))
    assert loaded.likelihoods == table.likelihoods
    assert [type(name) for name in loaded.names] == [type(name) for name in table.names]
    assert levels_of(loaded) == levels_of(table)
    assert loaded.as_dict().keys() == table.as_dict().keys()
    rows = np.array([[0.0] * len(table.columns), [1.0] * len(table.columns)])
    for container in ("pandas", "objects"):
        before, after = (t.write(rows, container) for t in (table, loaded))
        pd.testing.assert_frame_equal(pd.DataFrame(before), pd.DataFrame(after))
    again = Table.learn(loaded.write(rows, loaded.container), loaded.likelihoods)
    assert again.likelihoods == table.likelihoods


def test_tables_are_pickled_as_they_are():
    buffer = io.BytesIO()
    pickle.dump(TABLES[0], buffer)
    np.testing.assert_array_equal(pickle.loads(buffer.getvalue()).encode(MIXED), ROWS)
