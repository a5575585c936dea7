"""A VAE on sparse counts: the time of a batch, the memory of a fit, and a sparse first layer.

    OMP_NUM_THREADS=1 python benchmarks/sparse_rows.py
    OMP_NUM_THREADS=1 python benchmarks/sparse_rows.py --rows 2000 --dense-rows 2000

The rows are Poisson counts from 10 groups, of which 2 % are not 0, float32 in the format CSR. The
model is VAE(10, hidden_layer_sizes=(100,), likelihood="poisson") with batches of 128 rows. Three
parts:

1. The time of `fit` with one epoch on all rows as CSR, and the memory by which it raises the peak
   of the process, beside the size of the CSR matrix and of a dense one.
2. The time of a training batch if the rows are CSR, if they are an array of float32, and if they
   are an array that was converted to the input of the network beforehand. All three train on the
   first `--dense-rows` rows; the ratios are those of medians of rounds that take turns. All rows
   as CSR are timed as well.
3. A first layer of 100 units, forward and backward (the gradient of its weights), for one batch: a
   product of torch's CSR tensor and the weights, and a product of the batch that is made dense from
   CSR first. The CSR tensor and its transpose are made from the rows within the time as well as
   beforehand.

Measured figures: docs/benchmarks.md.
"""

import argparse
import time

import numpy as np
import torch
from _common import added_to_peak, alternate, describe_machine
from scipy import sparse, stats

from skae import VAE
from skae._training import data
from skae._training.data import Data
from skae._training.sources import source_of
from skae._utils.sparse_rows import SparseRows

BATCH, HIDDEN = 128, 100
MB = 2**20


def poisson_counts(n_rows: int, n_columns: int, density: float) -> sparse.csr_array:
    """Poisson counts of rows from 10 groups, each with its own half of frequent columns."""
    rng = np.random.default_rng(0)
    shares = density * np.array([0.2, 1.8])  # of counts that are not 0, in the two kinds of columns
    steps = [stats.poisson.cdf(np.arange(20), -np.log1p(-share)) for share in shares]
    is_frequent = rng.random((10, n_columns)) < 0.5
    parts = []
    for start in range(0, n_rows, 1000):
        n = min(1000, n_rows - start)
        group = rng.integers(10, size=n)
        # The gaps between places of equal probability are geometric; then some are left out.
        expected = n * n_columns * shares[1]
        gaps = rng.geometric(shares[1], int(expected + 10 * np.sqrt(expected)) + 100)
        row, column = np.divmod(gaps.cumsum() - 1, n_columns)
        row, column = row[row < n], column[row < n]
        kind = is_frequent[group[row], column].astype(int)
        stays = rng.random(len(row)) * shares[1] < shares[kind]
        row, column, kind = row[stays], column[stays].astype(np.int32), kind[stays]
        above = rng.uniform(1 - shares[kind], 1.0)
        counts = np.where(kind, *(np.searchsorted(s, above).clip(1) for s in steps[::-1]))
        starts = np.searchsorted(row, np.arange(n + 1))
        parts.append(sparse.csr_array((counts.astype("float32"), column, starts), (n, n_columns)))
    return sparse.vstack(parts, format="csr")


def n_bytes(X: sparse.csr_array) -> int:
    return sum(part.nbytes for part in (X.data, X.indices, X.indptr))


def model(**params: object) -> VAE:
    given = {"likelihood": "poisson", "batch_size": BATCH, "device": "cpu", "random_state": 0}
    return VAE(10, hidden_layer_sizes=(HIDDEN,), **(given | params))


def time_batches(X: sparse.csr_array, n_dense: int, rounds: int) -> None:
    few = X[:n_dense]
    fitted = model(max_iter=1, init="random").fit(few)
    array = few.toarray()
    rows = {
        "CSR": fitted._dataset(Data(SparseRows(few))),
        "an array": fitted._dataset(Data(array)),
    }
    data._KEEP_BYTES = array.nbytes
    rows["an array, converted beforehand"] = fitted._dataset(Data(array), reread=True)
    assert [part.n_kept > 0 for part in rows.values()] == [False, False, True]
    epochs = {
        name: lambda part=part: fitted._trainer.partial_fit(part) for name, part in rows.items()
    }
    found = alternate(epochs, rounds)
    n_batches = -(-n_dense // BATCH)
    for name, seconds in found.items():
        print(
            f"{name:32s} {1e3 * seconds / n_batches:7.2f} ms a batch; "
            f"CSR takes {found['CSR'] / seconds:.3f} times as long"
        )
    if n_dense < X.shape[0]:
        everything = fitted._dataset(Data(SparseRows(X)))
        start = time.perf_counter()
        fitted._trainer.partial_fit(everything)
        seconds = time.perf_counter() - start
        each = 1e3 * seconds / -(-X.shape[0] // BATCH)
        print(f"all {X.shape[0]} rows as CSR            {each:7.2f} ms a batch, {seconds:.1f} s")


def measure_fit(X: sparse.csr_array) -> None:
    seconds = []

    def fit() -> None:
        start = time.perf_counter()
        model(max_iter=1).fit(X)
        seconds.append(time.perf_counter() - start)

    kept = data._KEEP_BYTES
    model(max_iter=1).fit(X[:BATCH])  # loads what the first fit of a process loads
    added = added_to_peak(fit)
    dense = 4 * X.shape[0] * X.shape[1]
    print(
        f"fit with one epoch: {seconds[0]:.1f} s, {added:.0f} MB above the data of "
        f"{n_bytes(X) / MB:.0f} MB (rows are kept as float32 below {kept / MB:.0f} MB; dense rows "
        f"would be {dense / MB:.0f} MB)"
    )


def time_first_layer(X: sparse.csr_array, rounds: int) -> None:
    batch = X[:BATCH]
    source = source_of(SparseRows(batch))
    index = torch.arange(len(source))
    weight = torch.randn(X.shape[1], HIDDEN) / HIDDEN
    slope = torch.randn(BATCH, HIDDEN)

    def tensor_of(rows: sparse.csr_array) -> torch.Tensor:
        parts = (torch.from_numpy(a) for a in (rows.indptr, rows.indices, rows.data))
        return torch.sparse_csr_tensor(*parts, size=rows.shape, check_invariants=False)

    def by_dense() -> tuple[torch.Tensor, torch.Tensor]:
        x = source.index_select(0, index)
        return x @ weight, x.T @ slope

    def by_sparse() -> tuple[torch.Tensor, torch.Tensor]:
        return tensor_of(batch) @ weight, tensor_of(batch.T.tocsr()) @ slope

    ready, transposed, dense = (
        tensor_of(batch),
        tensor_of(batch.T.tocsr()),
        torch.tensor(batch.toarray()),
    )
    work = {
        "dense from CSR, and dense products": by_dense,
        "dense products alone": lambda: (dense @ weight, dense.T @ slope),
        "CSR tensors, and sparse products": by_sparse,
        "sparse products alone": lambda: (ready @ weight, transposed @ slope),
        "making the batch dense alone": lambda: source.index_select(0, index),
    }
    for name in list(work)[1:4]:
        for found, expected in zip(work[name](), by_dense(), strict=True):
            torch.testing.assert_close(found, expected, rtol=1e-3, atol=1e-3)
    found = alternate(work, 10 * rounds)
    for name, seconds in found.items():
        print(f"{name:36s} {1e3 * seconds:7.2f} ms")


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("--rows", type=int, default=100_000)
    parser.add_argument("--columns", type=int, default=20_000)
    parser.add_argument("--density", type=float, default=0.02)
    parser.add_argument("--dense-rows", type=int, default=5_000)
    parser.add_argument("--rounds", type=int, default=5)
    given = parser.parse_args()
    print(describe_machine("torch"), f"{torch.get_num_threads()} threads", sep=", ")
    X = poisson_counts(given.rows, given.columns, given.density)
    share = X.nnz / (X.shape[0] * X.shape[1])
    print(
        f"{X.shape[0]} x {X.shape[1]} counts, {100 * share:.2f} % not 0, {n_bytes(X) / MB:.0f} MB"
    )
    measure_fit(X)  # first: afterwards the process holds memory that a fit could use
    time_batches(X, min(given.dense_rows, given.rows), given.rounds)
    time_first_layer(X, given.rounds)


if __name__ == "__main__":
    main()
