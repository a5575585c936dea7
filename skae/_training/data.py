"""Rows as batches of a network: checked in chunks, standardised, and selected by index.

A batch is made by one `index_select`, never by a Python loop over samples. Small data are converted
to float32 once. Large data stay in their own type, in memory or on disk, and are converted batch by
batch. Batches of sparse rows are dense.
"""

from collections.abc import Callable, Hashable, Iterator
from typing import Any, NamedTuple, cast

import numpy as np
import torch
from numpy.typing import NDArray
from sklearn.utils import assert_all_finite
from torch import Tensor

from skae._training.columns import Columns
from skae._training.device_memory import on_device
from skae._training.ranks import Part
from skae._training.reading import CountReading
from skae._training.sources import Source, StoredTensor, is_mapped, source_of
from skae._training.sparse_rows import SparseTensor
from skae._training.threads import threads_for
from skae._training.units import SMALL, Units, in_float32
from skae._utils.sparse_rows import Rows, SparseRows
from skae._utils.stored_rows import StoredRows

# Rows are checked and converted in pieces of about this many bytes.
_CHUNK_BYTES = 32 * 2**20
# Pieces that are read several times are smaller, so that they stay in the cache of one core.
_CACHED_BYTES = 2 * 2**20
# Training rows are converted once if they take at most this many bytes as float32. Integers and
# files, whose float32 copy would be larger than they are, are only converted once if they are much
# smaller.
_KEEP_BYTES = 64 * 2**20
_KEEP_BYTES_OF_COMPACT = 16 * 2**20
# Number of rows that go through a module at once in evaluation mode, unless the caller says
# otherwise.
WHOLE = 1024
# Weights below this fraction of the largest weight are set to 0: float32 cannot add them to it.
LEAST_WEIGHT = 2.0**-100
# What an encoder reads of rows before standardisation.
Reading = Callable[[Tensor], Tensor]


class Data(NamedTuple):
    """Validated rows, their weights, and the conditions of a conditional model."""

    X: Rows
    weight: NDArray[Any] | None = None
    condition: NDArray[np.float32] | None = None  # (n_rows, n_conditions)

    def some(self, most: int, seed: int) -> "Data":
        """Return at most this many of the rows, chosen at random."""
        if len(self.X) <= most:
            return self
        index = some_of(len(self.X), most, seed).numpy()
        weight, condition = (None if a is None else a[index] for a in self[1:])
        return Data(self.X[index], weight, condition)


class Batch(NamedTuple):
    """Input of a module; fields with a default are None if they are not needed."""

    x: Tensor  # input of the encoder, (n, n_features), or twice as many columns with a mask
    y: Tensor  # values that the decoder must explain, (n, n_features)
    seen: Tensor | None = None  # 1 where a value is observed, 0 where it is missing
    weight: Tensor | None = None  # (n,)
    condition: Tensor | None = None  # input of the decoder beside the codes
    gate: Tensor | None = None  # factor of the codes
    draws: Tensor | None = None  # random numbers for the loss
    part: Part | None = None  # if the rows are a part of a batch of several processes

    def drawn(self, draw: Callable[[int], Tensor]) -> Tensor:
        """Return random numbers for these rows, drawn for all rows of the batch by `draw`."""
        if self.part is None:
            return draw(len(self.x))
        return draw(self.part.n_rows)[self.part.rows]


class Spread(NamedTuple):
    """Mean, variance, minimum and maximum of the observed values of each column, in float64."""

    mean: Tensor
    variance: Tensor
    low: Tensor
    high: Tensor
    any_missing: bool


def some_of(n_rows: int, most: int, seed: int) -> Tensor:
    """Return indices of at most `most` rows, chosen at random because rows may be periodic."""
    if n_rows <= most:
        return torch.arange(n_rows)
    order = torch.randperm(n_rows, generator=torch.Generator().manual_seed(seed))
    return order[:most].sort().values


def chunks(n_rows: int, row_bytes: int, *, cached: bool = False) -> Iterator[slice]:
    """Yield slices of rows, small enough for one pass, or to stay in the cache (`cached`)."""
    step = max(1, (_CACHED_BYTES if cached else _CHUNK_BYTES) // max(1, row_bytes))
    for start in range(0, n_rows, step):
        yield slice(start, min(start + step, n_rows))


def check_finite(X: Rows | StoredRows, allow_nan: bool) -> None:
    """Raise scikit-learn's error for infinite values, and for NaN unless it is allowed.

    Of stored rows, whose values are checked when they are read, the moments are computed, too.
    """
    if isinstance(X, StoredRows):
        if not X.is_checked:
            spread_of(X, None)
        return
    if isinstance(X, SparseRows):
        X = X.values[:, None]
    if X.dtype.kind == "f":
        for rows in chunks(len(X), X.shape[1] * X.itemsize):
            with np.errstate(over="ignore", invalid="ignore"):
                if not np.isfinite(X[rows].sum(dtype=np.float64)):
                    assert_all_finite(X[rows], allow_nan=allow_nan, input_name="X")


def without_lost_weights(weight: NDArray[Any] | None) -> NDArray[Any] | None:
    """Return the weights, with 0 for weights that float32 loses in a sum with the largest."""
    if weight is None or not weight.size:
        return weight
    return np.where(weight < LEAST_WEIGHT * weight.max(), 0.0, weight)


@threads_for(0)
def spread_of(
    X: Rows | StoredRows,
    weight: NDArray[Any] | None,
    columns: Columns | None = None,
    reading: Reading | None = None,
) -> Spread:
    """Return moments and range of the columns, in one pass over chunks (Chan et al. 1983).

    For a table they describe the columns of the network, in the units of the table. With a
    `reading`, they describe rows as the encoder reads them before standardisation. One thread
    computes them: most of the time goes into reading, and several threads would wait for each
    other in each chunk.
    """
    is_plain = columns is None and reading is None
    if isinstance(X, StoredRows) and weight is None and is_plain and X.spread is not None:
        return cast(Spread, X.spread)
    source = source_of(X)
    n_features = source.shape[1] if columns is None else columns.width
    count = torch.zeros(n_features, dtype=torch.float64)
    mean, scatter = torch.zeros_like(count), torch.zeros_like(count)
    low, high = torch.full_like(count, torch.inf), torch.full_like(count, -torch.inf)
    any_missing = False
    for rows in chunks(len(source), n_features * 8, cached=True):
        x = source[rows].double()
        x = x if columns is None else columns.expand(x)
        x = x if reading is None else reading(x).double()
        w = torch.ones(len(x), dtype=torch.float64)
        if weight is not None:
            w = torch.as_tensor(np.asarray(weight[rows], dtype=np.float64))
        missing = x.isnan() if source.dtype.is_floating_point else None
        if missing is not None and missing.any():
            any_missing = True
            w = torch.where(missing, 0.0, w[:, None])
            low = torch.minimum(low, x.nan_to_num(torch.inf).amin(0))
            high = torch.maximum(high, x.nan_to_num(-torch.inf).amax(0))
            x = x.nan_to_num(0.0)
            n = w.sum(0)
            chunk_mean = (w * x).sum(0) / n.clamp(min=1e-300)
            chunk_scatter = (w * (x - chunk_mean).square()).sum(0)
        else:
            low, high = torch.minimum(low, x.amin(0)), torch.maximum(high, x.amax(0))
            n = w.sum().expand(n_features)
            chunk_mean = w @ x / w.sum()
            chunk_scatter = w @ (x - chunk_mean).square()
        total = (count + n).clamp(min=1e-300)
        step = chunk_mean - mean
        mean = mean + step * n / total
        scatter = scatter + chunk_scatter + step.square() * count * n / total
        count = count + n
    unseen = count == 0  # such a column has no observed value, and is not standardised
    low, high = low.masked_fill(unseen, 0.0), high.masked_fill(unseen, 0.0)
    found = Spread(mean, scatter / count.clamp(min=1e-300), low, high, any_missing)
    if isinstance(X, StoredRows) and is_plain:
        X.is_checked, X.any_missing = True, any_missing
        X.spread = found if weight is None else X.spread
    return found


def batch_of_rows(
    values: Tensor,
    units: Units,
    columns: Columns | None,
    *,
    reading: Reading | None = None,
    with_mask: bool,
    may_miss: bool,
    near: bool = False,
) -> Batch:
    """Return rows in the units of the data as input of a module.

    The arguments are those of `Dataset`; `may_miss` says whether values may be NaN.
    """
    values = values if columns is None else columns.expand(values)
    seen = None
    if may_miss:
        missing = values.isnan()
        seen = (~missing).float()
    inputs, targets = units
    beside = None
    if inputs is None:
        y = in_float32(values, near=near)
        x = y.clone()  # your own network may write to its input
    else:
        read = values
        if isinstance(reading, CountReading):
            read, beside = reading.read(values)
        elif reading is not None:
            read = reading(values)
        x = y = inputs.apply(read, near)
    if targets is not inputs:
        y = in_float32(values, near=near) if targets is None else targets.apply(values, near)
    if seen is not None:
        x = x.masked_fill(missing, 0.0)
        y = y.masked_fill(missing, 0.0)
    if with_mask:
        mask = torch.ones_like(y) if seen is None else seen
        x = torch.cat([x, mask if columns is None else columns.first(mask)], dim=1)
    if beside is not None:
        x = torch.cat([x, beside], dim=1)
    return Batch(x, y, seen)


class Dataset:
    """Validated rows from which batches of a network are made.

    Parameters
    ----------
    data : Data
        Rows of any real type, in which NaN marks a missing value, with weights and conditions.
    units : Units
        Units of the encoder's input and of the decoder's output.
    with_mask : bool
        Whether the encoder also reads a mask of the observed values.
    reread : bool
        Whether batches will be asked for many times.
    device : torch.device
        Device of the batches.
    near : bool, default=False
        Whether all values are known to be so small that float32 can square them. They are then not
        clipped.
    columns : Columns, default=None
        How the network's columns are made from those of a table; None for data that are not a
        table.
    reading : callable, default=None
        What the encoder reads of rows before standardisation, such as logarithms of counts.
    """

    def __init__(
        self,
        data: Data,
        *,
        units: Units,
        with_mask: bool,
        reread: bool,
        device: torch.device,
        near: bool = False,
        columns: Columns | None = None,
        reading: Reading | None = None,
    ) -> None:
        inputs = None if units.inputs is None else units.inputs.to(device)
        targets = None if units.targets is None else units.targets.to(device)
        if units.targets is units.inputs:
            targets = inputs  # so that one conversion serves both
        self.units, self.with_mask = Units(inputs, targets), with_mask
        self.device, self.data, self._near = device, data, near
        self._columns, self._reading = columns, reading
        X: Any = data.X
        if isinstance(X, StoredRows) and X.is_small:
            X = X.rows_in_memory()
            data = self.data = data._replace(X=X)
        # Rows that are shuffled in windows, also if a device has room for all of them.
        self.stored = X if isinstance(X, StoredRows) else None
        # The weights and conditions of all rows are kept on the device.
        self.weight, self.condition = (
            None if a is None else torch.as_tensor(np.asarray(a, dtype=np.float32)).to(device)
            for a in data[1:]
        )
        self._kept: Batch | None = None
        self._source = source_of(X)
        if device.type == "mps" and self._source.dtype not in SMALL:
            self._source = self._source.float()
        self._shape = tuple(X.shape)
        # NaN is searched for once, because most data have none, and their batches need no mask.
        if self.stored is not None and reread:
            check_finite(self.stored, allow_nan=True)
        self._may_miss = self._source.dtype.is_floating_point and _has_nan(self._source)
        self._is_known = self.stored is None or self.stored.any_missing is not None
        # Making sparse rows dense takes longer than a conversion, and they are kept like floats.
        compact = not isinstance(X, SparseRows) and (X.dtype.kind != "f" or is_mapped(X))
        limit = _KEEP_BYTES_OF_COMPACT if compact else _KEEP_BYTES
        if self.stored is None and reread and 4 * len(X) * self._width <= limit:
            self._kept = self._keep()
        elif device.type != "cpu":
            self._source = on_device(self._source, device)

    def __len__(self) -> int:
        return self._shape[0]

    @property
    def _width(self) -> int:
        """Number of columns that the decoder explains."""
        return self._shape[1] if self._columns is None else self._columns.width

    @property
    def may_miss(self) -> bool:
        """Whether batches have a mask of observed values."""
        return self._may_miss

    @property
    def n_kept(self) -> int:
        """Number of converted values that are kept in memory."""
        return 0 if self._kept is None else self._kept.x.numel()

    def identity(self) -> Hashable:
        """Return a key that is equal only for data sets which are known to make equal batches."""
        X, (weight, condition) = self.data.X, self.data[1:]
        beside = (weight, condition, self._columns, self.stored)
        if any(part is not None for part in beside):
            return id(self)
        units = tuple(
            None if u is None else (u.scale, u.center.cpu().numpy().tobytes()) for u in self.units
        )
        if isinstance(X, SparseRows):
            place = X.place()
        else:
            place = (X.__array_interface__["data"][0], X.strides, X.shape, X.dtype.str)
        return (place, units, self.with_mask, self._near, str(self.device), self._reading)

    @property
    def index_device(self) -> torch.device:
        """Device on which an index of rows must be."""
        return self._source.device if self._kept is None else self._kept.x.device

    def batch(self, rows: Tensor | slice) -> Batch:
        """Return the batch of the rows given by an index tensor or a slice."""
        beside = (self.weight, self.condition)
        weight, condition = (None if t is None else _take(t, rows) for t in beside)
        if self._kept is not None:
            x, y, seen = (None if t is None else _take(t, rows) for t in self._kept[:3])
            if self._kept.x is self._kept.y:
                y = x
            elif isinstance(rows, slice) and self.units.inputs is None:
                x = x.clone()  # type: ignore[union-attr]  # your own network may write to it
            return Batch(x, y, seen, weight, condition)  # type: ignore[arg-type]
        return self._batch_of_values(_take(self._source, rows), weight, condition)

    def _batch_of_values(self, values: Tensor, weight: Any, condition: Any) -> Batch:
        if values.device.type != self.device.type:
            if self.device.type == "cuda":
                values = values.pin_memory()
            values = values.to(self.device, non_blocking=True)
        return self._convert(values)._replace(weight=weight, condition=condition)

    def batch_of_stored(self, values: Tensor, rows: Tensor) -> Batch:
        """Return the batch of the rows of an index, which have been read."""
        beside = (self.weight, self.condition)
        weight, condition = (None if t is None else _take(t, rows) for t in beside)
        return self._batch_of_values(values, weight, condition)

    @property
    def is_streamed(self) -> bool:
        """Whether rows are read for each batch."""
        return isinstance(self._source, StoredTensor)

    def in_order(self, index: Tensor) -> Tensor:
        """Return an index in increasing order if rows are stored, because they are read so."""
        return index if self.stored is None else index.sort().values

    def taken(self, index: Tensor) -> "Dataset":
        """Return a data set of some of the rows."""
        chosen = index.cpu().numpy()
        return Dataset(
            Data(*(None if a is None else a[chosen] for a in self.data)),  # type: ignore[arg-type]
            units=self.units,
            with_mask=self.with_mask,
            reread=True,
            device=self.device,
            near=self._near,
            columns=self._columns,
            reading=self._reading,
        )

    def batch_of(self, values: Tensor) -> Batch:
        """Return a batch of other rows in the units of the data, without weights."""
        if self.condition is not None:
            raise ValueError("A conditional model needs conditions, and these rows have none.")
        return self._convert(values.to(self.device), near=False)

    def _convert(self, values: Tensor, near: bool | None = None) -> Batch:
        return batch_of_rows(
            values,
            self.units,
            self._columns,
            reading=self._reading,
            with_mask=self.with_mask,
            may_miss=self._may_miss and (self._is_known or bool(values.isnan().any())),
            near=self._near if near is None else near,
        )

    def _keep(self) -> Batch:
        """Convert all rows, in pieces, so that little additional memory is needed."""
        parts = [
            self._convert(self._source[rows].to(self.device))
            for rows in chunks(len(self), 8 * self._width)
        ]
        if len(parts) == 1:
            return parts[0]
        x = torch.cat([part.x for part in parts])
        y = x if parts[0].x is parts[0].y else torch.cat([part.y for part in parts])
        seen = torch.cat([cast(Tensor, part.seen) for part in parts]) if self._may_miss else None
        return Batch(x, y, seen)


def _has_nan(source: Source) -> bool:
    if isinstance(source, StoredTensor):
        return source.rows.any_missing is not False  # it is searched for in each batch
    if isinstance(source, SparseTensor):
        source = source.values[:, None]
    for rows in chunks(len(source), source.shape[1] * source.element_size()):
        part = source[rows]
        # the sum is fast, and finite if there is no NaN
        if not part.sum().isfinite() and part.isnan().any():
            return True
    return False


def _take(values: Source, rows: Tensor | slice) -> Tensor:
    if isinstance(rows, slice):
        return values[rows]
    return values.index_select(0, rows.to(values.device))
