"""interpolate and traverse: straight lines between codes, decoded."""

from functools import cache

import numpy as np
import pandas as pd
import polars as pl
import pytest
from sklearn.exceptions import NotFittedError

from helpers import make_rows
from skae import AdversarialAE, Autoencoder

NAMES = [f"x{i}" for i in range(5)]
KINDS = {
    "Autoencoder": (Autoencoder, {}),
    "AdversarialAE": (AdversarialAE, {}),
    "Gaussian encoder": (AdversarialAE, {"posterior": "gaussian", "likelihood": "laplace"}),
    "ordered codes": (Autoencoder, {"latent_growth": "nested"}),
}
every_kind = pytest.mark.parametrize("kind", KINDS)


X = np.exp(make_rows(40, scales=1.0, noise=0.2, mean=0.0, dtype=np.float64) / 4).astype(np.float32)


def unfitted(kind="AdversarialAE", **params):
    make, own = KINDS[kind]
    options = {"hidden_layer_sizes": (8,), "max_iter": 5, "random_state": 0, "device": "cpu"}
    return make(3, **{**options, **own, **params})


@cache
def fitted(kind="AdversarialAE"):
    """Shared: do not refit it."""
    return unfitted(kind).fit(X)


@cache
def of_frames():
    return unfitted().fit(pd.DataFrame(X, columns=NAMES)).set_output(transform="pandas")


def assert_close(found, expected):
    np.testing.assert_allclose(found, expected, rtol=1e-4, atol=1e-5)


# ------------------------------------------------------------------------ interpolate


@every_kind
def test_a_line_is_decoded_convex_combinations(kind):
    """From the first row's reconstruction to the second's, equally spaced in the codes."""
    model = fitted(kind)
    path = model.interpolate(X[3], X[8], n=5)
    assert path.shape == (5, 5)
    assert path.dtype == np.float32
    start, end = model.transform(X[[3, 8]])
    codes = [(1 - share) * start + share * end for share in (0, 0.25, 0.5, 0.75, 1)]
    assert_close(path, model.inverse_transform(np.array(codes)))
    assert_close(path[[0, -1]], model.reconstruct(X[[3, 8]]))
    assert_close(path[::-1], model.interpolate(X[8], X[3], n=5))


def test_a_line_has_ten_codes_unless_told():
    model = fitted()
    assert model.interpolate(X[0], X[1]).shape == (10, 5)
    assert_close(model.interpolate(X[0], X[1], 2), model.reconstruct(X[:2]))
    assert model.interpolate(X[0], X[1], np.int64(3)).shape == (3, 5)


def test_a_line_from_a_row_to_itself_stays_there():
    path = fitted().interpolate(X[0], X[0], 4)
    assert_close(path, np.repeat(fitted().reconstruct(X[:1]), 4, axis=0))


# --------------------------------------------------------------------------- traverse


@every_kind
@pytest.mark.parametrize("component", [0, 2])
def test_one_number_is_replaced(kind, component):
    """The others stay the row's; the order of the values is kept."""
    model = fitted(kind)
    values = [2.0, -1.0, 0.0, 0.0, 7.5]
    codes = np.repeat(model.transform(X[4:5]), 5, axis=0)
    codes[:, component] = values
    path = model.traverse(X[4], component, values)
    assert path.shape == (5, 5)
    assert_close(path, model.inverse_transform(codes))
    assert_close(path[2], path[3])
    assert not np.allclose(path[0], path[1])


def test_the_rows_own_number_gives_its_reconstruction():
    model = fitted()
    own = model.transform(X[4:5])[0, 1]
    assert_close(model.traverse(X[4], np.int64(1), [own]), model.reconstruct(X[4:5]))


# ------------------------------------------------------------------- what is a row


@pytest.mark.parametrize(
    "as_given",
    [
        lambda row: row,
        lambda row: row[None],
        list,
        tuple,
        lambda row: [row.tolist()],
        lambda row: row.astype(np.float64),
        lambda row: row[::-1].copy()[::-1],
        pl.Series,
    ],
    ids=["1-D", "2-D", "list", "tuple", "list of a list", "float64", "strided", "polars"],
)
def test_a_row_may_come_in_many_forms(as_given):
    model = fitted()
    expected = model.interpolate(X[0], X[1], 3), model.traverse(X[0], 1, [0.5])
    assert_close(model.interpolate(as_given(X[0]), as_given(X[1]), 3), expected[0])
    assert_close(model.traverse(as_given(X[0]), 1, np.array([0.5])), expected[1])


@pytest.mark.parametrize("row_of", [lambda F, i: F.iloc[i], lambda F, i: F.iloc[[i]]])
def test_rows_of_frames_give_frames(row_of):
    """Series and frames of one row alike; the columns are the training data's."""
    frame = pd.DataFrame(X, columns=NAMES, index=[f"row {i}" for i in range(len(X))])
    model = of_frames()
    for path in (
        model.interpolate(row_of(frame, 0), row_of(frame, 1), 3),
        model.traverse(row_of(frame, 0), 1, [0.0, 0.5, 1.0]),
    ):
        assert isinstance(path, pd.DataFrame)
        assert list(path.columns) == NAMES
        assert len(path) == 3
    path = model.interpolate(row_of(frame, 0), row_of(frame, 1), 2)
    assert_close(path, model.reconstruct(frame.iloc[:2]))


@pytest.mark.parametrize("row_of", [lambda F: F.iloc[0], lambda F: F.iloc[[0]]])
def test_columns_in_another_order_are_refused(row_of):
    row = row_of(pd.DataFrame(X, columns=NAMES)[NAMES[::-1]])
    with pytest.raises(ValueError, match="feature names"):
        of_frames().traverse(row, 0, [1.0])


def test_values_may_be_missing():
    """As in transform."""
    row = X[0].copy()
    row[2] = np.nan
    model = fitted()
    assert_close(model.interpolate(row, X[1], 2), model.reconstruct(np.stack([row, X[1]])))


def test_cut_models_have_paths():
    """Of the codes that are left."""
    cut = fitted("ordered codes").truncate(2)
    assert_close(cut.interpolate(X[0], X[1], 2), cut.reconstruct(X[:2]))
    assert cut.traverse(X[0], 1, [0.0]).shape == (1, 5)
    with pytest.raises(ValueError, match="component"):
        cut.traverse(X[0], 2, [0.0])


def test_nothing_given_is_changed():
    model, row, values = fitted(), X[0].copy(), np.array([1.0, 2.0])
    model.traverse(row, 1, values)
    model.interpolate(row, row)
    np.testing.assert_array_equal(row, X[0])
    np.testing.assert_array_equal(values, [1.0, 2.0])


# ------------------------------------------------------------------------ what is refused


@pytest.mark.parametrize(
    ("x0", "x1", "n", "named"),
    [
        (X[:2], X[0], 3, r"x0 must be one row.*\(2, 5\)"),
        (X[0], X[:2], 3, r"x1 must be one row.*\(2, 5\)"),
        (X[:0], X[0], 3, r"x0 must be one row.*\(0, 5\)"),
        (1.0, X[0], 3, r"x0 must be one row"),
        (X[0], None, 3, r"x1 must be one row"),
        (X[0, :3], X[0], 3, "3 features"),
        (X[:1, None], X[0], 3, "with 3 dimensions"),
        (X[0] * np.inf, X[0], 3, "infinity"),
        (X[0], X[1], 1, "'n'"),
        (X[0], X[1], 0, "'n'"),
        (X[0], X[1], 2.0, "'n'"),
        (X[0], X[1], None, "'n'"),
    ],
    ids=str,
)
def test_what_is_no_line_is_named(x0, x1, n, named):
    with pytest.raises(ValueError, match=named):
        fitted().interpolate(x0, x1, n)


@pytest.mark.parametrize(
    ("x", "component", "values", "named"),
    [
        (X[:2], 0, [1.0], "x must be one row"),
        (X[0], 3, [1.0], "'component'"),
        (X[0], -1, [1.0], "'component'"),
        (X[0], 1.0, [1.0], "'component'"),
        (X[0], "0", [1.0], "'component'"),
        (X[0], 0, 1.0, "values=1.0"),
        (X[0], 0, [], "values="),
        (X[0], 0, [[1.0]], "values="),
        (X[0], 0, [1.0, np.nan], "values="),
        (X[0], 0, [np.inf], "values="),
        (X[0], 0, [None], "values="),
        (X[0], 0, ["a"], "values="),
        (X[0], 0, [[1.0], [1.0, 2.0]], "values="),
    ],
    ids=str,
)
def test_what_is_no_traversal_is_named(x, component, values, named):
    with pytest.raises(ValueError, match=named):
        fitted().traverse(x, component, values)


@every_kind
def test_unfitted_models_have_no_paths(kind):
    with pytest.raises(NotFittedError):
        unfitted(kind).interpolate(X[0], X[1])
    with pytest.raises(NotFittedError):
        unfitted(kind).traverse(X[0], 0, [1.0])
