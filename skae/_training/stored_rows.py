"""Batches of stored rows in random order, of which only parts are in memory at a time.

In each epoch, small blocks of consecutive rows are read in random order into a window, whose rows
are shuffled. The rows are divided into as many stretches as a window has blocks, and each window
takes one block of each stretch, at random. A window therefore resembles all rows, also if they are
sorted. The next window is read while batches are taken from the present one.
"""

import queue
import threading
from collections.abc import Iterator
from typing import Any, NamedTuple

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from skae._training.sources import source_of_part
from skae._training.sparse_rows import SparseTensor
from skae._utils import stored_rows
from skae._utils.stored_rows import StoredRows

Index = NDArray[np.intp]

# With fewer blocks in a window than this, batches would have rows of few parts of the data.
_FEW_BLOCKS = 8


class Shuffle:
    """A random order of stored rows in which few parts of them are needed at a time.

    Parameters
    ----------
    rows : StoredRows
        The rows.
    index : Tensor or None
        Indices of the rows to shuffle; None means all.
    """

    def __init__(self, rows: StoredRows, index: Tensor | None) -> None:
        self._rows, self._edges = rows.places(None if index is None else index.numpy())
        n_rows, n_blocks = len(self._rows), len(self._edges) - 1
        of_window = max(1, int(stored_rows.WINDOW_BYTES / rows.row_bytes))
        self.n_windows = 1
        if n_rows > of_window:  # a window has room for as many blocks of the largest size
            n_of_window = max(1, of_window // int(np.diff(self._edges).max()))
            self.n_windows = -(-n_blocks // n_of_window)
        self.kind, self.row_bytes = rows.kind, rows.row_bytes

    @property
    def advice(self) -> str | None:
        """What to change if windows have so few blocks that they do not resemble all rows."""
        blocks = (len(self._edges) - 1) / self.n_windows
        if self.n_windows == 1 or blocks >= _FEW_BLOCKS:
            return None
        n_rows = len(self._rows) / (len(self._edges) - 1)
        size = n_rows * self.row_bytes / 2**20
        return (
            f"X is {self.kind} that is read in parts of about {n_rows:.0f} rows ({size:.0f} MiB), "
            f"of which about {blocks:.1f} are shuffled together. Batches have rows of few parts, "
            "which makes training worse if similar rows follow each other. Store X in smaller "
            "chunks or row groups, of at most 16 MiB, or store its rows in random order."
        )

    def windows(self, generator: torch.Generator) -> list[Index]:
        """Draw the rows of each window, as increasing indices."""
        n_blocks, k = len(self._edges) - 1, self.n_windows
        # Stretches of k consecutive blocks, each of which gives a block to every window. The last
        # one may have fewer blocks.
        n_stretches = -(-n_blocks // k)
        places = torch.rand((n_stretches, k), generator=generator).argsort(1).flatten().numpy()
        window_of = places[:n_blocks]
        order = np.argsort(window_of, kind="stable")
        counts = np.bincount(window_of, minlength=k)
        found = []
        for blocks in np.split(order, np.cumsum(counts)[:-1]):
            parts = [self._rows[self._edges[b] : self._edges[b + 1]] for b in blocks]
            found.append(np.concatenate(parts) if parts else np.empty(0, dtype=np.intp))
        return [window for window in found if len(window)]


class _Part(NamedTuple):
    """Some rows of a batch: places in a window."""

    window: int
    places: Tensor


def shuffled_parts(
    windows: list[Index], sizes: list[int], generator: torch.Generator
) -> Iterator[list[_Part]]:
    """Yield batches of these sizes, whose rows are taken from the windows in their order."""
    window, places = -1, torch.empty(0, dtype=torch.int64)
    for size in sizes:
        parts: list[_Part] = []
        while size:
            if not len(places):
                window += 1
                places = torch.randperm(len(windows[window]), generator=generator)
            parts.append(_Part(window, places[:size]))
            places = places[size:]
            size -= len(parts[-1].places)
        yield parts


class WindowReader:
    """Reads windows one after another in a thread, at most one ahead of their use.

    It is a context, whose end also ends the thread.
    """

    def __init__(self, rows: StoredRows, windows: list[Index]) -> None:
        self._rows, self._windows = rows, windows
        self._stopped = threading.Event()
        # Arrays into which windows are read, in turns.
        self._free: queue.Queue[Any] = queue.Queue()
        self._read: queue.Queue[Any] = queue.Queue()
        self._present: tuple[int, Any, Any] = (-1, None, None)
        self._thread = threading.Thread(target=self._run, name="skae-reader", daemon=True)

    def __enter__(self) -> "WindowReader":
        for _ in range(2):
            self._free.put(None)
        self._thread.start()
        return self

    def __exit__(self, *error: object) -> None:
        self.close()

    def close(self) -> None:
        """End the thread."""
        self._stopped.set()
        self._free.put(None)
        if self._thread.ident is not None:
            self._thread.join()
        self._present = (-1, None, None)

    def _run(self) -> None:
        """Read all windows; an error is raised where its window is asked for."""
        try:
            for window in self._windows:
                memory = self._free.get()
                if self._stopped.is_set():
                    return
                out = None if memory is None or len(memory) < len(window) else memory
                if out is None and not self._is_sparse:
                    del memory
                    most = max(map(len, self._windows))
                    out = np.empty((most, self._rows.shape[1]), dtype=self._rows.read_dtype)
                part = None if out is None else out[: len(window)]
                found = self._rows.take(window, part, self._stopped.is_set)
                self._read.put((found, out))
        except BaseException as error:
            self._read.put((error, None))

    @property
    def _is_sparse(self) -> bool:
        return self._rows.is_sparse

    def window(self, number: int) -> Tensor | SparseTensor:
        """Return a window; earlier ones may no longer be used."""
        while self._present[0] < number:
            last, _, memory = self._present
            self._present = (last, None, None)
            if last >= 0:
                self._free.put(memory)
            del memory
            found, memory = self._read.get()
            if isinstance(found, BaseException):
                raise found
            self._present = last + 1, source_of_part(found), memory
        source: Tensor | SparseTensor = self._present[1]
        return source
