"""Which kind a column has: by name or index, and by its values."""

from types import MappingProxyType

import numpy as np
import pandas as pd
import polars as pl
import pytest

from skae._tables.columns import Table
from skae._tables.kinds import KINDS, has_kinds

FRAME = pd.DataFrame({"a": [1.0, 2.0], "b": [0, 1], "c": ["x", "y"]})
KNOWN = {"a": "gaussian", "b": "poisson", "c": "categorical"}


def test_mappings_and_two_words_give_columns_kinds_of_their_own():
    assert has_kinds({0: "gaussian"})
    assert has_kinds(MappingProxyType(KNOWN))
    assert has_kinds("auto")
    assert has_kinds("categorical")
    assert not any(map(has_kinds, ["gaussian", "bernoulli", None, 0, ["auto"]]))


@pytest.mark.parametrize(
    "likelihood",
    [
        KNOWN,
        {"c": "categorical", "b": "poisson", "a": "gaussian"},
        {0: "gaussian", 1: "poisson", 2: "categorical"},
        {"a": "gaussian", np.int64(1): "poisson", 2: "categorical"},
        MappingProxyType(KNOWN),
    ],
)
def test_columns_go_by_name_or_index(likelihood):
    table = Table.learn(FRAME, likelihood)
    assert table.kinds == ("gaussian", "poisson", "categorical")
    assert table.likelihoods == KNOWN
    assert Table.learn(FRAME, table.likelihoods).likelihoods == KNOWN


@pytest.mark.parametrize(
    ("likelihood", "message"),
    [
        ({"a": "gaussian", "b": "poisson"}, r"misses the columns \['c'\]"),
        ({}, r"misses the columns \['a', 'b', 'c'\]"),
        (
            KNOWN | {"d": "gaussian"},
            r"column 'd', which X does not have.*\['a', 'b', 'c'\].*0 to 2",
        ),
        (KNOWN | {3: "gaussian"}, "column 3, which X does not have"),
        (KNOWN | {-1: "categorical"}, "column -1, which X does not have"),
        (KNOWN | {True: "poisson"}, "column True, which X does not have"),
        (KNOWN | {1.0: "poisson"}, r"column 1\.0, which X does not have"),
        (KNOWN | {2: "categorical"}, "column 'c' twice, as 'c' and as 2"),
        (KNOWN | {"b": "counts"}, r"column 'b' the unknown likelihood 'counts'.*'poisson'"),
        (KNOWN | {"b": None}, "column 'b' the unknown likelihood None"),
        (KNOWN | {"b": "auto"}, "column 'b' the unknown likelihood 'auto'"),
    ],
)
def test_mappings_of_other_columns_or_kinds(likelihood, message):
    with pytest.raises(ValueError, match=message):
        Table.learn(FRAME, likelihood)


def test_columns_of_arrays_have_no_names():
    X = np.eye(3)
    with pytest.raises(ValueError, match="column 'a', which X does not have; allowed are indices"):
        Table.learn(X, {"a": "gaussian", 1: "gaussian", 2: "gaussian"})
    kinds = {0: "gaussian", np.uint8(2): "bernoulli", 1: "laplace"}
    assert Table.learn(X, kinds).likelihoods == {0: "gaussian", 1: "laplace", 2: "bernoulli"}


@pytest.mark.parametrize("kind", KINDS)
def test_every_kind_is_allowed(kind):
    X = np.array([[0.0], [1.0]])
    assert Table.learn(X, {0: kind}).kinds == (kind,)


COLUMNS = [
    ([0.0, 1.0, 2.0], "gaussian"),
    ([0, 1, 0], "bernoulli"),
    ([0, 0, 0], "bernoulli"),
    ([0, 1, 2], "poisson"),
    ([0, 7, 100], "poisson"),
    ([0, 7, 101], "gaussian"),
    ([1, 7, 100], "gaussian"),
    ([1, 1, 1], "bernoulli"),
    ([0, -1, 1], "gaussian"),
    ([True, False, True], "bernoulli"),
    (["x", "y", "x"], "categorical"),
    ([0, None, 3], "poisson"),
    ([True, None, False], "bernoulli"),
    (["x", None, "y"], "categorical"),
    ([0.0, None, 3.0], "gaussian"),
]


@pytest.mark.parametrize(("values", "kind"), COLUMNS)
@pytest.mark.parametrize(
    "container",
    [
        lambda values: pl.DataFrame({"v": values}).to_pandas(use_pyarrow_extension_array=True),
        lambda values: pd.DataFrame({"v": pd.Series(values, dtype=object)}),
        lambda values: pl.DataFrame({"v": values}),
        lambda values: pl.DataFrame({"v": values}).to_arrow(),
        lambda values: np.array(values, dtype=object)[:, None],
    ],
    ids=["pandas", "pandas_objects", "polars", "pyarrow", "objects"],
)
def test_auto_goes_by_types_and_counts(values, kind, container):
    assert Table.learn(container(values), "auto").kinds == (kind,)


@pytest.mark.parametrize(("dtype", "kind"), [(float, "gaussian"), (bool, "bernoulli")])
def test_auto_goes_by_the_type_of_an_array(dtype, kind):
    assert Table.learn(np.eye(3).astype(dtype), "auto").kinds == (kind,) * 3


def test_auto_looks_at_each_column_of_integers():
    X = np.array([[0, 0, -1], [1, 5, 3]])
    assert Table.learn(X, "auto").kinds == ("bernoulli", "poisson", "gaussian")


def test_auto_takes_declared_categories_of_numbers_for_categories():
    X = pd.DataFrame({"v": pd.Categorical([3.5, 1.0])})
    assert Table.learn(X, "auto").kinds == ("categorical",)


def test_one_word_makes_every_column_categorical():
    table = Table.learn(FRAME, "categorical")
    assert table.kinds == ("categorical",) * 3
    assert table.n_levels == (2, 2, 2)


def test_kinds_are_plain_text():
    """Whatever text the mapping holds, such as NumPy's: files hold it."""
    table = Table.learn(np.arange(4.0)[:, None], {0: np.str_("gaussian")})
    assert type(table.likelihoods[0]) is str
