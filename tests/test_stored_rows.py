"""Rows in files and lazy containers: results equal those in memory, and few rows are in memory."""

import copy
import itertools
import pickle
import sys
import threading
from collections import Counter

import dask.array as da
import dask.dataframe as dd
import h5py
import numpy as np
import pandas as pd
import pyarrow as pa
import pyarrow.dataset
import pyarrow.parquet
import pytest
import torch
import zarr
from scipy import sparse
from skorch.callbacks import Callback
from torch.utils.data import DataLoader, IterableDataset, TensorDataset

from skae import (
    PPCA,
    VAE,
    VQVAE,
    AdversarialAE,
    Autoencoder,
    Ensemble,
    HelmholtzMachine,
    LatentDensityEstimator,
    LinearAE,
    OutlierDetector,
)
from skae import _training_length as length
from skae._training import loader
from skae._training.data import Data, Dataset, spread_of
from skae._training.loader import Loader, Subset, batch_sizes
from skae._training.sources import source_of
from skae._training.stored_rows import Shuffle
from skae._training.units import Units
from skae._utils import stored_rows as limits
from skae._utils.readers import ArrayReader, stored_rows
from skae._utils.sparse_rows import SparseRows
from skae._utils.stored_rows import StoredRows

# Windows of tests have few blocks.
pytestmark = pytest.mark.filterwarnings("ignore:X is .* that is read in parts")
NETWORKS = [Autoencoder, VAE, AdversarialAE, VQVAE, HelmholtzMachine]
every_network = pytest.mark.parametrize("Estimator", NETWORKS, ids=lambda E: E.__name__)
N_ROWS, N_COLUMNS = 300, 6
NAMES = [f"column {j}" for j in range(N_COLUMNS)]


def some_rows(n=N_ROWS, dtype="float32"):
    rng = np.random.default_rng(0)
    X = rng.standard_normal((n, 2)) @ rng.standard_normal((2, N_COLUMNS))
    return (10 * X + rng.standard_normal((n, N_COLUMNS))).astype(dtype)


class Items(torch.utils.data.Dataset):
    """A Dataset without `__getitems__`, whose items are pairs."""

    def __init__(self, X):
        self.X = X

    def __len__(self):
        return len(self.X)

    def __getitem__(self, i):
        return torch.from_numpy(self.X[i]), 0


def write_anndata(X, path):
    anndata = pytest.importorskip("anndata")
    # anndata 0.12 cannot write the strings of pandas 3
    names = (
        pd.DataFrame(index=pd.Index(n, dtype=object)) for n in (map(str, range(X.shape[0])), NAMES)
    )
    anndata.AnnData(X, *names).write_h5ad(path)
    return anndata.read_h5ad(path, backed="r")


def as_memmap(X, path):
    np.save(path / "rows.npy", X)
    return np.load(path / "rows.npy", mmap_mode="r")


def as_hdf5(X, path, **more):
    return h5py.File(path / "rows.h5", "w").create_dataset("x", data=X, **more)


def as_parquet(X, path):
    table = pa.table(dict(zip(NAMES, X.T, strict=True)))
    for i, part in enumerate((table[:100], table[100:])):
        pa.parquet.write_table(part, path / f"{i}.parquet", row_group_size=30)
    return pa.dataset.dataset(path)


def as_dask_frame(X, path):
    return dd.from_pandas(pd.DataFrame(X, columns=NAMES), npartitions=7)


CONTAINERS = {
    "memmap": as_memmap,
    "HDF5": as_hdf5,
    "HDF5 in chunks": lambda X, path: as_hdf5(X, path, chunks=(7, 4), compression="gzip"),
    "Zarr": lambda X, path: zarr.create_array(path / "rows.zarr", data=X, chunks=(16, 3)),
    "Parquet data set": as_parquet,
    "Parquet file": lambda X, path: (
        as_parquet(X, path) and pa.parquet.ParquetFile(path / "1.parquet")
    ),
    "ParquetDataset": lambda X, path: as_parquet(X, path) and pa.parquet.ParquetDataset(path),
    "AnnData": lambda X, path: write_anndata(X, path / "rows.h5ad"),
    "AnnData.X": lambda X, path: write_anndata(X, path / "rows.h5ad").X,
    "AnnData, sparse": lambda X, path: write_anndata(sparse.csr_matrix(X), path / "rows.h5ad"),
    "TensorDataset": lambda X, path: TensorDataset(torch.from_numpy(X), torch.zeros(len(X))),
    "Dataset": lambda X, path: Items(X),
    "dask array": lambda X, path: da.from_array(X, chunks=(40, 4)),
    "dask array of unknown lengths": lambda X, path: da.from_array(X, chunks=(40, 4))[
        da.from_array(X[:, 0] > -np.inf, chunks=40)
    ],
    "dask frame": as_dask_frame,
}
CONTAINERS |= {
    "AnnData in memory": lambda X, path: write_anndata(X, path / "rows.h5ad").to_memory(),
    "AnnData in memory, sparse": lambda X, path: write_anndata(
        sparse.csc_matrix(X), path / "rows.h5ad"
    ).to_memory(),
    "Subset of a Dataset": lambda X, path: torch.utils.data.Subset(Items(X), range(len(X))),
}
NAMED = {"Parquet data set", "Parquet file", "ParquetDataset", "AnnData", "AnnData, sparse"}
NAMED |= {"dask frame", "AnnData in memory", "AnnData in memory, sparse"}
every_container = pytest.mark.parametrize("container", CONTAINERS)


@pytest.fixture
def windows(monkeypatch):
    """Few rows in memory: 50 of 6 columns of float32."""
    monkeypatch.setattr(limits, "WINDOW_BYTES", 50 * 24)
    monkeypatch.setattr(limits, "_BLOCK_BYTES", 4 * 24)
    monkeypatch.setattr(limits, "_PIECE_BYTES", 20 * 24)
    monkeypatch.setattr(limits, "_GAP_BYTES", 3 * 24)


def in_container(container, path, X):
    stored = CONTAINERS[container](X, path)
    return stored, X[100:] if container == "Parquet file" else X


def small(Estimator=Autoencoder, **params):
    given = {"hidden_layer_sizes": (8,)} if Estimator is not HelmholtzMachine else {}
    return Estimator(2, **({"max_iter": 2, "random_state": 0, "batch_size": 16} | given | params))


def weights_of(model):
    return {k: v.numpy() for k, v in model.net_.module_.state_dict().items()}


def assert_equal_weights(found, expected, **tolerance):
    found, expected = weights_of(found), weights_of(expected)
    assert list(found) == list(expected)
    for name, weight in expected.items():
        np.testing.assert_allclose(found[name], weight, err_msg=name, **({"rtol": 0} | tolerance))


# ------------------------------------------------------------------------------ results


@every_container
def test_small_containers_give_exactly_the_results_of_arrays(container, tmp_path):
    given, X = in_container(container, tmp_path, some_rows())
    found, expected = small().fit(given), small().fit(X)
    assert_equal_weights(found, expected)
    # Blocks of Dask are transformed one by one, which rounds differently.
    rounding = 1e-5 if "dask" in container else 0
    for method in ("transform", "reconstruct", "score_samples", "score"):
        a, b = getattr(found, method)(given), getattr(expected, method)(X)
        np.testing.assert_allclose(a, b, rtol=rounding, atol=rounding, err_msg=method)
    codes = small().fit_transform(given)
    np.testing.assert_allclose(codes, small().fit_transform(X), rtol=rounding, atol=rounding)
    if container in NAMED:
        assert list(found.feature_names_in_) == NAMES
    else:
        assert not hasattr(found, "feature_names_in_")
    streamed = small().partial_fit(given).partial_fit(given)
    assert_equal_weights(streamed, small().partial_fit(X).partial_fit(X))
    pickle.dumps(found)


@every_container
def test_containers_that_are_read_in_parts(container, tmp_path, windows, monkeypatch):
    """All but the order of the rows in training is as in memory, up to rounding."""
    given, X = in_container(container, tmp_path, some_rows())
    if "in memory" not in container:
        assert not stored_rows(given).is_small
    # One batch of all rows: no order, so that training equals that in memory.
    params = {"batch_size": len(X), "max_iter": 3}
    monkeypatch.setattr(limits, "WINDOW_BYTES", 60 * 24)
    found, expected = small(**params).fit(given), small(**params).fit(X)
    assert_equal_weights(found, expected, atol=1e-4)
    named = pd.DataFrame(X, columns=NAMES) if container in NAMED else X
    for method in ("transform", "reconstruct", "score_samples", "score"):
        a, b = getattr(found, method)(given), getattr(found, method)(named)
        np.testing.assert_allclose(a, b, rtol=1e-5, atol=1e-5, err_msg=method)
    codes = small(**params).fit_transform(given)
    np.testing.assert_allclose(codes, small(**params).fit_transform(X), atol=1e-3)
    assert (list(found.feature_names_in_) == NAMES) if container in NAMED else True
    pickle.loads(pickle.dumps(found))
    assert not [t for t in threading.enumerate() if t.name == "skae-reader"]


@every_network
def test_every_network_reads_in_parts(Estimator, tmp_path, windows):
    X = some_rows()
    X = (X > 0).astype("float32") if Estimator is HelmholtzMachine else X
    given = as_hdf5(X, tmp_path, chunks=(8, 6))
    found = small(Estimator, max_iter=4).fit(given)
    again = small(Estimator, max_iter=4).fit(as_memmap(X, tmp_path))
    expected = small(Estimator, max_iter=4).fit(X)
    np.testing.assert_allclose(found.score_samples(given), found.score_samples(X), rtol=1e-4)
    np.testing.assert_array_equal(found.transform(given), found.transform(X))
    assert found.score(X) == pytest.approx(expected.score(X), rel=0.15)
    assert again.score(X) == pytest.approx(expected.score(X), rel=0.15)
    assert found.n_iter_ == 4
    for _ in range(2):
        found.partial_fit(given)
    assert found.n_iter_ == 6
    given.file.close()
    pickle.loads(pickle.dumps(found)).transform(X)


@pytest.mark.parametrize(
    ("Estimator", "params"),
    [
        (VAE, {"early_stopping": True}),
        (VAE, {"n_init": 2}),
        (VAE, {"max_iter": None}),
        (VAE, {"prior": "vamp"}),
        (Autoencoder, {"n_components": 0.8}),
        (Autoencoder, {"latent_growth": "nested"}),
        (Autoencoder, {"likelihood": "poisson"}),
        (VAE, {"likelihood": "negative_binomial", "size_factor": "total"}),
        (VQVAE, {"prior": "autoregressive"}),
        (HelmholtzMachine, {"likelihood": "gaussian"}),
        (LatentDensityEstimator, {}),
    ],
)
@pytest.mark.parametrize("kind", ["HDF5", "AnnData, sparse"])
@pytest.mark.filterwarnings("ignore::sklearn.exceptions.ConvergenceWarning")
def test_parameters_with_rows_that_are_read_in_parts(
    Estimator, params, kind, tmp_path, windows, monkeypatch
):
    if kind != "HDF5" and params == {"max_iter": None}:
        pytest.skip("takes many epochs of small reads")
    monkeypatch.setattr(length, "_FEWEST_STEPS", 40)
    monkeypatch.setattr(length, "_STEPS_PER_ROW", 1)
    X = np.round(np.abs(some_rows()))
    given = CONTAINERS[kind](X, tmp_path)
    given = given.X if kind == "AnnData, sparse" else given
    if Estimator is LatentDensityEstimator:
        model = LatentDensityEstimator(small(), max_iter=2, random_state=0)
    elif "n_components" in params:
        model = small().set_params(**params)
    else:
        model = small(Estimator, **params)
    model.fit(given)
    scores = model.score_samples(given)
    plain = sparse.csr_array(X) if kind == "AnnData, sparse" else X
    np.testing.assert_allclose(scores, model.score_samples(plain), rtol=1e-3, atol=1e-3)
    assert np.isfinite(scores).all()
    pickle.dumps(model)


def test_weights_targets_and_missing_values(tmp_path, windows):
    X = some_rows()
    X[::7, 2] = np.nan
    weight = np.arange(len(X)) % 3.0
    y = np.arange(len(X)) % 2
    params = {"batch_size": len(X), "max_iter": 3}
    for model in (small(**params), small(VAE, conditional=True, **params)):
        given = as_memmap(X, tmp_path)
        model.fit(given, y, sample_weight=weight)
        bare = pickle.loads(pickle.dumps(model))
        expected = type(model)(**model.get_params()).fit(X, y, sample_weight=weight)
        assert_equal_weights(bare, expected, atol=2e-3)
        np.testing.assert_allclose(model.transform(given), model.transform(X), atol=1e-5)
    with pytest.raises(ValueError, match="contains NaN"):
        small(missing="error").fit(given)
    X[:, 3] = np.nan
    with pytest.raises(ValueError, match=r"Columns \[3\] of X are NaN in every row"):
        small().fit(as_memmap(X, tmp_path))


def test_nulls_of_parquet_and_dask_are_missing_values(tmp_path, windows):
    X = some_rows(dtype="float64")
    frame = pd.DataFrame(X, columns=NAMES)
    frame["column 1"] = pd.array(np.round(X[:, 1]).astype(int), dtype="Int64")
    frame.loc[::5, "column 1"] = pd.NA
    frame["column 2"] = X[:, 2] > 0
    expected = frame.to_numpy(dtype=float, na_value=np.nan)
    frame.to_parquet(tmp_path / "1.parquet", row_group_size=40)
    for given in (
        pa.dataset.dataset(tmp_path),
        pa.parquet.ParquetFile(tmp_path / "1.parquet"),
        dd.from_pandas(frame, npartitions=3),
    ):
        rows = stored_rows(given)
        np.testing.assert_array_equal(rows.toarray(), expected)
        found = small().fit(given)
        assert list(found.feature_names_in_) == NAMES
        assert found._architecture.with_mask
        np.testing.assert_allclose(found.transform(given), found.transform(frame), atol=1e-5)


@pytest.mark.parametrize("dtype", ["uint8", "int16", "uint16", "uint32", "float16", ">f4", "bool"])
def test_types_of_values(dtype, tmp_path, windows):
    X = (np.abs(some_rows()) % 2).astype(dtype)
    rows = stored_rows(as_hdf5(X, tmp_path))
    np.testing.assert_array_equal(rows.toarray(), X)
    source = Dataset(
        Data(rows),
        units=Units(None, None),
        with_mask=False,
        reread=False,
        device=torch.device("cpu"),
    )
    index = torch.tensor([250, 3, 4, 5, 90])
    np.testing.assert_array_equal(source.batch(index).x.numpy(), X[index].astype("float32"))
    np.testing.assert_array_equal(source.batch(slice(40, 180)).x, X[40:180].astype("float32"))
    expected = spread_of(X.astype("float64"), None)
    for found, wanted in zip(spread_of(rows, None), expected, strict=True):
        np.testing.assert_allclose(found, wanted, rtol=1e-12)


def test_meta_estimators(tmp_path, windows):
    X = some_rows()
    given = as_hdf5(X, tmp_path)
    ensemble = Ensemble(small(VAE), 2, random_state=0).fit(given)
    np.testing.assert_allclose(ensemble.score_samples(given), ensemble.score_samples(X), rtol=1e-4)
    detector = OutlierDetector(small(VAE), cv=2, random_state=0).fit(given)
    np.testing.assert_array_equal(detector.predict(given), detector.predict(X))
    with pytest.raises(TypeError, match="which only autoencoders with a network"):
        LatentDensityEstimator(LinearAE(2)).fit(given)


# ------------------------------------------------------------------------------- batches


def dataset_of(rows, **more):
    return Dataset(
        Data(rows, **more),
        units=Units(None, None),
        with_mask=False,
        reread=True,
        device=torch.device("cpu"),
    )


def numbered(n, path, **more):
    """Rows whose first value is their number."""
    X = np.zeros((n, N_COLUMNS), dtype="float32")
    X[:, 0] = np.arange(n)
    return as_hdf5(X, path, **more)


@pytest.mark.parametrize("chunks", [None, (1, 6), (7, 6), (49, 6), (90, 6)])
@pytest.mark.parametrize("subset", [None, "most", "few"])
def test_every_row_is_in_one_batch(chunks, subset, tmp_path, windows):
    n = 481
    rows = stored_rows(numbered(n, tmp_path, chunks=chunks))
    weight = np.arange(n, dtype=float)
    generator = torch.Generator().manual_seed(3)
    order = torch.randperm(n, generator=generator)
    index = {None: None, "most": order[50:], "few": order[:100]}[subset]
    view = Subset(dataset_of(rows, weight=weight), index)
    expected = np.arange(n) if index is None else np.sort(index.numpy())
    orders = []
    for _ in range(2):
        batches = list(Loader(view, 16, generator))
        assert [len(batch.x) for batch in batches] == batch_sizes(len(view), 16)
        numbers = np.concatenate([batch.x[:, 0].numpy() for batch in batches])
        np.testing.assert_array_equal(np.sort(numbers), expected)
        given = np.concatenate([batch.weight.numpy() for batch in batches])
        np.testing.assert_array_equal(given, numbers)
        orders.append(numbers)
    assert (orders[0] != orders[1]).mean() > 0.8
    seeded = [torch.Generator().manual_seed(5) for _ in range(2)]
    first, second = (torch.cat([b.x for b in Loader(view, 16, g)]) for g in seeded)
    assert torch.equal(first, second)


def test_rows_in_the_memory_of_a_device_have_the_same_order(tmp_path, windows):
    """The order must not depend on whether a device has room for all rows."""
    given = numbered(481, tmp_path)
    rows, resident = dataset_of(stored_rows(given)), dataset_of(stored_rows(given))
    resident._source = source_of(resident.stored).to(torch.device("cpu"))
    assert rows.is_streamed
    assert not resident.is_streamed
    orders = []
    for data in (rows, resident):
        batches = Loader(Subset(data, None), 16, torch.Generator().manual_seed(0))
        orders.append(torch.cat([batch.x for batch in batches]))
    assert torch.equal(*orders)


def test_windows_resemble_all_rows(tmp_path, windows):
    """Of rows sorted by class, each window has all classes, as often as all rows have them."""
    n, n_classes = 3000, 5
    rows = stored_rows(numbered(n, tmp_path))
    shuffle = Shuffle(rows, None)
    found = shuffle.windows(torch.Generator().manual_seed(0))
    assert len(found) == shuffle.n_windows == 63  # 750 blocks of 4 rows, at most 12 in a window
    for window in found:
        assert len(window) <= 56  # blocks of 4 rows
        counts = np.bincount(window // (n // n_classes), minlength=n_classes)
        assert counts.min() >= 4
        assert counts.max() <= 16
    # Neighbouring rows of the file are far apart in the order, except for those of a block.
    view = Subset(dataset_of(rows), None)
    batches = Loader(view, 10, torch.Generator().manual_seed(0))
    place = np.argsort(torch.cat([batch.x[:, 0] for batch in batches]).numpy())
    assert np.median(np.abs(place[5:] - place[:-5])) > n / 10


def test_the_loss_of_sorted_rows_is_that_of_shuffled_rows(tmp_path, monkeypatch):
    rng = np.random.default_rng(0)
    label = np.repeat(np.arange(10), 400)
    X = (3 * rng.standard_normal((10, 20))[label] + rng.standard_normal((4000, 20))).astype("f4")
    model = Autoencoder(
        4, hidden_layer_sizes=(32,), init="random", max_iter=1, batch_size=32, random_state=0
    )
    expected = model.fit(X).score(X)
    monkeypatch.setattr(limits, "WINDOW_BYTES", 400 * 80)
    monkeypatch.setattr(limits, "_BLOCK_BYTES", 8 * 80)
    found = model.fit(as_hdf5(X, tmp_path)).score(X)
    assert found == pytest.approx(expected, rel=0.01)


def test_large_chunks_are_reported(tmp_path, windows):
    given = as_hdf5(some_rows(), tmp_path, chunks=(30, 6))
    with pytest.warns(UserWarning, match="is an HDF5 dataset that is read in parts of about 30"):
        small().fit(given)


class CountingReader(ArrayReader):
    """Counts how often each row is read, and how many at once."""

    def __init__(self, X):
        super().__init__(X, "a test")
        self.reads, self.most = Counter(), 0

    def read(self, start, stop):
        self.reads.update(range(start, stop))
        self.most = max(self.most, stop - start)
        return super().read(start, stop)


def test_each_epoch_reads_each_row_once_in_slices(windows):
    X = some_rows(1000)
    counts = []
    for max_iter in (1, 3):
        reader = CountingReader(X)
        small(init="random", max_iter=max_iter, likelihood="gaussian").fit(StoredRows(reader))
        counts.append(np.array([reader.reads[i] for i in range(len(X))]))
        assert reader.most <= 25
    assert Counter(counts[1] - counts[0]).most_common(1)[0][0] == 2
    # The check with the moments, the epoch, and the codes with the noise variance. Because there
    # are few rows, all of them are also read in two comparisons that take a sample otherwise.
    assert np.median(counts[0]) == 5
    reader = CountingReader(X)
    model = small().fit(X)
    model.transform(StoredRows(reader))
    assert set(reader.reads.values()) == {1}


def test_few_rows_are_in_memory(tmp_path, monkeypatch):
    """No array of more than a window is made, and mapped pages do not stay."""
    tracemalloc = pytest.importorskip("tracemalloc")
    monkeypatch.setattr(limits, "WINDOW_BYTES", 2**20)
    monkeypatch.setattr(limits, "_BLOCK_BYTES", 2**14)
    monkeypatch.setattr(limits, "_PIECE_BYTES", 2**16)
    path = tmp_path / "rows.npy"
    mapped = np.lib.format.open_memmap(path, "w+", "float32", (2**13, 256))  # 8 MiB
    rng = np.random.default_rng(0)
    mapped[:] = rng.standard_normal(mapped.shape, dtype="float32")
    del mapped
    given = np.load(path, mmap_mode="r")
    model = small(init="random", max_iter=2, batch_size=64)
    model.fit(rng.standard_normal((50, 256)))
    tracemalloc.start()
    try:
        model.fit(given)
        model.score(given)
        _, peak = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
    assert peak < 4 * 2**20
    if sys.platform == "linux":
        assert _resident_kib(str(path)) < 100
        # The system also maps pages around those of the rows that are read.
        found = stored_rows(given).take(np.arange(0, 2**13, 128))
        np.testing.assert_array_equal(found, given[::128])
        assert _resident_kib(str(path)) > 100
        stored_rows(given).take(np.arange(0, 2**13, 128))
        assert _resident_kib(str(path)) < 100


def _resident_kib(path):
    """Resident memory of the mapping of a file."""
    with open("/proc/self/smaps") as file:
        lines = iter(file)
        for line in lines:
            if line.rstrip().endswith(path):
                return next(int(x.split()[1]) for x in lines if x.startswith("Rss:"))
    raise AssertionError("the file is not mapped")


def test_changes_of_a_mapped_array_are_not_lost(tmp_path, windows):
    X = some_rows()
    np.save(tmp_path / "rows.npy", X)
    given = np.load(tmp_path / "rows.npy", mmap_mode="r+")
    given[3] = 7.0
    small().fit(given)
    assert (given[3] == 7.0).all()
    private = np.load(tmp_path / "rows.npy", mmap_mode="c")
    private[4] = 8.0
    assert stored_rows(private) is None
    small().fit(private)
    assert (private[4] == 8.0).all()


def test_views_of_mapped_arrays(tmp_path, windows):
    X = some_rows()
    given = as_memmap(X, tmp_path)
    for view in (given[20:280:2], given[::-1], given[:, 1:4], np.asarray(given)[:, ::-1]):
        rows = stored_rows(view) or StoredRows(ArrayReader(view, "a test"))
        np.testing.assert_array_equal(rows.toarray(), view)
        np.testing.assert_array_equal(rows[5:90:3].toarray(), view[5:90:3])
        np.testing.assert_array_equal(rows[[7, 2, 99]].toarray(), view[[7, 2, 99]])


def test_sparse_windows(tmp_path, windows):
    X = sparse.random_array((N_ROWS, N_COLUMNS), density=0.3, format="csr", rng=0)
    given = write_anndata(sparse.csr_matrix(X), tmp_path / "a.h5ad")
    rows = stored_rows(given.X)
    assert not rows.is_small
    assert isinstance(rows.rows_in_memory(), SparseRows)
    view = Subset(dataset_of(rows), None)
    batches = torch.cat([b.x for b in Loader(view, 16, torch.Generator().manual_seed(0))])
    sort = [np.lexsort(values.T) for values in (batches.numpy(), X.toarray())]
    np.testing.assert_allclose(batches.numpy()[sort[0]], X.toarray()[sort[1]], rtol=1e-6)


# ------------------------------------------------------------------- errors and threads


def no_reader():
    return not [t for t in threading.enumerate() if t.name == "skae-reader"]


class Breaks(ArrayReader):
    """Fails after some reads."""

    def __init__(self, X, after, error):
        super().__init__(X, "a test")
        self.left, self.error = after, error

    def read(self, start, stop):
        self.left -= 1
        if self.left < 0:
            raise self.error
        return super().read(start, stop)


@pytest.mark.parametrize("after", [0, 30, 60, 100])
def test_errors_of_reading_are_raised_and_leave_nothing(after, windows):
    model = small(init="random").fit(some_rows())
    before = weights_of(model)
    with pytest.raises(OSError, match="the disk"):
        model.fit(StoredRows(Breaks(some_rows(), after, OSError("the disk"))))
    assert no_reader()
    for name, weight in weights_of(model).items():
        np.testing.assert_array_equal(weight, before[name])


class Raises(Callback):
    def __init__(self, error):
        self.error = error

    def on_batch_end(self, net, batch=None, training=False, **kwargs):
        raise self.error


@pytest.mark.parametrize("error", [RuntimeError("mine"), KeyboardInterrupt()])
def test_threads_end_with_an_error(error, tmp_path, windows):
    held = []
    with pytest.raises(type(error)) as caught:
        small(callbacks=[Raises(error)]).fit(as_hdf5(some_rows(), tmp_path))
    held.append(caught)  # the traceback keeps the frames of the loop
    assert no_reader()


def test_threads_end_while_batches_are_held(tmp_path, windows):
    view = Subset(dataset_of(stored_rows(as_hdf5(some_rows(), tmp_path))), None)
    batches = iter(Loader(view, 16, torch.Generator().manual_seed(0)))
    next(batches)
    assert not no_reader()
    view.close()
    assert no_reader()
    batches.close()


class StopsAt(Callback):
    def __init__(self, epoch):
        self.epoch = epoch

    def on_epoch_end(self, net, **kwargs):
        if len(net.history) == self.epoch:
            raise RuntimeError("killed")


def test_checkpoints_resume_bit_for_bit(tmp_path, windows):
    given = as_hdf5(some_rows(), tmp_path, chunks=(8, 6))
    params = {"max_iter": 4, "checkpoint_dir": str(tmp_path / "kept")}
    expected = small(max_iter=4).fit(given)
    model = small(callbacks=[StopsAt(3)], **params)
    with pytest.raises(RuntimeError, match="killed"):
        model.fit(given)
    assert list((tmp_path / "kept").glob("*.npz"))
    again = small(callbacks=[StopsAt(9)], **params)
    resumed = small(**params).fit(given)
    assert_equal_weights(resumed, expected)
    del again
    with h5py.File(tmp_path / "other.h5", "w") as file:
        X = some_rows()
        X[123, 2] += 1
        other = file.create_dataset("x", data=X, chunks=(8, 6))
        n_files = len(list((tmp_path / "kept").glob("*.npz")))
        small(**params).fit(other)
        assert len(list((tmp_path / "kept").glob("*.npz"))) > n_files


class Stream(IterableDataset):
    def __iter__(self):
        yield torch.zeros(3)


class Ragged(torch.utils.data.Dataset):
    def __len__(self):
        return 20

    def __getitem__(self, i):
        return torch.zeros(3 + (i == 11))


def wrong_inputs(path):
    anndata = pytest.importorskip("anndata")
    file = h5py.File(path / "w.h5", "w")
    file["flat"], file["images"] = np.zeros(5), np.zeros((5, 2, 2))
    file["text"] = np.array([[b"a", b"b"]] * 5)
    file["empty"] = np.zeros((0, 3))
    file["infinite"] = np.where(np.eye(30) > 0, np.inf, 0.0)
    group = zarr.create_group(path / "w.zarr")
    group.create_array("flat", data=np.zeros(5))
    pa.parquet.write_table(pa.table({"a": [1.0, 2.0], "word": ["x", "y"]}), path / "w.parquet")
    closed = h5py.File(path / "c.h5", "w")
    gone = closed.create_dataset("x", data=np.zeros((5, 2)))
    closed.close()
    csc = sparse.csc_matrix(np.eye(6))
    frame = pd.DataFrame({"a": [1.0, 2.0], "when": pd.to_datetime(["2020", "2021"])})
    adata = write_anndata(sparse.csr_matrix(np.eye(6)), path / "v.h5ad")
    return {
        "1-d": (file["flat"], ValueError, r"an HDF5 dataset of shape \(5,\); expected two"),
        "3-d": (file["images"], ValueError, r"of shape \(5, 2, 2\); expected two dim"),
        "text": (file["text"], ValueError, "an HDF5 dataset with values of type"),
        "empty": (file["empty"], ValueError, r"0 sample\(s\)"),
        "infinite": (file["infinite"], ValueError, "Input X contains infinity"),
        "file": (file, TypeError, "a file of h5py; allowed is a dataset.*'empty', 'flat'"),
        "group": (file.create_group("g"), TypeError, "a group of h5py"),
        "closed": (gone, ValueError, "dataset of a closed file"),
        "zarr group": (group, TypeError, r"a group of zarr.*'flat'"),
        "zarr 1-d": (group["flat"], ValueError, r"a Zarr array of shape \(5,\)"),
        "parquet": (pa.dataset.dataset(path / "w.parquet"), ValueError, "column 'word' has"),
        "filtered": (
            pa.dataset.dataset(path / "w.parquet").filter(pa.dataset.field("a") > 1),
            ValueError,
            "filtered data set of pyarrow",
        ),
        "stream": (Stream(), TypeError, "IterableDataset of torch.*partial_fit"),
        "loader": (DataLoader(TensorDataset(torch.zeros(5, 2))), TypeError, "X.dataset"),
        "ragged": (Ragged(), ValueError, "item 0 has 3 values, and item 11 has 4"),
        "images": (TensorDataset(torch.zeros(5, 2, 2)), ValueError, r"item 0 has shape \(2, 2\)"),
        "csc": (write_anndata(csc, path / "csc.h5ad").X, TypeError, "in the format CSC"),
        "view": (adata[:3], TypeError, "a view of an AnnData object in a file"),
        "no X": (anndata.AnnData(obs=pd.DataFrame(index=["a"])), ValueError, "without X"),
        "dask dates": (dd.from_pandas(frame, npartitions=1), TypeError, "'when', has dates"),
        "dask 1-d": (da.zeros(5), ValueError, r"an array of dask of shape \(5,\)"),
    }


@pytest.mark.filterwarnings("ignore:Variable names are not unique")
def test_wrong_input(tmp_path):
    for which, (given, kind, message) in wrong_inputs(tmp_path).items():
        model = small()
        with pytest.raises(kind, match=f"(?s){message}"):
            model.fit(given)
        assert not hasattr(model, "n_features_in_"), which


def test_what_cannot_be_read_in_parts_is_refused(tmp_path, windows):
    given = as_hdf5(some_rows(), tmp_path)
    with pytest.raises(TypeError, match="with one likelihood for all columns only"):
        small(likelihood="auto").fit(given)
    with pytest.raises(ValueError, match="solver='lbfgs'"):
        small(solver="lbfgs").fit(given)


def test_names_are_compared(tmp_path, windows):
    X = some_rows()
    model = small().fit(as_parquet(X, tmp_path))
    other = pd.DataFrame(X, columns=NAMES[::-1])
    with pytest.raises(ValueError, match="feature names should match"):
        model.transform(dd.from_pandas(other, npartitions=2))
    with pytest.raises(ValueError, match="X has 5 features"):
        small().fit(X).transform(da.from_array(X[:, :5]))


def test_files_stay_as_they_were(tmp_path, windows):
    given = as_hdf5(some_rows(), tmp_path)
    small().fit(given)
    assert given.file.mode == "r+"
    assert given.id.valid
    np.testing.assert_array_equal(given[:], some_rows())


def test_held_out_rows_are_kept_if_they_are_few(tmp_path, windows, monkeypatch):
    rows = dataset_of(stored_rows(as_hdf5(some_rows(), tmp_path)))
    index = torch.tensor([200, 5, 17])
    view = Subset.held_out(rows, index)
    assert not view.rows.is_streamed
    (batch,) = Loader(view, 16, None)
    np.testing.assert_array_equal(batch.x.numpy(), some_rows()[index])
    monkeypatch.setattr(loader, "_KEPT_BYTES", 0)
    view = Subset.held_out(rows, index)
    assert view.rows is rows
    (batch,) = Loader(view, 16, None)
    np.testing.assert_array_equal(batch.x.numpy(), some_rows()[index])


# ------------------------------------------------------------------- what surprised a reader


class Kinds(torch.utils.data.Dataset):
    """Items of different types."""

    def __init__(self, first, others):
        self.first, self.others = first, others

    def __len__(self):
        return 30

    def __getitem__(self, i):
        return np.array([i, 1], dtype=self.others if i else self.first)


@pytest.mark.parametrize(
    ("first", "others"), [("int64", "float32"), ("uint8", "int64"), ("float32", "float64")]
)
def test_items_that_the_type_of_the_first_cannot_represent_are_refused(first, others):
    told = f"item 0 has values of type {first}.*item 1, of type {others}"
    with pytest.raises(TypeError, match=told):
        small().fit(Kinds(first, others))


@pytest.mark.parametrize("index", [[3, 3, 5], [3, 3, 4], [5, 5, 7, 7], [-1, 0, 4, 4], [9, 2, 9]])
def test_rows_may_be_selected_repeatedly(index, windows):
    X = some_rows()
    rows = stored_rows(Items(X))
    np.testing.assert_array_equal(rows[index].toarray(), X[index])
    np.testing.assert_array_equal(rows[10:20][index].toarray(), X[10:20][index])
    with pytest.raises(IndexError, match="from -10 to 9"):
        rows[10:20][[10]]


def test_windows_have_bounded_memory_if_groups_differ_in_size(tmp_path, windows):
    sizes = [48, 2, 2, 2, 48, 1, 1, 1, 48, 5, 30]
    X = some_rows(n=sum(sizes))
    with pa.parquet.ParquetWriter(tmp_path / "x.parquet", pa.table({"a": X[:, 0]}).schema) as file:
        for start, stop in itertools.pairwise(np.cumsum([0, *sizes])):
            file.write_table(pa.table({"a": X[start:stop, 0]}))
    rows = stored_rows(pa.parquet.ParquetFile(tmp_path / "x.parquet"))
    limit = limits.WINDOW_BYTES / rows.row_bytes
    found = Shuffle(rows, None).windows(torch.Generator().manual_seed(0))
    assert max(map(len, found)) <= max(limit, 48)
    assert sorted(np.concatenate(found)) == list(range(sum(sizes)))


def test_an_index_that_pandas_stored_is_no_feature(tmp_path):
    frame = pd.DataFrame(some_rows(), columns=NAMES).sample(frac=1.0, random_state=0)
    frame.to_parquet(tmp_path / "x.parquet")
    model = small().fit(pa.parquet.ParquetFile(tmp_path / "x.parquet"))
    assert list(model.feature_names_in_) == NAMES
    assert_equal_weights(model, small().fit(frame))


def test_rows_with_names_are_copied(tmp_path):
    rows = stored_rows(write_anndata(some_rows(), tmp_path / "rows.h5ad").to_memory())
    again = copy.deepcopy(rows.without_names())
    np.testing.assert_array_equal(again.toarray(), rows.toarray())


@pytest.mark.parametrize("container", ["Parquet data set", "AnnData", "Dataset"])
def test_linear_models_name_what_they_cannot_read(container, tmp_path):
    given, _ = in_container(container, tmp_path, some_rows())
    with pytest.raises(TypeError, match=r"X is .*, which LinearAE cannot read.*partial_fit"):
        LinearAE(2).fit(given)
    with pytest.raises(TypeError, match=r"X is .*, which PPCA cannot read"):
        PPCA(2).fit(given)
