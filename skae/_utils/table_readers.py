"""Readers of tables in parts: data sets of Parquet files, and the blocks of dask."""

import json
import sys
from abc import ABC, abstractmethod
from typing import Any

import numpy as np
from numpy.typing import NDArray
from scipy import sparse

from skae._utils.inputs import dates_error
from skae._utils.stored_rows import Index

Array = NDArray[Any]

# Type of integers with missing values.
_WITH_NULLS = np.dtype(np.float64)


def check_shape(shape: tuple[Any, ...], kind: str, name: str) -> None:
    """Raise if a container does not have two dimensions."""
    if len(shape) != 2:
        advice = (
            "Store each row in one dimension, of length channels * height * width for images."
            if len(shape) > 2
            else "Store one row for each sample."
        )
        raise ValueError(
            f"{name} is {kind} of shape {shape}; expected two dimensions, (n_samples, "
            f"n_features). {advice}"
        )


def check_dtype(dtype: Any, what: str) -> None:
    """Raise if values of a type are not numbers."""
    kind = getattr(dtype, "kind", None)
    if kind in ("m", "M"):
        raise dates_error(what, dtype)
    if kind not in ("b", "i", "u", "f"):
        raise ValueError(f"{what} with values of type {dtype}; allowed are real numbers.")


class GroupReader(ABC):
    """Reads rows that are stored in groups, of which each is read as a whole.

    The group that was read last is kept, because the next rows are often in it.

    Parameters
    ----------
    kind : str
        What the container is, for messages.
    sizes : list of int
        Number of rows of each group.
    dtype : dtype
        Type of the rows.
    names : list of str or None
        Names of the columns.
    n_columns : int
        Number of columns.
    """

    is_sparse = False
    edges: int | Index

    def __init__(
        self, kind: str, sizes: list[int], dtype: Any, names: list[str] | None, n_columns: int
    ) -> None:
        self.kind, self.dtype, self.names = kind, np.dtype(dtype).newbyteorder("="), names
        self.edges = self._edges = np.concatenate([[0], np.cumsum(sizes)]).astype(np.intp)
        self.shape = (int(self._edges[-1]), n_columns)
        self._last: tuple[int, Array | None] = (-1, None)

    @property
    def row_bytes(self) -> float:
        """Number of bytes of a row."""
        return float(self.shape[1] * self.dtype.itemsize)

    def read(self, start: int, stop: int) -> Array:
        """Return rows as an array."""
        parts = []
        first = int(np.searchsorted(self._edges, start, side="right")) - 1
        for group in range(first, len(self._edges) - 1):
            begin, end = int(self._edges[group]), int(self._edges[group + 1])
            if begin >= stop:
                break
            if end > begin:
                parts.append(self._group(group)[max(start, begin) - begin : stop - begin])
        return parts[0] if len(parts) == 1 else np.concatenate(parts)

    def _group(self, number: int) -> Array:
        last, rows = self._last
        if last != number or rows is None:
            self._last = (-1, None)  # so that its memory can be used again
            rows = self._rows_of(number)
            size = int(self._edges[number + 1] - self._edges[number])
            if rows.shape != (size, self.shape[1]):
                raise ValueError(
                    f"X is {self.kind}, of which part {number} had {size} rows of {self.shape[1]} "
                    f"columns, and now has the shape {rows.shape}. Its rows must not change during "
                    "a call."
                )
            self._last = (number, rows)
        return rows

    @abstractmethod
    def _rows_of(self, number: int) -> Array:
        """Return the rows of a group."""

    def release(self, start: int, stop: int) -> None:  # noqa: B027 (others release pages)
        """Rows are copies, which need no release."""

    def header(self) -> Any:
        """Return an array, or a data frame if columns have names, without rows."""
        return np.empty((0, self.shape[1]))

    def content(self) -> tuple[Any, ...]:
        """Return the names of the columns."""
        return (self.kind, self.names)


# --------------------------------------------------------------------------------------- Parquet


class ParquetReader(GroupReader):
    """Reads the row groups of Parquet files; fragments in other formats are read as a whole.

    Parameters
    ----------
    kind : str
        What the container is.
    schema : pyarrow.Schema
        Names and types of the columns.
    parts : list
        Pairs of a file or a fragment and of the number of a row group, which is None for a
        fragment that is read as a whole.
    sizes : list of int
        Number of rows of each part.
    has_nulls : dict
        Whether each column may have missing values.
    """

    def __init__(
        self, kind: str, schema: Any, parts: list[Any], sizes: list[int], has_nulls: dict[str, bool]
    ) -> None:
        schema = _without_index(schema)
        names = list(schema.names)
        if len(set(names)) < len(names):
            raise ValueError(f"X is {kind} with several columns of the same name. Rename them.")
        types = [_dtype_of(kind, field, has_nulls.get(field.name, True)) for field in schema]
        dtype = np.result_type(*types) if types else np.dtype(np.float64)
        self.schema, self.parts = schema, parts
        super().__init__(kind, sizes, dtype, names, len(names))

    def _rows_of(self, number: int) -> Array:
        part, group = self.parts[number]
        if hasattr(part, "read_row_group"):
            table = part.read_row_group(group, columns=self.names)
        else:
            part = part if group is None else part.subset(row_group_ids=[group])
            table = part.to_table(schema=self.schema, columns=self.names)
        rows = np.empty((table.num_rows, self.shape[1]), dtype=self.dtype)
        for j, name in enumerate(self.names or []):
            column = table.column(name)
            if column.null_count or str(column.type).startswith(("decimal", "null")):
                column = column.cast("float64" if str(column.type) != "float" else "float32")
            rows[:, j] = column.to_numpy()
        return rows

    def header(self) -> Any:
        """Return a table without rows."""
        pyarrow = sys.modules["pyarrow"]
        return pyarrow.table({name: pyarrow.array([], "float64") for name in self.names or []})


def _without_index(schema: Any) -> Any:
    """Return a schema without the columns in which pandas has stored an index without a name."""
    of_pandas = json.loads((schema.metadata or {}).get(b"pandas", b"{}"))
    stored = [name for name in of_pandas.get("index_columns", []) if isinstance(name, str)]
    for name in stored:
        if name.startswith("__index_level_") and name in schema.names:
            schema = schema.remove(schema.get_field_index(name))
    return schema


def _dtype_of(kind: str, field: Any, has_nulls: bool) -> np.dtype[Any]:
    """Return the type of a column as an array."""
    arrow = sys.modules["pyarrow"].types
    if arrow.is_temporal(field.type):
        raise dates_error(f"X, column {field.name!r},", field.type)
    if arrow.is_decimal(field.type) or arrow.is_null(field.type):
        return _WITH_NULLS
    if (
        arrow.is_floating(field.type)
        or arrow.is_integer(field.type)
        or arrow.is_boolean(field.type)
    ):
        found = np.dtype(field.type.to_pandas_dtype())
        return found if found.kind == "f" or not has_nulls else _WITH_NULLS
    raise ValueError(
        f"X is {kind} whose column {field.name!r} has the type {field.type}; allowed are columns "
        "of numbers. Leave it out, or convert it to numbers first."
    )


def _of_fragments(kind: str, schema: Any, fragments: list[Any]) -> ParquetReader:
    parts: list[Any] = []
    sizes: list[int] = []
    has_nulls: dict[str, bool] = {}
    for fragment in fragments:
        if not hasattr(fragment, "row_groups"):
            parts.append((fragment, None))
            sizes.append(int(fragment.count_rows()))
            has_nulls |= dict.fromkeys(schema.names, True)
            continue
        for group in fragment.row_groups:
            parts.append((fragment, group.id))
            sizes.append(int(group.num_rows))
            _look_for_nulls(has_nulls, schema, fragment.metadata.row_group(group.id))
    return ParquetReader(kind, schema, parts, sizes, has_nulls)


def _look_for_nulls(has_nulls: dict[str, bool], schema: Any, group: Any) -> None:
    """Record whether columns have missing values, by the statistics of a row group."""
    known = {}
    for j in range(group.num_columns):
        column = group.column(j)
        statistics = column.statistics
        told = statistics is not None and statistics.has_null_count
        known[column.path_in_schema] = not told or statistics.null_count > 0
    for name in schema.names:
        has_nulls[name] = has_nulls.get(name, False) or known.get(name, True)


def of_pyarrow_dataset(X: Any, name: str) -> ParquetReader | None:
    """Return a reader of a data set of pyarrow."""
    if not isinstance(X, sys.modules["pyarrow.dataset"].Dataset):
        return None
    try:
        fragments = list(X.get_fragments())
    except ValueError as error:
        raise ValueError(
            f"{name} is a filtered data set of pyarrow, whose rows cannot be read in parts. Give "
            "the data set without the filter, and weights of 0 for the rows that do not count, or "
            f"write the rows to a file: {error}"
        ) from error
    return _of_fragments("a data set of pyarrow", X.schema, fragments)


def of_parquet(X: Any, name: str) -> ParquetReader | None:
    """Return a reader of a Parquet file or a ParquetDataset."""
    parquet = sys.modules["pyarrow.parquet"]
    if isinstance(X, parquet.ParquetDataset):
        if getattr(X, "_filter_expression", None) is not None:
            raise ValueError(
                f"{name} is a filtered ParquetDataset, whose rows cannot be read in parts. Give it "
                "without filters, and weights of 0 for the rows that do not count, or write the "
                "rows to a file."
            )
        return _of_fragments("a ParquetDataset", X.schema, X.fragments)
    if not isinstance(X, parquet.ParquetFile):
        return None
    has_nulls: dict[str, bool] = {}
    groups = range(X.metadata.num_row_groups)
    for i in groups:
        _look_for_nulls(has_nulls, X.schema_arrow, X.metadata.row_group(i))
    sizes = [X.metadata.row_group(i).num_rows for i in groups]
    return ParquetReader(
        "a ParquetFile", X.schema_arrow, [(X, i) for i in groups], sizes, has_nulls
    )


# ------------------------------------------------------------------------------------------ dask


class DaskArrayReader(GroupReader):
    """Reads the blocks of an array of dask."""

    def __init__(self, X: Any, name: str) -> None:
        kind = "an array of dask"
        check_shape(X.shape, kind, name)
        check_dtype(X.dtype, f"{name} is {kind}")
        n_columns = X.shape[1]
        if X.numblocks[1] > 1:
            X = X.rechunk({1: -1})
        sizes = X.chunks[0]
        if any(np.isnan(size) for size in sizes):
            delayed = sys.modules["dask"].delayed
            blocks = X.to_delayed()[:, 0]
            sizes = sys.modules["dask"].compute(*(delayed(_n_rows)(block) for block in blocks))
        self.blocks = X.blocks
        super().__init__(kind, list(map(int, sizes)), X.dtype, None, int(n_columns))

    def _rows_of(self, number: int) -> Array:
        found = self.blocks[number].compute()
        return found.toarray() if sparse.issparse(found) else np.asarray(found)


def _n_rows(block: Any) -> int:
    return int(block.shape[0])


class DaskFrameReader(GroupReader):
    """Reads the partitions of a data frame of dask."""

    def __init__(self, X: Any, name: str) -> None:
        kind = "a data frame of dask"
        types = []
        for column, dtype in X.dtypes.items():
            if "date" in str(dtype) or "time" in str(dtype) or str(dtype).startswith("period"):
                raise dates_error(f"{name}, column {column!r},", dtype)
            if getattr(dtype, "kind", "O") not in "biuf":
                raise ValueError(
                    f"{name} is {kind} whose column {column!r} has the type {dtype}; allowed are "
                    "columns of numbers. Leave it out, or convert it to numbers first."
                )
            types.append(dtype if isinstance(dtype, np.dtype) else _WITH_NULLS)
        sizes = X.map_partitions(len).compute()
        self.frames, self._meta = X.partitions, X._meta
        dtype = np.result_type(*types) if types else _WITH_NULLS
        super().__init__(kind, list(map(int, sizes)), dtype, list(X.columns), len(X.columns))

    def _rows_of(self, number: int) -> Array:
        frame = self.frames[number].compute()
        more = {"na_value": np.nan} if self.dtype.kind == "f" else {}
        rows: Array = frame.to_numpy(dtype=self.dtype, **more)
        return rows

    def header(self) -> Any:
        """Return a data frame without rows."""
        return self._meta


def of_dask_array(X: Any, name: str) -> DaskArrayReader | None:
    """Return a reader of an array of dask."""
    is_array = isinstance(X, sys.modules["dask.array"].Array)
    return DaskArrayReader(X, name) if is_array else None


def of_dask_frame(X: Any, name: str) -> DaskFrameReader | None:
    """Return a reader of a data frame of dask."""
    is_frame = isinstance(X, sys.modules["dask.dataframe"].DataFrame)
    return DaskFrameReader(X, name) if is_frame else None
