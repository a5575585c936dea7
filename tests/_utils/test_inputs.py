"""What users give, as numbers: what is shared, what is converted, what is refused by name."""

import numpy as np
import pandas as pd
import polars as pl
import pytest
import torch
from scipy import sparse
from sklearn import config_context

from skae import VAE, Autoencoder
from skae._utils.inputs import (
    as_numbers,
    check_count,
    check_every_column_seen,
    check_rows_are_2d,
)

X = np.random.default_rng(0).normal(size=(6, 3))


# ----------------------------------------------------------------------- what is left alone


@pytest.mark.parametrize(
    "values",
    [
        X,
        X[::2, ::-1],
        X.astype(">f4"),
        X.astype(int),
        X > 0,
        X.astype(str),
        X + 1j,
        sparse.csr_array(X),
        pd.DataFrame(X),
        pd.Series(X[0]),
        pd.DataFrame({"a": ["x", "y"]}),
        pl.Series(X[0]),
        "a word",
        None,
        1.5,
        ["a", "word"],
        [[1.0], [2.0, 3.0]],
    ],
    ids=lambda values: type(values).__name__,
)
def test_other_containers_are_returned_as_they_are(values):
    assert as_numbers(values) is values


def test_polars_frames_of_numbers_are_returned_as_they_are():
    frame = pl.DataFrame(X)
    assert as_numbers(frame).equals(frame)


@pytest.mark.parametrize("dtype", ["float64", "float32", "float16", "int64", "bool"])
def test_tensors_and_masked_arrays_share_their_memory(dtype):
    rows = X.astype(dtype)
    for given in (torch.from_numpy(rows), np.ma.array(rows)):
        found = as_numbers(given)
        assert type(found) is np.ndarray
        assert found.dtype == dtype
        assert np.shares_memory(found, rows)


def test_mapped_files_stay_mapped(tmp_path):
    mapped = np.memmap(tmp_path / "rows", mode="w+", shape=X.shape)
    assert as_numbers(mapped) is mapped
    assert type(as_numbers(np.ma.array(mapped))) is np.memmap


def test_tensors_stay_tensors_where_scikit_learn_computes_with_them():
    with config_context(array_api_dispatch=True):
        assert as_numbers(torch.from_numpy(X)).dtype == torch.float64
        assert as_numbers(torch.from_numpy(X).bfloat16()).dtype == torch.float32


def test_what_is_given_is_not_written_to():
    objects = X.astype(object)
    objects[0, 0] = pd.NA
    frame = pd.DataFrame(objects)
    masked = np.ma.masked_less(X.copy(), 0)
    for values in (objects, frame, masked):
        as_numbers(values, allow_nan=True)
    assert objects[0, 0] is pd.NA
    assert frame.iloc[0, 0] is pd.NA
    np.testing.assert_array_equal(masked.data, X)


# --------------------------------------------------------------------------- what is missing


@pytest.mark.parametrize(
    ("dtype", "filled"),
    [("float32", "float32"), ("float64", "float64"), ("uint8", "float64"), ("bool", "float64")],
)
def test_masked_values_are_nan_in_a_type_that_has_one(dtype, filled):
    rows = np.abs(9 * X).astype(dtype)
    found = as_numbers(np.ma.array(rows, mask=X < 0), allow_nan=True)
    assert type(found) is np.ndarray
    assert found.dtype == filled
    np.testing.assert_array_equal(found, np.where(X < 0, np.nan, rows))


def test_a_mask_is_refused_by_name_where_nothing_may_be_missing():
    with pytest.raises(ValueError, match=r"^y is a masked array with 1 masked values"):
        as_numbers(np.ma.masked_equal([1, 2, 3], 2), "y")


# -------------------------------------------------------------------------------- columns


@pytest.mark.parametrize("chunk", [1, 7, 2**20])
def test_columns_are_seen_in_whatever_chunk_they_have_a_value(chunk, monkeypatch):
    monkeypatch.setattr("skae._utils.inputs._CHUNK_VALUES", chunk)
    for row in (0, 3, 5):
        rows = np.full((6, 3), np.nan, dtype=np.float32)
        rows[row] = 1.0
        check_every_column_seen(rows)
        rows[:, 1] = np.nan
        with pytest.raises(ValueError, match=r"^Columns \[1\] of X are NaN in every row. Remove"):
            check_every_column_seen(rows)
        with pytest.raises(ValueError, match=r"^Columns \['b'\] of X"):
            check_every_column_seen(rows, np.array(["a", "b", "c"], dtype=object))
    check_every_column_seen(np.ones((6, 3), dtype=int))


# ---------------------------------------------------------------------------------- images


@pytest.mark.parametrize(
    ("shape", "reshape", "image_shape"),
    [
        ((5, 8, 9), "X.reshape", (1, 8, 9)),
        ((5, 3, 8, 9), "X.reshape", (3, 8, 9)),
        ((5, 1, 8, 9), "X.reshape", (1, 8, 9)),
        ((5, 7, 8, 9), "X.reshape", (7, 8, 9)),
        ((5, 8, 9, 3), "X.transpose(0, 3, 1, 2).reshape", (3, 8, 9)),
        ((5, 8, 9, 1), "X.transpose(0, 3, 1, 2).reshape", (1, 8, 9)),
        ((5, 3, 8, 1), "X.reshape", (3, 8, 1)),
    ],
)
def test_images_are_told_how_to_become_rows(shape, reshape, image_shape):
    """What the message says to do gives rows in which the network finds the image again."""
    images = np.arange(np.prod(shape)).reshape(shape)
    with pytest.raises(ValueError, match=r"has shape \(5, ") as error:
        check_rows_are_2d(images, conv=True)
    message = str(error.value)
    assert f"{reshape}(len(X), -1)" in message
    assert f"image_shape={image_shape}" in message
    rows = eval(f"{reshape}(len(X), -1)", {"X": images, "len": len})
    back = rows.reshape(5, *image_shape)
    expected = images[0].reshape(shape[1:])
    if "transpose" in reshape:
        np.testing.assert_array_equal(back[0, 1 % image_shape[0]], expected[:, :, 1 % shape[3]])
    else:
        np.testing.assert_array_equal(back[0], expected.reshape(image_shape))


def test_other_models_are_told_no_image_shape():
    with pytest.raises(ValueError, match="reshape") as error:
        check_rows_are_2d(np.ones((5, 8, 9)))
    assert "image_shape" not in str(error.value)
    check_rows_are_2d(X)
    check_rows_are_2d([[1.0]])


@pytest.mark.parametrize("Estimator", [Autoencoder, VAE])
def test_channels_that_come_last_are_told_to_come_first(Estimator):
    """An error where there is too little to halve, else a warning; small images are not asked."""

    def fit(image_shape):
        model = Estimator(2, network="conv", hidden_layer_sizes=(4,), max_iter=1, random_state=0)
        rows = np.random.default_rng(0).normal(size=(8, int(np.prod(image_shape))))
        return model.set_params(image_shape=image_shape).fit(rows)

    for shape, first in (((16, 12, 1), (1, 16, 12)), ((8, 8, 3), (3, 8, 8))):
        with pytest.raises(ValueError, match="Channels come first") as error:
            fit(shape)
        assert f"image_shape={first}" in str(error.value)
    with pytest.warns(UserWarning, match=r"Channels come first.*4 channels.*\(4, 8, 8\)"):
        fit((8, 8, 4))
    for shape in ((1, 8, 8), (3, 8, 8), (4, 8, 4), (16, 4, 5)):
        fit(shape)
    with pytest.raises(ValueError, match="width of at least 4") as error:
        fit((1, 8, 3))
    assert "Channels" not in str(error.value)


# ------------------------------------------------------------------------------- integers


def test_counts_are_integers():
    assert type(check_count("n", np.int64(3))) is int
    for value in (True, np.True_, 2.0, "2", None):
        with pytest.raises(TypeError, match="n must be an instance of"):
            check_count("n", value)
    with pytest.raises(ValueError, match="n == 1, must be >= 2"):
        check_count("n", 1, 2)


def test_an_index_of_pandas_is_read():
    """As the numbers that it holds; dates and periods are refused as in a column."""
    np.testing.assert_array_equal(as_numbers(pd.Index([1.0, 2.0])), [1.0, 2.0])
    for dates in (pd.date_range("2020", periods=3), pd.period_range("2020", periods=3)):
        with pytest.raises(TypeError, match="sample_weight has dates or times"):
            as_numbers(dates, "sample_weight")


def test_categories_are_numbers_or_refused():
    """By the name of their column."""
    found = as_numbers(pd.DataFrame({"a": pd.Categorical([3, 1])}))
    np.testing.assert_array_equal(found["a"], [3.0, 1.0])
    with pytest.raises(ValueError, match="column 'a', has categories"):
        as_numbers(pd.DataFrame({"a": pd.Categorical(["x", "y"])}))


def test_a_frame_that_waits_is_told_to_compute():
    """polars' lazy frames hold no rows yet."""
    with pytest.raises(TypeError, match=r"X\.collect\(\)"):
        as_numbers(pl.LazyFrame({"a": [1.0, 2.0]}))
