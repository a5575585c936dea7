"""Event lists of FITS files, which astropy writes."""

import warnings

import numpy as np
import pytest
from astropy.io import fits

from skae import counts_to_image
from skae.photons import iter_counts, read_fits

SHAPE = (6, 9)  # rows (y) and columns (x)


@pytest.fixture(scope="module")
def events():
    """Events on the pixels of FITS, 1 to 9 in x and 1 to 6 in y, with a time and an energy."""
    rng = np.random.RandomState(0)
    n = 200
    return {
        "X": rng.randint(1, 10, n),
        "Y": rng.randint(1, 7, n),
        "TIME": np.sort(rng.uniform(0, 100, n)),
        "ENERGY": rng.uniform(300, 8000, n),
    }


@pytest.fixture(scope="module")
def image(events):
    found = np.zeros(SHAPE, int)
    np.add.at(found, (events["Y"] - 1, events["X"] - 1), 1)
    return found


def written(path, events, formats=None, limits=None, null=None, extra=(), **keywords):
    """Write events, with TLMIN and TLMAX of columns, and other keywords of columns."""
    formats = {"X": "I", "Y": "I", "TIME": "D", "ENERGY": "E", **(formats or {})}
    limits = {"X": (1, 9), "Y": (1, 6)} if limits is None else limits
    columns = [
        fits.Column(name, formats[name], array=values, null=(null or {}).get(name))
        for name, values in events.items()
    ]
    table = fits.BinTableHDU.from_columns(columns, name="EVENTS")
    for name, ends in limits.items():
        number = list(events).index(name) + 1
        table.header[f"TLMIN{number}"], table.header[f"TLMAX{number}"] = ends
    for keyword, value in keywords.items():
        table.header[keyword] = value
    fits.HDUList([fits.PrimaryHDU(), *extra, table]).writeto(path, overwrite=True)
    return path


@pytest.fixture
def path(events, tmp_path):
    return written(tmp_path / "events.fits", events)


def test_every_pixel(path, image, events):
    counts = read_fits(path)
    assert counts.coordinates.dtype == np.uint32
    assert counts.names == ("Y", "X")
    assert counts.image_shape == SHAPE
    assert counts.weights is None
    np.testing.assert_array_equal(counts_to_image(counts.coordinates, SHAPE), image)
    np.testing.assert_array_equal(counts.times, events["TIME"])
    np.testing.assert_array_equal(counts.domain, [[0, 6], [0, 9]])


def test_a_compressed_file(events, image, tmp_path):
    counts = read_fits(written(tmp_path / "events.fits.gz", events))
    np.testing.assert_array_equal(counts_to_image(counts.coordinates, SHAPE), image)


def test_positions_within_pixels(events, image, tmp_path):
    """Columns of floats, with the range from 0.5 that whole pixels have in FITS."""
    shift = np.random.RandomState(1).uniform(-0.5, 0.5, (2, 200))
    moved = {**events, "X": events["X"] + shift[0], "Y": events["Y"] + shift[1]}
    path = written(
        tmp_path / "floats.fits",
        moved,
        {"X": "D", "Y": "D"},
        {"X": (0.5, 9.5), "Y": (0.5, 6.5)},
    )
    counts = read_fits(path)
    assert counts.coordinates.dtype == np.float64
    assert counts.image_shape == SHAPE
    np.testing.assert_allclose(counts.coordinates[:, 0], moved["Y"] - 0.5)
    np.testing.assert_allclose(counts.coordinates[:, 1], moved["X"] - 0.5)
    np.testing.assert_array_equal(counts_to_image(counts.coordinates, SHAPE), image)


@pytest.mark.parametrize(
    ("ends", "length", "begin"),
    [((1, 9), 9, 0.5), ((0.5, 9.5), 9, 0.5), ((0, 31), 32, -0.5), ((-3.5, 12.5), 16, -3.5)],
)
def test_the_image_has_the_pixels_of_the_range(events, tmp_path, ends, length, begin):
    path = written(tmp_path / "range.fits", events, {"X": "E"}, {"X": ends, "Y": (1, 6)})
    counts = read_fits(path)
    assert counts.image_shape == (6, length)
    np.testing.assert_allclose(counts.coordinates[:, 1], events["X"] - begin)


def test_a_detector_that_counts_from_0(events, image, tmp_path):
    zero = {**events, "X": events["X"] - 1, "Y": events["Y"] - 1}
    path = written(tmp_path / "raw.fits", zero, limits={"X": (0, 8), "Y": (0, 5)})
    counts = read_fits(path)
    np.testing.assert_array_equal(counts_to_image(counts.coordinates, SHAPE), image)
    path = written(tmp_path / "raw.fits", zero, limits={})
    with pytest.raises(ValueError, match=r"raw.fits, column X: .* TLMIN and TLMAX.* image_shape"):
        read_fits(path)
    counts = read_fits(path, image_shape=SHAPE, first_pixel=0)
    np.testing.assert_array_equal(counts_to_image(counts.coordinates, SHAPE), image)


@pytest.mark.parametrize(
    ("format_", "keywords"),
    [
        ("J", {"TSCAL1": 1, "TZERO1": 5}),
        ("J", {"TSCAL1": 2, "TZERO1": -1}),
        ("I", {"TSCAL1": 1, "TZERO1": 32768}),
    ],
)
def test_scaled_integers_are_pixels(events, image, tmp_path, format_, keywords):
    """Columns that are scaled by whole numbers, also the convention for unsigned integers."""
    odd = np.where(events["X"] % 2 == 0, events["X"] - 1, events["X"])  # for the scale of 2
    raw = (odd - keywords["TZERO1"]) // keywords["TSCAL1"]
    path = written(tmp_path / "scaled.fits", {**events, "X": raw}, {"X": format_})
    for keyword, value in keywords.items():
        fits.setval(path, keyword, value=value, ext=1)
    counts = read_fits(path)
    assert counts.coordinates.dtype == np.uint32
    np.testing.assert_array_equal(counts.coordinates[:, 1], odd - 1)


def test_fractions_of_pixels_in_integers(events, tmp_path):
    raw = np.rint(events["X"] / 0.1 + 3).astype(int)
    path = written(tmp_path / "scaled.fits", {**events, "X": raw})
    fits.setval(path, "TSCAL1", value=0.1, ext=1)
    counts = read_fits(path)
    np.testing.assert_allclose(counts.coordinates[:, 1], 0.1 * raw - 0.5)
    np.testing.assert_allclose(counts.coordinates[:, 0], events["Y"] - 0.5)  # centres


@pytest.mark.parametrize("scale", [None, 1, 0.1])
def test_null_in_integers_is_no_position(events, tmp_path, scale):
    """astropy marks TNULL neither in its records nor, in scaled columns, in its tables."""
    X = events["X"] * (10 if scale == 0.1 else 1)
    X[[3, 50]] = -99
    path = written(tmp_path / "null.fits", {**events, "X": X}, null={"X": -99})
    if scale is not None:
        fits.setval(path, "TSCAL1", value=scale, ext=1)
        fits.setval(path, "TZERO1", value=0, ext=1)
    with pytest.warns(UserWarning, match=r"null.fits: 2 of 200 events have no position"):
        counts = read_fits(path)
    assert len(counts) == 198
    assert counts.n_dropped == 2
    np.testing.assert_array_equal(counts.times, np.delete(events["TIME"], [3, 50]))


def test_nan_is_no_position(events, tmp_path):
    Y = events["Y"].astype(float)
    Y[7] = np.nan
    path = written(tmp_path / "nan.fits", {**events, "Y": Y}, {"Y": "E"})
    with pytest.warns(UserWarning, match="1 of 200 events have no position"):
        counts = read_fits(path)
    assert np.isfinite(counts.coordinates).all()
    assert len(counts) == 199


def test_events_outside_of_the_range(events, tmp_path):
    path = written(tmp_path / "out.fits", events, limits={"X": (1, 8), "Y": (1, 6)})
    n_out = int((events["X"] == 9).sum())
    first = int((events["X"] == 9).argmax())
    message = (
        rf"out.fits, column X: {n_out} events are outside .* first is 9 in row {first}; allowed "
        r"are 0.5 to 8.5"
    )
    with pytest.raises(ValueError, match=message):
        read_fits(path)
    with pytest.warns(UserWarning, match=message):
        counts = read_fits(path, outside="drop")
    assert counts.n_dropped == n_out
    assert counts.coordinates[:, 1].max() == 7


def test_filters(path, events):
    counts = read_fits(path, ranges={"energy": (500, 2000), "TIME": (None, 60.0)})
    keep = (events["ENERGY"].astype("f4") >= 500) & (events["ENERGY"].astype("f4") <= 2000)
    keep &= events["TIME"] <= 60
    np.testing.assert_array_equal(counts.times, events["TIME"][keep])
    assert counts.n_dropped == 0


def good_times(start, stop, name="GTI", unit="s"):
    columns = [
        fits.Column("START", "D", array=start, unit=unit),
        fits.Column("STOP", "D", array=stop, unit=unit),
    ]
    return fits.BinTableHDU.from_columns(columns, name=name)


@pytest.mark.parametrize(("unit", "seconds"), [("s", 1), ("min", 60)])
def test_good_time_intervals(events, tmp_path, unit, seconds):
    """Intervals that are not sorted, one of which lies in another."""
    start, stop = np.array([60.0, 10, 12]), np.array([80.0, 30, 15])
    extra = [good_times(start / seconds, stop / seconds, "STDGTI04", unit)]
    path = written(tmp_path / "gti.fits", events, extra=extra)
    time = events["TIME"]
    keep = ((time[:, None] >= start) & (time[:, None] < stop)).any(axis=1)
    for gti in (True, "STDGTI04", 1):
        np.testing.assert_array_equal(read_fits(path, gti=gti).times, time[keep])
    assert len(read_fits(path)) == 200
    with pytest.raises(ValueError, match=r"gti='none'.*extensions are .*STDGTI04, EVENTS"):
        read_fits(path, gti="none")


def test_units_of_time(events, tmp_path):
    path = written(tmp_path / "days.fits", events, TUNIT3="d")
    np.testing.assert_allclose(read_fits(path).times, 86_400 * events["TIME"])
    path = written(tmp_path / "metres.fits", events, TUNIT3="m")
    with pytest.raises(ValueError, match=r"metres.fits, column TIME: the unit 'm' is not allowed"):
        read_fits(path)
    path = written(tmp_path / "no_time.fits", {name: events[name] for name in "XY"})
    assert read_fits(path).times is None


def test_exposure_maps(path, tmp_path):
    exposure = np.random.RandomState(0).uniform(0, 5, SHAPE).astype("f4")
    second = tmp_path / "exposure.fits"
    fits.PrimaryHDU(exposure).writeto(second)
    np.testing.assert_array_equal(read_fits(path, exposure=second).exposure, exposure)
    np.testing.assert_array_equal(read_fits(path, exposure=exposure).exposure, exposure)
    for block in iter_counts(path, exposure=second, block_size=100):
        np.testing.assert_array_equal(block.exposure, exposure)
    with pytest.raises(ValueError, match=r"exposure has shape \(9, 6\).* \(6, 9\)"):
        read_fits(path, exposure=exposure.T)
    with pytest.raises(ValueError, match="negative or not finite"):
        read_fits(path, exposure=-exposure)
    with pytest.raises(ValueError, match=r"events.fits has no image"):
        read_fits(path, exposure=path)


def test_further_columns(path, events):
    counts = read_fits(path, more_columns=["energy"], ranges={"ENERGY": (0, 10_000)})
    assert counts.names == ("Y", "X", "ENERGY")
    assert counts.image_shape == SHAPE
    expected = np.column_stack([events["Y"] - 0.5, events["X"] - 0.5, events["ENERGY"]])
    np.testing.assert_allclose(counts.coordinates, expected, rtol=1e-6)
    np.testing.assert_array_equal(counts.domain, [[0, 6], [0, 9], [0, 10_000]])
    assert read_fits(path, more_columns=["ENERGY"]).domain is None


def test_other_columns_and_extensions(events, image, tmp_path):
    other = fits.BinTableHDU.from_columns([fits.Column("X", "I", array=[1])], name="OTHER")
    renamed = {"RAWX": events["X"], "RAWY": events["Y"]}
    path = written(
        tmp_path / "raw.fits",
        renamed,
        {"RAWX": "I", "RAWY": "I"},
        {"RAWX": (1, 9), "RAWY": (1, 6)},
        extra=[other],
    )
    for extension in (None, 2, "EVENTS"):
        counts = read_fits(path, columns=("rawx", "rawy"), extension=extension)
        np.testing.assert_array_equal(counts_to_image(counts.coordinates, SHAPE), image)
    with pytest.raises(ValueError, match=r"no table with the columns X, Y.*RAWX, RAWY"):
        read_fits(path)
    with pytest.raises(ValueError, match=r"allowed are 1 \(OTHER\), 2 \(EVENTS\)"):
        read_fits(path, extension="EVT")
    with pytest.raises(ValueError, match="no column 'Y' in extension 'OTHER'; allowed are X"):
        read_fits(path, extension="OTHER")
    with pytest.raises(ValueError, match="no column 'PI'"):
        read_fits(path, columns=("RAWX", "RAWY"), ranges={"PI": (0, 1)})


@pytest.mark.parametrize("block_size", [1, 30, 1000])
def test_blocks(path, events, block_size):
    blocks = list(iter_counts(path, block_size=block_size))
    assert max(map(len, blocks)) <= block_size
    whole = read_fits(path)
    for name in ("coordinates", "times"):
        joined = np.concatenate([getattr(block, name) for block in blocks])
        np.testing.assert_array_equal(joined, getattr(whole, name))


def test_no_events(events, tmp_path):
    path = written(tmp_path / "none.fits", {name: values[:0] for name, values in events.items()})
    counts = read_fits(path)
    assert counts.coordinates.shape == (0, 2)
    assert counts.image_shape == SHAPE


@pytest.mark.filterwarnings("ignore:File may have been truncated")
def test_refused_files(events, path, tmp_path):
    (tmp_path / "cut.fits").write_bytes(path.read_bytes()[:-3000])
    with pytest.raises(ValueError, match=r"cut.fits is damaged or incomplete"):
        read_fits(tmp_path / "cut.fits")
    (tmp_path / "text.fits").write_bytes(b"no FITS at all")
    with pytest.raises(ValueError, match=r"text.fits cannot be read as FITS"):
        read_fits(tmp_path / "text.fits")
    fits.PrimaryHDU(np.zeros((3, 3))).writeto(tmp_path / "image.fits")
    with pytest.raises(ValueError, match=r"image.fits has no table.* no tables at all"):
        read_fits(tmp_path / "image.fits")
    bad = written(tmp_path / "bad.fits", events, limits={"X": (5, 1), "Y": (1, 6)})
    with pytest.raises(ValueError, match=r"bad.fits, column X: TLMIN=5 and TLMAX=1 are no range"):
        read_fits(bad)
    bad = written(tmp_path / "bad.fits", events, limits={"X": ("a", "b"), "Y": (1, 6)})
    with pytest.raises(ValueError, match="TLMIN1='a' is not allowed"):
        read_fits(bad)
    vectors = fits.Column("X", "2I", array=np.ones((3, 2), int))
    names = fits.Column("Y", "4A", array=["a", "b", "c"])
    fits.BinTableHDU.from_columns([vectors, names]).writeto(tmp_path / "kinds.fits")
    with pytest.raises(ValueError, match="column X: format 2I is not allowed"):
        read_fits(tmp_path / "kinds.fits")
    with pytest.raises(ValueError, match="column Y: format 4A is not allowed"):
        read_fits(tmp_path / "kinds.fits", columns=("Y", "X"))


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"outside": "keep"}, "allowed are 'raise' and 'drop'"),
        ({"columns": "X"}, r"must be names of columns, such as \('X', 'Y'\)"),
        ({"image_shape": (3,)}, "1 lengths; expected 2"),
        ({"ranges": {"X": 3}}, r"ranges\['X'\]=3 must be a pair"),
        ({"gti": True}, "no table gti=True"),
    ],
)
def test_wrong_options(path, options, message):
    with pytest.raises(ValueError, match=message):
        read_fits(path, **options)


def test_intervals_without_a_unit_have_that_of_the_events(tmp_path):
    times = np.arange(0.0, 500.0)
    columns = [
        fits.Column("X", "D", array=np.full(500, 3.0)),
        fits.Column("Y", "D", array=np.full(500, 4.0)),
        fits.Column("TIME", "D", array=times, unit="ms"),
    ]
    table = fits.BinTableHDU.from_columns(columns, name="EVENTS")
    ends = [fits.Column(name, "D", array=[t]) for name, t in [("START", 100.0), ("STOP", 199.5)]]
    good = fits.BinTableHDU.from_columns(ends, name="STDGTI")
    path = tmp_path / "events.fits"
    fits.HDUList([fits.PrimaryHDU(), table, good]).writeto(path)
    for gti in (True, "stdgti"):
        found = read_fits(path, gti=gti, image_shape=(8, 8))
        np.testing.assert_allclose(found.times, times[100:200] / 1000)


def test_files_that_end_too_early_are_refused(tmp_path):
    table = fits.BinTableHDU.from_columns(
        [fits.Column(name, "D", array=np.arange(1.0, 401.0) % 7 + 1) for name in "XY"],
        name="EVENTS",
    )
    path = tmp_path / "events.fits"
    fits.HDUList([fits.PrimaryHDU(), table]).writeto(path)
    whole = path.read_bytes()
    path.write_bytes(whole[:-100])  # which is padding
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        assert len(read_fits(path, image_shape=(8, 8)).coordinates) == 400
        path.write_bytes(whole[:-2880])
        with pytest.raises(ValueError, match="is damaged or incomplete"):
            read_fits(path, image_shape=(8, 8))
