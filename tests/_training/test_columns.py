"""Columns of a table among the network's, against scikit-learn's one-hot encoder and sums."""

import numpy as np
import pytest
import torch
from sklearn.preprocessing import OneHotEncoder

from helpers import normal64, tensor
from skae._training.columns import Columns

KINDS = ("categorical", "poisson", "gaussian", "categorical", "bernoulli", "laplace", "gaussian")
KINDS += ("continuous_bernoulli", "categorical")
LEVELS = (3, 0, 0, 2, 0, 0, 0, 0, 5)
COLUMNS = Columns(KINDS, LEVELS)
NUMBERS = [j for j, n in enumerate(LEVELS) if not n]
CATEGORIES = [j for j, n in enumerate(LEVELS) if n]


def table(n_rows=40, seed=0):
    """Rows of indices and numbers, of which each level is seen."""
    rng = np.random.default_rng(seed)
    rows = rng.normal(size=(n_rows, len(KINDS)))
    for j in CATEGORIES:
        rows[:, j] = rng.permutation(np.arange(n_rows) % LEVELS[j])
    return rows


def test_the_networks_columns_stand_by_kind_and_categories_last():
    """Kinds in the order of their names, columns of a kind in the order of the table."""
    assert COLUMNS.order == (4, 7, 2, 6, 5, 1, 0, 3, 8)
    assert COLUMNS.source.tolist() == [4, 7, 2, 6, 5, 1, 0, 0, 0, 3, 3, 8, 8, 8, 8, 8]
    assert COLUMNS.width == 16
    assert COLUMNS.n_numbers == 6
    assert COLUMNS.sizes == (3, 2, 5)
    assert COLUMNS.level.tolist() == [0, 1, 2, 0, 1, 0, 1, 2, 3, 4]
    assert COLUMNS.place.tolist() == [6, 5, 2, 9, 0, 4, 3, 1, 11]


def test_parts_cover_the_columns_of_their_kind_once():
    taken = np.zeros(COLUMNS.width, dtype=int)
    for kind, part in COLUMNS.parts.items():
        taken[part] += 1
        assert {KINDS[j] for j in COLUMNS.source[part].tolist()} == {kind}
        np.testing.assert_array_equal(COLUMNS.among((kind,)).nonzero().flatten(), np.r_[part])
    assert set(taken) == {1}
    assert COLUMNS.among(("gaussian", "poisson")).sum() == 3


@pytest.mark.parametrize("dtype", [np.float32, np.float64])
def test_expanded_categories_are_scikit_learns_one_hot_columns(dtype):
    rows = table().astype(dtype)
    wide = COLUMNS.expand(torch.from_numpy(rows))
    encoder = OneHotEncoder(sparse_output=False, dtype=dtype)
    one_hot = encoder.fit_transform(rows[:, CATEGORIES])
    numbers = rows[:, [4, 7, 2, 6, 5, 1]]
    assert wide.dtype == torch.from_numpy(rows).dtype
    np.testing.assert_array_equal(wide, np.hstack([numbers, one_hot]))


def test_integers_are_expanded_to_floats():
    columns = Columns(("categorical", "poisson"), (3, 0))
    wide = columns.expand(torch.tensor([[2, 7], [0, 1]]))
    np.testing.assert_array_equal(wide, [[7.0, 0, 0, 1], [1.0, 1, 0, 0]])
    assert wide.is_floating_point()


def test_all_levels_of_what_was_not_seen_are_missing_and_no_others():
    rows = table()
    holes = np.random.default_rng(1).random(rows.shape) < 0.3
    wide = COLUMNS.expand(tensor(np.where(holes, np.nan, rows))).numpy()
    expected = holes[:, COLUMNS.source.numpy()]
    np.testing.assert_array_equal(np.isnan(wide), expected)
    whole = COLUMNS.expand(tensor(rows)).numpy()
    np.testing.assert_array_equal(wide[~expected], whole[~expected])


def test_the_rows_that_were_expanded_stay_as_they_were():
    rows = tensor(table())
    before = rows.clone()
    COLUMNS.expand(rows)
    assert torch.equal(rows, before)


def test_collapsed_is_what_was_expanded():
    rows = table()
    np.testing.assert_array_equal(COLUMNS.collapse(COLUMNS.expand(tensor(rows))), rows)


def test_of_probabilities_the_most_probable_level_is_taken():
    wide = normal64(30, COLUMNS.width)
    found = COLUMNS.collapse(wide).numpy()
    for j in range(len(KINDS)):
        own = wide[:, np.flatnonzero(COLUMNS.source.numpy() == j)].numpy()
        np.testing.assert_array_equal(found[:, j], own.argmax(1) if LEVELS[j] else own[:, 0])


@pytest.mark.parametrize("shape", [(7,), (3, 7), ()])
def test_totals_and_firsts_of_the_levels_of_each_column(shape):
    wide = normal64(*shape, COLUMNS.width)
    total, first = COLUMNS.total(wide), COLUMNS.first(wide)
    assert total.shape == first.shape == (*shape, len(KINDS))
    for j in range(len(KINDS)):
        own = wide[..., np.flatnonzero(COLUMNS.source.numpy() == j)].numpy()
        np.testing.assert_allclose(total[..., j], own.sum(-1), rtol=1e-14, atol=1e-14)
        np.testing.assert_array_equal(first[..., j], own[..., 0])


def test_a_table_without_categories_is_only_put_in_order():
    columns = Columns(("poisson", "gaussian", "poisson"), (0, 0, 0))
    rows = normal64(5, 3)
    wide = columns.expand(rows)
    np.testing.assert_array_equal(wide, rows[:, [1, 0, 2]])
    np.testing.assert_array_equal(columns.collapse(wide), rows)
    assert columns.sizes == ()


def test_a_table_of_categories_alone_has_no_numbers():
    columns = Columns(("categorical", "categorical"), (2, 3))
    assert columns.n_numbers == 0
    np.testing.assert_array_equal(columns.expand(tensor([[1.0, 2.0]])), [[0, 1, 0, 0, 1.0]])


def test_counts_are_read_as_logarithms():
    """Other columns as they are; what is missing stays so, and the rows are not written to."""
    columns = Columns(("gaussian", "poisson", "categorical"), (0, 0, 2))
    wide = columns.expand(tensor([[-2.0, 7.0, 1.0], [3.0, np.nan, 0.0]]))
    kept = wide.clone()
    expected = [[-2.0, np.log(8.0), 0.0, 1.0], [3.0, np.nan, 1.0, 0.0]]
    np.testing.assert_allclose(columns.as_read(wide), expected, rtol=1e-12)
    np.testing.assert_array_equal(wide, kept)
