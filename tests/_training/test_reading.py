"""How encoders read counts, against NumPy."""

import numpy as np
import torch

from skae._training.reading import CountReading, totals

SHARE = np.array([0.5, 0.3, 0.2])
ROWS = np.array([[5.0, 3.0, 2.0], [0.0, 0.0, 0.0], [4.0, np.nan, 1.0], [np.nan, 6.0, np.nan]])


def expected_totals():
    seen = ~np.isnan(ROWS)
    return np.nansum(ROWS, 1) / (seen * SHARE).sum(1)


def test_totals_are_those_of_observed_values_divided_by_their_share():
    found = totals(torch.tensor(ROWS), SHARE)[:, 0].numpy()
    np.testing.assert_allclose(found, expected_totals(), rtol=1e-12)
    assert totals(torch.full((2, 3), np.nan), SHARE).isfinite().all()
    complete = torch.tensor(ROWS[:2])
    np.testing.assert_array_equal(totals(complete, SHARE)[:, 0], [10.0, 0.0])


def test_rows_are_read_as_logarithms_of_equal_totals():
    """Missing values stay missing, and a row of zeros is one of zeros."""
    found = CountReading(20.0, SHARE)(torch.tensor(ROWS)).numpy()
    with np.errstate(divide="ignore", invalid="ignore"):
        expected = np.log1p(ROWS * (20 / expected_totals())[:, None])
    expected[1] = 0
    np.testing.assert_allclose(found, expected, rtol=1e-6)
    assert found.dtype == np.float32
    np.testing.assert_allclose(
        CountReading(None, SHARE)(torch.tensor(ROWS)), np.log1p(ROWS), rtol=1e-6
    )


def test_brightness_does_not_change_what_is_read():
    rows = torch.tensor([[5, 3, 2], [500, 300, 200]])
    one, other = CountReading(7.0, SHARE)(rows)
    torch.testing.assert_close(one, other)


def test_totals_are_read_beside_rows_in_standard_units():
    read, found = CountReading(20.0, SHARE, 0.4).read(torch.tensor(ROWS))
    found = found.numpy()[:, 0]
    np.testing.assert_array_equal(read, CountReading(20.0, SHARE)(torch.tensor(ROWS)))
    expected = np.log(np.maximum(expected_totals(), 0.1) / 20) / 0.4
    np.testing.assert_allclose(found, expected, rtol=1e-5)
    assert CountReading(20.0, SHARE).read(torch.tensor(ROWS))[1] is None
    assert CountReading(None, SHARE, 0.4).read(torch.tensor(ROWS))[1] is None


def test_equal_readings_are_equal():
    """Data sets are compared by what is read of them."""
    one, again = (CountReading(20.0, SHARE.copy(), 0.4) for _ in range(2))
    assert one == again
    assert hash(one) == hash(again)
    others = [
        CountReading(21.0, SHARE, 0.4),
        CountReading(20.0, SHARE[::-1], 0.4),
        CountReading(20.0, SHARE, 0.5),
        CountReading(20.0, SHARE),
    ]
    assert all(other != one for other in others)
    assert one != "reading"
