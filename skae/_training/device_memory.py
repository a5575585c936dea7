"""Rows on a GPU, which other processes may use at the same time."""

import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import torch
from filelock import FileLock, Timeout  # which torch requires

from skae._utils.memory import is_lack_of_memory

# Largest fraction of the free memory of a GPU that rows may take.
_SHARE = 0.5
# Seconds to wait for another process that copies its rows.
_PATIENCE = 60.0


def on_device(source: Any, device: torch.device) -> Any:
    """Return rows on a device; those that leave too little of a GPU's memory stay as they are.

    Processes, such as those of a search with `n_jobs`, copy their rows one after another, so that
    each sees how much memory the others have left.
    """
    if device.type != "cuda":
        return source.to(device)
    with _taking_turns(device):
        free, _ = torch.cuda.mem_get_info(device)
        if source.nbytes > _SHARE * free:
            return source
        try:
            return source.to(device)
        except RuntimeError as error:
            if not is_lack_of_memory(error):
                raise
            return source


@contextmanager
def _taking_turns(device: torch.device) -> Iterator[None]:
    """Context that only one process is in at a time; after some time, others no longer wait."""
    name = str(torch.cuda.get_device_properties(device).uuid)
    lock = FileLock(Path(tempfile.gettempdir()) / f"skae-{name}.lock")
    try:
        lock.acquire(timeout=_PATIENCE)
    except (Timeout, OSError):  # training is slower then, but not wrong
        yield
        return
    try:
        yield
    finally:
        lock.release()
