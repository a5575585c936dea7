"""Rows of a Dask collection beside their weights or targets, block by block."""

from collections.abc import Callable
from math import isnan
from typing import Any, NamedTuple

import numpy as np

from skae._utils.dask_inputs import is_dask, is_dask_array, is_dask_frame
from skae._utils.inputs import check_rows_are_2d

# Number of results of blocks that are combined at once.
_FAN_IN = 8


class Aligned(NamedTuple):
    """Rows, and for each name the values that belong to them, which may also be a number."""

    rows: Any
    beside: dict[str, Any]


def check_columns_known(X: Any, name: str = "X") -> None:
    """Raise unless a collection has two dimensions and a known number of columns."""
    check_rows_are_2d(X, name)
    if len(X.shape) == 2 and isinstance(X.shape[1], float) and isnan(X.shape[1]):
        raise ValueError(
            f"{name} has an unknown number of columns. Compute it first with "
            f"{name}.compute_chunk_sizes()."
        )


def align(X: Any, **beside: Any) -> Aligned:
    """Rows in blocks with all columns, and values in the same blocks; None is left out.

    If the lengths of blocks are known for the values, but not for the rows, they are computed.
    Otherwise, values of unknown lengths must be in the blocks of the rows.
    """
    if is_dask_array(X) and X.ndim == 2 and X.numblocks[1] > 1:
        X = X.rechunk({1: -1})
    given = {name: values for name, values in beside.items() if values is not None}
    return Aligned(X, {name: _in_blocks_of(X, name, values) for name, values in given.items()})


def n_blocks(X: Any) -> int:
    """Number of blocks of rows."""
    return int(X.npartitions if is_dask_frame(X) else X.numblocks[0])


def _in_blocks_of(X: Any, name: str, values: Any) -> Any:
    import dask.array as da

    if is_dask_frame(values) and is_dask_frame(X):
        _check_same_partitions(X, name, values)
        return values
    if is_dask_frame(values):
        values = values.to_dask_array()
    if not is_dask(values):
        values = np.asarray(values)
        if values.ndim == 0:
            return values[()]
    lengths = _known_lengths(X)
    if lengths is None and not (is_dask(values) and _is_unknown(values.shape[0])):
        lengths = _computed_lengths(X)
    if lengths is not None and not _is_unknown(values.shape[0]):
        if values.shape[0] != sum(lengths):
            raise ValueError(
                f"{name}.shape == {tuple(values.shape)}, expected ({sum(lengths)},): one value for "
                "each row of X."
            )
        chunks = (lengths, *values.shape[1:])
        same = is_dask(values) and values.chunks[0] == lengths
        if not is_dask(values):
            values = da.from_array(values, chunks=chunks)
        elif not same:
            values = values.rechunk(chunks)
    elif values.numblocks[0] != n_blocks(X):
        raise ValueError(
            f"{name} has {values.numblocks[0]} blocks of unknown lengths, and X has {n_blocks(X)} "
            "blocks. Give both in the same blocks, or compute the lengths first with "
            f"{name}.compute_chunk_sizes()."
        )
    return _as_frame(values) if is_dask_frame(X) else values


def _as_frame(values: Any) -> Any:
    """An array as a series or a data frame with the same blocks."""
    import dask.dataframe as dd

    columns = None if values.ndim == 1 else [str(i) for i in range(values.shape[1])]
    return dd.from_dask_array(values, columns=columns)


def _check_same_partitions(X: Any, name: str, values: Any) -> None:
    same = values.npartitions == X.npartitions
    if same and X.known_divisions and values.known_divisions:
        same = X.divisions == values.divisions
    if not same:
        raise ValueError(
            f"{name} has other partitions than X: {values.npartitions} with divisions "
            f"{values.divisions}, and X has {X.npartitions} with divisions {X.divisions}. Take "
            f"both from one data frame, or give {name}.repartition(divisions=X.divisions)."
        )


def _is_unknown(length: Any) -> bool:
    return isinstance(length, float) and isnan(length)


def _known_lengths(X: Any) -> tuple[int, ...] | None:
    if is_dask_frame(X) or any(map(_is_unknown, X.chunks[0])):
        return None
    return tuple(X.chunks[0])


def _computed_lengths(X: Any) -> tuple[int, ...]:
    from dask.base import compute
    from dask.delayed import delayed

    parts = results_of_blocks(Aligned(X, {}), delayed(_length, traverse=False))
    return tuple(compute(*parts))


def _length(rows: Any) -> int:
    return int(rows.shape[0])


def results_of_blocks(given: Aligned, function: Any) -> list[Any]:
    """Delayed results of `function(rows, **beside)` for each block; `function` is delayed."""
    if is_dask_frame(given.rows):
        import pandas as pd

        return list(mapped_frames(given, function, pd.Series([], dtype=object)).to_delayed())
    found = mapped_arrays(given, function, np.empty(0, dtype=object))
    return list(found.to_delayed().ravel())


def mapped_frames(given: Aligned, function: Any, meta: Any) -> Any:
    """A data frame or series of the results of `function`, which are like `meta`."""
    names = tuple(given.beside)
    rows, beside = given.rows, list(given.beside.values())
    if not is_dask_frame(rows):
        rows = _as_frame(rows)
        beside = [_as_frame(values) if is_dask(values) else values for values in beside]
    return rows.map_partitions(
        _call,
        names,
        function,
        *beside,
        meta=meta,
        enforce_metadata=False,
        align_dataframes=False,
    )


def mapped_arrays(given: Aligned, function: Any, meta: Any, axis: int = 0) -> Any:
    """An array of the results of `function`, which are like `meta` with rows along this axis."""
    import dask.array as da

    sizes = {chr(ord("p") + i): n for i, n in enumerate(meta.shape) if i != axis}
    letters = list(sizes)
    letters.insert(axis, "i")
    pairs: list[Any] = []
    for values in given.beside.values():
        pairs += [values, "il"[: np.ndim(values)] if is_dask(values) else None]
    return da.blockwise(
        _call,
        "".join(letters),
        given.rows,
        "ij",
        tuple(given.beside),
        None,
        function,
        None,
        *pairs,
        new_axes=sizes,
        concatenate=True,
        align_arrays=False,
        dtype=meta.dtype,
        meta=meta,
    )


def _call(rows: Any, names: tuple[str, ...], function: Callable[..., Any], *beside: Any) -> Any:
    return function(rows, **dict(zip(names, beside, strict=True)))


def combined(parts: list[Any], combine: Callable[[list[Any]], Any]) -> Any:
    """Compute the combination of delayed results, a few of them at a time."""
    from dask.delayed import delayed

    task = delayed(combine, traverse=False)
    while len(parts) > 1:
        parts = [task(parts[i : i + _FAN_IN]) for i in range(0, len(parts), _FAN_IN)]
    return task(parts).compute() if parts else combine([])
